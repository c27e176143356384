/* The mirror between processes: a peer's windows, what a fork child has of it, and descriptors that are not a mirror. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/atomics.h"
#include "base/clock.h"
#include "mirror_support.h"

static void expect_child_success(pid_t pid)
{
	int status;

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- a peer, started before there is a mirror ---------------------------------------------------------------------- */

struct order {
	uint64_t addr;
	uint64_t length;
	uint64_t seed;
};

static void send_fd(int socket, int fd)
{
	union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof fd)]; } control = { .bytes = { 0 } };
	struct iovec part = { .iov_base = "m", .iov_len = 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
		.msg_controllen = sizeof control };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	*header = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd) };
	memcpy(CMSG_DATA(header), &fd, sizeof fd);
	CHECK_EQ(sendmsg(socket, &message, 0), 1);
}

static int receive_fd(int socket)
{
	union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int))]; } control;
	char byte;
	struct iovec part = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
		.msg_controllen = sizeof control };
	int fd;

	CHECK_EQ(recvmsg(socket, &message, MSG_CMSG_CLOEXEC), 1);
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
	return fd;
}

/* Checks each range it is told of against the seed, then fills it with the next seed. */
static int run_peer(int socket)
{
	struct ffv_windows *windows;
	struct order order;

	CHECK_OK(ffv_windows_create(receive_fd(socket), &windows));
	while (recv(socket, &order, sizeof order, 0) == (ssize_t)sizeof order) {
		uint8_t *memory = ffv_windows_at(windows, order.addr);
		CHECK(memory);
		CHECK(is_filled(memory, order.length, order.seed));
		fill(memory, order.length, order.seed + 1);
		CHECK_EQ(send(socket, &order, sizeof order, 0), (ssize_t)sizeof order);
	}
	ffv_windows_destroy(windows);
	return 0;
}

static void exchange(int socket, void *memory, size_t length, uint64_t seed)
{
	struct order order = { address_of(memory), length, seed };

	fill(memory, length, seed);
	CHECK_EQ(send(socket, &order, sizeof order, 0), (ssize_t)sizeof order);
	CHECK_EQ(recv(socket, &order, sizeof order, 0), (ssize_t)sizeof order);
	CHECK(is_filled(memory, length, seed + 1));
}

static void test_peer(void)
{
	int sockets[2], fd;
	struct ffv_range mirrored;
	void *own;

	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets));
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		close(sockets[0]);
		exit(run_peer(sockets[1]));
	}
	close(sockets[1]);
	CHECK_OK(ffv_mirror_fd(&fd));
	send_fd(sockets[0], fd);
	CHECK_OK(ffv_mirror_alloc(MIB, &own));
	uint8_t *other = malloc(MIB);
	CHECK_OK(ffv_mirror_pin(address_of(other), MIB, 1, &mirrored));
	CHECK(mirrored.end - mirrored.first >= MIB - 2 * PAGE);
	for (uint64_t seed = 0; seed < 20; seed += 2) {
		exchange(sockets[0], own, MIB, seed);
		exchange(sockets[0], (void *)(uintptr_t)mirrored.first, mirrored.end - mirrored.first, seed);
	}
	ffv_mirror_unpin(address_of(other), MIB);
	CHECK(is_filled((uint8_t *)(uintptr_t)mirrored.first, mirrored.end - mirrored.first, 19));
	ffv_mirror_free(own, MIB);
	free(other);
	close(sockets[0]);
	expect_child_success(pid);
}

/* ---- fork ---------------------------------------------------------------------------------------------------------- */

static ino_t mirror_inode(void)
{
	struct stat st;
	int fd;

	CHECK_OK(ffv_mirror_fd(&fd));
	CHECK(!fstat(fd, &st));
	return st.st_ino;
}

/* In the child the parent's registered memory is some shared mapping; its own memory goes into a mirror of its own. */
static int run_fork_child(ino_t parents_mirror, uint8_t *pinned, void *allocated)
{
	struct ffv_range mirrored;

	CHECK(mirror_inode() != parents_mirror);
	CHECK_EQ(mirror_bytes(), 0);
	ffv_mirror_unpin(address_of(pinned), 8 * PAGE); /* the parent's, not the child's to give back */
	ffv_mirror_free(allocated, PAGE);
	CHECK_EQ(((uint8_t *)allocated)[0], 3);
	CHECK_OK(ffv_mirror_pin(address_of(pinned), 8 * PAGE, 1, &mirrored));
	CHECK_EQ(mirrored.first, mirrored.end);
	ffv_mirror_unpin(address_of(pinned), 8 * PAGE);
	pinned[PAGE] = 99; /* shared with the parent, as documented */
	uint8_t *own = private_pages(4);
	fill(own, 4 * PAGE, 5);
	CHECK_OK(ffv_mirror_pin(address_of(own), 4 * PAGE, 1, &mirrored));
	CHECK_EQ(mirrored.end - mirrored.first, 4 * PAGE);
	CHECK_EQ(mirror_bytes(), 4 * (long long)PAGE);
	ffv_mirror_unpin(address_of(own), 4 * PAGE);
	CHECK(is_filled(own, 4 * PAGE, 5));
	return 0;
}

static void test_fork(void)
{
	uint8_t *pinned = private_pages(8);
	struct ffv_range mirrored;
	void *allocated;
	long long before = mirror_bytes();

	fill(pinned, 8 * PAGE, 4);
	CHECK_OK(ffv_mirror_pin(address_of(pinned), 8 * PAGE, 1, &mirrored));
	CHECK_OK(ffv_mirror_alloc(PAGE, &allocated));
	memset(allocated, 3, PAGE);
	ino_t inode = mirror_inode();
	fflush(NULL);
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (!pid)
		_exit(run_fork_child(inode, pinned, allocated));
	expect_child_success(pid);
	CHECK_EQ(mirror_inode(), inode);
	CHECK_EQ(pinned[PAGE], 99);
	pinned[PAGE] = pattern(4, PAGE);
	CHECK(is_filled(pinned, 8 * PAGE, 4));
	ffv_mirror_unpin(address_of(pinned), 8 * PAGE);
	CHECK(is_filled(pinned, 8 * PAGE, 4) && !is_shared(pinned));
	ffv_mirror_free(allocated, PAGE);
	CHECK_EQ(mirror_bytes(), before);
	munmap(pinned, 8 * PAGE);
}

static _Atomic bool stop;

static void *pin_all_the_time(void *arg)
{
	struct ffv_range mirrored;

	while (!ffv_load_relaxed(&stop)) {
		CHECK_OK(ffv_mirror_pin(address_of(arg), 64 * PAGE, 1, &mirrored));
		ffv_mirror_unpin(address_of(arg), 64 * PAGE);
	}
	return NULL;
}

/* A fork in the middle of a registration waits for it: the child can write to all its memory and has the lock free. */
static void test_fork_while_moving(void)
{
	uint8_t *memory = private_pages(64);
	pthread_t thread;

	fill(memory, 64 * PAGE, 6);
	CHECK(!pthread_create(&thread, NULL, pin_all_the_time, memory));
	for (int i = 0; i < 100; i++) {
		pid_t pid = fork();
		CHECK(pid >= 0);
		if (!pid) {
			struct ffv_range mirrored;
			for (size_t k = 0; k < 64 * PAGE; k += PAGE)
				((volatile uint8_t *)memory)[k] = pattern(6, k);
			_exit(ffv_mirror_pin(address_of(memory), PAGE, 1, &mirrored) ? 1 : 0);
		}
		expect_child_success(pid);
	}
	ffv_store_relaxed(&stop, true);
	CHECK(!pthread_join(thread, NULL));
	CHECK(is_filled(memory, 64 * PAGE, 6));
	munmap(memory, 64 * PAGE);
}

/* ---- limits and hostile peers -------------------------------------------------------------------------------------- */

static void expect_refused(int fd, const char *word)
{
	struct ffv_windows *windows = NULL;

	CHECK(fd >= 0);
	CHECK_EQ(ffv_windows_create(fd, &windows), -EPROTO);
	CHECK(strstr(ffv_error_text(), word));
	CHECK(!windows);
	CHECK(fcntl(fd, F_GETFD) < 0 && errno == EBADF); /* taken, whatever came of it */
}

static int memory_file(unsigned long long bytes, int seals)
{
	int fd = memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	CHECK(fd >= 0 && !ftruncate(fd, (off_t)bytes) && !fcntl(fd, F_ADD_SEALS, seals));
	return fd;
}

static void test_hostile_descriptors(void)
{
	char path[64];
	int fd;

	expect_refused(memory_file(1ull << 47, 0), "not sealed");
	expect_refused(memory_file(1ull << 46, F_SEAL_SHRINK), "bytes");
	expect_refused(memory_file(0, F_SEAL_SHRINK), "bytes");
	expect_refused(open("/dev/zero", O_RDWR | O_CLOEXEC), "not a memory file");
	expect_refused(open("/tmp", O_RDONLY | O_CLOEXEC), "not a memory file");
	CHECK_OK(ffv_mirror_fd(&fd));
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	expect_refused(open(path, O_RDONLY | O_CLOEXEC), "reading and writing");
	CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	CHECK(ftruncate(fd, 0) < 0 && ftruncate(fd, (1ll << 47) + 4096) < 0);
	CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) < 0);
}

static void test_window_edges(void)
{
	struct ffv_windows *windows = own_windows();

	CHECK(!ffv_windows_at(windows, 1ull << 47));
	CHECK(!ffv_windows_at(windows, UINT64_MAX));
	uint8_t *last = ffv_windows_at(windows, (1ull << 47) - 1);
	CHECK(last && *last == 0);
	CHECK(ffv_windows_at(windows, (1ull << 47) - PAGE) == last - PAGE + 1);
	CHECK(ffv_windows_at(windows, 0));
	ffv_windows_destroy(windows);
}

/* Sanitizers reserve address space of their own, far beyond any limit. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static void test_address_space_limit(void)
{
	puts("address space limit: skipped, a sanitizer's own reservations exceed it");
}
#else
static void test_address_space_limit(void)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (!pid) {
		struct ffv_windows *windows = own_windows();
		struct rlimit limit = { 2048 * MIB, RLIM_INFINITY }, none = { RLIM_INFINITY, RLIM_INFINITY };
		struct ffv_range mirrored;
		uint8_t *memory = private_pages(64);
		uint64_t before_ns = ffv_clock_ns();
		void *giant;
		fill(memory, 64 * PAGE, 7);
		CHECK(!setrlimit(RLIMIT_AS, &limit));
		CHECK(!ffv_windows_at(windows, address_of(memory)));
		CHECK(strstr(ffv_error_text(), "RLIMIT_AS"));
		CHECK_EQ(ffv_mirror_alloc(4096 * MIB, &giant), -ENOMEM);
		CHECK_OK(ffv_mirror_pin(address_of(memory), 64 * PAGE, 1, &mirrored));
		ffv_mirror_unpin(address_of(memory), 64 * PAGE);
		CHECK(is_filled(memory, 64 * PAGE, 7));
		/* The failure is remembered: nothing is tried before its time, then the window is mapped. */
		CHECK(ffv_load_relaxed(&windows->retry_ns) > before_ns);
		CHECK(!setrlimit(RLIMIT_AS, &none));
		ffv_store_relaxed(&windows->retry_ns, UINT64_MAX);
		CHECK(!ffv_windows_at(windows, address_of(memory)));
		ffv_store_relaxed(&windows->retry_ns, ffv_clock_ns());
		CHECK(ffv_windows_at(windows, address_of(memory)));
		_exit(0);
	}
	expect_child_success(pid);
}
#endif

static void test_file_size_limit(void)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (!pid) {
		struct rlimit limit = { 1 << 30, RLIM_INFINITY };
		int fd;
		CHECK(!setrlimit(RLIMIT_FSIZE, &limit));
		CHECK_EQ(ffv_mirror_fd(&fd), -EFBIG); /* and not SIGXFSZ */
		CHECK(strstr(ffv_error_text(), "ulimit -f"));
		_exit(0);
	}
	expect_child_success(pid);
}

/* Without /proc nothing can be moved; whether memory is there is still known. */
static void test_without_proc(void)
{
	char empty[] = "/tmp/ffverbs-root-XXXXXX";

	CHECK(mkdtemp(empty));
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		uint8_t *memory = private_pages(4);
		struct ffv_range mirrored;
		if (chroot(empty) || chdir("/"))
			_exit(77);
		fill(memory, 4 * PAGE, 8);
		CHECK_OK(ffv_mirror_pin(address_of(memory), 4 * PAGE, 1, &mirrored));
		CHECK_EQ(mirrored.first, mirrored.end);
		ffv_mirror_unpin(address_of(memory), 4 * PAGE);
		CHECK(is_filled(memory, 4 * PAGE, 8));
		munmap(memory + 2 * PAGE, PAGE);
		CHECK_EQ(ffv_mirror_pin(address_of(memory), 4 * PAGE, 1, &mirrored), -EFAULT);
		_exit(0);
	}
	int status;
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	rmdir(empty);
	CHECK(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		puts("without /proc: skipped, chroot needs CAP_SYS_CHROOT");
	else
		CHECK_EQ(WEXITSTATUS(status), 0);
}

int main(void)
{
	setvbuf(stdout, NULL, _IONBF, 0); /* nothing is to be printed twice by children */
	test_peer();
	test_fork();
	test_fork_while_moving();
	test_hostile_descriptors();
	test_window_edges();
	test_address_space_limit();
	test_file_size_limit();
	test_without_proc();
	return 0;
}

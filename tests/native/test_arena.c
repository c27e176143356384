/* Arenas: created, shared through their descriptor, and refused when they are not what they should be. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <ffverbs/ffv.h>

#include "check.h"
#include "child.h"
#include "shm/attach.h"

#define CONTEXT_ID 0x0000000100000002ull

struct own {
	int fd;
	struct ffv_arena_shm *arena;
};

static struct own create(void)
{
	struct own own;
	int rc = ffv_arena_create("ffvtest", &own.fd, &own.arena);

	if (rc)
		fprintf(stderr, "%s\n", ffv_error_text());
	CHECK_EQ(rc, 0);
	own.arena->context_id = CONTEXT_ID;
	return own;
}

static void discard(struct own *own)
{
	ffv_arena_detach(own->arena);
	close(own->fd);
}

static void test_create(void)
{
	struct own own = create();
	struct stat st;

	CHECK(own.arena->magic == FFV_ARENA_MAGIC);
	CHECK_EQ(own.arena->layout_version, FFV_LAYOUT_VERSION);
	CHECK_EQ(own.arena->header_bytes, sizeof(struct ffv_arena_shm));
	CHECK_EQ(own.arena->arena_bytes, FFV_ARENA_BYTES);
	CHECK_EQ(own.arena->pid, getpid());
	CHECK(strstr(own.arena->program, "test_arena"));
	CHECK_EQ((uintptr_t)own.arena % 64, 0);
	CHECK(fcntl(own.fd, F_GETFD) & FD_CLOEXEC);
	CHECK_EQ(ftruncate(own.fd, 4096), -1); /* nobody can make a peer fault */
	CHECK_EQ(errno, EPERM);
	CHECK_EQ(ftruncate(own.fd, (off_t)FFV_ARENA_BYTES * 2), -1);
	CHECK_EQ(fcntl(own.fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	CHECK_EQ(errno, EPERM);
	CHECK_EQ(fstat(own.fd, &st), 0);
	CHECK(st.st_blocks * 512 < 1 << 20); /* sparse */
	/* The far end is there, too, and costs what is touched. */
	((char *)own.arena)[FFV_ARENA_BYTES - 1] = 1;
	CHECK_EQ(fstat(own.fd, &st), 0);
	CHECK(st.st_blocks * 512 < 5 << 20);
	discard(&own);
}

static void test_attach(void)
{
	struct own own = create();
	struct ffv_arena_shm *peer;
	int status;

	CHECK_EQ(ffv_arena_attach(own.fd, 0, &peer), 0);
	CHECK(peer != own.arena);
	CHECK(peer->context_id == CONTEXT_ID);
	ffv_fetch_or(&peer->attention[3], 8);
	CHECK_EQ(ffv_load_relaxed(&own.arena->attention[3]), 8);
	((char *)peer)[FFV_ARENA_BYTES / 2] = 42;
	CHECK_EQ(((char *)own.arena)[FFV_ARENA_BYTES / 2], 42);
	/* A fork child has no part in a peer's arena. */
	pid_t child = fork();
	if (child == 0) {
		signal(SIGSEGV, SIG_DFL);
		(void)((volatile struct ffv_arena_shm *)peer)->pid;
		_exit(0);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	ffv_arena_detach(peer);
	discard(&own);
}

static void write_to(void *arena)
{
	signal(SIGSEGV, SIG_DFL);
	((volatile struct ffv_arena_shm *)arena)->qpn_first = 1;
}

static void attach_and_write(void *arg)
{
	struct own *own = arg;
	struct ffv_arena_shm *peer;

	CHECK_EQ(ffv_arena_attach(own->fd, 1, &peer), 0);
	CHECK(peer->context_id == CONTEXT_ID);
	write_to(peer);
}

static void test_read_only(void)
{
	struct own own = create();

	CHECK_EQ(child_wait(child_start(geteuid(), attach_and_write, &own)), 128 + SIGSEGV);
	discard(&own);
}

/* ---- what is refused --------------------------------------------------------------------------------------------------- */

static void check_refused(int fd, const char *text)
{
	struct ffv_arena_shm *peer;

	CHECK_EQ(ffv_arena_attach(fd, 0, &peer), -EPROTO);
	if (!strstr(ffv_error_text(), text)) {
		fprintf(stderr, "the text lacks \"%s\": %s\n", text, ffv_error_text());
		exit(1);
	}
}

static void test_wrong_headers(void)
{
	struct own own = create();
	char versions[64];

	own.arena->magic ^= 1;
	check_refused(own.fd, "not an arena");
	own.arena->magic ^= 1;
	own.arena->layout_version = 77;
	snprintf(versions, sizeof versions, "version 77, ours is %u", FFV_LAYOUT_VERSION);
	check_refused(own.fd, versions);
	own.arena->layout_version = FFV_LAYOUT_VERSION;
	own.arena->header_bytes++;
	check_refused(own.fd, "run the same ffverbs");
	own.arena->header_bytes--;
	own.arena->arena_bytes *= 2;
	check_refused(own.fd, "run the same ffverbs");
	own.arena->arena_bytes /= 2;
	own.arena->context_id = CONTEXT_ID & 0xffffffff;
	check_refused(own.fd, "no context id");
	own.arena->context_id = CONTEXT_ID & ~0xffffffffull;
	check_refused(own.fd, "no context id");
	own.arena->context_id = 0;
	check_refused(own.fd, "no context id");
	own.arena->context_id = CONTEXT_ID;
	struct ffv_arena_shm *peer;
	CHECK_EQ(ffv_arena_attach(own.fd, 0, &peer), 0); /* it was these, and nothing else */
	ffv_arena_detach(peer);
	discard(&own);
}

static int memfd_with(off_t bytes, int seals)
{
	int fd = memfd_create("ffvtest", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, bytes), 0);
	CHECK_EQ(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static void test_wrong_files(void)
{
	const int sealed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	struct own own = create();
	int ends[2], fd;

	fd = memfd_with((off_t)FFV_ARENA_BYTES, F_SEAL_GROW | F_SEAL_SEAL); /* could be shortened under us */
	check_refused(fd, "change its size");
	close(fd);
	fd = memfd_with((off_t)FFV_ARENA_BYTES, F_SEAL_SHRINK | F_SEAL_GROW);
	check_refused(fd, "seals");
	close(fd);
	fd = memfd_with((off_t)FFV_ARENA_BYTES - 4096, sealed);
	check_refused(fd, "bytes long");
	close(fd);
	fd = memfd_with(0, sealed);
	check_refused(fd, "0 bytes long");
	close(fd);
	fd = memfd_with((off_t)FFV_ARENA_BYTES, sealed); /* empty */
	check_refused(fd, "not an arena");
	close(fd);
	CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
	check_refused(ends[0], "not a memory file");
	close(ends[0]), close(ends[1]);
	fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
	check_refused(fd, "not a memory file");
	close(fd);
	check_refused(-1, "not a memory file");
	discard(&own);
}

/* A peer that hands out its arena for reading only cannot be written to: said, not crashed upon. */
static void test_descriptor_read_only(void)
{
	struct own own = create();
	struct ffv_arena_shm *peer;
	char path[40];

	snprintf(path, sizeof path, "/proc/self/fd/%d", own.fd);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	CHECK_EQ(ffv_arena_attach(fd, 0, &peer), -EACCES);
	CHECK_EQ(ffv_arena_attach(fd, 1, &peer), 0);
	ffv_arena_detach(peer);
	close(fd);
	discard(&own);
}

/* ---- limits of the process ----------------------------------------------------------------------------------------------- */

static void create_limited(void *arg)
{
	const struct rlimit limit = {1 << 30, 1 << 30};
	struct own own = {.fd = -7};
	const int which = *(int *)arg;

	CHECK_EQ(setrlimit(which, &limit), 0);
	int rc = ffv_arena_create("ffvtest", &own.fd, &own.arena);
	CHECK_EQ(rc, which == RLIMIT_AS ? -ENOMEM : -EFBIG);
	CHECK(strstr(ffv_error_text(), which == RLIMIT_AS ? "ulimit -v" : "ulimit -f"));
	CHECK_EQ(own.fd, -7); /* outputs are set on success only */
}

static void test_limits(void)
{
	int which = RLIMIT_FSIZE;

	child_run(geteuid(), create_limited, &which);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	printf("skipped: a sanitizer needs more address space than the limit leaves\n");
#else
	which = RLIMIT_AS;
	child_run(geteuid(), create_limited, &which);
#endif
}

static void create_without_files(void *unused)
{
	const struct rlimit none = {0, 0};
	struct own own;

	(void)unused;
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	CHECK_EQ(ffv_arena_create("ffvtest", &own.fd, &own.arena), -EMFILE);
}

int main(void)
{
	test_create();
	test_attach();
	test_read_only();
	test_wrong_headers();
	test_wrong_files();
	test_descriptor_read_only();
	test_limits();
	child_run(geteuid(), create_without_files, NULL);
	return 0;
}

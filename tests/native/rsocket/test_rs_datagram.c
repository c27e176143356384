/* Datagram sockets: addresses, lengths, peeking, waiting, and who is told to go by UDP. */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "rs_support.h"

static int bound(const char *text, struct sockaddr_in *addr)
{
	int fd = ffv_socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	uint32_t length = sizeof *addr;

	CHECK(fd >= 0);
	*addr = rs_address(text, 0);
	CHECK_OK(ffv_bind(fd, (struct sockaddr *)addr, sizeof *addr));
	CHECK_OK(ffv_getsockname(fd, (struct sockaddr *)addr, &length));
	CHECK(addr->sin_port != 0);
	return fd;
}

static long send_to(int fd, const struct sockaddr_in *to, const void *data, size_t length)
{
	struct iovec piece = { (void *)(uintptr_t)data, length };
	struct msghdr msg = { .msg_name = (void *)(uintptr_t)to, .msg_namelen = to ? sizeof *to : 0, .msg_iov = &piece, .msg_iovlen = 1 };

	return ffv_sendmsg(fd, &msg, 0);
}

/* Until the way is known, datagrams would go by UDP. */
static void send_surely(int fd, const struct sockaddr_in *to, const void *data, size_t length)
{
	long sent;

	while ((sent = send_to(fd, to, data, length)) == -EINPROGRESS || sent == -EAGAIN)
		usleep(200);
	CHECK_EQ(sent, (long)length);
}

static long receive(int fd, void *data, size_t length, int flags, struct sockaddr_in *from, int *told)
{
	struct iovec piece = { data, length };
	struct msghdr msg = { .msg_name = from, .msg_namelen = from ? sizeof *from : 0, .msg_iov = &piece, .msg_iovlen = 1 };
	long count = ffv_recvmsg(fd, &msg, flags);

	if (told)
		*told = msg.msg_flags;
	if (count >= 0 && from)
		CHECK_EQ(msg.msg_namelen, sizeof *from);
	return count;
}

static void await_datagram(int fd)
{
	struct ffv_rs_socket *armed;
	struct pollfd ready = { .fd = fd, .events = POLLIN };

	while (!(ffv_socket_poll(fd) & POLLIN)) {
		int mask = ffv_socket_arm(fd, &armed);
		int fired = mask & POLLIN ? 0 : poll(&ready, 1, HANG_MS);
		CHECK(mask & POLLIN || fired == 1);
		ffv_socket_disarm(armed, fired);
	}
}

static void test_every_length_arrives_with_the_senders_address(const char *text)
{
	static const size_t lengths[] = { 1, 0, 8, 511, 1472, 4000, FFV_SOCKET_DATAGRAM_BYTES };
	static uint8_t data[FFV_SOCKET_DATAGRAM_BYTES + 1], got[FFV_SOCKET_DATAGRAM_BYTES + 1];
	struct sockaddr_in here, there, from;
	int one = bound(text, &here), other = bound(text, &there);

	for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		rs_fill(data, lengths[i], i, 0);
		send_surely(one, &there, data, lengths[i]);
		CHECK_EQ(receive(other, got, sizeof got, 0, &from, NULL), (long)lengths[i]);
		rs_check(got, lengths[i], i, 0);
		CHECK_EQ(from.sin_port, here.sin_port);
		CHECK_EQ(from.sin_addr.s_addr, here.sin_addr.s_addr);
	}
	CHECK_EQ(send_to(one, &there, data, FFV_SOCKET_DATAGRAM_BYTES + 1), -EMSGSIZE);
	CHECK_OK(ffv_close_socket(one));
	CHECK_OK(ffv_close_socket(other));
}

/* A socket that is bound to the wildcard address sends from the address that the way there begins at. */
static void test_the_wildcard(void)
{
	struct sockaddr_in here, there, from, loopback, own;
	int one = bound("0.0.0.0", &here), other = bound("0.0.0.0", &there);
	char got[8];

	loopback = rs_address("127.0.0.1", ntohs(there.sin_port));
	own = rs_address(OWN_ADDRESS, ntohs(there.sin_port));
	send_surely(one, &loopback, "one", 3);
	CHECK_EQ(receive(other, got, sizeof got, 0, &from, NULL), 3);
	CHECK_EQ(from.sin_addr.s_addr, loopback.sin_addr.s_addr);
	CHECK_EQ(from.sin_port, here.sin_port);
	send_surely(one, &own, "two", 3);
	CHECK_EQ(receive(other, got, sizeof got, 0, &from, NULL), 3);
	CHECK_EQ(from.sin_addr.s_addr, own.sin_addr.s_addr);
	CHECK_OK(ffv_close_socket(one));
	CHECK_OK(ffv_close_socket(other));
}

static void test_peeking_and_cutting(void)
{
	struct sockaddr_in here, there;
	int one = bound("127.0.0.1", &here), other = bound("127.0.0.1", &there), told, bytes;
	char got[64] = "";

	CHECK_EQ(receive(other, got, sizeof got, MSG_DONTWAIT, NULL, NULL), -EAGAIN);
	send_surely(one, &there, "0123456789", 10);
	send_surely(one, &there, "ab", 2);
	await_datagram(other);
	CHECK_OK(ffv_socket_ioctl(other, FIONREAD, &bytes));
	CHECK_EQ(bytes, 10);
	CHECK_EQ(receive(other, got, 4, MSG_PEEK, NULL, &told), 4);
	CHECK_EQ(told & MSG_TRUNC, MSG_TRUNC);
	CHECK_EQ(receive(other, got, 4, MSG_PEEK | MSG_TRUNC, NULL, &told), 10);
	CHECK_EQ(receive(other, got, 4, 0, NULL, &told), 4); /* the rest of it is lost */
	CHECK_EQ(told & MSG_TRUNC, MSG_TRUNC);
	CHECK(!memcmp(got, "0123", 4));
	CHECK_EQ(receive(other, got, sizeof got, 0, NULL, &told), 2);
	CHECK_EQ(told, 0);
	CHECK_OK(ffv_close_socket(one));
	CHECK_OK(ffv_close_socket(other));
}

static void test_a_connected_socket_hears_its_peer_only(void)
{
	struct sockaddr_in addresses[4], name;
	uint32_t length = sizeof name;
	int fds[4];
	long rc;
	char got[8];

	for (int i = 0; i < 4; i++)
		fds[i] = bound("127.0.0.1", &addresses[i]);
	CHECK_EQ(send_to(fds[0], NULL, "x", 1), -EDESTADDRREQ);
	CHECK_OK(ffv_connect(fds[0], (struct sockaddr *)&addresses[1], sizeof addresses[1]));
	CHECK_OK(ffv_getpeername(fds[0], (struct sockaddr *)&name, &length));
	CHECK_EQ(name.sin_port, addresses[1].sin_port);
	send_surely(fds[0], NULL, "to 1", 4);
	CHECK_EQ(receive(fds[1], got, sizeof got, 0, NULL, NULL), 4);
	while ((rc = send_to(fds[2], &addresses[0], "not", 3)) == -EINPROGRESS)
		usleep(200);
	CHECK_EQ(rc, -ECONNREFUSED);
	send_surely(fds[1], &addresses[0], "from 1", 6);
	CHECK_EQ(receive(fds[0], got, sizeof got, 0, NULL, NULL), 6);
	CHECK_EQ(receive(fds[0], got, sizeof got, MSG_DONTWAIT, NULL, NULL), -EAGAIN);
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	CHECK_OK(ffv_connect(fds[0], &none, sizeof none));
	send_surely(fds[3], &addresses[0], "now", 3);
	CHECK_EQ(receive(fds[0], got, sizeof got, 0, NULL, NULL), 3);
	for (int i = 0; i < 4; i++)
		CHECK_OK(ffv_close_socket(fds[i]));
}

static int bound_too(struct sockaddr_in addr)
{
	int fd = ffv_socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), yes = 1;

	CHECK(fd >= 0);
	CHECK_OK(ffv_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes));
	CHECK_OK(ffv_bind(fd, (struct sockaddr *)&addr, sizeof addr));
	return fd;
}

static void check_next(int fd, const char *text)
{
	char got[16];

	CHECK_EQ(receive(fd, got, sizeof got, 0, NULL, NULL), (long)strlen(text));
	CHECK(!memcmp(got, text, strlen(text)));
}

/* As servers have a socket for each client: what comes goes to the one that is connected to its sender, else to the one that is not. */
static void test_sockets_that_share_an_address(void)
{
	struct sockaddr_in clients[4], there;
	int fds[4], first, second, third;

	for (int i = 0; i < 4; i++)
		fds[i] = bound("127.0.0.1", &clients[i]);
	int port = bound("127.0.0.1", &there);
	CHECK_OK(ffv_close_socket(port)); /* a number that is free */
	first = bound_too(there);
	CHECK_OK(ffv_connect(first, (struct sockaddr *)&clients[0], sizeof clients[0]));
	second = bound_too(there);
	CHECK_OK(ffv_connect(second, (struct sockaddr *)&clients[1], sizeof clients[1]));
	third = bound_too(there);
	send_surely(fds[0], &there, "zero", 4);
	send_surely(fds[1], &there, "one", 3);
	send_surely(fds[2], &there, "two", 3);
	check_next(first, "zero");
	check_next(second, "one");
	check_next(third, "two");
	CHECK_OK(ffv_close_socket(first)); /* which was asked for all of them; another one is now */
	send_surely(fds[3], &there, "three", 5);
	check_next(third, "three");
	CHECK_OK(ffv_close_socket(second));
	CHECK_OK(ffv_close_socket(third));
	for (int i = 0; i < 4; i++)
		CHECK_OK(ffv_close_socket(fds[i]));
}

static struct sockaddr_in udp_bound(int *fd)
{
	struct sockaddr_in addr = rs_address("127.0.0.1", 0);
	socklen_t length = sizeof addr;

	*fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	CHECK(*fd >= 0);
	CHECK_OK(bind(*fd, (struct sockaddr *)&addr, sizeof addr));
	CHECK_OK(getsockname(*fd, (struct sockaddr *)&addr, &length));
	return addr;
}

/* Datagrams go and come by either way, and what was peeked at is what is received. */
static void test_the_kernels_socket_beside(bool is_watched)
{
	static char large[20000];
	struct sockaddr_in addr, stranger_addr;
	int udp, stranger, bytes;
	uint64_t counts[2];
	char got[16];

	addr = udp_bound(&udp);
	stranger_addr = udp_bound(&stranger);
	int one = bound_too(addr);
	if (is_watched)
		CHECK_OK(ffv_socket_watch(one));
	CHECK_OK(ffv_socket_beside(one, udp));
	CHECK_EQ(ffv_socket_beside(one, udp), -EINVAL);
	while (ffv_datagrams_reach((struct sockaddr *)&addr, sizeof addr, (struct sockaddr *)&addr, sizeof addr) == -EINPROGRESS)
		usleep(200);
	struct pollfd ready = { .fd = one, .events = POLLIN };
	for (int i = 0; i < 20; i++) {
		if (is_watched)
			CHECK_EQ(poll(&ready, 1, 0), 0);
		CHECK_EQ(sendto(stranger, "udp", 3, 0, (struct sockaddr *)&addr, sizeof addr), 3);
		if (is_watched)
			CHECK_EQ(poll(&ready, 1, HANG_MS), 1);
		CHECK_EQ(receive(one, got, sizeof got, MSG_PEEK, NULL, NULL), 3);
		CHECK_OK(ffv_socket_ioctl(one, FIONREAD, &bytes));
		CHECK_EQ(bytes, 3);
		send_surely(one, &addr, "itself", 6); /* by UD */
		check_next(one, "udp");
		check_next(one, "itself");
	}
	CHECK_EQ(ffv_sendto(one, large, sizeof large, 0, (struct sockaddr *)&stranger_addr, sizeof stranger_addr), (long)sizeof large);
	CHECK_EQ(recv(stranger, large, sizeof large, 0), (long)sizeof large);
	CHECK_OK(ffv_socket_datagrams(one, counts));
	CHECK(counts[0] > 0 && counts[0] <= 20 && counts[1] == counts[0]);
	CHECK_OK(ffv_close_socket(one));
	CHECK_OK(close(udp));
	CHECK_OK(close(stranger));
}

static void test_who_goes_by_udp(void)
{
	struct sockaddr_in here, there, nobody = rs_address("127.0.0.1", 9), group = rs_address("239.1.2.3", 9);
	int one = bound("127.0.0.1", &here), other = bound("127.0.0.1", &there);
	long rc;

	while ((rc = send_to(one, &nobody, "x", 1)) == -EINPROGRESS)
		usleep(200);
	CHECK_EQ(rc, -ECONNREFUSED);
	CHECK_EQ(send_to(one, &group, "x", 1), -ECONNREFUSED);
	send_surely(one, &there, "x", 1);
	CHECK_OK(ffv_close_socket(other));
	while ((rc = send_to(one, &there, "x", 1)) == 1 || rc == -EAGAIN) /* until it is asked for again */
		usleep(1000);
	CHECK_EQ(rc, -ECONNREFUSED);
	CHECK_OK(ffv_close_socket(one));
}

/* More than there is room for: the rest is lost, and what comes later arrives again. */
static void test_a_receiver_that_is_slow(void)
{
	struct sockaddr_in here, there;
	int one = bound("127.0.0.1", &here), other = bound("127.0.0.1", &there);
	uint32_t sent = 1000, last = 0, got, count = 0;

	for (uint32_t i = 1; i <= sent; i++)
		send_surely(one, &there, &i, sizeof i);
	while (receive(other, &got, sizeof got, MSG_DONTWAIT, NULL, NULL) == sizeof got) {
		CHECK(got > last);
		last = got;
		count++;
	}
	CHECK(count >= 16 && count < sent);
	send_surely(one, &there, &sent, sizeof sent);
	CHECK_EQ(receive(other, &got, sizeof got, 0, NULL, NULL), sizeof got);
	CHECK_EQ(got, sent);
	CHECK_OK(ffv_close_socket(one));
	CHECK_OK(ffv_close_socket(other));
}

struct echo { int fd; uint32_t count; };

static void *echo(void *argument)
{
	struct echo *mine = argument;
	struct sockaddr_in from;
	uint32_t value;

	for (uint32_t i = 0; i < mine->count; i++) {
		CHECK_EQ(receive(mine->fd, &value, sizeof value, 0, &from, NULL), sizeof value);
		send_surely(mine->fd, &from, &value, sizeof value);
	}
	return NULL;
}

static void test_who_sleeps_is_woken(void)
{
	struct sockaddr_in here, there;
	struct echo mine = { bound("127.0.0.1", &there), 20000 };
	int one = bound("127.0.0.1", &here);
	pthread_t thread;
	uint32_t got;

	CHECK_OK(pthread_create(&thread, NULL, echo, &mine));
	for (uint32_t i = 0; i < mine.count; i++) {
		send_surely(one, &there, &i, sizeof i);
		await_datagram(one);
		CHECK_EQ(receive(one, &got, sizeof got, MSG_DONTWAIT, NULL, NULL), sizeof got);
		CHECK_EQ(got, i);
	}
	CHECK_OK(pthread_join(thread, NULL));
	CHECK_OK(ffv_close_socket(one));
	CHECK_OK(ffv_close_socket(mine.fd));
}

/* In a process of its own, forked before anything of the library is used: it echoes until it is killed. */
static pid_t start_echo(struct sockaddr_in *addr)
{
	struct echo mine = { .count = UINT32_MAX };
	int ends[2];

	CHECK_OK(pipe(ends));
	pid_t child = fork();
	CHECK(child >= 0);
	if (!child) {
		CHECK_OK(prctl(PR_SET_PDEATHSIG, SIGKILL)); /* a test that fails leaves nobody behind */
		mine.fd = bound("127.0.0.1", addr);
		CHECK_EQ(write(ends[1], addr, sizeof *addr), (long)sizeof *addr);
		echo(&mine);
		_exit(0);
	}
	CHECK_EQ(read(ends[0], addr, sizeof *addr), (long)sizeof *addr);
	CHECK_OK(close(ends[0]));
	CHECK_OK(close(ends[1]));
	return child;
}

static void test_another_process_that_is_killed(pid_t child, const struct sockaddr_in *there)
{
	struct sockaddr_in here, from;
	int one = bound("127.0.0.1", &here);
	uint32_t got;
	long rc;

	for (uint32_t i = 0; i < 2000; i++) {
		send_surely(one, there, &i, sizeof i);
		CHECK_EQ(receive(one, &got, sizeof got, 0, &from, NULL), sizeof got);
		CHECK_EQ(got, i);
		CHECK_EQ(from.sin_port, there->sin_port);
	}
	CHECK_OK(kill(child, SIGKILL));
	CHECK_EQ(waitpid(child, NULL, 0), child);
	while ((rc = send_to(one, there, "x", 1)) == 1 || rc == -EAGAIN)
		usleep(1000);
	CHECK(rc == -EINPROGRESS || rc == -ECONNREFUSED);
	CHECK_OK(ffv_close_socket(one));
}

int main(void)
{
	struct sockaddr_in echoes;

	opened_directory();
	pid_t child = start_echo(&echoes);
	test_every_length_arrives_with_the_senders_address("127.0.0.1");
	test_every_length_arrives_with_the_senders_address(OWN_ADDRESS);
	test_the_wildcard();
	test_peeking_and_cutting();
	test_a_connected_socket_hears_its_peer_only();
	test_who_goes_by_udp();
	test_sockets_that_share_an_address();
	test_the_kernels_socket_beside(false);
	test_the_kernels_socket_beside(true);
	test_a_receiver_that_is_slow();
	test_who_sleeps_is_woken();
	test_another_process_that_is_killed(child, &echoes);
	scratch_remove();
	return 0;
}

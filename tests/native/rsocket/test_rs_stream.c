/* Streams: what is sent comes, in order, to its end; readiness; and every ordinary failure. */
#include "rs_support.h"

static void test_both_ways(void)
{
	int pair[2];
	char got[64];

	rs_pair(pair);
	CHECK_EQ(ffv_send(pair[0], "hello", 5, 0), 5);
	CHECK_EQ(ffv_recv(pair[1], got, sizeof got, MSG_PEEK), 5);
	CHECK_EQ(ffv_recv(pair[1], got, sizeof got, 0), 5);
	CHECK(memcmp(got, "hello", 5) == 0);
	CHECK_EQ(ffv_send(pair[1], "back", 4, 0), 4);
	CHECK_EQ(ffv_recv(pair[0], got, 2, 0), 2);
	CHECK_EQ(ffv_recv(pair[0], got + 2, 2, 0), 2);
	CHECK(memcmp(got, "back", 4) == 0);
	CHECK_EQ(ffv_recv(pair[0], got, 1, MSG_DONTWAIT), -EAGAIN);
	CHECK_OK(ffv_close_socket(pair[0]));
	CHECK_EQ(ffv_recv(pair[1], got, sizeof got, 0), 0);
	while (!(ffv_socket_poll(pair[1]) & POLLHUP))
		usleep(1000);
	CHECK_EQ(ffv_send(pair[1], "a", 1, 0), 1); /* as with TCP, the first goes nowhere without an error */
	CHECK_EQ(ffv_send(pair[1], "b", 1, 0), -EPIPE);
	CHECK_OK(ffv_close_socket(pair[1]));
	CHECK_EQ(ffv_close_socket(pair[1]), -EBADF);
}

struct stream { int fd; uint64_t seed; size_t total; };

static void *write_all(void *arg)
{
	struct stream *stream = arg;
	static uint8_t data[200000];
	unsigned state = (unsigned)stream->seed;

	for (size_t done = 0; done < stream->total;) {
		size_t length = 1 + (size_t)rand_r(&state) % (rand_r(&state) % 3 ? 700 : sizeof data);
		length = length < stream->total - done ? length : stream->total - done;
		rs_fill(data, length, stream->seed, done);
		CHECK_EQ(ffv_send(stream->fd, data, length, 0), length);
		done += length;
	}
	CHECK_OK(ffv_shutdown(stream->fd, SHUT_WR));
	return NULL;
}

static void test_much(void)
{
	unsigned seed = test_seed();
	static uint8_t data[150000];
	pthread_t thread;
	int pair[2];
	size_t done = 0;
	long count;

	rs_pair(pair);
	struct stream stream = { pair[0], seed, 30u << 20 };
	CHECK_EQ(pthread_create(&thread, NULL, write_all, &stream), 0);
	while ((count = ffv_recv(pair[1], data, 1 + (size_t)rand_r(&seed) % sizeof data, 0)) > 0) {
		rs_check(data, (size_t)count, stream.seed, done);
		done += (size_t)count;
	}
	CHECK_EQ(count, 0);
	CHECK_EQ(done, stream.total);
	pthread_join(thread, NULL);
	ffv_close_socket(pair[0]);
	ffv_close_socket(pair[1]);
}

static void test_backpressure(void)
{
	static uint8_t data[70000];
	size_t sent = 0, got = 0;
	long count;
	int pair[2];

	rs_pair(pair);
	CHECK_EQ(ffv_socket_poll(pair[0]), POLLOUT);
	do {
		rs_fill(data, sizeof data, 7, sent);
		count = ffv_send(pair[0], data, sizeof data, MSG_DONTWAIT);
		sent += count > 0 ? (size_t)count : 0;
	} while (count > 0);
	CHECK_EQ(count, -EAGAIN);
	CHECK_EQ(ffv_socket_poll(pair[0]), 0);
	CHECK_EQ(ffv_socket_poll(pair[1]), POLLIN | POLLOUT);
	int readable;
	CHECK_OK(ffv_socket_ioctl(pair[1], FIONREAD, &readable));
	CHECK_EQ(readable, sent);
	while (got < sent) {
		count = ffv_recv(pair[1], data, sizeof data, 0);
		CHECK(count > 0);
		rs_check(data, (size_t)count, 7, got);
		got += (size_t)count;
	}
	CHECK_EQ(ffv_socket_poll(pair[0]), POLLOUT);
	ffv_close_socket(pair[0]);
	ffv_close_socket(pair[1]);
}

static void test_small_ones_unread(void)
{
	size_t sent = 0, got = 0;
	uint8_t byte = 1;
	int pair[2];

	rs_pair(pair);
	while (ffv_send(pair[0], &byte, 1, MSG_DONTWAIT) == 1)
		sent++;
	CHECK(sent >= 256);
	while (ffv_recv(pair[1], &byte, 1, MSG_DONTWAIT) == 1)
		got++;
	CHECK_EQ(got, sent);
	CHECK_EQ(ffv_send(pair[0], &byte, 1, MSG_DONTWAIT), 1);
	ffv_close_socket(pair[0]);
	ffv_close_socket(pair[1]);
}

static void test_failures(void)
{
	struct sockaddr_in addr = rs_address("127.0.0.1", 9), elsewhere = rs_address("203.0.113.7", 9);
	int fd = rs_new(SOCK_NONBLOCK), pair[2];
	char got[8];
	uint32_t length = sizeof(int);
	int err;

	CHECK_EQ(ffv_socket(AF_UNIX, SOCK_STREAM, 0), -EAFNOSUPPORT);
	CHECK_EQ(ffv_socket(AF_INET, SOCK_SEQPACKET, 0), -ESOCKTNOSUPPORT);
	CHECK_EQ(ffv_connect(fd, (struct sockaddr *)&addr, sizeof addr), -ECONNREFUSED);
	CHECK_EQ(ffv_connect(fd, (struct sockaddr *)&elsewhere, sizeof elsewhere), -EHOSTUNREACH);
	CHECK_EQ(ffv_connect(fd, (struct sockaddr *)&addr, 4), -EINVAL);
	CHECK_EQ(ffv_bind(fd, (struct sockaddr *)&elsewhere, sizeof elsewhere), -EADDRNOTAVAIL);
	CHECK_EQ(ffv_recv(fd, got, 1, 0), -ENOTCONN);
	CHECK_EQ(ffv_send(fd, got, 1, 0), -EPIPE);
	CHECK_EQ(ffv_shutdown(fd, SHUT_WR), -ENOTCONN);
	CHECK_EQ(ffv_accept4(fd, NULL, NULL, 0), -EINVAL);
	CHECK_EQ(ffv_socket_poll(fd), POLLOUT | POLLHUP);
	ffv_close_socket(fd);
	CHECK_EQ(ffv_send(fd, got, 1, 0), -EBADF);
	rs_pair(pair);
	CHECK_EQ(ffv_send(pair[0], "x", 1, MSG_OOB), -EOPNOTSUPP);
	CHECK_EQ(ffv_connect(pair[0], (struct sockaddr *)&addr, sizeof addr), -EISCONN);
	CHECK_EQ(ffv_send(pair[0], "x", 1, 0), 1);
	ffv_close_socket(pair[1]); /* with data unread: a reset */
	CHECK_EQ(ffv_recv(pair[0], got, 1, 0), -ECONNRESET);
	CHECK_EQ(ffv_recv(pair[0], got, 1, 0), 0);
	CHECK_EQ(ffv_send(pair[0], "x", 1, 0), -EPIPE);
	CHECK_OK(ffv_getsockopt(pair[0], SOL_SOCKET, SO_ERROR, &err, &length));
	CHECK_EQ(err, 0);
	ffv_close_socket(pair[0]);
}

static void test_sleeping_on_the_number(void)
{
	struct ffv_rs_socket *armed;
	struct pollfd ready;
	int pair[2];
	char got;

	rs_pair(pair);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(ffv_socket_arm(pair[1], &armed), POLLOUT);
		ready = (struct pollfd){ .fd = pair[1], .events = POLLIN };
		while (poll(&ready, 1, 0) == 1) { /* without reason, once at most */
			ffv_socket_disarm(armed, 1);
			CHECK_EQ(ffv_socket_arm(pair[1], &armed), POLLOUT);
		}
		uint64_t before = ffv_socket_changes(pair[1]);
		CHECK_EQ(ffv_send(pair[0], "x", 1, 0), 1);
		CHECK_EQ(poll(&ready, 1, HANG_MS), 1);
		ffv_socket_disarm(armed, 1);
		CHECK_EQ(ffv_socket_poll(pair[1]), POLLIN | POLLOUT);
		CHECK(ffv_socket_changes(pair[1]) != before);
		CHECK_EQ(ffv_recv(pair[1], &got, 1, 0), 1);
	}
	ffv_close_socket(pair[0]);
	ffv_close_socket(pair[1]);
}

/* Of those who sleep, the last one who wakes up for another reason takes back that the stream tells the kernel. */
static void test_waking_up_for_another_reason(void)
{
	struct ffv_rs_socket *one, *other;
	struct pollfd ready;
	int pair[2];
	char got;

	rs_pair(pair);
	ready = (struct pollfd){ .fd = pair[1], .events = POLLIN };
	CHECK_EQ(ffv_socket_arm(pair[1], &one), POLLOUT);
	while (poll(&ready, 1, 0) == 1) { /* what connecting has left */
		ffv_socket_disarm(one, 1);
		CHECK_EQ(ffv_socket_arm(pair[1], &one), POLLOUT);
	}
	CHECK_EQ(ffv_socket_arm(pair[1], &other), POLLOUT);
	ffv_socket_disarm(one, 0);
	CHECK_EQ(ffv_send(pair[0], "x", 1, 0), 1);
	CHECK_EQ(poll(&ready, 1, HANG_MS), 1); /* the other one still sleeps */
	ffv_socket_disarm(other, 1);
	CHECK_EQ(ffv_recv(pair[1], &got, 1, 0), 1);
	CHECK_EQ(ffv_socket_arm(pair[1], &one), POLLOUT);
	ffv_socket_disarm(one, 0);
	CHECK_EQ(ffv_send(pair[0], "y", 1, 0), 1);
	CHECK_EQ(poll(&ready, 1, 0), 0);
	CHECK_EQ(ffv_socket_arm(pair[1], &one), POLLIN | POLLOUT);
	ffv_socket_disarm(one, 0);
	CHECK_EQ(ffv_recv(pair[1], &got, 1, 0), 1);
	CHECK_EQ(got, 'y');
	ffv_close_socket(pair[0]);
	ffv_close_socket(pair[1]);
}

static void test_not_blocking(void)
{
	struct sockaddr_in addr;
	struct ffv_rs_socket *armed;
	int listener = rs_listener(&addr), fd = rs_new(SOCK_NONBLOCK), got;
	uint32_t length = sizeof got;

	CHECK_OK(ffv_socket_set_flags(listener, O_NONBLOCK));
	CHECK_EQ(ffv_accept4(listener, NULL, NULL, 0), -EAGAIN);
	int rc = ffv_connect(fd, (struct sockaddr *)&addr, sizeof addr);
	CHECK(rc == -EINPROGRESS || rc == 0); /* the thread of the library may be fast */
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	while (!(ffv_socket_arm(fd, &armed) & POLLOUT)) {
		CHECK_EQ(poll(&ready, 1, HANG_MS), 1);
		ffv_socket_disarm(armed, 1);
	}
	ffv_socket_disarm(armed, 0);
	CHECK_OK(ffv_getsockopt(fd, SOL_SOCKET, SO_ERROR, &got, &length));
	CHECK_EQ(got, 0);
	ready.fd = listener;
	while (!(ffv_socket_arm(listener, &armed) & POLLIN)) {
		CHECK_EQ(poll(&ready, 1, HANG_MS), 1);
		ffv_socket_disarm(armed, 1);
	}
	ffv_socket_disarm(armed, 0);
	struct sockaddr_in peer, own;
	uint32_t size = sizeof peer;
	int child = ffv_accept4(listener, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK);
	CHECK(child >= 0);
	CHECK_EQ(ffv_socket_flags(child) & O_NONBLOCK, O_NONBLOCK);
	CHECK_OK(ffv_getsockname(fd, (struct sockaddr *)&own, &size));
	CHECK(memcmp(&own, &peer, sizeof own) == 0);
	ffv_close_socket(child);
	ffv_close_socket(fd);
	ffv_close_socket(listener);
}

static int levels(int fd, int timeout_ms, int until)
{
	struct pollfd ready = { .fd = fd, .events = POLLIN | POLLOUT };

	for (int waited = 0; waited <= timeout_ms; waited++) {
		CHECK(poll(&ready, 1, 0) >= 0);
		if ((ready.revents & (POLLIN | POLLOUT)) == until)
			break;
		usleep(1000);
	}
	return ready.revents & (POLLIN | POLLOUT);
}

/* The kernel itself sees what is true of a watched socket. */
static void test_watched(void)
{
	static uint8_t data[70000];
	struct sockaddr_in addr;
	int listener = rs_listener(&addr), fd = rs_new(SOCK_NONBLOCK);

	CHECK_OK(ffv_socket_watch(listener));
	CHECK_OK(ffv_socket_watch(fd));
	CHECK_EQ(levels(listener, 0, POLLOUT) & POLLIN, 0);
	int rc = ffv_connect(fd, (struct sockaddr *)&addr, sizeof addr);
	CHECK(rc == 0 || rc == -EINPROGRESS);
	CHECK_EQ(levels(fd, HANG_MS, POLLOUT), POLLOUT);
	CHECK_EQ(levels(listener, HANG_MS, POLLIN) & POLLIN, POLLIN);
	int child = ffv_accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	CHECK(child >= 0);
	CHECK_EQ(levels(listener, 0, 0) & POLLIN, 0);
	CHECK_EQ(levels(child, 0, POLLOUT), POLLOUT);
	size_t sent = 0, got = 0;
	for (long count; (count = ffv_send(fd, data, sizeof data, 0)) > 0;)
		sent += (size_t)count;
	CHECK_EQ(levels(fd, 0, 0), 0);
	CHECK_EQ(levels(child, HANG_MS, POLLIN | POLLOUT), POLLIN | POLLOUT);
	for (long count; (count = ffv_recv(child, data, sizeof data, 0)) > 0;)
		got += (size_t)count;
	CHECK_EQ(got, sent);
	CHECK_EQ(levels(child, 0, POLLOUT), POLLOUT);
	CHECK_EQ(levels(fd, HANG_MS, POLLOUT), POLLOUT);
	ffv_close_socket(fd);
	CHECK_EQ(levels(child, HANG_MS, POLLIN | POLLOUT), POLLIN | POLLOUT);
	CHECK_EQ(ffv_recv(child, data, 1, 0), 0);
	ffv_close_socket(child);
	ffv_close_socket(listener);
}

int main(void)
{
	opened_directory();
	test_both_ways();
	int before = count_descriptors();
	for (int i = 0; i < 20; i++)
		test_both_ways();
	test_much();
	test_backpressure();
	test_small_ones_unread();
	test_failures();
	test_sleeping_on_the_number();
	test_waking_up_for_another_reason();
	test_not_blocking();
	test_watched();
	/* the connection manager's own thread may still be ending the last of them */
	for (int i = 0; i < HANG_MS && count_descriptors() > before; i++)
		usleep(1000);
	CHECK(count_descriptors() <= before);
	scratch_remove();
	return 0;
}

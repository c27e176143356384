/* Streams beside another connection: listeners that make a connection when they are asked for one, marks, and options. */
#include "rs_support.h"

/* A socket that asks; its own address in *own. */
static int ask(const struct sockaddr_in *where, struct sockaddr_in *own)
{
	uint32_t length = sizeof *own;
	int fd = rs_new(SOCK_NONBLOCK);

	*own = rs_address("127.0.0.1", 0);
	CHECK_OK(ffv_bind(fd, (struct sockaddr *)own, sizeof *own));
	CHECK_OK(ffv_getsockname(fd, (struct sockaddr *)own, &length));
	CHECK_EQ(ffv_connect(fd, (const struct sockaddr *)where, sizeof *where), -EINPROGRESS);
	return fd;
}

static int asked_listener(struct sockaddr_in *addr)
{
	uint32_t length = sizeof *addr;
	int fd = rs_new(SOCK_CLOEXEC);

	*addr = rs_address("127.0.0.1", 0);
	CHECK_OK(ffv_bind(fd, (struct sockaddr *)addr, sizeof *addr));
	CHECK_OK(ffv_listen_asked(fd, 8));
	CHECK_OK(ffv_getsockname(fd, (struct sockaddr *)addr, &length));
	return fd;
}

static void await_requests(int listener, int count)
{
	while (ffv_requests_waiting(listener) != count)
		usleep(1000);
}

static void await_events(int fd, int events)
{
	while (!(ffv_socket_poll(fd) & events))
		usleep(1000);
}

static int error_of(int fd)
{
	uint32_t length = sizeof(int);
	int err;

	CHECK_OK(ffv_getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &length));
	return err;
}

static void test_a_connection_is_made_when_it_is_asked_for(void)
{
	struct sockaddr_in addr, own[2], nobody = rs_address("127.0.0.1", 1);
	int listener = asked_listener(&addr), fds[2], made;
	char got[8];

	CHECK_EQ(ffv_requests_waiting(listener), 0);
	for (int i = 0; i < 2; i++)
		fds[i] = ask(&addr, &own[i]);
	await_requests(listener, 2);
	CHECK_EQ(ffv_accept_from(listener, (struct sockaddr *)&nobody, sizeof nobody), -ENOENT);
	CHECK_EQ(ffv_accept_from(listener, NULL, 0), -ENOENT);
	made = ffv_accept_from(listener, (struct sockaddr *)&own[1], sizeof own[1]);
	CHECK(made >= 0);
	CHECK_EQ(ffv_accept_from(listener, (struct sockaddr *)&own[1], sizeof own[1]), -ENOENT);
	await_events(fds[1], POLLOUT);
	CHECK_EQ(ffv_send(fds[1], "second", 6, 0), 6);
	await_events(made, POLLIN);
	CHECK_EQ(ffv_recv(made, got, sizeof got, 0), 6);
	CHECK_EQ(ffv_socket_poll(fds[0]), 0); /* still waits */
	CHECK_OK(ffv_refuse_from(listener, (struct sockaddr *)&own[0], sizeof own[0]));
	await_events(fds[0], POLLHUP);
	CHECK_EQ(error_of(fds[0]), ECONNREFUSED);
	CHECK_EQ(ffv_requests_waiting(listener), 0);
	for (int i = 0; i < 2; i++)
		CHECK_OK(ffv_close_socket(fds[i]));
	CHECK_OK(ffv_close_socket(made));
	CHECK_OK(ffv_close_socket(listener));
}

/* Who gives up leaves nothing that could be accepted; who is not asked for is refused when the listener goes. */
static void test_requests_that_come_to_nothing(void)
{
	struct sockaddr_in addr, own;
	int listener = asked_listener(&addr), fd = ask(&addr, &own), made;

	await_requests(listener, 1);
	CHECK_OK(ffv_close_socket(fd));
	made = ffv_accept_from(listener, (struct sockaddr *)&own, sizeof own);
	if (made >= 0) { /* the news was not there yet */
		await_events(made, POLLHUP);
		CHECK_OK(ffv_close_socket(made));
	}
	await_requests(listener, 0);
	fd = ask(&addr, &own);
	await_requests(listener, 1);
	CHECK_OK(ffv_close_socket(listener));
	await_events(fd, POLLHUP);
	CHECK_EQ(error_of(fd), ECONNREFUSED);
	CHECK_OK(ffv_close_socket(fd));
	CHECK_EQ(ffv_requests_waiting(listener), -EBADF);
	CHECK_EQ(ffv_refuse_from(listener, (struct sockaddr *)&own, sizeof own), -EBADF);
}

static void test_marks(void)
{
	uint32_t marks[2] = { 0 };
	int pair[2];
	char got[8];

	rs_pair(pair);
	CHECK_EQ(ffv_socket_marks(pair[1], marks), 0);
	CHECK_EQ(ffv_socket_mark(pair[0], 1u << 28), -EINVAL);
	CHECK_EQ(ffv_socket_mark_has_arrived(pair[0]), 0);
	CHECK_OK(ffv_socket_mark(pair[0], (1u << 28) - 1));
	CHECK_EQ(ffv_send(pair[0], "data", 4, 0), 4);
	CHECK_EQ(ffv_socket_mark_has_arrived(pair[0]), 1); /* though nobody has looked */
	CHECK_OK(ffv_socket_mark(pair[0], 7));
	CHECK_EQ(ffv_socket_mark(pair[0], 7), -EINVAL);
	CHECK_EQ(ffv_send(pair[0], "more", 4, 0), -EPIPE); /* the second mark is an end */
	CHECK_EQ(ffv_socket_marks(pair[1], marks), 2);
	CHECK(marks[0] == (1u << 28) - 1 && marks[1] == 7);
	CHECK_EQ(ffv_recv(pair[1], got, sizeof got, 0), 4);
	CHECK_EQ(ffv_recv(pair[1], got, sizeof got, 0), 0);
	CHECK_EQ(ffv_send(pair[1], "back", 4, 0), 4); /* the other direction goes on */
	CHECK_EQ(ffv_recv(pair[0], got, sizeof got, 0), 4);
	CHECK_OK(ffv_close_socket(pair[0]));
	CHECK_OK(ffv_close_socket(pair[1]));
	CHECK_EQ(ffv_socket_mark(pair[0], 1), -EBADF);
}

static void test_patience(void)
{
	struct sockaddr_in addr;
	int listener = rs_listener(&addr), fd = rs_new(0), ms = 3000, made;
	uint32_t length = sizeof ms;
	char got;

	CHECK_OK(ffv_setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms));
	ms = -1;
	CHECK_EQ(ffv_setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms), -EINVAL);
	CHECK_OK(ffv_connect(fd, (struct sockaddr *)&addr, sizeof addr));
	CHECK_OK(ffv_getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, &length));
	CHECK_EQ(ms, 3000);
	made = ffv_accept4(listener, NULL, NULL, 0);
	CHECK_EQ(ffv_send(fd, "x", 1, 0), 1);
	CHECK_EQ(ffv_recv(made, &got, 1, 0), 1);
	CHECK_OK(ffv_close_socket(made));
	CHECK_OK(ffv_close_socket(fd));
	CHECK_OK(ffv_close_socket(listener));
}

int main(void)
{
	opened_directory();
	test_marks();
	int before = count_descriptors();
	test_a_connection_is_made_when_it_is_asked_for();
	test_requests_that_come_to_nothing();
	test_marks();
	test_patience();
	for (int i = 0; i < HANG_MS && count_descriptors() > before; i++)
		usleep(1000);
	CHECK(count_descriptors() <= before);
	scratch_remove();
	return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * How a TCP connection gets a stream beside it, and loses it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "preload/conn.h"

#define MARK_NS 2000000000ull      /* a peer on another host that is cut off has not got it then, either */
#define MOST_BEFORE (1u << 28)     /* a mark holds less: who has sent so much by TCP goes on with it */

/* ---- what a number is -------------------------------------------------------------------------------------------------------- */

static bool is_tcp(int fd)
{
	int domain = pre_option(fd, SOL_SOCKET, SO_DOMAIN);

	return (domain == AF_INET || domain == AF_INET6) && pre_option(fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM &&
	       pre_option(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP;
}

static void leave_listener(struct pre_conn *conn)
{
	if (conn->listener)
		pre_put(conn->listener);
	conn->listener = NULL;
}

static void close_own_listener(struct pre_conn *conn)
{
	if (conn->own_listener >= 0)
		ffv_close_socket(conn->own_listener);
	conn->own_listener = -1;
}

void pre_become_plain(struct pre_conn *conn)
{
	leave_listener(conn);
	close_own_listener(conn);
	ffv_store_relaxed(&conn->is_plain, true);
}

/* ---- streams ------------------------------------------------------------------------------------------------------------------ */

void pre_carry_over(int fd, int engine)
{
	static const int names[] = { SO_RCVTIMEO, SO_SNDTIMEO, SO_LINGER, SO_RCVLOWAT };
	struct { uint64_t words[2]; } value;

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		socklen_t length = sizeof value;
		if (!pre_real()->getsockopt(fd, SOL_SOCKET, names[i], &value, &length))
			ffv_setsockopt(engine, SOL_SOCKET, names[i], &value, length);
	}
	ffv_socket_set_flags(engine, pre_real()->fcntl(fd, F_GETFL) & O_NONBLOCK);
}

void pre_attach(struct pre_conn *conn, int fd, int engine)
{
	int tcp = pre_real()->fcntl(fd, F_DUPFD_CLOEXEC, pre_first_high());

	if (tcp < 0 || pre_is_scarce(tcp)) {
		if (tcp >= 0)
			pre_real()->close(tcp);
		ffv_close_socket(engine);
		pre_become_plain(conn);
		return;
	}
	FFV_FAULT(pre_stream_asked);
	pre_carry_over(fd, engine);
	conn->tcp = tcp;
	conn->engine = engine;
	ffv_store_release(&conn->has_engine, true); /* [pre-engine] */
	pre_handle_forks();
	pre_attend(conn);
	FFV_FAULT(pre_stream_attached);
}

void pre_detach(struct pre_conn *conn)
{
	ffv_store_relaxed(&conn->has_engine, false);
	ffv_close_socket(conn->engine);
	pre_real()->close(conn->tcp);
	conn->engine = conn->tcp = -1;
}

/* ---- going over ------------------------------------------------------------------------------------------------------------------ */

void pre_let_mark_arrive(struct pre_conn *conn)
{
	uint64_t deadline_ns = ffv_clock_ns() + MARK_NS;

	if (!ffv_load_relaxed(&conn->tx_on_verbs) || conn->has_mark_arrived)
		return;
	while (!ffv_socket_mark_has_arrived(conn->engine) && !(ffv_socket_poll(conn->engine) & POLLHUP) && ffv_clock_ns() < deadline_ns)
		usleep(100);
	conn->has_mark_arrived = true;
}

bool pre_begin_sending(struct pre_conn *conn)
{
	if (!ffv_load_acquire(&conn->has_engine) || conn->tx_shut || conn->marks_sent != PRE_MARKS_NONE)
		return ffv_load_relaxed(&conn->tx_on_verbs);
	int mask = ffv_socket_poll(conn->engine);
	uint32_t marks[2];
	/* Who asked may think better of it until it has sent its mark. */
	if (conn->kind == PRE_ACCEPTED && ffv_socket_marks(conn->engine, marks) < 1)
		return false;
	uint64_t sent = ffv_load_relaxed(&conn->tcp_sent);
	if (!(mask & POLLOUT) || mask & POLLHUP || sent >= MOST_BEFORE || ffv_socket_mark(conn->engine, (uint32_t)sent))
		return false;
	FFV_FAULT(pre_sending_begun);
	conn->marks_sent = PRE_MARKS_BEGUN;
	ffv_store_relaxed(&conn->tx_on_verbs, true);
	pre_count(PRE_SENDERS);
	pthread_mutex_lock(&conn->lock);
	leave_listener(conn);
	close_own_listener(conn);
	pthread_mutex_unlock(&conn->lock);
	return true;
}

void pre_end_sending(struct pre_conn *conn)
{
	if (!ffv_load_acquire(&conn->has_engine) || conn->marks_sent == PRE_MARKS_ENDED)
		return;
	/* Who asked has its answer, or has withdrawn: the connection manager tells it soon. */
	for (int i = 0; conn->kind == PRE_ACCEPTED && i < 10000 && ffv_socket_poll(conn->engine) == 0; i++)
		usleep(100);
	/* Two marks with nothing between them: this direction never goes over. */
	if (conn->marks_sent == PRE_MARKS_NONE)
		ffv_socket_mark(conn->engine, 0);
	ffv_socket_mark(conn->engine, 0);
	conn->marks_sent = PRE_MARKS_ENDED;
	ffv_store_relaxed(&conn->tx_on_verbs, false);
}

static bool is_ring_empty(struct pre_conn *conn)
{
	int bytes = 1;

	return ffv_socket_ioctl(conn->engine, FIONREAD, &bytes) == 0 && bytes == 0;
}

void pre_retire(struct pre_conn *conn)
{
	if (!conn->rx_is_back || !ffv_load_acquire(&conn->has_engine))
		return;
	/* A program that reads on by TCP passes over the urgent byte, and if it is faster than the thread that waits for that,
	 * the thread is told nothing. */
	if (conn->marks_sent != PRE_MARKS_ENDED)
		pre_answer(conn);
	pre_epoll_restore(conn);
	pthread_mutex_lock(&conn->tx);
	pthread_mutex_lock(&conn->lock);
	FFV_FAULT(pre_retired);
	if (conn->has_engine && conn->marks_sent == PRE_MARKS_ENDED) {
		pre_detach(conn);
		pre_become_plain(conn);
	}
	pthread_mutex_unlock(&conn->lock);
	pthread_mutex_unlock(&conn->tx);
}

void pre_look_at_marks(struct pre_conn *conn)
{
	uint32_t marks[2];
	int count;

	if (!ffv_load_acquire(&conn->has_engine) || conn->rx_is_back)
		return;
	count = ffv_socket_marks(conn->engine, marks);
	if (count >= 1)
		conn->tcp_until = marks[0];
	if (count == 2 && is_ring_empty(conn)) {
		conn->rx_is_back = true;
		conn->tcp_until = UINT64_MAX;
		ffv_store_relaxed(&conn->rx_on_verbs, false);
		return;
	}
	if (count >= 1 && ffv_load_relaxed(&conn->tcp_got) == marks[0] &&
	    !ffv_exchange(&conn->rx_on_verbs, true))
		pre_count(PRE_RECEIVERS);
}

/* ---- beginning and end ------------------------------------------------------------------------------------------------------------ */

void pre_connecting(int fd, const struct sockaddr *addr, socklen_t length)
{
	if (!addr || length < sizeof(struct sockaddr_in) || (addr->sa_family != AF_INET && addr->sa_family != AF_INET6) ||
	    !is_tcp(fd))
		return;
	struct pre_conn *conn = pre_new(fd, PRE_CONNECTS);
	if (!conn)
		return;
	memcpy(&conn->peer, addr, length < sizeof conn->peer ? length : sizeof conn->peer);
	pre_count(PRE_CONNECTIONS);
	pre_advance(conn, fd);
	pre_put(conn);
}

void pre_listening(int fd)
{
	struct pre_conn *conn = pre_get(fd);

	if (!conn && is_tcp(fd))
		conn = pre_new(fd, PRE_LISTENER);
	if (conn)
		pre_put(conn);
}

void pre_accepted(int listener_fd, int fd)
{
	struct pre_conn *listener = pre_get(listener_fd), *conn;
	struct sockaddr_in6 peer;
	socklen_t length = sizeof peer;

	if (!listener)
		return;
	conn = !getpeername(fd, (struct sockaddr *)(void *)&peer, &length) ? pre_new(fd, PRE_ACCEPTED) : NULL;
	if (!conn) {
		pre_put(listener);
		return;
	}
	pre_count(PRE_CONNECTIONS);
	conn->listener = listener; /* with the reference */
	conn->peer = peer;
	conn->give_up_ns = ffv_clock_ns() + PRE_GIVE_UP_NS;
	pre_put(conn);
}

void pre_end(struct pre_conn *conn)
{
	if (conn->kind == PRE_DATAGRAMS) {
		pre_end_datagrams(conn);
		return;
	}
	pre_epoll_forget(conn);
	pthread_mutex_lock(&conn->lock);
	pre_hold_no_longer(conn);
	pre_refuse(conn);
	pre_become_plain(conn);
	if (conn->kind == PRE_LISTENER) {
		pthread_mutex_unlock(&conn->lock);
		return;
	}
	pre_leave_for_others(conn);
	ffv_store_relaxed(&conn->has_engine, false);
	if (conn->engine >= 0) {
		pre_let_mark_arrive(conn);
		ffv_close_socket(conn->engine); /* before TCP's end comes to the peer */
	}
	if (conn->tcp >= 0)
		pre_real()->close(conn->tcp);
	conn->engine = conn->tcp = -1;
	pthread_mutex_unlock(&conn->lock);
}

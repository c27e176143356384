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
#include "preload/conn.h"

#define GIVE_UP_NS 10000000000ull  /* after this time nobody will ask for a stream any more */
#define MOST_BEFORE (1u << 28)     /* a mark holds less: who has sent so much by TCP goes on with it */

/* ---- what a number is -------------------------------------------------------------------------------------------------------- */

static int option(int fd, int name)
{
	int value = -1;
	socklen_t length = sizeof value;

	return pre_real()->getsockopt(fd, SOL_SOCKET, name, &value, &length) ? -1 : value;
}

static bool is_tcp(int fd)
{
	int domain = option(fd, SO_DOMAIN);

	return (domain == AF_INET || domain == AF_INET6) && option(fd, SO_TYPE) == SOCK_STREAM &&
	       option(fd, SO_PROTOCOL) == IPPROTO_TCP;
}

/* IPv4 addresses that are written as IPv6 ones, as IPv4 ones. */
static socklen_t as_ipv4(struct sockaddr_in6 *addr)
{
	if (addr->sin6_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&addr->sin6_addr)) {
		struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = addr->sin6_port };
		memcpy(&in.sin_addr, &addr->sin6_addr.s6_addr[12], 4);
		memcpy(addr, &in, sizeof in);
	}
	return addr->sin6_family == AF_INET6 ? sizeof *addr : sizeof(struct sockaddr_in);
}

static const struct sockaddr *generic(const struct sockaddr_in6 *addr)
{
	return (const struct sockaddr *)(const void *)addr;
}

static void leave_listener(struct pre_conn *conn)
{
	if (conn->listener)
		pre_put(conn->listener);
	conn->listener = NULL;
}

/* Lock held. */
static void become_plain(struct pre_conn *conn)
{
	leave_listener(conn);
	ffv_store_relaxed(&conn->is_plain, true);
}

/* ---- streams ------------------------------------------------------------------------------------------------------------------ */

static void carry_over(int fd, int engine)
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

/* Lock held. */
static void attach(struct pre_conn *conn, int fd, int engine)
{
	int tcp = pre_real()->fcntl(fd, F_DUPFD_CLOEXEC, 0);

	if (tcp < 0) {
		ffv_close_socket(engine);
		become_plain(conn);
		return;
	}
	leave_listener(conn);
	carry_over(fd, engine);
	conn->tcp = tcp;
	conn->engine = engine;
	ffv_store_release(&conn->has_engine, true); /* [pre-engine] */
	pre_handle_forks();
	pre_attend(conn);
}

/* Lock held. The stream did not come about, or nothing goes by it any more. */
static void detach(struct pre_conn *conn)
{
	ffv_store_relaxed(&conn->has_engine, false);
	ffv_close_socket(conn->engine);
	pre_real()->close(conn->tcp);
	conn->engine = conn->tcp = -1;
	become_plain(conn);
}

/* Lock held. The connection stands; asks its peer for a stream. */
static void ask(struct pre_conn *conn, int fd)
{
	struct sockaddr_in6 own, peer = conn->peer;
	socklen_t length = sizeof own, peer_length = as_ipv4(&peer);
	int yes = 1;

	conn->was_asked = true;
	if (getsockname(fd, (struct sockaddr *)(void *)&own, &length) || option(fd, SO_OOBINLINE) != 0) {
		become_plain(conn);
		return;
	}
	length = as_ipv4(&own);
	int engine = ffv_socket(peer.sin6_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int rc = engine;
	if (engine >= 0) {
		/* The number is not to be claimed: the kernel's socket has it. */
		ffv_setsockopt(engine, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
		rc = ffv_bind(engine, generic(&own), length);
		if (!rc)
			rc = ffv_connect(engine, generic(&peer), peer_length);
	}
	if (rc == 0 || rc == -EINPROGRESS) {
		attach(conn, fd, engine);
	} else {
		if (engine >= 0)
			ffv_close_socket(engine);
		become_plain(conn);
	}
}

static bool is_connected(int fd)
{
	struct sockaddr_in6 peer;
	socklen_t length = sizeof peer;

	return getpeername(fd, (struct sockaddr *)(void *)&peer, &length) == 0;
}

/* Lock held. */
static void look_for_request(struct pre_conn *conn, int fd)
{
	struct pre_conn *listener = conn->listener;

	if (ffv_load_acquire(&listener->has_engine) && ffv_requests_waiting(listener->engine) > 0) {
		int engine = ffv_accept_from(listener->engine, generic(&conn->peer), sizeof conn->peer);
		if (engine >= 0) {
			attach(conn, fd, engine);
			return;
		}
	}
	if (ffv_clock_ns() >= conn->give_up_ns)
		become_plain(conn);
}

bool pre_advance(struct pre_conn *conn, int fd)
{
	if (ffv_load_acquire(&conn->has_engine)) /* [pre-engine] */
		return true;
	if (conn->kind == PRE_LISTENER || ffv_load_relaxed(&conn->is_plain) || conn->rest || conn->is_lost)
		return false;
	pthread_mutex_lock(&conn->lock);
	if (!conn->has_engine && conn->kind == PRE_ACCEPTED)
		look_for_request(conn, fd);
	else if (!conn->has_engine && !conn->was_asked && is_connected(fd))
		ask(conn, fd);
	bool has_engine = conn->has_engine;
	pthread_mutex_unlock(&conn->lock);
	if (has_engine)
		pre_epoll_changed(conn);
	return has_engine;
}

/* ---- going over ------------------------------------------------------------------------------------------------------------------ */

bool pre_begin_sending(struct pre_conn *conn)
{
	if (!ffv_load_acquire(&conn->has_engine) || conn->tx_shut || conn->marks_sent != PRE_MARKS_NONE)
		return ffv_load_relaxed(&conn->tx_on_verbs);
	int mask = ffv_socket_poll(conn->engine);
	if (mask & POLLHUP && !ffv_load_relaxed(&conn->rx_on_verbs)) {
		uint32_t marks[2];
		/* Refused: unless its end has sent something before it came. */
		if (ffv_socket_marks(conn->engine, marks) <= 0) {
			pre_epoll_restore(conn);
			pthread_mutex_lock(&conn->lock);
			detach(conn);
			pthread_mutex_unlock(&conn->lock);
		}
		return false;
	}
	uint64_t sent = ffv_load_relaxed(&conn->tcp_sent);
	if (!(mask & POLLOUT) || sent >= MOST_BEFORE || ffv_socket_mark(conn->engine, (uint32_t)sent))
		return false;
	conn->marks_sent = PRE_MARKS_BEGUN;
	ffv_store_relaxed(&conn->tx_on_verbs, true);
	pre_count(PRE_SENDERS);
	return true;
}

void pre_end_sending(struct pre_conn *conn)
{
	if (!ffv_load_acquire(&conn->has_engine) || conn->marks_sent == PRE_MARKS_ENDED)
		return;
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
	if (!conn->rx_is_back || conn->marks_sent != PRE_MARKS_ENDED || !ffv_load_acquire(&conn->has_engine))
		return;
	pre_epoll_restore(conn);
	pthread_mutex_lock(&conn->tx);
	pthread_mutex_lock(&conn->lock);
	if (conn->has_engine)
		detach(conn);
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

void pre_will_accept(struct pre_conn *listener, int fd)
{
	struct sockaddr_in6 own;
	socklen_t length = sizeof own;
	int yes = 1, engine = -1;

	if (listener->kind != PRE_LISTENER || listener->was_asked)
		return;
	pthread_mutex_lock(&listener->lock);
	if (!listener->was_asked) {
		listener->was_asked = true;
		if (!getsockname(fd, (struct sockaddr *)(void *)&own, &length))
			engine = ffv_socket(own.sin6_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (engine >= 0 && own.sin6_family == AF_INET6) {
			int only = 0;
			socklen_t size = sizeof only;
			pre_real()->getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &size);
			if (only)
				ffv_setsockopt(engine, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes);
		}
		/* Refused if another process accepts from it already, or it is no address of this container's. */
		if (engine >= 0 && (ffv_bind(engine, generic(&own), length) || ffv_listen_asked(engine, 4096))) {
			ffv_close_socket(engine);
			engine = -1;
		}
		listener->engine = engine;
		if (engine >= 0)
			pre_handle_forks();
		ffv_store_release(&listener->has_engine, engine >= 0); /* [pre-engine] */
	}
	pthread_mutex_unlock(&listener->lock);
}

void pre_accepted(int listener_fd, int fd)
{
	struct pre_conn *listener = pre_get(listener_fd), *conn;
	struct sockaddr_in6 peer;
	socklen_t length = sizeof peer;

	if (!listener)
		return;
	conn = listener->has_engine && !getpeername(fd, (struct sockaddr *)(void *)&peer, &length) ? pre_new(fd, PRE_ACCEPTED) : NULL;
	if (!conn) {
		pre_put(listener);
		return;
	}
	pre_count(PRE_CONNECTIONS);
	conn->listener = listener; /* with the reference */
	conn->peer = peer;
	conn->give_up_ns = ffv_clock_ns() + GIVE_UP_NS;
	pre_put(conn);
}

void pre_end(struct pre_conn *conn)
{
	pre_epoll_forget(conn);
	pthread_mutex_lock(&conn->lock);
	become_plain(conn);
	if (conn->kind == PRE_LISTENER) {
		pthread_mutex_unlock(&conn->lock);
		return;
	}
	ffv_store_relaxed(&conn->has_engine, false);
	if (conn->engine >= 0)
		ffv_close_socket(conn->engine); /* before TCP's end comes to the peer */
	if (conn->tcp >= 0)
		pre_real()->close(conn->tcp);
	conn->engine = conn->tcp = -1;
	pthread_mutex_unlock(&conn->lock);
}

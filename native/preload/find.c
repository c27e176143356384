/* SPDX-License-Identifier: MIT
 *
 * How the two ends of a TCP connection find each other for a stream. Who connected asks where it connected to, and under its own
 * port at the same address: at the first place listens a process that accepts, at the second one that has the connection
 * from elsewhere, by fork or as another process listens already. It asks several times, at growing distances, as the other end
 * may not be as far yet.
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>

#include "base/clock.h"
#include "preload/conn.h"

#define MOST_ASKS 6u               /* at both places */
#define FIRST_PAUSE_NS 1000000u    /* before the second time, after a refusal; then four times as long each */
#define FIRST_PATIENCE_NS 20000000u /* for an answer; likewise */
#define BACKLOG 4096

int pre_option(int fd, int level, int name)
{
	int value = -1;
	socklen_t length = sizeof value;

	return pre_real()->getsockopt(fd, level, name, &value, &length) ? -1 : value;
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

static bool own_address(int fd, struct sockaddr_in6 *own)
{
	socklen_t length = sizeof *own;

	return getsockname(fd, (struct sockaddr *)(void *)own, &length) == 0;
}

static const struct sockaddr *generic(const struct sockaddr_in6 *addr)
{
	return (const struct sockaddr *)(const void *)addr;
}

void pre_hold_signals(sigset_t *before)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, before);
}

/* ---- who connected ----------------------------------------------------------------------------------------------------------------- */

static void carry_over_patience(int fd, int engine)
{
	int timeout_ms = pre_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT);

	if (timeout_ms > 0)
		ffv_setsockopt(engine, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
}

/* A stream that is being made, or -errno. */
static int ask_at(int fd, struct sockaddr_in6 own, struct sockaddr_in6 place)
{
	socklen_t own_length = as_ipv4(&own), length = as_ipv4(&place);
	int yes = 1, engine;

	pre_restore_environment();
	engine = pre_raise_engine(ffv_socket(place.sin6_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	if (engine < 0)
		return engine;
	/* The number is not to be claimed: the kernel's socket has it. */
	ffv_setsockopt(engine, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
	carry_over_patience(fd, engine);
	int rc = ffv_bind(engine, generic(&own), own_length);
	if (!rc)
		rc = ffv_connect(engine, generic(&place), length);
	if (rc == 0 || rc == -EINPROGRESS)
		return engine;
	ffv_close_socket(engine);
	return rc;
}

/* Who is refused later, not at once, asks at one place at a time. */
static unsigned most_asks(const struct pre_conn *conn)
{
	return conn->is_away ? 2 * MOST_ASKS : MOST_ASKS;
}

static uint64_t grown(const struct pre_conn *conn, uint64_t pause_ns)
{
	return pause_ns << (conn->is_away ? conn->asks : 2 * conn->asks);
}

static bool is_due(const struct pre_conn *conn)
{
	return !conn->asks || (conn->asks < most_asks(conn) && ffv_clock_ns() >= conn->next_ask_ns);
}

/* Lock held. */
static void ask(struct pre_conn *conn, int fd)
{
	struct sockaddr_in6 own, places[2] = { conn->peer, conn->peer };
	unsigned first = conn->asks & 1;

	if (!own_address(fd, &own) || pre_option(fd, SOL_SOCKET, SO_OOBINLINE) != 0) {
		pre_become_plain(conn);
		return;
	}
	places[1].sin6_port = own.sin6_port;
	int engine = ask_at(fd, own, places[first]);
	if (engine == -ECONNREFUSED)
		engine = ask_at(fd, own, places[!first]);
	/* An answer takes its time where processors are scarce; a refusal comes at once. */
	uint64_t pause_ns = engine >= 0 ? FIRST_PATIENCE_NS : FIRST_PAUSE_NS;
	conn->next_ask_ns = ffv_clock_ns() + grown(conn, pause_ns);
	conn->asks++;
	if (engine >= 0)
		pre_attach(conn, fd, engine);
	else if (engine != -ECONNREFUSED || conn->asks >= most_asks(conn))
		pre_become_plain(conn);
}

static bool is_connected(int fd)
{
	struct sockaddr_in6 peer;
	socklen_t length = sizeof peer;

	return getpeername(fd, (struct sockaddr *)(void *)&peer, &length) == 0;
}

/* Why the request failed. */
static int error_of(int engine)
{
	int error = 0;
	uint32_t length = sizeof error;

	ffv_getsockopt(engine, SOL_SOCKET, SO_ERROR, &error, &length);
	return error;
}

/* tx held; the request was refused, or nobody has asked for it so far and it may be at the wrong place. */
static void withdraw(struct pre_conn *conn)
{
	int mask = ffv_socket_poll(conn->engine);
	uint32_t marks[2];
	bool is_refused = mask < 0 || mask & POLLHUP;

	if ((!is_refused && (conn->kind == PRE_ACCEPTED || mask || !is_due(conn))) || ffv_socket_marks(conn->engine, marks) > 0)
		return;
	int error = is_refused ? error_of(conn->engine) : 0;
	pre_epoll_restore(conn);
	pthread_mutex_lock(&conn->lock);
	if (conn->has_engine)
		pre_detach(conn);
	conn->is_away |= error == ECONNREFUSED;
	if (conn->asks >= most_asks(conn) || error == EHOSTUNREACH)
		pre_become_plain(conn);
	bool are_both_refused = error == ECONNREFUSED && conn->asks % 2 == 0;
	conn->next_ask_ns = are_both_refused ? ffv_clock_ns() + grown(conn, FIRST_PAUSE_NS) : 0;
	pthread_mutex_unlock(&conn->lock);
}

/* ---- who accepted ------------------------------------------------------------------------------------------------------------------- */

static int listen_at(int fd, struct sockaddr_in6 own, bool v6_only)
{
	socklen_t length = as_ipv4(&own);
	int yes = 1, engine;

	pre_restore_environment();
	engine = pre_raise_engine(ffv_socket(own.sin6_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
	if (engine < 0)
		return -1;
	carry_over_patience(fd, engine);
	if (v6_only)
		ffv_setsockopt(engine, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes);
	/* Refused if another process accepts from it already, or it is no address of this container's. */
	if (ffv_bind(engine, generic(&own), length) || ffv_listen_asked(engine, BACKLOG)) {
		ffv_close_socket(engine);
		return -1;
	}
	pre_handle_forks();
	return engine;
}

void pre_will_accept(struct pre_conn *listener, int fd)
{
	struct sockaddr_in6 own;

	sigset_t before;

	if (listener->kind != PRE_LISTENER || listener->was_asked)
		return;
	pre_hold_signals(&before);
	pthread_mutex_lock(&listener->lock);
	if (!listener->was_asked && own_address(fd, &own)) {
		listener->engine = listen_at(fd, own, own.sin6_family == AF_INET6 && pre_option(fd, IPPROTO_IPV6, IPV6_V6ONLY) == 1);
		ffv_store_release(&listener->has_engine, listener->engine >= 0); /* [pre-engine] */
	}
	listener->was_asked = true;
	pthread_mutex_unlock(&listener->lock);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Lock held. */
static void look_for_request(struct pre_conn *conn, int fd)
{
	struct sockaddr_in6 own;
	int at = ffv_load_acquire(&conn->listener->has_engine) ? conn->listener->engine : conn->own_listener, engine = -1;

	if (conn->is_inherited && !pre_is_sole_holder(conn))
		return;
	if (at < 0 && !conn->asks++ && own_address(fd, &own)) {
		own.sin6_port = conn->peer.sin6_port;
		at = conn->own_listener = listen_at(fd, own, false);
	}
	if (at >= 0 && ffv_requests_waiting(at) > 0)
		engine = pre_raise_engine(ffv_accept_from(at, generic(&conn->peer), sizeof conn->peer));
	if (engine >= 0)
		pre_attach(conn, fd, engine);
	else if (at < 0 || ffv_clock_ns() >= conn->give_up_ns)
		pre_become_plain(conn);
}

void pre_refuse(struct pre_conn *conn)
{
	struct pre_conn *listener = conn->listener;

	if (conn->kind == PRE_ACCEPTED && listener && ffv_load_acquire(&listener->has_engine))
		ffv_refuse_from(listener->engine, generic(&conn->peer), sizeof conn->peer);
}

/* ---- both ----------------------------------------------------------------------------------------------------------------------------- */

/* The stream is there; but not yet used by this end. */
static void reconsider(struct pre_conn *conn)
{
	if (pthread_mutex_trylock(&conn->tx))
		return;
	if (conn->marks_sent == PRE_MARKS_NONE && ffv_load_acquire(&conn->has_engine) && !pre_begin_sending(conn))
		withdraw(conn);
	pthread_mutex_unlock(&conn->tx);
}

bool pre_advance(struct pre_conn *conn, int fd)
{
	sigset_t before;

	if (conn->kind == PRE_DATAGRAMS)
		return pre_advance_datagrams(conn, fd);
	if (ffv_load_acquire(&conn->has_engine) && conn->marks_sent != PRE_MARKS_NONE) /* [pre-engine] */
		return true;
	if (conn->kind == PRE_LISTENER || ffv_load_relaxed(&conn->is_plain) || conn->rest || conn->is_lost)
		return false;
	pre_hold_signals(&before);
	reconsider(conn);
	pthread_mutex_lock(&conn->lock);
	bool had_engine = conn->has_engine;
	if (!had_engine && conn->kind == PRE_ACCEPTED && conn->listener)
		look_for_request(conn, fd);
	else if (!had_engine && conn->kind == PRE_CONNECTS && is_due(conn) && is_connected(fd))
		ask(conn, fd);
	bool has_engine = conn->has_engine;
	pthread_mutex_unlock(&conn->lock);
	if (has_engine && !had_engine)
		pre_epoll_changed(conn);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return has_engine;
}

/* SPDX-License-Identifier: MIT
 *
 * UDP sockets of the program. The number is the kernel's socket, always, as for TCP; beside it is one of the engine's as soon as that
 * pays: when the program waits at an address that it has bound, or sends to, or receives from, one that has such a socket, again and again. What has to
 * go by UDP, and what comes by it, the engine passes on itself (ffv_socket_beside).
 *
 * A thread that sleeps in the kernel's receive knows nothing of the engine's socket: none is opened meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "preload/data.h"

#define USES_BEFORE 3u             /* sockets that live for one question are left alone */
#define AGAIN_NS 1000000000ull     /* when another process had the address */
#define MOST_BYTES 65536u
#define MOST_LEFT 4096u

/* A datagram that came and was not read when the socket was left to the kernel. */
struct datagram {
	struct datagram *next;             /* until all are found */
	struct sockaddr_in6 from;
	socklen_t from_length;
	size_t length, offset;
	uint8_t bytes[];
};

/* All of them, in memory that a process and its children share: each is read once, by whoever comes first, as from the kernel. */
struct pre_left {
	size_t size;
	uint32_t count;
	_Atomic uint32_t taken;
	size_t offsets[];
};

/* ---- the engine's socket ------------------------------------------------------------------------------------------------------ */

static const struct sockaddr *generic(const struct sockaddr_in6 *addr)
{
	return (const struct sockaddr *)(const void *)addr;
}

static socklen_t size_of(const struct sockaddr_in6 *addr)
{
	return addr->sin6_family == AF_INET6 ? sizeof *addr : sizeof(struct sockaddr_in);
}

static bool find_own_address(struct pre_conn *conn, int fd)
{
	socklen_t length = sizeof conn->own;

	return conn->own.sin6_port || (!getsockname(fd, (struct sockaddr *)(void *)&conn->own, &length) && conn->own.sin6_port);
}

/* The engine's socket with the addresses of the kernel's, or -errno. */
static int open_engine(struct pre_conn *conn, int fd)
{
	int yes = 1, room = pre_option(fd, SOL_SOCKET, SO_RCVBUF), usual = 0;
	uint32_t length = sizeof usual;
	int engine = pre_raise_engine(ffv_socket(conn->own.sin6_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));

	if (engine < 0)
		return engine;
	/* Whether the address may be had is the kernel's to say, and it has said so. */
	ffv_setsockopt(engine, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
	ffv_getsockopt(engine, SOL_SOCKET, SO_RCVBUF, &usual, &length);
	if (room > usual)
		ffv_setsockopt(engine, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
	int rc = pre_is_scarce(engine) ? -EMFILE : ffv_bind(engine, generic(&conn->own), size_of(&conn->own));
	if (!rc && conn->peer.sin6_family)
		rc = conn->peer.sin6_port ? ffv_connect(engine, generic(&conn->peer), size_of(&conn->peer)) : -EINVAL;
	if (!rc)
		rc = ffv_socket_beside(engine, fd);
	if (!rc)
		return engine;
	ffv_close_socket(engine);
	return rc;
}

/* Lock held; -1: it has none. Nobody uses it from now on, but calls that are under way, and sets of epoll. */
static int take_engine(struct pre_conn *conn)
{
	int engine = conn->has_engine ? conn->engine : -1;

	ffv_store_seq_cst(&conn->has_engine, false);
	conn->engine = -1;
	return engine;
}

static void close_engine(int engine)
{
	if (engine < 0)
		return;
	pre_count_datagrams(engine);
	ffv_close_socket(engine);
}

/* Lock held. */
static void open_beside(struct pre_conn *conn, int fd)
{
	if (!find_own_address(conn, fd)) {
		pre_become_plain(conn);
		return;
	}
	pre_restore_environment();
	int engine = open_engine(conn, fd);
	pre_handle_forks();
	if (engine == -EADDRINUSE) {
		conn->next_ask_ns = ffv_clock_ns() + AGAIN_NS;
		return;
	}
	if (engine < 0) {
		pre_become_plain(conn);
		return;
	}
	pre_carry_over(fd, engine);
	conn->engine = engine;
	ffv_store_seq_cst(&conn->has_engine, true); /* [pre-waiting] */
	if (ffv_load_seq_cst(&conn->waiting))
		close_engine(take_engine(conn)); /* the next time */
}

static bool try_to_open(struct pre_conn *conn, int fd)
{
	sigset_t before;

	if (conn->is_left || ffv_load_seq_cst(&conn->waiting))
		return false;
	pre_hold_signals(&before);
	pthread_mutex_lock(&conn->lock);
	bool is_new = !conn->has_engine && !conn->is_left && !ffv_load_relaxed(&conn->is_plain);
	if (is_new)
		open_beside(conn, fd);
	bool has_engine = conn->has_engine;
	pthread_mutex_unlock(&conn->lock);
	if (is_new && has_engine)
		pre_epoll_changed(conn);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return has_engine;
}

bool pre_advance_datagrams(struct pre_conn *conn, int fd)
{
	if (ffv_load_acquire(&conn->has_engine))
		return true;
	if (!(conn->is_bound || conn->is_answered) || (conn->next_ask_ns && ffv_clock_ns() < conn->next_ask_ns))
		return false;
	return try_to_open(conn, fd);
}

/* ---- what the program does with it --------------------------------------------------------------------------------------------- */

void pre_made(int fd, int domain, int type, int protocol)
{
	if ((domain != AF_INET && domain != AF_INET6) || (type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != SOCK_DGRAM ||
	    (protocol != 0 && protocol != IPPROTO_UDP))
		return;
	struct pre_conn *conn = pre_new(fd, PRE_DATAGRAMS);
	if (conn)
		pre_put(conn);
}

void pre_bound(int fd)
{
	struct pre_conn *conn = pre_get(fd);

	if (!conn)
		return;
	if (conn->kind == PRE_DATAGRAMS)
		conn->is_bound = true;
	pre_put(conn);
}

/* As the kernel has connected it, or to nobody any more; of the latter, and of the first time, the address may be another one now. */
void pre_datagrams_connected(struct pre_conn *conn, int fd, const struct sockaddr *addr, socklen_t length)
{
	bool is_peer = addr->sa_family == AF_INET || addr->sa_family == AF_INET6;
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	int engine = -1;

	pthread_mutex_lock(&conn->lock);
	uint16_t port_before = conn->own.sin6_port;
	memset(&conn->peer, 0, sizeof conn->peer);
	memset(&conn->own, 0, sizeof conn->own);
	if (is_peer)
		memcpy(&conn->peer, addr, length < sizeof conn->peer ? length : sizeof conn->peer);
	if (conn->has_engine && (!find_own_address(conn, fd) || conn->own.sin6_port != port_before ||
				 (is_peer ? ffv_connect(conn->engine, addr, length) : ffv_connect(conn->engine, &none, sizeof none)))) {
		engine = take_engine(conn);
	}
	pthread_mutex_unlock(&conn->lock);
	if (engine >= 0)
		pre_epoll_restore(conn);
	close_engine(engine);
}

void pre_datagrams_option(struct pre_conn *conn, int level, int name, const void *value, socklen_t length)
{
	int number = 1;

	if (length >= sizeof number)
		memcpy(&number, value, sizeof number);
	if (number && !ffv_datagrams_allow(level, name))
		pre_leave_datagrams(conn);
}

/* ---- leaving it to the kernel ------------------------------------------------------------------------------------------------------ */

static struct datagram *take_one(int engine)
{
	static __thread uint8_t room[MOST_BYTES];
	struct sockaddr_in6 from;
	uint32_t from_length = sizeof from;
	long count = ffv_recvfrom(engine, room, sizeof room, MSG_DONTWAIT, (struct sockaddr *)(void *)&from, &from_length);
	struct datagram *one = count < 0 ? NULL : malloc(sizeof *one + (size_t)count);

	if (!one)
		return NULL;
	*one = (struct datagram){ .from = from, .from_length = from_length, .length = (size_t)count };
	memcpy(one->bytes, room, (size_t)count);
	return one;
}

static size_t space_of(const struct datagram *one)
{
	return (sizeof *one + one->length + 7) & ~(size_t)7;
}

/* Frees the list. NULL: nothing is left. */
static struct pre_left *put_together(struct datagram *list, uint32_t count)
{
	size_t size = sizeof(struct pre_left) + count * sizeof(size_t);
	struct pre_left *left = NULL;

	for (struct datagram *one = list; one; one = one->next) {
		one->offset = size;
		size += space_of(one);
	}
	void *memory = count ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) : MAP_FAILED;
	if (memory != MAP_FAILED) {
		left = memory;
		left->size = size;
	}
	while (list) {
		struct datagram *one = list;
		list = one->next;
		if (left) {
			left->offsets[left->count++] = one->offset;
			memcpy((uint8_t *)left + one->offset, one, sizeof *one + one->length);
		}
		free(one);
	}
	return left;
}

bool pre_has_left(const struct pre_conn *conn)
{
	const struct pre_left *left = conn->left;

	return left && ffv_load_relaxed(&left->taken) < left->count;
}

void pre_leave_datagrams(struct pre_conn *conn)
{
	struct datagram *list = NULL, **end = &list;
	uint32_t count = 0;

	pthread_mutex_lock(&conn->lock);
	int engine = take_engine(conn);
	conn->is_left = true;
	pthread_mutex_unlock(&conn->lock);
	if (engine >= 0)
		pre_epoll_restore(conn);
	for (; engine >= 0 && count < MOST_LEFT && (*end = take_one(engine)); count++)
		end = &(*end)->next;
	close_engine(engine);
	pthread_mutex_lock(&conn->lock);
	if (count)
		conn->left = put_together(list, count);
	if (!conn->left)
		pre_become_plain(conn);
	pthread_mutex_unlock(&conn->lock);
}

/* Lock held: nothing is left. */
static void forget_left(struct pre_conn *conn)
{
	if (conn->left)
		munmap(conn->left, conn->left->size);
	conn->left = NULL;
}

static const struct datagram *next_left(struct pre_left *left, bool peeks)
{
	uint32_t taken = ffv_load_relaxed(&left->taken);

	while (taken < left->count && !peeks && !ffv_cas(&left->taken, &taken, taken + 1))
		;
	return taken < left->count ? (const void *)((const uint8_t *)left + left->offsets[taken]) : NULL;
}

/* Lock held. As from the kernel; -EBADF: others have read it all. */
static long read_left(struct pre_conn *conn, struct msghdr *msg, int flags)
{
	const struct datagram *one = next_left(conn->left, flags & MSG_PEEK);
	size_t at = 0;

	for (size_t i = 0; one && i < msg->msg_iovlen && at < one->length; i++) {
		size_t length = msg->msg_iov[i].iov_len < one->length - at ? msg->msg_iov[i].iov_len : one->length - at;
		memcpy(msg->msg_iov[i].iov_base, one->bytes + at, length);
		at += length;
	}
	long count = one ? (flags & MSG_TRUNC ? (long)one->length : (long)at) : -EBADF;
	if (one && msg->msg_name) {
		memcpy(msg->msg_name, &one->from, msg->msg_namelen < one->from_length ? msg->msg_namelen : one->from_length);
		msg->msg_namelen = one->from_length;
	}
	if (one) {
		msg->msg_controllen = 0;
		msg->msg_flags = at < one->length ? MSG_TRUNC : 0;
	}
	if (!pre_has_left(conn)) {
		forget_left(conn);
		pre_become_plain(conn);
	}
	return count;
}

void pre_end_datagrams(struct pre_conn *conn)
{
	pre_epoll_forget(conn);
	pthread_mutex_lock(&conn->lock);
	close_engine(take_engine(conn));
	forget_left(conn);
	pre_become_plain(conn);
	pthread_mutex_unlock(&conn->lock);
}

void pre_forget_datagrams(struct pre_conn *conn)
{
	conn->waiting = 0;
	conn->members = NULL;
	if (!conn->has_engine)
		return;
	pre_real()->close(conn->engine);
	conn->engine = -1;
	ffv_store_relaxed(&conn->has_engine, false);
	ffv_store_relaxed(&conn->is_plain, true);
}

/* ---- data -------------------------------------------------------------------------------------------------------------------------- */

/* Whether somebody answers where it sends to, or receives from. */
static void consider(struct pre_conn *conn, int fd, const struct msghdr *msg)
{
	struct sockaddr_in6 to = conn->peer;

	if (conn->is_left)
		return;
	if (conn->uses < USES_BEFORE) {
		conn->uses++;
		return;
	}
	if (msg->msg_name && msg->msg_namelen && msg->msg_namelen <= sizeof to)
		memcpy(&to, msg->msg_name, msg->msg_namelen);
	if (!to.sin6_port || !find_own_address(conn, fd))
		return;
	sigset_t before;
	pre_hold_signals(&before);
	pre_restore_environment();
	conn->is_answered = !ffv_datagrams_reach(generic(&conn->own), size_of(&conn->own), generic(&to), size_of(&to));
	pre_handle_forks();
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

long pre_send_datagram(struct pre_conn *conn, int fd, const struct msghdr *msg, int flags)
{
	long count = -EBADF;

	if (!ffv_load_acquire(&conn->has_engine)) {
		consider(conn, fd, msg);
		if (conn->is_answered)
			pre_advance_datagrams(conn, fd);
	}
	if (ffv_load_acquire(&conn->has_engine))
		do
			count = ffv_sendmsg(conn->engine, msg, flags);
		while (count == -EINTR && pre_begins_again());
	if (count != -EBADF) /* as after another thread has left it to the kernel */
		return count;
	count = pre_real()->sendmsg(fd, msg, flags);
	return count < 0 ? -errno : count;
}

static long receive_by_kernel(struct pre_conn *conn, int fd, struct msghdr *msg, int flags)
{
	ffv_fetch_add(&conn->waiting, 1u); /* [pre-waiting] */
	long count = ffv_load_seq_cst(&conn->has_engine) ? -EBADF : pre_real()->recvmsg(fd, msg, flags);
	if (count == -1)
		count = -errno;
	ffv_fetch_sub(&conn->waiting, 1u);
	return count;
}

long pre_receive_datagram(struct pre_conn *conn, int fd, struct msghdr *msg, int flags)
{
	long count = -EBADF;

	if (conn->left) {
		pthread_mutex_lock(&conn->lock);
		if (conn->left)
			count = read_left(conn, msg, flags);
		pthread_mutex_unlock(&conn->lock);
		if (count != -EBADF)
			return count;
	}
	for (;;) {
		if (pre_advance_datagrams(conn, fd)) {
			do
				count = ffv_recvmsg(conn->engine, msg, flags);
			while (count == -EINTR && pre_begins_again());
		} else {
			count = receive_by_kernel(conn, fd, msg, flags);
			if (count >= 0)
				consider(conn, fd, msg);
		}
		if (count != -EBADF || pre_real()->fcntl(fd, F_GETFD) < 0)
			return count;
	}
}

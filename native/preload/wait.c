/* SPDX-License-Identifier: MIT
 *
 * poll and select, over what the kernel knows and what streams know. Budget: what is ready already costs the kernel's poll of the
 * other numbers, if there are any.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "preload/conn.h"

#define READS (POLLIN | POLLRDNORM | POLLRDHUP)
#define WRITES (POLLOUT | POLLWRNORM)
#define ON_STACK 64

long pre_result(long rc)
{
	if (rc >= 0)
		return rc;
	errno = (int)-rc;
	return -1;
}

/* ---- one connection ------------------------------------------------------------------------------------------------------------- */

int pre_stream_readiness(struct pre_conn *conn, int wanted)
{
	int mask, found = 0;

	if (pre_has_rest(conn))
		return wanted & (POLLIN | POLLRDNORM);
	if (conn->kind == PRE_DATAGRAMS) {
		mask = ffv_socket_poll(conn->engine);
		return mask >= 0 && mask & POLLIN ? wanted & (POLLIN | POLLRDNORM) : 0;
	}

	mask = ffv_socket_poll(conn->engine);
	if (mask < 0)
		return 0; /* closed by another thread */
	if (conn->marks_sent == PRE_MARKS_NONE && mask & POLLOUT && !pthread_mutex_trylock(&conn->tx)) {
		pre_begin_sending(conn);
		pthread_mutex_unlock(&conn->tx);
	}
	if (!ffv_load_relaxed(&conn->rx_on_verbs) || mask & POLLRDHUP)
		pre_look_at_marks(conn);
	bool rx = ffv_load_relaxed(&conn->rx_on_verbs), tx = ffv_load_relaxed(&conn->tx_on_verbs);
	if (rx && mask & POLLIN)
		found |= POLLIN | POLLRDNORM;
	if (rx)
		found |= mask & POLLRDHUP;
	if (tx && mask & POLLOUT)
		found |= POLLOUT | POLLWRNORM;
	found &= wanted;
	if (rx && tx)
		found |= mask & (POLLHUP | POLLERR);
	return found;
}

int pre_tcp_events(const struct pre_conn *conn, int wanted)
{
	int events = wanted & ~(READS | WRITES | POLLPRI | POLLRDBAND | POLLWRBAND);

	if (!ffv_load_relaxed(&conn->rx_on_verbs))
		events |= wanted & READS;
	if (!ffv_load_relaxed(&conn->tx_on_verbs))
		events |= wanted & WRITES;
	return events;
}

static struct timespec time_left(uint64_t deadline_ns)
{
	uint64_t now_ns = ffv_clock_ns(), left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;

	return (struct timespec){ (time_t)(left_ns / 1000000000u), (long)(left_ns % 1000000000u) };
}

int pre_wait_for(struct pre_conn *conn, int fd, int events, int timeout_option)
{
	struct timeval limit = { 0 };
	socklen_t length = sizeof limit;
	struct pollfd ready = { .fd = fd, .events = (short)events };

	pre_real()->getsockopt(fd, SOL_SOCKET, timeout_option, &limit, &length);
	bool is_limited = limit.tv_sec || limit.tv_usec;
	struct timespec timeout = { limit.tv_sec, limit.tv_usec * 1000 };
	(void)conn;
	int count = pre_poll(&ready, 1, is_limited ? &timeout : NULL, NULL);
	if (count < 0)
		return -errno;
	return count ? 0 : -EAGAIN;
}

/* ---- many ------------------------------------------------------------------------------------------------------------------------ */

struct watched {
	struct pre_conn *conn;
	struct ffv_rs_socket *armed;
	nfds_t index;
};

struct round {
	struct pollfd *fds;            /* the program's */
	nfds_t count;
	struct pollfd *kernel;         /* count of them, and one for each that is watched */
	struct watched *watched;
	nfds_t num_watched;
	nfds_t num_kernel;             /* numbers that the kernel has something to tell of */
};

static int look_at_streams(struct round *round)
{
	int ready = 0;

	for (nfds_t i = 0; i < round->num_watched; i++) {
		struct watched *at = &round->watched[i];
		struct pollfd *fd = &round->fds[at->index], *kernel = &round->kernel[at->index];
		fd->revents = (short)pre_stream_readiness(at->conn, fd->events);
		kernel->events = (short)pre_tcp_events(at->conn, fd->events);
		kernel->fd = pre_is_all_on_verbs(at->conn) ? -1 : fd->fd;
		ready += fd->revents != 0;
	}
	return ready;
}

/* Adds what the kernel has told to what the streams tell; the number of those that are ready. */
static int sum_up(struct round *round)
{
	int ready = 0;

	for (nfds_t i = 0, next = 0; i < round->count; i++) {
		bool has_stream = next < round->num_watched && round->watched[next].index == i;
		short told = round->kernel[i].fd >= 0 ? round->kernel[i].revents : 0;
		round->fds[i].revents = (short)(has_stream ? round->fds[i].revents | told : told);
		next += has_stream;
		ready += round->fds[i].revents != 0;
	}
	return ready;
}

/* Number of watched that were armed; less than all: the last one of them is ready. */
static nfds_t arm_all(struct round *round)
{
	nfds_t count = 0;

	while (count < round->num_watched) {
		struct watched *at = &round->watched[count];
		struct pollfd *slot = &round->kernel[round->count + count];
		*slot = (struct pollfd){ .fd = at->conn->engine, .events = POLLIN };
		at->armed = NULL;
		if (ffv_socket_arm(slot->fd, &at->armed) < 0)
			slot->fd = -1;
		count++;
		if (pre_stream_readiness(at->conn, round->fds[at->index].events))
			break;
	}
	return count;
}

static void disarm(struct round *round, nfds_t count, bool slept)
{
	for (nfds_t i = 0; i < count; i++)
		if (round->watched[i].armed)
			ffv_socket_disarm(round->watched[i].armed, slept && round->kernel[round->count + i].revents);
}

static int wait_round(struct round *round, const struct timespec *timeout, const sigset_t *mask)
{
	static const struct timespec none;
	bool at_once = timeout && !timeout->tv_sec && !timeout->tv_nsec;
	uint64_t deadline_ns = timeout ? ffv_clock_ns() + (uint64_t)timeout->tv_sec * 1000000000u + (uint64_t)timeout->tv_nsec : 0;
	int ready = look_at_streams(round), told;

	for (;;) {
		if (ready || at_once) {
			told = pre_real()->ppoll(round->kernel, round->count, &none, mask);
			told = told < 0 ? told : sum_up(round);
			if (told || at_once)
				return told;
			/* What the kernel had told of is the stream's to tell by now. */
			ready = look_at_streams(round);
			if (ready)
				continue;
		}
		nfds_t armed = arm_all(round);
		bool sleeps = armed == round->num_watched;
		if (sleeps && armed)
			sleeps = !look_at_streams(round);
		struct timespec left = timeout ? time_left(deadline_ns) : none;
		told = sleeps ? pre_real()->ppoll(round->kernel, round->count + armed, timeout ? &left : NULL, mask) : 0;
		int err = errno;
		disarm(round, armed, sleeps && told > 0);
		errno = err;
		if (told < 0)
			return told;
		at_once = sleeps && !told; /* the time is over */
		ready = look_at_streams(round);
		/* What the kernel has told of the rest stands; if it was about streams alone, it goes on. */
		for (nfds_t i = 0; sleeps && told > 0 && !ready && i < round->count; i++)
			ready = round->kernel[i].fd >= 0 && round->kernel[i].revents;
	}
}

/* UDP sockets that nothing of the engine's is beside of, while a thread sleeps on them in the kernel: nothing is to come there then. */
struct held {
	struct pre_conn *conns[ON_STACK];
	nfds_t count;
};

/* True: it has one by now. */
static bool hold_datagrams(struct held *held, struct pre_conn *conn)
{
	ffv_fetch_add(&conn->waiting, 1u); /* [pre-waiting] */
	if (held->count < ON_STACK && pre_hold(conn))
		held->conns[held->count++] = conn; /* else nothing of the engine's ever is beside it */
	return ffv_load_seq_cst(&conn->has_engine);
}

static void let_go(const struct held *held)
{
	int err = errno;

	for (nfds_t i = 0; i < held->count; i++) {
		ffv_fetch_sub(&held->conns[i]->waiting, 1u);
		pre_put(held->conns[i]);
	}
	errno = err;
}

/* How many of the numbers have streams, or datagrams. */
static nfds_t count_streams(struct pollfd *fds, nfds_t count, struct held *held)
{
	nfds_t streams = 0;

	for (nfds_t i = 0; i < count; i++) {
		struct pre_conn *conn = pre_get(fds[i].fd);
		if (!conn) {
			pre_epoll_polled(fds[i].fd);
			continue;
		}
		if (conn->kind == PRE_LISTENER)
			pre_will_accept(conn, fds[i].fd);
		else
			streams += pre_advance(conn, fds[i].fd) || pre_has_rest(conn) ||
				   (conn->kind == PRE_DATAGRAMS && hold_datagrams(held, conn));
		pre_put(conn);
	}
	return streams;
}

static void collect(struct round *round, nfds_t most)
{
	for (nfds_t i = 0; i < round->count; i++) {
		round->kernel[i] = round->fds[i];
		struct pre_conn *conn = round->num_watched < most ? pre_get(round->fds[i].fd) : NULL;
		if (!conn)
			continue;
		if (conn->kind != PRE_LISTENER && (ffv_load_acquire(&conn->has_engine) || pre_has_rest(conn)))
			round->watched[round->num_watched++] = (struct watched){ .conn = conn, .index = i };
		else
			pre_put(conn);
	}
}

static int poll_all(struct pollfd *fds, nfds_t count, nfds_t streams, const struct timespec *timeout, const sigset_t *mask)
{
	struct pollfd few_fds[2 * ON_STACK];
	struct watched few[ON_STACK];

	if (!streams)
		return pre_real()->ppoll(fds, count, timeout, mask);
	struct round round = { .fds = fds, .count = count, .kernel = few_fds, .watched = few };
	bool many = count + streams > 2 * ON_STACK || streams > ON_STACK;
	if (many) {
		round.kernel = malloc((count + streams) * sizeof *round.kernel);
		round.watched = malloc(streams * sizeof *round.watched);
	}
	int ready = -1;
	if (round.kernel && round.watched) {
		collect(&round, streams);
		ready = wait_round(&round, timeout, mask);
		int err = errno;
		for (nfds_t i = 0; i < round.num_watched; i++)
			pre_put(round.watched[i].conn);
		errno = err;
	} else {
		errno = ENOMEM;
	}
	if (many) {
		int err = errno;
		free(round.kernel);
		free(round.watched);
		errno = err;
	}
	return ready;
}

int pre_poll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
	struct held held;

	held.count = 0;
	nfds_t streams = count_streams(fds, count, &held);
	int ready = poll_all(fds, count, streams, timeout, mask);
	let_go(&held);
	return ready;
}

/* ---- the functions of libc --------------------------------------------------------------------------------------------------------- */

PRE_EXPORT int poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
	struct timespec timeout = { timeout_ms / 1000, timeout_ms % 1000 * 1000000l };

	return pre_poll(fds, count, timeout_ms < 0 ? NULL : &timeout, NULL);
}

PRE_EXPORT int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
	return pre_poll(fds, count, timeout, mask);
}

int __poll_chk(struct pollfd *, nfds_t, int, size_t);
int __ppoll_chk(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *, size_t);

PRE_EXPORT int __poll_chk(struct pollfd *fds, nfds_t count, int timeout_ms, size_t size)
{
	if (size / sizeof *fds < count)
		abort();
	return poll(fds, count, timeout_ms);
}

PRE_EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask, size_t size)
{
	if (size / sizeof *fds < count)
		abort();
	return pre_poll(fds, count, timeout, mask);
}

static bool has_streams(int count, fd_set *sets[3])
{
	int end = pre_end_of_numbers() > pre_epoll_end() ? pre_end_of_numbers() : pre_epoll_end();
	bool found = false;

	for (int fd = 0; fd < count && fd < end; fd++) {
		if (!((sets[0] && FD_ISSET(fd, sets[0])) || (sets[1] && FD_ISSET(fd, sets[1]))))
			continue;
		struct pre_conn *conn = pre_get(fd);
		if (!conn) {
			pre_epoll_polled(fd);
			continue;
		}
		if (conn->kind == PRE_LISTENER)
			pre_will_accept(conn, fd);
		else
			found |= conn->kind == PRE_DATAGRAMS || pre_advance(conn, fd) || pre_has_rest(conn);
		pre_put(conn);
	}
	return found;
}

/* As select(2) of Linux says which events are which set's. */
static const short set_events[3] = { POLLIN | POLLRDNORM | POLLRDBAND, POLLOUT | POLLWRNORM | POLLWRBAND, POLLPRI };
static const short set_results[3] = { POLLIN | POLLRDNORM | POLLRDBAND | POLLHUP | POLLERR,
				      POLLOUT | POLLWRNORM | POLLWRBAND | POLLERR, POLLPRI };

static int select_by_poll(int count, fd_set *sets[3], const struct timespec *timeout, const sigset_t *mask)
{
	struct pollfd fds[FD_SETSIZE];
	nfds_t used = 0;
	int ready = 0;

	for (int fd = 0; fd < count; fd++) {
		short events = 0;
		for (int i = 0; i < 3; i++)
			events = (short)(events | (sets[i] && FD_ISSET(fd, sets[i]) ? set_events[i] : 0));
		if (events)
			fds[used++] = (struct pollfd){ .fd = fd, .events = events };
	}
	if (pre_poll(fds, used, timeout, mask) < 0)
		return -1;
	for (nfds_t i = 0; i < used; i++)
		if (fds[i].revents & POLLNVAL) {
			errno = EBADF;
			return -1;
		}
	for (nfds_t n = 0; n < used; n++)
		for (int i = 0; i < 3; i++) {
			if (!sets[i] || !(fds[n].events & set_events[i]))
				continue;
			if (fds[n].revents & set_results[i])
				ready++;
			else
				FD_CLR(fds[n].fd, sets[i]);
		}
	return ready;
}

PRE_EXPORT int pselect(int count, fd_set *reads, fd_set *writes, fd_set *excepts, const struct timespec *timeout,
		       const sigset_t *mask)
{
	fd_set *sets[3] = { reads, writes, excepts };

	if (count < 0 || count > FD_SETSIZE || !has_streams(count, sets))
		return pre_real()->pselect(count, reads, writes, excepts, timeout, mask);
	return select_by_poll(count, sets, timeout, mask);
}

PRE_EXPORT int select(int count, fd_set *reads, fd_set *writes, fd_set *excepts, struct timeval *timeout)
{
	uint64_t began_ns = timeout ? ffv_clock_ns() : 0;
	struct timespec limit = { 0 };

	if (timeout && (timeout->tv_sec < 0 || timeout->tv_usec < 0)) {
		errno = EINVAL;
		return -1;
	}
	if (timeout)
		limit = (struct timespec){ timeout->tv_sec + timeout->tv_usec / 1000000, timeout->tv_usec % 1000000 * 1000 };
	int ready = pselect(count, reads, writes, excepts, timeout ? &limit : NULL, NULL);
	if (timeout) { /* Linux says how much was left */
		struct timespec left = time_left(began_ns + (uint64_t)limit.tv_sec * 1000000000u + (uint64_t)limit.tv_nsec);
		*timeout = (struct timeval){ left.tv_sec, left.tv_nsec / 1000 };
	}
	return ready;
}

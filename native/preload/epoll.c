/* SPDX-License-Identifier: MIT
 *
 * epoll, over what the kernel knows and what streams know. The kernel's set stays the program's: it holds what has no stream as the
 * program said. A connection that has a stream is a member here; its TCP socket, as long as a direction uses it, and its stream's
 * number stand in the kernel's set under the member's address, which no program uses as its own data.
 *
 * A member is hot: it is looked at in each wait; or it is armed, and the kernel tells when to look again. So a wait costs
 * what happens, not how many there are. Who sleeps arms the hot ones, too, and takes that back when it wakes up: those that
 * send meanwhile raise no events.
 *
 * Threads: any. Locks: a set's, then `lists` (which members a connection has).
 */
#include <errno.h>
#include <poll.h>

#include "base/clock.h"
#include "preload/conn.h"
#include "preload/epoll.h"

#define EVENTS_AT_ONCE 256
#define MOST_LOOKS 4
#define HOT_SLEEPS 8               /* what was not ready before so many sleeps is hot no longer */
#define HOT_MOST 64                /* nor are more than that, over a sleep */
#define KERNEL_EVERY 8             /* while streams are ready, the kernel is asked in one wait of so many */

/* ---- changing a set ------------------------------------------------------------------------------------------------------------------------- */

/* If that number is a set, too, it is going to be waited for itself. */
static void nest(int epoll_fd, int fd)
{
	int err = errno;

	/* ENOENT: it is one, and the other one is not in it; EINVAL: it is none. */
	if (pre_real()->epoll_ctl(fd, EPOLL_CTL_DEL, epoll_fd, NULL) < 0 && errno == ENOENT) {
		struct pre_set *set = pre_set_need(fd);
		if (set)
			pre_set_nest(set);
	}
	errno = err;
}

PRE_EXPORT int epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event)
{
	struct pre_conn *conn = pre_get(fd);
	struct pre_set *set = NULL;

	if (conn && conn->kind == PRE_LISTENER)
		pre_will_accept(conn, fd);
	else if (conn && (event || operation == EPOLL_CTL_DEL)) {
		pre_advance(conn, fd);
		set = ffv_load_relaxed(&conn->is_plain) ? pre_set_of(epoll_fd) : pre_set_need(epoll_fd);
	}
	if (!conn && operation == EPOLL_CTL_ADD)
		nest(epoll_fd, fd);
	int rc;
	if (set) {
		pthread_mutex_lock(&set->lock);
		rc = pre_set_control(set, conn, operation, fd, event);
		pre_set_promise(set);
		pthread_mutex_unlock(&set->lock);
	} else {
		rc = pre_real()->epoll_ctl(epoll_fd, operation, fd, event);
	}
	int err = errno;
	if (conn)
		pre_put(conn);
	errno = err;
	return rc;
}

/* ---- waiting -------------------------------------------------------------------------------------------------------------------------------- */

static uint32_t tcp_readiness(struct pre_member *member)
{
	if (!member->tcp_events)
		return 0;
	if (member->wanted.events & EPOLLET) {
		uint32_t edge = member->tcp_edge;
		member->tcp_edge = 0;
		return edge;
	}
	struct pollfd fd = { .fd = member->fd, .events = (short)(member->tcp_events & 0xffff) };
	static const struct timespec none;
	return pre_real()->ppoll(&fd, 1, &none, NULL) == 1 ? (uint32_t)(uint16_t)fd.revents : 0;
}

/* What there is to report of it. */
static uint32_t readiness(struct pre_member *member)
{
	struct pre_conn *conn = member->conn;

	if (member->is_disabled)
		return 0;
	uint32_t mask;
	uint64_t now;
	int looks = 0;
	do { /* looking may find changes itself */
		now = ffv_socket_changes(member->engine);
		mask = (uint32_t)pre_stream_readiness(conn, (int)(member->wanted.events & 0xffff));
	} while (member->wanted.events & EPOLLET && ffv_socket_changes(member->engine) != now && ++looks < MOST_LOOKS);
	/* An edge also when a direction has gone over, and what came before is told by another. */
	now = now << 2 | (uint64_t)ffv_load_relaxed(&conn->rx_on_verbs) << 1 | ffv_load_relaxed(&conn->tx_on_verbs);
	if (member->wanted.events & EPOLLET && now == member->seen)
		mask = 0;
	pre_member_follow(member);
	mask |= tcp_readiness(member);
	mask &= (member->wanted.events & 0xffff) | EPOLLERR | EPOLLHUP;
	if (mask)
		member->seen = now;
	return mask;
}

/* What is ready is reported, and goes to the end of those that are hot. */
static int collect(struct pre_set *set, struct epoll_event *events, int most)
{
	struct pre_member *ready = NULL, **ready_end = &ready, **at = &set->hot;
	int count = 0;

	while (*at && count < most) {
		struct pre_member *member = *at;
		uint32_t mask = readiness(member);
		if (!mask) {
			at = &member->next_hot;
			continue;
		}
		events[count++] = (struct epoll_event){ .events = mask, .data = member->wanted.data };
		member->sleeps = 0;
		member->is_disabled = member->wanted.events & EPOLLONESHOT;
		*at = member->next_hot;
		if (set->hot_end == &member->next_hot)
			set->hot_end = at;
		member->next_hot = NULL;
		*ready_end = member;
		ready_end = &member->next_hot;
	}
	*set->hot_end = ready;
	if (ready)
		set->hot_end = ready_end;
	return count;
}

/* While nobody sleeps, who sends need not wake anybody: each event that is raised all the same costs two system calls. */
static void unarm_hot(struct pre_set *set)
{
	if (!set->hot_are_armed || ffv_load_seq_cst(&set->sleepers) || ffv_load_relaxed(&set->is_nested))
		return;
	for (struct pre_member *member = set->hot; member; member = member->next_hot) {
		if (member->armed)
			ffv_socket_disarm(member->armed, 0);
		member->armed = NULL;
	}
	set->hot_are_armed = false;
}

/* Is it ready after all? It is to be reported yet. */
static bool has_become_ready(struct pre_member *member)
{
	uint64_t seen = member->seen;
	uint32_t edge = member->tcp_edge;

	if (!readiness(member))
		return false;
	member->seen = seen;
	member->tcp_edge |= edge;
	return true;
}

/* False: one of them is ready. Those that were ready lately stay hot; the rest is the kernel's to tell of. */
static bool arm_all(struct pre_set *set)
{
	uint32_t stay = 0;

	for (struct pre_member *member = set->hot, *next; member; member = next) {
		next = member->next_hot;
		if (!pre_member_show(member)) {
			unarm_hot(set);
			return false; /* nor can we sleep, then */
		}
		if (!member->armed && ffv_socket_arm(member->engine, &member->armed) < 0)
			member->armed = NULL;
		set->hot_are_armed = true;
		if (has_become_ready(member)) {
			unarm_hot(set);
			return false;
		}
		if (++member->sleeps > HOT_SLEEPS || ++stay > HOT_MOST)
			pre_member_cool(member);
	}
	return true;
}

/* As for one connection: a peer that answers at once, on another processor, need not wake us; and what is never armed costs it no
 * system call either. */
static int spin(struct pre_set *set, struct epoll_event *events, int most)
{
	struct ffv_spin round;
	int ready = 0;

	if (!set->hot || !ffv_spin_begin(&set->spin, &round))
		return 0;
	do {
		pthread_mutex_unlock(&set->lock);
		ffv_cpu_relax();
		pthread_mutex_lock(&set->lock);
		ready = collect(set, events, most);
	} while (!ready && ffv_spin_goes_on(&round));
	ffv_spin_end(&set->spin, &round, ready != 0);
	return ready;
}

static void take_over_all(struct pre_set *set)
{
	if (!ffv_load_relaxed(&set->has_changed))
		return;
	ffv_store_seq_cst(&set->has_changed, false);
	for (struct pre_member *member = set->members; member; member = member->next_in_set)
		pre_member_take_over(member);
}

/* Of what the kernel told: ours are made hot, the program's are given to it. */
static int sort_out(struct pre_set *set, const struct epoll_event *told, int count, struct epoll_event *events)
{
	int given = 0;
	uint64_t kicks;

	for (int i = 0; i < count; i++) {
		struct pre_member *member = (void *)(uintptr_t)(told[i].data.u64 & ~(uint64_t)PRE_OF_STREAM);
		bool is_of_stream = told[i].data.u64 & PRE_OF_STREAM;
		if (!pre_is_member(told[i].data.u64)) {
			events[given++] = told[i];
		} else if (member == set->kick) {
			if (pre_real()->read(set->kick_fd, &kicks, sizeof kicks) < 0)
				continue;
		} else if (member->set == set && member->has_stream) {
			if (member->wanted.events & EPOLLET && !is_of_stream)
				member->tcp_edge |= told[i].events & member->tcp_events & 0xffff;
			pre_member_heat(member, is_of_stream);
		} else if (member->set == set) { /* once only, on TCP */
			member->is_disabled = true;
			events[given++] = (struct epoll_event){ .events = told[i].events, .data = member->wanted.data };
		}
	}
	return given;
}

static int wait_in(struct pre_set *set, struct epoll_event *events, int most, int timeout_ms, const sigset_t *mask)
{
	struct epoll_event told[EVENTS_AT_ONCE];
	int at_once = most < EVENTS_AT_ONCE ? most : EVENTS_AT_ONCE;
	uint64_t deadline_ns = timeout_ms > 0 ? ffv_clock_ns() + (uint64_t)timeout_ms * 1000000u : 0;
	bool was_last = false;

	for (;;) {
		pthread_mutex_lock(&set->lock);
		take_over_all(set);
		int ready = collect(set, events, most);
		if (!ready && timeout_ms && !mask)
			ready = spin(set, events, most);
		if (ready && !mask && ++set->unasked < KERNEL_EVERY) {
			pthread_mutex_unlock(&set->lock);
			return ready;
		}
		set->unasked = 0;
		bool sleeps = !ready && timeout_ms && arm_all(set);
		if (sleeps)
			ffv_fetch_add(&set->sleepers, 1u);
		bool again = sleeps && ffv_load_seq_cst(&set->has_changed);
		pthread_mutex_unlock(&set->lock);
		int left_ms = 0, room = most - ready < at_once ? most - ready : at_once, count = 0;
		if (sleeps && !again)
			left_ms = timeout_ms;
		if (left_ms > 0) {
			uint64_t now_ns = ffv_clock_ns();
			left_ms = deadline_ns > now_ns ? (int)((deadline_ns - now_ns + 999999u) / 1000000u) : 0;
		}
		if (room)
			count = pre_real()->epoll_pwait(set->fd, told, room, left_ms, mask);
		if (sleeps)
			ffv_fetch_sub(&set->sleepers, 1u);
		if (count < 0 && !ready)
			return count;
		pthread_mutex_lock(&set->lock);
		int given = sort_out(set, told, count, events + ready);
		unarm_hot(set);
		pthread_mutex_unlock(&set->lock);
		if (ready + given)
			return ready + given;
		if (!timeout_ms || (timeout_ms > 0 && ffv_clock_ns() >= deadline_ns))
			timeout_ms = 0;
		if (!timeout_ms && (count <= 0 || was_last))
			return 0;
		was_last = !timeout_ms;
	}
}

void pre_set_promise(struct pre_set *set)
{
	if (!ffv_load_relaxed(&set->is_nested))
		return;
	int err = errno;
	take_over_all(set);
	if (!arm_all(set))
		pre_set_kick(set);
	errno = err;
}

void pre_set_nest(struct pre_set *set)
{
	pthread_mutex_lock(&set->lock);
	if (!ffv_exchange(&set->is_nested, true))
		pre_set_promise(set);
	pthread_mutex_unlock(&set->lock);
}

PRE_EXPORT int epoll_pwait(int epoll_fd, struct epoll_event *events, int most, int timeout_ms, const sigset_t *mask)
{
	struct pre_set *set = pre_set_of(epoll_fd);

	if (!set || most <= 0 || !events)
		return pre_real()->epoll_pwait(epoll_fd, events, most, timeout_ms, mask);
	int count = wait_in(set, events, most, timeout_ms, mask);
	if (ffv_load_relaxed(&set->is_nested)) {
		pthread_mutex_lock(&set->lock);
		pre_set_promise(set);
		pthread_mutex_unlock(&set->lock);
	}
	return count;
}

PRE_EXPORT int epoll_wait(int epoll_fd, struct epoll_event *events, int most, int timeout_ms)
{
	return epoll_pwait(epoll_fd, events, most, timeout_ms, NULL);
}

int epoll_pwait2(int, struct epoll_event *, int, const struct timespec *, const sigset_t *);

PRE_EXPORT int epoll_pwait2(int epoll_fd, struct epoll_event *events, int most, const struct timespec *timeout, const sigset_t *mask)
{
	int timeout_ms = -1;

	if (timeout)
		timeout_ms = timeout->tv_sec > 2000000 ? 2000000000 :
			     (int)(timeout->tv_sec * 1000 + (timeout->tv_nsec + 999999) / 1000000);
	return epoll_pwait(epoll_fd, events, most, timeout_ms, mask);
}

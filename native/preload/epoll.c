/* SPDX-License-Identifier: MIT
 *
 * epoll, over what the kernel knows and what streams know. The kernel's set stays the program's: it holds what has no stream as the
 * program said. A connection that has a stream is a member here; its TCP socket, as long as a direction uses it, and its stream's
 * number stand in the kernel's set under the member's address, which no program uses as its own data.
 *
 * A member is hot: it is looked at in each wait; or it is armed, and the kernel tells when to look again. So a wait costs
 * what happens, not how many there are.
 *
 * Threads: any. Locks: a set's, then `lists` (which members a connection has).
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "preload/conn.h"

#define SETS 65536
#define MEMBERS 65536u
#define EVENTS_AT_ONCE 256
#define NEVER_SEEN UINT64_MAX
#define MOST_LOOKS 4

struct pre_set {
	int fd;
	pthread_mutex_t lock;
	struct pre_member *members;
	struct pre_member *hot, **hot_end;
	struct pre_member *kick;           /* stands for the eventfd in the kernel's set */
	int kick_fd;
	bool is_open;
	_Atomic uint32_t sleepers;
	_Atomic bool has_changed;          /* some connection has got its stream */
};

struct pre_member {
	struct pre_set *set;               /* NULL: free */
	struct pre_conn *conn;             /* held */
	int fd;                            /* the program's number */
	struct epoll_event wanted;
	bool has_stream;                   /* in the kernel's set as ours */
	bool is_hot, is_disabled;          /* after EPOLLONESHOT */
	uint32_t tcp_events;               /* what the TCP socket is asked for; 0: it is not in the kernel's set */
	uint32_t tcp_edge;                 /* what it has told and was not reported */
	int engine;
	struct ffv_rs_socket *armed;
	uint64_t seen;                     /* what was true of the stream when it was reported last */
	struct pre_member *next_in_set, *next_in_conn, *next_hot;
};

static _Atomic(struct pre_set *) sets[SETS];
static int end_of_sets;                /* lists */
static pthread_mutex_t lists = PTHREAD_MUTEX_INITIALIZER;
static struct pre_member *members;     /* lists; all there can be */
static struct pre_member *free_members;
static uint32_t used_members;

/* ---- members ------------------------------------------------------------------------------------------------------------------------ */

/* lists held. */
static struct pre_member *take_member(void)
{
	if (!members) {
		void *memory = mmap(NULL, MEMBERS * sizeof *members, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (memory == MAP_FAILED)
			return NULL;
		members = memory;
	}
	struct pre_member *member = free_members;
	if (member)
		free_members = member->next_in_set;
	else if (used_members < MEMBERS)
		member = &members[used_members++];
	if (member)
		memset(member, 0, sizeof *member);
	return member;
}

static bool is_member(uint64_t data)
{
	uintptr_t first = (uintptr_t)members;

	return first && data >= first && data < first + MEMBERS * sizeof *members;
}

static struct pre_set *set_of(int fd)
{
	struct pre_set *set = (unsigned)fd < SETS ? ffv_load_acquire(&sets[fd]) : NULL; /* [pre-set] */

	return set && set->is_open ? set : NULL;
}

/* Set held. */
static struct pre_member *find(struct pre_set *set, const struct pre_conn *conn, int fd)
{
	struct pre_member *member;

	pthread_mutex_lock(&lists);
	for (member = conn->members; member; member = member->next_in_conn)
		if (member->set == set && member->fd == fd)
			break;
	pthread_mutex_unlock(&lists);
	return member;
}

static void kick(struct pre_set *set)
{
	const uint64_t one = 1;

	if (ffv_load_seq_cst(&set->sleepers) && write(set->kick_fd, &one, sizeof one) < 0)
		return; /* it is kicked already */
}

/* Set held, as in all that follows. */
static void make_hot(struct pre_member *member, bool fired)
{
	struct pre_set *set = member->set;

	/* An event of an earlier promise is taken away, too, or the kernel would tell it for ever. */
	if (!member->armed && fired && ffv_socket_arm(member->engine, &member->armed) < 0)
		member->armed = NULL;
	if (member->armed)
		ffv_socket_disarm(member->armed, fired);
	member->armed = NULL;
	if (member->is_hot)
		return;
	member->is_hot = true;
	member->next_hot = NULL;
	*set->hot_end = member;
	set->hot_end = &member->next_hot;
}

static void make_cold(struct pre_member *member)
{
	struct pre_set *set = member->set;

	if (!member->is_hot)
		return;
	for (struct pre_member **at = &set->hot; *at; at = &(*at)->next_hot)
		if (*at == member) {
			*at = member->next_hot;
			if (set->hot_end == &member->next_hot)
				set->hot_end = at;
			break;
		}
	member->is_hot = false;
}

/* ---- in the kernel's set ---------------------------------------------------------------------------------------------------------------- */

static int control(struct pre_set *set, int operation, int fd, uint32_t events, void *data)
{
	struct epoll_event event = { .events = events, .data.ptr = data };

	return pre_real()->epoll_ctl(set->fd, operation, fd, &event);
}

/* The TCP socket is asked for what the stream does not tell. */
static void follow_directions(struct pre_member *member)
{
	uint32_t kinds = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLRDNORM | EPOLLWRNORM;
	uint32_t events = (uint32_t)pre_tcp_events(member->conn, (int)(member->wanted.events & kinds));
	bool all = ffv_load_relaxed(&member->conn->rx_on_verbs) && ffv_load_relaxed(&member->conn->tx_on_verbs);

	events = all ? 0 : events | EPOLLERR | (member->wanted.events & EPOLLET);
	if (events == member->tcp_events)
		return;
	control(member->set, events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL, member->fd, events, member);
	member->tcp_events = events;
}

/* As the program said; but what is told once only is told by us, who have to know whether it was. */
static int control_tcp(struct pre_member *member, int operation)
{
	struct epoll_event event = member->wanted;

	if (event.events & EPOLLONESHOT)
		event.data.ptr = member;
	return pre_real()->epoll_ctl(member->set->fd, operation, member->fd, &event);
}

/* The connection has got its stream. */
static void take_over(struct pre_member *member)
{
	if (member->has_stream || !ffv_load_acquire(&member->conn->has_engine))
		return;
	member->engine = member->conn->engine;
	if (control(member->set, EPOLL_CTL_ADD, member->engine, EPOLLIN, member))
		return;
	member->has_stream = true;
	member->tcp_events = ~0u;
	member->seen = NEVER_SEEN;
	follow_directions(member);
	make_hot(member, false);
}

static void give_back(struct pre_member *member, bool restores)
{
	struct pre_set *set = member->set;

	if (!member->has_stream)
		return;
	make_hot(member, false);
	make_cold(member);
	control(set, EPOLL_CTL_DEL, member->engine, 0, NULL);
	if (restores) {
		struct epoll_event wanted = member->wanted;
		if (member->is_disabled)
			member->wanted.events = EPOLLONESHOT;
		control_tcp(member, member->tcp_events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD);
		member->wanted = wanted;
	}
	if (!restores && member->tcp_events)
		control(set, EPOLL_CTL_DEL, member->fd, 0, NULL);
	member->has_stream = false;
}

static void remove_member(struct pre_member *member)
{
	struct pre_set *set = member->set;
	struct pre_conn *conn = member->conn;

	give_back(member, false);
	for (struct pre_member **at = &set->members; *at; at = &(*at)->next_in_set)
		if (*at == member) {
			*at = member->next_in_set;
			break;
		}
	pthread_mutex_lock(&lists);
	for (struct pre_member **at = &conn->members; *at; at = &(*at)->next_in_conn)
		if (*at == member) {
			*at = member->next_in_conn;
			break;
		}
	member->set = NULL;
	member->next_in_set = free_members;
	free_members = member;
	pthread_mutex_unlock(&lists);
	pre_put(conn);
}

static void add_member(struct pre_set *set, struct pre_conn *conn, int fd, const struct epoll_event *event)
{
	pthread_mutex_lock(&lists);
	struct pre_member *member = take_member();
	if (member) {
		ffv_fetch_add(&conn->refs, 1u);
		member->set = set;
		member->conn = conn;
		member->fd = fd;
		member->wanted = *event;
		member->next_in_set = set->members;
		set->members = member;
		member->next_in_conn = conn->members;
		conn->members = member;
	}
	pthread_mutex_unlock(&lists);
	if (member && event->events & EPOLLONESHOT)
		control_tcp(member, EPOLL_CTL_MOD);
	if (member)
		take_over(member);
	if (member && member->has_stream)
		kick(set);
}

/* ---- what connections tell ------------------------------------------------------------------------------------------------------------------ */

void pre_epoll_changed(struct pre_conn *conn)
{
	if (!conn->members) /* whoever adds one looks itself */
		return;
	pthread_mutex_lock(&lists);
	for (struct pre_member *member = conn->members; member; member = member->next_in_conn)
		if (!member->has_stream) {
			ffv_store_seq_cst(&member->set->has_changed, true);
			kick(member->set);
		}
	pthread_mutex_unlock(&lists);
}

/* Of the members that have the stream, or of all, the first one; its set is locked. */
static struct pre_member *lock_first(struct pre_conn *conn, bool all)
{
	for (;;) {
		pthread_mutex_lock(&lists);
		struct pre_member *member = conn->members;
		while (member && !all && !member->has_stream)
			member = member->next_in_conn;
		struct pre_set *set = member ? member->set : NULL;
		pthread_mutex_unlock(&lists);
		if (!set)
			return NULL;
		pthread_mutex_lock(&set->lock);
		if (member->set == set && member->conn == conn && (all || member->has_stream))
			return member;
		pthread_mutex_unlock(&set->lock);
	}
}

void pre_epoll_restore(struct pre_conn *conn)
{
	struct pre_member *member;

	while (conn->members && (member = lock_first(conn, false))) {
		struct pre_set *set = member->set;
		give_back(member, true);
		pthread_mutex_unlock(&set->lock);
	}
}

void pre_epoll_forget(struct pre_conn *conn)
{
	struct pre_member *member;

	while (conn->members && (member = lock_first(conn, true))) {
		struct pre_set *set = member->set;
		remove_member(member);
		pthread_mutex_unlock(&set->lock);
	}
}

void pre_epoll_closed(int fd)
{
	struct pre_set *set = set_of(fd);

	if (!set)
		return;
	pthread_mutex_lock(&set->lock);
	set->is_open = false;
	while (set->members)
		remove_member(set->members);
	pre_real()->close(set->kick_fd);
	pthread_mutex_unlock(&set->lock);
}

void pre_epoll_lock(void)
{
	pthread_mutex_lock(&lists);
}

/* The child has the kernel's sets, as they are, in common with its parent, and no streams. */
void pre_epoll_unlock(bool in_child)
{
	for (int fd = 0; in_child && fd < end_of_sets; fd++) {
		struct pre_set *set = ffv_load_relaxed(&sets[fd]);
		if (!set || !set->is_open)
			continue;
		pthread_mutex_init(&set->lock, NULL);
		set->is_open = false;
		set->members = NULL;
		pre_real()->close(set->kick_fd);
	}
	pthread_mutex_unlock(&lists);
}

/* ---- sets ---------------------------------------------------------------------------------------------------------------------------------- */

/* Set and lists held. */
static int open_set(struct pre_set *set, int fd)
{
	set->fd = fd;
	set->hot = NULL;
	set->hot_end = &set->hot;
	if (!set->kick)
		set->kick = take_member();
	if (!set->kick)
		return -1;
	set->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (set->kick_fd < 0 || control(set, EPOLL_CTL_ADD, set->kick_fd, EPOLLIN, set->kick))
		return -1;
	set->is_open = true;
	return 0;
}

static struct pre_set *need_set(int fd)
{
	if ((unsigned)fd >= SETS)
		return NULL;
	pthread_mutex_lock(&lists);
	struct pre_set *set = ffv_load_relaxed(&sets[fd]);
	if (!set) {
		set = calloc(1, sizeof *set);
		if (set)
			pthread_mutex_init(&set->lock, NULL);
		ffv_store_release(&sets[fd], set); /* [pre-set] */
		end_of_sets = fd < end_of_sets ? end_of_sets : fd + 1;
	}
	if (set && !set->is_open && open_set(set, fd))
		set = NULL;
	pthread_mutex_unlock(&lists);
	return set;
}

static int modify(struct pre_set *set, struct pre_member *member, const struct epoll_event *event)
{
	struct epoll_event before = member->wanted;
	int rc;

	member->wanted = *event;
	if (!member->has_stream) {
		rc = control_tcp(member, EPOLL_CTL_MOD);
		if (rc)
			member->wanted = before;
		else
			member->is_disabled = false;
		return rc;
	}
	member->is_disabled = false;
	member->seen = NEVER_SEEN;
	member->tcp_edge = 0;
	if (member->tcp_events) {
		member->tcp_events = ~0u; /* again, for the edge */
		follow_directions(member);
	}
	make_hot(member, false);
	kick(set);
	return 0;
}

/* Set held. */
static int control_member(struct pre_set *set, struct pre_conn *conn, int operation, int fd, struct epoll_event *event)
{
	struct pre_member *member = find(set, conn, fd);

	if (operation == EPOLL_CTL_ADD && member && member->has_stream) {
		errno = EEXIST;
		return -1;
	}
	if (member && operation == EPOLL_CTL_MOD)
		return modify(set, member, event);
	if (member && operation == EPOLL_CTL_DEL && member->has_stream) {
		remove_member(member);
		return 0;
	}
	int rc = pre_real()->epoll_ctl(set->fd, operation, fd, event);
	if (!rc && operation == EPOLL_CTL_ADD)
		add_member(set, conn, fd, event);
	if (!rc && operation == EPOLL_CTL_DEL && member)
		remove_member(member);
	return rc;
}

PRE_EXPORT int epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event)
{
	struct pre_conn *conn = pre_get(fd);
	struct pre_set *set = NULL;

	if (conn && conn->kind == PRE_LISTENER)
		pre_will_accept(conn, fd);
	else if (conn && (event || operation == EPOLL_CTL_DEL)) {
		pre_advance(conn, fd);
		set = ffv_load_relaxed(&conn->is_plain) ? set_of(epoll_fd) : need_set(epoll_fd);
	}
	int rc;
	if (set) {
		pthread_mutex_lock(&set->lock);
		rc = control_member(set, conn, operation, fd, event);
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
	follow_directions(member);
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

/* False: one of them is ready. */
static bool arm_all(struct pre_set *set)
{
	while (set->hot) {
		struct pre_member *member = set->hot;
		if (!member->armed && ffv_socket_arm(member->engine, &member->armed) < 0)
			member->armed = NULL;
		uint64_t seen = member->seen;
		uint32_t edge = member->tcp_edge;
		if (readiness(member)) {
			member->seen = seen; /* to be reported yet */
			member->tcp_edge |= edge;
			if (member->armed)
				ffv_socket_disarm(member->armed, 0);
			member->armed = NULL;
			return false;
		}
		make_cold(member);
	}
	return true;
}

static void take_over_all(struct pre_set *set)
{
	if (!ffv_load_relaxed(&set->has_changed))
		return;
	ffv_store_seq_cst(&set->has_changed, false);
	for (struct pre_member *member = set->members; member; member = member->next_in_set)
		take_over(member);
}

/* Of what the kernel told: ours are made hot, the program's are given to it. */
static int sort_out(struct pre_set *set, const struct epoll_event *told, int count, struct epoll_event *events)
{
	int given = 0;
	uint64_t kicks;

	for (int i = 0; i < count; i++) {
		struct pre_member *member = told[i].data.ptr;
		if (!is_member(told[i].data.u64)) {
			events[given++] = told[i];
		} else if (member == set->kick) {
			if (pre_real()->read(set->kick_fd, &kicks, sizeof kicks) < 0)
				continue;
		} else if (member->set == set && member->has_stream) {
			if (member->wanted.events & EPOLLET)
				member->tcp_edge |= told[i].events & member->tcp_events & 0xffff;
			make_hot(member, told[i].events & EPOLLIN); /* its number's; or TCP's, which does no harm */
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

PRE_EXPORT int epoll_pwait(int epoll_fd, struct epoll_event *events, int most, int timeout_ms, const sigset_t *mask)
{
	struct pre_set *set = set_of(epoll_fd);

	if (!set || most <= 0 || !events)
		return pre_real()->epoll_pwait(epoll_fd, events, most, timeout_ms, mask);
	return wait_in(set, events, most, timeout_ms, mask);
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

/* SPDX-License-Identifier: MIT
 *
 * Who is in epoll's sets (see epoll.c), and what the kernel's sets hold of them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "preload/conn.h"
#include "preload/epoll.h"

#define SETS 65536
#define MEMBERS 65536u
#define ANYTHING ~0u                   /* what the TCP socket is asked for has to be said anew */

static _Atomic(struct pre_set *) sets[SETS];
static _Atomic int end_of_sets;        /* lists, for writing */
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

bool pre_is_member(uint64_t data)
{
	uintptr_t first = (uintptr_t)members;

	return first && data >= first && data < first + MEMBERS * sizeof *members;
}

struct pre_set *pre_set_of(int fd)
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

void pre_set_kick(struct pre_set *set)
{
	const uint64_t one = 1;

	if ((ffv_load_seq_cst(&set->sleepers) || ffv_load_relaxed(&set->is_nested)) && write(set->kick_fd, &one, sizeof one) < 0)
		return; /* it is kicked already */
}

/* Set held, as in all that follows. */
void pre_member_heat(struct pre_member *member, bool fired)
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

void pre_member_cool(struct pre_member *member)
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
void pre_member_follow(struct pre_member *member)
{
	uint32_t kinds = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLRDNORM | EPOLLWRNORM;
	uint32_t events = (uint32_t)pre_tcp_events(member->conn, (int)(member->wanted.events & kinds));

	events = pre_is_all_on_verbs(member->conn) ? 0 : events | EPOLLERR | (member->wanted.events & EPOLLET);
	if (events == member->tcp_events)
		return;
	int operation = !events ? EPOLL_CTL_DEL : member->tcp_events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
	control(member->set, operation, member->fd, events, member);
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

/* The connection has got its stream. Programs that change what they wait for with each message cost the kernel nothing so:
 * the stream's number is put into its set by who is going to sleep. */
void pre_member_take_over(struct pre_member *member)
{
	if (member->has_stream || !ffv_load_acquire(&member->conn->has_engine))
		return;
	member->engine = member->conn->engine;
	member->has_stream = true;
	member->seen = PRE_NEVER_SEEN;
	pre_member_follow(member);
	pre_member_heat(member, false);
}

bool pre_member_show(struct pre_member *member)
{
	if (!member->is_shown)
		member->is_shown = !control(member->set, EPOLL_CTL_ADD, member->engine, EPOLLIN, (char *)member + PRE_OF_STREAM);
	return member->is_shown;
}

static void give_back(struct pre_member *member, bool restores)
{
	struct pre_set *set = member->set;

	if (!member->has_stream)
		return;
	pre_member_heat(member, false);
	pre_member_cool(member);
	if (member->is_shown)
		control(set, EPOLL_CTL_DEL, member->engine, 0, NULL);
	member->is_shown = false;
	if (restores) {
		struct epoll_event wanted = member->wanted;
		if (member->is_disabled)
			member->wanted.events = EPOLLONESHOT;
		control_tcp(member, member->tcp_events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD);
		member->wanted = wanted;
		member->tcp_events = ANYTHING;
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

/* tcp_events: what the kernel's set has been told to report of the TCP socket. False: no memory. */
static bool add_member(struct pre_set *set, struct pre_conn *conn, int fd, const struct epoll_event *event, uint32_t tcp_events)
{
	pthread_mutex_lock(&lists);
	struct pre_member *member = take_member();
	if (member) {
		ffv_fetch_add(&conn->refs, 1u);
		member->set = set;
		member->conn = conn;
		member->fd = fd;
		member->wanted = *event;
		member->tcp_events = tcp_events;
		member->next_in_set = set->members;
		set->members = member;
		member->next_in_conn = conn->members;
		conn->members = member;
	}
	pthread_mutex_unlock(&lists);
	if (!member)
		return false;
	if (tcp_events && event->events & EPOLLONESHOT)
		control_tcp(member, EPOLL_CTL_MOD);
	pre_member_take_over(member);
	if (member->has_stream)
		pre_set_kick(set);
	return true;
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
			pre_set_kick(member->set);
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

void pre_epoll_polled(int fd)
{
	struct pre_set *set = pre_set_of(fd);

	if (set && !ffv_load_relaxed(&set->is_nested))
		pre_set_nest(set);
}

int pre_epoll_end(void)
{
	return ffv_load_relaxed(&end_of_sets);
}

void pre_epoll_closed(int fd)
{
	struct pre_set *set = pre_set_of(fd);

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
	for (int fd = 0; in_child && fd < pre_epoll_end(); fd++) {
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
	ffv_store_relaxed(&set->is_nested, false);
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

struct pre_set *pre_set_need(int fd)
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
		if (fd >= ffv_load_relaxed(&end_of_sets))
			ffv_store_relaxed(&end_of_sets, fd + 1);
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
	member->seen = PRE_NEVER_SEEN;
	member->tcp_edge = 0;
	if (member->tcp_events) {
		member->tcp_events = ANYTHING; /* again, for the edge */
		pre_member_follow(member);
	}
	pre_member_heat(member, false);
	pre_set_kick(set);
	return 0;
}

/* Set held. */
int pre_set_control(struct pre_set *set, struct pre_conn *conn, int operation, int fd, struct epoll_event *event)
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
	if (operation == EPOLL_CTL_ADD && !member && pre_is_all_on_verbs(conn) && add_member(set, conn, fd, event, 0))
		return 0;
	int rc = pre_real()->epoll_ctl(set->fd, operation, fd, event);
	if (!rc && operation == EPOLL_CTL_ADD)
		add_member(set, conn, fd, event, ANYTHING);
	if (!rc && operation == EPOLL_CTL_DEL && member)
		remove_member(member);
	return rc;
}

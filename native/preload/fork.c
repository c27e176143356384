/* SPDX-License-Identifier: MIT
 *
 * fork and exec. Streams are of one process; TCP sockets are of all that hold them. So before a fork every connection goes back
 * to TCP: this end sends the last mark, and a byte of urgent data by TCP, at which a thread of the peer sends its last mark
 * too. What has come by then and was not read stays with the parent's stream; the child has a copy, as only one of the two reads
 * on, as a rule.
 *
 * vfork is made a fork, as its child's calls of this library would change the parent's memory; and as it is for programs that
 * exec at once, connections that are closed by that are kept.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "preload/conn.h"
#include "preload/pass.h"

#define ANSWER_NS 5000000000ull    /* a peer that is stopped does not answer */
#define EVENTS_AT_ONCE 16

struct pre_rest {
	uint64_t follows;                  /* so many bytes of TCP */
	size_t length, at;
	uint8_t bytes[];
};

/* ---- the thread that attends to peers ---------------------------------------------------------------------------------------------- */

static pthread_mutex_t attending = PTHREAD_MUTEX_INITIALIZER;
static int attention_fd = -1;          /* attending; epoll: TCP sockets of connections that have streams */

void pre_answer(struct pre_conn *conn)
{
	FFV_FAULT(pre_answer_read);
	pthread_mutex_lock(&conn->tx);
	pre_end_sending(conn);
	pthread_mutex_unlock(&conn->tx);
	FFV_FAULT(pre_answer_said);
}

static void on_urgent(struct pre_conn *conn)
{
	char byte;
	int at_mark = 0;

	if (!pre_hold(conn))
		return;
	/* The byte must not stay, or closing would reset the connection. What stands before it is the program's to read, and
	 * then the kernel passes over it; what follows it already is not touched, as there is no place for it. */
	pthread_mutex_lock(&conn->rx);
	if (ffv_load_acquire(&conn->has_engine) && pre_real()->recv(conn->tcp, &byte, 1, MSG_OOB | MSG_DONTWAIT) == 1 &&
	    !pre_real()->ioctl(conn->tcp, SIOCATMARK, &at_mark) && at_mark)
		pre_real()->recv(conn->tcp, NULL, 1, MSG_DONTWAIT);
	pthread_mutex_unlock(&conn->rx);
	pre_answer(conn);
	pre_put(conn);
}

static void *attend(void *argument)
{
	int fd = *(int *)argument;
	struct epoll_event events[EVENTS_AT_ONCE];

	free(argument);
	for (;;) {
		int count = pre_real()->epoll_pwait(fd, events, EVENTS_AT_ONCE, -1, NULL);
		if (count < 0 && errno != EINTR)
			return NULL;
		for (int i = 0; i < count; i++)
			if (events[i].events & EPOLLPRI)
				on_urgent(events[i].data.ptr);
	}
}

static int start_attending(void)
{
	int *fd = malloc(sizeof *fd);
	sigset_t all, before;
	pthread_t thread;

	if (!fd)
		return -1;
	*fd = epoll_create1(EPOLL_CLOEXEC);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int number = *fd, rc = number < 0 ? -1 : pthread_create(&thread, NULL, attend, fd);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc) {
		free(fd);
		return -1;
	}
	pthread_detach(thread);
	attention_fd = number;
	return 0;
}

void pre_attend(struct pre_conn *conn)
{
	struct epoll_event event = { .events = EPOLLPRI | EPOLLET, .data.ptr = conn };

	pthread_mutex_lock(&attending);
	if (attention_fd >= 0 || !start_attending())
		pre_real()->epoll_ctl(attention_fd, EPOLL_CTL_ADD, conn->tcp, &event);
	pthread_mutex_unlock(&attending);
}

/* ---- going back ---------------------------------------------------------------------------------------------------------------------- */

struct leaving {
	bool all;                          /* also what exec closes */
	uint64_t deadline_ns;
};

static bool is_leaving(int fd, const struct pre_conn *conn, const struct leaving *leaving)
{
	if (conn->kind == PRE_LISTENER || conn->kind == PRE_DATAGRAMS || !ffv_load_acquire(&conn->has_engine) || conn->rx_is_back)
		return false;
	return leaving->all || !(pre_real()->fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

static void leave(int fd, struct pre_conn *conn, void *argument)
{
	if (!is_leaving(fd, conn, argument))
		return;
	pthread_mutex_lock(&conn->tx);
	/* Half made: how it ends is known soon, or nobody is there to say. */
	for (int i = 0; i < 200 && ffv_socket_poll(conn->engine) == 0; i++)
		usleep(100);
	pre_end_sending(conn);
	FFV_FAULT(pre_leave_marked);
	pre_real()->send(conn->tcp, "", 1, MSG_OOB | MSG_DONTWAIT | MSG_NOSIGNAL);
	FFV_FAULT(pre_leave_told);
	pthread_mutex_unlock(&conn->tx);
}

static bool has_answered(const struct pre_conn *conn)
{
	uint32_t marks[2];
	int mask = ffv_socket_poll(conn->engine);

	return mask <= 0 || mask & POLLRDHUP || ffv_socket_marks(conn->engine, marks) == 2;
}

static void copy_rest(struct pre_conn *conn)
{
	uint32_t marks[2] = { 0 };
	int length = 0;

	if (ffv_socket_marks(conn->engine, marks) < 1 || ffv_socket_ioctl(conn->engine, FIONREAD, &length) || length <= 0)
		return;
	struct pre_rest *rest = malloc(sizeof *rest + (size_t)length);
	if (!rest)
		return;
	*rest = (struct pre_rest){ .length = (size_t)length, .follows = marks[0] };
	if (ffv_recv(conn->engine, rest->bytes, (size_t)length, MSG_PEEK | MSG_DONTWAIT) == length)
		conn->copy = rest;
	else
		free(rest);
}

static void await_answer(int fd, struct pre_conn *conn, void *argument)
{
	struct leaving *leaving = argument;

	if (!is_leaving(fd, conn, leaving))
		return;
	while (!has_answered(conn) && ffv_clock_ns() < leaving->deadline_ns)
		usleep(50);
	FFV_FAULT(pre_leave_answered);
	conn->has_left = has_answered(conn);
	if (conn->has_left && !conn->copy)
		copy_rest(conn);
}

static void go_back(bool all)
{
	struct leaving leaving = { all, ffv_clock_ns() + ANSWER_NS };

	pre_for_each(leave, &leaving);
	pre_for_each(await_answer, &leaving);
}

static void drop_rest(int fd, struct pre_conn *conn, void *argument)
{
	(void)fd;
	(void)argument;
	conn->has_left = false;
	free(conn->copy);
	conn->copy = NULL;
}

void pre_go_back(void)
{
	go_back(false);
}

void pre_forget_copies(void)
{
	pre_for_each(drop_rest, NULL);
}

/* With nothing left to read the end is seen at once; a stream that does not stand yet has none. */
static void retire_now(struct pre_conn *conn)
{
	pthread_mutex_lock(&conn->rx);
	pre_look_at_marks(conn);
	pthread_mutex_unlock(&conn->rx);
	pre_retire(conn);
	pthread_mutex_lock(&conn->lock);
	bool is_half_made = conn->has_engine && ffv_socket_poll(conn->engine) == 0;
	pthread_mutex_unlock(&conn->lock);
	if (!is_half_made)
		return;
	pre_epoll_restore(conn);
	pthread_mutex_lock(&conn->lock);
	if (conn->has_engine)
		pre_detach(conn);
	pre_become_plain(conn);
	pthread_mutex_unlock(&conn->lock);
}

bool pre_give_up_stream(int fd, struct pre_conn *conn)
{
	struct leaving leaving = { true, ffv_clock_ns() + ANSWER_NS };
	bool is_free = !conn->rest && !conn->is_lost;

	if (conn->kind == PRE_DATAGRAMS) {
		pre_leave_datagrams(conn);
		return !conn->left;
	}
	if (is_leaving(fd, conn, &leaving)) {
		leave(fd, conn, &leaving);
		await_answer(fd, conn, &leaving);
		is_free = conn->has_left && !conn->copy;
		drop_rest(fd, conn, NULL);
		if (is_free)
			retire_now(conn);
	} else if (is_free && !ffv_load_relaxed(&conn->is_plain)) {
		pthread_mutex_lock(&conn->lock);
		pre_refuse(conn);
		if (!conn->has_engine)
			pre_become_plain(conn);
		pthread_mutex_unlock(&conn->lock);
	}
	return is_free;
}

/* What another process closes may be somebody's still, and then goes on by TCP. What came and was not read is lost. */
void pre_leave_for_others(struct pre_conn *conn)
{
	uint64_t deadline_ns = ffv_clock_ns() + ANSWER_NS;

	if (conn->kind == PRE_DATAGRAMS || !conn->is_inherited || !ffv_load_acquire(&conn->has_engine) || conn->rx_is_back)
		return;
	pre_end_sending(conn);
	pre_real()->send(conn->tcp, "", 1, MSG_OOB | MSG_DONTWAIT | MSG_NOSIGNAL);
	while (!has_answered(conn) && ffv_clock_ns() < deadline_ns)
		usleep(50);
}

static void leave_at_exit(int fd, struct pre_conn *conn, void *argument)
{
	(void)fd;
	(void)argument;
	pre_leave_for_others(conn);
}

__attribute__((destructor)) static void at_exit(void)
{
	pre_for_each(leave_at_exit, NULL);
}

/* ---- who has it -------------------------------------------------------------------------------------------------------------------------- */

#define HOLDERS 65536

static _Atomic uint32_t *holders;      /* shared by a process and its children */

static void share_out(int fd, struct pre_conn *conn, void *argument)
{
	static int last;

	(void)fd;
	(void)argument;
	/* What has been inherited and is passed on once more, both may use at the same time, as rsync does. */
	if (conn->kind != PRE_ACCEPTED || conn->has_engine || conn->is_inherited || conn->holders || !holders)
		return;
	for (int tries = 0; tries < HOLDERS && !conn->holders; tries++) {
		uint32_t nobody = 0;
		last = last % (HOLDERS - 1) + 1;
		if (ffv_cas(&holders[last], &nobody, 2u))
			conn->holders = last;
	}
}

bool pre_is_sole_holder(const struct pre_conn *conn)
{
	return conn->holders && ffv_load_acquire(&holders[conn->holders]) == 1;
}

void pre_hold_no_longer(struct pre_conn *conn)
{
	if (conn->holders)
		ffv_fetch_sub(&holders[conn->holders], 1u);
	conn->holders = 0;
}

/* ---- fork ------------------------------------------------------------------------------------------------------------------------------ */

static __thread bool is_for_exec;      /* the fork that is under way */
static pthread_mutex_t forking = PTHREAD_MUTEX_INITIALIZER;

/* UDP sockets that the engine has one beside of: parent and child have the kernel's alone from now on, and whoever is first reads what
 * had come. */
static void leave_datagrams(int fd, struct pre_conn *conn, void *argument)
{
	(void)fd;
	(void)argument;
	if (conn->kind == PRE_DATAGRAMS && ffv_load_acquire(&conn->has_engine))
		pre_leave_datagrams(conn);
}

static void before_fork(void)
{
	pthread_mutex_lock(&forking);
	go_back(!is_for_exec);
	if (!is_for_exec) {
		pre_for_each(leave_datagrams, NULL);
		pre_for_each(share_out, NULL);
	}
	pthread_mutex_lock(&attending);
	pre_epoll_lock();
	pre_lock_table();
}

/* What was accepted and has no stream yet is the child's to find one for, when the parent has closed it. What both may go on
 * to use is TCP for good. */
static void leave_to_child(int fd, struct pre_conn *conn, void *argument)
{
	drop_rest(fd, conn, argument);
	if (conn->kind == PRE_LISTENER || conn->kind == PRE_DATAGRAMS || conn->has_engine)
		return;
	pthread_mutex_lock(&conn->lock);
	pre_refuse(conn);
	pre_become_plain(conn);
	pthread_mutex_unlock(&conn->lock);
}

static void after_fork_in_parent(void)
{
	pre_unlock_table();
	pre_epoll_unlock(false);
	pthread_mutex_unlock(&attending);
	pre_for_each(is_for_exec ? drop_rest : leave_to_child, NULL);
	pthread_mutex_unlock(&forking);
}

static void forget_stream(int fd, struct pre_conn *conn, void *argument)
{
	(void)fd;
	(void)argument;
	pthread_mutex_init(&conn->tx, NULL); /* which threads of the parent may have held */
	pthread_mutex_init(&conn->rx, NULL);
	pthread_mutex_init(&conn->lock, NULL);
	if (conn->kind == PRE_DATAGRAMS) {
		pre_forget_datagrams(conn);
		return;
	}
	if (conn->own_listener >= 0)
		pre_real()->close(conn->own_listener);
	conn->own_listener = -1;
	if (!conn->has_engine && conn->kind != PRE_LISTENER && (!conn->holders || conn->is_inherited))
		ffv_store_relaxed(&conn->is_plain, true);
	conn->is_inherited = true;
	conn->asks = 0;
	conn->give_up_ns = ffv_clock_ns() + PRE_GIVE_UP_NS;
	if (!conn->has_engine)
		return;
	pre_real()->close(conn->engine);
	if (conn->tcp >= 0)
		pre_real()->close(conn->tcp);
	conn->engine = conn->tcp = -1;
	conn->members = NULL;
	ffv_store_relaxed(&conn->has_engine, false);
	if (conn->kind == PRE_LISTENER) {
		conn->was_asked = false; /* this process may be the one that accepts */
		return;
	}
	ffv_store_relaxed(&conn->tx_on_verbs, false);
	ffv_store_relaxed(&conn->rx_on_verbs, false);
	conn->is_lost = !conn->has_left;
	conn->rest = conn->copy;
	conn->copy = NULL;
	if (conn->has_left && !conn->rest)
		ffv_store_relaxed(&conn->is_plain, true);
}

static void after_fork_in_child(void)
{
	if (attention_fd >= 0)
		pre_real()->close(attention_fd);
	attention_fd = -1;
	pre_unlock_table();
	pre_epoll_unlock(true);
	pthread_mutex_unlock(&attending);
	pre_for_each(forget_stream, NULL);
	pre_forget_counts();
	pthread_mutex_unlock(&forking);
}

static void register_handlers(void)
{
	void *memory = mmap(NULL, HOLDERS * sizeof *holders, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	holders = memory == MAP_FAILED ? NULL : memory;
	pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

void pre_handle_forks(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, register_handlers);
}

PRE_EXPORT pid_t vfork(void)
{
	is_for_exec = true;
	pid_t pid = fork();
	int err = errno;
	is_for_exec = false;
	errno = err;
	return pid;
}

PRE_EXPORT int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
			   const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[])
{
	go_back(actions != NULL);
	pre_for_each(drop_rest, NULL);
	return pre_real()->posix_spawn(pid, path, actions, attributes, arguments, environment);
}

PRE_EXPORT int posix_spawnp(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
			    const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[])
{
	go_back(actions != NULL);
	pre_for_each(drop_rest, NULL);
	return pre_real()->posix_spawnp(pid, path, actions, attributes, arguments, environment);
}

/* ---- what a fork left ------------------------------------------------------------------------------------------------------------------- */

bool pre_has_rest(const struct pre_conn *conn)
{
	return pre_has_left(conn) || (conn->rest && ffv_load_relaxed(&conn->tcp_got) >= conn->rest->follows);
}

uint64_t pre_before_rest(const struct pre_conn *conn)
{
	return conn->rest ? conn->rest->follows - ffv_load_relaxed(&conn->tcp_got) : UINT64_MAX;
}

size_t pre_rest_to_pass(const struct pre_conn *conn, const void **bytes, uint64_t *follows)
{
	const struct pre_rest *rest = conn->copy ? conn->copy : conn->rest;

	if (!rest)
		return 0;
	uint64_t got = ffv_load_relaxed(&conn->tcp_got);
	*follows = rest->follows > got ? rest->follows - got : 0;
	*bytes = rest->bytes + rest->at;
	return rest->length - rest->at;
}

void pre_take_rest(int fd, const void *bytes, size_t length, uint64_t follows)
{
	struct pre_rest *rest = length ? malloc(sizeof *rest + length) : NULL;
	struct pre_conn *conn = rest ? pre_new(fd, PRE_ACCEPTED) : NULL;

	if (!conn) {
		free(rest);
		return;
	}
	*rest = (struct pre_rest){ .length = length, .follows = follows };
	memcpy(rest->bytes, bytes, length);
	conn->rest = rest;
	pre_put(conn);
}

long pre_read_rest(struct pre_conn *conn, const struct msghdr *msg, int flags)
{
	struct pre_rest *rest = conn->rest;
	size_t at = rest->at;

	for (size_t i = 0; i < msg->msg_iovlen && at < rest->length; i++) {
		size_t length = msg->msg_iov[i].iov_len < rest->length - at ? msg->msg_iov[i].iov_len : rest->length - at;
		memcpy(msg->msg_iov[i].iov_base, rest->bytes + at, length);
		at += length;
	}
	long count = (long)(at - rest->at);
	if (!(flags & MSG_PEEK))
		rest->at = at;
	if (rest->at == rest->length) {
		conn->rest = NULL;
		ffv_store_relaxed(&conn->is_plain, true);
		free(rest);
	}
	return count;
}

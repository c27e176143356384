/* SPDX-License-Identifier: MIT
 *
 * See loop.h. Sources stand in two tables under one lock; epoll knows a source by its place and generation, never by its
 * address, so an event of a source that went meanwhile meets nobody. The lock is never held during a callback.
 */
#include "shm/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/atomics.h"
#include "base/clock.h"
#include "base/error.h"

#define EVENTS_AT_ONCE 64
#define NEVER UINT64_MAX
#define KICK_EVENT UINT64_MAX /* as no source is known to epoll */

struct ffv_loop_source {
	ffv_loop_ready ready;  /* of a descriptor */
	ffv_loop_timer timer;  /* or of a timer */
	void *arg;
	int fd;                /* -1 of a timer */
	uint32_t place;        /* in its table */
	uint32_t generation;
	uint64_t due_ns;       /* timers; under the lock */
	int removed;           /* by its own callback, which still runs; under the lock */
	_Atomic uint32_t kicked;
};

struct table {
	struct ffv_loop_source **source; /* NULL = free place */
	uint32_t capacity;
};

struct ffv_loop {
	pthread_t thread;
	int epoll_fd;
	int kick_fd;
	_Atomic uint32_t kick_pending; /* the eventfd was or will be written, and not yet heeded; [loop-kick] */
	_Atomic uint32_t stop;
	int no_pwait2;                 /* the kernel does not know epoll_pwait2; loop's thread only */
	pthread_mutex_t lock;          /* guards what follows */
	pthread_cond_t returned;       /* a callback has returned while somebody waited for it */
	struct table descriptors;
	struct table timers;
	uint32_t generation;
	uint32_t waiters;
	struct ffv_loop_source *running;
};

static _Thread_local const struct ffv_loop *own_loop;

/* ---- tables (lock held) ---------------------------------------------------------------------------------------------- */

static int place_source(struct table *table, struct ffv_loop_source *source)
{
	uint32_t place = 0;

	while (place < table->capacity && table->source[place])
		place++;
	if (place == table->capacity) {
		uint32_t capacity = table->capacity ? 2 * table->capacity : 16;
		struct ffv_loop_source **grown = realloc(table->source, capacity * sizeof *grown);

		if (!grown)
			return -ENOMEM;
		memset(grown + table->capacity, 0, (capacity - table->capacity) * sizeof *grown);
		table->source = grown;
		table->capacity = capacity;
	}
	table->source[place] = source;
	source->place = place;
	return 0;
}

static void free_table(struct table *table)
{
	for (uint32_t i = 0; i < table->capacity; i++)
		free(table->source[i]);
	free(table->source);
	memset(table, 0, sizeof *table);
}

static struct table *table_of(struct ffv_loop *loop, const struct ffv_loop_source *source)
{
	return source->fd >= 0 ? &loop->descriptors : &loop->timers;
}

/* ---- the thread ------------------------------------------------------------------------------------------------------ */

/* Called and returning with the lock held; without it, calls the source back. */
static void call_back(struct ffv_loop *loop, struct ffv_loop_source *source, uint32_t events)
{
	uint64_t due_ns = NEVER;

	loop->running = source;
	pthread_mutex_unlock(&loop->lock);
	if (source->ready)
		source->ready(source->arg, events);
	else
		due_ns = source->timer(source->arg, ffv_clock_ns());
	pthread_mutex_lock(&loop->lock);
	source->due_ns = due_ns;
	loop->running = NULL;
	if (source->removed)
		free(source);
	if (loop->waiters)
		pthread_cond_broadcast(&loop->returned);
}

static void handle_ready(struct ffv_loop *loop, const struct epoll_event *event)
{
	const uint32_t place = (uint32_t)event->data.u64;
	struct ffv_loop_source *source;

	pthread_mutex_lock(&loop->lock);
	source = place < loop->descriptors.capacity ? loop->descriptors.source[place] : NULL;
	if (source && source->generation == event->data.u64 >> 32)
		call_back(loop, source, event->events);
	pthread_mutex_unlock(&loop->lock);
}

static void heed_kicks(struct ffv_loop *loop)
{
	uint64_t count;

	/* Only then the flag: whoever finds it set relies on the scan of `kicked` that follows. [loop-kick] */
	while (read(loop->kick_fd, &count, sizeof count) < 0 && errno == EINTR)
		;
	ffv_exchange(&loop->kick_pending, 0);
}

/* Calls the timers that are due or kicked, each once. */
static void run_timers(struct ffv_loop *loop)
{
	const uint64_t now_ns = ffv_clock_ns();

	pthread_mutex_lock(&loop->lock);
	for (uint32_t i = 0; i < loop->timers.capacity; i++) {
		struct ffv_loop_source *source = loop->timers.source[i];

		if (source && (ffv_exchange(&source->kicked, 0) || source->due_ns <= now_ns))
			call_back(loop, source, 0);
	}
	pthread_mutex_unlock(&loop->lock);
}

static uint64_t find_earliest(struct ffv_loop *loop)
{
	uint64_t earliest_ns = NEVER;

	pthread_mutex_lock(&loop->lock);
	for (uint32_t i = 0; i < loop->timers.capacity; i++) {
		const struct ffv_loop_source *source = loop->timers.source[i];

		if (source && source->due_ns < earliest_ns)
			earliest_ns = source->due_ns;
	}
	pthread_mutex_unlock(&loop->lock);
	return earliest_ns;
}

/* epoll_wait, in nanoseconds where the kernel has that (5.11; called by number because the C library of older systems
 * has not), else in milliseconds, rounded up so that a timer is never called early. */
static int wait_until(struct ffv_loop *loop, uint64_t due_ns, struct epoll_event *events)
{
	const uint64_t now_ns = ffv_clock_ns();
	const uint64_t left_ns = due_ns > now_ns ? due_ns - now_ns : 0;
	uint64_t left_ms = left_ns / 1000000 + (left_ns % 1000000 != 0);

	if (due_ns == NEVER)
		return epoll_wait(loop->epoll_fd, events, EVENTS_AT_ONCE, -1);
#ifdef SYS_epoll_pwait2
	if (!loop->no_pwait2) {
		const struct timespec timeout = {.tv_sec = (time_t)(left_ns / 1000000000),
						 .tv_nsec = (long)(left_ns % 1000000000)};
		int count = (int)syscall(SYS_epoll_pwait2, loop->epoll_fd, events, EVENTS_AT_ONCE, &timeout, NULL, 0);

		if (count >= 0 || (errno != ENOSYS && errno != EPERM))
			return count;
		loop->no_pwait2 = 1;
	}
#endif
	if (left_ms > INT32_MAX)
		left_ms = INT32_MAX;
	return epoll_wait(loop->epoll_fd, events, EVENTS_AT_ONCE, (int)left_ms);
}

static void *run(void *arg)
{
	struct ffv_loop *loop = arg;
	struct epoll_event events[EVENTS_AT_ONCE];

	own_loop = loop;
	while (!ffv_load_acquire(&loop->stop)) {
		int count = wait_until(loop, find_earliest(loop), events);

		for (int i = 0; i < count; i++) {
			if (events[i].data.u64 == KICK_EVENT)
				heed_kicks(loop);
			else
				handle_ready(loop, &events[i]);
		}
		run_timers(loop);
	}
	return NULL;
}

/* ---- create and destroy ---------------------------------------------------------------------------------------------- */

static int start_thread(struct ffv_loop *loop)
{
	/* Signals are the program's; but a fault of the thread itself should meet the handler that reports it. */
	static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
	sigset_t blocked, before;
	int err;

	sigfillset(&blocked);
	for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
		sigdelset(&blocked, faults[i]);
	pthread_sigmask(SIG_SETMASK, &blocked, &before);
	err = pthread_create(&loop->thread, NULL, run, loop);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (err)
		return ffv_fail_errno(err, "the service thread cannot be started");
	pthread_setname_np(loop->thread, "ffverbs");
	return 0;
}

static void free_loop(struct ffv_loop *loop)
{
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	if (loop->kick_fd >= 0)
		close(loop->kick_fd);
	free_table(&loop->descriptors);
	free_table(&loop->timers);
	free(loop);
}

int ffv_loop_create(struct ffv_loop **out)
{
	struct epoll_event kick = {.events = EPOLLIN, .data.u64 = KICK_EVENT};
	struct ffv_loop *loop = calloc(1, sizeof *loop);
	int rc = 0;

	if (!loop)
		return ffv_fail(ENOMEM, "out of memory for the service thread");
	pthread_mutex_init(&loop->lock, NULL);
	pthread_cond_init(&loop->returned, NULL);
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->epoll_fd < 0 || loop->kick_fd < 0 ||
	    epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->kick_fd, &kick))
		rc = ffv_fail_errno(errno, "no descriptors for the service thread (limits: ulimit -n, "
				    "fs.epoll.max_user_watches)");
	if (!rc)
		rc = start_thread(loop);
	if (rc) {
		free_loop(loop);
		return rc;
	}
	*out = loop;
	return 0;
}

/* Async-signal-safe. */
static void wake(struct ffv_loop *loop)
{
	const uint64_t one = 1;
	const int saved = errno;

	/* [loop-kick] */
	if (!ffv_exchange(&loop->kick_pending, 1))
		while (write(loop->kick_fd, &one, sizeof one) < 0 && errno == EINTR)
			;
	errno = saved;
}

void ffv_loop_destroy(struct ffv_loop *loop)
{
	if (!loop)
		return;
	ffv_store_release(&loop->stop, 1);
	wake(loop);
	pthread_join(loop->thread, NULL);
	pthread_cond_destroy(&loop->returned);
	pthread_mutex_destroy(&loop->lock);
	free_loop(loop);
}

void ffv_loop_abandon(struct ffv_loop *loop)
{
	/* The lock may be held by a thread that does not exist here: it is not touched. Nor is anything taken out of the
	 * epoll set, which is the parent's too. */
	if (loop)
		free_loop(loop);
}

/* ---- sources --------------------------------------------------------------------------------------------------------- */

static struct ffv_loop_source *new_source(int fd, ffv_loop_ready ready, ffv_loop_timer timer, void *arg)
{
	struct ffv_loop_source *source = calloc(1, sizeof *source);

	if (source) {
		source->fd = fd;
		source->ready = ready;
		source->timer = timer;
		source->arg = arg;
		source->due_ns = NEVER;
	}
	return source;
}

/* *out is set under the lock: the first callback may want to remove its source by it. */
static int add_source(struct ffv_loop *loop, struct ffv_loop_source *source, struct ffv_loop_source **out)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP};
	int rc;

	pthread_mutex_lock(&loop->lock);
	source->generation = loop->generation++ % UINT32_MAX; /* never that of KICK_EVENT */
	rc = place_source(table_of(loop, source), source);
	event.data.u64 = (uint64_t)source->generation << 32 | source->place;
	if (!rc && source->fd >= 0 && epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &event)) {
		rc = -errno;
		loop->descriptors.source[source->place] = NULL;
	}
	if (!rc)
		*out = source;
	pthread_mutex_unlock(&loop->lock);
	return rc;
}

static int add_or_fail(struct ffv_loop *loop, struct ffv_loop_source *source, struct ffv_loop_source **out)
{
	int rc = source ? add_source(loop, source, out) : -ENOMEM;

	if (!rc)
		return 0;
	free(source);
	if (rc == -ENOSPC)
		return ffv_fail(ENOSPC, "the service thread may not watch more descriptors: raise "
				"fs.epoll.max_user_watches");
	return ffv_fail_errno(-rc, "the service thread cannot watch another source");
}

int ffv_loop_add(struct ffv_loop *loop, int fd, ffv_loop_ready ready, void *arg, struct ffv_loop_source **out)
{
	if (fd < 0)
		return ffv_fail(EBADF, "the service thread cannot watch descriptor %d", fd);
	return add_or_fail(loop, new_source(fd, ready, NULL, arg), out);
}

int ffv_loop_add_timer(struct ffv_loop *loop, ffv_loop_timer timer, void *arg, struct ffv_loop_source **out)
{
	return add_or_fail(loop, new_source(-1, NULL, timer, arg), out);
}

void ffv_loop_pause(struct ffv_loop *loop, struct ffv_loop_source *source, int pause)
{
	struct epoll_event event = { .events = pause ? 0 : EPOLLIN | EPOLLRDHUP };

	pthread_mutex_lock(&loop->lock);
	event.data.u64 = (uint64_t)source->generation << 32 | source->place;
	epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event);
	pthread_mutex_unlock(&loop->lock);
}

void ffv_loop_remove(struct ffv_loop *loop, struct ffv_loop_source *source)
{
	if (!source)
		return;
	pthread_mutex_lock(&loop->lock);
	if (source->fd >= 0)
		epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	table_of(loop, source)->source[source->place] = NULL;
	if (loop->running == source && own_loop == loop) {
		source->removed = 1; /* freed when its callback returns */
		source = NULL;
	}
	loop->waiters++;
	while (source && loop->running == source)
		pthread_cond_wait(&loop->returned, &loop->lock);
	loop->waiters--;
	pthread_mutex_unlock(&loop->lock);
	free(source);
}

void ffv_loop_kick(struct ffv_loop *loop, struct ffv_loop_source *source)
{
	/* Before the wake-up: seen by the scan that follows it. [loop-kick] */
	ffv_exchange(&source->kicked, 1);
	wake(loop);
}

int ffv_loop_is_own_thread(const struct ffv_loop *loop)
{
	return own_loop == loop;
}

/* The service thread's loop: readiness, hang-ups, timers, kicks, and sources that come and go from every side. */
#include "shm/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ffverbs/ffv.h>

#include "base/clock.h"
#include "check.h"

#define MILLISECOND 1000000ull

static void wait_for(sem_t *semaphore)
{
	struct timespec deadline;

	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += 30;
	while (sem_timedwait(semaphore, &deadline))
		CHECK_EQ(errno, EINTR);
}

static struct ffv_loop *new_loop(void)
{
	struct ffv_loop *loop;

	CHECK_EQ(ffv_loop_create(&loop), 0);
	CHECK(!ffv_loop_is_own_thread(loop));
	return loop;
}

/* ---- descriptors ----------------------------------------------------------------------------------------------------- */

struct reader {
	struct ffv_loop *loop;
	struct ffv_loop_source *source;
	int fd;
	int remove_after;       /* own callback removes the source after so many bytes, or at a hang-up */
	_Atomic int bytes;
	_Atomic uint32_t events;
	_Atomic int own_thread;
	sem_t called;
};

static void read_byte(void *arg, uint32_t events)
{
	struct reader *reader = arg;
	char byte;

	atomic_fetch_or(&reader->events, events);
	atomic_store(&reader->own_thread, ffv_loop_is_own_thread(reader->loop));
	if (recv(reader->fd, &byte, 1, MSG_DONTWAIT) == 1)
		atomic_fetch_add(&reader->bytes, 1);
	if (atomic_load(&reader->bytes) == reader->remove_after || events & EPOLLHUP)
		ffv_loop_remove(reader->loop, reader->source);
	sem_post(&reader->called);
}

static void test_descriptor_and_hang_up(void)
{
	struct reader reader = {.loop = new_loop(), .remove_after = 1000};
	int pair[2];

	sem_init(&reader.called, 0, 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	reader.fd = pair[0];
	CHECK_EQ(ffv_loop_add(reader.loop, pair[0], read_byte, &reader, &reader.source), 0);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(send(pair[1], "x", 1, 0), 1);
		wait_for(&reader.called);
		CHECK_EQ(atomic_load(&reader.bytes), i + 1);
	}
	CHECK_EQ(atomic_load(&reader.own_thread), 1);
	CHECK_EQ(atomic_load(&reader.events) & (EPOLLHUP | EPOLLRDHUP), 0);
	close(pair[1]); /* the callback removes its own source */
	wait_for(&reader.called);
	CHECK(atomic_load(&reader.events) & EPOLLHUP);
	ffv_loop_destroy(reader.loop);
	close(pair[0]);
	sem_destroy(&reader.called);
}

static void test_removed_source_is_silent(void)
{
	struct reader gone = {.loop = new_loop(), .remove_after = 1000};
	struct reader other = {.loop = gone.loop, .remove_after = 1000};
	int a[2], b[2];

	sem_init(&gone.called, 0, 0);
	sem_init(&other.called, 0, 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, a), 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, b), 0);
	gone.fd = a[0];
	other.fd = b[0];
	CHECK_EQ(ffv_loop_add(gone.loop, a[0], read_byte, &gone, &gone.source), 0);
	CHECK_EQ(ffv_loop_add(gone.loop, b[0], read_byte, &other, &other.source), 0);
	ffv_loop_remove(gone.loop, gone.source);
	CHECK_EQ(send(a[1], "x", 1, 0), 1);
	CHECK_EQ(send(b[1], "x", 1, 0), 1);
	wait_for(&other.called);
	CHECK_EQ(atomic_load(&gone.bytes), 0);
	/* Its place is free again, and so is its descriptor. */
	CHECK_EQ(ffv_loop_add(gone.loop, a[0], read_byte, &gone, &gone.source), 0);
	wait_for(&gone.called);
	ffv_loop_remove(gone.loop, gone.source);
	ffv_loop_remove(gone.loop, other.source);
	ffv_loop_destroy(gone.loop);
	close(a[0]), close(a[1]), close(b[0]), close(b[1]);
	sem_destroy(&gone.called), sem_destroy(&other.called);
}

static void test_bad_descriptors(void)
{
	struct ffv_loop *loop = new_loop();
	struct ffv_loop_source *source;
	int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	CHECK_EQ(ffv_loop_add(loop, -1, read_byte, NULL, &source), -EBADF);
	CHECK(strstr(ffv_error_text(), "-1"));
	CHECK(file >= 0);
	CHECK_EQ(ffv_loop_add(loop, file, read_byte, NULL, &source), -EPERM); /* not pollable */
	close(file);
	CHECK_EQ(ffv_loop_add(loop, file, read_byte, NULL, &source), -EBADF);
	ffv_loop_destroy(loop);
}

/* ---- timers ----------------------------------------------------------------------------------------------------------- */

struct ticker {
	struct ffv_loop *loop;
	struct ffv_loop_source *source;
	_Atomic int calls;
	_Atomic int early;
	int want;               /* calls at intervals, then none until kicked */
	uint64_t interval_ns;
	uint64_t due_ns;
	sem_t done;
};

static uint64_t tick(void *arg, uint64_t now_ns)
{
	struct ticker *ticker = arg;
	int calls = atomic_fetch_add(&ticker->calls, 1) + 1;

	if (now_ns < ticker->due_ns)
		atomic_store(&ticker->early, 1);
	ticker->due_ns = now_ns + ticker->interval_ns;
	if (calls < ticker->want)
		return ticker->due_ns;
	ticker->due_ns = 0;
	sem_post(&ticker->done);
	return UINT64_MAX;
}

static void test_timers(void)
{
	struct ffv_loop *loop = new_loop();
	struct ticker fast = {.loop = loop, .want = 5, .interval_ns = MILLISECOND / 10};
	struct ticker slow = {.loop = loop, .want = 2, .interval_ns = 7 * MILLISECOND};
	struct ticker idle = {.loop = loop, .want = 1};

	sem_init(&fast.done, 0, 0), sem_init(&slow.done, 0, 0), sem_init(&idle.done, 0, 0);
	CHECK_EQ(ffv_loop_add_timer(loop, tick, &fast, &fast.source), 0);
	CHECK_EQ(ffv_loop_add_timer(loop, tick, &slow, &slow.source), 0);
	CHECK_EQ(ffv_loop_add_timer(loop, tick, &idle, &idle.source), 0);
	uint64_t start_ns = ffv_clock_ns();
	ffv_loop_kick(loop, slow.source);
	ffv_loop_kick(loop, fast.source);
	wait_for(&fast.done);
	wait_for(&slow.done);
	CHECK(ffv_clock_ns() - start_ns >= 7 * MILLISECOND);
	CHECK_EQ(atomic_load(&fast.calls), 5);
	CHECK_EQ(atomic_load(&slow.calls), 2);
	CHECK_EQ(atomic_load(&fast.early) + atomic_load(&slow.early), 0);
	CHECK_EQ(atomic_load(&idle.calls), 0); /* neither kicked nor due */
	ffv_loop_kick(loop, idle.source);
	wait_for(&idle.done);
	CHECK_EQ(atomic_load(&idle.calls), 1);
	ffv_loop_remove(loop, fast.source), ffv_loop_remove(loop, slow.source), ffv_loop_remove(loop, idle.source);
	ffv_loop_destroy(loop);
	sem_destroy(&fast.done), sem_destroy(&slow.done), sem_destroy(&idle.done);
}

static uint64_t remove_itself(void *arg, uint64_t now_ns)
{
	struct ticker *ticker = arg;

	ffv_loop_remove(ticker->loop, ticker->source);
	sem_post(&ticker->done);
	return now_ns; /* of no consequence any more */
}

static uint64_t add_and_remove(void *arg, uint64_t now_ns)
{
	struct ticker *ticker = arg;
	struct ffv_loop_source *extra[40];

	(void)now_ns;
	/* more than a table holds at first */
	for (int i = 0; i < 40; i++)
		CHECK_EQ(ffv_loop_add_timer(ticker->loop, tick, ticker, &extra[i]), 0);
	for (int i = 0; i < 40; i++)
		ffv_loop_remove(ticker->loop, extra[i]);
	sem_post(&ticker->done);
	return UINT64_MAX;
}

static void test_changes_in_callbacks(void)
{
	struct ffv_loop *loop = new_loop();
	struct ticker first = {.loop = loop}, second = {.loop = loop};

	sem_init(&first.done, 0, 0), sem_init(&second.done, 0, 0);
	CHECK_EQ(ffv_loop_add_timer(loop, remove_itself, &first, &first.source), 0);
	CHECK_EQ(ffv_loop_add_timer(loop, add_and_remove, &second, &second.source), 0);
	ffv_loop_kick(loop, first.source);
	ffv_loop_kick(loop, second.source);
	wait_for(&first.done);
	wait_for(&second.done);
	ffv_loop_remove(loop, second.source);
	ffv_loop_destroy(loop);
	sem_destroy(&first.done), sem_destroy(&second.done);
}

/* ---- removal waits for a running callback ------------------------------------------------------------------------------ */

struct slow_call {
	sem_t entered, go;
	_Atomic int returned;
};

static uint64_t block(void *arg, uint64_t now_ns)
{
	struct slow_call *call = arg;

	(void)now_ns;
	sem_post(&call->entered);
	wait_for(&call->go);
	atomic_store(&call->returned, 1);
	return UINT64_MAX;
}

struct removal {
	struct ffv_loop *loop;
	struct ffv_loop_source *source;
	struct slow_call *call;
	sem_t begun;
};

static void *remove_source(void *arg)
{
	struct removal *removal = arg;

	sem_post(&removal->begun);
	ffv_loop_remove(removal->loop, removal->source);
	CHECK_EQ(atomic_load(&removal->call->returned), 1);
	return NULL;
}

static void test_removal_waits(void)
{
	for (int round = 0; round < 50; round++) {
		struct slow_call call = {.returned = 0};
		struct removal removal = {.loop = new_loop(), .call = &call};
		pthread_t thread;

		sem_init(&call.entered, 0, 0), sem_init(&call.go, 0, 0), sem_init(&removal.begun, 0, 0);
		CHECK_EQ(ffv_loop_add_timer(removal.loop, block, &call, &removal.source), 0);
		ffv_loop_kick(removal.loop, removal.source);
		wait_for(&call.entered);
		CHECK_EQ(pthread_create(&thread, NULL, remove_source, &removal), 0);
		wait_for(&removal.begun);
		sem_post(&call.go);
		pthread_join(thread, NULL);
		ffv_loop_destroy(removal.loop);
		sem_destroy(&call.entered), sem_destroy(&call.go), sem_destroy(&removal.begun);
	}
}

/* ---- events of a source that went meanwhile --------------------------------------------------------------------------- */

/* Two descriptors become ready at once; whichever is called first removes the other and puts a third, which is not
 * ready, in its place: the event of the one that is gone must not reach it. */
struct swap {
	struct ffv_loop *loop;
	struct { int fd; struct ffv_loop_source *source; } side[3];
	int done;
	_Atomic int wrong_calls;
};

static void never(void *arg, uint32_t events)
{
	(void)events;
	atomic_fetch_add(&((struct swap *)arg)->wrong_calls, 1);
}

static void swap_other(struct swap *swap, int self)
{
	const int other = 1 - self;

	CHECK(!swap->done);
	swap->done = 1;
	ffv_loop_remove(swap->loop, swap->side[other].source);
	CHECK_EQ(ffv_loop_add(swap->loop, swap->side[2].fd, never, swap, &swap->side[2].source), 0);
	ffv_loop_remove(swap->loop, swap->side[self].source);
}

static void ready_first(void *arg, uint32_t events)
{
	(void)events;
	swap_other(arg, 0);
}

static void ready_second(void *arg, uint32_t events)
{
	(void)events;
	swap_other(arg, 1);
}

static void test_event_of_removed_source(void)
{
	struct swap swap = {.loop = new_loop()};
	struct slow_call call = {.returned = 0};
	struct ticker after = {.loop = swap.loop, .want = 1};
	struct ffv_loop_source *blocker;

	sem_init(&call.entered, 0, 0), sem_init(&call.go, 0, 0), sem_init(&after.done, 0, 0);
	for (int i = 0; i < 3; i++) {
		swap.side[i].fd = eventfd(i < 2, EFD_CLOEXEC | EFD_NONBLOCK);
		CHECK(swap.side[i].fd >= 0);
	}
	CHECK_EQ(ffv_loop_add_timer(swap.loop, block, &call, &blocker), 0);
	CHECK_EQ(ffv_loop_add_timer(swap.loop, tick, &after, &after.source), 0);
	ffv_loop_kick(swap.loop, blocker);
	wait_for(&call.entered); /* the loop's thread looks at nothing until both are ready */
	CHECK_EQ(ffv_loop_add(swap.loop, swap.side[0].fd, ready_first, &swap, &swap.side[0].source), 0);
	CHECK_EQ(ffv_loop_add(swap.loop, swap.side[1].fd, ready_second, &swap, &swap.side[1].source), 0);
	sem_post(&call.go);
	/* One more round of the loop after that in which both were ready. */
	for (int i = 0; i < 2; i++) {
		ffv_loop_kick(swap.loop, after.source);
		wait_for(&after.done);
	}
	ffv_loop_remove(swap.loop, blocker), ffv_loop_remove(swap.loop, after.source);
	ffv_loop_remove(swap.loop, swap.side[2].source);
	ffv_loop_destroy(swap.loop);
	CHECK_EQ(swap.done, 1);
	CHECK_EQ(atomic_load(&swap.wrong_calls), 0);
	for (int i = 0; i < 3; i++)
		close(swap.side[i].fd);
	sem_destroy(&call.entered), sem_destroy(&call.go), sem_destroy(&after.done);
}

/* ---- kicks ------------------------------------------------------------------------------------------------------------- */

struct counter {
	_Atomic uint64_t asked, seen;
	sem_t progress;
};

static uint64_t see(void *arg, uint64_t now_ns)
{
	struct counter *counter = arg;

	(void)now_ns;
	atomic_store(&counter->seen, atomic_load(&counter->asked));
	sem_post(&counter->progress);
	return UINT64_MAX;
}

struct kicker {
	struct ffv_loop *loop;
	struct ffv_loop_source *source;
	struct counter *counter;
};

static void *kick_often(void *arg)
{
	struct kicker *kicker = arg;

	for (int i = 0; i < 20000; i++) {
		atomic_fetch_add(&kicker->counter->asked, 1);
		ffv_loop_kick(kicker->loop, kicker->source);
	}
	return NULL;
}

/* Whatever was asked before a kick is seen by a call after it: no kick is lost. */
static void test_no_kick_is_lost(void)
{
	struct counter counter = {.asked = 0};
	struct kicker kicker = {.loop = new_loop(), .counter = &counter};
	pthread_t thread[3];

	sem_init(&counter.progress, 0, 0);
	CHECK_EQ(ffv_loop_add_timer(kicker.loop, see, &counter, &kicker.source), 0);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, kick_often, &kicker), 0);
	for (int i = 0; i < 3; i++)
		pthread_join(thread[i], NULL);
	while (atomic_load(&counter.seen) != 60000)
		wait_for(&counter.progress);
	for (uint64_t i = 0; i < 2000; i++) { /* one at a time: each has to wake the sleeping thread */
		uint64_t asked = atomic_fetch_add(&counter.asked, 1) + 1;

		ffv_loop_kick(kicker.loop, kicker.source);
		while (atomic_load(&counter.seen) != asked)
			wait_for(&counter.progress);
	}
	ffv_loop_remove(kicker.loop, kicker.source);
	ffv_loop_destroy(kicker.loop);
	sem_destroy(&counter.progress);
}

static struct kicker signal_kicker;

static void kick_from_signal(int number)
{
	(void)number;
	ffv_loop_kick(signal_kicker.loop, signal_kicker.source);
}

static void test_kick_from_signal_handler(void)
{
	struct counter counter = {.asked = 1};
	struct sigaction action = {.sa_handler = kick_from_signal}, before;

	sem_init(&counter.progress, 0, 0);
	signal_kicker.loop = new_loop();
	CHECK_EQ(ffv_loop_add_timer(signal_kicker.loop, see, &counter, &signal_kicker.source), 0);
	CHECK_EQ(sigaction(SIGUSR1, &action, &before), 0);
	raise(SIGUSR1);
	wait_for(&counter.progress);
	CHECK_EQ(atomic_load(&counter.seen), 1);
	sigaction(SIGUSR1, &before, NULL);
	ffv_loop_remove(signal_kicker.loop, signal_kicker.source);
	ffv_loop_destroy(signal_kicker.loop);
	sem_destroy(&counter.progress);
}

/* ---- churn ------------------------------------------------------------------------------------------------------------- */

static void drain(void *arg, uint32_t events)
{
	uint64_t count;

	(void)events;
	(void)!read(*(int *)arg, &count, sizeof count);
}

/* Sources whose descriptor is always ready come and go, each with an argument of its own that is gone afterwards: a late
 * call would touch freed memory. */
static void *churn(void *arg)
{
	struct ffv_loop *loop = arg;

	for (int i = 0; i < 3000; i++) {
		struct ffv_loop_source *source;
		int *fd = malloc(sizeof *fd);
		const uint64_t one = 1;

		*fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		CHECK(*fd >= 0);
		CHECK_EQ(ffv_loop_add(loop, *fd, drain, fd, &source), 0);
		CHECK_EQ(write(*fd, &one, sizeof one), (ssize_t)sizeof one);
		ffv_loop_remove(loop, source);
		close(*fd);
		free(fd);
	}
	return NULL;
}

static void test_churn(void)
{
	struct ffv_loop *loop = new_loop();
	pthread_t thread[2];

	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, churn, loop), 0);
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	ffv_loop_destroy(loop);
}

/* ---- the thread, and fork ----------------------------------------------------------------------------------------------- */

static uint64_t look_at_thread(void *arg, uint64_t now_ns)
{
	char name[16];
	sigset_t blocked;

	(void)now_ns;
	pthread_getname_np(pthread_self(), name, sizeof name);
	CHECK_STR(name, "ffverbs");
	pthread_sigmask(SIG_SETMASK, NULL, &blocked);
	CHECK(sigismember(&blocked, SIGINT) && sigismember(&blocked, SIGTERM) && sigismember(&blocked, SIGUSR1));
	CHECK(!sigismember(&blocked, SIGSEGV));
	sem_post(arg);
	return UINT64_MAX;
}

static void test_thread(void)
{
	struct ffv_loop *loop = new_loop();
	struct ffv_loop_source *source;
	sigset_t blocked;
	sem_t looked;

	sem_init(&looked, 0, 0);
	CHECK_EQ(ffv_loop_add_timer(loop, look_at_thread, &looked, &source), 0);
	ffv_loop_kick(loop, source);
	wait_for(&looked);
	pthread_sigmask(SIG_SETMASK, NULL, &blocked);
	CHECK(!sigismember(&blocked, SIGINT)); /* the creator's mask is as before */
	ffv_loop_remove(loop, source);
	ffv_loop_destroy(loop);
	sem_destroy(&looked);
}

static void test_fork(void)
{
	struct reader reader = {.loop = new_loop(), .remove_after = 1000};
	int pair[2], status;
	pid_t child;

	sem_init(&reader.called, 0, 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	reader.fd = pair[0];
	CHECK_EQ(ffv_loop_add(reader.loop, pair[0], read_byte, &reader, &reader.source), 0);
	child = fork();
	if (child == 0) {
		ffv_loop_abandon(reader.loop);
		_exit(0);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
	CHECK_EQ(send(pair[1], "x", 1, 0), 1); /* the parent's loop still works */
	wait_for(&reader.called);
	ffv_loop_remove(reader.loop, reader.source);
	ffv_loop_destroy(reader.loop);
	close(pair[0]), close(pair[1]);
	sem_destroy(&reader.called);
}

int main(void)
{
	test_descriptor_and_hang_up();
	test_removed_source_is_silent();
	test_bad_descriptors();
	test_timers();
	test_changes_in_callbacks();
	test_removal_waits();
	test_event_of_removed_source();
	test_no_kick_is_lost();
	test_kick_from_signal_handler();
	test_churn();
	test_thread();
	test_fork();
	return 0;
}

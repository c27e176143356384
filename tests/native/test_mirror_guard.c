/* The write guard: a writer waits and loses nothing, and every fault that is not the guard's reaches the handler that
 * was there before, as the kernel would have called it. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/atomics.h"
#include "base/clock.h"
#include "mirror_support.h"
#include "shm/guard.h"

#define HANG_NS 20000000000ull

static struct ffv_range page_range(const uint8_t *page)
{
	return (struct ffv_range){ address_of(page), address_of(page) + PAGE };
}

/* ---- waiting ------------------------------------------------------------------------------------------------------- */

static _Atomic int writer_tid;
static _Atomic int writer_done;

static void *write_one(void *arg)
{
	volatile uint8_t *byte = arg;

	if (ffv_guard_has_userfaultfd()) { /* then no signal is needed, and none can be in the way */
		sigset_t all;
		sigfillset(&all);
		CHECK(!pthread_sigmask(SIG_BLOCK, &all, NULL));
	}
	ffv_store_release(&writer_tid, (int)syscall(SYS_gettid));
	*byte = 42;
	ffv_store_release(&writer_done, 1);
	return NULL;
}

/* Has the thread gone to sleep in the kernel? It does nothing else that sleeps. */
static bool sleeps(int tid)
{
	char path[64], text[256] = "";

	snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
	int fd = open(path, O_RDONLY);
	CHECK(fd >= 0);
	CHECK(read(fd, text, sizeof text - 1) > 0);
	close(fd);
	return strstr(text, ") S ") || strstr(text, ") D ");
}

static void test_writer_waits(void)
{
	uint8_t *memory = private_pages(1);
	uint64_t deadline = ffv_clock_ns() + HANG_NS;
	pthread_t thread;

	ffv_store_relaxed(&writer_tid, 0);
	ffv_store_relaxed(&writer_done, 0);
	CHECK_OK(ffv_guard_begin(true));
	CHECK_OK(ffv_guard_hold(page_range(memory)));
	CHECK(!pthread_create(&thread, NULL, write_one, memory + 5));
	while (!ffv_load_acquire(&writer_tid) || !sleeps(ffv_load_acquire(&writer_tid)))
		CHECK(ffv_clock_ns() < deadline);
	CHECK_EQ(ffv_load_acquire(&writer_done), 0);
	ffv_guard_unprotect(page_range(memory));
	ffv_guard_release();
	CHECK(!pthread_join(thread, NULL));
	CHECK_EQ(memory[5], 42);
	munmap(memory, PAGE);
}

/* ---- passing on ---------------------------------------------------------------------------------------------------- */

static uint8_t *barrier; /* memory that the application protects by itself, as garbage collectors do */
static _Atomic int faults_seen;
static sigset_t blocked_in_handler;

static void lift_barrier(int signum, siginfo_t *info, void *context)
{
	(void)context;
	CHECK_EQ(signum, SIGSEGV);
	if (info->si_code > 0)
		CHECK(info->si_addr == barrier + 9);
	ffv_fetch_add(&faults_seen, 1);
	sigprocmask(SIG_SETMASK, NULL, &blocked_in_handler);
	mprotect(barrier, PAGE, PROT_READ | PROT_WRITE);
}

static void install(void (*handler)(int, siginfo_t *, void *), int flags)
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags };

	sigemptyset(&action.sa_mask);
	sigaddset(&action.sa_mask, SIGUSR1);
	CHECK(!sigaction(SIGSEGV, &action, NULL));
}

static void fault_at_barrier(int nth)
{
	CHECK(!mprotect(barrier, PAGE, PROT_READ));
	((volatile uint8_t *)barrier)[9] = (uint8_t)nth;
	CHECK_EQ(ffv_load_acquire(&faults_seen), nth);
	CHECK_EQ(barrier[9], nth);
}

static void test_handler_gets_its_faults(void)
{
	uint8_t *held = private_pages(1);
	sigset_t after;

	barrier = private_pages(1);
	install(lift_barrier, 0);
	CHECK_OK(ffv_guard_begin(true));
	CHECK_OK(ffv_guard_hold(page_range(held)));
	for (int i = 1; i <= 3; i++)
		fault_at_barrier(i);
	CHECK(sigismember(&blocked_in_handler, SIGUSR1) && sigismember(&blocked_in_handler, SIGSEGV));
	CHECK(!sigprocmask(SIG_SETMASK, NULL, &after));
	CHECK(!sigismember(&after, SIGUSR1) && !sigismember(&after, SIGSEGV));
	CHECK(!raise(SIGSEGV)); /* sent, not a fault: passed on the first time */
	CHECK_EQ(ffv_load_acquire(&faults_seen), 4);
	ffv_guard_unprotect(page_range(held));
	ffv_guard_release();
	fault_at_barrier(5); /* and so it stays */
	munmap(held, PAGE);
	munmap(barrier, PAGE);
}

static void test_no_defer(void)
{
	barrier = private_pages(1);
	install(lift_barrier, SA_NODEFER);
	faults_seen = 0;
	CHECK_OK(ffv_guard_begin(true));
	fault_at_barrier(1);
	CHECK(!sigismember(&blocked_in_handler, SIGSEGV));
	munmap(barrier, PAGE);
}

static sigjmp_buf escape;

static void jump_out(int signum)
{
	siglongjmp(escape, signum);
}

/* An old-style handler. */
static void jump_three_times(void)
{
	struct sigaction action = { .sa_handler = jump_out };
	uint8_t *memory = private_pages(1);

	CHECK(!sigaction(SIGSEGV, &action, NULL));
	CHECK(!mprotect(memory, PAGE, PROT_NONE));
	CHECK_OK(ffv_guard_begin(true));
	for (volatile int i = 0; i < 3; i++) {
		if (!sigsetjmp(escape, 1)) {
			*(volatile uint8_t *)memory = 1;
			_exit(5);
		}
	}
}

/* What a process that does `fault` under the guard ends with. */
static int status_of_child(void (*disposition)(int), void (*fault)(void))
{
	fflush(NULL);
	pid_t pid = fork();
	int status;

	CHECK(pid >= 0);
	if (!pid) {
		signal(SIGSEGV, disposition);
		if (ffv_guard_begin(true))
			_exit(3);
		fault();
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

static void fault_null(void)
{
	volatile uintptr_t nowhere = 8;

	*(volatile uint8_t *)nowhere = 1;
}

static void send_to_self(void)
{
	raise(SIGSEGV);
}

/* The second fault meets the default: SA_RESETHAND. */
static void fault_twice(void)
{
	barrier = private_pages(1);
	install(lift_barrier, (int)SA_RESETHAND);
	faults_seen = 0;
	CHECK_OK(ffv_guard_begin(true));
	fault_at_barrier(1);
	CHECK(!mprotect(barrier, PAGE, PROT_READ));
	((volatile uint8_t *)barrier)[9] = 2;
}

static struct sigaction below;

static void count_turn(void)
{
	ffv_fetch_add(&faults_seen, 1);
	if (ffv_load_acquire(&faults_seen) > 2)
		_exit(4); /* goes round in circles */
}

static void pass_down(int signum, siginfo_t *info, void *context)
{
	count_turn();
	below.sa_sigaction(signum, info, context);
}

/* As Python's faulthandler does. */
static void restore_and_raise(int signum, siginfo_t *info, void *context)
{
	(void)info;
	(void)context;
	count_turn();
	sigaction(signum, &below, NULL);
	raise(signum);
}

/* A handler over the guard's that passes on to it, over which the guard's comes again. */
static void fault_in_a_circle(void (*handler)(int, siginfo_t *, void *))
{
	faults_seen = 0;
	CHECK(!sigaction(SIGSEGV, NULL, &below));
	install(handler, SA_NODEFER);
	CHECK_OK(ffv_guard_begin(true));
	fault_null();
}

static void fault_in_a_circle_of_calls(void)
{
	fault_in_a_circle(pass_down);
}

static void fault_in_a_circle_of_signals(void)
{
	fault_in_a_circle(restore_and_raise);
}

static void test_ends(void (*disposition)(int), void (*fault)(void), bool by_signal)
{
	int status = status_of_child(disposition, fault);

	CHECK(by_signal ? WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV :
		WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void)
{
	signal(SIGSEGV, SIG_DFL); /* a sanitizer's own would be the one before ours */
	with_each_guard(test_writer_waits);
	ffv_guard_avoid_userfaultfd(true); /* the rest is about the handler */
	test_handler_gets_its_faults();
	test_no_defer();
	test_ends(SIG_DFL, fault_null, true);
	test_ends(SIG_IGN, fault_null, true); /* a real fault cannot be ignored */
	test_ends(SIG_DFL, send_to_self, true);
	test_ends(SIG_IGN, send_to_self, false);
	test_ends(SIG_DFL, jump_three_times, false);
	test_ends(SIG_DFL, fault_twice, true);
	test_ends(SIG_DFL, fault_in_a_circle_of_calls, true);
	test_ends(SIG_DFL, fault_in_a_circle_of_signals, true);
	return 0;
}

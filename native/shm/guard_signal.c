/* SPDX-License-Identifier: MIT
 *
 * See guard_signal.h. The handler runs in whichever thread faults, at any instruction: it uses atomics, futex and
 * sigaction, nothing that locks or allocates.
 *
 * A faulting thread may be delayed between its fault and the handler until the range is released, or another one held.
 * So a fault outside the held range is not yet an error of the application: the handler returns, which tries the
 * instruction again, and passes the fault on only if the same instruction faults on the same address a second time
 * though nothing has been held anew in between.
 */
#include "shm/guard_signal.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/atomics.h"
#include "base/error.h"

static struct {
	_Atomic uint64_t first, end;  /* the held range; end is written last and zeroed first */
	_Atomic uint32_t holds;       /* counts; written before a range is protected */
	_Atomic uint32_t releases;    /* counts; waiting writers sleep on it */
	struct sigaction original;    /* who handled SIGSEGV before ours was installed for the first time */
	struct sigaction before;      /* ... and for the last time: others may have come in between */
	bool has_original;
} guard;

/* In a shared object that was loaded at run time, other kinds of thread-local memory may be allocated at first use. */
#define FFV_TLS_IN_HANDLER static _Thread_local __attribute__((tls_model("initial-exec")))
FFV_TLS_IN_HANDLER uintptr_t tried_addr, tried_ip;
FFV_TLS_IN_HANDLER uint32_t tried_holds;
FFV_TLS_IN_HANDLER uintptr_t passing_frame; /* where on the stack an earlier handler was called; 0: it is not */

static uintptr_t fault_ip(const ucontext_t *context)
{
#if defined(__x86_64__)
	return (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
	return (uintptr_t)context->uc_mcontext.pc;
#else
	(void)context;
	return 1;
#endif
}

static bool is_held(uintptr_t addr)
{
	/* [guard-range] */
	uint64_t end = ffv_load_acquire(&guard.end);

	return addr < end && addr >= ffv_load_acquire(&guard.first);
}

static void wait_while_held(uintptr_t addr)
{
	for (;;) {
		/* [guard-release] read before the range, so that a release in between ends the sleep at once */
		uint32_t seen = ffv_load_acquire(&guard.releases);
		if (!is_held(addr))
			return;
		syscall(SYS_futex, &guard.releases, FUTEX_WAIT_PRIVATE, (long)seen, NULL, NULL, 0L);
	}
}

/* Nobody is left to ask: a fault comes again on return and then ends the process; one that was sent is sent again. */
static void give_up(int signum, const siginfo_t *info)
{
	signal(signum, SIG_DFL);
	if (info->si_code <= 0)
		syscall(SYS_tgkill, (long)getpid(), syscall(SYS_gettid), (long)signum);
}

/* Calls an earlier handler as the kernel would have: with its mask, its reset, its kind. */
static void call_handler(struct sigaction *place, int signum, siginfo_t *info, void *context)
{
	struct sigaction handler = *place;
	sigset_t own, saved;

	if (handler.sa_flags & SA_RESETHAND)
		*place = (struct sigaction){ .sa_handler = SIG_DFL };
	pthread_sigmask(SIG_BLOCK, &handler.sa_mask, &saved);
	sigemptyset(&own);
	sigaddset(&own, signum);
	if (handler.sa_flags & SA_NODEFER)
		pthread_sigmask(SIG_UNBLOCK, &own, NULL);
	if (handler.sa_flags & SA_SIGINFO)
		handler.sa_sigaction(signum, info, context);
	else
		handler.sa_handler(signum);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
}

static bool is_function(const struct sigaction *action)
{
	return (action->sa_flags & SA_SIGINFO) || (action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN);
}

/* Has this very signal been passed on already? The mark stands where the kernel writes zeros at each delivery. */
static bool mark_passed_on(siginfo_t *info)
{
	static const uint64_t mark = 0x6566736c61727576;
	uint8_t *place = (uint8_t *)info + sizeof *info - sizeof mark;
	bool marked = !memcmp(place, &mark, sizeof mark);

	memcpy(place, &mark, sizeof mark);
	return marked;
}

/* Did an earlier handler, which we have called, raise the signal once more? A handler that jumped away instead has left
 * passing_frame behind: so only what this process has sent, from further down the stack, counts. */
static bool is_raised_by_handler(const siginfo_t *info)
{
	return passing_frame && (uintptr_t)__builtin_frame_address(0) < passing_frame && info->si_code == SI_TKILL &&
		info->si_pid == getpid();
}

/* The handler before ours may have been installed over ours earlier, and come back to ours with what it does not
 * handle: by calling it, or by raising the signal. Then it is the turn of the first one. */
static void pass_on(int signum, siginfo_t *info, void *context)
{
	bool again = mark_passed_on(info) || is_raised_by_handler(info);
	struct sigaction *before = again ? &guard.original : &guard.before;

	if (is_function(before)) {
		uintptr_t outer = passing_frame;
		passing_frame = (uintptr_t)__builtin_frame_address(0);
		call_handler(before, signum, info, context);
		passing_frame = outer;
	} else if (info->si_code > 0 || before->sa_handler != SIG_IGN) { /* a fault cannot be ignored */
		give_up(signum, info);
	}
}

/* Was the same fault seen before, with nothing held since? Remembers it. */
static bool is_second_try(uintptr_t addr, uintptr_t ip, uint32_t holds)
{
	bool second = addr == tried_addr && ip == tried_ip && holds == tried_holds;

	tried_addr = addr;
	tried_ip = ip;
	tried_holds = holds;
	return second;
}

static void on_fault(int signum, siginfo_t *info, void *context)
{
	int saved_errno = errno;
	uintptr_t addr = (uintptr_t)info->si_addr;
	/* [guard-holds] read before the range: whatever holds this address after the check below has counted up. */
	uint32_t holds = ffv_load_acquire(&guard.holds);

	if (info->si_code > 0 && is_held(addr))
		wait_while_held(addr);
	else if (info->si_code <= 0 || is_second_try(addr, fault_ip(context), holds))
		pass_on(signum, info, context);
	errno = saved_errno;
}

/* It stays: a thread that has faulted may be about to be handed the signal, however long ago the range was released. */
int ffv_guard_signal_begin(void)
{
	struct sigaction ours = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };
	struct sigaction there;

	sigemptyset(&ours.sa_mask);
	if (sigaction(SIGSEGV, NULL, &there))
		return ffv_fail_errno(errno, "cannot examine the handler of SIGSEGV");
	if ((there.sa_flags & SA_SIGINFO) && there.sa_sigaction == on_fault)
		return 0;
	guard.before = there;
	if (!guard.has_original)
		guard.original = there;
	guard.has_original = true;
	if (sigaction(SIGSEGV, &ours, NULL))
		return ffv_fail_errno(errno, "cannot install a handler of SIGSEGV");
	return 0;
}

static int protect(struct ffv_range range, int protection)
{
	return (int)syscall(SYS_mprotect, range.first, range.end - range.first, (long)protection);
}

int ffv_guard_signal_hold(struct ffv_range range)
{
	/* [guard-range] [guard-holds] the writer's end: count, first, end; all before the protection that makes anyone
	 * look. */
	ffv_fetch_add(&guard.holds, 1);
	ffv_store_release(&guard.first, range.first);
	ffv_store_seq_cst(&guard.end, range.end);
	if (!protect(range, PROT_READ))
		return 0;
	int err = errno;
	ffv_guard_signal_unprotect(range); /* part of it may be protected */
	ffv_guard_signal_release();
	return ffv_fail_errno(err, "cannot write-protect memory while it is being moved "
		"(ENOMEM: vm.max_map_count is reached)");
}

void ffv_guard_signal_release(void)
{
	ffv_store_seq_cst(&guard.end, 0);
	ffv_fetch_add(&guard.releases, 1); /* [guard-release] */
	syscall(SYS_futex, &guard.releases, FUTEX_WAKE_PRIVATE, (long)INT_MAX, NULL, NULL, 0L);
}

void ffv_guard_signal_unprotect(struct ffv_range range)
{
	protect(range, PROT_READ | PROT_WRITE);
}

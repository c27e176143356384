/* SPDX-License-Identifier: MIT
 *
 * See spinlock.h: what happens when a lock is taken for the first time, or by a second thread.
 */
#include "base/spinlock.h"

#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool can_bias;

static void find_out(void)
{
	can_bias = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0 &&
		   syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
}

static void take(struct ffv_spinlock *lock)
{
	for (unsigned spins = 0;; spins++) {
		uint32_t free = 0;
		/* [spinlock] acquire here, release in unlock. */
		if (atomic_compare_exchange_weak_explicit(&lock->held, &free, 1u, memory_order_acquire,
							  memory_order_relaxed))
			return;
		if (spins % 64 == 63)
			sched_yield(); /* its holder was preempted */
		else
			ffv_cpu_relax();
	}
}

/* Called with `held`: nobody else is here. */
static void take_bias_away(struct ffv_spinlock *lock)
{
	ffv_store_seq_cst(&lock->owner, FFV_BIAS_NONE);
	if (can_bias) {
		/* [bias-dekker] a fork child's registration is its parent's. */
		while (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0))
			syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
	}
	for (unsigned spins = 0; ffv_load_acquire(&lock->inside); spins++) {
		if (spins % 64 == 63)
			sched_yield();
		else
			ffv_cpu_relax();
	}
}

ffv_spin_token ffv_spin_lock_slow(struct ffv_spinlock *lock)
{
	uintptr_t nobody = 0;

	if (ffv_load_relaxed(&lock->owner) == 0) {
		pthread_once(&once, find_out);
		/* [bias-known] */
		if (ffv_cas(&lock->owner, &nobody, can_bias ? (uintptr_t)__builtin_thread_pointer() : FFV_BIAS_NONE))
			return ffv_spin_lock(lock);
	}
	take(lock);
	/* [bias-known] pairs with the CAS of whoever set it: what find_out() found is seen here too. */
	if (ffv_load_acquire(&lock->owner) != FFV_BIAS_NONE)
		take_bias_away(lock);
	return FFV_SPIN_HELD;
}

/* SPDX-License-Identifier: MIT
 *
 * A lock for the threads of one process that is held for nanoseconds, biased to the first thread that takes it: most
 * queues are used by one thread, which then locks and unlocks with plain stores instead of locked operations. The first
 * other thread takes the bias away for good. Never in shared memory: a stopped or dead peer must not be able to hold one.
 *
 * Proof. The owner stores `inside`, then loads `owner`; who takes the bias away stores `owner`, then loads `inside`: a
 * Dekker pair. Its two fences are the compiler's on the owner's side and membarrier(2) on the other, which makes every
 * running thread of the process execute a full barrier [bias-dekker]. Without membarrier nothing is biased.
 */
#ifndef FFV_BASE_SPINLOCK_H
#define FFV_BASE_SPINLOCK_H

#include "base/atomics.h"

struct ffv_spinlock {
	_Atomic uintptr_t owner;      /* thread it is biased to; 0 = nobody yet, FFV_BIAS_NONE = nobody any more */
	_Atomic uint32_t inside;      /* the owner holds it by its bias */
	_Atomic uint32_t held;        /* somebody holds it by a locked operation */
};

#define FFV_BIAS_NONE ((uintptr_t)1)

/* How a lock was taken; given back to ffv_spin_unlock. */
typedef uint32_t ffv_spin_token;
enum { FFV_SPIN_BIASED = 0, FFV_SPIN_HELD = 1 };

ffv_spin_token ffv_spin_lock_slow(struct ffv_spinlock *lock);

static inline ffv_spin_token ffv_spin_lock(struct ffv_spinlock *lock)
{
	uintptr_t self = (uintptr_t)__builtin_thread_pointer();

	if (ffv_likely(ffv_load_relaxed(&lock->owner) == self)) {
		ffv_store_relaxed(&lock->inside, 1u);
		/* [bias-dekker] */
		atomic_signal_fence(memory_order_seq_cst);
		if (ffv_likely(ffv_load_acquire(&lock->owner) == self))
			return FFV_SPIN_BIASED;
		ffv_store_release(&lock->inside, 0u);
	}
	return ffv_spin_lock_slow(lock);
}

static inline void ffv_spin_unlock(struct ffv_spinlock *lock, ffv_spin_token token)
{
	/* [spinlock] releases what was done inside to the next holder's acquire. */
	if (ffv_likely(token == FFV_SPIN_BIASED))
		ffv_store_release(&lock->inside, 0u);
	else
		ffv_store_release(&lock->held, 0u);
}

#endif

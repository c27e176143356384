/* SPDX-License-Identifier: MIT
 *
 * Atomics and cache-line vocabulary. Process-private and shared memory alike; no state.
 *
 * Everything that another thread or process may touch at the same time goes through these; the name of the memory
 * order is part of the call, so that both ends of an ordering edge can be read at a glance. An edge bears the same
 * label in a comment at both ends, e.g. [cq-publish].
 */
#ifndef FFV_BASE_ATOMICS_H
#define FFV_BASE_ATOMICS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define FFV_LINE_BYTES 64u
#define FFV_LINE_ALIGNED _Alignas(64)

#define ffv_load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define ffv_load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define ffv_load_seq_cst(p) atomic_load_explicit((p), memory_order_seq_cst)
#define ffv_store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define ffv_store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define ffv_store_seq_cst(p, v) atomic_store_explicit((p), (v), memory_order_seq_cst)
#define ffv_fetch_or(p, v) atomic_fetch_or_explicit((p), (v), memory_order_seq_cst)
#define ffv_fetch_and(p, v) atomic_fetch_and_explicit((p), (v), memory_order_seq_cst)
#define ffv_fetch_add(p, v) atomic_fetch_add_explicit((p), (v), memory_order_seq_cst)
#define ffv_fetch_sub(p, v) atomic_fetch_sub_explicit((p), (v), memory_order_seq_cst)
#define ffv_exchange(p, v) atomic_exchange_explicit((p), (v), memory_order_seq_cst)
#define ffv_cas(p, expected, desired) \
	atomic_compare_exchange_strong_explicit((p), (expected), (desired), memory_order_seq_cst, memory_order_seq_cst)
/* Plain words that another thread or process may change at this moment; what was read is checked or dropped. */
#define ffv_word_load(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define ffv_word_store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define ffv_word_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define ffv_word_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
/* Orders earlier loads before later ones: what was read is whole if the word that says so still stands. */
#define ffv_fence_load_load() atomic_thread_fence(memory_order_acquire)
#define ffv_fence_store_store() atomic_thread_fence(memory_order_release)
/* Orders earlier stores before later loads (a Dekker pair needs it on both sides). */
#define ffv_fence_store_load() atomic_thread_fence(memory_order_seq_cst)

#define ffv_likely(x) __builtin_expect(!!(x), 1)
#define ffv_unlikely(x) __builtin_expect(!!(x), 0)

/* Asks for a line that is about to be written. */
#define ffv_prefetch_write(p) __builtin_prefetch((p), 1, 3)
#define ffv_prefetch_read(p) __builtin_prefetch((p), 0, 3)

/* Counts one more holder of what has some. False: it has none any more, and is somebody else's. */
static inline bool ffv_hold(_Atomic uint32_t *refs)
{
	uint32_t seen = ffv_load_relaxed(refs);

	do {
		if (!seen)
			return false;
	} while (!ffv_cas(refs, &seen, seen + 1));
	return true;
}

static inline void ffv_cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield" ::: "memory");
#endif
}

#endif

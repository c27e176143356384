/* SPDX-License-Identifier: MIT
 *
 * Taking receive work requests. Fast path: no system call, no allocation, no log. Runs in whichever process executes.
 *
 * A queue with one taker (RC, UC: the holder of the peer's exec_lock, or the owner when no
 * execution is left) is peeked, used, then advanced. A queue with
 * several takers (shared, UD) is copied first, then taken by CAS on its head; who is about to take names the entry in
 * its own QP (taken_position) before, so that it is not lost if the taker dies.
 */
#ifndef FFV_ENGINE_RQ_H
#define FFV_ENGINE_RQ_H

#include "base/fault.h"
#include "engine/view.h"

/* A receive work request, copied: the owner cannot change it under us any more. */
struct ffv_rwqe {
	uint64_t position;
	uint32_t num_sge;
	struct ffv_sge_shm sge[FFV_MAX_SGE];
};

/* [rq-entry] A taker of a shared queue may copy an entry that its owner writes again at this moment; the CAS that follows
 * then fails, and the copy is dropped. Relaxed is enough: the order comes from tail and head. */
static inline struct ffv_sge_shm ffv_sge_read(const struct ffv_sge_shm *entry)
{
	return (struct ffv_sge_shm){ ffv_word_load(&entry->addr), ffv_word_load(&entry->length),
				     ffv_word_load(&entry->lkey) };
}

static inline void ffv_sge_write(struct ffv_sge_shm *entry, struct ffv_sge_shm sge)
{
	ffv_word_store(&entry->addr, sge.addr);
	ffv_word_store(&entry->length, sge.length);
	ffv_word_store(&entry->lkey, sge.lkey);
}

/* True if `tail` says that there is an entry at head. A queue never holds more positions than slots, so a tail that is
 * older than head (another taker cached it late), or a hostile one, says that there is none. */
static inline bool ffv_rq_is_below(const struct ffv_rq_ref *rq, uint64_t head, uint64_t tail)
{
	return tail - head - 1 <= rq->index_mask;
}

/* True if an entry may be posted at head; refreshes the cached tail if need be. */
static inline bool ffv_rq_has_entry(const struct ffv_rq_ref *rq, uint64_t head)
{
	/* [rq-post] acquire: it was another taker that saw the entries posted. */
	if (ffv_likely(ffv_rq_is_below(rq, head, ffv_load_acquire(&rq->shm->cached_tail))))
		return true;
	/* [rq-post] pairs with the posting thread's exchange of tail: the entries below it are whole. */
	uint64_t tail = ffv_load_acquire(&rq->shm->tail);
	ffv_store_release(&rq->shm->cached_tail, tail);
	return ffv_rq_is_below(rq, head, tail);
}

static inline bool ffv_rq_copy(const struct ffv_rq_ref *rq, uint64_t position, struct ffv_rwqe *out)
{
	const struct ffv_sge_shm *entry = ffv_rq_ref_entry(rq, position);
	uint32_t n = 0;

	/* The first is looked at even in a queue without scatter entries: it may be void. */
	do {
		out->sge[n] = ffv_sge_read(&entry[n]);
		if (ffv_unlikely(out->sge[n].addr >= FFV_SGE_VOID))
			break;
		n++;
	} while (n < rq->max_sge);
	out->position = position;
	out->num_sge = n <= rq->max_sge ? n : rq->max_sge;
	return n || out->sge[0].addr != FFV_SGE_VOID;
}

/* Copies the next receive work request without taking it; false if there is none. One taker only. */
static inline bool ffv_rq_peek(const struct ffv_rq_ref *rq, struct ffv_rwqe *out)
{
	uint64_t head = ffv_load_relaxed(&rq->shm->head);

	while (ffv_rq_has_entry(rq, head)) {
		if (ffv_likely(ffv_rq_copy(rq, head, out)))
			return true;
		ffv_store_relaxed(&rq->shm->head, ++head);
	}
	return false;
}

static inline void ffv_rq_advance(const struct ffv_rq_ref *rq, uint64_t position)
{
	ffv_store_relaxed(&rq->shm->head, position + 1);
	ffv_prefetch_read(ffv_rq_ref_entry(rq, position + 4));
}

/* Takes one from a queue with several takers; `taker` remembers it until ffv_rq_forget. False if there is none, or if the
 * queue was resized: then it has moved, and is to be asked again by a reference opened anew. */
static inline bool ffv_rq_take(const struct ffv_rq_ref *rq, struct ffv_qp_shm *taker, struct ffv_rwqe *out)
{
	uint64_t head = ffv_load_acquire(&rq->shm->head);

	for (;;) {
		if (!ffv_rq_has_entry(rq, head)) {
			taker->rq_taken = FFV_TAKEN_NOT;
			return false;
		}
		bool real = ffv_rq_copy(rq, head, out);
		if (ffv_unlikely(ffv_rq_ref_has_moved(rq))) {
			taker->rq_taken = FFV_TAKEN_NOT;
			return false;
		}
		ffv_word_store(&taker->taken_position, head);
		ffv_word_store(&taker->rq_taken, (uint8_t)FFV_TAKEN_MAYBE); /* ordered before the CAS by the CAS */
		FFV_FAULT(exec_rq_named);
		/* [rq-take] a CAS that succeeds proves that the copy is of this position: a slot is only written again
		 * after its position was taken and completed. */
		if (ffv_cas(&rq->shm->head, &head, head + 1)) {
			FFV_FAULT(exec_rq_taken);
			ffv_word_store(&taker->rq_taken, (uint8_t)(real ? FFV_TAKEN_YES : FFV_TAKEN_NOT));
			if (real)
				return true;
			head++;
		}
	}
}

static inline void ffv_rq_forget(struct ffv_qp_shm *taker)
{
	ffv_word_store_release(&taker->rq_taken, (uint8_t)FFV_TAKEN_NOT); /* [taken] after its completion */
}

/* Work requests posted and not taken. */
static inline uint64_t ffv_rq_depth(const struct ffv_rq_ref *rq)
{
	uint64_t tail = ffv_load_acquire(&rq->shm->tail);
	uint64_t head = ffv_load_relaxed(&rq->shm->head);

	return tail > head ? tail - head : 0;
}

#endif

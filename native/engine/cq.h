/* SPDX-License-Identifier: MIT
 *
 * Completing: claiming positions of a completion queue, writing entries, publishing them. Fast path: no system call, no
 * allocation, no log. Runs in whichever process executes; the queue may be another context's.
 *
 * The ring of a queue that grows is replaced: a claim is in the ring that the tail it was made from names, and positions
 * from that ring's first on are in no other one.
 *
 * Claims of different threads and processes meet in one CAS on the tail. A claim clears the armed bits it sees; whoever
 * cleared them owes the event after publishing. Entries of a claim that stay unused are published void.
 */
#ifndef FFV_ENGINE_CQ_H
#define FFV_ENGINE_CQ_H

#include <stdbool.h>

#include "base/clock.h"
#include "base/fault.h"
#include "engine/view.h"

struct ffv_claim {
	const struct ffv_cq_ref *cq;  /* only changes while the claim is empty */
	uint64_t next;
	uint64_t end;
	bool signal;                  /* an event is owed */
	struct ffv_cq_ref followed;   /* what cq points to when the queue has another ring than it was opened with */
	struct ffv_cqe_shm dropped;   /* where a completion goes that a full queue ignores */
};

static inline void ffv_claim_init(struct ffv_claim *claim, const struct ffv_cq_ref *cq)
{
	claim->cq = cq;
	claim->next = claim->end = 0;
	claim->signal = false;
}

/* Claims up to `want` positions (at least one) into an empty claim. `solicited`: one of them will be.
 * journal: where the claim is named for repair, NULL if the queue is the executing process's own.
 * False: the queue overran; it is marked. */
bool ffv_cq_claim(struct ffv_claim *claim, const struct ffv_view *view, unsigned want, bool solicited,
		  struct ffv_thread_shm *journal);
/* Publishes what is left of the claim as void entries. The journal is the caller's to clear after the event. */
void ffv_cq_abandon(struct ffv_claim *claim);
/* An error completion signals a queue that is armed for solicited ones too. */
void ffv_cq_note_error(struct ffv_claim *claim);

/* An event of a moderated queue is owed, but not yet: its owner waits for its time. */
static inline bool ffv_cq_is_held_back(const struct ffv_cq_shm *shm)
{
	return ffv_unlikely(ffv_load_relaxed(&shm->moderate_count)) &&
	       ffv_load_relaxed(&shm->tail) & (FFV_CQ_ARMED | FFV_CQ_ARMED_SOLICITED);
}

/* True if a position's slot is kept by an older position that a stopped process claimed. */
bool ffv_cq_is_hole_slot(const struct ffv_cq_ref *cq, uint64_t position);

static inline bool ffv_cq_is_published(const struct ffv_cq_ref *cq, uint64_t position)
{
	/* [cq-publish] pairs with the release in ffv_cq_publish: the entry is whole. */
	return ffv_load_acquire(&cq->ring[position & cq->index_mask].sequence) == (uint32_t)(position + 1);
}

/* The next entry of a claim that is not empty, to be filled in except `sequence`. */
static inline struct ffv_cqe_shm *ffv_cq_entry(const struct ffv_claim *claim)
{
	return &claim->cq->ring[claim->next & claim->cq->index_mask];
}

/* What an extended queue keeps beside that entry, with the time in it and else zero; NULL: the queue is an ordinary one. */
static inline struct ffv_cqe_ext_shm *ffv_cq_entry_ext(const struct ffv_claim *claim)
{
	struct ffv_cqe_ext_shm *ext = claim->cq->ext;

	if (ffv_likely(!ext))
		return NULL;
	ext += claim->next & claim->cq->index_mask;
	*ext = (struct ffv_cqe_ext_shm){ .timestamp_ns = ffv_clock_ns() };
	return ext;
}

static inline void ffv_cq_skip_holes(struct ffv_claim *claim)
{
	if (ffv_unlikely(ffv_load_relaxed(&claim->cq->shm->num_holes)))
		while (claim->next < claim->end && ffv_cq_is_hole_slot(claim->cq, claim->next))
			claim->next++;
}

static inline void ffv_cq_publish(struct ffv_claim *claim)
{
	/* [cq-publish] release: entry and payload before the sequence word. */
	ffv_store_release(&ffv_cq_entry(claim)->sequence, (uint32_t)(claim->next + 1));
	if (ffv_unlikely(++claim->next < claim->end))
		ffv_cq_skip_holes(claim);
}

/* Names what is about to be claimed, for repair. */
static inline void ffv_cq_name_claim(struct ffv_thread_shm *journal, const struct ffv_view *view,
				     const struct ffv_cq_ref *cq, uint64_t first, unsigned count)
{
	ffv_store_relaxed(&journal->claim_cq, cq->id);
	ffv_store_relaxed(&journal->claim_count, count);
	ffv_store_relaxed(&journal->claim_first, first);
	/* The CAS on the tail that follows orders the journal before the claim. */
	ffv_store_relaxed(&journal->claim_ctx, view->context_id);
}

/* The common case of ffv_cq_claim: one position of a queue that is not armed, where the cached head shows room. False:
 * nothing is claimed, which says nothing of the queue. */
static inline bool ffv_cq_claim_one(struct ffv_claim *claim, const struct ffv_view *view, struct ffv_thread_shm *journal)
{
	const struct ffv_cq_ref *cq = claim->cq;
	uint64_t tail = ffv_load_relaxed(&cq->shm->tail), position = FFV_CQ_POSITION(tail);

	if (ffv_unlikely(tail >> FFV_CQ_RING_SHIFT != cq->ring_number)) /* replaced, or armed: those bits are above */
		return false;
	/* [cq-consume] acquire: it was another producer that saw the head. */
	if (ffv_unlikely((int64_t)(position - ffv_load_acquire(&cq->shm->cached_head)) > (int64_t)cq->index_mask))
		return false;
	if (journal)
		ffv_cq_name_claim(journal, view, cq, position, 1);
	/* [cq-arm] as in ffv_cq_claim. */
	if (ffv_unlikely(!ffv_cas(&cq->shm->tail, &tail, tail + 1)))
		return false;
	FFV_FAULT(exec_cq_claimed);
	claim->next = position;
	claim->end = position + 1;
	ffv_cq_skip_holes(claim);
	return ffv_likely(claim->next != claim->end);
}

/* A successful completion in all that its entry says but `sequence`. */
static inline void ffv_cqe_fill(struct ffv_cqe_shm *cqe, uint32_t qpn_side, uint64_t wqe_position, uint32_t byte_len,
				uint32_t imm_be, uint8_t opcode, uint8_t flags)
{
	cqe->qpn_side = qpn_side;
	cqe->wqe_position = (uint32_t)wqe_position;
	cqe->byte_len = byte_len;
	cqe->imm_be = imm_be;
	cqe->src_qp = 0;
	cqe->status = FFV_WC_SUCCESS;
	cqe->opcode = opcode;
	cqe->flags = flags;
	cqe->sl = 0;
	cqe->vendor_err = 0;
}

#endif

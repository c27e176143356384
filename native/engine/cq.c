/* SPDX-License-Identifier: MIT
 *
 * See cq.h.
 */
#include "engine/cq.h"

bool ffv_cq_is_hole_slot(const struct ffv_cq_ref *cq, uint64_t position)
{
	for (unsigned i = 0; i < FFV_CQ_HOLES - 1; i++) {
		uint64_t hole = ffv_load_relaxed(&cq->shm->holes[i]); /* position + 1, 0 = none */
		if (hole && hole - 1 < position && hole - 1 >= cq->first && ((hole - 1) & cq->index_mask) == (position & cq->index_mask))
			return true;
	}
	return false;
}

/* Free slots at `position`, as far as they matter. The consumer's line is only read when the cached head says full. */
static bool has_room(const struct ffv_cq_ref *cq, uint64_t position, unsigned want)
{
	uint64_t slots = (uint64_t)cq->index_mask + 1;

	/* Signed: a position that was claimed meanwhile may be below head. There is room for it, and the CAS will fail. */
	if ((int64_t)(position + want - ffv_load_acquire(&cq->shm->cached_head)) <= (int64_t)slots)
		return true;
	/* [cq-consume] pairs with the release in poll: entries below head have been read, holes[] is up to date. */
	uint64_t head = ffv_load_acquire(&cq->shm->head);
	/* [cq-consume] release: others see holes[] by it. A race only makes it older, which is safe. */
	ffv_store_release(&cq->shm->cached_head, head);
	return (int64_t)(position + want - head) <= (int64_t)slots;
}

/* Claimed ahead of need, entries may have to be published void, and those take slots until they are polled. Only what the
 * owner's completions can never fill is used for that, so that void entries never make a queue overrun. */
static bool has_spare_room(const struct ffv_cq_ref *cq, uint64_t position, unsigned want)
{
	uint64_t slots = (uint64_t)cq->index_mask + 1, cqe = ffv_load_relaxed(&cq->shm->cqe);
	uint64_t kept = cqe + FFV_CQ_HOLES - 1;

	return kept < slots && has_room(cq, position + kept, want);
}

/* Moderation: the event waits for more completions than there will be at `end`. *first: the owner is to be told, so that
 * its timer runs. An armed_at that is too old only makes the event come too early. */
static bool holds_back(struct ffv_cq_shm *shm, uint64_t end, bool *first)
{
	if (end - ffv_load_relaxed(&shm->armed_at) >= ffv_load_relaxed(&shm->moderate_count))
		return false;
	if (!ffv_load_relaxed(&shm->held) && !ffv_exchange(&shm->held, 1u))
		*first = true;
	return true;
}

/* The queue has grown since its ring was looked at. Nothing of the claim is in any ring now. */
static bool follow(struct ffv_claim *claim, const struct ffv_view *view, uint64_t *tail)
{
	struct ffv_cq_ref found = *claim->cq;

	*tail = ffv_load_acquire(&found.shm->tail); /* [cq-ring] */
	if (!ffv_cq_ref_follow(view, *tail, &found))
		return false;
	claim->followed = found;
	claim->cq = &claim->followed;
	return true;
}

/* Nobody polls this completion, and nobody misses it. */
static bool drop(struct ffv_claim *claim)
{
	claim->followed = *claim->cq;
	claim->followed.ring = &claim->dropped;
	claim->followed.ext = NULL;
	claim->followed.index_mask = 0;
	claim->followed.ring_number = UINT32_MAX; /* the next claim looks for the real one */
	claim->cq = &claim->followed;
	claim->next = 0;
	claim->end = 1;
	return true;
}

bool ffv_cq_claim(struct ffv_claim *claim, const struct ffv_view *view, unsigned want, bool solicited,
		  struct ffv_thread_shm *journal)
{
	uint64_t tail = ffv_load_relaxed(&claim->cq->shm->tail);
	uint64_t position, cleared;
	bool first = false;

	do {
		if (ffv_unlikely(FFV_CQ_RING(tail) != claim->cq->ring_number) && !follow(claim, view, &tail))
			return false;
		const struct ffv_cq_ref *cq = claim->cq;
		position = FFV_CQ_POSITION(tail);
		if (want > 1 && !has_spare_room(cq, position, want))
			want = 1;
		if (ffv_unlikely(!has_room(cq, position, want))) {
			if (cq->shm->ignores_overrun)
				return drop(claim);
			ffv_store_relaxed(&cq->shm->overrun, 1);
			return false;
		}
		if (journal)
			ffv_cq_name_claim(journal, view, cq, position, want);
		cleared = tail & FFV_CQ_ARMED || (solicited && tail & FFV_CQ_ARMED_SOLICITED)
				  ? FFV_CQ_ARMED | FFV_CQ_ARMED_SOLICITED
				  : 0;
		if (ffv_unlikely(cleared) && ffv_load_relaxed(&cq->shm->moderate_count) &&
		    holds_back(cq->shm, position + want, &first))
			cleared = 0;
		/* [cq-arm] arming is an OR on the same word: every claim is before or after it. */
	} while (!ffv_cas(&claim->cq->shm->tail, &tail, (tail & ~cleared) + want));
	FFV_FAULT(exec_cq_claimed);
	claim->next = position;
	claim->end = position + want;
	claim->signal |= (tail & cleared) != 0 || first; /* who signals sees whether it is still armed */
	ffv_cq_skip_holes(claim);
	if (ffv_unlikely(claim->next == claim->end)) /* nothing but holes: try again behind them */
		return ffv_cq_claim(claim, view, 1, solicited, journal);
	return true;
}

void ffv_cq_abandon(struct ffv_claim *claim)
{
	while (claim->next < claim->end) {
		ffv_cq_entry(claim)->qpn_side = 0;
		ffv_cq_publish(claim);
	}
}

void ffv_cq_note_error(struct ffv_claim *claim)
{
	const uint64_t armed = FFV_CQ_ARMED | FFV_CQ_ARMED_SOLICITED;

	if (ffv_load_relaxed(&claim->cq->shm->tail) & armed && ffv_fetch_and(&claim->cq->shm->tail, ~armed) & armed)
		claim->signal = true;
}

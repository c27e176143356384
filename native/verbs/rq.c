/* SPDX-License-Identifier: MIT
 *
 * See rq.h. ffv_rq_post is fast path: no system call, no allocation, no log; one locked operation a list.
 */
#include "verbs/rq.h"

#include <errno.h>
#include <stdlib.h>
#include "base/error.h"
#include "base/fault.h"
#include "verbs/allocator.h"

static uint32_t round_up_to_power(uint32_t n)
{
	uint32_t power = 1;

	while (power < n)
		power *= 2;
	return power;
}

static uint32_t stride_for(uint32_t max_sge)
{
	return 16 * round_up_to_power(max_sge ? max_sge : 1);
}

/* Work requests that came back late leave void positions (pass_over_busy): at most max_wr of them at a time, so that with
 * as many real ones no position ever meets a slot that is still to be taken. */
uint32_t ffv_rq_slots(uint32_t max_wr)
{
	return round_up_to_power(max_wr ? 2 * max_wr : 1);
}

static _Atomic uint8_t no_busy;

struct ffv_rq ffv_no_rq = { .busy = &no_busy };

void ffv_rq_describe(struct ffv_context *ctx, uint32_t ring_line, uint32_t max_wr, uint32_t max_sge, struct ffv_rq_shm *shm,
		     struct ffv_rq_ref *ref)
{
	uint32_t mask = ffv_rq_slots(max_wr) - 1, stride = stride_for(max_sge);

	*shm = (struct ffv_rq_shm){ .ring_line = ring_line, .index_mask = mask, .stride_bytes = stride, .max_sge = max_sge,
				    .max_wr = max_wr };
	*ref = (struct ffv_rq_ref){ .shm = shm, .ring = ffv_heap_at(&ctx->heap, ring_line),
				    .geometry = ffv_load_relaxed(&shm->geometry), .index_mask = mask, .stride_bytes = stride,
				    .max_sge = max_sge, .srq_id = FFV_NONE };
}

int ffv_rq_create(struct ffv_context *ctx, struct ffv_rq *rq, struct ffv_rq_shm *shm, uint32_t max_wr, uint32_t max_sge)
{
	uint32_t slots = ffv_rq_slots(max_wr);
	int rc = ffv_heap_alloc(&ctx->heap, (uint64_t)slots * stride_for(max_sge), &rq->ring_line);

	if (rc)
		return rc;
	rq->wr_id = ffv_private_alloc(rq->pd, slots, sizeof *rq->wr_id, rq->resource_type);
	rq->busy = rq->wr_id ? ffv_private_alloc(rq->pd, slots, sizeof *rq->busy, rq->resource_type) : NULL;
	rq->late = rq->has_takers ? calloc(slots, sizeof *rq->late) : NULL;
	if (!rq->busy || (rq->has_takers && !rq->late)) {
		ffv_rq_destroy(ctx, rq);
		return ffv_fail_context(-ENOMEM, "no memory for a receive queue of %u", max_wr);
	}
	rq->max_wr = max_wr;
	rq->max_sge = max_sge;
	ffv_rq_describe(ctx, rq->ring_line, max_wr, max_sge, shm, &rq->ref);
	return 0;
}

void ffv_rq_destroy(struct ffv_context *ctx, struct ffv_rq *rq)
{
	if (rq->ring_line)
		ffv_context_retire(ctx, rq->ring_line, (rq->ref.index_mask + 1ull) * rq->ref.stride_bytes);
	ffv_private_free(rq->wr_id);
	ffv_private_free((void *)rq->busy);
	free(rq->late);
	rq->ring_line = 0;
	rq->wr_id = rq->late = NULL;
	rq->busy = NULL;
}

static void write_entry(struct ffv_rq *rq, uint64_t position, const struct ffv_recv_wr *wr)
{
	struct ffv_sge_shm *entry = (struct ffv_sge_shm *)ffv_rq_ref_entry(&rq->ref, position);
	uint32_t num_sge = (uint32_t)wr->num_sge;

	for (uint32_t i = 0; i < num_sge; i++)
		ffv_sge_write(&entry[i], (struct ffv_sge_shm){ wr->sg_list[i].addr, wr->sg_list[i].length,
							       wr->sg_list[i].lkey });
	if (num_sge < rq->max_sge || !num_sge)
		ffv_sge_write(&entry[num_sge], (struct ffv_sge_shm){ .addr = FFV_SGE_END });
}

static void note_late(struct ffv_rq *rq, uint64_t position)
{
	uint32_t index = position & rq->ref.index_mask;

	ffv_sge_write((struct ffv_sge_shm *)ffv_rq_ref_entry(&rq->ref, position),
		      (struct ffv_sge_shm){ .addr = FFV_SGE_VOID });
	if (rq->late && ffv_load_relaxed(&rq->busy[index]) == FFV_SLOT_BUSY) { /* passed over for the first time: of the last lap */
		rq->late[index] = position - rq->ref.index_mask - 1;
		ffv_store_relaxed(&rq->busy[index], FFV_SLOT_LATE);
	}
}

/* A slot whose last work request has not come back (its taker is stopped, or its completion is not polled) is passed over. */
static uint64_t pass_over_busy(struct ffv_rq *rq, uint64_t position)
{
	/* [rq-report] pairs with the release in report: its wr_id has been read. */
	while (ffv_unlikely(ffv_load_acquire(&rq->busy[position & rq->ref.index_mask]))) {
		note_late(rq, position);
		position++;
	}
	return position;
}

static int check_recv(const struct ffv_rq *rq, const struct ffv_recv_wr *wr)
{
	if (ffv_unlikely(wr->num_sge < 0 || (uint32_t)wr->num_sge > rq->max_sge))
		return ffv_fail(EINVAL, "%d scatter entries; the receive queue takes %u", wr->num_sge, rq->max_sge);
	for (int i = 0; i < wr->num_sge; i++)
		if (ffv_unlikely(wr->sg_list[i].addr >= FFV_SGE_VOID))
			return ffv_fail(EINVAL, "a scatter entry at %#llx", (unsigned long long)wr->sg_list[i].addr);
	if (ffv_unlikely(rq->accepted - ffv_load_acquire(&rq->reported) >= rq->max_wr))
		return ffv_fail(ENOMEM, "the receive queue is full: %u work requests", rq->max_wr);
	return 0;
}

int ffv_rq_post(struct ffv_rq *rq, struct ffv_recv_wr *wr, struct ffv_recv_wr **bad_wr, bool *waiter)
{
	int rc = 0;

	ffv_spin_token token = ffv_spin_lock(&rq->lock);
	uint64_t first = rq->posted, position = first;
	for (; wr; wr = wr->next) {
		rc = check_recv(rq, wr);
		if (ffv_unlikely(rc))
			break;
		position = pass_over_busy(rq, position);
		write_entry(rq, position, wr);
		rq->wr_id[position & rq->ref.index_mask] = wr->wr_id;
		ffv_store_relaxed(&rq->busy[position & rq->ref.index_mask], FFV_SLOT_BUSY);
		rq->accepted++;
		position++;
	}
	FFV_FAULT(post_recv_written);
	if (ffv_likely(position != first)) {
		rq->posted = position;
		/* [rq-post] publishes the entries. [rq-wait] Dekker with a sender about to wait: an exchange, then its
		 * mark; it sees the entries, or we see the mark. */
		ffv_exchange(&rq->ref.shm->tail, position);
		*waiter = ffv_load_seq_cst(&rq->ref.shm->waiter);
		ffv_prefetch_write(ffv_rq_ref_entry(&rq->ref, position));
	}
	ffv_spin_unlock(&rq->lock, token);
	FFV_FAULT(post_recv_published);
	if (ffv_unlikely(rc) && bad_wr)
		*bad_wr = wr;
	return rc;
}

void ffv_rq_reset(struct ffv_rq *rq)
{
	ffv_spin_token token = ffv_spin_lock(&rq->lock);
	for (uint32_t i = 0; i <= rq->ref.index_mask; i++)
		ffv_store_relaxed(&rq->busy[i], 0u);
	ffv_store_relaxed(&rq->reported, rq->accepted);
	ffv_store_relaxed(&rq->ref.shm->head, rq->posted);
	ffv_store_relaxed(&rq->ref.shm->cached_tail, rq->posted);
	ffv_store_release(&rq->ref.shm->tail, rq->posted);
	ffv_spin_unlock(&rq->lock, token);
}

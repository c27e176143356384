/* SPDX-License-Identifier: MIT
 *
 * Resizing a shared receive queue while others take from it.
 *
 * Positions go on; only where they stand changes. The ring is copied, the new place published, the old ring left as it is
 * until no execution can be reading it (ffv_context_retire): whoever took note of the old place finds there what was
 * posted before, and nothing that was posted since; [rq-resize]. The owner's tables are only used under the queue's lock.
 */
#include "verbs/rq.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/fault.h"
#include "verbs/allocator.h"

struct tables {
	uint32_t slots;
	uint32_t line;                /* of the ring */
	uint64_t *wr_id;
	uint64_t *late;
	_Atomic uint8_t *busy;
};

static void free_tables(struct ffv_context *ctx, const struct ffv_rq *rq, struct tables *t)
{
	if (t->line)
		ffv_context_retire(ctx, t->line, (uint64_t)t->slots * rq->ref.stride_bytes);
	ffv_private_free(t->wr_id);
	ffv_private_free((void *)t->busy);
	free(t->late);
}

static int allocate(struct ffv_context *ctx, const struct ffv_rq *rq, uint32_t slots, struct tables *t)
{
	*t = (struct tables){ .slots = slots };
	int rc = ffv_heap_alloc(&ctx->heap, (uint64_t)slots * rq->ref.stride_bytes, &t->line);
	if (rc)
		return rc;
	t->wr_id = ffv_private_alloc(rq->pd, slots, sizeof *t->wr_id, rq->resource_type);
	t->busy = t->wr_id ? ffv_private_alloc(rq->pd, slots, sizeof *t->busy, rq->resource_type) : NULL;
	t->late = calloc(slots, sizeof *t->late);
	if (t->busy && t->late)
		return 0;
	free_tables(ctx, rq, t);
	return ffv_fail_context(-ENOMEM, "no memory for a receive queue of %u slots", slots);
}

/* The position that a busy slot is of. */
static uint64_t position_of(const struct ffv_rq *rq, uint32_t index)
{
	uint32_t slots = rq->ref.index_mask + 1;

	if (ffv_load_relaxed(&rq->busy[index]) == FFV_SLOT_LATE)
		return rq->late[index];
	return rq->posted - 1 - ((rq->posted - 1 - index) & (slots - 1));
}

/* Moves what is not reported. False: two of them have one slot among so many. */
static bool move_outstanding(const struct ffv_rq *rq, struct tables *t)
{
	for (uint32_t i = 0; i <= rq->ref.index_mask; i++) {
		uint8_t busy = ffv_load_relaxed(&rq->busy[i]);
		if (!busy)
			continue;
		uint64_t position = position_of(rq, i);
		uint32_t to = position & (t->slots - 1);
		if (ffv_load_relaxed(&t->busy[to]))
			return false;
		/* Of the last lap of the new ring: then it will be found late when it is passed over. */
		bool is_late = rq->posted - position > t->slots;
		ffv_store_relaxed(&t->busy[to], is_late ? FFV_SLOT_LATE : FFV_SLOT_BUSY);
		t->wr_id[to] = rq->wr_id[i];
		t->late[to] = position;
	}
	return true;
}

/* Copies the ring's last lap: what waits to be taken, and, for whoever looks after stopped takers, what was. False: more
 * waits than there are slots. */
static bool copy_ring(const struct ffv_rq *rq, const struct ffv_heap *heap, const struct tables *t)
{
	uint64_t head = ffv_load_acquire(&rq->ref.shm->head);
	uint64_t lap = rq->ref.index_mask + 1ull < t->slots ? rq->ref.index_mask + 1ull : t->slots;
	uint64_t first = rq->posted > lap ? rq->posted - lap : 0;
	uint8_t *ring = ffv_heap_at(heap, t->line);
	uint32_t stride = rq->ref.stride_bytes;

	if (head < first)
		return false;
	for (uint64_t p = first; p != rq->posted; p++)
		memcpy(ring + (p & (t->slots - 1)) * stride, ffv_rq_ref_entry(&rq->ref, p), stride);
	return true;
}

/* Lock held. 0, -EAGAIN: more slots are needed. */
static int move(struct ffv_context *ctx, struct ffv_rq *rq, struct tables *t)
{
	if (!move_outstanding(rq, t) || !copy_ring(rq, &ctx->heap, t))
		return -EAGAIN;
	struct tables old = { rq->ref.index_mask + 1, rq->ring_line, rq->wr_id, rq->late, rq->busy };
	rq->ring_line = t->line;
	rq->wr_id = t->wr_id;
	rq->late = t->late;
	rq->busy = t->busy;
	rq->ref.ring = ffv_heap_at(&ctx->heap, t->line);
	rq->ref.index_mask = t->slots - 1;
	rq->ref.geometry = (uint64_t)(t->slots - 1) << 32 | t->line;
	FFV_FAULT(srq_resize);
	/* [rq-resize] the entries before the place; whatever is posted there follows with the next exchange of tail. */
	ffv_store_release(&rq->ref.shm->geometry, rq->ref.geometry);
	*t = old;
	return 0;
}

int ffv_rq_resize(struct ffv_context *ctx, struct ffv_rq *rq, uint32_t max_wr)
{
	int rc = -EAGAIN;

	for (uint32_t slots = ffv_rq_slots(max_wr); rc == -EAGAIN && slots <= ffv_rq_slots(FFV_MAX_WR); slots *= 2) {
		struct tables t;
		rc = allocate(ctx, rq, slots, &t);
		if (rc)
			return rc;
		pthread_mutex_lock(&ctx->service); /* whose thread looks at the tables, too */
		ffv_spin_token token = ffv_spin_lock(&rq->lock);
		uint64_t out = rq->accepted - ffv_load_acquire(&rq->reported);
		rc = out > max_wr ? ffv_fail(EINVAL, "%llu work requests are in the receive queue: %u are too few",
					     (unsigned long long)out, max_wr) : move(ctx, rq, &t);
		if (!rc) {
			rq->max_wr = max_wr;
			ffv_store_relaxed(&rq->ref.shm->max_wr, max_wr);
		}
		ffv_spin_unlock(&rq->lock, token);
		pthread_mutex_unlock(&ctx->service);
		free_tables(ctx, rq, &t); /* the old ones, or those that did not serve */
	}
	return rc == -EAGAIN ? ffv_fail(EBUSY, "work requests that were taken long ago have not come back: poll their "
					"completions first") : rc;
}

bool ffv_rq_report(struct ffv_rq *rq, uint32_t position, uint64_t *wr_id)
{
	ffv_spin_token token = ffv_spin_lock(&rq->lock);
	uint32_t index = position & rq->ref.index_mask;
	bool known = ffv_load_relaxed(&rq->busy[index]) != FFV_SLOT_FREE && (uint32_t)position_of(rq, index) == position;

	if (known) {
		*wr_id = rq->wr_id[index];
		ffv_store_relaxed(&rq->busy[index], FFV_SLOT_FREE);
		ffv_store_relaxed(&rq->reported, ffv_load_relaxed(&rq->reported) + 1);
	}
	ffv_spin_unlock(&rq->lock, token);
	return known;
}

bool ffv_rq_is_out(struct ffv_rq *rq, uint64_t position)
{
	ffv_spin_token token = ffv_spin_lock(&rq->lock);
	uint32_t index = position & rq->ref.index_mask;
	bool out = position < ffv_load_acquire(&rq->ref.shm->head) && ffv_load_relaxed(&rq->busy[index]) != FFV_SLOT_FREE &&
		   position_of(rq, index) == position;

	ffv_spin_unlock(&rq->lock, token);
	return out;
}

/* SPDX-License-Identifier: MIT
 *
 * The rings of a completion queue: a queue that grows gets a larger ring while executors of any process go on completing
 * (docs/decisions/0010). Process-private descriptions of memory in the arena; whoever calls holds the queue's lock where
 * the header says so.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "verbs/cq.h"

#define SPARE_SLOTS FFV_CQ_HOLES  /* for holes */
#define LEAST_SLOTS 16u

static uint64_t slots_for(uint32_t cqe)
{
	uint64_t slots = LEAST_SLOTS;

	/* Half as many again let executors claim entries in batches (see has_spare_room in engine/cq.c). */
	while (slots < (uint64_t)cqe + cqe / 2 + SPARE_SLOTS)
		slots *= 2;
	return slots;
}

static uint64_t ring_bytes(const struct ffv_cq_ring *ring)
{
	return (ring->ref.index_mask + 1ull) * sizeof(struct ffv_cqe_shm);
}

/* Which fields of an extended queue need memory of their own. */
static bool needs_ext(const struct ffv_cq *cq)
{
	const uint64_t fields = FFV_WC_EX_WITH_COMPLETION_TIMESTAMP | FFV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK |
				FFV_WC_EX_WITH_CVLAN | FFV_WC_EX_WITH_FLOW_TAG | FFV_WC_EX_WITH_TM_INFO;

	return cq->ex && cq->ex->wc_flags & fields;
}

static void free_unseen(struct ffv_cq *cq, struct ffv_cq_ring *ring)
{
	struct ffv_heap *heap = &cq->ctx->heap;

	if (ring->ring_line)
		ffv_heap_free(heap, ring->ring_line, ring_bytes(ring));
	if (ring->ext_line)
		ffv_heap_free(heap, ring->ext_line, ring_bytes(ring));
	free(ring);
}

static struct ffv_cq_ring *new_ring(struct ffv_cq *cq, uint64_t slots)
{
	struct ffv_heap *heap = &cq->ctx->heap;
	struct ffv_cq_ring *ring = calloc(1, sizeof *ring);

	if (!ring) {
		ffv_fail(ENOMEM, "no memory for a completion queue");
		return NULL;
	}
	ring->ref = (struct ffv_cq_ref){ .shm = cq->ref.shm, .id = cq->ref.id, .index_mask = (uint32_t)(slots - 1) };
	if (ffv_heap_alloc(heap, ring_bytes(ring), &ring->ring_line) ||
	    (needs_ext(cq) && ffv_heap_alloc(heap, ring_bytes(ring), &ring->ext_line))) {
		free_unseen(cq, ring);
		return NULL;
	}
	ring->ref.ring = ffv_heap_at(heap, ring->ring_line);
	ring->ref.ext = ring->ext_line ? ffv_heap_at(heap, ring->ext_line) : NULL;
	return ring;
}

static void describe(struct ffv_cq *cq, const struct ffv_cq_ring *ring)
{
	struct ffv_cq_ring_shm *at = &cq->ref.shm->rings[ring->ref.ring_number & 1];

	ffv_store_relaxed(&at->first, ring->ref.first);
	ffv_store_relaxed(&at->ring_line, ring->ring_line);
	ffv_store_relaxed(&at->ext_line, ring->ext_line);
	ffv_store_relaxed(&at->index_mask, ring->ref.index_mask);
}

int ffv_cq_first_ring(struct ffv_cq *cq, uint32_t cqe)
{
	struct ffv_cq_ring *ring = new_ring(cq, slots_for(cqe));

	if (!ring)
		return -ENOMEM;
	describe(cq, ring);
	cq->rings = ring;
	cq->ref = ring->ref;
	cq->ring_end = UINT64_MAX;
	return 0;
}

const struct ffv_cq_ref *ffv_cq_ring_of(const struct ffv_cq *cq, uint64_t position)
{
	if (ffv_likely(position >= cq->ref.first && position < cq->ring_end))
		return &cq->ref;
	const struct ffv_cq_ring *ring = cq->rings;
	while (ring->next && ring->next->ref.first <= position)
		ring = ring->next;
	return &ring->ref;
}

struct ffv_cq_ref ffv_cq_ring_at(struct ffv_cq *cq, uint64_t position)
{
	ffv_spin_token token = ffv_spin_lock(&cq->lock);
	struct ffv_cq_ref ring = *ffv_cq_ring_of(cq, position);

	ffv_spin_unlock(&cq->lock, token);
	return ring;
}

void ffv_cq_enter_next_ring(struct ffv_cq *cq)
{
	const struct ffv_cq_ring *ring = cq->rings;

	while (ring->next && ring->next->ref.first <= cq->ring_end)
		ring = ring->next;
	/* Not shm and id, which others read without the lock. */
	cq->ref.ring = ring->ref.ring;
	cq->ref.ext = ring->ref.ext;
	cq->ref.first = ring->ref.first;
	cq->ref.index_mask = ring->ref.index_mask;
	cq->ref.ring_number = ring->ref.ring_number;
	cq->ring_end = ring->next ? ring->next->ref.first : UINT64_MAX;
}

/* ---- giving back -------------------------------------------------------------------------------------------------------- */

static void retire(struct ffv_cq *cq, struct ffv_cq_ring *ring)
{
	while (ring) {
		struct ffv_cq_ring *next = ring->next;
		ffv_context_retire(cq->ctx, ring->ring_line, ring_bytes(ring));
		ffv_context_retire(cq->ctx, ring->ext_line, ring_bytes(ring));
		free(ring);
		ring = next;
	}
}

void ffv_cq_retire_rings(struct ffv_cq *cq)
{
	retire(cq, cq->rings);
	cq->rings = NULL;
}

void ffv_cq_forget_rings(struct ffv_cq *cq)
{
	while (cq->rings) {
		struct ffv_cq_ring *next = cq->rings->next;
		free(cq->rings);
		cq->rings = next;
	}
}

/* Rings that have been polled empty, as a list of their own. While a position that was passed over has not been published,
 * they stay: it may be in one of them. Lock held. */
static struct ffv_cq_ring *take_used_up(struct ffv_cq *cq)
{
	struct ffv_cq_ring *used = NULL;

	for (uint32_t i = 0; i < cq->num_holes; i++)
		if (!(cq->holes_reported & 1u << i))
			return NULL;
	while (cq->rings->next && cq->rings->next->ref.first <= cq->ref.first) {
		struct ffv_cq_ring *ring = cq->rings;
		cq->rings = ring->next;
		ring->next = used;
		used = ring;
	}
	return used;
}

/* ---- growing ------------------------------------------------------------------------------------------------------------ */

/* A fresh entry must not look like a published one: that only matters where the sequence word comes to zero again. */
static void make_unpublished(struct ffv_cq_ring *ring)
{
	uint64_t slots = ring->ref.index_mask + 1ull, first = ring->ref.first;

	if ((uint32_t)first + slots < 1ull << 32)
		return;
	for (uint64_t p = first; p < first + slots; p++)
		ffv_store_relaxed(&ring->ref.ring[p & ring->ref.index_mask].sequence, (uint32_t)p);
}

/* From some position on, claims are made in this ring. Lock held. */
static void switch_to(struct ffv_cq *cq, struct ffv_cq_ring *ring)
{
	struct ffv_cq_ring *last = cq->rings;
	uint64_t tail = ffv_load_relaxed(&cq->ref.shm->tail);

	while (last->next)
		last = last->next;
	ring->ref.ring_number = (last->ref.ring_number + 1) & 0xffu;
	do {
		ring->ref.first = FFV_CQ_POSITION(tail);
		make_unpublished(ring);
		describe(cq, ring);
		/* [cq-ring] the description before the tail that names it; every claim is before or after this. */
	} while (!ffv_cas(&cq->ref.shm->tail, &tail,
			  (tail & ~FFV_CQ_RING_MASK) | (uint64_t)ring->ref.ring_number << FFV_CQ_RING_SHIFT));
	last->next = ring;
	if (cq->ring_end == UINT64_MAX)
		cq->ring_end = ring->ref.first;
}

static uint64_t newest_slots(const struct ffv_cq *cq)
{
	const struct ffv_cq_ring *ring = cq->rings;

	while (ring->next)
		ring = ring->next;
	return ring->ref.index_mask + 1ull;
}

int ffv_resize_cq(struct ffv_cq *cq, int cqe)
{
	int rc = ffv_context_check(cq ? cq->ctx : NULL);

	if (rc)
		return rc;
	if (cqe < 1 || (uint32_t)cqe > FFV_MAX_CQE)
		return ffv_fail(EINVAL, "a completion queue has 1 to %u entries, not %d", FFV_MAX_CQE, cqe);
	struct ffv_cq_ring *ring = new_ring(cq, slots_for((uint32_t)cqe)), *used = NULL;
	if (!ring)
		return -ENOMEM;
	ffv_spin_token token = ffv_spin_lock(&cq->lock);
	uint64_t waiting = FFV_CQ_POSITION(ffv_load_acquire(&cq->ref.shm->tail)) - cq->head;
	if ((uint64_t)cqe < waiting) {
		rc = ffv_fail(EINVAL, "%llu completions wait, more than %d entries hold", (unsigned long long)waiting, cqe);
	} else {
		if (newest_slots(cq) < ring->ref.index_mask + 1ull) {
			switch_to(cq, ring);
			ring = NULL;
		}
		ffv_store_relaxed(&cq->ref.shm->cqe, cq->cqe = (uint32_t)cqe);
		used = take_used_up(cq);
	}
	ffv_spin_unlock(&cq->lock, token);
	if (ring) /* not needed */
		free_unseen(cq, ring);
	retire(cq, used);
	return rc;
}

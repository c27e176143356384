/* SPDX-License-Identifier: MIT
 *
 * Positions of a completion queue that somebody claimed and does not publish for a long time: the consumer passes over
 * them, so that later ones do not wait (docs/decisions/0003), reports them when they come after all, and does not let
 * sleepers miss them.
 */
#include "base/clock.h"
#include "verbs/cq.h"

#define STUCK_CHECK_NS 1000000ull /* between looks at the producers' line */
#define STUCK_NS 20000000ull      /* a producer that is this late is taken for stopped */
#define ARM_SPINS 2000u           /* for a claim under way to be published */

/* ---- reporting ----------------------------------------------------------------------------------------------------------- */

/* The position passed over as number i, if it may still be published, else UINT64_MAX. */
static uint64_t awaited(const struct ffv_cq *cq, uint32_t i)
{
	uint64_t hole = ffv_load_relaxed(&cq->ref.shm->holes[i]); /* peers can write there */

	return hole && !(cq->holes_reported & 1u << i) ? hole - 1 : UINT64_MAX;
}

static bool is_published(const struct ffv_cq *cq, uint64_t position)
{
	return ffv_cq_is_published(ffv_cq_ring_of(cq, position), position);
}

/* The first of the positions passed over before number `end` that has been published; `end` if there is none. */
static uint32_t first_late(const struct ffv_cq *cq, uint32_t end)
{
	for (uint32_t i = 0; i < end; i++) {
		uint64_t position = awaited(cq, i);
		if (position != UINT64_MAX && is_published(cq, position))
			return i;
	}
	return end;
}

uint64_t ffv_cq_find_late(struct ffv_cq *cq)
{
	uint32_t found = cq->num_holes, end;

	/* [cq-late] an executor publishes in order: an earlier one of the same queue pair may have come since it was looked
	 * at, and is seen now. */
	do {
		end = found;
		found = first_late(cq, end);
	} while (found != end);
	if (found == cq->num_holes)
		return UINT64_MAX;
	uint64_t position = awaited(cq, found);
	cq->holes_reported |= 1u << found;
	return position;
}

void ffv_cq_give_up_late(struct ffv_cq *cq, uint64_t position)
{
	ffv_spin_token token = ffv_spin_lock(&cq->lock);

	for (uint32_t i = 0; i < cq->num_holes; i++)
		if (awaited(cq, i) == position)
			cq->holes_reported |= 1u << i;
	ffv_spin_unlock(&cq->lock, token);
}

struct ffv_cq_walk ffv_cq_begin_walk(const struct ffv_cq *cq)
{
	uint64_t tail = FFV_CQ_POSITION(ffv_load_acquire(&cq->ref.shm->tail)), most = cq->head + FFV_MAX_CQE;

	return (struct ffv_cq_walk){ .next = cq->head, .tail = tail < most ? tail : most }; /* a peer may have written anything */
}

uint64_t ffv_cq_next_unpolled(const struct ffv_cq *cq, struct ffv_cq_walk *walk)
{
	while (walk->hole < cq->num_holes) {
		uint64_t position = awaited(cq, walk->hole++);
		if (position != UINT64_MAX)
			return position;
	}
	return walk->next < walk->tail ? walk->next++ : UINT64_MAX;
}

/* ---- passing over -------------------------------------------------------------------------------------------------------- */

/* The slot stays out of use for good (both sides see holes[]), so that a late write cannot hurt. */
static bool step_over_stuck(struct ffv_cq *cq)
{
	uint64_t tail = FFV_CQ_POSITION(ffv_load_acquire(&cq->ref.shm->tail));
	bool later = false;

	for (uint64_t p = cq->head + 1; p < tail && !later && p < cq->head + 64; p++)
		later = is_published(cq, p);
	if (!later || cq->num_holes >= FFV_CQ_HOLES - 1) {
		cq->stuck_since_ns = 0;
		return false;
	}
	uint64_t now = ffv_clock_ns();
	if (!cq->stuck_since_ns || cq->stuck_position != cq->head) {
		cq->stuck_position = cq->head;
		cq->stuck_since_ns = now;
	}
	if (now - cq->stuck_since_ns < STUCK_NS || is_published(cq, cq->head))
		return false;
	cq->stuck_since_ns = 0;
	ffv_store_relaxed(&cq->ref.shm->holes[cq->num_holes], cq->head + 1);
	ffv_store_release(&cq->ref.shm->num_holes, ++cq->num_holes); /* before head moves: [cq-consume] */
	cq->head++;
	ffv_store_release(&cq->ref.shm->head, cq->head);
	return true;
}

__attribute__((noinline)) void ffv_cq_look_for_stuck(struct ffv_cq *cq)
{
	uint64_t now = ffv_clock_ns();

	cq->empty_polls = 0;
	if (now - cq->looked_ns < STUCK_CHECK_NS)
		return;
	cq->looked_ns = now;
	step_over_stuck(cq);
}

/* ---- watching -------------------------------------------------------------------------------------------------------------- */

static uint64_t first_unpublished(struct ffv_cq *cq, uint64_t end)
{
	uint64_t p = cq->head;

	for (; p < end; p++) {
		const struct ffv_cq_ref *ring = ffv_cq_ring_of(cq, p);
		if (!ffv_cq_is_published(ring, p) && !(cq->num_holes && ffv_cq_is_hole_slot(ring, p)))
			break;
	}
	return p;
}

/* Something that was passed over is not published yet. What is by now, the caller's next poll finds. */
static bool awaits_late(const struct ffv_cq *cq)
{
	bool awaits = false;

	for (uint32_t i = 0; i < cq->num_holes && !awaits; i++) {
		uint64_t position = awaited(cq, i);
		awaits = position != UINT64_MAX && !is_published(cq, position);
	}
	return awaits;
}

bool ffv_cq_begin_watch(struct ffv_cq *cq, uint64_t end)
{
	ffv_spin_token token = ffv_spin_lock(&cq->lock);
	uint64_t p = first_unpublished(cq, end);

	for (unsigned spins = 0; p < end && spins < ARM_SPINS; spins++) {
		ffv_cpu_relax();
		p = first_unpublished(cq, end);
	}
	bool watch = p < end || awaits_late(cq); /* whose claimer was preempted or stopped */
	if (watch) {
		cq->watch_position = p < end ? p : UINT64_MAX;
		ffv_store_release(&cq->watched, 1u);
	}
	ffv_spin_unlock(&cq->lock, token);
	return watch;
}

bool ffv_cq_watch(struct ffv_cq *cq)
{
	if (!ffv_load_acquire(&cq->watched))
		return false;
	ffv_spin_token token = ffv_spin_lock(&cq->lock);
	uint64_t p = cq->watch_position;
	if (cq->head == p)
		step_over_stuck(cq);
	bool there = first_late(cq, cq->num_holes) != cq->num_holes ||
		     (p != UINT64_MAX && (cq->head > p || is_published(cq, p)));
	bool goes_on = !there && (p != UINT64_MAX || awaits_late(cq));
	if (!goes_on)
		ffv_store_relaxed(&cq->watched, 0u);
	ffv_spin_unlock(&cq->lock, token);
	if (there)
		ffv_cq_signal_spurious(cq);
	return goes_on;
}

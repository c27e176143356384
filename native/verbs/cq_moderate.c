/* SPDX-License-Identifier: MIT
 *
 * Moderation of completion events (ibv_modify_cq(3)): whoever completes leaves the queue armed until enough completions have
 * come, and tells the owner of the first one; the owner's service thread ends the waiting when its time is over.
 * Process-private; service lock held where the header says so.
 */
#include <errno.h>

#include "base/clock.h"
#include "base/error.h"
#include "verbs/cq.h"

#define ARMED (FFV_CQ_ARMED | FFV_CQ_ARMED_SOLICITED)

uint64_t ffv_cq_arm_moderated(struct ffv_cq *cq, uint64_t bit)
{
	struct ffv_cq_shm *shm = cq->ref.shm;
	uint64_t tail = ffv_load_relaxed(&shm->tail);

	/* [cq-arm] as without moderation; what counts from here on is written before. An arming of one that is armed does
	 * not begin to count anew, or the event could be put off for ever. */
	do {
		if (!(tail & ARMED)) {
			ffv_store_relaxed(&shm->armed_at, FFV_CQ_POSITION(tail));
			ffv_store_relaxed(&shm->held, 0u);
		}
	} while (!ffv_cas(&shm->tail, &tail, tail | bit));
	return FFV_CQ_POSITION(tail);
}

/* Disarms the queue and signals if it is armed and something came since. */
static void signal_now(struct ffv_cq *cq)
{
	uint64_t tail = ffv_load_relaxed(&cq->ref.shm->tail);

	if (tail & ARMED && FFV_CQ_POSITION(tail) != ffv_load_relaxed(&cq->ref.shm->armed_at) &&
	    ffv_fetch_and(&cq->ref.shm->tail, ~ARMED) & ARMED)
		ffv_cq_signal_spurious(cq);
}

bool ffv_cq_hold(struct ffv_cq *cq)
{
	if (!cq->moderate_ns || cq->held_until_ns || !ffv_load_relaxed(&cq->ref.shm->held))
		return cq->held_until_ns != 0;
	cq->held_until_ns = ffv_clock_ns() + cq->moderate_ns;
	cq->held_armed_at = ffv_load_relaxed(&cq->ref.shm->armed_at);
	cq->held_next = cq->ctx->held;
	cq->ctx->held = cq;
	return true;
}

/* The time of a held one has come: true if it stays in the list, for another arming. */
static bool renew_or_signal(struct ffv_cq *cq, uint64_t now_ns)
{
	uint64_t armed_at = ffv_load_relaxed(&cq->ref.shm->armed_at);

	if (armed_at != cq->held_armed_at && ffv_load_relaxed(&cq->ref.shm->held) && cq->moderate_ns) {
		cq->held_armed_at = armed_at;
		cq->held_until_ns = now_ns + cq->moderate_ns;
		return true;
	}
	cq->held_until_ns = 0;
	if (armed_at == cq->held_armed_at)
		signal_now(cq);
	return false;
}

uint64_t ffv_cq_release_held(struct ffv_context *ctx, uint64_t now_ns)
{
	uint64_t next_ns = UINT64_MAX;

	for (struct ffv_cq **at = &ctx->held; *at;) {
		struct ffv_cq *cq = *at;
		if (now_ns >= cq->held_until_ns && !renew_or_signal(cq, now_ns)) {
			*at = cq->held_next;
			continue;
		}
		next_ns = cq->held_until_ns < next_ns ? cq->held_until_ns : next_ns;
		at = &cq->held_next;
	}
	return next_ns;
}

void ffv_cq_forget_held(struct ffv_cq *cq)
{
	for (struct ffv_cq **at = &cq->ctx->held; *at; at = &(*at)->held_next) {
		if (*at == cq) {
			*at = cq->held_next;
			break;
		}
	}
	cq->held_until_ns = 0;
}

int ffv_modify_cq(struct ffv_cq *cq, const struct ffv_modify_cq_attr *attr)
{
	int rc = ffv_context_check(cq ? cq->ctx : NULL);

	if (rc)
		return rc;
	if (!attr || attr->attr_mask != FFV_CQ_ATTR_MODERATE)
		return ffv_fail(EINVAL, "of a completion queue only the moderation (attr_mask %u) can be changed, not %#x",
				FFV_CQ_ATTR_MODERATE, attr ? attr->attr_mask : 0);
	uint32_t count = attr->moderate.cq_count, period_us = attr->moderate.cq_period;
	if (!count && period_us)
		count = UINT32_MAX; /* the time alone */
	pthread_mutex_lock(&cq->ctx->service);
	cq->moderate_ns = period_us * 1000ull;
	ffv_store_seq_cst(&cq->ref.shm->moderate_count, count > 1 ? count : 0);
	ffv_cq_forget_held(cq);
	/* What was held back by other rules is told now: an event too many is allowed, one too few is not. */
	if (cq->channel && ffv_load_relaxed(&cq->ref.shm->held))
		signal_now(cq);
	pthread_mutex_unlock(&cq->ctx->service);
	return 0;
}

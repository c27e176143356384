/* SPDX-License-Identifier: MIT
 *
 * Extended completion queues (ibv_create_cq_ex(3)): attributes, and polling one completion after the other.
 *
 * ffv_start_poll, ffv_next_poll and ffv_end_poll are fast path: no system call, no allocation, no log, but the waiting for
 * another thread's batch. A batch belongs to the thread that began it [cq-batch]; the queue itself is locked for each
 * completion only, so that whoever else needs the queue never waits for the application. Process-private.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "verbs/allocator.h"
#include "verbs/cq.h"

#define KNOWN_FIELDS (2ull * FFV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK - 1)
#define SUPPORTED_FIELDS (KNOWN_FIELDS & ~(unsigned long long)FFV_WC_EX_WITH_CVLAN)
#define KNOWN_MASK ((uint32_t)(FFV_CQ_INIT_ATTR_MASK_FLAGS | FFV_CQ_INIT_ATTR_MASK_PD))
#define KNOWN_FLAGS ((uint32_t)(FFV_CREATE_CQ_ATTR_SINGLE_THREADED | FFV_CREATE_CQ_ATTR_IGNORE_OVERRUN))
#define SPINS 200u                 /* before the processor is given to somebody else */

/* ---- life ---------------------------------------------------------------------------------------------------------------- */

static uint32_t flags_of(const struct ffv_cq_init_attr_ex *attr)
{
	return attr->comp_mask & FFV_CQ_INIT_ATTR_MASK_FLAGS ? attr->flags : 0;
}

static struct ffv_pd *pd_of(const struct ffv_cq_init_attr_ex *attr)
{
	return attr->comp_mask & FFV_CQ_INIT_ATTR_MASK_PD ? attr->parent_domain : NULL;
}

static int check_attr(const struct ffv_context *ctx, const struct ffv_cq_init_attr_ex *attr)
{
	if (attr->wc_flags & ~SUPPORTED_FIELDS)
		return ffv_fail(EOPNOTSUPP, "completions do not have the fields %#llx of wc_flags; of %#llx they have",
				(unsigned long long)attr->wc_flags & ~SUPPORTED_FIELDS, SUPPORTED_FIELDS);
	if (attr->comp_mask & ~KNOWN_MASK)
		return ffv_fail(EOPNOTSUPP, "comp_mask %#x names attributes that are not known; %#x are", attr->comp_mask,
				KNOWN_MASK);
	if (flags_of(attr) & ~KNOWN_FLAGS)
		return ffv_fail(EOPNOTSUPP, "creation flags %#x are not supported; of %#x they are", attr->flags,
				KNOWN_FLAGS);
	if (attr->comp_mask & FFV_CQ_INIT_ATTR_MASK_PD && (!attr->parent_domain || attr->parent_domain->ctx != ctx))
		return ffv_fail(EINVAL, "the parent domain of a completion queue must be one of its context");
	return 0;
}

static void hold_pd(struct ffv_context *ctx, struct ffv_pd *pd, uint32_t n)
{
	if (!pd)
		return;
	pthread_mutex_lock(&ctx->lock);
	pd->users += n;
	pthread_mutex_unlock(&ctx->lock);
}

int ffv_create_cq_ex(struct ffv_context *ctx, const struct ffv_cq_init_attr_ex *attr, struct ffv_cq **out)
{
	int rc;

	if (!attr)
		return ffv_fail(EINVAL, "no attributes for a completion queue");
	struct ffv_cq *cq = ffv_cq_new(ctx, attr->cqe, attr->cq_context, attr->channel, attr->comp_vector, &rc);
	if (!cq)
		return rc;
	rc = check_attr(ctx, attr);
	if (!rc && !(cq->ex = ffv_private_alloc(pd_of(attr), 1, sizeof *cq->ex, FFV_RESOURCE_CQ)))
		rc = ffv_fail_context(-ENOMEM, "no memory for an extended completion queue");
	if (!rc) {
		cq->ex->wc_flags = attr->wc_flags;
		cq->ex->single_threaded = flags_of(attr) & FFV_CREATE_CQ_ATTR_SINGLE_THREADED;
		cq->ex->pd = pd_of(attr);
		rc = ffv_cq_build(cq, attr->cqe);
	}
	if (rc) {
		ffv_private_free(cq->ex);
		free(cq);
		return rc;
	}
	cq->ref.shm->ignores_overrun = (flags_of(attr) & FFV_CREATE_CQ_ATTR_IGNORE_OVERRUN) != 0;
	hold_pd(ctx, cq->ex->pd, 1);
	ffv_cq_publish_new(cq);
	*out = cq;
	return 0;
}

void ffv_cq_ex_release(struct ffv_cq *cq)
{
	if (!cq->ex)
		return;
	struct ffv_pd *pd = cq->ex->pd;
	ffv_private_free(cq->ex);
	hold_pd(cq->ctx, pd, -1u); /* the domain outlives what its allocators gave */
}

/* ---- polling ------------------------------------------------------------------------------------------------------------- */

static int check_ex(const struct ffv_cq *cq)
{
	if (!cq)
		return ffv_fail(EINVAL, "the completion queue is closed");
	if (cq->ctx->fork_generation != ffv_fork_generation())
		return ffv_context_check(cq->ctx);
	return ffv_fail(EINVAL, "the completion queue is not an extended one: use ffv_poll_cq");
}

/* The batch becomes this thread's. */
static int begin_batch(struct ffv_cq_ex *ex)
{
	uintptr_t self = (uintptr_t)__builtin_thread_pointer(), seen = 0;

	if (ex->single_threaded && !ffv_load_relaxed(&ex->poller)) {
		ffv_store_relaxed(&ex->poller, self);
		return 0;
	}
	/* [cq-batch] */
	for (unsigned spins = 1; !ffv_cas(&ex->poller, &seen, self); spins++) {
		if (seen == self)
			return ffv_fail(EBUSY, "this thread is polling the completion queue already: end that first");
		seen = 0;
		if (spins % SPINS)
			ffv_cpu_relax();
		else
			sched_yield();
	}
	return 0;
}

static uint64_t wallclock_offset_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec - ffv_clock_ns();
}

static int take_one(struct ffv_cq *cq)
{
	struct ffv_cq_ex *ex = cq->ex;
	int n = ffv_cq_poll_ex(cq, &ex->polled);

	if (n <= 0)
		return n ? n : -ENOENT; /* an everyday answer: it has no text */
	ex->polled.completion_wallclock_ns = ex->polled.completion_ts + ex->wallclock_offset_ns;
	return 0;
}

int ffv_start_poll(struct ffv_cq *cq, const struct ffv_poll_cq_attr *attr)
{
	if (ffv_unlikely(!cq || !cq->ex || cq->ctx->fork_generation != ffv_fork_generation()))
		return check_ex(cq);
	if (ffv_unlikely(attr && attr->comp_mask))
		return ffv_fail(EINVAL, "no attributes of polling are known, but comp_mask is %#x", attr->comp_mask);
	struct ffv_cq_ex *ex = cq->ex;
	int rc = begin_batch(ex);
	if (ffv_unlikely(rc))
		return rc;
	if (ffv_unlikely(ex->wc_flags & FFV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK))
		ex->wallclock_offset_ns = wallclock_offset_ns();
	rc = take_one(cq);
	if (rc)
		ffv_end_poll(cq);
	return rc;
}

int ffv_next_poll(struct ffv_cq *cq)
{
	if (ffv_unlikely(!cq || !cq->ex || cq->ctx->fork_generation != ffv_fork_generation()))
		return check_ex(cq);
	if (ffv_unlikely(!ffv_load_relaxed(&cq->ex->poller)))
		return ffv_fail(EINVAL, "polling has not been started");
	return take_one(cq);
}

void ffv_end_poll(struct ffv_cq *cq)
{
	if (cq && cq->ex)
		ffv_store_release(&cq->ex->poller, (uintptr_t)0); /* [cq-batch] */
}

const struct ffv_wc_ex *ffv_cq_polled(struct ffv_cq *cq)
{
	return cq && cq->ex ? &cq->ex->polled : NULL;
}

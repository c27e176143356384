/* SPDX-License-Identifier: MIT
 *
 * Shared receive queues.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "verbs/allocator.h"
#include "verbs/cq.h"
#include "verbs/qp.h"
#include "verbs/rq.h"
#include "verbs/tags.h"
#include "verbs/xrcd.h"

static int claim_id(struct ffv_context *ctx, struct ffv_srq *srq)
{
	int rc = -ENOMEM;

	pthread_mutex_lock(&ctx->lock);
	for (uint32_t n = 0; n < FFV_MAX_SRQ && rc; n++) {
		uint32_t id = (ctx->next_srq + n) % FFV_MAX_SRQ;
		if (ffv_load_relaxed(&ctx->srqs[id]))
			continue;
		ctx->next_srq = id + 1;
		ffv_store_release(&ctx->srqs[id], srq);
		srq->id = id;
		rc = 0;
	}
	pthread_mutex_unlock(&ctx->lock);
	return rc ? ffv_fail(ENOMEM, "the context has %u shared receive queues already", FFV_MAX_SRQ) : 0;
}

static int check_attr(const struct ffv_srq_attr *attr)
{
	if (attr->max_wr < 1 || attr->max_wr > FFV_MAX_WR || attr->max_sge > FFV_MAX_SGE)
		return ffv_fail(EINVAL, "a shared receive queue has 1 to %u work requests of up to %u entries, not %u of %u",
				FFV_MAX_WR, FFV_MAX_SGE, attr->max_wr, attr->max_sge);
	return 0;
}

static int build(struct ffv_context *ctx, struct ffv_srq *srq, const struct ffv_srq_attr *attr)
{
	int rc = ffv_heap_alloc(&ctx->heap, sizeof *srq->shm, &srq->shm_line);

	if (rc)
		return rc;
	srq->shm = ffv_heap_at(&ctx->heap, srq->shm_line);
	srq->rq.pd = srq->pd;
	srq->rq.resource_type = FFV_RESOURCE_SRQ;
	srq->rq.has_takers = true;
	rc = ffv_rq_create(ctx, &srq->rq, &srq->shm->rq, attr->max_wr, attr->max_sge);
	if (!rc)
		rc = claim_id(ctx, srq);
	if (rc) {
		ffv_rq_destroy(ctx, &srq->rq);
		ffv_heap_free(&ctx->heap, srq->shm_line, sizeof *srq->shm);
	}
	return rc;
}

static void count_users(struct ffv_srq *srq, uint32_t n)
{
	pthread_mutex_lock(&srq->ctx->lock);
	srq->pd->users += n;
	if (srq->cq)
		srq->cq->users += n;
	if (srq->xrcd)
		srq->xrcd->users += n;
	pthread_mutex_unlock(&srq->ctx->lock);
}

static void publish(struct ffv_srq *srq)
{
	struct ffv_srq_shm *shm = srq->shm;

	shm->id = srq->id;
	shm->pd = srq->pd->id;
	shm->type = srq->type;
	shm->cq = srq->cq ? srq->cq->ref.id : FFV_NONE;
	if (srq->tm)
		ffv_tm_publish(srq);
	if (srq->xrcd)
		shm->xrcd = srq->xrcd->domain;
	srq->rq.ref.srq_id = srq->id;
	srq->rq.ref.shared_takers = true;
	ffv_store_release(&srq->ctx->view.arena->srq_line[srq->id], srq->shm_line);
}

/* What the attributes name has been checked. */
static int create(struct ffv_context *ctx, const struct ffv_srq_init_attr_ex *attr, struct ffv_srq **out)
{
	struct ffv_srq *srq = calloc(1, sizeof *srq);

	if (!srq)
		return ffv_fail(ENOMEM, "no memory for a shared receive queue");
	srq->ctx = ctx;
	srq->pd = attr->pd;
	srq->type = attr->srq_type;
	srq->xrcd = attr->xrcd;
	srq->cq = attr->cq;
	srq->srq_context = attr->srq_context;
	int rc = attr->srq_type == FFV_SRQT_TM ? ffv_tm_create(srq, attr) : 0;
	if (!rc)
		rc = build(ctx, srq, &attr->attr);
	if (rc) {
		ffv_tm_destroy(srq);
		free(srq);
		return rc;
	}
	count_users(srq, 1);
	publish(srq);
	*out = srq;
	return 0;
}

int ffv_create_srq(struct ffv_pd *pd, struct ffv_srq_init_attr *attr, struct ffv_srq **out)
{
	int rc = ffv_context_check(pd ? pd->ctx : NULL);

	if (!rc)
		rc = check_attr(&attr->attr);
	if (rc)
		return rc;
	struct ffv_srq_init_attr_ex basic = { .srq_context = attr->srq_context, .attr = attr->attr,
					      .srq_type = FFV_SRQT_BASIC, .pd = pd };
	return create(pd->ctx, &basic, out);
}

static int check_type(const struct ffv_context *ctx, const struct ffv_srq_init_attr_ex *attr)
{
	const uint32_t known = FFV_SRQ_INIT_ATTR_TYPE | FFV_SRQ_INIT_ATTR_PD | FFV_SRQ_INIT_ATTR_XRCD |
			       FFV_SRQ_INIT_ATTR_CQ | FFV_SRQ_INIT_ATTR_TM;

	if (attr->comp_mask & ~known)
		return ffv_fail(EINVAL, "comp_mask %#x of a shared receive queue has unknown bits", attr->comp_mask);
	if (attr->srq_type > FFV_SRQT_TM)
		return ffv_fail(EINVAL, "shared receive queues are basic (0), XRC (1) or tag matching (2), not %u",
				attr->srq_type);
	if (!attr->pd)
		return ffv_fail(EINVAL, "a shared receive queue needs a protection domain: set pd, and PD in comp_mask");
	if (attr->srq_type == FFV_SRQT_XRC && (!attr->xrcd || !attr->cq))
		return ffv_fail(EINVAL, "an XRC receive queue needs an XRC domain and a completion queue: set xrcd and cq, "
				"and XRCD and CQ in comp_mask");
	if (attr->srq_type == FFV_SRQT_TM && !(attr->comp_mask & FFV_SRQ_INIT_ATTR_TM && attr->cq))
		return ffv_fail(EINVAL, "a tag-matching receive queue needs a completion queue and its sizes: set cq and "
				"tm_cap, and CQ and TM in comp_mask");
	if (attr->pd->ctx != ctx || (attr->xrcd && attr->xrcd->ctx != ctx) || (attr->cq && attr->cq->ctx != ctx))
		return ffv_fail(EINVAL, "the shared receive queue was given an object of another context");
	return check_attr(&attr->attr);
}

int ffv_create_srq_ex(struct ffv_context *ctx, struct ffv_srq_init_attr_ex *attr, struct ffv_srq **out)
{
	int rc = ffv_context_check(ctx);

	if (rc)
		return rc;
	struct ffv_srq_init_attr_ex given = *attr;
	if (!(given.comp_mask & FFV_SRQ_INIT_ATTR_TYPE))
		given.srq_type = FFV_SRQT_BASIC;
	if (!(given.comp_mask & FFV_SRQ_INIT_ATTR_PD))
		given.pd = NULL;
	if (!(given.comp_mask & FFV_SRQ_INIT_ATTR_XRCD) || given.srq_type != FFV_SRQT_XRC)
		given.xrcd = NULL;
	if (!(given.comp_mask & FFV_SRQ_INIT_ATTR_CQ) || given.srq_type == FFV_SRQT_BASIC)
		given.cq = NULL;
	rc = check_type(ctx, &given);
	return rc ? rc : create(ctx, &given, out);
}

static uint32_t size_of(struct ffv_srq *srq)
{
	ffv_spin_token token = ffv_spin_lock(&srq->rq.lock);
	uint32_t max_wr = srq->rq.max_wr;

	ffv_spin_unlock(&srq->rq.lock, token);
	return max_wr;
}

static int check_modify(struct ffv_srq *srq, const struct ffv_srq_attr *attr, uint32_t mask)
{
	uint32_t max_wr = mask & FFV_SRQ_MAX_WR ? attr->max_wr : size_of(srq);
	uint32_t limit = mask & FFV_SRQ_LIMIT ? attr->srq_limit : ffv_load_acquire(&srq->shm->rq.limit);

	if (mask & ~(uint32_t)(FFV_SRQ_MAX_WR | FFV_SRQ_LIMIT))
		return ffv_fail(EINVAL, "mask %#x has unknown bits", mask);
	if (max_wr < 1 || max_wr > FFV_MAX_WR)
		return ffv_fail(EINVAL, "a shared receive queue has 1 to %u work requests, not %u", FFV_MAX_WR, max_wr);
	if (limit > max_wr)
		return ffv_fail(EINVAL, "a limit of %u in a queue of %u", limit, max_wr);
	return 0;
}

int ffv_modify_srq(struct ffv_srq *srq, const struct ffv_srq_attr *attr, uint32_t mask)
{
	int rc = ffv_context_check(srq ? srq->ctx : NULL);

	if (!rc)
		rc = check_modify(srq, attr, mask);
	if (!rc && mask & FFV_SRQ_MAX_WR)
		rc = ffv_rq_resize(srq->ctx, &srq->rq, attr->max_wr);
	if (!rc && mask & FFV_SRQ_LIMIT)
		ffv_store_release(&srq->shm->rq.limit, attr->srq_limit);
	return rc;
}

int ffv_query_srq(struct ffv_srq *srq, struct ffv_srq_attr *attr)
{
	int rc = ffv_context_check(srq ? srq->ctx : NULL);

	if (rc)
		return rc;
	*attr = (struct ffv_srq_attr){ .max_wr = size_of(srq), .max_sge = srq->rq.max_sge,
				       .srq_limit = ffv_load_acquire(&srq->shm->rq.limit) };
	return 0;
}

/* ---- who waits ----------------------------------------------------------------------------------------------------
 *
 * [srq-users] The list of queue pairs grows at its front, under the context's lock; it only loses one under that and the
 * service lock, so that holding the latter is enough to go through it. */

void ffv_srq_add_user(struct ffv_srq *srq, struct ffv_qp *qp)
{
	pthread_mutex_lock(&srq->ctx->lock);
	struct ffv_qp *first = ffv_load_relaxed(&srq->first_user);
	qp->srq_next = first;
	if (first)
		first->srq_previous = qp;
	ffv_store_release(&srq->first_user, qp);
	pthread_mutex_unlock(&srq->ctx->lock);
}

void ffv_srq_remove_user(struct ffv_srq *srq, struct ffv_qp *qp)
{
	if (qp->srq_next)
		qp->srq_next->srq_previous = qp->srq_previous;
	if (qp->srq_previous)
		qp->srq_previous->srq_next = qp->srq_next;
	else
		ffv_store_relaxed(&srq->first_user, qp->srq_next);
	if (srq->turn == qp)
		srq->turn = qp->srq_next;
}

/* True if there is nothing to take any more: then the next one to post is told, as whoever comes to wait would tell it. */
static bool has_run_out(struct ffv_srq *srq)
{
	struct ffv_rq_shm *shm = srq->rq.ref.shm;

	if (ffv_load_acquire(&shm->tail) > ffv_load_relaxed(&shm->head))
		return false;
	/* [rq-wait] as whoever waits: the mark, then a last look. */
	ffv_store_seq_cst(&shm->waiter, 1u);
	return ffv_load_seq_cst(&shm->tail) <= ffv_load_relaxed(&shm->head);
}

/* In turn, from the one after the one served last: one receive is for one of them, and asking all the others as well would
 * make each message as dear as there are senders. Service lock held. */
static void serve_in_turn(struct ffv_srq *srq)
{
	struct ffv_qp *last = srq->turn ? srq->turn : ffv_load_acquire(&srq->first_user), *user = last;

	if (!user)
		return;
	do {
		ffv_qp_serve_or_ask(user);
		user = user->srq_next ? user->srq_next : ffv_load_acquire(&srq->first_user);
		srq->turn = user;
	} while (user != last && !has_run_out(srq));
}

void ffv_srq_serve_waiters(struct ffv_srq *srq)
{
	struct ffv_context *ctx = srq->ctx;

	/* [rq-wait] cleared before the queues are looked at: who waits again after this sets it again. */
	ffv_store_seq_cst(&srq->rq.ref.shm->waiter, 0u);
	pthread_mutex_lock(&ctx->service);
	if (srq->type == FFV_SRQT_XRC)
		ffv_xrc_serve(ctx, srq);
	else
		serve_in_turn(srq);
	pthread_mutex_unlock(&ctx->service);
}

/* ------------------------------------------------------------------------------------------------------------------ */

uint32_t ffv_srq_num(struct ffv_srq *srq)
{
	return srq ? ffv_srq_number(srq) : 0;
}

/* Nobody finds it after this: peers, the service thread, pollers of its completion queue. */
static void unpublish(struct ffv_srq *srq)
{
	struct ffv_context *ctx = srq->ctx;

	ffv_store_release(&ctx->view.arena->srq_line[srq->id], 0u);
	if (srq->cq) /* requests that found it before; what they still complete afterwards is dropped when polled */
		ffv_context_quiesce(ctx, 1000000);
	pthread_mutex_lock(&ctx->service);
	pthread_mutex_lock(&ctx->lock);
	if (srq->cq)
		ffv_cq_forget_srq(srq->cq, srq);
	else
		ffv_store_relaxed(&ctx->srqs[srq->id], NULL);
	pthread_mutex_unlock(&ctx->lock);
	pthread_mutex_unlock(&ctx->service);
}

int ffv_destroy_srq(struct ffv_srq *srq)
{
	if (!srq)
		return ffv_fail(EINVAL, "no shared receive queue");
	struct ffv_context *ctx = srq->ctx;
	if (ffv_context_check(ctx)) {
		ffv_tm_destroy(srq);
		ffv_private_free(srq->rq.wr_id);
		free(srq->rq.late);
		ffv_private_free((void *)srq->rq.busy);
		free(srq);
		return 0;
	}
	pthread_mutex_lock(&ctx->lock);
	uint32_t users = srq->users;
	pthread_mutex_unlock(&ctx->lock);
	if (users)
		return ffv_fail(EBUSY, "the shared receive queue is used by %u queue pairs", users);
	unpublish(srq);
	ffv_async_forget(ctx, &srq->async_outstanding);
	ffv_rq_destroy(ctx, &srq->rq);
	ffv_tm_destroy(srq);
	count_users(srq, -1u);
	ffv_context_retire(ctx, srq->shm_line, sizeof *srq->shm);
	free(srq);
	return 0;
}

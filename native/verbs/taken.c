/* SPDX-License-Identifier: MIT
 *
 * See taken.h. A requester names a position before it takes it, so a dead one's may be somebody else's: of a living
 * requester that took it, that completed it, or whose completion was polled, and its slot used again.
 */
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "verbs/cq.h"
#include "verbs/qp.h"
#include "verbs/rq.h"
#include "verbs/taken.h"
#include "verbs/xrcd.h"

#define SETTLE_NS 300000000ull    /* for who is about to take one to have done so, or not */

struct taken {
	struct ffv_context *ctx;
	struct ffv_rq *rq;
	struct ffv_srq *xrc;          /* the queue, if it is an XRC one, which requests name by its number */
	uint32_t srqn;
	uint64_t position;
	bool may_be_taken;            /* a living requester has named it: it has taken it, or is going on to another one */
	bool is_taken;
};

/* ---- by whom --------------------------------------------------------------------------------------------------------------- */

/* [taken] A requester that does not name it any more has completed it before, if it had it. */
static void look_at(struct taken *taken, const struct ffv_qp_shm *requester)
{
	uint8_t how = ffv_word_load_acquire(&requester->rq_taken);

	if (how == FFV_TAKEN_NOT || ffv_word_load(&requester->taken_position) != taken->position)
		return;
	taken->is_taken |= how == FFV_TAKEN_YES;
	taken->may_be_taken = true;
}

static bool look_at_xrc(void *arg, struct ffv_qp_ref *requester)
{
	struct taken *taken = arg;

	if (ffv_xrc_named(requester) == taken->srqn)
		look_at(taken, requester->shm);
	return false;
}

/* Our queue pair that a datagram goes to, NULL if it is not ours. */
static struct ffv_qp *addressed(struct ffv_context *ctx, const struct ffv_qp_ref *requester)
{
	uint32_t to = ffv_qp_ref_wqe(requester, ffv_load_relaxed(&requester->shm->sq_exec))->ud.qpn;
	struct ffv_qp *qp = to / FFV_QPN_BLOCK == ctx->block ? ffv_context_qp(ctx, to % FFV_QPN_BLOCK) : NULL;

	return qp && qp->type == FFV_QPT_UD ? qp : NULL;
}

typedef void (*visit_fn)(struct taken *taken, const struct ffv_qp_ref *requester, struct ffv_qp *to);

/* Every datagram queue pair of a context that has named a receive of ours. */
static void each_datagram(struct ffv_view *view, visit_fn visit, struct taken *taken)
{
	uint32_t first = view->arena->qpn_first;
	struct ffv_qp_ref ref;

	for (uint32_t i = 0; i < FFV_MAX_QP; i++) {
		if (!ffv_load_relaxed(&view->arena->qp_line[i]) || ffv_qp_ref_open(view, first + i, &ref) ||
		    ref.type != FFV_QPT_UD || ffv_word_load(&ref.shm->rq_taken) == FFV_TAKEN_NOT)
			continue;
		struct ffv_qp *to = addressed(taken->ctx, &ref);
		if (to)
			visit(taken, &ref, to);
	}
}

static void look_at_datagram(struct taken *taken, const struct ffv_qp_ref *requester, struct ffv_qp *to)
{
	if (ffv_qp_rq(to) == taken->rq)
		look_at(taken, requester->shm);
}

static void look_at_view(struct taken *taken, struct ffv_view *view)
{
	if (taken->xrc)
		ffv_xrc_each_requester(view, look_at_xrc, taken);
	else
		each_datagram(view, look_at_datagram, taken);
}

static void look_at_connected(struct taken *taken)
{
	for (uint32_t i = 0; i < FFV_MAX_QP; i++) {
		struct ffv_qp *qp = ffv_context_qp(taken->ctx, i);
		struct ffv_link *link = qp && qp->srq && &qp->srq->rq == taken->rq ? ffv_qp_link(qp) : NULL;
		if (link && (!link->peer || ffv_peer_state(link->peer) == FFV_PEER_ATTACHED))
			look_at(taken, link->ref.shm);
	}
}

/* True if a living requester, ours or a peer's, has it. */
static bool is_taken_by_living(struct taken *taken)
{
	const struct timespec nap = { 0, 500000 };
	uint64_t deadline_ns = ffv_clock_ns() + SETTLE_NS;

	do {
		taken->may_be_taken = taken->is_taken = false;
		if (!taken->xrc)
			look_at_connected(taken);
		look_at_view(taken, &taken->ctx->view);
		pthread_mutex_lock(&taken->ctx->lock);
		for (struct ffv_peer *peer = taken->ctx->peers; peer && !taken->is_taken; peer = peer->next)
			if (ffv_peer_state(peer) == FFV_PEER_ATTACHED)
				look_at_view(taken, &peer->view);
		pthread_mutex_unlock(&taken->ctx->lock);
		if (taken->is_taken || !taken->may_be_taken)
			return taken->is_taken;
		nanosleep(&nap, NULL);
	} while (ffv_clock_ns() < deadline_ns);
	return true; /* rather lost than given to two */
}

/* True if a completion that is not polled reports it, of whatever queue pair receives from there. */
static bool is_reported(const struct taken *taken)
{
	if (taken->xrc)
		return ffv_cq_reports(taken->xrc->cq, taken->xrc, taken->position);
	for (uint32_t i = 0; i < FFV_MAX_QP; i++) {
		struct ffv_qp *qp = ffv_context_qp(taken->ctx, i);
		if (qp && qp->recv_cq && ffv_qp_rq(qp) == taken->rq &&
		    ffv_cq_reports_recv(qp->recv_cq, qp->ref.qpn, taken->position))
			return true;
	}
	return false;
}

/* It was the dead one's. In this order: who had it completes it, then forgets it, and only then can it be polled. */
static bool is_lost(struct taken *taken)
{
	return ffv_rq_is_out(taken->rq, taken->position) && !is_taken_by_living(taken) && !is_reported(taken) &&
	       ffv_rq_is_out(taken->rq, taken->position);
}

/* ---- flushing -------------------------------------------------------------------------------------------------------------- */

static void complete(struct ffv_context *ctx, const struct ffv_qp_ref *to, struct ffv_cq *cq, uint64_t position)
{
	struct ffv_exec_env env;
	struct ffv_claim claim = { .next = 0, .end = 0 };

	if (ffv_context_env(ctx, &env))
		return;
	ffv_exec_complete_recv(&env, to, position, FFV_WC_WR_FLUSH_ERR, &claim);
	ffv_cq_signal_spurious(cq);
}

void ffv_taken_flush(struct ffv_context *ctx, struct ffv_qp *qp, const struct ffv_qp_shm *requester)
{
	struct taken taken = { .ctx = ctx, .rq = ffv_qp_rq(qp), .position = ffv_word_load(&requester->taken_position) };

	if (ffv_word_load(&requester->rq_taken) != FFV_TAKEN_NOT && is_lost(&taken))
		complete(ctx, &qp->ref, qp->recv_cq, taken.position);
}

static void flush_datagram(struct taken *dead, const struct ffv_qp_ref *requester, struct ffv_qp *to)
{
	ffv_taken_flush(dead->ctx, to, requester->shm);
}

static bool flush_xrc(void *arg, struct ffv_qp_ref *requester)
{
	struct ffv_context *ctx = arg;
	struct taken taken = { .ctx = ctx, .srqn = ffv_xrc_named(requester), .position = requester->shm->taken_position };
	uint32_t id = taken.srqn - FFV_SRQN(ctx->block, 0u), qpn = ffv_load_relaxed(&requester->shm->dest_qpn);
	struct ffv_srq *srq = id < FFV_MAX_SRQ ? ffv_load_acquire(&ctx->srqs[id]) : NULL;

	if (!srq || srq->type != FFV_SRQT_XRC || requester->shm->rq_taken == FFV_TAKEN_NOT)
		return false;
	taken.xrc = srq;
	taken.rq = &srq->rq;
	if (!is_lost(&taken))
		return false;
	struct ffv_qp_ref to = { .view = &ctx->view, .qpn = qpn & 0xffffff, .type = FFV_QPT_XRC_RECV,
				 .recv_cq = srq->cq->ref, .rq = srq->rq.ref };
	complete(ctx, &to, srq->cq, taken.position);
	return false;
}

void ffv_taken_flush_named(struct ffv_context *ctx, struct ffv_peer *dead)
{
	struct taken taken = { .ctx = ctx };

	each_datagram(&dead->view, flush_datagram, &taken);
	ffv_xrc_each_requester(&dead->view, flush_xrc, ctx);
}

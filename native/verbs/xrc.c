/* SPDX-License-Identifier: MIT
 *
 * Serving XRC requests: whoever owns a shared receive queue executes the send queues that wait for it. Their contexts, and
 * the one of the XRC_RECV queue pair that they arrive at, may be three different ones. Slow path; service lock held.
 */
#include "verbs/xrcd.h"

#include <string.h>

#include "verbs/process.h"
#include "verbs/qp.h"
#include "verbs/tags.h"

bool ffv_xrc_each_requester(struct ffv_view *view, ffv_xrc_visit visit, void *arg)
{
	uint32_t first = view->arena->qpn_first;
	struct ffv_qp_ref ref;

	for (uint32_t i = 0; i < FFV_MAX_QP; i++) {
		uint32_t line = ffv_load_acquire(&view->arena->qp_line[i]);
		const struct ffv_qp_shm *shm = line ? ffv_view_at(view, line, sizeof *shm) : NULL;
		if (!shm || shm->type != FFV_QPT_XRC_SEND || ffv_qp_ref_open(view, first + i, &ref) ||
		    ref.type != FFV_QPT_XRC_SEND)
			continue;
		if (visit(arg, &ref))
			return true;
	}
	return false;
}

struct service {
	struct ffv_context *ctx;
	uint32_t srqn;
	struct ffv_exec_env env;
};

/* The XRC_RECV queue pair that the requester is connected to; false while its context is not attached. */
static bool open_responder(struct ffv_context *ctx, const struct ffv_qp_ref *requester, struct ffv_qp_ref *out)
{
	uint32_t qpn = ffv_load_relaxed(&requester->shm->dest_qpn);
	uint8_t gid[16];

	ffv_qp_shm_dgid(requester->shm, gid);
	struct ffv_view *view = ffv_face.find_context(ctx, gid, qpn / FFV_QPN_BLOCK);
	if (!view) {
		if (!ffv_peer_connect(ctx, gid, qpn))
			ctx->retry_srq = true;
		return false;
	}
	return ffv_qp_ref_open(view, qpn, out) == 0;
}

static bool serve(void *arg, struct ffv_qp_ref *requester)
{
	struct service *service = arg;
	struct ffv_qp_ref responder;
	struct ffv_qp_shm *shm = requester->shm;

	/* Not only those that are marked as blocked: one that is about to wait holds its lock, and looks again. */
	if (ffv_load_acquire(&shm->sq_tail) == ffv_load_relaxed(&shm->sq_exec) || ffv_xrc_named(requester) != service->srqn)
		return false;
	if (open_responder(service->ctx, requester, &responder))
		ffv_exec_run(&service->env, requester, &responder);
	else if (ffv_load_relaxed(&shm->blocked) == FFV_BLOCKED_RNR) /* its owner knows its peer */
		ffv_context_attention(service->ctx, requester->view, FFV_ATTENTION_QP + requester->qpn % FFV_QPN_BLOCK);
	return false;
}

void ffv_xrc_serve(struct ffv_context *ctx, struct ffv_srq *srq)
{
	struct service service = { .ctx = ctx, .srqn = ffv_srq_number(srq) };

	if (ffv_context_env(ctx, &service.env)) {
		ffv_context_attention(ctx, &ctx->view, FFV_ATTENTION_SRQ + srq->id); /* a thread without a number */
		return;
	}
	ffv_xrc_each_requester(&ctx->view, serve, &service);
	pthread_mutex_lock(&ctx->lock);
	struct ffv_peer *first = ctx->peers;
	pthread_mutex_unlock(&ctx->lock);
	/* The list only changes under the service lock (which we hold) but for new ones at its front. */
	for (struct ffv_peer *peer = first; peer; peer = peer->next)
		if (ffv_peer_state(peer) == FFV_PEER_ATTACHED)
			ffv_xrc_each_requester(&peer->view, serve, &service);
}

void ffv_srq_retry(struct ffv_context *ctx)
{
	ctx->retry_srq = false;
	for (uint32_t id = 0; id < FFV_MAX_SRQ; id++) {
		struct ffv_srq *srq = ffv_load_acquire(&ctx->srqs[id]);
		if (srq && srq->type == FFV_SRQT_XRC)
			ffv_xrc_serve(ctx, srq);
		else if (srq && srq->tm)
			ffv_tm_fetch(ctx, srq);
	}
}

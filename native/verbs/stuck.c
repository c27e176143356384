/* SPDX-License-Identifier: MIT
 *
 * See stuck.h. An execution finds keys for one work request at a time, the one at sq_exec. Our key is revoked already:
 * only the work request that was under way then can have found it, and a stopped process stays at that one. So it is
 * enough to see that this one, and the receive work request that it took, name other regions. In doubt the answer is yes.
 */
#include "verbs/stuck.h"

#include <time.h>

/* A key that is another region's now; windows are in doubt, for they lead to regions. */
static bool is_another_region(const struct ffv_context *ctx, uint32_t key, uint32_t revoked)
{
	const struct ffv_key_shm *entry = &ctx->view.arena->keys[FFV_KEY_INDEX(key)];

	/* [key-publish] */
	return key != revoked && key && ffv_load_acquire(&entry->key) == key && entry->kind == FFV_KEY_MR;
}

static bool are_other_regions(const struct ffv_context *ctx, const struct ffv_sge_shm *sge, uint32_t count, uint32_t revoked)
{
	for (uint32_t i = 0; i < count && sge[i].addr < FFV_SGE_VOID; i++)
		if (sge[i].length && !is_another_region(ctx, sge[i].lkey, revoked))
			return false;
	return true;
}

/* The QP that a party of an execution is, NULL if neither we nor the peer have it (any more). */
static const struct ffv_qp_ref *find_party(struct ffv_context *ctx, struct ffv_peer *peer, uint64_t party,
					   struct ffv_qp_ref *room)
{
	uint32_t qpn = (uint32_t)party, owner = (uint32_t)(party >> 32);

	if (owner == (uint32_t)ctx->view.context_id) {
		struct ffv_qp *qp = qpn / FFV_QPN_BLOCK == ctx->block ? ffv_context_qp(ctx, qpn % FFV_QPN_BLOCK) : NULL;
		return qp ? &qp->ref : NULL;
	}
	if (!peer || owner != (uint32_t)peer->view.context_id || ffv_qp_ref_open(&peer->view, qpn, room))
		return NULL;
	return room;
}

static bool requester_is_elsewhere(const struct ffv_context *ctx, const struct ffv_qp_ref *req,
				   const struct ffv_wqe_shm *wqe, uint32_t revoked)
{
	uint32_t room = (req->sq_stride_bytes - (uint32_t)offsetof(struct ffv_wqe_shm, sge)) / 16;

	if (wqe->opcode == FFV_WR_BIND_MW || wqe->opcode == FFV_WR_LOCAL_INV)
		return false;
	return wqe->flags & FFV_SEND_INLINE ||
	       (wqe->num_sge <= room && are_other_regions(ctx, wqe->sge, wqe->num_sge, revoked));
}

static bool tag_is_elsewhere(const struct ffv_context *ctx, const struct ffv_qp_ref *req, const struct ffv_rq_ref *rq,
			     uint32_t revoked)
{
	uint32_t slot = ffv_word_load(&req->shm->tag_slot);
	uint32_t n = slot < rq->num_tags ? ffv_word_load(&rq->tags[slot].num_sge) : UINT32_MAX;

	return n <= rq->max_sge && are_other_regions(ctx, &rq->tag_sges[slot * rq->max_sge], n, revoked);
}

static bool responder_is_elsewhere(const struct ffv_context *ctx, const struct ffv_qp_ref *req,
				   const struct ffv_qp_ref *resp, const struct ffv_wqe_shm *wqe, uint32_t revoked)
{
	bool sends = wqe->opcode == FFV_WR_SEND || wqe->opcode == FFV_WR_SEND_WITH_IMM;

	if (!sends)
		return wqe->opcode <= FFV_WR_ATOMIC_FETCH_AND_ADD && is_another_region(ctx, wqe->rdma.rkey, revoked);
	if (resp->rq.tags && ffv_word_load(&req->shm->tag_taken) != FFV_TAKEN_NOT)
		return tag_is_elsewhere(ctx, req, &resp->rq, revoked);
	if (resp->rq.shared_takers && req->shm->rq_taken == FFV_TAKEN_NOT)
		return true;
	if (ffv_rq_ref_has_moved(&resp->rq))
		return false; /* resized since: the list is elsewhere */
	uint64_t position = resp->rq.shared_takers ? req->shm->taken_position : ffv_load_relaxed(&resp->rq.shm->head);
	return are_other_regions(ctx, ffv_rq_ref_entry(&resp->rq, position), resp->rq.max_sge, revoked);
}

static bool is_elsewhere(struct ffv_context *ctx, const struct ffv_qp_ref *req, const struct ffv_qp_ref *resp,
			 uint64_t position, uint32_t revoked)
{
	const struct ffv_wqe_shm *wqe = ffv_qp_ref_wqe(req, position);

	if (position == ffv_load_acquire(&req->shm->sq_tail))
		return true; /* everything is done */
	return (!req->view->own || requester_is_elsewhere(ctx, req, wqe, revoked)) &&
	       (!resp->view->own || responder_is_elsewhere(ctx, req, resp, wqe, revoked));
}

/* The shared receive queue that an XRC request names: ours, or another's, whose memory is not ours to ask about. */
static const struct ffv_qp_ref *find_named(struct ffv_context *ctx, struct ffv_peer *peer, const struct ffv_qp_ref *req,
					   uint64_t position, struct ffv_qp_ref *room)
{
	uint32_t srqn = ffv_qp_ref_wqe(req, position)->xrc_srqn;

	if (srqn / FFV_MAX_SRQ != ctx->block) {
		if (!peer)
			return NULL;
		*room = (struct ffv_qp_ref){ .view = &peer->view };
		return room;
	}
	*room = (struct ffv_qp_ref){ .view = &ctx->view };
	return ffv_srq_ref_open(&ctx->view, srqn % FFV_MAX_SRQ, &room->rq) ? NULL : room;
}

/* Whom the work request at `position` is for. A datagram or an XRC request says it itself. NULL: not known. */
static const struct ffv_qp_ref *find_responder(struct ffv_context *ctx, struct ffv_peer *peer, uint64_t party,
					       const struct ffv_qp_ref *req, uint64_t position, struct ffv_qp_ref *room)
{
	if (position == ffv_load_acquire(&req->shm->sq_tail))
		return req; /* there is none: everything is done */
	if (req->type == FFV_QPT_XRC_SEND)
		return find_named(ctx, peer, req, position, room);
	if (req->type != FFV_QPT_UD)
		return find_party(ctx, peer, party, room);
	uint32_t qpn = ffv_qp_ref_wqe(req, position)->ud.qpn;
	if (qpn / FFV_QPN_BLOCK == ctx->block)
		return find_party(ctx, peer, FFV_PARTY(ctx->view.context_id, qpn), room);
	return req->view->own ? NULL : req; /* somebody else's, and so is the sender */
}

bool ffv_stuck_may_use(struct ffv_context *ctx, const struct ffv_thread_shm *thread, struct ffv_peer *peer, uint32_t key)
{
	struct timespec nap = { 0, 2000000 };
	struct ffv_qp_ref room[2];
	uint64_t epoch = ffv_load_acquire(&thread->epoch);
	const struct ffv_qp_ref *req = find_party(ctx, peer, ffv_load_relaxed(&thread->requester), &room[0]);

	if (!req)
		return true;
	uint64_t position = ffv_load_acquire(&req->shm->sq_exec);
	const struct ffv_qp_ref *resp =
		find_responder(ctx, peer, ffv_load_relaxed(&thread->responder), req, position, &room[1]);
	if (!resp || !is_elsewhere(ctx, req, resp, position, key))
		return true;
	nanosleep(&nap, NULL); /* stopped, not only slow: it stays where it is */
	return ffv_load_acquire(&thread->epoch) != epoch || ffv_load_acquire(&req->shm->sq_exec) != position ||
	       !is_elsewhere(ctx, req, resp, position, key);
}

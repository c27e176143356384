/* SPDX-License-Identifier: MIT
 *
 * Fetching the data of rendezvous that matched a tag: the engine posts, on the queue pair that the header arrived at, a
 * READ of the sender's memory into the tag's and a FIN message after it, as a NIC does. Both are work requests like the
 * application's, with its timers, retries and errors, but complete at the shared receive queue (engine/tags.c). Slow path;
 * service lock held.
 */
#include "verbs/tags.h"

#include <endian.h>
#include <string.h>

#include "verbs/attend.h"
#include "verbs/cq.h"
#include "verbs/process.h"
#include "verbs/qp.h"
#include "verbs/rq.h"

/* Ends a tag that nothing will be received into any more. */
static void give_up(struct ffv_qp *qp, uint32_t slot, uint32_t status)
{
	struct ffv_exec_env env;
	struct ffv_claim claim = { .next = 0, .end = 0 };

	if (ffv_context_env(qp->ctx, &env))
		return;
	ffv_exec_complete_tag(&env, &qp->ref, slot, status, &claim);
	if (claim.signal)
		ffv_cq_signal(qp->ctx, qp->recv_cq->ref.id);
}

static void write_read(struct ffv_qp *qp, const struct ffv_srq *srq, uint32_t slot, struct ffv_wqe_shm *wqe)
{
	const struct ffv_tag_shm *tag = &srq->tm->tags[slot];
	uint32_t left = ffv_word_load(&tag->length_bytes), n = ffv_word_load(&tag->num_sge), used = 0;

	wqe->opcode = FFV_WR_RDMA_READ;
	wqe->length_bytes = left;
	for (uint32_t i = 0; i < n && i < srq->rq.max_sge && i < qp->max_send_sge && left; i++) {
		struct ffv_sge_shm sge = ffv_sge_read(&srq->tm->sges[slot * srq->rq.max_sge + i]);
		sge.length = sge.length < left ? sge.length : left;
		left -= sge.length;
		wqe->sge[used++] = sge;
	}
	wqe->num_sge = (uint8_t)used; /* too short a list is the executor's to refuse, as one of the application's */
	wqe->rdma.remote_addr = ffv_word_load(&tag->remote_addr);
	wqe->rdma.rkey = ffv_word_load(&tag->rkey);
}

static void write_fin(const struct ffv_srq *srq, uint32_t slot, struct ffv_wqe_shm *wqe)
{
	const struct ffv_tag_shm *tag = &srq->tm->tags[slot];
	struct ffv_tmh fin = { .opcode = FFV_TMH_FIN, .app_ctx_be = ffv_word_load(&tag->app_ctx_be),
			       .tag_be = htobe64(ffv_word_load(&tag->message_tag)) };

	wqe->opcode = FFV_WR_SEND;
	wqe->length_bytes = sizeof fin;
	wqe->num_sge = 0;
	memcpy(wqe->sge, &fin, sizeof fin);
}

/* False: no room in the send queue now. */
static bool post(struct ffv_qp *qp, struct ffv_srq *srq, uint32_t slot)
{
	ffv_spin_token token = ffv_spin_lock(&qp->sq_lock);
	uint64_t position = qp->sq_posted;
	bool fits = position + 1 - ffv_load_acquire(&qp->sq_completed) < qp->max_send_wr;

	for (uint32_t i = 0; fits && i < 2; i++, position++) {
		struct ffv_wqe_shm *wqe = ffv_qp_ref_wqe(&qp->ref, position);
		if (i)
			write_fin(srq, slot, wqe);
		else
			write_read(qp, srq, slot, wqe);
		wqe->flags = (uint8_t)(FFV_WQE_RENDEZVOUS | (i ? FFV_SEND_INLINE | FFV_SEND_FENCE : 0));
		wqe->error = 0;
		wqe->imm_be = srq->tm->order_of[slot];
		wqe->xrc_srqn = slot;
	}
	if (fits) {
		qp->sq_posted = position;
		ffv_store_release(&qp->ref.shm->sq_tail, position); /* [sq-post] as in ffv_post_send */
	}
	ffv_spin_unlock(&qp->sq_lock, token);
	return fits;
}

/* Takes the tag over from the sender that matched it; true if this call did. */
static bool begin(struct ffv_tm *tm, uint32_t slot)
{
	ffv_spin_token token = ffv_spin_lock(&tm->lock);
	bool mine = FFV_TAG_IS(ffv_load_acquire(&tm->tags[slot].state), FFV_TAG_RENDEZVOUS) &&
		    tm->state[slot] == FFV_TM_POSTED;

	if (mine)
		tm->state[slot] = FFV_TM_FETCHING;
	ffv_spin_unlock(&tm->lock, token);
	return mine;
}

/* The queue pair is not ready, or its send queue is full: later. */
static void put_back(struct ffv_context *ctx, struct ffv_tm *tm, uint32_t slot)
{
	ffv_spin_token token = ffv_spin_lock(&tm->lock);

	tm->state[slot] = FFV_TM_POSTED;
	ffv_spin_unlock(&tm->lock, token);
	ctx->retry_srq = true;
}

void ffv_tm_fetch(struct ffv_context *ctx, struct ffv_srq *srq)
{
	struct ffv_tm *tm = srq->tm;

	for (uint32_t slot = 0; slot < tm->num_tags; slot++) {
		uint32_t qpn = ffv_word_load(&tm->tags[slot].qpn);
		struct ffv_qp *qp = qpn / FFV_QPN_BLOCK == ctx->block ? ffv_context_qp(ctx, qpn % FFV_QPN_BLOCK) : NULL;
		if (!qp || qp->srq != srq || !begin(tm, slot))
			continue;
		uint32_t state = ffv_load_acquire(&qp->ref.shm->state);
		if (state == FFV_QPS_ERR || state == FFV_QPS_RESET)
			give_up(qp, slot, FFV_WC_TM_RNDV_INCOMPLETE);
		else if (state >= FFV_QPS_RTS && post(qp, srq, slot))
			ffv_qp_run(qp);
		else
			put_back(ctx, tm, slot);
	}
}

void ffv_tm_leave(struct ffv_qp *qp)
{
	struct ffv_tm *tm = qp->srq ? qp->srq->tm : NULL;

	for (uint32_t slot = 0; tm && slot < tm->num_tags; slot++) {
		uint64_t state = ffv_load_acquire(&tm->tags[slot].state);
		if (ffv_word_load(&tm->tags[slot].qpn) != qp->ref.qpn)
			continue;
		if (FFV_TAG_IS(state, FFV_TAG_TAKEN) && !ffv_cq_reports_tag(qp->recv_cq, qp->srq, slot))
			give_up(qp, slot, FFV_WC_WR_FLUSH_ERR);
		else if (FFV_TAG_IS(state, FFV_TAG_RENDEZVOUS) && !ffv_cq_reports_tag(qp->recv_cq, qp->srq, slot))
			give_up(qp, slot, FFV_WC_TM_RNDV_INCOMPLETE);
	}
}

void ffv_tm_repair(struct ffv_qp *qp, const struct ffv_qp_shm *dead)
{
	struct ffv_tm *tm = qp->srq ? qp->srq->tm : NULL;
	uint32_t slot = dead->tag_slot;
	uint64_t order = FFV_TAG_ORDER(dead->tag_state);

	if (!tm)
		return;
	/* It may have handed a rendezvous over without saying so: looked at when the queue pair is in error. */
	ffv_context_attention(qp->ctx, &qp->ctx->view, FFV_ATTENTION_SRQ + qp->srq->id);
	if (dead->tag_counted != FFV_TAKEN_NOT) {
		ffv_spin_token token = ffv_spin_lock(&tm->lock);
		tm->in_doubt = true;
		ffv_spin_unlock(&tm->lock, token);
	}
	if (dead->tag_taken == FFV_TAKEN_NOT || slot >= tm->num_tags)
		return;
	if (ffv_load_acquire(&tm->tags[slot].state) == FFV_TAG_STATE(order, FFV_TAG_TAKEN) &&
	    !ffv_cq_reports_tag(qp->recv_cq, qp->srq, slot))
		give_up(qp, slot, FFV_WC_WR_FLUSH_ERR);
}

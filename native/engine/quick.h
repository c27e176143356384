/* SPDX-License-Identifier: MIT
 *
 * The executor's common cases in one piece: a SEND or WRITE of a connected queue pair, from one place that this process
 * reaches into one place that it reaches. Nothing but success comes out of here: whatever is out of the ordinary goes
 * through the chain of checks (exec.c), from its beginning. Part of exec.c; fast path, with its rules.
 *
 * Budget: one CAS for each completion, no function call but memcpy; tests/budget counts the instructions.
 */
#ifndef FFV_ENGINE_QUICK_H
#define FFV_ENGINE_QUICK_H

#include "engine/run.h"

/* True if messages between these two may be of the common cases, as far as the queue pairs decide. */
static inline bool quick_suits(const struct ffv_qp_ref *req, const struct ffv_qp_ref *resp)
{
	return req->type <= FFV_QPT_UC && resp && !resp->rq.shared_takers;
}

/* Nothing but the work request itself is to be looked at. */
static inline bool quick_is_usual(const struct ffv_qp_shm *qp, const struct ffv_qp_shm *peer, const struct ffv_wqe_shm *wqe,
				  uint32_t length)
{
	uint8_t opcode = wqe->opcode;

	return (opcode == FFV_WR_RDMA_WRITE || opcode == FFV_WR_SEND || opcode == FFV_WR_SEND_WITH_IMM) &&
	       ffv_load_relaxed(&qp->state) == FFV_QPS_RTS && !ffv_load_relaxed(&qp->rate_kbps) &&
	       !ffv_load_relaxed(&qp->counted) && !ffv_load_relaxed(&peer->counted) && !ffv_load_relaxed(&qp->blocked) &&
	       !qp->blocked_first && !qp->staged_bytes && !qp->progress_bytes && length && length <= FFV_MAX_MESSAGE &&
	       !(wqe->flags & FFV_WQE_RENDEZVOUS);
}

/* Where the message stands, NULL if that is not one place here. */
__attribute__((always_inline))
static inline const uint8_t *quick_source(const struct ffv_qp_ref *req, const struct ffv_wqe_shm *wqe, uint32_t length)
{
	struct ffv_segment segment;

	if (wqe->flags & FFV_SEND_INLINE)
		return length <= req->sq_stride_bytes - offsetof(struct ffv_wqe_shm, sge) ? (const uint8_t *)wqe->sge : NULL;
	struct ffv_sge_shm sge = wqe->sge[0];
	if (ffv_unlikely(wqe->num_sge != 1 || sge.length != length ||
			 !ffv_key_resolve(req->view, sge.lkey, req->pd, 0, sge.addr, length, 0, &segment)))
		return NULL;
	return ffv_segment_address(req->view, &segment, 0, length);
}

/* Where the receive work request at `head` takes it, NULL if there is none or that is not one place here. */
__attribute__((always_inline))
static inline uint8_t *quick_receive(const struct ffv_qp_ref *resp, uint64_t head, uint32_t length)
{
	const struct ffv_rq_ref *rq = &resp->rq;
	struct ffv_segment segment;

	if (ffv_unlikely(!ffv_rq_has_entry(rq, head)))
		return NULL;
	struct ffv_sge_shm sge = *ffv_rq_ref_entry(rq, head);
	if (ffv_unlikely(sge.addr >= FFV_SGE_VOID || sge.length < length ||
			 !ffv_key_resolve(resp->view, sge.lkey, resp->pd, 0, sge.addr, length, FFV_ACCESS_LOCAL_WRITE, &segment)))
		return NULL;
	return ffv_segment_address(resp->view, &segment, 0, length);
}

/* Where a WRITE goes, NULL if it may not or that is not one place here. */
__attribute__((always_inline))
static inline uint8_t *quick_target(const struct ffv_qp_ref *resp, const struct ffv_wqe_shm *wqe, uint32_t length)
{
	struct ffv_segment segment;

	if (ffv_unlikely(!(ffv_load_relaxed(&resp->shm->access) & FFV_ACCESS_REMOTE_WRITE) ||
			 !ffv_key_resolve(resp->view, wqe->rdma.rkey, resp->pd, resp->qpn, wqe->rdma.remote_addr, length,
					  FFV_ACCESS_REMOTE_WRITE, &segment)))
		return NULL;
	return ffv_segment_address(resp->view, &segment, 0, length);
}

/* One message alone (run NULL) claims one position, or none; a run may do more for it. */
static inline bool quick_claim(struct run *run, const struct ffv_exec_env *env, struct ffv_claim *claim,
			       struct ffv_view *view, bool receive)
{
	return run ? ffv_run_claim(run, claim, view, receive) : ffv_cq_claim_one(claim, view, ffv_run_journal(env, view));
}

enum quick {
	QUICK_NOT = 0,                /* nothing is done */
	QUICK_DONE,                   /* all but for its place in the queue */
	QUICK_SENT,                   /* the sender's completion is to be written yet */
};

/* Does the work request and completes it at both sides. Inlined twice, so that for one message alone all of it stays in
 * registers. */
__attribute__((always_inline))
static inline enum quick quick_message(struct run *run, const struct ffv_exec_env *env, const struct ffv_qp_ref *req,
				       const struct ffv_qp_ref *resp, uint64_t position, uint32_t length,
				       struct ffv_claim *send_claim, struct ffv_claim *recv_claim)
{
	const struct ffv_wqe_shm *wqe = ffv_qp_ref_wqe(req, position);
	const struct ffv_rq_ref *rq = &resp->rq;
	uint8_t opcode = wqe->opcode, flags = wqe->flags;
	bool is_write = opcode == FFV_WR_RDMA_WRITE;
	uint64_t head = ffv_load_relaxed(&rq->shm->head);

	const uint8_t *from = quick_source(req, wqe, length);
	if (ffv_unlikely(!from))
		return QUICK_NOT;
	uint8_t *to = is_write ? quick_target(resp, wqe, length) : quick_receive(resp, head, length);
	/* Claimed first: the claim's locked operation would else wait for the payload's lines. */
	if (ffv_unlikely(!to || (!is_write && !quick_claim(run, env, recv_claim, resp->view, true))))
		return QUICK_NOT;
	FFV_FAULT(exec_before_copy);
	ffv_copy_message(to, from, length);
	if (!is_write) {
		FFV_FAULT(exec_after_copy);
		ffv_cqe_fill(ffv_cq_entry(recv_claim), resp->qpn | FFV_CQE_RECV, head, length, wqe->imm_be, FFV_WC_RECV,
			     opcode == FFV_WR_SEND ? 0 : FFV_WC_WITH_IMM);
		ffv_cq_entry_ext(recv_claim);
		FFV_FAULT(exec_cq_written);
		ffv_cq_publish(recv_claim);
		FFV_FAULT(exec_cq_published);
		ffv_rq_advance(rq, head);
	}
	if (!(flags & FFV_SEND_SIGNALED))
		return QUICK_DONE;
	if (ffv_unlikely(!quick_claim(run, env, send_claim, req->view, false)))
		return QUICK_SENT;
	ffv_cqe_fill(ffv_cq_entry(send_claim), req->qpn, position, length, 0, is_write ? FFV_WC_RDMA_WRITE : FFV_WC_SEND, 0);
	ffv_cq_entry_ext(send_claim);
	ffv_cq_publish(send_claim);
	return QUICK_DONE;
}

/* The next of a run's work requests. False: nothing is done. */
static inline bool quick(struct run *run)
{
	const struct ffv_wqe_shm *wqe = ffv_qp_ref_wqe(run->req, run->position);
	uint32_t length = run->length = wqe->length_bytes;

	if (ffv_unlikely(!quick_is_usual(run->req->shm, run->resp->shm, wqe, length) || !is_still_ready(run)))
		return false;
	enum quick done = quick_message(run, run->env, run->req, run->resp, run->position, length, &run->send_claim,
					&run->recv_claim);
	if (ffv_unlikely(done == QUICK_SENT))
		ffv_exec_set_error(run->req->shm, FFV_WC_FATAL_ERR); /* its completion queue overran */
	return done != QUICK_NOT;
}

/* The only work request that waits, without a run. Queue locked. */
__attribute__((always_inline))
static inline enum quick quick_alone(const struct ffv_exec_env *env, const struct ffv_qp_ref *req,
				     const struct ffv_qp_ref *resp)
{
	struct ffv_qp_shm *qp = req->shm;
	uint64_t position = ffv_load_relaxed(&qp->sq_exec);
	struct ffv_claim send_claim, recv_claim;

	/* [sq-post] as in run_locked. */
	if (ffv_unlikely(ffv_load_acquire(&qp->sq_tail) != position + 1 || !quick_suits(req, resp)))
		return QUICK_NOT;
	const struct ffv_wqe_shm *wqe = ffv_qp_ref_wqe(req, position);
	uint32_t length = wqe->length_bytes;
	if (ffv_unlikely(!quick_is_usual(qp, resp->shm, wqe, length) || !ffv_qp_ref_is_current(req) ||
			 !is_ready_to_receive(req, resp)))
		return QUICK_NOT;
	ffv_claim_init(&send_claim, &req->send_cq);
	ffv_claim_init(&recv_claim, &resp->recv_cq);
	enum quick done = quick_message(NULL, env, req, resp, position, length, &send_claim, &recv_claim);
	if (ffv_likely(done == QUICK_DONE)) {
		FFV_FAULT(exec_before_advance);
		ffv_store_relaxed(&qp->sq_exec, position + 1);
		count(&qp->messages_sent, 1);
		count(&qp->bytes_sent, length);
	}
	return done;
}

#endif

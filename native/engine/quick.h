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

/* True if this run's messages may be of the common cases, as far as its queue pairs decide. */
static inline bool quick_suits(const struct run *run)
{
	return run->req->type <= FFV_QPT_UC && run->resp && !run->resp->rq.shared_takers;
}

/* Where the message stands, NULL if that is not one place here. */
static inline const uint8_t *quick_source(const struct run *run, const struct ffv_wqe_shm *wqe, uint32_t length)
{
	const struct ffv_qp_ref *req = run->req;
	struct ffv_segment segment;

	if (wqe->flags & FFV_SEND_INLINE)
		return length <= req->sq_stride_bytes - offsetof(struct ffv_wqe_shm, sge) ? (const uint8_t *)wqe->sge : NULL;
	struct ffv_sge_shm sge = wqe->sge[0];
	if (ffv_unlikely(wqe->num_sge != 1 || sge.length != length ||
			 !ffv_key_resolve(req->view, sge.lkey, req->pd, 0, sge.addr, length, 0, &segment)))
		return NULL;
	return ffv_segment_address(req->view, &segment, 0, length);
}

static inline void quick_copy(uint8_t *to, const uint8_t *from, uint32_t length)
{
	FFV_FAULT(exec_before_copy);
	ffv_copy_message(to, from, length);
}

static inline bool quick_send(struct run *run, const struct ffv_wqe_shm *wqe, const uint8_t *from, uint32_t length)
{
	struct ffv_qp_ref *resp = run->resp;
	const struct ffv_rq_ref *rq = &resp->rq;
	struct ffv_segment segment;
	uint64_t head = ffv_load_relaxed(&rq->shm->head);

	if (ffv_unlikely(!ffv_rq_has_entry(rq, head)))
		return false;
	struct ffv_sge_shm sge = *ffv_rq_ref_entry(rq, head);
	if (ffv_unlikely(sge.addr >= FFV_SGE_VOID || sge.length < length ||
			 !ffv_key_resolve(resp->view, sge.lkey, resp->pd, 0, sge.addr, length, FFV_ACCESS_LOCAL_WRITE, &segment)))
		return false;
	uint8_t *to = ffv_segment_address(resp->view, &segment, 0, length);
	if (ffv_unlikely(!to))
		return false;
	/* Claimed first: the claim's locked operation would else wait for the payload's lines. */
	if (ffv_unlikely(!ffv_run_claim(run, &run->recv_claim, resp->view, true)))
		return false;
	quick_copy(to, from, length);
	FFV_FAULT(exec_after_copy);
	ffv_cqe_fill(ffv_cq_entry(&run->recv_claim), resp->qpn | FFV_CQE_RECV, head, length, wqe->imm_be, FFV_WC_RECV,
		     wqe->opcode == FFV_WR_SEND ? 0 : FFV_WC_WITH_IMM);
	ffv_cq_entry_ext(&run->recv_claim);
	FFV_FAULT(exec_cq_written);
	ffv_cq_publish(&run->recv_claim);
	FFV_FAULT(exec_cq_published);
	ffv_rq_advance(rq, head);
	return true;
}

static inline bool quick_write(struct run *run, const struct ffv_wqe_shm *wqe, const uint8_t *from, uint32_t length)
{
	struct ffv_qp_ref *resp = run->resp;
	struct ffv_segment segment;

	if (ffv_unlikely(!(ffv_load_relaxed(&resp->shm->access) & FFV_ACCESS_REMOTE_WRITE) ||
			 !ffv_key_resolve(resp->view, wqe->rdma.rkey, resp->pd, resp->qpn, wqe->rdma.remote_addr, length,
					  FFV_ACCESS_REMOTE_WRITE, &segment)))
		return false;
	uint8_t *to = ffv_segment_address(resp->view, &segment, 0, length);
	if (ffv_unlikely(!to))
		return false;
	quick_copy(to, from, length);
	return true;
}

/* Does the work request and completes it at both sides, all but for its place in the queue. False: nothing is done. */
static inline bool quick(struct run *run, const struct ffv_wqe_shm *wqe)
{
	const struct ffv_qp_shm *qp = run->req->shm, *peer = run->resp->shm;
	uint32_t length = run->length = wqe->length_bytes;
	uint8_t opcode = wqe->opcode, flags = wqe->flags;
	bool is_write = opcode == FFV_WR_RDMA_WRITE;

	if (ffv_unlikely(ffv_load_relaxed(&qp->state) != FFV_QPS_RTS || ffv_load_relaxed(&qp->rate_kbps) ||
			 ffv_load_relaxed(&qp->counted) || ffv_load_relaxed(&peer->counted) ||
			 ffv_load_relaxed(&qp->blocked) || qp->blocked_first || qp->staged_bytes || qp->progress_bytes ||
			 !length || length > FFV_MAX_MESSAGE || flags & FFV_WQE_RENDEZVOUS || !is_still_ready(run)))
		return false;
	if (ffv_unlikely(!is_write && opcode != FFV_WR_SEND && opcode != FFV_WR_SEND_WITH_IMM))
		return false;
	const uint8_t *from = quick_source(run, wqe, length);
	if (ffv_unlikely(!from || !(is_write ? quick_write(run, wqe, from, length) : quick_send(run, wqe, from, length))))
		return false;
	if (!(flags & FFV_SEND_SIGNALED))
		return true;
	if (ffv_unlikely(!ffv_run_claim(run, &run->send_claim, run->req->view, false))) {
		ffv_exec_set_error(run->req->shm, FFV_WC_FATAL_ERR);
		return true;
	}
	ffv_cqe_fill(ffv_cq_entry(&run->send_claim), run->req->qpn, run->position, length, 0,
		     is_write ? FFV_WC_RDMA_WRITE : FFV_WC_SEND, 0);
	ffv_cq_entry_ext(&run->send_claim);
	ffv_cq_publish(&run->send_claim);
	return true;
}

#endif

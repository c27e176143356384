/* SPDX-License-Identifier: MIT
 *
 * The executor's completions. Fast path: no system call, no allocation, no log; one CAS for a batch of entries.
 */
#include <string.h>

#include "engine/run.h"

#define CLAIM_BATCH 16u

static void owe_signal(struct run *run, struct ffv_claim *claim, struct ffv_view *view)
{
	claim->signal = false;
	for (uint32_t i = 0; i < run->num_signals; i++)
		if (run->signals[i].view == view && run->signals[i].cq == claim->cq->id)
			return;
	if (run->num_signals < FFV_RUN_SIGNALS)
		run->signals[run->num_signals++] = (struct signal){ view, claim->cq->id };
	else
		run->env->face->signal(run->env->arg, view, claim->cq->id);
}

static void overrun(struct run *run, struct ffv_view *view, const struct ffv_cq_ref *cq)
{
	run->env->face->attention(run->env->arg, view, FFV_ATTENTION_CQ + cq->id % FFV_MAX_CQ);
}

/* How many of the next work requests, this one included, will need an entry; whether one of them is solicited. */
static unsigned count_ahead(const struct run *run, bool receive, bool *solicited)
{
	unsigned n = 0;

	*solicited = false;
	for (uint64_t p = run->position; p != run->tail && n < CLAIM_BATCH; p++) {
		const struct ffv_wqe_shm *wqe = ffv_qp_ref_wqe(run->req, p);
		if (receive ? !takes_receive(wqe->opcode) : !(wqe->flags & FFV_SEND_SIGNALED))
			break;
		*solicited |= receive && wqe->flags & FFV_SEND_SOLICITED;
		n++;
	}
	return n ? n : 1;
}

bool ffv_run_claim_more(struct run *run, struct ffv_claim *claim, struct ffv_view *view, bool receive)
{
	bool solicited;
	unsigned want = 1;

	if (ffv_likely(run->position + 1 == run->tail || (receive && run->resp == &run->found) /* the next may go elsewhere */ ||
		       (run->peer && run->peer->view->proxy))) /* or is not answered yet */
		solicited = receive && ffv_qp_ref_wqe(run->req, run->position)->flags & FFV_SEND_SOLICITED;
	else
		want = count_ahead(run, receive, &solicited);
	if (!ffv_cq_claim(claim, view, want, solicited, ffv_run_journal(run->env, view))) {
		overrun(run, view, claim->cq);
		return false;
	}
	return true;
}

void ffv_run_end_claim(struct run *run, struct ffv_claim *claim, struct ffv_view *view)
{
	ffv_cq_abandon(claim);
	if (claim->signal)
		owe_signal(run, claim, view);
}

static const uint8_t send_opcodes[] = {
	[FFV_WR_RDMA_WRITE] = FFV_WC_RDMA_WRITE, [FFV_WR_RDMA_WRITE_WITH_IMM] = FFV_WC_RDMA_WRITE,
	[FFV_WR_SEND] = FFV_WC_SEND, [FFV_WR_SEND_WITH_IMM] = FFV_WC_SEND, [FFV_WR_SEND_WITH_INV] = FFV_WC_SEND,
	[FFV_WR_RDMA_READ] = FFV_WC_RDMA_READ, [FFV_WR_ATOMIC_CMP_AND_SWP] = FFV_WC_COMP_SWAP,
	[FFV_WR_ATOMIC_FETCH_AND_ADD] = FFV_WC_FETCH_ADD, [FFV_WR_LOCAL_INV] = FFV_WC_LOCAL_INV,
	[FFV_WR_BIND_MW] = FFV_WC_BIND_MW, [FFV_WR_FLUSH] = FFV_WC_FLUSH, [FFV_WR_ATOMIC_WRITE] = FFV_WC_ATOMIC_WRITE,
};

void ffv_run_complete_send(struct run *run, const struct ffv_wqe_shm *wqe, uint32_t status)
{
	struct ffv_claim *claim = &run->send_claim;
	uint8_t opcode = wqe->opcode;

	if (status == FFV_WC_SUCCESS && !(wqe->flags & (FFV_SEND_SIGNALED | FFV_WQE_RENDEZVOUS)))
		return;
	if (ffv_unlikely(wqe->flags & FFV_WQE_RENDEZVOUS)) {
		ffv_run_complete_rendezvous(run, wqe, status);
		return;
	}
	if (!ffv_run_claim(run, claim, run->req->view, false)) {
		ffv_exec_set_error(run->req->shm, FFV_WC_FATAL_ERR);
		return;
	}
	struct ffv_cqe_shm *cqe = ffv_cq_entry(claim);
	ffv_cqe_fill(cqe, run->req->qpn, run->position, run->length, 0,
		     opcode < sizeof send_opcodes ? send_opcodes[opcode] : 0, 0);
	cqe->status = (uint8_t)status;
	ffv_cq_entry_ext(claim);
	ffv_cq_publish(claim);
	if (ffv_unlikely(status != FFV_WC_SUCCESS))
		ffv_cq_note_error(claim);
}

/* Whose receive work request it is, where the queue pair does not tell. */
static void name_queue(struct ffv_cqe_shm *cqe, const struct ffv_qp_ref *ref)
{
	if (ref->type != FFV_QPT_XRC_RECV)
		return;
	cqe->flags |= FFV_CQE_SRQ;
	cqe->src_qp = ref->rq.srq_id;
}

static void fill_recv(struct ffv_cqe_shm *cqe, const struct run *run, const struct ffv_wqe_shm *wqe)
{
	uint8_t opcode = wqe->opcode;

	ffv_cqe_fill(cqe, run->resp->qpn | FFV_CQE_RECV, run->rwqe.position, run->length, wqe->imm_be,
		     opcode == FFV_WR_RDMA_WRITE_WITH_IMM ? FFV_WC_RECV_RDMA_WITH_IMM : FFV_WC_RECV,
		     opcode == FFV_WR_SEND_WITH_INV ? FFV_WC_WITH_INV : opcode == FFV_WR_SEND ? 0 : FFV_WC_WITH_IMM);
	if (run->req->type == FFV_QPT_UD) {
		cqe->flags |= FFV_WC_GRH;
		cqe->src_qp = run->req->qpn;
		cqe->byte_len += FFV_GRH_BYTES;
		cqe->sl = (uint8_t)(wqe->ud.sgid_hop >> 24);
	}
	name_queue(cqe, run->resp);
}

bool ffv_run_complete_recv(struct run *run, const struct ffv_wqe_shm *wqe)
{
	struct ffv_claim *claim = &run->recv_claim;

	FFV_FAULT(exec_after_copy);
	if (!ffv_run_claim(run, claim, run->resp->view, true))
		return false;
	fill_recv(ffv_cq_entry(claim), run, wqe);
	struct ffv_cqe_ext_shm *ext = ffv_cq_entry_ext(claim);
	if (ffv_unlikely(run->tagged))
		ffv_run_fill_tagged(run, ffv_cq_entry(claim), ext);
	if (ffv_is_counted(run->resp))
		ffv_count_recv(run->resp, true);
	FFV_FAULT(exec_cq_written);
	ffv_cq_publish(claim);
	FFV_FAULT(exec_cq_published);
	if (ffv_unlikely(run->tagged))
		ffv_run_forget_tagged(run);
	else if (run->resp->rq.shared_takers)
		ffv_rq_forget(run->req->shm);
	else
		ffv_rq_advance(&run->resp->rq, run->rwqe.position);
	run->have_rwqe = false;
	return true;
}

bool ffv_exec_claim_recv(const struct ffv_exec_env *env, const struct ffv_qp_ref *ref, struct ffv_claim *claim)
{
	if (claim->next == claim->end)
		claim->cq = &ref->recv_cq;
	if (claim->next == claim->end &&
	    !ffv_cq_claim(claim, ref->view, 1, true, ffv_run_journal(env, ref->view))) {
		env->face->attention(env->arg, ref->view, FFV_ATTENTION_CQ + ref->recv_cq.id % FFV_MAX_CQ);
		return false;
	}
	return true;
}

bool ffv_exec_complete_recv(const struct ffv_exec_env *env, const struct ffv_qp_ref *ref, uint64_t position,
			    uint32_t status, struct ffv_claim *claim)
{
	if (!ffv_exec_claim_recv(env, ref, claim))
		return false;
	struct ffv_cqe_shm *cqe = ffv_cq_entry(claim);
	memset((char *)cqe + sizeof cqe->sequence, 0, sizeof *cqe - sizeof cqe->sequence);
	cqe->qpn_side = ref->qpn | FFV_CQE_RECV;
	cqe->wqe_position = (uint32_t)position;
	cqe->status = (uint8_t)status;
	cqe->opcode = FFV_WC_RECV;
	name_queue(cqe, ref);
	ffv_cq_entry_ext(claim);
	if (ref->shm && ffv_is_counted(ref)) /* after a death, a shared queue's completion is of no queue pair of ours */
		ffv_count_recv(ref, false);
	ffv_cq_publish(claim);
	ffv_cq_note_error(claim);
	return true;
}

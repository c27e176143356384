/* SPDX-License-Identifier: MIT
 *
 * Receiving what came to the port of this process's own context, on one of its queue pairs: takes a receive work
 * request, scatters, completes. The sender is elsewhere and not waited for, so nothing here can be in anybody's way.
 */
#include "engine/run.h"

struct delivery {
	struct run run;
	struct ffv_qp_ref taker;      /* stands for the sender, who is not one of ours: what it takes dies with us */
	struct ffv_qp_shm taker_shm;
};

static enum verdict receive(struct run *run, const struct ffv_arrival *arrival)
{
	uint32_t header_bytes = arrival->grh ? FFV_GRH_BYTES : 0;
	struct ffv_list from = { .num_segments = 1 };
	enum verdict verdict = ffv_run_take_receive(run);

	if (verdict == OK)
		verdict = ffv_run_scatter(run, (uint64_t)arrival->length_bytes + header_bytes);
	if (verdict != OK)
		return verdict;
	if (header_bytes) {
		from.segment[0] = (struct ffv_segment){ .va = (uintptr_t)arrival->grh, .length_bytes = header_bytes };
		if (ffv_copy_lists(&run->remote, 0, &from, 0, header_bytes) != FFV_COPY_DONE)
			return RECEIVE_PROTECTION;
	}
	from.segment[0] = (struct ffv_segment){ .va = (uintptr_t)arrival->bytes, .length_bytes = arrival->length_bytes };
	if (arrival->length_bytes &&
	    ffv_copy_lists(&run->remote, header_bytes, &from, 0, arrival->length_bytes) != FFV_COPY_DONE)
		return RECEIVE_PROTECTION;
	return OK;
}

static bool complete(struct run *run, const struct ffv_arrival *arrival)
{
	struct ffv_claim *claim = &run->recv_claim;

	if (!ffv_cq_claim(claim, run->resp->view, 1, arrival->solicited, NULL))
		return false;
	struct ffv_cqe_shm *cqe = ffv_cq_entry(claim);
	cqe->qpn_side = run->resp->qpn | FFV_CQE_RECV;
	cqe->wqe_position = (uint32_t)run->rwqe.position;
	cqe->byte_len = arrival->length_bytes + (arrival->grh ? FFV_GRH_BYTES : 0);
	cqe->imm_be = arrival->imm_be;
	cqe->src_qp = arrival->src_qp;
	cqe->status = FFV_WC_SUCCESS;
	cqe->opcode = FFV_WC_RECV;
	cqe->flags = arrival->wc_flags;
	cqe->sl = arrival->sl;
	cqe->vendor_err = 0;
	ffv_cq_entry_ext(claim);
	if (ffv_is_counted(run->resp))
		ffv_count_recv(run->resp, true);
	ffv_cq_publish(claim);
	return true;
}

/* True if the work request was taken, whatever came of it. */
static bool deliver(struct run *run, const struct ffv_arrival *arrival)
{
	struct ffv_qp_ref *to = run->resp;
	bool failed = false;
	uint32_t status;
	enum verdict verdict = receive(run, arrival);

	if (verdict == NO_RECEIVE)
		return false;
	if (verdict != OK) {
		status = ffv_run_meanings[verdict].responder;
		failed = ffv_exec_set_error(to->shm, status); /* first: who sees the completion finds the state */
		ffv_exec_complete_recv(run->env, to, run->rwqe.position, status, &run->recv_claim);
	} else if (!complete(run, arrival)) {
		status = FFV_WC_FATAL_ERR; /* its completion queue overran */
		failed = ffv_exec_set_error(to->shm, status);
		run->env->face->attention(run->env->arg, to->view, FFV_ATTENTION_CQ + to->recv_cq.id % FFV_MAX_CQ);
	}
	if (!to->rq.shared_takers)
		ffv_rq_advance(&to->rq, run->rwqe.position);
	if (failed) {
		ffv_fetch_or(&to->shm->events, 1u << FFV_EVENT_WQ_FATAL); /* which is one of work queues only */
		ffv_run_attention_qp(run, to);
	}
	return true;
}

bool ffv_exec_deliver(const struct ffv_exec_env *env, struct ffv_qp_ref *to, const struct ffv_arrival *arrival)
{
	struct delivery delivery;
	struct run *run = &delivery.run;
	uint64_t party = FFV_PARTY(to->view->context_id, to->qpn);

	run->env = env;
	run->req = &delivery.taker;
	run->resp = to;
	run->have_rwqe = false;
	run->tagged = TAGGED_NOT;
	ffv_claim_init(&run->recv_claim, &to->recv_cq);
	delivery.taker.shm = &delivery.taker_shm;
	delivery.taker_shm.rq_taken = FFV_TAKEN_NOT;
	ffv_store_relaxed(&env->thread->requester, party);
	ffv_store_relaxed(&env->thread->responder, party);
	ffv_exec_enter(env->thread);
	/* [exec-epoch] the mark before the state, keys and queues that are read. */
	ffv_fence_store_load();
	uint32_t state = ffv_load_acquire(&to->shm->state);
	bool taken = ffv_qp_ref_is_current(to) && state >= FFV_QPS_RTR && state <= FFV_QPS_SQE && deliver(run, arrival);
	if (run->recv_claim.signal)
		env->face->signal(env->arg, to->view, to->recv_cq.id);
	ffv_exec_leave(env->thread);
	return taken;
}

/* SPDX-License-Identifier: MIT
 *
 * How a work request ends, or why it waits: the meaning of verdicts, states, events, retry counters and timers.
 */
#include "engine/run.h"

#include "base/clock.h"

const struct meaning ffv_run_meanings[] = {
	[FLUSHED] = { FFV_WC_WR_FLUSH_ERR, 0, -1 },
	[LOCAL_LENGTH] = { FFV_WC_LOC_LEN_ERR, 0, -1 },
	[LOCAL_PROTECTION] = { FFV_WC_LOC_PROT_ERR, 0, -1 },
	[LOCAL_OPERATION] = { FFV_WC_LOC_QP_OP_ERR, 0, -1 },
	[BIND_FAILED] = { FFV_WC_MW_BIND_ERR, 0, -1 },
	[REMOTE_ACCESS] = { FFV_WC_REM_ACCESS_ERR, 0, FFV_EVENT_QP_ACCESS_ERR },
	[REMOTE_INVALID] = { FFV_WC_REM_INV_REQ_ERR, 0, FFV_EVENT_QP_REQ_ERR },
	[RECEIVE_LENGTH] = { FFV_WC_REM_INV_REQ_ERR, FFV_WC_LOC_LEN_ERR, -1 },
	[RECEIVE_PROTECTION] = { FFV_WC_REM_OP_ERR, FFV_WC_LOC_PROT_ERR, -1 },
	[REMOTE_INVALIDATE] = { FFV_WC_REM_ACCESS_ERR, FFV_WC_LOC_QP_OP_ERR, -1 },
	[RNR_EXCEEDED] = { FFV_WC_RNR_RETRY_EXC_ERR, 0, -1 },
	[RETRY_EXCEEDED] = { FFV_WC_RETRY_EXC_ERR, 0, -1 },
};

bool ffv_exec_set_error(struct ffv_qp_shm *qp, uint32_t status)
{
	uint32_t state = ffv_load_relaxed(&qp->state);
	uint32_t none = 0;

	do {
		if (state == FFV_QPS_ERR || state == FFV_QPS_RESET)
			return false;
	} while (!ffv_cas(&qp->state, &state, (uint32_t)FFV_QPS_ERR));
	ffv_cas(&qp->last_status, &none, status);
	return true;
}

uint64_t ffv_exec_rnr_ns(uint8_t code)
{
	/* In units of 10 us; code 0 is the longest. */
	static const uint16_t units[32] = { 65535, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384,
					    512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576,
					    32768, 49152 };

	return units[code & 31] * 10000ull;
}

/* A receive entry that a work request had taken from a queue of several takers, and does not use, goes back as flushed;
 * to: the QP that it was for, NULL if that is gone (and its queue with it, or its completions would be nobody's; those of
 * XRC are their queue's). */
void ffv_run_flush_taken(struct run *run, const struct ffv_qp_ref *to)
{
	struct ffv_qp_shm *qp = run->req->shm;
	struct ffv_claim claim = { .next = 0, .end = 0 };

	if (qp->rq_taken != FFV_TAKEN_YES)
		return;
	if (to && (to->type == FFV_QPT_XRC_RECV || ffv_qp_ref_is_current(to))) {
		ffv_exec_complete_recv(run->env, to, qp->taken_position, FFV_WC_WR_FLUSH_ERR, &claim);
		ffv_run_finish_claim(run, &claim, to->view);
	}
	ffv_rq_forget(qp);
}

/* The responder's part in a failure: its receive work request, its state, its event. */
static void fail_responder(struct run *run, const struct meaning *meaning)
{
	struct ffv_qp_ref *resp = run->resp;

	/* First: who sees the completion finds the state. The receives behind it are flushed after this execution. */
	bool failed = ffv_exec_set_error(resp->shm, meaning->responder ? meaning->responder : FFV_WC_REM_ABORT_ERR);

	if (meaning->responder && run->have_rwqe && !(run->tagged && ffv_run_fail_tag(run, meaning->responder))) {
		ffv_exec_complete_recv(run->env, resp, run->rwqe.position, meaning->responder, &run->recv_claim);
		if (resp->rq.shared_takers)
			ffv_rq_forget(run->req->shm);
		else
			ffv_rq_advance(&resp->rq, run->rwqe.position);
		run->have_rwqe = false;
	}
	if (meaning->event >= 0)
		ffv_fetch_or(&resp->shm->events, 1u << meaning->event);
	if (failed || meaning->event >= 0)
		ffv_run_attention_qp(run, run->peer ? run->peer : resp); /* XRC: the queue may be another context's */
}

static bool involves_responder(enum verdict verdict)
{
	return verdict >= REMOTE_ACCESS && verdict <= REMOTE_INVALIDATE;
}

/* An unreliable responder drops what it may not carry out, and stays as it is; what is wrong with its own receive work
 * request is its own error (IBA 9.9.3, classes D and A). */
static bool is_dropped(const struct run *run, enum verdict verdict)
{
	return !is_reliable(run) && (verdict == REMOTE_ACCESS || verdict == REMOTE_INVALID);
}

void ffv_run_end(struct run *run, const struct ffv_wqe_shm *wqe, enum verdict verdict)
{
	struct ffv_qp_shm *qp = run->req->shm;
	uint32_t status = FFV_WC_SUCCESS;

	if (ffv_unlikely(verdict == FLUSHED) && (qp->tag_taken || qp->tag_counted))
		ffv_run_flush_tagged(run, run->peer);
	if (ffv_unlikely(verdict == FLUSHED) && qp->rq_taken == FFV_TAKEN_YES) {
		bool found = is_xrc(run) ? ffv_run_find_srq(run, wqe)
					 : !is_connected(run) &&
						   run->env->face->find(run->env->arg, run->req, &wqe->ud, &run->found) &&
						   run->found.shm;
		ffv_run_flush_taken(run, found ? &run->found : is_xrc(run) ? NULL : run->peer);
	}
	if (ffv_unlikely(verdict != OK)) {
		const struct meaning *meaning = &ffv_run_meanings[verdict];
		status = meaning->requester;
		/* A proxy's real responder failed far away. */
		if (involves_responder(verdict) && run->resp && !run->resp->view->proxy && !is_dropped(run, verdict))
			fail_responder(run, meaning);
		if (!is_reliable(run) && involves_responder(verdict))
			status = FFV_WC_SUCCESS; /* nobody tells an unreliable sender */
	}
	if (ffv_unlikely(status != FFV_WC_SUCCESS && verdict != FLUSHED)) {
		uint32_t none = 0, rts = FFV_QPS_RTS;
		ffv_cas(&qp->last_status, &none, status);
		if (is_reliable(run) || run->req->type == FFV_QPT_RAW_PACKET)
			ffv_exec_set_error(qp, status);
		else
			ffv_cas(&qp->state, &rts, (uint32_t)FFV_QPS_SQE); /* IBA 10.3.1.6 */
		ffv_run_attention_qp(run, run->req);
	}
	if (ffv_is_counted(run->req) || (run->resp && ffv_is_counted(run->resp)))
		ffv_run_count(run, wqe, status, verdict == OK);
	ffv_run_complete_send(run, wqe, status);
	if (ffv_unlikely(run->tagged == TAGGED_RENDEZVOUS))
		ffv_run_hand_rendezvous(run);
	qp->staged_bytes = 0;
	qp->progress_bytes = 0;
}

void ffv_run_end_drained(struct run *run, const struct ffv_wqe_shm *wqe, enum verdict verdict)
{
	ffv_run_end(run, wqe, verdict);
	/* [sq-drained] after the completion. */
	ffv_store_release(&run->req->shm->draining, (uint8_t)0);
	ffv_run_attention_qp(run, run->req);
}

/* Who posts a receive serves who waits. Without a number of tries that could run out, the timer is only there to find a
 * responder that is gone or not ready any more. */
#define UNHURRIED_NS 20000000ull

void ffv_run_wait_until(struct run *run, uint32_t reason, uint64_t deadline_ns)
{
	struct ffv_qp_shm *qp = run->req->shm;

	ffv_store_relaxed(&qp->deadline_ns, deadline_ns);
	/* [timer] Dekker with the owner's service thread, which says when it will look, then looks at this once more. A
	 * queue that waits for one receive after the other would else wake it for every message. */
	ffv_store_seq_cst(&qp->blocked, reason);
	uint64_t timer_ns = ffv_load_seq_cst(&qp->timer_ns);
	if (!timer_ns || timer_ns > deadline_ns)
		ffv_run_attention_qp(run, run->req);
}

/* Sets the timer of a work request that waits, or ends it when its patience is over. */
static enum verdict wait_or_give_up(struct run *run, uint32_t reason, uint8_t *left, uint8_t allowed, uint64_t interval_ns,
				    bool forever, enum verdict give_up)
{
	struct ffv_qp_shm *qp = run->req->shm;
	uint64_t now = ffv_clock_ns();

	if (!qp->blocked_first || ffv_load_relaxed(&qp->blocked) != reason) {
		qp->blocked_first = 1;
		*left = allowed;
		count(reason == FFV_BLOCKED_RNR ? &qp->rnr_waits : &qp->retries, 1);
	} else if (now < ffv_load_relaxed(&qp->deadline_ns)) {
		return HOLD;
	} else {
		count(reason == FFV_BLOCKED_RNR ? &qp->rnr_waits : &qp->retries, 1);
	}
	if (forever && reason == FFV_BLOCKED_RNR && interval_ns < UNHURRIED_NS)
		interval_ns = UNHURRIED_NS;
	if (!forever && *left == 0)
		return give_up;
	if (!forever)
		--*left;
	ffv_run_wait_until(run, reason, forever && reason == FFV_BLOCKED_PEER && !interval_ns ? UINT64_MAX
											  : now + interval_ns);
	return HOLD;
}

/* True if a receive work request came while we were about to wait; else the poster will see the mark and serve us. */
static bool mark_waiting(struct run *run)
{
	const struct ffv_rq_ref *rq = &run->resp->rq;
	/* [rq-wait] Dekker with the poster, who exchanges tail, then reads this mark: it sees the mark, or we see its
	 * work request. */
	ffv_store_seq_cst(&rq->shm->waiter, 1u);
	uint64_t tail = ffv_load_seq_cst(&rq->shm->tail);

	return ffv_run_receive_waits(run, tail);
}

enum verdict ffv_run_stand_still(struct run *run, enum verdict verdict)
{
	struct ffv_qp_shm *qp = run->req->shm;
	uint32_t timeout = ffv_load_relaxed(&qp->timeout);

	if (qp->rq_taken == FFV_TAKEN_YES && run->have_rwqe && run->tagged != TAGGED_MATCH)
		ffv_run_save_taken(qp, &run->rwqe);
	switch (verdict) {
	case NO_RECEIVE:
		if (!is_reliable(run))
			return OK; /* dropped */
		if (mark_waiting(run))
			return NO_RECEIVE;
		return wait_or_give_up(run, FFV_BLOCKED_RNR, &qp->rnr_left, ffv_load_relaxed(&qp->rnr_retry),
				       ffv_exec_rnr_ns(ffv_load_relaxed(&run->resp->shm->min_rnr_timer)),
				       ffv_load_relaxed(&qp->rnr_retry) == 7, RNR_EXCEEDED);
	case NOT_READY:
		if (!is_reliable(run))
			return OK;
		return wait_or_give_up(run, FFV_BLOCKED_PEER, &qp->retry_left, ffv_load_relaxed(&qp->retry_cnt),
				       timeout ? 4096ull << (timeout & 31) : 0, timeout == 0, RETRY_EXCEEDED);
	case FOR_RESPONDER:
		ffv_store_relaxed(&qp->blocked, FFV_BLOCKED_RESPONDER);
		run->next = run->resp;
		return HOLD;
	case FOR_REQUESTER:
		ffv_store_relaxed(&qp->blocked, FFV_BLOCKED_REQUESTER);
		run->next = run->req;
		return HOLD;
	case MORE:
		ffv_store_relaxed(&qp->blocked, FFV_BLOCKED_STREAM);
		return HOLD;
	case ENDED_FAR_AWAY:
		return OK;
	default:
		return verdict;
	}
}

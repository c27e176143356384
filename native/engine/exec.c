/* SPDX-License-Identifier: MIT
 *
 * See exec.h. Fast path: no system call, no allocation, no log; one CAS for the queue, one for a batch of completions.
 */
#include "engine/quick.h"

/* The chain of checks. */
static enum verdict consider(struct run *run, struct ffv_wqe_shm *wqe, uint32_t state)
{
	if (state == FFV_QPS_ERR || state == FFV_QPS_SQE)
		return ffv_run_is_filled(run, wqe) ? HOLD : FLUSHED;
	if (!is_executing(run->req->shm, state))
		return HOLD;
	if (!is_connected(run))
		return ffv_run_datagram(run, wqe);
	if (wqe->opcode == FFV_WR_LOCAL_INV)
		return ffv_run_local_inv(run, wqe);
	if (wqe->opcode == FFV_WR_BIND_MW)
		return ffv_run_bind_mw(run, wqe);
	if (is_xrc(run))
		return ffv_run_xrc(run, wqe);
	if (!run->resp || !is_still_ready(run))
		return NOT_READY;
	return run->resp->view->proxy ? ffv_run_far_away(run, wqe) : ffv_run_execute(run, wqe);
}

/* One work request, whatever it is. OK = it ended, go on; HOLD = it stays. */
__attribute__((noinline)) static enum verdict step(struct run *run)
{
	struct ffv_qp_shm *qp = run->req->shm;
	struct ffv_wqe_shm *wqe = ffv_qp_ref_wqe(run->req, run->position);
	uint32_t state = ffv_load_relaxed(&qp->state);

	run->length = wqe->length_bytes;
	bool paced = ffv_unlikely(ffv_load_relaxed(&qp->rate_kbps) != 0) && state == FFV_QPS_RTS;
	if (ffv_unlikely(paced) && !ffv_run_may_begin(run))
		return HOLD;
	enum verdict verdict = consider(run, wqe, state);
	if (ffv_unlikely(verdict == HOLD))
		return HOLD;
	if (verdict == OK && takes_receive(wqe->opcode) && is_connected(run) && !ffv_run_complete_recv(run, wqe))
		verdict = REMOTE_INVALID; /* the responder's completion queue overran */
	while (ffv_unlikely(verdict != OK && verdict < FLUSHED)) {
		enum verdict next = ffv_run_stand_still(run, verdict);
		if (next == HOLD)
			return HOLD;
		if (next == NO_RECEIVE)
			return NO_RECEIVE;
		verdict = next;
	}
	if (ffv_unlikely(qp->blocked_first || ffv_load_relaxed(&qp->blocked))) {
		qp->blocked_first = 0;
		ffv_store_relaxed(&qp->blocked, FFV_BLOCKED_NOT);
		ffv_store_relaxed(&qp->deadline_ns, UINT64_MAX);
		if (ffv_load_relaxed(&qp->draining)) {
			ffv_run_end_drained(run, wqe, verdict);
			return OK;
		}
	}
	if (ffv_unlikely(paced))
		ffv_run_pay(run);
	ffv_run_end(run, wqe, verdict);
	return OK;
}

/* What quick_alone left of the first work request. */
static void end_sent(struct run *run)
{
	const struct ffv_wqe_shm *wqe = ffv_qp_ref_wqe(run->req, run->position);

	run->tail = run->position + 1;
	run->length = wqe->length_bytes;
	ffv_run_complete_send(run, wqe, FFV_WC_SUCCESS);
	FFV_FAULT(exec_before_advance);
	ffv_store_relaxed(&run->req->shm->sq_exec, ++run->position);
	count(&run->req->shm->messages_sent, 1);
	count(&run->req->shm->bytes_sent, run->length);
}

/* is_sent: see end_sent. */
static void run_locked(struct run *run, struct ffv_qp_ref *responder, bool is_sent)
{
	struct ffv_qp_shm *qp = run->req->shm;
	uint64_t messages = 0, bytes = 0;

	run->resp = run->peer = is_connected(run) ? responder : NULL;
	run->have_rwqe = run->stream = false;
	run->tagged = TAGGED_NOT;

	if (run->resp && !is_ready_to_receive(run->req, run->resp))
		run->resp = NULL;
	if (is_xrc(run))
		run->resp = NULL; /* every request names its own: ffv_run_xrc */
	ffv_claim_init(&run->send_claim, &run->req->send_cq);
	ffv_claim_init(&run->recv_claim, run->resp ? &run->resp->recv_cq : NULL);
	run->position = ffv_load_relaxed(&qp->sq_exec);
	if (ffv_unlikely(is_sent))
		end_sent(run);
	/* [sq-post] pairs with the poster's release: the work requests below tail are whole. */
	run->tail = ffv_load_acquire(&qp->sq_tail);
	if (run->tail - run->position > run->req->sq_index_mask + 1ull) /* the requester lies */
		run->tail = run->position;
	bool suits = quick_suits(run->req, run->resp);
	while (run->position != run->tail) {
		enum verdict verdict = OK;
		if (!ffv_likely(suits) || run->have_rwqe || !quick(run))
			verdict = step(run);
		if (verdict == NO_RECEIVE)
			continue;
		if (verdict == HOLD)
			break;
		FFV_FAULT(exec_before_advance);
		ffv_store_relaxed(&qp->sq_exec, ++run->position);
		messages++;
		bytes += run->length;
	}
	/* A receive work request kept for a next message (tags.c), and there is none. XRC keeps none: it has no queue to give it
	 * back to. */
	if (ffv_unlikely(qp->rq_taken == FFV_TAKEN_YES && run->position == run->tail &&
			 ffv_load_relaxed(&qp->state) == FFV_QPS_ERR))
		ffv_run_flush_taken(run, is_xrc(run) ? NULL : run->peer);
	count(&qp->messages_sent, messages);
	count(&qp->bytes_sent, bytes);
	ffv_run_finish_claim(run, &run->send_claim, run->req->view);
	if (is_connected(run) && run->recv_claim.cq)
		ffv_run_finish_claim(run, &run->recv_claim, is_xrc(run) ? run->found.view : responder->view);
	FFV_FAULT(exec_before_unlock);
}

#define MOST_ROUNDS 16u            /* that a thread executes because others came by meanwhile */

/* Who waits for executions of one queue pair only waits for those that name it. A datagram's responder, and the context of
 * an XRC request's receive queue, are found later. */
static inline void name_parties(const struct ffv_exec_env *env, const struct ffv_qp_ref *requester,
				const struct ffv_qp_ref *responder)
{
	uint64_t to = requester->type == FFV_QPT_UD || requester->type == FFV_QPT_XRC_SEND ? 0
		      : responder ? FFV_PARTY(responder->view->context_id, responder->qpn)
				  : FFV_PARTY(requester->view->context_id, requester->qpn);

	ffv_store_relaxed(&env->thread->requester, FFV_PARTY(requester->view->context_id, requester->qpn));
	ffv_store_relaxed(&env->thread->responder, to);
}

/* Asks the owner of what this process does not reach to go on. */
static void hand_over(const struct run *run)
{
	if (run->next == &run->found && is_xrc(run)) /* whose queue may be of another context than the queue pair */
		run->env->face->attention(run->env->arg, run->found.view, FFV_ATTENTION_SRQ + run->found.rq.srq_id);
	else if (run->next->view->proxy && run->next != run->req)
		ffv_run_attention_proxy(run, run->next->view);
	else
		ffv_run_attention_qp(run, run->next);
}

static void send_signals(struct run *run)
{
	FFV_FAULT(exec_before_signal);
	for (uint32_t i = 0; i < run->num_signals; i++)
		run->env->face->signal(run->env->arg, run->signals[i].view, run->signals[i].cq);
	run->num_signals = 0;
}

/* Somebody came by meanwhile. If only another process can go on, it has been asked to: looking again ourselves would turn
 * it away again, and so on. But a queue that is in error by now is anybody's to flush. */
static bool must_look_again(const struct run *run)
{
	return !run->next || !is_executing(run->req->shm, ffv_load_acquire(&run->req->shm->state));
}

/* [exec-again] whoever fails leaves AGAIN in the word that the holder exchanges when it leaves. */
static inline bool lock_queue(_Atomic uint64_t *lock, uint64_t holder)
{
	uint64_t seen = 0;

	while (ffv_unlikely(!ffv_cas(lock, &seen, holder))) {
		if (seen && ffv_cas(lock, &seen, seen | FFV_EXEC_AGAIN))
			return false;
		seen = 0;
	}
	FFV_FAULT(exec_locked);
	return true;
}

/* Executes what is in the queue, which is locked, and unlocks it. True if it must be looked at once more. */
static bool run_once(struct run *run, struct ffv_qp_ref *responder, bool is_sent)
{
	run->next = NULL;
	if (ffv_likely(ffv_qp_ref_is_current(run->req)))
		run_locked(run, responder, is_sent);
	uint64_t seen = ffv_exchange(&run->req->shm->exec_lock, 0);
	if (ffv_unlikely(run->next != NULL))
		hand_over(run); /* unlocked: else it would only find us, and go */
	return ffv_unlikely(seen & FFV_EXEC_AGAIN) && must_look_again(run);
}

/* Ends the execution, so that nobody waits for it: neither sleepers nor who deregisters. */
static inline void leave(struct ffv_thread_shm *thread)
{
	if (ffv_unlikely(ffv_load_relaxed(&thread->claim_ctx)))
		ffv_store_release(&thread->claim_ctx, 0);
	ffv_exec_leave(thread);
}

/* Executes while others come by. locked: the first time the queue is locked already, and the thread has entered. */
__attribute__((noinline)) static void run_rounds(const struct ffv_exec_env *env, struct ffv_qp_ref *requester,
						 struct ffv_qp_ref *responder, bool locked, bool is_sent)
{
	struct run run;

	run.env = env;
	run.req = requester;
	run.num_signals = 0;
	for (unsigned rounds = 1;; rounds++) {
		if (!locked) {
			ffv_exec_enter(env->thread);
			locked = lock_queue(&requester->shm->exec_lock, env->holder);
		}
		bool again = locked && run_once(&run, responder, is_sent);
		if (ffv_unlikely(again && rounds == MOST_ROUNDS))
			ffv_run_attention_qp(&run, requester); /* others keep it busy: not this thread's work for ever */
		if (run.num_signals)
			send_signals(&run);
		leave(env->thread);
		if (ffv_likely(!again || rounds == MOST_ROUNDS))
			return;
		locked = is_sent = false;
	}
}

void ffv_exec_run(const struct ffv_exec_env *env, struct ffv_qp_ref *requester, struct ffv_qp_ref *responder)
{
	_Atomic uint64_t *lock = &requester->shm->exec_lock;

	name_parties(env, requester, responder);
	ffv_exec_enter(env->thread);
	if (ffv_unlikely(!lock_queue(lock, env->holder))) {
		ffv_exec_leave(env->thread);
		return;
	}
	enum quick done = quick_alone(env, requester, responder);
	if (ffv_unlikely(done != QUICK_DONE)) {
		run_rounds(env, requester, responder, true, done == QUICK_SENT);
		return;
	}
	FFV_FAULT(exec_before_unlock);
	uint64_t seen = ffv_exchange(lock, 0);
	leave(env->thread);
	if (ffv_unlikely(seen & FFV_EXEC_AGAIN))
		run_rounds(env, requester, responder, false, false);
}

/* SPDX-License-Identifier: MIT
 *
 * Extended reliable connection (IBA annex A14): every request names a shared receive queue of the responder's XRC domain.
 * That queue's protection domain, and the context that it is of, are what the request acts upon; the XRC_RECV queue pair
 * only lends its state, its rights and its number.
 */
#include "engine/run.h"

/* In whose context the SRQ stands: the queue pair's, as a rule; else another one of the same GID. */
static struct ffv_view *view_of(const struct run *run, uint32_t srqn)
{
	struct ffv_view *view = run->peer->view;
	uint32_t block = srqn / FFV_MAX_SRQ;

	if (block == view->arena->qpn_first / FFV_QPN_BLOCK)
		return view;
	return run->env->face->find_context(run->env->arg, view->arena->gid, block);
}

bool ffv_run_find_srq(struct run *run, const struct ffv_wqe_shm *wqe)
{
	uint32_t srqn = wqe->xrc_srqn;
	struct ffv_view *view = run->peer ? view_of(run, srqn) : NULL;

	/* What was claimed for the completion of the request before, which may have gone to another queue, is settled. */
	if (run->recv_claim.cq)
		ffv_run_finish_claim(run, &run->recv_claim, run->found.view);
	ffv_claim_init(&run->recv_claim, NULL);
	return view && ffv_xrc_ref_open(view, srqn, run->peer, &run->found) == 0;
}

/* Which process goes on if this one does not reach a side: who can tell is the requester's own. */
static enum verdict no_such_queue(struct run *run)
{
	if (!run->req->view->own && !view_of(run, ffv_qp_ref_wqe(run->req, run->position)->xrc_srqn))
		return FOR_REQUESTER;
	/* Nobody can complete what was taken from a queue that is gone. */
	ffv_rq_forget(run->req->shm);
	run->found = *run->peer;
	return REMOTE_INVALID;
}

enum verdict ffv_run_xrc(struct run *run, struct ffv_wqe_shm *wqe)
{
	run->resp = NULL;
	run->have_rwqe = false;
	if (!run->peer || !is_ready_to_receive(run->req, run->peer))
		return NOT_READY;
	if (run->peer->view->proxy) {
		enum verdict verdict = ffv_run_far_away(run, wqe);
		if (verdict == FOR_RESPONDER)
			run->resp = run->peer; /* who is to be asked; it has no queue that a next one could go to */
		return verdict;
	}
	if (!ffv_run_find_srq(run, wqe)) {
		enum verdict verdict = no_such_queue(run);
		if (verdict == REMOTE_INVALID)
			run->resp = &run->found;
		return verdict;
	}
	run->resp = &run->found;
	run->recv_claim.cq = &run->found.recv_cq;
	return ffv_run_execute(run, wqe);
}

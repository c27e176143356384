/* SPDX-License-Identifier: MIT
 *
 * The executor's lists: which memory a work request names on either side, checked and resolved. Fast path.
 */
#include <string.h>

#include "engine/run.h"

/* A receive list stays with the work request that took it while that goes in stages. */
void ffv_run_save_taken(struct ffv_qp_shm *qp, const struct ffv_rwqe *rwqe)
{
	qp->taken_num_sge = rwqe->num_sge;
	memcpy(qp->taken_sge, rwqe->sge, rwqe->num_sge * sizeof rwqe->sge[0]);
}

static void restore_taken(const struct ffv_qp_shm *qp, struct ffv_rwqe *rwqe)
{
	uint32_t n = ffv_word_load(&qp->taken_num_sge);

	rwqe->position = qp->taken_position;
	rwqe->num_sge = n <= FFV_MAX_SGE ? n : 0;
	memcpy(rwqe->sge, qp->taken_sge, rwqe->num_sge * sizeof rwqe->sge[0]);
}

#define MOST_RESIZES 64u           /* met while taking one: more than an honest owner makes */

/* The responder's shared queue by a reference that is as new as the queue's place. */
static bool follow(const struct run *run, struct ffv_rq_ref *rq)
{
	return !ffv_rq_ref_has_moved(rq) || ffv_rq_ref_reopen(run->resp->view, rq) == 0;
}

static bool take_shared(struct run *run)
{
	struct ffv_rq_ref rq = run->resp->rq;

	for (unsigned n = 0; n < MOST_RESIZES && follow(run, &rq); n++) {
		if (ffv_rq_take(&rq, run->req->shm, &run->rwqe))
			return true;
		if (ffv_likely(!ffv_rq_ref_has_moved(&rq)))
			break;
	}
	return false;
}

bool ffv_run_receive_waits(const struct run *run, uint64_t tail)
{
	struct ffv_rq_ref rq = run->resp->rq;

	return (!rq.shared_takers || follow(run, &rq)) && ffv_rq_is_below(&rq, ffv_load_relaxed(&rq.shm->head), tail);
}

/* The next receive work request, copied into run->rwqe. */
enum verdict ffv_run_take_receive(struct run *run)
{
	struct ffv_qp_ref *resp = run->resp;
	struct ffv_qp_shm *req = run->req->shm;

	if (run->have_rwqe)
		return OK;
	if (!resp->rq.shared_takers) {
		run->have_rwqe = ffv_rq_peek(&resp->rq, &run->rwqe);
	} else if (req->rq_taken == FFV_TAKEN_YES) {
		restore_taken(req, &run->rwqe);
		run->have_rwqe = true;
	} else {
		run->have_rwqe = take_shared(run);
		uint32_t limit = run->have_rwqe ? ffv_load_relaxed(&resp->rq.shm->limit) : 0;
		if (ffv_unlikely(limit) && ffv_rq_depth(&resp->rq) < limit)
			run->env->face->attention(run->env->arg, resp->view,
						  FFV_ATTENTION_SRQ + resp->rq.srq_id % FFV_MAX_SRQ);
	}
	return run->have_rwqe ? OK : NO_RECEIVE;
}

/* Resolves the receive work request's scatter list into run->remote, for `length` bytes. */
enum verdict ffv_run_scatter(struct run *run, uint64_t length)
{
	struct ffv_list *list = &run->remote;

	list->view = run->resp->view;
	list->num_segments = 0;
	list->length_bytes = 0;
	for (uint32_t i = 0; i < run->rwqe.num_sge && list->length_bytes < length; i++) {
		const struct ffv_sge_shm *sge = &run->rwqe.sge[i];
		uint64_t left = length - list->length_bytes;
		uint32_t n = sge->length < left ? sge->length : (uint32_t)left;
		if (!n)
			continue;
		if (!ffv_key_resolve_any(run->resp->view, sge->lkey, run->resp->pd, 0, sge->addr, n,
					 FFV_ACCESS_LOCAL_WRITE, &list->segment[list->num_segments]))
			return RECEIVE_PROTECTION;
		list->num_segments++;
		list->length_bytes += n;
	}
	return list->length_bytes < length ? RECEIVE_LENGTH : OK;
}

/* ---- the requester's own list ------------------------------------------------------------------------------------------ */

enum verdict ffv_run_gather(struct run *run, const struct ffv_wqe_shm *wqe, uint32_t access)
{
	struct ffv_list *list = &run->local;
	uint32_t num_sge = ffv_word_load(&wqe->num_sge);

	if (ffv_unlikely(run->req->view->proxy))
		return ffv_run_gather_proxied(run);
	if (wqe->flags & FFV_SEND_INLINE) {
		uint32_t room = run->req->sq_stride_bytes - (uint32_t)offsetof(struct ffv_wqe_shm, sge);
		list->view = NULL;
		list->num_segments = 1;
		list->length_bytes = run->length <= room ? run->length : 0;
		list->segment[0] = (struct ffv_segment){ .va = (uintptr_t)wqe->sge,
							 .length_bytes = (uint32_t)list->length_bytes };
		return list->length_bytes == run->length ? OK : LOCAL_LENGTH;
	}
	list->view = run->req->view;
	list->num_segments = 0;
	list->length_bytes = 0;
	if (num_sge > FFV_MAX_SGE || num_sge * 16u + offsetof(struct ffv_wqe_shm, sge) > run->req->sq_stride_bytes)
		return LOCAL_OPERATION;
	for (uint32_t i = 0; i < num_sge; i++) {
		struct ffv_sge_shm sge = ffv_sge_read(&wqe->sge[i]);
		if (!sge.length)
			continue;
		if (!ffv_key_resolve_any(run->req->view, sge.lkey, run->req->pd, 0, sge.addr, sge.length, access,
					 &list->segment[list->num_segments]))
			return LOCAL_PROTECTION;
		list->num_segments++;
		list->length_bytes += sge.length;
	}
	return list->length_bytes == run->length && list->length_bytes <= FFV_MAX_MESSAGE ? OK : LOCAL_LENGTH;
}

/* The remote side of WRITE, READ and atomics, resolved into run->remote. */
enum verdict ffv_run_target(struct run *run, const struct ffv_wqe_shm *wqe, uint32_t length, uint32_t access)
{
	struct ffv_list *list = &run->remote;

	if (!(ffv_load_relaxed(&run->resp->shm->access) & access))
		return REMOTE_INVALID;
	list->view = run->resp->view;
	list->length_bytes = length;
	list->num_segments = 1;
	if (length && !ffv_key_resolve_any(run->resp->view, wqe->rdma.rkey, run->resp->pd, run->resp->qpn,
					   wqe->rdma.remote_addr, length, access, &list->segment[0]))
		return REMOTE_ACCESS;
	return OK;
}

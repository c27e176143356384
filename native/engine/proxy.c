/* SPDX-License-Identifier: MIT
 *
 * See proxy.h. Off the fast path: a message to another host costs more than this.
 */
#include "engine/proxy.h"

#include "engine/run.h"

static const struct ffv_proxy_hooks *hooks_of(const struct run *run)
{
	return run->env->face->proxy(run->env->arg);
}

/* ---- a container's work request for a proxy -------------------------------------------------------------------------------- */

/* The verdict whose meaning is the status that the other host sent: so the requester's part of an ending is written once. */
static enum verdict verdict_of(uint32_t status)
{
	switch (status) {
	case FFV_WC_SUCCESS:
		return ENDED_FAR_AWAY;
	case FFV_WC_LOC_LEN_ERR:
		return LOCAL_LENGTH;
	case FFV_WC_LOC_PROT_ERR:
		return LOCAL_PROTECTION;
	case FFV_WC_REM_ACCESS_ERR:
		return REMOTE_ACCESS;
	case FFV_WC_REM_INV_REQ_ERR:
		return REMOTE_INVALID;
	case FFV_WC_REM_OP_ERR:
		return RECEIVE_PROTECTION;
	case FFV_WC_RNR_RETRY_EXC_ERR:
		return RNR_EXCEEDED;
	case FFV_WC_LOC_QP_OP_ERR:
		return LOCAL_OPERATION;
	default: /* the far side was reset, flushed or lost */
		return RETRY_EXCEEDED;
	}
}

enum verdict ffv_run_far_away(struct run *run, struct ffv_wqe_shm *wqe)
{
	const struct ffv_proxy_hooks *hooks = run->peer->view->own ? hooks_of(run) : NULL;
	struct ffv_answer answer;

	if (!hooks)
		return FOR_RESPONDER;
	if (!hooks->answer(hooks->arg, run->req, run->position, run->tail, &answer)) {
		/* It rings when it knows; who posts meanwhile rings us. */
		ffv_store_relaxed(&run->req->shm->blocked, FFV_BLOCKED_RESPONDER);
		return HOLD;
	}
	enum verdict verdict = verdict_of(answer.status);
	if (verdict != ENDED_FAR_AWAY || (wqe->opcode != FFV_WR_ATOMIC_CMP_AND_SWP &&
					  wqe->opcode != FFV_WR_ATOMIC_FETCH_AND_ADD))
		return verdict;
	verdict = ffv_run_gather(run, wqe, FFV_ACCESS_LOCAL_WRITE);
	if (verdict == OK && run->length != 8)
		verdict = LOCAL_LENGTH;
	if (verdict == OK)
		verdict = ffv_run_deliver_original(run, wqe, answer.original);
	return verdict == OK ? ENDED_FAR_AWAY : verdict;
}

enum verdict ffv_run_datagram_away(struct run *run, const struct ffv_wqe_shm *wqe)
{
	const struct ffv_proxy_hooks *hooks = run->found.view->own ? hooks_of(run) : NULL;

	if (hooks) {
		hooks->datagram(hooks->arg, run->req, wqe, &run->local, run->length);
		run->req->shm->staged_bytes = 0;
		return OK;
	}
	run->resp = &run->found;
	return FOR_RESPONDER;
}

/* ---- a proxy's own work request ---------------------------------------------------------------------------------------------- */

/* Memory that nobody reaches: what a proxy's payload is for any process but its owner's. */
static struct ffv_view nowhere;

enum verdict ffv_run_gather_proxied(struct run *run)
{
	const struct ffv_proxy_hooks *hooks = run->req->view->own ? hooks_of(run) : NULL;
	struct ffv_qp_shm *qp = run->req->shm;
	struct ffv_list *list = &run->local;

	run->stream = false;
	if (!hooks) {
		/* Only the owner knows the bytes; but memory that only we reach goes through the staging buffer. */
		if (ffv_load_relaxed(&qp->blocked) != FFV_BLOCKED_RESPONDER)
			return FOR_REQUESTER;
		list->view = &nowhere;
		list->num_segments = 1;
		list->length_bytes = run->length;
		list->segment[0] = (struct ffv_segment){ .length_bytes = run->length };
		return OK;
	}
	list->view = NULL;
	list->num_segments = 0;
	list->length_bytes = 0;
	run->stream_header = 0;
	/* A header that was looked at is not delivered. */
	run->stream_from = qp->progress_bytes + (qp->tag_taken == FFV_TAKEN_YES ? (uint32_t)sizeof(struct ffv_tmh) : 0);
	switch (hooks->bytes(hooks->arg, run->req->qpn, run->position, run->stream_from, list)) {
	case FFV_BYTES_ALL:
		return list->length_bytes == run->length ? OK : LOCAL_OPERATION;
	case FFV_BYTES_SOME:
		run->stream = true;
		return OK;
	default:
		return LOCAL_OPERATION;
	}
}

#define LAST_BYTES 64u             /* of a message, which are copied: a program may poll on the last of them (copy.h) */
#define MOST_PIECES 8

static struct ffv_list here(const void *bytes, uint32_t length)
{
	struct ffv_list list = { .num_segments = 1, .length_bytes = length };

	list.segment[0] = (struct ffv_segment){ .va = (uintptr_t)bytes, .length_bytes = length };
	return list;
}

/* Has what is just coming put where it belongs, without a copy on the way, if that is in reach. How many bytes. */
static uint32_t fetch(struct run *run, uint32_t progress, uint32_t length)
{
	const struct ffv_proxy_hooks *hooks = hooks_of(run);
	bool reads = ffv_qp_ref_wqe(run->req, run->position)->opcode == FFV_WR_RDMA_READ;
	uint32_t left = length - progress, from = run->stream_header + progress, apart = reads ? 0 : LAST_BYTES;
	struct iovec pieces[MOST_PIECES];
	uint8_t last[LAST_BYTES];

	if (left > apart) {
		int count = ffv_list_here(&run->remote, progress, left - apart, pieces, MOST_PIECES);
		return count ? hooks->fetch(hooks->arg, run->req->qpn, run->position, from, pieces, count) : 0;
	}
	if (!left || !ffv_list_is_reachable(&run->remote, progress, left))
		return 0;
	pieces[0] = (struct iovec){ last, left };
	uint32_t n = hooks->fetch(hooks->arg, run->req->qpn, run->position, from, pieces, 1);
	struct ffv_list list = here(last, n);
	if (n && ffv_copy_lists(&run->remote, progress, &list, 0, n) != FFV_COPY_DONE)
		return UINT32_MAX;
	return n;
}

/* The same, as long as something comes. */
static enum verdict fetch_all(struct run *run, uint32_t *progress, uint32_t length, bool receive)
{
	uint32_t n;

	while ((n = fetch(run, *progress, length)) != 0) {
		if (n > length - *progress)
			return receive ? RECEIVE_PROTECTION : REMOTE_ACCESS;
		*progress += n;
		run->req->shm->progress_bytes = *progress;
	}
	return OK;
}

/* Asks for what is still to come of the message, from `progress` of what is delivered on. */
static void ask_for_more(struct run *run, uint32_t progress, uint32_t length, bool receive)
{
	const struct ffv_proxy_hooks *hooks = hooks_of(run);
	const struct ffv_wqe_shm *wqe = ffv_qp_ref_wqe(run->req, run->position);
	struct ffv_rest rest = { .list = &run->remote, .offset = progress, .length = length - progress };

	if (receive) {
		rest.sges = run->rwqe.sge;
		rest.num_sge = run->rwqe.num_sge;
	} else {
		rest.key = wqe->rdma.rkey;
	}
	hooks->more(hooks->arg, run->req->qpn, run->position, run->stream_header + progress, &rest);
}

enum verdict ffv_run_move_stream(struct run *run, uint32_t length, bool receive)
{
	struct ffv_qp_shm *qp = run->req->shm;
	uint32_t progress = ffv_word_load(&qp->progress_bytes); /* once: peers can write to it, and what is checked is used */
	uint64_t n = run->local.length_bytes;

	if (qp->staged_bytes)
		return FOR_RESPONDER; /* not emptied yet */
	if (progress > length || n > length - progress)
		return LOCAL_OPERATION;
	if (n) {
		enum ffv_copy_result result = ffv_copy_lists(&run->remote, progress, &run->local, 0, n);
		if (result == FFV_COPY_UNREACHABLE) {
			struct ffv_list stage;
			if ((qp->stage_line == FFV_NONE && !run->env->face->stage(run->env->arg, run->req)) ||
			    !ffv_run_stage_list(run, &stage, 0))
				return LOCAL_OPERATION;
			n = n < stage.length_bytes ? n : stage.length_bytes;
			ffv_copy_lists(&stage, 0, &run->local, 0, n);
			qp->staged_bytes = (uint32_t)n;
			return FOR_RESPONDER;
		}
		if (result)
			return ffv_run_copy_fault(result, true, receive);
		progress += (uint32_t)n;
		qp->progress_bytes = progress;
	}
	enum verdict verdict = fetch_all(run, &progress, length, receive);
	if (verdict != OK)
		return verdict;
	if (progress == length) {
		qp->progress_bytes = 0;
		return OK;
	}
	ask_for_more(run, progress, length, receive);
	return MORE;
}

enum verdict ffv_run_await_header(struct run *run, uint32_t bytes)
{
	const struct ffv_proxy_hooks *hooks = hooks_of(run);

	if (!run->stream || run->local.length_bytes >= bytes)
		return OK;
	hooks->more(hooks->arg, run->req->qpn, run->position, 0, NULL);
	return MORE;
}

/* ---- flushing ----------------------------------------------------------------------------------------------------------------- */

/* Whether one of the proxy's owner's threads, or a hold, brings what READs of the queue pair ask for. */
static bool fills(const struct ffv_thread_shm *thread, const struct ffv_view *view, uint32_t qpn)
{
	uint64_t party = FFV_PARTY(view->context_id, qpn), requester = ffv_load_relaxed(&thread->requester);

	return ffv_load_acquire(&thread->epoch) & 1 && ffv_load_relaxed(&thread->responder) == party &&
	       (requester == party || requester == FFV_PARTY(view->context_id, FFV_HOLD_FILLS));
}

bool ffv_run_is_filled(struct run *run, const struct ffv_wqe_shm *wqe)
{
	const struct ffv_qp_ref *proxy = run->peer && run->peer->view->proxy ? run->peer : NULL;
	struct ffv_arena_shm *arena = proxy ? proxy->view->arena : NULL;
	uint32_t used = 0;

	if (wqe->opcode == FFV_WR_RDMA_READ && proxy && run->env->face->is_there(run->env->arg, proxy->view)) {
		ffv_fence_store_load(); /* [exec-epoch] the state, which ends what begins from now on, before the marks */
		used = ffv_load_acquire(&arena->threads_used);
	}
	for (uint32_t i = 0; i < used && i < FFV_MAX_THREADS; i++) {
		if (&arena->threads[i] == run->env->thread || !fills(&arena->threads[i], run->req->view, run->req->qpn))
			continue;
		ffv_store_relaxed(&run->req->shm->blocked, FFV_BLOCKED_RESPONDER);
		run->next = proxy; /* whose owner stops that, and comes back */
		return true;
	}
	return false;
}

/* ---- pulling ------------------------------------------------------------------------------------------------------------------ */

static void enter_for(const struct ffv_exec_env *env, uint64_t party)
{
	ffv_store_relaxed(&env->thread->requester, party);
	ffv_store_relaxed(&env->thread->responder, party);
	ffv_exec_enter(env->thread);
	ffv_fence_store_load(); /* [exec-epoch] the mark before every key that is read */
}

void ffv_pull_begin(const struct ffv_exec_env *env, const struct ffv_qp_ref *requester)
{
	enter_for(env, FFV_PARTY(requester->view->context_id, requester->qpn));
}

int ffv_pull_open(const struct ffv_exec_env *env, struct ffv_view *view, uint32_t qpn, struct ffv_qp_ref *ref)
{
	enter_for(env, FFV_PARTY(view->context_id, qpn));
	int rc = ffv_qp_ref_open(view, qpn, ref);
	ffv_exec_leave(env->thread);
	return rc;
}

void ffv_pull_end(const struct ffv_exec_env *env)
{
	ffv_exec_leave(env->thread);
}

static enum ffv_pull fail(uint32_t *status, uint32_t value)
{
	*status = value;
	return FFV_PULL_FAILED;
}

/* The checks of ffv_run_gather, by the same function. */
static enum ffv_pull gather(struct ffv_qp_ref *requester, const struct ffv_wqe_shm *wqe, struct ffv_pulled *out,
			    uint32_t *status)
{
	bool atomic_write = out->opcode == FFV_WR_ATOMIC_WRITE;
	bool sinks = out->opcode == FFV_WR_RDMA_READ || out->opcode == FFV_WR_ATOMIC_CMP_AND_SWP ||
		     out->opcode == FFV_WR_ATOMIC_FETCH_AND_ADD;
	struct run run;

	run.req = requester;
	run.length = out->length_bytes;
	enum verdict verdict = ffv_run_gather(&run, wqe, sinks ? FFV_ACCESS_LOCAL_WRITE : 0);
	if (verdict == OK && (sinks || atomic_write) && !ffv_load_relaxed(&requester->shm->max_rd_atomic))
		verdict = LOCAL_OPERATION;
	if (verdict == OK && (atomic_write || (sinks && out->opcode != FFV_WR_RDMA_READ)) && out->length_bytes != 8)
		verdict = LOCAL_LENGTH;
	if (verdict == OK && out->opcode == FFV_WR_FLUSH && out->length_bytes) /* no program of ours posts that */
		verdict = LOCAL_LENGTH;
	if (verdict != OK)
		return fail(status, ffv_run_meanings[verdict].requester);
	out->list = run.local;
	return FFV_PULL_DONE;
}

enum ffv_pull ffv_pull_look(struct ffv_qp_ref *requester, uint64_t position, struct ffv_pulled *out, uint32_t *status)
{
	struct ffv_qp_shm *qp = requester->shm;
	const struct ffv_wqe_shm *wqe = ffv_qp_ref_wqe(requester, position);
	uint64_t done = ffv_load_acquire(&qp->sq_exec);
	/* [sq-post] pairs with the poster's release: the work requests below tail are whole. */
	uint64_t tail = ffv_load_acquire(&qp->sq_tail);
	uint32_t state = ffv_load_acquire(&qp->state);

	if (!ffv_qp_ref_is_current(requester) || position - done >= tail - done || tail - done > requester->sq_index_mask + 1ull)
		return FFV_PULL_LATER;
	if (state != FFV_QPS_RTS && (position != done || !is_executing(qp, state)))
		return FFV_PULL_LATER;
	out->opcode = ffv_word_load(&wqe->opcode);
	out->flags = ffv_word_load(&wqe->flags);
	out->imm_be = ffv_word_load(&wqe->imm_be);
	out->length_bytes = ffv_word_load(&wqe->length_bytes);
	out->rdma = wqe->rdma;
	out->xrc_srqn = ffv_word_load(&wqe->xrc_srqn);
	switch (out->opcode) {
	case FFV_WR_LOCAL_INV:
	case FFV_WR_BIND_MW:
		return FFV_PULL_LOCAL;
	case FFV_WR_SEND:
	case FFV_WR_SEND_WITH_IMM:
	case FFV_WR_SEND_WITH_INV:
	case FFV_WR_RDMA_WRITE:
	case FFV_WR_RDMA_WRITE_WITH_IMM:
	case FFV_WR_ATOMIC_WRITE:
	case FFV_WR_FLUSH:
	case FFV_WR_RDMA_READ:
	case FFV_WR_ATOMIC_CMP_AND_SWP:
	case FFV_WR_ATOMIC_FETCH_AND_ADD:
		return gather(requester, wqe, out, status);
	default:
		return fail(status, FFV_WC_LOC_QP_OP_ERR);
	}
}

static enum ffv_pull pulled(enum ffv_copy_result result)
{
	return result == FFV_COPY_DONE ? FFV_PULL_DONE
	       : result == FFV_COPY_UNREACHABLE ? FFV_PULL_UNREACHABLE : FFV_PULL_FAILED;
}

int ffv_pull_here(const struct ffv_list *list, uint32_t offset, uint32_t length, struct iovec *pieces, int most)
{
	return (uint64_t)offset + length > list->length_bytes ? 0 : ffv_list_here(list, offset, length, pieces, most);
}

int ffv_pull_places(const struct ffv_qp_ref *requester, uint64_t position, const struct ffv_pulled *wr, uint32_t offset,
		    uint32_t length, struct ffv_place *places, int most)
{
	const struct ffv_wqe_shm *wqe = ffv_qp_ref_wqe(requester, position);
	uint32_t room = (requester->sq_stride_bytes - (uint32_t)offsetof(struct ffv_wqe_shm, sge)) / 16, n = ffv_word_load(&wqe->num_sge);
	struct ffv_rest rest = { .list = &wr->list, .sges = wqe->sge, .num_sge = n < room ? n : room, .offset = offset,
				 .length = length };

	return ffv_rest_places(&rest, places, most);
}

enum ffv_pull ffv_pull_copy(struct ffv_list *list, uint32_t offset, uint32_t length, void *to)
{
	struct ffv_list sink = here(to, length);

	if ((uint64_t)offset + length > list->length_bytes)
		return FFV_PULL_FAILED;
	return length ? pulled(ffv_copy_lists(&sink, 0, list, offset, length)) : FFV_PULL_DONE;
}

enum ffv_pull ffv_pull_put(struct ffv_list *list, uint32_t offset, uint32_t length, const void *bytes)
{
	struct ffv_list source = here(bytes, length);

	if ((uint64_t)offset + length > list->length_bytes)
		return FFV_PULL_FAILED;
	return length ? pulled(ffv_copy_lists(list, offset, &source, 0, length)) : FFV_PULL_DONE;
}

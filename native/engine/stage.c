/* SPDX-License-Identifier: MIT
 *
 * Moving a message: in one go where this process reaches both ends, else in stages through a buffer in the requester's
 * arena, each side copying what only it reaches (DESIGN D5).
 */
#include "engine/run.h"

bool ffv_run_is_mirrored(const struct ffv_list *list)
{
	if (!list->view)
		return true; /* inline: stands in the arena */
	for (uint32_t i = 0; i < list->num_segments; i++) {
		const struct ffv_segment *segment = &list->segment[i];
		if (segment->va < segment->mirror_first || segment->va + segment->length_bytes > segment->mirror_end)
			return false;
	}
	return true;
}

/* The staging buffer as a list of what is staged (or may be), NULL length if there is none. */
bool ffv_run_stage_list(struct run *run, struct ffv_list *list, uint32_t length)
{
	struct ffv_qp_shm *qp = run->req->shm;
	uint32_t line = ffv_word_load(&qp->stage_line), room = ffv_word_load(&qp->stage_bytes);
	void *buffer = line == FFV_NONE ? NULL : ffv_view_at(run->req->view, line, room);

	if (!buffer || length > room)
		return false;
	list->view = NULL;
	list->num_segments = 1;
	list->length_bytes = length ? length : room;
	list->segment[0] = (struct ffv_segment){ .va = (uintptr_t)buffer, .length_bytes = (uint32_t)list->length_bytes };
	return true;
}

enum verdict ffv_run_copy_fault(enum ffv_copy_result result, bool to_remote, bool receive)
{
	bool remote = (result == FFV_COPY_FAULT_DST) == to_remote;

	return !remote ? LOCAL_PROTECTION : receive ? RECEIVE_PROTECTION : REMOTE_ACCESS;
}

/* Copies the next chunk between `list` and the staging buffer. `fault`: what it means if the list's memory is not there. */
enum verdict ffv_run_stage_chunk(struct run *run, const struct ffv_list *list, bool into_stage, uint32_t length,
				 enum verdict fault)
{
	struct ffv_qp_shm *qp = run->req->shm;
	struct ffv_list stage;
	uint32_t progress = ffv_word_load(&qp->progress_bytes), staged = ffv_word_load(&qp->staged_bytes);

	if (progress > length || staged > length - progress || !ffv_run_stage_list(run, &stage, into_stage ? 0 : staged))
		return LOCAL_OPERATION; /* the requester lies */
	uint32_t n = into_stage ? length - progress : staged;
	if (n > stage.length_bytes)
		n = (uint32_t)stage.length_bytes;
	enum ffv_copy_result result = into_stage ? ffv_copy_lists(&stage, 0, list, progress, n)
						 : ffv_copy_lists(list, progress, &stage, 0, n);
	if (result == FFV_COPY_UNREACHABLE)
		return HOLD;
	if (result)
		return fault;
	if (into_stage) {
		qp->staged_bytes = n;
		FFV_FAULT(exec_staged);
	} else {
		qp->staged_bytes = 0;
		qp->progress_bytes = progress + n;
	}
	return OK;
}

/* True if the requester's side has to be staged: it is not mirrored, or the responder found that it cannot map it. */
bool ffv_run_needs_stage(const struct run *run)
{
	return run->req->view->proxy || !ffv_run_is_mirrored(&run->local) || ffv_load_relaxed(&run->req->shm->blocked) == FFV_BLOCKED_REQUESTER;
}

/* This process cannot move the message in one go. Who does what next? `source` is reached by the side that owns it,
 * `sink` likewise; the requester's side is staged in its arena when it is not mirrored. */
static enum verdict move_staged(struct run *run, bool to_remote, uint32_t length, bool receive)
{
	struct ffv_qp_shm *qp = run->req->shm;
	bool requester_here = !run->req->view || run->req->view->direct;
	bool responder_here = run->resp->view->direct;
	const struct ffv_list *mine = requester_here ? &run->local : &run->remote;
	enum verdict other = requester_here ? FOR_RESPONDER : FOR_REQUESTER;
	enum verdict fault = requester_here ? LOCAL_PROTECTION : receive ? RECEIVE_PROTECTION : REMOTE_ACCESS;

	if (!requester_here && !responder_here)
		return FOR_REQUESTER; /* a third party: UD handed to the wrong one */
	if (qp->staged_bytes == 0 && qp->progress_bytes == 0) {
		if (requester_here && !ffv_run_needs_stage(run))
			return FOR_RESPONDER; /* it reaches both ends */
		if (qp->stage_line == FFV_NONE &&
		    (!requester_here || !run->env->face->stage(run->env->arg, run->req)))
			return requester_here ? LOCAL_OPERATION : FOR_REQUESTER;
	}
	bool i_am_source = requester_here == to_remote;
	if (i_am_source) {
		if (qp->staged_bytes)
			return other; /* the sink has not emptied it yet */
		enum verdict verdict = ffv_run_stage_chunk(run, mine, true, length, fault);
		return verdict == OK ? other : verdict;
	}
	if (qp->staged_bytes) {
		enum verdict verdict = ffv_run_stage_chunk(run, mine, false, length, fault);
		if (verdict != OK)
			return verdict;
		if (qp->progress_bytes >= length) {
			qp->progress_bytes = 0;
			return OK;
		}
	}
	return other;
}

enum verdict ffv_run_move(struct run *run, bool to_remote, uint32_t length, bool receive)
{
	const struct ffv_list *dst = to_remote ? &run->remote : &run->local;
	const struct ffv_list *src = to_remote ? &run->local : &run->remote;
	struct ffv_qp_shm *qp = run->req->shm;

	if (!length)
		return OK;
	FFV_FAULT(exec_before_copy);
	if (ffv_unlikely(run->stream))
		return ffv_run_move_stream(run, length, receive);
	if (ffv_likely(!qp->staged_bytes && !qp->progress_bytes)) {
		enum ffv_copy_result result = ffv_copy_lists(dst, 0, src, 0, length);
		if (ffv_likely(result == FFV_COPY_DONE))
			return OK;
		if (result != FFV_COPY_UNREACHABLE)
			return ffv_run_copy_fault(result, to_remote, receive);
	}
	return move_staged(run, to_remote, length, receive);
}

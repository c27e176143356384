/* SPDX-License-Identifier: MIT
 *
 * Tag matching: messages to a shared receive queue whose tags the application has named in advance (ibv_post_srq_ops(3),
 * linux/tm_types.h). An eager message goes to the memory of the first tag that it matches, without its header; one that
 * matches none is unexpected, and goes with its header to a receive work request; of a rendezvous only the header comes,
 * and the owner of the queue fetches the data (verbs/rendezvous.c).
 */
#include <endian.h>
#include <string.h>

#include "engine/run.h"

static struct ffv_srq_shm *srq_of(const struct ffv_rq_ref *rq)
{
	return (struct ffv_srq_shm *)rq->shm; /* its first member */
}

static bool is_message_with_header(const struct run *run)
{
	return run->length >= sizeof(struct ffv_tmh);
}

/* ---- the header ------------------------------------------------------------------------------------------------------- */

struct header { struct ffv_tmh tmh; struct ffv_rvh rvh; };

/* Reads it from the sender's memory. What is too short to have one is passed on as a message without a tag. */
static enum verdict read_header(struct run *run, struct header *header)
{
	struct ffv_list to = { .num_segments = 1, .length_bytes = sizeof *header };
	uint64_t length = run->length < sizeof *header ? run->length : sizeof *header;

	memset(header, 0, sizeof *header);
	if (!is_message_with_header(run))
		return OK;
	to.segment[0] = (struct ffv_segment){ .va = (uintptr_t)header, .length_bytes = sizeof *header };
	if (run->stream && ffv_run_await_header(run, (uint32_t)length) == MORE)
		return MORE;
	enum ffv_copy_result result = ffv_copy_lists(&to, 0, &run->local, 0, length);
	if (result == FFV_COPY_UNREACHABLE)
		return run->req->view->direct ? LOCAL_PROTECTION : FOR_REQUESTER;
	return result ? LOCAL_PROTECTION : OK;
}

static bool is_rendezvous(const struct run *run, const struct header *header)
{
	return header->tmh.opcode == FFV_TMH_RNDV && run->length >= sizeof *header;
}

static bool has_tag(const struct run *run, const struct header *header)
{
	return header->tmh.opcode == FFV_TMH_EAGER || is_rendezvous(run, header);
}

/* ---- matching --------------------------------------------------------------------------------------------------------- */

/* The first tag, in the order of posting, that the message matches among those that count in this phase. */
static bool find_tag(const struct ffv_rq_ref *rq, uint64_t phase, uint64_t tag, uint32_t *slot, uint64_t *state)
{
	uint32_t counts = (uint32_t)phase, oldest = 0;
	bool found = false;

	for (uint32_t i = 0; i < rq->num_tags; i++) {
		const struct ffv_tag_shm *entry = &rq->tags[i];
		uint64_t seen = ffv_load_acquire(&entry->state); /* [tag-arm] the tag before the state that arms it */
		uint32_t age = counts - FFV_TAG_ORDER(seen);
		if (!FFV_TAG_IS(seen, FFV_TAG_ARMED) || age > INT32_MAX || (found && age < oldest))
			continue;
		if ((tag & ffv_word_load(&entry->mask)) != ffv_word_load(&entry->tag))
			continue;
		found = true;
		oldest = age;
		*slot = i;
		*state = seen;
	}
	return found;
}

/* Names the tag as this requester's, then takes it. */
static bool take_tag(struct run *run, uint32_t slot, uint64_t state)
{
	struct ffv_qp_shm *req = run->req->shm;

	req->tag_slot = slot;
	req->tag_state = state;
	req->tag_taken = FFV_TAKEN_MAYBE; /* ordered before the CAS by the CAS */
	uint64_t seen = state;
	bool taken = ffv_cas(&run->resp->rq.tags[slot].state, &seen, FFV_TAG_STATE(FFV_TAG_ORDER(state), FFV_TAG_TAKEN));
	FFV_FAULT(exec_tag_taken);
	req->tag_taken = taken ? FFV_TAKEN_YES : FFV_TAKEN_NOT;
	return taken;
}

static void note_message(struct run *run, uint32_t slot, const struct header *header)
{
	struct ffv_tag_shm *entry = &run->resp->rq.tags[slot];

	entry->qpn = run->resp->qpn;
	entry->message_tag = be64toh(header->tmh.tag_be);
	entry->app_ctx_be = header->tmh.app_ctx_be;
	entry->remote_addr = be64toh(header->rvh.va_be);
	entry->rkey = be32toh(header->rvh.rkey_be);
	entry->length_bytes = be32toh(header->rvh.len_be);
}

#define MOST_CHANGES 65536u        /* by others while one message is matched: more than an honest owner makes */

/* Takes a tag, or a receive work request for what matches none. [tag-phase] The CAS that counts the message as unexpected
 * fails if a tag was added since the phase was read: then the tags are looked through again. A receive work request that
 * was taken by then stays taken, for the next message of this queue pair that needs one. */
static enum verdict decide(struct run *run, const struct header *header)
{
	const struct ffv_rq_ref *rq = &run->resp->rq;
	struct ffv_qp_shm *req = run->req->shm;
	uint64_t tag = be64toh(header->tmh.tag_be), state;
	uint32_t slot;

	for (uint32_t tries = 0; tries < MOST_CHANGES; tries++) {
		uint64_t phase = ffv_load_seq_cst(&srq_of(rq)->phase);
		while (find_tag(rq, phase, tag, &slot, &state)) {
			if (!take_tag(run, slot, state)) {
				if (++tries == MOST_CHANGES)
					return REMOTE_INVALID;
				continue;
			}
			note_message(run, slot, header);
			return OK;
		}
		enum verdict verdict = ffv_run_take_receive(run);
		if (verdict != OK)
			return verdict;
		ffv_run_save_taken(req, &run->rwqe);
		req->tag_counted = FFV_TAKEN_MAYBE;
		if (ffv_cas(&srq_of(rq)->phase, &phase, phase + FFV_TAG_PHASE(1u, 0u))) {
			FFV_FAULT(exec_tag_counted);
			req->tag_counted = FFV_TAKEN_YES;
			return OK;
		}
		req->tag_counted = FFV_TAKEN_NOT;
		run->have_rwqe = false;
	}
	return REMOTE_INVALID;
}

/* ---- moving ----------------------------------------------------------------------------------------------------------- */

static void skip(struct ffv_list *list, uint32_t n)
{
	uint32_t i = 0;

	list->length_bytes -= n;
	while (i < list->num_segments && n >= list->segment[i].length_bytes)
		n -= list->segment[i++].length_bytes;
	list->num_segments -= i;
	memmove(&list->segment[0], &list->segment[i], list->num_segments * sizeof list->segment[0]);
	if (list->num_segments) {
		list->segment[0].va += n;
		list->segment[0].length_bytes -= n;
	}
}

/* The list of the tag that this requester took. False: the requester lies. */
static bool use_tag(struct run *run)
{
	const struct ffv_rq_ref *rq = &run->resp->rq;
	uint32_t slot = run->req->shm->tag_slot;

	if (slot >= rq->num_tags)
		return false;
	uint32_t n = ffv_word_load(&rq->tags[slot].num_sge);
	run->rwqe.num_sge = n <= rq->max_sge ? n : 0;
	run->rwqe.position = slot;
	for (uint32_t i = 0; i < run->rwqe.num_sge; i++)
		run->rwqe.sge[i] = ffv_sge_read(&rq->tag_sges[slot * rq->max_sge + i]);
	run->have_rwqe = true;
	return true;
}

static enum verdict deliver(struct run *run, uint32_t header_bytes)
{
	uint32_t length = run->length - header_bytes;

	if (run->stream)
		run->stream_header = header_bytes;
	if (!run->stream || run->stream_from < header_bytes)
		skip(&run->local, header_bytes);
	enum verdict verdict = ffv_run_scatter(run, length);
	return verdict == OK ? ffv_run_move(run, true, length, true) : verdict;
}

enum verdict ffv_run_tagged(struct run *run, const struct ffv_wqe_shm *wqe)
{
	struct ffv_qp_shm *req = run->req->shm;
	struct header header;
	enum verdict verdict = ffv_run_gather(run, wqe, 0);
	bool goes_on = req->staged_bytes || req->progress_bytes;

	run->tagged = TAGGED_NOT;
	if (verdict == OK && !goes_on && req->tag_taken != FFV_TAKEN_YES && req->tag_counted != FFV_TAKEN_YES) {
		verdict = read_header(run, &header);
		if (verdict == OK && has_tag(run, &header))
			verdict = decide(run, &header);
		if (verdict == OK && req->tag_taken == FFV_TAKEN_YES && is_rendezvous(run, &header)) {
			run->tagged = TAGGED_RENDEZVOUS;
			return use_tag(run) ? OK : LOCAL_OPERATION;
		}
	}
	if (verdict != OK)
		return verdict;
	if (req->tag_taken == FFV_TAKEN_YES) {
		run->tagged = TAGGED_MATCH;
		return use_tag(run) && is_message_with_header(run) ? deliver(run, sizeof(struct ffv_tmh)) : LOCAL_OPERATION;
	}
	verdict = ffv_run_take_receive(run);
	run->tagged = req->tag_counted == FFV_TAKEN_YES ? TAGGED_UNEXPECTED : TAGGED_NO_TAG;
	return verdict == OK ? deliver(run, 0) : verdict;
}

/* ---- completing ------------------------------------------------------------------------------------------------------- */

/* A completion of the tag, of the shared queue itself. */
static void fill_tag(struct ffv_cqe_shm *cqe, const struct ffv_qp_ref *to, uint32_t slot, uint32_t status)
{
	memset((char *)cqe + sizeof cqe->sequence, 0, sizeof *cqe - sizeof cqe->sequence);
	cqe->qpn_side = to->qpn | FFV_CQE_RECV;
	cqe->wqe_position = slot;
	cqe->status = (uint8_t)status;
	cqe->opcode = FFV_WC_TM_RECV;
	cqe->flags = FFV_CQE_SRQ | FFV_WC_TM_MATCH;
	cqe->src_qp = to->rq.srq_id;
	cqe->vendor_err = FFV_TAG_ORDER(ffv_load_relaxed(&to->rq.tags[slot].state));
}

void ffv_run_fill_tagged(const struct run *run, struct ffv_cqe_shm *cqe, struct ffv_cqe_ext_shm *ext)
{
	if (run->tagged == TAGGED_UNEXPECTED || run->tagged == TAGGED_NO_TAG) {
		cqe->opcode = run->tagged == TAGGED_UNEXPECTED ? FFV_WC_TM_RECV : FFV_WC_TM_NO_TAG;
		return;
	}
	fill_tag(cqe, run->resp, (uint32_t)run->rwqe.position, FFV_WC_SUCCESS);
	if (run->tagged == TAGGED_MATCH) {
		cqe->flags |= FFV_WC_TM_DATA_VALID;
		cqe->byte_len = run->length - (uint32_t)sizeof(struct ffv_tmh);
	}
	if (ext) {
		const struct ffv_tag_shm *tag = &run->resp->rq.tags[run->rwqe.position];
		ext->tag = ffv_word_load(&tag->message_tag);
		ext->tag_priv = ffv_word_load(&tag->app_ctx_be);
	}
}

/* The tag, or the receive work request, has been completed; a rendezvous' tag only for the first time. */
void ffv_run_forget_tagged(struct run *run)
{
	struct ffv_qp_shm *req = run->req->shm;

	if (run->tagged == TAGGED_RENDEZVOUS)
		return;
	if (run->tagged == TAGGED_MATCH) {
		req->tag_taken = FFV_TAKEN_NOT;
	} else {
		req->tag_counted = FFV_TAKEN_NOT;
		ffv_rq_forget(req);
	}
	run->tagged = TAGGED_NOT;
}

/* Both sides have been told of the request: now the owner may fetch the data, which completes at both sides again. */
void ffv_run_hand_rendezvous(struct run *run)
{
	struct ffv_qp_shm *req = run->req->shm;
	uint32_t order = FFV_TAG_ORDER(req->tag_state);
	uint64_t taken = FFV_TAG_STATE(order, FFV_TAG_TAKEN);

	ffv_cas(&run->resp->rq.tags[run->rwqe.position].state, &taken, FFV_TAG_STATE(order, FFV_TAG_RENDEZVOUS));
	run->env->face->attention(run->env->arg, run->resp->view,
				  FFV_ATTENTION_SRQ + run->resp->rq.srq_id % FFV_MAX_SRQ);
	req->tag_taken = FFV_TAKEN_NOT;
	run->tagged = TAGGED_NOT;
}

bool ffv_exec_complete_tag(const struct ffv_exec_env *env, const struct ffv_qp_ref *to, uint32_t slot, uint32_t status,
			   struct ffv_claim *claim)
{
	if (!ffv_exec_claim_recv(env, to, claim))
		return false;
	fill_tag(ffv_cq_entry(claim), to, slot, status);
	ffv_cq_entry_ext(claim);
	ffv_cq_publish(claim);
	ffv_cq_note_error(claim);
	return true;
}

/* What the failed message had taken ends with an error: the tag here, a receive work request by the caller. */
bool ffv_run_fail_tag(struct run *run, uint32_t status)
{
	if (run->tagged != TAGGED_MATCH && run->tagged != TAGGED_RENDEZVOUS)
		return false;
	ffv_exec_complete_tag(run->env, run->resp, (uint32_t)run->rwqe.position, status, &run->recv_claim);
	run->req->shm->tag_taken = FFV_TAKEN_NOT;
	run->have_rwqe = false;
	run->tagged = TAGGED_NOT;
	return true;
}

/* A message that was decided about is flushed: its tag is completed as such; that it was counted is taken back, for the
 * owner never sees it. */
void ffv_run_flush_tagged(struct run *run, const struct ffv_qp_ref *to)
{
	struct ffv_qp_shm *req = run->req->shm;
	struct ffv_claim claim = { .next = 0, .end = 0 };

	if (to && to->rq.tags && ffv_qp_ref_is_current(to)) {
		if (req->tag_taken == FFV_TAKEN_YES && req->tag_slot < to->rq.num_tags) {
			ffv_exec_complete_tag(run->env, to, req->tag_slot, FFV_WC_WR_FLUSH_ERR, &claim);
			ffv_run_finish_claim(run, &claim, to->view);
		}
		if (req->tag_counted == FFV_TAKEN_YES)
			ffv_fetch_sub(&srq_of(&to->rq)->phase, FFV_TAG_PHASE(1u, 0u));
	}
	req->tag_taken = req->tag_counted = FFV_TAKEN_NOT;
}

/* The owner's fetch of a rendezvous' data, or its message that says so, has ended: the tag is complete with the latter, or
 * when either fails. */
void ffv_run_complete_rendezvous(struct run *run, const struct ffv_wqe_shm *wqe, uint32_t status)
{
	struct ffv_claim claim = { .next = 0, .end = 0 };
	const struct ffv_qp_ref *req = run->req;
	bool is_last = wqe->opcode == FFV_WR_SEND;

	if ((status == FFV_WC_SUCCESS && !is_last) || !req->rq.tags || wqe->xrc_srqn >= req->rq.num_tags ||
	    !ffv_exec_claim_recv(run->env, req, &claim))
		return;
	struct ffv_cqe_shm *cqe = ffv_cq_entry(&claim);
	fill_tag(cqe, req, wqe->xrc_srqn, status ? FFV_WC_TM_RNDV_INCOMPLETE : FFV_WC_SUCCESS);
	cqe->vendor_err = wqe->imm_be;
	cqe->flags = FFV_CQE_SRQ | FFV_WC_TM_DATA_VALID;
	cqe->byte_len = ffv_word_load(&req->rq.tags[wqe->xrc_srqn].length_bytes);
	cqe->imm_be = (uint32_t)run->position;
	cqe->sl = 1;
	ffv_cq_entry_ext(&claim);
	ffv_cq_publish(&claim);
	if (status)
		ffv_cq_note_error(&claim);
	ffv_run_finish_claim(run, &claim, req->view);
}

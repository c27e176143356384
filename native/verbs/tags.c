/* SPDX-License-Identifier: MIT
 *
 * The operations on tags (ibv_post_srq_ops(3)) and the completions of a tag-matching queue.
 *
 * Threading: any thread; the queue's tm lock keeps the owner's threads apart, states and phase in shared memory owner and
 * senders. A poll takes the lock while it holds its completion queue's.
 */
#include "verbs/tags.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "verbs/cq.h"

/* ---- making and ending ------------------------------------------------------------------------------------------------ */

static int allocate(struct ffv_srq *srq, struct ffv_tm *tm, uint32_t max_sge)
{
	uint32_t n = tm->num_tags;

	tm->tag_bytes = (uint64_t)n * (sizeof *tm->tags + max_sge * sizeof *tm->sges);
	int rc = ffv_heap_alloc(&srq->ctx->heap, tm->tag_bytes, &tm->tag_line);
	if (rc)
		return rc;
	tm->tags = ffv_heap_at(&srq->ctx->heap, tm->tag_line);
	tm->sges = (struct ffv_sge_shm *)(tm->tags + n);
	tm->recv_wr_id = calloc(n, sizeof *tm->recv_wr_id);
	tm->order_of = calloc(n, sizeof *tm->order_of);
	tm->state = calloc(n, sizeof *tm->state);
	tm->op_wr_id = calloc(tm->max_ops, sizeof *tm->op_wr_id);
	tm->op_busy = calloc(tm->max_ops, sizeof *tm->op_busy);
	if (!tm->recv_wr_id || !tm->order_of || !tm->state || !tm->op_wr_id || !tm->op_busy)
		return ffv_fail(ENOMEM, "no memory for %u tags", n);
	return 0;
}

int ffv_tm_create(struct ffv_srq *srq, const struct ffv_srq_init_attr_ex *attr)
{
	const struct ffv_tm_cap *cap = &attr->tm_cap;

	if (cap->max_num_tags < 1 || cap->max_num_tags > FFV_MAX_TAGS || cap->max_ops < 1 || cap->max_ops > FFV_MAX_TAG_OPS)
		return ffv_fail(EINVAL, "a tag-matching queue has 1 to %u tags and 1 to %u operations under way, not %u and %u",
				FFV_MAX_TAGS, FFV_MAX_TAG_OPS, cap->max_num_tags, cap->max_ops);
	srq->tm = calloc(1, sizeof *srq->tm);
	if (!srq->tm)
		return ffv_fail(ENOMEM, "no memory for %u tags", cap->max_num_tags);
	srq->tm->num_tags = cap->max_num_tags;
	srq->tm->max_ops = cap->max_ops;
	return allocate(srq, srq->tm, attr->attr.max_sge);
}

void ffv_tm_publish(struct ffv_srq *srq)
{
	const struct ffv_tm *tm = srq->tm;

	srq->shm->tag_line = tm->tag_line;
	srq->shm->num_tags = tm->num_tags;
	ffv_store_relaxed(&srq->shm->phase, 0u);
	srq->rq.ref.num_tags = tm->num_tags;
	srq->rq.ref.tags = tm->tags;
	srq->rq.ref.tag_sges = tm->sges;
}

void ffv_tm_destroy(struct ffv_srq *srq)
{
	struct ffv_tm *tm = srq->tm;

	if (!tm)
		return;
	if (tm->tag_line && srq->ctx->fork_generation == ffv_fork_generation())
		ffv_context_retire(srq->ctx, tm->tag_line, tm->tag_bytes);
	free(tm->recv_wr_id);
	free(tm->order_of);
	free(tm->state);
	free(tm->op_wr_id);
	free(tm->op_busy);
	free(tm);
	srq->tm = NULL;
}

/* ---- phases ------------------------------------------------------------------------------------------------------------ */

static uint32_t unexpected(uint64_t phase)
{
	return (uint32_t)(phase >> 32);
}

/* Lets the tags up to tm->order count, if no message came that the application has not handled: then it may hold one that
 * such a tag would have matched. [tag-phase] with the senders' CAS. */
static bool advance(struct ffv_srq *srq)
{
	struct ffv_tm *tm = srq->tm;
	uint64_t phase = ffv_load_seq_cst(&srq->shm->phase);

	while (!tm->in_doubt && unexpected(phase) == tm->handled)
		if (ffv_cas(&srq->shm->phase, &phase, FFV_TAG_PHASE(tm->handled, tm->order)))
			return true;
	return false;
}

static void set_state(struct ffv_tm *tm, uint32_t slot, uint32_t what)
{
	/* [tag-arm] what the tag says before the state that arms it. */
	ffv_store_release(&tm->tags[slot].state, FFV_TAG_STATE(tm->order_of[slot], what));
}

/* Tags that do not count yet are armed, or disabled again. */
static void enable(struct ffv_srq *srq, bool arm)
{
	struct ffv_tm *tm = srq->tm;
	const uint32_t from = arm ? FFV_TAG_DISABLED : FFV_TAG_ARMED;
	uint32_t counts = (uint32_t)ffv_load_relaxed(&srq->shm->phase);

	for (uint32_t i = 0; i < tm->num_tags; i++)
		if (FFV_TAG_IS(ffv_load_relaxed(&tm->tags[i].state), from) && tm->state[i] == FFV_TM_POSTED &&
		    tm->order_of[i] - counts - 1 < INT32_MAX)
			set_state(tm, i, arm ? FFV_TAG_ARMED : FFV_TAG_DISABLED);
}

/* Arms what does not count yet and lets it count, if the phases agree. */
static void catch_up(struct ffv_srq *srq)
{
	enable(srq, true);
	if (!advance(srq))
		enable(srq, false);
}

static void synchronise(struct ffv_srq *srq, uint32_t handled)
{
	struct ffv_tm *tm = srq->tm;
	uint64_t phase = ffv_load_seq_cst(&srq->shm->phase);

	tm->handled = handled;
	if (tm->in_doubt) /* the application knows what it has seen */
		while (!ffv_cas(&srq->shm->phase, &phase, FFV_TAG_PHASE(handled, (uint32_t)phase)))
			;
	tm->in_doubt = false;
	catch_up(srq);
}

/* ---- operations --------------------------------------------------------------------------------------------------------- */

static int check_add(const struct ffv_srq *srq, const struct ffv_ops_tag_add *add)
{
	if (add->num_sge < 0 || (uint32_t)add->num_sge > srq->rq.max_sge)
		return ffv_fail(EINVAL, "%d scatter entries for a tag; the queue takes %u", add->num_sge, srq->rq.max_sge);
	for (int i = 0; i < add->num_sge; i++)
		if (add->sg_list[i].addr >= FFV_SGE_VOID)
			return ffv_fail(EINVAL, "a scatter entry at %#llx", (unsigned long long)add->sg_list[i].addr);
	return 0;
}

static int add_tag(struct ffv_srq *srq, struct ffv_ops_wr *wr)
{
	struct ffv_tm *tm = srq->tm;
	const struct ffv_ops_tag_add *add = &wr->tm.add;
	uint32_t slot = 0;

	while (slot < tm->num_tags && tm->state[slot])
		slot++;
	if (slot == tm->num_tags)
		return ffv_fail(ENOMEM, "all %u tags are in use", tm->num_tags);
	for (int i = 0; i < add->num_sge; i++)
		ffv_sge_write(&tm->sges[slot * srq->rq.max_sge + (uint32_t)i],
			      (struct ffv_sge_shm){ add->sg_list[i].addr, add->sg_list[i].length, add->sg_list[i].lkey });
	ffv_word_store(&tm->tags[slot].num_sge, (uint32_t)add->num_sge);
	ffv_word_store(&tm->tags[slot].tag, add->tag);
	ffv_word_store(&tm->tags[slot].mask, add->mask);
	tm->recv_wr_id[slot] = add->recv_wr_id;
	tm->order_of[slot] = ++tm->order;
	tm->state[slot] = FFV_TM_POSTED;
	wr->tm.handle = tm->order << 10 | slot;
	set_state(tm, slot, FFV_TAG_DISABLED);
	catch_up(srq);
	return 0;
}
_Static_assert(FFV_MAX_TAGS <= 1u << 10, "a handle is a slot and the order's low bits");

static uint32_t delete_tag(struct ffv_tm *tm, uint32_t handle)
{
	uint32_t slot = handle & ((1u << 10) - 1);

	if (slot >= tm->num_tags || tm->state[slot] != FFV_TM_POSTED || (tm->order_of[slot] ^ handle >> 10) << 10)
		return FFV_WC_TM_ERR;
	uint64_t free = FFV_TAG_STATE(tm->order_of[slot], FFV_TAG_FREE);
	uint64_t seen = FFV_TAG_STATE(tm->order_of[slot], FFV_TAG_ARMED);
	if (!ffv_cas(&tm->tags[slot].state, &seen, free)) {
		seen = FFV_TAG_STATE(tm->order_of[slot], FFV_TAG_DISABLED);
		if (!ffv_cas(&tm->tags[slot].state, &seen, free))
			return FFV_WC_TM_ERR; /* a message has it */
	}
	tm->state[slot] = FFV_TM_FREE;
	return FFV_WC_SUCCESS;
}

static void complete_op(struct ffv_srq *srq, const struct ffv_exec_env *env, const struct ffv_ops_wr *wr, uint32_t op,
			uint32_t status, struct ffv_claim *claim)
{
	static const uint8_t opcodes[] = { FFV_WC_TM_ADD, FFV_WC_TM_DEL, FFV_WC_TM_SYNC };
	const struct ffv_qp_ref to = { .view = &srq->ctx->view, .recv_cq = srq->cq->ref };
	struct ffv_tm *tm = srq->tm;
	bool in_phase = !tm->in_doubt && unexpected(ffv_load_relaxed(&srq->shm->phase)) == tm->handled;

	tm->op_wr_id[op] = wr->wr_id;
	tm->op_busy[op] = 1;
	if (!ffv_exec_claim_recv(env, &to, claim))
		return; /* the completion queue overran, and says so itself */
	struct ffv_cqe_shm *cqe = ffv_cq_entry(claim);
	memset((char *)cqe + sizeof cqe->sequence, 0, sizeof *cqe - sizeof cqe->sequence);
	cqe->qpn_side = FFV_CQE_RECV; /* of no queue pair */
	cqe->wqe_position = op;
	cqe->status = (uint8_t)status;
	cqe->opcode = opcodes[wr->opcode];
	cqe->flags = FFV_CQE_SRQ | (in_phase ? 0 : FFV_WC_TM_SYNC_REQ);
	cqe->src_qp = srq->id;
	ffv_cq_entry_ext(claim);
	ffv_cq_publish(claim);
}

static int free_op(const struct ffv_tm *tm, uint32_t *op)
{
	for (*op = 0; *op < tm->max_ops; ++*op)
		if (!tm->op_busy[*op])
			return 0;
	return ffv_fail(ENOMEM, "%u operations wait for their completion to be polled, the most there can be", tm->max_ops);
}

static int do_op(struct ffv_srq *srq, const struct ffv_exec_env *env, struct ffv_ops_wr *wr, struct ffv_claim *claim)
{
	struct ffv_tm *tm = srq->tm;
	uint32_t op = 0, status = FFV_WC_SUCCESS;

	if (wr->opcode > FFV_WR_TAG_SYNC || wr->flags & ~(FFV_OPS_SIGNALED | FFV_OPS_TM_SYNC))
		return ffv_fail(EINVAL, "there is no tag operation %u with flags %#x", wr->opcode, (unsigned)wr->flags);
	int rc = wr->opcode == FFV_WR_TAG_ADD ? check_add(srq, &wr->tm.add) : 0;
	if (!rc && wr->flags & FFV_OPS_SIGNALED)
		rc = free_op(tm, &op);
	if (rc)
		return rc;
	if (wr->flags & FFV_OPS_TM_SYNC || wr->opcode == FFV_WR_TAG_SYNC)
		synchronise(srq, wr->tm.unexpected_cnt);
	if (wr->opcode == FFV_WR_TAG_ADD)
		rc = add_tag(srq, wr);
	else if (wr->opcode == FFV_WR_TAG_DEL)
		status = delete_tag(tm, wr->tm.handle);
	if (!rc && wr->flags & FFV_OPS_SIGNALED)
		complete_op(srq, env, wr, op, status, claim);
	return rc;
}

int ffv_post_srq_ops(struct ffv_srq *srq, struct ffv_ops_wr *wr, struct ffv_ops_wr **bad_wr)
{
	struct ffv_claim claim = { .next = 0, .end = 0 };
	struct ffv_exec_env env;
	int rc = ffv_context_check(srq ? srq->ctx : NULL);

	if (!rc && !srq->tm)
		rc = ffv_fail(EOPNOTSUPP, "the shared receive queue does not match tags");
	if (!rc)
		rc = ffv_context_env(srq->ctx, &env);
	if (rc) {
		if (bad_wr)
			*bad_wr = wr;
		return rc;
	}
	ffv_spin_token token = ffv_spin_lock(&srq->tm->lock);
	for (; wr && !rc; wr = rc ? wr : wr->next)
		rc = do_op(srq, &env, wr, &claim);
	ffv_spin_unlock(&srq->tm->lock, token);
	if (claim.signal)
		ffv_cq_signal(srq->ctx, srq->cq->ref.id);
	if (rc && bad_wr)
		*bad_wr = wr;
	return rc;
}

/* ---- completions -------------------------------------------------------------------------------------------------------- */

static bool report_op(struct ffv_tm *tm, uint32_t op, struct ffv_wc *wc)
{
	if (op >= tm->max_ops || !tm->op_busy[op])
		return false;
	wc->wr_id = tm->op_wr_id[op];
	tm->op_busy[op] = 0;
	return true;
}

/* The first completion of a rendezvous, which only says that it matched, leaves the tag in use. */
static bool report_tag(struct ffv_tm *tm, const struct ffv_cqe_shm *cqe, struct ffv_wc *wc)
{
	uint32_t slot = cqe->wqe_position;

	if (slot >= tm->num_tags || !tm->state[slot] || tm->order_of[slot] != cqe->vendor_err)
		return false;
	wc->wr_id = tm->recv_wr_id[slot];
	if (cqe->flags & FFV_WC_TM_DATA_VALID || cqe->status) {
		ffv_store_release(&tm->tags[slot].state, FFV_TAG_STATE(tm->order_of[slot], FFV_TAG_FREE));
		tm->state[slot] = FFV_TM_FREE;
	}
	return true;
}

bool ffv_tm_report(struct ffv_srq *srq, const struct ffv_cqe_shm *cqe, struct ffv_wc *wc)
{
	ffv_spin_token token = ffv_spin_lock(&srq->tm->lock);
	bool known = cqe->opcode == FFV_WC_TM_RECV ? report_tag(srq->tm, cqe, wc) : report_op(srq->tm, cqe->wqe_position, wc);

	ffv_spin_unlock(&srq->tm->lock, token);
	return known;
}

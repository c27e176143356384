/* SPDX-License-Identifier: MIT
 *
 * Completion counters, the owner's side. The numbers stand in the arena, where whoever completes adds to them
 * (engine/counters.c). Any thread.
 */
#include "verbs/counter.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/error.h"
#include "verbs/device.h"

#define ALL_OPS ((1u << FFV_COUNTED_OPS) - 1)

int ffv_query_comp_cntr_caps(struct ffv_context *ctx, struct ffv_comp_cntr_caps *caps)
{
	int rc = ffv_context_check(ctx);

	if (!rc)
		*caps = (struct ffv_comp_cntr_caps){ .max_counters = FFV_LIMIT_COUNTERS, .max_value = UINT64_MAX,
						     .supported_qp_attach_ops = ALL_OPS };
	return rc;
}

int ffv_create_comp_cntr(struct ffv_context *ctx, const struct ffv_comp_cntr_init_attr *attr, struct ffv_comp_cntr **out)
{
	int rc = ffv_context_check(ctx);

	if (rc)
		return rc;
	if (attr && (attr->comp_mask || attr->type || attr->flags))
		return ffv_fail(EINVAL, "completion counters have no attributes, but comp_mask is %#x, type %u, flags %#x",
				attr->comp_mask, attr->type, attr->flags);
	struct ffv_comp_cntr *cntr = calloc(1, sizeof *cntr);
	rc = cntr ? ffv_heap_alloc(&ctx->heap, sizeof *cntr->shm, &cntr->line) :
		    ffv_fail(ENOMEM, "out of memory for a completion counter");
	if (rc) {
		free(cntr);
		return rc;
	}
	cntr->ctx = ctx;
	cntr->shm = ffv_heap_at(&ctx->heap, cntr->line);
	ffv_store_relaxed(&cntr->shm->completions, 0u);
	ffv_store_relaxed(&cntr->shm->errors, 0u);
	pthread_mutex_lock(&ctx->lock);
	bool is_room = ctx->num_counters < FFV_LIMIT_COUNTERS;
	if (is_room)
		ctx->num_counters++;
	pthread_mutex_unlock(&ctx->lock);
	if (!is_room) {
		ffv_heap_free(&ctx->heap, cntr->line, sizeof *cntr->shm);
		free(cntr);
		return ffv_fail(ENOMEM, "the context has %u completion counters, the most there can be", FFV_LIMIT_COUNTERS);
	}
	*out = cntr;
	return 0;
}

int ffv_destroy_comp_cntr(struct ffv_comp_cntr *cntr)
{
	uint32_t users = 0;

	if (!cntr)
		return ffv_fail(EINVAL, "no completion counter was given");
	struct ffv_context *ctx = cntr->ctx;
	if (!ffv_context_check(ctx)) {
		pthread_mutex_lock(&ctx->lock);
		users = cntr->users;
		if (!users)
			ctx->num_counters--;
		pthread_mutex_unlock(&ctx->lock);
		if (!users)
			ffv_heap_free(&ctx->heap, cntr->line, sizeof *cntr->shm); /* its queue pairs waited for executions */
	}
	if (users)
		return ffv_fail(EBUSY, "the completion counter is attached to %u operations of queue pairs: destroy those first",
				users);
	free(cntr);
	return 0;
}

static int check(const struct ffv_comp_cntr *cntr)
{
	return ffv_context_check(cntr ? cntr->ctx : NULL);
}

int ffv_set_comp_cntr(struct ffv_comp_cntr *cntr, uint64_t value)
{
	int rc = check(cntr);

	if (!rc)
		ffv_store_seq_cst(&cntr->shm->completions, value);
	return rc;
}

int ffv_set_err_comp_cntr(struct ffv_comp_cntr *cntr, uint64_t value)
{
	int rc = check(cntr);

	if (!rc)
		ffv_store_seq_cst(&cntr->shm->errors, value);
	return rc;
}

int ffv_inc_comp_cntr(struct ffv_comp_cntr *cntr, uint64_t amount)
{
	int rc = check(cntr);

	if (!rc)
		ffv_fetch_add(&cntr->shm->completions, amount);
	return rc;
}

int ffv_inc_err_comp_cntr(struct ffv_comp_cntr *cntr, uint64_t amount)
{
	int rc = check(cntr);

	if (!rc)
		ffv_fetch_add(&cntr->shm->errors, amount);
	return rc;
}

int ffv_read_comp_cntr(struct ffv_comp_cntr *cntr, uint64_t *value)
{
	int rc = check(cntr);

	if (!rc)
		*value = ffv_load_acquire(&cntr->shm->completions);
	return rc;
}

int ffv_read_err_comp_cntr(struct ffv_comp_cntr *cntr, uint64_t *value)
{
	int rc = check(cntr);

	if (!rc)
		*value = ffv_load_acquire(&cntr->shm->errors);
	return rc;
}

/* ---- attaching ------------------------------------------------------------------------------------------------------- */

/* qp.lock: nobody else attaches. */
static void attach(struct ffv_qp *qp, struct ffv_comp_cntr *cntr, uint32_t op_mask)
{
	struct ffv_qp_shm *shm = qp->ref.shm;

	for (uint32_t op = 0; op < FFV_COUNTED_OPS; op++) {
		if (!(op_mask & 1u << op))
			continue;
		qp->asked->counters[op] = cntr;
		shm->counter_line[op] = cntr->line;
	}
	/* [counter-attach] the lines before the bits that send executors to them. */
	ffv_fetch_or(&shm->counted, op_mask);
	pthread_mutex_lock(&qp->ctx->lock);
	cntr->users += (uint32_t)__builtin_popcount(op_mask);
	pthread_mutex_unlock(&qp->ctx->lock);
}

int ffv_qp_attach_comp_cntr(struct ffv_qp *qp, struct ffv_comp_cntr *cntr, uint32_t op_mask)
{
	int rc = ffv_context_check(qp ? qp->ctx : NULL);

	if (!rc)
		rc = check(cntr);
	if (rc)
		return rc;
	if (cntr->ctx != qp->ctx)
		return ffv_fail(EINVAL, "the completion counter is of another context");
	if (!op_mask || op_mask & ~ALL_OPS)
		return ffv_fail(EINVAL, "operations %#x to count: some of %#x are needed, others are unknown", op_mask, ALL_OPS);
	pthread_mutex_lock(&qp->lock);
	uint32_t taken = 0;
	for (uint32_t op = 0; op < FFV_COUNTED_OPS; op++)
		taken |= qp->asked->counters[op] ? 1u << op : 0;
	if (!(taken & op_mask))
		attach(qp, cntr, op_mask);
	pthread_mutex_unlock(&qp->lock);
	return taken & op_mask ? ffv_fail(EBUSY, "queue pair %#x has a counter for operations %#x already", qp->ref.qpn,
					  taken & op_mask) : 0;
}

void ffv_qp_detach_counters(struct ffv_qp *qp)
{
	pthread_mutex_lock(&qp->ctx->lock);
	for (uint32_t op = 0; qp->asked && op < FFV_COUNTED_OPS; op++)
		if (qp->asked->counters[op])
			qp->asked->counters[op]->users--;
	pthread_mutex_unlock(&qp->ctx->lock);
}

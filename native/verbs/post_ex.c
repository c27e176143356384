/* SPDX-License-Identifier: MIT
 *
 * Extended posting (ibv_wr_post(3)): a batch of send requests is built call by call and posted as one list, or not at all.
 *
 * Building and posting are fast path: no system call, no allocation, no log, but the waiting for another thread's batch. A
 * batch belongs to the thread that began it [wr-batch] and stands in private memory until it is complete: the send queue is
 * not locked meanwhile, so that an application that takes its time, or forgets a batch, stops no other poster but those
 * that want to begin one. The first mistake is kept and told at the end; what is built after it is dropped.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "verbs/qp.h"

#define SPINS 200u                 /* before the processor is given to somebody else */
#define TEXT_BYTES 200u

/* One request of a batch; its gather list and its inline data follow. */
struct entry {
	struct ffv_send_wr wr;
	struct ffv_sge sge[];
};

struct ffv_qp_batch {
	struct ffv_qp_ex ex;
	uint64_t send_ops;
	_Atomic uintptr_t poster;     /* [wr-batch] thread whose batch is open, 0 = none: the rest is its */
	int rc;                       /* of the first mistake */
	char text[TEXT_BYTES];
	uint32_t count;
	uint32_t room;
	uint32_t max_sge;
	uint32_t entry_bytes;
	uint8_t *entries;
};

static inline struct ffv_qp_batch *batch_of(struct ffv_qp_ex *ex)
{
	return (struct ffv_qp_batch *)(void *)ex;
}

static inline struct entry *entry_at(const struct ffv_qp_batch *batch, uint32_t index)
{
	return (struct entry *)(void *)(batch->entries + (size_t)index * batch->entry_bytes);
}

static inline uint8_t *inline_of(const struct ffv_qp_batch *batch, struct entry *entry)
{
	return (uint8_t *)&entry->sge[batch->max_sge];
}

/* ---- life ---------------------------------------------------------------------------------------------------------------- */

/* Which operations the opcodes of a type make: bit for bit the opcodes' numbers, but for the two youngest. */
static uint64_t ops_of(uint32_t opcodes)
{
	uint64_t ops = opcodes & (FFV_QP_EX_WITH_FLUSH - 1u);

	if (opcodes & 1u << FFV_WR_FLUSH)
		ops |= FFV_QP_EX_WITH_FLUSH;
	if (opcodes & 1u << FFV_WR_ATOMIC_WRITE)
		ops |= FFV_QP_EX_WITH_ATOMIC_WRITE;
	return ops;
}

int ffv_qp_check_ops(uint32_t type, uint64_t send_ops)
{
	uint64_t ops = ops_of(ffv_qp_opcodes(type));

	if (send_ops & ~ops)
		return ffv_fail(EOPNOTSUPP, "queue pairs of type %u cannot do the operations %#llx of send_ops_flags; they can do "
				"%#llx", type, (unsigned long long)(send_ops & ~ops), (unsigned long long)ops);
	return 0;
}

int ffv_qp_batch_create(struct ffv_qp *qp, uint64_t send_ops)
{
	struct ffv_qp_batch *batch = calloc(1, sizeof *batch);

	if (!batch)
		return ffv_fail(ENOMEM, "no memory for a queue pair");
	batch->ex.qp = qp;
	batch->send_ops = send_ops;
	batch->room = qp->max_send_wr ? qp->max_send_wr : 1;
	batch->max_sge = qp->max_send_sge ? qp->max_send_sge : 1; /* inline data is an element of the list */
	uint32_t bytes = (uint32_t)(sizeof(struct entry) + batch->max_sge * sizeof(struct ffv_sge)) + qp->max_inline;
	batch->entry_bytes = (bytes + 7u) & ~7u;
	batch->entries = calloc(batch->room, batch->entry_bytes); /* pages that are not used cost nothing */
	if (!batch->entries) {
		free(batch);
		return ffv_fail(ENOMEM, "no memory for batches of %u requests", qp->max_send_wr);
	}
	qp->batch = batch;
	return 0;
}

void ffv_qp_batch_destroy(struct ffv_qp *qp)
{
	if (!qp->batch)
		return;
	free(qp->batch->entries);
	free(qp->batch);
	qp->batch = NULL;
}

struct ffv_qp_ex *ffv_qp_to_qp_ex(struct ffv_qp *qp)
{
	return qp && qp->batch ? &qp->batch->ex : NULL;
}

/* ---- the batch ----------------------------------------------------------------------------------------------------------- */

/* Keeps the first mistake, whose text is this thread's last one. */
static void note(struct ffv_qp_batch *batch, int rc)
{
	if (batch->rc)
		return;
	batch->rc = rc;
	snprintf(batch->text, sizeof batch->text, "%s", ffv_error_text());
}

static void begin(struct ffv_qp_batch *batch)
{
	batch->count = 0;
	batch->rc = 0;
}

void ffv_wr_start(struct ffv_qp_ex *ex)
{
	struct ffv_qp_batch *batch = batch_of(ex);
	uintptr_t self = (uintptr_t)__builtin_thread_pointer(), seen = 0;

	/* [wr-batch] */
	for (unsigned spins = 1; !ffv_cas(&batch->poster, &seen, self); spins++) {
		if (seen == self) {
			note(batch, ffv_fail(EBUSY, "a batch was started in a batch: complete or abort it first"));
			return;
		}
		seen = 0;
		if (spins % SPINS)
			ffv_cpu_relax();
		else
			sched_yield();
	}
	begin(batch);
}

static bool is_mine(const struct ffv_qp_batch *batch)
{
	return ffv_load_relaxed(&batch->poster) == (uintptr_t)__builtin_thread_pointer();
}

static void end(struct ffv_qp_batch *batch)
{
	begin(batch);
	ffv_store_release(&batch->poster, (uintptr_t)0); /* [wr-batch] */
}

static int post_batch(struct ffv_qp_batch *batch)
{
	if (batch->rc)
		return ffv_fail(-batch->rc, "%s", batch->text);
	if (!batch->count)
		return 0;
	for (uint32_t i = 0; i + 1 < batch->count; i++)
		entry_at(batch, i)->wr.next = &entry_at(batch, i + 1)->wr;
	entry_at(batch, batch->count - 1)->wr.next = NULL;
	return ffv_qp_post_whole(batch->ex.qp, &entry_at(batch, 0)->wr);
}

int ffv_wr_complete(struct ffv_qp_ex *ex)
{
	struct ffv_qp_batch *batch = batch_of(ex);

	if (!is_mine(batch))
		return ffv_fail(EINVAL, "this thread has started no batch");
	int rc = post_batch(batch);
	end(batch);
	return rc;
}

void ffv_wr_abort(struct ffv_qp_ex *ex)
{
	if (is_mine(batch_of(ex)))
		end(batch_of(ex));
}

/* ---- requests ------------------------------------------------------------------------------------------------------------ */

/* The next request of the batch, NULL if it cannot be one. */
static struct ffv_send_wr *add(struct ffv_qp_ex *ex, uint64_t op, uint32_t opcode)
{
	struct ffv_qp_batch *batch = batch_of(ex);

	if (ffv_unlikely(!is_mine(batch) || batch->rc))
		return NULL;
	if (ffv_unlikely(!(batch->send_ops & op))) {
		note(batch, ffv_fail(EINVAL, "the queue pair was created without the operation %#llx in send_ops_flags",
				     (unsigned long long)op));
		return NULL;
	}
	if (ffv_unlikely(batch->count == batch->room)) {
		note(batch, ffv_fail(ENOMEM, "the send queue takes %u work requests, and the batch has more", batch->room));
		return NULL;
	}
	struct ffv_send_wr *wr = &entry_at(batch, batch->count++)->wr;
	*wr = (struct ffv_send_wr){ .wr_id = ex->wr_id, .opcode = opcode, .send_flags = ex->wr_flags & ~FFV_SEND_INLINE };
	return wr;
}

/* The request that is being built. */
static struct entry *current(struct ffv_qp_ex *ex)
{
	struct ffv_qp_batch *batch = batch_of(ex);

	if (ffv_unlikely(!is_mine(batch) || batch->rc))
		return NULL;
	if (ffv_likely(batch->count))
		return entry_at(batch, batch->count - 1);
	note(batch, ffv_fail(EINVAL, "a part of a request was set before the request was begun"));
	return NULL;
}

static void add_send(struct ffv_qp_ex *ex, uint64_t op, uint32_t opcode, uint32_t imm)
{
	struct ffv_send_wr *wr = add(ex, op, opcode);

	if (ffv_likely(wr != NULL))
		wr->imm_data_be = imm;
}

static void add_rdma(struct ffv_qp_ex *ex, uint64_t op, uint32_t opcode, uint32_t rkey, uint64_t remote_addr, uint32_t imm_be)
{
	struct ffv_send_wr *wr = add(ex, op, opcode);

	if (ffv_unlikely(!wr))
		return;
	wr->wr.rdma = (struct ffv_wr_rdma){ remote_addr, rkey };
	wr->imm_data_be = imm_be;
}

static void add_atomic(struct ffv_qp_ex *ex, uint64_t op, uint32_t opcode, uint32_t rkey, uint64_t remote_addr,
		       uint64_t compare_add, uint64_t swap)
{
	struct ffv_send_wr *wr = add(ex, op, opcode);

	if (ffv_likely(wr != NULL))
		wr->wr.atomic = (struct ffv_wr_atomic){ remote_addr, compare_add, swap, rkey };
}

void ffv_wr_send(struct ffv_qp_ex *ex)
{
	add_send(ex, FFV_QP_EX_WITH_SEND, FFV_WR_SEND, 0);
}

void ffv_wr_send_imm(struct ffv_qp_ex *ex, uint32_t imm_data_be)
{
	add_send(ex, FFV_QP_EX_WITH_SEND_WITH_IMM, FFV_WR_SEND_WITH_IMM, imm_data_be);
}

void ffv_wr_send_inv(struct ffv_qp_ex *ex, uint32_t invalidate_rkey)
{
	add_send(ex, FFV_QP_EX_WITH_SEND_WITH_INV, FFV_WR_SEND_WITH_INV, invalidate_rkey);
}

void ffv_wr_local_inv(struct ffv_qp_ex *ex, uint32_t invalidate_rkey)
{
	add_send(ex, FFV_QP_EX_WITH_LOCAL_INV, FFV_WR_LOCAL_INV, invalidate_rkey);
}

void ffv_wr_send_tso(struct ffv_qp_ex *ex, void *hdr, uint16_t hdr_sz, uint16_t mss)
{
	(void)hdr;
	if (is_mine(batch_of(ex)))
		note(batch_of(ex), ffv_fail(EOPNOTSUPP, "the device does not segment: a TSO request of %u header bytes and "
					    "segments of %u", hdr_sz, mss));
}

void ffv_wr_rdma_read(struct ffv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr)
{
	add_rdma(ex, FFV_QP_EX_WITH_RDMA_READ, FFV_WR_RDMA_READ, rkey, remote_addr, 0);
}

void ffv_wr_rdma_write(struct ffv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr)
{
	add_rdma(ex, FFV_QP_EX_WITH_RDMA_WRITE, FFV_WR_RDMA_WRITE, rkey, remote_addr, 0);
}

void ffv_wr_rdma_write_imm(struct ffv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr, uint32_t imm_data_be)
{
	add_rdma(ex, FFV_QP_EX_WITH_RDMA_WRITE_WITH_IMM, FFV_WR_RDMA_WRITE_WITH_IMM, rkey, remote_addr, imm_data_be);
}

void ffv_wr_atomic_cmp_swp(struct ffv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr, uint64_t compare, uint64_t swap)
{
	add_atomic(ex, FFV_QP_EX_WITH_ATOMIC_CMP_AND_SWP, FFV_WR_ATOMIC_CMP_AND_SWP, rkey, remote_addr, compare, swap);
}

void ffv_wr_atomic_fetch_add(struct ffv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr, uint64_t add_value)
{
	add_atomic(ex, FFV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD, FFV_WR_ATOMIC_FETCH_AND_ADD, rkey, remote_addr, add_value, 0);
}

void ffv_wr_atomic_write(struct ffv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr, const void *atomic_wr)
{
	add_rdma(ex, FFV_QP_EX_WITH_ATOMIC_WRITE, FFV_WR_ATOMIC_WRITE, rkey, remote_addr, 0);
	ffv_wr_set_inline_data(ex, atomic_wr, 8);
}

void ffv_wr_flush(struct ffv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr, size_t length, uint8_t type, uint8_t level)
{
	struct ffv_qp_batch *batch = batch_of(ex);

	if (!is_mine(batch))
		return;
	if (type & ~FFV_FLUSH_GLOBAL || !type) {
		note(batch, ffv_fail(type & FFV_FLUSH_PERSISTENT ? EOPNOTSUPP : EINVAL,
				     "a flush of type %#x; global visibility (%#x) is what the device has", type,
				     FFV_FLUSH_GLOBAL));
		return;
	}
	if (level > FFV_FLUSH_MR || length > FFV_MAX_MESSAGE) {
		note(batch, ffv_fail(EINVAL, "a flush of level %u and %zu bytes; there are range (0) and region (1), and at most "
				     "%llu bytes", level, length, FFV_MAX_MESSAGE));
		return;
	}
	add_atomic(ex, FFV_QP_EX_WITH_FLUSH, FFV_WR_FLUSH, rkey, remote_addr, length, level);
}

void ffv_wr_bind_mw(struct ffv_qp_ex *ex, struct ffv_mw *mw, uint32_t rkey, const struct ffv_mw_bind_info *bind_info)
{
	struct ffv_send_wr *wr = add(ex, FFV_QP_EX_WITH_BIND_MW, FFV_WR_BIND_MW);

	if (ffv_likely(wr != NULL))
		wr->tail.bind_mw = (struct ffv_wr_bind_mw){ mw, rkey, *bind_info };
}

/* ---- their parts --------------------------------------------------------------------------------------------------------- */

void ffv_wr_set_ud_addr(struct ffv_qp_ex *ex, struct ffv_ah *ah, uint32_t remote_qpn, uint32_t remote_qkey)
{
	struct entry *entry = current(ex);

	if (ffv_likely(entry && ex->qp->type == FFV_QPT_UD))
		entry->wr.wr.ud = (struct ffv_wr_ud){ ah, remote_qpn, remote_qkey };
	else if (entry)
		note(batch_of(ex), ffv_fail(EINVAL, "only the requests of UD queue pairs have an address"));
}

void ffv_wr_set_xrc_srqn(struct ffv_qp_ex *ex, uint32_t remote_srqn)
{
	struct entry *entry = current(ex);

	if (ffv_likely(entry != NULL))
		entry->wr.xrc_remote_srqn = remote_srqn;
}

void ffv_wr_set_sge(struct ffv_qp_ex *ex, uint32_t lkey, uint64_t addr, uint32_t length)
{
	const struct ffv_sge sge = { addr, length, lkey };

	ffv_wr_set_sge_list(ex, 1, &sge);
}

void ffv_wr_set_sge_list(struct ffv_qp_ex *ex, size_t num_sge, const struct ffv_sge *sg_list)
{
	struct entry *entry = current(ex);

	if (ffv_unlikely(!entry))
		return;
	if (ffv_unlikely(num_sge > ex->qp->max_send_sge)) {
		note(batch_of(ex), ffv_fail(EINVAL, "%zu gather entries; the send queue takes %u", num_sge,
					    ex->qp->max_send_sge));
		return;
	}
	memcpy(entry->sge, sg_list, num_sge * sizeof *sg_list);
	entry->wr.sg_list = entry->sge;
	entry->wr.num_sge = (int)num_sge;
	entry->wr.send_flags &= ~(uint32_t)FFV_SEND_INLINE;
}

void ffv_wr_set_inline_data(struct ffv_qp_ex *ex, const void *addr, size_t length)
{
	const struct ffv_data_buf buf = { (void *)(uintptr_t)addr, length };

	ffv_wr_set_inline_data_list(ex, 1, &buf);
}

void ffv_wr_set_inline_data_list(struct ffv_qp_ex *ex, size_t num_buf, const struct ffv_data_buf *buf_list)
{
	struct ffv_qp_batch *batch = batch_of(ex);
	struct entry *entry = current(ex);
	size_t total = 0;

	if (ffv_unlikely(!entry))
		return;
	for (size_t i = 0; i < num_buf; i++) {
		if (ffv_unlikely(buf_list[i].length > ex->qp->max_inline - total)) {
			note(batch, ffv_fail(EINVAL, "more than the %u bytes that can be sent inline", ex->qp->max_inline));
			return;
		}
		ffv_copy_bytes(inline_of(batch, entry) + total, buf_list[i].addr, buf_list[i].length);
		total += buf_list[i].length;
	}
	entry->sge[0] = (struct ffv_sge){ (uintptr_t)inline_of(batch, entry), (uint32_t)total, 0 };
	entry->wr.sg_list = entry->sge;
	entry->wr.num_sge = 1;
	entry->wr.send_flags |= FFV_SEND_INLINE;
}

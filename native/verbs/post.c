/* SPDX-License-Identifier: MIT
 *
 * Posting. Fast path: no system call, no allocation, no log. A send is written into the ring and executed at once by
 * this thread unless somebody else is executing the queue.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/fault.h"
#include "verbs/port.h"
#include "verbs/process.h"
#include "verbs/qp.h"
#include "verbs/rq.h"
#include "verbs/xrcd.h"

#define ATTACH_TIMEOUT_MS 1000

/* ---- running queues ---------------------------------------------------------------------------------------------------- */

static inline void run_once(struct ffv_qp *qp, const struct ffv_exec_env *env)
{
	struct ffv_link *link = ffv_qp_link(qp);

	if (ffv_unlikely(!link && ffv_type_is_connected(qp->type)))
		link = ffv_qp_refresh_link(qp);
	ffv_exec_run(env, &qp->ref, link ? &link->ref : NULL);
}

enum { STILL = 0, RUNS = 1, RUNS_AGAIN = 2 };

/* A proxy's queue works on memory of its owner's own, and the lock in the arena is one that any peer can open: one thread of
 * this process at a time is kept to here. Whoever comes meanwhile has the one that is there look again. */
static void run_proxied(struct ffv_qp *qp, const struct ffv_exec_env *env)
{
	uint8_t seen = STILL;

	while (!ffv_cas(&qp->runs, &seen, (uint8_t)RUNS)) {
		if (seen == RUNS_AGAIN || (seen == RUNS && ffv_cas(&qp->runs, &seen, (uint8_t)RUNS_AGAIN)))
			return;
		seen = STILL;
	}
	do {
		ffv_store_seq_cst(&qp->runs, (uint8_t)RUNS);
		run_once(qp, env);
		seen = RUNS;
	} while (!ffv_cas(&qp->runs, &seen, (uint8_t)STILL));
}

static inline void run(struct ffv_qp *qp, const struct ffv_exec_env *env)
{
	if (ffv_unlikely(qp->ref.view->proxy))
		run_proxied(qp, env);
	else
		run_once(qp, env);
}

void ffv_qp_await_run(const struct ffv_qp *qp)
{
	while (ffv_load_seq_cst(&qp->runs) != STILL)
		sched_yield();
}

int ffv_qp_run(struct ffv_qp *qp)
{
	struct ffv_exec_env env;
	int rc = ffv_context_env(qp->ctx, &env);

	if (!rc)
		run(qp, &env);
	return rc;
}

void ffv_qp_give_back_taken(struct ffv_qp *qp)
{
	if (ffv_word_load(&qp->ref.shm->rq_taken) == FFV_TAKEN_NOT)
		return;
	ffv_exec_set_error(qp->ref.shm, 0);
	ffv_qp_run(qp); /* whose flush gives it back; or whoever holds the queue does it */
}

int ffv_qp_serve_peer(struct ffv_qp *qp)
{
	struct ffv_exec_env env;
	struct ffv_link *link = ffv_qp_refresh_link(qp);

	if (!link)
		return 0;
	int rc = ffv_context_env(qp->ctx, &env);
	if (!rc && ffv_load_acquire(&link->ref.shm->sq_tail) != ffv_load_relaxed(&link->ref.shm->sq_exec))
		ffv_exec_run(&env, &link->ref, &qp->ref);
	return rc;
}

void ffv_qp_serve_or_ask(struct ffv_qp *qp)
{
	if (ffv_unlikely(ffv_qp_serve_peer(qp)))
		ffv_context_attention(qp->ctx, &qp->ctx->view, FFV_ATTENTION_QP + qp->ref.qpn % FFV_MAX_QP);
}

/* Serves who waits for a receive work request of the queue pair's own queue. */
static void serve_waiter(struct ffv_qp *qp)
{
	/* [rq-wait] cleared before the queues are looked at: who waits again after this sets it again. */
	ffv_store_seq_cst(&qp->own_rq->ref.shm->waiter, 0u);
	ffv_qp_serve_or_ask(qp);
}

/* ---- writing a send work request ------------------------------------------------------------------------------------------ */

#define OP(opcode) (1u << (opcode))

#define CONNECTED_OPCODES (OP(FFV_WR_RDMA_WRITE) | OP(FFV_WR_RDMA_WRITE_WITH_IMM) | OP(FFV_WR_SEND) | \
			   OP(FFV_WR_SEND_WITH_IMM) | OP(FFV_WR_RDMA_READ) | OP(FFV_WR_ATOMIC_CMP_AND_SWP) | \
			   OP(FFV_WR_ATOMIC_FETCH_AND_ADD) | OP(FFV_WR_LOCAL_INV) | OP(FFV_WR_BIND_MW) | \
			   OP(FFV_WR_SEND_WITH_INV) | OP(FFV_WR_FLUSH) | OP(FFV_WR_ATOMIC_WRITE))

static const uint32_t allowed_opcodes[] = {
	[FFV_QPT_RC] = CONNECTED_OPCODES,
	[FFV_QPT_UC] = OP(FFV_WR_RDMA_WRITE) | OP(FFV_WR_RDMA_WRITE_WITH_IMM) | OP(FFV_WR_SEND) |
		       OP(FFV_WR_SEND_WITH_IMM) | OP(FFV_WR_LOCAL_INV) | OP(FFV_WR_BIND_MW) | OP(FFV_WR_SEND_WITH_INV),
	[FFV_QPT_UD] = OP(FFV_WR_SEND) | OP(FFV_WR_SEND_WITH_IMM),
	[FFV_QPT_RAW_PACKET] = OP(FFV_WR_SEND),
	[FFV_QPT_XRC_SEND] = CONNECTED_OPCODES,
	[FFV_QPT_XRC_RECV] = 0,
};

#define INLINE_OPCODES (OP(FFV_WR_SEND) | OP(FFV_WR_SEND_WITH_IMM) | OP(FFV_WR_SEND_WITH_INV) | \
			OP(FFV_WR_RDMA_WRITE) | OP(FFV_WR_RDMA_WRITE_WITH_IMM) | OP(FFV_WR_ATOMIC_WRITE))

uint32_t ffv_qp_opcodes(uint32_t type)
{
	return type < sizeof allowed_opcodes / sizeof allowed_opcodes[0] ? allowed_opcodes[type] : 0;
}

/* What only some opcodes and types have to keep to. */
static int check_unusual(const struct ffv_qp *qp, const struct ffv_send_wr *wr, bool whole)
{
	if (wr->opcode == FFV_WR_FLUSH && !whole)
		return ffv_fail(EOPNOTSUPP, "a flush is posted by ffv_wr_flush: a work request has no fields for it");
	if (wr->opcode > 31 || !(allowed_opcodes[qp->type] & OP(wr->opcode)))
		return ffv_fail(wr->opcode > FFV_WR_SEND_WITH_INV ? EOPNOTSUPP : EINVAL,
				"opcode %u is not one of this queue pair's type", wr->opcode);
	if (wr->num_sge < 0 || (uint32_t)wr->num_sge > qp->max_send_sge)
		return ffv_fail(EINVAL, "%d gather entries; the send queue takes %u", wr->num_sge, qp->max_send_sge);
	if (wr->send_flags & FFV_SEND_INLINE && !(INLINE_OPCODES & OP(wr->opcode)))
		return ffv_fail(EINVAL, "opcode %u cannot be inline", wr->opcode);
	if (qp->type == FFV_QPT_UD && !wr->wr.ud.ah)
		return ffv_fail(EINVAL, "a datagram needs an address handle");
	if (wr->opcode == FFV_WR_BIND_MW &&
	    (!wr->tail.bind_mw.mw || (wr->tail.bind_mw.bind_info.length && !wr->tail.bind_mw.bind_info.mr)))
		return ffv_fail(EINVAL, "a bind needs a memory window and a memory region");
	return 0;
}

#define USUAL_OPCODES (OP(FFV_WR_SEND) | OP(FFV_WR_SEND_WITH_IMM) | OP(FFV_WR_RDMA_WRITE) | \
		       OP(FFV_WR_RDMA_WRITE_WITH_IMM))

static inline int check_send(const struct ffv_qp *qp, const struct ffv_send_wr *wr, uint64_t position, bool whole)
{
	bool usual = wr->opcode <= FFV_WR_SEND_WITH_IMM && USUAL_OPCODES & OP(wr->opcode) && qp->type <= FFV_QPT_UC &&
		     (uint32_t)wr->num_sge <= qp->max_send_sge;
	int rc = ffv_likely(usual) ? 0 : check_unusual(qp, wr, whole);

	/* [sq-report] pairs with the release in report: the slot's wr_id has been read. */
	if (ffv_unlikely(!rc && position - ffv_load_acquire(&qp->sq_completed) >= qp->max_send_wr))
		rc = ffv_fail(ENOMEM, "the send queue is full: %u work requests wait for their completion to be polled",
			      qp->max_send_wr);
	return rc;
}

static int write_inline(struct ffv_qp *qp, struct ffv_wqe_shm *wqe, const struct ffv_send_wr *wr)
{
	uint8_t *to = (uint8_t *)wqe->sge;
	uint64_t total = 0;

	for (int i = 0; i < wr->num_sge; i++)
		total += wr->sg_list[i].length;
	if (ffv_unlikely(total > qp->max_inline))
		return ffv_fail(EINVAL, "%llu bytes cannot be sent inline; %u can", (unsigned long long)total,
				qp->max_inline);
	for (int i = 0; i < wr->num_sge; i++) {
		ffv_copy_bytes(to, (const uint8_t *)(uintptr_t)wr->sg_list[i].addr, wr->sg_list[i].length);
		to += wr->sg_list[i].length;
	}
	wqe->length_bytes = (uint32_t)total;
	wqe->num_sge = 0;
	return 0;
}

static inline void write_sges(struct ffv_wqe_shm *wqe, const struct ffv_send_wr *wr)
{
	const struct ffv_sge *sge = wr->sg_list;
	uint64_t total = 0;

	for (int i = 0; i < wr->num_sge; i++, sge++) {
		/* Field by field, as the application has just written them: one wide load would wait until all of these stores
		 * have left the core's store buffer. */
		uint32_t length = ffv_word_load(&sge->length), lkey = ffv_word_load(&sge->lkey);
		wqe->sge[i] = (struct ffv_sge_shm){ sge->addr, length, lkey };
		total += length;
	}
	/* More than 32 bits hold is more than a message may have: the executor says so. */
	wqe->length_bytes = total > UINT32_MAX ? UINT32_MAX : (uint32_t)total;
	wqe->num_sge = (uint8_t)wr->num_sge;
}

static void write_ud(struct ffv_wqe_shm *wqe, const struct ffv_wr_ud *ud)
{
	const struct ffv_ah *ah = ud->ah;

	memcpy(wqe->ud.dgid, ah->dgid, 16);
	wqe->ud.qpn = ud->remote_qpn;
	wqe->ud.qkey = ud->remote_qkey;
	wqe->ud.flow_tclass = ah->attr.grh.flow_label << 8 | ah->attr.grh.traffic_class;
	wqe->ud.sgid_hop = (uint32_t)ah->attr.sl << 24 | (uint32_t)ah->attr.grh.sgid_index << 8 | ah->attr.grh.hop_limit;
}

static void write_bind(struct ffv_wqe_shm *wqe, const struct ffv_wr_bind_mw *bind)
{
	const struct ffv_mw_bind_info *info = &bind->bind_info;

	wqe->bind.addr = info->addr;
	wqe->bind.length_bytes = info->length;
	wqe->bind.new_key = bind->rkey;
	wqe->bind.old_key = bind->mw->rkey;
	wqe->bind.region_key = info->mr ? info->mr->lkey : 0;
	wqe->bind.access = info->mw_access_flags;
}

/* What only some opcodes and types say. */
__attribute__((noinline)) static void write_unusual(const struct ffv_qp *qp, struct ffv_wqe_shm *wqe,
						    const struct ffv_send_wr *wr)
{
	uint32_t opcode = wr->opcode;

	if (qp->type == FFV_QPT_UD) {
		write_ud(wqe, &wr->wr.ud);
	} else if (opcode == FFV_WR_RDMA_READ || opcode == FFV_WR_ATOMIC_WRITE) {
		wqe->rdma.remote_addr = wr->wr.rdma.remote_addr;
		wqe->rdma.rkey = wr->wr.rdma.rkey;
	} else if (opcode == FFV_WR_ATOMIC_CMP_AND_SWP || opcode == FFV_WR_ATOMIC_FETCH_AND_ADD ||
		   opcode == FFV_WR_FLUSH) {
		wqe->rdma.remote_addr = wr->wr.atomic.remote_addr;
		wqe->rdma.rkey = wr->wr.atomic.rkey;
		wqe->rdma.compare_add = wr->wr.atomic.compare_add;
		wqe->rdma.swap = wr->wr.atomic.swap;
	} else if (opcode == FFV_WR_BIND_MW) {
		write_bind(wqe, &wr->tail.bind_mw);
	}
}

static inline int write_wqe(struct ffv_qp *qp, uint64_t position, const struct ffv_send_wr *wr)
{
	struct ffv_wqe_shm *wqe = ffv_qp_ref_wqe(&qp->ref, position);
	uint32_t opcode = wr->opcode;

	qp->sq_wr_id[position & qp->ref.sq_index_mask] = wr->wr_id;
	if (ffv_unlikely(wr->send_flags & FFV_SEND_INLINE)) {
		int rc = write_inline(qp, wqe, wr);
		if (rc)
			return rc;
	} else {
		write_sges(wqe, wr);
	}
	wqe->opcode = (uint8_t)opcode;
	wqe->flags = (uint8_t)(wr->send_flags & 31) | (qp->sq_sig_all ? FFV_SEND_SIGNALED : 0);
	wqe->error = 0;
	wqe->imm_be = wr->imm_data_be;
	ffv_word_store(&wqe->xrc_srqn, wr->xrc_remote_srqn); /* others may be looking: ffv_xrc_named */
	if (opcode <= FFV_WR_RDMA_WRITE_WITH_IMM) {
		wqe->rdma.remote_addr = wr->wr.rdma.remote_addr;
		wqe->rdma.rkey = wr->wr.rdma.rkey;
	} else if (ffv_unlikely(opcode > FFV_WR_SEND_WITH_IMM || qp->type > FFV_QPT_UC)) {
		write_unusual(qp, wqe, wr);
	}
	return 0;
}

/* Datagrams: whoever is addressed for the first time is attached before the queue is locked. That nobody is there is no
 * error: the datagram is lost, as on a wire. */
static int attach_addressed(struct ffv_context *ctx, const struct ffv_send_wr *wr)
{
	int rc = 0;

	/* A request of another opcode has no address in its union; it is refused, and all after it. */
	for (; !rc && wr && wr->opcode <= 31 && allowed_opcodes[FFV_QPT_UD] & OP(wr->opcode); wr = wr->next) {
		const struct ffv_ah *ah = wr->wr.ud.ah;
		uint32_t qpn = wr->wr.ud.remote_qpn;
		if (ah && ffv_gid_is_multicast(ah->dgid))
			rc = ffv_port_join(ctx);
		else if (ah && !(qpn / FFV_QPN_BLOCK == ctx->block && !memcmp(ah->dgid, ctx->gid, 16)))
			ffv_peer_attach(ctx, ah->dgid, qpn, ATTACH_TIMEOUT_MS);
	}
	return rc;
}

/* XRC: the same for the contexts of shared receive queues that are not in the context that it is connected to. */
static void attach_named(struct ffv_qp *qp, const struct ffv_send_wr *wr)
{
	bool connected = ffv_load_relaxed(&qp->ref.shm->state) >= FFV_QPS_RTR;
	uint32_t dest_block = connected ? ffv_load_relaxed(&qp->ref.shm->dest_qpn) / FFV_QPN_BLOCK : 0;
	uint8_t dgid[16];

	ffv_qp_shm_dgid(qp->ref.shm, dgid);
	for (; wr; wr = wr->next) {
		uint32_t block = wr->xrc_remote_srqn / FFV_MAX_SRQ;
		if (block < FFV_QPN_BLOCKS && block != dest_block && block != qp->ctx->block)
			ffv_peer_attach(qp->ctx, dgid, block * FFV_QPN_BLOCK, ATTACH_TIMEOUT_MS);
	}
}

/* What the types that are not connected to one queue pair need before anything is posted. */
__attribute__((noinline)) static int prepare_unusual(struct ffv_qp *qp, const struct ffv_send_wr *wr)
{
	if (qp->type == FFV_QPT_UD)
		return attach_addressed(qp->ctx, wr);
	if (qp->type == FFV_QPT_RAW_PACKET)
		return ffv_port_join(qp->ctx);
	if (qp->type == FFV_QPT_XRC_SEND && !qp->ctx->proxy) /* a router has done so, and must not wait */
		attach_named(qp, wr);
	return 0;
}

/* Whether anything can be posted now; the environment to run it in. */
static inline int prepare(struct ffv_qp *qp, const struct ffv_send_wr *wr, struct ffv_exec_env *env)
{
	if (ffv_unlikely(!qp || qp->ctx->fork_generation != ffv_fork_generation()))
		return ffv_context_check(qp ? qp->ctx : NULL);
	uint32_t state = ffv_load_relaxed(&qp->ref.shm->state);
	if (ffv_unlikely(state < FFV_QPS_RTS))
		return ffv_fail(EINVAL, "queue pair %#x is in state %s; sends can be posted from RTS on", qp->ref.qpn,
				ffv_qp_state_name(state));
	int rc = ffv_context_env(qp->ctx, env);
	return ffv_unlikely(!rc && qp->type > FFV_QPT_UC) ? prepare_unusual(qp, wr) : rc;
}

/* whole: nothing of the list is posted if one of it cannot be. */
static inline int post(struct ffv_qp *qp, struct ffv_send_wr *wr, struct ffv_send_wr **bad_wr, bool whole)
{
	struct ffv_exec_env env;
	int rc = prepare(qp, wr, &env);

	if (ffv_unlikely(rc)) {
		if (bad_wr)
			*bad_wr = wr;
		return rc;
	}
	ffv_spin_token token = ffv_spin_lock(&qp->sq_lock);
	uint64_t position = qp->sq_posted;
	for (; wr; wr = wr->next) {
		rc = check_send(qp, wr, position, whole);
		if (!rc)
			rc = write_wqe(qp, position, wr);
		if (ffv_unlikely(rc))
			break;
		position++;
	}
	FFV_FAULT(post_send_written);
	bool posted = position != qp->sq_posted && !(whole && rc);
	if (ffv_likely(posted)) {
		qp->sq_posted = position;
		/* [sq-post] the work requests before the tail; the exec_lock's CAS orders it before looking for an
		 * executor. */
		ffv_store_release(&qp->ref.shm->sq_tail, position);
	}
	ffv_spin_unlock(&qp->sq_lock, token);
	if (ffv_likely(posted))
		run(qp, &env);
	if (ffv_unlikely(rc) && bad_wr)
		*bad_wr = wr;
	return rc;
}

int ffv_post_send(struct ffv_qp *qp, struct ffv_send_wr *wr, struct ffv_send_wr **bad_wr)
{
	return post(qp, wr, bad_wr, false);
}

int ffv_qp_post_whole(struct ffv_qp *qp, struct ffv_send_wr *wr)
{
	return post(qp, wr, NULL, true);
}

/* ---- receives ----------------------------------------------------------------------------------------------------------------- */

int ffv_post_recv(struct ffv_qp *qp, struct ffv_recv_wr *wr, struct ffv_recv_wr **bad_wr)
{
	bool waiter = false;
	int rc = 0;

	if (ffv_unlikely(!qp || qp->ctx->fork_generation != ffv_fork_generation()))
		rc = ffv_context_check(qp ? qp->ctx : NULL);
	else if (ffv_unlikely(!ffv_qp_has_own_rq(qp)))
		rc = ffv_fail(EINVAL, "queue pair %#x has no receives of its own: post to the shared receive queue", qp->ref.qpn);
	else if (ffv_unlikely(ffv_load_relaxed(&qp->ref.shm->state) == FFV_QPS_RESET))
		rc = ffv_fail(EINVAL, "queue pair %#x is in state RESET; receives can be posted from INIT on", qp->ref.qpn);
	if (ffv_unlikely(rc)) {
		if (bad_wr)
			*bad_wr = wr;
		return rc;
	}
	rc = ffv_rq_post(qp->own_rq, wr, bad_wr, &waiter);
	if (ffv_unlikely(waiter))
		serve_waiter(qp);
	if (ffv_unlikely(ffv_load_acquire(&qp->ref.shm->state) == FFV_QPS_ERR))
		ffv_qp_flush_receives(qp);
	return rc;
}

int ffv_post_srq_recv(struct ffv_srq *srq, struct ffv_recv_wr *wr, struct ffv_recv_wr **bad_wr)
{
	bool waiter = false;

	if (ffv_unlikely(!srq || srq->ctx->fork_generation != ffv_fork_generation())) {
		if (bad_wr)
			*bad_wr = wr;
		return ffv_context_check(srq ? srq->ctx : NULL);
	}
	int rc = ffv_rq_post(&srq->rq, wr, bad_wr, &waiter);
	if (ffv_unlikely(waiter))
		ffv_srq_serve_waiters(srq);
	return rc;
}

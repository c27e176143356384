/* SPDX-License-Identifier: MIT
 *
 * After the death of a peer: whatever it held or had half done in our arena is mended, its peers' QPs go to ERR with
 * flushed completions and an event (DESIGN D8). Service lock held; the dead peer is out of ctx->peers, its arena still
 * mapped. What stands in that arena may be torn or hostile: it only ever selects among our own objects.
 */
#include "base/error.h"
#include "verbs/attend.h"
#include "verbs/cq.h"
#include "verbs/qp.h"
#include "verbs/tags.h"
#include "verbs/taken.h"

#define OWN_WAIT_NS 5000000000ull /* for our own threads, which nobody but a debugger stops */

static bool is_held_by(uint64_t lock, const struct ffv_peer *dead)
{
	return lock && FFV_EXEC_CONTEXT(lock & ~FFV_EXEC_AGAIN) == (uint32_t)dead->view.context_id;
}

static void break_lock(_Atomic uint64_t *word, const struct ffv_peer *dead)
{
	uint64_t seen = ffv_load_acquire(word);

	while (is_held_by(seen, dead))
		if (ffv_cas(word, &seen, 0u))
			return;
}

/* ---- completions ------------------------------------------------------------------------------------------------------ */

/* True if another living peer's journal names this position of the CQ: it may be the one that claimed it. */
static bool is_claimed_by_living(struct ffv_context *ctx, uint32_t cq, uint64_t position)
{
	bool found = false;

	pthread_mutex_lock(&ctx->lock);
	for (struct ffv_peer *peer = ctx->peers; peer && !found; peer = peer->next) {
		if (ffv_peer_state(peer) != FFV_PEER_ATTACHED)
			continue;
		for (uint32_t i = 0; i < FFV_MAX_THREADS && !found; i++) {
			struct ffv_thread_shm *thread = &peer->view.arena->threads[i];
			uint64_t first = ffv_load_relaxed(&thread->claim_first);
			found = ffv_load_acquire(&thread->claim_ctx) == ctx->view.context_id &&
				ffv_load_relaxed(&thread->claim_cq) == cq && position >= first &&
				position - first < ffv_load_relaxed(&thread->claim_count);
		}
	}
	pthread_mutex_unlock(&ctx->lock);
	return found;
}

/* Publishes, as void, what the dead thread claimed and did not publish. */
static void fill_claim(struct ffv_context *ctx, const struct ffv_thread_shm *thread)
{
	uint32_t id = ffv_load_relaxed(&thread->claim_cq), count = ffv_load_relaxed(&thread->claim_count);
	uint64_t first = ffv_load_relaxed(&thread->claim_first);
	struct ffv_cq *cq = id < FFV_MAX_CQ ? ctx->cqs[id] : NULL;

	if (!cq || count > FFV_MAX_CQE)
		return;
	uint64_t tail = FFV_CQ_POSITION(ffv_load_acquire(&cq->ref.shm->tail));
	uint64_t head = ffv_load_acquire(&cq->ref.shm->head);
	for (uint64_t p = first; p < first + count && p < tail; p++) {
		struct ffv_cq_ref ring = ffv_cq_ring_at(cq, p);
		if (ffv_cq_is_published(&ring, p) || is_claimed_by_living(ctx, id, p))
			continue;
		if (p < head)
			ffv_cq_give_up_late(cq, p);
		if (p < head || ffv_cq_is_hole_slot(&ring, p))
			continue;
		struct ffv_cqe_shm *cqe = &ring.ring[p & ring.index_mask];
		cqe->qpn_side = 0;
		ffv_store_release(&cqe->sequence, (uint32_t)(p + 1));
	}
	ffv_cq_signal_spurious(cq); /* the event that the dead owed */
}

static void fill_claims(struct ffv_context *ctx, struct ffv_peer *dead)
{
	/* Threads of living peers that lost the race for a position have gone on after this, mostly; those of this process,
	 * whose own claims nobody names, in any case. */
	ffv_context_quiesce(ctx, 100000000);
	ffv_context_quiesce_own(ctx, OWN_WAIT_NS);
	for (uint32_t i = 0; i < FFV_MAX_THREADS; i++) {
		const struct ffv_thread_shm *thread = &dead->view.arena->threads[i];
		if (ffv_load_acquire(&thread->claim_ctx) == ctx->view.context_id)
			fill_claim(ctx, thread);
	}
}

/* ---- queue pairs ------------------------------------------------------------------------------------------------------------ */

/* The dead may have died between publishing a completion and moving the queue on: what is completed is not flushed. */
static void move_on(struct ffv_qp *qp)
{
	struct ffv_qp_shm *shm = qp->ref.shm;
	uint64_t exec = ffv_load_relaxed(&shm->sq_exec);
	uint64_t done = qp->send_cq ? ffv_cq_last_completed(qp->send_cq, qp->ref.qpn, ffv_load_relaxed(&qp->sq_completed))
				    : exec;

	if (done > exec && done <= ffv_load_relaxed(&shm->sq_tail))
		ffv_store_relaxed(&shm->sq_exec, done);
	if (!ffv_qp_has_own_rq(qp))
		return;
	uint64_t reported = ffv_load_relaxed(&shm->rq.head);
	uint64_t oldest = reported > qp->own_rq->ref.index_mask ? reported - qp->own_rq->ref.index_mask : 0;
	while (oldest < reported && !ffv_load_relaxed(&qp->own_rq->busy[oldest & qp->own_rq->ref.index_mask]))
		oldest++;
	uint64_t received = ffv_cq_last_completed(qp->recv_cq, qp->ref.qpn | FFV_CQE_RECV, oldest);
	if (received > reported && received <= ffv_load_relaxed(&shm->rq.tail))
		ffv_store_relaxed(&shm->rq.head, received);
}

static void end_qp(struct ffv_context *ctx, struct ffv_qp *qp)
{
	uint32_t state = ffv_load_acquire(&qp->ref.shm->state);

	if (state == FFV_QPS_RESET || state == FFV_QPS_INIT)
		return;
	if (ffv_exec_set_error(qp->ref.shm, FFV_WC_RETRY_EXC_ERR))
		ffv_fetch_or(&qp->ref.shm->events, 1u << FFV_EVENT_QP_FATAL);
	ffv_attend_qp(ctx, qp);
	if (qp->send_cq)
		ffv_cq_signal_spurious(qp->send_cq);
	if (qp->recv_cq && qp->recv_cq != qp->send_cq)
		ffv_cq_signal_spurious(qp->recv_cq);
}

static void repair_qp(struct ffv_context *ctx, struct ffv_qp *qp, struct ffv_link *link)
{
	struct ffv_peer *dead = link->peer;

	break_lock(&qp->ref.shm->exec_lock, dead);
	if (qp->ref.rq.shared_takers)
		ffv_taken_flush(ctx, qp, link->ref.shm);
	ffv_tm_repair(qp, link->ref.shm);
	move_on(qp);
	qp->ref.shm->rq_taken = FFV_TAKEN_NOT;
	end_qp(ctx, qp);
}

/* Whether the dead was a proxy that the queue pair is connected to: its router may have run our queue before we had a
 * link of our own to it. */
static bool was_run_by(const struct ffv_qp *qp, const struct ffv_peer *dead)
{
	const struct ffv_qp_shm *shm = qp->ref.shm;
	uint8_t dgid[16];

	ffv_qp_shm_dgid(shm, dgid);
	return dead->view.proxy && ffv_type_is_connected(qp->type) && ffv_load_acquire(&shm->state) >= FFV_QPS_RTR &&
	       ffv_load_relaxed(&shm->dest_qpn) / FFV_QPN_BLOCK == dead->qpn_first / FFV_QPN_BLOCK &&
	       !memcmp(dgid, dead->gid, 16);
}

static void repair_unlinked(struct ffv_context *ctx, struct ffv_qp *qp, struct ffv_peer *dead)
{
	break_lock(&qp->ref.shm->exec_lock, dead);
	move_on(qp);
	end_qp(ctx, qp);
}

void ffv_repair_after(struct ffv_context *ctx, struct ffv_peer *dead)
{
	fill_claims(ctx, dead);
	for (uint32_t i = 0; i < FFV_MAX_QP; i++) {
		struct ffv_qp *qp = ffv_context_qp(ctx, i);
		struct ffv_link *link = qp ? ffv_qp_link(qp) : NULL;
		if (link && link->peer == dead)
			repair_qp(ctx, qp, link);
		else if (qp && !link && was_run_by(qp, dead))
			repair_unlinked(ctx, qp, dead);
		else if (qp) /* it may have executed for us as the owner of whom a datagram or an XRC request names */
			break_lock(&qp->ref.shm->exec_lock, dead);
	}
	ffv_taken_flush_named(ctx, dead);
	ffv_attend_all(ctx);
}

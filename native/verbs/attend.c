/* SPDX-License-Identifier: MIT
 *
 * See attend.h. Runs on the service thread, or on a user's thread with ctx->service held.
 */
#include "verbs/attend.h"

#include <errno.h>
#include <unistd.h>

#include "base/clock.h"
#include "verbs/ask.h"
#include "verbs/cq.h"
#include "verbs/port.h"
#include "verbs/process.h"
#include "verbs/qp.h"
#include "verbs/rq.h"
#include "verbs/tags.h"
#include "verbs/xrcd.h"

#define FLUSH_WAIT_NS 1000000ull  /* for an execution to end, before trying again later */
#define RETRY_NS 5000000ull       /* between tries of what a stopped peer held up */

static void kick_timer(struct ffv_context *ctx)
{
	struct ffv_loop *loop = ffv_process_loop();

	if (loop && ctx->timer_source)
		ffv_loop_kick(loop, ctx->timer_source);
}

/* ---- queue pairs --------------------------------------------------------------------------------------------------------- */

bool ffv_qp_flush_receives(struct ffv_qp *qp)
{
	struct ffv_exec_env env;
	struct ffv_claim claim = { .next = 0, .end = 0 };
	struct ffv_rwqe rwqe;
	struct ffv_qp_shm taker = { .rq_taken = FFV_TAKEN_NOT };

	if (!ffv_qp_has_own_rq(qp))
		return true;
	if (ffv_context_env(qp->ctx, &env) || !ffv_qp_quiesce(qp, FLUSH_WAIT_NS))
		return false; /* its state is ERR: whoever executes on it now is the last one */
	const struct ffv_rq_ref *rq = &qp->ref.rq;
	pthread_mutex_lock(&qp->flush);
	/* [flush-reset] Its owner may have reset it meanwhile, and what is posted since then is not to be flushed. */
	while (ffv_load_acquire(&qp->ref.shm->state) == FFV_QPS_ERR &&
	       (rq->shared_takers ? ffv_rq_take(rq, &taker, &rwqe) : ffv_rq_peek(rq, &rwqe))) {
		if (!rq->shared_takers)
			ffv_rq_advance(rq, rwqe.position);
		if (!ffv_exec_complete_recv(&env, &qp->ref, rwqe.position, FFV_WC_WR_FLUSH_ERR, &claim))
			break;
	}
	pthread_mutex_unlock(&qp->flush);
	if (claim.signal)
		ffv_cq_signal(qp->ctx, qp->recv_cq->ref.id);
	return true;
}

static void raise_events(struct ffv_context *ctx, struct ffv_qp *qp)
{
	uint32_t events = ffv_exchange(&qp->ref.shm->events, 0u);

	if (events & 1u << FFV_EVENT_WQ_FATAL && qp->wq)
		ffv_async_raise(ctx, FFV_EVENT_WQ_FATAL, 5, qp->wq, &qp->async_outstanding);
	events &= ~(1u << FFV_EVENT_WQ_FATAL);
	for (uint32_t type = 0; events; type++, events >>= 1)
		if (events & 1)
			ffv_async_raise(ctx, type, 2, qp, &qp->async_outstanding);
}

static void flush(struct ffv_context *ctx, struct ffv_qp *qp)
{
	bool done = ffv_qp_flush_receives(qp);

	ffv_qp_run(qp);
	/* A READ is not flushed while a device brings it, and nobody need come to tell of its end. */
	if (!done || ffv_load_acquire(&qp->ref.shm->sq_exec) != ffv_load_acquire(&qp->ref.shm->sq_tail)) {
		ctx->retry_flush = true;
		kick_timer(ctx);
	}
	if (qp->srq && !qp->last_wqe_raised) {
		qp->last_wqe_raised = true;
		ffv_async_raise(ctx, FFV_EVENT_QP_LAST_WQE_REACHED, 2, qp, &qp->async_outstanding);
	}
}

void ffv_qp_report_drained(struct ffv_qp *qp)
{
	const struct ffv_qp_shm *shm = qp->ref.shm;

	/* [sq-drained] */
	if (ffv_load_acquire(&shm->state) == FFV_QPS_SQD && !ffv_load_acquire(&shm->draining) &&
	    ffv_exchange(&qp->tell_drained, false))
		ffv_async_raise(qp->ctx, FFV_EVENT_SQ_DRAINED, 2, qp, &qp->async_outstanding);
}

static void put_on_timer(struct ffv_context *ctx, struct ffv_qp *qp)
{
	if (!qp->on_timer) {
		qp->on_timer = true;
		qp->timer_next = ctx->waiting;
		ctx->waiting = qp;
	}
	kick_timer(ctx);
}

static bool has_timer(uint32_t blocked)
{
	return blocked == FFV_BLOCKED_RNR || blocked == FFV_BLOCKED_PEER || blocked == FFV_BLOCKED_PACED;
}

void ffv_attend_qp(struct ffv_context *ctx, struct ffv_qp *qp)
{
	struct ffv_qp_shm *shm = qp->ref.shm;
	uint32_t blocked = ffv_load_acquire(&shm->blocked);
	uint32_t state = ffv_load_acquire(&shm->state);

	raise_events(ctx, qp);
	if (state == FFV_QPS_ERR) {
		flush(ctx, qp);
		return;
	}
	if (ffv_unlikely(ffv_load_relaxed(&qp->tell_drained)))
		ffv_qp_report_drained(qp);
	/* A receive was posted, of another context than the one it is connected to. */
	if (qp->type == FFV_QPT_XRC_SEND && blocked == FFV_BLOCKED_RNR) {
		ffv_qp_run(qp);
		blocked = ffv_load_acquire(&shm->blocked);
	}
	if (has_timer(blocked))
		put_on_timer(ctx, qp);
	else if (blocked == FFV_BLOCKED_REQUESTER || state == FFV_QPS_SQE ||
		 (blocked == FFV_BLOCKED_RESPONDER && /* which may be gone */
		  (qp->type == FFV_QPT_UD || qp->type == FFV_QPT_XRC_SEND)) ||
		 (!blocked && ffv_load_acquire(&shm->sq_tail) != ffv_load_relaxed(&shm->sq_exec))) /* handed over to us */
		ffv_qp_run(qp);
	if (qp->type == FFV_QPT_UD)
		ffv_qp_serve_datagrams(ctx);
	else
		ffv_qp_serve_peer(qp);
}

/* What the queue of a peer's queue pair waits for; 0 = nothing. Only words that change in use are read: the owner may be about
 * to make another queue pair of one that does not wait. */
static uint32_t blocked_by(const struct ffv_peer *peer, uint32_t index)
{
	uint32_t line = ffv_load_acquire(&peer->view.arena->qp_line[index]);
	const struct ffv_qp_shm *shm = line ? ffv_view_at(&peer->view, line, sizeof *shm) : NULL;

	return shm && ffv_load_acquire(&shm->generation) & 1 ? ffv_load_acquire(&shm->blocked) : 0;
}

/* A peer's datagram waits for memory that only we reach: which one is it? Slow, and rare. */
static void serve_datagrams_of(struct ffv_context *ctx, struct ffv_peer *peer)
{
	struct ffv_exec_env env;
	struct ffv_qp_ref ref;

	if (ffv_context_env(ctx, &env))
		return;
	for (uint32_t i = 0; i < FFV_MAX_QP; i++)
		if (blocked_by(peer, i) == FFV_BLOCKED_RESPONDER && !ffv_qp_ref_open(&peer->view, peer->qpn_first + i, &ref) &&
		    ref.type == FFV_QPT_UD)
			ffv_exec_run(&env, &ref, NULL);
}

void ffv_attend_new_peer(struct ffv_context *ctx, struct ffv_peer *peer)
{
	for (uint32_t i = 0; ctx->proxy && i < FFV_MAX_QP; i++) {
		uint32_t blocked = blocked_by(peer, i);
		if (blocked == FFV_BLOCKED_RESPONDER || blocked == FFV_BLOCKED_PEER)
			ctx->proxy->wanted(ctx->proxy->arg, peer->gid, peer->qpn_first + i);
	}
}

void ffv_qp_serve_datagrams(struct ffv_context *ctx)
{
	pthread_mutex_lock(&ctx->lock);
	for (struct ffv_peer *peer = ctx->peers; peer; peer = peer->next)
		if (ffv_peer_state(peer) == FFV_PEER_ATTACHED)
			peer->refs++;
	struct ffv_peer *first = ctx->peers;
	pthread_mutex_unlock(&ctx->lock);
	/* The list only changes under the service lock (which we hold) but for new ones at its front. */
	for (struct ffv_peer *peer = first; peer; peer = peer->next) {
		if (ffv_peer_state(peer) != FFV_PEER_ATTACHED)
			continue;
		serve_datagrams_of(ctx, peer);
		ffv_peer_put(peer);
	}
}

/* ---- other objects ---------------------------------------------------------------------------------------------------------- */

static void attend_cq(struct ffv_context *ctx, struct ffv_cq *cq)
{
	ffv_cq_signal_owed(cq);
	if (ffv_cq_is_held_back(cq->ref.shm) && ffv_cq_hold(cq))
		kick_timer(ctx);
	if (ffv_load_relaxed(&cq->ref.shm->overrun) && !cq->overrun_reported) {
		cq->overrun_reported = true;
		ffv_async_raise(ctx, FFV_EVENT_CQ_ERR, 1, cq, &cq->async_outstanding);
	}
	if (ffv_load_acquire(&cq->watched)) {
		ctx->watch_holes = true;
		kick_timer(ctx);
	}
}

static void attend_srq(struct ffv_context *ctx, struct ffv_srq *srq)
{
	uint32_t limit = ffv_load_relaxed(&srq->shm->rq.limit);

	if (srq->type == FFV_SRQT_XRC)
		ffv_xrc_serve(ctx, srq);
	else if (srq->tm)
		ffv_tm_fetch(ctx, srq);
	if (ctx->retry_srq)
		kick_timer(ctx);
	/* One event an arming (ibv_modify_srq(3)). */
	if (limit && ffv_rq_depth(&srq->rq.ref) < limit && ffv_cas(&srq->shm->rq.limit, &limit, 0u))
		ffv_async_raise(ctx, FFV_EVENT_SRQ_LIMIT_REACHED, 3, srq, &srq->async_outstanding);
}

/* A proxy's bit names a queue pair of some peer's by its index. */
static void attend_for_peers(struct ffv_context *ctx, uint32_t index)
{
	pthread_mutex_lock(&ctx->lock);
	for (struct ffv_peer *peer = ctx->peers; peer; peer = peer->next)
		if (ffv_peer_state(peer) == FFV_PEER_ATTACHED) /* even if it is gone: the other host has to know */
			ctx->proxy->wanted(ctx->proxy->arg, peer->gid, peer->qpn_first + index);
	pthread_mutex_unlock(&ctx->lock);
}

static void attend_bit(struct ffv_context *ctx, uint32_t bit)
{
	if (bit < FFV_ATTENTION_CQ && ctx->proxy)
		attend_for_peers(ctx, bit);
	if (bit < FFV_ATTENTION_CQ) {
		struct ffv_qp *qp = ffv_context_qp(ctx, bit);
		if (qp)
			ffv_attend_qp(ctx, qp);
		if (qp && ctx->proxy)
			ctx->proxy->attended(ctx->proxy->arg, qp->ref.qpn);
		return;
	}
	if (bit < FFV_ATTENTION_SRQ) {
		pthread_mutex_lock(&ctx->lock);
		struct ffv_cq *cq = ctx->cqs[bit - FFV_ATTENTION_CQ];
		pthread_mutex_unlock(&ctx->lock);
		if (cq)
			attend_cq(ctx, cq);
		return;
	}
	if (bit >= FFV_ATTENTION_PORT) {
		ffv_port_drain(ctx);
		return;
	}
	pthread_mutex_lock(&ctx->lock);
	struct ffv_srq *srq = ffv_load_acquire(&ctx->srqs[bit - FFV_ATTENTION_SRQ]);
	pthread_mutex_unlock(&ctx->lock);
	if (srq)
		attend_srq(ctx, srq);
}

static void attend_bits(struct ffv_context *ctx)
{
	for (uint32_t word = 0; word < FFV_ATTENTION_WORDS; word++) {
		if (!ffv_load_relaxed(&ctx->view.arena->attention[word]))
			continue;
		/* [attention] what was written before the bit was set is seen. */
		uint64_t bits = ffv_exchange(&ctx->view.arena->attention[word], 0);
		for (; bits; bits &= bits - 1)
			attend_bit(ctx, word * 64 + (uint32_t)__builtin_ctzll(bits));
	}
}

void ffv_attend_doorbell(void *arg, uint32_t events)
{
	struct ffv_context *ctx = arg;
	uint64_t count;

	(void)events;
	if (read(ctx->doorbell_fd, &count, sizeof count) < 0 && errno != EAGAIN)
		return;
	pthread_mutex_lock(&ctx->service);
	if (!ctx->closing)
		attend_bits(ctx);
	pthread_mutex_unlock(&ctx->service);
}

void ffv_attend_all(struct ffv_context *ctx)
{
	for (uint32_t i = 0; i < FFV_MAX_QP; i++) {
		struct ffv_qp *qp = ffv_context_qp(ctx, i);
		if (qp)
			ffv_attend_qp(ctx, qp);
	}
	attend_bits(ctx);
	for (uint32_t i = 0; i < FFV_MAX_CQ; i++)
		if (ctx->cqs[i])
			attend_cq(ctx, ctx->cqs[i]);
}

void ffv_attend_peer_left(struct ffv_context *ctx, struct ffv_peer *peer)
{
	/* Its queue pairs are destroyed: what we still send there runs into the retry timer, as on a wire; a datagram that waits
	 * for it to be read, or taken by a router, is lost. */
	for (uint32_t i = 0; i < FFV_MAX_QP; i++) {
		struct ffv_qp *qp = ffv_context_qp(ctx, i);
		struct ffv_link *link = qp ? ffv_qp_link(qp) : NULL;
		if ((link && link->peer == peer) || (qp && (qp->type == FFV_QPT_XRC_SEND || /* or its queue was there */
							    (qp->type == FFV_QPT_UD &&
							     ffv_load_acquire(&qp->ref.shm->blocked) == FFV_BLOCKED_RESPONDER))))
			ffv_qp_run(qp);
	}
}

/* ---- timers -------------------------------------------------------------------------------------------------------------------- */

/* If it is there by now, it serves us when attached. */
static void look_for_peer(struct ffv_context *ctx, const struct ffv_qp_shm *shm)
{
	uint32_t dest_qpn = ffv_load_relaxed(&shm->dest_qpn);
	uint8_t dgid[16];

	ffv_qp_shm_dgid(shm, dgid);
	if (ffv_peer_connect(ctx, dgid, dest_qpn) == -ENOENT)
		ffv_ask_router(ctx, dgid, dest_qpn, 0);
}

/* A blocked queue: tries again if its time has come. Returns when it is to be looked at next, 0 = not any more. */
static uint64_t try_again(struct ffv_context *ctx, struct ffv_qp *qp, uint64_t now_ns)
{
	struct ffv_qp_shm *shm = qp->ref.shm;
	uint32_t blocked = ffv_load_acquire(&shm->blocked);

	if (!has_timer(blocked))
		return 0;
	if (now_ns < ffv_load_relaxed(&shm->deadline_ns))
		return ffv_load_relaxed(&shm->deadline_ns);
	if (blocked == FFV_BLOCKED_PEER && !ffv_qp_refresh_link(qp))
		look_for_peer(ctx, shm);
	ffv_qp_run(qp);
	blocked = ffv_load_acquire(&shm->blocked);
	if (!has_timer(blocked))
		return 0;
	uint64_t next_ns = ffv_load_relaxed(&shm->deadline_ns);
	return next_ns > now_ns ? next_ns : now_ns + RETRY_NS;
}

/* The same, and who blocks the queue meanwhile is told when that is. */
static uint64_t try_and_tell(struct ffv_context *ctx, struct ffv_qp *qp, uint64_t now_ns)
{
	struct ffv_qp_shm *shm = qp->ref.shm;

	if (ctx->proxy) /* which is to hear of every try: it reports them to the other host */
		return try_again(ctx, qp, now_ns);
	for (;;) {
		uint64_t seen_ns = ffv_load_relaxed(&shm->deadline_ns), due_ns = try_again(ctx, qp, now_ns);
		/* [timer] as in ffv_run_wait_until: it sees when we look, or we see that it waits. */
		ffv_store_seq_cst(&shm->timer_ns, due_ns);
		if (!has_timer(ffv_load_seq_cst(&shm->blocked)))
			return due_ns;
		uint64_t deadline_ns = ffv_load_relaxed(&shm->deadline_ns);
		if (due_ns && (due_ns <= deadline_ns || deadline_ns == seen_ns))
			return due_ns;
		now_ns = ffv_clock_ns();
	}
}

static void retry_flushes(struct ffv_context *ctx)
{
	ctx->retry_flush = false;
	for (uint32_t i = 0; i < FFV_MAX_QP; i++) {
		struct ffv_qp *qp = ffv_context_qp(ctx, i);
		if (qp && ffv_load_acquire(&qp->ref.shm->state) == FFV_QPS_ERR)
			flush(ctx, qp);
	}
}

static void watch_holes(struct ffv_context *ctx)
{
	ctx->watch_holes = false;
	pthread_mutex_lock(&ctx->lock);
	for (uint32_t i = 0; i < FFV_MAX_CQ; i++)
		if (ctx->cqs[i] && ffv_cq_watch(ctx->cqs[i]))
			ctx->watch_holes = true;
	pthread_mutex_unlock(&ctx->lock);
}

uint64_t ffv_attend_timer(void *arg, uint64_t now_ns)
{
	struct ffv_context *ctx = arg;
	uint64_t next_ns = UINT64_MAX;

	pthread_mutex_lock(&ctx->service);
	for (struct ffv_qp **at = &ctx->waiting; !ctx->closing && *at;) {
		struct ffv_qp *qp = *at;
		uint64_t due_ns = try_and_tell(ctx, qp, now_ns);
		if (!due_ns) {
			*at = qp->timer_next;
			qp->on_timer = false;
			continue;
		}
		next_ns = due_ns < next_ns ? due_ns : next_ns;
		at = &qp->timer_next;
	}
	if (ctx->held && !ctx->closing) {
		uint64_t due_ns = ffv_cq_release_held(ctx, now_ns);
		next_ns = due_ns < next_ns ? due_ns : next_ns;
	}
	if (ctx->retry_flush && !ctx->closing)
		retry_flushes(ctx);
	if (ctx->watch_holes && !ctx->closing)
		watch_holes(ctx);
	if (ctx->retry_srq && !ctx->closing)
		ffv_srq_retry(ctx);
	if (ctx->accept_paused && !ctx->closing)
		ffv_peer_accept_again(ctx);
	if ((ctx->retry_flush || ctx->watch_holes || ctx->retry_srq || ctx->accept_paused) && next_ns > now_ns + RETRY_NS)
		next_ns = now_ns + RETRY_NS;
	pthread_mutex_unlock(&ctx->service);
	return next_ns;
}

/* SPDX-License-Identifier: MIT
 *
 * Completion queues, the owner's side: life, polling, arming.
 *
 * ffv_poll_cq is fast path: no system call, no allocation, no log; it reads only the entries and private memory, and
 * writes only its own line. What an entry says is not trusted beyond indexing private arrays.
 */
#include "verbs/cq.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "verbs/allocator.h"
#include "verbs/rq.h"
#include "verbs/tags.h"

#define STUCK_CHECK_POLLS 16u     /* empty polls between looks at the clock: some poll in a loop, others rarely */

/* ---- life ---------------------------------------------------------------------------------------------------------------- */

/* A free id, in turn, so that ids do not come back soon. ctx->lock held. */
static int claim_id(struct ffv_context *ctx, struct ffv_cq *cq)
{
	for (uint32_t n = 0; n < FFV_MAX_CQ; n++) {
		uint32_t id = (ctx->next_cq + n) % FFV_MAX_CQ;
		if (!ctx->cqs[id]) {
			ctx->next_cq = id + 1;
			ctx->cqs[id] = cq;
			cq->ref.id = cq->rings->ref.id = id;
			return 0;
		}
	}
	return ffv_fail(ENOMEM, "the context has %u completion queues already", FFV_MAX_CQ);
}

static int allocate_cq(struct ffv_cq *cq, uint32_t cqe)
{
	struct ffv_heap *heap = &cq->ctx->heap;
	int rc = ffv_heap_alloc(heap, sizeof *cq->ref.shm, &cq->shm_line);

	if (rc)
		return rc;
	struct ffv_cq_shm *shm = ffv_heap_at(heap, cq->shm_line);
	cq->ref.shm = shm;
	rc = ffv_cq_first_ring(cq, cqe);
	if (rc) {
		ffv_heap_free(heap, cq->shm_line, sizeof *shm);
		return rc;
	}
	ffv_store_relaxed(&shm->cqe, cqe);
	shm->channel_line = cq->channel ? cq->channel->shm_line : 0;
	shm->generation = ffv_random32() | 1;
	cq->cqe = cqe;
	return 0;
}

void ffv_cq_publish_new(struct ffv_cq *cq)
{
	struct ffv_context *ctx = cq->ctx;

	ffv_store_release(&ctx->view.arena->cq_line[cq->ref.id], cq->shm_line);
	ffv_fetch_add(&ctx->view.arena->num_cq, 1u);
	if (cq->channel) {
		pthread_mutex_lock(&cq->channel->lock);
		cq->channel->num_cqs++;
		pthread_mutex_unlock(&cq->channel->lock);
	}
}

static int check_new_cq(struct ffv_context *ctx, int64_t cqe, struct ffv_comp_channel *channel, int64_t comp_vector)
{
	int rc = ffv_context_check(ctx);

	if (rc)
		return rc;
	if (cqe < 1 || cqe > FFV_MAX_CQE)
		return ffv_fail(EINVAL, "a completion queue has 1 to %u entries, not %lld", FFV_MAX_CQE, (long long)cqe);
	if (comp_vector < 0 || comp_vector >= ffv_num_comp_vectors(ctx))
		return ffv_fail(EINVAL, "completion vector %lld does not exist; there are %d", (long long)comp_vector,
				ffv_num_comp_vectors(ctx));
	if (channel && channel->ctx != ctx)
		return ffv_fail(EINVAL, "the completion channel is of another context");
	return 0;
}

int ffv_cq_build(struct ffv_cq *cq, uint32_t cqe)
{
	struct ffv_context *ctx = cq->ctx;
	int rc = allocate_cq(cq, cqe);

	if (rc)
		return rc;
	pthread_mutex_lock(&ctx->lock);
	rc = claim_id(ctx, cq);
	pthread_mutex_unlock(&ctx->lock);
	if (rc) {
		ffv_cq_retire_rings(cq);
		ffv_heap_free(&ctx->heap, cq->shm_line, sizeof *cq->ref.shm);
		return rc;
	}
	return 0;
}

struct ffv_cq *ffv_cq_new(struct ffv_context *ctx, int64_t cqe, void *cq_context, struct ffv_comp_channel *channel,
			  int64_t comp_vector, int *rc)
{
	*rc = check_new_cq(ctx, cqe, channel, comp_vector);
	if (*rc)
		return NULL;
	struct ffv_cq *cq = calloc(1, sizeof *cq);
	if (!cq) {
		*rc = ffv_fail(ENOMEM, "no memory for a completion queue");
		return NULL;
	}
	cq->ctx = ctx;
	cq->channel = channel;
	cq->cq_context = cq_context;
	return cq;
}

int ffv_create_cq(struct ffv_context *ctx, int cqe, void *cq_context, struct ffv_comp_channel *channel, int comp_vector,
		  struct ffv_cq **out)
{
	int rc;
	struct ffv_cq *cq = ffv_cq_new(ctx, cqe, cq_context, channel, comp_vector, &rc);

	if (!cq)
		return rc;
	rc = ffv_cq_build(cq, (uint32_t)cqe);
	if (rc) {
		free(cq);
		return rc;
	}
	ffv_cq_publish_new(cq);
	*out = cq;
	return 0;
}

static void leave_channel(struct ffv_cq *cq)
{
	if (!cq->channel)
		return;
	pthread_mutex_lock(&cq->channel->lock);
	cq->channel->num_cqs--;
	pthread_mutex_unlock(&cq->channel->lock);
}

static bool has_unacked(struct ffv_cq *cq)
{
	if (!cq->channel)
		return false;
	pthread_mutex_lock(&cq->channel->lock);
	bool unacked = cq->events_acked != cq->events_delivered;
	pthread_mutex_unlock(&cq->channel->lock);
	return unacked;
}

int ffv_destroy_cq(struct ffv_cq *cq)
{
	if (!cq)
		return ffv_fail(EINVAL, "no completion queue");
	struct ffv_context *ctx = cq->ctx;
	if (ffv_context_check(ctx)) { /* a fork child: only its memory */
		ffv_cq_forget_rings(cq);
		ffv_private_free(cq->ex);
		free(cq);
		return 0;
	}
	pthread_mutex_lock(&ctx->service);
	pthread_mutex_lock(&ctx->lock);
	uint32_t users = cq->users;
	if (!users)
		ctx->cqs[cq->ref.id] = NULL;
	pthread_mutex_unlock(&ctx->lock);
	if (!users)
		ffv_cq_forget_held(cq);
	pthread_mutex_unlock(&ctx->service);
	if (users)
		return ffv_fail(EBUSY, "the completion queue is used by %u queue pairs", users);
	while (has_unacked(cq)) /* as libibverbs: the caller has events to acknowledge in another thread */
		poll(NULL, 0, 1);
	leave_channel(cq);
	ffv_async_forget(ctx, &cq->async_outstanding);
	ffv_store_release(&ctx->view.arena->cq_line[cq->ref.id], 0u);
	ffv_fetch_sub(&ctx->view.arena->num_cq, 1u);
	ffv_cq_ex_release(cq);
	ffv_cq_retire_rings(cq);
	ffv_context_retire(ctx, cq->shm_line, sizeof *cq->ref.shm);
	free(cq);
	return 0;
}

int ffv_cq_cqe(struct ffv_cq *cq)
{
	return cq ? (int)cq->cqe : 0;
}

uint32_t ffv_cq_handle(struct ffv_cq *cq)
{
	return cq ? cq->ref.id : 0;
}

/* ---- polling --------------------------------------------------------------------------------------------------------------- */

static bool report_recv(struct ffv_rq *rq, uint32_t position, struct ffv_wc *wc)
{
	if (rq->ref.shared_takers)
		return ffv_rq_report(rq, position, &wc->wr_id);
	uint32_t index = position & rq->ref.index_mask;
	if (ffv_unlikely(!ffv_load_relaxed(&rq->busy[index])))
		return false; /* no such work request: a peer's invention */
	wc->wr_id = rq->wr_id[index];
	/* [rq-report] after wr_id was read: the poster may use the slot again when it sees it free. */
	ffv_store_release(&rq->busy[index], FFV_SLOT_FREE);
	ffv_store_release(&rq->reported, ffv_load_relaxed(&rq->reported) + 1);
	return true;
}

static bool report_send(struct ffv_qp *qp, uint32_t position, struct ffv_wc *wc)
{
	uint64_t completed = ffv_load_relaxed(&qp->sq_completed);
	uint32_t ahead = position - (uint32_t)completed;

	if (ffv_unlikely(ahead >= ffv_load_relaxed(&qp->ref.shm->sq_tail) - completed))
		return false;
	wc->wr_id = qp->sq_wr_id[position & qp->ref.sq_index_mask];
	/* [sq-report] frees this slot and the unsignaled ones before it. */
	ffv_store_release(&qp->sq_completed, completed + ahead + 1);
	return true;
}

/* The work requests that the engine has posted for it, and all before them, are done with. */
static void report_rendezvous(struct ffv_cq *cq, const struct ffv_cqe_shm *cqe)
{
	uint32_t index = (cqe->qpn_side & ~FFV_CQE_RECV) - cq->ctx->block * FFV_QPN_BLOCK;
	struct ffv_qp *qp = index < FFV_MAX_QP ? ffv_context_qp(cq->ctx, index) : NULL;
	uint64_t completed = qp ? ffv_load_relaxed(&qp->sq_completed) : 0;

	while (qp && cqe->imm_be - (uint32_t)completed < ffv_load_relaxed(&qp->ref.shm->sq_tail) - completed)
		if (ffv_cas(&qp->sq_completed, &completed, completed + (cqe->imm_be - (uint32_t)completed) + 1))
			return;
}

/* A receive of a shared queue that the entry itself names. */
static bool report_srq(struct ffv_cq *cq, const struct ffv_cqe_shm *cqe, struct ffv_wc *wc)
{
	uint32_t id = cqe->src_qp;
	/* Its owner forgets it under the lock that we hold, before it goes. */
	struct ffv_srq *srq = id < FFV_MAX_SRQ ? ffv_load_acquire(&cq->ctx->srqs[id]) : NULL;

	if (!srq || srq->cq != cq)
		return false;
	if (cqe->opcode < FFV_WC_TM_ADD || !srq->tm)
		return report_recv(&srq->rq, cqe->wqe_position, wc);
	if (cqe->sl)
		report_rendezvous(cq, cqe);
	return ffv_tm_report(srq, cqe, wc);
}

static bool report_qp(struct ffv_cq *cq, const struct ffv_cqe_shm *cqe, uint32_t qpn_side, struct ffv_wc *wc)
{
	uint32_t index = (qpn_side & ~FFV_CQE_RECV) - cq->ctx->block * FFV_QPN_BLOCK;
	struct ffv_qp *qp = index < FFV_MAX_QP ? ffv_context_qp(cq->ctx, index) : NULL;

	if (ffv_unlikely(!qp))
		return false;
	return qpn_side & FFV_CQE_RECV ? report_recv(ffv_qp_rq(qp), cqe->wqe_position, wc)
				       : report_send(qp, cqe->wqe_position, wc);
}

static inline bool report(struct ffv_cq *cq, const struct ffv_cq_ref *ring, uint64_t position, struct ffv_wc *wc)
{
	const struct ffv_cqe_shm *cqe = &ring->ring[position & ring->index_mask];
	uint32_t qpn_side = cqe->qpn_side;
	bool by_srq = cqe->flags & FFV_CQE_SRQ;

	if (!qpn_side || !(ffv_unlikely(by_srq) ? report_srq(cq, cqe, wc) : report_qp(cq, cqe, qpn_side, wc)))
		return false;
	wc->status = cqe->status;
	wc->opcode = cqe->opcode;
	wc->vendor_err = by_srq ? 0 : cqe->vendor_err;
	wc->byte_len = cqe->byte_len;
	wc->imm_data_be = ffv_unlikely(by_srq) && cqe->opcode >= FFV_WC_TM_ADD ? 0 : cqe->imm_be;
	wc->qp_num = qpn_side & ~FFV_CQE_RECV;
	wc->src_qp = by_srq ? 0 : cqe->src_qp;
	wc->wc_flags = cqe->flags & ~FFV_CQE_SRQ;
	wc->pkey_index = 0;
	wc->slid = 0;
	wc->sl = by_srq ? 0 : cqe->sl;
	wc->dlid_path_bits = 0;
	return true;
}

/* The same with what an extended queue keeps beside the entry. */
static bool report_ex(struct ffv_cq *cq, const struct ffv_cq_ref *ring, uint64_t position, struct ffv_wc_ex *wc)
{
	if (!report(cq, ring, position, &wc->wc))
		return false;
	if (ring->ext) {
		const struct ffv_cqe_ext_shm *ext = &ring->ext[position & ring->index_mask];
		wc->completion_ts = ext->timestamp_ns;
		wc->tm_tag = ext->tag;
		wc->tm_priv = ext->tag_priv;
		wc->flow_tag = ext->flow_tag;
		wc->cvlan = ext->cvlan_tci;
	}
	return true;
}

/* After a poll: entries below head have been read before a producer writes over them. */
static inline void move_head(struct ffv_cq *cq, uint64_t head)
{
	cq->head = head;
	cq->empty_polls = 0;
	/* [cq-consume] */
	ffv_store_release(&cq->ref.shm->head, head);
}

/* The queue that this thread has found empty last. */
static _Thread_local const struct ffv_cq *found_empty __attribute__((tls_model("initial-exec")));

/* A thread that polls one queue again and again takes the line of the next entry from whoever is about to write it: waiting
 * a moment before each second look makes the hand-over faster. Who polls several queues in turn does not wait. */
static inline void wait_a_moment(struct ffv_cq *cq)
{
	if (ffv_likely(found_empty == cq))
		ffv_cpu_relax();
	found_empty = cq;
}

/* Nothing was there to poll. */
static int poll_empty(struct ffv_cq *cq)
{
	if (ffv_unlikely(++cq->empty_polls >= STUCK_CHECK_POLLS))
		ffv_cq_look_for_stuck(cq);
	if (ffv_unlikely(ffv_load_relaxed(&cq->ref.shm->overrun)))
		return ffv_fail(EIO, "the completion queue overran: completions were lost; destroy it and its queue pairs");
	return 0;
}

/* Moves *head past holes, and into the next ring at this one's end, to the next entry that is published; false: there is
 * none yet. lock held. */
static inline bool find_next(struct ffv_cq *cq, uint64_t *head)
{
	for (;;) {
		if (ffv_unlikely(cq->num_holes) && ffv_cq_is_hole_slot(&cq->ref, *head)) {
			++*head;
			continue;
		}
		if (ffv_likely(ffv_cq_is_published(&cq->ref, *head)))
			return true;
		if (ffv_likely(*head != cq->ring_end))
			return false;
		ffv_cq_enter_next_ring(cq);
	}
}

/* The next entry to report: one that comes late, or the one at *head. False: there is none. */
static bool next_entry(struct ffv_cq *cq, uint64_t *head, uint64_t *position)
{
	bool found = find_next(cq, head);

	if (ffv_unlikely(cq->num_holes)) {
		FFV_FAULT(poll_looked);
		/* [cq-late] after the look at the head: what is late was published before what its queue pair completed next. */
		*position = ffv_cq_find_late(cq);
		if (*position != UINT64_MAX)
			return true;
	}
	*position = *head;
	*head += found;
	return found;
}

/* What was polled ends at `head`, or it was nothing. Lock held. */
static inline int end_poll(struct ffv_cq *cq, uint64_t head, int n)
{
	if (head != cq->head)
		move_head(cq, head);
	else if (n == 0)
		n = poll_empty(cq);
	return n;
}

static inline int poll_straight(struct ffv_cq *cq, int num_entries, struct ffv_wc *wc)
{
	uint64_t head = cq->head;
	int n = 0;

	if (!ffv_cq_is_published(&cq->ref, head))
		wait_a_moment(cq);
	while (n < num_entries && find_next(cq, &head)) {
		n += report(cq, &cq->ref, head, &wc[n]);
		head++;
	}
	return end_poll(cq, head, n);
}

__attribute__((noinline)) static int poll_around_holes(struct ffv_cq *cq, int num_entries, struct ffv_wc *wc)
{
	uint64_t head = cq->head, position;
	int n = 0;

	while (n < num_entries && next_entry(cq, &head, &position))
		n += report(cq, ffv_cq_ring_of(cq, position), position, &wc[n]);
	return end_poll(cq, head, n);
}

int ffv_poll_cq(struct ffv_cq *cq, int num_entries, struct ffv_wc *wc)
{
	if (ffv_unlikely(!cq || cq->ctx->fork_generation != ffv_fork_generation()))
		return cq ? ffv_context_check(cq->ctx) : ffv_fail(EINVAL, "the completion queue is closed");
	ffv_spin_token token = ffv_spin_lock(&cq->lock);
	int n = ffv_likely(!cq->num_holes) ? poll_straight(cq, num_entries, wc) : poll_around_holes(cq, num_entries, wc);
	ffv_spin_unlock(&cq->lock, token);
	return n;
}

int ffv_cq_poll_ex(struct ffv_cq *cq, struct ffv_wc_ex *wc)
{
	ffv_spin_token token = ffv_spin_lock(&cq->lock);
	uint64_t head = cq->head, position;
	int n = 0;

	while (!n && next_entry(cq, &head, &position))
		n = report_ex(cq, ffv_cq_ring_of(cq, position), position, wc);
	n = end_poll(cq, head, n);
	ffv_spin_unlock(&cq->lock, token);
	return n;
}

/* ---- arming ----------------------------------------------------------------------------------------------------------------- */

int ffv_cancel_notify_cq(struct ffv_cq *cq)
{
	const uint64_t armed = FFV_CQ_ARMED | FFV_CQ_ARMED_SOLICITED;
	int rc = ffv_context_check(cq ? cq->ctx : NULL);

	if (rc)
		return rc;
	if (!(ffv_load_relaxed(&cq->ref.shm->tail) & armed))
		return 0;
	/* [cq-arm] a claim that took the bits before this owes an event; one after it owes none. */
	return (ffv_fetch_and(&cq->ref.shm->tail, ~armed) & armed) != 0;
}

int ffv_req_notify_cq(struct ffv_cq *cq, int solicited_only)
{
	int rc = ffv_context_check(cq ? cq->ctx : NULL);

	if (rc)
		return rc;
	if (!cq->channel)
		return ffv_fail(EINVAL, "the completion queue has no completion channel");
	/* [cq-arm] one RMW on the word that claims go through: each claim is before it (and its completion is found
	 * below, or by the caller's next poll) or after it (and signals). */
	uint64_t bit = solicited_only ? FFV_CQ_ARMED_SOLICITED : FFV_CQ_ARMED;
	uint64_t end = ffv_unlikely(ffv_load_relaxed(&cq->ref.shm->moderate_count))
			       ? ffv_cq_arm_moderated(cq, bit)
			       : FFV_CQ_POSITION(ffv_fetch_or(&cq->ref.shm->tail, bit));
	if (ffv_cq_begin_watch(cq, end))
		ffv_context_attention(cq->ctx, &cq->ctx->view, FFV_ATTENTION_CQ + cq->ref.id);
	return 0;
}

/* ---- for queue pairs ----------------------------------------------------------------------------------------------------------- */

void ffv_cq_clean(struct ffv_cq *cq, struct ffv_qp *qp)
{
	struct ffv_wc dropped;
	uint64_t p;

	ffv_spin_token token = ffv_spin_lock(&cq->lock);
	for (struct ffv_cq_walk walk = ffv_cq_begin_walk(cq); (p = ffv_cq_next_unpolled(cq, &walk)) != UINT64_MAX;) {
		const struct ffv_cq_ref *ring = ffv_cq_ring_of(cq, p);
		struct ffv_cqe_shm *cqe = &ring->ring[p & ring->index_mask];
		if (!ffv_cq_is_published(ring, p) || (cqe->qpn_side & ~FFV_CQE_RECV) != qp->ref.qpn ||
		    cqe->flags & FFV_CQE_SRQ) /* the shared queue's own */
			continue;
		report(cq, ring, p, &dropped);
		cqe->qpn_side = 0;
	}
	ffv_spin_unlock(&cq->lock, token);
}

/* The entry at that position if it is published and of the shared queue, else NULL. */
static struct ffv_cqe_shm *entry_of_srq(const struct ffv_cq *cq, uint64_t position, const struct ffv_srq *srq)
{
	const struct ffv_cq_ref *ring = ffv_cq_ring_of(cq, position);
	struct ffv_cqe_shm *cqe = &ring->ring[position & ring->index_mask];

	return ffv_cq_is_published(ring, position) && cqe->qpn_side && cqe->flags & FFV_CQE_SRQ && cqe->src_qp == srq->id
		       ? cqe : NULL;
}

void ffv_cq_forget_srq(struct ffv_cq *cq, struct ffv_srq *srq)
{
	uint64_t p;

	ffv_spin_token token = ffv_spin_lock(&cq->lock);
	for (struct ffv_cq_walk walk = ffv_cq_begin_walk(cq); (p = ffv_cq_next_unpolled(cq, &walk)) != UINT64_MAX;) {
		struct ffv_cqe_shm *cqe = entry_of_srq(cq, p, srq);
		if (cqe)
			cqe->qpn_side = 0;
	}
	ffv_store_relaxed(&cq->ctx->srqs[srq->id], NULL);
	ffv_spin_unlock(&cq->lock, token);
}

bool ffv_cq_reports(struct ffv_cq *cq, const struct ffv_srq *srq, uint64_t position)
{
	bool found = false;
	uint64_t p;

	ffv_spin_token token = ffv_spin_lock(&cq->lock);
	struct ffv_cq_walk walk = ffv_cq_begin_walk(cq);
	while (!found && (p = ffv_cq_next_unpolled(cq, &walk)) != UINT64_MAX) {
		const struct ffv_cqe_shm *cqe = entry_of_srq(cq, p, srq);
		found = cqe && cqe->wqe_position == (uint32_t)position;
	}
	ffv_spin_unlock(&cq->lock, token);
	return found;
}

bool ffv_cq_reports_recv(struct ffv_cq *cq, uint32_t qpn, uint64_t position)
{
	bool found = false;
	uint64_t p;

	ffv_spin_token token = ffv_spin_lock(&cq->lock);
	struct ffv_cq_walk walk = ffv_cq_begin_walk(cq);
	while (!found && (p = ffv_cq_next_unpolled(cq, &walk)) != UINT64_MAX) {
		const struct ffv_cq_ref *ring = ffv_cq_ring_of(cq, p);
		const struct ffv_cqe_shm *cqe = &ring->ring[p & ring->index_mask];
		found = ffv_cq_is_published(ring, p) && cqe->qpn_side == (qpn | FFV_CQE_RECV) &&
			cqe->wqe_position == (uint32_t)position;
	}
	ffv_spin_unlock(&cq->lock, token);
	return found;
}

bool ffv_cq_reports_tag(struct ffv_cq *cq, const struct ffv_srq *srq, uint32_t slot)
{
	bool found = false;
	uint64_t p;

	ffv_spin_token token = ffv_spin_lock(&cq->lock);
	struct ffv_cq_walk walk = ffv_cq_begin_walk(cq);
	while (!found && (p = ffv_cq_next_unpolled(cq, &walk)) != UINT64_MAX) {
		const struct ffv_cqe_shm *cqe = entry_of_srq(cq, p, srq);
		found = cqe && cqe->opcode == FFV_WC_TM_RECV && cqe->wqe_position == slot &&
			(cqe->flags & FFV_WC_TM_DATA_VALID || cqe->status);
	}
	ffv_spin_unlock(&cq->lock, token);
	return found;
}

uint64_t ffv_cq_last_completed(struct ffv_cq *cq, uint32_t qpn_side, uint64_t from)
{
	uint64_t p;

	ffv_spin_token token = ffv_spin_lock(&cq->lock);
	for (struct ffv_cq_walk walk = ffv_cq_begin_walk(cq); (p = ffv_cq_next_unpolled(cq, &walk)) != UINT64_MAX;) {
		const struct ffv_cq_ref *ring = ffv_cq_ring_of(cq, p);
		const struct ffv_cqe_shm *cqe = &ring->ring[p & ring->index_mask];
		if (!ffv_cq_is_published(ring, p) || cqe->qpn_side != qpn_side)
			continue;
		uint32_t ahead = cqe->wqe_position - (uint32_t)from;
		if (ahead < FFV_MAX_WR * 2)
			from += ahead + 1;
	}
	ffv_spin_unlock(&cq->lock, token);
	return from;
}

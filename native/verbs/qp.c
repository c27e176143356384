/* SPDX-License-Identifier: MIT
 *
 * Queue pairs: creating, destroying, querying. State changes are in modify.c, posting in post.c.
 */
#include "verbs/qp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/fault.h"
#include "verbs/allocator.h"
#include "verbs/counter.h"
#include "verbs/cq.h"
#include "verbs/rq.h"
#include "verbs/tags.h"
#include "verbs/wq.h"

#define DESTROY_WAIT_NS 1000000000ull /* for an execution to end; longer it takes only if its process is stopped */

static uint32_t round_up_to_power(uint32_t n)
{
	uint32_t power = 1;

	while (power < n)
		power *= 2;
	return power;
}

/* ---- creating --------------------------------------------------------------------------------------------------------- */

static int check_caps(const struct ffv_qp_init_attr *attr)
{
	const struct ffv_qp_cap *cap = &attr->cap;

	if (cap->max_send_wr > FFV_MAX_WR || (!attr->srq && cap->max_recv_wr > FFV_MAX_WR))
		return ffv_fail(EINVAL, "a queue pair takes at most %u work requests a queue, not %u and %u", FFV_MAX_WR,
				cap->max_send_wr, cap->max_recv_wr);
	if (cap->max_send_sge > FFV_MAX_SGE || (!attr->srq && cap->max_recv_sge > FFV_MAX_SGE))
		return ffv_fail(EINVAL, "a work request has at most %u scatter/gather entries, not %u and %u", FFV_MAX_SGE,
				cap->max_send_sge, cap->max_recv_sge);
	if (cap->max_inline_data > FFV_MAX_INLINE)
		return ffv_fail(EINVAL, "at most %u bytes can be sent inline, not %u", FFV_MAX_INLINE,
				cap->max_inline_data);
	return 0;
}

static bool is_of_another(const struct ffv_context *ctx, const struct ffv_qp_init_attr *attr)
{
	return (attr->send_cq && attr->send_cq->ctx != ctx) || (attr->recv_cq && attr->recv_cq->ctx != ctx) ||
	       (attr->srq && attr->srq->ctx != ctx);
}

static int check_init_attr(const struct ffv_context *ctx, const struct ffv_qp_init_attr *attr)
{
	uint32_t type = attr->qp_type;

	if (type != FFV_QPT_RC && type != FFV_QPT_UC && type != FFV_QPT_UD && type != FFV_QPT_RAW_PACKET &&
	    !ffv_type_is_xrc(type))
		return ffv_fail(type < 2 || type > 16 ? EINVAL : EOPNOTSUPP,
				"queue pairs of type %u are not supported; RC, UC, UD, XRC and raw packet ones are", type);
	if (type != FFV_QPT_XRC_RECV && !attr->send_cq)
		return ffv_fail(EINVAL, "a queue pair needs a send completion queue");
	if (!ffv_type_is_xrc(type) && !attr->recv_cq)
		return ffv_fail(EINVAL, "a queue pair needs a receive completion queue");
	if (is_of_another(ctx, attr))
		return ffv_fail(EINVAL, "a queue of another context was given");
	if (attr->srq && attr->srq->type == FFV_SRQT_XRC)
		return ffv_fail(EINVAL, "an XRC receive queue is not a queue pair's: requests name it");
	if (attr->srq && attr->srq->tm && type != FFV_QPT_RC)
		return ffv_fail(EINVAL, "only RC queue pairs receive through a queue that matches tags");
	return check_caps(attr);
}

/* Memory for the shared part: such that has held QPs, if any, for its generation goes on. */
static int allocate_shm(struct ffv_context *ctx, struct ffv_qp *qp)
{
	pthread_mutex_lock(&ctx->lock);
	if (ctx->num_free_qp_lines)
		qp->shm_line = ctx->free_qp_lines[--ctx->num_free_qp_lines];
	pthread_mutex_unlock(&ctx->lock);
	int rc = qp->shm_line ? 0 : ffv_heap_alloc(&ctx->heap, sizeof(struct ffv_qp_shm), &qp->shm_line);
	if (!rc)
		qp->ref.shm = ffv_heap_at(&ctx->heap, qp->shm_line);
	return rc;
}

/* What a proxy's queue pair reads of what it never posted. */
static uint64_t no_ids[FFV_MOST_LENT_IDS];

void ffv_qp_lend_ids(struct ffv_qp *qp, uint64_t *ids)
{
	qp->sq_wr_id = ids ? ids : no_ids;
}

static int allocate_sq(struct ffv_context *ctx, struct ffv_qp *qp, struct ffv_qp_cap *cap)
{
	uint32_t slots = round_up_to_power(cap->max_send_wr ? cap->max_send_wr : 1);
	uint32_t payload = cap->max_send_sge * (uint32_t)sizeof(struct ffv_sge_shm);

	if (payload < cap->max_inline_data)
		payload = cap->max_inline_data;
	uint32_t head = (uint32_t)offsetof(struct ffv_wqe_shm, sge);
	uint32_t stride = (head + payload + FFV_LINE_BYTES - 1) / FFV_LINE_BYTES * FFV_LINE_BYTES;
	int rc = ffv_heap_alloc(&ctx->heap, (uint64_t)slots * stride, &qp->sq_line);
	if (rc)
		return rc;
	qp->sq_wr_id = qp->asked ? ffv_private_alloc(qp->pd, slots, sizeof *qp->sq_wr_id, FFV_RESOURCE_QP) : no_ids;
	if (!qp->sq_wr_id)
		return ffv_fail_context(-ENOMEM, "no memory for a send queue of %u", cap->max_send_wr);
	qp->ref.sq_ring = ffv_heap_at(&ctx->heap, qp->sq_line);
	qp->ref.sq_index_mask = slots - 1;
	qp->ref.sq_stride_bytes = stride;
	cap->max_inline_data = stride - head < FFV_MAX_INLINE ? stride - head : FFV_MAX_INLINE;
	qp->max_send_wr = cap->max_send_wr;
	qp->max_send_sge = cap->max_send_sge;
	qp->max_inline = cap->max_inline_data;
	return 0;
}

/* A free QP number, in turn, so that numbers do not come back soon. The service thread and the pollers do not see the QP
 * before publish_qp. */
static int claim_qpn(struct ffv_context *ctx, struct ffv_qp *qp)
{
	int rc = -ENOMEM;

	pthread_mutex_lock(&ctx->lock);
	for (uint32_t n = 0; n < FFV_MAX_QP && rc; n++) {
		uint32_t index = (qp->wanted_qpn ? qp->wanted_qpn : ctx->next_qp + n) % FFV_MAX_QP;
		if (index < 16 || ctx->qp_used[index])
			continue;
		ctx->next_qp = index + 1;
		ctx->qp_used[index] = 1;
		qp->ref.qpn = ctx->block * FFV_QPN_BLOCK + index;
		rc = 0;
	}
	pthread_mutex_unlock(&ctx->lock);
	return rc ? ffv_fail(ENOMEM, "the context has all the %u queue pairs it can", FFV_MAX_QP - 16) : 0;
}

static void init_shm(struct ffv_qp *qp)
{
	struct ffv_qp_shm *shm = qp->ref.shm;

	ffv_store_relaxed(&shm->state, (uint32_t)FFV_QPS_RESET);
	shm->qpn = qp->ref.qpn;
	shm->type = qp->type;
	shm->pd = qp->pd ? qp->pd->id : FFV_NONE;
	ffv_store_relaxed(&shm->access, 0u);
	ffv_store_relaxed(&shm->dest_qpn, 0u);
	shm->send_cq = qp->send_cq ? qp->send_cq->ref.id : FFV_NONE;
	shm->recv_cq = qp->recv_cq ? qp->recv_cq->ref.id : FFV_NONE;
	shm->xrcd = qp->xrcd ? qp->xrcd->domain : (struct ffv_xrc_domain){ 0 };
	shm->srq = qp->srq ? qp->srq->id : FFV_NONE;
	shm->sq_ring_line = qp->sq_line;
	shm->sq_index_mask = qp->ref.sq_index_mask;
	shm->sq_stride_bytes = qp->ref.sq_stride_bytes;
	ffv_store_relaxed(&shm->path_mtu_bytes, 4096u);
	shm->stage_line = FFV_NONE;
	ffv_store_relaxed(&shm->counted, 0u);
	ffv_store_relaxed(&shm->rate_kbps, 0u);
	ffv_store_relaxed(&shm->pace_ns, 0u);
	ffv_store_relaxed(&shm->sq_tail, 0u);
	ffv_store_relaxed(&shm->exec_lock, 0u);
	ffv_store_relaxed(&shm->sq_exec, 0u);
	ffv_store_relaxed(&shm->deadline_ns, UINT64_MAX);
	ffv_store_relaxed(&shm->timer_ns, 0u);
	ffv_store_relaxed(&shm->blocked, FFV_BLOCKED_NOT);
	shm->blocked_first = 0;
	shm->rq_taken = shm->tag_taken = shm->tag_counted = FFV_TAKEN_NOT;
	shm->progress_bytes = shm->staged_bytes = 0;
	ffv_store_relaxed(&shm->messages_sent, 0u);
	ffv_store_relaxed(&shm->bytes_sent, 0u);
	ffv_store_relaxed(&shm->rnr_waits, 0u);
	ffv_store_relaxed(&shm->retries, 0u);
	ffv_store_relaxed(&shm->events, 0u);
	ffv_store_relaxed(&shm->last_status, 0u);
}

/* A program's queue pair, in one piece. */
struct whole {
	struct ffv_qp qp;
	struct ffv_rq rq;
	struct ffv_qp_asked asked;
};

/* Proxies have thousands, most of them at rest. */
static struct ffv_slab proxys = FFV_SLAB(sizeof(struct ffv_qp));

static struct ffv_qp *new_qp(bool is_proxys)
{
	struct whole *whole = is_proxys ? NULL : calloc(1, sizeof *whole);
	struct ffv_qp *qp = is_proxys ? ffv_slab_alloc(&proxys) : whole ? &whole->qp : NULL;

	if (!qp)
		return NULL;
	qp->own_rq = &ffv_no_rq;
	qp->asked = whole ? &whole->asked : NULL;
	pthread_mutex_init(&qp->lock, NULL);
	pthread_mutex_init(&qp->flush, NULL);
	return qp;
}

static void free_qp(struct ffv_qp *qp)
{
	if (qp->asked)
		free(qp);
	else
		ffv_slab_free(&proxys, qp);
}

/* Nobody posts receives to a proxy's queue pairs; but peers open what a queue pair of the type has. */
static int share_empty_rq(struct ffv_context *ctx, struct ffv_qp *qp)
{
	int rc = 0;

	pthread_mutex_lock(&ctx->lock);
	if (!ctx->no_rq_line)
		rc = ffv_heap_alloc(&ctx->heap, FFV_LINE_BYTES, &ctx->no_rq_line);
	pthread_mutex_unlock(&ctx->lock);
	if (!rc)
		ffv_rq_describe(ctx, ctx->no_rq_line, 0, 1, &qp->ref.shm->rq, &qp->ref.rq);
	return rc;
}

static int allocate_rq(struct ffv_context *ctx, struct ffv_qp *qp, const struct ffv_qp_cap *cap)
{
	struct ffv_rq *rq = &((struct whole *)qp)->rq;

	if (qp->srq || ffv_type_is_xrc(qp->type))
		return 0;
	if (!qp->asked)
		return share_empty_rq(ctx, qp);
	rq->pd = qp->pd;
	rq->resource_type = FFV_RESOURCE_QP;
	rq->has_takers = !ffv_type_is_connected(qp->type);
	int rc = ffv_rq_create(ctx, rq, &qp->ref.shm->rq, cap->max_recv_wr, cap->max_recv_sge);
	if (!rc)
		qp->own_rq = rq;
	return rc;
}

static int build(struct ffv_context *ctx, struct ffv_qp *qp, struct ffv_qp_cap *cap)
{
	int rc = allocate_shm(ctx, qp);

	if (!rc)
		rc = allocate_sq(ctx, qp, cap);
	if (!rc)
		rc = allocate_rq(ctx, qp, cap);
	if (!rc)
		rc = claim_qpn(ctx, qp);
	return rc;
}

static void free_parts(struct ffv_context *ctx, struct ffv_qp *qp)
{
	if (qp->sq_line)
		ffv_context_retire(ctx, qp->sq_line, (qp->ref.sq_index_mask + 1ull) * qp->ref.sq_stride_bytes);
	if (ffv_qp_has_own_rq(qp))
		ffv_rq_destroy(ctx, qp->own_rq);
	ffv_context_retire_qp(ctx, qp->shm_line);
	if (qp->asked)
		ffv_private_free(qp->sq_wr_id);
}

static void count_users(struct ffv_qp *qp, uint32_t n)
{
	struct ffv_context *ctx = qp->ctx;

	pthread_mutex_lock(&ctx->lock);
	if (qp->pd)
		qp->pd->users += n;
	if (qp->xrcd)
		qp->xrcd->users += n;
	if (qp->send_cq)
		qp->send_cq->users += n;
	if (qp->recv_cq)
		qp->recv_cq->users += n;
	if (qp->srq)
		qp->srq->users += n;
	pthread_mutex_unlock(&ctx->lock);
}

/* The ring that completions go to now. Not taken from the queue's private half, whose lock would be ours from then on and
 * not the polling thread's (docs/decisions/0007). */
static struct ffv_cq_ref open_cq(const struct ffv_cq *cq)
{
	struct ffv_cq_ref ref = { .shm = cq->ref.shm, .id = cq->ref.id, .ring_number = UINT32_MAX };

	/* If a peer has scribbled over it, the first claim finds that out again. */
	ffv_cq_ref_follow(&cq->ctx->view, ffv_load_acquire(&ref.shm->tail), &ref);
	return ref;
}

static void publish_qp(struct ffv_qp *qp)
{
	struct ffv_arena_shm *arena = qp->ctx->view.arena;

	init_shm(qp);
	qp->ref.view = &qp->ctx->view;
	qp->ref.type = qp->type;
	qp->ref.pd = qp->ref.shm->pd;
	if (qp->send_cq)
		qp->ref.send_cq = open_cq(qp->send_cq);
	if (qp->recv_cq)
		qp->ref.recv_cq = open_cq(qp->recv_cq);
	if (qp->asked)
		qp->ref.rq = ffv_qp_rq(qp)->ref;
	qp->ref.rq.shared_takers = qp->srq || !ffv_type_is_connected(qp->type);
	/* [qp-generation] odd: it exists; whoever opens a reference reads the rest after it. */
	qp->ref.generation = ffv_load_relaxed(&qp->ref.shm->generation) + 1;
	ffv_store_release(&qp->ref.shm->generation, qp->ref.generation);
	/* [qp-table] whole, before anybody finds it. */
	ffv_store_release(&qp->ctx->qps[qp->ref.qpn % FFV_QPN_BLOCK], qp);
	ffv_store_release(&arena->qp_line[qp->ref.qpn % FFV_QPN_BLOCK], qp->shm_line);
	ffv_fetch_add(&arena->num_qp, 1u);
}

/* A queue that matches tags has its own completion queue; its queue pairs have room for what the engine posts there. */
static void with_rendezvous(struct ffv_qp_init_attr *used)
{
	const struct ffv_srq *srq = used->srq;
	struct ffv_qp_cap *cap = &used->cap;

	used->recv_cq = srq->cq;
	if (cap->max_send_wr <= FFV_MAX_WR - 2 * FFV_RENDEZVOUS_AT_ONCE)
		cap->max_send_wr += 2 * FFV_RENDEZVOUS_AT_ONCE;
	if (cap->max_send_sge < srq->rq.max_sge)
		cap->max_send_sge = srq->rq.max_sge;
}

/* Of the attributes, an XRC queue pair has what its type has. */
static struct ffv_qp_init_attr as_used(const struct ffv_qp_init_attr *attr)
{
	struct ffv_qp_init_attr used = *attr;

	if (used.srq && used.srq->tm && used.qp_type == FFV_QPT_RC)
		with_rendezvous(&used);
	if (!ffv_type_is_xrc(used.qp_type))
		return used;
	used.srq = NULL;
	used.recv_cq = NULL;
	used.cap.max_recv_wr = used.cap.max_recv_sge = 0;
	if (used.qp_type == FFV_QPT_XRC_RECV) {
		used.send_cq = NULL;
		used.cap = (struct ffv_qp_cap){ 0 };
	}
	return used;
}

static int create(struct ffv_context *ctx, struct ffv_pd *pd, struct ffv_xrcd *xrcd, struct ffv_qp_init_attr *attr,
		  uint32_t wanted_qpn, struct ffv_qp **out)
{
	struct ffv_qp *qp = new_qp(wanted_qpn != 0);

	if (!qp)
		return ffv_fail(ENOMEM, "no memory for a queue pair");
	struct ffv_qp_cap cap = attr->cap;
	qp->ctx = ctx;
	qp->wanted_qpn = wanted_qpn;
	qp->pd = pd;
	qp->xrcd = xrcd;
	qp->type = attr->qp_type;
	qp->srq = attr->srq;
	qp->send_cq = attr->send_cq;
	qp->recv_cq = attr->recv_cq;
	qp->sq_sig_all = attr->sq_sig_all != 0;
	int rc = build(ctx, qp, &cap);
	if (rc) {
		free_parts(ctx, qp);
		free_qp(qp);
		return rc;
	}
	if (qp->srq)
		cap.max_recv_wr = cap.max_recv_sge = 0;
	attr->cap = cap;
	if (qp->asked) {
		qp->asked->init_attr = *attr;
		qp->asked->attr.port_num = 1;
	}
	count_users(qp, 1);
	publish_qp(qp);
	if (qp->srq)
		ffv_srq_add_user(qp->srq, qp);
	*out = qp;
	return 0;
}

static int check_and_create(struct ffv_context *ctx, struct ffv_pd *pd, struct ffv_xrcd *xrcd,
			    struct ffv_qp_init_attr *attr, uint32_t wanted_qpn, struct ffv_qp **out)
{
	struct ffv_qp_init_attr used = as_used(attr);
	int rc = check_init_attr(ctx, &used);

	if (!rc)
		rc = create(ctx, pd, xrcd, &used, wanted_qpn, out);
	if (!rc)
		attr->cap = used.cap;
	return rc;
}

int ffv_create_qp(struct ffv_pd *pd, struct ffv_qp_init_attr *attr, struct ffv_qp **out)
{
	int rc = ffv_context_check(pd ? pd->ctx : NULL);

	if (!rc && attr->qp_type == FFV_QPT_XRC_RECV)
		rc = ffv_fail(EINVAL, "an XRC_RECV queue pair is of an XRC domain, not of a protection domain: use the "
			      "extended attributes, with xrcd");
	return rc ? rc : check_and_create(pd->ctx, pd, NULL, attr, 0, out);
}

int ffv_qp_create_as(struct ffv_pd *pd, struct ffv_xrcd *xrcd, struct ffv_qp_init_attr *attr, uint32_t qpn,
		     struct ffv_qp **out)
{
	return check_and_create(pd->ctx, xrcd ? NULL : pd, xrcd, attr, qpn, out);
}

#define SPREADING ((uint32_t)(FFV_QP_INIT_ATTR_IND_TABLE | FFV_QP_INIT_ATTR_RX_HASH))

/* A queue pair that spreads what it receives: it has no queues of its own, and is ready at once. What completes does so
 * on its work queues; it holds one of their completion queues for those who look at every queue pair's. */
static int create_spreading(struct ffv_context *ctx, struct ffv_qp_init_attr_ex *attr, struct ffv_qp **out)
{
	struct ffv_rss *rss;
	int rc = ffv_rss_create(ctx, attr, &rss);

	if (rc)
		return rc;
	struct ffv_qp_init_attr basic = { .qp_context = attr->qp_context, .send_cq = ffv_rss_cq(rss),
					  .recv_cq = ffv_rss_cq(rss), .qp_type = FFV_QPT_RAW_PACKET };
	rc = create(ctx, attr->pd, NULL, &basic, 0, out);
	if (rc) {
		ffv_rss_release(rss);
		return rc;
	}
	struct ffv_qp *qp = *out;
	qp->rss = rss;
	qp->asked->init_attr.send_cq = qp->asked->init_attr.recv_cq = NULL;
	attr->cap = qp->asked->init_attr.cap = (struct ffv_qp_cap){ 0 };
	ffv_store_release(&qp->ref.shm->state, (uint32_t)FFV_QPS_RTR);
	return 0;
}

static int check_extension(struct ffv_context *ctx, const struct ffv_qp_init_attr_ex *attr)
{
	const uint32_t known = FFV_QP_INIT_ATTR_PD | FFV_QP_INIT_ATTR_XRCD | FFV_QP_INIT_ATTR_CREATE_FLAGS |
			       FFV_QP_INIT_ATTR_SEND_OPS_FLAGS | SPREADING;
	bool needs_xrcd = attr->qp_type == FFV_QPT_XRC_RECV;

	if (attr->comp_mask & ~known)
		return ffv_fail(EOPNOTSUPP, "of the attributes in comp_mask %#x only PD (1), XRCD (2), CREATE_FLAGS (4), "
				"IND_TABLE (16), RX_HASH (32) and SEND_OPS_FLAGS (64) are supported", attr->comp_mask);
	if (attr->comp_mask & FFV_QP_INIT_ATTR_CREATE_FLAGS &&
	    attr->create_flags & ~(attr->qp_type == FFV_QPT_UD ? (uint32_t)FFV_QP_CREATE_BLOCK_SELF_MCAST_LB : 0))
		return ffv_fail(EOPNOTSUPP, "creation flags %#x are not supported", attr->create_flags);
	if (needs_xrcd && (!(attr->comp_mask & FFV_QP_INIT_ATTR_XRCD) || !attr->xrcd))
		return ffv_fail(EINVAL, "an XRC_RECV queue pair needs an XRC domain: set xrcd, and XRCD in comp_mask");
	if (needs_xrcd && attr->xrcd->ctx != ctx)
		return ffv_fail(EINVAL, "the XRC domain is of another context");
	if (!needs_xrcd && (!(attr->comp_mask & FFV_QP_INIT_ATTR_PD) || !attr->pd))
		return ffv_fail(EINVAL, "a queue pair needs a protection domain: set pd, and PD in comp_mask");
	if (!needs_xrcd && attr->pd->ctx != ctx)
		return ffv_fail(EINVAL, "the protection domain is of another context");
	return attr->comp_mask & FFV_QP_INIT_ATTR_SEND_OPS_FLAGS ? ffv_qp_check_ops(attr->qp_type, attr->send_ops_flags) : 0;
}

int ffv_create_qp_ex(struct ffv_context *ctx, struct ffv_qp_init_attr_ex *attr, struct ffv_qp **out)
{
	int rc = ffv_context_check(ctx);

	if (!rc)
		rc = check_extension(ctx, attr);
	if (rc)
		return rc;
	if (attr->comp_mask & SPREADING)
		return create_spreading(ctx, attr, out);
	bool needs_xrcd = attr->qp_type == FFV_QPT_XRC_RECV;
	struct ffv_qp_init_attr basic = { attr->qp_context, attr->send_cq, attr->recv_cq, attr->srq, attr->cap,
					  attr->qp_type, attr->sq_sig_all };
	struct ffv_qp *qp;

	rc = check_and_create(ctx, needs_xrcd ? NULL : attr->pd, needs_xrcd ? attr->xrcd : NULL, &basic, 0, &qp);
	if (rc)
		return rc;
	if (attr->comp_mask & FFV_QP_INIT_ATTR_SEND_OPS_FLAGS) {
		rc = ffv_qp_batch_create(qp, attr->send_ops_flags);
		if (rc) {
			ffv_destroy_qp(qp);
			return rc;
		}
	}
	attr->cap = basic.cap;
	qp->blocks_own_multicast = attr->comp_mask & FFV_QP_INIT_ATTR_CREATE_FLAGS &&
				       attr->create_flags & FFV_QP_CREATE_BLOCK_SELF_MCAST_LB;
	*out = qp;
	return 0;
}

/* ---- destroying -------------------------------------------------------------------------------------------------------- */

/* With the last link to a dead peer, what we hold of it goes. */
static void free_links_locked(struct ffv_qp *qp)
{
	struct ffv_context *ctx = qp->ctx;

	pthread_mutex_lock(&ctx->lock);
	struct ffv_link *link = ffv_load_relaxed(&qp->link);
	ffv_store_relaxed(&qp->link, NULL);
	pthread_mutex_unlock(&ctx->lock);
	if (!link)
		return;
	while (link) {
		struct ffv_link *older = link->older;
		if (link->peer)
			ffv_peer_put(link->peer);
		ffv_slab_free(&ffv_links, link);
		link = older;
	}
	ffv_peer_reap(ctx);
}

static void free_links(struct ffv_qp *qp)
{
	pthread_mutex_lock(&qp->ctx->service);
	free_links_locked(qp);
	pthread_mutex_unlock(&qp->ctx->service);
}

bool ffv_qp_rest(struct ffv_qp *qp)
{
	/* The service thread and the caller are all who execute for it, and neither does so now. */
	if (pthread_mutex_trylock(&qp->ctx->service))
		return false;
	free_links_locked(qp);
	pthread_mutex_unlock(&qp->ctx->service);
	return true;
}

static void leave_timer(struct ffv_context *ctx, struct ffv_qp *qp)
{
	for (struct ffv_qp **at = &ctx->waiting; *at; at = &(*at)->timer_next) {
		if (*at == qp) {
			*at = qp->timer_next;
			return;
		}
	}
}

/* No poll of this CQ finds the QP after this. */
static void forget_in(struct ffv_cq *cq, struct ffv_qp *qp)
{
	ffv_spin_token token = ffv_spin_lock(&cq->lock);

	ffv_store_relaxed(&cq->ctx->qps[qp->ref.qpn % FFV_QPN_BLOCK], NULL);
	ffv_spin_unlock(&cq->lock, token);
}

/* Takes it out of the sight of pollers (who hold their queue's lock) and of the service thread (service lock held). */
static void unlist(struct ffv_context *ctx, struct ffv_qp *qp)
{
	if (qp->send_cq)
		forget_in(qp->send_cq, qp);
	if (qp->recv_cq)
		forget_in(qp->recv_cq, qp);
	ffv_store_relaxed(&ctx->qps[qp->ref.qpn % FFV_QPN_BLOCK], NULL); /* which completes nowhere itself (XRC_RECV) */
	leave_timer(ctx, qp);
	pthread_mutex_lock(&ctx->lock);
	ctx->qp_used[qp->ref.qpn % FFV_QPN_BLOCK] = 0;
	if (qp->srq)
		ffv_srq_remove_user(qp->srq, qp);
	pthread_mutex_unlock(&ctx->lock);
}

void ffv_qp_clean_cqs(struct ffv_qp *qp)
{
	if (qp->send_cq)
		ffv_cq_clean(qp->send_cq, qp);
	if (qp->recv_cq && qp->recv_cq != qp->send_cq)
		ffv_cq_clean(qp->recv_cq, qp);
}

/* What is under way to another host is to be dropped there. */
static void tell_proxy(struct ffv_qp *qp)
{
	struct ffv_link *link = ffv_qp_link(qp);

	if (link && link->peer && link->peer->view.proxy)
		ffv_context_attention(qp->ctx, &link->peer->view, FFV_ATTENTION_QP + qp->ref.qpn % FFV_QPN_BLOCK);
}

/* Takes it out of everybody's sight: service thread, peers, pollers. */
static void unpublish(struct ffv_qp *qp)
{
	struct ffv_context *ctx = qp->ctx;
	struct ffv_arena_shm *arena = ctx->view.arena;
	uint32_t index = qp->ref.qpn % FFV_QPN_BLOCK;

	pthread_mutex_lock(&ctx->service);
	/* [qp-generation] even: it is gone. Executions that saw it odd are waited for before its memory is used again. */
	ffv_store_seq_cst(&qp->ref.shm->generation, qp->ref.generation + 1);
	ffv_store_relaxed(&qp->ref.shm->state, (uint32_t)FFV_QPS_RESET);
	ffv_store_release(&arena->qp_line[index], 0u);
	FFV_FAULT(qp_destroy);
	pthread_mutex_unlock(&ctx->service);
	/* A device may be at its buffers on behalf of another host, and stops when its router knows; else what executions still
	 * complete is dropped when polled. */
	tell_proxy(qp);
	ffv_qp_quiesce(qp, DESTROY_WAIT_NS);
	ffv_qp_clean_cqs(qp);
	ffv_tm_leave(qp);
	/* Until here the service thread may still have found it: it is done with it when it lets go of its lock. */
	pthread_mutex_lock(&ctx->service);
	unlist(ctx, qp);
	pthread_mutex_unlock(&ctx->service);
	ffv_fetch_sub(&arena->num_qp, 1u);
}

int ffv_destroy_qp(struct ffv_qp *qp)
{
	if (!qp)
		return ffv_fail(EINVAL, "no queue pair");
	struct ffv_context *ctx = qp->ctx;
	if (ffv_context_check(ctx)) { /* a fork child: only its memory */
		if (qp->asked)
			ffv_private_free(qp->sq_wr_id);
		if (ffv_qp_has_own_rq(qp)) {
			ffv_private_free(qp->own_rq->wr_id);
			ffv_private_free((void *)qp->own_rq->busy);
		}
		ffv_qp_batch_destroy(qp);
		free(qp->rss);
		free_qp(qp);
		return 0;
	}
	pthread_mutex_lock(&ctx->service);
	uint32_t groups = qp->num_groups, flows = qp->num_flows;
	pthread_mutex_unlock(&ctx->service);
	if (groups)
		return ffv_fail(EBUSY, "queue pair %#x is in %u multicast groups: detach it first", qp->ref.qpn, groups);
	if (flows)
		return ffv_fail(EBUSY, "%u flows lead to queue pair %#x: destroy them first", flows, qp->ref.qpn);
	ffv_qp_give_back_taken(qp);
	unpublish(qp);
	ffv_async_forget(ctx, &qp->async_outstanding);
	ffv_rss_release(qp->rss);
	free_links(qp);
	ffv_context_retire(ctx, qp->stage_line, FFV_STAGE_BYTES);
	free_parts(ctx, qp);
	ffv_qp_detach_counters(qp);
	ffv_qp_batch_destroy(qp);
	count_users(qp, -1u); /* the domain outlives what its allocators gave */
	free_qp(qp);
	return 0;
}

/* ---- asking ------------------------------------------------------------------------------------------------------------- */

uint32_t ffv_qp_num(struct ffv_qp *qp)
{
	return qp ? qp->ref.qpn : 0;
}

uint32_t ffv_qp_state(struct ffv_qp *qp)
{
	return qp ? ffv_load_acquire(&qp->ref.shm->state) : FFV_QPS_UNKNOWN;
}

int ffv_query_qp(struct ffv_qp *qp, struct ffv_qp_attr *attr, uint32_t mask, struct ffv_qp_init_attr *init_attr)
{
	int rc = ffv_context_check(qp ? qp->ctx : NULL);

	(void)mask; /* everything is cheap to tell */
	if (rc)
		return rc;
	pthread_mutex_lock(&qp->lock);
	*attr = qp->asked->attr;
	attr->qp_state = attr->cur_qp_state = ffv_load_acquire(&qp->ref.shm->state);
	attr->cap = qp->asked->init_attr.cap;
	attr->sq_draining = attr->qp_state == FFV_QPS_SQD && ffv_load_acquire(&qp->ref.shm->draining);
	*init_attr = qp->asked->init_attr;
	pthread_mutex_unlock(&qp->lock);
	return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * Changing the state and the attributes of a queue pair.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "verbs/attend.h"
#include "verbs/cq.h"
#include "verbs/gid.h"
#include "verbs/process.h"
#include "verbs/qp.h"
#include "verbs/rq.h"
#include "verbs/tags.h"

#define ATTACH_TIMEOUT_MS 1000
#define PROXY_WAIT_NS 2000000000ull
#define KNOWN_ACCESS (0xffu | FFV_ACCESS_FLUSH_GLOBAL | FFV_ACCESS_RELAXED_ORDERING)
#define LOCK_TIMEOUT_NS 1000000000ull

/* ---- the lock of a send queue in shared memory --------------------------------------------------------------------------- */

static bool lock_word(_Atomic uint64_t *word, uint64_t holder, uint64_t timeout_ns)
{
	uint64_t deadline_ns = ffv_clock_ns() + timeout_ns;

	for (unsigned spins = 0;; spins++) {
		uint64_t seen = 0;
		if (ffv_cas(word, &seen, holder))
			return true;
		if (spins % 64 != 63)
			ffv_cpu_relax();
		else if (ffv_clock_ns() > deadline_ns)
			return false;
		else
			sched_yield();
	}
}

static uint64_t own_holder(struct ffv_context *ctx)
{
	int number = ffv_thread_number();

	return FFV_EXEC_HOLDER(ctx->view.context_id, number < 0 ? (int)FFV_MAX_THREADS : number);
}

static void unlock_queue(struct ffv_qp *qp)
{
	if (ffv_exchange(&qp->ref.shm->exec_lock, 0) & FFV_EXEC_AGAIN)
		ffv_qp_run(qp);
}

/* ---- links ---------------------------------------------------------------------------------------------------------------- */

/* A proxy's queue pair that failed is made anew when somebody wants it: whom it stands for may not have failed. */
static bool is_spent(const struct ffv_link *link)
{
	uint32_t state = ffv_load_acquire(&link->ref.shm->state);

	return link->peer && link->peer->view.proxy && (state == FFV_QPS_ERR || state == FFV_QPS_SQE);
}

static bool is_current(const struct ffv_qp *qp, const struct ffv_link *link)
{
	uint8_t gid[16];

	if (!link || !ffv_qp_ref_is_current(&link->ref) || link->ref.qpn != ffv_load_relaxed(&qp->ref.shm->dest_qpn))
		return false;
	ffv_qp_shm_dgid(qp->ref.shm, gid);
	return !memcmp(gid, link->peer ? link->peer->gid : qp->ctx->gid, 16) &&
	       (!link->peer || ffv_peer_state(link->peer) == FFV_PEER_ATTACHED);
}

struct ffv_slab ffv_links = FFV_SLAB(sizeof(struct ffv_link));

struct ffv_link *ffv_qp_refresh_link(struct ffv_qp *qp)
{
	struct ffv_context *ctx = qp->ctx;
	struct ffv_qp_shm *shm = qp->ref.shm;
	struct ffv_link *link = ffv_qp_link(qp);

	if (!ffv_type_is_connected(qp->type) || ffv_load_acquire(&shm->state) < FFV_QPS_RTR)
		return NULL;
	if (is_current(qp, link)) {
		if (ffv_unlikely(is_spent(link)))
			ffv_context_attention(ctx, &link->peer->view, FFV_ATTENTION_QP + qp->ref.qpn % FFV_QPN_BLOCK);
		return link;
	}
	uint32_t dest_qpn = ffv_load_relaxed(&shm->dest_qpn);
	uint8_t dgid[16];

	ffv_qp_shm_dgid(shm, dgid);
	bool self = dest_qpn / FFV_QPN_BLOCK == ctx->block && !memcmp(dgid, ctx->gid, 16);
	struct ffv_peer *peer = self ? NULL : ffv_peer_get(ctx, dgid, dest_qpn);
	bool proxies = peer && peer->view.proxy && ctx->proxy; /* two routers' proxies have nothing to say to each other */
	struct ffv_link *fresh = (self || peer) && !proxies ? ffv_slab_alloc(&ffv_links) : NULL;
	if (!fresh || ffv_qp_ref_open(self ? &ctx->view : &peer->view, dest_qpn, &fresh->ref)) {
		ffv_slab_free(&ffv_links, fresh);
		if (peer && peer->view.proxy) /* it makes its queue pair when it is wanted, and runs our queue then */
			ffv_context_attention(ctx, &peer->view, FFV_ATTENTION_QP + qp->ref.qpn % FFV_QPN_BLOCK);
		if (peer)
			ffv_peer_put(peer);
		return NULL;
	}
	fresh->peer = peer;
	pthread_mutex_lock(&ctx->lock);
	fresh->older = ffv_load_relaxed(&qp->link);
	/* [link] */
	ffv_store_release(&qp->link, fresh);
	pthread_mutex_unlock(&ctx->lock);
	return fresh;
}

/* ---- checking attributes -------------------------------------------------------------------------------------------------- */

static int check_av(const struct ffv_ah_attr *av)
{
	if (!av->is_global)
		return ffv_fail(EINVAL, "an Ethernet port needs a global route: is_global = 1 and a dgid");
	if (av->grh.sgid_index > 1)
		return ffv_fail(EINVAL, "GID index %u is empty; 0 and 1 are not", av->grh.sgid_index);
	return 0;
}

static int check_values(const struct ffv_qp_attr *attr, uint32_t mask)
{
	if (mask & (FFV_QP_ALT_PATH | FFV_QP_PATH_MIG_STATE | FFV_QP_RATE_LIMIT | FFV_QP_CAP))
		return ffv_fail(EOPNOTSUPP, "alternate paths, resizing of queue pairs, and rate limits by this call are not supported");
	if (mask & FFV_QP_ACCESS_FLAGS && attr->qp_access_flags & ~KNOWN_ACCESS)
		return ffv_fail(EINVAL, "access flags %#x have unknown bits", attr->qp_access_flags);
	if (mask & FFV_QP_PORT && attr->port_num != 1)
		return ffv_fail(EINVAL, "port %u does not exist; there is port 1", attr->port_num);
	if (mask & FFV_QP_PKEY_INDEX && attr->pkey_index != 0)
		return ffv_fail(EINVAL, "P_Key index %u does not exist; there is index 0", attr->pkey_index);
	if (mask & FFV_QP_PATH_MTU && (attr->path_mtu < 1 || attr->path_mtu > 5))
		return ffv_fail(EINVAL, "path MTU %u is not one of 1 (256 bytes) to 5 (4096 bytes)", attr->path_mtu);
	if ((mask & FFV_QP_TIMEOUT && attr->timeout > 31) || (mask & FFV_QP_RETRY_CNT && attr->retry_cnt > 7) ||
	    (mask & FFV_QP_RNR_RETRY && attr->rnr_retry > 7) ||
	    (mask & FFV_QP_MIN_RNR_TIMER && attr->min_rnr_timer > 31))
		return ffv_fail(EINVAL, "timeout and min_rnr_timer are 0 to 31, retry_cnt and rnr_retry 0 to 7");
	if (mask & FFV_QP_DEST_QPN && attr->dest_qp_num > 0xffffff)
		return ffv_fail(EINVAL, "QP number %#x has more than 24 bits", attr->dest_qp_num);
	if ((mask & FFV_QP_MAX_QP_RD_ATOMIC && attr->max_rd_atomic > 128) ||
	    (mask & FFV_QP_MAX_DEST_RD_ATOMIC && attr->max_dest_rd_atomic > 128))
		return ffv_fail(EINVAL, "at most 128 reads and atomics can be outstanding");
	return mask & FFV_QP_AV ? check_av(&attr->ah_attr) : 0;
}

/* ---- taking attributes over ------------------------------------------------------------------------------------------------- */

static void take_av(struct ffv_qp_shm *shm, const struct ffv_ah_attr *av)
{
	uint8_t dgid[16], canonical[16];
	uint64_t halves[2];

	memcpy(dgid, &av->grh.dgid_subnet_prefix_be, 8);
	memcpy(dgid + 8, &av->grh.dgid_interface_id_be, 8);
	ffv_gid_canonical(dgid, canonical);
	memcpy(halves, canonical, 16);
	ffv_store_relaxed(&shm->dgid[0], halves[0]);
	ffv_store_relaxed(&shm->dgid[1], halves[1]);
	shm->sl = av->sl;
	shm->sgid_index = av->grh.sgid_index;
	shm->hop_limit = av->grh.hop_limit;
	shm->flow_tclass = av->grh.flow_label << 8 | av->grh.traffic_class;
}

#define TAKE(bit, field) do { if (mask & (bit)) to->field = attr->field; } while (0)

/* For those who ask for it. */
static void remember(struct ffv_qp_attr *to, const struct ffv_qp_attr *attr, uint32_t mask)
{
	TAKE(FFV_QP_ACCESS_FLAGS, qp_access_flags);
	TAKE(FFV_QP_PKEY_INDEX, pkey_index);
	TAKE(FFV_QP_PORT, port_num);
	TAKE(FFV_QP_QKEY, qkey);
	TAKE(FFV_QP_AV, ah_attr);
	TAKE(FFV_QP_PATH_MTU, path_mtu);
	TAKE(FFV_QP_TIMEOUT, timeout);
	TAKE(FFV_QP_RETRY_CNT, retry_cnt);
	TAKE(FFV_QP_RNR_RETRY, rnr_retry);
	TAKE(FFV_QP_RQ_PSN, rq_psn);
	TAKE(FFV_QP_SQ_PSN, sq_psn);
	TAKE(FFV_QP_MAX_QP_RD_ATOMIC, max_rd_atomic);
	TAKE(FFV_QP_MAX_DEST_RD_ATOMIC, max_dest_rd_atomic);
	TAKE(FFV_QP_MIN_RNR_TIMER, min_rnr_timer);
	TAKE(FFV_QP_DEST_QPN, dest_qp_num);
	TAKE(FFV_QP_EN_SQD_ASYNC_NOTIFY, en_sqd_async_notify);
}

#define PUBLISH(bit, field, value) do { if (mask & (bit)) ffv_store_relaxed(&shm->field, value); } while (0)

/* For those who execute. */
static void publish(struct ffv_qp_shm *shm, const struct ffv_qp_attr *attr, uint32_t mask)
{
	PUBLISH(FFV_QP_ACCESS_FLAGS, access, (uint32_t)attr->qp_access_flags);
	PUBLISH(FFV_QP_QKEY, qkey, attr->qkey);
	PUBLISH(FFV_QP_DEST_QPN, dest_qpn, attr->dest_qp_num);
	PUBLISH(FFV_QP_TIMEOUT, timeout, attr->timeout);
	PUBLISH(FFV_QP_RETRY_CNT, retry_cnt, attr->retry_cnt);
	PUBLISH(FFV_QP_RNR_RETRY, rnr_retry, attr->rnr_retry);
	PUBLISH(FFV_QP_MIN_RNR_TIMER, min_rnr_timer, attr->min_rnr_timer);
	PUBLISH(FFV_QP_MAX_QP_RD_ATOMIC, max_rd_atomic, attr->max_rd_atomic);
	PUBLISH(FFV_QP_MAX_DEST_RD_ATOMIC, max_dest_rd_atomic, attr->max_dest_rd_atomic);
	PUBLISH(FFV_QP_SQ_PSN, sq_psn, attr->sq_psn & 0xffffff);
	PUBLISH(FFV_QP_RQ_PSN, rq_psn, attr->rq_psn & 0xffffff);
	if (attr->path_mtu)
		PUBLISH(FFV_QP_PATH_MTU, path_mtu_bytes, 128u << attr->path_mtu);
}

static void set_attributes(struct ffv_qp *qp, const struct ffv_qp_attr *attr, uint32_t mask)
{
	if (qp->asked)
		remember(&qp->asked->attr, attr, mask);
	publish(qp->ref.shm, attr, mask);
	if (mask & FFV_QP_AV)
		take_av(qp->ref.shm, &attr->ah_attr);
}

static void forget_attributes(struct ffv_qp *qp)
{
	const struct ffv_qp_attr none = { .port_num = 1 };

	if (qp->asked)
		qp->asked->attr = none;
	publish(qp->ref.shm, &none, UINT32_MAX);
}

/* ---- transitions with work of their own ---------------------------------------------------------------------------------------- */

static void reset_queues(struct ffv_qp *qp)
{
	struct ffv_qp_shm *shm = qp->ref.shm;

	ffv_spin_token token = ffv_spin_lock(&qp->sq_lock);
	ffv_store_relaxed(&shm->sq_exec, qp->sq_posted);
	ffv_store_relaxed(&qp->sq_completed, qp->sq_posted);
	ffv_spin_unlock(&qp->sq_lock, token);
	shm->blocked_first = 0;
	shm->progress_bytes = shm->staged_bytes = 0;
	shm->rq_taken = shm->tag_taken = shm->tag_counted = FFV_TAKEN_NOT;
	ffv_store_relaxed(&shm->blocked, FFV_BLOCKED_NOT);
	ffv_store_relaxed(&shm->deadline_ns, UINT64_MAX);
	ffv_store_relaxed(&shm->last_status, 0u);
	ffv_store_relaxed(&shm->rate_kbps, 0u);
	if (ffv_qp_has_own_rq(qp))
		ffv_rq_reset(qp->own_rq);
	qp->last_wqe_raised = false;
	forget_attributes(qp);
}

/* Empties the queues once nobody executes on them any more: the state already turns newcomers away. */
static int enter_reset(struct ffv_qp *qp, uint32_t from)
{
	struct ffv_qp_shm *shm = qp->ref.shm;

	ffv_store_seq_cst(&shm->state, (uint32_t)FFV_QPS_RESET);
	if (!ffv_qp_quiesce(qp, LOCK_TIMEOUT_NS)) {
		ffv_store_seq_cst(&shm->state, from);
		return ffv_fail(EBUSY, "queue pair %#x is being written to by a stopped process", qp->ref.qpn);
	}
	/* [flush-reset] Whoever is flushing ends before the queue is emptied, and who comes later finds the state. */
	pthread_mutex_lock(&qp->flush);
	pthread_mutex_unlock(&qp->flush);
	ffv_qp_clean_cqs(qp);
	ffv_tm_leave(qp);
	reset_queues(qp);
	return 0;
}

/* The work request at the head has been begun and waits for its peer: in SQD it still ends. exec_lock held. */
static bool has_begun(const struct ffv_qp_shm *shm)
{
	uint32_t blocked = ffv_load_relaxed(&shm->blocked);

	return ffv_load_relaxed(&shm->sq_exec) != ffv_load_relaxed(&shm->sq_tail) && blocked != FFV_BLOCKED_NOT &&
	       blocked != FFV_BLOCKED_PACED;
}

static void set_draining(struct ffv_qp *qp, uint32_t from, uint32_t to, const struct ffv_qp_attr *attr, uint32_t mask)
{
	if (to == from)
		return;
	ffv_store_relaxed(&qp->ref.shm->draining, (uint8_t)(to == FFV_QPS_SQD && has_begun(qp->ref.shm)));
	ffv_store_relaxed(&qp->tell_drained,
			  to == FFV_QPS_SQD && mask & FFV_QP_EN_SQD_ASYNC_NOTIFY && attr->en_sqd_async_notify);
}

static int enter_state(struct ffv_qp *qp, uint32_t to, const struct ffv_qp_attr *attr, uint32_t mask)
{
	struct ffv_qp_shm *shm = qp->ref.shm;

	if (to == FFV_QPS_ERR) { /* needs no lock: a stopped peer cannot prevent it */
		ffv_exec_set_error(shm, 0);
		return 0;
	}
	if (!lock_word(&shm->exec_lock, own_holder(qp->ctx), LOCK_TIMEOUT_NS))
		return ffv_fail(EBUSY, "queue pair %#x is being executed by a stopped process", qp->ref.qpn);
	uint32_t from = ffv_load_relaxed(&shm->state);
	int rc = ffv_qp_check_transition(qp->type, from, to, mask);
	if (!rc && to == FFV_QPS_RESET)
		rc = enter_reset(qp, from);
	if (!rc) {
		set_attributes(qp, attr, mask);
		set_draining(qp, from, to, attr, mask);
		/* [qp-state] attributes before the state that makes them count. An error found meanwhile stays. */
		if (!ffv_cas(&shm->state, &from, to) && to == FFV_QPS_RESET)
			ffv_store_release(&shm->state, to);
	}
	unlock_queue(qp);
	return rc;
}

/* Finds the peer before the state changes, so that the first work request finds it. That it is not there (yet) is no
 * error: a NIC would not know either. */
static void attach_peer(struct ffv_qp *qp, const struct ffv_qp_attr *attr)
{
	struct ffv_context *ctx = qp->ctx;
	uint8_t raw[16], dgid[16];

	memcpy(raw, &attr->ah_attr.grh.dgid_subnet_prefix_be, 8);
	memcpy(raw + 8, &attr->ah_attr.grh.dgid_interface_id_be, 8);
	ffv_gid_canonical(raw, dgid);
	if (attr->dest_qp_num / FFV_QPN_BLOCK == ctx->block && !memcmp(dgid, ctx->gid, 16))
		return;
	ffv_peer_attach(ctx, dgid, attr->dest_qp_num, ATTACH_TIMEOUT_MS);
	FFV_FAULT(qp_modify_rtr);
}

/* The router makes its queue pair when ours asks for it (in ffv_qp_refresh_link). It is waited for a while, so that the
 * first message of an unreliable connection is not lost, as it is not when both ends are on one host. */
static void await_proxy(struct ffv_qp *qp)
{
	const struct timespec nap = { .tv_nsec = 100000 };
	uint8_t dgid[16];

	ffv_qp_shm_dgid(qp->ref.shm, dgid);
	struct ffv_peer *peer = ffv_peer_get(qp->ctx, dgid, ffv_load_relaxed(&qp->ref.shm->dest_qpn));
	bool proxy = peer && peer->view.proxy;
	uint64_t deadline_ns = ffv_clock_ns() + PROXY_WAIT_NS;

	if (peer)
		ffv_peer_put(peer);
	for (const struct ffv_link *link = NULL; proxy && ffv_clock_ns() < deadline_ns; nanosleep(&nap, NULL)) {
		link = ffv_qp_refresh_link(qp);
		if (link && ffv_load_acquire(&link->ref.shm->state) >= FFV_QPS_RTR && !is_spent(link))
			return;
	}
}

static void after_transition(struct ffv_qp *qp, uint32_t from, uint32_t to)
{
	struct ffv_context *ctx = qp->ctx;

	if (to == FFV_QPS_RTR && ffv_type_is_connected(qp->type)) {
		if (!ffv_qp_refresh_link(qp) || is_spent(ffv_qp_link(qp)))
			await_proxy(qp);
		ffv_qp_serve_peer(qp); /* it may have been waiting for us */
	}
	if (to == FFV_QPS_RTS && from != FFV_QPS_RTS)
		ffv_qp_run(qp);
	if (to == FFV_QPS_SQD)
		ffv_qp_report_drained(qp);
	if (to == FFV_QPS_ERR && from != FFV_QPS_ERR) {
		pthread_mutex_lock(&ctx->service);
		ffv_attend_qp(ctx, qp);
		pthread_mutex_unlock(&ctx->service);
	}
}

int ffv_modify_qp(struct ffv_qp *qp, const struct ffv_qp_attr *attr, uint32_t mask)
{
	int rc = ffv_context_check(qp ? qp->ctx : NULL);

	if (rc)
		return rc;
	if (qp->rss)
		return ffv_fail(EOPNOTSUPP, "queue pair %#x receives through an indirection table, as it was made", qp->ref.qpn);
	uint32_t from = ffv_load_acquire(&qp->ref.shm->state);
	uint32_t to = mask & FFV_QP_STATE ? attr->qp_state : from;
	if (to > FFV_QPS_ERR)
		return ffv_fail(EINVAL, "there is no queue pair state %u", to);
	if (mask & FFV_QP_CUR_STATE && attr->cur_qp_state != from)
		return ffv_fail(EINVAL, "the queue pair is in state %s, not %s", ffv_qp_state_name(from),
				ffv_qp_state_name(attr->cur_qp_state));
	rc = ffv_qp_check_transition(qp->type, from, to, mask);
	if (!rc)
		rc = check_values(attr, mask);
	if (rc)
		return rc;
	if (to == FFV_QPS_RTR && mask & FFV_QP_AV)
		attach_peer(qp, attr);
	if (to == FFV_QPS_RESET)
		ffv_qp_give_back_taken(qp);
	pthread_mutex_lock(&qp->lock);
	rc = enter_state(qp, to, attr, mask);
	pthread_mutex_unlock(&qp->lock);
	if (!rc)
		after_transition(qp, from, to);
	return rc;
}

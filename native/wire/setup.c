/* SPDX-License-Identifier: MIT
 *
 * The setup thread: whatever may have to wait for a container (opening and closing proxies, connecting their queue
 * pairs, attaching). Jobs are done in the order in which they were queued, and handed back to the loop. The loop leaves
 * a proxy or a queue pair alone while a job for it is under way.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/fault.h"
#include "verbs/port.h"
#include "wire/router.h"

#define ATTACH_TIMEOUT_MS 1000

/* ---- proxies ------------------------------------------------------------------------------------------------------------ */

static int open_proxy(struct ffv_proxy *proxy)
{
	struct ffv_identity identity = { .dir = proxy->router->dir, .block = proxy->block, .hooks = &proxy->hooks };

	memcpy(identity.gid, proxy->gid, 16);
	int rc = ffv_context_open(&identity, &proxy->ctx);
	if (!rc)
		rc = ffv_alloc_pd(proxy->ctx, &proxy->pd);
	if (!rc)
		rc = ffv_create_comp_channel(proxy->ctx, &proxy->events);
	if (!rc)
		rc = ffv_create_cq(proxy->ctx, FFV_PROXY_CQE, NULL, proxy->events, 0, &proxy->cq);
	if (!rc)
		rc = ffv_req_notify_cq(proxy->cq, 0);
	if (!rc && proxy->is_bridge)
		rc = ffv_port_join(proxy->ctx);
	if (!proxy->is_bridge)
		FFV_FAULT(wire_proxy_bound);
	return rc;
}

static int close_proxy(struct ffv_proxy *proxy)
{
	int rc = proxy->cq ? ffv_destroy_cq(proxy->cq) : 0;

	if (rc)
		return rc;
	proxy->cq = NULL;
	rc = proxy->events ? ffv_destroy_comp_channel(proxy->events) : 0;
	if (rc)
		return rc;
	proxy->events = NULL;
	rc = proxy->xrcd ? ffv_close_xrcd(proxy->xrcd) : 0;
	if (rc)
		return rc;
	proxy->xrcd = NULL;
	rc = proxy->pd ? ffv_dealloc_pd(proxy->pd) : 0;
	if (rc)
		return rc;
	proxy->pd = NULL;
	FFV_FAULT(wire_proxy_emptied);
	if (proxy->ctx)
		proxy->ctx->silent = proxy->died;
	rc = proxy->ctx ? ffv_close_device(proxy->ctx) : 0;
	if (!rc)
		proxy->ctx = NULL;
	return rc;
}

/* ---- queue pairs ---------------------------------------------------------------------------------------------------------- */

static int create(struct ffv_pair *pair)
{
	struct ffv_proxy *proxy = pair->proxy;
	struct ffv_qp_init_attr attr = { .send_cq = proxy->cq, .recv_cq = proxy->cq, .qp_type = ffv_opposite_type(pair->type),
					 .cap = { FFV_WINDOW, 1, 1, 1, 0 }, .sq_sig_all = 1 };
	struct ffv_xrcd_init_attr of_nobody = { .comp_mask = FFV_XRCD_INIT_ATTR_FD | FFV_XRCD_INIT_ATTR_OFLAGS, .fd = -1,
						.oflags = O_CREAT };
	bool needs_xrcd = attr.qp_type == FFV_QPT_XRC_RECV;
	struct ffv_qp *qp;
	int rc = needs_xrcd && !proxy->xrcd ? ffv_open_xrcd(proxy->ctx, &of_nobody, &proxy->xrcd) : 0;

	if (!rc)
		rc = ffv_qp_create_as(proxy->pd, needs_xrcd ? proxy->xrcd : NULL, &attr, pair->far_qpn, &qp);
	if (!rc)
		pair->qp = qp;
	return rc;
}

static int to_init(struct ffv_pair *pair)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_INIT, .port_num = 1 };

	return ffv_modify_qp(pair->qp, &attr, FFV_QP_STATE | FFV_QP_PORT | FFV_QP_PKEY_INDEX |
			     (pair->type == FFV_QPT_UD ? FFV_QP_QKEY : FFV_QP_ACCESS_FLAGS));
}

static uint32_t mtu_code(uint32_t bytes)
{
	uint32_t code = 1;

	while (code < 5 && 128u << code < bytes)
		code++;
	return code;
}

static int to_rtr(struct ffv_pair *pair, const struct ffv_frame_open *from)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_RTR, .dest_qp_num = pair->qpn, .path_mtu = mtu_code(from->mtu_bytes),
				    .max_dest_rd_atomic = 128, .min_rnr_timer = 1,
				    .ah_attr = { .is_global = 1, .port_num = 1, .grh = { .hop_limit = 64, .sgid_index = 1 } } };
	uint32_t mask = FFV_QP_STATE;

	memcpy(&attr.ah_attr.grh.dgid_subnet_prefix_be, pair->gid, 8);
	memcpy(&attr.ah_attr.grh.dgid_interface_id_be, pair->gid + 8, 8);
	if (pair->type != FFV_QPT_UD)
		mask |= FFV_QP_AV | FFV_QP_PATH_MTU | FFV_QP_DEST_QPN | FFV_QP_RQ_PSN;
	if (pair->type == FFV_QPT_RC || pair->type == FFV_QPT_XRC_SEND)
		mask |= FFV_QP_MAX_DEST_RD_ATOMIC | FFV_QP_MIN_RNR_TIMER;
	return ffv_modify_qp(pair->qp, &attr, mask);
}

static int to_rts(struct ffv_pair *pair, const struct ffv_frame_open *from)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_RTS, .timeout = from->timeout & 31, .retry_cnt = from->retry_cnt & 7,
				    .rnr_retry = from->rnr_retry & 7,
				    .max_rd_atomic = from->max_rd_atomic < 128 ? from->max_rd_atomic : 128 };
	uint32_t mask = FFV_QP_STATE | FFV_QP_SQ_PSN;

	if (pair->type == FFV_QPT_RC || pair->type == FFV_QPT_XRC_RECV)
		mask |= FFV_QP_TIMEOUT | FFV_QP_RETRY_CNT | FFV_QP_RNR_RETRY | FFV_QP_MAX_QP_RD_ATOMIC;
	return ffv_modify_qp(pair->qp, &attr, mask);
}

static int connect_pair(const struct ffv_job *job)
{
	struct ffv_qp_attr reset = { .qp_state = FFV_QPS_RESET };
	struct ffv_pair *pair = job->pair;
	int rc = pair->qp ? ffv_modify_qp(pair->qp, &reset, FFV_QP_STATE) : create(pair);

	if (!rc)
		rc = to_init(pair);
	if (!rc)
		rc = to_rtr(pair, &job->attributes);
	FFV_FAULT(wire_pair_attached);
	if (!rc && job->to_rts)
		rc = to_rts(pair, &job->attributes);
	return rc;
}

/* ---- the thread -------------------------------------------------------------------------------------------------------------- */

static int perform(const struct ffv_job *job)
{
	switch (job->kind) {
	case FFV_JOB_OPEN_PROXY:
		return job->proxy->refused ? ffv_fail(EPERM, "its host may not speak for it") : open_proxy(job->proxy);
	case FFV_JOB_CLOSE_PROXY:
		return close_proxy(job->proxy);
	case FFV_JOB_CONNECT:
		return job->proxy->cq ? connect_pair(job) : -ENOTCONN;
	case FFV_JOB_DESTROY:
		if (job->qp)
			ffv_destroy_qp(job->qp);
		FFV_FAULT(wire_pair_destroyed);
		if (job->peer)
			ffv_peer_put(job->peer);
		return 0;
	case FFV_JOB_ATTACH:
		return job->proxy->ctx ? ffv_peer_attach(job->proxy->ctx, job->address.to_gid, job->address.to_qpn,
							 ATTACH_TIMEOUT_MS) : -ENOTCONN;
	}
	return -EINVAL;
}

static struct ffv_job *next_job(struct ffv_router *router)
{
	pthread_mutex_lock(&router->lock);
	while (!router->jobs && !router->stopping)
		pthread_cond_wait(&router->changed, &router->lock);
	struct ffv_job *job = router->jobs;
	if (job) {
		router->jobs = job->next;
		if (!router->jobs)
			router->last_job = &router->jobs;
	}
	pthread_mutex_unlock(&router->lock);
	return job;
}

static void hand_back(struct ffv_router *router, struct ffv_job *job)
{
	job->next = NULL;
	pthread_mutex_lock(&router->lock);
	*router->last_done = job;
	router->last_done = &job->next;
	ffv_router_wake_locked(router);
	pthread_mutex_unlock(&router->lock);
}

void *ffv_setup_thread(void *arg)
{
	struct ffv_router *router = arg;
	struct ffv_job *job;

	while ((job = next_job(router)) != NULL) {
		job->result = perform(job);
		if (job->result)
			snprintf(job->text, sizeof job->text, "%s", ffv_error_text());
		hand_back(router, job);
	}
	return NULL;
}

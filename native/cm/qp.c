/* SPDX-License-Identifier: MIT
 *
 * Queue pairs of ids: creating them, and the attributes that a connection gives them. Runs in the program's threads.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "cm/cm.h"

#define ACK_TIMEOUT 19        /* 2.1 s, which is what a RoCE path has without an option */
#define HOP_LIMIT 64
#define MIN_RNR_TIMER 0       /* 655.36 ms, as the kernel's CM sets */

/* ---- attributes ------------------------------------------------------------------------------------------------------------ */

void ffv_cm_fill_ah_attr(const struct ffv_cm_id_private *id, const uint8_t gid[16], struct ffv_ah_attr *attr)
{
	*attr = (struct ffv_ah_attr){ .is_global = 1, .port_num = 1 };
	memcpy(&attr->grh.dgid_subnet_prefix_be, gid, 8);
	memcpy(&attr->grh.dgid_interface_id_be, gid + 8, 8);
	attr->grh.sgid_index = 1;
	attr->grh.hop_limit = HOP_LIMIT;
	attr->grh.traffic_class = id->has_tos ? id->tos : id->request.tos;
}

static bool knows_peer(const struct ffv_cm_id_private *id)
{
	return id->state == FFV_CM_REQ_RCVD || id->state == FFV_CM_REP_SENT || id->state == FFV_CM_REP_RCVD ||
	       id->state == FFV_CM_ESTABLISHED;
}

static uint32_t for_init(const struct ffv_cm_id_private *id, struct ffv_qp_attr *attr)
{
	attr->pkey_index = 0;
	attr->port_num = 1;
	attr->qp_access_flags = 0;
	if (ffv_cm_is_datagram(id)) {
		attr->qkey = FFV_CM_UDP_QKEY;
		return FFV_QP_STATE | FFV_QP_PKEY_INDEX | FFV_QP_PORT | FFV_QP_QKEY;
	}
	if (knows_peer(id)) { /* before that nobody may do anything */
		attr->qp_access_flags = FFV_ACCESS_REMOTE_WRITE;
		if (id->responder_resources)
			attr->qp_access_flags |= FFV_ACCESS_REMOTE_READ | FFV_ACCESS_REMOTE_ATOMIC;
	}
	return FFV_QP_STATE | FFV_QP_PKEY_INDEX | FFV_QP_PORT | FFV_QP_ACCESS_FLAGS;
}

static uint32_t for_rtr(const struct ffv_cm_id_private *id, struct ffv_qp_attr *attr)
{
	uint32_t mask = FFV_QP_STATE | FFV_QP_AV | FFV_QP_PATH_MTU | FFV_QP_DEST_QPN | FFV_QP_RQ_PSN;

	if (ffv_cm_is_datagram(id))
		return FFV_QP_STATE;
	ffv_cm_fill_ah_attr(id, id->remote_gid, &attr->ah_attr);
	attr->path_mtu = id->mtu;
	attr->dest_qp_num = id->remote_qpn;
	attr->rq_psn = id->remote_psn;
	if (id->id.qp_type == FFV_QPT_UC)
		return mask;
	attr->max_dest_rd_atomic = id->responder_resources;
	attr->min_rnr_timer = MIN_RNR_TIMER;
	return mask | FFV_QP_MAX_DEST_RD_ATOMIC | FFV_QP_MIN_RNR_TIMER;
}

static uint32_t for_rts(const struct ffv_cm_id_private *id, struct ffv_qp_attr *attr)
{
	attr->sq_psn = ffv_cm_is_datagram(id) ? 0 : id->local_psn;
	if (id->id.qp_type != FFV_QPT_RC)
		return FFV_QP_STATE | FFV_QP_SQ_PSN;
	attr->timeout = id->has_ack_timeout ? id->ack_timeout : ACK_TIMEOUT;
	attr->retry_cnt = id->retry_count;
	attr->rnr_retry = id->rnr_retry_count;
	attr->max_rd_atomic = id->initiator_depth;
	return FFV_QP_STATE | FFV_QP_SQ_PSN | FFV_QP_TIMEOUT | FFV_QP_RETRY_CNT | FFV_QP_RNR_RETRY |
	       FFV_QP_MAX_QP_RD_ATOMIC;
}

static uint32_t fill(const struct ffv_cm_id_private *id, struct ffv_qp_attr *attr)
{
	if (attr->qp_state == FFV_QPS_RTR)
		return for_rtr(id, attr);
	return attr->qp_state == FFV_QPS_RTS ? for_rts(id, attr) : for_init(id, attr);
}

int ffv_cm_init_qp_attr(struct ffv_cm_id *id, struct ffv_qp_attr *attr, uint32_t *mask)
{
	struct ffv_cm_id_private *own = ffv_cm_private(id);
	int rc = ffv_cm_check_id(id);

	if (!rc && (!attr || !mask))
		rc = ffv_fail(EINVAL, "no place for the attributes was given");
	if (!rc && !own->device)
		rc = ffv_fail(EINVAL, "the id has no device yet: resolve or bind it first");
	if (!rc && attr->qp_state != FFV_QPS_INIT && attr->qp_state != FFV_QPS_RTR && attr->qp_state != FFV_QPS_RTS)
		rc = ffv_fail(EINVAL, "a connection gives the attributes of INIT, RTR and RTS");
	if (rc)
		return rc;
	pthread_mutex_lock(&ffv_cm_lock);
	*mask = knows_peer(own) && !ffv_cm_is_datagram(own) ? fill(own, attr) : for_init(own, attr);
	pthread_mutex_unlock(&ffv_cm_lock);
	return 0;
}

/* ---- states ----------------------------------------------------------------------------------------------------------------- */

static int enter(struct ffv_cm_id_private *id, uint32_t state)
{
	struct ffv_qp_attr attr = { .qp_state = state };

	pthread_mutex_lock(&ffv_cm_lock);
	uint32_t mask = fill(id, &attr);
	pthread_mutex_unlock(&ffv_cm_lock);
	return ffv_modify_qp(id->id.qp, &attr, mask);
}

int ffv_cm_connect_qp(struct ffv_cm_id_private *id)
{
	int rc = enter(id, FFV_QPS_INIT); /* the access flags are known only now */

	if (!rc)
		rc = enter(id, FFV_QPS_RTR);
	return rc ? rc : enter(id, FFV_QPS_RTS);
}

int ffv_cm_fail_qp(struct ffv_cm_id_private *id)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_ERR };

	return id->id.qp ? ffv_modify_qp(id->id.qp, &attr, FFV_QP_STATE) : 0;
}

static int prepare(struct ffv_cm_id_private *id)
{
	int rc = enter(id, FFV_QPS_INIT);

	if (!rc && ffv_cm_is_datagram(id)) {
		rc = enter(id, FFV_QPS_RTR);
		rc = rc ? rc : enter(id, FFV_QPS_RTS);
	}
	return rc;
}

/* ---- creating ---------------------------------------------------------------------------------------------------------------- */

static int create_queue(struct ffv_cm_id_private *id, uint32_t size, struct ffv_comp_channel **channel, struct ffv_cq **cq)
{
	int rc = ffv_create_comp_channel(id->id.verbs, channel);

	if (rc)
		return rc;
	rc = ffv_create_cq(id->id.verbs, size ? (int)size : 1, &id->id, *channel, 0, cq);
	if (rc) {
		ffv_destroy_comp_channel(*channel);
		*channel = NULL;
	}
	return rc;
}

static void destroy_queue(struct ffv_comp_channel **channel, struct ffv_cq **cq, bool *owned)
{
	if (!*owned)
		return;
	ffv_destroy_cq(*cq);
	ffv_destroy_comp_channel(*channel);
	*cq = NULL;
	*channel = NULL;
	*owned = false;
}

static void destroy_queues(struct ffv_cm_id_private *id)
{
	destroy_queue(&id->id.send_cq_channel, &id->id.send_cq, &id->owns_send_cq);
	destroy_queue(&id->id.recv_cq_channel, &id->id.recv_cq, &id->owns_recv_cq);
}

static int create_queues(struct ffv_cm_id_private *id, struct ffv_qp_init_attr *attr)
{
	int rc = 0;

	if (!attr->send_cq && !id->id.send_cq) {
		rc = create_queue(id, attr->cap.max_send_wr, &id->id.send_cq_channel, &id->id.send_cq);
		id->owns_send_cq = !rc;
	}
	if (!rc && !attr->recv_cq && !id->id.recv_cq) {
		rc = create_queue(id, attr->cap.max_recv_wr, &id->id.recv_cq_channel, &id->id.recv_cq);
		id->owns_recv_cq = !rc;
	}
	if (!attr->send_cq)
		attr->send_cq = id->id.send_cq;
	if (!attr->recv_cq)
		attr->recv_cq = id->id.recv_cq;
	if (!attr->srq)
		attr->srq = id->id.srq;
	return rc;
}

static int check_attr(const struct ffv_cm_id *id, const struct ffv_qp_init_attr *attr)
{
	if (!attr)
		return ffv_fail(EINVAL, "no attributes for the queue pair were given");
	if (!id->verbs)
		return ffv_fail(EINVAL, "the id has no device yet: resolve or bind it first");
	if (id->qp)
		return ffv_fail(EINVAL, "the id has a queue pair");
	if ((id->qp_type == FFV_QPT_UD) != (attr->qp_type == FFV_QPT_UD))
		return ffv_fail(EINVAL, "the id is for queue pairs of type %u, not %u", id->qp_type, attr->qp_type);
	if ((id->send_cq && attr->send_cq && id->send_cq != attr->send_cq) ||
	    (id->recv_cq && attr->recv_cq && id->recv_cq != attr->recv_cq))
		return ffv_fail(EINVAL, "the id has other completion queues");
	return 0;
}

int ffv_cm_create_qp(struct ffv_cm_id *id, struct ffv_pd *pd, struct ffv_qp_init_attr *attr)
{
	struct ffv_cm_id_private *own = ffv_cm_private(id);
	struct ffv_qp_init_attr used;
	struct ffv_qp *qp;
	int rc = ffv_cm_check_id(id);

	if (!rc)
		rc = check_attr(id, attr);
	if (rc)
		return rc;
	used = *attr;
	rc = create_queues(own, &used);
	if (!rc)
		rc = ffv_create_qp(pd ? pd : id->pd, &used, &qp);
	if (rc) {
		destroy_queues(own);
		return rc;
	}
	uint32_t before = id->qp_type;
	ffv_cm_give_qp(own, qp, used.qp_type);
	rc = prepare(own);
	if (rc) {
		ffv_destroy_qp(ffv_cm_take_qp(own));
		ffv_cm_give_qp(own, NULL, before);
		destroy_queues(own);
		return rc;
	}
	own->owns_qp = true;
	if (pd)
		id->pd = pd;
	attr->cap = used.cap;
	return 0;
}

int ffv_cm_destroy_qp(struct ffv_cm_id *id)
{
	struct ffv_cm_id_private *own = ffv_cm_private(id);
	int rc = id ? 0 : ffv_fail(EINVAL, "no id was given");

	if (rc || !own->owns_qp)
		return rc;
	rc = ffv_cm_detach_all(own);
	if (rc)
		return rc;
	struct ffv_qp *qp = ffv_cm_take_qp(own);
	rc = ffv_destroy_qp(qp);
	if (rc) {
		ffv_cm_give_qp(own, qp, id->qp_type);
		return rc;
	}
	own->owns_qp = false;
	destroy_queues(own);
	return 0;
}

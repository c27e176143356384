/* SPDX-License-Identifier: MIT
 *
 * Connections as the program sees them: connect, accept, reject, establish, disconnect. What the peer says in between is
 * in serve.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "cm/address.h"
#include "cm/cm.h"
#include "verbs/context.h"

#define TRY_AGAIN_NS 5000000ull   /* when the listener has no room */
#define DEFAULT_RETRIES 7
#define RETRIES_MASK 7            /* a message has three bits for each count, and takes no more of them */
#define MTU_4096 5
#define PSN_MASK 0xffffffu

/* ---- messages ------------------------------------------------------------------------------------------------------------- */

void ffv_cm_begin_message(const struct ffv_cm_id_private *id, struct ffv_cm_message *message, uint32_t kind)
{
	memset(message, 0, sizeof *message);
	message->kind = kind;
	memcpy(message->gid, id->device->gid, 16);
	message->qpn = id->local_qpn;
	message->qp_type = id->id.qp_type;
	message->psn = id->local_psn;
	message->port_space = id->id.ps;
	message->mtu = id->mtu;
}

static int add_private_data(struct ffv_cm_message *message, const void *data, uint8_t length)
{
	bool datagram = message->qp_type == FFV_QPT_UD;
	uint8_t limit = ffv_cm_private_limit(message->kind, datagram);

	if (length > limit || (length && !data))
		return ffv_fail(EINVAL, "at most %u bytes of private data go along, not %u", limit, length);
	if (length)
		memcpy(message->private_data, data, length);
	message->private_data_len = length;
	return 0;
}

static void send_reject(struct ffv_cm_id_private *id, uint32_t reason)
{
	struct ffv_cm_message message;

	ffv_cm_begin_message(id, &message, FFV_CM_REJ);
	message.reason = reason;
	ffv_cm_send(id->socket->fd, &message); /* else the hang-up tells it */
}

static void leave_socket(struct ffv_cm_id_private *id)
{
	if (id->socket)
		ffv_cm_remove_socket(id->socket, true);
	id->socket = NULL;
	id->deadline_ns = id->retry_ns = UINT64_MAX;
}

void ffv_cm_hang_up(struct ffv_cm_id_private *id)
{
	struct ffv_cm_message message;

	if (id->socket) {
		bool datagram = ffv_cm_is_datagram(id);
		switch (id->state) {
		case FFV_CM_REQ_SENT:
		case FFV_CM_REQ_RCVD:
		case FFV_CM_REP_SENT:
		case FFV_CM_REP_RCVD:
			send_reject(id, datagram ? FFV_CM_SIDR_REJECT : FFV_CM_REJ_CONSUMER_DEFINED);
			break;
		case FFV_CM_ESTABLISHED:
		case FFV_CM_DREQ_RCVD:
			ffv_cm_begin_message(id, &message, id->state == FFV_CM_ESTABLISHED ? FFV_CM_DREQ : FFV_CM_DREP);
			ffv_cm_send(id->socket->fd, &message);
			break;
		default:
			break;
		}
	}
	leave_socket(id);
	id->state = FFV_CM_ENDED;
}

/* ---- what is agreed on ------------------------------------------------------------------------------------------------------ */

static uint8_t device_depth(const struct ffv_cm_id_private *id)
{
	struct ffv_device_attr attr;

	if (ffv_query_device(id->device->ctx, &attr) || attr.max_qp_rd_atom <= 0)
		return 0;
	return attr.max_qp_rd_atom < FFV_CM_MAX_RESPONDER_RESOURCES ? (uint8_t)attr.max_qp_rd_atom :
								       FFV_CM_MAX_RESPONDER_RESOURCES - 1;
}

static int check_param(const struct ffv_cm_id_private *id, const struct ffv_cm_conn_param *param)
{
	uint8_t most = device_depth(id);

	if (!id->id.qp && !param)
		return ffv_fail(EINVAL, "an id without queue pair needs parameters that name one");
	if (!param || ffv_cm_is_datagram(id))
		return 0;
	if ((param->responder_resources != FFV_CM_MAX_RESPONDER_RESOURCES && param->responder_resources > most) ||
	    (param->initiator_depth != FFV_CM_MAX_RESPONDER_RESOURCES && param->initiator_depth > most))
		return ffv_fail(EINVAL, "at most %u reads and atomics can be under way, not %u and %u", most,
				param->responder_resources, param->initiator_depth);
	if (!id->id.qp && (param->qp_num > PSN_MASK || !param->qp_num))
		return ffv_fail(EINVAL, "the parameters name no queue pair: %#x", param->qp_num);
	return 0;
}

static uint8_t choose(const struct ffv_cm_conn_param *param, uint8_t wanted, uint8_t otherwise)
{
	return param && wanted != FFV_CM_MAX_RESPONDER_RESOURCES ? wanted : otherwise;
}

static uint32_t own_qpn(const struct ffv_cm_id_private *id, const struct ffv_cm_conn_param *param)
{
	return id->id.qp ? ffv_qp_num(id->id.qp) : param ? param->qp_num : 0;
}

/* ---- connecting ------------------------------------------------------------------------------------------------------------- */

static int fill_request(struct ffv_cm_id_private *id, const struct ffv_cm_conn_param *param)
{
	struct ffv_cm_message *request = &id->request;
	uint8_t depth = device_depth(id);
	const void *data = param && param->private_data_len ? param->private_data : id->ep_connect;
	uint8_t length = param && param->private_data_len ? param->private_data_len : id->ep_connect_len;

	id->local_qpn = own_qpn(id, param);
	id->local_psn = ffv_random32() & PSN_MASK;
	id->mtu = MTU_4096;
	id->responder_resources = choose(param, param ? param->responder_resources : 0, depth);
	id->initiator_depth = choose(param, param ? param->initiator_depth : 0, depth);
	id->retry_count = param ? param->retry_count & RETRIES_MASK : DEFAULT_RETRIES;
	ffv_cm_begin_message(id, request, FFV_CM_REQ);
	ffv_address_to_endpoint(&id->id.route.addr.src, &request->src);
	ffv_address_to_endpoint(&id->id.route.addr.dst, &request->dst);
	request->responder_resources = id->responder_resources;
	request->initiator_depth = id->initiator_depth;
	request->flow_control = param && param->flow_control;
	request->retry_count = id->retry_count;
	request->rnr_retry_count = param ? param->rnr_retry_count & RETRIES_MASK : DEFAULT_RETRIES;
	request->srq = id->id.srq || (param && param->srq);
	request->tos = id->tos;
	request->ece_vendor = id->local_ece.vendor_id;
	request->ece_options = id->local_ece.options;
	return add_private_data(request, data, length);
}

/* Lock held. The listener may be on another host: the router passes the request on. */
static int send_request_away(struct ffv_cm_id_private *id, const struct ffv_service *service)
{
	int fd, rc;

	ffv_cm_seal(&id->request);
	rc = ffv_lookup_call(id->device->ctx, service, &id->request, sizeof id->request, &fd);
	return rc ? rc : ffv_cm_add_socket(id->device, fd, id, &id->socket);
}

int ffv_cm_send_request(struct ffv_cm_id_private *id)
{
	struct ffv_service service;
	int fd, rc;

	ffv_address_service(id->device->gid, &id->id.route.addr.dst, id->id.ps, &service);
	rc = ffv_lookup_connect(id->device->ctx, &service, &fd);
	if (rc == -ENOENT) {
		rc = send_request_away(id, &service);
	} else if (!rc && !(rc = ffv_cm_add_socket(id->device, fd, id, &id->socket))) {
		FFV_FAULT(cm_req_unsent);
		rc = ffv_cm_send(fd, &id->request);
		FFV_FAULT(cm_req_sent);
		if (rc)
			leave_socket(id);
	}
	if (rc == -EAGAIN) {
		id->retry_ns = ffv_clock_ns() + TRY_AGAIN_NS;
		ffv_cm_wake_by(id->device, id->retry_ns);
	} else {
		id->retry_ns = UINT64_MAX;
	}
	return rc;
}

/* An answer, not an error. */
void ffv_cm_find_nobody(struct ffv_cm_id_private *id)
{
	leave_socket(id);
	id->state = FFV_CM_ENDED;
	if (ffv_cm_is_datagram(id))
		ffv_cm_raise(id, FFV_CM_EVENT_UNREACHABLE, FFV_CM_SIDR_UNSUPPORTED);
	else
		ffv_cm_raise(id, FFV_CM_EVENT_REJECTED, FFV_CM_REJ_INVALID_SERVICE_ID);
}

int ffv_cm_connect(struct ffv_cm_id *id, const struct ffv_cm_conn_param *param)
{
	struct ffv_cm_id_private *own = ffv_cm_private(id);
	int rc = ffv_cm_check_id(id);

	if (rc)
		return rc;
	if (own->state != FFV_CM_ROUTE_RESOLVED)
		return ffv_fail(EINVAL, "an id connects once, after its route is resolved");
	rc = check_param(own, param);
	if (!rc)
		rc = fill_request(own, param);
	if (rc)
		return rc;
	pthread_mutex_lock(&ffv_cm_lock);
	own->state = FFV_CM_REQ_SENT;
	own->deadline_ns = ffv_clock_ns() + FFV_CM_RESPONSE_NS;
	rc = ffv_cm_send_request(own);
	if (rc == -ENOENT || rc == -EPIPE || rc == -ECONNRESET) {
		ffv_cm_find_nobody(own);
		rc = 0;
	} else if (rc && rc != -EAGAIN) {
		own->state = FFV_CM_ROUTE_RESOLVED;
		own->deadline_ns = UINT64_MAX;
	} else {
		ffv_cm_wake_by(own->device, own->deadline_ns);
		rc = 0;
	}
	pthread_mutex_unlock(&ffv_cm_lock);
	return rc ? rc : ffv_cm_complete(own);
}

/* ---- answering -------------------------------------------------------------------------------------------------------------- */

/* Lock held: sends the answer. A datagram id's connection has served its purpose with it. */
static int send_reply(struct ffv_cm_id_private *id, struct ffv_cm_message *reply)
{
	if (id->state != FFV_CM_REQ_RCVD || !id->socket)
		return ffv_fail(EINVAL, "the peer has gone, or was answered already");
	FFV_FAULT(cm_rep_unsent);
	int rc = ffv_cm_send(id->socket->fd, reply);
	FFV_FAULT(cm_rep_sent);
	if (rc)
		return rc;
	if (ffv_cm_is_datagram(id)) {
		leave_socket(id);
		id->state = FFV_CM_ESTABLISHED;
		return 0;
	}
	id->state = FFV_CM_REP_SENT;
	id->deadline_ns = ffv_clock_ns() + FFV_CM_RESPONSE_NS;
	ffv_cm_wake_by(id->device, id->deadline_ns);
	return 0;
}

static int fill_reply(struct ffv_cm_id_private *id, const struct ffv_cm_conn_param *param, struct ffv_cm_message *reply)
{
	uint8_t depth = device_depth(id);

	id->local_qpn = own_qpn(id, param);
	id->local_psn = ffv_random32() & PSN_MASK;
	if (param && param->initiator_depth != FFV_CM_MAX_RESPONDER_RESOURCES)
		id->initiator_depth = param->initiator_depth;
	else if (id->initiator_depth > depth)
		id->initiator_depth = depth;
	if (param && param->responder_resources != FFV_CM_MAX_RESPONDER_RESOURCES)
		id->responder_resources = param->responder_resources;
	else if (id->responder_resources > depth)
		id->responder_resources = depth;
	ffv_cm_begin_message(id, reply, FFV_CM_REP);
	reply->responder_resources = id->responder_resources;
	reply->initiator_depth = id->initiator_depth;
	reply->flow_control = param && param->flow_control;
	reply->rnr_retry_count = param ? param->rnr_retry_count & RETRIES_MASK : DEFAULT_RETRIES;
	reply->srq = id->id.srq || (param && param->srq);
	reply->qkey = FFV_CM_UDP_QKEY;
	reply->ece_vendor = id->local_ece.vendor_id;
	reply->ece_options = id->local_ece.options;
	return add_private_data(reply, param ? param->private_data : NULL, param ? param->private_data_len : 0);
}

int ffv_cm_accept(struct ffv_cm_id *id, const struct ffv_cm_conn_param *param)
{
	struct ffv_cm_id_private *own = ffv_cm_private(id);
	struct ffv_cm_message reply;
	int rc = ffv_cm_check_id(id);

	if (rc)
		return rc;
	pthread_mutex_lock(&ffv_cm_lock);
	bool waits = own->state == FFV_CM_REQ_RCVD;
	pthread_mutex_unlock(&ffv_cm_lock);
	if (!waits)
		return ffv_fail(EINVAL, "the id has no connect request to accept, or the peer has given it up");
	rc = check_param(own, param);
	if (!rc)
		rc = fill_reply(own, param, &reply);
	if (!rc && id->qp && !ffv_cm_is_datagram(own))
		rc = ffv_cm_connect_qp(own);
	if (rc)
		return rc;
	pthread_mutex_lock(&ffv_cm_lock);
	rc = send_reply(own, &reply);
	pthread_mutex_unlock(&ffv_cm_lock);
	if (rc) {
		ffv_cm_fail_qp(own);
		return rc;
	}
	if (!ffv_cm_is_datagram(own))
		return ffv_cm_complete(own);
	if (own->sync && id->event) {
		ffv_cm_ack_event(id->event);
		id->event = NULL;
	}
	return 0;
}

int ffv_cm_reject(struct ffv_cm_id *id, const void *private_data, uint8_t private_data_len)
{
	struct ffv_cm_id_private *own = ffv_cm_private(id);
	struct ffv_cm_message message;
	int rc = ffv_cm_check_id(id);

	if (rc)
		return rc;
	pthread_mutex_lock(&ffv_cm_lock);
	if (own->state != FFV_CM_REQ_RCVD && own->state != FFV_CM_REP_RCVD) {
		rc = ffv_fail(EINVAL, "the id has nothing to reject");
	} else {
		ffv_cm_begin_message(own, &message, FFV_CM_REJ);
		message.reason = ffv_cm_is_datagram(own) ? FFV_CM_SIDR_REJECT : FFV_CM_REJ_CONSUMER_DEFINED;
		rc = add_private_data(&message, private_data, private_data_len);
	}
	if (!rc) {
		FFV_FAULT(cm_rej_unsent);
		ffv_cm_send(own->socket->fd, &message); /* else the hang-up tells it */
		leave_socket(own);
		own->state = FFV_CM_ENDED;
	}
	pthread_mutex_unlock(&ffv_cm_lock);
	return rc;
}

int ffv_cm_establish(struct ffv_cm_id *id)
{
	struct ffv_cm_id_private *own = ffv_cm_private(id);
	struct ffv_cm_message message;
	int rc = ffv_cm_check_id(id);

	if (rc)
		return rc;
	if (id->qp)
		return ffv_fail(EINVAL, "the connection of an id with a queue pair of its own is established by reading "
				"its events");
	pthread_mutex_lock(&ffv_cm_lock);
	if (own->state != FFV_CM_REP_RCVD || !own->socket) {
		rc = ffv_fail(EINVAL, "the peer has not accepted a connection of this id, or has gone");
	} else {
		ffv_cm_begin_message(own, &message, FFV_CM_RTU);
		rc = ffv_cm_send(own->socket->fd, &message);
	}
	if (!rc)
		own->state = FFV_CM_ESTABLISHED;
	pthread_mutex_unlock(&ffv_cm_lock);
	return rc;
}

int ffv_cm_notify(struct ffv_cm_id *id, uint32_t event_type)
{
	struct ffv_cm_id_private *own = ffv_cm_private(id);
	int rc = ffv_cm_check_id(id);

	if (rc)
		return rc;
	if (event_type != FFV_EVENT_COMM_EST)
		return ffv_fail(EINVAL, "an id is notified that communication is established (4), not of event %u",
				event_type);
	pthread_mutex_lock(&ffv_cm_lock);
	if (own->state == FFV_CM_ESTABLISHED) {
		rc = ffv_fail(EISCONN, "the connection stands already");
	} else if (own->state != FFV_CM_REP_SENT) {
		rc = ffv_fail(EINVAL, "the id has not accepted a connection");
	} else {
		own->state = FFV_CM_ESTABLISHED;
		own->deadline_ns = UINT64_MAX;
		ffv_cm_raise(own, FFV_CM_EVENT_ESTABLISHED, 0);
	}
	pthread_mutex_unlock(&ffv_cm_lock);
	return rc;
}

/* ---- disconnecting ---------------------------------------------------------------------------------------------------------- */

/* Lock held. *waits: whether an event will tell the end. */
static int begin_disconnect(struct ffv_cm_id_private *id, bool *waits)
{
	struct ffv_cm_message message;

	*waits = false;
	if (ffv_cm_is_datagram(id)) /* nothing to end, but its queue pair */
		return 0;
	switch (id->state) {
	case FFV_CM_REP_SENT:
	case FFV_CM_REP_RCVD:
	case FFV_CM_ESTABLISHED:
		ffv_cm_begin_message(id, &message, FFV_CM_DREQ);
		FFV_FAULT(cm_dreq_unsent);
		id->state = FFV_CM_DREQ_SENT;
		id->deadline_ns = ffv_clock_ns() + FFV_CM_RESPONSE_NS;
		ffv_cm_wake_by(id->device, id->deadline_ns);
		ffv_cm_send(id->socket->fd, &message); /* else its hang-up tells the end */
		FFV_FAULT(cm_dreq_sent);
		*waits = true;
		return 0;
	case FFV_CM_DREQ_RCVD:
		if (id->socket) {
			ffv_cm_begin_message(id, &message, FFV_CM_DREP);
			ffv_cm_send(id->socket->fd, &message);
		}
		leave_socket(id);
		id->state = FFV_CM_ENDED;
		ffv_cm_raise(id, FFV_CM_EVENT_TIMEWAIT_EXIT, 0);
		*waits = true; /* for the DISCONNECTED that came with the peer's request */
		return 0;
	case FFV_CM_DREQ_SENT:
	case FFV_CM_ENDED:
		return 0;
	default:
		return ffv_fail(EINVAL, "the id has no connection");
	}
}

int ffv_cm_disconnect(struct ffv_cm_id *id)
{
	struct ffv_cm_id_private *own = ffv_cm_private(id);
	bool waits;
	int rc = ffv_cm_check_id(id);

	if (rc)
		return rc;
	if (!own->device)
		return ffv_fail(EINVAL, "the id has no connection");
	rc = ffv_cm_fail_qp(own);
	if (rc)
		return rc;
	pthread_mutex_lock(&ffv_cm_lock);
	rc = begin_disconnect(own, &waits);
	pthread_mutex_unlock(&ffv_cm_lock);
	return rc || !waits ? rc : ffv_cm_complete(own);
}

/* SPDX-License-Identifier: MIT
 *
 * What peers say, and what time says: the state machine of connections, on the service thread, under ffv_cm_lock. Every
 * message was checked when it was received; here it is checked against the state of its connection. A message out of turn
 * ends the connection as a death of the peer does.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fault.h"
#include "cm/address.h"
#include "cm/cm.h"

#define MESSAGES_AT_ONCE 8
#define CONNECTIONS_AT_ONCE 64
#define CALL_AGAIN_NS 20000000ull /* when a listener of another host had no room */
#define PAUSE_NS 50000000ull      /* of a listener, when there are no descriptors */

/* ---- ends ------------------------------------------------------------------------------------------------------------------- */

static void close_connection(struct ffv_cm_id_private *id)
{
	if (id->socket)
		ffv_cm_remove_socket(id->socket, true);
	id->socket = NULL;
	id->deadline_ns = id->retry_ns = UINT64_MAX;
}

static void end(struct ffv_cm_id_private *id, uint32_t type, int status)
{
	close_connection(id);
	id->state = FFV_CM_ENDED;
	ffv_cm_raise(id, type, status);
}

static void end_disconnected(struct ffv_cm_id_private *id, int status)
{
	end(id, FFV_CM_EVENT_DISCONNECTED, status);
	ffv_cm_raise(id, FFV_CM_EVENT_TIMEWAIT_EXIT, 0);
}

/* The peer has gone, or has not answered in time. */
static void on_loss(struct ffv_cm_id_private *id, int status)
{
	switch (id->state) {
	case FFV_CM_REQ_SENT:
	case FFV_CM_REQ_RCVD:
	case FFV_CM_REP_SENT:
	case FFV_CM_REP_RCVD:
		end(id, FFV_CM_EVENT_UNREACHABLE, status);
		break;
	case FFV_CM_ESTABLISHED:
		close_connection(id);
		id->state = FFV_CM_DREQ_RCVD; /* as if its last word had been this */
		ffv_cm_raise(id, FFV_CM_EVENT_DISCONNECTED, 0);
		break;
	case FFV_CM_DREQ_SENT:
		end_disconnected(id, status == -ETIMEDOUT ? status : 0);
		break;
	default:
		close_connection(id);
	}
}

/* ---- events with what the peer said ---------------------------------------------------------------------------------------- */

/* All bytes that such a message has room for are told, as by the kernel's CM, which does not know how many were meant. */
static void raise_with_data(struct ffv_cm_id_private *id, uint32_t type, int status, const struct ffv_cm_message *message)
{
	struct ffv_cm_event_private *event = ffv_cm_new_event(id, type, status);
	struct ffv_cm_conn_param *param;

	if (!event)
		return;
	memcpy(event->private_data, message->private_data, sizeof event->private_data);
	param = &event->event.param.conn; /* private data stands at the same place for datagrams */
	param->private_data = event->private_data;
	param->private_data_len = ffv_cm_private_limit(message->kind, ffv_cm_is_datagram(id));
	if (ffv_cm_is_datagram(id) && type == FFV_CM_EVENT_ESTABLISHED) {
		event->event.param.ud.qp_num = message->qpn;
		event->event.param.ud.qkey = message->qkey;
		ffv_cm_fill_ah_attr(id, message->gid, &event->event.param.ud.ah_attr);
	} else if (type == FFV_CM_EVENT_CONNECT_RESPONSE) {
		param->responder_resources = message->initiator_depth;
		param->initiator_depth = message->responder_resources;
		param->flow_control = message->flow_control;
		param->rnr_retry_count = message->rnr_retry_count;
		param->srq = message->srq;
		param->qp_num = message->qpn;
	}
	ffv_cm_post_event(event);
}

static void say_thinking(struct ffv_cm_id_private *id)
{
	struct ffv_cm_message mra;

	ffv_cm_begin_message(id, &mra, FFV_CM_MRA);
	ffv_cm_send(id->socket->fd, &mra);
}

/* ---- requests --------------------------------------------------------------------------------------------------------------- */

static void refuse(struct ffv_cm_socket *socket, const struct ffv_cm_message *request, bool datagram, uint32_t reason)
{
	struct ffv_cm_message message = { .kind = FFV_CM_REJ, .qp_type = request->qp_type,
					  .port_space = request->port_space, .reason = reason };

	if (datagram)
		message.reason = reason == FFV_CM_REJ_INVALID_SERVICE_ID ? FFV_CM_SIDR_UNSUPPORTED : FFV_CM_SIDR_REJECT;
	ffv_cm_send(socket->fd, &message);
	ffv_cm_remove_socket(socket, true);
}

static void take_peer(struct ffv_cm_id_private *id, const struct ffv_cm_message *message)
{
	memcpy(id->remote_gid, message->gid, 16);
	memcpy(id->id.route.addr.ibaddr.dgid.raw, message->gid, 16);
	id->remote_qpn = message->qpn;
	id->remote_psn = message->psn;
	id->rnr_retry_count = message->rnr_retry_count; /* each side says how often the other may try */
	id->mtu = message->mtu ? message->mtu : 1;
	id->responder_resources = message->initiator_depth;
	id->initiator_depth = message->responder_resources;
	id->remote_ece.vendor_id = message->ece_vendor;
	id->remote_ece.options = message->ece_options;
}

static struct ffv_cm_id_private *make_child(struct ffv_cm_id_private *listener, const struct ffv_cm_message *request)
{
	struct ffv_cm_id_private *id = ffv_cm_allocate_id(listener->id.ps, listener->id.channel, listener->id.context);

	if (!id)
		return NULL;
	id->device = listener->device;
	id->device->holds++;
	id->id.verbs = id->device->ctx;
	id->id.pd = id->device->pd;
	id->id.port_num = 1;
	id->id.qp_type = request->qp_type;
	id->state = FFV_CM_REQ_RCVD;
	id->request = *request;
	id->local_ece = listener->local_ece;
	id->tos = listener->tos;
	id->has_tos = listener->has_tos;
	id->ack_timeout = listener->ack_timeout;
	id->has_ack_timeout = listener->has_ack_timeout;
	take_peer(id, request);
	id->retry_count = request->retry_count;
	ffv_address_from_endpoint(&request->dst, &id->id.route.addr.src);
	ffv_address_from_endpoint(&request->src, &id->id.route.addr.dst);
	memcpy(id->id.route.addr.ibaddr.sgid.raw, id->device->gid, 16);
	id->id.route.addr.ibaddr.pkey_be = 0xffff;
	id->id.route.num_paths = 1;
	((struct ffv_cm_channel_private *)id->id.channel)->ids++;
	ffv_cm_list_id(id);
	return id;
}

static struct ffv_cm_event_private *make_request_event(struct ffv_cm_id_private *listener,
							const struct ffv_cm_message *request)
{
	struct ffv_cm_event_private *event = ffv_cm_new_event(listener, FFV_CM_EVENT_CONNECT_REQUEST, 0);

	if (!event)
		return NULL;
	memcpy(event->private_data, request->private_data, sizeof event->private_data);
	event->event.listen_id = &listener->id;
	event->event.param.conn = (struct ffv_cm_conn_param){
		.private_data = event->private_data,
		.private_data_len = ffv_cm_private_limit(FFV_CM_REQ, ffv_cm_is_datagram(listener)),
	};
	if (!ffv_cm_is_datagram(listener)) {
		event->event.param.conn.responder_resources = request->initiator_depth;
		event->event.param.conn.initiator_depth = request->responder_resources;
		event->event.param.conn.flow_control = request->flow_control;
		event->event.param.conn.retry_count = request->retry_count;
		event->event.param.conn.rnr_retry_count = request->rnr_retry_count;
		event->event.param.conn.srq = request->srq;
		event->event.param.conn.qp_num = request->qpn;
	}
	return event;
}

static void on_request(struct ffv_cm_socket *socket, const struct ffv_cm_message *request)
{
	struct ffv_cm_id_private *listener = socket->id;
	bool datagram = ffv_cm_is_datagram(listener);

	FFV_FAULT(cm_req_received);
	if (listener->state != FFV_CM_LISTEN || request->port_space != listener->id.ps ||
	    (request->qp_type == FFV_QPT_UD) != datagram) {
		refuse(socket, request, datagram, FFV_CM_REJ_INVALID_SERVICE_ID);
		return;
	}
	struct ffv_cm_event_private *event = listener->waiting_requests < listener->backlog ?
					     make_request_event(listener, request) : NULL;
	struct ffv_cm_id_private *id = event ? make_child(listener, request) : NULL;
	if (!id) { /* no room, as the kernel's CM answers */
		free(event);
		refuse(socket, request, datagram, FFV_CM_REJ_CONSUMER_DEFINED);
		return;
	}
	socket->id = id;
	socket->is_new = false;
	socket->deadline_ns = UINT64_MAX;
	id->socket = socket;
	event->event.id = &id->id;
	listener->waiting_requests++;
	say_thinking(id);
	ffv_cm_post_event(event);
	FFV_FAULT(cm_req_posted);
}

static void on_new_socket(struct ffv_cm_socket *socket)
{
	struct ffv_cm_message message;
	int rc = ffv_cm_receive(socket->fd, &message);

	if (rc == -EAGAIN)
		return;
	if (rc == 1 && message.kind == FFV_CM_REQ)
		on_request(socket, &message);
	else
		ffv_cm_remove_socket(socket, true);
}

static void on_listener(struct ffv_cm_socket *listener)
{
	struct ffv_cm_socket *fresh;

	for (int n = 0; n < CONNECTIONS_AT_ONCE; n++) {
		int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (fd < 0 && errno != EAGAIN) { /* no descriptor: they wait, and we do not ask all the time */
			ffv_cm_pause_socket(listener, true);
			listener->deadline_ns = ffv_clock_ns() + PAUSE_NS;
			ffv_cm_wake_by(listener->device, listener->deadline_ns);
		}
		if (fd < 0 || ffv_cm_add_socket(listener->device, fd, listener->id, &fresh))
			return;
		fresh->is_new = true;
		fresh->deadline_ns = ffv_clock_ns() + FFV_CM_RESPONSE_NS;
		ffv_cm_wake_by(listener->device, fresh->deadline_ns);
	}
}

/* ---- the rest of a conversation ------------------------------------------------------------------------------------------------ */

static void on_reply(struct ffv_cm_id_private *id, const struct ffv_cm_message *message)
{
	FFV_FAULT(cm_rep_received);
	if (ffv_cm_is_datagram(id)) {
		take_peer(id, message);
		close_connection(id);
		id->state = FFV_CM_ESTABLISHED;
		raise_with_data(id, FFV_CM_EVENT_ESTABLISHED, 0, message);
		return;
	}
	take_peer(id, message);
	id->deadline_ns = UINT64_MAX;
	id->state = FFV_CM_REP_RCVD;
	say_thinking(id);
	/* Whoever reads it brings the queue pair on, and makes an ESTABLISHED of it. */
	raise_with_data(id, FFV_CM_EVENT_CONNECT_RESPONSE, 0, message);
}

static void on_reject(struct ffv_cm_id_private *id, const struct ffv_cm_message *message)
{
	uint32_t type = ffv_cm_is_datagram(id) ? FFV_CM_EVENT_UNREACHABLE : FFV_CM_EVENT_REJECTED;
	int status = message->reason && message->reason < 0x10000 ? (int)message->reason : FFV_CM_REJ_CONSUMER_DEFINED;

	close_connection(id);
	id->state = FFV_CM_ENDED;
	raise_with_data(id, type, status, message);
}

static void on_ready_to_use(struct ffv_cm_id_private *id)
{
	id->deadline_ns = UINT64_MAX;
	id->state = FFV_CM_ESTABLISHED;
	ffv_cm_raise(id, FFV_CM_EVENT_ESTABLISHED, 0);
}

static void on_disconnect(struct ffv_cm_id_private *id)
{
	struct ffv_cm_message message;

	FFV_FAULT(cm_dreq_received);
	if (id->state == FFV_CM_DREQ_SENT) { /* both at once */
		ffv_cm_begin_message(id, &message, FFV_CM_DREP);
		ffv_cm_send(id->socket->fd, &message);
		end_disconnected(id, 0);
		return;
	}
	id->deadline_ns = UINT64_MAX;
	id->state = FFV_CM_DREQ_RCVD;
	say_thinking(id);
	ffv_cm_raise(id, FFV_CM_EVENT_DISCONNECTED, 0);
}

/* Whether a message of that kind may come in the state. */
static bool is_in_turn(enum ffv_cm_state state, uint32_t kind)
{
	switch (kind) {
	case FFV_CM_MRA:
		return state == FFV_CM_REQ_SENT || state == FFV_CM_REP_SENT || state == FFV_CM_DREQ_SENT ||
		       state == FFV_CM_ESTABLISHED;
	case FFV_CM_REP:
		return state == FFV_CM_REQ_SENT;
	case FFV_CM_RTU:
		return state == FFV_CM_REP_SENT || state == FFV_CM_ESTABLISHED || state == FFV_CM_DREQ_SENT;
	case FFV_CM_REJ:
		return state >= FFV_CM_REQ_SENT && state <= FFV_CM_REP_RCVD;
	case FFV_CM_DREQ:
		return state == FFV_CM_REP_SENT || state == FFV_CM_REP_RCVD || state == FFV_CM_ESTABLISHED ||
		       state == FFV_CM_DREQ_SENT;
	case FFV_CM_DREP:
		return state == FFV_CM_DREQ_SENT;
	default:
		return false;
	}
}

static void on_message(struct ffv_cm_id_private *id, const struct ffv_cm_message *message)
{
	bool datagram = ffv_cm_is_datagram(id);

	if (!is_in_turn(id->state, message->kind) || (message->qp_type == FFV_QPT_UD) != datagram) {
		on_loss(id, -EPROTO);
		return;
	}
	switch (message->kind) {
	case FFV_CM_MRA:
		if (id->state != FFV_CM_ESTABLISHED) {
			id->deadline_ns = ffv_clock_ns() + FFV_CM_SERVICE_NS;
			ffv_cm_wake_by(id->device, id->deadline_ns);
		}
		break;
	case FFV_CM_REP:
		on_reply(id, message);
		break;
	case FFV_CM_RTU:
		if (id->state == FFV_CM_REP_SENT) /* else the program knew it sooner */
			on_ready_to_use(id);
		break;
	case FFV_CM_REJ:
		on_reject(id, message);
		break;
	case FFV_CM_DREQ:
		on_disconnect(id);
		break;
	default:
		end_disconnected(id, 0);
	}
}

/* What the router has to say: that it cannot pass the conversation on. False: it is the peer who speaks. */
static bool on_router(struct ffv_cm_id_private *id)
{
	uint32_t error;

	if (id->state != FFV_CM_REQ_SENT || ffv_lookup_answer(id->socket->fd, &error) != 1)
		return false;
	if (error == EAGAIN) { /* the listener has no room */
		ffv_cm_remove_socket(id->socket, true);
		id->socket = NULL;
		id->retry_ns = ffv_clock_ns() + CALL_AGAIN_NS;
		ffv_cm_wake_by(id->device, id->retry_ns);
	} else if (error == ENOENT) {
		ffv_cm_find_nobody(id);
	} else {
		on_loss(id, -(int)error);
	}
	return true;
}

static void on_connection(struct ffv_cm_id_private *id)
{
	struct ffv_cm_message message;

	if (ffv_cm_is_resolving(id)) {
		ffv_cm_on_host_answer(id);
		return;
	}
	if (on_router(id))
		return;
	for (int n = 0; n < MESSAGES_AT_ONCE && id->socket; n++) {
		int rc = ffv_cm_receive(id->socket->fd, &message);
		if (rc == -EAGAIN)
			return;
		if (rc == 1)
			on_message(id, &message);
		else
			on_loss(id, rc ? rc : -ECONNRESET);
	}
}

void ffv_cm_on_socket(struct ffv_cm_socket *socket)
{
	if (socket->is_listener)
		on_listener(socket);
	else if (socket->is_new)
		on_new_socket(socket);
	else
		on_connection(socket->id);
}

/* ---- time ------------------------------------------------------------------------------------------------------------------------ */

static void on_time(struct ffv_cm_id_private *id, uint64_t now_ns)
{
	if (ffv_cm_is_resolving(id)) {
		ffv_cm_on_resolve_timer(id, now_ns);
	} else if (now_ns >= id->deadline_ns) {
		on_loss(id, -ETIMEDOUT);
	} else if (id->state == FFV_CM_REQ_SENT && !id->socket) {
		int rc = ffv_cm_send_request(id);
		if (rc == -ENOENT)
			ffv_cm_find_nobody(id);
		else if (rc && rc != -EAGAIN)
			on_loss(id, -ECONNREFUSED);
	}
}

uint64_t ffv_cm_on_timer(struct ffv_cm_device *device, uint64_t now_ns)
{
	uint64_t due_ns = UINT64_MAX;

	device->due_ns = UINT64_MAX; /* what is set meanwhile is found below */
	for (struct ffv_cm_id_private *id = ffv_cm_ids(); id; id = id->next) {
		if (id->device != device)
			continue;
		if (now_ns >= id->deadline_ns || now_ns >= id->retry_ns)
			on_time(id, now_ns);
		due_ns = id->deadline_ns < due_ns ? id->deadline_ns : due_ns;
		due_ns = id->retry_ns < due_ns ? id->retry_ns : due_ns;
	}
	for (struct ffv_cm_socket *socket = ffv_cm_sockets(), *next; socket; socket = next) {
		next = socket->next;
		if (now_ns < socket->deadline_ns) {
			due_ns = socket->deadline_ns < due_ns ? socket->deadline_ns : due_ns;
		} else if (socket->is_listener) {
			socket->deadline_ns = UINT64_MAX;
			ffv_cm_pause_socket(socket, false);
		} else {
			ffv_cm_remove_socket(socket, true);
		}
	}
	return due_ns;
}

/* SPDX-License-Identifier: MIT
 *
 * Datagram sockets: a UD queue pair, and an id of the connection manager that tells its number to those who ask for the socket's
 * address. A datagram carries the address of the socket that sent it. The socket's lock is held throughout.
 *
 * What comes is not trusted: a sender's address must be one of the container that the header of the datagram names.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/fault.h"
#include "rsocket/cursor.h"
#include "rsocket/datagram.h"

#define GRH_BYTES 40u
#define IPV4_SOURCE_AT 32u         /* RoCE v2: an IPv4 header stands in the last 20 bytes of that (IBA annex A17) */
#define IPV4_TARGET_AT 36u
#define SLOT_BYTES 4160u           /* of a header, a tag and the most payload; whole cache lines */
#define SENDS 16u
#define LEAST_RECEIVES 16u
#define MOST_RECEIVES 1024u
#define POLL_AT_ONCE 16
#define SEND_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL | MSG_CONFIRM | MSG_DONTROUTE)
#define RECV_FLAGS (MSG_DONTWAIT | MSG_PEEK | MSG_TRUNC | MSG_WAITALL | MSG_CMSG_CLOEXEC | MSG_NOSIGNAL)
_Static_assert(GRH_BYTES + FFV_RS_MTU <= SLOT_BYTES && GRH_BYTES == sizeof(struct ffv_grh), "a slot holds the longest datagram");

struct arrival { uint32_t slot, bytes; };

struct ffv_rs_datagrams {
	struct ffv_qp *qp;
	struct ffv_cq *send_cq;
	uint8_t *slots;                    /* those of sends, then those of receives */
	uint32_t receives;
	uint64_t posted, completed;        /* sends */
	uint64_t arrived, read;
	struct ffv_rs_bound bound;
	struct arrival arrivals[MOST_RECEIVES];
};

/* ---- life ---------------------------------------------------------------------------------------------------------------------- */

static uint8_t *receive_slot(const struct ffv_rs_datagrams *own, uint32_t slot)
{
	return own->slots + (size_t)(SENDS + slot) * SLOT_BYTES;
}

static int post_receive(struct ffv_rs_socket *socket, uint32_t slot)
{
	struct ffv_sge piece = { (uintptr_t)receive_slot(socket->datagrams, slot), SLOT_BYTES, socket->stream.mr->lkey };
	struct ffv_recv_wr wr = { .wr_id = slot, .sg_list = &piece, .num_sge = 1 }, *bad;

	return ffv_post_recv(socket->datagrams->qp, &wr, &bad);
}

static int make_ready(struct ffv_qp *qp)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_INIT, .port_num = 1, .qkey = FFV_CM_UDP_QKEY };
	int rc = ffv_modify_qp(qp, &attr, FFV_QP_STATE | FFV_QP_PKEY_INDEX | FFV_QP_PORT | FFV_QP_QKEY);

	attr.qp_state = FFV_QPS_RTR;
	if (!rc)
		rc = ffv_modify_qp(qp, &attr, FFV_QP_STATE);
	attr.qp_state = FFV_QPS_RTS;
	if (!rc)
		rc = ffv_modify_qp(qp, &attr, FFV_QP_STATE | FFV_QP_SQ_PSN);
	return rc;
}

static int create_queues(struct ffv_rs_socket *socket, struct ffv_context *ctx, struct ffv_pd *domain)
{
	struct ffv_rs_datagrams *own = socket->datagrams;
	struct ffv_rs_stream *stream = &socket->stream;
	struct ffv_qp_init_attr attr = { .qp_type = FFV_QPT_UD, .cap = { SENDS, own->receives, 1, 1, 0 } };
	int rc = ffv_create_comp_channel(ctx, &stream->channel);

	if (rc)
		return rc;
	stream->channel_fd = ffv_comp_channel_fd(stream->channel);
	if (fcntl(stream->channel_fd, F_SETFL, O_NONBLOCK))
		return ffv_fail_errno(errno, "a completion channel cannot be made non-blocking");
	rc = ffv_create_cq(ctx, (int)own->receives, NULL, stream->channel, 0, &stream->cq);
	if (!rc)
		rc = ffv_create_cq(ctx, SENDS, NULL, NULL, 0, &own->send_cq);
	attr.send_cq = own->send_cq;
	attr.recv_cq = stream->cq;
	if (!rc)
		rc = ffv_create_qp(domain, &attr, &own->qp);
	return rc ? rc : make_ready(own->qp);
}

/* The device, which an id that is bound to the wildcard address does not know. */
static int find_device(struct ffv_context **ctx, struct ffv_pd **domain)
{
	struct sockaddr_in loopback = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct ffv_cm_channel *channel;
	struct ffv_cm_id *id;
	int rc = ffv_rs_channel(&channel);

	if (!rc)
		rc = ffv_cm_create_id(channel, &id, NULL, FFV_PS_UDP);
	if (rc)
		return rc;
	rc = ffv_cm_bind_addr(id, (const struct sockaddr *)(const void *)&loopback);
	*ctx = id->verbs;
	if (!rc)
		rc = ffv_rs_domain(*ctx, domain);
	ffv_cm_destroy_id(id); /* the domain keeps the device open */
	return rc;
}

static int create(struct ffv_rs_socket *socket)
{
	struct ffv_rs_datagrams *own = socket->datagrams = calloc(1, sizeof *own);
	struct ffv_context *ctx = NULL;
	struct ffv_pd *domain = NULL;

	if (!own)
		return ffv_fail(ENOMEM, "no memory for a socket of datagrams");
	own->receives = socket->options.ring_bytes / SLOT_BYTES;
	own->receives = own->receives < LEAST_RECEIVES ? LEAST_RECEIVES : ffv_rs_min(own->receives, MOST_RECEIVES);
	int rc = find_device(&ctx, &domain);
	if (!rc)
		rc = create_queues(socket, ctx, domain);
	if (!rc)
		rc = ffv_alloc_mr(domain, (size_t)(SENDS + own->receives) * SLOT_BYTES, FFV_ACCESS_LOCAL_WRITE, &socket->stream.mr);
	if (rc)
		return rc;
	own->slots = socket->stream.mr->addr;
	for (uint32_t slot = 0; slot < own->receives && !rc; slot++)
		rc = post_receive(socket, slot);
	return rc;
}

int ffv_rs_open_datagrams(struct ffv_rs_socket *socket, int fd)
{
	int rc = create(socket);

	if (!rc)
		rc = ffv_rs_watch_stream(socket, fd);
	FFV_FAULT(rs_datagrams_made);
	if (!rc) {
		socket->datagrams->bound.socket = socket;
		socket->datagrams->bound.qpn = ffv_qp_num(socket->datagrams->qp);
		rc = ffv_rs_join_bound(&socket->datagrams->bound);
	}
	FFV_FAULT(rs_datagrams_bound);
	if (!rc)
		socket->state = FFV_RS_DATAGRAMS;
	else
		ffv_rs_drop_datagrams(socket);
	return rc;
}

/* Nobody is told of it any more; what is on its way still arrives, until the last call on it has ended. */
void ffv_rs_close_datagrams(struct ffv_rs_socket *socket)
{
	if (socket->state != FFV_RS_DATAGRAMS)
		return;
	FFV_FAULT(rs_datagrams_open);
	ffv_rs_leave_bound(&socket->datagrams->bound);
	FFV_FAULT(rs_datagrams_closed);
}

void ffv_rs_drop_datagrams(struct ffv_rs_socket *socket)
{
	struct ffv_rs_datagrams *own = socket->datagrams;

	if (!own)
		return;
	if (own->qp)
		ffv_destroy_qp(own->qp);
	if (own->send_cq)
		ffv_destroy_cq(own->send_cq);
	free(own);
	socket->datagrams = NULL;
	ffv_rs_stream_destroy(socket);
}

/* By the thread of process.c: a process asks which queue pair has the address. */
void ffv_rs_on_question(struct ffv_rs_socket *socket, struct ffv_cm_id *id, const void *data, uint8_t length)
{
	struct ffv_rs_datagram_hello hello = ffv_rs_datagram_hello(&id->route.addr.src);
	struct ffv_cm_conn_param param = { .private_data = &hello, .private_data_len = sizeof hello };
	union ffv_sockaddr from;

	FFV_FAULT(rs_question_read);
	param.qp_num = ffv_rs_is_datagram_hello(data, length, &from) ? ffv_rs_choose_bound(socket, &from) : 0;
	if (param.qp_num) {
		ffv_rs_was_asked_by(&socket->bound, &from);
		ffv_cm_accept(id, &param);
	} else {
		ffv_cm_reject(id, NULL, 0);
	}
	FFV_FAULT(rs_question_answered);
	ffv_cm_destroy_id(id);
}

int ffv_rs_connect_datagrams(struct ffv_rs_socket *socket, const union ffv_sockaddr *peer)
{
	if (!socket->datagrams)
		return ffv_fail(EINVAL, "the socket is bound to an address before it is connected");
	ffv_rs_connect_bound(&socket->datagrams->bound, peer);
	return 0;
}

const union ffv_sockaddr *ffv_rs_datagram_peer(const struct ffv_rs_socket *socket)
{
	return socket->datagrams && socket->datagrams->bound.is_connected ? &socket->datagrams->bound.peer : NULL;
}

/* ---- sending -------------------------------------------------------------------------------------------------------------------- */

static void write_tag(const struct ffv_rs_socket *socket, const struct ffv_rs_route *route, uint8_t *at)
{
	struct ffv_rs_tag tag = ffv_rs_tag(&socket->bound);

	if (ffv_rs_is_wildcard(&socket->bound))
		ffv_rs_address_bytes(&route->source, tag.addr);
	memcpy(at, &tag, sizeof tag);
}

static void take_sent(struct ffv_rs_datagrams *own)
{
	struct ffv_wc wc[SENDS];
	int count = ffv_poll_cq(own->send_cq, SENDS, wc);

	own->completed += count > 0 ? (uint64_t)count : 0;
}

static long post(struct ffv_rs_socket *socket, const struct ffv_rs_route *route, struct ffv_rs_cursor *cursor)
{
	struct ffv_rs_datagrams *own = socket->datagrams;
	uint32_t length = (uint32_t)cursor->left;

	take_sent(own);
	if (own->posted - own->completed == SENDS)
		return ffv_fail(EAGAIN, "there is no room for another datagram");
	uint8_t *slot = own->slots + own->posted % SENDS * SLOT_BYTES;
	write_tag(socket, route, slot);
	ffv_rs_gather(cursor, slot + sizeof(struct ffv_rs_tag), length);
	struct ffv_sge piece = { (uintptr_t)slot, (uint32_t)sizeof(struct ffv_rs_tag) + length, socket->stream.mr->lkey };
	struct ffv_send_wr wr = { .sg_list = &piece, .num_sge = 1, .opcode = FFV_WR_SEND, .send_flags = FFV_SEND_SIGNALED,
				  .wr.ud = { route->ah, route->qpn, route->qkey } }, *bad;
	FFV_FAULT(rs_datagram_unsent);
	int rc = ffv_post_send(own->qp, &wr, &bad);
	FFV_FAULT(rs_datagram_sent);
	own->posted += !rc;
	return rc ? rc : (long)length;
}

static int find_target(const struct ffv_rs_socket *socket, const struct msghdr *msg, union ffv_sockaddr *to)
{
	if (msg->msg_name)
		return ffv_rs_take_address(socket, msg->msg_name, msg->msg_namelen, to);
	if (!ffv_rs_datagram_peer(socket))
		return ffv_fail(EDESTADDRREQ, "a socket that is not connected sends to an address");
	*to = *ffv_rs_datagram_peer(socket);
	return 0;
}

long ffv_rs_send_by_ud(struct ffv_rs_socket *socket, const struct msghdr *msg, int flags)
{
	struct ffv_rs_cursor cursor;
	struct ffv_rs_route route;
	union ffv_sockaddr to;
	long rc = ffv_rs_cursor_start(&cursor, msg->msg_iov, msg->msg_iovlen);

	if (!rc && (flags & ~SEND_FLAGS || msg->msg_controllen))
		rc = ffv_fail(EOPNOTSUPP, "flags %#x, or control data, are left to UDP", flags & ~SEND_FLAGS);
	if (!rc && cursor.left > FFV_SOCKET_DATAGRAM_BYTES)
		rc = ffv_fail(EMSGSIZE, "a datagram has at most %u bytes, not %zu", FFV_SOCKET_DATAGRAM_BYTES, cursor.left);
	if (rc)
		return rc;
	pthread_mutex_lock(&socket->lock);
	rc = socket->datagrams ? find_target(socket, msg, &to) : ffv_fail(EINVAL, "the socket is not bound to an address");
	if (!rc)
		rc = ffv_rs_enter_route(&socket->bound, &to, &route);
	if (!rc) {
		rc = post(socket, &route, &cursor);
		ffv_rs_leave_route();
	}
	pthread_mutex_unlock(&socket->lock);
	return rc;
}

/* ---- receiving ------------------------------------------------------------------------------------------------------------------ */

static bool is_loopback(const uint8_t addr[16])
{
	static const uint8_t mapped[12] = { [10] = 0xff, 0xff };

	return !memcmp(addr, &in6addr_loopback, 16) || (!memcmp(addr, mapped, sizeof mapped) && addr[12] == 127);
}

/* Whether the datagram in the slot is one of a socket, from where it says, and for this one. */
static bool is_welcome(const struct ffv_rs_socket *socket, const uint8_t *slot, uint32_t bytes)
{
	const union ffv_sockaddr *peer = ffv_rs_datagram_peer(socket);
	uint8_t sender[16] = { [10] = 0xff, 0xff };
	struct ffv_rs_tag tag;
	union ffv_sockaddr from;

	if (bytes < GRH_BYTES + sizeof tag)
		return false;
	memcpy(&sender[12], slot + IPV4_SOURCE_AT, 4);
	memcpy(&tag, slot + GRH_BYTES, sizeof tag);
	bool is_own = !memcmp(slot + IPV4_SOURCE_AT, slot + IPV4_TARGET_AT, 4) && is_loopback(tag.addr);
	if (ntohl(tag.magic_be) != FFV_RS_MAGIC || ntohs(tag.family_be) != socket->domain || (!is_own && memcmp(tag.addr, sender, 16)))
		return false;
	if (!peer)
		return true;
	ffv_rs_give_tagged(&tag, &from);
	return ffv_rs_are_equal(&from, peer);
}

void ffv_rs_take_datagrams(struct ffv_rs_socket *socket)
{
	struct ffv_rs_datagrams *own = socket->datagrams;
	struct ffv_wc wc[POLL_AT_ONCE];
	int count = POLL_AT_ONCE;

	while (own && count == POLL_AT_ONCE) {
		count = ffv_poll_cq(socket->stream.cq, POLL_AT_ONCE, wc);
		for (int i = 0; i < count; i++) {
			uint32_t slot = (uint32_t)wc[i].wr_id;
			if (wc[i].status != FFV_WC_SUCCESS || !is_welcome(socket, receive_slot(own, slot), wc[i].byte_len)) {
				post_receive(socket, slot);
				continue;
			}
			own->arrivals[own->arrived++ % MOST_RECEIVES] = (struct arrival){ slot, wc[i].byte_len };
			ffv_fetch_add(&socket->changes, 1u);
		}
	}
}

bool ffv_rs_has_datagram(const struct ffv_rs_socket *socket)
{
	return socket->datagrams && socket->datagrams->arrived != socket->datagrams->read;
}

int ffv_rs_datagram_length(const struct ffv_rs_socket *socket)
{
	const struct ffv_rs_datagrams *own = socket->datagrams;

	return ffv_rs_has_datagram(socket) ?
	       (int)(own->arrivals[own->read % MOST_RECEIVES].bytes - GRH_BYTES - sizeof(struct ffv_rs_tag)) : 0;
}

static long take_datagram(struct ffv_rs_socket *socket, struct msghdr *msg, struct ffv_rs_cursor *cursor, int flags)
{
	struct ffv_rs_datagrams *own = socket->datagrams;
	uint32_t slot = own->arrivals[own->read % MOST_RECEIVES].slot, length = (uint32_t)ffv_rs_datagram_length(socket);
	uint32_t copied = ffv_rs_min(length, cursor->left);
	const uint8_t *at = receive_slot(own, slot) + GRH_BYTES;
	struct ffv_rs_tag tag;
	union ffv_sockaddr from;

	memcpy(&tag, at, sizeof tag);
	ffv_rs_give_tagged(&tag, &from);
	ffv_rs_scatter(cursor, at + sizeof tag, copied);
	if (msg->msg_name)
		ffv_rs_give_address(socket, &from, msg->msg_name, &msg->msg_namelen);
	msg->msg_controllen = 0;
	msg->msg_flags = copied < length ? MSG_TRUNC : 0;
	if (!(flags & MSG_PEEK)) {
		ffv_rs_heard_from(&socket->bound, &from);
		own->read++;
		FFV_FAULT(rs_datagram_copied);
		post_receive(socket, slot);
	}
	ffv_rs_show(socket);
	return flags & MSG_TRUNC ? (long)length : (long)copied;
}

long ffv_rs_receive_by_ud(struct ffv_rs_socket *socket, struct msghdr *msg, int flags)
{
	struct ffv_rs_cursor cursor;
	long rc = ffv_rs_cursor_start(&cursor, msg->msg_iov, msg->msg_iovlen);

	if (!rc && flags & ~RECV_FLAGS)
		rc = ffv_fail(EINVAL, "flags %#x are not supported in receiving", flags & ~RECV_FLAGS);
	if (rc)
		return rc;
	pthread_mutex_lock(&socket->lock);
	ffv_rs_progress(socket);
	rc = ffv_rs_has_datagram(socket) ? take_datagram(socket, msg, &cursor, flags) : -EAGAIN;
	pthread_mutex_unlock(&socket->lock);
	return rc;
}

int ffv_socket_datagrams(int fd, uint64_t counts[2])
{
	struct ffv_rs_socket *socket = ffv_rs_get(fd);

	if (!socket)
		return -EBADF;
	pthread_mutex_lock(&socket->lock);
	counts[0] = socket->datagrams ? socket->datagrams->posted : 0;
	counts[1] = socket->datagrams ? socket->datagrams->read : 0;
	pthread_mutex_unlock(&socket->lock);
	ffv_rs_put(socket);
	return 0;
}

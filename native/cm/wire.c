/* SPDX-License-Identifier: MIT
 *
 * See wire.h.
 */
#include "cm/wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/error.h"

#define MAGIC 0x316d637662766666ull /* "ffvbvcm1" as bytes */
#define VERSION 1u
#define WIDEST_24 0xffffffu

_Static_assert(sizeof(struct ffv_cm_message) == 312, "a message has no padding");

uint8_t ffv_cm_private_limit(uint32_t kind, bool datagram)
{
	switch (kind) {
	case FFV_CM_REQ:
		return datagram ? FFV_CM_UDP_CONNECT_DATA : FFV_CM_CONNECT_DATA;
	case FFV_CM_REP:
		return datagram ? FFV_CM_UDP_ACCEPT_DATA : FFV_CM_ACCEPT_DATA;
	case FFV_CM_REJ:
		return datagram ? FFV_CM_UDP_REJECT_DATA : FFV_CM_REJECT_DATA;
	default:
		return 0;
	}
}

void ffv_cm_seal(struct ffv_cm_message *message)
{
	message->magic = MAGIC;
	message->version = VERSION;
}

int ffv_cm_send(int fd, struct ffv_cm_message *message)
{
	ssize_t sent;

	ffv_cm_seal(message);
	do
		sent = send(fd, message, sizeof *message, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent == (ssize_t)sizeof *message)
		return 0;
	return sent < 0 ? ffv_fail_errno(errno, "a message of the connection manager cannot be sent") :
			  ffv_fail(EIO, "a message of the connection manager was sent in part");
}

static const uint8_t mapped[12] = { [10] = 0xff, 0xff };

static bool is_endpoint(const struct ffv_cm_endpoint *endpoint)
{
	return endpoint->family == AF_INET6 ||
	       (endpoint->family == AF_INET && memcmp(endpoint->address, mapped, sizeof mapped) == 0);
}

static bool is_right(const struct ffv_cm_message *message)
{
	bool datagram = message->qp_type == FFV_QPT_UD;

	if (message->magic != MAGIC || message->version != VERSION || message->kind < FFV_CM_REQ ||
	    message->kind > FFV_CM_DREP)
		return false;
	if (message->qp_type != FFV_QPT_RC && message->qp_type != FFV_QPT_UC && !datagram)
		return false;
	if (message->qpn > WIDEST_24 || message->psn > WIDEST_24 || message->private_data_len >
	    ffv_cm_private_limit(message->kind, datagram))
		return false;
	if (message->kind == FFV_CM_REQ && !(is_endpoint(&message->src) && is_endpoint(&message->dst)))
		return false;
	return message->retry_count <= 7 && message->rnr_retry_count <= 7 && message->mtu <= 5;
}

int ffv_cm_receive(int fd, struct ffv_cm_message *message)
{
	struct ffv_cm_message received;
	int tries = 0;
	ssize_t got;

	/* Descriptors that come along are closed by the kernel, as there is no room for them. MSG_TRUNC: the true size. */
	do
		got = recv(fd, &received, sizeof received, MSG_DONTWAIT | MSG_TRUNC);
	while (got < 0 && (errno == EINTR || (errno == ECONNRESET && !tries++))); /* its last words may still be there */
	if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return -EAGAIN;
	if (got <= 0)
		return 0;
	if (got != (ssize_t)sizeof received || !is_right(&received))
		return ffv_fail(EPROTO, "what came is no message of the connection manager");
	memset(received.private_data + received.private_data_len, 0,
	       sizeof received.private_data - received.private_data_len);
	*message = received;
	return 1;
}

/* Also of those that the sender's own process may send without having a context: refusals. */
bool ffv_cm_sender(const void *packet, size_t bytes, uint8_t gid[16])
{
	static const uint8_t nobody[16];
	struct ffv_cm_message message;

	if (bytes != sizeof message)
		return false;
	memcpy(&message, packet, sizeof message);
	if (!is_right(&message) || (message.kind == FFV_CM_REJ && !memcmp(message.gid, nobody, 16)))
		return false;
	memcpy(gid, message.gid, 16);
	return true;
}

void ffv_cm_correct_source(void *packet, size_t bytes)
{
	struct ffv_cm_message message;

	if (bytes != sizeof message)
		return;
	memcpy(&message, packet, sizeof message);
	if (!is_right(&message) || message.kind != FFV_CM_REQ || !memcmp(message.src.address, message.gid, 16))
		return;
	memcpy(message.src.address, message.gid, 16);
	message.src.family = memcmp(message.gid, mapped, sizeof mapped) ? AF_INET6 : AF_INET;
	memcpy(packet, &message, sizeof message);
}

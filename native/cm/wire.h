/* SPDX-License-Identifier: MIT
 *
 * The messages of the connection manager, over the SOCK_SEQPACKET socket of one connection: those of InfiniBand's
 * communication management (IBA chapter 12), without the retransmission that lossy management datagrams need.
 * Process-private; a received message has been checked: sizes, enumerations and widths of fields are right, and private
 * data beyond its length is zero. What it says is still the peer's word.
 */
#ifndef FFV_CM_WIRE_H
#define FFV_CM_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ffverbs/ffv.h>

enum ffv_cm_kind {
	FFV_CM_REQ = 1,   /* first, of the active side */
	FFV_CM_MRA = 2,   /* "I have it; the program is thinking" */
	FFV_CM_REP = 3,   /* accepted */
	FFV_CM_RTU = 4,   /* the active side is ready as well */
	FFV_CM_REJ = 5,   /* refused, or given up; with the reason */
	FFV_CM_DREQ = 6,  /* disconnect */
	FFV_CM_DREP = 7
};

#define FFV_CM_PRIVATE_BYTES 196

struct ffv_cm_endpoint {
	uint8_t address[16];
	uint16_t family;     /* AF_INET or AF_INET6 */
	uint16_t port;
};

struct ffv_cm_message {
	uint64_t magic;
	uint32_t version;
	uint32_t kind;
	uint8_t gid[16];     /* of the sender's context */
	uint32_t qpn;
	uint32_t qp_type;
	uint32_t psn;
	uint32_t qkey;
	uint32_t reason;     /* REJ */
	uint32_t port_space;
	uint32_t ece_vendor;
	uint32_t ece_options;
	struct ffv_cm_endpoint src, dst; /* REQ */
	uint8_t responder_resources, initiator_depth, flow_control, retry_count, rnr_retry_count, srq, mtu, tos;
	uint8_t private_data_len;
	uint8_t private_data[FFV_CM_PRIVATE_BYTES];
	uint8_t reserved[3];
};

/* Makes a message ready for somebody else to pass on. */
void ffv_cm_seal(struct ffv_cm_message *message);
/* Sends without blocking: 0 or -errno (-EPIPE and -ECONNRESET: nobody is there). */
int ffv_cm_send(int fd, struct ffv_cm_message *message);
/* 1 = got one, 0 = hung up, -EAGAIN nothing there, -EPROTO what came is no message of ours. */
int ffv_cm_receive(int fd, struct ffv_cm_message *message);
/* Whether a packet, which somebody else passes on, is a message that names its sender: *gid is that of its context. */
bool ffv_cm_sender(const void *packet, size_t bytes, uint8_t gid[16]);
/* Has a REQ come from the address of its GID, whatever it says. */
void ffv_cm_correct_source(void *packet, size_t bytes);
/* Most bytes of private data that a message of this kind has; 0 for those that have none. */
uint8_t ffv_cm_private_limit(uint32_t kind, bool datagram);

#endif

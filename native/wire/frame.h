/* SPDX-License-Identifier: MIT
 *
 * Frames between routers (docs/wire.md): a header of fixed size, then its payload. Little-endian, as all hosts are that
 * this runs on; values that are big-endian in verbs stay so. What comes in is checked here before anything else sees it.
 */
#ifndef FFV_WIRE_FRAME_H
#define FFV_WIRE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ffverbs/ffv_router.h>

#include "shm/layout.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "frames are little-endian");

#define FFV_FRAME_MAGIC 0xfb1eu
#define FFV_EAGER_BYTES (32u << 10)     /* a message up to this size goes with its request */
#define FFV_CHUNK_BYTES (256u << 10)    /* of a larger one, in one frame */
#define FFV_TURN_BYTES (64u << 10)      /* the same while others wait for their turn to send */
#define FFV_STREAM_WINDOW (512u << 10)  /* bytes of a larger one under way */
#define FFV_LAST_BYTES 64u              /* of a larger one always come in DATA: a program may poll on the last of them */
#define FFV_WINDOW 64u                  /* work requests of one queue pair under way */
#define FFV_WINDOW_BYTES_EAGER (512u << 10) /* and their payload */
#define FFV_MAX_PAIRS 65536u            /* pairs that one router opens towards another */
#define FFV_DATAGRAM_BYTES 4096u
#define FFV_MAX_CALLS 16384u            /* conversations that one router begins with another */
#define FFV_CALL_BYTES 512u             /* of one packet of a conversation */

enum ffv_frame_kind {
	/* from the requester's router */
	FFV_FRAME_OPEN = 1,     /* a queue pair begins (again): payload struct ffv_frame_open */
	FFV_FRAME_MESSAGE = 2,  /* SEND or WRITE with its payload */
	FFV_FRAME_LARGE = 3,    /* SEND or WRITE whose payload is called for by CREDIT */
	FFV_FRAME_DATA = 4,     /* bytes of a LARGE from `address` on */
	FFV_FRAME_REQUEST = 5,  /* READ, atomic or FLUSH */
	FFV_FRAME_DATAGRAM = 6, /* payload struct ffv_frame_address, then the datagram */
	FFV_FRAME_CLOSE = 7,    /* the queue pair ends */
	FFV_FRAME_CALL = 8,     /* a conversation begins: payload struct ffv_frame_service, then its first packet */
	FFV_FRAME_TELL = 9,     /* a packet of it, of who began it */
	FFV_FRAME_HANG_UP = 10, /* who began it has hung up */
	FFV_FRAME_BROADCAST = 11, /* a multicast datagram or raw packet: payload struct ffv_frame_segment, then its bytes */
	FFV_FRAME_PLACED = 12,  /* length_bytes of the LARGE from `address` on are where a CREDIT said: by a real WRITE */
	/* from the responder's router */
	FFV_FRAME_ACK = 16,     /* everything up to `position` is done; status: of the last one */
	FFV_FRAME_CREDIT = 17,  /* bytes of the LARGE at `position` may come up to `address`; payload: where those from
				 * operand[0] on may be written by the real queue pair of the name operand[1] */
	FFV_FRAME_RESULT = 18,  /* bytes of a READ from `address` on, or operand[0] = original value of an atomic */
	FFV_FRAME_WAITS = 19,   /* operand: how often it waited for a receive, and for an answer, since the last WAITS */
	FFV_FRAME_TOLD = 20,    /* a packet of a conversation, of the listener */
	FFV_FRAME_HUNG_UP = 21, /* the listener has hung up, or with an errno as status: nobody could be asked */
	/* from either */
	FFV_FRAME_GONE = 32,    /* a context has ended: payload struct ffv_frame_gone */
	FFV_FRAME_INTEREST = 33, /* what a host wants of BROADCASTs: operand, address = which tenant, position = its number */
	FFV_FRAME_INTEREST_SEEN = 34, /* the INTEREST of that number counts from here on */
	/* from either, of the channel itself: not counted by `sequence`, never repeated */
	FFV_FRAME_SEEN = 48,    /* operand[0]: so many bytes of the other's frames have come; flags: enum ffv_seen */
	FFV_FRAME_BYE = 49,     /* this router forgets the channel: nothing is to be resumed */
};

enum ffv_seen {
	FFV_SEEN_ANSWER = 1,    /* to a PROBE, or first word of a new link */
	FFV_SEEN_PROBE = 2,     /* answer me */
	FFV_SEEN_RESEND = 4,    /* from operand[0] on: what came next was not what should */
};

struct ffv_frame {
	uint16_t magic;
	uint8_t kind;
	uint8_t status;         /* enum ffv_wc_status */
	uint32_t payload_bytes;
	uint32_t pair;          /* number that the requester's router gave the queue pair */
	uint32_t incarnation;   /* counts the OPENs of it */
	uint32_t position;      /* of the work request, low half */
	uint8_t opcode;         /* enum ffv_wr_opcode */
	uint8_t flags;          /* enum ffv_send_flags */
	uint16_t reserved;
	uint32_t length_bytes;  /* of the message */
	uint32_t imm_be;
	uint64_t address;
	uint32_t rkey;
	uint32_t sequence;      /* low half of how many bytes of frames went before it this way */
	uint64_t operand[2];    /* of an atomic: compare or add, swap */
};
_Static_assert(sizeof(struct ffv_frame) == 64, "a frame's header has no padding");

struct ffv_frame_open {
	uint8_t from_gid[16];
	uint8_t to_gid[16];
	uint32_t from_qpn;
	uint32_t to_qpn;
	uint32_t mtu_bytes;
	uint8_t type;           /* enum ffv_qp_type */
	uint8_t timeout, retry_cnt, rnr_retry;
	uint8_t max_rd_atomic;
	uint8_t pad[15];
};
_Static_assert(sizeof(struct ffv_frame_open) == 64, "no padding");

struct ffv_frame_address {
	uint8_t from_gid[16];
	uint8_t to_gid[16];
	uint32_t from_qpn;
	uint32_t to_qpn;
	uint32_t qkey;
	uint32_t flow_tclass;   /* flow label << 8 | traffic class */
	uint8_t sl, hop_limit;
	uint8_t pad[14];
};
_Static_assert(sizeof(struct ffv_frame_address) == 64, "no padding");

struct ffv_frame_segment {
	uint8_t kind;           /* FFV_FRAME_MULTICAST or FFV_FRAME_RAW, of which all else is 0 */
	uint8_t flags;          /* FFV_FRAME_SOLICITED, FFV_FRAME_WITH_IMM */
	uint8_t sl, hop_limit;
	uint32_t imm_be;
	uint32_t src_qpn;
	uint32_t qkey;
	uint32_t flow_tclass;
	uint8_t pad[12];
	uint8_t sgid[16];
	uint8_t dgid[16];
};
_Static_assert(sizeof(struct ffv_frame_segment) == 64, "no padding");

struct ffv_frame_service {
	uint8_t address[16];    /* of a container; a GID */
	uint32_t port_space;
	uint16_t port;
	uint8_t pad[10];
};
_Static_assert(sizeof(struct ffv_frame_service) == 32, "no padding");

/* Of a CREDIT's payload: where bytes go, one piece after the other. */
struct ffv_frame_piece {
	uint64_t address;
	uint32_t rkey;
	uint32_t length_bytes;
};
#define FFV_MOST_PIECES 16u
_Static_assert(sizeof(struct ffv_frame_piece) == 16, "no padding");

struct ffv_frame_gone {
	uint8_t gid[16];
	uint32_t qpn_first;
	uint32_t died;          /* 1: without a farewell */
};

/* On the wire the payload is filled up to a multiple of 8 bytes, so that headers stay aligned. */
static inline size_t ffv_frame_bytes(uint32_t payload_bytes)
{
	return sizeof(struct ffv_frame) + ((payload_bytes + 7u) & ~7u);
}

#define FFV_FRAME_MAX_PAYLOAD (FFV_CHUNK_BYTES + 64u)

/* NULL if header and sizes make sense for the kind, else what is wrong. Whether the pair exists is not its business. */
const char *ffv_frame_check(const struct ffv_frame *frame);

#endif

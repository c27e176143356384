/* SPDX-License-Identifier: MIT
 *
 * Asking the host's router about who is not on this host (DESIGN D10). The router listens at router.sock in the node
 * directory; where there is none, nobody is elsewhere. One question a connection: a packet of struct ffv_ask each way;
 * but to a CALL, the answer may have a text behind it that says why not.
 *
 * WHERE: when the router knows where the context is, it has put a proxy into the node directory before it answers, and
 * the ordinary look-up finds that. HOST: whether some container has the address. CALL: the packet ends with the first
 * message of a conversation, which the router passes on to a listener of another host; the connection then is that
 * conversation, packet by packet, and only what stands against it is answered. SEGMENT: what the asker wants of the
 * segment has changed; the answer comes when other hosts know. CLAIM: whether this container may have its address, or
 * which one of the pool it gets.
 */
#ifndef FFV_VERBS_ASK_H
#define FFV_VERBS_ASK_H

#include "verbs/context.h"

#define FFV_ASK_MAGIC 0x6b73617262766666ull /* "ffvbrask" as bytes */
#define FFV_ASK_VERSION 1u
enum { FFV_ASK_WHERE = 1, FFV_ASK_ANSWER = 2, FFV_ASK_HOST = 3, FFV_ASK_CALL = 4,
       FFV_ASK_STATUS = 5, /* of `ffverbs status`: answered with JSON */
       FFV_ASK_SEGMENT = 6, FFV_ASK_CLAIM = 7 };
#define FFV_ASK_TEXT_BYTES 256u
#define FFV_ASK_MORE_BYTES 512u /* at most of the first message of a CALL, and of each later packet */

struct ffv_ask {
	uint64_t magic;
	uint32_t version;
	uint32_t kind;
	uint8_t gid[16];              /* who is looked for, in canonical form; CLAIM: what is claimed, 0 = one of the pool */
	uint32_t qpn;                 /* WHERE; of a CALL the port */
	uint32_t error;               /* of the answer: 0 = look again; else an errno */
	uint8_t asker_gid[16];
	union { uint32_t asker_qpn_first, mount_ns; };  /* CLAIM: numbers of its namespaces, which tell containers apart; */
	union { uint32_t port_space, network_ns; };     /* 0 = not known. CALL: port_space */
};
_Static_assert(sizeof(struct ffv_ask) == 64, "a question has no padding");

/* 0 = look again; -ENOENT: no router, or it knows nobody. timeout_ms 0: asks without waiting for the answer (-EAGAIN),
 * for threads that must not wait. */
int ffv_ask_router(struct ffv_context *ctx, const uint8_t gid[16], uint32_t qpn, int timeout_ms);
/* Whether this container may have the address `gid`; all zero = it gets one from the router's pool. 0, -EADDRINUSE with
 * a text that says who has it, -ENOENT: no router, or what else is wrong. */
int ffv_ask_claim(const struct ffv_nodedir *dir, uint8_t gid[16], int timeout_ms);

/* 0 = other hosts know, or there are none; timeout_ms as above. */
int ffv_ask_segment(struct ffv_context *ctx, int timeout_ms);

/* Asks without waiting, with a message of `bytes` behind a CALL: *fd is the connection on which the answer comes.
 * -ENOENT: no router. The caller sets what its question has of kind, gid, qpn and port_space. */
int ffv_ask_begin(struct ffv_context *ctx, struct ffv_ask *question, const void *message, size_t bytes, int *fd);
/* Takes the answer, if that is what comes next on the connection: 1 and *error (0 or an errno). 0 = something else does,
 * -EAGAIN nothing there. */
int ffv_ask_answer(int fd, uint32_t *error);

#endif

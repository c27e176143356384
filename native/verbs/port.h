/* SPDX-License-Identifier: MIT
 *
 * A context's port to the Ethernet segment of its node directory: what everybody on it hears (docs/decisions/0013).
 * Whoever sends or receives multicast datagrams or raw packets joins the segment first and is then attached to all who
 * did. Sending writes a frame into the own outbox and rings those who want its kind; the service thread of each reads it
 * there and gives it to the queue pairs that it is for (mcast.c, flow.c).
 */
#ifndef FFV_VERBS_PORT_H
#define FFV_VERBS_PORT_H

#include "engine/outbox.h"
#include "verbs/peer.h"

void ffv_port_init(struct ffv_context *ctx);
/* Joins the segment; waits for those who are on it, but not long for one who is stopped. No locks held. -ENOMEM, or as
 * ffv_nodedir_join_segment. Already joined: 0 at once. */
int ffv_port_join_slow(struct ffv_context *ctx);
static inline int ffv_port_join(struct ffv_context *ctx)
{
	/* [port-joined] the outbox, before anybody sends. */
	return ffv_likely(ffv_load_acquire(&ctx->port.joined)) ? 0 : ffv_port_join_slow(ctx);
}
/* Executor's face: see engine/exec.h. */
bool ffv_port_broadcast(void *ctx, struct ffv_frame_shm *frame, uint8_t sgid_index, const uint8_t *bytes);

/* The same for a frame that says itself who sent it. The segment has been joined. */
void ffv_port_relay(struct ffv_context *ctx, const struct ffv_frame_shm *frame, const uint8_t *bytes);
/* What the context wants of the segment has changed: the router tells other hosts. Waits until they know, but not long for
 * those that do not answer. */
void ffv_port_announce(struct ffv_context *ctx, bool wait);

/* The rest with ctx->service held. */
/* Receives what has come. */
void ffv_port_drain(struct ffv_context *ctx);
/* The same for one peer, which is about to go. */
void ffv_port_drain_peer(struct ffv_context *ctx, struct ffv_peer *peer);
/* What a new peer sent before it was attached is not for us. */
void ffv_port_begin(struct ffv_peer *peer);

/* mcast.c: gives a datagram to the members of its group. */
void ffv_mcast_receive(struct ffv_context *ctx, const struct ffv_exec_env *env, const struct ffv_frame_shm *frame,
		       const uint8_t *bytes, bool own);
/* flow.c: gives a raw packet to the queue pairs whose rules say so. */
void ffv_flow_receive(struct ffv_context *ctx, const struct ffv_exec_env *env, const struct ffv_frame_shm *frame,
		      const uint8_t *bytes);
void ffv_mcast_finish(struct ffv_context *ctx);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Peers: other contexts of this host (and this process) that we have attached, and that have attached us.
 *
 * Attaching is asynchronous: the service thread of each side answers, whoever needs the peer may wait for it. A hang-up
 * without a farewell is a death, and is repaired here.
 */
#ifndef FFV_VERBS_PEER_H
#define FFV_VERBS_PEER_H

#include "verbs/context.h"

#define FFV_CHANNEL_CACHE 64u

enum ffv_peer_state {
	FFV_PEER_GREETING,            /* accepted, its hello not read yet */
	FFV_PEER_CONNECTING,          /* our hello sent */
	FFV_PEER_ATTACHED,
	FFV_PEER_EXTRA,               /* a second connection of an attached peer: kept, for it may be the first there */
	FFV_PEER_OBSERVER,            /* a monitor: only kept open */
	FFV_PEER_GONE,
};

struct ffv_peer_channel { uint32_t cq; uint32_t generation; int fd; };

struct ffv_peer {
	struct ffv_peer *next;        /* ctx->lock */
	struct ffv_context *ctx;
	struct ffv_view view;
	uint8_t gid[16];              /* set before it is CONNECTING or ATTACHED, never changed */
	uint32_t qpn_first;
	int socket;
	int doorbell_fd;
	struct ffv_loop_source *source;
	_Atomic uint32_t state;       /* enum ffv_peer_state; written under ctx->lock, by the service thread (or before it) */
	bool said_bye;                /* service */
	uint64_t outbox_cursor;       /* service: how far we have read what it put on the segment */
	uint32_t refs;                /* ctx->lock: links */
	pthread_mutex_t channel_lock;
	struct ffv_peer_channel channels[FFV_CHANNEL_CACHE]; /* channel_lock */
};

static inline enum ffv_peer_state ffv_peer_state(const struct ffv_peer *peer)
{
	/* Whoever finds it attached without ctx->lock has got the peer by a way that orders the rest ([link]). */
	return (enum ffv_peer_state)ffv_load_relaxed(&peer->state);
}

/* The attached peer that owns QP `qpn` under `gid` (canonical form), with a reference; NULL if there is none. */
struct ffv_peer *ffv_peer_get(struct ffv_context *ctx, const uint8_t gid[16], uint32_t qpn);
void ffv_peer_put(struct ffv_peer *peer);
/* Begins to attach the context that owns qpn, unless it is attached or on its way; never waits. 0, or -ENOENT. */
int ffv_peer_connect(struct ffv_context *ctx, const uint8_t gid[16], uint32_t qpn);
/* The same, then waits until it is attached or refused, at most timeout_ms. Not on the service thread. */
int ffv_peer_attach(struct ffv_context *ctx, const uint8_t gid[16], uint32_t qpn, int timeout_ms);
/* Signals a completion event of the peer's CQ: its channel if we have its descriptor, else by way of its service. */
void ffv_peer_signal(struct ffv_peer *peer, uint32_t cq);

/* Callback of the listening socket. */
void ffv_peer_accept(void *ctx, uint32_t events);
/* The same after a pause, of the timer's callback. Service lock held. */
void ffv_peer_accept_again(struct ffv_context *ctx);
/* Says good-bye to all, closes and frees everything. The service thread must not run for the context any more. */
void ffv_peer_close_all(struct ffv_context *ctx);
/* Frees peers that are gone and that nobody refers to. Service lock held. */
void ffv_peer_reap(struct ffv_context *ctx);

/* In a fork child: closes the inherited descriptors of the context and its peers. */
void ffv_context_close_descriptors(struct ffv_context *ctx);

/* repair.c: mends what a dead peer left half done in our arena; its QPs go to ERR. Service lock held. */
void ffv_repair_after(struct ffv_context *ctx, struct ffv_peer *dead);

#endif

/* SPDX-License-Identifier: MIT
 *
 * See port.h.
 */
#include "verbs/port.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "verbs/ask.h"
#include "verbs/process.h"

#define ANNOUNCE_TIMEOUT_MS 2000
#define JOIN_TIMEOUT_NS 1000000000ull
#define MOST_FRAMES 1024u          /* of one sender at a time: others have their turn */

/* ---- joining ---------------------------------------------------------------------------------------------------------- */

struct others {
	struct ffv_context *ctx;
	struct { uint8_t gid[16]; uint32_t block; } *entry;
	size_t count, room;
};

static int note_other(void *arg, const uint8_t gid[16], uint32_t block)
{
	struct others *others = arg;

	if (block == others->ctx->block && !memcmp(gid, others->ctx->gid, 16))
		return 0;
	if (others->count == others->room) {
		size_t room = others->room ? 2 * others->room : 16;
		void *grown = realloc(others->entry, room * sizeof *others->entry);
		if (!grown)
			return ffv_fail(ENOMEM, "no memory for the contexts on the segment");
		others->entry = grown;
		others->room = room;
	}
	memcpy(others->entry[others->count].gid, gid, 16);
	others->entry[others->count++].block = block;
	return 0;
}

/* All are asked before any is waited for. One that has ended is none; one that is stopped attaches us when it goes on. */
static void attach_others(const struct others *others)
{
	struct ffv_context *ctx = others->ctx;
	uint64_t deadline_ns = ffv_clock_ns() + JOIN_TIMEOUT_NS;
	bool may_wait = !ffv_loop_is_own_thread(ffv_process_loop());

	for (size_t i = 0; i < others->count; i++)
		ffv_peer_connect(ctx, others->entry[i].gid, others->entry[i].block * FFV_QPN_BLOCK);
	for (size_t i = 0; may_wait && i < others->count; i++) {
		uint64_t now_ns = ffv_clock_ns();
		int left_ms = now_ns < deadline_ns ? (int)((deadline_ns - now_ns) / 1000000) : 0;
		ffv_peer_attach(ctx, others->entry[i].gid, others->entry[i].block * FFV_QPN_BLOCK, left_ms);
	}
}

static int make_outbox(struct ffv_context *ctx)
{
	struct ffv_port *port = &ctx->port;

	if (port->outbox)
		return 0;
	int rc = ffv_heap_alloc(&ctx->heap, sizeof *port->outbox, &port->outbox_line);
	if (rc)
		return rc;
	port->outbox = ffv_heap_at(&ctx->heap, port->outbox_line);
	/* Kept until the context closes; [outbox]. */
	ffv_store_release(&ctx->view.arena->outbox_line, port->outbox_line);
	return 0;
}

int ffv_port_join_slow(struct ffv_context *ctx)
{
	struct ffv_port *port = &ctx->port;
	struct others others = { .ctx = ctx };

	pthread_mutex_lock(&port->joining);
	int rc = ffv_load_relaxed(&port->joined) ? 1 : make_outbox(ctx);
	if (!rc)
		rc = ffv_nodedir_join_segment(ctx->dir, ctx->gid, ctx->block);
	if (!rc)
		ffv_port_announce(ctx, true); /* the router joins with the first who does */
	if (!rc)
		rc = ffv_nodedir_list_segment(ctx->dir, note_other, &others);
	if (!rc) {
		attach_others(&others);
		ffv_store_release(&port->joined, 1u); /* [port-joined] */
	}
	pthread_mutex_unlock(&port->joining);
	free(others.entry);
	return rc < 0 ? ffv_fail_context(rc, "cannot join the Ethernet segment") : 0;
}

void ffv_port_announce(struct ffv_context *ctx, bool wait)
{
	ffv_ask_segment(ctx, wait && !ffv_loop_is_own_thread(ffv_process_loop()) ? ANNOUNCE_TIMEOUT_MS : 0);
}

void ffv_port_init(struct ffv_context *ctx)
{
	pthread_mutex_init(&ctx->port.joining, NULL);
	pthread_mutex_init(&ctx->port.sending, NULL);
}

/* ---- sending ---------------------------------------------------------------------------------------------------------- */

static bool wants(const struct ffv_view *view, const struct ffv_frame_shm *frame)
{
	return frame->kind == FFV_FRAME_RAW
		       ? ffv_load_relaxed(&view->arena->wants_raw) != 0
		       : (ffv_load_relaxed(&view->arena->wanted_groups) & ffv_group_bit(frame->dgid)) != 0;
}

bool ffv_port_broadcast(void *arg, struct ffv_frame_shm *frame, uint8_t sgid_index, const uint8_t *bytes)
{
	struct ffv_context *ctx = arg;

	if (!ffv_load_acquire(&ctx->port.joined))
		return false;
	memcpy(frame->sgid, sgid_index ? ctx->gid : ctx->link_local_gid, 16);
	ffv_port_relay(ctx, frame, bytes);
	if (wants(&ctx->view, frame))
		ffv_context_attention(ctx, &ctx->view, FFV_ATTENTION_PORT);
	return true;
}

void ffv_port_relay(struct ffv_context *ctx, const struct ffv_frame_shm *frame, const uint8_t *bytes)
{
	struct ffv_port *port = &ctx->port;

	pthread_mutex_lock(&port->sending);
	ffv_outbox_write(port->outbox, &port->outbox_position, frame, bytes);
	pthread_mutex_unlock(&port->sending);
	FFV_FAULT(outbox_published);
	pthread_mutex_lock(&ctx->lock);
	for (struct ffv_peer *peer = ctx->peers; peer; peer = peer->next)
		if (ffv_peer_state(peer) == FFV_PEER_ATTACHED && wants(&peer->view, frame))
			ffv_context_attention(ctx, &peer->view, FFV_ATTENTION_PORT);
	pthread_mutex_unlock(&ctx->lock);
}

/* ---- receiving -------------------------------------------------------------------------------------------------------- */

static bool wants_anything(const struct ffv_context *ctx)
{
	return ctx->port.num_groups || ctx->port.num_flows || (ctx->proxy && ctx->proxy->broadcast);
}

static void receive(struct ffv_context *ctx, const struct ffv_exec_env *env, const struct ffv_frame_shm *frame,
		    const uint8_t *bytes, bool own)
{
	if (ctx->proxy) { /* the router's; it does not hear what it brought here itself */
		if (!own)
			ctx->proxy->broadcast(ctx->proxy->arg, frame, bytes);
		return;
	}
	if (frame->kind == FFV_FRAME_MULTICAST && ffv_gid_is_multicast(frame->dgid) && frame->length_bytes <= 4096)
		ffv_mcast_receive(ctx, env, frame, bytes, own);
	else if (frame->kind == FFV_FRAME_RAW)
		ffv_flow_receive(ctx, env, frame, bytes);
}

/* Reads one sender's outbox. True if there may be more. */
static bool drain(struct ffv_context *ctx, const struct ffv_view *view, uint64_t *cursor)
{
	const struct ffv_outbox_shm *outbox = ffv_outbox_of(view);
	uint8_t bytes[FFV_FRAME_MAX_BYTES];
	struct ffv_frame_shm frame;
	struct ffv_exec_env env;

	if (!outbox)
		return false;
	if (!wants_anything(ctx)) {
		*cursor = ffv_outbox_end(outbox);
		return false;
	}
	if (ffv_context_env(ctx, &env))
		return false;
	for (unsigned n = 0; n < MOST_FRAMES; n++) {
		enum ffv_outbox_result result = ffv_outbox_read(outbox, cursor, &frame, bytes);
		if (result == FFV_OUTBOX_NONE)
			return false;
		if (result == FFV_OUTBOX_FRAME)
			receive(ctx, &env, &frame, bytes, view->own);
	}
	return true;
}

void ffv_port_drain_peer(struct ffv_context *ctx, struct ffv_peer *peer)
{
	drain(ctx, &peer->view, &peer->outbox_cursor);
}

void ffv_port_begin(struct ffv_peer *peer)
{
	const struct ffv_outbox_shm *outbox = ffv_outbox_of(&peer->view);

	peer->outbox_cursor = outbox ? ffv_outbox_end(outbox) : 0;
}

void ffv_port_drain(struct ffv_context *ctx)
{
	bool more = drain(ctx, &ctx->view, &ctx->port.own_cursor);

	/* The list only changes under the service lock (which we hold) but for new ones at its front. */
	pthread_mutex_lock(&ctx->lock);
	struct ffv_peer *first = ctx->peers;
	pthread_mutex_unlock(&ctx->lock);
	for (struct ffv_peer *peer = first; peer; peer = peer->next)
		if (ffv_peer_state(peer) == FFV_PEER_ATTACHED)
			more |= drain(ctx, &peer->view, &peer->outbox_cursor);
	if (more)
		ffv_context_attention(ctx, &ctx->view, FFV_ATTENTION_PORT);
}

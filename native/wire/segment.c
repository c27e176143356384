/* SPDX-License-Identifier: MIT
 *
 * The segment between hosts: multicast datagrams and raw packets (docs/decisions/0013). The router has a context of its own
 * on the segment of its node directory, the bridge. What containers broadcast comes to it as to any other, and goes once to
 * each host whose containers want it; what comes from there the bridge broadcasts here. Routers tell each other what is
 * wanted (INTEREST), and confirm that they know. Runs on the loop's thread, but for the hook and ffv_router_announce.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "base/fault.h"
#include "engine/outbox.h"
#include "verbs/port.h"
#include "wire/router.h"
#include "wire/speakers.h"

#define MOST_WAITING 2048u        /* frames of containers that wait to be sent */

const uint8_t ffv_bridge_gid[16] = { 0xfe, 0x80, [8] = 'b', 'r', 'i', 'd', 'g', 'e', 0, 1 };

/* ---- what is wanted ------------------------------------------------------------------------------------------------------- */

static struct ffv_proxy *open_bridge(const struct ffv_router *router)
{
	for (struct ffv_proxy *proxy = router->proxies; proxy; proxy = proxy->next)
		if (proxy->is_bridge && proxy->state == FFV_PROXY_OPEN)
			return proxy;
	return NULL;
}

/* Whether what is broadcast may pass: within a tenant, and what a host says of its own has to be what it has proven. */
static bool is_of_ours(const struct ffv_router *router, const struct ffv_link_channel *channel)
{
	uint64_t tenant = channel->interest.tenant;

	return tenant && tenant == router->interest.tenant &&
	       (!ffv_load_relaxed(&router->checks_owners) || tenant == ffv_load_relaxed(&channel->tenant));
}

static bool is_wanted(const struct ffv_router *router, const struct ffv_link_channel *channel,
		      const struct ffv_frame_segment *head)
{
	const struct ffv_interest *interest = &channel->interest;

	if (!is_of_ours(router, channel))
		return false;
	return head->kind == FFV_FRAME_RAW ? interest->raw : interest->groups & ffv_group_bit(head->dgid);
}

static void look_at_containers(struct ffv_proxy *bridge, struct ffv_interest *interest)
{
	pthread_mutex_lock(&bridge->ctx->lock);
	for (const struct ffv_peer *peer = bridge->ctx->peers; peer; peer = peer->next) {
		if (ffv_peer_state(peer) != FFV_PEER_ATTACHED)
			continue;
		interest->groups |= ffv_load_relaxed(&peer->view.arena->wanted_groups);
		interest->raw |= ffv_load_relaxed(&peer->view.arena->wants_raw) != 0;
	}
	pthread_mutex_unlock(&bridge->ctx->lock);
}

/* Our containers ring the bridge only for what some other host wants. */
static void show_on_segment(struct ffv_router *router, struct ffv_proxy *bridge)
{
	uint64_t groups = 0;
	bool raw = false;

	for (uint32_t i = 0; i < FFV_MAX_CHANNELS; i++) {
		const struct ffv_link_channel *channel = router->channels[i];
		if (!channel || channel->broken || !is_of_ours(router, channel))
			continue;
		groups |= channel->interest.groups;
		raw |= channel->interest.raw;
	}
	ffv_store_relaxed(&bridge->ctx->view.arena->wanted_groups, groups);
	ffv_store_relaxed(&bridge->ctx->view.arena->wants_raw, raw ? 1u : 0u);
}

static void send_interest(struct ffv_router *router, struct ffv_link_channel *channel)
{
	struct ffv_frame *frame = ffv_channel_frame(&channel->io, FFV_FRAME_INTEREST, 0);

	if (!frame) { /* another time */
		ffv_store_relaxed(&router->segment_changed, true);
		return;
	}
	frame->position = router->told;
	frame->address = router->interest.tenant;
	frame->operand[0] = router->interest.groups;
	frame->operand[1] = router->interest.raw;
	channel->told = router->told;
}

/* Every host knows what we want, or is not connected: whoever waits for that goes on. */
static void tell_who_waits(struct ffv_router *router)
{
	bool known = true;

	for (uint32_t i = 0; i < FFV_MAX_CHANNELS && known; i++) {
		const struct ffv_link_channel *channel = router->channels[i];
		known = !channel || channel->broken || channel->known == router->told;
	}
	pthread_mutex_lock(&router->lock);
	if (known && router->all_know != router->told) {
		router->all_know = router->told;
		pthread_cond_broadcast(&router->changed);
	}
	pthread_mutex_unlock(&router->lock);
}

void ffv_segment_serve(struct ffv_router *router)
{
	if (!ffv_load_relaxed(&router->segment_changed) || !ffv_exchange(&router->segment_changed, false))
		return;
	struct ffv_proxy *bridge = open_bridge(router);
	pthread_mutex_lock(&router->lock);
	bool fresh = router->told != router->asked_to_tell;
	router->told = router->asked_to_tell;
	router->interest.tenant = router->tenant;
	pthread_mutex_unlock(&router->lock);
	if (!router->told)
		return;
	if (fresh) {
		router->interest.groups = 0;
		router->interest.raw = false;
		if (bridge)
			look_at_containers(bridge, &router->interest);
	}
	for (uint32_t i = 0; i < FFV_MAX_CHANNELS; i++) {
		struct ffv_link_channel *channel = router->channels[i];
		if (channel && !channel->broken && channel->told != router->told)
			send_interest(router, channel);
	}
	if (bridge)
		show_on_segment(router, bridge);
	tell_who_waits(router);
}

void ffv_segment_announce_locked(struct ffv_router *router)
{
	router->asked_to_tell++;
	if (!router->asked_to_tell) /* 0 is "never" */
		router->asked_to_tell = 1;
	ffv_store_relaxed(&router->segment_changed, true);
	ffv_router_wake_locked(router);
}

static struct timespec after(uint32_t timeout_ms)
{
	struct timespec at;

	clock_gettime(CLOCK_REALTIME, &at);
	at.tv_sec += timeout_ms / 1000;
	at.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (at.tv_nsec >= 1000000000) {
		at.tv_sec++;
		at.tv_nsec -= 1000000000;
	}
	return at;
}

int ffv_router_announce(struct ffv_router *router, uint64_t tenant, uint32_t timeout_ms)
{
	struct timespec deadline = after(timeout_ms);
	int rc = ffv_proxy_reach(router, ffv_bridge_gid, 0, FFV_NO_CHANNEL);

	if (rc && rc != -ENOTCONN) /* nobody of ours is on the segment: that, too, is told */
		return rc;
	rc = 0;
	pthread_mutex_lock(&router->lock);
	router->tenant = tenant;
	ffv_segment_announce_locked(router);
	uint32_t mine = router->asked_to_tell;
	while (!rc && (int32_t)(router->all_know - mine) < 0)
		rc = -pthread_cond_timedwait(&router->changed, &router->lock, &deadline);
	pthread_mutex_unlock(&router->lock);
	return rc ? ffv_fail(-rc, "not every host has confirmed what this one wants of the segment") : 0;
}

/* ---- from our containers ---------------------------------------------------------------------------------------------------- */

void ffv_segment_hook(void *arg, const struct ffv_frame_shm *frame, const uint8_t *bytes)
{
	struct ffv_frame_segment head = { .kind = frame->kind, .flags = frame->flags, .sl = frame->sl,
					  .hop_limit = frame->hop_limit, .imm_be = frame->imm_be, .src_qpn = frame->src_qpn,
					  .qkey = frame->qkey, .flow_tclass = frame->flow_tclass };
	uint32_t length = frame->length_bytes <= FFV_FRAME_MAX_BYTES ? frame->length_bytes : 0;
	struct ffv_outbound *out = malloc(sizeof *out + sizeof head + length);
	struct ffv_proxy *bridge = arg;

	if (!out)
		return;
	memcpy(head.sgid, frame->sgid, 16);
	memcpy(head.dgid, frame->dgid, 16);
	out->next = NULL;
	out->payload_bytes = (uint32_t)sizeof head + length;
	memcpy(out->bytes, &head, sizeof head);
	memcpy(out->bytes + sizeof head, bytes, length);
	FFV_FAULT(wire_group_framed);
	pthread_mutex_lock(&bridge->router->lock);
	bool full = bridge->num_datagrams >= MOST_WAITING;
	if (!full) {
		*bridge->last_datagram = out;
		bridge->last_datagram = &out->next;
		bridge->num_datagrams++;
		ffv_router_wake_locked(bridge->router);
	}
	pthread_mutex_unlock(&bridge->router->lock);
	if (full) {
		free(out);
		ffv_fetch_add(&bridge->router->datagrams_dropped, 1u);
	}
}

static void send_to_hosts(struct ffv_router *router, const struct ffv_outbound *out)
{
	struct ffv_frame_segment head;

	memcpy(&head, out->bytes, sizeof head);
	for (uint32_t i = 0; i < FFV_MAX_CHANNELS; i++) {
		struct ffv_link_channel *channel = router->channels[i];
		if (!channel || channel->broken || !is_wanted(router, channel, &head))
			continue;
		struct ffv_frame *frame = ffv_channel_room(&channel->io)
					  ? ffv_channel_frame(&channel->io, FFV_FRAME_BROADCAST, out->payload_bytes) : NULL;
		if (!frame) {
			ffv_fetch_add(&router->datagrams_dropped, 1u);
			continue;
		}
		frame->length_bytes = out->payload_bytes - (uint32_t)sizeof head;
		memcpy(ffv_frame_payload(frame), out->bytes, out->payload_bytes);
		ffv_rate_spend(router, ffv_frame_bytes(out->payload_bytes));
	}
}

void ffv_segment_send(struct ffv_proxy *bridge)
{
	struct ffv_router *router = bridge->router;

	if (!ffv_rate_allows(router))
		return;
	pthread_mutex_lock(&router->lock);
	struct ffv_outbound *out = bridge->datagrams;
	bridge->datagrams = NULL;
	bridge->last_datagram = &bridge->datagrams;
	bridge->num_datagrams = 0;
	pthread_mutex_unlock(&router->lock);
	while (out) {
		struct ffv_outbound *next = out->next;
		send_to_hosts(router, out);
		free(out);
		out = next;
	}
}

/* ---- from other hosts --------------------------------------------------------------------------------------------------------- */

static void on_broadcast(struct ffv_router *router, struct ffv_link_channel *channel, const struct ffv_frame *frame,
			 const uint8_t *payload)
{
	struct ffv_proxy *bridge = open_bridge(router);
	struct ffv_frame_segment head;

	if (!bridge || !is_of_ours(router, channel) || !ffv_speaker_may(router, channel, frame, payload))
		return; /* nobody wants it (any more), or its sender has to be looked up */
	memcpy(&head, payload, sizeof head);
	struct ffv_frame_shm out = { .length_bytes = frame->length_bytes, .kind = head.kind, .flags = head.flags, .sl = head.sl,
				     .hop_limit = head.hop_limit, .imm_be = head.imm_be, .src_qpn = head.src_qpn,
				     .qkey = head.qkey, .flow_tclass = head.flow_tclass };
	memcpy(out.sgid, head.sgid, 16);
	memcpy(out.dgid, head.dgid, 16);
	FFV_FAULT(wire_group_taken);
	ffv_port_relay(bridge->ctx, &out, payload + sizeof head);
}

void ffv_segment_frame(struct ffv_router *router, struct ffv_link_channel *channel, const struct ffv_frame *frame,
		       const uint8_t *payload)
{
	switch (frame->kind) {
	case FFV_FRAME_BROADCAST:
		on_broadcast(router, channel, frame, payload);
		return;
	case FFV_FRAME_INTEREST:
		channel->interest = (struct ffv_interest){ .tenant = frame->address, .groups = frame->operand[0],
							   .raw = frame->operand[1] != 0 };
		ffv_store_relaxed(&router->segment_changed, true);
		struct ffv_frame *seen = ffv_channel_frame(&channel->io, FFV_FRAME_INTEREST_SEEN, 0);
		if (seen)
			seen->position = frame->position;
		return;
	default:
		if (frame->position == channel->told)
			channel->known = frame->position;
		ffv_store_relaxed(&router->segment_changed, true);
	}
}

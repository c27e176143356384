/* SPDX-License-Identifier: MIT
 *
 * Who may be named in what belongs to no queue pair (docs/decisions/0048): the senders of datagrams for groups, and those
 * who speak in conversations of the connection manager. What another host says in the name of an address waits here until
 * the control plane has said that the address is that host's. Runs on the loop's thread.
 */
#include "wire/speakers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "cm/wire.h"
#include "verbs/gid.h"
#include "wire/router.h"

#define MOST_CLAIMS 64u           /* addresses of a channel that are asked about at once: more are refused */
#define MOST_KNOWN 256u           /* addresses of a channel that are remembered: others are asked about again */
#define MOST_HELD 256u            /* frames of a channel that wait */

struct held { struct held *next; struct ffv_frame frame; uint8_t payload[]; };

struct ffv_speaker {
	struct ffv_speaker *next;
	uint8_t gid[16];              /* canonical */
	bool admitted;
	struct held *held, **last_held;
};

/* ---- what is said ------------------------------------------------------------------------------------------------------- */

static bool is_of_conversation(const struct ffv_frame *frame)
{
	return frame->kind != FFV_FRAME_BROADCAST;
}

/* Numbers of conversations are those of the router that began them. */
static bool is_of_caller(const struct ffv_frame *frame)
{
	return frame->kind >= FFV_FRAME_CALL && frame->kind <= FFV_FRAME_HANG_UP;
}

/* Whether the frame names somebody as its sender. */
static bool names_sender(const struct ffv_frame *frame, const uint8_t *payload, uint8_t gid[16])
{
	uint32_t before = frame->kind == FFV_FRAME_CALL ? sizeof(struct ffv_frame_service) : 0;
	struct ffv_frame_segment head;
	bool named = false;

	if (frame->kind == FFV_FRAME_BROADCAST) {
		memcpy(&head, payload, sizeof head);
		memcpy(gid, head.sgid, 16);
		named = head.kind != FFV_FRAME_RAW; /* which has no such address */
	} else if (frame->payload_bytes > before) {
		named = ffv_cm_sender(payload + before, frame->payload_bytes - before, gid);
	}
	if (named)
		ffv_gid_canonical(gid, gid);
	return named;
}

static void refuse(struct ffv_router *router, struct ffv_link_channel *channel, const struct ffv_frame *frame, int error)
{
	if (is_of_conversation(frame))
		ffv_call_refuse(router, channel, frame, error);
	else
		ffv_fetch_add(&router->datagrams_dropped, 1u);
}

/* ---- who said it ---------------------------------------------------------------------------------------------------------- */

static struct ffv_speaker *find(const struct ffv_link_channel *channel, const uint8_t gid[16])
{
	struct ffv_speaker *speaker = channel->speakers;

	while (speaker && memcmp(speaker->gid, gid, 16))
		speaker = speaker->next;
	return speaker;
}

bool ffv_speaker_is_known_locked(const struct ffv_router *router, const uint8_t gid[16])
{
	bool known = false;

	for (uint32_t i = 0; i < FFV_MAX_CHANNELS && !known; i++)
		known = router->channels[i] && find(router->channels[i], gid);
	return known;
}

/* Takes it out of the list; what waits of it is the caller's. */
static void leave(struct ffv_router *router, struct ffv_link_channel *channel, const struct ffv_speaker *speaker)
{
	pthread_mutex_lock(&router->lock);
	for (struct ffv_speaker **at = &channel->speakers; *at; at = &(*at)->next) {
		if (*at == speaker) {
			*at = speaker->next;
			break;
		}
	}
	channel->num_speakers--;
	pthread_mutex_unlock(&router->lock);
}

/* The one that was admitted first of those who are remembered. */
static void forget_one(struct ffv_router *router, struct ffv_link_channel *channel)
{
	struct ffv_speaker *oldest = NULL;

	for (struct ffv_speaker *speaker = channel->speakers; speaker; speaker = speaker->next)
		if (speaker->admitted)
			oldest = speaker;
	if (!oldest)
		return;
	leave(router, channel, oldest);
	free(oldest);
}

/* A queue pair's claim of the same host on the address was admitted already. */
static bool is_admitted_locked(const struct ffv_router *router, const struct ffv_link_channel *channel, const uint8_t gid[16])
{
	const struct ffv_proxy *proxy = router->proxies;

	while (proxy && !(proxy->channel == channel->number && proxy->admitted && !proxy->refused && !memcmp(proxy->gid, gid, 16)))
		proxy = proxy->next;
	return proxy != NULL;
}

/* NULL: there are too many. */
static struct ffv_speaker *begin(struct ffv_router *router, struct ffv_link_channel *channel, const uint8_t gid[16])
{
	struct ffv_router_event event = { .kind = FFV_ROUTER_CLAIMED, .channel = channel->number };
	uint32_t claims = 0;

	for (const struct ffv_speaker *speaker = channel->speakers; speaker; speaker = speaker->next)
		claims += !speaker->admitted;
	struct ffv_speaker *speaker = claims < MOST_CLAIMS ? calloc(1, sizeof *speaker) : NULL;
	if (!speaker)
		return NULL;
	if (channel->num_speakers >= MOST_KNOWN)
		forget_one(router, channel);
	memcpy(speaker->gid, gid, 16);
	speaker->last_held = &speaker->held;
	pthread_mutex_lock(&router->lock);
	speaker->admitted = is_admitted_locked(router, channel, gid);
	speaker->next = channel->speakers;
	channel->speakers = speaker;
	channel->num_speakers++;
	pthread_mutex_unlock(&router->lock);
	FFV_FAULT(wire_speaker_claimed);
	memcpy(event.gid, gid, 16);
	if (!speaker->admitted)
		ffv_router_raise(router, &event);
	return speaker;
}

/* ---- what waits ------------------------------------------------------------------------------------------------------------ */

/* Whoever the conversation's earlier packets wait for: its order stays. */
static struct ffv_speaker *waits_behind(const struct ffv_link_channel *channel, const struct ffv_frame *frame)
{
	if (!channel->num_held || !is_of_conversation(frame))
		return NULL;
	for (struct ffv_speaker *speaker = channel->speakers; speaker; speaker = speaker->next)
		for (const struct held *held = speaker->held; held; held = held->next)
			if (is_of_conversation(&held->frame) && held->frame.pair == frame->pair &&
			    is_of_caller(&held->frame) == is_of_caller(frame))
				return speaker;
	return NULL;
}

static struct held *take_held(struct ffv_link_channel *channel, struct ffv_speaker *speaker)
{
	struct held *first = speaker->held;

	for (const struct held *held = first; held; held = held->next)
		channel->num_held--;
	speaker->held = NULL;
	speaker->last_held = &speaker->held;
	return first;
}

static void refuse_held(struct ffv_router *router, struct ffv_link_channel *channel, struct ffv_speaker *speaker, int error)
{
	struct held *held = take_held(channel, speaker);

	while (held) {
		struct held *next = held->next;
		refuse(router, channel, &held->frame, error);
		free(held);
		held = next;
	}
}

static void hold(struct ffv_router *router, struct ffv_link_channel *channel, struct ffv_speaker *speaker,
		 const struct ffv_frame *frame, const uint8_t *payload)
{
	struct held *held = channel->num_held < MOST_HELD ? malloc(sizeof *held + frame->payload_bytes) : NULL;

	if (!held) {
		if (is_of_conversation(frame)) /* of which one packet is missing now */
			refuse_held(router, channel, speaker, EAGAIN);
		refuse(router, channel, frame, EAGAIN);
		return;
	}
	held->next = NULL;
	held->frame = *frame;
	memcpy(held->payload, payload, frame->payload_bytes);
	*speaker->last_held = held;
	speaker->last_held = &held->next;
	channel->num_held++;
}

bool ffv_speaker_may(struct ffv_router *router, struct ffv_link_channel *channel, const struct ffv_frame *frame,
		     const uint8_t *payload)
{
	struct ffv_speaker *speaker = waits_behind(channel, frame);
	uint8_t gid[16];

	if (!ffv_load_relaxed(&router->checks_owners))
		return true;
	if (!speaker) {
		if (!names_sender(frame, payload, gid) || ffv_call_is_to(router, channel, frame, gid))
			return true;
		speaker = find(channel, gid);
		if (!speaker)
			speaker = begin(router, channel, gid);
		if (speaker && speaker->admitted)
			return true;
	}
	if (speaker)
		hold(router, channel, speaker, frame, payload);
	else
		refuse(router, channel, frame, EAGAIN);
	return false;
}

/* ---- the control plane's word ------------------------------------------------------------------------------------------- */

static void admit(struct ffv_router *router, struct ffv_link_channel *channel, struct ffv_speaker *speaker)
{
	struct held *held = take_held(channel, speaker);

	speaker->admitted = true;
	while (held) { /* each is asked about again: it may have waited for another one of its conversation only */
		struct held *next = held->next;
		if (is_of_conversation(&held->frame))
			ffv_call_frame(router, channel, &held->frame, held->payload);
		else
			ffv_segment_frame(router, channel, &held->frame, held->payload);
		free(held);
		held = next;
	}
}

bool ffv_speaker_settle(struct ffv_router *router, const uint8_t gid[16], uint32_t number, bool owns)
{
	bool refused = false;

	for (uint32_t i = 0; i < FFV_MAX_CHANNELS; i++) {
		struct ffv_link_channel *channel = router->channels[i];
		struct ffv_speaker *speaker = channel && !channel->broken ? find(channel, gid) : NULL;
		bool meant = channel && channel->number == number;
		if (!speaker || (!meant && !owns))
			continue;
		if (meant && owns) {
			admit(router, channel, speaker);
			continue;
		}
		leave(router, channel, speaker); /* it is not this host's, or is another one's by now */
		refuse_held(router, channel, speaker, EACCES);
		free(speaker);
		refused |= meant;
	}
	return refused;
}

void ffv_speakers_free(struct ffv_link_channel *channel)
{
	while (channel->speakers) {
		struct ffv_speaker *speaker = channel->speakers;
		struct held *held = take_held(channel, speaker);
		channel->speakers = speaker->next;
		free(speaker);
		while (held) {
			struct held *next = held->next;
			free(held);
			held = next;
		}
	}
}

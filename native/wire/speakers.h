/* SPDX-License-Identifier: MIT
 *
 * Who may be named in what belongs to no queue pair; see speakers.c.
 */
#ifndef FFV_WIRE_SPEAKERS_H
#define FFV_WIRE_SPEAKERS_H

#include <stdbool.h>
#include <stdint.h>

struct ffv_frame;
struct ffv_link_channel;
struct ffv_router;

/* Whether a BROADCAST or a frame of a conversation may be dealt with now. False: it waits, or was refused. */
bool ffv_speaker_may(struct ffv_router *router, struct ffv_link_channel *channel, const struct ffv_frame *frame,
		     const uint8_t *payload);
/* As ffv_router_owner: what waited for that goes on, or is refused. True: the host of that channel was refused. */
bool ffv_speaker_settle(struct ffv_router *router, const uint8_t gid[16], uint32_t number, bool owns);
/* Whether some host has spoken for the address. */
bool ffv_speaker_is_known_locked(const struct ffv_router *router, const uint8_t gid[16]);
void ffv_speakers_free(struct ffv_link_channel *channel);

#endif

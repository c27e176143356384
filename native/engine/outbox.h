/* SPDX-License-Identifier: MIT
 *
 * The ring in which a context puts what goes to everybody on the Ethernet segment (shm/layout.h). Written by threads of
 * its owner, one at a time; read by any number of processes, each with a cursor of its own that nobody else sees.
 *
 * Trust: a reader takes the ring for hostile: it copies, and believes the copy only if it was not lapped meanwhile. The
 * writer keeps its position to itself, for readers could write to the ring.
 */
#ifndef FFV_ENGINE_OUTBOX_H
#define FFV_ENGINE_OUTBOX_H

#include <stdbool.h>
#include <string.h>

#include "engine/view.h"

enum ffv_outbox_result {
	FFV_OUTBOX_NONE = 0,
	FFV_OUTBOX_FRAME = 1,
	FFV_OUTBOX_LAPPED = 2,        /* frames were lost; the cursor stands at the newest end */
};

/* The outbox of a view's context, NULL if it has none (yet) or describes none that can be. */
struct ffv_outbox_shm *ffv_outbox_of(const struct ffv_view *view);
/* Publishes a frame of frame->length_bytes, at most FFV_FRAME_MAX_BYTES, at *position, and moves that on. */
void ffv_outbox_write(struct ffv_outbox_shm *outbox, uint64_t *position, const struct ffv_frame_shm *frame,
		      const uint8_t *bytes);
/* Copies the frame at *cursor (bytes: room for FFV_FRAME_MAX_BYTES) and moves the cursor on. */
enum ffv_outbox_result ffv_outbox_read(const struct ffv_outbox_shm *outbox, uint64_t *cursor,
				       struct ffv_frame_shm *frame, uint8_t *bytes);
/* Where a reader begins who wants nothing of what was sent before. */
uint64_t ffv_outbox_end(const struct ffv_outbox_shm *outbox);

/* IPv6 multicast, or IPv4 multicast mapped into IPv6 (RoCE v2). */
static inline bool ffv_gid_is_multicast(const uint8_t gid[16])
{
	static const uint8_t mapped[12] = { [10] = 0xff, 0xff };

	return gid[0] == 0xff || ((gid[12] & 0xf0) == 0xe0 && !memcmp(gid, mapped, sizeof mapped));
}

/* The bit of ffv_arena_shm.wanted_groups that stands for this group, and for others. */
static inline uint64_t ffv_group_bit(const uint8_t gid[16])
{
	uint64_t halves[2];

	memcpy(halves, gid, sizeof halves);
	return 1ull << ((halves[0] ^ halves[1]) * 0x9e3779b97f4a7c15ull >> 58);
}

#endif

/* SPDX-License-Identifier: MIT
 *
 * See outbox.h. No system call, no allocation, no log.
 */
#include "engine/outbox.h"

#include "base/fault.h"

#define WORDS (FFV_OUTBOX_BYTES / 8u)

_Static_assert((WORDS & (WORDS - 1)) == 0, "positions wrap by a mask");

struct ffv_outbox_shm *ffv_outbox_of(const struct ffv_view *view)
{
	uint32_t line = ffv_load_acquire(&view->arena->outbox_line);

	return line ? ffv_view_at(view, line, sizeof(struct ffv_outbox_shm)) : NULL;
}

static uint64_t room_for(uint32_t length_bytes)
{
	uint64_t bytes = sizeof(struct ffv_frame_shm) + length_bytes;

	return (bytes + FFV_LINE_BYTES - 1) / FFV_LINE_BYTES * FFV_LINE_BYTES;
}

/* Word by word, because a reader that is about to be lapped reads at this moment. */
static void put(struct ffv_outbox_shm *outbox, uint64_t position, const void *from, size_t bytes)
{
	const uint8_t *next = from;

	for (uint64_t at = position / 8; bytes; at++) {
		uint64_t word = 0;
		size_t n = bytes < 8 ? bytes : 8;
		memcpy(&word, next, n);
		ffv_word_store(&outbox->ring[at & (WORDS - 1)], word);
		next += n;
		bytes -= n;
	}
}

static void get(const struct ffv_outbox_shm *outbox, uint64_t position, void *to, size_t bytes)
{
	uint8_t *next = to;

	for (uint64_t at = position / 8; bytes; at++) {
		uint64_t word = ffv_word_load(&outbox->ring[at & (WORDS - 1)]);
		size_t n = bytes < 8 ? bytes : 8;
		memcpy(next, &word, n);
		next += n;
		bytes -= n;
	}
}

void ffv_outbox_write(struct ffv_outbox_shm *outbox, uint64_t *position, const struct ffv_frame_shm *frame,
		      const uint8_t *bytes)
{
	uint64_t first = *position, end = first + room_for(frame->length_bytes);

	ffv_store_relaxed(&outbox->reserved, end);
	/* [outbox-lap] the reservation before what it spoils: a reader that sees a new word sees the reservation too. */
	ffv_fence_store_store();
	put(outbox, first, frame, sizeof *frame);
	put(outbox, first + sizeof *frame, bytes, frame->length_bytes);
	FFV_FAULT(outbox_written);
	/* [outbox] the frame before the tail. */
	ffv_store_release(&outbox->tail, end);
	*position = end;
}

uint64_t ffv_outbox_end(const struct ffv_outbox_shm *outbox)
{
	return ffv_load_acquire(&outbox->tail) & ~(uint64_t)(FFV_LINE_BYTES - 1);
}

/* True if what was copied from `cursor` on was still there when it was copied. */
static bool is_whole(const struct ffv_outbox_shm *outbox, uint64_t cursor)
{
	/* [outbox-lap] */
	ffv_fence_load_load();
	return ffv_load_relaxed(&outbox->reserved) - cursor <= FFV_OUTBOX_BYTES;
}

enum ffv_outbox_result ffv_outbox_read(const struct ffv_outbox_shm *outbox, uint64_t *cursor,
				       struct ffv_frame_shm *frame, uint8_t *bytes)
{
	uint64_t end = ffv_outbox_end(outbox), first = *cursor; /* [outbox] */

	if (end == first)
		return FFV_OUTBOX_NONE;
	if (end - first <= FFV_OUTBOX_BYTES) {
		get(outbox, first, frame, sizeof *frame);
		if (frame->length_bytes <= FFV_FRAME_MAX_BYTES && room_for(frame->length_bytes) <= end - first) {
			get(outbox, first + sizeof *frame, bytes, frame->length_bytes);
			if (is_whole(outbox, first)) {
				*cursor = first + room_for(frame->length_bytes);
				return FFV_OUTBOX_FRAME;
			}
		}
	}
	*cursor = ffv_outbox_end(outbox);
	return FFV_OUTBOX_LAPPED;
}

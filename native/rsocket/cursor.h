/* SPDX-License-Identifier: MIT
 *
 * Copying to and from a program's list of pieces.
 */
#ifndef FFV_RSOCKET_CURSOR_H
#define FFV_RSOCKET_CURSOR_H

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "rsocket/rsocket.h"

/* Where a copy stands in a list of pieces. */
struct ffv_rs_cursor {
	const struct iovec *piece;
	size_t pieces;
	size_t offset;
	size_t left;               /* bytes in all of them */
};

static inline int ffv_rs_cursor_start(struct ffv_rs_cursor *cursor, const struct iovec *iov, size_t count)
{
	*cursor = (struct ffv_rs_cursor){ .piece = iov, .pieces = count };
	for (size_t i = 0; i < count; i++) {
		if (iov[i].iov_len > (size_t)INT64_MAX - cursor->left)
			return ffv_fail(EINVAL, "the pieces are longer than can be counted");
		cursor->left += iov[i].iov_len;
	}
	return 0;
}

/* The next run of at most `most` bytes; advances. */
static inline size_t ffv_rs_cursor_take(struct ffv_rs_cursor *cursor, size_t most, uint8_t **at)
{
	while (cursor->pieces && cursor->offset == cursor->piece->iov_len) {
		cursor->piece++;
		cursor->pieces--;
		cursor->offset = 0;
	}
	if (!cursor->pieces)
		return 0;
	size_t length = cursor->piece->iov_len - cursor->offset;
	length = length < most ? length : most;
	*at = (uint8_t *)cursor->piece->iov_base + cursor->offset;
	cursor->offset += length;
	cursor->left -= length;
	return length;
}

static inline void ffv_rs_gather(struct ffv_rs_cursor *cursor, uint8_t *to, uint32_t length)
{
	uint8_t *from = NULL;

	while (length) {
		uint32_t run = (uint32_t)ffv_rs_cursor_take(cursor, length, &from);
		memcpy(to, from, run);
		to += run;
		length -= run;
	}
}

/* Copies so many bytes into the pieces. */
static inline void ffv_rs_scatter(struct ffv_rs_cursor *cursor, const uint8_t *from, uint32_t length)
{
	uint8_t *to = NULL;

	while (length) {
		uint32_t run = (uint32_t)ffv_rs_cursor_take(cursor, length, &to);
		memcpy(to, from, run);
		from += run;
		length -= run;
	}
}

#endif

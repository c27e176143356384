/* SPDX-License-Identifier: MIT
 *
 * What two ends of the transport `rdma` say over their stream socket (docs/wire.md): how their real queue pairs are
 * reached, and the frames themselves while these go by TCP. Nothing blocks. The loop's thread alone.
 */
#ifndef FFV_WIRE_RDMA_NOTES_H
#define FFV_WIRE_RDMA_NOTES_H

#include <stdbool.h>

#include "wire/rdma_qp.h"

#define FFV_NOTE_MAGIC 0xfb2eu
#define FFV_NOTE_DATA_BYTES (256u << 10)

enum ffv_note_kind {
	FFV_NOTE_OFFER = 1,           /* a round begins: body struct ffv_note_offer */
	FFV_NOTE_READY = 2,           /* both offers are known; `position`: what this side has of the stream */
	FFV_NOTE_DATA = 3,            /* bytes of the stream from `position` on */
};

struct ffv_note {
	uint16_t magic;
	uint8_t kind, pad;
	uint32_t length;              /* of what follows */
	uint64_t position;
	uint32_t round;
	uint32_t pad2;
};

struct ffv_note_offer {
	struct ffv_rdma_endpoint endpoint;
	uint8_t usable;               /* else `why` not */
	uint8_t tcp_allowed;
	uint8_t one_sided;            /* its router moves large payload so; 0 of those that know nothing of it */
	uint8_t pad;
	char why[256];
};
_Static_assert(sizeof(struct ffv_note) == 24 && sizeof(struct ffv_note_offer) == 292, "no padding");

struct ffv_notes {
	int socket;
	uint8_t *out;                 /* what the socket has not taken yet */
	size_t head, tail, capacity;
	bool full;                    /* the socket took less than it was given */
	uint8_t in[sizeof(struct ffv_note) + sizeof(struct ffv_note_offer)];
	size_t in_bytes;
	uint32_t data_left;           /* of a DATA note: still to be read */
};

void ffv_notes_init(struct ffv_notes *notes, int socket);
void ffv_notes_finish(struct ffv_notes *notes);
/* A note that is not DATA. */
int ffv_notes_put(struct ffv_notes *notes, const struct ffv_note *note, const void *body);
/* As much as goes now of the bytes, as one DATA note: how many, 0 = none, -errno. */
ssize_t ffv_notes_put_data(struct ffv_notes *notes, uint64_t position, const uint8_t *bytes, size_t length);
int ffv_notes_flush(struct ffv_notes *notes);
/* The next note: 1, 0 = not there yet, -EPIPE, -errno. Of OFFER the body is behind it; of DATA ffv_notes_take_data() gives
 * the bytes, all of which have to be taken before the next note comes. */
int ffv_notes_next(struct ffv_notes *notes, struct ffv_note *note, struct ffv_note_offer *body);
ssize_t ffv_notes_take_data(struct ffv_notes *notes, uint8_t *bytes, size_t capacity);

#endif

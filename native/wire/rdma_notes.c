/* SPDX-License-Identifier: MIT
 *
 * See rdma_notes.h.
 */
#include "wire/rdma_notes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/error.h"
#include "wire/stream_socket.h"

void ffv_notes_init(struct ffv_notes *notes, int socket)
{
	*notes = (struct ffv_notes){ .socket = socket };
}

void ffv_notes_finish(struct ffv_notes *notes)
{
	free(notes->out);
	notes->out = NULL;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------------- */

static bool keep(struct ffv_notes *notes, const void *bytes, size_t length)
{
	if (notes->head == notes->tail)
		notes->head = notes->tail = 0;
	if (notes->tail + length > notes->capacity) {
		size_t capacity = 2 * (notes->tail + length);
		uint8_t *grown = realloc(notes->out, capacity);
		if (!grown)
			return false;
		notes->out = grown;
		notes->capacity = capacity;
	}
	if (length) /* a note without a body has no bytes to point at */
		memcpy(notes->out + notes->tail, bytes, length);
	notes->tail += length;
	return true;
}

int ffv_notes_flush(struct ffv_notes *notes)
{
	notes->full = false;
	while (notes->head != notes->tail) {
		struct iovec part = { notes->out + notes->head, notes->tail - notes->head };
		ssize_t n = ffv_stream_socket_send(notes->socket, &part, 1);
		if (n < 0)
			return (int)n;
		notes->head += (size_t)n;
		notes->full = n == 0;
		if (!n)
			return 0;
	}
	return 0;
}

int ffv_notes_put(struct ffv_notes *notes, const struct ffv_note *note, const void *body)
{
	struct ffv_note whole = *note;

	whole.magic = FFV_NOTE_MAGIC;
	if (!keep(notes, &whole, sizeof whole) || !keep(notes, body, whole.length))
		return ffv_fail(ENOMEM, "no memory for a note to the other router");
	return ffv_notes_flush(notes);
}

ssize_t ffv_notes_put_data(struct ffv_notes *notes, uint64_t position, const uint8_t *bytes, size_t length)
{
	int rc = ffv_notes_flush(notes);
	uint32_t n = length < FFV_NOTE_DATA_BYTES ? (uint32_t)length : FFV_NOTE_DATA_BYTES;
	struct ffv_note note = { .magic = FFV_NOTE_MAGIC, .kind = FFV_NOTE_DATA, .length = n, .position = position };
	struct iovec parts[] = { { &note, sizeof note }, { (void *)bytes, n } };

	if (rc || notes->full || !n)
		return rc;
	ssize_t done = ffv_stream_socket_send(notes->socket, parts, 2);
	if (done <= 0) {
		notes->full = done == 0;
		return done;
	}
	/* What is begun has to be ended: the rest is kept. */
	size_t head = (size_t)done < sizeof note ? (size_t)done : sizeof note, rest = (size_t)done - head;
	if (!keep(notes, (const uint8_t *)&note + head, sizeof note - head) || !keep(notes, bytes + rest, n - rest))
		return ffv_fail(ENOMEM, "no memory for what the other router is to be sent");
	notes->full = notes->head != notes->tail;
	return n;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------------- */

static bool is_wrong(const struct ffv_note *note)
{
	if (note->magic != FFV_NOTE_MAGIC)
		return true;
	switch (note->kind) {
	case FFV_NOTE_OFFER:
		return note->length != sizeof(struct ffv_note_offer);
	case FFV_NOTE_READY:
		return note->length != 0;
	case FFV_NOTE_DATA:
		return !note->length || note->length > FFV_NOTE_DATA_BYTES;
	default:
		return true;
	}
}

/* Reads until `wanted` bytes are there. 1, 0, -errno. */
static int read_up_to(struct ffv_notes *notes, size_t wanted)
{
	while (notes->in_bytes < wanted) {
		ssize_t n = ffv_stream_socket_receive(notes->socket, notes->in + notes->in_bytes, wanted - notes->in_bytes);
		if (n <= 0)
			return (int)n;
		notes->in_bytes += (size_t)n;
	}
	return 1;
}

int ffv_notes_next(struct ffv_notes *notes, struct ffv_note *note, struct ffv_note_offer *body)
{
	int rc = notes->data_left ? 0 : read_up_to(notes, sizeof *note);

	if (rc != 1)
		return rc;
	memcpy(note, notes->in, sizeof *note);
	if (is_wrong(note))
		return ffv_fail(EPROTO, "the other router sent bytes that are no note");
	if (note->kind == FFV_NOTE_OFFER) {
		rc = read_up_to(notes, sizeof *note + sizeof *body);
		if (rc != 1)
			return rc;
		memcpy(body, notes->in + sizeof *note, sizeof *body);
		body->why[sizeof body->why - 1] = 0;
	}
	notes->in_bytes = 0;
	notes->data_left = note->kind == FFV_NOTE_DATA ? note->length : 0;
	return 1;
}

ssize_t ffv_notes_take_data(struct ffv_notes *notes, uint8_t *bytes, size_t capacity)
{
	size_t n = notes->data_left < capacity ? notes->data_left : capacity;
	ssize_t got = n ? ffv_stream_socket_receive(notes->socket, bytes, n) : 0;

	if (got > 0)
		notes->data_left -= (uint32_t)got;
	return got;
}

/* SPDX-License-Identifier: MIT
 *
 * READs of other hosts on our containers: posted piece by piece, as far as there is room for what they bring. Where real
 * devices can (docs/decisions/0036), a piece has no buffer: the executor finds where its bytes are, the other router's device
 * fetches them from there, and its PLACED ends the piece; what it refuses gets a buffer after all, and goes in frames. Runs
 * on the loop's thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/copy.h"
#include "base/fault.h"
#include "wire/router.h"

#define DEVICE_BYTES (1u << 20)    /* of a piece that a device fetches */

static void lock(struct ffv_pair *pair)
{
	pthread_mutex_lock(&pair->proxy->router->lock);
}

static void unlock(struct ffv_pair *pair)
{
	pthread_mutex_unlock(&pair->proxy->router->lock);
}

/* ---- pieces ----------------------------------------------------------------------------------------------------------------- */

/* Bytes that are in buffers, or may come into them. */
static uint32_t buffered_bytes(const struct ffv_entry *entry)
{
	uint32_t bytes = 0;

	for (uint32_t i = entry->done_pieces; i != entry->asked_pieces; i++)
		bytes += entry->pieces[i % FFV_READ_PIECES] ? entry->piece_bytes[i % FFV_READ_PIECES] : 0;
	return bytes;
}

/* Else a slow network would have all of it wait here. */
static bool has_room(const struct ffv_pair *pair, const struct ffv_entry *entry)
{
	return pair->in.slots < FFV_WINDOW && entry->asked_pieces - entry->done_pieces < FFV_READ_PIECES &&
	       pair->result_bytes + buffered_bytes(entry) + FFV_READ_BYTES <= FFV_READ_WINDOW;
}

/* How long the next piece is; *by_device: whether it is to be fetched so. Pages at the edges of a container's buffer, which no
 * address here leads to, are pieces of their own. */
static uint32_t next_piece(struct ffv_pair *pair, const struct ffv_entry *entry, bool *by_device)
{
	const struct ffv_frame *frame = &entry->frame;
	uint32_t left = frame->length_bytes - entry->asked_bytes, alike = left;
	struct ffv_peer *peer = entry->by_device ? ffv_peer_get(pair->proxy->ctx, pair->gid, pair->qpn) : NULL;

	*by_device = false;
	if (peer) {
		alike = ffv_key_alike(&peer->view, frame->rkey, frame->address + entry->asked_bytes, left, by_device);
		ffv_peer_put(peer);
		*by_device &= alike >= FFV_EAGER_BYTES;
	}
	uint32_t most = *by_device ? DEVICE_BYTES : FFV_READ_BYTES;
	uint32_t n = left < most || (*by_device && left - most < FFV_EAGER_BYTES) ? left : most;
	return alike && alike < n ? alike : n; /* the key may be nonsense: nobody has checked it yet */
}

int ffv_read_post(struct ffv_pair *pair, struct ffv_entry *entry, uint32_t count)
{
	struct ffv_link_channel *channel = ffv_router_channel(pair->proxy->router, pair->proxy->channel);
	uint32_t length = entry->frame.length_bytes;

	if (!length)
		return ffv_incoming_post(pair, entry, count, (struct ffv_posted){ 0 });
	if (!entry->asked_bytes)
		entry->by_device = length > FFV_EAGER_BYTES && channel && ffv_grant_is_possible(channel);
	while (entry->asked_bytes < length && has_room(pair, entry)) {
		struct ffv_posted posted = { .offset = entry->asked_bytes, .piece = entry->asked_pieces % FFV_READ_PIECES };
		bool by_device;
		posted.length = next_piece(pair, entry, &by_device);
		/* Zeroed: a container could have it said that there are bytes of its memory in it. */
		if (!by_device && !(posted.bytes = calloc(1, posted.length)))
			return -ENOMEM;
		entry->pieces[posted.piece] = posted.bytes;
		entry->piece_bytes[posted.piece] = posted.length;
		entry->asked_bytes += posted.length;
		entry->asked_pieces++;
		int rc = ffv_incoming_post(pair, entry, count, posted);
		if (rc)
			return rc;
	}
	return 0;
}

bool ffv_read_answer(struct ffv_pair *pair, struct ffv_entry *entry)
{
	struct ffv_frame frame = ffv_answer_to(pair, &entry->frame, FFV_FRAME_RESULT, 0);
	uint32_t piece = entry->done_pieces % FFV_READ_PIECES, n = entry->piece_bytes[piece];

	if (!entry->frame.length_bytes)
		return true;
	FFV_FAULT(wire_read_answered);
	frame.address = entry->done_bytes;
	frame.length_bytes = entry->frame.length_bytes;
	if (entry->pieces[piece]) /* else it was fetched; a grant that is out may be the next piece's by now */
		ffv_answer_queue(pair, &frame, entry->pieces[piece], n); /* which takes it over */
	entry->pieces[piece] = NULL;
	entry->done_bytes += n;
	entry->done_pieces++;
	return entry->done_bytes == entry->frame.length_bytes;
}

/* ---- pieces without a buffer ------------------------------------------------------------------------------------------------ */

/* The piece that the executor is at gets a buffer, if there is room for it; else it is asked for again later. */
static void give_buffer(struct ffv_pair *pair, struct ffv_posted *posted)
{
	struct ffv_entry *entry = ffv_incoming_entry(&pair->in, pair->in.first);
	bool room = !pair->result_bytes || pair->result_bytes + posted->length <= FFV_READ_WINDOW;
	uint8_t *bytes = room ? calloc(1, posted->length) : NULL;

	if (room && !bytes) {
		ffv_incoming_close(pair, FFV_WC_RETRY_EXC_ERR);
		return;
	}
	lock(pair);
	pair->in.wants_more |= !room;
	posted->bytes = entry->pieces[posted->piece] = bytes;
	unlock(pair);
	if (room)
		ffv_pair_run(pair);
}

void ffv_read_grant(struct ffv_pair *pair, struct ffv_link_channel *channel, const struct ffv_entry *entry, uint64_t position)
{
	struct ffv_posted *posted = &pair->in.window->posted[position % FFV_WINDOW];
	struct ffv_granting what = { .position = position, .most = posted->length, .offset = posted->offset };

	if (posted->bytes || !posted->length || ffv_grant_is_out(pair, position))
		return; /* it has what it needs, and was only looked at once more */
	if (!ffv_grant_make(pair, channel, &what))
		return;
	if (what.length != posted->length) {
		ffv_grant_end(pair);
		give_buffer(pair, posted);
		return;
	}
	struct ffv_frame frame = ffv_answer_to(pair, &entry->frame, FFV_FRAME_CREDIT, 0);
	struct ffv_frame *to = ffv_channel_frame(&channel->io, FFV_FRAME_CREDIT, what.count * (uint32_t)sizeof what.pieces[0]);
	if (!to)
		return;
	frame.address = posted->offset + what.length;
	frame.length_bytes = entry->frame.length_bytes;
	frame.operand[0] = posted->offset;
	frame.operand[1] = what.carrier;
	ffv_frame_copy_header(to, &frame);
	memcpy(ffv_frame_payload(to), what.pieces, what.count * sizeof what.pieces[0]);
}

void ffv_read_refused(struct ffv_pair *pair)
{
	uint64_t position = pair->in.window->more_position;
	struct ffv_posted *posted = &pair->in.window->posted[position % FFV_WINDOW];

	if (!posted->bytes && posted->length && posted->entry == pair->in.first)
		give_buffer(pair, posted);
}

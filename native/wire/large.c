/* SPDX-License-Identifier: MIT
 *
 * What comes in pieces: the payload of a LARGE, called for by CREDIT as the executor delivers it. It is received straight
 * to where it belongs: the executor, run when some of it has come, asks for it (`fetch`) once it has checked where that is,
 * and holds what it checked until the bytes are there. Where that is not reached from here, or another thread executes,
 * the bytes wait in chunks. Runs on the loop's thread, but for the hooks.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/fault.h"
#include "wire/router.h"

/* The payload that the loop's thread has just found, while it has the executor run. */
struct coming { const struct ffv_pair *pair; struct ffv_channel *io; bool asked, faulted; uint32_t taken; };

static _Thread_local struct coming *coming;

static void lock(struct ffv_pair *pair)
{
	pthread_mutex_lock(&pair->proxy->router->lock);
}

static void unlock(struct ffv_pair *pair)
{
	pthread_mutex_unlock(&pair->proxy->router->lock);
}

struct ffv_chunk *ffv_incoming_take_chunks_locked(struct ffv_incoming *in)
{
	struct ffv_chunk *chunks = in->chunks;

	in->chunks = NULL;
	in->last_chunk = &in->chunks;
	return chunks;
}

void ffv_incoming_free_chunks(struct ffv_chunk *chunks)
{
	while (chunks) {
		struct ffv_chunk *next = chunks->next;
		free(chunks);
		chunks = next;
	}
}

/* ---- hooks ------------------------------------------------------------------------------------------------------------------ */

static int stream_bytes(const struct ffv_incoming *in, uint32_t from, struct ffv_list *out)
{
	for (const struct ffv_chunk *chunk = in->chunks; chunk && out->num_segments < FFV_MAX_SGE; chunk = chunk->next) {
		if (chunk->offset + chunk->length <= from)
			continue;
		if (chunk->offset > from + out->length_bytes)
			break; /* what is before it was placed, and is to be fetched */
		uint32_t skip = chunk->offset < from ? from - chunk->offset : 0;
		out->segment[out->num_segments++] = (struct ffv_segment){ .va = (uintptr_t)chunk->bytes + skip,
									  .length_bytes = chunk->length - skip };
		out->length_bytes += chunk->length - skip;
	}
	return FFV_BYTES_SOME;
}

int ffv_incoming_bytes(struct ffv_pair *pair, uint64_t position, uint32_t from, struct ffv_list *out)
{
	if (!pair->in.window)
		return FFV_BYTES_NONE;
	const struct ffv_posted *posted = &pair->in.window->posted[position % FFV_WINDOW];
	if (pair->type != FFV_QPT_UD && ffv_incoming_entry(&pair->in, posted->entry)->frame.kind == FFV_FRAME_LARGE)
		return posted->entry == pair->in.first ? stream_bytes(&pair->in, from, out) : FFV_BYTES_SOME;
	if (posted->length) {
		if (!posted->bytes) /* of a READ: another host's device fetches it from where the executor finds it */
			return pair->type != FFV_QPT_UD && ffv_incoming_entry(&pair->in, posted->entry)->by_device
				       ? FFV_BYTES_SOME : FFV_BYTES_NONE;
		out->segment[0] = (struct ffv_segment){ .va = (uintptr_t)posted->bytes, .length_bytes = posted->length };
		out->num_segments = 1;
		out->length_bytes = posted->length;
	}
	return FFV_BYTES_ALL;
}

void ffv_incoming_more(struct ffv_pair *pair, uint64_t position, uint32_t from)
{
	struct ffv_incoming *in = &pair->in;

	if (!in->window)
		return;
	in->more_entry = in->window->posted[position % FFV_WINDOW].entry;
	while (in->more_entry == in->first && in->chunks && in->chunks->offset + in->chunks->length <= from) {
		struct ffv_chunk *chunk = in->chunks;
		in->chunks = chunk->next;
		if (!in->chunks)
			in->last_chunk = &in->chunks;
		free(chunk);
	}
	in->wants_more = true;
	in->window->more_position = position;
	in->more_from = from;
}

static uint32_t fetch_placed(struct ffv_proxy *proxy, uint32_t qpn, uint32_t from, const struct iovec *to, int count)
{
	pthread_mutex_lock(&proxy->router->lock);
	struct ffv_pair *pair = proxy->pairs[qpn % FFV_QPN_BLOCK];
	uint32_t n = pair && pair->in.grant ? ffv_grant_fetch_locked(pair, from, to, count) : 0;
	pthread_mutex_unlock(&proxy->router->lock);
	return n;
}

uint32_t ffv_incoming_fetch(struct ffv_proxy *proxy, uint32_t qpn, uint64_t position, uint32_t from, const struct iovec *to,
			    int count)
{
	struct coming *now = coming; /* NULL: not the loop's thread, to which the pairs belong */
	uint32_t placed = fetch_placed(proxy, qpn, from, to, count);

	if (placed || !now || now->faulted || now->pair != proxy->pairs[qpn % FFV_QPN_BLOCK])
		return placed;
	struct ffv_pair *pair = proxy->pairs[qpn % FFV_QPN_BLOCK];
	struct ffv_incoming *in = &pair->in;
	if (!in->window || in->window->posted[position % FFV_WINDOW].entry != in->first || in->chunks || from != in->arrived)
		return 0;
	now->asked = true;
	ssize_t n = ffv_channel_body_receive(now->io, to, count);
	now->faulted = n == -EFAULT;
	if (n < 0 && n != -EFAULT)
		now->io->error = (int)n;
	if (n <= 0)
		return 0;
	FFV_FAULT(wire_body_placed);
	now->taken += (uint32_t)n;
	lock(pair);
	in->arrived += (uint32_t)n;
	unlock(pair);
	return (uint32_t)n;
}

/* ---- pieces ---------------------------------------------------------------------------------------------------------------- */

/* Says how far the message may come, and where its bytes may be written, if that can be; there: some that came wait. */
static void give_credit(struct ffv_pair *pair, struct ffv_link_channel *channel, const struct ffv_entry *entry, uint32_t from,
			bool there)
{
	struct ffv_frame frame = ffv_answer_to(pair, &entry->frame, FFV_FRAME_CREDIT, 0);
	uint32_t length = entry->frame.length_bytes, upto = length - from < FFV_STREAM_WINDOW ? length : from + FFV_STREAM_WINDOW;
	struct ffv_granting what = { .from = from, .most = length - from - FFV_LAST_BYTES };
	struct ffv_incoming *in = &pair->in;

	if (upto <= in->granted || in->granted - from > FFV_STREAM_WINDOW / 2)
		return;
	if (!there && in->granted <= from && length - from > FFV_EAGER_BYTES && !ffv_grant_make(pair, channel, &what))
		return;
	struct ffv_frame *to = ffv_channel_frame(&channel->io, FFV_FRAME_CREDIT, what.count * (uint32_t)sizeof what.pieces[0]);
	if (!to)
		return;
	FFV_FAULT(wire_credit_given);
	if (what.length)
		upto = what.length == length - from - FFV_LAST_BYTES ? length : from + what.length;
	else if (what.gap && what.gap < upto - from)
		upto = from + what.gap; /* what is behind it can be granted */
	frame.operand[0] = what.length ? from : 0;
	frame.operand[1] = what.carrier;
	frame.address = upto;
	frame.length_bytes = length;
	in->granted = upto;
	ffv_frame_copy_header(to, &frame);
	memcpy(ffv_frame_payload(to), what.pieces, what.count * sizeof what.pieces[0]);
}

void ffv_incoming_credit(struct ffv_pair *pair)
{
	struct ffv_link_channel *channel = ffv_router_channel(pair->proxy->router, pair->proxy->channel);
	struct ffv_incoming *in = &pair->in;

	if (in->first == in->end)
		return;
	struct ffv_entry *entry = ffv_incoming_entry(in, in->first);
	lock(pair);
	bool wanted = in->wants_more && in->open && in->more_entry == in->first &&
		      (entry->frame.kind == FFV_FRAME_LARGE || entry->by_device);
	uint32_t from = in->more_from;
	uint64_t position = in->window->more_position;
	bool there = wanted && in->arrived > from;
	in->wants_more &= !wanted;
	unlock(pair);
	if (!wanted || !channel)
		return;
	if (entry->by_device) {
		ffv_read_grant(pair, channel, entry, position);
		return;
	}
	give_credit(pair, channel, entry, from, there);
	if (there)
		ffv_pair_run(pair);
}

/* The bytes wait until the executor comes for them. */
static void keep(struct ffv_pair *pair, const uint8_t *bytes, uint32_t length)
{
	struct ffv_chunk *chunk = malloc(sizeof *chunk + length);
	struct ffv_incoming *in = &pair->in;

	if (!chunk) {
		ffv_incoming_close(pair, FFV_WC_RETRY_EXC_ERR);
		return;
	}
	chunk->next = NULL;
	chunk->offset = in->arrived;
	chunk->length = length;
	memcpy(chunk->bytes, bytes, length);
	lock(pair);
	*in->last_chunk = chunk;
	in->last_chunk = &chunk->next;
	in->arrived += length;
	unlock(pair);
	ffv_pair_run(pair);
}

bool ffv_incoming_is_late(const struct ffv_incoming *in, const struct ffv_frame *frame)
{
	return in->first == in->end ||
	       (int32_t)(frame->position - in->window->entries[in->first % FFV_WINDOW].frame.position) < 0;
}

/* Whether the next bytes of a DATA are, from `offset` of it on, those that are welcome. */
static bool is_welcome(const struct ffv_incoming *in, const struct ffv_frame *frame, uint32_t offset)
{
	const struct ffv_entry *entry = in->first == in->end ? NULL : &in->window->entries[in->first % FFV_WINDOW];

	return entry && entry->frame.kind == FFV_FRAME_LARGE && frame->position == entry->frame.position &&
	       frame->address + offset == in->arrived && frame->payload_bytes - offset <= in->granted - in->arrived;
}

bool ffv_incoming_data(struct ffv_link_channel *channel, const struct ffv_frame *frame, const uint8_t *payload)
{
	struct ffv_pair *pair = ffv_incoming_pair(channel, frame);

	if (!pair || ffv_incoming_is_late(&pair->in, frame))
		return true;
	if (!is_welcome(&pair->in, frame, 0))
		return false;
	keep(pair, payload, frame->payload_bytes);
	return true;
}

bool ffv_incoming_body(struct ffv_link_channel *channel, const struct ffv_frame *frame)
{
	struct ffv_pair *pair = ffv_incoming_pair(channel, frame);
	struct coming now = { .io = &channel->io };
	uint32_t length;

	if (pair && ffv_incoming_is_late(&pair->in, frame))
		pair = NULL;
	if (pair) {
		if (!is_welcome(&pair->in, frame, ffv_channel_body_offset(&channel->io)))
			return false;
		now.pair = pair;
		coming = &now;
		ffv_pair_run(pair);
		coming = NULL;
		if (now.taken || (now.asked && !now.faulted))
			return true;
	}
	const uint8_t *bytes = ffv_channel_body_fetch(&channel->io, &length);
	ffv_channel_body_take(&channel->io, length);
	if (pair && length)
		keep(pair, bytes, length);
	return true;
}

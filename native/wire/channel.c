/* SPDX-License-Identifier: MIT
 *
 * See channel.h.
 */
#include "wire/channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"

#define IN_BYTES (1u << 20)
#define OUT_BYTES (2u << 20)
#define HEADER_AHEAD 192u         /* read with a header of what follows, where large frames follow each other */
#define FIRST_BYTES 8192u         /* read when nothing is known of what comes */
#define TELL_BYTES (128u << 10)   /* come, and the other end is told */

_Static_assert(IN_BYTES > sizeof(struct ffv_frame) + FFV_FRAME_MAX_PAYLOAD, "any frame fits");
_Static_assert(OUT_BYTES > FFV_CHANNEL_KEPT + sizeof(struct ffv_frame) + FFV_FRAME_MAX_PAYLOAD, "what is kept fits");

/* ---- what is sent and kept ---------------------------------------------------------------------------------------------- */

static uint8_t *map_ring(size_t capacity)
{
	int fd = memfd_create("ffverbs-channel", MFD_CLOEXEC);
	uint8_t *at = fd >= 0 && !ftruncate(fd, (off_t)capacity)
			      ? mmap(NULL, 2 * capacity, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) : MAP_FAILED;
	bool mapped = at != MAP_FAILED;

	for (int i = 0; i < 2 && mapped; i++)
		mapped = mmap(at + i * capacity, capacity, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED;
	if (!mapped && at != MAP_FAILED)
		munmap(at, 2 * capacity);
	if (fd >= 0)
		close(fd);
	return mapped ? at : NULL;
}

static uint8_t *map_private(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

static uint8_t *at(const struct ffv_out_buffer *out, uint64_t position)
{
	return out->bytes + ((position - out->start) & (out->capacity - 1));
}

static size_t frame_bytes_at(const struct ffv_out_buffer *out, uint64_t position)
{
	return ffv_frame_bytes(((const struct ffv_frame *)(const void *)at(out, position))->payload_bytes);
}

/* The first byte that may still be wanted. */
static uint64_t kept_from(const struct ffv_out_buffer *out)
{
	uint64_t from = out->acked < out->edge ? out->acked : out->edge;

	return from < out->head ? from : out->head;
}

static bool make_room(struct ffv_out_buffer *out, size_t bytes)
{
	uint64_t from = kept_from(out);
	size_t used = (size_t)(out->tail - from), capacity = out->capacity;

	if (!used)
		out->start = out->tail; /* the same few cache lines again */
	if (used + bytes <= capacity)
		return true;
	while (used + bytes > capacity)
		capacity *= 2;
	uint8_t *grown = map_ring(capacity);
	if (!grown)
		return false;
	memcpy(grown, at(out, from), used);
	munmap(out->bytes, 2 * out->capacity);
	out->bytes = grown;
	out->capacity = capacity;
	out->start = from;
	return true;
}

struct ffv_frame *ffv_channel_frame(struct ffv_channel *channel, uint8_t kind, uint32_t payload_bytes)
{
	size_t bytes = ffv_frame_bytes(payload_bytes);

	if (!make_room(&channel->out, bytes))
		return NULL;
	uint8_t *place = at(&channel->out, channel->out.tail);
	struct ffv_frame *frame = (struct ffv_frame *)(void *)place;
	memset(place + bytes - 8, 0, 8);
	*frame = (struct ffv_frame){ .magic = FFV_FRAME_MAGIC, .kind = kind, .payload_bytes = payload_bytes,
				     .sequence = (uint32_t)channel->out.tail };
	channel->out.tail += bytes;
	channel->frames_sent++;
	return frame;
}

void ffv_channel_abort(struct ffv_channel *channel, const struct ffv_frame *frame)
{
	channel->out.tail -= ffv_frame_bytes(frame->payload_bytes);
	channel->frames_sent--;
}

void ffv_frame_copy_header(struct ffv_frame *to, const struct ffv_frame *from)
{
	struct ffv_frame place = *to;

	*to = *from;
	to->magic = place.magic;
	to->payload_bytes = place.payload_bytes;
	to->sequence = place.sequence;
}

/* ---- links ---------------------------------------------------------------------------------------------------------------- */

int ffv_channel_init(struct ffv_channel *channel, const struct ffv_transport *transport,
		     const struct ffv_transport_options *options, int socket)
{
	memset(channel, 0, sizeof *channel);
	channel->transport = transport;
	channel->descriptor = -1;
	channel->in.bytes = map_private(IN_BYTES);
	channel->in.capacity = IN_BYTES;
	channel->out.bytes = map_ring(OUT_BYTES);
	channel->out.capacity = OUT_BYTES;
	int rc = channel->in.bytes && channel->out.bytes ? transport->open(options, socket, &channel->link)
							 : ffv_fail(ENOMEM, "no memory for a channel");
	if (rc) {
		ffv_channel_finish(channel);
		return rc;
	}
	channel->descriptor = transport->descriptor(channel->link);
	channel->heard_ns = ffv_clock_ns();
	return 0;
}

void ffv_channel_finish(struct ffv_channel *channel)
{
	ffv_channel_detach(channel);
	if (channel->in.bytes)
		munmap(channel->in.bytes, channel->in.capacity);
	if (channel->out.bytes)
		munmap(channel->out.bytes, 2 * channel->out.capacity);
	channel->in.bytes = channel->out.bytes = NULL;
}

void ffv_channel_rest(struct ffv_channel *channel)
{
	struct ffv_out_buffer *out = &channel->out;
	struct ffv_in_buffer *in = &channel->in;

	if (in->is_touched && in->head == in->tail && !ffv_channel_in_body(channel))
		in->is_touched = madvise(in->bytes, in->capacity, MADV_DONTNEED) != 0;
	if (out->rested != out->tail && kept_from(out) == out->tail && !madvise(out->bytes, out->capacity, MADV_REMOVE))
		out->rested = out->tail;
}

void ffv_channel_detach(struct ffv_channel *channel)
{
	if (channel->link)
		channel->transport->close(channel->link);
	channel->link = NULL;
	channel->descriptor = -1;
	ffv_channel_drop_body(channel);
	channel->in.head = channel->in.tail = 0; /* half a frame comes again as a whole */
	channel->out.head = channel->out.edge = channel->out.acked;
	channel->note_left = 0;
	channel->rewinds = channel->tells = channel->probing = false;
	channel->tell_flags = 0;
}

void ffv_channel_attach(struct ffv_channel *channel, const struct ffv_transport *transport, struct ffv_wire_link *link)
{
	ffv_channel_detach(channel);
	channel->transport = transport;
	channel->link = link;
	channel->descriptor = transport->descriptor(link);
	channel->heard_ns = ffv_clock_ns();
	channel->tells = true;
	channel->tell_flags = FFV_SEEN_ANSWER;
	channel->probed = channel->asked_ns = 0;
}

/* ---- sending ---------------------------------------------------------------------------------------------------------------- */

/* Whether `head` is between two frames; `edge` is the next such place. */
static bool is_at_edge(struct ffv_out_buffer *out)
{
	while (out->edge < out->head)
		out->edge += frame_bytes_at(out, out->edge);
	return out->edge == out->head;
}

/* Between two frames: goes back, or past what was seen meanwhile, and puts in what is to be said. */
static void turn_at_edge(struct ffv_channel *channel)
{
	struct ffv_out_buffer *out = &channel->out;

	if (channel->rewinds || out->head < out->acked)
		out->head = out->edge = out->acked;
	channel->rewinds = false;
	if (!channel->tells)
		return;
	channel->note = (struct ffv_frame){ .magic = FFV_FRAME_MAGIC, .kind = FFV_FRAME_SEEN, .flags = channel->tell_flags,
					    .operand = { channel->received } };
	channel->note_left = sizeof channel->note;
	channel->told = channel->received;
	channel->tells = false;
	channel->tell_flags = 0;
}

static ssize_t send_note(struct ffv_channel *channel)
{
	const uint8_t *note = (const uint8_t *)&channel->note;
	ssize_t n = channel->transport->send(channel->link, note + sizeof channel->note - channel->note_left,
					     channel->note_left);

	channel->note_left -= n > 0 ? (uint32_t)n : 0;
	return n;
}

static ssize_t send_frames(struct ffv_channel *channel, uint64_t limit)
{
	struct ffv_out_buffer *out = &channel->out;
	size_t length = FFV_FAULT_HALF(wire_half_sent, (size_t)(limit - out->head));
	ssize_t n = channel->transport->send(channel->link, at(out, out->head), length);

	if (n <= 0)
		return n;
	FFV_FAULT(wire_half_sent);
	out->head += (uint64_t)n;
	if (out->head > out->sent)
		out->sent = out->head;
	return n;
}

int ffv_channel_flush(struct ffv_channel *channel)
{
	struct ffv_out_buffer *out = &channel->out;

	while (channel->link) {
		bool turns = channel->rewinds || channel->tells || out->head < out->acked;
		uint64_t limit = out->tail;
		if (turns && !channel->note_left && is_at_edge(out))
			turn_at_edge(channel);
		else if (turns && !channel->note_left)
			limit = out->edge;
		if (!channel->note_left && out->head == out->tail)
			return 1;
		ssize_t n = channel->note_left ? send_note(channel) : send_frames(channel, limit);
		if (n <= 0)
			return (int)n;
		channel->bytes_sent += (uint64_t)n;
	}
	return 0;
}

void ffv_channel_part(struct ffv_channel *channel)
{
	if (!channel->link || channel->parted || channel->note_left || !is_at_edge(&channel->out))
		return; /* the other end finds out when it wants to come back */
	channel->note = (struct ffv_frame){ .magic = FFV_FRAME_MAGIC, .kind = FFV_FRAME_BYE };
	channel->note_left = sizeof channel->note;
	send_note(channel);
	if (!channel->note_left && channel->transport->part)
		channel->transport->part(channel->link);
}

/* ---- receiving ---------------------------------------------------------------------------------------------------------------- */

/* Of bytes in the buffer: few as long as they may be of a large frame, which does not belong there. */
static size_t fill_limit(struct ffv_channel *channel)
{
	bool first = !channel->filled;

	channel->filled = true;
	if (ffv_channel_in_body(channel) || channel->in.tail - channel->in.head >= FIRST_BYTES)
		return channel->in.capacity;
	return channel->streaming ? sizeof(struct ffv_frame) + HEADER_AHEAD : first ? FIRST_BYTES : channel->in.capacity;
}

int ffv_channel_fill(struct ffv_channel *channel)
{
	struct ffv_in_buffer *in = &channel->in;
	size_t limit = fill_limit(channel);

	if (in->head) {
		memmove(in->bytes, in->bytes + in->head, in->tail - in->head);
		in->tail -= in->head;
		in->head = 0;
	}
	while (channel->link && in->tail < limit) {
		ssize_t n = channel->transport->receive(channel->link, in->bytes + in->tail, limit - in->tail);
		if (n <= 0)
			return (int)n;
		in->tail += (size_t)n;
		in->is_touched = true;
		channel->bytes_received += (uint64_t)n;
		channel->heard_ns = ffv_clock_ns();
		if (in->tail < limit && n < 65536) /* it is empty, most likely: level-triggered polling tells if not */
			return 0;
	}
	return channel->link != NULL;
}

static void tell(struct ffv_channel *channel, uint8_t flags)
{
	channel->tells = true;
	channel->tell_flags |= flags;
}

static int on_seen(struct ffv_channel *channel, const struct ffv_frame *frame)
{
	struct ffv_out_buffer *out = &channel->out;
	uint64_t seen = frame->operand[0], edge = out->acked;

	if (seen > out->sent)
		return ffv_fail(EPROTO, "the other router has seen what was never sent");
	while (edge < seen)
		edge += frame_bytes_at(out, edge);
	if (seen > out->acked && edge != seen)
		return ffv_fail(EPROTO, "the other router has seen half a frame");
	out->acked = edge;
	if (out->edge < out->acked && out->acked <= out->head)
		out->edge = out->acked;
	bool lost = frame->flags & FFV_SEEN_RESEND || (frame->flags & FFV_SEEN_ANSWER && seen < channel->probed);
	channel->rewinds |= lost && out->acked < out->head;
	if (frame->flags & FFV_SEEN_ANSWER) {
		channel->probing = false;
		channel->probed = 0;
	}
	if (frame->flags & FFV_SEEN_PROBE)
		tell(channel, FFV_SEEN_ANSWER);
	return 0;
}

/* A frame came out of its turn: one that is known is dropped, one that is too early tells that others were lost. */
static void on_stray(struct ffv_channel *channel, int32_t ahead)
{
	uint64_t now = ahead > 0 ? ffv_clock_ns() : 0;

	if (ahead < 0 || (channel->asked == channel->received && now - channel->asked_ns < FFV_PROBE_NS))
		return;
	channel->asked = channel->received;
	channel->asked_ns = now;
	tell(channel, FFV_SEEN_RESEND);
}

static void receive_whole(struct ffv_channel *channel, const struct ffv_frame *frame)
{
	channel->received += ffv_frame_bytes(frame->payload_bytes);
	channel->frames_received++;
	if (channel->received - channel->told >= TELL_BYTES)
		tell(channel, 0);
}

/* 1: for the caller; 0: dealt with; -errno. */
static int sort(struct ffv_channel *channel, const struct ffv_frame *frame)
{
	int32_t ahead = (int32_t)(frame->sequence - (uint32_t)channel->received);

	if (frame->kind == FFV_FRAME_SEEN)
		return on_seen(channel, frame);
	channel->parted = frame->kind == FFV_FRAME_BYE;
	if (channel->parted)
		return ffv_fail(ESHUTDOWN, "the other router ended it");
	if (ahead) {
		on_stray(channel, ahead);
		return 0;
	}
	receive_whole(channel, frame);
	return 1;
}

/* 2 = more of the body is to be taken, 1 = it is over, 0 = wait for the link. */
static int go_on_with_body(struct ffv_channel *channel, struct ffv_frame *frame)
{
	if (!ffv_channel_body_skip(channel))
		return 0;
	*frame = channel->body;
	if (channel->body_left)
		return 2;
	if (!ffv_channel_end_body(channel))
		return 0;
	receive_whole(channel, frame);
	return 1;
}

int ffv_channel_next(struct ffv_channel *channel, struct ffv_frame *frame, const uint8_t **payload)
{
	struct ffv_in_buffer *in = &channel->in;

	for (;;) {
		int body = ffv_channel_in_body(channel) ? go_on_with_body(channel, frame) : 1;
		if (body != 1)
			return body;
		size_t there = in->tail - in->head;
		if (there < sizeof *frame)
			return 0;
		memcpy(frame, in->bytes + in->head, sizeof *frame);
		const char *wrong = ffv_frame_check(frame);
		if (wrong)
			return ffv_fail(EPROTO, "the other router sent %s", wrong);
		channel->streaming = ffv_channel_begin_body(channel, frame);
		if (channel->streaming)
			continue;
		size_t bytes = ffv_frame_bytes(frame->payload_bytes);
		if (there < bytes)
			return 0;
		*payload = in->bytes + in->head + sizeof *frame;
		in->head += bytes;
		int mine = sort(channel, frame);
		if (mine)
			return mine;
	}
}

int ffv_channel_tick(struct ffv_channel *channel, uint64_t now)
{
	if (!channel->link)
		return 0;
	if (!channel->probing && ffv_channel_unseen(channel) && ffv_elapsed_ns(now, channel->heard_ns) >= FFV_PROBE_NS) {
		channel->probing = true;
		channel->first_probe_ns = now;
	} else if (!channel->probing || now - channel->probe_ns < 2 * FFV_PROBE_NS) {
		return 0;
	} else if (now - channel->first_probe_ns > channel->transport->silent_ns &&
		   ffv_elapsed_ns(now, channel->heard_ns) > channel->transport->silent_ns) {
		return ffv_fail(ETIMEDOUT, "the other router says nothing");
	}
	channel->probe_ns = now;
	channel->probed = channel->out.sent;
	tell(channel, FFV_SEEN_PROBE);
	return 0;
}

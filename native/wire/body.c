/* SPDX-License-Identifier: MIT
 *
 * Receiving a large frame's payload to where it belongs; see channel.h. Between the header and the end of the payload the
 * channel's buffer holds some bytes of it at most, and those of the next frame's header that came with its last ones.
 */
#include <string.h>

#include "base/clock.h"
#include "wire/channel.h"

#define AHEAD_BYTES 256u          /* read beyond the payload: the next header, so that its payload is not in the buffer, too */
#define MOST_PARTS 17

bool ffv_channel_begin_body(struct ffv_channel *channel, const struct ffv_frame *frame)
{
	bool large = frame->kind == FFV_FRAME_DATA || frame->kind == FFV_FRAME_RESULT;

	if (!large || frame->payload_bytes < FFV_BODY_BYTES || frame->sequence != (uint32_t)channel->received)
		return false;
	channel->body = *frame;
	channel->body_left = frame->payload_bytes;
	channel->in.head += sizeof *frame;
	return true;
}

static uint32_t filling(const struct ffv_channel *channel)
{
	return (uint32_t)(ffv_frame_bytes(channel->body.payload_bytes) - sizeof channel->body) - channel->body.payload_bytes;
}

bool ffv_channel_end_body(struct ffv_channel *channel)
{
	struct ffv_in_buffer *in = &channel->in;

	if (!channel->body_left && in->tail - in->head < filling(channel)) {
		int rc = ffv_channel_fill(channel);
		channel->error = rc < 0 ? rc : channel->error;
	}
	if (channel->body_left || in->tail - in->head < filling(channel))
		return false;
	in->head += filling(channel);
	channel->body.magic = 0;
	channel->body_again = 0;
	return true;
}

void ffv_channel_drop_body(struct ffv_channel *channel)
{
	uint32_t taken = ffv_channel_in_body(channel) ? ffv_channel_body_offset(channel) : 0;

	if (taken > channel->body_again)
		channel->body_again = taken;
	channel->body.magic = 0;
}

const uint8_t *ffv_channel_body_there(const struct ffv_channel *channel, uint32_t *length)
{
	size_t there = channel->in.tail - channel->in.head;

	*length = there < channel->body_left ? (uint32_t)there : channel->body_left;
	return channel->in.bytes + channel->in.head;
}

void ffv_channel_body_take(struct ffv_channel *channel, uint32_t length)
{
	channel->in.head += length;
	channel->body_left -= length;
}

static void spend(struct ffv_channel *channel, size_t bytes)
{
	channel->budget -= bytes < channel->budget ? bytes : channel->budget;
}

const uint8_t *ffv_channel_body_fetch(struct ffv_channel *channel, uint32_t *length)
{
	const uint8_t *bytes = ffv_channel_body_there(channel, length);

	if (*length || !channel->link || !channel->budget)
		return bytes;
	int rc = ffv_channel_fill(channel);
	channel->error = rc < 0 ? rc : channel->error;
	bytes = ffv_channel_body_there(channel, length);
	spend(channel, *length);
	return bytes;
}

bool ffv_channel_body_skip(struct ffv_channel *channel)
{
	uint32_t offset, length;

	while ((offset = ffv_channel_body_offset(channel)) < channel->body_again) {
		ffv_channel_body_fetch(channel, &length);
		if (!length)
			return false;
		ffv_channel_body_take(channel, length < channel->body_again - offset ? length : channel->body_again - offset);
	}
	return true;
}

/* Puts `length` bytes into the parts, from their beginning. */
static void scatter(const struct iovec *to, int count, const uint8_t *bytes, size_t length)
{
	for (int i = 0; i < count && length; i++) {
		size_t n = to[i].iov_len < length ? to[i].iov_len : length;
		memcpy(to[i].iov_base, bytes, n);
		bytes += n;
		length -= n;
	}
}

/* The parts from byte `from` on, `length` bytes at most. How many parts; *length: bytes of them. */
static int cut(const struct iovec *to, int count, size_t from, size_t *length, struct iovec *out)
{
	size_t left = *length;
	int n = 0;

	for (int i = 0; i < count && left && n < MOST_PARTS - 1; i++) {
		if (from >= to[i].iov_len) {
			from -= to[i].iov_len;
			continue;
		}
		size_t bytes = to[i].iov_len - from < left ? to[i].iov_len - from : left;
		out[n++] = (struct iovec){ (uint8_t *)to[i].iov_base + from, bytes };
		left -= bytes;
		from = 0;
	}
	*length -= left;
	return n;
}

/* Reads from the link: first what belongs to the parts, then a little of what follows into the empty buffer. */
static ssize_t receive_parts(struct ffv_channel *channel, struct iovec *parts, int count, size_t length)
{
	struct ffv_in_buffer *in = &channel->in;

	in->head = in->tail = 0;
	if (length == channel->body_left) /* else what follows is of the payload, which the next call wants */
		parts[count++] = (struct iovec){ in->bytes, AHEAD_BYTES };
	ssize_t n = channel->transport->receive_parts(channel->link, parts, count);
	if (n <= 0)
		return n;
	channel->bytes_received += (uint64_t)n;
	channel->heard_ns = ffv_clock_ns();
	size_t placed = (size_t)n < length ? (size_t)n : length;
	in->tail = (size_t)n - placed;
	channel->body_left -= (uint32_t)placed;
	channel->bytes_placed += placed;
	return (ssize_t)placed;
}

ssize_t ffv_channel_body_receive(struct ffv_channel *channel, const struct iovec *to, int count)
{
	struct iovec parts[MOST_PARTS];
	size_t room = 0;
	uint32_t there;

	for (int i = 0; i < count; i++)
		room += to[i].iov_len;
	const uint8_t *bytes = ffv_channel_body_there(channel, &there);
	bool more = channel->link && channel->budget, straight = more && channel->transport->receive_parts;
	if (!there && more && !straight) {
		int rc = ffv_channel_fill(channel);
		if (rc < 0)
			return rc;
		bytes = ffv_channel_body_there(channel, &there);
	}
	if (there > room)
		there = (uint32_t)room;
	scatter(to, count, bytes, there);
	ffv_channel_body_take(channel, there);
	spend(channel, there);
	size_t length = room - there < channel->body_left ? room - there : channel->body_left;
	int n = straight && channel->in.head == channel->in.tail ? cut(to, count, there, &length, parts) : 0;
	if (!n || !length)
		return there;
	ssize_t placed = receive_parts(channel, parts, n, length);
	if (placed < 0)
		return there ? (ssize_t)there : placed; /* what came counts: the link tells again */
	spend(channel, (size_t)placed);
	return placed + there;
}

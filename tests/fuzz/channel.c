/* For libFuzzer: whatever another router may send, as the channel takes it apart, over links that come and go. The input
 * is the bytes; a byte before each piece says how long it is and whether the link is replaced first. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzzed.h"
#include "wire/channel.h"

static const uint8_t *input;
static size_t left, piece;

static int open_link(const struct ffv_transport_options *options, int socket, struct ffv_wire_link **out)
{
	(void)options, (void)socket;
	*out = malloc(1);
	return 0;
}

static void close_link(struct ffv_wire_link *link)
{
	free(link);
}

static int descriptor(const struct ffv_wire_link *link)
{
	(void)link;
	return -1;
}

/* Takes all, reading every byte: none of it lies outside the buffer. */
static ssize_t send_bytes(struct ffv_wire_link *link, const void *bytes, size_t length)
{
	static volatile uint8_t sum;
	const uint8_t *at = bytes;

	(void)link;
	length = length > 100 && piece % 2 ? length / 2 + 1 : length; /* ends within a frame */
	for (size_t i = 0; i < length; i++)
		sum = (uint8_t)(sum ^ at[i]);
	return (ssize_t)length;
}

static ssize_t receive(struct ffv_wire_link *link, void *bytes, size_t capacity)
{
	size_t n = piece < left ? piece : left;

	(void)link;
	n = n < capacity ? n : capacity;
	memcpy(bytes, input, n);
	input += n;
	left -= n;
	piece -= n;
	return (ssize_t)n;
}

static ssize_t receive_parts(struct ffv_wire_link *link, const struct iovec *parts, int count)
{
	ssize_t n = 0;

	if (left % 11 == 3)
		return -EFAULT;
	for (int i = 0; i < count; i++)
		n += receive(link, parts[i].iov_base, parts[i].iov_len);
	return n;
}

static void describe(struct ffv_wire_link *link, char *text, size_t capacity)
{
	(void)link;
	if (capacity)
		*text = 0;
}

static const struct ffv_transport fuzzed = { .name = "fuzzed", .silent_ns = 1000000000ull, .open = open_link,
					     .close = close_link, .descriptor = descriptor, .send = send_bytes,
					     .receive = receive, .describe = describe };
static const struct ffv_transport straight = { .name = "straight", .silent_ns = 1000000000ull, .open = open_link,
					       .close = close_link, .descriptor = descriptor, .send = send_bytes,
					       .receive = receive, .receive_parts = receive_parts, .describe = describe };

/* Some of a large frame's payload. False: nothing there. */
static bool take_body(struct ffv_channel *channel)
{
	uint32_t before = channel->body_left, length = before < 3000 ? before : 3000;
	struct iovec parts[2];

	parts[0] = (struct iovec){ malloc(length), length };
	parts[1] = (struct iovec){ malloc(100), left % 3 ? 100 : 0 };
	if (ffv_channel_body_receive(channel, parts, 2) == -EFAULT) {
		const uint8_t *bytes = ffv_channel_body_fetch(channel, &length);
		memmove(parts[0].iov_base, bytes, length < parts[0].iov_len ? length : parts[0].iov_len);
		ffv_channel_body_take(channel, length);
	}
	free(parts[0].iov_base);
	free(parts[1].iov_base);
	return channel->body_left != before;
}

/* 0: goes on. */
static int take_piece(struct ffv_channel *channel, unsigned round)
{
	const uint8_t *payload;
	struct ffv_frame frame;
	struct ffv_wire_link *link;
	static volatile uint8_t sum;
	int got;

	piece = 1 + *input % 128u * 3;
	bool replaced = *input++ & 0x80;
	left--;
	if (replaced && !open_link(NULL, 0, &link))
		ffv_channel_attach(channel, round % 2 ? &straight : &fuzzed, link);
	struct ffv_frame *mine = ffv_channel_frame(channel, FFV_FRAME_MESSAGE, round % 300);
	if (mine && round % 7 == 0)
		ffv_channel_abort(channel, mine);
	channel->budget = 1 + round * 5000 % FFV_ROUND_BYTES;
	if (ffv_channel_flush(channel) < 0 || (!ffv_channel_in_body(channel) && ffv_channel_fill(channel) < 0))
		return -1;
	while ((got = ffv_channel_next(channel, &frame, &payload)) > 0) {
		for (uint32_t i = 0; got == 1 && i < frame.payload_bytes; i++)
			sum = (uint8_t)(sum ^ payload[i]);
		if (got == 2 && !take_body(channel))
			return 0;
	}
	return got;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct ffv_transport_options options;
	struct ffv_channel channel;
	unsigned round = 0;

	input = data;
	left = size;
	if (ffv_channel_init(&channel, size % 2 ? &straight : &fuzzed, &options, -1))
		abort();
	while (left > 1 && !take_piece(&channel, round++))
		;
	ffv_channel_finish(&channel);
	return 0;
}

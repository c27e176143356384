/* SPDX-License-Identifier: MIT
 *
 * A stream of messages from one process into slots of another's memory, filled and checked in one way for the bare
 * copy (limits.c) and for every peer, so that all do the same work around the transfer that is timed.
 *
 * Message i lies in buffer i % slots at both ends. Every byte is the number of its buffer, but the first word of each
 * 4 KiB is i: a late message, or one in the wrong slot, is seen by the sampled check, any other wrong byte by the full.
 * A message counts when the far end has checked it, so nothing is counted that has not arrived.
 */
#ifndef FFVERBS_BENCHMARKS_STREAM_H
#define FFVERBS_BENCHMARKS_STREAM_H

#include "common.h"

enum { STREAM_SLOTS_MAX = 64, STREAM_STAMP_BYTES = 4096 };

/* What the far end does with a message before it gives the slot back; an idle one never looks. */
enum far_end { FAR_IDLE, FAR_SAMPLES, FAR_READS, FAR_COPIES, FAR_KINDS };

static const char *const far_end_names[FAR_KINDS] = { "idle", "samples", "reads", "copies" };

/* Beside the transport under test and the same for all: each counter has one writer and a line of its own. */
struct stream_counters {
	_Alignas(LINE_BYTES) _Atomic uint64_t published; /* messages that the sender knows to have landed */
	_Alignas(LINE_BYTES) _Atomic uint64_t checked;   /* messages that the far end is done with */
};

struct stream {
	struct stream_counters *counters; /* shared */
	size_t size_bytes;                /* of a message; a multiple of 8 */
	unsigned slots;
	uint64_t iters; /* of one batch */
	int batches;
	enum far_end far_end;
};

/* Moves message `from` into slot `slot` of the far end; returns when it has landed there. */
typedef void stream_transfer(void *transport, const unsigned char *from, unsigned slot);

static inline uint64_t stream_word_at(const unsigned char *p)
{
	uint64_t word;

	memcpy(&word, p, sizeof(word));
	return word;
}

static inline void stream_die_of_data(uint64_t want, uint64_t got)
{
	fprintf(stderr, "wrong data in message: wanted %#llx, got %#llx\n", (unsigned long long)want,
		(unsigned long long)got);
	exit(1);
}

static inline void stream_check_samples(const unsigned char *message, size_t size_bytes, uint64_t i)
{
	for (size_t at = 0; at < size_bytes; at += STREAM_STAMP_BYTES)
		if (stream_word_at(message + at) != i)
			stream_die_of_data(i, stream_word_at(message + at));
}

/* Reads every byte; a sum, since the compiler makes vector loads of it and of a compare with early exit it does not. */
static inline void stream_check_sum(const unsigned char *message, size_t size_bytes, uint64_t i, unsigned slots)
{
	uint64_t fill = (i % slots) * 0x0101010101010101u, sum = 0;
	uint64_t stamps = (size_bytes + STREAM_STAMP_BYTES - 1) / STREAM_STAMP_BYTES;
	uint64_t want = fill * (size_bytes / sizeof(uint64_t) - stamps) + i * stamps;

	for (size_t at = 0; at + sizeof(uint64_t) <= size_bytes; at += sizeof(uint64_t))
		sum += stream_word_at(message + at);
	if (sum != want)
		stream_die_of_data(want, sum);
}

static inline size_t stream_memory_bytes(const struct stream *s)
{
	return (s->slots * s->size_bytes + 4095) & ~(size_t)4095;
}

static inline void stream_fill(const struct stream *s, unsigned char *buffers)
{
	for (unsigned slot = 0; slot < s->slots; slot++)
		memset(buffers + slot * s->size_bytes, (int)slot, s->size_bytes);
}

/* Filled buffers for transports that do not allocate their own; free() them. */
static inline unsigned char *stream_buffers(const struct stream *s)
{
	unsigned char *buffers = aligned_alloc(4096, stream_memory_bytes(s));

	if (!buffers)
		die("aligned_alloc");
	stream_fill(s, buffers);
	return buffers;
}

/* The far end, for all batches: checks each message of `slots_memory` in turn and gives its slot back. */
static inline void stream_receive(const struct stream *s, const unsigned char *slots_memory)
{
	unsigned char *mine = stream_buffers(s);

	for (uint64_t i = 0; i < (uint64_t)(s->batches + WARM_UP_BATCHES) * s->iters; i++) {
		const unsigned char *slot = slots_memory + i % s->slots * s->size_bytes;
		unsigned char *out = mine + i % s->slots * s->size_bytes;

		wait_until(&s->counters->published, i + 1);
		if (s->far_end == FAR_SAMPLES)
			stream_check_samples(slot, s->size_bytes, i);
		else if (s->far_end == FAR_READS)
			stream_check_sum(slot, s->size_bytes, i, s->slots);
		else if (s->far_end == FAR_COPIES)
			stream_check_samples(memcpy(out, slot, s->size_bytes), s->size_bytes, i);
		/* Release: "slot given back", after the reads above. Pairs with stream_send's wait. */
		atomic_store_explicit(&s->counters->checked, i + 1, memory_order_release);
	}
	free(mine);
}

/* The near end, for all batches, from filled `buffers`. Returns the median bytes/s of the batches, each timed until its
 * last message is checked. */
static inline double stream_send(const struct stream *s, unsigned char *buffers, stream_transfer *transfer,
				 void *transport)
{
	static double rate[MAX_BATCHES];
	int is_checked = s->far_end != FAR_IDLE;
	uint64_t i = 0;

	for (int batch = -WARM_UP_BATCHES; batch < s->batches; batch++) {
		double start = now_ns();

		for (uint64_t end = i + s->iters; i < end; i++) {
			unsigned char *message = buffers + i % s->slots * s->size_bytes;

			if (is_checked && i >= s->slots)
				wait_until(&s->counters->checked, i + 1 - s->slots); /* slot given back */
			for (size_t at = 0; at < s->size_bytes; at += STREAM_STAMP_BYTES)
				memcpy(message + at, &i, sizeof(i));
			transfer(transport, message, (unsigned)(i % s->slots));
			/* Release: "message landed", before the far end's reads. Pairs with stream_receive. */
			atomic_store_explicit(&s->counters->published, i + 1, memory_order_release);
		}
		if (is_checked)
			wait_until(&s->counters->checked, i);
		if (batch >= 0)
			rate[batch] = (double)s->iters * (double)s->size_bytes / (now_ns() - start) * 1e9;
	}
	return median(rate, s->batches);
}

#endif

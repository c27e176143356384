/* SPDX-License-Identifier: MIT
 *
 * The latency tests: one message under way at a time, one sample each. SEND and WRITE go back and forth, READ and
 * atomics are answered by nobody. Every function does `count` iterations and, when `samples` is not NULL, writes the
 * ticks that each took. Budget: see loop.h.
 */
#include "perf/tests.h"

#include <string.h>

#include "perf/pattern.h"
#include "perf/ticks.h"

/* Bytes of message `number` that carry a pattern in this run: all, a sample, or none. */
static size_t patterned_bytes(const struct loop *loop, uint64_t number, size_t length)
{
	if (loop->params->check)
		return length;
	if (number & LOOP_SAMPLE_MASK)
		return 0;
	return length < LOOP_SAMPLE_BYTES ? length : LOOP_SAMPLE_BYTES;
}

static void take_sample(uint64_t *samples, uint64_t i, uint64_t *since, bool invariant)
{
	uint64_t now;

	if (!samples)
		return;
	now = ticks_now(invariant);
	samples[i] = now - *since;
	*since = now;
}

/* Sends data message `number`; the receives are topped up after it, while the peer is busy with it. */
static int send_one(struct loop *loop, uint64_t number)
{
	size_t length = patterned_bytes(loop, number, loop->params->size_bytes);
	int rc = loop_make_room(loop, 1);

	if (length)
		pattern_fill(loop->send_half, length, 2 * number + !!loop->params->is_server);
	if (!rc)
		rc = loop_post(loop, 1, false);
	/* Half a queue at a time: a list costs one call. The end of a run is rare and posts what is left. */
	if (!rc && 2 * (loop->rx_posted - loop->rx_done) <= loop->rx_depth)
		rc = loop_refill(loop);
	return rc;
}

int send_latency_client(struct loop *loop, uint64_t count, uint64_t *samples)
{
	uint64_t since = ticks_now(loop->invariant_ticks);
	int rc = 0;

	for (uint64_t i = 0; i < count && !rc; i++) {
		rc = send_one(loop, loop->rx_data);
		if (!rc)
			rc = loop_wait_next(loop);
		take_sample(samples, i, &since, loop->invariant_ticks);
	}
	return rc;
}

int send_latency_server(struct loop *loop, uint64_t count, uint64_t *samples)
{
	int rc = 0;

	(void)samples;
	for (uint64_t i = 0; i < count && !rc; i++) {
		rc = loop_wait_next(loop);
		if (!rc)
			rc = send_one(loop, loop->rx_data - 1);
	}
	return rc;
}

/* The last byte of a written message says which one it is; it is the last that becomes visible, so whoever sees it may
 * read the others. [write-flag] is released by the engine's copy. */
static uint8_t flag_of(uint64_t number)
{
	return (uint8_t)(number + 1);
}

static int write_one(struct loop *loop, uint64_t number)
{
	size_t last = loop->params->size_bytes - 1;
	size_t length = patterned_bytes(loop, number, last);
	int rc = loop_make_room(loop, 1);

	if (length)
		pattern_fill(loop->send_half, length, 2 * number + !!loop->params->is_server);
	loop->send_half[last] = flag_of(number);
	return rc ? rc : loop_post(loop, 1, false);
}

static int await_written(struct loop *loop, uint64_t number)
{
	size_t last = loop->params->size_bytes - 1;
	size_t length = patterned_bytes(loop, number, last);
	const _Atomic uint8_t *flag = (const _Atomic uint8_t *)(loop->recv_half + last);
	int rc;

	for (uint32_t polls = 0; ffv_load_acquire(flag) != flag_of(number); polls++) { /* [write-flag] */
		ffv_cpu_relax(); /* or the line is taken from whoever is about to write it */
		if (ffv_likely(polls < LOOP_IDLE_POLLS))
			continue;
		polls = 0;
		/* An error of ours ends as a completion; without one, the peer may just be slow. */
		rc = loop_reap(loop, loop->params->send_cq, LOOP_REAP_MAX);
		if (rc >= 0)
			rc = loop_idle(loop);
		if (rc)
			return rc;
	}
	loop->alive_ns = 0;
	if (length && !pattern_matches(loop->recv_half, length, 2 * number + !loop->params->is_server))
		return loop_bad_data("written message", number);
	return 0;
}

int write_latency_client(struct loop *loop, uint64_t count, uint64_t *samples)
{
	uint64_t since = ticks_now(loop->invariant_ticks);
	int rc = 0;

	for (uint64_t i = 0; i < count && !rc; i++, loop->rx_data++) {
		rc = write_one(loop, loop->rx_data);
		if (!rc)
			rc = await_written(loop, loop->rx_data);
		take_sample(samples, i, &since, loop->invariant_ticks);
	}
	return rc;
}

int write_latency_server(struct loop *loop, uint64_t count, uint64_t *samples)
{
	int rc = 0;

	(void)samples;
	for (uint64_t i = 0; i < count && !rc; i++, loop->rx_data++) {
		rc = await_written(loop, loop->rx_data);
		if (!rc)
			rc = write_one(loop, loop->rx_data);
	}
	return rc;
}

/* One request that returns data, from posting it to having it. */
static int fetch_one(struct loop *loop)
{
	int rc = loop_make_room(loop, 1);

	if (!rc)
		rc = loop_post(loop, 1, true);
	return rc ? rc : loop_wait_sent(loop, loop->tx_posted);
}

int read_latency_client(struct loop *loop, uint64_t count, uint64_t *samples)
{
	uint64_t since = ticks_now(loop->invariant_ticks);
	int rc = 0;

	for (uint64_t i = 0; i < count && !rc; i++) {
		size_t length = patterned_bytes(loop, i, loop->params->size_bytes);

		if (length)
			memset(loop->send_half, 0, length);
		rc = fetch_one(loop);
		if (!rc && length && !pattern_matches(loop->send_half, length, 0))
			rc = loop_bad_data("read", i);
		take_sample(samples, i, &since, loop->invariant_ticks);
	}
	return rc;
}

int atomic_latency_client(struct loop *loop, uint64_t count, uint64_t *samples)
{
	uint64_t since = ticks_now(loop->invariant_ticks), found;
	int rc = 0;

	for (uint64_t i = 0; i < count && !rc; i++, loop->rx_data++) {
		rc = fetch_one(loop);
		memcpy(&found, loop->send_half, sizeof found);
		if (!rc && found != loop->rx_data)
			rc = loop_bad_data("atomic", loop->rx_data);
		take_sample(samples, i, &since, loop->invariant_ticks);
	}
	return rc;
}

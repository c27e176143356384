/* SPDX-License-Identifier: MIT
 *
 * The bandwidth tests: as many messages under way as the send queue holds. A checked run goes window by window: every
 * message of a window has a place of its own, and the next window starts when the last one was found to be right.
 * Budget: see loop.h.
 */
#include "perf/tests.h"

#include <string.h>

#include "perf/pattern.h"

static uint64_t smaller(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Points the next `count` requests of the list at the places of their messages; only checked runs have several. */
static void aim(struct loop *loop, uint32_t count, uint64_t number)
{
	for (uint32_t i = 0; loop->slots > 1 && i < count; i++) {
		uint64_t offset = (number + i) % loop->slots * loop->stride_bytes;

		loop->tx_sge[i].addr = (uintptr_t)(loop->send_half + offset);
		loop->tx[i].wr.rdma.remote_addr = loop->remote_half + offset;
	}
}

/* Posts messages [first, first + count) and waits until all are done. */
static int stream(struct loop *loop, uint64_t first, uint64_t count)
{
	uint64_t last = first + count;
	int rc = 0;

	for (uint64_t number = first; number < last && !rc;) {
		uint32_t list = (uint32_t)smaller(loop->params->post_list, last - number);

		aim(loop, list, number);
		rc = loop_make_room(loop, list);
		if (!rc)
			rc = loop_post(loop, list, number + list == last);
		number += list;
	}
	return rc ? rc : loop_wait_sent(loop, loop->tx_posted);
}

static void fill_window(struct loop *loop, uint64_t first, uint64_t count)
{
	for (uint64_t number = first; number < first + count; number++)
		pattern_fill(loop_slot(loop->send_half, loop, number), loop->params->size_bytes, 2 * number);
}

/* Both ends have done with this window: the one has written, the other has looked. */
static int hand_over(struct loop *loop)
{
	int rc = loop_send_control(loop);

	if (!rc)
		rc = loop_wait_next(loop);
	return rc ? rc : loop_refill(loop);
}

/* SEND and WRITE. rx_data counts the messages of the whole run at both ends. */
static int push(struct loop *loop, uint64_t count, bool far_end_looks)
{
	uint64_t window = loop->params->check ? loop->slots : count;
	int rc = 0;

	for (uint64_t done = 0; done < count && !rc; done += window) {
		uint64_t now = smaller(window, count - done);

		if (loop->params->check)
			fill_window(loop, loop->rx_data, now);
		rc = stream(loop, loop->rx_data, now);
		loop->rx_data += now;
		if (!rc && far_end_looks && loop->params->check)
			rc = hand_over(loop);
	}
	return rc;
}

int send_bandwidth_client(struct loop *loop, uint64_t count, uint64_t *samples)
{
	(void)samples;
	if (!loop->params->check && loop->rx_data == 0)
		fill_window(loop, 0, 1);
	return push(loop, count, false);
}

/* Receives are given back half a queue at a time. A checked run has a place for each and looks as it reaps them; else all
 * arrive in one place, where the next one may be on its way, so there is something to look at only after the last. */
int send_bandwidth_server(struct loop *loop, uint64_t count, uint64_t *samples)
{
	int rc = 0;

	(void)samples;
	loop->rx_expected += count;
	while (loop->rx_done < loop->rx_expected && !rc) {
		rc = loop_advance(loop, loop->params->recv_cq, LOOP_REAP_MAX);
		if (!rc && 2 * (loop->rx_posted - loop->rx_done) <= loop->rx_depth)
			rc = loop_refill(loop);
	}
	if (!rc && !loop->params->check && !pattern_matches(loop->recv_half, loop->params->size_bytes, 0))
		rc = loop_bad_data("message", loop->rx_expected - 1);
	return rc;
}

int write_bandwidth_client(struct loop *loop, uint64_t count, uint64_t *samples)
{
	(void)samples;
	return push(loop, count, true);
}

int write_bandwidth_server(struct loop *loop, uint64_t count, uint64_t *samples)
{
	int rc = 0;

	(void)samples;
	for (uint64_t done = 0; loop->params->check && done < count && !rc; done += loop->slots) {
		uint64_t last = loop->rx_data + smaller(loop->slots, count - done);

		rc = loop_wait_next(loop);
		for (; loop->rx_data < last && !rc; loop->rx_data++)
			if (!pattern_matches(loop_slot(loop->recv_half, loop, loop->rx_data), loop->params->size_bytes,
					     2 * loop->rx_data))
				rc = loop_bad_data("written message", loop->rx_data);
		if (!rc)
			rc = loop_refill(loop);
		if (!rc)
			rc = loop_send_control(loop);
	}
	return rc;
}

int read_bandwidth_client(struct loop *loop, uint64_t count, uint64_t *samples)
{
	uint64_t window = loop->params->check ? loop->slots : count;
	int rc = 0;

	(void)samples;
	for (uint64_t done = 0; done < count && !rc; done += window) {
		uint64_t now = smaller(window, count - done);

		if (loop->params->check)
			memset(loop->send_half, 0, loop->slots * loop->stride_bytes);
		rc = stream(loop, done, now);
		for (uint64_t i = done; loop->params->check && i < done + now && !rc; i++)
			if (!pattern_matches(loop_slot(loop->send_half, loop, i), loop->params->size_bytes,
					     i % loop->slots))
				rc = loop_bad_data("read", i);
	}
	return rc;
}

/* SPDX-License-Identifier: MIT
 *
 * One end of a measurement: its counters, and posting and reaping in the way that a fast application does it. Runs in
 * the application's process on one thread and uses the engine through its public calls alone, so that what it measures
 * is what an application gets.
 *
 * Budget of the inline functions: no system call, no allocation, no log, unless nothing happens for a long time.
 */
#ifndef FFV_PERF_LOOP_H
#define FFV_PERF_LOOP_H

#include <ffverbs/ffv.h>

#include "base/atomics.h"
#include "base/clock.h"

#define LOOP_REAP_MAX 32u
#define LOOP_SLOTS_MAX 64u
/* Empty polls between two looks at the clock: about a millisecond. */
#define LOOP_IDLE_POLLS (1u << 16)
#define LOOP_DEADLINE_NS 10000000000u
/* Without a full check every 1024th message of a latency test still carries a pattern in its first bytes. */
#define LOOP_SAMPLE_MASK 1023u
#define LOOP_SAMPLE_BYTES 64u

struct loop {
	const struct ffv_perf_params *params;
	/* Places in memory: slot k of a half begins at k * stride_bytes. */
	uint8_t *send_half;
	uint8_t *recv_half;
	uint64_t remote_half;         /* the peer's receive half */
	uint64_t stride_bytes;
	uint32_t slots;
	/* Work requests by their number: posted, and known to be done. wr_id of a send is its number. */
	uint64_t tx_posted;
	uint64_t tx_done;
	uint64_t tx_next_signal;
	uint32_t tx_signal_period;
	uint32_t tx_flags;
	uint32_t rx_depth;
	uint64_t rx_posted;
	uint64_t rx_done;
	uint64_t rx_expected;         /* receives that the test has asked for; more may have come already */
	uint64_t rx_limit;            /* receives that the whole run consumes: none is left behind */
	uint64_t rx_data;             /* data messages received, to know the pattern of the next one */
	bool rx_carries_data;         /* receives other than the control messages carry checked data */
	struct ffv_send_wr *tx;       /* a list of post_list requests, linked */
	struct ffv_sge *tx_sge;
	struct ffv_recv_wr *rx;       /* a list of rx_depth requests, linked */
	struct ffv_sge *rx_sge;
	/* When something last happened. */
	uint64_t alive_ns;
	uint32_t idle_polls;
	bool invariant_ticks;
	bool is_passive;              /* the peer does all: wait for as long as the queue pair is well, and let it work */
};

int loop_open(struct loop *loop, const struct ffv_perf_params *params, uint32_t opcode);
void loop_close(struct loop *loop);

/* Slow paths. */
int loop_bad_completion(const struct ffv_wc *wc);
int loop_bad_post(int rc, const char *what);
int loop_bad_data(const char *what, uint64_t number);
/* Called after LOOP_IDLE_POLLS empty polls: -ETIMEDOUT when the deadline has passed. */
int loop_idle(struct loop *loop);
/* Arms `cq`; sleeps until its channel has an event unless a completion is there already. */
int loop_sleep(struct loop *loop, struct ffv_cq *cq);
/* Checks the data message that the receive just reaped holds. */
int loop_check_received(struct loop *loop, uint32_t byte_len);
/* Posts receives until rx_depth are outstanding (or the run needs no more). */
int loop_refill(struct loop *loop);
/* Sends an empty message and waits for the peer's: both are here. */
int loop_meet(struct loop *loop);
int loop_send_control(struct loop *loop);

static inline uint8_t *loop_slot(uint8_t *half, const struct loop *loop, uint64_t number)
{
	return loop->slots == 1 ? half : half + number % loop->slots * loop->stride_bytes;
}

/* Reaps at most `max` completions of `cq`. Returns how many, or -errno. */
static inline int loop_reap(struct loop *loop, struct ffv_cq *cq, uint32_t max)
{
	struct ffv_wc wc[LOOP_REAP_MAX];
	int count = ffv_poll_cq(cq, (int)max, wc);

	for (int i = 0; i < count; i++) {
		if (ffv_unlikely(wc[i].status != FFV_WC_SUCCESS))
			return loop_bad_completion(&wc[i]);
		if (wc[i].opcode & FFV_WC_RECV) {
			int rc = loop->rx_carries_data && wc[i].byte_len ? loop_check_received(loop, wc[i].byte_len) : 0;

			loop->rx_done++;
			if (ffv_unlikely(rc))
				return rc;
		} else {
			loop->tx_done = wc[i].wr_id + 1;
		}
	}
	return count;
}

/* Reaps once; when there is nothing, spins on (returns 0) or sleeps, as the run wants it. */
static inline int loop_advance(struct loop *loop, struct ffv_cq *cq, uint32_t max)
{
	int count = loop_reap(loop, cq, max);

	if (ffv_likely(count > 0)) {
		loop->idle_polls = 0;
		loop->alive_ns = 0;
		return 0;
	}
	if (ffv_unlikely(count < 0))
		return count;
	if (loop->params->channel)
		return loop_sleep(loop, cq);
	return ffv_unlikely(++loop->idle_polls >= LOOP_IDLE_POLLS) ? loop_idle(loop) : 0;
}

/* Waits for the next message that is due. */
static inline int loop_wait_next(struct loop *loop)
{
	int rc = 0;

	loop->rx_expected++;
	while (loop->rx_done < loop->rx_expected && !rc)
		rc = loop_advance(loop, loop->params->recv_cq, 1);
	return rc;
}

static inline int loop_wait_sent(struct loop *loop, uint64_t number)
{
	int rc = 0;

	while (loop->tx_done < number && !rc)
		rc = loop_advance(loop, loop->params->send_cq, LOOP_REAP_MAX);
	return rc;
}

/* Posts `count` (at most post_list) of the test's work requests; the last one is signaled if `signal`, and any that the
 * period asks for. */
static inline int loop_post(struct loop *loop, uint32_t count, bool signal)
{
	struct ffv_send_wr *bad;
	struct ffv_send_wr *wr = loop->tx;

	for (uint32_t i = 0; i < count; i++) {
		bool signaled = loop->tx_posted + i >= loop->tx_next_signal || (signal && i + 1 == count);

		wr[i].wr_id = loop->tx_posted + i;
		wr[i].send_flags = loop->tx_flags | (signaled ? FFV_SEND_SIGNALED : 0);
		if (signaled)
			loop->tx_next_signal = loop->tx_posted + i + loop->tx_signal_period;
	}
	wr[count - 1].next = NULL;
	int rc = ffv_post_send(loop->params->qp, wr, &bad);

	if (count < loop->params->post_list)
		wr[count - 1].next = &wr[count];
	if (ffv_unlikely(rc))
		return loop_bad_post(rc, "send");
	loop->tx_posted += count;
	return 0;
}

/* Room in the send queue for `count` more: reaps until there is. */
static inline int loop_make_room(struct loop *loop, uint32_t count)
{
	uint64_t needed = loop->tx_posted + count;

	return needed <= loop->params->tx_depth ? 0 : loop_wait_sent(loop, needed - loop->params->tx_depth);
}

#endif

/* SPDX-License-Identifier: MIT
 *
 * See loop.h: what is not on the fast path.
 */
#include "perf/loop.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "perf/pattern.h"
#include "perf/ticks.h"

static const char *const status_names[] = {
	"success", "local length error", "local QP operation error", "local EE context operation error",
	"local protection error", "work request flushed", "memory window bind error", "bad response error",
	"local access error", "remote invalid request error", "remote access error", "remote operation error",
	"transport retry counter exceeded", "RNR retry counter exceeded",
};

int loop_bad_completion(const struct ffv_wc *wc)
{
	bool known = wc->status < sizeof(status_names) / sizeof(status_names[0]);

	return ffv_fail(EIO, "work request %llu of QP %#x ended with status %u (%s)", (unsigned long long)wc->wr_id,
			wc->qp_num, wc->status, known ? status_names[wc->status] : "see enum ibv_wc_status");
}

int loop_bad_post(int rc, const char *what)
{
	return ffv_fail_context(rc, "posting a %s work request", what);
}

int loop_bad_data(const char *what, uint64_t number)
{
	return ffv_fail(EBADMSG, "%s %llu does not hold the bytes that were sent", what, (unsigned long long)number);
}

int loop_idle(struct loop *loop)
{
	static const struct timespec rest = { .tv_nsec = 1000000 };
	uint64_t now = ffv_clock_ns();

	if (loop->is_passive) {
		/* A peer that dies ends the receive that stands here with an error. */
		nanosleep(&rest, NULL);
		loop->idle_polls = LOOP_IDLE_POLLS - 1;
		return 0;
	}
	loop->idle_polls = 0;
	if (!loop->alive_ns)
		loop->alive_ns = now;
	if (now - loop->alive_ns > LOOP_DEADLINE_NS)
		return ffv_fail(ETIMEDOUT, "nothing has happened for 10 s: the peer has died, was stopped, or runs "
					   "another test");
	/* Costs nothing when the processor is ours, and lets the peer run when we share one. */
	sched_yield();
	return 0;
}

int loop_sleep(struct loop *loop, struct ffv_cq *cq)
{
	struct pollfd fd = { .fd = ffv_comp_channel_fd(loop->params->channel), .events = POLLIN };
	struct ffv_cq *event_cq;
	void *cq_context;
	int rc = ffv_req_notify_cq(cq, 0);

	/* What came before the queue was armed raises no event, so look again before sleeping. */
	if (!rc)
		rc = loop_reap(loop, cq, 1);
	if (rc)
		return rc < 0 ? rc : 0;
	do
		rc = poll(&fd, 1, loop->is_passive ? -1 : (int)(LOOP_DEADLINE_NS / 1000000u));
	while (rc < 0 && errno == EINTR);
	if (rc < 0)
		return ffv_fail_errno(errno, "waiting for the completion channel");
	if (rc == 0)
		return ffv_fail(ETIMEDOUT, "no completion event for 10 s: the peer has died, was stopped, or runs "
					   "another test");
	rc = ffv_get_cq_event(loop->params->channel, &event_cq, &cq_context);
	if (!rc)
		ffv_ack_cq_events(event_cq, 1);
	return rc;
}

int loop_check_received(struct loop *loop, uint32_t byte_len)
{
	const struct ffv_perf_params *p = loop->params;
	uint64_t number = loop->rx_data++;
	size_t length = p->size_bytes;

	if (byte_len != length)
		return loop_bad_data("message", number);
	if (!p->check) {
		if (number & LOOP_SAMPLE_MASK)
			return 0;
		length = length < LOOP_SAMPLE_BYTES ? length : LOOP_SAMPLE_BYTES;
	}
	if (!pattern_matches(loop_slot(loop->recv_half, loop, loop->rx_done), length, 2 * number + !p->is_server))
		return loop_bad_data("message", number);
	return 0;
}

int loop_refill(struct loop *loop)
{
	uint64_t wanted = loop->rx_done + loop->rx_depth;
	struct ffv_recv_wr *bad;
	uint32_t count;

	if (wanted > loop->rx_limit)
		wanted = loop->rx_limit;
	if (wanted <= loop->rx_posted)
		return 0;
	count = (uint32_t)(wanted - loop->rx_posted);
	for (uint32_t i = 0; i < count; i++) {
		loop->rx[i].wr_id = loop->rx_posted + i;
		loop->rx_sge[i].addr = (uintptr_t)loop_slot(loop->recv_half, loop, loop->rx_posted + i);
	}
	loop->rx[count - 1].next = NULL;
	int rc = ffv_post_recv(loop->params->qp, loop->rx, &bad);

	if (count < loop->rx_depth)
		loop->rx[count - 1].next = &loop->rx[count];
	if (rc)
		return loop_bad_post(rc, "receive");
	loop->rx_posted = wanted;
	return 0;
}

int loop_send_control(struct loop *loop)
{
	struct ffv_send_wr wr = { .opcode = FFV_WR_SEND, .send_flags = FFV_SEND_SIGNALED }, *bad;
	int rc = loop_make_room(loop, 1);

	if (rc)
		return rc;
	wr.wr_id = loop->tx_posted;
	rc = ffv_post_send(loop->params->qp, &wr, &bad);
	if (rc)
		return loop_bad_post(rc, "control");
	loop->tx_next_signal = ++loop->tx_posted + loop->tx_signal_period - 1;
	return 0;
}

int loop_meet(struct loop *loop)
{
	int rc = loop_refill(loop);

	if (!rc)
		rc = loop_send_control(loop);
	if (!rc)
		rc = loop_wait_next(loop);
	/* With a short queue the peer's receive was the last one: the next message finds room without asking. */
	if (!rc)
		rc = loop_refill(loop);
	return rc ? rc : loop_wait_sent(loop, loop->tx_posted);
}

/* Checked runs give every message in flight its own place; unchecked ones stay in one place, as perftest does. */
static void place_slots(struct loop *loop, const struct ffv_perf_params *p)
{
	uint64_t half_bytes = p->mr->length / 2;
	uint64_t places;

	loop->stride_bytes = (p->size_bytes + FFV_LINE_BYTES - 1) / FFV_LINE_BYTES * FFV_LINE_BYTES;
	loop->send_half = p->mr->addr;
	loop->recv_half = loop->send_half + half_bytes;
	loop->remote_half = p->remote_addr + half_bytes;
	places = p->check && loop->stride_bytes ? half_bytes / loop->stride_bytes : 1;
	loop->slots = places < 1 ? 1 : places > LOOP_SLOTS_MAX ? LOOP_SLOTS_MAX : (uint32_t)places;
	loop->rx_depth = p->check && p->rx_depth > loop->slots ? loop->slots : p->rx_depth;
}

static void link_requests(struct loop *loop, const struct ffv_perf_params *p, uint32_t opcode)
{
	for (uint32_t i = 0; i < p->post_list; i++) {
		struct ffv_send_wr *wr = &loop->tx[i];

		loop->tx_sge[i] = (struct ffv_sge){ (uintptr_t)loop->send_half, (uint32_t)p->size_bytes, p->mr->lkey };
		*wr = (struct ffv_send_wr){ .next = wr + 1, .sg_list = &loop->tx_sge[i], .num_sge = 1, .opcode = opcode };
		if (opcode == FFV_WR_ATOMIC_FETCH_AND_ADD) {
			wr->wr.atomic.remote_addr = loop->remote_half;
			wr->wr.atomic.compare_add = 1;
			wr->wr.atomic.rkey = p->rkey;
		} else {
			wr->wr.rdma.remote_addr = loop->remote_half;
			wr->wr.rdma.rkey = p->rkey;
		}
	}
	for (uint32_t i = 0; i < loop->rx_depth; i++) {
		loop->rx_sge[i] = (struct ffv_sge){ 0, (uint32_t)p->size_bytes, p->mr->lkey };
		loop->rx[i] = (struct ffv_recv_wr){ .next = &loop->rx[i + 1], .sg_list = &loop->rx_sge[i], .num_sge = 1 };
	}
}

int loop_open(struct loop *loop, const struct ffv_perf_params *params, uint32_t opcode)
{
	bool sends = opcode == FFV_WR_SEND || opcode == FFV_WR_RDMA_WRITE;

	memset(loop, 0, sizeof *loop);
	loop->params = params;
	place_slots(loop, params);
	loop->tx = calloc(params->post_list, sizeof *loop->tx);
	loop->tx_sge = calloc(params->post_list, sizeof *loop->tx_sge);
	loop->rx = calloc(loop->rx_depth, sizeof *loop->rx);
	loop->rx_sge = calloc(loop->rx_depth, sizeof *loop->rx_sge);
	if (!loop->tx || !loop->tx_sge || !loop->rx || !loop->rx_sge) {
		loop_close(loop);
		return ffv_fail(ENOMEM, "no memory for lists of %u and %u work requests", params->post_list,
				params->rx_depth);
	}
	link_requests(loop, params, opcode);
	loop->tx_flags = sends && params->size_bytes <= params->max_inline ? FFV_SEND_INLINE : 0;
	loop->tx_signal_period = params->tx_depth > 4 ? params->tx_depth / 4 : 1;
	loop->tx_next_signal = loop->tx_signal_period - 1;
	loop->invariant_ticks = ticks_are_invariant();
	return 0;
}

void loop_close(struct loop *loop)
{
	free(loop->tx);
	free(loop->tx_sge);
	free(loop->rx);
	free(loop->rx_sge);
}

/* SPDX-License-Identifier: MIT
 *
 * See rdma_qp.h.
 *
 * Credit: a slot with bytes is sent only while fewer than FFV_RDMA_SLOTS are not consumed at the other end; how many are
 * goes with every slot back, or by itself when half of them are owed. At most two of the latter can be under way, for each
 * answers half a ring of slots, and one more is the last of all: SPARE receives are kept for them. So nothing meets a queue
 * pair without a receive.
 */
#include "wire/rdma_qp.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/error.h"

#define SPARE 4u
#define RECEIVES (FFV_RDMA_SLOTS + SPARE)
#define SLOTS_IN_ALL (FFV_RDMA_SLOTS + SPARE + RECEIVES)
#define SEND_DEPTH (4u * FFV_RDMA_SLOTS)
#define SIGNAL_EVERY 16u
#define RECEIVE_MARK (1ull << 32)     /* in wr_id */
#define PSN_MASK 0xffffffu
#define TIMEOUT 16                    /* 4.096 us << 16 = 0.27 s, seven times */

static uint8_t *slot_at(const struct ffv_rdma_qp *qp, uint32_t index)
{
	return qp->slots + (size_t)index * FFV_RDMA_SLOT_BYTES;
}

static uint8_t *receive_slot(const struct ffv_rdma_qp *qp, uint32_t index)
{
	return slot_at(qp, FFV_RDMA_SLOTS + SPARE + index);
}

static int is_broken(const struct ffv_rdma_qp *qp)
{
	return ffv_fail(ECOMM, "%s", qp->why);
}

/* The first reason is the one that counts. */
int ffv_rdma_qp_lost(struct ffv_rdma_qp *qp, const char *what, const char *why)
{
	if (!qp->broken)
		snprintf(qp->why, sizeof qp->why, "%s: %s: %s", qp->device.name, what, why);
	qp->broken = true;
	return is_broken(qp);
}

/* ---- life ---------------------------------------------------------------------------------------------------------------------- */

static int make_queues(struct ffv_rdma_qp *qp)
{
	const struct ffv_ibverbs *verbs = qp->device.verbs;
	struct real_qp_init_attr attr = { .cap = { .max_send_wr = SEND_DEPTH, .max_recv_wr = RECEIVES, .max_send_sge = 1,
						   .max_recv_sge = 1, .max_inline_data = 220 }, .qp_type = FFV_QPT_RC };

	qp->events = verbs->create_comp_channel(qp->device.context);
	if (!qp->events || fcntl(qp->events->fd, F_SETFL, O_NONBLOCK) ||
	    fcntl(qp->device.context->async_fd, F_SETFL, O_NONBLOCK))
		return ffv_fail_errno(errno, "no completion channel on %s", qp->device.name);
	qp->cq = verbs->create_cq(qp->device.context, (int)(SEND_DEPTH + RECEIVES), NULL, qp->events, 0);
	if (!qp->cq)
		return ffv_fail_errno(errno, "no completion queue on %s", qp->device.name);
	attr.send_cq = attr.recv_cq = qp->cq;
	qp->qp = verbs->create_qp(qp->device.pd, &attr);
	if (!qp->qp) { /* few devices refuse that much inline data */
		attr.cap.max_inline_data = 0;
		qp->qp = verbs->create_qp(qp->device.pd, &attr);
	}
	if (!qp->qp)
		return ffv_fail(errno, "%s makes no RC queue pair (%s): choose another --rdma-device", qp->device.name,
				strerror(errno));
	qp->max_inline = attr.cap.max_inline_data;
	return 0;
}

static int make_slots(struct ffv_rdma_qp *qp)
{
	qp->slots_bytes = (size_t)SLOTS_IN_ALL * FFV_RDMA_SLOT_BYTES;
	void *at = mmap(NULL, qp->slots_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		return ffv_fail_errno(errno, "no memory for the slots of a real queue pair");
	qp->slots = at;
	qp->mr = ffv_rdma_register(&qp->device, at, qp->slots_bytes, FFV_ACCESS_LOCAL_WRITE);
	return qp->mr ? 0 : -ENOMEM;
}

int ffv_rdma_qp_create(const struct ffv_transport_options *options, struct ffv_rdma_qp **out)
{
	struct ffv_rdma_qp *qp = calloc(1, sizeof *qp);
	int rc = qp ? ffv_rdma_device_open(&options->rdma, &qp->device) : ffv_fail(ENOMEM, "no memory for a real queue pair");

	if (qp)
		ffv_rdma_windows_init(&qp->windows, &qp->device, options->windows);
	if (!rc)
		rc = make_queues(qp);
	if (!rc)
		rc = make_slots(qp);
	if (!rc && getrandom(&qp->psn, sizeof qp->psn, 0) != sizeof qp->psn)
		rc = ffv_fail_errno(errno, "no random number");
	if (rc) {
		ffv_rdma_qp_destroy(qp);
		return rc;
	}
	qp->psn &= PSN_MASK;
	qp->held = FFV_RDMA_NONE;
	*out = qp;
	return 0;
}

void ffv_rdma_qp_destroy(struct ffv_rdma_qp *qp)
{
	if (!qp)
		return;
	const struct ffv_ibverbs *verbs = qp->device.verbs;
	if (qp->qp)
		verbs->destroy_qp(qp->qp);
	if (qp->cq)
		verbs->destroy_cq(qp->cq);
	if (qp->events)
		verbs->destroy_comp_channel(qp->events);
	ffv_rdma_windows_finish(&qp->windows); /* the queue pair is no more: nobody is at them */
	if (qp->mr)
		verbs->dereg_mr(qp->mr);
	if (qp->slots)
		munmap(qp->slots, qp->slots_bytes);
	ffv_rdma_device_close(&qp->device);
	free(qp);
}

void ffv_rdma_qp_endpoint(const struct ffv_rdma_qp *qp, struct ffv_rdma_endpoint *out)
{
	*out = (struct ffv_rdma_endpoint){ .qpn = qp->qp->qp_num, .psn = qp->psn, .mtu = qp->device.mtu, .lid = qp->device.lid,
					   .link_layer = qp->device.link_layer };
	memcpy(out->gid, qp->device.gid, 16);
}

/* ---- connecting -------------------------------------------------------------------------------------------------------------------- */

enum { STATE = 1 << 0, ACCESS = 1 << 3, PKEY = 1 << 4, PORT = 1 << 5, AV = 1 << 7, MTU = 1 << 8, TIMEOUT_MASK = 1 << 9,
       RETRY = 1 << 10, RNR = 1 << 11, RQ_PSN = 1 << 12, RD_ATOMIC = 1 << 13, RNR_TIMER = 1 << 15, SQ_PSN = 1 << 16,
       DEST_RD_ATOMIC = 1 << 17, DEST_QPN = 1 << 20 };

static int post_receive(struct ffv_rdma_qp *qp, uint32_t index)
{
	struct ffv_sge sge = { (uintptr_t)receive_slot(qp, index), FFV_RDMA_SLOT_BYTES, qp->mr->lkey };
	struct ffv_recv_wr wr = { .wr_id = RECEIVE_MARK | index, .sg_list = &sge, .num_sge = 1 }, *bad;
	int rc = qp->device.context->post_recv(qp->qp, &wr, &bad);

	return rc ? ffv_rdma_qp_lost(qp, "a receive cannot be posted", strerror(rc)) : 0;
}

static int to_init(struct ffv_rdma_qp *qp)
{
	struct real_qp_attr attr = { .qp_state = FFV_QPS_INIT, .port_num = qp->device.port,
				     .qp_access_flags = FFV_ACCESS_REMOTE_WRITE | FFV_ACCESS_REMOTE_READ };

	return qp->device.verbs->modify_qp(qp->qp, &attr, STATE | PKEY | PORT | ACCESS);
}

static int to_rtr(struct ffv_rdma_qp *qp, const struct ffv_rdma_endpoint *to)
{
	struct real_qp_attr attr = { .qp_state = FFV_QPS_RTR, .path_mtu = qp->device.mtu < to->mtu ? qp->device.mtu : to->mtu,
				     .dest_qp_num = to->qpn, .rq_psn = to->psn & PSN_MASK, .max_dest_rd_atomic = 4,
				     .min_rnr_timer = 12 };

	attr.ah_attr.port_num = qp->device.port;
	attr.ah_attr.dlid = to->lid;
	if (to->link_layer == REAL_LINK_ETHERNET) {
		attr.ah_attr.is_global = 1;
		attr.ah_attr.sgid_index = (uint8_t)qp->device.gid_index;
		attr.ah_attr.hop_limit = 64;
		memcpy(attr.ah_attr.dgid, to->gid, 16);
	}
	return qp->device.verbs->modify_qp(qp->qp, &attr, STATE | AV | MTU | DEST_QPN | RQ_PSN | DEST_RD_ATOMIC | RNR_TIMER);
}

static int to_rts(struct ffv_rdma_qp *qp)
{
	struct real_qp_attr attr = { .qp_state = FFV_QPS_RTS, .sq_psn = qp->psn, .timeout = TIMEOUT, .retry_cnt = 7,
				     .rnr_retry = 7, .max_rd_atomic = 4 };

	return qp->device.verbs->modify_qp(qp->qp, &attr, STATE | TIMEOUT_MASK | RETRY | RNR | SQ_PSN | RD_ATOMIC);
}

int ffv_rdma_qp_connect(struct ffv_rdma_qp *qp, const struct ffv_rdma_endpoint *to, uint64_t receive_position)
{
	if (to->link_layer != qp->device.link_layer)
		return ffv_fail(EPROTONOSUPPORT, "one end has an Ethernet port, the other an InfiniBand one");
	int rc = to_init(qp);
	for (uint32_t i = 0; i < RECEIVES && !rc; i++)
		rc = post_receive(qp, i);
	if (!rc)
		rc = to_rtr(qp, to);
	if (!rc)
		rc = to_rts(qp);
	if (!rc)
		rc = qp->device.context->req_notify_cq(qp->cq, 0);
	qp->next_position = receive_position;
	return rc ? ffv_fail_errno(rc < 0 ? -rc : rc, "the real queue pair of %s cannot be connected", qp->device.name) : 0;
}

/* ---- sending ---------------------------------------------------------------------------------------------------------------------------- */

static int post(struct ffv_rdma_qp *qp, uint8_t *slot, uint32_t bytes, bool last)
{
	struct ffv_sge sge = { (uintptr_t)slot, bytes, qp->mr->lkey };
	bool signaled = last || (qp->posted + 1) % SIGNAL_EVERY == 0;
	struct ffv_send_wr wr = { .wr_id = ++qp->posted, .sg_list = &sge, .num_sge = 1, .opcode = FFV_WR_SEND,
				  .send_flags = (signaled ? FFV_SEND_SIGNALED : 0u) |
						(bytes <= qp->max_inline ? FFV_SEND_INLINE : 0u) }, *bad;
	int rc = qp->device.context->post_send(qp->qp, &wr, &bad);

	return rc ? ffv_rdma_qp_lost(qp, "a message cannot be posted", strerror(rc)) : 0;
}

static void fill_head(struct ffv_rdma_qp *qp, uint8_t *slot, uint64_t position, uint32_t length)
{
	struct ffv_rdma_head head = { .position = position, .length = length, .consumed = qp->consumed };

	memcpy(slot, &head, sizeof head);
	qp->told = qp->consumed;
}

bool ffv_rdma_qp_has_room(const struct ffv_rdma_qp *qp, uint32_t requests)
{
	return qp->posted - qp->completed + requests <= SEND_DEPTH - SIGNAL_EVERY;
}

static bool has_room(const struct ffv_rdma_qp *qp)
{
	return ffv_rdma_qp_has_room(qp, 1);
}

ssize_t ffv_rdma_qp_send(struct ffv_rdma_qp *qp, uint64_t position, const uint8_t *bytes, size_t length)
{
	uint32_t n = length < FFV_RDMA_SLOT_PAYLOAD ? (uint32_t)length : FFV_RDMA_SLOT_PAYLOAD;

	if (qp->broken)
		return is_broken(qp);
	if (!n || qp->sent - qp->consumed_there >= FFV_RDMA_SLOTS || !has_room(qp))
		return 0;
	uint8_t *slot = slot_at(qp, qp->sent % FFV_RDMA_SLOTS);
	fill_head(qp, slot, position, n);
	memcpy(slot + sizeof(struct ffv_rdma_head), bytes, n);
	int rc = post(qp, slot, n + (uint32_t)sizeof(struct ffv_rdma_head), false);
	if (rc)
		return rc;
	qp->sent++;
	return n;
}

/* A slot without bytes, which says only what was consumed. */
static int post_empty(struct ffv_rdma_qp *qp, bool last)
{
	uint8_t *slot = slot_at(qp, FFV_RDMA_SLOTS + qp->credits_sent++ % SPARE);

	fill_head(qp, slot, 0, 0);
	return post(qp, slot, sizeof(struct ffv_rdma_head), last);
}

/* What was consumed is told by itself, if nothing else goes. */
static int tell_if_due(struct ffv_rdma_qp *qp)
{
	return qp->consumed - qp->told < FFV_RDMA_SLOTS / 2 || !has_room(qp) ? 0 : post_empty(qp, false);
}

/* What is received meanwhile is nobody's any more. */
void ffv_rdma_qp_finish_sending(struct ffv_rdma_qp *qp, uint64_t most_ns)
{
	uint64_t deadline_ns = ffv_clock_ns() + most_ns;
	struct ffv_wc wc = { 0 };

	if (qp->broken || !has_room(qp) || post_empty(qp, true))
		return;
	while (!wc.status && qp->completed != qp->posted && ffv_clock_ns() < deadline_ns) {
		int n = qp->device.context->poll_cq(qp->cq, 1, &wc);
		if (n < 0)
			return;
		if (n == 0)
			poll(NULL, 0, 1);
		else if (!wc.status && !(wc.wr_id & RECEIVE_MARK))
			qp->completed = (uint32_t)wc.wr_id;
	}
}

int ffv_rdma_qp_unacknowledged(const struct ffv_rdma_qp *qp, uint64_t *position, uint8_t **bytes, size_t *length)
{
	size_t total = 0;

	*bytes = malloc((size_t)FFV_RDMA_SLOTS * FFV_RDMA_SLOT_BYTES);
	if (!*bytes)
		return ffv_fail(ENOMEM, "no memory to send again what was under way");
	for (uint32_t i = qp->consumed_there; i != qp->sent; i++) {
		const uint8_t *slot = slot_at(qp, i % FFV_RDMA_SLOTS);
		struct ffv_rdma_head head;
		memcpy(&head, slot, sizeof head);
		if (!total)
			*position = head.position;
		memcpy(*bytes + total, slot + sizeof head, head.length);
		total += head.length;
	}
	*length = total;
	return 0;
}

/* ---- receiving ------------------------------------------------------------------------------------------------------------------------------ */

/* Checks what came; a slot with bytes is held, to be taken over. */
static int look_at_received(struct ffv_rdma_qp *qp, uint32_t index, uint32_t bytes)
{
	struct ffv_rdma_head head;

	if (index >= RECEIVES || bytes < sizeof head)
		return ffv_rdma_qp_lost(qp, "the other router broke the protocol", "a message without a head");
	memcpy(&head, receive_slot(qp, index), sizeof head);
	if (head.length != bytes - sizeof head || head.consumed - qp->consumed_there > qp->sent - qp->consumed_there)
		return ffv_rdma_qp_lost(qp, "the other router broke the protocol", "a message with a wrong head");
	qp->consumed_there = head.consumed;
	if (!head.length)
		return post_receive(qp, index);
	/* After a change of queue pairs the other end may begin a little before what we have. */
	if (head.position > qp->next_position)
		return ffv_rdma_qp_lost(qp, "the other router broke the protocol", "bytes are missing");
	uint64_t skip = qp->next_position - head.position;
	qp->held = index;
	qp->held_from = skip < head.length ? (uint32_t)skip : head.length;
	return 0;
}

/* One completion. 1 = handled, 0 = there is none, -errno. */
static int poll_one(struct ffv_rdma_qp *qp)
{
	struct ffv_wc wc;
	int n = qp->device.context->poll_cq(qp->cq, 1, &wc);

	if (n < 0)
		return ffv_rdma_qp_lost(qp, "completions", "the queue cannot be polled");
	if (n == 0)
		return 0;
	if (wc.status) {
		ffv_rdma_qp_lost(qp, "the real queue pair is lost", qp->device.verbs->wc_status_str(wc.status));
		return 1;
	}
	if (!(wc.wr_id & RECEIVE_MARK)) {
		qp->completed = (uint32_t)wc.wr_id;
		return 1;
	}
	int rc = look_at_received(qp, (uint32_t)wc.wr_id, wc.byte_len);
	return rc ? rc : 1;
}

/* Takes bytes out of the held slot. */
static size_t take(struct ffv_rdma_qp *qp, uint8_t *bytes, size_t capacity)
{
	const uint8_t *slot = receive_slot(qp, qp->held);
	struct ffv_rdma_head head;

	memcpy(&head, slot, sizeof head); /* ours alone since it was checked */
	size_t n = head.length - qp->held_from;
	n = n < capacity ? n : capacity;
	memcpy(bytes, slot + sizeof head + qp->held_from, n);
	qp->held_from += (uint32_t)n;
	qp->next_position += n;
	if (qp->held_from < head.length)
		return n;
	uint32_t index = qp->held;
	qp->held = FFV_RDMA_NONE;
	qp->consumed++;
	if (!qp->broken && !post_receive(qp, index))
		tell_if_due(qp);
	return n;
}

/* Forgets the events that were, and asks for the next: before the queue is found empty for the last time. */
static int arm(struct ffv_rdma_qp *qp)
{
	struct real_cq *cq;
	void *unused;
	unsigned count = 0;

	while (!qp->device.verbs->get_cq_event(qp->events, &cq, &unused))
		count++;
	if (count)
		qp->device.verbs->ack_cq_events(qp->cq, count);
	int rc = qp->device.context->req_notify_cq(qp->cq, 0);
	return rc ? ffv_rdma_qp_lost(qp, "completions cannot be waited for", strerror(rc)) : 0;
}

ssize_t ffv_rdma_qp_receive(struct ffv_rdma_qp *qp, uint8_t *bytes, size_t capacity)
{
	size_t total = 0;
	bool armed = false;

	while (total < capacity) {
		if (qp->held != FFV_RDMA_NONE) {
			total += take(qp, bytes + total, capacity - total);
			continue;
		}
		if (qp->broken)
			return total ? (ssize_t)total : is_broken(qp);
		int rc = poll_one(qp);
		if (rc == 0 && armed)
			break;
		if (rc == 0) {
			arm(qp);
			armed = true;
		}
	}
	return (ssize_t)total;
}

size_t ffv_rdma_qp_drain(struct ffv_rdma_qp *qp, uint8_t *bytes, size_t capacity)
{
	size_t total = 0;
	bool more = true;

	qp->broken = true; /* nothing is posted any more */
	while (total < capacity && (qp->held != FFV_RDMA_NONE || more)) {
		if (qp->held != FFV_RDMA_NONE)
			total += take(qp, bytes + total, capacity - total);
		else
			more = poll_one(qp) == 1;
	}
	return total;
}

int ffv_rdma_qp_async(struct ffv_rdma_qp *qp)
{
	const struct ffv_ibverbs *verbs = qp->device.verbs;
	struct real_async_event event;

	if (ffv_rdma_device_is_removed(&qp->device))
		ffv_rdma_qp_lost(qp, "the device", "it is being taken away");
	while (!verbs->get_async_event(qp->device.context, &event)) {
		verbs->ack_async_event(&event);
		switch (event.event_type) {
		case REAL_EVENT_DEVICE_FATAL:
			ffv_rdma_qp_lost(qp, "the device", "it was taken away");
			break;
		case REAL_EVENT_PORT_ERR:
			ffv_rdma_qp_lost(qp, "the port", "it went down");
			break;
		case REAL_EVENT_QP_FATAL:
		case REAL_EVENT_QP_REQ_ERR:
		case REAL_EVENT_QP_ACCESS_ERR:
			ffv_rdma_qp_lost(qp, "the real queue pair", "it had an error");
			break;
		default:
			break;
		}
	}
	return qp->broken ? is_broken(qp) : 0;
}

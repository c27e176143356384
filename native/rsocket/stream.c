/* SPDX-License-Identifier: MIT
 *
 * A connection's memory, queues and messages. The socket's lock is held throughout.
 *
 * What the peer writes is counted by completions and checked against what it was allowed; a peer that writes more than it
 * may has its connection ended. Budget of what runs per message: no system call, no allocation.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "rsocket/rsocket.h"

#define RECV_ID (1ull << 63)       /* in wr_id: a receive request */
#define SIGNAL_EVERY 16u
#define POST_AT_ONCE 32u
#define POLL_AT_ONCE 16
#define SILENCE_NS 1000000000ull   /* sooner than that, an answer said that the peer has gone */
#define ROOM_FOR_MESSAGES 4u       /* requests that data leaves free for credits and the end */

/* ---- life ---------------------------------------------------------------------------------------------------------------- */

static void post_recvs(struct ffv_rs_socket *socket, uint32_t at_least)
{
	struct ffv_rs_stream *stream = &socket->stream;
	struct ffv_recv_wr wrs[POST_AT_ONCE], *bad;

	while (stream->recvs_missing >= at_least && stream->recvs_missing && !socket->is_dead) {
		uint32_t count = ffv_rs_min(stream->recvs_missing, POST_AT_ONCE);
		for (uint32_t i = 0; i < count; i++)
			wrs[i] = (struct ffv_recv_wr){ .wr_id = RECV_ID, .next = i + 1 < count ? &wrs[i + 1] : NULL };
		if (ffv_post_recv(socket->id->qp, wrs, &bad))
			return;
		stream->recvs_missing -= count;
	}
}

int ffv_rs_stream_prepare(struct ffv_rs_socket *socket)
{
	struct ffv_rs_stream *stream = &socket->stream;

	memset(stream, 0, sizeof *stream);
	stream->channel_fd = -1;
	int rc = ffv_create_comp_channel(socket->id->verbs, &stream->channel);
	if (rc)
		return rc;
	stream->channel_fd = ffv_comp_channel_fd(stream->channel);
	if (!fcntl(stream->channel_fd, F_SETFL, O_NONBLOCK))
		return 0;
	rc = ffv_fail_errno(errno, "a completion channel cannot be made non-blocking");
	ffv_rs_stream_destroy(socket);
	return rc;
}

static int create_queues(struct ffv_rs_socket *socket)
{
	struct ffv_rs_stream *stream = &socket->stream;
	struct ffv_qp_init_attr attr = { .qp_type = FFV_QPT_RC,
		.cap = { FFV_RS_SENDS, FFV_RS_RECVS, 1, 1, FFV_RS_INLINE } };
	int rc = ffv_create_cq(socket->id->verbs, FFV_RS_SENDS + FFV_RS_RECVS, NULL, stream->channel, 0, &stream->cq);
	attr.send_cq = attr.recv_cq = stream->cq;
	if (!rc)
		rc = ffv_cm_create_qp(socket->id, NULL, &attr);
	return rc;
}

int ffv_rs_stream_create(struct ffv_rs_socket *socket, struct ffv_rs_hello *hello)
{
	struct ffv_rs_stream *stream = &socket->stream;
	struct ffv_pd *domain;
	int rc = stream->channel ? 0 : ffv_rs_stream_prepare(socket);

	stream->ring_bytes = socket->options.ring_bytes;
	if (!rc)
		rc = ffv_rs_domain(socket->id->verbs, &domain);
	if (!rc)
		rc = ffv_alloc_mr(socket->id->pd, stream->ring_bytes + FFV_RS_STAGE_BYTES,
				  FFV_ACCESS_LOCAL_WRITE | FFV_ACCESS_REMOTE_WRITE, &stream->mr);
	if (!rc)
		rc = create_queues(socket);
	if (rc) {
		ffv_rs_stream_destroy(socket);
		return rc;
	}
	stream->ring = stream->mr->addr;
	stream->stage = stream->ring + stream->ring_bytes;
	stream->recvs_missing = FFV_RS_RECVS;
	post_recvs(socket, 1);
	*hello = (struct ffv_rs_hello){
		.magic_be = htonl(FFV_RS_MAGIC), .version_be = htonl(FFV_RS_VERSION),
		.addr_be = htobe64((uint64_t)(uintptr_t)stream->mr->addr), .rkey_be = htonl(stream->mr->rkey),
		.ring_bytes_be = htonl(stream->ring_bytes), .recvs_be = htonl(FFV_RS_RECVS - FFV_RS_RESERVED),
		.host_be = htonl(ffv_rs_host()),
	};
	return 0;
}

void ffv_rs_stream_destroy(struct ffv_rs_socket *socket)
{
	struct ffv_rs_stream *stream = &socket->stream;

	if (socket->is_watched && stream->channel)
		ffv_rs_unobserve(socket);
	if (socket->id)
		ffv_cm_destroy_qp(socket->id);
	if (stream->cq)
		ffv_destroy_cq(stream->cq);
	if (stream->channel)
		ffv_destroy_comp_channel(stream->channel);
	if (stream->mr)
		ffv_dereg_mr(stream->mr);
	stream->cq = NULL;
	stream->channel = NULL;
	stream->mr = NULL;
	stream->channel_fd = -1;
}

int ffv_rs_stream_peer(struct ffv_rs_socket *socket, const void *data, uint8_t length)
{
	struct ffv_rs_stream *stream = &socket->stream;
	struct ffv_rs_hello hello;

	if (!data || length < sizeof hello)
		return ffv_fail(EPROTO, "the peer is no socket");
	memcpy(&hello, data, sizeof hello);
	if (ntohl(hello.magic_be) != FFV_RS_MAGIC || ntohl(hello.version_be) != FFV_RS_VERSION)
		return ffv_fail(EPROTO, "the peer is no socket, or of another version");
	stream->peer_addr = be64toh(hello.addr_be);
	stream->peer_rkey = ntohl(hello.rkey_be);
	stream->peer_ring_bytes = ntohl(hello.ring_bytes_be);
	stream->granted_messages = ntohl(hello.recvs_be);
	stream->is_away = ntohl(hello.host_be) != ffv_rs_host();
	if (stream->peer_ring_bytes < FFV_RS_RING_MIN || stream->peer_ring_bytes > FFV_RS_RING_MAX)
		return ffv_fail(EPROTO, "the peer's ring has %u bytes", stream->peer_ring_bytes);
	return 0;
}

/* ---- sending --------------------------------------------------------------------------------------------------------------- */

static uint32_t requests_free(const struct ffv_rs_stream *stream)
{
	return FFV_RS_SENDS - (uint32_t)(stream->posted - stream->completed);
}

uint32_t ffv_rs_room(const struct ffv_rs_socket *socket)
{
	const struct ffv_rs_stream *stream = &socket->stream;
	uint64_t used = ffv_load_relaxed(&stream->sent_bytes) - ffv_load_relaxed(&stream->consumed_bytes);

	if (stream->sent_messages >= stream->granted_messages || used >= stream->peer_ring_bytes ||
	    requests_free(stream) < ROOM_FOR_MESSAGES + 2)
		return 0;
	return stream->peer_ring_bytes - (uint32_t)used;
}

static void on_dead(struct ffv_rs_socket *socket)
{
	if (socket->is_dead)
		return;
	socket->is_dead = true;
	ffv_fetch_add(&socket->changes, 1u);
}

static int post(struct ffv_rs_socket *socket, struct ffv_send_wr *first, uint32_t count)
{
	struct ffv_rs_stream *stream = &socket->stream;
	struct ffv_send_wr *bad, *last = &first[count - 1];
	uint64_t end = stream->posted + count;

	if (end - stream->signaled >= SIGNAL_EVERY)
		last->send_flags |= FFV_SEND_SIGNALED;
	for (uint64_t n = stream->posted; n < end; n++)
		stream->stage_end[n % FFV_RS_SENDS] = stream->stage_posted;
	last->wr_id = end;
	if (stream->is_away && stream->posted == stream->completed)
		stream->busy_since_ns = ffv_clock_ns();
	int rc = ffv_post_send(socket->id->qp, first, &bad);
	if (rc) {
		on_dead(socket);
		return rc;
	}
	stream->posted = end;
	if (last->send_flags & FFV_SEND_SIGNALED)
		stream->signaled = end;
	return 0;
}

int ffv_rs_write(struct ffv_rs_socket *socket, const void *data, uint32_t length, bool is_inline)
{
	struct ffv_rs_stream *stream = &socket->stream;
	uint32_t at = (uint32_t)(ffv_load_relaxed(&stream->sent_bytes) % stream->peer_ring_bytes);
	uint32_t head = ffv_rs_min(length, stream->peer_ring_bytes - at), count = head < length ? 2 : 1;
	uint32_t flags = is_inline ? FFV_SEND_INLINE : FFV_SEND_SIGNALED;
	struct ffv_sge sge[2] = { { (uintptr_t)data, head, stream->mr->lkey },
				  { (uintptr_t)data + head, length - head, stream->mr->lkey } };
	struct ffv_send_wr wr[2];

	for (uint32_t i = 0; i < count; i++) {
		wr[i] = (struct ffv_send_wr){ .sg_list = &sge[i], .num_sge = 1, .opcode = FFV_WR_RDMA_WRITE,
			.send_flags = i + 1 < count ? flags & FFV_SEND_INLINE : flags,
			.wr.rdma = { stream->peer_addr + (i ? 0 : at), stream->peer_rkey }, .next = i + 1 < count ? &wr[i + 1] : NULL };
	}
	wr[count - 1].opcode = FFV_WR_RDMA_WRITE_WITH_IMM;
	wr[count - 1].imm_data_be = htonl(FFV_RS_IMM(FFV_RS_DATA, length));
	if (!is_inline)
		stream->stage_posted += length;
	FFV_FAULT(rs_send_staged);
	int rc = post(socket, wr, count);
	if (rc)
		return rc;
	FFV_FAULT(rs_send_written);
	ffv_store_relaxed(&stream->sent_bytes, ffv_load_relaxed(&stream->sent_bytes) + length);
	stream->sent_messages++;
	return 0;
}

/* Without data: nothing is written but a completion. */
static int post_message(struct ffv_rs_socket *socket, uint32_t imm, uint32_t flags)
{
	struct ffv_send_wr wr = { .opcode = FFV_WR_RDMA_WRITE_WITH_IMM, .send_flags = flags, .imm_data_be = htonl(imm),
		.wr.rdma = { socket->stream.peer_addr, socket->stream.peer_rkey } };

	return socket->is_dead ? -EPIPE : post(socket, &wr, 1);
}

int ffv_rs_send_message(struct ffv_rs_socket *socket, enum ffv_rs_message kind, uint32_t value)
{
	return post_message(socket, FFV_RS_IMM(kind, value), FFV_SEND_SIGNALED);
}

/* ---- credits ---------------------------------------------------------------------------------------------------------------- */

/* A quarter of the ring, or all that the peer may think to have left: so a reader that stops after a part has told it. */
static bool is_credit_due(const struct ffv_rs_stream *stream)
{
	uint64_t read = ffv_load_relaxed(&stream->read_bytes), arrived = ffv_load_relaxed(&stream->arrived_bytes);
	uint64_t freed = read - stream->credited_bytes;
	uint64_t left = stream->ring_bytes - (arrived - stream->credited_bytes);

	return freed >= stream->ring_bytes / 2 || (freed >= stream->ring_bytes / 8 && left < stream->ring_bytes / 4) ||
	       stream->arrived_messages - stream->credited_messages >= (FFV_RS_RECVS - FFV_RS_RESERVED) / 2;
}

void ffv_rs_give_credit(struct ffv_rs_socket *socket)
{
	struct ffv_rs_stream *stream = &socket->stream;

	if (!is_credit_due(stream) || socket->fin_arrived || requests_free(stream) < 2)
		return;
	uint32_t messages = (uint32_t)(stream->arrived_messages - stream->credited_messages);
	uint64_t units = (ffv_load_relaxed(&stream->read_bytes) - stream->credited_bytes) / FFV_RS_CREDIT_UNIT;

	post_recvs(socket, 1); /* what is granted must be there */
	FFV_FAULT(rs_receive_uncredited);
	if (post_message(socket, FFV_RS_IMM_CREDIT(messages, (uint32_t)units), 0))
		return;
	FFV_FAULT(rs_receive_credited);
	stream->credited_bytes += units * FFV_RS_CREDIT_UNIT;
	stream->credited_messages += messages;
}

/* False: more than was sent, or could be granted. */
static bool take_credit(struct ffv_rs_stream *stream, uint32_t imm)
{
	uint64_t consumed = ffv_load_relaxed(&stream->consumed_bytes) + FFV_RS_IMM_UNITS(imm) * FFV_RS_CREDIT_UNIT;
	uint64_t granted = stream->granted_messages + FFV_RS_IMM_MESSAGES(imm);

	if (consumed > ffv_load_relaxed(&stream->sent_bytes) || granted > stream->sent_messages + FFV_RS_RECVS)
		return false;
	ffv_store_relaxed(&stream->consumed_bytes, consumed);
	stream->granted_messages = granted;
	return true;
}

/* ---- what has completed ------------------------------------------------------------------------------------------------------ */

static bool on_data(struct ffv_rs_socket *socket, uint32_t bytes)
{
	struct ffv_rs_stream *stream = &socket->stream;
	uint64_t arrived = ffv_load_relaxed(&stream->arrived_bytes) + bytes;

	if (socket->fin_arrived || arrived - ffv_load_relaxed(&stream->read_bytes) > stream->ring_bytes)
		return false;
	stream->arrived_messages++;
	ffv_store_release(&stream->arrived_bytes, arrived); /* [rs-arrived] */
	return true;
}

/* The second one is an end: what comes after it comes another way. */
static bool on_mark(struct ffv_rs_socket *socket, uint32_t value)
{
	struct ffv_rs_stream *stream = &socket->stream;

	if (stream->marks_arrived == 2 || socket->fin_arrived)
		return false;
	stream->marks[stream->marks_arrived++] = value;
	socket->fin_arrived = stream->marks_arrived == 2;
	return true;
}

/* False: the peer did what it may not. */
static bool on_message(struct ffv_rs_socket *socket, uint32_t imm)
{
	ffv_fetch_add(&socket->changes, 1u);
	switch (FFV_RS_IMM_KIND(imm)) {
	case FFV_RS_DATA:
		return on_data(socket, FFV_RS_IMM_BYTES(imm));
	case FFV_RS_CREDIT:
		return take_credit(&socket->stream, imm);
	case FFV_RS_FIN:
		socket->fin_arrived = true;
		return true;
	case FFV_RS_RST:
		socket->reset_arrived = true;
		socket->error = ECONNRESET;
		on_dead(socket);
		return true;
	case FFV_RS_MARK:
		return on_mark(socket, FFV_RS_IMM_BYTES(imm));
	default:
		return false;
	}
}

static void fail_queue_pair(struct ffv_rs_socket *socket)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_ERR };

	ffv_modify_qp(socket->id->qp, &attr, FFV_QP_STATE);
	on_dead(socket);
}

/* What TCP would say of it. */
static int error_of(const struct ffv_rs_stream *stream, const struct ffv_wc *wc)
{
	bool is_silence = stream->is_away && wc->status == FFV_WC_RETRY_EXC_ERR &&
			  ffv_clock_ns() - stream->busy_since_ns >= SILENCE_NS;

	return is_silence ? ETIMEDOUT : ECONNRESET;
}

static void on_completion(struct ffv_rs_socket *socket, const struct ffv_wc *wc)
{
	struct ffv_rs_stream *stream = &socket->stream;

	if (wc->status != FFV_WC_SUCCESS) {
		/* What failed, unlike what was only flushed, was for a peer that has closed without reading it; and on another host
		 * nobody knows how much of the peer's has come. */
		bool is_loss = stream->is_away || (!(wc->wr_id & RECV_ID) && wc->status != FFV_WC_WR_FLUSH_ERR);
		if (is_loss && !socket->is_dead && !socket->fin_arrived)
			socket->error = error_of(stream, wc);
		on_dead(socket);
	} else if (wc->wr_id & RECV_ID) {
		stream->recvs_missing++;
		if (!on_message(socket, ntohl(wc->imm_data_be))) {
			socket->error = ECONNRESET;
			fail_queue_pair(socket);
		}
		return;
	}
	if (!(wc->wr_id & RECV_ID) && wc->wr_id > stream->completed) {
		stream->completed = wc->wr_id;
		ffv_fetch_add(&socket->changes, 1u); /* there may be room again */
		stream->stage_completed = stream->stage_end[(wc->wr_id - 1) % FFV_RS_SENDS];
	}
}

void ffv_rs_progress(struct ffv_rs_socket *socket)
{
	struct ffv_rs_stream *stream = &socket->stream;
	struct ffv_wc wc[POLL_AT_ONCE];
	int count;

	if (!stream->cq)
		return;
	if (socket->is_datagram) {
		ffv_rs_take_datagrams(socket);
		return;
	}
	do {
		count = ffv_poll_cq(stream->cq, POLL_AT_ONCE, wc);
		for (int i = 0; i < count; i++)
			on_completion(socket, &wc[i]);
	} while (count == POLL_AT_ONCE);
	if (count < 0)
		fail_queue_pair(socket);
	if (stream->recvs_missing >= POST_AT_ONCE) {
		post_recvs(socket, POST_AT_ONCE);
		ffv_rs_give_credit(socket);
	}
}

/* What a strange router may say: frames that pass the checks of form, mostly, about few queue pairs, so that they meet.
 * Whoever includes this says where chance comes from (draw), and tells what the router under test has asked (stranger_hears):
 * answers are to that, mostly. */
#ifndef FFV_TESTS_WIRE_STRANGER_H
#define FFV_TESTS_WIRE_STRANGER_H

#include "hosts.h"
#include "wire/frame.h"

#define STRANGER_PORT 7471        /* at which a container listens */
#define STRANGER_TENANT 7
#define STRANGER_QPN 16u
#define STRANGER_FRAME_BYTES (sizeof(struct ffv_frame) + FFV_FRAME_MAX_PAYLOAD + 8u)

static const uint8_t stranger_gid[16] = { [10] = 0xff, 0xff, 10, 0, 9, 1 };

/* A number below `below`. */
static inline unsigned draw(unsigned below);

static const uint8_t stranger_all_kinds[] = {
	FFV_FRAME_OPEN, FFV_FRAME_OPEN, FFV_FRAME_MESSAGE, FFV_FRAME_MESSAGE, FFV_FRAME_LARGE, FFV_FRAME_DATA, FFV_FRAME_PLACED, FFV_FRAME_REQUEST,
	FFV_FRAME_DATAGRAM, FFV_FRAME_CLOSE, FFV_FRAME_ACK, FFV_FRAME_CREDIT, FFV_FRAME_RESULT, FFV_FRAME_WAITS, FFV_FRAME_GONE,
	FFV_FRAME_CALL, FFV_FRAME_TELL, FFV_FRAME_HANG_UP, FFV_FRAME_TOLD, FFV_FRAME_HUNG_UP, FFV_FRAME_BROADCAST,
	FFV_FRAME_BROADCAST, FFV_FRAME_INTEREST, FFV_FRAME_INTEREST_SEEN, FFV_FRAME_SEEN,
};

/* What is said over one connection. */
static struct stranger {
	const uint8_t *kinds;
	unsigned num_kinds;
	uint32_t position;            /* in what was said */
	struct ffv_frame asked[4];    /* by the router: the last ones */
	unsigned num_asked;
	struct ffv_frame large;       /* the last LARGE */
	uint32_t data_at;             /* of it: where the next DATA begins */
	uint32_t result_at;           /* of the answer to a READ */
	/* what has come of what the router says */
	uint8_t heard[STRANGER_FRAME_BYTES];
	size_t num_heard;
} stranger;

static inline void stranger_begin(const uint8_t *kinds, unsigned num_kinds)
{
	stranger.kinds = kinds;
	stranger.num_kinds = num_kinds;
	stranger.position = stranger.num_asked = stranger.data_at = stranger.result_at = 0;
	stranger.num_heard = 0;
	stranger.large = (struct ffv_frame){ 0 };
	memset(stranger.asked, 0, sizeof stranger.asked);
}

static inline void stranger_notes(const struct ffv_frame *frame)
{
	bool asks = frame->kind == FFV_FRAME_MESSAGE || frame->kind == FFV_FRAME_LARGE || frame->kind == FFV_FRAME_REQUEST ||
		    frame->kind == FFV_FRAME_CALL;

	if (asks)
		stranger.asked[stranger.num_asked++ % 4] = *frame;
}

/* Takes frames out of what the router says. */
static inline void stranger_hears(const uint8_t *bytes, size_t length)
{
	struct ffv_frame frame;

	while (length) {
		size_t wanted = sizeof frame;
		if (stranger.num_heard >= sizeof frame) {
			memcpy(&frame, stranger.heard, sizeof frame);
			CHECK(!ffv_frame_check(&frame)); /* a router says nothing else */
			wanted = ffv_frame_bytes(frame.payload_bytes);
		}
		size_t n = wanted - stranger.num_heard < length ? wanted - stranger.num_heard : length;
		memcpy(stranger.heard + stranger.num_heard, bytes, n);
		stranger.num_heard += n;
		bytes += n;
		length -= n;
		if (stranger.num_heard < sizeof frame)
			return;
		memcpy(&frame, stranger.heard, sizeof frame);
		if (stranger.num_heard == ffv_frame_bytes(frame.payload_bytes)) {
			stranger_notes(&frame);
			stranger.num_heard = 0;
		}
	}
}

static inline void stranger_fill_payload(const struct ffv_frame *frame, uint8_t *payload, const struct host *host)
{
	static const uint8_t types[] = { FFV_QPT_RC, FFV_QPT_RC, FFV_QPT_RC, FFV_QPT_UC, FFV_QPT_XRC_SEND };
	uint32_t qpn = host->qp ? ffv_qp_num(host->qp) : 0;
	struct ffv_frame_open open = { .from_qpn = STRANGER_QPN + draw(3), .to_qpn = qpn + draw(2), .mtu_bytes = 4096,
				       .type = draw(8) ? types[draw(sizeof types)] : (uint8_t)draw(256), .timeout = 8,
				       .retry_cnt = (uint8_t)draw(8), .rnr_retry = (uint8_t)draw(7), .max_rd_atomic = 4 };
	struct ffv_frame_address to = { .from_qpn = STRANGER_QPN + draw(5), .to_qpn = qpn, .qkey = PAIR_QKEY };
	struct ffv_frame_service service = { .port_space = 0x106, .port = (uint16_t)(draw(2) ? STRANGER_PORT : draw(65536)) };
	struct ffv_frame_segment head = { .kind = (uint8_t)draw(3), .src_qpn = STRANGER_QPN, .qkey = PAIR_QKEY,
					  .dgid = { 0xff, 0x0e } };
	struct ffv_frame_gone gone = { .qpn_first = draw(4) ? 0 : draw(1u << 25), .died = draw(2) };

	memcpy(open.from_gid, stranger_gid, 16);
	memcpy(open.to_gid, host->gid.raw, 16);
	memcpy(to.from_gid, stranger_gid, 16);
	memcpy(to.to_gid, host->gid.raw, 16);
	memcpy(gone.gid, stranger_gid, 16);
	memcpy(service.address, host->gid.raw, 16);
	if (frame->kind == FFV_FRAME_OPEN)
		memcpy(payload, &open, sizeof open);
	else if (frame->kind == FFV_FRAME_DATAGRAM)
		memcpy(payload, &to, sizeof to);
	else if (frame->kind == FFV_FRAME_GONE)
		memcpy(payload, &gone, sizeof gone);
	else if (frame->kind == FFV_FRAME_CALL)
		memcpy(payload, &service, sizeof service);
	else if (frame->kind == FFV_FRAME_BROADCAST)
		memcpy(payload, &head, sizeof head);
}

/* Sizes that fit the kind. */
static inline void stranger_size(struct ffv_frame *frame)
{
	switch (frame->kind) {
	case FFV_FRAME_OPEN:
		frame->payload_bytes = sizeof(struct ffv_frame_open);
		return;
	case FFV_FRAME_GONE:
		frame->payload_bytes = sizeof(struct ffv_frame_gone);
		return;
	case FFV_FRAME_DATAGRAM:
		frame->payload_bytes = frame->length_bytes + (uint32_t)sizeof(struct ffv_frame_address);
		return;
	case FFV_FRAME_MESSAGE:
		frame->payload_bytes = frame->length_bytes;
		return;
	case FFV_FRAME_BROADCAST:
		frame->length_bytes = draw(9100);
		frame->payload_bytes = frame->length_bytes + (uint32_t)sizeof(struct ffv_frame_segment);
		return;
	case FFV_FRAME_CALL:
		frame->payload_bytes = (uint32_t)sizeof(struct ffv_frame_service) + 1 + draw(600);
		return;
	case FFV_FRAME_TELL:
	case FFV_FRAME_TOLD:
		frame->payload_bytes = 1 + draw(600);
		return;
	case FFV_FRAME_LARGE:
		frame->length_bytes = FFV_EAGER_BYTES + 1 + draw(200000);
		return;
	case FFV_FRAME_CREDIT:
		if (draw(2)) { /* with places for the bytes */
			frame->payload_bytes = (1 + draw(FFV_MOST_PIECES + 1)) * (uint32_t)sizeof(struct ffv_frame_piece);
			frame->operand[1] = draw(2);
		}
		return;
	case FFV_FRAME_PLACED:
		frame->length_bytes = 1 + draw(FFV_STREAM_WINDOW);
		return;
	case FFV_FRAME_DATA:
	case FFV_FRAME_RESULT:
		frame->payload_bytes = 1 + draw(draw(4) ? 4000 : FFV_CHUNK_BYTES);
		return;
	case FFV_FRAME_REQUEST:
		if (frame->opcode != FFV_WR_RDMA_READ && draw(16)) {
			frame->length_bytes = frame->opcode == FFV_WR_FLUSH ? 0 : 8;
			frame->address &= ~7ull;
		}
		return;
	default:
		return;
	}
}

static inline void stranger_answer_asked(struct ffv_frame *frame, bool conversation)
{
	const struct ffv_frame *asked = &stranger.asked[draw(4)];

	if (!asked->magic || (asked->kind == FFV_FRAME_CALL) != conversation)
		return;
	frame->pair = asked->pair;
	frame->incarnation = asked->incarnation;
	frame->position = asked->position;
	frame->opcode = asked->opcode;
	frame->operand[0] = asked->length_bytes;
	if (frame->kind == FFV_FRAME_CREDIT)
		frame->address = asked->length_bytes < 300000 ? asked->length_bytes : 300000;
}

/* What makes it fit what was said before. */
static inline void stranger_relate(struct ffv_frame *frame)
{
	switch (frame->kind) {
	case FFV_FRAME_LARGE:
		stranger.large = *frame;
		stranger.data_at = 0;
		return;
	case FFV_FRAME_DATA:
	case FFV_FRAME_PLACED:
		frame->pair = stranger.large.pair;
		frame->incarnation = stranger.large.incarnation;
		frame->position = stranger.large.position;
		frame->address = stranger.data_at;
		stranger.data_at += frame->kind == FFV_FRAME_DATA ? frame->payload_bytes : frame->length_bytes;
		return;
	case FFV_FRAME_ACK:
	case FFV_FRAME_CREDIT:
	case FFV_FRAME_WAITS:
	case FFV_FRAME_RESULT:
		stranger_answer_asked(frame, false);
		if (frame->kind != FFV_FRAME_RESULT)
			return;
		if (frame->opcode != FFV_WR_RDMA_READ && draw(8)) {
			frame->payload_bytes = 0;
			return;
		}
		frame->address = stranger.result_at;
		stranger.result_at = frame->address + frame->payload_bytes < frame->operand[0]
					     ? (uint32_t)frame->address + frame->payload_bytes : 0;
		return;
	case FFV_FRAME_TOLD:
	case FFV_FRAME_HUNG_UP:
		stranger_answer_asked(frame, true);
		return;
	default:
		return;
	}
}

/* The next frame, in `out` of STRANGER_FRAME_BYTES: how many bytes. */
static inline size_t stranger_speaks(uint8_t *out, const struct host *host)
{
	static const uint8_t opcodes[] = { FFV_WR_SEND, FFV_WR_RDMA_WRITE, FFV_WR_RDMA_WRITE_WITH_IMM, FFV_WR_SEND_WITH_IMM,
					   FFV_WR_SEND_WITH_INV, FFV_WR_ATOMIC_WRITE };
	static const uint8_t requests[] = { FFV_WR_RDMA_READ, FFV_WR_RDMA_READ, FFV_WR_ATOMIC_FETCH_AND_ADD,
					    FFV_WR_ATOMIC_CMP_AND_SWP, FFV_WR_FLUSH };
	struct ffv_frame frame = { .magic = FFV_FRAME_MAGIC, .kind = stranger.kinds[draw(stranger.num_kinds)], .pair = draw(3),
				   .incarnation = draw(2), .position = draw(4), .flags = (uint8_t)draw(256),
				   .address = (uintptr_t)host->mr->addr + draw(8192),
				   .rkey = draw(4) ? host->mr->rkey : draw(1u << 30),
				   .status = draw(4) ? 0 : (uint8_t)draw(24) };
	uint8_t *payload = out + sizeof frame;
	bool asks = frame.kind == FFV_FRAME_REQUEST || frame.kind == FFV_FRAME_RESULT;

	frame.opcode = asks ? requests[draw(sizeof requests)] : opcodes[draw(sizeof opcodes)];
	frame.length_bytes = draw(draw(4) ? 2000 : 30000);
	stranger_size(&frame);
	if (draw(4))
		stranger_relate(&frame);
	if (frame.kind == FFV_FRAME_INTEREST)
		frame.address = STRANGER_TENANT, frame.operand[0] = UINT64_MAX;
	if (frame.kind == FFV_FRAME_SEEN)
		frame.operand[0] = draw(200) * 8ull;
	memset(payload, (int)draw(256), frame.payload_bytes + 8u);
	stranger_fill_payload(&frame, payload, host);
	frame.sequence = stranger.position;
	memcpy(out, &frame, sizeof frame);
	size_t bytes = ffv_frame_bytes(frame.payload_bytes);
	for (unsigned bend = draw(40) ? 0 : 1 + draw(4); bend; bend--)
		out[draw((unsigned)bytes)] = (uint8_t)draw(256);
	memcpy(&frame, out, sizeof frame);
	if (frame.sequence == stranger.position && frame.kind < FFV_FRAME_SEEN)
		stranger.position += (uint32_t)bytes;
	return bytes;
}

/* The container's queue pair is connected to one of the stranger's. */
static inline void stranger_connects(struct host *host)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_RTR, .path_mtu = 5, .dest_qp_num = STRANGER_QPN, .max_dest_rd_atomic = 4,
				    .min_rnr_timer = 1, .ah_attr = ah_to(&host->side) };
	struct ffv_qp_attr rts = { .qp_state = FFV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 4 };

	memcpy(&attr.ah_attr.grh.dgid_subnet_prefix_be, stranger_gid, 8);
	memcpy(&attr.ah_attr.grh.dgid_interface_id_be, stranger_gid + 8, 8);
	qp_to_init(host->qp);
	CHECK_OK(ffv_modify_qp(host->qp, &attr, FFV_QP_STATE | FFV_QP_AV | FFV_QP_PATH_MTU | FFV_QP_DEST_QPN | FFV_QP_RQ_PSN |
			       FFV_QP_MAX_DEST_RD_ATOMIC | FFV_QP_MIN_RNR_TIMER));
	/* What the stranger says may have put it into the error state meanwhile: then the next time begins again. */
	if (ffv_modify_qp(host->qp, &rts, FFV_QP_STATE | FFV_QP_SQ_PSN | FFV_QP_TIMEOUT | FFV_QP_RETRY_CNT | FFV_QP_RNR_RETRY |
			  FFV_QP_MAX_QP_RD_ATOMIC))
		CHECK_EQ(ffv_qp_state(host->qp), FFV_QPS_ERR);
}

/* It is connected, receives, and asks for things. */
static inline void stranger_is_asked(struct host *host)
{
	static const uint32_t opcodes[] = { FFV_WR_SEND, FFV_WR_RDMA_WRITE, FFV_WR_RDMA_READ, FFV_WR_ATOMIC_FETCH_AND_ADD };
	struct ffv_qp_attr reset = { .qp_state = FFV_QPS_RESET };

	if (ffv_qp_state(host->qp) == FFV_QPS_ERR)
		CHECK_OK(ffv_modify_qp(host->qp, &reset, FFV_QP_STATE));
	if (ffv_qp_state(host->qp) == FFV_QPS_RESET)
		stranger_connects(host);
	while (!post_recv(host->qp, 1, host->mr, 4096, 4096))
		;
	for (unsigned i = 0; i < 4; i++) {
		uint32_t opcode = opcodes[draw(4)], atomic = opcode == FFV_WR_ATOMIC_FETCH_AND_ADD;
		struct ffv_sge sge;
		struct ffv_send_wr wr = send_wr(1, opcode, &sge, host->mr, 0, atomic ? 8 : 64 + draw(200000));
		if (atomic)
			wr.wr.atomic.remote_addr = 4096, wr.wr.atomic.rkey = 256;
		else
			wr.wr.rdma.remote_addr = 4096, wr.wr.rdma.rkey = 256;
		if (ffv_post_send(host->qp, &wr, NULL))
			break;
	}
	for (struct ffv_wc wc; ffv_poll_cq(host->side.cq, 1, &wc) > 0;)
		;
}

/* The container still does what it is told: by a queue pair that is connected to itself. */
static inline void stranger_check_container(struct host *host)
{
	struct ffv_qp *qp = side_qp(&host->side, host->side.cq, FFV_QPT_RC, NULL, 4);
	struct ffv_wc wc;

	qp_to_init(qp);
	qp_to_rtr(qp, &host->side, ffv_qp_num(qp));
	qp_to_rts(qp);
	while (ffv_poll_cq(host->side.cq, 1, &wc) > 0)
		;
	CHECK_OK(post_recv(qp, 1, host->mr, 0, 64));
	CHECK_OK(post_send(qp, 2, host->mr, 64, 64));
	for (int good = 0; good < 2;)
		good += poll_one(host->side.cq).qp_num == ffv_qp_num(qp);
	CHECK_OK(ffv_destroy_qp(qp));
}

/* Somebody listens who answers some, hangs up on others, and does not read the rest; listener -1: not any more. */
static inline void stranger_is_heard(int listener)
{
	static int kept[16];
	static unsigned next;
	int fd;

	while (listener >= 0 && (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
		if (kept[next % 16])
			close(kept[next % 16]);
		kept[next++ % 16] = fd;
		if (draw(2))
			send(fd, "answer", 6, MSG_NOSIGNAL);
	}
	for (unsigned i = 0; listener < 0 && i < 16; i++)
		if (kept[i])
			close(kept[i]);
}

/* The container is on the segment, and so is the router. */
static inline struct ffv_qp *stranger_group_of(struct host *host)
{
	static const struct ffv_gid group = { .raw = { 0xff, 0x0e } };
	struct ffv_qp *member = side_qp(&host->side, host->side.cq, FFV_QPT_UD, NULL, 4);

	CHECK_OK(ffv_attach_mcast(member, &group, 0));
	ffv_router_announce(host->router, STRANGER_TENANT, 0); /* nobody confirms it */
	return member;
}

static inline void stranger_group_to_rts(struct ffv_qp *member)
{
	struct ffv_qp_attr rtr = { .qp_state = FFV_QPS_RTR }, rts = { .qp_state = FFV_QPS_RTS };

	qp_to_init(member);
	CHECK_OK(ffv_modify_qp(member, &rtr, FFV_QP_STATE));
	CHECK_OK(ffv_modify_qp(member, &rts, FFV_QP_STATE | FFV_QP_SQ_PSN));
}

/* The container sends to its group. */
static inline void stranger_group_is_told(struct host *host, struct ffv_qp *member, uint32_t length)
{
	struct ffv_ah_attr to = { .is_global = 1, .port_num = 1, .grh = { .sgid_index = 1, .hop_limit = 4 } };
	uint8_t group[16] = { 0xff, 0x0e };
	struct ffv_sge sge;
	struct ffv_send_wr wr = send_wr(1, FFV_WR_SEND, &sge, host->mr, 0, length);

	memcpy(&to.grh.dgid_subnet_prefix_be, group, 8);
	memcpy(&to.grh.dgid_interface_id_be, group + 8, 8);
	CHECK_OK(ffv_create_ah(host->side.pd, &to, &wr.wr.ud.ah));
	wr.wr.ud.remote_qpn = 0xffffff;
	wr.wr.ud.remote_qkey = PAIR_QKEY;
	CHECK_OK(ffv_post_send(member, &wr, NULL));
	CHECK_OK(ffv_destroy_ah(wr.wr.ud.ah));
}

#endif

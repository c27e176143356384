/* What another router may send, at random: valid frames, frames bent in a field, and noise. The router under test drops
 * the connection or answers; it neither crashes nor harms its container. Under the address sanitizer this is a test. */
#include <errno.h>
#include <poll.h>

#include "hosts.h"
#include "shm/nodedir.h"
#include "wire/frame.h"

#define ROUNDS 1500
#define FRAMES 200
#define LISTENED_PORT 7471
#define TENANT 7

static unsigned state;
static uint32_t position;       /* in what was sent over this connection */

static unsigned draw(unsigned below)
{
	state = state * 1664525u + 1013904223u;
	return (state >> 8) % below;
}

static const uint8_t kinds[] = { FFV_FRAME_OPEN, FFV_FRAME_OPEN, FFV_FRAME_MESSAGE, FFV_FRAME_MESSAGE, FFV_FRAME_LARGE,
				 FFV_FRAME_DATA, FFV_FRAME_REQUEST, FFV_FRAME_DATAGRAM, FFV_FRAME_CLOSE, FFV_FRAME_ACK,
				 FFV_FRAME_CREDIT, FFV_FRAME_RESULT, FFV_FRAME_WAITS, FFV_FRAME_GONE,
				 FFV_FRAME_CALL, FFV_FRAME_TELL, FFV_FRAME_HANG_UP, FFV_FRAME_TOLD, FFV_FRAME_HUNG_UP,
				 FFV_FRAME_BROADCAST, FFV_FRAME_BROADCAST, FFV_FRAME_INTEREST, FFV_FRAME_INTEREST_SEEN, FFV_FRAME_SEEN };
static const uint8_t opcodes[] = { FFV_WR_SEND, FFV_WR_RDMA_WRITE, FFV_WR_RDMA_WRITE_WITH_IMM, FFV_WR_SEND_WITH_INV,
				   FFV_WR_RDMA_READ, FFV_WR_ATOMIC_FETCH_AND_ADD, FFV_WR_ATOMIC_CMP_AND_SWP, FFV_WR_ATOMIC_WRITE, FFV_WR_FLUSH };

static void fill_payload(struct ffv_frame *frame, uint8_t *payload, const struct host *host)
{
	struct ffv_frame_open open = { .from_qpn = 16 + draw(3), .to_qpn = ffv_qp_num(host->qp) + draw(2), .mtu_bytes = 4096,
				       .type = (uint8_t)(draw(8) ? FFV_QPT_RC : draw(256)), .timeout = 8,
				       .retry_cnt = (uint8_t)draw(8), .rnr_retry = (uint8_t)draw(7), .max_rd_atomic = 4 };
	struct ffv_frame_address to = { .from_qpn = 16 + draw(5), .to_qpn = ffv_qp_num(host->qp), .qkey = PAIR_QKEY };
	struct ffv_frame_service service = { .port_space = 0x106, .port = (uint16_t)(draw(2) ? LISTENED_PORT : draw(65536)) };
	struct ffv_frame_segment head = { .kind = (uint8_t)draw(3), .src_qpn = 16, .qkey = PAIR_QKEY, .dgid = { 0xff, 0x0e } };
	struct ffv_frame_gone gone = { .qpn_first = draw(4) ? 0 : draw(1u << 25), .died = draw(2) };
	uint8_t stranger[16] = { [10] = 0xff, 0xff, 10, 0, 9, 1 };

	memcpy(open.from_gid, stranger, 16);
	memcpy(open.to_gid, host->gid.raw, 16);
	memcpy(to.from_gid, stranger, 16);
	memcpy(to.to_gid, host->gid.raw, 16);
	memcpy(gone.gid, stranger, 16);
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

/* A frame that passes the checks of form, mostly. */
static size_t make(uint8_t *out, const struct host *host)
{
	struct ffv_frame frame = { .magic = FFV_FRAME_MAGIC, .kind = kinds[draw(sizeof kinds)], .pair = draw(3),
				   .incarnation = draw(2), .position = draw(4), .opcode = opcodes[draw(sizeof opcodes)],
				   .flags = (uint8_t)draw(256), .address = (uintptr_t)host->mr->addr + draw(8192),
				   .rkey = draw(4) ? host->mr->rkey : draw(1u << 30), .status = (uint8_t)draw(24) };
	uint8_t *payload = out + sizeof frame;

	frame.length_bytes = draw(2000);
	if (frame.kind == FFV_FRAME_OPEN)
		frame.payload_bytes = sizeof(struct ffv_frame_open);
	else if (frame.kind == FFV_FRAME_GONE)
		frame.payload_bytes = sizeof(struct ffv_frame_gone);
	else if (frame.kind == FFV_FRAME_DATAGRAM)
		frame.payload_bytes = frame.length_bytes + (uint32_t)sizeof(struct ffv_frame_address);
	else if (frame.kind == FFV_FRAME_MESSAGE)
		frame.payload_bytes = frame.length_bytes;
	else if (frame.kind == FFV_FRAME_BROADCAST)
		frame.length_bytes = draw(9100), frame.payload_bytes = frame.length_bytes + (uint32_t)sizeof(struct ffv_frame_segment);
	else if (frame.kind == FFV_FRAME_INTEREST)
		frame.address = TENANT;
	else if (frame.kind == FFV_FRAME_CALL)
		frame.payload_bytes = (uint32_t)sizeof(struct ffv_frame_service) + 1 + draw(600);
	else if (frame.kind == FFV_FRAME_TELL || frame.kind == FFV_FRAME_TOLD)
		frame.payload_bytes = 1 + draw(600);
	else if (frame.kind == FFV_FRAME_LARGE)
		frame.length_bytes = FFV_EAGER_BYTES + 1 + draw(200000);
	else if (frame.kind == FFV_FRAME_DATA || frame.kind == FFV_FRAME_RESULT)
		frame.payload_bytes = 1 + draw(4000), frame.address = draw(3) ? 0 : draw(100000);
	else if (frame.kind == FFV_FRAME_REQUEST && frame.opcode >= FFV_WR_ATOMIC_CMP_AND_SWP && draw(4))
		frame.length_bytes = 8, frame.address &= ~7ull;
	else if (frame.kind == FFV_FRAME_SEEN)
		frame.operand[0] = draw(200) * 8ull;
	memset(payload, (int)draw(256), frame.payload_bytes + 8u);
	fill_payload(&frame, payload, host);
	frame.sequence = position;
	memcpy(out, &frame, sizeof frame);
	size_t bytes = ffv_frame_bytes(frame.payload_bytes);
	for (unsigned bend = draw(40) ? 0 : 1 + draw(4); bend; bend--)
		out[draw((unsigned)bytes)] = (uint8_t)draw(256);
	memcpy(&frame, out, sizeof frame);
	if (frame.sequence == position && frame.kind < FFV_FRAME_SEEN)
		position += (uint32_t)bytes;
	return bytes;
}

/* Reads what the router answers, so that it never waits for us. False: it hung up. */
static bool drain(int socket)
{
	uint8_t sink[65536];
	ssize_t n;

	while ((n = recv(socket, sink, sizeof sink, MSG_DONTWAIT)) > 0)
		;
	return n < 0;
}

static void talk(struct host *host)
{
	static uint8_t frame[sizeof(struct ffv_frame) + FFV_FRAME_MAX_PAYLOAD + 4096];
	int sockets[2];
	uint32_t channel;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
	CHECK_OK(ffv_router_add_channel(host->router, "tcp", sockets[0], &channel));
	bool alive = true;
	position = 0;
	for (unsigned i = 0; alive && i < FRAMES; i++) {
		size_t bytes = make(frame, host), sent = 0;
		while (alive && sent < bytes) {
			ssize_t n = send(sockets[1], frame + sent, bytes - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
			sent += n > 0 ? (size_t)n : 0;
			alive = drain(sockets[1]) && (n > 0 || errno == EAGAIN);
			if (n < 0 && alive)
				poll(&(struct pollfd){ .fd = sockets[1], .events = POLLOUT | POLLIN }, 1, 100);
		}
	}
	close(sockets[1]);
	ffv_router_close_channel(host->router, channel); /* nobody comes back to it */
}

#define RTS_MASK (FFV_QP_STATE | FFV_QP_SQ_PSN | FFV_QP_TIMEOUT | FFV_QP_RETRY_CNT | FFV_QP_RNR_RETRY | FFV_QP_MAX_QP_RD_ATOMIC)

/* The container's queue pair is connected to one of the stranger's, receives, and sends. */
static void keep_connected(struct host *host)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_RTR, .path_mtu = 5, .dest_qp_num = 16, .max_dest_rd_atomic = 4,
				    .min_rnr_timer = 1, .ah_attr = ah_to(&host->side) };
	struct ffv_qp_attr rts = { .qp_state = FFV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 4 };
	struct ffv_qp_attr reset = { .qp_state = FFV_QPS_RESET };
	uint8_t stranger[16] = { [10] = 0xff, 0xff, 10, 0, 9, 1 };

	if (ffv_qp_state(host->qp) == FFV_QPS_ERR)
		CHECK_OK(ffv_modify_qp(host->qp, &reset, FFV_QP_STATE));
	if (ffv_qp_state(host->qp) == FFV_QPS_RESET) {
		memcpy(&attr.ah_attr.grh.dgid_subnet_prefix_be, stranger, 8);
		memcpy(&attr.ah_attr.grh.dgid_interface_id_be, stranger + 8, 8);
		qp_to_init(host->qp);
		CHECK_OK(ffv_modify_qp(host->qp, &attr, FFV_QP_STATE | FFV_QP_AV | FFV_QP_PATH_MTU | FFV_QP_DEST_QPN |
				       FFV_QP_RQ_PSN | FFV_QP_MAX_DEST_RD_ATOMIC | FFV_QP_MIN_RNR_TIMER));
		/* What the stranger says may have put it into the error state meanwhile: then the next round begins again. */
		if (ffv_modify_qp(host->qp, &rts, RTS_MASK))
			CHECK_EQ(ffv_qp_state(host->qp), FFV_QPS_ERR);
	}
	while (!post_recv(host->qp, 1, host->mr, 4096, 4096))
		;
	for (unsigned i = 0; i < 4 && !post_send(host->qp, 1, host->mr, 0, 64 + draw(60000)); i++)
		;
	for (struct ffv_wc wc; ffv_poll_cq(host->side.cq, 1, &wc) > 0;)
		;
}

/* Somebody listens who answers some, hangs up on others, and does not read the rest. */
static void serve_calls(int listener)
{
	static int kept[16];
	static unsigned next;
	int fd;

	while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
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
static struct ffv_qp *join_group(struct host *host)
{
	static const struct ffv_gid group = { .raw = { 0xff, 0x0e } };
	struct ffv_qp *member = side_qp(&host->side, host->side.cq, FFV_QPT_UD, NULL, 4);

	CHECK_OK(ffv_attach_mcast(member, &group, 0));
	ffv_router_announce(host->router, TENANT, 0); /* nobody confirms it */
	return member;
}

/* The container still does what it is told: by a queue pair that is connected to itself. */
static void check_container(struct host *host)
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

int main(void)
{
	struct host *host = &hosts[1];
	char name[FFV_NODEDIR_NAME_BYTES];
	struct ffv_nodedir *dir;
	int listener;

	state = test_seed();
	hosts_open();
	CHECK_OK(ffv_nodedir_open(host->dir, &dir));
	ffv_nodedir_write_service(name, 'g', host->gid.raw, 0x106, LISTENED_PORT);
	CHECK_OK(ffv_nodedir_claim_name(dir, name, &listener));
	host->qp = side_qp(&host->side, host->side.cq, FFV_QPT_RC, NULL, 64);
	struct ffv_qp *member = join_group(host);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct ffv_router_event event;
		keep_connected(host);
		talk(host);
		serve_calls(listener);
		while (ffv_router_next_event(host->router, &event))
			;
		if (round % 50 == 0)
			check_container(host);
	}
	check_container(host);
	CHECK_OK(ffv_detach_mcast(member, &(struct ffv_gid){ .raw = { 0xff, 0x0e } }, 0));
	CHECK_OK(ffv_destroy_qp(member));
	CHECK_OK(ffv_destroy_qp(host->qp));
	host->qp = NULL;
	ffv_nodedir_release_name(dir, name, listener);
	ffv_nodedir_close(dir);
	serve_calls(-1);
	hosts_close();
	return 0;
}

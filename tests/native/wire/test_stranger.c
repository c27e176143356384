/* A router that breaks the rules in ways that have done harm, and one that speaks for others: what is refused, and that
 * nothing else suffers. The stranger's end of the channel is a socket of ours. */
#include <errno.h>
#include <poll.h>

#include "cm/wire.h"
#include "shm/nodedir.h"
#include "stranger.h"

static inline unsigned draw(unsigned below)
{
	return below - 1; /* chance plays no part here */
}

static struct host *const victim = &hosts[1];
static int line;                  /* the stranger's end */
static uint32_t channel;
static uint32_t said;             /* bytes of frames over it */
static uint32_t heard_broadcasts; /* that were heard over any */
static uint32_t heard_data;       /* DATA frames */

static void say_frame(struct ffv_frame frame, const void *payload, uint32_t length)
{
	uint8_t bytes[512] = { 0 };

	frame.magic = FFV_FRAME_MAGIC;
	frame.payload_bytes = length;
	frame.sequence = said;
	memcpy(bytes, &frame, sizeof frame);
	if (length)
		memcpy(bytes + sizeof frame, payload, length);
	CHECK_EQ(send(line, bytes, ffv_frame_bytes(length), MSG_NOSIGNAL), ffv_frame_bytes(length));
	said += (uint32_t)ffv_frame_bytes(length);
}

static void say(uint8_t kind, uint32_t pair, uint32_t incarnation, uint8_t opcode, const void *payload, uint32_t length)
{
	struct ffv_frame frame = { .kind = kind, .pair = pair, .incarnation = incarnation, .opcode = opcode };

	frame.length_bytes = kind == FFV_FRAME_MESSAGE ? length
			     : kind == FFV_FRAME_DATAGRAM ? length - (uint32_t)sizeof(struct ffv_frame_address) : 0;
	say_frame(frame, payload, length);
}

/* The next frame of that kind which the router sends. */
static struct ffv_frame hear(uint8_t kind)
{
	struct ffv_frame frame;
	uint8_t payload[FFV_FRAME_MAX_PAYLOAD + 8];

	do {
		CHECK_EQ(recv(line, &frame, sizeof frame, MSG_WAITALL), sizeof frame);
		size_t rest = ffv_frame_bytes(frame.payload_bytes) - sizeof frame;
		CHECK(!rest || recv(line, payload, rest, MSG_WAITALL) == (ssize_t)rest);
		heard_broadcasts += frame.kind == FFV_FRAME_BROADCAST;
		heard_data += frame.kind == FFV_FRAME_DATA;
	} while (frame.kind != kind);
	return frame;
}

static struct ffv_router_counters counters(void)
{
	struct ffv_router_counters found;

	CHECK_OK(ffv_router_query(victim->router, &found));
	return found;
}

static void connect_stranger(void)
{
	struct timeval patience = { .tv_sec = 60 };
	int sockets[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	CHECK_OK(ffv_router_add_channel(victim->router, "tcp", sockets[0], &channel));
	line = sockets[1];
	CHECK_EQ(setsockopt(line, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
	said = 0;
}

/* Until the stranger's context is reached by that channel; UINT32_MAX: by none. */
static void wait_for_proxy(uint32_t by)
{
	uint64_t deadline_ns = ffv_clock_ns() + PAIR_HANG_NS;
	uint32_t found;

	for (;; usleep(1000)) {
		if (!ffv_router_is_proxy(victim->router, stranger_gid, STRANGER_QPN, &found))
			found = UINT32_MAX;
		if (found == by)
			return;
		CHECK(ffv_clock_ns() < deadline_ns);
	}
}

static void disconnect_stranger(void)
{
	uint64_t deadline_ns = ffv_clock_ns() + PAIR_HANG_NS;
	struct ffv_channel_counters unused;
	struct ffv_router_event event;

	ffv_router_close_channel(victim->router, channel);
	while (!ffv_router_query_channel(victim->router, channel, &unused)) {
		usleep(1000);
		CHECK(ffv_clock_ns() < deadline_ns);
	}
	wait_for_proxy(UINT32_MAX);
	while (ffv_router_next_event(victim->router, &event))
		;
	close(line);
}

static struct ffv_frame_open open_from(const uint8_t gid[16])
{
	struct ffv_frame_open open = { .from_qpn = STRANGER_QPN, .to_qpn = ffv_qp_num(victim->qp), .mtu_bytes = 4096,
				       .type = FFV_QPT_RC, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 4 };

	memcpy(open.from_gid, gid, 16);
	memcpy(open.to_gid, victim->gid.raw, 16);
	return open;
}

/* A context is looked for while its host tells that the one before it has ended: it is found all the same. */
static void test_reached_amid_ends(void)
{
	struct ffv_frame_gone gone = { .qpn_first = 0, .died = 1 };

	connect_stranger();
	memcpy(gone.gid, stranger_gid, 16);
	for (int n = 0; n < 50; n++) {
		say(FFV_FRAME_GONE, 0, 0, 0, &gone, sizeof gone);
		CHECK_OK(ffv_router_reach(victim->router, stranger_gid, STRANGER_QPN, channel));
		say(FFV_FRAME_GONE, 0, 0, 0, &gone, sizeof gone);
		wait_for_proxy(UINT32_MAX);
	}
	disconnect_stranger();
	CHECK_FAIL(ffv_router_reach(victim->router, stranger_gid, STRANGER_QPN, channel), EHOSTUNREACH, "not connected");
}

/* The same queue pair by two numbers, one after the other: the first one leads nowhere any more, also when it is gone. */
static void test_two_numbers(void)
{
	struct ffv_frame_open open = open_from(stranger_gid);
	struct ffv_frame_gone gone = { .qpn_first = 0, .died = 1 };

	connect_stranger();
	memcpy(gone.gid, stranger_gid, 16);
	for (uint32_t number = 0; number < 2; number++)
		say(FFV_FRAME_OPEN, number, 1, 0, &open, sizeof open);
	say(FFV_FRAME_MESSAGE, 0, 1, FFV_WR_SEND, "first", 5);
	CHECK_EQ(hear(FFV_FRAME_ACK).status, FFV_WC_RETRY_EXC_ERR);
	say(FFV_FRAME_GONE, 0, 0, 0, &gone, sizeof gone);
	wait_for_proxy(UINT32_MAX);
	for (uint32_t number = 0; number < 2; number++) {
		say(FFV_FRAME_MESSAGE, number, 1, FFV_WR_SEND, "later", 5);
		struct ffv_frame answer = hear(FFV_FRAME_ACK);
		CHECK_EQ(answer.pair, number);
		CHECK_EQ(answer.status, FFV_WC_RETRY_EXC_ERR);
	}
	disconnect_stranger();
}

/* What belongs to a queue pair of another channel is not answered by this one, nor closed, nor declared gone. */
static void test_handles_of_others(void)
{
	struct ffv_frame_gone gone = { .died = 1 };
	struct ffv_wc wc;

	hosts_connect(FFV_QPT_RC);
	CHECK_OK(post_send(victim->qp, 1, victim->mr, 0, 64)); /* nobody receives yet */
	connect_stranger();
	memcpy(gone.gid, hosts[0].gid.raw, 16);
	for (uint32_t number = 0; number < 4; number++) {
		for (uint32_t incarnation = 0; incarnation < 4; incarnation++) {
			say(FFV_FRAME_ACK, number, incarnation, FFV_WR_SEND, NULL, 0);
			say(FFV_FRAME_CLOSE, number, incarnation, 0, NULL, 0);
		}
		say(FFV_FRAME_HUNG_UP, number, 0, 0, NULL, 0);
	}
	say(FFV_FRAME_GONE, 0, 0, 0, &gone, sizeof gone);
	say(FFV_FRAME_MESSAGE, 0, 1, FFV_WR_SEND, "probe", 5);
	CHECK_EQ(hear(FFV_FRAME_ACK).status, FFV_WC_RETRY_EXC_ERR); /* everything before it has been read */
	CHECK_EQ(ffv_poll_cq(victim->side.cq, 1, &wc), 0);
	CHECK_OK(post_recv(hosts[0].qp, 2, hosts[0].mr, 0, 64));
	CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).wr_id, 2);
	CHECK_EQ(poll_status(victim->side.cq, FFV_WC_SUCCESS).wr_id, 1);
	disconnect_stranger();
	hosts_disconnect();
}

/* Where a READ is to put its bytes is not to be had by giving credit for it. */
static void test_credit_for_a_read(void)
{
	struct ffv_frame_open open = open_from(stranger_gid);
	struct ffv_sge sge;
	struct ffv_send_wr wr = send_wr(1, FFV_WR_RDMA_READ, &sge, victim->mr, 0, 4096);

	victim->qp = side_qp(&victim->side, victim->side.cq, FFV_QPT_RC, NULL, 64);
	wr.wr.rdma.remote_addr = 4096, wr.wr.rdma.rkey = 256;
	stranger_connects(victim);
	open.to_qpn = ffv_qp_num(victim->qp);
	connect_stranger();
	say(FFV_FRAME_OPEN, 0, 1, 0, &open, sizeof open);
	wait_for_proxy(channel);
	CHECK_OK(ffv_post_send(victim->qp, &wr, NULL));
	struct ffv_frame credit = hear(FFV_FRAME_REQUEST);
	credit.kind = FFV_FRAME_CREDIT, credit.opcode = FFV_WR_SEND;
	credit.address = credit.length_bytes;
	credit.payload_bytes = 0;
	say_frame(credit, NULL, 0);
	for (int i = 0; i < 2; i++) { /* the second one is answered after the pair's turn */
		say(FFV_FRAME_MESSAGE, 1, 1, FFV_WR_SEND, "probe", 5);
		CHECK_EQ(hear(FFV_FRAME_ACK).pair, 1);
	}
	CHECK_EQ(heard_data, 0);
	disconnect_stranger();
	CHECK_OK(ffv_destroy_qp(victim->qp));
	victim->qp = NULL;
}

/* What is meant for a container of a third host is not passed on. */
static void test_no_relay(void)
{
	struct ffv_frame_open open;
	struct ffv_wc wc;

	hosts_connect(FFV_QPT_RC); /* the victim's host has a proxy for the other's container */
	CHECK_OK(post_recv(hosts[0].qp, 1, hosts[0].mr, 0, 64));
	connect_stranger();
	open = open_from(stranger_gid);
	memcpy(open.to_gid, hosts[0].gid.raw, 16);
	open.to_qpn = ffv_qp_num(hosts[0].qp);
	say(FFV_FRAME_OPEN, 0, 1, 0, &open, sizeof open);
	say(FFV_FRAME_MESSAGE, 0, 1, FFV_WR_SEND, "relay", 5);
	CHECK_EQ(hear(FFV_FRAME_ACK).status, FFV_WC_RETRY_EXC_ERR);
	CHECK_EQ(ffv_poll_cq(hosts[0].side.cq, 1, &wc), 0);
	disconnect_stranger();
	CHECK_OK(post_send(victim->qp, 2, victim->mr, 0, 64));
	CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).wr_id, 1);
	poll_status(victim->side.cq, FFV_WC_SUCCESS);
	hosts_disconnect();
}

static void send_datagram(struct host *from, const struct host *to, uint32_t length)
{
	struct ffv_ah_attr attr = ah_to(&to->side);
	struct ffv_sge sge;
	struct ffv_send_wr wr = send_wr(1, FFV_WR_SEND, &sge, from->mr, 0, length);

	CHECK_OK(ffv_create_ah(from->side.pd, &attr, &wr.wr.ud.ah));
	wr.wr.ud.remote_qpn = ffv_qp_num(to->qp);
	wr.wr.ud.remote_qkey = PAIR_QKEY;
	CHECK_OK(ffv_post_send(from->qp, &wr, NULL));
	poll_status(from->side.cq, FFV_WC_SUCCESS);
	CHECK_OK(ffv_destroy_ah(wr.wr.ud.ah));
}

static void test_no_relay_of_datagrams(void)
{
	uint8_t payload[sizeof(struct ffv_frame_address) + 8] = { 0 };
	struct ffv_frame_address to = { .from_qpn = STRANGER_QPN, .qkey = PAIR_QKEY };

	hosts_reach(FFV_QPT_UD);
	for (int i = 0; i < 2; i++) {
		qp_to_init(hosts[i].qp);
		qp_to_rtr(hosts[i].qp, &hosts[!i].side, 0);
		qp_to_rts(hosts[i].qp);
		CHECK_OK(post_recv(hosts[i].qp, 1, hosts[i].mr, 0, 4096));
	}
	send_datagram(victim, &hosts[0], 100); /* the way is there */
	CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).byte_len, 140);
	CHECK_OK(post_recv(hosts[0].qp, 2, hosts[0].mr, 0, 4096));
	connect_stranger();
	memcpy(to.from_gid, stranger_gid, 16);
	for (int i = 0; i < 2; i++) { /* to the other host's, and, behind it, to the victim's */
		memcpy(to.to_gid, hosts[i].gid.raw, 16);
		to.to_qpn = ffv_qp_num(hosts[i].qp);
		memcpy(payload, &to, sizeof to);
		say(FFV_FRAME_DATAGRAM, 0, 0, FFV_WR_SEND, payload, sizeof payload);
	}
	CHECK_EQ(poll_status(victim->side.cq, FFV_WC_SUCCESS).byte_len, 48);
	send_datagram(victim, &hosts[0], 200);
	CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).byte_len, 240);
	disconnect_stranger();
	hosts_disconnect();
}

static void wait_for_claim_of(const uint8_t gid[16])
{
	struct ffv_router_event event = { 0 };

	while (event.kind != FFV_ROUTER_CLAIMED)
		if (!ffv_router_next_event(victim->router, &event))
			poll(&(struct pollfd){ .fd = ffv_router_event_fd(victim->router), .events = POLLIN }, 1, 100);
	CHECK_EQ(event.channel, channel);
	CHECK(!memcmp(event.gid, gid, 16));
}

static void wait_for_claim(void)
{
	wait_for_claim_of(stranger_gid);
}

/* Who speaks for a context waits for the control plane's word, and for nothing else if that is no. */
static void test_not_its_own(void)
{
	struct ffv_frame_open open = open_from(stranger_gid);
	uint64_t refused = counters().claims_refused;

	connect_stranger();
	say(FFV_FRAME_OPEN, 0, 1, 0, &open, sizeof open);
	say(FFV_FRAME_MESSAGE, 0, 1, FFV_WR_SEND, "waits", 5);
	wait_for_claim();
	say(FFV_FRAME_MESSAGE, 1, 1, FFV_WR_SEND, "probe", 5);
	CHECK_EQ(hear(FFV_FRAME_ACK).pair, 1); /* the other one waits */
	wait_for_proxy(UINT32_MAX);
	CHECK_OK(ffv_router_owner(victim->router, stranger_gid, channel, 0));
	struct ffv_frame answer = hear(FFV_FRAME_ACK);
	CHECK_EQ(answer.pair, 0);
	CHECK_EQ(answer.status, FFV_WC_RETRY_EXC_ERR);
	CHECK_EQ(counters().claims_refused, refused + 1);
	disconnect_stranger();
}

/* Of one channel no more than so many claims wait; the rest is refused at once. */
static void test_many_claims(void)
{
	connect_stranger();
	for (uint32_t i = 0; i < 65; i++) {
		uint8_t gid[16] = { [10] = 0xff, 0xff, 10, 9, 9, (uint8_t)i };
		struct ffv_frame_open open = open_from(gid);
		say(FFV_FRAME_OPEN, i, 1, 0, &open, sizeof open);
		say(FFV_FRAME_MESSAGE, i, 1, FFV_WR_SEND, "waits", 5);
	}
	CHECK_EQ(hear(FFV_FRAME_ACK).pair, 64);
	disconnect_stranger();
}

/* The owner is believed; and when the address is another host's, that one, and the first one no more. */
static void test_owners(void)
{
	struct ffv_frame_open open;
	int first_line;
	uint32_t first_channel, first_said;

	victim->qp = side_qp(&victim->side, victim->side.cq, FFV_QPT_RC, NULL, 64);
	stranger_connects(victim);
	CHECK_OK(post_recv(victim->qp, 1, victim->mr, 0, 64));
	CHECK_OK(post_recv(victim->qp, 2, victim->mr, 0, 64));
	open = open_from(stranger_gid);
	connect_stranger();
	say(FFV_FRAME_OPEN, 0, 1, 0, &open, sizeof open);
	say(FFV_FRAME_MESSAGE, 0, 1, FFV_WR_SEND, "mine!", 5);
	wait_for_claim();
	CHECK_OK(ffv_router_owner(victim->router, stranger_gid, channel, 1));
	CHECK_EQ(hear(FFV_FRAME_ACK).status, FFV_WC_SUCCESS);
	poll_status(victim->side.cq, FFV_WC_SUCCESS);
	wait_for_proxy(channel);
	first_line = line, first_channel = channel, first_said = said;

	connect_stranger();
	say(FFV_FRAME_OPEN, 0, 1, 0, &open, sizeof open);
	say(FFV_FRAME_MESSAGE, 0, 1, FFV_WR_SEND, "moved", 5);
	wait_for_claim();
	wait_for_proxy(first_channel);
	CHECK_OK(ffv_router_owner(victim->router, stranger_gid, channel, 1));
	wait_for_proxy(channel);
	poll_status(victim->side.cq, FFV_WC_WR_FLUSH_ERR); /* the connection to the first one has ended */
	CHECK_EQ(hear(FFV_FRAME_ACK).status, FFV_WC_RETRY_EXC_ERR); /* and the queue pair of the other is not connected to this one */
	disconnect_stranger();
	line = first_line, channel = first_channel, said = first_said;
	say(FFV_FRAME_MESSAGE, 0, 1, FFV_WR_SEND, "still", 5);
	CHECK_EQ(hear(FFV_FRAME_ACK).status, FFV_WC_RETRY_EXC_ERR);
	disconnect_stranger();
	CHECK_OK(ffv_destroy_qp(victim->qp));
	victim->qp = NULL;
}

static void say_broadcast_of(const uint8_t gid[16], uint32_t length)
{
	struct ffv_frame_segment head = { .kind = FFV_FRAME_MULTICAST, .src_qpn = STRANGER_QPN, .qkey = PAIR_QKEY,
					  .dgid = { 0xff, 0x0e } };
	uint8_t payload[sizeof head + 64] = { 0 };

	memcpy(head.sgid, gid, 16);
	memcpy(payload, &head, sizeof head);
	say_frame((struct ffv_frame){ .kind = FFV_FRAME_BROADCAST, .length_bytes = length }, payload,
		  (uint32_t)sizeof head + length);
}

static void say_broadcast(uint32_t length)
{
	say_broadcast_of(stranger_gid, length);
}

/* Everything that the stranger said before has been looked at. */
static void wait_until_read(void)
{
	say(FFV_FRAME_MESSAGE, 0, 1, FFV_WR_SEND, "probe", 5);
	hear(FFV_FRAME_ACK);
}

/* What is broadcast passes neither way to a host that is of another tenant than it says; to others it does. */
static void test_tenant_of_the_segment(void)
{
	struct ffv_frame interest = { .kind = FFV_FRAME_INTEREST, .position = 1, .address = STRANGER_TENANT,
				      .operand = { UINT64_MAX, 1 } };
	struct ffv_qp *members[2] = { stranger_group_of(&hosts[0]), stranger_group_of(victim) };

	for (int i = 0; i < 2; i++) {
		stranger_group_to_rts(members[i]);
		for (uint32_t n = 0; n < 3; n++)
			CHECK_OK(post_recv(members[i], n, hosts[i].mr, 0, 4096));
	}
	CHECK_OK(ffv_router_set_tenant(victim->router, victim->channel, STRANGER_TENANT));
	CHECK_OK(ffv_router_announce(hosts[0].router, STRANGER_TENANT, 60000));
	connect_stranger();
	CHECK_OK(ffv_router_set_tenant(victim->router, channel, STRANGER_TENANT + 1));
	say_frame(interest, NULL, 0);
	hear(FFV_FRAME_INTEREST_SEEN);
	stranger_group_is_told(victim, members[1], 100);
	CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).byte_len, 140);
	for (int i = 0; i < 2; i++)
		poll_status(victim->side.cq, FFV_WC_SUCCESS); /* sent, and come round */
	say_broadcast(24);
	wait_until_read();
	CHECK_EQ(heard_broadcasts, 0);

	CHECK_OK(ffv_router_set_tenant(victim->router, channel, STRANGER_TENANT));
	say_frame(interest, NULL, 0);
	hear(FFV_FRAME_INTEREST_SEEN);
	say_broadcast(48);
	wait_for_claim();
	CHECK_OK(ffv_router_owner(victim->router, stranger_gid, channel, 1));
	CHECK_EQ(poll_status(victim->side.cq, FFV_WC_SUCCESS).byte_len, 88);
	stranger_group_is_told(victim, members[1], 60);
	CHECK_EQ(hear(FFV_FRAME_BROADCAST).length_bytes, 60);
	for (int i = 0; i < 2; i++)
		poll_status(victim->side.cq, FFV_WC_SUCCESS);
	CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).byte_len, 100);
	disconnect_stranger();
	for (int i = 0; i < 2; i++) {
		CHECK_OK(ffv_detach_mcast(members[i], &(struct ffv_gid){ .raw = { 0xff, 0x0e } }, 0));
		CHECK_OK(ffv_destroy_qp(members[i]));
	}
}

/* Who sends to a group in the name of an address waits for the control plane's word: what is another host's is dropped, and
 * what has moved there is asked about anew. */
static void test_senders_to_groups(void)
{
	static const uint8_t link_local[16] = { 0xfe, 0x80, [8] = 0x02, 0, 0x5e, 0xfe, 10, 0, 9, 1 }; /* the stranger's */
	struct ffv_qp *member = stranger_group_of(victim);
	uint64_t refused = counters().claims_refused, dropped = counters().datagrams_dropped;
	struct ffv_wc wc;

	stranger_group_to_rts(member);
	for (uint32_t n = 0; n < 4; n++)
		CHECK_OK(post_recv(member, n, victim->mr, 0, 4096));
	connect_stranger();
	CHECK_OK(ffv_router_set_tenant(victim->router, channel, STRANGER_TENANT));
	say_frame((struct ffv_frame){ .kind = FFV_FRAME_INTEREST, .position = 1, .address = STRANGER_TENANT }, NULL, 0);
	hear(FFV_FRAME_INTEREST_SEEN);
	for (uint32_t n = 0; n < 2; n++)
		say_broadcast_of(hosts[0].gid.raw, 8);
	wait_for_claim_of(hosts[0].gid.raw);
	CHECK_OK(ffv_router_owner(victim->router, hosts[0].gid.raw, channel, 0));
	while (counters().datagrams_dropped < dropped + 2)
		usleep(1000);
	CHECK_EQ(counters().claims_refused, refused + 1);

	say_broadcast(16);
	say_broadcast_of(link_local, 24); /* the same by its other name */
	wait_for_claim();
	wait_until_read();
	CHECK_EQ(ffv_poll_cq(victim->side.cq, 1, &wc), 0);
	CHECK_OK(ffv_router_owner(victim->router, stranger_gid, channel, 1));
	CHECK_EQ(poll_status(victim->side.cq, FFV_WC_SUCCESS).byte_len, 56);
	CHECK_EQ(poll_status(victim->side.cq, FFV_WC_SUCCESS).byte_len, 64);
	say_broadcast(32);
	CHECK_EQ(poll_status(victim->side.cq, FFV_WC_SUCCESS).byte_len, 72);

	CHECK_OK(ffv_router_owner(victim->router, stranger_gid, victim->channel, 1));
	wait_until_read(); /* the loop has been round since */
	say_broadcast(40);
	wait_for_claim();
	disconnect_stranger();
	CHECK_EQ(ffv_poll_cq(victim->side.cq, 1, &wc), 0);
	CHECK_OK(ffv_detach_mcast(member, &(struct ffv_gid){ .raw = { 0xff, 0x0e } }, 0));
	CHECK_OK(ffv_destroy_qp(member));
}

static void say_request(uint32_t number, const uint8_t gid[16], const uint8_t source[16])
{
	struct ffv_frame_service service = { .port_space = 0x106, .port = STRANGER_PORT };
	struct ffv_cm_message request = { .kind = FFV_CM_REQ, .qp_type = FFV_QPT_RC, .src = { .family = AF_INET, .port = number },
					  .dst = { .family = AF_INET, .port = STRANGER_PORT } };
	uint8_t payload[sizeof service + sizeof request];

	ffv_cm_seal(&request);
	memcpy(service.address, victim->gid.raw, 16);
	memcpy(request.gid, gid, 16);
	memcpy(request.src.address, source, 16);
	memcpy(request.dst.address, victim->gid.raw, 16);
	memcpy(payload, &service, sizeof service);
	memcpy(payload + sizeof service, &request, sizeof request);
	say(FFV_FRAME_CALL, number, 1, 0, payload, sizeof payload);
}

static void wait_readable(int fd)
{
	CHECK_EQ(poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 60000), 1);
}

/* The same of who calls a listener: nothing reaches it in another's name, be that the GID or the address that programs see. */
static void test_callers(void)
{
	uint64_t refused = counters().claims_refused;
	char name[FFV_NODEDIR_NAME_BYTES], word[8];
	struct ffv_nodedir *dir;
	struct ffv_cm_message request;
	int listener;

	CHECK_OK(ffv_nodedir_open(victim->dir, &dir));
	ffv_nodedir_write_service(name, 'g', victim->gid.raw, 0x106, STRANGER_PORT);
	CHECK_OK(ffv_nodedir_claim_name(dir, name, &listener));
	connect_stranger();
	say_request(1, hosts[0].gid.raw, hosts[0].gid.raw);
	say(FFV_FRAME_TELL, 1, 1, 0, "more", 4);
	wait_for_claim_of(hosts[0].gid.raw);
	CHECK_OK(ffv_router_owner(victim->router, hosts[0].gid.raw, channel, 0));
	struct ffv_frame end = hear(FFV_FRAME_HUNG_UP);
	CHECK_EQ(end.pair, 1);
	CHECK_EQ(end.status, EACCES);
	CHECK_EQ(counters().claims_refused, refused + 1);

	say_request(2, stranger_gid, hosts[0].gid.raw);
	say(FFV_FRAME_TELL, 2, 1, 0, "more", 4);
	wait_for_claim();
	wait_until_read();
	CHECK_EQ(poll(&(struct pollfd){ .fd = listener, .events = POLLIN }, 1, 0), 0);
	CHECK_OK(ffv_router_owner(victim->router, stranger_gid, channel, 1));
	wait_readable(listener);
	int caller = accept(listener, NULL, NULL);
	CHECK(caller >= 0);
	wait_readable(caller);
	CHECK_EQ(ffv_cm_receive(caller, &request), 1);
	CHECK(!memcmp(request.gid, stranger_gid, 16));
	CHECK(!memcmp(request.src.address, stranger_gid, 16));
	CHECK_EQ(request.src.port, 2);
	wait_readable(caller);
	CHECK_EQ(recv(caller, word, sizeof word, 0), 4); /* in order */
	close(caller);
	CHECK_EQ(hear(FFV_FRAME_HUNG_UP).pair, 2);
	disconnect_stranger();
	ffv_nodedir_release_name(dir, name, listener);
	ffv_nodedir_close(dir);
}

int main(void)
{
	hosts_open();
	victim->qp = side_qp(&victim->side, victim->side.cq, FFV_QPT_RC, NULL, 64);
	test_reached_amid_ends();
	test_two_numbers();
	hosts_disconnect();
	test_handles_of_others();
	test_credit_for_a_read();
	test_no_relay();
	test_no_relay_of_datagrams();
	ffv_router_check_owners(victim->router);
	victim->qp = side_qp(&victim->side, victim->side.cq, FFV_QPT_RC, NULL, 64);
	test_not_its_own();
	test_many_claims();
	test_tenant_of_the_segment();
	test_senders_to_groups();
	test_callers();
	hosts_disconnect();
	test_owners();
	stranger_check_container(victim);
	CHECK_EQ(counters().channels, 1);
	hosts_close();
	return 0;
}

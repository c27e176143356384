/* Raw packets and flow steering: which rules take which frames, in which order, and what is refused. */
#include <errno.h>

#include "frames.h"
#include "pair.h"

#define DEPTH 64u
#define ROOM 16384u

/* A raw packet queue pair with a buffer; receives complete in side->cq, sends in a queue of their own. */
struct raw { struct ffv_qp *qp; struct ffv_cq *send_cq; struct ffv_mr *mr; };

static struct raw raw_open(struct side *side)
{
	struct raw raw;

	CHECK_OK(ffv_create_cq(side->ctx, DEPTH, NULL, NULL, 0, &raw.send_cq));
	struct ffv_qp_init_attr attr = { .send_cq = raw.send_cq, .recv_cq = side->cq, .qp_type = FFV_QPT_RAW_PACKET,
					 .cap = { DEPTH, DEPTH, 4, 4, 64 } };
	CHECK_OK(ffv_create_qp(side->pd, &attr, &raw.qp));
	CHECK_OK(ffv_alloc_mr(side->pd, 2 * ROOM, PAIR_ACCESS, &raw.mr));
	struct ffv_qp_attr init = { .qp_state = FFV_QPS_INIT, .port_num = 1 }, rtr = { .qp_state = FFV_QPS_RTR },
			   rts = { .qp_state = FFV_QPS_RTS };
	CHECK_OK(ffv_modify_qp(raw.qp, &init, FFV_QP_STATE | FFV_QP_PORT));
	CHECK_OK(ffv_modify_qp(raw.qp, &rtr, FFV_QP_STATE));
	CHECK_OK(ffv_modify_qp(raw.qp, &rts, FFV_QP_STATE));
	return raw;
}

static void raw_close(struct raw *raw)
{
	CHECK_OK(ffv_destroy_qp(raw->qp));
	CHECK_OK(ffv_destroy_cq(raw->send_cq));
	CHECK_OK(ffv_dereg_mr(raw->mr));
}

static void raw_receive(struct raw *raw, uint64_t wr_id)
{
	CHECK_OK(post_recv(raw->qp, wr_id, raw->mr, ROOM, ROOM));
}

static uint32_t raw_send(struct raw *raw, const struct frame *frame, uint32_t flags)
{
	struct ffv_sge sge;

	memcpy(raw->mr->addr, frame->bytes, frame->length);
	struct ffv_send_wr wr = send_wr(1, FFV_WR_SEND, &sge, raw->mr, 0, frame->length);
	wr.send_flags |= flags;
	CHECK_OK(ffv_post_send(raw->qp, &wr, NULL));
	return poll_one(raw->send_cq).status;
}

/* A flow with up to three specifications. */
struct rule {
	struct ffv_flow_attr attr;
	uint8_t specs[256];
};

static struct rule rule_make(uint32_t type, uint16_t priority, uint32_t flags)
{
	return (struct rule){ .attr = { .type = type, .priority = priority, .flags = flags, .port = 1,
					.size = sizeof(struct ffv_flow_attr) } };
}

static void rule_add(struct rule *rule, const void *spec, uint16_t size)
{
	memcpy((uint8_t *)rule + rule->attr.size, spec, size);
	rule->attr.size = (uint16_t)(rule->attr.size + size);
	rule->attr.num_of_specs++;
}

static void rule_add_udp(struct rule *rule, uint16_t dst_port)
{
	struct ffv_flow_spec_tcp_udp udp = { .type = FFV_FLOW_SPEC_UDP, .size = sizeof udp,
					     .val.dst_port_be = htons(dst_port), .mask.dst_port_be = 0xffff };

	rule_add(rule, &udp, sizeof udp);
}

static struct ffv_flow *steer(struct raw *raw, const struct rule *rule)
{
	struct ffv_flow *flow;

	CHECK_OK(ffv_create_flow(raw->qp, &rule->attr, &flow));
	return flow;
}

static struct frame udp_frame(uint16_t dst_port, uint32_t payload)
{
	return frame_make((struct frame_of){ .family = AF_INET, .src_ip = "1.1.1.1", .dst_ip = "2.2.2.2", .protocol = 17,
					     .src_port = 1234, .dst_port = dst_port, .ttl = 64, .payload_bytes = payload });
}

/* ---- what a specification takes ------------------------------------------------------------------------------------------- */

static struct frame_of v4(void)
{
	return (struct frame_of){ .family = AF_INET, .src_ip = "1.1.1.1", .dst_ip = "2.2.2.2", .protocol = 17, .src_port = 10,
				  .dst_port = 20, .tos = 4, .ttl = 5, .payload_bytes = 30 };
}

static struct frame_of v6(void)
{
	return (struct frame_of){ .family = AF_INET6, .src_ip = "a::1", .dst_ip = "b::2", .protocol = 6, .src_port = 10,
				  .dst_port = 20, .tos = 0x21, .ttl = 5, .flow_label = 0x12345, .payload_bytes = 30 };
}

static struct frame_of tagged(void)
{
	struct frame_of of = v4();

	of.vlan_tag = 0x2004;
	return of;
}

#define CASE(spec_type, frame, change, spec_code, ...)                                                     \
	do {                                                                                               \
		struct spec_type spec = { .type = (spec_code), .size = sizeof spec, __VA_ARGS__ };         \
		struct rule rule = rule_make(FFV_FLOW_ATTR_NORMAL, 0, 0);                                  \
		struct frame_of yes = frame(), no = frame();                                               \
		no.change;                                                                                 \
		rule_add(&rule, &spec, sizeof spec);                                                       \
		takes(a, b, &rule, &yes, &no);                                                             \
	} while (0)

static void takes(struct raw *a, struct raw *b, const struct rule *rule, const struct frame_of *yes,
		  const struct frame_of *no)
{
	struct ffv_flow *flow = steer(b, rule);
	struct frame wanted = frame_make(*yes), other = frame_make(*no);

	raw_receive(b, 7);
	CHECK_EQ(raw_send(a, &other, 0), FFV_WC_SUCCESS);
	CHECK_EQ(raw_send(a, &wanted, 0), FFV_WC_SUCCESS);
	struct ffv_wc wc = poll_status(b->qp->recv_cq, FFV_WC_SUCCESS);
	CHECK_EQ(wc.wr_id, 7);
	CHECK_EQ(wc.opcode, FFV_WC_RECV);
	CHECK_EQ(wc.qp_num, ffv_qp_num(b->qp));
	CHECK_EQ(wc.byte_len, wanted.length);
	CHECK_EQ(wc.wc_flags, 0); /* its checksums are wrong */
	CHECK(!memcmp((uint8_t *)b->mr->addr + ROOM, wanted.bytes, wanted.length));
	CHECK_OK(ffv_destroy_flow(flow));
}

static void every_field_counts(struct raw *a, struct raw *b)
{
	CASE(ffv_flow_spec_eth, v4, dst_mac = "\x01\x50\x56\x19\x20\xa8", FFV_FLOW_SPEC_ETH,
	     .val.dst_mac = { 1, 0x50, 0x56, 0x19, 0x20, 0xa7 }, .mask.dst_mac = { 255, 255, 255, 255, 255, 255 });
	CASE(ffv_flow_spec_eth, v4, src_mac = "\x25\x8a\x07\xa5\x28\xc8", FFV_FLOW_SPEC_ETH, .val.src_mac = { 0x24 },
	     .mask.src_mac = { 0xff });
	CASE(ffv_flow_spec_eth, v4, family = 0, FFV_FLOW_SPEC_ETH, .val.ether_type_be = htons(0x800),
	     .mask.ether_type_be = 0xffff);
	CASE(ffv_flow_spec_eth, tagged, vlan_tag = 0x2003, FFV_FLOW_SPEC_ETH, .val.vlan_tag_be = htons(0xf004),
	     .mask.vlan_tag_be = htons(0xfff));
	CASE(ffv_flow_spec_eth, tagged, vlan_tag = 0, FFV_FLOW_SPEC_ETH, .val.vlan_tag_be = 0,
	     .mask.vlan_tag_be = htons(0x8000));
	CASE(ffv_flow_spec_ipv4, v4, src_ip = "1.1.2.1", FFV_FLOW_SPEC_IPV4, .val.src_ip_be = htonl(0x01010100),
	     .mask.src_ip_be = htonl(0xffffff00));
	CASE(ffv_flow_spec_ipv4, v4, dst_ip = "2.2.2.3", FFV_FLOW_SPEC_IPV4, .val.dst_ip_be = htonl(0x02020202),
	     .mask.dst_ip_be = 0xffffffff);
	CASE(ffv_flow_spec_ipv4, v4, family = 0, FFV_FLOW_SPEC_IPV4, .mask.dst_ip_be = 0);
	CASE(ffv_flow_spec_ipv4_ext, v4, src_ip = "3.3.3.3", FFV_FLOW_SPEC_IPV4_EXT, .val.src_ip_be = htonl(0x01010101),
	     .mask.src_ip_be = 0xffffffff);
	CASE(ffv_flow_spec_ipv4_ext, v4, protocol = 6, FFV_FLOW_SPEC_IPV4_EXT, .val.proto = 17, .mask.proto = 255);
	CASE(ffv_flow_spec_ipv4_ext, v4, tos = 8, FFV_FLOW_SPEC_IPV4_EXT, .val.tos = 4, .mask.tos = 4);
	CASE(ffv_flow_spec_ipv4_ext, v4, ttl = 6, FFV_FLOW_SPEC_IPV4_EXT, .val.ttl = 5, .mask.ttl = 255);
	CASE(ffv_flow_spec_ipv4_ext, v4, fragment = 0x2000, FFV_FLOW_SPEC_IPV4_EXT, .val.flags = 0, .mask.flags = 4);
	CASE(ffv_flow_spec_ipv6, v6, src_ip = "a::2", FFV_FLOW_SPEC_IPV6, .val.src_ip = { 0, 10, [15] = 1 },
	     .mask.src_ip = { 0, 255, [15] = 255 });
	CASE(ffv_flow_spec_ipv6, v6, dst_ip = "c::2", FFV_FLOW_SPEC_IPV6, .val.dst_ip = { 0, 11 }, .mask.dst_ip = { 0, 255 });
	CASE(ffv_flow_spec_ipv6, v6, flow_label = 0x22345, FFV_FLOW_SPEC_IPV6, .val.flow_label_be = htonl(0x12345),
	     .mask.flow_label_be = htonl(0xfffff));
	CASE(ffv_flow_spec_ipv6, v6, protocol = 17, FFV_FLOW_SPEC_IPV6, .val.next_hdr = 6, .mask.next_hdr = 255);
	CASE(ffv_flow_spec_ipv6, v6, tos = 0x22, FFV_FLOW_SPEC_IPV6, .val.traffic_class = 0x21, .mask.traffic_class = 255);
	CASE(ffv_flow_spec_ipv6, v6, ttl = 4, FFV_FLOW_SPEC_IPV6, .val.hop_limit = 5, .mask.hop_limit = 255);
	CASE(ffv_flow_spec_tcp_udp, v4, dst_port = 21, FFV_FLOW_SPEC_UDP, .val.dst_port_be = htons(20),
	     .mask.dst_port_be = 0xffff);
	CASE(ffv_flow_spec_tcp_udp, v6, src_port = 11, FFV_FLOW_SPEC_TCP, .val.src_port_be = htons(10),
	     .mask.src_port_be = 0xffff);
	CASE(ffv_flow_spec_tcp_udp, v6, protocol = 17, FFV_FLOW_SPEC_TCP, .mask.src_port_be = 0);
	CASE(ffv_flow_spec_tcp_udp, v4, fragment = 3, FFV_FLOW_SPEC_UDP, .mask.src_port_be = 0);
}

/* ---- order among rules -------------------------------------------------------------------------------------------------------- */

/* Sends a frame; exactly those queue pairs get it. */
static void goes_to(struct raw *from, const struct frame *frame, struct raw *to[], unsigned wanted, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		raw_receive(to[i], i);
	CHECK_EQ(raw_send(from, frame, 0), FFV_WC_SUCCESS);
	unsigned got = 0;
	for (unsigned left = wanted; left; left &= left - 1)
		got |= 1u << poll_status(to[0]->qp->recv_cq, FFV_WC_SUCCESS).wr_id;
	CHECK_EQ(got, wanted);
	/* The rest would have come first, or comes before the next; which is seen by what is left to receive. */
	for (unsigned i = 0; i < count; i++)
		CHECK_EQ(ffv_rq_depth(&to[i]->qp->ref.rq), wanted & 1u << i ? 0 : 1);
	for (unsigned i = 0; i < count; i++) {
		struct ffv_qp_attr reset = { .qp_state = FFV_QPS_RESET }, init = { .qp_state = FFV_QPS_INIT, .port_num = 1 },
				   rtr = { .qp_state = FFV_QPS_RTR };
		CHECK_OK(ffv_modify_qp(to[i]->qp, &reset, FFV_QP_STATE));
		CHECK_OK(ffv_modify_qp(to[i]->qp, &init, FFV_QP_STATE | FFV_QP_PORT));
		CHECK_OK(ffv_modify_qp(to[i]->qp, &rtr, FFV_QP_STATE));
	}
}

static void rules_are_asked_in_order(struct side *side, struct raw *from)
{
	struct raw raws[4];
	struct raw *to[4];
	struct ffv_flow *flow[6];
	struct frame frame = udp_frame(20, 30), other = udp_frame(21, 30), unicast = udp_frame(21, 30);

	for (int i = 0; i < 4; i++) {
		raws[i] = raw_open(side);
		to[i] = &raws[i];
	}
	unicast.bytes[0] = 2;
	struct rule first = rule_make(FFV_FLOW_ATTR_NORMAL, 5, 0), second = rule_make(FFV_FLOW_ATTR_NORMAL, 4, 0),
		    any = rule_make(FFV_FLOW_ATTR_NORMAL, 9, 0), leaves = rule_make(FFV_FLOW_ATTR_NORMAL, 1,
										    FFV_FLOW_ATTR_FLAGS_DONT_TRAP),
		    sniff = rule_make(FFV_FLOW_ATTR_SNIFFER, 0, 0), rest = rule_make(FFV_FLOW_ATTR_ALL_DEFAULT, 0, 0),
		    groups = rule_make(FFV_FLOW_ATTR_MC_DEFAULT, 0, 0);
	rule_add_udp(&first, 20);
	rule_add_udp(&second, 20);
	rule_add_udp(&leaves, 20);
	flow[0] = steer(to[0], &first);
	goes_to(from, &frame, to, 1, 4);
	goes_to(from, &other, to, 0, 4);
	flow[1] = steer(to[1], &second); /* of higher priority */
	goes_to(from, &frame, to, 2, 4);
	flow[2] = steer(to[2], &second); /* the same again: both */
	flow[3] = steer(to[2], &second); /* but one copy a queue pair */
	goes_to(from, &frame, to, 2 | 4, 4);
	flow[4] = steer(to[0], &leaves);
	goes_to(from, &frame, to, 1 | 2 | 4, 4);
	flow[5] = steer(to[3], &any);
	goes_to(from, &frame, to, 1 | 2 | 4, 4);
	goes_to(from, &other, to, 8, 4);
	for (int i = 0; i < 6; i++)
		CHECK_OK(ffv_destroy_flow(flow[i]));
	flow[0] = steer(to[0], &first);
	flow[1] = steer(to[1], &rest);
	flow[2] = steer(to[2], &groups);
	flow[3] = steer(to[3], &sniff);
	goes_to(from, &frame, to, 1 | 8, 4);
	goes_to(from, &other, to, 2 | 4 | 8, 4);
	goes_to(from, &unicast, to, 2 | 8, 4);
	CHECK_EQ(ffv_destroy_qp(to[0]->qp), -EBUSY);
	for (int i = 0; i < 4; i++)
		CHECK_OK(ffv_destroy_flow(flow[i]));
	goes_to(from, &frame, to, 0, 4);
	for (int i = 0; i < 4; i++)
		raw_close(to[i]);
}

/* ---- lengths, checksums, opcodes ------------------------------------------------------------------------------------------------- */

static void lengths_have_limits(struct side *side, struct raw *b)
{
	struct rule any = rule_make(FFV_FLOW_ATTR_NORMAL, 0, 0);
	struct ffv_flow *flow = steer(b, &any);
	static const uint32_t good[] = { 14, 60, 1514, 9018 }, bad[] = { 0, 13, 9019, ROOM };
	struct ffv_sge sge;

	for (unsigned i = 0; i < 4; i++) {
		struct raw a = raw_open(side);
		struct ffv_send_wr wr = send_wr(1, FFV_WR_SEND, &sge, a.mr, 0, good[i]);
		memset(a.mr->addr, 0x5a, ROOM);
		raw_receive(b, i);
		CHECK_OK(ffv_post_send(a.qp, &wr, NULL));
		poll_status(a.send_cq, FFV_WC_SUCCESS);
		CHECK_EQ(poll_status(b->qp->recv_cq, FFV_WC_SUCCESS).byte_len, good[i]);
		sge.length = bad[i];
		CHECK_OK(ffv_post_send(a.qp, &wr, NULL));
		CHECK_EQ(poll_one(a.send_cq).status, FFV_WC_LOC_LEN_ERR);
		CHECK_EQ(ffv_qp_state(a.qp), FFV_QPS_ERR);
		raw_close(&a);
	}
	struct raw a = raw_open(side), c = raw_open(side);
	struct ffv_flow *second = steer(&c, &any);
	struct frame frame = udp_frame(20, 500);
	CHECK_OK(post_recv(c.qp, 3, c.mr, 0, 100)); /* too small a buffer is its owner's own mistake */
	raw_receive(b, 4);
	CHECK_EQ(raw_send(&a, &frame, 0), FFV_WC_SUCCESS);
	CHECK_EQ(poll_one(c.qp->recv_cq).status, FFV_WC_LOC_LEN_ERR);
	CHECK_EQ(poll_one(b->qp->recv_cq).status, FFV_WC_SUCCESS);
	CHECK_EQ(ffv_qp_state(c.qp), FFV_QPS_ERR);
	struct ffv_send_wr wr = send_wr(1, FFV_WR_SEND_WITH_IMM, &sge, a.mr, 0, 64);
	CHECK_EQ(ffv_post_send(a.qp, &wr, NULL), -EINVAL);
	wr.opcode = FFV_WR_RDMA_WRITE;
	CHECK_EQ(ffv_post_send(a.qp, &wr, NULL), -EINVAL);
	CHECK_OK(ffv_destroy_flow(second));
	CHECK_OK(ffv_destroy_flow(flow));
	raw_close(&c);
	raw_close(&a);
}

static void checksums_are_filled_in_and_seen(struct raw *a, struct raw *b)
{
	struct rule any = rule_make(FFV_FLOW_ATTR_NORMAL, 0, 0);
	struct ffv_flow *flow = steer(b, &any);
	struct frame frame = udp_frame(20, 33);

	raw_receive(b, 1);
	CHECK_EQ(raw_send(a, &frame, FFV_SEND_IP_CSUM), FFV_WC_SUCCESS);
	CHECK_EQ(poll_status(b->qp->recv_cq, FFV_WC_SUCCESS).wc_flags, FFV_WC_IP_CSUM_OK);
	CHECK(!memcmp(a->mr->addr, frame.bytes, frame.length)); /* the sender's copy is left alone */
	CHECK(memcmp((uint8_t *)b->mr->addr + ROOM, frame.bytes, frame.length));
	CHECK_OK(ffv_destroy_flow(flow));
}

/* ---- what is refused ------------------------------------------------------------------------------------------------------------- */

static void bad_flows_are_refused(struct side *side, struct raw *raw)
{
	struct ffv_flow *flow;
	struct ffv_qp *ud = side_qp(side, side->cq, FFV_QPT_UD, NULL, 1), *rc = side_qp(side, side->cq, FFV_QPT_RC, NULL, 1);
	struct rule good = rule_make(FFV_FLOW_ATTR_NORMAL, 0, 0), rule;

	rule_add_udp(&good, 1);
#define REFUSED(err, ...)                                                       \
	do {                                                                    \
		rule = good;                                                    \
		__VA_ARGS__;                                                    \
		CHECK_EQ(ffv_create_flow(raw->qp, &rule.attr, &flow), -(err)); \
	} while (0)
	REFUSED(EINVAL, rule.attr.comp_mask = 1);
	REFUSED(EINVAL, rule.attr.type = 4);
	REFUSED(EINVAL, rule.attr.port = 0);
	REFUSED(EINVAL, rule.attr.port = 2);
	REFUSED(EINVAL, rule.attr.flags = 8);
	REFUSED(EOPNOTSUPP, rule.attr.flags = FFV_FLOW_ATTR_FLAGS_EGRESS);
	REFUSED(EINVAL, rule.attr.type = FFV_FLOW_ATTR_SNIFFER);
	REFUSED(EINVAL, rule.attr.size = 19);
	REFUSED(EINVAL, rule.attr.size = 0);
	REFUSED(EINVAL, rule.attr.size -= 1);
	REFUSED(EINVAL, rule.attr.size += 1);
	REFUSED(EINVAL, rule.attr.num_of_specs = 0);
	REFUSED(EINVAL, rule.attr.num_of_specs = 2);
	REFUSED(EINVAL, rule.attr.num_of_specs = 255);
	REFUSED(EINVAL, rule.specs[4] = 0);    /* the specification's size */
	REFUSED(EINVAL, rule.specs[4] = 200);
	REFUSED(EOPNOTSUPP, rule.specs[1] = 1); /* inner headers */
	REFUSED(EOPNOTSUPP, rule.specs[1] = 0x10);
	REFUSED(EOPNOTSUPP, rule.specs[0] = 0x34);
	CHECK_EQ(ffv_create_flow(ud, &good.attr, &flow), -EOPNOTSUPP);
	CHECK_EQ(ffv_create_flow(rc, &good.attr, &flow), -EINVAL);
	CHECK_EQ(ffv_create_flow(NULL, &good.attr, &flow), -EINVAL);
	CHECK_EQ(ffv_create_flow(raw->qp, NULL, &flow), -EINVAL);
	CHECK_EQ(ffv_destroy_flow(NULL), -EINVAL);
	CHECK_EQ(ffv_load_relaxed(&side->ctx->view.arena->wants_raw), 0);
	CHECK_OK(ffv_destroy_qp(ud));
	CHECK_OK(ffv_destroy_qp(rc));
}

/* Attributes of any content in memory of exactly the size that they say: refused or taken, nothing else. */
static void random_flows_are_survived(struct raw *raw, unsigned seed)
{
	srandom(seed);
	for (int n = 0; n < 20000; n++) {
		static const uint16_t sizes[] = { 40, 24, 32, 88, 16 };
		static const uint32_t types[] = { 0x20, 0x30, 0x32, 0x31, 0x41 };
		uint16_t size = (uint16_t)(sizeof(struct ffv_flow_attr) + (unsigned long)random() % 200);
		struct ffv_flow_attr *attr = malloc(size);
		uint8_t *bytes = (uint8_t *)attr;
		struct ffv_flow *flow;
		CHECK(attr);
		for (uint16_t i = 0; i < size; i++)
			bytes[i] = (uint8_t)random();
		*attr = (struct ffv_flow_attr){ .size = size, .port = 1, .num_of_specs = (uint8_t)(random() % 4),
						.type = (uint32_t)random() % 5, .flags = random() & 2 };
		for (size_t at = sizeof *attr, i; at + 8 <= size; at += sizes[i]) {
			i = (size_t)random() % 5;
			memcpy(bytes + at, &types[i], 4);
			memcpy(bytes + at + 4, &sizes[random() % 8 ? i : 0], 2);
		}
		if (ffv_create_flow(raw->qp, attr, &flow) == 0)
			CHECK_OK(ffv_destroy_flow(flow));
		free(attr);
	}
}

int main(void)
{
	unsigned seed = test_seed();
	struct side one, two;

	opened_directory();
	side_open(&one, 256);
	side_open(&two, 256);
	struct raw a = raw_open(&one), b = raw_open(&two), own = raw_open(&one);
	every_field_counts(&a, &b);
	every_field_counts(&a, &own); /* what a port sends comes back to it */
	every_field_counts(&a, &a);
	rules_are_asked_in_order(&two, &a);
	rules_are_asked_in_order(&one, &a);
	lengths_have_limits(&one, &b);
	checksums_are_filled_in_and_seen(&a, &b);
	bad_flows_are_refused(&two, &b);
	random_flows_are_survived(&b, seed);
	raw_close(&own);
	raw_close(&b);
	raw_close(&a);
	side_close(&two);
	side_close(&one);
	scratch_remove();
	return 0;
}

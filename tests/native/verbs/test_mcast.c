/* Multicast groups: fan-out to every queue pair of every context of the directory, loop-back, what is lost. */
#include <errno.h>

#include "pair.h"

#define DEPTH 32u
#define GRH 40u
#define MULTICAST_QPN 0xffffffu

static const struct ffv_gid ipv4_group = { { [10] = 0xff, 0xff, 239, 1, 2, 3 } };
static const struct ffv_gid ipv6_group = { { 0xff, 0x0e, [15] = 9 } };

/* Sends complete in a queue of their own: whether that is before or after the own datagram comes back is not said. */
static struct ffv_qp *member_with(struct side *side, uint32_t create_flags)
{
	struct ffv_qp_init_attr_ex attr = { .recv_cq = side->cq, .qp_type = FFV_QPT_UD, .pd = side->pd,
					    .cap = { DEPTH, DEPTH, 2, 2, 0 }, .create_flags = create_flags,
					    .comp_mask = FFV_QP_INIT_ATTR_PD | FFV_QP_INIT_ATTR_CREATE_FLAGS };
	struct ffv_qp *qp;

	CHECK_OK(ffv_create_cq(side->ctx, 64, NULL, NULL, 0, &attr.send_cq));
	CHECK_OK(ffv_create_qp_ex(side->ctx, &attr, &qp));
	qp_to_init(qp);
	qp_to_rtr(qp, side, 0);
	qp_to_rts(qp);
	return qp;
}

static struct ffv_qp *member(struct side *side)
{
	return member_with(side, 0);
}

static void leave(struct ffv_qp *qp)
{
	struct ffv_cq *cq = qp->send_cq;

	CHECK_OK(ffv_destroy_qp(qp));
	CHECK_OK(ffv_destroy_cq(cq));
}

static struct ffv_ah *ah_of_group(struct side *side, const struct ffv_gid *group, uint8_t sgid_index)
{
	struct ffv_ah_attr attr = { .is_global = 1, .port_num = 1, .sl = 3,
				    .grh = { .hop_limit = 7, .sgid_index = sgid_index, .flow_label = 0x54321,
					     .traffic_class = 0x1f } };
	struct ffv_ah *ah;

	memcpy(&attr.grh.dgid_subnet_prefix_be, group->raw, 8);
	memcpy(&attr.grh.dgid_interface_id_be, group->raw + 8, 8);
	CHECK_OK(ffv_create_ah(side->pd, &attr, &ah));
	return ah;
}

static void send_to(struct ffv_qp *qp, struct ffv_ah *ah, const struct ffv_mr *mr, uint32_t length, uint32_t qpn,
		    uint32_t qkey)
{
	struct ffv_sge sge;
	struct ffv_send_wr wr = send_wr(1, FFV_WR_SEND_WITH_IMM, &sge, mr, 0, length);

	wr.imm_data_be = 0x01020304;
	wr.wr.ud.ah = ah;
	wr.wr.ud.remote_qpn = qpn;
	wr.wr.ud.remote_qkey = qkey;
	CHECK_OK(ffv_post_send(qp, &wr, NULL));
}

/* The order in which two queues of one process get theirs is not said, but nothing comes to a queue after a later
 * message came to it. */
static void check_arrival(struct side *at, struct ffv_qp *to, struct ffv_qp *from, struct ffv_mr *mr, uint32_t length)
{
	struct ffv_wc wc = poll_status(at->cq, FFV_WC_SUCCESS);

	CHECK_EQ(wc.qp_num, ffv_qp_num(to));
	CHECK_EQ(wc.opcode, FFV_WC_RECV);
	CHECK_EQ(wc.byte_len, length + GRH);
	CHECK_EQ(wc.src_qp, ffv_qp_num(from));
	CHECK_EQ(wc.wc_flags, FFV_WC_GRH | FFV_WC_WITH_IMM);
	CHECK_EQ(wc.imm_data_be, 0x01020304);
	CHECK_EQ(wc.sl, 3);
	for (uint32_t i = 0; i < length; i++)
		CHECK_EQ(((uint8_t *)mr->addr)[GRH + i], (uint8_t)(i * 7 + 1));
}

static void fill(struct ffv_mr *mr)
{
	for (size_t i = 0; i < 4096; i++)
		((uint8_t *)mr->addr)[i] = (uint8_t)(i * 7 + 1);
}

static void everybody_gets_it(const struct ffv_gid *group, uint8_t sgid_index)
{
	struct side a, b, c;
	struct ffv_mr *from, *to_a, *to_b, *to_c;

	side_open(&a, 64);
	side_open(&b, 64);
	struct ffv_qp *qa = member(&a), *qb = member(&b);
	CHECK_OK(ffv_alloc_mr(a.pd, 4096, PAIR_ACCESS, &from));
	CHECK_OK(ffv_alloc_mr(a.pd, 8192, PAIR_ACCESS, &to_a));
	CHECK_OK(ffv_alloc_mr(b.pd, 8192, PAIR_ACCESS, &to_b));
	fill(from);
	struct ffv_ah *ah = ah_of_group(&a, group, sgid_index);
	/* Nobody is there: lost. */
	send_to(qa, ah, from, 100, MULTICAST_QPN, PAIR_QKEY);
	CHECK_EQ(poll_status(qa->send_cq, FFV_WC_SUCCESS).opcode, FFV_WC_SEND);
	CHECK_OK(ffv_attach_mcast(qa, group, 0));
	CHECK_OK(ffv_attach_mcast(qb, group, 0));
	CHECK_OK(ffv_attach_mcast(qb, group, 0)); /* once is enough */
	/* A context that comes later finds them, and they it. */
	side_open(&c, 64);
	CHECK_OK(ffv_alloc_mr(c.pd, 8192, PAIR_ACCESS, &to_c));
	struct ffv_qp *qc = member(&c);
	CHECK_OK(ffv_attach_mcast(qc, group, 0));
	static const uint32_t lengths[] = { 0, 1, 8, 63, 64, 1000, 4096 };
	for (unsigned i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		CHECK_OK(post_recv(qa, 2, to_a, 0, 8192));
		CHECK_OK(post_recv(qb, 2, to_b, 0, 8192));
		CHECK_OK(post_recv(qc, 2, to_c, 0, 8192));
		send_to(qa, ah, from, lengths[i], MULTICAST_QPN, PAIR_QKEY);
		CHECK_EQ(poll_status(qa->send_cq, FFV_WC_SUCCESS).opcode, FFV_WC_SEND);
		check_arrival(&a, qa, qa, to_a, lengths[i]);
		check_arrival(&b, qb, qa, to_b, lengths[i]);
		check_arrival(&c, qc, qa, to_c, lengths[i]);
	}
	/* The header names the group and the sender, and can be answered. */
	struct ffv_wc wc = { .wc_flags = FFV_WC_GRH };
	struct ffv_ah_attr answer;
	struct ffv_gid sender;
	CHECK_OK(ffv_init_ah_from_wc(b.ctx, 1, &wc, to_b->addr, &answer));
	CHECK_OK(ffv_query_gid(a.ctx, 1, sgid_index, &sender));
	CHECK_EQ(memcmp(&answer.grh.dgid_subnet_prefix_be, sender.raw, 8), 0);
	CHECK_EQ(memcmp(&answer.grh.dgid_interface_id_be, sender.raw + 8, 8), 0);
	CHECK_EQ(answer.grh.hop_limit, 7);
	CHECK_EQ(answer.grh.traffic_class, 0x1f);
	CHECK_EQ(ffv_destroy_qp(qb), -EBUSY);
	CHECK_OK(ffv_detach_mcast(qb, group, 0));
	CHECK_EQ(ffv_detach_mcast(qb, group, 0), -EINVAL);
	/* Of what follows nothing comes to b, nor is lost to c. */
	CHECK_OK(post_recv(qb, 3, to_b, 0, 8192));
	CHECK_OK(post_recv(qc, 3, to_c, 0, 8192));
	send_to(qa, ah, from, 5, MULTICAST_QPN, PAIR_QKEY);
	poll_status(qa->send_cq, FFV_WC_SUCCESS);
	check_arrival(&c, qc, qa, to_c, 5);
	CHECK_OK(ffv_attach_mcast(qb, group, 0)); /* receives all that came before */
	CHECK_EQ(ffv_poll_cq(b.cq, 1, &wc), 0);
	/* Wrong Q_Key, or not the number of all: lost. */
	CHECK_OK(post_recv(qc, 4, to_c, 0, 8192));
	send_to(qa, ah, from, 6, MULTICAST_QPN, PAIR_QKEY + 1);
	send_to(qa, ah, from, 6, ffv_qp_num(qc), PAIR_QKEY);
	send_to(qa, ah, from, 7, MULTICAST_QPN, PAIR_QKEY);
	check_arrival(&c, qc, qa, to_c, 7);
	for (int i = 0; i < 3; i++)
		poll_status(qa->send_cq, FFV_WC_SUCCESS);
	CHECK_OK(ffv_destroy_ah(ah));
	CHECK_OK(ffv_detach_mcast(qa, group, 0));
	CHECK_OK(ffv_detach_mcast(qb, group, 0));
	CHECK_OK(ffv_detach_mcast(qc, group, 0));
	leave(qa);
	leave(qb);
	leave(qc);
	CHECK_OK(ffv_dereg_mr(from));
	CHECK_OK(ffv_dereg_mr(to_a));
	CHECK_OK(ffv_dereg_mr(to_b));
	CHECK_OK(ffv_dereg_mr(to_c));
	side_close(&c);
	side_close(&b);
	side_close(&a);
}

/* Several members of one context, one of which has no receive, one too small a buffer. */
static void members_do_not_disturb_each_other(void)
{
	struct side a, b;
	struct ffv_mr *from, *to, *to_last;
	struct ffv_qp *qb[4];

	side_open(&a, 64);
	side_open(&b, 64);
	struct ffv_qp *qa = member(&a);
	CHECK_OK(ffv_alloc_mr(a.pd, 4096, PAIR_ACCESS, &from));
	CHECK_OK(ffv_alloc_mr(b.pd, 8192, PAIR_ACCESS, &to));
	CHECK_OK(ffv_alloc_mr(b.pd, 8192, PAIR_ACCESS, &to_last));
	fill(from);
	for (int i = 0; i < 4; i++) {
		qb[i] = member(&b);
		CHECK_OK(ffv_attach_mcast(qb[i], &ipv4_group, 0));
	}
	struct ffv_ah *ah = ah_of_group(&a, &ipv4_group, 1);
	CHECK_OK(post_recv(qb[1], 11, to, 0, 50));
	CHECK_OK(post_recv(qb[2], 12, to, 0, 8192));
	CHECK_OK(post_recv(qb[3], 13, to_last, 0, 8192));
	send_to(qa, ah, from, 100, MULTICAST_QPN, PAIR_QKEY);
	CHECK_EQ(poll_one(b.cq).status, FFV_WC_LOC_LEN_ERR);
	check_arrival(&b, qb[2], qa, to, 100);
	check_arrival(&b, qb[3], qa, to_last, 100);
	CHECK_EQ(ffv_qp_state(qb[0]), FFV_QPS_RTS);
	CHECK_EQ(ffv_qp_state(qb[1]), FFV_QPS_ERR);
	/* A longer one than the path takes is the sender's own mistake. */
	struct ffv_sge sge;
	struct ffv_send_wr wr = send_wr(1, FFV_WR_SEND, &sge, from, 0, 4096);
	struct ffv_sge two[2] = { sge, sge };
	wr.sg_list = two;
	wr.num_sge = 2;
	wr.wr.ud = (struct ffv_wr_ud){ ah, MULTICAST_QPN, PAIR_QKEY };
	poll_status(qa->send_cq, FFV_WC_SUCCESS);
	CHECK_OK(ffv_post_send(qa, &wr, NULL));
	CHECK_EQ(poll_one(qa->send_cq).status, FFV_WC_LOC_LEN_ERR);
	CHECK_OK(ffv_destroy_ah(ah));
	for (int i = 0; i < 4; i++) {
		CHECK_OK(ffv_detach_mcast(qb[i], &ipv4_group, 0));
		leave(qb[i]);
	}
	leave(qa);
	CHECK_OK(ffv_dereg_mr(from));
	CHECK_OK(ffv_dereg_mr(to));
	CHECK_OK(ffv_dereg_mr(to_last));
	side_close(&b);
	side_close(&a);
}

static void own_datagrams_can_be_kept_out(void)
{
	struct side a;
	struct ffv_mr *mr;

	side_open(&a, 64);
	struct ffv_qp *qp = member_with(&a, FFV_QP_CREATE_BLOCK_SELF_MCAST_LB), *other = member(&a);
	CHECK_OK(ffv_alloc_mr(a.pd, 8192, PAIR_ACCESS, &mr));
	CHECK_OK(ffv_attach_mcast(qp, &ipv6_group, 0));
	CHECK_OK(ffv_attach_mcast(other, &ipv6_group, 0));
	struct ffv_ah *ah = ah_of_group(&a, &ipv6_group, 0);
	CHECK_OK(post_recv(qp, 1, mr, 0, 8192));
	CHECK_OK(post_recv(other, 2, mr, 0, 8192));
	send_to(qp, ah, mr, 10, MULTICAST_QPN, PAIR_QKEY);
	CHECK_EQ(poll_status(qp->send_cq, FFV_WC_SUCCESS).opcode, FFV_WC_SEND);
	CHECK_EQ(poll_status(a.cq, FFV_WC_SUCCESS).wr_id, 2);
	send_to(other, ah, mr, 10, MULTICAST_QPN, PAIR_QKEY);
	CHECK_EQ(poll_status(other->send_cq, FFV_WC_SUCCESS).opcode, FFV_WC_SEND);
	CHECK_EQ(poll_status(a.cq, FFV_WC_SUCCESS).wr_id, 1);
	CHECK_OK(ffv_destroy_ah(ah));
	CHECK_OK(ffv_detach_mcast(qp, &ipv6_group, 0));
	CHECK_OK(ffv_detach_mcast(other, &ipv6_group, 0));
	leave(qp);
	leave(other);
	CHECK_OK(ffv_dereg_mr(mr));
	side_close(&a);
}

static void what_cannot_be_attached_is_refused(void)
{
	struct ffv_gid unicast = { { [10] = 0xff, 0xff, 10, 0, 0, 1 } };
	struct side a;

	side_open(&a, 16);
	struct ffv_qp *rc = side_qp(&a, a.cq, FFV_QPT_RC, NULL, 1), *ud = side_qp(&a, a.cq, FFV_QPT_UD, NULL, 1);
	CHECK_EQ(ffv_attach_mcast(NULL, &ipv4_group, 0), -EINVAL);
	CHECK_EQ(ffv_attach_mcast(rc, &ipv4_group, 0), -EINVAL);
	CHECK_EQ(ffv_attach_mcast(ud, &unicast, 0), -EINVAL);
	CHECK_EQ(ffv_attach_mcast(ud, NULL, 0), -EINVAL);
	CHECK_EQ(ffv_detach_mcast(ud, &ipv4_group, 0), -EINVAL);
	CHECK_OK(ffv_destroy_qp(rc));
	CHECK_OK(ffv_destroy_qp(ud));
	side_close(&a);
}

/* What the device says it can take it takes, and no more. */
static void limits_are_those_reported(void)
{
	struct ffv_device_attr device;
	struct ffv_gid gid = ipv6_group;
	struct side a;

	side_open(&a, 16);
	CHECK_OK(ffv_query_device(a.ctx, &device));
	struct ffv_qp *qp = side_qp(&a, a.cq, FFV_QPT_UD, NULL, 1);
	for (int i = 0; i <= device.max_mcast_grp; i++) {
		gid.raw[13] = (uint8_t)(i >> 16);
		gid.raw[14] = (uint8_t)(i >> 8);
		gid.raw[15] = (uint8_t)i;
		CHECK_EQ(ffv_attach_mcast(qp, &gid, 0), i < device.max_mcast_grp ? 0 : -ENOMEM);
	}
	for (int i = 0; i < device.max_mcast_grp; i++) {
		gid.raw[13] = (uint8_t)(i >> 16);
		gid.raw[14] = (uint8_t)(i >> 8);
		gid.raw[15] = (uint8_t)i;
		CHECK_OK(ffv_detach_mcast(qp, &gid, 0));
	}
	CHECK_EQ(ffv_load_relaxed(&a.ctx->view.arena->wanted_groups), 0);
	CHECK_OK(ffv_destroy_qp(qp));
	side_close(&a);
}

int main(void)
{
	opened_directory();
	everybody_gets_it(&ipv4_group, 1);
	everybody_gets_it(&ipv6_group, 0);
	members_do_not_disturb_each_other();
	own_datagrams_can_be_kept_out();
	what_cannot_be_attached_is_refused();
	limits_are_those_reported();
	scratch_remove();
	return 0;
}

/* The segment between hosts: multicast datagrams and raw packets go to each host that wants them, once. */
#include <ffverbs/ffv_flow.h>

#include "hosts.h"

#define TENANT 7

static const struct ffv_gid group = { .raw = { 0xff, 0x0e, [15] = 9 } };
static const struct ffv_gid other_group = { .raw = { 0xff, 0x0e, [15] = 10 } };

static struct ffv_router_counters counters(int host)
{
	struct ffv_router_counters found;

	CHECK_OK(ffv_router_query(hosts[host].router, &found));
	return found;
}

static void announce(uint64_t tenant_of_second)
{
	CHECK_OK(ffv_router_announce(hosts[0].router, TENANT, 20000));
	CHECK_OK(ffv_router_announce(hosts[1].router, tenant_of_second, 20000));
}

static void bring_up(struct ffv_qp *qp)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_RTR };

	qp_to_init(qp);
	CHECK_OK(ffv_modify_qp(qp, &attr, FFV_QP_STATE));
	attr = (struct ffv_qp_attr){ .qp_state = FFV_QPS_RTS };
	CHECK_OK(ffv_modify_qp(qp, &attr, FFV_QP_STATE | FFV_QP_SQ_PSN));
}

static void send_to(const struct ffv_gid *gid, uint32_t length, unsigned seed)
{
	struct ffv_ah_attr attr = { .is_global = 1, .port_num = 1, .grh = { .sgid_index = 1, .hop_limit = 1 } };
	struct ffv_sge sge;
	struct ffv_send_wr wr = send_wr(seed, FFV_WR_SEND, &sge, hosts[0].mr, 0, length);
	struct ffv_ah *ah;

	memcpy(&attr.grh.dgid_subnet_prefix_be, gid->raw, 8);
	memcpy(&attr.grh.dgid_interface_id_be, gid->raw + 8, 8);
	CHECK_OK(ffv_create_ah(hosts[0].side.pd, &attr, &ah));
	wr.wr.ud.ah = ah;
	wr.wr.ud.remote_qpn = 0xffffff;
	wr.wr.ud.remote_qkey = PAIR_QKEY;
	hosts_fill(&hosts[0], 0, length, seed);
	CHECK_OK(ffv_post_send(hosts[0].qp, &wr, NULL));
	poll_status(hosts[0].side.cq, FFV_WC_SUCCESS);
	CHECK_OK(ffv_destroy_ah(ah));
}

static void test_multicast(void)
{
	enum { MEMBERS = 3 };
	struct ffv_qp *members[MEMBERS];

	for (int i = 0; i < 2; i++)
		bring_up(hosts[i].qp = side_qp(&hosts[i].side, hosts[i].side.cq, FFV_QPT_UD, NULL, 128));
	for (int i = 0; i < MEMBERS; i++) {
		bring_up(members[i] = side_qp(&hosts[1].side, hosts[1].side.cq, FFV_QPT_UD, NULL, 128));
		CHECK_OK(ffv_attach_mcast(members[i], &group, 0));
	}
	announce(TENANT);
	uint64_t before = counters(0).frames_sent;
	for (unsigned n = 0; n < 50; n++) {
		uint32_t length = n * 80;
		for (int i = 0; i < MEMBERS; i++)
			CHECK_OK(post_recv(members[i], n, hosts[1].mr, 65536 * (1 + (uint32_t)i), 4096 + 40));
		send_to(&group, length, n);
		send_to(&other_group, length, n); /* nobody wants it there: it stays here */
		hosts_fill(&hosts[0], 0, length, n);
		for (int i = 0; i < MEMBERS; i++)
			CHECK_EQ(poll_status(hosts[1].side.cq, FFV_WC_SUCCESS).byte_len, length + 40);
		for (int i = 0; i < MEMBERS; i++)
			hosts_check_same(0, 65536 * (1 + (uint32_t)i) + 40, length);
	}
	uint64_t sent, deadline_ns = ffv_clock_ns() + PAIR_HANG_NS; /* one copy a host, whatever the number of members */
	for (; (sent = counters(0).frames_sent - before) < 50; usleep(100)) /* the last ones may have come before they are counted */
		CHECK(ffv_clock_ns() < deadline_ns);
	CHECK(sent < 100);
	CHECK_EQ(counters(0).datagrams_dropped, 0);
	for (int i = 0; i < MEMBERS; i++) {
		CHECK_OK(ffv_detach_mcast(members[i], &group, 0));
		CHECK_OK(ffv_destroy_qp(members[i]));
	}
	announce(TENANT);
	before = counters(0).frames_sent;
	for (unsigned n = 0; n < 50; n++)
		send_to(&group, 100, n);
	announce(TENANT);
	CHECK(counters(0).frames_sent - before < 50);
}

static void test_another_tenant_hears_nothing(void)
{
	CHECK_OK(ffv_attach_mcast(hosts[1].qp, &group, 0));
	announce(TENANT + 1);
	uint64_t before = counters(0).frames_sent;
	for (unsigned n = 0; n < 50; n++)
		send_to(&group, 100, n);
	announce(TENANT + 1);
	CHECK(counters(0).frames_sent - before < 50);
	announce(TENANT);
	CHECK_OK(post_recv(hosts[1].qp, 1, hosts[1].mr, 65536, 4096 + 40));
	send_to(&group, 100, 2);
	CHECK_EQ(poll_status(hosts[1].side.cq, FFV_WC_SUCCESS).byte_len, 140);
	CHECK_OK(ffv_detach_mcast(hosts[1].qp, &group, 0));
	hosts_disconnect();
}

/* A broken connection takes its interest along; a new one brings it back. */
static void test_another_connection(void)
{
	int sockets[2];

	hosts[0].qp = side_qp(&hosts[0].side, hosts[0].side.cq, FFV_QPT_UD, NULL, 128);
	hosts[1].qp = side_qp(&hosts[1].side, hosts[1].side.cq, FFV_QPT_UD, NULL, 128);
	bring_up(hosts[0].qp);
	bring_up(hosts[1].qp);
	CHECK_OK(ffv_attach_mcast(hosts[1].qp, &group, 0));
	announce(TENANT);
	ffv_router_close_channel(hosts[0].router, hosts[0].channel);
	while (counters(0).channels || counters(1).channels)
		usleep(1000);
	announce(TENANT); /* nobody has to confirm it */
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
	for (int i = 0; i < 2; i++)
		CHECK_OK(ffv_router_add_channel(hosts[i].router, "tcp", sockets[i], &hosts[i].channel));
	announce(TENANT);
	CHECK_OK(post_recv(hosts[1].qp, 1, hosts[1].mr, 65536, 4096 + 40));
	send_to(&group, 200, 2);
	CHECK_EQ(poll_status(hosts[1].side.cq, FFV_WC_SUCCESS).byte_len, 240);
	CHECK_OK(ffv_detach_mcast(hosts[1].qp, &group, 0));
	hosts_disconnect();
}

int main(void)
{
	hosts_open();
	/* Here nobody asks the routers at router.sock: the bridges are there when the containers join. */
	for (int i = 0; i < 2; i++) {
		hosts[i].qp = side_qp(&hosts[i].side, hosts[i].side.cq, FFV_QPT_UD, NULL, 128);
		CHECK_OK(ffv_attach_mcast(hosts[i].qp, &other_group, 0));
		CHECK_OK(ffv_router_announce(hosts[i].router, TENANT, 20000));
		CHECK_OK(ffv_detach_mcast(hosts[i].qp, &other_group, 0));
	}
	hosts_disconnect();
	test_multicast();
	test_another_tenant_hears_nothing();
	test_another_connection();
	hosts_close();
	return 0;
}

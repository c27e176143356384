/* Every operation between two hosts, with both containers and both routers in one process. */
#include <errno.h>

#include "hosts.h"

static void test_send(uint32_t type)
{
	hosts_connect(type);
	for (unsigned n = 0; n < 300; n++) {
		uint32_t length = n % 40 == 39 ? 0 : (n * 37) % 4096;
		hosts_fill(&hosts[0], 0, length, n);
		CHECK_OK(post_recv(hosts[1].qp, n, hosts[1].mr, 8192, 4096));
		CHECK_OK(post_send(hosts[0].qp, n, hosts[0].mr, 0, length));
		struct ffv_wc wc = poll_status(hosts[1].side.cq, FFV_WC_SUCCESS);
		CHECK_EQ(wc.byte_len, length);
		CHECK_EQ(wc.wr_id, n);
		CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).wr_id, n);
		hosts_check_same(0, 8192, length);
	}
	hosts_disconnect();
}

/* Many at once, more than the window, the receives posted late: nothing is lost or changes its order. */
static void test_many(void)
{
	hosts_connect(FFV_QPT_RC);
	for (unsigned n = 0; n < 100; n++) {
		hosts_fill(&hosts[0], n * 1024, 1024, n);
		CHECK_OK(post_send(hosts[0].qp, n, hosts[0].mr, n * 1024, 1024));
	}
	for (unsigned n = 0; n < 100; n++)
		CHECK_OK(post_recv(hosts[1].qp, n, hosts[1].mr, n * 1024, 1024));
	for (unsigned n = 0; n < 100; n++) {
		CHECK_EQ(poll_status(hosts[1].side.cq, FFV_WC_SUCCESS).wr_id, n);
		CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).wr_id, n);
	}
	hosts_check_same(0, 0, 100 * 1024);
	hosts_disconnect();
}

static void test_rdma(void)
{
	static const uint32_t lengths[] = { 0, 1, 8, 4096, 32768, 32769, 65536, 300001, 3u << 20 };

	hosts_connect(FFV_QPT_RC);
	for (unsigned i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		uint32_t n = lengths[i];
		hosts_fill(&hosts[0], 0, n, i);
		hosts_post(FFV_WR_RDMA_WRITE, 1, 0, n, 64, 0);
		struct ffv_wc wc = poll_status(hosts[0].side.cq, FFV_WC_SUCCESS);
		CHECK_EQ(wc.opcode, FFV_WC_RDMA_WRITE);
		hosts_check_same(0, 64, n);
		hosts_fill(&hosts[1], 64, n, i + 100);
		hosts_post(FFV_WR_RDMA_READ, 2, 4u << 20, n, 64, 0);
		wc = poll_status(hosts[0].side.cq, FFV_WC_SUCCESS);
		CHECK_EQ(wc.opcode, FFV_WC_RDMA_READ);
		hosts_check_same(4u << 20, 64, n);
		CHECK_OK(post_recv(hosts[1].qp, i, hosts[1].mr, 0, 0));
		hosts_post(FFV_WR_RDMA_WRITE_WITH_IMM, 3, 4u << 20, n, 64, 0x11223344 + i);
		wc = poll_status(hosts[1].side.cq, FFV_WC_SUCCESS);
		CHECK_EQ(wc.opcode, FFV_WC_RECV_RDMA_WITH_IMM);
		CHECK_EQ(wc.imm_data_be, 0x11223344 + i);
		poll_status(hosts[0].side.cq, FFV_WC_SUCCESS);
	}
	hosts_disconnect();
}

/* Several READs at once, around the size of their pieces, with others between them that must not overtake. */
static void test_many_reads(void)
{
	static const uint32_t lengths[] = { 262144, 0, 262145, 262143, 1, 1u << 20, (1u << 20) + 1, 524288 };
	enum { READS = sizeof lengths / sizeof lengths[0] };
	struct ffv_wc wc;
	uint32_t at = 0;

	hosts_connect(FFV_QPT_RC);
	hosts_fill(&hosts[1], 0, 4u << 20, 77);
	for (unsigned i = 0; i < READS; at += lengths[i++])
		hosts_post(FFV_WR_RDMA_READ, i, (4u << 20) + at, lengths[i], at, 0);
	hosts_fill(&hosts[0], 0, 64, 78); /* written over what was read before it */
	hosts_post(FFV_WR_RDMA_WRITE, READS, 0, 64, 0, 0);
	for (unsigned i = 0; i <= READS; i++) {
		wc = poll_status(hosts[0].side.cq, FFV_WC_SUCCESS);
		CHECK_EQ(wc.wr_id, i);
	}
	hosts_check_same((4u << 20) + 64, 64, at - 64);
	hosts_check_same(0, 0, 64);
	CHECK(memcmp((uint8_t *)hosts[0].mr->addr + (4u << 20), (uint8_t *)hosts[1].mr->addr, 64) != 0);
	for (unsigned n = 0; n < 70; n++) /* more than the window, each of two pieces */
		hosts_post(FFV_WR_RDMA_READ, n, (4u << 20) + n, 262144 + 1000, n * 1000, 0);
	for (unsigned n = 0; n < 70; n++)
		CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).wr_id, n);
	hosts_check_same((4u << 20) + 69, 69000, 262144 + 1000);
	/* Beyond the end of the region, in its second piece. */
	hosts_post(FFV_WR_RDMA_READ, 1, 0, 300000, HOSTS_MEMORY - 270000, 0);
	poll_status(hosts[0].side.cq, FFV_WC_REM_ACCESS_ERR);
	hosts_disconnect();
}

static void test_large_sends(void)
{
	hosts_connect(FFV_QPT_RC);
	hosts_fill(&hosts[0], 0, 4u << 20, 5);
	for (unsigned n = 0; n < 4; n++)
		CHECK_OK(post_send(hosts[0].qp, n, hosts[0].mr, n << 20, (1u << 20) - n));
	CHECK_OK(post_send(hosts[0].qp, 4, hosts[0].mr, 0, 16));
	for (unsigned n = 0; n < 5; n++)
		CHECK_OK(post_recv(hosts[1].qp, n, hosts[1].mr, n << 20, 1u << 20));
	for (unsigned n = 0; n < 5; n++) {
		struct ffv_wc wc = poll_status(hosts[1].side.cq, FFV_WC_SUCCESS);
		CHECK_EQ(wc.byte_len, n < 4 ? (1u << 20) - n : 16);
		poll_status(hosts[0].side.cq, FFV_WC_SUCCESS);
		if (n < 4)
			hosts_check_same(n << 20, n << 20, wc.byte_len);
	}
	hosts_disconnect();
}

static uint64_t placed(int host)
{
	struct ffv_router_counters counters;

	CHECK_OK(ffv_router_query(hosts[host].router, &counters));
	return counters.bytes_placed;
}

/* Large payload is received into the memory of the container, nearly all of it; but for transports that cannot. */
static void test_placed(void)
{
	bool straight = !getenv("FFV_TEST_TRANSPORT");
	uint32_t length = 4u << 20;
	uint64_t before[2] = { placed(0), placed(1) };

	hosts_connect(FFV_QPT_RC);
	hosts_fill(&hosts[0], 0, length, 11);
	hosts_post(FFV_WR_RDMA_WRITE, 1, 0, length, 1001, 0);
	poll_status(hosts[0].side.cq, FFV_WC_SUCCESS);
	hosts_check_same(0, 1001, length);
	hosts_fill(&hosts[1], 0, length, 12);
	hosts_post(FFV_WR_RDMA_READ, 2, 999, length, 0, 0);
	poll_status(hosts[0].side.cq, FFV_WC_SUCCESS);
	hosts_check_same(999, 0, length);
	hosts_disconnect();
	for (int i = 0; i < 2; i++) {
		uint64_t deadline_ns = ffv_clock_ns() + PAIR_HANG_NS;
		while (straight && placed(i) - before[i] < length / 4 * 3ull) {
			CHECK(ffv_clock_ns() < deadline_ns);
			sched_yield();
		}
		CHECK(placed(i) - before[i] <= length);
		CHECK(straight || placed(i) == before[i]);
	}
}

static uint64_t received(int host)
{
	struct ffv_router_counters counters;

	CHECK_OK(ffv_router_query(hosts[host].router, &counters));
	return counters.bytes_received + counters.bytes_one_sided_received;
}

/* Once deregistering has returned nothing is written any more, however far the message has come. */
static void test_deregister_meanwhile(void)
{
	const uint32_t length = 2u << 20;
	uint8_t *memory = aligned_alloc(4096, length);

	CHECK(memory);
	for (unsigned n = 0; n < 12; n++) {
		struct ffv_mr *mr;
		struct ffv_sge sge;
		memset(memory, 0, length);
		CHECK_OK(ffv_reg_mr(hosts[1].side.pd, memory, length, (uintptr_t)memory, PAIR_ACCESS, &mr));
		hosts_connect(FFV_QPT_RC);
		struct ffv_send_wr wr = send_wr(n, FFV_WR_RDMA_WRITE, &sge, hosts[0].mr, 0, length);
		memset(hosts[0].mr->addr, 1, length);
		wr.wr.rdma.remote_addr = (uintptr_t)memory;
		wr.wr.rdma.rkey = mr->rkey;
		uint64_t before = received(1), deadline_ns = ffv_clock_ns() + PAIR_HANG_NS;
		CHECK_OK(ffv_post_send(hosts[0].qp, &wr, NULL));
		for (; received(1) - before < length / 16 * n; usleep(100)) /* that far it has come at least; asking holds the loop up */
			CHECK(ffv_clock_ns() < deadline_ns);
		CHECK_OK(ffv_dereg_mr(mr));
		memset(memory, 2, length);
		struct ffv_wc wc = poll_one(hosts[0].side.cq);
		if (wc.status != FFV_WC_SUCCESS)
			CHECK_EQ(wc.status, FFV_WC_REM_ACCESS_ERR);
		for (uint32_t i = 0; i < length; i++)
			CHECK_EQ(memory[i], 2);
		hosts_disconnect();
	}
	free(memory);
}

static void test_atomics(void)
{
	uint64_t *mine, *theirs;

	hosts_connect(FFV_QPT_RC);
	mine = hosts[0].mr->addr;
	theirs = hosts[1].mr->addr;
	*theirs = 40;
	for (unsigned n = 0; n < 200; n++) {
		struct ffv_sge sge;
		struct ffv_send_wr wr = send_wr(n, n % 2 ? FFV_WR_ATOMIC_CMP_AND_SWP : FFV_WR_ATOMIC_FETCH_AND_ADD, &sge,
						hosts[0].mr, 0, 8);
		wr.wr.atomic.remote_addr = (uintptr_t)theirs;
		wr.wr.atomic.rkey = hosts[1].mr->rkey;
		wr.wr.atomic.compare_add = n % 2 ? 42 : 2;
		wr.wr.atomic.swap = 40;
		CHECK_OK(ffv_post_send(hosts[0].qp, &wr, NULL));
		poll_status(hosts[0].side.cq, FFV_WC_SUCCESS);
		CHECK_EQ(*mine, n % 2 ? 42 : 40);
		CHECK_EQ(*theirs, n % 2 ? 40 : 42);
	}
	hosts_disconnect();
}

/* An error ends the queue pair; reset and connected again, it works: often, for its old receives may be being flushed when new
 * ones come. */
static void test_errors(void)
{
	struct ffv_sge sge;

	hosts_connect(FFV_QPT_RC);
	for (unsigned n = 0; n < 100; n++) {
		struct ffv_send_wr wr = send_wr(7, FFV_WR_RDMA_WRITE, &sge, hosts[0].mr, 0, 64);
		wr.wr.rdma.remote_addr = (uintptr_t)hosts[1].mr->addr;
		wr.wr.rdma.rkey = hosts[1].mr->rkey + 1;
		CHECK_OK(ffv_post_send(hosts[0].qp, &wr, NULL));
		CHECK_OK(post_send(hosts[0].qp, 8, hosts[0].mr, 0, 8));
		CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_REM_ACCESS_ERR).wr_id, 7);
		CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_WR_FLUSH_ERR).wr_id, 8);
		CHECK_EQ(ffv_qp_state(hosts[0].qp), FFV_QPS_ERR);
		CHECK_EQ(ffv_qp_state(hosts[1].qp), FFV_QPS_ERR);
		struct ffv_qp_attr reset = { .qp_state = FFV_QPS_RESET };
		for (int i = 0; i < 2; i++)
			CHECK_OK(ffv_modify_qp(hosts[i].qp, &reset, FFV_QP_STATE));
		qp_connect(hosts[0].qp, &hosts[0].side, hosts[1].qp, &hosts[1].side);
		for (int i = 0; i < 2; i++) {
			CHECK_OK(post_recv(hosts[!i].qp, 1, hosts[!i].mr, 0, 64));
			CHECK_OK(post_send(hosts[i].qp, 2, hosts[i].mr, 0, 64));
			poll_status(hosts[i].side.cq, FFV_WC_SUCCESS);
			poll_status(hosts[!i].side.cq, FFV_WC_SUCCESS);
		}
	}
	hosts_disconnect();
}

/* A local mistake is found before anything is sent. */
static void test_local_error(void)
{
	struct ffv_sge sge;

	hosts_connect(FFV_QPT_RC);
	CHECK_OK(post_recv(hosts[1].qp, 1, hosts[1].mr, 0, 64));
	CHECK_OK(post_send(hosts[0].qp, 1, hosts[0].mr, 0, 64));
	struct ffv_send_wr wr = send_wr(2, FFV_WR_SEND, &sge, hosts[0].mr, 0, 64);
	sge.lkey ^= 1;
	CHECK_OK(ffv_post_send(hosts[0].qp, &wr, NULL));
	poll_status(hosts[0].side.cq, FFV_WC_SUCCESS);
	CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_LOC_PROT_ERR).wr_id, 2);
	poll_status(hosts[1].side.cq, FFV_WC_SUCCESS);
	CHECK_EQ(ffv_qp_state(hosts[1].qp), FFV_QPS_RTS);
	hosts_disconnect();
}

static void test_datagrams(void)
{
	struct ffv_qp *qp[2];
	struct ffv_ah *ah[2];

	hosts_reach(FFV_QPT_UD);
	for (int i = 0; i < 2; i++) {
		struct ffv_ah_attr to = ah_to(&hosts[!i].side);
		qp[i] = hosts[i].qp;
		qp_to_init(qp[i]);
		qp_to_rtr(qp[i], &hosts[!i].side, 0);
		qp_to_rts(qp[i]);
		CHECK_OK(ffv_create_ah(hosts[i].side.pd, &to, &ah[i]));
	}
	for (unsigned n = 0; n < 100; n++) {
		int i = n % 2;
		struct ffv_sge sge;
		struct ffv_send_wr wr = send_wr(n, FFV_WR_SEND_WITH_IMM, &sge, hosts[i].mr, 0, n * 13);
		wr.imm_data_be = n;
		wr.wr.ud.ah = ah[i];
		wr.wr.ud.remote_qpn = ffv_qp_num(qp[!i]);
		wr.wr.ud.remote_qkey = PAIR_QKEY;
		hosts_fill(&hosts[i], 0, n * 13, n);
		CHECK_OK(post_recv(qp[!i], n, hosts[!i].mr, 8192 - 40, 4096));
		CHECK_OK(ffv_post_send(qp[i], &wr, NULL));
		poll_status(hosts[i].side.cq, FFV_WC_SUCCESS);
		struct ffv_wc wc = poll_status(hosts[!i].side.cq, FFV_WC_SUCCESS);
		CHECK_EQ(wc.byte_len, n * 13 + 40);
		CHECK_EQ(wc.imm_data_be, n);
		CHECK_EQ(wc.src_qp, ffv_qp_num(qp[i]));
		CHECK(!memcmp(hosts[i].mr->addr, (uint8_t *)hosts[!i].mr->addr + 8192, n * 13));
		const uint8_t *grh = (const uint8_t *)hosts[!i].mr->addr + 8192 - 40;
		CHECK(!memcmp(grh + 32, hosts[i].gid.raw + 12, 4) && !memcmp(grh + 36, hosts[!i].gid.raw + 12, 4));
	}
	for (int i = 0; i < 2; i++)
		CHECK_OK(ffv_destroy_ah(ah[i]));
	hosts_disconnect();
}

/* Nobody tells of the end of a queue pair of datagrams: what stands for it ends with the last container that could get some. The
 * next context of the far one's name would find its numbers taken. */
static void test_datagrams_keep_nothing(void)
{
	struct ffv_router_counters counters;
	uint64_t deadline_ns = ffv_clock_ns() + PAIR_HANG_NS;

	test_datagrams();
	CHECK_OK(ffv_dereg_mr(hosts[1].mr));
	side_close(&hosts[1].side);
	do {
		CHECK(ffv_clock_ns() < deadline_ns);
		CHECK_OK(ffv_router_query(hosts[1].router, &counters));
	} while (counters.proxies || counters.pairs);
	hosts_open_container(1);
	test_send(FFV_QPT_RC);
}

/* A receiver that never posts, with more waiting for it than a window holds, holds nobody else up: neither small messages
 * nor a large one that waits for its receive. */
static void test_nobody_is_held_up(void)
{
	struct ffv_qp *stuck[2];

	hosts_connect(FFV_QPT_RC);
	for (int i = 0; i < 2; i++) {
		stuck[i] = hosts[i].qp;
		hosts[i].qp = NULL;
	}
	for (unsigned n = 0; n < 100; n++)
		CHECK_OK(post_send(stuck[0], 1000 + n, hosts[0].mr, 0, n == 50 ? 1u << 20 : 2048));
	hosts_connect(FFV_QPT_RC);
	for (unsigned n = 0; n < 200; n++) {
		uint32_t length = n % 20 ? 512 : 200000;
		hosts_fill(&hosts[0], 1u << 20, length, n);
		CHECK_OK(post_recv(hosts[1].qp, n, hosts[1].mr, 2u << 20, 1u << 20));
		CHECK_OK(post_send(hosts[0].qp, n, hosts[0].mr, 1u << 20, length));
		CHECK_EQ(poll_status(hosts[1].side.cq, FFV_WC_SUCCESS).wr_id, n);
		CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).wr_id, n);
		hosts_check_same(1u << 20, 2u << 20, length);
	}
	hosts_disconnect();
	for (int i = 0; i < 2; i++)
		hosts[i].qp = stuck[i];
	for (unsigned n = 0; n < 100; n++) { /* what waited goes on when receives come */
		CHECK_OK(post_recv(stuck[1], n, hosts[1].mr, 0, 1u << 20));
		CHECK_EQ(poll_status(hosts[1].side.cq, FFV_WC_SUCCESS).wr_id, n);
		CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).wr_id, 1000 + n);
	}
	hosts_disconnect();
}

/* Counters of the data plane say what is open. */
static void test_counters(void)
{
	struct ffv_router_counters counters;

	hosts_connect(FFV_QPT_RC);
	CHECK_OK(post_recv(hosts[1].qp, 1, hosts[1].mr, 0, 64));
	CHECK_OK(post_send(hosts[0].qp, 1, hosts[0].mr, 0, 64));
	poll_status(hosts[0].side.cq, FFV_WC_SUCCESS);
	poll_status(hosts[1].side.cq, FFV_WC_SUCCESS);
	CHECK_OK(ffv_router_query(hosts[0].router, &counters));
	CHECK_EQ(counters.channels, 1);
	CHECK_EQ(counters.proxies, 1);
	CHECK(counters.pairs >= 1 && counters.frames_sent >= 2 && counters.bytes_sent >= 64 && !counters.datagrams_dropped);
	hosts_disconnect();
}

/* No more than the limit leaves the host, whoever sends it; what comes here is not limited by it, nor is anything later. */
static void test_rate(void)
{
	const uint32_t length = 3u << 20;
	const uint64_t rate = 20000000;
	struct ffv_router_counters counters;

	CHECK_FAIL(ffv_router_set_rate(hosts[0].router, FFV_ROUTER_MAX_RATE + 1), EINVAL, "rate");
	CHECK_OK(ffv_router_set_rate(hosts[0].router, rate));
	hosts_connect(FFV_QPT_RC);
	hosts_fill(&hosts[0], 0, length, 21);
	uint64_t began_ns = ffv_clock_ns();
	hosts_post(FFV_WR_RDMA_WRITE, 1, 0, length, 4u << 20, 0);
	for (unsigned n = 0; n < 100; n++) /* of which the first tenth fills the burst, and a piece may be ahead */
		hosts_post(FFV_WR_RDMA_WRITE, 2 + n, 0, 30000, 1u << 20, 0);
	for (unsigned n = 0; n < 101; n++)
		CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).wr_id, 1 + n);
	uint64_t sent = length + 100 * 30000ull, least_ns = (sent - rate / 50 - 200000) * 1000 / (rate / 1000000);
	CHECK(ffv_clock_ns() - began_ns >= least_ns);
	hosts_check_same(0, 4u << 20, length);
	CHECK_OK(ffv_router_query(hosts[0].router, &counters));
	CHECK(counters.rate_waits > 0);
	CHECK_OK(ffv_router_query(hosts[1].router, &counters));
	CHECK_EQ(counters.rate_waits, 0);
	CHECK_OK(ffv_router_set_rate(hosts[0].router, 0));
	hosts_post(FFV_WR_RDMA_WRITE, 200, 0, 1u << 20, 0, 0);
	CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).wr_id, 200);
	hosts_disconnect();
}

/* What waits when the channel goes ends with an error; so do the queue pairs. */
static void test_cut(void)
{
	hosts_connect(FFV_QPT_RC);
	CHECK_OK(post_send(hosts[0].qp, 1, hosts[0].mr, 0, 64)); /* no receive: it waits over there */
	ffv_router_close_channel(hosts[1].router, hosts[1].channel);
	CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_RETRY_EXC_ERR).wr_id, 1);
	CHECK_EQ(ffv_qp_state(hosts[0].qp), FFV_QPS_ERR);
	for (int i = 0; i < 2; i++) {
		struct ffv_router_event event;
		bool closed = false;
		for (uint64_t deadline_ns = ffv_clock_ns() + PAIR_HANG_NS; !closed; sched_yield()) {
			closed = ffv_router_next_event(hosts[i].router, &event) && event.kind == FFV_ROUTER_CHANNEL_CLOSED;
			CHECK(ffv_clock_ns() < deadline_ns);
		}
	}
	hosts_disconnect();
}

/* What is refused stays the caller's: its socket, and the channels that there are. */
static void test_transports(void)
{
	uint32_t channel = 0;
	char text[64] = "";

	CHECK_FAIL(ffv_router_add_channel(hosts[0].router, "pigeons", 0, &channel), EPROTONOSUPPORT, "pigeons");
	CHECK_FAIL(ffv_router_add_channel(hosts[0].router, "tcp", -1, &channel), EBADF, "channel");
	CHECK_OK(ffv_router_describe_channel(hosts[0].router, hosts[0].channel, text, sizeof text));
	CHECK_FAIL(ffv_router_describe_channel(hosts[0].router, hosts[0].channel + 1, text, sizeof text), ENOTCONN, "closed");
}

int main(void)
{
	hosts_open();
	test_transports();
	test_send(FFV_QPT_RC);
	test_send(FFV_QPT_UC);
	test_many();
	test_rdma();
	test_many_reads();
	test_large_sends();
	test_placed();
	test_deregister_meanwhile();
	test_atomics();
	test_errors();
	test_local_error();
	test_nobody_is_held_up();
	test_counters();
	test_rate();
	test_datagrams_keep_nothing();
	hosts_check_transport();
	test_cut();
	hosts_close();
	return 0;
}

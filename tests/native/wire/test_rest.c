/* Queue pairs at rest between two hosts: what was taken from them comes back when they are used, from either side. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "hosts.h"

static struct ffv_router_counters counters(int host)
{
	struct ffv_router_counters found;

	CHECK_OK(ffv_router_query(hosts[host].router, &found));
	return found;
}

static void wait_for_rest(void)
{
	const struct timespec nap = { .tv_nsec = 20000000 };

	for (uint64_t deadline_ns = ffv_clock_ns() + PAIR_HANG_NS; counters(0).pairs_warm || counters(1).pairs_warm;
	     nanosleep(&nap, NULL))
		CHECK(ffv_clock_ns() < deadline_ns);
	CHECK_EQ(counters(0).under_way, 0);
}

static void send_one(int from, uint32_t length, unsigned seed)
{
	hosts_fill(&hosts[from], 0, length, seed);
	CHECK_OK(post_recv(hosts[!from].qp, seed, hosts[!from].mr, 1u << 20, length));
	CHECK_OK(post_send(hosts[from].qp, seed, hosts[from].mr, 0, length));
	CHECK_EQ(poll_status(hosts[!from].side.cq, FFV_WC_SUCCESS).wr_id, seed);
	CHECK_EQ(poll_status(hosts[from].side.cq, FFV_WC_SUCCESS).wr_id, seed);
	hosts_check_same(from ? 1u << 20 : 0, from ? 0 : 1u << 20, length);
}

static void test_wakes(uint32_t type)
{
	hosts_connect(type);
	send_one(0, 100, 1);
	for (unsigned n = 0; n < 2; n++) {
		wait_for_rest();
		CHECK_EQ(counters(0).pairs, 1);
		send_one(n, n ? 200000 : 64, 10 + n);
	}
	hosts_disconnect();
}

/* Also those that fetch, with nobody at the other end who does anything. */
static void test_fetches(void)
{
	hosts_connect(FFV_QPT_RC);
	send_one(0, 100, 1);
	wait_for_rest();
	hosts_fill(&hosts[1], 64, 100000, 2);
	hosts_post(FFV_WR_RDMA_READ, 2, 4u << 20, 100000, 64, 0);
	CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).wr_id, 2);
	hosts_check_same(4u << 20, 64, 100000);
	hosts_disconnect();
}

/* One that waits for a receive is not at rest, however long. */
static void test_waiting_is_no_rest(void)
{
	const struct timespec nap = { .tv_nsec = 100000000 };

	hosts_connect(FFV_QPT_RC);
	CHECK_OK(post_send(hosts[0].qp, 1, hosts[0].mr, 0, 64));
	for (uint64_t deadline_ns = ffv_clock_ns() + PAIR_HANG_NS; !counters(0).under_way; sched_yield())
		CHECK(ffv_clock_ns() < deadline_ns);
	for (int i = 0; i < 30; i++) {
		nanosleep(&nap, NULL);
		CHECK_EQ(counters(0).pairs_warm, 1);
		CHECK_EQ(counters(0).under_way, 1);
	}
	CHECK_OK(post_recv(hosts[1].qp, 2, hosts[1].mr, 0, 64));
	CHECK_EQ(poll_status(hosts[1].side.cq, FFV_WC_SUCCESS).wr_id, 2);
	CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).wr_id, 1);
	hosts_disconnect();
}

/* A queue pair is destroyed, or begins anew, while what stands for it rests. */
static void test_ends_at_rest(void)
{
	const struct ffv_qp_attr reset = { .qp_state = FFV_QPS_RESET };

	hosts_connect(FFV_QPT_RC);
	send_one(0, 100, 1);
	wait_for_rest();
	for (int i = 0; i < 2; i++)
		CHECK_OK(ffv_modify_qp(hosts[i].qp, &reset, FFV_QP_STATE));
	qp_connect(hosts[0].qp, &hosts[0].side, hosts[1].qp, &hosts[1].side);
	send_one(1, 100, 2);
	send_one(0, 50000, 3);
	wait_for_rest();
	hosts_disconnect();
	hosts_connect(FFV_QPT_RC);
	send_one(0, 100, 4);
	send_one(1, 100, 5);
	hosts_disconnect();
}

static atomic_bool enough;

static void *ask_on(void *arg)
{
	(void)arg;
	while (!atomic_load(&enough))
		counters(0);
	return NULL;
}

/* Who asks for the counters without a pause does not stop what they count. */
static void test_asked_without_pause(void)
{
	pthread_t asker;

	CHECK_EQ(pthread_create(&asker, NULL, ask_on, NULL), 0);
	hosts_connect(FFV_QPT_RC);
	for (unsigned n = 0; n < 500; n++)
		send_one(n % 2, 64, n);
	hosts_disconnect();
	atomic_store(&enough, true);
	CHECK_EQ(pthread_join(asker, NULL), 0);
}

int main(void)
{
	hosts_open();
	test_wakes(FFV_QPT_RC);
	test_wakes(FFV_QPT_UC);
	test_fetches();
	test_waiting_is_no_rest();
	test_ends_at_rest();
	test_asked_without_pause();
	hosts_close();
	return 0;
}

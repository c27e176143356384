/* A channel outlives its links: what was under way when one broke goes on over the next, once each and in order; who has
 * less patience than the cut takes ends with an error, and nobody else. */
#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "hosts.h"

#define ROUNDS 400
#define FAULT_ROUNDS 150

static int cutters[2] = { -1, -1 }; /* descriptors of the link that is in use */
static unsigned state;

static unsigned draw(unsigned below)
{
	state = state * 1664525u + 1013904223u;
	return (state >> 8) % below;
}

static void cut(void)
{
	for (int i = 0; i < 2; i++)
		CHECK_EQ(shutdown(cutters[i], SHUT_RDWR), 0);
}

static const char *transport = "tcp";
static pthread_mutex_t resuming = PTHREAD_MUTEX_INITIALIZER;

static void resume(void)
{
	int sockets[2];

	pthread_mutex_lock(&resuming);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
	for (int i = 0; i < 2; i++) {
		if (cutters[i] >= 0)
			close(cutters[i]);
		CHECK((cutters[i] = dup(sockets[i])) >= 0);
		CHECK_OK(ffv_router_resume_channel(hosts[i].router, hosts[i].channel, transport, sockets[i]));
	}
	pthread_mutex_unlock(&resuming);
}

struct cutter { _Atomic bool stop; unsigned seed; };

static void *cut_often(void *arg)
{
	struct cutter *cutter = arg;
	unsigned seed = cutter->seed;

	while (!ffv_load_relaxed(&cutter->stop)) {
		usleep((useconds_t)(rand_r(&seed) % 3000));
		if (rand_r(&seed) % 4) /* else it is replaced while it works */
			cut();
		usleep((useconds_t)(rand_r(&seed) % 2000));
		resume();
	}
	return NULL;
}

/* One of each kind, under cuts: 64 bytes, 16 KiB and 300 kB; an atomic tells if anything is done twice. */
static void one_round(unsigned n)
{
	static const uint32_t lengths[] = { 64, 16384, 300000 };
	uint32_t length = lengths[draw(3)];
	struct ffv_sge sge;

	hosts_fill(&hosts[0], 64, length, n);
	CHECK_OK(post_recv(hosts[1].qp, n, hosts[1].mr, 1u << 20, 1u << 20));
	CHECK_OK(post_send(hosts[0].qp, 3 * n, hosts[0].mr, 64, length));
	struct ffv_send_wr add = send_wr(3 * n + 1, FFV_WR_ATOMIC_FETCH_AND_ADD, &sge, hosts[0].mr, 0, 8);
	add.wr.atomic.remote_addr = (uintptr_t)hosts[1].mr->addr;
	add.wr.atomic.rkey = hosts[1].mr->rkey;
	add.wr.atomic.compare_add = 1;
	CHECK_OK(ffv_post_send(hosts[0].qp, &add, NULL));
	hosts_post(FFV_WR_RDMA_READ, 3 * n + 2, 2u << 20, length, 1u << 20, 0);
	CHECK_EQ(poll_status(hosts[1].side.cq, FFV_WC_SUCCESS).wr_id, n);
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).wr_id, 3 * n + i);
	CHECK_EQ(*(uint64_t *)hosts[0].mr->addr, n);
	CHECK_EQ(*(uint64_t *)hosts[1].mr->addr, n + 1);
	hosts_check_same(64, 1u << 20, length);
	hosts_check_same(2u << 20, 1u << 20, length);
}

/* Connected as everybody is, but for a timeout of 4.3 s, eight times. */
static void connect_patiently(void)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_RTS, .timeout = 20, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 4 };

	hosts_reach(FFV_QPT_RC);
	for (int i = 0; i < 2; i++)
		qp_to_init(hosts[i].qp);
	for (int i = 0; i < 2; i++)
		qp_to_rtr(hosts[i].qp, &hosts[!i].side, ffv_qp_num(hosts[!i].qp));
	for (int i = 0; i < 2; i++)
		CHECK_OK(ffv_modify_qp(hosts[i].qp, &attr, FFV_QP_STATE | FFV_QP_SQ_PSN | FFV_QP_TIMEOUT | FFV_QP_RETRY_CNT |
				       FFV_QP_RNR_RETRY | FFV_QP_MAX_QP_RD_ATOMIC));
}

static void test_cuts(void)
{
	struct cutter cutter = { .seed = draw(1u << 20) };
	pthread_t thread;

	connect_patiently(); /* whoever cuts may be kept from resuming for a while */
	resume();
	CHECK_EQ(pthread_create(&thread, NULL, cut_often, &cutter), 0);
	*(uint64_t *)hosts[1].mr->addr = 0;
	for (unsigned n = 0; n < ROUNDS; n++)
		one_round(n);
	ffv_store_relaxed(&cutter.stop, true);
	pthread_join(thread, NULL);
	hosts_disconnect();
}

/* Connects again as often as a router says that it has to: what the control plane does. */
static void *keep_connected(void *arg)
{
	struct cutter *cutter = arg;

	for (bool lost = false; !ffv_load_relaxed(&cutter->stop); lost = false) {
		for (int i = 0; i < 2; i++) {
			struct ffv_router_event event;
			while (ffv_router_next_event(hosts[i].router, &event) == 1)
				lost |= event.kind == FFV_ROUTER_CHANNEL_LOST;
		}
		if (lost)
			resume();
		usleep(1000);
	}
	return NULL;
}

/* The same over links that lose, double, delay and reorder frames, break, and go silent. */
static void test_faults(const char *faults)
{
	struct cutter cutter = { 0 };
	pthread_t thread;
	char text[192];

	CHECK_OK(ffv_router_set_faults(faults));
	transport = "fault";
	connect_patiently();
	resume();
	CHECK_EQ(pthread_create(&thread, NULL, keep_connected, &cutter), 0);
	*(uint64_t *)hosts[1].mr->addr = 0;
	for (unsigned n = 0; n < FAULT_ROUNDS; n++)
		one_round(n);
	CHECK_OK(ffv_router_describe_channel(hosts[0].router, hosts[0].channel, text, sizeof text));
	CHECK(strstr(text, "on purpose") || strstr(text, "no link"));
	ffv_store_relaxed(&cutter.stop, true);
	pthread_join(thread, NULL);
	transport = "tcp";
	resume();
	hosts_disconnect();
}

static void test_fault_words(void)
{
	CHECK_FAIL(ffv_router_set_faults("drop=2"), EINVAL, "0 to 1");
	CHECK_FAIL(ffv_router_set_faults("drop"), EINVAL, "NAME=NUMBER");
	CHECK_FAIL(ffv_router_set_faults("drop=0.1,rain=0.5"), EINVAL, "no fault rain");
	CHECK_FAIL(ffv_router_set_faults("seed=x"), EINVAL, "whole number");
}

/* Both post during a cut. The one whose timeout and retry_cnt say so ends with an error; the other one does not, and its
 * message comes when there is a link again. */
static void test_patience(void)
{
	struct ffv_qp *first[2];

	hosts_connect(FFV_QPT_RC);
	for (int i = 0; i < 2; i++) {
		first[i] = hosts[i].qp;
		hosts[i].qp = NULL;
	}
	connect_patiently();
	CHECK_OK(post_recv(first[1], 1, hosts[1].mr, 0, 64));
	CHECK_OK(post_send(first[0], 1, hosts[0].mr, 0, 64));
	poll_status(hosts[0].side.cq, FFV_WC_SUCCESS);
	poll_status(hosts[1].side.cq, FFV_WC_SUCCESS);
	cut();
	uint64_t began = ffv_clock_ns();
	CHECK_OK(post_recv(hosts[1].qp, 7, hosts[1].mr, 0, 64));
	CHECK_OK(post_send(hosts[0].qp, 7, hosts[0].mr, 0, 64));
	CHECK_OK(post_send(first[0], 2, hosts[0].mr, 0, 64));
	struct ffv_wc wc = poll_one(hosts[0].side.cq);
	CHECK_EQ(wc.wr_id, 2);
	CHECK_EQ(wc.status, FFV_WC_RETRY_EXC_ERR);
	CHECK(ffv_clock_ns() - began >= 900000000ull);
	CHECK_EQ(ffv_qp_state(hosts[0].qp), FFV_QPS_RTS);
	resume();
	CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).wr_id, 7);
	CHECK_EQ(poll_status(hosts[1].side.cq, FFV_WC_SUCCESS).wr_id, 7);
	hosts_disconnect();
	for (int i = 0; i < 2; i++)
		hosts[i].qp = first[i];
	hosts_disconnect();
}

/* Of an unreliable connection: messages go until one has come; what the last cut did not lose may come before. */
static void send_until_received(uint32_t length)
{
	uint64_t deadline_ns = ffv_clock_ns() + PAIR_HANG_NS;
	struct ffv_wc wc = { 0 };
	int n = 1;

	for (unsigned i = 0; wc.byte_len != length; i++) {
		if (n)
			CHECK_OK(post_recv(hosts[1].qp, i, hosts[1].mr, 1u << 20, length));
		CHECK_OK(post_send(hosts[0].qp, i, hosts[0].mr, 0, length));
		CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).wr_id, i);
		n = 0;
		for (int looks = 0; !n && looks < 100; looks++) {
			usleep(100);
			n = ffv_poll_cq(hosts[1].side.cq, 1, &wc);
		}
		CHECK_EQ(wc.status, FFV_WC_SUCCESS);
		if (ffv_clock_ns() >= deadline_ns)
			hosts_tell();
		CHECK(ffv_clock_ns() < deadline_ns);
	}
}

/* Unreliable connections have nobody to wait for: what is posted during a cut is lost and done at once, small or large, and
 * afterwards they go on. */
static void test_unreliable(void)
{
	struct ffv_wc wc;

	resume();
	hosts_connect(FFV_QPT_UC);
	send_until_received(64); /* the queue pairs that stand in for them may be late: what comes before them is lost, too */
	cut();
	uint64_t began_ns = ffv_clock_ns();
	for (unsigned i = 0; i < 100; i++)
		CHECK_OK(post_send(hosts[0].qp, i, hosts[0].mr, 0, i % 4 ? 64 : 300000));
	for (unsigned i = 0; i < 100; i++)
		CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).wr_id, i);
	CHECK(ffv_clock_ns() - began_ns < 15000000000ull); /* who waits for a host does so for 30 s */
	CHECK_EQ(ffv_poll_cq(hosts[1].side.cq, 1, &wc), 0);
	resume();
	hosts_fill(&hosts[0], 0, 300000, 3);
	send_until_received(300000); /* until there is a link again */
	hosts_check_same(0, 1u << 20, 300000);
	CHECK_EQ(ffv_qp_state(hosts[0].qp), FFV_QPS_RTS);
	hosts_disconnect();
}

/* A router that does not take part any more says so: nobody waits for it. */
static void test_farewell(void)
{
	struct ffv_router_event event = { 0 };

	hosts_connect(FFV_QPT_RC);
	CHECK_OK(post_send(hosts[0].qp, 1, hosts[0].mr, 0, 64)); /* no receive: it waits over there */
	ffv_router_close_channel(hosts[1].router, hosts[1].channel);
	CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_RETRY_EXC_ERR).wr_id, 1);
	for (uint64_t deadline_ns = ffv_clock_ns() + PAIR_HANG_NS; event.kind != FFV_ROUTER_CHANNEL_CLOSED; sched_yield()) {
		ffv_router_next_event(hosts[0].router, &event);
		CHECK(ffv_clock_ns() < deadline_ns);
	}
	CHECK(strstr(event.text, "ended it"));
	int unused = dup(cutters[0]);
	CHECK_FAIL(ffv_router_resume_channel(hosts[0].router, hosts[0].channel, "tcp", unused), ENOTCONN, "closed");
	CHECK_EQ(close(unused), 0);
	hosts_disconnect();
}

int main(void)
{
	state = test_seed();
	hosts_open();
	test_cuts();
	test_fault_words();
	test_faults("drop=0.02,twice=0.02,reorder=0.02,delay=0.02,delay_ms=3,seed=7");
	test_faults("cut=0.01,seed=8");
	test_faults("drop=0.01,half_open=0.002,cut=0.002,seed=9");
	test_unreliable();
	test_patience();
	test_farewell();
	hosts_close();
	for (int i = 0; i < 2; i++)
		close(cutters[i]);
	return 0;
}

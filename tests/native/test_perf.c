/* The measuring loop: both ends in threads of one process, every test, checked and not, so that the sanitizers see the
 * data path with real traffic; and what it refuses. The thread sanitizer pairs accesses by address, and a context maps
 * the arena of another one a second time: it gets both ends in one context, the other builds get one each, too. */
#include <errno.h>
#include <pthread.h>

#include "opened.h"

enum { HALF_BYTES = 1 << 18, MAX_ITERS = 512 };

struct end {
	struct ffv_context *ctx;
	struct ffv_pd *pd;
	struct ffv_comp_channel *channel;
	struct ffv_cq *send_cq, *recv_cq;
	struct ffv_qp *qp;
	struct ffv_mr *mr;
	struct ffv_gid gid;
	struct ffv_perf_params params;
	uint64_t samples_ns[MAX_ITERS];
	uint64_t elapsed_ns;
	int rc;
};

static const uint32_t access_all =
	FFV_ACCESS_LOCAL_WRITE | FFV_ACCESS_REMOTE_WRITE | FFV_ACCESS_REMOTE_READ | FFV_ACCESS_REMOTE_ATOMIC;

static void end_open(struct end *e, struct ffv_context *ctx)
{
	struct ffv_qp_init_attr init = { .cap = { 64, 64, 1, 1, 64 }, .qp_type = FFV_QPT_RC };

	e->ctx = ctx;
	e->pd = opened_pd(e->ctx);
	CHECK_OK(ffv_query_gid(e->ctx, 1, 1, &e->gid));
	CHECK_OK(ffv_create_comp_channel(e->ctx, &e->channel));
	CHECK_OK(ffv_create_cq(e->ctx, 128, NULL, e->channel, 0, &e->send_cq));
	CHECK_OK(ffv_create_cq(e->ctx, 128, NULL, e->channel, 0, &e->recv_cq));
	init.send_cq = e->send_cq;
	init.recv_cq = e->recv_cq;
	CHECK_OK(ffv_create_qp(e->pd, &init, &e->qp));
	CHECK_OK(ffv_alloc_mr(e->pd, 2 * HALF_BYTES, access_all, &e->mr));
}

static void end_connect(struct end *e, const struct end *peer)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_INIT, .port_num = 1, .qp_access_flags = access_all };

	CHECK_OK(ffv_modify_qp(e->qp, &attr, FFV_QP_STATE | FFV_QP_PKEY_INDEX | FFV_QP_PORT | FFV_QP_ACCESS_FLAGS));
	attr.qp_state = FFV_QPS_RTR;
	attr.path_mtu = 5;
	attr.dest_qp_num = ffv_qp_num(peer->qp);
	attr.max_dest_rd_atomic = attr.max_rd_atomic = 1;
	attr.min_rnr_timer = 1;
	attr.ah_attr = (struct ffv_ah_attr){ .is_global = 1, .port_num = 1, .grh = { .sgid_index = 1, .hop_limit = 1 } };
	memcpy(&attr.ah_attr.grh, peer->gid.raw, sizeof peer->gid.raw);
	CHECK_OK(ffv_modify_qp(e->qp, &attr, FFV_QP_STATE | FFV_QP_AV | FFV_QP_PATH_MTU | FFV_QP_DEST_QPN | FFV_QP_RQ_PSN |
						     FFV_QP_MAX_DEST_RD_ATOMIC | FFV_QP_MIN_RNR_TIMER));
	attr.qp_state = FFV_QPS_RTS;
	attr.timeout = 14;
	attr.retry_cnt = attr.rnr_retry = 7;
	CHECK_OK(ffv_modify_qp(e->qp, &attr, FFV_QP_STATE | FFV_QP_TIMEOUT | FFV_QP_RETRY_CNT | FFV_QP_RNR_RETRY |
						     FFV_QP_SQ_PSN | FFV_QP_MAX_QP_RD_ATOMIC));
}

static void end_close(struct end *e)
{
	CHECK_OK(ffv_destroy_qp(e->qp));
	CHECK_OK(ffv_dereg_mr(e->mr));
	CHECK_OK(ffv_destroy_cq(e->send_cq));
	CHECK_OK(ffv_destroy_cq(e->recv_cq));
	CHECK_OK(ffv_destroy_comp_channel(e->channel));
	CHECK_OK(ffv_dealloc_pd(e->pd));
}

static void *run_end(void *arg)
{
	struct end *e = arg;

	e->rc = ffv_perf_run(&e->params, e->params.is_server ? NULL : e->samples_ns, &e->elapsed_ns);
	if (e->rc)
		fprintf(stderr, "%s: %s\n", e->params.is_server ? "server" : "client", ffv_error_text());
	return NULL;
}

static void set_params(struct end *e, const struct end *peer, struct ffv_perf_params with, bool events)
{
	with.qp = e->qp;
	with.send_cq = e->send_cq;
	with.recv_cq = e->recv_cq;
	with.channel = events ? e->channel : NULL;
	with.mr = e->mr;
	with.remote_addr = (uintptr_t)peer->mr->addr;
	with.rkey = peer->mr->rkey;
	e->params = with;
}

static void run_pair(struct end *client, struct end *server, struct ffv_perf_params with, bool events)
{
	pthread_t thread;

	set_params(client, server, with, events);
	set_params(server, client, with, events);
	server->params.is_server = 1;
	CHECK_EQ(pthread_create(&thread, NULL, run_end, server), 0);
	run_end(client);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(client->rc, 0);
	CHECK_EQ(server->rc, 0);
	CHECK(client->elapsed_ns > 0);
}

static struct ffv_perf_params plan(uint32_t test, uint64_t size_bytes, uint32_t depth, uint32_t check)
{
	return (struct ffv_perf_params){
		.test = test,
		.size_bytes = test == FFV_PERF_ATOMIC_LAT ? 8 : size_bytes,
		.post_list = depth > 2 ? depth / 2 : 1,
		.tx_depth = depth,
		.rx_depth = depth,
		.max_inline = 32,
		.check = check,
		.iters = 100,
		.warmup = 10,
	};
}

/* A written message of whole words ends with a word, and whoever waits for it looks at its last byte: right on every
 * machine, but the thread sanitizer knows no order between atomics of two sizes. */
static bool is_understood(uint32_t test, uint64_t size_bytes)
{
#ifdef __SANITIZE_THREAD__
	return test != FFV_PERF_WRITE_LAT || size_bytes % sizeof(uint64_t) != 0;
#else
	(void)test;
	(void)size_bytes;
	return true;
#endif
}

/* The same queue pairs run everything, one after the other: no run may leave anything behind. */
static void test_all(struct end *client, struct end *server)
{
	static const uint64_t sizes[] = { 1, 17, 4096, 40000 };
	static const uint32_t depths[] = { 1, 3, 64 };

	for (uint32_t test = FFV_PERF_SEND_LAT; test <= FFV_PERF_ATOMIC_LAT; test++)
		for (size_t size = 0; size < sizeof sizes / sizeof *sizes; size++)
			for (size_t depth = 0; depth < sizeof depths / sizeof *depths; depth++)
				for (uint32_t check = 0; check < 2 && is_understood(test, sizes[size]); check++)
					run_pair(client, server, plan(test, sizes[size], depths[depth], check), false);
}

static void test_events(struct end *client, struct end *server)
{
	for (uint32_t test = FFV_PERF_SEND_LAT; test <= FFV_PERF_ATOMIC_LAT; test++)
		if (test != FFV_PERF_WRITE_LAT)
			run_pair(client, server, plan(test, 64, 8, 1), true);
}

static void refuse(struct end *e, struct ffv_perf_params with, bool events, const char *word)
{
	set_params(e, e, with, events);
	CHECK_FAIL(ffv_perf_run(&e->params, e->samples_ns, &e->elapsed_ns), EINVAL, word);
}

static void test_refusals(struct end *e)
{
	struct ffv_perf_params good = plan(FFV_PERF_SEND_LAT, 64, 8, 0), bad;

	refuse(e, plan(99, 64, 8, 0), false, "no test 99");
	refuse(e, plan(FFV_PERF_WRITE_LAT, 64, 8, 0), true, "without events");
	refuse(e, plan(FFV_PERF_SEND_BW, 0, 8, 0), false, "size 0");
	refuse(e, plan(FFV_PERF_SEND_BW, HALF_BYTES + 1, 8, 0), false, "half the memory region");
	refuse(e, plan(FFV_PERF_SEND_BW, 8, 0, 0), false, "at least 1");
	bad = good;
	bad.post_list = 9;
	refuse(e, bad, false, "do not fit");
	bad = plan(FFV_PERF_ATOMIC_LAT, 8, 1, 0);
	bad.size_bytes = 16;
	refuse(e, bad, false, "8 bytes");
	set_params(e, e, good, false);
	CHECK_FAIL(ffv_perf_run(&e->params, NULL, &e->elapsed_ns), EINVAL, "samples");
	e->params.qp = NULL;
	CHECK_FAIL(ffv_perf_run(&e->params, e->samples_ns, &e->elapsed_ns), EINVAL, "queue pair");
}

/* A remote key that is none: the run ends with the completion's error, and nothing waits for anything more. */
static void test_error_ends_it(struct end *client, struct end *server)
{
	set_params(client, server, plan(FFV_PERF_READ_LAT, 64, 1, 0), false);
	set_params(server, client, plan(FFV_PERF_READ_LAT, 64, 1, 0), false);
	server->params.is_server = 1;
	client->params.rkey ^= 0x40000000;
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, run_end, server), 0);
	CHECK_FAIL(ffv_perf_run(&client->params, client->samples_ns, &client->elapsed_ns), EIO, "remote access error");
	struct ffv_qp_attr error = { .qp_state = FFV_QPS_ERR };
	CHECK_OK(ffv_modify_qp(server->qp, &error, FFV_QP_STATE));
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(server->rc, -EIO);
}

static void test_between(struct ffv_context *a, struct ffv_context *b)
{
	static struct end client, server;

	end_open(&client, a);
	end_open(&server, b);
	end_connect(&client, &server);
	end_connect(&server, &client);
	test_all(&client, &server);
	test_events(&client, &server);
	test_refusals(&client);
	test_error_ends_it(&client, &server);
	end_close(&client);
	end_close(&server);
}

int main(void)
{
	opened_directory();
	struct ffv_context *a = opened_context(), *b = opened_context();

	test_between(a, a);
#ifndef __SANITIZE_THREAD__
	test_between(a, b);
#endif
	CHECK_OK(ffv_close_device(a));
	CHECK_OK(ffv_close_device(b));
	scratch_remove();
	return 0;
}

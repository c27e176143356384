/* SPDX-License-Identifier: MIT
 *
 * ffv_perf_run: one end of a measurement, from the check of its parameters to the numbers. Both ends call it with the
 * same test, size, iters, warmup and check; they meet by an empty SEND each at the start, after the warm-up and at the
 * end, so neither needs another channel while it runs. The QP needs rnr_retry = 7: an end may come first.
 *
 * Memory: mr is two halves of mr->length / 2 bytes, remote_addr is the address of the peer's region, laid out alike.
 * WRITE goes to the peer's second half, READ and atomics act on it. A checked run uses as many places of size_bytes in a
 * half as fit (at most LOOP_SLOTS_MAX), so a longer region has more messages in flight.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "perf/pattern.h"
#include "perf/tests.h"

struct perf_test {
	const char *name;
	uint32_t opcode;
	perf_end *client;
	perf_end *server;             /* NULL: it only has its memory acted upon */
	bool samples;
	bool receives_data;           /* both ends (latency) or the server alone */
	bool windows;                 /* a checked run exchanges a control message for each window */
};

static const struct perf_test tests[] = {
	[FFV_PERF_SEND_LAT] = { "send_lat", FFV_WR_SEND, send_latency_client, send_latency_server, true, true, false },
	[FFV_PERF_SEND_BW] = { "send_bw", FFV_WR_SEND, send_bandwidth_client, send_bandwidth_server, false, true, false },
	[FFV_PERF_WRITE_LAT] = { "write_lat", FFV_WR_RDMA_WRITE, write_latency_client, write_latency_server, true, false,
				 false },
	[FFV_PERF_WRITE_BW] = { "write_bw", FFV_WR_RDMA_WRITE, write_bandwidth_client, write_bandwidth_server, false,
				false, true },
	[FFV_PERF_READ_LAT] = { "read_lat", FFV_WR_RDMA_READ, read_latency_client, NULL, true, false, false },
	[FFV_PERF_READ_BW] = { "read_bw", FFV_WR_RDMA_READ, read_bandwidth_client, NULL, false, false, false },
	[FFV_PERF_ATOMIC_LAT] = { "atomic_lat", FFV_WR_ATOMIC_FETCH_AND_ADD, atomic_latency_client, NULL, true, false,
				  false },
};
#define NUM_TESTS (sizeof(tests) / sizeof(tests[0]))

static int check_objects(const struct ffv_perf_params *p, const char *name)
{
	if (!p->qp || !p->send_cq || !p->recv_cq || !p->mr)
		return ffv_fail(EINVAL, "%s: needs a queue pair, both completion queues and a memory region", name);
	if (p->channel && p->test == FFV_PERF_WRITE_LAT)
		return ffv_fail(EINVAL, "write_lat: a write raises no event at the far end: run it without events");
	return 0;
}

static int check_numbers(const struct ffv_perf_params *p, const char *name, const uint64_t *samples_ns)
{
	if (!p->iters || !p->post_list || !p->tx_depth || !p->rx_depth)
		return ffv_fail(EINVAL, "%s: iters, post_list, tx_depth and rx_depth must be at least 1", name);
	if (p->post_list > p->tx_depth)
		return ffv_fail(EINVAL, "%s: lists of %u work requests do not fit into a send queue of %u", name,
				p->post_list, p->tx_depth);
	if (p->size_bytes < 1 || p->size_bytes > p->mr->length / 2 || p->size_bytes > 1ull << 31)
		return ffv_fail(EINVAL, "%s: size %llu is not within 1 .. %llu, half the memory region", name,
				(unsigned long long)p->size_bytes, (unsigned long long)p->mr->length / 2);
	if (p->test == FFV_PERF_ATOMIC_LAT && p->size_bytes != sizeof(uint64_t))
		return ffv_fail(EINVAL, "atomic_lat: an atomic has 8 bytes, not %llu",
				(unsigned long long)p->size_bytes);
	if (tests[p->test].samples && !p->is_server && !samples_ns)
		return ffv_fail(EINVAL, "%s: a latency test needs room for %llu samples", name,
				(unsigned long long)p->iters);
	return 0;
}

static uint64_t windows(const struct loop *loop, uint64_t count)
{
	return (count + loop->slots - 1) / loop->slots;
}

/* Receives of the whole run: three meetings, data, and the control messages of windows. */
static uint64_t receives(const struct loop *loop, const struct perf_test *test)
{
	const struct ffv_perf_params *p = loop->params;
	uint64_t count = 3;

	if (test->receives_data && (test->samples || p->is_server))
		count += p->warmup + p->iters;
	if (test->windows && p->check)
		count += windows(loop, p->warmup) + windows(loop, p->iters);
	return count;
}

/* What the peer will read or add to is there before the first meeting; what it will write is not. */
static void prepare_memory(struct loop *loop)
{
	memset(loop->recv_half, 0, loop->params->mr->length / 2);
	if (loop->params->test != FFV_PERF_READ_LAT && loop->params->test != FFV_PERF_READ_BW)
		return;
	for (uint32_t slot = 0; slot < loop->slots; slot++)
		pattern_fill(loop_slot(loop->recv_half, loop, slot), loop->params->size_bytes, slot);
}

static int run(struct loop *loop, perf_end *end, uint64_t *samples, uint64_t *elapsed_ns)
{
	const struct ffv_perf_params *p = loop->params;
	uint64_t start_ns;
	int rc = loop_meet(loop);

	if (!rc && end && p->warmup)
		rc = end(loop, p->warmup, NULL);
	if (!rc)
		rc = loop_meet(loop);
	start_ns = ffv_clock_ns();
	if (!rc && end)
		rc = end(loop, p->iters, samples);
	*elapsed_ns = ffv_clock_ns() - start_ns;
	return rc ? rc : loop_meet(loop);
}

/* The samples are in ticks, and a run's samples add up to its time. */
static void scale_samples(uint64_t *samples, uint64_t count, uint64_t elapsed_ns)
{
	uint64_t total = 0;

	for (uint64_t i = 0; i < count; i++)
		total += samples[i];
	for (uint64_t i = 0; total && i < count; i++)
		samples[i] = (uint64_t)((double)samples[i] * (double)elapsed_ns / (double)total + 0.5);
}

int ffv_perf_run(const struct ffv_perf_params *params, uint64_t *samples_ns, uint64_t *elapsed_ns)
{
	const struct perf_test *test;
	uint64_t elapsed = 0;
	struct loop loop;
	int rc;

	if (params->test >= NUM_TESTS)
		return ffv_fail(EINVAL, "there is no test %u: see enum ffv_perf_test", params->test);
	test = &tests[params->test];
	rc = check_objects(params, test->name);
	if (!rc)
		rc = check_numbers(params, test->name, samples_ns);
	if (!rc)
		rc = loop_open(&loop, params, test->opcode);
	if (rc)
		return rc;
	loop.is_passive = params->is_server && (!test->server || params->test == FFV_PERF_WRITE_BW);
	loop.rx_carries_data = test->receives_data && (params->check || test->samples);
	loop.rx_limit = receives(&loop, test);
	prepare_memory(&loop);
	rc = run(&loop, params->is_server ? test->server : test->client,
		 test->samples && !params->is_server ? samples_ns : NULL, &elapsed);
	loop_close(&loop);
	if (rc)
		return ffv_fail_context(rc, "%s", test->name);
	if (test->samples && !params->is_server)
		scale_samples(samples_ns, params->iters, elapsed);
	*elapsed_ns = elapsed;
	return 0;
}

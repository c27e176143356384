/* Completion counters and rate limits while both sides execute: nothing is counted twice or lost, and a limit that comes and
 * goes under traffic stops nothing for good. */
#include <errno.h>
#include <pthread.h>

#include "verbs/pair.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define MESSAGES 400u
#else
#define MESSAGES 4000u
#endif
#define DEPTH 16u
#define LENGTH 64u

struct end {
	struct side side;
	struct ffv_qp *qp;
	struct ffv_mr *mr;
	struct ffv_comp_cntr *sends, *receives;
};

static _Atomic int running;

static void poll_some(struct end *end, unsigned *sent, unsigned *received)
{
	struct ffv_wc wc[8];
	int n = ffv_poll_cq(end->side.cq, 8, wc);

	CHECK(n >= 0);
	for (int i = 0; i < n; i++) {
		CHECK_EQ(wc[i].status, FFV_WC_SUCCESS);
		uint64_t value;
		if (wc[i].opcode == FFV_WC_RECV) {
			++*received;
			CHECK_OK(post_recv(end->qp, 2, end->mr, LENGTH, LENGTH));
			CHECK_OK(ffv_read_comp_cntr(end->receives, &value));
			CHECK(value >= *received); /* counted before it could be polled */
		} else {
			++*sent;
			CHECK_OK(ffv_read_comp_cntr(end->sends, &value));
			CHECK(value >= *sent);
		}
	}
	if (!n)
		sched_yield();
}

/* Sends and receives at once. */
static void *exchange(void *arg)
{
	struct end *end = arg;
	unsigned posted = 0, sent = 0, received = 0;
	uint64_t begin_ns = ffv_clock_ns();

	while (sent < MESSAGES || received < MESSAGES) {
		if (posted < MESSAGES && posted - sent < DEPTH) {
			CHECK_OK(post_send(end->qp, 1, end->mr, 0, LENGTH));
			posted++;
		}
		poll_some(end, &sent, &received);
		CHECK(ffv_clock_ns() - begin_ns < PAIR_HANG_NS);
	}
	ffv_fetch_sub(&running, 1);
	return NULL;
}

static void *limit(void *arg)
{
	struct end *end = arg;

	for (unsigned i = 0; ffv_load_acquire(&running); i++) {
		struct ffv_qp_rate_limit_attr attr = { .rate_limit = i % 3 ? 1u << i % 20 : 0, .max_burst_sz = 1 + i % 1000 };
		CHECK_OK(ffv_modify_qp_rate_limit(end->qp, &attr));
		sched_yield();
	}
	struct ffv_qp_rate_limit_attr none = { .rate_limit = 0 };
	CHECK_OK(ffv_modify_qp_rate_limit(end->qp, &none));
	return NULL;
}

static void open_end(struct end *end)
{
	side_open(&end->side, 4 * DEPTH);
	end->qp = side_qp(&end->side, end->side.cq, FFV_QPT_RC, NULL, DEPTH);
	CHECK_OK(ffv_alloc_mr(end->side.pd, 2 * LENGTH, PAIR_ACCESS, &end->mr));
	CHECK_OK(ffv_create_comp_cntr(end->side.ctx, NULL, &end->sends));
	CHECK_OK(ffv_create_comp_cntr(end->side.ctx, NULL, &end->receives));
	CHECK_OK(ffv_qp_attach_comp_cntr(end->qp, end->sends, FFV_QP_ATTACH_COMP_CNTR_OP_SEND));
	CHECK_OK(ffv_qp_attach_comp_cntr(end->qp, end->receives, FFV_QP_ATTACH_COMP_CNTR_OP_RECV));
}

static void close_end(struct end *end)
{
	uint64_t sends, receives, errors;

	CHECK_OK(ffv_read_comp_cntr(end->sends, &sends));
	CHECK_OK(ffv_read_comp_cntr(end->receives, &receives));
	CHECK_EQ(sends, MESSAGES);
	CHECK_EQ(receives, MESSAGES);
	CHECK_OK(ffv_read_err_comp_cntr(end->sends, &errors));
	CHECK_EQ(errors, 0);
	CHECK_FAIL(ffv_destroy_comp_cntr(end->sends), EBUSY, "attached");
	CHECK_OK(ffv_destroy_qp(end->qp));
	CHECK_OK(ffv_destroy_comp_cntr(end->sends));
	CHECK_OK(ffv_destroy_comp_cntr(end->receives));
	CHECK_OK(ffv_dereg_mr(end->mr));
	side_close(&end->side);
}

int main(void)
{
	struct end ends[2];
	pthread_t threads[3];

	opened_directory();
	open_end(&ends[0]);
	open_end(&ends[1]);
	qp_connect(ends[0].qp, &ends[0].side, ends[1].qp, &ends[1].side);
	for (int i = 0; i < 2; i++)
		for (unsigned n = 0; n < DEPTH; n++)
			CHECK_OK(post_recv(ends[i].qp, 2, ends[i].mr, LENGTH, LENGTH));
	ffv_store_release(&running, 2);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, exchange, &ends[i]), 0);
	CHECK_EQ(pthread_create(&threads[2], NULL, limit, &ends[0]), 0);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	close_end(&ends[0]);
	close_end(&ends[1]);
	scratch_remove();
	return 0;
}

/* The owner's side of receive queues: how many fit, and which slots are used again when work requests come back in
 * another order than they were taken. */
#include <errno.h>

#include "pair.h"
#include "verbs/rq.h"

static struct side side;
static struct ffv_srq *srq;

static void start(uint32_t max_wr)
{
	struct ffv_srq_init_attr attr = { .attr = { .max_wr = max_wr, .max_sge = 1 } };

	side_open(&side, 16);
	CHECK_OK(ffv_create_srq(side.pd, &attr, &srq));
}

static void finish(void)
{
	CHECK_OK(ffv_destroy_srq(srq));
	side_close(&side);
}

static int post(uint64_t wr_id)
{
	struct ffv_sge sge = { wr_id, 8, 0 };
	struct ffv_recv_wr wr = { .wr_id = wr_id, .sg_list = &sge, .num_sge = 1 };

	return ffv_post_srq_recv(srq, &wr, NULL);
}

/* Takes the next as an executor does. */
static uint64_t take(uint64_t *position)
{
	struct ffv_qp_shm taker = { .rq_taken = FFV_TAKEN_NOT };
	struct ffv_rwqe got;

	CHECK(ffv_rq_take(&srq->rq.ref, &taker, &got));
	*position = got.position;
	return got.sge[0].addr;
}

static bool is_empty(void)
{
	struct ffv_qp_shm taker = { .rq_taken = FFV_TAKEN_NOT };
	struct ffv_rwqe got;

	return !ffv_rq_take(&srq->rq.ref, &taker, &got);
}

/* Comes back as by polling its completion. */
static void report(uint64_t position, uint64_t wr_id)
{
	struct ffv_rq *rq = &srq->rq;
	uint64_t index = position & rq->ref.index_mask;

	CHECK(ffv_load_relaxed(&rq->busy[index]));
	CHECK_EQ(rq->wr_id[index], wr_id);
	ffv_store_release(&rq->busy[index], 0u);
	ffv_fetch_add(&rq->reported, 1u);
}

static void test_capacity(uint32_t max_wr)
{
	uint64_t position;

	start(max_wr);
	for (uint64_t lap = 0; lap < 5; lap++) {
		for (uint64_t i = 0; i < max_wr; i++)
			CHECK_OK(post(lap * max_wr + i));
		CHECK_FAIL(post(99), ENOMEM, "full");
		for (uint64_t i = 0; i < max_wr; i++) {
			CHECK_EQ(take(&position), lap * max_wr + i);
			CHECK_FAIL(post(99), ENOMEM, "full"); /* taken is not back */
		}
		CHECK(is_empty());
		for (uint64_t i = 0; i < max_wr; i++)
			report(position - max_wr + 1 + i, lap * max_wr + i);
	}
	finish();
}

/* Three are taken by a queue pair whose completions are polled late, and come back when others have gone round. Each
 * work request is taken exactly once, with what it was posted with. */
static void test_late_ones_come_back(void)
{
	uint64_t late[3], at, next_in = 3, next_out = 3;

	start(7);
	for (uint64_t i = 0; i < 3; i++)
		CHECK_OK(post(i));
	for (uint64_t i = 0; i < 3; i++)
		CHECK_EQ(take(&late[i]), i);
	for (int lap = 0; lap < 9; lap++) { /* so that those three are met again and passed over */
		while (!post(next_in))
			next_in++;
		CHECK_EQ(next_in - next_out, 4);
		CHECK_EQ(take(&at), next_out);
		report(at, next_out++);
	}
	while (!post(next_in))
		next_in++;
	for (uint64_t i = 0; i < 3; i++)
		report(late[i], i);
	while (!post(next_in)) /* three more fit now */
		next_in++;
	CHECK_EQ(next_in - next_out, 7);
	while (next_out < next_in) {
		CHECK_EQ(take(&at), next_out);
		report(at, next_out++);
	}
	CHECK(is_empty());
	finish();
}

/* Any order of coming back, at random. */
static void test_any_order(unsigned *state)
{
	enum { DEPTH = 13 };
	struct { uint64_t position; uint64_t wr_id; } out[DEPTH];
	uint32_t num_out = 0;
	uint64_t next_in = 0, next_out = 0;

	start(DEPTH);
	for (int i = 0; i < 200000; i++) {
		unsigned what = (unsigned)rand_r(state) % 3;
		if (what == 0) {
			bool fits = next_in - next_out + num_out < DEPTH;
			CHECK_RC(post(next_in), fits ? 0 : -ENOMEM);
			next_in += fits;
		} else if (what == 1 && next_out < next_in) {
			CHECK_EQ(take(&out[num_out].position), next_out);
			out[num_out++].wr_id = next_out++;
		} else if (what == 2 && num_out) {
			/* mostly the youngest: the others grow old */
			uint32_t which = rand_r(state) % 16 ? num_out - 1 : (uint32_t)rand_r(state) % num_out;
			report(out[which].position, out[which].wr_id);
			memmove(&out[which], &out[which + 1], (--num_out - which) * sizeof out[0]);
		}
	}
	finish();
}

static int resize(uint32_t max_wr)
{
	struct ffv_srq_attr attr = { .max_wr = max_wr };

	return ffv_modify_srq(srq, &attr, FFV_SRQ_MAX_WR);
}

/* The same while the queue is resized: nothing is lost or taken twice, and each comes back as what it was posted as. */
static void test_any_order_and_size(unsigned *state)
{
	enum { MOST = 40 };
	struct { uint64_t position; uint64_t wr_id; } out[MOST];
	uint32_t num_out = 0, depth = 13, resized = 0;
	uint64_t next_in = 0, next_out = 0;

	start(depth);
	for (int i = 0; i < 200000; i++) {
		unsigned what = (unsigned)rand_r(state) % 16;
		uint64_t held = next_in - next_out + num_out;
		if (what == 0) {
			uint32_t wanted = 1 + (uint32_t)rand_r(state) % MOST;
			int rc = resize(wanted);
			CHECK(rc == 0 || (rc == -EINVAL && held > wanted) || (rc == -EBUSY && num_out > 1));
			CHECK(held <= wanted || rc == -EINVAL);
			depth = rc ? depth : wanted;
			resized += !rc;
		} else if (what < 6) {
			bool fits = held < depth;
			CHECK_RC(post(next_in), fits ? 0 : -ENOMEM);
			next_in += fits;
		} else if (what < 11 && next_out < next_in) {
			CHECK_EQ(take(&out[num_out].position), next_out);
			out[num_out++].wr_id = next_out++;
		} else if (num_out) {
			uint32_t which = rand_r(state) % 16 ? num_out - 1 : (uint32_t)rand_r(state) % num_out;
			uint64_t wr_id;
			CHECK(ffv_rq_report(&srq->rq, (uint32_t)out[which].position, &wr_id));
			CHECK_EQ(wr_id, out[which].wr_id);
			memmove(&out[which], &out[which + 1], (--num_out - which) * sizeof out[0]);
		}
	}
	CHECK(resized > 1000);
	finish();
}

static void test_bad_sizes(void)
{
	struct ffv_srq_attr attr = { .max_wr = 5, .srq_limit = 6 };

	start(8);
	for (uint64_t i = 0; i < 5; i++)
		CHECK_OK(post(i));
	CHECK_FAIL(resize(4), EINVAL, "5 work requests");
	CHECK_FAIL(resize(0), EINVAL, "1 to");
	CHECK_FAIL(resize(FFV_MAX_WR + 1), EINVAL, "1 to");
	CHECK_FAIL(ffv_modify_srq(srq, &attr, FFV_SRQ_MAX_WR | FFV_SRQ_LIMIT), EINVAL, "limit of 6 in a queue of 5");
	CHECK_OK(ffv_query_srq(srq, &attr));
	CHECK_EQ(attr.max_wr, 8);
	CHECK_EQ(attr.srq_limit, 0);
	CHECK_OK(resize(FFV_MAX_WR));
	CHECK_OK(resize(5));
	CHECK_FAIL(post(5), ENOMEM, "full: 5");
	finish();
}

static void test_bad_lists(void)
{
	struct ffv_sge sges[2] = { { 1, 1, 1 }, { UINT64_MAX, 1, 1 } };
	struct ffv_recv_wr wrs[2] = { { .wr_id = 1, .next = &wrs[1], .sg_list = sges, .num_sge = 1 },
				      { .wr_id = 2, .sg_list = &sges[1], .num_sge = 1 } };
	struct ffv_recv_wr *bad = NULL;
	uint64_t position;

	start(4);
	CHECK_FAIL(ffv_post_srq_recv(srq, wrs, &bad), EINVAL, "scatter entry");
	CHECK(bad == &wrs[1]);
	CHECK_EQ(take(&position), 1); /* the one before it is posted */
	CHECK(is_empty());
	wrs[1].num_sge = 2;
	CHECK_FAIL(ffv_post_srq_recv(srq, &wrs[1], &bad), EINVAL, "2 scatter entries");
	wrs[1].num_sge = -1;
	CHECK_FAIL(ffv_post_srq_recv(srq, &wrs[1], &bad), EINVAL, "-1 scatter entries");
	finish();
}

int main(void)
{
	unsigned state = test_seed();

	opened_directory();
	test_capacity(1);
	test_capacity(2);
	test_capacity(5);
	test_capacity(8);
	test_late_ones_come_back();
	test_any_order(&state);
	test_any_order_and_size(&state);
	test_bad_sizes();
	test_bad_lists();
	scratch_remove();
	return 0;
}

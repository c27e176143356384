/* Extended posting, atomic writes and flushes, between two contexts of one process. */
#include <errno.h>
#include <pthread.h>

#include "pair.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define BATCHES 300u
#else
#define BATCHES 3000u
#endif
#define IN_BATCH 4u
#define DEPTH 16u
#define ALL_OPS 0x1bffull /* all but TSO */

static struct side a, b;
static struct ffv_qp *qa, *qb;
static struct ffv_mr *ma, *mb;

static int create_ex(struct side *side, uint32_t type, uint64_t ops, struct ffv_qp **out)
{
	struct ffv_qp_init_attr_ex attr = { .send_cq = side->cq, .recv_cq = side->cq, .qp_type = type,
					    .cap = { DEPTH, DEPTH, 2, 2, 64 }, .pd = side->pd, .send_ops_flags = ops,
					    .comp_mask = FFV_QP_INIT_ATTR_PD | FFV_QP_INIT_ATTR_SEND_OPS_FLAGS };

	return ffv_create_qp_ex(side->ctx, &attr, out);
}

static struct ffv_qp_ex *connected(uint64_t ops)
{
	CHECK_OK(create_ex(&a, FFV_QPT_RC, ops, &qa));
	qb = side_qp(&b, b.cq, FFV_QPT_RC, NULL, DEPTH);
	qp_connect(qa, &a, qb, &b);
	CHECK_OK(ffv_alloc_mr(a.pd, 4096, PAIR_ACCESS, &ma));
	CHECK_OK(ffv_alloc_mr(b.pd, 4096, PAIR_ACCESS | FFV_ACCESS_FLUSH_GLOBAL, &mb));
	struct ffv_qp_ex *ex = ffv_qp_to_qp_ex(qa);
	CHECK(ex != NULL);
	ex->wr_flags = FFV_SEND_SIGNALED;
	return ex;
}

static void disconnect(void)
{
	CHECK_OK(ffv_destroy_qp(qa));
	CHECK_OK(ffv_destroy_qp(qb));
	CHECK_OK(ffv_dereg_mr(ma));
	CHECK_OK(ffv_dereg_mr(mb));
}

static void allow_flush(uint32_t access)
{
	struct ffv_qp_attr attr = { .qp_access_flags = access };

	CHECK_OK(ffv_modify_qp(qb, &attr, FFV_QP_ACCESS_FLAGS));
}

/* ---- creating ----------------------------------------------------------------------------------------------------------- */

static void test_operations_of_the_types(void)
{
	struct ffv_qp *qp = NULL;

	CHECK_FAIL(create_ex(&a, FFV_QPT_RC, FFV_QP_EX_WITH_TSO, &qp), EOPNOTSUPP, "0x400");
	CHECK_FAIL(create_ex(&a, FFV_QPT_RC, 1ull << 40, &qp), EOPNOTSUPP, "send_ops_flags");
	CHECK_FAIL(create_ex(&a, FFV_QPT_UC, FFV_QP_EX_WITH_RDMA_READ, &qp), EOPNOTSUPP, "0x10");
	CHECK_FAIL(create_ex(&a, FFV_QPT_UC, FFV_QP_EX_WITH_ATOMIC_WRITE, &qp), EOPNOTSUPP, "0x1000");
	CHECK_FAIL(create_ex(&a, FFV_QPT_UD, FFV_QP_EX_WITH_RDMA_WRITE, &qp), EOPNOTSUPP, "0x1");
	CHECK(!qp);
	CHECK_OK(create_ex(&a, FFV_QPT_RC, ALL_OPS, &qp));
	CHECK_OK(ffv_destroy_qp(qp));
	qp = side_qp(&a, a.cq, FFV_QPT_RC, NULL, 4);
	CHECK(!ffv_qp_to_qp_ex(qp) && !ffv_qp_to_qp_ex(NULL));
	CHECK_OK(ffv_destroy_qp(qp));
}

/* ---- batches ------------------------------------------------------------------------------------------------------------ */

static void test_a_batch_is_posted_as_a_whole(void)
{
	struct ffv_qp_ex *ex = connected(ALL_OPS);
	const char *words = "gathered from pieces";
	struct ffv_data_buf pieces[2] = { { (void *)(uintptr_t)words, 8 }, { (void *)(uintptr_t)(words + 8), 12 } };

	memcpy(ma->addr, "from memory", 11);
	CHECK_OK(post_recv(qb, 50, mb, 1024, 64));
	ffv_wr_start(ex);
	ex->wr_id = 1;
	ffv_wr_rdma_write(ex, mb->rkey, (uintptr_t)mb->addr);
	ffv_wr_set_sge(ex, ma->lkey, (uintptr_t)ma->addr, 11);
	ex->wr_id = 2;
	ffv_wr_rdma_write(ex, mb->rkey, (uintptr_t)mb->addr + 64);
	ffv_wr_set_inline_data_list(ex, 2, pieces);
	ex->wr_id = 3;
	ffv_wr_send_imm(ex, 0x01020304);
	ffv_wr_set_inline_data(ex, words, 0);
	CHECK_EQ(((char *)mb->addr)[0], 0); /* nothing happens before the end */
	CHECK_OK(ffv_wr_complete(ex));
	for (uint64_t i = 1; i <= 3; i++)
		CHECK_EQ(poll_status(a.cq, FFV_WC_SUCCESS).wr_id, i);
	CHECK_EQ(poll_status(b.cq, FFV_WC_SUCCESS).imm_data_be, 0x01020304);
	CHECK(!memcmp(mb->addr, "from memory", 11) && !memcmp((char *)mb->addr + 64, words, 20));
	ffv_wr_start(ex);
	CHECK_OK(ffv_wr_complete(ex)); /* an empty one */
	disconnect();
}

/* The first mistake is told at the end, with nothing posted; the next batch is not touched by it. */
static void expect_mistake(struct ffv_qp_ex *ex, int err, const char *word)
{
	struct ffv_wc wc;

	ffv_wr_send(ex); /* what comes after it is dropped */
	ffv_wr_set_inline_data(ex, "x", 1);
	CHECK_FAIL(ffv_wr_complete(ex), err, word);
	CHECK_EQ(ffv_poll_cq(a.cq, 1, &wc), 0);
}

static void begin_with_a_good_one(struct ffv_qp_ex *ex)
{
	ffv_wr_start(ex);
	ffv_wr_rdma_write(ex, mb->rkey, (uintptr_t)mb->addr);
	ffv_wr_set_inline_data(ex, "?", 1);
}

static void test_mistakes_are_kept(void)
{
	struct ffv_qp_ex *ex = connected(ALL_OPS & ~(uint64_t)FFV_QP_EX_WITH_RDMA_READ);
	struct ffv_sge many[3] = { { 0, 0, 0 } };
	char big[200] = { 0 };

	begin_with_a_good_one(ex);
	ffv_wr_rdma_read(ex, mb->rkey, (uintptr_t)mb->addr);
	expect_mistake(ex, EINVAL, "0x10");
	begin_with_a_good_one(ex);
	ffv_wr_set_sge_list(ex, 3, many);
	expect_mistake(ex, EINVAL, "gather");
	begin_with_a_good_one(ex);
	ffv_wr_set_inline_data(ex, big, sizeof big);
	expect_mistake(ex, EINVAL, "inline");
	begin_with_a_good_one(ex);
	ffv_wr_send_tso(ex, big, 14, 1000);
	expect_mistake(ex, EOPNOTSUPP, "segment");
	begin_with_a_good_one(ex);
	ffv_wr_flush(ex, mb->rkey, 0, 8, FFV_FLUSH_PERSISTENT, FFV_FLUSH_RANGE);
	expect_mistake(ex, EOPNOTSUPP, "flush");
	begin_with_a_good_one(ex);
	ffv_wr_flush(ex, mb->rkey, 0, 8, FFV_FLUSH_GLOBAL, 2);
	expect_mistake(ex, EINVAL, "flush");
	begin_with_a_good_one(ex);
	ffv_wr_bind_mw(ex, NULL, 1, &(struct ffv_mw_bind_info){ 0 });
	expect_mistake(ex, EINVAL, "window"); /* found when posting: the good one before it is not posted either */
	ffv_wr_start(ex);
	ffv_wr_set_sge(ex, ma->lkey, (uintptr_t)ma->addr, 1);
	expect_mistake(ex, EINVAL, "before the request");
	begin_with_a_good_one(ex);
	ffv_wr_start(ex);
	expect_mistake(ex, EBUSY, "in a batch");
	ffv_wr_start(ex);
	for (uint32_t i = 0; i <= DEPTH; i++)
		ffv_wr_send(ex);
	expect_mistake(ex, ENOMEM, "batch has more");
	CHECK_FAIL(ffv_wr_complete(ex), EINVAL, "started no batch");
	ffv_wr_send(ex); /* outside a batch: nothing */
	begin_with_a_good_one(ex);
	ffv_wr_abort(ex);
	CHECK_EQ(*(char *)mb->addr, 0);
	begin_with_a_good_one(ex);
	CHECK_OK(ffv_wr_complete(ex));
	poll_status(a.cq, FFV_WC_SUCCESS);
	CHECK_EQ(*(char *)mb->addr, '?');
	disconnect();
}

static void test_a_full_queue_takes_nothing_of_a_batch(void)
{
	struct ffv_qp_ex *ex = connected(ALL_OPS);
	struct ffv_wc wc;

	for (uint32_t i = 0; i < DEPTH - 1; i++) {
		begin_with_a_good_one(ex);
		CHECK_OK(ffv_wr_complete(ex));
	}
	begin_with_a_good_one(ex);
	ffv_wr_rdma_write(ex, mb->rkey, (uintptr_t)mb->addr);
	ffv_wr_set_inline_data(ex, "!", 1);
	CHECK_FAIL(ffv_wr_complete(ex), ENOMEM, "full");
	for (uint32_t i = 0; i < DEPTH - 1; i++)
		poll_status(a.cq, FFV_WC_SUCCESS);
	CHECK_EQ(ffv_poll_cq(a.cq, 1, &wc), 0);
	disconnect();
}

/* ---- threads ------------------------------------------------------------------------------------------------------------ */

/* Which thread's turn it is is for the batches themselves to say: a batch is begun by one thread at a time, and what it
 * reads in it, nobody changes meanwhile. */
static uint32_t next_batch;

static _Atomic uint64_t polled;

static bool has_room(uint64_t wr_id)
{
	return wr_id - ffv_load_acquire(&polled) < DEPTH;
}

static void *post_batches(void *arg)
{
	struct ffv_qp_ex *ex = arg;

	for (;;) {
		ffv_wr_start(ex);
		uint32_t number = next_batch;
		if (number == BATCHES) {
			ffv_wr_abort(ex);
			return NULL;
		}
		for (uint32_t i = 0; i < IN_BATCH; i++) {
			ex->wr_id = number * IN_BATCH + i;
			ffv_wr_rdma_write(ex, mb->rkey, (uintptr_t)mb->addr);
			ffv_wr_set_inline_data(ex, &ex->wr_id, sizeof ex->wr_id);
		}
		if (!has_room(ex->wr_id)) {
			ffv_wr_abort(ex);
			sched_yield();
			continue;
		}
		next_batch++;
		CHECK_OK(ffv_wr_complete(ex));
	}
}

/* Batches of two threads, the completions polled by a third: none is lost or torn, and they come in order. */
static void test_batches_of_threads(void)
{
	struct ffv_qp_ex *ex = connected(ALL_OPS);
	pthread_t threads[2];

	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, post_batches, ex), 0);
	for (uint64_t i = 0; i < (uint64_t)BATCHES * IN_BATCH; i++) {
		CHECK_EQ(poll_status(a.cq, FFV_WC_SUCCESS).wr_id, i);
		ffv_store_release(&polled, i + 1);
	}
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	CHECK_EQ(*(uint64_t *)mb->addr, (uint64_t)BATCHES * IN_BATCH - 1);
	disconnect();
}

/* ---- atomic writes and flushes ------------------------------------------------------------------------------------------- */

static void write_word(struct ffv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr, uint64_t value, uint32_t status)
{
	ffv_wr_start(ex);
	ffv_wr_atomic_write(ex, rkey, remote_addr, &value);
	CHECK_OK(ffv_wr_complete(ex));
	struct ffv_wc wc = poll_status(a.cq, status);
	if (status == FFV_WC_SUCCESS)
		CHECK_EQ(wc.opcode, FFV_WC_ATOMIC_WRITE);
}

static void test_atomic_writes(void)
{
	static const struct { uint32_t offset, access, status; } bad[] = {
		{ 4, PAIR_ACCESS, FFV_WC_REM_INV_REQ_ERR },
		{ 4096, PAIR_ACCESS, FFV_WC_REM_ACCESS_ERR },
		{ 0, FFV_ACCESS_REMOTE_READ, FFV_WC_REM_INV_REQ_ERR },
	};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct ffv_qp_ex *ex = connected(ALL_OPS);
		write_word(ex, mb->rkey, (uintptr_t)mb->addr + 8, 0x1122334455667788, FFV_WC_SUCCESS);
		CHECK_EQ(((uint64_t *)mb->addr)[1], 0x1122334455667788);
		allow_flush(bad[i].access);
		write_word(ex, mb->rkey, (uintptr_t)mb->addr + bad[i].offset, 1, bad[i].status);
		CHECK_EQ(((uint64_t *)mb->addr)[0], 0);
		disconnect();
	}
}

static void test_an_atomic_write_by_a_work_request(void)
{
	connected(ALL_OPS);
	struct ffv_sge sge;
	struct ffv_send_wr wr = send_wr(5, FFV_WR_ATOMIC_WRITE, &sge, ma, 16, 8), *bad;

	wr.wr.rdma = (struct ffv_wr_rdma){ (uintptr_t)mb->addr, mb->rkey };
	((uint64_t *)ma->addr)[2] = 99;
	CHECK_OK(ffv_post_send(qa, &wr, NULL));
	CHECK_EQ(poll_status(a.cq, FFV_WC_SUCCESS).opcode, FFV_WC_ATOMIC_WRITE);
	CHECK_EQ(*(uint64_t *)mb->addr, 99);
	wr.opcode = FFV_WR_FLUSH;
	CHECK_FAIL(ffv_post_send(qa, &wr, &bad), EOPNOTSUPP, "ffv_wr_flush");
	CHECK(bad == &wr);
	wr.opcode = FFV_WR_ATOMIC_WRITE;
	sge.length = 4;
	CHECK_OK(ffv_post_send(qa, &wr, NULL));
	poll_status(a.cq, FFV_WC_LOC_LEN_ERR);
	disconnect();
}

static struct ffv_wc flush(struct ffv_qp_ex *ex, uint64_t addr, size_t length, uint8_t level, uint32_t status)
{
	ffv_wr_start(ex);
	ffv_wr_flush(ex, mb->rkey, addr, length, FFV_FLUSH_GLOBAL, level);
	CHECK_OK(ffv_wr_complete(ex));
	return poll_status(a.cq, status);
}

static void test_flushes(void)
{
	struct ffv_mr *persistent = NULL;
	struct ffv_qp_ex *ex = connected(ALL_OPS);

	allow_flush(PAIR_ACCESS | FFV_ACCESS_FLUSH_GLOBAL);
	CHECK_EQ(flush(ex, (uintptr_t)mb->addr, 4096, FFV_FLUSH_RANGE, FFV_WC_SUCCESS).opcode, FFV_WC_FLUSH);
	flush(ex, 12345, 99999, FFV_FLUSH_MR, FFV_WC_SUCCESS); /* the region: the range does not matter */
	flush(ex, (uintptr_t)mb->addr, 4097, FFV_FLUSH_RANGE, FFV_WC_REM_ACCESS_ERR);
	disconnect();
	ex = connected(ALL_OPS); /* the queue pair does not allow it */
	flush(ex, (uintptr_t)mb->addr, 8, FFV_FLUSH_RANGE, FFV_WC_REM_INV_REQ_ERR);
	disconnect();
	ex = connected(ALL_OPS); /* the memory does not */
	allow_flush(PAIR_ACCESS | FFV_ACCESS_FLUSH_GLOBAL);
	CHECK_OK(ffv_rereg_mr(mb, FFV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, PAIR_ACCESS));
	flush(ex, 0, 0, FFV_FLUSH_MR, FFV_WC_REM_ACCESS_ERR);
	disconnect();
	CHECK_FAIL(ffv_alloc_mr(a.pd, 4096, FFV_ACCESS_FLUSH_PERSISTENT, &persistent), EOPNOTSUPP, "persistent");
}

int main(void)
{
	opened_directory();
	side_open(&a, 256);
	side_open(&b, 256);
	test_operations_of_the_types();
	test_a_batch_is_posted_as_a_whole();
	test_mistakes_are_kept();
	test_a_full_queue_takes_nothing_of_a_batch();
	test_batches_of_threads();
	test_atomic_writes();
	test_an_atomic_write_by_a_work_request();
	test_flushes();
	side_close(&a);
	side_close(&b);
	scratch_remove();
	return 0;
}

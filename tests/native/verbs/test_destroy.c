/* Objects that go away while others use them: queue pairs under traffic, memory under load, contexts with peers. */
#include <errno.h>
#include <pthread.h>

#include "pair.h"
#include "verbs/context.h"

#define BYTES 4096u
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define ROUNDS 60u
#else
#define ROUNDS 300u
#endif

static struct side a, b;
static struct ffv_mr *mr_a, *mr_b;
static unsigned seed;

static void open_both(void)
{
	side_open(&a, 256);
	side_open(&b, 256);
	CHECK_OK(ffv_alloc_mr(a.pd, BYTES, PAIR_ACCESS, &mr_a));
	CHECK_OK(ffv_alloc_mr(b.pd, BYTES, PAIR_ACCESS, &mr_b));
}

static void close_both(void)
{
	CHECK_OK(ffv_dereg_mr(mr_a));
	CHECK_OK(ffv_dereg_mr(mr_b));
	side_close(&a);
	side_close(&b);
}

/* ---- queue pairs -------------------------------------------------------------------------------------------------------- */

static _Atomic(struct ffv_qp *) sender;
static _Atomic uint32_t sender_busy;  /* the poster uses `sender` */
static _Atomic uint32_t stop;
static _Atomic uint64_t posted;

/* Posts to whatever queue pair there is; the user's duty is only not to use one that is being destroyed. */
static void *post_all_the_time(void *arg)
{
	struct ffv_wc wc[16];

	(void)arg;
	while (!ffv_load_acquire(&stop)) {
		ffv_store_seq_cst(&sender_busy, 1u);
		struct ffv_qp *qp = ffv_load_seq_cst(&sender);
		if (qp) {
			int rc = post_send(qp, 1, mr_a, 0, 64);
			CHECK(rc == 0 || rc == -ENOMEM);
			ffv_fetch_add(&posted, rc == 0);
		}
		ffv_store_seq_cst(&sender_busy, 0u);
		CHECK(ffv_poll_cq(a.cq, 16, wc) >= 0);
		if (!qp)
			sched_yield();
	}
	return NULL;
}

static void take_sender_away(void)
{
	ffv_store_seq_cst(&sender, (struct ffv_qp *)NULL);
	while (ffv_load_seq_cst(&sender_busy))
		sched_yield();
}

static void serve(struct ffv_qp *qp, uint32_t count)
{
	struct ffv_wc wc[16];

	for (uint32_t got = 0; got < count;) {
		for (int i = 0; i < 16; i++)
			post_recv(qp, 1, mr_b, 0, 128);
		int n = ffv_poll_cq(b.cq, 16, wc);
		CHECK(n >= 0);
		for (int i = 0; i < n; i++)
			CHECK_EQ(wc[i].status, FFV_WC_SUCCESS);
		got += (uint32_t)n;
		if (!n)
			sched_yield();
	}
}

static void drain(struct ffv_cq *cq)
{
	struct ffv_wc wc[16];

	while (ffv_poll_cq(cq, 16, wc) > 0)
		;
}

/* Which side goes first, in which state, is drawn. The other one gets an error or waits; nothing is left behind. */
static void test_queue_pairs_under_traffic(void)
{
	unsigned state = seed;
	pthread_t thread;

	open_both();
	CHECK_EQ(pthread_create(&thread, NULL, post_all_the_time, NULL), 0);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct ffv_qp *tx = side_qp(&a, a.cq, FFV_QPT_RC, NULL, 32);
		struct ffv_qp *rx = side_qp(&b, b.cq, FFV_QPT_RC, NULL, 32);
		qp_connect(tx, &a, rx, &b);
		ffv_store_seq_cst(&sender, tx);
		serve(rx, 50);
		switch (rand_r(&state) % 4) {
		case 0: /* the receiver goes under fire */
			CHECK_OK(ffv_destroy_qp(rx));
			take_sender_away();
			CHECK_OK(ffv_destroy_qp(tx));
			break;
		case 1:
			CHECK_OK(qp_to_error(rx));
			take_sender_away();
			CHECK_OK(ffv_destroy_qp(tx));
			CHECK_OK(ffv_destroy_qp(rx));
			break;
		case 2: /* the sender fails under its own fire */
			CHECK_OK(qp_to_error(tx));
			take_sender_away();
			CHECK_OK(ffv_destroy_qp(tx));
			CHECK_OK(ffv_destroy_qp(rx));
			break;
		default:
			take_sender_away();
			CHECK_OK(ffv_destroy_qp(tx));
			CHECK_OK(ffv_destroy_qp(rx));
		}
		drain(b.cq);
	}
	ffv_store_release(&stop, 1u);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	printf("%llu posted\n", (unsigned long long)ffv_load_relaxed(&posted));
	CHECK_EQ(ffv_load_relaxed(&a.ctx->view.arena->num_qp), 0);
	close_both();
}

/* ---- memory ----------------------------------------------------------------------------------------------------------------- */

static _Atomic uint32_t rkey;
static _Atomic uint64_t hits, misses;

static void *write_all_the_time(void *arg)
{
	const struct side *to = arg;
	struct ffv_qp *peer = NULL;
	struct ffv_sge sge;

	while (!ffv_load_acquire(&stop)) {
		struct ffv_send_wr wr = send_wr(1, FFV_WR_RDMA_WRITE, &sge, mr_a, 0, 64);
		struct ffv_qp *tx = side_qp(&a, a.cq, FFV_QPT_RC, NULL, 32);
		peer = side_qp(&b, b.cq, FFV_QPT_RC, NULL, 32);
		qp_connect(tx, &a, peer, to);
		for (;;) { /* until it hits a key that is no more */
			wr.wr.rdma.remote_addr = (uintptr_t)mr_b->addr;
			wr.wr.rdma.rkey = ffv_load_acquire(&rkey);
			CHECK_OK(ffv_post_send(tx, &wr, NULL));
			struct ffv_wc wc = poll_one(a.cq);
			if (wc.status != FFV_WC_SUCCESS) {
				CHECK_EQ(wc.status, FFV_WC_REM_ACCESS_ERR);
				ffv_fetch_add(&misses, 1);
				break;
			}
			ffv_fetch_add(&hits, 1);
			if (ffv_load_acquire(&stop))
				break;
		}
		CHECK_OK(ffv_destroy_qp(tx));
		CHECK_OK(ffv_destroy_qp(peer));
		drain(a.cq);
		drain(b.cq);
	}
	return NULL;
}

/* When ffv_dereg_mr returns, nobody writes there any more: what the owner puts there stays. */
static void test_memory_under_load(void)
{
	uint8_t *memory;
	pthread_t thread;

	open_both();
	ffv_store_relaxed(&stop, 0u);
	ffv_store_relaxed(&rkey, 0u);
	memset(mr_a->addr, 0x77, BYTES);
	memory = mr_b->addr;
	CHECK_EQ(pthread_create(&thread, NULL, write_all_the_time, &b), 0);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct ffv_mr *mr;
		CHECK_OK(ffv_reg_mr(b.pd, memory, 64, (uintptr_t)memory, PAIR_ACCESS, &mr));
		uint64_t before = ffv_load_relaxed(&hits);
		ffv_store_release(&rkey, mr->rkey);
		uint64_t deadline_ns = ffv_clock_ns() + PAIR_HANG_NS;
		while (ffv_load_relaxed(&hits) < before + 3) {
			sched_yield();
			CHECK(ffv_clock_ns() < deadline_ns);
		}
		CHECK_OK(ffv_dereg_mr(mr));
		memset(memory, 0x11, 64);
		uint64_t missed = ffv_load_relaxed(&misses);
		while (ffv_load_relaxed(&misses) == missed && round % 8 == 0) {
			sched_yield();
			CHECK(ffv_clock_ns() < deadline_ns);
		}
		for (unsigned i = 0; i < 64; i++)
			CHECK_EQ(memory[i], 0x11);
	}
	struct ffv_mr *last;
	CHECK_OK(ffv_reg_mr(b.pd, memory, 64, (uintptr_t)memory, PAIR_ACCESS, &last));
	ffv_store_release(&rkey, last->rkey);
	ffv_store_release(&stop, 1u);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_OK(ffv_dereg_mr(last));
	printf("%llu writes, %llu met a revoked key\n", (unsigned long long)ffv_load_relaxed(&hits),
	       (unsigned long long)ffv_load_relaxed(&misses));
	close_both();
}

/* ---- contexts ----------------------------------------------------------------------------------------------------------------- */

/* One context closes while the other still has queue pairs to it: those run into their timers, and everything else goes
 * on. */
static void test_a_peer_closes(void)
{
	open_both();
	for (unsigned round = 0; round < 20; round++) {
		struct side c;
		side_open(&c, 64);
		struct ffv_qp *tx = side_qp(&a, a.cq, FFV_QPT_RC, NULL, 32);
		struct ffv_qp *rx = side_qp(&c, c.cq, FFV_QPT_RC, NULL, 32);
		qp_connect(tx, &a, rx, &c);
		CHECK_OK(post_send(tx, 1, mr_a, 0, 8)); /* waits: no receive */
		CHECK_OK(ffv_destroy_qp(rx));
		side_close(&c);
		CHECK_OK(post_send(tx, 2, mr_a, 0, 8));
		CHECK_OK(qp_to_error(tx));
		CHECK_EQ(poll_status(a.cq, FFV_WC_WR_FLUSH_ERR).wr_id, 1);
		CHECK_EQ(poll_status(a.cq, FFV_WC_WR_FLUSH_ERR).wr_id, 2);
		CHECK_OK(ffv_destroy_qp(tx));
	}
	close_both();
}

/* What is in use cannot be destroyed, and says by what. */
static void test_order_of_destruction(void)
{
	struct ffv_srq_init_attr attr = { .attr = { .max_wr = 4, .max_sge = 1 } };
	struct ffv_srq *srq;

	side_open(&a, 16);
	CHECK_OK(ffv_create_srq(a.pd, &attr, &srq));
	struct ffv_qp *qp = side_qp(&a, a.cq, FFV_QPT_RC, srq, 4);
	CHECK_FAIL(ffv_destroy_cq(a.cq), EBUSY, "queue pairs");
	CHECK_FAIL(ffv_destroy_srq(srq), EBUSY, "queue pairs");
	CHECK_RC(ffv_dealloc_pd(a.pd), -EBUSY);
	CHECK_FAIL(ffv_close_device(a.ctx), EBUSY, "still open");
	CHECK_OK(ffv_destroy_qp(qp));
	CHECK_OK(ffv_destroy_srq(srq));
	side_close(&a);
}

/* Several threads create and destroy queue pairs of one context, on the same completion queue. */
static void *create_and_destroy(void *arg)
{
	struct side *side = arg;

	for (unsigned i = 0; i < ROUNDS; i++) {
		struct ffv_qp *one = side_qp(side, side->cq, i % 2 ? FFV_QPT_RC : FFV_QPT_UD, NULL, 8);
		struct ffv_qp *two = side_qp(side, side->cq, FFV_QPT_RC, NULL, 8);
		CHECK(ffv_qp_num(one) != ffv_qp_num(two));
		qp_to_init(two);
		CHECK_OK(post_recv(two, 7, mr_a, 0, 8));
		CHECK_OK(qp_to_error(two));
		CHECK_OK(ffv_destroy_qp(one));
		CHECK_OK(ffv_destroy_qp(two));
	}
	return NULL;
}

static void test_many_at_once(void)
{
	pthread_t threads[3];

	open_both();
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, create_and_destroy, &a), 0);
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	drain(a.cq);
	close_both();
}

int main(void)
{
	seed = test_seed();
	opened_directory();
	test_order_of_destruction();
	test_queue_pairs_under_traffic();
	test_memory_under_load();
	test_a_peer_closes();
	test_many_at_once();
	scratch_remove();
	return 0;
}

/* Two contexts in one process, several threads each: the thread sanitizer sees both sides of every edge. Payloads are
 * read only after the completion that says they are there. */
#include <errno.h>
#include <pthread.h>

#include "pair.h"

#define PAIRS 3u
#define DEPTH 16u
#define BYTES 256u
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define MESSAGES 3000u
#else
#define MESSAGES 30000u
#endif

static struct side a, b;
static unsigned seed;

/* One direction of one pair of queue pairs: a thread that sends, and one that receives. */
struct flow {
	struct side *from, *to;
	struct ffv_qp *tx, *rx;
	struct ffv_cq *tx_cq, *rx_cq;
	struct ffv_mr *tx_mr, *rx_mr;
	unsigned number;
};

static void fill(uint8_t *at, uint32_t length, uint64_t message)
{
	for (uint32_t i = 0; i < length; i++)
		at[i] = (uint8_t)(message * 7 + i);
}

static uint32_t length_of(uint64_t message)
{
	return 1 + (uint32_t)(message * 37 % (BYTES - 1));
}

static void *transmit(void *arg)
{
	struct flow *flow = arg;
	uint64_t posted = 0, done = 0;

	while (done < MESSAGES) {
		while (posted < MESSAGES && posted - done < DEPTH) {
			uint64_t offset = posted % DEPTH * BYTES;
			fill((uint8_t *)flow->tx_mr->addr + offset, length_of(posted), posted);
			CHECK_OK(post_send(flow->tx, posted, flow->tx_mr, offset, length_of(posted)));
			posted++;
		}
		CHECK_EQ(poll_status(flow->tx_cq, FFV_WC_SUCCESS).wr_id, done);
		done++;
	}
	return NULL;
}

static void check(const uint8_t *at, uint32_t length, uint64_t message)
{
	for (uint32_t i = 0; i < length; i++)
		CHECK_EQ(at[i], (uint8_t)(message * 7 + i));
}

static void *receive(void *arg)
{
	struct flow *flow = arg;
	uint64_t posted = 0;

	for (uint64_t done = 0; done < MESSAGES; done++) {
		while (posted < MESSAGES && posted - done < DEPTH) {
			CHECK_OK(post_recv(flow->rx, posted, flow->rx_mr, posted % DEPTH * BYTES, BYTES));
			posted++;
		}
		struct ffv_wc wc = poll_status(flow->rx_cq, FFV_WC_SUCCESS);
		CHECK_EQ(wc.wr_id, done);
		CHECK_EQ(wc.byte_len, length_of(done));
		check((uint8_t *)flow->rx_mr->addr + done % DEPTH * BYTES, wc.byte_len, done);
	}
	return NULL;
}

static struct ffv_mr *memory(struct side *side)
{
	struct ffv_mr *mr;

	CHECK_OK(ffv_alloc_mr(side->pd, DEPTH * BYTES, PAIR_ACCESS, &mr));
	return mr;
}

static void flow_open(struct flow *flow, struct side *from, struct side *to)
{
	flow->from = from;
	flow->to = to;
	CHECK_OK(ffv_create_cq(from->ctx, 64, NULL, NULL, 0, &flow->tx_cq));
	CHECK_OK(ffv_create_cq(to->ctx, 64, NULL, NULL, 0, &flow->rx_cq));
	flow->tx = side_qp(from, flow->tx_cq, FFV_QPT_RC, NULL, DEPTH);
	flow->rx = side_qp(to, flow->rx_cq, FFV_QPT_RC, NULL, DEPTH);
	qp_connect(flow->tx, from, flow->rx, to);
	flow->tx_mr = memory(from);
	flow->rx_mr = memory(to);
}

static void flow_close(struct flow *flow)
{
	CHECK_OK(ffv_destroy_qp(flow->tx));
	CHECK_OK(ffv_destroy_qp(flow->rx));
	CHECK_OK(ffv_dereg_mr(flow->tx_mr));
	CHECK_OK(ffv_dereg_mr(flow->rx_mr));
	CHECK_OK(ffv_destroy_cq(flow->tx_cq));
	CHECK_OK(ffv_destroy_cq(flow->rx_cq));
}

static void test_reliable(void)
{
	struct flow flows[PAIRS];
	pthread_t threads[2 * PAIRS];

	side_open(&a, 16);
	side_open(&b, 16);
	for (unsigned i = 0; i < PAIRS; i++) {
		flow_open(&flows[i], i % 2 ? &a : &b, i % 2 ? &b : &a);
		CHECK_EQ(pthread_create(&threads[2 * i], NULL, transmit, &flows[i]), 0);
		CHECK_EQ(pthread_create(&threads[2 * i + 1], NULL, receive, &flows[i]), 0);
	}
	for (unsigned i = 0; i < 2 * PAIRS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	for (unsigned i = 0; i < PAIRS; i++)
		flow_close(&flows[i]);
	side_close(&a);
	side_close(&b);
}

/* ---- several senders into one shared receive queue, one completion queue -------------------------------------------------- */

#define SENDERS 3u

static struct ffv_srq *srq;
static struct flow senders[SENDERS];
static _Atomic uint32_t senders_running;

static void *send_numbered(void *arg)
{
	struct flow *flow = arg;
	uint64_t posted = 0, done = 0;

	while (done < MESSAGES / 4) {
		while (posted < MESSAGES / 4 && posted - done < DEPTH) {
			uint32_t *words = (uint32_t *)(void *)((uint8_t *)flow->tx_mr->addr + posted % DEPTH * BYTES);
			words[0] = flow->number;
			words[1] = (uint32_t)posted;
			CHECK_OK(post_send(flow->tx, posted, flow->tx_mr, posted % DEPTH * BYTES, 8));
			posted++;
		}
		poll_status(flow->tx_cq, FFV_WC_SUCCESS);
		done++;
	}
	return NULL;
}

/* Two threads poll one queue and post to one shared receive queue; together they see each message once. */
static struct ffv_mr *srq_mr;
static struct ffv_cq *srq_cq;
static _Atomic uint32_t received[SENDERS];

static void *receive_shared(void *arg)
{
	struct ffv_wc wc;

	(void)arg;
	while (ffv_load_relaxed(&received[0]) + ffv_load_relaxed(&received[1]) + ffv_load_relaxed(&received[2]) <
	       SENDERS * (MESSAGES / 4)) {
		int n = ffv_poll_cq(srq_cq, 1, &wc);
		CHECK(n >= 0);
		if (!n) {
			sched_yield();
			continue;
		}
		CHECK_EQ(wc.status, FFV_WC_SUCCESS);
		const uint32_t *words = (uint32_t *)(void *)((uint8_t *)srq_mr->addr + wc.wr_id * BYTES);
		CHECK(words[0] < SENDERS);
		CHECK_EQ(wc.qp_num, ffv_qp_num(senders[words[0]].rx));
		CHECK(words[1] < MESSAGES / 4);
		ffv_fetch_add(&received[words[0]], 1u);
		struct ffv_sge sge = { (uintptr_t)srq_mr->addr + wc.wr_id * BYTES, BYTES, srq_mr->lkey };
		struct ffv_recv_wr wr = { .wr_id = wc.wr_id, .sg_list = &sge, .num_sge = 1 };
		CHECK_OK(ffv_post_srq_recv(srq, &wr, NULL));
	}
	return NULL;
}

static void test_shared_receive_queue(void)
{
	struct ffv_srq_init_attr attr = { .attr = { .max_wr = 8, .max_sge = 1 } };
	pthread_t threads[SENDERS + 2];

	side_open(&a, 16);
	side_open(&b, 64);
	srq_cq = b.cq;
	CHECK_OK(ffv_create_srq(b.pd, &attr, &srq));
	CHECK_OK(ffv_alloc_mr(b.pd, 8 * BYTES, PAIR_ACCESS, &srq_mr));
	for (unsigned i = 0; i < SENDERS; i++) {
		struct flow *flow = &senders[i];
		flow->number = i;
		CHECK_OK(ffv_create_cq(a.ctx, 32, NULL, NULL, 0, &flow->tx_cq));
		flow->tx = side_qp(&a, flow->tx_cq, FFV_QPT_RC, NULL, DEPTH);
		flow->rx = side_qp(&b, srq_cq, FFV_QPT_RC, srq, DEPTH);
		qp_connect(flow->tx, &a, flow->rx, &b);
		flow->tx_mr = memory(&a);
	}
	for (uint64_t i = 0; i < 8; i++)
		CHECK_OK(post_recv(senders[0].rx, i, srq_mr, i * BYTES, BYTES));
	for (unsigned i = 0; i < SENDERS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, send_numbered, &senders[i]), 0);
	for (unsigned i = SENDERS; i < SENDERS + 2; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, receive_shared, NULL), 0);
	for (unsigned i = 0; i < SENDERS + 2; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	for (unsigned i = 0; i < SENDERS; i++) {
		CHECK_EQ(ffv_load_relaxed(&received[i]), MESSAGES / 4);
		CHECK_OK(ffv_destroy_qp(senders[i].tx));
		CHECK_OK(ffv_destroy_qp(senders[i].rx));
		CHECK_OK(ffv_dereg_mr(senders[i].tx_mr));
		CHECK_OK(ffv_destroy_cq(senders[i].tx_cq));
	}
	CHECK_OK(ffv_dereg_mr(srq_mr));
	CHECK_OK(ffv_destroy_srq(srq));
	side_close(&a);
	side_close(&b);
}

/* ---- datagrams from several senders to one queue pair ----------------------------------------------------------------------- */

static struct ffv_qp *target;
static _Atomic uint32_t datagrams_in;

static void *send_datagrams(void *arg)
{
	struct flow *flow = arg;
	struct ffv_ah_attr attr = ah_to(&b);
	struct ffv_ah *ah;
	struct ffv_sge sge;

	CHECK_OK(ffv_create_ah(flow->from->pd, &attr, &ah));
	for (uint64_t i = 0; i < MESSAGES / 4; i++) {
		struct ffv_send_wr wr = send_wr(i, FFV_WR_SEND, &sge, flow->tx_mr, 0, 32);
		wr.wr.ud = (struct ffv_wr_ud){ ah, ffv_qp_num(target), PAIR_QKEY };
		CHECK_OK(ffv_post_send(flow->tx, &wr, NULL));
		CHECK_EQ(poll_status(flow->tx_cq, FFV_WC_SUCCESS).wr_id, i);
	}
	CHECK_OK(ffv_destroy_ah(ah));
	ffv_fetch_sub(&senders_running, 1u);
	return NULL;
}

static void receive_datagrams(struct ffv_mr *mr)
{
	struct ffv_wc wc;
	int n;

	while ((n = ffv_poll_cq(b.cq, 1, &wc)) > 0 || ffv_load_acquire(&senders_running)) {
		CHECK(n >= 0);
		if (!n) {
			sched_yield();
			continue;
		}
		CHECK_EQ(wc.status, FFV_WC_SUCCESS);
		CHECK_EQ(wc.byte_len, 72);
		const uint8_t *body = (uint8_t *)mr->addr + wc.wr_id * BYTES + 40;
		CHECK(body[0] < SENDERS);
		CHECK_EQ(ffv_qp_num(senders[body[0]].tx), wc.src_qp);
		ffv_fetch_add(&datagrams_in, 1u);
		CHECK_OK(post_recv(target, wc.wr_id, mr, wc.wr_id * BYTES, BYTES));
	}
}

static void test_datagrams(void)
{
	pthread_t threads[SENDERS];
	struct ffv_mr *mr;

	side_open(&a, 16);
	side_open(&b, 64);
	target = side_qp(&b, b.cq, FFV_QPT_UD, NULL, DEPTH);
	qp_to_init(target);
	qp_to_rtr(target, &a, 0);
	mr = memory(&b);
	for (uint64_t i = 0; i < DEPTH; i++)
		CHECK_OK(post_recv(target, i, mr, i * BYTES, BYTES));
	ffv_store_relaxed(&senders_running, SENDERS);
	for (unsigned i = 0; i < SENDERS; i++) {
		struct flow *flow = &senders[i];
		flow->from = i % 2 ? &b : &a; /* from the same context, too */
		CHECK_OK(ffv_create_cq(flow->from->ctx, 32, NULL, NULL, 0, &flow->tx_cq));
		flow->tx = side_qp(flow->from, flow->tx_cq, FFV_QPT_UD, NULL, DEPTH);
		qp_to_init(flow->tx);
		qp_to_rtr(flow->tx, &b, 0);
		qp_to_rts(flow->tx);
		flow->tx_mr = memory(flow->from);
		memset(flow->tx_mr->addr, (int)i, 32);
		CHECK_EQ(pthread_create(&threads[i], NULL, send_datagrams, flow), 0);
	}
	receive_datagrams(mr);
	for (unsigned i = 0; i < SENDERS; i++) {
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
		CHECK_OK(ffv_destroy_qp(senders[i].tx));
		CHECK_OK(ffv_dereg_mr(senders[i].tx_mr));
		CHECK_OK(ffv_destroy_cq(senders[i].tx_cq));
	}
	printf("%u of %u datagrams received\n", ffv_load_relaxed(&datagrams_in), SENDERS * (MESSAGES / 4));
	CHECK(ffv_load_relaxed(&datagrams_in) >= DEPTH); /* what finds no receive is lost, but not these */
	CHECK_OK(ffv_destroy_qp(target));
	CHECK_OK(ffv_dereg_mr(mr));
	side_close(&a);
	side_close(&b);
}

/* ---- several threads post to one queue pair ------------------------------------------------------------------------------------ */

static struct flow common;
static _Atomic uint64_t sum_sent, sum_received;

static void *post_to_common(void *arg)
{
	unsigned state = seed + (unsigned)(uintptr_t)arg;

	for (uint32_t i = 0; i < MESSAGES / 4;) {
		uint32_t length = 1 + (uint32_t)rand_r(&state) % BYTES;
		int rc = post_send(common.tx, length, common.tx_mr, 0, length);
		if (rc == -ENOMEM) {
			sched_yield();
			continue;
		}
		CHECK_OK(rc);
		ffv_fetch_add(&sum_sent, length);
		i++;
	}
	return NULL;
}

static void test_one_queue_pair_many_posters(void)
{
	pthread_t threads[3];
	struct ffv_wc wc;
	uint32_t sent = 0, got = 0;

	side_open(&a, 16);
	side_open(&b, 16);
	flow_open(&common, &a, &b);
	for (uint64_t i = 0; i < DEPTH; i++)
		CHECK_OK(post_recv(common.rx, i, common.rx_mr, i * BYTES, BYTES));
	for (uintptr_t i = 0; i < 3; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, post_to_common, (void *)i), 0);
	while (sent < 3 * (MESSAGES / 4) || got < 3 * (MESSAGES / 4)) {
		if (ffv_poll_cq(common.tx_cq, 1, &wc) == 1) {
			CHECK_EQ(wc.status, FFV_WC_SUCCESS);
			sent++;
		}
		if (ffv_poll_cq(common.rx_cq, 1, &wc) == 1) {
			CHECK_EQ(wc.status, FFV_WC_SUCCESS);
			ffv_fetch_add(&sum_received, wc.byte_len);
			got++;
			CHECK_OK(post_recv(common.rx, wc.wr_id, common.rx_mr, wc.wr_id * BYTES, BYTES));
		} else {
			sched_yield();
		}
	}
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	CHECK_EQ(ffv_load_relaxed(&sum_sent), ffv_load_relaxed(&sum_received));
	flow_close(&common);
	side_close(&a);
	side_close(&b);
}

int main(void)
{
	seed = test_seed();
	opened_directory();
	test_reliable();
	test_shared_receive_queue();
	test_datagrams();
	test_one_queue_pair_many_posters();
	scratch_remove();
	return 0;
}

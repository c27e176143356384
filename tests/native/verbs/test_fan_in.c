/* Many senders, one shared receive queue that is empty most of the time: who waits is served in turn, nobody is forgotten,
 * by the poster of receives or by the timer. Threads of one process, each with a context of its own. */
#include <pthread.h>

#include "pair.h"

#define SENDERS 6u
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define MESSAGES 500u
#else
#define MESSAGES 3000u
#endif
#define RECEIVES 4u
#define DEPTH 16u
#define TURNS 5u
#define ROUNDS 20u

static struct side senders[SENDERS], receiver;
static struct ffv_qp *qps[SENDERS], *peers[SENDERS];
static struct ffv_mr *mrs[SENDERS], *inbox;
static struct ffv_srq *srq;

static void make_qps(unsigned i)
{
	qps[i] = side_qp(&senders[i], senders[i].cq, FFV_QPT_RC, NULL, DEPTH);
	peers[i] = side_qp(&receiver, receiver.cq, FFV_QPT_RC, srq, DEPTH);
	qp_connect(qps[i], &senders[i], peers[i], &receiver);
}

static void destroy_qps(unsigned i)
{
	CHECK_OK(ffv_destroy_qp(qps[i]));
	CHECK_OK(ffv_destroy_qp(peers[i]));
}

static void open_sides(void)
{
	struct ffv_srq_init_attr attr = { .attr = { .max_wr = DEPTH, .max_sge = 1 } };

	side_open(&receiver, 1024);
	CHECK_OK(ffv_alloc_mr(receiver.pd, 4096, PAIR_ACCESS, &inbox));
	CHECK_OK(ffv_create_srq(receiver.pd, &attr, &srq));
	for (unsigned i = 0; i < SENDERS; i++) {
		side_open(&senders[i], 64);
		CHECK_OK(ffv_alloc_mr(senders[i].pd, 4096, PAIR_ACCESS, &mrs[i]));
		make_qps(i);
	}
}

static void close_sides(void)
{
	for (unsigned i = 0; i < SENDERS; i++) {
		destroy_qps(i);
		CHECK_OK(ffv_dereg_mr(mrs[i]));
		side_close(&senders[i]);
	}
	CHECK_OK(ffv_destroy_srq(srq));
	CHECK_OK(ffv_dereg_mr(inbox));
	side_close(&receiver);
}

static void post_receive(uint64_t slot)
{
	struct ffv_sge sge = { (uintptr_t)inbox->addr + slot * 64, 64, inbox->lkey };
	struct ffv_recv_wr wr = { .wr_id = slot, .sg_list = &sge, .num_sge = 1 };

	CHECK_OK(ffv_post_srq_recv(srq, &wr, NULL));
}

/* Posts a receive and returns whose message it got. */
static unsigned serve_one(void)
{
	post_receive(0);
	struct ffv_wc wc = poll_status(receiver.cq, FFV_WC_SUCCESS);
	for (unsigned i = 0; i < SENDERS; i++)
		if (peers[i] && ffv_qp_num(peers[i]) == wc.qp_num)
			return i;
	CHECK(!"a message of one of them");
	return SENDERS;
}

/* The longest of timers: it must not run out, and serve somebody out of turn. */
static void set_rnr_timer(struct ffv_qp *qp, uint8_t code)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_RTS, .min_rnr_timer = code };

	CHECK_OK(ffv_modify_qp(qp, &attr, FFV_QP_STATE | FFV_QP_MIN_RNR_TIMER));
}

static void test_each_in_turn(void)
{
	open_sides();
	for (unsigned i = 0; i < SENDERS; i++) {
		set_rnr_timer(peers[i], 0);
		for (unsigned n = 0; n < TURNS; n++)
			CHECK_OK(post_send(qps[i], n, mrs[i], 0, 8));
	}
	for (unsigned turn = 0; turn + 1 < TURNS; turn++) {
		unsigned seen = 0;
		for (unsigned i = 0; i < SENDERS; i++)
			seen |= 1u << serve_one();
		CHECK_EQ(seen, (1u << SENDERS) - 1);
	}
	/* One is left to each. Whoever is next goes, and so do two others; the rest is still served. */
	unsigned last = serve_one(), gone = 0;
	for (unsigned i = 1; i <= 3; i++) {
		destroy_qps((last + i) % SENDERS);
		peers[(last + i) % SENDERS] = NULL;
		gone |= 1u << (last + i) % SENDERS;
	}
	unsigned seen = gone | 1u << last;
	for (unsigned i = 0; i < SENDERS - 4; i++)
		seen |= 1u << serve_one();
	CHECK_EQ(seen, (1u << SENDERS) - 1);
	for (unsigned i = 0; i < SENDERS; i++)
		if (gone & 1u << i)
			make_qps(i);
	close_sides();
}

static void *send_all(void *arg)
{
	uintptr_t which = (uintptr_t)arg;

	for (unsigned i = 0, outstanding = 0; i < MESSAGES || outstanding;) {
		if (i < MESSAGES && outstanding < DEPTH) {
			CHECK_OK(post_send(qps[which], i++, mrs[which], 0, 8));
			outstanding++;
			continue;
		}
		poll_status(senders[which].cq, FFV_WC_SUCCESS);
		outstanding--;
	}
	return NULL;
}

static void test_more_messages_than_receives(void)
{
	pthread_t threads[SENDERS];
	unsigned from[SENDERS] = { 0 };

	open_sides();
	for (uintptr_t i = 0; i < SENDERS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, send_all, (void *)i), 0);
	for (uint64_t slot = 0; slot < RECEIVES; slot++)
		post_receive(slot);
	for (unsigned n = 0; n < SENDERS * MESSAGES; n++) {
		struct ffv_wc wc = poll_status(receiver.cq, FFV_WC_SUCCESS);
		for (unsigned i = 0; i < SENDERS; i++)
			from[i] += ffv_qp_num(peers[i]) == wc.qp_num;
		post_receive(wc.wr_id);
	}
	for (unsigned i = 0; i < SENDERS; i++) {
		pthread_join(threads[i], NULL);
		CHECK_EQ(from[i], MESSAGES);
	}
	close_sides();
}

/* One that waits gets receives one after the other, each of which sets its timer anew, and then none: the timer that was
 * set last must still run out. */
static void test_the_last_timer_runs_out(void)
{
	open_sides();
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct ffv_qp_attr attr = { .qp_state = FFV_QPS_RTS, .rnr_retry = 2, .timeout = 14, .retry_cnt = 7,
					    .max_rd_atomic = 1 };
		destroy_qps(0);
		qps[0] = side_qp(&senders[0], senders[0].cq, FFV_QPT_RC, NULL, DEPTH);
		peers[0] = side_qp(&receiver, receiver.cq, FFV_QPT_RC, srq, DEPTH);
		qp_to_init(qps[0]);
		qp_to_init(peers[0]);
		qp_to_rtr(qps[0], &receiver, ffv_qp_num(peers[0]));
		qp_to_rtr(peers[0], &senders[0], ffv_qp_num(qps[0]));
		CHECK_OK(ffv_modify_qp(qps[0], &attr, FFV_QP_STATE | FFV_QP_SQ_PSN | FFV_QP_TIMEOUT | FFV_QP_RETRY_CNT |
				       FFV_QP_RNR_RETRY | FFV_QP_MAX_QP_RD_ATOMIC));
		qp_to_rts(peers[0]);
		set_rnr_timer(peers[0], 10);
		for (unsigned n = 0; n < DEPTH; n++)
			CHECK_OK(post_send(qps[0], n, mrs[0], 0, 8));
		for (unsigned n = 0; n < DEPTH / 2; n++)
			post_receive(n);
		unsigned done = 0, failed = 0;
		for (unsigned n = 0; n < DEPTH; n++) {
			struct ffv_wc wc = poll_one(senders[0].cq);
			done += wc.status == FFV_WC_SUCCESS;
			failed += wc.status == FFV_WC_RNR_RETRY_EXC_ERR;
			CHECK_EQ(wc.wr_id, n);
		}
		CHECK(done <= DEPTH / 2); /* on a busy machine its patience may have ended before the receives came */
		CHECK_EQ(failed, 1);
		for (unsigned n = 0; n < DEPTH / 2; n++)
			if (n >= done) { /* what is left of the receives is for the next round's */
				CHECK_OK(post_send(qps[1], n, mrs[1], 0, 8));
				poll_status(senders[1].cq, FFV_WC_SUCCESS);
			}
		for (unsigned n = 0; n < DEPTH / 2; n++)
			poll_status(receiver.cq, FFV_WC_SUCCESS);
	}
	close_sides();
}

int main(void)
{
	opened_directory();
	test_each_in_turn();
	test_more_messages_than_receives();
	test_the_last_timer_runs_out();
	scratch_remove();
	return 0;
}

/* Sleeping and waking through completion channels, and operations of several threads on one word, between two contexts
 * of one process. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>

#include "pair.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define MESSAGES 4000u
#define ADDS 2000u
#else
#define MESSAGES 40000u
#define ADDS 20000u
#endif
#define WINDOW 16u

static struct side a, b;
static unsigned seed;

/* ---- sleepers ----------------------------------------------------------------------------------------------------- */

struct end {
	struct side *side;
	struct ffv_comp_channel *channel;
	struct ffv_cq *cq;
	struct ffv_qp *qp;
	struct ffv_mr *mr;
};

static struct end ends[2];

static void end_open(struct end *end, struct side *side)
{
	end->side = side;
	CHECK_OK(ffv_create_comp_channel(side->ctx, &end->channel));
	CHECK_OK(ffv_create_cq(side->ctx, 128, NULL, end->channel, 0, &end->cq));
	end->qp = side_qp(side, end->cq, FFV_QPT_RC, NULL, WINDOW);
	CHECK_OK(ffv_alloc_mr(side->pd, 4096, PAIR_ACCESS, &end->mr));
}

static void end_close(struct end *end)
{
	CHECK_OK(ffv_destroy_qp(end->qp));
	CHECK_OK(ffv_dereg_mr(end->mr));
	CHECK_OK(ffv_destroy_cq(end->cq));
	CHECK_OK(ffv_destroy_comp_channel(end->channel));
}

/* Sleeps for the next event as a program does; one that does not come in a minute was lost. */
static void sleep_for_event(struct end *end)
{
	struct pollfd fd = { .fd = ffv_comp_channel_fd(end->channel), .events = POLLIN };
	struct ffv_cq *from;

	CHECK_EQ(poll(&fd, 1, 60000), 1);
	CHECK_OK(ffv_get_cq_event(end->channel, &from, NULL));
	CHECK(from == end->cq);
	ffv_ack_cq_events(from, 1);
}

/* Arms, polls, and only sleeps when nothing was there: whatever completes in between has to ring. When something was there, one of
 * the ends takes the arming back; if that is too late, an event has to come. */
static unsigned next_completions(struct end *end, struct ffv_wc *wc, unsigned count)
{
	for (;;) {
		int n = ffv_poll_cq(end->cq, (int)count, wc);
		CHECK(n >= 0);
		if (n)
			return (unsigned)n;
		CHECK_OK(ffv_req_notify_cq(end->cq, 0));
		n = ffv_poll_cq(end->cq, (int)count, wc);
		CHECK(n >= 0);
		if (!n) {
			sleep_for_event(end);
			continue;
		}
		if (end == &ends[0] && ffv_cancel_notify_cq(end->cq) == 0)
			sleep_for_event(end);
		return (unsigned)n;
	}
}

static void *answer(void *arg)
{
	struct end *end = arg;
	struct ffv_wc wc[8];
	uint32_t received = 0, sent = 0;

	while (received < MESSAGES || sent < MESSAGES) {
		unsigned n = next_completions(end, wc, 8);
		for (unsigned i = 0; i < n; i++) {
			CHECK_EQ(wc[i].status, FFV_WC_SUCCESS);
			if (wc[i].opcode != FFV_WC_RECV) {
				sent++;
				continue;
			}
			received++;
			CHECK_OK(post_recv(end->qp, 1, end->mr, 0, 8));
			CHECK_OK(post_send(end->qp, 2, end->mr, 8, 8));
		}
	}
	return NULL;
}

/* One message at a time and in bursts, drawn: both sides fall asleep all the time. */
static void test_no_wake_up_is_lost(void)
{
	unsigned state = seed;
	struct ffv_wc wc[8];
	uint32_t asked = 0, answered = 0, confirmed = 0;
	pthread_t thread;

	side_open(&a, 16);
	side_open(&b, 16);
	end_open(&ends[0], &a);
	end_open(&ends[1], &b);
	qp_connect(ends[0].qp, &a, ends[1].qp, &b);
	for (unsigned i = 0; i < WINDOW; i++) {
		CHECK_OK(post_recv(ends[0].qp, 1, ends[0].mr, 0, 8));
		CHECK_OK(post_recv(ends[1].qp, 1, ends[1].mr, 0, 8));
	}
	CHECK_EQ(pthread_create(&thread, NULL, answer, &ends[1]), 0);
	while (answered < MESSAGES) {
		unsigned burst = rand_r(&state) % 4 ? 1 : 1 + (unsigned)rand_r(&state) % (WINDOW / 2);
		for (; burst && asked < MESSAGES && asked - answered < WINDOW / 2; burst--, asked++)
			CHECK_OK(post_send(ends[0].qp, 2, ends[0].mr, 8, 8));
		while (answered < asked || confirmed < asked) {
			unsigned n = next_completions(&ends[0], wc, 8);
			for (unsigned i = 0; i < n; i++) {
				CHECK_EQ(wc[i].status, FFV_WC_SUCCESS);
				confirmed += wc[i].opcode == FFV_WC_SEND;
				if (wc[i].opcode != FFV_WC_RECV)
					continue;
				answered++;
				CHECK_OK(post_recv(ends[0].qp, 1, ends[0].mr, 0, 8));
			}
		}
	}
	CHECK_EQ(pthread_join(thread, NULL), 0);
	end_close(&ends[0]);
	end_close(&ends[1]);
	side_close(&a);
	side_close(&b);
}

static bool has_event(struct end *end)
{
	struct pollfd fd = { .fd = ffv_comp_channel_fd(end->channel), .events = POLLIN };

	return poll(&fd, 1, 0) == 1;
}

static void test_arming_is_taken_back(void)
{
	struct end *end = &ends[0];

	side_open(&a, 16);
	end_open(end, &a);
	qp_to_init(end->qp);
	qp_to_rtr(end->qp, &a, ffv_qp_num(end->qp)); /* to itself */
	qp_to_rts(end->qp);
	CHECK_EQ(ffv_cancel_notify_cq(NULL), -EINVAL);
	CHECK_EQ(ffv_cancel_notify_cq(end->cq), 0); /* it was not armed */
	for (int solicited_only = 0; solicited_only < 2; solicited_only++) {
		CHECK_OK(ffv_req_notify_cq(end->cq, solicited_only));
		CHECK_EQ(ffv_cancel_notify_cq(end->cq), 1);
		CHECK_OK(post_recv(end->qp, 1, end->mr, 0, 8));
		CHECK_OK(post_send(end->qp, 2, end->mr, 8, 8));
		poll_status(end->cq, FFV_WC_SUCCESS);
		poll_status(end->cq, FFV_WC_SUCCESS);
		CHECK(!has_event(end));
	}
	CHECK_OK(ffv_req_notify_cq(end->cq, 0));
	CHECK_OK(post_recv(end->qp, 1, end->mr, 0, 8));
	CHECK_OK(post_send(end->qp, 2, end->mr, 8, 8));
	CHECK_EQ(ffv_cancel_notify_cq(end->cq), 0);
	sleep_for_event(end);
	CHECK(!has_event(end));
	poll_status(end->cq, FFV_WC_SUCCESS);
	poll_status(end->cq, FFV_WC_SUCCESS);
	end_close(end);
	side_close(&a);
}

/* ---- one word ------------------------------------------------------------------------------------------------------ */

#define ADDERS 3u

static struct ffv_mr *word_mr;
static _Atomic uint64_t sum_of_originals;

/* Adds through a queue pair of its own; the owner of the word adds by the processor. */
static void *add_by_verbs(void *arg)
{
	struct side *side = arg;
	struct ffv_cq *cq, *other_cq;
	struct ffv_mr *mr;
	struct ffv_sge sge;

	CHECK_OK(ffv_create_cq(side->ctx, 16, NULL, NULL, 0, &cq));
	CHECK_OK(ffv_create_cq(b.ctx, 16, NULL, NULL, 0, &other_cq));
	struct ffv_qp *qp = side_qp(side, cq, FFV_QPT_RC, NULL, 4);
	struct ffv_qp *other = side_qp(&b, other_cq, FFV_QPT_RC, NULL, 4);
	qp_connect(qp, side, other, &b);
	CHECK_OK(ffv_alloc_mr(side->pd, 8, PAIR_ACCESS, &mr));
	for (uint32_t i = 0; i < ADDS; i++) {
		struct ffv_send_wr wr = send_wr(i, FFV_WR_ATOMIC_FETCH_AND_ADD, &sge, mr, 0, 8);
		wr.wr.atomic = (struct ffv_wr_atomic){ (uintptr_t)word_mr->addr, 1, 0, word_mr->rkey };
		CHECK_OK(ffv_post_send(qp, &wr, NULL));
		CHECK_EQ(poll_status(cq, FFV_WC_SUCCESS).wr_id, i);
		ffv_fetch_add(&sum_of_originals, *(uint64_t *)mr->addr);
	}
	CHECK_OK(ffv_destroy_qp(qp));
	CHECK_OK(ffv_destroy_qp(other));
	CHECK_OK(ffv_dereg_mr(mr));
	CHECK_OK(ffv_destroy_cq(cq));
	CHECK_OK(ffv_destroy_cq(other_cq));
	return NULL;
}

static void test_atomics_are_atomic(void)
{
	pthread_t threads[ADDERS];
	uint64_t total = (uint64_t)(ADDERS + 1) * ADDS;

	side_open(&a, 16);
	side_open(&b, 16);
	CHECK_OK(ffv_alloc_mr(b.pd, 8, PAIR_ACCESS, &word_mr));
	_Atomic uint64_t *word = word_mr->addr;
	for (unsigned i = 0; i < ADDERS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, add_by_verbs, i % 2 ? &b : &a), 0);
	for (uint32_t i = 0; i < ADDS; i++)
		ffv_fetch_add(&sum_of_originals, ffv_fetch_add(word, 1));
	for (unsigned i = 0; i < ADDERS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	CHECK_EQ(ffv_load_relaxed(word), total);
	CHECK_EQ(ffv_load_relaxed(&sum_of_originals), total * (total - 1) / 2); /* each value was seen by one */
	CHECK_OK(ffv_dereg_mr(word_mr));
	side_close(&a);
	side_close(&b);
}

/* ---- datagrams to queue pairs that come and go ---------------------------------------------------------------------- */

static _Atomic uint32_t target_qpn;
static _Atomic uint32_t stop;

static void *send_datagrams(void *arg)
{
	struct side *side = arg;
	struct ffv_ah_attr attr = ah_to(&b);
	struct ffv_cq *cq;
	struct ffv_ah *ah;
	struct ffv_mr *mr;
	struct ffv_sge sge;

	CHECK_OK(ffv_create_cq(side->ctx, 16, NULL, NULL, 0, &cq));
	struct ffv_qp *qp = side_qp(side, cq, FFV_QPT_UD, NULL, 4);
	qp_to_init(qp);
	qp_to_rtr(qp, &b, 0);
	qp_to_rts(qp);
	CHECK_OK(ffv_alloc_mr(side->pd, 64, PAIR_ACCESS, &mr));
	CHECK_OK(ffv_create_ah(side->pd, &attr, &ah));
	while (!ffv_load_acquire(&stop)) {
		struct ffv_send_wr wr = send_wr(1, FFV_WR_SEND, &sge, mr, 0, 32);
		wr.wr.ud = (struct ffv_wr_ud){ ah, ffv_load_relaxed(&target_qpn), PAIR_QKEY };
		CHECK_OK(ffv_post_send(qp, &wr, NULL));
		poll_status(cq, FFV_WC_SUCCESS); /* whatever became of it */
	}
	CHECK_OK(ffv_destroy_ah(ah));
	CHECK_OK(ffv_destroy_qp(qp));
	CHECK_OK(ffv_dereg_mr(mr));
	CHECK_OK(ffv_destroy_cq(cq));
	return NULL;
}

static void test_datagrams_to_what_comes_and_goes(void)
{
	pthread_t threads[2];
	struct ffv_mr *mr;
	struct ffv_wc wc;

	side_open(&a, 16);
	side_open(&b, 64);
	CHECK_OK(ffv_alloc_mr(b.pd, 4096, PAIR_ACCESS, &mr));
	ffv_store_relaxed(&target_qpn, b.ctx->block * FFV_QPN_BLOCK + 1); /* nobody */
	CHECK_EQ(pthread_create(&threads[0], NULL, send_datagrams, &a), 0);
	CHECK_EQ(pthread_create(&threads[1], NULL, send_datagrams, &b), 0);
	for (unsigned round = 0; round < 100; round++) {
		struct ffv_qp *qp = side_qp(&b, b.cq, FFV_QPT_UD, NULL, 16);
		qp_to_init(qp);
		qp_to_rtr(qp, &a, 0);
		for (uint64_t i = 0; i < 16; i++)
			CHECK_OK(post_recv(qp, i, mr, i * 128, 128));
		ffv_store_relaxed(&target_qpn, ffv_qp_num(qp));
		for (unsigned i = 0; i < 4; i++)
			CHECK_EQ(poll_status(b.cq, FFV_WC_SUCCESS).byte_len, 72);
		if (round % 2)
			CHECK_OK(qp_to_error(qp));
		CHECK_OK(ffv_destroy_qp(qp));
		while (ffv_poll_cq(b.cq, 1, &wc) > 0)
			CHECK(wc.status == FFV_WC_SUCCESS || wc.status == FFV_WC_WR_FLUSH_ERR);
	}
	ffv_store_release(&stop, 1u);
	for (unsigned i = 0; i < 2; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	CHECK_OK(ffv_dereg_mr(mr));
	side_close(&a);
	side_close(&b);
}

int main(void)
{
	seed = test_seed();
	opened_directory();
	test_no_wake_up_is_lost();
	test_arming_is_taken_back();
	test_atomics_are_atomic();
	test_datagrams_to_what_comes_and_goes();
	scratch_remove();
	return 0;
}

/* A shared receive queue is resized while several threads send through it: every message arrives once, with its contents,
 * and every receive comes back as what it was posted as. */
#include <errno.h>
#include <pthread.h>

#include "pair.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define MESSAGES 3000u
#else
#define MESSAGES 30000u
#endif
#define SENDERS 3u
#define LEAST 8u
#define SLOTS 64u

static struct side senders[SENDERS], receiver;
static struct ffv_qp *qps[SENDERS], *peers[SENDERS];
static struct ffv_mr *mrs[SENDERS], *inbox;
static struct ffv_srq *srq;
static _Atomic uint32_t over;

static void *send_all(void *arg)
{
	uintptr_t which = (uintptr_t)arg;
	volatile uint64_t *word = mrs[which]->addr;

	for (uint64_t i = 0; i < MESSAGES; i++) {
		*word = which << 32 | i;
		CHECK_OK(post_send(qps[which], i, mrs[which], 0, 8));
		CHECK_EQ(poll_status(senders[which].cq, FFV_WC_SUCCESS).wr_id, i);
	}
	return NULL;
}

static void *resize_all_the_time(void *arg)
{
	unsigned state = *(unsigned *)arg, done = 0;

	while (!ffv_load_acquire(&over)) {
		struct ffv_srq_attr attr = { .max_wr = LEAST + (uint32_t)rand_r(&state) % (SLOTS - LEAST) };
		int rc = ffv_modify_srq(srq, &attr, FFV_SRQ_MAX_WR);
		CHECK(rc == 0 || rc == -EINVAL);
		done += !rc;
		sched_yield();
	}
	CHECK(done > 10);
	return NULL;
}

static void receive_all(void)
{
	uint64_t next[SENDERS] = { 0 };

	for (uint32_t slot = 0; slot < LEAST; slot++)
		CHECK_OK(post_recv(peers[0], slot, inbox, slot * 8, 8));
	for (uint64_t n = 0; n < (uint64_t)SENDERS * MESSAGES; n++) {
		struct ffv_wc wc = poll_status(receiver.cq, FFV_WC_SUCCESS);
		CHECK(wc.wr_id < LEAST);
		uint64_t word = ((volatile uint64_t *)inbox->addr)[wc.wr_id];
		CHECK((word >> 32) < SENDERS);
		CHECK_EQ(word & UINT32_MAX, next[word >> 32]);
		CHECK_EQ(wc.qp_num, ffv_qp_num(peers[word >> 32]));
		next[word >> 32]++;
		CHECK_OK(post_recv(peers[0], wc.wr_id, inbox, wc.wr_id * 8, 8));
	}
}

int main(void)
{
	struct ffv_srq_init_attr attr = { .attr = { .max_wr = SLOTS, .max_sge = 1 } };
	pthread_t threads[SENDERS], resizer;
	unsigned seed = test_seed();

	opened_directory();
	side_open(&receiver, 1024);
	CHECK_OK(ffv_create_srq(receiver.pd, &attr, &srq));
	CHECK_OK(ffv_alloc_mr(receiver.pd, 4096, PAIR_ACCESS, &inbox));
	for (uintptr_t i = 0; i < SENDERS; i++) {
		side_open(&senders[i], 64);
		CHECK_OK(ffv_alloc_mr(senders[i].pd, 4096, PAIR_ACCESS, &mrs[i]));
		qps[i] = side_qp(&senders[i], senders[i].cq, FFV_QPT_RC, NULL, 16);
		peers[i] = side_qp(&receiver, receiver.cq, FFV_QPT_RC, srq, 16);
		qp_connect(qps[i], &senders[i], peers[i], &receiver);
	}
	CHECK_EQ(pthread_create(&resizer, NULL, resize_all_the_time, &seed), 0);
	for (uintptr_t i = 0; i < SENDERS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, send_all, (void *)i), 0);
	receive_all();
	for (uint32_t i = 0; i < SENDERS; i++)
		pthread_join(threads[i], NULL);
	ffv_store_release(&over, 1u);
	pthread_join(resizer, NULL);
	for (uint32_t i = 0; i < SENDERS; i++) {
		CHECK_OK(ffv_destroy_qp(qps[i]));
		CHECK_OK(ffv_destroy_qp(peers[i]));
		CHECK_OK(ffv_dereg_mr(mrs[i]));
		side_close(&senders[i]);
	}
	CHECK_OK(ffv_dereg_mr(inbox));
	CHECK_OK(ffv_destroy_srq(srq));
	side_close(&receiver);
	scratch_remove();
	return 0;
}

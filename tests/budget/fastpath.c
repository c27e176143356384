/* SPDX-License-Identifier: MIT
 *
 * The fast paths, a fixed number of times each, for callgrind to count, between two contexts of this process (valgrind has
 * no room for the windows through which another process is seen). What is printed names the dumps in their order and how
 * many operations each counts.
 *
 * Instructions are what can be counted without noise. They say nothing of cache misses, but a path that has grown is seen.
 */
#include <valgrind/callgrind.h>

#include "pair.h"

#define OPERATIONS 512u
#define WARM_UP 64u
#define LIST 32u

static struct side a, b;
static struct ffv_qp *qp_a, *qp_b;
static struct ffv_mr *mr_a, *mr_b;

static void begin(void)
{
	CALLGRIND_ZERO_STATS;
}

static void end(const char *name, unsigned operations)
{
	CALLGRIND_DUMP_STATS_AT(name);
	printf("%s %u\n", name, operations);
	fflush(stdout);
}

/* ---- the operations: post, and poll until it is done --------------------------------------------------------------------- */

static void expect_one(struct ffv_cq *cq)
{
	struct ffv_wc wc;

	CHECK_EQ(ffv_poll_cq(cq, 1, &wc), 1);
	CHECK_EQ(wc.status, FFV_WC_SUCCESS);
}

static void send_receive(uint32_t flags, uint32_t length)
{
	struct ffv_sge sge;
	struct ffv_send_wr wr = send_wr(1, FFV_WR_SEND, &sge, mr_a, 0, length);

	wr.send_flags |= flags;
	CHECK_OK(post_recv(qp_b, 2, mr_b, 0, 4096));
	CHECK_OK(ffv_post_send(qp_a, &wr, NULL));
	expect_one(a.cq);
	expect_one(b.cq);
}

static void remote(uint32_t opcode, uint32_t length)
{
	struct ffv_sge sge;
	struct ffv_send_wr wr = send_wr(1, opcode, &sge, mr_a, 0, length);

	if (opcode == FFV_WR_ATOMIC_FETCH_AND_ADD)
		wr.wr.atomic = (struct ffv_wr_atomic){ (uintptr_t)mr_b->addr, 1, 0, mr_b->rkey };
	else
		wr.wr.rdma = (struct ffv_wr_rdma){ (uintptr_t)mr_b->addr, mr_b->rkey };
	CHECK_OK(ffv_post_send(qp_a, &wr, NULL));
	expect_one(a.cq);
}

/* A list of sends with one completion at each side polled in one call. */
static void send_list(void)
{
	static struct ffv_send_wr wr[LIST];
	static struct ffv_sge sge[LIST];
	struct ffv_wc wc[LIST];

	for (unsigned i = 0; i < LIST; i++) {
		CHECK_OK(post_recv(qp_b, i, mr_b, 0, 64));
		wr[i] = send_wr(i, FFV_WR_SEND, &sge[i], mr_a, 0, 8);
		wr[i].next = i + 1 < LIST ? &wr[i + 1] : NULL;
	}
	CHECK_OK(ffv_post_send(qp_a, wr, NULL));
	CHECK_EQ(ffv_poll_cq(a.cq, LIST, wc), (int)LIST);
	CHECK_EQ(ffv_poll_cq(b.cq, LIST, wc), (int)LIST);
}

/* An event of one queue among others of its channel, from arming the queue to having acknowledged it. */
static void event(struct ffv_comp_channel *channel, struct ffv_cq *cq, struct ffv_qp *qp)
{
	struct ffv_sge sge;
	struct ffv_send_wr wr = send_wr(1, FFV_WR_RDMA_WRITE, &sge, mr_a, 0, 8);
	struct ffv_cq *found;

	wr.wr.rdma = (struct ffv_wr_rdma){ (uintptr_t)mr_b->addr, mr_b->rkey };
	CHECK_OK(ffv_req_notify_cq(cq, 0));
	CHECK_OK(ffv_post_send(qp, &wr, NULL));
	CHECK_OK(ffv_get_cq_event(channel, &found, NULL));
	CHECK(found == cq);
	ffv_ack_cq_events(found, 1);
	expect_one(cq);
}

static void poll_empty(void)
{
	struct ffv_wc wc;

	CHECK_EQ(ffv_poll_cq(a.cq, 1, &wc), 0);
}

#define COUNT(name, operation)                                                   \
	do {                                                                     \
		for (unsigned i = 0; i < WARM_UP; i++)                           \
			operation;                                               \
		begin();                                                         \
		for (unsigned i = 0; i < OPERATIONS; i++)                        \
			operation;                                               \
		end(name, OPERATIONS);                                           \
	} while (0)

static void count_events(const char *name, unsigned queues)
{
	static struct ffv_cq *cqs[2000];
	struct ffv_comp_channel *channel;

	CHECK_OK(ffv_create_comp_channel(a.ctx, &channel));
	for (unsigned i = 0; i < queues; i++)
		CHECK_OK(ffv_create_cq(a.ctx, 1, NULL, channel, 0, &cqs[i]));
	struct ffv_cq *cq = cqs[queues / 2];
	struct ffv_qp *qp = side_qp(&a, cq, FFV_QPT_RC, NULL, 1), *peer = side_qp(&b, b.cq, FFV_QPT_RC, NULL, 1);
	qp_connect(qp, &a, peer, &b);
	COUNT(name, event(channel, cq, qp));
	CHECK_OK(ffv_destroy_qp(qp));
	CHECK_OK(ffv_destroy_qp(peer));
	for (unsigned i = 0; i < queues; i++)
		CHECK_OK(ffv_destroy_cq(cqs[i]));
	CHECK_OK(ffv_destroy_comp_channel(channel));
}

static void count_contexts(void)
{
	side_open(&a, 128);
	side_open(&b, 128);
	qp_a = side_qp(&a, a.cq, FFV_QPT_RC, NULL, LIST);
	qp_b = side_qp(&b, b.cq, FFV_QPT_RC, NULL, LIST);
	qp_connect(qp_a, &a, qp_b, &b);
	CHECK_OK(ffv_alloc_mr(a.pd, 4096, PAIR_ACCESS, &mr_a));
	CHECK_OK(ffv_alloc_mr(b.pd, 4096, PAIR_ACCESS, &mr_b));
	COUNT("send 8", send_receive(0, 8));
	COUNT("send 8 inline", send_receive(FFV_SEND_INLINE, 8));
	COUNT("send 4096", send_receive(0, 4096));
	COUNT("write 8", remote(FFV_WR_RDMA_WRITE, 8));
	COUNT("read 8", remote(FFV_WR_RDMA_READ, 8));
	COUNT("fetch and add", remote(FFV_WR_ATOMIC_FETCH_AND_ADD, 8));
	COUNT("poll empty", poll_empty());
	for (unsigned i = 0; i < WARM_UP / LIST; i++)
		send_list();
	begin();
	for (unsigned i = 0; i < OPERATIONS / LIST; i++)
		send_list();
	end("send 8 in lists", OPERATIONS);
	count_events("event of 1 queue", 1);
	count_events("event of 2000 queues", 2000);
	CHECK_OK(ffv_destroy_qp(qp_a));
	CHECK_OK(ffv_destroy_qp(qp_b));
	CHECK_OK(ffv_dereg_mr(mr_a));
	CHECK_OK(ffv_dereg_mr(mr_b));
	side_close(&a);
	side_close(&b);
}

int main(void)
{
	opened_directory();
	count_contexts();
	scratch_remove();
	return 0;
}

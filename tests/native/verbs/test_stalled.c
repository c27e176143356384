/* Executors that stop in the middle, built by hand: a completion that is claimed and not published, an execution that
 * does not end, a locked send queue. The owner goes on, and what comes late is not lost. */
#include <errno.h>
#include <poll.h>

#include "engine/cq.h"
#include "pair.h"
#include "verbs/context.h"

static struct side a, b;
static struct ffv_qp *qp_a, *qp_b;
static struct ffv_mr *mr_a, *mr_b;
static struct ffv_comp_channel *channel;
static struct ffv_cq *cq;              /* of b, with a channel */

static void start(void)
{
	side_open(&a, 64);
	side_open(&b, 64);
	CHECK_OK(ffv_create_comp_channel(b.ctx, &channel));
	CHECK_OK(ffv_create_cq(b.ctx, 64, NULL, channel, 0, &cq));
	qp_a = side_qp(&a, a.cq, FFV_QPT_RC, NULL, 32);
	qp_b = side_qp(&b, cq, FFV_QPT_RC, NULL, 32);
	qp_connect(qp_a, &a, qp_b, &b);
	CHECK_OK(ffv_alloc_mr(a.pd, 4096, PAIR_ACCESS, &mr_a));
	CHECK_OK(ffv_alloc_mr(b.pd, 4096, PAIR_ACCESS, &mr_b));
}

static void finish(void)
{
	CHECK_OK(ffv_destroy_qp(qp_a));
	CHECK_OK(ffv_destroy_qp(qp_b));
	CHECK_OK(ffv_dereg_mr(mr_a));
	CHECK_OK(ffv_dereg_mr(mr_b));
	CHECK_OK(ffv_destroy_cq(cq));
	CHECK_OK(ffv_destroy_comp_channel(channel));
	side_close(&a);
	side_close(&b);
}

static void send_one(uint64_t wr_id)
{
	CHECK_OK(post_recv(qp_b, wr_id, mr_b, 0, 8));
	CHECK_OK(post_send(qp_a, wr_id, mr_a, 0, 8));
	poll_status(a.cq, FFV_WC_SUCCESS);
}

/* Takes a receive and claims its completion as an executor does, and stops there. */
static void stall(struct ffv_claim *claim, uint64_t wr_id, struct ffv_rwqe *rwqe)
{
	CHECK_OK(post_recv(qp_b, wr_id, mr_b, 0, 8));
	CHECK(ffv_rq_peek(&qp_b->ref.rq, rwqe));
	ffv_rq_advance(&qp_b->ref.rq, rwqe->position);
	*claim = (struct ffv_claim){ .cq = &cq->ref };
	CHECK(ffv_cq_claim(claim, &b.ctx->view, 1, false, NULL));
}

static void publish_late(struct ffv_claim *claim, const struct ffv_rwqe *rwqe)
{
	struct ffv_cqe_shm *cqe = ffv_cq_entry(claim);

	memset((char *)cqe + sizeof cqe->sequence, 0, sizeof *cqe - sizeof cqe->sequence);
	cqe->qpn_side = ffv_qp_num(qp_b) | FFV_CQE_RECV;
	cqe->wqe_position = (uint32_t)rwqe->position;
	cqe->opcode = FFV_WC_RECV;
	ffv_cq_publish(claim);
}

/* Later completions do not wait for a stopped executor; its own comes when it goes on; its slot is left alone. */
static void test_stalled_claim_is_passed_over(void)
{
	struct ffv_claim claim;
	struct ffv_rwqe rwqe;
	struct ffv_wc wc;

	start();
	stall(&claim, 1000, &rwqe);
	send_one(1);
	send_one(2);
	CHECK_EQ(ffv_poll_cq(cq, 1, &wc), 0); /* not at once: it may only have been preempted */
	CHECK_EQ(poll_status(cq, FFV_WC_SUCCESS).wr_id, 1);
	CHECK_EQ(poll_status(cq, FFV_WC_SUCCESS).wr_id, 2);
	CHECK_EQ(ffv_poll_cq(cq, 1, &wc), 0);
	for (uint64_t i = 0; i < 300; i++) { /* several laps of the ring */
		send_one(10 + i % 16);
		CHECK_EQ(poll_status(cq, FFV_WC_SUCCESS).wr_id, 10 + i % 16);
	}
	publish_late(&claim, &rwqe);
	CHECK_EQ(poll_status(cq, FFV_WC_SUCCESS).wr_id, 1000);
	CHECK_EQ(ffv_poll_cq(cq, 1, &wc), 0); /* once */
	send_one(3);
	CHECK_EQ(poll_status(cq, FFV_WC_SUCCESS).wr_id, 3);
	finish();
}

static bool has_event(int timeout_ms)
{
	struct pollfd fd = { .fd = ffv_comp_channel_fd(channel), .events = POLLIN };

	return poll(&fd, 1, timeout_ms) == 1;
}

static void take_event(void)
{
	struct ffv_cq *from;

	CHECK(has_event(60000));
	CHECK_OK(ffv_get_cq_event(channel, &from, NULL));
	CHECK(from == cq);
	ffv_ack_cq_events(cq, 1);
}

/* Armed when a completion is claimed and not published: whoever sleeps then is woken when it is there. */
static void test_armed_between_claim_and_publication(void)
{
	struct ffv_claim claim;
	struct ffv_rwqe rwqe;

	start();
	stall(&claim, 5, &rwqe);
	CHECK(!claim.signal); /* it was not armed yet: the claimer owes no event */
	CHECK_OK(ffv_req_notify_cq(cq, 0));
	CHECK(!has_event(0));
	publish_late(&claim, &rwqe);
	take_event();
	CHECK_EQ(poll_status(cq, FFV_WC_SUCCESS).wr_id, 5);
	finish();
}

/* The same, and the claimer never goes on: what comes after it wakes. */
static void test_armed_behind_a_stalled_claim(void)
{
	struct ffv_claim claim;
	struct ffv_rwqe rwqe;

	start();
	stall(&claim, 5, &rwqe);
	CHECK_OK(ffv_req_notify_cq(cq, 0));
	send_one(6);
	take_event(); /* armed: the completion behind it signals at once; it can be polled when the hole is given up */
	CHECK_EQ(poll_status(cq, FFV_WC_SUCCESS).wr_id, 6);
	publish_late(&claim, &rwqe);
	CHECK_EQ(poll_status(cq, FFV_WC_SUCCESS).wr_id, 5);
	finish();
}

/* ---- waiting for executions ---------------------------------------------------------------------------------------------- */


static void test_quiesce_waits_for_executions(void)
{
	start();
	CHECK(a.ctx->peers && b.ctx->peers);
	CHECK(ffv_context_quiesce(a.ctx, PAIR_HANG_NS));
	/* Slots that no thread of ours uses. */
	struct ffv_thread_shm *own = &a.ctx->view.arena->threads[200], *peers = &b.ctx->view.arena->threads[201];
	ffv_store_relaxed(&a.ctx->view.arena->threads_used, 210u);
	ffv_store_relaxed(&b.ctx->view.arena->threads_used, 210u);
	struct ffv_thread_shm *stuck[] = { own, peers };
	for (unsigned i = 0; i < 2; i++) {
		ffv_exec_enter(stuck[i]);
		CHECK(!ffv_context_quiesce(a.ctx, 2000000));
		CHECK(!ffv_qp_quiesce(qp_a, 2000000));
		/* Between parties that are not ours: not waited for. */
		ffv_store_relaxed(&stuck[i]->requester, FFV_PARTY(99, 1));
		ffv_store_relaxed(&stuck[i]->responder, FFV_PARTY(99, 2));
		CHECK(ffv_context_quiesce(a.ctx, PAIR_HANG_NS));
		ffv_store_relaxed(&stuck[i]->responder, FFV_PARTY(a.ctx->view.context_id, ffv_qp_num(qp_a)));
		CHECK(!ffv_context_quiesce(a.ctx, 2000000));
		CHECK(!ffv_qp_quiesce(qp_a, 2000000));
		ffv_store_relaxed(&stuck[i]->responder, FFV_PARTY(a.ctx->view.context_id, ffv_qp_num(qp_a) + 1));
		CHECK(ffv_qp_quiesce(qp_a, PAIR_HANG_NS));
		ffv_exec_leave(stuck[i]);
		CHECK(ffv_context_quiesce(a.ctx, PAIR_HANG_NS));
		ffv_store_relaxed(&stuck[i]->requester, 0);
		ffv_store_relaxed(&stuck[i]->responder, 0);
	}
	finish();
}

/* A send queue that a stopped process holds: the owner is turned away from what would touch it, and told; the error
 * state it reaches all the same. */
static void test_send_queue_held_by_a_stopped_peer(void)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_RESET };

	start();
	_Atomic uint64_t *lock = &qp_a->ref.shm->exec_lock;
	ffv_store_seq_cst(lock, FFV_EXEC_HOLDER(b.ctx->view.context_id, 77));
	CHECK_OK(post_send(qp_a, 1, mr_a, 0, 8)); /* posted: whoever holds the queue executes it */
	CHECK_FAIL(ffv_modify_qp(qp_a, &attr, FFV_QP_STATE), EBUSY, "stopped");
	CHECK_OK(qp_to_error(qp_a));
	CHECK_EQ(ffv_qp_state(qp_a), FFV_QPS_ERR);
	CHECK(ffv_load_seq_cst(lock) & FFV_EXEC_AGAIN); /* and hears of us when it goes on */
	ffv_store_seq_cst(lock, 0);
	CHECK_OK(post_send(qp_a, 2, mr_a, 0, 8));
	CHECK_EQ(poll_status(a.cq, FFV_WC_WR_FLUSH_ERR).wr_id, 1);
	CHECK_EQ(poll_status(a.cq, FFV_WC_WR_FLUSH_ERR).wr_id, 2);
	finish();
}

int main(void)
{
	opened_directory();
	test_stalled_claim_is_passed_over();
	test_armed_between_claim_and_publication();
	test_armed_behind_a_stalled_claim();
	test_quiesce_waits_for_executions();
	test_send_queue_held_by_a_stopped_peer();
	scratch_remove();
	return 0;
}

/* The executor on healthy queue pairs: each operation from either process, waiting and going on, being turned away. */
#include "world.h"

#define DATA_BYTES 256u
#define A_KEY WORLD_KEY(5, 1)
#define B_KEY WORLD_KEY(6, 2)

/* Two contexts, one RC pair; every memory and queue reached directly, unless a test says otherwise. */
static struct party a, b;
static struct ffv_qp_shm *qp_a, *qp_b;
static struct ffv_qp_ref req, resp;
static struct ffv_exec_env env;
static uint64_t send_head, recv_head;
static _Alignas(64) uint8_t data_a[DATA_BYTES], data_b[DATA_BYTES];

static void setup(uint32_t type)
{
	party_create(&a, 1);
	party_create(&b, 2);
	party_cq(&a, 0, 64, 32);
	party_cq(&b, 0, 64, 32);
	qp_a = party_qp(&a, 30, type, FFV_NONE);
	qp_b = party_qp(&b, 40, type, FFV_NONE);
	world_connect(qp_a, qp_b);
	party_key(&a, A_KEY, data_a, DATA_BYTES, true);
	party_key(&b, B_KEY, data_b, DATA_BYTES, true);
	b.far.direct = true; /* the same process, as two contexts of one are */
	a.far.direct = true;
	req = party_ref(&a.near, 30);
	resp = party_ref(&b.far, 40);
	env = party_env(&a, 0);
	send_head = recv_head = 0;
	for (uint32_t i = 0; i < DATA_BYTES; i++) {
		data_a[i] = (uint8_t)(i + 1);
		data_b[i] = 0;
	}
}

static void teardown(void)
{
	party_destroy(&a);
	party_destroy(&b);
}

static struct ffv_cqe_shm next_send(void)
{
	struct ffv_cqe_shm cqe;

	CHECK(world_poll(&req.send_cq, &send_head, &cqe));
	CHECK_EQ(cqe.qpn_side, qp_a->qpn);
	return cqe;
}

static struct ffv_cqe_shm next_recv(void)
{
	struct ffv_cqe_shm cqe;

	CHECK(world_poll(&resp.recv_cq, &recv_head, &cqe));
	CHECK_EQ(cqe.qpn_side, qp_b->qpn | FFV_CQE_RECV);
	return cqe;
}

static void check_nothing_completed(void)
{
	struct ffv_cqe_shm cqe;

	CHECK(!world_poll(&req.send_cq, &send_head, &cqe));
	CHECK(!world_poll(&resp.recv_cq, &recv_head, &cqe));
}

static void test_send(void)
{
	setup(FFV_QPT_RC);
	for (uint32_t i = 0; i < 40; i++) {
		data_b[0] = 0;
		world_receive(&resp.rq, world_sge(data_b, 100, B_KEY));
		struct ffv_wqe_shm *wqe = world_post(&req, FFV_WR_SEND_WITH_IMM, world_sge(data_a, 60, A_KEY));
		wqe->imm_be = 0x1234 + i;
		ffv_exec_run(&env, &req, &resp);
		struct ffv_cqe_shm sent = next_send(), got = next_recv();
		CHECK_EQ(sent.status, FFV_WC_SUCCESS);
		CHECK_EQ(sent.wqe_position, i);
		CHECK_EQ(got.status, FFV_WC_SUCCESS);
		CHECK_EQ(got.opcode, FFV_WC_RECV);
		CHECK_EQ(got.byte_len, 60);
		CHECK_EQ(got.imm_be, 0x1234 + i);
		CHECK_EQ(got.flags, FFV_WC_WITH_IMM);
		CHECK_EQ(got.wqe_position, i);
		CHECK_EQ(memcmp(data_a, data_b, 60), 0);
		CHECK_EQ(data_b[60], 0);
	}
	check_nothing_completed();
	CHECK_EQ(ffv_load_relaxed(&qp_a->exec_lock), 0);
	CHECK_EQ(ffv_load_relaxed(&env.thread->epoch) % 2, 0);
	CHECK_EQ(ffv_load_relaxed(&qp_a->messages_sent), 40);
	CHECK_EQ(ffv_load_relaxed(&qp_a->bytes_sent), 40 * 60);
	teardown();
}

static void test_unsignaled_completes_only_the_receive(void)
{
	setup(FFV_QPT_RC);
	world_receive(&resp.rq, world_sge(data_b, 100, B_KEY));
	world_post(&req, FFV_WR_SEND, world_sge(data_a, 8, A_KEY))->flags = 0;
	ffv_exec_run(&env, &req, &resp);
	next_recv();
	check_nothing_completed();
	CHECK_EQ(ffv_load_relaxed(&qp_a->sq_exec), 1);
	teardown();
}

static void rdma(uint8_t opcode, uint32_t length, const void *remote)
{
	struct ffv_wqe_shm *wqe = world_post(&req, opcode, world_sge(data_a, length, A_KEY));

	wqe->rdma.remote_addr = (uintptr_t)remote;
	wqe->rdma.rkey = B_KEY;
	ffv_exec_run(&env, &req, &resp);
}

static void test_write_read_atomics(void)
{
	uint64_t original;

	setup(FFV_QPT_RC);
	rdma(FFV_WR_RDMA_WRITE, 33, data_b + 7);
	CHECK_EQ(next_send().opcode, FFV_WC_RDMA_WRITE);
	CHECK_EQ(memcmp(data_b + 7, data_a, 33), 0);
	CHECK(data_b[6] == 0 && data_b[40] == 0);
	memset(data_b, 9, DATA_BYTES);
	rdma(FFV_WR_RDMA_READ, 50, data_b);
	CHECK_EQ(next_send().byte_len, 50);
	CHECK(data_a[49] == 9 && data_a[50] == 51);
	memset(data_b, 0, 8);
	data_b[0] = 5;
	struct ffv_wqe_shm *wqe = world_post(&req, FFV_WR_ATOMIC_FETCH_AND_ADD, world_sge(data_a, 8, A_KEY));
	wqe->rdma = (struct ffv_wqe_rdma_shm){ (uintptr_t)data_b, B_KEY, 0, 10, 0 };
	wqe = world_post(&req, FFV_WR_ATOMIC_CMP_AND_SWP, world_sge(data_a + 8, 8, A_KEY));
	wqe->rdma = (struct ffv_wqe_rdma_shm){ (uintptr_t)data_b, B_KEY, 0, 15, 99 };
	wqe = world_post(&req, FFV_WR_ATOMIC_CMP_AND_SWP, world_sge(data_a + 16, 8, A_KEY));
	wqe->rdma = (struct ffv_wqe_rdma_shm){ (uintptr_t)data_b, B_KEY, 0, 15, 77 };
	ffv_exec_run(&env, &req, &resp);
	CHECK_EQ(next_send().opcode, FFV_WC_FETCH_ADD);
	CHECK_EQ(next_send().opcode, FFV_WC_COMP_SWAP);
	CHECK_EQ(next_send().status, FFV_WC_SUCCESS);
	memcpy(&original, data_a, 8);
	CHECK_EQ(original, 5);
	memcpy(&original, data_a + 8, 8);
	CHECK_EQ(original, 15);
	memcpy(&original, data_a + 16, 8);
	CHECK_EQ(original, 99);
	memcpy(&original, data_b, 8);
	CHECK_EQ(original, 99);
	check_nothing_completed();
	teardown();
}

static void test_gather_scatter_and_empty_messages(void)
{
	setup(FFV_QPT_RC);
	struct ffv_sge_shm *entry = (struct ffv_sge_shm *)ffv_rq_ref_entry(&resp.rq, 0);
	entry[0] = world_sge(data_b, 3, B_KEY);
	entry[1] = world_sge(NULL, 0, 0);
	entry[2] = world_sge(data_b + 100, 50, B_KEY);
	entry[3] = (struct ffv_sge_shm){ .addr = FFV_SGE_END };
	ffv_store_release(&resp.rq.shm->tail, 1);
	struct ffv_wqe_shm *wqe = world_post(&req, FFV_WR_SEND, world_sge(data_a, 10, A_KEY));
	wqe->sge[1] = world_sge(data_a + 20, 5, A_KEY);
	wqe->num_sge = 2;
	wqe->length_bytes = 15;
	world_receive(&resp.rq, world_sge(NULL, 0, 0)); /* for an empty message: no key is looked at */
	world_post(&req, FFV_WR_SEND, world_sge(NULL, 0, 0))->num_sge = 0;
	ffv_exec_run(&env, &req, &resp);
	CHECK_EQ(next_recv().byte_len, 15);
	CHECK_EQ(next_recv().byte_len, 0);
	CHECK_EQ(next_send().status, FFV_WC_SUCCESS);
	CHECK_EQ(next_send().status, FFV_WC_SUCCESS);
	CHECK_EQ(memcmp(data_b, data_a, 3), 0);
	CHECK_EQ(memcmp(data_b + 100, data_a + 3, 7), 0);
	CHECK_EQ(memcmp(data_b + 107, data_a + 20, 5), 0);
	teardown();
}

/* No receive: the queue waits, marks the receive queue, and goes on from either side; order is kept. */
static void test_receiver_not_ready(void)
{
	setup(FFV_QPT_RC);
	struct ffv_exec_env of_b = party_env(&b, 0);
	struct ffv_qp_ref far_req = party_ref(&a.far, 30), near_resp = party_ref(&b.near, 40);

	for (uint8_t i = 0; i < 3; i++)
		world_post(&req, FFV_WR_SEND, world_sge(data_a + i, 1, A_KEY));
	ffv_exec_run(&env, &req, &resp);
	check_nothing_completed();
	CHECK_EQ(ffv_load_relaxed(&qp_a->blocked), FFV_BLOCKED_RNR);
	CHECK(ffv_load_relaxed(&qp_a->deadline_ns) != UINT64_MAX);
	CHECK_EQ(ffv_load_relaxed(&resp.rq.shm->waiter), 1);
	CHECK_EQ(ffv_load_relaxed(&a.last_attention), FFV_ATTENTION_QP + 30);
	for (uint8_t i = 0; i < 3; i++) {
		world_receive(&resp.rq, world_sge(data_b + i, 1, B_KEY));
		if (i % 2)
			ffv_exec_run(&env, &req, &resp);
		else
			ffv_exec_run(&of_b, &far_req, &near_resp);
		CHECK_EQ(next_recv().wqe_position, i);
		CHECK_EQ(next_send().wqe_position, i);
		CHECK_EQ(data_b[i], data_a[i]);
	}
	CHECK_EQ(ffv_load_relaxed(&qp_a->blocked), FFV_BLOCKED_NOT);
	CHECK_EQ(ffv_load_relaxed(&qp_a->deadline_ns), (long long)UINT64_MAX);
	teardown();
}

/* Its owner's service thread is told only if it would not look in time: else each message that waits would wake it. */
static void test_the_owner_is_told_of_a_timer_once(void)
{
	setup(FFV_QPT_RC);
	world_post(&req, FFV_WR_SEND, world_sge(data_a, 1, A_KEY));
	ffv_store_relaxed(&qp_a->timer_ns, 1); /* it looks before the deadline */
	ffv_exec_run(&env, &req, &resp);
	CHECK_EQ(ffv_load_relaxed(&qp_a->blocked), FFV_BLOCKED_RNR);
	CHECK_EQ(ffv_load_relaxed(&a.attentions), 0);
	for (unsigned told = 1; told <= 2; told++) {
		ffv_store_relaxed(&qp_a->deadline_ns, 0);
		ffv_store_relaxed(&qp_a->timer_ns, told == 1 ? 0 : UINT64_MAX); /* never, too late */
		ffv_exec_run(&env, &req, &resp);
		CHECK_EQ(ffv_load_relaxed(&a.attentions), told);
	}
	check_nothing_completed();
	teardown();
}

static void test_patience_ends(void)
{
	setup(FFV_QPT_RC);
	qp_a->rnr_retry = 2;
	world_post(&req, FFV_WR_SEND, world_sge(data_a, 1, A_KEY));
	for (int i = 0; i < 2; i++) {
		ffv_exec_run(&env, &req, &resp);
		ffv_exec_run(&env, &req, &resp); /* before its time: counts for nothing */
		check_nothing_completed();
		ffv_store_relaxed(&qp_a->deadline_ns, 0);
	}
	ffv_exec_run(&env, &req, &resp);
	CHECK_EQ(next_send().status, FFV_WC_RNR_RETRY_EXC_ERR);
	CHECK_EQ(ffv_load_relaxed(&qp_a->state), FFV_QPS_ERR);
	CHECK_EQ(ffv_load_relaxed(&qp_b->state), FFV_QPS_RTS);
	world_post(&req, FFV_WR_SEND, world_sge(data_a, 1, A_KEY))->flags = 0;
	ffv_exec_run(&env, &req, &resp);
	CHECK_EQ(next_send().status, FFV_WC_WR_FLUSH_ERR); /* signaled or not */
	teardown();
}

static void test_peer_unknown_or_not_ready(void)
{
	setup(FFV_QPT_RC);
	qp_a->timeout = 20; /* seconds */
	qp_a->retry_cnt = 1;
	world_receive(&resp.rq, world_sge(data_b, 1, B_KEY));
	world_post(&req, FFV_WR_SEND, world_sge(data_a, 1, A_KEY));
	ffv_exec_run(&env, &req, NULL);
	CHECK_EQ(ffv_load_relaxed(&qp_a->blocked), FFV_BLOCKED_PEER);
	ffv_store_relaxed(&qp_b->state, (uint32_t)FFV_QPS_INIT);
	ffv_exec_run(&env, &req, &resp);
	check_nothing_completed();
	ffv_store_relaxed(&qp_b->state, (uint32_t)FFV_QPS_RTR);
	ffv_exec_run(&env, &req, &resp);
	CHECK_EQ(next_recv().status, FFV_WC_SUCCESS);
	CHECK_EQ(next_send().status, FFV_WC_SUCCESS);
	/* Connected to somebody else by now. */
	qp_b->dest_qpn = 1;
	world_post(&req, FFV_WR_SEND, world_sge(data_a, 1, A_KEY));
	ffv_exec_run(&env, &req, &resp);
	check_nothing_completed();
	ffv_store_relaxed(&qp_a->deadline_ns, 0);
	ffv_exec_run(&env, &req, &resp);
	ffv_store_relaxed(&qp_a->deadline_ns, 0);
	ffv_exec_run(&env, &req, &resp);
	CHECK_EQ(next_send().status, FFV_WC_RETRY_EXC_ERR);
	teardown();
}

static void test_unreliable_sender_is_not_told(void)
{
	setup(FFV_QPT_UC);
	world_post(&req, FFV_WR_SEND, world_sge(data_a, 1, A_KEY));
	ffv_exec_run(&env, &req, &resp);
	CHECK_EQ(next_send().status, FFV_WC_SUCCESS); /* nobody received it */
	world_post(&req, FFV_WR_SEND, world_sge(data_a, 1, A_KEY));
	ffv_exec_run(&env, &req, NULL);
	CHECK_EQ(next_send().status, FFV_WC_SUCCESS);
	check_nothing_completed();
	/* Its own mistake it is. */
	world_post(&req, FFV_WR_SEND, world_sge(data_a, 1, A_KEY + 1));
	ffv_exec_run(&env, &req, &resp);
	CHECK_EQ(next_send().status, FFV_WC_LOC_PROT_ERR);
	CHECK_EQ(ffv_load_relaxed(&qp_a->state), FFV_QPS_SQE);
	teardown();
}

static void test_events_are_signalled_once_and_unlocked(void)
{
	setup(FFV_QPT_RC);
	ffv_fetch_or(&req.send_cq.shm->tail, FFV_CQ_ARMED);
	ffv_fetch_or(&resp.recv_cq.shm->tail, FFV_CQ_ARMED_SOLICITED);
	for (uint32_t i = 0; i < 3; i++) {
		world_receive(&resp.rq, world_sge(data_b, 1, B_KEY));
		world_post(&req, FFV_WR_SEND, world_sge(data_a, 1, A_KEY));
	}
	ffv_exec_run(&env, &req, &resp);
	CHECK_EQ(ffv_load_relaxed(&a.signals), 1);
	CHECK_EQ(ffv_load_relaxed(&b.signals), 0);
	world_receive(&resp.rq, world_sge(data_b, 1, B_KEY));
	world_post(&req, FFV_WR_SEND, world_sge(data_a, 1, A_KEY))->flags |= FFV_SEND_SOLICITED;
	ffv_exec_run(&env, &req, &resp);
	CHECK_EQ(ffv_load_relaxed(&a.signals), 1);
	CHECK_EQ(ffv_load_relaxed(&b.signals), 1);
	CHECK_EQ(ffv_load_relaxed(&env.thread->claim_ctx), 0); /* the journal is closed */
	teardown();
}

/* One message alone is done at once, but for completions whose queue is armed: nothing is done twice then. */
static void test_one_message_alone_to_armed_queues(void)
{
	setup(FFV_QPT_RC);
	for (uint32_t i = 0; i < 4; i++) {
		bool arm_sender = i & 1, arm_receiver = i & 2;
		uint32_t a_signals = ffv_load_relaxed(&a.signals), b_signals = ffv_load_relaxed(&b.signals);
		if (arm_sender)
			ffv_fetch_or(&req.send_cq.shm->tail, FFV_CQ_ARMED);
		if (arm_receiver)
			ffv_fetch_or(&resp.recv_cq.shm->tail, FFV_CQ_ARMED);
		world_receive(&resp.rq, world_sge(data_b, 8, B_KEY));
		world_post(&req, FFV_WR_SEND, world_sge(data_a, 8, A_KEY));
		ffv_exec_run(&env, &req, &resp);
		CHECK_EQ(next_send().wqe_position, i);
		CHECK_EQ(next_recv().wqe_position, i);
		check_nothing_completed();
		CHECK_EQ(ffv_load_relaxed(&a.signals), a_signals + arm_sender);
		CHECK_EQ(ffv_load_relaxed(&b.signals), b_signals + arm_receiver);
		CHECK_EQ(ffv_load_relaxed(&qp_a->sq_exec), i + 1);
		CHECK_EQ(ffv_load_relaxed(&qp_a->messages_sent), i + 1);
		CHECK_EQ(ffv_load_relaxed(&qp_a->bytes_sent), 8 * (i + 1));
		CHECK_EQ(ffv_load_relaxed(&resp.rq.shm->head), i + 1);
	}
	CHECK_EQ(ffv_load_relaxed(&qp_a->exec_lock), 0);
	CHECK_EQ(ffv_load_relaxed(&env.thread->claim_ctx), 0);
	CHECK_EQ(ffv_load_relaxed(&env.thread->epoch) % 2, 0);
	teardown();
}

/* The message has arrived by the time its sender's completion finds no room: the receiver has it once. */
static void test_a_full_queue_of_the_sender_fails_it_after_the_message(void)
{
	setup(FFV_QPT_RC);
	for (uint32_t i = 0; i < 64; i++) {
		rdma(FFV_WR_RDMA_WRITE, 8, data_b);
		CHECK_EQ(ffv_load_relaxed(&qp_a->state), FFV_QPS_RTS);
	}
	world_receive(&resp.rq, world_sge(data_b, 8, B_KEY));
	world_post(&req, FFV_WR_SEND, world_sge(data_a, 8, A_KEY));
	ffv_exec_run(&env, &req, &resp);
	CHECK_EQ(next_recv().status, FFV_WC_SUCCESS);
	CHECK_EQ(ffv_load_relaxed(&qp_a->state), FFV_QPS_ERR);
	CHECK_EQ(ffv_load_relaxed(&qp_a->last_status), FFV_WC_FATAL_ERR);
	CHECK_EQ(ffv_load_relaxed(&req.send_cq.shm->overrun), 1);
	CHECK_EQ(ffv_load_relaxed(&resp.rq.shm->head), 1);
	CHECK_EQ(ffv_load_relaxed(&qp_a->sq_exec), 65);
	CHECK_EQ(ffv_load_relaxed(&qp_b->state), FFV_QPS_RTS);
	teardown();
}

/* ---- being turned away -------------------------------------------------------------------------------------------------- */

static void test_held_lock_is_left_a_mark(void)
{
	setup(FFV_QPT_RC);
	uint64_t dead = FFV_EXEC_HOLDER(b.arena->context_id, 7);

	world_receive(&resp.rq, world_sge(data_b, 1, B_KEY));
	world_post(&req, FFV_WR_SEND, world_sge(data_a, 1, A_KEY));
	ffv_store_relaxed(&qp_a->exec_lock, dead);
	for (int i = 0; i < 3; i++) { /* nobody waits for it */
		ffv_exec_run(&env, &req, &resp);
		CHECK_EQ(ffv_load_relaxed(&qp_a->exec_lock), (long long)(dead | FFV_EXEC_AGAIN));
	}
	check_nothing_completed();
	CHECK_EQ(ffv_load_relaxed(&env.thread->epoch) % 2, 0);
	ffv_store_relaxed(&qp_a->exec_lock, 0); /* repaired */
	ffv_exec_run(&env, &req, &resp);
	CHECK_EQ(next_send().status, FFV_WC_SUCCESS);
	teardown();
}

static void post_one_more_while_executing(void *arg, struct ffv_view *view, uint32_t bit)
{
	static bool inside;
	struct ffv_exec_env other = party_env(&a, 3);

	world_attention(arg, view, bit);
	if (inside || view->face != &a || ffv_load_relaxed(&qp_a->sq_tail) > 1)
		return;
	inside = true;
	/* Another thread posts a receive, then runs the queue: it finds the lock held. */
	world_receive(&resp.rq, world_sge(data_b, 1, B_KEY));
	ffv_exec_run(&other, &req, &resp);
	CHECK(ffv_load_relaxed(&qp_a->exec_lock) & FFV_EXEC_AGAIN);
	inside = false;
}

/* Whoever was turned away is served by the holder before it leaves. */
static void test_mark_makes_the_holder_look_again(void)
{
	struct ffv_exec_face face = world_face;

	setup(FFV_QPT_RC);
	face.attention = post_one_more_while_executing;
	env.face = &face;
	world_post(&req, FFV_WR_SEND, world_sge(data_a, 1, A_KEY));
	ffv_exec_run(&env, &req, &resp); /* finds no receive; one comes while it settles down to wait */
	CHECK_EQ(next_recv().status, FFV_WC_SUCCESS);
	CHECK_EQ(next_send().status, FFV_WC_SUCCESS);
	CHECK_EQ(ffv_load_relaxed(&qp_a->exec_lock), 0);
	teardown();
}

/* ---- a full queue of completions is never overrun by what is only claimed ------------------------------------------------- */

static void test_receives_one_by_one_fill_the_queue_exactly(void)
{
	setup(FFV_QPT_RC);
	struct ffv_cq_ref *cq = &req.send_cq;

	ffv_store_relaxed(&cq->shm->cqe, 15u);
	cq->index_mask = 31;
	ffv_store_relaxed(&cq->shm->rings[0].index_mask, 31u);
	for (uint32_t i = 0; i < 15; i++)
		world_post(&req, FFV_WR_SEND, world_sge(data_a, 1, A_KEY));
	for (uint32_t i = 0; i < 15; i++) {
		world_receive(&resp.rq, world_sge(data_b, 1, B_KEY));
		ffv_exec_run(&env, &req, &resp); /* claims for all that wait, completes one */
	}
	CHECK_EQ(ffv_load_relaxed(&cq->shm->overrun), 0);
	for (uint32_t i = 0; i < 15; i++)
		CHECK_EQ(next_send().wqe_position, i);
	CHECK_EQ(ffv_load_relaxed(&qp_a->state), FFV_QPS_RTS);
	teardown();
}

int main(void)
{
	test_send();
	test_unsignaled_completes_only_the_receive();
	test_write_read_atomics();
	test_gather_scatter_and_empty_messages();
	test_receiver_not_ready();
	test_the_owner_is_told_of_a_timer_once();
	test_patience_ends();
	test_peer_unknown_or_not_ready();
	test_unreliable_sender_is_not_told();
	test_events_are_signalled_once_and_unlocked();
	test_one_message_alone_to_armed_queues();
	test_a_full_queue_of_the_sender_fails_it_after_the_message();
	test_held_lock_is_left_a_mark();
	test_mark_makes_the_holder_look_again();
	test_receives_one_by_one_fill_the_queue_exactly();
	return 0;
}

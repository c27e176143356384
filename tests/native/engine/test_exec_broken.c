/* The executor among broken and lying states, built by hand: whatever stands in the arenas, the error goes to whom the
 * specification says (IBA 9.9, 11.6.2), nothing outside the memory of the keys is touched, and the run ends. */
#include <time.h>

#include "world.h"

#define DATA_BYTES 256u
#define GUARD 0xabu
#define A_KEY WORLD_KEY(5, 1)
#define B_KEY WORLD_KEY(6, 2)

static struct party a, b;
static struct ffv_qp_shm *qp_a, *qp_b;
static struct ffv_qp_ref req, resp;
static struct ffv_exec_env env;
static struct ffv_key_shm *key_a, *key_b;
static uint64_t send_head, recv_head;
static _Alignas(64) uint8_t data_a[2 * DATA_BYTES], data_b[2 * DATA_BYTES];

static void setup(uint32_t type)
{
	party_create(&a, 1);
	party_create(&b, 2);
	party_cq(&a, 0, 64, 32);
	party_cq(&b, 0, 64, 32);
	qp_a = party_qp(&a, 30, type, FFV_NONE);
	qp_b = party_qp(&b, 40, type, FFV_NONE);
	world_connect(qp_a, qp_b);
	key_a = party_key(&a, A_KEY, data_a, DATA_BYTES, true);
	key_b = party_key(&b, B_KEY, data_b, DATA_BYTES, true);
	b.far.direct = a.far.direct = true;
	req = party_ref(&a.near, 30);
	resp = party_ref(&b.far, 40);
	env = party_env(&a, 0);
	send_head = recv_head = 0;
	memset(data_a, 1, DATA_BYTES);
	memset(data_b, 2, DATA_BYTES);
	memset(data_a + DATA_BYTES, GUARD, DATA_BYTES);
	memset(data_b + DATA_BYTES, GUARD, DATA_BYTES);
}

static void teardown(void)
{
	for (uint32_t i = DATA_BYTES; i < 2 * DATA_BYTES; i++)
		CHECK(data_a[i] == GUARD && data_b[i] == GUARD);
	CHECK_EQ(ffv_load_relaxed(&env.thread->epoch) % 2, 0);
	party_destroy(&a);
	party_destroy(&b);
}

static bool polls(struct ffv_cqe_shm *cqe, bool receive)
{
	return receive ? world_poll(&resp.recv_cq, &recv_head, cqe) : world_poll(&req.send_cq, &send_head, cqe);
}

/* The next completion has this status; -1: there is none. */
static void check_status(bool receive, int status)
{
	struct ffv_cqe_shm cqe;
	bool there = polls(&cqe, receive);

	CHECK_EQ(there ? cqe.status : -1, status);
}

static void run_and_check(int send_status, int recv_status)
{
	ffv_exec_run(&env, &req, &resp);
	check_status(false, send_status);
	check_status(true, recv_status);
}

static struct ffv_wqe_shm *post_rdma(uint8_t opcode, struct ffv_sge_shm local, uint64_t remote, uint32_t rkey)
{
	struct ffv_wqe_shm *wqe = world_post(&req, opcode, local);

	wqe->rdma.remote_addr = remote;
	wqe->rdma.rkey = rkey;
	return wqe;
}

/* ---- keys -------------------------------------------------------------------------------------------------------------- */

static void spoil_nothing(void) {}
static void spoil_b_pd(void) { key_b->pd++; }
static void spoil_b_access(void) { key_b->access = FFV_ACCESS_LOCAL_WRITE; }
static void spoil_b_key(void) { ffv_store_relaxed(&key_b->key, B_KEY + 1); }
static void spoil_b_length(void) { key_b->length_bytes = 9; }
static void spoil_b_iova(void) { key_b->iova++; }
static void spoil_b_window(void) { key_b->kind = FFV_KEY_MW2; key_b->qpn = 1; }
static void spoil_b_qp_access(void) { qp_b->access = 0; }
static void spoil_b_local_write(void) { key_b->access = 0; }
static void spoil_a_pd(void) { key_a->pd++; }
static void spoil_a_key(void) { ffv_store_relaxed(&key_a->key, 0); }
static void spoil_a_length(void) { key_a->length_bytes = 9; }
static void spoil_a_access(void) { key_a->access = 0; }

struct spoilt { void (*spoil)(void); uint8_t opcode; int send_status; int recv_status; };

static const struct spoilt spoilt[] = {
	{ spoil_nothing, FFV_WR_SEND, FFV_WC_SUCCESS, FFV_WC_SUCCESS },
	{ spoil_nothing, FFV_WR_RDMA_WRITE, FFV_WC_SUCCESS, -1 },
	{ spoil_nothing, FFV_WR_RDMA_READ, FFV_WC_SUCCESS, -1 },
	{ spoil_b_pd, FFV_WR_RDMA_WRITE, FFV_WC_REM_ACCESS_ERR, -1 },
	{ spoil_b_pd, FFV_WR_SEND, FFV_WC_REM_OP_ERR, FFV_WC_LOC_PROT_ERR },
	{ spoil_b_access, FFV_WR_RDMA_WRITE, FFV_WC_REM_ACCESS_ERR, -1 },
	{ spoil_b_access, FFV_WR_RDMA_READ, FFV_WC_REM_ACCESS_ERR, -1 },
	{ spoil_b_key, FFV_WR_RDMA_READ, FFV_WC_REM_ACCESS_ERR, -1 },
	{ spoil_b_key, FFV_WR_SEND, FFV_WC_REM_OP_ERR, FFV_WC_LOC_PROT_ERR },
	{ spoil_b_length, FFV_WR_RDMA_WRITE, FFV_WC_REM_ACCESS_ERR, -1 },
	{ spoil_b_length, FFV_WR_SEND, FFV_WC_REM_OP_ERR, FFV_WC_LOC_PROT_ERR },
	{ spoil_b_iova, FFV_WR_RDMA_WRITE, FFV_WC_REM_ACCESS_ERR, -1 },
	{ spoil_b_window, FFV_WR_RDMA_WRITE, FFV_WC_REM_ACCESS_ERR, -1 },
	{ spoil_b_qp_access, FFV_WR_RDMA_WRITE, FFV_WC_REM_INV_REQ_ERR, -1 },
	{ spoil_b_qp_access, FFV_WR_RDMA_READ, FFV_WC_REM_INV_REQ_ERR, -1 },
	{ spoil_b_qp_access, FFV_WR_SEND, FFV_WC_SUCCESS, FFV_WC_SUCCESS },
	{ spoil_b_local_write, FFV_WR_SEND, FFV_WC_REM_OP_ERR, FFV_WC_LOC_PROT_ERR },
	{ spoil_a_pd, FFV_WR_SEND, FFV_WC_LOC_PROT_ERR, -1 },
	{ spoil_a_key, FFV_WR_RDMA_WRITE, FFV_WC_LOC_PROT_ERR, -1 },
	{ spoil_a_length, FFV_WR_RDMA_READ, FFV_WC_LOC_PROT_ERR, -1 },
	{ spoil_a_access, FFV_WR_RDMA_READ, FFV_WC_LOC_PROT_ERR, -1 }, /* it writes here */
	{ spoil_a_access, FFV_WR_RDMA_WRITE, FFV_WC_SUCCESS, -1 },     /* it reads here */
};

static void test_spoilt_keys(void)
{
	for (size_t i = 0; i < sizeof spoilt / sizeof spoilt[0]; i++) {
		const struct spoilt *it = &spoilt[i];
		setup(FFV_QPT_RC);
		world_receive(&resp.rq, world_sge(data_b, 100, B_KEY));
		post_rdma(it->opcode, world_sge(data_a, 10, A_KEY), (uintptr_t)data_b, B_KEY);
		it->spoil();
		run_and_check(it->send_status, it->recv_status);
		bool failed = it->send_status != FFV_WC_SUCCESS;
		CHECK_EQ(ffv_load_relaxed(&qp_a->state), failed ? FFV_QPS_ERR : FFV_QPS_RTS);
		bool remote = it->send_status >= FFV_WC_REM_INV_REQ_ERR;
		CHECK_EQ(ffv_load_relaxed(&qp_b->state), remote ? FFV_QPS_ERR : FFV_QPS_RTS);
		if (failed) {
			CHECK(data_b[0] == 2 && data_a[0] == 1); /* nothing was moved */
			/* What follows is flushed. */
			world_post(&req, FFV_WR_SEND, world_sge(data_a, 1, A_KEY));
			run_and_check(FFV_WC_WR_FLUSH_ERR, -1);
		}
		teardown();
	}
}

/* Every word of the requester's and the responder's key entry, set to every lie: never anything outside the regions'
 * memory, as far as this process reaches it (the far side is a peer's: its windows bound what it can name). */
static void test_key_words_at_random(void)
{
	static const uint32_t lies[] = { 0, 1, 9, 10, 11, 4096, 1u << 31, UINT32_MAX, B_KEY, A_KEY, WORLD_PD };

	for (unsigned word = 1; word < 4; word++) { /* pd, access, kind: the others name memory, which its owner may */
		for (size_t lie = 0; lie < sizeof lies / sizeof lies[0]; lie++) {
			setup(FFV_QPT_RC);
			((uint32_t *)(void *)key_b)[word] = lies[lie];
			post_rdma(FFV_WR_RDMA_WRITE, world_sge(data_a, 10, A_KEY), (uintptr_t)data_b, B_KEY);
			ffv_exec_run(&env, &req, &resp);
			struct ffv_cqe_shm cqe;
			CHECK(polls(&cqe, false));
			CHECK(cqe.status == FFV_WC_SUCCESS || cqe.status == FFV_WC_REM_ACCESS_ERR);
			teardown();
		}
	}
}

/* ---- lengths ------------------------------------------------------------------------------------------------------------- */

static void test_receive_too_short(void)
{
	setup(FFV_QPT_RC);
	world_receive(&resp.rq, world_sge(data_b, 9, B_KEY));
	world_post(&req, FFV_WR_SEND, world_sge(data_a, 10, A_KEY));
	run_and_check(FFV_WC_REM_INV_REQ_ERR, FFV_WC_LOC_LEN_ERR);
	CHECK_EQ(data_b[0], 2);
	teardown();
}

static void test_length_that_is_not_the_lists(void)
{
	static const uint32_t lies[] = { 0, 9, 11, 1u << 31, UINT32_MAX };

	for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
		setup(FFV_QPT_RC);
		world_receive(&resp.rq, world_sge(data_b, 100, B_KEY));
		world_post(&req, FFV_WR_SEND, world_sge(data_a, 10, A_KEY))->length_bytes = lies[i];
		run_and_check(FFV_WC_LOC_LEN_ERR, -1);
		teardown();
	}
}

static void test_garbage_in_work_requests(void)
{
	setup(FFV_QPT_RC);
	world_receive(&resp.rq, world_sge(data_b, 100, B_KEY));
	world_post(&req, FFV_WR_SEND, world_sge(data_a, 10, A_KEY))->num_sge = 255;
	run_and_check(FFV_WC_LOC_QP_OP_ERR, -1);
	teardown();
	setup(FFV_QPT_RC);
	struct ffv_wqe_shm *wqe = world_post(&req, FFV_WR_SEND, world_sge(data_a, 10, A_KEY));
	wqe->flags |= FFV_SEND_INLINE;
	wqe->length_bytes = req.sq_stride_bytes; /* more than the slot holds */
	run_and_check(FFV_WC_LOC_LEN_ERR, -1);
	teardown();
	for (unsigned opcode = FFV_WR_SEND_WITH_INV + 1; opcode < 256; opcode += 7) {
		setup(FFV_QPT_RC);
		world_post(&req, (uint8_t)opcode, world_sge(data_a, 10, A_KEY));
		run_and_check(FFV_WC_LOC_QP_OP_ERR, -1);
		teardown();
	}
}

static void test_atomics_where_they_cannot_be(void)
{
	const struct { uint32_t length; uint32_t offset; int status; } cases[] = {
		{ 4, 0, FFV_WC_LOC_LEN_ERR }, { 16, 0, FFV_WC_LOC_LEN_ERR }, { 8, 4, FFV_WC_REM_INV_REQ_ERR },
		{ 8, 1, FFV_WC_REM_INV_REQ_ERR }, { 8, DATA_BYTES, FFV_WC_REM_ACCESS_ERR }, { 8, 0, FFV_WC_SUCCESS },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		setup(FFV_QPT_RC);
		post_rdma(FFV_WR_ATOMIC_FETCH_AND_ADD, world_sge(data_a, cases[i].length, A_KEY),
			  (uintptr_t)data_b + cases[i].offset, B_KEY)->rdma.compare_add = 1;
		run_and_check(cases[i].status, -1);
		teardown();
	}
	/* Aligned in terms of the key, not in memory. */
	setup(FFV_QPT_RC);
	key_b->va++;
	key_b->length_bytes--;
	post_rdma(FFV_WR_ATOMIC_FETCH_AND_ADD, world_sge(data_a, 8, A_KEY), (uintptr_t)data_b, B_KEY);
	run_and_check(FFV_WC_REM_INV_REQ_ERR, -1);
	teardown();
}

/* ---- queues ---------------------------------------------------------------------------------------------------------------- */

static void test_lying_send_tail(void)
{
	const uint64_t lies[] = { 17, 1000, UINT64_MAX, 1ull << 63 };

	for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
		setup(FFV_QPT_RC);
		world_receive(&resp.rq, world_sge(data_b, 100, B_KEY));
		world_post(&req, FFV_WR_SEND, world_sge(data_a, 10, A_KEY));
		ffv_store_relaxed(&qp_a->sq_tail, lies[i]);
		run_and_check(-1, -1);
		ffv_store_relaxed(&qp_a->sq_tail, 1);
		run_and_check(FFV_WC_SUCCESS, FFV_WC_SUCCESS);
		teardown();
	}
}

static void test_lying_send_head(void)
{
	setup(FFV_QPT_RC);
	world_post(&req, FFV_WR_SEND, world_sge(data_a, 10, A_KEY));
	ffv_store_relaxed(&qp_a->sq_exec, 5); /* beyond the tail */
	run_and_check(-1, -1);
	CHECK_EQ(ffv_load_relaxed(&qp_a->sq_exec), 5);
	teardown();
}

/* A receive queue that claims to hold more than it has slots, forever: the sender waits, it does not spin. */
static void test_lying_receive_tail(void)
{
	const uint64_t lies[] = { 17, UINT64_MAX, 1ull << 63, 1ull << 40 };

	for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
		setup(FFV_QPT_RC);
		ffv_store_relaxed(&qp_b->rq.tail, lies[i]);
		world_post(&req, FFV_WR_SEND, world_sge(data_a, 10, A_KEY));
		run_and_check(-1, -1);
		CHECK_EQ(ffv_load_relaxed(&qp_a->blocked), FFV_BLOCKED_RNR);
		teardown();
	}
}

static void test_void_receives_only(void)
{
	setup(FFV_QPT_RC);
	for (int i = 0; i < 16; i++)
		world_receive(&resp.rq, (struct ffv_sge_shm){ .addr = FFV_SGE_VOID });
	world_post(&req, FFV_WR_SEND, world_sge(data_a, 10, A_KEY));
	run_and_check(-1, -1);
	CHECK_EQ(ffv_load_relaxed(&qp_a->blocked), FFV_BLOCKED_RNR);
	teardown();
}

static void test_taken_list_of_garbage(void)
{
	setup(FFV_QPT_RC);
	party_srq(&b, 1, 16, 4);
	qp_b->srq = 1;
	resp = party_ref(&b.far, 40);
	qp_a->rq_taken = FFV_TAKEN_YES;
	qp_a->taken_position = 3;
	qp_a->taken_num_sge = UINT32_MAX;
	memset(qp_a->taken_sge, 0xff, sizeof qp_a->taken_sge);
	world_post(&req, FFV_WR_SEND, world_sge(data_a, 10, A_KEY));
	run_and_check(FFV_WC_REM_INV_REQ_ERR, FFV_WC_LOC_LEN_ERR);
	teardown();
}

/* A sender that is connected to an XRC_RECV queue pair, which has no receive queue: nothing can have been taken from it. */
static void test_taken_from_no_queue(void)
{
	setup(FFV_QPT_XRC_SEND);
	qp_b->type = FFV_QPT_XRC_RECV;
	resp = party_ref(&b.far, 40);
	CHECK(resp.recv_cq.shm == NULL);
	qp_a->rq_taken = FFV_TAKEN_YES;
	qp_a->taken_position = 3;
	ffv_store_relaxed(&qp_a->state, (uint32_t)FFV_QPS_ERR);
	ffv_exec_run(&env, &req, &resp);
	CHECK_EQ(qp_a->rq_taken, FFV_TAKEN_NOT);
	CHECK_EQ(ffv_load_relaxed(&qp_a->exec_lock), 0);
	teardown();
}

static void test_destroyed(void)
{
	setup(FFV_QPT_RC);
	world_receive(&resp.rq, world_sge(data_b, 100, B_KEY));
	world_post(&req, FFV_WR_SEND, world_sge(data_a, 10, A_KEY));
	ffv_store_release(&qp_b->generation, 2u);
	run_and_check(-1, -1);
	CHECK_EQ(ffv_load_relaxed(&qp_a->blocked), FFV_BLOCKED_PEER);
	ffv_store_release(&qp_a->generation, 2u);
	ffv_store_relaxed(&qp_a->deadline_ns, 0);
	run_and_check(-1, -1);
	CHECK_EQ(ffv_load_relaxed(&qp_a->sq_exec), 0);
	teardown();
}

static void test_states_that_do_not_execute(void)
{
	const uint32_t states[] = { FFV_QPS_RESET, FFV_QPS_INIT, FFV_QPS_RTR, FFV_QPS_SQD, FFV_QPS_UNKNOWN, 1000 };

	for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
		setup(FFV_QPT_RC);
		world_receive(&resp.rq, world_sge(data_b, 100, B_KEY));
		world_post(&req, FFV_WR_SEND, world_sge(data_a, 10, A_KEY));
		ffv_store_relaxed(&qp_a->state, states[i]);
		run_and_check(-1, -1);
		teardown();
	}
}

static void test_overrun(bool receive)
{
	struct ffv_cq_ref *cq = receive ? &resp.recv_cq : &req.send_cq;

	setup(FFV_QPT_RC);
	world_receive(&resp.rq, world_sge(data_b, 100, B_KEY));
	world_post(&req, FFV_WR_SEND, world_sge(data_a, 10, A_KEY));
	ffv_store_relaxed(&cq->shm->tail, 64); /* all unread */
	ffv_exec_run(&env, &req, &resp);
	CHECK_EQ(ffv_load_relaxed(&cq->shm->overrun), 1);
	CHECK(ffv_load_relaxed(receive ? &b.cq_attentions : &a.cq_attentions) >= 1);
	CHECK_EQ(ffv_load_relaxed(&qp_a->state), FFV_QPS_ERR);
	teardown();
}

/* A queue whose head lies far ahead: entries are lost to its owner, and nobody else. */
static void test_lying_completion_head(void)
{
	const uint64_t lies[] = { 1, 1ull << 40, UINT64_MAX, 1ull << 63 };

	for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
		setup(FFV_QPT_RC);
		ffv_store_relaxed(&resp.recv_cq.shm->head, lies[i]);
		ffv_store_relaxed(&resp.recv_cq.shm->cached_head, lies[i]);
		for (int n = 0; n < 10; n++) {
			world_receive(&resp.rq, world_sge(data_b, 100, B_KEY));
			world_post(&req, FFV_WR_SEND, world_sge(data_a, 10, A_KEY));
		}
		ffv_exec_run(&env, &req, &resp);
		check_status(false, FFV_WC_SUCCESS);
		teardown();
	}
}

/* ---- noise ------------------------------------------------------------------------------------------------------------------ */

/* Random bytes over the queue, its description beyond the geometry, and its entries: the run ends, guards stand. */
static void test_noise(unsigned seed)
{
	unsigned state = seed;

	for (int round = 0; round < 3000; round++) {
		setup(round % 3 ? FFV_QPT_RC : FFV_QPT_UC);
		for (uint32_t i = 0; i < 16 * req.sq_stride_bytes; i++)
			req.sq_ring[i] = (uint8_t)rand_r(&state);
		for (int n = 0; n < 8; n++) { /* half-way plausible ones among them */
			struct ffv_wqe_shm *wqe = ffv_qp_ref_wqe(&req, (unsigned)n);
			wqe->opcode %= 12;
			wqe->num_sge %= 4;
			wqe->length_bytes %= 64;
			wqe->sge[0] = world_sge(data_a + wqe->length_bytes, wqe->length_bytes, A_KEY);
			wqe->rdma.rkey = rand_r(&state) % 4 ? B_KEY : (uint32_t)rand_r(&state);
			wqe->rdma.remote_addr = (uintptr_t)data_b + (unsigned)rand_r(&state) % (2 * DATA_BYTES);
			world_receive(&resp.rq, world_sge(data_b, (unsigned)rand_r(&state) % DATA_BYTES, B_KEY));
		}
		qp_a->rq_taken = (uint8_t)rand_r(&state) % 3;
		qp_a->progress_bytes = rand_r(&state) % 4 ? 0 : (uint32_t)rand_r(&state);
		qp_a->staged_bytes = rand_r(&state) % 4 ? 0 : (uint32_t)rand_r(&state);
		ffv_store_release(&qp_a->sq_tail, 8);
		ffv_exec_run(&env, &req, &resp);
		CHECK_EQ(ffv_load_relaxed(&qp_a->exec_lock), 0);
		teardown();
	}
}

int main(void)
{
	const char *given = getenv("FFVERBS_TEST_SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL);

	printf("FFVERBS_TEST_SEED=%u\n", seed);
	fflush(stdout);
	test_spoilt_keys();
	test_key_words_at_random();
	test_receive_too_short();
	test_length_that_is_not_the_lists();
	test_garbage_in_work_requests();
	test_atomics_where_they_cannot_be();
	test_lying_send_tail();
	test_lying_send_head();
	test_lying_receive_tail();
	test_void_receives_only();
	test_taken_list_of_garbage();
	test_taken_from_no_queue();
	test_destroyed();
	test_states_that_do_not_execute();
	test_overrun(false);
	test_overrun(true);
	test_lying_completion_head();
	test_noise(seed);
	return 0;
}

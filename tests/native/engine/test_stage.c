/* Messages that no single process can move: each side reaches its own memory only, and a staging buffer in the
 * requester's arena goes back and forth. The steps of the two processes are taken one by one. */
#include <time.h>

#include "world.h"

#define DATA_BYTES (5u * WORLD_STAGE_BYTES + 123u)
#define A_KEY WORLD_KEY(5, 1)
#define B_KEY WORLD_KEY(6, 2)

/* Two processes: a's sees a.near and b.far, b's sees a.far and b.near. */
static struct party a, b;
static struct ffv_qp_shm *qp_a, *qp_b;
static struct ffv_qp_ref req_at_a, resp_at_a, req_at_b, resp_at_b;
static struct ffv_exec_env env_a, env_b;
static struct ffv_rq_ref srq;
static uint64_t send_head, recv_head;
static _Alignas(64) uint8_t data_a[DATA_BYTES], data_b[DATA_BYTES];
static unsigned seed;

static bool find_b(void *arg, const struct ffv_qp_ref *requester, const struct ffv_wqe_ud_shm *address,
		   struct ffv_qp_ref *out)
{
	(void)requester;
	struct ffv_view *view = arg == &a ? &b.far : &b.near;

	return ffv_qp_ref_open(view, address->qpn, out) == 0;
}

static const struct ffv_exec_face face = {
	.signal = world_signal, .attention = world_attention, .find = find_b, .stage = world_stage,
};

/* mirrored: what the keys claim. No windows can be mapped, so nothing is reached through them in any case. */
static void setup(uint32_t type, bool a_mirrored, bool b_mirrored, bool shared)
{
	unsigned state = seed;

	party_create(&a, 1);
	party_create(&b, 2);
	party_cq(&a, 0, 64, 32);
	party_cq(&b, 0, 64, 32);
	party_srq(&b, 1, 16, 4);
	qp_a = party_qp(&a, 30, type, FFV_NONE);
	qp_b = party_qp(&b, 40, type, shared ? 1 : FFV_NONE);
	world_connect(qp_a, qp_b);
	party_key(&a, A_KEY, data_a, DATA_BYTES, a_mirrored);
	party_key(&b, B_KEY, data_b, DATA_BYTES, b_mirrored);
	req_at_a = party_ref(&a.near, 30);
	resp_at_a = party_ref(&b.far, 40);
	req_at_b = party_ref(&a.far, 30);
	resp_at_b = party_ref(&b.near, 40);
	srq = resp_at_b.rq;
	env_a = party_env(&a, 0);
	env_b = party_env(&b, 0);
	env_a.face = env_b.face = &face;
	send_head = recv_head = 0;
	for (uint32_t i = 0; i < DATA_BYTES; i++) {
		data_a[i] = (uint8_t)rand_r(&state);
		data_b[i] = (uint8_t)~data_a[i];
	}
}

static void teardown(void)
{
	party_destroy(&a);
	party_destroy(&b);
}

static void step_a(void)
{
	ffv_exec_run(&env_a, &req_at_a, &resp_at_a);
}

static void step_b(void)
{
	ffv_exec_run(&env_b, &req_at_b, &resp_at_b);
}

static uint32_t blocked(void)
{
	return ffv_load_relaxed(&qp_a->blocked);
}

/* As the service threads do: whoever is asked for takes the next step. Returns the number of steps. */
static unsigned run_until_done(void)
{
	unsigned steps = 0;

	step_a();
	while (ffv_load_relaxed(&qp_a->sq_exec) != ffv_load_relaxed(&qp_a->sq_tail)) {
		CHECK(blocked() == FFV_BLOCKED_RESPONDER || blocked() == FFV_BLOCKED_REQUESTER);
		if (blocked() == FFV_BLOCKED_RESPONDER)
			step_b();
		else
			step_a();
		CHECK(++steps < 100); /* it comes to an end */
	}
	return steps;
}

static void check_sent(uint32_t status)
{
	struct ffv_cqe_shm cqe;

	CHECK(world_poll(&req_at_a.send_cq, &send_head, &cqe));
	CHECK_EQ(cqe.status, status);
	CHECK_EQ(qp_a->staged_bytes, 0);
	CHECK_EQ(qp_a->progress_bytes, 0);
}

static void check_received(uint32_t length)
{
	struct ffv_cqe_shm cqe;

	CHECK(world_poll(&resp_at_b.recv_cq, &recv_head, &cqe));
	CHECK_EQ(cqe.status, FFV_WC_SUCCESS);
	CHECK_EQ(cqe.byte_len, length);
}

static void test_send(bool a_mirrored, bool b_mirrored, bool shared, uint32_t length)
{
	setup(FFV_QPT_RC, a_mirrored, b_mirrored, shared);
	for (int i = 0; i < 3; i++) {
		world_receive(&resp_at_b.rq, world_sge(data_b, length + 1, B_KEY));
		world_post(&req_at_a, FFV_WR_SEND, world_sge(data_a, length, A_KEY));
		run_until_done();
		check_sent(FFV_WC_SUCCESS);
		check_received(length);
		CHECK_EQ(memcmp(data_a, data_b, length), 0);
		CHECK_EQ(data_b[length], (uint8_t)~data_a[length]);
		memset(data_b, 0, length);
	}
	CHECK_EQ(qp_a->rq_taken, FFV_TAKEN_NOT);
	teardown();
}

static void test_rdma(uint8_t opcode, bool a_mirrored, bool b_mirrored, uint32_t length)
{
	setup(FFV_QPT_RC, a_mirrored, b_mirrored, false);
	struct ffv_wqe_shm *wqe = world_post(&req_at_a, opcode, world_sge(data_a + 1, length, A_KEY));
	wqe->rdma.remote_addr = (uintptr_t)data_b + 2;
	wqe->rdma.rkey = B_KEY;
	run_until_done();
	check_sent(FFV_WC_SUCCESS);
	CHECK_EQ(memcmp(data_a + 1, data_b + 2, length), 0);
	teardown();
}

/* The same, and what stands in between is looked at. */
static void test_step_by_step(void)
{
	const uint32_t length = 2 * WORLD_STAGE_BYTES + 10;

	setup(FFV_QPT_RC, false, false, false);
	world_receive(&resp_at_b.rq, world_sge(data_b, length, B_KEY));
	world_post(&req_at_a, FFV_WR_SEND, world_sge(data_a, length, A_KEY));
	for (uint32_t chunk = 0; chunk < 3; chunk++) {
		uint32_t n = chunk < 2 ? WORLD_STAGE_BYTES : 10;
		step_a();
		CHECK_EQ(blocked(), FFV_BLOCKED_RESPONDER);
		CHECK_EQ(ffv_load_relaxed(&b.last_attention), FFV_ATTENTION_QP + 40);
		CHECK_EQ(qp_a->staged_bytes, n);
		CHECK_EQ(qp_a->progress_bytes, chunk * WORLD_STAGE_BYTES);
		step_a(); /* not its turn: nothing changes */
		CHECK_EQ(qp_a->staged_bytes, n);
		CHECK_EQ(memcmp(data_a, data_b, chunk * WORLD_STAGE_BYTES), 0);
		step_b();
		if (chunk == 2)
			break;
		CHECK_EQ(blocked(), FFV_BLOCKED_REQUESTER);
		CHECK_EQ(ffv_load_relaxed(&a.last_attention), FFV_ATTENTION_QP + 30);
		CHECK_EQ(qp_a->staged_bytes, 0);
		step_b(); /* nor its */
		CHECK_EQ(qp_a->progress_bytes, (chunk + 1) * WORLD_STAGE_BYTES);
	}
	check_sent(FFV_WC_SUCCESS);
	check_received(length);
	CHECK_EQ(memcmp(data_a, data_b, length), 0);
	CHECK_EQ(blocked(), FFV_BLOCKED_NOT);
	teardown();
}

static void test_atomics(void)
{
	uint64_t word = 41, original;

	for (int opcode = FFV_WR_ATOMIC_CMP_AND_SWP; opcode <= FFV_WR_ATOMIC_FETCH_AND_ADD; opcode++) {
		setup(FFV_QPT_RC, false, false, false);
		memcpy(data_b, &word, 8);
		struct ffv_wqe_shm *wqe = world_post(&req_at_a, (uint8_t)opcode, world_sge(data_a, 8, A_KEY));
		bool add = opcode == FFV_WR_ATOMIC_FETCH_AND_ADD;
		wqe->rdma = (struct ffv_wqe_rdma_shm){ (uintptr_t)data_b, B_KEY, 0, add ? 1 : 41, 42 };
		step_a();
		CHECK_EQ(blocked(), FFV_BLOCKED_RESPONDER);
		step_b(); /* done there; the original waits for the requester */
		CHECK_EQ(blocked(), FFV_BLOCKED_REQUESTER);
		memcpy(&original, data_b, 8);
		CHECK_EQ(original, 42);
		step_b(); /* not done twice */
		memcpy(&original, data_b, 8);
		CHECK_EQ(original, 42);
		step_a();
		check_sent(FFV_WC_SUCCESS);
		memcpy(&original, data_a, 8);
		CHECK_EQ(original, 41);
		teardown();
	}
}

/* Those that follow wait for their turn, and do not mix. */
static void test_order_is_kept(void)
{
	setup(FFV_QPT_RC, false, false, true);
	struct ffv_wqe_shm *wqe = world_post(&req_at_a, FFV_WR_RDMA_WRITE,
					     world_sge(data_a, WORLD_STAGE_BYTES + 5, A_KEY));
	wqe->rdma = (struct ffv_wqe_rdma_shm){ .remote_addr = (uintptr_t)data_b, .rkey = B_KEY };
	world_receive(&resp_at_b.rq, world_sge(data_b + 2 * WORLD_STAGE_BYTES, 4096, B_KEY));
	world_receive(&resp_at_b.rq, world_sge(data_b + 3 * WORLD_STAGE_BYTES, 4096, B_KEY));
	wqe = world_post(&req_at_a, FFV_WR_RDMA_WRITE_WITH_IMM, world_sge(data_a + 9000, 100, A_KEY));
	wqe->rdma = (struct ffv_wqe_rdma_shm){ .remote_addr = (uintptr_t)data_b + 9000, .rkey = B_KEY };
	world_post(&req_at_a, FFV_WR_SEND, world_sge(data_a + 100, 4096, A_KEY));
	run_until_done();
	for (int i = 0; i < 3; i++)
		check_sent(FFV_WC_SUCCESS);
	check_received(100);
	check_received(4096);
	CHECK_EQ(memcmp(data_b, data_a, WORLD_STAGE_BYTES + 5), 0);
	CHECK_EQ(memcmp(data_b + 9000, data_a + 9000, 100), 0);
	CHECK_EQ(memcmp(data_b + 3 * WORLD_STAGE_BYTES, data_a + 100, 4096), 0);
	teardown();
}

/* ---- datagrams -------------------------------------------------------------------------------------------------------------- */

static struct ffv_wqe_shm *post_datagram(uint32_t length)
{
	struct ffv_wqe_shm *wqe = world_post(&req_at_a, FFV_WR_SEND, world_sge(data_a + 3, length, A_KEY));

	wqe->ud.qpn = qp_b->qpn;
	wqe->ud.qkey = qp_b->qkey;
	return wqe;
}

static void test_datagram(bool a_mirrored, bool b_mirrored)
{
	setup(FFV_QPT_UD, a_mirrored, b_mirrored, false);
	for (int i = 0; i < 3; i++) {
		memset(data_b, 0, DATA_BYTES);
		world_receive(&resp_at_b.rq, world_sge(data_b + 5, 4096, B_KEY));
		post_datagram(1000);
		run_until_done();
		check_sent(FFV_WC_SUCCESS);
		check_received(1040);
		CHECK_EQ(memcmp(data_a + 3, data_b + 45, 1000), 0);
		CHECK_EQ(data_b[5 + 20], 0x45); /* an IPv4 header in the last 20 bytes of the 40 */
	}
	CHECK_EQ(qp_a->rq_taken, FFV_TAKEN_NOT);
	teardown();
}

/* The one addressed goes away between two steps: the entry that was taken for it comes back flushed, and the next
 * datagram to another does not get it. */
static void test_entry_taken_for_another(void)
{
	struct ffv_cqe_shm cqe;

	setup(FFV_QPT_UD, false, false, false);
	world_receive(&resp_at_b.rq, world_sge(data_b, 4096, B_KEY));
	post_datagram(100);
	step_a();
	CHECK_EQ(blocked(), FFV_BLOCKED_RESPONDER);
	CHECK_EQ(qp_a->rq_taken, FFV_TAKEN_YES);
	ffv_store_relaxed(&qp_b->state, (uint32_t)FFV_QPS_ERR);
	step_b();
	CHECK_EQ(qp_a->rq_taken, FFV_TAKEN_NOT);
	CHECK(world_poll(&resp_at_b.recv_cq, &recv_head, &cqe));
	CHECK_EQ(cqe.status, FFV_WC_WR_FLUSH_ERR);
	CHECK_EQ(cqe.wqe_position, 0);
	check_sent(FFV_WC_SUCCESS); /* a datagram is lost without a word */
	teardown();
}

/* ---- broken off --------------------------------------------------------------------------------------------------------------- */

static void test_flushed_in_the_middle(bool responder_fails)
{
	struct ffv_cqe_shm cqe;

	setup(FFV_QPT_RC, false, false, true);
	world_receive(&resp_at_b.rq, world_sge(data_b, DATA_BYTES, B_KEY));
	world_post(&req_at_a, FFV_WR_SEND, world_sge(data_a, 2 * WORLD_STAGE_BYTES, A_KEY));
	step_a();
	CHECK_EQ(qp_a->rq_taken, FFV_TAKEN_YES);
	ffv_store_relaxed(&qp_a->state, (uint32_t)FFV_QPS_ERR);
	if (responder_fails)
		ffv_store_relaxed(&qp_b->state, (uint32_t)FFV_QPS_ERR);
	step_a();
	check_sent(FFV_WC_WR_FLUSH_ERR);
	CHECK(world_poll(&resp_at_b.recv_cq, &recv_head, &cqe)); /* the shared entry that it had taken */
	CHECK_EQ(cqe.status, FFV_WC_WR_FLUSH_ERR);
	CHECK_EQ(qp_a->rq_taken, FFV_TAKEN_NOT);
	teardown();
}

/* What stands in the requester's arena is a lie. */
static void test_lies_about_the_stage(uint32_t progress, uint32_t staged, uint32_t line, uint32_t bytes)
{
	static const uint32_t length = 3 * WORLD_STAGE_BYTES;

	setup(FFV_QPT_RC, false, false, false);
	world_receive(&resp_at_b.rq, world_sge(data_b, length, B_KEY));
	world_post(&req_at_a, FFV_WR_SEND, world_sge(data_a, length, A_KEY));
	step_a();
	memset(data_b, 0xee, DATA_BYTES);
	qp_a->progress_bytes = progress;
	qp_a->staged_bytes = staged;
	if (line)
		qp_a->stage_line = line;
	if (bytes)
		qp_a->stage_bytes = bytes;
	step_b();
	for (uint32_t i = length; i < DATA_BYTES; i++)
		CHECK_EQ(data_b[i], 0xee); /* nothing beyond the list */
	check_sent(FFV_WC_LOC_QP_OP_ERR);
	teardown();
}

/* The responder is first, and cannot make a staging buffer in the requester's arena: it hands the queue back. */
static void test_responder_comes_first(void)
{
	setup(FFV_QPT_RC, false, false, false);
	world_receive(&resp_at_b.rq, world_sge(data_b, 100, B_KEY));
	world_post(&req_at_a, FFV_WR_SEND, world_sge(data_a, 100, A_KEY));
	step_b();
	CHECK_EQ(blocked(), FFV_BLOCKED_REQUESTER);
	CHECK_EQ(qp_a->stage_line, FFV_NONE);
	run_until_done();
	check_sent(FFV_WC_SUCCESS);
	check_received(100);
	teardown();
}

int main(void)
{
	const char *given = getenv("FFVERBS_TEST_SEED");
	const uint32_t lengths[] = { 1, 8, 4095, WORLD_STAGE_BYTES, WORLD_STAGE_BYTES + 1, DATA_BYTES - 3 };

	seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL);
	printf("FFVERBS_TEST_SEED=%u\n", seed);
	fflush(stdout);
	for (unsigned i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		for (int mirrored = 0; mirrored < 4; mirrored++) {
			test_send(mirrored & 1, mirrored & 2, false, lengths[i]);
			test_send(mirrored & 1, mirrored & 2, true, lengths[i]);
			test_rdma(FFV_WR_RDMA_WRITE, mirrored & 1, mirrored & 2, lengths[i]);
			test_rdma(FFV_WR_RDMA_READ, mirrored & 1, mirrored & 2, lengths[i]);
		}
	}
	test_step_by_step();
	test_atomics();
	test_order_is_kept();
	for (int mirrored = 0; mirrored < 4; mirrored++)
		test_datagram(mirrored & 1, mirrored & 2);
	test_entry_taken_for_another();
	test_flushed_in_the_middle(false);
	test_flushed_in_the_middle(true);
	test_lies_about_the_stage(4 * WORLD_STAGE_BYTES, WORLD_STAGE_BYTES, 0, 0);
	test_lies_about_the_stage(UINT32_MAX, 1, 0, 0);
	test_lies_about_the_stage(0, UINT32_MAX, 0, 0);
	test_lies_about_the_stage(3 * WORLD_STAGE_BYTES, 1, 0, 0);
	test_lies_about_the_stage(0, 2 * WORLD_STAGE_BYTES, 0, 0);
	test_lies_about_the_stage(0, WORLD_STAGE_BYTES, 1, 0);
	test_lies_about_the_stage(0, WORLD_STAGE_BYTES, FFV_ARENA_LINES - 1, 0);
	test_lies_about_the_stage(0, WORLD_STAGE_BYTES, FFV_ARENA_LINES - 1000, UINT32_MAX - 100);
	test_responder_comes_first();
	return 0;
}

/* Taking receive work requests: one taker, many takers, void entries, tails that are late or lie. */
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "world.h"

static struct party party;

static struct ffv_rq_ref fresh_rq(uint32_t slots, uint32_t max_sge)
{
	struct ffv_rq_ref ref;

	party_create(&party, 1);
	party_srq(&party, 2, slots, max_sge);
	CHECK_EQ(ffv_srq_ref_open(&party.near, 2, &ref), 0);
	CHECK(ref.shared_takers);
	CHECK_EQ(ref.srq_id, 2);
	return ref;
}

static void post(const struct ffv_rq_ref *rq, uint64_t addr)
{
	world_receive(rq, (struct ffv_sge_shm){ addr, 1, 0 });
}

static void test_one_taker(void)
{
	struct ffv_rq_ref rq = fresh_rq(4, 2);
	struct ffv_rwqe got;

	CHECK(!ffv_rq_peek(&rq, &got));
	for (uint64_t i = 0; i < 40; i++) {
		post(&rq, 1000 + i);
		post(&rq, 5000 + i);
		for (int twice = 0; twice < 2; twice++) { /* peeking takes nothing */
			CHECK(ffv_rq_peek(&rq, &got));
			CHECK_EQ(got.sge[0].addr, 1000 + i);
			CHECK_EQ(got.num_sge, 1);
			CHECK_EQ(got.position, 2 * i);
		}
		ffv_rq_advance(&rq, got.position);
		CHECK(ffv_rq_peek(&rq, &got));
		CHECK_EQ(got.sge[0].addr, 5000 + i);
		CHECK_EQ(ffv_rq_depth(&rq), 1);
		ffv_rq_advance(&rq, got.position);
		CHECK(!ffv_rq_peek(&rq, &got));
		CHECK_EQ(ffv_rq_depth(&rq), 0);
	}
	party_destroy(&party);
}

static void test_void_entries_are_passed_over(uint32_t max_sge)
{
	struct ffv_rq_ref rq = fresh_rq(8, max_sge);
	struct ffv_qp_shm taker = { .rq_taken = FFV_TAKEN_NOT };
	struct ffv_rwqe got;

	post(&rq, FFV_SGE_VOID);
	post(&rq, FFV_SGE_VOID);
	post(&rq, max_sge ? 77 : FFV_SGE_END);
	post(&rq, FFV_SGE_VOID);
	CHECK(ffv_rq_take(&rq, &taker, &got));
	CHECK_EQ(got.position, 2);
	CHECK_EQ(got.num_sge, max_sge ? 1 : 0);
	CHECK_EQ(taker.rq_taken, FFV_TAKEN_YES);
	CHECK_EQ(taker.taken_position, 2);
	ffv_rq_forget(&taker);
	CHECK(!ffv_rq_take(&rq, &taker, &got));
	CHECK_EQ(taker.rq_taken, FFV_TAKEN_NOT);
	party_destroy(&party);
}

static void test_full_list(void)
{
	struct ffv_rq_ref rq = fresh_rq(4, 4);
	struct ffv_sge_shm *entry = (struct ffv_sge_shm *)ffv_rq_ref_entry(&rq, 0);
	struct ffv_rwqe got;

	for (uint32_t i = 0; i < 4; i++)
		entry[i] = (struct ffv_sge_shm){ 10 + i, i, i };
	ffv_store_release(&rq.shm->tail, 1);
	CHECK(ffv_rq_peek(&rq, &got));
	CHECK_EQ(got.num_sge, 4);
	CHECK_EQ(got.sge[3].addr, 13);
	party_destroy(&party);
}

/* Another taker read the tail long ago and caches it now, when the queue has moved on: nothing is taken that was not
 * posted. */
static void test_late_cached_tail(void)
{
	struct ffv_rq_ref rq = fresh_rq(8, 1);
	struct ffv_qp_shm taker = { .rq_taken = FFV_TAKEN_NOT };
	struct ffv_rwqe got;

	for (uint64_t i = 0; i < 5; i++) {
		post(&rq, i);
		CHECK(ffv_rq_take(&rq, &taker, &got));
	}
	ffv_store_relaxed(&rq.shm->cached_tail, 3);
	CHECK(!ffv_rq_take(&rq, &taker, &got));
	CHECK_EQ(ffv_load_relaxed(&rq.shm->head), 5);
	ffv_store_relaxed(&rq.shm->cached_tail, 3);
	CHECK(!ffv_rq_peek(&rq, &got));
	post(&rq, 5);
	CHECK(ffv_rq_take(&rq, &taker, &got));
	CHECK_EQ(got.position, 5);
	party_destroy(&party);
}

/* More entries than slots are a lie, and one that could keep us busy for ever. */
static void test_lying_tail(void)
{
	struct ffv_rq_ref rq = fresh_rq(8, 1);
	struct ffv_qp_shm taker = { .rq_taken = FFV_TAKEN_NOT };
	const uint64_t lies[] = { 9, 1ull << 40, UINT64_MAX, 1ull << 63 };
	struct ffv_rwqe got;

	for (unsigned i = 0; i < sizeof lies / sizeof lies[0]; i++) {
		ffv_store_relaxed(&rq.shm->tail, lies[i]);
		CHECK(!ffv_rq_peek(&rq, &got));
		CHECK(!ffv_rq_take(&rq, &taker, &got));
		CHECK_EQ(ffv_load_relaxed(&rq.shm->head), 0);
	}
	party_destroy(&party);
}

/* ---- many takers --------------------------------------------------------------------------------------------------- */

#define TAKERS 3
#define ENTRIES 150000u

static struct ffv_rq_ref queue;
static _Atomic uint32_t taken;
static _Atomic uint8_t seen[ENTRIES];
static unsigned seed;

static void *take_many(void *arg)
{
	struct ffv_qp_shm *taker = arg;
	unsigned state = seed + taker->qpn;
	struct ffv_rwqe got;

	while (ffv_load_relaxed(&taken) < ENTRIES) {
		if (!ffv_rq_take(&queue, taker, &got)) {
			sched_yield();
			continue;
		}
		CHECK(got.num_sge == 1 && got.sge[0].addr < ENTRIES);
		CHECK_EQ(got.sge[0].length, (uint32_t)got.sge[0].addr * 3); /* whole */
		CHECK_EQ(ffv_fetch_add(&seen[got.sge[0].addr], 1), 0);      /* once */
		if (rand_r(&state) % 64 == 0)
			sched_yield();
		ffv_rq_forget(taker);
		ffv_fetch_add(&taken, 1u);
	}
	return NULL;
}

/* The owner of the queue: a slot is written again only after what stood there was taken and completed. */
static void post_many(void)
{
	uint64_t position = 0;
	unsigned state = seed;

	for (uint32_t i = 0; i < ENTRIES; position++) {
		while (position - ffv_load_acquire(&queue.shm->head) + TAKERS >= queue.index_mask + 1u ||
		       i - ffv_load_acquire(&taken) >= queue.index_mask / 2)
			sched_yield();
		struct ffv_sge_shm *entry = (struct ffv_sge_shm *)ffv_rq_ref_entry(&queue, position);
		bool is_void = rand_r(&state) % 8 == 0;
		ffv_sge_write(entry, is_void ? (struct ffv_sge_shm){ FFV_SGE_VOID, 0, 0 }
					     : (struct ffv_sge_shm){ i, i * 3, 0 });
		i += !is_void;
		ffv_store_release(&queue.shm->tail, position + 1);
	}
}

static void test_many_takers(void)
{
	static struct ffv_qp_shm takers[TAKERS];
	pthread_t threads[TAKERS];

	queue = fresh_rq(64, 1);
	for (uint32_t i = 0; i < TAKERS; i++) {
		takers[i].qpn = i;
		CHECK_EQ(pthread_create(&threads[i], NULL, take_many, &takers[i]), 0);
	}
	post_many();
	for (unsigned i = 0; i < TAKERS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	for (uint32_t i = 0; i < ENTRIES; i++)
		CHECK_EQ(ffv_load_relaxed(&seen[i]), 1);
	party_destroy(&party);
}

int main(void)
{
	const char *given = getenv("FFVERBS_TEST_SEED");

	seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL);
	printf("FFVERBS_TEST_SEED=%u\n", seed);
	fflush(stdout);
	test_one_taker();
	test_void_entries_are_passed_over(0);
	test_void_entries_are_passed_over(1);
	test_void_entries_are_passed_over(3);
	test_full_list();
	test_late_cached_tail();
	test_lying_tail();
	test_many_takers();
	return 0;
}

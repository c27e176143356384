/* The completion ring: claims of many threads, void entries, holes, overrun, arming. Every test is deterministic or
 * seeded, and runs as threads of one process, so that the thread sanitizer sees both ends. */
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "world.h"

static struct party party;

static struct ffv_cq_ref fresh_cq(uint32_t slots, uint32_t cqe)
{
	struct ffv_cq_ref ref;

	party_create(&party, 1);
	party_cq(&party, 3, slots, cqe);
	CHECK_EQ(ffv_cq_ref_open(&party.near, 3, &ref), 0);
	return ref;
}

static void publish_one(struct ffv_claim *claim, uint32_t value)
{
	struct ffv_cqe_shm *cqe = ffv_cq_entry(claim);

	cqe->qpn_side = 1;
	cqe->wqe_position = value;
	ffv_cq_publish(claim);
}

/* ---- one thread ---------------------------------------------------------------------------------------------------- */

static void test_claim_is_bounded_by_the_ring(void)
{
	struct ffv_cq_ref cq = fresh_cq(16, 8);
	struct ffv_cqe_shm got;
	uint64_t head = 0;

	for (uint32_t i = 0; i < 16; i++) {
		struct ffv_claim claim = { .cq = &cq };
		CHECK(ffv_cq_claim(&claim, &party.near, 1, false, NULL));
		publish_one(&claim, i);
	}
	struct ffv_claim over = { .cq = &cq };
	CHECK(!ffv_cq_claim(&over, &party.near, 1, false, NULL));
	CHECK_EQ(ffv_load_relaxed(&cq.shm->overrun), 1);
	for (uint32_t i = 0; i < 16; i++) {
		CHECK(world_poll(&cq, &head, &got));
		CHECK_EQ(got.wqe_position, i);
	}
	CHECK(!world_poll(&cq, &head, &got));
	party_destroy(&party);
}

/* Claimed in batches and mostly given back void: as many completions as the queue was made for never overrun it. */
static void test_void_entries_do_not_overrun(uint32_t cqe, uint32_t slots)
{
	struct ffv_cq_ref cq = fresh_cq(slots, cqe);
	struct ffv_cqe_shm got;
	uint64_t head = 0;

	for (uint32_t lap = 0; lap < 5; lap++) {
		for (uint32_t i = 0; i < cqe; i++) {
			struct ffv_claim claim = { .cq = &cq };
			CHECK(ffv_cq_claim(&claim, &party.near, 16, false, NULL));
			publish_one(&claim, lap * cqe + i);
			ffv_cq_abandon(&claim);
		}
		for (uint32_t i = 0; i < cqe; i++) {
			CHECK(world_poll(&cq, &head, &got));
			CHECK_EQ(got.wqe_position, lap * cqe + i);
		}
		CHECK(!world_poll(&cq, &head, &got));
	}
	CHECK_EQ(ffv_load_relaxed(&cq.shm->overrun), 0);
	party_destroy(&party);
}

static void test_batches_are_claimed_where_there_is_room(void)
{
	struct ffv_cq_ref cq = fresh_cq(64, 16);
	struct ffv_claim claim = { .cq = &cq };

	CHECK(ffv_cq_claim(&claim, &party.near, 16, false, NULL));
	CHECK_EQ(claim.end - claim.next, 16);
	party_destroy(&party);
}

static void test_claim_passes_over_holes(void)
{
	struct ffv_cq_ref cq = fresh_cq(16, 4);
	struct ffv_claim stalled = { .cq = &cq }, other = { .cq = &cq };

	CHECK(ffv_cq_claim(&stalled, &party.near, 1, false, NULL));
	/* The owner gives position 0 up (verbs/cq.c does so after a while): its slot is out of use for good. */
	ffv_store_relaxed(&cq.shm->holes[0], 1);
	ffv_store_release(&cq.shm->num_holes, 1u);
	ffv_store_release(&cq.shm->head, 1);
	for (uint64_t position = 1; position < 64; position++) {
		if (position % 16 == 0)
			continue;
		other.next = other.end = 0;
		CHECK(ffv_cq_claim(&other, &party.near, 1, false, NULL));
		CHECK_EQ(other.next, position);
		publish_one(&other, (uint32_t)position);
		ffv_store_release(&cq.shm->head, position + 1);
	}
	/* Late, into its own slot: nobody else's completion is there. */
	publish_one(&stalled, 4711);
	CHECK(ffv_cq_is_published(&cq, 0));
	CHECK_EQ(cq.ring[0].wqe_position, 4711);
	for (uint64_t position = 49; position < 64; position++) {
		CHECK(ffv_cq_is_published(&cq, position));
		CHECK_EQ(cq.ring[position & 15].wqe_position, position);
	}
	party_destroy(&party);
}

static void test_batch_publishes_around_a_hole(void)
{
	struct ffv_cq_ref cq = fresh_cq(32, 4);
	struct ffv_claim claim = { .cq = &cq };

	ffv_store_relaxed(&cq.shm->tail, 31);
	ffv_store_relaxed(&cq.shm->head, 31);
	ffv_store_relaxed(&cq.shm->holes[0], 1); /* slot 0, where position 32 would go */
	ffv_store_relaxed(&cq.shm->num_holes, 1u);
	CHECK(ffv_cq_claim(&claim, &party.near, 4, false, NULL));
	CHECK_EQ(claim.next, 31);
	publish_one(&claim, 31);
	CHECK_EQ(claim.next, 33);
	ffv_cq_abandon(&claim);
	CHECK(!ffv_cq_is_published(&cq, 32));
	CHECK(ffv_cq_is_published(&cq, 33) && ffv_cq_is_published(&cq, 34));
	CHECK_EQ(cq.ring[33 & 31].qpn_side, 0);
	party_destroy(&party);
}

static void test_a_claim_of_nothing_but_a_hole_goes_on(void)
{
	struct ffv_cq_ref cq = fresh_cq(16, 4);
	struct ffv_claim claim = { .cq = &cq };

	ffv_store_relaxed(&cq.shm->tail, 16);
	ffv_store_relaxed(&cq.shm->head, 16);
	ffv_store_relaxed(&cq.shm->holes[0], 1);
	ffv_store_relaxed(&cq.shm->num_holes, 1u);
	CHECK(ffv_cq_claim(&claim, &party.near, 1, false, NULL));
	CHECK_EQ(claim.next, 17);
	CHECK_EQ(claim.end, 18);
	party_destroy(&party);
}

static void test_arming(void)
{
	struct ffv_cq_ref cq = fresh_cq(16, 8);
	struct ffv_claim claim = { .cq = &cq };

	CHECK(ffv_cq_claim(&claim, &party.near, 1, true, NULL));
	CHECK(!claim.signal); /* nobody asked */
	ffv_cq_abandon(&claim);
	ffv_fetch_or(&cq.shm->tail, FFV_CQ_ARMED_SOLICITED);
	CHECK(ffv_cq_claim(&claim, &party.near, 1, false, NULL));
	CHECK(!claim.signal); /* not solicited */
	CHECK(ffv_load_relaxed(&cq.shm->tail) & FFV_CQ_ARMED_SOLICITED);
	ffv_cq_note_error(&claim);
	CHECK(claim.signal); /* errors always are */
	CHECK(!(ffv_load_relaxed(&cq.shm->tail) & (FFV_CQ_ARMED | FFV_CQ_ARMED_SOLICITED)));
	ffv_cq_abandon(&claim);
	claim.signal = false;
	ffv_fetch_or(&cq.shm->tail, FFV_CQ_ARMED_SOLICITED);
	CHECK(ffv_cq_claim(&claim, &party.near, 1, true, NULL));
	CHECK(claim.signal);
	ffv_cq_abandon(&claim);
	claim.signal = false;
	ffv_fetch_or(&cq.shm->tail, FFV_CQ_ARMED);
	CHECK(ffv_cq_claim(&claim, &party.near, 1, false, NULL));
	CHECK(claim.signal);
	ffv_cq_abandon(&claim);
	claim.signal = false;
	CHECK(ffv_cq_claim(&claim, &party.near, 1, true, NULL));
	CHECK(!claim.signal); /* one event an arming */
	party_destroy(&party);
}

static void test_journal_names_the_claim_before_it_is_made(void)
{
	struct ffv_cq_ref cq = fresh_cq(64, 16);
	struct ffv_thread_shm *journal = &party.arena->threads[5];
	struct ffv_claim claim = { .cq = &cq };

	ffv_store_relaxed(&cq.shm->tail, 40);
	ffv_store_relaxed(&cq.shm->head, 40);
	CHECK(ffv_cq_claim(&claim, &party.far, 3, false, journal));
	CHECK_EQ(ffv_load_relaxed(&journal->claim_ctx), (long long)party.far.context_id);
	CHECK_EQ(ffv_load_relaxed(&journal->claim_cq), 3);
	CHECK_EQ(ffv_load_relaxed(&journal->claim_first), 40);
	CHECK_EQ(ffv_load_relaxed(&journal->claim_count), 3);
	party_destroy(&party);
}

/* ---- many threads -------------------------------------------------------------------------------------------------- */

#define PRODUCERS 4
#define PER_PRODUCER 60000u

static struct ffv_cq_ref shared;
static unsigned seed;

static void wait_for_room(uint64_t wanted)
{
	while (FFV_CQ_POSITION(ffv_load_relaxed(&shared.shm->tail)) + wanted + PRODUCERS * 4 >
	       ffv_load_acquire(&shared.shm->head) + shared.index_mask)
		sched_yield();
}

static void *produce(void *arg)
{
	uint32_t number = (uint32_t)(uintptr_t)arg;
	unsigned state = seed + number;

	for (uint32_t i = 0; i < PER_PRODUCER;) {
		struct ffv_claim claim = { .cq = &shared };
		unsigned want = 1 + (unsigned)rand_r(&state) % 4, use = (unsigned)rand_r(&state) % (want + 1);
		wait_for_room(want);
		CHECK(ffv_cq_claim(&claim, &party.near, want, false, NULL));
		for (; use && i < PER_PRODUCER && claim.next != claim.end; use--) {
			struct ffv_cqe_shm *cqe = ffv_cq_entry(&claim);
			cqe->qpn_side = number + 1;
			cqe->wqe_position = i++;
			cqe->byte_len = (number + 1) * 31 + cqe->wqe_position;
			if (rand_r(&state) % 512 == 0)
				sched_yield(); /* claimed, not published */
			ffv_cq_publish(&claim);
		}
		ffv_cq_abandon(&claim);
	}
	return NULL;
}

static void test_many_producers(void)
{
	pthread_t threads[PRODUCERS];
	uint32_t next[PRODUCERS] = { 0 };
	struct ffv_cqe_shm got;
	uint64_t head = 0;

	shared = fresh_cq(256, 64);
	for (uintptr_t i = 0; i < PRODUCERS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, produce, (void *)i), 0);
	for (uint32_t n = 0; n < PRODUCERS * PER_PRODUCER;) {
		if (!world_poll(&shared, &head, &got)) {
			sched_yield();
			continue;
		}
		uint32_t who = got.qpn_side - 1;
		CHECK(who < PRODUCERS);
		CHECK_EQ(got.wqe_position, next[who]); /* whole, once, in order */
		CHECK_EQ(got.byte_len, (who + 1) * 31 + got.wqe_position);
		next[who]++;
		n++;
	}
	for (unsigned i = 0; i < PRODUCERS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	CHECK(!world_poll(&shared, &head, &got));
	CHECK_EQ(ffv_load_relaxed(&shared.shm->overrun), 0);
	party_destroy(&party);
}

/* ---- no lost wake-up ----------------------------------------------------------------------------------------------- */

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define ROUNDS 300000u
#else
#define ROUNDS 2000000u
#endif

static _Atomic uint64_t bell;      /* events signalled */

static void wander(unsigned *state)
{
	for (unsigned n = (unsigned)rand_r(state) % 24; n; n--)
		ffv_cpu_relax();
}

static void *ring_bells(void *arg)
{
	unsigned state = seed ^ 0x5bd1e995u;

	(void)arg;
	for (uint32_t i = 0; i < ROUNDS; i++) {
		struct ffv_claim claim = { .cq = &shared };
		wait_for_room(1);
		if (rand_r(&state) % 2)
			wander(&state);
		CHECK(ffv_cq_claim(&claim, &party.near, 1, false, NULL));
		publish_one(&claim, i);
		if (claim.signal)
			ffv_fetch_add(&bell, 1);
	}
	return NULL;
}

/* Arms, looks once more, and only then sleeps: as ibv_req_notify_cq's users do. A completion that is neither found nor
 * signalled is a lost wake-up: the sleeper would sleep for good, which here is 20 s without an event. */
static void sleep_until_event(uint64_t before)
{
	struct timespec start, now;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (uint32_t n = 1; ffv_load_acquire(&bell) == before; n++) {
		if (n % 64)
			continue;
		sched_yield();
		clock_gettime(CLOCK_MONOTONIC, &now);
		CHECK(now.tv_sec - start.tv_sec < 20);
	}
}

static void test_no_wake_up_is_lost(void)
{
	unsigned state = seed;
	struct ffv_cqe_shm got;
	uint64_t head = 0, slept = 0;
	pthread_t thread;

	shared = fresh_cq(256, 64);
	ffv_store_relaxed(&bell, 0);
	CHECK_EQ(pthread_create(&thread, NULL, ring_bells, NULL), 0);
	for (uint32_t n = 0; n < ROUNDS;) {
		uint64_t before = ffv_load_acquire(&bell);
		/* [cq-arm] as in ffv_req_notify_cq: claims below the returned tail may still be unpublished. */
		uint64_t end = FFV_CQ_POSITION(ffv_fetch_or(&shared.shm->tail, FFV_CQ_ARMED));
		if (rand_r(&state) % 2)
			wander(&state);
		bool found = false;
		while (world_poll(&shared, &head, &got)) {
			CHECK_EQ(got.wqe_position, n);
			n++;
			found = true;
		}
		if (found || head < end || n == ROUNDS)
			continue;
		sleep_until_event(before);
		slept++;
	}
	CHECK_EQ(pthread_join(thread, NULL), 0);
	printf("%llu sleeps in %u completions\n", (unsigned long long)slept, ROUNDS);
	party_destroy(&party);
}

int main(void)
{
	const char *given = getenv("FFVERBS_TEST_SEED");

	seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL);
	printf("FFVERBS_TEST_SEED=%u\n", seed);
	fflush(stdout);
	test_claim_is_bounded_by_the_ring();
	test_void_entries_do_not_overrun(16, 32);
	test_void_entries_do_not_overrun(1, 16);
	test_void_entries_do_not_overrun(24, 32);
	test_void_entries_do_not_overrun(100, 256);
	test_batches_are_claimed_where_there_is_room();
	test_claim_passes_over_holes();
	test_batch_publishes_around_a_hole();
	test_a_claim_of_nothing_but_a_hole_goes_on();
	test_arming();
	test_journal_names_the_claim_before_it_is_made();
	test_many_producers();
	test_no_wake_up_is_lost();
	return 0;
}

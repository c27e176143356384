/* Threads write all over a buffer while it is registered and deregistered, whole and in overlapping parts: no write may
 * be lost, and no reader may see anything but what was written. */
#include <pthread.h>

#include "base/atomics.h"
#include "mirror_support.h"

#if defined(__SANITIZE_THREAD__)
#define BUFFER_BYTES (8 * MIB)
#define ROUNDS 30
#else
#define BUFFER_BYTES (64 * MIB)
#define ROUNDS 8
#endif
#define WRITERS 2u
#define STRIDE 32u /* counters of a writer, in counters: one in each group of four cache lines */
#define COUNTERS (BUFFER_BYTES / sizeof(uint64_t))

static _Atomic uint64_t *counters;
static _Atomic bool stop;
static _Atomic uint64_t passes[WRITERS];

/* Each counter has one writer; a pass adds one to all of his. */
static void *write_counters(void *arg)
{
	uintptr_t writer = (uintptr_t)arg;

	while (!ffv_load_relaxed(&stop)) {
		for (size_t i = writer; i < COUNTERS; i += STRIDE)
			ffv_store_relaxed(&counters[i], ffv_load_relaxed(&counters[i]) + 1);
		ffv_store_release(&passes[writer], ffv_load_relaxed(&passes[writer]) + 1);
	}
	return NULL;
}

/* A counter never falls behind the passes that were complete before it was read, nor is it ahead by more than one. */
static void *read_counters(void *arg)
{
	(void)arg;
	while (!ffv_load_relaxed(&stop)) {
		for (size_t i = 0; i < COUNTERS; i += STRIDE * 61) {
			uint64_t complete = ffv_load_acquire(&passes[0]);
			uint64_t value = ffv_load_acquire(&counters[i]);
			CHECK(value >= complete);
			CHECK(value <= ffv_load_acquire(&passes[0]) + 1);
		}
	}
	return NULL;
}

/* A second registration of a part, unaligned, in a rhythm of its own. */
static void *pin_parts(void *arg)
{
	struct ffv_range mirrored;

	(void)arg;
	for (size_t i = 0; !ffv_load_relaxed(&stop); i++) {
		uint64_t first = address_of(counters) + (i * 1234567) % (BUFFER_BYTES / 2);
		CHECK_OK(ffv_mirror_pin(first, BUFFER_BYTES / 8, 1, &mirrored));
		ffv_mirror_unpin(first, BUFFER_BYTES / 8);
	}
	return NULL;
}

static void check_all_counted(void)
{
	for (size_t writer = 0; writer < WRITERS; writer++) {
		CHECK(passes[writer] > 0);
		for (size_t i = writer; i < COUNTERS; i += STRIDE)
			CHECK_EQ(counters[i], passes[writer]);
	}
}

static void test_concurrent_writers(void)
{
	pthread_t threads[WRITERS + 2];
	struct ffv_range mirrored;
	long long before = mirror_bytes();

	stop = false;
	memset((void *)passes, 0, sizeof passes);
	counters = (_Atomic uint64_t *)private_pages(BUFFER_BYTES / PAGE);
	for (uintptr_t i = 0; i < WRITERS; i++)
		CHECK(!pthread_create(&threads[i], NULL, write_counters, (void *)i));
	CHECK(!pthread_create(&threads[WRITERS], NULL, read_counters, NULL));
	CHECK(!pthread_create(&threads[WRITERS + 1], NULL, pin_parts, NULL));
	for (size_t round = 0; round < ROUNDS; round++) {
		CHECK_OK(ffv_mirror_pin(address_of(counters), BUFFER_BYTES, 1, &mirrored));
		CHECK_EQ(mirrored.end - mirrored.first, BUFFER_BYTES);
		ffv_mirror_unpin(address_of(counters), BUFFER_BYTES);
	}
	ffv_store_relaxed(&stop, true);
	for (size_t i = 0; i < WRITERS + 2; i++)
		CHECK(!pthread_join(threads[i], NULL));
	check_all_counted();
	CHECK(!is_shared((void *)counters));
	CHECK_EQ(mirror_bytes(), before);
	munmap((void *)counters, BUFFER_BYTES);
}

int main(void)
{
	with_each_guard(test_concurrent_writers);
	return 0;
}

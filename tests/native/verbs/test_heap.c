/* The allocator of arena memory: zeroed, aligned, disjoint, used again, full; from several threads. */
#include <errno.h>
#include <pthread.h>

#include "opened.h"
#include "pair.h"
#include "shm/attach.h"
#include "verbs/heap.h"

static struct ffv_arena_shm *arena;
static struct ffv_heap heap;
static int fd;
static unsigned seed;

static void start(void)
{
	CHECK_EQ(ffv_arena_create("ffverbs-test", &fd, &arena), 0);
	ffv_heap_init(&heap, arena);
}

static void finish(void)
{
	ffv_heap_finish(&heap);
	ffv_arena_detach(arena);
	close(fd);
}

static bool is_zero(const uint8_t *bytes, uint64_t length)
{
	return !length || (!bytes[0] && !memcmp(bytes, bytes + 1, length - 1));
}

static void test_sizes(void)
{
	start();
	for (uint64_t bytes = 1; bytes <= 1u << 20; bytes = bytes * 3 / 2 + 1) {
		uint32_t line, again;
		CHECK_OK(ffv_heap_alloc(&heap, bytes, &line));
		uint8_t *at = ffv_heap_at(&heap, line);
		CHECK(at >= (uint8_t *)(arena + 1)); /* never in the header */
		CHECK(is_zero(at, bytes));
		if (bytes >= 4096)
			CHECK_EQ((uintptr_t)at % 4096, 0);
		memset(at, 0xff, bytes);
		ffv_heap_free(&heap, line, bytes);
		CHECK_OK(ffv_heap_alloc(&heap, bytes, &again));
		CHECK_EQ(again, line); /* used again, zeroed */
		CHECK(is_zero(ffv_heap_at(&heap, again), bytes));
	}
	finish();
}

static void test_full(void)
{
	uint32_t line, first, n = 0;

	start();
	CHECK_FAIL(ffv_heap_alloc(&heap, FFV_ARENA_BYTES * 2, &line), ENOMEM, "more than an arena holds");
	CHECK_OK(ffv_heap_alloc(&heap, 1u << 30, &first));
	while (!ffv_heap_alloc(&heap, 1u << 30, &line))
		n++;
	CHECK(n >= 13 && n <= 15);
	CHECK(strstr(ffv_error_text(), "full"));
	CHECK_OK(ffv_heap_alloc(&heap, 64, &line)); /* small ones may still fit */
	ffv_heap_free(&heap, first, 1u << 30);
	CHECK_OK(ffv_heap_alloc(&heap, 1u << 30, &line));
	CHECK_EQ(line, first);
	finish();
}

static void test_pages_are_given_back(void)
{
	struct stat before, during, after;
	uint32_t line;

	start();
	CHECK_EQ(fstat(fd, &before), 0);
	CHECK_OK(ffv_heap_alloc(&heap, 8u << 20, &line));
	memset(ffv_heap_at(&heap, line), 1, 8u << 20);
	CHECK_EQ(fstat(fd, &during), 0);
	CHECK(during.st_blocks - before.st_blocks >= (8 << 20) / 512);
	ffv_heap_free(&heap, line, 8u << 20);
	CHECK_EQ(fstat(fd, &after), 0);
	CHECK_EQ(after.st_blocks, before.st_blocks);
	finish();
}

#define THREADS 4
#define LIVE 64

/* Each marks its blocks all over and finds them unchanged. */
static void *churn(void *arg)
{
	unsigned state = seed + (unsigned)(uintptr_t)arg;
	struct { uint32_t line; uint32_t bytes; } live[LIVE] = { { 0, 0 } };

	for (int i = 0; i < 20000; i++) {
		unsigned slot = (unsigned)rand_r(&state) % LIVE;
		uint8_t mark = (uint8_t)((uintptr_t)arg * LIVE + slot);
		if (live[slot].bytes) {
			uint8_t *at = ffv_heap_at(&heap, live[slot].line);
			CHECK(at[0] == mark && !memcmp(at, at + 1, live[slot].bytes - 1));
			ffv_heap_free(&heap, live[slot].line, live[slot].bytes);
			live[slot].bytes = 0;
			continue;
		}
		live[slot].bytes = 1u + (unsigned)rand_r(&state) % (i % 50 ? 2000 : 100000);
		CHECK_OK(ffv_heap_alloc(&heap, live[slot].bytes, &live[slot].line));
		CHECK(is_zero(ffv_heap_at(&heap, live[slot].line), live[slot].bytes));
		memset(ffv_heap_at(&heap, live[slot].line), mark, live[slot].bytes);
	}
	return NULL;
}

static void test_threads(void)
{
	pthread_t threads[THREADS];

	start();
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, churn, (void *)i), 0);
	for (unsigned i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	finish();
}

int main(void)
{
	seed = test_seed();
	test_sizes();
	test_full();
	test_pages_are_given_back();
	test_threads();
	return 0;
}

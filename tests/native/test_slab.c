/* Objects of a slab: apart from each other, empty when they are new, and their memory gone when they are. */
#include <pthread.h>
#include <stdint.h>
#include <unistd.h>

#include "base/slab.h"
#include "check.h"

#define MANY 20000

static struct ffv_slab slab = FFV_SLAB(357), large = FFV_SLAB(9000);
static uint8_t *objects[MANY];

static void fill(struct ffv_slab *from, int first, int step, size_t bytes)
{
	for (int i = first; i < MANY; i += step) {
		objects[i] = ffv_slab_alloc(from);
		CHECK(objects[i] != NULL);
		CHECK_EQ((uintptr_t)objects[i] % 8, 0);
		for (size_t n = 0; n < bytes; n++)
			CHECK_EQ(objects[i][n], 0);
		memset(objects[i], i % 255 + 1, bytes);
	}
}

static void empty(struct ffv_slab *to, int first, int step, size_t bytes)
{
	for (int i = first; i < MANY; i += step) {
		for (size_t n = 0; n < bytes; n++)
			CHECK_EQ(objects[i][n], i % 255 + 1);
		ffv_slab_free(to, objects[i]);
	}
}

static long resident_bytes(void)
{
	long pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	CHECK(file && fscanf(file, "%*d %ld", &pages) == 1);
	fclose(file);
	return pages * sysconf(_SC_PAGESIZE);
}

static void test_they_are_apart(void)
{
	fill(&slab, 0, 1, 357);
	empty(&slab, 1, 2, 357);
	fill(&slab, 1, 2, 357);
	empty(&slab, 0, 2, 357);
	empty(&slab, 1, 2, 357);
	ffv_slab_free(&slab, NULL);
}

static void test_memory_goes_back(void)
{
	long before = resident_bytes();

	for (int round = 0; round < 3; round++) {
		fill(&large, 0, 10, 9000);
		empty(&large, 0, 10, 9000);
	}
#ifndef __SANITIZE_ADDRESS__
	CHECK(resident_bytes() - before < 512 << 10); /* of 18 MB */
#else
	(void)before;
#endif
}

static void *come_and_go(void *arg)
{
	uint64_t *mine[50] = { 0 };
	uintptr_t tag = (uintptr_t)arg;

	for (uint32_t n = 0; n < 50000; n++) {
		uint64_t **at = &mine[n * 2654435761u % 50];
		if (*at) {
			CHECK_EQ(**at, tag);
			ffv_slab_free(&slab, *at);
		}
		*at = ffv_slab_alloc(&slab);
		CHECK_EQ(**at, 0);
		**at = tag;
	}
	for (int i = 0; i < 50; i++)
		ffv_slab_free(&slab, mine[i]);
	return NULL;
}

static void test_threads(void)
{
	pthread_t threads[4];

	for (uintptr_t i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, come_and_go, (void *)(i + 1)), 0);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

int main(void)
{
	test_they_are_apart();
	test_memory_goes_back();
	test_threads();
	return 0;
}

/* The table of pages against a plain model of it: random ranges over leaf, mid and root borders. Seed: argument 1. */
#include <time.h>

#include "mirror_support.h"
#include "shm/pages.h"

#define MODEL_PAGES 20000u /* five leaves */
#define STEPS 3000

static struct ffv_pages pages;
static struct { uint32_t refs; bool moved; } model[MODEL_PAGES];
static uint64_t base; /* address of the model's first page */
static uint64_t state;

static uint32_t random_below(uint32_t limit)
{
	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)((state >> 33) % limit);
}

static struct ffv_range range_of(uint32_t first, uint32_t count)
{
	return (struct ffv_range){ base + first * PAGE, base + (first + count) * PAGE };
}

static void check_idle_runs(void)
{
	struct ffv_range rest = range_of(0, MODEL_PAGES), run;
	uint32_t page = 0;

	while (ffv_pages_find_idle(&pages, rest, &run)) {
		for (; page < (run.first - base) / PAGE; page++)
			CHECK(model[page].refs || !model[page].moved);
		for (; page < (run.end - base) / PAGE; page++)
			CHECK(!model[page].refs && model[page].moved);
		rest.first = run.end;
	}
	for (; page < MODEL_PAGES; page++)
		CHECK(model[page].refs || !model[page].moved);
}

static void step(void)
{
	uint32_t first = random_below(MODEL_PAGES), count = 1 + random_below(MODEL_PAGES - first);
	struct ffv_range range = range_of(first, count);
	uint32_t kind = random_below(4);

	if (kind == 0 || kind == 2)
		CHECK_OK(ffv_pages_reserve(&pages, range));
	if (kind == 0)
		ffv_pages_add(&pages, range);
	else if (kind == 1)
		ffv_pages_drop(&pages, range);
	else if (kind == 2)
		ffv_pages_set_moved(&pages, range, first & 1);
	for (uint32_t i = first; i < first + count; i++) {
		model[i].refs += kind == 0;
		model[i].refs -= kind == 1 && model[i].refs > 0;
		if (kind == 2)
			model[i].moved = first & 1;
	}
	ffv_pages_prune(&pages, range);
}

static void test_against_model(uint64_t first_address)
{
	base = first_address;
	memset(model, 0, sizeof model);
	for (int i = 0; i < STEPS; i++) {
		step();
		if (i % 50 == 0)
			check_idle_runs();
	}
	ffv_pages_clear(&pages);
	struct ffv_range run;
	CHECK(!ffv_pages_find_idle(&pages, range_of(0, MODEL_PAGES), &run));
}

/* What says nothing takes no memory: a leaf that is emptied is given back (the leak check of ASan sees the rest). */
static void test_limit(void)
{
	struct ffv_range page = { 5 * PAGE, 6 * PAGE };

	for (uint32_t i = 0; i < FFV_PAGES_MAX_REFS; i++) {
		CHECK_OK(ffv_pages_reserve(&pages, page));
		ffv_pages_add(&pages, page);
	}
	CHECK(ffv_pages_reserve(&pages, page) < 0);
	CHECK(ffv_pages_reserve(&pages, (struct ffv_range){ 0, 64 * MIB }) < 0);
	ffv_pages_set_moved(&pages, page, true);
	ffv_pages_drop(&pages, page);
	CHECK_OK(ffv_pages_reserve(&pages, page));
	ffv_pages_clear(&pages);
}

int main(int argc, char **argv)
{
	state = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL);
	printf("seed %llu\n", (unsigned long long)state);
	test_against_model((1ull << 36) - 9000 * PAGE); /* across a border of the root */
	test_against_model(FFV_ADDRESS_END - MODEL_PAGES * PAGE);
	test_against_model(0);
	test_limit();
	return 0;
}

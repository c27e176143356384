/* Many memory regions: keys, limits, and giving them back while executors look them up. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"
#include "check.h"
#include "engine/exec.h"
#include "opened.h"
#include "verbs/context.h"
#include "verbs/device.h"

#define MANY 100000u
#define ROUNDS 1000u /* at least, and on until */
#define HITS 10000u   /* as many accesses have met a region */
#define EXECUTORS 2u
#define SLOTS 8u
#define RW (FFV_ACCESS_LOCAL_WRITE | FFV_ACCESS_REMOTE_WRITE)

static struct ffv_context *ctx;
static struct ffv_pd *pd;

/* 100 000 at once, in one piece of memory. Keys differ, and the one after a key is never one. */
static void test_100000(void)
{
	static struct ffv_mr *mrs[MANY];
	uint8_t *seen = calloc(FFV_MAX_KEYS, 1);
	struct ffv_mr *big;

	CHECK_OK(ffv_alloc_mr(pd, 16u << 20, RW, &big));
	uint64_t start_ns = ffv_clock_ns();
	for (uint32_t i = 0; i < MANY; i++) {
		uint8_t *first = (uint8_t *)big->addr + i * 100ull;
		CHECK_OK(ffv_reg_mr(pd, first, 1000, (uintptr_t)first, RW, &mrs[i]));
		CHECK(!seen[mrs[i]->handle] && mrs[i]->handle);
		seen[mrs[i]->handle] = 1;
		CHECK((mrs[i]->rkey & 0xff) != 0xff);
	}
	CHECK_EQ(ffv_load_relaxed(&ctx->view.arena->num_mr), MANY + 1);
	for (uint32_t i = 0; i < MANY; i++) {
		struct ffv_segment segment;
		uint64_t address = (uintptr_t)mrs[i]->addr;
		CHECK(ffv_key_resolve(&ctx->view, mrs[i]->rkey, pd->id, 0, address, 1000, RW, &segment));
		CHECK_EQ(segment.va, address);
		CHECK(!ffv_key_resolve(&ctx->view, mrs[i]->rkey + 1, pd->id, 0, address, 1, 0, &segment));
		/* what a program does to a window's key */
		CHECK(!ffv_key_resolve(&ctx->view, mrs[i]->rkey ^ 1, pd->id, 0, address, 1, 0, &segment));
	}
	for (uint32_t i = 0; i < MANY; i++)
		CHECK_OK(ffv_dereg_mr(mrs[i]));
	fprintf(stderr, "%u regions registered and deregistered in %.2f s\n", MANY,
		(double)(ffv_clock_ns() - start_ns) / 1e9);
	CHECK_OK(ffv_dereg_mr(big));
	CHECK_EQ(ctx->num_mr, 0);
	free(seen);
}

/* As many as the device says, and not one more; the limit of windows is another. */
static void test_limits(void)
{
	struct ffv_device_attr attr;
	struct ffv_mr *mr;
	struct ffv_mw *mw;

	CHECK_OK(ffv_query_device(ctx, &attr));
	struct ffv_mr **mrs = malloc((size_t)attr.max_mr * sizeof *mrs);
	struct ffv_mw **mws = malloc((size_t)attr.max_mw * sizeof *mws);
	CHECK(mrs && mws);
	for (int i = 0; i < attr.max_mr; i++)
		CHECK_OK(ffv_reg_mr(pd, NULL, 0, 0, 0, &mrs[i]));
	CHECK_FAIL(ffv_reg_mr(pd, NULL, 0, 0, 0, &mr), ENOMEM, "the most");
	for (int i = 0; i < attr.max_mw; i++)
		CHECK_OK(ffv_alloc_mw(pd, 1, &mws[i]));
	CHECK_FAIL(ffv_alloc_mw(pd, 2, &mw), ENOMEM, "the most");
	CHECK_OK(ffv_dereg_mr(mrs[77]));
	CHECK_FAIL(ffv_alloc_mw(pd, 2, &mw), ENOMEM, "the most");
	CHECK_OK(ffv_reg_mr(pd, NULL, 0, 0, 0, &mrs[77]));
	for (int i = 0; i < attr.max_mw; i++)
		CHECK_OK(ffv_dealloc_mw(mws[i]));
	for (int i = 0; i < attr.max_mr; i++)
		CHECK_OK(ffv_dereg_mr(mrs[i]));
	CHECK_EQ(pd->users, 0);
	free(mrs);
	free(mws);
}

/* ---- giving back under load ------------------------------------------------------------------------------------ */

/* What executors aim at. `live` says whether the region is there: cleared when ffv_dereg_mr has returned. */
static struct { _Atomic uint32_t key; _Atomic uint32_t live; } slots[SLOTS];
static uint8_t *arena_memory;
static _Atomic bool stop;
static _Atomic uint64_t hits;

static void *execute(void *arg)
{
	struct ffv_exec_env env;

	(void)arg;
	CHECK_OK(ffv_context_env(ctx, &env));
	for (uint32_t i = 0; !ffv_load_relaxed(&stop); i = (i + 1) % SLOTS) {
		struct ffv_segment segment;
		uint32_t key = ffv_load_acquire(&slots[i].key);
		uint64_t address = (uintptr_t)arena_memory + i * 4096ull;

		ffv_exec_enter(env.thread);
		ffv_fence_store_load(); /* stands for the CAS of the queue's lock */
		if (key && ffv_key_resolve(&ctx->view, key, pd->id, 0, address, 64, RW, &segment)) {
			for (unsigned spin = 0; spin < 64; spin++)
				ffv_cpu_relax();
			/* What was found stays until we leave. */
			CHECK_EQ(ffv_load_acquire(&slots[i].live), key);
			ffv_fetch_add(&hits, 1u);
		}
		ffv_exec_leave(env.thread);
		sched_yield(); /* better here than in the middle: there are fewer cores than threads */
	}
	return NULL;
}

static void test_under_load(void)
{
	pthread_t threads[EXECUTORS];
	struct ffv_mr *big, *mrs[SLOTS] = {0};

	CHECK_OK(ffv_alloc_mr(pd, SLOTS * 4096, RW, &big));
	arena_memory = big->addr;
	for (uint32_t i = 0; i < EXECUTORS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, execute, NULL), 0);
	for (uint32_t round = 0; round < ROUNDS || ffv_load_relaxed(&hits) < HITS; round++) {
		uint32_t i = round % SLOTS;
		void *first = arena_memory + i * 4096;
		if (mrs[i]) {
			CHECK_OK(ffv_dereg_mr(mrs[i]));
			ffv_store_release(&slots[i].live, 0);
		}
		CHECK_OK(ffv_reg_mr(pd, first, 4096, (uintptr_t)first, RW, &mrs[i]));
		ffv_store_release(&slots[i].live, mrs[i]->lkey);
		ffv_store_release(&slots[i].key, mrs[i]->lkey);
		if (round % 3 == 0) /* keeps its keys */
			CHECK_OK(ffv_rereg_mr(mrs[i], FFV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, RW));
	}
	ffv_store_release(&stop, true);
	for (uint32_t i = 0; i < EXECUTORS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	fprintf(stderr, "%llu accesses found their key\n", (unsigned long long)ffv_load_relaxed(&hits));
	for (uint32_t i = 0; i < SLOTS; i++)
		CHECK_OK(ffv_dereg_mr(mrs[i]));
	CHECK_OK(ffv_dereg_mr(big));
}

int main(void)
{
	opened_directory();
	ctx = opened_context();
	pd = opened_pd(ctx);
	test_100000();
	test_limits();
	test_under_load();
	CHECK_OK(ffv_dealloc_pd(pd));
	CHECK_OK(ffv_close_device(ctx));
	scratch_remove();
	return 0;
}

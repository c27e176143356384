/* Device memory: its limits, its copies, regions over it; and what a fork child may do with it. */
#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "engine/keys.h"
#include "opened.h"
#include "verbs/device.h"

#define ACCESS (FFV_ACCESS_ZERO_BASED | FFV_ACCESS_LOCAL_WRITE | FFV_ACCESS_REMOTE_WRITE)

static struct ffv_context *ctx;
static struct ffv_pd *pd;

static struct ffv_dm *alloc(size_t length)
{
	struct ffv_alloc_dm_attr attr = { .length = length };
	struct ffv_dm *dm;

	CHECK_OK(ffv_alloc_dm(ctx, &attr, &dm));
	return dm;
}

static void test_limits(void)
{
	struct ffv_dm *const untouched = (void *)(uintptr_t)0x1234, *dm = untouched;
	struct ffv_device_attr_ex attr;

	CHECK_OK(ffv_query_device_ex(ctx, 0, &attr));
	CHECK_EQ(attr.max_dm_size, FFV_LIMIT_DM_BYTES);
	const struct { struct ffv_alloc_dm_attr attr; int err; const char *word; } cases[] = {
		{ { .length = 0 }, EINVAL, "1 to" },
		{ { .length = attr.max_dm_size + 1 }, ENOMEM, "1 to" },
		{ { .length = SIZE_MAX }, ENOMEM, "1 to" },
		{ { .length = 4, .log_align_req = 13 }, EINVAL, "aligned" },
		{ { .length = 4, .log_align_req = UINT32_MAX }, EINVAL, "aligned" },
		{ { .length = 4, .comp_mask = 1 }, EINVAL, "comp_mask" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		CHECK_FAIL(ffv_alloc_dm(ctx, &cases[i].attr, &dm), cases[i].err, cases[i].word);
	CHECK_FAIL(ffv_alloc_dm(ctx, NULL, &dm), EINVAL, "attributes");
	CHECK_FAIL(ffv_alloc_dm(NULL, &cases[0].attr, &dm), EINVAL, "context");
	CHECK_FAIL(ffv_free_dm(NULL), EINVAL, "no device memory");
	CHECK(dm == untouched);

	/* The limit is of all of it, and what was freed is there again. */
	struct ffv_dm *most = alloc(attr.max_dm_size - 8), *rest = alloc(8);
	struct ffv_alloc_dm_attr four = { .length = 4 };
	CHECK_FAIL(ffv_alloc_dm(ctx, &four, &dm), ENOMEM, "in use");
	CHECK(ffv_dm_handle(most) != ffv_dm_handle(rest));
	CHECK_FAIL(ffv_close_device(ctx), EBUSY, "3 objects"); /* with the domain */
	CHECK_OK(ffv_free_dm(most));
	CHECK_OK(ffv_free_dm(alloc(attr.max_dm_size - 8)));
	CHECK_OK(ffv_free_dm(rest));
}

static void test_copies(void)
{
	struct ffv_dm *dm = alloc(100);
	uint8_t data[104], back[104];

	CHECK_OK(ffv_memcpy_from_dm(back, dm, 0, 100));
	for (int i = 0; i < 100; i++)
		CHECK_EQ(back[i], 0);
	for (int i = 0; i < 104; i++)
		data[i] = (uint8_t)(i + 1);
	CHECK_OK(ffv_memcpy_to_dm(dm, 4, data, 96));
	CHECK_OK(ffv_memcpy_from_dm(back, dm, 8, 92));
	CHECK(!memcmp(back, data + 4, 92));
	CHECK_OK(ffv_memcpy_to_dm(dm, 100, data, 0));
	const struct { uint64_t offset; size_t length; int err; const char *word; } cases[] = {
		{ 3, 4, EINVAL, "multiples of 4" }, { 4, 3, EINVAL, "multiples of 4" }, { 104, 4, EFAULT, "beyond" },
		{ 0, 104, EFAULT, "beyond" }, { 4, SIZE_MAX - 3, EFAULT, "beyond" }, { UINT64_MAX - 3, 4, EFAULT, "beyond" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		CHECK_FAIL(ffv_memcpy_to_dm(dm, cases[i].offset, data, cases[i].length), cases[i].err, cases[i].word);
		CHECK_FAIL(ffv_memcpy_from_dm(back, dm, cases[i].offset, cases[i].length), cases[i].err, cases[i].word);
	}
	CHECK_FAIL(ffv_memcpy_to_dm(NULL, 0, data, 4), EINVAL, "no device memory");
	CHECK_OK(ffv_free_dm(dm));
}

static void test_regions(void)
{
	struct ffv_context *other = opened_context();
	struct ffv_pd *other_pd = opened_pd(other);
	struct ffv_dm *dm = alloc(100);
	struct ffv_mr *mr;
	struct ffv_segment segment;
	uint32_t word = 0;

	const struct { struct ffv_pd *pd; struct ffv_dm *dm; uint64_t offset; size_t length; uint32_t access; const char *text; }
	cases[] = {
		{ NULL, dm, 0, 4, ACCESS, "closed" },
		{ pd, NULL, 0, 4, ACCESS, "no device memory" },
		{ other_pd, dm, 0, 4, ACCESS, "another context" },
		{ pd, dm, 0, 104, ACCESS, "beyond" },
		{ pd, dm, 101, 0, ACCESS, "beyond" },
		{ pd, dm, 4, SIZE_MAX, ACCESS, "beyond" },
		{ pd, dm, 0, 4, FFV_ACCESS_LOCAL_WRITE, "ZERO_BASED" },
		{ pd, dm, 0, 4, FFV_ACCESS_ZERO_BASED | FFV_ACCESS_REMOTE_WRITE, "LOCAL_WRITE" },
		{ pd, dm, 0, 4, ACCESS | FFV_ACCESS_ON_DEMAND, "ON_DEMAND" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		CHECK_FAIL(ffv_reg_dm_mr(cases[i].pd, cases[i].dm, cases[i].offset, cases[i].length, cases[i].access, &mr),
			   EINVAL, cases[i].text);
	CHECK_OK(ffv_reg_dm_mr(pd, dm, 8, 92, ACCESS, &mr));
	CHECK(!mr->addr);
	CHECK_EQ(mr->length, 92);
	/* Addresses begin at 0, wherever in the device memory the region does; peers can map all of it. */
	CHECK(ffv_key_resolve(&ctx->view, mr->rkey, pd->id, 0, 0, 92, FFV_ACCESS_REMOTE_WRITE, &segment));
	CHECK(segment.mirror_first <= segment.va && segment.va + 92 <= segment.mirror_end);
	memcpy((void *)(uintptr_t)segment.va, "abcd", 4);
	CHECK_OK(ffv_memcpy_from_dm(&word, dm, 8, 4));
	CHECK(!memcmp(&word, "abcd", 4));
	CHECK(!ffv_key_resolve(&ctx->view, mr->rkey, pd->id, 0, 1, 92, 0, &segment));
	CHECK_FAIL(ffv_free_dm(dm), EBUSY, "1 memory regions");
	CHECK_FAIL(ffv_rereg_mr(mr, FFV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, FFV_ACCESS_LOCAL_WRITE), EINVAL,
		   "device memory");
	CHECK_OK(ffv_dereg_mr(mr));
	CHECK_OK(ffv_reg_dm_mr(pd, dm, 100, 0, ACCESS, &mr)); /* nothing, at its end */
	CHECK_OK(ffv_dereg_mr(mr));
	CHECK_OK(ffv_free_dm(dm));
	CHECK_OK(ffv_dealloc_pd(other_pd));
	CHECK_OK(ffv_close_device(other));
}

/* It has device memory of its own, and its parent's stays the parent's. */
static void test_fork_child(void)
{
	struct ffv_dm *parents = alloc(64);
	struct ffv_mr *mr;
	int status;

	CHECK_OK(ffv_memcpy_to_dm(parents, 0, "parent", 4));
	pid_t child = fork();
	CHECK(child >= 0);
	if (!child) {
		uint32_t word = 7;
		struct ffv_dm *own = alloc(64);
		CHECK_OK(ffv_memcpy_to_dm(own, 60, &word, 4));
		CHECK_FAIL(ffv_memcpy_to_dm(parents, 0, &word, 4), EOWNERDEAD, "allocated it");
		CHECK_RC(ffv_reg_dm_mr(pd, own, 0, 4, ACCESS, &mr), -EOWNERDEAD);
		CHECK_OK(ffv_free_dm(own));
		CHECK_OK(ffv_free_dm(parents));
		_exit(0);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
	char back[5] = "";
	CHECK_OK(ffv_memcpy_from_dm(back, parents, 0, 4));
	CHECK_STR(back, "pare");
	CHECK_OK(ffv_free_dm(parents));
}

int main(void)
{
	opened_directory();
	ctx = opened_context();
	pd = opened_pd(ctx);
	test_limits();
	test_copies();
	test_regions();
	test_fork_child();
	CHECK_OK(ffv_dealloc_pd(pd));
	CHECK_OK(ffv_close_device(ctx));
	scratch_remove();
	return 0;
}

/* On-demand regions: registering what is not there yet, finding it, prefetching it, changing it. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "engine/copy.h"
#include "opened.h"

#define PAGE 4096u
#define ODP (FFV_ACCESS_ON_DEMAND | FFV_ACCESS_LOCAL_WRITE)

static struct ffv_context *ctx;
static struct ffv_pd *pd;

static uint8_t *map_at(void *where, size_t pages, int protection)
{
	void *memory = mmap(where, pages * PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS | (where ? MAP_FIXED : 0), -1, 0);

	CHECK(memory != MAP_FAILED);
	return memory;
}

static bool is_present(void *page)
{
	unsigned char vec = 0;

	CHECK_EQ(mincore(page, PAGE, &vec), 0);
	return vec & 1;
}

static bool finds(const struct ffv_mr *mr, uint64_t addr, uint32_t length, uint32_t access)
{
	struct ffv_segment segment;

	/* Who cannot take what may be absent never finds it. */
	CHECK(!ffv_key_resolve(&ctx->view, mr->lkey, pd->id, 0, addr, length, access, &segment));
	if (!ffv_key_resolve_any(&ctx->view, mr->lkey, pd->id, 0, addr, length, access, &segment))
		return false;
	CHECK(segment.on_demand && segment.va == addr && segment.mirror_first >= segment.mirror_end);
	return true;
}

static void test_explicit(void)
{
	uint8_t *memory = map_at(NULL, 4, PROT_READ | PROT_WRITE);
	struct ffv_mr *mr;

	/* A hole in it, and one page that cannot be written, are no obstacle. */
	CHECK_EQ(munmap(memory + PAGE, PAGE), 0);
	CHECK_EQ(mprotect(memory + 2 * PAGE, PAGE, PROT_READ), 0);
	CHECK_OK(ffv_reg_mr(pd, memory, 4 * PAGE, (uintptr_t)memory, ODP, &mr));
	CHECK(finds(mr, (uintptr_t)memory, 4 * PAGE, FFV_ACCESS_LOCAL_WRITE));
	CHECK(finds(mr, (uintptr_t)memory + 4 * PAGE - 1, 1, 0));
	CHECK(!finds(mr, (uintptr_t)memory, 4 * PAGE + 1, 0));
	CHECK(!finds(mr, (uintptr_t)memory - 1, 2, 0));
	CHECK(!finds(mr, (uintptr_t)memory, 8, FFV_ACCESS_REMOTE_WRITE));
	CHECK_EQ(ffv_load_relaxed(&ctx->view.arena->registered_bytes), 0);

	/* Re-registered it is ordinary memory, and on demand again. */
	CHECK_RC(ffv_rereg_mr(mr, FFV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, FFV_ACCESS_LOCAL_WRITE), -EFAULT);
	map_at(memory + PAGE, 2, PROT_READ | PROT_WRITE);
	CHECK_OK(ffv_rereg_mr(mr, FFV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, FFV_ACCESS_LOCAL_WRITE));
	struct ffv_segment segment;
	CHECK(ffv_key_resolve(&ctx->view, mr->lkey, pd->id, 0, (uintptr_t)memory, 4 * PAGE, 0, &segment));
	CHECK_EQ(ffv_load_relaxed(&ctx->view.arena->registered_bytes), 4 * PAGE);
	CHECK_OK(ffv_rereg_mr(mr, FFV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, ODP));
	CHECK(finds(mr, (uintptr_t)memory, 4 * PAGE, 0));
	CHECK_EQ(ffv_load_relaxed(&ctx->view.arena->registered_bytes), 0);
	CHECK_OK(ffv_dereg_mr(mr));
	munmap(memory, 4 * PAGE);
}

static void test_implicit(void)
{
	struct ffv_mr *mr, *other;
	uint8_t *memory;

	CHECK_FAIL(ffv_reg_mr(pd, NULL, SIZE_MAX, 0, FFV_ACCESS_LOCAL_WRITE, &mr), EINVAL, "more than");
	CHECK_FAIL(ffv_reg_mr(pd, NULL, SIZE_MAX, 4096, ODP, &mr), EINVAL, "iova");
	CHECK_FAIL(ffv_reg_mr(pd, (void *)(uintptr_t)4096, SIZE_MAX, 0, ODP, &mr), EINVAL, "more than");
	CHECK_OK(ffv_reg_mr(pd, NULL, SIZE_MAX, 0, ODP, &mr));
	memory = map_at(NULL, 1, PROT_READ | PROT_WRITE); /* after registering */
	CHECK(finds(mr, (uintptr_t)memory, PAGE, FFV_ACCESS_LOCAL_WRITE));
	CHECK(finds(mr, 0, UINT32_MAX, 0));
	CHECK(finds(mr, UINT64_MAX - 8, 8, 0));
	CHECK(!finds(mr, UINT64_MAX - 8, 16, 0));
	CHECK_FAIL(ffv_alloc_mr(pd, PAGE, ODP, &other), EOPNOTSUPP, "on demand");
	CHECK_OK(ffv_dereg_mr(mr));
	munmap(memory, PAGE);
}

/* A copy takes what is there and tells what is not, whichever side. */
static void test_copies(void)
{
	uint8_t *memory = map_at(NULL, 3, PROT_READ | PROT_WRITE), buffer[2 * PAGE];
	struct ffv_mr *mr;
	struct ffv_list list = { .view = &ctx->view, .num_segments = 1, .length_bytes = 2 * PAGE }, plain = list;

	CHECK_OK(ffv_reg_mr(pd, memory, 3 * PAGE, (uintptr_t)memory, ODP, &mr));
	CHECK(ffv_key_resolve_any(&ctx->view, mr->lkey, pd->id, 0, (uintptr_t)memory, 2 * PAGE, 0, &list.segment[0]));
	plain.view = NULL;
	plain.segment[0] = (struct ffv_segment){ .va = (uintptr_t)buffer, .length_bytes = 2 * PAGE };
	memset(buffer, 5, sizeof buffer);
	CHECK_EQ(ffv_copy_lists(&list, 0, &plain, 0, 2 * PAGE), FFV_COPY_DONE);
	CHECK(memory[0] == 5 && memory[2 * PAGE - 1] == 5 && memory[2 * PAGE] == 0);
	memory[PAGE] = 6;
	CHECK_EQ(ffv_copy_lists(&plain, 0, &list, 0, 2 * PAGE), FFV_COPY_DONE);
	CHECK(buffer[PAGE - 1] == 5 && buffer[PAGE] == 6);
	CHECK_EQ(munmap(memory + PAGE, PAGE), 0);
	CHECK_EQ(ffv_copy_lists(&list, 0, &plain, 0, 2 * PAGE), FFV_COPY_FAULT_DST);
	CHECK_EQ(ffv_copy_lists(&plain, 0, &list, 0, 2 * PAGE), FFV_COPY_FAULT_SRC);
	CHECK(!ffv_segment_populate(&list.segment[0]));
	map_at(memory + PAGE, 1, PROT_READ);
	CHECK_EQ(ffv_copy_lists(&list, 0, &plain, 0, 2 * PAGE), FFV_COPY_FAULT_DST);
	CHECK_EQ(ffv_copy_lists(&plain, 0, &list, 0, 2 * PAGE), FFV_COPY_DONE);
	map_at(memory + PAGE, 1, PROT_READ | PROT_WRITE);
	CHECK(ffv_segment_populate(&list.segment[0]));
	CHECK_OK(ffv_dereg_mr(mr));
	munmap(memory, 3 * PAGE);
}

static void test_advice(void)
{
	uint8_t *memory = map_at(NULL, 3, PROT_READ | PROT_WRITE);
	struct ffv_pd *other = opened_pd(ctx);
	struct ffv_mr *mr, *ordinary;

	CHECK_OK(ffv_alloc_mr(pd, PAGE, 0, &ordinary));
	CHECK_OK(ffv_reg_mr(pd, memory, 3 * PAGE, (uintptr_t)memory, ODP, &mr));
	struct ffv_sge sge = { .addr = (uintptr_t)memory + 100, .length = PAGE, .lkey = mr->lkey };
	CHECK(!is_present(memory) && !is_present(memory + PAGE));
	CHECK_OK(ffv_advise_mr(pd, FFV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT, FFV_ADVISE_MR_FLAG_FLUSH, &sge, 1));
	CHECK(!is_present(memory));
	CHECK_OK(ffv_advise_mr(pd, FFV_ADVISE_MR_ADVICE_PREFETCH_WRITE, FFV_ADVISE_MR_FLAG_FLUSH, &sge, 1));
	CHECK(is_present(memory) && is_present(memory + PAGE) && !is_present(memory + 2 * PAGE));

	CHECK_EQ(munmap(memory + PAGE, PAGE), 0);
	CHECK_FAIL(ffv_advise_mr(pd, FFV_ADVISE_MR_ADVICE_PREFETCH, FFV_ADVISE_MR_FLAG_FLUSH, &sge, 1), EFAULT, "present");
	CHECK_OK(ffv_advise_mr(pd, FFV_ADVISE_MR_ADVICE_PREFETCH, 0, &sge, 1));
	CHECK_RC(ffv_advise_mr(pd, 3, 0, &sge, 1), -EOPNOTSUPP);
	CHECK_FAIL(ffv_advise_mr(pd, 0, 2, &sge, 1), EINVAL, "flags");
	CHECK_FAIL(ffv_advise_mr(pd, 0, 0, NULL, 1), EINVAL, "nothing");
	CHECK_FAIL(ffv_advise_mr(pd, 0, 0, &sge, 0), EINVAL, "nothing");
	CHECK_RC(ffv_advise_mr(NULL, 0, 0, &sge, 1), -EINVAL);
	CHECK_FAIL(ffv_advise_mr(other, 0, 0, &sge, 1), EFAULT, "on-demand region");
	sge.length = 3 * PAGE;
	CHECK_FAIL(ffv_advise_mr(pd, 0, 0, &sge, 1), EFAULT, "on-demand region");
	sge = (struct ffv_sge){ .addr = (uintptr_t)ordinary->addr, .length = 8, .lkey = ordinary->lkey };
	CHECK_FAIL(ffv_advise_mr(pd, 0, 0, &sge, 1), EFAULT, "on-demand region");
	CHECK_OK(ffv_dereg_mr(ordinary));
	CHECK_OK(ffv_dereg_mr(mr));
	CHECK_OK(ffv_dealloc_pd(other));
	munmap(memory, 3 * PAGE);
}

int main(void)
{
	struct ffv_device_attr_ex attr;

	opened_directory();
	ctx = opened_context();
	pd = opened_pd(ctx);
	CHECK_OK(ffv_query_device_ex(ctx, 0, &attr));
	if (!attr.odp_caps.general_caps) {
		puts("SKIP: the kernel refuses process_vm_readv of a process's own memory");
		return 77;
	}
	CHECK_EQ(attr.odp_caps.general_caps, 3);
	test_explicit();
	test_implicit();
	test_copies();
	test_advice();
	CHECK_OK(ffv_dealloc_pd(pd));
	CHECK_OK(ffv_close_device(ctx));
	scratch_remove();
	return 0;
}

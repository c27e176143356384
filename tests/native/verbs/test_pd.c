/* Protection domains, thread domains and parent domains: who may go before whom, and whose memory is used. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "opened.h"
#include "verbs/allocator.h"

static struct ffv_context *ctx;

struct bookkeeper {
	struct ffv_pd *expected_pd;
	int given, taken;
	enum { SERVE, LEAVE, REFUSE, MISALIGN } mood;
};

static void *lend(struct ffv_pd *pd, void *pd_context, size_t size, size_t alignment, uint64_t resource_type)
{
	struct bookkeeper *keeper = pd_context;

	CHECK(pd == keeper->expected_pd);
	CHECK(size && size % alignment == 0);
	CHECK(resource_type == FFV_RESOURCE_QP || resource_type == FFV_RESOURCE_SRQ);
	if (keeper->mood == LEAVE)
		return FFV_ALLOCATOR_USE_DEFAULT;
	if (keeper->mood == REFUSE)
		return NULL;
	keeper->given++;
	uint8_t *memory = aligned_alloc(alignment, size + alignment);
	return keeper->mood == MISALIGN ? memory + 8 : memory;
}

static void take_back(struct ffv_pd *pd, void *pd_context, void *memory, uint64_t resource_type)
{
	struct bookkeeper *keeper = pd_context;

	CHECK(pd == keeper->expected_pd);
	CHECK(resource_type == FFV_RESOURCE_QP || resource_type == FFV_RESOURCE_SRQ);
	keeper->taken++;
	free(keeper->mood == MISALIGN ? (uint8_t *)memory - 8 : memory);
}

static void test_thread_domains(void)
{
	struct ffv_context *other = opened_context();
	struct ffv_td_init_attr bad = { .comp_mask = 1 };
	struct ffv_pd *base = opened_pd(ctx), *parent;
	struct ffv_td *td, *foreign;

	CHECK_FAIL(ffv_alloc_td(ctx, &bad, &td), EINVAL, "comp_mask");
	CHECK_FAIL(ffv_dealloc_td(NULL), EINVAL, "no thread domain");
	CHECK_OK(ffv_alloc_td(ctx, NULL, &td));
	CHECK_OK(ffv_alloc_td(other, NULL, &foreign));
	struct ffv_parent_domain_init_attr attr = { .pd = base, .td = foreign };
	CHECK_FAIL(ffv_alloc_parent_domain(ctx, &attr, &parent), EINVAL, "context");
	attr.td = td;
	CHECK_OK(ffv_alloc_parent_domain(ctx, &attr, &parent));
	CHECK_EQ(ffv_pd_handle(parent), ffv_pd_handle(base));
	CHECK_FAIL(ffv_dealloc_td(td), EBUSY, "1 parent domains");
	CHECK_FAIL(ffv_dealloc_pd(base), EBUSY, "1 objects");
	CHECK_FAIL(ffv_close_device(ctx), EBUSY, "3 objects");
	CHECK_OK(ffv_dealloc_pd(parent));
	CHECK_OK(ffv_dealloc_td(td));
	CHECK_OK(ffv_dealloc_pd(base));
	CHECK_FAIL(ffv_close_device(other), EBUSY, "1 objects");
	CHECK_OK(ffv_dealloc_td(foreign));
	CHECK_OK(ffv_close_device(other));
}

static void test_bad_parents(void)
{
	struct ffv_pd *base = opened_pd(ctx), *const untouched = (void *)(uintptr_t)0x1234, *parent = untouched;
	const struct ffv_parent_domain_init_attr cases[] = {
		{ .pd = NULL },
		{ .pd = base, .comp_mask = 4 },
		{ .pd = base, .comp_mask = FFV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS },
		{ .pd = base, .comp_mask = FFV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS, .alloc = lend },
		{ .pd = base, .comp_mask = FFV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS, .free = take_back },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		CHECK_RC(ffv_alloc_parent_domain(ctx, &cases[i], &parent), -EINVAL);
	CHECK_RC(ffv_alloc_parent_domain(ctx, NULL, &parent), -EINVAL);
	CHECK_RC(ffv_alloc_parent_domain(NULL, &cases[0], &parent), -EINVAL);
	CHECK(parent == untouched);
	CHECK_OK(ffv_dealloc_pd(base));
}

static int make_qp(struct ffv_pd *pd, struct ffv_cq *cq, struct ffv_qp **qp)
{
	struct ffv_qp_init_attr attr = { .send_cq = cq, .recv_cq = cq, .qp_type = FFV_QPT_RC,
					 .cap = { .max_send_wr = 10, .max_recv_wr = 10, .max_send_sge = 1,
						  .max_recv_sge = 1 } };

	return ffv_create_qp(pd, &attr, qp);
}

static void test_allocators(void)
{
	struct bookkeeper keeper = { .mood = SERVE };
	struct ffv_pd *base = opened_pd(ctx), *parent;
	struct ffv_parent_domain_init_attr attr = { .pd = base, .comp_mask = 3, .alloc = lend, .free = take_back,
						    .pd_context = &keeper };
	struct ffv_srq_init_attr srq_attr = { .attr = { .max_wr = 10, .max_sge = 1 } };
	struct ffv_srq *srq;
	struct ffv_qp *qp;
	struct ffv_cq *cq;

	CHECK_OK(ffv_create_cq(ctx, 10, NULL, NULL, 0, &cq));
	CHECK_OK(ffv_alloc_parent_domain(ctx, &attr, &parent));
	keeper.expected_pd = parent;
	CHECK_OK(make_qp(parent, cq, &qp));
	int of_qp = keeper.given;
	CHECK(of_qp > 0);
	CHECK_OK(ffv_create_srq(parent, &srq_attr, &srq));
	CHECK(keeper.given > of_qp);
	CHECK_FAIL(ffv_dealloc_pd(parent), EBUSY, "2 objects");
	CHECK_OK(ffv_destroy_srq(srq));
	/* Memory that was lent goes back, memory that was not does not, though the same domain gave it. */
	keeper.mood = LEAVE;
	CHECK_OK(ffv_create_srq(parent, &srq_attr, &srq));
	CHECK_OK(ffv_destroy_qp(qp));
	CHECK_OK(ffv_destroy_srq(srq));
	CHECK_EQ(keeper.given, keeper.taken);

	keeper.mood = REFUSE;
	CHECK_FAIL(make_qp(parent, cq, &qp), ENOMEM, "gives no");
	CHECK_FAIL(ffv_create_srq(parent, &srq_attr, &srq), ENOMEM, "gives no");
	keeper.mood = MISALIGN;
	CHECK_FAIL(make_qp(parent, cq, &qp), ENOMEM, "aligned");
	CHECK_EQ(keeper.given, keeper.taken);
	CHECK(!ffv_private_alloc(NULL, SIZE_MAX / 2, 4, 0));
	CHECK(!ffv_private_alloc(NULL, SIZE_MAX, 1, 0));
	CHECK_OK(ffv_dealloc_pd(parent));
	CHECK_OK(ffv_dealloc_pd(base));
	CHECK_OK(ffv_destroy_cq(cq));
}

/* In the process that made it an import is the domain itself, and outlives its deallocation. */
static void test_imports(void)
{
	struct ffv_context *same;
	struct ffv_pd *pd = opened_pd(ctx), *import, *again;
	struct ffv_mr *mr, *seen, *const untouched = (void *)(uintptr_t)0x1234;

	CHECK_OK(ffv_import_device(dup(ffv_cmd_fd(ctx)), &same));
	CHECK(same == ctx);
	CHECK_OK(ffv_import_pd(same, ffv_pd_handle(pd), &import));
	CHECK_OK(ffv_import_pd(same, ffv_pd_handle(pd), &again));
	CHECK(import == pd && again == pd);
	CHECK_OK(ffv_alloc_mr(pd, 4096, 0, &mr));
	CHECK_OK(ffv_import_mr(import, mr->handle, &seen));
	CHECK(seen->lkey == mr->lkey && seen->length == 4096 && !seen->addr);
	CHECK_FAIL(ffv_dereg_mr(seen), EINVAL, "unimport");
	CHECK_FAIL(ffv_unimport_mr(mr), EINVAL, "no imported");
	CHECK_OK(ffv_dereg_mr(mr));
	CHECK_OK(ffv_unimport_mr(seen)); /* it only had the keys */
	seen = untouched;
	CHECK_FAIL(ffv_import_mr(import, 0, &seen), EINVAL, "handle 0");
	CHECK(seen == untouched);

	CHECK_OK(ffv_dealloc_pd(pd));
	CHECK_FAIL(ffv_dealloc_pd(import), EINVAL, "unimport");
	CHECK_FAIL(ffv_import_pd(same, ffv_pd_handle(import), &again), EINVAL, "no protection domain");
	/* It can still be used by who has it, and what was made in it ends when it likes. */
	CHECK_OK(ffv_alloc_mr(import, 4096, 0, &mr));
	ffv_unimport_pd(import);
	ffv_unimport_pd(import);
	CHECK_OK(ffv_dereg_mr(mr));
	CHECK_OK(ffv_close_device(same));
	CHECK_FAIL(ffv_import_device(-1, &same), EBADF, "descriptor -1");
	CHECK_FAIL(ffv_import_device(0, NULL), EINVAL, "no place");
}

int main(void)
{
	opened_directory();
	ctx = opened_context();
	test_imports();
	test_thread_domains();
	test_bad_parents();
	test_allocators();
	CHECK_OK(ffv_close_device(ctx));
	scratch_remove();
	return 0;
}

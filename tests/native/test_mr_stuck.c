/* An execution that does not end (a stopped process) keeps a region from being taken away, and nothing is lost. */
#include <errno.h>

#include "check.h"
#include "engine/exec.h"
#include "opened.h"
#include "verbs/context.h"

static bool resolves(const struct ffv_context *ctx, uint32_t key, const struct ffv_pd *pd, const void *addr)
{
	struct ffv_segment segment;

	return ffv_key_resolve(&ctx->view, key, pd->id, 0, (uintptr_t)addr, 4096, 0, &segment);
}

int main(void)
{
	struct ffv_exec_env env;
	struct ffv_mr *mr;
	struct ffv_mw *mw;

	opened_directory();
	struct ffv_context *ctx = opened_context();
	struct ffv_pd *pd = opened_pd(ctx), *other = opened_pd(ctx);
	CHECK_OK(ffv_alloc_mr(pd, 4096, FFV_ACCESS_LOCAL_WRITE, &mr));
	CHECK_OK(ffv_alloc_mw(pd, 2, &mw));
	CHECK_OK(ffv_context_env(ctx, &env));

	ffv_exec_enter(env.thread); /* and does not leave */
	uint32_t key = mr->rkey;
	/* A failed re-registration leaves the region as it was. */
	CHECK_FAIL(ffv_rereg_mr(mr, FFV_REREG_MR_CHANGE_PD, other, NULL, 0, 0), EBUSY, "stopped");
	CHECK(mr->pd == pd && mr->rkey == key);
	CHECK(resolves(ctx, key, pd, mr->addr));
	CHECK_EQ(other->users, 0);
	/* A failed deregistration has revoked the key already; its memory and its index are kept. */
	CHECK_FAIL(ffv_dereg_mr(mr), EBUSY, "stopped");
	CHECK(!resolves(ctx, key, pd, mr->addr));
	((volatile char *)mr->addr)[4095] = 1;
	CHECK_EQ(ctx->num_mr, 1);
	CHECK_FAIL(ffv_dealloc_mw(mw), EBUSY, "stopped");
	CHECK_EQ(ctx->num_mw, 1);
	ffv_exec_leave(env.thread);

	CHECK_OK(ffv_dereg_mr(mr));
	CHECK_OK(ffv_dealloc_mw(mw));
	CHECK_EQ(ctx->num_mr + ctx->num_mw + pd->users, 0);
	CHECK_OK(ffv_dealloc_pd(pd));
	CHECK_OK(ffv_dealloc_pd(other));
	CHECK_OK(ffv_close_device(ctx));
	scratch_remove();
	return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * Protection domains: a number that keys and queue pairs must share. Process-private; peers see the number only. A parent
 * domain is another one with the same number, and what else it brings is for this process.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "verbs/context.h"
#include "verbs/device.h"

/* context.lock. Not reused: a number comes back only after 2^32 others. Some slot in the arena is free:
 * the domains that have one are fewer than FFV_MAX_PD. */
static uint32_t claim_id(struct ffv_context *ctx)
{
	_Atomic uint32_t *slots = ctx->view.arena->pds;

	while (ctx->next_pd == UINT32_MAX || ffv_load_relaxed(&slots[ctx->next_pd % FFV_MAX_PD]))
		ctx->next_pd++;
	ffv_store_release(&slots[ctx->next_pd % FFV_MAX_PD], ctx->next_pd + 1);
	return ctx->next_pd++;
}

/* context.lock. */
static void unlink_pd(struct ffv_pd *pd)
{
	for (struct ffv_pd **at = &pd->ctx->pds; *at; at = &(*at)->next) {
		if (*at == pd) {
			*at = pd->next;
			return;
		}
	}
}

void ffv_pd_free_all(struct ffv_context *ctx)
{
	while (ctx->pds) {
		struct ffv_pd *pd = ctx->pds;
		ctx->pds = pd->next;
		free(pd);
	}
}

/* Counts one more domain of the context; a base domain gets its number, a parent domain has its base's. */
static int enlist(struct ffv_context *ctx, struct ffv_pd *pd)
{
	int rc = 0;

	pthread_mutex_lock(&ctx->lock);
	if (ctx->num_pd >= FFV_LIMIT_PD)
		rc = -ENOMEM;
	else
		ctx->num_pd++;
	if (!rc && pd->base)
		pd->base->users++;
	if (!rc && pd->td)
		pd->td->users++;
	if (!rc) {
		pd->id = pd->base ? pd->base->id : claim_id(ctx);
		pd->next = ctx->pds;
		ctx->pds = pd;
	}
	pthread_mutex_unlock(&ctx->lock);
	return rc ? ffv_fail(ENOMEM, "the context has %u protection domains, the most there can be", FFV_LIMIT_PD) : 0;
}

int ffv_alloc_pd(struct ffv_context *ctx, struct ffv_pd **out)
{
	int rc = ffv_context_check(ctx);

	if (rc)
		return rc;
	struct ffv_pd *pd = calloc(1, sizeof *pd);
	if (!pd)
		return ffv_fail(ENOMEM, "out of memory for a protection domain");
	pd->ctx = ctx;
	rc = enlist(ctx, pd);
	if (rc) {
		free(pd);
		return rc;
	}
	*out = pd;
	return 0;
}

static int check_parent(const struct ffv_context *ctx, const struct ffv_parent_domain_init_attr *attr)
{
	const uint32_t known = FFV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS | FFV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT;
	int rc = ffv_context_check(ctx);

	if (rc)
		return rc;
	if (!attr || !attr->pd || attr->pd->ctx != ctx || (attr->td && attr->td->ctx != ctx))
		return ffv_fail(EINVAL, "a parent domain needs a protection domain, and all of its context");
	if (attr->comp_mask & ~known)
		return ffv_fail(EINVAL, "of the attributes of a parent domain in comp_mask %#x only %#x are known",
				attr->comp_mask, known);
	if (attr->comp_mask & FFV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS && (!attr->alloc || !attr->free))
		return ffv_fail(EINVAL, "allocators are an alloc and a free");
	return 0;
}

int ffv_alloc_parent_domain(struct ffv_context *ctx, const struct ffv_parent_domain_init_attr *attr, struct ffv_pd **out)
{
	int rc = check_parent(ctx, attr);

	if (rc)
		return rc;
	struct ffv_pd *pd = calloc(1, sizeof *pd);
	if (!pd)
		return ffv_fail(ENOMEM, "out of memory for a parent domain");
	pd->ctx = ctx;
	pd->base = attr->pd;
	pd->td = attr->td;
	if (attr->comp_mask & FFV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS) {
		pd->alloc = attr->alloc;
		pd->free = attr->free;
	}
	if (attr->comp_mask & FFV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT)
		pd->pd_context = attr->pd_context;
	rc = enlist(ctx, pd);
	if (rc) {
		free(pd);
		return rc;
	}
	*out = pd;
	return 0;
}

/* context.lock. */
static void deallocate(struct ffv_pd *pd)
{
	struct ffv_context *ctx = pd->ctx;

	ctx->num_pd--;
	if (pd->base)
		pd->base->users--;
	else
		ffv_store_release(&ctx->view.arena->pds[pd->id % FFV_MAX_PD], 0u);
	if (pd->td)
		pd->td->users--;
}

int ffv_dealloc_pd(struct ffv_pd *pd)
{
	uint32_t users = 0;
	bool lives_on = false, gone = false;

	if (!pd)
		return ffv_fail(EINVAL, "no protection domain was given");
	struct ffv_context *ctx = pd->ctx;
	if (!ffv_context_check(ctx)) {
		pthread_mutex_lock(&ctx->lock);
		users = pd->users;
		gone = pd->gone;
		lives_on = users || gone || pd->imports;
		if (!users && !gone) {
			deallocate(pd);
			pd->gone = lives_on;
			if (!lives_on)
				unlink_pd(pd);
		}
		pthread_mutex_unlock(&ctx->lock);
	}
	if (gone)
		return ffv_fail(EINVAL, "the protection domain is another process's, or was deallocated: unimport it");
	if (users)
		return ffv_fail(EBUSY, "the protection domain still has %u objects (MRs, MWs, AHs, SRQs, QPs, parent domains): "
				"destroy them first", users);
	if (!lives_on)
		free(pd);
	return 0;
}

/* What is made in it may go on: then it stays until its context closes. */
void ffv_unimport_pd(struct ffv_pd *pd)
{
	bool unused;

	if (!pd || ffv_context_check(pd->ctx))
		return;
	struct ffv_context *ctx = pd->ctx;
	pthread_mutex_lock(&ctx->lock);
	if (pd->imports)
		pd->imports--;
	unused = !pd->imports && pd->gone && !pd->users;
	if (unused) {
		unlink_pd(pd);
		if (pd->is_foreign) {
			deallocate(pd);
			ctx->num_foreign_pd--;
		}
	}
	pthread_mutex_unlock(&ctx->lock);
	if (unused)
		free(pd);
}

uint32_t ffv_pd_handle(struct ffv_pd *pd)
{
	return pd->is_foreign ? pd->foreign_id : pd->id;
}

/* ---- thread domains ------------------------------------------------------------------------------------------------- */

static void count_td(struct ffv_context *ctx, uint32_t n)
{
	pthread_mutex_lock(&ctx->lock);
	ctx->num_td += n;
	pthread_mutex_unlock(&ctx->lock);
}

int ffv_alloc_td(struct ffv_context *ctx, const struct ffv_td_init_attr *attr, struct ffv_td **out)
{
	int rc = ffv_context_check(ctx);

	if (rc)
		return rc;
	if (attr && attr->comp_mask)
		return ffv_fail(EINVAL, "no attributes of thread domains are known, but comp_mask is %#x", attr->comp_mask);
	struct ffv_td *td = calloc(1, sizeof *td);
	if (!td)
		return ffv_fail(ENOMEM, "out of memory for a thread domain");
	td->ctx = ctx;
	count_td(ctx, 1);
	*out = td;
	return 0;
}

int ffv_dealloc_td(struct ffv_td *td)
{
	uint32_t users = 0;

	if (!td)
		return ffv_fail(EINVAL, "no thread domain was given");
	struct ffv_context *ctx = td->ctx;
	if (!ffv_context_check(ctx)) {
		pthread_mutex_lock(&ctx->lock);
		users = td->users;
		pthread_mutex_unlock(&ctx->lock);
		if (!users)
			count_td(ctx, -1u);
	}
	if (users)
		return ffv_fail(EBUSY, "%u parent domains are in the thread domain: deallocate them first", users);
	free(td);
	return 0;
}

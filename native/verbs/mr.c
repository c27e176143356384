/* SPDX-License-Identifier: MIT
 *
 * Memory regions: pinning memory in the mirror, and the key under which executors of any process find it (IBA 10.6).
 * Process-private but for the entry of the key table, which only the owner writes.
 *
 * A region is changed and destroyed in the same order: the key is revoked, then everybody who may have found it is
 * waited for, only then its memory or its index goes elsewhere. So a stale key never reaches reused memory.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/error.h"
#include "base/fault.h"
#include "verbs/context.h"
#include "verbs/device.h"
#include "verbs/buf.h"
#include "verbs/dm.h"
#include "verbs/keytable.h"
#include "verbs/odp.h"
#include "verbs/region.h"

#define KNOWN_ACCESS                                                                                           \
	(FFV_ACCESS_LOCAL_WRITE | FFV_ACCESS_REMOTE_WRITE | FFV_ACCESS_REMOTE_READ | FFV_ACCESS_REMOTE_ATOMIC | \
	 FFV_ACCESS_MW_BIND | FFV_ACCESS_ZERO_BASED | FFV_ACCESS_ON_DEMAND | FFV_ACCESS_HUGETLB |               \
	 FFV_ACCESS_FLUSH_GLOBAL | FFV_ACCESS_FLUSH_PERSISTENT | FFV_ACCESS_RELAXED_ORDERING)
#define KNOWN_REREG (FFV_REREG_MR_CHANGE_TRANSLATION | FFV_REREG_MR_CHANGE_PD | FFV_REREG_MR_CHANGE_ACCESS)

_Static_assert(offsetof(struct ffv_region, base) == 0 && offsetof(struct ffv_mr_private, mr) == 0, "casts between them");

/* ---- checks ------------------------------------------------------------------------------------------------------ */

int ffv_region_check_access(uint32_t access)
{
	if (access & ~(uint32_t)KNOWN_ACCESS)
		return ffv_fail(EINVAL, "access flags %#x contain %#x, which are unknown", access,
				access & ~(uint32_t)KNOWN_ACCESS);
	if (access & FFV_ACCESS_FLUSH_PERSISTENT)
		return ffv_fail(EOPNOTSUPP, "memory is not persistent here: flush to global visibility (%#x)",
				FFV_ACCESS_FLUSH_GLOBAL);
	if (access & FFV_ACCESS_ON_DEMAND && !ffv_odp_works())
		return ffv_fail(EOPNOTSUPP, "on-demand paging needs process_vm_readv, which the kernel refuses here: register "
				"without ON_DEMAND (%#x)", FFV_ACCESS_ON_DEMAND);
	/* IBA 10.6.3.1 */
	if (access & (FFV_ACCESS_REMOTE_WRITE | FFV_ACCESS_REMOTE_ATOMIC) && !(access & FFV_ACCESS_LOCAL_WRITE))
		return ffv_fail(EINVAL, "access flags %#x allow remote write or atomics, which need LOCAL_WRITE (%#x) "
				"too", access, FFV_ACCESS_LOCAL_WRITE);
	return 0;
}

static int check_range(uint64_t first, uint64_t length, const char *what)
{
	if (length > FFV_LIMIT_MR_BYTES)
		return ffv_fail(EINVAL, "%" PRIu64 " bytes are more than a memory region holds (%llu)", length,
				FFV_LIMIT_MR_BYTES);
	if (length > UINT64_MAX - first)
		return ffv_fail(EINVAL, "%s %#" PRIx64 " + %" PRIu64 " bytes goes beyond 64 bits", what, first, length);
	return 0;
}

static bool is_implicit(uint64_t va, uint64_t length, uint32_t access)
{
	return access & FFV_ACCESS_ON_DEMAND && !va && length == SIZE_MAX;
}

static int check_new(struct ffv_pd *pd, uint64_t va, uint64_t length, uint64_t iova, uint32_t access)
{
	int rc = ffv_context_check(pd ? pd->ctx : NULL);

	if (!rc)
		rc = ffv_region_check_access(access);
	if (!rc && is_implicit(va, length, access))
		return iova ? ffv_fail(EINVAL, "the whole address space is registered at its own addresses, not at iova %#"
				       PRIx64, iova) : 0;
	if (!rc)
		rc = check_range(va, length, "address");
	if (!rc && !(access & FFV_ACCESS_ZERO_BASED))
		rc = check_range(iova, length, "iova");
	return rc;
}

/* ---- the entry --------------------------------------------------------------------------------------------------- */

/* Peers map nothing of on-demand memory, and nobody holds it. */
static int pin(struct ffv_translation *t)
{
	if (t->access & FFV_ACCESS_ON_DEMAND) {
		t->mirrored = (struct ffv_range){ t->va, t->va };
		return 0;
	}
	int rc = ffv_mirror_pin(t->va, t->length_bytes, t->access & FFV_ACCESS_LOCAL_WRITE, &t->mirrored);

	if (rc)
		ffv_fail_context(rc, "%" PRIu64 " bytes at %#" PRIx64 " cannot be registered", t->length_bytes, t->va);
	return rc;
}

static void unpin(const struct ffv_translation *t)
{
	if (!(t->access & FFV_ACCESS_ON_DEMAND))
		ffv_mirror_unpin(t->va, t->length_bytes);
}

/* What a region adds to the memory that the context holds. */
static uint64_t held_bytes(const struct ffv_translation *t)
{
	return t->access & FFV_ACCESS_ON_DEMAND ? 0 : t->length_bytes;
}

/* Revoked (or new), and nobody executes with it. */
static void publish(struct ffv_context *ctx, const struct ffv_region *region)
{
	struct ffv_key_shm *entry = ffv_keytable_entry(ctx, region->base.index);
	const struct ffv_translation *t = &region->now;

	entry->pd = region->base.mr.pd->id;
	entry->access = t->access;
	entry->kind = FFV_KEY_MR;
	entry->iova = t->iova;
	entry->length_bytes = t->length_bytes;
	entry->va = t->va;
	entry->mirror_first = t->mirrored.first;
	entry->mirror_end = t->mirrored.end;
	ffv_word_store(&FFV_KEY_STAMP(entry), ffv_fetch_add(&ctx->publications, 1u) + 1);
	entry->parent_index = 0;
	ffv_word_store(&ctx->extents[region->base.index].first, t->access & FFV_ACCESS_ON_DEMAND ? ~t->va : t->va);
	ffv_word_store(&ctx->extents[region->base.index].end, t->va + t->length_bytes);
	/* [key-publish] the entry before the key under which it is found. */
	ffv_store_release(&entry->key, region->base.mr.lkey);
}

/* After a revocation that came to nothing: the entry is as it was. */
static void restore(struct ffv_context *ctx, const struct ffv_region *region)
{
	/* [key-publish] */
	ffv_store_release(&ffv_keytable_entry(ctx, region->base.index)->key, region->base.mr.lkey);
}

/* Revokes a region's key unless windows are bound to it; whatever fails, -EBUSY. *revoked tells whether it is. */
static int revoke(struct ffv_context *ctx, const struct ffv_region *region, bool *revoked)
{
	const struct ffv_mr_private *base = &region->base;

	*revoked = false;
	if (ffv_keytable_has_windows(ctx, base->index))
		return ffv_fail(EBUSY, "memory windows are bound to memory region %#x: unbind or deallocate them first",
				base->mr.lkey);
	*revoked = true;
	int rc = ffv_keytable_revoke(ctx, base->index);
	if (rc)
		return ffv_fail_context(rc, "memory region %#x is in use", base->mr.lkey);
	/* One that was being bound when we looked is bound now. */
	if (ffv_keytable_has_windows(ctx, base->index)) {
		restore(ctx, region);
		*revoked = false;
		return ffv_fail(EBUSY, "a memory window was bound to memory region %#x meanwhile: deallocate it first",
				base->mr.lkey);
	}
	return 0;
}

/* ---- registering ------------------------------------------------------------------------------------------------- */

struct ffv_region *ffv_region_new(struct ffv_pd *pd, const struct ffv_translation *t)
{
	struct ffv_region *region = calloc(1, sizeof *region);

	if (!region)
		return NULL;
	pthread_mutex_init(&region->lock, NULL);
	region->now = *t;
	region->base.mr = (struct ffv_mr){ .context = pd->ctx, .pd = pd, .addr = (void *)(uintptr_t)t->va,
					   .length = t->length_bytes };
	return region;
}

void ffv_region_free(struct ffv_region *region)
{
	pthread_mutex_destroy(&region->lock);
	free(region);
}

/* Pins t's memory and gives it a key. */
int ffv_region_create(struct ffv_pd *pd, const struct ffv_translation *t, struct ffv_region **out)
{
	struct ffv_context *ctx = pd->ctx;
	struct ffv_region *region = ffv_region_new(pd, t);

	if (!region)
		return ffv_fail(ENOMEM, "out of memory for a memory region");
	struct ffv_mr_private *base = &region->base;
	int rc = pin(&region->now);
	if (rc) {
		ffv_region_free(region);
		return rc;
	}
	base->pinned = true;
	rc = ffv_keytable_take(pd, FFV_KEY_REGION, &base->index, &base->mr.lkey);
	if (rc) {
		unpin(&region->now);
		ffv_region_free(region);
		return rc;
	}
	base->mr.rkey = base->mr.lkey;
	base->mr.handle = base->index;
	publish(ctx, region);
	FFV_FAULT(mr_key_published);
	pthread_mutex_lock(&ctx->lock);
	ctx->regions[base->index] = base;
	pthread_mutex_unlock(&ctx->lock);
	ffv_fetch_add(&ctx->view.arena->num_mr, 1u);
	ffv_fetch_add(&ctx->view.arena->registered_bytes, held_bytes(t));
	*out = region;
	return 0;
}

int ffv_reg_mr(struct ffv_pd *pd, void *addr, size_t length, uint64_t iova, uint32_t access, struct ffv_mr **out)
{
	struct ffv_translation t = { .va = (uintptr_t)addr, .length_bytes = length, .iova = iova, .access = access };
	struct ffv_region *region;
	int rc = check_new(pd, t.va, length, iova, access);

	if (rc)
		return rc;
	if (access & FFV_ACCESS_ZERO_BASED)
		t.iova = 0;
	rc = ffv_region_create(pd, &t, &region);
	if (rc)
		return rc;
	*out = &region->base.mr;
	return 0;
}

int ffv_alloc_mr(struct ffv_pd *pd, size_t length, uint32_t access, struct ffv_mr **out)
{
	struct ffv_region *region;
	void *memory;
	int rc = check_new(pd, 0, length, 0, access);

	if (rc)
		return rc;
	if (access & (FFV_ACCESS_HUGETLB | FFV_ACCESS_ON_DEMAND))
		return ffv_fail(EOPNOTSUPP, "allocated regions have no huge pages and are not paged on demand: map memory "
				"yourself and register it");
	rc = ffv_mirror_alloc(length, &memory);
	if (rc)
		return rc;
	struct ffv_translation t = { .va = (uintptr_t)memory, .length_bytes = length, .access = access };
	t.iova = access & FFV_ACCESS_ZERO_BASED ? 0 : t.va;
	rc = ffv_region_create(pd, &t, &region);
	if (rc) {
		ffv_mirror_free(memory, length);
		return rc;
	}
	region->memory = memory;
	region->memory_bytes = length;
	region->base.allocated = true;
	*out = &region->base.mr;
	return 0;
}

int ffv_region_destroy(struct ffv_context *ctx, struct ffv_region *region)
{
	const struct ffv_translation *t = &region->now;
	bool revoked;
	int rc = revoke(ctx, region, &revoked);

	if (rc)
		return rc;
	pthread_mutex_lock(&ctx->lock);
	ctx->regions[region->base.index] = NULL;
	pthread_mutex_unlock(&ctx->lock);
	unpin(t);
	if (region->dm)
		ffv_dm_use(region->dm, false);
	if (region->buf)
		ffv_buf_use(region->buf, false);
	if (region->mapping)
		munmap(region->mapping, region->mapping_bytes);
	if (region->memory)
		ffv_mirror_free(region->memory, region->memory_bytes);
	ffv_fetch_sub(&ctx->view.arena->registered_bytes, held_bytes(t));
	ffv_fetch_sub(&ctx->view.arena->num_mr, 1u);
	ffv_keytable_give(region->base.mr.pd, region->base.index);
	return 0;
}

int ffv_dereg_mr(struct ffv_mr *mr)
{
	if (!mr)
		return ffv_fail(EINVAL, "no memory region was given");
	struct ffv_region *region = ffv_region_of(mr);
	if (region->imported)
		return ffv_fail(EINVAL, "an imported memory region is given up by unimporting it");
	/* In a fork child the memory, and what peers see of it, is the parent's. */
	if (!ffv_context_check(mr->context)) {
		int rc = ffv_region_destroy(mr->context, region);
		if (rc)
			return rc;
	}
	ffv_region_free(region);
	return 0;
}

/* ---- re-registering ---------------------------------------------------------------------------------------------- */

static int check_rereg(const struct ffv_mr *mr, int flags, const struct ffv_pd *pd, const void *addr, size_t length,
		       uint32_t access)
{
	if (!flags || flags & ~KNOWN_REREG)
		return ffv_fail(EINVAL, "re-registration flags %#x: some of %#x are needed, others are unknown", flags,
				KNOWN_REREG);
	if (((const struct ffv_region *)mr)->imported)
		return ffv_fail(EINVAL, "an imported memory region cannot be changed: its owner can");
	const struct ffv_region *region = (const struct ffv_region *)mr;
	if (region->dm || region->buf || region->mapping)
		return ffv_fail(EINVAL, "a region over device memory, an allocated buffer or a descriptor cannot be changed: "
				"register another one");
	if (flags & FFV_REREG_MR_CHANGE_PD && (!pd || pd->ctx != mr->context))
		return ffv_fail(EINVAL, pd ? "the new protection domain is of another context" :
				"no new protection domain was given");
	if (flags & FFV_REREG_MR_CHANGE_TRANSLATION && (!addr || !length))
		return ffv_fail(EINVAL, "a new translation needs an address and a length");
	if (flags & FFV_REREG_MR_CHANGE_TRANSLATION) {
		int rc = check_range((uintptr_t)addr, length, "address");
		if (rc)
			return rc;
	}
	if (flags & FFV_REREG_MR_CHANGE_ACCESS)
		return ffv_region_check_access(access);
	return access ? ffv_fail(EINVAL, "access flags %#x are given, but not the flag to change them (%d)", access,
				 FFV_REREG_MR_CHANGE_ACCESS)
		      : 0;
}

/* The region's translation with what the flags change. */
static struct ffv_translation changed(const struct ffv_region *region, int flags, const void *addr, size_t length,
				  uint32_t access)
{
	struct ffv_translation t = region->now;
	uint32_t had = t.access;

	if (flags & FFV_REREG_MR_CHANGE_ACCESS)
		t.access = access;
	if (flags & FFV_REREG_MR_CHANGE_TRANSLATION) {
		t.va = (uintptr_t)addr;
		t.length_bytes = length;
	}
	if (flags & FFV_REREG_MR_CHANGE_TRANSLATION || (had ^ t.access) & FFV_ACCESS_ZERO_BASED)
		t.iova = t.access & FFV_ACCESS_ZERO_BASED ? 0 : t.va;
	return t;
}

static void move_user(struct ffv_context *ctx, struct ffv_pd *from, struct ffv_pd *to)
{
	pthread_mutex_lock(&ctx->lock);
	from->users--;
	to->users++;
	pthread_mutex_unlock(&ctx->lock);
}

/* The region's key is revoked; t's memory is pinned if `pinned`, the old one's is given back then. */
static void apply(struct ffv_context *ctx, struct ffv_region *region, const struct ffv_translation *t, bool pinned,
		  struct ffv_pd *pd)
{
	struct ffv_mr *mr = &region->base.mr;
	struct ffv_translation old = region->now;

	if (pd != mr->pd)
		move_user(ctx, mr->pd, pd);
	mr->pd = pd;
	mr->addr = (void *)(uintptr_t)t->va;
	mr->length = t->length_bytes;
	region->now = *t;
	publish(ctx, region);
	ffv_fetch_add(&ctx->view.arena->registered_bytes, held_bytes(t) - held_bytes(&old));
	if (pinned)
		unpin(&old);
}

static int rereg_locked(struct ffv_region *region, int flags, struct ffv_pd *pd, const void *addr, size_t length,
			uint32_t access)
{
	struct ffv_context *ctx = region->base.mr.context;
	struct ffv_translation t = changed(region, flags, addr, length, access);
	/* Also for new access: the memory may be read-only, or another one by now. */
	bool pinned = flags & (FFV_REREG_MR_CHANGE_TRANSLATION | FFV_REREG_MR_CHANGE_ACCESS);
	bool revoked;
	int rc = pinned ? pin(&t) : 0;

	if (rc)
		return rc;
	rc = revoke(ctx, region, &revoked);
	if (rc) {
		if (revoked)
			restore(ctx, region);
		if (pinned)
			unpin(&t);
		return rc;
	}
	apply(ctx, region, &t, pinned, flags & FFV_REREG_MR_CHANGE_PD ? pd : region->base.mr.pd);
	return 0;
}

int ffv_rereg_mr(struct ffv_mr *mr, int flags, struct ffv_pd *pd, void *addr, size_t length, uint32_t access)
{
	int rc = ffv_context_check(mr ? mr->context : NULL);

	if (!rc)
		rc = check_rereg(mr, flags, pd, addr, length, access);
	if (rc)
		return rc;
	struct ffv_region *region = ffv_region_of(mr);
	pthread_mutex_lock(&region->lock);
	rc = rereg_locked(region, flags, pd, addr, length, access);
	pthread_mutex_unlock(&region->lock);
	return rc;
}

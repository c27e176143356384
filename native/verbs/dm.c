/* SPDX-License-Identifier: MIT
 *
 * Device memory (ibv_alloc_dm): memory of the engine's own, which peers map from the mirror, so that an access costs what
 * an access to a registered buffer costs. Process-private but for the bytes; regions over it are those of mr.c.
 *
 * A fork child owns nothing of its parent's context, yet may allocate device memory with it: that is memory of the
 * child's own mirror, and nothing of the parent's is touched, its locks neither.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/error.h"
#include "verbs/context.h"
#include "verbs/device.h"
#include "verbs/dm.h"
#include "verbs/import.h"
#include "verbs/peer.h"
#include "verbs/region.h"

#define MAX_LOG_ALIGN 12u /* a page */
#define COPY_ALIGN 4u

static int check_attr(const struct ffv_alloc_dm_attr *attr)
{
	if (attr->comp_mask)
		return ffv_fail(EINVAL, "no attributes of device memory beyond length and alignment are known, but comp_mask "
				"is %#x", attr->comp_mask);
	if (attr->log_align_req > MAX_LOG_ALIGN)
		return ffv_fail(EINVAL, "device memory is aligned to 2^%u bytes at most, 2^%u were asked for",
				MAX_LOG_ALIGN, attr->log_align_req);
	if (!attr->length || attr->length > FFV_LIMIT_DM_BYTES)
		return ffv_fail(attr->length ? ENOMEM : EINVAL, "device memory has 1 to %llu bytes, %zu were asked for",
				FFV_LIMIT_DM_BYTES, attr->length);
	return 0;
}

static int reserve(struct ffv_context *ctx, uint64_t bytes)
{
	uint64_t used = ffv_load_relaxed(&ctx->dm_bytes);

	do {
		if (bytes > FFV_LIMIT_DM_BYTES - used)
			return ffv_fail(ENOMEM, "%" PRIu64 " bytes of device memory were asked for, %" PRIu64 " of %llu are "
					"in use", bytes, used, FFV_LIMIT_DM_BYTES);
	} while (!ffv_cas(&ctx->dm_bytes, &used, used + bytes));
	return 0;
}

/* context.lock. Gives it a handle, under which others find it. */
static int enlist(struct ffv_dm *dm)
{
	struct ffv_context *ctx = dm->ctx;
	struct ffv_dm_shm *dms = ctx->view.arena->dms;
	uint32_t handle = 0;

	while (handle < FFV_MAX_DM && ffv_load_relaxed(&dms[handle].va))
		handle++;
	if (handle == FFV_MAX_DM)
		return ffv_fail(ENOMEM, "the context has %u pieces of device memory, the most there can be", FFV_MAX_DM);
	dm->handle = handle;
	dm->next = ctx->dms;
	ctx->dms = dm;
	ctx->num_dm++;
	ffv_word_store(&dms[handle].length_bytes, dm->length_bytes);
	ffv_store_release(&dms[handle].va, (uint64_t)(uintptr_t)dm->memory);
	return 0;
}

/* context.lock. */
static void delist(struct ffv_dm *dm)
{
	struct ffv_context *ctx = dm->ctx;

	ctx->num_dm--;
	ffv_store_release(&ctx->view.arena->dms[dm->handle].va, 0u);
	for (struct ffv_dm **at = &ctx->dms; *at; at = &(*at)->next) {
		if (*at == dm) {
			*at = dm->next;
			return;
		}
	}
}

/* Nobody uses it any more. */
static void release(struct ffv_dm *dm)
{
	ffv_mirror_free(dm->memory, dm->length_bytes);
	ffv_fetch_sub(&dm->ctx->dm_bytes, dm->length_bytes);
	free(dm);
}

int ffv_alloc_dm(struct ffv_context *ctx, const struct ffv_alloc_dm_attr *attr, struct ffv_dm **out)
{
	void *memory;

	if (!ctx || !attr)
		return ffv_fail(EINVAL, "a context and attributes of device memory are needed");
	int rc = check_attr(attr);
	if (!rc)
		rc = reserve(ctx, attr->length);
	if (rc)
		return rc;
	struct ffv_dm *dm = calloc(1, sizeof *dm);
	rc = dm ? ffv_mirror_alloc(attr->length, &memory) : ffv_fail(ENOMEM, "out of memory for device memory");
	if (rc) {
		free(dm);
		ffv_fetch_sub(&ctx->dm_bytes, attr->length);
		return rc;
	}
	*dm = (struct ffv_dm){ .ctx = ctx, .fork_generation = ffv_fork_generation(), .memory = memory,
			       .length_bytes = attr->length };
	if (!ffv_context_check(ctx)) { /* else a fork child: nobody will ask for it */
		pthread_mutex_lock(&ctx->lock);
		rc = enlist(dm);
		pthread_mutex_unlock(&ctx->lock);
	}
	if (rc) {
		release(dm);
		return rc;
	}
	*out = dm;
	return 0;
}

int ffv_free_dm(struct ffv_dm *dm)
{
	uint32_t users = 0;
	bool lives_on = false;

	if (!dm)
		return ffv_fail(EINVAL, "no device memory was given");
	if (dm->imported || dm->mapping)
		return ffv_fail(EINVAL, "imported device memory is given up by unimporting it");
	struct ffv_context *ctx = dm->ctx;
	bool mine = !ffv_context_check(ctx);
	if (mine) {
		pthread_mutex_lock(&ctx->lock);
		users = dm->users;
		lives_on = dm->imports > 0;
		dm->gone = !users && lives_on;
		if (!users)
			delist(dm);
		pthread_mutex_unlock(&ctx->lock);
	}
	if (users)
		return ffv_fail(EBUSY, "%u memory regions are registered over the device memory: deregister them first", users);
	if (dm->fork_generation != ffv_fork_generation()) {
		free(dm); /* the rest is the parent's */
		return 0;
	}
	if (!lives_on)
		release(dm);
	return 0;
}

/* ---- regions over it ---------------------------------------------------------------------------------------------------- */

void ffv_dm_use(struct ffv_dm *dm, bool more)
{
	pthread_mutex_lock(&dm->ctx->lock);
	dm->users += more ? 1u : -1u;
	pthread_mutex_unlock(&dm->ctx->lock);
}

static int check_dm(struct ffv_pd *pd, struct ffv_dm *dm, uint64_t offset, uint64_t length, uint32_t access)
{
	int rc = ffv_context_check(pd ? pd->ctx : NULL);

	if (!rc)
		rc = ffv_region_check_access(access);
	if (rc)
		return rc;
	if (!dm || dm->ctx != pd->ctx)
		return ffv_fail(EINVAL, dm ? "the device memory is of another context" : "no device memory was given");
	if (!(access & FFV_ACCESS_ZERO_BASED) || access & (FFV_ACCESS_ON_DEMAND | FFV_ACCESS_HUGETLB))
		return ffv_fail(EINVAL, "access flags %#x: device memory is registered with ZERO_BASED (%#x), and without "
				"ON_DEMAND or HUGETLB", access, FFV_ACCESS_ZERO_BASED);
	if (offset > dm->length_bytes || length > dm->length_bytes - offset)
		return ffv_fail(EINVAL, "%" PRIu64 " bytes at offset %" PRIu64 " go beyond the %" PRIu64 " bytes of the device "
				"memory", length, offset, dm->length_bytes);
	return 0;
}

int ffv_reg_dm_mr(struct ffv_pd *pd, struct ffv_dm *dm, uint64_t dm_offset, size_t length, uint32_t access,
		  struct ffv_mr **out)
{
	struct ffv_region *region;
	int rc = check_dm(pd, dm, dm_offset, length, access);

	if (rc)
		return rc;
	struct ffv_translation t = { .va = (uintptr_t)dm->memory + dm_offset, .length_bytes = length, .access = access };
	ffv_dm_use(dm, true);
	rc = ffv_region_create(pd, &t, &region);
	if (rc) {
		ffv_dm_use(dm, false);
		return rc;
	}
	region->dm = dm;
	region->base.mr.addr = NULL; /* it is not in the caller's address space */
	*out = &region->base.mr;
	return 0;
}

/* ---- importing ---------------------------------------------------------------------------------------------------------- */

static int import_own(struct ffv_context *ctx, uint32_t handle, struct ffv_dm *dm)
{
	struct ffv_dm *found = NULL;

	pthread_mutex_lock(&ctx->lock);
	for (struct ffv_dm *each = ctx->dms; each && !found; each = each->next)
		if (each->handle == handle)
			found = each;
	if (found) {
		found->imports++;
		*dm = (struct ffv_dm){ .memory = found->memory, .length_bytes = found->length_bytes, .imported = found };
	}
	pthread_mutex_unlock(&ctx->lock);
	return found ? 0 : ffv_fail(EINVAL, "the context has no device memory with handle %u", handle);
}

static int import_foreign(struct ffv_context *ctx, uint32_t handle, struct ffv_dm *dm)
{
	struct ffv_dm_shm *entry = &ctx->exporter->view.arena->dms[handle % FFV_MAX_DM];
	uint64_t va = ffv_load_acquire(&entry->va), length = ffv_word_load(&entry->length_bytes);
	struct ffv_foreign_memory foreign;

	if (handle >= FFV_MAX_DM || !va)
		return ffv_fail(EINVAL, "the exporting context has no device memory with handle %u", handle);
	if (length > FFV_LIMIT_DM_BYTES)
		return ffv_fail(EPROTO, "the exporting context says that device memory has %" PRIu64 " bytes", length);
	int rc = ffv_foreign_map(ctx->exporter, va, length, &foreign);
	if (rc)
		return rc;
	*dm = (struct ffv_dm){ .memory = foreign.memory, .length_bytes = length, .mapping = foreign.mapping,
			       .mapping_bytes = foreign.mapping_bytes };
	return 0;
}

int ffv_import_dm(struct ffv_context *ctx, uint32_t handle, struct ffv_dm **out)
{
	int rc = ffv_context_check(ctx);

	if (rc)
		return rc;
	struct ffv_dm *dm = calloc(1, sizeof *dm);
	if (!dm)
		return ffv_fail(ENOMEM, "out of memory for device memory");
	rc = ctx->exporter ? import_foreign(ctx, handle, dm) : import_own(ctx, handle, dm);
	if (rc) {
		free(dm);
		return rc;
	}
	dm->ctx = ctx;
	dm->handle = handle;
	dm->fork_generation = ffv_fork_generation();
	*out = dm;
	return 0;
}

int ffv_unimport_dm(struct ffv_dm *dm)
{
	if (!dm || (!dm->imported && !dm->mapping))
		return ffv_fail(EINVAL, "no imported device memory was given");
	struct ffv_context *ctx = dm->ctx;
	struct ffv_dm *of = dm->imported;
	bool last = false;
	if (!ffv_context_check(ctx)) {
		pthread_mutex_lock(&ctx->lock);
		uint32_t users = dm->users;
		if (of && !users)
			last = --of->imports == 0 && of->gone;
		pthread_mutex_unlock(&ctx->lock);
		if (users)
			return ffv_fail(EBUSY, "%u memory regions are registered over the device memory: deregister them first",
					users);
		if (last)
			release(of);
		if (dm->mapping)
			munmap(dm->mapping, dm->mapping_bytes);
	}
	free(dm);
	return 0;
}

uint32_t ffv_dm_handle(struct ffv_dm *dm)
{
	return dm->handle;
}

static int check_copy(const struct ffv_dm *dm, uint64_t offset, size_t length)
{
	if (!dm)
		return ffv_fail(EINVAL, "no device memory was given");
	if (dm->fork_generation != ffv_fork_generation())
		return ffv_fail(EOWNERDEAD, "the device memory is of the process that allocated it, not of its fork children");
	if (offset % COPY_ALIGN || length % COPY_ALIGN)
		return ffv_fail(EINVAL, "offset %" PRIu64 " and length %zu of a copy must be multiples of %u", offset, length,
				COPY_ALIGN);
	if (offset > dm->length_bytes || length > dm->length_bytes - offset)
		return ffv_fail(EFAULT, "%zu bytes at offset %" PRIu64 " go beyond the %" PRIu64 " bytes of the device memory",
				length, offset, dm->length_bytes);
	return 0;
}

int ffv_memcpy_to_dm(struct ffv_dm *dm, uint64_t dm_offset, const void *host_addr, size_t length)
{
	int rc = check_copy(dm, dm_offset, length);

	if (!rc)
		memcpy(dm->memory + dm_offset, host_addr, length);
	return rc;
}

int ffv_memcpy_from_dm(void *host_addr, struct ffv_dm *dm, uint64_t dm_offset, size_t length)
{
	int rc = check_copy(dm, dm_offset, length);

	if (!rc)
		memcpy(host_addr, dm->memory + dm_offset, length);
	return rc;
}

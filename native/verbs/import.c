/* SPDX-License-Identifier: MIT
 *
 * Importing a context, and what is in it (docs/decisions/0012). In the process that opened it an import is the object
 * itself. In another process it is an object of that process's own context with the other one's bytes behind it: what the
 * other arena says of itself is copied, checked, then used. Process-private; any thread.
 */
#include "verbs/import.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "verbs/peer.h"
#include "verbs/process.h"
#include "verbs/region.h"

#define ATTACH_MS 5000

/* A context of our own, attached to the one that owns the socket. */
static int open_importer(int cmd_fd, struct ffv_context **out)
{
	struct ffv_context *ctx;
	uint8_t gid[16];
	uint32_t block;
	int rc = ffv_nodedir_identify(cmd_fd, gid, &block);

	if (!rc)
		rc = ffv_open_device(NULL, &ctx);
	if (rc)
		return rc;
	/* The name of a context that has been closed is free, and may just have become ours. */
	bool is_ours = block == ctx->block && !memcmp(gid, ctx->gid, sizeof gid);
	rc = is_ours ? -ENOENT : ffv_peer_attach(ctx, gid, block * FFV_QPN_BLOCK, ATTACH_MS);
	if (!rc && !(ctx->exporter = ffv_peer_get(ctx, gid, block * FFV_QPN_BLOCK)))
		rc = -ENOENT;
	if (rc) {
		ffv_close_device(ctx);
		return ffv_fail(-rc, "the context that descriptor %d belongs to has been closed or cannot be reached", cmd_fd);
	}
	*out = ctx;
	return 0;
}

int ffv_import_device(int cmd_fd, struct ffv_context **out)
{
	struct stat st;

	if (!out)
		return ffv_fail(EINVAL, "no place for the context");
	if (fstat(cmd_fd, &st))
		return ffv_fail_errno(errno, "descriptor %d cannot be imported", cmd_fd);
	struct ffv_context *ctx = S_ISSOCK(st.st_mode) ? ffv_process_import(&st) : NULL;
	int rc = ctx ? 0 : open_importer(cmd_fd, &ctx);
	if (rc)
		return rc;
	close(cmd_fd); /* it would keep the name alive after its owner's death */
	*out = ctx;
	return 0;
}

/* ---- protection domains -------------------------------------------------------------------------------------------------- */

static struct ffv_pd *find_pd(struct ffv_context *ctx, uint32_t handle)
{
	struct ffv_pd *found = NULL;

	pthread_mutex_lock(&ctx->lock);
	for (struct ffv_pd *pd = ctx->pds; pd && !found; pd = pd->next)
		if (!pd->base && !pd->gone && pd->id == handle)
			found = pd;
	if (found)
		found->imports++;
	pthread_mutex_unlock(&ctx->lock);
	return found;
}

static int import_foreign_pd(struct ffv_context *ctx, uint32_t handle, struct ffv_pd **out)
{
	const struct ffv_arena_shm *arena = ctx->exporter->view.arena;
	struct ffv_pd *pd;

	if (handle == UINT32_MAX || ffv_load_acquire(&arena->pds[handle % FFV_MAX_PD]) != handle + 1)
		return ffv_fail(EINVAL, "the exporting context has no protection domain with handle %u", handle);
	int rc = ffv_alloc_pd(ctx, &pd);
	if (rc)
		return rc;
	pthread_mutex_lock(&ctx->lock);
	pd->is_foreign = pd->gone = true;
	pd->foreign_id = handle;
	pd->imports = 1;
	ctx->num_foreign_pd++; /* nobody needs to deallocate it */
	pthread_mutex_unlock(&ctx->lock);
	*out = pd;
	return 0;
}

int ffv_import_pd(struct ffv_context *ctx, uint32_t handle, struct ffv_pd **out)
{
	int rc = ffv_context_check(ctx);

	if (rc)
		return rc;
	if (ctx->exporter)
		return import_foreign_pd(ctx, handle, out);
	struct ffv_pd *pd = find_pd(ctx, handle);
	if (!pd)
		return ffv_fail(EINVAL, "the context has no protection domain with handle %u", handle);
	*out = pd;
	return 0;
}

/* ---- another process's memory ---------------------------------------------------------------------------------------------- */

int ffv_foreign_map(const struct ffv_peer *peer, uint64_t va, uint64_t length_bytes, struct ffv_foreign_memory *out)
{
	uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE), first = va & ~(page_bytes - 1);
	uint64_t end_of_all = (uint64_t)FFV_WINDOW_COUNT << FFV_WINDOW_SHIFT;

	if (!peer->view.windows)
		return ffv_fail(EOPNOTSUPP, "the exporting context's memory cannot be mapped");
	if (va >= end_of_all || length_bytes > end_of_all - va)
		return ffv_fail(EPROTO, "the exporting context says that its memory is at %#" PRIx64, va);
	uint64_t bytes = va + (length_bytes ? length_bytes : 1) - first;
	void *mapping = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, peer->view.windows->fd,
			     (off_t)first);
	if (mapping == MAP_FAILED)
		return ffv_fail_errno(errno, "cannot map %" PRIu64 " bytes of the exporting context", bytes);
	madvise(mapping, bytes, MADV_DONTFORK); /* as a window on a peer */
	*out = (struct ffv_foreign_memory){ .mapping = mapping, .mapping_bytes = bytes,
					    .memory = (uint8_t *)mapping + (va - first) };
	return 0;
}

/* ---- memory regions --------------------------------------------------------------------------------------------------------- */

static int import_own_mr(struct ffv_pd *pd, uint32_t handle, struct ffv_region **out)
{
	struct ffv_context *ctx = pd->ctx;
	struct ffv_mr mr = { .lkey = 0 };

	pthread_mutex_lock(&ctx->lock);
	if (handle < FFV_MAX_KEYS && ctx->regions[handle])
		mr = ctx->regions[handle]->mr;
	pthread_mutex_unlock(&ctx->lock);
	if (!mr.lkey || mr.pd->id != pd->id)
		return ffv_fail(EINVAL, "the protection domain has no memory region with handle %u", handle);
	struct ffv_region *region = ffv_region_new(pd, &(struct ffv_translation){ .length_bytes = mr.length });
	if (!region)
		return ffv_fail(ENOMEM, "out of memory for a memory region");
	region->base.mr.handle = mr.handle;
	region->base.mr.lkey = mr.lkey;
	region->base.mr.rkey = mr.rkey;
	*out = region;
	return 0;
}

/* What the other arena says of a region of the domain that pd was imported from; the whole of it stood there at once. */
static int copy_entry(const struct ffv_pd *pd, uint32_t handle, uint32_t *key, struct ffv_translation *t)
{
	struct ffv_key_shm *entry = &pd->ctx->exporter->view.arena->keys[handle % FFV_MAX_KEYS];

	*key = ffv_load_acquire(&entry->key); /* [key-publish] */
	*t = (struct ffv_translation){
		.va = ffv_word_load(&entry->va),
		.length_bytes = ffv_word_load(&entry->length_bytes),
		.iova = ffv_word_load(&entry->iova),
		.access = ffv_word_load(&entry->access),
		.mirrored = { ffv_word_load(&entry->mirror_first), ffv_word_load(&entry->mirror_end) },
	};
	bool is_region = ffv_word_load(&entry->kind) == FFV_KEY_MR && ffv_word_load(&entry->pd) == pd->foreign_id;
	ffv_fence_load_load();
	if (handle >= FFV_MAX_KEYS || !*key || !is_region || ffv_load_relaxed(&entry->key) != *key)
		return ffv_fail(EINVAL, "the exporting protection domain has no memory region with handle %u", handle);
	if (t->length_bytes > UINT64_MAX - t->va || t->va < t->mirrored.first || t->va + t->length_bytes > t->mirrored.end)
		return ffv_fail(EOPNOTSUPP, "the memory of the region with handle %u cannot be mapped: only whole pages that are "
				"not paged on demand can", handle);
	return ffv_region_check_access(t->access);
}

static int import_foreign_mr(struct ffv_pd *pd, uint32_t handle, struct ffv_region **out)
{
	struct ffv_foreign_memory foreign;
	struct ffv_translation t;
	uint32_t key = 0;
	int rc = pd->is_foreign ? copy_entry(pd, handle, &key, &t) :
				  ffv_fail(EINVAL, "regions are imported into an imported protection domain");

	if (!rc)
		rc = ffv_foreign_map(pd->ctx->exporter, t.va, t.length_bytes, &foreign);
	if (rc)
		return rc;
	t.va = (uintptr_t)foreign.memory;
	rc = ffv_region_create(pd, &t, out);
	struct ffv_key_shm *entry = &pd->ctx->exporter->view.arena->keys[handle % FFV_MAX_KEYS];
	if (!rc && ffv_load_acquire(&entry->key) != key) { /* what we mapped may be other memory by now */
		ffv_region_destroy(pd->ctx, *out);
		ffv_region_free(*out);
		rc = ffv_fail(EINVAL, "the region with handle %u was deregistered meanwhile", handle);
	}
	if (rc) {
		munmap(foreign.mapping, foreign.mapping_bytes);
		return rc;
	}
	(*out)->mapping = foreign.mapping;
	(*out)->mapping_bytes = foreign.mapping_bytes;
	(*out)->base.mr.addr = NULL;
	return 0;
}

int ffv_import_mr(struct ffv_pd *pd, uint32_t handle, struct ffv_mr **out)
{
	struct ffv_region *region;
	int rc = ffv_context_check(pd ? pd->ctx : NULL);

	if (!rc)
		rc = pd->ctx->exporter ? import_foreign_mr(pd, handle, &region) : import_own_mr(pd, handle, &region);
	if (rc)
		return rc;
	region->imported = true;
	*out = &region->base.mr;
	return 0;
}

int ffv_unimport_mr(struct ffv_mr *mr)
{
	if (!mr || !ffv_region_of(mr)->imported)
		return ffv_fail(EINVAL, "no imported memory region was given");
	struct ffv_region *region = ffv_region_of(mr);
	if (region->mapping && !ffv_context_check(mr->context)) { /* in a fork child it is not there */
		int rc = ffv_region_destroy(mr->context, region);
		if (rc)
			return rc;
	}
	ffv_region_free(region);
	return 0;
}

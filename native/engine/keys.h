/* SPDX-License-Identifier: MIT
 *
 * Looking keys up: which memory may this access touch, and where is it. Fast path. Runs in whichever process executes;
 * the table is another context's and not trusted: an entry is copied, checked, then used. The executor's epoch (see
 * exec.c) keeps an entry that was found from being reused until the access is over.
 */
#ifndef FFV_ENGINE_KEYS_H
#define FFV_ENGINE_KEYS_H

#include "engine/view.h"

/* A piece of a context's memory, in its owner's addresses. */
struct ffv_segment {
	uint64_t va;
	uint64_t mirror_first;
	uint64_t mirror_end;
	uint32_t length_bytes;
	bool on_demand;               /* of this process, and perhaps not there: copied by way of the kernel only */
};

static inline bool ffv_extent_holds(const struct ffv_extent *extent, uint64_t va, uint32_t length)
{
	return va >= ffv_word_load(&extent->first) && va + length <= ffv_word_load(&extent->end);
}

/* The same for on-demand memory. */
static inline bool ffv_extent_holds_on_demand(const struct ffv_extent *extent, uint64_t va, uint32_t length)
{
	uint64_t first = ffv_word_load(&extent->first);

	return first >> 63 && va >= ~first && va + length >= va && va + length <= ffv_word_load(&extent->end);
}

/* True, and *segment, if `key` of protection domain `pd` allows `access` to [addr, addr + length). qpn: of the QP whose
 * window it may be. A length of 0 is always allowed (IBA 10.7.2 note; no key is looked at). */
__attribute__((always_inline))
static inline bool ffv_key_resolve_as(const struct ffv_view *view, uint32_t key, uint32_t pd, uint32_t qpn, uint64_t addr,
				      uint32_t length, uint32_t access, bool on_demand, struct ffv_segment *segment)
{
	struct ffv_key_shm *entry = &view->arena->keys[FFV_KEY_INDEX(key)];

	/* [key-publish] pairs with the owner's release of `key`: the rest of the entry is whole. */
	if (ffv_unlikely(ffv_load_acquire(&entry->key) != key || key == 0))
		return false;
	uint64_t offset = addr - ffv_word_load(&entry->iova), total = ffv_word_load(&entry->length_bytes);
	if (ffv_unlikely(ffv_word_load(&entry->pd) != pd || access & ~ffv_word_load(&entry->access)))
		return false;
	if (ffv_unlikely(offset > total || length > total - offset))
		return false;
	uint32_t kind = ffv_word_load(&entry->kind), region = FFV_KEY_INDEX(key);
	if (ffv_unlikely(kind != FFV_KEY_MR)) {
		if (kind == FFV_KEY_MW2 && ffv_word_load(&entry->qpn) != qpn)
			return false;
		region = ffv_word_load(&entry->parent_index) & (FFV_MAX_KEYS - 1);
	}
	segment->va = ffv_word_load(&entry->va) + offset;
	segment->mirror_first = ffv_word_load(&entry->mirror_first);
	segment->mirror_end = ffv_word_load(&entry->mirror_end);
	segment->length_bytes = length;
	segment->on_demand = false;
	/* Peers can write the table: on our own memory it may say which region is meant, but not where that is. */
	if (view->extents && ffv_unlikely(!ffv_extent_holds(&view->extents[region], segment->va, length))) {
		if (!on_demand || !ffv_extent_holds_on_demand(&view->extents[region], segment->va, length))
			return false;
		segment->on_demand = true;
	}
	/* A window that is bound anew meanwhile changes under us: the fields were one binding's if the key still stands. */
	ffv_fence_load_load();
	return ffv_likely(ffv_load_relaxed(&entry->key) == key);
}

/* For memory that is certainly there: on-demand memory of this process is not found. Always inline: what a caller does not
 * look at is then not loaded. */
__attribute__((always_inline))
static inline bool ffv_key_resolve(const struct ffv_view *view, uint32_t key, uint32_t pd, uint32_t qpn, uint64_t addr,
				   uint32_t length, uint32_t access, struct ffv_segment *segment)
{
	return ffv_key_resolve_as(view, key, pd, qpn, addr, length, access, false, segment);
}

/* For copies that can take on-demand memory (ffv_copy_lists). */
static inline bool ffv_key_resolve_any(const struct ffv_view *view, uint32_t key, uint32_t pd, uint32_t qpn, uint64_t addr,
				       uint32_t length, uint32_t access, struct ffv_segment *segment)
{
	return ffv_key_resolve_as(view, key, pd, qpn, addr, length, access, true, segment);
}

#endif

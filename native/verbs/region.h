/* SPDX-License-Identifier: MIT
 *
 * A memory region as its owner knows it, and what makes and ends one: for the files that register memory of some kind.
 */
#ifndef FFV_VERBS_REGION_H
#define FFV_VERBS_REGION_H

#include "verbs/context.h"

/* What an entry of the key table says; the owner's own copy, since peers can write to the entry. */
struct ffv_translation {
	uint64_t va;
	uint64_t length_bytes;
	uint64_t iova;
	uint32_t access;
	struct ffv_range mirrored;
};

struct ffv_region {
	struct ffv_mr_private base; /* first: struct ffv_mr is the first of it */
	pthread_mutex_t lock;       /* one re-registration at a time */
	struct ffv_translation now;     /* lock */
	struct ffv_dm *dm;          /* over which it is registered, or NULL */
	void *memory;               /* ffv_alloc_mr's, the region's until the end whatever it is re-registered to */
	uint64_t memory_bytes;
	struct ffv_buf *buf;        /* likewise */
	void *mapping;              /* another process's memory, or a descriptor's, mapped for the region only */
	uint64_t mapping_bytes;
	bool imported;              /* neither changed nor deregistered; one of this process has only keys that are another's */
};

static inline struct ffv_region *ffv_region_of(struct ffv_mr *mr)
{
	return (struct ffv_region *)mr;
}

int ffv_region_check_access(uint32_t access);
/* Not registered; NULL without memory. */
struct ffv_region *ffv_region_new(struct ffv_pd *pd, const struct ffv_translation *t);
void ffv_region_free(struct ffv_region *region);
/* Pins t's memory and gives it a key. What t says has been checked. */
int ffv_region_create(struct ffv_pd *pd, const struct ffv_translation *t, struct ffv_region **out);
/* Revokes the key and gives the memory back; the struct stays. */
int ffv_region_destroy(struct ffv_context *ctx, struct ffv_region *region);

#endif

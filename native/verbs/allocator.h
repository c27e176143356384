/* SPDX-License-Identifier: MIT
 *
 * Private memory of verbs objects, from a parent domain's allocators or from the heap.
 */
#ifndef FFV_VERBS_ALLOCATOR_H
#define FFV_VERBS_ALLOCATOR_H

#include "verbs/objects.h"

/* Zeroed, aligned to a line; pd may be NULL or without allocators. NULL with a text: no memory, or the allocator returned
 * what cannot be used. Calls the application: no lock may be held. The domain must outlive the memory. */
void *ffv_private_alloc(struct ffv_pd *pd, size_t count, size_t bytes, uint64_t resource_type);
/* Gives it back where it came from; NULL is nothing. */
void ffv_private_free(void *memory);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Objects of one size, of which there are many that stay or many at a time, close together: among what comes and goes of
 * malloc's each would hold a page, and a burst would leave its memory behind. Process-private, thread-safe.
 */
#ifndef FFV_BASE_SLAB_H
#define FFV_BASE_SLAB_H

#include <pthread.h>
#include <stddef.h>

struct ffv_slab_block;

struct ffv_slab {
	pthread_mutex_t lock;
	size_t object_bytes;          /* a multiple of 8, at most 16 KiB */
	struct ffv_slab_block *with_room;
	unsigned num_empty;
};

#define FFV_SLAB(bytes) { PTHREAD_MUTEX_INITIALIZER, ((bytes) + 7) / 8 * 8, NULL, 0 }

/* One that is all zeros, aligned to 8 bytes; NULL: no memory. */
void *ffv_slab_alloc(struct ffv_slab *slab);
void ffv_slab_free(struct ffv_slab *slab, void *object);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Allocation of lines in our own arena: powers of two, zeroed. Process-private bookkeeping, so no peer can disturb it.
 * Thread-safe.
 */
#ifndef FFV_VERBS_HEAP_H
#define FFV_VERBS_HEAP_H

#include <pthread.h>
#include <stdint.h>

#include "shm/layout.h"

#define FFV_HEAP_CLASSES 29u

struct ffv_heap {
	struct ffv_arena_shm *arena;
	pthread_mutex_t lock;
	uint64_t next_line;
	struct { uint32_t *lines; uint32_t count; uint32_t room; } free[FFV_HEAP_CLASSES];
};

void ffv_heap_init(struct ffv_heap *heap, struct ffv_arena_shm *arena);
void ffv_heap_finish(struct ffv_heap *heap);
/* At least `bytes`, zeroed; blocks of a page and more are page-aligned. -ENOMEM. */
int ffv_heap_alloc(struct ffv_heap *heap, uint64_t bytes, uint32_t *line);
void ffv_heap_free(struct ffv_heap *heap, uint32_t line, uint64_t bytes);

static inline void *ffv_heap_at(const struct ffv_heap *heap, uint32_t line)
{
	return (uint8_t *)heap->arena + (uint64_t)line * FFV_LINE_BYTES;
}

#endif

/* SPDX-License-Identifier: MIT
 *
 * See heap.h.
 */
#include "verbs/heap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/error.h"

#define PAGE_LINES 64u
#define RETURN_BYTES (64u << 10) /* blocks from this size give their pages back when freed */

static unsigned class_of(uint64_t bytes)
{
	uint64_t lines = (bytes + FFV_LINE_BYTES - 1) / FFV_LINE_BYTES;

	return lines <= 1 ? 0 : 64u - (unsigned)__builtin_clzll(lines - 1);
}

void ffv_heap_init(struct ffv_heap *heap, struct ffv_arena_shm *arena)
{
	memset(heap, 0, sizeof *heap);
	pthread_mutex_init(&heap->lock, NULL);
	heap->arena = arena;
	heap->next_line = (sizeof *arena + 4095) / 4096 * PAGE_LINES;
}

void ffv_heap_finish(struct ffv_heap *heap)
{
	for (unsigned i = 0; i < FFV_HEAP_CLASSES; i++)
		free(heap->free[i].lines);
	pthread_mutex_destroy(&heap->lock);
}

static int take_fresh(struct ffv_heap *heap, unsigned class, uint32_t *line)
{
	uint64_t lines = 1ull << class, align = lines < PAGE_LINES ? lines : PAGE_LINES;
	uint64_t first = (heap->next_line + align - 1) & ~(align - 1);

	if (first + lines > FFV_ARENA_LINES)
		return ffv_fail(ENOMEM, "the context's arena of %llu GiB is full", FFV_ARENA_BYTES >> 30);
	heap->next_line = first + lines;
	*line = (uint32_t)first;
	return 0;
}

int ffv_heap_alloc(struct ffv_heap *heap, uint64_t bytes, uint32_t *line)
{
	unsigned class = class_of(bytes);
	int rc = 0;

	if (class >= FFV_HEAP_CLASSES)
		return ffv_fail(ENOMEM, "%llu bytes are more than an arena holds", (unsigned long long)bytes);
	pthread_mutex_lock(&heap->lock);
	if (heap->free[class].count) {
		*line = heap->free[class].lines[--heap->free[class].count];
		pthread_mutex_unlock(&heap->lock);
		if ((FFV_LINE_BYTES << class) < RETURN_BYTES)
			memset(ffv_heap_at(heap, *line), 0, (size_t)FFV_LINE_BYTES << class);
		return 0;
	}
	rc = take_fresh(heap, class, line);
	pthread_mutex_unlock(&heap->lock);
	return rc;
}

void ffv_heap_free(struct ffv_heap *heap, uint32_t line, uint64_t bytes)
{
	unsigned class = class_of(bytes);
	size_t size = (size_t)FFV_LINE_BYTES << class;

	if (size >= RETURN_BYTES && madvise(ffv_heap_at(heap, line), size, MADV_REMOVE))
		memset(ffv_heap_at(heap, line), 0, size);
	pthread_mutex_lock(&heap->lock);
	if (heap->free[class].count == heap->free[class].room) {
		uint32_t room = heap->free[class].room ? heap->free[class].room * 2 : 16;
		uint32_t *lines = realloc(heap->free[class].lines, room * sizeof *lines);
		if (!lines) { /* lost until the context closes; nothing breaks */
			pthread_mutex_unlock(&heap->lock);
			return;
		}
		heap->free[class].lines = lines;
		heap->free[class].room = room;
	}
	heap->free[class].lines[heap->free[class].count++] = line;
	pthread_mutex_unlock(&heap->lock);
}

/* SPDX-License-Identifier: MIT
 *
 * See slab.h. A block is aligned to its size, so that an object's address tells its block. Pages that no object has been in
 * yet are not touched; a block without objects goes back to the system, but for one.
 */
#include "base/slab.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__ /* which knows of each object of malloc's who had it last */

void *ffv_slab_alloc(struct ffv_slab *slab)
{
	return calloc(1, slab->object_bytes);
}

void ffv_slab_free(struct ffv_slab *slab, void *object)
{
	(void)slab;
	free(object);
}

#else

#define BLOCK_BYTES (64u << 10)

struct ffv_slab_block {
	struct ffv_slab_block *next, **at; /* among those with room; at == NULL: it has none */
	void *free;                   /* objects that were given back, each the address of the next one */
	uint32_t used;
	uint32_t fresh_bytes;         /* behind here nothing was ever given out */
};

static struct ffv_slab_block *map_block(void)
{
	uint8_t *at = mmap(NULL, 2 * BLOCK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		return NULL;
	size_t before = -(uintptr_t)at % BLOCK_BYTES;
	if (before)
		munmap(at, before);
	munmap(at + before + BLOCK_BYTES, BLOCK_BYTES - before);
	struct ffv_slab_block *block = (struct ffv_slab_block *)(void *)(at + before);
	block->fresh_bytes = (sizeof *block + 63) / 64 * 64;
	return block;
}

static void list(struct ffv_slab *slab, struct ffv_slab_block *block)
{
	block->next = slab->with_room;
	block->at = &slab->with_room;
	if (block->next)
		block->next->at = &block->next;
	slab->with_room = block;
}

static void unlist(struct ffv_slab_block *block)
{
	*block->at = block->next;
	if (block->next)
		block->next->at = block->at;
	block->at = NULL;
}

static void *take(struct ffv_slab *slab, struct ffv_slab_block *block)
{
	void *object = block->free;

	if (object) {
		memcpy(&block->free, object, sizeof block->free);
	} else {
		object = (uint8_t *)block + block->fresh_bytes;
		block->fresh_bytes += (uint32_t)slab->object_bytes;
	}
	slab->num_empty -= !block->used++;
	if (!block->free && block->fresh_bytes + slab->object_bytes > BLOCK_BYTES)
		unlist(block);
	return object;
}

void *ffv_slab_alloc(struct ffv_slab *slab)
{
	void *object = NULL;

	pthread_mutex_lock(&slab->lock);
	struct ffv_slab_block *fresh = slab->with_room ? NULL : map_block();
	if (fresh) {
		list(slab, fresh);
		slab->num_empty++;
	}
	if (slab->with_room)
		object = take(slab, slab->with_room);
	pthread_mutex_unlock(&slab->lock);
	return object ? memset(object, 0, slab->object_bytes) : NULL;
}

void ffv_slab_free(struct ffv_slab *slab, void *object)
{
	struct ffv_slab_block *block = (struct ffv_slab_block *)((uintptr_t)object & ~(uintptr_t)(BLOCK_BYTES - 1));

	if (!object)
		return;
	pthread_mutex_lock(&slab->lock);
	memcpy(object, &block->free, sizeof block->free);
	block->free = object;
	slab->num_empty += !--block->used;
	if (!block->at)
		list(slab, block);
	bool spare = !block->used && slab->num_empty > 1;
	if (spare) {
		unlist(block);
		slab->num_empty--;
	}
	pthread_mutex_unlock(&slab->lock);
	if (spare)
		munmap(block, BLOCK_BYTES);
}

#endif

/* SPDX-License-Identifier: MIT
 *
 * See pages.h. Root (2048 entries of 64 GiB) -> mid (4096 of 16 MiB) -> leaf (4096 pages).
 */
#include "shm/pages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define LEAF_BITS 12
#define MID_BITS 12
#define LEAF_PAGES (1u << LEAF_BITS)
#define LEAF_BYTES ((uint64_t)LEAF_PAGES << FFV_PAGE_SHIFT)
#define MID_LEAVES (1u << MID_BITS)
#define MOVED 0x8000u /* the rest of an entry counts references */

_Static_assert(FFV_PAGE_SHIFT + LEAF_BITS + MID_BITS + 11 == FFV_ADDRESS_BITS, "three levels span the address space");

struct leaf {
	uint16_t entries[LEAF_PAGES];
};

struct ffv_pages_mid {
	struct leaf *leaves[MID_LEAVES];
};

/* The part of one leaf that a range covers. */
struct span {
	uint16_t *entries; /* NULL: there is no leaf, all entries are 0 */
	uint32_t count;
	uint64_t first;    /* address of the first entry */
};

static struct leaf **leaf_slot(const struct ffv_pages *pages, uint64_t addr)
{
	struct ffv_pages_mid *mid = pages->mids[addr >> (FFV_PAGE_SHIFT + LEAF_BITS + MID_BITS)];

	return mid ? &mid->leaves[(addr >> (FFV_PAGE_SHIFT + LEAF_BITS)) & (MID_LEAVES - 1)] : NULL;
}

static struct span span_at(const struct ffv_pages *pages, uint64_t addr, uint64_t end)
{
	struct leaf **slot = leaf_slot(pages, addr);
	uint64_t leaf_end = (addr | (LEAF_BYTES - 1)) + 1;
	uint32_t index = (addr >> FFV_PAGE_SHIFT) & (LEAF_PAGES - 1);

	return (struct span){
		.entries = slot && *slot ? (*slot)->entries + index : NULL,
		.count = (uint32_t)(((end < leaf_end ? end : leaf_end) - addr) >> FFV_PAGE_SHIFT),
		.first = addr,
	};
}

static uint64_t span_end(const struct span *span)
{
	return span->first + ((uint64_t)span->count << FFV_PAGE_SHIFT);
}

static struct leaf *leaf_make(struct ffv_pages *pages, uint64_t addr)
{
	struct ffv_pages_mid **mid = &pages->mids[addr >> (FFV_PAGE_SHIFT + LEAF_BITS + MID_BITS)];

	if (!*mid && !(*mid = calloc(1, sizeof **mid)))
		return NULL;
	struct leaf **slot = leaf_slot(pages, addr);
	if (!*slot)
		*slot = calloc(1, sizeof **slot);
	return *slot;
}

static bool span_is_full(const struct span *span)
{
	for (uint32_t i = 0; i < span->count; i++)
		if ((span->entries[i] & ~MOVED) == FFV_PAGES_MAX_REFS)
			return true;
	return false;
}

int ffv_pages_reserve(struct ffv_pages *pages, struct ffv_range range)
{
	int rc = 0;

	for (uint64_t addr = range.first; addr < range.end && !rc;) {
		if (!leaf_make(pages, addr)) {
			rc = ffv_fail(ENOMEM, "out of memory for the table of registered pages");
			break;
		}
		struct span span = span_at(pages, addr, range.end);
		if (span_is_full(&span))
			rc = ffv_fail(ENOMEM, "a page near address 0x%llx is in %u memory regions already, "
				"no more are possible: deregister some",
				(unsigned long long)addr, FFV_PAGES_MAX_REFS);
		addr = span_end(&span);
	}
	if (rc)
		ffv_pages_prune(pages, range);
	return rc;
}

void ffv_pages_add(struct ffv_pages *pages, struct ffv_range range)
{
	for (uint64_t addr = range.first; addr < range.end;) {
		struct span span = span_at(pages, addr, range.end);
		for (uint32_t i = 0; i < span.count; i++)
			span.entries[i]++;
		addr = span_end(&span);
	}
}

void ffv_pages_drop(struct ffv_pages *pages, struct ffv_range range)
{
	for (uint64_t addr = range.first; addr < range.end;) {
		struct span span = span_at(pages, addr, range.end);
		for (uint32_t i = 0; span.entries && i < span.count; i++)
			span.entries[i] = (uint16_t)(span.entries[i] - ((span.entries[i] & ~MOVED) != 0));
		addr = span_end(&span);
	}
}

void ffv_pages_set_moved(struct ffv_pages *pages, struct ffv_range range, bool moved)
{
	for (uint64_t addr = range.first; addr < range.end;) {
		struct span span = span_at(pages, addr, range.end);
		for (uint32_t i = 0; i < span.count; i++)
			span.entries[i] = (uint16_t)(moved ? span.entries[i] | MOVED : span.entries[i] & ~MOVED);
		addr = span_end(&span);
	}
}

bool ffv_pages_find_idle(const struct ffv_pages *pages, struct ffv_range range, struct ffv_range *run)
{
	bool found = false;

	for (uint64_t addr = range.first; addr < range.end;) {
		struct span span = span_at(pages, addr, range.end);
		for (uint32_t i = 0; i < span.count; i++) {
			bool idle = span.entries && span.entries[i] == MOVED;
			uint64_t page = addr + ((uint64_t)i << FFV_PAGE_SHIFT);
			if (found && !idle) {
				run->end = page;
				return true;
			}
			if (!found && idle)
				run->first = page;
			found |= idle;
			if (!span.entries)
				break;
		}
		addr = span_end(&span);
	}
	if (found)
		run->end = range.end;
	return found;
}

static bool leaf_is_empty(const struct leaf *leaf)
{
	for (uint32_t i = 0; i < LEAF_PAGES; i++)
		if (leaf->entries[i])
			return false;
	return true;
}

void ffv_pages_prune(struct ffv_pages *pages, struct ffv_range range)
{
	for (uint64_t addr = range.first & ~(LEAF_BYTES - 1); addr < range.end; addr += LEAF_BYTES) {
		struct leaf **slot = leaf_slot(pages, addr);
		if (!slot || !*slot || !leaf_is_empty(*slot))
			continue;
		free(*slot);
		*slot = NULL;
	}
}

void ffv_pages_clear(struct ffv_pages *pages)
{
	for (uint32_t i = 0; i < sizeof pages->mids / sizeof pages->mids[0]; i++) {
		if (!pages->mids[i])
			continue;
		for (uint32_t k = 0; k < MID_LEAVES; k++)
			free(pages->mids[i]->leaves[k]);
		free(pages->mids[i]);
		pages->mids[i] = NULL;
	}
}

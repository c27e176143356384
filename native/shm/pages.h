/* SPDX-License-Identifier: MIT
 *
 * What is known of each page of this process: how many registrations hold it, and whether its content stands in the
 * mirror. A sparse radix table over the 47-bit address space. Process-private; the caller holds the mirror's lock.
 *
 * All ranges are given as addresses and are whole pages below FFV_ADDRESS_END.
 */
#ifndef FFV_SHM_PAGES_H
#define FFV_SHM_PAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/mirror.h"

#define FFV_ADDRESS_BITS 47
#define FFV_ADDRESS_END (1ull << FFV_ADDRESS_BITS)
#define FFV_PAGE_SHIFT 12 /* granularity of the table; where pages are larger, their entries are alike */
#define FFV_PAGES_MAX_REFS 0x7fffu

struct ffv_pages_mid;

struct ffv_pages {
	struct ffv_pages_mid *mids[1u << 11];
};

/* Makes room for the entries of a range and checks that none is at its limit. -ENOMEM: nothing has changed. */
int ffv_pages_reserve(struct ffv_pages *pages, struct ffv_range range);
/* One reference more on each page; the range has been reserved. */
void ffv_pages_add(struct ffv_pages *pages, struct ffv_range range);
/* One reference less on each page that has one. */
void ffv_pages_drop(struct ffv_pages *pages, struct ffv_range range);
/* Notes whether the content stands in the mirror; the range has been reserved. */
void ffv_pages_set_moved(struct ffv_pages *pages, struct ffv_range range, bool moved);
/* The first run in `range` of pages whose content stands in the mirror though nobody holds them. */
bool ffv_pages_find_idle(const struct ffv_pages *pages, struct ffv_range range, struct ffv_range *run);
/* Gives back the memory of the parts of a range that say nothing any more. */
void ffv_pages_prune(struct ffv_pages *pages, struct ffv_range range);
void ffv_pages_clear(struct ffv_pages *pages);

#endif

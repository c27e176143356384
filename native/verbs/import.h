/* SPDX-License-Identifier: MIT
 *
 * What the objects that can be imported share: finding them by handle, and memory of another process.
 */
#ifndef FFV_VERBS_IMPORT_H
#define FFV_VERBS_IMPORT_H

#include "verbs/context.h"

/* A range of another process's mirror, mapped here. */
struct ffv_foreign_memory {
	void *mapping;                /* whole pages; for munmap */
	uint64_t mapping_bytes;
	uint8_t *memory;              /* the first byte asked for */
};

/* Maps [va, va + length) of the peer's registered memory; what is not registered there reads as zeros. */
int ffv_foreign_map(const struct ffv_peer *peer, uint64_t va, uint64_t length_bytes, struct ffv_foreign_memory *out);

#endif

/* SPDX-License-Identifier: MIT
 *
 * What is mapped where in this process, read from /proc. Process-private; thread-safe. A list is a snapshot: what the
 * application maps or unmaps in the range meanwhile is its own race.
 */
#ifndef FFV_SHM_MAPS_H
#define FFV_SHM_MAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "shm/mirror.h"

struct ffv_mapping {
	struct ffv_range range;    /* clipped to what was asked for */
	uint64_t offset;           /* in the file, of range.first */
	ino_t inode;               /* 0: no file */
	unsigned dev_major, dev_minor;
	bool readable, writable, executable, shared;
	bool anonymous;            /* ordinary memory: no file, neither a stack nor one of the kernel's own */
};

struct ffv_maps {
	struct ffv_mapping *list;  /* by address */
	size_t count;
};

/* Lists the mappings that overlap the range. -ENOENT if /proc does not tell; *maps is to be freed after success. */
int ffv_maps_read(struct ffv_range range, struct ffv_maps *maps);
/* The same by one way of asking, for tests; -ENOTTY: this kernel does not answer it. */
enum ffv_maps_source { FFV_MAPS_ANY, FFV_MAPS_QUERY, FFV_MAPS_TEXT };
int ffv_maps_read_with(enum ffv_maps_source source, struct ffv_range range, struct ffv_maps *maps);
void ffv_maps_free(struct ffv_maps *maps);
/* Opens a file of the calling thread's folder in /proc; -errno without a text. */
int ffv_maps_open(const char *name);

#endif

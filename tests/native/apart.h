/* Memory for tests that unmap a part of it: far from where the kernel puts the mappings that nobody placed (those of the
 * allocator, of a sanitizer, of another thread), which would fill the gap at any time. */
#ifndef FFV_TESTS_APART_H
#define FFV_TESTS_APART_H

#include <stdint.h>
#include <sys/mman.h>

#include "check.h"

#define APART_FIRST 0x20000000u

static inline uint8_t *map_apart(size_t bytes)
{
	void *memory = mmap((void *)(uintptr_t)APART_FIRST, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	CHECK(memory == (void *)(uintptr_t)APART_FIRST);
	return memory;
}

#endif

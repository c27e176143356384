/* SPDX-License-Identifier: MIT
 *
 * See allocator.h. A line before the memory says where it came from, since an allocator may leave some requests to the
 * default and serve others.
 */
#include "verbs/allocator.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

struct origin {
	FFV_LINE_ALIGNED struct ffv_pd *pd; /* NULL: the heap */
	uint64_t resource_type;
};

/* NULL: the domain leaves it to the default, or (with *rc) refuses. */
static void *ask(struct ffv_pd *pd, size_t size, uint64_t resource_type, int *rc)
{
	void *memory = pd->alloc(pd, pd->pd_context, size, FFV_LINE_BYTES, resource_type);

	if (memory == FFV_ALLOCATOR_USE_DEFAULT)
		return NULL;
	if (!memory)
		*rc = ffv_fail(ENOMEM, "the parent domain's allocator gives no %zu bytes", size);
	else if ((uintptr_t)memory % FFV_LINE_BYTES)
		*rc = ffv_fail(EINVAL, "the parent domain's allocator returned %p, which is not aligned to %u", memory,
			       FFV_LINE_BYTES);
	if (*rc && memory)
		pd->free(pd, pd->pd_context, memory, resource_type);
	return *rc ? NULL : memory;
}

void *ffv_private_alloc(struct ffv_pd *pd, size_t count, size_t bytes, uint64_t resource_type)
{
	struct origin *origin = NULL;
	size_t size;
	int rc = 0;

	if (__builtin_mul_overflow(count, bytes, &size) || size > SIZE_MAX - 2 * sizeof *origin) {
		ffv_fail(ENOMEM, "%zu times %zu bytes are too much", count, bytes);
		return NULL;
	}
	size = (size + sizeof *origin + FFV_LINE_BYTES - 1) / FFV_LINE_BYTES * FFV_LINE_BYTES;
	if (pd && pd->alloc)
		origin = ask(pd, size, resource_type, &rc);
	if (rc)
		return NULL;
	bool custom = origin != NULL;
	if (!custom && !(origin = aligned_alloc(FFV_LINE_BYTES, size))) {
		ffv_fail(ENOMEM, "no memory for %zu bytes", size);
		return NULL;
	}
	memset(origin, 0, size);
	origin->pd = custom ? pd : NULL;
	origin->resource_type = resource_type;
	return origin + 1;
}

void ffv_private_free(void *memory)
{
	if (!memory)
		return;
	struct origin *origin = (struct origin *)memory - 1;
	struct ffv_pd *pd = origin->pd;
	if (pd)
		pd->free(pd, pd->pd_context, origin, origin->resource_type);
	else
		free(origin);
}

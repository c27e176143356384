/* SPDX-License-Identifier: MIT
 *
 * Finds libc's own functions.
 */
#include <dlfcn.h>

#include "base/atomics.h"
#include "preload/real.h"

static struct pre_real calls;
static _Atomic int found;

static void find(void)
{
	/* Any number of threads may do so at once: all write the same. */
#define PRE_FIND(type, name, arguments) *(void **)(void *)&calls.name = dlsym(RTLD_NEXT, #name);
	PRE_REAL_CALLS(PRE_FIND)
#undef PRE_FIND
	ffv_store_release(&found, 1); /* [pre-found] */
}

const struct pre_real *pre_real(void)
{
	if (__builtin_expect(!ffv_load_acquire(&found), 0)) /* [pre-found] */
		find();
	return &calls;
}

/* What an actor does that no honest process does: writing nonsense into its own arena, and giving up the kernel's
 * permission to read other processes' memory (so that only staging is left). */
#ifndef FFV_TESTS_ACTOR_HOSTILE_H
#define FFV_TESTS_ACTOR_HOSTILE_H

#include <stdbool.h>
#include <stdint.h>

#include <ffverbs/ffv.h>

/* Overwrites `count` pieces of the arena region `where` (see actor_hostile.c) with bytes drawn from `seed`. */
int actor_scribble(struct ffv_context *ctx, const char *where, uint64_t seed, unsigned count);

/* process_vm_readv and process_vm_writev fail with EPERM from now on in this process. */
int actor_deny_process_vm(void);

#endif

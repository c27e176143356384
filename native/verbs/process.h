/* SPDX-License-Identifier: MIT
 *
 * What all contexts of a process share: the service thread, the numbering of threads, the list of contexts, fork().
 */
#ifndef FFV_VERBS_PROCESS_H
#define FFV_VERBS_PROCESS_H

#include <sys/stat.h>

#include "verbs/objects.h"

/* Counts forks: a context of another generation belongs to an ancestor. */
extern uint32_t ffv_process_generation __attribute__((visibility("hidden")));

/* The loop of the service thread, started with the first context and stopped with the last. */
int ffv_process_join(struct ffv_context *ctx);
void ffv_process_leave(struct ffv_context *ctx);
struct ffv_loop *ffv_process_loop(void);
/* The arena of the context of that id if it is open in this process, held until dropped; else NULL. Both contexts then
 * see it at one address. */
struct ffv_arena_shm *ffv_process_share_arena(uint64_t context_id, const struct ffv_extent **extents);
/* Gives up an arena that was created, attached or shared; its last user unmaps it. */
void ffv_process_drop_arena(struct ffv_arena_shm *arena);

/* This thread's number, 0 .. FFV_MAX_THREADS - 1, or -1 if there are more threads. Freed when the thread ends. */
extern _Thread_local int ffv_thread_number_cached __attribute__((tls_model("initial-exec"), visibility("hidden")));
int ffv_thread_number_claim(void);

/* A number for what is no thread, but executes: -1 as above. To be freed. */
int ffv_thread_number_take(void);
void ffv_thread_number_free(int number);

static inline int ffv_thread_number(void)
{
	int number = ffv_thread_number_cached;

	return ffv_likely(number >= 0) ? number : ffv_thread_number_claim();
}

/* The context of this process whose control socket this is, with one user more; NULL if there is none. */
struct ffv_context *ffv_process_import(const struct stat *socket);
/* True if the context had users besides the first: now one less. */
bool ffv_process_unimport(struct ffv_context *ctx);

#endif

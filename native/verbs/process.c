/* SPDX-License-Identifier: MIT
 *
 * See process.h.
 */
#include "verbs/process.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "verbs/peer.h"

uint32_t ffv_process_generation;
_Thread_local int ffv_thread_number_cached __attribute__((tls_model("initial-exec"))) = -1;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct ffv_loop *loop;                    /* lock */
static struct ffv_context *contexts;             /* lock */
static uint64_t threads[FFV_MAX_THREADS / 64];   /* lock: numbers in use */
static int kept_number = -1;                     /* lock: in use for the service thread, until it asks */
static pthread_key_t thread_key;

/* ---- threads ---------------------------------------------------------------------------------------------------------- */

void ffv_thread_number_free(int number)
{
	pthread_mutex_lock(&lock);
	threads[number / 64] &= ~(1ull << (number % 64));
	pthread_mutex_unlock(&lock);
}

static void free_number(void *value)
{
	ffv_thread_number_free((int)(intptr_t)value - 1);
	ffv_thread_number_cached = -1;
}

/* ---- fork --------------------------------------------------------------------------------------------------------------- */

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void after_fork_in_parent(void)
{
	pthread_mutex_unlock(&lock);
}

/* The child must not keep alive what shows the parent's death: its sockets. Nothing else of the parent is touched. */
static void after_fork_in_child(void)
{
	ffv_process_generation++;
	for (struct ffv_context *ctx = contexts; ctx; ctx = ctx->next)
		ffv_context_close_descriptors(ctx);
	contexts = NULL;
	if (loop)
		ffv_loop_abandon(loop);
	loop = NULL;
	for (unsigned i = 0; i < FFV_MAX_THREADS / 64; i++)
		threads[i] = 0;
	if (ffv_thread_number_cached >= 0)
		threads[ffv_thread_number_cached / 64] |= 1ull << (ffv_thread_number_cached % 64);
	kept_number = -1;
	pthread_mutex_unlock(&lock);
}

static void initialize(void)
{
	pthread_key_create(&thread_key, free_number);
	pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* lock held. */
static int take_number(void)
{
	int number = -1;

	for (unsigned i = 0; i < FFV_MAX_THREADS / 64 && number < 0; i++) {
		if (~threads[i]) {
			unsigned bit = (unsigned)__builtin_ctzll(~threads[i]);
			threads[i] |= 1ull << bit;
			number = (int)(i * 64 + bit);
		}
	}
	return number;
}

/* lock held. What was kept for the service thread; -1: nothing, or it has it. */
static int take_kept(void)
{
	int number = kept_number;

	kept_number = -1;
	return number;
}

int ffv_thread_number_take(void)
{
	pthread_mutex_lock(&lock);
	int number = take_number();
	pthread_mutex_unlock(&lock);
	return number;
}

int ffv_thread_number_claim(void)
{
	pthread_once(&once, initialize);
	pthread_mutex_lock(&lock);
	int number = loop && ffv_loop_is_own_thread(loop) ? take_kept() : -1;
	if (number < 0)
		number = take_number();
	pthread_mutex_unlock(&lock);
	if (number >= 0) {
		pthread_setspecific(thread_key, (void *)(intptr_t)(number + 1));
		ffv_thread_number_cached = number;
	}
	return number;
}

/* ---- contexts ------------------------------------------------------------------------------------------------------------ */

int ffv_process_join(struct ffv_context *ctx)
{
	int rc = 0;

	pthread_once(&once, initialize);
	pthread_mutex_lock(&lock);
	if (!loop) {
		rc = ffv_loop_create(&loop);
		/* It serves those that have none, and asks for its own when it first executes: that may be too late. */
		kept_number = rc ? -1 : take_number();
	}
	if (!rc) {
		ctx->fork_generation = ffv_process_generation;
		ctx->next = contexts;
		contexts = ctx;
	}
	pthread_mutex_unlock(&lock);
	return rc;
}

void ffv_process_leave(struct ffv_context *ctx)
{
	struct ffv_loop *unused = NULL;
	int kept = -1;

	pthread_mutex_lock(&lock);
	for (struct ffv_context **at = &contexts; *at; at = &(*at)->next) {
		if (*at == ctx) {
			*at = ctx->next;
			break;
		}
	}
	if (!contexts) {
		unused = loop;
		loop = NULL;
		kept = take_kept();
	}
	pthread_mutex_unlock(&lock);
	if (unused)
		ffv_loop_destroy(unused);
	if (kept >= 0)
		ffv_thread_number_free(kept);
}

struct ffv_context *ffv_process_import(const struct stat *socket)
{
	struct ffv_context *found = NULL;
	struct stat st;

	pthread_mutex_lock(&lock);
	for (struct ffv_context *ctx = contexts; ctx && !found; ctx = ctx->next)
		if (!fstat(ctx->listen_fd, &st) && st.st_dev == socket->st_dev && st.st_ino == socket->st_ino)
			found = ctx;
	if (found)
		found->imports++;
	pthread_mutex_unlock(&lock);
	return found;
}

bool ffv_process_unimport(struct ffv_context *ctx)
{
	pthread_mutex_lock(&lock);
	bool shared = ctx->imports > 0;
	if (shared)
		ctx->imports--;
	pthread_mutex_unlock(&lock);
	return shared;
}

struct ffv_loop *ffv_process_loop(void)
{
	pthread_mutex_lock(&lock);
	struct ffv_loop *current = loop;
	pthread_mutex_unlock(&lock);
	return current;
}

/* ---- arenas that several contexts of the process see ------------------------------------------------------------------- */

/* Users of an arena besides the first. */
struct shared_arena { struct shared_arena *next; struct ffv_arena_shm *arena; uint32_t holds; };
static struct shared_arena *shared_arenas;        /* lock */

static struct shared_arena **find_shared(const struct ffv_arena_shm *arena)
{
	struct shared_arena **at = &shared_arenas;

	while (*at && (*at)->arena != arena)
		at = &(*at)->next;
	return at;
}

/* lock held. False: no memory. */
static bool hold(struct ffv_arena_shm *arena)
{
	struct shared_arena **at = find_shared(arena);

	if (!*at && !(*at = calloc(1, sizeof **at)))
		return false;
	(*at)->arena = arena;
	(*at)->holds++;
	return true;
}

struct ffv_arena_shm *ffv_process_share_arena(uint64_t context_id, const struct ffv_extent **extents)
{
	struct ffv_arena_shm *found = NULL;

	pthread_mutex_lock(&lock);
	for (struct ffv_context *ctx = contexts; ctx && !found; ctx = ctx->next)
		if (ctx->view.context_id == context_id && hold(ctx->view.arena)) {
			found = ctx->view.arena;
			*extents = ctx->extents;
		}
	pthread_mutex_unlock(&lock);
	return found;
}

void ffv_process_drop_arena(struct ffv_arena_shm *arena)
{
	pthread_mutex_lock(&lock);
	struct shared_arena **at = find_shared(arena), *entry = *at;
	if (entry && --entry->holds == 0) {
		*at = entry->next;
		free(entry);
	}
	pthread_mutex_unlock(&lock);
	if (!entry)
		ffv_arena_detach(arena);
}

/* SPDX-License-Identifier: MIT
 *
 * What most queue pairs do: nothing. A pair is *warm* while it has what it needs at work only: a reference to the
 * container's queue pair and a link to it, which are found again by looking them up. Of a pair that was not used between two
 * looks they go. Runs on the loop's thread.
 */
#include <malloc.h>
#include <stdlib.h>

#include "wire/router.h"

#define LOOK_NS 900000000ull      /* between two looks; a little less than the loop sleeps when there is nothing to do */

struct ffv_slab ffv_pair_refs = FFV_SLAB(sizeof(struct ffv_qp_ref));
struct ffv_slab ffv_in_windows = FFV_SLAB(sizeof(struct ffv_in_window));
struct ffv_slab ffv_out_windows = FFV_SLAB(sizeof(struct ffv_out_window));

static bool make_room_locked(struct ffv_router *router)
{
	uint32_t capacity = router->warm_capacity ? 2 * router->warm_capacity : 64;

	if (router->num_warm < router->warm_capacity)
		return true;
	struct ffv_pair **grown = realloc((void *)router->warm, capacity * sizeof(struct ffv_pair *));
	if (!grown)
		return false;
	router->warm = grown;
	router->warm_capacity = capacity;
	return true;
}

void ffv_pair_warm(struct ffv_pair *pair)
{
	struct ffv_router *router = pair->proxy->router;

	pair->is_used = true;
	if (pair->warm || pair->dead)
		return;
	pthread_mutex_lock(&router->lock);
	if (make_room_locked(router)) { /* else it keeps what it has until it is used again, or goes */
		router->warm[router->num_warm++] = pair;
		pair->warm = router->num_warm;
	}
	pthread_mutex_unlock(&router->lock);
}

void ffv_pair_forget_warmth_locked(struct ffv_pair *pair)
{
	struct ffv_router *router = pair->proxy->router;

	if (!pair->warm)
		return;
	struct ffv_pair *last = router->warm[--router->num_warm];
	router->warm[pair->warm - 1] = last;
	last->warm = pair->warm;
	pair->warm = 0;
}

static bool is_at_rest(const struct ffv_pair *pair)
{
	return !pair->is_used && !pair->in.window && !pair->out.window && !pair->jobs && !pair->attaching &&
	       !pair->dead && !pair->in.grant && !pair->out.transfer && !pair->is_parked && !ffv_outgoing_is_busy(pair);
}

static void cool(struct ffv_pair *pair)
{
	if (pair->qp && !ffv_qp_rest(pair->qp))
		return; /* the next time */
	ffv_slab_free(&ffv_pair_refs, pair->ref);
	pair->ref = NULL;
	pthread_mutex_lock(&pair->proxy->router->lock);
	ffv_pair_forget_warmth_locked(pair);
	pthread_mutex_unlock(&pair->proxy->router->lock);
}

void ffv_rest_tick(struct ffv_router *router)
{
	if (!router->num_warm || router->now_ns - router->rested_ns < LOOK_NS)
		return;
	router->rested_ns = router->now_ns;
	for (uint32_t i = router->num_warm; i--;) { /* backwards: whoever goes has the last one take its place */
		struct ffv_pair *pair = router->warm[i];
		if (is_at_rest(pair))
			cool(pair);
		pair->is_used = false;
	}
}

/* One at a time: where another allocator serves the program (a sanitizer's), the C library's is set up here, and it is not
 * made for two threads that do so at once. */
static void trim(void)
{
	static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;

	pthread_mutex_lock(&one);
	malloc_trim(0);
	pthread_mutex_unlock(&one);
}

void ffv_rest_all(struct ffv_router *router)
{
	for (uint32_t i = 0; i < FFV_MAX_CHANNELS; i++)
		if (router->channels[i])
			ffv_channel_rest(&router->channels[i]->io);
	pthread_mutex_lock(&router->lock);
	if (!router->num_warm) {
		free((void *)router->warm);
		router->warm = NULL;
		router->warm_capacity = 0;
	}
	struct ffv_wanted *wanted = router->num_wanted ? NULL : router->wanted;
	if (wanted) {
		router->wanted = NULL;
		router->wanted_capacity = 0;
	}
	pthread_mutex_unlock(&router->lock);
	free(wanted);
	trim();
}

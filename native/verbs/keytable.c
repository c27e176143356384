/* SPDX-License-Identifier: MIT
 *
 * See keytable.h.
 */
#include "verbs/keytable.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/fault.h"
#include "verbs/context.h"
#include "verbs/device.h"

#define QUIESCE_NS 5000000000ull
#define REVOKE_TRIES 4

_Static_assert(FFV_LIMIT_MR + FFV_LIMIT_MW == FFV_MAX_KEYS - 1, "who is within the limits finds a free index");

/* context.lock. There is a free one. */
static uint32_t find_free(const struct ffv_context *ctx)
{
	const uint8_t *used = ctx->key_used, *found = NULL;
	uint32_t next = ctx->next_key;

	if (next > 0 && next < FFV_MAX_KEYS)
		found = memchr(used + next, FFV_KEY_FREE, FFV_MAX_KEYS - next);
	if (!found)
		found = memchr(used + 1, FFV_KEY_FREE, FFV_MAX_KEYS - 1);
	return (uint32_t)(found - used);
}

/* Random bits (6) | index (18) | tag (8). Unguessable enough that a stale or mistaken key is refused. A tag of 0xff is
 * not given, so that key + 1 names the same index with another tag, and is never valid. */
static uint32_t make_key(uint32_t index)
{
	uint32_t random, tag;

	do {
		random = ffv_random32();
		tag = random & 0xff;
	} while (tag == 0xff);
	return (random & 0xfc000000u) | index << 8 | tag;
}

int ffv_keytable_take(struct ffv_pd *pd, uint8_t use, uint32_t *index, uint32_t *key)
{
	struct ffv_context *ctx = pd->ctx;
	bool is_region = use == FFV_KEY_REGION;
	uint32_t *count = is_region ? &ctx->num_mr : &ctx->num_mw;
	uint32_t limit = is_region ? FFV_LIMIT_MR : FFV_LIMIT_MW;

	pthread_mutex_lock(&ctx->lock);
	if (*count >= limit) {
		pthread_mutex_unlock(&ctx->lock);
		return ffv_fail(ENOMEM, "the context has %u memory %s, the most there can be", limit,
				is_region ? "regions" : "windows");
	}
	uint32_t found = find_free(ctx);
	ctx->key_used[found] = use;
	ctx->next_key = found + 1; /* in turn, so that an index rests long before it is used again */
	(*count)++;
	pd->users++;
	pthread_mutex_unlock(&ctx->lock);
	*index = found;
	*key = make_key(found);
	return 0;
}

void ffv_keytable_give(struct ffv_pd *pd, uint32_t index)
{
	struct ffv_context *ctx = pd->ctx;
	struct ffv_key_shm *entry = ffv_keytable_entry(ctx, index);

	entry->kind = 0;
	entry->parent_index = 0;
	ffv_word_store(&ctx->extents[index].first, 0);
	ffv_word_store(&ctx->extents[index].end, 0);
	pthread_mutex_lock(&ctx->lock);
	if (ctx->key_used[index] == FFV_KEY_REGION)
		ctx->num_mr--;
	else
		ctx->num_mw--;
	ctx->key_used[index] = FFV_KEY_FREE;
	pd->users--;
	pthread_mutex_unlock(&ctx->lock);
}

int ffv_keytable_revoke(struct ffv_context *ctx, uint32_t index)
{
	struct ffv_key_shm *entry = ffv_keytable_entry(ctx, index);
	/* 0: unknown, or revoked by an attempt before this one. */
	uint32_t key = entry->kind == FFV_KEY_MR ? ffv_load_acquire(&entry->key) : 0;

	/* A window that was being bound while we revoked it is there again afterwards. */
	for (int i = 0; i < REVOKE_TRIES; i++) {
		/* [key-revoke] before the executors' epochs are read: who has not seen it is waited for. */
		ffv_store_seq_cst(&entry->key, 0);
		FFV_FAULT(mr_key_revoked);
		if (!ffv_context_quiesce_key(ctx, key, QUIESCE_NS))
			return ffv_fail(EBUSY, "an access under way does not end: a process that makes it is stopped; "
					"try again when it runs or has ended");
		if (!ffv_load_acquire(&entry->key))
			return 0;
	}
	return ffv_fail(EBUSY, "the memory window is bound again and again while it is taken away");
}

bool ffv_keytable_has_windows(struct ffv_context *ctx, uint32_t region_index)
{
	const uint8_t *used = ctx->key_used, *end = used + FFV_MAX_KEYS, *at = used;
	bool found = false;

	pthread_mutex_lock(&ctx->lock);
	uint32_t left = ctx->num_mw;
	while (left && !found && (at = memchr(at, FFV_KEY_WINDOW, (size_t)(end - at)))) {
		const struct ffv_key_shm *entry = ffv_keytable_entry(ctx, (uint32_t)(at - used));
		/* [key-publish] */
		found = ffv_load_acquire(&entry->key) && entry->parent_index == region_index;
		left--;
		at++;
	}
	pthread_mutex_unlock(&ctx->lock);
	return found;
}

/* SPDX-License-Identifier: MIT
 *
 * The owner's side of the key table: which entries are in use, and taking a key back. The entries stand in the arena
 * (struct ffv_key_shm) and are read by every executor; which index is free is known here only, so no peer can make us
 * hand one out twice. Any thread; takes context.lock.
 */
#ifndef FFV_VERBS_KEYTABLE_H
#define FFV_VERBS_KEYTABLE_H

#include "verbs/objects.h"

/* What context.key_used says of an index. */
enum { FFV_KEY_FREE = 0, FFV_KEY_REGION = 1, FFV_KEY_WINDOW = 2 };

/* Takes a free index for a region or window of pd, which it then counts as its user, and makes a key for it, which
 * is in no entry yet. -ENOMEM if the context has as many as there can be. */
int ffv_keytable_take(struct ffv_pd *pd, uint8_t use, uint32_t *index, uint32_t *key);
/* Undoes it. The key must be revoked and nobody executing with it any more. */
void ffv_keytable_give(struct ffv_pd *pd, uint32_t index);
/* Makes the entry's key invalid and waits until nobody uses it. -EBUSY (it stays revoked) if somebody does not stop:
 * then call it again. */
int ffv_keytable_revoke(struct ffv_context *ctx, uint32_t index);
/* Is a window bound to the region? */
bool ffv_keytable_has_windows(struct ffv_context *ctx, uint32_t region_index);

static inline struct ffv_key_shm *ffv_keytable_entry(const struct ffv_context *ctx, uint32_t index)
{
	return &ctx->view.arena->keys[index];
}

#endif

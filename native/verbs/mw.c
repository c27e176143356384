/* SPDX-License-Identifier: MIT
 *
 * Memory windows: an entry of the key table that work requests fill and empty. Binding is executed with the send queue
 * (engine/exec.c), invalidating also by a peer's SEND_WITH_INV; here an entry is only taken and given back.
 *
 * An unbound window's entry has its kind and protection domain, and 0 as its key.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "verbs/context.h"
#include "verbs/keytable.h"

int ffv_alloc_mw(struct ffv_pd *pd, uint32_t type, struct ffv_mw **out)
{
	int rc = ffv_context_check(pd ? pd->ctx : NULL);

	if (rc)
		return rc;
	if (type != 1 && type != 2)
		return ffv_fail(EINVAL, "there is no memory window of type %u: types are 1 and 2", type);
	struct ffv_mw *mw = calloc(1, sizeof *mw);
	if (!mw)
		return ffv_fail(ENOMEM, "out of memory for a memory window");
	rc = ffv_keytable_take(pd, FFV_KEY_WINDOW, &mw->index, &mw->rkey);
	if (rc) {
		free(mw);
		return rc;
	}
	mw->pd = pd;
	mw->type = type;
	struct ffv_key_shm *entry = ffv_keytable_entry(pd->ctx, mw->index);
	entry->pd = pd->id;
	entry->access = 0;
	entry->length_bytes = 0;
	entry->parent_index = 0;
	entry->kind = type == 1 ? FFV_KEY_MW1 : FFV_KEY_MW2;
	*out = mw;
	return 0;
}

int ffv_dealloc_mw(struct ffv_mw *mw)
{
	if (!mw)
		return ffv_fail(EINVAL, "no memory window was given");
	struct ffv_context *ctx = mw->pd->ctx;
	if (!ffv_context_check(ctx)) {
		int rc = ffv_keytable_revoke(ctx, mw->index);
		if (rc)
			return ffv_fail_context(rc, "memory window %#x cannot be deallocated", mw->rkey);
		ffv_keytable_give(mw->pd, mw->index);
	}
	free(mw);
	return 0;
}

uint32_t ffv_mw_rkey(struct ffv_mw *mw)
{
	return mw->rkey;
}

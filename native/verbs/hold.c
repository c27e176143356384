/* SPDX-License-Identifier: MIT
 *
 * See hold.h.
 */
#include "verbs/hold.h"

#include <errno.h>

#include "base/error.h"

#define MOST_HOLDS (FFV_MAX_THREADS / 2) /* threads need numbers, too */

static _Atomic uint32_t holds;

int ffv_hold_begin(struct ffv_context *by, uint64_t context_id, uint32_t qpn, bool fills, struct ffv_hold *out)
{
	bool few = ffv_fetch_add(&holds, 1u) < MOST_HOLDS;
	int number = few ? ffv_thread_number_take() : -1, rc = ffv_context_note_thread(by, number);

	if (rc) {
		ffv_fetch_sub(&holds, 1u);
		return ffv_fail(-rc, "no more than %u accesses without a thread go on at once", MOST_HOLDS);
	}
	*out = (struct ffv_hold){ &by->view.arena->threads[number], number };
	ffv_store_relaxed(&out->slot->requester, FFV_PARTY(context_id, fills ? FFV_HOLD_FILLS : FFV_HOLD_USES));
	ffv_store_relaxed(&out->slot->responder, FFV_PARTY(context_id, qpn));
	ffv_exec_enter(out->slot);
	ffv_fence_store_load(); /* [exec-epoch] the mark before every key that is read */
	return 0;
}

void ffv_hold_end(struct ffv_hold *hold)
{
	if (!hold->slot)
		return;
	ffv_exec_leave(hold->slot);
	ffv_thread_number_free(hold->number);
	ffv_fetch_sub(&holds, 1u);
	hold->slot = NULL;
}

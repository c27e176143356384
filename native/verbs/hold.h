/* SPDX-License-Identifier: MIT
 *
 * Holds: an execution that no thread stands in. A real device that moves bytes of a context's memory on behalf of ours is
 * one, so the context deregisters none of it, and takes none of its queues apart, before the hold ends; [exec-epoch].
 * Any thread. A hold is to end soon: others wait for it, seconds at most.
 */
#ifndef FFV_VERBS_HOLD_H
#define FFV_VERBS_HOLD_H

#include "verbs/context.h"

struct ffv_hold { struct ffv_thread_shm *slot; int number; }; /* slot NULL: it has ended, or never began */

/* On behalf of `by`, of what executions between us and queue pair `qpn` of that context use; fills: of what its READs bring,
 * which are not flushed before the end. What is looked up after this stays until the end. -EAGAIN if there are too many. */
int ffv_hold_begin(struct ffv_context *by, uint64_t context_id, uint32_t qpn, bool fills, struct ffv_hold *out);
void ffv_hold_end(struct ffv_hold *hold);

#endif

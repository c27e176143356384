/* SPDX-License-Identifier: MIT
 *
 * Executions that do not end, because their process is stopped: what may they be touching?
 */
#ifndef FFV_VERBS_STUCK_H
#define FFV_VERBS_STUCK_H

#include "verbs/peer.h"

/* False if the execution that `thread` (of `peer`; NULL = of this process) has been in for a while certainly does not
 * access our memory through `key`, which is revoked by now. */
bool ffv_stuck_may_use(struct ffv_context *ctx, const struct ffv_thread_shm *thread, struct ffv_peer *peer, uint32_t key);

#endif

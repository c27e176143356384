/* SPDX-License-Identifier: MIT
 *
 * Receives that a dead requester had taken from a queue of several takers (engine/rq.h), and not completed: they come
 * back to their owner as flushed. Service lock held.
 */
#ifndef FFV_VERBS_TAKEN_H
#define FFV_VERBS_TAKEN_H

#include "verbs/context.h"

/* The dead requester was connected to `qp`. */
void ffv_taken_flush(struct ffv_context *ctx, struct ffv_qp *qp, const struct ffv_qp_shm *requester);
/* Those that its datagrams and its XRC requests had taken. */
void ffv_taken_flush_named(struct ffv_context *ctx, struct ffv_peer *dead);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The service of a context: what its service thread does when the doorbell rings or a timer is due. All but the
 * callbacks are called with ctx->service held.
 */
#ifndef FFV_VERBS_ATTEND_H
#define FFV_VERBS_ATTEND_H

#include "verbs/peer.h"

void ffv_attend_doorbell(void *ctx, uint32_t events);
uint64_t ffv_attend_timer(void *ctx, uint64_t now_ns);
/* Brings a QP on: events, timers, flush, work for or from its peer. */
void ffv_attend_qp(struct ffv_context *ctx, struct ffv_qp *qp);
/* Raises what its owner wants to be told once its send queue, in SQD, is drained. Any thread. */
void ffv_qp_report_drained(struct ffv_qp *qp);
/* A peer is attached. To a proxy: it may have rung when we did not know it yet, and what waits for us is looked at now. */
void ffv_attend_new_peer(struct ffv_context *ctx, struct ffv_peer *peer);
/* A peer closed its context in order. */
void ffv_attend_peer_left(struct ffv_context *ctx, struct ffv_peer *peer);
/* Looks at everything (after a death, when bells may have been lost). */
void ffv_attend_all(struct ffv_context *ctx);

#endif

/* SPDX-License-Identifier: MIT
 *
 * What the other files of verbs/ need of XRC: domains, and serving who waits for a shared receive queue of one.
 */
#ifndef FFV_VERBS_XRCD_H
#define FFV_VERBS_XRCD_H

#include "verbs/peer.h"

/* In a fork child: closes the inherited descriptors of the domains. */
void ffv_xrcd_close_descriptors(struct ffv_context *ctx);

static inline uint32_t ffv_srq_number(const struct ffv_srq *srq)
{
	return FFV_SRQN(srq->ctx->block, srq->id);
}

/* Executes the requests that wait for this queue (a receive, or memory that only this process reaches), of whichever
 * context. Service lock held. */
void ffv_xrc_serve(struct ffv_context *ctx, struct ffv_srq *srq);
/* The same for all queues for which that has to be tried again. Service lock held. */
void ffv_srq_retry(struct ffv_context *ctx);

/* Calls visit for each XRC_SEND queue pair of the context seen by `view` that exists; stops when it returns true. */
typedef bool (*ffv_xrc_visit)(void *arg, struct ffv_qp_ref *requester);
bool ffv_xrc_each_requester(struct ffv_view *view, ffv_xrc_visit visit, void *arg);
/* The number of the SRQ that the queue pair's next request names, as far as one can tell from outside. */
static inline uint32_t ffv_xrc_named(const struct ffv_qp_ref *requester)
{
	return ffv_word_load(&ffv_qp_ref_wqe(requester, ffv_load_relaxed(&requester->shm->sq_exec))->xrc_srqn);
}

#endif

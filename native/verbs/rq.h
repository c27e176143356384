/* SPDX-License-Identifier: MIT
 *
 * The owner's side of receive queues, of a QP or shared.
 */
#ifndef FFV_VERBS_RQ_H
#define FFV_VERBS_RQ_H

#include "verbs/context.h"

/* Writes down for executors what the queue is whose ring stands at `ring_line`. */
void ffv_rq_describe(struct ffv_context *ctx, uint32_t ring_line, uint32_t max_wr, uint32_t max_sge, struct ffv_rq_shm *shm,
		     struct ffv_rq_ref *ref);
/* Private memory comes from rq->pd, if that is set, for rq->resource_type. */
int ffv_rq_create(struct ffv_context *ctx, struct ffv_rq *rq, struct ffv_rq_shm *shm, uint32_t max_wr, uint32_t max_sge);
/* The shared part is given back once no execution uses it. */
void ffv_rq_destroy(struct ffv_context *ctx, struct ffv_rq *rq);
/* Slots for so many work requests. */
uint32_t ffv_rq_slots(uint32_t max_wr);
/* Gives a shared queue room for max_wr work requests, while others take from it. -EINVAL if more are out, -EBUSY if those
 * that are have no place in any ring. May call the application's allocators: no lock may be held. */
int ffv_rq_resize(struct ffv_context *ctx, struct ffv_rq *rq, uint32_t max_wr);
/* True if the work request at this position was taken and has not been reported. Any queue of several takers. */
bool ffv_rq_is_out(struct ffv_rq *rq, uint64_t position);
/* A completion reports the work request at this position of a shared queue: false if there is none. */
bool ffv_rq_report(struct ffv_rq *rq, uint32_t position, uint64_t *wr_id);
/* Posts a list; *waiter: a sender waits for it. Fast path. */
int ffv_rq_post(struct ffv_rq *rq, struct ffv_recv_wr *wr, struct ffv_recv_wr **bad_wr, bool *waiter);
/* Empties the queue without completions (modify to RESET). Takers must have been shut out. */
void ffv_rq_reset(struct ffv_rq *rq);

/* A queue pair receives from the shared queue, and no longer does (context and service lock held). */
void ffv_srq_add_user(struct ffv_srq *srq, struct ffv_qp *qp);
void ffv_srq_remove_user(struct ffv_srq *srq, struct ffv_qp *qp);
/* A receive was posted, and a sender waits for one. */
void ffv_srq_serve_waiters(struct ffv_srq *srq);

#endif

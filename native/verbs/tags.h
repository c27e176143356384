/* SPDX-License-Identifier: MIT
 *
 * The owner's side of shared receive queues that match tags.
 */
#ifndef FFV_VERBS_TAGS_H
#define FFV_VERBS_TAGS_H

#include "verbs/context.h"

/* How many rendezvous a queue pair fetches at once: its send queue has room for as many more requests. */
#define FFV_RENDEZVOUS_AT_ONCE 16u

int ffv_tm_create(struct ffv_srq *srq, const struct ffv_srq_init_attr_ex *attr);
/* Describes the tags in the queue's shared part and its reference. */
void ffv_tm_publish(struct ffv_srq *srq);
/* In a fork child only private memory is freed. A queue without tags has none: nothing happens. */
void ffv_tm_destroy(struct ffv_srq *srq);
/* A completion of a tag or of an operation is polled: false if there is no such thing. */
bool ffv_tm_report(struct ffv_srq *srq, const struct ffv_cqe_shm *cqe, struct ffv_wc *wc);

/* rendezvous.c: fetches the data of matched rendezvous, as far as the queue pairs have room. Service lock held. */
void ffv_tm_fetch(struct ffv_context *ctx, struct ffv_srq *srq);
/* The queue pair is reset or destroyed, and nobody executes on it: what it was receiving into tags, or fetching for them,
 * ends with an error. */
void ffv_tm_leave(struct ffv_qp *qp);
/* A sender connected to this queue pair died: the tag that it had taken ends with an error. Service lock held. */
void ffv_tm_repair(struct ffv_qp *qp, const struct ffv_qp_shm *dead);

#endif

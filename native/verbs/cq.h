/* SPDX-License-Identifier: MIT
 *
 * What the other files of verbs/ need of completion queues.
 */
#ifndef FFV_VERBS_CQ_H
#define FFV_VERBS_CQ_H

#include "verbs/context.h"

/* ---- life: cq.c ---- */
/* Checks the arguments and makes the private half; NULL and *rc on failure. */
struct ffv_cq *ffv_cq_new(struct ffv_context *ctx, int64_t cqe, void *cq_context, struct ffv_comp_channel *channel,
			  int64_t comp_vector, int *rc);
/* Its memory in the arena and its number. After a failure the private half is the caller's to free. */
int ffv_cq_build(struct ffv_cq *cq, uint32_t cqe);
/* Lets everybody see it. */
void ffv_cq_publish_new(struct ffv_cq *cq);
/* Takes one completion, with what an extended queue keeps: 1, 0 if there is none, or an error. */
int ffv_cq_poll_ex(struct ffv_cq *cq, struct ffv_wc_ex *wc);

/* ---- rings: cq_ring.c ---- */
/* The ring of a new queue. */
int ffv_cq_first_ring(struct ffv_cq *cq, uint32_t cqe);
/* The ring that has `position`. Lock held. */
const struct ffv_cq_ref *ffv_cq_ring_of(const struct ffv_cq *cq, uint64_t position);
/* The same for who does not hold it. */
struct ffv_cq_ref ffv_cq_ring_at(struct ffv_cq *cq, uint64_t position);
/* head has come to ring_end. Lock held. */
void ffv_cq_enter_next_ring(struct ffv_cq *cq);
/* Gives the rings of a queue back that nobody sees any more. */
void ffv_cq_retire_rings(struct ffv_cq *cq);
/* Frees only their private descriptions. */
void ffv_cq_forget_rings(struct ffv_cq *cq);

/* ---- extended queues: cq_ex.c ---- */
/* Lets go of what an extended queue holds. */
void ffv_cq_ex_release(struct ffv_cq *cq);

/* ---- moderation: cq_moderate.c. Service lock held. ---- */
/* A completion is held back: lets the timer run; true if there is one. */
bool ffv_cq_hold(struct ffv_cq *cq);
/* Signals whose time has come; returns when the next one's will, UINT64_MAX = there is none. */
uint64_t ffv_cq_release_held(struct ffv_context *ctx, uint64_t now_ns);
/* The queue goes. */
void ffv_cq_forget_held(struct ffv_cq *cq);
/* Arms a moderated queue and returns its tail's position. */
uint64_t ffv_cq_arm_moderated(struct ffv_cq *cq, uint64_t bit);

/* ---- channels: channel.c ---- */
/* Counts an event of the CQ `id`, whose channel is to be signalled then. Runs in whichever process raises it. */
void ffv_channel_raise(struct ffv_channel_shm *channel, struct ffv_cq_shm *cq, uint32_t id);
/* A completion of our CQ `id` owes an event: count it and signal its channel. */
void ffv_cq_signal(struct ffv_context *ctx, uint32_t id);
/* Signals `owed` events that a peer counted but could not signal. */
void ffv_cq_signal_owed(struct ffv_cq *cq);
/* Signals the channel whether or not the queue was armed (after a death a signal may have been lost). */
void ffv_cq_signal_spurious(struct ffv_cq *cq);

/* ---- positions passed over: cq_late.c. Lock held where nothing else is said. ---- */
/* Nothing to poll, many times in a row: is the next position claimed by somebody who does not go on? */
void ffv_cq_look_for_stuck(struct ffv_cq *cq);
/* A position that was passed over and has been published since; UINT64_MAX: there is none. It is reported then.
 * [cq-late] Who has seen a later position published calls it before reporting that one. */
uint64_t ffv_cq_find_late(struct ffv_cq *cq);
/* Nobody will publish that position any more. Takes the lock. */
void ffv_cq_give_up_late(struct ffv_cq *cq, uint64_t position);
/* All positions that are claimed and not polled, published or not, in the order in which they are polled. */
struct ffv_cq_walk { uint32_t hole; uint64_t next, tail; };
struct ffv_cq_walk ffv_cq_begin_walk(const struct ffv_cq *cq);
/* UINT64_MAX: there are no more. */
uint64_t ffv_cq_next_unpolled(const struct ffv_cq *cq, struct ffv_cq_walk *walk);
/* The queue was armed when its tail was at `end`: true if something claimed before that is to be watched by the service
 * thread, for whoever publishes it owes no event. Takes the lock. */
bool ffv_cq_begin_watch(struct ffv_cq *cq, uint64_t end);
/* Service: looks after it; true while there is something to watch. Takes the lock. */
bool ffv_cq_watch(struct ffv_cq *cq);

/* ---- for others: cq.c ---- */
/* Removes unpolled completions of a QP's send or receive side (side: FFV_CQE_RECV or 0), as modify to RESET and destroy
 * do; receive entries of a shared queue count as completed. */
void ffv_cq_clean(struct ffv_cq *cq, struct ffv_qp *qp);
/* Drops the unpolled completions of a shared receive queue that completes here (XRC), and takes it out of the context's
 * table, so that no poll finds it any more. Service and context lock held. */
void ffv_cq_forget_srq(struct ffv_cq *cq, struct ffv_srq *srq);
/* True if an unpolled completion is the last of this tag. */
bool ffv_cq_reports_tag(struct ffv_cq *cq, const struct ffv_srq *srq, uint32_t slot);
/* True if an unpolled completion reports this position of the shared receive queue. */
bool ffv_cq_reports(struct ffv_cq *cq, const struct ffv_srq *srq, uint64_t position);
/* True if an unpolled completion reports this position of the receive queue that the queue pair `qpn` receives from. */
bool ffv_cq_reports_recv(struct ffv_cq *cq, uint32_t qpn, uint64_t position);
/* The position after the last completed one of this QP's side among the unpolled completions; `from` if there is none. */
uint64_t ffv_cq_last_completed(struct ffv_cq *cq, uint32_t qpn_side, uint64_t from);

#endif

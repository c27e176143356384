/* SPDX-License-Identifier: MIT
 *
 * What the other files of verbs/ need of queue pairs.
 */
#ifndef FFV_VERBS_QP_H
#define FFV_VERBS_QP_H

#include "base/slab.h"
#include "verbs/peer.h"

/* A link's memory. */
extern struct ffv_slab ffv_links;
/* The link to the peer's QP, opened anew if need be; NULL if the peer is not attached or has no such QP. */
struct ffv_link *ffv_qp_refresh_link(struct ffv_qp *qp);
static inline struct ffv_link *ffv_qp_link(struct ffv_qp *qp)
{
	/* [link] pairs with the release in refresh: the link is whole. */
	return ffv_load_acquire(&qp->link);
}
/* Creates a queue pair under a number of the context's block that is free, as proxies do; -ENOMEM if it is taken. */
int ffv_qp_create_as(struct ffv_pd *pd, struct ffv_xrcd *xrcd, struct ffv_qp_init_attr *attr, uint32_t qpn,
		     struct ffv_qp **out);
/* Such a queue pair has no memory of its own for the wr_ids of what is posted: before its owner posts, it lends it some, for
 * as many as can be posted at once. NULL takes it back. */
#define FFV_MOST_LENT_IDS 64u
void ffv_qp_lend_ids(struct ffv_qp *qp, uint64_t *ids);
/* Such a queue pair at rest, which no thread but the caller uses: what it knows of its peer's goes, and is looked up again
 * by the next execution. False: not now. */
bool ffv_qp_rest(struct ffv_qp *qp);
/* The opcodes (1 << enum ffv_wr_opcode) that queue pairs of a type take. */
uint32_t ffv_qp_opcodes(uint32_t type);
/* Posts all of the list, or nothing. */
int ffv_qp_post_whole(struct ffv_qp *qp, struct ffv_send_wr *wr);
/* -EOPNOTSUPP if a queue pair of this type cannot do what send_ops_flags names. */
int ffv_qp_check_ops(uint32_t type, uint64_t send_ops);
/* Gives the queue pair what extended posting needs, and takes it away. */
int ffv_qp_batch_create(struct ffv_qp *qp, uint64_t send_ops);
void ffv_qp_batch_destroy(struct ffv_qp *qp);
/* Executes the QP's own send queue. */
int ffv_qp_run(struct ffv_qp *qp);
/* Of a proxy's: waits until no thread of this process executes it, whatever its peers have written to the arena. What its owner
 * has taken from the hooks' sight before is not used any more then. */
void ffv_qp_await_run(const struct ffv_qp *qp);
/* Before the QP is reset or destroyed: a message that goes in stages and has taken a receive work request of its
 * responder's (shared) queue is broken off, so that the work request comes back there. */
void ffv_qp_give_back_taken(struct ffv_qp *qp);
/* Executes the send queue of the QP's peer, as its responder. */
int ffv_qp_serve_peer(struct ffv_qp *qp);
/* The same, or the service thread does it: a thread without a number cannot execute. */
void ffv_qp_serve_or_ask(struct ffv_qp *qp);
/* UD: executes the datagram queues of peers that wait for this process. */
void ffv_qp_serve_datagrams(struct ffv_context *ctx);

/* Removes its unpolled completions; an XRC_RECV queue pair has none, they are the shared queues'. */
void ffv_qp_clean_cqs(struct ffv_qp *qp);
/* Completes what is posted with flush errors. False: not now (a stopped peer); try again. */
bool ffv_qp_flush_receives(struct ffv_qp *qp);

/* Transition table: 0 if `mask` is right for the transition of a QP of `type`, else -EINVAL and a text. */
int ffv_qp_check_transition(uint32_t type, uint32_t from, uint32_t to, uint32_t mask);
const char *ffv_qp_state_name(uint32_t state);

#endif

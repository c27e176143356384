/* SPDX-License-Identifier: MIT
 *
 * One run of the executor over one send queue: what its files share (exec.c runs, lists.c resolves, stage.c moves,
 * operations.c, datagram.c, tags.c and xrc.c do, complete.c completes, ends.c ends). Private to the executor; see exec.h for its rules.
 *
 * A work request passes a chain of small checks, each of which gives a verdict; one table says what a verdict means
 * for the requester and the responder (IBA 9.9, 10.10 and 11.6.2).
 */
#ifndef FFV_ENGINE_RUN_H
#define FFV_ENGINE_RUN_H

#include "engine/exec.h"

#define FFV_RUN_SIGNALS 8u
#define FFV_GRH_BYTES 40u

enum verdict {
	OK = 0,
	/* the work request stays at the head of its queue */
	NO_RECEIVE,             /* responder has no receive work request */
	NOT_READY,              /* responder unknown or not ready to receive */
	FOR_RESPONDER,          /* memory that only the responder's process reaches */
	FOR_REQUESTER,
	HOLD,                   /* the queue is not to be executed now */
	MORE,                   /* of a proxy: the rest of the message has not come yet */
	ENDED_FAR_AWAY,         /* another host did all of it: only the requester's part is left */
	/* the work request ends */
	FLUSHED, LOCAL_LENGTH, LOCAL_PROTECTION, LOCAL_OPERATION, BIND_FAILED,
	REMOTE_ACCESS, REMOTE_INVALID, RECEIVE_LENGTH, RECEIVE_PROTECTION, REMOTE_INVALIDATE,
	RNR_EXCEEDED, RETRY_EXCEEDED,
};

struct meaning {
	uint8_t requester;      /* completion status there */
	uint8_t responder;      /* completion status of its receive work request, 0 = none */
	int8_t event;           /* async event of the responder, -1 = none */
};

extern const struct meaning ffv_run_meanings[];

enum tagged { TAGGED_NOT = 0, TAGGED_MATCH, TAGGED_RENDEZVOUS, TAGGED_UNEXPECTED, TAGGED_NO_TAG };

struct signal { struct ffv_view *view; uint32_t cq; };

/* One run over one send queue. */
struct run {
	const struct ffv_exec_env *env;
	struct ffv_qp_ref *req;
	struct ffv_qp_ref *peer;      /* the one connected to, whatever its state; NULL: not known */
	struct ffv_qp_ref *resp;      /* the one acted upon; NULL: not known or not ready */
	struct ffv_qp_ref found;      /* UD: the one addressed; XRC: `peer` with the queues of the SRQ addressed */
	uint64_t position;
	uint64_t tail;
	uint32_t length;              /* of this message: read once, for its owner could change it under the checks */
	struct ffv_claim send_claim;
	struct ffv_claim recv_claim;
	bool have_rwqe;
	bool stream;                  /* `local` holds what has come of the message, from byte stream_from on */
	uint32_t stream_from;
	uint32_t stream_header;       /* bytes before what is delivered */
	enum tagged tagged;           /* what the message is to a tag-matching queue */
	struct ffv_rwqe rwqe;
	struct ffv_list local;
	struct ffv_list remote;
	const struct ffv_qp_ref *next; /* whose owner has to go on, NULL = nobody in particular */
	uint32_t num_signals;
	struct signal signals[FFV_RUN_SIGNALS];
};

static inline bool is_connected(const struct run *run)
{
	return ffv_type_is_connected(run->req->type);
}

static inline bool is_xrc(const struct run *run)
{
	return run->req->type == FFV_QPT_XRC_SEND;
}

/* Its responder acknowledges: errors there are told, and what finds no receive waits. */
static inline bool is_reliable(const struct run *run)
{
	return run->req->type == FFV_QPT_RC || is_xrc(run);
}

static inline bool is_send(uint8_t opcode)
{
	return opcode == FFV_WR_SEND || opcode == FFV_WR_SEND_WITH_IMM || opcode == FFV_WR_SEND_WITH_INV;
}

static inline bool takes_receive(uint8_t opcode)
{
	return is_send(opcode) || opcode == FFV_WR_RDMA_WRITE_WITH_IMM;
}

static inline void count(_Atomic uint64_t *counter, uint64_t n)
{
	/* Written under exec_lock only; readers want a figure, not an order. */
	ffv_store_relaxed(counter, ffv_load_relaxed(counter) + n);
}

/* A proxy is told whose work request it is that waits for it, for it need not have the queue pair that is meant. */
static inline void ffv_run_attention_proxy(const struct run *run, struct ffv_view *proxy)
{
	run->env->face->attention(run->env->arg, proxy, FFV_ATTENTION_QP + run->req->qpn % FFV_MAX_QP);
}

static inline void ffv_run_attention_qp(const struct run *run, const struct ffv_qp_ref *ref)
{
	run->env->face->attention(run->env->arg, ref->view,
				  FFV_ATTENTION_QP + (ref->qpn - ref->view->arena->qpn_first) % FFV_MAX_QP);
}

static inline bool is_ready_to_receive(const struct ffv_qp_ref *req, const struct ffv_qp_ref *resp)
{
	uint32_t state = ffv_load_acquire(&resp->shm->state);

	return ffv_qp_ref_is_current(resp) && state >= FFV_QPS_RTR && state <= FFV_QPS_SQE &&
	       resp->type == req->type + (req->type == FFV_QPT_XRC_SEND) /* to XRC_RECV */ &&
	       (resp->type == FFV_QPT_UD || ffv_load_relaxed(&resp->shm->dest_qpn) == req->qpn);
}

/* Its work requests are carried out; in SQD that is the one that had begun before (IBA 10.3.1.5). */
static inline bool is_executing(const struct ffv_qp_shm *qp, uint32_t state)
{
	return state == FFV_QPS_RTS || (state == FFV_QPS_SQD && ffv_load_relaxed(&qp->draining));
}

/* The responder's owner may have changed its state since the run began. Whatever this execution still does is over before
 * the owner touches the queues: it waits for the epoch; [exec-epoch]. */
static inline bool is_still_ready(const struct run *run)
{
	uint32_t state = ffv_load_acquire(&run->resp->shm->state);

	return ffv_likely(state == FFV_QPS_RTS) || (state >= FFV_QPS_RTR && state <= FFV_QPS_SQE);
}

/* ---- complete.c ---- */
/* Where what is claimed in that context is named; NULL: what dies with its own context needs no repair. */
static inline struct ffv_thread_shm *ffv_run_journal(const struct ffv_exec_env *env, const struct ffv_view *view)
{
	return view->own ? NULL : env->thread;
}

bool ffv_run_claim_more(struct run *run, struct ffv_claim *claim, struct ffv_view *view, bool receive);
void ffv_run_end_claim(struct run *run, struct ffv_claim *claim, struct ffv_view *view);

/* Makes sure that the claim has a position to write to. False: the queue overran. */
__attribute__((always_inline))
static inline bool ffv_run_claim(struct run *run, struct ffv_claim *claim, struct ffv_view *view, bool receive)
{
	if (claim->next != claim->end)
		return true;
	if (ffv_likely(run->position + 1 == run->tail) &&
	    ffv_likely(ffv_cq_claim_one(claim, view, ffv_run_journal(run->env, view))))
		return true;
	return ffv_run_claim_more(run, claim, view, receive);
}

static inline void ffv_run_finish_claim(struct run *run, struct ffv_claim *claim, struct ffv_view *view)
{
	if (ffv_unlikely(claim->next < claim->end || claim->signal))
		ffv_run_end_claim(run, claim, view);
}

void ffv_run_complete_send(struct run *run, const struct ffv_wqe_shm *wqe, uint32_t status);
bool ffv_run_complete_recv(struct run *run, const struct ffv_wqe_shm *wqe);

/* ---- pace.c ---- */
/* Of a paced queue: whether the next message may go now; else the timer is set. */
bool ffv_run_may_begin(struct run *run);
/* A message of a paced queue has gone. */
void ffv_run_pay(struct run *run);

/* ---- counters.c ---- */
static inline bool ffv_is_counted(const struct ffv_qp_ref *ref)
{
	return ffv_unlikely(ffv_load_relaxed(&ref->shm->counted) != 0);
}

/* A work request ended with this status; done: the responder did its part. */
void ffv_run_count(struct run *run, const struct ffv_wqe_shm *wqe, uint32_t status, bool done);
void ffv_count_recv(const struct ffv_qp_ref *ref, bool ok);

/* ---- lists.c ---- */
void ffv_run_save_taken(struct ffv_qp_shm *qp, const struct ffv_rwqe *rwqe);
/* The next receive work request, copied into run->rwqe. */
enum verdict ffv_run_take_receive(struct run *run);
/* True if `tail`, read from the responder's receive queue, says that there is one. */
bool ffv_run_receive_waits(const struct run *run, uint64_t tail);
/* Resolves the receive work request's scatter list into run->remote, for `length` bytes. */
enum verdict ffv_run_scatter(struct run *run, uint64_t length);
/* Resolves the requester's own list into run->local. */
enum verdict ffv_run_gather(struct run *run, const struct ffv_wqe_shm *wqe, uint32_t access);
/* The remote side of WRITE, READ and atomics, resolved into run->remote. */
enum verdict ffv_run_target(struct run *run, const struct ffv_wqe_shm *wqe, uint32_t length, uint32_t access);

/* ---- stage.c ---- */
bool ffv_run_stage_list(struct run *run, struct ffv_list *list, uint32_t length);
enum verdict ffv_run_stage_chunk(struct run *run, const struct ffv_list *list, bool into_stage, uint32_t length,
				 enum verdict fault);
bool ffv_run_needs_stage(const struct run *run);
bool ffv_run_is_mirrored(const struct ffv_list *list);
enum verdict ffv_run_copy_fault(enum ffv_copy_result result, bool to_remote, bool receive);
/* Moves the message between run->local and run->remote, or as much of it as this process can. */
enum verdict ffv_run_move(struct run *run, bool to_remote, uint32_t length, bool receive);

/* ---- operations.c ---- */
enum verdict ffv_run_local_inv(struct run *run, const struct ffv_wqe_shm *wqe);
enum verdict ffv_run_bind_mw(struct run *run, const struct ffv_wqe_shm *wqe);
enum verdict ffv_run_execute(struct run *run, struct ffv_wqe_shm *wqe);

/* ---- datagram.c ---- */
enum verdict ffv_run_datagram(struct run *run, const struct ffv_wqe_shm *wqe);

/* ---- broadcast.c ---- */
/* Raw packets and datagrams to a multicast group: what goes to everybody on the segment. */
enum verdict ffv_run_broadcast(struct run *run, const struct ffv_wqe_shm *wqe);
/* ---- tags.c ---- */
/* A send to a tag-matching queue. */
enum verdict ffv_run_tagged(struct run *run, const struct ffv_wqe_shm *wqe);
void ffv_run_fill_tagged(const struct run *run, struct ffv_cqe_shm *cqe, struct ffv_cqe_ext_shm *ext);
void ffv_run_forget_tagged(struct run *run);
void ffv_run_hand_rendezvous(struct run *run);
/* Completes the tag that the failed message had taken; false if it had none. */
bool ffv_run_fail_tag(struct run *run, uint32_t status);
void ffv_run_flush_tagged(struct run *run, const struct ffv_qp_ref *to);
void ffv_run_complete_rendezvous(struct run *run, const struct ffv_wqe_shm *wqe, uint32_t status);

/* ---- xrc.c ---- */
/* Opens in run->found what the work request names; false if there is no such queue. */
bool ffv_run_find_srq(struct run *run, const struct ffv_wqe_shm *wqe);
enum verdict ffv_run_xrc(struct run *run, struct ffv_wqe_shm *wqe);
/* ---- proxy.c ---- */
/* A work request for a proxy: what the other host answered, or FOR_RESPONDER. */
enum verdict ffv_run_far_away(struct run *run, struct ffv_wqe_shm *wqe);
/* Whether a proxy's owner, or its device, may still write what the READ asked for: then it cannot be flushed now, and the
 * owner is asked to go on. */
bool ffv_run_is_filled(struct run *run, const struct ffv_wqe_shm *wqe);
/* The same for a datagram, whose gather list is resolved: it is handed over whole. */
enum verdict ffv_run_datagram_away(struct run *run, const struct ffv_wqe_shm *wqe);
/* The list of a work request of a proxy's: bytes that its owner holds. */
enum verdict ffv_run_gather_proxied(struct run *run);
/* Delivers what has come of a message that comes in pieces. */
enum verdict ffv_run_move_stream(struct run *run, uint32_t length, bool receive);
/* OK if the first bytes of the message are there; else it waits for them. */
enum verdict ffv_run_await_header(struct run *run, uint32_t bytes);

/* ---- operations.c ---- */
/* The original value of an atomic goes to the requester's list. */
enum verdict ffv_run_deliver_original(struct run *run, struct ffv_wqe_shm *wqe, uint64_t original);

/* ---- ends.c ---- */
void ffv_run_flush_taken(struct run *run, const struct ffv_qp_ref *to);
void ffv_run_end(struct run *run, const struct ffv_wqe_shm *wqe, enum verdict verdict);
/* The one that a queue in SQD still had to end: it is drained then. */
void ffv_run_end_drained(struct run *run, const struct ffv_wqe_shm *wqe, enum verdict verdict);
/* The queue is blocked, and its owner looks at it again when that time has come. */
void ffv_run_wait_until(struct run *run, uint32_t reason, uint64_t deadline_ns);
/* What becomes of a work request that cannot end now: OK, HOLD, NO_RECEIVE (look again), or a verdict that ends it. */
enum verdict ffv_run_stand_still(struct run *run, enum verdict verdict);

#endif

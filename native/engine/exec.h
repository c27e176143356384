/* SPDX-License-Identifier: MIT
 *
 * The executor: runs the work requests of one send queue against the responder's memory and queues (DESIGN D4).
 *
 * Runs in whichever process gets there first: the requester's when it posts, the responder's when it posts a receive or
 * becomes ready, a service thread when a timer is due or when only that process reaches the memory. It has no
 * process-private state of its own: everything it needs comes with the two references and the environment, everything
 * it leaves behind stands in shared memory.
 *
 * Threading: any thread. Whoever holds the requester's exec_lock executes; whoever finds it held leaves a mark
 * (FFV_EXEC_AGAIN) and goes, so nobody ever waits for a stopped executor. Trust: both arenas may lie.
 */
#ifndef FFV_ENGINE_EXEC_H
#define FFV_ENGINE_EXEC_H

#include "engine/copy.h"
#include "engine/cq.h"
#include "engine/rq.h"

struct ffv_proxy_hooks;

/* What the executor asks of the layer above. None of them may call the executor. */
struct ffv_exec_face {
	/* Completion queue `cq` of `view` gained a completion its owner asked an event for. Called without locks. */
	void (*signal)(void *arg, struct ffv_view *view, uint32_t cq);
	/* The owner of `view` must look at an object (FFV_ATTENTION_*). May be called with locks held; never blocks. */
	void (*attention)(void *arg, struct ffv_view *view, uint32_t bit);
	/* UD: whom does the work request address? False = nobody we know. `out` stays valid for this run. For a context of
	 * another host only out->view is set, to its proxy's. */
	bool (*find)(void *arg, const struct ffv_qp_ref *requester, const struct ffv_wqe_ud_shm *address,
		     struct ffv_qp_ref *out);
	/* Puts a frame on the segment for the executing process's own QP, and tells whoever may want it; frame->sgid is still
	 * to be filled in. May be called with locks held; never blocks. False: the context is not on the segment. */
	bool (*broadcast)(void *arg, struct ffv_frame_shm *frame, uint8_t sgid_index, const uint8_t *bytes);
	/* XRC: the context of that block of numbers under `gid`, NULL = nobody we know. Stays valid for this run. */
	struct ffv_view *(*find_context)(void *arg, const uint8_t gid[16], uint32_t block);
	/* Whether the owner of `view` is still there: what its threads' marks say is true. */
	bool (*is_there)(void *arg, const struct ffv_view *view);
	/* Gives the requester's QP (of the executing process) a staging buffer. False: no memory. */
	bool (*stage)(void *arg, struct ffv_qp_ref *requester);
	/* What the owner of a proxy of this process provides (engine/proxy.h); NULL if the executing context is none. */
	const struct ffv_proxy_hooks *(*proxy)(void *arg);
};

struct ffv_exec_env {
	const struct ffv_exec_face *face;
	void *arg;
	struct ffv_thread_shm *thread; /* the executing thread's slot in its own context's arena */
	uint64_t holder;               /* FFV_EXEC_HOLDER of context and slot */
};

/* Executes what can be executed now. responder: NULL if the peer is not known (yet); ignored for UD. */
void ffv_exec_run(const struct ffv_exec_env *env, struct ffv_qp_ref *requester, struct ffv_qp_ref *responder);

/* Marks the thread as executing / done; [exec-epoch]. The locked operation that follows entering (the exec_lock's CAS)
 * orders the mark before every key that is read. */
static inline void ffv_exec_enter(struct ffv_thread_shm *thread)
{
	/* release: the parties before it. */
	ffv_store_release(&thread->epoch, ffv_load_relaxed(&thread->epoch) + 1);
}

static inline void ffv_exec_leave(struct ffv_thread_shm *thread)
{
	ffv_store_release(&thread->epoch, ffv_load_relaxed(&thread->epoch) + 1);
}

/* Puts a QP into the error state unless it is there or reset; true if this call did it. */
bool ffv_exec_set_error(struct ffv_qp_shm *qp, uint32_t status);
/* Completes the receive side of `ref` with an error or flush status: one entry, position `position`. */
bool ffv_exec_complete_recv(const struct ffv_exec_env *env, const struct ffv_qp_ref *ref, uint64_t position,
			    uint32_t status, struct ffv_claim *claim);
/* What came to this process's port for one of its queue pairs, as the receiver has checked it. */
struct ffv_arrival {
	const struct ffv_grh *grh;    /* goes before the bytes; NULL = none */
	const uint8_t *bytes;
	uint32_t length_bytes;
	uint32_t imm_be;
	uint32_t src_qp;
	uint8_t wc_flags;             /* enum ffv_wc_flags */
	uint8_t sl;
	bool solicited;
};

/* Receives it on `to`, a queue pair of the executing process's own context. False if it is lost: `to` does not receive
 * now, or has no receive work request. */
bool ffv_exec_deliver(const struct ffv_exec_env *env, struct ffv_qp_ref *to, const struct ffv_arrival *arrival);
/* The header that a datagram's receive buffer begins with; flow_tclass: flow label << 8 | traffic class. */
void ffv_exec_fill_grh(struct ffv_grh *grh, const uint8_t sgid[16], const uint8_t dgid[16], uint32_t flow_tclass,
		       uint8_t hop_limit, uint32_t length);
/* The claim that it completes with: one entry in the receive completion queue of `ref`. False: that overran. */
bool ffv_exec_claim_recv(const struct ffv_exec_env *env, const struct ffv_qp_ref *ref, struct ffv_claim *claim);
/* Completes a tag of the queue that `ref` receives through with an error. */
bool ffv_exec_complete_tag(const struct ffv_exec_env *env, const struct ffv_qp_ref *ref, uint32_t slot, uint32_t status,
			   struct ffv_claim *claim);
/* Time a sender waits after "receiver not ready", in ns, from its 5-bit code (IBA table 46). */
uint64_t ffv_exec_rnr_ns(uint8_t code);

#endif

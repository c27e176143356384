/* SPDX-License-Identifier: MIT
 *
 * Proxies: contexts that stand in for those of another host (docs/decisions/0021). The router of a host owns them; for a
 * container a proxy is a peer like any other, but its work requests for a proxy are not executed: they wait in their send
 * queue (FFV_BLOCKED_RESPONDER) until the proxy's owner has pulled them, has had them done far away, and knows the
 * answer. What comes from far away is posted on the proxy's queue pairs, and their payload is asked of the owner.
 *
 * Threading: the hooks are called by whichever thread of the owner's process executes, with a send queue locked; they
 * never block and never call the executor. Pulling: any thread of the owner's. Trust: the container's arena may lie.
 */
#ifndef FFV_ENGINE_PROXY_H
#define FFV_ENGINE_PROXY_H

#include "engine/exec.h"

struct ffv_answer {
	uint32_t status;              /* enum ffv_wc_status */
	uint64_t original;            /* of an atomic */
};

/* How much of a message a proxy's owner has. */
enum { FFV_BYTES_NONE = 0, FFV_BYTES_ALL = 1, FFV_BYTES_SOME = 2 };

struct ffv_proxy_hooks {
	void *arg;
	/* Is there an answer to the work request at `position` of a container's queue pair? tail: what it has posted. */
	bool (*answer)(void *arg, const struct ffv_qp_ref *requester, uint64_t position, uint64_t tail,
		       struct ffv_answer *out);
	/* A container's datagram, `local` its payload: copied, or lost. */
	void (*datagram)(void *arg, const struct ffv_qp_ref *requester, const struct ffv_wqe_shm *wqe,
			 struct ffv_list *local, uint32_t length);
	/* The memory of the work request at `position` of the proxy's own queue pair: ALL of it, or SOME: what has come from
	 * byte `from` on (perhaps nothing). It stays valid until the work request is completed (ALL) or `more` is called. */
	int (*bytes)(void *arg, uint32_t qpn, uint64_t position, uint32_t from, struct ffv_list *out);
	/* Of a message of which SOME is there, and all of that before byte `from` is delivered: what is just coming from there
	 * on is put straight to `to` (of a READ: is taken from there). How many bytes, 0 = none now, or they will come by
	 * `bytes`. */
	uint32_t (*fetch)(void *arg, uint32_t qpn, uint64_t position, uint32_t from, const struct iovec *to, int count);
	/* All that was there has been delivered, up to byte `from`: its receiver is ready for more. rest: where that goes
	 * (NULL: not known yet), checked, and good as long as the executor's mark stands. */
	void (*more)(void *arg, uint32_t qpn, uint64_t position, uint32_t from, const struct ffv_rest *rest);
	/* Of the service: the proxy's queue pair was looked after; its send queue may be waiting for its receiver. */
	void (*attended)(void *arg, uint32_t qpn);
	/* Of the service: a container has broadcast something on the segment that the proxy is on. NULL: it is on none. */
	void (*broadcast)(void *arg, const struct ffv_frame_shm *frame, const uint8_t *bytes);
	/* Of the service: a container's queue pair may want something of the proxy; a peer of the proxy's is gone. */
	void (*wanted)(void *arg, const uint8_t gid[16], uint32_t qpn);
	void (*peer_gone)(void *arg, const uint8_t gid[16], uint32_t qpn_first, bool died);
};

/* A work request of a container's, copied; `list` is where its payload stands (or is to go). */
struct ffv_pulled {
	uint8_t opcode;
	uint8_t flags;
	uint32_t imm_be;
	uint32_t length_bytes;
	struct ffv_wqe_rdma_shm rdma;
	uint32_t xrc_srqn;
	struct ffv_list list;
};

enum ffv_pull {
	FFV_PULL_DONE = 0,
	FFV_PULL_LATER = 1,           /* no such work request to be done now: reset, in error, executed meanwhile */
	FFV_PULL_LOCAL = 2,           /* one that its owner executes by itself when its turn comes */
	FFV_PULL_FAILED = 3,          /* it breaks a rule: *status */
	FFV_PULL_UNREACHABLE = 4,     /* its memory is not reached from here */
};

/* As ffv_qp_ref_open: the container gives the queue pair's memory to no other one meanwhile; [exec-epoch]. */
int ffv_pull_open(const struct ffv_exec_env *env, struct ffv_view *view, uint32_t qpn, struct ffv_qp_ref *ref);
/* Between begin and end the container deregisters no memory that its queue pair names; [exec-epoch]. */
void ffv_pull_begin(const struct ffv_exec_env *env, const struct ffv_qp_ref *requester);
void ffv_pull_end(const struct ffv_exec_env *env);
/* Looks at the work request at `position`. Between begin and end. */
enum ffv_pull ffv_pull_look(struct ffv_qp_ref *requester, uint64_t position, struct ffv_pulled *out, uint32_t *status);
/* Where bytes [offset, offset + length) of its payload are in this process (ffv_list_here). Between begin and end. */
int ffv_pull_here(const struct ffv_list *list, uint32_t offset, uint32_t length, struct iovec *pieces, int most);
/* The same, and of which registrations it is (ffv_rest_places). */
int ffv_pull_places(const struct ffv_qp_ref *requester, uint64_t position, const struct ffv_pulled *wr, uint32_t offset,
		    uint32_t length, struct ffv_place *places, int most);
/* Copies bytes [offset, offset + length) of its payload to `to`; put: to it, from `bytes`. Between begin and end. */
enum ffv_pull ffv_pull_copy(struct ffv_list *list, uint32_t offset, uint32_t length, void *to);
enum ffv_pull ffv_pull_put(struct ffv_list *list, uint32_t offset, uint32_t length, const void *bytes);

#endif

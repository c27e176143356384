/* SPDX-License-Identifier: MIT
 *
 * Fault points: named places where a test lets the process die or stop. They exist only in builds with
 * -DFFV_FAULTS=1 (meson option `faults`); elsewhere FFV_FAULT() is nothing at all.
 *
 * FFVERBS_FAULT=NAME:COUNT:ACTION in the environment, or ffv_fault_arm(), makes the COUNT-th passage (from 1) of point
 * NAME perform ACTION: `kill` (SIGKILL to itself), `stop` (SIGSTOP to itself).
 */
#ifndef FFV_BASE_FAULT_H
#define FFV_BASE_FAULT_H

/* One line a point: the identifier, and what is half done there. Tests walk this list. */
#define FFV_FAULT_POINTS(X) \
	X(exec_locked, "send queue locked for execution, nothing done yet") \
	X(exec_before_copy, "receive work request chosen, payload not copied") \
	X(exec_mid_copy, "payload half copied") \
	X(exec_after_copy, "payload copied, no completion yet") \
	X(exec_rq_taken, "shared receive work request taken, not yet recorded as done") \
	X(exec_tag_taken, "tag taken, not yet recorded as done") \
	X(exec_tag_counted, "message counted as unexpected, not yet recorded as done") \
	X(exec_cq_claimed, "completion position claimed, entry not written") \
	X(exec_cq_written, "completion entry written, not published") \
	X(exec_cq_published, "receive completion published, send side not") \
	X(exec_before_advance, "all completions published, send queue position not advanced") \
	X(exec_before_unlock, "batch done, send queue still locked") \
	X(exec_before_signal, "unlocked, event not signalled") \
	X(exec_staged, "chunk staged for the other side, not handed over") \
	X(outbox_written, "frame written for the segment, not published") \
	X(outbox_published, "frame published on the segment, nobody told") \
	X(post_send_written, "work request written, not published") \
	X(post_recv_written, "receive work request written, not published") \
	X(post_recv_published, "receive work request published, waiting sender not served") \
	X(srq_resize, "shared receive queue copied to its new place, the place not published") \
	X(qp_modify_rtr, "queue pair attached to its peer, state not yet RTR") \
	X(qp_destroy, "queue pair marked destroyed, memory not freed") \
	X(mr_key_published, "key published, caller not told") \
	X(mr_key_revoked, "key revoked, memory not yet private again") \
	X(dir_bound, "name bound in the node directory, not listening") \
	X(attach_sent, "hello sent, answer not read") \
	X(attach_accepted, "hello read, not answered") \
	X(cm_claimed, "address claimed by a listener, not served yet") \
	X(cm_req_unsent, "connected to a listener, request not sent") \
	X(cm_req_sent, "connect request sent, caller not told") \
	X(cm_req_received, "connect request read, program not told") \
	X(cm_req_posted, "program told of the connect request, it has not answered") \
	X(cm_rep_unsent, "accepted, queue pair ready, answer not sent") \
	X(cm_rep_sent, "answer sent, caller not told") \
	X(cm_rep_received, "answer read, program not told") \
	X(cm_rej_unsent, "refused, answer not sent") \
	X(cm_rtu_unsent, "active queue pair ready, peer not told") \
	X(cm_rtu_sent, "peer told, program not") \
	X(cm_dreq_unsent, "queue pair in error, peer not told of the end") \
	X(cm_dreq_sent, "peer told of the end, nothing heard of it") \
	X(cm_dreq_received, "the peer's end read, program not told")

enum ffv_fault_point {
#define FFV_FAULT_ENUM(name, what) FFV_FAULT_##name,
	FFV_FAULT_POINTS(FFV_FAULT_ENUM)
#undef FFV_FAULT_ENUM
	FFV_FAULT_COUNT
};

#if FFV_FAULTS
const char *ffv_fault_name(enum ffv_fault_point point);
/* "NAME:COUNT:ACTION"; -EINVAL and a text if it is not that. */
int ffv_fault_arm(const char *spec);
void ffv_fault_hit(enum ffv_fault_point point);
#define FFV_FAULT(name) ffv_fault_hit(FFV_FAULT_##name)
#else
#define FFV_FAULT(name) ((void)0)
#endif

#endif

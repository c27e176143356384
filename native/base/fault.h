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
	X(exec_rq_named, "shared receive work request named, not yet taken") \
	X(exec_rq_taken, "shared receive work request taken, not yet recorded as done") \
	X(exec_tag_taken, "tag taken, not yet recorded as done") \
	X(exec_tag_counted, "message counted as unexpected, not yet recorded as done") \
	X(exec_cq_claimed, "completion position claimed, entry not written") \
	X(exec_cq_written, "completion entry written, not published") \
	X(exec_cq_published, "receive completion published, send side not") \
	X(exec_before_advance, "all completions published, send queue position not advanced") \
	X(exec_before_unlock, "batch done, send queue still locked") \
	X(exec_before_signal, "unlocked, event not signalled") \
	X(poll_looked, "head of the completion queue looked at, positions passed over not yet") \
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
	X(cm_dreq_received, "the peer's end read, program not told") \
	X(rs_datagrams_made, "datagram socket made, nobody is told of it yet") \
	X(rs_datagrams_bound, "datagram socket told of, caller not") \
	X(rs_datagrams_open, "datagram socket about to be closed") \
	X(rs_datagrams_closed, "datagram socket told of no longer, its queue pair still there") \
	X(rs_datagram_unsent, "datagram written, not posted") \
	X(rs_datagram_sent, "datagram posted, caller not told") \
	X(rs_datagram_copied, "datagram given to the program, its room not posted again") \
	X(rs_route_unasked, "address of a datagram found, its socket not asked for") \
	X(rs_route_answered, "the number of a datagram socket answered, not noted") \
	X(rs_question_read, "asked for a datagram socket, not answered") \
	X(rs_question_answered, "datagram socket named to who asked") \
	X(rs_connect_unasked, "stream made, connection not asked for") \
	X(rs_connect_asked, "connection asked for, answer not looked at") \
	X(rs_connect_answered, "answer read, socket not connected yet") \
	X(rs_accept_made, "request read and stream made, not accepted") \
	X(rs_accept_said, "request accepted, connection in no queue") \
	X(rs_accept_queued, "connection waits to be accepted, nobody told") \
	X(rs_accept_taken, "connection accepted, without a number") \
	X(rs_send_staged, "data copied, not written to the peer") \
	X(rs_send_written, "data written to the peer, not counted as sent") \
	X(rs_receive_copied, "data copied out, not counted as read") \
	X(rs_receive_uncredited, "data read, its room not given back") \
	X(rs_receive_credited, "room given back, not counted so") \
	X(rs_shut_unsaid, "shut down for writing, peer not told") \
	X(rs_shut_said, "peer told of the end, caller not") \
	X(rs_close_unsaid, "number given up, peer not told of the end") \
	X(rs_close_said, "peer told of the end, connection not given back") \
	X(rs_mark_unsaid, "mark to be sent, peer not told") \
	X(rs_mark_said, "mark sent, not counted") \
	X(pre_stream_asked, "stream asked for, its TCP connection does not know it") \
	X(pre_stream_attached, "TCP connection has its stream, neither direction uses it") \
	X(pre_sending_begun, "sending goes by the stream, nothing sent yet") \
	X(pre_leave_marked, "stream left, peer not told by TCP") \
	X(pre_leave_told, "peer told by TCP that the stream is left, has not answered") \
	X(pre_leave_answered, "both have left the stream, its rest not copied") \
	X(pre_answer_read, "the peer has left the stream, this end not") \
	X(pre_answer_said, "both have left the stream, the program does not know") \
	X(pre_exec_prepared, "rest written for the next program, which is not there yet") \
	X(pre_retired, "nobody uses the stream, it is not given back") \
	X(wire_channel_made, "connected to another router, the data plane does not know it") \
	X(wire_channel_broken, "channel closed for good, its proxies still there") \
	X(wire_link_lost, "connection of a channel lost, the control plane not told") \
	X(wire_link_found, "another connection is there for a channel, not taken up") \
	X(wire_link_resumed, "channel goes on over another connection, nothing sent again") \
	X(wire_half_sent, "half of what waited in a channel has left") \
	X(wire_request_framed, "work request copied into a frame, its queue held, nothing noted") \
	X(wire_stream_framed, "piece of a large message copied into a frame, its memory held") \
	X(wire_ack_taken, "answer taken, the container's queue not told") \
	X(wire_result_placed, "piece of a READ received to where it belongs, its memory held") \
	X(wire_request_taken, "request of another host taken in, not posted") \
	X(wire_request_posted, "request recorded, not in the proxy's queue") \
	X(wire_body_placed, "piece of a large message received to where it belongs, not counted") \
	X(wire_credit_given, "credit for a large message written, nothing noted of it") \
	X(wire_grant_made, "memory registered for a device of another host, which is not told where") \
	X(wire_grant_placed, "a device of another host has moved bytes, nobody has looked at them") \
	X(wire_grant_over, "no device of another host is to move anything any more, memory still held and registered") \
	X(wire_transfer_begun, "a device has bytes to write, nothing noted of it") \
	X(wire_fetch_begun, "a device has bytes of a READ to fetch, nothing noted of it") \
	X(wire_transfer_done, "a device is done, the other host not told") \
	X(wire_transfer_told, "the other host told what a device has moved, memory still held and registered") \
	X(wire_read_answered, "piece of a READ read, not in a frame") \
	X(wire_delivered, "request executed, not answered") \
	X(wire_proxy_claimed, "another host speaks for an address, nobody asked whose it is") \
	X(wire_speaker_claimed, "something said in the name of an address waits, nobody asked whose it is") \
	X(wire_proxy_bound, "proxy in the node directory, nothing noted of it") \
	X(wire_proxy_emptied, "nothing left of a proxy but its name in the node directory") \
	X(wire_pair_attached, "proxy's queue pair attached to the container's, not ready") \
	X(wire_pair_destroyed, "proxy's queue pair destroyed, its peer still referred to") \
	X(wire_datagram_framed, "datagram of a container copied, its queue held, not in the channel") \
	X(wire_datagram_posted, "datagram of another host posted, not counted") \
	X(wire_group_framed, "multicast datagram of a container copied, no other host has it") \
	X(wire_group_taken, "multicast datagram of another host taken, not on the segment") \
	X(wire_call_begun, "conversation begun in a frame, not noted") \
	X(wire_call_answered, "connected to a listener for another host, its first packet not passed on") \
	X(wire_call_passed, "packet of a conversation read, not in a frame") \
	X(wire_call_over, "end of a conversation in a frame, its connection not closed")

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
/* The next passage of the point performs its action. */
int ffv_fault_is_due(enum ffv_fault_point point);
#define FFV_FAULT(name) ffv_fault_hit(FFV_FAULT_##name)
/* `bytes`, or half of them if the point behind is due: where the system alone decides how many go at once. */
#define FFV_FAULT_HALF(name, bytes) (ffv_fault_is_due(FFV_FAULT_##name) ? ((bytes) + 1) / 2 : (bytes))
#else
#define FFV_FAULT(name) ((void)0)
#define FFV_FAULT_HALF(name, bytes) (bytes)
#endif

#endif

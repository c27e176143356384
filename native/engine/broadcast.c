/* SPDX-License-Identifier: MIT
 *
 * Sending to everybody on the segment: multicast datagrams and raw packets. Only the requester's own process does it,
 * for the ring that takes them has one writer (engine/outbox.h). What nobody wants is lost without a word.
 */
#include "engine/outbox.h"
#include "engine/packet.h"
#include "engine/run.h"

#define MULTICAST_QPN 0xffffffu   /* IBA 3.5.10 */
#define ETHERNET_HEADER_BYTES 14u

static enum verdict check_length(const struct run *run)
{
	if (run->req->type == FFV_QPT_UD)
		return run->length > ffv_load_relaxed(&run->req->shm->path_mtu_bytes) || run->length > FFV_FRAME_MAX_BYTES ?
			       LOCAL_LENGTH : OK;
	return run->length < ETHERNET_HEADER_BYTES || run->length > FFV_FRAME_MAX_BYTES ? LOCAL_LENGTH : OK;
}

static void describe(const struct run *run, const struct ffv_wqe_shm *wqe, struct ffv_frame_shm *frame)
{
	uint32_t sgid_hop = wqe->ud.sgid_hop;

	*frame = (struct ffv_frame_shm){ .length_bytes = run->length, .kind = FFV_FRAME_RAW, .src_qpn = run->req->qpn };
	if (wqe->flags & FFV_SEND_SOLICITED)
		frame->flags |= FFV_FRAME_SOLICITED;
	if (run->req->type != FFV_QPT_UD)
		return;
	frame->kind = FFV_FRAME_MULTICAST;
	if (wqe->opcode == FFV_WR_SEND_WITH_IMM)
		frame->flags |= FFV_FRAME_WITH_IMM;
	frame->imm_be = wqe->imm_be;
	frame->qkey = wqe->ud.qkey;
	frame->flow_tclass = wqe->ud.flow_tclass;
	frame->hop_limit = (uint8_t)sgid_hop;
	frame->sl = (uint8_t)(sgid_hop >> 24);
	memcpy(frame->dgid, wqe->ud.dgid, sizeof frame->dgid);
}

enum verdict ffv_run_broadcast(struct run *run, const struct ffv_wqe_shm *wqe)
{
	struct ffv_frame_shm frame;
	uint8_t bytes[FFV_FRAME_MAX_BYTES];
	struct ffv_list flat = { .num_segments = 1, .length_bytes = run->length };

	if (!run->req->view->own)
		return FOR_REQUESTER;
	if (run->req->type == FFV_QPT_RAW_PACKET && wqe->opcode != FFV_WR_SEND)
		return LOCAL_OPERATION;
	enum verdict verdict = check_length(run);
	if (verdict == OK)
		verdict = ffv_run_gather(run, wqe, 0);
	if (verdict != OK)
		return verdict;
	flat.segment[0] = (struct ffv_segment){ .va = (uintptr_t)bytes, .length_bytes = run->length };
	if (run->length && ffv_copy_lists(&flat, 0, &run->local, 0, run->length) != FFV_COPY_DONE)
		return LOCAL_PROTECTION;
	if (run->req->type == FFV_QPT_UD && wqe->ud.qpn != MULTICAST_QPN)
		return OK; /* no group listens there */
	if (run->req->type == FFV_QPT_RAW_PACKET && wqe->flags & FFV_SEND_IP_CSUM)
		ffv_packet_fill_checksums(bytes, run->length);
	describe(run, wqe, &frame);
	return run->env->face->broadcast(run->env->arg, &frame, (uint8_t)(wqe->ud.sgid_hop >> 8), bytes) ? OK
													 : LOCAL_OPERATION;
}

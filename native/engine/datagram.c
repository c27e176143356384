/* SPDX-License-Identifier: MIT
 *
 * Datagrams: what cannot be delivered is lost without a word.
 */
#include <string.h>

#include "engine/outbox.h"
#include "engine/run.h"

static void fill_ipv4(uint8_t *ip, const uint8_t sgid[16], const uint8_t dgid[16], uint32_t flow_tclass,
		      uint8_t hop_limit, uint32_t length)
{
	uint16_t total = (uint16_t)(20 + length);

	ip[0] = 0x45;
	ip[1] = (uint8_t)(flow_tclass & 0xff);
	ip[2] = (uint8_t)(total >> 8);
	ip[3] = (uint8_t)total;
	ip[8] = hop_limit;
	ip[9] = 17;
	memcpy(ip + 12, sgid + 12, 4);
	memcpy(ip + 16, dgid + 12, 4);
}

/* Whoever is addressed by an IPv6 address, which here only multicast groups are, gets an IPv6 header; the UDP, transport
 * and datagram headers and the invariant CRC count as its payload. */
static void fill_ipv6(struct ffv_grh *grh, const uint8_t sgid[16], const uint8_t dgid[16], uint32_t flow_tclass,
		      uint8_t hop_limit, uint32_t length)
{
	uint16_t payload = (uint16_t)(8 + 12 + 8 + length + 4);
	uint8_t *ip = (uint8_t *)grh;

	ip[0] = (uint8_t)(0x60 | (flow_tclass & 0xff) >> 4);
	ip[1] = (uint8_t)((flow_tclass & 0xf) << 4 | (flow_tclass >> 24 & 0xf));
	ip[2] = (uint8_t)(flow_tclass >> 16);
	ip[3] = (uint8_t)(flow_tclass >> 8);
	ip[4] = (uint8_t)(payload >> 8);
	ip[5] = (uint8_t)payload;
	ip[6] = 17;
	ip[7] = hop_limit;
	memcpy(grh->sgid.raw, sgid, 16);
	memcpy(grh->dgid.raw, dgid, 16);
}

void ffv_exec_fill_grh(struct ffv_grh *grh, const uint8_t sgid[16], const uint8_t dgid[16], uint32_t flow_tclass,
		       uint8_t hop_limit, uint32_t length)
{
	memset(grh, 0, sizeof *grh);
	if (dgid[0] == 0xff)
		fill_ipv6(grh, sgid, dgid, flow_tclass, hop_limit, length);
	else /* RoCE v2 over IPv4: the first 20 bytes are undefined, a header stands in the last 20 (IBA annex A17) */
		fill_ipv4((uint8_t *)grh + 20, sgid, dgid, flow_tclass, hop_limit, length);
}

static enum verdict deliver_datagram(struct run *run, const struct ffv_wqe_shm *wqe)
{
	struct ffv_grh grh;
	struct ffv_list header = { .num_segments = 1, .length_bytes = FFV_GRH_BYTES };
	enum verdict verdict = ffv_run_take_receive(run);

	if (verdict == OK)
		verdict = ffv_run_scatter(run, (uint64_t)run->length + FFV_GRH_BYTES);
	if (verdict != OK)
		return verdict;
	ffv_exec_fill_grh(&grh, run->req->view->arena->gid, wqe->ud.dgid, wqe->ud.flow_tclass, (uint8_t)wqe->ud.sgid_hop,
			  run->length);
	header.segment[0] = (struct ffv_segment){ .va = (uintptr_t)&grh, .length_bytes = FFV_GRH_BYTES };
	enum ffv_copy_result result = ffv_copy_lists(&run->remote, 0, &header, 0, FFV_GRH_BYTES);
	if (result == FFV_COPY_DONE && run->length)
		result = ffv_copy_lists(&run->remote, FFV_GRH_BYTES, &run->local, 0, run->length);
	if (result == FFV_COPY_UNREACHABLE) {
		struct ffv_qp_shm *qp = run->req->shm;
		if (!run->req->view->direct)
			return FOR_REQUESTER;
		if (ffv_run_needs_stage(run) && !qp->staged_bytes) {
			if (qp->stage_line == FFV_NONE && !run->env->face->stage(run->env->arg, run->req))
				return LOCAL_OPERATION;
			verdict = ffv_run_stage_chunk(run, &run->local, true, run->length, LOCAL_PROTECTION);
		}
		return verdict == OK ? FOR_RESPONDER : verdict;
	}
	return result ? ffv_run_copy_fault(result, true, true) : OK;
}

/* What cannot be delivered is lost without a word, as on a wire; the sender's own mistakes are not. */
enum verdict ffv_run_datagram(struct run *run, const struct ffv_wqe_shm *wqe)
{
	struct ffv_qp_shm *qp = run->req->shm;
	enum verdict verdict;

	if (wqe->opcode != FFV_WR_SEND && wqe->opcode != FFV_WR_SEND_WITH_IMM)
		return LOCAL_OPERATION;
	if (run->req->type == FFV_QPT_RAW_PACKET || ffv_gid_is_multicast(wqe->ud.dgid))
		return ffv_run_broadcast(run, wqe);
	if (qp->staged_bytes && !run->req->view->direct)
		verdict = qp->staged_bytes == run->length && ffv_run_stage_list(run, &run->local, run->length) ? OK
												: LOCAL_OPERATION;
	else
		verdict = ffv_run_gather(run, wqe, 0);
	if (verdict == OK && run->length > ffv_load_relaxed(&qp->path_mtu_bytes))
		verdict = LOCAL_LENGTH;
	if (verdict != OK)
		return verdict;
	run->resp = NULL;
	run->found.shm = NULL;
	run->found.view = NULL;
	if (!run->env->face->find(run->env->arg, run->req, &wqe->ud, &run->found) && !run->req->view->direct)
		return FOR_REQUESTER;
	if (run->found.shm == NULL && run->found.view && run->found.view->proxy)
		return ffv_run_datagram_away(run, wqe);
	if (!run->found.shm || !is_ready_to_receive(run->req, &run->found) ||
	    ffv_load_relaxed(&run->found.shm->qkey) != wqe->ud.qkey) {
		ffv_run_flush_taken(run, run->found.shm ? &run->found : NULL);
		return OK;
	}
	run->resp = &run->found;
	ffv_claim_init(&run->recv_claim, &run->found.recv_cq);
	verdict = deliver_datagram(run, wqe);
	if (verdict == OK && !ffv_run_complete_recv(run, wqe))
		verdict = LOCAL_OPERATION;
	if (verdict == RECEIVE_LENGTH || verdict == RECEIVE_PROTECTION) {
		const struct meaning *meaning = &ffv_run_meanings[verdict];
		ffv_exec_complete_recv(run->env, run->resp, run->rwqe.position, meaning->responder, &run->recv_claim);
		ffv_rq_forget(qp);
		run->have_rwqe = false;
		if (ffv_exec_set_error(run->resp->shm, meaning->responder))
			ffv_run_attention_qp(run, run->resp);
		verdict = OK;
	}
	ffv_run_finish_claim(run, &run->recv_claim, run->resp->view);
	if (verdict == OK)
		qp->staged_bytes = 0;
	return verdict == NO_RECEIVE ? OK : verdict;
}

/* One end of a connection: what it posts, and what must come of it. The worker's lock is held.
 *
 * The window that an end offers to its peer: STRESS_WINDOW slots for WRITE and READ, STRESS_DEPTH slots for
 * WRITE_WITH_IMM (as many as receives, so a slot is written again only after its message was checked), two counters. */
#include <string.h>

#include "stress.h"

#define IMM_SLOTS_AT (STRESS_WINDOW * (uint64_t)STRESS_MOST)
#define COUNTERS_AT (IMM_SLOTS_AT + STRESS_DEPTH * (uint64_t)STRESS_MOST)
#define WINDOW_BYTES (COUNTERS_AT + 64)
#define LIST 6u
#define INLINE 64u

/* ---- shared receives ------------------------------------------------------------------------------------------------- */

static void post_shared(uint32_t slot)
{
	struct shared_receives *shared = &stress.shared;
	struct ffv_sge sge = { (uintptr_t)shared->buffer.at + slot * (uint64_t)STRESS_MOST, STRESS_MOST,
			       shared->buffer.mr->lkey };
	struct ffv_recv_wr wr = { .wr_id = slot, .sg_list = &sge, .num_sge = 1 }, *bad;

	pthread_mutex_lock(&shared->lock);
	if (shared->posted[slot])
		FAIL("shared receive %u completed twice", slot);
	shared->posted[slot] = true;
	pthread_mutex_unlock(&shared->lock);
	MUST(ffv_post_srq_recv(shared->srq, &wr, &bad));
}

static void take_shared(uint64_t slot)
{
	pthread_mutex_lock(&stress.shared.lock);
	if (slot >= STRESS_SHARED || !stress.shared.posted[slot])
		FAIL("shared receive %llu completed without being posted", (unsigned long long)slot);
	stress.shared.posted[slot] = false;
	pthread_mutex_unlock(&stress.shared.lock);
}

void stress_shared_make(void)
{
	struct ffv_srq_init_attr attr = { .attr = { .max_wr = STRESS_SHARED, .max_sge = 1 } };

	pthread_mutex_init(&stress.shared.lock, NULL);
	MUST(ffv_create_srq(stress.pd, &attr, &stress.shared.srq));
	stress_buffer_make(&stress.shared.buffer, STRESS_SHARED * (size_t)STRESS_MOST, MEMORY_ENGINE);
	for (uint32_t i = 0; i < STRESS_SHARED; i++)
		post_shared(i);
}

void stress_shared_drop(void)
{
	/* No queue pair uses it any more: what was posted and is not back was lost. */
	for (uint32_t i = 0; i < STRESS_SHARED; i++)
		if (!stress.shared.posted[i])
			FAIL("shared receive %u is not posted at the end", i);
	MUST(ffv_destroy_srq(stress.shared.srq));
	stress_buffer_drop(&stress.shared.buffer);
}

/* ---- life ---------------------------------------------------------------------------------------------------------------- */

static void post_receive(struct end *end)
{
	uint64_t number = end->receives_posted++;
	struct ffv_sge sge = { (uintptr_t)end->inbox.at + number % STRESS_DEPTH * STRESS_MOST, STRESS_MOST,
			       end->inbox.mr->lkey };
	struct ffv_recv_wr wr = { .wr_id = number, .sg_list = &sge, .num_sge = 1 }, *bad;

	MUST(ffv_post_recv(end->qp, &wr, &bad));
}

void stress_end_make(struct worker *worker, struct end *end, enum end_kind kind, enum memory_kind memory, uint64_t seed,
		     unsigned side)
{
	struct ffv_qp_init_attr attr = {
		.send_cq = worker->cq, .recv_cq = worker->cq, .srq = kind == END_RC_SHARED ? stress.shared.srq : NULL,
		.cap = { STRESS_DEPTH, STRESS_DEPTH, 4, 1, INLINE }, .qp_type = kind == END_UC ? FFV_QPT_UC : FFV_QPT_RC,
	};
	struct ffv_qp_attr init = { .qp_state = FFV_QPS_INIT, .port_num = 1,
				    .qp_access_flags = FFV_ACCESS_REMOTE_WRITE | FFV_ACCESS_REMOTE_READ |
						       FFV_ACCESS_REMOTE_ATOMIC };

	memset(end, 0, sizeof *end);
	end->kind = kind;
	end->send_seed = stress_mix(seed, side);
	end->receive_seed = stress_mix(seed, !side);
	MUST(ffv_create_qp(stress.pd, &attr, &end->qp));
	end->qpn = ffv_qp_num(end->qp);
	stress_buffer_make(&end->outbox, STRESS_DEPTH * (size_t)STRESS_MOST, memory);
	stress_buffer_make(&end->inbox, STRESS_DEPTH * (size_t)STRESS_MOST, memory);
	stress_buffer_make(&end->window, WINDOW_BYTES, memory);
	MUST(ffv_modify_qp(end->qp, &init, FFV_QP_STATE | FFV_QP_PKEY_INDEX | FFV_QP_PORT | FFV_QP_ACCESS_FLAGS));
	for (uint32_t i = 0; kind != END_RC_SHARED && i < STRESS_DEPTH; i++)
		post_receive(end);
	end->used = true;
}

void stress_end_start(struct end *end, const struct ffv_gid *gid, uint32_t qpn, uint64_t window, uint32_t rkey)
{
	bool rc = end->kind != END_UC;
	struct ffv_qp_attr rtr = { .qp_state = FFV_QPS_RTR, .path_mtu = 5, .dest_qp_num = qpn, .max_dest_rd_atomic = 16,
				   .min_rnr_timer = 8,
				   .ah_attr = { .is_global = 1, .port_num = 1, .grh = { .hop_limit = 1, .sgid_index = 1 } } };
	/* No retry timer: only death may end a connection. */
	struct ffv_qp_attr rts = { .qp_state = FFV_QPS_RTS, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 16 };

	memcpy(&rtr.ah_attr.grh.dgid_subnet_prefix_be, gid->raw, 8);
	memcpy(&rtr.ah_attr.grh.dgid_interface_id_be, gid->raw + 8, 8);
	MUST(ffv_modify_qp(end->qp, &rtr, FFV_QP_STATE | FFV_QP_AV | FFV_QP_PATH_MTU | FFV_QP_DEST_QPN | FFV_QP_RQ_PSN |
			   (rc ? FFV_QP_MAX_DEST_RD_ATOMIC | FFV_QP_MIN_RNR_TIMER : 0)));
	MUST(ffv_modify_qp(end->qp, &rts, FFV_QP_STATE | FFV_QP_SQ_PSN |
			   (rc ? FFV_QP_TIMEOUT | FFV_QP_RETRY_CNT | FFV_QP_RNR_RETRY | FFV_QP_MAX_QP_RD_ATOMIC : 0)));
	end->peer_window = window;
	end->peer_rkey = rkey;
	end->started = true;
}

bool stress_end_is_idle(const struct end *end, bool receives_too)
{
	return end->completed == end->posted && (!receives_too || end->receives_done == end->receives_posted);
}

void stress_end_drop(struct end *end)
{
	MUST(ffv_destroy_qp(end->qp));
	stress_buffer_drop(&end->outbox);
	stress_buffer_drop(&end->inbox);
	stress_buffer_drop(&end->window);
	end->used = false;
}

/* ---- sending ----------------------------------------------------------------------------------------------------------------- */

static void plan_write(struct end *end, const struct planned *planned, struct ffv_send_wr *wr, struct sent *sent)
{
	uint32_t slot = planned->luck % STRESS_WINDOW;

	wr->wr.rdma = (struct ffv_wr_rdma){ end->peer_window + slot * (uint64_t)STRESS_MOST, end->peer_rkey };
	if (planned->opcode == FFV_WR_RDMA_WRITE) {
		end->written[slot].seed = planned->seed;
		end->written[slot].length = planned->length;
		return;
	}
	if (sent->length > end->written[slot].length) /* what was written there last */
		sent->length = end->written[slot].length;
	sent->seed = end->written[slot].seed;
}

static void plan_atomic(struct end *end, const struct planned *planned, struct ffv_send_wr *wr, struct sent *sent)
{
	bool add = planned->opcode == FFV_WR_ATOMIC_FETCH_AND_ADD;
	bool hit = planned->luck & 1;

	wr->wr.atomic = (struct ffv_wr_atomic){ .remote_addr = end->peer_window + COUNTERS_AT + (add ? 0 : 8),
						.rkey = end->peer_rkey };
	sent->original = add ? end->sum : end->swapped;
	if (add) {
		wr->wr.atomic.compare_add = planned->luck;
		end->sum += planned->luck;
	} else {
		wr->wr.atomic.compare_add = hit ? end->swapped : ~end->swapped;
		wr->wr.atomic.swap = planned->luck;
		if (hit)
			end->swapped = planned->luck;
	}
}

/* The list of a send, split in up to four. */
static int split(struct ffv_sge *sges, uint64_t at, uint32_t length, uint32_t lkey, uint64_t luck)
{
	int pieces = length ? (int)(luck % 4) + 1 : (int)(luck % 2);

	for (int i = 0; i < pieces; i++) {
		uint32_t n = i == pieces - 1 ? length : (uint32_t)(stress_mix(luck, (uint64_t)i) % (length + 1ull));
		sges[i] = (struct ffv_sge){ at, n, lkey };
		at += n;
		length -= n;
	}
	return pieces;
}

static void build(struct end *end, uint64_t number, struct ffv_send_wr *wr, struct ffv_sge *sges)
{
	struct planned planned = stress_plan(end->kind, end->send_seed, number);
	struct sent *sent = &end->sent[number % STRESS_DEPTH];
	uint8_t *at = end->outbox.at + number % STRESS_DEPTH * STRESS_MOST;
	bool gets = planned.opcode == FFV_WR_RDMA_READ || planned.opcode == FFV_WR_ATOMIC_FETCH_AND_ADD ||
		    planned.opcode == FFV_WR_ATOMIC_CMP_AND_SWP;

	*sent = (struct sent){ planned.seed, 0, planned.length, planned.opcode,
			       planned.luck >> 8 & 1 };
	*wr = (struct ffv_send_wr){ .wr_id = number, .opcode = planned.opcode, .imm_data_be = (uint32_t)number,
				    .sg_list = sges };
	if (planned.opcode == FFV_WR_RDMA_WRITE || planned.opcode == FFV_WR_RDMA_READ)
		plan_write(end, &planned, wr, sent);
	else if (planned.opcode == FFV_WR_RDMA_WRITE_WITH_IMM)
		wr->wr.rdma = (struct ffv_wr_rdma){
			end->peer_window + IMM_SLOTS_AT + end->consuming % STRESS_DEPTH * STRESS_MOST, end->peer_rkey };
	else if (gets)
		plan_atomic(end, &planned, wr, sent);
	if (!gets)
		stress_fill(at, sent->length, sent->seed);
	else
		memset(at, 0xee, sent->length);
	wr->num_sge = split(sges, (uintptr_t)at, sent->length, end->outbox.mr->lkey,
			    sent->length == 8 && gets ? 0 : planned.luck >> 16);
	wr->send_flags = (sent->signaled ? FFV_SEND_SIGNALED : 0) | (planned.luck >> 9 & 1 ? FFV_SEND_SOLICITED : 0) |
			 (planned.luck >> 10 & 1 ? FFV_SEND_FENCE : 0) |
			 (!gets && sent->length <= INLINE && planned.luck >> 11 & 1 ? FFV_SEND_INLINE : 0);
	end->consuming += planned.consumes;
}

bool stress_end_send(struct worker *worker, struct end *end)
{
	uint64_t room = STRESS_DEPTH - (end->posted - end->completed);
	struct ffv_send_wr wrs[LIST], *bad;
	struct ffv_sge sges[LIST][4];
	unsigned n = (unsigned)(stress_mix(worker->random++, end->qpn) % LIST) + 1;

	if (!end->used || !end->started || end->broken || room < n)
		return false;
	for (unsigned i = 0; i < n; i++) {
		build(end, end->posted + i, &wrs[i], sges[i]);
		wrs[i].next = i + 1 < n ? &wrs[i + 1] : NULL;
	}
	wrs[n - 1].send_flags |= FFV_SEND_SIGNALED; /* so that everything is known to have completed at the end */
	end->sent[(end->posted + n - 1) % STRESS_DEPTH].signaled = true;
	end->posted += n;
	MUST(ffv_post_send(end->qp, wrs, &bad));
	return true;
}

/* ---- completing ----------------------------------------------------------------------------------------------------------------- */

static void check_got(struct end *end, uint64_t number)
{
	const struct sent *sent = &end->sent[number % STRESS_DEPTH];
	const uint8_t *at = end->outbox.at + number % STRESS_DEPTH * STRESS_MOST;

	if (sent->opcode == FFV_WR_RDMA_READ)
		stress_check(at, sent->length, sent->seed, "read", number);
	if (sent->opcode != FFV_WR_ATOMIC_FETCH_AND_ADD && sent->opcode != FFV_WR_ATOMIC_CMP_AND_SWP)
		return;
	uint64_t original;
	memcpy(&original, at, 8);
	if (original != sent->original)
		FAIL("atomic %llu on QP %#x found %#llx, expected %#llx", (unsigned long long)number, end->qpn,
		     (unsigned long long)original, (unsigned long long)sent->original);
}

static void complete_send(struct end *end, const struct ffv_wc *wc)
{
	static const uint8_t opcodes[] = { FFV_WC_RDMA_WRITE, FFV_WC_RDMA_WRITE, FFV_WC_SEND, FFV_WC_SEND,
					   FFV_WC_RDMA_READ, FFV_WC_COMP_SWAP, FFV_WC_FETCH_ADD };
	uint64_t number = wc->wr_id;

	if (number < end->completed || number >= end->posted)
		FAIL("send %llu on QP %#x completed; outstanding are %llu to %llu", (unsigned long long)number, end->qpn,
		     (unsigned long long)end->completed, (unsigned long long)end->posted);
	for (; end->completed <= number; end->completed++) {
		const struct sent *sent = &end->sent[end->completed % STRESS_DEPTH];
		bool last = end->completed == number;
		if (!last && sent->signaled)
			FAIL("send %llu on QP %#x was passed over", (unsigned long long)end->completed, end->qpn);
		if (last && wc->status == FFV_WC_SUCCESS && (!sent->signaled || wc->opcode != opcodes[sent->opcode]))
			FAIL("send %llu on QP %#x: signaled %d, opcode %u", (unsigned long long)number, end->qpn,
			     sent->signaled, wc->opcode);
		if (!last || wc->status == FFV_WC_SUCCESS)
			check_got(end, end->completed);
	}
}

/* The next operation of the peer that takes a receive; UC: the one that says it is, for others were lost. */
static struct planned expected_message(struct end *end, const struct ffv_wc *wc)
{
	struct planned planned;

	if (end->kind == END_UC) {
		if (wc->imm_data_be < end->next_message)
			FAIL("message %u on QP %#x came after %llu", wc->imm_data_be, end->qpn,
			     (unsigned long long)end->next_message);
		end->next_message = wc->imm_data_be;
	}
	do
		planned = stress_plan(end->kind, end->receive_seed, end->next_message++);
	while (!planned.consumes);
	return planned;
}

static void check_message(struct end *end, const struct ffv_wc *wc, const uint8_t *inbox)
{
	struct planned planned = expected_message(end, wc);
	uint64_t number = end->next_message - 1;
	bool writes = planned.opcode == FFV_WR_RDMA_WRITE_WITH_IMM;
	bool immediate = planned.opcode != FFV_WR_SEND;

	if (wc->byte_len != planned.length || wc->opcode != (writes ? FFV_WC_RECV_RDMA_WITH_IMM : FFV_WC_RECV) ||
	    !!(wc->wc_flags & FFV_WC_WITH_IMM) != immediate || (immediate && wc->imm_data_be != (uint32_t)number))
		FAIL("message %llu on QP %#x (kind %d): %u bytes of %u, opcode %u, flags %#x, immediate %u, receive %llu",
		     (unsigned long long)number, end->qpn, end->kind, wc->byte_len, planned.length, wc->opcode, wc->wc_flags,
		     wc->imm_data_be, (unsigned long long)wc->wr_id);
	if (writes)
		inbox = end->window.at + IMM_SLOTS_AT + end->received % STRESS_DEPTH * STRESS_MOST;
	stress_check(inbox, planned.length, planned.seed, "message", number);
	end->received++;
}

static void complete_receive(struct end *end, const struct ffv_wc *wc)
{
	bool good = wc->status == FFV_WC_SUCCESS;

	if (end->kind == END_RC_SHARED) {
		take_shared(wc->wr_id);
		if (good)
			check_message(end, wc, stress.shared.buffer.at + wc->wr_id * STRESS_MOST);
		post_shared((uint32_t)wc->wr_id);
		return;
	}
	if (wc->wr_id != end->receives_done)
		FAIL("receive %llu on QP %#x completed, expected %llu", (unsigned long long)wc->wr_id, end->qpn,
		     (unsigned long long)end->receives_done);
	end->receives_done++;
	if (!good)
		return;
	check_message(end, wc, end->inbox.at + wc->wr_id % STRESS_DEPTH * STRESS_MOST);
	if (!end->broken)
		post_receive(end);
}

void stress_end_complete(struct worker *worker, struct end *end, const struct ffv_wc *wc)
{
	if (wc->status != FFV_WC_SUCCESS) {
		if (wc->status != FFV_WC_WR_FLUSH_ERR && wc->status != FFV_WC_RETRY_EXC_ERR)
			FAIL("work request %llu on QP %#x ended with status %u", (unsigned long long)wc->wr_id, end->qpn,
			     wc->status);
		end->broken = true; /* by the death of the peer, or by ourselves at the end: who asks will know */
	}
	worker->completions++;
	worker->bytes += wc->status == FFV_WC_SUCCESS ? wc->byte_len : 0;
	if (wc->opcode & FFV_WC_RECV)
		complete_receive(end, wc);
	else
		complete_send(end, wc);
}

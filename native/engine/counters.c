/* SPDX-License-Identifier: MIT
 *
 * Completion counters: adding what completes to the counters that its queue pair has. Off the fast path but for the question
 * whether there are any. Runs in whichever process executes; where a counter stands is checked at each use.
 */
#include "engine/run.h"

/* Places of the operations in counter_line: the bits of enum ffv_qp_attach_comp_cntr_op. */
enum { SEND = 0, RECV = 1, READ = 2, REMOTE_READ = 3, WRITE = 4, REMOTE_WRITE = 5, NONE = 6 };

static void add(const struct ffv_qp_ref *ref, unsigned op, bool ok)
{
	/* [counter-attach] the line was written before the bit. */
	if (op >= FFV_COUNTED_OPS || !(ffv_load_acquire(&ref->shm->counted) & 1u << op))
		return;
	struct ffv_counter_shm *counter = ffv_view_at(ref->view, ref->shm->counter_line[op], sizeof *counter);
	if (counter)
		ffv_fetch_add(ok ? &counter->completions : &counter->errors, 1u);
}

static unsigned send_op(uint8_t opcode)
{
	if (is_send(opcode))
		return SEND;
	if (opcode == FFV_WR_RDMA_READ)
		return READ;
	/* Other atomics and FLUSH are none of the operations that there are counters for. */
	return opcode == FFV_WR_RDMA_WRITE || opcode == FFV_WR_RDMA_WRITE_WITH_IMM || opcode == FFV_WR_ATOMIC_WRITE ? WRITE
														     : NONE;
}

void ffv_run_count(struct run *run, const struct ffv_wqe_shm *wqe, uint32_t status, bool done)
{
	unsigned op = send_op(wqe->opcode);

	add(run->req, op, status == FFV_WC_SUCCESS);
	if (done && run->resp && (op == READ || op == WRITE))
		add(run->resp, op == READ ? REMOTE_READ : REMOTE_WRITE, true);
}

void ffv_count_recv(const struct ffv_qp_ref *ref, bool ok)
{
	add(ref, RECV, ok);
}

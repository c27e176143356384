/* SPDX-License-Identifier: MIT
 *
 * Pacing a send queue to a rate: a bucket of a burst's bytes, told as the time at which everything sent so far would have
 * gone. Runs under exec_lock in whichever process executes; the requester's process has the timer.
 */
#include "engine/run.h"

#include "base/clock.h"

#define NS_PER_BYTE_AT_1_KBPS 8000000ull
/* pace_ns counts from so long before the clock does: a burst may be longer than the machine has been up. */
#define BEFORE_CLOCK_NS (1ull << 60)

static uint64_t duration_ns(uint64_t bytes, uint32_t rate_kbps)
{
	return bytes * NS_PER_BYTE_AT_1_KBPS / rate_kbps; /* less than 2^32 * 2^23 */
}

bool ffv_run_may_begin(struct run *run)
{
	struct ffv_qp_shm *qp = run->req->shm;
	uint64_t pace_ns = ffv_load_relaxed(&qp->pace_ns);

	if (qp->progress_bytes || qp->staged_bytes || pace_ns <= BEFORE_CLOCK_NS + ffv_clock_ns())
		return true;
	ffv_run_wait_until(run, FFV_BLOCKED_PACED, pace_ns - BEFORE_CLOCK_NS);
	return false;
}

void ffv_run_pay(struct run *run)
{
	struct ffv_qp_shm *qp = run->req->shm;
	uint32_t rate_kbps = ffv_load_relaxed(&qp->rate_kbps);

	if (!rate_kbps)
		return; /* lifted meanwhile */
	uint64_t now_ns = BEFORE_CLOCK_NS + ffv_clock_ns(), pace_ns = ffv_load_relaxed(&qp->pace_ns);
	uint64_t burst_ns = duration_ns(ffv_load_relaxed(&qp->burst_bytes), rate_kbps);
	/* After a pause a burst may go at once, and no more. */
	if (pace_ns < now_ns - burst_ns)
		pace_ns = now_ns - burst_ns;
	ffv_store_relaxed(&qp->pace_ns, pace_ns + duration_ns(run->length, rate_kbps));
}

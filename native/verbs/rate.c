/* SPDX-License-Identifier: MIT
 *
 * Rate limits of queue pairs, the owner's side; executors keep to them (engine/pace.c).
 */
#include <errno.h>

#include "base/error.h"
#include "verbs/device.h"
#include "verbs/qp.h"

#define DEFAULT_BURST_BYTES 65536u
#define WAIT_NS 1000000000ull

static int check_attr(const struct ffv_qp *qp, const struct ffv_qp_rate_limit_attr *attr)
{
	uint32_t state = ffv_load_acquire(&qp->ref.shm->state);

	if (!(FFV_PACED_TYPES & 1u << qp->type))
		return ffv_fail(EOPNOTSUPP, "queue pairs of type %u cannot be paced; RC, UC and UD can", qp->type);
	if (attr->comp_mask)
		return ffv_fail(EINVAL, "no attributes of a rate limit are known beyond the first, but comp_mask is %#x",
				attr->comp_mask);
	if (attr->rate_limit > FFV_RATE_MAX_KBPS)
		return ffv_fail(EINVAL, "%u kbit/s is more than the highest rate, %u", attr->rate_limit, FFV_RATE_MAX_KBPS);
	if (state == FFV_QPS_RESET || state == FFV_QPS_ERR)
		return ffv_fail(EINVAL, "queue pair %#x is in state %u: what is reset or failed has no rate", qp->ref.qpn, state);
	return 0;
}

int ffv_modify_qp_rate_limit(struct ffv_qp *qp, const struct ffv_qp_rate_limit_attr *attr)
{
	int rc = ffv_context_check(qp ? qp->ctx : NULL);

	if (!rc)
		rc = check_attr(qp, attr);
	if (rc)
		return rc;
	pthread_mutex_lock(&qp->lock);
	struct ffv_qp_shm *shm = qp->ref.shm;
	ffv_store_relaxed(&shm->burst_bytes, attr->max_burst_sz ? attr->max_burst_sz : DEFAULT_BURST_BYTES);
	ffv_store_seq_cst(&shm->rate_kbps, attr->rate_limit);
	/* What still goes by the old rate is over before the account is cleared; a stopped peer is not waited for for ever. */
	ffv_qp_quiesce(qp, WAIT_NS);
	ffv_store_relaxed(&shm->pace_ns, 0u);
	pthread_mutex_unlock(&qp->lock);
	ffv_qp_run(qp); /* what waits need not wait for its old time */
	return 0;
}

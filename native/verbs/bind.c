/* SPDX-License-Identifier: MIT
 *
 * ffv_bind_mw: the bind of a type 1 window as a work request that the engine makes (ibv_bind_mw(3)).
 */
#include <errno.h>

#include "base/error.h"
#include "verbs/context.h"

int ffv_bind_mw(struct ffv_qp *qp, struct ffv_mw *mw, const struct ffv_mw_bind_info *info, uint32_t send_flags,
		uint64_t wr_id)
{
	int rc = ffv_context_check(qp ? qp->ctx : NULL);

	if (rc)
		return rc;
	if (!mw || !info)
		return ffv_fail(EINVAL, "a bind needs a memory window and what to bind it to");
	if (mw->type != 1)
		return ffv_fail(EINVAL, "a window of type %u is bound by a work request, not by a call", mw->type);
	uint32_t tag = mw->rkey + 1;
	struct ffv_send_wr wr = { .wr_id = wr_id, .opcode = FFV_WR_BIND_MW, .send_flags = send_flags };
	wr.tail.bind_mw.mw = mw;
	wr.tail.bind_mw.rkey = (mw->rkey & ~0xffu) | (tag & 0xff);
	wr.tail.bind_mw.bind_info = *info;
	rc = ffv_post_send(qp, &wr, NULL);
	if (!rc)
		mw->rkey = wr.tail.bind_mw.rkey;
	return rc;
}

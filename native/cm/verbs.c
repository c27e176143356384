/* SPDX-License-Identifier: MIT
 *
 * Verbs on ids: one buffer a work request, completions from the id's own queues.
 */
#include <errno.h>

#include "base/error.h"
#include "cm/cm.h"

static int reg(struct ffv_cm_id *id, void *addr, size_t length, uint32_t access, struct ffv_mr **out)
{
	int rc = ffv_cm_check_id(id);

	if (!rc && !id->pd)
		rc = ffv_fail(EINVAL, "the id has no protection domain yet");
	if (rc)
		return rc;
	return addr ? ffv_reg_mr(id->pd, addr, length, (uint64_t)(uintptr_t)addr, access, out) :
		      ffv_alloc_mr(id->pd, length, access, out);
}

int ffv_cm_reg_msgs(struct ffv_cm_id *id, void *addr, size_t length, struct ffv_mr **out)
{
	return reg(id, addr, length, FFV_ACCESS_LOCAL_WRITE, out);
}

int ffv_cm_reg_read(struct ffv_cm_id *id, void *addr, size_t length, struct ffv_mr **out)
{
	return reg(id, addr, length, FFV_ACCESS_LOCAL_WRITE | FFV_ACCESS_REMOTE_READ, out);
}

int ffv_cm_reg_write(struct ffv_cm_id *id, void *addr, size_t length, struct ffv_mr **out)
{
	return reg(id, addr, length, FFV_ACCESS_LOCAL_WRITE | FFV_ACCESS_REMOTE_WRITE, out);
}

static int check_post(const struct ffv_cm_id *id, size_t length)
{
	if (!id || !id->qp)
		return ffv_fail(EINVAL, "the id has no queue pair");
	return length > UINT32_MAX ? ffv_fail(EINVAL, "a work request of %zu bytes is too long", length) : 0;
}

static struct ffv_sge sge_of(void *addr, size_t length, const struct ffv_mr *mr)
{
	return (struct ffv_sge){ .addr = (uint64_t)(uintptr_t)addr, .length = (uint32_t)length,
				 .lkey = mr ? mr->lkey : 0 };
}

int ffv_cm_post_recv(struct ffv_cm_id *id, void *context, void *addr, size_t length, struct ffv_mr *mr)
{
	struct ffv_sge sge = sge_of(addr, length, mr);
	struct ffv_recv_wr wr = { .wr_id = (uint64_t)(uintptr_t)context, .sg_list = &sge, .num_sge = 1 }, *bad;
	int rc = check_post(id, length);

	if (rc)
		return rc;
	return id->srq ? ffv_post_srq_recv(id->srq, &wr, &bad) : ffv_post_recv(id->qp, &wr, &bad);
}

static int post(struct ffv_cm_id *id, size_t length, struct ffv_send_wr *wr)
{
	struct ffv_send_wr *bad;
	int rc = check_post(id, length);

	return rc ? rc : ffv_post_send(id->qp, wr, &bad);
}

int ffv_cm_post_send(struct ffv_cm_id *id, void *context, void *addr, size_t length, struct ffv_mr *mr, uint32_t flags)
{
	struct ffv_sge sge = sge_of(addr, length, mr);
	struct ffv_send_wr wr = { .wr_id = (uint64_t)(uintptr_t)context, .sg_list = &sge, .num_sge = 1,
				  .opcode = FFV_WR_SEND, .send_flags = flags };

	return post(id, length, &wr);
}

static int post_rdma(struct ffv_cm_id *id, void *context, struct ffv_sge sge, size_t length, uint32_t opcode,
		     uint32_t flags, struct ffv_wr_rdma rdma)
{
	struct ffv_send_wr wr = { .wr_id = (uint64_t)(uintptr_t)context, .sg_list = &sge, .num_sge = 1,
				  .opcode = opcode, .send_flags = flags, .wr.rdma = rdma };

	return post(id, length, &wr);
}

int ffv_cm_post_read(struct ffv_cm_id *id, void *context, void *addr, size_t length, struct ffv_mr *mr, uint32_t flags,
		     uint64_t remote_addr, uint32_t rkey)
{
	return post_rdma(id, context, sge_of(addr, length, mr), length, FFV_WR_RDMA_READ, flags,
			 (struct ffv_wr_rdma){ remote_addr, rkey });
}

int ffv_cm_post_write(struct ffv_cm_id *id, void *context, void *addr, size_t length, struct ffv_mr *mr, uint32_t flags,
		      uint64_t remote_addr, uint32_t rkey)
{
	return post_rdma(id, context, sge_of(addr, length, mr), length, FFV_WR_RDMA_WRITE, flags,
			 (struct ffv_wr_rdma){ remote_addr, rkey });
}

int ffv_cm_post_ud_send(struct ffv_cm_id *id, void *context, void *addr, size_t length, struct ffv_mr *mr,
			uint32_t flags, struct ffv_ah *ah, uint32_t remote_qpn)
{
	struct ffv_sge sge = sge_of(addr, length, mr);
	struct ffv_send_wr wr = { .wr_id = (uint64_t)(uintptr_t)context, .sg_list = &sge, .num_sge = 1,
				  .opcode = FFV_WR_SEND, .send_flags = flags,
				  .wr.ud = { ah, remote_qpn, FFV_CM_UDP_QKEY } };

	return post(id, length, &wr);
}

/* ---- completions ---------------------------------------------------------------------------------------------------------------- */

static int wait_for(struct ffv_cq *cq, struct ffv_comp_channel *channel, struct ffv_wc *wc)
{
	struct ffv_cq *found;
	void *context;

	for (;;) {
		int rc = ffv_poll_cq(cq, 1, wc);
		if (!rc)
			rc = ffv_req_notify_cq(cq, 0);
		if (!rc) /* what came before it was armed */
			rc = ffv_poll_cq(cq, 1, wc);
		if (!rc)
			rc = ffv_get_cq_event(channel, &found, &context);
		if (rc)
			return rc;
		ffv_ack_cq_events(found, 1);
	}
}

int ffv_cm_get_send_comp(struct ffv_cm_id *id, struct ffv_wc *wc)
{
	if (!id || !id->send_cq || !id->send_cq_channel)
		return ffv_fail(EINVAL, "the id has no send completion queue of its own");
	return wait_for(id->send_cq, id->send_cq_channel, wc);
}

int ffv_cm_get_recv_comp(struct ffv_cm_id *id, struct ffv_wc *wc)
{
	if (!id || !id->recv_cq || !id->recv_cq_channel)
		return ffv_fail(EINVAL, "the id has no receive completion queue of its own");
	return wait_for(id->recv_cq, id->recv_cq_channel, wc);
}

/* SPDX-License-Identifier: MIT
 *
 * One-sided operations of a real queue pair; see ffv_rdma_qp_move in rdma_qp.h.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "wire/rdma_qp.h"

#define MOST_REQUESTS 64u          /* of one move */
#define REQUEST_BYTES (4u << 20)   /* of one request: every device takes as much */

struct request { struct ffv_send_wr wr; struct ffv_sge sge; };

/* Cuts both lists where either is cut. How many requests; 0: they are not as long as each other, or in too many pieces. */
static uint32_t cut(const struct ffv_real_piece *here, int num_here, const struct ffv_real_piece *there, int num_there,
		    struct request *requests)
{
	uint32_t at_here = 0, at_there = 0, count = 0;

	while (num_here && num_there && count < MOST_REQUESTS) {
		uint32_t left = here->length - at_here, room = there->length - at_there;
		uint32_t n = left < room ? left : room;
		n = n < REQUEST_BYTES ? n : REQUEST_BYTES;
		struct request *request = &requests[count++];
		memset(request, 0, sizeof *request);
		request->sge = (struct ffv_sge){ here->address + at_here, n, here->key };
		request->wr.wr.rdma.remote_addr = there->address + at_there;
		request->wr.wr.rdma.rkey = there->key;
		at_here += n;
		at_there += n;
		if (at_here == here->length) {
			at_here = 0;
			here++;
			num_here--;
		}
		if (at_there == there->length) {
			at_there = 0;
			there++;
			num_there--;
		}
	}
	return num_here || num_there ? 0 : count;
}

int ffv_rdma_qp_move(struct ffv_rdma_qp *qp, bool reads, const struct ffv_real_piece *here, int num_here,
		     const struct ffv_real_piece *there, int num_there, uint32_t *ticket)
{
	struct request requests[MOST_REQUESTS];
	uint32_t count = cut(here, num_here, there, num_there, requests);
	struct ffv_send_wr *bad;

	if (qp->broken)
		return ffv_fail(ECOMM, "%s", qp->why);
	if (!count)
		return ffv_fail(EINVAL, "the pieces do not suit each other");
	if (!ffv_rdma_qp_has_room(qp, count))
		return -EAGAIN;
	for (uint32_t i = 0; i < count; i++) {
		struct ffv_send_wr *wr = &requests[i].wr;
		wr->wr_id = qp->posted + 1 + i;
		wr->opcode = reads ? FFV_WR_RDMA_READ : FFV_WR_RDMA_WRITE;
		wr->sg_list = &requests[i].sge;
		wr->num_sge = 1;
		wr->next = i + 1 < count ? &requests[i + 1].wr : NULL;
		wr->send_flags = i + 1 < count ? 0 : FFV_SEND_SIGNALED;
	}
	qp->posted += count;
	int rc = qp->device.context->post_send(qp->qp, &requests[0].wr, &bad);
	if (rc)
		return ffv_rdma_qp_lost(qp, "a transfer cannot be posted", strerror(rc));
	*ticket = qp->posted;
	return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * One real RC queue pair between two routers: carries pieces of a stream from registered slots at one end into registered
 * slots at the other, as far as there is credit. Nothing here blocks. A queue pair that failed stays so: its owner saves
 * what was not taken over at the other end, and makes another. The loop's thread alone.
 */
#ifndef FFV_WIRE_RDMA_QP_H
#define FFV_WIRE_RDMA_QP_H

#include <sys/types.h>

#include "wire/rdma_windows.h"

#define FFV_RDMA_SLOTS 64u              /* in each direction */
#define FFV_RDMA_SLOT_BYTES (16u << 10)

/* Before the bytes in each slot. */
struct ffv_rdma_head {
	uint64_t position;            /* of the first byte in the stream */
	uint32_t length;              /* 0: only says what was consumed */
	uint32_t consumed;            /* slots with bytes that its sender has taken over by now, free-running */
};
#define FFV_RDMA_SLOT_PAYLOAD (FFV_RDMA_SLOT_BYTES - (uint32_t)sizeof(struct ffv_rdma_head))

/* How to reach a queue pair: what its router tells the other one. */
struct ffv_rdma_endpoint {
	uint8_t gid[16];
	uint32_t qpn, psn;
	uint32_t mtu;
	uint16_t lid;
	uint8_t link_layer;
	uint8_t pad;
};

struct ffv_rdma_qp {
	struct ffv_rdma_device device;
	struct real_comp_channel *events;
	struct real_cq *cq;
	struct real_qp *qp;
	struct real_mr *mr;
	uint8_t *slots;               /* to send, for credit, to receive */
	size_t slots_bytes;
	uint32_t psn, max_inline;
	uint32_t sent, consumed_there; /* slots with bytes, free-running */
	uint32_t consumed, told;      /* by us; last told to the other end */
	uint32_t credits_sent;
	uint32_t posted, completed;   /* send work requests, free-running */
	uint32_t held;                /* receive slot that is partly taken over, FFV_RDMA_NONE */
	uint32_t held_from;
	uint64_t next_position;       /* of the byte that `receive` gives next */
	bool broken;
	char why[160];                /* it is broken */
	struct ffv_rdma_windows windows;
};
#define FFV_RDMA_NONE UINT32_MAX

/* Opens a device and makes a queue pair that receives once it is connected. -errno with one line. */
int ffv_rdma_qp_create(const struct ffv_transport_options *options, struct ffv_rdma_qp **out);
void ffv_rdma_qp_destroy(struct ffv_rdma_qp *qp);
void ffv_rdma_qp_endpoint(const struct ffv_rdma_qp *qp, struct ffv_rdma_endpoint *out);
int ffv_rdma_qp_connect(struct ffv_rdma_qp *qp, const struct ffv_rdma_endpoint *to, uint64_t receive_position);

/* Takes bytes from `position` of the stream on. How many, 0 = no credit now, -errno = the queue pair is lost. */
ssize_t ffv_rdma_qp_send(struct ffv_rdma_qp *qp, uint64_t position, const uint8_t *bytes, size_t length);
/* Waits until all that was sent is at the other end, or the queue pair is lost, at most so long. */
void ffv_rdma_qp_finish_sending(struct ffv_rdma_qp *qp, uint64_t most_ns);
/* The next bytes of the stream: how many, 0 = none now (and the event descriptor is armed), -errno. */
ssize_t ffv_rdma_qp_receive(struct ffv_rdma_qp *qp, uint8_t *bytes, size_t capacity);
/* The same of a queue pair that is broken, or to be given up: what had arrived whole. */
size_t ffv_rdma_qp_drain(struct ffv_rdma_qp *qp, uint8_t *bytes, size_t capacity);
/* Copies what the other end may not have taken over, all that was sent from *position on, into a new buffer. */
int ffv_rdma_qp_unacknowledged(const struct ffv_rdma_qp *qp, uint64_t *position, uint8_t **bytes, size_t *length);
/* Of rdma_move.c: room in the send queue; the first reason for its end. */
bool ffv_rdma_qp_has_room(const struct ffv_rdma_qp *qp, uint32_t requests);
int ffv_rdma_qp_lost(struct ffv_rdma_qp *qp, const char *what, const char *why);
/* Moves bytes between memory that is registered at both ends, as `move` of ffv_one_sided: 0, -EAGAIN = there is no room for
 * it now, -errno = the queue pair is lost. */
int ffv_rdma_qp_move(struct ffv_rdma_qp *qp, bool reads, const struct ffv_real_piece *here, int num_here,
		     const struct ffv_real_piece *there, int num_there, uint32_t *ticket);
static inline bool ffv_rdma_qp_has_moved(const struct ffv_rdma_qp *qp, uint32_t ticket)
{
	return (int32_t)(qp->completed - ticket) >= 0;
}
/* The device's own events, and news of it: -errno if they mean the end of the queue pair. */
int ffv_rdma_qp_async(struct ffv_rdma_qp *qp);

#endif

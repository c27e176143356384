/* SPDX-License-Identifier: MIT
 *
 * Memory of containers that is registered on a real device for a real queue pair: by windows, kept for the next time,
 * bounded, dropped when their owner's registration or the owner itself goes. See docs/decisions/0036. The loop's thread.
 */
#ifndef FFV_WIRE_RDMA_WINDOWS_H
#define FFV_WIRE_RDMA_WINDOWS_H

#include "verbs/peer.h"
#include "wire/rdma_device.h"
#include "wire/transport.h"

#define FFV_RDMA_WINDOWS 256u
#define FFV_RDMA_WINDOW_BYTES (4ull << 20)      /* of a place, around what is asked for */
#define FFV_RDMA_REGISTERED_BYTES (512ull << 20) /* by one real queue pair, at most */
#define FFV_RDMA_UNUSED_NS 5000000000ull        /* and it is dropped */

struct ffv_rdma_window {
	uint32_t number;              /* its place in the table, and how often that was used */
	struct real_mr *mr;           /* NULL: free */
	struct ffv_peer *peer;        /* with a reference */
	struct ffv_place place;       /* region and stamp; `here` and `length` are the window's */
	bool far;                     /* the other end may name it */
	uint32_t users;
	uint64_t used_ns;
};

struct ffv_rdma_windows {
	const struct ffv_rdma_device *device;
	struct ffv_window_counters *counters;
	uint64_t bytes;
	uint64_t refused_ns;          /* when the device last registered nothing more: it is not asked for a while */
	struct ffv_rdma_window window[FFV_RDMA_WINDOWS];
};

void ffv_rdma_windows_init(struct ffv_rdma_windows *windows, const struct ffv_rdma_device *device,
			   struct ffv_window_counters *counters);
int ffv_rdma_windows_get(struct ffv_rdma_windows *windows, struct ffv_peer *peer, const struct ffv_place *place, bool far,
			 struct ffv_real_window *out);
void ffv_rdma_windows_release(struct ffv_rdma_windows *windows, uint32_t number, bool fence);
/* As `forget` of ffv_one_sided. */
void ffv_rdma_windows_forget(struct ffv_rdma_windows *windows, const struct ffv_context *of, uint64_t now_ns);
void ffv_rdma_windows_finish(struct ffv_rdma_windows *windows);

#endif

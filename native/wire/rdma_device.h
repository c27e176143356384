/* SPDX-License-Identifier: MIT
 *
 * Which real device, port and GID a router uses, and memory registered there. Any thread; a device belongs to one link.
 */
#ifndef FFV_WIRE_RDMA_DEVICE_H
#define FFV_WIRE_RDMA_DEVICE_H

#include <stdbool.h>

#include <ffverbs/ffv_router.h>

#include "wire/ibverbs.h"

struct ffv_rdma_device {
	const struct ffv_ibverbs *verbs;
	struct real_context *context;
	struct real_pd *pd;
	char name[64];
	int uevents;                  /* the kernel's news of devices, to be waited for; -1 = not to be had */
	uint8_t port;
	uint8_t link_layer;           /* REAL_LINK_... */
	uint16_t lid;
	uint32_t gid_index;
	uint8_t gid[16];
	uint32_t mtu;                 /* enum ibv_mtu, of the port now */
};

/* Opens the device that the options name, else the one whose port has the RoCE v2 GID of the host's address, else the first
 * one with an active InfiniBand port. -errno, and one line with the remedy, if there is none. */
int ffv_rdma_device_open(const struct ffv_rdma_options *options, struct ffv_rdma_device *out);
/* Everything made of it has been destroyed. */
void ffv_rdma_device_close(struct ffv_rdma_device *device);
/* Takes the news. Some drivers tell nobody that their device is being taken away, and wait until everybody has let go. */
bool ffv_rdma_device_is_removed(const struct ffv_rdma_device *device);
/* NULL and one line that names the limit if that is the reason. */
struct real_mr *ffv_rdma_register(const struct ffv_rdma_device *device, void *at, size_t bytes, int access);

#endif

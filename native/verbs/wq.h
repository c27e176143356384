/* SPDX-License-Identifier: MIT
 *
 * Receive work queues, tables of them, and the hash that chooses one (receive-side scaling). A work queue is the receive
 * half of a raw packet queue pair whose other half nobody has.
 */
#ifndef FFV_VERBS_WQ_H
#define FFV_VERBS_WQ_H

#include "engine/packet.h"
#include "verbs/context.h"

/* How a queue pair spreads its packets. */
struct ffv_rss {
	struct ffv_rwq_ind_table *table;
	uint8_t key[FFV_TOEPLITZ_KEY_BYTES];
	uint64_t fields;              /* enum ffv_rx_hash_fields */
};

/* 0 and *out for attributes that ask for it, else -EINVAL or -EOPNOTSUPP. The table is in use until released. */
int ffv_rss_create(struct ffv_context *ctx, const struct ffv_qp_init_attr_ex *attr, struct ffv_rss **out);
void ffv_rss_release(struct ffv_rss *rss);
/* A completion queue of one of its work queues. */
struct ffv_cq *ffv_rss_cq(const struct ffv_rss *rss);
/* The queue that the packet goes to. */
struct ffv_qp_ref *ffv_rss_pick(const struct ffv_rss *rss, const struct ffv_packet *packet);

#endif

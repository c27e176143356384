/* SPDX-License-Identifier: MIT
 *
 * The extended capabilities of the device: one place where every feature reports what it offers (DESIGN D16: what is
 * reported is supported). Process-private, any thread; nothing here changes.
 */
#include <errno.h>

#include "base/error.h"
#include "verbs/context.h"
#include "verbs/device.h"
#include "verbs/odp.h"

/* enum ibv_device_cap_flags, beyond 32 bits */
#define CAP_FLUSH_GLOBAL (1ull << 38)
#define CAP_ATOMIC_WRITE (1ull << 40)
#define CLOCK_KHZ 1000000ull /* ffv_query_clock_ns counts nanoseconds */

/* A feature adds its line here; orig_attr, what follows from it, and what depends on the host are filled in below. */
static const struct ffv_device_attr_ex capabilities = {
	.hca_core_clock = CLOCK_KHZ,
	.max_dm_size = FFV_LIMIT_DM_BYTES,
	.packet_pacing_caps = { .qp_rate_limit_min = FFV_RATE_MIN_KBPS, .qp_rate_limit_max = FFV_RATE_MAX_KBPS,
				.supported_qpts = FFV_PACED_TYPES },
	.max_wq_type_rq = FFV_LIMIT_QP,
	.rss_caps = { .supported_qpts = 1u << FFV_QPT_RAW_PACKET, .max_rwq_indirection_tables = FFV_LIMIT_TABLES,
		      .max_rwq_indirection_table_size = 1u << FFV_LIMIT_LOG_TABLE,
		      .rx_hash_fields_mask = FFV_RX_HASH_ALL_FIELDS, .rx_hash_function = FFV_RX_HASH_FUNC_TOEPLITZ },
	.raw_packet_caps = FFV_RAW_PACKET_CAP_IP_CSUM,
	.device_cap_flags_ex = CAP_FLUSH_GLOBAL | CAP_ATOMIC_WRITE,
	.cq_mod_caps = { UINT16_MAX, UINT16_MAX },
	.completion_timestamp_mask = UINT64_MAX,
	.tm_caps = { .max_rndv_hdr_size = FFV_MAX_RENDEZVOUS_HEADER, .max_num_tags = FFV_MAX_TAGS,
		     .flags = 1 /* IBV_TM_CAP_RC */, .max_ops = FFV_MAX_TAG_OPS, .max_sge = FFV_MAX_SGE },
};

int ffv_query_device_ex(struct ffv_context *ctx, uint32_t comp_mask, struct ffv_device_attr_ex *attr)
{
	struct ffv_device_attr orig;

	if (comp_mask)
		return ffv_fail(EINVAL, "no inputs of an extended device query are known, but comp_mask is %#x", comp_mask);
	int rc = ffv_query_device(ctx, &orig);
	if (rc)
		return rc;
	*attr = capabilities;
	attr->orig_attr = orig;
	attr->device_cap_flags_ex |= orig.device_cap_flags;
	attr->phys_port_cnt_ex = orig.phys_port_cnt;
	ffv_odp_report(attr);
	return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * What the device is and can do: reported as it is (DESIGN D16). Process-private, any thread; nothing here changes.
 */
#include "verbs/device.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "verbs/context.h"
#include "verbs/gid.h"

/* enum ibv_device_cap_flags */
#define CAP_CURR_QP_STATE_MOD (1u << 7)
#define CAP_SYS_IMAGE_GUID (1u << 11)
#define CAP_RC_RNR_NAK_GEN (1u << 12)
#define CAP_SRQ_RESIZE (1u << 13)
#define CAP_MEM_WINDOW (1u << 17)
#define CAP_XRC (1u << 20)
#define CAP_RAW_IP_CSUM (1u << 26)
#define CAP_BLOCK_MULTICAST_LOOPBACK (1u << 22)
#define CAP_MEM_WINDOW_TYPE_2B (1u << 24)

/* enum ibv_port_cap_flags, and the bit of ibv_port_attr.flags */
#define PORT_CAP_IP_BASED_GIDS (1u << 26)
#define PORT_FLAG_GRH_REQUIRED 1u

#define GID_TYPE_ROCE_V2 2u
#define GID_ENTRIES 2u

_Static_assert(FFV_LIMIT_MR >= 131072, "windows leave room for regions");

/* The interface identifier of the link-local GID is unique where the container's address is. */
static uint64_t guid_of(const uint8_t link_local[16])
{
	uint64_t guid_be;

	memcpy(&guid_be, link_local + 8, sizeof guid_be);
	return guid_be;
}

int ffv_query_device_info(int index, struct ffv_device_info *info)
{
	uint8_t gid[16], link_local[16];

	if (index != 0)
		return ffv_fail(ENODEV, "there is no device %d: ffverbs has one, number 0", index);
	int rc = ffv_gid_own(gid, link_local);
	if (rc)
		return rc;
	memset(info, 0, sizeof *info);
	snprintf(info->name, sizeof info->name, "%s", FFV_DEVICE_NAME);
	info->guid_be = guid_of(link_local);
	info->node_type = 1;      /* IBV_NODE_CA */
	info->transport_type = 0; /* IBV_TRANSPORT_IB */
	info->index = 0;
	return 0;
}

static void fill_identity(const struct ffv_context *ctx, struct ffv_device_attr *attr)
{
	snprintf(attr->fw_ver, sizeof attr->fw_ver, "%s", ffv_version());
	attr->node_guid_be = guid_of(ctx->link_local_gid);
	attr->sys_image_guid_be = attr->node_guid_be;
	attr->vendor_id = FFV_VENDOR_ID;
	attr->vendor_part_id = FFV_ABI_VERSION;
	attr->hw_ver = FFV_LAYOUT_VERSION;
	attr->phys_port_cnt = 1;
}

int ffv_query_device(struct ffv_context *ctx, struct ffv_device_attr *attr)
{
	int rc = ffv_context_check(ctx);

	if (rc)
		return rc;
	*attr = (struct ffv_device_attr){
		.max_mr_size = FFV_LIMIT_MR_BYTES,
		.page_size_cap = 0xfffff000u,
		.max_qp = FFV_LIMIT_QP,
		.max_qp_wr = FFV_MAX_WR,
		.device_cap_flags = CAP_CURR_QP_STATE_MOD | CAP_SYS_IMAGE_GUID | CAP_RC_RNR_NAK_GEN | CAP_MEM_WINDOW |
				    CAP_SRQ_RESIZE | CAP_XRC | CAP_BLOCK_MULTICAST_LOOPBACK | CAP_RAW_IP_CSUM |
				    CAP_MEM_WINDOW_TYPE_2B,
		.max_sge = FFV_MAX_SGE,
		.max_sge_rd = FFV_MAX_SGE,
		.max_cq = FFV_LIMIT_CQ,
		.max_cqe = FFV_MAX_CQE,
		.max_mr = FFV_LIMIT_MR,
		.max_pd = FFV_LIMIT_PD,
		.max_qp_rd_atom = FFV_LIMIT_RD_ATOMIC,
		.max_res_rd_atom = FFV_LIMIT_RD_ATOMIC * FFV_LIMIT_QP,
		.max_qp_init_rd_atom = FFV_LIMIT_RD_ATOMIC,
		.atomic_cap = 2, /* IBV_ATOMIC_GLOB: they are atomic instructions of the CPU */
		.max_mw = FFV_LIMIT_MW,
		.max_raw_ethy_qp = FFV_LIMIT_QP,
		.max_mcast_grp = FFV_LIMIT_GROUPS,
		.max_mcast_qp_attach = FFV_LIMIT_GROUP_MEMBERS,
		.max_total_mcast_qp_attach = FFV_LIMIT_MEMBERS,
		.max_ah = FFV_LIMIT_AH,
		.max_srq = FFV_LIMIT_SRQ,
		.max_srq_wr = FFV_MAX_WR,
		.max_srq_sge = FFV_MAX_SGE,
		.max_pkeys = 1,
		.local_ca_ack_delay = 1,
	};
	fill_identity(ctx, attr);
	return 0;
}

static int check_port(const struct ffv_context *ctx, uint32_t port_num)
{
	int rc = ffv_context_check(ctx);

	if (!rc && port_num != FFV_PORT_NUM)
		return ffv_fail(EINVAL, "there is no port %u: %s has one, number %u", port_num, FFV_DEVICE_NAME,
				FFV_PORT_NUM);
	return rc;
}

int ffv_query_port(struct ffv_context *ctx, uint8_t port_num, struct ffv_port_attr *attr)
{
	int rc = check_port(ctx, port_num);

	if (rc)
		return rc;
	*attr = (struct ffv_port_attr){
		.state = 4, /* IBV_PORT_ACTIVE */
		.max_mtu = FFV_PORT_MTU,
		.active_mtu = FFV_PORT_MTU,
		.gid_tbl_len = FFV_GID_TABLE_ENTRIES,
		.port_cap_flags = PORT_CAP_IP_BASED_GIDS,
		.max_msg_sz = (uint32_t)FFV_MAX_MESSAGE,
		.pkey_tbl_len = 1,
		.max_vl_num = 1,
		/* Codes that stand for 100 Gb/s (4X EDR): the order of what one core copies, and a known combination. */
		.active_width = 2,
		.active_speed = 32,
		.phys_state = 5, /* link up */
		.link_layer = 2, /* IBV_LINK_LAYER_ETHERNET */
		.flags = PORT_FLAG_GRH_REQUIRED,
	};
	return 0;
}

/* ---- GIDs -------------------------------------------------------------------------------------------------------- */

static int check_gid_index(const struct ffv_context *ctx, uint32_t port_num, int64_t index)
{
	int rc = check_port(ctx, port_num);

	if (!rc && (index < 0 || index >= FFV_GID_TABLE_ENTRIES))
		return ffv_fail(EINVAL, "there is no GID index %lld: the table has %u entries", (long long)index,
				FFV_GID_TABLE_ENTRIES);
	return rc;
}

static const uint8_t *gid_at(const struct ffv_context *ctx, uint32_t index)
{
	return index == 0 ? ctx->link_local_gid : ctx->gid;
}

int ffv_query_gid(struct ffv_context *ctx, uint8_t port_num, int index, struct ffv_gid *gid)
{
	int rc = check_gid_index(ctx, port_num, index);

	if (rc)
		return rc;
	memset(gid, 0, sizeof *gid);
	if ((uint32_t)index < GID_ENTRIES)
		memcpy(gid->raw, gid_at(ctx, (uint32_t)index), sizeof gid->raw);
	return 0;
}

static void fill_gid_entry(const struct ffv_context *ctx, uint32_t index, struct ffv_gid_entry *entry)
{
	*entry = (struct ffv_gid_entry){ .gid_index = index, .port_num = FFV_PORT_NUM, .gid_type = GID_TYPE_ROCE_V2 };
	memcpy(entry->gid.raw, gid_at(ctx, index), sizeof entry->gid.raw);
}

static int check_gid_flags(uint32_t flags)
{
	return flags ? ffv_fail(EINVAL, "no flags of a GID query are known, but %#x were given", flags) : 0;
}

int ffv_query_gid_ex(struct ffv_context *ctx, uint32_t port_num, uint32_t gid_index, struct ffv_gid_entry *entry,
		     uint32_t flags)
{
	int rc = check_gid_index(ctx, port_num, gid_index);

	if (!rc)
		rc = check_gid_flags(flags);
	if (rc)
		return rc;
	if (gid_index >= GID_ENTRIES)
		return ffv_fail(ENODATA, "GID index %u is empty: indexes 0 and 1 are filled", gid_index);
	fill_gid_entry(ctx, gid_index, entry);
	return 0;
}

int ffv_query_gid_table(struct ffv_context *ctx, struct ffv_gid_entry *entries, size_t max_entries, uint32_t flags)
{
	int rc = ffv_context_check(ctx);

	if (!rc)
		rc = check_gid_flags(flags);
	if (rc)
		return rc;
	if (max_entries < GID_ENTRIES)
		return ffv_fail(EINVAL, "room for %zu GIDs was given, there are %u", max_entries, GID_ENTRIES);
	for (uint32_t i = 0; i < GID_ENTRIES; i++)
		fill_gid_entry(ctx, i, &entries[i]);
	return GID_ENTRIES;
}

int ffv_query_pkey(struct ffv_context *ctx, uint8_t port_num, int index, uint16_t *pkey_be)
{
	int rc = check_port(ctx, port_num);

	if (rc)
		return rc;
	if (index != 0)
		return ffv_fail(EINVAL, "there is no P_Key index %d: an Ethernet port has the default one at "
				"index 0", index);
	*pkey_be = htobe16(0xffff);
	return 0;
}

/* ---- the rest ---------------------------------------------------------------------------------------------------- */

uint64_t ffv_query_clock_ns(struct ffv_context *ctx)
{
	(void)ctx;
	return ffv_clock_ns();
}

int ffv_num_comp_vectors(struct ffv_context *ctx)
{
	(void)ctx;
	return FFV_COMP_VECTORS;
}

int ffv_cmd_fd(struct ffv_context *ctx)
{
	int rc = ffv_context_check(ctx);

	return rc ? rc : ctx->listen_fd;
}

/* SPDX-License-Identifier: MIT
 *
 * Address handles: where a datagram goes. Process-private; an address handle never changes, so posting reads it
 * without a lock.
 */
#include "verbs/ah.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "verbs/context.h"
#include "verbs/device.h"
#include "verbs/gid.h"

#define GRH_NEXT_BTH 0x1b /* InfiniBand transport (IBA 8.3.2) */
#define IP_PROTOCOL_UDP 17

int ffv_ah_attr_check(const struct ffv_ah_attr *attr)
{
	if (attr->port_num != FFV_PORT_NUM)
		return ffv_fail(EINVAL, "an address names port %u: %s has one, number %u", attr->port_num,
				FFV_DEVICE_NAME, FFV_PORT_NUM);
	if (!attr->is_global)
		return ffv_fail(EINVAL, "an address has no global route: an Ethernet port needs one (is_global = 1, "
				"dgid, sgid_index)");
	if (attr->grh.sgid_index >= FFV_GID_TABLE_FILLED)
		return ffv_fail(EINVAL, "an address names GID index %u, which is empty; 0 to %u are not",
				attr->grh.sgid_index, FFV_GID_TABLE_FILLED - 1);
	if (attr->sl > 15)
		return ffv_fail(EINVAL, "an address names service level %u, there are 0 to 15", attr->sl);
	if (attr->grh.flow_label > 0xfffff)
		return ffv_fail(EINVAL, "an address has flow label %#x, which has more than 20 bits",
				attr->grh.flow_label);
	return 0;
}

void ffv_ah_attr_dgid(const struct ffv_ah_attr *attr, uint8_t dgid[16])
{
	uint8_t raw[16];

	memcpy(raw, &attr->grh.dgid_subnet_prefix_be, 8);
	memcpy(raw + 8, &attr->grh.dgid_interface_id_be, 8);
	ffv_gid_canonical(raw, dgid);
}

static int count_ah(struct ffv_pd *pd)
{
	struct ffv_context *ctx = pd->ctx;
	bool full;

	pthread_mutex_lock(&ctx->lock);
	full = ctx->num_ah >= FFV_LIMIT_AH;
	if (!full) {
		ctx->num_ah++;
		pd->users++;
	}
	pthread_mutex_unlock(&ctx->lock);
	return full ? ffv_fail(ENOMEM, "the context has %u address handles, the most there can be", FFV_LIMIT_AH) : 0;
}

int ffv_create_ah(struct ffv_pd *pd, const struct ffv_ah_attr *attr, struct ffv_ah **out)
{
	int rc = ffv_context_check(pd ? pd->ctx : NULL);

	if (!rc)
		rc = ffv_ah_attr_check(attr);
	if (rc)
		return rc;
	struct ffv_ah *ah = calloc(1, sizeof *ah);
	if (!ah)
		return ffv_fail(ENOMEM, "out of memory for an address handle");
	rc = count_ah(pd);
	if (rc) {
		free(ah);
		return rc;
	}
	ah->pd = pd;
	ah->attr = *attr;
	ffv_ah_attr_dgid(attr, ah->dgid);
	*out = ah;
	return 0;
}

int ffv_destroy_ah(struct ffv_ah *ah)
{
	if (!ah)
		return ffv_fail(EINVAL, "no address handle was given");
	struct ffv_context *ctx = ah->pd->ctx;
	if (!ffv_context_check(ctx)) {
		pthread_mutex_lock(&ctx->lock);
		ctx->num_ah--;
		ah->pd->users--;
		pthread_mutex_unlock(&ctx->lock);
	}
	free(ah);
	return 0;
}

/* ---- answering a datagram ---------------------------------------------------------------------------------------- */

/* Index of the GID to which the datagram came; the IPv4-mapped one if it is none of ours. */
static uint8_t sgid_index_of(const struct ffv_context *ctx, const uint8_t gid[16])
{
	return memcmp(gid, ctx->link_local_gid, 16) == 0 ? 0 : 1;
}

static void answer(const struct ffv_context *ctx, struct ffv_ah_attr *attr, const uint8_t sender[16],
		   const uint8_t receiver[16])
{
	memcpy(&attr->grh.dgid_subnet_prefix_be, sender, 8);
	memcpy(&attr->grh.dgid_interface_id_be, sender + 8, 8);
	attr->grh.sgid_index = sgid_index_of(ctx, receiver);
	attr->is_global = 1;
}

static void answer_ipv4(const struct ffv_context *ctx, const uint8_t *ip, struct ffv_ah_attr *attr)
{
	uint8_t sender[16] = { [10] = 0xff, 0xff }, receiver[16] = { [10] = 0xff, 0xff };

	memcpy(sender + 12, ip + 12, 4);
	memcpy(receiver + 12, ip + 16, 4);
	answer(ctx, attr, sender, receiver);
	attr->grh.traffic_class = ip[1];
	attr->grh.hop_limit = ip[8];
}

static void answer_ipv6(const struct ffv_context *ctx, const struct ffv_grh *grh, struct ffv_ah_attr *attr)
{
	const uint8_t *word = (const uint8_t *)&grh->version_tclass_flow_be;

	answer(ctx, attr, grh->sgid.raw, grh->dgid.raw);
	attr->grh.traffic_class = (uint8_t)(word[0] << 4 | word[1] >> 4);
	attr->grh.flow_label = (uint32_t)(word[1] & 0xf) << 16 | (uint32_t)word[2] << 8 | word[3];
	attr->grh.hop_limit = grh->hop_limit;
}

/* A RoCE v2 packet over IPv4 leaves the first 20 bytes undefined and has its header in the last 20 (IBA annex A17). */
int ffv_init_ah_from_wc(struct ffv_context *ctx, uint8_t port_num, const struct ffv_wc *wc, const struct ffv_grh *grh,
			struct ffv_ah_attr *attr)
{
	struct ffv_ah_attr found = { .port_num = port_num };
	int rc = ffv_context_check(ctx);

	if (rc)
		return rc;
	if (port_num != FFV_PORT_NUM)
		return ffv_fail(EINVAL, "there is no port %u: %s has one, number %u", port_num, FFV_DEVICE_NAME,
				FFV_PORT_NUM);
	found.dlid = wc->slid;
	found.sl = wc->sl;
	found.src_path_bits = wc->dlid_path_bits;
	if (wc->wc_flags & FFV_WC_GRH) {
		const uint8_t *bytes = (const uint8_t *)grh;
		if (!grh)
			return ffv_fail(EINVAL, "the completion says that a GRH came with the datagram, but none was "
					"given: it stands in the first 40 bytes of the receive buffer");
		if (bytes[0] >> 4 == 6 && (grh->next_hdr == GRH_NEXT_BTH || grh->next_hdr == IP_PROTOCOL_UDP))
			answer_ipv6(ctx, grh, &found);
		else if (bytes[20] >> 4 == 4)
			answer_ipv4(ctx, bytes + 20, &found);
		else
			return ffv_fail(EINVAL, "the first 40 bytes of a datagram's buffer are neither an IPv6 nor an "
					"IPv4 header");
	}
	*attr = found;
	return 0;
}

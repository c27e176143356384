/* SPDX-License-Identifier: MIT
 *
 * Multicast groups of UD queue pairs (IBA 10.5.2): which of our queue pairs are in which, and what comes to them. The
 * tables are process-private and belong to who holds the service lock; what peers see of them is a word of bits, one for
 * a few groups, that says whether it is worth ringing us.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "verbs/device.h"
#include "verbs/port.h"

struct ffv_group {
	struct ffv_group *next;
	uint8_t gid[16];
	uint32_t count, room;
	struct ffv_qp **members;
};

static unsigned bucket_of(const uint8_t gid[16])
{
	return (unsigned)__builtin_ctzll(ffv_group_bit(gid));
}

static struct ffv_group *find_group(struct ffv_context *ctx, const uint8_t gid[16])
{
	for (struct ffv_group *group = ctx->port.groups[bucket_of(gid)]; group; group = group->next)
		if (!memcmp(group->gid, gid, 16))
			return group;
	return NULL;
}

static uint32_t find_member(const struct ffv_group *group, const struct ffv_qp *qp)
{
	uint32_t i = 0;

	while (i < group->count && group->members[i] != qp)
		i++;
	return i;
}

static void publish_bit(struct ffv_context *ctx, const uint8_t gid[16])
{
	uint64_t bit = ffv_group_bit(gid);
	_Atomic uint64_t *wanted = &ctx->view.arena->wanted_groups;

	if (ctx->port.groups[bucket_of(gid)])
		ffv_fetch_or(wanted, bit);
	else
		ffv_fetch_and(wanted, ~bit);
}

static bool shows_bit(const struct ffv_context *ctx, const uint8_t gid[16])
{
	return ffv_load_relaxed(&ctx->view.arena->wanted_groups) & ffv_group_bit(gid);
}

/* ---- attaching -------------------------------------------------------------------------------------------------------- */

static int make_room(struct ffv_group *group)
{
	if (group->count < group->room)
		return 0;
	uint32_t room = group->room ? 2 * group->room : 4;
	struct ffv_qp **grown = realloc(group->members, room * sizeof(struct ffv_qp *));
	if (!grown)
		return ffv_fail(ENOMEM, "no memory for the members of a multicast group");
	group->members = grown;
	group->room = room;
	return 0;
}

static void drop_group(struct ffv_context *ctx, struct ffv_group *group)
{
	struct ffv_group **at = &ctx->port.groups[bucket_of(group->gid)];

	while (*at != group)
		at = &(*at)->next;
	*at = group->next;
	ctx->port.num_groups--;
	free(group->members);
	free(group);
}

static int new_group(struct ffv_context *ctx, const uint8_t gid[16], struct ffv_group **out)
{
	struct ffv_group **bucket = &ctx->port.groups[bucket_of(gid)];

	if (ctx->port.num_groups >= FFV_LIMIT_GROUPS)
		return ffv_fail(ENOMEM, "queue pairs of the context are in %u multicast groups, the most there can be",
				FFV_LIMIT_GROUPS);
	struct ffv_group *group = calloc(1, sizeof *group);
	if (!group)
		return ffv_fail(ENOMEM, "no memory for a multicast group");
	memcpy(group->gid, gid, 16);
	group->next = *bucket;
	*bucket = group;
	ctx->port.num_groups++;
	*out = group;
	return 0;
}

static int add_member(struct ffv_context *ctx, struct ffv_qp *qp, const uint8_t gid[16])
{
	struct ffv_group *group = find_group(ctx, gid);

	if (group && find_member(group, qp) < group->count)
		return 0;
	if (ctx->port.num_members >= FFV_LIMIT_MEMBERS || (group && group->count >= FFV_LIMIT_GROUP_MEMBERS))
		return ffv_fail(ENOMEM, "a multicast group takes %u queue pairs of a context, all together %u",
				FFV_LIMIT_GROUP_MEMBERS, FFV_LIMIT_MEMBERS);
	int rc = group ? 0 : new_group(ctx, gid, &group);
	if (rc)
		return rc;
	rc = make_room(group);
	if (rc) {
		if (!group->count)
			drop_group(ctx, group);
		return rc;
	}
	group->members[group->count++] = qp;
	ctx->port.num_members++;
	qp->num_groups++;
	publish_bit(ctx, gid);
	return 0;
}

static int check_mcast(struct ffv_qp *qp, const struct ffv_gid *gid)
{
	int rc = ffv_context_check(qp ? qp->ctx : NULL);

	if (rc)
		return rc;
	if (qp->type != FFV_QPT_UD)
		return ffv_fail(EINVAL, "only UD queue pairs can be in multicast groups");
	if (!gid || !ffv_gid_is_multicast(gid->raw))
		return ffv_fail(EINVAL, "this is not the GID of a multicast group: those begin with ff, or are IPv4 multicast "
				"addresses as in ::ffff:224.0.0.0/4");
	return 0;
}

int ffv_attach_mcast(struct ffv_qp *qp, const struct ffv_gid *gid, uint16_t lid)
{
	int rc = check_mcast(qp, gid);

	(void)lid; /* of InfiniBand ports */
	if (!rc)
		rc = ffv_port_join(qp->ctx);
	if (rc)
		return rc;
	struct ffv_context *ctx = qp->ctx;
	pthread_mutex_lock(&ctx->service);
	ffv_port_drain(ctx); /* what was sent before is not for the new member */
	bool known = shows_bit(ctx, gid->raw);
	rc = add_member(ctx, qp, gid->raw);
	pthread_mutex_unlock(&ctx->service);
	if (!rc && !known)
		ffv_port_announce(ctx, true);
	return rc;
}

int ffv_detach_mcast(struct ffv_qp *qp, const struct ffv_gid *gid, uint16_t lid)
{
	int rc = check_mcast(qp, gid);

	(void)lid;
	if (rc)
		return rc;
	struct ffv_context *ctx = qp->ctx;
	pthread_mutex_lock(&ctx->service);
	ffv_port_drain(ctx); /* what was sent before is */
	struct ffv_group *group = find_group(ctx, gid->raw);
	uint32_t i = group ? find_member(group, qp) : 0;
	if (group && i < group->count) {
		/* Order among members means nothing. */
		group->members[i] = group->members[--group->count];
		ctx->port.num_members--;
		qp->num_groups--;
		if (!group->count)
			drop_group(ctx, group);
		publish_bit(ctx, gid->raw);
	} else {
		rc = ffv_fail(EINVAL, "queue pair %#x is not attached to this multicast group", qp->ref.qpn);
	}
	bool last = !rc && !shows_bit(ctx, gid->raw);
	pthread_mutex_unlock(&ctx->service);
	if (last)
		ffv_port_announce(ctx, false);
	return rc;
}

void ffv_mcast_finish(struct ffv_context *ctx)
{
	for (unsigned i = 0; i < sizeof ctx->port.groups / sizeof ctx->port.groups[0]; i++)
		while (ctx->port.groups[i])
			drop_group(ctx, ctx->port.groups[i]);
}

/* ---- receiving -------------------------------------------------------------------------------------------------------- */

void ffv_mcast_receive(struct ffv_context *ctx, const struct ffv_exec_env *env, const struct ffv_frame_shm *frame,
		       const uint8_t *bytes, bool own)
{
	struct ffv_group *group = find_group(ctx, frame->dgid);
	bool with_imm = frame->flags & FFV_FRAME_WITH_IMM;
	struct ffv_grh grh;
	struct ffv_arrival arrival = {
		.grh = &grh, .bytes = bytes, .length_bytes = frame->length_bytes,
		.imm_be = with_imm ? frame->imm_be : 0, .src_qp = frame->src_qpn,
		.wc_flags = FFV_WC_GRH | (with_imm ? FFV_WC_WITH_IMM : 0), .sl = frame->sl,
		.solicited = frame->flags & FFV_FRAME_SOLICITED,
	};

	if (!group)
		return; /* another one with the same bit */
	ffv_exec_fill_grh(&grh, frame->sgid, frame->dgid, frame->flow_tclass, frame->hop_limit, frame->length_bytes);
	for (uint32_t i = 0; i < group->count; i++) {
		struct ffv_qp *qp = group->members[i];
		bool from_itself = own && frame->src_qpn == qp->ref.qpn;
		if (ffv_load_relaxed(&qp->ref.shm->qkey) == frame->qkey && !(from_itself && qp->blocks_own_multicast))
			ffv_exec_deliver(env, &qp->ref, &arrival);
	}
}

/* SPDX-License-Identifier: MIT
 *
 * Flow steering: which raw packets that come to our port go to which queue pair (ibv_create_flow(3)). The rules are
 * process-private and belong to who holds the service lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "verbs/device.h"
#include "verbs/port.h"
#include "verbs/wq.h"

#define MOST_SPECS 16u
#define MOST_RULES 65536u

union spec {
	struct { uint32_t type; uint16_t size; } header;
	struct ffv_flow_spec_eth eth;
	struct ffv_flow_spec_ipv4 ipv4;
	struct ffv_flow_spec_ipv4_ext ipv4_ext;
	struct ffv_flow_spec_ipv6 ipv6;
	struct ffv_flow_spec_tcp_udp tcp_udp;
};

struct ffv_flow {
	struct ffv_flow *next;        /* normal rules by priority, then creation; the others by creation */
	struct ffv_qp *qp;
	uint32_t type;
	uint32_t flags;
	uint32_t priority;
	uint32_t num_specs;
	union spec specs[];
};

/* ---- what a packet must look like ----------------------------------------------------------------------------------------- */

static bool same_bytes(const uint8_t *bytes, const uint8_t *val, const uint8_t *mask, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if ((bytes[i] ^ val[i]) & mask[i])
			return false;
	return true;
}

static bool same16(uint16_t number, uint16_t val_be, uint16_t mask_be)
{
	uint8_t bytes[2] = { (uint8_t)(number >> 8), (uint8_t)number };

	return same_bytes(bytes, (const uint8_t *)&val_be, (const uint8_t *)&mask_be, 2);
}

static bool matches_eth(const struct ffv_packet *packet, const struct ffv_flow_spec_eth *spec)
{
	const struct ffv_flow_eth_filter *val = &spec->val, *mask = &spec->mask;

	if (mask->vlan_tag_be && !packet->has_vlan)
		return false;
	return same_bytes(packet->dst_mac, val->dst_mac, mask->dst_mac, 6) &&
	       same_bytes(packet->src_mac, val->src_mac, mask->src_mac, 6) &&
	       same16(packet->ether_type, val->ether_type_be, mask->ether_type_be) &&
	       same16(packet->vlan_tag, val->vlan_tag_be, mask->vlan_tag_be);
}

static bool matches_ipv4(const struct ffv_packet *packet, const struct ffv_flow_spec_ipv4 *spec)
{
	return packet->ip_version == 4 &&
	       same_bytes(packet->src_ip, (const uint8_t *)&spec->val.src_ip_be, (const uint8_t *)&spec->mask.src_ip_be, 4) &&
	       same_bytes(packet->dst_ip, (const uint8_t *)&spec->val.dst_ip_be, (const uint8_t *)&spec->mask.dst_ip_be, 4);
}

static bool matches_ipv4_ext(const struct ffv_packet *packet, const struct ffv_flow_spec_ipv4_ext *spec)
{
	const struct ffv_flow_ipv4_ext_filter *val = &spec->val, *mask = &spec->mask;

	return packet->ip_version == 4 &&
	       same_bytes(packet->src_ip, (const uint8_t *)&val->src_ip_be, (const uint8_t *)&mask->src_ip_be, 4) &&
	       same_bytes(packet->dst_ip, (const uint8_t *)&val->dst_ip_be, (const uint8_t *)&mask->dst_ip_be, 4) &&
	       !((packet->protocol ^ val->proto) & mask->proto) && !((packet->tos ^ val->tos) & mask->tos) &&
	       !((packet->ttl ^ val->ttl) & mask->ttl) && !((packet->ip_flags ^ val->flags) & mask->flags);
}

static bool matches_ipv6(const struct ffv_packet *packet, const struct ffv_flow_spec_ipv6 *spec)
{
	const struct ffv_flow_ipv6_filter *val = &spec->val, *mask = &spec->mask;
	const uint8_t label[4] = { 0, (uint8_t)(packet->flow_label >> 16), (uint8_t)(packet->flow_label >> 8),
				   (uint8_t)packet->flow_label };

	return packet->ip_version == 6 && same_bytes(packet->src_ip, val->src_ip, mask->src_ip, 16) &&
	       same_bytes(packet->dst_ip, val->dst_ip, mask->dst_ip, 16) &&
	       same_bytes(label, (const uint8_t *)&val->flow_label_be, (const uint8_t *)&mask->flow_label_be, 4) &&
	       !((packet->protocol ^ val->next_hdr) & mask->next_hdr) &&
	       !((packet->tos ^ val->traffic_class) & mask->traffic_class) &&
	       !((packet->ttl ^ val->hop_limit) & mask->hop_limit);
}

static bool matches_tcp_udp(const struct ffv_packet *packet, const struct ffv_flow_spec_tcp_udp *spec)
{
	uint32_t protocol = spec->type == FFV_FLOW_SPEC_TCP ? FFV_IP_PROTOCOL_TCP : FFV_IP_PROTOCOL_UDP;

	return packet->has_ports && packet->protocol == protocol &&
	       same16(packet->dst_port, spec->val.dst_port_be, spec->mask.dst_port_be) &&
	       same16(packet->src_port, spec->val.src_port_be, spec->mask.src_port_be);
}

static bool matches_spec(const struct ffv_packet *packet, const union spec *spec)
{
	switch (spec->header.type) {
	case FFV_FLOW_SPEC_ETH:
		return matches_eth(packet, &spec->eth);
	case FFV_FLOW_SPEC_IPV4:
		return matches_ipv4(packet, &spec->ipv4);
	case FFV_FLOW_SPEC_IPV4_EXT:
		return matches_ipv4_ext(packet, &spec->ipv4_ext);
	case FFV_FLOW_SPEC_IPV6:
		return matches_ipv6(packet, &spec->ipv6);
	default:
		return matches_tcp_udp(packet, &spec->tcp_udp);
	}
}

static bool matches(const struct ffv_packet *packet, const struct ffv_flow *flow)
{
	for (uint32_t i = 0; i < flow->num_specs; i++)
		if (!matches_spec(packet, &flow->specs[i]))
			return false;
	return true;
}

/* ---- receiving ------------------------------------------------------------------------------------------------------------ */

/* One packet on its way through the rules. */
struct steered {
	struct ffv_context *ctx;
	const struct ffv_exec_env *env;
	struct ffv_packet packet;
	struct ffv_arrival arrival;
};

/* Each queue pair gets one copy, however many rules say so. */
static void deliver(struct steered *steered, struct ffv_flow *flow)
{
	struct ffv_qp *qp = flow->qp;

	if (qp->last_packet == steered->ctx->port.num_packets)
		return;
	qp->last_packet = steered->ctx->port.num_packets;
	ffv_exec_deliver(steered->env, qp->rss ? ffv_rss_pick(qp->rss, &steered->packet) : &qp->ref, &steered->arrival);
}

static bool is_same_rule(const struct ffv_flow *a, const struct ffv_flow *b)
{
	return a->priority == b->priority && a->num_specs == b->num_specs &&
	       !memcmp(a->specs, b->specs, a->num_specs * sizeof a->specs[0]);
}

/* True if a rule trapped it. */
static bool steer(struct steered *steered)
{
	const struct ffv_flow *trap = NULL;

	for (struct ffv_flow *flow = steered->ctx->port.flows[FFV_FLOW_ATTR_NORMAL]; flow; flow = flow->next) {
		if (trap && flow->priority != trap->priority)
			break;
		if (trap ? !is_same_rule(flow, trap) : !matches(&steered->packet, flow))
			continue;
		deliver(steered, flow);
		if (!trap && !(flow->flags & FFV_FLOW_ATTR_FLAGS_DONT_TRAP))
			trap = flow;
	}
	return trap != NULL;
}

static void deliver_all(struct steered *steered, uint32_t type)
{
	for (struct ffv_flow *flow = steered->ctx->port.flows[type]; flow; flow = flow->next)
		deliver(steered, flow);
}

void ffv_flow_receive(struct ffv_context *ctx, const struct ffv_exec_env *env, const struct ffv_frame_shm *frame,
		      const uint8_t *bytes)
{
	struct steered steered = { .ctx = ctx, .env = env,
				   .arrival = { .bytes = bytes, .length_bytes = frame->length_bytes,
						.solicited = frame->flags & FFV_FRAME_SOLICITED } };

	if (!ffv_packet_parse(bytes, frame->length_bytes, &steered.packet))
		return;
	if (ffv_packet_checksums_are_right(&steered.packet))
		steered.arrival.wc_flags = FFV_WC_IP_CSUM_OK;
	ctx->port.num_packets++;
	deliver_all(&steered, FFV_FLOW_ATTR_SNIFFER);
	if (steer(&steered))
		return;
	if (steered.packet.dst_mac[0] & 1)
		deliver_all(&steered, FFV_FLOW_ATTR_MC_DEFAULT);
	deliver_all(&steered, FFV_FLOW_ATTR_ALL_DEFAULT);
}

/* ---- making rules --------------------------------------------------------------------------------------------------------- */

/* Bytes of a specification of this type, 0 if there is none. */
static size_t size_of_spec(uint32_t type)
{
	switch (type) {
	case FFV_FLOW_SPEC_ETH:
		return sizeof(struct ffv_flow_spec_eth);
	case FFV_FLOW_SPEC_IPV4:
		return sizeof(struct ffv_flow_spec_ipv4);
	case FFV_FLOW_SPEC_IPV4_EXT:
		return sizeof(struct ffv_flow_spec_ipv4_ext);
	case FFV_FLOW_SPEC_IPV6:
		return sizeof(struct ffv_flow_spec_ipv6);
	case FFV_FLOW_SPEC_TCP:
	case FFV_FLOW_SPEC_UDP:
		return sizeof(struct ffv_flow_spec_tcp_udp);
	default:
		return 0;
	}
}

/* What does not count is made the same, so that equal rules have equal bytes. */
static void normalise(union spec *spec)
{
	size_t head = spec->header.type == FFV_FLOW_SPEC_ETH || spec->header.type == FFV_FLOW_SPEC_TCP ||
				      spec->header.type == FFV_FLOW_SPEC_UDP ? 6 : 8;
	size_t filter = spec->header.type == FFV_FLOW_SPEC_ETH	       ? sizeof spec->eth.val
			: spec->header.type == FFV_FLOW_SPEC_IPV4     ? sizeof spec->ipv4.val
			: spec->header.type == FFV_FLOW_SPEC_IPV4_EXT ? sizeof spec->ipv4_ext.val
			: spec->header.type == FFV_FLOW_SPEC_IPV6     ? sizeof spec->ipv6.val
								      : sizeof spec->tcp_udp.val;
	uint8_t *val = (uint8_t *)spec + head, *mask = val + filter;

	for (size_t i = 0; i < filter; i++)
		val[i] &= mask[i];
}

/* Copies the specifications, which are the caller's and of any size and alignment. */
static int copy_specs(const struct ffv_flow_attr *attr, struct ffv_flow *flow)
{
	const uint8_t *next = (const uint8_t *)attr + sizeof *attr;
	size_t left = attr->size - sizeof *attr;

	for (uint32_t i = 0; i < attr->num_of_specs; i++) {
		union spec *spec = &flow->specs[i];
		if (left < sizeof spec->header)
			return ffv_fail(EINVAL, "a flow of %u bytes ends before its specification %u: size counts the attributes "
					"and all specifications", attr->size, i);
		memcpy(&spec->header, next, sizeof spec->header);
		size_t size = size_of_spec(spec->header.type);
		if (!size)
			return ffv_fail(EOPNOTSUPP, "flow specifications of type %#x are not supported; Ethernet (0x20), IPv4 "
					"(0x30, 0x32), IPv6 (0x31), TCP (0x40) and UDP (0x41) are", spec->header.type);
		if (spec->header.size != size || left < size)
			return ffv_fail(EINVAL, "flow specification %u (type %#x) has %u bytes, and %zu are left; it takes %zu", i,
					spec->header.type, spec->header.size, left, size);
		memcpy(spec, next, size);
		normalise(spec);
		next += size;
		left -= size;
	}
	return left ? ffv_fail(EINVAL, "a flow has %zu bytes after its %u specifications", left, attr->num_of_specs) : 0;
}

static int check_flow(const struct ffv_qp *qp, const struct ffv_flow_attr *attr)
{
	if (!attr || attr->size < sizeof *attr || attr->comp_mask)
		return ffv_fail(EINVAL, "a flow's attributes have a size of %zu bytes and more, and no comp_mask", sizeof *attr);
	if (qp->type != FFV_QPT_RAW_PACKET)
		return ffv_fail(qp->type == FFV_QPT_UD ? EOPNOTSUPP : EINVAL, "packets can be steered to raw packet queue pairs");
	if (attr->type > FFV_FLOW_ATTR_SNIFFER)
		return ffv_fail(EINVAL, "there is no flow type %u", attr->type);
	if (attr->port != FFV_PORT_NUM)
		return ffv_fail(EINVAL, "a flow names port %u: %s has one, number %u", attr->port, FFV_DEVICE_NAME, FFV_PORT_NUM);
	if (attr->flags & FFV_FLOW_ATTR_FLAGS_EGRESS)
		return ffv_fail(EOPNOTSUPP, "rules for what is sent are not supported");
	if (attr->flags & ~(uint32_t)FFV_FLOW_ATTR_FLAGS_DONT_TRAP)
		return ffv_fail(EINVAL, "flow flags %#x are not known", attr->flags);
	if (attr->flags && attr->type != FFV_FLOW_ATTR_NORMAL)
		return ffv_fail(EINVAL, "only normal rules can leave what they match to others (DONT_TRAP)");
	if (attr->num_of_specs > MOST_SPECS)
		return ffv_fail(EINVAL, "a flow has at most %u specifications, not %u", MOST_SPECS, attr->num_of_specs);
	if (attr->num_of_specs && attr->type != FFV_FLOW_ATTR_NORMAL)
		return ffv_fail(EINVAL, "only normal rules have specifications");
	return 0;
}

static int insert(struct ffv_context *ctx, struct ffv_flow *flow)
{
	struct ffv_flow **at = &ctx->port.flows[flow->type];

	if (ctx->port.num_flows >= MOST_RULES)
		return ffv_fail(ENOMEM, "the context has %u flows, the most there can be", MOST_RULES);
	while (*at && (flow->type != FFV_FLOW_ATTR_NORMAL || (*at)->priority <= flow->priority))
		at = &(*at)->next;
	flow->next = *at;
	*at = flow;
	flow->qp->num_flows++;
	ffv_store_relaxed(&ctx->view.arena->wants_raw, ++ctx->port.num_flows);
	return 0;
}

int ffv_create_flow(struct ffv_qp *qp, const struct ffv_flow_attr *attr, struct ffv_flow **out)
{
	int rc = ffv_context_check(qp ? qp->ctx : NULL);
	bool first = false;

	if (!rc)
		rc = check_flow(qp, attr);
	if (rc)
		return rc;
	struct ffv_flow *flow = calloc(1, sizeof *flow + attr->num_of_specs * sizeof flow->specs[0]);
	if (!flow)
		return ffv_fail(ENOMEM, "no memory for a flow");
	flow->qp = qp;
	flow->type = attr->type;
	flow->flags = attr->flags;
	flow->priority = attr->priority;
	flow->num_specs = attr->num_of_specs;
	rc = copy_specs(attr, flow);
	if (!rc)
		rc = ffv_port_join(qp->ctx);
	if (!rc) {
		pthread_mutex_lock(&qp->ctx->service);
		ffv_port_drain(qp->ctx); /* what was sent before is not for the new rule */
		rc = insert(qp->ctx, flow);
		first = !rc && qp->ctx->port.num_flows == 1;
		pthread_mutex_unlock(&qp->ctx->service);
	}
	if (rc) {
		free(flow);
		return rc;
	}
	if (first)
		ffv_port_announce(qp->ctx, true);
	*out = flow;
	return 0;
}

int ffv_destroy_flow(struct ffv_flow *flow)
{
	if (!flow)
		return ffv_fail(EINVAL, "no flow was given");
	struct ffv_context *ctx = flow->qp->ctx;
	if (!ffv_context_check(ctx)) {
		pthread_mutex_lock(&ctx->service);
		ffv_port_drain(ctx); /* what was sent before is */
		struct ffv_flow **at = &ctx->port.flows[flow->type];
		while (*at != flow)
			at = &(*at)->next;
		*at = flow->next;
		flow->qp->num_flows--;
		ffv_store_relaxed(&ctx->view.arena->wants_raw, --ctx->port.num_flows);
		bool last = !ctx->port.num_flows;
		pthread_mutex_unlock(&ctx->service);
		if (last)
			ffv_port_announce(ctx, false);
	}
	free(flow);
	return 0;
}

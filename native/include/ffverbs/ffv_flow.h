/* SPDX-License-Identifier: MIT
 *
 * ffverbs: flow steering, which raw packets go to which queue pair. Part of ffv.h, which includes it; the layouts and
 * values are those of libibverbs (ibv_create_flow(3)).
 */
#ifndef FFVERBS_FFV_FLOW_H
#define FFVERBS_FFV_FLOW_H

#include <stdint.h>

enum ffv_flow_attr_type {
	FFV_FLOW_ATTR_NORMAL = 0,       /* what matches all specifications */
	FFV_FLOW_ATTR_ALL_DEFAULT = 1,  /* what no normal rule takes */
	FFV_FLOW_ATTR_MC_DEFAULT = 2,   /* of that, what goes to a multicast address */
	FFV_FLOW_ATTR_SNIFFER = 3       /* a copy of everything */
};

enum ffv_flow_flags {
	FFV_FLOW_ATTR_FLAGS_DONT_TRAP = 2, /* goes on to rules that come later */
	FFV_FLOW_ATTR_FLAGS_EGRESS = 4     /* not supported */
};

enum ffv_flow_spec_type {
	FFV_FLOW_SPEC_ETH = 0x20, FFV_FLOW_SPEC_IPV4 = 0x30, FFV_FLOW_SPEC_IPV6 = 0x31, FFV_FLOW_SPEC_IPV4_EXT = 0x32,
	FFV_FLOW_SPEC_TCP = 0x40, FFV_FLOW_SPEC_UDP = 0x41
};

struct ffv_flow_eth_filter { uint8_t dst_mac[6]; uint8_t src_mac[6]; uint16_t ether_type_be; uint16_t vlan_tag_be; };
struct ffv_flow_spec_eth {
	uint32_t type;              /* enum ffv_flow_spec_type */
	uint16_t size;
	struct ffv_flow_eth_filter val;
	struct ffv_flow_eth_filter mask;
};

struct ffv_flow_ipv4_filter { uint32_t src_ip_be; uint32_t dst_ip_be; };
struct ffv_flow_spec_ipv4 {
	uint32_t type;
	uint16_t size;
	struct ffv_flow_ipv4_filter val;
	struct ffv_flow_ipv4_filter mask;
};

/* flags: 2 = don't fragment, 4 = more fragments. */
struct ffv_flow_ipv4_ext_filter {
	uint32_t src_ip_be;
	uint32_t dst_ip_be;
	uint8_t proto;
	uint8_t tos;
	uint8_t ttl;
	uint8_t flags;
};
struct ffv_flow_spec_ipv4_ext {
	uint32_t type;
	uint16_t size;
	struct ffv_flow_ipv4_ext_filter val;
	struct ffv_flow_ipv4_ext_filter mask;
};

struct ffv_flow_ipv6_filter {
	uint8_t src_ip[16];
	uint8_t dst_ip[16];
	uint32_t flow_label_be;
	uint8_t next_hdr;
	uint8_t traffic_class;
	uint8_t hop_limit;
};
struct ffv_flow_spec_ipv6 {
	uint32_t type;
	uint16_t size;
	struct ffv_flow_ipv6_filter val;
	struct ffv_flow_ipv6_filter mask;
};

struct ffv_flow_tcp_udp_filter { uint16_t dst_port_be; uint16_t src_port_be; };
struct ffv_flow_spec_tcp_udp {
	uint32_t type;
	uint16_t size;
	struct ffv_flow_tcp_udp_filter val;
	struct ffv_flow_tcp_udp_filter mask;
};

struct ffv_flow_attr {
	uint32_t comp_mask;         /* 0 */
	uint32_t type;              /* enum ffv_flow_attr_type */
	uint16_t size;              /* of this and the specifications, which follow it without a gap */
	uint16_t priority;          /* normal rules: lower ones are asked first */
	uint8_t num_of_specs;
	uint8_t port;
	uint32_t flags;             /* enum ffv_flow_flags */
};

struct ffv_flow;
struct ffv_qp;

/* Steers packets that come to the context's port to a raw packet queue pair. Every context of the node directory is a
 * port of one Ethernet segment, and everything that is sent on it comes to every port, the sender's own included.
 * Sniffers get a copy of everything. Of the normal rules, in order of priority, then of creation, the first that matches
 * takes the packet, together with those of the same priority and the same specifications (each QP gets one copy); one
 * that does not trap leaves it to the next as well. -EINVAL, -EOPNOTSUPP for what is not described here. */
int ffv_create_flow(struct ffv_qp *qp, const struct ffv_flow_attr *attr, struct ffv_flow **out);
int ffv_destroy_flow(struct ffv_flow *flow);

#endif

/* SPDX-License-Identifier: MIT
 *
 * What stands in an Ethernet frame. Pure functions of its bytes, which may be anything: whatever is cut short is not
 * there. Numbers are in host order, addresses as they stand in the frame.
 */
#ifndef FFV_ENGINE_PACKET_H
#define FFV_ENGINE_PACKET_H

#include <stdbool.h>
#include <stdint.h>

#define FFV_ETHER_TYPE_IPV4 0x0800u
#define FFV_ETHER_TYPE_IPV6 0x86ddu
#define FFV_IP_PROTOCOL_TCP 6u
#define FFV_IP_PROTOCOL_UDP 17u
#define FFV_TOEPLITZ_KEY_BYTES 40u

struct ffv_packet {
	const uint8_t *bytes;
	uint32_t length_bytes;
	const uint8_t *dst_mac;
	const uint8_t *src_mac;
	bool has_vlan;
	uint16_t vlan_tag;            /* of the outer tag */
	uint16_t ether_type;          /* behind the tag, if there is one */
	uint8_t ip_version;           /* 4, 6, or 0 = no (whole) IP header */
	uint8_t protocol;             /* IPv4 protocol or IPv6 next header */
	uint8_t tos;                  /* or traffic class */
	uint8_t ttl;                  /* or hop limit */
	uint8_t ip_flags;             /* IPv4: 2 = don't fragment, 4 = more fragments */
	uint32_t flow_label;          /* IPv6 */
	const uint8_t *src_ip;        /* 4 or 16 bytes */
	const uint8_t *dst_ip;
	uint32_t ip_offset;
	bool has_ports;               /* TCP or UDP, of a first fragment or an unfragmented packet */
	uint16_t src_port;
	uint16_t dst_port;
	uint32_t l4_offset;           /* of the TCP or UDP header, if has_ports */
	uint32_t l4_length;           /* of it and its payload, as the IP header says and the frame has; 0 = cut short */
};

/* False if it is too short for an Ethernet header. `packet` points into `bytes`. */
bool ffv_packet_parse(const uint8_t *bytes, uint32_t length_bytes, struct ffv_packet *packet);
/* True if the IPv4 header's checksum is right, and that of TCP or UDP (which UDP may leave out over IPv4). */
bool ffv_packet_checksums_are_right(const struct ffv_packet *packet);
/* Writes the checksums that the frame's headers have room for. */
void ffv_packet_fill_checksums(uint8_t *bytes, uint32_t length_bytes);

/* The Toeplitz hash (Microsoft's specification of receive-side scaling) of `length_bytes` (at most 36) bytes. */
uint32_t ffv_toeplitz(const uint8_t key[FFV_TOEPLITZ_KEY_BYTES], const uint8_t *bytes, uint32_t length_bytes);
/* The hash of those fields (enum ffv_rx_hash_fields) that the packet has: source and destination address, source and
 * destination port, in this order; 0 if it has none. */
uint32_t ffv_packet_hash(const struct ffv_packet *packet, const uint8_t key[FFV_TOEPLITZ_KEY_BYTES], uint64_t fields);

#endif

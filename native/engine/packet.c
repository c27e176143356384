/* SPDX-License-Identifier: MIT
 *
 * See packet.h.
 */
#include "engine/packet.h"

#include <string.h>

#include <ffverbs/ffv.h>

#define MAC_BYTES 6u
#define ETHERNET_BYTES 14u
#define VLAN_BYTES 4u
#define IPV4_BYTES 20u
#define IPV6_BYTES 40u
#define UDP_BYTES 8u
#define TCP_BYTES 20u
#define UDP_CHECKSUM_OFFSET 6u
#define TCP_CHECKSUM_OFFSET 16u

static uint16_t read16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

/* ---- parsing ---------------------------------------------------------------------------------------------------------- */

static bool is_vlan(uint16_t ether_type)
{
	return ether_type == 0x8100 || ether_type == 0x88a8;
}

/* `room`: bytes of the IP packet from the header's end on, as the header says. */
static void parse_ports(struct ffv_packet *packet, uint32_t offset, uint32_t room)
{
	uint32_t header = packet->protocol == FFV_IP_PROTOCOL_TCP ? TCP_BYTES : UDP_BYTES;

	if (packet->protocol != FFV_IP_PROTOCOL_TCP && packet->protocol != FFV_IP_PROTOCOL_UDP)
		return;
	if (room < header || packet->length_bytes - offset < header)
		return;
	packet->has_ports = true;
	packet->src_port = read16(packet->bytes + offset);
	packet->dst_port = read16(packet->bytes + offset + 2);
	packet->l4_offset = offset;
	packet->l4_length = room <= packet->length_bytes - offset ? room : 0;
}

static void parse_ipv4(struct ffv_packet *packet, uint32_t offset)
{
	const uint8_t *ip = packet->bytes + offset;
	uint32_t left = packet->length_bytes - offset;

	if (left < IPV4_BYTES || ip[0] >> 4 != 4 || (ip[0] & 15) * 4u < IPV4_BYTES)
		return;
	uint32_t header = (ip[0] & 15) * 4u, total = read16(ip + 2);
	uint16_t fragment = read16(ip + 6);
	packet->ip_version = 4;
	packet->ip_offset = offset;
	packet->tos = ip[1];
	packet->ip_flags = (uint8_t)((fragment & 0x4000 ? 2 : 0) | (fragment & 0x2000 ? 4 : 0));
	packet->ttl = ip[8];
	packet->protocol = ip[9];
	packet->src_ip = ip + 12;
	packet->dst_ip = ip + 16;
	if (header <= left && header <= total && !(fragment & 0x1fff))
		parse_ports(packet, offset + header, total - header);
}

static void parse_ipv6(struct ffv_packet *packet, uint32_t offset)
{
	const uint8_t *ip = packet->bytes + offset;

	if (packet->length_bytes - offset < IPV6_BYTES || ip[0] >> 4 != 6)
		return;
	packet->ip_version = 6;
	packet->ip_offset = offset;
	packet->tos = (uint8_t)(ip[0] << 4 | ip[1] >> 4);
	packet->flow_label = (uint32_t)(ip[1] & 15) << 16 | read16(ip + 2);
	packet->protocol = ip[6];
	packet->ttl = ip[7];
	packet->src_ip = ip + 8;
	packet->dst_ip = ip + 24;
	parse_ports(packet, offset + IPV6_BYTES, read16(ip + 4));
}

bool ffv_packet_parse(const uint8_t *bytes, uint32_t length_bytes, struct ffv_packet *packet)
{
	uint32_t offset = ETHERNET_BYTES;

	*packet = (struct ffv_packet){ .bytes = bytes, .length_bytes = length_bytes };
	if (length_bytes < ETHERNET_BYTES)
		return false;
	packet->dst_mac = bytes;
	packet->src_mac = bytes + MAC_BYTES;
	packet->ether_type = read16(bytes + 2 * MAC_BYTES);
	while (is_vlan(packet->ether_type) && length_bytes - offset >= VLAN_BYTES) {
		if (!packet->has_vlan)
			packet->vlan_tag = read16(bytes + offset);
		packet->has_vlan = true;
		packet->ether_type = read16(bytes + offset + 2);
		offset += VLAN_BYTES;
	}
	if (packet->ether_type == FFV_ETHER_TYPE_IPV4)
		parse_ipv4(packet, offset);
	else if (packet->ether_type == FFV_ETHER_TYPE_IPV6)
		parse_ipv6(packet, offset);
	return true;
}

/* ---- checksums (RFC 1071, 768, 9293, 8200) ------------------------------------------------------------------------------ */

static uint32_t add_bytes(uint32_t sum, const uint8_t *bytes, uint32_t length)
{
	for (uint32_t i = 0; i + 1 < length; i += 2)
		sum += read16(bytes + i);
	return length & 1 ? sum + (uint32_t)(bytes[length - 1] << 8) : sum;
}

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static uint32_t ipv4_header_bytes(const struct ffv_packet *packet)
{
	return (packet->bytes[packet->ip_offset] & 15) * 4u;
}

/* 0 if the header, its checksum included, is right; the checksum to write if that stands at 0. */
static uint16_t ipv4_sum(const struct ffv_packet *packet)
{
	return fold(add_bytes(0, packet->bytes + packet->ip_offset, ipv4_header_bytes(packet)));
}

static uint16_t l4_sum(const struct ffv_packet *packet)
{
	uint32_t address_bytes = packet->ip_version == 4 ? 4 : 16;
	uint32_t sum = add_bytes(0, packet->src_ip, address_bytes);

	sum = add_bytes(sum, packet->dst_ip, address_bytes) + packet->protocol + packet->l4_length;
	return fold(add_bytes(sum, packet->bytes + packet->l4_offset, packet->l4_length));
}

static bool has_whole_ipv4_header(const struct ffv_packet *packet)
{
	return packet->ip_version == 4 && ipv4_header_bytes(packet) <= packet->length_bytes - packet->ip_offset;
}

static uint32_t l4_checksum_offset(const struct ffv_packet *packet)
{
	return packet->l4_offset + (packet->protocol == FFV_IP_PROTOCOL_TCP ? TCP_CHECKSUM_OFFSET : UDP_CHECKSUM_OFFSET);
}

/* A fragment's checksum covers what other frames carry. */
static bool has_whole_l4(const struct ffv_packet *packet)
{
	return packet->has_ports && packet->l4_length && !(packet->ip_flags & 4);
}

bool ffv_packet_checksums_are_right(const struct ffv_packet *packet)
{
	if (packet->ip_version != 6 && (!has_whole_ipv4_header(packet) || ipv4_sum(packet)))
		return false;
	if (!has_whole_l4(packet))
		return false;
	if (packet->ip_version == 4 && packet->protocol == FFV_IP_PROTOCOL_UDP &&
	    read16(packet->bytes + l4_checksum_offset(packet)) == 0)
		return true;
	return l4_sum(packet) == 0;
}

void ffv_packet_fill_checksums(uint8_t *bytes, uint32_t length_bytes)
{
	struct ffv_packet packet;

	if (!ffv_packet_parse(bytes, length_bytes, &packet))
		return;
	if (has_whole_ipv4_header(&packet)) {
		uint8_t *at = bytes + packet.ip_offset + 10;
		at[0] = at[1] = 0;
		uint16_t sum = ipv4_sum(&packet);
		at[0] = (uint8_t)(sum >> 8);
		at[1] = (uint8_t)sum;
	}
	if (has_whole_l4(&packet)) {
		uint8_t *at = bytes + l4_checksum_offset(&packet);
		at[0] = at[1] = 0;
		uint16_t sum = l4_sum(&packet);
		if (!sum && packet.protocol == FFV_IP_PROTOCOL_UDP)
			sum = 0xffff; /* 0 says that there is none */
		at[0] = (uint8_t)(sum >> 8);
		at[1] = (uint8_t)sum;
	}
}

/* ---- hashing ----------------------------------------------------------------------------------------------------------- */

uint32_t ffv_toeplitz(const uint8_t key[FFV_TOEPLITZ_KEY_BYTES], const uint8_t *bytes, uint32_t length_bytes)
{
	uint32_t window = (uint32_t)read16(key) << 16 | read16(key + 2), hash = 0;

	for (uint32_t i = 0; i < length_bytes; i++) {
		for (int bit = 7; bit >= 0; bit--) {
			if (bytes[i] >> bit & 1)
				hash ^= window;
			window = window << 1 | (key[i + 4] >> bit & 1);
		}
	}
	return hash;
}

struct input { uint8_t bytes[36]; uint32_t length; };

static void add_field(struct input *input, uint64_t fields, uint64_t field, const void *bytes, uint32_t length)
{
	if (!(fields & field))
		return;
	memcpy(input->bytes + input->length, bytes, length);
	input->length += length;
}

uint32_t ffv_packet_hash(const struct ffv_packet *packet, const uint8_t key[FFV_TOEPLITZ_KEY_BYTES], uint64_t fields)
{
	bool v4 = packet->ip_version == 4, tcp = packet->protocol == FFV_IP_PROTOCOL_TCP;
	struct input input = { .length = 0 };

	if (packet->ip_version) {
		uint32_t length = v4 ? 4 : 16;
		add_field(&input, fields, v4 ? FFV_RX_HASH_SRC_IPV4 : FFV_RX_HASH_SRC_IPV6, packet->src_ip, length);
		add_field(&input, fields, v4 ? FFV_RX_HASH_DST_IPV4 : FFV_RX_HASH_DST_IPV6, packet->dst_ip, length);
	}
	/* Fragments go where the first one, which alone has ports, would go without them. */
	if (packet->has_ports && !(packet->ip_flags & 4)) {
		const uint8_t *ports = packet->bytes + packet->l4_offset;
		add_field(&input, fields, tcp ? FFV_RX_HASH_SRC_PORT_TCP : FFV_RX_HASH_SRC_PORT_UDP, ports, 2);
		add_field(&input, fields, tcp ? FFV_RX_HASH_DST_PORT_TCP : FFV_RX_HASH_DST_PORT_UDP, ports + 2, 2);
	}
	return ffv_toeplitz(key, input.bytes, input.length);
}

/* Ethernet frames for tests: built field by field, so that any of them can be wrong. */
#ifndef FFV_TESTS_FRAMES_H
#define FFV_TESTS_FRAMES_H

#include <arpa/inet.h>
#include <stdint.h>
#include <string.h>

#include "check.h"

struct frame { uint8_t bytes[2048]; uint32_t length; };

struct frame_of {
	const char *dst_mac, *src_mac;     /* six bytes; NULL: defaults */
	uint16_t vlan_tag;                 /* 0 = none */
	int family;                        /* AF_INET, AF_INET6, 0 = not IP */
	const char *src_ip, *dst_ip;
	uint8_t protocol;
	uint16_t src_port, dst_port;
	uint16_t fragment;                 /* IPv4: flags and offset, as in the header */
	uint8_t tos, ttl;
	uint32_t flow_label;
	uint32_t payload_bytes;
};

static inline void frame_put16(struct frame *frame, uint16_t value)
{
	frame->bytes[frame->length++] = (uint8_t)(value >> 8);
	frame->bytes[frame->length++] = (uint8_t)value;
}

static inline void frame_put(struct frame *frame, const void *bytes, uint32_t length)
{
	memcpy(frame->bytes + frame->length, bytes, length);
	frame->length += length;
}

static inline void frame_put_ip(struct frame *frame, const struct frame_of *of, uint16_t l4_bytes)
{
	uint8_t address[16];

	if (of->family == AF_INET) {
		frame_put(frame, (uint8_t[]){ 0x45, of->tos }, 2);
		frame_put16(frame, (uint16_t)(20 + l4_bytes));
		frame_put16(frame, 0);
		frame_put16(frame, of->fragment);
		frame_put(frame, (uint8_t[]){ of->ttl, of->protocol, 0, 0 }, 4);
	} else {
		frame_put16(frame, (uint16_t)(0x6000 | of->tos << 4 | of->flow_label >> 16));
		frame_put16(frame, (uint16_t)of->flow_label);
		frame_put16(frame, l4_bytes);
		frame_put(frame, (uint8_t[]){ of->protocol, of->ttl }, 2);
	}
	CHECK_EQ(inet_pton(of->family, of->src_ip, address), 1);
	frame_put(frame, address, of->family == AF_INET ? 4 : 16);
	CHECK_EQ(inet_pton(of->family, of->dst_ip, address), 1);
	frame_put(frame, address, of->family == AF_INET ? 4 : 16);
}

static inline struct frame frame_make(struct frame_of of)
{
	struct frame frame = { .length = 0 };
	uint16_t header = of.protocol == 6 ? 20 : of.protocol == 17 ? 8 : 0;

	frame_put(&frame, of.dst_mac ? of.dst_mac : "\x01\x50\x56\x19\x20\xa7", 6);
	frame_put(&frame, of.src_mac ? of.src_mac : "\x24\x8a\x07\xa5\x28\xc8", 6);
	if (of.vlan_tag) {
		frame_put16(&frame, 0x8100);
		frame_put16(&frame, of.vlan_tag);
	}
	frame_put16(&frame, of.family == AF_INET ? 0x0800 : of.family == AF_INET6 ? 0x86dd : 0x88b5);
	if (of.family)
		frame_put_ip(&frame, &of, (uint16_t)(header + of.payload_bytes));
	if (header) {
		uint8_t l4[20] = { [12] = 0x50 };
		l4[0] = (uint8_t)(of.src_port >> 8), l4[1] = (uint8_t)of.src_port;
		l4[2] = (uint8_t)(of.dst_port >> 8), l4[3] = (uint8_t)of.dst_port;
		if (of.protocol == 17)
			l4[4] = (uint8_t)((8 + of.payload_bytes) >> 8), l4[5] = (uint8_t)(8 + of.payload_bytes);
		frame_put(&frame, l4, header);
	}
	for (uint32_t i = 0; i < of.payload_bytes; i++)
		frame.bytes[frame.length++] = (uint8_t)(i * 5 + 3);
	return frame;
}

#endif

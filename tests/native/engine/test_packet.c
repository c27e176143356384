/* What stands in a frame: parsing, checksums, hashing; frames that are cut short or nonsense. */
#include <stdio.h>
#include <time.h>

#include <ffverbs/ffv.h>

#include "engine/packet.h"
#include "frames.h"
#include "rss_vectors.h"

static struct ffv_packet parsed(const struct frame *frame)
{
	struct ffv_packet packet;

	CHECK(ffv_packet_parse(frame->bytes, frame->length, &packet));
	return packet;
}

static void hashes_are_those_published(void)
{
	const uint64_t addresses = FFV_RX_HASH_SRC_IPV4 | FFV_RX_HASH_DST_IPV4 | FFV_RX_HASH_SRC_IPV6 | FFV_RX_HASH_DST_IPV6;
	const uint64_t tcp = FFV_RX_HASH_SRC_PORT_TCP | FFV_RX_HASH_DST_PORT_TCP;
	const uint64_t udp = FFV_RX_HASH_SRC_PORT_UDP | FFV_RX_HASH_DST_PORT_UDP;

	for (unsigned i = 0; i < RSS_VECTORS; i++) {
		const struct rss_vector *v = &rss_vectors[i];
		struct frame_of of = { .family = v->family, .src_ip = v->src_ip, .dst_ip = v->dst_ip, .protocol = 6,
				       .src_port = v->src_port, .dst_port = v->dst_port, .payload_bytes = 9 };
		struct frame frame = frame_make(of);
		struct ffv_packet packet = parsed(&frame);
		CHECK_EQ(ffv_packet_hash(&packet, rss_key, addresses), v->without_ports);
		CHECK_EQ(ffv_packet_hash(&packet, rss_key, addresses | udp), v->without_ports);
		CHECK_EQ(ffv_packet_hash(&packet, rss_key, addresses | tcp), v->with_ports);
		CHECK_EQ(ffv_packet_hash(&packet, rss_key, 0), 0);
		of.protocol = 17;
		frame = frame_make(of);
		packet = parsed(&frame);
		CHECK_EQ(ffv_packet_hash(&packet, rss_key, addresses | tcp), v->without_ports);
		CHECK_EQ(ffv_packet_hash(&packet, rss_key, addresses | tcp | udp), v->with_ports);
		/* The ports of a first fragment do not count: the others could not follow it. */
		if (v->family == AF_INET) {
			of.fragment = 0x2000;
			frame = frame_make(of);
			packet = parsed(&frame);
			CHECK_EQ(ffv_packet_hash(&packet, rss_key, addresses | tcp | udp), v->without_ports);
		}
	}
}

static void fields_are_where_they_belong(void)
{
	struct frame_of of = { .family = AF_INET6, .src_ip = "a0a1::1", .dst_ip = "b0b1::2", .protocol = 17, .src_port = 1234,
			       .dst_port = 5678, .tos = 0xa5, .ttl = 61, .flow_label = 0xfedcb, .vlan_tag = 0xbc0c };
	struct frame frame = frame_make(of);
	struct ffv_packet packet = parsed(&frame);

	CHECK(packet.has_vlan && packet.vlan_tag == 0xbc0c && packet.ether_type == FFV_ETHER_TYPE_IPV6);
	CHECK(packet.ip_version == 6 && packet.protocol == 17 && packet.tos == 0xa5 && packet.ttl == 61);
	CHECK_EQ(packet.flow_label, 0xfedcb);
	CHECK(packet.src_ip[0] == 0xa0 && packet.src_ip[15] == 1 && packet.dst_ip[0] == 0xb0 && packet.dst_ip[15] == 2);
	CHECK(packet.has_ports && packet.src_port == 1234 && packet.dst_port == 5678);
	of = (struct frame_of){ .family = AF_INET, .src_ip = "1.2.3.4", .dst_ip = "5.6.7.8", .protocol = 6, .src_port = 1,
				.dst_port = 2, .fragment = 0x4000 };
	frame = frame_make(of);
	packet = parsed(&frame);
	CHECK(!packet.has_vlan && packet.ip_version == 4 && packet.ip_flags == 2 && packet.has_ports);
	of.fragment = 0x2001; /* a later fragment: what would be the ports is payload */
	frame = frame_make(of);
	packet = parsed(&frame);
	CHECK(packet.ip_version == 4 && packet.ip_flags == 4 && !packet.has_ports);
	frame = frame_make((struct frame_of){ .family = 0, .payload_bytes = 40 });
	packet = parsed(&frame);
	CHECK(packet.ether_type == 0x88b5 && packet.ip_version == 0 && !packet.has_ports);
}

/* Whatever is filled in is right, and not any more when a byte that it covers changes. */
static void checksums_cover_every_byte(void)
{
	static const struct { int family; const char *ip; } families[] = { { AF_INET, "10.0.0.1" }, { AF_INET6, "fe80::1" } };

	for (unsigned i = 0; i < 4; i++) {
		for (uint32_t payload = 0; payload < 5; payload++) {
			struct frame_of of = { .family = families[i & 1].family, .src_ip = families[i & 1].ip,
					       .dst_ip = families[i & 1].ip, .protocol = i & 2 ? 6 : 17, .src_port = 77,
					       .dst_port = 99, .ttl = 64, .payload_bytes = payload };
			struct frame frame = frame_make(of);
			ffv_packet_fill_checksums(frame.bytes, frame.length);
			struct ffv_packet packet = parsed(&frame);
			CHECK(ffv_packet_checksums_are_right(&packet));
			for (uint32_t at = packet.l4_offset; at < frame.length; at++) {
				frame.bytes[at] ^= 0x10;
				CHECK(!ffv_packet_checksums_are_right(&packet));
				frame.bytes[at] ^= 0x10;
			}
			if (packet.ip_version == 4) {
				frame.bytes[packet.ip_offset + 8] ^= 1;
				CHECK(!ffv_packet_checksums_are_right(&packet));
			}
		}
	}
	/* UDP over IPv4 may do without. */
	struct frame frame = frame_make((struct frame_of){ .family = AF_INET, .src_ip = "1.1.1.1", .dst_ip = "2.2.2.2",
							   .protocol = 17, .payload_bytes = 4 });
	ffv_packet_fill_checksums(frame.bytes, frame.length);
	struct ffv_packet packet = parsed(&frame);
	memset(frame.bytes + packet.l4_offset + 6, 0, 2);
	CHECK(ffv_packet_checksums_are_right(&packet));
}

/* Frames of exactly their length in memory of their own, so that a byte read beyond it is found by the sanitizer. */
static void try_frame(const uint8_t *bytes, uint32_t length)
{
	uint8_t *exact = malloc(length ? length : 1);
	struct ffv_packet packet;

	CHECK(exact);
	memcpy(exact, bytes, length);
	CHECK_EQ(ffv_packet_parse(exact, length, &packet), length >= 14);
	if (length >= 14) {
		ffv_packet_hash(&packet, rss_key, UINT64_MAX);
		ffv_packet_checksums_are_right(&packet);
		ffv_packet_fill_checksums(exact, length);
	}
	free(exact);
}

static void nonsense_is_survived(unsigned seed)
{
	struct frame_of of = { .family = AF_INET, .src_ip = "1.1.1.1", .dst_ip = "2.2.2.2", .protocol = 6, .payload_bytes = 30 };
	struct frame whole[4];

	for (int i = 0; i < 4; i++) {
		of.family = i & 1 ? AF_INET6 : AF_INET;
		of.src_ip = of.dst_ip = i & 1 ? "::1" : "1.1.1.1";
		of.protocol = i & 2 ? 17 : 6;
		of.vlan_tag = i == 3 ? 5 : 0;
		whole[i] = frame_make(of);
		for (uint32_t length = 0; length <= whole[i].length; length++)
			try_frame(whole[i].bytes, length);
	}
	srandom(seed);
	for (int n = 0; n < 200000; n++) {
		struct frame frame = whole[random() % 4];
		for (int changes = (int)(random() % 6); changes >= 0; changes--)
			frame.bytes[(uint32_t)random() % (random() & 1 ? frame.length : 40)] = (uint8_t)random();
		try_frame(frame.bytes, (uint32_t)random() % 3 ? frame.length : (uint32_t)random() % (frame.length + 1));
	}
}

int main(void)
{
	const char *given = getenv("FFVERBS_TEST_SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL);

	printf("FFVERBS_TEST_SEED=%u\n", seed);
	hashes_are_those_published();
	fields_are_where_they_belong();
	checksums_cover_every_byte();
	nonsense_is_survived(seed);
	return 0;
}

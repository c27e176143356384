/* The device's description, its GID table, and address handles. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <arpa/inet.h>

#include "check.h"
#include "opened.h"
#include "verbs/ah.h"
#include "verbs/device.h"

static struct ffv_context *ctx;

static const uint8_t own_gid[16] = {[10] = 0xff, 0xff, 10, 9, 8, 7};
static const uint8_t own_link_local[16] = {0xfe, 0x80, [8] = 0x02, 0x00, 0x5e, 0xfe, 10, 9, 8, 7};

static void test_info(void)
{
	struct ffv_device_info info;
	struct ffv_device_attr attr;

	CHECK_OK(ffv_query_device_info(0, &info));
	CHECK_STR(info.name, "ffv0");
	CHECK_EQ(info.node_type, 1);
	CHECK_FAIL(ffv_query_device_info(1, &info), ENODEV, "no device 1");
	CHECK_FAIL(ffv_query_device_info(-1, &info), ENODEV, "no device -1");
	CHECK_OK(ffv_query_device(ctx, &attr));
	CHECK_STR(attr.fw_ver, ffv_version());
	CHECK_EQ(attr.node_guid_be, info.guid_be);
	CHECK(attr.node_guid_be != 0 && attr.vendor_id != 0);
	CHECK_EQ(attr.phys_port_cnt, 1);
	CHECK_EQ(attr.max_mr + attr.max_mw, FFV_MAX_KEYS - 1);
	CHECK_FAIL(ffv_query_device(NULL, &attr), EINVAL, "");
	setenv("FFVERBS_IP", "nonsense", 1);
	CHECK_FAIL(ffv_query_device_info(0, &info), EINVAL, "nonsense");
	setenv("FFVERBS_IP", "10.9.8.7", 1);
}

static void test_extended(void)
{
	struct ffv_device_attr attr;
	struct ffv_device_attr_ex extended = { .comp_mask = 7 };

	CHECK_OK(ffv_query_device(ctx, &attr));
	CHECK_FAIL(ffv_query_device_ex(ctx, 1, &extended), EINVAL, "comp_mask");
	CHECK_FAIL(ffv_query_device_ex(NULL, 0, &extended), EINVAL, "");
	CHECK_EQ(extended.comp_mask, 7);
	CHECK_OK(ffv_query_device_ex(ctx, 0, &extended));
	CHECK(!memcmp(&extended.orig_attr, &attr, sizeof attr));
	CHECK_EQ(extended.comp_mask, 0);
	CHECK_EQ(extended.phys_port_cnt_ex, attr.phys_port_cnt);
	CHECK_EQ(extended.hca_core_clock, 1000000);
	CHECK_EQ(extended.device_cap_flags_ex & attr.device_cap_flags, attr.device_cap_flags);
}

static void test_port(void)
{
	struct ffv_port_attr port;
	uint16_t pkey;

	CHECK_OK(ffv_query_port(ctx, 1, &port));
	CHECK_EQ(port.state, 4);
	CHECK_EQ(port.link_layer, 2);
	CHECK_EQ(port.max_msg_sz, 1u << 31);
	CHECK_EQ(port.lid, 0);
	CHECK_FAIL(ffv_query_port(ctx, 0, &port), EINVAL, "no port 0");
	CHECK_FAIL(ffv_query_port(ctx, 2, &port), EINVAL, "no port 2");
	CHECK_OK(ffv_query_pkey(ctx, 1, 0, &pkey));
	CHECK_EQ(pkey, 0xffff);
	CHECK_FAIL(ffv_query_pkey(ctx, 1, 1, &pkey), EINVAL, "P_Key index 1");
	CHECK_FAIL(ffv_query_pkey(ctx, 1, -1, &pkey), EINVAL, "P_Key index -1");
	CHECK_FAIL(ffv_query_pkey(ctx, 2, 0, &pkey), EINVAL, "port");
	CHECK_EQ(ffv_num_comp_vectors(ctx), 1);
	CHECK(fcntl(ffv_cmd_fd(ctx), F_GETFD) & FD_CLOEXEC);
	uint64_t then_ns = ffv_query_clock_ns(ctx);
	CHECK(then_ns && ffv_query_clock_ns(ctx) >= then_ns);
}

static void test_gids(void)
{
	struct ffv_port_attr port;
	struct ffv_gid_entry entries[8];
	struct ffv_gid gid;
	static const uint8_t none[16];

	CHECK_OK(ffv_query_port(ctx, 1, &port));
	for (int i = 0; i < port.gid_tbl_len; i++) {
		CHECK_OK(ffv_query_gid(ctx, 1, i, &gid));
		CHECK_EQ(memcmp(gid.raw, i == 0 ? own_link_local : i == 1 ? own_gid : none, 16), 0);
		CHECK_RC(ffv_query_gid_ex(ctx, 1, (uint32_t)i, &entries[i], 0), i < 2 ? 0 : -ENODATA);
	}
	CHECK_FAIL(ffv_query_gid(ctx, 1, port.gid_tbl_len, &gid), EINVAL, "GID index");
	CHECK_FAIL(ffv_query_gid(ctx, 1, -1, &gid), EINVAL, "GID index -1");
	CHECK_FAIL(ffv_query_gid(ctx, 3, 0, &gid), EINVAL, "port");
	CHECK_FAIL(ffv_query_gid_ex(ctx, 1, UINT32_MAX, entries, 0), EINVAL, "GID index");
	CHECK_FAIL(ffv_query_gid_ex(ctx, 257, 0, entries, 0), EINVAL, "port"); /* not 1 in disguise */
	CHECK_FAIL(ffv_query_gid_ex(ctx, 1, 0, entries, 1), EINVAL, "flags");
	CHECK_RC(ffv_query_gid_table(ctx, entries, 8, 0), 2);
	for (uint32_t i = 0; i < 2; i++) {
		CHECK_EQ(entries[i].gid_index, i);
		CHECK_EQ(entries[i].port_num, 1);
		CHECK_EQ(entries[i].gid_type, 2);
		CHECK_EQ(memcmp(entries[i].gid.raw, i ? own_gid : own_link_local, 16), 0);
	}
	CHECK_RC(ffv_query_gid_table(ctx, entries, 2, 0), 2);
	CHECK_FAIL(ffv_query_gid_table(ctx, entries, 1, 0), EINVAL, "room");
	CHECK_FAIL(ffv_query_gid_table(ctx, NULL, 0, 0), EINVAL, "room");
	CHECK_FAIL(ffv_query_gid_table(ctx, entries, 8, 2), EINVAL, "flags");
}

static struct ffv_ah_attr address_of(const uint8_t dgid[16])
{
	struct ffv_ah_attr attr = {.is_global = 1, .port_num = 1, .grh = {.sgid_index = 1}};

	memcpy(&attr.grh.dgid_subnet_prefix_be, dgid, 8);
	memcpy(&attr.grh.dgid_interface_id_be, dgid + 8, 8);
	return attr;
}

static void test_address_handles(void)
{
	struct ffv_pd *pd = opened_pd(ctx);
	struct ffv_ah *const untouched = (void *)(uintptr_t)0x1234, *ah = untouched;
	struct ffv_ah_attr bad[6];
	static const char *const words[6] = {"port 2", "port 0", "global route", "GID index", "service level",
					     "flow label"};

	for (size_t i = 0; i < 6; i++)
		bad[i] = address_of(own_gid);
	bad[0].port_num = 2;
	bad[1].port_num = 0;
	bad[2].is_global = 0;
	bad[3].grh.sgid_index = FFV_GID_TABLE_ENTRIES;
	bad[4].sl = 16;
	bad[5].grh.flow_label = 1u << 20;
	for (size_t i = 0; i < 6; i++) {
		CHECK_FAIL(ffv_create_ah(pd, &bad[i], &ah), EINVAL, words[i]);
		CHECK(ah == untouched);
	}
	struct ffv_ah_attr good = address_of(own_link_local);
	CHECK_FAIL(ffv_create_ah(NULL, &good, &ah), EINVAL, "");
	CHECK_OK(ffv_create_ah(pd, &good, &ah));
	CHECK_EQ(memcmp(ah->dgid, own_gid, 16), 0); /* both forms name the same container */
	CHECK_FAIL(ffv_dealloc_pd(pd), EBUSY, "1 objects");
	CHECK_OK(ffv_destroy_ah(ah));
	CHECK_FAIL(ffv_destroy_ah(NULL), EINVAL, "");
	CHECK_OK(ffv_dealloc_pd(pd));
}

static void put_ipv4(struct ffv_grh *grh, const uint8_t from[4], const uint8_t to[4])
{
	uint8_t *ip = (uint8_t *)grh + 20;

	memset(grh, 0, sizeof *grh);
	ip[0] = 0x45;
	ip[1] = 0x20;
	ip[8] = 63;
	ip[9] = 17;
	memcpy(ip + 12, from, 4);
	memcpy(ip + 16, to, 4);
}

static void test_answering(void)
{
	static const uint8_t sender[16] = {[10] = 0xff, 0xff, 10, 1, 2, 3};
	struct ffv_wc wc = {.wc_flags = FFV_WC_GRH, .sl = 3};
	struct ffv_ah_attr attr;
	struct ffv_grh grh;
	uint8_t dgid[16];

	put_ipv4(&grh, sender + 12, own_gid + 12);
	CHECK_OK(ffv_init_ah_from_wc(ctx, 1, &wc, &grh, &attr));
	ffv_ah_attr_dgid(&attr, dgid);
	CHECK_EQ(memcmp(dgid, sender, 16), 0);
	CHECK(attr.is_global == 1 && attr.port_num == 1 && attr.sl == 3);
	CHECK_EQ(attr.grh.sgid_index, 1);
	CHECK_EQ(attr.grh.traffic_class, 0x20);
	CHECK_EQ(attr.grh.hop_limit, 63);
	CHECK_OK(ffv_ah_attr_check(&attr));

	memset(&grh, 0, sizeof grh);
	grh.version_tclass_flow_be = htonl(6u << 28 | 0x12u << 20 | 0xabcde);
	grh.next_hdr = 17;
	grh.hop_limit = 9;
	memcpy(grh.sgid.raw, sender, 16);
	memcpy(grh.dgid.raw, own_link_local, 16);
	CHECK_OK(ffv_init_ah_from_wc(ctx, 1, &wc, &grh, &attr));
	ffv_ah_attr_dgid(&attr, dgid);
	CHECK_EQ(memcmp(dgid, sender, 16), 0);
	CHECK_EQ(attr.grh.sgid_index, 0);
	CHECK_EQ(attr.grh.traffic_class, 0x12);
	CHECK_EQ(attr.grh.flow_label, 0xabcde);
	CHECK_EQ(attr.grh.hop_limit, 9);

	memset(&grh, 0, sizeof grh);
	CHECK_FAIL(ffv_init_ah_from_wc(ctx, 1, &wc, &grh, &attr), EINVAL, "neither");
	CHECK_FAIL(ffv_init_ah_from_wc(ctx, 1, &wc, NULL, &attr), EINVAL, "GRH");
	CHECK_FAIL(ffv_init_ah_from_wc(ctx, 2, &wc, &grh, &attr), EINVAL, "port");
	wc.wc_flags = 0;
	CHECK_OK(ffv_init_ah_from_wc(ctx, 1, &wc, NULL, &attr));
	CHECK_EQ(attr.is_global, 0);
}

int main(void)
{
	opened_directory();
	ctx = opened_context();
	test_info();
	test_extended();
	test_port();
	test_gids();
	test_address_handles();
	test_answering();
	CHECK_OK(ffv_close_device(ctx));
	scratch_remove();
	return 0;
}

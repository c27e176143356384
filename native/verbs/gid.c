/* SPDX-License-Identifier: MIT
 *
 * See gid.h.
 */
#include "verbs/gid.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomics.h"
#include "base/error.h"

static const uint8_t mapped_prefix[12] = { [10] = 0xff, 0xff };
static const uint8_t link_local_prefix[12] = { 0xfe, 0x80, [8] = 0x02, 0x00, 0x5e, 0xfe };

static bool is_unicast(struct in_addr address)
{
	uint32_t host = ntohl(address.s_addr);

	return host >> 24 != 0 && host >> 28 < 0xe;
}

static int from_environment(const char *text, struct in_addr *address)
{
	if (inet_pton(AF_INET, text, address) != 1)
		return ffv_fail(EINVAL, "FFVERBS_IP is \"%s\", which is not an IPv4 address: set it to one like "
				"10.0.0.1, to auto, or unset it", text);
	if (!is_unicast(*address))
		return ffv_fail(EINVAL, "FFVERBS_IP is \"%s\", which is not the address of one container: set it to "
				"one like 10.0.0.1", text);
	return 0;
}

/* 127.0.0.1 if there is no other, or none can be learnt. */
static struct in_addr from_interfaces(void)
{
	struct in_addr address = { .s_addr = htonl(INADDR_LOOPBACK) };
	struct ifaddrs *list;

	if (getifaddrs(&list))
		return address;
	for (const struct ifaddrs *i = list; i; i = i->ifa_next) {
		if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || !(i->ifa_flags & IFF_UP) ||
		    i->ifa_flags & IFF_LOOPBACK)
			continue;
		struct sockaddr_in found;
		memcpy(&found, i->ifa_addr, sizeof found);
		if (is_unicast(found.sin_addr)) {
			address = found.sin_addr;
			break;
		}
	}
	freeifaddrs(list);
	return address;
}

static const char *told(void)
{
	const char *text = getenv("FFVERBS_IP");

	return text && *text ? text : NULL;
}

enum ffv_gid_source ffv_gid_source(void)
{
	const char *text = told();

	return !text ? FFV_GID_OF_INTERFACE : strcmp(text, "auto") ? FFV_GID_TOLD : FFV_GID_OF_POOL;
}

static _Atomic uint32_t adopted_be; /* of the router's pool; 0 = none yet */

int ffv_gid_own(uint8_t gid[16], uint8_t link_local[16])
{
	struct in_addr address = { 0 };
	int rc = 0;

	switch (ffv_gid_source()) {
	case FFV_GID_TOLD:
		rc = from_environment(told(), &address);
		break;
	case FFV_GID_OF_POOL:
		address.s_addr = ffv_load_relaxed(&adopted_be);
		break;
	case FFV_GID_OF_INTERFACE:
		address = from_interfaces();
		break;
	}
	if (rc)
		return rc;
	memcpy(gid, mapped_prefix, sizeof mapped_prefix);
	memcpy(gid + 12, &address, 4);
	memcpy(link_local, link_local_prefix, sizeof link_local_prefix);
	memcpy(link_local + 12, &address, 4);
	return 0;
}

int ffv_gid_adopt(const uint8_t gid[16])
{
	struct in_addr address;

	memcpy(&address, gid + 12, 4);
	if (memcmp(gid, mapped_prefix, sizeof mapped_prefix) || !is_unicast(address))
		return ffv_fail(EPROTO, "the router of this host gave an address that is none");
	ffv_store_relaxed(&adopted_be, address.s_addr);
	return 0;
}

void ffv_gid_canonical(const uint8_t in[16], uint8_t out[16])
{
	bool ours = memcmp(in, link_local_prefix, sizeof link_local_prefix) == 0;
	uint8_t gid[16];

	memcpy(gid, ours ? mapped_prefix : in, 12);
	memcpy(gid + 12, in + 12, 4);
	memcpy(out, gid, sizeof gid);
}

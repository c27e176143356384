/* SPDX-License-Identifier: MIT
 *
 * See address.h.
 */
#include "cm/address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t mapped_prefix[12] = { [10] = 0xff, 0xff };

static const struct sockaddr_in *as_in(const union ffv_sockaddr *addr)
{
	return (const struct sockaddr_in *)(const void *)addr;
}

static const struct sockaddr_in6 *as_in6(const union ffv_sockaddr *addr)
{
	return (const struct sockaddr_in6 *)(const void *)addr;
}

socklen_t ffv_address_size(const struct sockaddr *addr)
{
	if (!addr)
		return 0;
	if (addr->sa_family == AF_INET)
		return sizeof(struct sockaddr_in);
	return addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : 0;
}

void ffv_address_copy(union ffv_sockaddr *out, const struct sockaddr *addr)
{
	union ffv_sockaddr copy = { .align = 0 };

	memcpy(&copy, addr, ffv_address_size(addr));
	*out = copy;
}

bool ffv_address_is_any(const union ffv_sockaddr *addr)
{
	if (addr->family == AF_INET)
		return as_in(addr)->sin_addr.s_addr == htonl(INADDR_ANY);
	return addr->family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&as_in6(addr)->sin6_addr);
}

static bool is_loopback_bytes(const uint8_t bytes[16])
{
	static const uint8_t loopback6[16] = { [15] = 1 };

	return memcmp(bytes, loopback6, 16) == 0 || (memcmp(bytes, mapped_prefix, 12) == 0 && bytes[12] == 127);
}

bool ffv_address_is_loopback(const union ffv_sockaddr *addr)
{
	uint8_t bytes[16];

	ffv_address_bytes(addr, bytes);
	return is_loopback_bytes(bytes);
}

bool ffv_address_is_multicast(const union ffv_sockaddr *addr)
{
	if (addr->family == AF_INET)
		return IN_MULTICAST(ntohl(as_in(addr)->sin_addr.s_addr));
	return addr->family == AF_INET6 && IN6_IS_ADDR_MULTICAST(&as_in6(addr)->sin6_addr);
}

bool ffv_address_equal(const union ffv_sockaddr *one, const union ffv_sockaddr *other)
{
	uint8_t a[16], b[16];

	ffv_address_bytes(one, a);
	ffv_address_bytes(other, b);
	return one->family == other->family && memcmp(a, b, 16) == 0;
}

/* The port stands at the same place in both families. */
uint16_t ffv_address_port(const union ffv_sockaddr *addr)
{
	return ntohs(as_in(addr)->sin_port);
}

void ffv_address_set_port(union ffv_sockaddr *addr, uint16_t port)
{
	((struct sockaddr_in *)(void *)addr)->sin_port = htons(port);
}

void ffv_address_bytes(const union ffv_sockaddr *addr, uint8_t out[16])
{
	if (addr->family == AF_INET6) {
		memcpy(out, &as_in6(addr)->sin6_addr, 16);
		return;
	}
	memcpy(out, mapped_prefix, 12);
	memcpy(out + 12, &as_in(addr)->sin_addr, 4);
}

void ffv_address_to_endpoint(const union ffv_sockaddr *addr, struct ffv_cm_endpoint *out)
{
	ffv_address_bytes(addr, out->address);
	out->family = addr->family;
	out->port = ffv_address_port(addr);
}

void ffv_address_from_endpoint(const struct ffv_cm_endpoint *endpoint, union ffv_sockaddr *out)
{
	memset(out, 0, sizeof *out);
	out->family = endpoint->family;
	if (endpoint->family == AF_INET)
		memcpy(&((struct sockaddr_in *)(void *)out)->sin_addr, endpoint->address + 12, 4);
	else
		memcpy(&((struct sockaddr_in6 *)(void *)out)->sin6_addr, endpoint->address, 16);
	ffv_address_set_port(out, endpoint->port);
}

void ffv_address_own(const uint8_t gid[16], union ffv_sockaddr *out)
{
	struct ffv_cm_endpoint endpoint = { .family = AF_INET };

	memcpy(endpoint.address, gid, 16);
	ffv_address_from_endpoint(&endpoint, out);
}

/* ---- addresses of the container -------------------------------------------------------------------------------------- */

/* Where FFVERBS_IP says who the container is, other addresses of the interfaces are not its own: several containers may
 * share these. */
static bool is_told(void)
{
	const char *text = getenv("FFVERBS_IP");

	return text && *text;
}

static bool is_usable(const struct ifaddrs *entry, union ffv_sockaddr *addr)
{
	if (!(entry->ifa_flags & IFF_UP) || !ffv_address_size(entry->ifa_addr))
		return false;
	ffv_address_copy(addr, entry->ifa_addr);
	return true;
}

static bool has_interface_with(const union ffv_sockaddr *addr)
{
	union ffv_sockaddr found;
	struct ifaddrs *list;
	bool has = false;

	if (getifaddrs(&list))
		return false;
	for (const struct ifaddrs *entry = list; entry && !has; entry = entry->ifa_next)
		has = is_usable(entry, &found) && ffv_address_equal(&found, addr);
	freeifaddrs(list);
	return has;
}

bool ffv_address_is_local(const uint8_t gid[16], const union ffv_sockaddr *addr)
{
	uint8_t bytes[16];

	ffv_address_bytes(addr, bytes);
	if (is_loopback_bytes(bytes) || ffv_address_is_any(addr) || memcmp(bytes, gid, 16) == 0)
		return true;
	return !is_told() && has_interface_with(addr);
}

/* ---- services --------------------------------------------------------------------------------------------------------- */

void ffv_address_service(const uint8_t gid[16], const union ffv_sockaddr *addr, uint32_t port_space,
			 struct ffv_service *out)
{
	out->port_space = port_space;
	out->port = ffv_address_port(addr);
	out->scope = FFV_SCOPE_GLOBAL;
	ffv_address_bytes(addr, out->address);
	/* A container whose only address is a loopback one is known to others by it. */
	if (memcmp(out->address, gid, 16) == 0 || !(ffv_address_is_any(addr) || is_loopback_bytes(out->address)))
		return;
	out->scope = addr->family == AF_INET6 ? FFV_SCOPE_LOOPBACK6 : FFV_SCOPE_LOOPBACK4;
	memcpy(out->address, gid, 16);
}

static bool is_heard(const union ffv_sockaddr *found, const union ffv_sockaddr *any, bool family_only)
{
	if (ffv_address_is_loopback(found) || ffv_address_is_any(found))
		return false; /* these are claimed as such */
	if (found->family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&as_in6(found)->sin6_addr))
		return false; /* means another place in each container */
	return found->family == any->family || (any->family == AF_INET6 && !family_only);
}

uint32_t ffv_address_services_of_any(const uint8_t gid[16], const union ffv_sockaddr *any, bool family_only,
				     uint32_t port_space, struct ffv_service *out, uint32_t capacity)
{
	bool ipv4 = any->family == AF_INET || !family_only, ipv6 = any->family == AF_INET6;
	struct ffv_service service = { .port_space = port_space, .port = ffv_address_port(any) };
	struct ifaddrs *list = NULL;
	union ffv_sockaddr found;
	uint32_t count = 0;

	memcpy(service.address, gid, 16);
	service.scope = FFV_SCOPE_GLOBAL;
	if (ipv4 && count < capacity)
		out[count++] = service;
	service.scope = FFV_SCOPE_LOOPBACK4;
	if (ipv4 && count < capacity)
		out[count++] = service;
	service.scope = FFV_SCOPE_LOOPBACK6;
	if (ipv6 && count < capacity)
		out[count++] = service;
	if (is_told() || getifaddrs(&list))
		return count;
	for (const struct ifaddrs *entry = list; entry && count < capacity; entry = entry->ifa_next) {
		if (!is_usable(entry, &found) || !is_heard(&found, any, family_only))
			continue;
		ffv_address_set_port(&found, service.port);
		ffv_address_service(gid, &found, port_space, &out[count]);
		if (memcmp(out[count].address, gid, 16) != 0)
			count++;
	}
	freeifaddrs(list);
	return count;
}

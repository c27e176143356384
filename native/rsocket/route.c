/* SPDX-License-Identifier: MIT
 *
 * Where datagrams go: which queue pair takes those for an address, asked of the connection manager (SIDR), for all sockets of the
 * process. Nobody waits for an answer; datagrams go by UDP meanwhile. An answer is asked for anew when it has become old, as the
 * socket there may be another by then. Any thread; ids are destroyed by the thread of process.c only, which gets their events.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "rsocket/datagram.h"

#define ROUTES 1024u               /* one a place: an address takes the place of another one that is as good */
#define ASK_MS 2000
#define FRESH_NS 500000000ull      /* so long datagrams may go to a socket that has gone */
#define NOBODY_NS 5000000000ull
#define AGAIN_NS 10000000ull         /* after a refusal, by an address that datagrams, or questions, come from */

enum answer { NOT_ASKED, NOBODY, KNOWN };

struct place {
	union ffv_sockaddr from, to; /* addresses of two sockets; the first may be a wildcard */
	enum answer answer;
	struct ffv_cm_id *id;      /* of the question that is under way */
	uint64_t asked_ns;
	struct ffv_rs_route route; /* if it is KNOWN */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* after those of sockets, before `shared` of process.c */
static struct place places[ROUTES];

/* ---- addresses ----------------------------------------------------------------------------------------------------------------- */

uint16_t ffv_rs_address_bytes(const union ffv_sockaddr *addr, uint8_t out[16])
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)addr;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)addr;

	memset(out, 0, 16);
	if (addr->family == AF_INET6) {
		memcpy(out, &in6->sin6_addr, 16);
		return ntohs(in6->sin6_port);
	}
	if (addr->family != AF_INET)
		return 0;
	out[10] = out[11] = 0xff;
	memcpy(&out[12], &in->sin_addr, 4);
	return ntohs(in->sin_port);
}

bool ffv_rs_are_equal(const union ffv_sockaddr *one, const union ffv_sockaddr *other)
{
	uint8_t bytes[2][16];

	return one->family == other->family &&
	       ffv_rs_address_bytes(one, bytes[0]) == ffv_rs_address_bytes(other, bytes[1]) && !memcmp(bytes[0], bytes[1], 16);
}

bool ffv_rs_is_wildcard(const union ffv_sockaddr *addr)
{
	uint8_t bytes[16];
	static const uint8_t any[2][16] = { { 0 }, { [10] = 0xff, 0xff } };

	ffv_rs_address_bytes(addr, bytes);
	return !memcmp(bytes, any[addr->family == AF_INET], sizeof bytes);
}

struct ffv_rs_tag ffv_rs_tag(const union ffv_sockaddr *addr)
{
	struct ffv_rs_tag tag = { .magic_be = htonl(FFV_RS_MAGIC), .family_be = htons(addr->family) };

	tag.port_be = htons(ffv_rs_address_bytes(addr, tag.addr));
	return tag;
}

void ffv_rs_give_tagged(const struct ffv_rs_tag *tag, union ffv_sockaddr *out)
{
	struct sockaddr_in *in = (struct sockaddr_in *)(void *)out;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)out;

	memset(out, 0, sizeof *out);
	out->family = ntohs(tag->family_be);
	if (out->family == AF_INET) {
		in->sin_port = tag->port_be;
		memcpy(&in->sin_addr, &tag->addr[12], 4);
	} else {
		in6->sin6_port = tag->port_be;
		memcpy(&in6->sin6_addr, tag->addr, 16);
	}
}

/* Groups are the kernel's, and IPv4 addresses as IPv6 has them: a socket for IPv6 takes none of those here. */
static bool is_for_udp(const union ffv_sockaddr *to)
{
	uint8_t bytes[16];

	if (!ffv_rs_address_bytes(to, bytes))
		return true;
	if (to->family == AF_INET)
		return bytes[12] >= 224;
	return bytes[0] == 0xff || IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)(const void *)bytes);
}

static uint32_t mix(uint32_t hash, const union ffv_sockaddr *addr) /* FNV-1a */
{
	uint8_t bytes[16];

	hash = (hash ^ ffv_rs_address_bytes(addr, bytes)) * 16777619u;
	for (size_t i = 0; i < sizeof bytes; i++)
		hash = (hash ^ bytes[i]) * 16777619u;
	return hash;
}

static struct place *place_of(const union ffv_sockaddr *from, const union ffv_sockaddr *to)
{
	uint32_t hash = mix(mix(2166136261u, to), from);

	return &places[(hash ^ hash >> 16) % ROUTES];
}

static bool is_of(const struct place *place, const union ffv_sockaddr *from, const union ffv_sockaddr *to)
{
	return ffv_rs_are_equal(&place->to, to) && ffv_rs_are_equal(&place->from, from);
}

/* ---- asking (lock held) ---------------------------------------------------------------------------------------------------------- */

struct ffv_rs_datagram_hello ffv_rs_datagram_hello(const union ffv_sockaddr *from)
{
	return (struct ffv_rs_datagram_hello){ htonl(FFV_RS_DATAGRAM_VERSION), ffv_rs_tag(from) };
}

bool ffv_rs_is_datagram_hello(const void *data, uint8_t length, union ffv_sockaddr *from)
{
	struct ffv_rs_datagram_hello hello;

	if (!data || length < sizeof hello)
		return false;
	memcpy(&hello, data, sizeof hello);
	ffv_rs_give_tagged(&hello.from, from);
	return ntohl(hello.version_be) == FFV_RS_DATAGRAM_VERSION && ntohl(hello.from.magic_be) == FFV_RS_MAGIC;
}

static void forget(struct place *place)
{
	if (place->route.ah)
		ffv_destroy_ah(place->route.ah);
	place->route = (struct ffv_rs_route){ .ah = NULL };
	place->answer = NOBODY;
}

static void ask(struct place *place)
{
	struct ffv_cm_channel *channel;
	int yes = 1, rc = ffv_rs_channel(&channel);

	place->asked_ns = ffv_clock_ns();
	if (!rc)
		rc = ffv_cm_create_id(channel, &place->id, place, FFV_PS_UDP);
	if (rc) {
		forget(place);
		return;
	}
	rc = ffv_cm_set_option(place->id, FFV_OPTION_ID, FFV_OPTION_ID_ASK_ONCE, &yes, sizeof yes);
	if (!rc)
		rc = ffv_cm_resolve_addr(place->id, NULL, (const struct sockaddr *)(const void *)&place->to, ASK_MS);
	if (rc) { /* there will be no event */
		ffv_cm_destroy_id(place->id);
		place->id = NULL;
		forget(place);
	}
}

static bool is_due(const struct place *place)
{
	uint64_t age_ns = ffv_clock_ns() - place->asked_ns;

	return place->answer == NOT_ASKED || age_ns >= (place->answer == KNOWN ? FRESH_NS : NOBODY_NS);
}

int ffv_rs_enter_route(const union ffv_sockaddr *from, const union ffv_sockaddr *to, struct ffv_rs_route *out)
{
	if (is_for_udp(to))
		return ffv_fail(ECONNREFUSED, "such an address is left to UDP");
	pthread_mutex_lock(&lock);
	struct place *place = place_of(from, to);
	if (!is_of(place, from, to) && !place->id) {
		forget(place);
		place->from = *from;
		place->to = *to;
		place->answer = NOT_ASKED;
	}
	bool is_it = is_of(place, from, to);
	if (is_it && !place->id && is_due(place))
		ask(place);
	if (is_it && place->answer == KNOWN) {
		*out = place->route;
		return 0;
	}
	bool is_asking = is_it && place->id;
	pthread_mutex_unlock(&lock);
	return is_asking ? ffv_fail(EINPROGRESS, "whether the address has verbs is being found out") :
			   ffv_fail(ECONNREFUSED, "nobody at the address has verbs");
}

void ffv_rs_leave_route(void)
{
	pthread_mutex_unlock(&lock);
}

void ffv_rs_heard_from(const union ffv_sockaddr *own, const union ffv_sockaddr *peer)
{
	pthread_mutex_lock(&lock);
	struct place *place = place_of(own, peer);
	if (place->answer == NOBODY && !place->id && is_of(place, own, peer) && ffv_clock_ns() - place->asked_ns >= AGAIN_NS)
		place->answer = NOT_ASKED;
	pthread_mutex_unlock(&lock);
}

void ffv_rs_was_asked_by(const union ffv_sockaddr *own, const union ffv_sockaddr *peer)
{
	pthread_mutex_lock(&lock);
	struct place *place = place_of(own, peer);
	if (place->answer == NOBODY && !place->id && is_of(place, own, peer))
		place->asked_ns = ffv_clock_ns() - NOBODY_NS + 2 * AGAIN_NS;
	pthread_mutex_unlock(&lock);
}

int ffv_datagrams_reach(const struct sockaddr *from, uint32_t from_length, const struct sockaddr *to, uint32_t to_length)
{
	union ffv_sockaddr ends[2] = { { 0 } };
	struct ffv_rs_route route;

	if (from->sa_family != to->sa_family || from_length > sizeof ends[0] || to_length > sizeof ends[1])
		return ffv_fail(EINVAL, "two addresses are of one family, and no longer than IPv6's");
	memcpy(&ends[0], from, from_length);
	memcpy(&ends[1], to, to_length);
	ffv_rs_name_loopback(&ends[1]);
	int rc = ffv_rs_enter_route(&ends[0], &ends[1], &route);
	if (!rc)
		ffv_rs_leave_route();
	return rc;
}

/* ---- answers (the thread of process.c) ------------------------------------------------------------------------------------------ */

static int learn(struct place *place, const struct ffv_cm_ud_param *answer)
{
	struct ffv_pd *domain;
	struct ffv_ah *ah;
	int rc = ffv_rs_domain(place->id->verbs, &domain);

	if (!rc)
		rc = ffv_create_ah(domain, &answer->ah_attr, &ah);
	if (rc)
		return rc;
	forget(place);
	place->route = (struct ffv_rs_route){ ah, answer->qp_num, answer->qkey, place->id->route.addr.src };
	place->answer = KNOWN;
	return 0;
}

static void take_port(union ffv_sockaddr *addr, const union ffv_sockaddr *of)
{
	uint8_t unused[16];
	uint16_t port_be = htons(ffv_rs_address_bytes(of, unused));

	memcpy((uint8_t *)addr + offsetof(struct sockaddr_in, sin_port), &port_be, sizeof port_be); /* IPv6 has it there, too */
}

/* 1: it goes on. */
static int next_step(struct place *place, uint32_t event, const struct ffv_cm_ud_param *answer)
{
	const union ffv_sockaddr *from = ffv_rs_is_wildcard(&place->from) ? &place->id->route.addr.src : &place->from;
	union ffv_sockaddr source = *from, who;
	struct ffv_rs_datagram_hello hello;
	struct ffv_cm_conn_param param = { .private_data = &hello, .private_data_len = sizeof hello };

	take_port(&source, &place->from);
	hello = ffv_rs_datagram_hello(&source);
	switch (event) {
	case FFV_CM_EVENT_ADDR_RESOLVED:
		return ffv_cm_resolve_route(place->id, 0) ? -EHOSTUNREACH : 1;
	case FFV_CM_EVENT_ROUTE_RESOLVED:
		FFV_FAULT(rs_route_unasked);
		return ffv_cm_connect(place->id, &param) ? -EHOSTUNREACH : 1;
	case FFV_CM_EVENT_ESTABLISHED:
		FFV_FAULT(rs_route_answered);
		return ffv_rs_is_datagram_hello(answer->private_data, answer->private_data_len, &who) ? learn(place, answer) : -EPROTO;
	default:
		return -ECONNREFUSED;
	}
}

void ffv_rs_on_route(struct ffv_cm_id *id, uint32_t event, const struct ffv_cm_ud_param *answer)
{
	struct place *place = id->context;

	pthread_mutex_lock(&lock);
	int rc = next_step(place, event, answer);
	if (rc <= 0)
		place->id = NULL;
	if (rc < 0)
		forget(place);
	pthread_mutex_unlock(&lock);
	if (rc <= 0)
		ffv_cm_destroy_id(id);
}

/* ---- fork ------------------------------------------------------------------------------------------------------------------------- */

void ffv_rs_lock_routes(void)
{
	pthread_mutex_lock(&lock);
}

/* What a child inherits is its parent's. */
void ffv_rs_unlock_routes(bool in_child)
{
	if (in_child)
		memset(places, 0, sizeof places);
	pthread_mutex_unlock(&lock);
}

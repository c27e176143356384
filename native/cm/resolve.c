/* SPDX-License-Identifier: MIT
 *
 * Looking for the container of an address: in the node directory, and by asking the router for those of other hosts. It is
 * found at once or waited for, as a host is by ARP, until the time that the program gave is over.
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "cm/address.h"
#include "cm/cm.h"

#define LOOK_AGAIN_NS 20000000ull /* for a container that is not there yet */
#define ASK_AGAIN_NS 100000000ull /* the router, which may have to ask others */

static bool is_there(struct ffv_cm_id_private *id)
{
	const union ffv_sockaddr *dst = &id->id.route.addr.dst;
	uint8_t bytes[16];

	if (id->is_away || ffv_address_is_local(id->device->gid, dst) || ffv_address_is_multicast(dst))
		return true;
	ffv_address_bytes(dst, bytes);
	return ffv_lookup_host(id->device->ctx, bytes);
}

/* ---- the router ------------------------------------------------------------------------------------------------------- */

static void drop_question(struct ffv_cm_id_private *id)
{
	if (id->socket)
		ffv_cm_remove_socket(id->socket, true);
	id->socket = NULL;
}

static void ask(struct ffv_cm_id_private *id, uint64_t now_ns)
{
	uint8_t bytes[16];
	int fd;

	if (id->socket || now_ns < id->ask_ns)
		return;
	id->ask_ns = now_ns + ASK_AGAIN_NS;
	ffv_address_bytes(&id->id.route.addr.dst, bytes);
	if (!ffv_lookup_ask_host(id->device->ctx, bytes, &fd))
		ffv_cm_add_socket(id->device, fd, id, &id->socket); /* else it is asked again */
}

/* ---- looking ---------------------------------------------------------------------------------------------------------- */

static void finish(struct ffv_cm_id_private *id, bool found)
{
	bool route = id->state == FFV_CM_ROUTE_QUERY;

	if (route || !found)
		id->is_away = false;
	drop_question(id);
	id->deadline_ns = id->retry_ns = UINT64_MAX;
	if (found) {
		id->state = route ? FFV_CM_ROUTE_RESOLVED : FFV_CM_ADDR_RESOLVED;
		id->id.route.num_paths = route;
		ffv_cm_raise(id, route ? FFV_CM_EVENT_ROUTE_RESOLVED : FFV_CM_EVENT_ADDR_RESOLVED, 0);
	} else {
		id->state = route ? FFV_CM_ADDR_RESOLVED : FFV_CM_ADDR_BOUND;
		ffv_cm_raise(id, route ? FFV_CM_EVENT_ROUTE_ERROR : FFV_CM_EVENT_ADDR_ERROR, -ETIMEDOUT);
	}
}

/* Lock held. A container is looked for again and again until the time is over, as a host is by ARP. */
static void look(struct ffv_cm_id_private *id, uint64_t now_ns)
{
	if (is_there(id)) {
		finish(id, true);
	} else if (now_ns >= id->deadline_ns) {
		finish(id, false);
	} else {
		ask(id, now_ns);
		if (id->asks_once && !id->socket) { /* there is no router */
			finish(id, false);
			return;
		}
		id->retry_ns = now_ns + LOOK_AGAIN_NS;
		ffv_cm_wake_by(id->device, id->retry_ns < id->deadline_ns ? id->retry_ns : id->deadline_ns);
	}
}

void ffv_cm_on_host_answer(struct ffv_cm_id_private *id)
{
	uint32_t error = EPROTO;
	int rc = ffv_lookup_answer(id->socket->fd, &error);

	if (rc == 1 && !error) {
		id->is_away = id->asks_once; /* which the route need not be asked for again */
		finish(id, true);
	} else if (rc != -EAGAIN && id->asks_once) {
		finish(id, false);
	} else if (rc != -EAGAIN) { /* it knows nobody yet, or has gone */
		drop_question(id);
	}
}

void ffv_cm_on_resolve_timer(struct ffv_cm_id_private *id, uint64_t now_ns)
{
	look(id, now_ns);
}

static void begin_look(struct ffv_cm_id_private *id, enum ffv_cm_state state, int timeout_ms)
{
	uint64_t now_ns = ffv_clock_ns();

	pthread_mutex_lock(&ffv_cm_lock);
	id->state = state;
	id->ask_ns = 0;
	id->deadline_ns = now_ns + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0) * 1000000u;
	look(id, now_ns);
	pthread_mutex_unlock(&ffv_cm_lock);
}

/* The local address of an id that was given none: the one in the family of the destination. */
static void choose_source(struct ffv_cm_id_private *id)
{
	const union ffv_sockaddr *dst = &id->id.route.addr.dst;
	union ffv_sockaddr *src = &id->id.route.addr.src;
	uint16_t port = ffv_address_port(src);

	if (src->family && !ffv_address_is_any(src))
		return;
	if (ffv_address_is_local(id->device->gid, dst) && !ffv_address_is_any(dst))
		*src = *dst;
	else
		ffv_address_own(id->device->gid, src);
	ffv_address_set_port(src, port ? port : ffv_cm_some_port());
}

static int take_source(struct ffv_cm_id_private *id, const struct sockaddr *src)
{
	union ffv_sockaddr copy;

	if (!src || !ffv_address_size(src))
		return src ? ffv_fail(EAFNOSUPPORT, "the source is no IPv4 or IPv6 address") : 0;
	ffv_address_copy(&copy, src);
	if (!ffv_address_is_local(id->device->gid, &copy))
		return ffv_fail(ENODEV, "the source address is none of this container's");
	if (ffv_address_port(&copy))
		return ffv_cm_bind_to(id, &copy);
	ffv_address_set_port(&copy, ffv_cm_some_port()); /* the four-tuple of a connection is all that must be unique */
	id->id.route.addr.src = copy;
	return 0;
}

int ffv_cm_resolve_addr(struct ffv_cm_id *id, const struct sockaddr *src, const struct sockaddr *dst, int timeout_ms)
{
	struct ffv_cm_id_private *own = ffv_cm_private(id);
	int rc = ffv_cm_check_id(id);

	if (rc)
		return rc;
	if (own->state != FFV_CM_IDLE && own->state != FFV_CM_ADDR_BOUND)
		return ffv_fail(EINVAL, "an address is resolved once, by an id that does not listen");
	if (!ffv_address_size(dst))
		return ffv_fail(dst ? EAFNOSUPPORT : EINVAL, "the destination is no IPv4 or IPv6 address");
	rc = ffv_cm_hold_device(own);
	if (!rc && own->state == FFV_CM_IDLE)
		rc = take_source(own, src);
	if (rc)
		return rc;
	ffv_address_copy(&id->route.addr.dst, dst);
	choose_source(own);
	ffv_cm_show_device(own);
	ffv_address_bytes(&id->route.addr.dst, id->route.addr.ibaddr.dgid.raw);
	if (ffv_address_is_local(own->device->gid, &id->route.addr.dst))
		memcpy(id->route.addr.ibaddr.dgid.raw, own->device->gid, 16);
	begin_look(own, FFV_CM_ADDR_QUERY, timeout_ms);
	return ffv_cm_complete(own);
}

int ffv_cm_resolve_route(struct ffv_cm_id *id, int timeout_ms)
{
	struct ffv_cm_id_private *own = ffv_cm_private(id);
	int rc = ffv_cm_check_id(id);

	if (rc)
		return rc;
	if (own->state != FFV_CM_ADDR_RESOLVED)
		return ffv_fail(EINVAL, "a route is resolved after the address, and before connecting");
	begin_look(own, FFV_CM_ROUTE_QUERY, timeout_ms);
	return ffv_cm_complete(own);
}

/* SPDX-License-Identifier: MIT
 *
 * Multicast groups of datagram ids. A group's GID is its address: IPv6, or IPv4 mapped into it, as RoCE v2 has it. Joining
 * needs nobody's consent here; it is reported by an event all the same, and whoever reads that attaches the queue pair.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "cm/address.h"
#include "cm/cm.h"

static struct ffv_cm_multicast **find(struct ffv_cm_id_private *id, const union ffv_sockaddr *addr)
{
	struct ffv_cm_multicast **at = &id->multicasts;

	while (*at && !ffv_address_equal(&(*at)->addr, addr))
		at = &(*at)->next;
	return at;
}

static int check_join(const struct ffv_cm_id_private *id, const struct sockaddr *addr)
{
	union ffv_sockaddr copy;

	if (!ffv_address_size(addr))
		return ffv_fail(addr ? EAFNOSUPPORT : EINVAL, "a group has an IPv4 or IPv6 address");
	ffv_address_copy(&copy, addr);
	if (!ffv_address_is_multicast(&copy))
		return ffv_fail(EINVAL, "the address is no multicast address");
	if (!ffv_cm_is_datagram(id))
		return ffv_fail(EINVAL, "only datagram ids (UDP, IPOIB) join groups");
	if (id->state != FFV_CM_ADDR_BOUND && id->state != FFV_CM_ADDR_RESOLVED && id->state != FFV_CM_ROUTE_RESOLVED)
		return ffv_fail(EINVAL, "an id joins groups once it is bound, or its address is resolved");
	return 0;
}

static int join(struct ffv_cm_id_private *id, const struct sockaddr *addr, uint32_t flags, void *context)
{
	int rc = check_join(id, addr);

	if (rc)
		return rc;
	struct ffv_cm_multicast *multicast = calloc(1, sizeof *multicast);
	struct ffv_cm_event_private *event = ffv_cm_new_event(id, FFV_CM_EVENT_MULTICAST_JOIN, 0);
	if (!multicast || !event) {
		free(multicast);
		free(event);
		return ffv_fail(ENOMEM, "no memory to join a group");
	}
	ffv_address_copy(&multicast->addr, addr);
	ffv_address_bytes(&multicast->addr, multicast->gid.raw);
	multicast->join_flags = flags;
	multicast->context = context;
	event->multicast = multicast;
	event->event.param.ud.qp_num = FFV_CM_MULTICAST_QPN;
	event->event.param.ud.qkey = FFV_CM_UDP_QKEY;
	ffv_cm_fill_ah_attr(id, multicast->gid.raw, &event->event.param.ud.ah_attr);
	event->event.param.ud.private_data = context; /* librdmacm's place for it */
	pthread_mutex_lock(&ffv_cm_lock);
	if (*find(id, &multicast->addr))
		rc = ffv_fail(EADDRINUSE, "the id has joined the group already");
	if (!rc) {
		multicast->next = id->multicasts;
		id->multicasts = multicast;
		ffv_cm_post_event(event);
	}
	pthread_mutex_unlock(&ffv_cm_lock);
	if (rc) {
		free(multicast);
		free(event);
	}
	return rc;
}

int ffv_cm_join_multicast(struct ffv_cm_id *id, const struct sockaddr *addr, void *context)
{
	int rc = ffv_cm_check_id(id);

	rc = rc ? rc : join(ffv_cm_private(id), addr, FFV_CM_JOIN_FULLMEMBER, context);
	return rc ? rc : ffv_cm_complete(ffv_cm_private(id));
}

int ffv_cm_join_multicast_ex(struct ffv_cm_id *id, const struct ffv_cm_join_attr *attr, void *context)
{
	int rc = ffv_cm_check_id(id);

	if (rc)
		return rc;
	if (!attr || attr->comp_mask != (FFV_CM_JOIN_ADDRESS | FFV_CM_JOIN_FLAGS) ||
	    attr->join_flags > FFV_CM_JOIN_SENDONLY_FULLMEMBER)
		return ffv_fail(EINVAL, "a join has an address and flags, which are FULLMEMBER or SENDONLY_FULLMEMBER, and "
				"a mask that says so");
	rc = join(ffv_cm_private(id), attr->addr, attr->join_flags, context);
	return rc ? rc : ffv_cm_complete(ffv_cm_private(id));
}

int ffv_cm_attach_multicast(struct ffv_cm_id_private *id, struct ffv_cm_multicast *multicast)
{
	if (!id->id.qp || multicast->join_flags == FFV_CM_JOIN_SENDONLY_FULLMEMBER)
		return 0;
	int rc = ffv_attach_mcast(id->id.qp, &multicast->gid, 0);
	if (!rc)
		multicast->attached = true;
	return rc;
}

int ffv_cm_detach_all(struct ffv_cm_id_private *id)
{
	int rc = 0;

	for (struct ffv_cm_multicast *multicast = id->multicasts; multicast && !rc; multicast = multicast->next) {
		if (multicast->attached)
			rc = ffv_detach_mcast(id->id.qp, &multicast->gid, 0);
		multicast->attached = multicast->attached && rc;
	}
	return rc;
}

static int leave(struct ffv_cm_id_private *id, struct ffv_cm_multicast *multicast)
{
	int rc = multicast->attached && id->id.qp ? ffv_detach_mcast(id->id.qp, &multicast->gid, 0) : 0;

	free(multicast);
	return rc;
}

int ffv_cm_leave_multicast(struct ffv_cm_id *id, const struct sockaddr *addr)
{
	struct ffv_cm_id_private *own = ffv_cm_private(id);
	struct ffv_cm_multicast *found = NULL;
	union ffv_sockaddr copy;
	int rc = ffv_cm_check_id(id);

	if (rc)
		return rc;
	if (!ffv_address_size(addr))
		return ffv_fail(EINVAL, "no address of a group was given");
	ffv_address_copy(&copy, addr);
	pthread_mutex_lock(&ffv_cm_lock);
	struct ffv_cm_multicast **at = find(own, &copy);
	found = *at;
	if (found) {
		*at = found->next;
		ffv_cm_drop_join(own, found);
	}
	pthread_mutex_unlock(&ffv_cm_lock);
	return found ? leave(own, found) : ffv_fail(EADDRNOTAVAIL, "the id has not joined that group");
}

void ffv_cm_leave_all(struct ffv_cm_id_private *id)
{
	while (id->multicasts) {
		struct ffv_cm_multicast *multicast = id->multicasts;
		id->multicasts = multicast->next;
		leave(id, multicast);
	}
}

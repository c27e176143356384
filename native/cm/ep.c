/* SPDX-License-Identifier: MIT
 *
 * Endpoints: synchronous ids in few calls.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "cm/cm.h"

#define RESOLVE_TIMEOUT_MS 2000

static int make_passive(struct ffv_cm_id_private *id, const struct ffv_cm_addrinfo *info, struct ffv_pd *pd,
			const struct ffv_qp_init_attr *attr)
{
	int rc = ffv_cm_bind_addr(&id->id, info->src_addr);

	if (rc)
		return rc;
	id->ep_pd = pd;
	if (!attr)
		return 0;
	id->ep_attr = malloc(sizeof *attr);
	if (!id->ep_attr)
		return ffv_fail(ENOMEM, "no memory for the attributes of an endpoint");
	*id->ep_attr = *attr;
	id->ep_attr->qp_type = (uint32_t)info->qp_type;
	return 0;
}

static int finish(struct ffv_cm_id_private *id, int rc)
{
	while (rc == -EINTR) /* not for long: there is no id yet to go on with */
		rc = ffv_cm_wait(&id->id);
	return rc;
}

static int make_active(struct ffv_cm_id_private *id, const struct ffv_cm_addrinfo *info, struct ffv_pd *pd,
		       struct ffv_qp_init_attr *attr)
{
	int rc = finish(id, ffv_cm_resolve_addr(&id->id, info->src_addr, info->dst_addr, RESOLVE_TIMEOUT_MS));

	if (!rc)
		rc = finish(id, ffv_cm_resolve_route(&id->id, RESOLVE_TIMEOUT_MS));
	if (!rc && attr) {
		attr->qp_type = (uint32_t)info->qp_type;
		rc = ffv_cm_create_qp(&id->id, pd, attr);
	}
	if (rc || !info->connect_len)
		return rc;
	if (info->connect_len > FFV_CM_PRIVATE_BYTES)
		return ffv_fail(EINVAL, "the private data of the address is too long");
	id->ep_connect = malloc(info->connect_len);
	if (!id->ep_connect)
		return ffv_fail(ENOMEM, "no memory for private data");
	memcpy(id->ep_connect, info->connect, info->connect_len);
	id->ep_connect_len = (uint8_t)info->connect_len;
	return 0;
}

int ffv_cm_create_ep(struct ffv_cm_id **out, const struct ffv_cm_addrinfo *info, struct ffv_pd *pd,
		     struct ffv_qp_init_attr *attr)
{
	struct ffv_cm_id *id;

	if (!info)
		return ffv_fail(EINVAL, "no address for the endpoint was given");
	int rc = ffv_cm_create_id(NULL, &id, NULL, (uint32_t)info->port_space);
	if (rc)
		return rc;
	rc = info->flags & FFV_RAI_PASSIVE ? make_passive(ffv_cm_private(id), info, pd, attr) :
					     make_active(ffv_cm_private(id), info, pd, attr);
	if (rc) {
		ffv_cm_destroy_ep(id);
		return rc;
	}
	*out = id;
	return 0;
}

int ffv_cm_destroy_ep(struct ffv_cm_id *id)
{
	int rc = ffv_cm_destroy_qp(id);

	return rc ? rc : ffv_cm_destroy_id(id);
}

static int make_qp_of_request(struct ffv_cm_id_private *listen, struct ffv_cm_id *id)
{
	struct ffv_qp_init_attr attr;

	if (!listen->ep_attr)
		return 0;
	attr = *listen->ep_attr;
	return ffv_cm_create_qp(id, listen->ep_pd, &attr);
}

int ffv_cm_get_request(struct ffv_cm_id *listen, struct ffv_cm_id **out)
{
	struct ffv_cm_id_private *own = ffv_cm_private(listen);
	struct ffv_cm_event *event;
	int rc = ffv_cm_check_id(listen);

	if (rc)
		return rc;
	if (!own->sync)
		return ffv_fail(EINVAL, "requests of an id with an event channel are read from that");
	if (own->state != FFV_CM_LISTEN)
		return ffv_fail(EINVAL, "the id does not listen");
	if (listen->event) {
		ffv_cm_ack_event(listen->event);
		listen->event = NULL;
	}
	rc = ffv_cm_get_event(listen->channel, &event);
	if (rc)
		return rc;
	if (event->event != FFV_CM_EVENT_CONNECT_REQUEST) {
		listen->event = event;
		return ffv_fail(event->status < 0 ? -event->status : EINVAL, "a listening id got %s",
				ffv_cm_event_str(event->event));
	}
	rc = make_qp_of_request(own, event->id);
	if (rc) {
		ffv_cm_reject(event->id, NULL, 0);
		ffv_cm_destroy_id(event->id);
		ffv_cm_ack_event(event);
		return rc;
	}
	event->id->event = event;
	*out = event->id;
	return 0;
}

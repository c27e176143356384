/* SPDX-License-Identifier: MIT
 *
 * Ids: their life, options, and the addresses they are bound to.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "cm/address.h"
#include "cm/cm.h"

#define FIRST_EPHEMERAL 32768u
#define LAST_EPHEMERAL 60999u
#define MOST_TRIES 256

/* ---- life ---------------------------------------------------------------------------------------------------------------- */

struct ffv_cm_id_private *ffv_cm_allocate_id(uint32_t port_space, struct ffv_cm_channel *channel, void *context)
{
	uint32_t generation = ffv_cm_generation();
	struct ffv_cm_id_private *id = calloc(1, sizeof *id);

	if (!id)
		return NULL;
	id->generation = generation;
	id->deadline_ns = id->retry_ns = UINT64_MAX;
	id->id.ps = port_space;
	id->id.channel = channel;
	id->id.context = context;
	id->id.qp_type = port_space == FFV_PS_UDP || port_space == FFV_PS_IPOIB ? FFV_QPT_UD : FFV_QPT_RC;
	return id;
}

int ffv_cm_create_id(struct ffv_cm_channel *channel, struct ffv_cm_id **out, void *context, uint32_t port_space)
{
	struct ffv_cm_channel *used = channel;
	int rc = 0;

	if (port_space != FFV_PS_TCP && port_space != FFV_PS_UDP && port_space != FFV_PS_IPOIB && port_space != FFV_PS_IB)
		return ffv_fail(EINVAL, "there is no port space %#x; TCP, UDP, IPOIB and IB are", port_space);
	if (channel)
		rc = ffv_cm_check_generation(((struct ffv_cm_channel_private *)channel)->generation);
	else
		rc = ffv_cm_create_channel(&used);
	if (rc)
		return rc;
	struct ffv_cm_id_private *id = ffv_cm_allocate_id(port_space, used, context);
	if (!id) {
		if (!channel)
			ffv_cm_destroy_channel(used);
		return ffv_fail(ENOMEM, "no memory for an id");
	}
	id->sync = id->owns_channel = !channel;
	pthread_mutex_lock(&ffv_cm_lock);
	((struct ffv_cm_channel_private *)used)->ids++;
	ffv_cm_list_id(id);
	pthread_mutex_unlock(&ffv_cm_lock);
	*out = &id->id;
	return 0;
}

static void free_id(struct ffv_cm_id_private *id)
{
	ffv_cm_freeaddrinfo(id->found);
	free(id->ep_attr);
	free(id->ep_connect);
	free(id);
}

/* Sockets at which it listens; those that were about to say what they want get no answer. */
static void release_claims(struct ffv_cm_id_private *id)
{
	struct ffv_service services[FFV_CM_MAX_CLAIMS];
	int fds[FFV_CM_MAX_CLAIMS];

	pthread_mutex_lock(&ffv_cm_lock);
	uint32_t count = id->num_claims;
	for (uint32_t i = 0; i < count; i++) {
		services[i] = id->claims[i].service;
		fds[i] = id->claims[i].socket->fd;
		ffv_cm_remove_socket(id->claims[i].socket, false);
	}
	id->num_claims = 0;
	for (struct ffv_cm_socket *socket = ffv_cm_sockets(), *next; socket; socket = next) {
		next = socket->next;
		if (socket->id == id && socket->is_new)
			ffv_cm_remove_socket(socket, true);
	}
	pthread_mutex_unlock(&ffv_cm_lock);
	for (uint32_t i = 0; i < count; i++)
		ffv_lookup_release(id->device->ctx, &services[i], fds[i]);
}

/* Out of the service thread's sight. Requests that nobody read are refused with the listener. */
static struct ffv_cm_id_private *detach(struct ffv_cm_id_private *id)
{
	struct ffv_cm_id_private *orphans = NULL;

	pthread_mutex_lock(&ffv_cm_lock);
	ffv_cm_unlist_id(id);
	ffv_cm_hang_up(id);
	ffv_cm_drop_events(id, &orphans);
	for (struct ffv_cm_id_private *child = orphans; child; child = child->next) {
		struct ffv_cm_id_private *none = NULL;
		ffv_cm_hang_up(child);
		ffv_cm_drop_events(child, &none);
	}
	pthread_mutex_unlock(&ffv_cm_lock);
	return orphans;
}

static void leave_channel(struct ffv_cm_id_private *id)
{
	pthread_mutex_lock(&ffv_cm_lock);
	((struct ffv_cm_channel_private *)id->id.channel)->ids--;
	pthread_mutex_unlock(&ffv_cm_lock);
	if (id->owns_channel)
		ffv_cm_destroy_channel(id->id.channel);
}

int ffv_cm_destroy_id(struct ffv_cm_id *id)
{
	struct ffv_cm_id_private *own = ffv_cm_private(id);

	if (!id)
		return ffv_fail(EINVAL, "no id was given");
	if (ffv_cm_check_generation(own->generation)) { /* a fork child: only its memory */
		if (own->owns_channel)
			ffv_cm_destroy_channel(id->channel);
		free_id(own);
		return 0;
	}
	if (own->owns_qp)
		return ffv_fail(EBUSY, "the id still has its queue pair: destroy that first");
	if (own->sync && id->event) {
		ffv_cm_ack_event(id->event);
		id->event = NULL;
	}
	release_claims(own);
	struct ffv_cm_id_private *orphans = detach(own);
	ffv_cm_wait_acknowledged(own);
	ffv_cm_leave_all(own);
	while (orphans) {
		struct ffv_cm_id_private *child = orphans;
		orphans = child->next;
		leave_channel(child);
		ffv_cm_drop_device(child);
		free_id(child);
	}
	leave_channel(own);
	ffv_cm_drop_device(own);
	free_id(own);
	return 0;
}

/* ---- options -------------------------------------------------------------------------------------------------------------- */

static int take_flag(const void *value, size_t length, bool *out)
{
	int number;

	if (length != sizeof number)
		return ffv_fail(EINVAL, "the option is an int of %zu bytes, not %zu", sizeof number, length);
	memcpy(&number, value, sizeof number);
	*out = number != 0;
	return 0;
}

static int take_byte(const void *value, size_t length, uint8_t most, uint8_t *out, bool *has)
{
	const uint8_t *byte = value;

	if (length != 1)
		return ffv_fail(EINVAL, "the option is one byte, not %zu", length);
	if (*byte > most)
		return ffv_fail(EINVAL, "the option is at most %u, not %u", most, *byte);
	*out = *byte;
	*has = true;
	return 0;
}

int ffv_cm_set_option(struct ffv_cm_id *id, int level, int option, const void *value, size_t length)
{
	struct ffv_cm_id_private *own = ffv_cm_private(id);
	int rc = ffv_cm_check_id(id);

	if (rc)
		return rc;
	if (!value)
		return ffv_fail(EINVAL, "no value for the option was given");
	if (level != FFV_OPTION_ID)
		return ffv_fail(EINVAL, "there are no options of level %d", level);
	switch (option) {
	case FFV_OPTION_ID_TOS:
		return take_byte(value, length, 0xff, &own->tos, &own->has_tos);
	case FFV_OPTION_ID_ACK_TIMEOUT:
		return take_byte(value, length, 31, &own->ack_timeout, &own->has_ack_timeout);
	case FFV_OPTION_ID_REUSEADDR:
		return take_flag(value, length, &own->reuse_address);
	case FFV_OPTION_ID_ASK_ONCE:
		return take_flag(value, length, &own->asks_once);
	case FFV_OPTION_ID_AFONLY:
		if (own->state != FFV_CM_IDLE)
			return ffv_fail(EINVAL, "whether an id is for one family is said before it is bound");
		return take_flag(value, length, &own->address_family_only);
	default:
		return ffv_fail(EINVAL, "there is no option %d", option);
	}
}

int ffv_cm_set_local_ece(struct ffv_cm_id *id, const struct ffv_cm_ece *ece)
{
	int rc = ffv_cm_check_id(id);

	if (rc)
		return rc;
	if (!ece || !ece->vendor_id || ece->comp_mask || id->qp)
		return ffv_fail(EINVAL, "options of a connection have a vendor and no mask, and are set before the id "
				"has a queue pair");
	ffv_cm_private(id)->local_ece = *ece;
	return 0;
}

int ffv_cm_get_remote_ece(struct ffv_cm_id *id, struct ffv_cm_ece *ece)
{
	int rc = ffv_cm_check_id(id);

	if (rc)
		return rc;
	if (!ece || id->qp)
		return ffv_fail(EINVAL, "options of a connection are read with an external queue pair");
	*ece = ffv_cm_private(id)->remote_ece;
	return 0;
}

/* ---- binding -------------------------------------------------------------------------------------------------------------- */

static int claim_one(struct ffv_cm_id_private *id, const struct ffv_service *service)
{
	struct ffv_cm_socket *socket;
	int fd, rc = ffv_lookup_claim(id->device->ctx, service, &fd);

	if (rc)
		return rc;
	FFV_FAULT(cm_claimed);
	pthread_mutex_lock(&ffv_cm_lock);
	rc = ffv_cm_add_socket(id->device, fd, id, &socket);
	if (!rc) {
		socket->is_listener = true;
		id->claims[id->num_claims++] = (struct ffv_cm_claim){ *service, socket };
	}
	pthread_mutex_unlock(&ffv_cm_lock);
	return rc;
}

/* Claims the id's address. Of a wildcard, the container's own addresses must be free; others may be taken by who shares
 * an interface with it. */
static int claim_all(struct ffv_cm_id_private *id)
{
	const union ffv_sockaddr *addr = &id->id.route.addr.src;
	struct ffv_service services[FFV_CM_MAX_CLAIMS];
	uint32_t count = 1;

	if (ffv_address_is_any(addr))
		count = ffv_address_services_of_any(id->device->gid, addr, id->address_family_only, id->id.ps, services,
						    FFV_CM_MAX_CLAIMS);
	else
		ffv_address_service(id->device->gid, addr, id->id.ps, &services[0]);
	for (uint32_t i = 0; i < count; i++) {
		bool own = memcmp(services[i].address, id->device->gid, 16) == 0 || count == 1;
		int rc = claim_one(id, &services[i]);
		if (rc && (own || rc != -EADDRINUSE)) {
			release_claims(id);
			return rc;
		}
	}
	return 0;
}

uint16_t ffv_cm_some_port(void)
{
	static _Atomic uint32_t counter;
	uint32_t seed = (uint32_t)(ffv_clock_ns() / 1000) + __atomic_fetch_add((uint32_t *)&counter, 1, __ATOMIC_RELAXED);

	seed *= 2654435761u; /* spreads what is close together */
	return (uint16_t)(FIRST_EPHEMERAL + (seed >> 8) % (LAST_EPHEMERAL - FIRST_EPHEMERAL + 1));
}

static int claim_some_port(struct ffv_cm_id_private *id)
{
	int rc = -EADDRINUSE;

	for (int tries = 0; tries < MOST_TRIES && rc == -EADDRINUSE; tries++) {
		ffv_address_set_port(&id->id.route.addr.src, ffv_cm_some_port());
		rc = claim_all(id);
	}
	if (rc)
		ffv_address_set_port(&id->id.route.addr.src, 0);
	return rc;
}

void ffv_cm_show_device(struct ffv_cm_id_private *id)
{
	if (ffv_address_is_any(&id->id.route.addr.src))
		return;
	id->id.verbs = id->device->ctx;
	id->id.port_num = 1;
	if (!id->id.pd)
		id->id.pd = id->device->pd;
	memcpy(id->id.route.addr.ibaddr.sgid.raw, id->device->gid, 16);
	id->id.route.addr.ibaddr.pkey_be = 0xffff;
}

int ffv_cm_bind_to(struct ffv_cm_id_private *id, const union ffv_sockaddr *addr)
{
	int rc = ffv_cm_hold_device(id);

	if (rc)
		return rc;
	if (!ffv_address_is_local(id->device->gid, addr) && !ffv_address_is_multicast(addr))
		return ffv_fail(ENODEV, "the address is none of this container's");
	id->id.route.addr.src = *addr;
	if (ffv_address_is_multicast(addr))
		rc = 0;
	else if (!ffv_address_port(addr))
		rc = claim_some_port(id);
	else if (!id->reuse_address)
		rc = claim_all(id);
	if (rc) {
		memset(&id->id.route.addr.src, 0, sizeof id->id.route.addr.src);
		return rc;
	}
	ffv_cm_show_device(id);
	pthread_mutex_lock(&ffv_cm_lock);
	id->state = FFV_CM_ADDR_BOUND;
	pthread_mutex_unlock(&ffv_cm_lock);
	return 0;
}

int ffv_cm_bind_addr(struct ffv_cm_id *id, const struct sockaddr *addr)
{
	struct ffv_cm_id_private *own = ffv_cm_private(id);
	union ffv_sockaddr copy;
	int rc = ffv_cm_check_id(id);

	if (rc)
		return rc;
	if (!ffv_address_size(addr))
		return ffv_fail(addr ? EAFNOSUPPORT : EINVAL, "an id is bound to an IPv4 or IPv6 address");
	if (own->state != FFV_CM_IDLE)
		return ffv_fail(EINVAL, "the id is bound already");
	ffv_address_copy(&copy, addr);
	return ffv_cm_bind_to(own, &copy);
}

int ffv_cm_listen(struct ffv_cm_id *id, int backlog)
{
	struct ffv_cm_id_private *own = ffv_cm_private(id);
	int rc = ffv_cm_check_id(id);

	if (rc)
		return rc;
	if (own->state == FFV_CM_IDLE) {
		union ffv_sockaddr any = { .family = AF_INET };
		rc = ffv_cm_bind_to(own, &any);
		if (rc)
			return rc;
	}
	if (own->state != FFV_CM_ADDR_BOUND)
		return ffv_fail(EINVAL, "an id that connects, or listens already, cannot listen");
	if (!own->num_claims)
		rc = claim_all(own);
	if (rc)
		return rc;
	pthread_mutex_lock(&ffv_cm_lock);
	own->backlog = backlog > 0 && backlog < FFV_CM_MAX_BACKLOG ? (uint32_t)backlog : FFV_CM_MAX_BACKLOG;
	own->state = FFV_CM_LISTEN;
	pthread_mutex_unlock(&ffv_cm_lock);
	return 0;
}

uint16_t ffv_cm_src_port_be(const struct ffv_cm_id *id)
{
	return __builtin_bswap16(ffv_address_port(&id->route.addr.src));
}

uint16_t ffv_cm_dst_port_be(const struct ffv_cm_id *id)
{
	return __builtin_bswap16(ffv_address_port(&id->route.addr.dst));
}

/* SPDX-License-Identifier: MIT
 *
 * Names: what getaddrinfo knows, as addresses for ids. Process-private, no state.
 */
#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/error.h"
#include "cm/address.h"
#include "cm/cm.h"

/* ---- copies ------------------------------------------------------------------------------------------------------------------ */

static int copy_bytes(void **out, const void *from, size_t length)
{
	if (!from || !length)
		return 0;
	*out = malloc(length);
	if (!*out)
		return ffv_fail(ENOMEM, "no memory for an address");
	memcpy(*out, from, length);
	return 0;
}

static int copy_address(struct sockaddr **out, uint32_t *out_len, const struct sockaddr *from, uint32_t length)
{
	int rc = copy_bytes((void **)out, from, length);

	if (!rc && *out)
		*out_len = length;
	return rc;
}

static int copy_name(char **out, const char *from)
{
	return copy_bytes((void **)out, from, from ? strlen(from) + 1 : 0);
}

void ffv_cm_freeaddrinfo(struct ffv_cm_addrinfo *info)
{
	while (info) {
		struct ffv_cm_addrinfo *next = info->next;
		free(info->src_addr);
		free(info->dst_addr);
		free(info->src_canonname);
		free(info->dst_canonname);
		free(info->route);
		free(info->connect);
		free(info);
		info = next;
	}
}

static int copy_one(const struct ffv_cm_addrinfo *from, struct ffv_cm_addrinfo **out)
{
	struct ffv_cm_addrinfo *copy = calloc(1, sizeof *copy);
	int rc;

	if (!copy)
		return ffv_fail(ENOMEM, "no memory for an address");
	copy->flags = from->flags;
	copy->family = from->family;
	copy->qp_type = from->qp_type;
	copy->port_space = from->port_space;
	rc = copy_address(&copy->src_addr, &copy->src_len, from->src_addr, from->src_len);
	if (!rc)
		rc = copy_address(&copy->dst_addr, &copy->dst_len, from->dst_addr, from->dst_len);
	if (!rc)
		rc = copy_name(&copy->src_canonname, from->src_canonname);
	if (!rc)
		rc = copy_name(&copy->dst_canonname, from->dst_canonname);
	if (!rc)
		rc = copy_bytes(&copy->connect, from->connect, from->connect_len);
	if (rc) {
		ffv_cm_freeaddrinfo(copy);
		return rc;
	}
	copy->connect_len = from->connect_len;
	*out = copy;
	return 0;
}

/* ---- asking ------------------------------------------------------------------------------------------------------------------ */

static int errno_of(int eai)
{
	switch (eai) {
	case EAI_SYSTEM:
		return errno;
	case EAI_AGAIN:
		return EAGAIN;
	case EAI_MEMORY:
		return ENOMEM;
	case EAI_NONAME:
	case EAI_NODATA:
	case EAI_ADDRFAMILY:
		return ENOENT;
	default:
		return EINVAL;
	}
}

static bool is_datagram(const struct ffv_cm_addrinfo *hints)
{
	if (hints->qp_type)
		return hints->qp_type == FFV_QPT_UD;
	return hints->port_space == FFV_PS_UDP || hints->port_space == FFV_PS_IPOIB;
}

static int ask(const char *node, const char *service, const struct ffv_cm_addrinfo *hints, struct addrinfo **out)
{
	struct addrinfo question = {
		.ai_family = hints->flags & FFV_RAI_FAMILY || hints->family ? hints->family : AF_UNSPEC,
		.ai_socktype = is_datagram(hints) ? SOCK_DGRAM : SOCK_STREAM,
		.ai_flags = (hints->flags & FFV_RAI_PASSIVE ? AI_PASSIVE : 0) |
			    (hints->flags & FFV_RAI_NUMERICHOST ? AI_NUMERICHOST : 0) | (node ? AI_CANONNAME : 0),
	};
	int eai = getaddrinfo(node, service, &question, out);

	if (!eai)
		return 0;
	int err = errno_of(eai);
	return ffv_fail(err, "%s%s%s cannot be resolved: %s", node ? node : "", service ? " port " : "",
			service ? service : "", gai_strerror(eai));
}

static int take_answer(const struct addrinfo *answer, const struct ffv_cm_addrinfo *hints, struct ffv_cm_addrinfo *info)
{
	bool passive = hints->flags & FFV_RAI_PASSIVE;
	int rc = passive ? copy_address(&info->src_addr, &info->src_len, answer->ai_addr, answer->ai_addrlen) :
			   copy_address(&info->dst_addr, &info->dst_len, answer->ai_addr, answer->ai_addrlen);

	info->family = answer->ai_family;
	if (!rc)
		rc = copy_name(passive ? &info->src_canonname : &info->dst_canonname, answer->ai_canonname);
	return rc;
}

static void take_hints(const struct ffv_cm_addrinfo *hints, struct ffv_cm_addrinfo *info)
{
	bool datagram = is_datagram(hints);

	info->flags = hints->flags;
	info->family = hints->family;
	info->qp_type = hints->qp_type ? hints->qp_type : datagram ? FFV_QPT_UD : FFV_QPT_RC;
	info->port_space = hints->port_space ? hints->port_space : datagram ? FFV_PS_UDP : FFV_PS_TCP;
}

static int build(const char *node, const char *service, const struct ffv_cm_addrinfo *hints, struct ffv_cm_addrinfo *info)
{
	struct addrinfo *answer = NULL;
	int rc = 0;

	take_hints(hints, info);
	if (node || service) {
		rc = ask(node, service, hints, &answer);
		if (!rc)
			rc = take_answer(answer, hints, info);
		if (answer)
			freeaddrinfo(answer);
	} else {
		rc = copy_address(&info->dst_addr, &info->dst_len, hints->dst_addr, hints->dst_len);
	}
	if (!rc && !info->src_len)
		rc = copy_address(&info->src_addr, &info->src_len, hints->src_addr, hints->src_len);
	if (!rc && !info->family && info->src_addr)
		info->family = info->src_addr->sa_family;
	return rc;
}

int ffv_cm_getaddrinfo(const char *node, const char *service, const struct ffv_cm_addrinfo *hints,
		       struct ffv_cm_addrinfo **out)
{
	static const struct ffv_cm_addrinfo no_hints;

	if (!node && !service && !hints)
		return ffv_fail(EINVAL, "neither a name nor a service nor hints were given");
	struct ffv_cm_addrinfo *info = calloc(1, sizeof *info);
	if (!info)
		return ffv_fail(ENOMEM, "no memory for an address");
	int rc = build(node, service, hints ? hints : &no_hints, info);
	if (rc) {
		ffv_cm_freeaddrinfo(info);
		return rc;
	}
	*out = info;
	return 0;
}

/* ---- of ids -------------------------------------------------------------------------------------------------------------------- */

int ffv_cm_resolve_addrinfo(struct ffv_cm_id *id, const char *node, const char *service,
			    const struct ffv_cm_addrinfo *hints)
{
	struct ffv_cm_id_private *own = ffv_cm_private(id);
	struct ffv_cm_addrinfo *found = NULL;
	int rc = ffv_cm_check_id(id);

	if (rc)
		return rc;
	if (!hints || !(hints->flags & (FFV_RAI_DNS | FFV_RAI_SA)))
		return ffv_fail(EINVAL, "the hints say how the name is looked up: RAI_DNS");
	if (hints->flags & FFV_RAI_SA)
		return ffv_fail(EOPNOTSUPP, "there is no subnet administration to look a service up with: use RAI_DNS");
	if (!node && !service)
		return ffv_fail(EINVAL, "neither a name nor a service was given");
	if (own->state != FFV_CM_IDLE && own->state != FFV_CM_ADDR_BOUND)
		return ffv_fail(EINVAL, "a name is resolved before the address");
	rc = ffv_cm_getaddrinfo(node, service, hints, &found);
	ffv_cm_freeaddrinfo(own->found);
	own->found = found;
	pthread_mutex_lock(&ffv_cm_lock);
	ffv_cm_raise(own, rc ? FFV_CM_EVENT_ADDRINFO_ERROR : FFV_CM_EVENT_ADDRINFO_RESOLVED, rc);
	pthread_mutex_unlock(&ffv_cm_lock);
	return ffv_cm_complete(own);
}

int ffv_cm_query_addrinfo(struct ffv_cm_id *id, struct ffv_cm_addrinfo **out)
{
	struct ffv_cm_id_private *own = ffv_cm_private(id);
	int rc = ffv_cm_check_id(id);

	if (rc)
		return rc;
	if (!own->found)
		return ffv_fail(ENODATA, "no name was resolved for the id");
	return copy_one(own->found, out);
}

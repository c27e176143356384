/* SPDX-License-Identifier: MIT
 *
 * Addresses, connecting, and what the connection manager tells of connections.
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>

#include "base/error.h"
#include "base/fault.h"
#include "rsocket/rsocket.h"

/* ---- addresses ------------------------------------------------------------------------------------------------------------- */

static uint32_t address_size(int family)
{
	return family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

int ffv_rs_give_address(const struct ffv_rs_socket *socket, const union ffv_sockaddr *from, struct sockaddr *addr,
			uint32_t *length)
{
	union ffv_sockaddr copy = *from;

	if (!length || (!addr && *length))
		return ffv_fail(EFAULT, "no place for an address was given");
	if (!copy.family)
		copy.family = (uint16_t)socket->domain;
	uint32_t size = address_size(copy.family);
	if (addr)
		memcpy(addr, &copy, *length < size ? *length : size);
	*length = size;
	return 0;
}

int ffv_rs_take_address(const struct ffv_rs_socket *socket, const struct sockaddr *addr, uint32_t length, union ffv_sockaddr *out)
{
	if (!addr || length < sizeof addr->sa_family)
		return ffv_fail(EINVAL, "no address was given");
	if (addr->sa_family != socket->domain)
		return ffv_fail(EAFNOSUPPORT, "the address is of family %d, the socket of %d", addr->sa_family, socket->domain);
	if (length < address_size(socket->domain))
		return ffv_fail(EINVAL, "an address of %u bytes is too short", length);
	memset(out, 0, sizeof *out);
	memcpy(out, addr, address_size(socket->domain));
	return 0;
}

void ffv_rs_name_loopback(union ffv_sockaddr *addr)
{
	struct sockaddr_in *in = (struct sockaddr_in *)(void *)addr;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)addr;

	if (addr->family == AF_INET && in->sin_addr.s_addr == htonl(INADDR_ANY))
		in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (addr->family == AF_INET6 && memcmp(&in6->sin6_addr, &in6addr_any, 16) == 0)
		in6->sin6_addr = in6addr_loopback;
}

/* ---- ids -------------------------------------------------------------------------------------------------------------------- */

void ffv_rs_drop_id(struct ffv_rs_socket *socket)
{
	if (socket->id)
		ffv_cm_destroy_id(socket->id);
	if (socket->own_channel)
		ffv_cm_destroy_channel(socket->own_channel);
	socket->id = NULL;
	socket->own_channel = NULL;
}

static int bind_id(struct ffv_rs_socket *socket)
{
	int rc = ffv_cm_bind_addr(socket->id, (const struct sockaddr *)(const void *)&socket->bound);

	if (rc == -ENODEV)
		rc = ffv_fail(EADDRNOTAVAIL, "the address is none of this container's");
	if (!rc)
		socket->bound = socket->id->route.addr.src;
	return rc;
}

int ffv_rs_need_id(struct ffv_rs_socket *socket)
{
	struct ffv_cm_channel *shared;
	int rc;

	if (socket->id)
		return 0;
	rc = ffv_rs_channel(&shared); /* the thread is there before there is anything to tell */
	if (!rc)
		rc = ffv_cm_create_channel(&socket->own_channel);
	if (!rc)
		rc = ffv_cm_create_id(socket->own_channel, &socket->id, socket, socket->is_datagram ? FFV_PS_UDP : FFV_PS_TCP);
	if (!rc && socket->options.reuse_addr)
		rc = ffv_cm_set_option(socket->id, FFV_OPTION_ID, FFV_OPTION_ID_REUSEADDR, &socket->options.reuse_addr,
				       sizeof(int));
	if (!rc && socket->options.v6_only)
		rc = ffv_cm_set_option(socket->id, FFV_OPTION_ID, FFV_OPTION_ID_AFONLY, &socket->options.v6_only, sizeof(int));
	if (!rc && socket->is_bound)
		rc = bind_id(socket);
	if (rc)
		ffv_rs_drop_id(socket);
	return rc;
}

int ffv_bind(int fd, const struct sockaddr *addr, uint32_t length)
{
	struct ffv_rs_socket *socket = ffv_rs_get(fd);
	int rc;

	if (!socket)
		return -EBADF;
	pthread_mutex_lock(&socket->lock);
	if (socket->is_bound || socket->state != FFV_RS_IDLE)
		rc = ffv_fail(EINVAL, "the socket is bound already");
	else
		rc = ffv_rs_take_address(socket, addr, length, &socket->bound);
	if (!rc) {
		socket->is_bound = true;
		rc = ffv_rs_need_id(socket);
		if (!rc && socket->is_datagram && (rc = ffv_rs_open_datagrams(socket, fd)))
			ffv_rs_drop_id(socket);
		socket->is_bound = rc == 0;
	}
	pthread_mutex_unlock(&socket->lock);
	ffv_rs_put(socket);
	return rc;
}

static int name(int fd, bool peer, struct sockaddr *addr, uint32_t *length)
{
	struct ffv_rs_socket *socket = ffv_rs_get(fd);
	static const union ffv_sockaddr nothing;
	int rc;

	if (!socket)
		return -EBADF;
	pthread_mutex_lock(&socket->lock);
	if (peer && ffv_rs_datagram_peer(socket))
		rc = ffv_rs_give_address(socket, ffv_rs_datagram_peer(socket), addr, length);
	else if (peer && (socket->state != FFV_RS_CONNECTED || socket->is_dead))
		rc = ffv_fail(ENOTCONN, "the socket is not connected");
	else if (peer)
		rc = ffv_rs_give_address(socket, &socket->id->route.addr.dst, addr, length);
	else
		rc = ffv_rs_give_address(socket, socket->id ? &socket->id->route.addr.src : &nothing, addr, length);
	pthread_mutex_unlock(&socket->lock);
	ffv_rs_put(socket);
	return rc;
}

int ffv_getsockname(int fd, struct sockaddr *addr, uint32_t *length)
{
	return name(fd, false, addr, length);
}

int ffv_getpeername(int fd, struct sockaddr *addr, uint32_t *length)
{
	return name(fd, true, addr, length);
}

/* ---- connecting -------------------------------------------------------------------------------------------------------------- */

#define ASK_MS 2000                /* for the router to find out who has an address */

/* The next event of the id's own channel, with what the peer said in it. -EAGAIN if there is none. */
struct told { uint32_t type; int status; uint8_t length; uint8_t data[FFV_CM_ACCEPT_DATA]; };

static int next_event(struct ffv_rs_socket *socket, int timeout_ms, struct told *told)
{
	struct pollfd ready = { .fd = socket->own_channel->fd, .events = POLLIN };
	struct ffv_cm_event *event;

	if (poll(&ready, 1, timeout_ms) != 1)
		return -EAGAIN;
	int rc = ffv_cm_get_event(socket->own_channel, &event);
	if (rc)
		return rc;
	*told = (struct told){ .type = event->event, .status = event->status };
	if (event->param.conn.private_data) {
		told->length = (uint8_t)ffv_rs_min(event->param.conn.private_data_len, sizeof told->data);
		memcpy(told->data, event->param.conn.private_data, told->length);
	}
	return ffv_cm_ack_event(event);
}

/* Of what the host knows by itself, which is told at once; *is_asking: the router is asked, and will tell. */
static int resolve(struct ffv_rs_socket *socket, const union ffv_sockaddr *dst, bool *is_asking)
{
	int yes = 1, rc = ffv_cm_set_option(socket->id, FFV_OPTION_ID, FFV_OPTION_ID_ASK_ONCE, &yes, sizeof yes);
	struct told told;

	*is_asking = false;
	if (!rc)
		rc = ffv_cm_resolve_addr(socket->id, NULL, (const struct sockaddr *)(const void *)dst, ASK_MS);
	if (rc)
		return rc;
	rc = next_event(socket, 0, &told);
	*is_asking = rc == -EAGAIN;
	if (*is_asking)
		return 0;
	if (!rc && told.type == FFV_CM_EVENT_ADDR_RESOLVED)
		rc = ffv_cm_resolve_route(socket->id, 0);
	if (!rc)
		rc = next_event(socket, 0, &told);
	return !rc && told.type == FFV_CM_EVENT_ROUTE_RESOLVED ? 0 : ffv_fail(EHOSTUNREACH, "no container has the address");
}

static int request(struct ffv_rs_socket *socket)
{
	struct ffv_rs_hello hello;
	struct ffv_cm_conn_param param = { .private_data = &hello, .private_data_len = sizeof hello, .retry_count = FFV_RS_RETRIES,
					   .rnr_retry_count = 7 };
	int rc = ffv_rs_stream_create(socket, &hello);

	FFV_FAULT(rs_connect_unasked);
	if (!rc)
		rc = ffv_cm_connect(socket->id, &param);
	FFV_FAULT(rs_connect_asked);
	return rc;
}

/* What is known of the answer already. */
static int early_answer(struct ffv_rs_socket *socket)
{
	struct told told;
	int rc = next_event(socket, 0, &told);

	if (rc == -EAGAIN)
		return 0;
	FFV_FAULT(rs_connect_answered);
	if (!rc && told.type != FFV_CM_EVENT_ESTABLISHED)
		rc = ffv_fail(ECONNREFUSED, "nobody listens at the address");
	if (!rc && ffv_rs_stream_peer(socket, told.data, told.length)) {
		ffv_cm_disconnect(socket->id);
		rc = ffv_fail(ECONNREFUSED, "who listens at the address is no socket");
	}
	if (!rc)
		socket->state = FFV_RS_CONNECTED;
	return rc;
}

/* The thread of process.c goes on with it: go_on(). */
static int begin_away(struct ffv_rs_socket *socket, int fd)
{
	int rc = ffv_rs_stream_prepare(socket);

	return rc ? rc : ffv_rs_watch_stream(socket, fd);
}

static int begin_here(struct ffv_rs_socket *socket, int fd)
{
	int rc = request(socket);

	if (!rc)
		rc = ffv_rs_watch_stream(socket, fd);
	return rc;
}

/* As it was. */
static void take_back(struct ffv_rs_socket *socket)
{
	socket->state = FFV_RS_IDLE;
	ffv_rs_stream_destroy(socket);
	ffv_rs_drop_id(socket);
	if (socket->is_bound)
		ffv_rs_need_id(socket);
}

static int begin(struct ffv_rs_socket *socket, int fd, const struct sockaddr *addr, uint32_t length)
{
	struct ffv_cm_channel *shared;
	union ffv_sockaddr dst;
	bool is_asking = false;
	int rc = ffv_rs_take_address(socket, addr, length, &dst);

	if (rc)
		return rc;
	ffv_rs_name_loopback(&dst);
	rc = ffv_rs_need_id(socket);
	if (!rc)
		rc = ffv_rs_set_patience(socket);
	if (!rc)
		rc = resolve(socket, &dst, &is_asking);
	if (!rc)
		rc = is_asking ? begin_away(socket, fd) : begin_here(socket, fd);
	if (!rc)
		rc = ffv_rs_channel(&shared);
	if (!rc)
		socket->state = FFV_RS_CONNECTING;
	if (!rc && !is_asking)
		rc = early_answer(socket);
	if (!rc)
		rc = ffv_cm_migrate_id(socket->id, shared);
	if (rc) {
		take_back(socket);
		return rc;
	}
	ffv_cm_destroy_channel(socket->own_channel);
	socket->own_channel = NULL;
	ffv_rs_show(socket);
	return 0;
}

static int connect_result(struct ffv_rs_socket *socket)
{
	if (socket->state == FFV_RS_CONNECTED)
		return 0;
	if (socket->state == FFV_RS_CONNECTING)
		return ffv_fail(EINPROGRESS, "the connection is being made");
	int err = ffv_rs_take_error(socket);
	return ffv_fail(err ? err : ECONNABORTED, "the connection could not be made");
}

static int may_begin(struct ffv_rs_socket *socket)
{
	switch (socket->state) {
	case FFV_RS_CONNECTING:
		return ffv_fail(EALREADY, "the connection is being made");
	case FFV_RS_LISTENING:
	case FFV_RS_CONNECTED:
		return ffv_fail(EISCONN, "the socket is connected, or listens");
	case FFV_RS_FAILED: /* once more: what the last attempt left is taken away */
		if (socket->error)
			return -ffv_rs_take_error(socket);
		ffv_rs_stream_destroy(socket);
		ffv_rs_drop_id(socket);
		socket->is_dead = socket->reset_arrived = socket->fin_arrived = false;
		socket->state = FFV_RS_IDLE;
		return 0;
	default:
		return 0;
	}
}

static int connect_datagrams(struct ffv_rs_socket *socket, const struct sockaddr *addr, uint32_t length)
{
	bool is_dissolved = addr && length >= sizeof addr->sa_family && addr->sa_family == AF_UNSPEC;
	union ffv_sockaddr peer;
	int rc = is_dissolved ? 0 : ffv_rs_take_address(socket, addr, length, &peer);

	if (!rc && !is_dissolved)
		ffv_rs_name_loopback(&peer);
	pthread_mutex_lock(&socket->lock);
	if (!rc)
		rc = ffv_rs_connect_datagrams(socket, is_dissolved ? NULL : &peer);
	pthread_mutex_unlock(&socket->lock);
	return rc;
}

int ffv_connect(int fd, const struct sockaddr *addr, uint32_t length)
{
	struct ffv_rs_socket *socket = ffv_rs_get(fd);

	if (!socket)
		return -EBADF;
	if (socket->is_datagram) {
		int result = connect_datagrams(socket, addr, length);
		ffv_rs_put(socket);
		return result;
	}
	pthread_mutex_lock(&socket->lock);
	int rc = may_begin(socket);
	if (!rc)
		rc = begin(socket, fd, addr, length);
	uint64_t deadline_ns = ffv_rs_deadline(socket->options.send_timeout_ns);
	bool waits = !rc && !ffv_load_relaxed(&socket->non_blocking);
	while (waits && !rc && socket->state == FFV_RS_CONNECTING) {
		pthread_mutex_unlock(&socket->lock);
		rc = ffv_rs_wait(socket, POLLOUT, deadline_ns);
		pthread_mutex_lock(&socket->lock);
	}
	if (!rc)
		rc = connect_result(socket);
	else if (rc == -EAGAIN && waits)
		rc = ffv_fail(EINPROGRESS, "the connection was not made in the time of SO_SNDTIMEO");
	pthread_mutex_unlock(&socket->lock);
	ffv_rs_put(socket);
	return rc;
}

/* ---- what the connection manager tells --------------------------------------------------------------------------------------- */

static void on_failure(struct ffv_rs_socket *socket, uint32_t type, int status)
{
	socket->state = FFV_RS_FAILED;
	socket->is_dead = true;
	if (type == FFV_CM_EVENT_REJECTED)
		socket->error = ECONNREFUSED;
	else if (type == FFV_CM_EVENT_ADDR_ERROR || type == FFV_CM_EVENT_ROUTE_ERROR)
		socket->error = EHOSTUNREACH;
	else if (type == FFV_CM_EVENT_UNREACHABLE && status == -ETIMEDOUT)
		socket->error = ETIMEDOUT;
	else
		socket->error = ECONNRESET;
}

static void on_established(struct ffv_rs_socket *socket, const void *data, uint8_t length)
{
	if (!socket->listener)
		FFV_FAULT(rs_connect_answered);
	/* Who accepted knows it from the request. */
	if (!socket->stream.peer_ring_bytes && ffv_rs_stream_peer(socket, data, length)) {
		ffv_cm_disconnect(socket->id);
		on_failure(socket, FFV_CM_EVENT_REJECTED, 0);
		return;
	}
	socket->state = FFV_RS_CONNECTED;
}

/* A peer that ended without a word is dead, or has closed: what came before is read, and then its end. If it is on another host,
 * what it had sent may be lost. */
static void on_disconnected(struct ffv_rs_socket *socket)
{
	ffv_cm_disconnect(socket->id);
	ffv_rs_progress(socket);
	if (socket->stream.is_away && !socket->fin_arrived && !socket->error)
		socket->error = ECONNRESET;
	socket->is_dead = true;
}

/* The next step to a peer on another host. False: there is none. */
static bool go_on(struct ffv_rs_socket *socket, uint32_t event)
{
	int rc;

	if (event == FFV_CM_EVENT_ADDR_RESOLVED)
		rc = ffv_cm_resolve_route(socket->id, 0);
	else if (event == FFV_CM_EVENT_ROUTE_RESOLVED)
		rc = request(socket);
	else
		return false;
	if (rc)
		on_failure(socket, FFV_CM_EVENT_UNREACHABLE, rc);
	return true;
}

void ffv_rs_on_connection(struct ffv_rs_socket *socket, uint32_t event, int status, const void *data, uint8_t length)
{
	bool stands = false, is_child = false;

	pthread_mutex_lock(&socket->lock);
	if (socket->state == FFV_RS_CONNECTING && go_on(socket, event)) {
		pthread_mutex_unlock(&socket->lock);
		return;
	}
	if (socket->state == FFV_RS_CONNECTING) {
		is_child = socket->listener != NULL;
		stands = event == FFV_CM_EVENT_ESTABLISHED;
		if (stands)
			on_established(socket, data, length);
		else
			on_failure(socket, event, status);
	} else if (socket->state == FFV_RS_CONNECTED && event == FFV_CM_EVENT_DISCONNECTED) {
		on_disconnected(socket);
	}
	ffv_rs_kick(socket);
	pthread_mutex_unlock(&socket->lock);
	if (is_child)
		ffv_rs_on_child(socket, stands);
}

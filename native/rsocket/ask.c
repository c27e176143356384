/* SPDX-License-Identifier: MIT
 *
 * Streams beside another connection of the same two programs: listeners that make a connection when they are asked for the one
 * of a certain peer, and marks, which say where in the data the stream begins and ends to be used.
 */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "rsocket/rsocket.h"

#define ASKED_NS 5000000000ull     /* so long a request may wait to be asked for */

/* ---- requests that wait --------------------------------------------------------------------------------------------------------- */

/* Lock of the listener held. */
static bool unlink_request(struct ffv_rs_socket *listener, struct ffv_rs_socket *child)
{
	struct ffv_rs_socket **at = &listener->first, *before = NULL;

	while (*at && *at != child) {
		before = *at;
		at = &(*at)->next;
	}
	if (!*at)
		return false;
	*at = child->next;
	if (listener->last == child)
		listener->last = before;
	child->next = NULL;
	ffv_fetch_sub(&listener->requests, 1u);
	return true;
}

void ffv_rs_forget_request(struct ffv_rs_socket *listener, struct ffv_rs_socket *child)
{
	if (listener->asks)
		unlink_request(listener, child);
}

/* The child was taken from the queue, and is held by us. False: its peer has given up, and the thread looks after that. */
static bool is_mine(struct ffv_rs_socket *child)
{
	pthread_mutex_lock(&child->lock);
	bool mine = child->state == FFV_RS_CONNECTING && child->listener;
	if (mine)
		child->state = FFV_RS_FAILED; /* what the connection manager still tells is for nobody */
	pthread_mutex_unlock(&child->lock);
	return mine;
}

static void refuse(struct ffv_rs_socket *child)
{
	if (is_mine(child)) {
		ffv_cm_reject(child->id, NULL, 0);
		ffv_rs_leave_listener(child);
		ffv_rs_put(child);
	}
	ffv_rs_put(child);
}

void ffv_rs_drop_requests(struct ffv_rs_socket *listener, uint64_t until_ns)
{
	struct ffv_rs_socket *child;

	do {
		pthread_mutex_lock(&listener->lock);
		child = listener->first;
		if (child && (child->asked_until_ns > until_ns || !ffv_rs_hold(child)))
			child = NULL;
		if (child)
			unlink_request(listener, child);
		pthread_mutex_unlock(&listener->lock);
		if (child)
			refuse(child);
	} while (child);
}

void ffv_rs_queue_request(struct ffv_rs_socket *child, const void *data, uint8_t length)
{
	struct ffv_rs_socket *listener = child->listener;

	memcpy(&child->hello, data, length < sizeof child->hello ? length : sizeof child->hello); /* is looked at when asked for */
	child->state = FFV_RS_CONNECTING;
	child->asked_until_ns = ffv_clock_ns() + ASKED_NS;
	ffv_rs_hold(child);
	ffv_rs_hold(listener);
	ffv_rs_drop_requests(listener, ffv_clock_ns());
	pthread_mutex_lock(&listener->lock);
	bool welcome = ffv_rs_join_queue(listener, child);
	if (welcome)
		ffv_fetch_add(&listener->requests, 1u);
	pthread_mutex_unlock(&listener->lock);
	if (welcome)
		ffv_rs_put(child);
	else
		refuse(child);
	ffv_rs_put(listener);
}

/* ---- asking ----------------------------------------------------------------------------------------------------------------------- */

/* 0 if it is no address with a port. An IPv4 address, and the same one as IPv6 has it, are alike. */
static uint16_t normal_form(const struct sockaddr *addr, struct in6_addr *bytes)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)addr;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)addr;

	if (addr->sa_family == AF_INET6) {
		*bytes = in6->sin6_addr;
		return in6->sin6_port;
	}
	memset(bytes, 0, sizeof *bytes);
	bytes->s6_addr[10] = bytes->s6_addr[11] = 0xff;
	memcpy(&bytes->s6_addr[12], &in->sin_addr, 4);
	return addr->sa_family == AF_INET ? in->sin_port : 0;
}

static struct ffv_rs_socket *take_request(struct ffv_rs_socket *listener, const struct sockaddr *peer)
{
	struct in6_addr wanted, found;
	uint16_t port = normal_form(peer, &wanted);
	struct ffv_rs_socket *child;

	pthread_mutex_lock(&listener->lock);
	for (child = listener->first; child; child = child->next) {
		union ffv_sockaddr from = child->id->route.addr.dst;
		if (normal_form((const struct sockaddr *)(const void *)&from, &found) == port && !memcmp(&wanted, &found, 16))
			break;
	}
	if (child && !ffv_rs_hold(child))
		child = NULL;
	if (child)
		unlink_request(listener, child);
	pthread_mutex_unlock(&listener->lock);
	return child;
}

/* Lock held. */
static int make_connection(struct ffv_rs_socket *child)
{
	struct ffv_rs_hello hello;
	struct ffv_cm_conn_param param = { .private_data = &hello, .private_data_len = sizeof hello, .rnr_retry_count = 7 };
	int rc = ffv_rs_set_patience(child);

	if (!rc)
		rc = ffv_rs_stream_create(child, &hello);
	if (!rc)
		rc = ffv_rs_stream_peer(child, &child->hello, sizeof child->hello);
	if (!rc)
		rc = ffv_rs_publish(child, SOCK_CLOEXEC | SOCK_NONBLOCK); /* takes over the reference of the queue */
	if (rc < 0)
		return rc;
	child->state = FFV_RS_CONNECTING;
	FFV_FAULT(rs_accept_made);
	if (ffv_cm_accept(child->id, &param)) {
		child->state = FFV_RS_FAILED;
		child->error = ECONNABORTED;
		child->is_dead = true;
	}
	FFV_FAULT(rs_accept_said);
	return rc;
}

/* The request of that peer, which is the caller's now. */
static int take_from(int fd, const struct sockaddr *peer, uint32_t length, struct ffv_rs_socket **child)
{
	struct ffv_rs_socket *listener = ffv_rs_get(fd);

	if (!listener)
		return -EBADF;
	*child = !listener->asks || !peer || length < sizeof(struct sockaddr_in) ? NULL : take_request(listener, peer);
	ffv_rs_put(listener);
	return *child ? 0 : ffv_fail(ENOENT, "that peer has not asked for a connection");
}

int ffv_accept_from(int fd, const struct sockaddr *peer, uint32_t length)
{
	struct ffv_rs_socket *child;
	int rc = take_from(fd, peer, length, &child);

	if (rc)
		return rc;
	rc = -ECONNABORTED;
	if (is_mine(child)) {
		ffv_rs_leave_listener(child);
		pthread_mutex_lock(&child->lock);
		rc = make_connection(child);
		pthread_mutex_unlock(&child->lock);
		if (rc < 0) {
			ffv_cm_reject(child->id, NULL, 0);
			ffv_rs_put(child);
		}
	}
	ffv_rs_put(child);
	return rc;
}

int ffv_refuse_from(int fd, const struct sockaddr *peer, uint32_t length)
{
	struct ffv_rs_socket *child;
	int rc = take_from(fd, peer, length, &child);

	if (!rc)
		refuse(child);
	return rc;
}

int ffv_requests_waiting(int fd)
{
	struct ffv_rs_socket *listener = ffv_rs_get(fd);

	if (!listener)
		return -EBADF;
	int count = (int)ffv_load_relaxed(&listener->requests);
	ffv_rs_put(listener);
	return count;
}

/* ---- marks -------------------------------------------------------------------------------------------------------------------------- */

int ffv_socket_mark(int fd, uint32_t value)
{
	struct ffv_rs_socket *socket = ffv_rs_get(fd);
	int rc = 0;

	if (!socket)
		return -EBADF;
	pthread_mutex_lock(&socket->tx);
	pthread_mutex_lock(&socket->lock);
	struct ffv_rs_stream *stream = &socket->stream;
	if (value != FFV_RS_IMM_BYTES(value) || stream->marks_sent == 2)
		rc = ffv_fail(EINVAL, "a mark is of 28 bits, and there are two in a direction");
	else if (socket->state != FFV_RS_CONNECTED || socket->fin_sent || socket->is_dead)
		rc = ffv_fail(EPIPE, "the connection is not there, or closed for writing");
	else {
		FFV_FAULT(rs_mark_unsaid);
		rc = ffv_rs_send_message(socket, FFV_RS_MARK, value);
		FFV_FAULT(rs_mark_said);
	}
	if (!rc) {
		if (!stream->marks_sent++)
			stream->first_mark = stream->posted;
		socket->fin_sent = stream->marks_sent == 2;
	}
	pthread_mutex_unlock(&socket->lock);
	pthread_mutex_unlock(&socket->tx);
	ffv_rs_put(socket);
	return rc;
}

int ffv_socket_mark_has_arrived(int fd)
{
	struct ffv_rs_socket *socket = ffv_rs_get(fd);

	if (!socket)
		return -EBADF;
	pthread_mutex_lock(&socket->lock);
	ffv_rs_progress(socket);
	bool has_arrived = socket->stream.marks_sent && socket->stream.completed >= socket->stream.first_mark;
	pthread_mutex_unlock(&socket->lock);
	ffv_rs_put(socket);
	return has_arrived;
}

int ffv_socket_marks(int fd, uint32_t marks[2])
{
	struct ffv_rs_socket *socket = ffv_rs_get(fd);

	if (!socket)
		return -EBADF;
	pthread_mutex_lock(&socket->lock);
	ffv_rs_progress(socket);
	int count = (int)socket->stream.marks_arrived;
	memcpy(marks, socket->stream.marks, (size_t)count * sizeof *marks);
	pthread_mutex_unlock(&socket->lock);
	ffv_rs_put(socket);
	return count;
}

/* SPDX-License-Identifier: MIT
 *
 * Listening: connections are made by the thread of process.c as they are asked for, and wait in a queue to be accepted.
 */
#include <errno.h>
#include <poll.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "rsocket/rsocket.h"

#define LEAST_BACKLOG 128u

int ffv_rs_listen_shared(struct ffv_rs_socket *socket)
{
	struct ffv_cm_channel *shared;
	int rc = ffv_rs_channel(&shared);

	if (!rc && socket->own_channel) {
		rc = ffv_cm_migrate_id(socket->id, shared);
		if (!rc) {
			ffv_cm_destroy_channel(socket->own_channel);
			socket->own_channel = NULL;
		}
	}
	return rc ? rc : ffv_cm_listen(socket->id, 0);
}

static int listen_as(int fd, int backlog, bool asks)
{
	struct ffv_rs_socket *socket = ffv_rs_get(fd);
	int rc = 0;

	if (!socket)
		return -EBADF;
	if (socket->is_datagram) {
		ffv_rs_put(socket);
		return ffv_fail(EOPNOTSUPP, "a datagram socket does not listen");
	}
	pthread_mutex_lock(&socket->lock);
	socket->backlog = backlog > (int)LEAST_BACKLOG ? (uint32_t)backlog : LEAST_BACKLOG;
	if (socket->state == FFV_RS_LISTENING)
		goto out;
	if (socket->state != FFV_RS_IDLE) {
		rc = ffv_fail(EINVAL, "a socket that is connected cannot listen");
		goto out;
	}
	if (!socket->is_bound) {
		socket->bound = (union ffv_sockaddr){ .family = (uint16_t)socket->domain };
		socket->is_bound = true;
		rc = ffv_rs_need_id(socket);
		socket->is_bound = rc == 0;
	} else {
		rc = ffv_rs_need_id(socket);
	}
	socket->asks = asks; /* before the first request may come */
	if (!rc)
		rc = ffv_rs_listen_shared(socket);
	if (!rc)
		socket->state = FFV_RS_LISTENING;
	ffv_rs_show(socket);
out:
	pthread_mutex_unlock(&socket->lock);
	ffv_rs_put(socket);
	return rc;
}

int ffv_listen(int fd, int backlog)
{
	return listen_as(fd, backlog, false);
}

int ffv_listen_asked(int fd, int backlog)
{
	return listen_as(fd, backlog, true);
}

/* ---- requests (the thread of process.c) --------------------------------------------------------------------------------------- */

static struct ffv_rs_socket *make_child(struct ffv_rs_socket *listener, struct ffv_cm_id *id)
{
	struct ffv_rs_socket *child = ffv_rs_new(listener->domain);

	if (!child)
		return NULL;
	pthread_mutex_lock(&listener->lock);
	child->options = listener->options;
	bool welcome = listener->state == FFV_RS_LISTENING && listener->waiting <= listener->backlog;
	listener->waiting += welcome;
	pthread_mutex_unlock(&listener->lock);
	if (!welcome) {
		ffv_rs_put(child);
		return NULL;
	}
	ffv_rs_hold(listener);
	child->listener = listener;
	child->id = id;
	id->context = child;
	return child;
}

/* A connection that was not made: it leaves the listener's count. */
void ffv_rs_leave_listener(struct ffv_rs_socket *child)
{
	struct ffv_rs_socket *listener = child->listener;

	pthread_mutex_lock(&listener->lock);
	listener->waiting--;
	ffv_rs_forget_request(listener, child);
	pthread_mutex_unlock(&listener->lock);
	child->listener = NULL;
	ffv_rs_put(listener);
}

void ffv_rs_on_request(struct ffv_rs_socket *listener, struct ffv_cm_id *id, const void *data, uint8_t length)
{
	struct ffv_rs_hello hello;
	struct ffv_cm_conn_param param = { .private_data = &hello, .private_data_len = sizeof hello, .rnr_retry_count = 7 };
	struct ffv_rs_socket *child = make_child(listener, id);

	if (!child) {
		ffv_cm_reject(id, NULL, 0);
		ffv_cm_destroy_id(id);
		return;
	}
	if (listener->asks) {
		ffv_rs_queue_request(child, data, length);
		return;
	}
	pthread_mutex_lock(&child->lock);
	int rc = ffv_rs_set_patience(child);
	if (!rc)
		rc = ffv_rs_stream_create(child, &hello);
	if (!rc)
		rc = ffv_rs_stream_peer(child, data, length);
	FFV_FAULT(rs_accept_made);
	if (rc)
		ffv_cm_reject(id, NULL, 0);
	else
		rc = ffv_cm_accept(id, &param);
	FFV_FAULT(rs_accept_said);
	child->state = rc ? FFV_RS_FAILED : FFV_RS_CONNECTING;
	pthread_mutex_unlock(&child->lock);
	if (rc) {
		ffv_rs_leave_listener(child);
		ffv_rs_put(child);
	}
}

bool ffv_rs_join_queue(struct ffv_rs_socket *listener, struct ffv_rs_socket *child)
{
	if (listener->state != FFV_RS_LISTENING || ffv_load_relaxed(&listener->closed))
		return false;
	if (listener->last)
		listener->last->next = child;
	else
		listener->first = child;
	listener->last = child;
	return true;
}

void ffv_rs_on_child(struct ffv_rs_socket *child, bool stands)
{
	struct ffv_rs_socket *listener = child->listener;

	if (!stands) {
		ffv_rs_leave_listener(child);
		ffv_rs_put(child);
		return;
	}
	child->listener = NULL;
	pthread_mutex_lock(&listener->lock);
	bool welcome = ffv_rs_join_queue(listener, child);
	FFV_FAULT(rs_accept_queued);
	if (welcome)
		ffv_rs_kick(listener);
	pthread_mutex_unlock(&listener->lock);
	ffv_rs_put(listener);
	if (!welcome)
		ffv_rs_drop_queue(child);
}

/* ---- accepting ----------------------------------------------------------------------------------------------------------------- */

struct ffv_rs_socket *ffv_rs_take_queue(struct ffv_rs_socket *listener)
{
	struct ffv_rs_socket *first = listener->first;

	if (listener->asks)
		return NULL; /* ffv_rs_drop_requests */
	listener->first = listener->last = NULL;
	return first;
}

/* Nobody will accept them: they are reset. */
void ffv_rs_drop_queue(struct ffv_rs_socket *first)
{
	while (first) {
		struct ffv_rs_socket *child = first;
		first = child->next;
		child->next = NULL;
		child->options.linger = (struct linger){ .l_onoff = 1 };
		ffv_rs_close(child);
		ffv_rs_put(child);
	}
}

static struct ffv_rs_socket *take_first(struct ffv_rs_socket *listener)
{
	struct ffv_rs_socket *child = listener->first;

	if (!child)
		return NULL;
	listener->first = child->next;
	if (!listener->first)
		listener->last = NULL;
	listener->waiting--;
	child->next = NULL;
	ffv_rs_show(listener);
	return child;
}

static void put_back(struct ffv_rs_socket *listener, struct ffv_rs_socket *child)
{
	pthread_mutex_lock(&listener->lock);
	child->next = listener->first;
	listener->first = child;
	if (!listener->last)
		listener->last = child;
	listener->waiting++;
	ffv_rs_show(listener);
	pthread_mutex_unlock(&listener->lock);
}

/* Waits for a connection, if it may. */
static int next_child(struct ffv_rs_socket *listener, struct ffv_rs_socket **child)
{
	uint64_t deadline_ns = ffv_rs_deadline(listener->options.receive_timeout_ns);

	for (;;) {
		pthread_mutex_lock(&listener->lock);
		bool listens = listener->state == FFV_RS_LISTENING;
		*child = listens ? take_first(listener) : NULL;
		pthread_mutex_unlock(&listener->lock);
		if (!listens)
			return ffv_fail(EINVAL, "the socket does not listen");
		if (*child)
			return 0;
		if (ffv_load_relaxed(&listener->non_blocking))
			return ffv_fail(EAGAIN, "no connection waits to be accepted");
		int rc = ffv_rs_wait(listener, POLLIN, deadline_ns);
		if (rc)
			return rc;
	}
}

static void show_first(struct ffv_rs_socket *child)
{
	pthread_mutex_lock(&child->lock);
	ffv_rs_show(child);
	pthread_mutex_unlock(&child->lock);
}

int ffv_accept4(int fd, struct sockaddr *addr, uint32_t *length, int flags)
{
	struct ffv_rs_socket *child, *listener = ffv_rs_get(fd);

	if (!listener)
		return -EBADF;
	int rc = flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC) ? ffv_fail(EINVAL, "unknown flags %#x", flags) :
							   next_child(listener, &child);
	if (!rc) {
		FFV_FAULT(rs_accept_taken);
		union ffv_sockaddr peer = child->id->route.addr.dst;
		rc = listener->is_watched && !child->is_watched ? ffv_rs_make_levels(child) : 0;
		if (!rc)
			rc = ffv_rs_publish(child, flags);
		if (rc >= 0)
			show_first(child);
		if (rc < 0)
			put_back(listener, child);
		else if (addr)
			ffv_rs_give_address(listener, &peer, addr, length);
	}
	ffv_rs_put(listener);
	return rc;
}

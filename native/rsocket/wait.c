/* SPDX-License-Identifier: MIT
 *
 * Readiness, and sleeping until it may have changed. Any thread.
 *
 * A sleeper has the completion queue armed, looks again, and polls the completion channel and the socket's eventfd. Who
 * takes an event from the channel, or changes something that no completion tells, kicks the eventfd if others sleep: it
 * stays readable until the last one of them has woken up.
 */
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "rsocket/rsocket.h"

#define ALL_ENDED (POLLIN | POLLOUT | POLLRDHUP | POLLHUP)

static int stream_readiness(const struct ffv_rs_socket *socket)
{
	const struct ffv_rs_stream *stream = &socket->stream;
	uint64_t unread = ffv_load_relaxed(&stream->arrived_bytes) - ffv_load_relaxed(&stream->read_bytes);
	bool no_more = socket->fin_arrived || socket->is_dead || socket->read_shut;
	bool cannot_send = socket->fin_sent || socket->is_dead;
	int mask = socket->error ? POLLERR : 0;

	if (no_more || unread >= (uint64_t)socket->options.receive_low_water || unread >= stream->ring_bytes / 2)
		mask |= POLLIN;
	if (no_more)
		mask |= POLLRDHUP;
	if (cannot_send || ffv_rs_room(socket) >= stream->peer_ring_bytes / 16)
		mask |= POLLOUT;
	if (no_more && cannot_send)
		mask |= POLLHUP;
	return mask;
}

int ffv_rs_readiness(struct ffv_rs_socket *socket)
{
	if (socket->is_datagram)
		return POLLOUT | (ffv_rs_has_datagram(socket) ? POLLIN : 0);
	switch (socket->state) {
	case FFV_RS_LISTENING:
		return socket->first ? POLLIN : 0;
	case FFV_RS_CONNECTING:
		return 0;
	case FFV_RS_CONNECTED:
		return stream_readiness(socket);
	case FFV_RS_FAILED:
		return ALL_ENDED | (socket->error ? POLLERR : 0);
	default:
		return POLLOUT | POLLHUP;
	}
}

/* Who sleeps looks again. */
static void wake(struct ffv_rs_socket *socket)
{
	const uint64_t one = 1;

	ffv_rs_show(socket);
	if (socket->is_kicked || !socket->sleepers)
		return;
	socket->is_kicked = true;
	while (write(socket->kick_fd, &one, sizeof one) < 0 && errno == EINTR)
		;
}

void ffv_rs_kick(struct ffv_rs_socket *socket)
{
	ffv_fetch_add(&socket->changes, 1u);
	wake(socket);
}

static int arm(struct ffv_rs_socket *socket)
{
	pthread_mutex_lock(&socket->lock);
	socket->sleepers++;
	if (socket->stream.cq && !socket->is_armed && ffv_rs_has_completions(socket))
		socket->is_armed = ffv_req_notify_cq(socket->stream.cq, 0) == 0;
	ffv_rs_progress(socket);
	int mask = ffv_rs_readiness(socket);
	pthread_mutex_unlock(&socket->lock);
	return mask;
}

static void disarm(struct ffv_rs_socket *socket, bool fired)
{
	struct ffv_cq *cq;
	uint64_t count;

	pthread_mutex_lock(&socket->lock);
	socket->sleepers--;
	if (fired && socket->is_armed && ffv_get_cq_event(socket->stream.channel, &cq, NULL) == 0) {
		ffv_ack_cq_events(cq, 1);
		socket->is_armed = false;
		wake(socket); /* the others slept for that event too; what it told of is counted where it is found */
	}
	/* Nobody waits for the event any more: who completes need not raise it. */
	if (!socket->sleepers && socket->is_armed && !socket->is_watched && ffv_cancel_notify_cq(socket->stream.cq) == 1)
		socket->is_armed = false;
	if (!socket->sleepers && socket->is_kicked) {
		socket->is_kicked = false;
		while (read(socket->kick_fd, &count, sizeof count) < 0 && errno == EINTR)
			;
	}
	pthread_mutex_unlock(&socket->lock);
}

static int sleep_until(struct ffv_rs_socket *socket, uint64_t deadline_ns)
{
	struct pollfd fds[3] = { { .fd = socket->kick_fd, .events = POLLIN },
				 { .fd = socket->stream.channel_fd, .events = POLLIN },
				 { .fd = socket->beside_fd, .events = POLLIN } };
	struct timespec left = { 0 };

	if (deadline_ns != UINT64_MAX) {
		uint64_t now_ns = ffv_clock_ns(), left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
		left = (struct timespec){ (time_t)(left_ns / 1000000000u), (long)(left_ns % 1000000000u) };
	}
	int ready = ppoll(fds, 3, deadline_ns == UINT64_MAX ? NULL : &left, NULL);
	if (ready < 0)
		return -errno;
	return ready ? 0 : -EAGAIN;
}

int ffv_rs_wait(struct ffv_rs_socket *socket, int events, uint64_t deadline_ns)
{
	int rc = 0;

	if (!(arm(socket) & (events | POLLERR | POLLHUP)) && !ffv_load_relaxed(&socket->closed))
		rc = sleep_until(socket, deadline_ns);
	disarm(socket, rc == 0);
	if (ffv_load_relaxed(&socket->closed))
		return ffv_fail(EBADF, "the socket was closed by another thread");
	return rc ? ffv_fail_errno(-rc, "waiting on a socket ended") : 0;
}

/* ---- the public calls -------------------------------------------------------------------------------------------------------- */

int ffv_socket_poll(int fd)
{
	struct ffv_rs_socket *socket = ffv_rs_get(fd);

	if (!socket)
		return -EBADF;
	pthread_mutex_lock(&socket->lock);
	ffv_rs_progress(socket);
	int mask = ffv_rs_readiness(socket);
	pthread_mutex_unlock(&socket->lock);
	ffv_rs_put(socket);
	return mask;
}

int ffv_socket_arm(int fd, struct ffv_rs_socket **armed)
{
	struct ffv_rs_socket *socket = ffv_rs_get(fd);

	if (!socket)
		return -EBADF;
	*armed = socket; /* with the reference */
	return arm(socket);
}

void ffv_socket_disarm(struct ffv_rs_socket *armed, int fired)
{
	disarm(armed, fired != 0);
	ffv_rs_put(armed);
}

uint64_t ffv_socket_changes(int fd)
{
	struct ffv_rs_socket *socket = ffv_rs_get(fd);

	if (!socket)
		return 0;
	uint64_t changes = ffv_load_relaxed(&socket->changes);
	ffv_rs_put(socket);
	return changes;
}

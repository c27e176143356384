/* SPDX-License-Identifier: MIT
 *
 * The ends of a connection: shutdown, close, and what is given back when nobody uses it any more.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "rsocket/rsocket.h"

#define EXIT_NS 10000000000ull

bool ffv_rs_is_delivered(const struct ffv_rs_socket *socket)
{
	return socket->is_dead || socket->stream.completed == socket->stream.posted;
}

static void send_fin(struct ffv_rs_socket *socket)
{
	if (socket->fin_sent)
		return;
	socket->fin_sent = true;
	ffv_rs_send_message(socket, FFV_RS_FIN, 0); /* else the peer sees the connection end */
}

int ffv_shutdown(int fd, int how)
{
	struct ffv_rs_socket *queue = NULL, *socket = ffv_rs_get(fd);
	int rc = 0;

	if (!socket)
		return -EBADF;
	pthread_mutex_lock(&socket->lock);
	if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR) {
		rc = ffv_fail(EINVAL, "a socket is shut down for reading, writing or both, not %d", how);
	} else if (socket->state == FFV_RS_LISTENING && how != SHUT_WR) {
		socket->state = FFV_RS_IDLE;
		queue = ffv_rs_take_queue(socket);
	} else if (socket->state != FFV_RS_CONNECTED || socket->is_dead) {
		rc = ffv_fail(ENOTCONN, "the socket is not connected");
	} else {
		FFV_FAULT(rs_shut_unsaid);
		if (how != SHUT_RD)
			send_fin(socket);
		FFV_FAULT(rs_shut_said);
		if (how != SHUT_WR)
			socket->read_shut = true;
	}
	if (!rc)
		ffv_rs_kick(socket);
	pthread_mutex_unlock(&socket->lock);
	ffv_rs_drop_queue(queue);
	if (socket->asks)
		ffv_rs_drop_requests(socket, UINT64_MAX);
	ffv_rs_put(socket);
	return rc;
}

/* Lock held. TCP resets a connection with data that nobody will read, and without delay if it is told so. */
static void say_end(struct ffv_rs_socket *socket)
{
	const struct ffv_rs_stream *stream = &socket->stream;
	bool unread = ffv_load_relaxed(&stream->arrived_bytes) != ffv_load_relaxed(&stream->read_bytes);

	if (stream->marks_sent == 2)
		return; /* the connection goes on elsewhere, and what was not read is another's to read */
	if (unread || (socket->options.linger.l_onoff && !socket->options.linger.l_linger))
		ffv_rs_send_message(socket, FFV_RS_RST, 0);
	else
		send_fin(socket);
}

static void wait_delivered(struct ffv_rs_socket *socket, uint64_t deadline_ns)
{
	struct timespec nap = { 0, 1000000 };

	while (ffv_clock_ns() < deadline_ns) {
		pthread_mutex_lock(&socket->lock);
		ffv_rs_progress(socket);
		bool delivered = ffv_rs_is_delivered(socket);
		pthread_mutex_unlock(&socket->lock);
		if (delivered)
			return;
		nanosleep(&nap, NULL);
	}
}

void ffv_rs_close(struct ffv_rs_socket *socket)
{
	struct ffv_rs_socket *queue = NULL;
	bool delivered = true;

	pthread_mutex_lock(&socket->lock);
	ffv_store_relaxed(&socket->closed, true);
	if (socket->state == FFV_RS_LISTENING)
		queue = ffv_rs_take_queue(socket);
	ffv_rs_close_datagrams(socket);
	if (socket->state == FFV_RS_CONNECTED) {
		ffv_rs_progress(socket);
		FFV_FAULT(rs_close_unsaid);
		if (!socket->is_dead)
			say_end(socket);
		FFV_FAULT(rs_close_said);
		ffv_rs_progress(socket);
		delivered = ffv_rs_is_delivered(socket);
	}
	ffv_rs_kick(socket);
	pthread_mutex_unlock(&socket->lock);
	ffv_rs_drop_queue(queue);
	if (socket->asks)
		ffv_rs_drop_requests(socket, UINT64_MAX);
	if (!delivered && socket->options.linger.l_onoff && socket->options.linger.l_linger)
		wait_delivered(socket, ffv_rs_deadline((uint64_t)socket->options.linger.l_linger * 1000000000u));
	if (!delivered)
		ffv_rs_linger(socket);
}

/* ---- the end of the process --------------------------------------------------------------------------------------------------- */

static uint64_t exit_deadline_ns;      /* of the thread that ends the process */

bool ffv_rs_lock_at_exit(pthread_mutex_t *lock)
{
	struct timespec nap = { 0, 100000 };
	bool locked;

	/* Whoever ends the process may do so in a handler of a signal, and hold the lock. */
	while (!(locked = pthread_mutex_trylock(lock) == 0) && ffv_clock_ns() < exit_deadline_ns)
		nanosleep(&nap, NULL);
	return locked;
}

static void deliver(struct ffv_rs_socket *socket)
{
	bool waits = false;

	if (!ffv_rs_lock_at_exit(&socket->lock))
		return;
	if (socket->state == FFV_RS_CONNECTED && socket->stream.is_away && !socket->is_dead) {
		ffv_rs_progress(socket);
		say_end(socket);
		waits = true;
	}
	pthread_mutex_unlock(&socket->lock);
	if (waits)
		wait_delivered(socket, exit_deadline_ns);
}

void ffv_socket_deliver(void)
{
	exit_deadline_ns = ffv_clock_ns() + EXIT_NS;
	ffv_rs_for_each(deliver);
	ffv_rs_for_each_lingering(deliver);
}

void ffv_rs_destroy(struct ffv_rs_socket *socket)
{
	if (socket->id && (socket->state == FFV_RS_CONNECTED || socket->state == FFV_RS_CONNECTING))
		ffv_cm_disconnect(socket->id);
	ffv_rs_drop_beside(socket);
	ffv_rs_drop_datagrams(socket);
	ffv_rs_stream_destroy(socket);
	ffv_rs_drop_id(socket);
	ffv_rs_drop_levels(socket);
	close(socket->kick_fd);
}

/* SPDX-License-Identifier: MIT
 *
 * Sending and receiving. Budget: as long as neither waits, no system call and no allocation.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "rsocket/cursor.h"
#include "rsocket/rsocket.h"

#define SEND_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE | MSG_EOR | MSG_CONFIRM | MSG_DONTROUTE)
#define RECV_FLAGS (MSG_DONTWAIT | MSG_PEEK | MSG_WAITALL | MSG_TRUNC | MSG_CMSG_CLOEXEC | MSG_NOSIGNAL)

uint64_t ffv_rs_deadline(uint64_t timeout_ns)
{
	return timeout_ns ? ffv_clock_ns() + timeout_ns : UINT64_MAX;
}

int ffv_rs_take_error(struct ffv_rs_socket *socket)
{
	int err = socket->error;

	socket->error = 0;
	return err;
}

static bool may_wait(struct ffv_rs_socket *socket, int flags)
{
	return !(flags & MSG_DONTWAIT) && !ffv_load_relaxed(&socket->non_blocking);
}

static bool is_ready(struct ffv_rs_socket *socket, int events)
{
	pthread_mutex_lock(&socket->lock);
	ffv_rs_progress(socket);
	int mask = ffv_rs_readiness(socket);
	pthread_mutex_unlock(&socket->lock);
	return mask & (events | POLLERR | POLLHUP);
}

/* Polls for a moment before it sleeps. */
static int wait_for(struct ffv_rs_socket *socket, int events, uint64_t deadline_ns)
{
	struct ffv_spin spin;

	if (!ffv_spin_begin(&socket->spin, &spin))
		return ffv_rs_wait(socket, events, deadline_ns);
	do {
		for (int i = 0; i < 16; i++) {
			if (is_ready(socket, events)) {
				ffv_spin_end(&socket->spin, &spin, true);
				return 0;
			}
			ffv_cpu_relax();
		}
	} while (ffv_spin_goes_on(&spin));
	ffv_spin_end(&socket->spin, &spin, false);
	return ffv_rs_wait(socket, events, deadline_ns);
}

/* ---- sending ----------------------------------------------------------------------------------------------------------------- */

/* Lock held. 0: may send. */
static int check_sending(struct ffv_rs_socket *socket)
{
	if (socket->state != FFV_RS_CONNECTED)
		return socket->state == FFV_RS_CONNECTING ? ffv_fail(EAGAIN, "the connection is being made") :
							    ffv_fail(EPIPE, "the socket is not connected");
	if (socket->error)
		return ffv_fail(ffv_rs_take_error(socket), "the peer has reset the connection");
	if (socket->fin_sent || socket->is_dead)
		return ffv_fail(EPIPE, "the connection is closed for writing");
	return 0;
}

/* Stage space for a piece, all in one run; what is free is known by completions. */
static uint32_t stage_room(struct ffv_rs_stream *stream)
{
	if (stream->completed == stream->posted) /* from the start again, which is in the cache */
		stream->stage_posted = stream->stage_completed = 0;
	uint32_t used = (uint32_t)(stream->stage_posted - stream->stage_completed);
	uint32_t offset = (uint32_t)(stream->stage_posted % FFV_RS_STAGE_BYTES);
	uint32_t room = FFV_RS_STAGE_BYTES - used, run = FFV_RS_STAGE_BYTES - offset;

	return room < run ? room : run;
}

/* tx and lock held. Sends some: the number of bytes, 0 if there is no room. */
static long send_piece(struct ffv_rs_socket *socket, struct ffv_rs_cursor *cursor)
{
	struct ffv_rs_stream *stream = &socket->stream;
	uint32_t length = ffv_rs_min(cursor->left, ffv_rs_room(socket));
	uint8_t small[FFV_RS_INLINE];
	int rc;

	if (!length)
		return 0;
	if (length <= FFV_RS_INLINE) {
		ffv_rs_gather(cursor, small, length);
		rc = ffv_rs_write(socket, small, length, true);
		return rc ? ffv_fail(EPIPE, "the connection has ended") : (long)length;
	}
	length = ffv_rs_min(length, FFV_RS_PIECE_BYTES);
	length = ffv_rs_min(length, stage_room(stream));
	if (!length)
		return 0;
	uint8_t *stage = stream->stage + stream->stage_posted % FFV_RS_STAGE_BYTES;
	pthread_mutex_unlock(&socket->lock);
	ffv_rs_gather(cursor, stage, length);
	pthread_mutex_lock(&socket->lock);
	rc = socket->is_dead || socket->fin_sent ? -EPIPE : ffv_rs_write(socket, stage, length, false);
	ffv_rs_progress(socket); /* as a rule it is done */
	return rc ? ffv_fail(EPIPE, "the connection has ended") : (long)length;
}

/* Lock held. Nothing to send; or a first time to a peer that has closed, which is no error with TCP either: it is told by
 * what comes back. */
static bool goes_nowhere(struct ffv_rs_socket *socket, struct ffv_rs_cursor *cursor)
{
	if (socket->state != FFV_RS_CONNECTED || socket->fin_sent || socket->error)
		return false;
	if (cursor->left && (!socket->is_dead || socket->reset_arrived || socket->sent_to_nobody))
		return false;
	socket->sent_to_nobody = socket->is_dead && cursor->left;
	cursor->left = 0;
	return true;
}

static long send_all(struct ffv_rs_socket *socket, struct ffv_rs_cursor *cursor, int flags)
{
	uint64_t deadline_ns = ffv_rs_deadline(socket->options.send_timeout_ns);
	long sent = 0, rc = 0;
	size_t total = cursor->left;

	pthread_mutex_lock(&socket->tx);
	pthread_mutex_lock(&socket->lock);
	do {
		if (goes_nowhere(socket, cursor))
			break;
		rc = check_sending(socket);
		if (!rc) {
			rc = send_piece(socket, cursor);
			if (!rc && cursor->left) {
				ffv_rs_progress(socket);
				rc = check_sending(socket);
				if (!rc)
					rc = send_piece(socket, cursor);
			}
		}
		if (rc > 0)
			sent += rc;
		bool waits = (!rc || rc == -EAGAIN) && cursor->left && may_wait(socket, flags);
		if (!rc && cursor->left && !waits)
			rc = ffv_fail(EAGAIN, "the peer has no room for more");
		if (waits) {
			pthread_mutex_unlock(&socket->lock);
			pthread_mutex_unlock(&socket->tx);
			rc = wait_for(socket, POLLOUT, deadline_ns);
			pthread_mutex_lock(&socket->tx);
			pthread_mutex_lock(&socket->lock);
		}
	} while (rc >= 0 && cursor->left);
	ffv_rs_show(socket);
	pthread_mutex_unlock(&socket->lock);
	pthread_mutex_unlock(&socket->tx);
	return rc >= 0 && !cursor->left ? (long)total : sent ? sent : rc;
}

long ffv_sendmsg(int fd, const struct msghdr *msg, int flags)
{
	struct ffv_rs_socket *socket = ffv_rs_get(fd);
	struct ffv_rs_cursor cursor;
	long rc;

	if (!socket)
		return -EBADF;
	if (socket->is_datagram) {
		rc = ffv_rs_send_datagram(socket, msg, flags);
		ffv_rs_put(socket);
		return rc;
	}
	if (flags & ~SEND_FLAGS)
		rc = ffv_fail(EOPNOTSUPP, "flags %#x are not supported in sending", flags & ~SEND_FLAGS);
	else if (msg->msg_controllen)
		rc = ffv_fail(EINVAL, "a stream takes no control data");
	else
		rc = ffv_rs_cursor_start(&cursor, msg->msg_iov, msg->msg_iovlen);
	if (!rc)
		rc = send_all(socket, &cursor, flags);
	ffv_rs_put(socket);
	return rc;
}

long ffv_send(int fd, const void *data, size_t length, int flags)
{
	struct iovec piece = { (void *)(uintptr_t)data, length };
	struct msghdr msg = { .msg_iov = &piece, .msg_iovlen = 1 };

	return ffv_sendmsg(fd, &msg, flags);
}

/* ---- receiving ---------------------------------------------------------------------------------------------------------------- */

/* rx held. Copies `length` bytes from position `from` on, or throws them away. */
static void copy_out(struct ffv_rs_stream *stream, struct ffv_rs_cursor *cursor, uint64_t from, uint32_t length, bool away)
{
	uint8_t *to = NULL;

	while (length) {
		uint32_t at = (uint32_t)(from % stream->ring_bytes);
		uint32_t run = (uint32_t)ffv_rs_cursor_take(cursor, ffv_rs_min(length, stream->ring_bytes - at), &to);
		if (!away)
			memcpy(to, stream->ring + at, run);
		from += run;
		length -= run;
	}
}

/* rx held. The number of bytes, 0 if there are none yet. */
static long receive_some(struct ffv_rs_socket *socket, struct ffv_rs_cursor *cursor, uint64_t peeked, int flags)
{
	struct ffv_rs_stream *stream = &socket->stream;
	uint64_t from = ffv_load_relaxed(&stream->read_bytes) + peeked;
	uint32_t length = ffv_rs_min(cursor->left, ffv_load_acquire(&stream->arrived_bytes) - from); /* [rs-arrived] */

	if (!length)
		return 0;
	copy_out(stream, cursor, from, length, flags & MSG_TRUNC);
	if (flags & MSG_PEEK)
		return length;
	FFV_FAULT(rs_receive_copied);
	pthread_mutex_lock(&socket->lock);
	ffv_store_relaxed(&stream->read_bytes, from + length);
	ffv_rs_give_credit(socket);
	ffv_rs_show(socket);
	pthread_mutex_unlock(&socket->lock);
	return length;
}

/* 1: nothing will come. 0: something may, or has. */
static long check_receiving(struct ffv_rs_socket *socket, uint64_t peeked)
{
	struct ffv_rs_stream *stream = &socket->stream;
	long rc = 0;

	pthread_mutex_lock(&socket->lock);
	ffv_rs_progress(socket);
	if (socket->state == FFV_RS_CONNECTING)
		rc = 0;
	else if (socket->state != FFV_RS_CONNECTED)
		rc = ffv_fail(socket->error ? ffv_rs_take_error(socket) : ENOTCONN, "the socket is not connected");
	else if (ffv_load_relaxed(&stream->arrived_bytes) == ffv_load_relaxed(&stream->read_bytes) + peeked) {
		if (socket->error)
			rc = ffv_fail(ffv_rs_take_error(socket), "the peer has reset the connection");
		else if (socket->fin_arrived || socket->is_dead || socket->read_shut)
			rc = 1;
	}
	ffv_rs_show(socket);
	pthread_mutex_unlock(&socket->lock);
	return rc;
}

static bool is_enough(const struct ffv_rs_socket *socket, const struct ffv_rs_cursor *cursor, uint64_t got, int flags)
{
	if (!cursor->left)
		return true;
	return got && !(flags & MSG_WAITALL) && got >= (uint64_t)socket->options.receive_low_water;
}

static long receive_all(struct ffv_rs_socket *socket, struct ffv_rs_cursor *cursor, int flags)
{
	uint64_t deadline_ns = ffv_rs_deadline(socket->options.receive_timeout_ns);
	long got = 0, rc;

	pthread_mutex_lock(&socket->rx);
	for (;;) {
		rc = receive_some(socket, cursor, flags & MSG_PEEK ? (uint64_t)got : 0, flags);
		got += rc;
		if (is_enough(socket, cursor, (uint64_t)got, flags))
			break;
		rc = check_receiving(socket, flags & MSG_PEEK ? (uint64_t)got : 0);
		if (rc)
			break;
		rc = receive_some(socket, cursor, flags & MSG_PEEK ? (uint64_t)got : 0, flags);
		got += rc;
		if (is_enough(socket, cursor, (uint64_t)got, flags))
			break;
		if (rc)
			continue;
		if (!may_wait(socket, flags)) {
			rc = ffv_fail(EAGAIN, "nothing has come");
			break;
		}
		if (flags & MSG_PEEK && got)
			break; /* what was peeked at makes it ready all the time */
		pthread_mutex_unlock(&socket->rx);
		rc = wait_for(socket, POLLIN, deadline_ns);
		pthread_mutex_lock(&socket->rx);
		if (rc)
			break;
	}
	pthread_mutex_unlock(&socket->rx);
	return got || rc > 0 ? got : rc;
}

long ffv_recvmsg(int fd, struct msghdr *msg, int flags)
{
	struct ffv_rs_socket *socket = ffv_rs_get(fd);
	struct ffv_rs_cursor cursor;
	long rc;

	if (!socket)
		return -EBADF;
	if (socket->is_datagram) {
		rc = ffv_rs_receive_datagram(socket, msg, flags);
		ffv_rs_put(socket);
		return rc;
	}
	if (flags & ~RECV_FLAGS)
		rc = flags & MSG_ERRQUEUE ? ffv_fail(EAGAIN, "a stream has no queue of errors") :
					    ffv_fail(EINVAL, "flags %#x are not supported in receiving", flags & ~RECV_FLAGS);
	else
		rc = ffv_rs_cursor_start(&cursor, msg->msg_iov, msg->msg_iovlen);
	if (!rc)
		rc = receive_all(socket, &cursor, flags);
	if (rc >= 0) {
		msg->msg_namelen = 0;
		msg->msg_controllen = 0;
		msg->msg_flags = 0;
	}
	ffv_rs_put(socket);
	return rc;
}

long ffv_recv(int fd, void *data, size_t length, int flags)
{
	struct iovec piece = { data, length };
	struct msghdr msg = { .msg_iov = &piece, .msg_iovlen = 1 };

	return ffv_recvmsg(fd, &msg, flags);
}

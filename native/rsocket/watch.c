/* SPDX-License-Identifier: MIT
 *
 * Numbers that tell the truth to the kernel: for programs whose waiting cannot be translated. The number is one end of a pair of
 * the kernel's sockets: it is readable while a byte from the other end waits in it, and writable while what was written to it
 * does not fill it. Whoever changes the readiness of such a socket sets it, under the socket's lock; what a completion changes
 * is seen by the thread of process.c, as the completion queue is armed whenever the number is not ready for everything.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "rsocket/rsocket.h"

#define FILL_BYTES 2048            /* more than a quarter of the smallest buffer, beyond which nothing is writable */
#define EVENTS_AT_ONCE 64

/* ---- levels (lock held) -------------------------------------------------------------------------------------------------------- */

static void drain(int fd)
{
	uint8_t away[4096];
	ssize_t count;

	do
		count = recv(fd, away, sizeof away, MSG_DONTWAIT);
	while (count > 0 || (count < 0 && errno == EINTR));
}

static void fill(int fd)
{
	static const uint8_t zeros[FILL_BYTES];
	struct pollfd writable = { .fd = fd, .events = POLLOUT };

	while (poll(&writable, 1, 0) == 1 && writable.revents & POLLOUT &&
	       send(fd, zeros, sizeof zeros, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		;
}

static void set_levels(struct ffv_rs_socket *socket, int mask)
{
	bool readable = mask & (POLLIN | POLLHUP | POLLERR), writable = mask & (POLLOUT | POLLERR);

	if (readable != socket->shows_readable) {
		socket->shows_readable = readable;
		if (!readable)
			drain(socket->level_near);
		else if (send(socket->level_far, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1)
			socket->shows_readable = false; /* cannot be: there was none */
	}
	if (writable != socket->shows_writable) {
		socket->shows_writable = writable;
		if (writable)
			drain(socket->level_far);
		else
			fill(socket->level_near);
	}
}

/* Of the kernel's socket beside it. The promise to be told is made before the last look. */
static int beside_readiness(struct ffv_rs_socket *socket)
{
	if (socket->beside_fd < 0)
		return 0;
	if (ffv_rs_is_beside_ready(socket))
		return POLLIN;
	if (socket->beside_is_armed || ffv_rs_observe_beside(socket))
		return 0;
	return ffv_rs_is_beside_ready(socket) ? POLLIN : 0;
}

void ffv_rs_show(struct ffv_rs_socket *socket)
{
	if (!socket->is_watched)
		return;
	int mask = ffv_rs_readiness(socket) | beside_readiness(socket);
	if ((mask & (POLLIN | POLLOUT)) != (POLLIN | POLLOUT) && ffv_rs_has_completions(socket) && !socket->is_armed) {
		socket->is_armed = ffv_req_notify_cq(socket->stream.cq, 0) == 0;
		ffv_rs_progress(socket);
		mask |= ffv_rs_readiness(socket);
	}
	set_levels(socket, mask);
}

/* ---- numbers --------------------------------------------------------------------------------------------------------------------- */

int ffv_rs_make_levels(struct ffv_rs_socket *socket)
{
	int pair[2], small = 1;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return ffv_fail_errno(errno, "no descriptors for a socket that is watched");
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
	socket->level_near = pair[0];
	socket->level_far = pair[1];
	socket->is_watched = true;
	socket->shows_readable = false;
	socket->shows_writable = true;
	return 0;
}

void ffv_rs_drop_levels(struct ffv_rs_socket *socket)
{
	if (!socket->is_watched)
		return;
	close(socket->level_near);
	close(socket->level_far);
	socket->is_watched = false;
}

int ffv_socket_watch(int fd)
{
	struct ffv_rs_socket *socket = ffv_rs_get(fd);
	int rc = 0;

	if (!socket)
		return -EBADF;
	pthread_mutex_lock(&socket->lock);
	if (!socket->is_watched) {
		long flags = syscall(SYS_fcntl, fd, F_GETFD);
		rc = ffv_rs_make_levels(socket);
		if (!rc && syscall(SYS_dup3, socket->level_near, fd, flags & FD_CLOEXEC ? O_CLOEXEC : 0) < 0) {
			rc = ffv_fail_errno(errno, "a socket cannot be watched");
			ffv_rs_drop_levels(socket);
		}
		if (!rc && socket->stream.channel_fd >= 0)
			rc = ffv_rs_observe(socket);
		if (!rc)
			ffv_rs_show(socket);
	}
	pthread_mutex_unlock(&socket->lock);
	ffv_rs_put(socket);
	return rc;
}

/* ---- the thread of process.c -------------------------------------------------------------------------------------------------------- */

static void on_ready(struct ffv_rs_socket *socket, bool is_beside)
{
	struct ffv_cq *cq;

	if (!ffv_rs_hold(socket))
		return;
	pthread_mutex_lock(&socket->lock);
	if (is_beside)
		socket->beside_is_armed = false;
	if (socket->stream.channel && ffv_get_cq_event(socket->stream.channel, &cq, NULL) == 0) {
		ffv_ack_cq_events(cq, 1);
		socket->is_armed = false;
	}
	ffv_rs_progress(socket);
	ffv_rs_kick(socket); /* those who slept for that event; and shows */
	pthread_mutex_unlock(&socket->lock);
	ffv_rs_put(socket);
}

void ffv_rs_look_at_observed(int epoll_fd)
{
	struct epoll_event events[EVENTS_AT_ONCE];
	int count = epoll_wait(epoll_fd, events, EVENTS_AT_ONCE, 0);

	for (int i = 0; i < count; i++)
		on_ready((struct ffv_rs_socket *)(uintptr_t)(events[i].data.u64 & ~1ull), events[i].data.u64 & 1);
}

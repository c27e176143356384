/* SPDX-License-Identifier: MIT
 *
 * Bytes through a stream socket; see stream_socket.h.
 */
#include "wire/stream_socket.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/error.h"

ssize_t ffv_stream_socket_send(int socket, const struct iovec *parts, int count)
{
	struct msghdr message = { .msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count };

	for (;;) {
		ssize_t n = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n >= 0)
			return n;
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			return 0;
		if (errno != EINTR)
			return ffv_fail_errno(errno, "the other router cannot be written to");
	}
}

ssize_t ffv_stream_socket_receive(int socket, void *bytes, size_t capacity)
{
	struct iovec part = { bytes, capacity };

	return ffv_stream_socket_receive_parts(socket, &part, 1);
}

ssize_t ffv_stream_socket_receive_parts(int socket, const struct iovec *parts, int count)
{
	struct msghdr message = { .msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count };

	for (;;) {
		ssize_t n = recvmsg(socket, &message, MSG_DONTWAIT);
		if (n > 0)
			return n;
		if (n == 0)
			return ffv_fail(EPIPE, "the other router closed the connection");
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			return 0;
		if (errno != EINTR)
			return ffv_fail_errno(errno, "the other router cannot be read from");
	}
}

/* SPDX-License-Identifier: MIT
 *
 * Bytes through a connected stream socket to another router, without blocking: what the transports over one share.
 */
#ifndef FFV_WIRE_STREAM_SOCKET_H
#define FFV_WIRE_STREAM_SOCKET_H

#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

/* How many bytes of the parts the socket takes now, 0 = none now; -errno with the text in ffv_error_text(). */
ssize_t ffv_stream_socket_send(int socket, const struct iovec *parts, int count);

/* Some of what came. How many bytes, 0 = nothing there now, -EPIPE = the other end has closed, -errno. */
ssize_t ffv_stream_socket_receive(int socket, void *bytes, size_t capacity);
/* -EFAULT: nothing was received, for there is no memory at the first part. */
ssize_t ffv_stream_socket_receive_parts(int socket, const struct iovec *parts, int count);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The transport `tcp`: frames go through the stream socket as they are. See transport.h; also for Unix stream sockets.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "wire/stream_socket.h"
#include "wire/transport.h"

struct ffv_wire_link { int socket; };

static int tcp_open(const struct ffv_transport_options *options, int socket, struct ffv_wire_link **out)
{
	int flags = fcntl(socket, F_GETFL), one = 1;

	(void)options;
	if (flags < 0 || fcntl(socket, F_SETFL, flags | O_NONBLOCK))
		return ffv_fail_errno(errno, "the descriptor of a channel cannot be used");
	struct ffv_wire_link *link = malloc(sizeof *link);
	if (!link)
		return ffv_fail(ENOMEM, "no memory for a channel");
	setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* not there on Unix sockets, nor needed */
	link->socket = socket;
	*out = link;
	return 0;
}

static void tcp_close(struct ffv_wire_link *link)
{
	close(link->socket);
	free(link);
}

static int tcp_descriptor(const struct ffv_wire_link *link)
{
	return link->socket;
}

static ssize_t tcp_send(struct ffv_wire_link *link, const void *bytes, size_t length)
{
	struct iovec part = { (void *)bytes, length };

	return ffv_stream_socket_send(link->socket, &part, 1);
}

static ssize_t tcp_receive(struct ffv_wire_link *link, void *bytes, size_t capacity)
{
	return ffv_stream_socket_receive(link->socket, bytes, capacity);
}

static ssize_t tcp_receive_parts(struct ffv_wire_link *link, const struct iovec *parts, int count)
{
	return ffv_stream_socket_receive_parts(link->socket, parts, count);
}

static void tcp_describe(struct ffv_wire_link *link, char *text, size_t capacity)
{
	(void)link;
	snprintf(text, capacity, "tcp");
}

const struct ffv_transport ffv_transport_tcp = {
	.name = "tcp", .silent_ns = 1000000000ull, .open = tcp_open, .close = tcp_close,
	.descriptor = tcp_descriptor, .send = tcp_send, .receive = tcp_receive,
	.receive_parts = tcp_receive_parts, .describe = tcp_describe,
};

/* SPDX-License-Identifier: MIT
 *
 * What carries the frames of two routers (DESIGN D11): a table of functions. A *link* is one carrier between this router
 * and another; it begins with an authenticated stream socket, which the control plane connected or accepted, and carries
 * the bytes of frames, in order, in both directions, until it closes. Each transport is one file; a layer, like one that
 * loses or delays on purpose, is a transport whose links own a link of another.
 *
 * Every function of a link is called by the router's loop thread alone, except `describe`, and `open`, which any thread
 * calls for a link that nobody knows yet, and `close` of such a one. None blocks. Outputs are set on success only; the text of a failure
 * is in ffv_error_text().
 */
#ifndef FFV_WIRE_TRANSPORT_H
#define FFV_WIRE_TRANSPORT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <ffverbs/ffv_router.h>

struct ffv_wire_link;             /* a transport's own: each has a struct of its own behind it */

/* What the user said; each transport reads its own part, and copies it. */
struct ffv_transport_options { struct ffv_rdma_options rdma; };

struct ffv_transport {
	const char *name;
	/* A link on which the other end has not answered a question for so long is given up. */
	uint64_t silent_ns;
	/* A link over `socket`, a connected stream that nobody else uses any more. On success the socket is the link's, on
	 * failure (-errno) it stays the caller's, as it was but for O_NONBLOCK. The other end opens the same transport; who
	 * connected does not matter. Frames may be sent at once: what cannot go yet is not taken. */
	int (*open)(const struct ffv_transport_options *options, int socket, struct ffv_wire_link **out);
	/* Ends the link and frees all that is its own. What was not sent is lost; the other end sees -EPIPE. */
	void (*close)(struct ffv_wire_link *link);
	/* For the loop's epoll, the same as long as the link lives: readable when `receive` may find something. When `send` may
	 * have become possible after it took nothing, it is writable, or readable. Level-triggered. */
	int (*descriptor)(const struct ffv_wire_link *link);
	/* Takes some of the bytes, which may end within a frame: the next call brings the rest of it. Copied before it
	 * returns. How many, 0 = none now, -errno = the link is lost. */
	ssize_t (*send)(struct ffv_wire_link *link, const void *bytes, size_t length);
	/* Some of what came, in the order in which it was sent. How many, 0 = nothing there now, -EPIPE = the other end has
	 * closed, -errno = the link is lost. */
	ssize_t (*receive)(struct ffv_wire_link *link, void *bytes, size_t capacity);
	/* The same into several places. -EFAULT: there is no memory there, and nothing was received. NULL: it cannot. */
	ssize_t (*receive_parts)(struct ffv_wire_link *link, const struct iovec *parts, int count);
	/* One line for people: what carries this link, and why, ended by NUL within `capacity` bytes. From any thread, but
	 * never while the link is closed. */
	void (*describe)(struct ffv_wire_link *link, char *text, size_t capacity);
};

extern const struct ffv_transport ffv_transport_tcp, ffv_transport_rdma, ffv_transport_fault;

/* What the links of `fault` do from now on: NAME=NUMBER,... (ffv_router_set_faults). */
int ffv_fault_configure(const char *text);

/* The transport of that name, NULL if there is none. */
const struct ffv_transport *ffv_transport_find(const char *name);

#endif

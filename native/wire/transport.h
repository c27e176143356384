/* SPDX-License-Identifier: MIT
 *
 * What carries the frames of two routers (DESIGN D11): a table of functions. A *link* is one carrier between this router
 * and another; it begins with an authenticated stream socket, which the control plane connected or accepted, and carries
 * the bytes of frames, in order, in both directions, until it closes. Each transport is one file; a layer, like one that
 * loses or delays on purpose, is a transport whose links own a link of another.
 *
 * Every function of a link is called by the router's loop thread alone, except `describe`, and `open`, which any thread
 * calls for a link that nobody knows yet, and `close` of such a one. None blocks but `part`. Outputs are set on success only;
 * the text of a failure is in ffv_error_text().
 */
#ifndef FFV_WIRE_TRANSPORT_H
#define FFV_WIRE_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <ffverbs/ffv_router.h>

struct ffv_wire_link;             /* a transport's own: each has a struct of its own behind it */
struct ffv_peer;
struct ffv_context;
struct ffv_place;

/* Of the memory of containers that is registered on real devices; from any thread. */
struct ffv_window_counters { _Atomic uint64_t made, found, dropped, bytes; };

/* What the user said, and where is counted; each transport reads its own part, and copies it. */
struct ffv_transport_options { struct ffv_rdma_options rdma; struct ffv_window_counters *windows; };

/* A piece of memory as real queue pairs name it: of this host (lkey) or the other one (rkey). */
struct ffv_real_piece { uint64_t address; uint32_t key; uint32_t length; };

/* Registered memory of a container's, in use by whoever got it until it is released. */
struct ffv_real_window { struct ffv_real_piece piece; uint32_t number; };

/* Moving bytes between the memory of containers of two hosts without a processor (docs/decisions/0036). What is asked for is
 * a carrier's, the real queue pair's that the link has at that time; with it everything of it is over: nothing that was
 * begun over it moves a byte any more. Called by the loop's thread alone; nothing blocks. */
struct ffv_one_sided {
	/* The carrier that both ends may use now: a number that no other ever has, 0 = there is none. near, far: by which
	 * names this end and the other one go between the two routers. */
	uint64_t (*carrier)(const struct ffv_wire_link *link, uint64_t *near, uint64_t *far);
	/* Registers a place of `peer`'s memory, or finds that it is; the registration is the place's, and ends with it. far: the
	 * other end may name it. */
	int (*window)(struct ffv_wire_link *link, struct ffv_peer *peer, const struct ffv_place *place, bool far,
		      struct ffv_real_window *out);
	/* It stays registered for the next time. fence: it does not, and nobody moves a byte of it any more; who is just at it
	 * loses the carrier. Without effect if the carrier is another one by now. */
	void (*release)(struct ffv_wire_link *link, uint64_t carrier, uint32_t number, bool fence);
	/* Drops what is of peers of `of`, in use or not; NULL: what is registered no longer, or was not used for a while. */
	void (*forget)(struct ffv_wire_link *link, const struct ffv_context *of, uint64_t now_ns);
	/* Writes `from` (lkeys) to `to` (rkeys), as many bytes, or with `reads` the other way. *ticket: which of the carrier's. */
	int (*move)(struct ffv_wire_link *link, bool reads, const struct ffv_real_piece *here, int num_here,
		    const struct ffv_real_piece *there, int num_there, uint32_t *ticket);
	/* 1 = all of it is where it belongs, 0 = not yet, -1 = the carrier is no more, and what of it is there is not known. */
	int (*has_moved)(const struct ffv_wire_link *link, uint64_t carrier, uint32_t ticket);
};

#define FFV_PART_NS 1000000000ull

struct ffv_transport {
	const char *name;
	/* A link on which the other end has not answered a question for so long is given up. */
	uint64_t silent_ns;
	/* A link over `socket`, a connected stream that nobody else uses any more. On success the socket is the link's, on
	 * failure (-errno) it stays the caller's, as it was but for O_NONBLOCK. The other end opens the same transport; who
	 * connected does not matter. Frames may be sent at once: what cannot go yet is not taken. */
	int (*open)(const struct ffv_transport_options *options, int socket, struct ffv_wire_link **out);
	/* Waits until what was sent is at the other end, which `close` would lose, at most FFV_PART_NS: said before `close` by
	 * whoever wants the last words to be heard. NULL: nothing would be lost. */
	void (*part)(struct ffv_wire_link *link);
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
	const struct ffv_one_sided *one_sided; /* NULL: it cannot */
};

extern const struct ffv_transport ffv_transport_tcp, ffv_transport_rdma, ffv_transport_fault;

/* What the links of `fault` do from now on: NAME=NUMBER,... (ffv_router_set_faults). */
int ffv_fault_configure(const char *text);

/* The transport of that name, NULL if there is none. */
const struct ffv_transport *ffv_transport_find(const char *name);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The data plane of a host's router: carries the work of containers between hosts (docs/wire.md, docs/decisions/0021).
 * The conventions are those of ffv.h. The control plane connects and authenticates; what it hands over here is trusted
 * to be another router, but nothing that the other router sends is believed unchecked.
 */
#ifndef FFVERBS_FFV_ROUTER_H
#define FFVERBS_FFV_ROUTER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ffv_router;

/* The version of the frames that are exchanged; the hello of the control plane negotiates it. */
#define FFV_WIRE_VERSION 3

enum ffv_router_event_kind {
	FFV_ROUTER_CHANNEL_CLOSED = 1, /* by the other end, an error, or a frame that breaks a rule: text says which */
	FFV_ROUTER_PROXY_CLOSED = 2,   /* the remote context is gone */
	FFV_ROUTER_CHANNEL_LOST = 3,   /* its link is: resume it, or it closes by itself after a while */
	FFV_ROUTER_CLAIMED = 4         /* the other end speaks for `gid`, and waits for ffv_router_owner */
};

struct ffv_router_event {
	uint32_t kind;              /* enum ffv_router_event_kind */
	uint32_t channel;
	uint8_t gid[16];
	uint32_t qpn_first;
	char text[192];             /* why; of a PROXY_CLOSED: why it could not be opened, if so */
};

struct ffv_router_counters {
	uint64_t frames_sent, frames_received;
	uint64_t bytes_sent, bytes_received;
	uint64_t bytes_placed;      /* of bytes_received: read straight into the memory of containers */
	/* Payload of large messages that real RDMA WRITEs and READs, whoever asked for them, moved out of the memory of containers
	 * here, and into it; sent as bytes of frames (but for the last 64 of each SEND and WRITE, which always are). */
	uint64_t bytes_one_sided_sent, bytes_one_sided_received, bytes_streamed;
	/* Windows of containers' memory registered on real devices: made, found registered, given up; and now. */
	uint64_t windows_made, windows_found, windows_dropped, window_bytes;
	uint64_t datagrams_dropped;
	uint64_t claims_refused;    /* contexts that another host spoke for and may not, by ffv_router_owner */
	uint64_t rate_waits;        /* how often sending waited for ffv_router_set_rate */
	uint32_t channels, proxies, pairs;
	uint32_t pairs_warm;        /* of pairs: in use now, or within the last seconds */
	uint32_t windows;           /* registered on real devices now */
	uint32_t under_way;         /* work requests of reliable and unreliable connections that are not done, both ways */
};

struct ffv_channel_counters {
	uint64_t frames_sent, frames_received;
	uint64_t bytes_sent, bytes_received;
	uint32_t proxies, pairs;    /* that it leads to */
};

/* Which real RDMA device carries what goes to other hosts by the transport `rdma`. */
struct ffv_rdma_options {
	char host_address[64];      /* of this host, IPv4 or IPv6: the port is taken that has the RoCE v2 GID of it */
	char device[64];            /* no other than this one; "" = any */
	int32_t gid_index;          /* this GID instead; -1 = that of the address */
	int32_t tcp_allowed;        /* where or while RDMA cannot be had: 0 = channels close */
};

const char *ffv_error_text(void);

/* Opens the data plane for the node directory `dir` and starts its threads. */
int ffv_router_create(const char *dir, struct ffv_router **out);
/* Closes every channel and every proxy: containers see the deaths of their remote peers. */
void ffv_router_destroy(struct ffv_router *router);

/* Says what `rdma` is to use from now on. 0 = a device is there; -errno = there is none now, and the text says why. */
int ffv_router_use_rdma(struct ffv_router *router, const struct ffv_rdma_options *options);
/* A connected, authenticated stream socket to another router, which becomes the data plane's own (on success); the named
 * transport goes on from there, at both ends the same. -EPROTONOSUPPORT if there is no such transport. */
int ffv_router_add_channel(struct ffv_router *router, const char *transport, int socket, uint32_t *channel);
/* One line: what carries the channel, and why. -ENOTCONN if it is closed. */
int ffv_router_describe_channel(struct ffv_router *router, uint32_t channel, char *text, size_t capacity);
/* What the transport `fault` (tcp, with faults) does to the frames that it sends, in all channels of this process that are
 * opened afterwards: NAME=NUMBER,... with the probabilities (0 to 1, a frame) drop, twice, reorder, delay (by up to
 * delay_ms), cut and half_open, and a seed. -EINVAL for anything else. Before any channel is opened. */
int ffv_router_set_faults(const char *text);
/* Sends payload to other hosts at no more than this on average, all of it together; 0 = as fast as it goes. -EINVAL if it
 * is more than FFV_ROUTER_MAX_RATE. At any time. */
#define FFV_ROUTER_MAX_RATE 1000000000000ull
int ffv_router_set_rate(struct ffv_router *router, uint64_t bytes_per_s);
/* Goes on with a channel over another socket to the same router, which resumes it, too: nothing is lost or comes twice.
 * The socket becomes the data plane's own (on success). -ENOTCONN if the channel is closed. */
int ffv_router_resume_channel(struct ffv_router *router, uint32_t channel, const char *transport, int socket);
void ffv_router_close_channel(struct ffv_router *router, uint32_t channel);
/* Makes sure that the context which owns QP number `qpn` under `gid` has a proxy here, reached by the channel. Blocks.
 * -EADDRINUSE if a container of this host has that name, -ENOTCONN if there is no such channel. */
int ffv_router_reach(struct ffv_router *router, const uint8_t gid[16], uint32_t qpn, uint32_t channel);

/* From now on a host may speak for the contexts of an address only when the control plane has said that it is its own: what it
 * says of another one waits, and FFV_ROUTER_CLAIMED asks. Without this every address is believed. */
void ffv_router_check_owners(struct ffv_router *router);
/* The number of the tenant (ffv_router_announce) that the other end has proven to be of: where owners are checked, what is
 * broadcast passes only if that is what it says itself. -ENOTCONN if the channel is closed. */
int ffv_router_set_tenant(struct ffv_router *router, uint32_t channel, uint64_t tenant);
/* owns 1: the address is of the host at the other end of the channel (UINT32_MAX: of none that is connected), and of no
 * other: what leads to others of that address ends as if they had died. 0: it is not; what the host has said of it ends. */
int ffv_router_owner(struct ffv_router *router, const uint8_t gid[16], uint32_t channel, int owns);

/* A listener of the connection manager on another host. */
struct ffv_router_service {
	uint8_t address[16];        /* of a container; a GID */
	uint32_t port_space;
	uint16_t port;              /* host order */
};

/* A container's connection to router.sock on which it talks to the listener, and what it said first (1 to 512 bytes). The
 * socket becomes the data plane's on success; what stands against the call is answered on it. Never waits. */
int ffv_router_call(struct ffv_router *router, int socket, uint32_t channel, const struct ffv_router_service *service,
		    const void *message, size_t bytes);

/* Tells all connected hosts what this one's containers want of multicast datagrams and raw packets, and waits at most
 * timeout_ms until they know (-ETIMEDOUT: it is on its way to the others). Containers hear of each other only within a
 * tenant, which a number that is not 0 stands for. */
int ffv_router_announce(struct ffv_router *router, uint64_t tenant, uint32_t timeout_ms);

/* 1 if the name that owns `qpn` under `gid` in the node directory is a proxy of this router's, 0 if not. *channel is the
 * one that it leads to, which may be closed by now; UINT32_MAX for the router's own place on the segment. */
int ffv_router_is_proxy(struct ffv_router *router, const uint8_t gid[16], uint32_t qpn, uint32_t *channel);

/* Readable while events wait. */
int ffv_router_event_fd(const struct ffv_router *router);
/* 1 = *event filled, 0 = none. */
int ffv_router_next_event(struct ffv_router *router, struct ffv_router_event *event);
int ffv_router_query(struct ffv_router *router, struct ffv_router_counters *counters);
/* -ENOTCONN if the channel is closed. */
int ffv_router_query_channel(struct ffv_router *router, uint32_t channel, struct ffv_channel_counters *counters);

#ifdef __cplusplus
}
#endif
#endif

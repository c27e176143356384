/* SPDX-License-Identifier: MIT
 *
 * What the files of the connection manager share: ids, their states, their sockets and events. Process-private.
 *
 * Threads. One lock (ffv_cm_lock) guards all that is marked "lock" below; it is held for moments and never while a call
 * waits for somebody. Messages and timers are handled on the process's service thread; queue pairs change state in the
 * threads of the program, as in librdmacm: in accept on the passive side, in get_event on the active one. Order of locks:
 * the device's, ffv_cm_lock, those of the verbs.
 *
 * Sockets of connections are watched through one epoll descriptor, which the service thread's loop watches: they come
 * and go under the lock, without waiting for a callback that runs.
 */
#ifndef FFV_CM_CM_H
#define FFV_CM_CM_H

#include <pthread.h>
#include <stdbool.h>

#include <ffverbs/ffv.h>

#include "cm/lookup.h"
#include "cm/wire.h"

#define FFV_CM_MAX_CLAIMS 16
#define FFV_CM_MAX_BACKLOG 1024
/* How long a message may stay unanswered: by the process of the peer, and by its program once the process has said that
 * it has the message (2^20 and 2^24 times 4.096 us, as the kernel's CM asks of its peers). */
#define FFV_CM_RESPONSE_NS 4294967296ull
#define FFV_CM_SERVICE_NS 68719476736ull

enum ffv_cm_state {
	FFV_CM_IDLE, FFV_CM_ADDR_BOUND, FFV_CM_ADDR_QUERY, FFV_CM_ADDR_RESOLVED, FFV_CM_ROUTE_QUERY, FFV_CM_ROUTE_RESOLVED,
	FFV_CM_LISTEN, FFV_CM_REQ_SENT, FFV_CM_REQ_RCVD, FFV_CM_REP_SENT, FFV_CM_REP_RCVD, FFV_CM_ESTABLISHED,
	FFV_CM_DREQ_SENT, FFV_CM_DREQ_RCVD, FFV_CM_ENDED
};

/* The context that all ids of the process share, and how they are served. */
struct ffv_cm_device {
	struct ffv_context *ctx;
	struct ffv_pd *pd;
	uint8_t gid[16];
	uint32_t holds;               /* lock */
	int epoll_fd;
	struct ffv_loop_source *ready_source;
	struct ffv_loop_source *timer_source;
	uint64_t due_ns;              /* lock: when the timer will run */
};

struct ffv_cm_socket {
	struct ffv_cm_socket *next;   /* lock: of all */
	struct ffv_cm_device *device;
	struct ffv_cm_id_private *id; /* whose; of a connection that has not yet said what it wants, the listener's */
	int fd;
	bool is_listener, is_new;
	bool is_paused;               /* of a listener: there was no descriptor for another connection */
	uint64_t deadline_ns;         /* of a new one, and of a pause */
};

struct ffv_cm_multicast {
	struct ffv_cm_multicast *next;
	union ffv_sockaddr addr;
	struct ffv_gid gid;
	uint32_t join_flags;
	bool attached;
	bool busy;                    /* lock: being attached by who read its event */
	void *context;
};

struct ffv_cm_claim { struct ffv_service service; struct ffv_cm_socket *socket; };

struct ffv_cm_channel_private {
	struct ffv_cm_channel channel; /* first: the public part */
	uint32_t generation;           /* of the process that made it, by forks */
	uint32_t ids;                  /* lock */
	struct ffv_cm_event_private *first, *last; /* lock: the descriptor is readable while there is one */
};

struct ffv_cm_event_private {
	struct ffv_cm_event event;     /* first: the public part */
	struct ffv_cm_event_private *next;
	struct ffv_cm_id_private *counted; /* which id waits for its acknowledgement */
	struct ffv_cm_multicast *multicast;
	uint8_t private_data[FFV_CM_PRIVATE_BYTES];
};

struct ffv_cm_id_private {
	struct ffv_cm_id id;           /* first: the public part */
	struct ffv_cm_id_private *next; /* lock: of all */
	uint32_t generation;
	bool sync;
	bool owns_channel;
	bool reuse_address, address_family_only, asks_once;
	bool is_away;                  /* lock: the router knows a container of another host that has the address */
	bool owns_qp, owns_send_cq, owns_recv_cq, reject_on_error;
	enum ffv_cm_state state;       /* lock */
	struct ffv_cm_device *device;  /* held once set */
	struct ffv_cm_claim claims[FFV_CM_MAX_CLAIMS]; /* lock */
	uint32_t num_claims;
	struct ffv_cm_socket *socket;  /* lock: of the connection */
	uint64_t deadline_ns;          /* lock: of what is waited for; UINT64_MAX = nothing */
	uint64_t retry_ns;             /* lock: when to try again what did not work yet */
	uint64_t ask_ns;               /* lock: when the router may be asked again for the address */
	uint32_t events_read;          /* lock: and not yet acknowledged */
	uint32_t qp_follows;           /* lock: events that are being read and change the queue pair's state */
	uint32_t backlog;
	uint32_t waiting_requests;     /* lock: connect requests that nobody read */
	uint8_t tos, ack_timeout;
	bool has_tos, has_ack_timeout;
	struct ffv_cm_ece local_ece, remote_ece;
	/* of a connection */
	struct ffv_cm_message request; /* as sent or received */
	uint8_t remote_gid[16];
	uint32_t remote_qpn, local_psn, remote_psn;
	uint32_t local_qpn;            /* as told to the peer */
	uint8_t responder_resources, initiator_depth, retry_count, rnr_retry_count, mtu;
	struct ffv_cm_multicast *multicasts; /* lock */
	struct ffv_cm_addrinfo *found;
	/* of endpoints */
	struct ffv_qp_init_attr *ep_attr;
	struct ffv_pd *ep_pd;
	void *ep_connect;
	uint8_t ep_connect_len;
};

extern pthread_mutex_t ffv_cm_lock;

static inline struct ffv_cm_id_private *ffv_cm_private(const struct ffv_cm_id *id)
{
	return (struct ffv_cm_id_private *)(uintptr_t)id;
}

static inline bool ffv_cm_is_datagram(const struct ffv_cm_id_private *id)
{
	return id->id.qp_type == FFV_QPT_UD;
}

/* ---- device.c ------------------------------------------------------------------------------------------------------- */

/* 0 if this process made it; -EINVAL for NULL, -EOWNERDEAD in a fork child. */
int ffv_cm_check_id(const struct ffv_cm_id *id);
int ffv_cm_check_generation(uint32_t generation);
uint32_t ffv_cm_generation(void);
/* Gives the id the process's device, which is opened with the first. */
int ffv_cm_hold_device(struct ffv_cm_id_private *id);
void ffv_cm_drop_device(struct ffv_cm_id_private *id);
/* Lock held: has ffv_cm_on_timer called by then. */
void ffv_cm_wake_by(struct ffv_cm_device *device, uint64_t due_ns);
/* Lock held. The descriptor is the socket's from here on, also on failure. */
int ffv_cm_add_socket(struct ffv_cm_device *device, int fd, struct ffv_cm_id_private *id, struct ffv_cm_socket **out);
void ffv_cm_remove_socket(struct ffv_cm_socket *socket, bool close_fd);
struct ffv_cm_socket *ffv_cm_sockets(void);
/* Lock held: whether the service thread is told of what comes. */
void ffv_cm_pause_socket(struct ffv_cm_socket *socket, bool pause);
/* Lock held: all ids of the process. */
void ffv_cm_list_id(struct ffv_cm_id_private *id);
void ffv_cm_unlist_id(struct ffv_cm_id_private *id);
struct ffv_cm_id_private *ffv_cm_ids(void);

/* ---- events.c ------------------------------------------------------------------------------------------------------- */

struct ffv_cm_event_private *ffv_cm_new_event(struct ffv_cm_id_private *id, uint32_t type, int status);
/* Lock held. Takes the event. */
void ffv_cm_post_event(struct ffv_cm_event_private *event);
/* Lock held: new and post; without memory the event is lost, as there is nobody to tell. */
void ffv_cm_raise(struct ffv_cm_id_private *id, uint32_t type, int status);
/* Lock held: the id's unread events; those that are connect requests to a listening id are handed to `orphan`. */
void ffv_cm_drop_events(struct ffv_cm_id_private *id, struct ffv_cm_id_private **orphans);
/* Lock held: the unread event of a join that is taken back; waits until whoever is reading it is done. */
void ffv_cm_drop_join(struct ffv_cm_id_private *id, struct ffv_cm_multicast *multicast);
/* Waits until all events of the id that were read are acknowledged. */
void ffv_cm_wait_acknowledged(struct ffv_cm_id_private *id);
/* The id is for queue pairs of this type, and has this one (or NULL): events of it that are read follow it. */
void ffv_cm_give_qp(struct ffv_cm_id_private *id, struct ffv_qp *qp, uint32_t type);
/* The id's queue pair, which is no longer the id's, once no event that is being read changes its state. */
struct ffv_qp *ffv_cm_take_qp(struct ffv_cm_id_private *id);
/* Of a synchronous id: waits for the result of what was begun. Others: 0 at once. */
int ffv_cm_complete(struct ffv_cm_id_private *id);

/* ---- id.c ------------------------------------------------------------------------------------------------------------- */

/* A new id that nobody knows. */
struct ffv_cm_id_private *ffv_cm_allocate_id(uint32_t port_space, struct ffv_cm_channel *channel, void *context);
int ffv_cm_bind_to(struct ffv_cm_id_private *id, const union ffv_sockaddr *addr);
/* A port that is probably free. */
uint16_t ffv_cm_some_port(void);
/* Once it has a device and a local address, an id shows them. */
void ffv_cm_show_device(struct ffv_cm_id_private *id);

/* ---- resolve.c ---------------------------------------------------------------------------------------------------------- */

/* Lock held, of the service thread. */
void ffv_cm_on_resolve_timer(struct ffv_cm_id_private *id, uint64_t now_ns);
/* Lock held, of the service thread: the router has answered. */
void ffv_cm_on_host_answer(struct ffv_cm_id_private *id);
static inline bool ffv_cm_is_resolving(const struct ffv_cm_id_private *id)
{
	return id->state == FFV_CM_ADDR_QUERY || id->state == FFV_CM_ROUTE_QUERY;
}

/* ---- connect.c, serve.c ------------------------------------------------------------------------------------------------ */

/* Lock held. Sends what the id has to say first, now or when the listener has room: 0, or what stands against it. */
int ffv_cm_send_request(struct ffv_cm_id_private *id);
/* Lock held: nobody listens where the id wants to connect. */
void ffv_cm_find_nobody(struct ffv_cm_id_private *id);
/* Lock held: tells the peer what the end of the id means to it, and leaves it. */
void ffv_cm_hang_up(struct ffv_cm_id_private *id);
/* Lock held: fills a message with what every message of the id has. */
void ffv_cm_begin_message(const struct ffv_cm_id_private *id, struct ffv_cm_message *message, uint32_t kind);
/* Lock held, of the service thread. */
void ffv_cm_on_socket(struct ffv_cm_socket *socket);
uint64_t ffv_cm_on_timer(struct ffv_cm_device *device, uint64_t now_ns);

/* ---- qp.c -------------------------------------------------------------------------------------------------------------- */

/* Brings the id's queue pair to RTR and RTS by what the peer said. Waits for the peer's process, at most a second. */
int ffv_cm_connect_qp(struct ffv_cm_id_private *id);
int ffv_cm_fail_qp(struct ffv_cm_id_private *id);
/* Where datagrams to the id's peer, or to a group, go. */
void ffv_cm_fill_ah_attr(const struct ffv_cm_id_private *id, const uint8_t gid[16], struct ffv_ah_attr *attr);

/* ---- multicast.c ---------------------------------------------------------------------------------------------------- */

/* After the event of a join was read: attaches the queue pair. */
int ffv_cm_attach_multicast(struct ffv_cm_id_private *id, struct ffv_cm_multicast *multicast);
/* Before its queue pair goes. The id stays a member, as it was before it had one. */
int ffv_cm_detach_all(struct ffv_cm_id_private *id);
void ffv_cm_leave_all(struct ffv_cm_id_private *id);

#endif

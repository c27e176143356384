/* SPDX-License-Identifier: MIT
 *
 * Sockets: what their files share. Process-private; on the public header of verbs and connection manager only.
 *
 * A connection is an RC queue pair with one completion queue and one registered block of memory a side: a ring that the
 * peer writes to, and a stage for what is sent. Data is written into the peer's ring by RDMA WRITE, the last write of a
 * piece with immediate data, which says how much came. The reader gives back room by credits, which are immediate data and
 * nothing else. All that is waited for is a completion, so nothing depends on how writes become visible in memory.
 *
 * Locks, in this order: tx, rx (one sender, one reader at a time), lock (the rest), accept's own. A thread that waits holds
 * none of them.
 */
#ifndef FFV_RSOCKET_RSOCKET_H
#define FFV_RSOCKET_RSOCKET_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <ffverbs/ffv.h>

#include "base/atomics.h"
#include "base/spin.h"

#define FFV_RS_MAGIC 0x66667673u    /* in private data: "this end speaks it" */
#define FFV_RS_VERSION 2u
#define FFV_RS_RING_BYTES (256u << 10)
#define FFV_RS_RING_MIN (16u << 10)
#define FFV_RS_RING_MAX (4u << 20)
#define FFV_RS_PIECE_BYTES (16u << 10) /* of one write from the stage */
#define FFV_RS_STAGE_BYTES (4u * FFV_RS_PIECE_BYTES)
#define FFV_RS_INLINE 512u
#define FFV_RS_RECVS 512u           /* receive requests that are posted */
#define FFV_RS_RESERVED 32u         /* of them, for messages that are no data */
#define FFV_RS_SENDS 64u
#define FFV_RS_RETRIES 7u           /* of a request that a peer on another host does not answer */

/* Immediate data: what came, and for data how much. */
enum ffv_rs_message { FFV_RS_DATA = 0, FFV_RS_CREDIT = 1, FFV_RS_FIN = 2, FFV_RS_RST = 3, FFV_RS_MARK = 4 };
#define FFV_RS_IMM(kind, bytes) ((uint32_t)(kind) << 28 | (bytes))
#define FFV_RS_IMM_KIND(imm) ((imm) >> 28)
#define FFV_RS_IMM_BYTES(imm) ((imm) & 0x0fffffffu)
/* Of a credit: messages that may come in addition, and bytes that were read, in units. */
#define FFV_RS_CREDIT_UNIT 64u
#define FFV_RS_CREDIT_BITS 17u
#define FFV_RS_IMM_CREDIT(messages, units) FFV_RS_IMM(FFV_RS_CREDIT, (messages) << FFV_RS_CREDIT_BITS | (units))
#define FFV_RS_IMM_MESSAGES(imm) (FFV_RS_IMM_BYTES(imm) >> FFV_RS_CREDIT_BITS)
#define FFV_RS_IMM_UNITS(imm) ((imm) & ((1u << FFV_RS_CREDIT_BITS) - 1))

/* Private data of both messages, in network order. */
struct ffv_rs_hello {
	uint32_t magic_be;
	uint32_t version_be;
	uint64_t addr_be;          /* of the ring */
	uint32_t rkey_be;
	uint32_t ring_bytes_be;
	uint32_t recvs_be;         /* data messages that may come before the first credit */
	uint32_t host_be;          /* ffv_rs_host of who says it */
};

/* FFV_RS_DATAGRAMS: a datagram socket that is bound, of which the stream has no more than a channel, a queue and memory. */
enum ffv_rs_state { FFV_RS_IDLE, FFV_RS_LISTENING, FFV_RS_CONNECTING, FFV_RS_CONNECTED, FFV_RS_FAILED, FFV_RS_DATAGRAMS };

struct ffv_rs_options {
	struct linger linger;
	uint64_t receive_timeout_ns; /* 0 = none */
	uint64_t send_timeout_ns;
	uint32_t ring_bytes;
	int receive_low_water;
	int reuse_addr;
	int v6_only;
	int kept[32];              /* options.c: those that are told again */
};

struct ffv_rs_stream {
	struct ffv_comp_channel *channel;
	int channel_fd;
	struct ffv_cq *cq;
	struct ffv_mr *mr;
	uint8_t *ring;
	uint8_t *stage;
	uint32_t ring_bytes;
	/* what the peer said */
	bool is_away;                      /* the peer is on another host */
	uint64_t peer_addr;
	uint32_t peer_rkey;
	uint32_t peer_ring_bytes;
	/* sending */
	_Atomic uint64_t sent_bytes;
	_Atomic uint64_t consumed_bytes;   /* by the peer */
	uint64_t sent_messages;
	uint64_t granted_messages;
	uint64_t posted;                   /* send requests */
	uint64_t completed;
	uint64_t signaled;                 /* the last one that was posted so */
	uint64_t busy_since_ns;            /* to a peer on another host: since when not all of them are completed */
	uint64_t stage_posted;             /* bytes of the stage, free-running */
	uint64_t stage_completed;
	uint64_t stage_end[FFV_RS_SENDS];  /* of stage_posted, by request */
	/* receiving */
	_Atomic uint64_t arrived_bytes;
	_Atomic uint64_t read_bytes;
	uint64_t arrived_messages;
	uint64_t credited_bytes;
	uint64_t credited_messages;
	uint32_t marks_sent, marks_arrived;
	uint64_t first_mark;               /* the request that sent it; counted as `posted` */
	uint32_t marks[2];                 /* that arrived */
	uint32_t recvs_missing;            /* to be posted again */
};

struct ffv_rs_socket {
	_Atomic uint32_t refs;             /* numbers and calls under way; memory is never given back, only used again */
	struct ffv_rs_socket *next;        /* in the pool, or in a queue of accept or of lingering */
	uint32_t numbers;                  /* table lock */
	pthread_mutex_t tx;
	pthread_mutex_t rx;
	pthread_mutex_t lock;
	int domain;
	int kick_fd;                       /* readable when something changed that no completion tells */
	uint32_t sleepers;
	bool is_kicked;
	bool is_watched;                   /* its number is level_near, of a pair (watch.c) */
	bool shows_readable, shows_writable;
	int level_near, level_far;
	bool is_armed;                     /* the completion queue will raise an event, or has */
	struct ffv_spin_state spin;        /* data.c */
	_Atomic bool non_blocking;
	_Atomic bool closed;               /* no number any more */
	_Atomic uint64_t changes;
	enum ffv_rs_state state;
	int error;                         /* SO_ERROR */
	bool fin_sent, fin_arrived, reset_arrived, read_shut, sent_to_nobody;
	bool is_dead;                      /* the queue pair is in error: nothing will come or go any more */
	bool is_bound;
	union ffv_sockaddr bound;          /* what bind was asked for, with the port that it got */
	struct ffv_cm_id *id;
	struct ffv_cm_channel *own_channel; /* until it listens or connects */
	struct ffv_rs_options options;
	struct ffv_rs_stream stream;
	bool is_datagram;                  /* as it was made */
	int beside_fd;                     /* beside.c; -1: none */
	bool beside_is_armed;              /* the thread will be told when it is readable */
	_Atomic bool udp_is_next;
	uint32_t turn;
	struct ffv_rs_datagrams *datagrams; /* datagram.c; NULL until it is bound */
	/* listening */
	struct ffv_rs_socket *first, *last; /* connections not accepted yet */
	uint32_t waiting;
	uint32_t backlog;
	struct ffv_rs_socket *listener;    /* of a connection that is not established yet */
	bool asks;                         /* connections are made when ffv_accept_from asks for them */
	_Atomic uint32_t requests;         /* that nobody has asked for yet: in the queue of accept */
	struct ffv_rs_hello hello;         /* of such a request */
	uint64_t asked_until_ns;
	uint64_t linger_until_ns;
};

/* ---- table.c: numbers ---------------------------------------------------------------------------------------------------- */

/* NULL if it is no socket of ours; else the caller gives it back by ffv_rs_put. */
struct ffv_rs_socket *ffv_rs_get(int fd);
void ffv_rs_put(struct ffv_rs_socket *socket);
/* A socket without number, with one reference. NULL: no memory or descriptor (errno). */
struct ffv_rs_socket *ffv_rs_new(int domain);
/* Makes a number for it, which takes over the caller's reference. */
int ffv_rs_publish(struct ffv_rs_socket *socket, int flags);
/* False: its last reference has gone already. */
bool ffv_rs_hold(struct ffv_rs_socket *socket);
/* Its number is woken by the completion channel from now on. */
int ffv_rs_watch_stream(struct ffv_rs_socket *socket, int fd);

/* For each that has a number, held meanwhile. */
void ffv_rs_for_each(void (*function)(struct ffv_rs_socket *socket));

/* fork(): the table is held; in the child it is empty afterwards, and the numbers are the kernel's alone. */
void ffv_rs_before_fork(void);
void ffv_rs_after_fork(bool in_child);

/* ---- process.c: what the process shares ------------------------------------------------------------------------------------ */

/* The channel of all connections and listeners, which the thread of this file reads. */
int ffv_rs_channel(struct ffv_cm_channel **out);
int ffv_rs_domain(struct ffv_context *ctx, struct ffv_pd **out);
/* A number that is the same for all processes of this host, and another one elsewhere. */
uint32_t ffv_rs_host(void);
/* The completion channel of the socket is looked after by the thread, as watch.c says. */
int ffv_rs_observe(struct ffv_rs_socket *socket);
void ffv_rs_unobserve(struct ffv_rs_socket *socket);
/* The same, once, for what the kernel's socket beside it has to read; lock held. */
int ffv_rs_observe_beside(struct ffv_rs_socket *socket);
void ffv_rs_unobserve_beside(struct ffv_rs_socket *socket);
/* For those that are kept so, by ffv_socket_deliver. */
void ffv_rs_for_each_lingering(void (*function)(struct ffv_rs_socket *socket));
/* Keeps a closed socket, with a reference of its own, until what it sent is delivered. */
void ffv_rs_linger(struct ffv_rs_socket *socket);

/* ---- wait.c: readiness and sleeping ---------------------------------------------------------------------------------------- */

/* Lock held. */
int ffv_rs_readiness(struct ffv_rs_socket *socket);
/* Lock held: wakes all who sleep, for what no completion tells. */
void ffv_rs_kick(struct ffv_rs_socket *socket);
/* Lock not held: sleeps until one of `events` may be true. -EAGAIN at the deadline (UINT64_MAX: none), -EINTR. */
int ffv_rs_wait(struct ffv_rs_socket *socket, int events, uint64_t deadline_ns);

/* ---- watch.c: numbers that tell the truth to the kernel (lock held) -------------------------------------------------------- */

int ffv_rs_make_levels(struct ffv_rs_socket *socket);
void ffv_rs_drop_levels(struct ffv_rs_socket *socket);
/* To be called after what may have changed the readiness. */
void ffv_rs_show(struct ffv_rs_socket *socket);
/* By the thread of process.c, when the descriptor in which all are observed is readable; no lock held. */
void ffv_rs_look_at_observed(int epoll_fd);

/* ---- stream.c: the connection's memory and messages (lock held) ------------------------------------------------------------ */

/* What can be waited for, before the rest is worth while. */
int ffv_rs_stream_prepare(struct ffv_rs_socket *socket);
int ffv_rs_stream_create(struct ffv_rs_socket *socket, struct ffv_rs_hello *hello);
void ffv_rs_stream_destroy(struct ffv_rs_socket *socket);
int ffv_rs_stream_peer(struct ffv_rs_socket *socket, const void *data, uint8_t length);
/* Takes what has completed. */
void ffv_rs_progress(struct ffv_rs_socket *socket);
/* A message without data: FIN or RST. */
int ffv_rs_send_message(struct ffv_rs_socket *socket, enum ffv_rs_message kind, uint32_t value);
void ffv_rs_give_credit(struct ffv_rs_socket *socket);
/* Bytes that may be written now. */
uint32_t ffv_rs_room(const struct ffv_rs_socket *socket);
/* Writes them, from the stage (at stage_posted) or, if inlined, from anywhere. */
int ffv_rs_write(struct ffv_rs_socket *socket, const void *data, uint32_t length, bool is_inline);

/* ---- close.c --------------------------------------------------------------------------------------------------------------- */

/* The last number has gone. */
void ffv_rs_close(struct ffv_rs_socket *socket);
/* The last reference has. */
void ffv_rs_destroy(struct ffv_rs_socket *socket);
/* For ffv_socket_deliver, which does not wait for a lock for ever: who calls it may hold it. */
bool ffv_rs_lock_at_exit(pthread_mutex_t *lock);
/* Lock held: whether all that was sent has been delivered, or cannot be any more. */
bool ffv_rs_is_delivered(const struct ffv_rs_socket *socket);

/* ---- listen.c: called by the thread of process.c --------------------------------------------------------------------------- */

/* Lock held, by any thread: the id's events come to that thread from now on, requests among them. */
int ffv_rs_listen_shared(struct ffv_rs_socket *socket);
void ffv_rs_on_request(struct ffv_rs_socket *listener, struct ffv_cm_id *id, const void *data, uint8_t length);
/* The connection stands, or will not (lock not held; takes over the reference of the attempt). */
void ffv_rs_on_child(struct ffv_rs_socket *child, bool stands);
/* Lock held: takes the connections that nobody accepted, to be given to ffv_rs_drop_queue without the lock. */
struct ffv_rs_socket *ffv_rs_take_queue(struct ffv_rs_socket *listener);
/* The child is the last to be accepted, unless the listener does not listen any more. The listener's lock is held. */
bool ffv_rs_join_queue(struct ffv_rs_socket *listener, struct ffv_rs_socket *child);
void ffv_rs_drop_queue(struct ffv_rs_socket *first);

/* ---- data.c and options.c ---------------------------------------------------------------------------------------------------- */

/* Lock held: SO_ERROR, which is told once. */
int ffv_rs_take_error(struct ffv_rs_socket *socket);
uint64_t ffv_rs_deadline(uint64_t timeout_ns);
/* Lock held, before it is connected. */
int ffv_rs_set_patience(struct ffv_rs_socket *socket);

/* ---- beside.c: datagram sockets, and the kernel's beside them (no lock held) ------------------------------------------------- */

long ffv_rs_send_datagram(struct ffv_rs_socket *socket, const struct msghdr *msg, int flags);
long ffv_rs_receive_datagram(struct ffv_rs_socket *socket, struct msghdr *msg, int flags);
/* Lock held, in these. */
void ffv_rs_drop_beside(struct ffv_rs_socket *socket);
bool ffv_rs_is_beside_ready(const struct ffv_rs_socket *socket);
int ffv_rs_next_length(struct ffv_rs_socket *socket);

/* ---- datagram.c, bound.c and route.c (lock held, but for the first two) ------------------------------------------------------ */

long ffv_rs_send_by_ud(struct ffv_rs_socket *socket, const struct msghdr *msg, int flags);
/* -EAGAIN: nothing is there. */
long ffv_rs_receive_by_ud(struct ffv_rs_socket *socket, struct msghdr *msg, int flags);
/* It is bound: makes what it sends and receives with. */
int ffv_rs_open_datagrams(struct ffv_rs_socket *socket, int fd);
void ffv_rs_close_datagrams(struct ffv_rs_socket *socket);
void ffv_rs_drop_datagrams(struct ffv_rs_socket *socket);
/* NULL: to no peer any more. */
int ffv_rs_connect_datagrams(struct ffv_rs_socket *socket, const union ffv_sockaddr *peer);
const union ffv_sockaddr *ffv_rs_datagram_peer(const struct ffv_rs_socket *socket);
void ffv_rs_take_datagrams(struct ffv_rs_socket *socket);
bool ffv_rs_has_datagram(const struct ffv_rs_socket *socket);
/* Of the next one; 0 if there is none. */
int ffv_rs_datagram_length(const struct ffv_rs_socket *socket);
/* By the thread of process.c, no lock held; the id is destroyed. */
void ffv_rs_on_question(struct ffv_rs_socket *socket, struct ffv_cm_id *id, const void *data, uint8_t length);
/* By the thread of process.c, about an id of route.c: its private data is a copy. */
void ffv_rs_on_route(struct ffv_cm_id *id, uint32_t event, const struct ffv_cm_ud_param *answer);
void ffv_rs_lock_routes(void);
void ffv_rs_unlock_routes(bool in_child);
void ffv_rs_lock_bound(void);
void ffv_rs_unlock_bound(bool in_child);

/* ---- ask.c: listeners that ask ---------------------------------------------------------------------------------------------- */

/* By the thread of process.c: the child waits to be asked for. */
void ffv_rs_queue_request(struct ffv_rs_socket *child, const void *data, uint8_t length);
/* Lock of the listener held: the child waits no longer. */
void ffv_rs_forget_request(struct ffv_rs_socket *listener, struct ffv_rs_socket *child);
/* Refuses those that may wait until then only. */
void ffv_rs_drop_requests(struct ffv_rs_socket *listener, uint64_t until_ns);
/* A connection that was not made, or is nobody's but its own: it leaves the listener's count. */
void ffv_rs_leave_listener(struct ffv_rs_socket *child);

/* ---- connect.c ------------------------------------------------------------------------------------------------------------- */

/* By the thread of process.c, which may have acknowledged the event: the data is a copy. */
void ffv_rs_on_connection(struct ffv_rs_socket *socket, uint32_t event, int status, const void *data, uint8_t length);
/* Lock held: an id, bound as the socket is. */
int ffv_rs_need_id(struct ffv_rs_socket *socket);
void ffv_rs_drop_id(struct ffv_rs_socket *socket);
/* Reads one of the socket's family. */
int ffv_rs_take_address(const struct ffv_rs_socket *socket, const struct sockaddr *addr, uint32_t length, union ffv_sockaddr *out);
/* To send to the wildcard address is to send to this container. */
void ffv_rs_name_loopback(union ffv_sockaddr *addr);
/* Writes an address as getsockname does. */
int ffv_rs_give_address(const struct ffv_rs_socket *socket, const union ffv_sockaddr *from, struct sockaddr *addr,
			uint32_t *length);

/* The completion queue is one that is waited for. */
static inline bool ffv_rs_has_completions(const struct ffv_rs_socket *socket)
{
	return socket->state == FFV_RS_CONNECTED || socket->state == FFV_RS_DATAGRAMS;
}

static inline uint32_t ffv_rs_min(uint64_t a, uint64_t b)
{
	return (uint32_t)(a < b ? a : b);
}

#endif

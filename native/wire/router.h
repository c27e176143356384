/* SPDX-License-Identifier: MIT
 *
 * What the files of wire/ share (DESIGN D10, docs/decisions/0021). Process-private.
 *
 * Threads:
 *   loop    owns the channels and every list of them; pulls, posts, polls, sends. Never waits.
 *   setup   opens and closes proxies and their queue pairs, which may wait for a container; a queue of jobs, in order.
 *   engine  the service thread and whoever else executes: calls the hooks with engine locks held.
 *   callers of the public API.
 * router.lock is the innermost of all locks (the hooks take it): nothing of the engine is called with it held. It guards
 * what is marked [lock]; the rest belongs to the loop.
 */
#ifndef FFV_WIRE_ROUTER_H
#define FFV_WIRE_ROUTER_H

#include <pthread.h>

#include "base/slab.h"
#include "shm/nodedir.h"
#include "verbs/attend.h"
#include "verbs/qp.h"
#include "wire/channel.h"

#define FFV_MAX_CHANNELS 256u
#define FFV_PROXY_CQE 65536
#define FFV_NO_CHANNEL UINT32_MAX
#define FFV_LEAST_PATIENCE_NS 1000000000ull  /* of a queue pair with a host that says nothing */
#define FFV_LINK_PATIENCE_NS 30000000000ull  /* of everybody */

struct ffv_link_channel;
struct ffv_proxy;
struct ffv_call;
struct ffv_grant;
struct ffv_far_grant;
struct ffv_speaker;
struct ffv_transfer;
struct ffv_call_table { struct ffv_call **call; uint32_t count; }; /* by number; grows */

/* ---- a queue pair of a container and one of another host, as seen from the container's host -------------------------- */

/* A piece of a large message that came and is not delivered yet. */
struct ffv_chunk { struct ffv_chunk *next; uint32_t offset, length; uint8_t bytes[]; };

#define FFV_READ_PIECES 4u
#define FFV_READ_BYTES (256u << 10)
#define FFV_READ_WINDOW (FFV_READ_PIECES * FFV_READ_BYTES) /* of READs of a pair: bytes under way, or not sent yet */

/* What another host wants done on our container, in order of arrival. */
struct ffv_entry {
	struct ffv_frame frame;
	uint8_t *payload;             /* of a MESSAGE or an atomic */
	/* of a READ */
	uint8_t *pieces[FFV_READ_PIECES]; /* those under way, by count; NULL: the other router's device fetches it */
	uint32_t piece_bytes[FFV_READ_PIECES];
	uint32_t done_bytes, done_pieces;   /* answered */
	uint32_t asked_bytes, asked_pieces; /* posted */
	bool by_device;               /* it may be fetched so */
	uint8_t slots[FFV_READ_PIECES]; /* of `posted`: its work requests, a READ's by piece */
};

/* A work request posted on the proxy's queue pair, by its position there. */
struct ffv_posted {
	uint32_t entry;
	uint32_t length;
	uint32_t offset, piece;       /* of a READ: where in the message, and which of its pieces */
	uint8_t *bytes;
};

/* Of what is under way, by position; there only while something is. */
struct ffv_out_window {
	uint64_t original[FFV_WINDOW]; /* [lock] of atomics */
	uint32_t bytes[FFV_WINDOW];   /* eager payload */
	uint8_t sinks[FFV_WINDOW];    /* 1: READ or atomic */
	uint8_t bad[FFV_WINDOW];      /* status of a READ whose data could not be put down */
};

struct ffv_in_window {
	uint64_t wr_ids[FFV_WINDOW];  /* lent to the proxy's queue pair */
	uint64_t more_position;       /* [lock] there, of what more is wanted for */
	struct ffv_entry entries[FFV_WINDOW]; /* by count */
	struct ffv_posted posted[FFV_WINDOW]; /* [lock] by position on the proxy's queue pair */
};

/* What an OPEN tells that may be another thing the next time. */
struct ffv_opened_as { uint32_t mtu_bytes; uint8_t timeout, retry_cnt, rnr_retry, max_rd_atomic; };

struct ffv_outgoing {
	bool opened;                  /* an OPEN of this incarnation is out */
	bool failed;                  /* it ended with an error: begins anew when the container's QP does */
	bool has_error;               /* [lock] the work request at `acked` ends with `status` */
	uint8_t status;               /* [lock] */
	uint32_t incarnation;
	uint64_t opened_at;           /* where in the channel's stream that OPEN begins */
	uint64_t cursor;              /* next work request to pull */
	bool waits;                   /* nothing is under way, but something waits, since `since_ns` */
	uint64_t since_ns;            /* when it went from nothing under way to something, or had the last answer */
	uint64_t acked;               /* [lock] first that is not answered */
	uint64_t seen_tail;           /* [lock] */
	struct ffv_out_window *window; /* [lock] to come and go; NULL = nothing is under way */
	uint32_t bytes_under_way, sinks_under_way;
	uint64_t stream_position;     /* of the large message that has credit */
	uint32_t stream_sent, stream_allowed, stream_length;
	struct ffv_far_grant *far;    /* where that may be written, NULL = nowhere */
	struct ffv_transfer *transfer; /* that is under way, NULL = none */
	struct ffv_opened_as as;      /* when it was opened last */
};

struct ffv_incoming {
	uint32_t number;              /* that the other router gave it */
	uint32_t incarnation;
	struct ffv_in_window *window; /* [lock] to come and go; NULL = nothing is there */
	uint32_t first, next_post, end; /* free-running: entries [first, end) are there, [first, next_post) posted */
	uint32_t slots;               /* of the proxy's send queue, taken by what is posted */
	uint32_t bytes_held;
	uint32_t tried_block;         /* XRC: whose context was attached, or is not there; + 1 */
	bool open;
	/* [lock] of the LARGE at `first`; the executor may be one work request ahead of the completions that were polled */
	bool wants_more;
	struct ffv_chunk *chunks, **last_chunk;
	uint32_t more_entry, more_from;
	uint32_t granted, arrived;
	struct ffv_grant *grant;      /* [lock] to come and go; where the other router may write, NULL = nowhere */
	uint64_t rnr_waits, retries;  /* of the proxy's queue pair, as last reported */
	uint64_t reported_ns;
};

/* What goes back to the requester in order: bytes of a READ, in as many frames as it takes, or a frame without any; and,
 * in another list, a datagram that waits. */
struct ffv_result { struct ffv_result *next; struct ffv_frame frame; uint8_t *bytes; uint32_t length, sent; };

struct ffv_pair {
	struct ffv_proxy *proxy;
	uint8_t gid[16];              /* of the container on this host; UD: unused */
	uint32_t qpn;                 /* of its queue pair; UD: unused */
	uint32_t far_qpn;             /* of the queue pair on the other host: the proxy's has this number */
	uint16_t type;                /* of the container's */
	uint16_t place;               /* in the proxy's list of those that are there */
	struct ffv_qp *qp;            /* the proxy's; set by setup */
	uint32_t jobs;                /* under way: hands off the qp */
	uint32_t attaching;           /* XRC: jobs under way that leave the qp alone */
	struct ffv_peer *peer;        /* of the container */
	struct ffv_qp_shm *shm;       /* the container's queue pair; NULL = not known yet */
	uint32_t generation;          /* of it */
	uint32_t warm;                /* its place in the router's list + 1; 0 = it is at rest */
	struct ffv_qp_ref *ref;       /* to it; NULL = at rest: ffv_outgoing_ref() */
	uint32_t number;              /* ours, towards the other router; FFV_NONE = none yet */
	bool ready;                   /* the qp can be posted to */
	bool dead;                    /* to be freed when no job is left */
	bool is_used;                 /* since the last look at the list of warm ones */
	bool in_turn;
	bool touched;                 /* [lock] */
	bool is_parked;
	struct ffv_outgoing out;
	struct ffv_incoming in;
	struct ffv_result *results, **last_result;
	uint64_t result_bytes;        /* in `results` */
	struct ffv_pair *ready_next;  /* turn to send */
	struct ffv_pair *touched_next; /* [lock] wanted by hooks */
	struct ffv_pair *parked_next;
	/* UD: datagrams that wait for setup */
	struct ffv_result *datagrams;
	uint32_t num_datagrams;
	uint32_t datagrams_under_way;
};

_Static_assert(sizeof(struct ffv_pair) <= 400, "what a queue pair at rest takes; the rest comes and goes");

/* ---- proxies ----------------------------------------------------------------------------------------------------------- */

enum ffv_proxy_state { FFV_PROXY_OPENING, FFV_PROXY_OPEN, FFV_PROXY_CLOSING, FFV_PROXY_CLOSED };

struct ffv_outbound { struct ffv_outbound *next; uint32_t payload_bytes; _Alignas(8) uint8_t bytes[]; };

struct ffv_proxy {
	struct ffv_proxy *next;       /* [lock] */
	struct ffv_router *router;
	struct ffv_proxy_hooks hooks;
	uint8_t gid[16];
	uint32_t block;
	uint32_t channel;             /* number; it may be closed by now */
	uint32_t state;               /* [lock] */
	int error;                    /* [lock] of opening, with its text */
	char error_text[192];
	uint32_t waiters;             /* [lock] callers that wait for it to open: the last one frees it if it is closed */
	bool waits;                   /* [lock] what is to be done for it waits in `held` */
	bool admitted;                /* [lock] its host may speak for it */
	bool refused;                 /* [lock] to set: it is not to be opened any more */
	struct ffv_job *held, **last_held; /* [lock] */
	bool died;                    /* the remote context died: closed without a farewell */
	bool is_bridge;               /* it is the router's own place on the segment */
	bool watched;                 /* by the loop's epoll */
	bool is_hot;                  /* in the router's list: its completion queue raises no events */
	struct ffv_proxy *hot_next;
	struct ffv_context *ctx;
	struct ffv_pd *pd;
	struct ffv_xrcd *xrcd;        /* of its XRC_RECV queue pairs, which nothing arrives at; made with the first */
	struct ffv_comp_channel *events;
	struct ffv_cq *cq;
	uint32_t num_pairs;           /* that are not freed yet */
	struct ffv_pair **pairs;      /* [lock] by far_qpn % FFV_QPN_BLOCK */
	struct ffv_pair **live;       /* those that are there, one after the other; who retires some goes backwards */
	uint32_t live_capacity;
	uint32_t num_live;            /* [lock] of them */
	struct ffv_outbound *datagrams, **last_datagram; /* [lock] of containers, to be sent */
	_Atomic uint32_t num_datagrams; /* [lock] to change */
};

/* ---- channels ---------------------------------------------------------------------------------------------------------- */

/* What the containers of a host want of what is broadcast. */
struct ffv_interest { uint64_t tenant, groups; bool raw; };

struct ffv_link_channel {
	struct ffv_channel io;
	/* What of it is in the router's counters; written by the loop, read by whoever asks. */
	_Atomic uint64_t frames_sent, frames_received, bytes_sent, bytes_received, bytes_placed;
	uint32_t number;
	bool broken;                  /* [lock] to set; read by the loop without */
	bool ends;                    /* the other end said so, or broke a rule: this round breaks it */
	char why[192];
	uint64_t lost_ns;             /* since when it has had no link; 0 = it has one */
	const struct ffv_transport *next_transport; /* [lock] of next_link */
	struct ffv_wire_link *next_link; /* [lock] to go on with; NULL = none */
	_Atomic bool has_next;        /* there is one: a hint to look */
	bool wants_out;               /* EPOLLOUT is asked for */
	struct ffv_pair *first_turn, **last_turn; /* pairs with something to send, round robin */
	struct ffv_pair **theirs;     /* by the number that they gave; grows */
	uint32_t num_theirs;
	struct ffv_call_table their_calls;
	struct ffv_interest interest; /* the other host's */
	_Atomic uint64_t tenant;      /* of the other host, by the control plane; 0 = not said yet */
	uint32_t told, known;         /* number of our INTEREST that was sent, that is known to have come */
	struct ffv_grant *grants;     /* that are out */
	struct ffv_transfer *transfers; /* that are under way */
	uint64_t transfer_bytes;      /* of them */
	struct ffv_pair *parked;      /* wait for some of them to end */
	struct ffv_speaker *speakers; /* [lock] to change: whom it has spoken for (speakers.c) */
	uint32_t num_speakers, num_held;
};

/* ---- jobs -------------------------------------------------------------------------------------------------------------- */

enum ffv_job_kind { FFV_JOB_OPEN_PROXY, FFV_JOB_CLOSE_PROXY, FFV_JOB_CONNECT, FFV_JOB_DESTROY, FFV_JOB_ATTACH };

struct ffv_job {
	struct ffv_job *next;
	enum ffv_job_kind kind;
	struct ffv_proxy *proxy;
	struct ffv_pair *pair;
	bool to_rts;                  /* CONNECT: by `attributes`; else it stays in RTR */
	struct ffv_frame_open attributes;
	struct ffv_qp *qp;            /* DESTROY */
	struct ffv_peer *peer;        /* DESTROY: to be put afterwards */
	struct ffv_frame_address address; /* ATTACH */
	int result;
	char text[192];               /* of a failure */
};

struct ffv_wanted { struct ffv_proxy *proxy; uint8_t gid[16]; uint32_t qpn; uint32_t gone; };

struct ffv_router {
	char *dir;
	pthread_mutex_t lock;
	pthread_cond_t changed;       /* a job was queued or done */
	pthread_t loop, setup;
	bool loop_runs, setup_runs;
	bool closing;                 /* [lock] the loop ends when everything is closed */
	bool stopping;                /* [lock] the setup thread ends when no job is left */
	int epoll_fd, wake_fd, event_fd;
	struct ffv_transport_options options; /* [lock] for the channels to come */
	_Atomic(struct ffv_proxy *) proxies; /* [lock] to change; the loop alone removes, and reads it without */
	/* [lock] to change; the loop thread reads it without: a whole channel is published by its store, and only that thread
	 * frees one that was. */
	_Atomic(struct ffv_link_channel *) channels[FFV_MAX_CHANNELS];
	struct ffv_job *jobs, **last_job, *done, **last_done; /* [lock] */
	struct ffv_wanted *wanted;    /* [lock] */
	uint32_t num_wanted, wanted_capacity;
	struct ffv_pair *touched;     /* [lock] */
	bool awake;                   /* [lock] the loop runs, or wake_fd was written to */
	bool again;                   /* [lock] something was left for it that this round does not look at any more */
	bool delivered;               /* this round a container was given a message */
	uint32_t linger_misses, linger_skips; /* in vain, one after the other; how often it is not tried */
	struct ffv_proxy *hot;        /* whose completions are polled before the loop sleeps */
	struct ffv_event_node *events, *last_event; /* [lock] */
	uint32_t close_requests[FFV_MAX_CHANNELS / 32]; /* [lock] */
	uint64_t now_ns;              /* when this round of the loop began */
	uint64_t ticked_ns, swept_ns, rested_ns;
	struct ffv_pair **warm;       /* [lock] to change: those that have what one at rest does not need */
	uint32_t num_warm, warm_capacity;
	bool ticks;                   /* a channel has something to wait for */
	struct ffv_pair **numbers;    /* ours, by number */
	uint32_t next_number;
	uint32_t generation;          /* [lock] of channels: their numbers do not come back soon */
	uint64_t tenant;              /* [lock] hash of its name; 0 = not told yet */
	uint32_t asked_to_tell;       /* [lock] number of the INTEREST that is wanted */
	uint32_t all_know;            /* [lock] number of the last that every host has seen */
	_Atomic bool segment_changed; /* there may be something to tell, or to show on the segment */
	_Atomic uint64_t rate_bytes_per_s, rate_waits;
	int64_t tokens;               /* bytes that may be sent now; below zero: sent too early */
	uint64_t filled_ns;
	uint32_t rate_wait_ms;        /* until then nobody may send; 0 = this round nobody was refused */
	uint32_t told;
	struct ffv_interest interest; /* ours, as last told */
	struct ffv_nodedir *nodedir;
	struct ffv_call *calls, *ended_calls;
	struct ffv_call_table our_calls;
	uint32_t call_incarnation;
	struct ffv_call *new_calls, **last_new_call; /* [lock] */
	_Atomic uint64_t claims_refused, datagrams_dropped, frames_sent, frames_received, bytes_sent, bytes_received, bytes_placed;
	_Atomic uint64_t bytes_one_sided_sent, bytes_one_sided_received, bytes_streamed;
	struct ffv_window_counters windows;
	_Atomic bool checks_owners;   /* set once */
	struct ffv_ownership *owners, **last_owner; /* [lock] what the control plane has said */
};

struct ffv_event_node { struct ffv_event_node *next; struct ffv_router_event event; };

/* What the loop's epoll reports: a pointer with a tag in its low bits; 0 = somebody woke it. */
enum { FFV_TAG_BELL = 1, FFV_TAG_COMPLETIONS = 2, FFV_TAG_CHANNEL = 4, FFV_TAG_CALL = 5 };

/* ---- router.c ---- */
void ffv_router_free_channel(struct ffv_router *router, struct ffv_link_channel *channel);
void ffv_router_wake_locked(struct ffv_router *router);
void ffv_router_raise(struct ffv_router *router, const struct ffv_router_event *event);
/* A copy of the job, to be queued. */
struct ffv_job *ffv_router_new_job(const struct ffv_job *job);
void ffv_router_queue_job(struct ffv_router *router, const struct ffv_job *job);
struct ffv_link_channel *ffv_router_channel(struct ffv_router *router, uint32_t number);

/* ---- hot.c ---- */
/* The loop is about to execute for the proxy: it looks for completions itself, and needs no events for them. */
void ffv_proxy_heat(struct ffv_proxy *proxy);
void ffv_proxy_forget_heat(struct ffv_proxy *proxy);
void ffv_hot_poll(struct ffv_router *router);
/* Before sleeping: completions raise events again. True: some had come meanwhile. */
bool ffv_hot_rest(struct ffv_router *router);
/* Executes what is posted on the proxy's queue pair. */
void ffv_pair_run(struct ffv_pair *pair);

/* ---- rest.c ---- */
/* What a pair's `ref` and windows are of. */
extern struct ffv_slab ffv_pair_refs, ffv_in_windows, ffv_out_windows;
/* The pair is about to have what it does not need at rest. */
void ffv_pair_warm(struct ffv_pair *pair);
void ffv_pair_forget_warmth_locked(struct ffv_pair *pair);
/* Now and then: takes from pairs that were not used for a while what they do not need. */
void ffv_rest_tick(struct ffv_router *router);
/* Nothing is to be done, for a while: what a burst needed goes back. */
void ffv_rest_all(struct ffv_router *router);

/* ---- links.c ---- */
/* For good: what was under way ends with errors, the proxies that it led to die. */
void ffv_link_break(struct ffv_router *router, struct ffv_link_channel *channel, const char *why);
/* For now: everything waits for another link. */
void ffv_link_lose(struct ffv_router *router, struct ffv_link_channel *channel, const char *why);
/* Goes on with the link that is there for it, if there is one. */
void ffv_link_resume(struct ffv_router *router, struct ffv_link_channel *channel);
void ffv_link_tick(struct ffv_router *router);

/* ---- public.c ---- */
/* As ffv_router_reach; FFV_NO_CHANNEL for what is not on another host. */
int ffv_proxy_reach(struct ffv_router *router, const uint8_t gid[16], uint32_t qpn, uint32_t channel);

/* ---- proxies.c ---- */
/* Over that channel; FFV_NO_CHANNEL: the bridge. */
struct ffv_proxy *ffv_proxy_find_locked(struct ffv_router *router, const uint8_t gid[16], uint32_t block, uint32_t channel);
/* It is opened by ffv_proxy_go_on_locked; whatever else is to be done for it waits until then. */
struct ffv_proxy *ffv_proxy_new_locked(struct ffv_router *router, const uint8_t gid[16], uint32_t block, uint32_t channel);
void ffv_proxy_free(struct ffv_proxy *proxy);
/* The loop: takes the proxy out of service; it is closed when its last pair, which refers to its peers, is freed. */
void ffv_proxy_retire(struct ffv_proxy *proxy, bool died);
void ffv_proxy_close(struct ffv_proxy *proxy);
/* The loop: what the setup thread finished. */
void ffv_proxy_opened(struct ffv_proxy *proxy, int result, const char *text);
/* A peer of the proxy, a container of this host, is gone: 1 = in order, 2 = it died. */
void ffv_proxy_peer_gone(struct ffv_proxy *proxy, const uint8_t gid[16], uint32_t qpn_first, uint32_t how);
struct ffv_pair *ffv_pair_get(struct ffv_proxy *proxy, uint32_t far_qpn);
struct ffv_pair *ffv_pair_new(struct ffv_proxy *proxy, uint32_t far_qpn, uint32_t type, const uint8_t gid[16], uint32_t qpn);
/* Has its queue pair made (again); what comes meanwhile waits. */
void ffv_pair_connect(struct ffv_pair *pair, const struct ffv_frame_open *attributes);
void ffv_pair_connected(struct ffv_pair *pair, const struct ffv_job *job);
void ffv_pair_retire(struct ffv_pair *pair);
void ffv_pair_free(struct ffv_pair *pair);
void ffv_pair_free_if_dead(struct ffv_pair *pair);
void ffv_pair_touch_locked(struct ffv_pair *pair);
/* Its turn to send comes. */
void ffv_pair_take_turn(struct ffv_pair *pair);

/* ---- owners.c ---- */
struct ffv_ownership;
/* What waits for the proxy is done now, if it is admitted (or refused) and no earlier one has its name. */
void ffv_proxy_go_on_locked(struct ffv_proxy *proxy);
/* The proxy is not in the list any more: who waits for its name goes on. */
void ffv_proxy_left_locked(const struct ffv_proxy *gone);
/* Whether one more proxy of the channel may wait for being admitted. */
bool ffv_proxy_may_wait_locked(const struct ffv_router *router, uint32_t channel);
/* Has the control plane asked whether its host may speak for it. */
void ffv_proxy_claim(struct ffv_proxy *proxy);
/* Its host, or the right to speak for it, is lost: what is under way ends with errors. */
void ffv_proxy_lose(struct ffv_proxy *proxy);
/* As ffv_router_owner. */
int ffv_owner_say_locked(struct ffv_router *router, const uint8_t gid[16], uint32_t channel, bool owns);
void ffv_owners_serve(struct ffv_router *router);

/* How much of one message may be sent in a turn: a frame is dear to who receives it, and whoever is alone keeps nobody waiting. */
static inline uint32_t ffv_turn_bytes(const struct ffv_link_channel *channel)
{
	return channel->first_turn ? FFV_TURN_BYTES : FFV_CHUNK_BYTES;
}

/* ---- setup.c ---- */
void *ffv_setup_thread(void *router);

/* ---- outgoing.c: what our containers want ---- */
void ffv_outgoing_wanted(struct ffv_proxy *proxy, const uint8_t gid[16], uint32_t qpn);
/* Sends what is to be sent of it, about one chunk. True: there is more. */
bool ffv_outgoing_send(struct ffv_pair *pair, struct ffv_link_channel *channel);
void ffv_outgoing_frame(struct ffv_pair *pair, const struct ffv_frame *frame, const uint8_t *payload);
/* Takes what has come of the bytes of a READ; pair NULL: drops it. */
void ffv_outgoing_body(struct ffv_pair *pair, struct ffv_link_channel *channel, const struct ffv_frame *frame);
/* The link is lost: what an unreliable connection has under way is lost, too, and done. */
void ffv_outgoing_let_go(struct ffv_pair *pair, struct ffv_link_channel *channel);
/* Ends what has waited for the other host longer than its queue pair's timeout and retry_cnt say. */
void ffv_outgoing_lose_patience(struct ffv_pair *pair, struct ffv_link_channel *channel, uint64_t now_ns);
/* The far side is lost: what waits ends with RETRY_EXC_ERR. */
void ffv_outgoing_fail(struct ffv_pair *pair, uint8_t status);
/* Whether it has to do with a context that came after the one of whose end the other host told when it had received so much. */
bool ffv_outgoing_is_later(const struct ffv_pair *pair, uint64_t received);
/* Whether there is a work request that was not answered. */
bool ffv_outgoing_is_busy(const struct ffv_pair *pair);
/* The container's queue pair, looked up again after a rest; NULL: it is gone, or there is no memory. */
struct ffv_qp_ref *ffv_outgoing_ref(struct ffv_pair *pair);
/* Executes the container's queue: it finds the answers. */
void ffv_outgoing_run(struct ffv_pair *pair);
bool ffv_outgoing_answer(struct ffv_pair *pair, uint64_t position, uint64_t tail, struct ffv_answer *out);
void ffv_datagram_send(struct ffv_proxy *proxy);

/* What stands opposite a queue pair of that type. */
static inline uint32_t ffv_opposite_type(uint32_t type)
{
	return type == FFV_QPT_XRC_SEND ? FFV_QPT_XRC_RECV : type == FFV_QPT_XRC_RECV ? FFV_QPT_XRC_SEND : type;
}

/* ---- incoming.c: what other hosts want of our containers; false = the frame breaks a rule ---- */
bool ffv_incoming_frame(struct ffv_link_channel *channel, struct ffv_router *router, const struct ffv_frame *frame,
			const uint8_t *payload);
void ffv_incoming_go_on(struct ffv_pair *pair);
/* True: there were completions. */
bool ffv_incoming_poll(struct ffv_proxy *proxy);
/* XRC: the context of the queue that is named is attached, or not there. */
void ffv_incoming_attached(struct ffv_pair *pair, const struct ffv_job *job);
/* Drops what is there; the requester is told. */
void ffv_incoming_close(struct ffv_pair *pair, uint8_t status);
void ffv_incoming_free(struct ffv_pair *pair);
/* There is a window afterwards. False: no memory. */
bool ffv_incoming_begin(struct ffv_pair *pair);
/* The window goes, if nothing is under way in it. */
void ffv_incoming_rest(struct ffv_pair *pair);
bool ffv_incoming_send(struct ffv_pair *pair, struct ffv_link_channel *channel);
/* Tells the requester how often its work requests had to wait, if that has changed. */
void ffv_incoming_report(struct ffv_pair *pair);
/* The same, but not often. */
void ffv_incoming_report_later(struct ffv_pair *pair);
/* The proxy of the context of another host that owns `qpn`, made if need be; NULL if another host speaks for it. */
struct ffv_proxy *ffv_proxy_for(struct ffv_router *router, struct ffv_link_channel *channel, const uint8_t gid[16],
				uint32_t qpn);

/* The number that the other router gave it is of another pair now, or of none. */
void ffv_incoming_unname(struct ffv_pair *pair, struct ffv_link_channel *channel);
/* The pair that a request is for, NULL if that is not open (any more). */
struct ffv_pair *ffv_incoming_pair(const struct ffv_link_channel *channel, const struct ffv_frame *frame);
static inline struct ffv_entry *ffv_incoming_entry(struct ffv_incoming *in, uint32_t count)
{
	return &in->window->entries[count % FFV_WINDOW];
}

/* ---- reads.c: READs of other hosts ---- */
/* Posts pieces of it, as far as there is room. */
int ffv_read_post(struct ffv_pair *pair, struct ffv_entry *entry, uint32_t count);
/* Its next piece is done. True: all of it. */
bool ffv_read_answer(struct ffv_pair *pair, struct ffv_entry *entry);
/* The executor is at a piece without a buffer. */
void ffv_read_grant(struct ffv_pair *pair, struct ffv_link_channel *channel, const struct ffv_entry *entry, uint64_t position);
/* The other router's device cannot fetch what was granted: it goes in frames. */
void ffv_read_refused(struct ffv_pair *pair);
/* Of incoming.c: posts `length` bytes of an entry from `offset` on, whose memory is `bytes`. */
int ffv_incoming_post(struct ffv_pair *pair, struct ffv_entry *entry, uint32_t count, struct ffv_posted posted);

/* ---- large.c: what of it comes in pieces; false = the frame breaks a rule ---- */
/* Hooks, [lock] held. */
int ffv_incoming_bytes(struct ffv_pair *pair, uint64_t position, uint32_t from, struct ffv_list *out);
void ffv_incoming_more(struct ffv_pair *pair, uint64_t position, uint32_t from);
/* Hook, without it. */
uint32_t ffv_incoming_fetch(struct ffv_proxy *proxy, uint32_t qpn, uint64_t position, uint32_t from, const struct iovec *to,
			    int count);
/* A DATA with its payload; one whose payload is received piece by piece, of which this takes what is there. */
bool ffv_incoming_data(struct ffv_link_channel *channel, const struct ffv_frame *frame, const uint8_t *payload);
bool ffv_incoming_body(struct ffv_link_channel *channel, const struct ffv_frame *frame);
/* Bytes of what is done already: an unreliable connection loses the rest of a message, and a container can have one end early. */
bool ffv_incoming_is_late(const struct ffv_incoming *in, const struct ffv_frame *frame);
void ffv_incoming_credit(struct ffv_pair *pair);
/* Takes them from the executor's sight, to be freed when it is not at work. */
struct ffv_chunk *ffv_incoming_take_chunks_locked(struct ffv_incoming *in);
void ffv_incoming_free_chunks(struct ffv_chunk *chunks);

/* ---- grants.c: what of our containers' memory others may write; see there ---- */
/* What is to be granted, of the work request that the executor is at, and what of it is. */
struct ffv_granting {
	uint64_t position;            /* of a READ's piece: on the proxy's queue pair */
	uint32_t from, most;          /* bytes of it */
	uint32_t offset;              /* of its first byte in the message */
	uint32_t length;              /* granted; 0 = none */
	uint32_t gap;                 /* then: no address leads to so many, behind which there may be some that can be */
	uint32_t count;
	struct ffv_frame_piece pieces[FFV_MOST_PIECES];
	uint64_t carrier;             /* our end's name */
};
/* False: nothing is to be said now. */
bool ffv_grant_make(struct ffv_pair *pair, struct ffv_link_channel *channel, struct ffv_granting *what);
/* Whether there is one for the READ's piece at that position. */
bool ffv_grant_is_out(const struct ffv_pair *pair, uint64_t position);
/* Whether real devices move anything over the channel now. */
bool ffv_grant_is_possible(const struct ffv_link_channel *channel);
/* Hook, without [lock]: the executor has found where the next bytes go. */
void ffv_grant_offer(const struct ffv_proxy *proxy, uint32_t qpn, uint32_t from, const struct ffv_rest *rest);
/* Hook, [lock] held: how many bytes from `from` on are in `to` already. */
uint32_t ffv_grant_fetch_locked(struct ffv_pair *pair, uint32_t from, const struct iovec *to, int count);
/* False: the frame breaks a rule. */
bool ffv_grant_placed(struct ffv_link_channel *channel, const struct ffv_frame *frame);
/* It is over, whatever of it was used. */
void ffv_grant_end(struct ffv_pair *pair);
/* Takes back what has been out for too long. */
void ffv_grant_tick(struct ffv_router *router, struct ffv_link_channel *channel);

/* ---- transfers.c: what real queue pairs move for our containers; see there ---- */
/* A CREDIT says where bytes of the LARGE that has it may be written. */
void ffv_transfer_granted(struct ffv_pair *pair, const struct ffv_frame *frame, const uint8_t *payload);
/* The same of a READ: where they may be read. What cannot be is refused. */
void ffv_transfer_fetch(struct ffv_pair *pair, uint64_t position, const struct ffv_frame *frame, const uint8_t *payload);
/* True: the next bytes of the LARGE go so, now or later; false: they are to be streamed, at most *most of them. */
bool ffv_transfer_carries(struct ffv_pair *pair, struct ffv_link_channel *channel, const struct ffv_exec_env *env,
			  uint32_t *most);
/* What is granted does not count any more. */
void ffv_transfer_forget(struct ffv_pair *pair);
void ffv_transfer_unpark(struct ffv_pair *pair, struct ffv_link_channel *channel);
/* Looks at what is under way. */
void ffv_transfer_poll(struct ffv_router *router, struct ffv_link_channel *channel);
/* The proxy is to be closed: nothing of its peers' memory is registered any more. */
void ffv_transfer_leave(struct ffv_proxy *proxy);

/* ---- answers.c ---- */
struct ffv_frame ffv_answer_to(const struct ffv_pair *pair, const struct ffv_frame *request, uint8_t kind, uint8_t status);
/* Behind what is still to be sent of earlier answers. */
void ffv_answer(struct ffv_pair *pair, const struct ffv_frame *frame);
/* The same with bytes, which it takes over. */
void ffv_answer_queue(struct ffv_pair *pair, const struct ffv_frame *frame, uint8_t *bytes, uint32_t length);
/* Before anything else. */
void ffv_answer_now(struct ffv_link_channel *channel, const struct ffv_frame *frame);

/* ---- calls.c ---- */
void ffv_call_frame(struct ffv_router *router, struct ffv_link_channel *channel, const struct ffv_frame *frame,
		    const uint8_t *payload);
/* A container has said something, or hung up. */
void ffv_call_read(struct ffv_router *router, struct ffv_call *call);
/* What ffv_router_call has queued. */
void ffv_calls_begin(struct ffv_router *router);
/* Whether it answers a call of ours to that address: who asks has looked up where that is. */
bool ffv_call_is_to(const struct ffv_router *router, const struct ffv_link_channel *channel, const struct ffv_frame *frame,
		    const uint8_t gid[16]);
/* It is not to be dealt with: the conversation ends, at both ends for that reason. */
void ffv_call_refuse(struct ffv_router *router, struct ffv_link_channel *channel, const struct ffv_frame *frame, int error);
void ffv_calls_free_ended(struct ffv_router *router);
/* All those over the channel; NULL: of the router. */
void ffv_calls_end(struct ffv_router *router, const struct ffv_link_channel *channel);

/* ---- rate.c ---- */
/* Whether payload may be sent now; else rate_wait_ms says when to ask again. */
bool ffv_rate_allows(struct ffv_router *router);
void ffv_rate_spend(struct ffv_router *router, uint64_t bytes);

/* ---- segment.c ---- */
extern const uint8_t ffv_bridge_gid[16];
void ffv_segment_frame(struct ffv_router *router, struct ffv_link_channel *channel, const struct ffv_frame *frame,
		       const uint8_t *payload);
/* Tells other hosts what is wanted here, if that was asked for. */
void ffv_segment_serve(struct ffv_router *router);
void ffv_segment_announce_locked(struct ffv_router *router);
void ffv_segment_send(struct ffv_proxy *bridge);
/* Hook: a container has broadcast something. */
void ffv_segment_hook(void *bridge, const struct ffv_frame_shm *frame, const uint8_t *bytes);

/* ---- datagrams.c ---- */
void ffv_datagram_frame(struct ffv_router *router, struct ffv_link_channel *channel, const struct ffv_frame *frame,
			const uint8_t *payload);
void ffv_datagram_completed(struct ffv_pair *pair, const struct ffv_wc *wc);
/* The setup thread is done with the pair (job NULL) or with attaching an address: what waited goes, or is lost. */
void ffv_datagram_attached(struct ffv_pair *pair, const struct ffv_job *job);

#endif

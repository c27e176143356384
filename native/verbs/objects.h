/* SPDX-License-Identifier: MIT
 *
 * The process-private side of the verbs objects. What peers need of them stands in the arena (shm/layout.h).
 *
 * Locks, in the order in which they are taken:
 *   context.service   held by the service thread while it works for the context, and by whoever destroys what the
 *                     service thread may be using
 *   context.lock      tables, counts, lists of the context
 *   qp.lock           state changes and the link of a QP
 *   qp.flush          completing receives as flushed
 *   sq.lock, cq.lock, rq.lock   spinlocks of the data path (a poll that reports a receive of a shared queue locks that)
 */
#ifndef FFV_VERBS_OBJECTS_H
#define FFV_VERBS_OBJECTS_H

#include <pthread.h>
#include <stdbool.h>

#include <ffverbs/ffv.h>

#include "base/spinlock.h"
#include "engine/proxy.h"
#include "shm/attach.h"
#include "shm/loop.h"
#include "shm/nodedir.h"
#include "verbs/heap.h"

struct ffv_peer;

struct ffv_async_queue {
	pthread_mutex_t lock;
	pthread_cond_t acked;
	int fd;                       /* eventfd, semaphore */
	struct ffv_async_node *first;
	struct ffv_async_node *last;
};

/* The port to the Ethernet segment (port.h). */
struct ffv_port {
	_Atomic uint32_t joined;
	pthread_mutex_t joining;
	pthread_mutex_t sending;      /* who writes to the outbox */
	uint32_t outbox_line;
	struct ffv_outbox_shm *outbox;
	uint64_t outbox_position;     /* sending: our own note of outbox->tail */
	uint64_t own_cursor;          /* service */
	struct ffv_group *groups[64]; /* service; by bit of wanted_groups */
	uint32_t num_groups, num_members; /* service */
	struct ffv_flow *flows[4];    /* service; by enum ffv_flow_attr_type */
	uint32_t num_flows;           /* service */
	uint64_t num_packets;         /* service: numbers raw packets as they come */
};

struct ffv_context {
	struct ffv_view view;         /* of ourselves; view.face = this */
	struct ffv_context *next;     /* process-wide list */
	uint32_t fork_generation;     /* of the process that opened it */
	struct ffv_nodedir *dir;
	const struct ffv_proxy_hooks *proxy; /* of a proxy: what its owner provides; else NULL */
	uint8_t gid[16];
	uint8_t link_local_gid[16];
	uint32_t block;
	int arena_fd;
	int listen_fd;
	int doorbell_fd;
	struct ffv_loop_source *listen_source;
	struct ffv_loop_source *doorbell_source;
	struct ffv_loop_source *timer_source;
	struct ffv_heap heap;
	pthread_mutex_t service;
	pthread_mutex_t lock;
	pthread_cond_t attached;      /* a peer finished (or failed) attaching */
	struct ffv_peer *peers;       /* lock */
	struct ffv_peer *gone_peers;  /* lock: dead, waiting to be freed */
	struct ffv_async_queue async;
	struct ffv_port port;
	uint32_t num_pd, num_mr, num_mw, num_ah, num_channels, num_dm, num_td, num_foreign_pd, num_counters, num_tables; /* lock */
	_Atomic uint64_t dm_bytes;    /* of device memory in use */
	uint32_t next_pd;
	uint32_t imports;             /* the process's lock (process.c): opens besides the first */
	struct ffv_peer *exporter;    /* attached: the context of another process that this one was imported from */
	struct ffv_pd *pds;           /* lock: all, also those that are only imported any more */
	struct ffv_dm *dms;           /* lock */
	struct ffv_mr_private **regions; /* lock: by index of the key */
	uint32_t next_qp, next_cq, next_srq, next_key;
	_Atomic uint32_t publications; /* of keys of regions: FFV_KEY_STAMP */
	uint8_t *key_used;            /* lock: by index */
	struct ffv_extent *extents;   /* by index; what view.extents shows */
	uint8_t *qp_used;             /* lock: by index */
	_Atomic(struct ffv_qp *) *qps; /* by index of its QPN; a whole one is published with release, [qp-table] */
	struct ffv_cq **cqs;
	_Atomic(struct ffv_srq *) *srqs; /* lock; a poller finds one under the lock of the SRQ's CQ */
	struct ffv_xrcd *xrcds;       /* lock */
	uint32_t *free_qp_lines;      /* memory that has held QPs and only will hold QPs: its generation goes on */
	uint32_t num_free_qp_lines;
	uint32_t no_rq_line;          /* lock: of a proxy, the ring that its queue pairs have for receives that nobody posts */
	struct ffv_qp *waiting;       /* service: QPs with a timer */
	struct ffv_cq *held;          /* service: moderated CQs whose event waits for its time */
	bool accept_paused;           /* service: there was no descriptor for another peer */
	bool retry_flush;             /* service: some flush was turned away */
	bool retry_srq;               /* service: some shared receive queue has to be served again */
	bool watch_holes;             /* service: some CQ has unpublished positions and sleepers */
	bool closing;                 /* service */
	bool silent;                  /* of a proxy: it closes without a farewell, for whom it stands in for has died */
	struct ffv_retired *retired;  /* lock: blocks that executions may still be using */
};

struct ffv_pd {
	struct ffv_context *ctx;
	uint32_t id;
	uint32_t users;               /* context.lock */
	struct ffv_pd *next;          /* context.lock */
	uint32_t imports;             /* context.lock: not ended */
	bool gone;                    /* context.lock: deallocated, or of another process: lives on for its imports */
	bool is_foreign;              /* of another process, where it has the number foreign_id */
	uint32_t foreign_id;
	/* Of a parent domain; NULL else. */
	struct ffv_pd *base;
	struct ffv_td *td;
	void *(*alloc)(struct ffv_pd *pd, void *pd_context, size_t size, size_t alignment, uint64_t resource_type);
	void (*free)(struct ffv_pd *pd, void *pd_context, void *ptr, uint64_t resource_type);
	void *pd_context;
};

struct ffv_td {
	struct ffv_context *ctx;
	uint32_t users;               /* context.lock */
};

struct ffv_comp_channel {
	struct ffv_context *ctx;
	int fd;
	struct ffv_channel_shm *shm;
	uint32_t shm_line;
	pthread_mutex_t lock;         /* before the context's */
	uint32_t num_cqs;             /* lock */
	uint32_t next;                /* lock: the id from which on to look for the next event, so that all get their turn */
};

/* One of the rings of a queue: it has the positions from ref.first to the next ring's. */
struct ffv_cq_ring {
	struct ffv_cq_ref ref;
	uint32_t ring_line, ext_line;
	struct ffv_cq_ring *next;
};

struct ffv_cq {
	struct ffv_context *ctx;
	struct ffv_cq_ref ref;        /* lock, but for shm and id: the ring that head is in */
	uint64_t ring_end;            /* lock: where the next ring begins, UINT64_MAX = there is none */
	struct ffv_spinlock lock;
	uint64_t head;                /* lock */
	uint32_t empty_polls;         /* lock */
	uint32_t num_holes;           /* lock: positions passed over (ref.shm->holes) */
	_Atomic uint32_t watched;     /* armed while a claim was unpublished: the service thread looks after it */
	uint64_t watch_position;      /* lock: the first one not passed over; UINT64_MAX = all of them are */
	uint64_t stuck_position;      /* lock: head when it was */
	uint64_t stuck_since_ns;      /* lock: first seen unpublished with later ones published, 0 = not */
	uint64_t looked_ns;           /* lock: when the producers' line was looked at last */
	uint32_t holes_reported;      /* lock: bit i: holes[i] was published late and reported, or never will be */
	struct ffv_comp_channel *channel;
	void *cq_context;
	uint32_t users;               /* context.lock */
	uint32_t cqe;
	uint32_t shm_line;
	struct ffv_cq_ring *rings;    /* lock: oldest first */
	struct ffv_cq_ex *ex;         /* NULL: an ordinary queue */
	uint64_t moderate_ns;         /* service: how long an event may be held back, 0 = until enough completions came */
	uint64_t held_until_ns;       /* service: it is in context.held until then, 0 = not */
	uint64_t held_armed_at;       /* service: which arming that is about */
	struct ffv_cq *held_next;     /* service */
	bool overrun_reported;        /* service */
	uint32_t events_delivered;    /* channel lock */
	uint32_t events_acked;        /* channel lock */
	uint32_t async_outstanding;   /* async lock */
};

/* What an extended queue has in addition; [cq-batch] poller is whose the rest is. */
struct ffv_cq_ex {
	_Atomic uintptr_t poller;     /* thread between ffv_start_poll and ffv_end_poll, 0 = none */
	uint64_t wc_flags;
	uint64_t wallclock_offset_ns; /* from the device's clock, as of ffv_start_poll */
	bool single_threaded;
	struct ffv_pd *pd;            /* NULL = none given */
	struct ffv_wc_ex polled;
};
/* A slot is free, or its work request is posted and has not been reported complete, perhaps so long that later positions
 * have passed it over. */
enum { FFV_SLOT_FREE = 0, FFV_SLOT_BUSY = 1, FFV_SLOT_LATE = 2 };

/* The owner's side of a receive queue, a QP's own or shared. */
struct ffv_rq {
	struct ffv_spinlock lock;
	uint64_t posted;              /* lock: positions used, void ones included */
	uint64_t accepted;            /* lock: work requests posted */
	_Atomic uint64_t reported;    /* work requests whose completion was polled (or dropped with the QP) */
	uint32_t max_wr;              /* lock */
	uint32_t max_sge;
	/* Of a shared queue these change when it is resized: its owner reads them under the lock, or the service lock. */
	struct ffv_rq_ref ref;
	struct ffv_pd *pd;            /* whose allocators give the private memory; NULL: the default */
	uint32_t resource_type;       /* enum ffv_resource_type: whose that memory is */
	uint64_t *wr_id;              /* by index */
	_Atomic uint8_t *busy;        /* by index: FFV_SLOT_* */
	bool has_takers;              /* several: work requests come back in any order */
	uint64_t *late;               /* of such: by index, the position of one that was passed over */
	uint32_t ring_line;
};

struct ffv_xrcd {
	struct ffv_context *ctx;
	struct ffv_xrcd *next;        /* context.lock */
	struct ffv_xrc_domain domain;
	int fd;                       /* a description of the file of its own, whose lock says that the domain exists; -1 */
	uint32_t users;               /* context.lock */
};

/* A slot of a tag: free, waiting for a message, or (rendezvous) for its data, which the owner fetches. */
enum { FFV_TM_FREE = 0, FFV_TM_POSTED = 1, FFV_TM_FETCHING = 2 };

/* The owner's side of a queue that matches tags. */
struct ffv_tm {
	struct ffv_spinlock lock;
	uint32_t num_tags;
	uint32_t max_ops;
	uint32_t order;               /* lock: tags added */
	uint32_t handled;             /* lock: unexpected messages that the application has reported as handled */
	bool in_doubt;                /* lock: a sender died while it counted one; the next SYNC says what is right */
	uint32_t tag_line;
	uint64_t tag_bytes;
	struct ffv_tag_shm *tags;
	struct ffv_sge_shm *sges;     /* max_sge for each */
	uint64_t *recv_wr_id;         /* lock: by slot */
	uint32_t *order_of;           /* lock: by slot */
	uint8_t *state;               /* lock: by slot, FFV_TM_* */
	uint64_t *op_wr_id;           /* lock: by slot of an operation whose completion is not polled */
	uint8_t *op_busy;             /* lock */
};

struct ffv_srq {
	struct ffv_context *ctx;
	struct ffv_pd *pd;
	struct ffv_xrcd *xrcd;        /* XRC */
	struct ffv_cq *cq;            /* XRC, tag matching: where its receives complete */
	struct ffv_tm *tm;            /* tag matching */
	uint32_t type;
	struct ffv_srq_shm *shm;
	struct ffv_rq rq;
	void *srq_context;
	uint32_t id;
	uint32_t shm_line;
	uint32_t users;               /* context.lock */
	_Atomic(struct ffv_qp *) first_user; /* the newest of its queue pairs; [srq-users] */
	struct ffv_qp *turn;          /* service: who is served next of those that wait; NULL = the first */
	uint32_t async_outstanding;   /* async lock */
};

/* What a connected QP knows of its peer's QP. Immutable once published; replaced, never changed. */
struct ffv_link {
	struct ffv_peer *peer;        /* NULL: the own context */
	struct ffv_qp_ref ref;
	struct ffv_link *older;       /* kept until the QP goes: a run may still use it */
};

/* What only a program's queue pairs have: what was asked for, and may be asked back. */
struct ffv_qp_asked {
	struct ffv_qp_attr attr;      /* qp.lock: as set by modify */
	struct ffv_qp_init_attr init_attr;
	struct ffv_comp_cntr *counters[FFV_COUNTED_OPS]; /* qp.lock */
};

struct ffv_qp {
	/* posting: one line's worth first */
	struct ffv_context *ctx;
	struct ffv_qp_ref ref;
	_Atomic(struct ffv_link *) link;
	struct ffv_spinlock sq_lock;
	uint32_t max_send_wr;
	uint32_t max_send_sge;
	uint32_t max_inline;
	uint32_t type;
	bool sq_sig_all;
	_Atomic uint8_t runs;         /* of a proxy's: a thread of ours executes it (post.c) */
	uint64_t sq_posted;           /* sq_lock */
	_Atomic uint64_t sq_completed;
	uint64_t *sq_wr_id;           /* of a proxy's: lent by its owner */
	struct ffv_rq *own_rq;        /* ffv_no_rq: receives through a shared queue, or nothing */
	struct ffv_srq *srq;
	struct ffv_qp *srq_next;      /* service or context.lock, [srq-users] */
	struct ffv_qp *srq_previous;  /* context.lock */
	struct ffv_pd *pd;            /* NULL: XRC_RECV */
	struct ffv_xrcd *xrcd;        /* XRC_RECV */
	struct ffv_cq *send_cq;       /* NULL: XRC_RECV */
	struct ffv_cq *recv_cq;       /* NULL: XRC */
	struct ffv_qp_batch *batch;   /* NULL: without extended posting */
	pthread_mutex_t flush;        /* who completes receives as flushed */
	pthread_mutex_t lock;
	struct ffv_qp_asked *asked;   /* NULL: a proxy's */
	uint32_t shm_line, sq_line;
	uint32_t wanted_qpn;          /* of a proxy's: the number to have; 0 = any */
	uint32_t stage_line;          /* exec_lock: our own note, as peers can write to the one in the arena; 0 = none */
	uint32_t async_outstanding;   /* async lock */
	bool last_wqe_raised;         /* service */
	bool blocks_own_multicast;    /* its datagrams to a group it is in do not come back to it */
	bool on_timer;                /* service */
	_Atomic bool tell_drained;    /* an event is owed once the send queue is drained */
	uint32_t num_groups;          /* service: multicast groups that it is in */
	uint32_t num_flows;           /* service: flows that lead to it */
	struct ffv_wq *wq;            /* the work queue that it is the whole of; NULL = none */
	struct ffv_rss *rss;          /* spreads what it receives over work queues; NULL = receives itself */
	uint64_t last_packet;         /* service: number of the last raw packet that it was given */
	struct ffv_qp *timer_next;    /* service */
};

_Static_assert(sizeof(struct ffv_qp) <= 512, "what a proxy's queue pair takes of a router's memory");

struct ffv_buf {
	struct ffv_pd *pd;
	void *memory;
	uint64_t length_bytes;
	uint32_t users;               /* context.lock: regions */
};

struct ffv_comp_cntr {
	struct ffv_context *ctx;
	struct ffv_counter_shm *shm;
	uint32_t line;
	uint32_t users;               /* context.lock: operations of queue pairs */
};

struct ffv_ah {
	struct ffv_pd *pd;
	struct ffv_ah_attr attr;
	uint8_t dgid[16];
};

struct ffv_mw {
	struct ffv_pd *pd;
	uint32_t index;
	uint32_t type;
	uint32_t rkey;
};

struct ffv_dm {
	struct ffv_context *ctx;
	uint32_t fork_generation;     /* of the process that allocated it */
	struct ffv_dm *next;          /* context.lock */
	uint8_t *memory;
	uint64_t length_bytes;
	uint32_t handle;
	uint32_t users;               /* context.lock: regions */
	uint32_t imports;             /* context.lock: not ended */
	bool gone;                    /* context.lock: freed, its memory is there for its imports */
	struct ffv_dm *imported;      /* this is an import of that one */
	void *mapping;                /* of another process's memory, from its mirror; memory is inside */
	uint64_t mapping_bytes;
};

/* A context's private half of ffv_mr: the public struct first. */
struct ffv_mr_private {
	struct ffv_mr mr;
	uint32_t index;
	bool allocated;               /* by the engine */
	bool pinned;
	uint32_t windows;             /* context.lock: bound to it */
};

/* What a queue pair has that posts no receives of its own: a completion that names one is an invention. */
extern struct ffv_rq ffv_no_rq;

/* False: it receives through a shared queue, its own or (XRC) such as requests name; or it is a proxy's. */
static inline bool ffv_qp_has_own_rq(const struct ffv_qp *qp)
{
	return qp->own_rq->ring_line != 0;
}

static inline struct ffv_rq *ffv_qp_rq(struct ffv_qp *qp)
{
	return qp->srq ? &qp->srq->rq : qp->own_rq;
}

#endif

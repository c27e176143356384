/* SPDX-License-Identifier: MIT
 *
 * The arena: what stands in the shared-memory file of a context. Lives in shared memory (suffix _shm); read and written
 * by the owner and by every attached peer.
 *
 * Rules of the layout:
 *  - fixed-width integers and atomics of them only; no pointers, bools or enums; places are given in lines (64 bytes)
 *    from the start of the arena.
 *  - positions are free-running 64-bit counts (bit 62 and 63 are flags where said), an index is position & mask.
 *  - a cache line has one writer at a time; the comment before each line says who.
 *  - nothing in here is trusted: whoever reads a value that another process can write copies it, checks it, then uses it.
 *
 * The arena is one sparse file of FFV_ARENA_BYTES, sealed against shrinking and growing, so that offsets never move and
 * a peer can never be made to fault by truncation (docs/decisions/0005).
 */
#ifndef FFV_SHM_LAYOUT_H
#define FFV_SHM_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "base/atomics.h"

#define FFV_ARENA_MAGIC 0x3076666261766666ull /* "ffvabfv0" as bytes */
#define FFV_LAYOUT_VERSION 1u
#define FFV_ARENA_BYTES (1ull << 34)
#define FFV_ARENA_LINES (FFV_ARENA_BYTES / FFV_LINE_BYTES)

#define FFV_MAX_THREADS 256u  /* threads of one process that may execute at once */
#define FFV_MAX_QP 16384u
#define FFV_MAX_CQ 16384u
#define FFV_MAX_SRQ 4096u
#define FFV_MAX_KEYS 262144u
#define FFV_MAX_PD 65536u
#define FFV_MAX_DM 1024u
#define FFV_MAX_SGE 32u
#define FFV_MAX_WR 32768u
#define FFV_MAX_CQE 4194303u
#define FFV_MAX_INLINE 1024u
#define FFV_MAX_MESSAGE (1ull << 31)
#define FFV_QPN_BLOCK FFV_MAX_QP /* QP numbers a context owns: FFV_QPN_BLOCK * block ... */
#define FFV_QPN_BLOCKS (1u << 10)
/* Numbers of shared receive queues (24 bits): FFV_MAX_SRQ * block + id, for XRC requests name them across contexts. */
#define FFV_SRQN(block, id) ((block) * FFV_MAX_SRQ + (id))
#define FFV_NONE UINT32_MAX

/* ---- a thread that executes: its epoch and the journal of what it is taking --------------------------------------
 * Written by that thread only; read by deregistration (epoch) and by whoever repairs after its death (journal). */
struct ffv_thread_shm {
	_Atomic uint64_t epoch;       /* odd while executing; [exec-epoch] */
	_Atomic uint64_t claim_ctx;   /* context id of the other arena in which completions are being written, 0 = none */
	_Atomic uint32_t claim_cq;
	_Atomic uint32_t claim_count;
	_Atomic uint64_t claim_first;
	/* Between which queue pairs it executes (FFV_PARTY), 0 = not known yet; written before the epoch turns odd. */
	_Atomic uint64_t requester;
	_Atomic uint64_t responder;
	uint64_t pad[10];
};
#define FFV_PARTY(ctx_id, qpn) (((uint64_t)(uint32_t)(ctx_id) << 32) | (qpn))
/* In place of the requester's number, of what no thread stands in (verbs/hold.h): it brings what READs of the other party
 * ask for, or is about anything else. */
#define FFV_HOLD_FILLS (UINT32_MAX - 1u)
#define FFV_HOLD_USES UINT32_MAX
_Static_assert(sizeof(struct ffv_thread_shm) == 2 * FFV_LINE_BYTES, "two lines a thread");

/* ---- keys: local and remote keys of memory regions and windows ---------------------------------------------------
 * Written by the owner; `key` last with release, zeroed first on revocation; [key-publish]. */
enum { FFV_KEY_MR = 1, FFV_KEY_MW1 = 2, FFV_KEY_MW2 = 3 };

struct ffv_key_shm {
	_Atomic uint32_t key;         /* 0 = no such key */
	uint32_t pd;
	uint32_t access;
	uint32_t kind;
	uint64_t iova;                /* first address in terms of the key */
	uint64_t length_bytes;
	uint64_t va;                  /* first address in the owner's address space */
	uint64_t mirror_first;        /* [first, end) of it can be mapped from the mirror, in owner addresses */
	uint64_t mirror_end;
	uint32_t qpn;                 /* type 2 windows: bound to this QP; regions: FFV_KEY_STAMP */
	uint32_t parent_index;        /* windows: the region's index */
};
_Static_assert(sizeof(struct ffv_key_shm) == FFV_LINE_BYTES, "a key is a line");

/* Counts what a context has published in its table: who finds the same count finds the same memory, held all the while. */
#define FFV_KEY_STAMP(entry) ((entry)->qpn)

/* key = random bits (6) | index (18) | tag (8) */
#define FFV_KEY_INDEX(key) (((key) >> 8) & (FFV_MAX_KEYS - 1))

/* ---- receive queues (of a QP or shared) --------------------------------------------------------------------------- */

struct ffv_rq_shm {
	/* Line of the owner's posting threads. */
	FFV_LINE_ALIGNED _Atomic uint64_t tail; /* posted */
	_Atomic uint32_t waiter;      /* a sender waits for a receive work request */
	/* Line of whoever takes: the executor that holds the peer's send queue (RC, UC), or any (shared, UD) by CAS. */
	FFV_LINE_ALIGNED _Atomic uint64_t head;
	_Atomic uint64_t cached_tail; /* a tail seen before, so that the owner's line is read once in a lap */
	/* Written by the owner at creation; limit, and the ring of a shared queue, at modify. */
	FFV_LINE_ALIGNED union {
		struct { uint32_t ring_line; uint32_t index_mask; };
		_Atomic uint64_t geometry;  /* the two as one, for whoever may meet a resize; [rq-resize] */
	};
	uint32_t stride_bytes;        /* of an entry: 16 * max_sge rounded up to a power of two */
	uint32_t max_sge;
	_Atomic uint32_t limit;       /* shared: event when fewer remain, 0 = not armed */
	_Atomic uint32_t max_wr;
};
_Static_assert(offsetof(struct ffv_rq_shm, index_mask) == offsetof(struct ffv_rq_shm, geometry) + 4, "one word");

/* One scatter entry. A list shorter than max_sge ends with FFV_SGE_END as address and length 0; an entry that is to be
 * passed over has FFV_SGE_VOID as its first address. */
struct ffv_sge_shm { uint64_t addr; uint32_t length; uint32_t lkey; };
#define FFV_SGE_END UINT64_MAX
#define FFV_SGE_VOID (UINT64_MAX - 1)

/* ---- completion queues ---------------------------------------------------------------------------------------------
 * A position is claimed by CAS on `tail`, the entry written, then published by storing position + 1 (low 32 bits) in
 * its sequence word with release; [cq-publish]. */

struct ffv_cqe_shm {
	_Atomic uint32_t sequence;
	uint32_t qpn_side;            /* QP number | FFV_CQE_RECV; 0 in a void entry (nothing to report) */
	uint32_t wqe_position;        /* low 32 bits of the work request's position in its queue */
	uint32_t byte_len;
	uint32_t imm_be;              /* or the invalidated rkey */
	uint32_t src_qp;
	uint8_t status;
	uint8_t opcode;
	uint8_t flags;
	uint8_t sl;
	uint32_t vendor_err;
};
_Static_assert(sizeof(struct ffv_cqe_shm) == FFV_LINE_BYTES / 2, "two completions a line");
#define FFV_CQE_RECV (1u << 31)
/* In `flags`: the receive work request is of the shared receive queue whose id stands in src_qp, which names the queue
 * itself because no queue pair does (XRC). */
#define FFV_CQE_SRQ 0x80u
/* In wqe_position, of an entry of a tag-matching queue (FFV_CQE_SRQ and an opcode FFV_WC_TM_*): the slot of the tag or of
 * the operation; in vendor_err the low half of the tag's order; in imm_be, if sl is not 0, how far the queue pair's send
 * queue is done with. None of these is reported. */

/* What an extended queue keeps of a completion beside its entry, at the same index of a ring of its own: ordinary queues
 * stay as small and as fast as they are. Whoever fills the entry fills this too, before publishing it. */
struct ffv_cqe_ext_shm {
	uint64_t timestamp_ns;        /* of the device's clock, when the completion was written */
	uint64_t tag;                 /* tag matching: what matched */
	uint32_t tag_priv;            /* tag matching: the sender's own word */
	uint32_t flow_tag;
	uint16_t cvlan_tci;
	uint16_t reserved[3];
};
_Static_assert(sizeof(struct ffv_cqe_ext_shm) == sizeof(struct ffv_cqe_shm), "the two rings grow alike");

/* Where a queue's ring is. It changes when the queue grows: which of the two descriptions holds stands in the tail, so
 * that each claim is in one ring. */
struct ffv_cq_ring_shm {
	_Atomic uint64_t first;       /* position from which on this ring is used */
	_Atomic uint32_t ring_line;
	_Atomic uint32_t ext_line;    /* of struct ffv_cqe_ext_shm; 0 = an ordinary queue */
	_Atomic uint32_t index_mask;
	uint32_t reserved;
};

#define FFV_CQ_HOLES 8u

struct ffv_cq_shm {
	/* Line of whoever completes. Bit 63: any completion signals; bit 62: a solicited one signals; bits 54 to 61: how
	 * often the ring was replaced, whose lowest bit says which of rings[] holds. */
	FFV_LINE_ALIGNED _Atomic uint64_t tail;
	_Atomic uint64_t cached_head;
	_Atomic uint32_t num_holes;   /* written by the owner, rarely: claims pass over the slots in holes[] */
	_Atomic uint32_t moderate_count; /* written by the owner: an event waits for so many completions; 0 = for none */
	_Atomic uint64_t armed_at;    /* moderated: the tail's position when it was armed last */
	_Atomic uint32_t held;        /* moderated: a completion has been there since, and the owner has been told */
	/* Line of the owner's polling threads. */
	FFV_LINE_ALIGNED _Atomic uint64_t head;
	_Atomic uint64_t holes[FFV_CQ_HOLES - 1]; /* positions claimed but not published while later ones were */
	/* Written by the owner at creation. */
	FFV_LINE_ALIGNED _Atomic uint32_t cqe; /* capacity granted; the slots beyond it are for holes and void entries */
	uint32_t channel_line;        /* struct ffv_channel_shm; 0 = completes without events */
	uint32_t ignores_overrun;     /* completions that find no room are dropped, and that is all */
	uint32_t generation;          /* counts creations of this id */
	_Atomic uint32_t overrun;     /* a completion was lost; the queue is dead. Not in the producers' line: pollers look */
	_Atomic uint32_t events_raised;
	_Atomic uint32_t events_owed; /* raised by who could not reach the channel: the owner's service thread signals */
	/* Written by the owner at creation and when the queue grows; [cq-ring] */
	FFV_LINE_ALIGNED struct ffv_cq_ring_shm rings[2];
};

/* Which queues of a completion channel may have events that are not delivered: a bit each by their ids, and a bit for each
 * word of those, so that the owner need not look through all. Set by whoever raises an event, after events_raised, from the
 * bottom up; cleared by the owner from the top down; [cq-ready]. */
#define FFV_READY_WORDS (FFV_MAX_CQ / 64u)
struct ffv_channel_shm {
	FFV_LINE_ALIGNED _Atomic uint64_t words[FFV_READY_WORDS / 64u];
	FFV_LINE_ALIGNED _Atomic uint64_t ready[FFV_READY_WORDS];
};

#define FFV_CQ_ARMED (1ull << 63)
#define FFV_CQ_ARMED_SOLICITED (1ull << 62)
#define FFV_CQ_RING_SHIFT 54
#define FFV_CQ_RING_MASK (0xffull << FFV_CQ_RING_SHIFT)
#define FFV_CQ_RING(tail) ((uint32_t)((tail) >> FFV_CQ_RING_SHIFT) & 0xffu)
#define FFV_CQ_POSITION(tail) ((tail) & ((1ull << FFV_CQ_RING_SHIFT) - 1))

/* ---- send work requests -------------------------------------------------------------------------------------------- */

struct ffv_wqe_rdma_shm { uint64_t remote_addr; uint32_t rkey; uint32_t pad; uint64_t compare_add; uint64_t swap; };
struct ffv_wqe_ud_shm { uint8_t dgid[16]; uint32_t qpn; uint32_t qkey; uint32_t flow_tclass; uint32_t sgid_hop; };

struct ffv_wqe_bind_shm { uint64_t addr; uint64_t length_bytes; uint32_t new_key; uint32_t region_key; uint32_t access;
			  uint32_t old_key; };

struct ffv_wqe_shm {
	uint8_t opcode;
	uint8_t flags;                /* enum ffv_send_flags; SIGNALED also where the queue signals all */
	uint8_t num_sge;
	uint8_t error;                /* a status found at posting time, 0 = none */
	uint32_t imm_be;
	uint32_t length_bytes;        /* of the message */
	uint32_t xrc_srqn;            /* XRC: number of the shared receive queue it goes to */
	union {
		struct ffv_wqe_rdma_shm rdma;
		struct ffv_wqe_ud_shm ud;
		struct ffv_wqe_bind_shm bind;
	};
	struct ffv_sge_shm sge[];     /* or inline bytes */
};
/* In `flags`: the engine's own, for a rendezvous; xrc_srqn is the slot of the tag that it is for. */
#define FFV_WQE_RENDEZVOUS 0x80u
_Static_assert(offsetof(struct ffv_wqe_shm, sge) == 48, "one gather entry or 16 inline bytes fit in the first line");

/* ---- XRC domains ---------------------------------------------------------------------------------------------------- */

/* What names a domain: the file that it is shared by, or (device 0) a random number. */
struct ffv_xrc_domain { uint64_t device; uint64_t inode; };

/* ---- queue pairs ---------------------------------------------------------------------------------------------------- */

/* Why a send queue stands still; set by the executor that left it so. */
enum {
	FFV_BLOCKED_NOT = 0,
	FFV_BLOCKED_RNR = 1,          /* no receive work request: posting one, or the timer, goes on */
	FFV_BLOCKED_PEER = 2,         /* peer unknown or not ready to receive: its RTR, or the timer, goes on */
	FFV_BLOCKED_RESPONDER = 3,    /* needs memory that only the responder's process reaches */
	FFV_BLOCKED_REQUESTER = 4,    /* staged data waits for the requester's process */
	FFV_BLOCKED_PACED = 6,        /* goes on when its time has come */
	FFV_BLOCKED_STREAM = 5,       /* of a proxy: the next bytes of the message have not come yet */
};

/* Queues that several senders take from: an entry is named before it is taken, so that it is not lost with its taker. */
enum { FFV_TAKEN_NOT = 0, FFV_TAKEN_MAYBE = 1, FFV_TAKEN_YES = 2 };

/* A completion counter. Added to by whoever completes, read and set by the owner. */
#define FFV_COUNTED_OPS 6u
struct ffv_counter_shm { FFV_LINE_ALIGNED _Atomic uint64_t completions; _Atomic uint64_t errors; };

struct ffv_qp_shm {
	/* Owner's configuration: read by all, written by the owner in modify and by an executor that finds an error
	 * (state only). What modify may change while others look is atomic; [qp-state] orders it. */
	FFV_LINE_ALIGNED _Atomic uint32_t state;
	_Atomic uint32_t generation;  /* odd while the QP exists, counts creations and destructions */
	uint32_t qpn;
	uint32_t type;
	uint32_t pd;
	_Atomic uint32_t access;
	_Atomic uint32_t dest_qpn;
	_Atomic uint32_t qkey;
	_Atomic uint64_t dgid[2];     /* the bytes of the GID in their order: ffv_qp_shm_dgid() */
	uint32_t send_cq;
	uint32_t recv_cq;
	_Atomic uint32_t rate_kbps;   /* 0 = not paced */
	_Atomic uint32_t counted;     /* operations that have a counter: 1 << index of counter_line */
	/* second line of configuration */
	FFV_LINE_ALIGNED uint32_t srq; /* FFV_NONE = own receive queue */
	uint32_t sq_ring_line;
	uint32_t sq_index_mask;
	uint32_t sq_stride_bytes;
	_Atomic uint32_t sq_psn;
	_Atomic uint32_t rq_psn;
	_Atomic uint32_t path_mtu_bytes;
	_Atomic uint8_t timeout;
	_Atomic uint8_t retry_cnt;
	_Atomic uint8_t rnr_retry;
	_Atomic uint8_t min_rnr_timer;
	_Atomic uint8_t max_rd_atomic;
	_Atomic uint8_t max_dest_rd_atomic;
	uint8_t sl;
	uint8_t sgid_index;
	uint32_t flow_tclass;
	uint32_t hop_limit;
	/* Line of the owner's posting threads. */
	FFV_LINE_ALIGNED _Atomic uint64_t sq_tail;
	/* Line of the executor: whoever holds exec_lock. The responder is not locked: whoever changes its state waits for
	 * the executions that may still believe the old one; [exec-epoch]. */
	FFV_LINE_ALIGNED _Atomic uint64_t exec_lock; /* see FFV_EXEC_* */
	_Atomic uint64_t sq_exec;     /* position executed up to */
	_Atomic uint64_t deadline_ns; /* of the timer that the requester's process runs while blocked */
	_Atomic uint32_t blocked;     /* FFV_BLOCKED_* */
	uint8_t rnr_left;
	uint8_t retry_left;
	uint8_t blocked_first;        /* counters above are valid for the work request that waits now */
	uint8_t rq_taken;             /* FFV_TAKEN_*: the peer's receive entry at taken_position */
	uint64_t taken_position;
	uint32_t progress_bytes;      /* of a message that goes in stages */
	uint32_t staged_bytes;        /* in the staging buffer now */
	/* Tag matching: what was decided about the message at the head of the queue. */
	uint8_t tag_taken;            /* FFV_TAKEN_*: the tag at tag_slot, whose state was tag_state */
	uint8_t tag_counted;          /* FFV_TAKEN_*: it was counted as unexpected */
	_Atomic uint8_t draining;     /* of a queue in SQD: the work request at its head had begun by then, and goes on */
	uint8_t reserved;
	uint32_t tag_slot;
	uint64_t tag_state;
	/* second line of the executor */
	FFV_LINE_ALIGNED _Atomic uint64_t messages_sent;
	_Atomic uint64_t bytes_sent;
	_Atomic uint64_t rnr_waits;
	_Atomic uint64_t retries;
	uint32_t stage_line;          /* staging buffer in the requester's arena, FFV_NONE = none; written by its owner */
	uint32_t stage_bytes;
	_Atomic uint32_t burst_bytes; /* of a paced queue; written by its owner */
	_Atomic uint64_t pace_ns;     /* when what was sent so far would have gone at that rate (engine/pace.c) */
	_Atomic uint64_t timer_ns;    /* when the owner looks at the deadline next, without being told; 0 = it does not; [timer] */
	/* Line for events: bits are set by whoever finds them, consumed by the owner's service thread. */
	FFV_LINE_ALIGNED _Atomic uint32_t events; /* 1 << enum ffv_event_type */
	_Atomic uint32_t last_status;
	uint32_t counter_line[FFV_COUNTED_OPS]; /* struct ffv_counter_shm; written by the owner before the bit in `counted` */
	struct ffv_rq_shm rq;
	/* The executor's: a receive list taken from a queue of several takers by a message that goes in stages. */
	FFV_LINE_ALIGNED uint32_t taken_num_sge;
	struct ffv_sge_shm taken_sge[FFV_MAX_SGE];
	/* XRC_RECV: its domain; written by the owner at creation. */
	FFV_LINE_ALIGNED struct ffv_xrc_domain xrcd;
};

/* exec_lock: bit 63 "look again before you leave", bits 0..15 thread slot + 1, bits 16..47 low half of the holder's
 * context id; 0 = free. */
#define FFV_EXEC_AGAIN (1ull << 63)
#define FFV_EXEC_HOLDER(ctx_id, slot) ((((uint64_t)(ctx_id) & 0xffffffffu) << 16) | ((uint64_t)(slot) + 1))
#define FFV_EXEC_CONTEXT(lock) ((uint32_t)((lock) >> 16))

/* ---- tags -----------------------------------------------------------------------------------------------------------
 *
 * A tag's state is its order (counts the tags added) and what it is. The executor takes an armed one by CAS. Whether a tag
 * counts, and whether a message is unexpected, is decided by one word, `phase`: unexpected messages so far (high half), and
 * the order up to which tags count (low half). Either changes it by CAS from what it has seen the other do; [tag-phase]. */

enum { FFV_TAG_FREE = 0, FFV_TAG_ARMED = 1, FFV_TAG_DISABLED = 2, FFV_TAG_TAKEN = 3, FFV_TAG_RENDEZVOUS = 4 };
#define FFV_TAG_STATE(order, what) ((uint64_t)(order) << 3 | (what))
#define FFV_TAG_ORDER(state) ((uint32_t)((state) >> 3))
#define FFV_TAG_IS(state, what) (((state) & 7) == (what))
#define FFV_TAG_PHASE(unexpected, order) ((uint64_t)(unexpected) << 32 | (uint32_t)(order))
#define FFV_MAX_TAGS 1024u
#define FFV_MAX_TAG_OPS 4096u
#define FFV_MAX_RENDEZVOUS_HEADER 64u

struct ffv_tag_shm {
	/* Written by the owner before the tag is armed. */
	FFV_LINE_ALIGNED _Atomic uint64_t state;
	uint64_t tag;
	uint64_t mask;
	uint32_t num_sge;
	/* Written by the executor that took it. */
	uint32_t qpn;                 /* at which the message arrived */
	uint64_t remote_addr;         /* rendezvous: where the sender's data is */
	uint32_t rkey;
	uint32_t length_bytes;
	uint64_t message_tag;
	uint32_t app_ctx_be;          /* the sender's own word */
	uint32_t reserved;
};
_Static_assert(sizeof(struct ffv_tag_shm) == FFV_LINE_BYTES, "a tag is a line");

struct ffv_srq_shm {
	struct ffv_rq_shm rq;
	/* Written by the owner at creation. */
	FFV_LINE_ALIGNED uint32_t id;
	uint32_t pd;
	uint32_t type;                /* enum ffv_srq_type */
	uint32_t cq;                  /* XRC: where its receives complete */
	struct ffv_xrc_domain xrcd;   /* XRC */
	uint32_t tag_line;            /* tag matching: num_tags struct ffv_tag_shm, then max_sge entries for each */
	uint32_t num_tags;
	FFV_LINE_ALIGNED _Atomic uint64_t phase;
};

/* ---- what a context puts on the Ethernet segment ---------------------------------------------------------------------
 * Multicast datagrams and raw packets go to everybody of the node directory who asked for them. The sender writes each
 * once into a ring of its own; every receiver reads it there, at its own pace. Nobody but the owner writes, so neither a
 * stopped nor a dead receiver holds anything up: who is too slow is lapped, and loses frames as on a wire
 * (docs/decisions/0013). Positions count bytes and are multiples of a line; a frame may wrap around; [outbox]. */
#define FFV_OUTBOX_BYTES (4u << 20)
#define FFV_FRAME_MAX_BYTES 9018u /* 9000, an Ethernet header and a VLAN tag */

enum { FFV_FRAME_MULTICAST = 1, FFV_FRAME_RAW = 2 };
enum { FFV_FRAME_SOLICITED = 1, FFV_FRAME_WITH_IMM = 2 };

/* Stands before the frame's bytes. What is of datagrams is 0 in raw packets. */
struct ffv_frame_shm {
	uint32_t length_bytes;
	uint8_t kind;
	uint8_t flags;
	uint8_t sl;
	uint8_t hop_limit;
	uint32_t imm_be;
	uint32_t src_qpn;
	uint32_t qkey;
	uint32_t flow_tclass;
	uint8_t sgid[16];
	uint8_t dgid[16];
	uint64_t pad;
};
_Static_assert(sizeof(struct ffv_frame_shm) == FFV_LINE_BYTES, "a header is a line");

struct ffv_outbox_shm {
	FFV_LINE_ALIGNED _Atomic uint64_t tail; /* published */
	_Atomic uint64_t reserved;    /* what may be being written ends here: a lap before it nothing is valid any more */
	FFV_LINE_ALIGNED uint64_t ring[FFV_OUTBOX_BYTES / 8];
};

/* ---- the arena ------------------------------------------------------------------------------------------------------ */

/* A proxy stands in for a context of another host: the router owns it (docs/decisions/0021). Its bits of queue pairs also
 * mean "look at the queue pair of that index of each peer". */
enum { FFV_ROLE_CONTEXT = 0, FFV_ROLE_PROXY = 1 };

#define FFV_ATTENTION_QP 0u
#define FFV_ATTENTION_CQ (FFV_MAX_QP)
#define FFV_ATTENTION_SRQ (FFV_MAX_QP + FFV_MAX_CQ)
#define FFV_ATTENTION_PORT (FFV_MAX_QP + FFV_MAX_CQ + FFV_MAX_SRQ) /* a frame came; the rest of its word is unused */
#define FFV_ATTENTION_BITS (FFV_ATTENTION_PORT + 64u)
#define FFV_ATTENTION_WORDS (FFV_ATTENTION_BITS / 64u)

/* Device memory that others may import. `va` is written last with release, and zeroed first. */
struct ffv_dm_shm { _Atomic uint64_t va; uint64_t length_bytes; };

struct ffv_arena_shm {
	/* Written by the owner before anybody attaches. */
	FFV_LINE_ALIGNED uint64_t magic;
	uint32_t layout_version;
	uint32_t header_bytes;        /* sizeof(struct ffv_arena_shm) */
	uint64_t arena_bytes;
	uint64_t context_id;          /* random, never 0 in either half */
	uint8_t gid[16];
	uint32_t qpn_first;
	uint32_t pid;                 /* as the owner sees it: for people only */
	char program[32];
	uint32_t role;                /* FFV_ROLE_* */
	/* Written by the owner. */
	FFV_LINE_ALIGNED _Atomic uint32_t num_qp;
	_Atomic uint32_t num_cq;
	_Atomic uint32_t num_mr;
	_Atomic uint32_t num_peers;
	_Atomic uint64_t registered_bytes;
	_Atomic uint32_t threads_used; /* slots of `threads` ever used: [0, threads_used) */
	_Atomic uint32_t outbox_line; /* 0 = has put nothing on the segment yet */
	_Atomic uint64_t wanted_groups; /* bits of the multicast groups (ffv_group_bit) that its queue pairs are in */
	_Atomic uint32_t wants_raw;   /* it has rules for raw packets */
	/* "Look at this object": set by anybody, then the owner's doorbell is rung; [attention] */
	FFV_LINE_ALIGNED _Atomic uint64_t attention[FFV_ATTENTION_WORDS];
	FFV_LINE_ALIGNED struct ffv_thread_shm threads[FFV_MAX_THREADS];
	/* First line of each object, 0 = none; written by the owner with release. */
	FFV_LINE_ALIGNED _Atomic uint32_t qp_line[FFV_MAX_QP];
	_Atomic uint32_t cq_line[FFV_MAX_CQ];
	_Atomic uint32_t srq_line[FFV_MAX_SRQ];
	FFV_LINE_ALIGNED struct ffv_key_shm keys[FFV_MAX_KEYS];
	/* Which protection domains there are: at id % FFV_MAX_PD stands id + 1, or 0. Written by the owner. */
	FFV_LINE_ALIGNED _Atomic uint32_t pds[FFV_MAX_PD];
	FFV_LINE_ALIGNED struct ffv_dm_shm dms[FFV_MAX_DM];
};

#endif

/* SPDX-License-Identifier: MIT
 *
 * How this process sees a context (its own, or an attached peer's), and checked references to the objects in an arena.
 * Process-private. Geometry is read from shared memory once, checked, and used from here ever after; a reference is
 * valid while the object's generation is the one it was opened with.
 */
#ifndef FFV_ENGINE_VIEW_H
#define FFV_ENGINE_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#include <ffverbs/ffv.h>

#include "shm/layout.h"
#include "shm/mirror.h"

/* Whether process_vm_readv/writev reach a peer's memory is found by doing it. */
enum { FFV_VM_UNKNOWN = 0, FFV_VM_WORKS = 1, FFV_VM_DENIED = 2 };

/* Where a memory region of this process really is; private memory, which no peer can write. On-demand memory, which may
 * be absent, has ~first instead: no address is inside for who does not ask for that (keys.h). */
struct ffv_extent { uint64_t first; uint64_t end; };

struct ffv_view {
	struct ffv_arena_shm *arena;
	struct ffv_windows *windows;  /* NULL if direct */
	const struct ffv_extent *extents; /* direct: by index of the region's key; an address that a key of the arena
				       * gives is only used inside. NULL: not checked (the mirror's windows bound it) */
	bool direct;                  /* same address space: an address of the context is an address here */
	bool own;                     /* the context is of this process, whose thread slots are used */
	bool proxy;                   /* it stands in for a context of another host (engine/proxy.h) */
	pid_t pid;                    /* for process_vm_*; 0 = not visible */
	_Atomic int vm_state;
	uint64_t context_id;
	void *face;                   /* the verbs layer's object for it */
};

struct ffv_cq_ref {
	struct ffv_cq_shm *shm;
	struct ffv_cqe_shm *ring;
	struct ffv_cqe_ext_shm *ext;  /* NULL: an ordinary queue */
	uint64_t first;               /* position from which on this ring is used */
	uint32_t index_mask;
	uint32_t ring_number;         /* FFV_CQ_RING of the tail while this ring is used */
	uint32_t id;
};

struct ffv_rq_ref {
	struct ffv_rq_shm *shm;
	uint8_t *ring;
	uint64_t geometry;            /* that ring and mask were read from */
	uint32_t index_mask;
	uint32_t stride_bytes;
	uint32_t max_sge;
	uint32_t srq_id;              /* FFV_NONE = a QP's own */
	bool shared_takers;           /* several senders take from it */
	uint32_t num_tags;            /* a queue that matches tags */
	struct ffv_tag_shm *tags;
	const struct ffv_sge_shm *tag_sges; /* max_sge for each tag */
};

struct ffv_qp_ref {
	struct ffv_view *view;
	struct ffv_qp_shm *shm;
	uint8_t *sq_ring;
	uint32_t sq_index_mask;
	uint32_t sq_stride_bytes;
	uint32_t qpn;
	uint32_t generation;
	uint32_t type;
	uint32_t pd;
	struct ffv_cq_ref send_cq;
	struct ffv_cq_ref recv_cq;    /* XRC: none, until ffv_xrc_ref_open names a shared receive queue */
	struct ffv_rq_ref rq;         /* the same */
};

/* `bytes` at `line` of the arena, or NULL if that is not inside its object space. */
void *ffv_view_at(const struct ffv_view *view, uint32_t line, uint64_t bytes);
/* -ENOENT if there is no such QP (now), -EPROTO if its description makes no sense. */
int ffv_qp_ref_open(struct ffv_view *view, uint32_t qpn, struct ffv_qp_ref *ref);
int ffv_cq_ref_open(const struct ffv_view *view, uint32_t id, struct ffv_cq_ref *ref);
/* The ring that `tail`, read with acquire, says. False if the description makes no sense; ref is unchanged then. */
bool ffv_cq_ref_follow(const struct ffv_view *view, uint64_t tail, struct ffv_cq_ref *ref);
/* What an XRC request that names SRQ `srqn` of `view` acts upon: the XRC_RECV queue pair that it arrives at (`qp`), with
 * queues, protection domain and view of the SRQ. -ENOENT if the SRQ is not there or of another domain. */
int ffv_xrc_ref_open(struct ffv_view *view, uint32_t srqn, const struct ffv_qp_ref *qp, struct ffv_qp_ref *out);
/* Reads the place and size of a shared queue's ring anew, after a resize. */
int ffv_rq_ref_reopen(const struct ffv_view *view, struct ffv_rq_ref *ref);
int ffv_srq_ref_open(const struct ffv_view *view, uint32_t id, struct ffv_rq_ref *ref);

/* The two types that have no receive queue of their own, and the one that has no send queue either. */
static inline bool ffv_type_is_xrc(uint32_t type)
{
	return type == FFV_QPT_XRC_SEND || type == FFV_QPT_XRC_RECV;
}

/* False for those whose requests are each for whom they name, or for everybody. */
static inline bool ffv_type_is_connected(uint32_t type)
{
	return type != FFV_QPT_UD && type != FFV_QPT_RAW_PACKET;
}

/* The GID that it is connected to. While its owner changes it, a mix of two, which no link is current with. */
static inline void ffv_qp_shm_dgid(const struct ffv_qp_shm *qp, uint8_t gid[16])
{
	uint64_t halves[2] = { ffv_load_relaxed(&qp->dgid[0]), ffv_load_relaxed(&qp->dgid[1]) };

	memcpy(gid, halves, 16);
}

static inline bool ffv_qp_ref_is_current(const struct ffv_qp_ref *ref)
{
	return ffv_load_acquire(&ref->shm->generation) == ref->generation;
}

static inline struct ffv_wqe_shm *ffv_qp_ref_wqe(const struct ffv_qp_ref *ref, uint64_t position)
{
	return (struct ffv_wqe_shm *)(ref->sq_ring + (position & ref->sq_index_mask) * (uint64_t)ref->sq_stride_bytes);
}

/* True if the owner has resized the queue since the reference was opened. Asked after a tail was read: [rq-resize] the new
 * place is published before anything is posted there, so that whoever sees such an entry sees the place. */
static inline bool ffv_rq_ref_has_moved(const struct ffv_rq_ref *ref)
{
	return ffv_load_acquire(&ref->shm->geometry) != ref->geometry;
}

static inline const struct ffv_sge_shm *ffv_rq_ref_entry(const struct ffv_rq_ref *ref, uint64_t position)
{
	return (const struct ffv_sge_shm *)(ref->ring + (position & ref->index_mask) * (uint64_t)ref->stride_bytes);
}

#endif

/* For tests of the executor: contexts built by hand in their arenas, so that every state, sane or broken, can be made.
 *
 * A party is one context. It is seen through two views: `near`, as its own process sees it, and `far`, as a peer does
 * that reaches its memory only as far as the test lets it (windows, process id). Both stand in this process, so the
 * steps of two processes can be taken one by one, in any order, and the thread sanitizer sees both. */
#ifndef FFV_TESTS_ENGINE_WORLD_H
#define FFV_TESTS_ENGINE_WORLD_H

#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "engine/exec.h"
#include "shm/attach.h"

#define WORLD_PD 7u
#define WORLD_KEY(index, tag) ((uint32_t)(index) << 8 | (tag))
#define WORLD_STAGE_BYTES 4096u

struct party {
	struct ffv_arena_shm *arena;
	int fd;
	struct ffv_view near;
	struct ffv_view far;
	uint32_t next_line;
	/* what the executor asked for */
	_Atomic uint32_t signals;
	_Atomic uint32_t attentions;
	_Atomic uint32_t last_attention;
	_Atomic uint32_t cq_attentions;
};

static inline uint32_t party_lines(struct party *party, uint64_t bytes)
{
	uint32_t line = party->next_line;

	party->next_line += (uint32_t)((bytes + FFV_LINE_BYTES - 1) / FFV_LINE_BYTES);
	return line;
}

static inline void *party_at(struct party *party, uint32_t line)
{
	return (uint8_t *)party->arena + (uint64_t)line * FFV_LINE_BYTES;
}

static inline void party_create(struct party *party, uint32_t block)
{
	memset(party, 0, sizeof *party);
	CHECK_EQ(ffv_arena_create("ffverbs-test", &party->fd, &party->arena), 0);
	party->arena->context_id = 0x100000001ull * (block + 1);
	party->arena->qpn_first = block * FFV_QPN_BLOCK;
	party->arena->gid[15] = (uint8_t)block;
	party->next_line = (uint32_t)(sizeof *party->arena / FFV_LINE_BYTES + 1);
	party->near = (struct ffv_view){ .arena = party->arena, .direct = true, .own = true,
					 .context_id = party->arena->context_id, .face = party };
	party->far = (struct ffv_view){ .arena = party->arena, .context_id = party->arena->context_id, .face = party };
}

static inline void party_destroy(struct party *party)
{
	ffv_arena_detach(party->arena);
	close(party->fd);
}

/* slots: a power of two. */
static inline struct ffv_cq_shm *party_cq(struct party *party, uint32_t id, uint32_t slots, uint32_t cqe)
{
	uint32_t line = party_lines(party, sizeof(struct ffv_cq_shm));
	struct ffv_cq_shm *cq = party_at(party, line);

	ffv_store_relaxed(&cq->rings[0].ring_line, party_lines(party, slots * sizeof(struct ffv_cqe_shm)));
	ffv_store_relaxed(&cq->rings[0].index_mask, slots - 1);
	ffv_store_relaxed(&cq->cqe, cqe);
	ffv_store_release(&party->arena->cq_line[id], line);
	return cq;
}

static inline void party_rq(struct party *party, struct ffv_rq_shm *rq, uint32_t slots, uint32_t max_sge)
{
	uint32_t stride = 16;

	while (stride < 16 * max_sge)
		stride *= 2;
	rq->ring_line = party_lines(party, (uint64_t)slots * stride);
	rq->index_mask = slots - 1;
	rq->stride_bytes = stride;
	rq->max_sge = max_sge;
	rq->max_wr = slots;
}

static inline struct ffv_srq_shm *party_srq(struct party *party, uint32_t id, uint32_t slots, uint32_t max_sge)
{
	uint32_t line = party_lines(party, sizeof(struct ffv_srq_shm));
	struct ffv_srq_shm *srq = party_at(party, line);

	party_rq(party, &srq->rq, slots, max_sge);
	srq->id = id;
	ffv_store_release(&party->arena->srq_line[id], line);
	return srq;
}

/* A QP in state RTS with send queue, own receive queue (unless srq is an id) and staging buffer. */
static inline struct ffv_qp_shm *party_qp(struct party *party, uint32_t index, uint32_t type, uint32_t srq)
{
	uint32_t line = party_lines(party, sizeof(struct ffv_qp_shm));
	struct ffv_qp_shm *qp = party_at(party, line);

	qp->qpn = party->arena->qpn_first + index;
	qp->type = type;
	qp->pd = WORLD_PD;
	qp->access = FFV_ACCESS_REMOTE_WRITE | FFV_ACCESS_REMOTE_READ | FFV_ACCESS_REMOTE_ATOMIC;
	qp->srq = srq;
	qp->sq_index_mask = 15;
	qp->sq_stride_bytes = 128;
	qp->sq_ring_line = party_lines(party, 16 * 128);
	qp->path_mtu_bytes = 4096;
	qp->max_rd_atomic = qp->max_dest_rd_atomic = 1;
	qp->rnr_retry = 7;
	qp->retry_cnt = 7;
	qp->min_rnr_timer = 0; /* the longest: nothing in a test waits for it */
	qp->qkey = 0x1111;
	qp->stage_line = FFV_NONE;
	ffv_store_relaxed(&qp->deadline_ns, UINT64_MAX);
	if (srq == FFV_NONE)
		party_rq(party, &qp->rq, 16, 4);
	ffv_store_relaxed(&qp->state, (uint32_t)FFV_QPS_RTS);
	ffv_store_release(&qp->generation, 1u);
	ffv_store_release(&party->arena->qp_line[index], line);
	return qp;
}

/* [va, va + length) under key WORLD_KEY(index, tag), mirrored entirely or not at all. */
static inline struct ffv_key_shm *party_key(struct party *party, uint32_t key, const void *va, uint64_t length, bool mirrored)
{
	struct ffv_key_shm *entry = &party->arena->keys[FFV_KEY_INDEX(key)];
	uint64_t first = (uintptr_t)va;

	entry->pd = WORLD_PD;
	entry->access = FFV_ACCESS_LOCAL_WRITE | FFV_ACCESS_REMOTE_WRITE | FFV_ACCESS_REMOTE_READ |
			FFV_ACCESS_REMOTE_ATOMIC;
	entry->kind = FFV_KEY_MR;
	entry->iova = first;
	entry->length_bytes = length;
	entry->va = first;
	entry->mirror_first = first;
	entry->mirror_end = mirrored ? first + length : first;
	ffv_store_release(&entry->key, key);
	return entry;
}

static inline struct ffv_qp_ref party_ref(struct ffv_view *view, uint32_t index)
{
	struct ffv_qp_ref ref;

	CHECK_EQ(ffv_qp_ref_open(view, view->arena->qpn_first + index, &ref), 0);
	return ref;
}

static inline void world_connect(struct ffv_qp_shm *a, struct ffv_qp_shm *b)
{
	a->dest_qpn = b->qpn;
	b->dest_qpn = a->qpn;
}

/* ---- posting ------------------------------------------------------------------------------------------------------- */

static inline struct ffv_sge_shm world_sge(const void *addr, uint32_t length, uint32_t key)
{
	return (struct ffv_sge_shm){ (uintptr_t)addr, length, key };
}

/* Writes a signaled work request and publishes it. */
static inline struct ffv_wqe_shm *world_post(const struct ffv_qp_ref *ref, uint8_t opcode, struct ffv_sge_shm sge)
{
	uint64_t tail = ffv_load_relaxed(&ref->shm->sq_tail);
	struct ffv_wqe_shm *wqe = ffv_qp_ref_wqe(ref, tail);

	memset(wqe, 0, ref->sq_stride_bytes);
	wqe->opcode = opcode;
	wqe->flags = FFV_SEND_SIGNALED;
	wqe->num_sge = 1;
	wqe->length_bytes = sge.length;
	wqe->sge[0] = sge;
	ffv_store_release(&ref->shm->sq_tail, tail + 1);
	return wqe;
}

static inline void world_receive(const struct ffv_rq_ref *rq, struct ffv_sge_shm sge)
{
	uint64_t tail = ffv_load_relaxed(&rq->shm->tail);
	struct ffv_sge_shm *entry = (struct ffv_sge_shm *)ffv_rq_ref_entry(rq, tail);

	entry[0] = sge;
	if (rq->max_sge > 1)
		entry[1] = (struct ffv_sge_shm){ .addr = FFV_SGE_END };
	ffv_store_release(&rq->shm->tail, tail + 1);
}

/* ---- running ------------------------------------------------------------------------------------------------------- */

static inline void world_signal(void *arg, struct ffv_view *view, uint32_t cq)
{
	(void)arg, (void)cq;
	ffv_fetch_add(&((struct party *)view->face)->signals, 1u);
}

static inline void world_attention(void *arg, struct ffv_view *view, uint32_t bit)
{
	struct party *party = view->face;

	(void)arg;
	ffv_fetch_add(&party->attentions, 1u);
	ffv_store_relaxed(&party->last_attention, bit);
	if (bit >= FFV_ATTENTION_CQ && bit < FFV_ATTENTION_SRQ)
		ffv_fetch_add(&party->cq_attentions, 1u);
}

static inline bool world_stage(void *arg, struct ffv_qp_ref *requester)
{
	struct party *party = arg;

	if (requester->view->face != party)
		return false;
	requester->shm->stage_bytes = WORLD_STAGE_BYTES;
	requester->shm->stage_line = party_lines(party, WORLD_STAGE_BYTES);
	return true;
}

static inline bool world_find_nobody(void *arg, const struct ffv_qp_ref *requester, const struct ffv_wqe_ud_shm *address,
				     struct ffv_qp_ref *out)
{
	(void)arg, (void)requester, (void)address, (void)out;
	return false;
}

static const struct ffv_exec_face world_face = {
	.signal = world_signal, .attention = world_attention, .find = world_find_nobody, .stage = world_stage,
};

/* The environment of thread `slot` of the party's process. */
static inline struct ffv_exec_env party_env(struct party *party, uint32_t slot)
{
	return (struct ffv_exec_env){ .face = &world_face, .arg = party, .thread = &party->arena->threads[slot],
				      .holder = FFV_EXEC_HOLDER(party->arena->context_id, slot) };
}

/* ---- completions --------------------------------------------------------------------------------------------------- */

/* The next completion that is not void, copied; false if there is none. *head moves on. */
static inline bool world_poll(const struct ffv_cq_ref *cq, uint64_t *head, struct ffv_cqe_shm *out)
{
	while (ffv_cq_is_published(cq, *head)) {
		const struct ffv_cqe_shm *cqe = &cq->ring[*head & cq->index_mask];
		memcpy((char *)out + sizeof out->sequence, (const char *)cqe + sizeof cqe->sequence,
		       sizeof *cqe - sizeof cqe->sequence);
		ffv_store_release(&cq->shm->head, ++*head);
		if (out->qpn_side)
			return true;
	}
	return false;
}

#endif

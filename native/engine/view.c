/* SPDX-License-Identifier: MIT
 *
 * See view.h. This is the one place where geometry that a peer wrote becomes pointers.
 */
#include "engine/view.h"

#include <errno.h>

#include "base/error.h"

#define OBJECTS_FIRST_LINE ((sizeof(struct ffv_arena_shm) + FFV_LINE_BYTES - 1) / FFV_LINE_BYTES)

static bool is_mask(uint32_t mask, uint32_t max)
{
	return (mask & (mask + 1)) == 0 && mask < max;
}

void *ffv_view_at(const struct ffv_view *view, uint32_t line, uint64_t bytes)
{
	uint64_t offset_bytes = (uint64_t)line * FFV_LINE_BYTES;

	if (line < OBJECTS_FIRST_LINE || bytes > FFV_ARENA_BYTES || offset_bytes > FFV_ARENA_BYTES - bytes)
		return NULL;
	return (uint8_t *)view->arena + offset_bytes;
}

bool ffv_cq_ref_follow(const struct ffv_view *view, uint64_t tail, struct ffv_cq_ref *ref)
{
	/* [cq-ring] the description was written before the tail that names it. If it is being replaced by the one after the
	 * next, what is read here is garbage, but the tail has moved on and the claim that relies on it fails. */
	const struct ffv_cq_ring_shm *at = &ref->shm->rings[FFV_CQ_RING(tail) & 1];
	uint32_t mask = ffv_load_relaxed(&at->index_mask);
	uint32_t ring_line = ffv_load_relaxed(&at->ring_line), ext_line = ffv_load_relaxed(&at->ext_line);

	if (!is_mask(mask, 1u << 30))
		return false;
	struct ffv_cqe_shm *ring = ffv_view_at(view, ring_line, (mask + 1ull) * sizeof *ring);
	struct ffv_cqe_ext_shm *ext = ext_line ? ffv_view_at(view, ext_line, (mask + 1ull) * sizeof *ext) : NULL;
	if (!ring || (ext_line && !ext))
		return false;
	ref->ring = ring;
	ref->ext = ext;
	ref->first = ffv_load_relaxed(&at->first);
	ref->index_mask = mask;
	ref->ring_number = FFV_CQ_RING(tail);
	return true;
}

int ffv_cq_ref_open(const struct ffv_view *view, uint32_t id, struct ffv_cq_ref *ref)
{
	if (id >= FFV_MAX_CQ)
		return ffv_fail(EPROTO, "peer names completion queue %u, there are %u", id, FFV_MAX_CQ);
	uint32_t line = ffv_load_acquire(&view->arena->cq_line[id]);
	struct ffv_cq_ref found = { .id = id };
	found.shm = line ? ffv_view_at(view, line, sizeof *found.shm) : NULL;
	if (!found.shm)
		return ffv_fail(EPROTO, "completion queue %u of the peer is at no valid place", id);
	if (!ffv_cq_ref_follow(view, ffv_load_acquire(&found.shm->tail), &found))
		return ffv_fail(EPROTO, "ring of completion queue %u of the peer is at no valid place", id);
	*ref = found;
	return 0;
}

static int open_rq(const struct ffv_view *view, struct ffv_rq_shm *shm, struct ffv_rq_ref *ref)
{
	uint64_t geometry = ffv_load_acquire(&shm->geometry);
	uint32_t mask = (uint32_t)(geometry >> 32), line = (uint32_t)geometry;
	uint32_t stride = ffv_word_load(&shm->stride_bytes), max_sge = ffv_word_load(&shm->max_sge);
	uint8_t *ring = NULL;

	if (is_mask(mask, 1u << 24) && max_sge <= FFV_MAX_SGE && stride <= FFV_MAX_SGE * 16 && stride >= 16 &&
	    is_mask(stride - 1, UINT32_MAX) && stride >= max_sge * 16)
		ring = ffv_view_at(view, line, (mask + 1ull) * stride);
	if (!ring)
		return ffv_fail(EPROTO, "a receive queue of the peer has no valid geometry");
	*ref = (struct ffv_rq_ref){ .shm = shm, .ring = ring, .geometry = geometry, .index_mask = mask,
				    .stride_bytes = stride, .max_sge = max_sge, .srq_id = FFV_NONE };
	return 0;
}

int ffv_rq_ref_reopen(const struct ffv_view *view, struct ffv_rq_ref *ref)
{
	struct ffv_rq_ref fresh;
	int rc = open_rq(view, ref->shm, &fresh);

	if (rc)
		return rc;
	fresh.srq_id = ref->srq_id;
	fresh.shared_takers = ref->shared_takers;
	fresh.num_tags = ref->num_tags;
	fresh.tags = ref->tags;
	fresh.tag_sges = ref->tag_sges;
	*ref = fresh;
	return 0;
}

static int open_tags(const struct ffv_view *view, const struct ffv_srq_shm *shm, struct ffv_rq_ref *ref)
{
	uint32_t num_tags = ffv_word_load(&shm->num_tags), line = ffv_word_load(&shm->tag_line);
	uint64_t bytes = (uint64_t)num_tags * (sizeof *ref->tags + ref->max_sge * sizeof *ref->tag_sges);
	struct ffv_tag_shm *tags = num_tags && num_tags <= FFV_MAX_TAGS ? ffv_view_at(view, line, bytes) : NULL;

	if (!tags)
		return ffv_fail(EPROTO, "the tags of a shared receive queue of the peer are at no valid place");
	ref->num_tags = num_tags;
	ref->tags = tags;
	ref->tag_sges = (const struct ffv_sge_shm *)(tags + num_tags);
	return 0;
}

int ffv_srq_ref_open(const struct ffv_view *view, uint32_t id, struct ffv_rq_ref *ref)
{
	if (id >= FFV_MAX_SRQ)
		return ffv_fail(EPROTO, "peer names shared receive queue %u, there are %u", id, FFV_MAX_SRQ);
	uint32_t line = ffv_load_acquire(&view->arena->srq_line[id]);
	struct ffv_srq_shm *shm = line ? ffv_view_at(view, line, sizeof *shm) : NULL;
	if (!shm)
		return ffv_fail(EPROTO, "shared receive queue %u of the peer is at no valid place", id);
	int rc = open_rq(view, &shm->rq, ref);
	if (rc)
		return rc;
	ref->srq_id = id;
	ref->shared_takers = true;
	return shm->type == FFV_SRQT_TM ? open_tags(view, shm, ref) : 0;
}

static int open_sq(struct ffv_view *view, struct ffv_qp_ref *ref)
{
	uint32_t mask = ffv_word_load(&ref->shm->sq_index_mask), stride = ffv_word_load(&ref->shm->sq_stride_bytes);
	uint32_t line = ffv_word_load(&ref->shm->sq_ring_line);

	if (is_mask(mask, 1u << 24) && stride >= FFV_LINE_BYTES && stride <= 4096 && stride % FFV_LINE_BYTES == 0)
		ref->sq_ring = ffv_view_at(view, line, (mask + 1ull) * stride);
	if (!ref->sq_ring)
		return ffv_fail(EPROTO, "send queue of QP %#x of the peer has no valid geometry", ref->qpn);
	ref->sq_index_mask = mask;
	ref->sq_stride_bytes = stride;
	return 0;
}

int ffv_qp_ref_open(struct ffv_view *view, uint32_t qpn, struct ffv_qp_ref *ref)
{
	uint32_t first = view->arena->qpn_first;

	if (qpn < first || qpn - first >= FFV_MAX_QP)
		return ffv_fail(ENOENT, "QP %#x is not of the context that owns %#x..%#x", qpn, first,
				first + FFV_MAX_QP - 1);
	uint32_t line = ffv_load_acquire(&view->arena->qp_line[qpn - first]);
	struct ffv_qp_ref found = { .view = view, .qpn = qpn };
	found.shm = line ? ffv_view_at(view, line, sizeof *found.shm) : NULL;
	if (!found.shm)
		return ffv_fail(line ? EPROTO : ENOENT, "there is no QP %#x", qpn);
	found.generation = ffv_load_acquire(&found.shm->generation);
	found.type = ffv_word_load(&found.shm->type);
	found.pd = ffv_word_load(&found.shm->pd);
	uint32_t srq = ffv_word_load(&found.shm->srq);
	if (!(found.generation & 1) || found.shm->qpn != qpn)
		return ffv_fail(ENOENT, "QP %#x was destroyed", qpn);
	int rc = open_sq(view, &found);
	if (!rc && found.type != FFV_QPT_XRC_RECV)
		rc = ffv_cq_ref_open(view, found.shm->send_cq, &found.send_cq);
	if (!rc && !ffv_type_is_xrc(found.type))
		rc = ffv_cq_ref_open(view, found.shm->recv_cq, &found.recv_cq);
	if (!rc && !ffv_type_is_xrc(found.type))
		rc = srq == FFV_NONE ? open_rq(view, &found.shm->rq, &found.rq) : ffv_srq_ref_open(view, srq, &found.rq);
	if (rc)
		return rc;
	if (!ffv_type_is_connected(found.type))
		found.rq.shared_takers = true;
	if (!ffv_qp_ref_is_current(&found))
		return ffv_fail(ENOENT, "QP %#x was destroyed meanwhile", qpn);
	*ref = found;
	return 0;
}

int ffv_xrc_ref_open(struct ffv_view *view, uint32_t srqn, const struct ffv_qp_ref *qp, struct ffv_qp_ref *out)
{
	uint32_t first = FFV_SRQN(view->arena->qpn_first / FFV_QPN_BLOCK, 0u), id = srqn - first;
	struct ffv_qp_ref found = *qp;

	if (id >= FFV_MAX_SRQ)
		return -ENOENT;
	uint32_t line = ffv_load_acquire(&view->arena->srq_line[id]);
	const struct ffv_srq_shm *shm = line ? ffv_view_at(view, line, sizeof *shm) : NULL;
	if (!shm || shm->type != FFV_SRQT_XRC || shm->xrcd.device != qp->shm->xrcd.device ||
	    shm->xrcd.inode != qp->shm->xrcd.inode)
		return -ENOENT;
	found.view = view;
	found.pd = shm->pd;
	if (ffv_srq_ref_open(view, id, &found.rq) || ffv_cq_ref_open(view, shm->cq, &found.recv_cq))
		return -ENOENT;
	*out = found;
	return 0;
}

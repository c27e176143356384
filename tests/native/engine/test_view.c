/* References to objects in an arena whose geometry is hostile: every word of every description is set to every kind of
 * lie, and what is accepted stays inside the arena's object space. */
#include <errno.h>

#include "base/error.h"
#include "world.h"

#define QP_INDEX 20u

static struct party party;
static struct ffv_qp_shm *qp, *qp_srq;
static struct ffv_cq_shm *cq;
static struct ffv_srq_shm *srq;

static const uint32_t lies[] = {
	0, 1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 63, 64, 65, 127, 128, 192, 255, 4095, 4096, 4097, 65535, 65536, 1u << 20,
	(1u << 24) - 1, 1u << 24, (1u << 28) - 1, 1u << 28, (1u << 28) + 1, (1u << 30) - 1, 1u << 30, 1u << 31, (1u << 31) - 1,
	UINT32_MAX - 1, UINT32_MAX, FFV_ARENA_LINES - 1, (uint32_t)FFV_ARENA_LINES, FFV_MAX_CQ, FFV_MAX_SRQ,
	sizeof(struct ffv_arena_shm) / FFV_LINE_BYTES, sizeof(struct ffv_arena_shm) / FFV_LINE_BYTES - 1,
};
#define NUM_LIES (sizeof lies / sizeof lies[0])

static void check_inside(const void *first, uint64_t bytes)
{
	uint64_t offset = (uintptr_t)first - (uintptr_t)party.arena;

	CHECK(first);
	CHECK(offset >= sizeof(struct ffv_arena_shm));
	CHECK(bytes <= FFV_ARENA_BYTES && offset <= FFV_ARENA_BYTES - bytes);
}

static void check_cq(const struct ffv_cq_ref *ref)
{
	check_inside(ref->shm, sizeof *ref->shm);
	check_inside(ref->ring, (ref->index_mask + 1ull) * sizeof *ref->ring);
	if (ref->ext)
		check_inside(ref->ext, (ref->index_mask + 1ull) * sizeof *ref->ext);
	CHECK_EQ(ref->index_mask & (ref->index_mask + 1ull), 0);
}

static void check_rq(const struct ffv_rq_ref *ref)
{
	check_inside(ref->shm, sizeof *ref->shm);
	check_inside(ref->ring, (ref->index_mask + 1ull) * ref->stride_bytes);
	CHECK_EQ(ref->index_mask & (ref->index_mask + 1ull), 0);
	CHECK(ref->max_sge <= FFV_MAX_SGE && ref->max_sge * 16 <= ref->stride_bytes && ref->stride_bytes >= 16);
}

static void check_qp(uint32_t index)
{
	struct ffv_qp_ref ref;
	int rc = ffv_qp_ref_open(&party.far, party.arena->qpn_first + index, &ref);

	if (rc) {
		CHECK(rc == -ENOENT || rc == -EPROTO);
		CHECK(ffv_error_text()[0]);
		return;
	}
	check_inside(ref.shm, sizeof *ref.shm);
	check_inside(ref.sq_ring, (ref.sq_index_mask + 1ull) * ref.sq_stride_bytes);
	CHECK(ref.sq_stride_bytes >= sizeof(struct ffv_wqe_shm) && ref.sq_stride_bytes % FFV_LINE_BYTES == 0);
	CHECK_EQ(ref.sq_index_mask & (ref.sq_index_mask + 1ull), 0);
	check_cq(&ref.send_cq);
	check_cq(&ref.recv_cq);
	check_rq(&ref.rq);
}

static void check_all(void)
{
	struct ffv_rq_ref rq;
	struct ffv_cq_ref ref;

	check_qp(QP_INDEX);
	check_qp(QP_INDEX + 1);
	if (!ffv_cq_ref_open(&party.far, 0, &ref))
		check_cq(&ref);
	if (!ffv_srq_ref_open(&party.far, 1, &rq))
		check_rq(&rq);
}

/* Every word of [object, object + bytes) in turn. */
static void lie_in(void *object, size_t bytes)
{
	uint32_t *words = object;

	for (size_t i = 0; i < bytes / 4; i++) {
		uint32_t truth = words[i];
		for (size_t lie = 0; lie < NUM_LIES; lie++) {
			words[i] = lies[lie];
			check_all();
		}
		words[i] = truth;
	}
}

static void test_every_word(void)
{
	lie_in(qp, sizeof *qp);
	lie_in(qp_srq, sizeof *qp_srq);
	lie_in(cq, sizeof *cq);
	lie_in(srq, sizeof *srq);
	lie_in((void *)&party.arena->qp_line[QP_INDEX], 8);
	lie_in((void *)&party.arena->cq_line[0], 4);
	lie_in((void *)&party.arena->srq_line[1], 4);
}

/* Two lies at once: a size and a place that are each fine and together are not. */
static void test_pairs(void)
{
	struct { uint32_t *size; uint32_t *stride; uint32_t *line; } pairs[] = {
		{ &qp->sq_index_mask, &qp->sq_stride_bytes, &qp->sq_ring_line },
		{ &qp->rq.index_mask, &qp->rq.stride_bytes, &qp->rq.ring_line },
		{ &srq->rq.index_mask, &srq->rq.stride_bytes, &srq->rq.ring_line },
		{ (uint32_t *)&cq->rings[0].index_mask, NULL, (uint32_t *)&cq->rings[0].ring_line },
		{ (uint32_t *)&cq->rings[0].index_mask, NULL, (uint32_t *)&cq->rings[0].ext_line },
	};

	for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
		uint32_t size = *pairs[i].size, line = *pairs[i].line, stride = pairs[i].stride ? *pairs[i].stride : 0;
		for (size_t a = 0; a < NUM_LIES; a++) {
			*pairs[i].size = lies[a];
			for (size_t b = 0; b < NUM_LIES; b++) {
				*pairs[i].line = lies[b];
				for (size_t c = 0; c < (pairs[i].stride ? NUM_LIES : 1); c++) {
					if (pairs[i].stride)
						*pairs[i].stride = lies[c];
					check_all();
				}
			}
		}
		*pairs[i].size = size;
		*pairs[i].line = line;
		if (pairs[i].stride)
			*pairs[i].stride = stride;
	}
}

static void test_what_is_not_there(void)
{
	struct ffv_qp_ref ref;
	struct ffv_cq_ref cq_ref;
	struct ffv_rq_ref rq_ref;
	uint32_t first = party.arena->qpn_first;

	CHECK_EQ(ffv_qp_ref_open(&party.far, first + QP_INDEX, &ref), 0);
	CHECK_EQ(ref.generation, 1);
	CHECK(ffv_qp_ref_is_current(&ref));
	CHECK_EQ(ffv_qp_ref_open(&party.far, first - 1, &ref), -ENOENT);
	CHECK_EQ(ffv_qp_ref_open(&party.far, first + FFV_MAX_QP, &ref), -ENOENT);
	CHECK_EQ(ffv_qp_ref_open(&party.far, first + 99, &ref), -ENOENT);
	CHECK_EQ(ffv_cq_ref_open(&party.far, 99, &cq_ref), -EPROTO);
	CHECK_EQ(ffv_cq_ref_open(&party.far, FFV_MAX_CQ, &cq_ref), -EPROTO);
	CHECK_EQ(ffv_cq_ref_open(&party.far, UINT32_MAX, &cq_ref), -EPROTO);
	CHECK_EQ(ffv_srq_ref_open(&party.far, 99, &rq_ref), -EPROTO);
	CHECK_EQ(ffv_srq_ref_open(&party.far, FFV_NONE, &rq_ref), -EPROTO);
	/* Destroyed: the reference is stale, a new one is refused. */
	ffv_store_release(&qp->generation, 2u);
	CHECK(!ffv_qp_ref_is_current(&ref));
	CHECK_EQ(ffv_qp_ref_open(&party.far, first + QP_INDEX, &ref), -ENOENT);
	/* Created again under another number. */
	ffv_store_release(&qp->generation, 3u);
	qp->qpn = first + QP_INDEX + 5;
	CHECK_EQ(ffv_qp_ref_open(&party.far, first + QP_INDEX, &ref), -ENOENT);
	qp->qpn = first + QP_INDEX;
	CHECK_EQ(ffv_qp_ref_open(&party.far, first + QP_INDEX, &ref), 0);
	CHECK_EQ(ref.generation, 3);
}

int main(void)
{
	party_create(&party, 3);
	cq = party_cq(&party, 0, 16, 8);
	srq = party_srq(&party, 1, 16, 2);
	qp = party_qp(&party, QP_INDEX, FFV_QPT_RC, FFV_NONE);
	qp_srq = party_qp(&party, QP_INDEX + 1, FFV_QPT_RC, 1);
	check_all();
	test_every_word();
	test_pairs();
	test_what_is_not_there();
	party_destroy(&party);
	return 0;
}

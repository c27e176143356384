/* For C tests of the verbs objects: two contexts in one process (the thread sanitizer sees both sides), and queue pairs
 * between them. */
#ifndef FFV_TESTS_VERBS_PAIR_H
#define FFV_TESTS_VERBS_PAIR_H

#include <sched.h>
#include <time.h>

#include "base/clock.h"
#include "opened.h"

#define PAIR_ACCESS                                                                                     \
	(FFV_ACCESS_LOCAL_WRITE | FFV_ACCESS_REMOTE_WRITE | FFV_ACCESS_REMOTE_READ | FFV_ACCESS_REMOTE_ATOMIC)
#define PAIR_QKEY 0x1234u
#define PAIR_HANG_NS 60000000000ull /* longer than anything takes: only detects hangs */

struct side {
	struct ffv_context *ctx;
	struct ffv_pd *pd;
	struct ffv_cq *cq;
};

static inline unsigned test_seed(void)
{
	const char *given = getenv("FFVERBS_TEST_SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL);

	printf("FFVERBS_TEST_SEED=%u\n", seed);
	fflush(stdout);
	return seed;
}

static inline void side_open(struct side *side, int cqe)
{
	side->ctx = opened_context();
	side->pd = opened_pd(side->ctx);
	CHECK_OK(ffv_create_cq(side->ctx, cqe, NULL, NULL, 0, &side->cq));
}

static inline void side_close(struct side *side)
{
	CHECK_OK(ffv_destroy_cq(side->cq));
	CHECK_OK(ffv_dealloc_pd(side->pd));
	CHECK_OK(ffv_close_device(side->ctx));
}

static inline struct ffv_qp *side_qp(struct side *side, struct ffv_cq *cq, uint32_t type, struct ffv_srq *srq, uint32_t depth)
{
	struct ffv_qp_init_attr attr = { .send_cq = cq, .recv_cq = cq, .srq = srq, .qp_type = type,
					 .cap = { depth, depth, 2, 2, 64 } };
	struct ffv_qp *qp;

	CHECK_OK(ffv_create_qp(side->pd, &attr, &qp));
	return qp;
}

static inline void qp_to_init(struct ffv_qp *qp)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_INIT, .port_num = 1, .qkey = PAIR_QKEY,
				    .qp_access_flags = PAIR_ACCESS };

	CHECK_OK(ffv_modify_qp(qp, &attr, FFV_QP_STATE | FFV_QP_PORT | FFV_QP_PKEY_INDEX |
			       (qp->type == FFV_QPT_UD ? FFV_QP_QKEY : FFV_QP_ACCESS_FLAGS)));
}

static inline struct ffv_ah_attr ah_to(const struct side *to)
{
	struct ffv_ah_attr ah = { .is_global = 1, .port_num = 1, .grh = { .hop_limit = 64, .sgid_index = 1 } };
	struct ffv_gid gid;

	CHECK_OK(ffv_query_gid(to->ctx, 1, 1, &gid));
	memcpy(&ah.grh.dgid_subnet_prefix_be, gid.raw, 8);
	memcpy(&ah.grh.dgid_interface_id_be, gid.raw + 8, 8);
	return ah;
}

static inline void qp_to_rtr(struct ffv_qp *qp, const struct side *to, uint32_t qpn)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_RTR, .path_mtu = 5, .dest_qp_num = qpn, .max_dest_rd_atomic = 4,
				    .min_rnr_timer = 1, .ah_attr = ah_to(to) };
	uint32_t mask = FFV_QP_STATE;

	if (qp->type != FFV_QPT_UD)
		mask |= FFV_QP_AV | FFV_QP_PATH_MTU | FFV_QP_DEST_QPN | FFV_QP_RQ_PSN;
	if (qp->type == FFV_QPT_RC)
		mask |= FFV_QP_MAX_DEST_RD_ATOMIC | FFV_QP_MIN_RNR_TIMER;
	CHECK_OK(ffv_modify_qp(qp, &attr, mask));
}

static uint8_t qp_timeout = 14;   /* of the queue pairs to come: 4.096 us << it */

static inline void qp_to_rts(struct ffv_qp *qp)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_RTS, .timeout = qp_timeout, .retry_cnt = 7, .rnr_retry = 7,
				    .max_rd_atomic = 4 };
	uint32_t mask = FFV_QP_STATE | FFV_QP_SQ_PSN;

	if (qp->type == FFV_QPT_RC)
		mask |= FFV_QP_TIMEOUT | FFV_QP_RETRY_CNT | FFV_QP_RNR_RETRY | FFV_QP_MAX_QP_RD_ATOMIC;
	CHECK_OK(ffv_modify_qp(qp, &attr, mask));
}

static inline int qp_to_error(struct ffv_qp *qp)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_ERR };

	return ffv_modify_qp(qp, &attr, FFV_QP_STATE);
}

static inline void qp_connect(struct ffv_qp *a, const struct side *side_a, struct ffv_qp *b, const struct side *side_b)
{
	qp_to_init(a);
	qp_to_init(b);
	qp_to_rtr(a, side_b, ffv_qp_num(b));
	qp_to_rtr(b, side_a, ffv_qp_num(a));
	qp_to_rts(a);
	qp_to_rts(b);
}

static inline int post_recv(struct ffv_qp *qp, uint64_t wr_id, const struct ffv_mr *mr, uint64_t offset, uint32_t length)
{
	struct ffv_sge sge = { (uintptr_t)mr->addr + offset, length, mr->lkey };
	struct ffv_recv_wr wr = { .wr_id = wr_id, .sg_list = &sge, .num_sge = 1 };

	return qp->srq ? ffv_post_srq_recv(qp->srq, &wr, NULL) : ffv_post_recv(qp, &wr, NULL);
}

static inline struct ffv_send_wr send_wr(uint64_t wr_id, uint32_t opcode, struct ffv_sge *sge, const struct ffv_mr *mr,
					 uint64_t offset, uint32_t length)
{
	*sge = (struct ffv_sge){ (uintptr_t)mr->addr + offset, length, mr->lkey };
	return (struct ffv_send_wr){ .wr_id = wr_id, .opcode = opcode, .send_flags = FFV_SEND_SIGNALED, .sg_list = sge,
				     .num_sge = 1 };
}

static inline int post_send(struct ffv_qp *qp, uint64_t wr_id, const struct ffv_mr *mr, uint64_t offset, uint32_t length)
{
	struct ffv_sge sge;
	struct ffv_send_wr wr = send_wr(wr_id, FFV_WR_SEND, &sge, mr, offset, length);

	return ffv_post_send(qp, &wr, NULL);
}

static void (*pair_on_hang)(void); /* says what else is known, before the test ends */

/* One completion; a hang ends the test. */
static inline struct ffv_wc poll_one(struct ffv_cq *cq)
{
	uint64_t deadline_ns = ffv_clock_ns() + PAIR_HANG_NS;
	struct ffv_wc wc;
	int n;

	while (!(n = ffv_poll_cq(cq, 1, &wc))) {
		sched_yield();
		if (ffv_clock_ns() >= deadline_ns && pair_on_hang)
			pair_on_hang();
		CHECK(ffv_clock_ns() < deadline_ns);
	}
	CHECK_RC(n, 1);
	return wc;
}

static inline struct ffv_wc poll_status(struct ffv_cq *cq, uint32_t status)
{
	struct ffv_wc wc = poll_one(cq);

	if (wc.status != status)
		fprintf(stderr, "completion of %llu on %#x: status %u\n", (unsigned long long)wc.wr_id, wc.qp_num,
			wc.status);
	CHECK_EQ(wc.status, status);
	return wc;
}

#endif

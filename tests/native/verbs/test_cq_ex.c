/* Extended completion queues, and queues that grow while others complete to them, between two contexts of one process. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>

#include "pair.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define MESSAGES 4000u
#else
#define MESSAGES 40000u
#endif
#define ALL_FIELDS (0xfffu & ~(uint32_t)FFV_WC_EX_WITH_CVLAN)

static struct side a, b;

static struct ffv_cq *create_ex(struct side *side, uint32_t cqe, uint64_t wc_flags, uint32_t flags)
{
	struct ffv_cq_init_attr_ex attr = { .cqe = cqe, .wc_flags = wc_flags, .comp_mask = FFV_CQ_INIT_ATTR_MASK_FLAGS,
					    .flags = flags };
	struct ffv_cq *cq;

	CHECK_OK(ffv_create_cq_ex(side->ctx, &attr, &cq));
	return cq;
}

/* Two connected queue pairs whose completions go to `at_a` and `at_b`, with memory. */
struct wire { struct ffv_qp *qa, *qb; struct ffv_mr *ma, *mb; };

static struct wire wire_open(struct ffv_cq *at_a, struct ffv_cq *at_b, uint32_t depth)
{
	struct wire wire = { .qa = side_qp(&a, at_a, FFV_QPT_RC, NULL, depth), .qb = side_qp(&b, at_b, FFV_QPT_RC, NULL, depth) };

	qp_connect(wire.qa, &a, wire.qb, &b);
	CHECK_OK(ffv_alloc_mr(a.pd, 4096, PAIR_ACCESS, &wire.ma));
	CHECK_OK(ffv_alloc_mr(b.pd, 4096, PAIR_ACCESS, &wire.mb));
	return wire;
}

static void wire_close(struct wire *wire)
{
	CHECK_OK(ffv_destroy_qp(wire->qa));
	CHECK_OK(ffv_destroy_qp(wire->qb));
	CHECK_OK(ffv_dereg_mr(wire->ma));
	CHECK_OK(ffv_dereg_mr(wire->mb));
}

/* ---- creating ----------------------------------------------------------------------------------------------------------- */

static void test_attributes_are_checked(void)
{
	struct ffv_cq_init_attr_ex attr = { .cqe = 8 };
	struct ffv_cq *cq = NULL;

	CHECK_FAIL(ffv_create_cq_ex(a.ctx, NULL, &cq), EINVAL, "no attributes");
	attr.wc_flags = FFV_WC_EX_WITH_CVLAN;
	CHECK_FAIL(ffv_create_cq_ex(a.ctx, &attr, &cq), EOPNOTSUPP, "0x100");
	attr.wc_flags = 1ull << 40;
	CHECK_FAIL(ffv_create_cq_ex(a.ctx, &attr, &cq), EOPNOTSUPP, "wc_flags");
	attr.wc_flags = ALL_FIELDS;
	attr.comp_mask = 4;
	CHECK_FAIL(ffv_create_cq_ex(a.ctx, &attr, &cq), EOPNOTSUPP, "comp_mask");
	attr.comp_mask = FFV_CQ_INIT_ATTR_MASK_FLAGS;
	attr.flags = 4;
	CHECK_FAIL(ffv_create_cq_ex(a.ctx, &attr, &cq), EOPNOTSUPP, "flags");
	attr.flags = 0;
	attr.comp_mask = FFV_CQ_INIT_ATTR_MASK_PD;
	CHECK_FAIL(ffv_create_cq_ex(a.ctx, &attr, &cq), EINVAL, "parent domain");
	attr.parent_domain = b.pd;
	CHECK_FAIL(ffv_create_cq_ex(a.ctx, &attr, &cq), EINVAL, "parent domain");
	attr.comp_mask = 0; /* then neither counts */
	attr.cqe = UINT32_MAX;
	CHECK_FAIL(ffv_create_cq_ex(a.ctx, &attr, &cq), EINVAL, "entries");
	attr.cqe = 8;
	attr.comp_vector = UINT32_MAX;
	CHECK_FAIL(ffv_create_cq_ex(a.ctx, &attr, &cq), EINVAL, "vector");
	CHECK(!cq);
}

static void test_the_parent_domain_is_in_use(void)
{
	struct ffv_pd *pd = opened_pd(a.ctx);
	struct ffv_cq_init_attr_ex attr = { .cqe = 8, .comp_mask = FFV_CQ_INIT_ATTR_MASK_PD, .parent_domain = pd };
	struct ffv_cq *cq;

	CHECK_OK(ffv_create_cq_ex(a.ctx, &attr, &cq));
	CHECK_RC(ffv_dealloc_pd(pd), -EBUSY);
	CHECK_OK(ffv_destroy_cq(cq));
	CHECK_OK(ffv_dealloc_pd(pd));
}

/* ---- polling ------------------------------------------------------------------------------------------------------------ */

static void test_fields_and_times(void)
{
	struct ffv_cq *at_a = create_ex(&a, 16, ALL_FIELDS, 0), *at_b = create_ex(&b, 16, ALL_FIELDS, 0);
	const struct ffv_wc_ex *got = ffv_cq_polled(at_b);
	struct wire wire = wire_open(at_a, at_b, 8);
	struct timespec wall;

	for (uint32_t i = 0; i < 200; i++) { /* over the ring's end, again and again */
		CHECK_OK(post_recv(wire.qb, 100 + i, wire.mb, 0, 64));
		uint64_t before_ns = ffv_query_clock_ns(b.ctx);
		CHECK_OK(post_send(wire.qa, i, wire.ma, 0, 24));
		uint64_t after_ns = ffv_query_clock_ns(b.ctx);
		CHECK_OK(ffv_start_poll(at_b, NULL));
		CHECK_EQ(got->wc.wr_id, 100 + i);
		CHECK_EQ(got->wc.byte_len, 24);
		CHECK_EQ(got->wc.opcode, FFV_WC_RECV);
		CHECK_EQ(got->wc.qp_num, ffv_qp_num(wire.qb));
		CHECK(got->completion_ts >= before_ns && got->completion_ts <= after_ns);
		clock_gettime(CLOCK_REALTIME, &wall);
		uint64_t wall_ns = (uint64_t)wall.tv_sec * 1000000000u + (uint64_t)wall.tv_nsec;
		CHECK(wall_ns - got->completion_wallclock_ns < PAIR_HANG_NS);
		CHECK_EQ(got->tm_tag | got->tm_priv | got->flow_tag | got->cvlan, 0);
		CHECK_RC(ffv_next_poll(at_b), -ENOENT);
		ffv_end_poll(at_b);
		CHECK_OK(ffv_start_poll(at_a, NULL));
		CHECK_EQ(ffv_cq_polled(at_a)->wc.wr_id, i);
		CHECK(ffv_cq_polled(at_a)->completion_ts >= before_ns);
		ffv_end_poll(at_a);
	}
	wire_close(&wire);
	CHECK_OK(ffv_destroy_cq(at_a));
	CHECK_OK(ffv_destroy_cq(at_b));
}

static void test_batches(void)
{
	struct ffv_cq *ex = create_ex(&a, 16, 0, 0);
	struct ffv_poll_cq_attr unknown = { .comp_mask = 1 };
	struct wire wire = wire_open(ex, b.cq, 8);

	CHECK_RC(ffv_start_poll(ex, NULL), -ENOENT);
	CHECK_FAIL(ffv_next_poll(ex), EINVAL, "started");
	CHECK_FAIL(ffv_start_poll(ex, &unknown), EINVAL, "comp_mask");
	CHECK_FAIL(ffv_start_poll(a.cq, NULL), EINVAL, "extended");
	CHECK(!ffv_cq_polled(a.cq));
	for (uint32_t i = 0; i < 5; i++) {
		CHECK_OK(post_recv(wire.qb, i, wire.mb, 0, 64));
		CHECK_OK(post_send(wire.qa, i, wire.ma, 0, 8));
		poll_status(b.cq, FFV_WC_SUCCESS);
	}
	CHECK_OK(ffv_start_poll(ex, NULL));
	CHECK_FAIL(ffv_start_poll(ex, NULL), EBUSY, "already");
	for (uint32_t i = 1; i < 4; i++) {
		CHECK_OK(ffv_next_poll(ex));
		CHECK_EQ(ffv_cq_polled(ex)->wc.wr_id, i);
	}
	ffv_end_poll(ex);
	CHECK_EQ(poll_status(ex, FFV_WC_SUCCESS).wr_id, 4); /* it is a completion queue like any other, too */
	wire_close(&wire);
	CHECK_OK(ffv_destroy_cq(ex));
}

struct pollers { struct ffv_cq *cq; _Atomic uint32_t polled; _Atomic uint32_t inside; };

static void *poll_in_batches(void *arg)
{
	struct pollers *pollers = arg;

	while (ffv_load_relaxed(&pollers->polled) < MESSAGES) {
		int rc = ffv_start_poll(pollers->cq, NULL);
		if (rc) {
			CHECK_RC(rc, -ENOENT);
			sched_yield();
			continue;
		}
		CHECK_EQ(ffv_fetch_add(&pollers->inside, 1u), 0); /* nobody else's batch is open */
		do {
			CHECK_EQ(ffv_cq_polled(pollers->cq)->wc.status, FFV_WC_SUCCESS);
			ffv_fetch_add(&pollers->polled, 1u);
		} while (!ffv_next_poll(pollers->cq));
		CHECK_EQ(ffv_fetch_sub(&pollers->inside, 1u), 1);
		ffv_end_poll(pollers->cq);
	}
	return NULL;
}

static void test_batches_of_threads_exclude_each_other(void)
{
	struct pollers pollers = { .cq = create_ex(&a, 64, ALL_FIELDS, 0) };
	struct wire wire = wire_open(pollers.cq, b.cq, 32);
	pthread_t threads[2];
	struct ffv_sge sge;

	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, poll_in_batches, &pollers), 0);
	struct ffv_send_wr wr = send_wr(1, FFV_WR_RDMA_WRITE, &sge, wire.ma, 0, 8);
	wr.wr.rdma = (struct ffv_wr_rdma){ (uintptr_t)wire.mb->addr, wire.mb->rkey };
	for (uint32_t i = 0; i < MESSAGES;) {
		int rc = ffv_post_send(wire.qa, &wr, NULL);
		if (rc == -ENOMEM) {
			sched_yield();
			continue;
		}
		CHECK_OK(rc);
		i++;
	}
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	CHECK_EQ(ffv_load_relaxed(&pollers.polled), MESSAGES);
	wire_close(&wire);
	CHECK_OK(ffv_destroy_cq(pollers.cq));
}

/* ---- overrun ------------------------------------------------------------------------------------------------------------ */

static void test_an_overrun_can_be_ignored(void)
{
	struct ffv_cq *ex = create_ex(&a, 1, FFV_WC_EX_WITH_COMPLETION_TIMESTAMP, FFV_CREATE_CQ_ATTR_IGNORE_OVERRUN);
	struct wire wire = wire_open(ex, b.cq, 64);
	struct ffv_sge sge;
	uint64_t last = 0;
	uint32_t polled = 0;

	struct ffv_send_wr wr = send_wr(0, FFV_WR_RDMA_WRITE, &sge, wire.ma, 0, 8);
	wr.wr.rdma = (struct ffv_wr_rdma){ (uintptr_t)wire.mb->addr, wire.mb->rkey };
	for (wr.wr_id = 1; wr.wr_id <= 60; wr.wr_id++)
		CHECK_OK(ffv_post_send(wire.qa, &wr, NULL));
	while (!ffv_start_poll(ex, NULL)) {
		CHECK_EQ(ffv_cq_polled(ex)->wc.wr_id, last + 1); /* those that had room, in order */
		last = ffv_cq_polled(ex)->wc.wr_id;
		polled++;
		ffv_end_poll(ex);
	}
	CHECK(polled >= 1 && polled < 60);
	CHECK_EQ(ffv_qp_state(wire.qa), FFV_QPS_RTS);
	CHECK_OK(ffv_post_send(wire.qa, &wr, NULL)); /* and it goes on */
	CHECK_EQ(poll_status(ex, FFV_WC_SUCCESS).wr_id, 61);
	wire_close(&wire);
	CHECK_OK(ffv_destroy_cq(ex));
}

/* ---- growing ------------------------------------------------------------------------------------------------------------ */

static void test_growing_keeps_what_waits(void)
{
	struct ffv_cq *cq = create_ex(&a, 1, FFV_WC_EX_WITH_COMPLETION_TIMESTAMP, 0);
	struct wire wire = wire_open(cq, b.cq, 1024);
	struct ffv_sge sge;
	uint64_t next = 0, posted = 0;

	struct ffv_send_wr wr = send_wr(0, FFV_WR_RDMA_WRITE, &sge, wire.ma, 0, 8);
	wr.wr.rdma = (struct ffv_wr_rdma){ (uintptr_t)wire.mb->addr, wire.mb->rkey };
	for (int cqe = 1; cqe <= 900; cqe *= 3) {
		CHECK_OK(ffv_resize_cq(cq, cqe));
		CHECK_OK(ffv_resize_cq(cq, cqe + 1)); /* and once more with nothing in between */
		CHECK_EQ(ffv_cq_cqe(cq), cqe + 1);
		while (posted < (uint64_t)cqe) {
			wr.wr_id = posted++;
			CHECK_OK(ffv_post_send(wire.qa, &wr, NULL));
		}
		if (cqe > 1)
			CHECK_FAIL(ffv_resize_cq(cq, cqe - 1), EINVAL, "wait");
	}
	uint64_t before_ns = 0;
	while (!ffv_start_poll(cq, NULL)) {
		CHECK_EQ(ffv_cq_polled(cq)->wc.wr_id, next++);
		CHECK(ffv_cq_polled(cq)->completion_ts >= before_ns);
		before_ns = ffv_cq_polled(cq)->completion_ts;
		ffv_end_poll(cq);
	}
	CHECK_EQ(next, posted);
	CHECK_OK(ffv_resize_cq(cq, 5));
	CHECK_EQ(ffv_cq_cqe(cq), 5);
	CHECK_FAIL(ffv_resize_cq(cq, 0), EINVAL, "entries");
	wire_close(&wire);
	CHECK_OK(ffv_destroy_cq(cq));
}

struct writer { struct wire wire; struct ffv_cq *cq; };

static void *write_much(void *arg)
{
	struct writer *writer = arg;
	struct ffv_sge sge;
	struct ffv_send_wr wr = send_wr(0, FFV_WR_RDMA_WRITE, &sge, writer->wire.ma, 0, 8);

	wr.wr.rdma = (struct ffv_wr_rdma){ (uintptr_t)writer->wire.mb->addr, writer->wire.mb->rkey };
	while (wr.wr_id < MESSAGES) {
		int rc = ffv_post_send(writer->wire.qa, &wr, NULL);
		if (rc == -ENOMEM) {
			sched_yield();
			continue;
		}
		CHECK_OK(rc);
		wr.wr_id++;
	}
	return NULL;
}

/* Two threads complete to one queue that a third polls and resizes, up and down: nothing is lost, doubled or reordered. */
static void test_growing_under_traffic(void)
{
	struct ffv_cq *cq = create_ex(&a, 70, FFV_WC_EX_WITH_COMPLETION_TIMESTAMP, 0);
	struct writer writers[2] = { { wire_open(cq, b.cq, 32), cq }, { wire_open(cq, b.cq, 32), cq } };
	uint64_t next[2] = { 0, 0 }, deadline_ns = ffv_clock_ns() + PAIR_HANG_NS;
	pthread_t threads[2];
	int cqe = 70;
	struct ffv_wc wc;

	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, write_much, &writers[i]), 0);
	for (uint32_t rounds = 0; next[0] + next[1] < 2u * MESSAGES; rounds++) {
		int n = ffv_poll_cq(cq, 1, &wc);
		CHECK(n >= 0 && ffv_clock_ns() < deadline_ns);
		if (n) {
			int which = wc.qp_num == ffv_qp_num(writers[1].wire.qa);
			CHECK_EQ(wc.status, FFV_WC_SUCCESS);
			CHECK_EQ(wc.wr_id, next[which]);
			next[which]++;
		}
		if (rounds % 64 == 0 && cqe < 100000)
			CHECK_OK(ffv_resize_cq(cq, cqe = cqe * 5 / 4));
	}
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	CHECK_EQ(ffv_poll_cq(cq, 1, &wc), 0);
	for (int i = 0; i < 2; i++)
		wire_close(&writers[i].wire);
	CHECK_OK(ffv_destroy_cq(cq));
}

/* ---- moderation --------------------------------------------------------------------------------------------------------- */

static bool event_waits(struct ffv_comp_channel *channel, int timeout_ms)
{
	struct pollfd fd = { .fd = ffv_comp_channel_fd(channel), .events = POLLIN };

	return poll(&fd, 1, timeout_ms) == 1;
}

static void take_event(struct ffv_comp_channel *channel, struct ffv_cq *cq)
{
	struct ffv_cq *from;

	CHECK(event_waits(channel, 60000));
	CHECK_OK(ffv_get_cq_event(channel, &from, NULL));
	CHECK(from == cq);
	ffv_ack_cq_events(from, 1);
}

static void moderate(struct ffv_cq *cq, uint16_t count, uint16_t period_us)
{
	struct ffv_modify_cq_attr attr = { FFV_CQ_ATTR_MODERATE, { count, period_us } };

	CHECK_OK(ffv_modify_cq(cq, &attr));
}

static void write_some(struct wire *wire, uint32_t count)
{
	struct ffv_sge sge;
	struct ffv_send_wr wr = send_wr(1, FFV_WR_RDMA_WRITE, &sge, wire->ma, 0, 8);

	wr.wr.rdma = (struct ffv_wr_rdma){ (uintptr_t)wire->mb->addr, wire->mb->rkey };
	while (count--)
		CHECK_OK(ffv_post_send(wire->qa, &wr, NULL));
}

static void test_moderation(void)
{
	struct ffv_modify_cq_attr unknown = { .attr_mask = 3 };
	struct ffv_comp_channel *channel;
	struct ffv_cq *cq;

	CHECK_OK(ffv_create_comp_channel(a.ctx, &channel));
	CHECK_OK(ffv_create_cq(a.ctx, 64, NULL, channel, 0, &cq));
	CHECK_FAIL(ffv_modify_cq(cq, &unknown), EINVAL, "attr_mask");
	CHECK_FAIL(ffv_modify_cq(cq, NULL), EINVAL, "attr_mask");
	struct wire wire = wire_open(cq, b.cq, 64);
	moderate(cq, 4, 0); /* by number alone */
	for (uint32_t round = 0; round < 3; round++) {
		CHECK_OK(ffv_req_notify_cq(cq, 0));
		write_some(&wire, 3);
		CHECK_OK(ffv_req_notify_cq(cq, 0)); /* does not begin to count anew */
		CHECK(!event_waits(channel, 0));
		write_some(&wire, 1);
		take_event(channel, cq);
		CHECK(!event_waits(channel, 0));
		for (uint32_t i = 0; i < 4; i++)
			poll_status(cq, FFV_WC_SUCCESS);
	}
	moderate(cq, 0, 30000); /* by time alone */
	CHECK_OK(ffv_req_notify_cq(cq, 0));
	uint64_t before_ns = ffv_clock_ns();
	write_some(&wire, 9);
	take_event(channel, cq);
	CHECK(ffv_clock_ns() - before_ns >= 30000000);
	CHECK_OK(ffv_req_notify_cq(cq, 0));
	write_some(&wire, 1);
	moderate(cq, 0, 0); /* what waits is told when the rules change */
	take_event(channel, cq);
	moderate(cq, 60000, 65535);
	CHECK_OK(ffv_req_notify_cq(cq, 0));
	write_some(&wire, 1);
	CHECK_OK(qp_to_error(wire.qa));
	CHECK_OK(ffv_destroy_qp(wire.qa)); /* and the queue goes while its timer runs */
	CHECK_OK(ffv_destroy_cq(cq));
	CHECK_OK(ffv_destroy_comp_channel(channel));
	CHECK_OK(ffv_destroy_qp(wire.qb));
	CHECK_OK(ffv_dereg_mr(wire.ma));
	CHECK_OK(ffv_dereg_mr(wire.mb));
}

int main(void)
{
	opened_directory();
	side_open(&a, 256);
	side_open(&b, 256);
	test_attributes_are_checked();
	test_the_parent_domain_is_in_use();
	test_fields_and_times();
	test_batches();
	test_batches_of_threads_exclude_each_other();
	test_an_overrun_can_be_ignored();
	test_growing_keeps_what_waits();
	test_growing_under_traffic();
	test_moderation();
	side_close(&a);
	side_close(&b);
	scratch_remove();
	return 0;
}

/* Receive work queues, indirection tables, and the queue that a packet's hash names. */
#include <errno.h>

#include "frames.h"
#include "pair.h"
#include "rss_vectors.h"

#define LOG_ENTRIES 3u
#define ENTRIES (1u << LOG_ENTRIES)
#define DEPTH 32u

static struct ffv_wq *wq_make(struct side *side)
{
	struct ffv_wq_init_attr attr = { .wq_type = FFV_WQT_RQ, .max_wr = DEPTH, .max_sge = 2, .pd = side->pd,
					 .cq = side->cq };
	struct ffv_wq *wq;

	CHECK_OK(ffv_create_wq(side->ctx, &attr, &wq));
	CHECK_EQ(attr.max_wr, DEPTH);
	CHECK_EQ(ffv_wq_state(wq), FFV_WQS_RESET);
	return wq;
}

static int wq_go(struct ffv_wq *wq, uint32_t state)
{
	struct ffv_wq_attr attr = { .attr_mask = FFV_WQ_ATTR_STATE, .wq_state = state };

	return ffv_modify_wq(wq, &attr);
}

static int wq_receive(struct ffv_wq *wq, uint64_t wr_id, struct ffv_mr *mr)
{
	struct ffv_sge sge = { (uintptr_t)mr->addr, 4096, mr->lkey };
	struct ffv_recv_wr wr = { .wr_id = wr_id, .sg_list = &sge, .num_sge = 1 };

	return ffv_post_wq_recv(wq, &wr, NULL);
}

/* A queue pair over a table of ENTRIES work queues. */
struct spread { struct ffv_wq *wqs[ENTRIES]; struct ffv_rwq_ind_table *table; struct ffv_qp *qp; struct ffv_flow *flow; };

static int spread_qp(struct side *side, struct ffv_rwq_ind_table *table, uint64_t fields, struct ffv_qp **out)
{
	struct ffv_qp_init_attr_ex attr = {
		.qp_type = FFV_QPT_RAW_PACKET, .pd = side->pd, .rwq_ind_tbl = table,
		.comp_mask = FFV_QP_INIT_ATTR_PD | FFV_QP_INIT_ATTR_IND_TABLE | FFV_QP_INIT_ATTR_RX_HASH,
		.rx_hash_conf = { FFV_RX_HASH_FUNC_TOEPLITZ, sizeof rss_key, (uint8_t *)(uintptr_t)rss_key, fields } };

	return ffv_create_qp_ex(side->ctx, &attr, out);
}

static struct spread spread_open(struct side *side, uint64_t fields)
{
	struct ffv_flow_attr any = { .size = sizeof any, .port = 1 };
	struct spread spread;

	for (uint32_t i = 0; i < ENTRIES; i++) {
		spread.wqs[i] = wq_make(side);
		CHECK_OK(wq_go(spread.wqs[i], FFV_WQS_RDY));
	}
	struct ffv_rwq_ind_table_init_attr attr = { .log_ind_tbl_size = LOG_ENTRIES, .ind_tbl = spread.wqs };
	CHECK_OK(ffv_create_rwq_ind_table(side->ctx, &attr, &spread.table));
	CHECK_OK(spread_qp(side, spread.table, fields, &spread.qp));
	CHECK_OK(ffv_create_flow(spread.qp, &any, &spread.flow));
	return spread;
}

static void spread_close(struct spread *spread)
{
	CHECK_EQ(ffv_destroy_wq(spread->wqs[0]), -EBUSY);
	CHECK_EQ(ffv_destroy_rwq_ind_table(spread->table), -EBUSY);
	CHECK_EQ(ffv_destroy_qp(spread->qp), -EBUSY);
	CHECK_OK(ffv_destroy_flow(spread->flow));
	CHECK_OK(ffv_destroy_qp(spread->qp));
	CHECK_OK(ffv_destroy_rwq_ind_table(spread->table));
	for (uint32_t i = 0; i < ENTRIES; i++)
		CHECK_OK(ffv_destroy_wq(spread->wqs[i]));
}

static struct ffv_qp *sender(struct side *side)
{
	struct ffv_qp *qp = side_qp(side, side->cq, FFV_QPT_RAW_PACKET, NULL, DEPTH);
	struct ffv_qp_attr init = { .qp_state = FFV_QPS_INIT, .port_num = 1 }, rtr = { .qp_state = FFV_QPS_RTR },
			   rts = { .qp_state = FFV_QPS_RTS };

	CHECK_OK(ffv_modify_qp(qp, &init, FFV_QP_STATE | FFV_QP_PORT));
	CHECK_OK(ffv_modify_qp(qp, &rtr, FFV_QP_STATE));
	CHECK_OK(ffv_modify_qp(qp, &rts, FFV_QP_STATE));
	return qp;
}

static void send_frame(struct side *side, struct ffv_qp *qp, struct ffv_mr *mr, const struct frame *frame)
{
	memcpy(mr->addr, frame->bytes, frame->length);
	CHECK_OK(post_send(qp, 1, mr, 0, frame->length));
	poll_status(side->cq, FFV_WC_SUCCESS);
}

/* The published hash names the entry that a packet comes to, on every queue alike. */
static void packets_go_where_their_hash_says(uint64_t fields, bool with_ports)
{
	struct side a, b;
	struct ffv_mr *from, *to;

	side_open(&a, 64);
	side_open(&b, 256);
	struct ffv_qp *qp = sender(&a);
	struct spread spread = spread_open(&b, fields);
	CHECK_OK(ffv_alloc_mr(a.pd, 4096, PAIR_ACCESS, &from));
	CHECK_OK(ffv_alloc_mr(b.pd, 4096, PAIR_ACCESS, &to));
	for (uint32_t i = 0; i < ENTRIES; i++)
		for (uint32_t n = 0; n < RSS_VECTORS + 1; n++)
			CHECK_OK(wq_receive(spread.wqs[i], i, to));
	for (unsigned i = 0; i < RSS_VECTORS; i++) {
		const struct rss_vector *v = &rss_vectors[i];
		struct frame frame = frame_make((struct frame_of){ .family = v->family, .src_ip = v->src_ip, .dst_ip = v->dst_ip,
								   .protocol = i & 1 ? 6 : 17, .src_port = v->src_port,
								   .dst_port = v->dst_port, .payload_bytes = i });
		uint32_t entry = (with_ports ? v->with_ports : v->without_ports) % ENTRIES;
		send_frame(&a, qp, from, &frame);
		struct ffv_wc wc = poll_status(b.cq, FFV_WC_SUCCESS);
		CHECK_EQ(wc.wr_id, entry);
		CHECK_EQ(wc.qp_num, ffv_wq_num(spread.wqs[entry]));
		CHECK_EQ(wc.byte_len, frame.length);
		CHECK(!memcmp(to->addr, frame.bytes, frame.length));
	}
	/* What has none of the fields goes to the first entry. */
	struct frame other = frame_make((struct frame_of){ .payload_bytes = 50 });
	send_frame(&a, qp, from, &other);
	CHECK_EQ(poll_status(b.cq, FFV_WC_SUCCESS).wr_id, 0);
	spread_close(&spread);
	CHECK_OK(ffv_destroy_qp(qp));
	CHECK_OK(ffv_dereg_mr(from));
	CHECK_OK(ffv_dereg_mr(to));
	side_close(&b);
	side_close(&a);
}

/* A queue that is not ready loses its packets, the others do not; an error stays in its queue. */
static void queues_have_states(void)
{
	struct side a, b;
	struct ffv_mr *from, *to;

	side_open(&a, 64);
	side_open(&b, 256);
	struct ffv_qp *qp = sender(&a);
	struct spread spread = spread_open(&b, 0); /* no fields: all to the first entry */
	struct ffv_wq *wq = spread.wqs[0];
	struct frame frame = frame_make((struct frame_of){ .payload_bytes = 100 });
	CHECK_OK(ffv_alloc_mr(a.pd, 4096, PAIR_ACCESS, &from));
	CHECK_OK(ffv_alloc_mr(b.pd, 4096, PAIR_ACCESS, &to));
	CHECK_EQ(ffv_wq_state(wq), FFV_WQS_RDY);
	CHECK_OK(wq_receive(wq, 1, to));
	CHECK_OK(wq_go(wq, FFV_WQS_ERR));
	CHECK_EQ(ffv_wq_state(wq), FFV_WQS_ERR);
	CHECK_EQ(poll_status(b.cq, FFV_WC_WR_FLUSH_ERR).wr_id, 1);
	send_frame(&a, qp, from, &frame); /* lost */
	CHECK_EQ(wq_go(wq, FFV_WQS_RDY), -EINVAL);
	CHECK_OK(wq_go(wq, FFV_WQS_RESET));
	CHECK_EQ(wq_receive(wq, 1, to), -EINVAL);
	CHECK_EQ(wq_go(wq, FFV_WQS_ERR), -EINVAL);
	CHECK_OK(wq_go(wq, FFV_WQS_RDY));
	CHECK_OK(wq_go(wq, FFV_WQS_RDY));
	CHECK_OK(wq_receive(wq, 2, to));
	send_frame(&a, qp, from, &frame);
	CHECK_EQ(poll_status(b.cq, FFV_WC_SUCCESS).wr_id, 2);
	/* A packet that is too long for its buffer. */
	struct ffv_sge sge = { (uintptr_t)to->addr, 50, to->lkey };
	struct ffv_recv_wr wr = { .wr_id = 3, .sg_list = &sge, .num_sge = 1 };
	CHECK_OK(ffv_post_wq_recv(wq, &wr, NULL));
	send_frame(&a, qp, from, &frame);
	CHECK_EQ(poll_status(b.cq, FFV_WC_LOC_LEN_ERR).wr_id, 3);
	CHECK_EQ(ffv_wq_state(wq), FFV_WQS_ERR);
	CHECK_EQ(ffv_wq_state(spread.wqs[1]), FFV_WQS_RDY);
	struct ffv_wq_attr believed = { .attr_mask = FFV_WQ_ATTR_STATE | FFV_WQ_ATTR_CURR_STATE, .wq_state = FFV_WQS_RESET,
					.curr_wq_state = FFV_WQS_RDY };
	CHECK_EQ(ffv_modify_wq(wq, &believed), -EINVAL);
	believed.curr_wq_state = FFV_WQS_ERR;
	CHECK_OK(ffv_modify_wq(wq, &believed));
	believed = (struct ffv_wq_attr){ .attr_mask = FFV_WQ_ATTR_FLAGS, .flags = 1, .flags_mask = 1 };
	CHECK_EQ(ffv_modify_wq(wq, &believed), -EOPNOTSUPP);
	believed.attr_mask = 8;
	CHECK_EQ(ffv_modify_wq(wq, &believed), -EINVAL);
	CHECK_EQ(wq_go(wq, 7), -EINVAL);
	/* The queue pair itself only spreads. */
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_RTS };
	CHECK_EQ(ffv_modify_qp(spread.qp, &attr, FFV_QP_STATE), -EOPNOTSUPP);
	CHECK_EQ(post_send(spread.qp, 1, to, 0, 60), -EINVAL);
	CHECK(post_recv(spread.qp, 1, to, 0, 60) < 0);
	spread_close(&spread);
	CHECK_OK(ffv_destroy_qp(qp));
	CHECK_OK(ffv_dereg_mr(from));
	CHECK_OK(ffv_dereg_mr(to));
	side_close(&b);
	side_close(&a);
}

static void what_cannot_be_is_refused(void)
{
	struct side a, b;
	struct ffv_wq *wq, *foreign, *two[2], *none;
	struct ffv_rwq_ind_table *table;
	struct ffv_qp *qp;
	uint8_t key[40] = { 0 };

	side_open(&a, 16);
	side_open(&b, 16);
	wq = wq_make(&a);
	foreign = wq_make(&b);
	struct ffv_wq_init_attr good = { .max_wr = 4, .max_sge = 1, .pd = a.pd, .cq = a.cq }, bad;
#define REFUSED(err, change)                                               \
	do {                                                               \
		bad = good;                                                \
		bad.change;                                                \
		CHECK_EQ(ffv_create_wq(a.ctx, &bad, &none), -(err));       \
	} while (0)
	REFUSED(EINVAL, wq_type = 1);
	REFUSED(EINVAL, max_wr = 0);
	REFUSED(EINVAL, max_wr = FFV_MAX_WR + 1);
	REFUSED(EINVAL, max_sge = FFV_MAX_SGE + 1);
	REFUSED(EINVAL, pd = NULL);
	REFUSED(EINVAL, pd = b.pd);
	REFUSED(EINVAL, cq = NULL);
	REFUSED(EINVAL, cq = b.cq);
	REFUSED(EINVAL, comp_mask = 2);
	bad = good;
	bad.comp_mask = FFV_WQ_INIT_ATTR_FLAGS;
	bad.create_flags = 1;
	CHECK_EQ(ffv_create_wq(a.ctx, &bad, &none), -EOPNOTSUPP);
	CHECK_EQ(ffv_create_wq(a.ctx, NULL, &none), -EINVAL);
	CHECK_EQ(ffv_destroy_wq(NULL), -EINVAL);
	two[0] = wq;
	two[1] = foreign;
	struct ffv_rwq_ind_table_init_attr attr = { .log_ind_tbl_size = 1, .ind_tbl = two };
	CHECK_EQ(ffv_create_rwq_ind_table(a.ctx, &attr, &table), -EINVAL);
	two[1] = NULL;
	CHECK_EQ(ffv_create_rwq_ind_table(a.ctx, &attr, &table), -EINVAL);
	attr.log_ind_tbl_size = 32;
	CHECK_EQ(ffv_create_rwq_ind_table(a.ctx, &attr, &table), -EINVAL);
	attr.log_ind_tbl_size = 1;
	attr.comp_mask = 1;
	CHECK_EQ(ffv_create_rwq_ind_table(a.ctx, &attr, &table), -EINVAL);
	attr.comp_mask = 0;
	two[1] = wq; /* twice the same is allowed */
	CHECK_OK(ffv_create_rwq_ind_table(a.ctx, &attr, &table));
	CHECK_EQ(spread_qp(&a, table, 1u << 8, &qp), -EOPNOTSUPP);
	CHECK_EQ(spread_qp(&a, NULL, 1, &qp), -EINVAL);
	CHECK_EQ(spread_qp(&b, table, 1, &qp), -EINVAL);
	struct ffv_qp_init_attr_ex usual = {
		.qp_type = FFV_QPT_RAW_PACKET, .pd = a.pd, .rwq_ind_tbl = table,
		.comp_mask = FFV_QP_INIT_ATTR_PD | FFV_QP_INIT_ATTR_IND_TABLE | FFV_QP_INIT_ATTR_RX_HASH,
		.rx_hash_conf = { FFV_RX_HASH_FUNC_TOEPLITZ, sizeof key, key, 1 } }, odd;
#define REFUSED_QP(err, change)                                            \
	do {                                                               \
		odd = usual;                                               \
		odd.change;                                                \
		CHECK_EQ(ffv_create_qp_ex(a.ctx, &odd, &qp), -(err));      \
	} while (0)
	REFUSED_QP(EOPNOTSUPP, qp_type = FFV_QPT_UD);
	REFUSED_QP(EINVAL, send_cq = a.cq);
	REFUSED_QP(EINVAL, comp_mask = FFV_QP_INIT_ATTR_PD | FFV_QP_INIT_ATTR_IND_TABLE);
	REFUSED_QP(EINVAL, comp_mask = FFV_QP_INIT_ATTR_PD | FFV_QP_INIT_ATTR_RX_HASH);
	REFUSED_QP(EOPNOTSUPP, rx_hash_conf.rx_hash_function = 2);
	REFUSED_QP(EINVAL, rx_hash_conf.rx_hash_key_len = 39);
	REFUSED_QP(EINVAL, rx_hash_conf.rx_hash_key = NULL);
	REFUSED_QP(EINVAL, pd = NULL);
	CHECK_EQ(ffv_close_device(a.ctx), -EBUSY);
	CHECK_OK(ffv_destroy_rwq_ind_table(table));
	CHECK_OK(ffv_destroy_wq(wq));
	CHECK_OK(ffv_destroy_wq(foreign));
	side_close(&b);
	side_close(&a);
}

int main(void)
{
	const uint64_t addresses = FFV_RX_HASH_SRC_IPV4 | FFV_RX_HASH_DST_IPV4 | FFV_RX_HASH_SRC_IPV6 | FFV_RX_HASH_DST_IPV6;

	opened_directory();
	packets_go_where_their_hash_says(addresses, false);
	packets_go_where_their_hash_says(FFV_RX_HASH_ALL_FIELDS, true);
	queues_have_states();
	what_cannot_be_is_refused();
	scratch_remove();
	return 0;
}

/* XRC and tag-matching queues with several senders, threads of one process: every message arrives once, where it belongs,
 * while tags are added and phases synchronised. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>

#include "pair.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define MESSAGES 1500u
#else
#define MESSAGES 5000u
#endif
#define SENDERS 3u
#define RECEIVES 32u
#define SLOT_BYTES 64u

static struct side senders[SENDERS], receiver;
static struct ffv_qp *qps[SENDERS], *peers[SENDERS];
static struct ffv_mr *mrs[SENDERS], *inbox;
static struct ffv_srq *srq;
static struct ffv_xrcd *xrcd;

static void post_receive(uint64_t slot)
{
	struct ffv_sge sge = { (uintptr_t)inbox->addr + slot * SLOT_BYTES, SLOT_BYTES, inbox->lkey };
	struct ffv_recv_wr wr = { .wr_id = slot, .sg_list = &sge, .num_sge = 1 };

	CHECK_OK(ffv_post_srq_recv(srq, &wr, NULL));
}

static volatile uint64_t *slot_words(uint64_t slot)
{
	return (volatile uint64_t *)inbox->addr + slot * (SLOT_BYTES / 8);
}

static void open_sides(void)
{
	side_open(&receiver, 4096);
	CHECK_OK(ffv_alloc_mr(receiver.pd, 65536, PAIR_ACCESS, &inbox));
	for (uint32_t i = 0; i < SENDERS; i++) {
		side_open(&senders[i], 64);
		CHECK_OK(ffv_alloc_mr(senders[i].pd, 4096, PAIR_ACCESS, &mrs[i]));
	}
}

static void close_sides(void)
{
	for (uint32_t i = 0; i < SENDERS; i++) {
		CHECK_OK(ffv_destroy_qp(qps[i]));
		CHECK_OK(ffv_destroy_qp(peers[i]));
		CHECK_OK(ffv_dereg_mr(mrs[i]));
		side_close(&senders[i]);
	}
	CHECK_OK(ffv_dereg_mr(inbox));
	CHECK_OK(ffv_destroy_srq(srq));
	if (xrcd)
		CHECK_OK(ffv_close_xrcd(xrcd));
	xrcd = NULL;
	side_close(&receiver);
}

static void run_senders(void *(*body)(void *), void (*receive)(void))
{
	pthread_t threads[SENDERS];

	for (uintptr_t i = 0; i < SENDERS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, body, (void *)i), 0);
	receive();
	for (uint32_t i = 0; i < SENDERS; i++)
		pthread_join(threads[i], NULL);
}

/* ---- XRC ---------------------------------------------------------------------------------------------------------- */

static struct ffv_qp *xrc_qp(struct side *side, uint32_t type)
{
	struct ffv_qp_init_attr_ex attr = { .send_cq = side->cq, .qp_type = type, .cap = { 16, 0, 2, 0, 64 }, .pd = side->pd,
					    .xrcd = xrcd, .comp_mask = type == FFV_QPT_XRC_RECV ? FFV_QP_INIT_ATTR_XRCD
												   : FFV_QP_INIT_ATTR_PD };
	struct ffv_qp *qp;

	CHECK_OK(ffv_create_qp_ex(side->ctx, &attr, &qp));
	return qp;
}

static void xrc_to_rts(struct ffv_qp *qp, const struct side *to, uint32_t qpn)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_RTR, .path_mtu = 5, .dest_qp_num = qpn, .max_dest_rd_atomic = 4,
				    .min_rnr_timer = 1, .ah_attr = ah_to(to), .timeout = 14, .retry_cnt = 7,
				    .rnr_retry = 7, .max_rd_atomic = 4 };
	bool receives = qp->type == FFV_QPT_XRC_RECV;

	qp_to_init(qp);
	CHECK_OK(ffv_modify_qp(qp, &attr, FFV_QP_STATE | FFV_QP_AV | FFV_QP_PATH_MTU | FFV_QP_DEST_QPN | FFV_QP_RQ_PSN |
			       (receives ? FFV_QP_MAX_DEST_RD_ATOMIC | FFV_QP_MIN_RNR_TIMER : 0)));
	attr.qp_state = FFV_QPS_RTS;
	CHECK_OK(ffv_modify_qp(qp, &attr, FFV_QP_STATE | FFV_QP_SQ_PSN | FFV_QP_TIMEOUT |
			       (receives ? 0 : FFV_QP_RETRY_CNT | FFV_QP_RNR_RETRY | FFV_QP_MAX_QP_RD_ATOMIC)));
}

static void *send_xrc(void *arg)
{
	uintptr_t which = (uintptr_t)arg;
	volatile uint64_t *word = mrs[which]->addr;
	struct ffv_sge sge;

	for (uint64_t i = 0; i < MESSAGES; i++) {
		struct ffv_send_wr wr = send_wr(i, FFV_WR_SEND, &sge, mrs[which], 0, 8);
		wr.xrc_remote_srqn = ffv_srq_num(srq);
		*word = which << 32 | i;
		CHECK_OK(ffv_post_send(qps[which], &wr, NULL));
		CHECK_EQ(poll_status(senders[which].cq, FFV_WC_SUCCESS).wr_id, i);
	}
	return NULL;
}

static void receive_xrc(void)
{
	uint64_t next[SENDERS] = { 0 };

	for (uint64_t n = 0; n < (uint64_t)SENDERS * MESSAGES; n++) {
		struct ffv_wc wc = poll_status(receiver.cq, FFV_WC_SUCCESS);
		uint64_t word = *slot_words(wc.wr_id);
		CHECK((word >> 32) < SENDERS);
		CHECK_EQ(word & UINT32_MAX, next[word >> 32]++);
		CHECK_EQ(wc.qp_num, ffv_qp_num(peers[word >> 32]));
		post_receive(wc.wr_id);
	}
}

static void test_xrc(void)
{
	struct ffv_xrcd_init_attr domain = { FFV_XRCD_INIT_ATTR_FD | FFV_XRCD_INIT_ATTR_OFLAGS, -1, O_CREAT };

	open_sides();
	CHECK_OK(ffv_open_xrcd(receiver.ctx, &domain, &xrcd));
	struct ffv_srq_init_attr_ex attr = {
		.attr = { .max_wr = RECEIVES, .max_sge = 1 }, .srq_type = FFV_SRQT_XRC, .pd = receiver.pd, .xrcd = xrcd,
		.cq = receiver.cq, .comp_mask = FFV_SRQ_INIT_ATTR_TYPE | FFV_SRQ_INIT_ATTR_PD | FFV_SRQ_INIT_ATTR_XRCD |
						FFV_SRQ_INIT_ATTR_CQ };
	CHECK_OK(ffv_create_srq_ex(receiver.ctx, &attr, &srq));
	for (uint32_t i = 0; i < SENDERS; i++) {
		qps[i] = xrc_qp(&senders[i], FFV_QPT_XRC_SEND);
		peers[i] = xrc_qp(&receiver, FFV_QPT_XRC_RECV);
		xrc_to_rts(peers[i], &senders[i], ffv_qp_num(qps[i]));
		xrc_to_rts(qps[i], &receiver, ffv_qp_num(peers[i]));
	}
	for (uint64_t slot = 0; slot < 4; slot++) /* few: senders wait */
		post_receive(slot);
	run_senders(send_xrc, receive_xrc);
	close_sides();
}

/* ---- tags --------------------------------------------------------------------------------------------------------- */

/* Message n of a sender has its number as tag; the receiver adds tags, sometimes too late: then the message is unexpected,
 * and the tag is found not to be needed. */
static uint64_t tag_of(uint64_t which, uint64_t n)
{
	return which << 32 | n;
}

static _Atomic uint64_t announced[SENDERS]; /* tags added so far */

static void *send_tagged(void *arg)
{
	uintptr_t which = (uintptr_t)arg;
	struct { struct ffv_tmh tmh; uint64_t word; } *message = mrs[which]->addr;

	for (uint64_t i = 0; i < MESSAGES; i++) {
		while (i % 4 && ffv_load_acquire(&announced[which]) <= i) /* some come before their tag, most after it */
			sched_yield();
		message->tmh = (struct ffv_tmh){ .opcode = FFV_TMH_EAGER, .tag_be = htobe64(tag_of(which, i)) };
		message->word = tag_of(which, i);
		CHECK_OK(post_send(qps[which], i, mrs[which], 0, sizeof *message));
		CHECK_EQ(poll_status(senders[which].cq, FFV_WC_SUCCESS).wr_id, i);
	}
	return NULL;
}

#define TAG_SLOT (RECEIVES) /* of the inbox, from here on: one for each sender */

static struct { uint64_t next; bool posted; uint32_t handle; } streams[SENDERS];
static uint32_t num_unexpected, num_matched;

static int operate(uint32_t opcode, uint64_t which, int flags)
{
	struct ffv_sge sge = { (uintptr_t)slot_words(TAG_SLOT + which), SLOT_BYTES, inbox->lkey };
	struct ffv_ops_wr wr = { .wr_id = which, .opcode = opcode, .flags = flags,
				 .tm = { .unexpected_cnt = num_unexpected, .handle = streams[which].handle,
					 .add = { 1000 + which, &sge, 1, tag_of(which, streams[which].next), UINT64_MAX } } };
	int rc = ffv_post_srq_ops(srq, &wr, NULL);

	streams[which].handle = wr.tm.handle;
	return rc;
}

/* A message came without its tag: if the tag is there by now, it is taken back. */
static void on_unexpected(uint64_t slot)
{
	uint64_t which = slot_words(slot)[2] >> 32;

	CHECK(which < SENDERS);
	CHECK_EQ(slot_words(slot)[2], tag_of(which, streams[which].next));
	num_unexpected++;
	if (streams[which].posted) /* it was added after the message had come, and so does not count: that much is promised */
		CHECK_OK(operate(FFV_WR_TAG_DEL, which, 0));
	streams[which].posted = false;
	streams[which].next++;
	post_receive(slot);
	CHECK_OK(operate(FFV_WR_TAG_SYNC, which, 0));
}

static void on_match(uint64_t which)
{
	CHECK(which < SENDERS);
	CHECK(streams[which].posted);
	CHECK_EQ(*slot_words(TAG_SLOT + which), tag_of(which, streams[which].next));
	streams[which].posted = false;
	streams[which].next++;
	num_matched++;
}

static void receive_tagged(void)
{
	uint64_t done = 0;

	while (done < (uint64_t)SENDERS * MESSAGES) {
		struct ffv_wc wc;
		int n = ffv_poll_cq(receiver.cq, 1, &wc);
		CHECK(n >= 0);
		if (n) {
			CHECK_EQ(wc.status, FFV_WC_SUCCESS);
			CHECK_EQ(wc.opcode, FFV_WC_TM_RECV);
			if (wc.wc_flags & FFV_WC_TM_MATCH)
				on_match(wc.wr_id - 1000);
			else
				on_unexpected(wc.wr_id);
			done++;
		}
		for (uint64_t which = 0; which < SENDERS; which++)
			if (!streams[which].posted && streams[which].next < MESSAGES && rand() % 2) {
				CHECK_OK(operate(FFV_WR_TAG_ADD, which, 0));
				streams[which].posted = true;
				ffv_store_release(&announced[which], streams[which].next + 1);
			}
		sched_yield();
	}
	CHECK(num_matched > 0);
	CHECK(num_unexpected > 0);
}

static void test_tags(void)
{
	open_sides();
	struct ffv_srq_init_attr_ex attr = {
		.attr = { .max_wr = RECEIVES, .max_sge = 1 }, .srq_type = FFV_SRQT_TM, .pd = receiver.pd, .cq = receiver.cq,
		.tm_cap = { 8, 8 }, .comp_mask = FFV_SRQ_INIT_ATTR_TYPE | FFV_SRQ_INIT_ATTR_PD | FFV_SRQ_INIT_ATTR_CQ |
						 FFV_SRQ_INIT_ATTR_TM };
	CHECK_OK(ffv_create_srq_ex(receiver.ctx, &attr, &srq));
	for (uint32_t i = 0; i < SENDERS; i++) {
		qps[i] = side_qp(&senders[i], senders[i].cq, FFV_QPT_RC, NULL, 16);
		peers[i] = side_qp(&receiver, receiver.cq, FFV_QPT_RC, srq, 16);
		qp_connect(qps[i], &senders[i], peers[i], &receiver);
	}
	for (uint64_t slot = 0; slot < RECEIVES; slot++)
		post_receive(slot);
	run_senders(send_tagged, receive_tagged);
	close_sides();
}

int main(void)
{
	srand(test_seed());
	opened_directory();
	test_xrc();
	test_tags();
	scratch_remove();
	return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * RDMA WRITE through the engine, measured as ucx_put.c measures UCX: two pinned processes, each with a context of its
 * own, run the stream of stream.h, and only what the far end has checked is counted.
 *
 *   ffv_write [--cpus A,B] [--far-end idle|samples|reads|copies] [--slots N] [--size BYTES] [--iters N] [--batches N]
 *
 * Uses the public header alone. Prints one JSON object.
 */
#define _GNU_SOURCE
#include <ffverbs/ffv.h>

#include "ffv_ends.h"
#include "stream_args.h"

struct endpoint {
	struct ffv_context *context;
	struct ffv_pd *pd;
	struct ffv_cq *cq;
	struct ffv_qp *qp;
	struct ffv_mr *mr; /* the near end's buffers, or the far end's slots */
	struct ffv_gid gid;
	uint64_t remote_addr;
	uint32_t remote_rkey;
	size_t size_bytes;
};

/* What the two ends tell each other. */
struct address {
	struct ffv_gid gid;
	uint32_t qp_num;
	uint32_t rkey;
	uint64_t addr;
};

static void endpoint_open(struct endpoint *e, const struct stream *s)
{
	struct ffv_qp_init_attr init = {
		.cap = { .max_send_wr = 16, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1 },
		.qp_type = FFV_QPT_RC,
	};

	e->size_bytes = s->size_bytes;
	check_ffv(ffv_open_device(NULL, &e->context), "ffv_open_device");
	check_ffv(ffv_query_gid(e->context, 1, 1, &e->gid), "ffv_query_gid");
	check_ffv(ffv_alloc_pd(e->context, &e->pd), "ffv_alloc_pd");
	check_ffv(ffv_create_cq(e->context, 32, NULL, NULL, 0, &e->cq), "ffv_create_cq");
	init.send_cq = init.recv_cq = e->cq;
	check_ffv(ffv_create_qp(e->pd, &init, &e->qp), "ffv_create_qp");
	check_ffv(ffv_alloc_mr(e->pd, stream_memory_bytes(s), FFV_ACCESS_LOCAL_WRITE | FFV_ACCESS_REMOTE_WRITE, &e->mr),
		  "ffv_alloc_mr");
}

static void endpoint_close(struct endpoint *e)
{
	check_ffv(ffv_destroy_qp(e->qp), "ffv_destroy_qp");
	check_ffv(ffv_dereg_mr(e->mr), "ffv_dereg_mr");
	check_ffv(ffv_destroy_cq(e->cq), "ffv_destroy_cq");
	check_ffv(ffv_dealloc_pd(e->pd), "ffv_dealloc_pd");
	check_ffv(ffv_close_device(e->context), "ffv_close_device");
}

/* Both ends tell their address, then both are connected when this returns. */
static void endpoint_connect(struct endpoint *e, int fd)
{
	struct address mine = { e->gid, ffv_qp_num(e->qp), e->mr->rkey, (uint64_t)(uintptr_t)e->mr->addr }, peer;
	char byte;

	send_all(fd, &mine, sizeof(mine));
	receive_all(fd, &peer, sizeof(peer));
	to_rts(e->qp, &peer.gid, peer.qp_num);
	e->remote_addr = peer.addr;
	e->remote_rkey = peer.rkey;
	send_all(fd, "", 1);
	receive_all(fd, &byte, 1);
}

static void write_transfer(void *transport, const unsigned char *from, unsigned slot)
{
	struct endpoint *e = transport;
	struct ffv_sge sge = { (uint64_t)(uintptr_t)from, (uint32_t)e->size_bytes, e->mr->lkey };
	struct ffv_send_wr wr = { .wr_id = slot, .sg_list = &sge, .num_sge = 1, .opcode = FFV_WR_RDMA_WRITE,
				  .send_flags = FFV_SEND_SIGNALED };
	struct ffv_send_wr *bad_wr;
	struct ffv_wc wc;
	int polled;

	wr.wr.rdma.remote_addr = e->remote_addr + slot * e->size_bytes;
	wr.wr.rdma.rkey = e->remote_rkey;
	check_ffv(ffv_post_send(e->qp, &wr, &bad_wr), "ffv_post_send");
	while ((polled = ffv_poll_cq(e->cq, 1, &wc)) == 0)
		;
	check_ffv(polled, "ffv_poll_cq");
	if (wc.status != FFV_WC_SUCCESS || wc.wr_id != slot) {
		fprintf(stderr, "ffv_write: completion %llu has status %u, expected %u with success\n",
			(unsigned long long)wc.wr_id, wc.status, slot);
		exit(1);
	}
}

static void write_second(void *arg)
{
	struct stream_test *t = arg;
	struct endpoint e = { 0 };
	char byte;

	endpoint_open(&e, &t->stream);
	memset(e.mr->addr, 0xff, stream_memory_bytes(&t->stream));
	endpoint_connect(&e, t->sockets[1]);
	if (t->stream.far_end != FAR_IDLE)
		stream_receive(&t->stream, e.mr->addr);
	receive_all(t->sockets[1], &byte, 1);
	endpoint_close(&e);
}

static double write_rate(struct stream_test *t)
{
	struct endpoint e = { 0 };
	pid_t second = start_second(t->cpu, write_second, t);
	double rate;

	endpoint_open(&e, &t->stream);
	stream_fill(&t->stream, e.mr->addr);
	endpoint_connect(&e, t->sockets[0]);
	rate = stream_send(&t->stream, e.mr->addr, write_transfer, &e);
	send_all(t->sockets[0], "", 1);
	finish_second(second);
	endpoint_close(&e);
	return rate;
}

int main(int argc, char **argv)
{
	struct stream_test t;

	stream_parse(argc, argv, &t);
	stream_print("ffv_write", &t.stream, write_rate(&t));
	return 0;
}

/* For tests of the router's data plane: two hosts in one process, each a node directory with a router and one container,
 * the routers connected by a pair of sockets. */
#ifndef FFV_TESTS_WIRE_HOSTS_H
#define FFV_TESTS_WIRE_HOSTS_H

#include <sys/socket.h>

#include <ffverbs/ffv_router.h>

#include "pair.h"

#define HOSTS_MEMORY (8u << 20)

struct host {
	char dir[PATH_MAX];
	struct ffv_router *router;
	uint32_t channel;
	struct side side;
	struct ffv_gid gid;
	struct ffv_mr *mr;
	struct ffv_qp *qp;
};

static struct host hosts[2];

/* What carries: FFV_TEST_TRANSPORT, else tcp. FFV_TEST_RDMA names the addresses of two real devices; where there are none,
 * the transport `rdma` has to do with TCP. */
static inline const char *hosts_transport(struct host *host, int number)
{
	const char *transport = getenv("FFV_TEST_TRANSPORT"), *addresses = getenv("FFV_TEST_RDMA");
	struct ffv_rdma_options options = { .gid_index = -1, .tcp_allowed = 1 };

	if (addresses) {
		const char *comma = strchr(addresses, ',');
		CHECK(comma);
		snprintf(options.host_address, sizeof options.host_address, "%.*s", number ? 63 : (int)(comma - addresses),
			 number ? comma + 1 : addresses);
	}
	int rc = ffv_router_use_rdma(host->router, &options);
	CHECK(!rc == !!addresses);
	return transport ? transport : "tcp";
}

static inline void hosts_describe(int number, char text[400])
{
	CHECK_OK(ffv_router_describe_channel(hosts[number].router, hosts[number].channel, text, 400));
}

/* What every side has seen, of a hang: queue pairs and their queues, completions that nobody has asked for, channels, routers. */
static inline void hosts_tell(void)
{
	struct ffv_router_counters counters;
	struct ffv_router_event event;
	char text[400];

	for (int i = 0; i < 2; i++) {
		struct host *host = &hosts[i];
		struct ffv_wc wc;
		while (ffv_poll_cq(host->side.cq, 1, &wc) == 1)
			fprintf(stderr, "host %d: completion of %llu on %#x, status %u\n", i, (unsigned long long)wc.wr_id, wc.qp_num, wc.status);
		const struct ffv_qp_shm *qp = host->qp ? host->qp->ref.shm : NULL;
		if (qp)
			fprintf(stderr, "host %d: queue pair %#x in state %u, blocked %u, %llu of %llu executed, %u waits\n", i,
				ffv_qp_num(host->qp), ffv_load_acquire(&qp->state), ffv_load_acquire(&qp->blocked),
				(unsigned long long)ffv_load_acquire(&qp->sq_exec), (unsigned long long)ffv_load_acquire(&qp->sq_tail),
				(unsigned)ffv_load_relaxed(&qp->rnr_waits));
		if (!ffv_router_describe_channel(host->router, host->channel, text, sizeof text))
			fprintf(stderr, "host %d: channel: %s\n", i, text);
		CHECK_OK(ffv_router_query(host->router, &counters));
		fprintf(stderr, "host %d: %u channels, %u proxies, %u pairs, %u under way, frames %llu out %llu in\n", i, counters.channels,
			counters.proxies, counters.pairs, counters.under_way, (unsigned long long)counters.frames_sent,
			(unsigned long long)counters.frames_received);
		while (ffv_router_next_event(host->router, &event))
			fprintf(stderr, "host %d: event %u: %s\n", i, event.kind, event.text);
	}
}

/* What was to be expected carried it. */
static inline void hosts_check_transport(void)
{
	char text[400];

	for (int i = 0; i < 2; i++) {
		hosts_describe(i, text);
		printf("%s\n", text);
		CHECK(!strncmp(text, getenv("FFV_TEST_RDMA") ? "rdma " : "tcp", getenv("FFV_TEST_RDMA") ? 5 : 3));
	}
}

static inline void hosts_open_container(int i)
{
	struct host *host = &hosts[i];

	CHECK_EQ(setenv("FFVERBS_DIR", host->dir, 1), 0);
	CHECK_EQ(setenv("FFVERBS_IP", i ? "10.0.2.1" : "10.0.1.1", 1), 0);
	side_open(&host->side, 256);
	CHECK_OK(ffv_query_gid(host->side.ctx, 1, 1, &host->gid));
	CHECK_OK(ffv_alloc_mr(host->side.pd, HOSTS_MEMORY, PAIR_ACCESS, &host->mr));
}

static inline void hosts_open(void)
{
	int sockets[2];

	pair_on_hang = hosts_tell;
	scratch_create();
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
	for (int i = 0; i < 2; i++) {
		struct host *host = &hosts[i];
		snprintf(host->dir, sizeof host->dir, "%s", scratch_folder(i ? "b" : "a", 0700));
		CHECK_OK(ffv_router_create(host->dir, &host->router));
		CHECK_OK(ffv_router_add_channel(host->router, hosts_transport(host, i), sockets[i], &host->channel));
		hosts_open_container(i);
	}
}

/* Each host's container gets to know that the other is reached by its router. */
static inline void hosts_reach(uint32_t type)
{
	for (int i = 0; i < 2; i++)
		hosts[i].qp = side_qp(&hosts[i].side, hosts[i].side.cq, type, NULL, 128);
	for (int i = 0; i < 2; i++)
		CHECK_OK(ffv_router_reach(hosts[i].router, hosts[!i].gid.raw, ffv_qp_num(hosts[!i].qp), hosts[i].channel));
}

static inline void hosts_connect(uint32_t type)
{
	hosts_reach(type);
	qp_connect(hosts[0].qp, &hosts[0].side, hosts[1].qp, &hosts[1].side);
}

static inline void hosts_disconnect(void)
{
	for (int i = 0; i < 2; i++) {
		if (hosts[i].qp)
			CHECK_OK(ffv_destroy_qp(hosts[i].qp));
		hosts[i].qp = NULL;
	}
}

static inline void hosts_close(void)
{
	for (int i = 0; i < 2; i++) {
		CHECK_OK(ffv_dereg_mr(hosts[i].mr));
		side_close(&hosts[i].side);
	}
	for (int i = 0; i < 2; i++)
		ffv_router_destroy(hosts[i].router);
	scratch_remove();
}

static inline void hosts_fill(struct host *host, uint32_t offset, uint32_t length, unsigned seed)
{
	uint8_t *at = (uint8_t *)host->mr->addr + offset;

	for (uint32_t i = 0; i < length; i++) {
		seed = seed * 1103515245u + 12345u;
		at[i] = (uint8_t)(seed ^ seed >> 16);
	}
}

static inline void hosts_check_same(uint32_t from, uint32_t to, uint32_t length)
{
	CHECK(!memcmp((uint8_t *)hosts[0].mr->addr + from, (uint8_t *)hosts[1].mr->addr + to, length));
}

/* A request of the first host's on the memory of the second's. */
static inline void hosts_post(uint32_t opcode, uint64_t wr_id, uint32_t from, uint32_t length, uint32_t to, uint32_t imm)
{
	struct ffv_sge sge;
	struct ffv_send_wr wr = send_wr(wr_id, opcode, &sge, hosts[0].mr, from, length);

	wr.wr.rdma.remote_addr = (uintptr_t)hosts[1].mr->addr + to;
	wr.wr.rdma.rkey = hosts[1].mr->rkey;
	wr.imm_data_be = imm;
	CHECK_OK(ffv_post_send(hosts[0].qp, &wr, NULL));
}

/* A SEND from one to the other, checked. */
static inline void hosts_exchange(struct ffv_qp *from, struct ffv_qp *to, unsigned n)
{
	CHECK_OK(post_recv(to, n, hosts[1].mr, 8192, 4096));
	hosts_fill(&hosts[0], 0, 1000, n);
	CHECK_OK(post_send(from, n, hosts[0].mr, 0, 1000));
	CHECK_EQ(poll_status(hosts[1].side.cq, FFV_WC_SUCCESS).wr_id, n);
	CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).wr_id, n);
	hosts_check_same(0, 8192, 1000);
}

/* Goes on exchanging until both ends say that it is carried so. */
static inline void hosts_exchange_until(const char *how)
{
	uint64_t deadline_ns = ffv_clock_ns() + 2 * PAIR_HANG_NS;
	char text[2][400] = { "", "" };

	for (unsigned n = 0; strncmp(text[0], how, strlen(how)) || strncmp(text[1], how, strlen(how)); n++) {
		CHECK(ffv_clock_ns() < deadline_ns);
		hosts_exchange(hosts[0].qp, hosts[1].qp, n);
		hosts_describe(0, text[0]);
		hosts_describe(1, text[1]);
	}
	printf("%s\n%s\n", text[0], text[1]);
	fflush(stdout);
}

#endif

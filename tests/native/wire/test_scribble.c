/* A container writes what it likes into the arena of a proxy, which it shares with the router, and into its own: the router
 * believes nothing of it that it works with, and others go on. The router is of this process, so that what a container would
 * do from its own is done here to the same words. */
#include <pthread.h>

#include "hosts.h"
#include "verbs/cq.h"
#include "wire/router.h"

#define LARGE 300000u
#define SCRIBBLED_NS 1500000000ull

static struct ffv_qp *bystanders[2];

/* The second host's router's pair for what the first one's container does to the second's. */
static struct ffv_pair *find_pair(void)
{
	struct ffv_router *router = hosts[1].router;
	uint64_t deadline_ns = ffv_clock_ns() + PAIR_HANG_NS;
	struct ffv_pair *found = NULL;

	while (!found) {
		pthread_mutex_lock(&router->lock);
		for (struct ffv_proxy *proxy = router->proxies; proxy; proxy = proxy->next)
			for (uint32_t i = 0; i < proxy->num_live; i++)
				if (proxy->live[i]->far_qpn == ffv_qp_num(hosts[0].qp) && proxy->live[i]->qpn == ffv_qp_num(hosts[1].qp))
					found = proxy->live[i];
		pthread_mutex_unlock(&router->lock);
		CHECK(ffv_clock_ns() < deadline_ns);
	}
	return found;
}

static void connect_them(void)
{
	hosts_connect(FFV_QPT_RC);
	struct ffv_wc wc;
	for (int i = 0; i < 2; i++)
		while (ffv_poll_cq(hosts[i].side.cq, 1, &wc))
			; /* of the one before */
	hosts_exchange(hosts[0].qp, hosts[1].qp, 1);
}

/* Why channels or proxies ended. */
static void tell_events(void)
{
	struct ffv_router_event event;

	for (int i = 0; i < 2; i++)
		while (ffv_router_next_event(hosts[i].router, &event))
			fprintf(stderr, "host %d: event %u: %s\n", i, event.kind, event.text);
}

/* The next completion of a bystander's; others come in between. */
static void poll_bystander(int host, unsigned n)
{
	struct ffv_wc wc;

	do
		wc = poll_one(hosts[host].side.cq);
	while (wc.qp_num != ffv_qp_num(bystanders[host]));
	if (wc.status)
		tell_events();
	CHECK_EQ(wc.status, FFV_WC_SUCCESS);
	CHECK_EQ(wc.wr_id, n);
}

static void others_go_on(unsigned n)
{
	CHECK_OK(post_recv(bystanders[1], n, hosts[1].mr, 6u << 20, 4096));
	hosts_fill(&hosts[0], 6u << 20, 1000, n);
	CHECK_OK(post_send(bystanders[0], n, hosts[0].mr, 6u << 20, 1000));
	poll_bystander(1, n);
	poll_bystander(0, n);
	hosts_check_same(6u << 20, 6u << 20, 1000);
}

/* However the queue pair under attack has ended. */
static void disconnect_them(void)
{
	hosts_disconnect();
	others_go_on(2);
}

/* What becomes of it says whatever it says, or nothing: the lies are about the container's own connection. */
static void let_it_work(void)
{
	usleep(30000);
}

/* A work request that no program can post: what it asks for breaks the rules between routers, for which the channel would end,
 * and with it everybody's connections. */
static void test_flush_with_payload(void)
{
	connect_them();
	struct ffv_qp *qp = hosts[0].qp;
	uint64_t position = ffv_load_acquire(&qp->ref.shm->sq_tail);
	struct ffv_wqe_shm *wqe = ffv_qp_ref_wqe(&qp->ref, position);
	*wqe = (struct ffv_wqe_shm){ .opcode = FFV_WR_FLUSH, .flags = FFV_SEND_SIGNALED, .num_sge = 1, .length_bytes = 5 };
	wqe->sge[0] = (struct ffv_sge_shm){ (uintptr_t)hosts[0].mr->addr, 5, hosts[0].mr->lkey };
	ffv_store_release(&qp->ref.shm->sq_tail, position + 1);
	ffv_qp_run(qp);
	poll_status(hosts[0].side.cq, FFV_WC_LOC_LEN_ERR);
	disconnect_them();
}

static void forge_completion(const struct ffv_pair *pair, uint64_t position, uint8_t status)
{
	struct ffv_proxy *proxy = pair->proxy;
	struct ffv_claim claim;

	ffv_claim_init(&claim, &proxy->cq->ref);
	CHECK(ffv_cq_claim(&claim, &proxy->ctx->view, 1, false, NULL));
	struct ffv_cqe_shm *entry = ffv_cq_entry(&claim);
	ffv_cqe_fill(entry, pair->far_qpn, position, 0, 0, FFV_WC_SEND, 0);
	entry->status = status;
	ffv_cq_publish(&claim);
	ffv_cq_signal(proxy->ctx, proxy->cq->ref.id);
}

/* Completions of what is not done, and of what is not there: the requester may be told lies, which are about its own
 * connection; the router has not given away what it works on. */
static void test_forged_completions(uint32_t opcode, uint32_t length)
{
	connect_them();
	struct ffv_pair *pair = find_pair();
	for (uint64_t n = 0; n < 3 * FFV_WINDOW; n++)
		forge_completion(pair, n, FFV_WC_SUCCESS);
	for (unsigned n = 0; n < 4; n++) {
		if (opcode == FFV_WR_SEND)
			CHECK_OK(post_send(hosts[0].qp, n, hosts[0].mr, 0, length)); /* nobody receives it yet */
		else
			hosts_post(opcode, n, 0, length, 1u << 20, 0);
		for (uint64_t i = 0; i < 2 * FFV_WINDOW; i++)
			forge_completion(pair, i, FFV_WC_SUCCESS);
	}
	others_go_on(3);
	for (unsigned n = 0; n < 4; n++)
		post_recv(hosts[1].qp, n, hosts[1].mr, 0, LARGE); /* it may be in error by now */
	others_go_on(4);
	disconnect_them();
}

/* What has completed is executed once more. */
static void test_rewound(void)
{
	connect_them();
	struct ffv_pair *pair = find_pair();
	struct ffv_qp_shm *shm = pair->qp->ref.shm;
	for (unsigned n = 0; n < 16; n++)
		CHECK_OK(post_recv(hosts[1].qp, n, hosts[1].mr, 65536, 32768));
	for (unsigned n = 0; n < 8; n++) {
		CHECK_OK(post_send(hosts[0].qp, n, hosts[0].mr, 0, 20000));
		poll_status(hosts[0].side.cq, FFV_WC_SUCCESS);
	}
	ffv_store_release(&shm->sq_exec, ffv_load_acquire(&shm->sq_exec) - 6);
	CHECK_OK(post_send(hosts[0].qp, 9, hosts[0].mr, 0, 20000));
	let_it_work();
	disconnect_them();
}

/* The end of the completion queue is said to be far away, when the router looks through it for what a dead container had done. */
static void test_far_tail(void)
{
	connect_them();
	struct ffv_pair *pair = find_pair();
	_Atomic uint64_t *tail = &pair->proxy->cq->ref.shm->tail;
	uint64_t before = ffv_fetch_add(tail, 1ull << 50), began_ns = ffv_clock_ns();
	CHECK_EQ(ffv_cq_last_completed(pair->proxy->cq, pair->far_qpn, before), before);
	ffv_fetch_sub(tail, 1ull << 50);
	CHECK(ffv_clock_ns() - began_ns < PAIR_HANG_NS);
	disconnect_them();
}

struct scribbler { _Atomic bool stop; struct ffv_qp_shm *shm; };

static void *scribble(void *arg)
{
	static const uint32_t words[] = { 0, 64, LARGE - 63, LARGE - 1, LARGE, LARGE + 1, LARGE + 5000, UINT32_MAX };
	struct scribbler *scribbler = arg;

	for (unsigned n = 0; !ffv_load_relaxed(&scribbler->stop); n++)
		ffv_word_store(&scribbler->shm->progress_bytes, words[n % (sizeof words / sizeof *words)]);
	return NULL;
}

/* How far a large message has come is changed between the look at it and its use. */
static void test_progress(void)
{
	for (uint64_t end_ns = ffv_clock_ns() + SCRIBBLED_NS; ffv_clock_ns() < end_ns;) {
		struct scribbler scribbler = { .shm = NULL };
		pthread_t thread;
		connect_them();
		scribbler.shm = find_pair()->qp->ref.shm;
		CHECK_EQ(pthread_create(&thread, NULL, scribble, &scribbler), 0);
		for (unsigned n = 0; n < 8; n++)
			hosts_post(FFV_WR_RDMA_WRITE, n, 0, LARGE, 1u << 20, 0);
		let_it_work();
		ffv_store_relaxed(&scribbler.stop, true);
		pthread_join(thread, NULL);
		disconnect_them();
	}
}

int main(void)
{
#ifdef __SANITIZE_THREAD__
	return 77; /* it races on purpose */
#endif
	hosts_open();
	hosts_connect(FFV_QPT_RC);
	for (int i = 0; i < 2; i++) {
		bystanders[i] = hosts[i].qp;
		hosts[i].qp = NULL;
	}
	test_flush_with_payload();
	test_forged_completions(FFV_WR_SEND, 20000);
	test_forged_completions(FFV_WR_SEND, LARGE);
	test_forged_completions(FFV_WR_RDMA_READ, LARGE);
	test_forged_completions(FFV_WR_ATOMIC_FETCH_AND_ADD, 8);
	test_rewound();
	test_far_tail();
	test_progress();
	for (int i = 0; i < 2; i++)
		hosts[i].qp = bystanders[i];
	hosts_disconnect();
	hosts_close();
	return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * What a message costs as there is more of everything. The set that is used stays the same; what stands beside it grows.
 *
 *   scaling qps|keys|srq|cqs N [--batches N] [--iters N]     both ends in this process, one thread
 *   scaling processes N [--iters N]                          N processes that send to this one
 *
 * One thread's processor time is counted, so that others on the machine do not matter; for `processes` that of all.
 * Prints one JSON object: ns_per_message is the median of the batches, best_ns the least (`processes`: the same). Every
 * completion is checked.
 */
#define _GNU_SOURCE
#include "ffv_ends.h"

#include <sys/resource.h>

enum { ACTIVE = 16, KEY_BYTES = 64, KEY_PAGES = 64, PAGE = 4096, DEPTH = 64, MOST = 16384, FAN_IN_RECEIVES = 8192, PAUSE_US = 100, LONGEST_PAUSE_US = 12800 };

struct end {
	struct ffv_context *context;
	struct ffv_pd *pd;
	struct ffv_cq *cq;
	struct ffv_srq *srq;
	struct ffv_mr *mr;
	struct ffv_gid gid;
	struct ffv_qp *qp[MOST];
	struct ffv_cq *qp_cq[ACTIVE];
};

static struct end a, b;
static struct ffv_mr **keys;
static int iters = 20000, batches = 15;

#define ACCESS (FFV_ACCESS_LOCAL_WRITE | FFV_ACCESS_REMOTE_WRITE)

static void open_end(struct end *e, int cqe)
{
	check_ffv(ffv_open_device(NULL, &e->context), "ffv_open_device");
	check_ffv(ffv_query_gid(e->context, 1, 1, &e->gid), "ffv_query_gid");
	check_ffv(ffv_alloc_pd(e->context, &e->pd), "ffv_alloc_pd");
	check_ffv(ffv_create_cq(e->context, cqe, NULL, NULL, 0, &e->cq), "ffv_create_cq");
	check_ffv(ffv_alloc_mr(e->pd, KEY_PAGES * PAGE, ACCESS, &e->mr), "ffv_alloc_mr");
}

static struct ffv_qp *make_qp(struct end *e, struct ffv_cq *cq)
{
	struct ffv_qp_init_attr init = {
		.cap = { .max_send_wr = DEPTH, .max_recv_wr = e->srq ? 0 : DEPTH, .max_send_sge = 1, .max_recv_sge = 1 },
		.qp_type = FFV_QPT_RC, .srq = e->srq, .send_cq = cq, .recv_cq = cq,
	};
	struct ffv_qp *qp;

	check_ffv(ffv_create_qp(e->pd, &init, &qp), "ffv_create_qp");
	return qp;
}

static void connect_pairs(int count)
{
	for (int i = 0; i < count; i++) {
		to_rts(a.qp[i], &b.gid, ffv_qp_num(b.qp[i]));
		to_rts(b.qp[i], &a.gid, ffv_qp_num(a.qp[i]));
	}
}

static void make_pairs(int count)
{
	for (int i = 0; i < count; i++) {
		a.qp[i] = make_qp(&a, a.cq);
		b.qp[i] = make_qp(&b, b.cq);
	}
	connect_pairs(count);
}

/* ---- messages ------------------------------------------------------------------------------------------------------- */

static void expect(struct ffv_cq *cq)
{
	struct ffv_wc wc;

	check_ffv(ffv_poll_cq(cq, 1, &wc) == 1 ? 0 : -EIO, "a completion that should be there");
	check_ffv(wc.status == FFV_WC_SUCCESS ? 0 : -EIO, "a completion with success");
}

static void write_to(struct ffv_qp *qp, struct ffv_cq *cq, const struct ffv_mr *target)
{
	struct ffv_sge sge = { (uintptr_t)a.mr->addr, 8, a.mr->lkey };
	struct ffv_send_wr wr = { .sg_list = &sge, .num_sge = 1, .opcode = FFV_WR_RDMA_WRITE, .send_flags = FFV_SEND_SIGNALED };

	wr.wr.rdma = (struct ffv_wr_rdma){ (uintptr_t)target->addr, target->rkey };
	check_ffv(ffv_post_send(qp, &wr, NULL), "ffv_post_send");
	expect(cq);
}

static void post_receive(struct end *e)
{
	struct ffv_sge sge = { (uintptr_t)e->mr->addr, 64, e->mr->lkey };
	struct ffv_recv_wr wr = { .sg_list = &sge, .num_sge = 1 };

	check_ffv(ffv_post_srq_recv(e->srq, &wr, NULL), "ffv_post_srq_recv");
}

static void send_from(struct end *e, struct ffv_qp *qp)
{
	struct ffv_sge sge = { (uintptr_t)e->mr->addr, 8, e->mr->lkey };
	struct ffv_send_wr wr = { .sg_list = &sge, .num_sge = 1, .opcode = FFV_WR_SEND, .send_flags = FFV_SEND_SIGNALED };

	check_ffv(ffv_post_send(qp, &wr, NULL), "ffv_post_send");
}

/* ---- what grows ------------------------------------------------------------------------------------------------------- */

static int count;

static void qps_step(int i)
{
	write_to(a.qp[(i % ACTIVE) * (long)count / ACTIVE], a.cq, b.mr);
}

static void keys_step(int i)
{
	write_to(a.qp[0], a.cq, keys[(i % ACTIVE) * (long)count / ACTIVE]);
}

static void srq_step(int i)
{
	post_receive(&b);
	send_from(&a, a.qp[(i % ACTIVE) * (long)count / ACTIVE]);
	expect(a.cq);
	expect(b.cq);
}

static void cqs_step(int i)
{
	write_to(a.qp[i % ACTIVE], a.qp_cq[i % ACTIVE], b.mr);
}

static void prepare_qps(void)
{
	make_pairs(count);
}

static void prepare_keys(void)
{
	struct ffv_mr *memory = b.mr;

	make_pairs(1);
	keys = calloc((size_t)count, sizeof *keys);
	for (int i = 0; i < count; i++) {
		uint8_t *at = (uint8_t *)memory->addr + (size_t)(i % (KEY_PAGES * PAGE / KEY_BYTES)) * KEY_BYTES;
		check_ffv(ffv_reg_mr(b.pd, at, KEY_BYTES, (uintptr_t)at, ACCESS, &keys[i]), "ffv_reg_mr");
	}
}

/* `count` completion queues for the same queue pairs: 1 = all share one. */
static void prepare_cqs(void)
{
	struct ffv_cq *cqs[ACTIVE];

	for (int i = 0; i < count; i++)
		check_ffv(ffv_create_cq(a.context, 1024, NULL, NULL, 0, &cqs[i]), "ffv_create_cq");
	for (int i = 0; i < ACTIVE; i++) {
		a.qp_cq[i] = cqs[i % count];
		a.qp[i] = make_qp(&a, a.qp_cq[i]);
		b.qp[i] = make_qp(&b, b.cq);
	}
	connect_pairs(ACTIVE);
}

static void make_srq(struct end *e, uint32_t depth)
{
	struct ffv_srq_init_attr attr = { .attr = { .max_wr = depth, .max_sge = 1 } };

	check_ffv(ffv_create_srq(e->pd, &attr, &e->srq), "ffv_create_srq");
}

static void prepare_srq(void)
{
	make_srq(&b, 256);
	make_pairs(count);
}

static double thread_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double measure(void (*step)(int), double *best)
{
	static double found[MAX_BATCHES];

	for (int n = -WARM_UP_BATCHES; n < batches; n++) {
		double began = thread_ns();
		for (int i = 0; i < iters; i++)
			step(i);
		if (n >= 0)
			found[n] = (thread_ns() - began) / iters;
	}
	double middle = median(found, batches);
	*best = found[0]; /* sorted */
	return middle;
}

/* ---- many processes --------------------------------------------------------------------------------------------------- */

struct meeting {
	_Atomic uint64_t ready;
	_Atomic uint64_t go;
	struct { struct ffv_gid gid; uint32_t qpn; } sender[MOST];
	struct ffv_gid gid;
	uint32_t qpn[MOST];
};

static void sender_main(struct meeting *meeting, int number)
{
	struct ffv_wc wc;
	int outstanding = 0, pause_us = PAUSE_US;

	open_end(&a, 2 * DEPTH);
	a.qp[0] = make_qp(&a, a.cq);
	meeting->sender[number].gid = a.gid;
	meeting->sender[number].qpn = ffv_qp_num(a.qp[0]);
	atomic_fetch_add(&meeting->ready, 1);
	while (!atomic_load(&meeting->go))
		usleep(1000);
	to_rts(a.qp[0], &meeting->gid, meeting->qpn[number]);
	for (int i = 0; i < iters || outstanding;) {
		if (i < iters && outstanding < DEPTH / 2) {
			send_from(&a, a.qp[0]);
			outstanding++;
			i++;
			continue;
		}
		int n = ffv_poll_cq(a.cq, 1, &wc);
		check_ffv(n, "ffv_poll_cq");
		check_ffv(n && wc.status != FFV_WC_SUCCESS ? -EIO : 0, "a completion with success");
		outstanding -= n;
		if (n) {
			pause_us = PAUSE_US;
			continue;
		}
		usleep((useconds_t)pause_us); /* there are more processes than cores: who spins stops the others */
		if (pause_us < LONGEST_PAUSE_US)
			pause_us *= 2; /* and 64 that look ten thousand times a second are measured, not their messages */
	}
	_exit(0);
}

static double all_ns(void)
{
	struct rusage own, others;

	getrusage(RUSAGE_SELF, &own);
	getrusage(RUSAGE_CHILDREN, &others);
	return 1e9 * (double)(own.ru_utime.tv_sec + own.ru_stime.tv_sec + others.ru_utime.tv_sec + others.ru_stime.tv_sec) +
	       1e3 * (double)(own.ru_utime.tv_usec + own.ru_stime.tv_usec + others.ru_utime.tv_usec + others.ru_stime.tv_usec);
}

static void receive_all_messages(long total)
{
	static struct ffv_wc wc[64];

	for (long received = 0; received < total;) {
		int n = ffv_poll_cq(b.cq, 64, wc);
		check_ffv(n, "ffv_poll_cq");
		for (int i = 0; i < n; i++) {
			check_ffv(wc[i].status == FFV_WC_SUCCESS ? 0 : -EIO, "a completion with success");
			post_receive(&b);
		}
		received += n;
		if (!n)
			usleep(PAUSE_US); /* there are more processes than cores: who spins stops the others */
	}
}

/* Only what the messages cost is counted: the difference of two lengths would start everything twice, so that the senders'
 * start, which is theirs alone, is taken from a run without messages. */
static double processes(struct meeting *meeting, int messages)
{
	iters = messages;
	double began = all_ns();
	for (int i = 0; i < count; i++) {
		pid_t pid = fork();
		if (pid < 0)
			die("fork");
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			sender_main(meeting, i);
		}
	}
	open_end(&b, 2 * FAN_IN_RECEIVES);
	make_srq(&b, FAN_IN_RECEIVES);
	for (int i = 0; i < FAN_IN_RECEIVES; i++)
		post_receive(&b);
	while (atomic_load(&meeting->ready) < (uint64_t)count)
		usleep(1000);
	meeting->gid = b.gid;
	for (int i = 0; i < count; i++) {
		b.qp[i] = make_qp(&b, b.cq);
		to_rts(b.qp[i], &meeting->sender[i].gid, meeting->sender[i].qpn);
		meeting->qpn[i] = ffv_qp_num(b.qp[i]);
	}
	atomic_store(&meeting->go, 1);
	receive_all_messages((long)count * messages);
	for (int i = 0; i < count; i++) {
		int status;
		if (wait(&status) < 0 || status)
			die("a sender failed");
	}
	return all_ns() - began;
}

/* Each run is a process of its own: a context is not for a fork child. */
static double processes_apart(int messages)
{
	double *result = shared_create(sizeof *result);
	struct meeting *meeting = shared_create(sizeof *meeting);
	int status;
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		*result = processes(meeting, messages);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) < 0 || status)
		exit(1);
	return *result;
}

static const struct { const char *name; void (*prepare)(void); void (*step)(int); } tests[] = {
	{ "qps", prepare_qps, qps_step }, { "keys", prepare_keys, keys_step },
	{ "srq", prepare_srq, srq_step }, { "cqs", prepare_cqs, cqs_step },
};

static double run(const char *what, double *best)
{
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
		if (strcmp(what, tests[i].name))
			continue;
		open_end(&a, 4096);
		open_end(&b, 4096);
		tests[i].prepare();
		return measure(tests[i].step, best);
	}
	int messages = iters;
	*best = (processes_apart(messages) - processes_apart(0)) / ((double)messages * count);
	return *best;
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";
	int most = !strcmp(what, "keys") ? 1 << 20 : !strcmp(what, "cqs") ? ACTIVE : MOST;
	double ns, best = 0;

	count = argc > 2 ? atoi(argv[2]) : 0;
	for (int i = 3; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--iters"))
			iters = atoi(argv[i + 1]);
		else if (!strcmp(argv[i], "--batches"))
			batches = atoi(argv[i + 1]);
	}
	if (count < 1 || count > most || iters < 1 || batches < 1 || batches >= MAX_BATCHES) {
		fprintf(stderr, "usage: scaling qps|keys|srq|cqs|processes N [--iters N] [--batches N]\n");
		return 2;
	}
	ns = run(what, &best);
	printf("{\"test\": \"%s\", \"count\": %d, \"iters\": %d, \"ns_per_message\": %.1f, \"best_ns\": %.1f}\n", what,
	       count, iters, ns, best);
	return 0;
}

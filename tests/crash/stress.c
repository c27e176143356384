/* A process of the stress test: two threads that send, receive and check, over polling and events in turn, and a main
 * thread that makes and drops connections as the test says (one command a line, one answer a line).
 *
 * Usage: stress ID SEED DENY_VM. See stress.h. */
#include "stress.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "actor_hostile.h"
#include "base/atomics.h"
#include "base/clock.h"
#include "verbs/peer.h"

#define AT_ONCE 16
#define SLEEP_MS 1000
#define LATE_MS 1000           /* within which an event follows its completion */
#define DESCRIBED 40u
#define CHURN 512              /* rounds between registrations of passing memory */

struct stress stress;
/* Workers hold their locks nearly always: at the gate they let the main thread go first. */
static struct { pthread_mutex_t lock; pthread_cond_t opened; unsigned visitors; } gate = {
	PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0 };

/* Who executes, as far as this process can see. */
static void describe_executions(const char *whose, const struct ffv_arena_shm *arena)
{
	for (uint32_t i = 0; i < ffv_load_acquire(&arena->threads_used); i++) {
		const struct ffv_thread_shm *thread = &arena->threads[i];
		uint64_t epoch = ffv_load_relaxed(&thread->epoch);
		fprintf(stderr, "stress %d: %s %#llx thread %u: epoch %llu, %#llx to %#llx\n", stress.id, whose,
			(unsigned long long)arena->context_id, i, (unsigned long long)epoch,
			(unsigned long long)ffv_load_relaxed(&thread->requester),
			(unsigned long long)ffv_load_relaxed(&thread->responder));
	}
}

/* The last entries of a completion queue that were polled, and the first that were not. */
static void describe_queue(unsigned thread, const struct ffv_cq *cq)
{
	const struct ffv_cq_shm *shm = cq->ref.shm;
	uint64_t head = cq->head, tail = FFV_CQ_POSITION(ffv_load_relaxed(&shm->tail));

	fprintf(stderr, "stress %d: queue of worker %u: head %llu, tail %llu, passed over", stress.id, thread,
		(unsigned long long)head, (unsigned long long)tail);
	for (uint32_t i = 0; i < cq->num_holes; i++)
		fprintf(stderr, " %llu%s", (unsigned long long)ffv_load_relaxed(&shm->holes[i]) - 1,
			cq->holes_reported & 1u << i ? " (done)" : "");
	fputc('\n', stderr);
	for (uint64_t p = head > DESCRIBED ? head - DESCRIBED : 0; p < head + DESCRIBED && p < tail; p++) {
		const struct ffv_cqe_shm *cqe = &cq->ref.ring[p & cq->ref.index_mask];
		fprintf(stderr, "stress %d: %llu: sequence %u, QP %#x, work request %u, %u bytes, immediate %u, status %u\n",
			stress.id, (unsigned long long)p, ffv_load_relaxed(&cqe->sequence), cqe->qpn_side, cqe->wqe_position,
			cqe->byte_len, cqe->imm_be, cqe->status);
	}
}

void stress_fail(void)
{
	for (unsigned t = 0; stress.ctx && t < STRESS_THREADS; t++)
		if (stress.workers[t].cq)
			describe_queue(t, stress.workers[t].cq);
	if (stress.ctx)
		describe_executions("own", stress.ctx->view.arena);
	for (struct ffv_peer *peer = stress.ctx ? stress.ctx->peers : NULL; peer; peer = peer->next)
		if (peer->view.arena)
			describe_executions(peer->state == FFV_PEER_ATTACHED ? "peer" : "other", peer->view.arena);
	while (getenv("STRESS_HOLD"))
		pause();
	abort();
}

/* ---- workers ---------------------------------------------------------------------------------------------------------- */

static struct end *end_of(struct worker *worker, uint32_t qpn)
{
	for (uint32_t i = 0; i < STRESS_ENDS; i++)
		if (worker->ends[i].used && worker->ends[i].qpn == qpn)
			return &worker->ends[i];
	FAIL("a completion of QP %#x, which is not ours", qpn);
}

static int poll_some(struct worker *worker)
{
	struct ffv_wc wc[AT_ONCE];
	int n = ffv_poll_cq(worker->cq, AT_ONCE, wc);

	if (n < 0)
		FAIL("poll: %d", n);
	for (int i = 0; i < n; i++)
		if (worker != &stress.workers[0] || !stress_datagrams_complete(&wc[i]))
			stress_end_complete(worker, end_of(worker, wc[i].qp_num), &wc[i]);
	return n;
}

static bool send_some(struct worker *worker)
{
	bool sent = false;

	if (ffv_load_relaxed(&stress.quiet))
		return false;
	for (uint32_t i = 0; i < STRESS_ENDS; i++)
		if (worker->ends[i].used && stress_mix(worker->random++, i) % 2)
			sent |= stress_end_send(worker, &worker->ends[i]);
	if (worker == &stress.workers[0] && stress_mix(worker->random++, 7) % 2)
		sent |= stress_datagrams_send(worker);
	return sent;
}

static void take_events(struct worker *worker)
{
	struct ffv_cq *cq;
	void *context;

	while (ffv_get_cq_event(worker->channel, &cq, &context) == 0)
		ffv_ack_cq_events(cq, 1);
}

static void lock(struct worker *worker)
{
	pthread_mutex_lock(&gate.lock);
	while (gate.visitors)
		pthread_cond_wait(&gate.opened, &gate.lock);
	pthread_mutex_unlock(&gate.lock);
	pthread_mutex_lock(&worker->lock);
}

/* Sleeps until an event. A completion that came without one is a lost wake-up. */
static void sleep_on_channel(struct worker *worker)
{
	struct pollfd ask[2] = { { .fd = ffv_comp_channel_fd(worker->channel), .events = POLLIN },
				 { .fd = worker->wake_fd, .events = POLLIN } };
	uint64_t count;

	take_events(worker);
	MUST(ffv_req_notify_cq(worker->cq, 0));
	if (poll_some(worker))
		return;
	worker->sleeps++;
	pthread_mutex_unlock(&worker->lock);
	int ready = poll(ask, 2, SLEEP_MS);
	lock(worker);
	if (ask[1].revents & POLLIN && read(worker->wake_fd, &count, sizeof count) < 0)
		FAIL("no wake-up");
	if (ready == 0 && poll_some(worker) && poll(ask, 1, LATE_MS) == 0)
		FAIL("a completion without an event");
}

static void churn(struct worker *worker)
{
	struct buffer passing;
	uint64_t luck = worker->random++;

	stress_buffer_make(&passing, 1 + stress_mix(luck, 1) % 20000, (enum memory_kind)(stress_mix(luck, 2) % 3));
	stress_buffer_drop(&passing);
}

static void *work(void *arg)
{
	struct worker *worker = arg;

	lock(worker);
	for (uint64_t round = 0; !ffv_load_acquire(&stress.stop); round++) {
		bool busy = send_some(worker);
		busy |= poll_some(worker) > 0;
		if (round % CHURN == CHURN - 1)
			churn(worker);
		if (!busy || stress_mix(worker->random++, 5) % 64 == 0)
			sleep_on_channel(worker);
		pthread_mutex_unlock(&worker->lock);
		lock(worker);
	}
	pthread_mutex_unlock(&worker->lock);
	return NULL;
}

/* ---- the main thread among them --------------------------------------------------------------------------------------- */

static void wake(struct worker *worker)
{
	uint64_t one = 1;

	if (write(worker->wake_fd, &one, sizeof one) < 0)
		FAIL("cannot wake");
}

static void visit(struct worker *worker)
{
	pthread_mutex_lock(&gate.lock);
	gate.visitors++;
	pthread_mutex_unlock(&gate.lock);
	pthread_mutex_lock(&worker->lock);
}

static void leave(struct worker *worker)
{
	pthread_mutex_unlock(&worker->lock);
	pthread_mutex_lock(&gate.lock);
	gate.visitors--;
	pthread_cond_broadcast(&gate.opened);
	pthread_mutex_unlock(&gate.lock);
	wake(worker);
}

static void hear_async(void)
{
	struct ffv_async_event event;

	while (ffv_get_async_event(stress.ctx, &event) == 0) {
		for (unsigned t = 0; event.element_kind == 2 && t < STRESS_THREADS; t++) {
			struct worker *worker = &stress.workers[t];
			visit(worker);
			for (uint32_t i = 0; i < STRESS_ENDS; i++)
				if (worker->ends[i].used && worker->ends[i].qp == event.element)
					worker->ends[i].told |= event.event_type == FFV_EVENT_QP_FATAL;
			leave(worker);
		}
		ffv_ack_async_event(stress.ctx, &event);
	}
}

/* What the engine thinks of an end that is not as it should be. */
static void describe(const struct end *end)
{
	const struct ffv_qp_shm *shm = end->qp->ref.shm;
	const struct ffv_cq_shm *cq = end->qp->send_cq->ref.shm;

	fprintf(stderr,
		"stress %d: QP %#x: state %u, exec_lock %#llx (context %#llx), executed %llu of %llu, blocked %u, taken %u, "
		"receives %llu of %llu, CQ head %llu, tail %llu, holes %u\n",
		stress.id, end->qpn, ffv_load_relaxed(&shm->state), (unsigned long long)ffv_load_relaxed(&shm->exec_lock),
		(unsigned long long)stress.ctx->view.context_id, (unsigned long long)ffv_load_relaxed(&shm->sq_exec),
		(unsigned long long)ffv_load_relaxed(&shm->sq_tail), ffv_load_relaxed(&shm->blocked), shm->rq_taken,
		(unsigned long long)ffv_load_relaxed(&shm->rq.head), (unsigned long long)ffv_load_relaxed(&shm->rq.tail),
		(unsigned long long)ffv_load_relaxed(&cq->head),
		(unsigned long long)FFV_CQ_POSITION(ffv_load_relaxed(&cq->tail)), ffv_load_relaxed(&cq->num_holes));
}

/* Waits until everything posted on the end has come back (and an event has told that its peer died). */
static void wait_for_end(struct worker *worker, struct end *end, bool receives_too, bool told, uint64_t deadline_ns)
{
	for (;;) {
		hear_async();
		visit(worker);
		bool done = stress_end_is_idle(end, receives_too) && (!told || end->told);
		if (!done && ffv_clock_ns() > deadline_ns) {
			describe(end);
			FAIL("QP %#x (kind %d, state %u, broken %d, told %d): sends %llu of %llu, receives %llu of %llu are "
			     "back", end->qpn, end->kind, ffv_qp_state(end->qp), end->broken, end->told,
			     (unsigned long long)end->completed, (unsigned long long)end->posted,
			     (unsigned long long)end->receives_done, (unsigned long long)end->receives_posted);
		}
		leave(worker);
		if (done)
			return;
		struct pollfd ask = { .fd = ffv_async_fd(stress.ctx), .events = POLLIN };
		poll(&ask, 1, 1);
	}
}

static void to_error(struct end *end)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_ERR };

	MUST(ffv_modify_qp(end->qp, &attr, FFV_QP_STATE));
}

/* ---- commands -------------------------------------------------------------------------------------------------------------- */

static void read_gid(const char *text, struct ffv_gid *gid)
{
	for (int i = 0; i < 16; i++) {
		unsigned byte = 0;
		sscanf(text + 2 * i, "%2x", &byte);
		gid->raw[i] = (uint8_t)byte;
	}
}

/* make END THREAD KIND MEMORY SEED SIDE */
static void command_make(char **words)
{
	struct worker *worker = &stress.workers[atoi(words[2])];
	struct end *end = &worker->ends[atoi(words[1])];

	visit(worker);
	stress_end_make(worker, end, (enum end_kind)atoi(words[3]), (enum memory_kind)atoi(words[4]),
			strtoull(words[5], NULL, 0), (unsigned)atoi(words[6]));
	leave(worker);
	printf("ok %u %llu %u\n", end->qpn, (unsigned long long)(uintptr_t)end->window.at, end->window.mr->rkey);
}

/* start END THREAD GID QPN WINDOW RKEY; the answer says whether the peer was there: it may have died before. */
static void command_start(char **words)
{
	struct worker *worker = &stress.workers[atoi(words[2])];
	struct end *end = &worker->ends[atoi(words[1])];
	struct ffv_gid gid;

	read_gid(words[3], &gid);
	visit(worker);
	stress_end_start(end, &gid, (uint32_t)strtoul(words[4], NULL, 0), strtoull(words[5], NULL, 0),
			 (uint32_t)strtoul(words[6], NULL, 0));
	bool known = ffv_load_acquire(&end->qp->link) != NULL;
	leave(worker);
	printf("ok %d\n", known);
}

/* drop END THREAD WITHIN_MS FORCE: its peer died. FORCE: it never got to know the peer, so nothing will tell it. */
static void command_drop(char **words)
{
	struct worker *worker = &stress.workers[atoi(words[2])];
	struct end *end = &worker->ends[atoi(words[1])];
	uint64_t began = ffv_clock_ns();
	bool force = atoi(words[4]);

	if (force)
		to_error(end);
	wait_for_end(worker, end, true, !force, began + strtoull(words[3], NULL, 0) * 1000000);
	visit(worker);
	while (poll_some(worker))
		;
	stress_end_drop(end);
	leave(worker);
	printf("ok %llu\n", (unsigned long long)((ffv_clock_ns() - began) / 1000000));
}

static void command_meet(char **words)
{
	struct ffv_gid gid;

	read_gid(words[2], &gid);
	visit(&stress.workers[0]);
	stress_datagrams_meet((unsigned)atoi(words[1]), &gid, (uint32_t)strtoul(words[3], NULL, 0));
	leave(&stress.workers[0]);
	puts("ok");
}

static void command_leave(char **words)
{
	visit(&stress.workers[0]);
	stress_datagrams_leave((unsigned)atoi(words[1]));
	leave(&stress.workers[0]);
	puts("ok");
}

/* No more sends; the answer comes when all have completed. */
static void command_quiet(char **words)
{
	uint64_t deadline = ffv_clock_ns() + strtoull(words[1], NULL, 0) * 1000000;
	bool idle = false;

	ffv_store_seq_cst(&stress.quiet, true);
	for (unsigned t = 0; t < STRESS_THREADS; t++)
		for (uint32_t i = 0; i < STRESS_ENDS; i++)
			if (stress.workers[t].ends[i].used)
				wait_for_end(&stress.workers[t], &stress.workers[t].ends[i], false, false, deadline);
	while (!idle && ffv_clock_ns() < deadline) {
		visit(&stress.workers[0]);
		idle = stress_datagrams_are_idle();
		leave(&stress.workers[0]);
		poll(NULL, 0, 1);
	}
	if (!idle)
		FAIL("datagrams are outstanding");
	puts("ok");
}

/* After everybody is quiet: what every end sent and received. */
static void command_count(void)
{
	printf("ok");
	for (unsigned t = 0; t < STRESS_THREADS; t++) {
		struct worker *worker = &stress.workers[t];
		visit(worker);
		while (poll_some(worker))
			;
		for (uint32_t i = 0; i < STRESS_ENDS; i++)
			if (worker->ends[i].used)
				printf(" %u:%u:%llu:%llu", i, t, (unsigned long long)worker->ends[i].consuming,
				       (unsigned long long)worker->ends[i].received);
		leave(worker);
	}
	putchar('\n');
}

/* ---- beginning and end -------------------------------------------------------------------------------------------------------- */

static void open_device(void)
{
	MUST(ffv_open_device(NULL, &stress.ctx));
	MUST(ffv_alloc_pd(stress.ctx, &stress.pd));
	fcntl(ffv_async_fd(stress.ctx), F_SETFL, O_NONBLOCK);
}

static void close_device(void)
{
	MUST(ffv_dealloc_pd(stress.pd));
	MUST(ffv_close_device(stress.ctx));
	stress.ctx = NULL;
}

static void begin(struct worker *worker)
{
	MUST(ffv_create_comp_channel(stress.ctx, &worker->channel));
	fcntl(ffv_comp_channel_fd(worker->channel), F_SETFL, O_NONBLOCK);
	/* Room for all that can be outstanding on all ends. */
	MUST(ffv_create_cq(stress.ctx, (STRESS_ENDS + 2) * 4 * STRESS_DEPTH, NULL, worker->channel, 0, &worker->cq));
	pthread_mutex_init(&worker->lock, NULL);
	worker->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

/* Ends all ends: what was posted to receive is flushed, each once. */
static void finish(struct worker *worker)
{
	for (uint32_t i = 0; i < STRESS_ENDS; i++) {
		struct end *end = &worker->ends[i];
		if (!end->used)
			continue;
		to_error(end);
		uint64_t deadline = ffv_clock_ns() + 5000000000u;
		while (!stress_end_is_idle(end, true) && ffv_clock_ns() < deadline)
			if (!poll_some(worker))
				sched_yield();
		if (!stress_end_is_idle(end, true))
			FAIL("QP %#x is not flushed", end->qpn);
	}
	while (poll_some(worker))
		;
	for (uint32_t i = 0; i < STRESS_ENDS; i++)
		if (worker->ends[i].used)
			stress_end_drop(&worker->ends[i]);
	if (worker == &stress.workers[0])
		stress_datagrams_drop();
	take_events(worker);
	MUST(ffv_destroy_cq(worker->cq));
	MUST(ffv_destroy_comp_channel(worker->channel));
	close(worker->wake_fd);
}

static unsigned count_descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(folder))
		n++;
	closedir(folder);
	return n;
}

static unsigned count_mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char text[4096];
	unsigned n = 0;

	while (fgets(text, sizeof text, maps))
		n += strstr(text, "memfd:ffverbs") != NULL;
	fclose(maps);
	return n;
}

static void command_finish(unsigned descriptors, unsigned mappings)
{
	uint64_t completions = 0, bytes = 0, sleeps = 0;

	ffv_store_seq_cst(&stress.stop, true);
	for (unsigned t = 0; t < STRESS_THREADS; t++) {
		wake(&stress.workers[t]);
		pthread_join(stress.workers[t].thread, NULL);
	}
	for (unsigned t = 0; t < STRESS_THREADS; t++) {
		finish(&stress.workers[t]);
		completions += stress.workers[t].completions;
		bytes += stress.workers[t].bytes;
		sleeps += stress.workers[t].sleeps;
	}
	stress_shared_drop();
	close_device();
	if (count_descriptors() != descriptors || count_mappings() != mappings)
		FAIL("%u descriptors and %u mappings at the end, %u and %u at the beginning", count_descriptors(),
		     count_mappings(), descriptors, mappings);
	printf("ok %llu %llu %llu\n", (unsigned long long)completions, (unsigned long long)bytes,
	       (unsigned long long)sleeps);
	fflush(stdout);
}

static void say_ready(void)
{
	struct ffv_gid gid;

	MUST(ffv_query_gid(stress.ctx, 1, 1, &gid));
	printf("ok ");
	for (int i = 0; i < 16; i++)
		printf("%02x", gid.raw[i]);
	printf(" %u\n", stress_datagrams_qpn());
	fflush(stdout);
}

static void obey(char *line)
{
	char *words[8] = { 0 };
	int n = 0;

	for (char *word; n < 8 && (word = strsep(&line, " \n"));)
		if (*word)
			words[n++] = word;
	if (!n)
		return;
	if (!strcmp(words[0], "make"))
		command_make(words);
	else if (!strcmp(words[0], "start"))
		command_start(words);
	else if (!strcmp(words[0], "drop"))
		command_drop(words);
	else if (!strcmp(words[0], "meet"))
		command_meet(words);
	else if (!strcmp(words[0], "leave"))
		command_leave(words);
	else if (!strcmp(words[0], "quiet"))
		command_quiet(words);
	else if (!strcmp(words[0], "count"))
		command_count();
	else
		FAIL("unknown command %s", words[0]);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	static char line[4096];
	struct buffer passing;

	if (argc != 4)
		return 2;
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* also while stopped: nothing is left behind when the test is killed */
	stress.id = atoi(argv[1]);
	stress.incarnation = strtoull(argv[2], NULL, 0);
	if (atoi(argv[3]))
		MUST(actor_deny_process_vm());
	open_device();
	stress_buffer_make(&passing, 1u << 16, MEMORY_HEAP);
	stress_buffer_drop(&passing);
	close_device(); /* what stays for good is there now */
	unsigned descriptors = count_descriptors(), mappings = count_mappings();
	open_device();
	stress_shared_make();
	for (unsigned t = 0; t < STRESS_THREADS; t++) {
		begin(&stress.workers[t]);
		stress.workers[t].random = stress_mix(strtoull(argv[2], NULL, 0), t);
	}
	stress_datagrams_make(&stress.workers[0]);
	for (unsigned t = 0; t < STRESS_THREADS; t++)
		pthread_create(&stress.workers[t].thread, NULL, work, &stress.workers[t]);
	say_ready();
	while (fgets(line, sizeof line, stdin)) {
		if (!strncmp(line, "finish", 6)) {
			command_finish(descriptors, mappings);
			return 0;
		}
		obey(line);
	}
	return 1; /* the test is gone */
}

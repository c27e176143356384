/* SPDX-License-Identifier: MIT
 *
 * Contexts: opening and closing, entering executions, waiting for them, ringing bells.
 */
#include "verbs/context.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "verbs/ask.h"
#include "verbs/attend.h"
#include "verbs/cq.h"
#include "verbs/gid.h"
#include "verbs/port.h"
#include "verbs/process.h"
#include "verbs/stuck.h"

#define STUCK_NS 50000000ull      /* an execution that takes as long is looked at more closely */

#define CLOSE_WAIT_NS 1000000000ull
#define CLAIM_MS 6000             /* for the router to answer: it may have to ask in turn */
#define CLAIM_POOL_MS 8000

/* ---- entering ---------------------------------------------------------------------------------------------------------- */

int ffv_context_check(const struct ffv_context *ctx)
{
	if (!ctx)
		return ffv_fail(EINVAL, "the object is closed");
	if (ctx->fork_generation != ffv_process_generation)
		return ffv_fail(EOWNERDEAD, "the device was opened before fork(): a child must open its own context");
	return 0;
}

int ffv_context_note_thread(struct ffv_context *ctx, int number)
{
	_Atomic uint32_t *used = &ctx->view.arena->threads_used;
	uint32_t seen = ffv_load_relaxed(used);

	if (number < 0)
		return ffv_fail(EAGAIN, "more than %u threads use verbs at once", FFV_MAX_THREADS);
	/* [threads-used] before the first epoch of this slot; whoever waits reads it after its fence. */
	while (seen <= (uint32_t)number && !ffv_cas(used, &seen, (uint32_t)number + 1))
		;
	return 0;
}

/* ---- waiting for executions --------------------------------------------------------------------------------------------- */

static bool is_gone(struct ffv_context *ctx, struct ffv_peer *peer)
{
	if (!peer)
		return false;
	pthread_mutex_lock(&ctx->lock);
	bool gone = ffv_peer_state(peer) == FFV_PEER_GONE;
	pthread_mutex_unlock(&ctx->lock);
	return gone;
}

/* What to wait for: executions that involve a queue pair, a key, or any memory or queue, of our context. */
struct waiting {
	struct ffv_context *ctx;
	const struct ffv_qp *qp;
	uint32_t key;                 /* only accesses by this key matter; 0 = all */
	uint64_t deadline_ns;
	uint64_t stuck_ns;            /* from then on an execution is taken for stopped */
};

static bool involves(const struct waiting *what, uint64_t party)
{
	if (!party)
		return true; /* not known yet */
	if ((uint32_t)(party >> 32) != (uint32_t)what->ctx->view.context_id)
		return false;
	return !what->qp || (uint32_t)party == what->qp->ref.qpn;
}

/* Waits until the thread's execution, if it is in one that matters, is over. */
static bool wait_for_thread(const struct waiting *what, struct ffv_thread_shm *thread, struct ffv_peer *peer)
{
	struct timespec nap = { 0, 50000 };
	/* [exec-epoch] odd: an execution that may have found what we unpublished. */
	uint64_t seen = ffv_load_acquire(&thread->epoch);

	if (!(seen & 1) || !(involves(what, ffv_load_relaxed(&thread->requester)) ||
			     involves(what, ffv_load_relaxed(&thread->responder))))
		return true; /* if the parties were those of a later execution, ours is over all the same */
	for (unsigned spins = 0; ffv_load_acquire(&thread->epoch) == seen; spins++) {
		if (spins < 256) {
			ffv_cpu_relax();
			continue;
		}
		uint64_t now_ns = ffv_clock_ns();
		if (now_ns > what->deadline_ns || is_gone(what->ctx, peer))
			return is_gone(what->ctx, peer);
		if (what->key && now_ns > what->stuck_ns && !ffv_stuck_may_use(what->ctx, thread, peer, what->key))
			return true;
		if (spins < 512)
			sched_yield();
		else
			nanosleep(&nap, NULL);
	}
	return true;
}

static bool wait_for_arena(const struct waiting *what, struct ffv_arena_shm *arena, struct ffv_peer *peer)
{
	uint32_t used = ffv_load_acquire(&arena->threads_used);
	bool done = true;

	for (uint32_t i = 0; i < used && i < FFV_MAX_THREADS; i++)
		done = wait_for_thread(what, &arena->threads[i], peer) && done;
	return done;
}

static bool quiesce(struct ffv_context *ctx, const struct ffv_qp *qp, uint32_t key, uint64_t timeout_ns)
{
	uint64_t now_ns = ffv_clock_ns();
	struct waiting what = { ctx, qp, key, now_ns + timeout_ns, now_ns + STUCK_NS };
	struct ffv_peer *few[64], **peers = few;
	uint32_t count = 0;

	/* [exec-epoch] what was unpublished before this fence is not found by an execution that begins after it. */
	ffv_fence_store_load();
	pthread_mutex_lock(&ctx->lock);
	for (struct ffv_peer *peer = ctx->peers; peer; peer = peer->next)
		count++;
	if (count > sizeof few / sizeof few[0] && !(peers = malloc(count * sizeof *peers))) {
		pthread_mutex_unlock(&ctx->lock);
		return false;
	}
	count = 0;
	for (struct ffv_peer *peer = ctx->peers; peer; peer = peer->next) {
		if (ffv_peer_state(peer) != FFV_PEER_ATTACHED)
			continue;
		peer->refs++;
		peers[count++] = peer;
	}
	pthread_mutex_unlock(&ctx->lock);
	bool done = wait_for_arena(&what, ctx->view.arena, NULL);
	for (uint32_t i = 0; i < count; i++) {
		done = wait_for_arena(&what, peers[i]->view.arena, peers[i]) && done;
		ffv_peer_put(peers[i]);
	}
	if (peers != few)
		free(peers);
	return done;
}

bool ffv_context_quiesce(struct ffv_context *ctx, uint64_t timeout_ns)
{
	return quiesce(ctx, NULL, 0, timeout_ns);
}

bool ffv_context_quiesce_key(struct ffv_context *ctx, uint32_t key, uint64_t timeout_ns)
{
	return quiesce(ctx, NULL, key, timeout_ns);
}

bool ffv_qp_quiesce(struct ffv_qp *qp, uint64_t timeout_ns)
{
	return quiesce(qp->ctx, qp, 0, timeout_ns);
}

bool ffv_context_quiesce_own(struct ffv_context *ctx, uint64_t timeout_ns)
{
	struct waiting what = { .ctx = ctx, .deadline_ns = ffv_clock_ns() + timeout_ns };

	ffv_fence_store_load(); /* [exec-epoch] as above */
	return wait_for_arena(&what, ctx->view.arena, NULL);
}

struct ffv_retired { struct ffv_retired *next; uint64_t bytes; uint32_t line; };

static void release(struct ffv_context *ctx, uint32_t line, uint64_t bytes)
{
	if (bytes) {
		ffv_heap_free(&ctx->heap, line, bytes);
		return;
	}
	pthread_mutex_lock(&ctx->lock);
	if (ctx->num_free_qp_lines < FFV_MAX_QP) /* else lost until the context closes */
		ctx->free_qp_lines[ctx->num_free_qp_lines++] = line;
	pthread_mutex_unlock(&ctx->lock);
}

static void put_back(struct ffv_context *ctx, struct ffv_retired *list)
{
	pthread_mutex_lock(&ctx->lock);
	while (list) {
		struct ffv_retired *entry = list;
		list = entry->next;
		entry->next = ctx->retired;
		ctx->retired = entry;
	}
	pthread_mutex_unlock(&ctx->lock);
}

static void retire(struct ffv_context *ctx, uint32_t line, uint64_t bytes)
{
	struct ffv_retired *entry = line ? malloc(sizeof *entry) : NULL;

	if (!entry)
		return; /* nothing, or lost until the context closes */
	*entry = (struct ffv_retired){ .bytes = bytes, .line = line };
	/* Only what was retired before the wait begins is over with it: others may add to the list meanwhile. */
	pthread_mutex_lock(&ctx->lock);
	entry->next = ctx->retired;
	ctx->retired = NULL;
	pthread_mutex_unlock(&ctx->lock);
	if (!ffv_context_quiesce(ctx, 200000)) { /* somebody is stopped in the middle: later */
		put_back(ctx, entry);
		return;
	}
	while (entry) {
		struct ffv_retired *next = entry->next;
		release(ctx, entry->line, entry->bytes);
		free(entry);
		entry = next;
	}
}

void ffv_context_retire(struct ffv_context *ctx, uint32_t line, uint64_t bytes)
{
	retire(ctx, line, bytes);
}

void ffv_context_retire_qp(struct ffv_context *ctx, uint32_t line)
{
	retire(ctx, line, 0);
}

/* ---- bells ---------------------------------------------------------------------------------------------------------------- */

void ffv_context_attention(struct ffv_context *ctx, struct ffv_view *view, uint32_t bit)
{
	int fd = view->own ? ctx->doorbell_fd : ((struct ffv_peer *)view->face)->doorbell_fd;
	uint64_t one = 1;

	/* [attention] the bit before the bell; the service thread clears the bell before it reads the bits. The bell is
	 * rung even if the bit stood already: who set it may have been stopped before ringing. */
	ffv_fetch_or(&view->arena->attention[bit / 64], 1ull << (bit % 64));
	if (fd >= 0 && write(fd, &one, sizeof one) < 0 && errno != EAGAIN)
		return; /* its owner is gone; its hang-up tells */
}

static void face_attention(void *arg, struct ffv_view *view, uint32_t bit)
{
	ffv_context_attention(arg, view, bit);
}

static void face_signal(void *arg, struct ffv_view *view, uint32_t cq)
{
	if (view->own)
		ffv_cq_signal(arg, cq);
	else
		ffv_peer_signal(view->face, cq);
}

static bool face_find(void *arg, const struct ffv_qp_ref *requester, const struct ffv_wqe_ud_shm *address,
		      struct ffv_qp_ref *out)
{
	struct ffv_context *ctx = arg;
	struct ffv_view *view = NULL;
	uint32_t qpn = address->qpn;

	(void)requester;
	out->shm = NULL;
	if (qpn / FFV_QPN_BLOCK == ctx->block && !memcmp(address->dgid, ctx->gid, 16)) {
		view = &ctx->view;
	} else {
		/* The reference may go at once: a peer is freed only when this execution is over (ffv_peer_reap). */
		struct ffv_peer *peer = ffv_peer_get(ctx, address->dgid, qpn);
		if (!peer)
			return false;
		view = &peer->view;
		ffv_peer_put(peer);
	}
	out->view = view;
	return view->proxy || ffv_qp_ref_open(view, qpn, out) == 0;
}

static struct ffv_view *face_find_context(void *arg, const uint8_t gid[16], uint32_t block)
{
	struct ffv_context *ctx = arg;

	if (block == ctx->block && !memcmp(gid, ctx->gid, 16))
		return &ctx->view;
	struct ffv_peer *peer = block < FFV_QPN_BLOCKS ? ffv_peer_get(ctx, gid, block * FFV_QPN_BLOCK) : NULL;
	if (!peer)
		return NULL;
	ffv_peer_put(peer); /* as in face_find */
	return &peer->view;
}

static bool face_is_there(void *arg, const struct ffv_view *view)
{
	(void)arg;
	return view->own || ffv_peer_state((const struct ffv_peer *)view->face) == FFV_PEER_ATTACHED;
}

static bool face_stage(void *arg, struct ffv_qp_ref *requester)
{
	struct ffv_context *ctx = arg;
	struct ffv_qp *qp = requester->view->own ? ffv_context_qp(ctx, requester->qpn % FFV_MAX_QP) : NULL;
	if (!qp || (!qp->stage_line && ffv_heap_alloc(&ctx->heap, FFV_STAGE_BYTES, &qp->stage_line)))
		return false;
	requester->shm->stage_bytes = FFV_STAGE_BYTES;
	requester->shm->stage_line = qp->stage_line; /* freed with the QP */
	return true;
}

static const struct ffv_proxy_hooks *face_proxy(void *arg)
{
	return ((struct ffv_context *)arg)->proxy;
}

const struct ffv_exec_face ffv_face = {
	.signal = face_signal, .attention = face_attention, .find = face_find, .find_context = face_find_context,
	.is_there = face_is_there, .stage = face_stage, .broadcast = ffv_port_broadcast, .proxy = face_proxy,
};

/* ---- opening ------------------------------------------------------------------------------------------------------------- */

uint32_t ffv_random32(void)
{
	uint32_t value = 0;

	while (getrandom(&value, sizeof value, 0) != sizeof value)
		;
	return value;
}

static void name_program(char *program, size_t size)
{
	int fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, program, size - 1);

	if (fd >= 0)
		close(fd);
	n = n < 0 ? 0 : n;
	program[n] = 0;
	program[strcspn(program, "\n")] = 0;
}

static void init_locks(struct ffv_context *ctx)
{
	pthread_condattr_t monotonic;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&ctx->service, NULL);
	pthread_mutex_init(&ctx->lock, NULL);
	pthread_mutex_init(&ctx->async.lock, NULL);
	pthread_cond_init(&ctx->attached, &monotonic);
	pthread_cond_init(&ctx->async.acked, NULL);
	pthread_condattr_destroy(&monotonic);
}

static int allocate_tables(struct ffv_context *ctx)
{
	ctx->extents = calloc(FFV_MAX_KEYS, sizeof *ctx->extents);
	ctx->key_used = calloc(FFV_MAX_KEYS, 1);
	ctx->regions = calloc(FFV_MAX_KEYS, sizeof(struct ffv_mr_private *));
	ctx->qp_used = calloc(FFV_MAX_QP, 1);
	ctx->qps = calloc(FFV_MAX_QP, sizeof *ctx->qps);
	ctx->cqs = calloc(FFV_MAX_CQ, sizeof *ctx->cqs);
	ctx->srqs = calloc(FFV_MAX_SRQ, sizeof *ctx->srqs);
	ctx->free_qp_lines = calloc(FFV_MAX_QP, sizeof *ctx->free_qp_lines);
	if (!ctx->extents || !ctx->key_used || !ctx->regions || !ctx->qp_used || !ctx->qps || !ctx->cqs || !ctx->srqs || !ctx->free_qp_lines)
		return ffv_fail(ENOMEM, "no memory for a context");
	return 0;
}

static int create_arena(struct ffv_context *ctx)
{
	struct ffv_arena_shm *arena;
	int rc = ffv_arena_create("ffverbs-arena", &ctx->arena_fd, &arena);

	if (rc)
		return rc;
	ctx->view.arena = arena;
	ctx->view.direct = true;
	ctx->view.extents = ctx->extents;
	ctx->view.own = true;
	ctx->view.face = ctx;
	ctx->view.context_id = ((uint64_t)(ffv_random32() | 1) << 32) | (ffv_random32() | 1);
	arena->context_id = ctx->view.context_id;
	arena->pid = (uint32_t)getpid();
	memcpy(arena->gid, ctx->gid, 16);
	arena->role = ctx->proxy ? FFV_ROLE_PROXY : FFV_ROLE_CONTEXT;
	ctx->view.proxy = ctx->proxy != NULL;
	name_program(arena->program, sizeof arena->program);
	ffv_heap_init(&ctx->heap, arena);
	return 0;
}

static int open_descriptors(struct ffv_context *ctx)
{
	int mirror;

	ctx->doorbell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ctx->async.fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
	if (ctx->doorbell_fd < 0 || ctx->async.fd < 0)
		return ffv_fail_errno(errno, "cannot create the context's eventfds");
	return ffv_mirror_fd(&mirror);
}

static int join_directory(struct ffv_context *ctx, const struct ffv_identity *identity)
{
	int rc;

	if (identity) {
		ctx->block = identity->block;
		rc = ffv_nodedir_claim_block(ctx->dir, ctx->gid, ctx->block, &ctx->listen_fd);
	} else {
		rc = ffv_nodedir_claim(ctx->dir, ctx->gid, &ctx->block, &ctx->listen_fd);
	}
	if (rc)
		return rc;
	ctx->view.arena->qpn_first = ctx->block * FFV_QPN_BLOCK;
	ctx->next_qp = 16; /* 0 and 1 are the management QPs of a port (IBA 3.5.10) */
	return 0;
}

static int start_service(struct ffv_context *ctx)
{
	struct ffv_loop *loop;
	int rc = ffv_process_join(ctx);

	if (rc)
		return rc;
	loop = ffv_process_loop();
	rc = ffv_loop_add_timer(loop, ffv_attend_timer, ctx, &ctx->timer_source);
	if (!rc && !ctx->proxy) /* a proxy's owner listens to its bell itself */
		rc = ffv_loop_add(loop, ctx->doorbell_fd, ffv_attend_doorbell, ctx, &ctx->doorbell_source);
	if (!rc)
		rc = ffv_loop_add(loop, ctx->listen_fd, ffv_peer_accept, ctx, &ctx->listen_source);
	return rc;
}

static void stop_service(struct ffv_context *ctx)
{
	struct ffv_loop *loop = ffv_process_loop();

	pthread_mutex_lock(&ctx->service);
	ctx->closing = true;
	pthread_mutex_unlock(&ctx->service);
	if (ctx->listen_source)
		ffv_loop_remove(loop, ctx->listen_source);
	if (ctx->doorbell_source)
		ffv_loop_remove(loop, ctx->doorbell_source);
	if (ctx->timer_source)
		ffv_loop_remove(loop, ctx->timer_source);
	ffv_peer_close_all(ctx);
}

static void free_tables(struct ffv_context *ctx)
{
	ffv_mcast_finish(ctx);
	free(ctx->key_used);
	free(ctx->regions);
	free(ctx->extents);
	free(ctx->qp_used);
	free((void *)ctx->qps);
	free(ctx->cqs);
	free((void *)ctx->srqs);
	free(ctx->free_qp_lines);
	while (ctx->retired) {
		struct ffv_retired *entry = ctx->retired;
		ctx->retired = entry->next;
		free(entry);
	}
	free(ctx);
}

static void close_own(struct ffv_context *ctx)
{
	ffv_pd_free_all(ctx);
	if (ctx->listen_fd >= 0)
		ffv_nodedir_release(ctx->dir, ctx->gid, ctx->block, ctx->listen_fd);
	if (ctx->dir)
		ffv_nodedir_close(ctx->dir);
	if (ctx->view.arena) {
		ffv_heap_finish(&ctx->heap);
		ffv_process_drop_arena(ctx->view.arena);
		close(ctx->arena_fd);
	}
	if (ctx->doorbell_fd >= 0)
		close(ctx->doorbell_fd);
	if (ctx->async.fd >= 0)
		close(ctx->async.fd);
	free_tables(ctx);
}

/* An address of the router's pool, the same as before if nobody has got it meanwhile. */
static int claim_from_pool(struct ffv_context *ctx)
{
	int rc = ffv_ask_claim(ctx->dir, ctx->gid, CLAIM_POOL_MS);

	if (rc == -EADDRINUSE) {
		memset(ctx->gid, 0, 16);
		rc = ffv_ask_claim(ctx->dir, ctx->gid, CLAIM_POOL_MS);
	}
	if (!rc)
		rc = ffv_gid_adopt(ctx->gid);
	return rc ? ffv_fail_context(rc, "FFVERBS_IP is \"auto\"") : ffv_gid_own(ctx->gid, ctx->link_local_gid);
}

/* The router knows of us from now on. What is wrong with an address that nobody asked for is its affair: it is only not
 * reached from other hosts then. */
static int claim_gid(struct ffv_context *ctx)
{
	static const uint8_t unknown[4];
	enum ffv_gid_source source = ffv_gid_source();
	int rc = ffv_gid_own(ctx->gid, ctx->link_local_gid);

	if (rc)
		return rc;
	if (source == FFV_GID_OF_POOL) {
		if (!memcmp(ctx->gid + 12, unknown, 4))
			memset(ctx->gid, 0, 16);
		return claim_from_pool(ctx);
	}
	rc = ffv_ask_claim(ctx->dir, ctx->gid, CLAIM_MS);
	return rc == -EADDRINUSE && source == FFV_GID_TOLD ? rc : 0;
}

static int own_gids(struct ffv_context *ctx, const struct ffv_identity *identity)
{
	int rc = ffv_nodedir_open(identity ? identity->dir : NULL, &ctx->dir);

	if (rc || !identity)
		return rc ? rc : claim_gid(ctx);
	memcpy(ctx->gid, identity->gid, 16);
	ctx->proxy = identity->hooks;
	return 0;
}

int ffv_context_open(const struct ffv_identity *identity, struct ffv_context **out)
{
	struct ffv_context *ctx = calloc(1, sizeof *ctx);
	if (!ctx)
		return ffv_fail(ENOMEM, "no memory for a context");
	ctx->listen_fd = ctx->doorbell_fd = ctx->async.fd = ctx->arena_fd = -1;
	init_locks(ctx);
	ffv_port_init(ctx);
	int rc = allocate_tables(ctx);
	if (!rc)
		rc = own_gids(ctx, identity);
	if (!rc)
		rc = create_arena(ctx);
	if (!rc)
		rc = open_descriptors(ctx);
	if (!rc)
		rc = join_directory(ctx, identity);
	if (rc) {
		close_own(ctx);
		return ffv_fail_context(rc, "cannot open ffv0");
	}
	rc = start_service(ctx);
	if (rc) {
		stop_service(ctx);
		ffv_process_leave(ctx);
		close_own(ctx);
		return ffv_fail_context(rc, "cannot open ffv0");
	}
	*out = ctx;
	return 0;
}

int ffv_open_device(const char *name, struct ffv_context **out)
{
	if (!out)
		return ffv_fail(EINVAL, "no place for the context");
	if (name && strcmp(name, "ffv0"))
		return ffv_fail(ENODEV, "there is no device '%s'; the only one is 'ffv0'", name);
	return ffv_context_open(NULL, out);
}

static uint32_t count_objects(const struct ffv_context *ctx)
{
	const struct ffv_arena_shm *arena = ctx->view.arena;
	uint32_t n = ctx->num_pd - ctx->num_foreign_pd + ctx->num_mr + ctx->num_mw + ctx->num_ah + ctx->num_channels + ctx->num_dm + ctx->num_td + ctx->num_counters;
	n += ctx->num_tables;

	n += ffv_load_relaxed(&arena->num_qp) + ffv_load_relaxed(&arena->num_cq);
	for (uint32_t i = 0; i < FFV_MAX_SRQ; i++)
		n += ffv_load_relaxed(&ctx->srqs[i]) != NULL;
	for (const struct ffv_xrcd *xrcd = ctx->xrcds; xrcd; xrcd = xrcd->next)
		n++;
	return n;
}

int ffv_close_device(struct ffv_context *ctx)
{
	if (!ctx)
		return ffv_fail(EINVAL, "no context");
	if (ctx->fork_generation != ffv_process_generation) { /* a fork child: only its memory */
		ffv_process_drop_arena(ctx->view.arena);
		free_tables(ctx);
		return 0;
	}
	if (ffv_process_unimport(ctx))
		return 0;
	pthread_mutex_lock(&ctx->lock);
	uint32_t objects = count_objects(ctx);
	pthread_mutex_unlock(&ctx->lock);
	if (objects)
		return ffv_fail(EBUSY, "%u objects of the context are still open", objects);
	if (ctx->exporter)
		ffv_peer_put(ctx->exporter);
	/* Executions of other contexts of this process that still believe in a queue pair of ours look at our tables. */
	if (!ffv_context_quiesce(ctx, CLOSE_WAIT_NS))
		ctx->extents = NULL; /* lost, rather than freed under somebody */
	stop_service(ctx);
	ffv_process_leave(ctx);
	close_own(ctx);
	return 0;
}

int ffv_async_fd(struct ffv_context *ctx)
{
	return ctx ? ctx->async.fd : -1;
}

/* SPDX-License-Identifier: MIT
 *
 * See peer.h.
 */
#include "verbs/peer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "verbs/ask.h"
#include "verbs/attend.h"
#include "verbs/cq.h"
#include "verbs/port.h"
#include "verbs/process.h"
#include "verbs/xrcd.h"

/* ---- life of a peer object ------------------------------------------------------------------------------------------- */

static struct ffv_peer *new_peer(struct ffv_context *ctx, int socket, enum ffv_peer_state state)
{
	struct ffv_peer *peer = calloc(1, sizeof *peer);

	if (!peer)
		return NULL;
	peer->ctx = ctx;
	peer->socket = socket;
	peer->doorbell_fd = -1;
	ffv_store_relaxed(&peer->state, (uint32_t)state);
	peer->view.face = peer;
	pthread_mutex_init(&peer->channel_lock, NULL);
	for (unsigned i = 0; i < FFV_CHANNEL_CACHE; i++)
		peer->channels[i].fd = -1;
	return peer;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void close_connection(struct ffv_peer *peer)
{
	struct ffv_loop *loop = ffv_process_loop();

	if (peer->source && loop)
		ffv_loop_remove(loop, peer->source);
	peer->source = NULL;
	close_fd(&peer->socket);
}

static void free_peer(struct ffv_peer *peer)
{
	close_fd(&peer->socket);
	close_fd(&peer->doorbell_fd);
	for (unsigned i = 0; i < FFV_CHANNEL_CACHE; i++)
		close_fd(&peer->channels[i].fd);
	if (peer->view.windows)
		ffv_windows_destroy(peer->view.windows);
	if (peer->view.arena)
		ffv_process_drop_arena(peer->view.arena);
	pthread_mutex_destroy(&peer->channel_lock);
	free(peer);
}

static void unlist(struct ffv_peer **list, struct ffv_peer *peer)
{
	for (; *list; list = &(*list)->next) {
		if (*list == peer) {
			*list = peer->next;
			return;
		}
	}
}

static void count_peers(struct ffv_context *ctx)
{
	uint32_t n = 0;

	for (struct ffv_peer *peer = ctx->peers; peer; peer = peer->next)
		n += ffv_peer_state(peer) == FFV_PEER_ATTACHED;
	ffv_store_relaxed(&ctx->view.arena->num_peers, n);
}

/* Takes the peer out of service; it is freed by ffv_peer_reap when nothing refers to it any more. */
static void retire_peer(struct ffv_peer *peer)
{
	struct ffv_context *ctx = peer->ctx;

	close_connection(peer);
	pthread_mutex_lock(&ctx->lock);
	unlist(&ctx->peers, peer);
	ffv_store_relaxed(&peer->state, (uint32_t)FFV_PEER_GONE);
	peer->next = ctx->gone_peers;
	ctx->gone_peers = peer;
	count_peers(ctx);
	pthread_cond_broadcast(&ctx->attached);
	pthread_mutex_unlock(&ctx->lock);
}

void ffv_peer_reap(struct ffv_context *ctx)
{
	struct ffv_peer *ready = NULL;

	pthread_mutex_lock(&ctx->lock);
	for (struct ffv_peer **at = &ctx->gone_peers; *at;) {
		struct ffv_peer *peer = *at;
		if (peer->refs) {
			at = &peer->next;
			continue;
		}
		*at = peer->next;
		peer->next = ready;
		ready = peer;
	}
	pthread_mutex_unlock(&ctx->lock);
	/* Only our own executions use our mapping of it. */
	if (ready && !ffv_context_quiesce_own(ctx, 1000000000ull)) { /* keep them for the next time */
		pthread_mutex_lock(&ctx->lock);
		while (ready) {
			struct ffv_peer *peer = ready;
			ready = peer->next;
			peer->next = ctx->gone_peers;
			ctx->gone_peers = peer;
		}
		pthread_mutex_unlock(&ctx->lock);
	}
	while (ready) {
		struct ffv_peer *peer = ready;
		ready = peer->next;
		free_peer(peer);
	}
}

/* ---- finding ------------------------------------------------------------------------------------------------------------ */

static bool owns(const struct ffv_peer *peer, const uint8_t gid[16], uint32_t qpn)
{
	return qpn - peer->qpn_first < FFV_QPN_BLOCK && !memcmp(peer->gid, gid, 16);
}

static struct ffv_peer *find(struct ffv_context *ctx, const uint8_t gid[16], uint32_t qpn, enum ffv_peer_state state)
{
	for (struct ffv_peer *peer = ctx->peers; peer; peer = peer->next)
		if (ffv_peer_state(peer) == state && owns(peer, gid, qpn))
			return peer;
	return NULL;
}

struct ffv_peer *ffv_peer_get(struct ffv_context *ctx, const uint8_t gid[16], uint32_t qpn)
{
	pthread_mutex_lock(&ctx->lock);
	struct ffv_peer *peer = find(ctx, gid, qpn, FFV_PEER_ATTACHED);
	if (peer)
		peer->refs++;
	pthread_mutex_unlock(&ctx->lock);
	return peer;
}

void ffv_peer_put(struct ffv_peer *peer)
{
	pthread_mutex_lock(&peer->ctx->lock);
	peer->refs--;
	pthread_mutex_unlock(&peer->ctx->lock);
}

/* ---- greeting ----------------------------------------------------------------------------------------------------------- */

static int send_ourselves(struct ffv_context *ctx, int socket, uint32_t kind, bool arena_only)
{
	struct ffv_envelope envelope = { .message = { .kind = kind, .context_id = ctx->view.context_id,
						      .qpn_first = ctx->view.arena->qpn_first },
					 .fds = { ctx->arena_fd, -1, -1 } };

	memcpy(envelope.message.gid, ctx->gid, 16);
	if (!arena_only) {
		int rc = ffv_mirror_fd(&envelope.fds[FFV_FD_MIRROR]);
		if (rc)
			return rc;
		envelope.fds[FFV_FD_DOORBELL] = ctx->doorbell_fd;
	}
	return ffv_attach_send(socket, &envelope);
}

/* Writing to a pipe or socket that a peer passed off as its eventfd could raise SIGPIPE; only what has no file type (an
 * eventfd and its like) is taken. */
static bool is_bell(int fd)
{
	struct stat st;

	return fd >= 0 && fstat(fd, &st) == 0 && (st.st_mode & S_IFMT) == 0;
}

/* Makes a view of what the peer sent. Its descriptors are ours from here on, whatever happens. */
static int adopt(struct ffv_peer *peer, struct ffv_envelope *envelope)
{
	struct ffv_arena_shm *arena = NULL;
	int rc = is_bell(envelope->fds[FFV_FD_DOORBELL]) ? 0 : ffv_fail(EPROTO, "the peer's doorbell is not an eventfd");

	if (!rc)
		rc = ffv_arena_attach(envelope->fds[FFV_FD_ARENA], 0, &arena);
	if (!rc && (arena->context_id != envelope->message.context_id ||
		    arena->qpn_first != envelope->message.qpn_first || memcmp(arena->gid, envelope->message.gid, 16) ||
		    envelope->fds[FFV_FD_MIRROR] < 0)) {
		ffv_arena_detach(arena);
		rc = ffv_fail(EPROTO, "the peer's hello does not match its arena");
	}
	if (rc) {
		ffv_envelope_close_fds(envelope);
		return rc;
	}
	/* Only this process itself may say that it has a context of this process. */
	struct ffv_arena_shm *own = envelope->pid == getpid() ? ffv_process_share_arena(envelope->message.context_id,
											 &peer->view.extents) : NULL;
	if (own)
		ffv_arena_detach(arena);
	peer->view.arena = own ? own : arena;
	peer->view.context_id = envelope->message.context_id;
	peer->view.pid = envelope->pid;
	peer->view.direct = own != NULL;
	peer->view.proxy = peer->view.arena->role == FFV_ROLE_PROXY;
	peer->doorbell_fd = envelope->fds[FFV_FD_DOORBELL];
	close(envelope->fds[FFV_FD_ARENA]);
	if (peer->view.direct)
		close(envelope->fds[FFV_FD_MIRROR]);
	else
		rc = ffv_windows_create(envelope->fds[FFV_FD_MIRROR], &peer->view.windows);
	return rc;
}

/* The peer sent who it is: attach it, unless another connection already did. */
static int become_attached(struct ffv_peer *peer, struct ffv_envelope *envelope)
{
	struct ffv_context *ctx = peer->ctx;
	bool known = false;

	pthread_mutex_lock(&ctx->lock);
	for (struct ffv_peer *other = ctx->peers; other; other = other->next)
		known |= ffv_peer_state(other) == FFV_PEER_ATTACHED && other->view.context_id == envelope->message.context_id;
	pthread_mutex_unlock(&ctx->lock);
	int rc = 0;
	if (known)
		ffv_envelope_close_fds(envelope);
	else
		rc = adopt(peer, envelope);
	if (rc)
		return rc;
	if (!known)
		ffv_port_begin(peer);
	pthread_mutex_lock(&ctx->lock);
	ffv_store_relaxed(&peer->state, known ? (uint32_t)FFV_PEER_EXTRA : (uint32_t)FFV_PEER_ATTACHED);
	count_peers(ctx);
	pthread_cond_broadcast(&ctx->attached);
	pthread_mutex_unlock(&ctx->lock);
	if (!known)
		ffv_attend_new_peer(ctx, peer);
	return 0;
}

/* The answer to our hello. Others look at who the peer is meanwhile: it has to be the one that we asked for. */
static int on_welcome(struct ffv_peer *peer, struct ffv_envelope *envelope)
{
	if (envelope->message.qpn_first == peer->qpn_first && !memcmp(envelope->message.gid, peer->gid, 16))
		return become_attached(peer, envelope);
	ffv_envelope_close_fds(envelope);
	return ffv_fail(EPROTO, "another context answered than the one that was asked");
}

static void refuse(struct ffv_peer *peer, int err)
{
	struct ffv_envelope envelope = { .message = { .kind = FFV_MESSAGE_REFUSE, .value = (uint64_t)err },
					 .fds = { -1, -1, -1 } };

	ffv_attach_send(peer->socket, &envelope); /* if it cannot be told, the hang-up tells it */
}

static int on_greeting(struct ffv_peer *peer, struct ffv_envelope *envelope)
{
	struct ffv_context *ctx = peer->ctx;

	FFV_FAULT(attach_accepted);
	if (envelope->message.kind == FFV_MESSAGE_OBSERVE) {
		ffv_envelope_close_fds(envelope);
		pthread_mutex_lock(&ctx->lock);
		ffv_store_relaxed(&peer->state, (uint32_t)FFV_PEER_OBSERVER);
		pthread_mutex_unlock(&ctx->lock);
		return send_ourselves(ctx, peer->socket, FFV_MESSAGE_WELCOME, true);
	}
	if (envelope->message.kind != FFV_MESSAGE_HELLO) {
		ffv_envelope_close_fds(envelope);
		return ffv_fail(EPROTO, "a connection began with message %u", envelope->message.kind);
	}
	peer->qpn_first = envelope->message.qpn_first;
	memcpy(peer->gid, envelope->message.gid, 16);
	int rc = become_attached(peer, envelope);
	if (rc) {
		refuse(peer, -rc);
		return rc;
	}
	return send_ourselves(ctx, peer->socket, FFV_MESSAGE_WELCOME, false);
}

/* ---- channels of peers ----------------------------------------------------------------------------------------------------- */

static uint32_t cq_generation(const struct ffv_peer *peer, uint32_t cq)
{
	struct ffv_cq_ref ref;

	return ffv_cq_ref_open(&peer->view, cq, &ref) ? 0 : ref.shm->generation;
}

static void remember_channel(struct ffv_peer *peer, struct ffv_envelope *envelope)
{
	uint32_t cq = (uint32_t)(envelope->message.value & UINT32_MAX);
	struct ffv_peer_channel *slot = &peer->channels[cq % FFV_CHANNEL_CACHE];

	pthread_mutex_lock(&peer->channel_lock);
	close_fd(&slot->fd);
	*slot = (struct ffv_peer_channel){ cq, (uint32_t)(envelope->message.value >> 32), envelope->fds[0] };
	pthread_mutex_unlock(&peer->channel_lock);
}

static void answer_channel(struct ffv_peer *peer, uint32_t cq)
{
	struct ffv_context *ctx = peer->ctx;
	struct ffv_envelope envelope = { .message = { .kind = FFV_MESSAGE_CHANNEL, .context_id = ctx->view.context_id },
					 .fds = { -1, -1, -1 } };

	pthread_mutex_lock(&ctx->lock);
	struct ffv_cq *object = cq < FFV_MAX_CQ ? ctx->cqs[cq] : NULL;
	if (object && object->channel) {
		envelope.fds[0] = object->channel->fd;
		envelope.message.value = (uint64_t)object->ref.shm->generation << 32 | cq;
	}
	pthread_mutex_unlock(&ctx->lock);
	if (envelope.fds[0] >= 0)
		ffv_attach_send(peer->socket, &envelope); /* lost if its buffer is full: it will ask again */
}

void ffv_peer_signal(struct ffv_peer *peer, uint32_t cq)
{
	struct ffv_cq_ref ref;
	uint64_t one = 1;

	if (ffv_cq_ref_open(&peer->view, cq, &ref) || !ref.shm->channel_line)
		return;
	struct ffv_channel_shm *channel = ffv_view_at(&peer->view, ref.shm->channel_line, sizeof *channel);
	if (!channel)
		return;
	if (ffv_cq_is_held_back(ref.shm)) {
		ffv_context_attention(peer->ctx, &peer->view, FFV_ATTENTION_CQ + cq);
		return;
	}
	ffv_channel_raise(channel, ref.shm, cq);
	struct ffv_peer_channel *slot = &peer->channels[cq % FFV_CHANNEL_CACHE];
	pthread_mutex_lock(&peer->channel_lock);
	bool have = slot->fd >= 0 && slot->cq == cq && slot->generation == ref.shm->generation &&
		    write(slot->fd, &one, sizeof one) == sizeof one;
	pthread_mutex_unlock(&peer->channel_lock);
	if (have)
		return;
	ffv_fetch_add(&ref.shm->events_owed, 1u);
	ffv_context_attention(peer->ctx, &peer->view, FFV_ATTENTION_CQ + cq);
	struct ffv_envelope want = { .message = { .kind = FFV_MESSAGE_WANT_CHANNEL, .value = cq,
						  .context_id = peer->ctx->view.context_id },
				     .fds = { -1, -1, -1 } };
	if (cq_generation(peer, cq))
		ffv_attach_send(peer->socket, &want);
}

/* ---- messages --------------------------------------------------------------------------------------------------------------- */

static int on_message(struct ffv_peer *peer, struct ffv_envelope *envelope)
{
	uint32_t kind = envelope->message.kind;

	if (ffv_peer_state(peer) == FFV_PEER_GREETING)
		return on_greeting(peer, envelope);
	if (ffv_peer_state(peer) == FFV_PEER_CONNECTING && kind == FFV_MESSAGE_WELCOME)
		return on_welcome(peer, envelope);
	if (kind == FFV_MESSAGE_CHANNEL && ffv_peer_state(peer) == FFV_PEER_ATTACHED && is_bell(envelope->fds[0])) {
		remember_channel(peer, envelope);
		return 0;
	}
	ffv_envelope_close_fds(envelope);
	/* Two contexts that connect to each other at once may each keep another connection: what is extra here is the
	 * peer's first choice there. */
	if (kind == FFV_MESSAGE_WANT_CHANNEL && (ffv_peer_state(peer) == FFV_PEER_ATTACHED || ffv_peer_state(peer) == FFV_PEER_EXTRA))
		answer_channel(peer, (uint32_t)envelope->message.value);
	else if (kind == FFV_MESSAGE_BYE)
		peer->said_bye = true;
	else if (kind == FFV_MESSAGE_REFUSE)
		return ffv_fail((int)envelope->message.value, "the peer refused to be attached");
	else if (kind != FFV_MESSAGE_WELCOME)
		return ffv_fail(EPROTO, "the peer sent message %u out of turn", kind);
	return 0;
}

static void on_end(struct ffv_peer *peer)
{
	struct ffv_context *ctx = peer->ctx;
	bool was_attached = ffv_peer_state(peer) == FFV_PEER_ATTACHED;
	bool died = was_attached && !peer->said_bye;

	if (was_attached)
		ffv_port_drain_peer(ctx, peer);
	retire_peer(peer);
	if (was_attached && ctx->proxy)
		ctx->proxy->peer_gone(ctx->proxy->arg, peer->gid, peer->qpn_first, died);
	if (died)
		ffv_repair_after(ctx, peer);
	else if (was_attached)
		ffv_attend_peer_left(ctx, peer);
	ffv_peer_reap(ctx);
}

static void on_ready(void *arg, uint32_t events)
{
	struct ffv_peer *peer = arg;
	struct ffv_context *ctx = peer->ctx;
	struct ffv_envelope envelope;

	(void)events;
	pthread_mutex_lock(&ctx->service);
	pthread_mutex_lock(&ctx->lock); /* whoever connected has finished setting peer->source */
	pthread_mutex_unlock(&ctx->lock);
	for (int n = 0; n < 16 && !ctx->closing; n++) {
		int rc = ffv_attach_receive(peer->socket, &envelope);
		if (rc == -EAGAIN)
			break;
		if (rc == 1 && on_message(peer, &envelope) == 0)
			continue;
		on_end(peer);
		break;
	}
	pthread_mutex_unlock(&ctx->service);
}

/* Whoever connects waits meanwhile, or gives up: it is not turned away for what may be over in a moment. */
static void set_accepting(struct ffv_context *ctx, bool accepting)
{
	if (ctx->accept_paused != accepting || !ctx->listen_source)
		return;
	ctx->accept_paused = !accepting;
	ffv_loop_pause(ffv_process_loop(), ctx->listen_source, !accepting);
	if (!accepting)
		ffv_loop_kick(ffv_process_loop(), ctx->timer_source);
}

static bool accept_one(struct ffv_context *ctx)
{
	int socket = accept4(ctx->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (socket < 0) {
		/* No descriptor or no memory: asking again at once would only cost time. */
		set_accepting(ctx, errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM);
		return false;
	}
	struct ffv_peer *peer = new_peer(ctx, socket, FFV_PEER_GREETING);
	if (!peer) {
		close(socket);
		return false;
	}
	pthread_mutex_lock(&ctx->lock);
	peer->next = ctx->peers;
	ctx->peers = peer;
	pthread_mutex_unlock(&ctx->lock);
	if (ffv_loop_add(ffv_process_loop(), socket, on_ready, peer, &peer->source))
		on_end(peer);
	return true;
}

void ffv_peer_accept_again(struct ffv_context *ctx)
{
	while (!ctx->closing && accept_one(ctx))
		;
}

void ffv_peer_accept(void *arg, uint32_t events)
{
	struct ffv_context *ctx = arg;

	(void)events;
	pthread_mutex_lock(&ctx->service);
	ffv_peer_accept_again(ctx);
	pthread_mutex_unlock(&ctx->service);
}

/* ---- connecting ---------------------------------------------------------------------------------------------------------------- */

int ffv_peer_connect(struct ffv_context *ctx, const uint8_t gid[16], uint32_t qpn)
{
	int socket;

	pthread_mutex_lock(&ctx->lock);
	bool known = find(ctx, gid, qpn, FFV_PEER_ATTACHED) || find(ctx, gid, qpn, FFV_PEER_CONNECTING);
	pthread_mutex_unlock(&ctx->lock);
	if (known)
		return 0;
	int rc = ffv_nodedir_connect(ctx->dir, gid, qpn / FFV_QPN_BLOCK, &socket);
	if (rc)
		return rc;
	struct ffv_peer *peer = new_peer(ctx, socket, FFV_PEER_CONNECTING);
	if (!peer) {
		close(socket);
		return ffv_fail(ENOMEM, "no memory for a peer");
	}
	memcpy(peer->gid, gid, 16);
	peer->qpn_first = qpn / FFV_QPN_BLOCK * FFV_QPN_BLOCK;
	rc = send_ourselves(ctx, socket, FFV_MESSAGE_HELLO, false);
	FFV_FAULT(attach_sent);
	if (rc) {
		free_peer(peer);
		return rc;
	}
	pthread_mutex_lock(&ctx->lock);
	peer->next = ctx->peers;
	ctx->peers = peer;
	rc = ffv_loop_add(ffv_process_loop(), socket, on_ready, peer, &peer->source);
	if (rc)
		unlist(&ctx->peers, peer);
	pthread_mutex_unlock(&ctx->lock);
	if (rc)
		free_peer(peer);
	return rc;
}

int ffv_peer_attach(struct ffv_context *ctx, const uint8_t gid[16], uint32_t qpn, int timeout_ms)
{
	uint64_t deadline_ns = ffv_clock_ns() + (uint64_t)timeout_ms * 1000000u;
	struct timespec deadline = { (time_t)(deadline_ns / 1000000000u), (long)(deadline_ns % 1000000000u) };
	int rc = ffv_peer_connect(ctx, gid, qpn);

	if (rc == -ENOENT && !ffv_ask_router(ctx, gid, qpn, timeout_ms))
		rc = ffv_peer_connect(ctx, gid, qpn);
	if (rc)
		return rc;
	pthread_mutex_lock(&ctx->lock);
	while (!find(ctx, gid, qpn, FFV_PEER_ATTACHED)) {
		if (!find(ctx, gid, qpn, FFV_PEER_CONNECTING))
			rc = -ECONNREFUSED;
		else if (pthread_cond_timedwait(&ctx->attached, &ctx->lock, &deadline) == ETIMEDOUT)
			rc = -ETIMEDOUT;
		if (rc)
			break;
	}
	pthread_mutex_unlock(&ctx->lock);
	return rc;
}

/* ---- the end --------------------------------------------------------------------------------------------------------------------- */

void ffv_peer_close_all(struct ffv_context *ctx)
{
	struct ffv_envelope bye = { .message = { .kind = FFV_MESSAGE_BYE, .context_id = ctx->view.context_id },
				    .fds = { -1, -1, -1 } };

	for (;;) {
		pthread_mutex_lock(&ctx->lock);
		struct ffv_peer *peer = ctx->peers;
		if (peer)
			ctx->peers = peer->next;
		pthread_mutex_unlock(&ctx->lock);
		if (!peer)
			break;
		if (!ctx->silent)
			ffv_attach_send(peer->socket, &bye);
		close_connection(peer);
		free_peer(peer);
	}
	while (ctx->gone_peers) {
		struct ffv_peer *peer = ctx->gone_peers;
		ctx->gone_peers = peer->next;
		free_peer(peer);
	}
}

void ffv_context_close_descriptors(struct ffv_context *ctx)
{
	close_fd(&ctx->listen_fd);
	close_fd(&ctx->doorbell_fd);
	close_fd(&ctx->arena_fd);
	close_fd(&ctx->async.fd);
	ffv_xrcd_close_descriptors(ctx);
	for (struct ffv_peer *peer = ctx->peers; peer; peer = peer->next) {
		close_fd(&peer->socket);
		close_fd(&peer->doorbell_fd);
		for (unsigned i = 0; i < FFV_CHANNEL_CACHE; i++)
			close_fd(&peer->channels[i].fd);
	}
}

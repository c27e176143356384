/* SPDX-License-Identifier: MIT
 *
 * Proxies and pairs: their life, and the hooks by which the engine asks for them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/error.h"
#include "base/fault.h"
#include "wire/router.h"

#define MOST_DATAGRAMS 256u       /* of containers that wait to be sent, a proxy */

/* ---- hooks ------------------------------------------------------------------------------------------------------------- */

static struct ffv_pair *pair_of(struct ffv_proxy *proxy, uint32_t far_qpn)
{
	return proxy->pairs[far_qpn % FFV_QPN_BLOCK];
}

static void want_locked(struct ffv_proxy *proxy, const uint8_t gid[16], uint32_t qpn, uint32_t gone)
{
	struct ffv_router *router = proxy->router;

	if (proxy->state >= FFV_PROXY_CLOSING) /* its context rings until it is closed; then it is freed */
		return;
	for (uint32_t i = 0; i < router->num_wanted; i++)
		if (router->wanted[i].proxy == proxy && router->wanted[i].qpn == qpn && router->wanted[i].gone == gone &&
		    !memcmp(router->wanted[i].gid, gid, 16))
			return;
	if (router->num_wanted == router->wanted_capacity) {
		uint32_t capacity = router->wanted_capacity ? 2 * router->wanted_capacity : 64;
		struct ffv_wanted *grown = realloc(router->wanted, capacity * sizeof *grown);
		if (!grown)
			return; /* it rings again when its timer is due */
		router->wanted = grown;
		router->wanted_capacity = capacity;
	}
	struct ffv_wanted *wanted = &router->wanted[router->num_wanted++];
	*wanted = (struct ffv_wanted){ .proxy = proxy, .qpn = qpn, .gone = gone };
	memcpy(wanted->gid, gid, 16);
	ffv_router_wake_locked(router);
}

static bool hook_answer(void *arg, const struct ffv_qp_ref *requester, uint64_t position, uint64_t tail,
			struct ffv_answer *out)
{
	struct ffv_proxy *proxy = arg;
	struct ffv_peer *peer = requester->view->face;
	bool answered = false;

	pthread_mutex_lock(&proxy->router->lock);
	struct ffv_pair *pair = pair_of(proxy, ffv_load_relaxed(&requester->shm->dest_qpn));
	if (pair && pair->shm && pair->qpn == requester->qpn && !memcmp(pair->gid, peer->gid, 16))
		answered = ffv_outgoing_answer(pair, position, tail, out);
	else /* the proxy's side came first: nobody has rung for the container's */
		want_locked(proxy, peer->gid, requester->qpn, 0);
	pthread_mutex_unlock(&proxy->router->lock);
	return answered;
}

static int hook_bytes(void *arg, uint32_t qpn, uint64_t position, uint32_t from, struct ffv_list *out)
{
	struct ffv_proxy *proxy = arg;

	pthread_mutex_lock(&proxy->router->lock);
	struct ffv_pair *pair = pair_of(proxy, qpn);
	int how = pair ? ffv_incoming_bytes(pair, position, from, out) : FFV_BYTES_NONE;
	pthread_mutex_unlock(&proxy->router->lock);
	return how;
}

static uint32_t hook_fetch(void *arg, uint32_t qpn, uint64_t position, uint32_t from, const struct iovec *to, int count)
{
	return ffv_incoming_fetch(arg, qpn, position, from, to, count);
}

void ffv_pair_touch_locked(struct ffv_pair *pair)
{
	struct ffv_router *router = pair->proxy->router;

	if (!pair->touched) {
		pair->touched = true;
		pair->touched_next = router->touched;
		router->touched = pair;
	}
	ffv_router_wake_locked(router);
}

static void hook_more(void *arg, uint32_t qpn, uint64_t position, uint32_t from, const struct ffv_rest *rest)
{
	struct ffv_proxy *proxy = arg;

	ffv_grant_offer(proxy, qpn, from, rest);
	pthread_mutex_lock(&proxy->router->lock);
	struct ffv_pair *pair = pair_of(proxy, qpn);
	if (pair) {
		ffv_incoming_more(pair, position, from);
		ffv_pair_touch_locked(pair);
	}
	pthread_mutex_unlock(&proxy->router->lock);
}

static void hook_wanted(void *arg, const uint8_t gid[16], uint32_t qpn)
{
	struct ffv_proxy *proxy = arg;

	pthread_mutex_lock(&proxy->router->lock);
	want_locked(proxy, gid, qpn, 0);
	pthread_mutex_unlock(&proxy->router->lock);
}

static void hook_attended(void *arg, uint32_t qpn)
{
	struct ffv_proxy *proxy = arg;

	pthread_mutex_lock(&proxy->router->lock);
	struct ffv_pair *pair = pair_of(proxy, qpn);
	if (pair)
		ffv_pair_touch_locked(pair);
	pthread_mutex_unlock(&proxy->router->lock);
}

static void hook_peer_gone(void *arg, const uint8_t gid[16], uint32_t qpn_first, bool died)
{
	struct ffv_proxy *proxy = arg;

	pthread_mutex_lock(&proxy->router->lock);
	want_locked(proxy, gid, qpn_first, died ? 2 : 1);
	pthread_mutex_unlock(&proxy->router->lock);
}

static void fill_datagram(struct ffv_outbound *out, const struct ffv_qp_ref *requester, const struct ffv_wqe_shm *wqe,
			  uint32_t length)
{
	struct ffv_frame *frame = (struct ffv_frame *)(void *)out->bytes;
	struct ffv_frame_address *to = ffv_frame_payload(frame);
	struct ffv_peer *peer = requester->view->face;

	memset(out->bytes, 0, sizeof *frame + sizeof *to);
	frame->opcode = wqe->opcode;
	frame->flags = wqe->flags & FFV_SEND_SOLICITED;
	frame->imm_be = wqe->imm_be;
	frame->length_bytes = length;
	memcpy(to->from_gid, peer->gid, 16);
	memcpy(to->to_gid, wqe->ud.dgid, 16);
	to->from_qpn = requester->qpn;
	to->to_qpn = wqe->ud.qpn;
	to->qkey = wqe->ud.qkey;
	to->flow_tclass = wqe->ud.flow_tclass;
	to->sl = (uint8_t)(wqe->ud.sgid_hop >> 24);
	to->hop_limit = (uint8_t)wqe->ud.sgid_hop;
}

static void hook_datagram(void *arg, const struct ffv_qp_ref *requester, const struct ffv_wqe_shm *wqe,
			  struct ffv_list *local, uint32_t length)
{
	const uint32_t header = sizeof(struct ffv_frame) + sizeof(struct ffv_frame_address);
	struct ffv_proxy *proxy = arg;
	struct ffv_outbound *out = length <= FFV_DATAGRAM_BYTES ? malloc(sizeof *out + header + length) : NULL;

	if (!out || ffv_pull_copy(local, 0, length, out->bytes + header) != FFV_PULL_DONE) {
		free(out);
		ffv_fetch_add(&proxy->router->datagrams_dropped, 1u);
		return;
	}
	fill_datagram(out, requester, wqe, length);
	out->next = NULL;
	out->payload_bytes = (uint32_t)sizeof(struct ffv_frame_address) + length;
	FFV_FAULT(wire_datagram_framed);
	pthread_mutex_lock(&proxy->router->lock);
	bool full = proxy->num_datagrams >= MOST_DATAGRAMS;
	if (!full) {
		*proxy->last_datagram = out;
		proxy->last_datagram = &out->next;
		proxy->num_datagrams++;
		ffv_router_wake_locked(proxy->router);
	}
	pthread_mutex_unlock(&proxy->router->lock);
	if (full) {
		free(out);
		ffv_fetch_add(&proxy->router->datagrams_dropped, 1u);
	}
}

/* ---- proxies ------------------------------------------------------------------------------------------------------------ */

struct ffv_proxy *ffv_proxy_find_locked(struct ffv_router *router, const uint8_t gid[16], uint32_t block, uint32_t channel)
{
	for (struct ffv_proxy *proxy = router->proxies; proxy; proxy = proxy->next)
		if (proxy->block == block && proxy->channel == channel && proxy->state < FFV_PROXY_CLOSING &&
		    !memcmp(proxy->gid, gid, 16))
			return proxy;
	return NULL;
}

struct ffv_proxy *ffv_proxy_new_locked(struct ffv_router *router, const uint8_t gid[16], uint32_t block, uint32_t channel)
{
	struct ffv_proxy *proxy = calloc(1, sizeof *proxy);

	if (!proxy || !(proxy->pairs = calloc(FFV_QPN_BLOCK, sizeof(struct ffv_pair *)))) {
		free(proxy);
		return NULL;
	}
	proxy->router = router;
	memcpy(proxy->gid, gid, 16);
	proxy->block = block;
	proxy->channel = channel;
	proxy->last_datagram = &proxy->datagrams;
	proxy->waits = true;
	proxy->held = ffv_router_new_job(&(struct ffv_job){ .kind = FFV_JOB_OPEN_PROXY, .proxy = proxy });
	proxy->last_held = &proxy->held->next;
	proxy->hooks = (struct ffv_proxy_hooks){ .arg = proxy, .answer = hook_answer, .datagram = hook_datagram,
						 .bytes = hook_bytes, .fetch = hook_fetch, .more = hook_more,
						 .wanted = hook_wanted, .attended = hook_attended, .peer_gone = hook_peer_gone };
	if (channel == FFV_NO_CHANNEL) {
		proxy->is_bridge = true;
		proxy->hooks.broadcast = ffv_segment_hook;
	}
	proxy->next = router->proxies;
	router->proxies = proxy;
	return proxy;
}

void ffv_proxy_free(struct ffv_proxy *proxy)
{
	while (proxy->datagrams) {
		struct ffv_outbound *out = proxy->datagrams;
		proxy->datagrams = out->next;
		free(out);
	}
	free((void *)proxy->pairs);
	free((void *)proxy->live);
	free(proxy);
}

static void forget_wanted_locked(struct ffv_proxy *proxy)
{
	struct ffv_router *router = proxy->router;
	uint32_t kept = 0;

	for (uint32_t i = 0; i < router->num_wanted; i++)
		if (router->wanted[i].proxy != proxy)
			router->wanted[kept++] = router->wanted[i];
	router->num_wanted = kept;
}

void ffv_proxy_close(struct ffv_proxy *proxy)
{
	ffv_router_queue_job(proxy->router, &(struct ffv_job){ .kind = FFV_JOB_CLOSE_PROXY, .proxy = proxy });
}

void ffv_proxy_retire(struct ffv_proxy *proxy, bool died)
{
	struct ffv_router *router = proxy->router;
	struct ffv_router_event event = { .kind = FFV_ROUTER_PROXY_CLOSED, .channel = proxy->channel,
					  .qpn_first = proxy->block * FFV_QPN_BLOCK };

	if (proxy->state >= FFV_PROXY_CLOSING)
		return;
	for (uint32_t i = proxy->num_live; i--;)
		ffv_pair_retire(proxy->live[i]);
	ffv_transfer_leave(proxy);
	ffv_proxy_forget_heat(proxy);
	if (proxy->watched) {
		epoll_ctl(router->epoll_fd, EPOLL_CTL_DEL, proxy->ctx->doorbell_fd, NULL);
		epoll_ctl(router->epoll_fd, EPOLL_CTL_DEL, ffv_comp_channel_fd(proxy->events), NULL);
		proxy->watched = false;
	}
	pthread_mutex_lock(&router->lock);
	if (proxy->is_bridge)
		ffv_segment_announce_locked(router);
	proxy->state = FFV_PROXY_CLOSING;
	proxy->died = died;
	if (proxy->waits) {
		proxy->refused = true;
		ffv_proxy_go_on_locked(proxy);
	}
	forget_wanted_locked(proxy);
	pthread_cond_broadcast(&router->changed);
	pthread_mutex_unlock(&router->lock);
	if (!proxy->num_pairs)
		ffv_proxy_close(proxy);
	memcpy(event.gid, proxy->gid, 16);
	if (proxy->error) /* it was never open */
		snprintf(event.text, sizeof event.text, "%.*s", (int)sizeof event.text - 1, proxy->error_text);
	ffv_router_raise(router, &event);
}

/* Nobody of this host talks to it (any more). */
static bool is_idle(struct ffv_proxy *proxy)
{
	bool idle = true;

	/* Only the loop changes them. Those of datagrams are nobody's of this host, and do not end with anybody. */
	for (uint32_t i = 0; i < proxy->num_live && idle; i++)
		idle = proxy->live[i]->type == FFV_QPT_UD;
	pthread_mutex_lock(&proxy->ctx->lock);
	for (const struct ffv_peer *peer = proxy->ctx->peers; peer && idle; peer = peer->next)
		idle = ffv_peer_state(peer) != FFV_PEER_ATTACHED && ffv_peer_state(peer) != FFV_PEER_GREETING;
	pthread_mutex_unlock(&proxy->ctx->lock);
	return idle;
}

void ffv_proxy_peer_gone(struct ffv_proxy *proxy, const uint8_t gid[16], uint32_t qpn_first, uint32_t how)
{
	struct ffv_link_channel *channel = ffv_router_channel(proxy->router, proxy->channel);
	struct ffv_frame_gone gone = { .qpn_first = qpn_first, .died = how == 2 };

	for (uint32_t i = proxy->num_live; i--;) {
		struct ffv_pair *pair = proxy->live[i];
		if (pair->type != FFV_QPT_UD && pair->qpn / FFV_QPN_BLOCK == qpn_first / FFV_QPN_BLOCK &&
		    !memcmp(pair->gid, gid, 16))
			ffv_pair_retire(pair);
	}
	struct ffv_frame *frame = channel ? ffv_channel_frame(&channel->io, FFV_FRAME_GONE, sizeof gone) : NULL;
	memcpy(gone.gid, gid, 16);
	if (frame) {
		memcpy(ffv_frame_payload(frame), &gone, sizeof gone);
		frame->operand[0] = channel->io.received;
	}
	if (proxy->is_bridge) {
		pthread_mutex_lock(&proxy->router->lock);
		ffv_segment_announce_locked(proxy->router);
		pthread_mutex_unlock(&proxy->router->lock);
	}
	if (is_idle(proxy)) /* it is made again when somebody looks for it */
		ffv_proxy_retire(proxy, false);
}

static int watch(struct ffv_proxy *proxy)
{
	struct epoll_event bell = { .events = EPOLLIN, .data.u64 = (uintptr_t)proxy | FFV_TAG_BELL };
	struct epoll_event done = { .events = EPOLLIN, .data.u64 = (uintptr_t)proxy | FFV_TAG_COMPLETIONS };
	int epoll_fd = proxy->router->epoll_fd;

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, proxy->ctx->doorbell_fd, &bell))
		return -errno;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, ffv_comp_channel_fd(proxy->events), &done)) {
		int rc = -errno;
		epoll_ctl(epoll_fd, EPOLL_CTL_DEL, proxy->ctx->doorbell_fd, NULL);
		return rc;
	}
	proxy->watched = true;
	return 0;
}

void ffv_proxy_opened(struct ffv_proxy *proxy, int result, const char *text)
{
	struct ffv_router *router = proxy->router;

	if (proxy->state != FFV_PROXY_OPENING)
		return;
	if (!result && (result = watch(proxy)))
		text = "its descriptors cannot be waited for";
	pthread_mutex_lock(&router->lock);
	proxy->error = result;
	snprintf(proxy->error_text, sizeof proxy->error_text, "%s", text);
	if (!result)
		proxy->state = FFV_PROXY_OPEN;
	pthread_cond_broadcast(&router->changed);
	pthread_mutex_unlock(&router->lock);
	if (result || (proxy->is_bridge && is_idle(proxy))) /* whoever was on the segment has gone meanwhile */
		ffv_proxy_retire(proxy, true);
}

/* ---- pairs --------------------------------------------------------------------------------------------------------------- */

struct ffv_pair *ffv_pair_get(struct ffv_proxy *proxy, uint32_t far_qpn)
{
	return pair_of(proxy, far_qpn); /* only the loop writes the table */
}

static struct ffv_slab pairs = FFV_SLAB(sizeof(struct ffv_pair));

void ffv_pair_free(struct ffv_pair *pair)
{
	struct ffv_proxy *proxy = pair->proxy;

	ffv_incoming_free(pair);
	ffv_slab_free(&ffv_out_windows, pair->out.window);
	ffv_slab_free(&ffv_pair_refs, pair->ref);
	ffv_slab_free(&pairs, pair);
	if (!--proxy->num_pairs && proxy->state == FFV_PROXY_CLOSING)
		ffv_proxy_close(proxy);
}

static bool make_room(struct ffv_proxy *proxy)
{
	uint32_t capacity = proxy->live_capacity ? 2 * proxy->live_capacity : 4;

	if (proxy->num_live < proxy->live_capacity)
		return true;
	struct ffv_pair **grown = realloc((void *)proxy->live, capacity * sizeof(struct ffv_pair *));
	if (!grown)
		return false;
	proxy->live = grown;
	proxy->live_capacity = capacity;
	return true;
}

struct ffv_pair *ffv_pair_new(struct ffv_proxy *proxy, uint32_t far_qpn, uint32_t type, const uint8_t gid[16], uint32_t qpn)
{
	struct ffv_pair *pair = make_room(proxy) ? ffv_slab_alloc(&pairs) : NULL;

	if (!pair)
		return NULL;
	pair->proxy = proxy;
	proxy->num_pairs++;
	pair->far_qpn = far_qpn;
	pair->type = (uint16_t)type;
	pair->qpn = qpn;
	memcpy(pair->gid, gid, 16);
	pair->number = FFV_NONE;
	pair->last_result = &pair->results;
	pair->in.last_chunk = &pair->in.chunks;
	pthread_mutex_lock(&proxy->router->lock);
	proxy->pairs[far_qpn % FFV_QPN_BLOCK] = pair;
	pair->place = (uint16_t)proxy->num_live;
	proxy->live[proxy->num_live++] = pair;
	pthread_mutex_unlock(&proxy->router->lock);
	ffv_pair_warm(pair);
	return pair;
}

void ffv_pair_connect(struct ffv_pair *pair, const struct ffv_frame_open *attributes)
{
	struct ffv_job job = { .kind = FFV_JOB_CONNECT, .proxy = pair->proxy, .pair = pair, .to_rts = attributes != NULL };

	if (attributes)
		job.attributes = *attributes;
	else
		job.attributes.mtu_bytes = 4096;
	pair->ready = false;
	pair->jobs++;
	ffv_router_queue_job(pair->proxy->router, &job);
}

void ffv_pair_connected(struct ffv_pair *pair, const struct ffv_job *job)
{
	pair->jobs--;
	if (pair->dead) {
		ffv_pair_free_if_dead(pair);
		return;
	}
	if (pair->jobs)
		return; /* a later one decides */
	if (job->result) {
		ffv_pair_retire(pair);
		return;
	}
	pair->ready = true;
	ffv_incoming_rest(pair);
	if (job->to_rts) {
		ffv_incoming_go_on(pair);
	}
	if (pair->shm)
		ffv_outgoing_run(pair);
	ffv_pair_take_turn(pair);
}

void ffv_pair_take_turn(struct ffv_pair *pair)
{
	struct ffv_link_channel *channel = ffv_router_channel(pair->proxy->router, pair->proxy->channel);

	if (!channel || pair->in_turn || pair->dead)
		return;
	pair->in_turn = true;
	pair->ready_next = NULL;
	*channel->last_turn = pair;
	channel->last_turn = &pair->ready_next;
}

static void leave_turn(struct ffv_pair *pair)
{
	struct ffv_link_channel *channel = ffv_router_channel(pair->proxy->router, pair->proxy->channel);

	if (!channel || !pair->in_turn)
		return;
	for (struct ffv_pair **at = &channel->first_turn; *at; at = &(*at)->ready_next) {
		if (*at != pair)
			continue;
		*at = pair->ready_next;
		if (!pair->ready_next)
			channel->last_turn = at;
		break;
	}
	pair->in_turn = false;
}

static void untouch_locked(struct ffv_pair *pair)
{
	struct ffv_router *router = pair->proxy->router;

	if (!pair->touched)
		return;
	for (struct ffv_pair **at = &router->touched; *at; at = &(*at)->touched_next) {
		if (*at == pair) {
			*at = pair->touched_next;
			break;
		}
	}
	pair->touched = false;
}

static void leave_proxy_locked(struct ffv_pair *pair)
{
	struct ffv_proxy *proxy = pair->proxy;
	struct ffv_pair *last = proxy->live[--proxy->num_live];

	proxy->pairs[pair->far_qpn % FFV_QPN_BLOCK] = NULL;
	proxy->live[pair->place] = last;
	last->place = pair->place;
}

/* Takes it out of everybody's sight; it is freed when no job is left that knows it. */
void ffv_pair_retire(struct ffv_pair *pair)
{
	struct ffv_router *router = pair->proxy->router;
	struct ffv_link_channel *channel = ffv_router_channel(router, pair->proxy->channel);

	if (pair->dead)
		return;
	ffv_incoming_close(pair, FFV_WC_RETRY_EXC_ERR);
	ffv_transfer_forget(pair);
	ffv_transfer_unpark(pair, channel);
	leave_turn(pair);
	if (channel)
		ffv_incoming_unname(pair, channel);
	if (pair->number != FFV_NONE)
		router->numbers[pair->number] = NULL;
	pthread_mutex_lock(&router->lock);
	untouch_locked(pair);
	leave_proxy_locked(pair);
	ffv_pair_forget_warmth_locked(pair);
	pair->dead = true;
	pthread_mutex_unlock(&router->lock);
	ffv_pair_free_if_dead(pair);
}

void ffv_pair_free_if_dead(struct ffv_pair *pair)
{
	if (!pair->dead || pair->jobs || pair->attaching)
		return;
	struct ffv_job job = { .kind = FFV_JOB_DESTROY, .proxy = pair->proxy, .pair = pair, .qp = pair->qp, .peer = pair->peer };

	pair->qp = NULL;
	pair->peer = NULL;
	ffv_router_queue_job(pair->proxy->router, &job); /* what it holds is freed when nobody executes on it any more */
}

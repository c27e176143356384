/* SPDX-License-Identifier: MIT
 *
 * The router's data plane: its public calls and its loop (see router.h for the threads).
 */
#include "wire/router.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "verbs/context.h"
#include "wire/speakers.h"

#define TAGS 7u
#define REST_MS 1000              /* of nothing to do, and memory goes back (rest.c) */
#define LINGER_NS 15000u          /* the time in which a program that waits for a message answers it */
#define MOST_MISSES 6             /* 64 messages without that wait at most */
#define TICK_MS 10                /* while somebody waits for the other end of a channel */

/* ---- between threads ----------------------------------------------------------------------------------------------------- */

void ffv_router_wake_locked(struct ffv_router *router)
{
	uint64_t one = 1;

	if (router->awake) {
		router->again = true;
		return;
	}
	router->awake = write(router->wake_fd, &one, sizeof one) == sizeof one;
}

void ffv_router_raise(struct ffv_router *router, const struct ffv_router_event *event)
{
	struct ffv_event_node *node = calloc(1, sizeof *node);
	uint64_t one = 1;

	if (!node)
		return;
	node->event = *event;
	pthread_mutex_lock(&router->lock);
	if (router->last_event)
		router->last_event->next = node;
	else
		router->events = node;
	router->last_event = node;
	pthread_mutex_unlock(&router->lock);
	if (write(router->event_fd, &one, sizeof one) < 0)
		return; /* it is readable already */
}

static struct ffv_slab jobs = FFV_SLAB(sizeof(struct ffv_job));

struct ffv_job *ffv_router_new_job(const struct ffv_job *job)
{
	struct ffv_job *copy = ffv_slab_alloc(&jobs);

	if (!copy)
		abort(); /* a proxy that is never opened or closed cannot be told from a leak */
	*copy = *job;
	copy->next = NULL;
	return copy;
}

void ffv_router_queue_job(struct ffv_router *router, const struct ffv_job *job)
{
	struct ffv_job *copy = ffv_router_new_job(job);

	pthread_mutex_lock(&router->lock);
	struct ffv_job ***last = job->proxy->waits ? &job->proxy->last_held : &router->last_job;
	**last = copy;
	*last = &copy->next;
	pthread_cond_broadcast(&router->changed);
	pthread_mutex_unlock(&router->lock);
}

struct ffv_link_channel *ffv_router_channel(struct ffv_router *router, uint32_t number)
{
	struct ffv_link_channel *channel = router->channels[number % FFV_MAX_CHANNELS];

	return channel && channel->number == number && !channel->broken ? channel : NULL;
}

/* ---- channels ------------------------------------------------------------------------------------------------------------ */

static bool dispatch(struct ffv_router *router, struct ffv_link_channel *channel, const struct ffv_frame *frame,
		     const uint8_t *payload)
{
	if ((frame->kind >= FFV_FRAME_CALL && frame->kind <= FFV_FRAME_HANG_UP) || frame->kind == FFV_FRAME_TOLD ||
	    frame->kind == FFV_FRAME_HUNG_UP) {
		ffv_call_frame(router, channel, frame, payload);
		return true;
	}
	if (frame->kind == FFV_FRAME_BROADCAST || frame->kind == FFV_FRAME_INTEREST || frame->kind == FFV_FRAME_INTEREST_SEEN) {
		ffv_segment_frame(router, channel, frame, payload);
		return true;
	}
	if (frame->kind != FFV_FRAME_ACK && frame->kind != FFV_FRAME_CREDIT && frame->kind != FFV_FRAME_RESULT &&
	    frame->kind != FFV_FRAME_WAITS)
		return ffv_incoming_frame(channel, router, frame, payload);
	struct ffv_pair *pair = router->numbers[frame->pair];
	if (pair && pair->proxy->channel == channel->number && pair->shm)
		ffv_outgoing_frame(pair, frame, payload);
	return true;
}

/* A piece of a large frame's payload. False: it breaks a rule. */
static bool dispatch_body(struct ffv_router *router, struct ffv_link_channel *channel, const struct ffv_frame *frame)
{
	if (frame->kind == FFV_FRAME_DATA)
		return ffv_incoming_body(channel, frame);
	struct ffv_pair *pair = router->numbers[frame->pair];
	bool meant = pair && pair->proxy->channel == channel->number && pair->shm;
	ffv_outgoing_body(meant ? pair : NULL, channel, frame);
	return true;
}

/* Everything that has come. 0 = wait for more, -EPROTO and the like. */
static int take_frames(struct ffv_router *router, struct ffv_link_channel *channel)
{
	const uint8_t *payload;
	struct ffv_frame frame;
	int got;

	while (!channel->broken && (got = ffv_channel_next(&channel->io, &frame, &payload)) > 0) {
		uint32_t left = channel->io.body_left;
		bool valid = got == 1 ? dispatch(router, channel, &frame, payload) : dispatch_body(router, channel, &frame);
		if (!valid)
			return ffv_fail(EPROTO, "the other router sent more than its window allows");
		if (got == 2 && channel->io.body_left == left)
			return 0;
	}
	return channel->broken ? 0 : got;
}

#define MOST_FILLS 16             /* of the buffer of one channel before others get their turn */

static void read_channel(struct ffv_router *router, struct ffv_link_channel *channel)
{
	int end = 1, got = 0;

	channel->io.error = 0;
	channel->io.filled = false;
	channel->io.budget = FFV_ROUND_BYTES;
	for (int i = 0; i < MOST_FILLS && end == 1 && !got && channel->io.budget && !channel->broken; i++) {
		if (!ffv_channel_in_body(&channel->io))
			end = ffv_channel_fill(&channel->io);
		got = take_frames(router, channel);
		if (ffv_channel_in_body(&channel->io) && end > 0) /* of which nothing more is there now */
			end = 0;
		if (channel->io.error < 0)
			end = channel->io.error;
	}
	if (got < 0) {
		channel->ends = true;
		snprintf(channel->why, sizeof channel->why, "%s", ffv_error_text());
	} else if (end < 0) {
		ffv_link_lose(router, channel, ffv_error_text());
	}
}

static void ask_for_room(struct ffv_router *router, struct ffv_link_channel *channel, bool wanted)
{
	struct epoll_event event = { .events = EPOLLIN | (wanted ? EPOLLOUT : 0u), .data.u64 = (uintptr_t)channel | FFV_TAG_CHANNEL };

	if (wanted == channel->wants_out)
		return;
	channel->wants_out = wanted;
	epoll_ctl(router->epoll_fd, EPOLL_CTL_MOD, channel->io.descriptor, &event);
}

/* One turn of each pair that has something to send, while there is room. */
static void pump(struct ffv_router *router, struct ffv_link_channel *channel)
{
	while (channel->first_turn && ffv_channel_room(&channel->io) && ffv_rate_allows(router)) {
		uint64_t before = channel->io.out.tail;
		struct ffv_pair *pair = channel->first_turn;
		channel->first_turn = pair->ready_next;
		if (!channel->first_turn)
			channel->last_turn = &channel->first_turn;
		pair->in_turn = false;
		bool more = ffv_incoming_send(pair, channel);
		more |= ffv_outgoing_send(pair, channel);
		if (more)
			ffv_pair_take_turn(pair);
		ffv_rate_spend(router, channel->io.out.tail - before);
	}
}

static void count_one(_Atomic uint64_t *all, _Atomic uint64_t *counted, uint64_t now)
{
	uint64_t before = ffv_load_relaxed(counted);

	if (now == before)
		return;
	ffv_fetch_add(all, now - before);
	ffv_store_relaxed(counted, now);
}

static void count(struct ffv_router *router, struct ffv_link_channel *channel)
{
	count_one(&router->frames_sent, &channel->frames_sent, channel->io.frames_sent);
	count_one(&router->frames_received, &channel->frames_received, channel->io.frames_received);
	count_one(&router->bytes_sent, &channel->bytes_sent, channel->io.bytes_sent);
	count_one(&router->bytes_received, &channel->bytes_received, channel->io.bytes_received);
	count_one(&router->bytes_placed, &channel->bytes_placed, channel->io.bytes_placed);
	router->ticks |= channel->lost_ns || ffv_channel_unseen(&channel->io);
}

static void come_again(struct ffv_router *router)
{
	pthread_mutex_lock(&router->lock);
	ffv_router_wake_locked(router);
	pthread_mutex_unlock(&router->lock);
}

#define MOST_ROUNDS 8             /* of filling and flushing one channel before others get their turn */

static void serve_channel(struct ffv_router *router, struct ffv_link_channel *channel)
{
	int out = 1;

	for (int i = 0; i < MOST_ROUNDS && out == 1; i++) {
		pump(router, channel);
		out = ffv_channel_flush(&channel->io);
		if (!channel->first_turn || router->rate_wait_ms)
			break;
	}
	if (out < 0) {
		read_channel(router, channel); /* that it ends, not only its link, may be the last that the other side said */
		ffv_link_lose(router, channel, ffv_error_text());
	} else if (channel->io.link)
		ask_for_room(router, channel, out == 0);
	if (out == 1 && channel->first_turn && !router->rate_wait_ms && ffv_channel_room(&channel->io))
		come_again(router); /* the rest when others had their turn; without room, when the other end has seen more */
	count(router, channel);
}

void ffv_router_free_channel(struct ffv_router *router, struct ffv_link_channel *channel)
{
	pthread_mutex_lock(&router->lock);
	router->channels[channel->number % FFV_MAX_CHANNELS] = NULL;
	pthread_mutex_unlock(&router->lock);
	if (channel->next_link)
		channel->next_transport->close(channel->next_link);
	ffv_channel_finish(&channel->io);
	ffv_transfer_poll(router, channel); /* those that were under way are not any more */
	ffv_speakers_free(channel);
	free((void *)channel->theirs);
	free((void *)channel->their_calls.call);
	free(channel);
}

/* ---- what other threads left for the loop ------------------------------------------------------------------------------------- */

static void forget_proxy(struct ffv_proxy *proxy)
{
	struct ffv_router *router = proxy->router;

	pthread_mutex_lock(&router->lock);
	proxy->state = FFV_PROXY_CLOSED;
	bool last = !proxy->waiters;
	struct ffv_proxy *before = router->proxies;
	if (before == proxy) {
		router->proxies = proxy->next;
	} else {
		while (before->next != proxy)
			before = before->next;
		before->next = proxy->next;
	}
	ffv_proxy_left_locked(proxy);
	pthread_cond_broadcast(&router->changed);
	pthread_mutex_unlock(&router->lock);
	if (last)
		ffv_proxy_free(proxy);
}

static void finish_job(struct ffv_job *job)
{
	switch (job->kind) {
	case FFV_JOB_OPEN_PROXY:
		ffv_proxy_opened(job->proxy, job->result, job->text);
		break;
	case FFV_JOB_CLOSE_PROXY:
		if (job->result == -EBUSY)
			ffv_proxy_close(job->proxy);
		else
			forget_proxy(job->proxy);
		break;
	case FFV_JOB_CONNECT:
		ffv_pair_connected(job->pair, job);
		if (job->pair->type == FFV_QPT_UD && !job->pair->dead && !job->pair->jobs && job->pair->ready) {
			job->pair->jobs++;
			ffv_datagram_attached(job->pair, NULL);
		}
		break;
	case FFV_JOB_DESTROY:
		ffv_pair_free(job->pair);
		break;
	case FFV_JOB_ATTACH:
		if (job->pair->type == FFV_QPT_UD)
			ffv_datagram_attached(job->pair, job);
		else
			ffv_incoming_attached(job->pair, job);
		break;
	}
}

static void finish_jobs(struct ffv_router *router)
{
	pthread_mutex_lock(&router->lock);
	struct ffv_job *job = router->done;
	router->done = NULL;
	router->last_done = &router->done;
	pthread_mutex_unlock(&router->lock);
	while (job) {
		struct ffv_job *next = job->next;
		finish_job(job);
		ffv_slab_free(&jobs, job);
		job = next;
	}
}

/* The next that can be looked at. Containers find a proxy in the node directory a moment before it counts as open, and who
 * sends datagrams rings once: theirs waits. */
static bool next_wanted(struct ffv_router *router, struct ffv_wanted *wanted)
{
	uint32_t i = 0;

	pthread_mutex_lock(&router->lock);
	while (i < router->num_wanted && router->wanted[i].proxy->state == FFV_PROXY_OPENING)
		i++;
	bool found = i < router->num_wanted;
	if (found) {
		*wanted = router->wanted[i];
		memmove(&router->wanted[i], &router->wanted[i + 1], (--router->num_wanted - i) * sizeof *wanted);
	}
	pthread_mutex_unlock(&router->lock);
	return found;
}

static void serve_wanted(struct ffv_router *router)
{
	struct ffv_wanted wanted;

	while (next_wanted(router, &wanted)) {
		if (wanted.proxy->state != FFV_PROXY_OPEN)
			continue;
		if (wanted.gone)
			ffv_proxy_peer_gone(wanted.proxy, wanted.gid, wanted.qpn, wanted.gone);
		else
			ffv_outgoing_wanted(wanted.proxy, wanted.gid, wanted.qpn);
	}
}

static void serve_touched(struct ffv_router *router)
{
	for (unsigned n = 0; n < 256; n++) {
		pthread_mutex_lock(&router->lock);
		struct ffv_pair *pair = router->touched;
		if (pair) {
			router->touched = pair->touched_next;
			pair->touched = false;
		}
		pthread_mutex_unlock(&router->lock);
		if (!pair)
			return;
		ffv_incoming_report_later(pair);
		ffv_incoming_credit(pair);
		ffv_pair_take_turn(pair);
	}
	come_again(router); /* the rest when others had their turn */
}

static void close_asked(struct ffv_router *router)
{
	uint32_t asked[FFV_MAX_CHANNELS / 32];

	pthread_mutex_lock(&router->lock);
	memcpy(asked, router->close_requests, sizeof asked);
	memset(router->close_requests, 0, sizeof router->close_requests);
	pthread_mutex_unlock(&router->lock);
	for (uint32_t i = 0; i < FFV_MAX_CHANNELS; i++)
		if (asked[i / 32] >> (i % 32) & 1 && router->channels[i])
			ffv_link_break(router, router->channels[i], "closed by this router");
}

/* Closes everything; true if it is. */
static bool wind_up(struct ffv_router *router)
{
	for (uint32_t i = 0; i < FFV_MAX_CHANNELS; i++)
		if (router->channels[i])
			ffv_link_break(router, router->channels[i], "this router stops");
	for (struct ffv_proxy *proxy = router->proxies; proxy; proxy = proxy->next)
		ffv_proxy_retire(proxy, true);
	return !router->proxies;
}

/* ---- the loop --------------------------------------------------------------------------------------------------------------- */

static void completions(struct ffv_proxy *proxy)
{
	struct ffv_cq *cq;
	void *unused;

	if (ffv_get_cq_event(proxy->events, &cq, &unused) == 0)
		ffv_ack_cq_events(cq, 1);
	ffv_proxy_heat(proxy);
}

static void serve_event(struct ffv_router *router, const struct epoll_event *event)
{
	uintptr_t pointer = (uintptr_t)event->data.u64 & ~(uintptr_t)TAGS;
	struct ffv_link_channel *channel = (struct ffv_link_channel *)pointer;
	struct ffv_proxy *proxy = (struct ffv_proxy *)pointer;
	uint64_t count;

	switch (event->data.u64 & TAGS) {
	case FFV_TAG_CHANNEL:
		if (!channel->broken && !channel->ends && event->events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP))
			read_channel(router, channel);
		return;
	case FFV_TAG_CALL:
		ffv_call_read(router, (struct ffv_call *)pointer);
		return;
	case FFV_TAG_BELL:
		if (proxy->state == FFV_PROXY_OPEN)
			ffv_attend_doorbell(proxy->ctx, EPOLLIN);
		return;
	case FFV_TAG_COMPLETIONS:
		if (proxy->state == FFV_PROXY_OPEN)
			completions(proxy);
		return;
	default:
		if (read(router->wake_fd, &count, sizeof count) < 0)
			count = 0; /* it is empty already */
	}
}

/* What was left for the loop before this is looked at in this round; later, perhaps in the next one. */
static void begin_round(struct ffv_router *router)
{
	pthread_mutex_lock(&router->lock);
	router->awake = true; /* nobody has to wake it */
	router->again = false;
	pthread_mutex_unlock(&router->lock);
}

/* Whether the loop may sleep: who leaves something for it from here on wakes it. */
static bool end_round(struct ffv_router *router, bool *closing)
{
	bool some = ffv_hot_rest(router);

	pthread_mutex_lock(&router->lock);
	some |= router->again;
	router->awake = some;
	*closing = router->closing;
	pthread_mutex_unlock(&router->lock);
	return !some;
}

static void serve_queues(struct ffv_router *router)
{
	begin_round(router);
	router->rate_wait_ms = 0;
	close_asked(router);
	ffv_calls_free_ended(router);
	ffv_calls_begin(router);
	finish_jobs(router);
	ffv_owners_serve(router);
	serve_wanted(router);
	ffv_hot_poll(router);
	serve_touched(router);
	for (struct ffv_proxy *proxy = router->proxies; proxy; proxy = proxy->next)
		if (ffv_load_relaxed(&proxy->num_datagrams)) {
			if (proxy->is_bridge)
				ffv_segment_send(proxy);
			else
				ffv_datagram_send(proxy);
		}
	ffv_segment_serve(router);
}

static void serve_channels(struct ffv_router *router)
{
	router->ticks = false;
	for (uint32_t i = 0; i < FFV_MAX_CHANNELS; i++) {
		struct ffv_link_channel *channel = router->channels[i];
		if (channel && channel->ends) /* after what was posted before that was looked at */
			ffv_link_break(router, channel, channel->why);
		if (channel && !channel->broken)
			ffv_link_resume(router, channel);
		if (channel && !channel->broken) {
			ffv_transfer_poll(router, channel);
			serve_channel(router, channel);
		}
		if (channel && channel->broken)
			ffv_router_free_channel(router, channel);
	}
}

#define EVENTS 64

static void serve_events(struct ffv_router *router, const struct epoll_event *events, int n)
{
	begin_round(router);
	for (int i = 0; i < n; i++)
		serve_event(router, &events[i]);
	router->now_ns = ffv_clock_ns();
	ffv_link_tick(router);
	ffv_rest_tick(router);
	serve_queues(router);
}

/* A container was given a message. If containers have answered at once lately, waits a moment for that: the acknowledgement
 * goes with the answer, and its receiver wakes once. Each wait that was in vain makes the next one rarer. */
static void linger(struct ffv_router *router, struct epoll_event *events)
{
	bool delivered = router->delivered;
	uint64_t end_ns = ffv_clock_ns() + LINGER_NS;
	int n = 0;

	router->delivered = false;
	if (!delivered || (router->linger_skips && router->linger_skips--))
		return;
	while (!(n = epoll_wait(router->epoll_fd, events, EVENTS, 0)) && ffv_clock_ns() < end_ns)
		sched_yield();
	if (n > 0)
		serve_events(router, events, n);
	router->linger_misses = n > 0 ? 0 : router->linger_misses < MOST_MISSES ? router->linger_misses + 1 : MOST_MISSES;
	router->linger_skips = n > 0 ? 0 : 1u << router->linger_misses;
}

/* How long the loop sleeps if nobody wakes it; -1 = for ever. */
static int sleep_ms(const struct ffv_router *router, bool tidy)
{
	/* What is registered, and what is warm, is looked after. */
	bool rests = tidy && !router->num_warm && !ffv_load_relaxed(&router->windows.bytes);
	int most = router->ticks ? TICK_MS : rests ? -1 : REST_MS;

	return router->rate_wait_ms && (most < 0 || (int)router->rate_wait_ms < most) ? (int)router->rate_wait_ms : most;
}

static void *loop_thread(void *arg)
{
	struct ffv_router *router = arg;
	struct epoll_event events[EVENTS];
	bool closing = false, tidy = true, sleeps = true;

	while (!closing || !wind_up(router)) {
		int n = epoll_wait(router->epoll_fd, events, EVENTS, sleeps ? sleep_ms(router, tidy) : 0);
		tidy = sleeps && !n && !router->ticks && !router->rate_wait_ms;
		serve_events(router, events, n);
		if (tidy)
			ffv_rest_all(router);
		linger(router, events);
		serve_channels(router);
		sleeps = end_round(router, &closing);
	}
	return NULL;
}

/* ---- public ---------------------------------------------------------------------------------------------------------------------- */

static int start(struct ffv_router *router)
{
	struct epoll_event wake = { .events = EPOLLIN };

	router->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	router->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	router->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (router->epoll_fd < 0 || router->wake_fd < 0 || router->event_fd < 0 ||
	    epoll_ctl(router->epoll_fd, EPOLL_CTL_ADD, router->wake_fd, &wake))
		return ffv_fail_errno(errno, "the router's descriptors cannot be made");
	int rc = -pthread_create(&router->setup, NULL, ffv_setup_thread, router);
	router->setup_runs = !rc;
	if (!rc)
		rc = -pthread_create(&router->loop, NULL, loop_thread, router);
	router->loop_runs = router->setup_runs && !rc;
	return rc ? ffv_fail_errno(-rc, "the router's threads cannot be started") : 0;
}

int ffv_router_create(const char *dir, struct ffv_router **out)
{
	struct ffv_router *router = calloc(1, sizeof *router);

	if (!router)
		return ffv_fail(ENOMEM, "no memory for a router");
	pthread_mutex_init(&router->lock, NULL);
	router->options.windows = &router->windows;
	pthread_cond_init(&router->changed, NULL);
	router->epoll_fd = router->wake_fd = router->event_fd = -1;
	router->last_job = &router->jobs;
	router->last_new_call = &router->new_calls;
	router->last_owner = &router->owners;
	router->last_done = &router->done;
	router->dir = dir ? strdup(dir) : NULL;
	router->numbers = calloc(FFV_MAX_PAIRS, sizeof(struct ffv_pair *));
	int rc = router->numbers && (router->dir || !dir) ? ffv_nodedir_open(dir, &router->nodedir)
							  : ffv_fail(ENOMEM, "no memory for a router");
	if (!rc)
		rc = start(router);
	if (rc) {
		ffv_router_destroy(router);
		return rc;
	}
	*out = router;
	return 0;
}

static void free_router(struct ffv_router *router)
{
	ffv_calls_begin(router);
	ffv_calls_end(router, NULL);
	ffv_calls_free_ended(router);
	free((void *)router->our_calls.call);
	ffv_owners_serve(router);
	if (router->nodedir)
		ffv_nodedir_close(router->nodedir);
	while (router->events) {
		struct ffv_event_node *node = router->events;
		router->events = node->next;
		free(node);
	}
	if (router->epoll_fd >= 0)
		close(router->epoll_fd);
	if (router->wake_fd >= 0)
		close(router->wake_fd);
	if (router->event_fd >= 0)
		close(router->event_fd);
	pthread_mutex_destroy(&router->lock);
	pthread_cond_destroy(&router->changed);
	free(router->wanted);
	free((void *)router->warm);
	free((void *)router->numbers);
	free(router->dir);
	free(router);
}

void ffv_router_destroy(struct ffv_router *router)
{
	if (!router)
		return;
	if (router->loop_runs) {
		pthread_mutex_lock(&router->lock);
		router->closing = true;
		ffv_router_wake_locked(router);
		pthread_mutex_unlock(&router->lock);
		pthread_join(router->loop, NULL);
	}
	if (router->setup_runs) {
		pthread_mutex_lock(&router->lock);
		router->stopping = true;
		pthread_cond_broadcast(&router->changed);
		pthread_mutex_unlock(&router->lock);
		pthread_join(router->setup, NULL);
	}
	finish_jobs(router);
	for (uint32_t i = 0; i < FFV_MAX_CHANNELS; i++)
		if (router->channels[i])
			ffv_router_free_channel(router, router->channels[i]);
	free_router(router);
}

/* SPDX-License-Identifier: MIT
 *
 * Channels and the links that carry them: a link that is lost is replaced, a channel that is broken is not. Runs on the
 * loop's thread.
 */
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/error.h"
#include "base/fault.h"
#include "wire/router.h"

#define SWEEP_NS 100000000ull     /* between two looks at the patience of queue pairs */

static void stop_watching(struct ffv_router *router, struct ffv_link_channel *channel)
{
	if (channel->io.link)
		epoll_ctl(router->epoll_fd, EPOLL_CTL_DEL, channel->io.descriptor, NULL);
	channel->wants_out = false;
}

/* Called with the link gone from epoll; describing it from other threads goes by the lock. */
static void detach(struct ffv_router *router, struct ffv_link_channel *channel)
{
	pthread_mutex_lock(&router->lock);
	ffv_channel_detach(&channel->io);
	pthread_mutex_unlock(&router->lock);
}

void ffv_link_break(struct ffv_router *router, struct ffv_link_channel *channel, const char *why)
{
	struct ffv_router_event event = { .kind = FFV_ROUTER_CHANNEL_CLOSED, .channel = channel->number };

	if (channel->broken)
		return;
	while (channel->first_turn) {
		channel->first_turn->in_turn = false;
		channel->first_turn = channel->first_turn->ready_next;
	}
	channel->last_turn = &channel->first_turn;
	ffv_channel_part(&channel->io);
	stop_watching(router, channel);
	pthread_mutex_lock(&router->lock);
	channel->broken = true;
	pthread_mutex_unlock(&router->lock);
	ffv_store_relaxed(&router->segment_changed, true);
	ffv_calls_end(router, channel);
	FFV_FAULT(wire_channel_broken);
	for (struct ffv_proxy *proxy = router->proxies; proxy; proxy = proxy->next)
		if (proxy->channel == channel->number && proxy->state < FFV_PROXY_CLOSING)
			ffv_proxy_lose(proxy);
	snprintf(event.text, sizeof event.text, "%s", why);
	ffv_router_raise(router, &event);
}

void ffv_link_lose(struct ffv_router *router, struct ffv_link_channel *channel, const char *why)
{
	struct ffv_router_event event = { .kind = FFV_ROUTER_CHANNEL_LOST, .channel = channel->number };

	if (channel->broken || channel->lost_ns)
		return;
	snprintf(event.text, sizeof event.text, "%s", why);
	stop_watching(router, channel);
	detach(router, channel);
	channel->lost_ns = router->now_ns;
	for (const struct ffv_proxy *proxy = router->proxies; proxy; proxy = proxy->next)
		for (uint32_t i = 0; i < proxy->num_live && proxy->channel == channel->number; i++)
			ffv_outgoing_let_go(proxy->live[i], channel);
	FFV_FAULT(wire_link_lost);
	ffv_router_raise(router, &event);
}

void ffv_link_resume(struct ffv_router *router, struct ffv_link_channel *channel)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = (uintptr_t)channel | FFV_TAG_CHANNEL };

	if (!ffv_load_relaxed(&channel->has_next))
		return;
	stop_watching(router, channel);
	pthread_mutex_lock(&router->lock);
	ffv_channel_attach(&channel->io, channel->next_transport, channel->next_link);
	channel->next_link = NULL;
	ffv_store_relaxed(&channel->has_next, false);
	pthread_mutex_unlock(&router->lock);
	channel->lost_ns = 0;
	FFV_FAULT(wire_link_resumed);
	if (epoll_ctl(router->epoll_fd, EPOLL_CTL_ADD, channel->io.descriptor, &event))
		ffv_link_lose(router, channel, "its descriptor cannot be waited for");
}

static bool is_silent(const struct ffv_channel *channel, uint64_t now_ns)
{
	return ffv_channel_unseen(channel) && ffv_elapsed_ns(now_ns, channel->heard_ns) > FFV_LEAST_PATIENCE_NS;
}

/* Everybody who has waited too long for a host that says nothing. */
static void sweep(struct ffv_router *router)
{
	for (const struct ffv_proxy *proxy = router->proxies; proxy; proxy = proxy->next) {
		struct ffv_link_channel *channel = ffv_router_channel(router, proxy->channel);
		bool silent = channel && is_silent(&channel->io, router->now_ns);
		for (uint32_t i = 0; i < proxy->num_live && silent; i++)
			ffv_outgoing_lose_patience(proxy->live[i], channel, router->now_ns);
	}
}

void ffv_link_tick(struct ffv_router *router)
{
	bool silent = false;

	if (router->now_ns - router->ticked_ns < FFV_PROBE_NS / 2)
		return;
	router->ticked_ns = router->now_ns;
	for (uint32_t i = 0; i < FFV_MAX_CHANNELS; i++) {
		struct ffv_link_channel *channel = router->channels[i];
		if (!channel || channel->broken)
			continue;
		ffv_grant_tick(router, channel);
		if (channel->io.link && channel->io.transport->one_sided)
			channel->io.transport->one_sided->forget(channel->io.link, NULL, router->now_ns);
		if (ffv_channel_tick(&channel->io, router->now_ns))
			ffv_link_lose(router, channel, ffv_error_text());
		if (channel->lost_ns && router->now_ns - channel->lost_ns > FFV_LINK_PATIENCE_NS)
			ffv_link_break(router, channel, "it was not to be reached again");
		silent |= is_silent(&channel->io, router->now_ns);
	}
	if (silent && router->now_ns - router->swept_ns > SWEEP_NS) {
		router->swept_ns = router->now_ns;
		sweep(router);
	}
}

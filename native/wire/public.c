/* SPDX-License-Identifier: MIT
 *
 * The router's public calls but creating and destroying: from any thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fault.h"
#include "wire/rdma_device.h"
#include "wire/router.h"

int ffv_router_use_rdma(struct ffv_router *router, const struct ffv_rdma_options *options)
{
	struct ffv_rdma_device device;

	pthread_mutex_lock(&router->lock);
	router->options.rdma = *options;
	pthread_mutex_unlock(&router->lock);
	int rc = ffv_rdma_device_open(options, &device);
	if (!rc)
		ffv_rdma_device_close(&device);
	return rc;
}

static struct ffv_transport_options options_of(struct ffv_router *router)
{
	pthread_mutex_lock(&router->lock);
	struct ffv_transport_options options = router->options;
	pthread_mutex_unlock(&router->lock);
	return options;
}

/* A copy of a descriptor. By dup(): what the thread sanitizer knows of a socket does not go with fcntl(). */
static int copy_of(int socket)
{
	int own = dup(socket);

	if (own >= 0)
		fcntl(own, F_SETFD, FD_CLOEXEC);
	return own;
}

/* A channel that nobody knows yet, over a copy of the descriptor: that stays the caller's until all is well. */
static int make_channel(const struct ffv_transport *transport, const struct ffv_transport_options *options, int socket,
			struct ffv_link_channel **out)
{
	struct ffv_link_channel *channel = calloc(1, sizeof *channel);
	int own = channel ? copy_of(socket) : -1;
	int rc = own >= 0 ? ffv_channel_init(&channel->io, transport, options, own)
			  : ffv_fail_errno(channel ? errno : ENOMEM, "a channel cannot be made");

	if (rc) {
		if (own >= 0)
			close(own);
		free(channel);
		return rc;
	}
	channel->last_turn = &channel->first_turn;
	*out = channel;
	return 0;
}

int ffv_router_add_channel(struct ffv_router *router, const char *transport, int socket, uint32_t *number)
{
	const struct ffv_transport *carrier = ffv_transport_find(transport);
	struct ffv_transport_options options = options_of(router);
	struct epoll_event event = { .events = EPOLLIN };
	struct ffv_link_channel *channel;
	uint32_t place = 0;

	if (!carrier)
		return ffv_fail(EPROTONOSUPPORT, "this router has no transport %s", transport);
	int rc = make_channel(carrier, &options, socket, &channel);
	if (rc)
		return rc;
	event.data.u64 = (uintptr_t)channel | FFV_TAG_CHANNEL;
	FFV_FAULT(wire_channel_made);
	pthread_mutex_lock(&router->lock);
	while (place < FFV_MAX_CHANNELS && router->channels[place])
		place++;
	if (place == FFV_MAX_CHANNELS)
		rc = ffv_fail(EMFILE, "no more than %u channels to other routers are possible", FFV_MAX_CHANNELS);
	else
		channel->number = place + FFV_MAX_CHANNELS * router->generation++;
	/* Before the loop knows the channel, which it may free at once. */
	if (!rc && epoll_ctl(router->epoll_fd, EPOLL_CTL_ADD, channel->io.descriptor, &event))
		rc = ffv_fail_errno(errno, "the descriptor of a channel cannot be waited for");
	if (!rc) {
		*number = channel->number;
		router->channels[place] = channel;
		ffv_store_relaxed(&router->segment_changed, true); /* it is to know what is wanted here */
		ffv_router_wake_locked(router);
	}
	pthread_mutex_unlock(&router->lock);
	if (rc) {
		ffv_channel_finish(&channel->io);
		free(channel);
		return rc;
	}
	close(socket);
	return 0;
}

int ffv_router_resume_channel(struct ffv_router *router, uint32_t number, const char *transport, int socket)
{
	const struct ffv_transport *carrier = ffv_transport_find(transport);
	struct ffv_transport_options options = options_of(router);
	struct ffv_wire_link *link;

	if (!carrier)
		return ffv_fail(EPROTONOSUPPORT, "this router has no transport %s", transport);
	int own = copy_of(socket);
	int rc = own < 0 ? ffv_fail_errno(errno, "a channel cannot be resumed") : carrier->open(&options, own, &link);
	if (rc) {
		if (own >= 0)
			close(own);
		return rc;
	}
	pthread_mutex_lock(&router->lock);
	struct ffv_link_channel *channel = router->channels[number % FFV_MAX_CHANNELS];
	if (channel && channel->number == number && !channel->broken) {
		if (channel->next_link)
			channel->next_transport->close(channel->next_link);
		channel->next_transport = carrier;
		channel->next_link = link;
		ffv_store_relaxed(&channel->has_next, true);
		ffv_router_wake_locked(router);
	} else {
		channel = NULL;
	}
	pthread_mutex_unlock(&router->lock);
	if (channel) {
		FFV_FAULT(wire_link_found);
		close(socket);
		return 0;
	}
	carrier->close(link);
	return ffv_fail(ENOTCONN, "channel %u is closed", number);
}

int ffv_router_set_tenant(struct ffv_router *router, uint32_t number, uint64_t tenant)
{
	pthread_mutex_lock(&router->lock);
	struct ffv_link_channel *channel = router->channels[number % FFV_MAX_CHANNELS];
	bool found = channel && channel->number == number;
	if (found) {
		ffv_store_relaxed(&channel->tenant, tenant);
		ffv_store_relaxed(&router->segment_changed, true);
		ffv_router_wake_locked(router);
	}
	pthread_mutex_unlock(&router->lock);
	return found ? 0 : ffv_fail(ENOTCONN, "channel %u is closed", number);
}

int ffv_router_describe_channel(struct ffv_router *router, uint32_t number, char *text, size_t capacity)
{
	bool found = false;

	pthread_mutex_lock(&router->lock); /* a channel that is in its place is not freed meanwhile */
	const struct ffv_link_channel *channel = router->channels[number % FFV_MAX_CHANNELS];
	if (channel && channel->number == number) {
		snprintf(text, capacity, "no link");
		if (channel->io.link)
			channel->io.transport->describe(channel->io.link, text, capacity);
		found = true;
	}
	pthread_mutex_unlock(&router->lock);
	return found ? 0 : ffv_fail(ENOTCONN, "channel %u is closed", number);
}

int ffv_router_set_faults(const char *text)
{
	return ffv_fault_configure(text);
}

void ffv_router_close_channel(struct ffv_router *router, uint32_t number)
{
	uint32_t place = number % FFV_MAX_CHANNELS;

	pthread_mutex_lock(&router->lock);
	if (router->channels[place] && router->channels[place]->number == number)
		router->close_requests[place / 32] |= 1u << (place % 32);
	ffv_router_wake_locked(router);
	pthread_mutex_unlock(&router->lock);
}

static bool is_open(const struct ffv_router *router, uint32_t number)
{
	const struct ffv_link_channel *channel = router->channels[number % FFV_MAX_CHANNELS];

	return channel && channel->number == number && !channel->broken;
}

int ffv_router_reach(struct ffv_router *router, const uint8_t gid[16], uint32_t qpn, uint32_t number)
{
	if (number == FFV_NO_CHANNEL || !memcmp(gid, ffv_bridge_gid, 16))
		return ffv_fail(ENOTCONN, "no other host has that address");
	return ffv_proxy_reach(router, gid, qpn, number);
}

/* Once. -ENOTCONN: the proxy was open, or about to be, and has gone. */
static int reach_once(struct ffv_router *router, const uint8_t gid[16], uint32_t block, uint32_t number)
{
	pthread_mutex_lock(&router->lock);
	struct ffv_proxy *proxy = ffv_proxy_find_locked(router, gid, block, number);
	if (!proxy && (number == FFV_NO_CHANNEL || is_open(router, number)))
		proxy = ffv_proxy_new_locked(router, gid, block, number);
	if (!proxy) {
		pthread_mutex_unlock(&router->lock);
		return ffv_fail(EHOSTUNREACH, "the router of that host is not connected");
	}
	proxy->waiters++;
	proxy->admitted = true; /* who asks knows where it is */
	ffv_proxy_go_on_locked(proxy);
	if (proxy->waits) /* for an earlier one, of another host */
		ffv_owner_say_locked(router, gid, number, true);
	while (proxy->state == FFV_PROXY_OPENING)
		pthread_cond_wait(&router->changed, &router->lock);
	int rc = proxy->state == FFV_PROXY_OPEN ? 0
		 : proxy->error ? ffv_fail(-proxy->error, "%s", proxy->error_text)
				: ffv_fail(ENOTCONN, "it ends, or its host does, each time that it is looked for");
	bool last = !--proxy->waiters && proxy->state == FFV_PROXY_CLOSED;
	pthread_mutex_unlock(&router->lock);
	if (last)
		ffv_proxy_free(proxy);
	return rc;
}

#define MOST_TRIES 16             /* who looks for a context need not know that an earlier one of its number has just ended */

int ffv_proxy_reach(struct ffv_router *router, const uint8_t gid[16], uint32_t qpn, uint32_t number)
{
	uint32_t block = qpn / FFV_QPN_BLOCK, tries = number == FFV_NO_CHANNEL ? 1 : MOST_TRIES;
	int rc;

	if (block >= FFV_QPN_BLOCKS)
		return ffv_fail(EINVAL, "there is no queue pair %#x", qpn);
	do
		rc = reach_once(router, gid, block, number);
	while (rc == -ENOTCONN && --tries);
	return rc;
}

int ffv_router_is_proxy(struct ffv_router *router, const uint8_t gid[16], uint32_t qpn, uint32_t *channel)
{
	int found = memcmp(gid, ffv_bridge_gid, 16) == 0;

	*channel = UINT32_MAX;
	pthread_mutex_lock(&router->lock);
	for (const struct ffv_proxy *proxy = router->proxies; proxy && !found; proxy = proxy->next) {
		found = !proxy->waits && !proxy->refused && proxy->block == qpn / FFV_QPN_BLOCK && !memcmp(proxy->gid, gid, 16);
		if (found)
			*channel = proxy->channel;
	}
	pthread_mutex_unlock(&router->lock);
	return found;
}

int ffv_router_event_fd(const struct ffv_router *router)
{
	return router->event_fd;
}

int ffv_router_next_event(struct ffv_router *router, struct ffv_router_event *event)
{
	uint64_t count;

	pthread_mutex_lock(&router->lock);
	struct ffv_event_node *node = router->events;
	if (node) {
		router->events = node->next;
		if (!router->events)
			router->last_event = NULL;
	} else if (read(router->event_fd, &count, sizeof count) < 0) {
		count = 0; /* it was not readable */
	}
	pthread_mutex_unlock(&router->lock);
	if (!node)
		return 0;
	*event = node->event;
	free(node);
	return 1;
}

/* Work requests that the container has posted and that are not answered, and those of the other host on it. */
static uint32_t under_way_locked(const struct ffv_pair *pair)
{
	uint32_t count = pair->in.end - pair->in.first;

	if (pair->type == FFV_QPT_UD || !pair->shm || ffv_load_acquire(&pair->shm->state) != FFV_QPS_RTS)
		return count;
	uint64_t done = ffv_load_relaxed(&pair->shm->sq_exec), posted = ffv_load_relaxed(&pair->shm->sq_tail);
	return count + (posted > done ? (uint32_t)(posted - done) : 0);
}

int ffv_router_query(struct ffv_router *router, struct ffv_router_counters *counters)
{
	struct ffv_router_counters found = {
		.frames_sent = ffv_load_relaxed(&router->frames_sent), .bytes_sent = ffv_load_relaxed(&router->bytes_sent),
		.frames_received = ffv_load_relaxed(&router->frames_received),
		.bytes_received = ffv_load_relaxed(&router->bytes_received),
		.bytes_placed = ffv_load_relaxed(&router->bytes_placed),
		.bytes_one_sided_sent = ffv_load_relaxed(&router->bytes_one_sided_sent),
		.bytes_one_sided_received = ffv_load_relaxed(&router->bytes_one_sided_received),
		.bytes_streamed = ffv_load_relaxed(&router->bytes_streamed),
		.windows_dropped = ffv_load_relaxed(&router->windows.dropped), /* before `made`: no more than that */
		.windows_found = ffv_load_relaxed(&router->windows.found),
		.window_bytes = ffv_load_relaxed(&router->windows.bytes),
		.rate_waits = ffv_load_relaxed(&router->rate_waits),
		.datagrams_dropped = ffv_load_relaxed(&router->datagrams_dropped),
		.claims_refused = ffv_load_relaxed(&router->claims_refused),
	};

	found.windows_made = ffv_load_acquire(&router->windows.made);
	found.windows = (uint32_t)(found.windows_made - found.windows_dropped);
	pthread_mutex_lock(&router->lock);
	for (uint32_t i = 0; i < FFV_MAX_CHANNELS; i++)
		found.channels += router->channels[i] != NULL;
	for (const struct ffv_proxy *proxy = router->proxies; proxy; proxy = proxy->next) {
		found.proxies += proxy->state == FFV_PROXY_OPEN;
		found.pairs += proxy->num_live;
	}
	found.pairs_warm = router->num_warm;
	for (uint32_t i = 0; i < router->num_warm; i++) /* what has something under way is */
		found.under_way += under_way_locked(router->warm[i]);
	pthread_mutex_unlock(&router->lock);
	sched_yield(); /* who asks again and again leaves the lock to those who have waited for it */
	*counters = found;
	return 0;
}

int ffv_router_query_channel(struct ffv_router *router, uint32_t number, struct ffv_channel_counters *counters)
{
	struct ffv_channel_counters found = { 0 };
	bool there = false;

	pthread_mutex_lock(&router->lock); /* a channel that is in its place is not freed meanwhile */
	const struct ffv_link_channel *channel = router->channels[number % FFV_MAX_CHANNELS];
	if (channel && channel->number == number) {
		there = true;
		found.frames_sent = ffv_load_relaxed(&channel->frames_sent);
		found.frames_received = ffv_load_relaxed(&channel->frames_received);
		found.bytes_sent = ffv_load_relaxed(&channel->bytes_sent);
		found.bytes_received = ffv_load_relaxed(&channel->bytes_received);
	}
	for (const struct ffv_proxy *proxy = router->proxies; proxy && there; proxy = proxy->next) {
		if (proxy->channel != number)
			continue;
		found.proxies += proxy->state == FFV_PROXY_OPEN;
		found.pairs += proxy->num_live;
	}
	pthread_mutex_unlock(&router->lock);
	if (!there)
		return ffv_fail(ENOTCONN, "channel %u is closed", number);
	*counters = found;
	return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * Who may speak for whom (docs/decisions/0034). A proxy that another host asks for is not opened before the control plane has
 * said that the address is that host's: its jobs wait in the proxy. They also wait while an earlier proxy of the same name is
 * still there: the name is bound once. Runs on the loop's thread, but for the public calls.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/fault.h"
#include "wire/router.h"
#include "wire/speakers.h"

#define MOST_WAITING 64u          /* proxies of a channel that are not admitted yet: more are refused */

struct ffv_ownership { struct ffv_ownership *next; uint8_t gid[16]; uint32_t channel; bool owns; };

static bool is_namesake(const struct ffv_proxy *proxy, const struct ffv_proxy *other)
{
	return other != proxy && other->block == proxy->block && !memcmp(other->gid, proxy->gid, 16);
}

void ffv_proxy_go_on_locked(struct ffv_proxy *proxy)
{
	struct ffv_router *router = proxy->router;

	if (!proxy->waits || !(proxy->admitted || proxy->refused))
		return;
	for (const struct ffv_proxy *other = router->proxies; other && !proxy->refused; other = other->next)
		if (is_namesake(proxy, other) && !other->waits && !other->refused)
			return;
	proxy->waits = false; /* opening it is held, if nothing else */
	*router->last_job = proxy->held;
	router->last_job = proxy->last_held;
	proxy->held = NULL;
	pthread_cond_broadcast(&router->changed);
}

void ffv_proxy_left_locked(const struct ffv_proxy *gone)
{
	for (struct ffv_proxy *proxy = gone->router->proxies; proxy; proxy = proxy->next)
		if (is_namesake(gone, proxy))
			ffv_proxy_go_on_locked(proxy);
}

bool ffv_proxy_may_wait_locked(const struct ffv_router *router, uint32_t channel)
{
	uint32_t waiting = 0;

	for (const struct ffv_proxy *proxy = router->proxies; proxy; proxy = proxy->next)
		waiting += proxy->channel == channel && proxy->waits && !proxy->admitted;
	return waiting < MOST_WAITING;
}

void ffv_proxy_claim(struct ffv_proxy *proxy)
{
	struct ffv_router_event event = { .kind = FFV_ROUTER_CLAIMED, .channel = proxy->channel,
					  .qpn_first = proxy->block * FFV_QPN_BLOCK };

	memcpy(event.gid, proxy->gid, 16);
	FFV_FAULT(wire_proxy_claimed);
	ffv_router_raise(proxy->router, &event);
}

void ffv_proxy_lose(struct ffv_proxy *proxy)
{
	for (uint32_t i = proxy->num_live; i--;)
		ffv_outgoing_fail(proxy->live[i], FFV_WC_RETRY_EXC_ERR);
	ffv_proxy_retire(proxy, true);
}

static void settle(struct ffv_router *router, const struct ffv_ownership *said)
{
	if (ffv_speaker_settle(router, said->gid, said->channel, said->owns))
		ffv_fetch_add(&router->claims_refused, 1u);
	for (struct ffv_proxy *proxy = router->proxies; proxy; proxy = proxy->next) {
		if (proxy->is_bridge || proxy->state >= FFV_PROXY_CLOSING || memcmp(proxy->gid, said->gid, 16))
			continue;
		bool meant = proxy->channel == said->channel;
		if (meant && said->owns) {
			pthread_mutex_lock(&router->lock);
			proxy->admitted = true;
			ffv_proxy_go_on_locked(proxy);
			pthread_mutex_unlock(&router->lock);
		} else if (meant || said->owns) { /* it is not this host's, or is another one's by now */
			ffv_fetch_add(&router->claims_refused, meant ? 1u : 0u);
			ffv_proxy_lose(proxy);
		}
	}
}

void ffv_owners_serve(struct ffv_router *router)
{
	pthread_mutex_lock(&router->lock);
	struct ffv_ownership *said = router->owners;
	router->owners = NULL;
	router->last_owner = &router->owners;
	pthread_mutex_unlock(&router->lock);
	while (said) {
		struct ffv_ownership *next = said->next;
		settle(router, said);
		free(said);
		said = next;
	}
}

int ffv_owner_say_locked(struct ffv_router *router, const uint8_t gid[16], uint32_t channel, bool owns)
{
	const struct ffv_proxy *proxy = router->proxies;

	while (proxy && (proxy->is_bridge || memcmp(proxy->gid, gid, 16)))
		proxy = proxy->next;
	if (!proxy && !ffv_speaker_is_known_locked(router, gid))
		return 0; /* it is news of nobody that is known here */
	struct ffv_ownership *said = calloc(1, sizeof *said);
	if (!said)
		return ffv_fail(ENOMEM, "no memory for who owns an address");
	memcpy(said->gid, gid, 16);
	said->channel = channel;
	said->owns = owns;
	*router->last_owner = said;
	router->last_owner = &said->next;
	ffv_router_wake_locked(router);
	return 0;
}

void ffv_router_check_owners(struct ffv_router *router)
{
	ffv_store_relaxed(&router->checks_owners, true);
}

int ffv_router_owner(struct ffv_router *router, const uint8_t gid[16], uint32_t channel, int owns)
{
	pthread_mutex_lock(&router->lock);
	int rc = ffv_owner_say_locked(router, gid, channel, owns != 0);
	pthread_mutex_unlock(&router->lock);
	return rc;
}

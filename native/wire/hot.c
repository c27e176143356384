/* SPDX-License-Identifier: MIT
 *
 * Proxies whose queue pairs the loop executes itself, just now: a completion would raise an event, for the loop to wake up
 * of and to find what it has done. While a proxy is hot its completion queue is not armed; each round polls it, and before
 * the loop sleeps it is armed and looked at once more, so that what other threads complete is not missed. Runs on the
 * loop's thread.
 */
#include "verbs/cq.h"
#include "wire/router.h"

void ffv_proxy_heat(struct ffv_proxy *proxy)
{
	if (proxy->is_hot || proxy->state != FFV_PROXY_OPEN)
		return;
	ffv_cancel_notify_cq(proxy->cq);
	proxy->is_hot = true;
	proxy->hot_next = proxy->router->hot;
	proxy->router->hot = proxy;
}

void ffv_proxy_forget_heat(struct ffv_proxy *proxy)
{
	struct ffv_proxy **at = &proxy->router->hot;

	while (*at && *at != proxy)
		at = &(*at)->hot_next;
	if (*at)
		*at = proxy->hot_next;
	proxy->is_hot = false;
}

void ffv_pair_run(struct ffv_pair *pair)
{
	ffv_pair_warm(pair);
	ffv_proxy_heat(pair->proxy);
	ffv_qp_run(pair->qp);
}

void ffv_hot_poll(struct ffv_router *router)
{
	for (struct ffv_proxy *proxy = router->hot, *next; proxy; proxy = next) {
		next = proxy->hot_next;
		ffv_incoming_poll(proxy);
	}
}

bool ffv_hot_rest(struct ffv_router *router)
{
	bool some = false;

	while (router->hot) {
		struct ffv_proxy *proxy = router->hot;
		ffv_proxy_forget_heat(proxy);
		ffv_req_notify_cq(proxy->cq, 0); /* armed before it is emptied: what comes later rings */
		some |= ffv_incoming_poll(proxy);
	}
	return some;
}

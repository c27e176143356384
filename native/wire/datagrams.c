/* SPDX-License-Identifier: MIT
 *
 * Datagrams of other hosts: posted on the proxy's UD queue pair of the sender's number. Runs on the loop's thread. What
 * cannot be delivered, or comes faster than it is delivered, is lost, as on a wire.
 */
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "verbs/ah.h"
#include "wire/router.h"

#define MOST_WAITING 64u          /* datagrams that wait for their proxy */

static void lock(struct ffv_pair *pair)
{
	pthread_mutex_lock(&pair->proxy->router->lock);
}

static void unlock(struct ffv_pair *pair)
{
	pthread_mutex_unlock(&pair->proxy->router->lock);
}

void ffv_datagram_completed(struct ffv_pair *pair, const struct ffv_wc *wc)
{
	if (!pair->in.window)
		return; /* of what was dropped */
	struct ffv_posted *posted = &pair->in.window->posted[wc->wr_id % FFV_WINDOW];
	uint8_t *bytes = posted->bytes;
	if (!bytes)
		return; /* it has completed: containers can write to the queue that says so */
	lock(pair);
	*posted = (struct ffv_posted){ 0 };
	unlock(pair);
	ffv_qp_await_run(pair->qp);
	free(bytes);
	pair->datagrams_under_way--;
	ffv_incoming_rest(pair);
}

static void post_datagram(struct ffv_pair *pair, const struct ffv_frame *frame, const struct ffv_frame_address *to,
			  const uint8_t *payload)
{
	struct ffv_ah ah = { .pd = pair->proxy->pd, .attr = { .is_global = 1, .port_num = 1, .sl = to->sl } };
	uint64_t position = pair->qp->sq_posted;
	struct ffv_sge sge = { .length = frame->length_bytes };
	struct ffv_send_wr wr = { .wr_id = position, .sg_list = &sge, .num_sge = frame->length_bytes ? 1 : 0,
				  .opcode = frame->opcode == FFV_WR_SEND_WITH_IMM ? FFV_WR_SEND_WITH_IMM : FFV_WR_SEND,
				  .send_flags = FFV_SEND_SIGNALED | (frame->flags & FFV_SEND_SOLICITED),
				  .imm_data_be = frame->imm_be }, *bad;
	uint8_t *copy = malloc(frame->length_bytes + 1u);

	if (!copy || pair->datagrams_under_way >= FFV_WINDOW || !ffv_incoming_begin(pair)) {
		free(copy);
		ffv_fetch_add(&pair->proxy->router->datagrams_dropped, 1u);
		return;
	}
	memcpy(copy, payload, frame->length_bytes);
	memcpy(ah.dgid, to->to_gid, 16);
	ah.attr.grh.flow_label = to->flow_tclass >> 8 & 0xfffff;
	ah.attr.grh.traffic_class = (uint8_t)to->flow_tclass;
	ah.attr.grh.hop_limit = to->hop_limit;
	ah.attr.grh.sgid_index = 1;
	wr.wr.ud.ah = &ah;
	wr.wr.ud.remote_qpn = to->to_qpn;
	wr.wr.ud.remote_qkey = to->qkey;
	lock(pair);
	pair->in.window->posted[position % FFV_WINDOW] = (struct ffv_posted){ .length = frame->length_bytes, .bytes = copy };
	unlock(pair);
	if (!ffv_post_send(pair->qp, &wr, &bad)) {
		FFV_FAULT(wire_datagram_posted);
		pair->datagrams_under_way++;
		return;
	}
	lock(pair);
	pair->in.window->posted[position % FFV_WINDOW] = (struct ffv_posted){ 0 };
	unlock(pair);
	free(copy);
}

/* True if the container that is addressed is attached: posting does not wait for it then. One of a third host, which has a
 * proxy here, too, is reached by that host's router, not by way of this one. */
static bool is_attached(const struct ffv_proxy *proxy, const struct ffv_frame_address *to)
{
	struct ffv_peer *peer = ffv_peer_get(proxy->ctx, to->to_gid, to->to_qpn);
	bool of_this_host = peer && !peer->view.proxy;

	if (peer)
		ffv_peer_put(peer);
	return of_this_host;
}

static void keep_datagram(struct ffv_pair *pair, const struct ffv_frame *frame, const uint8_t *payload)
{
	struct ffv_result **at = &pair->datagrams, *waiting = pair->num_datagrams < MOST_WAITING ? calloc(1, sizeof *waiting)
												  : NULL;

	if (waiting && !(waiting->bytes = malloc(frame->payload_bytes))) {
		free(waiting);
		waiting = NULL;
	}
	if (!waiting) {
		ffv_fetch_add(&pair->proxy->router->datagrams_dropped, 1u);
		return;
	}
	waiting->frame = *frame;
	memcpy(waiting->bytes, payload, frame->payload_bytes);
	while (*at)
		at = &(*at)->next;
	*at = waiting;
	pair->num_datagrams++;
}

static void attach(struct ffv_pair *pair, const struct ffv_frame_address *to)
{
	pair->jobs++;
	ffv_router_queue_job(pair->proxy->router, &(struct ffv_job){ .kind = FFV_JOB_ATTACH, .proxy = pair->proxy,
								     .pair = pair, .address = *to });
}

/* The address that was waited for is attached or not: what waited for it goes, or is lost as on a wire. */
void ffv_datagram_attached(struct ffv_pair *pair, const struct ffv_job *job)
{
	pair->jobs--;
	if (pair->dead) {
		ffv_pair_free_if_dead(pair);
		return;
	}
	while (pair->datagrams && pair->ready && !pair->jobs) {
		struct ffv_result *waiting = pair->datagrams;
		struct ffv_frame_address to;
		memcpy(&to, waiting->bytes, sizeof to);
		bool tried = job && !memcmp(to.to_gid, job->address.to_gid, 16) &&
			     to.to_qpn / FFV_QPN_BLOCK == job->address.to_qpn / FFV_QPN_BLOCK;
		if (is_attached(pair->proxy, &to)) {
			post_datagram(pair, &waiting->frame, &to, waiting->bytes + sizeof to);
		} else if (!tried) {
			attach(pair, &to);
			return;
		}
		pair->datagrams = waiting->next;
		pair->num_datagrams--;
		free(waiting->bytes);
		free(waiting);
	}
}

void ffv_datagram_frame(struct ffv_router *router, struct ffv_link_channel *channel, const struct ffv_frame *frame,
			const uint8_t *payload)
{
	static const uint8_t nobody[16];
	struct ffv_frame_address to;

	memcpy(&to, payload, sizeof to);
	struct ffv_proxy *proxy = ffv_proxy_for(router, channel, to.from_gid, to.from_qpn);
	struct ffv_pair *pair = proxy ? ffv_pair_get(proxy, to.from_qpn) : NULL;
	if (pair && pair->type != FFV_QPT_UD) {
		ffv_pair_retire(pair); /* the number has been used again there */
		pair = NULL;
	}
	if (proxy && !pair) {
		struct ffv_frame_open attributes = { .type = FFV_QPT_UD, .mtu_bytes = 4096 };
		pair = ffv_pair_new(proxy, to.from_qpn, FFV_QPT_UD, nobody, 0);
		if (pair)
			ffv_pair_connect(pair, &attributes);
	}
	if (!pair)
		ffv_fetch_add(&router->datagrams_dropped, 1u);
	else if (pair->ready && !pair->jobs && !pair->datagrams && is_attached(proxy, &to))
		post_datagram(pair, frame, &to, payload + sizeof to);
	else {
		keep_datagram(pair, frame, payload);
		if (pair->ready && !pair->jobs)
			attach(pair, &to);
	}
}

/* ---- of our containers -------------------------------------------------------------------------------------------- */


void ffv_datagram_send(struct ffv_proxy *proxy)
{
	struct ffv_link_channel *channel = ffv_router_channel(proxy->router, proxy->channel);

	while (ffv_rate_allows(proxy->router)) {
		pthread_mutex_lock(&proxy->router->lock);
		struct ffv_outbound *out = proxy->datagrams;
		if (out) {
			proxy->datagrams = out->next;
			proxy->num_datagrams--;
			if (!out->next)
				proxy->last_datagram = &proxy->datagrams;
		}
		pthread_mutex_unlock(&proxy->router->lock);
		if (!out)
			return;
		const struct ffv_frame *from = (const struct ffv_frame *)(const void *)out->bytes;
		struct ffv_frame *frame = channel && ffv_channel_room(&channel->io)
						  ? ffv_channel_frame(&channel->io, FFV_FRAME_DATAGRAM, out->payload_bytes) : NULL;
		if (frame) {
			frame->opcode = from->opcode;
			frame->flags = from->flags;
			frame->imm_be = from->imm_be;
			frame->length_bytes = from->length_bytes;
			memcpy(ffv_frame_payload(frame), out->bytes + sizeof *from, out->payload_bytes);
			ffv_rate_spend(proxy->router, ffv_frame_bytes(out->payload_bytes));
		} else {
			ffv_fetch_add(&proxy->router->datagrams_dropped, 1u);
		}
		free(out);
	}
}

/* SPDX-License-Identifier: MIT
 *
 * The responder's side: what another host's queue pair wants done on a container of ours is posted on the proxy's queue
 * pair of the same number, and the executor does the rest; completions become answers. Runs on the loop's thread, but for
 * the hooks. What comes in is bounded by the window: who sends more breaks the protocol and loses the channel.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "wire/router.h"

static void lock(struct ffv_pair *pair)
{
	pthread_mutex_lock(&pair->proxy->router->lock);
}

static void unlock(struct ffv_pair *pair)
{
	pthread_mutex_unlock(&pair->proxy->router->lock);
}

/* ---- dropping -------------------------------------------------------------------------------------------------------------- */

bool ffv_incoming_begin(struct ffv_pair *pair)
{
	struct ffv_in_window *window = pair->in.window ? NULL : ffv_slab_alloc(&ffv_in_windows);

	if (!window)
		return pair->in.window != NULL;
	lock(pair);
	pair->in.window = window;
	unlock(pair);
	return true;
}

void ffv_incoming_rest(struct ffv_pair *pair)
{
	struct ffv_in_window *window = pair->in.window;

	if (!window || pair->in.first != pair->in.end || pair->datagrams_under_way || pair->jobs)
		return; /* while a job is under way the qp may still use it: afterwards */
	if (pair->qp)
		ffv_qp_lend_ids(pair->qp, NULL);
	lock(pair);
	pair->in.window = NULL;
	unlock(pair);
	ffv_slab_free(&ffv_in_windows, window);
}

static void drop_entry(struct ffv_incoming *in, struct ffv_entry *entry)
{
	in->bytes_held -= entry->frame.payload_bytes;
	free(entry->payload);
	entry->payload = NULL;
	for (uint32_t i = 0; i < FFV_READ_PIECES; i++) {
		free(entry->pieces[i]);
		entry->pieces[i] = NULL;
	}
}

/* The queue pair must not be executed any more, or its work requests be completed: their bytes go. */
static void drop_entries(struct ffv_pair *pair)
{
	struct ffv_incoming *in = &pair->in;

	ffv_grant_end(pair);
	lock(pair);
	struct ffv_chunk *chunks = ffv_incoming_take_chunks_locked(in);
	in->wants_more = false;
	if (in->window && pair->type != FFV_QPT_UD)
		memset(in->window->posted, 0, sizeof in->window->posted);
	unlock(pair);
	if (!pair->jobs && pair->qp) /* while a job makes or resets it, nothing is posted there */
		ffv_qp_await_run(pair->qp);
	ffv_incoming_free_chunks(chunks);
	lock(pair);
	for (; in->first != in->end; in->first++)
		drop_entry(in, ffv_incoming_entry(in, in->first));
	in->next_post = in->end;
	in->slots = 0;
	in->granted = in->arrived = 0;
	unlock(pair);
	ffv_incoming_rest(pair);
}

void ffv_incoming_close(struct ffv_pair *pair, uint8_t status)
{
	struct ffv_incoming *in = &pair->in;

	if (in->open && in->first != in->end) {
		ffv_incoming_report(pair);
		struct ffv_frame frame = ffv_answer_to(pair, &ffv_incoming_entry(in, in->first)->frame, FFV_FRAME_ACK, status);
		ffv_answer(pair, &frame);
	}
	in->open = false;
	/* The executor may be reading the bytes: it finds nobody's any more once the queue pair is in error and quiet. */
	if (in->first != in->end && !pair->jobs && pair->qp) {
		ffv_exec_set_error(pair->qp->ref.shm, 0);
		ffv_qp_quiesce(pair->qp, 1000000000ull);
	}
	drop_entries(pair);
}

void ffv_incoming_free(struct ffv_pair *pair)
{
	drop_entries(pair);
	for (uint32_t i = 0; pair->in.window && i < FFV_WINDOW; i++)
		free(pair->in.window->posted[i].bytes); /* datagrams: what the entries have is gone */
	ffv_slab_free(&ffv_in_windows, pair->in.window);
	while (pair->results) {
		struct ffv_result *result = pair->results;
		pair->results = result->next;
		free(result->bytes);
		free(result);
	}
	while (pair->datagrams) {
		struct ffv_result *waiting = pair->datagrams;
		pair->datagrams = waiting->next;
		free(waiting->bytes);
		free(waiting);
	}
}

/* ---- posting ------------------------------------------------------------------------------------------------------------------ */

/* The shared receive queue that an XRC request names: where its kind of frame has room. */
static uint32_t named_srq(const struct ffv_frame *frame)
{
	return frame->kind == FFV_FRAME_REQUEST ? frame->imm_be : (uint32_t)frame->operand[0];
}

/* That queue may be of another context than the queue pair, which has to be attached first. True: it is, or is not there. */
static bool is_named_attached(struct ffv_pair *pair, const struct ffv_frame *frame)
{
	uint32_t block = named_srq(frame) / FFV_MAX_SRQ;
	struct ffv_job job = { .kind = FFV_JOB_ATTACH, .proxy = pair->proxy, .pair = pair,
			       .address = { .to_qpn = block * FFV_QPN_BLOCK } };

	if (pair->type != FFV_QPT_XRC_RECV || block >= FFV_QPN_BLOCKS || block == pair->qpn / FFV_QPN_BLOCK ||
	    block + 1 == pair->in.tried_block)
		return true;
	struct ffv_peer *peer = ffv_peer_get(pair->proxy->ctx, pair->gid, block * FFV_QPN_BLOCK);
	if (peer) {
		ffv_peer_put(peer);
		return true;
	}
	memcpy(job.address.to_gid, pair->gid, 16);
	pair->attaching++;
	ffv_router_queue_job(pair->proxy->router, &job);
	return false;
}

void ffv_incoming_attached(struct ffv_pair *pair, const struct ffv_job *job)
{
	pair->attaching--;
	pair->in.tried_block = job->address.to_qpn / FFV_QPN_BLOCK + 1;
	ffv_incoming_go_on(pair);
	pair->in.tried_block = 0; /* it may come later */
	ffv_pair_free_if_dead(pair);
}

int ffv_incoming_post(struct ffv_pair *pair, struct ffv_entry *entry, uint32_t count, struct ffv_posted posted)
{
	const struct ffv_frame *frame = &entry->frame;
	struct ffv_sge sge = { .length = posted.length };
	struct ffv_send_wr wr = { .wr_id = count, .sg_list = &sge, .num_sge = posted.length ? 1 : 0, .opcode = frame->opcode,
				  .send_flags = FFV_SEND_SIGNALED | (frame->flags & FFV_SEND_SOLICITED),
				  .imm_data_be = frame->imm_be };

	if (pair->type == FFV_QPT_XRC_RECV) {
		wr.xrc_remote_srqn = named_srq(frame);
		wr.imm_data_be = frame->kind == FFV_FRAME_REQUEST ? 0 : frame->imm_be;
	}
	if (frame->opcode == FFV_WR_ATOMIC_CMP_AND_SWP || frame->opcode == FFV_WR_ATOMIC_FETCH_AND_ADD ||
	    frame->opcode == FFV_WR_FLUSH) {
		wr.wr.atomic.remote_addr = frame->address;
		wr.wr.atomic.rkey = frame->rkey;
		wr.wr.atomic.compare_add = frame->operand[0];
		wr.wr.atomic.swap = frame->operand[1];
	} else {
		wr.wr.rdma.remote_addr = frame->address + posted.offset;
		wr.wr.rdma.rkey = frame->rkey;
	}
	lock(pair);
	posted.entry = count;
	entry->slots[posted.piece] = (uint8_t)(pair->qp->sq_posted % FFV_WINDOW);
	pair->in.window->posted[entry->slots[posted.piece]] = posted;
	unlock(pair);
	pair->in.slots++;
	ffv_pair_warm(pair);
	ffv_proxy_heat(pair->proxy);
	ffv_qp_lend_ids(pair->qp, pair->in.window->wr_ids);
	FFV_FAULT(wire_request_posted);
	return ffv_qp_post_whole(pair->qp, &wr);
}

static int post_entry(struct ffv_pair *pair, struct ffv_entry *entry, uint32_t count)
{
	switch (entry->frame.kind) {
	case FFV_FRAME_REQUEST:
		if (entry->frame.opcode == FFV_WR_RDMA_READ)
			return ffv_read_post(pair, entry, count);
		if (entry->frame.opcode == FFV_WR_FLUSH)
			return ffv_incoming_post(pair, entry, count, (struct ffv_posted){ 0 });
		if (!(entry->payload = calloc(1, 8)))
			return -ENOMEM;
		return ffv_incoming_post(pair, entry, count, (struct ffv_posted){ .length = 8, .bytes = entry->payload });
	default:
		return ffv_incoming_post(pair, entry, count, (struct ffv_posted){ .length = entry->frame.length_bytes,
										  .bytes = entry->payload });
	}
}

static bool is_unfinished_read(const struct ffv_entry *entry)
{
	return entry->frame.opcode == FFV_WR_RDMA_READ && entry->asked_bytes < entry->frame.length_bytes;
}

void ffv_incoming_go_on(struct ffv_pair *pair)
{
	struct ffv_incoming *in = &pair->in;

	while (pair->ready && !pair->attaching && in->open && in->next_post != in->end && in->slots < FFV_WINDOW) {
		struct ffv_entry *entry = ffv_incoming_entry(in, in->next_post);
		if (!is_named_attached(pair, &entry->frame))
			return;
		if (post_entry(pair, entry, in->next_post)) {
			ffv_incoming_close(pair, FFV_WC_RETRY_EXC_ERR);
			return;
		}
		if (is_unfinished_read(entry))
			return; /* those behind it wait, too */
		in->next_post++;
	}
}

/* ---- completions ---------------------------------------------------------------------------------------------------------------- */

static void answer_atomic(struct ffv_pair *pair, struct ffv_entry *entry)
{
	struct ffv_frame frame = ffv_answer_to(pair, &entry->frame, FFV_FRAME_RESULT, 0);

	memcpy(&frame.operand[0], entry->payload, 8);
	ffv_answer(pair, &frame);
}

/* Whether it may have a completion: containers can write to the queue that the completions are read from. */
static bool is_posted(const struct ffv_incoming *in, const struct ffv_entry *entry)
{
	if (entry->frame.opcode == FFV_WR_RDMA_READ && entry->frame.length_bytes)
		return entry->asked_pieces != entry->done_pieces;
	return in->next_post != in->first;
}

/* The executor finds nothing any more of what has completed, wherever containers have it look. */
static struct ffv_chunk *hide(struct ffv_pair *pair, const struct ffv_entry *entry)
{
	bool reads = entry->frame.opcode == FFV_WR_RDMA_READ;
	struct ffv_posted *posted = &pair->in.window->posted[entry->slots[reads ? entry->done_pieces % FFV_READ_PIECES : 0]];
	struct ffv_chunk *chunks = NULL;

	lock(pair);
	posted->bytes = NULL;
	posted->length = 0;
	if (entry->frame.kind == FFV_FRAME_LARGE)
		chunks = ffv_incoming_take_chunks_locked(&pair->in);
	unlock(pair);
	return chunks;
}

static void complete(struct ffv_pair *pair, const struct ffv_wc *wc)
{
	struct ffv_incoming *in = &pair->in;

	if (in->first == in->end || (uint32_t)wc->wr_id != in->first)
		return; /* of what was dropped */
	struct ffv_entry *entry = ffv_incoming_entry(in, in->first);
	if (!is_posted(in, entry))
		return;
	struct ffv_chunk *chunks = hide(pair, entry);
	ffv_qp_await_run(pair->qp); /* whatever containers have written there: its bytes are not worked on any more */
	ffv_incoming_free_chunks(chunks);
	in->slots--;
	ffv_incoming_report(pair);
	if (wc->status) {
		ffv_incoming_close(pair, (uint8_t)wc->status);
		return;
	}
	if (entry->frame.opcode == FFV_WR_RDMA_READ && !ffv_read_answer(pair, entry)) {
		ffv_incoming_go_on(pair);
		return;
	}
	pair->proxy->router->delivered |= entry->frame.kind == FFV_FRAME_MESSAGE && entry->frame.opcode != FFV_WR_RDMA_WRITE;
	if (entry->frame.kind == FFV_FRAME_REQUEST && entry->payload)
		answer_atomic(pair, entry);
	struct ffv_frame ack = ffv_answer_to(pair, &entry->frame, FFV_FRAME_ACK, FFV_WC_SUCCESS);
	ffv_grant_end(pair);
	lock(pair);
	if (entry->frame.kind == FFV_FRAME_LARGE)
		in->granted = in->arrived = 0;
	drop_entry(in, entry);
	in->first++;
	unlock(pair);
	ffv_incoming_rest(pair);
	FFV_FAULT(wire_delivered);
	ffv_answer(pair, &ack);
	ffv_incoming_credit(pair); /* the next one may have been asked for by now */
	ffv_incoming_go_on(pair);
}

/* Completions, until the queue is empty. */
bool ffv_incoming_poll(struct ffv_proxy *proxy)
{
	struct ffv_wc wc[32];
	bool some = false;
	int n;

	while (proxy->state == FFV_PROXY_OPEN && (n = ffv_poll_cq(proxy->cq, 32, wc)) > 0) {
		some = true;
		for (int i = 0; i < n; i++) {
			struct ffv_pair *pair = ffv_pair_get(proxy, wc[i].qp_num);
			if (!pair)
				continue;
			if (pair->type == FFV_QPT_UD)
				ffv_datagram_completed(pair, &wc[i]);
			else
				complete(pair, &wc[i]);
		}
	}
	return some;
}

/* ---- frames ----------------------------------------------------------------------------------------------------------------------- */

struct ffv_proxy *ffv_proxy_for(struct ffv_router *router, struct ffv_link_channel *channel, const uint8_t gid[16],
				uint32_t qpn)
{
	uint32_t block = qpn / FFV_QPN_BLOCK;
	bool fresh = false;

	if (block >= FFV_QPN_BLOCKS)
		return NULL;
	pthread_mutex_lock(&router->lock);
	struct ffv_proxy *proxy = ffv_proxy_find_locked(router, gid, block, channel->number);
	bool claims = ffv_load_relaxed(&router->checks_owners);
	if (!proxy && (!claims || ffv_proxy_may_wait_locked(router, channel->number))) {
		proxy = ffv_proxy_new_locked(router, gid, block, channel->number);
		fresh = proxy != NULL;
	}
	if (fresh) {
		proxy->admitted = !claims;
		ffv_proxy_go_on_locked(proxy);
	}
	pthread_mutex_unlock(&router->lock);
	if (fresh && claims)
		ffv_proxy_claim(proxy);
	return proxy;
}

static bool grow_theirs(struct ffv_link_channel *channel, uint32_t number)
{
	uint32_t count = channel->num_theirs ? channel->num_theirs : 64;

	while (count <= number)
		count *= 2;
	if (count == channel->num_theirs)
		return true;
	struct ffv_pair **grown = realloc((void *)channel->theirs, count * sizeof(struct ffv_pair *));
	if (!grown)
		return false;
	memset((void *)(grown + channel->num_theirs), 0, (count - channel->num_theirs) * sizeof(struct ffv_pair *));
	channel->theirs = grown;
	channel->num_theirs = count;
	return true;
}

void ffv_incoming_unname(struct ffv_pair *pair, struct ffv_link_channel *channel)
{
	uint32_t number = pair->in.number;

	if (number < channel->num_theirs && channel->theirs[number] == pair)
		channel->theirs[number] = NULL;
}

static void on_open(struct ffv_router *router, struct ffv_link_channel *channel, const struct ffv_frame *frame,
		    const struct ffv_frame_open *open)
{
	struct ffv_proxy *proxy = open->type == FFV_QPT_RC || open->type == FFV_QPT_UC || open->type == FFV_QPT_XRC_SEND
					  ? ffv_proxy_for(router, channel, open->from_gid, open->from_qpn) : NULL;
	struct ffv_pair *pair = proxy ? ffv_pair_get(proxy, open->from_qpn) : NULL;
	uint32_t type = ffv_opposite_type(open->type);

	if (!proxy || !grow_theirs(channel, frame->pair))
		return; /* what comes for the pair is answered with an error */
	if (channel->theirs[frame->pair] && channel->theirs[frame->pair] != pair)
		ffv_incoming_close(channel->theirs[frame->pair], FFV_WC_RETRY_EXC_ERR);
	if (pair && (pair->qpn != open->to_qpn || pair->type != type || memcmp(pair->gid, open->to_gid, 16))) {
		ffv_pair_retire(pair);
		pair = NULL;
	}
	if (!pair)
		pair = ffv_pair_new(proxy, open->from_qpn, type, open->to_gid, open->to_qpn);
	if (!pair)
		return;
	ffv_incoming_close(pair, FFV_WC_RETRY_EXC_ERR);
	ffv_incoming_unname(pair, channel); /* it may give the same queue pair another number */
	pair->in.number = frame->pair;
	pair->in.incarnation = frame->incarnation;
	pair->in.open = true;
	channel->theirs[frame->pair] = pair;
	ffv_pair_connect(pair, open);
}

/* Takes a work request in. False: more than the window allows. */
static bool on_request(struct ffv_pair *pair, const struct ffv_frame *frame, const uint8_t *payload)
{
	struct ffv_incoming *in = &pair->in;

	if (in->end - in->first >= FFV_WINDOW || in->bytes_held + frame->payload_bytes > FFV_WINDOW_BYTES_EAGER + FFV_EAGER_BYTES)
		return false;
	uint8_t *copy = frame->payload_bytes ? malloc(frame->payload_bytes) : NULL;
	if ((frame->payload_bytes && !copy) || !ffv_incoming_begin(pair)) {
		free(copy);
		ffv_incoming_close(pair, FFV_WC_RETRY_EXC_ERR);
		return true;
	}
	if (copy)
		memcpy(copy, payload, frame->payload_bytes);
	lock(pair);
	*ffv_incoming_entry(in, in->end) = (struct ffv_entry){ .frame = *frame, .payload = copy };
	in->bytes_held += frame->payload_bytes;
	in->end++;
	unlock(pair);
	FFV_FAULT(wire_request_taken);
	ffv_incoming_go_on(pair);
	return true;
}

/* ---- the rest -------------------------------------------------------------------------------------------------------- */

/* News of an end may come late, when what was sent after it is meant for the next context of that number. False: nothing is. */
static bool keep_later(struct ffv_proxy *proxy, uint64_t received)
{
	bool some = false;

	for (uint32_t i = 0; i < proxy->num_live; i++)
		some |= ffv_outgoing_is_later(proxy->live[i], received);
	for (uint32_t i = some ? proxy->num_live : 0; i--;) {
		struct ffv_pair *pair = proxy->live[i];
		if (pair->type != FFV_QPT_UD)
			ffv_incoming_close(pair, FFV_WC_RETRY_EXC_ERR);
		if (ffv_outgoing_is_later(pair, received))
			continue;
		if (ffv_outgoing_is_busy(pair))
			ffv_outgoing_fail(pair, FFV_WC_RETRY_EXC_ERR);
		else
			ffv_pair_retire(pair);
	}
	return some;
}

static void on_gone(struct ffv_router *router, struct ffv_link_channel *channel, const struct ffv_frame_gone *gone,
		    uint64_t received)
{
	pthread_mutex_lock(&router->lock);
	struct ffv_proxy *proxy = gone->qpn_first / FFV_QPN_BLOCK < FFV_QPN_BLOCKS
					  ? ffv_proxy_find_locked(router, gone->gid, gone->qpn_first / FFV_QPN_BLOCK,
								  channel->number) : NULL;
	pthread_mutex_unlock(&router->lock);
	if (proxy && !keep_later(proxy, received))
		ffv_proxy_retire(proxy, gone->died != 0);
}

static void refuse(struct ffv_link_channel *channel, const struct ffv_frame *request)
{
	struct ffv_frame frame = { .kind = FFV_FRAME_ACK, .status = FFV_WC_RETRY_EXC_ERR, .pair = request->pair,
				   .incarnation = request->incarnation, .position = request->position };

	ffv_answer_now(channel, &frame);
}

struct ffv_pair *ffv_incoming_pair(const struct ffv_link_channel *channel, const struct ffv_frame *frame)
{
	struct ffv_pair *pair = frame->pair < channel->num_theirs ? channel->theirs[frame->pair] : NULL;

	return pair && pair->in.open && pair->in.incarnation == frame->incarnation ? pair : NULL;
}

bool ffv_incoming_frame(struct ffv_link_channel *channel, struct ffv_router *router, const struct ffv_frame *frame,
			const uint8_t *payload)
{
	struct ffv_pair *pair = ffv_incoming_pair(channel, frame);
	struct ffv_frame_open open;
	struct ffv_frame_gone gone;

	switch (frame->kind) {
	case FFV_FRAME_OPEN:
		memcpy(&open, payload, sizeof open);
		on_open(router, channel, frame, &open);
		return true;
	case FFV_FRAME_DATAGRAM:
		ffv_datagram_frame(router, channel, frame, payload);
		return true;
	case FFV_FRAME_GONE:
		memcpy(&gone, payload, sizeof gone);
		on_gone(router, channel, &gone, frame->operand[0]);
		return true;
	case FFV_FRAME_DATA:
		return ffv_incoming_data(channel, frame, payload);
	case FFV_FRAME_PLACED:
		return ffv_grant_placed(channel, frame);
	case FFV_FRAME_CLOSE:
		if (pair)
			ffv_incoming_close(pair, FFV_WC_RETRY_EXC_ERR);
		return true;
	default:
		if (pair)
			return on_request(pair, frame, payload);
		refuse(channel, frame);
		return true;
	}
}

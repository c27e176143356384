/* SPDX-License-Identifier: MIT
 *
 * The requester's side: pulls the work requests of a container's queue pair and sends them, and takes the answers. Runs
 * on the loop's thread. A work request stays in the container's send queue until it is answered; `cursor` runs ahead of
 * the queue's own position by what is under way.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "wire/router.h"

static uint32_t slot_of(uint64_t position)
{
	return (uint32_t)(position % FFV_WINDOW);
}

static void lock(struct ffv_pair *pair)
{
	pthread_mutex_lock(&pair->proxy->router->lock);
}

static void unlock(struct ffv_pair *pair)
{
	pthread_mutex_unlock(&pair->proxy->router->lock);
}

/* ---- answers ----------------------------------------------------------------------------------------------------------- */

bool ffv_outgoing_answer(struct ffv_pair *pair, uint64_t position, uint64_t tail, struct ffv_answer *answer)
{
	struct ffv_outgoing *out = &pair->out;

	if (out->seen_tail != tail) { /* whoever posted found the queue locked by us, and went */
		out->seen_tail = tail;
		ffv_pair_touch_locked(pair);
	}
	if (position < out->acked) {
		*answer = (struct ffv_answer){ .status = FFV_WC_SUCCESS,
					       .original = out->window ? out->window->original[slot_of(position)] : 0 };
		return true;
	}
	if (!out->has_error || position != out->acked)
		return false;
	*answer = (struct ffv_answer){ .status = out->status };
	return true;
}

struct ffv_qp_ref *ffv_outgoing_ref(struct ffv_pair *pair)
{
	struct ffv_qp_ref *fresh = pair->ref ? NULL : ffv_slab_alloc(&ffv_pair_refs);
	struct ffv_exec_env env;

	ffv_pair_warm(pair);
	if (!fresh)
		return pair->ref;
	if (ffv_context_env(pair->proxy->ctx, &env) || ffv_pull_open(&env, &pair->peer->view, pair->qpn, fresh) ||
	    fresh->shm != pair->shm || fresh->generation != pair->generation) {
		ffv_slab_free(&ffv_pair_refs, fresh);
		return NULL;
	}
	pair->ref = fresh;
	return fresh;
}

/* As ffv_pull_begin. False: there is nothing to look at, and no end to it. */
static bool begin_pull(struct ffv_pair *pair, const struct ffv_exec_env *env)
{
	struct ffv_qp_ref *ref = ffv_outgoing_ref(pair);

	if (ref)
		ffv_pull_begin(env, ref);
	return ref != NULL;
}

static bool is_current(const struct ffv_pair *pair)
{
	return ffv_load_acquire(&pair->shm->generation) == pair->generation;
}

void ffv_outgoing_run(struct ffv_pair *pair)
{
	struct ffv_exec_env env;

	if (!pair->ready || !pair->shm || ffv_context_env(pair->proxy->ctx, &env))
		return;
	struct ffv_qp_ref *ref = ffv_outgoing_ref(pair);
	if (ref)
		ffv_exec_run(&env, ref, &pair->qp->ref);
}

/* There is a window afterwards. False: no memory. */
static bool begin_window(struct ffv_pair *pair)
{
	struct ffv_out_window *window = pair->out.window ? NULL : ffv_slab_alloc(&ffv_out_windows);

	if (!window)
		return pair->out.window != NULL;
	lock(pair);
	pair->out.window = window;
	unlock(pair);
	return true;
}

/* The window goes when everything is answered and the container's queue has been told: most queue pairs rest. */
static void rest(struct ffv_pair *pair)
{
	struct ffv_out_window *window = pair->out.window;

	if (!window || pair->out.cursor != pair->out.acked || ffv_load_acquire(&pair->shm->sq_exec) < pair->out.acked)
		return;
	lock(pair);
	pair->out.window = NULL;
	unlock(pair);
	ffv_slab_free(&ffv_out_windows, window);
}

static void end_at(struct ffv_pair *pair, uint8_t status)
{
	ffv_transfer_forget(pair);
	lock(pair);
	pair->out.has_error = true;
	pair->out.status = status;
	unlock(pair);
	pair->out.failed = true;
}

void ffv_outgoing_fail(struct ffv_pair *pair, uint8_t status)
{
	if (!pair->shm || pair->out.has_error)
		return;
	end_at(pair, status);
	ffv_outgoing_run(pair);
}

bool ffv_outgoing_is_busy(const struct ffv_pair *pair)
{
	return pair->shm && !pair->out.failed && ffv_load_acquire(&pair->shm->sq_tail) != pair->out.acked;
}

bool ffv_outgoing_is_later(const struct ffv_pair *pair, uint64_t received)
{
	return pair->out.opened ? pair->out.opened_at >= received : ffv_outgoing_is_busy(pair);
}

/* What its queue pair may wait for the other host at most: of the specification's range (a timeout is one to four of its
 * units), and never less than a network of programs needs. 0: it has nothing to wait for. */
static uint64_t patience_ns(const struct ffv_pair *pair)
{
	const struct ffv_qp_shm *qp = pair->shm;
	uint32_t timeout = ffv_load_relaxed(&qp->timeout) & 31, retries = ffv_load_relaxed(&qp->retry_cnt) & 7;
	uint64_t patience = timeout && pair->type != FFV_QPT_UC ? 2 * (retries + 1ull) * (4096ull << timeout) : FFV_LINK_PATIENCE_NS;

	if (pair->out.failed || (pair->out.cursor == pair->out.acked && ffv_load_relaxed(&qp->sq_tail) == pair->out.acked))
		return 0;
	return patience < FFV_LEAST_PATIENCE_NS ? FFV_LEAST_PATIENCE_NS : patience;
}

static void send_close(const struct ffv_pair *pair, struct ffv_link_channel *channel)
{
	struct ffv_frame *frame = channel && pair->out.opened ? ffv_channel_frame(&channel->io, FFV_FRAME_CLOSE, 0) : NULL;

	if (frame) {
		frame->pair = pair->number;
		frame->incarnation = pair->out.incarnation;
	}
}

void ffv_outgoing_lose_patience(struct ffv_pair *pair, struct ffv_link_channel *channel, uint64_t now_ns)
{
	uint64_t heard = channel->io.heard_ns, patience = pair->ready && pair->shm ? patience_ns(pair) : 0;
	bool waits = patience && pair->out.cursor == pair->out.acked;

	if (waits && !pair->out.waits) /* it was posted after the last look, and the host may have been silent long before */
		pair->out.since_ns = now_ns;
	pair->out.waits = waits;
	heard = heard > pair->out.since_ns ? heard : pair->out.since_ns;
	if (!patience || ffv_elapsed_ns(now_ns, heard) <= patience)
		return;
	send_close(pair, channel);
	ffv_outgoing_fail(pair, FFV_WC_RETRY_EXC_ERR);
}

static void take_back(struct ffv_outgoing *out, uint64_t position)
{
	struct ffv_out_window *window = out->window;
	uint32_t slot = slot_of(position);

	out->bytes_under_way -= window->bytes[slot];
	out->sinks_under_way -= window->sinks[slot];
	window->bytes[slot] = window->sinks[slot] = 0;
}

/* Nothing of the past counts any more: the container's queue pair was reset, or goes on after an error. */
static void begin_anew(struct ffv_pair *pair, uint64_t position)
{
	struct ffv_outgoing *out = &pair->out;

	lock(pair);
	out->acked = position;
	out->has_error = false;
	unlock(pair);
	out->cursor = position;
	out->failed = out->opened = false;
	out->bytes_under_way = out->sinks_under_way = 0;
	out->stream_sent = out->stream_allowed = out->stream_length = 0;
	ffv_transfer_forget(pair);
	rest(pair);
	if (out->window) {
		memset(out->window->bytes, 0, sizeof out->window->bytes);
		memset(out->window->sinks, 0, sizeof out->window->sinks);
		memset(out->window->bad, 0, sizeof out->window->bad);
	}
}

/* The work request that a frame answers, UINT64_MAX if none is under way there (any more). */
static uint64_t position_of(const struct ffv_pair *pair, const struct ffv_frame *frame)
{
	const struct ffv_outgoing *out = &pair->out;
	uint64_t position = out->acked + (uint32_t)(frame->position - (uint32_t)out->acked);

	return frame->incarnation == out->incarnation && out->opened && !out->has_error && position < out->cursor
		       ? position : UINT64_MAX;
}

static void on_ack(struct ffv_pair *pair, uint64_t position, uint8_t status)
{
	struct ffv_outgoing *out = &pair->out;
	uint64_t done = status == FFV_WC_SUCCESS ? position + 1 : position;

	for (uint64_t p = out->acked; p < done; p++) {
		take_back(out, p);
		if (!out->window->bad[slot_of(p)])
			continue;
		status = out->window->bad[slot_of(p)];
		done = p;
	}
	lock(pair);
	out->acked = done;
	unlock(pair);
	out->since_ns = pair->proxy->router->now_ns;
	if (status != FFV_WC_SUCCESS)
		end_at(pair, status);
	FFV_FAULT(wire_ack_taken);
	ffv_outgoing_run(pair);
	rest(pair);
	ffv_pair_take_turn(pair);
}

/* Bytes of a READ go to where they belong as they come: until it completes, nobody may expect anything there. */
static void on_result(struct ffv_pair *pair, uint64_t position, const struct ffv_frame *frame, const uint8_t *payload)
{
	struct ffv_exec_env env;
	struct ffv_pulled wr;
	uint32_t status = 0;

	if (frame->opcode != FFV_WR_RDMA_READ) {
		lock(pair);
		pair->out.window->original[slot_of(position)] = frame->operand[0];
		unlock(pair);
		return;
	}
	if (ffv_context_env(pair->proxy->ctx, &env) || !begin_pull(pair, &env)) {
		pair->out.window->bad[slot_of(position)] = FFV_WC_LOC_QP_OP_ERR;
		return;
	}
	enum ffv_pull found = ffv_pull_look(pair->ref, position, &wr, &status);
	if (found == FFV_PULL_DONE && wr.opcode == FFV_WR_RDMA_READ && frame->address <= wr.length_bytes)
		found = ffv_pull_put(&wr.list, (uint32_t)frame->address, frame->payload_bytes, payload);
	ffv_pull_end(&env);
	if (found == FFV_PULL_FAILED || found == FFV_PULL_UNREACHABLE)
		pair->out.window->bad[slot_of(position)] = FFV_WC_LOC_PROT_ERR;
}

#define MOST_PIECES 8

static void drop_body(struct ffv_channel *io)
{
	uint32_t length;

	ffv_channel_body_fetch(io, &length);
	ffv_channel_body_take(io, length);
}

/* As on_result: straight from the link to where it belongs, or what the buffer has of it. */
static void take_result(struct ffv_pair *pair, struct ffv_channel *io, uint64_t position, const struct ffv_frame *frame)
{
	uint32_t offset = (uint32_t)frame->address + ffv_channel_body_offset(io), length = io->body_left, status = 0;
	struct iovec pieces[MOST_PIECES];
	struct ffv_exec_env env;
	struct ffv_pulled wr;
	ssize_t n = -EFAULT;

	if (ffv_context_env(pair->proxy->ctx, &env) || !begin_pull(pair, &env)) {
		drop_body(io);
		pair->out.window->bad[slot_of(position)] = FFV_WC_LOC_QP_OP_ERR;
		return;
	}
	enum ffv_pull found = ffv_pull_look(pair->ref, position, &wr, &status);
	bool here = found == FFV_PULL_DONE && wr.opcode == FFV_WR_RDMA_READ && frame->address <= wr.length_bytes;
	int count = here ? ffv_pull_here(&wr.list, offset, length, pieces, MOST_PIECES) : 0;
	if (count)
		n = ffv_channel_body_receive(io, pieces, count);
	if (n < 0 && n != -EFAULT)
		io->error = (int)n;
	if (n == -EFAULT) {
		const uint8_t *bytes = ffv_channel_body_fetch(io, &length);
		if (here)
			found = ffv_pull_put(&wr.list, offset, length, bytes);
		ffv_channel_body_take(io, length);
	}
	FFV_FAULT(wire_result_placed);
	ffv_pull_end(&env);
	if (found == FFV_PULL_FAILED || found == FFV_PULL_UNREACHABLE)
		pair->out.window->bad[slot_of(position)] = FFV_WC_LOC_PROT_ERR;
}

void ffv_outgoing_body(struct ffv_pair *pair, struct ffv_link_channel *channel, const struct ffv_frame *frame)
{
	uint64_t position = pair ? position_of(pair, frame) : UINT64_MAX;

	if (position != UINT64_MAX)
		take_result(pair, &channel->io, position, frame);
	else
		drop_body(&channel->io);
}

static bool is_sink(uint8_t opcode)
{
	return opcode == FFV_WR_RDMA_READ || opcode == FFV_WR_ATOMIC_CMP_AND_SWP || opcode == FFV_WR_ATOMIC_FETCH_AND_ADD;
}

static void on_credit(struct ffv_pair *pair, uint64_t position, const struct ffv_frame *frame, const uint8_t *payload)
{
	struct ffv_outgoing *out = &pair->out;

	if (out->stream_position != position || !out->stream_length) {
		out->stream_position = position;
		out->stream_sent = 0;
		out->stream_length = frame->length_bytes;
	}
	uint64_t allowed = frame->address < out->stream_length ? frame->address : out->stream_length;
	if (allowed > out->stream_allowed || out->stream_sent == 0)
		out->stream_allowed = (uint32_t)allowed;
	ffv_transfer_granted(pair, frame, payload);
	ffv_pair_take_turn(pair);
}

/* The container's counters tell of waiting, wherever that was. */
static void on_waits(struct ffv_pair *pair, const struct ffv_frame *frame)
{
	ffv_fetch_add(&pair->shm->rnr_waits, frame->operand[0]);
	ffv_fetch_add(&pair->shm->retries, frame->operand[1]);
}

void ffv_outgoing_frame(struct ffv_pair *pair, const struct ffv_frame *frame, const uint8_t *payload)
{
	uint64_t position = position_of(pair, frame);

	if (position == UINT64_MAX)
		return; /* a late answer to what does not count any more */
	if (frame->kind == FFV_FRAME_ACK)
		on_ack(pair, position, frame->status);
	else if (frame->kind == FFV_FRAME_WAITS)
		on_waits(pair, frame);
	else if (frame->kind == FFV_FRAME_RESULT)
		on_result(pair, position, frame, payload);
	else if (frame->opcode == FFV_WR_RDMA_READ)
		ffv_transfer_fetch(pair, position, frame, payload);
	else
		on_credit(pair, position, frame, payload);
}

/* ---- pulling ------------------------------------------------------------------------------------------------------------- */

static bool number_pair(struct ffv_pair *pair)
{
	struct ffv_router *router = pair->proxy->router;

	for (uint32_t n = 0; n < FFV_MAX_PAIRS && pair->number == FFV_NONE; n++) {
		uint32_t number = router->next_number++ % FFV_MAX_PAIRS;
		if (!router->numbers[number]) {
			router->numbers[number] = pair;
			pair->number = number;
		}
	}
	return pair->number != FFV_NONE;
}

static struct ffv_opened_as wants_to_open_as(const struct ffv_pair *pair)
{
	const struct ffv_qp_shm *qp = pair->shm;

	return (struct ffv_opened_as){ .mtu_bytes = ffv_load_relaxed(&qp->path_mtu_bytes),
				       .timeout = ffv_load_relaxed(&qp->timeout), .retry_cnt = ffv_load_relaxed(&qp->retry_cnt),
				       .rnr_retry = ffv_load_relaxed(&qp->rnr_retry),
				       .max_rd_atomic = ffv_load_relaxed(&qp->max_rd_atomic) };
}

static void fill_open(const struct ffv_pair *pair, const struct ffv_opened_as *as, struct ffv_frame_open *open)
{
	*open = (struct ffv_frame_open){ .from_qpn = pair->qpn, .to_qpn = pair->far_qpn, .mtu_bytes = as->mtu_bytes,
					 .type = (uint8_t)pair->type, .timeout = as->timeout, .retry_cnt = as->retry_cnt,
					 .rnr_retry = as->rnr_retry, .max_rd_atomic = as->max_rd_atomic };
	memcpy(open->from_gid, pair->gid, 16);
	memcpy(open->to_gid, pair->proxy->gid, 16);
}

/* The other router has to know the queue pair, with the attributes that it has now. False: not yet, or no room. */
static bool open_pair(struct ffv_pair *pair, struct ffv_link_channel *channel)
{
	struct ffv_outgoing *out = &pair->out;
	struct ffv_opened_as now = wants_to_open_as(pair);

	if (out->opened && !memcmp(&now, &out->as, sizeof now))
		return true;
	if (out->cursor != out->acked || !number_pair(pair))
		return false;
	uint64_t at = channel->io.out.tail;
	struct ffv_frame *frame = ffv_channel_frame(&channel->io, FFV_FRAME_OPEN, sizeof(struct ffv_frame_open));
	if (!frame)
		return false;
	frame->pair = pair->number;
	frame->incarnation = ++out->incarnation;
	fill_open(pair, &now, ffv_frame_payload(frame));
	out->as = now;
	out->opened = true;
	out->opened_at = at;
	return true;
}

/* Writes the frame of a work request. False: no room, or its payload cannot be read. */
static enum ffv_pull send_request(struct ffv_pair *pair, struct ffv_link_channel *channel, struct ffv_pulled *wr)
{
	struct ffv_outgoing *out = &pair->out;
	bool sink = is_sink(wr->opcode), request = sink || wr->opcode == FFV_WR_FLUSH;
	bool large = !request && wr->length_bytes > FFV_EAGER_BYTES;
	uint32_t payload = request || large ? 0 : wr->length_bytes, slot = slot_of(out->cursor);
	uint8_t kind = request ? FFV_FRAME_REQUEST : large ? FFV_FRAME_LARGE : FFV_FRAME_MESSAGE;
	struct ffv_frame *frame = begin_window(pair) ? ffv_channel_frame(&channel->io, kind, payload) : NULL;

	if (!frame)
		return FFV_PULL_LATER;
	frame->pair = pair->number;
	frame->incarnation = out->incarnation;
	frame->position = (uint32_t)out->cursor;
	frame->opcode = wr->opcode;
	frame->flags = wr->flags & FFV_SEND_SOLICITED;
	frame->length_bytes = wr->length_bytes;
	frame->imm_be = wr->imm_be;
	frame->address = wr->rdma.remote_addr;
	frame->rkey = wr->rdma.rkey;
	frame->operand[0] = wr->rdma.compare_add;
	frame->operand[1] = wr->rdma.swap;
	if (pair->type == FFV_QPT_XRC_SEND && request)
		frame->imm_be = wr->xrc_srqn;
	else if (pair->type == FFV_QPT_XRC_SEND)
		frame->operand[0] = wr->xrc_srqn;
	enum ffv_pull copied = ffv_pull_copy(&wr->list, 0, payload, ffv_frame_payload(frame));
	if (copied != FFV_PULL_DONE) {
		ffv_channel_abort(&channel->io, frame);
		return copied;
	}
	FFV_FAULT(wire_request_framed);
	out->window->bytes[slot] = payload;
	out->window->sinks[slot] = sink;
	out->window->bad[slot] = 0;
	out->bytes_under_way += payload;
	out->sinks_under_way += sink;
	if (out->cursor == out->acked) {
		out->since_ns = pair->proxy->router->now_ns;
		out->waits = false;
	}
	out->cursor++;
	return FFV_PULL_DONE;
}

/* What its owner did with the queue meanwhile: executed local work requests, flushed, reset it. False: nothing to pull. */
static bool catch_up(struct ffv_pair *pair)
{
	struct ffv_outgoing *out = &pair->out;
	struct ffv_qp_shm *qp = pair->shm;
	uint64_t exec = ffv_load_acquire(&qp->sq_exec);
	uint32_t state = ffv_load_acquire(&qp->state);

	/* In SQD there may be one that is to end: ffv_pull_look knows. */
	if (!is_current(pair) || (state != FFV_QPS_RTS && state != FFV_QPS_SQD))
		return false;
	if (exec > out->acked) {
		if (out->failed || out->cursor != out->acked) {
			begin_anew(pair, exec);
		} else {
			lock(pair);
			out->acked = exec;
			unlock(pair);
			out->cursor = exec;
		}
	}
	return !out->failed && ffv_load_acquire(&qp->sq_tail) != out->cursor;
}

/* A queue with a limited rate is not pulled ahead: only what its executor has let pass, one after the other. */
static bool is_held_back(const struct ffv_pair *pair)
{
	const struct ffv_qp_shm *qp = pair->shm;

	return ffv_load_relaxed(&qp->rate_kbps) &&
	       (pair->out.cursor != pair->out.acked || ffv_load_acquire(&qp->blocked) != FFV_BLOCKED_RESPONDER);
}

/* Pulls one work request. False: there is none, or it has to wait. */
static bool pull_one(struct ffv_pair *pair, struct ffv_link_channel *channel, const struct ffv_exec_env *env)
{
	struct ffv_outgoing *out = &pair->out;
	struct ffv_pulled wr;
	uint32_t status = 0;

	if (!catch_up(pair) || is_held_back(pair) || out->cursor - out->acked >= FFV_WINDOW || !open_pair(pair, channel) ||
	    !begin_pull(pair, env))
		return false;
	enum ffv_pull found = ffv_pull_look(pair->ref, out->cursor, &wr, &status);
	if (found == FFV_PULL_DONE) {
		bool waits = (wr.flags & FFV_SEND_FENCE && out->sinks_under_way) ||
			     (out->bytes_under_way && out->bytes_under_way + wr.length_bytes > FFV_WINDOW_BYTES_EAGER);
		found = waits ? FFV_PULL_LATER : send_request(pair, channel, &wr);
		status = FFV_WC_LOC_PROT_ERR;
	}
	ffv_pull_end(env);
	if (found == FFV_PULL_DONE)
		return true;
	/* Its own mistake ends it when those before it have ended. */
	if ((found == FFV_PULL_FAILED || found == FFV_PULL_UNREACHABLE) && out->cursor == out->acked) {
		end_at(pair, (uint8_t)status);
		ffv_outgoing_run(pair);
	}
	return false;
}

/* ---- unreliable connections without a link -------------------------------------------------------------------------- */

/* What it posts while nothing carries it is lost on the way, as what is on a wire that is cut: its sender is done with it. */
static bool lose_one(struct ffv_pair *pair, const struct ffv_exec_env *env)
{
	struct ffv_outgoing *out = &pair->out;
	struct ffv_pulled wr;
	uint32_t status = 0;

	if (!catch_up(pair) || is_held_back(pair) || !begin_pull(pair, env))
		return false;
	enum ffv_pull found = ffv_pull_look(pair->ref, out->cursor, &wr, &status);
	ffv_pull_end(env);
	if (found == FFV_PULL_FAILED)
		end_at(pair, (uint8_t)status);
	if (found == FFV_PULL_DONE)
		begin_anew(pair, out->cursor + 1);
	if (found == FFV_PULL_FAILED || found == FFV_PULL_DONE)
		ffv_outgoing_run(pair);
	return found == FFV_PULL_DONE;
}

void ffv_outgoing_let_go(struct ffv_pair *pair, struct ffv_link_channel *channel)
{
	struct ffv_outgoing *out = &pair->out;

	if (pair->type != FFV_QPT_UC || !pair->ready || !pair->shm || out->failed || out->cursor == out->acked)
		return;
	send_close(pair, channel); /* what arrives after all begins anew; of a large one the rest will not come */
	begin_anew(pair, out->cursor);
	ffv_outgoing_run(pair);
	rest(pair);
}

/* ---- sending ------------------------------------------------------------------------------------------------------------- */

/* The next bytes of the large message that has credit. */
static void send_stream(struct ffv_pair *pair, struct ffv_link_channel *channel, const struct ffv_exec_env *env, uint32_t most)
{
	struct ffv_outgoing *out = &pair->out;
	uint32_t n = out->stream_allowed - out->stream_sent, status;
	struct ffv_pulled wr;

	most = most < ffv_turn_bytes(channel) ? most : ffv_turn_bytes(channel);
	n = n < most ? n : most;
	struct ffv_frame *frame = ffv_channel_frame(&channel->io, FFV_FRAME_DATA, n);
	if (!frame)
		return;
	frame->pair = pair->number;
	frame->incarnation = out->incarnation;
	frame->position = (uint32_t)out->stream_position;
	frame->address = out->stream_sent;
	enum ffv_pull found = FFV_PULL_LATER;
	bool welcome = true;
	if (begin_pull(pair, env)) {
		found = ffv_pull_look(pair->ref, out->stream_position, &wr, &status);
		welcome = found != FFV_PULL_DONE || !is_sink(wr.opcode);
		if (found == FFV_PULL_DONE && welcome)
			found = ffv_pull_copy(&wr.list, out->stream_sent, n, ffv_frame_payload(frame));
		FFV_FAULT(wire_stream_framed);
		ffv_pull_end(env);
	}
	if (!welcome) { /* credit for what has no payload: its memory is not the other side's to read */
		ffv_channel_abort(&channel->io, frame);
		out->stream_allowed = out->stream_sent;
		return;
	}
	if (found == FFV_PULL_DONE) {
		out->stream_sent += n;
		if (n > FFV_LAST_BYTES || out->stream_sent != out->stream_length)
			ffv_fetch_add(&pair->proxy->router->bytes_streamed, n);
		return;
	}
	/* It does not count any more, or its memory went: the other side waits for bytes that will not come. */
	ffv_channel_abort(&channel->io, frame);
	out->stream_allowed = out->stream_sent;
	send_close(pair, channel);
	end_at(pair, FFV_WC_LOC_PROT_ERR);
	ffv_outgoing_run(pair);
}

bool ffv_outgoing_send(struct ffv_pair *pair, struct ffv_link_channel *channel)
{
	struct ffv_outgoing *out = &pair->out;
	struct ffv_exec_env env;
	uint64_t before = channel->io.out.tail;
	uint32_t most;

	if (!pair->ready || !pair->shm || ffv_context_env(pair->proxy->ctx, &env))
		return false;
	if (out->stream_sent < out->stream_allowed && !out->failed && !ffv_transfer_carries(pair, channel, &env, &most)) {
		send_stream(pair, channel, &env, most);
		if (out->stream_sent < out->stream_allowed)
			return true;
	}
	if (pair->type == FFV_QPT_UC && !channel->io.link) {
		while (lose_one(pair, &env))
			;
		return false;
	}
	while (pull_one(pair, channel, &env))
		if (channel->io.out.tail - before >= FFV_TURN_BYTES || !ffv_channel_room(&channel->io))
			return true;
	rest(pair);
	return false;
}

/* ---- a container's bell -------------------------------------------------------------------------------------------------- */

static void run_datagrams(struct ffv_proxy *proxy, struct ffv_qp_ref *ref)
{
	struct ffv_exec_env env;

	if (!ffv_context_env(proxy->ctx, &env))
		ffv_exec_run(&env, ref, NULL);
}

/* *far_qpn: to which queue pair there. */
static bool is_connected_to(const struct ffv_qp_shm *shm, uint32_t generation, const struct ffv_proxy *proxy, uint32_t *far_qpn)
{
	uint32_t state = ffv_load_acquire(&shm->state);
	uint8_t dgid[16];

	*far_qpn = ffv_load_relaxed(&shm->dest_qpn);
	ffv_qp_shm_dgid(shm, dgid);
	return state >= FFV_QPS_RTR && state != FFV_QPS_ERR && ffv_load_acquire(&shm->generation) == generation &&
	       *far_qpn / FFV_QPN_BLOCK == proxy->block && !memcmp(dgid, proxy->gid, 16);
}

/* The pair for it: another container's queue pair that the far one was connected to gives way if it is so no more. */
static struct ffv_pair *find_pair(struct ffv_proxy *proxy, const struct ffv_qp_ref *ref, const uint8_t gid[16],
				  uint32_t far_qpn)
{
	struct ffv_pair *pair = ffv_pair_get(proxy, far_qpn);
	bool same = pair && pair->qpn == ref->qpn && pair->type == ref->type && !memcmp(pair->gid, gid, 16);

	if (pair && !same) {
		bool meant = pair->in.open && pair->qpn == ref->qpn && !memcmp(pair->gid, gid, 16); /* by the other host */
		uint32_t unused;
		if (pair->type == FFV_QPT_UD || meant || (pair->shm && is_connected_to(pair->shm, pair->generation, proxy, &unused)))
			return NULL;
		ffv_pair_retire(pair);
	}
	if (same)
		return pair;
	pair = ffv_pair_new(proxy, far_qpn, ref->type, gid, ref->qpn);
	if (pair)
		ffv_pair_connect(pair, NULL);
	return pair;
}

/* Takes over the reference to the peer. */
static void adopt(struct ffv_pair *pair, struct ffv_peer *peer, const struct ffv_qp_ref *ref)
{
	struct ffv_peer *old = pair->peer;

	ffv_slab_free(&ffv_pair_refs, pair->ref);
	pair->ref = NULL;
	lock(pair);
	pair->shm = ref->shm;
	unlock(pair);
	pair->generation = ref->generation;
	pair->peer = peer;
	if (old)
		ffv_peer_put(old);
	begin_anew(pair, ffv_load_acquire(&ref->shm->sq_exec));
}

/* A queue pair of a container is destroyed: what is under way of it is dropped at the other end, too. */
static void on_destroyed(struct ffv_proxy *proxy, const uint8_t gid[16], uint32_t qpn)
{
	struct ffv_link_channel *channel = ffv_router_channel(proxy->router, proxy->channel);

	for (uint32_t i = proxy->num_live; i--;) {
		struct ffv_pair *pair = proxy->live[i];
		if (pair->qpn != qpn || !pair->shm || memcmp(pair->gid, gid, 16) || is_current(pair))
			continue;
		send_close(pair, channel);
		ffv_pair_retire(pair);
	}
}

/* A queue pair of a container is in error: what a device still brings for its READs is stopped, for that is flushed now. */
static void on_error(struct ffv_proxy *proxy, const struct ffv_qp_ref *ref, const uint8_t gid[16])
{
	for (uint32_t i = proxy->num_live; i--;) {
		struct ffv_pair *pair = proxy->live[i];
		if (pair->shm != ref->shm || pair->generation != ref->generation || memcmp(pair->gid, gid, 16))
			continue;
		ffv_transfer_forget(pair);
		ffv_outgoing_run(pair);
	}
}

void ffv_outgoing_wanted(struct ffv_proxy *proxy, const uint8_t gid[16], uint32_t qpn)
{
	struct ffv_peer *peer = ffv_peer_get(proxy->ctx, gid, qpn);
	struct ffv_pair *pair = NULL;
	struct ffv_exec_env env;
	struct ffv_qp_ref ref;
	uint32_t far_qpn;

	if (!peer)
		return;
	if (ffv_context_env(proxy->ctx, &env)) {
		ffv_peer_put(peer);
		return;
	}
	if (!ffv_pull_open(&env, &peer->view, qpn, &ref)) {
		if (ref.type == FFV_QPT_UD)
			run_datagrams(proxy, &ref);
		else if (ffv_type_is_connected(ref.type) && is_connected_to(ref.shm, ref.generation, proxy, &far_qpn))
			pair = find_pair(proxy, &ref, gid, far_qpn);
		else if (ffv_load_acquire(&ref.shm->state) == FFV_QPS_ERR)
			on_error(proxy, &ref, gid);
		if (ref.type == FFV_QPT_XRC_RECV) { /* it sends nothing: all that it wants is that it can be sent to */
			ffv_peer_put(peer);
			return;
		}
	} else {
		on_destroyed(proxy, gid, qpn);
	}
	if (pair && (pair->shm != ref.shm || pair->generation != ref.generation || pair->peer != peer))
		adopt(pair, peer, &ref);
	else
		ffv_peer_put(peer);
	if (!pair || pair->jobs)
		return;
	uint32_t state = ffv_load_acquire(&pair->qp->ref.shm->state);
	if (state == FFV_QPS_ERR || state == FFV_QPS_SQE) { /* what failed towards the container does not concern what it sends */
		ffv_incoming_poll(proxy);
		if (pair->dead)
			return;
		ffv_incoming_close(pair, FFV_WC_RETRY_EXC_ERR);
		ffv_pair_connect(pair, NULL);
		return;
	}
	ffv_outgoing_run(pair);
	ffv_pair_take_turn(pair);
}

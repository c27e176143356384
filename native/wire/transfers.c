/* SPDX-License-Identifier: MIT
 *
 * Transfers: bytes of our containers' large messages that our real device writes to where the router of the other host has
 * granted it (grants.c there, docs/decisions/0036). A PLACED tells of it when the device has; what it cannot write, or was
 * writing when the real queue pair was lost, is streamed, for which a grant is good, too. Runs on the loop's thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "verbs/hold.h"
#include "wire/router.h"

#define MOST_BYTES (4u << 20)      /* under way in one real queue pair: small messages stand behind them */

struct ffv_far_grant {
	uint64_t position;            /* of the work request */
	uint64_t carrier;             /* the other end's name of it */
	uint32_t from, length;
	int count;
	struct ffv_frame_piece pieces[FFV_MOST_PIECES];
};

struct ffv_transfer {
	struct ffv_transfer *next;    /* of the channel's */
	struct ffv_proxy *proxy;
	struct ffv_pair *pair;        /* NULL: nobody wants to know any more how it ends */
	struct ffv_hold hold;
	uint64_t carrier;
	bool reads;                   /* into our container, for a READ of its own */
	uint32_t position;            /* of the work request, low half */
	uint32_t from;
	uint32_t ticket, length;
	int count;
	uint32_t windows[FFV_MOST_PIECES];
};

/* ---- grants ------------------------------------------------------------------------------------------------------------------- */

void ffv_transfer_granted(struct ffv_pair *pair, const struct ffv_frame *frame, const uint8_t *payload)
{
	uint32_t count = frame->payload_bytes / (uint32_t)sizeof(struct ffv_frame_piece);
	struct ffv_far_grant *far = count ? calloc(1, sizeof *far) : NULL;
	uint64_t length = 0;

	free(pair->out.far);
	pair->out.far = NULL;
	if (!far)
		return;
	memcpy(far->pieces, payload, frame->payload_bytes);
	for (uint32_t i = 0; i < count; i++)
		length += far->pieces[i].length_bytes;
	if (!length || frame->operand[0] > UINT32_MAX || frame->operand[0] + length > frame->address ||
	    frame->address > pair->out.stream_length) { /* it is a CREDIT all the same */
		free(far);
		return;
	}
	far->position = pair->out.stream_position;
	far->carrier = frame->operand[1];
	far->from = (uint32_t)frame->operand[0];
	far->length = (uint32_t)length;
	far->count = (int)count;
	pair->out.far = far;
}

static void forget_grant(struct ffv_pair *pair)
{
	free(pair->out.far);
	pair->out.far = NULL;
}

/* fence: what the device still does to the memory fails, and with it the real queue pair. */
static void release(struct ffv_transfer *transfer, struct ffv_channel *io, bool fence)
{
	for (int i = 0; i < transfer->count && io->link && io->transport->one_sided; i++)
		io->transport->one_sided->release(io->link, transfer->carrier, transfer->windows[i], fence);
	transfer->count = 0;
}

void ffv_transfer_forget(struct ffv_pair *pair)
{
	struct ffv_link_channel *channel = pair->proxy->router->channels[pair->proxy->channel % FFV_MAX_CHANNELS];
	struct ffv_transfer *transfer = pair->out.transfer;

	forget_grant(pair);
	if (!transfer)
		return;
	transfer->pair = NULL;
	pair->out.transfer = NULL;
	if (!transfer->reads || !channel || channel->number != pair->proxy->channel)
		return;
	release(transfer, &channel->io, true); /* the container may use its memory for something else from now on */
	ffv_hold_end(&transfer->hold);
}

/* ---- waiting for others ------------------------------------------------------------------------------------------------------- */

static void park(struct ffv_pair *pair, struct ffv_link_channel *channel)
{
	if (pair->is_parked)
		return;
	pair->is_parked = true;
	pair->parked_next = channel->parked;
	channel->parked = pair;
}

void ffv_transfer_unpark(struct ffv_pair *pair, struct ffv_link_channel *channel)
{
	for (struct ffv_pair **at = channel ? &channel->parked : NULL; at && *at; at = &(*at)->parked_next) {
		if (*at == pair) {
			*at = pair->parked_next;
			break;
		}
	}
	pair->is_parked = false;
}

static void unpark_all(struct ffv_link_channel *channel)
{
	while (channel->parked) {
		struct ffv_pair *pair = channel->parked;
		channel->parked = pair->parked_next;
		pair->is_parked = false;
		ffv_pair_take_turn(pair);
	}
}

/* ---- beginning ---------------------------------------------------------------------------------------------------------------- */

/* Finds, under the transfer's hold, where the bytes are, or are to come to: the other router may say neither of a work
 * request of the other kind. */
static int find_places(struct ffv_pair *pair, const struct ffv_exec_env *env, const struct ffv_transfer *transfer,
		       uint64_t position, uint32_t length, struct ffv_place *places)
{
	struct ffv_qp_ref *ref = ffv_outgoing_ref(pair);
	struct ffv_pulled wr;
	uint32_t status;
	int count = 0;

	if (!ref)
		return 0;
	ffv_pull_begin(env, ref);
	if (ffv_pull_look(ref, position, &wr, &status) == FFV_PULL_DONE && transfer->reads == (wr.opcode == FFV_WR_RDMA_READ))
		count = ffv_pull_places(ref, position, &wr, transfer->from, length, places, FFV_MOST_PIECES);
	ffv_pull_end(env);
	return count;
}

/* Registers what stands at addresses here: how many pieces, whose bytes are the transfer's length. */
static void register_places(struct ffv_transfer *transfer, struct ffv_channel *io, const struct ffv_place *places, int count,
			    struct ffv_real_piece *pieces)
{
	struct ffv_peer *peer = transfer->pair->peer;
	struct ffv_real_window window;

	for (int i = 0; i < count && places[i].here; i++) {
		if (io->transport->one_sided->window(io->link, peer, &places[i], false, &window))
			return;
		pieces[i] = window.piece;
		transfer->windows[i] = window.number;
		transfer->length += window.piece.length;
		transfer->count = i + 1;
	}
}

/* `length` bytes of what is granted, from byte `offset` on. How many pieces. */
static int cut_grant(const struct ffv_far_grant *far, uint32_t offset, uint32_t length, struct ffv_real_piece *pieces)
{
	int count = 0;

	for (int i = 0; i < far->count && length; i++) {
		const struct ffv_frame_piece *piece = &far->pieces[i];
		if (offset >= piece->length_bytes) {
			offset -= piece->length_bytes;
			continue;
		}
		uint32_t n = piece->length_bytes - offset < length ? piece->length_bytes - offset : length;
		pieces[count++] = (struct ffv_real_piece){ piece->address + offset, piece->rkey, n };
		offset = 0;
		length -= n;
	}
	return count;
}

static void let_go(struct ffv_transfer *transfer, struct ffv_channel *io)
{
	release(transfer, io, false);
	ffv_hold_end(&transfer->hold);
	free(transfer);
}

/* A transfer for bytes of a work request from `from` on, which holds the container's memory. NULL: it cannot be. */
static struct ffv_transfer *make(struct ffv_pair *pair, uint64_t carrier, uint64_t position, uint32_t from, bool reads)
{
	struct ffv_transfer *transfer = calloc(1, sizeof *transfer);

	if (!transfer)
		return NULL;
	*transfer = (struct ffv_transfer){ .proxy = pair->proxy, .pair = pair, .carrier = carrier, .from = from,
					   .position = (uint32_t)position, .reads = reads };
	if (!ffv_hold_begin(pair->proxy->ctx, pair->peer->view.context_id, pair->qpn, reads, &transfer->hold))
		return transfer;
	free(transfer);
	return NULL;
}

static void keep(struct ffv_pair *pair, struct ffv_link_channel *channel, struct ffv_transfer *transfer)
{
	transfer->next = channel->transfers;
	channel->transfers = transfer;
	channel->transfer_bytes += transfer->length;
	pair->out.transfer = transfer;
	if (!transfer->reads)
		ffv_rate_spend(pair->proxy->router, transfer->length);
}

/* 1 = it is under way, 0 = there is no room for it now, -1 = these bytes cannot go so. *most as of ffv_transfer_carries. */
static int begin(struct ffv_pair *pair, struct ffv_link_channel *channel, const struct ffv_exec_env *env, uint64_t carrier,
		 uint32_t *most)
{
	const struct ffv_outgoing *out = &pair->out;
	uint32_t offset = out->stream_sent - out->far->from, left = out->far->length - offset;
	struct ffv_real_piece here[FFV_MOST_PIECES], there[FFV_MOST_PIECES];
	struct ffv_place places[FFV_MOST_PIECES];
	struct ffv_transfer *transfer = make(pair, carrier, out->stream_position, out->stream_sent, false);
	struct ffv_channel *io = &channel->io;

	if (!transfer)
		return -1;
	int found = find_places(pair, env, transfer, out->stream_position, left, places), rc = -1;
	if (found && !places[0].here && places[0].length < left)
		*most = (uint32_t)places[0].length; /* what is behind it can go so */
	register_places(transfer, io, places, found, here);
	int pieces = cut_grant(out->far, offset, transfer->length, there);
	if (pieces)
		rc = io->transport->one_sided->move(io->link, false, here, transfer->count, there, pieces, &transfer->ticket);
	if (rc) {
		let_go(transfer, io);
		return rc == -EAGAIN && channel->transfers ? 0 : -1;
	}
	FFV_FAULT(wire_transfer_begun);
	keep(pair, channel, transfer);
	return 1;
}

bool ffv_transfer_carries(struct ffv_pair *pair, struct ffv_link_channel *channel, const struct ffv_exec_env *env,
			  uint32_t *most)
{
	const struct ffv_one_sided *calls = channel->io.link ? channel->io.transport->one_sided : NULL;
	struct ffv_outgoing *out = &pair->out;
	uint64_t near, theirs, carrier;

	*most = UINT32_MAX;
	if (out->transfer || !out->far)
		return out->transfer != NULL;
	carrier = calls ? calls->carrier(channel->io.link, &near, &theirs) : 0;
	if (!carrier || theirs != out->far->carrier || out->far->position != out->stream_position ||
	    out->stream_sent - out->far->from >= out->far->length) {
		forget_grant(pair);
		return false;
	}
	bool busy = channel->transfers && channel->transfer_bytes + out->far->length > MOST_BYTES;
	int rc = busy ? 0 : begin(pair, channel, env, carrier, most);
	if (rc == 0)
		park(pair, channel);
	else if (rc > 0 || *most == UINT32_MAX)
		forget_grant(pair);
	return rc >= 0;
}

/* ---- ending ------------------------------------------------------------------------------------------------------------------ */

/* length 0: of a READ, that the device does not fetch it. */
static void tell(struct ffv_pair *pair, struct ffv_link_channel *channel, uint32_t position, uint32_t from, uint32_t length)
{
	struct ffv_frame *frame = ffv_channel_frame(&channel->io, FFV_FRAME_PLACED, 0);

	if (!frame)
		return; /* without memory: patience ends it */
	frame->pair = pair->number;
	frame->incarnation = pair->out.incarnation;
	frame->position = position;
	frame->address = from;
	frame->length_bytes = length;
}

static void finish(struct ffv_link_channel *channel, struct ffv_transfer *transfer, bool moved)
{
	struct ffv_pair *pair = transfer->pair;
	uint32_t length = moved ? transfer->length : 0;

	channel->transfer_bytes -= transfer->length;
	FFV_FAULT(wire_transfer_done);
	if (pair) {
		struct ffv_router *router = pair->proxy->router;
		pair->out.transfer = NULL;
		if (moved || transfer->reads)
			tell(pair, channel, transfer->position, transfer->from, length);
		if (!transfer->reads)
			pair->out.stream_sent += length;
		ffv_fetch_add(transfer->reads ? &router->bytes_one_sided_received : &router->bytes_one_sided_sent, length);
		ffv_pair_take_turn(pair);
	}
	FFV_FAULT(wire_transfer_told);
	let_go(transfer, &channel->io);
}

/* ---- READs ------------------------------------------------------------------------------------------------------------------- */

/* Has the device fetch `length` bytes of the message. False: it cannot. */
static bool fetch(struct ffv_pair *pair, struct ffv_link_channel *channel, uint64_t carrier, uint64_t position, uint32_t from,
		  const struct ffv_far_grant *far)
{
	struct ffv_real_piece here[FFV_MOST_PIECES], there[FFV_MOST_PIECES];
	struct ffv_place places[FFV_MOST_PIECES];
	struct ffv_channel *io = &channel->io;
	struct ffv_exec_env env;
	struct ffv_transfer *transfer =
		ffv_context_env(pair->proxy->ctx, &env) ? NULL : make(pair, carrier, position, from, true);

	if (!transfer)
		return false;
	register_places(transfer, io, places, find_places(pair, &env, transfer, position, far->length, places), here);
	int pieces = transfer->length == far->length ? cut_grant(far, 0, far->length, there) : 0;
	if (!pieces || io->transport->one_sided->move(io->link, true, here, transfer->count, there, pieces, &transfer->ticket)) {
		let_go(transfer, io);
		return false;
	}
	FFV_FAULT(wire_fetch_begun);
	keep(pair, channel, transfer);
	return true;
}

void ffv_transfer_fetch(struct ffv_pair *pair, uint64_t position, const struct ffv_frame *frame, const uint8_t *payload)
{
	struct ffv_link_channel *channel = ffv_router_channel(pair->proxy->router, pair->proxy->channel);
	const struct ffv_one_sided *calls = channel && channel->io.link ? channel->io.transport->one_sided : NULL;
	uint32_t count = frame->payload_bytes / (uint32_t)sizeof(struct ffv_frame_piece);
	uint64_t near, theirs, carrier = calls ? calls->carrier(channel->io.link, &near, &theirs) : 0, length = 0;
	struct ffv_far_grant far = { .count = (int)count };

	if (!channel || !count || frame->operand[0] > UINT32_MAX)
		return;
	memcpy(far.pieces, payload, frame->payload_bytes);
	for (uint32_t i = 0; i < count; i++)
		length += far.pieces[i].length_bytes;
	far.length = (uint32_t)length;
	bool fits = length && length <= UINT32_MAX - frame->operand[0] && carrier && theirs == frame->operand[1];
	if (!fits || pair->out.transfer || !fetch(pair, channel, carrier, position, (uint32_t)frame->operand[0], &far))
		tell(pair, channel, (uint32_t)position, (uint32_t)frame->operand[0], 0);
}

/* ---- looking at them --------------------------------------------------------------------------------------------------------- */

void ffv_transfer_poll(struct ffv_router *router, struct ffv_link_channel *channel)
{
	const struct ffv_one_sided *calls = channel->io.link ? channel->io.transport->one_sided : NULL;
	bool some = false;

	for (struct ffv_transfer **at = &channel->transfers; *at;) {
		struct ffv_transfer *transfer = *at;
		int moved = calls ? calls->has_moved(channel->io.link, transfer->carrier, transfer->ticket) : -1;
		if (!moved) {
			at = &transfer->next;
			continue;
		}
		*at = transfer->next;
		finish(channel, transfer, moved > 0);
		some = true;
	}
	if (some)
		unpark_all(channel);
	router->ticks |= channel->transfers || channel->grants;
}

void ffv_transfer_leave(struct ffv_proxy *proxy)
{
	struct ffv_link_channel *channel =
		proxy->channel == FFV_NO_CHANNEL ? NULL : proxy->router->channels[proxy->channel % FFV_MAX_CHANNELS];

	if (!channel || channel->number != proxy->channel || proxy->state != FFV_PROXY_OPEN)
		return;
	for (struct ffv_transfer *transfer = channel->transfers; transfer; transfer = transfer->next)
		if (transfer->proxy == proxy)
			ffv_hold_end(&transfer->hold); /* it stands in the proxy's own memory */
	if (channel->io.link && channel->io.transport->one_sided)
		channel->io.transport->one_sided->forget(channel->io.link, proxy->ctx, 0);
}

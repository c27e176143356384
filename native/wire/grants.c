/* SPDX-License-Identifier: MIT
 *
 * Grants: where in our containers' memory the router of another host may have its real device write the next bytes of a large
 * message (docs/decisions/0036). The executor has found and checked the place; a hold keeps it from being deregistered until
 * the bytes are there, or the device is kept from writing them. Runs on the loop's thread, but for the hooks.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/fault.h"
#include "verbs/hold.h"
#include "wire/router.h"

#define GRANT_BYTES (2u << 20)     /* at once: others' messages stand behind it in the real queue pair */
#define GRANT_NS 4000000000ull     /* then it is taken back: who deregisters waits for a second longer */

struct ffv_grant {
	struct ffv_grant *next;       /* of the channel's */
	struct ffv_link_channel *channel;
	struct ffv_hold hold;
	struct ffv_peer *peer;
	uint64_t carrier, since_ns, position;
	uint32_t from, length, offset; /* of the work request's bytes; offset of its first one in the message */
	uint32_t placed_from, placed_length; /* [lock] said to be there, and not delivered yet */
	bool is_back;                 /* the memory is held no longer, and the device kept from it, or done */
	bool was_placed;              /* a grant is used once */
	bool strange;                 /* [lock] what was said to be there is not where the executor wants it */
	int count;
	struct ffv_place places[FFV_MOST_PIECES];
	uint32_t windows[FFV_MOST_PIECES];
};

/* What the loop's thread asks the executor for. */
struct asking {
	const struct ffv_proxy *proxy;
	const struct ffv_view *view;
	uint32_t qpn, from;
	bool answered;
	int count;
	struct ffv_place places[FFV_MOST_PIECES];
};

static _Thread_local struct asking *asking;

static void lock(struct ffv_pair *pair)
{
	pthread_mutex_lock(&pair->proxy->router->lock);
}

static void unlock(struct ffv_pair *pair)
{
	pthread_mutex_unlock(&pair->proxy->router->lock);
}

/* ---- the end ----------------------------------------------------------------------------------------------------------------- */

/* fence: the other router may still be about to write. */
static void let_go(struct ffv_grant *grant, bool fence)
{
	struct ffv_channel *io = &grant->channel->io;

	for (int i = 0; i < grant->count && io->link && io->transport->one_sided && !grant->is_back; i++)
		io->transport->one_sided->release(io->link, grant->carrier, grant->windows[i], fence);
	ffv_hold_end(&grant->hold);
	grant->is_back = true;
}

static void destroy(struct ffv_grant *grant, bool fence)
{
	let_go(grant, fence);
	if (grant->peer)
		ffv_peer_put(grant->peer);
	free(grant);
}

/* The device has done what it was to do, or all of the bytes came by another way. */
static bool is_used_up(const struct ffv_pair *pair, const struct ffv_grant *grant)
{
	return grant->was_placed || pair->in.arrived >= grant->from + grant->length;
}

void ffv_grant_end(struct ffv_pair *pair)
{
	struct ffv_grant *grant = pair->in.grant;

	if (!grant)
		return;
	for (struct ffv_grant **at = &grant->channel->grants; *at; at = &(*at)->next) {
		if (*at == grant) {
			*at = grant->next;
			break;
		}
	}
	lock(pair);
	pair->in.grant = NULL;
	unlock(pair);
	FFV_FAULT(wire_grant_over);
	destroy(grant, !is_used_up(pair, grant));
}

void ffv_grant_tick(struct ffv_router *router, struct ffv_link_channel *channel)
{
	for (struct ffv_grant *grant = channel->grants; grant; grant = grant->next)
		if (!grant->is_back && ffv_elapsed_ns(router->now_ns, grant->since_ns) > GRANT_NS)
			let_go(grant, true); /* who had it finds out, and sends the bytes by another way */
}

/* ---- the beginning ------------------------------------------------------------------------------------------------------------ */

void ffv_grant_offer(const struct ffv_proxy *proxy, uint32_t qpn, uint32_t from, const struct ffv_rest *rest)
{
	struct asking *now = asking;

	if (!now || now->proxy != proxy || now->qpn != qpn || now->from != from)
		return;
	now->answered = true;
	now->count = rest && rest->list->view == now->view ? ffv_rest_places(rest, now->places, FFV_MOST_PIECES) : 0;
}

/* Has the executor find, under the hold, where the next bytes go. */
static void ask(struct ffv_pair *pair, struct asking *what)
{
	asking = what;
	ffv_pair_run(pair);
	asking = NULL;
	lock(pair);
	if (what->answered)
		pair->in.wants_more = false; /* this is the answer */
	unlock(pair);
}

/* Registers what was found, as far as that goes. */
static void register_places(struct ffv_grant *grant, const struct asking *found, struct ffv_granting *what)
{
	struct ffv_channel *io = &grant->channel->io;
	uint32_t most = what->most < GRANT_BYTES ? what->most : GRANT_BYTES;

	for (int i = 0; i < found->count && grant->length < most; i++) {
		struct ffv_place *place = &grant->places[i];
		struct ffv_real_window window;
		*place = found->places[i];
		if (place->length > most - grant->length)
			place->length = most - grant->length;
		if (!place->here || io->transport->one_sided->window(io->link, grant->peer, place, true, &window))
			return;
		what->pieces[i] = (struct ffv_frame_piece){ window.piece.address, window.piece.key, window.piece.length };
		grant->windows[i] = window.number;
		grant->length += window.piece.length;
		grant->count = i + 1;
	}
}

static struct ffv_grant *begin(struct ffv_pair *pair, struct ffv_link_channel *channel, uint64_t carrier, uint32_t from)
{
	struct ffv_grant *grant = calloc(1, sizeof *grant);

	if (!grant)
		return NULL;
	grant->channel = channel;
	grant->carrier = carrier;
	grant->since_ns = ffv_clock_ns();
	grant->from = from;
	grant->peer = ffv_peer_get(pair->proxy->ctx, pair->gid, pair->qpn);
	if (grant->peer && !ffv_hold_begin(pair->proxy->ctx, grant->peer->view.context_id, pair->qpn, false, &grant->hold))
		return grant;
	destroy(grant, false);
	return NULL;
}

static void keep(struct ffv_pair *pair, struct ffv_grant *grant)
{
	grant->next = grant->channel->grants;
	grant->channel->grants = grant;
	lock(pair);
	pair->in.grant = grant;
	unlock(pair);
}

bool ffv_grant_is_possible(const struct ffv_link_channel *channel)
{
	const struct ffv_one_sided *calls = channel->io.link ? channel->io.transport->one_sided : NULL;
	uint64_t near, far;

	return calls && calls->carrier(channel->io.link, &near, &far);
}

bool ffv_grant_is_out(const struct ffv_pair *pair, uint64_t position)
{
	return pair->in.grant && pair->in.grant->position == position;
}

bool ffv_grant_make(struct ffv_pair *pair, struct ffv_link_channel *channel, struct ffv_granting *what)
{
	const struct ffv_one_sided *calls = channel->io.link ? channel->io.transport->one_sided : NULL;
	uint64_t near, far, carrier = calls ? calls->carrier(channel->io.link, &near, &far) : 0;

	if (!carrier)
		return true;
	ffv_grant_end(pair);
	struct ffv_grant *grant = begin(pair, channel, carrier, what->from);
	if (!grant)
		return true;
	struct asking found = { .proxy = pair->proxy, .view = &grant->peer->view, .qpn = pair->far_qpn, .from = what->from };
	ask(pair, &found);
	if (found.answered)
		register_places(grant, &found, what);
	if (!grant->count) {
		what->gap = found.count && !found.places[0].here ? (uint32_t)found.places[0].length : 0;
		destroy(grant, false);
		return found.answered;
	}
	grant->offset = what->offset;
	grant->position = what->position;
	keep(pair, grant);
	FFV_FAULT(wire_grant_made);
	what->count = (uint32_t)grant->count;
	what->length = grant->length;
	what->carrier = near;
	return true;
}

/* ---- bytes that are there ------------------------------------------------------------------------------------------------------- */

/* Whether byte `at` of the grant is at `here`; *same: from there on, as far as that piece goes. */
static bool is_at(const struct ffv_grant *grant, uint32_t at, const uint8_t *here, uint64_t *same)
{
	for (int i = 0; i < grant->count; i++) {
		const struct ffv_place *place = &grant->places[i];
		if (at >= place->length) {
			at -= (uint32_t)place->length;
			continue;
		}
		*same = place->length - at;
		return place->here + at == here;
	}
	return false;
}

/* How much of what is said to be there the executor wants just there. */
static uint32_t match(const struct ffv_grant *grant, const struct iovec *to, int count)
{
	uint32_t done = 0, at = grant->placed_from - grant->from;

	for (int i = 0; i < count; i++) {
		uint64_t offset = 0, same;
		while (offset < to[i].iov_len && done < grant->placed_length) {
			if (!is_at(grant, at + done, (const uint8_t *)to[i].iov_base + offset, &same))
				return 0;
			same = same < to[i].iov_len - offset ? same : to[i].iov_len - offset;
			same = same < grant->placed_length - done ? same : grant->placed_length - done;
			offset += same;
			done += (uint32_t)same;
		}
	}
	return done;
}

/* Its memory was held all the time, or is at least the same since: the executor has just found its key. */
static bool is_same(const struct ffv_grant *grant)
{
	for (int i = 0; i < grant->count; i++)
		if (!ffv_place_is_same(&grant->peer->view, &grant->places[i]))
			return false;
	return true;
}

uint32_t ffv_grant_fetch_locked(struct ffv_pair *pair, uint32_t from, const struct iovec *to, int count)
{
	struct ffv_grant *grant = pair->in.grant;

	if (!grant || !grant->placed_length || from != grant->placed_from || grant->strange)
		return 0;
	uint32_t n = is_same(grant) ? match(grant, to, count) : 0;
	grant->strange = !n;
	grant->placed_from += n;
	grant->placed_length -= n;
	return n;
}

/* Whether what the other router says of its device can be. */
static bool is_expected(const struct ffv_incoming *in, const struct ffv_grant *grant, const struct ffv_frame *frame)
{
	const struct ffv_entry *entry = in->first == in->end ? NULL : &in->window->entries[in->first % FFV_WINDOW];

	if (!grant || !entry || frame->position != entry->frame.position || grant->was_placed)
		return false;
	if (entry->by_device)
		return frame->address == grant->offset && (frame->length_bytes == grant->length || !frame->length_bytes);
	return frame->address == in->arrived && frame->length_bytes && frame->address >= grant->from &&
	       frame->length_bytes <= grant->from + grant->length - frame->address;
}

bool ffv_grant_placed(struct ffv_link_channel *channel, const struct ffv_frame *frame)
{
	struct ffv_pair *pair = ffv_incoming_pair(channel, frame);
	struct ffv_router *router = pair ? pair->proxy->router : NULL;
	struct ffv_grant *grant = pair ? pair->in.grant : NULL;

	if (!pair || ffv_incoming_is_late(&pair->in, frame))
		return true;
	if (!is_expected(&pair->in, grant, frame))
		return false;
	bool reads = ffv_incoming_entry(&pair->in, pair->in.first)->by_device;
	grant->was_placed = true;
	if (!frame->length_bytes) {
		ffv_grant_end(pair);
		ffv_read_refused(pair);
		return true;
	}
	lock(pair);
	grant->placed_from = reads ? 0 : pair->in.arrived;
	grant->placed_length = frame->length_bytes;
	pair->in.arrived += reads ? 0 : frame->length_bytes;
	unlock(pair);
	ffv_fetch_add(reads ? &router->bytes_one_sided_sent : &router->bytes_one_sided_received, frame->length_bytes);
	FFV_FAULT(wire_grant_placed);
	ffv_pair_run(pair);
	lock(pair);
	bool strange = pair->in.grant && pair->in.grant->strange;
	unlock(pair);
	if (strange) /* the container gave the memory back under a work request of its own */
		ffv_incoming_close(pair, FFV_WC_RETRY_EXC_ERR);
	return true;
}

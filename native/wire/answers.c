/* SPDX-License-Identifier: MIT
 *
 * What goes back to the requester: in the order in which it was done. Runs on the loop's thread.
 */
#include <stdlib.h>
#include <string.h>

#include "wire/router.h"

#define REPORT_NS 50000000ull     /* between two reports of one that waits on */

void ffv_answer_queue(struct ffv_pair *pair, const struct ffv_frame *frame, uint8_t *bytes, uint32_t length)
{
	struct ffv_result *result = calloc(1, sizeof *result);

	if (!result) {
		free(bytes);
		return; /* the requester's patience ends it */
	}
	result->frame = *frame;
	result->bytes = bytes;
	result->length = length;
	pair->result_bytes += length;
	*pair->last_result = result;
	pair->last_result = &result->next;
	ffv_pair_take_turn(pair);
}

struct ffv_frame ffv_answer_to(const struct ffv_pair *pair, const struct ffv_frame *request, uint8_t kind, uint8_t status)
{
	return (struct ffv_frame){ .kind = kind, .status = status, .pair = pair->in.number, .incarnation = request->incarnation,
				   .position = request->position, .opcode = request->opcode };
}

void ffv_answer_now(struct ffv_link_channel *channel, const struct ffv_frame *frame)
{
	struct ffv_frame *to = ffv_channel_frame(&channel->io, frame->kind, 0);

	if (!to)
		return;
	ffv_frame_copy_header(to, frame);
}

/* Behind what is still to be sent of earlier answers. */
void ffv_answer(struct ffv_pair *pair, const struct ffv_frame *frame)
{
	struct ffv_link_channel *channel = ffv_router_channel(pair->proxy->router, pair->proxy->channel);

	if (pair->results)
		ffv_answer_queue(pair, frame, NULL, 0);
	else if (channel)
		ffv_answer_now(channel, frame);
}

static bool send_result(struct ffv_result *result, struct ffv_link_channel *channel, _Atomic uint64_t *bytes_streamed)
{
	uint32_t n = result->length - result->sent;

	n = n < ffv_turn_bytes(channel) ? n : ffv_turn_bytes(channel);
	struct ffv_frame *to = ffv_channel_frame(&channel->io, result->frame.kind, n);
	if (!to)
		return false;
	ffv_frame_copy_header(to, &result->frame);
	to->address += result->sent;
	if (n)
		memcpy(ffv_frame_payload(to), result->bytes + result->sent, n);
	result->sent += n;
	if (result->frame.length_bytes > FFV_EAGER_BYTES) /* of a READ */
		ffv_fetch_add(bytes_streamed, n);
	return true;
}

bool ffv_incoming_send(struct ffv_pair *pair, struct ffv_link_channel *channel)
{
	uint32_t budget = ffv_turn_bytes(channel);

	while (pair->results && budget) {
		struct ffv_result *result = pair->results;
		uint32_t before = result->sent;
		if (!ffv_channel_room(&channel->io) || !send_result(result, channel, &pair->proxy->router->bytes_streamed))
			return true;
		budget -= result->sent - before < budget ? result->sent - before : budget;
		if (result->sent < result->length)
			continue;
		pair->results = result->next;
		if (!pair->results)
			pair->last_result = &pair->results;
		pair->result_bytes -= result->length;
		free(result->bytes);
		free(result);
	}
	ffv_incoming_go_on(pair); /* a READ may have waited for room */
	ffv_incoming_credit(pair);
	return pair->results != NULL;
}

void ffv_incoming_report_later(struct ffv_pair *pair)
{
	if (pair->proxy->router->now_ns - pair->in.reported_ns >= REPORT_NS)
		ffv_incoming_report(pair);
}

void ffv_incoming_report(struct ffv_pair *pair)
{
	struct ffv_link_channel *channel = ffv_router_channel(pair->proxy->router, pair->proxy->channel);
	struct ffv_incoming *in = &pair->in;

	if (!in->open || in->first == in->end || pair->jobs || !pair->qp || !channel)
		return;
	uint64_t rnr_waits = ffv_load_relaxed(&pair->qp->ref.shm->rnr_waits);
	uint64_t retries = ffv_load_relaxed(&pair->qp->ref.shm->retries);
	if (rnr_waits == in->rnr_waits && retries == in->retries)
		return;
	struct ffv_frame frame = ffv_answer_to(pair, &in->window->entries[in->first % FFV_WINDOW].frame, FFV_FRAME_WAITS, 0);
	frame.operand[0] = rnr_waits - in->rnr_waits;
	frame.operand[1] = retries - in->retries;
	in->reported_ns = pair->proxy->router->now_ns;
	in->rnr_waits = rnr_waits;
	in->retries = retries;
	ffv_answer_now(channel, &frame);
}

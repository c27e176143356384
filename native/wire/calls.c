/* SPDX-License-Identifier: MIT
 *
 * Conversations of the connection manager between hosts: a container's connection to router.sock on one side, one to the
 * listener's socket in the node directory on the other, and packets passed on in between, unread. A hang-up at either end
 * is passed on as well. Runs on the loop's thread, but for ffv_router_call. A conversation has few packets, so their number
 * bounds what one may cost; who sends more, or does not read, is hung up on.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fault.h"
#include "cm/wire.h"
#include "verbs/ask.h"
#include "wire/router.h"
#include "wire/speakers.h"

#define MOST_PACKETS 32u          /* of one end of a conversation */

_Static_assert(FFV_ASK_MORE_BYTES == FFV_CALL_BYTES, "what a container may say is what a frame may carry");

struct ffv_call {
	struct ffv_call *next;
	struct ffv_call **home;       /* its place in a table of calls, by number */
	uint32_t channel;
	uint32_t number;              /* of the router that began it */
	uint32_t incarnation;
	bool ours;                    /* begun by a container of this host */
	bool answered;                /* the listener has spoken, or hung up */
	int socket;
	uint32_t packets;             /* from our end */
	uint32_t length;              /* of the first packet, until it is sent */
	struct ffv_frame_service service;
	uint8_t first[FFV_ASK_MORE_BYTES];
};

/* ---- ends -------------------------------------------------------------------------------------------------------------- */

/* What was not read makes a hang-up look like an error to the other end: it would not see our last words. */
static void close_socket(struct ffv_call *call)
{
	uint8_t sink[FFV_ASK_MORE_BYTES];

	while (recv(call->socket, sink, sizeof sink, MSG_DONTWAIT) > 0)
		;
	close(call->socket);
}

/* It is freed when no event of this round can name it any more. */
static void end_call(struct ffv_router *router, struct ffv_call *call)
{
	for (struct ffv_call **at = &router->calls; *at; at = &(*at)->next) {
		if (*at == call) {
			*at = call->next;
			break;
		}
	}
	if (call->home)
		*call->home = NULL;
	close_socket(call);
	call->socket = -1;
	call->next = router->ended_calls;
	router->ended_calls = call;
}

void ffv_calls_free_ended(struct ffv_router *router)
{
	while (router->ended_calls) {
		struct ffv_call *call = router->ended_calls;
		router->ended_calls = call->next;
		free(call);
	}
}

/* A container is told why nobody speaks to it, if nobody has yet. */
static void tell(const struct ffv_call *call, uint32_t error)
{
	struct ffv_ask answer = { .magic = FFV_ASK_MAGIC, .version = FFV_ASK_VERSION, .kind = FFV_ASK_ANSWER, .error = error };

	if (call->ours && !call->answered && error)
		send(call->socket, &answer, sizeof answer, MSG_DONTWAIT | MSG_NOSIGNAL); /* else the hang-up tells it */
}

static void send_frame(struct ffv_link_channel *channel, uint8_t kind, uint32_t number, uint32_t incarnation,
		       uint8_t status)
{
	struct ffv_frame *frame = ffv_channel_frame(&channel->io, kind, 0);

	if (!frame)
		return;
	frame->pair = number;
	frame->incarnation = incarnation;
	frame->status = status;
}

/* Our end is over; the other one is told. */
static void hang_up(struct ffv_router *router, struct ffv_call *call)
{
	struct ffv_link_channel *channel = ffv_router_channel(router, call->channel);

	if (channel)
		send_frame(channel, call->ours ? FFV_FRAME_HANG_UP : FFV_FRAME_HUNG_UP, call->number, call->incarnation, 0);
	FFV_FAULT(wire_call_over);
	end_call(router, call);
}

void ffv_calls_end(struct ffv_router *router, const struct ffv_link_channel *channel)
{
	for (struct ffv_call *call = router->calls, *next; call; call = next) {
		next = call->next;
		if (channel && call->channel != channel->number)
			continue;
		tell(call, EHOSTUNREACH);
		end_call(router, call);
	}
}

/* ---- our end speaks ---------------------------------------------------------------------------------------------------- */

static bool pass_on(struct ffv_router *router, struct ffv_call *call, const uint8_t *packet, size_t length)
{
	struct ffv_link_channel *channel = ffv_router_channel(router, call->channel);
	struct ffv_frame *frame = channel && call->packets++ < MOST_PACKETS && length <= FFV_ASK_MORE_BYTES
				  ? ffv_channel_frame(&channel->io, call->ours ? FFV_FRAME_TELL : FFV_FRAME_TOLD, (uint32_t)length)
				  : NULL;

	if (!frame)
		return false;
	frame->pair = call->number;
	frame->incarnation = call->incarnation;
	memcpy(ffv_frame_payload(frame), packet, length);
	return true;
}

void ffv_call_read(struct ffv_router *router, struct ffv_call *call)
{
	uint8_t packet[FFV_ASK_MORE_BYTES];
	bool reset = false;

	while (call->socket >= 0) {
		ssize_t n = recv(call->socket, packet, sizeof packet, MSG_DONTWAIT | MSG_TRUNC);
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		if (n < 0 && (errno == EINTR || (errno == ECONNRESET && !reset))) {
			reset = errno == ECONNRESET; /* last words may still be there */
			continue;
		}
		if (n > 0)
			FFV_FAULT(wire_call_passed);
		if (n <= 0 || !pass_on(router, call, packet, (size_t)n))
			hang_up(router, call);
	}
}

/* ---- beginning --------------------------------------------------------------------------------------------------------- */

static bool grow(struct ffv_call_table *table, uint32_t number)
{
	uint32_t count = table->count ? table->count : 64;

	while (count <= number)
		count *= 2;
	if (count == table->count)
		return true;
	struct ffv_call **grown = realloc((void *)table->call, count * sizeof *grown);
	if (!grown)
		return false;
	memset((void *)(grown + table->count), 0, (count - table->count) * sizeof *grown);
	for (uint32_t i = 0; i < table->count; i++)
		if (grown[i])
			grown[i]->home = &grown[i];
	table->call = grown;
	table->count = count;
	return true;
}

static int settle(struct ffv_router *router, struct ffv_call_table *table, struct ffv_call *call)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = (uintptr_t)call | FFV_TAG_CALL };

	if (!grow(table, call->number))
		return ENOMEM;
	if (epoll_ctl(router->epoll_fd, EPOLL_CTL_ADD, call->socket, &event))
		return errno;
	call->home = &table->call[call->number];
	*call->home = call;
	call->next = router->calls;
	router->calls = call;
	return 0;
}

static uint32_t free_number(const struct ffv_call_table *table)
{
	uint32_t number = 0;

	while (number < table->count && table->call[number])
		number++;
	return number;
}

/* A call of a container of ours. */
static int begin(struct ffv_router *router, struct ffv_call *call)
{
	struct ffv_link_channel *channel = ffv_router_channel(router, call->channel);

	if (!channel)
		return EHOSTUNREACH;
	call->number = free_number(&router->our_calls);
	call->incarnation = router->call_incarnation++;
	if (call->number >= FFV_MAX_CALLS)
		return EAGAIN;
	struct ffv_frame *frame = ffv_channel_frame(&channel->io, FFV_FRAME_CALL, (uint32_t)sizeof call->service + call->length);
	if (!frame)
		return ENOMEM;
	uint8_t *payload = ffv_frame_payload(frame);
	frame->pair = call->number;
	frame->incarnation = call->incarnation;
	memcpy(payload, &call->service, sizeof call->service);
	memcpy(payload + sizeof call->service, call->first, call->length);
	FFV_FAULT(wire_call_begun);
	int error = settle(router, &router->our_calls, call);
	if (error)
		ffv_channel_abort(&channel->io, frame);
	return error;
}

void ffv_calls_begin(struct ffv_router *router)
{
	pthread_mutex_lock(&router->lock);
	struct ffv_call *call = router->new_calls;
	router->new_calls = NULL;
	router->last_new_call = &router->new_calls;
	pthread_mutex_unlock(&router->lock);
	while (call) {
		struct ffv_call *next = call->next;
		int error = begin(router, call);
		if (error) {
			tell(call, (uint32_t)error);
			close_socket(call);
			free(call);
		}
		call = next;
	}
}

int ffv_router_call(struct ffv_router *router, int socket, uint32_t channel, const struct ffv_router_service *service,
		    const void *message, size_t bytes)
{
	struct ffv_call *call = bytes && bytes <= FFV_ASK_MORE_BYTES ? calloc(1, sizeof *call) : NULL;
	int flags = fcntl(socket, F_GETFL);

	if (!call)
		return ffv_fail(bytes && bytes <= FFV_ASK_MORE_BYTES ? ENOMEM : EINVAL, "a call begins with 1 to %u bytes",
				FFV_ASK_MORE_BYTES);
	if (flags < 0 || fcntl(socket, F_SETFL, flags | O_NONBLOCK)) {
		free(call);
		return ffv_fail_errno(errno, "the descriptor of a call cannot be used");
	}
	*call = (struct ffv_call){ .channel = channel, .ours = true, .socket = socket, .length = (uint32_t)bytes };
	memcpy(call->service.address, service->address, 16);
	call->service.port_space = service->port_space;
	call->service.port = service->port;
	memcpy(call->first, message, bytes);
	pthread_mutex_lock(&router->lock);
	*router->last_new_call = call;
	router->last_new_call = &call->next;
	ffv_router_wake_locked(router);
	pthread_mutex_unlock(&router->lock);
	return 0;
}

/* ---- the other host speaks --------------------------------------------------------------------------------------------- */

/* To our end, whose reader is a process that may be stopped: what it has no room for ends the conversation. */
static bool speak(const struct ffv_call *call, const uint8_t *packet, uint32_t length)
{
	return send(call->socket, packet, length, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)length;
}

static int answer_call(struct ffv_router *router, struct ffv_link_channel *channel, const struct ffv_frame *frame,
		       const uint8_t *payload)
{
	struct ffv_call *call = calloc(1, sizeof *call);
	uint32_t length = frame->payload_bytes - (uint32_t)sizeof(struct ffv_frame_service);
	char name[FFV_NODEDIR_NAME_BYTES];
	struct ffv_frame_service service;
	uint8_t first[FFV_ASK_MORE_BYTES];

	if (!call)
		return ENOMEM;
	memcpy(&service, payload, sizeof service);
	memcpy(first, payload + sizeof service, length);
	if (ffv_load_relaxed(&router->checks_owners))
		ffv_cm_correct_source(first, length);
	ffv_nodedir_write_service(name, 'g', service.address, service.port_space, service.port);
	*call = (struct ffv_call){ .channel = channel->number, .number = frame->pair, .incarnation = frame->incarnation };
	int error = -ffv_nodedir_connect_name(router->nodedir, name, &call->socket);
	if (error) {
		free(call);
		return error;
	}
	FFV_FAULT(wire_call_answered);
	error = speak(call, first, length) ? 0 : EAGAIN;
	if (!error)
		error = settle(router, &channel->their_calls, call);
	if (error) {
		close_socket(call);
		free(call);
	}
	return error;
}

static void on_call(struct ffv_router *router, struct ffv_link_channel *channel, const struct ffv_frame *frame,
		    const uint8_t *payload)
{
	int error;

	if (frame->pair < channel->their_calls.count && channel->their_calls.call[frame->pair])
		hang_up(router, channel->their_calls.call[frame->pair]); /* the number is used again: that one has ended */
	error = frame->pair < FFV_MAX_CALLS ? answer_call(router, channel, frame, payload) : EAGAIN;
	if (error)
		send_frame(channel, FFV_FRAME_HUNG_UP, frame->pair, frame->incarnation, (uint8_t)(error < 256 ? error : EIO));
}

/* The conversation that is under way; NULL: it has ended here, or not begun. */
static struct ffv_call *find(const struct ffv_router *router, const struct ffv_link_channel *channel,
			     const struct ffv_frame *frame)
{
	bool theirs = frame->kind == FFV_FRAME_TELL || frame->kind == FFV_FRAME_HANG_UP;
	const struct ffv_call_table *table = theirs ? &channel->their_calls : &router->our_calls;
	struct ffv_call *call = frame->pair < table->count ? table->call[frame->pair] : NULL;

	return call && call->channel == channel->number && call->incarnation == frame->incarnation ? call : NULL;
}

bool ffv_call_is_to(const struct ffv_router *router, const struct ffv_link_channel *channel, const struct ffv_frame *frame,
		    const uint8_t gid[16])
{
	const struct ffv_call *call = frame->kind == FFV_FRAME_TOLD ? find(router, channel, frame) : NULL;

	return call && !memcmp(call->service.address, gid, 16);
}

void ffv_call_refuse(struct ffv_router *router, struct ffv_link_channel *channel, const struct ffv_frame *frame, int error)
{
	struct ffv_call *call = frame->kind == FFV_FRAME_CALL ? NULL : find(router, channel, frame);

	if (frame->kind == FFV_FRAME_CALL)
		send_frame(channel, FFV_FRAME_HUNG_UP, frame->pair, frame->incarnation, (uint8_t)error);
	if (!call)
		return;
	tell(call, (uint32_t)error);
	hang_up(router, call);
}

void ffv_call_frame(struct ffv_router *router, struct ffv_link_channel *channel, const struct ffv_frame *frame,
		    const uint8_t *payload)
{
	if (!ffv_speaker_may(router, channel, frame, payload))
		return;
	if (frame->kind == FFV_FRAME_CALL) {
		on_call(router, channel, frame, payload);
		return;
	}
	struct ffv_call *call = find(router, channel, frame);
	if (!call)
		return; /* it has ended here */
	if (frame->kind == FFV_FRAME_HANG_UP || frame->kind == FFV_FRAME_HUNG_UP) {
		tell(call, frame->status);
		end_call(router, call);
		return;
	}
	call->answered = true;
	if (!speak(call, payload, frame->payload_bytes))
		hang_up(router, call);
}

/* SPDX-License-Identifier: MIT
 *
 * Event channels: queues of events behind a descriptor that is readable while one waits. What an event has the process
 * do to a queue pair is done in the thread that reads it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "cm/cm.h"

static pthread_cond_t acknowledged = PTHREAD_COND_INITIALIZER; /* with ffv_cm_lock */

static struct ffv_cm_channel_private *channel_private(struct ffv_cm_channel *channel)
{
	return (struct ffv_cm_channel_private *)channel;
}

static int check_channel(struct ffv_cm_channel *channel)
{
	if (!channel)
		return ffv_fail(EINVAL, "no event channel was given");
	return ffv_cm_check_generation(channel_private(channel)->generation);
}

/* ---- life ---------------------------------------------------------------------------------------------------------------- */

int ffv_cm_create_channel(struct ffv_cm_channel **out)
{
	uint32_t generation = ffv_cm_generation();
	struct ffv_cm_channel_private *channel = calloc(1, sizeof *channel);

	if (!channel)
		return ffv_fail(ENOMEM, "no memory for an event channel");
	channel->generation = generation;
	channel->channel.fd = eventfd(0, EFD_CLOEXEC);
	if (channel->channel.fd < 0) {
		int rc = ffv_fail_errno(errno, "no descriptor for an event channel");
		free(channel);
		return rc;
	}
	*out = &channel->channel;
	return 0;
}

int ffv_cm_destroy_channel(struct ffv_cm_channel *channel)
{
	struct ffv_cm_channel_private *own = channel_private(channel);

	if (!channel)
		return ffv_fail(EINVAL, "no event channel was given");
	if (ffv_cm_check_generation(own->generation) == 0) {
		pthread_mutex_lock(&ffv_cm_lock);
		uint32_t users = own->ids;
		pthread_mutex_unlock(&ffv_cm_lock);
		if (users)
			return ffv_fail(EBUSY, "the event channel is used by %u ids: destroy or migrate them first", users);
	}
	close(channel->fd);
	free(own);
	return 0;
}

/* ---- queues (lock held) --------------------------------------------------------------------------------------------------- */

static void append(struct ffv_cm_channel_private *channel, struct ffv_cm_event_private *event)
{
	const uint64_t one = 1;

	event->next = NULL;
	if (channel->last) {
		channel->last->next = event;
	} else {
		channel->first = event;
		while (write(channel->channel.fd, &one, sizeof one) < 0 && errno == EINTR)
			;
	}
	channel->last = event;
}

static void became_empty(struct ffv_cm_channel_private *channel)
{
	uint64_t count;

	channel->last = NULL;
	/* Readable, as it has been since the first event came: does not block. */
	while (read(channel->channel.fd, &count, sizeof count) < 0 && errno == EINTR)
		;
}

static struct ffv_cm_event_private *take_first(struct ffv_cm_channel_private *channel)
{
	struct ffv_cm_event_private *event = channel->first;

	channel->first = event->next;
	if (!channel->first)
		became_empty(channel);
	return event;
}

/* Takes the events that `id` counts out (only those of a join, if `multicast` is given), in order. */
static struct ffv_cm_event_private *take_of(struct ffv_cm_channel_private *channel, const struct ffv_cm_id_private *id,
					    const struct ffv_cm_multicast *multicast)
{
	struct ffv_cm_event_private *taken = NULL, **end = &taken, **at = &channel->first;
	bool had = channel->first != NULL;

	channel->last = NULL;
	while (*at) {
		struct ffv_cm_event_private *event = *at;
		if (event->counted != id || (multicast && event->multicast != multicast)) {
			channel->last = event;
			at = &event->next;
			continue;
		}
		*at = event->next;
		event->next = NULL;
		*end = event;
		end = &event->next;
	}
	if (had && !channel->first)
		became_empty(channel);
	return taken;
}

struct ffv_cm_event_private *ffv_cm_new_event(struct ffv_cm_id_private *id, uint32_t type, int status)
{
	struct ffv_cm_event_private *event = calloc(1, sizeof *event);

	if (!event)
		return NULL;
	event->counted = id;
	event->event = (struct ffv_cm_event){ .id = &id->id, .event = type, .status = status };
	return event;
}

void ffv_cm_post_event(struct ffv_cm_event_private *event)
{
	append(channel_private(event->counted->id.channel), event);
}

void ffv_cm_raise(struct ffv_cm_id_private *id, uint32_t type, int status)
{
	struct ffv_cm_event_private *event = ffv_cm_new_event(id, type, status);

	if (event)
		ffv_cm_post_event(event);
}

void ffv_cm_drop_events(struct ffv_cm_id_private *id, struct ffv_cm_id_private **orphans)
{
	struct ffv_cm_event_private *event = take_of(channel_private(id->id.channel), id, NULL);

	while (event) {
		struct ffv_cm_event_private *next = event->next;
		if (event->event.event == FFV_CM_EVENT_CONNECT_REQUEST) {
			struct ffv_cm_id_private *child = ffv_cm_private(event->event.id);
			ffv_cm_unlist_id(child);
			child->next = *orphans;
			*orphans = child;
		}
		free(event);
		event = next;
	}
}

void ffv_cm_drop_join(struct ffv_cm_id_private *id, struct ffv_cm_multicast *multicast)
{
	free(take_of(channel_private(id->id.channel), id, multicast)); /* there is one at most */
	while (multicast->busy)
		pthread_cond_wait(&acknowledged, &ffv_cm_lock);
}

/* ---- reading -------------------------------------------------------------------------------------------------------------- */

/* The queue pair stays while an event changes its state, whoever destroys it meanwhile: ffv_cm_take_qp waits. */
static bool begin_following(const struct ffv_cm_event *event)
{
	if (event->event != FFV_CM_EVENT_CONNECT_RESPONSE && event->event != FFV_CM_EVENT_REJECTED)
		return false;
	struct ffv_cm_id_private *id = ffv_cm_private(event->id);
	if (!id->id.qp)
		return false;
	id->qp_follows++;
	return true;
}

static void end_following(struct ffv_cm_id_private *id)
{
	pthread_mutex_lock(&ffv_cm_lock);
	id->qp_follows--;
	pthread_cond_broadcast(&acknowledged);
	pthread_mutex_unlock(&ffv_cm_lock);
}

void ffv_cm_give_qp(struct ffv_cm_id_private *id, struct ffv_qp *qp, uint32_t type)
{
	pthread_mutex_lock(&ffv_cm_lock);
	id->id.qp_type = type;
	id->id.qp = qp;
	pthread_mutex_unlock(&ffv_cm_lock);
}

struct ffv_qp *ffv_cm_take_qp(struct ffv_cm_id_private *id)
{
	pthread_mutex_lock(&ffv_cm_lock);
	while (id->qp_follows)
		pthread_cond_wait(&acknowledged, &ffv_cm_lock);
	struct ffv_qp *qp = id->id.qp;
	id->id.qp = NULL;
	pthread_mutex_unlock(&ffv_cm_lock);
	return qp;
}

/* The active side's queue pair follows the peer's answer, and the peer is told. What fails is told to both. */
static void finish_connecting(struct ffv_cm_event_private *event)
{
	struct ffv_cm_id_private *id = ffv_cm_private(event->event.id);
	struct ffv_cm_message message;
	int rc = ffv_cm_connect_qp(id);

	pthread_mutex_lock(&ffv_cm_lock);
	if (id->state == FFV_CM_REP_RCVD && id->socket) {
		ffv_cm_begin_message(id, &message, rc ? FFV_CM_REJ : FFV_CM_RTU);
		message.reason = FFV_CM_REJ_CONSUMER_DEFINED;
		FFV_FAULT(cm_rtu_unsent);
		int sent = ffv_cm_send(id->socket->fd, &message);
		FFV_FAULT(cm_rtu_sent);
		rc = rc ? rc : sent;
		id->state = rc ? FFV_CM_ENDED : FFV_CM_ESTABLISHED;
		if (rc) {
			ffv_cm_remove_socket(id->socket, true);
			id->socket = NULL;
		}
	} else {
		rc = rc ? rc : -ECONNRESET; /* the peer ended it meanwhile, of which another event tells */
	}
	pthread_mutex_unlock(&ffv_cm_lock);
	event->event.event = rc ? FFV_CM_EVENT_CONNECT_ERROR : FFV_CM_EVENT_ESTABLISHED;
	event->event.status = rc;
	if (rc)
		ffv_cm_fail_qp(id);
}

static void finish_joining(struct ffv_cm_event_private *event)
{
	int rc = ffv_cm_attach_multicast(ffv_cm_private(event->event.id), event->multicast);

	if (rc) {
		event->event.event = FFV_CM_EVENT_MULTICAST_ERROR;
		event->event.status = rc;
	}
	pthread_mutex_lock(&ffv_cm_lock);
	event->multicast->busy = false;
	event->multicast = NULL;
	pthread_cond_broadcast(&acknowledged);
	pthread_mutex_unlock(&ffv_cm_lock);
}

static int after_reading(struct ffv_cm_event_private *event, bool follows)
{
	struct ffv_cm_id_private *id = ffv_cm_private(event->event.id);

	switch (event->event.event) {
	case FFV_CM_EVENT_CONNECT_REQUEST:
		return event->counted->sync ? ffv_cm_migrate_id(&id->id, NULL) : 0;
	case FFV_CM_EVENT_CONNECT_RESPONSE:
		if (follows)
			finish_connecting(event);
		break;
	case FFV_CM_EVENT_REJECTED:
		if (follows)
			ffv_cm_fail_qp(id);
		break;
	case FFV_CM_EVENT_MULTICAST_JOIN:
		finish_joining(event);
		break;
	default:
		break;
	}
	if (follows)
		end_following(id);
	return 0;
}

int ffv_cm_get_event(struct ffv_cm_channel *channel, struct ffv_cm_event **out)
{
	struct ffv_cm_channel_private *own = channel_private(channel);
	struct pollfd ready = { .events = POLLIN };
	int rc = check_channel(channel);

	if (rc)
		return rc;
	ready.fd = channel->fd;
	pthread_mutex_lock(&ffv_cm_lock);
	while (!own->first) {
		pthread_mutex_unlock(&ffv_cm_lock);
		if (fcntl(channel->fd, F_GETFL) & O_NONBLOCK)
			return ffv_fail(EAGAIN, "no event waits");
		if (poll(&ready, 1, -1) < 0)
			return ffv_fail_errno(errno, "waiting for an event was interrupted");
		pthread_mutex_lock(&ffv_cm_lock);
	}
	struct ffv_cm_event_private *event = take_first(own);
	event->counted->events_read++;
	if (event->event.event == FFV_CM_EVENT_CONNECT_REQUEST)
		event->counted->waiting_requests--;
	if (event->multicast)
		event->multicast->busy = true;
	bool follows = begin_following(&event->event);
	pthread_mutex_unlock(&ffv_cm_lock);
	rc = after_reading(event, follows);
	if (rc) { /* a request for which there is no channel: as if it had not come */
		struct ffv_cm_id *refused = event->event.id;
		ffv_cm_ack_event(&event->event);
		ffv_cm_destroy_id(refused);
		return rc;
	}
	*out = &event->event;
	return 0;
}

int ffv_cm_ack_event(struct ffv_cm_event *event)
{
	struct ffv_cm_event_private *own = (struct ffv_cm_event_private *)event;

	if (!event)
		return ffv_fail(EINVAL, "no event was given");
	pthread_mutex_lock(&ffv_cm_lock);
	if (own->counted && ffv_cm_check_generation(own->counted->generation) == 0) {
		own->counted->events_read--;
		pthread_cond_broadcast(&acknowledged);
	}
	pthread_mutex_unlock(&ffv_cm_lock);
	free(own);
	return 0;
}

void ffv_cm_wait_acknowledged(struct ffv_cm_id_private *id)
{
	pthread_mutex_lock(&ffv_cm_lock);
	while (id->events_read)
		pthread_cond_wait(&acknowledged, &ffv_cm_lock);
	pthread_mutex_unlock(&ffv_cm_lock);
}

/* ---- moving ------------------------------------------------------------------------------------------------------------- */

static void move_events(struct ffv_cm_id_private *id, struct ffv_cm_channel_private *to)
{
	struct ffv_cm_channel_private *from = channel_private(id->id.channel);
	struct ffv_cm_event_private *event = take_of(from, id, NULL);

	while (event) {
		struct ffv_cm_event_private *next = event->next;
		append(to, event);
		event = next;
	}
	from->ids--;
	to->ids++;
	id->id.channel = &to->channel;
}

int ffv_cm_migrate_id(struct ffv_cm_id *id, struct ffv_cm_channel *channel)
{
	struct ffv_cm_id_private *own = ffv_cm_private(id);
	struct ffv_cm_channel *before, *to = channel;
	int rc = ffv_cm_check_id(id);

	if (!rc && channel)
		rc = check_channel(channel);
	if (!rc && !channel)
		rc = ffv_cm_create_channel(&to);
	if (rc)
		return rc;
	/* What a synchronous id keeps of its last call. */
	if (own->sync && id->event) {
		ffv_cm_ack_event(id->event);
		id->event = NULL;
	}
	before = own->owns_channel ? id->channel : NULL;
	pthread_mutex_lock(&ffv_cm_lock);
	move_events(own, channel_private(to));
	own->owns_channel = own->sync = channel == NULL;
	while (own->events_read)
		pthread_cond_wait(&acknowledged, &ffv_cm_lock);
	pthread_mutex_unlock(&ffv_cm_lock);
	if (before && before != to)
		ffv_cm_destroy_channel(before);
	return 0;
}

/* ---- synchronous ids ------------------------------------------------------------------------------------------------------ */

int ffv_cm_complete(struct ffv_cm_id_private *id)
{
	int rc;

	if (!id->sync)
		return 0;
	if (id->id.event) {
		ffv_cm_ack_event(id->id.event);
		id->id.event = NULL;
	}
	rc = ffv_cm_get_event(id->id.channel, &id->id.event);
	if (rc || !id->id.event->status)
		return rc;
	if (id->id.event->event == FFV_CM_EVENT_REJECTED)
		return ffv_fail(ECONNREFUSED, "the peer rejected the connection, reason %d", id->id.event->status);
	int err = id->id.event->status < 0 ? -id->id.event->status : ECONNREFUSED;
	return ffv_fail_errno(err, "%s", ffv_cm_event_str(id->id.event->event));
}

int ffv_cm_wait(struct ffv_cm_id *id)
{
	int rc = ffv_cm_check_id(id);

	return rc ? rc : ffv_cm_complete(ffv_cm_private(id));
}

/* ---- names -------------------------------------------------------------------------------------------------------------- */

const char *ffv_cm_event_str(uint32_t type)
{
	static const char *const names[] = {
		"RDMA_CM_EVENT_ADDR_RESOLVED", "RDMA_CM_EVENT_ADDR_ERROR", "RDMA_CM_EVENT_ROUTE_RESOLVED",
		"RDMA_CM_EVENT_ROUTE_ERROR", "RDMA_CM_EVENT_CONNECT_REQUEST", "RDMA_CM_EVENT_CONNECT_RESPONSE",
		"RDMA_CM_EVENT_CONNECT_ERROR", "RDMA_CM_EVENT_UNREACHABLE", "RDMA_CM_EVENT_REJECTED",
		"RDMA_CM_EVENT_ESTABLISHED", "RDMA_CM_EVENT_DISCONNECTED", "RDMA_CM_EVENT_DEVICE_REMOVAL",
		"RDMA_CM_EVENT_MULTICAST_JOIN", "RDMA_CM_EVENT_MULTICAST_ERROR", "RDMA_CM_EVENT_ADDR_CHANGE",
		"RDMA_CM_EVENT_TIMEWAIT_EXIT", "RDMA_CM_EVENT_ADDRINFO_RESOLVED", "RDMA_CM_EVENT_ADDRINFO_ERROR",
	};

	return type < sizeof names / sizeof names[0] ? names[type] : "UNKNOWN EVENT";
}

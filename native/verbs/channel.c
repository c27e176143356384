/* SPDX-License-Identifier: MIT
 *
 * Completion channels: a descriptor per channel, events counted in the queues. Process-private, but that a peer which has
 * the descriptor signals it; any thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/error.h"
#include "verbs/cq.h"

int ffv_create_comp_channel(struct ffv_context *ctx, struct ffv_comp_channel **out)
{
	int rc = ffv_context_check(ctx);

	if (rc)
		return rc;
	struct ffv_comp_channel *channel = calloc(1, sizeof *channel);
	if (!channel)
		return ffv_fail(ENOMEM, "no memory for a completion channel");
	channel->fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
	if (channel->fd < 0) {
		rc = ffv_fail_errno(errno, "cannot create a completion channel's eventfd");
		free(channel);
		return rc;
	}
	channel->ctx = ctx;
	pthread_mutex_init(&channel->lock, NULL);
	pthread_mutex_lock(&ctx->lock);
	ctx->num_channels++;
	pthread_mutex_unlock(&ctx->lock);
	*out = channel;
	return 0;
}

int ffv_destroy_comp_channel(struct ffv_comp_channel *channel)
{
	if (!channel)
		return ffv_fail(EINVAL, "no completion channel");
	bool mine = !ffv_context_check(channel->ctx);
	if (mine && channel->cqs)
		return ffv_fail(EBUSY, "the completion channel is used by a completion queue");
	if (mine) {
		pthread_mutex_lock(&channel->ctx->lock);
		channel->ctx->num_channels--;
		pthread_mutex_unlock(&channel->ctx->lock);
	}
	close(channel->fd);
	free(channel);
	return 0;
}

int ffv_comp_channel_fd(struct ffv_comp_channel *channel)
{
	return channel ? channel->fd : -1;
}

static void signal_channel(struct ffv_cq *cq, uint64_t count)
{
	if (count && cq->channel && write(cq->channel->fd, &count, sizeof count) < 0)
		return; /* cannot happen before 2^64 events */
}

void ffv_cq_signal(struct ffv_context *ctx, uint32_t id)
{
	pthread_mutex_lock(&ctx->lock);
	struct ffv_cq *cq = id < FFV_MAX_CQ ? ctx->cqs[id] : NULL;
	if (cq && ffv_cq_is_held_back(cq->ref.shm))
		ffv_context_attention(ctx, &ctx->view, FFV_ATTENTION_CQ + id);
	else if (cq)
		ffv_cq_signal_spurious(cq);
	pthread_mutex_unlock(&ctx->lock);
}

void ffv_cq_signal_owed(struct ffv_cq *cq)
{
	signal_channel(cq, ffv_exchange(&cq->ref.shm->events_owed, 0u));
}

void ffv_cq_signal_spurious(struct ffv_cq *cq)
{
	if (!cq->channel)
		return;
	ffv_fetch_add(&cq->ref.shm->events_raised, 1u);
	signal_channel(cq, 1);
}

/* The next CQ of the channel that raised an event not delivered yet. */
static struct ffv_cq *next_event(struct ffv_comp_channel *channel)
{
	struct ffv_cq *found = NULL;

	pthread_mutex_lock(&channel->lock);
	for (struct ffv_cq **at = &channel->cqs; *at; at = &(*at)->channel_next) {
		struct ffv_cq *cq = *at;
		if (ffv_load_acquire(&cq->ref.shm->events_raised) == cq->events_delivered)
			continue;
		cq->events_delivered++;
		found = cq;
		break;
	}
	pthread_mutex_unlock(&channel->lock);
	return found;
}

int ffv_get_cq_event(struct ffv_comp_channel *channel, struct ffv_cq **cq, void **cq_context)
{
	uint64_t count;

	if (!channel)
		return ffv_fail(EINVAL, "no completion channel");
	for (;;) {
		int rc = ffv_context_check(channel->ctx);
		if (rc)
			return rc;
		if (read(channel->fd, &count, sizeof count) < 0)
			return ffv_fail_errno(errno, "no completion event");
		struct ffv_cq *found = next_event(channel);
		if (!found)
			continue; /* its queue was destroyed, or a peer rang without an event */
		*cq = found;
		if (cq_context)
			*cq_context = found->cq_context;
		return 0;
	}
}

void ffv_ack_cq_events(struct ffv_cq *cq, unsigned int count)
{
	if (!cq || !cq->channel)
		return;
	pthread_mutex_lock(&cq->channel->lock);
	cq->events_acked += count;
	pthread_mutex_unlock(&cq->channel->lock);
}

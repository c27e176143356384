/* SPDX-License-Identifier: MIT
 *
 * Completion channels: a descriptor per channel, events counted in the queues, and which queues have some told by bits in
 * the arena. Whoever completes raises: counts, sets the bits, signals the descriptor. The owner's threads deliver. Bits and
 * counts that peers write are only hints of where to look, and how often.
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
	rc = ffv_heap_alloc(&ctx->heap, sizeof *channel->shm, &channel->shm_line);
	if (rc) {
		close(channel->fd);
		free(channel);
		return rc;
	}
	channel->shm = ffv_heap_at(&ctx->heap, channel->shm_line);
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
	if (mine && channel->num_cqs)
		return ffv_fail(EBUSY, "the completion channel is used by a completion queue");
	if (mine) {
		ffv_context_retire(channel->ctx, channel->shm_line, sizeof *channel->shm);
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

static void mark_ready(struct ffv_channel_shm *channel, uint32_t id)
{
	uint32_t word = id / 64;

	/* [cq-ready] the lower bit first: who clears the upper one looks at the lower ones again. */
	ffv_fetch_or(&channel->ready[word], 1ull << id % 64);
	ffv_fetch_or(&channel->words[word / 64], 1ull << word % 64);
}

void ffv_channel_raise(struct ffv_channel_shm *channel, struct ffv_cq_shm *cq, uint32_t id)
{
	ffv_fetch_add(&cq->events_raised, 1u);
	mark_ready(channel, id);
}

void ffv_cq_signal_spurious(struct ffv_cq *cq)
{
	if (!cq->channel)
		return;
	ffv_channel_raise(cq->channel->shm, cq->ref.shm, cq->ref.id);
	signal_channel(cq, 1);
}

/* ---- delivering --------------------------------------------------------------------------------------------------------- */

/* The first word from `word` to `end` that has bits; FFV_READY_WORDS: there is none. Channel's lock held. */
static uint32_t find_word(struct ffv_channel_shm *channel, uint32_t word, uint32_t end)
{
	while (word < end) {
		_Atomic uint64_t *upper = &channel->words[word / 64];
		uint64_t bits = ffv_load_acquire(upper) >> word % 64;
		if (!bits) {
			word = (word / 64 + 1) * 64;
			continue;
		}
		word += (uint32_t)__builtin_ctzll(bits);
		if (word >= end)
			break;
		if (ffv_load_acquire(&channel->ready[word]))
			return word;
		/* [cq-ready] cleared before the word is looked at again: what is set after that sets it again. */
		ffv_fetch_and(upper, ~(1ull << word % 64));
		if (ffv_load_seq_cst(&channel->ready[word]))
			ffv_fetch_or(upper, 1ull << word % 64);
		else
			word++;
	}
	return FFV_READY_WORDS;
}

/* The id of a queue that may have an event, in turn; FFV_MAX_CQ: there is none. Channel's lock held. */
static uint32_t find_ready(struct ffv_comp_channel *channel)
{
	struct ffv_channel_shm *shm = channel->shm;
	uint32_t first = channel->next / 64 % FFV_READY_WORDS;
	uint64_t bits = ffv_load_acquire(&shm->ready[first]) & ~0ull << channel->next % 64;

	if (bits)
		return first * 64 + (uint32_t)__builtin_ctzll(bits);
	uint32_t word = find_word(shm, first + 1, FFV_READY_WORDS);
	if (word == FFV_READY_WORDS)
		word = find_word(shm, 0, first + 1);
	/* Only this thread clears bits; what a peer clears is its own loss. */
	bits = word == FFV_READY_WORDS ? 0 : ffv_load_acquire(&shm->ready[word]);
	return bits ? word * 64 + (uint32_t)__builtin_ctzll(bits) : FFV_MAX_CQ;
}

/* Our queue of that id. It stays while the channel's lock, which is held, is: destroying it takes that one. */
static struct ffv_cq *queue_of(struct ffv_comp_channel *channel, uint32_t id)
{
	struct ffv_context *ctx = channel->ctx;

	pthread_mutex_lock(&ctx->lock);
	struct ffv_cq *cq = ctx->cqs[id];
	if (cq && cq->channel != channel)
		cq = NULL;
	pthread_mutex_unlock(&ctx->lock);
	return cq;
}

/* One event of the queue `id`, if it has any. Channel's lock held. */
static struct ffv_cq *deliver(struct ffv_comp_channel *channel, uint32_t id)
{
	struct ffv_cq *cq = queue_of(channel, id);

	/* [cq-ready] cleared before the count is read: what is raised after that sets it again. */
	ffv_fetch_and(&channel->shm->ready[id / 64], ~(1ull << id % 64));
	uint32_t raised = cq ? ffv_load_seq_cst(&cq->ref.shm->events_raised) : 0;
	if (!cq || raised == cq->events_delivered)
		return NULL; /* destroyed meanwhile, or a peer's invention */
	if (++cq->events_delivered != raised)
		mark_ready(channel->shm, id);
	return cq;
}

/* The next CQ of the channel that raised an event not delivered yet. */
static struct ffv_cq *next_event(struct ffv_comp_channel *channel)
{
	struct ffv_cq *found = NULL;

	pthread_mutex_lock(&channel->lock);
	for (uint32_t n = 0; n < FFV_MAX_CQ && !found; n++) { /* not for ever, whatever peers set */
		uint32_t id = find_ready(channel);
		if (id == FFV_MAX_CQ)
			break;
		channel->next = id + 1;
		found = deliver(channel, id);
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

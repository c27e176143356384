/* SPDX-License-Identifier: MIT
 *
 * Asynchronous events: queued by the service thread (or whoever finds them in this process), read through a descriptor.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "verbs/context.h"

struct ffv_async_node {
	struct ffv_async_node *next;
	struct ffv_async_event event;
	uint32_t *outstanding;
};

void ffv_async_raise(struct ffv_context *ctx, uint32_t event_type, uint32_t element_kind, void *element,
		     uint32_t *outstanding)
{
	struct ffv_async_node *node = calloc(1, sizeof *node);
	uint64_t one = 1;

	if (!node)
		return; /* the object's state tells the same */
	node->event = (struct ffv_async_event){ .event_type = event_type, .element_kind = element_kind,
						.element = element, .cookie = (uint64_t)(uintptr_t)outstanding };
	node->outstanding = outstanding;
	pthread_mutex_lock(&ctx->async.lock);
	if (ctx->async.last)
		ctx->async.last->next = node;
	else
		ctx->async.first = node;
	ctx->async.last = node;
	pthread_mutex_unlock(&ctx->async.lock);
	if (write(ctx->async.fd, &one, sizeof one) < 0)
		return;
}

void ffv_async_forget(struct ffv_context *ctx, uint32_t *outstanding)
{
	struct ffv_async_node *last = NULL;

	pthread_mutex_lock(&ctx->async.lock);
	for (struct ffv_async_node **at = &ctx->async.first; *at;) {
		struct ffv_async_node *node = *at;
		if (node->outstanding == outstanding) {
			*at = node->next;
			free(node);
		} else {
			last = node;
			at = &node->next;
		}
	}
	ctx->async.last = last;
	while (*outstanding)
		pthread_cond_wait(&ctx->async.acked, &ctx->async.lock);
	pthread_mutex_unlock(&ctx->async.lock);
}

int ffv_get_async_event(struct ffv_context *ctx, struct ffv_async_event *event)
{
	uint64_t count;
	int rc = ffv_context_check(ctx);

	while (!rc) {
		if (read(ctx->async.fd, &count, sizeof count) < 0)
			return ffv_fail_errno(errno, "no async event");
		pthread_mutex_lock(&ctx->async.lock);
		struct ffv_async_node *node = ctx->async.first;
		if (node) {
			ctx->async.first = node->next;
			if (!node->next)
				ctx->async.last = NULL;
			if (node->outstanding)
				++*node->outstanding;
			*event = node->event;
		}
		pthread_mutex_unlock(&ctx->async.lock);
		free(node);
		if (node)
			return 0;
		/* its object was destroyed meanwhile: wait for the next */
	}
	return rc;
}

void ffv_ack_async_event(struct ffv_context *ctx, const struct ffv_async_event *event)
{
	uint32_t *outstanding = (uint32_t *)(uintptr_t)event->cookie;

	if (ffv_context_check(ctx) || !outstanding)
		return;
	pthread_mutex_lock(&ctx->async.lock);
	if (*outstanding && --*outstanding == 0)
		pthread_cond_broadcast(&ctx->async.acked);
	pthread_mutex_unlock(&ctx->async.lock);
}

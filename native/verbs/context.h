/* SPDX-License-Identifier: MIT
 *
 * What the files of verbs/ share of a context: entering it, waiting for executors, its service.
 */
#ifndef FFV_VERBS_CONTEXT_H
#define FFV_VERBS_CONTEXT_H

#include "verbs/process.h"

/* Who a context is that does not speak for this process: a proxy (engine/proxy.h). */
struct ffv_identity {
	const char *dir;              /* node directory, NULL = the usual one */
	uint8_t gid[16];
	uint32_t block;
	const struct ffv_proxy_hooks *hooks;
};
/* identity NULL: a context of this process's own. -EADDRINUSE if the name of a proxy is taken by somebody alive. The
 * owner of a proxy watches its doorbell_fd and calls ffv_attend_doorbell(ctx, 0) when it is readable. */
int ffv_context_open(const struct ffv_identity *identity, struct ffv_context **out);

/* 0 if this process may use the context, -EINVAL for NULL, -EOWNERDEAD (with a text) in a fork child. */
int ffv_context_check(const struct ffv_context *ctx);

/* How often this process's ancestry forked: what objects of another count belong to an ancestor. */
static inline uint32_t ffv_fork_generation(void)
{
	extern uint32_t ffv_process_generation __attribute__((visibility("hidden")));

	return ffv_process_generation;
}

/* Waits until every execution that was under way (in this process, and in all attached peers) when it was called has
 * ended; [exec-epoch]. Call after unpublishing what must not be used any more. False after timeout_ns: a stopped peer. */
bool ffv_context_quiesce(struct ffv_context *ctx, uint64_t timeout_ns);
/* The same for executions that may be accessing our memory through this key, which has been revoked. */
bool ffv_context_quiesce_key(struct ffv_context *ctx, uint32_t key, uint64_t timeout_ns);
/* The same for executions in which this queue pair is requester or responder. */
bool ffv_qp_quiesce(struct ffv_qp *qp, uint64_t timeout_ns);
/* The same for this process's executions only: enough for what no other process can use. */
bool ffv_context_quiesce_own(struct ffv_context *ctx, uint64_t timeout_ns);
/* Gives a block of the arena back once no execution can be using it any more. Never waits long. */
void ffv_context_retire(struct ffv_context *ctx, uint32_t line, uint64_t bytes);
/* The same for the shared part of a QP, which then waits for the next QP. */
void ffv_context_retire_qp(struct ffv_context *ctx, uint32_t line);

/* Raises an async event (kinds as in struct ffv_async_event). *outstanding: the element's count. */
void ffv_async_raise(struct ffv_context *ctx, uint32_t event_type, uint32_t element_kind, void *element,
		     uint32_t *outstanding);
/* Drops the undelivered events of the element with that count and waits until the delivered ones are acknowledged. */
void ffv_async_forget(struct ffv_context *ctx, uint32_t *outstanding);

/* Sets an object's attention bit in `view` and rings its owner's doorbell. */
void ffv_context_attention(struct ffv_context *ctx, struct ffv_view *view, uint32_t bit);

/* Frees what is left of imported domains; the context is closing. */
void ffv_pd_free_all(struct ffv_context *ctx);

/* A random number from the kernel. */
uint32_t ffv_random32(void);

#define FFV_STAGE_BYTES (256u << 10)

/* The QP of that index, NULL if there is none. It stays while the service lock is held. */
static inline struct ffv_qp *ffv_context_qp(const struct ffv_context *ctx, uint32_t index)
{
	return ffv_load_acquire(&ctx->qps[index]); /* [qp-table] */
}

extern const struct ffv_exec_face ffv_face;

/* Counts the thread of that number among those that use the context. -EAGAIN if it has none. */
int ffv_context_note_thread(struct ffv_context *ctx, int number);

/* The environment of an execution by this thread on behalf of ctx. -EAGAIN if more than FFV_MAX_THREADS threads run. */
static inline int ffv_context_env(struct ffv_context *ctx, struct ffv_exec_env *env)
{
	int number = ffv_thread_number();

	/* As unsigned, a thread without a number is beyond all. */
	if (ffv_unlikely((uint32_t)number >= ffv_load_relaxed(&ctx->view.arena->threads_used))) {
		int rc = ffv_context_note_thread(ctx, number);
		if (rc)
			return rc;
	}
	env->face = &ffv_face;
	env->arg = ctx;
	env->thread = &ctx->view.arena->threads[number];
	env->holder = FFV_EXEC_HOLDER(ctx->view.context_id, number);
	return 0;
}

#endif

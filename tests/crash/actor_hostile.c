/* See actor_hostile.h. */
#include "actor_hostile.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "verbs/objects.h"

static uint64_t next_random(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

struct area { const char *name; uint8_t *first; uint64_t bytes; };

static struct area find_area(struct ffv_context *ctx, const char *where, uint64_t *random)
{
	struct ffv_arena_shm *arena = ctx->view.arena;
	uint8_t *base = (uint8_t *)arena;
	struct ffv_qp *qp = NULL;
	uint64_t heap_first = (sizeof *arena + 4095) / 4096 * 4096;

	for (uint32_t i = 0, skip = (uint32_t)(next_random(random) % 4); i < FFV_MAX_QP; i++)
		if (ctx->qps[i] && (!qp || skip-- > 0))
			qp = ctx->qps[i];
	if (!strcmp(where, "header"))
		return (struct area){ where, base, offsetof(struct ffv_arena_shm, attention) };
	if (!strcmp(where, "attention"))
		return (struct area){ where, (uint8_t *)arena->attention, sizeof arena->attention };
	if (!strcmp(where, "threads"))
		return (struct area){ where, (uint8_t *)arena->threads, 8 * sizeof arena->threads[0] };
	if (!strcmp(where, "tables"))
		return (struct area){ where, (uint8_t *)(arena->qp_line + ctx->block % 1), 64 * 4 };
	if (!strcmp(where, "keys"))
		return (struct area){ where, (uint8_t *)arena->keys, 64 * sizeof arena->keys[0] };
	if (!strcmp(where, "qp") && qp)
		return (struct area){ where, (uint8_t *)qp->ref.shm, sizeof *qp->ref.shm };
	if (!strcmp(where, "sq") && qp)
		return (struct area){ where, qp->ref.sq_ring, (qp->ref.sq_index_mask + 1ull) * qp->ref.sq_stride_bytes };
	if (!strcmp(where, "rq") && qp)
		return (struct area){ where, qp->ref.rq.ring, (qp->ref.rq.index_mask + 1ull) * qp->ref.rq.stride_bytes };
	if (!strcmp(where, "cq") && qp && qp->recv_cq)
		return (struct area){ where, (uint8_t *)qp->recv_cq->ref.shm, sizeof *qp->recv_cq->ref.shm };
	if (!strcmp(where, "cqe") && qp && qp->recv_cq)
		return (struct area){ where, (uint8_t *)qp->recv_cq->ref.ring,
				      (qp->recv_cq->ref.index_mask + 1ull) * sizeof(struct ffv_cqe_shm) };
	if (!strcmp(where, "outbox") && ctx->port.outbox) /* where it is, its positions, and the frames that were sent */
		return next_random(random) % 8 ? (struct area){ where, (uint8_t *)ctx->port.outbox, 16384 }
					       : (struct area){ where, (uint8_t *)&arena->outbox_line, 4 };
	for (uint32_t i = 0, skip = (uint32_t)(next_random(random) % 2); i < FFV_MAX_SRQ; i++) {
		struct ffv_srq *srq = ctx->srqs[i];
		if (srq && !strcmp(where, "srq") && !skip--)
			return (struct area){ where, (uint8_t *)srq->shm, sizeof *srq->shm };
		if (srq && srq->tm && !strcmp(where, "tags"))
			return (struct area){ where, (uint8_t *)srq->tm->tags, srq->tm->tag_bytes };
	}
	/* everything that has been allocated */
	return (struct area){ "heap", base + heap_first, ctx->heap.next_line * FFV_LINE_BYTES - heap_first };
}

int actor_scribble(struct ffv_context *ctx, const char *where, uint64_t seed, unsigned count)
{
	uint64_t random = seed;

	for (unsigned i = 0; i < count; i++) {
		struct area area = find_area(ctx, where, &random);
		uint64_t word = next_random(&random), at = next_random(&random) % (area.bytes / 4) * 4;
		uint32_t kind = (uint32_t)(next_random(&random) % 4);
		_Atomic uint32_t *place = (_Atomic uint32_t *)(void *)(area.first + at);

		/* Wild values, small ones, all ones, and single flipped bits: the last look most like the truth. */
		uint32_t value = kind == 0 ? (uint32_t)word : kind == 1 ? (uint32_t)(word % 64) : kind == 2 ? UINT32_MAX
				 : ffv_load_relaxed(place) ^ 1u << (word % 32);
		ffv_store_relaxed(place, value);
	}
	return 0;
}

int actor_deny_process_vm(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_writev, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = sizeof code / sizeof *code, .filter = code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		return -errno;
	return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * On-demand regions: nothing is pinned or moved, and the owner's process (or process_vm_*) copies by way of the kernel,
 * which says what is not mapped (DESIGN D5; engine/copy.c). Prefetching makes pages present, as the word says.
 */
#include "verbs/odp.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/error.h"
#include "engine/keys.h"
#include "verbs/context.h"

/* enum ibv_odp_general_caps and ibv_odp_transport_cap_bits */
#define SUPPORT 1u
#define SUPPORT_IMPLICIT 2u
#define CAP_SEND 1u
#define CAP_RECV 2u
#define CAP_WRITE 4u
#define CAP_READ 8u
#define CAP_ATOMIC 16u
#define CAP_SRQ_RECV 32u

bool ffv_odp_works(void)
{
	static _Atomic int known; /* 0 not yet, 1 yes, 2 no */
	int state = ffv_load_relaxed(&known);

	if (!state) {
		uint8_t here = 0, there = 0;
		struct iovec to = { &here, 1 }, from = { &there, 1 };
		state = process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 1 &&
				process_vm_writev(getpid(), &to, 1, &from, 1, 0) == 1 ? 1 : 2;
		ffv_store_relaxed(&known, state);
	}
	return state == 1;
}

void ffv_odp_report(struct ffv_device_attr_ex *attr)
{
	if (!ffv_odp_works())
		return;
	attr->odp_caps = (struct ffv_odp_caps){
		.general_caps = SUPPORT | SUPPORT_IMPLICIT,
		.per_transport_caps = {
			.rc_odp_caps = CAP_SEND | CAP_RECV | CAP_WRITE | CAP_READ | CAP_ATOMIC | CAP_SRQ_RECV,
			.uc_odp_caps = CAP_SEND | CAP_RECV | CAP_WRITE | CAP_SRQ_RECV,
			.ud_odp_caps = CAP_SEND | CAP_RECV | CAP_SRQ_RECV,
		},
	};
	attr->xrc_odp_caps = CAP_SEND | CAP_WRITE | CAP_READ | CAP_ATOMIC | CAP_SRQ_RECV;
}

/* ---- advice -------------------------------------------------------------------------------------------------------- */

static int check_piece(struct ffv_pd *pd, uint32_t advice, const struct ffv_sge *sge, struct ffv_segment *segment)
{
	uint32_t access = advice == FFV_ADVISE_MR_ADVICE_PREFETCH_WRITE ? FFV_ACCESS_LOCAL_WRITE : 0;

	if (ffv_key_resolve_any(&pd->ctx->view, sge->lkey, pd->id, 0, sge->addr, sge->length, access, segment) &&
	    segment->on_demand)
		return 0;
	return ffv_fail(EFAULT, "%u bytes at %#" PRIx64 " with key %#x are not of an on-demand region of the protection domain"
			"%s", sge->length, sge->addr, sge->lkey, access ? " that may be written" : "");
}

static int populate(const struct ffv_segment *segment, uint32_t advice)
{
	uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE), first = segment->va & ~(page_bytes - 1);
	int how = advice == FFV_ADVISE_MR_ADVICE_PREFETCH_WRITE ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;

	if (!madvise((void *)(uintptr_t)first, segment->va + segment->length_bytes - first, how))
		return 0;
	if (errno == EINVAL && madvise((void *)(uintptr_t)first, segment->va + segment->length_bytes - first,
				       MADV_WILLNEED) == 0)
		return 0; /* Linux before 5.14 cannot do more than that */
	return ffv_fail(EFAULT, "%u bytes at %#" PRIx64 " cannot be made present: they are not mapped, or not so that they can "
			"be used", segment->length_bytes, segment->va);
}

static int check_advice(struct ffv_pd *pd, uint32_t advice, uint32_t flags, const struct ffv_sge *sg_list, uint32_t num_sge)
{
	int rc = ffv_context_check(pd ? pd->ctx : NULL);

	if (rc)
		return rc;
	if (advice > FFV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT)
		return ffv_fail(EOPNOTSUPP, "advice %u is not known: there are prefetches 0 to 2", advice);
	if (flags & ~(uint32_t)FFV_ADVISE_MR_FLAG_FLUSH)
		return ffv_fail(EINVAL, "flags of an advice %#x: only FLUSH (%d) is known", flags, FFV_ADVISE_MR_FLAG_FLUSH);
	if (!num_sge || !sg_list)
		return ffv_fail(EINVAL, "advice about nothing: at least one piece of memory is needed");
	return ffv_odp_works() ? 0 : ffv_fail(EOPNOTSUPP, "on-demand paging is not supported here");
}

int ffv_advise_mr(struct ffv_pd *pd, uint32_t advice, uint32_t flags, const struct ffv_sge *sg_list, uint32_t num_sge)
{
	struct ffv_segment segment;
	int rc = check_advice(pd, advice, flags, sg_list, num_sge);

	for (uint32_t i = 0; i < num_sge && !rc; i++)
		rc = check_piece(pd, advice, &sg_list[i], &segment);
	if (advice == FFV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT) /* what is present needs nothing more */
		return rc;
	for (uint32_t i = 0; i < num_sge && !rc; i++) {
		rc = check_piece(pd, advice, &sg_list[i], &segment);
		if (!rc && segment.length_bytes)
			rc = populate(&segment, advice);
		if (!(flags & FFV_ADVISE_MR_FLAG_FLUSH))
			rc = 0; /* whoever uses what is not there finds out then */
	}
	return rc;
}

/* SPDX-License-Identifier: MIT
 *
 * The operations of connected queue pairs: each a chain of checks that ends in a verdict.
 */
#include "engine/run.h"

/* Invalidates a type 2 window of the responder, as SEND_WITH_INV asks. */
static enum verdict invalidate(struct run *run, uint32_t rkey)
{
	struct ffv_key_shm *entry = &run->resp->view->arena->keys[FFV_KEY_INDEX(rkey)];
	uint32_t seen = rkey;

	if (!rkey || entry->kind != FFV_KEY_MW2 || entry->qpn != run->resp->qpn || entry->pd != run->resp->pd ||
	    !ffv_cas(&entry->key, &seen, 0u))
		return REMOTE_INVALIDATE;
	return OK;
}

static enum verdict do_send(struct run *run, const struct ffv_wqe_shm *wqe)
{
	if (run->resp->rq.tags)
		return ffv_run_tagged(run, wqe);
	enum verdict verdict = ffv_run_gather(run, wqe, 0);
	if (verdict == OK)
		verdict = ffv_run_take_receive(run);
	if (verdict == OK)
		verdict = ffv_run_scatter(run, run->length);
	if (verdict == OK)
		verdict = ffv_run_move(run, true, run->length, true);
	if (verdict == OK && wqe->opcode == FFV_WR_SEND_WITH_INV)
		verdict = invalidate(run, wqe->imm_be);
	return verdict;
}

static enum verdict do_write(struct run *run, const struct ffv_wqe_shm *wqe)
{
	enum verdict verdict = ffv_run_gather(run, wqe, 0);

	if (verdict == OK)
		verdict = ffv_run_target(run, wqe, run->length, FFV_ACCESS_REMOTE_WRITE);
	if (verdict == OK && wqe->opcode == FFV_WR_RDMA_WRITE_WITH_IMM)
		verdict = ffv_run_take_receive(run);
	if (verdict == OK)
		verdict = ffv_run_move(run, true, run->length, false);
	return verdict;
}

static enum verdict do_read(struct run *run, const struct ffv_wqe_shm *wqe)
{
	if (!ffv_load_relaxed(&run->req->shm->max_rd_atomic))
		return LOCAL_OPERATION;
	enum verdict verdict = ffv_run_gather(run, wqe, FFV_ACCESS_LOCAL_WRITE);
	if (verdict == OK && !ffv_load_relaxed(&run->resp->shm->max_dest_rd_atomic))
		verdict = REMOTE_INVALID;
	if (verdict == OK)
		verdict = ffv_run_target(run, wqe, run->length, FFV_ACCESS_REMOTE_READ);
	if (verdict == OK)
		verdict = ffv_run_move(run, false, run->length, false);
	return verdict;
}

static uint64_t apply_atomic(_Atomic uint64_t *word, const struct ffv_wqe_shm *wqe)
{
	uint64_t original = wqe->rdma.compare_add;

	if (wqe->opcode == FFV_WR_ATOMIC_FETCH_AND_ADD)
		return ffv_fetch_add(word, wqe->rdma.compare_add);
	ffv_cas(word, &original, wqe->rdma.swap);
	return original;
}

/* The original value goes to the requester's list, or, if this process does not reach it, waits in the work request. */
enum verdict ffv_run_deliver_original(struct run *run, struct ffv_wqe_shm *wqe, uint64_t original)
{
	struct ffv_qp_shm *qp = run->req->shm;
	struct ffv_list value = { .num_segments = 1, .length_bytes = 8 };

	value.segment[0] = (struct ffv_segment){ .va = (uintptr_t)&original, .length_bytes = 8 };
	enum ffv_copy_result result = ffv_copy_lists(&run->local, 0, &value, 0, 8);
	if (result == FFV_COPY_UNREACHABLE) {
		wqe->rdma.swap = original;
		qp->staged_bytes = 8;
		return FOR_REQUESTER;
	}
	qp->staged_bytes = 0;
	return result ? LOCAL_PROTECTION : OK;
}

static enum verdict do_atomic(struct run *run, struct ffv_wqe_shm *wqe)
{
	if (!ffv_load_relaxed(&run->req->shm->max_rd_atomic))
		return LOCAL_OPERATION;
	enum verdict verdict = ffv_run_gather(run, wqe, FFV_ACCESS_LOCAL_WRITE);
	if (verdict == OK && run->length != 8)
		verdict = LOCAL_LENGTH;
	if (verdict != OK)
		return verdict;
	if (run->req->shm->staged_bytes)
		return ffv_run_deliver_original(run, wqe, wqe->rdma.swap);
	if (!ffv_load_relaxed(&run->resp->shm->max_dest_rd_atomic))
		return REMOTE_INVALID;
	verdict = ffv_run_target(run, wqe, 8, FFV_ACCESS_REMOTE_ATOMIC);
	if (verdict != OK)
		return verdict;
	if (wqe->rdma.remote_addr & 7)
		return REMOTE_INVALID;
	if (ffv_unlikely(run->remote.segment[0].on_demand) && !ffv_segment_populate(&run->remote.segment[0]))
		return REMOTE_ACCESS;
	uint8_t *word = ffv_segment_address(run->remote.view, &run->remote.segment[0], 0, 8);
	if (!word)
		return FOR_RESPONDER;
	if ((uintptr_t)word & 7) /* an iova that is aligned differently from its memory */
		return REMOTE_INVALID;
	return ffv_run_deliver_original(run, wqe, apply_atomic((_Atomic uint64_t *)(void *)word, wqe));
}

/* The 8 bytes of an atomic write: the requester's list is read once, then they travel in the work request if the word is
 * another process's to write. */
static enum verdict fetch_value(struct run *run, const struct ffv_wqe_shm *wqe, uint64_t *value)
{
	struct ffv_list list = { .num_segments = 1, .length_bytes = 8 };

	if (run->req->shm->staged_bytes) {
		*value = wqe->rdma.compare_add;
		return OK;
	}
	list.segment[0] = (struct ffv_segment){ .va = (uintptr_t)value, .length_bytes = 8 };
	enum ffv_copy_result result = ffv_copy_lists(&list, 0, &run->local, 0, 8);
	if (result == FFV_COPY_UNREACHABLE)
		return FOR_REQUESTER;
	return result ? LOCAL_PROTECTION : OK;
}

static enum verdict do_atomic_write(struct run *run, struct ffv_wqe_shm *wqe)
{
	uint64_t value = 0;

	if (!ffv_load_relaxed(&run->req->shm->max_rd_atomic))
		return LOCAL_OPERATION;
	enum verdict verdict = run->length == 8 ? ffv_run_gather(run, wqe, 0) : LOCAL_LENGTH;
	if (verdict == OK && !ffv_load_relaxed(&run->resp->shm->max_dest_rd_atomic))
		verdict = REMOTE_INVALID;
	if (verdict == OK)
		verdict = ffv_run_target(run, wqe, 8, FFV_ACCESS_REMOTE_WRITE);
	if (verdict == OK && wqe->rdma.remote_addr & 7)
		verdict = REMOTE_INVALID;
	if (verdict == OK)
		verdict = fetch_value(run, wqe, &value);
	if (verdict != OK)
		return verdict;
	if (ffv_unlikely(run->remote.segment[0].on_demand) && !ffv_segment_populate(&run->remote.segment[0]))
		return REMOTE_ACCESS;
	uint8_t *word = ffv_segment_address(run->remote.view, &run->remote.segment[0], 0, 8);
	if (!word) {
		wqe->rdma.compare_add = value;
		run->req->shm->staged_bytes = 8;
		return FOR_RESPONDER;
	}
	if ((uintptr_t)word & 7) /* an iova that is aligned differently from its memory */
		return REMOTE_INVALID;
	ffv_store_release((_Atomic uint64_t *)(void *)word, value);
	return OK;
}

/* What was written before can be read by everybody: earlier requests of this queue were executed by this thread, or by one
 * that has handed the queue over since, so that a fence is all. Whether the memory is there and may be flushed is the
 * responder's check (IBA volume 1, annex of memory placement extensions). */
static enum verdict do_flush(struct run *run, const struct ffv_wqe_shm *wqe)
{
	const uint64_t length = wqe->rdma.compare_add;
	struct ffv_segment segment;

	if (!(ffv_load_relaxed(&run->resp->shm->access) & FFV_ACCESS_FLUSH_GLOBAL))
		return REMOTE_INVALID;
	struct ffv_view *view = run->resp->view;
	uint64_t first = wqe->rdma.remote_addr;
	uint32_t bytes = length < FFV_MAX_MESSAGE ? (uint32_t)length : (uint32_t)FFV_MAX_MESSAGE;
	if (wqe->rdma.swap == FFV_FLUSH_MR) { /* all of it: any byte will do */
		first = ffv_word_load(&view->arena->keys[FFV_KEY_INDEX(wqe->rdma.rkey)].iova);
		bytes = 1;
	}
	if (bytes && !ffv_key_resolve_any(view, wqe->rdma.rkey, run->resp->pd, run->resp->qpn, first, bytes,
					  FFV_ACCESS_FLUSH_GLOBAL, &segment))
		return REMOTE_ACCESS;
	ffv_fence_store_load();
	return OK;
}

enum verdict ffv_run_local_inv(struct run *run, const struct ffv_wqe_shm *wqe)
{
	struct ffv_key_shm *entry = &run->req->view->arena->keys[FFV_KEY_INDEX(wqe->imm_be)];
	uint32_t seen = wqe->imm_be;

	if (!seen || entry->kind != FFV_KEY_MW2 || entry->pd != run->req->pd || !ffv_cas(&entry->key, &seen, 0u))
		return LOCAL_OPERATION;
	return OK;
}

/* Whether the window may be bound to what the request names. Type 2: not while it is bound, nor to nothing (IBA o10-37.2.30,
 * o10-37.2.40). Type 1 is bound anew as it is, and closed by a length of 0. */
static bool may_bind(const struct run *run, const struct ffv_wqe_bind_shm *bind, const struct ffv_key_shm *window,
		     const struct ffv_key_shm *region)
{
	const uint32_t needs_write = FFV_ACCESS_REMOTE_WRITE | FFV_ACCESS_REMOTE_ATOMIC;

	if (!bind->new_key || FFV_KEY_INDEX(bind->old_key) != FFV_KEY_INDEX(bind->new_key) || window->pd != run->req->pd ||
	    (window->kind != FFV_KEY_MW1 && window->kind != FFV_KEY_MW2))
		return false;
	if (window->kind == FFV_KEY_MW2 && (ffv_load_relaxed(&window->key) || !bind->length_bytes))
		return false;
	uint64_t offset = bind->addr - region->iova;
	return !bind->length_bytes ||
	       (ffv_load_acquire(&region->key) == bind->region_key && region->kind == FFV_KEY_MR &&
		region->pd == run->req->pd && region->access & FFV_ACCESS_MW_BIND &&
		(!(bind->access & needs_write) || region->access & FFV_ACCESS_LOCAL_WRITE) &&
		offset <= region->length_bytes && bind->length_bytes <= region->length_bytes - offset);
}

/* Binds a window of the requester's to a part of a region of its own, or closes it; IBA 10.6.6.2, 11.6.2. One that may not
 * be bound stays as it was. */
enum verdict ffv_run_bind_mw(struct run *run, const struct ffv_wqe_shm *wqe)
{
	const struct ffv_wqe_bind_shm *bind = &wqe->bind;
	struct ffv_arena_shm *arena = run->req->view->arena;
	struct ffv_key_shm *window = &arena->keys[FFV_KEY_INDEX(bind->new_key)];
	struct ffv_key_shm *region = &arena->keys[FFV_KEY_INDEX(bind->region_key)];

	if (!may_bind(run, bind, window, region))
		return BIND_FAILED;
	ffv_store_seq_cst(&window->key, 0u);
	ffv_fence_store_store(); /* who reads what follows finds the key gone when it looks again (ffv_key_resolve) */
	if (!bind->length_bytes)
		return OK;
	ffv_word_store(&window->access, bind->access);
	ffv_word_store(&window->iova, bind->access & FFV_ACCESS_ZERO_BASED ? 0 : bind->addr);
	ffv_word_store(&window->length_bytes, bind->length_bytes);
	ffv_word_store(&window->va, region->va + (bind->addr - region->iova));
	ffv_word_store(&window->mirror_first, region->mirror_first);
	ffv_word_store(&window->mirror_end, region->mirror_end);
	ffv_word_store(&window->qpn, run->req->qpn);
	ffv_word_store(&window->parent_index, FFV_KEY_INDEX(bind->region_key));
	/* [key-publish] */
	ffv_store_release(&window->key, bind->new_key);
	return OK;
}

enum verdict ffv_run_execute(struct run *run, struct ffv_wqe_shm *wqe)
{
	switch (wqe->opcode) {
	case FFV_WR_SEND:
	case FFV_WR_SEND_WITH_IMM:
	case FFV_WR_SEND_WITH_INV:
		return do_send(run, wqe);
	case FFV_WR_RDMA_WRITE:
	case FFV_WR_RDMA_WRITE_WITH_IMM:
		return do_write(run, wqe);
	case FFV_WR_RDMA_READ:
		return do_read(run, wqe);
	case FFV_WR_ATOMIC_CMP_AND_SWP:
	case FFV_WR_ATOMIC_FETCH_AND_ADD:
		return do_atomic(run, wqe);
	case FFV_WR_ATOMIC_WRITE:
		return do_atomic_write(run, wqe);
	case FFV_WR_FLUSH:
		return do_flush(run, wqe);
	default:
		return LOCAL_OPERATION;
	}
}

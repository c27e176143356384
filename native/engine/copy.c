/* SPDX-License-Identifier: MIT
 *
 * See copy.h.
 */
#include "engine/copy.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* One contiguous piece of a list: at an address here, or in another process's memory. */
struct piece {
	uint8_t *here;                /* NULL: at `va` of the process of `view` */
	struct ffv_view *view;
	uint64_t va;
	uint64_t length;
};

static bool is_direct(const struct ffv_view *view)
{
	return !view || view->direct;
}

/* How much of [va, va + length) from va on is of one kind: mirrored within one window, or not mirrored. */
static uint64_t run_length(const struct ffv_segment *segment, uint64_t va, uint64_t length, bool *mirrored)
{
	uint64_t end = va + length;

	*mirrored = va >= segment->mirror_first && va < segment->mirror_end;
	if (!*mirrored) {
		if (va < segment->mirror_first && end > segment->mirror_first &&
		    segment->mirror_first < segment->mirror_end)
			end = segment->mirror_first;
		return end - va;
	}
	uint64_t window_end = (va & ~(FFV_WINDOW_BYTES - 1)) + FFV_WINDOW_BYTES;
	if (end > segment->mirror_end)
		end = segment->mirror_end;
	if (end > window_end)
		end = window_end;
	return end - va;
}

/* The piece of `list` that begins at `offset`, at most `length` bytes. Its `here` and `view` are NULL together only if
 * nothing in this process reaches it. */
static struct piece piece_at(const struct ffv_list *list, uint64_t offset, uint64_t length)
{
	const struct ffv_segment *segment = list->segment;
	bool mirrored;

	while (offset >= segment->length_bytes) {
		offset -= segment->length_bytes;
		segment++;
	}
	struct piece piece = { .va = segment->va + offset, .length = segment->length_bytes - offset };
	if (piece.length > length)
		piece.length = length;
	if (ffv_unlikely(segment->on_demand)) {
		piece.view = list->view; /* ourselves, but the kernel looks first whether it is there */
		return piece;
	}
	if (is_direct(list->view)) {
		piece.here = (uint8_t *)(uintptr_t)piece.va;
		return piece;
	}
	piece.length = run_length(segment, piece.va, piece.length, &mirrored);
	if (mirrored && list->view->windows)
		piece.here = ffv_windows_at(list->view->windows, piece.va);
	if (!piece.here && list->view->pid && ffv_load_relaxed(&list->view->vm_state) != FFV_VM_DENIED)
		piece.view = list->view;
	return piece;
}

static pid_t pid_of(const struct ffv_view *view)
{
	return view->direct ? getpid() : view->pid;
}

/* The kernel's permission shows in a one-byte read; only then is a copy begun. */
static bool vm_works(struct ffv_view *view, uint64_t va)
{
	int state = ffv_load_relaxed(&view->vm_state);
	uint8_t byte;

	if (state != FFV_VM_UNKNOWN)
		return state == FFV_VM_WORKS;
	struct iovec here = { &byte, 1 }, there = { (void *)(uintptr_t)va, 1 };
	ssize_t n = process_vm_readv(view->pid, &here, 1, &there, 1, 0);
	state = n == 1 || (n < 0 && errno == EFAULT) ? FFV_VM_WORKS : FFV_VM_DENIED;
	ffv_store_relaxed(&view->vm_state, state);
	return state == FFV_VM_WORKS;
}

bool ffv_list_is_reachable(const struct ffv_list *list, uint64_t offset, uint64_t length)
{
	uint64_t end = offset + length;

	if (is_direct(list->view))
		return true;
	while (offset < end) {
		struct piece piece = piece_at(list, offset, end - offset);
		if (!piece.here && !(piece.view && vm_works(piece.view, piece.va)))
			return false;
		offset += piece.length;
	}
	return true;
}

int ffv_list_here(const struct ffv_list *list, uint64_t offset, uint64_t length, struct iovec *pieces, int most)
{
	int count = 0;

	while (length && count < most) {
		struct piece piece = piece_at(list, offset, length);
		if (!piece.here)
			break;
		pieces[count++] = (struct iovec){ piece.here, piece.length };
		offset += piece.length;
		length -= piece.length;
	}
	return count;
}

/* The key of the list's segment of that number. */
static uint32_t key_of(const struct ffv_rest *rest, uint32_t segment)
{
	for (uint32_t i = 0; rest->sges && i < rest->num_sge; i++)
		if (ffv_word_load(&rest->sges[i].length) && !segment--)
			return ffv_word_load(&rest->sges[i].lkey);
	return rest->sges ? 0 : rest->key;
}

static const struct ffv_segment *segment_at(const struct ffv_list *list, uint64_t offset)
{
	const struct ffv_segment *segment = list->segment;

	while (offset >= segment->length_bytes) {
		offset -= segment->length_bytes;
		segment++;
	}
	return segment;
}

/* How far memory like that of a piece goes at either side. */
static void find_ends(const struct ffv_view *view, const struct ffv_segment *segment, uint64_t va, struct ffv_place *place)
{
	uint64_t first = segment->va, end = segment->va + segment->length_bytes;

	if (!is_direct(view)) {
		uint64_t window = va & ~(FFV_WINDOW_BYTES - 1);
		first = segment->mirror_first > window ? segment->mirror_first : window;
		end = segment->mirror_end < window + FFV_WINDOW_BYTES ? segment->mirror_end : window + FFV_WINDOW_BYTES;
	} else if (view && view->extents) {
		first = ffv_word_load(&view->extents[place->region].first);
		end = ffv_word_load(&view->extents[place->region].end);
	}
	place->first = place->here - (va - first);
	place->end = place->here + (end - va);
}

int ffv_rest_places(const struct ffv_rest *rest, struct ffv_place *places, int most)
{
	const struct ffv_list *list = rest->list;
	uint64_t offset = rest->offset, length = rest->length;
	int count = 0;

	if (!list->view || offset + length > list->length_bytes)
		return 0;
	while (length && count < most) {
		struct piece piece = piece_at(list, offset, length);
		const struct ffv_segment *segment = segment_at(list, offset);
		uint32_t key = key_of(rest, (uint32_t)(segment - list->segment)), region = FFV_KEY_INDEX(key);
		const struct ffv_key_shm *entry = &list->view->arena->keys[region];
		if (ffv_word_load(&entry->kind) != FFV_KEY_MR) {
			region = ffv_word_load(&entry->parent_index) & (FFV_MAX_KEYS - 1);
			entry = &list->view->arena->keys[region];
		}
		struct ffv_place *place = &places[count++];
		*place = (struct ffv_place){ .here = piece.here, .length = piece.length, .region = region,
					     .stamp = ffv_word_load(&FFV_KEY_STAMP(entry)) };
		if (!piece.here)
			break;
		find_ends(list->view, segment, piece.va, place);
		offset += piece.length;
		length -= piece.length;
	}
	return count;
}

uint32_t ffv_key_alike(const struct ffv_view *view, uint32_t key, uint64_t addr, uint32_t length, bool *reached)
{
	const struct ffv_key_shm *entry = &view->arena->keys[FFV_KEY_INDEX(key)];
	struct ffv_segment segment = { .mirror_first = ffv_word_load(&entry->mirror_first),
				       .mirror_end = ffv_word_load(&entry->mirror_end) };

	*reached = true;
	return is_direct(view) ? length
			       : (uint32_t)run_length(&segment, ffv_word_load(&entry->va) + (addr - ffv_word_load(&entry->iova)),
						      length, reached);
}

bool ffv_place_is_same(const struct ffv_view *view, const struct ffv_place *place)
{
	return ffv_word_load(&FFV_KEY_STAMP(&view->arena->keys[place->region])) == place->stamp;
}

bool ffv_place_stands(const struct ffv_view *view, const struct ffv_place *place)
{
	/* [key-publish] */
	return ffv_load_acquire(&view->arena->keys[place->region].key) && ffv_place_is_same(view, place);
}

/* Moves through process_vm_*; the side without `here` is remote. Both remote: through a bounce buffer. A process that is
 * gone is no fault of its memory: its death will end the queue pair. */
static enum ffv_copy_result vm_copy(struct piece *dst, struct piece *src, uint64_t length)
{
	uint8_t bounce[16384];

	errno = 0; /* a copy cut short sets none */
	uint8_t *local = src->here ? src->here : dst->here ? dst->here : bounce;
	struct iovec here = { local, length };
	if (!src->here) {
		struct iovec there = { (void *)(uintptr_t)src->va, length };
		if (process_vm_readv(pid_of(src->view), &here, 1, &there, 1, 0) != (ssize_t)length)
			return errno == ESRCH ? FFV_COPY_UNREACHABLE : FFV_COPY_FAULT_SRC;
	}
	if (!dst->here) {
		struct iovec there = { (void *)(uintptr_t)dst->va, length };
		if (process_vm_writev(pid_of(dst->view), &here, 1, &there, 1, 0) != (ssize_t)length)
			return errno == ESRCH ? FFV_COPY_UNREACHABLE : FFV_COPY_FAULT_DST;
	}
	return FFV_COPY_DONE;
}

static uint64_t bounded(const struct piece *dst, const struct piece *src)
{
	uint64_t length = dst->length < src->length ? dst->length : src->length;

	/* A read or write of more than 2 GiB is cut short by the kernel; both sides remote go through the bounce buffer. */
	if (!dst->here && !src->here && length > 16384)
		return 16384;
	return (!dst->here || !src->here) && length > (1u << 30) ? 1u << 30 : length;
}

static enum ffv_copy_result copy_pieces(const struct ffv_list *dst, uint64_t dst_offset, const struct ffv_list *src,
					uint64_t src_offset, uint64_t length)
{
	while (length) {
		struct piece to = piece_at(dst, dst_offset, length);
		struct piece from = piece_at(src, src_offset, length);
		uint64_t n = bounded(&to, &from);
		if (to.here && from.here) {
			ffv_copy_bytes(to.here, from.here, n);
		} else {
			enum ffv_copy_result result = vm_copy(&to, &from, n);
			if (result)
				return result;
		}
		dst_offset += n;
		src_offset += n;
		length -= n;
	}
	return FFV_COPY_DONE;
}

enum ffv_copy_result ffv_copy_lists(const struct ffv_list *dst, uint64_t dst_offset, const struct ffv_list *src,
				    uint64_t src_offset, uint64_t length)
{
	bool is_there = !dst->segment[0].on_demand && !src->segment[0].on_demand;

	if (ffv_likely(length && is_there && dst->segment[0].length_bytes >= dst_offset + length &&
		       src->segment[0].length_bytes >= src_offset + length)) {
		uint8_t *to = ffv_segment_address(dst->view, &dst->segment[0], (uint32_t)dst_offset, (uint32_t)length);
		uint8_t *from = ffv_segment_address(src->view, &src->segment[0], (uint32_t)src_offset, (uint32_t)length);
		if (ffv_likely(to && from)) {
			ffv_copy_message(to, from, length);
			return FFV_COPY_DONE;
		}
	}
	if (!ffv_list_is_reachable(dst, dst_offset, length) || !ffv_list_is_reachable(src, src_offset, length))
		return FFV_COPY_UNREACHABLE;
	return copy_pieces(dst, dst_offset, src, src_offset, length);
}

/* The kernel tells before the CPU would fault. */
bool ffv_segment_populate(const struct ffv_segment *segment)
{
	uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE), first = segment->va & ~(page_bytes - 1);
	struct iovec here, there = { (void *)(uintptr_t)segment->va, 1 };
	uint8_t byte;

	if (!madvise((void *)(uintptr_t)first, segment->va + segment->length_bytes - first, MADV_POPULATE_WRITE))
		return true;
	if (errno != EINVAL)
		return false;
	/* Linux before 5.14: reading tells whether it is there at all. */
	here = (struct iovec){ &byte, 1 };
	return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == 1;
}

/* SPDX-License-Identifier: MIT
 *
 * Moving bytes between the memory of two contexts, as seen from this process (DESIGN D3-D5). Fast path for memory that
 * stands at an address here; process_vm_readv/writev, where the kernel permits, for memory that does not.
 */
#ifndef FFV_ENGINE_COPY_H
#define FFV_ENGINE_COPY_H

#include <string.h>
#include <sys/uio.h>

#include "base/fault.h"
#include "engine/keys.h"

/* A scatter or gather list, resolved. */
struct ffv_list {
	struct ffv_view *view;        /* whose memory; NULL: the addresses are this process's */
	uint32_t num_segments;
	uint64_t length_bytes;
	struct ffv_segment segment[FFV_MAX_SGE + 1];
};

enum ffv_copy_result {
	FFV_COPY_DONE = 0,
	FFV_COPY_UNREACHABLE = 1,     /* nothing was copied: another process has to do it */
	FFV_COPY_FAULT_SRC = 2,       /* registered memory is not mapped any more */
	FFV_COPY_FAULT_DST = 3,
};

/* True if this process can touch all of [offset, offset + length) of the list. */
bool ffv_list_is_reachable(const struct ffv_list *list, uint64_t offset, uint64_t length);

/* Where [offset, offset + length) of the list is in this process: at most `most` pieces, as far as they go without a gap
 * that only the kernel or its owner reaches. How many. */
int ffv_list_here(const struct ffv_list *list, uint64_t offset, uint64_t length, struct iovec *pieces, int most);

/* A piece of a list as it stands here, and of which of its owner's registrations it is. */
struct ffv_place {
	uint8_t *here;                /* NULL: no address here leads to it */
	uint64_t length;
	uint8_t *first, *end;         /* all that stands here of that registration around it, without a gap */
	uint32_t region;              /* index of the registration's key */
	uint32_t stamp;               /* FFV_KEY_STAMP */
};

/* Bytes [offset, offset + length) of a list, and the keys that name its segments: those of `sges`, of which the empty ones
 * have no segment, or `key` if that is NULL. */
struct ffv_rest {
	const struct ffv_list *list;
	const struct ffv_sge_shm *sges;
	uint32_t num_sge;
	uint32_t key;
	uint64_t offset, length;
};

/* Where that is: at most `most` pieces, the last of which may be one that nothing here leads to. How many. */
int ffv_rest_places(const struct ffv_rest *rest, struct ffv_place *places, int most);
/* Of [addr, addr + length) in terms of a key, which is not checked: how many bytes from addr on are alike in whether peers
 * reach them by an address, and whether they do. */
uint32_t ffv_key_alike(const struct ffv_view *view, uint32_t key, uint64_t addr, uint32_t length, bool *reached);
/* Whether the registration of its index is the same one as then; stands: and not being given back. */
bool ffv_place_is_same(const struct ffv_view *view, const struct ffv_place *place);
bool ffv_place_stands(const struct ffv_view *view, const struct ffv_place *place);

/* The address here of [offset, offset + length) of a segment if it is one contiguous, directly mapped piece. */
static inline uint8_t *ffv_segment_address(struct ffv_view *view, const struct ffv_segment *segment, uint32_t offset,
					   uint32_t length)
{
	uint64_t va = segment->va + offset, last = va + length - 1;

	if (!view || view->direct)
		return (uint8_t *)(uintptr_t)va;
	if (ffv_unlikely(va < segment->mirror_first || va + length > segment->mirror_end || !view->windows ||
			 (va ^ last) >> FFV_WINDOW_SHIFT))
		return NULL;
	return ffv_windows_at(view->windows, va);
}

/* Makes on-demand memory that is to be accessed by the CPU itself present and writable; false if it is not. Between this
 * and the access only its owner can take it away. */
bool ffv_segment_populate(const struct ffv_segment *segment);

/* Copies `length` bytes. The last aligned word (or byte) of the destination is written last, with release, so that a
 * program may poll on it. */
enum ffv_copy_result ffv_copy_lists(const struct ffv_list *dst, uint64_t dst_offset, const struct ffv_list *src,
				    uint64_t src_offset, uint64_t length);

/* memcpy with the same promise about the end. */
static inline void ffv_copy_bytes(uint8_t *dst, const uint8_t *src, size_t length)
{
	if (ffv_likely(length >= 8 && ((uintptr_t)(dst + length) & 7) == 0)) {
		uint64_t last;
		memcpy(&last, src + length - 8, 8);
		if (length > 8)
			memcpy(dst, src, length - 8);
		ffv_store_release((_Atomic uint64_t *)(void *)(dst + length - 8), last);
	} else if (length) {
		uint8_t last = src[length - 1];
		memcpy(dst, src, length - 1);
		ffv_store_release((_Atomic uint8_t *)(dst + length - 1), last);
	}
}

/* The copy of a whole message between two places here. */
static inline void ffv_copy_message(uint8_t *dst, const uint8_t *src, size_t length)
{
#if FFV_FAULTS
	memcpy(dst, src, length / 2);
	FFV_FAULT(exec_mid_copy);
#endif
	ffv_copy_bytes(dst, src, length);
}

#endif

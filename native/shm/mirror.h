/* SPDX-License-Identifier: MIT
 *
 * The mirror: one sparse memfd per process in which the file offset of a registered page is its virtual address, and
 * the windows through which a peer's mirror is seen here (DESIGN D3, docs/decisions/0002).
 *
 * The own side is process-wide (one page can be mapped from one file only, whichever contexts register it), with a
 * lock of its own; after fork() the child starts with a new one. Windows are per attached peer; looking an address up
 * takes no lock.
 */
#ifndef FFV_SHM_MIRROR_H
#define FFV_SHM_MIRROR_H

#include <stddef.h>
#include <stdint.h>

#include "base/atomics.h"

/* ---- own memory ---------------------------------------------------------------------------------------------------- */

struct ffv_range { uint64_t first; uint64_t end; };

/* The descriptor of this process's mirror (created on first use; not the caller's to close). */
int ffv_mirror_fd(int *fd);
/* Zeroed, page-aligned memory mapped from the mirror; rounded up to pages. -ENOMEM. */
int ffv_mirror_alloc(size_t length_bytes, void **addr);
void ffv_mirror_free(void *addr, size_t length_bytes);

/* Takes a reference on every page of [addr, addr + length) and moves whole private anonymous pages inside it into the
 * mirror, losing no concurrent write. *mirrored is the largest run of it that peers can map now (empty: first == end
 * == addr); what stays outside (edge pages, read-only, file-backed, shared or huge-page mappings, memory of a parent)
 * only this process reaches. -EFAULT if a part is not mapped; -EACCES if it is not readable, or not writable where
 * `writable` asks for it. Memory that was unmapped or replaced since an earlier registration is noticed: its pages
 * are moved anew, and what the mirror held of the old ones is dropped. -ENOMEM: 32767 registrations hold a page, or
 * memory or mappings (vm.max_map_count: a moved buffer is one or two) are exhausted. A failed call changes nothing.
 * Takes about 0.6 ms a MiB that is in use, microseconds where the memory came from ffv_mirror_alloc. Limits on threads
 * and system calls that write to it meanwhile: shm/guard.h; what the pages lose on the way: shm/move.h. */
int ffv_mirror_pin(uint64_t addr, uint64_t length_bytes, int writable, struct ffv_range *mirrored);
/* Gives the references back. A page whose last reference goes becomes private again with its content (unless it was
 * unmapped or replaced meanwhile), and its part of the mirror is punched. Where memory for that is short, it stays in
 * the mirror, usable as before, until it is registered and deregistered again. Without effect in a fork child on what
 * its parent registered, as is ffv_mirror_free. */
void ffv_mirror_unpin(uint64_t addr, uint64_t length_bytes);

/* ---- a peer's memory ----------------------------------------------------------------------------------------------- */

#define FFV_WINDOW_SHIFT 36
#define FFV_WINDOW_BYTES (1ull << FFV_WINDOW_SHIFT)
#define FFV_WINDOW_COUNT (1u << (47 - FFV_WINDOW_SHIFT))

struct ffv_windows {
	int fd;                    /* the peer's mirror; owned */
	_Atomic uint64_t retry_ns; /* a window could not be mapped: none is tried before then */
	_Atomic(uint8_t *) base[FFV_WINDOW_COUNT]; /* NULL = not mapped yet */
};

/* fd becomes the windows' own. Checks that it is a memfd of the right size sealed against shrinking: -EPROTO. */
int ffv_windows_create(int fd, struct ffv_windows **out);
void ffv_windows_destroy(struct ffv_windows *windows);
/* Maps the window of peer address va; NULL if that cannot be done, e.g. RLIMIT_AS: with a text at the first time, then for
 * a second without trying again. */
uint8_t *ffv_windows_map(struct ffv_windows *windows, uint64_t va);

/* Where the peer's byte at va stands here; valid up to the end of its window (the next multiple of
 * FFV_WINDOW_BYTES). NULL if it cannot be mapped or va is not a user address. */
static inline uint8_t *ffv_windows_at(struct ffv_windows *windows, uint64_t va)
{
	uint64_t index = va >> FFV_WINDOW_SHIFT;

	if (ffv_unlikely(index >= FFV_WINDOW_COUNT))
		return NULL;
	uint8_t *base = ffv_load_acquire(&windows->base[index]);
	if (ffv_unlikely(!base) && !(base = ffv_windows_map(windows, va)))
		return NULL;
	return base + (va & (FFV_WINDOW_BYTES - 1));
}

#endif

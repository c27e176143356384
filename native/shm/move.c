/* SPDX-License-Identifier: MIT
 *
 * See move.h. Between hold and release only system calls are made and only the stack and static memory are used: the
 * held memory may be the heap itself.
 */
#include "shm/move.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "shm/guard.h"
#include "shm/maps.h"
#include "shm/pages.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Small enough that a writer waits for half a millisecond at most, large enough that the calls do not count. */
#define PIECE_BYTES (1u << 20)
#define MIN_PAGE_BYTES (1u << FFV_PAGE_SHIFT)
#define PIECE_PAGES (PIECE_BYTES / MIN_PAGE_BYTES)

/* Entries of /proc/self/pagemap. */
#define PAGEMAP_PRESENT (1ull << 63)
#define PAGEMAP_SWAPPED (1ull << 62)

struct pagemap {
	int fd; /* -errno: /proc does not tell */
	uint64_t page_bytes;
	uint64_t entries[PIECE_PAGES];
};

static void *at(uint64_t addr)
{
	return (void *)(uintptr_t)addr;
}

static size_t length_of(struct ffv_range range)
{
	return (size_t)(range.end - range.first);
}

/* To the program the content of its memory does not change here, so a sanitizer is not to take these calls for accesses
 * to it: they go past the C library. Arguments of syscall() are to be as wide as a register. */
static ssize_t raw_pwrite(int fd, struct ffv_range from)
{
	return syscall(SYS_pwrite64, (long)fd, at(from.first), length_of(from), (off_t)from.first);
}

static ssize_t raw_pread(int fd, struct ffv_range from, uint8_t *to)
{
	return syscall(SYS_pread64, (long)fd, to, length_of(from), (off_t)from.first);
}

/* Puts the mirror's pages in the place of whatever is there. */
static int raw_map_mirror(int fd, struct ffv_range piece)
{
	return syscall(SYS_mmap, at(piece.first), length_of(piece), (long)(PROT_READ | PROT_WRITE),
		(long)(MAP_SHARED | MAP_FIXED), (long)fd, (off_t)piece.first) == -1 ? -1 : 0;
}

/* Puts the private pages at `aside` in the place of whatever is there. */
static int raw_map_private(uint8_t *aside, struct ffv_range piece)
{
	return syscall(SYS_mremap, aside, length_of(piece), length_of(piece),
		(long)(MREMAP_MAYMOVE | MREMAP_FIXED), at(piece.first)) == -1 ? -1 : 0;
}

static struct ffv_range piece_at(struct ffv_range range, uint64_t first)
{
	uint64_t end = (first | (PIECE_BYTES - 1)) + 1;

	return (struct ffv_range){ first, end < range.end ? end : range.end };
}

static bool file_has_data(int fd, struct ffv_range range)
{
	off_t data = lseek(fd, (off_t)range.first, SEEK_DATA);

	return data >= 0 && (uint64_t)data < range.end;
}

void ffv_move_punch(int fd, struct ffv_range range)
{
	/* Fails on a signal only. */
	while (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)range.first, (off_t)length_of(range)) &&
		errno == EINTR)
		;
}

/* ---- in ------------------------------------------------------------------------------------------------------------ */

/* Which pages of a piece hold anything: one that was never touched would only be made to take memory. */
static void pagemap_read(struct pagemap *pagemap, struct ffv_range piece)
{
	size_t want = length_of(piece) / pagemap->page_bytes * sizeof pagemap->entries[0];
	off_t offset = (off_t)(piece.first / pagemap->page_bytes * sizeof pagemap->entries[0]);

	if (pagemap->fd < 0 || pread(pagemap->fd, pagemap->entries, want, offset) != (ssize_t)want)
		memset(pagemap->entries, 0xff, sizeof pagemap->entries);
}

static bool is_populated(const struct pagemap *pagemap, struct ffv_range piece, uint64_t addr)
{
	uint64_t index = (addr - piece.first) / pagemap->page_bytes;

	return pagemap->entries[index] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED);
}

/* A page that had been given back lazily (MADV_FREE) may vanish, and is zero then. */
static bool has_vanished(struct pagemap *pagemap, struct ffv_range piece, uint64_t addr)
{
	pagemap_read(pagemap, piece);
	return !is_populated(pagemap, piece, addr);
}

static int write_run(int fd, struct pagemap *pagemap, struct ffv_range piece, struct ffv_range run)
{
	while (run.first < run.end) {
		ssize_t put = raw_pwrite(fd, run);
		int err = errno;
		if (put < 0 && err == EFAULT && has_vanished(pagemap, piece, run.first))
			put = (ssize_t)pagemap->page_bytes;
		if (put < 0 && err == EINTR)
			continue;
		if (put <= 0)
			return ffv_fail_errno(put ? err : ENOSPC, "cannot move %zu bytes at %p into shared memory",
				length_of(run), at(run.first));
		run.first += (uint64_t)put;
	}
	return 0;
}

static int write_piece(int fd, struct pagemap *pagemap, struct ffv_range piece)
{
	int rc = 0;

	pagemap_read(pagemap, piece);
	for (uint64_t addr = piece.first; addr < piece.end && !rc;) {
		struct ffv_range run = { addr, addr };
		while (run.end < piece.end && is_populated(pagemap, piece, run.end))
			run.end += pagemap->page_bytes;
		rc = write_run(fd, pagemap, piece, run);
		addr = run.end + pagemap->page_bytes; /* the page that ended the run is not populated */
	}
	return rc;
}

static int move_piece_in(int fd, struct pagemap *pagemap, struct ffv_range piece)
{
	if (file_has_data(fd, piece))
		ffv_move_punch(fd, piece);
	int rc = ffv_guard_hold(piece);
	if (rc)
		return rc;
	rc = write_piece(fd, pagemap, piece);
	if (!rc && raw_map_mirror(fd, piece))
		rc = ffv_fail_errno(errno, "cannot map registered memory at %p (ENOMEM: vm.max_map_count is reached)",
			at(piece.first));
	if (rc)
		ffv_guard_unprotect(piece);
	ffv_guard_release();
	if (rc)
		ffv_move_punch(fd, piece);
	return rc;
}

int ffv_move_in(int fd, struct ffv_range range, uint64_t *done)
{
	struct pagemap pagemap = { .fd = ffv_maps_open("pagemap"), .page_bytes = (uint64_t)sysconf(_SC_PAGESIZE) };
	int rc = ffv_guard_begin(pagemap.fd >= 0);

	*done = range.first;
	while (!rc && *done < range.end) {
		struct ffv_range piece = piece_at(range, *done);
		rc = move_piece_in(fd, &pagemap, piece);
		if (!rc)
			*done = piece.end;
	}
	if (pagemap.fd >= 0)
		close(pagemap.fd);
	return rc;
}

/* ---- out ----------------------------------------------------------------------------------------------------------- */

static int read_run(int fd, struct ffv_range run, uint8_t *to)
{
	while (run.first < run.end) {
		ssize_t got = raw_pread(fd, run, to);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return ffv_fail_errno(got ? errno : EIO, "cannot copy registered memory at %p back", at(run.first));
		run.first += (uint64_t)got;
		to += got;
	}
	return 0;
}

struct source {
	int fd;
	struct ffv_range known; /* a stretch that the mirror holds: it may reach over many pieces, and is long to search */
};

/* The first run of a piece from `from` on that the mirror holds; its holes are zero in fresh memory too. */
static bool next_data(struct source *source, struct ffv_range piece, uint64_t from, struct ffv_range *run)
{
	if (from >= piece.end)
		return false;
	if (from < source->known.first || from >= source->known.end) {
		off_t data = lseek(source->fd, (off_t)from, SEEK_DATA);
		if (data < 0 || (uint64_t)data >= piece.end)
			return false;
		off_t hole = lseek(source->fd, data, SEEK_HOLE);
		source->known = (struct ffv_range){ (uint64_t)data, hole < 0 ? piece.end : (uint64_t)hole };
	}
	run->first = from > source->known.first ? from : source->known.first;
	run->end = piece.end < source->known.end ? piece.end : source->known.end;
	return true;
}

/* Faults fresh memory in before writers have to wait; a failure only costs time later. */
static void prepare_aside(struct source *source, struct ffv_range piece, uint8_t *aside)
{
	struct ffv_range run;

	for (uint64_t addr = piece.first; next_data(source, piece, addr, &run); addr = run.end)
		madvise(aside + (run.first - piece.first), length_of(run), MADV_POPULATE_WRITE);
}

static int read_piece(struct source *source, struct ffv_range piece, uint8_t *aside)
{
	struct ffv_range run;
	int rc = 0;

	for (uint64_t addr = piece.first; !rc && next_data(source, piece, addr, &run); addr = run.end)
		rc = read_run(source->fd, run, aside + (run.first - piece.first));
	return rc;
}

static int move_piece_out(struct source *source, struct ffv_range piece, uint8_t *aside)
{
	prepare_aside(source, piece, aside);
	int rc = ffv_guard_hold(piece);
	if (rc)
		return rc;
	rc = read_piece(source, piece, aside);
	if (!rc && raw_map_private(aside, piece))
		rc = ffv_fail_errno(errno, "cannot make registered memory at %p private again", at(piece.first));
	if (rc)
		ffv_guard_unprotect(piece);
	ffv_guard_release();
	return rc;
}

static uint8_t *map_aside(size_t length)
{
	uint8_t *aside = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return aside == MAP_FAILED ? NULL : aside;
}

/* One reservation for all of it, where address space allows, lets the pieces become one mapping again. */
int ffv_move_out(int fd, struct ffv_range range, uint64_t *done)
{
	struct source source = { .fd = fd };
	uint8_t *whole = map_aside(length_of(range));
	int rc = ffv_guard_begin(true);

	*done = range.first;
	while (!rc && *done < range.end) {
		struct ffv_range piece = piece_at(range, *done);
		uint8_t *aside = whole ? whole + (piece.first - range.first) : map_aside(length_of(piece));
		if (!aside) {
			rc = ffv_fail_errno(errno, "no memory to make registered memory private again");
			break;
		}
		rc = move_piece_out(&source, piece, aside);
		if (rc && !whole)
			munmap(aside, length_of(piece));
		if (!rc)
			*done = piece.end;
	}
	if (whole && rc)
		munmap(whole + (*done - range.first), range.end - *done);
	return rc;
}

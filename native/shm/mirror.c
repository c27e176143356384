/* SPDX-License-Identifier: MIT
 *
 * The own side of mirror.h: which memory of this process is registered, and where it stands. One lock for all; a
 * fork waits for it, so that a child never inherits half-moved memory, and then begins with nothing.
 */
#include "shm/mirror.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/error.h"
#include "shm/guard.h"
#include "shm/maps.h"
#include "shm/move.h"
#include "shm/pages.h"

static struct {
	pthread_mutex_t lock;
	pthread_mutex_t turn;        /* held while waiting for the lock: who just had it queues behind */
	int fd;                      /* -1: not created yet */
	dev_t dev;
	ino_t inode;
	uint64_t page_bytes;
	struct ffv_range *allocated; /* what ffv_mirror_alloc gave, by address; its pages hold a reference of their own */
	size_t allocated_count, allocated_room;
	struct ffv_pages pages;
} mirror = { .lock = PTHREAD_MUTEX_INITIALIZER, .turn = PTHREAD_MUTEX_INITIALIZER, .fd = -1 };

static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

/* ---- the file ------------------------------------------------------------------------------------------------------ */

static void take_lock(void)
{
	pthread_mutex_lock(&mirror.turn);
	pthread_mutex_lock(&mirror.lock);
	pthread_mutex_unlock(&mirror.turn);
}

/* Both: a child inherits no other thread, so none that could give a mutex back. */
static void before_fork(void)
{
	pthread_mutex_lock(&mirror.turn);
	pthread_mutex_lock(&mirror.lock);
}

static void after_fork_in_parent(void)
{
	pthread_mutex_unlock(&mirror.lock);
	pthread_mutex_unlock(&mirror.turn);
}

/* What the child inherited stays mapped from the parent's file; to the child that is some shared mapping. */
static void after_fork_in_child(void)
{
	if (mirror.fd >= 0)
		close(mirror.fd);
	mirror.fd = -1;
	ffv_guard_forget();
	mirror.allocated_count = 0;
	ffv_pages_clear(&mirror.pages);
	after_fork_in_parent();
}

static void watch_forks(void)
{
	pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* Writing beyond RLIMIT_FSIZE would kill the process with SIGXFSZ. */
static int check_file_size_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_FSIZE, &limit) || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= FFV_ADDRESS_END)
		return 0;
	return ffv_fail(EFBIG, "the limit on file sizes is %llu bytes, registered memory needs %llu: "
		"lift it with `ulimit -f unlimited`", (unsigned long long)limit.rlim_cur, FFV_ADDRESS_END);
}

static int create_file(void)
{
	struct stat st;
	int fd = memfd_create("ffverbs-mirror", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return ffv_fail_errno(errno, "cannot create the memory file for registered memory");
	if (ftruncate(fd, (off_t)FFV_ADDRESS_END) ||
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) || fstat(fd, &st)) {
		int err = errno;
		close(fd);
		return ffv_fail_errno(err, "cannot prepare the memory file for registered memory");
	}
	mirror.fd = fd;
	mirror.dev = st.st_dev;
	mirror.inode = st.st_ino;
	return 0;
}

/* Takes the lock and sees to it that there is a mirror; on failure it is unlocked. */
static int lock_mirror(void)
{
	pthread_once(&fork_once, watch_forks);
	take_lock();
	mirror.page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	int rc = mirror.fd >= 0 ? 0 : check_file_size_limit();
	if (!rc && mirror.fd < 0)
		rc = create_file();
	if (rc)
		pthread_mutex_unlock(&mirror.lock);
	return rc;
}

static int unlock_mirror(int rc)
{
	pthread_mutex_unlock(&mirror.lock);
	return rc;
}

int ffv_mirror_fd(int *fd)
{
	int rc = lock_mirror();

	if (rc)
		return rc;
	*fd = mirror.fd;
	return unlock_mirror(0);
}

/* ---- ranges -------------------------------------------------------------------------------------------------------- */

static uint64_t page_floor(uint64_t addr)
{
	return addr & ~(mirror.page_bytes - 1);
}

static uint64_t page_ceil(uint64_t addr)
{
	return page_floor(addr + mirror.page_bytes - 1);
}

static struct ffv_range intersect(struct ffv_range a, struct ffv_range b)
{
	struct ffv_range both = { a.first > b.first ? a.first : b.first, a.end < b.end ? a.end : b.end };

	if (both.end < both.first)
		both.end = both.first;
	return both;
}

static bool is_empty(struct ffv_range range)
{
	return range.first >= range.end;
}

/* ---- memory of the engine's own ------------------------------------------------------------------------------------ */

/* Index of the first allocation that ends above addr. */
static size_t allocated_find(uint64_t addr)
{
	size_t low = 0, high = mirror.allocated_count;

	while (low < high) {
		size_t middle = (low + high) / 2;
		if (mirror.allocated[middle].end > addr)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static bool is_allocated(struct ffv_range range)
{
	size_t index = allocated_find(range.first);

	return index < mirror.allocated_count && mirror.allocated[index].first <= range.first &&
		range.end <= mirror.allocated[index].end;
}

static int allocated_make_room(void)
{
	if (mirror.allocated_count < mirror.allocated_room)
		return 0;
	size_t room = mirror.allocated_room ? mirror.allocated_room * 2 : 64;
	struct ffv_range *grown = realloc(mirror.allocated, room * sizeof *grown);
	if (!grown)
		return ffv_fail(ENOMEM, "out of memory for the list of memory regions");
	mirror.allocated = grown;
	mirror.allocated_room = room;
	return 0;
}

static void allocated_insert(struct ffv_range range)
{
	size_t index = allocated_find(range.first);
	struct ffv_range *slot = mirror.allocated + index;

	memmove(slot + 1, slot, (mirror.allocated_count - index) * sizeof *slot);
	*slot = range;
	mirror.allocated_count++;
}

static void allocated_remove(size_t index)
{
	struct ffv_range *slot = mirror.allocated + index;

	mirror.allocated_count--;
	memmove(slot, slot + 1, (mirror.allocated_count - index) * sizeof *slot);
}

/* The place must equal the offset in the file, so the kernel chooses it first. */
static int map_new(size_t length, struct ffv_range *range)
{
	void *place = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (place == MAP_FAILED)
		return ffv_fail_errno(errno, "cannot allocate %zu bytes", length);
	*range = (struct ffv_range){ (uintptr_t)place, (uintptr_t)place + length };
	int rc = range->end > FFV_ADDRESS_END ? ffv_fail(ENOMEM, "no address below 2^47 is free for %zu bytes", length) :
		ffv_pages_reserve(&mirror.pages, *range);
	if (rc) {
		munmap(place, length);
		return rc;
	}
	/* What an older registration of since unmapped memory still holds there must not be seen in new memory. */
	ffv_move_punch(mirror.fd, *range);
	if (mmap(place, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, mirror.fd, (off_t)range->first) !=
		MAP_FAILED)
		return 0;
	rc = ffv_fail_errno(errno, "cannot allocate %zu bytes of shared memory", length);
	munmap(place, length);
	ffv_pages_prune(&mirror.pages, *range);
	return rc;
}

int ffv_mirror_alloc(size_t length_bytes, void **addr)
{
	struct ffv_range range;
	int rc = lock_mirror();

	if (rc)
		return rc;
	if (length_bytes == 0)
		length_bytes = 1;
	if (length_bytes > FFV_ADDRESS_END)
		return unlock_mirror(ffv_fail(ENOMEM, "cannot allocate %zu bytes", length_bytes));
	rc = allocated_make_room();
	if (!rc)
		rc = map_new(page_ceil(length_bytes), &range);
	if (rc)
		return unlock_mirror(rc);
	ffv_pages_add(&mirror.pages, range);
	ffv_pages_set_moved(&mirror.pages, range, true);
	allocated_insert(range);
	*addr = (void *)(uintptr_t)range.first;
	return unlock_mirror(0);
}

/* Pages that nobody holds and that are not mapped any more. */
static void punch_idle(struct ffv_range range)
{
	for (struct ffv_range run; ffv_pages_find_idle(&mirror.pages, range, &run); range.first = run.end) {
		ffv_move_punch(mirror.fd, run);
		ffv_pages_set_moved(&mirror.pages, run, false);
	}
}

void ffv_mirror_free(void *addr, size_t length_bytes)
{
	take_lock();
	size_t index = allocated_find((uintptr_t)addr);
	/* A fork child comes here with memory of its parent, which it knows nothing of. */
	if (index >= mirror.allocated_count || mirror.allocated[index].first != (uintptr_t)addr) {
		unlock_mirror(0);
		return;
	}
	struct ffv_range range = mirror.allocated[index];
	(void)length_bytes; /* as allocated */
	allocated_remove(index);
	munmap(addr, range.end - range.first);
	ffv_pages_drop(&mirror.pages, range);
	punch_idle(range);
	ffv_pages_prune(&mirror.pages, range);
	unlock_mirror(0);
}

/* ---- registering --------------------------------------------------------------------------------------------------- */

/* Mapped from the mirror, at the place that is its own. */
static bool is_ours(const struct ffv_mapping *mapping)
{
	return mapping->shared && mapping->inode == mirror.inode && mapping->offset == mapping->range.first &&
		mapping->dev_major == major(mirror.dev) && mapping->dev_minor == minor(mirror.dev);
}

static bool is_movable(const struct ffv_mapping *mapping)
{
	return mapping->anonymous && mapping->readable && mapping->writable && !mapping->executable;
}

static int check_access(struct ffv_range range, const struct ffv_maps *maps, bool writable)
{
	uint64_t covered = range.first;

	for (size_t i = 0; i < maps->count; i++) {
		const struct ffv_mapping *mapping = &maps->list[i];
		if (mapping->range.first > covered)
			break;
		if (!mapping->readable)
			return ffv_fail(EACCES, "memory at 0x%llx cannot be read", (unsigned long long)mapping->range.first);
		if (writable && !mapping->writable)
			return ffv_fail(EACCES, "memory at 0x%llx is read-only: register it without local write access",
				(unsigned long long)mapping->range.first);
		covered = mapping->range.end;
	}
	if (covered >= range.end)
		return 0;
	return ffv_fail(EFAULT, "there is no memory at 0x%llx", (unsigned long long)covered);
}

/* Without /proc: is every page readable? */
static int probe_access(struct ffv_range range)
{
	for (uint64_t addr = range.first; addr < range.end; addr += mirror.page_bytes) {
		char byte;
		struct iovec to = { &byte, 1 }, from = { (void *)(uintptr_t)addr, 1 };
		if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) < 0 && errno == EFAULT)
			return ffv_fail(EFAULT, "there is no readable memory at 0x%llx", (unsigned long long)addr);
	}
	return 0;
}

static int move_in_all(struct ffv_range inner, struct ffv_maps *maps)
{
	int rc = 0;

	for (size_t i = 0; i < maps->count && !rc; i++) {
		struct ffv_range run = intersect(maps->list[i].range, inner);
		uint64_t done;
		if (!is_movable(&maps->list[i]) || is_empty(run))
			continue;
		rc = check_file_size_limit();
		if (rc)
			break;
		rc = ffv_move_in(mirror.fd, run, &done);
		ffv_pages_set_moved(&mirror.pages, (struct ffv_range){ run.first, done }, true);
	}
	return rc;
}

/* The longest stretch of `bytes` that peers can map, now that movable pages of `inner` have been moved. */
static struct ffv_range longest_mirrored(struct ffv_range bytes, struct ffv_range inner, const struct ffv_maps *maps)
{
	struct ffv_range best = { bytes.first, bytes.first }, now = best;

	for (size_t i = 0; i < maps->count; i++) {
		const struct ffv_mapping *mapping = &maps->list[i];
		struct ffv_range part = { 0, 0 };
		if (is_ours(mapping) && mapping->readable && mapping->writable)
			part = intersect(mapping->range, bytes);
		else if (is_movable(mapping))
			part = intersect(intersect(mapping->range, inner), bytes);
		if (is_empty(part))
			continue;
		now = (struct ffv_range){ part.first == now.end ? now.first : part.first, part.end };
		if (now.end - now.first > best.end - best.first)
			best = now;
	}
	return best;
}

/* Makes idle pages private again where they are still mapped from the mirror; what cannot be made so stays. */
static void move_out_idle(struct ffv_range run)
{
	struct ffv_maps maps;

	if (ffv_maps_read(run, &maps))
		return;
	uint64_t settled = run.first; /* below it nothing is mapped from the mirror any more */
	int rc = 0;
	for (size_t i = 0; i < maps.count && !rc; i++) {
		uint64_t done = maps.list[i].range.end;
		if (is_ours(&maps.list[i]))
			rc = ffv_move_out(mirror.fd, maps.list[i].range, &done);
		settled = done;
	}
	ffv_maps_free(&maps);
	punch_idle((struct ffv_range){ run.first, rc ? settled : run.end });
}

static void unpin_pages(struct ffv_range pages)
{
	struct ffv_range rest = pages, run;

	ffv_pages_drop(&mirror.pages, pages);
	while (ffv_pages_find_idle(&mirror.pages, rest, &run)) {
		move_out_idle(run);
		rest.first = run.end;
	}
	ffv_pages_prune(&mirror.pages, pages);
}

static int pin_mapped(struct ffv_range bytes, bool writable, struct ffv_range *mirrored)
{
	struct ffv_range pages = { page_floor(bytes.first), page_ceil(bytes.end) };
	struct ffv_range inner = { page_ceil(bytes.first), page_floor(bytes.end) };
	struct ffv_maps maps = { 0 };
	int rc = ffv_maps_read(pages, &maps);

	if (rc == -ENOENT) /* nothing can be moved then */
		rc = probe_access(pages);
	else if (!rc)
		rc = check_access(pages, &maps, writable);
	if (!rc && !(rc = ffv_pages_reserve(&mirror.pages, pages))) {
		ffv_pages_add(&mirror.pages, pages);
		rc = move_in_all(inner, &maps);
		if (rc)
			unpin_pages(pages);
		else
			*mirrored = longest_mirrored(bytes, inner, &maps);
	}
	ffv_maps_free(&maps);
	return rc;
}

static int pin_allocated(struct ffv_range bytes, struct ffv_range *mirrored)
{
	struct ffv_range pages = { page_floor(bytes.first), page_ceil(bytes.end) };
	int rc = ffv_pages_reserve(&mirror.pages, pages);

	if (rc)
		return rc;
	ffv_pages_add(&mirror.pages, pages);
	*mirrored = bytes;
	return 0;
}

int ffv_mirror_pin(uint64_t addr, uint64_t length_bytes, int writable, struct ffv_range *mirrored)
{
	struct ffv_range bytes = { addr, addr + length_bytes };

	if (addr > FFV_ADDRESS_END || length_bytes > FFV_ADDRESS_END - addr)
		return ffv_fail(EFAULT, "0x%llx + %llu bytes is not a range of addresses of a process",
			(unsigned long long)addr, (unsigned long long)length_bytes);
	if (length_bytes == 0) {
		*mirrored = bytes;
		return 0;
	}
	int rc = lock_mirror();
	if (rc)
		return rc;
	return unlock_mirror(is_allocated(bytes) ? pin_allocated(bytes, mirrored) :
		pin_mapped(bytes, writable, mirrored));
}

void ffv_mirror_unpin(uint64_t addr, uint64_t length_bytes)
{
	if (addr > FFV_ADDRESS_END || length_bytes > FFV_ADDRESS_END - addr || length_bytes == 0)
		return;
	take_lock();
	/* A fork child comes here with registrations of its parent, whose pages it knows nothing of. */
	if (mirror.fd >= 0)
		unpin_pages((struct ffv_range){ page_floor(addr), page_ceil(addr + length_bytes) });
	unlock_mirror(0);
}

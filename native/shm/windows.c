/* SPDX-License-Identifier: MIT
 *
 * A peer's mirror as seen from this process: windows of 64 GiB, mapped when first needed. Looking up takes no lock; two
 * threads that map the same window race, and the loser gives its mapping back. The descriptor comes from the peer and
 * is not trusted.
 */
#include "shm/mirror.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "shm/pages.h"

/* Address space that was short is short for the next message too: each would pay for a failed mapping. */
#define RETRY_NS 1000000000ull

/* Seals only exist on memory files; a peer could else cut the file short under us (SIGBUS). */
static int check_peer_file(int fd)
{
	struct stat st;
	struct statfs fs;

	if (fstat(fd, &st) || fstatfs(fd, &fs))
		return ffv_fail_errno(errno, "cannot examine the memory file of the peer");
	if (!S_ISREG(st.st_mode) || fs.f_type != TMPFS_MAGIC)
		return ffv_fail(EPROTO, "what the peer sent as its memory is not a memory file");
	if ((uint64_t)st.st_size != FFV_ADDRESS_END)
		return ffv_fail(EPROTO, "the peer's memory file has %lld bytes, expected %llu",
			(long long)st.st_size, FFV_ADDRESS_END);
	int seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || !(seals & F_SEAL_SHRINK))
		return ffv_fail(EPROTO, "the peer's memory file is not sealed against shrinking");
	int mode = fcntl(fd, F_GETFL);
	if (mode < 0 || (mode & O_ACCMODE) != O_RDWR)
		return ffv_fail(EPROTO, "the peer's memory file is not open for reading and writing");
	return 0;
}

int ffv_windows_create(int fd, struct ffv_windows **out)
{
	int rc = check_peer_file(fd);
	struct ffv_windows *windows = rc ? NULL : calloc(1, sizeof *windows);

	if (!rc && !windows)
		rc = ffv_fail(ENOMEM, "out of memory for the windows on a peer");
	if (rc) {
		close(fd);
		return rc;
	}
	windows->fd = fd;
	*out = windows;
	return 0;
}

void ffv_windows_destroy(struct ffv_windows *windows)
{
	if (!windows)
		return;
	for (uint32_t i = 0; i < FFV_WINDOW_COUNT; i++) {
		uint8_t *base = ffv_load_relaxed(&windows->base[i]);
		if (base)
			munmap(base, FFV_WINDOW_BYTES);
	}
	close(windows->fd);
	free(windows);
}

uint8_t *ffv_windows_map(struct ffv_windows *windows, uint64_t va)
{
	uint64_t index = va >> FFV_WINDOW_SHIFT, retry_ns = ffv_load_relaxed(&windows->retry_ns);
	uint8_t *winner = NULL;

	if (index >= FFV_WINDOW_COUNT || (retry_ns && ffv_clock_ns() < retry_ns))
		return NULL;
	uint8_t *base = mmap(NULL, FFV_WINDOW_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, windows->fd,
		(off_t)(index << FFV_WINDOW_SHIFT));
	if (base == MAP_FAILED) {
		ffv_store_relaxed(&windows->retry_ns, ffv_clock_ns() + RETRY_NS);
		ffv_fail_errno(errno, "cannot map the peer's memory: 64 GiB of address space are needed "
			"(raise `ulimit -v`, RLIMIT_AS, or vm.max_map_count)");
		return NULL;
	}
	/* A fork child has no business in a peer's memory, a core dump neither. */
	madvise(base, FFV_WINDOW_BYTES, MADV_DONTFORK);
	madvise(base, FFV_WINDOW_BYTES, MADV_DONTDUMP);
	/* [window-publish] pairs with the acquire in ffv_windows_at. */
	if (ffv_cas(&windows->base[index], &winner, base))
		return base;
	munmap(base, FFV_WINDOW_BYTES);
	return winner;
}

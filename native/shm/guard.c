/* SPDX-License-Identifier: MIT
 *
 * See guard.h. Chooses the means, and is the one by userfaultfd itself.
 */
#include "shm/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shm/guard_signal.h"

/* Features, of newer headers: write protection, absent pages of shared memory, write protection of shared memory. */
#define FEATURES (1ull << 0 | 1ull << 5 | 1ull << 12)
/* The kernel's own accesses are not to wait: the mover's would wait for the mover. They need no privilege either. */
#define USER_MODE_ONLY 1l

static struct {
	bool chosen; /* for what is under way */
	int fd; /* kept: closing searches all mappings of the process. -1: not to be had */
	bool tried;
	bool avoided;
	bool holds; /* the held range is held by it, not by a signal handler */
	struct ffv_range held;
} uffd = { .fd = -1 };

static int open_userfaultfd(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = FEATURES };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY);

	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api)) {
		close(fd);
		return -1;
	}
	return fd;
}

int ffv_guard_begin(bool knows_absent_pages)
{
	if (!uffd.tried)
		uffd.fd = open_userfaultfd();
	uffd.tried = true;
	uffd.chosen = uffd.fd >= 0 && knows_absent_pages && !uffd.avoided;
	return uffd.chosen ? 0 : ffv_guard_signal_begin();
}

void ffv_guard_forget(void)
{
	if (uffd.fd >= 0)
		close(uffd.fd);
	uffd.fd = -1;
	uffd.tried = false;
}

static struct uffdio_range kernel_range(struct ffv_range range)
{
	return (struct uffdio_range){ .start = range.first, .len = range.end - range.first };
}

static bool hold_by_userfaultfd(struct ffv_range range)
{
	struct uffdio_register reg = { .range = kernel_range(range),
		.mode = UFFDIO_REGISTER_MODE_WP | UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_writeprotect protect = { .range = reg.range, .mode = UFFDIO_WRITEPROTECT_MODE_WP };

	if (!uffd.chosen || ioctl(uffd.fd, UFFDIO_REGISTER, &reg))
		return false; /* e.g. the application uses it for this very memory */
	uffd.held = range;
	uffd.holds = !ioctl(uffd.fd, UFFDIO_WRITEPROTECT, &protect);
	if (!uffd.holds)
		ioctl(uffd.fd, UFFDIO_UNREGISTER, &reg.range);
	return uffd.holds;
}

int ffv_guard_hold(struct ffv_range range)
{
	if (hold_by_userfaultfd(range))
		return 0;
	int rc = ffv_guard_signal_begin();
	return rc ? rc : ffv_guard_signal_hold(range);
}

void ffv_guard_release(void)
{
	struct uffdio_range range = kernel_range(uffd.held);

	if (!uffd.holds) {
		ffv_guard_signal_release();
		return;
	}
	uffd.holds = false;
	ioctl(uffd.fd, UFFDIO_WAKE, &range);
}

void ffv_guard_unprotect(struct ffv_range range)
{
	struct uffdio_range whole = kernel_range(range);

	if (uffd.holds)
		ioctl(uffd.fd, UFFDIO_UNREGISTER, &whole);
	else
		ffv_guard_signal_unprotect(range);
}

void ffv_guard_avoid_userfaultfd(bool avoid)
{
	uffd.avoided = avoid;
}

bool ffv_guard_has_userfaultfd(void)
{
	return uffd.chosen;
}

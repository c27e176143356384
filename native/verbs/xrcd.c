/* SPDX-License-Identifier: MIT
 *
 * XRC domains. Process-private; peers see the domain's name only (struct ffv_xrc_domain).
 *
 * The name of a domain that is shared by a file is the file's inode. Whether somebody has it open already, whoever it is
 * and in whatever container, a lock on the file tells: each domain holds a read lock on a byte that no data ever stands
 * at, on an open file description of its own, so that the kernel drops it however the process ends.
 */
#include "verbs/xrcd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

#define LOCKED_BYTE (INT64_MAX - 0x585243) /* far beyond what a file system lets a file grow to */
#define TRIES 8

static int set_lock(int fd, short type)
{
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = LOCKED_BYTE, .l_len = 1 };

	return fcntl(fd, F_OFD_SETLK, &lock) ? ffv_fail_errno(errno, "cannot lock the file of the XRC domain") : 0;
}

/* 1 if another description holds the lock. */
static int is_open_elsewhere(int fd)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCKED_BYTE, .l_len = 1 };

	if (fcntl(fd, F_OFD_GETLK, &lock))
		return ffv_fail_errno(errno, "cannot see the locks on the file of the XRC domain");
	return lock.l_type != F_UNLCK;
}

/* Marks the domain as open, then looks who else did: of two that want it for themselves, no more than one stays. */
static int join_domain(int fd, int oflags)
{
	for (int n = 1;; n++) {
		int rc = set_lock(fd, F_RDLCK);
		int others = rc ? rc : is_open_elsewhere(fd);
		if (others < 0)
			return others;
		if (!others && !(oflags & O_CREAT))
			return ffv_fail(EAGAIN, "no process has an XRC domain open for this file: set O_CREAT to make it");
		if (!others || !(oflags & O_EXCL))
			return 0;
		/* Perhaps another one that wants it for itself has only just marked it, and gives way as well. */
		set_lock(fd, F_UNLCK);
		if (n == TRIES)
			return ffv_fail(EINVAL, "there is an XRC domain for this file already, and O_EXCL is set");
		usleep(ffv_random32() % 1000);
	}
}

/* A description of our own of the caller's file. */
static int reopen(int fd)
{
	char path[32];

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	int own = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	return own >= 0 ? own : ffv_fail_errno(errno, "the file of an XRC domain must be open, and one that can be read");
}

static int open_file(struct ffv_xrcd *xrcd, int fd, int oflags)
{
	struct stat st;

	if (fstat(fd, &st))
		return ffv_fail_errno(errno, "descriptor %d of an XRC domain's file is not open", fd);
	int own = reopen(fd);
	int rc = own < 0 ? own : join_domain(own, oflags);
	if (rc) {
		if (own >= 0)
			close(own);
		return rc;
	}
	xrcd->fd = own;
	xrcd->domain = (struct ffv_xrc_domain){ .device = (uint64_t)st.st_dev + 1, .inode = st.st_ino };
	return 0;
}

static int check_attr(const struct ffv_xrcd_init_attr *attr)
{
	const uint32_t both = FFV_XRCD_INIT_ATTR_FD | FFV_XRCD_INIT_ATTR_OFLAGS;

	if (attr->comp_mask & ~both)
		return ffv_fail(EOPNOTSUPP, "comp_mask %#x of an XRC domain has unknown bits", attr->comp_mask);
	if (attr->comp_mask != both)
		return ffv_fail(EINVAL, "an XRC domain needs both fd and oflags: set FD (1) and OFLAGS (2) in comp_mask");
	if (attr->oflags & ~(O_CREAT | O_EXCL))
		return ffv_fail(EINVAL, "oflags %#x of an XRC domain; O_CREAT and O_EXCL are known", (unsigned)attr->oflags);
	if (attr->fd < -1)
		return ffv_fail(EBADF, "descriptor %d of an XRC domain's file; -1 is a domain without one", attr->fd);
	return 0;
}

int ffv_open_xrcd(struct ffv_context *ctx, const struct ffv_xrcd_init_attr *attr, struct ffv_xrcd **out)
{
	int rc = ffv_context_check(ctx);

	if (!rc)
		rc = check_attr(attr);
	if (rc)
		return rc;
	struct ffv_xrcd *xrcd = calloc(1, sizeof *xrcd);
	if (!xrcd)
		return ffv_fail(ENOMEM, "no memory for an XRC domain");
	xrcd->ctx = ctx;
	xrcd->fd = -1;
	if (attr->fd >= 0)
		rc = open_file(xrcd, attr->fd, attr->oflags);
	else
		xrcd->domain.inode = (uint64_t)ffv_random32() << 32 | ffv_random32();
	if (rc) {
		free(xrcd);
		return rc;
	}
	pthread_mutex_lock(&ctx->lock);
	xrcd->next = ctx->xrcds;
	ctx->xrcds = xrcd;
	pthread_mutex_unlock(&ctx->lock);
	*out = xrcd;
	return 0;
}

static void unlist(struct ffv_context *ctx, struct ffv_xrcd *xrcd)
{
	struct ffv_xrcd **at = &ctx->xrcds;

	while (*at != xrcd)
		at = &(*at)->next;
	*at = xrcd->next;
}

int ffv_close_xrcd(struct ffv_xrcd *xrcd)
{
	uint32_t users = 0;

	if (!xrcd)
		return ffv_fail(EINVAL, "no XRC domain");
	struct ffv_context *ctx = xrcd->ctx;
	if (!ffv_context_check(ctx)) {
		pthread_mutex_lock(&ctx->lock);
		users = xrcd->users;
		if (!users)
			unlist(ctx, xrcd);
		pthread_mutex_unlock(&ctx->lock);
	}
	if (users)
		return ffv_fail(EBUSY, "the XRC domain still has %u queue pairs and shared receive queues", users);
	if (xrcd->fd >= 0)
		close(xrcd->fd); /* which drops the lock */
	free(xrcd);
	return 0;
}

void ffv_xrcd_close_descriptors(struct ffv_context *ctx)
{
	for (struct ffv_xrcd *xrcd = ctx->xrcds; xrcd; xrcd = xrcd->next) {
		if (xrcd->fd >= 0)
			close(xrcd->fd);
		xrcd->fd = -1;
	}
}

/* SPDX-License-Identifier: MIT
 *
 * See nodedir.h. How a name is judged: a connection of another socket type is refused with EPROTOTYPE when the socket is
 * bound by somebody alive, and with ECONNREFUSED when nobody holds it any more. So a living context is not woken by
 * whoever looks for a free block.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "shm/layout.h"
#include "shm/nodedir_private.h"

#define BACKLOG 1024
#define LOCK_WAIT_NS 5000000000ull
#define LOCK_POLL_NS 1000000
#define SWEEP_MOST 32 /* names of others that a claim looks at on the way: the lock is held only for moments */

/* ---- the lock ------------------------------------------------------------------------------------------------------- */

/* Takes the lock of the folder (the folder itself: no file to be left behind, nor one that its maker's umask closes to
 * others). Waits at most wait_ns; -EAGAIN. Released by unlock_folder, and by the kernel when the holder dies. */
static int lock_folder(const struct ffv_nodedir *dir, uint64_t wait_ns, int *lock)
{
	const struct timespec pause = {.tv_nsec = LOCK_POLL_NS};
	uint64_t deadline_ns = ffv_clock_ns() + wait_ns;
	int fd = openat(dir->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err;

	if (fd < 0)
		return ffv_fail_errno(errno, "the node directory %s cannot be locked", dir->path);
	while (flock(fd, LOCK_EX | LOCK_NB)) {
		err = errno;
		if ((err == EWOULDBLOCK || err == EINTR) && ffv_clock_ns() < deadline_ns) {
			nanosleep(&pause, NULL);
			continue;
		}
		close(fd);
		if (err == EWOULDBLOCK)
			return ffv_fail(EAGAIN,
					"another process has held the lock of the node directory %s for %llu ms: look who is "
					"stopped in it (fuser %s)",
					dir->path, (unsigned long long)(wait_ns / 1000000), dir->path);
		return ffv_fail_errno(err, "the node directory %s cannot be locked", dir->path);
	}
	*lock = fd;
	return 0;
}

static void unlock_folder(int lock)
{
	flock(lock, LOCK_UN); /* closing is not enough: a fork child may hold a copy */
	close(lock);
}

/* ---- stale names ---------------------------------------------------------------------------------------------------- */

static int connect_as(const struct ffv_nodedir *dir, const char *name, int type, int *out)
{
	struct sockaddr_un address;
	socklen_t length = ffv_nodedir_write_address(dir, name, &address);
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int err;

	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&address, length) == 0) {
		*out = fd;
		return 0;
	}
	err = errno;
	close(fd);
	return -err;
}

static int is_stale(const struct ffv_nodedir *dir, const char *name)
{
	struct stat st;
	int fd;
	int rc = connect_as(dir, name, SOCK_STREAM, &fd);

	if (rc == 0)
		close(fd);
	if (rc != -ECONNREFUSED)
		return 0;
	/* Not every kernel need tell the types apart before it looks for a listener: ask in earnest before it is called
	 * dead, which disturbs nobody if it is. */
	rc = connect_as(dir, name, SOCK_SEQPACKET, &fd);
	if (rc == 0)
		close(fd);
	return rc == -ECONNREFUSED && fstatat(dir->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISSOCK(st.st_mode);
}

/* Lock held: nobody binds the name between the question and the removal. 1 = it is gone. Its mark goes first, so that
 * none is ever without its name. */
static int sweep_locked(const struct ffv_nodedir *dir, const char *name)
{
	char mark[FFV_MARK_BYTES];

	if (!is_stale(dir, name))
		return 0;
	ffv_nodedir_write_mark(mark, name);
	unlinkat(dir->fd, mark, 0);
	return unlinkat(dir->fd, name, 0) == 0;
}

/* A few names of other contexts, another part of the folder each time. */
static void sweep_some_locked(const struct ffv_nodedir *dir, const struct ffv_nodedir_entries *entries)
{
	char name[FFV_NAME_BYTES];
	size_t most = entries->count < SWEEP_MOST ? entries->count : SWEEP_MOST;
	size_t first = entries->count ? (size_t)(ffv_clock_ns() / 1000) % entries->count : 0;

	for (size_t i = 0; i < most; i++) {
		const struct ffv_nodedir_entry *entry = &entries->entry[(first + i) % entries->count];

		ffv_nodedir_write_name(name, entry->gid, entry->block);
		sweep_locked(dir, name);
	}
}

/* Names of other kinds (see nodedir.h) are letters, digits and dashes, and no context's. */
static int is_other_name(const char *name)
{
	struct ffv_nodedir_entry entry;
	size_t length = strlen(name);

	return length >= FFV_GID_DIGITS && length < FFV_NODEDIR_NAME_BYTES &&
	       strspn(name, "0123456789abcdefghijklmnopqrstuvwxyz-") == length && !ffv_nodedir_parse_name(name, &entry);
}

/* Looks at a few of them, another part of the folder each time; `first` and `count` say which (0: only counts). */
static size_t visit_others_locked(const struct ffv_nodedir *dir, size_t first, size_t count)
{
	int fd = openat(dir->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	size_t seen = 0;

	if (!stream) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	for (struct dirent *found; (found = readdir(stream));) {
		if (!is_other_name(found->d_name))
			continue;
		if (count && (seen + count - first) % count < SWEEP_MOST)
			sweep_locked(dir, found->d_name);
		seen++;
	}
	closedir(stream);
	return seen;
}

static void sweep_others_locked(const struct ffv_nodedir *dir)
{
	size_t count = visit_others_locked(dir, 0, 0);

	if (count)
		visit_others_locked(dir, (size_t)(ffv_clock_ns() / 1000) % count, count);
}

/* ---- claim and release ---------------------------------------------------------------------------------------------- */

/* Who may connect: whoever may put names into the folder. */
static mode_t socket_mode(mode_t folder)
{
	if (folder & S_IWOTH || ((folder & S_IWGRP) && !(folder & S_IXOTH)))
		return 0666;
	return folder & S_IWGRP ? 0660 : 0600;
}

/* The umask had its say at bind; nobody can connect before listen. Connecting takes the permission to write, only. */
static int set_mode(const struct ffv_nodedir *dir, const char *name)
{
	struct stat folder, bound;
	mode_t wanted;

	if (fstat(dir->fd, &folder) || fstatat(dir->fd, name, &bound, AT_SYMLINK_NOFOLLOW))
		return -errno;
	wanted = socket_mode(folder.st_mode);
	if ((bound.st_mode & 0222) == (wanted & 0222) || fchmodat(dir->fd, name, wanted, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	return -errno;
}

/* Lock held. 0 = bound and listening; -EADDRINUSE = the name is there. */
static int bind_locked(const struct ffv_nodedir *dir, const char *name, int *out)
{
	struct sockaddr_un address;
	socklen_t length = ffv_nodedir_write_address(dir, name, &address);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int rc;

	if (fd < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)&address, length)) {
		rc = -errno;
		close(fd);
		return rc;
	}
	FFV_FAULT(dir_bound);
	rc = set_mode(dir, name);
	if (!rc && listen(fd, BACKLOG))
		rc = -errno;
	if (rc) {
		unlinkat(dir->fd, name, 0);
		close(fd);
		return rc;
	}
	*out = fd;
	return 0;
}

static int fail_claim(const struct ffv_nodedir *dir, const char *name, int err)
{
	switch (err) {
	case ENOSPC:
	case EDQUOT:
		return ffv_fail(err, "no room for a socket in the node directory %s: its disk is full, make room or set "
				"FFVERBS_DIR to another folder", dir->path);
	case ENOENT:
		return ffv_fail(err, "the node directory %s was removed: create it again", dir->path);
	case EROFS:
	case EACCES:
	case EPERM:
		return ffv_fail_errno(err, "no socket can be made in the node directory %s (change its mode, or set "
				      "FFVERBS_DIR to another folder)", dir->path);
	case EOPNOTSUPP: /* fchmodat needs it on systems before Linux 6.6 */
		return ffv_fail(err, "the mode of a socket in the shared node directory %s cannot be set: mount /proc, or "
				"set the umask so that others may write", dir->path);
	case EMFILE:
	case ENFILE:
		return ffv_fail(err, "no socket for the node directory %s, too many files are open: raise the limit "
				"(ulimit -n)", dir->path);
	default:
		return ffv_fail_errno(err, "socket %s cannot be bound in the node directory %s", name, dir->path);
	}
}

static int claim_locked(const struct ffv_nodedir *dir, const uint8_t gid[16], uint32_t *block, int *listen_fd)
{
	char name[FFV_NAME_BYTES];

	for (uint32_t candidate = 0; candidate < FFV_QPN_BLOCKS; candidate++) {
		ffv_nodedir_write_name(name, gid, candidate);
		int rc = bind_locked(dir, name, listen_fd);
		if (rc == -EADDRINUSE && sweep_locked(dir, name))
			rc = bind_locked(dir, name, listen_fd);
		if (rc == -EADDRINUSE)
			continue;
		if (rc)
			return fail_claim(dir, name, -rc);
		*block = candidate;
		return 0;
	}
	return ffv_fail(ENOSPC, "all %u blocks of queue pair numbers of this GID are taken by live contexts in %s: close "
			"some, or give containers addresses of their own (FFVERBS_IP)", FFV_QPN_BLOCKS, dir->path);
}

int ffv_nodedir_claim(struct ffv_nodedir *dir, const uint8_t gid[16], uint32_t *block, int *listen_fd)
{
	struct ffv_nodedir_entries others;
	int lock;
	int rc = ffv_nodedir_read_entries(dir, &others);

	if (rc)
		return rc;
	rc = lock_folder(dir, LOCK_WAIT_NS, &lock);
	if (!rc) {
		rc = claim_locked(dir, gid, block, listen_fd);
		if (!rc) {
			sweep_some_locked(dir, &others);
			sweep_others_locked(dir);
		}
		unlock_folder(lock);
	}
	free(others.entry);
	return rc;
}

int ffv_nodedir_claim_block(struct ffv_nodedir *dir, const uint8_t gid[16], uint32_t block, int *listen_fd)
{
	char name[FFV_NAME_BYTES];
	int lock;
	int rc = block < FFV_QPN_BLOCKS ? lock_folder(dir, LOCK_WAIT_NS, &lock)
					: ffv_fail(EINVAL, "there is no block %u of queue pair numbers", block);

	if (rc)
		return rc;
	ffv_nodedir_write_name(name, gid, block);
	rc = bind_locked(dir, name, listen_fd);
	if (rc == -EADDRINUSE && sweep_locked(dir, name))
		rc = bind_locked(dir, name, listen_fd);
	unlock_folder(lock);
	if (rc == -EADDRINUSE)
		return ffv_fail(EADDRINUSE, "the name %s is taken in the node directory %s: a container with this address "
				"runs on this host", name, dir->path);
	return rc ? fail_claim(dir, name, -rc) : 0;
}

void ffv_nodedir_release(struct ffv_nodedir *dir, const uint8_t gid[16], uint32_t block, int listen_fd)
{
	char name[FFV_NAME_BYTES], mark[FFV_MARK_BYTES];

	/* In this order no lock is needed: as long as it listens nobody takes the name for stale. */
	ffv_nodedir_write_name(name, gid, block);
	ffv_nodedir_write_mark(mark, name);
	unlinkat(dir->fd, mark, 0);
	unlinkat(dir->fd, name, 0);
	close(listen_fd);
}

int ffv_nodedir_join_segment(struct ffv_nodedir *dir, const uint8_t gid[16], uint32_t block)
{
	char name[FFV_NAME_BYTES], mark[FFV_MARK_BYTES];

	ffv_nodedir_write_name(name, gid, block);
	ffv_nodedir_write_mark(mark, name);
	int fd = openat(dir->fd, mark, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return fail_claim(dir, mark, errno);
	close(fd);
	return 0;
}

/* ---- connect -------------------------------------------------------------------------------------------------------- */

static int fail_connect(const struct ffv_nodedir *dir, const char *name, int err)
{
	switch (err) {
	case ENOENT:
	case ECONNREFUSED:
	case ENOTDIR:
		return ffv_fail(ENOENT, "no context %s in the node directory %s: its process has ended, or uses another "
				"FFVERBS_DIR", name, dir->path);
	case EAGAIN:
		return ffv_fail(EAGAIN, "context %s in %s does not accept connections fast enough: try again", name,
				dir->path);
	case EACCES:
	case EPERM:
		return ffv_fail(EACCES, "context %s in %s belongs to a user whose sockets user %u may not write to: share "
				"the folder on purpose (chmod 1777) or run both as one user", name, dir->path,
				(unsigned)geteuid());
	case EPROTOTYPE:
		return ffv_fail(EPROTO, "%s/%s is not a socket of ffverbs: remove it", dir->path, name);
	case EMFILE:
	case ENFILE:
		return ffv_fail(err, "no socket to reach context %s, too many files are open: raise the limit (ulimit -n)",
				name);
	default:
		return ffv_fail_errno(err, "context %s in the node directory %s cannot be reached", name, dir->path);
	}
}

static int connect_swept(const struct ffv_nodedir *dir, const char *name, int *fd)
{
	int lock, rc = connect_as(dir, name, SOCK_SEQPACKET, fd);

	/* A name that is bound but does not listen yet refuses as well; its maker holds the lock. */
	if (rc == -ECONNREFUSED && lock_folder(dir, 0, &lock) == 0) {
		if (!sweep_locked(dir, name))
			rc = connect_as(dir, name, SOCK_SEQPACKET, fd);
		unlock_folder(lock);
	}
	return rc ? fail_connect(dir, name, -rc) : 0;
}

int ffv_nodedir_connect(struct ffv_nodedir *dir, const uint8_t gid[16], uint32_t block, int *fd)
{
	char name[FFV_NAME_BYTES];

	if (block >= FFV_QPN_BLOCKS)
		return ffv_fail(ENOENT, "no context has block %u of queue pair numbers: there are %u", block,
				FFV_QPN_BLOCKS);
	ffv_nodedir_write_name(name, gid, block);
	return connect_swept(dir, name, fd);
}

/* ---- other names ------------------------------------------------------------------------------------------------------ */

int ffv_nodedir_claim_name(struct ffv_nodedir *dir, const char *name, int *listen_fd)
{
	int lock, rc = lock_folder(dir, LOCK_WAIT_NS, &lock);

	if (rc)
		return rc;
	rc = bind_locked(dir, name, listen_fd);
	if (rc == -EADDRINUSE && sweep_locked(dir, name))
		rc = bind_locked(dir, name, listen_fd);
	unlock_folder(lock);
	if (rc == -EADDRINUSE)
		return ffv_fail(EADDRINUSE, "%s is taken by another process in the node directory %s", name, dir->path);
	return rc ? fail_claim(dir, name, -rc) : 0;
}

void ffv_nodedir_release_name(struct ffv_nodedir *dir, const char *name, int listen_fd)
{
	unlinkat(dir->fd, name, 0); /* in this order, as in ffv_nodedir_release */
	close(listen_fd);
}

int ffv_nodedir_connect_name(struct ffv_nodedir *dir, const char *name, int *fd)
{
	return connect_swept(dir, name, fd);
}

int ffv_nodedir_find_name(struct ffv_nodedir *dir, int (*is_wanted)(void *arg, const char *name), void *arg)
{
	int fd = openat(dir->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), found = 0;
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);

	if (!stream) {
		found = ffv_fail_errno(errno, "the node directory %s cannot be listed", dir->path);
		if (fd >= 0)
			close(fd);
		return found;
	}
	for (struct dirent *entry; !found && (entry = readdir(stream));)
		found = is_wanted(arg, entry->d_name);
	closedir(stream);
	return found;
}

int ffv_nodedir_identify(int fd, uint8_t gid[16], uint32_t *block)
{
	struct sockaddr_un address = { .sun_family = AF_UNSPEC };
	socklen_t length = sizeof address - 1; /* a final NUL is left */
	struct ffv_nodedir_entry entry;

	if (getsockname(fd, (struct sockaddr *)&address, &length))
		return ffv_fail_errno(EINVAL, "descriptor %d is no socket of a context", fd);
	const char *slash = address.sun_family == AF_UNIX ? strrchr(address.sun_path, '/') : NULL;
	if (!slash || !ffv_nodedir_parse_name(slash + 1, &entry))
		return ffv_fail(EINVAL, "descriptor %d is a socket, but not one of a context", fd);
	memcpy(gid, entry.gid, sizeof entry.gid);
	*block = entry.block;
	return 0;
}

int ffv_nodedir_connect_router(const struct ffv_nodedir *dir, int *fd)
{
	int rc = connect_as(dir, "router.sock", SOCK_SEQPACKET, fd);

	return rc ? ffv_fail(rc == -ECONNREFUSED ? ENOENT : -rc, "no router runs on this host (router.sock in %s)", dir->path) : 0;
}

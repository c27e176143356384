/* SPDX-License-Identifier: MIT
 *
 * The node directory's folder: where it is, and opening it (see nodedir.h). Every error names the folder and the remedy.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "shm/nodedir_private.h"

#define SYSTEM_DIR "/run/ffverbs"

enum place { PLACE_GIVEN, PLACE_ENVIRONMENT, PLACE_SYSTEM, PLACE_PER_USER };

/* ---- where ---------------------------------------------------------------------------------------------------------- */

static int is_usable(const char *path, int must_be_own)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode) && (!must_be_own || st.st_uid == geteuid()) &&
	       faccessat(AT_FDCWD, path, R_OK | W_OK | X_OK, AT_EACCESS) == 0;
}

static int resolve(char *path, size_t size, enum place *place)
{
	const char *given = secure_getenv("FFVERBS_DIR");
	const char *runtime = secure_getenv("XDG_RUNTIME_DIR");
	const char *temporary = secure_getenv("TMPDIR");
	int length;

	if (given && *given) {
		*place = PLACE_ENVIRONMENT;
		length = snprintf(path, size, "%s", given);
	} else if (is_usable(SYSTEM_DIR, 0)) {
		*place = PLACE_SYSTEM;
		length = snprintf(path, size, "%s", SYSTEM_DIR);
	} else if (runtime && *runtime == '/' && is_usable(runtime, 1)) {
		*place = PLACE_PER_USER;
		length = snprintf(path, size, "%s/ffverbs", runtime);
	} else {
		if (!temporary || *temporary != '/')
			temporary = "/tmp";
		*place = PLACE_PER_USER;
		length = snprintf(path, size, "%s/ffverbs-%u", temporary, (unsigned)geteuid());
	}
	if (length < 0 || (size_t)length >= size)
		return ffv_fail(ENAMETOOLONG,
				"the path of the node directory is longer than %zu bytes: set FFVERBS_DIR to a shorter one",
				size - 1);
	return 0;
}

int ffv_nodedir_resolve(char *path, size_t size)
{
	enum place place;

	return resolve(path, size, &place);
}

/* ---- open and close ------------------------------------------------------------------------------------------------- */

static const char *remedy(enum place place)
{
	switch (place) {
	case PLACE_ENVIRONMENT:
		return "or let FFVERBS_DIR name another folder, or unset it";
	case PLACE_PER_USER:
		return "or set FFVERBS_DIR to a folder of yours";
	default:
		return "or name another folder with FFVERBS_DIR";
	}
}

static int fail_open(int err, const char *path, enum place place)
{
	const char *called = place == PLACE_ENVIRONMENT ? "FFVERBS_DIR names " : "the node directory ";
	const char *glue = place == PLACE_ENVIRONMENT ? ", which" : "";
	const char *other = remedy(place);

	switch (err) {
	case ENOENT:
		return ffv_fail(err, "%s%s%s does not exist: create it (mkdir -m 700 %s), %s", called, path, glue, path,
				other);
	case ENOTDIR:
		return ffv_fail(err, "%s%s%s is not a folder: remove what stands there, %s", called, path, glue, other);
	case EACCES:
	case EPERM:
		return ffv_fail(EACCES, "%s%s%s user %u may not read, write and search: change its owner or mode, %s",
				called, path, glue, (unsigned)geteuid(), other);
	case EROFS:
		return ffv_fail(err, "%s%s%s is on a read-only file system: mount it writable, %s", called, path, glue,
				other);
	case ENOSPC:
	case EDQUOT:
		return ffv_fail(err, "%s%s%s is on a full disk: make room, %s", called, path, glue, other);
	case ENAMETOOLONG:
		return ffv_fail(err, "%s%s%s has too long a name: use a shorter one, %s", called, path, glue, other);
	case EMFILE:
	case ENFILE:
		return ffv_fail(err, "%s%s%s cannot be opened, too many files are open: raise the limit (ulimit -n)",
				called, path, glue);
	default:
		return ffv_fail_errno(err, "%s%s%s cannot be opened (repair it, %s)", called, path, glue, other);
	}
}

/* The folder of one user must be that user's alone: others may have put theirs, or a link, in its place. */
static int check_private(int fd, const char *path)
{
	struct stat st;

	if (fstat(fd, &st))
		return ffv_fail_errno(errno, "the node directory %s cannot be examined", path);
	if (st.st_uid != geteuid())
		return ffv_fail(EACCES,
				"the node directory %s belongs to user %u, not to user %u: have it removed, or set FFVERBS_DIR "
				"to a folder of yours",
				path, (unsigned)st.st_uid, (unsigned)geteuid());
	if (st.st_mode & 077)
		return ffv_fail(EACCES,
				"the node directory %s is open to others (mode %03o): chmod 700 it, or set FFVERBS_DIR to a "
				"folder meant to be shared",
				path, (unsigned)(st.st_mode & 0777));
	return 0;
}

static int open_per_user(const char *path)
{
	struct stat st;
	int fd, err;

	if (mkdir(path, 0700) && errno != EEXIST)
		return fail_open(errno, path, PLACE_PER_USER);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) {
		err = errno;
		if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode))
			return ffv_fail(EACCES,
					"the node directory %s is a symbolic link, which somebody else may have put there: "
					"remove it, or set FFVERBS_DIR to a folder of yours",
					path);
		return fail_open(err, path, PLACE_PER_USER);
	}
	err = -check_private(fd, path);
	if (err) {
		close(fd);
		return -err;
	}
	return fd;
}

static int open_folder(const char *path, enum place place)
{
	int fd = place == PLACE_PER_USER ? open_per_user(path) : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err;

	if (fd < 0)
		return place == PLACE_PER_USER ? fd : fail_open(errno, path, place);
	if (faccessat(fd, ".", R_OK | W_OK | X_OK, AT_EACCESS)) {
		err = errno;
		close(fd);
		return fail_open(err, path, place);
	}
	return fd;
}

/* A socket's address has room for 107 bytes: the folder is named by its descriptor, which is short and stays right when
 * the working directory changes; where there is no /proc, by its path if that is short enough. */
static int choose_prefix(int fd, const char *path, char **out)
{
	struct sockaddr_un address;
	struct stat folder, seen;
	char short_path[40];
	char *full;

	snprintf(short_path, sizeof short_path, "/proc/self/fd/%d", fd);
	if (fstat(fd, &folder) == 0 && stat(short_path, &seen) == 0 && seen.st_dev == folder.st_dev &&
	    seen.st_ino == folder.st_ino) {
		*out = strdup(short_path);
		return *out ? 0 : ffv_fail(ENOMEM, "out of memory for the node directory %s", path);
	}
	full = realpath(path, NULL);
	if (!full)
		return ffv_fail_errno(errno, "the path of the node directory %s cannot be followed", path);
	if (strlen(full) + 1 + FFV_NODEDIR_NAME_BYTES > sizeof address.sun_path) {
		int rc = ffv_fail(ENAMETOOLONG,
				  "the path of the node directory %s is longer than %zu bytes, and /proc is not there to "
				  "shorten it: mount /proc, or set FFVERBS_DIR to a shorter path",
				  full, sizeof address.sun_path - 1 - FFV_NODEDIR_NAME_BYTES);
		free(full);
		return rc;
	}
	*out = full;
	return 0;
}

int ffv_nodedir_open(const char *dir, struct ffv_nodedir **out)
{
	enum place place = PLACE_GIVEN;
	char resolved[PATH_MAX];
	struct ffv_nodedir *self;
	int rc;

	if (!dir) {
		rc = resolve(resolved, sizeof resolved, &place);
		if (rc)
			return rc;
		dir = resolved;
	}
	self = calloc(1, sizeof *self);
	if (!self)
		return ffv_fail(ENOMEM, "out of memory for the node directory %s", dir);
	self->fd = -1;
	self->path = strdup(dir);
	rc = self->path ? open_folder(dir, place) : ffv_fail(ENOMEM, "out of memory for the node directory %s", dir);
	if (rc >= 0) {
		self->fd = rc;
		rc = choose_prefix(self->fd, dir, &self->prefix);
	}
	if (rc < 0) {
		ffv_nodedir_close(self);
		return rc;
	}
	*out = self;
	return 0;
}

void ffv_nodedir_close(struct ffv_nodedir *dir)
{
	if (!dir)
		return;
	if (dir->fd >= 0)
		close(dir->fd);
	free(dir->prefix);
	free(dir->path);
	free(dir);
}

const char *ffv_nodedir_path(const struct ffv_nodedir *dir)
{
	return dir->path;
}

/* A scratch folder for a C test, and paths in it. Others may enter it, so that a test can change its user. */
#ifndef FFV_TESTS_SCRATCH_H
#define FFV_TESTS_SCRATCH_H

#include <ftw.h>
#include <limits.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

static char scratch_root[PATH_MAX / 2];

static inline void scratch_create(void)
{
	const char *temporary = getenv("TMPDIR");

	snprintf(scratch_root, sizeof scratch_root, "%s/ffvtestXXXXXX", temporary ? temporary : "/tmp");
	CHECK(mkdtemp(scratch_root));
	CHECK_EQ(chmod(scratch_root, 0755), 0);
}

static inline int scratch_remove_one(const char *path, const struct stat *st, int type, struct FTW *walk)
{
	(void)st, (void)type, (void)walk;
	return remove(path);
}

static inline void scratch_remove(void)
{
	CHECK_EQ(nftw(scratch_root, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* scratch_root/FORMAT, in one of a few buffers that are used in turn. */
__attribute__((format(printf, 1, 2))) static inline const char *scratch_path(const char *format, ...)
{
	static char buffers[8][PATH_MAX];
	static unsigned turn;
	char *path = buffers[turn++ % 8];
	va_list args;
	int used = snprintf(path, PATH_MAX, "%s/", scratch_root);

	va_start(args, format);
	vsnprintf(path + used, (size_t)(PATH_MAX - used), format, args);
	va_end(args);
	return path;
}

/* A new folder of exactly this mode, whatever the umask. */
static inline const char *scratch_folder(const char *name, mode_t mode)
{
	const char *path = scratch_path("%s", name);

	CHECK_EQ(mkdir(path, 0700), 0);
	CHECK_EQ(chmod(path, mode), 0);
	return path;
}

#endif

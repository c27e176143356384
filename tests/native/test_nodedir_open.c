/* Which folder is the node directory, and what is said when it cannot be. */
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>

#include <ffverbs/ffv.h>

#include "check.h"
#include "child.h"
#include "scratch.h"
#include "shm/nodedir.h"

static void check_text(const char *name, const char *remedy)
{
	if (!strstr(ffv_error_text(), name) || !strstr(ffv_error_text(), remedy)) {
		fprintf(stderr, "the text lacks \"%s\" or \"%s\": %s\n", name, remedy, ffv_error_text());
		exit(1);
	}
}

static void check_refused(const char *dir, int expected, const char *name, const char *remedy)
{
	struct ffv_nodedir *opened;

	CHECK_EQ(ffv_nodedir_open(dir, &opened), expected);
	check_text(name, remedy);
}

static void check_opens(const char *dir, const char *path)
{
	struct ffv_nodedir *opened;
	int rc = ffv_nodedir_open(dir, &opened);

	if (rc)
		fprintf(stderr, "%s\n", ffv_error_text());
	CHECK_EQ(rc, 0);
	CHECK_STR(ffv_nodedir_path(opened), path);
	ffv_nodedir_close(opened);
}

static int has_system_dir(void)
{
	return access("/run/ffverbs", R_OK | W_OK | X_OK) == 0;
}

static void check_resolves(const char *expected)
{
	char path[PATH_MAX];

	CHECK_EQ(ffv_nodedir_resolve(path, sizeof path), 0);
	CHECK_STR(path, expected);
}

static void test_order(void *unused)
{
	char per_user[PATH_MAX], path[8];
	const char *runtime = scratch_folder("runtime", 0700);

	(void)unused;
	setenv("FFVERBS_DIR", "/some/where", 1);
	setenv("XDG_RUNTIME_DIR", runtime, 1);
	setenv("TMPDIR", scratch_root, 1);
	check_resolves("/some/where");
	CHECK_EQ(ffv_nodedir_resolve(path, sizeof path), -ENAMETOOLONG);
	check_text("7 bytes", "FFVERBS_DIR");
	setenv("FFVERBS_DIR", "", 1); /* empty is not set */
	if (has_system_dir()) {
		check_resolves("/run/ffverbs");
		return;
	}
	check_resolves(scratch_path("runtime/ffverbs"));
	snprintf(per_user, sizeof per_user, "%s/ffverbs-%u", scratch_root, (unsigned)geteuid());
	setenv("XDG_RUNTIME_DIR", scratch_path("nowhere"), 1);
	check_resolves(per_user);
	setenv("XDG_RUNTIME_DIR", "relative", 1);
	check_resolves(per_user);
	unsetenv("TMPDIR");
	snprintf(per_user, sizeof per_user, "/tmp/ffverbs-%u", (unsigned)geteuid());
	check_resolves(per_user);
}

/* Somebody else's XDG_RUNTIME_DIR (after su) is passed over. */
static void test_runtime_of_another(void *unused)
{
	char per_user[PATH_MAX];

	(void)unused;
	unsetenv("FFVERBS_DIR");
	setenv("XDG_RUNTIME_DIR", scratch_path("open"), 1);
	setenv("TMPDIR", scratch_root, 1);
	snprintf(per_user, sizeof per_user, "%s/ffverbs-%u", scratch_root, (unsigned)geteuid());
	if (!has_system_dir())
		check_resolves(per_user);
}

static void test_environment(void *unused)
{
	const char *file = scratch_path("file");
	const char *link = scratch_path("loop");

	(void)unused;
	setenv("FFVERBS_DIR", scratch_path("missing"), 1);
	check_refused(NULL, -ENOENT, scratch_path("missing"), "unset it");
	CHECK_EQ(access(scratch_path("missing"), F_OK), -1); /* never made, and no other taken */
	CHECK(creat(file, 0600) >= 0);
	setenv("FFVERBS_DIR", file, 1);
	check_refused(NULL, -ENOTDIR, file, "unset it");
	CHECK_EQ(symlink(link, link), 0);
	setenv("FFVERBS_DIR", link, 1);
	check_refused(NULL, -ELOOP, link, "unset it");
	setenv("FFVERBS_DIR", scratch_folder("mine", 0700), 1);
	check_opens(NULL, scratch_path("mine"));
	setenv("FFVERBS_DIR", scratch_path("linked"), 1); /* the user's own choice: may be a link */
	CHECK_EQ(symlink("mine", scratch_path("linked")), 0);
	check_opens(NULL, scratch_path("linked"));
}

static void test_given(void)
{
	char long_name[NAME_MAX + 2];

	check_refused(scratch_path("missing"), -ENOENT, scratch_path("missing"), "mkdir -m 700");
	check_refused(scratch_path("file"), -ENOTDIR, scratch_path("file"), "FFVERBS_DIR");
	check_refused("", -ENOENT, "does not exist", "create it");
	memset(long_name, 'x', sizeof long_name - 1);
	long_name[sizeof long_name - 1] = 0;
	check_refused(scratch_path("%s", long_name), -ENAMETOOLONG, "too long", "shorter");
}

/* Runs without privileges. */
static void check_modes(void *unused)
{
	(void)unused;
	check_refused(scratch_path("closed"), -EACCES, "closed", "change its owner or mode");
	check_refused(scratch_path("readable"), -EACCES, "readable", "change its owner or mode");
	check_refused(scratch_path("closed/within"), -EACCES, "closed/within", "change its owner or mode");
	/* Of whomever, as long as it is writable: shared on purpose. */
	check_opens(scratch_path("open"), scratch_path("open"));
}

static void test_modes(void)
{
	scratch_folder("closed", 0700);
	scratch_folder("closed/within", 0777);
	scratch_folder("readable", 0555);
	if (geteuid() != 0)
		CHECK_EQ(chmod(scratch_path("closed"), 0), 0);
	child_run(child_unprivileged(), check_modes, NULL);
	CHECK_EQ(chmod(scratch_path("closed"), 0700), 0);
}

/* ---- the one in the temporary folder ---------------------------------------------------------------------------------- */

static const char *per_user_path(void)
{
	return scratch_path("open/ffverbs-%u", (unsigned)geteuid());
}

static void set_per_user(void)
{
	unsetenv("FFVERBS_DIR");
	unsetenv("XDG_RUNTIME_DIR");
	setenv("TMPDIR", scratch_path("open"), 1);
}

static void check_created(void *unused)
{
	struct stat st;

	(void)unused;
	set_per_user();
	umask(0);
	check_opens(NULL, per_user_path());
	CHECK_EQ(stat(per_user_path(), &st), 0);
	CHECK_EQ(st.st_mode & 07777, 0700);
	CHECK_EQ(st.st_uid, geteuid());
	check_opens(NULL, per_user_path()); /* and again, now that it is there */
}

/* arg: a word of the reason. */
static void check_foreign(void *arg)
{
	set_per_user();
	check_refused(NULL, -EACCES, per_user_path(), "set FFVERBS_DIR");
	check_refused(NULL, -EACCES, per_user_path(), arg);
}

static void check_not_a_folder(void *unused)
{
	(void)unused;
	set_per_user();
	check_refused(NULL, -ENOTDIR, per_user_path(), "remove what stands there");
}

static void test_per_user(void)
{
	const uid_t uid = child_unprivileged();
	const char *path = scratch_path("open/ffverbs-%u", (unsigned)uid);

	if (has_system_dir()) {
		printf("skipped: the folder of a user is not used where there is /run/ffverbs\n");
		return;
	}
	child_run(uid, check_created, NULL);
	CHECK_EQ(chmod(path, 0750), 0);
	child_run(uid, check_foreign, "open to others");
	CHECK_EQ(chmod(path, 0700), 0);
	CHECK_EQ(rename(path, scratch_path("open/elsewhere")), 0);
	CHECK_EQ(symlink("elsewhere", path), 0); /* all else is right with it */
	child_run(uid, check_foreign, "symbolic link");
	CHECK_EQ(unlink(path), 0);
	CHECK(creat(path, 0600) >= 0);
	child_run(uid, check_not_a_folder, NULL);
	CHECK_EQ(unlink(path), 0);
	if (geteuid() == 0) {
		CHECK_EQ(mkdir(path, 0700), 0);
		child_run(uid, check_foreign, "change its owner"); /* root's, unreadable */
		CHECK_EQ(chmod(path, 0777), 0);
		child_run(uid, check_foreign, "belongs to user 0"); /* root's, though writable */
		CHECK_EQ(rmdir(path), 0);
		/* Root could use anybody's, and must not. */
		path = scratch_path("open/ffverbs-0");
		CHECK_EQ(mkdir(path, 0700), 0);
		CHECK_EQ(chown(path, CHILD_NOBODY, CHILD_NOBODY), 0);
		child_run(0, check_foreign, "belongs to user 65534");
	} else {
		printf("skipped: only root can make folders of another user\n");
	}
}

static void check_too_many_files(void *unused)
{
	const struct rlimit none = {0, 0};

	(void)unused;
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	check_refused(scratch_path("mine"), -EMFILE, "mine", "ulimit -n");
}

int main(void)
{
	umask(022);
	scratch_create();
	CHECK_EQ(chmod(scratch_folder("open", 0777), 01777), 0);
	child_run(geteuid(), test_order, NULL);
	if (geteuid() == 0)
		child_run(CHILD_NOBODY, test_runtime_of_another, NULL);
	child_run(geteuid(), test_environment, NULL);
	test_given();
	test_modes();
	test_per_user();
	child_run(geteuid(), check_too_many_files, NULL);
	scratch_remove();
	return 0;
}

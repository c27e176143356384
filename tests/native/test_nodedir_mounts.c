/* The node directory on full and read-only disks, and without /proc: in a mount namespace of its own. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>

#include <ffverbs/ffv.h>

#include "check.h"
#include "child.h"
#include "scratch.h"
#include "shm/nodedir.h"

#define SKIPPED 77

static const uint8_t gid[16] = {0xfe, 0x80, [15] = 1};

static void check_text(const char *name, const char *remedy)
{
	if (!strstr(ffv_error_text(), name) || !strstr(ffv_error_text(), remedy)) {
		fprintf(stderr, "the text lacks \"%s\" or \"%s\": %s\n", name, remedy, ffv_error_text());
		exit(1);
	}
}

/* Uses up the disk's names (bytes are not what a socket needs); returns how many fitted. */
static int fill(const char *folder)
{
	int count = 0, fd;

	while ((fd = creat(scratch_path("%s/file%d", folder, count), 0600)) >= 0) {
		close(fd);
		count++;
	}
	CHECK_EQ(errno, ENOSPC);
	return count;
}

static void check_full_disk(void)
{
	struct ffv_nodedir *dir;
	uint32_t block;
	int fd;

	CHECK_EQ(mount("ffvtest", scratch_folder("small", 0700), "tmpfs", 0, "size=64k,nr_inodes=4"), 0);
	CHECK_EQ(ffv_nodedir_open(scratch_path("small"), &dir), 0);
	CHECK(fill("small") > 0);
	CHECK_EQ(ffv_nodedir_claim(dir, gid, &block, &fd), -ENOSPC);
	check_text(scratch_path("small"), "make room");
	setenv("TMPDIR", scratch_path("small"), 1);
	struct ffv_nodedir *none;
	CHECK_EQ(ffv_nodedir_open(NULL, &none), -ENOSPC); /* the folder of the user cannot be made */
	check_text(scratch_path("small/ffverbs-"), "make room");
	CHECK_EQ(unlink(scratch_path("small/file0")), 0);
	CHECK_EQ(ffv_nodedir_claim(dir, gid, &block, &fd), 0); /* and works again at once */
	ffv_nodedir_release(dir, gid, block, fd);
	ffv_nodedir_close(dir);
	CHECK_EQ(umount(scratch_path("small")), 0);
}

static void check_read_only(void)
{
	struct ffv_nodedir *dir, *none;
	uint32_t block;
	int fd;

	CHECK_EQ(mount("ffvtest", scratch_folder("fixed", 0700), "tmpfs", 0, "size=64k"), 0);
	CHECK_EQ(ffv_nodedir_open(scratch_path("fixed"), &dir), 0);
	CHECK_EQ(mount(NULL, scratch_path("fixed"), NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
	CHECK_EQ(ffv_nodedir_open(scratch_path("fixed"), &none), -EROFS);
	check_text(scratch_path("fixed"), "read-only");
	CHECK_EQ(ffv_nodedir_claim(dir, gid, &block, &fd), -EROFS); /* it became so later */
	check_text(scratch_path("fixed"), "FFVERBS_DIR");
	setenv("TMPDIR", scratch_path("fixed"), 1);
	CHECK_EQ(ffv_nodedir_open(NULL, &none), -EROFS);
	ffv_nodedir_close(dir);
	CHECK_EQ(umount(scratch_path("fixed")), 0);
}

static void check_without_proc(void)
{
	static const char part[] = "a-folder-whose-name-alone-is-longer-than-many";
	struct ffv_nodedir *dir;
	int fd, peer;
	uint32_t block;

	scratch_folder("short", 0700);
	scratch_folder(part, 0700);
	CHECK_EQ(mkdir(scratch_path("%s/%s", part, part), 0700), 0);
	CHECK_EQ(mkdir(scratch_path("%s/%s/%s", part, part, part), 0700), 0);
	CHECK_EQ(mount("ffvtest", "/proc", "tmpfs", 0, "size=4k"), 0);
	CHECK_EQ(ffv_nodedir_open(scratch_path("%s/%s/%s", part, part, part), &dir), -ENAMETOOLONG);
	check_text(part, "mount /proc");
	CHECK_EQ(chdir(scratch_root), 0);
	CHECK_EQ(ffv_nodedir_open("short", &dir), 0);
	CHECK_EQ(chdir("/"), 0); /* a relative path keeps its meaning */
	CHECK_EQ(ffv_nodedir_claim(dir, gid, &block, &fd), 0);
	CHECK_EQ(ffv_nodedir_connect(dir, gid, block, &peer), 0);
	close(peer);
	ffv_nodedir_release(dir, gid, block, fd);
	ffv_nodedir_close(dir);
	/* A shared folder against the umask: possible with a recent kernel and C library, else said so. */
	CHECK_EQ(chmod(scratch_path("short"), 0777), 0);
	CHECK_EQ(ffv_nodedir_open(scratch_path("short"), &dir), 0);
	int rc = ffv_nodedir_claim(dir, gid, &block, &fd);
	if (rc == 0) {
		ffv_nodedir_release(dir, gid, block, fd);
	} else {
		CHECK_EQ(rc, -EOPNOTSUPP);
		check_text(scratch_path("short"), "mount /proc");
	}
	ffv_nodedir_close(dir);
	CHECK_EQ(umount("/proc"), 0);
}

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return ok;
}

/* A mount namespace: as root at once, else with a user namespace in which we are root. */
static const char *enter_namespace(void)
{
	char map[64];
	const unsigned uid = geteuid(), gid_now = getegid();

	if (uid != 0) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
			return "user namespaces are not permitted here";
		snprintf(map, sizeof map, "0 %u 1", uid);
		if (!write_file("/proc/self/uid_map", map))
			return "this user cannot be mapped into a user namespace";
		snprintf(map, sizeof map, "0 %u 1", gid_now);
		if (!write_file("/proc/self/setgroups", "deny") || !write_file("/proc/self/gid_map", map))
			return "this group cannot be mapped into a user namespace";
	} else if (unshare(CLONE_NEWNS)) {
		return "mount namespaces are not permitted here";
	}
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return "mounts cannot be made private here";
	if (mount("ffvtest", scratch_root, "tmpfs", 0, "size=1m"))
		return "tmpfs cannot be mounted here";
	return NULL;
}

static void run(void *unused)
{
	const char *why_not = enter_namespace();

	(void)unused;
	if (why_not) {
		printf("skipped: %s\n", why_not);
		fflush(NULL);
		_exit(SKIPPED);
	}
	/* The folder of the system would be preferred to that of the user. */
	if (access("/run/ffverbs", F_OK) == 0)
		CHECK_EQ(mount("ffvtest", "/run/ffverbs", "tmpfs", MS_RDONLY, "size=4k"), 0);
	unsetenv("FFVERBS_DIR");
	unsetenv("XDG_RUNTIME_DIR");
	check_full_disk();
	check_read_only();
	check_without_proc();
}

int main(void)
{
	scratch_create();
	int status = child_wait(child_start(geteuid(), run, NULL));
	scratch_remove();
	return status;
}

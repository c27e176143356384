/* Killed or stopped between binding a name and listening on it: needs a build with fault points. */
#include <errno.h>
#include <signal.h>

#include <ffverbs/ffv.h>

#include "base/clock.h"
#include "base/fault.h"
#include "check.h"
#include "child.h"
#include "scratch.h"
#include "shm/nodedir.h"

static const uint8_t gid[16] = {0xfe, 0x80, [15] = 1};

static void claim_with_fault(void *spec)
{
	struct ffv_nodedir *dir;
	uint32_t block;
	int fd;

	CHECK_EQ(ffv_nodedir_open(scratch_path("dir"), &dir), 0);
	CHECK_EQ(ffv_fault_arm(spec), 0);
	CHECK_EQ(ffv_nodedir_claim(dir, gid, &block, &fd), 0);
	ffv_nodedir_release(dir, gid, block, fd);
	ffv_nodedir_close(dir);
}

static int count_name(void *arg, const uint8_t found[16], uint32_t block)
{
	(void)found, (void)block;
	return ++*(int *)arg, 0;
}

static int count_names(struct ffv_nodedir *dir)
{
	int count = 0;

	CHECK_EQ(ffv_nodedir_list(dir, count_name, &count), 0);
	return count;
}

static void test_killed(struct ffv_nodedir *dir)
{
	char spec[] = "dir_bound:1:kill";
	uint32_t block;
	int fd;

	CHECK_EQ(child_wait(child_start(geteuid(), claim_with_fault, spec)), 128 + SIGKILL);
	CHECK_EQ(count_names(dir), 1); /* bound, as the point says */
	CHECK_EQ(ffv_nodedir_claim(dir, gid, &block, &fd), 0); /* the lock is free, the block too */
	CHECK_EQ(block, 0);
	ffv_nodedir_release(dir, gid, block, fd);
	CHECK_EQ(child_wait(child_start(geteuid(), claim_with_fault, spec)), 128 + SIGKILL);
	CHECK_EQ(ffv_nodedir_connect(dir, gid, 0, &fd), -ENOENT);
	CHECK_EQ(count_names(dir), 0);
}

/* Whoever is stopped with the lock held delays others for a bounded time, and its name is not taken for stale. */
static void test_stopped(struct ffv_nodedir *dir)
{
	char spec[] = "dir_bound:1:stop";
	uint32_t block;
	int fd, status;
	pid_t child = child_start(geteuid(), claim_with_fault, spec);

	CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
	CHECK(WIFSTOPPED(status));
	CHECK_EQ(ffv_nodedir_connect(dir, gid, 0, &fd), -ENOENT);
	CHECK_EQ(count_names(dir), 1);
	uint64_t start_ns = ffv_clock_ns();
	CHECK_EQ(ffv_nodedir_claim(dir, gid, &block, &fd), -EAGAIN);
	CHECK(strstr(ffv_error_text(), ffv_nodedir_path(dir)) && strstr(ffv_error_text(), "another process"));
	CHECK(ffv_clock_ns() - start_ns >= 4900000000u);
	CHECK_EQ(kill(child, SIGCONT), 0);
	CHECK_EQ(child_wait(child), 0);
	CHECK_EQ(ffv_nodedir_claim(dir, gid, &block, &fd), 0);
	CHECK_EQ(block, 0);
	ffv_nodedir_release(dir, gid, block, fd);
}

int main(void)
{
	struct ffv_nodedir *dir;

	scratch_create();
	CHECK_EQ(ffv_nodedir_open(scratch_folder("dir", 0700), &dir), 0);
	test_killed(dir);
	test_stopped(dir);
	ffv_nodedir_close(dir);
	scratch_remove();
	return 0;
}

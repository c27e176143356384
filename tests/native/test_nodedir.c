/* Blocks of QP numbers are claimed, found and given back by names in the node directory. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <ffverbs/ffv.h>

#include "check.h"
#include "child.h"
#include "scratch.h"
#include "shm/layout.h"
#include "shm/nodedir.h"

static const uint8_t gid_a[16] = {0xfe, 0x80, [15] = 0x0a};
static const uint8_t gid_b[16] = {[10] = 0xff, 0xff, 10, 0, 0, 1};

static struct ffv_nodedir *open_dir(const char *path)
{
	struct ffv_nodedir *dir;
	int rc = ffv_nodedir_open(path, &dir);

	if (rc)
		fprintf(stderr, "%s\n", ffv_error_text());
	CHECK_EQ(rc, 0);
	return dir;
}

static uint32_t claim(struct ffv_nodedir *dir, const uint8_t gid[16], int *fd)
{
	uint32_t block = FFV_NONE;
	int rc = ffv_nodedir_claim(dir, gid, &block, fd);

	if (rc)
		fprintf(stderr, "%s\n", ffv_error_text());
	CHECK_EQ(rc, 0);
	return block;
}

static const char *name_of(const uint8_t gid[16], unsigned block)
{
	static char names[4][40];
	static unsigned turn;
	char *name = names[turn++ % 4];

	for (int i = 0; i < 16; i++)
		sprintf(name + 2 * i, "%02x", gid[i]);
	sprintf(name + 32, "-%03x", block);
	return name;
}

static const char *mark_of(const uint8_t gid[16], unsigned block)
{
	static char mark[64];

	snprintf(mark, sizeof mark, "%s-segment", name_of(gid, block));
	return mark;
}

static int exists(const char *folder, const char *name)
{
	struct stat st;

	return lstat(scratch_path("%s/%s", folder, name), &st) == 0;
}

/* A socket bound at a name by hand: type, and whether it listens. */
static int bind_by_hand(const char *folder, const char *name, int type, int backlog)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	CHECK(fd >= 0);
	CHECK(snprintf(address.sun_path, sizeof address.sun_path, "%s", scratch_path("%s/%s", folder, name)) <
	      (int)sizeof address.sun_path);
	CHECK_EQ(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	if (backlog >= 0)
		CHECK_EQ(listen(fd, backlog), 0);
	return fd;
}

static void test_blocks(void)
{
	struct ffv_nodedir *dir = open_dir(scratch_folder("blocks", 0700));
	int fd[4], peer, other;

	CHECK_EQ(claim(dir, gid_a, &fd[0]), 0);
	CHECK_EQ(claim(dir, gid_a, &fd[1]), 1);
	CHECK_EQ(claim(dir, gid_a, &fd[2]), 2);
	CHECK_EQ(claim(dir, gid_b, &other), 0);
	CHECK(fcntl(fd[0], F_GETFD) & FD_CLOEXEC);
	CHECK(fcntl(fd[0], F_GETFL) & O_NONBLOCK);
	/* Claiming looked at blocks 0 and 1 without disturbing whoever has them. */
	CHECK_EQ(accept(fd[0], NULL, NULL), -1);
	CHECK_EQ(errno, EAGAIN);
	CHECK_EQ(ffv_nodedir_connect(dir, gid_a, 1, &peer), 0);
	CHECK(fcntl(peer, F_GETFD) & FD_CLOEXEC);
	CHECK(fcntl(peer, F_GETFL) & O_NONBLOCK);
	int accepted = accept(fd[1], NULL, NULL);
	CHECK(accepted >= 0);
	CHECK_EQ(send(peer, "hello", 5, 0), 5);
	char text[8];
	CHECK_EQ(recv(accepted, text, sizeof text, 0), 5);
	close(peer), close(accepted);
	ffv_nodedir_release(dir, gid_a, 1, fd[1]);
	CHECK_EQ(fcntl(fd[1], F_GETFD), -1);
	CHECK(!exists("blocks", name_of(gid_a, 1)));
	CHECK_EQ(ffv_nodedir_connect(dir, gid_a, 1, &peer), -ENOENT);
	CHECK(strstr(ffv_error_text(), ffv_nodedir_path(dir)));
	CHECK_EQ(claim(dir, gid_a, &fd[3]), 1);
	CHECK_EQ(ffv_nodedir_connect(dir, gid_a, FFV_QPN_BLOCKS, &peer), -ENOENT);
	ffv_nodedir_release(dir, gid_a, 0, fd[0]);
	ffv_nodedir_release(dir, gid_a, 2, fd[2]);
	ffv_nodedir_release(dir, gid_a, 1, fd[3]);
	ffv_nodedir_release(dir, gid_b, 0, other);
	ffv_nodedir_close(dir);
	CHECK_EQ(rmdir(scratch_path("blocks")), 0); /* nothing left behind */
}

static void hold_until_killed(void *arg)
{
	struct ffv_nodedir *dir = open_dir(scratch_path("stale"));
	int fd, ready = *(int *)arg;

	CHECK_EQ(claim(dir, gid_a, &fd), 0);
	CHECK_EQ(ffv_nodedir_join_segment(dir, gid_a, 0), 0);
	CHECK_EQ(write(ready, "r", 1), 1);
	for (;;)
		pause();
}

static void kill_a_holder(void)
{
	int ready[2];
	char byte;

	CHECK_EQ(pipe2(ready, O_CLOEXEC), 0);
	pid_t child = child_start(geteuid(), hold_until_killed, &ready[1]);
	close(ready[1]);
	CHECK_EQ(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	CHECK_EQ(kill(child, SIGKILL), 0);
	CHECK_EQ(child_wait(child), 128 + SIGKILL);
	CHECK(exists("stale", name_of(gid_a, 0)) && exists("stale", mark_of(gid_a, 0)));
}

static void test_stale(void)
{
	struct ffv_nodedir *dir = open_dir(scratch_folder("stale", 0700));
	int fd;

	kill_a_holder();
	CHECK_EQ(claim(dir, gid_a, &fd), 0); /* the dead one's block */
	ffv_nodedir_release(dir, gid_a, 0, fd);
	kill_a_holder();
	CHECK_EQ(ffv_nodedir_connect(dir, gid_a, 0, &fd), -ENOENT);
	CHECK(!exists("stale", name_of(gid_a, 0))); /* swept by who looked */
	CHECK(!exists("stale", mark_of(gid_a, 0))); /* and its mark with it */
	kill_a_holder();
	CHECK_EQ(claim(dir, gid_b, &fd), 0);
	CHECK(!exists("stale", name_of(gid_a, 0))); /* swept by a claim of another GID */
	CHECK(!exists("stale", mark_of(gid_a, 0)));
	ffv_nodedir_release(dir, gid_b, 0, fd);
	ffv_nodedir_close(dir);
}

static int count_one(void *arg, const uint8_t gid[16], uint32_t block)
{
	uint32_t *seen = arg;

	CHECK(!memcmp(gid, gid_a, 16) || !memcmp(gid, gid_b, 16));
	*seen |= 1u << (block + (memcmp(gid, gid_a, 16) ? 8 : 0));
	return 0;
}

static uint32_t on_segment(struct ffv_nodedir *dir)
{
	uint32_t seen = 0;

	CHECK_EQ(ffv_nodedir_list_segment(dir, count_one, &seen), 0);
	return seen;
}

/* Those who joined are listed, and nobody else; marks are no names, and go with theirs. */
static void test_segment(void)
{
	struct ffv_nodedir *dir = open_dir(scratch_folder("segment", 0700));
	uint32_t names = 0;
	int fd[3];

	CHECK_EQ(claim(dir, gid_a, &fd[0]), 0);
	CHECK_EQ(claim(dir, gid_a, &fd[1]), 1);
	CHECK_EQ(claim(dir, gid_b, &fd[2]), 0);
	CHECK_EQ(on_segment(dir), 0);
	CHECK_EQ(ffv_nodedir_join_segment(dir, gid_a, 1), 0);
	CHECK_EQ(ffv_nodedir_join_segment(dir, gid_b, 0), 0);
	CHECK_EQ(ffv_nodedir_join_segment(dir, gid_b, 0), 0);
	CHECK_EQ(close(creat(scratch_path("segment/%s", "not-of-ours-segment"), 0600)), 0);
	CHECK_EQ(on_segment(dir), 1u << 1 | 1u << 8);
	CHECK_EQ(ffv_nodedir_list(dir, count_one, &names), 0);
	CHECK_EQ(names, 1u << 0 | 1u << 1 | 1u << 8);
	ffv_nodedir_release(dir, gid_a, 1, fd[1]);
	CHECK_EQ(on_segment(dir), 1u << 8);
	ffv_nodedir_release(dir, gid_a, 0, fd[0]);
	ffv_nodedir_release(dir, gid_b, 0, fd[2]);
	ffv_nodedir_close(dir);
	CHECK_EQ(unlink(scratch_path("segment/%s", "not-of-ours-segment")), 0);
	CHECK_EQ(rmdir(scratch_path("segment")), 0); /* nothing left behind */
}

/* Between bind and listen a name refuses connections and is not stale. */
static void test_not_yet_listening(void)
{
	struct ffv_nodedir *dir = open_dir(scratch_folder("early", 0700));
	int lock = open(scratch_path("early"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int bound = bind_by_hand("early", name_of(gid_a, 0), SOCK_SEQPACKET, -1);
	int fd;

	CHECK_EQ(flock(lock, LOCK_EX), 0); /* as its maker does */
	CHECK_EQ(ffv_nodedir_connect(dir, gid_a, 0, &fd), -ENOENT);
	CHECK(exists("early", name_of(gid_a, 0)));
	CHECK_EQ(flock(lock, LOCK_UN), 0);
	CHECK_EQ(ffv_nodedir_connect(dir, gid_a, 0, &fd), -ENOENT);
	CHECK(exists("early", name_of(gid_a, 0)));
	CHECK_EQ(claim(dir, gid_a, &fd), 1);
	ffv_nodedir_release(dir, gid_a, 1, fd);
	close(bound), close(lock);
	ffv_nodedir_close(dir);
}

static void test_aliens(void)
{
	struct ffv_nodedir *dir = open_dir(scratch_folder("aliens", 0700));
	int full = bind_by_hand("aliens", name_of(gid_a, 0), SOCK_SEQPACKET, 0);
	int stream = bind_by_hand("aliens", name_of(gid_a, 1), SOCK_STREAM, 5);
	int file = creat(scratch_path("aliens/%s", name_of(gid_a, 2)), 0600);
	int first, fd;

	CHECK(file >= 0);
	CHECK_EQ(symlink("nowhere", scratch_path("aliens/%s", name_of(gid_a, 3))), 0);
	CHECK_EQ(mkdir(scratch_path("aliens/%s", name_of(gid_a, 4)), 0700), 0);
	CHECK_EQ(ffv_nodedir_connect(dir, gid_a, 0, &first), 0);
	CHECK_EQ(ffv_nodedir_connect(dir, gid_a, 0, &fd), -EAGAIN); /* its backlog is full: alive */
	CHECK_EQ(ffv_nodedir_connect(dir, gid_a, 1, &fd), -EPROTO);
	CHECK(strstr(ffv_error_text(), name_of(gid_a, 1)));
	CHECK_EQ(ffv_nodedir_connect(dir, gid_a, 2, &fd), -ENOENT);
	CHECK_EQ(ffv_nodedir_connect(dir, gid_a, 3, &fd), -ENOENT);
	CHECK_EQ(ffv_nodedir_connect(dir, gid_a, 4, &fd), -ENOENT);
	CHECK_EQ(claim(dir, gid_a, &fd), 5);
	for (unsigned i = 0; i < 5; i++)
		CHECK(exists("aliens", name_of(gid_a, i))); /* what is not ours is not swept */
	ffv_nodedir_release(dir, gid_a, 5, fd);
	close(full), close(stream), close(file), close(first);
	CHECK_EQ(claim(dir, gid_a, &fd), 0);
	ffv_nodedir_release(dir, gid_a, 0, fd);
	ffv_nodedir_close(dir);
}

/* ---- list -------------------------------------------------------------------------------------------------------------- */

struct listing {
	uint32_t blocks[8];
	uint8_t first_bytes[8];
	int count, stop_after;
};

static int note(void *arg, const uint8_t gid[16], uint32_t block)
{
	struct listing *listing = arg;

	CHECK(listing->count < 8);
	listing->blocks[listing->count] = block;
	listing->first_bytes[listing->count++] = gid[0];
	return listing->count == listing->stop_after ? 42 : 0;
}

static void test_list(void)
{
	static const char *const wrong[] = {
		"router.sock", ".lock", "fe8000000000000000000000000000aa-1", "FE80000000000000000000000000000A-000",
		"fe80000000000000000000000000000a-400", "fe80000000000000000000000000000a-0000",
		"fe80000000000000000000000000000a_000", "fe80000000000000000000000000000g-000",
	};
	struct ffv_nodedir *dir = open_dir(scratch_folder("list", 0700));
	struct listing listing = {.count = 0};
	int fd[3];

	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		close(bind_by_hand("list", wrong[i], SOCK_SEQPACKET, 1));
	CHECK_EQ(ffv_nodedir_list(dir, note, &listing), 0);
	CHECK_EQ(listing.count, 0);
	claim(dir, gid_a, &fd[0]), claim(dir, gid_b, &fd[1]), claim(dir, gid_a, &fd[2]);
	CHECK_EQ(ffv_nodedir_list(dir, note, &listing), 0);
	CHECK_EQ(listing.count, 3);
	CHECK(listing.first_bytes[0] == 0 && listing.first_bytes[1] == 0xfe && listing.first_bytes[2] == 0xfe);
	CHECK(listing.blocks[0] == 0 && listing.blocks[1] == 0 && listing.blocks[2] == 1);
	listing = (struct listing){.stop_after = 2};
	CHECK_EQ(ffv_nodedir_list(dir, note, &listing), 42);
	CHECK_EQ(listing.count, 2);
	for (int i = 0; i < 3; i++)
		close(fd[i]);
	ffv_nodedir_close(dir);
}

/* ---- limits ------------------------------------------------------------------------------------------------------------ */

static void test_all_taken(void)
{
	struct ffv_nodedir *dir = open_dir(scratch_folder("full", 0700));
	uint32_t block;
	int live, fd;

	CHECK_EQ(claim(dir, gid_a, &live), 0);
	for (unsigned i = 1; i < FFV_QPN_BLOCKS; i++) /* other names of a living socket are alive, too */
		CHECK_EQ(link(scratch_path("full/%s", name_of(gid_a, 0)), scratch_path("full/%s", name_of(gid_a, i))),
			 0);
	CHECK_EQ(ffv_nodedir_claim(dir, gid_a, &block, &fd), -ENOSPC);
	CHECK(strstr(ffv_error_text(), "1024 blocks"));
	CHECK_EQ(claim(dir, gid_b, &fd), 0);
	CHECK_EQ(unlink(scratch_path("full/%s", name_of(gid_a, 1023))), 0);
	int last;
	CHECK_EQ(claim(dir, gid_a, &last), 1023);
	close(live), close(fd), close(last);
	ffv_nodedir_close(dir);
}

static void test_long_path(void)
{
	static const char part[] = "a-folder-whose-name-alone-is-longer-than-many";
	struct ffv_nodedir *dir;
	int fd, peer;

	scratch_folder(part, 0700);
	CHECK_EQ(mkdir(scratch_path("%s/%s", part, part), 0700), 0);
	CHECK_EQ(mkdir(scratch_path("%s/%s/%s", part, part, part), 0700), 0);
	dir = open_dir(scratch_path("%s/%s/%s", part, part, part));
	CHECK(strlen(ffv_nodedir_path(dir)) > 108);
	CHECK_EQ(claim(dir, gid_a, &fd), 0);
	CHECK_EQ(ffv_nodedir_connect(dir, gid_a, 0, &peer), 0);
	close(peer);
	ffv_nodedir_release(dir, gid_a, 0, fd);
	ffv_nodedir_close(dir);
}

static void check_relative(void *unused)
{
	struct ffv_nodedir *dir;
	int fd, peer;

	(void)unused;
	CHECK_EQ(chdir(scratch_folder("relative", 0700)), 0);
	dir = open_dir(".");
	CHECK_EQ(chdir("/"), 0);
	CHECK_EQ(claim(dir, gid_a, &fd), 0);
	CHECK(exists("relative", name_of(gid_a, 0)));
	CHECK_EQ(ffv_nodedir_connect(dir, gid_a, 0, &peer), 0);
	ffv_nodedir_release(dir, gid_a, 0, fd);
}

static void check_too_many_files(void *unused)
{
	struct ffv_nodedir *dir = open_dir(scratch_folder("files", 0700));
	const struct rlimit none = {0, 0};
	uint32_t block;
	int fd;

	(void)unused;
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	CHECK_EQ(ffv_nodedir_claim(dir, gid_a, &block, &fd), -EMFILE);
	CHECK_EQ(ffv_nodedir_connect(dir, gid_a, 0, &fd), -EMFILE);
	CHECK(strstr(ffv_error_text(), "ulimit -n"));
}

static void test_removed_folder(void)
{
	struct ffv_nodedir *dir = open_dir(scratch_folder("removed", 0700));
	uint32_t block;
	int fd;

	CHECK_EQ(rmdir(scratch_path("removed")), 0);
	CHECK_EQ(ffv_nodedir_claim(dir, gid_a, &block, &fd), -ENOENT);
	CHECK(strstr(ffv_error_text(), "create it again"));
	ffv_nodedir_close(dir);
}

/* ---- who may connect ---------------------------------------------------------------------------------------------------- */

static void check_mode(const char *folder, mode_t folder_mode, mode_t mask, mode_t expected)
{
	struct ffv_nodedir *dir = open_dir(scratch_folder(folder, folder_mode));
	struct stat st;
	int fd;

	umask(mask);
	CHECK_EQ(claim(dir, gid_a, &fd), 0);
	umask(022);
	CHECK_EQ(stat(scratch_path("%s/%s", folder, name_of(gid_a, 0)), &st), 0);
	CHECK_EQ(st.st_mode & 0777, expected);
	ffv_nodedir_release(dir, gid_a, 0, fd);
	ffv_nodedir_close(dir);
}

static void test_modes(void)
{
	check_mode("alone", 0700, 0, 0600);
	check_mode("seen", 0755, 0, 0600);
	check_mode("tenant", 01777, 077, 0666);
	check_mode("group", 0770, 077, 0666);
	check_mode("group-seen", 02775, 077, 0660);
}

/* As nobody, in a folder of root's which holds: 0 root's live socket, 1 one closed to us, 2 root's stale one. */
static void check_as_another(void *unused)
{
	struct ffv_nodedir *dir = open_dir(scratch_path("shared"));
	int fd;

	(void)unused;
	CHECK_EQ(ffv_nodedir_connect(dir, gid_a, 0, &fd), 0);
	CHECK_EQ(ffv_nodedir_connect(dir, gid_a, 1, &fd), -EACCES);
	CHECK(strstr(ffv_error_text(), "share the folder"));
	CHECK_EQ(ffv_nodedir_connect(dir, gid_a, 2, &fd), -ENOENT);
	CHECK_EQ(claim(dir, gid_a, &fd), 3); /* may not remove what is root's in a sticky folder */
	ffv_nodedir_release(dir, gid_a, 3, fd);
}

static void test_other_users(void)
{
	struct ffv_nodedir *dir = open_dir(scratch_folder("shared", 01777));
	int fd[3];

	for (uint32_t i = 0; i < 3; i++)
		CHECK_EQ(claim(dir, gid_a, &fd[i]), i);
	CHECK_EQ(chmod(scratch_path("shared/%s", name_of(gid_a, 1)), 0600), 0);
	close(fd[2]);
	if (geteuid() == 0)
		child_run(CHILD_NOBODY, check_as_another, NULL);
	else
		printf("skipped: only root can act for two users\n");
	close(fd[0]), close(fd[1]);
	ffv_nodedir_close(dir);
}

int main(void)
{
	umask(022);
	scratch_create();
	test_blocks();
	test_stale();
	test_segment();
	test_not_yet_listening();
	test_aliens();
	test_list();
	test_all_taken();
	test_long_path();
	child_run(geteuid(), check_relative, NULL);
	child_run(geteuid(), check_too_many_files, NULL);
	test_removed_folder();
	test_modes();
	test_other_users();
	scratch_remove();
	return 0;
}

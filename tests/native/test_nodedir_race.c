/* Many processes claim, die holding, connect and sweep in one folder at once: no block has two owners, no living
 * context's name is lost, nothing stays behind. */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#include <ffverbs/ffv.h>

#include "check.h"
#include "child.h"
#include "scratch.h"
#include "shm/nodedir.h"

#define PROCESSES 6
#define ROUNDS 150
#define LIVES 6

static const uint8_t gid[16] = {0xfe, 0x80, [15] = 1};

struct board {
	_Atomic uint32_t owner[64]; /* of a block: process + 1, 0 = none */
	_Atomic uint32_t claims, deaths, meetings;
};

struct player {
	struct board *board;
	uint32_t number;
	uint32_t random;
};

static uint32_t next_random(struct player *player)
{
	player->random = player->random * 1664525u + 1013904223u;
	return player->random >> 8;
}

static void own(struct player *player, uint32_t block)
{
	uint32_t nobody = 0;

	CHECK(block < 64);
	if (!atomic_compare_exchange_strong(&player->board->owner[block], &nobody, player->number + 1)) {
		fprintf(stderr, "block %u was given to %u while %u has it\n", block, player->number, nobody - 1);
		exit(1);
	}
	atomic_fetch_add(&player->board->claims, 1);
}

/* Our own name must lead to us, whoever sweeps around it. */
static void meet_ourselves(struct player *player, struct ffv_nodedir *dir, uint32_t block, int listening)
{
	char greeting = (char)player->number, heard = -1;
	int out, in;

	int rc = ffv_nodedir_connect(dir, gid, block, &out);
	if (rc)
		fprintf(stderr, "block %u: %s\n", block, ffv_error_text());
	CHECK_EQ(rc, 0);
	CHECK_EQ(send(out, &greeting, 1, 0), 1);
	/* Others' short visits may come first; they say nothing. */
	while (heard != greeting) {
		in = accept(listening, NULL, NULL);
		CHECK(in >= 0);
		if (recv(in, &heard, 1, MSG_DONTWAIT) != 1)
			heard = -1;
		close(in);
	}
	close(out);
	atomic_fetch_add(&player->board->meetings, 1);
}

static void play(void *arg)
{
	struct player *player = arg;
	struct ffv_nodedir *dir;
	uint32_t block;
	int fd, peer;

	CHECK_EQ(ffv_nodedir_open(scratch_path("race"), &dir), 0);
	for (int i = 0; i < ROUNDS; i++) {
		int rc = ffv_nodedir_claim(dir, gid, &block, &fd);
		if (rc)
			fprintf(stderr, "%s\n", ffv_error_text());
		CHECK_EQ(rc, 0);
		own(player, block);
		meet_ourselves(player, dir, block, fd);
		rc = ffv_nodedir_connect(dir, gid, next_random(player) % (PROCESSES + 1), &peer); /* anybody, or nobody */
		CHECK(rc == 0 || rc == -ENOENT);
		if (rc == 0)
			close(peer);
		atomic_store(&player->board->owner[block], 0);
		if (next_random(player) % 40 == 0) {
			atomic_fetch_add(&player->board->deaths, 1);
			raise(SIGKILL); /* the name stays */
		}
		ffv_nodedir_release(dir, gid, block, fd);
	}
	ffv_nodedir_close(dir);
}

static int fail_on_name(void *arg, const uint8_t found[16], uint32_t block)
{
	(void)found;
	fprintf(stderr, "the name of block %u stayed behind\n", block);
	return ++*(int *)arg, 0;
}

int main(void)
{
	struct board *board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	const char *given = getenv("FFVERBS_TEST_SEED");
	uint32_t seed = given ? (uint32_t)strtoul(given, NULL, 0) : (uint32_t)time(NULL);
	struct player players[PROCESSES];
	pid_t child[PROCESSES];
	struct ffv_nodedir *dir;
	int fd, left = 0;
	uint32_t block;

	printf("seed %u (FFVERBS_TEST_SEED)\n", seed);
	CHECK(board != MAP_FAILED);
	scratch_create();
	scratch_folder("race", 0700);
	for (int life = 0; life < LIVES; life++) {
		for (uint32_t i = 0; i < PROCESSES; i++) {
			players[i] = (struct player){board, i, seed + 7919 * i + 104729 * (uint32_t)life};
			child[i] = child_start(geteuid(), play, &players[i]);
		}
		for (int i = 0; i < PROCESSES; i++) {
			int status = child_wait(child[i]);
			CHECK(status == 0 || status == 128 + SIGKILL);
		}
	}
	printf("%u claims, %u deaths, %u meetings\n", board->claims, board->deaths, board->meetings);
	CHECK(board->claims >= LIVES * PROCESSES && board->deaths > 0);
	CHECK_EQ(ffv_nodedir_open(scratch_path("race"), &dir), 0);
	CHECK_EQ(ffv_nodedir_claim(dir, gid, &block, &fd), 0); /* sweeps what the last dead left */
	CHECK_EQ(block, 0);
	ffv_nodedir_release(dir, gid, block, fd);
	CHECK_EQ(ffv_nodedir_list(dir, fail_on_name, &left), 0);
	CHECK_EQ(left, 0);
	ffv_nodedir_close(dir);
	munmap(board, sizeof *board);
	scratch_remove();
	return 0;
}

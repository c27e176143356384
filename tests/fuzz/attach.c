/* For libFuzzer: what a container may say to a proxy in the node directory before and after it is attached: messages in and
 * out of their turn, with descriptors of every kind, over several connections at once. */
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "session.h"
#include "shm/attach.h"
#include "shm/nodedir.h"

#define MOST_STEPS 100u
#define MOST_SEATS 4u
#define CONTAINERS 2u

enum { GOOD_MIRROR, GOOD_BELL, SHORT_FILE, UNSEALED_FILE, PIPE, SOCKET, DEV_NULL, NUM_OTHERS };

static int arenas[CONTAINERS], others[NUM_OTHERS];
static struct ffv_arena_shm *mapped[CONTAINERS];
static struct ffv_nodedir *dir;

static void end(void)
{
	for (unsigned i = 0; i < CONTAINERS; i++) {
		ffv_arena_detach(mapped[i]);
		close(arenas[i]);
	}
	for (unsigned i = GOOD_BELL; i < NUM_OTHERS; i++)
		close(others[i]);
	ffv_nodedir_close(dir);
	hosts_close();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	int both[2];

	(void)argc, (void)argv;
	hosts_open();
	CHECK_OK(ffv_nodedir_open(session_host->dir, &dir));
	for (unsigned i = 0; i < CONTAINERS; i++) {
		CHECK_OK(ffv_arena_create("fuzzed", &arenas[i], &mapped[i]));
		mapped[i]->context_id = 0x3333333300000001ull + i;
		memcpy(mapped[i]->gid, session_host->gid.raw, 16);
		mapped[i]->qpn_first = FFV_QPN_BLOCK * (1 + i);
	}
	CHECK_OK(ffv_mirror_fd(&others[GOOD_MIRROR]));
	others[GOOD_BELL] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	others[SHORT_FILE] = memfd_create("short", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	others[UNSEALED_FILE] = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	CHECK_EQ(ftruncate(others[SHORT_FILE], 4096), 0);
	CHECK_EQ(fcntl(others[SHORT_FILE], F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
	CHECK_EQ(ftruncate(others[UNSEALED_FILE], (off_t)FFV_ARENA_BYTES), 0);
	CHECK_EQ(pipe2(both, O_CLOEXEC | O_NONBLOCK), 0);
	others[PIPE] = both[1];
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both), 0);
	others[SOCKET] = both[0];
	others[DEV_NULL] = open("/dev/null", O_RDWR | O_CLOEXEC);
	atexit(end);
	return 0;
}

static int any_descriptor(void)
{
	unsigned which = draw(NUM_OTHERS + CONTAINERS);

	return which < NUM_OTHERS ? others[which] : arenas[which - NUM_OTHERS];
}

/* A message with `count` descriptors, whatever it says of them. */
static void send_packet(int socket, const struct ffv_message *message, size_t bytes, const int *fds, uint32_t count)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))] = { 0 };
	struct iovec part = { (void *)(uintptr_t)message, bytes };
	struct msghdr packet = { .msg_iov = &part, .msg_iovlen = 1 };

	if (count) {
		packet.msg_control = control;
		packet.msg_controllen = CMSG_SPACE(count * sizeof(int));
		struct cmsghdr *rights = CMSG_FIRSTHDR(&packet);
		*rights = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(count * sizeof(int)) };
		memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
	}
	if (sendmsg(socket, &packet, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		CHECK(errno == EAGAIN || errno == EPIPE || errno == ECONNRESET);
}

static void say(int socket)
{
	unsigned who = draw(CONTAINERS);
	uint8_t room[sizeof(struct ffv_message) + 64] = { 0 };
	struct ffv_message message = { .magic = FFV_MESSAGE_MAGIC, .version = FFV_MESSAGE_VERSION, .kind = draw(9),
				       .context_id = mapped[who]->context_id, .qpn_first = mapped[who]->qpn_first };
	int fds[8] = { arenas[who], others[GOOD_MIRROR], others[GOOD_BELL] };
	uint32_t count = message.kind == FFV_MESSAGE_HELLO || message.kind == FFV_MESSAGE_WELCOME ? 3
			 : message.kind == FFV_MESSAGE_CHANNEL ? draw(2) : 0;

	memcpy(message.gid, mapped[who]->gid, 16);
	message.value = draw(4) ? draw(16) : draw(UINT32_MAX);
	if (message.kind == FFV_MESSAGE_CHANNEL)
		fds[0] = others[GOOD_BELL];
	if (!draw(4))
		fds[draw(3)] = any_descriptor();
	if (!draw(16))
		for (count = draw(8); count < 8 && draw(2); count++)
			fds[count] = any_descriptor();
	count = count < 8 ? count : 7;
	for (uint32_t i = 3; i < count; i++)
		fds[i] = any_descriptor();
	message.num_fds = draw(16) ? count : draw(9);
	memcpy(room, &message, sizeof message);
	if (!draw(16))
		room[draw(sizeof message)] = (uint8_t)draw(256);
	send_packet(socket, (const struct ffv_message *)(const void *)room, draw(32) ? sizeof message : draw(sizeof room), fds, count);
}

/* What it answers, with its descriptors: closed. */
static void listen_to(int socket)
{
	struct ffv_envelope envelope;

	while (ffv_attach_receive(socket, &envelope) == 1)
		ffv_envelope_close_fds(&envelope);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int seats[MOST_SEATS] = { -1, -1, -1, -1 };

	fuzzed_begin(data, size);
	/* A proxy that nobody talks to (any more) goes: it may have gone before this thread has seen it. */
	if (ffv_router_reach(session_host->router, stranger_gid, STRANGER_QPN, session_host->channel))
		return 0;
	for (unsigned i = 0; i < MOST_STEPS && fuzzed_left; i++) {
		int *seat = &seats[draw(MOST_SEATS)];
		unsigned what = draw(16);
		if (*seat < 0) {
			if (ffv_nodedir_connect(dir, stranger_gid, 0, seat)) /* idle for a moment, and made again when it is wanted */
				*seat = -1;
		} else if (what == 0) {
			close(*seat);
			*seat = -1;
		} else if (what == 1) {
			listen_to(*seat);
		} else if (what == 2) {
			session_settle();
		} else {
			say(*seat);
		}
	}
	for (unsigned i = 0; i < MOST_SEATS; i++)
		if (seats[i] >= 0)
			close(seats[i]);
	session_check();
	return 0;
}

/* Control messages: what is sent arrives with its descriptors, and what is not one of ours is refused without leaving
 * a descriptor open. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <ffverbs/ffv.h>

#include "check.h"
#include "child.h"
#include "shm/attach.h"

#define CONTEXT_ID 0x0000000100000002ull

static int ours, theirs;

static void connect_pair(void)
{
	int pair[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	ours = pair[0];
	theirs = pair[1];
}

static void close_pair(void)
{
	close(ours);
	close(theirs);
}

static int count_open(void)
{
	DIR *folder = opendir("/proc/self/fd");
	int count = 0;

	CHECK(folder);
	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

static struct ffv_envelope make(uint32_t kind, int num_fds)
{
	struct ffv_envelope envelope = {.message = {.kind = kind, .context_id = CONTEXT_ID, .value = 7, .gid = {0xfe},
						    .qpn_first = FFV_QPN_BLOCK}};

	for (int i = 0; i < FFV_MESSAGE_FDS; i++) {
		envelope.fds[i] = i < num_fds ? eventfd((unsigned)i, EFD_CLOEXEC) : -1;
		CHECK(i >= num_fds || envelope.fds[i] >= 0);
	}
	return envelope;
}

static void check_received(const struct ffv_envelope *sent, int num_fds)
{
	struct ffv_envelope got;
	int rc = ffv_attach_receive_within(ours, 10000, &got);

	if (rc != 1)
		fprintf(stderr, "%s\n", ffv_error_text());
	CHECK_EQ(rc, 1);
	CHECK_EQ(memcmp(&got.message, &sent->message, sizeof got.message), 0);
	CHECK_EQ(got.message.num_fds, num_fds);
	for (int i = 0; i < FFV_MESSAGE_FDS; i++) {
		CHECK_EQ(got.fds[i] >= 0, i < num_fds);
		uint64_t number = 0; /* in order: each eventfd holds its place */
		CHECK(i == 0 || i >= num_fds || read(got.fds[i], &number, sizeof number) == sizeof number);
		CHECK_EQ(number, i < num_fds ? i : 0);
		CHECK(i >= num_fds || fcntl(got.fds[i], F_GETFD) & FD_CLOEXEC);
	}
	CHECK_EQ(got.pid, getpid());
	CHECK_EQ(got.uid, geteuid());
	ffv_envelope_close_fds(&got);
	CHECK_EQ(got.fds[0], -1);
}

static void test_each_kind(void)
{
	static const struct { uint32_t kind; int num_fds; } right[] = {
		{FFV_MESSAGE_HELLO, 3}, {FFV_MESSAGE_WELCOME, 3}, {FFV_MESSAGE_WELCOME, 1}, {FFV_MESSAGE_REFUSE, 0},
		{FFV_MESSAGE_BYE, 0}, {FFV_MESSAGE_WANT_CHANNEL, 0}, {FFV_MESSAGE_CHANNEL, 1},
		{FFV_MESSAGE_CHANNEL, 0}, {FFV_MESSAGE_OBSERVE, 0},
	};
	struct ffv_envelope got;

	connect_pair();
	const int before = count_open();
	CHECK_EQ(ffv_attach_receive(ours, &got), -EAGAIN);
	CHECK_EQ(ffv_attach_receive_within(ours, 1, &got), -ETIMEDOUT);
	for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
		struct ffv_envelope sent = make(right[i].kind, right[i].num_fds);

		CHECK_EQ(ffv_attach_send(theirs, &sent), 0);
		check_received(&sent, right[i].num_fds);
		ffv_envelope_close_fds(&sent);
	}
	CHECK_EQ(count_open(), before);
	close_pair();
}

/* Our own mistakes are refused before anything is sent. */
static void test_wrong_to_send(void)
{
	struct ffv_envelope hole = make(FFV_MESSAGE_WELCOME, 3), few = make(FFV_MESSAGE_HELLO, 2),
			    many = make(FFV_MESSAGE_BYE, 1), alien = make(99, 0), got;

	connect_pair();
	close(hole.fds[1]);
	hole.fds[1] = -1;
	CHECK_EQ(ffv_attach_send(theirs, &hole), -EINVAL);
	CHECK_EQ(ffv_attach_send(theirs, &few), -EINVAL);
	CHECK_EQ(ffv_attach_send(theirs, &many), -EINVAL);
	CHECK_EQ(ffv_attach_send(theirs, &alien), -EINVAL);
	CHECK_EQ(ffv_attach_receive(ours, &got), -EAGAIN);
	ffv_envelope_close_fds(&hole), ffv_envelope_close_fds(&few), ffv_envelope_close_fds(&many);
	close_pair();
}

/* ---- aliens -------------------------------------------------------------------------------------------------------------- */

static struct ffv_message good_message(uint32_t kind, uint32_t num_fds)
{
	return (struct ffv_message){.magic = FFV_MESSAGE_MAGIC, .version = FFV_MESSAGE_VERSION, .kind = kind,
				    .context_id = CONTEXT_ID, .num_fds = num_fds};
}

/* Sends any bytes with any number of descriptors. */
static void send_raw(const void *bytes, size_t length, size_t num_fds)
{
	union { struct cmsghdr header; char bytes[CMSG_SPACE(64 * sizeof(int))]; } control = {.bytes = {0}};
	struct iovec part = {(void *)(uintptr_t)bytes, length};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

	if (num_fds) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(num_fds * sizeof(int));
		struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(num_fds * sizeof(int));
		for (size_t i = 0; i < num_fds; i++) {
			const int fd = STDIN_FILENO;
			memcpy(CMSG_DATA(rights) + i * sizeof fd, &fd, sizeof fd);
		}
	}
	CHECK_EQ(sendmsg(theirs, &message, 0), (ssize_t)length);
}

static void check_refused(const void *bytes, size_t length, size_t num_fds, const char *text)
{
	struct ffv_envelope got = {.fds = {-5, -5, -5}};
	const int before = count_open();

	send_raw(bytes, length, num_fds);
	CHECK_EQ(ffv_attach_receive(ours, &got), -EPROTO);
	if (!strstr(ffv_error_text(), text)) {
		fprintf(stderr, "the text lacks \"%s\": %s\n", text, ffv_error_text());
		exit(1);
	}
	CHECK_EQ(got.fds[0], -5); /* outputs are set on success only */
	CHECK_EQ(count_open(), before);
}

static void refuse_message(struct ffv_message message, size_t num_fds, const char *text)
{
	check_refused(&message, sizeof message, num_fds, text);
}

static void test_aliens(void)
{
	const struct ffv_message bye = good_message(FFV_MESSAGE_BYE, 0);
	struct ffv_message message;
	char large[4096] = {0};

	connect_pair();
	check_refused("", 0, 0, "not a control message");
	check_refused("", 0, 2, "not a control message");
	check_refused("GET / HTTP/1.1", 14, 0, "not a control message");
	check_refused(large, sizeof large, 3, "not a control message");
	check_refused(&bye, sizeof bye - 1, 0, "bytes long");
	check_refused(&bye, 12, 0, "bytes long");
	memcpy(large, &bye, sizeof bye);
	check_refused(large, sizeof bye + 1, 0, "bytes long");
	check_refused(large, sizeof large, 0, "bytes long");
	message = bye;
	message.magic ^= 1;
	refuse_message(message, 0, "not a control message");
	message = bye;
	message.version++;
	refuse_message(message, 0, "version 2 of the control protocol, we speak 1");
	refuse_message(good_message(0, 0), 0, "kind 0");
	refuse_message(good_message(FFV_MESSAGE_OBSERVE + 1, 0), 0, "kind 8");
	refuse_message(bye, 1, "with 1 descriptors, stating 0");
	refuse_message(good_message(FFV_MESSAGE_BYE, 1), 1, "kind 4");
	refuse_message(good_message(FFV_MESSAGE_HELLO, 3), 0, "with 0 descriptors, stating 3");
	refuse_message(good_message(FFV_MESSAGE_HELLO, 3), 2, "with 2 descriptors");
	refuse_message(good_message(FFV_MESSAGE_HELLO, 3), 4, "with 4 descriptors");
	refuse_message(good_message(FFV_MESSAGE_HELLO, 3), 8, "with 8 descriptors");
	refuse_message(good_message(FFV_MESSAGE_HELLO, 3), 60, "too many descriptors");
	refuse_message(good_message(FFV_MESSAGE_WELCOME, 2), 2, "kind 2");
	message = good_message(FFV_MESSAGE_HELLO, 3);
	message.context_id = 5;
	refuse_message(message, 3, "without a context id");
	/* After all this the connection still carries what is right. */
	struct ffv_envelope sent = make(FFV_MESSAGE_BYE, 0);
	CHECK_EQ(ffv_attach_send(theirs, &sent), 0);
	check_received(&sent, 0);
	close_pair();
}

/* ---- ends of a connection -------------------------------------------------------------------------------------------------- */

static void test_hang_up(void)
{
	struct ffv_envelope sent = make(FFV_MESSAGE_BYE, 0), got;

	connect_pair();
	close(theirs);
	CHECK_EQ(ffv_attach_receive(ours, &got), 0);
	CHECK_EQ(ffv_attach_receive_within(ours, 10000, &got), 0);
	CHECK_EQ(ffv_attach_send(ours, &sent), -EPIPE); /* without a signal */
	close(ours);
	/* What came before the hang-up is heard first, even where the peer has not read all of ours. */
	connect_pair();
	CHECK_EQ(ffv_attach_send(ours, &sent), 0);
	CHECK_EQ(ffv_attach_send(theirs, &sent), 0);
	close(theirs);
	CHECK_EQ(ffv_attach_receive(ours, &got), 1);
	CHECK_EQ(got.message.kind, FFV_MESSAGE_BYE);
	CHECK_EQ(ffv_attach_receive(ours, &got), 0);
	close(ours);
	CHECK_EQ(ffv_attach_receive(-1, &got), -EBADF);
	CHECK_EQ(ffv_attach_send(-1, &sent), -EBADF);
}

static void test_full_buffer(void)
{
	struct ffv_envelope sent = make(FFV_MESSAGE_WANT_CHANNEL, 0);
	int count = 0, rc;

	connect_pair();
	while ((rc = ffv_attach_send(theirs, &sent)) == 0)
		count++;
	CHECK_EQ(rc, -EAGAIN);
	CHECK(count > 0);
	while (count--)
		check_received(&sent, 0);
	CHECK_EQ(ffv_attach_send(theirs, &sent), 0);
	close_pair();
}

static void *answer(void *arg)
{
	struct ffv_envelope got;

	CHECK_EQ(ffv_attach_receive_within(theirs, 10000, &got), 1);
	ffv_envelope_close_fds(&got);
	CHECK_EQ(ffv_attach_send(theirs, arg), 0);
	return NULL;
}

static void test_answer_is_awaited(void)
{
	struct ffv_envelope hello = make(FFV_MESSAGE_HELLO, 3), welcome = make(FFV_MESSAGE_WELCOME, 3);
	pthread_t thread;

	connect_pair();
	CHECK_EQ(pthread_create(&thread, NULL, answer, &welcome), 0);
	CHECK_EQ(ffv_attach_send(ours, &hello), 0);
	check_received(&welcome, 3);
	pthread_join(thread, NULL);
	ffv_envelope_close_fds(&hello);
	ffv_envelope_close_fds(&welcome);
	close_pair();
}

/* In a child: no descriptor can be opened any more, so those of the message cannot arrive. */
static void receive_without_room(void *unused)
{
	const struct rlimit few = {(rlim_t)theirs + 1, (rlim_t)theirs + 1};
	struct ffv_envelope sent = make(FFV_MESSAGE_HELLO, 3), got;
	int filler;

	(void)unused;
	CHECK_EQ(ffv_attach_send(theirs, &sent), 0);
	ffv_envelope_close_fds(&sent);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
	do
		filler = dup(ours);
	while (filler >= 0);
	CHECK_EQ(ffv_attach_receive(ours, &got), -EMFILE);
	CHECK(strstr(ffv_error_text(), "ulimit -n"));
}

int main(void)
{
	test_each_kind();
	test_wrong_to_send();
	test_aliens();
	test_hang_up();
	test_full_buffer();
	test_answer_is_awaited();
	connect_pair();
	child_run(geteuid(), receive_without_room, NULL);
	close_pair();
	return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * See ask.h.
 */
#include "verbs/ask.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

struct answer { struct ffv_ask ask; char text[FFV_ASK_TEXT_BYTES]; };

/* `question` becomes the answer. */
static int receive_answer(int socket, struct ffv_ask *question, int timeout_ms)
{
	struct pollfd ready = { .fd = socket, .events = POLLIN };
	const uint32_t qpn = question->qpn;
	struct answer answer;

	if (poll(&ready, 1, timeout_ms) != 1)
		return ffv_fail(EAGAIN, "the router of this host did not answer within %d ms", timeout_ms);
	ssize_t got = recv(socket, &answer, sizeof answer - 1, MSG_DONTWAIT);
	const struct ffv_ask *said = &answer.ask;
	if (got < (ssize_t)sizeof *said || said->magic != FFV_ASK_MAGIC || said->version != FFV_ASK_VERSION ||
	    said->kind != FFV_ASK_ANSWER || said->qpn != qpn)
		return ffv_fail(EPROTO, "the router of this host answered with something else: run the same ffverbs there");
	((char *)&answer)[got] = 0;
	*question = *said;
	return said->error ? ffv_fail((int)(said->error & 0xfff), "the router of this host says: %s",
				      answer.text[0] ? answer.text : "it cannot be reached") : 0;
}

/* The number of a namespace of this process; they are not used twice. */
static uint32_t namespace_number(const char *path)
{
	struct stat status;

	return stat(path, &status) ? 0 : (uint32_t)status.st_ino;
}

int ffv_ask_claim(const struct ffv_nodedir *dir, uint8_t gid[16], int timeout_ms)
{
	struct ffv_ask question = { .magic = FFV_ASK_MAGIC, .version = FFV_ASK_VERSION, .kind = FFV_ASK_CLAIM,
				    .mount_ns = namespace_number("/proc/self/ns/mnt"),
				    .network_ns = namespace_number("/proc/self/ns/net") };
	int socket, rc = ffv_nodedir_connect_router(dir, &socket);

	if (rc)
		return rc;
	memcpy(question.gid, gid, 16);
	if (send(socket, &question, sizeof question, MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof question)
		rc = ffv_fail_errno(errno, "the router of this host cannot be asked");
	else
		rc = receive_answer(socket, &question, timeout_ms);
	if (!rc)
		memcpy(gid, question.gid, 16);
	close(socket);
	return rc;
}

int ffv_ask_begin(struct ffv_context *ctx, struct ffv_ask *question, const void *message, size_t bytes, int *fd)
{
	struct iovec parts[2] = { { question, sizeof *question }, { (void *)(uintptr_t)message, bytes } };
	struct msghdr packet = { .msg_iov = parts, .msg_iovlen = bytes ? 2 : 1 };
	int socket;

	if (ctx->proxy)
		return ffv_fail(ENOENT, "a router does not ask itself");
	int rc = ffv_nodedir_connect_router(ctx->dir, &socket);
	if (rc)
		return rc;
	question->magic = FFV_ASK_MAGIC;
	question->version = FFV_ASK_VERSION;
	question->asker_qpn_first = ctx->view.arena->qpn_first;
	memcpy(question->asker_gid, ctx->gid, 16);
	if (sendmsg(socket, &packet, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)(sizeof *question + bytes)) {
		rc = ffv_fail_errno(errno, "the router of this host cannot be asked");
		close(socket);
		return rc;
	}
	*fd = socket;
	return 0;
}

int ffv_ask_answer(int fd, uint32_t *error)
{
	struct ffv_ask answer;
	ssize_t got = recv(fd, &answer, sizeof answer, MSG_DONTWAIT | MSG_PEEK | MSG_TRUNC);

	if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return -EAGAIN;
	if (got != (ssize_t)sizeof answer || answer.magic != FFV_ASK_MAGIC || answer.version != FFV_ASK_VERSION ||
	    answer.kind != FFV_ASK_ANSWER)
		return 0;
	if (recv(fd, &answer, sizeof answer, MSG_DONTWAIT) != (ssize_t)sizeof answer)
		return 0;
	*error = answer.error & 0xfff;
	return 1;
}

static int ask(struct ffv_context *ctx, struct ffv_ask *question, int timeout_ms)
{
	int socket, rc = ffv_ask_begin(ctx, question, NULL, 0, &socket);

	if (rc)
		return rc;
	rc = timeout_ms ? receive_answer(socket, question, timeout_ms) : -EAGAIN;
	close(socket);
	return rc;
}

int ffv_ask_router(struct ffv_context *ctx, const uint8_t gid[16], uint32_t qpn, int timeout_ms)
{
	struct ffv_ask question = { .kind = FFV_ASK_WHERE, .qpn = qpn };

	memcpy(question.gid, gid, 16);
	return ask(ctx, &question, timeout_ms);
}

int ffv_ask_segment(struct ffv_context *ctx, int timeout_ms)
{
	struct ffv_ask question = { .kind = FFV_ASK_SEGMENT };
	int rc = ask(ctx, &question, timeout_ms);

	return rc == -ENOENT ? 0 : rc;
}

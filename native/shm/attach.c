/* SPDX-License-Identifier: MIT
 *
 * Messages of the control protocol, see attach.h.
 */
#include "shm/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

/* More than a message of ours has: those of a wrong one are counted and closed, what exceeds even this the kernel
 * closes. */
#define MOST_RECEIVED 8

_Static_assert(sizeof(struct ffv_message) == 56, "a message has no padding");

union control {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(MOST_RECEIVED * sizeof(int))];
};

static int is_fd_count_right(uint32_t kind, uint32_t num_fds)
{
	switch (kind) {
	case FFV_MESSAGE_HELLO:
		return num_fds == 3;
	case FFV_MESSAGE_WELCOME:
		return num_fds == 3 || num_fds == 1;
	case FFV_MESSAGE_CHANNEL:
		return num_fds <= 1;
	case FFV_MESSAGE_REFUSE:
	case FFV_MESSAGE_BYE:
	case FFV_MESSAGE_WANT_CHANNEL:
	case FFV_MESSAGE_OBSERVE:
		return num_fds == 0;
	default:
		return 0;
	}
}

/* ---- send ------------------------------------------------------------------------------------------------------------ */

static int count_fds(const struct ffv_envelope *envelope)
{
	int count = 0;

	while (count < FFV_MESSAGE_FDS && envelope->fds[count] >= 0)
		count++;
	for (int i = count; i < FFV_MESSAGE_FDS; i++)
		if (envelope->fds[i] >= 0)
			return -1;
	return count;
}

static void put_fds(struct msghdr *header, union control *control, const int *fds, size_t count)
{
	struct cmsghdr *rights;

	memset(control, 0, sizeof *control);
	header->msg_control = control;
	header->msg_controllen = CMSG_SPACE(count * sizeof(int));
	rights = CMSG_FIRSTHDR(header);
	rights->cmsg_level = SOL_SOCKET;
	rights->cmsg_type = SCM_RIGHTS;
	rights->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
}

int ffv_attach_send(int socket, struct ffv_envelope *envelope)
{
	struct iovec part = {&envelope->message, sizeof envelope->message};
	struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
	union control control;
	int count = count_fds(envelope);
	ssize_t sent;

	if (count < 0 || !is_fd_count_right(envelope->message.kind, (uint32_t)count))
		return ffv_fail(EINVAL, "a control message of kind %u does not go with these descriptors",
				envelope->message.kind);
	envelope->message.magic = FFV_MESSAGE_MAGIC;
	envelope->message.version = FFV_MESSAGE_VERSION;
	envelope->message.num_fds = (uint32_t)count;
	if (count)
		put_fds(&header, &control, envelope->fds, (size_t)count);
	do
		sent = sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent == (ssize_t)sizeof envelope->message)
		return 0;
	if (sent >= 0)
		return ffv_fail(EIO, "a control message was sent in part"); /* packets are not divided */
	if (errno == ETOOMANYREFS)
		return ffv_fail(ETOOMANYREFS, "too many descriptors are under way to other processes: raise the limit "
				"(ulimit -n)");
	return ffv_fail_errno(errno == ENOTCONN ? EPIPE : errno, "a control message cannot be sent");
}

/* ---- receive --------------------------------------------------------------------------------------------------------- */

struct received_fds {
	int fd[MOST_RECEIVED];
	size_t count;
};

static void take_fds(struct msghdr *header, struct received_fds *received)
{
	received->count = 0;
	for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part; part = CMSG_NXTHDR(header, part)) {
		if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
			continue;
		size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
			if (received->count < MOST_RECEIVED)
				received->fd[received->count++] = fd;
			else
				close(fd);
		}
	}
}

static void close_received(struct received_fds *received)
{
	for (size_t i = 0; i < received->count; i++)
		close(received->fd[i]);
	received->count = 0;
}

/* Nothing arrived: a hang-up, or a packet of no bytes? */
static int is_hung_up(int socket)
{
	struct pollfd ask = {.fd = socket, .events = POLLRDHUP};

	return poll(&ask, 1, 0) == 1 && ask.revents & (POLLRDHUP | POLLHUP | POLLERR);
}

/* The kernel leaves descriptors out, too, when this process may not open any more. */
static int fail_truncated(int socket)
{
	int probe = fcntl(socket, F_DUPFD_CLOEXEC, 0);

	if (probe < 0)
		return ffv_fail(errno, "descriptors of a peer could not be received, too many files are open: raise the "
				"limit (ulimit -n)");
	close(probe);
	return ffv_fail(EPROTO, "a peer sent a control message with too many descriptors");
}

static int check_message(const struct ffv_message *message, size_t bytes, const struct msghdr *header, size_t num_fds)
{
	if (bytes < sizeof message->magic + sizeof message->version || message->magic != FFV_MESSAGE_MAGIC)
		return ffv_fail(EPROTO, "a peer sent what is not a control message of ffverbs");
	if (message->version != FFV_MESSAGE_VERSION)
		return ffv_fail(EPROTO, "a peer speaks version %u of the control protocol, we speak %u: run the same "
				"ffverbs at both ends", message->version, FFV_MESSAGE_VERSION);
	if (bytes != sizeof *message || header->msg_flags & MSG_TRUNC)
		return ffv_fail(EPROTO, "a peer sent a control message that is not %zu bytes long", sizeof *message);
	if (message->num_fds != num_fds || !is_fd_count_right(message->kind, message->num_fds))
		return ffv_fail(EPROTO, "a peer sent a control message of kind %u with %zu descriptors, stating %u",
				message->kind, num_fds, message->num_fds);
	if ((message->kind == FFV_MESSAGE_HELLO || message->kind == FFV_MESSAGE_WELCOME) &&
	    (!(uint32_t)message->context_id || !(uint32_t)(message->context_id >> 32)))
		return ffv_fail(EPROTO, "a peer introduced itself without a context id");
	return 0;
}

static void fill_sender(int socket, struct ffv_envelope *envelope)
{
	struct ucred sender;
	socklen_t length = sizeof sender;

	envelope->pid = 0;
	envelope->uid = (uid_t)-1;
	if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &sender, &length) == 0) {
		envelope->pid = sender.pid;
		envelope->uid = sender.uid;
	}
}

/* recvmsg; a reset (the peer went without having read all of ours) is reported before what it sent, a BYE perhaps. */
static ssize_t receive_packet(int socket, struct msghdr *header)
{
	const size_t room = header->msg_controllen;
	int resets = 0;
	ssize_t got;

	for (;;) {
		header->msg_controllen = room;
		got = recvmsg(socket, header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (got >= 0 || (errno != EINTR && errno != ECONNRESET))
			return got;
		if (errno == ECONNRESET && ++resets > 1)
			return 0;
	}
}

int ffv_attach_receive(int socket, struct ffv_envelope *out)
{
	struct ffv_envelope envelope;
	struct iovec part = {&envelope.message, sizeof envelope.message};
	union control control;
	struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1,
				.msg_control = &control, .msg_controllen = sizeof control};
	struct received_fds received;
	int rc;

	memset(&envelope, 0, sizeof envelope);
	ssize_t got = receive_packet(socket, &header);
	if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return -EAGAIN;
	if (got < 0)
		return ffv_fail_errno(errno, "a control message cannot be received");
	take_fds(&header, &received);
	if (got == 0 && received.count == 0 && is_hung_up(socket))
		return 0;
	rc = header.msg_flags & MSG_CTRUNC ? fail_truncated(socket)
					   : check_message(&envelope.message, (size_t)got, &header, received.count);
	if (rc) {
		close_received(&received);
		return rc;
	}
	for (size_t i = 0; i < FFV_MESSAGE_FDS; i++)
		envelope.fds[i] = i < received.count ? received.fd[i] : -1;
	fill_sender(socket, &envelope);
	*out = envelope;
	return 1;
}

int ffv_attach_receive_within(int socket, int timeout_ms, struct ffv_envelope *envelope)
{
	struct pollfd ask = {.fd = socket, .events = POLLIN};
	const uint64_t deadline_ns = ffv_clock_ns() + (uint64_t)timeout_ms * 1000000;

	for (;;) {
		int rc = ffv_attach_receive(socket, envelope);
		if (rc != -EAGAIN)
			return rc;
		const uint64_t now_ns = ffv_clock_ns();
		if (now_ns >= deadline_ns)
			return ffv_fail(ETIMEDOUT, "a peer did not answer within %d ms: is it stopped?", timeout_ms);
		if (poll(&ask, 1, (int)((deadline_ns - now_ns + 999999) / 1000000)) < 0 && errno != EINTR)
			return ffv_fail_errno(errno, "the answer of a peer cannot be waited for");
	}
}

void ffv_envelope_close_fds(struct ffv_envelope *envelope)
{
	for (int i = 0; i < FFV_MESSAGE_FDS; i++) {
		if (envelope->fds[i] >= 0)
			close(envelope->fds[i]);
		envelope->fds[i] = -1;
	}
}

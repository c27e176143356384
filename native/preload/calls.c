/* SPDX-License-Identifier: MIT
 *
 * libc's functions that move data: each looks whether the number is a connection that is translated, and says what it was asked for
 * as a message.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "preload/data.h"
#include "preload/pass.h"

/* ---- one buffer ----------------------------------------------------------------------------------------------------------------- */

static ssize_t receive(struct pre_conn *conn, int fd, void *data, size_t length, int flags)
{
	struct iovec piece = { data, length };
	struct msghdr msg = { .msg_iov = &piece, .msg_iovlen = 1 };
	long count = pre_receive(conn, fd, &msg, flags);

	pre_put(conn);
	return pre_result(count);
}

static ssize_t send_one(struct pre_conn *conn, int fd, const void *data, size_t length, int flags, const struct sockaddr *addr,
			socklen_t addr_length)
{
	struct iovec piece = { (void *)(uintptr_t)data, length };
	struct msghdr msg = { .msg_name = (void *)(uintptr_t)addr, .msg_namelen = addr ? addr_length : 0, .msg_iov = &piece,
			      .msg_iovlen = 1 };
	long count = pre_send(conn, fd, &msg, flags);

	pre_put(conn);
	return pre_result(count);
}

/* Or a UDP socket, which is translated alike. */
static struct pre_conn *stream_of(int fd)
{
	struct pre_conn *conn = pre_get(fd);

	if (conn && conn->kind == PRE_LISTENER) {
		pre_put(conn);
		return NULL;
	}
	return conn;
}

PRE_EXPORT ssize_t read(int fd, void *data, size_t length)
{
	struct pre_conn *conn = stream_of(fd);

	return conn ? receive(conn, fd, data, length, 0) : pre_real()->read(fd, data, length);
}

PRE_EXPORT ssize_t recv(int fd, void *data, size_t length, int flags)
{
	struct pre_conn *conn = stream_of(fd);

	return conn ? receive(conn, fd, data, length, flags) : pre_real()->recv(fd, data, length, flags);
}

PRE_EXPORT ssize_t recvfrom(int fd, void *data, size_t length, int flags, struct sockaddr *addr, socklen_t *addr_length)
{
	struct pre_conn *conn = stream_of(fd);

	if (!conn)
		return pre_real()->recvfrom(fd, data, length, flags, addr, addr_length);
	struct iovec piece = { data, length };
	struct msghdr msg = { .msg_name = addr, .msg_namelen = addr && addr_length ? *addr_length : 0, .msg_iov = &piece, .msg_iovlen = 1 };
	bool is_named = addr && addr_length;
	if (is_named && conn->kind != PRE_DATAGRAMS) {
		msg.msg_name = NULL;
		msg.msg_namelen = *addr_length = 0; /* as TCP does */
	}
	long count = pre_receive(conn, fd, &msg, flags);
	if (is_named && count >= 0)
		*addr_length = msg.msg_namelen;
	pre_put(conn);
	return pre_result(count);
}

PRE_EXPORT ssize_t write(int fd, const void *data, size_t length)
{
	struct pre_conn *conn = stream_of(fd);

	return conn ? send_one(conn, fd, data, length, 0, NULL, 0) : pre_real()->write(fd, data, length);
}

PRE_EXPORT ssize_t send(int fd, const void *data, size_t length, int flags)
{
	struct pre_conn *conn = stream_of(fd);

	return conn ? send_one(conn, fd, data, length, flags, NULL, 0) : pre_real()->send(fd, data, length, flags);
}

PRE_EXPORT ssize_t sendto(int fd, const void *data, size_t length, int flags, const struct sockaddr *addr, socklen_t addr_length)
{
	struct pre_conn *conn = stream_of(fd);

	if (!conn)
		return pre_real()->sendto(fd, data, length, flags, addr, addr_length);
	if (conn->kind != PRE_DATAGRAMS)
		addr = NULL;
	return send_one(conn, fd, data, length, flags, addr, addr_length);
}

ssize_t __read_chk(int, void *, size_t, size_t);
ssize_t __recv_chk(int, void *, size_t, size_t, int);
ssize_t __recvfrom_chk(int, void *, size_t, size_t, int, struct sockaddr *, socklen_t *);

PRE_EXPORT ssize_t __read_chk(int fd, void *data, size_t length, size_t size)
{
	if (length > size)
		abort();
	return read(fd, data, length);
}

PRE_EXPORT ssize_t __recv_chk(int fd, void *data, size_t length, size_t size, int flags)
{
	if (length > size)
		abort();
	return recv(fd, data, length, flags);
}

PRE_EXPORT ssize_t __recvfrom_chk(int fd, void *data, size_t length, size_t size, int flags, struct sockaddr *addr,
				  socklen_t *addr_length)
{
	if (length > size)
		abort();
	return recvfrom(fd, data, length, flags, addr, addr_length);
}

/* ---- several buffers ------------------------------------------------------------------------------------------------------------- */

static long send_message(struct pre_conn *conn, int fd, const struct msghdr *msg, int flags)
{
	long count = pre_send(conn, fd, msg, flags);

	pre_put(conn);
	return pre_result(count);
}

static long receive_message(struct pre_conn *conn, int fd, struct msghdr *msg, int flags)
{
	long count = pre_receive(conn, fd, msg, flags);

	pre_put(conn);
	return pre_result(count);
}

PRE_EXPORT ssize_t readv(int fd, const struct iovec *pieces, int count)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)pieces, .msg_iovlen = (size_t)count };
	struct pre_conn *conn = count < 0 ? NULL : stream_of(fd);

	return conn ? receive_message(conn, fd, &msg, 0) : pre_real()->readv(fd, pieces, count);
}

PRE_EXPORT ssize_t writev(int fd, const struct iovec *pieces, int count)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)pieces, .msg_iovlen = (size_t)count };
	struct pre_conn *conn = count < 0 ? NULL : stream_of(fd);

	return conn ? send_message(conn, fd, &msg, 0) : pre_real()->writev(fd, pieces, count);
}

PRE_EXPORT ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	struct pre_conn *conn = stream_of(fd);

	return conn ? receive_message(conn, fd, msg, flags) : pre_real()->recvmsg(fd, msg, flags);
}

PRE_EXPORT ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	struct pre_conn *conn = stream_of(fd);

	if (conn)
		return send_message(conn, fd, msg, flags);
	if (!pre_pass_rights(msg))
		return pre_result(-EOPNOTSUPP);
	return pre_real()->sendmsg(fd, msg, flags);
}

PRE_EXPORT int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
	struct pre_conn *conn = stream_of(fd);
	unsigned done = 0;
	long sent = 0;

	for (unsigned i = 0; !conn && i < count; i++)
		if (!pre_pass_rights(&messages[i].msg_hdr))
			return (int)pre_result(-EOPNOTSUPP);
	if (!conn)
		return pre_real()->sendmmsg(fd, messages, count, flags);
	while (done < count && (sent = pre_send(conn, fd, &messages[done].msg_hdr, flags)) >= 0)
		messages[done++].msg_len = (unsigned)sent;
	pre_put(conn);
	return (int)pre_result(done ? (long)done : sent);
}

static uint64_t in_ns(const struct timespec *time)
{
	return (uint64_t)time->tv_sec * 1000000000u + (uint64_t)time->tv_nsec;
}

PRE_EXPORT int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout)
{
	struct pre_conn *conn = stream_of(fd);
	unsigned done = 0;
	long got = 0;

	if (!conn)
		return pre_real()->recvmmsg(fd, messages, count, flags, timeout);
	if (timeout && (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec >= 1000000000)) {
		pre_put(conn);
		return (int)pre_result(-EINVAL);
	}
	uint64_t now_ns = ffv_clock_ns(), end_ns = timeout ? now_ns + in_ns(timeout) : UINT64_MAX;
	/* As the kernel: the time is looked at when something has come, not while nothing comes. */
	while (done < count && now_ns <= end_ns) {
		bool waits = !done || !(flags & MSG_WAITFORONE);
		got = pre_receive(conn, fd, &messages[done].msg_hdr, (flags & ~MSG_WAITFORONE) | (waits ? 0 : MSG_DONTWAIT));
		if (got < 0)
			break;
		messages[done++].msg_len = (unsigned)got;
		now_ns = timeout ? ffv_clock_ns() : now_ns;
	}
	pre_put(conn);
	if (timeout && done) {
		uint64_t left_ns = end_ns > now_ns ? end_ns - now_ns : 0;
		*timeout = (struct timespec){ (time_t)(left_ns / 1000000000u), (long)(left_ns % 1000000000u) };
	}
	return (int)pre_result(done ? (long)done : got);
}

/* ---- files ------------------------------------------------------------------------------------------------------------------------ */

#define FILE_PIECE_BYTES 65536u

/* Sends from a file what its reader gives, and takes back what was not sent. */
static long send_file(struct pre_conn *conn, int fd, int file, off64_t *offset, size_t count)
{
	static __thread char *piece;
	long done = 0, sent = 0;

	if (!piece && !(piece = malloc(FILE_PIECE_BYTES)))
		return -ENOMEM;
	off64_t at = offset ? *offset : lseek64(file, 0, SEEK_CUR);
	if (at < 0)
		return -EINVAL;
	while ((size_t)done < count) {
		size_t wanted = count - (size_t)done < FILE_PIECE_BYTES ? count - (size_t)done : FILE_PIECE_BYTES;
		ssize_t got = pread64(file, piece, wanted, at);
		if (got <= 0) {
			sent = got < 0 ? -errno : 0;
			break;
		}
		struct iovec part = { piece, (size_t)got };
		struct msghdr msg = { .msg_iov = &part, .msg_iovlen = 1 };
		sent = pre_send(conn, fd, &msg, 0);
		if (sent <= 0)
			break;
		at += sent;
		done += sent;
		if (sent < got)
			break;
	}
	if (offset)
		*offset = at;
	else
		lseek64(file, at, SEEK_SET);
	return done ? done : sent;
}

static ssize_t file_to_stream(int fd, int file, off64_t *offset, size_t count)
{
	struct pre_conn *conn = stream_of(fd);

	if (conn && conn->kind == PRE_DATAGRAMS) {
		pre_put(conn);
		conn = NULL;
	}
	if (!conn)
		return pre_real()->sendfile64(fd, file, offset, count);
	long done = send_file(conn, fd, file, offset, count);
	pre_put(conn);
	return pre_result(done);
}

/* There is one kind of offsets on the machines that this is for. */
PRE_EXPORT __attribute__((alias("file_to_stream"))) ssize_t pre_sendfile(int, int, off64_t *, size_t) __asm__("sendfile");
PRE_EXPORT __attribute__((alias("file_to_stream"))) ssize_t pre_sendfile64(int, int, off64_t *, size_t) __asm__("sendfile64");

/* From or to a connection that is translated, with a pipe at the other end: EINVAL, at which programs read and write instead. */
PRE_EXPORT ssize_t splice(int from, off64_t *from_offset, int to, off64_t *to_offset, size_t length, unsigned flags)
{
	struct pre_conn *source = stream_of(from), *sink = stream_of(to);
	bool ours = (source && source->kind != PRE_DATAGRAMS) || (sink && sink->kind != PRE_DATAGRAMS);

	if (source)
		pre_put(source);
	if (sink)
		pre_put(sink);
	if (!ours)
		return pre_real()->splice(from, from_offset, to, to_offset, length, flags);
	errno = EINVAL;
	return -1;
}

/* SPDX-License-Identifier: MIT
 *
 * Sending and receiving while a direction is on TCP, goes over, or is on the stream. Budget on the stream: its own call.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>

#include "preload/data.h"

/* ---- signals ------------------------------------------------------------------------------------------------------------------- */

bool pre_begins_again(void)
{
	for (int number = 1; number < NSIG; number++) {
		struct sigaction action;
		if (sigaction(number, NULL, &action) || action.sa_handler == SIG_IGN || action.sa_handler == SIG_DFL)
			continue;
		if (!(action.sa_flags & SA_RESTART))
			return false;
	}
	return true;
}

static bool may_wait(int fd, int flags)
{
	return !(flags & MSG_DONTWAIT) && !(pre_real()->fcntl(fd, F_GETFL) & O_NONBLOCK);
}

static long wait_for(struct pre_conn *conn, int fd, int events, int option)
{
	long rc;

	do
		rc = pre_wait_for(conn, fd, events, option);
	while (rc == -EINTR && pre_begins_again());
	return rc;
}

static long from_errno(long count)
{
	return count < 0 ? -errno : count;
}

/* ---- sending ------------------------------------------------------------------------------------------------------------------- */

/* tx held. */
static long send_by_tcp(struct pre_conn *conn, int fd, const struct msghdr *msg, int flags)
{
	long count = from_errno(pre_real()->sendmsg(fd, msg, flags));

	if (count > 0)
		ffv_fetch_add(&conn->tcp_sent, (uint64_t)count);
	return count;
}

static long send_by_stream(struct pre_conn *conn, const struct msghdr *msg, int flags)
{
	struct msghdr plain = *msg;
	long count;

	plain.msg_control = NULL; /* of what TCP takes there, nothing has a meaning */
	plain.msg_controllen = 0;
	do
		count = ffv_sendmsg(conn->engine, &plain, flags);
	while (count == -EINTR && pre_begins_again());
	return count;
}

static size_t total(const struct msghdr *msg)
{
	size_t bytes = 0;

	for (size_t i = 0; i < msg->msg_iovlen; i++)
		bytes += msg->msg_iov[i].iov_len;
	return bytes;
}

/* What is left of the pieces after so many bytes; at most as many pieces as there were. */
static size_t skip(const struct iovec *from, size_t count, size_t bytes, struct iovec *to)
{
	size_t used = 0;

	for (size_t i = 0; i < count; i++) {
		size_t away = bytes < from[i].iov_len ? bytes : from[i].iov_len;
		bytes -= away;
		if (from[i].iov_len > away)
			to[used++] = (struct iovec){ (char *)from[i].iov_base + away, from[i].iov_len - away };
	}
	return used;
}

/* The stream took a part, or nothing: perhaps it went back to TCP meanwhile. */
static long send_after_stream(struct pre_conn *conn, int fd, const struct msghdr *msg, long count, int flags)
{
	struct iovec left[64];
	size_t done = count > 0 ? (size_t)count : 0;

	pthread_mutex_lock(&conn->tx);
	bool is_back = !ffv_load_relaxed(&conn->tx_on_verbs);
	pthread_mutex_unlock(&conn->tx);
	if (!is_back && count == -EPIPE && !(flags & MSG_NOSIGNAL))
		raise(SIGPIPE);
	if (!is_back || done == total(msg) || msg->msg_iovlen > 64 || (done && !may_wait(fd, flags)))
		return count;
	struct msghdr rest = { .msg_iov = left, .msg_iovlen = skip(msg->msg_iov, msg->msg_iovlen, done, left) };
	long more = pre_send(conn, fd, &rest, flags);
	return more > 0 ? (long)done + more : done ? (long)done : more;
}

long pre_send(struct pre_conn *conn, int fd, const struct msghdr *msg, int flags)
{
	if (conn->kind == PRE_DATAGRAMS)
		return pre_send_datagram(conn, fd, msg, flags);
	if (ffv_likely(ffv_load_relaxed(&conn->tx_on_verbs))) {
		long sent = send_by_stream(conn, msg, flags);
		if (sent == -EPIPE || ffv_unlikely(sent > 0 && !ffv_load_relaxed(&conn->tx_on_verbs)))
			return send_after_stream(conn, fd, msg, sent, flags);
		return sent;
	}
	if (conn->is_lost)
		return -ECONNRESET;
	pre_advance(conn, fd);
	pthread_mutex_lock(&conn->tx);
	bool by_stream = pre_begin_sending(conn);
	long count = by_stream ? 0 : send_by_tcp(conn, fd, msg, flags);
	pthread_mutex_unlock(&conn->tx);
	pre_retire(conn);
	return by_stream ? pre_send(conn, fd, msg, flags) : count;
}

/* ---- receiving ------------------------------------------------------------------------------------------------------------------- */

/* rx held. -EAGAIN: nothing is there. */
static long receive_by_tcp(struct pre_conn *conn, int fd, struct msghdr *msg, int flags)
{
	size_t name = msg->msg_namelen, control = msg->msg_controllen;
	uint64_t most = conn->rest ? pre_before_rest(conn) : conn->tcp_until - ffv_load_relaxed(&conn->tcp_got);
	struct msghdr limited = *msg, *used = msg;
	struct iovec first;

	if (ffv_unlikely(total(msg) > most)) { /* what comes after it by TCP comes after what the stream holds */
		for (limited.msg_iovlen = 1; !limited.msg_iov->iov_len; limited.msg_iov++)
			;
		first = (struct iovec){ limited.msg_iov->iov_base, limited.msg_iov->iov_len < most ? limited.msg_iov->iov_len : most };
		limited.msg_iov = &first;
		used = &limited;
	}
	long count = from_errno(pre_real()->recvmsg(fd, used, (flags | MSG_DONTWAIT) & ~MSG_WAITALL));

	if (count > 0 && !(flags & MSG_PEEK))
		ffv_fetch_add(&conn->tcp_got, (uint64_t)count);
	if (count <= 0) {
		msg->msg_namelen = (socklen_t)name;
		msg->msg_controllen = control;
	}
	return count;
}

static long receive_by_stream(struct pre_conn *conn, struct msghdr *msg, int flags)
{
	long count;

	do
		count = ffv_recvmsg(conn->engine, msg, flags);
	while (count == -EINTR && pre_begins_again());
	return count;
}

/* One attempt; *by_stream: it is for the stream to say. */
static long receive_once(struct pre_conn *conn, int fd, struct msghdr *msg, int flags, bool *by_stream)
{
	long count = 0;

	pthread_mutex_lock(&conn->rx);
	pre_look_at_marks(conn);
	if (pre_has_rest(conn))
		count = pre_read_rest(conn, msg, flags);
	else if (!ffv_load_relaxed(&conn->rx_on_verbs))
		count = receive_by_tcp(conn, fd, msg, flags);
	if (count == 0)
		pre_look_at_marks(conn); /* an end of TCP may have come ahead of what the stream tells */
	*by_stream = ffv_load_relaxed(&conn->rx_on_verbs);
	pthread_mutex_unlock(&conn->rx);
	return count;
}

/* MSG_WAITALL, of which the first part came. */
static long receive_rest(struct pre_conn *conn, int fd, const struct msghdr *msg, size_t got, int flags)
{
	struct iovec left[64];

	if (msg->msg_iovlen > 64)
		return (long)got;
	struct msghdr rest = { .msg_iov = left, .msg_iovlen = skip(msg->msg_iov, msg->msg_iovlen, got, left) };
	long count = pre_receive(conn, fd, &rest, flags);
	return count > 0 ? (long)got + count : (long)got;
}

/* The stream's end is that of its use. */
static bool is_back(struct pre_conn *conn)
{
	pthread_mutex_lock(&conn->rx);
	pre_look_at_marks(conn);
	bool back = conn->rx_is_back;
	pthread_mutex_unlock(&conn->rx);
	return back;
}

long pre_receive(struct pre_conn *conn, int fd, struct msghdr *msg, int flags)
{
	bool by_stream = ffv_load_relaxed(&conn->rx_on_verbs);
	long count = 0;

	if (conn->kind == PRE_DATAGRAMS)
		return pre_receive_datagram(conn, fd, msg, flags);
	if (ffv_likely(by_stream)) {
		count = receive_by_stream(conn, msg, flags);
		if (count || !is_back(conn) || !total(msg))
			return count;
	}
	if (conn->is_lost)
		return -ECONNRESET;
	if (flags & (MSG_OOB | MSG_ERRQUEUE))
		return from_errno(pre_real()->recvmsg(fd, msg, flags));
	for (;;) {
		pre_advance(conn, fd);
		count = receive_once(conn, fd, msg, flags, &by_stream);
		pre_retire(conn);
		if (by_stream || count != -EAGAIN || !may_wait(fd, flags))
			break;
		long rc = wait_for(conn, fd, POLLIN, SO_RCVTIMEO);
		if (rc)
			return rc;
	}
	if (by_stream && count <= 0)
		return pre_receive(conn, fd, msg, flags);
	if (count > 0 && flags & MSG_WAITALL && !(flags & MSG_PEEK) && (size_t)count < total(msg) && may_wait(fd, flags))
		return receive_rest(conn, fd, msg, (size_t)count, flags);
	return count;
}

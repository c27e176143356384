/* SPDX-License-Identifier: MIT
 *
 * A datagram socket with one of the kernel's beside it: what cannot go by UD goes by UDP, and what comes either way is received. Any
 * thread. The kernel is called by syscall(2), as whoever interposes libc's functions is not to meet these calls.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "base/spin.h"
#include "rsocket/rsocket.h"

#define TURN 16                    /* so many datagrams by UD, and UDP is asked first once */

int ffv_socket_beside(int fd, int udp_fd)
{
	struct ffv_rs_socket *socket = ffv_rs_get(fd);
	int rc = 0;

	if (!socket)
		return -EBADF;
	pthread_mutex_lock(&socket->lock);
	if (!socket->is_datagram || socket->beside_fd >= 0)
		rc = ffv_fail(EINVAL, "a datagram socket has one socket of the kernel's beside it");
	long copy = rc ? -1 : syscall(SYS_fcntl, udp_fd, F_DUPFD_CLOEXEC, 0);
	if (!rc && copy < 0)
		rc = ffv_fail_errno(errno, "the kernel's socket cannot be duplicated");
	if (!rc) {
		socket->beside_fd = (int)copy;
		if (socket->is_watched)
			rc = ffv_rs_observe_beside(socket);
		ffv_rs_show(socket);
	}
	pthread_mutex_unlock(&socket->lock);
	ffv_rs_put(socket);
	return rc;
}

void ffv_rs_drop_beside(struct ffv_rs_socket *socket)
{
	if (socket->beside_fd < 0)
		return;
	ffv_rs_unobserve_beside(socket);
	syscall(SYS_close, socket->beside_fd);
	socket->beside_fd = -1;
}

bool ffv_rs_is_beside_ready(const struct ffv_rs_socket *socket)
{
	struct pollfd ready = { .fd = socket->beside_fd, .events = POLLIN };
	struct timespec none = { 0 };

	return socket->beside_fd >= 0 && syscall(SYS_ppoll, &ready, 1, &none, NULL, 0) == 1;
}

/* ---- sending --------------------------------------------------------------------------------------------------------------------- */

long ffv_rs_send_datagram(struct ffv_rs_socket *socket, const struct msghdr *msg, int flags)
{
	long sent = ffv_rs_send_by_ud(socket, msg, flags);

	if (sent >= 0 || socket->beside_fd < 0)
		return sent;
	if (ffv_load_relaxed(&socket->non_blocking))
		flags |= MSG_DONTWAIT;
	sent = syscall(SYS_sendmsg, socket->beside_fd, msg, flags);
	return sent < 0 ? -errno : sent;
}

long ffv_sendto(int fd, const void *data, size_t length, int flags, const struct sockaddr *addr, uint32_t addr_length)
{
	struct iovec piece = { (void *)(uintptr_t)data, length };
	struct msghdr msg = { .msg_name = (void *)(uintptr_t)addr, .msg_namelen = addr ? addr_length : 0, .msg_iov = &piece,
			      .msg_iovlen = 1 };

	return ffv_sendmsg(fd, &msg, flags);
}

/* ---- receiving ------------------------------------------------------------------------------------------------------------------- */

static long receive_by_udp(struct ffv_rs_socket *socket, struct msghdr *msg, int flags)
{
	long count = syscall(SYS_recvmsg, socket->beside_fd, msg, flags | MSG_DONTWAIT);
	int err = errno;

	if (socket->is_watched) {
		pthread_mutex_lock(&socket->lock);
		ffv_rs_show(socket);
		pthread_mutex_unlock(&socket->lock);
	}
	return count < 0 ? -err : count;
}

/* -EAGAIN: neither way. What was peeked at is the next to be received, whatever has come the other way since. */
static long receive_now(struct ffv_rs_socket *socket, struct msghdr *msg, int flags)
{
	bool has_udp = socket->beside_fd >= 0, udp_first = has_udp && ffv_load_relaxed(&socket->udp_is_next);
	long count = udp_first ? receive_by_udp(socket, msg, flags) : -EAGAIN;
	bool by_udp = count != -EAGAIN;

	if (count == -EAGAIN)
		count = ffv_rs_receive_by_ud(socket, msg, flags);
	if (count == -EAGAIN && has_udp && !udp_first) {
		count = receive_by_udp(socket, msg, flags);
		by_udp = count != -EAGAIN;
	}
	if (count == -EAGAIN)
		return count;
	if (!by_udp && !(flags & MSG_PEEK) && ++socket->turn % TURN == 0)
		ffv_store_relaxed(&socket->udp_is_next, true);
	else if (by_udp || udp_first || flags & MSG_PEEK)
		ffv_store_relaxed(&socket->udp_is_next, by_udp && flags & MSG_PEEK);
	return count;
}

/* A peer that answers at once, on another processor, need not wake us. */
static long receive_soon(struct ffv_rs_socket *socket, struct msghdr *msg, int flags)
{
	struct ffv_spin spin;
	long count = -EAGAIN;

	if (!socket->datagrams || !ffv_spin_begin(&socket->spin, &spin))
		return count;
	do {
		ffv_cpu_relax();
		count = ffv_rs_receive_by_ud(socket, msg, flags);
	} while (count == -EAGAIN && ffv_spin_goes_on(&spin));
	ffv_spin_end(&socket->spin, &spin, count != -EAGAIN);
	return count;
}

long ffv_rs_receive_datagram(struct ffv_rs_socket *socket, struct msghdr *msg, int flags)
{
	uint64_t deadline_ns = ffv_rs_deadline(socket->options.receive_timeout_ns);
	bool waits = !(flags & MSG_DONTWAIT) && !ffv_load_relaxed(&socket->non_blocking);
	long count;

	if (flags & MSG_ERRQUEUE && socket->beside_fd >= 0)
		return receive_by_udp(socket, msg, flags);
	while ((count = receive_now(socket, msg, flags)) == -EAGAIN && waits) {
		count = receive_soon(socket, msg, flags);
		if (count != -EAGAIN)
			return count;
		count = ffv_rs_wait(socket, POLLIN, deadline_ns);
		if (count)
			return count;
	}
	return count == -EAGAIN ? ffv_fail(EAGAIN, "no datagram has come") : count;
}

long ffv_recvfrom(int fd, void *data, size_t length, int flags, struct sockaddr *addr, uint32_t *addr_length)
{
	struct iovec piece = { data, length };
	struct msghdr msg = { .msg_name = addr, .msg_namelen = addr ? *addr_length : 0, .msg_iov = &piece, .msg_iovlen = 1 };
	long count = ffv_recvmsg(fd, &msg, flags);

	if (count >= 0 && addr)
		*addr_length = msg.msg_namelen;
	return count;
}

/* Lock held: of the next one that will be received. */
int ffv_rs_next_length(struct ffv_rs_socket *socket)
{
	int bytes = 0;
	bool has_ud = ffv_rs_has_datagram(socket), udp_first = ffv_load_relaxed(&socket->udp_is_next) || !has_ud;

	if (socket->beside_fd >= 0 && udp_first && ffv_rs_is_beside_ready(socket)) {
		ffv_store_relaxed(&socket->udp_is_next, true);
		return syscall(SYS_ioctl, socket->beside_fd, FIONREAD, &bytes) ? 0 : bytes;
	}
	ffv_store_relaxed(&socket->udp_is_next, false);
	return ffv_rs_datagram_length(socket);
}

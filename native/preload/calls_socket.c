/* SPDX-License-Identifier: MIT
 *
 * libc's functions that make, name and end connections. The kernel's socket is asked first, always: its answer is the program's.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <linux/sockios.h>
#include <unistd.h>

#include "preload/data.h"

/* ---- connections ---------------------------------------------------------------------------------------------------------------- */

PRE_EXPORT int socket(int domain, int type, int protocol)
{
	int fd = pre_real()->socket(domain, type, protocol);

	if (fd >= 0)
		pre_made(fd, domain, type, protocol);
	return fd;
}

PRE_EXPORT int bind(int fd, const struct sockaddr *addr, socklen_t length)
{
	int rc = pre_real()->bind(fd, addr, length);

	if (rc == 0)
		pre_bound(fd);
	return rc;
}

/* True: it is of datagrams. */
static bool has_connected_datagrams(int fd, const struct sockaddr *addr, socklen_t length)
{
	struct pre_conn *conn = pre_get(fd);
	bool is_it = conn && conn->kind == PRE_DATAGRAMS;

	if (is_it)
		pre_datagrams_connected(conn, fd, addr, length);
	if (conn)
		pre_put(conn);
	return is_it;
}

PRE_EXPORT int connect(int fd, const struct sockaddr *addr, socklen_t length)
{
	int rc = pre_real()->connect(fd, addr, length), err = errno;

	if ((rc == 0 || err == EINPROGRESS) && !has_connected_datagrams(fd, addr, length))
		pre_connecting(fd, addr, length);
	errno = err;
	return rc;
}

PRE_EXPORT int listen(int fd, int backlog)
{
	int rc = pre_real()->listen(fd, backlog), err = errno;

	if (rc == 0)
		pre_listening(fd);
	errno = err;
	return rc;
}

PRE_EXPORT int accept4(int fd, struct sockaddr *addr, socklen_t *length, int flags)
{
	pre_listening(fd); /* of a process before this one, perhaps */
	struct pre_conn *listener = pre_get(fd);
	if (listener) {
		pre_will_accept(listener, fd);
		pre_put(listener);
	}
	int accepted = pre_real()->accept4(fd, addr, length, flags), err = errno;
	if (accepted >= 0)
		pre_accepted(fd, accepted);
	errno = err;
	return accepted;
}

PRE_EXPORT int accept(int fd, struct sockaddr *addr, socklen_t *length)
{
	return accept4(fd, addr, length, 0);
}

PRE_EXPORT int shutdown(int fd, int how)
{
	struct pre_conn *conn = pre_get(fd);
	int rc = -1;

	if (conn && conn->kind == PRE_DATAGRAMS) {
		rc = pre_real()->shutdown(fd, how);
		int err = errno;
		if (!rc)
			pre_leave_datagrams(conn);
		pre_put(conn);
		errno = err;
		return rc;
	}
	if (conn && ffv_load_acquire(&conn->has_engine) && conn->kind != PRE_LISTENER) {
		pthread_mutex_lock(&conn->tx);
		conn->tx_shut |= how != SHUT_RD;
		bool sends = ffv_load_relaxed(&conn->tx_on_verbs), receives = ffv_load_relaxed(&conn->rx_on_verbs);
		pre_let_mark_arrive(conn);
		pthread_mutex_unlock(&conn->tx);
		if (how == SHUT_RD ? receives : sends)
			ffv_shutdown(conn->engine, how == SHUT_RDWR && !receives ? SHUT_WR : how);
		else if (how == SHUT_RDWR && receives)
			ffv_shutdown(conn->engine, SHUT_RD);
	} else if (conn) {
		conn->tx_shut |= how != SHUT_RD;
	}
	rc = pre_real()->shutdown(fd, how);
	if (conn)
		pre_put(conn);
	return rc;
}

/* ---- numbers ------------------------------------------------------------------------------------------------------------------------ */

PRE_EXPORT int close(int fd)
{
	pre_drop_number(fd);
	pre_epoll_closed(fd);
	return pre_real()->close(fd);
}

static void drop_from(unsigned first, unsigned last)
{
	unsigned end = (unsigned)pre_end_of_numbers();

	for (unsigned fd = first; fd < end && fd <= last; fd++) {
		pre_drop_number((int)fd);
		pre_epoll_closed((int)fd);
	}
}

PRE_EXPORT int close_range(unsigned first, unsigned last, int flags)
{
	if (!(flags & CLOSE_RANGE_CLOEXEC))
		drop_from(first, last);
	return pre_real()->close_range(first, last, flags);
}

PRE_EXPORT void closefrom(int first)
{
	drop_from(first < 0 ? 0 : (unsigned)first, ~0u);
	pre_real()->closefrom(first);
}

/* copy is another number of what fd is. */
static int now_also(int fd, int copy)
{
	struct pre_conn *conn = copy < 0 || copy == fd ? NULL : pre_get(fd);

	if (conn) {
		pre_add_number(copy, conn);
		pre_put(conn);
	}
	return copy;
}

/* A stream that only the parent has cannot be passed on. */
static bool cannot_copy(int fd)
{
	struct pre_conn *conn = pre_get(fd);
	bool is_lost = conn && conn->is_lost;

	if (conn)
		pre_put(conn);
	if (is_lost)
		errno = EOPNOTSUPP;
	return is_lost;
}

PRE_EXPORT int dup(int fd)
{
	if (cannot_copy(fd))
		return -1;
	return now_also(fd, pre_real()->dup(fd));
}

/* new is about to mean something else, if fd can be duplicated at all. */
static void make_room(int fd, int new_fd)
{
	if (fd == new_fd || pre_real()->fcntl(fd, F_GETFD) < 0)
		return;
	pre_drop_number(new_fd);
	pre_epoll_closed(new_fd);
}

PRE_EXPORT int dup2(int fd, int new_fd)
{
	if (cannot_copy(fd))
		return -1;
	make_room(fd, new_fd);
	return now_also(fd, pre_real()->dup2(fd, new_fd));
}

PRE_EXPORT int dup3(int fd, int new_fd, int flags)
{
	if (cannot_copy(fd))
		return -1;
	make_room(fd, new_fd);
	return now_also(fd, pre_real()->dup3(fd, new_fd, flags));
}

static void set_flags(int fd, int flags)
{
	struct pre_conn *conn = pre_get(fd);

	if (conn && conn->kind != PRE_LISTENER) {
		pthread_mutex_lock(&conn->lock); /* as against a stream that is just being attached */
		if (conn->has_engine)
			ffv_socket_set_flags(conn->engine, flags & O_NONBLOCK);
		pthread_mutex_unlock(&conn->lock);
	}
	if (conn)
		pre_put(conn);
}

static int control(int fd, int command, ...)
{
	va_list list;

	va_start(list, command);
	void *argument = va_arg(list, void *); /* what the kernel takes is of this size, whatever was meant */
	va_end(list);
	int rc = pre_real()->fcntl(fd, command, argument);
	if (rc >= 0 && (command == F_DUPFD || command == F_DUPFD_CLOEXEC))
		now_also(fd, rc);
	if (rc >= 0 && command == F_SETFL)
		set_flags(fd, (int)(intptr_t)argument);
	return rc;
}

/* Under both of libc's names, whichever of them this file's compiler takes for the other. */
PRE_EXPORT __attribute__((alias("control"))) int pre_fcntl(int, int, ...) __asm__("fcntl");
PRE_EXPORT __attribute__((alias("control"))) int pre_fcntl64(int, int, ...) __asm__("fcntl64");

PRE_EXPORT int ioctl(int fd, unsigned long request, ...)
{
	va_list list;

	va_start(list, request);
	void *argument = va_arg(list, void *);
	va_end(list);
	struct pre_conn *conn = pre_get(fd);
	int rc = -ENOTTY;
	if (conn && conn->kind != PRE_LISTENER && ffv_load_acquire(&conn->has_engine)) {
		if (conn->kind != PRE_DATAGRAMS)
			pre_look_at_marks(conn);
		if (request == FIONBIO && argument)
			set_flags(fd, *(int *)argument ? O_NONBLOCK : 0);
		if ((request == FIONREAD && (ffv_load_relaxed(&conn->rx_on_verbs) || conn->kind == PRE_DATAGRAMS)) ||
		    (request == SIOCOUTQ && ffv_load_relaxed(&conn->tx_on_verbs)))
			rc = ffv_socket_ioctl(conn->engine, request, argument);
	}
	if (conn)
		pre_put(conn);
	return rc == -ENOTTY ? pre_real()->ioctl(fd, request, argument) : (int)pre_result(rc);
}

/* ---- options ------------------------------------------------------------------------------------------------------------------------ */

PRE_EXPORT int setsockopt(int fd, int level, int name, const void *value, socklen_t length)
{
	int rc = pre_real()->setsockopt(fd, level, name, value, length), err = errno;
	struct pre_conn *conn = rc ? NULL : pre_get(fd);

	if (conn && conn->kind == PRE_DATAGRAMS)
		pre_datagrams_option(conn, level, name, value, length);
	if (conn && level != SOL_SOCKET) {
		pre_put(conn);
		conn = NULL;
	}

	if (conn && conn->kind != PRE_LISTENER) {
		pthread_mutex_lock(&conn->lock);
		if (conn->has_engine && (name == SO_RCVTIMEO || name == SO_SNDTIMEO || name == SO_LINGER || name == SO_RCVLOWAT))
			ffv_setsockopt(conn->engine, level, name, value, length);
		pthread_mutex_unlock(&conn->lock);
	}
	if (conn)
		pre_put(conn);
	errno = err;
	return rc;
}

PRE_EXPORT int getsockopt(int fd, int level, int name, void *value, socklen_t *length)
{
	struct pre_conn *conn = level == SOL_SOCKET && name == SO_ERROR ? pre_get(fd) : NULL;
	int error = 0, rc = pre_real()->getsockopt(fd, level, name, value, length);

	if (conn && ffv_load_relaxed(&conn->tx_on_verbs) && !rc && *length == sizeof error && *(int *)value == 0) {
		uint32_t size = sizeof error;
		ffv_getsockopt(conn->engine, level, name, &error, &size);
		*(int *)value = error;
	}
	if (conn)
		pre_put(conn);
	return rc;
}

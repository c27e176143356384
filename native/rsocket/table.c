/* SPDX-License-Identifier: MIT
 *
 * Which numbers are sockets of ours, and how long a socket lives. Memory of sockets is never given back but used again, so
 * that a look-up needs no lock: it counts itself in, then looks whether the number still means the same socket.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "rsocket/rsocket.h"

#define PAGE 1024
#define PAGES 1024

static _Atomic(_Atomic(struct ffv_rs_socket *) *) pages[PAGES];
static pthread_mutex_t table = PTHREAD_MUTEX_INITIALIZER;
static struct ffv_rs_socket *pool;         /* table lock */

/* ---- references ------------------------------------------------------------------------------------------------------------ */

static struct ffv_rs_socket *at(int fd)
{
	if (fd < 0 || fd >= PAGE * PAGES)
		return NULL;
	_Atomic(struct ffv_rs_socket *) *page = ffv_load_acquire(&pages[fd / PAGE]);
	return page ? ffv_load_acquire(&page[fd % PAGE]) : NULL; /* [rs-number] */
}

int ffv_is_socket(int fd)
{
	return at(fd) != NULL;
}

bool ffv_rs_hold(struct ffv_rs_socket *socket)
{
	return ffv_hold(&socket->refs);
}

struct ffv_rs_socket *ffv_rs_get(int fd)
{
	struct ffv_rs_socket *socket;

	while ((socket = at(fd))) {
		if (!ffv_rs_hold(socket))
			continue; /* it is being destroyed: the number has another meaning by now */
		if (at(fd) == socket)
			return socket;
		ffv_rs_put(socket);
	}
	ffv_fail(EBADF, "descriptor %d is no socket of ffverbs", fd);
	return NULL;
}

void ffv_rs_put(struct ffv_rs_socket *socket)
{
	if (ffv_fetch_sub(&socket->refs, 1u) != 1)
		return;
	ffv_rs_destroy(socket);
	pthread_mutex_lock(&table);
	socket->next = pool;
	pool = socket;
	pthread_mutex_unlock(&table);
}

static struct ffv_rs_socket *take_memory(void)
{
	pthread_mutex_lock(&table);
	struct ffv_rs_socket *socket = pool;
	if (socket)
		pool = socket->next;
	pthread_mutex_unlock(&table);
	if (!socket) {
		socket = calloc(1, sizeof *socket);
		if (!socket)
			return NULL;
		pthread_mutex_init(&socket->tx, NULL);
		pthread_mutex_init(&socket->rx, NULL);
		pthread_mutex_init(&socket->lock, NULL);
	}
	/* All but the count, which late look-ups may touch, and the locks. */
	size_t from = offsetof(struct ffv_rs_socket, domain);
	memset((char *)socket + from, 0, sizeof *socket - from);
	return socket;
}

struct ffv_rs_socket *ffv_rs_new(int domain)
{
	struct ffv_rs_socket *socket = take_memory();

	if (!socket) {
		errno = ENOMEM;
		return NULL;
	}
	socket->domain = domain;
	socket->next = NULL;
	socket->numbers = 0;
	socket->stream.channel_fd = -1;
	socket->beside_fd = -1;
	socket->options.ring_bytes = FFV_RS_RING_BYTES;
	socket->options.receive_low_water = 1;
	socket->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (socket->kick_fd < 0) {
		int err = errno;
		pthread_mutex_lock(&table);
		socket->next = pool;
		pool = socket;
		pthread_mutex_unlock(&table);
		errno = err;
		return NULL;
	}
	ffv_store_release(&socket->refs, 1u);
	return socket;
}

/* ---- numbers --------------------------------------------------------------------------------------------------------------- */

static int enter(struct ffv_rs_socket *socket, int fd)
{
	if (fd >= PAGE * PAGES)
		return ffv_fail(EMFILE, "descriptor %d is too large for a socket", fd);
	pthread_mutex_lock(&table);
	_Atomic(struct ffv_rs_socket *) *page = ffv_load_relaxed(&pages[fd / PAGE]);
	if (!page) {
		page = calloc(PAGE, sizeof *page);
		if (page)
			ffv_store_release(&pages[fd / PAGE], page); /* [rs-number] */
	}
	if (page) {
		socket->numbers++;
		ffv_store_release(&page[fd % PAGE], socket);
	}
	pthread_mutex_unlock(&table);
	return page ? 0 : ffv_fail(ENOMEM, "no memory for another socket");
}

static int watch(int epoll_fd, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	if (syscall(SYS_epoll_ctl, epoll_fd, EPOLL_CTL_ADD, fd, &event))
		return ffv_fail_errno(errno, "a socket's events cannot be watched");
	return 0;
}

int ffv_rs_watch_stream(struct ffv_rs_socket *socket, int fd)
{
	return socket->is_watched ? ffv_rs_observe(socket) : watch(fd, socket->stream.channel_fd);
}

static int make_number(struct ffv_rs_socket *socket, int flags)
{
	bool close_on_exec = flags & SOCK_CLOEXEC;
	long fd = socket->is_watched ? syscall(SYS_fcntl, socket->level_near, close_on_exec ? F_DUPFD_CLOEXEC : F_DUPFD, 0) :
				       syscall(SYS_epoll_create1, close_on_exec ? EPOLL_CLOEXEC : 0);

	return fd < 0 ? ffv_fail_errno(errno, "no descriptor for a socket") : (int)fd;
}

int ffv_rs_publish(struct ffv_rs_socket *socket, int flags)
{
	int fd = make_number(socket, flags);
	int rc = fd < 0 || socket->is_watched ? 0 : watch(fd, socket->kick_fd);

	if (fd < 0)
		return fd;
	if (!rc && socket->stream.channel_fd >= 0)
		rc = ffv_rs_watch_stream(socket, fd);
	if (!rc) {
		ffv_store_relaxed(&socket->non_blocking, (flags & SOCK_NONBLOCK) != 0);
		rc = enter(socket, fd);
	}
	if (rc) {
		syscall(SYS_close, fd);
		return rc;
	}
	return fd;
}

void ffv_rs_for_each(void (*function)(struct ffv_rs_socket *socket))
{
	for (int page = 0; page < PAGES; page++) {
		for (int fd = page * PAGE; ffv_load_acquire(&pages[page]) && fd < (page + 1) * PAGE; fd++) {
			struct ffv_rs_socket *socket = at(fd) ? ffv_rs_get(fd) : NULL;
			if (!socket)
				continue;
			function(socket);
			ffv_rs_put(socket);
		}
	}
}

void ffv_rs_before_fork(void)
{
	pthread_mutex_lock(&table);
}

void ffv_rs_after_fork(bool in_child)
{
	for (int i = 0; in_child && i < PAGES; i++)
		ffv_store_release(&pages[i], NULL); /* left as it is: other threads' look-ups may have been under way */
	if (in_child)
		pool = NULL; /* whose locks the parent's threads may hold */
	pthread_mutex_unlock(&table);
}

int ffv_socket(int domain, int type, int protocol)
{
	int kind = type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (domain != AF_INET && domain != AF_INET6)
		return ffv_fail(EAFNOSUPPORT, "sockets are of AF_INET or AF_INET6, not %d", domain);
	if (kind != SOCK_STREAM && kind != SOCK_DGRAM)
		return ffv_fail(ESOCKTNOSUPPORT, "sockets are of streams or datagrams, not of type %d", kind);
	if (protocol != 0 && protocol != (kind == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP))
		return ffv_fail(EPROTONOSUPPORT, "streams have protocol 0 or TCP, datagrams 0 or UDP, not %d", protocol);
	struct ffv_rs_socket *socket = ffv_rs_new(domain);
	if (!socket)
		return ffv_fail_errno(errno, "no socket");
	socket->is_datagram = kind == SOCK_DGRAM;
	socket->options.v6_only = socket->is_datagram && domain == AF_INET6; /* IPv4 comes to it by UDP */
	int fd = ffv_rs_publish(socket, type);
	if (fd < 0)
		ffv_rs_put(socket);
	return fd;
}

int ffv_socket_dup(int fd, int new_fd)
{
	struct ffv_rs_socket *socket = ffv_rs_get(fd);

	if (!socket)
		return -EBADF;
	int rc = new_fd < 0 || ffv_is_socket(new_fd) ? ffv_fail(EINVAL, "descriptor %d cannot be another number of a socket",
								new_fd) : enter(socket, new_fd);
	ffv_rs_put(socket);
	return rc;
}

int ffv_close_socket(int fd)
{
	struct ffv_rs_socket *socket = ffv_rs_get(fd);
	bool mine = false, last = false;

	if (!socket)
		return -EBADF;
	pthread_mutex_lock(&table);
	_Atomic(struct ffv_rs_socket *) *page = ffv_load_relaxed(&pages[fd / PAGE]);
	if (ffv_load_relaxed(&page[fd % PAGE]) == socket) { /* else another thread has closed it */
		ffv_store_release(&page[fd % PAGE], NULL);
		mine = true;
		last = --socket->numbers == 0;
	}
	pthread_mutex_unlock(&table);
	if (mine)
		syscall(SYS_close, fd);
	if (last) {
		ffv_rs_close(socket);
		ffv_rs_put(socket);
	}
	ffv_rs_put(socket);
	return mine ? 0 : ffv_fail(EBADF, "descriptor %d is closed already", fd);
}

/* SPDX-License-Identifier: MIT
 *
 * Keeps the engine's descriptors out of the program's way: programs count on low numbers, for tables and for select. The linker
 * gives the engine's calls of these functions to this file (-Wl,--wrap).
 */
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "preload/conn.h"

#define FIRST 512                  /* of the engine's numbers, where the limit is usual */

static int limit(void)
{
	struct rlimit most;

	return getrlimit(RLIMIT_NOFILE, &most) || most.rlim_cur > 1u << 20 ? 1 << 20 : (int)most.rlim_cur;
}

int pre_first_high(void)
{
	int half = limit() / 2;

	return half < FIRST ? half : FIRST;
}

bool pre_is_scarce(int fd)
{
	int most = limit();

	return fd >= most - most / 8;
}

static int raise_number(int fd)
{
	int high = fd < 0 ? -1 : pre_real()->fcntl(fd, F_DUPFD_CLOEXEC, pre_first_high());

	if (high < 0)
		return fd; /* it works as well */
	pre_real()->close(fd);
	return high;
}

int pre_raise_engine(int engine)
{
	int high = engine < 0 ? -1 : pre_real()->fcntl(engine, F_DUPFD_CLOEXEC, pre_first_high());

	if (high < 0)
		return engine;
	if (ffv_socket_dup(engine, high)) {
		pre_real()->close(high);
		return engine;
	}
	ffv_close_socket(engine);
	return high;
}

int __real_memfd_create(const char *, unsigned);
int __real_eventfd(unsigned, int);
int __real_epoll_create1(int);
int __real_open64(const char *, int, ...);
int __real_openat64(int, const char *, int, ...);
int __wrap_memfd_create(const char *, unsigned);
int __wrap_eventfd(unsigned, int);
int __wrap_epoll_create1(int);
int __wrap_socket(int, int, int);
int __wrap_accept4(int, struct sockaddr *, socklen_t *, int);
ssize_t __wrap_recvmsg(int, struct msghdr *, int);
int __wrap_open64(const char *, int, ...);
int __wrap_openat64(int, const char *, int, ...);

int __wrap_memfd_create(const char *name, unsigned flags)
{
	return raise_number(__real_memfd_create(name, flags));
}

int __wrap_eventfd(unsigned value, int flags)
{
	return raise_number(__real_eventfd(value, flags));
}

int __wrap_epoll_create1(int flags)
{
	return raise_number(__real_epoll_create1(flags));
}

int __wrap_socket(int domain, int type, int protocol)
{
	return raise_number(pre_real()->socket(domain, type, protocol));
}

int __wrap_accept4(int fd, struct sockaddr *addr, socklen_t *length, int flags)
{
	return raise_number(pre_real()->accept4(fd, addr, length, flags));
}

/* What peers hand over: doorbells and arenas. */
ssize_t __wrap_recvmsg(int fd, struct msghdr *msg, int flags)
{
	ssize_t n = pre_real()->recvmsg(fd, msg, flags);

	for (struct cmsghdr *part = n < 0 ? NULL : CMSG_FIRSTHDR(msg); part; part = CMSG_NXTHDR(msg, part)) {
		if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = CMSG_LEN(0); at + sizeof fd <= part->cmsg_len; at += sizeof fd) {
			uint8_t *number = (uint8_t *)part + at;
			int low, high;
			memcpy(&low, number, sizeof low);
			high = raise_number(low);
			memcpy(number, &high, sizeof high);
		}
	}
	return n;
}

/* Who gives no mode, needs none. */
static mode_t mode_of(int flags, va_list list)
{
	return flags & O_CREAT ? va_arg(list, mode_t) : 0;
}

int __wrap_open64(const char *path, int flags, ...)
{
	va_list list;

	va_start(list, flags);
	int fd = __real_open64(path, flags, mode_of(flags, list));
	va_end(list);
	return raise_number(fd);
}

int __wrap_openat64(int folder, const char *path, int flags, ...)
{
	va_list list;

	va_start(list, flags);
	int fd = __real_openat64(folder, path, flags, mode_of(flags, list));
	va_end(list);
	return raise_number(fd);
}

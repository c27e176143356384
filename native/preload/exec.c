/* SPDX-License-Identifier: MIT
 *
 * Connections that another program goes on with: by exec, and by being passed on as a right of a message (SCM_RIGHTS). Streams are of this
 * process, so the connection goes back to TCP first, as before a fork.
 *
 * What had come by the stream and was not read goes along with exec: in a file without name, whose number stands in the
 * environment (FFVERBS_SOCKETS_REST), where this library of the new program finds it. With a message nothing can go along: it is
 * not sent, then.
 */
#include <alloca.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fault.h"
#include "preload/conn.h"
#include "preload/pass.h"

#define VARIABLE "FFVERBS_SOCKETS_REST"
#define MOST_REST (64u << 20)

extern char **environ;

/* ---- what goes along -------------------------------------------------------------------------------------------------------------- */

/* In the file, before the bytes. */
struct passed {
	int32_t fd;
	uint32_t length;
	uint64_t follows;              /* so many bytes of TCP */
};

static bool write_all(int file, const void *data, size_t length)
{
	const char *at = data;

	while (length) {
		ssize_t count = pre_real()->write(file, at, length);
		if (count <= 0)
			return false;
		at += count;
		length -= (size_t)count;
	}
	return true;
}

static void pass_on(int fd, struct pre_conn *conn, void *argument)
{
	int *file = argument;
	uint64_t follows;
	const void *bytes;
	size_t length = pre_rest_to_pass(conn, &bytes, &follows);

	if (!length || length > MOST_REST || pre_real()->fcntl(fd, F_GETFD) & FD_CLOEXEC)
		return;
	if (*file < 0)
		*file = (int)syscall(SYS_memfd_create, "ffv-rest", 0); /* libc's is the engine's here, and close-on-exec */
	struct passed head = { fd, (uint32_t)length, follows };
	if (*file >= 0 && write_all(*file, &head, sizeof head))
		write_all(*file, bytes, length);
}

static bool read_all(int file, void *data, size_t length)
{
	return pre_real()->read(file, data, length) == (ssize_t)length;
}

/* A number that means anything else is somebody's variable, not ours. */
static bool is_ours(int file)
{
	char path[64], name[32];

	snprintf(path, sizeof path, "/proc/self/fd/%d", file);
	ssize_t length = readlink(path, name, sizeof name);
	return length > 0 && !strncmp(name, "/memfd:ffv-rest", 15);
}

__attribute__((constructor)) static void take_over(void)
{
	const char *text = getenv(VARIABLE);
	struct passed head;

	if (!text)
		return;
	int file = atoi(text);
	unsetenv(VARIABLE);
	if (!is_ours(file))
		return;
	lseek(file, 0, SEEK_SET);
	while (read_all(file, &head, sizeof head) && head.length <= MOST_REST) {
		void *bytes = malloc(head.length);
		if (!bytes || !read_all(file, bytes, head.length))
			break;
		pre_take_rest(head.fd, bytes, head.length, head.follows);
		free(bytes);
	}
	pre_real()->close(file);
}

/* ---- exec ----------------------------------------------------------------------------------------------------------------------------- */

/* The environment with one variable more; *extended has room for as many pointers as count_variables() says. */
static size_t count_variables(char *const environment[])
{
	size_t count = 0;

	while (environment && environment[count])
		count++;
	return count + 2;
}

static char *const *extend(char *const environment[], char **extended, char text[64], int file)
{
	size_t count = 0;

	if (file < 0)
		return environment;
	snprintf(text, 64, VARIABLE "=%d", file);
	for (size_t i = 0; environment && environment[i]; i++)
		if (strncmp(environment[i], VARIABLE "=", sizeof VARIABLE))
			extended[count++] = environment[i];
	extended[count++] = text;
	extended[count] = NULL;
	return extended;
}

/* The connections that stay open go back to TCP; the file of what was not read of them, or -1. */
static int prepare(void)
{
	int file = -1;

	pre_go_back();
	pre_for_each(pass_on, &file);
	FFV_FAULT(pre_exec_prepared);
	return file;
}

/* It has failed. */
static int undo(int rc, int file)
{
	int err = errno;

	if (file >= 0)
		pre_real()->close(file);
	pre_forget_copies();
	errno = err;
	return rc;
}

#define PREPARED(environment) \
	char text[64], **room = alloca(count_variables(environment) * sizeof *room); \
	int file = prepare(); \
	char *const *told = extend(environment, room, text, file)

PRE_EXPORT int execve(const char *path, char *const arguments[], char *const environment[])
{
	PREPARED(environment);
	return undo(pre_real()->execve(path, arguments, told), file);
}

PRE_EXPORT int execvpe(const char *name, char *const arguments[], char *const environment[])
{
	PREPARED(environment);
	return undo(pre_real()->execvpe(name, arguments, told), file);
}

PRE_EXPORT int fexecve(int fd, char *const arguments[], char *const environment[])
{
	PREPARED(environment);
	return undo(pre_real()->fexecve(fd, arguments, told), file);
}

int execveat(int, const char *, char *const[], char *const[], int);

PRE_EXPORT int execveat(int folder, const char *path, char *const arguments[], char *const environment[], int flags)
{
	PREPARED(environment);
	return undo(pre_real()->execveat(folder, path, arguments, told, flags), file);
}

PRE_EXPORT int execv(const char *path, char *const arguments[])
{
	return execve(path, arguments, environ);
}

PRE_EXPORT int execvp(const char *name, char *const arguments[])
{
	return execvpe(name, arguments, environ);
}

/* The arguments of the functions that take them one by one, with the final NULL. */
static size_t count_arguments(va_list list)
{
	size_t count = 1;

	while (va_arg(list, const char *))
		count++;
	return count;
}

static void take_arguments(const char *first, va_list list, char **arguments, size_t count)
{
	arguments[0] = (char *)(uintptr_t)first;
	for (size_t i = 1; i <= count; i++)
		arguments[i] = va_arg(list, char *);
}

#define ARGUMENTS(first) \
	va_list list, again; \
	va_start(list, first); \
	va_copy(again, list); \
	size_t count = count_arguments(again); \
	va_end(again); \
	char **arguments = alloca((count + 1) * sizeof *arguments); \
	take_arguments(first, list, arguments, count)

PRE_EXPORT int execl(const char *path, const char *first, ...)
{
	ARGUMENTS(first);
	va_end(list);
	return execve(path, arguments, environ);
}

PRE_EXPORT int execlp(const char *name, const char *first, ...)
{
	ARGUMENTS(first);
	va_end(list);
	return execvpe(name, arguments, environ);
}

PRE_EXPORT int execle(const char *path, const char *first, ...)
{
	ARGUMENTS(first);
	char *const *environment = va_arg(list, char *const *);
	va_end(list);
	return execve(path, arguments, environment);
}

/* ---- rights ---------------------------------------------------------------------------------------------------------------------------- */

/* False: it cannot be passed on. */
static bool let_go(int fd)
{
	struct pre_conn *conn = pre_get(fd);
	bool is_free = true;

	if (!conn)
		return true;
	if (conn->kind != PRE_LISTENER)
		is_free = pre_give_up_stream(fd, conn);
	pre_put(conn);
	return is_free;
}

bool pre_pass_rights(const struct msghdr *msg)
{
	struct msghdr copy = *msg; /* CMSG_NXTHDR takes no const */
	bool is_free = true;
	int fd;

	if (!msg->msg_control || msg->msg_controllen < sizeof(struct cmsghdr))
		return true;
	for (struct cmsghdr *part = CMSG_FIRSTHDR(&copy); part; part = CMSG_NXTHDR(&copy, part)) {
		if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = CMSG_LEN(0); at + sizeof fd <= part->cmsg_len; at += sizeof fd) {
			memcpy(&fd, (const uint8_t *)part + at, sizeof fd);
			is_free &= let_go(fd);
		}
	}
	return is_free;
}

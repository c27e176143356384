/* SPDX-License-Identifier: MIT
 *
 * What a process did, for who wants to know, as tests do: FFVERBS_SOCKETS_REPORT names a file to which each process that ends by exit() adds a
 * line, if it had any TCP connections, or datagrams by UD: its pid, program, TCP connections that might have got streams, how many sent and
 * received by them, and the datagrams that it sent and received by UD.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "preload/conn.h"

static _Atomic uint32_t counts[PRE_COUNTS];
static _Atomic uint64_t datagrams[2];  /* sent and received by UD */

void pre_count(enum pre_count what)
{
	ffv_fetch_add(&counts[what], 1u);
}

void pre_count_datagrams(int engine)
{
	uint64_t more[2] = { 0 };

	if (!ffv_socket_datagrams(engine, more))
		for (int i = 0; i < 2; i++)
			ffv_fetch_add(&datagrams[i], more[i]);
}

/* Those that are still open. */
static void count_open(int fd, struct pre_conn *conn, void *argument)
{
	(void)fd;
	(void)argument;
	if (conn->kind == PRE_DATAGRAMS && ffv_load_acquire(&conn->has_engine))
		pre_count_datagrams(conn->engine);
}

void pre_forget_counts(void)
{
	for (int i = 0; i < PRE_COUNTS; i++)
		ffv_store_relaxed(&counts[i], 0);
	ffv_store_relaxed(&datagrams[0], 0);
	ffv_store_relaxed(&datagrams[1], 0);
}

int ffv_sockets_state(int fd);

/* For programs that look it up: 1 if what is sent goes by verbs, plus 2 if what is received does. */
PRE_EXPORT int ffv_sockets_state(int fd)
{
	struct pre_conn *conn = pre_get(fd);
	int state = 0;

	if (conn) {
		bool has_datagrams = conn->kind == PRE_DATAGRAMS && ffv_load_acquire(&conn->has_engine);
		state = has_datagrams ? 3 : ffv_load_relaxed(&conn->tx_on_verbs) | ffv_load_relaxed(&conn->rx_on_verbs) << 1;
		pre_put(conn);
	}
	return state;
}

int ffv_sockets_datagrams(int fd, uint64_t by_ud[2]);

/* The same of a UDP socket: how many datagrams it sent and received by UD. -1: it is none that could. */
PRE_EXPORT int ffv_sockets_datagrams(int fd, uint64_t by_ud[2])
{
	struct pre_conn *conn = pre_get(fd);
	bool is_one = conn && conn->kind == PRE_DATAGRAMS && ffv_load_acquire(&conn->has_engine);
	int rc = is_one ? ffv_socket_datagrams(conn->engine, by_ud) : -1;

	if (conn)
		pre_put(conn);
	return rc ? -1 : 0;
}

__attribute__((destructor)) static void report(void)
{
	const char *path = getenv("FFVERBS_SOCKETS_REPORT");
	char line[256];

	if (!path || !*path)
		return;
	pre_for_each(count_open, NULL);
	if (!ffv_load_relaxed(&counts[PRE_CONNECTIONS]) && !ffv_load_relaxed(&datagrams[0]) && !ffv_load_relaxed(&datagrams[1]))
		return;
	int length = snprintf(line, sizeof line, "%d %s %u %u %u %llu %llu\n", (int)getpid(), program_invocation_short_name,
			      ffv_load_relaxed(&counts[PRE_CONNECTIONS]), ffv_load_relaxed(&counts[PRE_SENDERS]),
			      ffv_load_relaxed(&counts[PRE_RECEIVERS]), (unsigned long long)ffv_load_relaxed(&datagrams[0]),
			      (unsigned long long)ffv_load_relaxed(&datagrams[1]));
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (fd < 0)
		return;
	if (pre_real()->write(fd, line, (size_t)length) != length)
		perror(path);
	pre_real()->close(fd);
}

/* SPDX-License-Identifier: MIT
 *
 * What a process did, for who wants to know, as tests do: FFVERBS_SOCKETS_REPORT names a file to which each process that ends by exit() adds a
 * line, if it had any TCP connections: its pid, program, TCP connections that might have got streams, and how many sent and received by them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "preload/conn.h"

static _Atomic uint32_t counts[PRE_COUNTS];

void pre_count(enum pre_count what)
{
	ffv_fetch_add(&counts[what], 1u);
}

void pre_forget_counts(void)
{
	for (int i = 0; i < PRE_COUNTS; i++)
		ffv_store_relaxed(&counts[i], 0);
}

int ffv_sockets_state(int fd);

/* For programs that look it up: 1 if what is sent goes by verbs, plus 2 if what is received does. */
PRE_EXPORT int ffv_sockets_state(int fd)
{
	struct pre_conn *conn = pre_get(fd);
	int state = 0;

	if (conn) {
		state = ffv_load_relaxed(&conn->tx_on_verbs) | ffv_load_relaxed(&conn->rx_on_verbs) << 1;
		pre_put(conn);
	}
	return state;
}

__attribute__((destructor)) static void report(void)
{
	const char *path = getenv("FFVERBS_SOCKETS_REPORT");
	char line[256];

	if (!path || !*path || !ffv_load_relaxed(&counts[PRE_CONNECTIONS]))
		return;
	int length = snprintf(line, sizeof line, "%d %s %u %u %u\n", (int)getpid(), program_invocation_short_name,
			      ffv_load_relaxed(&counts[PRE_CONNECTIONS]), ffv_load_relaxed(&counts[PRE_SENDERS]),
			      ffv_load_relaxed(&counts[PRE_RECEIVERS]));
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (fd < 0)
		return;
	if (pre_real()->write(fd, line, (size_t)length) != length)
		perror(path);
	pre_real()->close(fd);
}

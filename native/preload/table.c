/* SPDX-License-Identifier: MIT
 *
 * Which number is which connection. Looking up takes no lock: memory of connections is used again, never given back, so it is
 * counted first and then looked at whether the number still means it.
 */
#include <string.h>
#include <stdlib.h>

#include "preload/conn.h"

#define NUMBERS 65536              /* higher ones are left to TCP */

static _Atomic(struct pre_conn *) numbers[NUMBERS];
static _Atomic int end_of_numbers;
static pthread_mutex_t table = PTHREAD_MUTEX_INITIALIZER;
static struct pre_conn *pool;

bool pre_hold(struct pre_conn *conn)
{
	return ffv_hold(&conn->refs);
}

struct pre_conn *pre_get(int fd)
{
	struct pre_conn *conn;

	if ((unsigned)fd >= NUMBERS)
		return NULL;
	while ((conn = ffv_load_acquire(&numbers[fd]))) { /* [pre-number] */
		if (ffv_load_relaxed(&conn->is_plain))
			return NULL;
		if (!pre_hold(conn))
			continue;
		if (ffv_load_acquire(&numbers[fd]) == conn)
			return conn;
		pre_put(conn);
	}
	return NULL;
}

void pre_put(struct pre_conn *conn)
{
	if (ffv_fetch_sub(&conn->refs, 1u) != 1)
		return;
	if (conn->listener)
		pre_put(conn->listener);
	if (conn->kind == PRE_LISTENER && conn->engine >= 0) /* which those that it accepted may still have needed */
		ffv_close_socket(conn->engine);
	pthread_mutex_lock(&table);
	conn->next = pool;
	pool = conn;
	pthread_mutex_unlock(&table);
}

static struct pre_conn *take_memory(void)
{
	pthread_mutex_lock(&table);
	struct pre_conn *conn = pool;
	if (conn)
		pool = conn->next;
	pthread_mutex_unlock(&table);
	if (!conn) {
		conn = calloc(1, sizeof *conn);
		if (!conn)
			return NULL;
		pthread_mutex_init(&conn->tx, NULL);
		pthread_mutex_init(&conn->rx, NULL);
		pthread_mutex_init(&conn->lock, NULL);
	}
	size_t from = offsetof(struct pre_conn, kind);
	memset((char *)conn + from, 0, sizeof *conn - from);
	conn->next = NULL;
	conn->numbers = 0;
	conn->engine = conn->tcp = conn->own_listener = -1;
	conn->tcp_until = UINT64_MAX;
	return conn;
}

void pre_add_number(int fd, struct pre_conn *conn)
{
	pthread_mutex_lock(&table);
	conn->numbers++;
	ffv_fetch_add(&conn->refs, 1u);
	ffv_store_release(&numbers[fd], conn); /* [pre-number] */
	if (fd >= ffv_load_relaxed(&end_of_numbers))
		ffv_store_relaxed(&end_of_numbers, fd + 1);
	pthread_mutex_unlock(&table);
}

struct pre_conn *pre_new(int fd, enum pre_kind kind)
{
	pre_drop_number(fd);
	struct pre_conn *conn = (unsigned)fd < NUMBERS ? take_memory() : NULL;

	if (!conn)
		return NULL;
	conn->kind = kind;
	ffv_store_release(&conn->refs, 1u);
	pre_add_number(fd, conn);
	return conn;
}

void pre_drop_number(int fd)
{
	bool last = false;

	if ((unsigned)fd >= NUMBERS || !ffv_load_relaxed(&numbers[fd]))
		return;
	pthread_mutex_lock(&table);
	struct pre_conn *conn = ffv_exchange(&numbers[fd], NULL);
	if (conn)
		last = --conn->numbers == 0;
	pthread_mutex_unlock(&table);
	if (last)
		pre_end(conn);
	if (conn)
		pre_put(conn);
}

void pre_for_each(void (*function)(int fd, struct pre_conn *conn, void *argument), void *argument)
{
	for (int fd = 0; fd < pre_end_of_numbers(); fd++) {
		struct pre_conn *conn = pre_get(fd);
		if (!conn)
			continue;
		function(fd, conn, argument);
		pre_put(conn);
	}
}

void pre_lock_table(void)
{
	pthread_mutex_lock(&table);
}

void pre_unlock_table(void)
{
	pthread_mutex_unlock(&table);
}

int pre_end_of_numbers(void)
{
	return ffv_load_relaxed(&end_of_numbers);
}

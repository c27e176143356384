/* SPDX-License-Identifier: MIT
 *
 * Which datagram sockets of the process have an address. The kernel lets several have one (SO_REUSEADDR) and gives what comes to the
 * one that is connected to its sender, so servers have a socket for each client beside the one that hears of new clients. Here one of
 * them listens, for questions (route.c), and answers for all.
 */
#include <errno.h>

#include "base/error.h"
#include "rsocket/datagram.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* after those of sockets */
static struct ffv_rs_bound *all;

/* Another socket that has the same address. */
static struct ffv_rs_bound *find_like(const struct ffv_rs_bound *own)
{
	struct ffv_rs_bound *other = all;

	while (other && (other == own || !ffv_rs_are_equal(&other->socket->bound, &own->socket->bound)))
		other = other->next;
	return other;
}

int ffv_rs_join_bound(struct ffv_rs_bound *own)
{
	pthread_mutex_lock(&lock);
	int rc = ffv_rs_listen_shared(own->socket);
	own->listens = rc == 0;
	if (rc == -EADDRINUSE && find_like(own))
		rc = 0;
	if (!rc) {
		own->next = all;
		all = own;
	}
	pthread_mutex_unlock(&lock);
	return rc;
}

void ffv_rs_leave_bound(struct ffv_rs_bound *own)
{
	struct ffv_rs_bound **at = &all;

	pthread_mutex_lock(&lock);
	while (*at && *at != own)
		at = &(*at)->next;
	if (*at)
		*at = own->next;
	/* Those that are in the list have their ids as long as the lock is held. */
	struct ffv_rs_bound *heir = own->listens ? find_like(own) : NULL;
	ffv_rs_drop_id(own->socket);
	own->listens = false;
	if (heir)
		heir->listens = ffv_rs_listen_shared(heir->socket) == 0; /* else it goes on by UDP */
	pthread_mutex_unlock(&lock);
}

void ffv_rs_connect_bound(struct ffv_rs_bound *own, const union ffv_sockaddr *peer)
{
	pthread_mutex_lock(&lock);
	own->is_connected = peer != NULL;
	if (peer)
		own->peer = *peer;
	pthread_mutex_unlock(&lock);
}

uint32_t ffv_rs_choose_bound(const struct ffv_rs_socket *asked, const union ffv_sockaddr *from)
{
	uint32_t found = 0;
	bool is_theirs = false;

	pthread_mutex_lock(&lock);
	for (const struct ffv_rs_bound *at = all; at && !is_theirs; at = at->next) {
		if (!ffv_rs_are_equal(&at->socket->bound, &asked->bound) ||
		    (at->is_connected && !ffv_rs_are_equal(&at->peer, from)))
			continue;
		is_theirs = at->is_connected;
		found = at->qpn;
	}
	pthread_mutex_unlock(&lock);
	return found;
}

/* ---- fork --------------------------------------------------------------------------------------------------------------------------- */

void ffv_rs_lock_bound(void)
{
	pthread_mutex_lock(&lock);
}

/* What a child inherits is its parent's. */
void ffv_rs_unlock_bound(bool in_child)
{
	if (in_child)
		all = NULL;
	pthread_mutex_unlock(&lock);
}

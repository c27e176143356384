/* SPDX-License-Identifier: MIT
 *
 * What is sent and received on a connection that has a stream, or may get one. The connection is held by the caller; results are
 * counts or -errno.
 */
#ifndef FFV_PRELOAD_DATA_H
#define FFV_PRELOAD_DATA_H

#include "preload/conn.h"

long pre_send(struct pre_conn *conn, int fd, const struct msghdr *msg, int flags);
long pre_receive(struct pre_conn *conn, int fd, struct msghdr *msg, int flags);
/* Whether a call that a signal has ended begins again: it does if every handler of the program was installed so. */
bool pre_begins_again(void);

/* ---- datagram.c: the same ---------------------------------------------------------------------------------------------------- */

long pre_send_datagram(struct pre_conn *conn, int fd, const struct msghdr *msg, int flags);
long pre_receive_datagram(struct pre_conn *conn, int fd, struct msghdr *msg, int flags);

#endif

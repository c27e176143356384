/* SPDX-License-Identifier: MIT
 *
 * What exec.c, which lets other programs go on with connections, and fork.c have of each other.
 */
#ifndef FFV_PRELOAD_PASS_H
#define FFV_PRELOAD_PASS_H

#include "preload/conn.h"

/* ---- fork.c -------------------------------------------------------------------------------------------------------------------- */

/* Before this process becomes another program: what that one inherits goes back to TCP, and what was not read of it is copied. */
void pre_go_back(void);
/* It has not become one. */
void pre_forget_copies(void);
/* What is to be read before TCP goes on, or behind `follows` bytes of it; 0: nothing. It stays the connection's. */
size_t pre_rest_to_pass(const struct pre_conn *conn, const void **bytes, uint64_t *follows);
/* The other way round. */
void pre_take_rest(int fd, const void *bytes, size_t length, uint64_t follows);
/* The connection is TCP's for good; false: something of it was not read yet, or the peer does not answer. */
bool pre_give_up_stream(int fd, struct pre_conn *conn);

/* ---- exec.c -------------------------------------------------------------------------------------------------------------------- */

/* Before a message is sent by what is no connection of ours; false: it is not to be sent. */
bool pre_pass_rights(const struct msghdr *msg);

#endif

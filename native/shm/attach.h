/* SPDX-License-Identifier: MIT
 *
 * The control protocol of two contexts on one host: who they are, and the descriptors of their memory, over a
 * SOCK_SEQPACKET Unix socket. Process-private; every message is checked before it is believed, alien or newer ones are
 * refused with -EPROTO and a text. The connection stays open: its hang-up is the death of the peer.
 */
#ifndef FFV_SHM_ATTACH_H
#define FFV_SHM_ATTACH_H

#include <stdint.h>
#include <sys/types.h>

#include "shm/layout.h"

enum ffv_message_kind {
	FFV_MESSAGE_HELLO = 1,     /* first, of the one who connects; with its three descriptors */
	FFV_MESSAGE_WELCOME = 2,   /* the answer; with its three descriptors */
	FFV_MESSAGE_REFUSE = 3,    /* the other answer: `value` = errno */
	FFV_MESSAGE_BYE = 4,       /* orderly close: what follows is not a death */
	FFV_MESSAGE_WANT_CHANNEL = 5, /* value = number of a CQ: which eventfd does its completion channel use? */
	FFV_MESSAGE_CHANNEL = 6,   /* value = number of the CQ; with the eventfd, or none if it has no channel any more */
	FFV_MESSAGE_OBSERVE = 7,   /* first, of a monitor: answered by WELCOME with the arena only */
};

#define FFV_MESSAGE_MAGIC 0x6c74637662766666ull /* "ffvbvctl" as bytes */
#define FFV_MESSAGE_VERSION 1u

struct ffv_message {
	uint64_t magic;
	uint32_t version;
	uint32_t kind;
	uint64_t context_id;
	uint64_t value;
	uint8_t gid[16];
	uint32_t qpn_first;
	uint32_t num_fds;
};

#define FFV_MESSAGE_FDS 3
enum { FFV_FD_ARENA = 0, FFV_FD_MIRROR = 1, FFV_FD_DOORBELL = 2 };

struct ffv_envelope {
	struct ffv_message message;
	int fds[FFV_MESSAGE_FDS];  /* -1 where there is none; received ones belong to the caller */
	pid_t pid;                 /* of the sender as this PID namespace sees it, 0 = not visible (received only) */
	uid_t uid;
};

/* Sends without blocking. -EAGAIN if the socket's buffer is full, -EPIPE/-ECONNRESET if the peer is gone.
 * Fills magic, version and num_fds itself; the descriptors stay the caller's. Those that are there come first, as many
 * as the kind says above (-EINVAL). */
int ffv_attach_send(int socket, struct ffv_envelope *envelope);
/* Receives one message without blocking: 1 = got one, 0 = the peer hung up, -EAGAIN = nothing there,
 * -EPROTO = not a message of ours, -EMFILE = no room for its descriptors (those received are closed; the message is
 * lost, hang up). */
int ffv_attach_receive(int socket, struct ffv_envelope *envelope);
/* Waits for a message at most timeout_ms, then as ffv_attach_receive; -ETIMEDOUT. */
int ffv_attach_receive_within(int socket, int timeout_ms, struct ffv_envelope *envelope);
void ffv_envelope_close_fds(struct ffv_envelope *envelope);

/* ---- arenas ------------------------------------------------------------------------------------------------------- */

/* Creates and maps an arena of our own: memfd (close-on-exec), sized, sealed against shrinking and growing; header
 * filled in except what the context itself sets (context_id, gid, qpn_first). A fork child keeps the mapping, and may
 * detach it. */
int ffv_arena_create(const char *name, int *fd, struct ffv_arena_shm **arena);
/* Maps a peer's arena (read-only for a monitor) after checking: a memfd with the right seals and size; magic, layout
 * version and sizes equal to ours (-EPROTO naming both versions), context id not zero. MADV_DONTFORK, MADV_DONTDUMP:
 * in a fork child it is not there and must not be detached (something else may stand at its address). The descriptor
 * stays the caller's and may be closed. */
int ffv_arena_attach(int fd, int read_only, struct ffv_arena_shm **arena);
void ffv_arena_detach(struct ffv_arena_shm *arena);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The node directory: the folder of Unix sockets in which the contexts of a host find each other (DESIGN D2).
 * Process-private handles on it; safe from several threads. What stands in the folder is not trusted.
 *
 * A context's name in it is "GID(32 hex digits)-BLOCK(3 hex digits)": binding the socket is the atomic allocation of the
 * block of QP numbers [BLOCK * FFV_QPN_BLOCK, ...), connecting is the look-up, a refused connection a stale name, which
 * the next one to see it sweeps. A lock (flock of the folder) keeps two sweepers apart; it is held for moments, and waiting
 * for it is bounded. Sockets can be connected to by whoever can write to the folder, whatever the umask.
 */
#ifndef FFV_SHM_NODEDIR_H
#define FFV_SHM_NODEDIR_H

#include <stddef.h>
#include <stdint.h>

struct ffv_nodedir;

/* Writes the path that D2 prescribes (FFVERBS_DIR; /run/ffverbs if usable; $XDG_RUNTIME_DIR/ffverbs; ffverbs-UID in
 * the temporary folder) without creating anything. */
int ffv_nodedir_resolve(char *path, size_t size);
/* Opens dir (NULL: as resolved; only the per-user ones are created, 0700). Errors name the folder and the remedy:
 * -ENOENT missing, -EACCES not ours or not writable, -ENOTDIR, -EROFS, -ENOSPC full disk, -ENAMETOOLONG. */
int ffv_nodedir_open(const char *dir, struct ffv_nodedir **out);
void ffv_nodedir_close(struct ffv_nodedir *dir);
const char *ffv_nodedir_path(const struct ffv_nodedir *dir);

/* Binds and listens (SOCK_SEQPACKET, close-on-exec, non-blocking) under the first free block of this GID.
 * -ENOSPC if all blocks are taken by live contexts or the disk is full, -EAGAIN if another process holds the lock of
 * the folder for 5 s. Not for a thread that must not wait. */
int ffv_nodedir_claim(struct ffv_nodedir *dir, const uint8_t gid[16], uint32_t *block, int *listen_fd);
/* The same under the block given; -EADDRINUSE if somebody alive has it. */
int ffv_nodedir_claim_block(struct ffv_nodedir *dir, const uint8_t gid[16], uint32_t block, int *listen_fd);
/* Unlinks the name and closes the descriptor. */
void ffv_nodedir_release(struct ffv_nodedir *dir, const uint8_t gid[16], uint32_t block, int listen_fd);
/* Connects (non-blocking, close-on-exec) to a context. -ENOENT if there is none (a stale name is swept on the way),
 * -EAGAIN if its queue of connections is full, -EACCES, -EPROTO; never waits for the peer. */
int ffv_nodedir_connect(struct ffv_nodedir *dir, const uint8_t gid[16], uint32_t block, int *fd);

/* The same to the router of this host; -ENOENT if there is none. */
int ffv_nodedir_connect_router(const struct ffv_nodedir *dir, int *fd);

/* ---- other names: listeners of the connection manager ---------------------------------------------------------------- */

#define FFV_NODEDIR_NAME_BYTES 48 /* most bytes of such a name, with its end */

/* The name of a listener: where its address is heard (a letter), the address, port space and port. */
void ffv_nodedir_write_service(char name[FFV_NODEDIR_NAME_BYTES], char scope, const uint8_t address[16],
			       uint32_t port_space, uint16_t port);
/* The same for a name of the caller's choice, which must look like no context's: letters, digits and dashes.
 * -EADDRINUSE if somebody alive has it. */
int ffv_nodedir_claim_name(struct ffv_nodedir *dir, const char *name, int *listen_fd);
void ffv_nodedir_release_name(struct ffv_nodedir *dir, const char *name, int listen_fd);
int ffv_nodedir_connect_name(struct ffv_nodedir *dir, const char *name, int *fd);
/* Calls `is_wanted` for every name in the folder until it returns 1, and returns that; 0 = no name is. */
int ffv_nodedir_find_name(struct ffv_nodedir *dir, int (*is_wanted)(void *arg, const char *name), void *arg);

/* ---- contexts ---------------------------------------------------------------------------------------------------------- */

/* Whose listening socket fd is a copy of: -EINVAL if it is none of a node directory. */
int ffv_nodedir_identify(int fd, uint8_t gid[16], uint32_t *block);

typedef int (*ffv_nodedir_visit)(void *arg, const uint8_t gid[16], uint32_t block);
/* Calls visit for each well-formed name, in order; stops at its first non-zero result and returns it. */
int ffv_nodedir_list(struct ffv_nodedir *dir, ffv_nodedir_visit visit, void *arg);

/* The Ethernet segment of the folder: the contexts that send or receive multicast datagrams or raw packets. A file
 * beside the name marks them; it goes with the name, also when that is swept. A mark stands before its maker looks who
 * else has one, so of two that join at once at least one sees the other. Fails as ffv_nodedir_claim. */
int ffv_nodedir_join_segment(struct ffv_nodedir *dir, const uint8_t gid[16], uint32_t block);
/* As ffv_nodedir_list, but those on the segment only. Some may have ended since. */
int ffv_nodedir_list_segment(struct ffv_nodedir *dir, ffv_nodedir_visit visit, void *arg);

#endif

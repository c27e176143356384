/* SPDX-License-Identifier: MIT
 *
 * What the files of the node directory share: nodedir_open.c finds and opens the folder, nodedir_names.c reads and writes
 * what its names say, nodedir.c claims, sweeps and connects. Process-private; any thread.
 */
#ifndef FFV_SHM_NODEDIR_PRIVATE_H
#define FFV_SHM_NODEDIR_PRIVATE_H

#include <sys/socket.h>
#include <sys/un.h>

#include "shm/nodedir.h"

#define FFV_GID_DIGITS 32
#define FFV_NAME_BYTES (FFV_GID_DIGITS + 1 + 3 + 1)
#define FFV_MARK_SUFFIX "-segment"
#define FFV_MARK_BYTES (FFV_NAME_BYTES + sizeof FFV_MARK_SUFFIX - 1)

struct ffv_nodedir {
	int fd;
	char *path;    /* as asked for: for people */
	char *prefix;  /* a short path of the folder, for socket addresses */
};

struct ffv_nodedir_entry {
	uint8_t gid[16];
	uint32_t block;
};

struct ffv_nodedir_entries {
	struct ffv_nodedir_entry *entry;
	size_t count, capacity;
};

void ffv_nodedir_write_name(char name[FFV_NAME_BYTES], const uint8_t gid[16], uint32_t block);
/* 1 if the name is a context's. */
int ffv_nodedir_parse_name(const char *name, struct ffv_nodedir_entry *entry);
/* The mark of the context of that name on the segment. */
void ffv_nodedir_write_mark(char mark[FFV_MARK_BYTES], const char *name);
int ffv_nodedir_parse_mark(const char *mark, struct ffv_nodedir_entry *entry);
socklen_t ffv_nodedir_write_address(const struct ffv_nodedir *dir, const char *name, struct sockaddr_un *address);
/* All contexts' names, in order. On success the caller frees entries->entry. */
int ffv_nodedir_read_entries(const struct ffv_nodedir *dir, struct ffv_nodedir_entries *entries);

#endif

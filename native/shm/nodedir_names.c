/* SPDX-License-Identifier: MIT
 *
 * What the names in a node directory say, and listing them (see nodedir.h).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "shm/layout.h"
#include "shm/nodedir_private.h"

/* ---- names ---------------------------------------------------------------------------------------------------------- */

void ffv_nodedir_write_name(char name[FFV_NAME_BYTES], const uint8_t gid[16], uint32_t block)
{
	for (int i = 0; i < 16; i++)
		snprintf(name + 2 * i, 3, "%02x", gid[i]);
	snprintf(name + FFV_GID_DIGITS, FFV_NAME_BYTES - FFV_GID_DIGITS, "-%03x", block & 0xfff);
}

void ffv_nodedir_write_service(char name[FFV_NODEDIR_NAME_BYTES], char scope, const uint8_t address[16],
			       uint32_t port_space, uint16_t port)
{
	*name = scope;
	for (int i = 0; i < 16; i++)
		snprintf(name + 1 + 2 * i, 3, "%02x", address[i]);
	snprintf(name + 1 + FFV_GID_DIGITS, FFV_NODEDIR_NAME_BYTES - 1 - FFV_GID_DIGITS, "-%04x-%04x",
		 port_space & 0xffff, port);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int ffv_nodedir_parse_name(const char *name, struct ffv_nodedir_entry *entry)
{
	if (strlen(name) != FFV_NAME_BYTES - 1 || name[FFV_GID_DIGITS] != '-')
		return 0;
	for (int i = 0; i < FFV_NAME_BYTES - 1; i++)
		if (i != FFV_GID_DIGITS && hex_digit(name[i]) < 0)
			return 0;
	for (int i = 0; i < 16; i++)
		entry->gid[i] = (uint8_t)(hex_digit(name[2 * i]) << 4 | hex_digit(name[2 * i + 1]));
	name += FFV_GID_DIGITS + 1;
	entry->block = (uint32_t)(hex_digit(name[0]) << 8 | hex_digit(name[1]) << 4 | hex_digit(name[2]));
	return entry->block < FFV_QPN_BLOCKS;
}

void ffv_nodedir_write_mark(char mark[FFV_MARK_BYTES], const char *name)
{
	snprintf(mark, FFV_MARK_BYTES, "%s" FFV_MARK_SUFFIX, name);
}

int ffv_nodedir_parse_mark(const char *mark, struct ffv_nodedir_entry *entry)
{
	char name[FFV_NAME_BYTES];

	if (strlen(mark) != FFV_MARK_BYTES - 1 || strcmp(mark + FFV_NAME_BYTES - 1, FFV_MARK_SUFFIX))
		return 0;
	memcpy(name, mark, FFV_NAME_BYTES - 1);
	name[FFV_NAME_BYTES - 1] = 0;
	return ffv_nodedir_parse_name(name, entry);
}

socklen_t ffv_nodedir_write_address(const struct ffv_nodedir *dir, const char *name, struct sockaddr_un *address)
{
	memset(address, 0, sizeof *address);
	address->sun_family = AF_UNIX;
	/* choose_prefix left room for any name */
	snprintf(address->sun_path, sizeof address->sun_path, "%s/%s", dir->prefix, name);
	return (socklen_t)sizeof *address;
}

static int add_entry(struct ffv_nodedir_entries *entries, const struct ffv_nodedir_entry *entry)
{
	if (entries->count == entries->capacity) {
		size_t capacity = entries->capacity ? 2 * entries->capacity : 64;
		struct ffv_nodedir_entry *grown = realloc(entries->entry, capacity * sizeof *grown);

		if (!grown)
			return -ENOMEM;
		entries->entry = grown;
		entries->capacity = capacity;
	}
	entries->entry[entries->count++] = *entry;
	return 0;
}

static int compare_entries(const void *a, const void *b)
{
	const struct ffv_nodedir_entry *x = a, *y = b;
	int order = memcmp(x->gid, y->gid, sizeof x->gid);

	return order ? order : (x->block > y->block) - (x->block < y->block);
}

/* All names that `parse` takes, in order. On success the caller frees entries->entry. */
static int read_entries(const struct ffv_nodedir *dir, int (*parse)(const char *name, struct ffv_nodedir_entry *entry),
			struct ffv_nodedir_entries *entries)
{
	int fd = openat(dir->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *found;
	struct ffv_nodedir_entry entry;
	int rc = 0;

	memset(entries, 0, sizeof *entries);
	if (!stream) {
		rc = ffv_fail_errno(errno, "the node directory %s cannot be listed", dir->path);
		if (fd >= 0)
			close(fd);
		return rc;
	}
	while (!rc) {
		errno = 0;
		found = readdir(stream);
		if (!found) {
			rc = -errno;
			break;
		}
		if (parse(found->d_name, &entry))
			rc = add_entry(entries, &entry);
	}
	closedir(stream);
	if (rc) {
		free(entries->entry);
		return ffv_fail_errno(-rc, "the node directory %s cannot be listed", dir->path);
	}
	if (entries->count)
		qsort(entries->entry, entries->count, sizeof entry, compare_entries);
	return 0;
}

static int list(struct ffv_nodedir *dir, int (*parse)(const char *name, struct ffv_nodedir_entry *entry), ffv_nodedir_visit visit,
		void *arg)
{
	struct ffv_nodedir_entries entries;
	int rc = read_entries(dir, parse, &entries);

	if (rc)
		return rc;
	for (size_t i = 0; i < entries.count && !rc; i++)
		rc = visit(arg, entries.entry[i].gid, entries.entry[i].block);
	free(entries.entry);
	return rc;
}

int ffv_nodedir_read_entries(const struct ffv_nodedir *dir, struct ffv_nodedir_entries *entries)
{
	return read_entries(dir, ffv_nodedir_parse_name, entries);
}

int ffv_nodedir_list(struct ffv_nodedir *dir, ffv_nodedir_visit visit, void *arg)
{
	return list(dir, ffv_nodedir_parse_name, visit, arg);
}

int ffv_nodedir_list_segment(struct ffv_nodedir *dir, ffv_nodedir_visit visit, void *arg)
{
	return list(dir, ffv_nodedir_parse_mark, visit, arg);
}

/* SPDX-License-Identifier: MIT
 *
 * See maps.h. Linux 6.11 and later answer for one address; older ones print the whole list, which takes milliseconds
 * in a process with ten thousand mappings (and a registered buffer is one or two).
 */
#include "shm/maps.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/error.h"

#define READ_BYTES 16384u /* longer than any line: a path has at most 4096 bytes, each may be escaped as four */

int ffv_maps_open(const char *name)
{
	char path[64];

	/* "self" is the main thread, whose folder is empty once it has ended before the others. */
	snprintf(path, sizeof path, "/proc/thread-self/%s", name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Stacks grow by themselves, [vvar] and its like belong to the kernel: only what malloc and mmap give is ordinary. */
static bool name_is_ordinary(const char *name)
{
	return !*name || !strcmp(name, "[heap]") || !strncmp(name, "[anon:", 6);
}

static int append(struct ffv_maps *maps, const struct ffv_mapping *mapping)
{
	if (!(maps->count & (maps->count + 1))) { /* room for 1, 3, 7, ... */
		struct ffv_mapping *list = realloc(maps->list, (maps->count * 2 + 1) * sizeof *list);
		if (!list)
			return ffv_fail(ENOMEM, "out of memory for the list of mappings");
		maps->list = list;
	}
	maps->list[maps->count++] = *mapping;
	return 0;
}

/* Appends what of a mapping lies in the range. */
static int append_clipped(struct ffv_maps *maps, struct ffv_mapping *mapping, struct ffv_range range)
{
	if (mapping->range.first < range.first) {
		mapping->offset += range.first - mapping->range.first;
		mapping->range.first = range.first;
	}
	if (mapping->range.end > range.end)
		mapping->range.end = range.end;
	return append(maps, mapping);
}

/* ---- the kernel's answer for one address --------------------------------------------------------------------------- */

/* PROCMAP_QUERY of linux/fs.h, for older headers. */
struct query {
	uint64_t size, flags, addr;
	uint64_t first, end, vma_flags, page_bytes, offset, inode;
	uint32_t dev_major, dev_minor;
	uint32_t name_size, build_id_size;
	uint64_t name, build_id;
};
#define QUERY _IOWR('f', 17, struct query)
#define QUERY_COVERING_OR_NEXT 0x10u
enum { VMA_READABLE = 1, VMA_WRITABLE = 2, VMA_EXECUTABLE = 4, VMA_SHARED = 8 };

static int query_name(int fd, const struct query *found, bool *ordinary)
{
	char name[128] = "";
	struct query query = { .size = sizeof query, .addr = found->first, .name = (uintptr_t)name,
		.name_size = sizeof name };

	if (!ioctl(fd, QUERY, &query))
		*ordinary = name_is_ordinary(name);
	else if (errno == ENAMETOOLONG)
		*ordinary = false; /* the ordinary ones are short */
	else
		return -ENOTTY;
	return 0;
}

static struct ffv_mapping query_mapping(const struct query *found)
{
	return (struct ffv_mapping){
		.range = { found->first, found->end },
		.offset = found->offset,
		.inode = (ino_t)found->inode,
		.dev_major = found->dev_major,
		.dev_minor = found->dev_minor,
		.readable = found->vma_flags & VMA_READABLE,
		.writable = found->vma_flags & VMA_WRITABLE,
		.executable = found->vma_flags & VMA_EXECUTABLE,
		.shared = found->vma_flags & VMA_SHARED,
	};
}

/* -ENOTTY: this kernel does not answer. */
static int ask_kernel(int fd, struct ffv_range range, struct ffv_maps *maps)
{
	int rc = 0;

	for (uint64_t addr = range.first; addr < range.end && !rc;) {
		struct query query = { .size = sizeof query, .flags = QUERY_COVERING_OR_NEXT, .addr = addr };
		if (ioctl(fd, QUERY, &query))
			return errno == ENOENT ? 0 : -ENOTTY;
		if (query.first >= range.end)
			break;
		struct ffv_mapping mapping = query_mapping(&query);
		if (!mapping.inode && !mapping.shared)
			rc = query_name(fd, &query, &mapping.anonymous);
		if (!rc)
			rc = append_clipped(maps, &mapping, range);
		addr = query.end;
	}
	return rc;
}

/* ---- the whole list as text ---------------------------------------------------------------------------------------- */

/* A line: "first-end perms offset major:minor inode   name". */
static bool parse_line(const char *line, struct ffv_mapping *mapping)
{
	unsigned long long first, end, offset, inode;
	char perms[5];
	int name = 0;

	if (sscanf(line, "%llx-%llx %4s %llx %x:%x %llu %n", &first, &end, perms, &offset, &mapping->dev_major,
		    &mapping->dev_minor, &inode, &name) < 7 || strlen(perms) != 4)
		return false;
	mapping->range = (struct ffv_range){ first, end };
	mapping->offset = offset;
	mapping->inode = (ino_t)inode;
	mapping->readable = perms[0] == 'r';
	mapping->writable = perms[1] == 'w';
	mapping->executable = perms[2] == 'x';
	mapping->shared = perms[3] == 's';
	mapping->anonymous = !inode && !mapping->shared && name_is_ordinary(line + name);
	return true;
}

/* Quickly: there may be thousands of lines before the one that counts. */
static bool line_ends_before(const char *line, uint64_t addr)
{
	const char *dash = strchr(line, '-');

	return dash && strtoull(dash + 1, NULL, 16) <= addr;
}

/* 1 = beyond the range, no need to read on. */
static int take_line(const char *line, struct ffv_range range, struct ffv_maps *maps)
{
	struct ffv_mapping mapping;

	if (line_ends_before(line, range.first))
		return 0;
	if (!parse_line(line, &mapping))
		return ffv_fail(EIO, "cannot understand a line of /proc/self/maps: %.80s", line);
	return mapping.range.first >= range.end ? 1 : append_clipped(maps, &mapping, range);
}

static int read_lines(int fd, char *buffer, struct ffv_range range, struct ffv_maps *maps)
{
	size_t used = 0;

	for (;;) {
		ssize_t got = read(fd, buffer + used, READ_BYTES - used - 1);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? ffv_fail_errno(errno, "cannot read /proc/self/maps") : 0;
		used += (size_t)got;
		buffer[used] = '\0';
		char *line = buffer;
		for (char *newline; (newline = strchr(line, '\n')); line = newline + 1) {
			*newline = '\0';
			int rc = take_line(line, range, maps);
			if (rc)
				return rc < 0 ? rc : 0;
		}
		used -= (size_t)(line - buffer);
		memmove(buffer, line, used);
	}
}

static int read_text(int fd, struct ffv_range range, struct ffv_maps *maps)
{
	char *buffer = malloc(READ_BYTES);
	int rc = buffer ? read_lines(fd, buffer, range, maps) : ffv_fail(ENOMEM, "out of memory for /proc/self/maps");

	free(buffer);
	return rc;
}

int ffv_maps_read_with(enum ffv_maps_source source, struct ffv_range range, struct ffv_maps *maps)
{
	int fd = ffv_maps_open("maps");

	if (fd == -ENOENT || fd == -EACCES)
		return ffv_fail(ENOENT, "/proc is not there: cannot see what is mapped");
	if (fd < 0)
		return ffv_fail_errno(-fd, "cannot open /proc/thread-self/maps");
	*maps = (struct ffv_maps){ 0 };
	int rc = source == FFV_MAPS_TEXT ? -ENOTTY : ask_kernel(fd, range, maps);
	if (rc == -ENOTTY && source != FFV_MAPS_QUERY) {
		maps->count = 0;
		rc = read_text(fd, range, maps);
	}
	close(fd);
	if (rc)
		ffv_maps_free(maps);
	return rc;
}

int ffv_maps_read(struct ffv_range range, struct ffv_maps *maps)
{
	return ffv_maps_read_with(FFV_MAPS_ANY, range, maps);
}

void ffv_maps_free(struct ffv_maps *maps)
{
	free(maps->list);
	*maps = (struct ffv_maps){ 0 };
}

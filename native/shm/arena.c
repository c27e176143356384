/* SPDX-License-Identifier: MIT
 *
 * Arenas: creating the shared-memory file of a context, and mapping that of a peer (see attach.h). A peer's file is
 * examined through its descriptor before any of it is mapped; what it says is copied, then checked.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "shm/attach.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static int create_memfd(const char *name)
{
	/* Kernels before 6.3 do not know the last flag. */
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd < 0 ? ffv_fail_errno(errno, "no shared-memory file (memfd) for arena %s", name) : fd;
}

static int size_and_seal(int fd, const char *name)
{
	struct rlimit limit;

	/* ftruncate beyond the limit would send SIGXFSZ, which kills. */
	if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < FFV_ARENA_BYTES)
		return ffv_fail(EFBIG, "arena %s needs a (sparse) file of %llu bytes, the limit is %llu: ulimit -f unlimited",
				name, (unsigned long long)FFV_ARENA_BYTES, (unsigned long long)limit.rlim_cur);
	if (ftruncate(fd, (off_t)FFV_ARENA_BYTES))
		return ffv_fail_errno(errno, "arena %s cannot be made %llu bytes long", name,
				      (unsigned long long)FFV_ARENA_BYTES);
	if (fcntl(fd, F_ADD_SEALS, SEALS))
		return ffv_fail_errno(errno, "arena %s cannot be sealed", name);
	return 0;
}

static int map_arena(int fd, int protection, struct ffv_arena_shm **out)
{
	void *mapped = mmap(NULL, FFV_ARENA_BYTES, protection, MAP_SHARED | MAP_NORESERVE, fd, 0);
	int err = errno;

	if (mapped == MAP_FAILED)
		return ffv_fail(err, "an arena (%llu bytes of address space) cannot be mapped: %s%s",
				(unsigned long long)FFV_ARENA_BYTES, strerrordesc_np(err),
				err == ENOMEM ? "; raise the limit of address space (ulimit -v unlimited)" : "");
	/* A core file need not hold 16 GiB of holes; a kernel without it only makes larger ones. */
	(void)madvise(mapped, FFV_ARENA_BYTES, MADV_DONTDUMP);
	*out = mapped;
	return 0;
}

int ffv_arena_create(const char *name, int *out_fd, struct ffv_arena_shm **out_arena)
{
	struct ffv_arena_shm *arena;
	int fd = create_memfd(name);
	int rc;

	if (fd < 0)
		return fd;
	rc = size_and_seal(fd, name);
	if (!rc)
		rc = map_arena(fd, PROT_READ | PROT_WRITE, &arena);
	if (rc) {
		close(fd);
		return rc;
	}
	arena->magic = FFV_ARENA_MAGIC;
	arena->layout_version = FFV_LAYOUT_VERSION;
	arena->header_bytes = (uint32_t)sizeof *arena;
	arena->arena_bytes = FFV_ARENA_BYTES;
	arena->pid = (uint32_t)getpid();
	snprintf(arena->program, sizeof arena->program, "%s", program_invocation_short_name);
	*out_fd = fd;
	*out_arena = arena;
	return 0;
}

/* A file that its maker could still shorten would kill us with SIGBUS. */
static int check_file(int fd)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0)
		return ffv_fail(EPROTO, "the peer's arena is not a memory file (memfd)");
	if ((seals & SEALS) != SEALS)
		return ffv_fail(EPROTO, "the peer's arena can still change its size (seals %#x, not %#x)", (unsigned)seals,
				(unsigned)SEALS);
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size != (off_t)FFV_ARENA_BYTES)
		return ffv_fail(EPROTO, "the peer's arena is %lld bytes long, not %llu", (long long)st.st_size,
				(unsigned long long)FFV_ARENA_BYTES);
	return 0;
}

static int check_header(int fd)
{
	const size_t wanted = offsetof(struct ffv_arena_shm, num_qp);
	struct { _Alignas(64) unsigned char bytes[offsetof(struct ffv_arena_shm, num_qp)]; } copy;
	uint32_t version, header_bytes;
	uint64_t magic, arena_bytes, context_id;

	if (pread(fd, copy.bytes, wanted, 0) != (ssize_t)wanted)
		return ffv_fail(EPROTO, "the peer's arena cannot be read");
	memcpy(&magic, copy.bytes + offsetof(struct ffv_arena_shm, magic), sizeof magic);
	memcpy(&version, copy.bytes + offsetof(struct ffv_arena_shm, layout_version), sizeof version);
	memcpy(&header_bytes, copy.bytes + offsetof(struct ffv_arena_shm, header_bytes), sizeof header_bytes);
	memcpy(&arena_bytes, copy.bytes + offsetof(struct ffv_arena_shm, arena_bytes), sizeof arena_bytes);
	memcpy(&context_id, copy.bytes + offsetof(struct ffv_arena_shm, context_id), sizeof context_id);
	if (magic != FFV_ARENA_MAGIC)
		return ffv_fail(EPROTO, "the peer's shared memory is not an arena of ffverbs");
	if (version != FFV_LAYOUT_VERSION)
		return ffv_fail(EPROTO, "the peer's arena has layout version %u, ours is %u: run the same ffverbs at both "
				"ends", version, FFV_LAYOUT_VERSION);
	if (header_bytes != sizeof(struct ffv_arena_shm) || arena_bytes != FFV_ARENA_BYTES)
		return ffv_fail(EPROTO, "the peer's arena of layout version %u states sizes %u and %llu, ours (version %u) "
				"are %zu and %llu: run the same ffverbs at both ends", version, header_bytes,
				(unsigned long long)arena_bytes, FFV_LAYOUT_VERSION, sizeof(struct ffv_arena_shm),
				(unsigned long long)FFV_ARENA_BYTES);
	if (!(uint32_t)context_id || !(uint32_t)(context_id >> 32))
		return ffv_fail(EPROTO, "the peer's arena states no context id");
	return 0;
}

int ffv_arena_attach(int fd, int read_only, struct ffv_arena_shm **out)
{
	struct ffv_arena_shm *arena;
	int rc = check_file(fd);

	if (!rc)
		rc = check_header(fd);
	if (!rc)
		rc = map_arena(fd, read_only ? PROT_READ : PROT_READ | PROT_WRITE, &arena);
	if (rc)
		return rc;
	/* A fork child owns nothing of its parent's. */
	if (madvise(arena, FFV_ARENA_BYTES, MADV_DONTFORK)) {
		rc = ffv_fail_errno(errno, "the peer's arena cannot be kept from fork children");
		ffv_arena_detach(arena);
		return rc;
	}
	*out = arena;
	return 0;
}

void ffv_arena_detach(struct ffv_arena_shm *arena)
{
	if (arena)
		munmap(arena, FFV_ARENA_BYTES);
}

/* SPDX-License-Identifier: MIT
 *
 * Memory that is registered by something else than its address: buffers that the engine allocated, and descriptors that
 * can be mapped. Process-private; any thread.
 */
#include "verbs/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/error.h"
#include "verbs/region.h"

#define DMA_BUF_MAGIC 0x444d4142 /* f_type of a dma-buf's descriptor */

/* ---- buffers --------------------------------------------------------------------------------------------------------- */

static void use_pd(struct ffv_pd *pd, uint32_t n)
{
	pthread_mutex_lock(&pd->ctx->lock);
	pd->users += n;
	pthread_mutex_unlock(&pd->ctx->lock);
}

int ffv_alloc_buf(struct ffv_pd *pd, size_t length, struct ffv_buf **out)
{
	int rc = ffv_context_check(pd ? pd->ctx : NULL);

	if (rc)
		return rc;
	if (!length)
		return ffv_fail(EINVAL, "a buffer of no bytes");
	struct ffv_buf *buf = calloc(1, sizeof *buf);
	rc = buf ? ffv_mirror_alloc(length, &buf->memory) : ffv_fail(ENOMEM, "out of memory for a buffer");
	if (rc) {
		free(buf);
		return rc;
	}
	buf->pd = pd;
	buf->length_bytes = length;
	use_pd(pd, 1);
	*out = buf;
	return 0;
}

int ffv_free_buf(struct ffv_buf *buf)
{
	if (!buf)
		return ffv_fail(EINVAL, "no buffer was given");
	struct ffv_context *ctx = buf->pd->ctx;
	if (!ffv_context_check(ctx)) { /* in a fork child the memory is the parent's */
		pthread_mutex_lock(&ctx->lock);
		uint32_t users = buf->users;
		pthread_mutex_unlock(&ctx->lock);
		if (users)
			return ffv_fail(EBUSY, "%u memory regions are registered over the buffer: deregister them first", users);
		ffv_mirror_free(buf->memory, buf->length_bytes);
		use_pd(buf->pd, -1u);
	}
	free(buf);
	return 0;
}

void *ffv_buf_addr(struct ffv_buf *buf)
{
	return buf->memory;
}

void ffv_buf_use(struct ffv_buf *buf, bool more)
{
	struct ffv_context *ctx = buf->pd->ctx;

	pthread_mutex_lock(&ctx->lock);
	buf->users += more ? 1u : -1u;
	pthread_mutex_unlock(&ctx->lock);
}

int ffv_reg_buf_mr(struct ffv_pd *pd, struct ffv_buf *buf, uint64_t offset, size_t length, uint64_t iova, uint32_t access,
		   struct ffv_mr **out)
{
	struct ffv_mr *mr;
	int rc = ffv_context_check(pd ? pd->ctx : NULL);

	if (rc)
		return rc;
	if (!buf || buf->pd->ctx != pd->ctx || buf->pd->id != pd->id)
		return ffv_fail(EINVAL, buf ? "the buffer is of another protection domain" : "no buffer was given");
	if (offset > buf->length_bytes || length > buf->length_bytes - offset)
		return ffv_fail(EINVAL, "%zu bytes at offset %" PRIu64 " go beyond the %" PRIu64 " bytes of the buffer", length,
				offset, buf->length_bytes);
	if (access & (FFV_ACCESS_ON_DEMAND | FFV_ACCESS_HUGETLB))
		return ffv_fail(EINVAL, "access flags %#x: a buffer is registered without ON_DEMAND and HUGETLB", access);
	ffv_buf_use(buf, true);
	rc = ffv_reg_mr(pd, (uint8_t *)buf->memory + offset, length, iova, access, &mr);
	if (rc) {
		ffv_buf_use(buf, false);
		return rc;
	}
	ffv_region_of(mr)->buf = buf;
	*out = mr;
	return 0;
}

/* ---- descriptors ----------------------------------------------------------------------------------------------------- */

/* How many bytes it has, now and for as long as it is mapped; -EOPNOTSUPP if nobody can say. */
static int64_t lasting_size(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs))
		return ffv_fail_errno(errno, "descriptor %d cannot be registered", fd);
	int seals = fcntl(fd, F_GET_SEALS);
	if (fs.f_type != DMA_BUF_MAGIC && (seals < 0 || !(seals & F_SEAL_SHRINK)))
		return ffv_fail(EOPNOTSUPP, "descriptor %d is neither a dma-buf nor a memfd that is sealed against shrinking "
				"(F_SEAL_SHRINK)", fd);
	off_t here = lseek(fd, 0, SEEK_CUR), size = lseek(fd, 0, SEEK_END);
	if (here >= 0)
		lseek(fd, here, SEEK_SET);
	return size >= 0 ? (int64_t)size : ffv_fail_errno(errno, "descriptor %d does not tell its size", fd);
}

static int check_dmabuf(struct ffv_pd *pd, uint64_t offset, size_t length, uint64_t iova, int fd, uint32_t access)
{
	int rc = ffv_context_check(pd ? pd->ctx : NULL);

	if (!rc)
		rc = ffv_region_check_access(access);
	if (rc)
		return rc;
	if (access & (FFV_ACCESS_ON_DEMAND | FFV_ACCESS_HUGETLB))
		return ffv_fail(EINVAL, "access flags %#x: a descriptor is registered without ON_DEMAND and HUGETLB", access);
	int64_t size = lasting_size(fd);
	if (size < 0)
		return (int)size;
	if (!length || offset > (uint64_t)size || length > (uint64_t)size - offset || length > UINT64_MAX - iova)
		return ffv_fail(EINVAL, "%zu bytes at offset %" PRIu64 ", of a descriptor that has %" PRId64, length, offset,
				size);
	return 0;
}

int ffv_reg_dmabuf_mr(struct ffv_pd *pd, uint64_t offset, size_t length, uint64_t iova, int fd, uint32_t access,
		      struct ffv_mr **out)
{
	int rc = check_dmabuf(pd, offset, length, iova, fd, access);

	if (rc)
		return rc;
	uint64_t first = offset & ~((uint64_t)sysconf(_SC_PAGESIZE) - 1);
	size_t bytes = (size_t)(offset + length - first);
	int protection = PROT_READ | (access & FFV_ACCESS_LOCAL_WRITE ? PROT_WRITE : 0);
	uint8_t *mapping = mmap(NULL, bytes, protection, MAP_SHARED, fd, (off_t)first);
	if (mapping == MAP_FAILED)
		return ffv_fail_errno(errno, "descriptor %d cannot be mapped", fd);
	struct ffv_translation t = { .va = (uintptr_t)mapping + (offset - first), .length_bytes = length, .access = access,
				     .iova = access & FFV_ACCESS_ZERO_BASED ? 0 : iova };
	struct ffv_region *region;
	rc = ffv_region_create(pd, &t, &region);
	if (rc) {
		munmap(mapping, bytes);
		return rc;
	}
	region->mapping = mapping;
	region->mapping_bytes = bytes;
	region->base.mr.addr = NULL;
	*out = &region->base.mr;
	return 0;
}

/* What the tests of the mirror share: its state as the kernel tells it. */
#ifndef FFV_TESTS_MIRROR_SUPPORT_H
#define FFV_TESTS_MIRROR_SUPPORT_H

#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ffverbs/ffv.h>

#include "check.h"
#include "shm/guard.h"
#include "shm/maps.h"
#include "shm/mirror.h"

#define PAGE 4096ul
#define MIB (1ul << 20)

#define CHECK_OK(call)                                                                                      \
	do {                                                                                                \
		int check_rc = (call);                                                                      \
		if (check_rc) {                                                                             \
			fprintf(stderr, "%s:%d: %s: %d (%s)\n", __FILE__, __LINE__, #call, check_rc,        \
				ffv_error_text());                                                          \
			exit(1);                                                                            \
		}                                                                                           \
	} while (0)

static inline uint64_t address_of(const void *pointer)
{
	return (uintptr_t)pointer;
}

/* Bytes of memory that the mirror takes. */
static inline long long mirror_bytes(void)
{
	struct stat st;
	int fd;

	CHECK_OK(ffv_mirror_fd(&fd));
	CHECK(!fstat(fd, &st));
	return (long long)st.st_blocks * 512;
}

/* Is this page mapped shared (from whatever file)? */
static inline bool is_shared(const void *page)
{
	struct ffv_maps maps;
	uint64_t first = address_of(page) & ~(PAGE - 1);

	CHECK_OK(ffv_maps_read((struct ffv_range){ first, first + PAGE }, &maps));
	CHECK_EQ(maps.count, 1);
	bool shared = maps.list[0].shared;
	ffv_maps_free(&maps);
	return shared;
}

static inline uint8_t *private_pages(size_t count)
{
	uint8_t *memory = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(memory != MAP_FAILED);
	return memory;
}

static inline uint8_t pattern(uint64_t seed, size_t index)
{
	uint64_t mixed = (index + 1) * 0x9e3779b97f4a7c15ull + seed * 0xbf58476d1ce4e5b9ull;

	return (uint8_t)(mixed >> 56);
}

static inline void fill(uint8_t *memory, size_t length, uint64_t seed)
{
	for (size_t i = 0; i < length; i++)
		memory[i] = pattern(seed, i);
}

static inline bool is_filled(const uint8_t *memory, size_t length, uint64_t seed)
{
	for (size_t i = 0; i < length; i++)
		if (memory[i] != pattern(seed, i))
			return false;
	return true;
}

static inline bool is_zero(const uint8_t *memory, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (memory[i])
			return false;
	return true;
}

/* Runs a test with each means of keeping writers waiting that the kernel offers. */
static inline void with_each_guard(void (*run)(void))
{
	CHECK_OK(ffv_guard_begin(true));
	bool has_userfaultfd = ffv_guard_has_userfaultfd();
	if (has_userfaultfd)
		run();
	else
		puts("guard by userfaultfd: skipped, this kernel (before 6.4) or container does not offer it");
	ffv_guard_avoid_userfaultfd(true);
	run();
	ffv_guard_avoid_userfaultfd(false);
}

/* The way a peer sees this process. */
static inline struct ffv_windows *own_windows(void)
{
	struct ffv_windows *windows;
	int fd;

	CHECK_OK(ffv_mirror_fd(&fd));
	fd = dup(fd);
	CHECK(fd >= 0);
	CHECK_OK(ffv_windows_create(fd, &windows));
	return windows;
}

#endif

/* Every call that moving memory needs is made to fail, one after the other: registering must then change nothing,
 * deregistering lose nothing. The linker puts the functions below in place of the C library's (mmap and open bear these
 * names where file offsets have 64 bits). */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>

#include "mirror_support.h"

static long countdown; /* the call that brings it to 0 fails; negative: none does */
static int failure;    /* with this errno */

static bool fails_now(void)
{
	if (countdown <= 0 || --countdown)
		return false;
	errno = failure;
	return true;
}

long __wrap_syscall(long number, ...);
long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
	int count = number == SYS_mmap ? 6 : 5; /* as many as are passed in registers, or were given */
	long args[6] = { 0 };
	va_list list;

	va_start(list, number);
	for (int i = 0; i < count; i++)
		args[i] = va_arg(list, long);
	va_end(list);
	if (number != SYS_futex && fails_now())
		return -1;
	return __real_syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]);
}

void *__wrap_mmap64(void *addr, size_t length, int protection, int flags, int fd, off_t offset);
void *__real_mmap64(void *addr, size_t length, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *addr, size_t length, int protection, int flags, int fd, off_t offset)
{
	return fails_now() ? MAP_FAILED : __real_mmap64(addr, length, protection, flags, fd, offset);
}

int __wrap_open64(const char *path, int flags, ...);
int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...)
{
	return fails_now() ? -1 : __real_open64(path, flags);
}

int __wrap_ioctl(int fd, unsigned long request, void *argument);
int __real_ioctl(int fd, unsigned long request, void *argument);
int __wrap_ioctl(int fd, unsigned long request, void *argument)
{
	return fails_now() ? -1 : __real_ioctl(fd, request, argument);
}

void *__wrap_calloc(size_t count, size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size)
{
	return fails_now() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size)
{
	return fails_now() ? NULL : __real_realloc(old, size);
}

#define PAGES 700ul /* three pieces */

static uint8_t *new_buffer(uint64_t seed)
{
	uint8_t *memory = private_pages(PAGES);

	fill(memory, PAGES * PAGE, seed);
	madvise(memory + 300 * PAGE, 20 * PAGE, MADV_DONTNEED); /* so that there are several runs */
	memset(memory + 300 * PAGE, 0, 20 * PAGE);
	madvise(memory + 310 * PAGE, 5 * PAGE, MADV_DONTNEED);
	return memory;
}

static bool is_intact(const uint8_t *memory, uint64_t seed)
{
	for (size_t i = 0; i < PAGES; i++) {
		bool cleared = i >= 300 && i < 320;
		for (size_t k = i * PAGE; k < (i + 1) * PAGE; k++)
			if (memory[k] != (cleared ? 0 : pattern(seed, k)))
				return false;
	}
	return true;
}

static bool is_private(const uint8_t *memory)
{
	struct ffv_maps maps;
	bool shared = false;

	CHECK_OK(ffv_maps_read((struct ffv_range){ address_of(memory), address_of(memory) + PAGES * PAGE }, &maps));
	for (size_t i = 0; i < maps.count; i++)
		shared |= maps.list[i].shared || !maps.list[i].writable;
	ffv_maps_free(&maps);
	return !shared;
}

/* Whether registering met a failure; /proc/self/pagemap is one that it can do without. */
static bool pin_fails_cleanly(long nth, int error)
{
	uint8_t *memory = new_buffer((uint64_t)nth);
	struct ffv_range mirrored = { 3, 4 };
	long long before = mirror_bytes();

	countdown = nth;
	failure = error;
	int rc = ffv_mirror_pin(address_of(memory) + 5, PAGES * PAGE - 100, 1, &mirrored);
	bool reached = countdown == 0;
	countdown = -1;
	CHECK(is_intact(memory, (uint64_t)nth));
	if (rc) {
		CHECK(reached);
		CHECK(*ffv_error_text());
		CHECK_EQ(mirrored.first, 3);
		CHECK(is_private(memory));
		CHECK_EQ(mirror_bytes(), before);
		CHECK_OK(ffv_mirror_pin(address_of(memory) + 5, PAGES * PAGE - 100, 1, &mirrored));
	}
	CHECK_EQ(mirrored.end - mirrored.first, (PAGES - 2) * PAGE);
	memset(memory, 0x11, PAGES * PAGE);
	ffv_mirror_unpin(address_of(memory) + 5, PAGES * PAGE - 100);
	CHECK(is_private(memory));
	CHECK_EQ(memory[0] + memory[PAGES * PAGE - 1], 0x22);
	CHECK_EQ(mirror_bytes(), before);
	munmap(memory, PAGES * PAGE);
	return reached;
}

/* Deregistering cannot fail: what could not be made private stays usable, and is the next time. */
static bool unpin_loses_nothing(long nth, int error)
{
	uint8_t *memory = new_buffer((uint64_t)nth);
	struct ffv_range mirrored;
	long long before = mirror_bytes();

	CHECK_OK(ffv_mirror_pin(address_of(memory), PAGES * PAGE, 1, &mirrored));
	countdown = nth;
	failure = error;
	ffv_mirror_unpin(address_of(memory), PAGES * PAGE);
	bool reached = countdown == 0;
	countdown = -1;
	CHECK(is_intact(memory, (uint64_t)nth));
	memory[7] ^= 1;
	memory[PAGES * PAGE - 1] ^= 1;
	CHECK_OK(ffv_mirror_pin(address_of(memory), PAGES * PAGE, 1, &mirrored));
	CHECK_EQ(mirrored.end - mirrored.first, PAGES * PAGE);
	ffv_mirror_unpin(address_of(memory), PAGES * PAGE);
	memory[7] ^= 1;
	memory[PAGES * PAGE - 1] ^= 1;
	CHECK(is_intact(memory, (uint64_t)nth));
	CHECK(is_private(memory));
	CHECK_EQ(mirror_bytes(), before);
	munmap(memory, PAGES * PAGE);
	return reached;
}

static bool alloc_fails_cleanly(long nth, int error)
{
	long long before = mirror_bytes();
	void *memory = NULL;

	countdown = nth;
	failure = error;
	int rc = ffv_mirror_alloc(PAGES * PAGE, &memory);
	bool reached = countdown == 0;
	countdown = -1;
	CHECK(!!rc == reached && !rc == !!memory);
	if (rc)
		CHECK(*ffv_error_text());
	else
		ffv_mirror_free(memory, PAGES * PAGE);
	CHECK_EQ(mirror_bytes(), before);
	return reached;
}

static long fail_each(bool (*attempt)(long nth, int error), int error)
{
	long nth = 1;

	while (attempt(nth, error))
		nth++;
	return nth - 1;
}

static void fail_all(void)
{
#if defined(__SANITIZE_THREAD__) /* slow, and nothing here depends on threads */
	static const int errors[] = { ENOMEM };
#else
	static const int errors[] = { ENOMEM, ENOSPC, EMFILE };
#endif

	for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
		CHECK(fail_each(pin_fails_cleanly, errors[i]) > 10);
		CHECK(fail_each(unpin_loses_nothing, errors[i]) > 10);
		CHECK(fail_each(alloc_fails_cleanly, errors[i]) >= 2);
	}
}

int main(void)
{
	countdown = -1;
	with_each_guard(fail_all);
	return 0;
}

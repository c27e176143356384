/* Registering memory of every kind: what peers can map of it, that nobody's bytes change, and that afterwards all is as
 * before. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>

#include "mirror_support.h"

static struct ffv_windows *peer;

static bool peer_sees(const uint8_t *memory, size_t length)
{
	const uint8_t *there = ffv_windows_at(peer, address_of(memory));

	return there && !memcmp(there, memory, length);
}

static void test_allocated_memory(void)
{
	long long before = mirror_bytes();
	struct ffv_range mirrored;
	void *memory;

	CHECK_OK(ffv_mirror_alloc(3 * PAGE + 5, &memory));
	uint8_t *bytes = memory;
	CHECK_EQ(address_of(bytes) % PAGE, 0);
	CHECK(is_zero(bytes, 4 * PAGE));
	fill(bytes, 4 * PAGE, 1);
	CHECK_OK(ffv_mirror_pin(address_of(bytes) + 7, 3 * PAGE, 1, &mirrored));
	CHECK_EQ(mirrored.first, address_of(bytes) + 7);
	CHECK_EQ(mirrored.end, address_of(bytes) + 7 + 3 * PAGE);
	CHECK(peer_sees(bytes, 4 * PAGE));
	ffv_mirror_unpin(address_of(bytes) + 7, 3 * PAGE);
	CHECK(is_shared(bytes)); /* it stays the engine's own until it is freed */
	CHECK(is_filled(bytes, 4 * PAGE, 1));
	ffv_mirror_free(memory, 3 * PAGE + 5);
	CHECK_EQ(mirror_bytes(), before);
}

/* Freed while a registration holds two of its pages: those are kept for it, new memory at that place is zero. */
static void test_free_before_unpin(void)
{
	long long before = mirror_bytes();
	struct ffv_range mirrored;
	void *memory, *again;

	CHECK_OK(ffv_mirror_alloc(8 * PAGE, &memory));
	memset(memory, 0x5a, 8 * PAGE);
	CHECK_OK(ffv_mirror_pin(address_of(memory) + PAGE, 2 * PAGE, 1, &mirrored));
	ffv_mirror_free(memory, 8 * PAGE);
	CHECK_EQ(mirror_bytes(), before + 2 * (long long)PAGE);
	CHECK_OK(ffv_mirror_alloc(8 * PAGE, &again));
	CHECK(is_zero(again, 8 * PAGE));
	memset(again, 1, 8 * PAGE);
	ffv_mirror_unpin(address_of(memory) + PAGE, 2 * PAGE);
	CHECK_EQ(((uint8_t *)again)[PAGE], 1);
	ffv_mirror_free(again, 8 * PAGE);
	CHECK_EQ(mirror_bytes(), before);
}

/* Only the whole pages inside an unaligned buffer move; what shares its edge pages stays private. */
static void test_unaligned_buffer(void)
{
	long long before = mirror_bytes();
	uint8_t *memory = private_pages(6);
	struct ffv_range mirrored;

	fill(memory, 6 * PAGE, 2);
	uint64_t first = address_of(memory) + PAGE + 100, length = 3 * PAGE + 1000;
	CHECK_OK(ffv_mirror_pin(first, length, 1, &mirrored));
	CHECK_EQ(mirrored.first, address_of(memory) + 2 * PAGE);
	CHECK_EQ(mirrored.end, address_of(memory) + 4 * PAGE);
	CHECK(is_filled(memory, 6 * PAGE, 2));
	CHECK(!is_shared(memory + PAGE) && !is_shared(memory + 4 * PAGE));
	CHECK(is_shared(memory + 2 * PAGE) && is_shared(memory + 3 * PAGE));
	CHECK(peer_sees(memory + 2 * PAGE, 2 * PAGE));
	CHECK_EQ(mirror_bytes(), before + 2 * (long long)PAGE);
	*ffv_windows_at(peer, address_of(memory) + 3 * PAGE) ^= 0xff;
	CHECK_EQ(memory[3 * PAGE], pattern(2, 3 * PAGE) ^ 0xff);
	memory[2 * PAGE] ^= 0xff;
	CHECK(peer_sees(memory + 2 * PAGE, 2 * PAGE));
	memory[2 * PAGE] ^= 0xff;
	memory[3 * PAGE] ^= 0xff;
	ffv_mirror_unpin(first, length);
	CHECK(!is_shared(memory + 2 * PAGE) && !is_shared(memory + 3 * PAGE));
	CHECK(is_filled(memory, 6 * PAGE, 2));
	CHECK_EQ(mirror_bytes(), before);
	munmap(memory, 6 * PAGE);
}

static void test_small_buffers(void)
{
	uint8_t *memory = private_pages(2);
	struct ffv_range mirrored;

	fill(memory, 2 * PAGE, 3);
	CHECK_OK(ffv_mirror_pin(address_of(memory) + 10, 20, 1, &mirrored));
	CHECK_EQ(mirrored.first, mirrored.end);
	CHECK_OK(ffv_mirror_pin(address_of(memory) + 10, 0, 1, &mirrored));
	CHECK_EQ(mirrored.first, mirrored.end);
	CHECK(!is_shared(memory));
	/* Another registration moves the page; a third one that covers a part of it can then be mapped. */
	CHECK_OK(ffv_mirror_pin(address_of(memory), PAGE, 1, &mirrored));
	CHECK_OK(ffv_mirror_pin(address_of(memory) + 30, 40, 1, &mirrored));
	CHECK_EQ(mirrored.first, address_of(memory) + 30);
	CHECK_EQ(mirrored.end, address_of(memory) + 70);
	ffv_mirror_unpin(address_of(memory), PAGE);
	ffv_mirror_unpin(address_of(memory) + 10, 20);
	CHECK(is_shared(memory));
	ffv_mirror_unpin(address_of(memory) + 30, 40);
	CHECK(!is_shared(memory));
	CHECK(is_filled(memory, 2 * PAGE, 3));
	munmap(memory, 2 * PAGE);
}

/* Three overlapping registrations of one buffer, given back in all six orders. */
static void test_overlaps(void)
{
	static const struct { size_t first, length; } regions[3] = {
		{ 0, 10 * PAGE }, { 4 * PAGE + 1, 9 * PAGE }, { 8 * PAGE - 1, PAGE + 2 },
	};
	static const uint8_t orders[6][3] = {
		{ 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 }, { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 },
	};
	long long before = mirror_bytes();
	struct ffv_range mirrored;

	for (size_t order = 0; order < 6; order++) {
		uint8_t *memory = private_pages(16);
		fill(memory, 16 * PAGE, order);
		for (size_t i = 0; i < 3; i++) {
			CHECK_OK(ffv_mirror_pin(address_of(memory) + regions[i].first, regions[i].length, 1, &mirrored));
			CHECK(peer_sees((uint8_t *)(uintptr_t)mirrored.first, mirrored.end - mirrored.first));
		}
		for (size_t i = 0; i < 3; i++) {
			const size_t *region = (const size_t *)&regions[orders[order][i]];
			ffv_mirror_unpin(address_of(memory) + region[0], region[1]);
			CHECK(is_filled(memory, 16 * PAGE, order));
		}
		CHECK(!is_shared(memory) && !is_shared(memory + 8 * PAGE) && !is_shared(memory + 12 * PAGE));
		CHECK_EQ(mirror_bytes(), before);
		munmap(memory, 16 * PAGE);
	}
}

static void test_read_only(void)
{
	uint8_t *memory = private_pages(3);
	struct ffv_range mirrored;

	fill(memory, 3 * PAGE, 4);
	CHECK(!mprotect(memory, 3 * PAGE, PROT_READ));
	CHECK_EQ(ffv_mirror_pin(address_of(memory), 3 * PAGE, 1, &mirrored), -EACCES);
	CHECK_OK(ffv_mirror_pin(address_of(memory), 3 * PAGE, 0, &mirrored));
	CHECK_EQ(mirrored.first, mirrored.end);
	ffv_mirror_unpin(address_of(memory), 3 * PAGE);
	CHECK(!mprotect(memory, 3 * PAGE, PROT_NONE));
	CHECK_EQ(ffv_mirror_pin(address_of(memory), 3 * PAGE, 0, &mirrored), -EACCES);
	CHECK(!mprotect(memory, 3 * PAGE, PROT_READ));
	CHECK(is_filled(memory, 3 * PAGE, 4));
	munmap(memory, 3 * PAGE);
}

static void test_file_backed(int flags)
{
	char name[] = "/tmp/ffverbs-mirror-XXXXXX";
	int fd = mkstemp(name);
	struct ffv_range mirrored;

	CHECK(fd >= 0 && !unlink(name) && !ftruncate(fd, 4 * PAGE));
	uint8_t *memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
	CHECK(memory != MAP_FAILED);
	fill(memory, 4 * PAGE, 5);
	CHECK_OK(ffv_mirror_pin(address_of(memory), 4 * PAGE, 1, &mirrored));
	CHECK_EQ(mirrored.first, mirrored.end);
	CHECK(is_filled(memory, 4 * PAGE, 5));
	ffv_mirror_unpin(address_of(memory), 4 * PAGE);
	CHECK(is_filled(memory, 4 * PAGE, 5));
	munmap(memory, 4 * PAGE);
	close(fd);
}

/* Reserved huge pages stay where they are; the mirror has none. */
static void test_reserved_huge_pages(void)
{
	size_t length = 2 * MIB;
	uint8_t *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	struct ffv_range mirrored;

	if (memory == MAP_FAILED) {
		puts("reserved huge pages: skipped, vm.nr_hugepages provides none");
		return;
	}
	fill(memory, length, 13);
	CHECK_OK(ffv_mirror_pin(address_of(memory), length, 1, &mirrored));
	CHECK_EQ(mirrored.first, mirrored.end);
	CHECK_OK(ffv_mirror_pin(address_of(memory) + 5, PAGE, 1, &mirrored));
	ffv_mirror_unpin(address_of(memory) + 5, PAGE);
	ffv_mirror_unpin(address_of(memory), length);
	CHECK(is_filled(memory, length, 13));
	munmap(memory, length);
}

/* Transparent ones are ordinary memory, of which a registration may cover any part. */
static void test_transparent_huge_pages(void)
{
	uint8_t *memory = private_pages(8 * MIB / PAGE);
	struct ffv_range mirrored;
	long long before = mirror_bytes();

	CHECK(!madvise(memory, 8 * MIB, MADV_HUGEPAGE) || errno == EINVAL);
	fill(memory, 8 * MIB, 14);
	for (size_t first = 100; first < 6 * MIB; first += MIB + 3 * PAGE) {
		CHECK_OK(ffv_mirror_pin(address_of(memory) + first, 2 * MIB, 1, &mirrored));
		CHECK(mirrored.end - mirrored.first == 2 * MIB - PAGE);
		CHECK(peer_sees((uint8_t *)(uintptr_t)mirrored.first, mirrored.end - mirrored.first));
		CHECK(is_filled(memory, 8 * MIB, 14));
		ffv_mirror_unpin(address_of(memory) + first, 2 * MIB);
	}
	CHECK(is_filled(memory, 8 * MIB, 14));
	CHECK_EQ(mirror_bytes(), before);
	munmap(memory, 8 * MIB);
}

/* One buffer over a movable, a read-only, and a longer movable part: the longest stretch is what peers map. */
static void test_mixed_mappings(void)
{
	uint8_t *memory = private_pages(16);
	struct ffv_range mirrored;

	fill(memory, 16 * PAGE, 6);
	CHECK(!mprotect(memory + 5 * PAGE, PAGE, PROT_READ));
	CHECK_OK(ffv_mirror_pin(address_of(memory), 16 * PAGE, 0, &mirrored));
	CHECK_EQ(mirrored.first, address_of(memory) + 6 * PAGE);
	CHECK_EQ(mirrored.end, address_of(memory) + 16 * PAGE);
	CHECK(is_shared(memory) && !is_shared(memory + 5 * PAGE));
	ffv_mirror_unpin(address_of(memory), 16 * PAGE);
	CHECK(is_filled(memory, 16 * PAGE, 6));
	munmap(memory, 16 * PAGE);
}

static void test_unmapped(void)
{
	uint8_t *memory = private_pages(5);
	struct ffv_range mirrored = { 1, 2 };
	long long before = mirror_bytes();

	fill(memory, 5 * PAGE, 7);
	munmap(memory + 3 * PAGE, PAGE);
	CHECK_EQ(ffv_mirror_pin(address_of(memory), 5 * PAGE, 1, &mirrored), -EFAULT);
	CHECK_EQ(ffv_mirror_pin(address_of(memory) + 3 * PAGE, 1, 0, &mirrored), -EFAULT);
	CHECK_EQ(ffv_mirror_pin(UINT64_MAX - 10, 100, 0, &mirrored), -EFAULT);
	CHECK_EQ(ffv_mirror_pin(PAGE, UINT64_MAX, 0, &mirrored), -EFAULT);
	CHECK_EQ(ffv_mirror_pin(0, 1, 0, &mirrored), -EFAULT);
	CHECK_EQ(mirrored.first, 1); /* outputs only on success */
	CHECK(!is_shared(memory) && is_filled(memory, 3 * PAGE, 7));
	CHECK_EQ(mirror_bytes(), before);
	munmap(memory, 3 * PAGE);
	munmap(memory + 4 * PAGE, PAGE);
}

/* Memory that vanished under its registration: nothing is mapped in its place, the hole is punched. */
static void test_unmapped_while_pinned(void)
{
	uint8_t *memory = private_pages(8);
	struct ffv_range mirrored;
	long long before = mirror_bytes();

	fill(memory, 8 * PAGE, 8);
	CHECK_OK(ffv_mirror_pin(address_of(memory), 8 * PAGE, 1, &mirrored));
	munmap(memory + 2 * PAGE, 3 * PAGE);
	ffv_mirror_unpin(address_of(memory), 8 * PAGE);
	CHECK_EQ(mirror_bytes(), before);
	CHECK(is_filled(memory, 2 * PAGE, 8));
	CHECK(!is_shared(memory + 5 * PAGE) && memory[5 * PAGE] == pattern(8, 5 * PAGE));
	CHECK(mincore(memory + 2 * PAGE, PAGE, &(unsigned char){ 0 }) < 0 && errno == ENOMEM);
	munmap(memory, 8 * PAGE);
}

/* New memory at a place that is still registered: registering moves the new content, the old is gone. */
static void test_replaced_while_pinned(void)
{
	uint8_t *memory = private_pages(8);
	struct ffv_range mirrored;
	long long before = mirror_bytes();

	fill(memory, 8 * PAGE, 9);
	CHECK_OK(ffv_mirror_pin(address_of(memory), 8 * PAGE, 1, &mirrored));
	CHECK(mmap(memory, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == memory);
	memory[PAGE] = 77;
	CHECK_OK(ffv_mirror_pin(address_of(memory), 8 * PAGE, 1, &mirrored));
	CHECK_EQ(mirrored.end - mirrored.first, 8 * PAGE);
	CHECK_EQ(memory[PAGE], 77);
	CHECK(is_zero(memory + 2 * PAGE, 6 * PAGE));
	CHECK(peer_sees(memory, 8 * PAGE));
	ffv_mirror_unpin(address_of(memory), 8 * PAGE);
	CHECK(is_shared(memory));
	CHECK(mmap(memory, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == memory);
	ffv_mirror_unpin(address_of(memory), 8 * PAGE);
	CHECK(!is_shared(memory) && !is_shared(memory + PAGE) && memory[PAGE] == 77);
	CHECK_EQ(mirror_bytes(), before);
	munmap(memory, 8 * PAGE);
}

/* Allocators give pages back and expect zeros; that holds again once the memory is private. */
static void test_dontneed_after_unpin(void)
{
	uint8_t *memory = private_pages(4);
	struct ffv_range mirrored;

	fill(memory, 4 * PAGE, 10);
	CHECK_OK(ffv_mirror_pin(address_of(memory), 4 * PAGE, 1, &mirrored));
	ffv_mirror_unpin(address_of(memory), 4 * PAGE);
	CHECK(is_filled(memory, 4 * PAGE, 10));
	CHECK(!madvise(memory, 4 * PAGE, MADV_DONTNEED));
	CHECK(is_zero(memory, 4 * PAGE));
	munmap(memory, 4 * PAGE);
}

/* The heap in use: registered, freed, allocated again, grown and shrunk, with neighbours between. */
static void test_malloc(void)
{
	enum { BLOCKS = 24 };
	uint8_t *blocks[BLOCKS];
	struct ffv_range mirrored;
	long long before = mirror_bytes();

	for (size_t round = 0; round < 20; round++) {
		size_t length = 30000 + 1777 * round;
		for (size_t i = 0; i < BLOCKS; i++) {
			CHECK((blocks[i] = malloc(length)));
			fill(blocks[i], length, i);
		}
		for (size_t i = 0; i < BLOCKS; i += 2)
			CHECK_OK(ffv_mirror_pin(address_of(blocks[i]), length, 1, &mirrored));
		for (size_t i = 0; i < BLOCKS; i++)
			CHECK(is_filled(blocks[i], length, i));
		for (size_t i = 0; i < BLOCKS; i += 2) {
			ffv_mirror_unpin(address_of(blocks[i]), length);
			CHECK(is_filled(blocks[i], length, i));
			CHECK((blocks[i] = realloc(blocks[i], length * 3)));
			CHECK(is_filled(blocks[i], length, i));
		}
		for (size_t i = 0; i < BLOCKS; i++)
			free(blocks[i]);
		malloc_trim(0);
		CHECK_EQ(mirror_bytes(), before);
	}
}

static uint8_t in_bss[6 * PAGE];

static void test_static_memory(void)
{
	struct ffv_range mirrored;

	fill(in_bss, sizeof in_bss, 11);
	CHECK_OK(ffv_mirror_pin(address_of(in_bss), sizeof in_bss, 1, &mirrored));
	CHECK(is_filled(in_bss, sizeof in_bss, 11));
	CHECK(peer_sees((uint8_t *)(uintptr_t)mirrored.first, mirrored.end - mirrored.first));
	ffv_mirror_unpin(address_of(in_bss), sizeof in_bss);
	CHECK(is_filled(in_bss, sizeof in_bss, 11));
}

static void test_stack(void)
{
	uint8_t local[4 * PAGE];
	struct ffv_range mirrored;

	fill(local, sizeof local, 12);
	CHECK_OK(ffv_mirror_pin(address_of(local), sizeof local, 1, &mirrored));
	CHECK(is_filled(local, sizeof local, 12));
	ffv_mirror_unpin(address_of(local), sizeof local);
	CHECK(is_filled(local, sizeof local, 12));
}

/* 5 GiB of which three pages are in use take three pages. */
static void test_sparse_giant(void)
{
	size_t length = 5ull << 30;
	uint8_t *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	static const size_t touched[3] = { 12345, (4ull << 30) + 77, (5ull << 30) - 1 };
	struct ffv_range mirrored;
	long long before = mirror_bytes();

	CHECK(memory != MAP_FAILED);
	for (size_t i = 0; i < 3; i++)
		memory[touched[i]] = (uint8_t)(i + 1);
	CHECK_OK(ffv_mirror_pin(address_of(memory), length, 1, &mirrored));
	CHECK_EQ(mirrored.end - mirrored.first, length);
	CHECK(mirror_bytes() - before <= 3 * (2ll << 20)); /* three pages, if huge then huge ones */
	for (size_t i = 0; i < 3; i++)
		CHECK_EQ(*ffv_windows_at(peer, address_of(memory) + touched[i]), i + 1);
	*ffv_windows_at(peer, address_of(memory) + (3ull << 30)) = 9;
	CHECK_EQ(memory[3ull << 30], 9);
	ffv_mirror_unpin(address_of(memory), length);
	CHECK_EQ(memory[3ull << 30], 9);
	for (size_t i = 0; i < 3; i++)
		CHECK_EQ(memory[touched[i]], i + 1);
	CHECK(!is_shared(memory));
	CHECK_EQ(mirror_bytes(), before);
	munmap(memory, length);
}

static void test_too_many_references(void)
{
	long long before = mirror_bytes();
	struct ffv_range mirrored;
	int rc = 0, held = 0;
	void *memory;

	CHECK_OK(ffv_mirror_alloc(3 * PAGE, &memory));
	uint64_t middle = address_of(memory) + PAGE;
	while (!(rc = ffv_mirror_pin(middle + held % 7, 1, 1, &mirrored)))
		held++;
	CHECK_EQ(rc, -ENOMEM);
	CHECK(held > 30000);
	CHECK(strstr(ffv_error_text(), "memory regions already"));
	CHECK_EQ(ffv_mirror_pin(address_of(memory), 3 * PAGE, 1, &mirrored), -ENOMEM);
	while (held--)
		ffv_mirror_unpin(middle + held % 7, 1);
	memset(memory, 1, 3 * PAGE);
	ffv_mirror_free(memory, 3 * PAGE);
	CHECK_EQ(mirror_bytes(), before); /* the refused ones have left no reference behind */
}

static void test_all(void)
{
	test_allocated_memory();
	test_free_before_unpin();
	test_unaligned_buffer();
	test_small_buffers();
	test_overlaps();
	test_read_only();
	test_file_backed(MAP_PRIVATE);
	test_file_backed(MAP_SHARED);
	test_reserved_huge_pages();
	test_transparent_huge_pages();
	test_mixed_mappings();
	test_unmapped();
	test_unmapped_while_pinned();
	test_replaced_while_pinned();
	test_dontneed_after_unpin();
	test_malloc();
	test_static_memory();
	test_stack();
	test_sparse_giant();
	test_too_many_references();
}

int main(void)
{
	peer = own_windows();
	with_each_guard(test_all);
	ffv_windows_destroy(peer);
	return 0;
}

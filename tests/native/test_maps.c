/* What is mapped where: both ways of asking the kernel say the same, and tell ordinary memory from all other. */
#include <errno.h>
#include <sys/prctl.h>

#include "apart.h"
#include "mirror_support.h"
#include "shm/pages.h"

static bool asked_all; /* false once a kernel does not answer queries */

static struct ffv_maps read_as(enum ffv_maps_source source, struct ffv_range range)
{
	struct ffv_maps maps = { 0 };
	int rc = ffv_maps_read_with(source, range, &maps);

	if (source == FFV_MAPS_QUERY && rc == -ENOTTY)
		asked_all = false;
	else
		CHECK_OK(rc);
	return maps;
}

static bool same(const struct ffv_mapping *a, const struct ffv_mapping *b)
{
	return a->range.first == b->range.first && a->range.end == b->range.end && a->inode == b->inode &&
		(a->offset == b->offset || !a->inode) && a->dev_major == b->dev_major && a->dev_minor == b->dev_minor &&
		a->readable == b->readable && a->writable == b->writable && a->executable == b->executable &&
		a->shared == b->shared && a->anonymous == b->anonymous;
}

static void test_both_ways_agree(struct ffv_range range)
{
	/* Reading takes memory itself: once before, so that the second time nothing is mapped for it. */
	struct ffv_maps text = read_as(FFV_MAPS_TEXT, range), query = read_as(FFV_MAPS_QUERY, range);
	ffv_maps_free(&text);
	ffv_maps_free(&query);
	text = read_as(FFV_MAPS_TEXT, range);
	query = read_as(FFV_MAPS_QUERY, range);
	CHECK(text.count > 0);
	if (asked_all) {
		CHECK_EQ(query.count, text.count);
		for (size_t i = 0; i < text.count; i++)
			CHECK(same(&query.list[i], &text.list[i]));
	}
	ffv_maps_free(&text);
	ffv_maps_free(&query);
}

/* Ten pages: ordinary, named, read-only, gap, shared, executable, then three of a file from its second page, gap. */
static uint8_t *build(void)
{
	uint8_t *memory = map_apart(10 * PAGE);
	int fd = memfd_create("test", MFD_CLOEXEC);

	CHECK(fd >= 0 && !ftruncate(fd, 4 * PAGE));
	prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, memory + PAGE, PAGE, "a name"); /* kernels without it: no name */
	CHECK(!mprotect(memory + 2 * PAGE, PAGE, PROT_READ));
	CHECK(!munmap(memory + 3 * PAGE, PAGE));
	CHECK(mmap(memory + 4 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
		MAP_FAILED);
	CHECK(!mprotect(memory + 5 * PAGE, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC));
	CHECK(mmap(memory + 6 * PAGE, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, PAGE) != MAP_FAILED);
	CHECK(!munmap(memory + 9 * PAGE, PAGE));
	close(fd);
	return memory;
}

static const struct ffv_mapping *mapping_of(const struct ffv_maps *maps, const uint8_t *page)
{
	for (size_t i = 0; i < maps->count; i++)
		if (maps->list[i].range.first <= address_of(page) && address_of(page) < maps->list[i].range.end)
			return &maps->list[i];
	return NULL;
}

static void test_kinds(enum ffv_maps_source source)
{
	uint8_t *memory = build();
	struct ffv_maps maps = read_as(source, (struct ffv_range){ address_of(memory), address_of(memory) + 8 * PAGE });

	if (source == FFV_MAPS_QUERY && !asked_all)
		return;
	CHECK(mapping_of(&maps, memory)->anonymous);
	CHECK(mapping_of(&maps, memory + PAGE)->anonymous);
	CHECK(mapping_of(&maps, memory + 2 * PAGE)->anonymous && !mapping_of(&maps, memory + 2 * PAGE)->writable);
	CHECK(!mapping_of(&maps, memory + 3 * PAGE));
	CHECK(!mapping_of(&maps, memory + 4 * PAGE)->anonymous && mapping_of(&maps, memory + 4 * PAGE)->shared);
	CHECK(mapping_of(&maps, memory + 5 * PAGE)->executable);
	const struct ffv_mapping *file = mapping_of(&maps, memory + 7 * PAGE);
	CHECK(!file->anonymous && !file->shared && file->inode && file->offset == PAGE);
	CHECK_EQ(file->range.end, address_of(memory) + 8 * PAGE); /* clipped */
	ffv_maps_free(&maps);
	maps = read_as(source, (struct ffv_range){ address_of(memory) + 7 * PAGE, address_of(memory) + 10 * PAGE });
	CHECK_EQ(maps.count, 1);
	CHECK_EQ(maps.list[0].offset, 2 * PAGE); /* of the clipped first page */
	ffv_maps_free(&maps);
	maps = read_as(source, (struct ffv_range){ address_of(memory) + 3 * PAGE, address_of(memory) + 4 * PAGE });
	CHECK_EQ(maps.count, 0);
	ffv_maps_free(&maps);
	munmap(memory, 10 * PAGE);
}

static void test_stack_is_not_ordinary(enum ffv_maps_source source)
{
	uint64_t page = address_of(__builtin_frame_address(0)) & ~(PAGE - 1); /* a sanitizer has locals elsewhere */
	struct ffv_maps maps = read_as(source, (struct ffv_range){ page, page + PAGE });

	for (size_t i = 0; i < maps.count; i++)
		CHECK(!maps.list[i].anonymous);
	ffv_maps_free(&maps);
}

/* More mappings than one read of the list brings, and more than the first rooms of the list hold. */
static void test_many(enum ffv_maps_source source)
{
	enum { COUNT = 2001 };
	uint8_t *memory = private_pages(COUNT);

	for (size_t i = 1; i < COUNT; i += 2)
		CHECK(!mprotect(memory + i * PAGE, PAGE, PROT_READ));
	struct ffv_range range = { address_of(memory), address_of(memory) + COUNT * PAGE };
	struct ffv_maps maps = read_as(source, range);
	if (source == FFV_MAPS_TEXT || asked_all) {
		CHECK_EQ(maps.count, COUNT);
		for (size_t i = 0; i < COUNT; i++)
			CHECK(maps.list[i].range.first == range.first + i * PAGE && maps.list[i].writable == !(i & 1));
	}
	ffv_maps_free(&maps);
	munmap(memory, COUNT * PAGE);
}

int main(void)
{
	static const enum ffv_maps_source sources[] = { FFV_MAPS_TEXT, FFV_MAPS_QUERY };

	asked_all = true;
	test_both_ways_agree((struct ffv_range){ 0, FFV_ADDRESS_END });
	for (size_t i = 0; i < 2; i++) {
		test_kinds(sources[i]);
		test_stack_is_not_ordinary(sources[i]);
		test_many(sources[i]);
	}
	if (!asked_all)
		puts("queries: skipped, this kernel (before 6.11) does not answer them");
	return 0;
}

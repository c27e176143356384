/* Moving bytes between lists: mirrored, unmirrored and mixed pieces, window borders, odd sizes; the last word last. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "shm/mirror.h"
#include "world.h"

#define PAGE 4096u
#define BUFFER_BYTES (8u * PAGE)

enum reach { NEAR, WINDOWS_AND_VM, WINDOWS_ONLY, VM_ONLY, NOTHING, NUM_REACHES };

/* A buffer of which pages 2..5 are mirrored, seen in all the ways there are. */
struct buffer {
	uint8_t *memory;
	struct ffv_range mirrored;
	struct ffv_view views[NUM_REACHES];
};

static struct ffv_windows *windows;
static unsigned seed;

static void *map_at(void *hint)
{
	return mmap(hint, BUFFER_BYTES, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | (hint ? MAP_FIXED_NOREPLACE : 0), -1, 0);
}

/* Across the border of two windows, in the middle of its mirrored pages; somewhere, as sanitizers occupy much. */
static void *map_across_windows(void)
{
	void *memory = MAP_FAILED;

	for (uint64_t window = 1; window < FFV_WINDOW_COUNT && memory == MAP_FAILED; window++)
		memory = map_at((void *)(uintptr_t)(window * FFV_WINDOW_BYTES - 4 * PAGE));
	return memory;
}

static void buffer_at(struct buffer *buffer, void *memory)
{
	memset(buffer, 0, sizeof *buffer);
	CHECK(memory != MAP_FAILED);
	buffer->memory = memory;
	uint64_t first = (uintptr_t)buffer->memory + 2 * PAGE;
	CHECK_EQ(ffv_mirror_pin(first, 4 * PAGE, 1, &buffer->mirrored), 0);
	CHECK_EQ(buffer->mirrored.first, first);
	CHECK_EQ(buffer->mirrored.end, first + 4 * PAGE);
	buffer->views[NEAR].direct = true;
	buffer->views[WINDOWS_AND_VM].windows = buffer->views[WINDOWS_ONLY].windows = windows;
	buffer->views[WINDOWS_AND_VM].pid = buffer->views[VM_ONLY].pid = getpid();
}

static void buffer_free(struct buffer *buffer)
{
	ffv_mirror_unpin(buffer->mirrored.first, 4 * PAGE);
	CHECK_EQ(munmap(buffer->memory, BUFFER_BYTES), 0);
}

static void list_add(struct ffv_list *list, const struct buffer *buffer, uint32_t offset, uint32_t length)
{
	list->segment[list->num_segments++] = (struct ffv_segment){
		.va = (uintptr_t)buffer->memory + offset, .mirror_first = buffer->mirrored.first,
		.mirror_end = buffer->mirrored.end, .length_bytes = length,
	};
	list->length_bytes += length;
}

/* Segments of odd sizes that do not overlap, in ascending order. */
static void random_list(struct ffv_list *list, const struct buffer *buffer, unsigned *state, uint32_t total)
{
	uint32_t at = (uint32_t)rand_r(state) % 61;

	while (total) {
		uint32_t n = rand_r(state) % 4 ? (uint32_t)rand_r(state) % 301 + 1 : (uint32_t)rand_r(state) % 6000 + 1;
		if (n > total || list->num_segments == FFV_MAX_SGE - 1)
			n = total;
		list_add(list, buffer, at, n);
		at += n + (uint32_t)rand_r(state) % 97;
		total -= n;
	}
	CHECK(at < BUFFER_BYTES + 97);
}

static uint8_t *byte_of(const struct ffv_list *list, uint64_t offset)
{
	for (uint32_t i = 0; i < list->num_segments; i++) {
		if (offset < list->segment[i].length_bytes)
			return (uint8_t *)(uintptr_t)(list->segment[i].va + offset);
		offset -= list->segment[i].length_bytes;
	}
	return NULL;
}

/* True if every byte of the list is mirrored. */
static bool is_all_mirrored(const struct ffv_list *list, uint64_t offset, uint64_t length)
{
	for (uint64_t i = offset; i < offset + length; i++) {
		uint64_t va = (uintptr_t)byte_of(list, i);
		if (va < list->segment[0].mirror_first || va >= list->segment[0].mirror_end)
			return false;
	}
	return true;
}

static bool should_reach(const struct ffv_list *list, enum reach reach, uint64_t offset, uint64_t length)
{
	return reach == NEAR || reach == WINDOWS_AND_VM || reach == VM_ONLY ||
	       (reach == WINDOWS_ONLY && is_all_mirrored(list, offset, length));
}

static void fill(struct buffer *buffer, unsigned *state)
{
	for (uint32_t i = 0; i < BUFFER_BYTES; i += 4)
		*(uint32_t *)(void *)(buffer->memory + i) = (uint32_t)rand_r(state) * 3u + i;
}

static void copy_once(struct buffer *to, struct buffer *from, enum reach dst_reach, enum reach src_reach, unsigned *state)
{
	static uint8_t before[BUFFER_BYTES], copied[BUFFER_BYTES];
	struct ffv_list dst = { .view = &to->views[dst_reach] }, src = { .view = &from->views[src_reach] };
	uint32_t total = (uint32_t)rand_r(state) % (BUFFER_BYTES / 2) + 1;
	uint32_t dst_offset = (uint32_t)rand_r(state) % 3 ? 0 : (uint32_t)rand_r(state) % total;
	uint32_t src_offset = (uint32_t)rand_r(state) % 3 ? 0 : (uint32_t)rand_r(state) % total;
	uint32_t length = total - (dst_offset > src_offset ? dst_offset : src_offset);

	random_list(&dst, to, state, total);
	random_list(&src, from, state, total);
	memcpy(before, to->memory, BUFFER_BYTES);
	bool reaches = should_reach(&dst, dst_reach, dst_offset, length) &&
		       should_reach(&src, src_reach, src_offset, length);
	CHECK_EQ(ffv_copy_lists(&dst, dst_offset, &src, src_offset, length),
		 reaches ? FFV_COPY_DONE : FFV_COPY_UNREACHABLE);
	if (reaches) { /* what should be there, byte by byte; the rest untouched */
		for (uint64_t i = 0; i < length; i++)
			copied[i] = *byte_of(&src, src_offset + i);
		for (uint64_t i = 0; i < length; i++)
			before[byte_of(&dst, dst_offset + i) - to->memory] = copied[i];
	}
	CHECK_EQ(memcmp(before, to->memory, BUFFER_BYTES), 0);
}

static void test_all_pairs_of_ways(struct buffer *a, struct buffer *b, unsigned rounds)
{
	unsigned state = seed;

	fill(a, &state);
	fill(b, &state);
	for (unsigned i = 0; i < rounds; i++)
		for (enum reach dst = NEAR; dst < NUM_REACHES; dst++)
			for (enum reach src = NEAR; src < NUM_REACHES; src++)
				copy_once(i % 2 ? a : b, i % 2 ? b : a, dst, src, &state);
}

static void test_no_pieces(void)
{
	struct ffv_list nothing = { .view = NULL }, none = { .view = NULL };

	CHECK_EQ(ffv_copy_lists(&nothing, 0, &none, 0, 0), FFV_COPY_DONE);
	CHECK(ffv_list_is_reachable(&nothing, 0, 0));
}

static void test_segment_address(struct buffer *buffer)
{
	struct ffv_list list = { .view = NULL };
	struct ffv_view *far = &buffer->views[WINDOWS_AND_VM];

	list_add(&list, buffer, 0, BUFFER_BYTES);
	struct ffv_segment *segment = &list.segment[0];
	CHECK(ffv_segment_address(&buffer->views[NEAR], segment, 5, 100) == buffer->memory + 5);
	CHECK(!ffv_segment_address(far, segment, 5, 100));                       /* not mirrored */
	CHECK(!ffv_segment_address(far, segment, 2 * PAGE - 1, 2));              /* begins outside */
	CHECK(!ffv_segment_address(far, segment, 6 * PAGE - 1, 2));              /* ends outside */
	CHECK(!ffv_segment_address(&buffer->views[VM_ONLY], segment, 2 * PAGE, 8));
	uint8_t *there = ffv_segment_address(far, segment, 2 * PAGE, 4 * PAGE);
	if ((((uintptr_t)buffer->memory + 2 * PAGE) & ~(FFV_WINDOW_BYTES - 1)) ==
	    (((uintptr_t)buffer->memory + 6 * PAGE - 1) & ~(FFV_WINDOW_BYTES - 1))) {
		CHECK(there && there != buffer->memory + 2 * PAGE);
		there[3] ^= 0x55;
		CHECK_EQ(there[3], buffer->memory[2 * PAGE + 3]); /* the same page */
	} else {
		CHECK(!there);                                    /* two windows: no one piece */
	}
}

/* Memory that went away: which side it was is told. */
static void test_fault_names_the_side(struct buffer *buffer)
{
	uint8_t *hole = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct ffv_list gone = { .view = &buffer->views[VM_ONLY], .num_segments = 1, .length_bytes = 16 };
	struct ffv_list here = { .view = &buffer->views[NEAR] };

	CHECK(hole != MAP_FAILED);
	gone.segment[0] = (struct ffv_segment){ .va = (uintptr_t)hole, .length_bytes = 16 };
	list_add(&here, buffer, 0, 16);
	CHECK_EQ(ffv_copy_lists(&here, 0, &gone, 0, 16), FFV_COPY_FAULT_SRC);
	CHECK_EQ(ffv_copy_lists(&gone, 0, &here, 0, 16), FFV_COPY_FAULT_DST);
	CHECK_EQ(munmap(hole, PAGE), 0);
}

static void test_denied_is_remembered(struct buffer *buffer)
{
	struct ffv_view view = { .pid = 0 };
	struct ffv_list there = { .view = &view }, here = { .view = &buffer->views[NEAR] };

	list_add(&there, buffer, 0, 16);
	list_add(&here, buffer, 64, 16);
	CHECK_EQ(ffv_copy_lists(&here, 0, &there, 0, 16), FFV_COPY_UNREACHABLE); /* invisible */
	view.pid = getpid();
	ffv_store_relaxed(&view.vm_state, FFV_VM_DENIED);
	CHECK_EQ(ffv_copy_lists(&here, 0, &there, 0, 16), FFV_COPY_UNREACHABLE);
	ffv_store_relaxed(&view.vm_state, FFV_VM_UNKNOWN);
	CHECK_EQ(ffv_copy_lists(&here, 0, &there, 0, 16), FFV_COPY_DONE);
	CHECK_EQ(ffv_load_relaxed(&view.vm_state), FFV_VM_WORKS);
}

/* ---- the last word last ------------------------------------------------------------------------------------------------ */

#define LAST_ROUNDS 3000u

struct watched { uint8_t *to; uint32_t length; _Atomic uint32_t round; };

static void wait_a_little(unsigned *spins)
{
	if (++*spins % 64)
		ffv_cpu_relax();
	else
		sched_yield();
}

/* Sees the last byte (or word) change, then finds everything before it changed. */
static void *watch(void *arg)
{
	struct watched *watched = arg;
	_Atomic uint8_t *last = (_Atomic uint8_t *)(watched->to + watched->length - 1);
	_Atomic uint64_t *word = (_Atomic uint64_t *)(void *)(watched->to + watched->length - 8);
	unsigned spins = 0;
	bool whole = watched->length >= 8 && ((uintptr_t)word & 7) == 0;

	for (uint32_t round = 1; round <= LAST_ROUNDS; round++) {
		uint8_t value = (uint8_t)round;
		while (whole ? ffv_load_acquire(word) != value * 0x0101010101010101ull : ffv_load_acquire(last) != value)
			wait_a_little(&spins);
		for (uint32_t i = 0; i + 1 < watched->length; i++)
			CHECK_EQ(watched->to[i], value);
		ffv_store_release(&watched->round, round);
	}
	return NULL;
}

static void test_last_word_is_last(uint32_t misalign, uint32_t length)
{
	static _Alignas(64) uint8_t to[1024], from[1024];
	struct watched watched = { .to = to + misalign, .length = length };
	pthread_t thread;
	unsigned spins = 0;

	memset(to, 0, sizeof to);
	CHECK_EQ(pthread_create(&thread, NULL, watch, &watched), 0);
	for (uint32_t round = 1; round <= LAST_ROUNDS; round++) {
		memset(from, (uint8_t)round, length);
		ffv_copy_bytes(watched.to, from, length);
		while (ffv_load_acquire(&watched.round) != round)
			wait_a_little(&spins);
	}
	CHECK_EQ(pthread_join(thread, NULL), 0);
}

int main(void)
{
	const char *given = getenv("FFVERBS_TEST_SEED");
	struct buffer a, b;
	int fd;

	seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL);
	printf("FFVERBS_TEST_SEED=%u\n", seed);
	fflush(stdout);
	CHECK_EQ(ffv_mirror_fd(&fd), 0);
	CHECK_EQ(ffv_windows_create(dup(fd), &windows), 0);
	buffer_at(&a, map_at(NULL));
	buffer_at(&b, map_across_windows());
	test_all_pairs_of_ways(&a, &b, 60);
	test_no_pieces();
	test_segment_address(&a);
	test_segment_address(&b);
	test_fault_names_the_side(&a);
	test_denied_is_remembered(&a);
	buffer_free(&a);
	buffer_free(&b);
	ffv_windows_destroy(windows);
	test_last_word_is_last(0, 64);
	test_last_word_is_last(3, 13);
	test_last_word_is_last(8, 200);
	test_last_word_is_last(1, 7);
	test_last_word_is_last(0, 1);
	return 0;
}

/* The ring of a sender that everybody reads: order, wrapping, being lapped, a writer and readers at once, nonsense. */
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "engine/outbox.h"
#include "world.h"


static struct party sender;
static struct ffv_outbox_shm *outbox;

static void make_outbox(void)
{
	party_create(&sender, 3);
	uint32_t line = party_lines(&sender, sizeof *outbox);
	CHECK(!ffv_outbox_of(&sender.far));
	ffv_store_release(&sender.arena->outbox_line, line);
	outbox = ffv_outbox_of(&sender.far);
	CHECK(outbox && outbox == party_at(&sender, line));
}

/* A frame's bytes depend on its number and place, so that a mixture of two is seen. */
static uint32_t length_of(uint32_t number)
{
	return number % 7 == 0 ? FFV_FRAME_MAX_BYTES : number * 2654435761u % 700u;
}

static uint8_t byte_of(uint32_t number, uint32_t place)
{
	return (uint8_t)(number * 31 + place * 7 + (place >> 8));
}

static void write_frame(uint64_t *position, uint32_t number)
{
	struct ffv_frame_shm frame = { .length_bytes = length_of(number), .kind = FFV_FRAME_RAW, .imm_be = number,
				       .pad = ~(uint64_t)number };
	uint8_t bytes[FFV_FRAME_MAX_BYTES];

	for (uint32_t i = 0; i < frame.length_bytes; i++)
		bytes[i] = byte_of(number, i);
	ffv_outbox_write(outbox, position, &frame, bytes);
}

static uint32_t check_frame(const struct ffv_frame_shm *frame, const uint8_t *bytes)
{
	uint32_t number = frame->imm_be;

	CHECK_EQ(frame->length_bytes, length_of(number));
	CHECK_EQ(frame->pad, ~(uint64_t)number);
	for (uint32_t i = 0; i < frame->length_bytes; i++)
		CHECK_EQ(bytes[i], byte_of(number, i));
	return number;
}

static void frames_come_in_order(uint64_t *position)
{
	uint64_t cursor = ffv_outbox_end(outbox);
	uint8_t bytes[FFV_FRAME_MAX_BYTES];
	struct ffv_frame_shm frame;

	for (uint32_t n = 0; n < 5000; n++) { /* several times around */
		write_frame(position, n);
		if (n % 3 == 2)
			continue;
		while (ffv_outbox_read(outbox, &cursor, &frame, bytes) == FFV_OUTBOX_FRAME)
			CHECK(check_frame(&frame, bytes) <= n);
		CHECK_EQ(frame.imm_be, n);
	}
}

static void who_is_too_slow_is_told(uint64_t *position)
{
	uint64_t cursor = ffv_outbox_end(outbox), behind = cursor;
	uint8_t bytes[FFV_FRAME_MAX_BYTES];
	struct ffv_frame_shm frame;

	for (uint32_t n = 0; *position - behind <= FFV_OUTBOX_BYTES; n++)
		write_frame(position, n);
	CHECK_EQ(ffv_outbox_read(outbox, &cursor, &frame, bytes), FFV_OUTBOX_LAPPED);
	CHECK_EQ(cursor, *position);
	CHECK_EQ(ffv_outbox_read(outbox, &cursor, &frame, bytes), FFV_OUTBOX_NONE);
	write_frame(position, 77);
	CHECK_EQ(ffv_outbox_read(outbox, &cursor, &frame, bytes), FFV_OUTBOX_FRAME);
	CHECK_EQ(check_frame(&frame, bytes), 77);
}

/* ---- at once ----------------------------------------------------------------------------------------------------------- */

static _Atomic uint32_t finished;

struct reader { pthread_t thread; uint64_t cursor; uint32_t read; uint32_t lapped; };

static void *read_all(void *arg)
{
	struct reader *reader = arg;
	uint8_t bytes[FFV_FRAME_MAX_BYTES];
	struct ffv_frame_shm frame;
	uint32_t last = 0;
	bool first = true;

	for (;;) {
		bool over = ffv_load_acquire(&finished);
		enum ffv_outbox_result result = ffv_outbox_read(outbox, &reader->cursor, &frame, bytes);
		if (result == FFV_OUTBOX_NONE && over)
			return NULL;
		if (result == FFV_OUTBOX_NONE)
			sched_yield();
		reader->lapped += result == FFV_OUTBOX_LAPPED;
		if (result != FFV_OUTBOX_FRAME)
			continue;
		uint32_t number = check_frame(&frame, bytes);
		CHECK(first || number > last);
		first = false;
		last = number;
		reader->read++;
	}
}

/* Readers see whole frames in their order, or are told that they lost some. */
static void readers_see_whole_frames(uint64_t *position, uint32_t count)
{
	struct reader readers[3] = { 0 };

	ffv_store_release(&finished, 0u);
	for (int i = 0; i < 3; i++) {
		readers[i].cursor = ffv_outbox_end(outbox);
		CHECK_EQ(pthread_create(&readers[i].thread, NULL, read_all, &readers[i]), 0);
	}
	for (uint32_t n = 1; n <= count; n++)
		write_frame(position, n);
	ffv_store_release(&finished, 1u);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(pthread_join(readers[i].thread, NULL), 0);
		CHECK(readers[i].read == count || readers[i].lapped);
		printf("reader %d: %u of %u frames, lapped %u times\n", i, readers[i].read, count, readers[i].lapped);
	}
}

/* ---- nonsense ------------------------------------------------------------------------------------------------------------ */

static uint64_t random64(void)
{
	return (uint64_t)random() << 33 ^ (uint64_t)random() << 11 ^ (uint64_t)random();
}

/* Whatever stands there, a reader returns, stays within its buffers, and goes on or stands at the end. */
static void nonsense_is_survived(void)
{
	uint8_t *bytes = malloc(FFV_FRAME_MAX_BYTES);
	struct ffv_frame_shm frame;

	CHECK(bytes);
	for (int n = 0; n < 300000; n++) {
		uint64_t cursor = random64() & ~63ull, before = cursor;
		uint64_t end = random() % 3 ? cursor + (random64() & 0xffff) : random64();
		ffv_store_relaxed(&outbox->tail, end);
		ffv_store_relaxed(&outbox->reserved, random() % 4 ? end : random64());
		uint32_t at = (uint32_t)(cursor / 8 % (FFV_OUTBOX_BYTES / 8));
		outbox->ring[at] = random() % 2 ? random64() : (uint64_t)random() % 10000;
		enum ffv_outbox_result result = ffv_outbox_read(outbox, &cursor, &frame, bytes);
		CHECK(cursor % 64 == 0);
		if (result == FFV_OUTBOX_FRAME)
			CHECK(frame.length_bytes <= FFV_FRAME_MAX_BYTES && cursor > before &&
			      cursor - before <= FFV_FRAME_MAX_BYTES + 128 && cursor - before <= end - before);
		else if (result == FFV_OUTBOX_LAPPED)
			CHECK_EQ(cursor, end & ~63ull);
		else
			CHECK_EQ(cursor, before);
	}
	free(bytes);
	for (uint32_t line = 1; line; line *= 3) { /* an outbox at places where none can be */
		ffv_store_release(&sender.arena->outbox_line, line);
		struct ffv_outbox_shm *found = ffv_outbox_of(&sender.far);
		CHECK(!found || (uint8_t *)(found + 1) <= (uint8_t *)sender.arena + FFV_ARENA_BYTES);
		if (line > UINT32_MAX / 3)
			break;
	}
	ffv_store_release(&sender.arena->outbox_line, UINT32_MAX);
	CHECK(!ffv_outbox_of(&sender.far));
}

static void groups_are_told_from_others(void)
{
	static const struct { uint8_t gid[16]; bool multicast; } gids[] = {
		{ { 0xff, 0x0e }, true },
		{ { [10] = 0xff, 0xff, 224, 0, 0, 1 }, true },
		{ { [10] = 0xff, 0xff, 239, 255, 255, 255 }, true },
		{ { [10] = 0xff, 0xff, 240, 0, 0, 1 }, false },
		{ { [10] = 0xff, 0xff, 223, 0, 0, 1 }, false },
		{ { [12] = 224, 0, 0, 1 }, false },
		{ { 0xfe, 0x80 }, false },
	};

	for (unsigned i = 0; i < sizeof gids / sizeof gids[0]; i++)
		CHECK_EQ(ffv_gid_is_multicast(gids[i].gid), gids[i].multicast);
}

int main(void)
{
	const char *given = getenv("FFVERBS_TEST_SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL);
	uint64_t position = 0;

	printf("FFVERBS_TEST_SEED=%u\n", seed);
	srandom(seed);
	make_outbox();
	groups_are_told_from_others();
	frames_come_in_order(&position);
	who_is_too_slow_is_told(&position);
	readers_see_whole_frames(&position, 20000);
	nonsense_is_survived();
	return 0;
}

/* What is sent: bytes, sizes and operations that follow from seeds; and the memory that they are sent from and to. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "stress.h"

uint64_t stress_mix(uint64_t a, uint64_t b)
{
	uint64_t x = a * 0x9e3779b97f4a7c15ull + b + 0x632be59bd9b4e019ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static uint64_t word_of(uint64_t seed, uint64_t index)
{
	return (seed + index) * 0xd1342543de82ef95ull;
}

void stress_fill(uint8_t *at, size_t length, uint64_t seed)
{
	size_t i = 0;

	for (; i + 8 <= length; i += 8) {
		uint64_t word = word_of(seed, i);
		memcpy(at + i, &word, 8);
	}
	for (uint64_t word = word_of(seed, i); i < length; i++, word >>= 8)
		at[i] = (uint8_t)word;
}

void stress_check(const uint8_t *at, size_t length, uint64_t seed, const char *what, uint64_t sequence)
{
	for (size_t i = 0; i < length; i += 8) {
		uint64_t word = word_of(seed, i);
		if (memcmp(at + i, &word, length - i < 8 ? length - i : 8))
			FAIL("%s %llu: wrong bytes at %zu of %zu", what, (unsigned long long)sequence, i, length);
	}
}

/* ---- memory ---------------------------------------------------------------------------------------------------------- */

void stress_buffer_make(struct buffer *buffer, size_t length, enum memory_kind kind)
{
	const uint32_t access = FFV_ACCESS_LOCAL_WRITE | FFV_ACCESS_REMOTE_WRITE | FFV_ACCESS_REMOTE_READ |
				FFV_ACCESS_REMOTE_ATOMIC;

	*buffer = (struct buffer){ .length = length, .kind = kind };
	if (kind == MEMORY_ENGINE) {
		MUST(ffv_alloc_mr(stress.pd, length, access, &buffer->mr));
		buffer->at = buffer->mr->addr;
		return;
	}
	if (kind == MEMORY_HEAP) { /* shares its first and last page with others */
		buffer->base = malloc(length + 64);
		buffer->at = (uint8_t *)(((uintptr_t)buffer->base + 15) & ~(uintptr_t)15) + 8;
		memset(buffer->at, 0, length);
	} else {
		int fd = memfd_create("stress-file", MFD_CLOEXEC);
		if (fd < 0 || ftruncate(fd, (off_t)length))
			FAIL("no file");
		buffer->base = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		close(fd);
		if (buffer->base == MAP_FAILED)
			FAIL("no mapping");
		buffer->at = buffer->base;
	}
	MUST(ffv_reg_mr(stress.pd, buffer->at, length, (uintptr_t)buffer->at, access, &buffer->mr));
}

void stress_buffer_drop(struct buffer *buffer)
{
	MUST(ffv_dereg_mr(buffer->mr));
	if (buffer->kind == MEMORY_HEAP)
		free(buffer->base);
	else if (buffer->kind == MEMORY_FILE)
		munmap(buffer->base, buffer->length);
}

/* ---- operations -------------------------------------------------------------------------------------------------------- */

static uint32_t draw_length(uint64_t luck)
{
	static const uint32_t most[] = { 0, 64, 64, 64, 64, 4096, 4096, 4096, 32768, STRESS_MOST };
	uint32_t limit = most[luck % 10];

	return limit ? (uint32_t)(luck / 10 % limit) + 1 : 0;
}

struct planned stress_plan(enum end_kind kind, uint64_t seed, uint64_t index)
{
	static const uint8_t rc[] = { FFV_WR_SEND, FFV_WR_SEND, FFV_WR_SEND_WITH_IMM, FFV_WR_RDMA_WRITE,
				      FFV_WR_RDMA_WRITE, FFV_WR_RDMA_WRITE_WITH_IMM, FFV_WR_RDMA_READ, FFV_WR_RDMA_READ,
				      FFV_WR_ATOMIC_FETCH_AND_ADD, FFV_WR_ATOMIC_CMP_AND_SWP };
	uint64_t luck = stress_mix(seed, index);
	struct planned planned = { .seed = luck, .luck = stress_mix(luck, 1), .opcode = rc[luck % 10] };

	if (kind == END_UC) /* a lost message is only noticed by a number that is missing */
		planned.opcode = luck % 10 < 8 ? FFV_WR_SEND_WITH_IMM : FFV_WR_RDMA_WRITE;
	planned.length = draw_length(stress_mix(luck, 2) >> 8);
	if (planned.opcode == FFV_WR_ATOMIC_FETCH_AND_ADD || planned.opcode == FFV_WR_ATOMIC_CMP_AND_SWP)
		planned.length = 8;
	if (planned.opcode == FFV_WR_RDMA_WRITE_WITH_IMM && kind != END_RC)
		planned.length = 0; /* shared receives do not tell the sender when a slot may be written again */
	planned.consumes = planned.opcode == FFV_WR_SEND || planned.opcode == FFV_WR_SEND_WITH_IMM ||
			   planned.opcode == FFV_WR_RDMA_WRITE_WITH_IMM;
	return planned;
}

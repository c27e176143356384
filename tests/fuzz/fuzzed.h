/* For libFuzzer programs that interpret their input: where the numbers come from, and what is looked at now and then. */
#ifndef FFV_TESTS_FUZZ_FUZZED_H
#define FFV_TESTS_FUZZ_FUZZED_H

#include <sanitizer/lsan_interface.h>
#include <stdint.h>
#include <stdlib.h>

#include "check.h"

static const uint8_t *fuzzed_at;
static size_t fuzzed_left;

/* A number below `below` out of the input, 0 at its end; small ones take a byte. */
static inline unsigned draw(unsigned below)
{
	unsigned bytes = below <= 256 ? 1 : below <= 65536 ? 2 : 4, number = 0;

	for (; bytes && fuzzed_left; bytes--, fuzzed_left--)
		number = number << 8 | *fuzzed_at++;
	return number % below;
}

static inline void fuzzed_begin(const uint8_t *data, size_t size)
{
	fuzzed_at = data;
	fuzzed_left = size;
}

/* What is lost for good counts; looking for it takes long. */
static inline void fuzzed_check_leaks(void)
{
	CHECK(!__lsan_do_recoverable_leak_check());
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif

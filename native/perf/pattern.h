/* SPDX-License-Identifier: MIT
 *
 * The bytes of a message as a function of its seed, so that the far end can tell whether every one of them arrived and
 * whether they are of this message and of no other. Process-private.
 */
#ifndef FFV_PERF_PATTERN_H
#define FFV_PERF_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Word `index` of the message with this seed: a product with an odd constant changes with either of them. */
static inline uint64_t pattern_word(uint64_t seed, uint64_t index)
{
	uint64_t word = (seed * 0x9e3779b97f4a7c15u) ^ ((index + 1) * 0xd1342543de82ef95u);

	return word ^ (word >> 29);
}

static inline void pattern_fill(uint8_t *to, size_t length_bytes, uint64_t seed)
{
	size_t at = 0, index = 0;

	for (; at + sizeof(uint64_t) <= length_bytes; at += sizeof(uint64_t)) {
		uint64_t word = pattern_word(seed, index++);

		memcpy(to + at, &word, sizeof word);
	}
	if (at < length_bytes) {
		uint64_t word = pattern_word(seed, index);

		memcpy(to + at, &word, length_bytes - at);
	}
}

static inline bool pattern_matches(const uint8_t *from, size_t length_bytes, uint64_t seed)
{
	size_t at = 0, index = 0;

	for (; at + sizeof(uint64_t) <= length_bytes; at += sizeof(uint64_t)) {
		uint64_t word = pattern_word(seed, index++);

		if (memcmp(from + at, &word, sizeof word) != 0)
			return false;
	}
	uint64_t last = pattern_word(seed, index);

	return memcmp(from + at, &last, length_bytes - at) == 0;
}

#endif

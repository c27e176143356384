/* Checks for the C tests: a failed one names its place and both values, and ends the test program with status 1. */
#ifndef FFV_TESTS_CHECK_H
#define FFV_TESTS_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                        \
	do {                                                                                    \
		if (!(condition)) {                                                             \
			fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
			exit(1);                                                                \
		}                                                                               \
	} while (0)

/* Compare two integers (both must fit a long long). */
#define CHECK_EQ(actual, expected)                                                                    \
	do {                                                                                          \
		long long check_actual = (long long)(actual), check_expected = (long long)(expected); \
		if (check_actual != check_expected) {                                                 \
			fprintf(stderr, "%s:%d: %s is %lld, expected %lld (%s)\n", __FILE__, __LINE__, \
				#actual, check_actual, check_expected, #expected);                    \
			exit(1);                                                                      \
		}                                                                                     \
	} while (0)

/* Compare two strings. */
#define CHECK_STR(actual, expected)                                                             \
	do {                                                                                    \
		const char *check_actual = (actual), *check_expected = (expected);              \
		if (strcmp(check_actual, check_expected) != 0) {                                \
			fprintf(stderr, "%s:%d: %s is \"%s\", expected \"%s\"\n", __FILE__,     \
				__LINE__, #actual, check_actual, check_expected);               \
			exit(1);                                                                \
		}                                                                               \
	} while (0)

#endif

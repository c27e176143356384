/* For C tests that open devices: a scratch node directory of their own, and opening that must succeed. */
#ifndef FFV_TESTS_OPENED_H
#define FFV_TESTS_OPENED_H

#include <ffverbs/ffv.h>

#include "scratch.h"
#include "verbs/objects.h"

/* As CHECK_EQ, with the engine's text. */
#define CHECK_RC(call, expected)                                                                     \
	do {                                                                                         \
		int check_rc = (call), check_want = (expected);                                      \
		if (check_rc != check_want) {                                                        \
			fprintf(stderr, "%s:%d: %s is %d, expected %d: %s\n", __FILE__, __LINE__,    \
				#call, check_rc, check_want, ffv_error_text());                      \
			exit(1);                                                                     \
		}                                                                                    \
	} while (0)

#define CHECK_OK(call) CHECK_RC(call, 0)
/* The call fails so, and its text has `word` in it. */
#define CHECK_FAIL(call, err, word)                                                                  \
	do {                                                                                         \
		CHECK_RC(call, -(err));                                                              \
		if (!strstr(ffv_error_text(), (word))) {                                             \
			fprintf(stderr, "%s:%d: %s: no \"%s\" in the text \"%s\"\n", __FILE__,       \
				__LINE__, #call, (word), ffv_error_text());                          \
			exit(1);                                                                     \
		}                                                                                    \
	} while (0)

static inline void opened_directory(void)
{
	scratch_create();
	CHECK_EQ(setenv("FFVERBS_DIR", scratch_root, 1), 0);
	CHECK_EQ(setenv("FFVERBS_IP", "10.9.8.7", 1), 0);
}

static inline struct ffv_context *opened_context(void)
{
	struct ffv_context *ctx;

	CHECK_OK(ffv_open_device(NULL, &ctx));
	return ctx;
}

static inline struct ffv_pd *opened_pd(struct ffv_context *ctx)
{
	struct ffv_pd *pd;

	CHECK_OK(ffv_alloc_pd(ctx, &pd));
	return pd;
}

#endif

/* SPDX-License-Identifier: MIT
 *
 * See error.h.
 */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <ffverbs/ffv.h>

#define TEXT_BYTES 512

static _Thread_local char text[TEXT_BYTES];

const char *ffv_error_text(void)
{
	return text;
}

int ffv_fail(int err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	return -err;
}

int ffv_fail_errno(int err, const char *format, ...)
{
	char reason[128];
	va_list args;

	va_start(args, format);
	int used = vsnprintf(text, sizeof text, format, args);
	va_end(args);
	if (used >= 0 && used < (int)sizeof text)
		snprintf(text + used, sizeof text - (size_t)used, ": %s", strerror_r(err, reason, sizeof reason));
	return -err;
}

int ffv_fail_context(int rc, const char *format, ...)
{
	char before[TEXT_BYTES];
	va_list args;

	memcpy(before, text, sizeof before);
	va_start(args, format);
	int used = vsnprintf(text, sizeof text, format, args);
	va_end(args);
	if (used >= 0 && used < (int)sizeof text)
		snprintf(text + used, sizeof text - (size_t)used, ": %s", before);
	return rc;
}

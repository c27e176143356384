/* SPDX-License-Identifier: MIT
 *
 * Errors: a negative errno is the result, a sentence for people stands in thread-local memory. The first detector
 * writes it, callers may put context before it. Process-private, thread-safe.
 */
#ifndef FFV_BASE_ERROR_H
#define FFV_BASE_ERROR_H

/* Remembers the text for this thread and returns -err. */
int ffv_fail(int err, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Like ffv_fail with ": strerror(err)" appended. */
int ffv_fail_errno(int err, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Puts "context: " before the text that is there; returns rc unchanged. */
int ffv_fail_context(int rc, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif

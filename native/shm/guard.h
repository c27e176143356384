/* SPDX-License-Identifier: MIT
 *
 * Keeps writers of a range of memory waiting while its pages are exchanged. Process-wide: one guard at a time, the
 * caller holds the mirror's lock.
 *
 * While a range is held it can be read and not written: a thread that writes waits until it is released and then tries
 * again, so no write is lost and none is seen by the application. Where the kernel offers userfaultfd for this (5.19 and
 * later, unless a container's seccomp filter forbids it) the writer waits in the kernel, as does who reads a page that
 * was never touched. Elsewhere the writer waits in a SIGSEGV handler, and a thread that has SIGSEGV blocked is killed if
 * it writes to that very memory while it is being registered or deregistered. In both cases a system call that writes
 * to such memory (read() into the buffer) meanwhile fails with EFAULT.
 */
#ifndef FFV_SHM_GUARD_H
#define FFV_SHM_GUARD_H

#include <stdbool.h>

#include "shm/mirror.h"

/* Comes before holding ranges. knows_absent_pages: the caller does not read pages of a held range that were
 * never touched; EFAULT where it does all the same. */
int ffv_guard_begin(bool knows_absent_pages);
/* From here on the range (of one mapping) cannot be written to; -errno: it is as before. */
int ffv_guard_hold(struct ffv_range range);
/* Lets waiting writers go on. The memory must be writable again: exchanged by the caller, or by ffv_guard_unprotect. */
void ffv_guard_release(void);
/* Makes a held range writable where it could not be exchanged; release follows. */
void ffv_guard_unprotect(struct ffv_range range);

/* In a fork child: what the parent guards is not its memory. */
void ffv_guard_forget(void);

/* For tests: never use userfaultfd; whether it is in use, since the last begin. */
void ffv_guard_avoid_userfaultfd(bool avoid);
bool ffv_guard_has_userfaultfd(void);

#endif

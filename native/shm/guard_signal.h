/* SPDX-License-Identifier: MIT
 *
 * The write guard of kernels and containers without userfaultfd: mprotect, and a SIGSEGV handler in which a writer
 * waits. As guard.h. The handler is installed when it is first needed, put on top of newer ones when it is needed again,
 * and passes every other fault on to the one that was there before.
 */
#ifndef FFV_SHM_GUARD_SIGNAL_H
#define FFV_SHM_GUARD_SIGNAL_H

#include "shm/mirror.h"

int ffv_guard_signal_begin(void);
int ffv_guard_signal_hold(struct ffv_range range);
void ffv_guard_signal_release(void);
void ffv_guard_signal_unprotect(struct ffv_range range);

#endif

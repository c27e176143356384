/* SPDX-License-Identifier: MIT
 *
 * Moves whole pages of this process between private memory and the mirror, losing no concurrent write: piece by piece
 * the range is write-protected, copied, and exchanged in one step. Process-wide; the caller holds the mirror's lock.
 *
 * Registered memory loses what belongs to a mapping and not to its content: advice (madvise), locks (mlock), NUMA
 * policy and protection keys.
 */
#ifndef FFV_SHM_MOVE_H
#define FFV_SHM_MOVE_H

#include "shm/mirror.h"

/* Private anonymous memory, readable and writable, becomes memory of the mirror. What the mirror held there before is
 * dropped. Pages that were never touched take no memory. On an error [range.first, *done) has been moved, the rest is
 * as before. */
int ffv_move_in(int fd, struct ffv_range range, uint64_t *done);
/* Memory mapped from the mirror becomes private; its part of the mirror is left to be punched. As for *done. */
int ffv_move_out(int fd, struct ffv_range range, uint64_t *done);
/* Drops the mirror's content of a range. */
void ffv_move_punch(int fd, struct ffv_range range);

#endif

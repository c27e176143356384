/* SPDX-License-Identifier: MIT
 *
 * Completion counters, for queue pairs that have some.
 */
#ifndef FFV_VERBS_COUNTER_H
#define FFV_VERBS_COUNTER_H

#include "verbs/context.h"

/* Of a queue pair that no execution uses any more. */
void ffv_qp_detach_counters(struct ffv_qp *qp);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Allocated buffers, for regions over them.
 */
#ifndef FFV_VERBS_BUF_H
#define FFV_VERBS_BUF_H

#include "verbs/objects.h"

/* One region over it more or less: it is not freed under one. */
void ffv_buf_use(struct ffv_buf *buf, bool more);

#endif

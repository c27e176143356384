/* SPDX-License-Identifier: MIT
 *
 * Device memory, for regions over it.
 */
#ifndef FFV_VERBS_DM_H
#define FFV_VERBS_DM_H

#include "verbs/objects.h"

/* One region over it more or less: it is not freed under one. */
void ffv_dm_use(struct ffv_dm *dm, bool more);

#endif

/* SPDX-License-Identifier: MIT
 *
 * On-demand paging: whether it works here, and what it offers.
 */
#ifndef FFV_VERBS_ODP_H
#define FFV_VERBS_ODP_H

#include <stdbool.h>

#include <ffverbs/ffv.h>

/* Whether the kernel copies from and to this process's own memory and tells what is not there. */
bool ffv_odp_works(void);
/* Fills in the capabilities, if it does. */
void ffv_odp_report(struct ffv_device_attr_ex *attr);

#endif

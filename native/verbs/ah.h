/* SPDX-License-Identifier: MIT
 *
 * Address attributes as address handles and connected QPs take them.
 */
#ifndef FFV_VERBS_AH_H
#define FFV_VERBS_AH_H

#include <ffverbs/ffv.h>

/* 0 if the attributes can address somebody on our Ethernet port, else -EINVAL. */
int ffv_ah_attr_check(const struct ffv_ah_attr *attr);
/* The destination, in the form under which contexts are found (gid.h). */
void ffv_ah_attr_dgid(const struct ffv_ah_attr *attr, uint8_t dgid[16]);

#endif

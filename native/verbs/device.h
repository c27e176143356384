/* SPDX-License-Identifier: MIT
 *
 * The numbers of the device: what ffv_query_device and ffv_query_port report, and what creating objects enforces.
 */
#ifndef FFV_VERBS_DEVICE_H
#define FFV_VERBS_DEVICE_H

#include "shm/layout.h"

#define FFV_DEVICE_NAME "ffv0"

/* The PCI-SIG's registry has no 0xffb0: a vendor id for which no program can have a workaround. */
#define FFV_VENDOR_ID 0xffb0u

#define FFV_LIMIT_PD FFV_MAX_PD
#define FFV_LIMIT_AH (1u << 20)
/* Regions and windows share the key table, whose entry 0 is never used. */
#define FFV_LIMIT_MW 65535u
#define FFV_LIMIT_MR (FFV_MAX_KEYS - 1 - FFV_LIMIT_MW)
#define FFV_LIMIT_MR_BYTES (1ull << 47)
#define FFV_LIMIT_QP (FFV_MAX_QP - 16)
#define FFV_LIMIT_CQ (FFV_MAX_CQ - 16)
#define FFV_LIMIT_SRQ (FFV_MAX_SRQ - 16)
#define FFV_LIMIT_RD_ATOMIC 128u
/* Multicast groups, and queue pairs of one context in one and in all of them. */
#define FFV_LIMIT_GROUPS 4096u
#define FFV_LIMIT_GROUP_MEMBERS 1024u
#define FFV_LIMIT_MEMBERS 65536u
/* Pacing of send queues. */
#define FFV_PACED_TYPES (1u << FFV_QPT_RC | 1u << FFV_QPT_UC | 1u << FFV_QPT_UD)
#define FFV_RATE_MIN_KBPS 1u
#define FFV_RATE_MAX_KBPS 400000000u
#define FFV_LIMIT_COUNTERS 65536u
#define FFV_LIMIT_TABLES 4096u
#define FFV_LIMIT_LOG_TABLE 11u
#define FFV_LIMIT_DM_BYTES (1ull << 20)

#define FFV_PORT_NUM 1u
#define FFV_PORT_MTU 5u              /* enum ibv_mtu: 4096 bytes */
#define FFV_GID_TABLE_ENTRIES 8u
#define FFV_GID_TABLE_FILLED 2u      /* the first ones */
#define FFV_COMP_VECTORS 1           /* channels are eventfds: there is nothing to spread */

#endif

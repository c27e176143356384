/* SPDX-License-Identifier: MIT
 *
 * Which GIDs a container has (DESIGN D16). Process-private, any thread; the only state is an address that a router gave.
 *
 * Index 1 is the container's IPv4 address mapped into IPv6, ::ffff:a.b.c.d: the name under which contexts find each
 * other. Index 0 is link-local and says the same: fe80::200:5efe:a.b.c.d, the interface identifier of RFC 5214 section
 * 6.1 (00-00-5E is IANA's block; bit "universal" set; FE means that an IPv4 address follows), so that either can be
 * computed from the other without asking anybody.
 */
#ifndef FFV_VERBS_GID_H
#define FFV_VERBS_GID_H

#include <stdint.h>

/* Where the address of this container comes from. */
enum ffv_gid_source { FFV_GID_OF_INTERFACE, FFV_GID_TOLD, FFV_GID_OF_POOL };
enum ffv_gid_source ffv_gid_source(void);
/* Of this container: FFVERBS_IP, else its first non-loopback IPv4 address that is up, else 127.0.0.1; if FFVERBS_IP is
 * "auto", what ffv_gid_adopt was called with, until then that of 0.0.0.0. -EINVAL if FFVERBS_IP is neither that nor a
 * unicast IPv4 address in dotted-quad form. */
int ffv_gid_own(uint8_t gid[16], uint8_t link_local[16]);
/* The router gave this process an address from its pool; the GID has to be IPv4-mapped. */
int ffv_gid_adopt(const uint8_t gid[16]);
/* The IPv4-mapped GID of a container whose link-local one is `in`; a copy of `in` if it is none of ours. */
void ffv_gid_canonical(const uint8_t in[16], uint8_t out[16]);

#endif

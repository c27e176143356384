/* SPDX-License-Identifier: MIT
 *
 * Datagram sockets: what datagram.c, which sends and receives, and route.c, which knows where to, have of each other.
 */
#ifndef FFV_RSOCKET_DATAGRAM_H
#define FFV_RSOCKET_DATAGRAM_H

#include "rsocket/rsocket.h"

#define FFV_RS_MTU 4096u

/* Before the payload of each datagram, in network order: the address that its sender's socket has. */
struct ffv_rs_tag {
	uint32_t magic_be;
	uint16_t family_be;
	uint16_t port_be;
	uint8_t addr[16];          /* IPv4 as IPv6 has it */
};
_Static_assert(FFV_SOCKET_DATAGRAM_BYTES == FFV_RS_MTU - sizeof(struct ffv_rs_tag), "what the public header says");

/* In the private data of question and answer: "datagrams here are of such sockets". */
struct ffv_rs_datagram_hello {
	uint32_t magic_be;
	uint32_t version_be;
};

struct ffv_rs_route {
	struct ffv_ah *ah;
	uint32_t qpn;
	uint32_t qkey;
	union ffv_sockaddr source; /* what a socket that is bound to the wildcard address sends from, there */
};

/* ---- route.c ----------------------------------------------------------------------------------------------------------------- */

/* 0: it may be used until ffv_rs_leave_route. Else, why datagrams go by UDP: -EINPROGRESS, it is being asked for; -ECONNREFUSED. The
 * socket's lock may be held. */
int ffv_rs_enter_route(const union ffv_sockaddr *to, struct ffv_rs_route *out);
void ffv_rs_leave_route(void);
struct ffv_rs_datagram_hello ffv_rs_datagram_hello(void);
bool ffv_rs_is_datagram_hello(const void *data, uint8_t length);

/* As 16 bytes: IPv6, or IPv4 as IPv6 has it. Returns the port, 0 for other families. */
uint16_t ffv_rs_address_bytes(const union ffv_sockaddr *addr, uint8_t out[16]);

#endif

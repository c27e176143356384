/* SPDX-License-Identifier: MIT
 *
 * Datagram sockets: what datagram.c, which sends and receives, and route.c, which knows where to, have of each other.
 */
#ifndef FFV_RSOCKET_DATAGRAM_H
#define FFV_RSOCKET_DATAGRAM_H

#include "rsocket/rsocket.h"

#define FFV_RS_MTU 4096u
#define FFV_RS_DATAGRAM_VERSION 2u

/* Before the payload of each datagram, in network order: the address that its sender's socket has. */
struct ffv_rs_tag {
	uint32_t magic_be;
	uint16_t family_be;
	uint16_t port_be;
	uint8_t addr[16];          /* IPv4 as IPv6 has it */
};
_Static_assert(FFV_SOCKET_DATAGRAM_BYTES == FFV_RS_MTU - sizeof(struct ffv_rs_tag), "what the public header says");

/* In the private data of question and answer: "datagrams here are of such sockets". Who asks says for which socket, as of several with
 * one port the one that is connected to it is to answer. */
struct ffv_rs_datagram_hello {
	uint32_t version_be;
	struct ffv_rs_tag from;
};

/* A datagram socket that has an address: bound.c, whose lock guards it. */
struct ffv_rs_bound {
	struct ffv_rs_bound *next;
	struct ffv_rs_socket *socket;
	uint32_t qpn;
	bool listens;              /* it is asked for all sockets of this process that have the address */
	bool is_connected;         /* socket's lock as well, as `peer` */
	union ffv_sockaddr peer;
};

struct ffv_rs_route {
	struct ffv_ah *ah;
	uint32_t qpn;
	uint32_t qkey;
	union ffv_sockaddr source; /* what a socket that is bound to the wildcard address sends from, there */
};

/* ---- route.c ----------------------------------------------------------------------------------------------------------------- */

/* From a socket that is bound to `from`. 0: it may be used until ffv_rs_leave_route. Else, why datagrams go by UDP: -EINPROGRESS, it is
 * being asked for; -ECONNREFUSED. The socket's lock may be held. */
int ffv_rs_enter_route(const union ffv_sockaddr *from, const union ffv_sockaddr *to, struct ffv_rs_route *out);
void ffv_rs_leave_route(void);
/* A datagram has come from there, so there is such a socket, whatever was answered. */
void ffv_rs_heard_from(const union ffv_sockaddr *own, const union ffv_sockaddr *peer);
/* Who asks is about to have such a socket. */
void ffv_rs_was_asked_by(const union ffv_sockaddr *own, const union ffv_sockaddr *peer);
struct ffv_rs_datagram_hello ffv_rs_datagram_hello(const union ffv_sockaddr *from);
bool ffv_rs_is_datagram_hello(const void *data, uint8_t length, union ffv_sockaddr *from);

/* As 16 bytes: IPv6, or IPv4 as IPv6 has it. Returns the port, 0 for other families. */
uint16_t ffv_rs_address_bytes(const union ffv_sockaddr *addr, uint8_t out[16]);
bool ffv_rs_are_equal(const union ffv_sockaddr *one, const union ffv_sockaddr *other);
bool ffv_rs_is_wildcard(const union ffv_sockaddr *addr);
struct ffv_rs_tag ffv_rs_tag(const union ffv_sockaddr *addr);
void ffv_rs_give_tagged(const struct ffv_rs_tag *tag, union ffv_sockaddr *out);

/* ---- bound.c (the socket's lock held) ------------------------------------------------------------------------------------------ */

/* The socket's id is bound: it is asked for the address from now on, or another socket of this process is already, for both. */
int ffv_rs_join_bound(struct ffv_rs_bound *own);
/* Nobody is told of it any more; its id is gone. */
void ffv_rs_leave_bound(struct ffv_rs_bound *own);
/* NULL: to no peer any more. */
void ffv_rs_connect_bound(struct ffv_rs_bound *own, const union ffv_sockaddr *peer);
/* No lock held: the queue pair that takes what comes from there to the address of the socket that was asked; 0: none. */
uint32_t ffv_rs_choose_bound(const struct ffv_rs_socket *asked, const union ffv_sockaddr *from);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Addresses of the connection manager: which are the container's, and what they are as services. Process-private, no
 * state.
 */
#ifndef FFV_CM_ADDRESS_H
#define FFV_CM_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>

#include "cm/lookup.h"
#include "cm/wire.h"

/* Bytes of an address of this family, 0 for families that are not known. */
socklen_t ffv_address_size(const struct sockaddr *addr);
void ffv_address_copy(union ffv_sockaddr *out, const struct sockaddr *addr);
bool ffv_address_is_any(const union ffv_sockaddr *addr);
bool ffv_address_is_loopback(const union ffv_sockaddr *addr);
bool ffv_address_is_multicast(const union ffv_sockaddr *addr);
bool ffv_address_equal(const union ffv_sockaddr *one, const union ffv_sockaddr *other); /* ports do not count */
uint16_t ffv_address_port(const union ffv_sockaddr *addr);
void ffv_address_set_port(union ffv_sockaddr *addr, uint16_t port);
/* As 16 bytes: IPv6, or IPv4 mapped into it. */
void ffv_address_bytes(const union ffv_sockaddr *addr, uint8_t out[16]);
void ffv_address_to_endpoint(const union ffv_sockaddr *addr, struct ffv_cm_endpoint *out);
void ffv_address_from_endpoint(const struct ffv_cm_endpoint *endpoint, union ffv_sockaddr *out);
/* The container's own address, of the GID. */
void ffv_address_own(const uint8_t gid[16], union ffv_sockaddr *out);
/* Whether the container with this GID has the address. */
bool ffv_address_is_local(const uint8_t gid[16], const union ffv_sockaddr *addr);
/* The service of an address (a wildcard is taken for loopback). */
void ffv_address_service(const uint8_t gid[16], const union ffv_sockaddr *addr, uint32_t port_space,
			 struct ffv_service *out);
/* All services at which a wildcard address of that family is heard, the container's own first; returns their number. */
uint32_t ffv_address_services_of_any(const uint8_t gid[16], const union ffv_sockaddr *addr, bool family_only,
				     uint32_t port_space, struct ffv_service *out, uint32_t capacity);

#endif

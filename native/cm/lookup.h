/* SPDX-License-Identifier: MIT
 *
 * Who listens at an address: the one place that knows. For this host the node directory answers, in which a listener is a
 * socket whose name is its address, port space and port: binding it is the claim, connecting to it the look-up. For other
 * hosts the router is asked. Process-private; safe from several threads.
 */
#ifndef FFV_CM_LOOKUP_H
#define FFV_CM_LOOKUP_H

#include <stdbool.h>
#include <stdint.h>

#include <ffverbs/ffv.h>

/* Where an address is heard: everywhere, or only within the container that `address` (its GID) names. */
enum ffv_service_scope { FFV_SCOPE_GLOBAL = 'g', FFV_SCOPE_LOOPBACK4 = '4', FFV_SCOPE_LOOPBACK6 = '6' };

struct ffv_service {
	char scope;                /* enum ffv_service_scope */
	uint8_t address[16];       /* IPv6, or IPv4 mapped into it */
	uint32_t port_space;
	uint16_t port;             /* host order */
};

/* Claims the service for this process: *fd is a listening SOCK_SEQPACKET socket. -EADDRINUSE. May wait (another process's
 * lock, at most 5 s). */
int ffv_lookup_claim(struct ffv_context *ctx, const struct ffv_service *service, int *fd);
void ffv_lookup_release(struct ffv_context *ctx, const struct ffv_service *service, int fd);
/* Connects to whoever has claimed it on this host: *fd is a non-blocking socket. -ENOENT nobody, -EAGAIN too many wait
 * there. Never waits. */
int ffv_lookup_connect(struct ffv_context *ctx, const struct ffv_service *service, int *fd);
/* Has the router connect to whoever has claimed it on another host, and pass on the message: *fd is the conversation. What
 * stands against it comes there, as an answer. -ENOENT: no router, or no address of others. Never waits. */
int ffv_lookup_call(struct ffv_context *ctx, const struct ffv_service *service, const void *message, size_t bytes, int *fd);
/* Whether a container of this host has this address (as far as its contexts and listeners show it). */
bool ffv_lookup_host(struct ffv_context *ctx, const uint8_t address[16]);
/* Asks the router whether one of another host has: the answer comes at *fd. -ENOENT: no router. Never waits. */
int ffv_lookup_ask_host(struct ffv_context *ctx, const uint8_t address[16], int *fd);
/* Takes an answer of the router's that comes next at fd: 1 and *error (0 or an errno); 0 = something else comes;
 * -EAGAIN. */
int ffv_lookup_answer(int fd, uint32_t *error);

#endif

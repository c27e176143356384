/* SPDX-License-Identifier: MIT
 *
 * See lookup.h.
 */
#include "cm/lookup.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "shm/nodedir.h"
#include "verbs/ask.h"
#include "verbs/objects.h"

static void write_name(char name[FFV_NODEDIR_NAME_BYTES], const struct ffv_service *service)
{
	ffv_nodedir_write_service(name, service->scope, service->address, service->port_space, service->port);
}

int ffv_lookup_claim(struct ffv_context *ctx, const struct ffv_service *service, int *fd)
{
	char name[FFV_NODEDIR_NAME_BYTES];

	write_name(name, service);
	return ffv_nodedir_claim_name(ctx->dir, name, fd);
}

void ffv_lookup_release(struct ffv_context *ctx, const struct ffv_service *service, int fd)
{
	char name[FFV_NODEDIR_NAME_BYTES];

	write_name(name, service);
	ffv_nodedir_release_name(ctx->dir, name, fd);
}

int ffv_lookup_connect(struct ffv_context *ctx, const struct ffv_service *service, int *fd)
{
	char name[FFV_NODEDIR_NAME_BYTES];

	write_name(name, service);
	return ffv_nodedir_connect_name(ctx->dir, name, fd);
}

static int is_of(void *arg, const char *name)
{
	const uint8_t *address = arg;
	char prefix[34];

	for (int i = 0; i < 16; i++)
		snprintf(prefix + 1 + 2 * i, 3, "%02x", address[i]);
	prefix[0] = FFV_SCOPE_GLOBAL;
	/* a context's name begins with its GID, a listener's with its address behind the scope */
	return strncmp(name, prefix + 1, 32) == 0 || strncmp(name, prefix, 33) == 0;
}

bool ffv_lookup_host(struct ffv_context *ctx, const uint8_t address[16])
{
	uint8_t wanted[16];

	memcpy(wanted, address, 16);
	return ffv_nodedir_find_name(ctx->dir, is_of, wanted) == 1;
}

/* ---- other hosts ------------------------------------------------------------------------------------------------------ */

int ffv_lookup_call(struct ffv_context *ctx, const struct ffv_service *service, const void *message, size_t bytes, int *fd)
{
	struct ffv_ask question = { .kind = FFV_ASK_CALL, .qpn = service->port, .port_space = service->port_space };

	if (service->scope != FFV_SCOPE_GLOBAL || memcmp(service->address, ctx->gid, 16) == 0)
		return ffv_fail(ENOENT, "nobody listens there");
	memcpy(question.gid, service->address, 16);
	return ffv_ask_begin(ctx, &question, message, bytes, fd);
}

int ffv_lookup_ask_host(struct ffv_context *ctx, const uint8_t address[16], int *fd)
{
	struct ffv_ask question = { .kind = FFV_ASK_HOST };

	memcpy(question.gid, address, 16);
	return ffv_ask_begin(ctx, &question, NULL, 0, fd);
}

int ffv_lookup_answer(int fd, uint32_t *error)
{
	return ffv_ask_answer(fd, error);
}

/* SPDX-License-Identifier: MIT
 *
 * Which transports there are; see transport.h.
 */
#include "wire/transport.h"

#include <string.h>

static const struct ffv_transport *const transports[] = { &ffv_transport_tcp, &ffv_transport_rdma, &ffv_transport_fault };

const struct ffv_transport *ffv_transport_find(const char *name)
{
	for (size_t i = 0; i < sizeof transports / sizeof *transports; i++)
		if (!strcmp(transports[i]->name, name))
			return transports[i];
	return NULL;
}

/* SPDX-License-Identifier: MIT
 *
 * See ibverbs.h.
 */
#include "wire/ibverbs.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

struct symbol { const char *name; size_t at; };

#define CALL(name) { "ibv_" #name, offsetof(struct ffv_ibverbs, name) }

static const struct symbol symbols[] = {
	CALL(get_device_list), CALL(free_device_list), CALL(get_device_name), CALL(open_device), CALL(close_device),
	CALL(query_port), CALL(get_async_event), CALL(ack_async_event), CALL(alloc_pd), CALL(dealloc_pd), CALL(reg_mr),
	CALL(dereg_mr), CALL(create_comp_channel), CALL(destroy_comp_channel), CALL(create_cq), CALL(destroy_cq),
	CALL(get_cq_event), CALL(ack_cq_events), CALL(create_qp), CALL(modify_qp), CALL(destroy_qp), CALL(wc_status_str),
	{ "_ibv_query_gid_ex", offsetof(struct ffv_ibverbs, query_gid_ex) },
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct ffv_ibverbs calls;  /* [lock] until `loaded`, constant from then on */
static bool loaded;               /* [lock] */

static int find_calls(void *library, const char *file)
{
	for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
		void *found = dlsym(library, symbols[i].name);
		if (!found)
			return ffv_fail(EOPNOTSUPP, "%s has no %s: rdma-core 31 or newer is needed", file, symbols[i].name);
		memcpy((char *)&calls + symbols[i].at, &found, sizeof found);
	}
	return 0;
}

static int load(const char *file)
{
	void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);

	if (!library)
		return ffv_fail(ENOENT, "%s cannot be loaded (%s): install libibverbs1 and ibverbs-providers", file, dlerror());
	int rc = find_calls(library, file);
	if (rc)
		dlclose(library);
	return rc;
}

int ffv_ibverbs_load(const struct ffv_ibverbs **out)
{
	const char *file = getenv("FFVERBS_LIBIBVERBS");

	pthread_mutex_lock(&lock);
	int rc = loaded ? 0 : load(file && *file ? file : "libibverbs.so.1");
	loaded = loaded || !rc;
	pthread_mutex_unlock(&lock);
	if (!rc)
		*out = &calls;
	return rc;
}

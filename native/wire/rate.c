/* SPDX-License-Identifier: MIT
 *
 * How fast this router sends the payload of its tenant's containers to other hosts, all together: a token bucket. Whoever
 * finds it empty waits its turn; nothing is dropped for it that would not be dropped on a slow link. Answers without
 * payload are not counted, so what other hosts do here is not held up. Runs on the loop's thread.
 */
#include "base/clock.h"
#include "base/error.h"
#include "wire/router.h"

#include <errno.h>

#define BURST_NS 20000000ull      /* of an idle tenant's saving */
#define LONGEST_NS 1000000000ull  /* between two looks that counts */

int ffv_router_set_rate(struct ffv_router *router, uint64_t bytes_per_s)
{
	if (bytes_per_s > FFV_ROUTER_MAX_RATE)
		return ffv_fail(EINVAL, "a rate of %llu B/s is more than any network has", (unsigned long long)bytes_per_s);
	ffv_store_relaxed(&router->rate_bytes_per_s, bytes_per_s);
	return 0;
}

static void fill(struct ffv_router *router, uint64_t rate)
{
	uint64_t now_ns = ffv_clock_ns(), passed_ns = ffv_elapsed_ns(now_ns, router->filled_ns);
	int64_t most = (int64_t)(rate * BURST_NS / 1000000000u);

	if (passed_ns > LONGEST_NS)
		passed_ns = LONGEST_NS;
	int64_t added = (int64_t)(rate * passed_ns / 1000000000u);
	if (!added)
		return; /* what is too little yet counts the next time */
	router->filled_ns = now_ns;
	router->tokens += added;
	if (router->tokens > most)
		router->tokens = most;
}

bool ffv_rate_allows(struct ffv_router *router)
{
	uint64_t rate = ffv_load_relaxed(&router->rate_bytes_per_s);

	if (!rate)
		return true;
	fill(router, rate);
	if (router->tokens >= 0)
		return true;
	router->rate_wait_ms = 1 + (uint32_t)((uint64_t)-router->tokens * 1000u / rate);
	ffv_fetch_add(&router->rate_waits, 1u);
	return false;
}

void ffv_rate_spend(struct ffv_router *router, uint64_t bytes)
{
	if (ffv_load_relaxed(&router->rate_bytes_per_s))
		router->tokens -= (int64_t)bytes;
	else
		router->tokens = 0;
}

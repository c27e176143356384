/* SPDX-License-Identifier: MIT
 *
 * The engine's clock: CLOCK_MONOTONIC, which all processes and containers of a host share.
 */
#ifndef FFV_BASE_CLOCK_H
#define FFV_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t ffv_clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#endif

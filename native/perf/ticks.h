/* SPDX-License-Identifier: MIT
 *
 * The clock of one sample: the processor's constant-rate counter where there is one, else the engine's clock. Ticks
 * have no unit of their own: whoever takes samples reads ffv_clock_ns() at both ends of the run too and scales by it.
 */
#ifndef FFV_PERF_TICKS_H
#define FFV_PERF_TICKS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <x86intrin.h>

/* Whether the counter runs at one rate in every power state (CPUID 8000_0007h, EDX bit 8). */
static inline bool ticks_are_invariant(void)
{
	unsigned int a, b, c, d;

	return __get_cpuid(0x80000007u, &a, &b, &c, &d) && (d & (1u << 8));
}

static inline uint64_t ticks_now(bool invariant)
{
	return invariant ? __rdtsc() : ffv_clock_ns();
}
#else
static inline bool ticks_are_invariant(void)
{
	return false;
}

static inline uint64_t ticks_now(bool invariant)
{
	(void)invariant;
	return ffv_clock_ns();
}
#endif

#endif

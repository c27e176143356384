/* SPDX-License-Identifier: MIT
 *
 * Polling for a moment before sleeping: a peer that answers at once, on another processor, needs no wake-up then. How long is
 * learned from how often that was of use: where processors are scarce, it only keeps the peer from answering. Who has learned
 * that it is not tries again now and then, for as long as a peer takes that has to be woken up: else two who once slept would
 * wait for each other's wake-ups for ever. Any process; the state may be used by several threads at once, whose lessons may
 * get lost.
 */
#ifndef FFV_BASE_SPIN_H
#define FFV_BASE_SPIN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/atomics.h"
#include "base/clock.h"

#define FFV_SPIN_LONGEST_NS 128000u
#define FFV_SPIN_SHORTEST_NS 500u
#define FFV_SPIN_AGAIN 32u             /* one wait of so many tries again, for longest, whether it is worth while */

struct ffv_spin_state { _Atomic uint32_t spin_ns, waits; }; /* zero at first */
struct ffv_spin { uint64_t end_ns; uint32_t spin_ns; bool tries_again; };

/* False: it is not worth while. */
static inline bool ffv_spin_begin(struct ffv_spin_state *state, struct ffv_spin *spin)
{
	uint32_t waits = ffv_load_relaxed(&state->waits);

	spin->spin_ns = ffv_load_relaxed(&state->spin_ns);
	ffv_store_relaxed(&state->waits, waits + 1);
	if (!spin->spin_ns && waits % FFV_SPIN_AGAIN)
		return false;
	spin->tries_again = !spin->spin_ns;
	spin->spin_ns = spin->spin_ns ? spin->spin_ns : FFV_SPIN_LONGEST_NS;
	spin->end_ns = ffv_clock_ns() + spin->spin_ns;
	return true;
}

static inline bool ffv_spin_goes_on(const struct ffv_spin *spin)
{
	return ffv_clock_ns() < spin->end_ns;
}

static inline void ffv_spin_end(struct ffv_spin_state *state, const struct ffv_spin *spin, bool was_of_use)
{
	uint32_t longer = 2 * spin->spin_ns < FFV_SPIN_LONGEST_NS ? 2 * spin->spin_ns : FFV_SPIN_LONGEST_NS;
	uint32_t shorter = spin->tries_again || spin->spin_ns / 2 < FFV_SPIN_SHORTEST_NS ? 0 : spin->spin_ns / 2;

	ffv_store_relaxed(&state->spin_ns, was_of_use ? longer : shorter);
}

#endif

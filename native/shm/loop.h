/* SPDX-License-Identifier: MIT
 *
 * The service thread's event loop: one thread per process, asleep unless a descriptor is ready, a timer is due or it is
 * called. Process-private.
 *
 * Threading rule: callbacks run on the loop's thread, one at a time, without any lock of the loop's held. All functions
 * may be called from any thread, callbacks included. ffv_loop_remove waits until a running callback of that source
 * has returned, unless called from the loop's own thread.
 */
#ifndef FFV_SHM_LOOP_H
#define FFV_SHM_LOOP_H

#include <stdint.h>

struct ffv_loop;
struct ffv_loop_source;

/* events: EPOLLIN, EPOLLRDHUP, EPOLLHUP, ... as reported. */
typedef void (*ffv_loop_ready)(void *arg, uint32_t events);
/* Returns when it wants to be called next, in ns of ffv_clock_ns(), UINT64_MAX = not before somebody kicks. */
typedef uint64_t (*ffv_loop_timer)(void *arg, uint64_t now_ns);

/* Starts the thread, named "ffverbs"; all signals are blocked in it but those of its own faults. */
int ffv_loop_create(struct ffv_loop **out);
/* Stops and joins the thread; sources must have been removed. */
void ffv_loop_destroy(struct ffv_loop *loop);
/* In a fork child: frees memory (all sources included) and descriptors; the thread does not exist there. Nothing else may
 * be called there on a loop of the parent's. */
void ffv_loop_abandon(struct ffv_loop *loop);

/* Watches fd for EPOLLIN (level-triggered; hang-ups always). The descriptor stays the caller's and must be open until the
 * source is removed; a callback that leaves a hang-up unanswered is called again at once. *out is set before the first
 * callback. */
int ffv_loop_add(struct ffv_loop *loop, int fd, ffv_loop_ready ready, void *arg, struct ffv_loop_source **out);
/* Stops watching a descriptor's source for EPOLLIN (pause = 1), or goes on. */
void ffv_loop_pause(struct ffv_loop *loop, struct ffv_loop_source *source, int pause);
/* Frees the source. Whoever calls it must not hold what the source's callback may be waiting for. */
void ffv_loop_remove(struct ffv_loop *loop, struct ffv_loop_source *source);
/* A source without descriptor, for timers; timer is called when due and (once for all of them) after
 * ffv_loop_kick of it; not before the first kick. */
int ffv_loop_add_timer(struct ffv_loop *loop, ffv_loop_timer timer, void *arg, struct ffv_loop_source **out);
/* Has the source's timer called soon. Async-signal-safe, never blocks; the source must exist. */
void ffv_loop_kick(struct ffv_loop *loop, struct ffv_loop_source *source);
int ffv_loop_is_own_thread(const struct ffv_loop *loop);

#endif

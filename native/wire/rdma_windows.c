/* SPDX-License-Identifier: MIT
 *
 * See rdma_windows.h.
 */
#include "wire/rdma_windows.h"

#include <errno.h>

#include "base/clock.h"
#include "base/error.h"

#define REFUSED_NS 1000000000ull

void ffv_rdma_windows_init(struct ffv_rdma_windows *windows, const struct ffv_rdma_device *device,
			   struct ffv_window_counters *counters)
{
	*windows = (struct ffv_rdma_windows){ .device = device, .counters = counters };
	for (uint32_t i = 0; i < FFV_RDMA_WINDOWS; i++)
		windows->window[i].number = i;
}

static void drop(struct ffv_rdma_windows *windows, struct ffv_rdma_window *window)
{
	windows->device->verbs->dereg_mr(window->mr);
	windows->bytes -= window->place.length;
	ffv_fetch_sub(&windows->counters->bytes, window->place.length);
	ffv_fetch_add(&windows->counters->dropped, 1u);
	ffv_peer_put(window->peer);
	*window = (struct ffv_rdma_window){ .number = window->number + FFV_RDMA_WINDOWS };
}

static bool has(const struct ffv_rdma_window *window, const struct ffv_peer *peer, const struct ffv_place *place, bool far)
{
	return window->mr && window->peer == peer && window->place.region == place->region &&
	       window->place.stamp == place->stamp && window->far == far && place->here >= window->place.here &&
	       place->here + place->length <= window->place.here + window->place.length;
}

/* The window's memory is its owner's no longer. */
static bool is_stale(const struct ffv_rdma_window *window)
{
	return ffv_peer_state(window->peer) == FFV_PEER_GONE || !ffv_place_stands(&window->peer->view, &window->place);
}

/* A free entry, with room for `bytes`: what was not used for longest goes first. NULL: everything is in use. */
static struct ffv_rdma_window *make_room(struct ffv_rdma_windows *windows, uint64_t bytes)
{
	for (;;) {
		struct ffv_rdma_window *unused = NULL, *oldest = NULL;
		for (uint32_t i = 0; i < FFV_RDMA_WINDOWS; i++) {
			struct ffv_rdma_window *window = &windows->window[i];
			if (!window->mr)
				unused = window;
			else if (!window->users && (!oldest || window->used_ns < oldest->used_ns))
				oldest = window;
		}
		if (unused && windows->bytes + bytes <= FFV_RDMA_REGISTERED_BYTES)
			return unused;
		if (!oldest)
			return NULL;
		drop(windows, oldest);
	}
}

/* The window of the grid around the place's first byte that it begins with, widened to what of the place it has to hold. */
static void widen(const struct ffv_place *place, struct ffv_place *out)
{
	uint64_t offset = (uint64_t)(place->here - place->first), grid = offset & ~(FFV_RDMA_WINDOW_BYTES - 1);
	uint64_t end = grid + FFV_RDMA_WINDOW_BYTES, whole = (uint64_t)(place->end - place->first);

	if (end < offset + place->length)
		end = offset + place->length;
	if (end > whole)
		end = whole;
	*out = *place;
	out->here = place->first + grid;
	out->length = end - grid;
}

static struct ffv_rdma_window *make(struct ffv_rdma_windows *windows, struct ffv_peer *peer, const struct ffv_place *place,
				    bool far)
{
	int access = FFV_ACCESS_LOCAL_WRITE | (far ? FFV_ACCESS_REMOTE_WRITE | FFV_ACCESS_REMOTE_READ : 0);
	struct ffv_place wide;

	if (windows->refused_ns && ffv_clock_ns() - windows->refused_ns < REFUSED_NS)
		return NULL;
	widen(place, &wide);
	struct ffv_rdma_window *window = make_room(windows, wide.length);
	struct ffv_peer *held = window ? ffv_peer_get(peer->ctx, peer->gid, peer->qpn_first) : NULL;
	if (!held)
		return NULL;
	struct real_mr *mr = held == peer ? ffv_rdma_register(windows->device, wide.here, wide.length, access) : NULL;
	if (!mr) {
		windows->refused_ns = held == peer ? ffv_clock_ns() : 0;
		ffv_peer_put(held);
		return NULL;
	}
	*window = (struct ffv_rdma_window){ .number = window->number, .mr = mr, .peer = peer, .place = wide, .far = far };
	windows->bytes += wide.length;
	ffv_fetch_add(&windows->counters->bytes, wide.length);
	ffv_fetch_add(&windows->counters->made, 1u);
	return window;
}

int ffv_rdma_windows_get(struct ffv_rdma_windows *windows, struct ffv_peer *peer, const struct ffv_place *place, bool far,
			 struct ffv_real_window *out)
{
	struct ffv_rdma_window *window = NULL;

	for (uint32_t i = 0; i < FFV_RDMA_WINDOWS && !window; i++)
		if (has(&windows->window[i], peer, place, far))
			window = &windows->window[i];
	if (window)
		ffv_fetch_add(&windows->counters->found, 1u);
	else
		window = make(windows, peer, place, far);
	if (!window)
		return ffv_fail(ENOMEM, "no more of the containers' memory can be registered on the real device");
	window->users++;
	window->used_ns = ffv_clock_ns();
	*out = (struct ffv_real_window){ { (uintptr_t)place->here, far ? window->mr->rkey : window->mr->lkey,
					   (uint32_t)place->length }, window->number };
	return 0;
}

void ffv_rdma_windows_release(struct ffv_rdma_windows *windows, uint32_t number, bool fence)
{
	struct ffv_rdma_window *window = &windows->window[number % FFV_RDMA_WINDOWS];

	if (window->number != number)
		return; /* dropped by somebody else's fence, or forgotten */
	window->users--;
	if (fence)
		drop(windows, window);
}

void ffv_rdma_windows_forget(struct ffv_rdma_windows *windows, const struct ffv_context *of, uint64_t now_ns)
{
	for (uint32_t i = 0; i < FFV_RDMA_WINDOWS; i++) {
		struct ffv_rdma_window *window = &windows->window[i];
		if (!window->mr)
			continue;
		bool unused = !of && !window->users && (is_stale(window) || now_ns > window->used_ns + FFV_RDMA_UNUSED_NS);
		if (unused || (of && window->peer->ctx == of))
			drop(windows, window);
	}
}

void ffv_rdma_windows_finish(struct ffv_rdma_windows *windows)
{
	for (uint32_t i = 0; i < FFV_RDMA_WINDOWS; i++)
		if (windows->window[i].mr)
			drop(windows, &windows->window[i]);
}

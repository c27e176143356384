/* SPDX-License-Identifier: MIT
 *
 * The transport `fault`: tcp with a layer that loses, doubles, delays and reorders whole frames on the way out, and cuts
 * connections or lets them go silent: what a network may do, by chance, the same for the same seed and frames. It is for
 * tests of whoever relies on the routers, and of the routers. See transport.h.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "wire/frame.h"
#include "wire/transport.h"

#define MOST_QUEUED (1u << 20)

/* Probabilities of a frame, in 2^-32. */
struct faults {
	uint32_t drop, twice, reorder, delay, cut, half_open;
	uint32_t delay_ms;            /* at most */
	uint32_t seed;
};

static struct faults faults;      /* of links that are opened from now on */
static _Atomic uint32_t links;    /* each draws its own numbers */

struct queued { struct queued *next; uint64_t due_ns; size_t length, sent; uint8_t bytes[]; };

struct ffv_wire_link {
	const struct ffv_transport *inner;
	struct faults faults;
	struct ffv_wire_link *below;
	int epoll_fd, timer_fd;
	uint64_t random;
	bool cut, half_open, blocked, timed;
	size_t have;                  /* of the frame that is being taken in */
	uint8_t frame[sizeof(struct ffv_frame) + FFV_FRAME_MAX_PAYLOAD + 8];
	struct queued *queue;
	size_t queued_bytes;
};

/* ---- what is wanted --------------------------------------------------------------------------------------------------------- */

static const struct { const char *name; size_t at; bool chance; } words[] = {
	{ "seed", offsetof(struct faults, seed), false },       { "drop", offsetof(struct faults, drop), true },
	{ "twice", offsetof(struct faults, twice), true },      { "reorder", offsetof(struct faults, reorder), true },
	{ "delay", offsetof(struct faults, delay), true },      { "delay_ms", offsetof(struct faults, delay_ms), false },
	{ "cut", offsetof(struct faults, cut), true },          { "half_open", offsetof(struct faults, half_open), true },
};

static int set_word(struct faults *to, const char *name, const char *value)
{
	for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
		if (strcmp(words[i].name, name) != 0)
			continue;
		char *end = NULL;
		double number = strtod(value, &end);
		if (end == value || *end || !(number >= 0 && number <= (words[i].chance ? 1.0 : 4294967295.0)))
			return ffv_fail(EINVAL, "%s of faults is %s: it is %s", name, value,
					words[i].chance ? "a probability, 0 to 1" : "a whole number");
		*(uint32_t *)(void *)((uint8_t *)to + words[i].at) = (uint32_t)(words[i].chance ? number * 4294967295.0 : number);
		return 0;
	}
	return ffv_fail(EINVAL, "there is no fault %s: they are drop, twice, reorder, delay, delay_ms, cut, half_open and seed", name);
}

int ffv_fault_configure(const char *text)
{
	struct faults wanted = { .delay_ms = 20 };
	char copy[256], *rest = copy, *word;

	if (snprintf(copy, sizeof copy, "%s", text) >= (int)sizeof copy)
		return ffv_fail(EINVAL, "the faults are longer than %zu characters", sizeof copy - 1);
	while ((word = strsep(&rest, ",")) != NULL) {
		char *value = strchr(word, '=');
		if (!value)
			return ffv_fail(EINVAL, "faults are NAME=NUMBER,...: `%s` is not", word);
		*value++ = 0;
		int rc = set_word(&wanted, word, value);
		if (rc)
			return rc;
	}
	faults = wanted;
	return 0;
}

/* ---- links ------------------------------------------------------------------------------------------------------------------- */

static bool happens(struct ffv_wire_link *link, uint32_t chance)
{
	link->random ^= link->random << 13; /* xorshift64 */
	link->random ^= link->random >> 7;
	link->random ^= link->random << 17;
	return chance && (uint32_t)(link->random >> 32) <= chance;
}

static void fault_close(struct ffv_wire_link *link)
{
	while (link->queue) {
		struct queued *first = link->queue;
		link->queue = first->next;
		free(first);
	}
	if (link->below)
		link->inner->close(link->below);
	if (link->timer_fd >= 0)
		close(link->timer_fd);
	if (link->epoll_fd >= 0)
		close(link->epoll_fd);
	free(link);
}

static int watch(struct ffv_wire_link *link, int operation, int fd, uint32_t events)
{
	return epoll_ctl(link->epoll_fd, operation, fd, &(struct epoll_event){ .events = events });
}

static int fault_open(const struct ffv_transport_options *options, int socket, struct ffv_wire_link **out)
{
	struct ffv_wire_link *link = calloc(1, sizeof *link);

	if (!link)
		return ffv_fail(ENOMEM, "no memory for a channel");
	link->inner = &ffv_transport_tcp;
	link->faults = faults;
	link->random = (link->faults.seed + 1ull) * 0x9e3779b97f4a7c15ull ^ (atomic_fetch_add(&links, 1) + 1ull) * 0xbf58476d1ce4e5b9ull;
	link->random |= 1;
	link->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	link->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	/* tcp's descriptor is the socket. */
	int rc = link->epoll_fd < 0 || link->timer_fd < 0 || watch(link, EPOLL_CTL_ADD, link->timer_fd, EPOLLIN) ||
		 watch(link, EPOLL_CTL_ADD, socket, EPOLLIN)
			 ? ffv_fail_errno(errno, "the descriptors of a channel cannot be made")
			 : link->inner->open(options, socket, &link->below);
	if (rc)
		fault_close(link);
	else
		*out = link;
	return rc;
}

static int fault_descriptor(const struct ffv_wire_link *link)
{
	return link->epoll_fd;
}

/* ---- sending ------------------------------------------------------------------------------------------------------------------ */

static void set_timer(struct ffv_wire_link *link)
{
	uint64_t due = link->queue ? link->queue->due_ns : 0;
	if (!due && !link->timed)
		return;
	struct itimerspec at = { .it_value = { (time_t)(due / 1000000000u), (long)(due % 1000000000u) } };

	timerfd_settime(link->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
	link->timed = due != 0;
}

/* Whatever is due goes out, in order. -errno: the link is lost. */
static int pump(struct ffv_wire_link *link)
{
	bool blocked = false;

	while (link->queue && !blocked && link->queue->due_ns <= ffv_clock_ns()) {
		struct queued *first = link->queue;
		ssize_t n = link->half_open ? (ssize_t)(first->length - first->sent)
					    : link->inner->send(link->below, first->bytes + first->sent, first->length - first->sent);
		if (n < 0)
			return (int)n;
		first->sent += (size_t)n;
		blocked = first->sent < first->length;
		if (blocked)
			break;
		link->queue = first->next;
		link->queued_bytes -= first->length;
		free(first);
	}
	if (blocked != link->blocked)
		watch(link, EPOLL_CTL_MOD, link->inner->descriptor(link->below), EPOLLIN | (blocked ? EPOLLOUT : 0u));
	link->blocked = blocked;
	if (!blocked)
		set_timer(link);
	return 0;
}

/* Behind the others, or in front of the last one if that has not begun to go. */
static void enqueue(struct ffv_wire_link *link, uint64_t now, bool early)
{
	struct queued *added = malloc(sizeof *added + link->have), **to = &link->queue;

	if (!added)
		return; /* lost, as on a wire */
	*added = (struct queued){ .length = link->have, .due_ns = now };
	memcpy(added->bytes, link->frame, link->have);
	if (happens(link, link->faults.delay))
		added->due_ns += link->random % (link->faults.delay_ms + 1ull) * 1000000u;
	while (*to && ((*to)->next || !early || (*to)->sent))
		to = &(*to)->next;
	added->next = *to;
	*to = added;
	link->queued_bytes += added->length;
}

/* A whole frame is there: what becomes of it? */
static void decide(struct ffv_wire_link *link)
{
	uint64_t now = ffv_clock_ns();
	struct queued *last = link->queue;

	link->cut |= happens(link, link->faults.cut);
	link->half_open |= happens(link, link->faults.half_open);
	if (!happens(link, link->faults.drop)) {
		bool early = happens(link, link->faults.reorder);
		while (last && last->next)
			last = last->next;
		if (early && !last)
			now += 1000000; /* for another one to overtake it */
		enqueue(link, now, early);
		if (happens(link, link->faults.twice))
			enqueue(link, now, false);
	}
	link->have = 0;
}

/* How much is missing of the header, or of the frame once that is there. */
static size_t missing(const struct ffv_wire_link *link)
{
	struct ffv_frame header;

	if (link->have < sizeof header)
		return sizeof header - link->have;
	memcpy(&header, link->frame, sizeof header);
	return ffv_frame_bytes(header.payload_bytes) - link->have;
}

static ssize_t fault_send(struct ffv_wire_link *link, const void *bytes, size_t length)
{
	size_t taken = 0;

	while (taken < length && link->queued_bytes < MOST_QUEUED && !link->cut) {
		size_t n = missing(link);
		n = n < length - taken ? n : length - taken;
		memcpy(link->frame + link->have, (const uint8_t *)bytes + taken, n);
		link->have += n;
		taken += n;
		if (link->have >= sizeof(struct ffv_frame) && !missing(link))
			decide(link);
	}
	int rc = link->cut ? ffv_fail(ECONNRESET, "the connection was cut on purpose") : pump(link);
	return rc ? rc : (ssize_t)taken;
}

/* ---- receiving ---------------------------------------------------------------------------------------------------------------- */

static ssize_t fault_receive(struct ffv_wire_link *link, void *bytes, size_t capacity)
{
	uint64_t expired;
	int rc = link->cut ? ffv_fail(ECONNRESET, "the connection was cut on purpose") : 0;

	if (read(link->timer_fd, &expired, sizeof expired) < 0)
		expired = 0; /* not due */
	if (!rc)
		rc = pump(link);
	if (rc)
		return rc;
	ssize_t n = link->inner->receive(link->below, bytes, capacity);
	return link->half_open && n > 0 ? 0 : n;
}

static void fault_describe(struct ffv_wire_link *link, char *text, size_t capacity)
{
	char below[64] = "";

	link->inner->describe(link->below, below, sizeof below);
	snprintf(text, capacity, "%s, with faults on purpose (seed %u)", below, link->faults.seed);
}

const struct ffv_transport ffv_transport_fault = {
	.name = "fault", .silent_ns = 1000000000ull, .open = fault_open, .close = fault_close,
	.descriptor = fault_descriptor, .send = fault_send, .receive = fault_receive, .describe = fault_describe,
};

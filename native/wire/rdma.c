/* SPDX-License-Identifier: MIT
 *
 * The transport `rdma`: the stream of frames goes through one real RC queue pair, whose ends the two routers make known to
 * each other over the stream socket. See transport.h and docs/decisions/0025.
 *
 * A link goes from round to round. In each, both ends make an OFFER (a real queue pair, or why there is none); when both are
 * known, each says READY and how much of the stream it has, and the other goes on from there: through the real queue pair
 * if there are two, else over the socket. Whoever loses its queue pair, or has a device again, begins the next round. What
 * was under way in slots is kept until the other end has taken it over, so that a round loses nothing and repeats nothing.
 * The socket is what tells that the other router is alive: when it ends, so does the link.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "wire/rdma_notes.h"
#include "wire/transport.h"

#define MOST_ATTEMPTS 3u              /* at a real queue pair, in a row */
#define SETTLED_NS 10000000000ull     /* a queue pair that has lived so long counts as a success */
#define AGAIN_FIRST_NS 1000000000ull  /* until a device is looked for again, doubled up to the most */
#define AGAIN_MOST_NS 60000000000ull
#define SILENT_NS 15000000000ull      /* the device and the socket notice earlier what they can */
#define EARLY_BYTES ((size_t)FFV_RDMA_SLOTS * FFV_RDMA_SLOT_BYTES * 2)

enum path { PAUSED, BY_TCP, BY_QP };

static _Atomic uint64_t carriers;     /* that there were in this process */

struct bytes { uint8_t *at; size_t head, tail; };

struct ffv_wire_link {
	struct ffv_transport_options options;
	uint64_t carrier;             /* number of `qp` among all there ever were */
	struct ffv_notes notes;
	int epoll_fd, timer_fd;
	bool asks_out;                /* the socket is watched for becoming writable */
	/* the round */
	uint32_t round;
	bool got_offer, settled;      /* theirs is known; READY was said */
	struct ffv_note_offer ours, theirs;
	struct ffv_rdma_qp *qp;
	enum path path;
	/* the stream */
	uint64_t sent, received;
	struct bytes again;           /* of what was sent: to be sent again, up to `sent` */
	struct bytes early;           /* received from a queue pair that is gone */
	/* trouble */
	uint32_t attempts;            /* that failed, in a row */
	uint64_t settled_ns, again_ns, wait_ns; /* when: the round settled, a device is looked for; how long it was waited */
	uint64_t losses;
	int ended;                    /* -errno: nothing more comes after what is there; `ended_why` */
	char ended_why[200];
	pthread_mutex_t lock;         /* of text */
	char text[400];
};

static int begin_round(struct ffv_wire_link *link, uint32_t round);

/* ---- what is watched ------------------------------------------------------------------------------------------------------------- */

static void set_timer(struct ffv_wire_link *link, uint64_t in_ns)
{
	struct itimerspec at = { .it_value = { (time_t)(in_ns / 1000000000u), (long)(in_ns % 1000000000u) } };

	timerfd_settime(link->timer_fd, 0, &at, NULL);
}

/* The descriptor becomes readable at once: there is more to be received than was asked for. */
static void come_again(struct ffv_wire_link *link)
{
	set_timer(link, 1);
}

static void watch(struct ffv_wire_link *link, int fd, uint32_t events, int how)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	if (fd >= 0)
		epoll_ctl(link->epoll_fd, how, fd, &event);
}

static void watch_for_room(struct ffv_wire_link *link)
{
	bool wanted = link->notes.full;

	if (wanted != link->asks_out)
		watch(link, link->notes.socket, EPOLLIN | (wanted ? EPOLLOUT : 0u), EPOLL_CTL_MOD);
	link->asks_out = wanted;
}

/* ---- rounds ------------------------------------------------------------------------------------------------------------------------ */

static void say(struct ffv_wire_link *link, const char *text)
{
	pthread_mutex_lock(&link->lock);
	snprintf(link->text, sizeof link->text, "%s", text);
	pthread_mutex_unlock(&link->lock);
}

static void say_how(struct ffv_wire_link *link)
{
	char text[sizeof link->text], lost[48] = "";

	if (link->losses)
		snprintf(lost, sizeof lost, ", %llu lost before", (unsigned long long)link->losses);
	if (link->path == BY_QP)
		snprintf(text, sizeof text, "rdma %s port %u GID index %u, queue pair %u to %u%s", link->qp->device.name,
			 link->qp->device.port, link->qp->device.gid_index, link->ours.endpoint.qpn, link->theirs.endpoint.qpn,
			 lost);
	else if (!link->ours.usable)
		snprintf(text, sizeof text, "tcp, for there is no RDMA at this end: %s", link->ours.why);
	else
		snprintf(text, sizeof text, "tcp, for there is no RDMA at the other end: %s", link->theirs.why);
	say(link, text);
}

/* What the queue pair still had: received goes to `early`, what was not taken over to `again`, before what is there. */
static int save(struct ffv_wire_link *link)
{
	struct bytes *early = &link->early, *again = &link->again;
	size_t waiting = again->tail - again->head, length;
	uint64_t position = 0;
	uint8_t *bytes;

	if (!early->at && !(early->at = malloc(EARLY_BYTES)))
		return ffv_fail(ENOMEM, "no memory for what a real queue pair had received");
	if (link->settled) {
		size_t n = ffv_rdma_qp_drain(link->qp, early->at + early->tail, EARLY_BYTES - early->tail);
		early->tail += n;
		link->received += n;
	}
	int rc = ffv_rdma_qp_unacknowledged(link->qp, &position, &bytes, &length);
	if (rc)
		return rc;
	uint8_t *both = malloc(length + waiting + 1);
	if (both) {
		memcpy(both, bytes, length);
		if (waiting) /* else there may be no such buffer yet */
			memcpy(both + length, again->at + again->head, waiting);
	}
	free(bytes);
	if (!both)
		return ffv_fail(ENOMEM, "no memory to send again what was under way");
	free(again->at);
	*again = (struct bytes){ both, 0, length + waiting };
	return 0;
}

static int drop_qp(struct ffv_wire_link *link)
{
	int rc = link->qp ? save(link) : 0;

	if (link->qp) {
		watch(link, link->qp->events->fd, 0, EPOLL_CTL_DEL);
		watch(link, link->qp->device.context->async_fd, 0, EPOLL_CTL_DEL);
		watch(link, link->qp->device.uevents, 0, EPOLL_CTL_DEL);
	}
	ffv_rdma_qp_destroy(link->qp);
	link->qp = NULL;
	return rc;
}

static void make_qp(struct ffv_wire_link *link)
{
	struct ffv_note_offer *ours = &link->ours;

	if (link->attempts < MOST_ATTEMPTS && !ffv_rdma_qp_create(&link->options, &link->qp)) {
		ours->usable = 1;
		link->carrier = ffv_fetch_add(&carriers, 1u) + 1;
		ffv_rdma_qp_endpoint(link->qp, &ours->endpoint);
		watch(link, link->qp->events->fd, EPOLLIN, EPOLL_CTL_ADD);
		watch(link, link->qp->device.context->async_fd, EPOLLIN, EPOLL_CTL_ADD);
		watch(link, link->qp->device.uevents, EPOLLIN, EPOLL_CTL_ADD);
		return;
	}
	if (link->attempts < MOST_ATTEMPTS)
		snprintf(ours->why, sizeof ours->why, "%s", ffv_error_text());
	link->wait_ns = link->wait_ns ? link->wait_ns * 2 : AGAIN_FIRST_NS;
	link->wait_ns = link->wait_ns < AGAIN_MOST_NS ? link->wait_ns : AGAIN_MOST_NS;
	link->again_ns = ffv_clock_ns() + link->wait_ns;
	set_timer(link, link->wait_ns);
}

static int begin_round(struct ffv_wire_link *link, uint32_t round)
{
	struct ffv_note note = { .kind = FFV_NOTE_OFFER, .length = sizeof link->ours, .round = round };
	int rc = drop_qp(link);

	if (rc)
		return rc;
	link->round = round;
	link->got_offer = link->settled = false;
	link->path = PAUSED;
	link->again_ns = 0;
	link->ours.usable = 0;
	link->ours.tcp_allowed = link->options.rdma.tcp_allowed != 0;
	make_qp(link);
	say(link, "both routers are making up what to use");
	if (link->early.tail)
		come_again(link);
	return ffv_notes_put(&link->notes, &note, &link->ours);
}

/* The queue pair is no more, and ffv_error_text() says why. */
static int lose(struct ffv_wire_link *link)
{
	bool lived = link->settled && ffv_clock_ns() - link->settled_ns > SETTLED_NS;

	snprintf(link->ours.why, sizeof link->ours.why, "%s", ffv_error_text());
	link->attempts = lived ? 1 : link->attempts + 1;
	link->losses++;
	if (lived)
		link->wait_ns = 0;
	return begin_round(link, link->round + 1);
}

/* Both offers are known. */
static int settle(struct ffv_wire_link *link)
{
	struct ffv_note ready = { .kind = FFV_NOTE_READY, .round = link->round, .position = link->received };
	bool both = link->ours.usable && link->theirs.usable;

	if (!both && !(link->ours.tcp_allowed && link->theirs.tcp_allowed))
		return ffv_fail(ENETUNREACH, "RDMA is demanded, but not there at %s end: %s", link->ours.usable ? "the other" : "this",
				link->ours.usable ? link->theirs.why : link->ours.why);
	if (both && ffv_rdma_qp_connect(link->qp, &link->theirs.endpoint, link->received))
		return lose(link);
	link->settled = true;
	link->settled_ns = ffv_clock_ns();
	return ffv_notes_put(&link->notes, &ready, NULL);
}

/* The other end has the stream up to `position`: it goes on from there. */
static int on_ready(struct ffv_wire_link *link, uint64_t position)
{
	struct bytes *again = &link->again;
	size_t waiting = again->tail - again->head;

	if (position > link->sent || link->sent - position > waiting)
		return ffv_fail(EPROTO, "the other router has lost bytes");
	again->head = again->tail - (size_t)(link->sent - position);
	link->path = link->ours.usable && link->theirs.usable ? BY_QP : BY_TCP;
	say_how(link);
	return 0;
}

static int on_note(struct ffv_wire_link *link, const struct ffv_note *note, const struct ffv_note_offer *offer)
{
	int rc = 0;

	switch (note->kind) {
	case FFV_NOTE_OFFER:
		if (note->round < link->round)
			return 0; /* it had not heard of ours yet */
		if (note->round > link->round) {
			if (offer->usable && link->attempts >= MOST_ATTEMPTS)
				link->attempts = MOST_ATTEMPTS - 1; /* it knows better */
			rc = begin_round(link, note->round);
		}
		if (rc || link->got_offer)
			return rc ? rc : ffv_fail(EPROTO, "the other router made two offers in one round");
		link->theirs = *offer;
		link->got_offer = true;
		return settle(link);
	case FFV_NOTE_READY:
		if (note->round != link->round || !link->settled || link->path != PAUSED)
			return note->round < link->round ? 0 : ffv_fail(EPROTO, "the other router is ready too early");
		return on_ready(link, note->position);
	default:
		return note->position == link->received ? 0 : ffv_fail(EPROTO, "the other router sent bytes out of order");
	}
}

/* ---- sending ------------------------------------------------------------------------------------------------------------------------- */

/* Hands a piece of the stream, from `position` on, to what carries it now. How many bytes, 0, -errno. */
static ssize_t carry(struct ffv_wire_link *link, uint64_t position, const uint8_t *bytes, size_t length)
{
	switch (link->path) {
	case BY_QP:
		return ffv_rdma_qp_send(link->qp, position, bytes, length);
	case BY_TCP:
		return ffv_notes_put_data(&link->notes, position, bytes, length);
	default:
		return ffv_notes_flush(&link->notes);
	}
}

/* It failed: without a queue pair the link goes on, without its socket it does not. */
static int get_over(struct ffv_wire_link *link, int error)
{
	return link->path == BY_QP ? lose(link) : error;
}

/* What has to be sent again goes first. 1 = nothing is left of it. */
static int send_again(struct ffv_wire_link *link)
{
	while (link->again.head != link->again.tail) {
		size_t left = link->again.tail - link->again.head;
		ssize_t n = carry(link, link->sent - left, link->again.at + link->again.head, left);
		if (n < 0)
			return get_over(link, (int)n);
		if (n == 0)
			return 0;
		link->again.head += (size_t)n;
	}
	return 1;
}

static ssize_t rdma_send(struct ffv_wire_link *link, const void *bytes, size_t length)
{
	int rc = send_again(link);
	size_t total = 0;

	while (rc == 1 && total < length) {
		ssize_t n = carry(link, link->sent, (const uint8_t *)bytes + total, length - total);
		if (n > 0) {
			link->sent += (uint64_t)n;
			total += (size_t)n;
		} else {
			rc = n < 0 ? get_over(link, (int)n) : 0;
		}
	}
	watch_for_room(link);
	return rc < 0 ? rc : (ssize_t)total;
}

/* ---- receiving ----------------------------------------------------------------------------------------------------------------------- */

static size_t take_early(struct ffv_wire_link *link, uint8_t *bytes, size_t capacity)
{
	struct bytes *early = &link->early;
	size_t n = early->tail - early->head;

	n = n < capacity ? n : capacity;
	if (n)
		memcpy(bytes, early->at + early->head, n);
	early->head += n;
	if (early->head == early->tail)
		early->head = early->tail = 0;
	return n;
}

/* The link is over, and ffv_error_text() says why: told when all that came before has been handed out. */
static void end(struct ffv_wire_link *link, int error)
{
	link->ended = error;
	snprintf(link->ended_why, sizeof link->ended_why, "%s", ffv_error_text());
}

/* Notes, and the bytes that come with them: how many, even if the link ends behind them. */
static size_t read_notes(struct ffv_wire_link *link, uint8_t *bytes, size_t capacity)
{
	struct ffv_note_offer offer;
	struct ffv_note note;
	size_t total = 0;
	int rc = 1;

	while (rc == 1 && !link->early.tail) { /* which is of before what follows */
		ssize_t n = 0;
		if (link->notes.data_left)
			n = ffv_notes_take_data(&link->notes, bytes + total, capacity - total);
		if (n > 0) {
			link->received += (uint64_t)n;
			total += (size_t)n;
		}
		if (n < 0 || link->notes.data_left) {
			rc = n < 0 ? (int)n : 0;
			break;
		}
		rc = ffv_notes_next(&link->notes, &note, &offer);
		if (rc == 1 && on_note(link, &note, &offer))
			rc = -EPROTO;
	}
	if (rc < 0)
		end(link, rc);
	return total;
}

/* The device may be there again: that is worth another round. */
static int look_again(struct ffv_wire_link *link)
{
	struct ffv_rdma_device device;

	if (link->ours.usable || !link->again_ns || ffv_clock_ns() < link->again_ns)
		return 0;
	if (ffv_rdma_device_open(&link->options.rdma, &device)) {
		link->again_ns = ffv_clock_ns() + link->wait_ns;
		set_timer(link, link->wait_ns);
		return 0;
	}
	ffv_rdma_device_close(&device);
	link->attempts = MOST_ATTEMPTS - 1;
	return begin_round(link, link->round + 1);
}

static int on_timer(struct ffv_wire_link *link)
{
	uint64_t count, now = ffv_clock_ns();

	if (read(link->timer_fd, &count, sizeof count) < 0)
		return 0;
	if (link->again_ns > now) {
		set_timer(link, link->again_ns - now);
		return 0;
	}
	return look_again(link);
}

static int on_async(struct ffv_wire_link *link)
{
	return link->qp && ffv_rdma_qp_async(link->qp) ? lose(link) : 0;
}

/* Looks at what is ready but the queue pair's completions, whose descriptor ffv_rdma_qp_receive() takes care of. */
static size_t serve_ready(struct ffv_wire_link *link, uint8_t *bytes, size_t capacity)
{
	struct epoll_event events[5];
	int count = epoll_wait(link->epoll_fd, events, 5, 0);
	bool notes = link->notes.data_left != 0, timer = false, async = false;
	int rc = 0;

	for (int i = 0; i < count; i++) {
		notes |= events[i].data.fd == link->notes.socket;
		timer |= events[i].data.fd == link->timer_fd;
		async |= link->qp && (events[i].data.fd == link->qp->device.context->async_fd ||
				      events[i].data.fd == link->qp->device.uevents);
	}
	if (async)
		rc = on_async(link);
	if (timer && !rc)
		rc = on_timer(link);
	if (rc)
		end(link, rc);
	if (rc || !notes || link->early.tail)
		return 0;
	return read_notes(link, bytes, capacity);
}

static ssize_t rdma_receive(struct ffv_wire_link *link, void *to, size_t capacity)
{
	uint8_t *bytes = to;
	size_t total = take_early(link, bytes, capacity);

	if (total == capacity) {
		come_again(link);
		return (ssize_t)total;
	}
	if (!link->ended)
		total += serve_ready(link, bytes + total, capacity - total);
	/* The other end may have closed after its last words, which are in the queue pair. */
	if (link->qp && link->settled && total < capacity) {
		ssize_t n = ffv_rdma_qp_receive(link->qp, bytes + total, capacity - total);
		link->received += n > 0 ? (uint64_t)n : 0;
		total += n > 0 ? (size_t)n : 0;
		int rc = n < 0 && !link->ended ? lose(link) : 0;
		if (rc)
			end(link, rc);
	}
	watch_for_room(link);
	if (link->ended && !total && !link->early.tail)
		return ffv_fail(-link->ended, "%s", link->ended_why);
	if (total == capacity || link->early.tail || link->ended)
		come_again(link);
	return (ssize_t)total;
}

/* ---- life -------------------------------------------------------------------------------------------------------------------------------- */

static void rdma_part(struct ffv_wire_link *link)
{
	if (link->qp && link->path == BY_QP && !link->ended)
		ffv_rdma_qp_finish_sending(link->qp, FFV_PART_NS);
}

static void rdma_close(struct ffv_wire_link *link)
{
	ffv_rdma_qp_destroy(link->qp);
	ffv_notes_finish(&link->notes);
	free(link->again.at);
	free(link->early.at);
	if (link->epoll_fd >= 0)
		close(link->epoll_fd);
	if (link->timer_fd >= 0)
		close(link->timer_fd);
	if (link->notes.socket >= 0)
		close(link->notes.socket);
	pthread_mutex_destroy(&link->lock);
	free(link);
}

static int rdma_open(const struct ffv_transport_options *options, int socket, struct ffv_wire_link **out)
{
	struct ffv_wire_link *link = calloc(1, sizeof *link);
	int flags = fcntl(socket, F_GETFL), one = 1, rc = 0;

	if (!link)
		return ffv_fail(ENOMEM, "no memory for a channel");
	pthread_mutex_init(&link->lock, NULL);
	link->options = *options;
	link->ours.one_sided = 1;
	ffv_notes_init(&link->notes, socket);
	link->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	link->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (link->epoll_fd < 0 || link->timer_fd < 0 || flags < 0 || fcntl(socket, F_SETFL, flags | O_NONBLOCK))
		rc = ffv_fail_errno(errno, "the descriptors of a channel cannot be made");
	if (!rc) {
		setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* not there on Unix sockets, nor needed */
		watch(link, socket, EPOLLIN, EPOLL_CTL_ADD);
		watch(link, link->timer_fd, EPOLLIN, EPOLL_CTL_ADD);
		rc = begin_round(link, 1);
	}
	if (rc) {
		link->notes.socket = -1; /* it stays the caller's */
		rdma_close(link);
		return rc;
	}
	*out = link;
	return 0;
}

static int rdma_descriptor(const struct ffv_wire_link *link)
{
	return link->epoll_fd;
}

static void rdma_describe(struct ffv_wire_link *link, char *text, size_t capacity)
{
	pthread_mutex_lock(&link->lock);
	snprintf(text, capacity, "%s", link->text);
	pthread_mutex_unlock(&link->lock);
}

/* ---- one-sided operations ---------------------------------------------------------------------------------------------------------------- */

static uint64_t name_of(const struct ffv_rdma_endpoint *endpoint)
{
	return (uint64_t)endpoint->psn << 32 | endpoint->qpn;
}

static uint64_t rdma_carrier(const struct ffv_wire_link *link, uint64_t *near, uint64_t *far)
{
	if (link->path != BY_QP || link->qp->broken || !link->theirs.one_sided)
		return 0;
	*near = name_of(&link->ours.endpoint);
	*far = name_of(&link->theirs.endpoint);
	return link->carrier;
}

static int rdma_window(struct ffv_wire_link *link, struct ffv_peer *peer, const struct ffv_place *place, bool far,
		       struct ffv_real_window *out)
{
	return ffv_rdma_windows_get(&link->qp->windows, peer, place, far, out);
}

static void rdma_release(struct ffv_wire_link *link, uint64_t carrier, uint32_t number, bool fence)
{
	if (link->qp && link->carrier == carrier)
		ffv_rdma_windows_release(&link->qp->windows, number, fence);
}

static void rdma_forget(struct ffv_wire_link *link, const struct ffv_context *of, uint64_t now_ns)
{
	if (link->qp)
		ffv_rdma_windows_forget(&link->qp->windows, of, now_ns);
}

static int rdma_move(struct ffv_wire_link *link, bool reads, const struct ffv_real_piece *here, int num_here,
		     const struct ffv_real_piece *there, int num_there, uint32_t *ticket)
{
	int rc = ffv_rdma_qp_move(link->qp, reads, here, num_here, there, num_there, ticket);

	if (link->qp->broken) /* found out by `receive`, which goes on with another */
		come_again(link);
	return rc;
}

static int rdma_has_moved(const struct ffv_wire_link *link, uint64_t carrier, uint32_t ticket)
{
	return !link->qp || link->carrier != carrier ? -1 : ffv_rdma_qp_has_moved(link->qp, ticket);
}

static const struct ffv_one_sided one_sided = {
	.carrier = rdma_carrier, .window = rdma_window, .release = rdma_release, .forget = rdma_forget, .move = rdma_move,
	.has_moved = rdma_has_moved,
};

const struct ffv_transport ffv_transport_rdma = {
	.name = "rdma", .silent_ns = SILENT_NS, .open = rdma_open, .part = rdma_part, .close = rdma_close,
	.descriptor = rdma_descriptor, .send = rdma_send, .receive = rdma_receive, .describe = rdma_describe,
	.one_sided = &one_sided,
};

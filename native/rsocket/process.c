/* SPDX-License-Identifier: MIT
 *
 * What all sockets of the process share: the channel on which the connection manager tells of them, and the thread that
 * reads it. It sleeps unless connections come or go. Data never waits for it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "rsocket/rsocket.h"

#define LINGER_LOOK_MS 1
#define LINGER_NS 60000000000ull

static pthread_mutex_t shared = PTHREAD_MUTEX_INITIALIZER;
static struct ffv_cm_channel *channel;     /* lock; NULL until the first use */
static int wake_fd = -1;
static int observed_fd = -1;               /* epoll: completion channels of sockets that are watched */
static struct ffv_context *context;        /* lock: held open by the domain, as opening it takes its time */
static struct ffv_pd *domain;
static pthread_mutex_t closing = PTHREAD_MUTEX_INITIALIZER; /* before the locks of sockets; `shared` comes after them */
static struct ffv_rs_socket *lingering;    /* lock: closing */

/* ---- the thread ------------------------------------------------------------------------------------------------------------- */

/* Of an id that has no socket: route.c's. */
static void handle_route(struct ffv_cm_event *event)
{
	struct ffv_cm_id *id = event->id;
	uint32_t type = event->event;
	struct ffv_cm_ud_param answer = event->param.ud;
	uint8_t data[256];

	if (answer.private_data)
		answer.private_data = memcpy(data, answer.private_data, answer.private_data_len);
	ffv_cm_ack_event(event);
	ffv_rs_on_route(id, type, &answer);
}

static bool is_of_route(const struct ffv_cm_event *event)
{
	return event->id->ps == FFV_PS_UDP && !event->listen_id;
}

static void handle(struct ffv_cm_event *event)
{
	struct ffv_cm_id *id = event->id, *listen_id = event->listen_id;
	struct ffv_rs_socket *socket = listen_id ? listen_id->context : id->context;
	uint32_t type = event->event;
	uint8_t data[256];
	/* where both kinds of parameters have it */
	uint8_t length = event->param.conn.private_data ? event->param.conn.private_data_len : 0;
	int status = event->status;

	if (length)
		memcpy(data, event->param.conn.private_data, length);
	/* What destroys an id waits for this event: it is acknowledged before anything here may be the one to do so. */
	bool held = socket && ffv_rs_hold(socket);
	ffv_cm_ack_event(event);
	if (!held) {
		if (listen_id)
			ffv_cm_destroy_id(id);
		return;
	}
	if (type == FFV_CM_EVENT_CONNECT_REQUEST && socket->is_datagram)
		ffv_rs_on_question(socket, id, data, length);
	else if (type == FFV_CM_EVENT_CONNECT_REQUEST)
		ffv_rs_on_request(socket, id, data, length);
	else
		ffv_rs_on_connection(socket, type, status, data, length);
	ffv_rs_put(socket);
}

static bool has_ended(struct ffv_rs_socket *socket, uint64_t now_ns)
{
	pthread_mutex_lock(&socket->lock);
	ffv_rs_progress(socket);
	bool ended = ffv_rs_is_delivered(socket) || now_ns >= socket->linger_until_ns;
	pthread_mutex_unlock(&socket->lock);
	return ended;
}

/* Whether some go on. */
static bool look_after_lingering(void)
{
	struct ffv_rs_socket *ended = NULL;
	uint64_t now_ns = ffv_clock_ns();

	pthread_mutex_lock(&closing);
	for (struct ffv_rs_socket **at = &lingering; *at;) {
		struct ffv_rs_socket *socket = *at;
		if (!has_ended(socket, now_ns)) {
			at = &socket->next;
			continue;
		}
		*at = socket->next;
		socket->next = ended;
		ended = socket;
	}
	bool more = lingering != NULL;
	pthread_mutex_unlock(&closing);
	while (ended) {
		struct ffv_rs_socket *socket = ended;
		ended = socket->next;
		ffv_rs_put(socket);
	}
	return more;
}

static void *serve(void *arg)
{
	struct ffv_cm_channel *events = arg;
	struct pollfd fds[3] = { { .fd = events->fd, .events = POLLIN }, { .fd = wake_fd, .events = POLLIN },
				 { .fd = observed_fd, .events = POLLIN } };
	struct ffv_cm_event *event;
	uint64_t count;
	bool more = false;

	for (;;) {
		poll(fds, 3, more ? LINGER_LOOK_MS : -1);
		if (fds[1].revents && read(wake_fd, &count, sizeof count) < 0 && errno != EAGAIN && errno != EINTR)
			return NULL;
		if (fds[2].revents)
			ffv_rs_look_at_observed(observed_fd);
		while (fds[0].revents && ffv_cm_get_event(events, &event) == 0)
			(is_of_route(event) ? handle_route : handle)(event);
		more = look_after_lingering();
	}
}

static int start_thread(void)
{
	sigset_t all, before;
	pthread_t thread;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int err = pthread_create(&thread, NULL, serve, channel);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (err)
		return ffv_fail_errno(err, "the thread of the sockets cannot be started");
	pthread_detach(thread);
	return 0;
}

/* ---- fork ------------------------------------------------------------------------------------------------------------------------ */

static void before_fork(void)
{
	pthread_mutex_lock(&closing);
	ffv_rs_before_fork();
	ffv_rs_lock_bound();
	ffv_rs_lock_routes();
	pthread_mutex_lock(&shared);
}

static void after_fork_in_parent(void)
{
	pthread_mutex_unlock(&shared);
	ffv_rs_unlock_routes(false);
	ffv_rs_unlock_bound(false);
	ffv_rs_after_fork(false);
	pthread_mutex_unlock(&closing);
}

/* The thread and all that it looks after are the parent's. */
static void after_fork_in_child(void)
{
	if (channel) {
		close(wake_fd);
		close(observed_fd);
	}
	channel = NULL;
	context = NULL;
	domain = NULL;
	lingering = NULL;
	wake_fd = observed_fd = -1;
	pthread_mutex_unlock(&shared);
	ffv_rs_unlock_routes(true);
	ffv_rs_unlock_bound(true);
	ffv_rs_after_fork(true);
	pthread_mutex_unlock(&closing);
}

static void register_fork(void)
{
	pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

static int start(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	int rc = ffv_cm_create_channel(&channel); /* registers its own fork handlers, which run inside of ours */

	pthread_once(&once, register_fork);

	if (rc)
		return rc;
	wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	observed_fd = epoll_create1(EPOLL_CLOEXEC);
	if (wake_fd < 0 || observed_fd < 0 || fcntl(channel->fd, F_SETFL, O_NONBLOCK))
		rc = ffv_fail_errno(errno, "no descriptor for the thread of the sockets");
	if (!rc)
		rc = start_thread();
	if (rc) {
		if (wake_fd >= 0)
			close(wake_fd);
		if (observed_fd >= 0)
			close(observed_fd);
		ffv_cm_destroy_channel(channel);
		channel = NULL;
	}
	return rc;
}

int ffv_rs_channel(struct ffv_cm_channel **out)
{
	pthread_mutex_lock(&shared);
	int rc = channel ? 0 : start();
	if (!rc)
		*out = channel;
	pthread_mutex_unlock(&shared);
	return rc;
}

int ffv_rs_domain(struct ffv_context *ctx, struct ffv_pd **out)
{
	int rc = 0;

	pthread_mutex_lock(&shared);
	if (context != ctx) {
		rc = ffv_alloc_pd(ctx, &domain);
		if (!rc)
			context = ctx;
	}
	if (!rc)
		*out = domain;
	pthread_mutex_unlock(&shared);
	return rc;
}

static uint32_t host;

/* Of what all processes of a host have in common: the kernel's start, and the node directory. */
static void find_host(void)
{
	char path[4096];
	struct { char start[64]; uint64_t device, file; } parts = { .start = "" };
	struct stat status;
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && read(fd, parts.start, sizeof parts.start) < 0)
		parts.start[0] = 0;
	if (fd >= 0)
		close(fd);
	if (!ffv_node_directory(path, sizeof path) && !stat(path, &status)) {
		parts.device = status.st_dev;
		parts.file = status.st_ino;
	}
	host = 2166136261u; /* FNV-1a */
	for (size_t i = 0; i < sizeof parts; i++)
		host = (host ^ ((const uint8_t *)&parts)[i]) * 16777619u;
}

uint32_t ffv_rs_host(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, find_host);
	return host;
}

int ffv_rs_observe(struct ffv_rs_socket *socket)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = socket };

	if (epoll_ctl(observed_fd, EPOLL_CTL_ADD, socket->stream.channel_fd, &event))
		return ffv_fail_errno(errno, "a socket's completions cannot be watched");
	return 0;
}

void ffv_rs_unobserve(struct ffv_rs_socket *socket)
{
	/* Closing is not enough: a fork child may hold a copy. */
	epoll_ctl(observed_fd, EPOLL_CTL_DEL, socket->stream.channel_fd, NULL);
}

/* Told by the address plus one. */
int ffv_rs_observe_beside(struct ffv_rs_socket *socket)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLONESHOT, .data.u64 = (uintptr_t)socket | 1u };
	int rc = epoll_ctl(observed_fd, EPOLL_CTL_MOD, socket->beside_fd, &event);

	if (rc && errno == ENOENT)
		rc = epoll_ctl(observed_fd, EPOLL_CTL_ADD, socket->beside_fd, &event);
	socket->beside_is_armed = rc == 0;
	return rc ? ffv_fail_errno(errno, "the kernel's socket cannot be watched") : 0;
}

void ffv_rs_unobserve_beside(struct ffv_rs_socket *socket)
{
	epoll_ctl(observed_fd, EPOLL_CTL_DEL, socket->beside_fd, NULL);
}

void ffv_rs_for_each_lingering(void (*function)(struct ffv_rs_socket *socket))
{
	struct ffv_rs_socket *socket;

	do {
		if (!ffv_rs_lock_at_exit(&closing))
			return;
		socket = lingering;
		if (socket)
			lingering = socket->next;
		pthread_mutex_unlock(&closing);
		if (socket) {
			function(socket);
			ffv_rs_put(socket);
		}
	} while (socket);
}

/* Else its name would stand in the node directory until somebody looks for it. */
static void end_datagrams(struct ffv_rs_socket *socket)
{
	if (!socket->is_datagram || !ffv_rs_lock_at_exit(&socket->lock))
		return;
	ffv_rs_close_datagrams(socket);
	pthread_mutex_unlock(&socket->lock);
}

__attribute__((destructor)) static void at_exit(void)
{
	if (!channel)
		return;
	ffv_socket_deliver();
	ffv_rs_for_each(end_datagrams);
}

void ffv_rs_linger(struct ffv_rs_socket *socket)
{
	const uint64_t one = 1;

	ffv_rs_hold(socket);
	pthread_mutex_lock(&closing);
	socket->linger_until_ns = ffv_clock_ns() + LINGER_NS;
	socket->next = lingering;
	lingering = socket;
	pthread_mutex_unlock(&closing);
	while (write(wake_fd, &one, sizeof one) < 0 && errno == EINTR)
		;
}

/* SPDX-License-Identifier: MIT
 *
 * The context that all ids of the process share, the sockets that the service thread watches for them, and fork().
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/error.h"
#include "cm/cm.h"
#include "shm/loop.h"
#include "verbs/process.h"

#define SOCKETS_AT_ONCE 64

pthread_mutex_t ffv_cm_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER; /* guards the coming and going of the device */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct ffv_cm_device *current;       /* lock; NULL or open */
static struct ffv_cm_socket *sockets;       /* lock */
static struct ffv_cm_id_private *ids;       /* lock */
static uint32_t generation;

/* ---- fork ----------------------------------------------------------------------------------------------------------- */

static void before_fork(void)
{
	pthread_mutex_lock(&opening);
	pthread_mutex_lock(&ffv_cm_lock);
}

static void after_fork_in_parent(void)
{
	pthread_mutex_unlock(&ffv_cm_lock);
	pthread_mutex_unlock(&opening);
}

/* As in verbs/process.c: the child must not keep alive what shows the parent's death. */
static void after_fork_in_child(void)
{
	generation++;
	for (struct ffv_cm_socket *socket = sockets; socket; socket = socket->next)
		close(socket->fd);
	if (current)
		close(current->epoll_fd);
	sockets = NULL;
	current = NULL;
	ids = NULL;
	pthread_mutex_unlock(&ffv_cm_lock);
	pthread_mutex_unlock(&opening);
}

static void initialize(void)
{
	/* Handlers of the verbs are registered first, so that ours run before theirs: locks are taken in that order. */
	ffv_thread_number();
	pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

uint32_t ffv_cm_generation(void)
{
	pthread_once(&once, initialize);
	return generation;
}

int ffv_cm_check_generation(uint32_t made_in)
{
	if (made_in != generation)
		return ffv_fail(EOWNERDEAD, "it belongs to the process that forked this one: make one here");
	return 0;
}

int ffv_cm_check_id(const struct ffv_cm_id *id)
{
	if (!id)
		return ffv_fail(EINVAL, "no id of the connection manager was given");
	return ffv_cm_check_generation(ffv_cm_private(id)->generation);
}

/* ---- what the service thread is called for ----------------------------------------------------------------------- */

/* One at a time: what one message leads to may end the socket of the next. */
static void on_ready(void *arg, uint32_t events)
{
	struct ffv_cm_device *device = arg;
	struct epoll_event event;

	(void)events;
	pthread_mutex_lock(&ffv_cm_lock);
	for (int n = 0; n < SOCKETS_AT_ONCE && epoll_wait(device->epoll_fd, &event, 1, 0) == 1; n++)
		ffv_cm_on_socket(event.data.ptr);
	pthread_mutex_unlock(&ffv_cm_lock);
}

static uint64_t on_timer(void *arg, uint64_t now_ns)
{
	struct ffv_cm_device *device = arg;

	pthread_mutex_lock(&ffv_cm_lock);
	uint64_t due_ns = ffv_cm_on_timer(device, now_ns);
	device->due_ns = due_ns;
	pthread_mutex_unlock(&ffv_cm_lock);
	return due_ns;
}

void ffv_cm_wake_by(struct ffv_cm_device *device, uint64_t due_ns)
{
	if (due_ns >= device->due_ns)
		return;
	device->due_ns = due_ns;
	ffv_loop_kick(ffv_process_loop(), device->timer_source);
}

/* ---- the device ----------------------------------------------------------------------------------------------------- */

static int start_serving(struct ffv_cm_device *device)
{
	struct ffv_loop *loop = ffv_process_loop();
	int rc = ffv_loop_add_timer(loop, on_timer, device, &device->timer_source);

	return rc ? rc : ffv_loop_add(loop, device->epoll_fd, on_ready, device, &device->ready_source);
}

static void stop_serving(struct ffv_cm_device *device)
{
	struct ffv_loop *loop = ffv_process_loop();

	if (device->ready_source)
		ffv_loop_remove(loop, device->ready_source);
	if (device->timer_source)
		ffv_loop_remove(loop, device->timer_source);
	device->ready_source = device->timer_source = NULL;
}

/* Everything but the context, which may have objects of the program's: -EBUSY, and the device goes on. */
static int close_device(struct ffv_cm_device *device)
{
	stop_serving(device);
	int rc = ffv_dealloc_pd(device->pd);
	if (!rc) {
		device->pd = NULL;
		rc = ffv_close_device(device->ctx);
		if (rc)
			ffv_alloc_pd(device->ctx, &device->pd);
	}
	if (rc) {
		start_serving(device);
		return rc;
	}
	close(device->epoll_fd);
	free(device);
	return 0;
}

static int open_device(struct ffv_cm_device **out)
{
	struct ffv_cm_device *device = calloc(1, sizeof *device);
	struct ffv_gid gid;
	int rc = device ? 0 : ffv_fail(ENOMEM, "no memory for the connection manager");

	if (rc)
		return rc;
	device->due_ns = UINT64_MAX;
	device->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (device->epoll_fd < 0)
		rc = ffv_fail_errno(errno, "no descriptor for the connection manager");
	if (!rc)
		rc = ffv_open_device(NULL, &device->ctx);
	if (!rc)
		rc = ffv_alloc_pd(device->ctx, &device->pd);
	if (!rc)
		rc = ffv_query_gid(device->ctx, 1, 1, &gid);
	if (!rc) {
		memcpy(device->gid, gid.raw, 16);
		rc = start_serving(device);
	}
	if (!rc) {
		*out = device;
		return 0;
	}
	if (device->ctx)
		stop_serving(device);
	if (device->pd)
		ffv_dealloc_pd(device->pd);
	if (device->ctx)
		ffv_close_device(device->ctx);
	if (device->epoll_fd >= 0)
		close(device->epoll_fd);
	free(device);
	return rc;
}

int ffv_cm_hold_device(struct ffv_cm_id_private *id)
{
	struct ffv_cm_device *device;
	int rc = 0;

	if (id->device)
		return 0;
	pthread_mutex_lock(&opening);
	device = current;
	if (!device)
		rc = open_device(&device);
	if (!rc) {
		pthread_mutex_lock(&ffv_cm_lock);
		current = device;
		device->holds++;
		id->device = device;
		pthread_mutex_unlock(&ffv_cm_lock);
	}
	pthread_mutex_unlock(&opening);
	return rc;
}

void ffv_cm_drop_device(struct ffv_cm_id_private *id)
{
	struct ffv_cm_device *device = id->device;

	if (!device)
		return;
	id->device = NULL;
	pthread_mutex_lock(&opening);
	pthread_mutex_lock(&ffv_cm_lock);
	bool last = --device->holds == 0;
	pthread_mutex_unlock(&ffv_cm_lock);
	/* If the program has made objects in the context, it stays for the next id. */
	if (last && close_device(device) == 0)
		current = NULL;
	pthread_mutex_unlock(&opening);
}

/* ---- sockets ---------------------------------------------------------------------------------------------------------- */

int ffv_cm_add_socket(struct ffv_cm_device *device, int fd, struct ffv_cm_id_private *id, struct ffv_cm_socket **out)
{
	struct ffv_cm_socket *socket = calloc(1, sizeof *socket);
	struct epoll_event event = { .events = EPOLLIN | EPOLLRDHUP, .data.ptr = socket };

	if (!socket || epoll_ctl(device->epoll_fd, EPOLL_CTL_ADD, fd, &event)) {
		int err = socket ? errno : ENOMEM;
		free(socket);
		close(fd);
		return ffv_fail_errno(err, "the connection manager cannot watch another socket");
	}
	*socket = (struct ffv_cm_socket){ .next = sockets, .device = device, .id = id, .fd = fd,
					  .deadline_ns = UINT64_MAX };
	sockets = socket;
	*out = socket;
	return 0;
}

void ffv_cm_remove_socket(struct ffv_cm_socket *socket, bool close_fd)
{
	for (struct ffv_cm_socket **at = &sockets; *at; at = &(*at)->next) {
		if (*at == socket) {
			*at = socket->next;
			break;
		}
	}
	/* Closing is not enough: a fork child may hold a copy. */
	epoll_ctl(socket->device->epoll_fd, EPOLL_CTL_DEL, socket->fd, NULL);
	if (close_fd)
		close(socket->fd);
	free(socket);
}

void ffv_cm_pause_socket(struct ffv_cm_socket *socket, bool pause)
{
	struct epoll_event event = { .events = pause ? 0 : EPOLLIN | EPOLLRDHUP, .data.ptr = socket };

	epoll_ctl(socket->device->epoll_fd, EPOLL_CTL_MOD, socket->fd, &event);
	socket->is_paused = pause;
}

struct ffv_cm_socket *ffv_cm_sockets(void)
{
	return sockets;
}

/* ---- ids -------------------------------------------------------------------------------------------------------------- */

void ffv_cm_list_id(struct ffv_cm_id_private *id)
{
	id->next = ids;
	ids = id;
}

void ffv_cm_unlist_id(struct ffv_cm_id_private *id)
{
	for (struct ffv_cm_id_private **at = &ids; *at; at = &(*at)->next) {
		if (*at == id) {
			*at = id->next;
			return;
		}
	}
}

struct ffv_cm_id_private *ffv_cm_ids(void)
{
	return ids;
}

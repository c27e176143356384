/* SPDX-License-Identifier: MIT
 *
 * Looking at a node directory from outside: who is there, and how their queue pairs do. Opens no context of its own;
 * maps the arenas read-only, one at a time, and trusts nothing that stands in them. A monitor is for one thread at a
 * time.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "engine/rq.h"
#include "engine/view.h"
#include "shm/attach.h"
#include "shm/nodedir.h"

#define ANSWER_TIMEOUT_MS 1000

struct name { uint8_t gid[16]; uint32_t block; };

struct ffv_monitor {
	struct ffv_nodedir *dir;
	struct name *names;          /* as they were when it was opened */
	size_t num_names, room, next;
	struct ffv_view view;        /* of the context last returned; arena NULL: it did not answer */
	uint32_t next_qp;
};

int ffv_node_directory(char *path, size_t size)
{
	return ffv_nodedir_resolve(path, size);
}

static int add_name(void *arg, const uint8_t gid[16], uint32_t block)
{
	struct ffv_monitor *monitor = arg;

	if (monitor->num_names == monitor->room) {
		size_t room = monitor->room ? monitor->room * 2 : 64;
		struct name *names = realloc(monitor->names, room * sizeof *names);
		if (!names)
			return ffv_fail(ENOMEM, "out of memory for the names in %s", ffv_nodedir_path(monitor->dir));
		monitor->names = names;
		monitor->room = room;
	}
	struct name *name = &monitor->names[monitor->num_names++];
	memcpy(name->gid, gid, sizeof name->gid);
	name->block = block;
	return 0;
}

int ffv_monitor_open(const char *dir, struct ffv_monitor **out)
{
	struct ffv_monitor *monitor = calloc(1, sizeof *monitor);

	if (!monitor)
		return ffv_fail(ENOMEM, "out of memory for a monitor");
	int rc = ffv_nodedir_open(dir, &monitor->dir);
	if (!rc)
		rc = ffv_nodedir_list(monitor->dir, add_name, monitor);
	if (rc) {
		ffv_monitor_close(monitor);
		return rc;
	}
	*out = monitor;
	return 0;
}

static void leave_context(struct ffv_monitor *monitor)
{
	ffv_arena_detach(monitor->view.arena);
	monitor->view = (struct ffv_view){ 0 };
	monitor->next_qp = 0;
}

void ffv_monitor_close(struct ffv_monitor *monitor)
{
	if (!monitor)
		return;
	leave_context(monitor);
	if (monitor->dir)
		ffv_nodedir_close(monitor->dir);
	free(monitor->names);
	free(monitor);
}

/* ---- contexts ---------------------------------------------------------------------------------------------------- */

/* Is the arena that of the context by this name? */
static bool is_of_name(const struct ffv_arena_shm *arena, const struct ffv_message *welcome, const struct name *name)
{
	return arena->context_id == welcome->context_id && arena->qpn_first == name->block * FFV_QPN_BLOCK &&
	       memcmp(arena->gid, name->gid, sizeof name->gid) == 0;
}

/* Asks for the arena over a fresh connection, and maps it. */
static int observe(int socket, const struct name *name, struct ffv_arena_shm **arena)
{
	struct ffv_envelope envelope = { .message = { .kind = FFV_MESSAGE_OBSERVE }, .fds = { -1, -1, -1 } };
	int rc = ffv_attach_send(socket, &envelope);

	if (!rc)
		rc = ffv_attach_receive_within(socket, ANSWER_TIMEOUT_MS, &envelope);
	if (rc <= 0)
		return rc ? rc : ffv_fail(ECONNRESET, "a context hung up");
	rc = ffv_fail(EPROTO, "a context does not answer an observer with its arena");
	if (envelope.message.kind == FFV_MESSAGE_WELCOME)
		rc = ffv_arena_attach(envelope.fds[FFV_FD_ARENA], 1, arena);
	if (!rc && !is_of_name(*arena, &envelope.message, name)) {
		ffv_arena_detach(*arena);
		rc = ffv_fail(EPROTO, "a context is another than its name says");
	}
	ffv_envelope_close_fds(&envelope);
	return rc;
}

/* The owner of the listening socket, even if it is stopped. */
static uint32_t pid_behind(int socket)
{
	struct ucred owner;
	socklen_t length = sizeof owner;

	return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &owner, &length) ? 0 : (uint32_t)owner.pid;
}

/* A name that a terminal can show, whatever stands in the arena. */
static void copy_program(const struct ffv_arena_shm *arena, char *program, size_t size)
{
	memcpy(program, arena->program, size - 1);
	program[size - 1] = 0;
	for (char *c = program; *c; c++)
		if (!isprint((unsigned char)*c))
			*c = '?';
}

static void fill_context(struct ffv_arena_shm *arena, struct ffv_context_info *info)
{
	info->num_qp = ffv_load_relaxed(&arena->num_qp);
	info->num_cq = ffv_load_relaxed(&arena->num_cq);
	info->num_mr = ffv_load_relaxed(&arena->num_mr);
	info->num_peers = ffv_load_relaxed(&arena->num_peers);
	info->registered_bytes = ffv_load_relaxed(&arena->registered_bytes);
	copy_program(arena, info->program, sizeof info->program);
}

int ffv_monitor_next_context(struct ffv_monitor *monitor, struct ffv_context_info *info)
{
	leave_context(monitor);
	while (monitor->next < monitor->num_names) {
		const struct name *name = &monitor->names[monitor->next++];
		struct ffv_arena_shm *arena = NULL;
		int socket;
		int rc = ffv_nodedir_connect(monitor->dir, name->gid, name->block, &socket);
		if (rc == -ENOENT)
			continue; /* it is gone */
		memset(info, 0, sizeof *info);
		memcpy(info->gid.raw, name->gid, sizeof info->gid.raw);
		info->qpn_first = name->block * FFV_QPN_BLOCK;
		if (!rc) {
			info->pid = pid_behind(socket);
			rc = observe(socket, name, &arena);
			close(socket);
		}
		if (!rc) {
			fill_context(arena, info);
			monitor->view.arena = arena;
		}
		return 1;
	}
	return 0;
}

/* ---- queue pairs ------------------------------------------------------------------------------------------------- */

static uint32_t at_most(uint64_t value, uint32_t most)
{
	return value < most ? (uint32_t)value : most;
}

/* False if the QP is gone, or was while we looked. */
static bool fill_qp(struct ffv_view *view, uint32_t qpn, struct ffv_qp_info *info)
{
	struct ffv_qp_ref ref;

	if (ffv_qp_ref_open(view, qpn, &ref))
		return false;
	struct ffv_qp_shm *qp = ref.shm;
	/* Before the tail, so that a queue that moves on meanwhile is not seen to be negative. */
	uint64_t sq_exec = ffv_load_acquire(&qp->sq_exec);
	uint32_t state = ffv_load_relaxed(&qp->state);
	*info = (struct ffv_qp_info){
		.qp_num = qpn,
		.qp_type = ref.type,
		.qp_state = state <= FFV_QPS_ERR ? state : FFV_QPS_UNKNOWN,
		.dest_qp_num = ffv_load_relaxed(&qp->dest_qpn),
		.path = state >= FFV_QPS_RTR && state <= FFV_QPS_SQE,
		.sq_depth = at_most(ffv_load_acquire(&qp->sq_tail) - sq_exec, ref.sq_index_mask + 1),
		.rq_depth = at_most(ffv_rq_depth(&ref.rq), ref.rq.index_mask + 1),
		.last_status = ffv_load_relaxed(&qp->last_status),
		.messages_sent = ffv_load_relaxed(&qp->messages_sent),
		.bytes_sent = ffv_load_relaxed(&qp->bytes_sent),
		.rnr_waits = ffv_load_relaxed(&qp->rnr_waits),
		.retries = ffv_load_relaxed(&qp->retries),
	};
	memcpy(info->dest_gid.raw, qp->dgid, sizeof info->dest_gid.raw);
	return ffv_qp_ref_is_current(&ref);
}

int ffv_monitor_next_qp(struct ffv_monitor *monitor, struct ffv_qp_info *info)
{
	struct ffv_arena_shm *arena = monitor->view.arena;

	while (arena && monitor->next_qp < FFV_MAX_QP) {
		struct ffv_qp_info found;
		uint32_t index = monitor->next_qp++;
		if (ffv_load_relaxed(&arena->qp_line[index]) &&
		    fill_qp(&monitor->view, arena->qpn_first + index, &found)) {
			*info = found;
			return 1;
		}
	}
	return 0;
}

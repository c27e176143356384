/* A monitor sees who is in a node directory: the living, the stopped, and what only pretends. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/clock.h"
#include "check.h"
#include "child.h"
#include "opened.h"
#include "shm/attach.h"

static const uint8_t own_gid[16] = {[10] = 0xff, 0xff, 10, 9, 8, 7};

static struct ffv_monitor *observe(void)
{
	struct ffv_monitor *monitor;

	CHECK_OK(ffv_monitor_open(NULL, &monitor));
	return monitor;
}

static void next(struct ffv_monitor *monitor, struct ffv_context_info *info)
{
	memset(info, 0x55, sizeof *info);
	CHECK_RC(ffv_monitor_next_context(monitor, info), 1);
	CHECK_EQ(memcmp(info->gid.raw, own_gid, 16), 0);
}

static void no_more(struct ffv_monitor *monitor)
{
	struct ffv_context_info info;
	struct ffv_qp_info qp;

	CHECK_RC(ffv_monitor_next_context(monitor, &info), 0);
	CHECK_RC(ffv_monitor_next_context(monitor, &info), 0);
	CHECK_RC(ffv_monitor_next_qp(monitor, &qp), 0);
	ffv_monitor_close(monitor);
}

static void test_directory(void)
{
	char path[256];
	struct ffv_monitor *monitor;

	CHECK_OK(ffv_node_directory(path, sizeof path));
	CHECK_STR(path, scratch_root);
	CHECK(ffv_node_directory(path, 3) < 0);
	CHECK_FAIL(ffv_monitor_open("/nonexistent/folder", &monitor), ENOENT, "/nonexistent/folder");
	ffv_monitor_close(NULL);
	no_more(observe()); /* nobody there */
}

/* Contexts of this process, with objects. */
static void test_living(void)
{
	struct ffv_context *ctx[2] = {opened_context(), opened_context()};
	struct ffv_pd *pd = opened_pd(ctx[1]);
	struct ffv_cq *cq;
	struct ffv_mr *mr;
	struct ffv_qp *qp[2];
	struct ffv_context_info info;
	struct ffv_qp_info qp_info;

	CHECK_OK(ffv_create_cq(ctx[1], 10, NULL, NULL, 0, &cq));
	CHECK_OK(ffv_alloc_mr(pd, 5000, FFV_ACCESS_LOCAL_WRITE, &mr));
	for (int i = 0; i < 2; i++) {
		struct ffv_qp_init_attr attr = {.send_cq = cq, .recv_cq = cq, .qp_type = i ? FFV_QPT_UD : FFV_QPT_RC,
						.cap = {.max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1,
							.max_recv_sge = 1}};
		CHECK_OK(ffv_create_qp(pd, &attr, &qp[i]));
	}
	struct ffv_qp_attr init = {.qp_state = FFV_QPS_INIT, .port_num = 1};
	CHECK_OK(ffv_modify_qp(qp[0], &init, FFV_QP_STATE | FFV_QP_PKEY_INDEX | FFV_QP_PORT | FFV_QP_ACCESS_FLAGS));
	struct ffv_sge sge = {.addr = (uintptr_t)mr->addr, .length = 100, .lkey = mr->lkey};
	struct ffv_recv_wr wr = {.sg_list = &sge, .num_sge = 1}, *bad;
	for (int i = 0; i < 3; i++)
		CHECK_OK(ffv_post_recv(qp[0], &wr, &bad));

	struct ffv_monitor *monitor = observe();
	CHECK_RC(ffv_monitor_next_qp(monitor, &qp_info), 0); /* before the first context */
	next(monitor, &info);
	CHECK_EQ(info.qpn_first, 0);
	CHECK_EQ(info.pid, getpid());
	CHECK_STR(info.program, "test_monitor");
	CHECK_EQ(info.num_qp + info.num_cq + info.num_mr, 0);
	CHECK_RC(ffv_monitor_next_qp(monitor, &qp_info), 0);
	next(monitor, &info);
	CHECK_EQ(info.qpn_first, FFV_QPN_BLOCK);
	CHECK_EQ(info.num_qp, 2);
	CHECK_EQ(info.num_cq, 1);
	CHECK_EQ(info.num_mr, 1);
	CHECK_EQ(info.registered_bytes, 5000);
	uint32_t seen = 0;
	for (int i = 0; i < 2; i++) {
		CHECK_RC(ffv_monitor_next_qp(monitor, &qp_info), 1);
		struct ffv_qp *which = qp_info.qp_num == ffv_qp_num(qp[0]) ? qp[0] : qp[1];
		CHECK_EQ(qp_info.qp_num, ffv_qp_num(which));
		CHECK_EQ(qp_info.qp_type, which == qp[0] ? FFV_QPT_RC : FFV_QPT_UD);
		CHECK_EQ(qp_info.qp_state, which == qp[0] ? FFV_QPS_INIT : FFV_QPS_RESET);
		CHECK_EQ(qp_info.rq_depth, which == qp[0] ? 3 : 0);
		CHECK_EQ(qp_info.sq_depth + qp_info.path + qp_info.last_status, 0);
		seen |= which == qp[0] ? 1 : 2;
	}
	CHECK_EQ(seen, 3);
	CHECK_RC(ffv_monitor_next_qp(monitor, &qp_info), 0);
	no_more(monitor);
	for (int i = 0; i < 2; i++)
		CHECK_OK(ffv_destroy_qp(qp[i]));
	CHECK_OK(ffv_dereg_mr(mr));
	CHECK_OK(ffv_destroy_cq(cq));
	CHECK_OK(ffv_dealloc_pd(pd));
	for (int i = 0; i < 2; i++)
		CHECK_OK(ffv_close_device(ctx[i]));
}

/* ---- processes that do not answer ------------------------------------------------------------------------------ */

static void hold_open(void *arg)
{
	int *ready = arg;

	CHECK(opened_context());
	CHECK_EQ(write(ready[1], "", 1), 1);
	for (;;)
		pause();
}

static pid_t start_holder(void)
{
	int ready[2];
	char byte;

	CHECK_EQ(pipe(ready), 0);
	pid_t child = child_start(geteuid(), hold_open, ready);
	close(ready[1]);
	CHECK_EQ(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return child;
}

static void test_stopped_and_killed(void)
{
	struct ffv_context_info info;
	struct ffv_qp_info qp_info;
	pid_t child = start_holder();
	int status;

	CHECK_EQ(kill(child, SIGSTOP), 0);
	CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
	CHECK(WIFSTOPPED(status));
	struct ffv_monitor *monitor = observe();
	uint64_t start_ns = ffv_clock_ns();
	next(monitor, &info);
	CHECK(ffv_clock_ns() - start_ns < 20000000000ull); /* it does not hang */
	CHECK_EQ(info.pid, child);
	CHECK_EQ(info.qpn_first, 0);
	CHECK_EQ(info.num_qp, 0);
	CHECK_STR(info.program, "");
	CHECK_RC(ffv_monitor_next_qp(monitor, &qp_info), 0);
	no_more(monitor);

	CHECK_EQ(kill(child, SIGCONT), 0);
	monitor = observe();
	next(monitor, &info);
	CHECK_STR(info.program, "test_monitor");
	/* It is killed while its arena is mapped here. */
	CHECK_EQ(kill(child, SIGKILL), 0);
	CHECK_EQ(child_wait(child), 128 + SIGKILL);
	CHECK_RC(ffv_monitor_next_qp(monitor, &qp_info), 0);
	no_more(monitor);
	no_more(observe());
}

/* ---- impostors ------------------------------------------------------------------------------------------------- */

enum lie { HANGS_UP, SENDS_JUNK, REFUSES, ARENA_OF_ANOTHER, FILE_THAT_IS_NO_ARENA, LIES };

struct impostor { int listen_fd; int alien_fd; enum lie lie; };

static void answer(const struct impostor *impostor, int fd)
{
	struct ffv_envelope envelope = {.fds = {-1, -1, -1}};

	if (impostor->lie == SENDS_JUNK)
		CHECK_EQ(send(fd, "junk", 4, MSG_NOSIGNAL), 4);
	if (impostor->lie == HANGS_UP || impostor->lie == SENDS_JUNK)
		return;
	envelope.message.kind = impostor->lie == REFUSES ? FFV_MESSAGE_REFUSE : FFV_MESSAGE_WELCOME;
	envelope.message.value = ENOMEM;
	envelope.message.context_id = 1ull << 32 | 1;
	if (impostor->lie != REFUSES)
		envelope.fds[FFV_FD_ARENA] = impostor->alien_fd;
	CHECK_OK(ffv_attach_send(fd, &envelope));
}

static void *pretend(void *arg)
{
	const struct impostor *impostor = arg;
	struct ffv_envelope envelope;
	int fd = accept4(impostor->listen_fd, NULL, NULL, SOCK_CLOEXEC);

	CHECK(fd >= 0);
	CHECK_RC(ffv_attach_receive_within(fd, 60000, &envelope), 1);
	CHECK_EQ(envelope.message.kind, FFV_MESSAGE_OBSERVE);
	answer(impostor, fd);
	close(fd);
	return NULL;
}

static int alien_file(enum lie lie)
{
	struct ffv_arena_shm *arena;
	int fd;

	if (lie == FILE_THAT_IS_NO_ARENA) {
		fd = memfd_create("alien", MFD_CLOEXEC);
		CHECK(fd >= 0);
		return fd;
	}
	CHECK_OK(ffv_arena_create("alien", &fd, &arena));
	arena->context_id = 1ull << 32 | 1;
	arena->qpn_first = 7 * FFV_QPN_BLOCK; /* not what the name says */
	memcpy(arena->gid, own_gid, 16);
	ffv_arena_detach(arena);
	return fd;
}

static void test_impostors(void)
{
	for (enum lie lie = 0; lie < LIES; lie++) {
		struct sockaddr_un address = {.sun_family = AF_UNIX};
		struct impostor impostor = {.lie = lie, .alien_fd = alien_file(lie)};
		struct ffv_context_info info;
		struct ffv_qp_info qp_info;
		pthread_t thread;

		snprintf(address.sun_path, sizeof address.sun_path, "%.60s/00000000000000000000ffff0a090807-003",
			 scratch_root);
		impostor.listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
		CHECK_EQ(bind(impostor.listen_fd, (struct sockaddr *)&address, sizeof address), 0);
		CHECK_EQ(listen(impostor.listen_fd, 5), 0);
		CHECK_EQ(pthread_create(&thread, NULL, pretend, &impostor), 0);
		struct ffv_monitor *monitor = observe();
		next(monitor, &info);
		CHECK_EQ(info.qpn_first, 3 * FFV_QPN_BLOCK);
		CHECK_EQ(info.pid, getpid());
		CHECK_EQ(info.num_qp, 0);
		CHECK_STR(info.program, "");
		CHECK_RC(ffv_monitor_next_qp(monitor, &qp_info), 0);
		no_more(monitor);
		CHECK_EQ(pthread_join(thread, NULL), 0);
		close(impostor.listen_fd);
		close(impostor.alien_fd);
		CHECK_EQ(unlink(address.sun_path), 0);
	}
}

/* What stands in an arena may be nonsense: this one's owner (we) writes some. */
static void test_garbage(void)
{
	struct ffv_context *ctx = opened_context();
	struct ffv_arena_shm *arena = ctx->view.arena;
	struct ffv_context_info info;
	struct ffv_qp_info qp_info;
	char program[sizeof arena->program];

	memcpy(program, arena->program, sizeof program);
	memset(arena->program, '\a', sizeof arena->program);
	static const uint32_t lines[] = {1, UINT32_MAX, (uint32_t)FFV_ARENA_LINES - 1, 0x0abcdef0};
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
		ffv_store_release(&arena->qp_line[100 + i], lines[i]);
	struct ffv_monitor *monitor = observe();
	next(monitor, &info);
	CHECK_STR(info.program, "???????????????????????????????");
	CHECK_RC(ffv_monitor_next_qp(monitor, &qp_info), 0);
	no_more(monitor);
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
		ffv_store_release(&arena->qp_line[100 + i], 0);
	memcpy(arena->program, program, sizeof program);
	CHECK_OK(ffv_close_device(ctx));
}

int main(void)
{
	opened_directory();
	test_directory();
	test_living();
	test_stopped_and_killed();
	test_impostors();
	test_garbage();
	scratch_remove();
	return 0;
}

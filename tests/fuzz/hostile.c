/* For libFuzzer: what a hostile container writes into its own arena while the router works with it. The arena is a copy of a
 * real one, with a queue pair that is connected to the stranger's, work requests, keys and an outbox; the input overwrites
 * words of it, rings the proxy and the bridge, and lets the stranger send. */
#include <sys/eventfd.h>
#include <sys/syscall.h>

#include "session.h"
#include "shm/attach.h"
#include "shm/nodedir.h"

#define MOST_STEPS 300u
#define PAGE 4096u
#define MOST_PAGES 4096u

struct place { uint64_t first; uint32_t bytes; };

static struct { uint64_t offset; uint8_t bytes[PAGE]; } *kept; /* the arena as it was */
static uint32_t num_kept;
static struct place places[16];
static uint32_t num_places;
static int forged_fd, bell_fd;
static struct ffv_arena_shm *forged;
static struct ffv_nodedir *dir;

struct seat { int socket, bell_fd; struct ffv_arena_shm *arena; }; /* at a proxy */

/* The container is of this process, and would have the router write to what is not its own: only its memory is there. */
static bool is_its_own(const struct iovec *there)
{
	uintptr_t first = (uintptr_t)session_host->mr->addr, at = (uintptr_t)there->iov_base;

	return at >= first && at - first <= HOSTS_MEMORY && there->iov_len <= HOSTS_MEMORY - (at - first);
}

ssize_t process_vm_readv(pid_t pid, const struct iovec *here, unsigned long n, const struct iovec *there, unsigned long m,
			 unsigned long flags)
{
	if (is_its_own(there))
		return syscall(SYS_process_vm_readv, pid, here, n, there, m, flags);
	errno = EFAULT;
	return -1;
}

ssize_t process_vm_writev(pid_t pid, const struct iovec *here, unsigned long n, const struct iovec *there, unsigned long m,
			  unsigned long flags)
{
	if (is_its_own(there))
		return syscall(SYS_process_vm_writev, pid, here, n, there, m, flags);
	errno = EFAULT;
	return -1;
}

/* ---- the arena ------------------------------------------------------------------------------------------------------------- */

static void keep_pages(int fd)
{
	off_t at = 0, hole;

	kept = calloc(MOST_PAGES, sizeof *kept);
	CHECK(kept);
	while ((at = lseek(fd, at, SEEK_DATA)) >= 0) {
		hole = lseek(fd, at, SEEK_HOLE);
		for (; at < hole; at += PAGE) {
			CHECK(num_kept < MOST_PAGES);
			kept[num_kept].offset = (uint64_t)at;
			CHECK_EQ(pread(fd, kept[num_kept++].bytes, PAGE, at), PAGE);
		}
	}
}

static void restore_pages(void)
{
	struct ffv_arena_shm *arena = forged;

	for (uint32_t i = 0; i < num_kept; i++)
		memcpy((uint8_t *)forged + kept[i].offset, kept[i].bytes, PAGE);
	arena->context_id = 0x1111111122222222ull;
	memcpy(arena->gid, session_host->gid.raw, 16);
}

static void add_place(const void *at, size_t bytes)
{
	places[num_places++] = (struct place){ (uint64_t)((const uint8_t *)at - (const uint8_t *)session_host->side.ctx->view.arena),
					       (uint32_t)bytes };
}

static void find_places(struct ffv_qp *qp, const struct ffv_mr *mr)
{
	struct ffv_arena_shm *arena = session_host->side.ctx->view.arena;
	uint32_t index = ffv_qp_num(qp) % FFV_MAX_QP;

	add_place(qp->ref.shm, sizeof *qp->ref.shm);
	add_place(qp->ref.sq_ring, 16ull * qp->ref.sq_stride_bytes);
	add_place(qp->ref.rq.ring, 16ull * qp->ref.rq.stride_bytes);
	add_place(qp->ref.send_cq.shm, sizeof *qp->ref.send_cq.shm);
	add_place(qp->ref.send_cq.ring, 32 * sizeof *qp->ref.send_cq.ring);
	add_place(&arena->keys[FFV_KEY_INDEX(mr->lkey)], sizeof arena->keys[0]);
	add_place(&arena->num_qp, 64);
	add_place(&arena->qp_line[index & ~3u], 32);
	add_place(&arena->cq_line[qp->ref.send_cq.id & ~3u], 16);
	add_place(&arena->attention[index / 64], 16);
	add_place(&arena->threads[0], 4 * sizeof arena->threads[0]);
	add_place(&arena->pds[qp->ref.pd % FFV_MAX_PD & ~3u], 16);
	add_place((uint8_t *)arena + (uint64_t)ffv_load_relaxed(&arena->outbox_line) * 64, 1024);
}

static void post_all(struct ffv_qp *qp, const struct ffv_mr *mr)
{
	static const uint32_t opcodes[] = { FFV_WR_SEND, FFV_WR_RDMA_WRITE, FFV_WR_RDMA_READ, FFV_WR_ATOMIC_FETCH_AND_ADD,
					    FFV_WR_SEND_WITH_IMM, FFV_WR_RDMA_WRITE_WITH_IMM, FFV_WR_SEND, FFV_WR_RDMA_READ };

	for (uint32_t i = 0; i < 8; i++) {
		struct ffv_sge sge;
		struct ffv_send_wr wr = send_wr(i, opcodes[i], &sge, mr, 8ull * i, i == 3 ? 8 : i == 6 ? 100000 : 512);
		if (i == 3)
			wr.wr.atomic.remote_addr = 4096, wr.wr.atomic.rkey = 256;
		else
			wr.wr.rdma.remote_addr = 4096, wr.wr.rdma.rkey = 256;
		CHECK_OK(ffv_post_send(qp, &wr, NULL));
		CHECK_OK(post_recv(qp, i, mr, 65536 * i, 65536));
	}
}

/* Something is in the outbox. */
static void broadcast(struct host *host)
{
	struct ffv_qp *member = stranger_group_of(host);

	stranger_group_to_rts(member);
	stranger_group_is_told(host, member, 256);
	poll_status(host->side.cq, FFV_WC_SUCCESS);
	CHECK_OK(ffv_detach_mcast(member, &(struct ffv_gid){ .raw = { 0xff, 0x0e } }, 0));
	CHECK_OK(ffv_destroy_qp(member));
}

static void end(void)
{
	CHECK_OK(ffv_destroy_qp(session_host->qp));
	ffv_arena_detach(forged);
	close(forged_fd);
	close(bell_fd);
	ffv_nodedir_close(dir);
	free(kept);
	hosts_close();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct host *host = session_host;
	struct ffv_qp_attr reset = { .qp_state = FFV_QPS_RESET };

	(void)argc, (void)argv;
	hosts_open();
	CHECK_OK(ffv_nodedir_open(host->dir, &dir));
	broadcast(host);
	host->qp = side_qp(&host->side, host->side.cq, FFV_QPT_RC, NULL, 64);
	stranger_connects(host);
	post_all(host->qp, host->mr);
	find_places(host->qp, host->mr);
	keep_pages(host->side.ctx->arena_fd);
	CHECK_OK(ffv_modify_qp(host->qp, &reset, FFV_QP_STATE)); /* from here on the copy lives */
	CHECK_OK(ffv_arena_create("forged", &forged_fd, &forged));
	bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	CHECK(bell_fd >= 0);
	atexit(end);
	return 0;
}

/* ---- what the container does ------------------------------------------------------------------------------------------------ */

/* Attaches the copy to a proxy, as containers do. */
static bool sit_down(const uint8_t gid[16], struct seat *seat)
{
	struct ffv_envelope hello = { .message = { .kind = FFV_MESSAGE_HELLO, .context_id = forged->context_id,
						   .qpn_first = forged->qpn_first },
				      .fds = { forged_fd, -1, bell_fd } }, welcome;

	*seat = (struct seat){ -1, -1, NULL };
	if (ffv_nodedir_connect(dir, gid, 0, &seat->socket))
		return false;
	CHECK_OK(ffv_mirror_fd(&hello.fds[FFV_FD_MIRROR]));
	memcpy(hello.message.gid, forged->gid, 16);
	if (ffv_attach_send(seat->socket, &hello) || ffv_attach_receive_within(seat->socket, 60000, &welcome) != 1)
		return false;
	if (welcome.message.kind == FFV_MESSAGE_WELCOME) {
		CHECK_OK(ffv_arena_attach(welcome.fds[FFV_FD_ARENA], 0, &seat->arena));
		seat->bell_fd = dup(welcome.fds[FFV_FD_DOORBELL]);
	}
	ffv_envelope_close_fds(&welcome);
	return seat->arena != NULL;
}

static void get_up(struct seat *seat)
{
	if (seat->arena)
		ffv_arena_detach(seat->arena);
	if (seat->bell_fd >= 0)
		close(seat->bell_fd);
	if (seat->socket >= 0)
		close(seat->socket);
}

static void ring(const struct seat *seat, uint32_t bit)
{
	uint64_t one = 1;

	if (!seat->arena)
		return;
	ffv_fetch_or(&seat->arena->attention[bit / 64], 1ull << bit % 64);
	CHECK(write(seat->bell_fd, &one, sizeof one) > 0 || errno == EAGAIN);
}

/* Overwrites a word: by a wild value, a small one, one with a bit flipped, a little more or less. */
static void overwrite_one(void *first, uint32_t bytes)
{
	uint32_t *word = (uint32_t *)(void *)((uint8_t *)first + draw(bytes / 4) * 4);
	uint32_t old = __atomic_load_n(word, __ATOMIC_RELAXED), fresh;

	switch (draw(6)) {
	case 0: fresh = draw(UINT32_MAX); break;
	case 1: fresh = draw(64); break;
	case 2: fresh = old ^ 1u << draw(32); break;
	case 3: fresh = old + draw(256) - 128; break;
	case 4: fresh = UINT32_MAX; break;
	default: fresh = 0; break;
	}
	__atomic_store_n(word, fresh, __ATOMIC_RELAXED);
}

static void overwrite(void)
{
	const struct place *place = &places[draw(num_places)];

	overwrite_one((uint8_t *)forged + place->first, place->bytes);
}

/* The same in the arena of the proxy, which containers share with the router: its queue pairs, what stands in their queues,
 * and the completions that the router polls. */
static void overwrite_shared(const struct seat *proxy)
{
	struct ffv_arena_shm *arena = proxy->arena;
	uint32_t line = ffv_load_acquire(draw(3) ? &arena->qp_line[STRANGER_QPN + draw(3)] : &arena->cq_line[0]), bytes = 512;
	uint64_t at = (uint64_t)line * 64;

	if (!line || at > FFV_ARENA_BYTES - 65536)
		return;
	if (draw(2)) { /* what it leads to */
		const struct ffv_qp_shm *qp = (const void *)((uint8_t *)arena + at);
		const struct ffv_cq_shm *cq = (const void *)qp;
		line = line == ffv_load_acquire(&arena->cq_line[0]) ? ffv_load_relaxed(&cq->rings[0].ring_line) : qp->sq_ring_line;
		at = (uint64_t)line * 64;
		bytes = 4096;
	}
	if (line && at <= FFV_ARENA_BYTES - 65536)
		overwrite_one((uint8_t *)arena + at, bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t kinds[] = { FFV_FRAME_OPEN, FFV_FRAME_MESSAGE, FFV_FRAME_LARGE, FFV_FRAME_DATA, FFV_FRAME_REQUEST,
					 FFV_FRAME_ACK, FFV_FRAME_CREDIT, FFV_FRAME_RESULT, FFV_FRAME_DATAGRAM,
					 FFV_FRAME_BROADCAST, FFV_FRAME_INTEREST };
	uint32_t channel, index = ffv_qp_num(session_host->qp) % FFV_MAX_QP;
	int socket = session_begin(&channel);
	struct seat proxy = { -1, -1, NULL }, bridge;
	bool alive = true;

	fuzzed_begin(data, size);
	stranger_begin(kinds, sizeof kinds);
	restore_pages();
	/* A proxy that nobody talks to (any more) goes: it may have gone before this thread has seen it. */
	if (ffv_router_reach(session_host->router, stranger_gid, STRANGER_QPN, channel) || !sit_down(stranger_gid, &proxy)) {
		get_up(&proxy);
		session_end(socket, channel);
		return 0;
	}
	if (sit_down(ffv_bridge_gid, &bridge)) /* it is there while anybody is */
		ffv_router_announce(session_host->router, STRANGER_TENANT, 0);
	ring(&proxy, FFV_ATTENTION_QP + index);
	for (unsigned i = 0; i < MOST_STEPS && fuzzed_left && alive; i++) {
		unsigned what = draw(8);
		if (what < 2)
			overwrite();
		else if (what == 2)
			overwrite_shared(&proxy);
		else if (what == 3)
			ring(&proxy, FFV_ATTENTION_QP + index);
		else if (what == 4)
			ring(&bridge, FFV_ATTENTION_PORT);
		else if (what == 5)
			session_settle();
		else
			alive = session_say(socket);
	}
	session_settle();
	get_up(&proxy);
	get_up(&bridge);
	session_end(socket, channel);
	session_check();
	return 0;
}

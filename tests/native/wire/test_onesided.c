/* Large messages between two hosts whose real devices (pretended ones: fake_ibverbs.c) move them from the memory of one
 * container to that of the other; and what becomes of them when the memory, a queue pair or the device goes meanwhile. */
#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "fake_ibverbs.h"
#include "hosts.h"

#define LENGTH (1u << 20)

static const struct fake_calls *fake;

static struct fake_counts counted(void)
{
	struct fake_counts counts;

	fake->count(&counts);
	return counts;
}

static struct ffv_router_counters query(int host)
{
	struct ffv_router_counters counters;

	CHECK_OK(ffv_router_query(hosts[host].router, &counters));
	return counters;
}

/* Waits until what the device is asked for next is held. */
static void wait_until_held(void)
{
	uint64_t deadline_ns = ffv_clock_ns() + PAIR_HANG_NS;

	while (!counted().held) {
		CHECK(ffv_clock_ns() < deadline_ns);
		sched_yield();
	}
}

/* Windows are given up within a second or so; the slots of the two queue pairs stay. */
static void wait_for_regions(uint32_t most)
{
	uint64_t deadline_ns = ffv_clock_ns() + PAIR_HANG_NS;

	while (counted().regions > most) {
		CHECK(ffv_clock_ns() < deadline_ns);
		usleep(1000);
	}
}

static void wait_for_rdma(void)
{
	uint64_t deadline_ns = ffv_clock_ns() + PAIR_HANG_NS;
	char text[2][400] = { "", "" };

	while (strncmp(text[0], "rdma", 4) || strncmp(text[1], "rdma", 4)) {
		CHECK(ffv_clock_ns() < deadline_ns);
		hosts_describe(0, text[0]);
		hosts_describe(1, text[1]);
		sched_yield();
	}
}

/* ---- what is moved -------------------------------------------------------------------------------------------------------- */

static void move_one(uint32_t opcode, uint32_t from, uint32_t length, uint32_t to, unsigned n)
{
	bool write = opcode == FFV_WR_RDMA_WRITE, imm = opcode == FFV_WR_RDMA_WRITE_WITH_IMM;

	hosts_fill(&hosts[0], from, length, n);
	memset((uint8_t *)hosts[1].mr->addr + to - 64, 0x5a, length + 128);
	if (!write)
		CHECK_OK(post_recv(hosts[1].qp, n, hosts[1].mr, imm ? 0 : to, imm ? 0 : length));
	hosts_post(opcode, n, from, length, to, n);
	CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).wr_id, n);
	if (!write)
		CHECK_EQ(poll_status(hosts[1].side.cq, FFV_WC_SUCCESS).byte_len, length);
	hosts_check_same(from, to, length);
	for (uint32_t i = 1; i <= 64; i++)
		CHECK(((uint8_t *)hosts[1].mr->addr)[to - i] == 0x5a && ((uint8_t *)hosts[1].mr->addr)[to + length + i - 1] == 0x5a);
}

/* No payload above the eager limit goes another way, wherever it begins and whatever it is. */
static void test_moved(void)
{
	static const uint32_t opcodes[] = { FFV_WR_SEND, FFV_WR_RDMA_WRITE, FFV_WR_RDMA_WRITE_WITH_IMM };
	static const uint32_t lengths[] = { 32769, 65536, 200001, 1u << 20, (2u << 20) + 64, 3u << 20 };
	uint64_t bytes = 0;

	hosts_connect(FFV_QPT_RC);
	for (unsigned n = 0; n < sizeof lengths / sizeof *lengths * 3; n++) {
		move_one(opcodes[n % 3], 4096 * (n % 2) + n, lengths[n / 3], 8192 + 3 * n, n);
		bytes += lengths[n / 3] - 64;
	}
	struct ffv_router_counters a = query(0), b = query(1);
	CHECK_EQ(a.bytes_one_sided_sent, bytes);
	CHECK_EQ(b.bytes_one_sided_received, bytes);
	CHECK_EQ(a.bytes_streamed, 0);
	CHECK_EQ(counted().written, bytes);
	CHECK(a.windows_found && b.windows_found && a.windows == a.windows_made - a.windows_dropped);
	CHECK(a.window_bytes >= 3u << 20 && b.window_bytes >= 3u << 20);
	hosts_disconnect();
}

/* Nor what unreliable connections send. */
static void test_unreliable(void)
{
	static const uint32_t opcodes[] = { FFV_WR_SEND, FFV_WR_RDMA_WRITE, FFV_WR_RDMA_WRITE_WITH_IMM };
	uint64_t before = query(0).bytes_one_sided_sent, streamed = query(0).bytes_streamed;

	hosts_connect(FFV_QPT_UC);
	for (unsigned n = 0; n < 3; n++)
		move_one(opcodes[n], 4096 + n, 3u << 20, 8192 + 3 * n, n);
	CHECK_EQ(query(0).bytes_one_sided_sent - before, 3 * ((3u << 20) - 64));
	CHECK_EQ(query(0).bytes_streamed, streamed);
	hosts_disconnect();
}

/* Nor what READs bring. */
static void test_read(void)
{
	static const uint32_t lengths[] = { 32769, 65536, 200001, 1u << 20, (2u << 20) + 64, 3u << 20 };
	struct ffv_router_counters before[2] = { query(0), query(1) };
	uint64_t bytes = 0, reads = counted().read;

	hosts_connect(FFV_QPT_RC);
	for (unsigned n = 0; n < sizeof lengths / sizeof *lengths * 2; n++) {
		uint32_t length = lengths[n / 2], from = 8192 + 3 * n, to = 4096 * (n % 2) + 64 + n;
		hosts_fill(&hosts[1], from, length, n);
		memset((uint8_t *)hosts[0].mr->addr + to - 64, 0x5a, length + 128);
		hosts_post(FFV_WR_RDMA_READ, n, to, length, from, 0);
		CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).wr_id, n);
		hosts_check_same(to, from, length);
		for (uint32_t i = 1; i <= 64; i++)
			CHECK(((uint8_t *)hosts[0].mr->addr)[to - i] == 0x5a &&
			      ((uint8_t *)hosts[0].mr->addr)[to + length + i - 1] == 0x5a);
		bytes += length;
	}
	CHECK_EQ(counted().read - reads, bytes);
	CHECK_EQ(query(0).bytes_one_sided_received - before[0].bytes_one_sided_received, bytes);
	CHECK_EQ(query(1).bytes_one_sided_sent - before[1].bytes_one_sided_sent, bytes);
	CHECK_EQ(query(1).bytes_streamed - before[1].bytes_streamed, 0);
	hosts_disconnect();
}

static void test_read_is_refused(void)
{
	struct ffv_router_counters before = query(1);
	struct ffv_mr *mr;
	struct ffv_sge sge;
	uint64_t read = counted().read;

	hosts_connect(FFV_QPT_RC);
	hosts_fill(&hosts[1], 0, LENGTH, 31);
	move_one(FFV_WR_RDMA_WRITE, 0, LENGTH, 4u << 20, 1); /* the other side's is registered */
	hosts_fill(&hosts[1], 0, LENGTH, 31);
	fake->limit(1);
	CHECK_OK(ffv_alloc_mr(hosts[0].side.pd, LENGTH, PAIR_ACCESS, &mr));
	struct ffv_send_wr wr = send_wr(7, FFV_WR_RDMA_READ, &sge, mr, 0, LENGTH);
	wr.wr.rdma.remote_addr = (uintptr_t)hosts[1].mr->addr;
	wr.wr.rdma.rkey = hosts[1].mr->rkey;
	CHECK_OK(ffv_post_send(hosts[0].qp, &wr, NULL));
	poll_status(hosts[0].side.cq, FFV_WC_SUCCESS);
	CHECK(!memcmp(mr->addr, hosts[1].mr->addr, LENGTH));
	CHECK_EQ(query(1).bytes_streamed - before.bytes_streamed, LENGTH);
	CHECK_EQ(counted().read, read);
	fake->limit(0);
	CHECK_OK(ffv_dereg_mr(mr));
	hosts_disconnect();
}

/* What is posted behind a read that is under way has the executor look at that once more: it goes on as it was granted. */
static void test_behind_a_read(void)
{
	uint64_t refused = counted().refused;

	hosts_connect(FFV_QPT_RC);
	for (unsigned round = 0; round < 30; round++) {
		hosts_fill(&hosts[1], 0, LENGTH, round);
		hosts_post(FFV_WR_RDMA_READ, 0, 0, LENGTH, 0, 0);
		for (unsigned n = 1; n < 12; n++)
			hosts_post(n % 4 ? FFV_WR_RDMA_WRITE : FFV_WR_RDMA_READ, n, 2u << 20, n % 4 ? 64 : 40000, 2u << 20, 0);
		for (unsigned n = 0; n < 12; n++)
			CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_SUCCESS).wr_id, n);
		hosts_check_same(0, 0, LENGTH);
	}
	CHECK_EQ(counted().refused, refused);
	hosts_disconnect();
}

/* The real queue pair fails with a read under way: it is carried out all the same. */
static void test_read_is_lost(void)
{
	hosts_connect(FFV_QPT_RC);
	hosts_fill(&hosts[1], 0, LENGTH, 41);
	memset(hosts[0].mr->addr, 0, LENGTH);
	fake->hold();
	hosts_post(FFV_WR_RDMA_READ, 1, 0, LENGTH, 0, 0);
	wait_until_held();
	fake->break_all();
	fake->release();
	poll_status(hosts[0].side.cq, FFV_WC_SUCCESS);
	hosts_check_same(0, 0, LENGTH);
	hosts_disconnect();
	wait_for_rdma();
}

/* A read is flushed, or its queue pair is destroyed, with the device at it: its target may be used for something else from
 * then on, and nothing late comes. */
static void test_read_meanwhile(bool destroyed)
{
	const uint8_t *sink = hosts[0].mr->addr;

	hosts_connect(FFV_QPT_RC);
	hosts_fill(&hosts[1], 0, LENGTH, 41);
	memset(hosts[0].mr->addr, 2, LENGTH);
	fake->hold();
	hosts_post(FFV_WR_RDMA_READ, 1, 0, LENGTH, 0, 0);
	hosts_post(FFV_WR_RDMA_WRITE, 2, 0, 64, 0, 0);
	wait_until_held();
	if (destroyed) {
		uint64_t began_ns = ffv_clock_ns();
		CHECK_OK(ffv_destroy_qp(hosts[0].qp));
		CHECK(ffv_clock_ns() - began_ns < 1000000000u); /* not given up: the device has let go */
		hosts[0].qp = NULL;
	} else {
		CHECK_OK(qp_to_error(hosts[0].qp));
		for (unsigned n = 1; n <= 2; n++)
			CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_WR_FLUSH_ERR).wr_id, n);
	}
	fake->release(); /* which carries out at once what was held */
	for (uint32_t i = 0; i < LENGTH; i++)
		CHECK_EQ(sink[i], 2);
	hosts_disconnect();
	wait_for_rdma();
}

/* Several pieces at both ends, that do not end at the same bytes. */
static void test_pieces(void)
{
	struct ffv_sge from[2] = { { (uintptr_t)hosts[0].mr->addr + 5, 100001, hosts[0].mr->lkey },
				   { (uintptr_t)hosts[0].mr->addr + 300000, 99999, hosts[0].mr->lkey } };
	struct ffv_sge to[2] = { { (uintptr_t)hosts[1].mr->addr + 4097, 50003, hosts[1].mr->lkey },
				 { (uintptr_t)hosts[1].mr->addr + 200001, 150000, hosts[1].mr->lkey } };
	struct ffv_recv_wr recv = { .wr_id = 1, .sg_list = to, .num_sge = 2 };
	struct ffv_send_wr send = { .wr_id = 2, .sg_list = from, .num_sge = 2, .opcode = FFV_WR_SEND,
				    .send_flags = FFV_SEND_SIGNALED };
	uint64_t before = query(0).bytes_one_sided_sent;

	hosts_connect(FFV_QPT_RC);
	hosts_fill(&hosts[0], 0, 400000, 9);
	CHECK_OK(ffv_post_recv(hosts[1].qp, &recv, NULL));
	CHECK_OK(ffv_post_send(hosts[0].qp, &send, NULL));
	poll_status(hosts[0].side.cq, FFV_WC_SUCCESS);
	CHECK_EQ(poll_status(hosts[1].side.cq, FFV_WC_SUCCESS).byte_len, 200000);
	hosts_check_same(5, 4097, 50003);
	hosts_check_same(5 + 50003, 200001, 100001 - 50003);
	hosts_check_same(300000, 200001 + 100001 - 50003, 99999);
	CHECK_EQ(query(0).bytes_one_sided_sent - before, 200000 - 64);
	CHECK_EQ(query(0).bytes_streamed, 0);
	hosts_disconnect();
}

/* ---- what goes meanwhile -------------------------------------------------------------------------------------------------- */

struct dereg { struct ffv_mr *mr; _Atomic bool done; };

static void *deregister(void *arg)
{
	struct dereg *dereg = arg;

	CHECK_OK(ffv_dereg_mr(dereg->mr));
	ffv_store_release(&dereg->done, true);
	return NULL;
}

static uint8_t *begin_held_write(struct ffv_mr **mr)
{
	uint8_t *memory = aligned_alloc(4096, LENGTH);
	struct ffv_sge sge;

	CHECK(memory);
	memset(memory, 0, LENGTH);
	CHECK_OK(ffv_reg_mr(hosts[1].side.pd, memory, LENGTH, (uintptr_t)memory, PAIR_ACCESS, mr));
	hosts_connect(FFV_QPT_RC);
	hosts_fill(&hosts[0], 0, LENGTH, 21);
	struct ffv_send_wr wr = send_wr(1, FFV_WR_RDMA_WRITE, &sge, hosts[0].mr, 0, LENGTH);
	wr.wr.rdma.remote_addr = (uintptr_t)memory;
	wr.wr.rdma.rkey = (*mr)->rkey;
	fake->hold();
	CHECK_OK(ffv_post_send(hosts[0].qp, &wr, NULL));
	wait_until_held();
	return memory;
}

/* Who deregisters waits for the device; then nothing of it is written any more. */
static void test_deregistered(void)
{
	struct dereg dereg = { 0 };
	pthread_t thread;
	uint8_t *memory = begin_held_write(&dereg.mr);

	CHECK_EQ(pthread_create(&thread, NULL, deregister, &dereg), 0);
	usleep(20000);
	CHECK(!ffv_load_acquire(&dereg.done)); /* the device may be at it */
	fake->release();
	CHECK_EQ(pthread_join(thread, NULL), 0);
	memset(memory, 2, LENGTH);
	struct ffv_wc wc = poll_one(hosts[0].side.cq);
	CHECK(wc.status == FFV_WC_SUCCESS || wc.status == FFV_WC_REM_ACCESS_ERR);
	for (uint32_t i = 0; i < LENGTH; i++)
		CHECK_EQ(memory[i], 2);
	hosts_disconnect();
	free(memory);
	wait_for_rdma();
}

/* A device that is too slow has the memory taken from it, before who deregisters gives up: its late write fails, and harms
 * nobody. */
static void test_taken_back(void)
{
	struct dereg dereg = { 0 };
	uint64_t refused = counted().refused;
	uint8_t *memory = begin_held_write(&dereg.mr);

	deregister(&dereg);
	memset(memory, 2, LENGTH);
	fake->release();
	poll_status(hosts[0].side.cq, FFV_WC_REM_ACCESS_ERR);
	CHECK_EQ(counted().refused, refused + 1);
	for (uint32_t i = 0; i < LENGTH; i++)
		CHECK_EQ(memory[i], 2);
	hosts_disconnect();
	free(memory);
	wait_for_rdma();
}

/* The real queue pair fails with a write under way: the bytes come all the same. */
static void test_broken(void)
{
	uint64_t streamed = query(0).bytes_streamed;
	struct ffv_mr *mr;
	uint8_t *memory = begin_held_write(&mr);

	fake->break_all();
	fake->release();
	poll_status(hosts[0].side.cq, FFV_WC_SUCCESS);
	CHECK(!memcmp(memory, hosts[0].mr->addr, LENGTH));
	CHECK(query(0).bytes_streamed > streamed);
	CHECK_OK(ffv_dereg_mr(mr));
	hosts_disconnect();
	free(memory);
	wait_for_rdma();
}

/* The queue pair of either side goes while the device is at it. */
static void test_destroyed(int whose)
{
	struct ffv_mr *mr;
	uint8_t *memory = begin_held_write(&mr);

	CHECK_OK(ffv_destroy_qp(hosts[whose].qp));
	hosts[whose].qp = NULL;
	fake->release();
	if (whose == 1)
		CHECK(poll_one(hosts[0].side.cq).status != FFV_WC_GENERAL_ERR);
	hosts_disconnect();
	CHECK_OK(ffv_dereg_mr(mr));
	free(memory);
	wait_for_rdma();
}

/* What cannot be registered is streamed; what can be again is not. */
static void test_limited(void)
{
	struct ffv_router_counters before = query(0);
	uint64_t deadline_ns = ffv_clock_ns() + PAIR_HANG_NS;

	hosts_connect(FFV_QPT_RC);
	wait_for_regions(2 + before.windows + query(1).windows);
	fake->limit(1);
	struct ffv_mr *mr;
	struct ffv_sge sge;
	CHECK_OK(ffv_alloc_mr(hosts[0].side.pd, LENGTH, PAIR_ACCESS, &mr));
	for (unsigned n = 0; query(0).bytes_one_sided_sent == before.bytes_one_sided_sent; n++) {
		CHECK(ffv_clock_ns() < deadline_ns);
		memset(mr->addr, (int)n + 1, LENGTH);
		struct ffv_send_wr wr = send_wr(n, FFV_WR_RDMA_WRITE, &sge, mr, 0, LENGTH);
		wr.wr.rdma.remote_addr = (uintptr_t)hosts[1].mr->addr;
		wr.wr.rdma.rkey = hosts[1].mr->rkey;
		CHECK_OK(ffv_post_send(hosts[0].qp, &wr, NULL));
		poll_status(hosts[0].side.cq, FFV_WC_SUCCESS);
		CHECK(!memcmp(mr->addr, hosts[1].mr->addr, LENGTH));
		if (n == 3) {
			CHECK(query(0).bytes_streamed - before.bytes_streamed >= 3 * (LENGTH - 64));
			fake->limit(0);
		}
	}
	CHECK_OK(ffv_dereg_mr(mr));
	hosts_disconnect();
}

/* ---- registrations -------------------------------------------------------------------------------------------------------- */

/* What the device has registered beside the windows, which may be given up at any moment. */
static uint32_t count_slots(void)
{
	uint32_t before, regions, after;

	do {
		before = query(0).windows + query(1).windows;
		regions = counted().regions;
		after = query(0).windows + query(1).windows;
	} while (before != after);
	return regions - before;
}

/* They end with those of the containers; there are never too many. */
static void test_windows(void)
{
	uint32_t slots = count_slots();

	CHECK_EQ(slots, 2);
	hosts_connect(FFV_QPT_RC);
	for (unsigned n = 0; n < 300; n++) {
		struct ffv_mr *mr;
		struct ffv_sge sge;
		CHECK_OK(ffv_alloc_mr(hosts[1].side.pd, 65536, PAIR_ACCESS, &mr));
		hosts_fill(&hosts[0], 0, 65536, n);
		struct ffv_send_wr wr = send_wr(n, FFV_WR_RDMA_WRITE, &sge, hosts[0].mr, 0, 65536);
		wr.wr.rdma.remote_addr = (uintptr_t)mr->addr;
		wr.wr.rdma.rkey = mr->rkey;
		CHECK_OK(ffv_post_send(hosts[0].qp, &wr, NULL));
		poll_status(hosts[0].side.cq, FFV_WC_SUCCESS);
		CHECK(!memcmp(mr->addr, hosts[0].mr->addr, 65536));
		CHECK(query(1).windows <= 256);
		CHECK_OK(ffv_dereg_mr(mr));
	}
	CHECK(query(1).windows_dropped >= 44);
	CHECK_EQ(query(0).bytes_streamed, 0);
	wait_for_regions(slots + 8);
	hosts_disconnect();
}

int main(void)
{
	CHECK((fake = fake_find()));
	qp_timeout = 18; /* 1.1 s, eight times: longer than a real queue pair takes to be replaced */
	hosts_open();
	test_moved();
	hosts_check_transport();
	test_unreliable();
	test_read();
	test_read_is_refused();
	test_behind_a_read();
	test_read_is_lost();
	test_read_meanwhile(false);
	test_read_meanwhile(true);
	test_pieces();
	test_windows();
	test_deregistered();
	test_broken();
	test_destroyed(0);
	test_destroyed(1);
	test_taken_back();
	test_limited();
	hosts_close();
	CHECK_EQ(counted().regions, 0);
	CHECK_EQ(counted().queue_pairs, 0);
	return 0;
}

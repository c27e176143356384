/* Real queue pairs (over pretended devices: fake_ibverbs.c) that cannot be had, that are lost again and again, and that end
 * with the goodbye of a router. */
#include <errno.h>
#include <sys/resource.h>
#include <unistd.h>

#include "fake_ibverbs.h"
#include "hosts.h"

#define LITTLE_BYTES (64u << 10)

static const struct fake_calls *fake;

/* Exchanges until each end has said something else than before of what carries; true: it is RDMA. */
static bool settle(char said[2][400])
{
	uint64_t deadline_ns = ffv_clock_ns() + 2 * PAIR_HANG_NS;
	bool news[2] = { false, false };
	char text[400];

	for (unsigned n = 0; !news[0] || !news[1]; n++) {
		CHECK(ffv_clock_ns() < deadline_ns);
		hosts_exchange(hosts[0].qp, hosts[1].qp, n);
		for (int i = 0; i < 2; i++) {
			hosts_describe(i, text);
			news[i] |= strcmp(text, said[i]) && strncmp(text, "both routers", 12);
			if (news[i])
				strcpy(said[i], text);
		}
	}
	return !strncmp(said[0], "rdma", 4) && !strncmp(said[1], "rdma", 4);
}

/* Goes on over a link that has lost nothing yet. */
static void begin_anew(void)
{
	char said[2][400];
	int sockets[2];

	hosts_describe(0, said[0]);
	hosts_describe(1, said[1]);
	fake->lack(0);
	fake->limit(0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
	for (int i = 0; i < 2; i++)
		CHECK_OK(ffv_router_resume_channel(hosts[i].router, hosts[i].channel, "rdma", sockets[i]));
	CHECK(settle(said));
}

/* ---- what cannot be had -------------------------------------------------------------------------------------------------- */

static void refuse(int gid_index, const char *text)
{
	struct ffv_rdma_options options = { .gid_index = gid_index, .host_address = "192.0.2.1", .device = "fake0" };

	CHECK_FAIL(ffv_router_use_rdma(hosts[0].router, &options), ENODEV, text);
}

static void test_gids(void)
{
	refuse(900, "fake0 port 1 has no GID at index 900: ibv_devinfo -v lists them; change or drop --rdma-gid-index");
	fake->lack(FAKE_ROCE_V2);
	refuse(0, "GID index 0 of fake0 port 1 is not of RoCE v2: change or drop --rdma-gid-index");
	refuse(-1, "has no RoCE v2 GID for 192.0.2.1: give its network interface that address, or say --host-ip");
	fake->lack(0);
	fake->plug(0);
	refuse(-1, "there is no RDMA device here");
	fake->plug(1);
}

/* All goes by TCP, the reason and the remedy are told, and when that has helped RDMA is used. */
static void check_tcp_because(const char *reason)
{
	char text[400];

	fake->break_all();
	hosts_exchange_until("tcp, for there is no RDMA at this end: ");
	hosts_describe(0, text);
	CHECK(strstr(text, reason));
	fake->lack(0);
	fake->limit(0);
	hosts_exchange_until("rdma fake");
}

static void test_no_reliable_connections(void)
{
	begin_anew();
	fake->lack(FAKE_RC);
	check_tcp_because("fake0 makes no RC queue pair (Operation not supported): choose another --rdma-device");
}

static void test_little_memory_to_lock(void)
{
	struct rlimit before, little;

	begin_anew();
	CHECK_EQ(getrlimit(RLIMIT_MEMLOCK, &before), 0);
	little = (struct rlimit){ before.rlim_max < LITTLE_BYTES ? before.rlim_max : LITTLE_BYTES, before.rlim_max };
	CHECK_EQ(setrlimit(RLIMIT_MEMLOCK, &little), 0);
	fake->limit(1);
	check_tcp_because("KiB may be locked; raise it (ulimit -l, LimitMEMLOCK=)");
	CHECK_EQ(setrlimit(RLIMIT_MEMLOCK, &before), 0);
}

/* ---- InfiniBand ---------------------------------------------------------------------------------------------------------- */

/* The first port that there is, for it has no address of the host's, reached by its LID. */
static void test_infiniband(void)
{
	begin_anew();
	fake->lack(FAKE_ETHERNET);
	fake->break_all();
	hosts_exchange_until("rdma fake0 port 1 GID index 0");
}

static void test_ports_of_two_kinds(void)
{
	begin_anew();
	fake->lack(FAKE_ETHERNET_1);
	check_tcp_because("one end has an Ethernet port, the other an InfiniBand one");
}

/* ---- what is lost -------------------------------------------------------------------------------------------------------- */

/* A queue pair that is lost is replaced, unless it was an end's third in a short time: then TCP carries, and RDMA again a
 * little later. Of a loss at both ends at once, one end may hear by the other's word. */
static void test_losses(void)
{
	char said[2][400];
	unsigned losses = 0;

	begin_anew();
	hosts_describe(0, said[0]);
	hosts_describe(1, said[1]);
	do {
		fake->break_all();
		losses++;
	} while (settle(said));
	CHECK(losses >= 3);
	CHECK(strstr(said[0], "tcp, for there is no RDMA at ") && strstr(said[1], "tcp, for there is no RDMA at "));
	CHECK(strstr(said[0], "fake") && strstr(said[1], "the real queue pair is lost"));
	hosts_exchange_until("rdma fake");
	printf("by TCP after %u losses\n", losses);
}

/* ---- the goodbye --------------------------------------------------------------------------------------------------------- */

/* It is heard although the device is slow to send it, and nobody waits for the router to come back. */
static void test_farewell(void)
{
	struct ffv_router_event event = { 0 };

	begin_anew();
	CHECK_OK(post_send(hosts[0].qp, 1, hosts[0].mr, 0, 64)); /* no receive: it waits over there */
	fake->hold_all();
	ffv_router_close_channel(hosts[1].router, hosts[1].channel);
	usleep(50000); /* for its loop to get there; else it was not tried, but did not fail */
	fake->release();
	CHECK_EQ(poll_status(hosts[0].side.cq, FFV_WC_RETRY_EXC_ERR).wr_id, 1);
	for (uint64_t deadline_ns = ffv_clock_ns() + PAIR_HANG_NS; event.kind != FFV_ROUTER_CHANNEL_CLOSED; sched_yield()) {
		ffv_router_next_event(hosts[0].router, &event);
		CHECK(ffv_clock_ns() < deadline_ns);
	}
	CHECK(strstr(event.text, "ended it"));
}

int main(void)
{
	CHECK((fake = fake_find()));
	qp_timeout = 20; /* 4.3 s, eight times: longer than a real queue pair takes to be replaced */
	hosts_open();
	hosts_connect(FFV_QPT_RC);
	test_losses();
	test_no_reliable_connections();
	test_little_memory_to_lock();
	test_infiniband();
	test_ports_of_two_kinds();
	test_farewell();
	test_gids();
	hosts_disconnect();
	hosts_close();
	return 0;
}

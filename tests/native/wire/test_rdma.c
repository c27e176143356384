/* Two hosts over two real (Soft-RoCE) devices in one process, and what becomes of the devices. Of the lab: FFV_TEST_RDMA
 * names the devices' addresses; rxe1 on veth1 is the second host's. One argument, which test. */
#include <errno.h>

#include "hosts.h"

static void run(const char *command)
{
	printf("$ %s\n", command);
	fflush(stdout);
	CHECK_EQ(system(command), 0);
}

/* However many virtual queue pairs there are, one real one carries them. */
static void test_many(void)
{
	enum { MANY = 500 };
	static struct ffv_qp *qps[2][MANY];

	for (unsigned i = 0; i < MANY; i++) {
		for (int h = 0; h < 2; h++)
			qps[h][i] = side_qp(&hosts[h].side, hosts[h].side.cq, FFV_QPT_RC, NULL, 4);
		for (int h = 0; h < 2 && !i; h++)
			CHECK_OK(ffv_router_reach(hosts[h].router, hosts[!h].gid.raw, ffv_qp_num(qps[!h][0]), hosts[h].channel));
		qp_connect(qps[0][i], &hosts[0].side, qps[1][i], &hosts[1].side);
	}
	for (unsigned i = 0; i < MANY; i++)
		hosts_exchange(qps[0][i], qps[1][i], i);
	hosts_check_transport();
	for (int h = 0; h < 2; h++) {
		char command[96], count[16] = "";
		snprintf(command, sizeof command, "rdma resource show qp link rxe%d | grep -c 'type RC'", h);
		FILE *counted = popen(command, "r");
		CHECK(counted && fgets(count, sizeof count, counted));
		pclose(counted);
		printf("%d virtual queue pairs, real ones on rxe%d: %s", MANY, h, count);
		CHECK_EQ(atoi(count), 1);
	}
	for (unsigned i = 0; i < MANY; i++)
		for (int h = 0; h < 2; h++)
			CHECK_OK(ffv_destroy_qp(qps[h][i]));
}

/* Nothing is lost when a device goes under traffic, nor when it comes again. */
static void test_device(void)
{
	hosts_connect(FFV_QPT_RC);
	hosts_exchange_until("rdma");
	run("rdma link delete rxe1");
	hosts_exchange_until("tcp");
	run("rdma link add rxe1 type rxe netdev veth1");
	hosts_exchange_until("rdma");
	hosts_disconnect();
}

static void test_port(void)
{
	hosts_connect(FFV_QPT_RC);
	hosts_exchange_until("rdma");
	run("ip link set veth1 down");
	hosts_exchange_until("tcp");
	run("ip link set veth1 up; sh $FFV_TEST_ROUTES");
	hosts_exchange_until("rdma");
	hosts_disconnect();
}

static void refuse(const char *address, const char *device, int gid_index, const char *text)
{
	struct ffv_rdma_options options = { .gid_index = gid_index };

	snprintf(options.host_address, sizeof options.host_address, "%s", address);
	snprintf(options.device, sizeof options.device, "%s", device);
	CHECK_EQ(ffv_router_use_rdma(hosts[0].router, &options), -ENODEV);
	printf("%s\n", ffv_error_text());
	CHECK(strstr(ffv_error_text(), text));
}

static void test_refusals(void)
{
	refuse("192.0.2.77", "", -1, "has no RoCE v2 GID for 192.0.2.77: give its network interface that address");
	refuse("192.0.2.1", "rxe1", -1, "rxe1 has no RoCE v2 GID for 192.0.2.1");
	refuse("192.0.2.1", "mlx5_7", -1, "no RDMA device mlx5_7");
	refuse("192.0.2.1", "rxe0", 900, "rxe0 port 1 has no GID at index 900");
	refuse("192.0.2.1", "rxe0", 5000, "rxe0 port 1 has no GID at index 5000");
}

/* Without the right to lock memory the reason is named, and everything goes by TCP. */
static void test_memlock(void)
{
	char text[400];

	hosts_connect(FFV_QPT_RC);
	hosts_exchange_until("tcp");
	hosts_describe(0, text);
	CHECK(strstr(text, "KiB may be locked; raise it (ulimit -l"));
	hosts_disconnect();
}

int main(int argc, char **argv)
{
	static const struct { const char *name; void (*test)(void); } tests[] = {
		{ "many", test_many }, { "device", test_device }, { "port", test_port }, { "refusals", test_refusals },
		{ "memlock", test_memlock },
	};

	CHECK_EQ(argc, 2);
	qp_timeout = 20; /* 4.3 s, eight times: longer than a real queue pair takes to find out that it is lost */
	hosts_open();
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
		if (!strcmp(argv[1], tests[i].name))
			tests[i].test();
	hosts_close();
	printf("%s: done\n", argv[1]);
	return 0;
}

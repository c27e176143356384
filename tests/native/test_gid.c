/* Which GIDs a container has, and that the two forms say the same. */
#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <arpa/inet.h>
#include <ffverbs/ffv.h>

#include "check.h"
#include "child.h"
#include "verbs/gid.h"

static uint8_t gid[16], link_local[16];

static void check_gids(const char *ip)
{
	uint8_t mapped[16] = {[10] = 0xff, 0xff}, local[16] = {0xfe, 0x80, [8] = 0x02, 0x00, 0x5e, 0xfe};

	CHECK_EQ(inet_pton(AF_INET, ip, mapped + 12), 1);
	memcpy(local + 12, mapped + 12, 4);
	CHECK_EQ(memcmp(gid, mapped, 16), 0);
	CHECK_EQ(memcmp(link_local, local, 16), 0);
}

static void test_environment(void)
{
	static const char *const good[] = {"10.0.0.1", "192.168.255.254", "127.0.0.1", "1.2.3.4", "223.255.255.255"};
	static const char *const bad[] = {"10.0.0", "10.0.0.256", "localhost", "::1", "10.0.0.1 ", " 10.0.0.1",
					  "0.0.0.0", "224.0.0.1", "255.255.255.255", "10.0.0.1/24", "0.1.2.3",
					  "-1.2.3.4"};

	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		setenv("FFVERBS_IP", good[i], 1);
		CHECK_EQ(ffv_gid_own(gid, link_local), 0);
		check_gids(good[i]);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		setenv("FFVERBS_IP", bad[i], 1);
		memset(gid, 0x55, sizeof gid);
		CHECK_EQ(ffv_gid_own(gid, link_local), -EINVAL);
		CHECK(strstr(ffv_error_text(), "FFVERBS_IP") && strstr(ffv_error_text(), bad[i]));
		CHECK_EQ(gid[0], 0x55); /* a failed call writes nothing */
	}
}

static void test_canonical(void)
{
	static const uint8_t alien[][16] = {
		{0},
		{0xfe, 0x80, [8] = 0x02, 0x11, 0x22, 0xff, 0xfe, 0x33, 0x44, 0x55},      /* of a real card */
		{0xfe, 0x80, [7] = 1, [8] = 0x02, 0x00, 0x5e, 0xfe, 10, 0, 0, 1},        /* of another subnet */
		{0x20, 0x01, 0x0d, 0xb8, [15] = 1},
	};
	uint8_t out[16];

	setenv("FFVERBS_IP", "10.20.30.40", 1);
	CHECK_EQ(ffv_gid_own(gid, link_local), 0);
	ffv_gid_canonical(link_local, out);
	CHECK_EQ(memcmp(out, gid, 16), 0);
	ffv_gid_canonical(gid, out);
	CHECK_EQ(memcmp(out, gid, 16), 0);
	ffv_gid_canonical(link_local, link_local); /* in place */
	CHECK_EQ(memcmp(link_local, gid, 16), 0);
	for (size_t i = 0; i < sizeof alien / sizeof *alien; i++) {
		ffv_gid_canonical(alien[i], out);
		CHECK_EQ(memcmp(out, alien[i], 16), 0);
	}
}

/* A container without a network: its loopback interface is all it has. */
static void without_network(void *arg)
{
	(void)arg;
	unsetenv("FFVERBS_IP");
	if (unshare(CLONE_NEWUSER | CLONE_NEWNET)) {
		fprintf(stderr, "skipped: no network namespace of our own: %s\n", strerror(errno));
		return;
	}
	CHECK_EQ(ffv_gid_own(gid, link_local), 0);
	check_gids("127.0.0.1");
	setenv("FFVERBS_IP", "", 1); /* the same as unset */
	CHECK_EQ(ffv_gid_own(gid, link_local), 0);
	check_gids("127.0.0.1");

	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	CHECK_EQ(ioctl(fd, SIOCSIFFLAGS, &request), 0);
	CHECK_EQ(ffv_gid_own(gid, link_local), 0);
	check_gids("127.0.0.1");

	/* Another address of the loopback interface is nobody's name either. */
	struct sockaddr_in other = {.sin_family = AF_INET};
	CHECK_EQ(inet_pton(AF_INET, "10.1.1.1", &other.sin_addr), 1);
	memcpy(&request.ifr_addr, &other, sizeof other);
	CHECK_EQ(ioctl(fd, SIOCSIFADDR, &request), 0);
	CHECK_EQ(ffv_gid_own(gid, link_local), 0);
	check_gids("127.0.0.1");
	close(fd);
}

int main(void)
{
	test_environment();
	test_canonical();
	child_run(geteuid(), without_network, NULL);
	return 0;
}

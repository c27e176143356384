/* Conversations of the connection manager between hosts: two routers, a listener in the node directory of the second, and
 * sockets in place of containers of the first. */
#include <errno.h>
#include <poll.h>

#include "hosts.h"
#include "shm/nodedir.h"
#include "verbs/ask.h"

static const struct ffv_router_service service = { .address = { [10] = 0xff, 0xff, 10, 0, 2, 1 }, .port_space = 0x106,
						    .port = 7471 };
static struct ffv_nodedir *dir;
static char name[FFV_NODEDIR_NAME_BYTES];
static int listener;

static void wait_readable(int fd)
{
	struct pollfd ready = { .fd = fd, .events = POLLIN };

	CHECK_EQ(poll(&ready, 1, 20000), 1);
}

/* What comes next at a socket: its length, 0 = hang-up. */
static ssize_t next(int fd, void *packet, size_t size)
{
	ssize_t n;

	do {
		wait_readable(fd);
		n = recv(fd, packet, size, MSG_DONTWAIT);
	} while (n < 0 && (errno == EAGAIN || errno == ECONNRESET));
	return n;
}

static void check_next(int fd, const char *expected)
{
	char packet[1024] = "";

	CHECK_EQ(next(fd, packet, sizeof packet), (long)strlen(expected));
	CHECK_STR(packet, expected);
}

static void check_hung_up(int fd)
{
	char packet[1024];

	CHECK_EQ(next(fd, packet, sizeof packet), 0);
	close(fd);
}

static void check_answer(int fd, uint32_t expected)
{
	uint32_t error = 0;

	wait_readable(fd);
	CHECK_EQ(ffv_ask_answer(fd, &error), 1);
	CHECK_EQ(error, expected);
	check_hung_up(fd);
}

static int call(const struct ffv_router_service *who, uint32_t channel, const char *words)
{
	int ends[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	CHECK_OK(ffv_router_call(hosts[0].router, ends[1], channel, who, words, strlen(words)));
	return ends[0];
}

static int answer(const char *words)
{
	wait_readable(listener);
	int fd = accept(listener, NULL, NULL);
	CHECK(fd >= 0);
	check_next(fd, words);
	return fd;
}

static void say(int fd, const char *words)
{
	CHECK_EQ(send(fd, words, strlen(words), MSG_NOSIGNAL), (long)strlen(words));
}

static void test_words_pass_both_ways(void)
{
	for (unsigned who = 0; who < 2; who++) {
		int ends[2];
		ends[0] = call(&service, hosts[0].channel, "request");
		ends[1] = answer("request");
		say(ends[1], "reply");
		say(ends[1], "and more");
		check_next(ends[0], "reply");
		check_next(ends[0], "and more");
		say(ends[0], "thanks");
		check_next(ends[1], "thanks");
		say(ends[who], "last words");
		close(ends[who]);
		check_next(ends[!who], "last words");
		check_hung_up(ends[!who]);
	}
}

/* Also when its own end has something that was not read: the others see its last words. */
static void test_last_words_of_who_does_not_listen(void)
{
	int one = call(&service, hosts[0].channel, "request"), other = answer("request");

	say(one, "never read");
	wait_readable(other);
	say(other, "refused");
	close(other);
	check_next(one, "refused");
	check_hung_up(one);
}

static void test_nobody_listens(void)
{
	struct ffv_router_service nobody = service;

	nobody.port++;
	check_answer(call(&nobody, hosts[0].channel, "request"), ENOENT);
	check_answer(call(&service, hosts[0].channel + 1, "request"), EHOSTUNREACH);
}

static void test_limits(void)
{
	char large[600];
	int ends[2];

	memset(large, 'x', sizeof large);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	CHECK_EQ(ffv_router_call(hosts[0].router, ends[1], hosts[0].channel, &service, large, 0), -EINVAL);
	CHECK_EQ(ffv_router_call(hosts[0].router, ends[1], hosts[0].channel, &service, large, 513), -EINVAL);
	close(ends[0]);
	close(ends[1]);
	int one = call(&service, hosts[0].channel, "request"), other = answer("request");
	CHECK_EQ(send(one, large, 513, 0), 513);
	check_hung_up(one);
	check_hung_up(other);
	one = call(&service, hosts[0].channel, "request"), other = answer("request");
	for (unsigned n = 0; n < 64 && send(one, "chatter", 7, MSG_NOSIGNAL) == 7; n++)
		if (n < 32)
			check_next(other, "chatter");
	check_hung_up(other);
	check_hung_up(one);
}

static const char *words(int n)
{
	static char text[32];

	snprintf(text, sizeof text, "request %d", n);
	return text;
}

/* They are answered in the order in which they came. */
static void test_many_at_once(void)
{
	enum { MANY = 200 };
	static int ends[2][MANY];

	for (int n = 0; n < MANY; n++)
		ends[0][n] = call(&service, hosts[0].channel, words(n));
	for (int n = 0; n < MANY; n++)
		say(ends[1][n] = answer(words(n)), "reply");
	for (int n = 0; n < MANY; n++)
		check_next(ends[0][n], "reply");
	for (int n = 0; n < MANY; n++)
		close(ends[n % 2][n]);
	for (int n = 0; n < MANY; n++)
		check_hung_up(ends[!(n % 2)][n]);
}

static void test_a_channel_breaks(void)
{
	int one = call(&service, hosts[0].channel, "request"), other = answer("request");
	int second = call(&service, hosts[0].channel, "second");

	close(answer("second"));
	check_hung_up(second);
	say(other, "reply");
	check_next(one, "reply");
	int third = call(&service, hosts[0].channel, "third"), there = answer("third");
	ffv_router_close_channel(hosts[0].router, hosts[0].channel);
	check_hung_up(one);
	check_hung_up(other);
	check_answer(third, EHOSTUNREACH);
	check_hung_up(there);
	check_answer(call(&service, hosts[0].channel, "request"), EHOSTUNREACH);
}

int main(void)
{
	hosts_open();
	CHECK_OK(ffv_nodedir_open(hosts[1].dir, &dir));
	ffv_nodedir_write_service(name, 'g', service.address, service.port_space, service.port);
	CHECK_OK(ffv_nodedir_claim_name(dir, name, &listener));
	test_words_pass_both_ways();
	test_last_words_of_who_does_not_listen();
	test_nobody_listens();
	test_limits();
	test_many_at_once();
	test_a_channel_breaks();
	ffv_nodedir_release_name(dir, name, listener);
	ffv_nodedir_close(dir);
	hosts_close();
	return 0;
}

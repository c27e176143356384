/* SPDX-License-Identifier: MIT
 *
 * A peer: TCP over the loopback interface, the host mode of FreeFlow's figures, or between the network namespaces in
 * which the two ends are started. Two pinned processes, blocking sockets with TCP_NODELAY.
 *
 *   tcp latency   one-way ns (half of each round trip): median and tails
 *   tcp stream    bytes/s that have arrived; the second answers when it has read everything
 *
 *   --listen PORT         only the second, at any address; it says "ready" when it listens
 *   --connect ADDR:PORT   only the first
 *
 * Prints one JSON object. Each message begins with its number, which the far end checks.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "common.h"

struct test {
	int cpu[2];
	uint64_t iters;
	uint64_t warm_up;
	size_t size_bytes;
	int listener;
	int stream;
	struct sockaddr_in address; /* where the second listens: loopback and a free port unless it was given */
	int roles;
};

enum { FIRST = 1, SECOND = 2 };

static void set_no_delay(int fd)
{
	int on = 1;

	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)))
		die("TCP_NODELAY");
}

static int listen_at(struct sockaddr_in *address)
{
	socklen_t length = sizeof(*address);
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    bind(fd, (struct sockaddr *)address, length) || listen(fd, 1) ||
	    getsockname(fd, (struct sockaddr *)address, &length))
		die("listen");
	return fd;
}

static void write_all(int fd, const void *from, size_t length_bytes)
{
	for (const char *at = from; length_bytes;) {
		ssize_t n = write(fd, at, length_bytes);

		if (n <= 0)
			die("write");
		at += n;
		length_bytes -= (size_t)n;
	}
}

static void read_all(int fd, void *to, size_t length_bytes)
{
	for (char *at = to; length_bytes;) {
		ssize_t n = read(fd, at, length_bytes);

		if (n <= 0)
			die("read");
		at += n;
		length_bytes -= (size_t)n;
	}
}

static size_t stamp_bytes(const struct test *t)
{
	return t->size_bytes < sizeof(uint64_t) ? t->size_bytes : sizeof(uint64_t);
}

static void check_stamp(const struct test *t, const void *message, uint64_t number)
{
	if (memcmp(message, &number, stamp_bytes(t))) {
		fprintf(stderr, "message %llu came with another number\n", (unsigned long long)number);
		exit(1);
	}
}

static void second(void *arg)
{
	struct test *t = arg;
	char *message = calloc(1, t->size_bytes);
	int fd = accept(t->listener, NULL, NULL);

	if (!message || fd < 0)
		die("accept");
	set_no_delay(fd);
	for (uint64_t i = 0; i < t->warm_up + t->iters; i++) {
		read_all(fd, message, t->size_bytes);
		check_stamp(t, message, i);
		if (!t->stream || i + 1 == t->warm_up || i + 1 == t->warm_up + t->iters)
			write_all(fd, message, t->stream ? 1 : t->size_bytes);
	}
}

/* Returns the ns of the timed part; `samples` gets one-way ns in latency tests. */
static double first(const struct test *t, int fd, double *samples)
{
	char *message = calloc(1, t->size_bytes), answer;
	double began = now_ns();

	if (!message)
		die("calloc");
	for (uint64_t i = 0; i < t->warm_up + t->iters; i++) {
		double start = now_ns();

		memcpy(message, &i, stamp_bytes(t));
		write_all(fd, message, t->size_bytes);
		if (t->stream) {
			if (i + 1 == t->warm_up || i + 1 == t->warm_up + t->iters)
				read_all(fd, &answer, 1);
		} else {
			read_all(fd, message, t->size_bytes);
			check_stamp(t, message, i);
			if (i >= t->warm_up)
				samples[i - t->warm_up] = (now_ns() - start) / 2;
		}
		if (i + 1 == t->warm_up)
			began = now_ns();
	}
	free(message);
	return now_ns() - began;
}

static double percentile(const double *sorted, uint64_t n, double share)
{
	return sorted[(uint64_t)((double)(n - 1) * share)];
}

static void report(const struct test *t, double elapsed_ns, double *samples)
{
	if (t->stream) {
		printf("{\"test\": \"stream\", \"size_bytes\": %zu, \"bytes_per_s\": %.0f}\n", t->size_bytes,
		       (double)t->iters * (double)t->size_bytes / elapsed_ns * 1e9);
		return;
	}
	qsort(samples, t->iters, sizeof(*samples), compare_double);
	printf("{\"test\": \"latency\", \"size_bytes\": %zu, \"p50_ns\": %.0f, \"p99_ns\": %.0f, \"p999_ns\": %.0f}\n",
	       t->size_bytes, percentile(samples, t->iters, .5), percentile(samples, t->iters, .99),
	       percentile(samples, t->iters, .999));
}

static void usage(const char *program)
{
	fprintf(stderr, "usage: %s latency|stream [--cpus A,B] [--size BYTES] [--iters N] [--listen PORT | --connect ADDR:PORT]\n",
		program);
	exit(2);
}

static bool read_address(const char *text, struct sockaddr_in *address)
{
	char host[INET_ADDRSTRLEN];
	unsigned short port;

	if (sscanf(text, "%15[0-9.]:%hu", host, &port) != 2)
		return false;
	address->sin_port = htons(port);
	return inet_pton(AF_INET, host, &address->sin_addr) == 1;
}

static bool read_option(struct test *t, int option, const char *text)
{
	switch (option) {
	case 'c':
		return sscanf(text, "%d,%d", &t->cpu[0], &t->cpu[1]) == 2;
	case 's':
		return (t->size_bytes = strtoull(text, NULL, 10)) > 0;
	case 'i':
		return (t->iters = strtoull(text, NULL, 10)) > 0;
	case 'l':
		t->roles = SECOND;
		t->address.sin_addr.s_addr = htonl(INADDR_ANY);
		t->address.sin_port = htons((uint16_t)atoi(text));
		return t->address.sin_port != 0;
	case 'o':
		t->roles = FIRST;
		return read_address(text, &t->address);
	default:
		return false;
	}
}

static void parse(struct test *t, int argc, char **argv)
{
	static const struct option options[] = { { "cpus", 1, NULL, 'c' }, { "size", 1, NULL, 's' },
						 { "iters", 1, NULL, 'i' }, { "listen", 1, NULL, 'l' },
						 { "connect", 1, NULL, 'o' }, { 0 } };

	if (argc < 2 || (strcmp(argv[1], "latency") && strcmp(argv[1], "stream")))
		usage(argv[0]);
	t->stream = !strcmp(argv[1], "stream");
	for (int c; (c = getopt_long(argc - 1, argv + 1, "", options, NULL)) != -1;)
		if (!read_option(t, c, optarg))
			usage(argv[0]);
	t->warm_up = t->iters / 10 + 1;
}

static void run_first(struct test *t)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	double *samples = calloc(t->iters, sizeof(*samples));

	pin(t->cpu[0]);
	if (!samples || fd < 0 || connect(fd, (struct sockaddr *)&t->address, sizeof(t->address)))
		die("connect");
	set_no_delay(fd);
	report(t, first(t, fd, samples), samples);
}

int main(int argc, char **argv)
{
	struct test t = { .cpu = { 0, 1 }, .iters = 10000, .size_bytes = 64, .roles = FIRST | SECOND,
			  .address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) } };
	pid_t pid = 0;

	parse(&t, argc, argv);
	if (t.roles & SECOND)
		t.listener = listen_at(&t.address);
	if (t.roles == SECOND) {
		puts("ready");
		fflush(stdout);
		pin(t.cpu[1]);
		second(&t);
		return 0;
	}
	if (t.roles & SECOND)
		pid = start_second(t.cpu, second, &t);
	run_first(&t);
	if (pid)
		finish_second(pid);
	return 0;
}

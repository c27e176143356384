/* By hand: streams of these sockets against TCP on loopback, between two processes, in turn, in one run. Prints throughput
 * and processor time a byte by size of the sends, and half round trips of small messages. Usage: rs_speed [SECONDS]. */
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rs_support.h"

struct kind {
	const char *name;
	int (*make)(int domain, int type, int protocol);
	int (*connect)(int fd, const struct sockaddr *addr, uint32_t length);
	long (*send)(int fd, const void *data, size_t length, int flags);
	long (*recv)(int fd, void *data, size_t length, int flags);
};

static long plain_send(int fd, const void *data, size_t length, int flags) { return send(fd, data, length, flags); }
static long plain_recv(int fd, void *data, size_t length, int flags) { return recv(fd, data, length, flags); }
static int plain_connect(int fd, const struct sockaddr *addr, uint32_t length) { return connect(fd, addr, length); }

static const struct kind kinds[] = {
	{ "verbs", ffv_socket, ffv_connect, ffv_send, ffv_recv },
	{ "tcp", socket, plain_connect, plain_send, plain_recv },
};

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double used_s(int who)
{
	struct rusage usage;

	getrusage(who, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void receive_all(const struct kind *kind, int fd, uint8_t *data, size_t length)
{
	for (size_t got = 0; got < length;) {
		long count = kind->recv(fd, data + got, length - got, 0);
		CHECK(count > 0);
		got += (size_t)count;
	}
}

/* The first byte says what for: 0 take all until the end, then say that it came; 1 send back messages of `size`. */
static void serve(const struct kind *kind, int fd)
{
	static uint8_t data[1 << 20];
	uint8_t wish[5];
	uint32_t size;
	long count;

	receive_all(kind, fd, wish, 5);
	memcpy(&size, wish + 1, 4);
	if (wish[0]) {
		for (;;) {
			count = kind->recv(fd, data, size, MSG_WAITALL);
			if (count != (long)size)
				return;
			CHECK_EQ(kind->send(fd, data, size, 0), size);
		}
	}
	while ((count = kind->recv(fd, data, sizeof data, 0)) > 0)
		if (data[count - 1] == 'E')
			CHECK_EQ(kind->send(fd, "e", 1, 0), 1);
}

static int run_server(const struct kind *kind, int answer_fd)
{
	struct sockaddr_in addr = rs_address("127.0.0.1", 0);
	socklen_t length = sizeof addr;
	int fd, listener, one = 1;

	if (kind->make == ffv_socket) {
		listener = rs_listener(&addr);
	} else {
		listener = socket(AF_INET, SOCK_STREAM, 0);
		CHECK(bind(listener, (struct sockaddr *)&addr, length) == 0 && listen(listener, 8) == 0);
		CHECK_EQ(getsockname(listener, (struct sockaddr *)&addr, &length), 0);
	}
	CHECK_EQ(write(answer_fd, &addr, sizeof addr), sizeof addr);
	for (;;) {
		fd = kind->make == ffv_socket ? ffv_accept4(listener, NULL, NULL, 0) : accept(listener, NULL, NULL);
		CHECK(fd >= 0);
		if (kind->make == socket)
			setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		serve(kind, fd);
		if (kind->make == ffv_socket)
			ffv_close_socket(fd);
		else
			close(fd);
	}
}

static int begin(const struct kind *kind, const struct sockaddr_in *addr, uint8_t what, uint32_t size)
{
	int fd = kind->make(AF_INET, SOCK_STREAM, 0), one = 1;
	uint8_t wish[5] = { what };

	CHECK_EQ(kind->connect(fd, (const struct sockaddr *)addr, sizeof *addr), 0);
	if (kind->make == socket)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	memcpy(wish + 1, &size, 4);
	CHECK_EQ(kind->send(fd, wish, 5, 0), 5);
	return fd;
}

static void end(const struct kind *kind, int fd)
{
	if (kind->make == ffv_socket)
		ffv_close_socket(fd);
	else
		close(fd);
}

static void measure_stream(const struct kind *kind, const struct sockaddr_in *addr, uint32_t size, double seconds)
{
	static uint8_t data[1 << 20];
	int fd = begin(kind, addr, 0, size);
	double start = now_s(), cpu = used_s(RUSAGE_SELF);
	uint64_t bytes = 0;
	uint8_t answer;

	while (now_s() - start < seconds)
		for (int i = 0; i < 16; i++, bytes += size)
			CHECK_EQ(kind->send(fd, data, size, 0), size);
	CHECK_EQ(kind->send(fd, "E", 1, 0), 1);
	CHECK_EQ(kind->recv(fd, &answer, 1, 0), 1);
	double took = now_s() - start;
	printf("%-6s stream %7u B: %8.1f MB/s, sender %.2f ns/B\n", kind->name, size, (double)bytes / took / 1e6,
	       (used_s(RUSAGE_SELF) - cpu) / (double)bytes * 1e9);
	end(kind, fd);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void measure_trips(const struct kind *kind, const struct sockaddr_in *addr, uint32_t size, double seconds)
{
	static uint8_t data[1 << 16];
	static double trips[1 << 20];
	int fd = begin(kind, addr, 1, size), count = 0;
	double start = now_s();

	for (double then = start, now; then - start < seconds && count < 1 << 20; then = now) {
		CHECK_EQ(kind->send(fd, data, size, 0), size);
		receive_all(kind, fd, data, size);
		now = now_s();
		trips[count++] = now - then;
	}
	qsort(trips, (size_t)count, sizeof trips[0], compare);
	printf("%-6s trips  %7u B: median %.2f us, 99%% %.2f us one way\n", kind->name, size, trips[count / 2] * 5e5,
	       trips[count * 99 / 100] * 5e5);
	end(kind, fd);
}

int main(int argc, char **argv)
{
	static const uint32_t sizes[] = { 64, 1024, 16384, 131072, 1 << 20 };
	double seconds = argc > 1 ? atof(argv[1]) : 1;
	struct sockaddr_in addrs[2];
	pid_t servers[2];
	int answer[2];

	opened_directory();
	for (int k = 0; k < 2; k++) {
		CHECK_EQ(pipe(answer), 0);
		servers[k] = fork();
		if (!servers[k])
			return run_server(&kinds[k], answer[1]);
		CHECK_EQ(read(answer[0], &addrs[k], sizeof addrs[k]), sizeof addrs[k]);
	}
	for (int round = 0; round < 3; round++)
		for (int k = 0; k < 2; k++)
			for (uint32_t i = 0; i < 5; i++)
				measure_stream(&kinds[k], &addrs[k], sizes[i], seconds);
	for (int round = 0; round < 3; round++)
		for (int k = 0; k < 2; k++)
			measure_trips(&kinds[k], &addrs[k], 64, seconds);
	for (int k = 0; k < 2; k++) {
		kill(servers[k], SIGKILL);
		waitpid(servers[k], NULL, 0);
	}
	scratch_remove();
	return 0;
}

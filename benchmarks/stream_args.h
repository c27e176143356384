/* SPDX-License-Identifier: MIT
 *
 * The command line that the programs which run the stream of stream.h through a transport have in common.
 */
#ifndef FFVERBS_BENCHMARKS_STREAM_ARGS_H
#define FFVERBS_BENCHMARKS_STREAM_ARGS_H

#include <getopt.h>
#include <sys/socket.h>

#include "stream.h"

struct stream_test {
	struct stream stream;
	int cpu[2];
	int sockets[2]; /* the first's and the second's: what a transport needs to connect travels here */
};

static inline void stream_usage(const char *program)
{
	fprintf(stderr,
		"usage: %s [--cpus A,B] [--far-end idle|samples|reads|copies] [--slots N] [--size BYTES]\n"
		"       [--iters N] [--batches N]\n"
		"  --batches 1..%d (the median is reported), --iters of a batch, --slots 1..%d,\n"
		"  --size of a message, a multiple of 8\n",
		program, MAX_BATCHES, STREAM_SLOTS_MAX);
	exit(2);
}

static inline void stream_parse_flag(const char *program, int flag, struct stream_test *t)
{
	struct stream *s = &t->stream;

	if (flag == 'c' && sscanf(optarg, "%d,%d", &t->cpu[0], &t->cpu[1]) == 2)
		return;
	if (flag == 'f') {
		for (s->far_end = FAR_IDLE; s->far_end < FAR_KINDS; s->far_end++)
			if (!strcmp(optarg, far_end_names[s->far_end]))
				return;
		stream_usage(program);
	} else if (flag == 'b')
		s->batches = atoi(optarg);
	else if (flag == 'i')
		s->iters = strtoull(optarg, NULL, 10);
	else if (flag == 's')
		s->size_bytes = strtoull(optarg, NULL, 10);
	else if (flag == 'n')
		s->slots = (unsigned)atoi(optarg);
	else
		stream_usage(program);
}

/* Also makes what both processes share. */
static inline void stream_parse(int argc, char **argv, struct stream_test *t)
{
	static const struct option known[] = { { "cpus", 1, NULL, 'c' },  { "batches", 1, NULL, 'b' },
					       { "iters", 1, NULL, 'i' }, { "size", 1, NULL, 's' },
					       { "slots", 1, NULL, 'n' }, { "far-end", 1, NULL, 'f' },
					       { 0 } };
	struct stream *s = &t->stream;

	*t = (struct stream_test){
		.stream = { .size_bytes = 65536, .slots = 16, .iters = 2000, .batches = 21, .far_end = FAR_SAMPLES },
		.cpu = { 0, 1 },
	};
	for (int flag; (flag = getopt_long(argc, argv, "", known, NULL)) != -1;)
		stream_parse_flag(argv[0], flag, t);
	if (optind != argc || s->batches < 1 || s->batches > MAX_BATCHES || s->iters < 1 || s->size_bytes < 8 ||
	    s->size_bytes % 8 || s->slots < 1 || s->slots > STREAM_SLOTS_MAX)
		stream_usage(argv[0]);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, t->sockets))
		die("socketpair");
	s->counters = shared_create(sizeof(*s->counters));
}

static inline void stream_print(const char *test, const struct stream *s, double bytes_per_s)
{
	printf("{\"test\": \"%s\", \"far_end\": \"%s\", \"size_bytes\": %zu, \"slots\": %u, \"bytes_per_s\": %.0f}\n",
	       test, far_end_names[s->far_end], s->size_bytes, s->slots, bytes_per_s);
}

static inline void send_all(int fd, const void *data, size_t length)
{
	if (write(fd, data, length) != (ssize_t)length)
		die("write to the other process");
}

static inline void receive_all(int fd, void *data, size_t length)
{
	if (recv(fd, data, length, MSG_WAITALL) != (ssize_t)length)
		die("read from the other process");
}

#endif

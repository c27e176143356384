/* SPDX-License-Identifier: MIT
 *
 * What the machine itself allows: the floor under every latency and the ceiling over every bandwidth that the other
 * benchmarks report. Two pinned processes share a memfd; nothing of ffverbs is linked.
 *
 *   limits handover   one-way ns of a cache line that goes back and forth (half a round trip, both sides spin)
 *   limits copy       bytes/s of one memcpy into a shared buffer; see stream.h for what the far end does with it
 *   limits eventfd    one-way ns of a wake-up by eventfd (both sides sleep in read): half the median round trip, as
 *                     `ffverbs perf` reports it, for the mean is that of whoever else wants the cores
 *
 * Prints one JSON object. Every test checks its data: a wrong value ends the program with a message and exit code 1.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <sys/eventfd.h>

#include "stream.h"

struct options {
	int cpu[2];
	int batches;
	uint64_t iters; /* of one batch */
	size_t size_bytes;
	unsigned slots;
};

static uint64_t total_rounds(const struct options *o)
{
	return (uint64_t)(o->batches + WARM_UP_BATCHES) * o->iters;
}

/* --- handover: one line that both write, and one line for each direction --- */

struct handover {
	_Alignas(LINE_BYTES) _Atomic uint64_t ping;
	_Alignas(LINE_BYTES) _Atomic uint64_t pong;
};

struct handover_test {
	const struct options *options;
	struct handover *shared;
	_Atomic uint64_t *answer; /* the line that the second writes: ping's own, or pong */
};

/* Counts up: the first writes odd values, the second even ones, each after it has seen the other's. */
static void handover_second(void *arg)
{
	struct handover_test *t = arg;

	for (uint64_t i = 0; i < total_rounds(t->options); i++) {
		wait_until(&t->shared->ping, 2 * i + 1);
		atomic_store_explicit(t->answer, 2 * i + 2, memory_order_release);
	}
}

static double handover_ns(const struct options *o, int lines)
{
	static double batch_ns[MAX_BATCHES];
	struct handover *shared = shared_create(sizeof(*shared));
	struct handover_test t = { o, shared, lines == 1 ? &shared->ping : &shared->pong };
	pid_t second = start_second(o->cpu, handover_second, &t);
	uint64_t i = 0;

	for (int batch = -WARM_UP_BATCHES; batch < o->batches; batch++) {
		double start = now_ns();

		for (uint64_t end = i + o->iters; i < end; i++) {
			atomic_store_explicit(&shared->ping, 2 * i + 1, memory_order_release);
			wait_until(t.answer, 2 * i + 2);
		}
		if (batch >= 0)
			batch_ns[batch] = (now_ns() - start) / (double)o->iters / 2;
	}
	finish_second(second);
	munmap(shared, sizeof(*shared));
	return median(batch_ns, o->batches);
}

static void run_handover(const struct options *o)
{
	double one = handover_ns(o, 1), two = handover_ns(o, 2);

	printf("{\"test\": \"handover\", \"one_line_ns\": %.2f, \"two_lines_ns\": %.2f}\n", one, two);
}

/* --- copy --- */

struct copy_test {
	struct stream stream;
	unsigned char *slots_memory;
};

static void copy_second(void *arg)
{
	struct copy_test *t = arg;

	if (t->stream.far_end != FAR_IDLE)
		stream_receive(&t->stream, t->slots_memory);
}

static void copy_transfer(void *transport, const unsigned char *from, unsigned slot)
{
	struct copy_test *t = transport;

	memcpy(t->slots_memory + slot * t->stream.size_bytes, from, t->stream.size_bytes);
}

static double copy_rate(const struct options *o, enum far_end far_end)
{
	struct copy_test t = {
		.stream = { .size_bytes = o->size_bytes, .slots = o->slots, .iters = o->iters,
			    .batches = o->batches, .far_end = far_end },
	};
	unsigned char *buffers = stream_buffers(&t.stream);
	pid_t second;
	double rate;

	t.stream.counters = shared_create(sizeof(*t.stream.counters));
	t.slots_memory = shared_create(stream_memory_bytes(&t.stream));
	second = start_second(o->cpu, copy_second, &t);
	rate = stream_send(&t.stream, buffers, copy_transfer, &t);
	finish_second(second);
	free(buffers);
	munmap(t.slots_memory, stream_memory_bytes(&t.stream));
	munmap(t.stream.counters, sizeof(*t.stream.counters));
	return rate;
}

static void run_copy(const struct options *o)
{
	printf("{\"test\": \"copy\", \"size_bytes\": %zu, \"slots\": %u", o->size_bytes, o->slots);
	for (int kind = 0; kind < FAR_KINDS; kind++)
		printf(", \"far_end_%s_bytes_per_s\": %.0f", far_end_names[kind], copy_rate(o, (enum far_end)kind));
	printf("}\n");
}

/* --- eventfd: both sides sleep --- */

struct eventfd_test {
	const struct options *options;
	int ping, pong;
};

static void eventfd_second(void *arg)
{
	struct eventfd_test *t = arg;
	uint64_t value;

	for (uint64_t i = 0; i < total_rounds(t->options); i++)
		if (eventfd_read(t->ping, &value) || eventfd_write(t->pong, value))
			die("eventfd");
}

static void run_eventfd(const struct options *o)
{
	struct eventfd_test t = { o, eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC) };
	uint64_t rounds = total_rounds(o), warm_up = WARM_UP_BATCHES * o->iters, value;
	double *one_way_ns = malloc(rounds * sizeof(*one_way_ns));
	pid_t second;

	if (t.ping < 0 || t.pong < 0 || !one_way_ns)
		die("eventfd");
	second = start_second(o->cpu, eventfd_second, &t);
	for (uint64_t i = 0; i < rounds; i++) {
		double start = now_ns();

		if (eventfd_write(t.ping, i + 1) || eventfd_read(t.pong, &value))
			die("eventfd");
		one_way_ns[i] = (now_ns() - start) / 2;
		if (value != i + 1)
			stream_die_of_data(i + 1, value);
	}
	finish_second(second);
	printf("{\"test\": \"eventfd\", \"one_way_ns\": %.2f}\n", median(one_way_ns + warm_up, (int)(rounds - warm_up)));
	free(one_way_ns);
}

/* --- command line --- */

static const struct test {
	const char *name;
	uint64_t iters;
	void (*run)(const struct options *);
} tests[] = {
	{ "handover", 20000, run_handover },
	{ "copy", 2000, run_copy },
	{ "eventfd", 2000, run_eventfd },
};

static void usage(void)
{
	fprintf(stderr,
		"usage: limits handover|copy|eventfd [--cpus A,B] [--batches N] [--iters N] [--size BYTES] [--slots N]\n"
		"  --batches 1..%d (the median is reported), --iters of a batch, --slots 1..%d,\n"
		"  --size of a message, a multiple of 8\n",
		MAX_BATCHES, STREAM_SLOTS_MAX);
	exit(2);
}

static void parse_flag(int flag, struct options *o)
{
	if (flag == 'c' && sscanf(optarg, "%d,%d", &o->cpu[0], &o->cpu[1]) == 2)
		return;
	if (flag == 'b')
		o->batches = atoi(optarg);
	else if (flag == 'i')
		o->iters = strtoull(optarg, NULL, 10);
	else if (flag == 's')
		o->size_bytes = strtoull(optarg, NULL, 10);
	else if (flag == 'n')
		o->slots = (unsigned)atoi(optarg);
	else
		usage();
}

static const struct test *parse(int argc, char **argv, struct options *o)
{
	static const struct option known[] = { { "cpus", 1, NULL, 'c' },  { "batches", 1, NULL, 'b' },
					       { "iters", 1, NULL, 'i' }, { "size", 1, NULL, 's' },
					       { "slots", 1, NULL, 'n' }, { 0 } };
	const struct test *test = NULL;

	for (int flag; (flag = getopt_long(argc, argv, "", known, NULL)) != -1;)
		parse_flag(flag, o);
	for (size_t i = 0; optind == argc - 1 && i < sizeof(tests) / sizeof(tests[0]); i++)
		if (!strcmp(argv[optind], tests[i].name))
			test = &tests[i];
	if (!test || o->batches < 1 || o->batches > MAX_BATCHES || o->size_bytes < 8 || o->size_bytes % 8 ||
	    o->slots < 1 || o->slots > STREAM_SLOTS_MAX)
		usage();
	if (!o->iters)
		o->iters = test->iters;
	return test;
}

int main(int argc, char **argv)
{
	struct options o = { .cpu = { 0, 1 }, .batches = 21, .size_bytes = 65536, .slots = 16 };
	const struct test *test = parse(argc, argv, &o);

	test->run(&o);
	return 0;
}

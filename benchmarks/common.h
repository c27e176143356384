/* SPDX-License-Identifier: MIT
 *
 * What every C benchmark here needs: a pinned second process that cannot outlive or hang the first, memory that both
 * see, a clock, a median. Nothing of ffverbs, so that peers can use it.
 */
#ifndef FFVERBS_BENCHMARKS_COMMON_H
#define FFVERBS_BENCHMARKS_COMMON_H

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* One batch is thrown away: it pays for page faults, cold caches and the start of the second process. */
enum { LINE_BYTES = 64, MAX_BATCHES = 1001, WARM_UP_BATCHES = 1 };

static inline void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static inline double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static inline void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity (is this core of --cpus allowed here?)");
}

static inline int compare_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Sorts `values`. */
static inline double median(double *values, int n)
{
	qsort(values, (size_t)n, sizeof(*values), compare_double);
	return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* Zeroed, populated, shared with processes forked later. */
static inline void *shared_create(size_t length_bytes)
{
	int fd = memfd_create("ffverbs-benchmark", MFD_CLOEXEC);
	void *p;

	if (fd < 0 || ftruncate(fd, (off_t)length_bytes))
		die("memfd_create");
	p = mmap(NULL, length_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (p == MAP_FAILED)
		die("mmap");
	close(fd);
	return p;
}

/* A second that fails would leave the first spinning for ever: its bad end is the end of the program. */
static inline void second_ended(int sig)
{
	int status;

	(void)sig;
	if (waitpid(-1, &status, WNOHANG) > 0 && status != 0)
		_exit(1);
}

/* `body` runs pinned in a second process, which dies with the first: a failed check leaves nobody spinning. */
static inline pid_t start_second(const int cpu[2], void (*body)(void *), void *arg)
{
	pid_t first = getpid(), pid;

	signal(SIGCHLD, second_ended);
	fflush(NULL); /* or the second would print again what is buffered here */
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0) {
		signal(SIGCHLD, SIG_DFL);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != first)
			_exit(1);
		pin(cpu[1]);
		body(arg);
		_exit(0);
	}
	pin(cpu[0]);
	return pid;
}

static inline void finish_second(pid_t pid)
{
	int status;

	/* ECHILD: second_ended has already seen it end well. */
	if (waitpid(pid, &status, 0) == pid && status != 0)
		exit(1);
}

static inline void wait_until(_Atomic uint64_t *counter, uint64_t value)
{
	while (atomic_load_explicit(counter, memory_order_acquire) < value)
		;
}

#endif

/* What the contexts of a process share: numbers of threads, the service thread, fork children; and that opening and
 * closing leaves nothing behind. */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>

#include "child.h"
#include "pair.h"
#include "verbs/process.h"

#define EXTRA 40u

static struct side a, b;
static struct ffv_qp *qp_a, *qp_b;
static struct ffv_mr *mr_a, *mr_b;

static void open_pair(void)
{
	side_open(&a, 64);
	side_open(&b, 64);
	qp_a = side_qp(&a, a.cq, FFV_QPT_RC, NULL, 32);
	qp_b = side_qp(&b, b.cq, FFV_QPT_RC, NULL, 32);
	qp_connect(qp_a, &a, qp_b, &b);
	CHECK_OK(ffv_alloc_mr(a.pd, 4096, PAIR_ACCESS, &mr_a));
	CHECK_OK(ffv_alloc_mr(b.pd, 4096, PAIR_ACCESS, &mr_b));
}

static void close_pair(void)
{
	CHECK_OK(ffv_dereg_mr(mr_a));
	CHECK_OK(ffv_dereg_mr(mr_b));
	CHECK_OK(ffv_destroy_qp(qp_a));
	CHECK_OK(ffv_destroy_qp(qp_b));
	side_close(&a);
	side_close(&b);
}

static void exchange(uint64_t wr_id)
{
	memset(mr_a->addr, (int)wr_id, 8);
	CHECK_OK(post_recv(qp_b, wr_id, mr_b, 0, 8));
	CHECK_OK(post_send(qp_a, wr_id, mr_a, 0, 8));
	CHECK_EQ(poll_status(a.cq, FFV_WC_SUCCESS).wr_id, wr_id);
	CHECK_EQ(poll_status(b.cq, FFV_WC_SUCCESS).wr_id, wr_id);
	CHECK_EQ(((uint8_t *)mr_b->addr)[7], (uint8_t)wr_id);
}

/* ---- numbers of threads ------------------------------------------------------------------------------------------------------ */

static pthread_barrier_t everybody, over;
static _Atomic uint32_t with_number;

static void *claim_number(void *arg)
{
	(void)arg;
	int number = ffv_thread_number();
	CHECK(number < (int)FFV_MAX_THREADS);
	CHECK_EQ(ffv_thread_number(), number);
	if (number >= 0)
		ffv_fetch_add(&with_number, 1u);
	pthread_barrier_wait(&everybody);
	pthread_barrier_wait(&over);
	return NULL;
}

/* A thread more than there are numbers: refused before anything is posted; receives it can post, and a sender that waits
 * for one is served all the same. */
static void *use_verbs_without_number(void *arg)
{
	struct ffv_sge sge;
	struct ffv_send_wr wr = send_wr(5, FFV_WR_SEND, &sge, mr_a, 0, 8), *bad = NULL;

	(void)arg;
	CHECK(ffv_thread_number() < 0);
	uint64_t tail = ffv_load_relaxed(&qp_a->ref.shm->sq_tail);
	CHECK_FAIL(ffv_post_send(qp_a, &wr, &bad), EAGAIN, "threads");
	CHECK(bad == &wr);
	CHECK_EQ(ffv_load_relaxed(&qp_a->ref.shm->sq_tail), tail);
	CHECK_OK(post_recv(qp_b, 77, mr_b, 0, 8));
	CHECK_EQ(poll_status(b.cq, FFV_WC_SUCCESS).wr_id, 77);
	CHECK_EQ(poll_status(a.cq, FFV_WC_SUCCESS).wr_id, 76);
	return NULL;
}

static void test_more_threads_than_numbers(void)
{
	pthread_t threads[FFV_MAX_THREADS + EXTRA], one;
	const unsigned count = sizeof threads / sizeof threads[0];

	open_pair();
	exchange(1);
	CHECK_EQ(pthread_barrier_init(&everybody, NULL, count + 1), 0);
	CHECK_EQ(pthread_barrier_init(&over, NULL, count + 1), 0);
	for (unsigned i = 0; i < count; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, claim_number, NULL), 0);
	pthread_barrier_wait(&everybody);
	/* This thread has one, and so has the service thread. */
	CHECK(ffv_load_relaxed(&with_number) >= FFV_MAX_THREADS - 2);
	CHECK(ffv_load_relaxed(&with_number) < FFV_MAX_THREADS);
	CHECK_OK(post_send(qp_a, 76, mr_a, 0, 8)); /* waits for a receive; the service thread may be asked for the first time */
	CHECK_EQ(pthread_create(&one, NULL, use_verbs_without_number, NULL), 0);
	CHECK_EQ(pthread_join(one, NULL), 0);
	pthread_barrier_wait(&over);
	for (unsigned i = 0; i < count; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	exchange(2);
	close_pair();
}

static void *exchange_once(void *arg)
{
	exchange((uint64_t)(uintptr_t)arg);
	return NULL;
}

/* Threads that come and go give their numbers back. */
static void test_threads_come_and_go(void)
{
	pthread_t thread;

	open_pair();
	for (uintptr_t i = 0; i < 3 * FFV_MAX_THREADS; i++) {
		CHECK_EQ(pthread_create(&thread, NULL, exchange_once, (void *)i), 0);
		CHECK_EQ(pthread_join(thread, NULL), 0);
	}
	CHECK(ffv_load_relaxed(&a.ctx->view.arena->threads_used) < 16);
	close_pair();
}

/* ---- the service thread ------------------------------------------------------------------------------------------------------ */

static unsigned count_entries(const char *path)
{
	DIR *dir = opendir(path);
	unsigned n = 0;

	CHECK(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 3; /* . and .. and the descriptor of the listing, or one thread */
}

static unsigned count_lines(const char *path)
{
	FILE *file = fopen(path, "r");
	unsigned n = 0;
	int c;

	CHECK(file);
	while ((c = fgetc(file)) != EOF)
		n += c == '\n';
	fclose(file);
	return n;
}

static void test_service_thread_stops_with_the_last_context(void)
{
	struct ffv_context *one = opened_context(), *two;

	CHECK_OK(ffv_close_device(one)); /* a sanitizer has its own thread from here on */
	unsigned before = count_entries("/proc/self/task");
	CHECK(!ffv_process_loop());
	one = opened_context();
	struct ffv_loop *loop = ffv_process_loop();
	CHECK(loop);
	CHECK_EQ(count_entries("/proc/self/task"), before + 1);
	two = opened_context();
	CHECK(ffv_process_loop() == loop);
	CHECK_EQ(count_entries("/proc/self/task"), before + 1);
	CHECK_OK(ffv_close_device(one));
	CHECK(ffv_process_loop() == loop);
	CHECK_OK(ffv_close_device(two));
	CHECK(!ffv_process_loop());
	CHECK_EQ(count_entries("/proc/self/task"), before);
}

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define OPENINGS 200
#else
#define OPENINGS 1000
#endif

/* Descriptors, mappings, names, threads. */
static void test_nothing_is_left_behind(void)
{
	unsigned fds = 0, maps = 0, tasks = 0, names = 0;

	for (int i = 0; i < OPENINGS; i++) {
		if (i % 20 == 5) {
			open_pair();
			exchange(3);
			close_pair();
		} else {
			side_open(&a, 16);
			side_close(&a);
		}
		if (i == 30) { /* warmed up */
			fds = count_entries("/proc/self/fd");
			maps = count_lines("/proc/self/maps");
			tasks = count_entries("/proc/self/task");
			names = count_entries(scratch_root);
		}
	}
	CHECK_EQ(count_entries("/proc/self/fd"), fds);
	CHECK_EQ(count_entries("/proc/self/task"), tasks);
	CHECK_EQ(count_entries(scratch_root), names);
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__) /* those map as they please */
	CHECK(count_lines("/proc/self/maps") <= maps + 4);
#endif
	(void)maps;
}

/* ---- fork ------------------------------------------------------------------------------------------------------------------------ */

static void in_child(void *arg)
{
	struct ffv_wc wc;

	(void)arg;
	/* Everything of the parent's fails clearly... */
	CHECK_RC(post_send(qp_a, 1, mr_a, 0, 8), -EOWNERDEAD);
	CHECK(strstr(ffv_error_text(), "fork"));
	CHECK_RC(post_recv(qp_b, 1, mr_b, 0, 8), -EOWNERDEAD);
	CHECK_RC(ffv_poll_cq(a.cq, 1, &wc), -EOWNERDEAD);
	CHECK_RC(qp_to_error(qp_a), -EOWNERDEAD);
	struct ffv_pd *pd;
	CHECK_RC(ffv_alloc_pd(a.ctx, &pd), -EOWNERDEAD);
	/* ... giving it back works, and harms nobody... */
	CHECK_OK(ffv_dereg_mr(mr_a));
	CHECK_OK(ffv_destroy_qp(qp_a));
	CHECK_OK(ffv_destroy_cq(a.cq));
#if !defined(__SANITIZE_THREAD__) /* which ends children that start threads */
	/* ... and own contexts work. */
	open_pair();
	exchange(9);
	close_pair();
#endif
}

static void test_fork(void)
{
	open_pair();
	exchange(1);
	for (int i = 0; i < 5; i++) {
		child_run(geteuid(), in_child, NULL);
		exchange(2 + (uint64_t)i);
	}
	close_pair();
}

static void exit_at_once(void *arg)
{
	(void)arg;
}

static _Atomic uint32_t stop;

static void *exchange_all_the_time(void *arg)
{
	uint64_t n = 0;

	(void)arg;
	while (!ffv_load_acquire(&stop) || n < 100)
		exchange(n++ % 200);
	return NULL;
}

/* Children that are born, and die, under traffic of another thread. */
static void test_fork_under_traffic(void)
{
	pthread_t thread;

	open_pair();
	CHECK_EQ(pthread_create(&thread, NULL, exchange_all_the_time, NULL), 0);
	for (int i = 0; i < 30; i++)
		child_run(geteuid(), exit_at_once, NULL);
	ffv_store_release(&stop, 1u);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	close_pair();
}

int main(void)
{
	opened_directory();
	test_service_thread_stops_with_the_last_context();
	test_more_threads_than_numbers();
	test_threads_come_and_go();
	test_nothing_is_left_behind();
	test_fork();
	test_fork_under_traffic();
	scratch_remove();
	return 0;
}

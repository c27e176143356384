/* Completion channels with many queues: every event is delivered once, by its queue, in turn, whatever the bits say that
 * tell where to look. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>

#include "pair.h"
#include "verbs/cq.h"

#define QUEUES 300u
#define RAISERS 3u
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define EVENTS 2000u
#else
#define EVENTS 20000u
#endif

static struct side side;
static struct ffv_comp_channel *channel, *other;
static struct ffv_cq *cqs[QUEUES], *others;

static struct ffv_comp_channel *channel_open(void)
{
	struct ffv_comp_channel *opened;

	CHECK_OK(ffv_create_comp_channel(side.ctx, &opened));
	CHECK_EQ(fcntl(ffv_comp_channel_fd(opened), F_SETFL, O_NONBLOCK), 0);
	return opened;
}

static void setup(void)
{
	side_open(&side, 1);
	channel = channel_open();
	other = channel_open();
	for (unsigned i = 0; i < QUEUES; i++)
		CHECK_OK(ffv_create_cq(side.ctx, 1, &cqs[i], channel, 0, &cqs[i]));
	CHECK_OK(ffv_create_cq(side.ctx, 1, NULL, other, 0, &others));
}

static void teardown(void)
{
	CHECK_EQ(ffv_destroy_comp_channel(channel), -EBUSY);
	for (unsigned i = 0; i < QUEUES; i++)
		if (cqs[i])
			CHECK_OK(ffv_destroy_cq(cqs[i]));
	CHECK_OK(ffv_destroy_cq(others));
	CHECK_OK(ffv_destroy_comp_channel(channel));
	CHECK_OK(ffv_destroy_comp_channel(other));
	side_close(&side);
}

static void expect(struct ffv_comp_channel *from, struct ffv_cq *cq)
{
	struct ffv_cq *found;
	void *context;

	CHECK_OK(ffv_get_cq_event(from, &found, &context));
	CHECK(found == cq);
	CHECK(cq == others ? context == NULL : *(struct ffv_cq **)context == cq);
	ffv_ack_cq_events(found, 1);
}

static void expect_nothing(struct ffv_comp_channel *from)
{
	struct ffv_cq *found;

	CHECK_EQ(ffv_get_cq_event(from, &found, NULL), -EAGAIN);
}

static void test_each_queue_is_found(void)
{
	for (unsigned i = 0; i < QUEUES; i++) {
		ffv_cq_signal_spurious(cqs[i]);
		expect(channel, cqs[i]);
		expect_nothing(channel);
	}
	for (unsigned i = 0; i < QUEUES; i++)
		ffv_cq_signal_spurious(cqs[QUEUES - 1 - i]);
	ffv_cq_signal_spurious(others);
	for (unsigned i = 0; i < QUEUES; i++)
		expect(channel, cqs[i]);
	expect(other, others);
	expect_nothing(channel);
	expect_nothing(other);
}

/* A queue that has many events does not keep the others from theirs. */
static void test_queues_take_turns(void)
{
	for (unsigned i = 0; i < 3; i++)
		ffv_cq_signal_spurious(cqs[7]);
	ffv_cq_signal_spurious(cqs[8]);
	ffv_cq_signal_spurious(cqs[200]);
	expect(channel, cqs[7]);
	expect(channel, cqs[8]);
	expect(channel, cqs[200]);
	expect(channel, cqs[7]);
	expect(channel, cqs[7]);
	expect_nothing(channel);
}

/* Events go with their queue; the next of the same number has none of them, and others lose none. */
static void test_destroyed_queues_have_no_events(void)
{
	uint32_t id = cqs[100]->ref.id;

	ffv_cq_signal_spurious(cqs[100]);
	ffv_cq_signal_spurious(cqs[100]);
	CHECK_OK(ffv_destroy_cq(cqs[100]));
	cqs[100] = NULL;
	ffv_cq_signal_spurious(cqs[99]);
	expect(channel, cqs[99]);
	expect_nothing(channel);
	side.ctx->next_cq = id;
	CHECK_OK(ffv_create_cq(side.ctx, 1, &cqs[100], channel, 0, &cqs[100]));
	CHECK_EQ(cqs[100]->ref.id, id);
	ffv_cq_signal_spurious(cqs[101]);
	expect(channel, cqs[101]);
	ffv_cq_signal_spurious(cqs[100]);
	expect(channel, cqs[100]);
	expect_nothing(channel);
}

/* What a peer writes into the bits only costs time; what it clears is found once the queue raises again. */
static void test_bits_are_only_hints(void)
{
	struct ffv_channel_shm *shm = channel->shm;
	uint64_t one = 1;

	memset((void *)shm, 0xff, sizeof *shm);
	CHECK_EQ(write(ffv_comp_channel_fd(channel), &one, sizeof one), sizeof one);
	expect_nothing(channel); /* rung without an event, and all bits set */
	memset((void *)shm, 0xff, sizeof *shm);
	ffv_cq_signal_spurious(cqs[50]);
	expect(channel, cqs[50]);
	ffv_cq_signal_spurious(cqs[60]);
	memset((void *)shm, 0, sizeof *shm);
	expect_nothing(channel);
	ffv_cq_signal_spurious(cqs[60]);
	expect(channel, cqs[60]);
	CHECK_EQ(write(ffv_comp_channel_fd(channel), &one, sizeof one), sizeof one);
	expect(channel, cqs[60]); /* the one whose bit was cleared */
	expect_nothing(channel);
}

static void *raise_some(void *arg)
{
	unsigned state = *(unsigned *)arg;

	for (unsigned i = 0; i < EVENTS; i++)
		ffv_cq_signal_spurious(cqs[(unsigned)rand_r(&state) % (i % 2 ? 8 : QUEUES)]);
	return NULL;
}

/* None is lost and none comes twice while several raise and one takes. */
static void test_events_raised_at_once(void)
{
	unsigned seeds[RAISERS], first = test_seed();
	pthread_t threads[RAISERS];
	struct pollfd fd = { .fd = ffv_comp_channel_fd(channel), .events = POLLIN };
	struct ffv_cq *found;

	for (unsigned i = 0; i < RAISERS; i++) {
		seeds[i] = first + i;
		CHECK_EQ(pthread_create(&threads[i], NULL, raise_some, &seeds[i]), 0);
	}
	for (unsigned taken = 0; taken < RAISERS * EVENTS;) {
		CHECK_EQ(poll(&fd, 1, 60000), 1);
		int rc = ffv_get_cq_event(channel, &found, NULL);
		if (rc == -EAGAIN)
			continue;
		CHECK_OK(rc);
		ffv_ack_cq_events(found, 1);
		taken++;
	}
	for (unsigned i = 0; i < RAISERS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	expect_nothing(channel);
	for (unsigned i = 0; i < QUEUES; i++)
		CHECK_EQ(cqs[i]->events_delivered, ffv_load_relaxed(&cqs[i]->ref.shm->events_raised));
}

int main(void)
{
	opened_directory();
	setup();
	test_each_queue_is_found();
	test_queues_take_turns();
	test_destroyed_queues_have_no_events();
	test_bits_are_only_hints();
	test_events_raised_at_once();
	teardown();
	scratch_remove();
	return 0;
}

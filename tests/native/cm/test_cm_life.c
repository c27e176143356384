/* Ids, channels and events: what may be destroyed when, what moves, what a fork child may do. */
#include <errno.h>
#include <fcntl.h>

#include "child.h"
#include "cm_support.h"

#define PORT 7471

static struct ffv_cm_channel *channel;

static void test_a_channel_outlives_its_ids(void)
{
	struct ffv_cm_id *id;

	CHECK_OK(ffv_cm_create_id(channel, &id, &id, FFV_PS_TCP));
	CHECK(id->context == &id && id->channel == channel && id->qp_type == FFV_QPT_RC);
	CHECK_FAIL(ffv_cm_destroy_channel(channel), EBUSY, "1 ids");
	CHECK_OK(ffv_cm_destroy_id(id));
	CHECK_FAIL(ffv_cm_create_id(channel, &id, NULL, 7), EINVAL, "port space");
}

struct waiter { struct ffv_cm_id *id; _Atomic int done; };

static void *destroy(void *arg)
{
	struct waiter *waiter = arg;

	CHECK_OK(ffv_cm_destroy_id(waiter->id));
	waiter->done = 1;
	return NULL;
}

static void test_destroying_waits_for_acknowledgement(void)
{
	union ffv_sockaddr addr = cm_address(OWN_ADDRESS, PORT);
	struct timespec while_it_waits = { 0, 50000000 };
	struct waiter waiter = { .done = 0 };
	struct ffv_cm_event *event;
	pthread_t thread;

	CHECK_OK(ffv_cm_create_id(channel, &waiter.id, NULL, FFV_PS_TCP));
	CHECK_OK(ffv_cm_resolve_addr(waiter.id, NULL, cm_sockaddr(&addr), HANG_MS));
	event = cm_event(channel);
	CHECK(event->id == waiter.id);
	CHECK_EQ(pthread_create(&thread, NULL, destroy, &waiter), 0);
	nanosleep(&while_it_waits, NULL);
	CHECK_EQ(waiter.done, 0);
	CHECK_OK(ffv_cm_ack_event(event));
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(waiter.done, 1);
}

static void test_unread_events_move_with_their_id(void)
{
	union ffv_sockaddr addr = cm_address(OWN_ADDRESS, PORT);
	struct pollfd ready = { .fd = channel->fd, .events = POLLIN };
	struct ffv_cm_channel *other;
	struct ffv_cm_id *moved, *stays;

	CHECK_OK(ffv_cm_create_channel(&other));
	CHECK_OK(ffv_cm_create_id(channel, &moved, NULL, FFV_PS_TCP));
	CHECK_OK(ffv_cm_create_id(channel, &stays, NULL, FFV_PS_TCP));
	CHECK_OK(ffv_cm_resolve_addr(moved, NULL, cm_sockaddr(&addr), HANG_MS));
	CHECK_OK(ffv_cm_resolve_addr(stays, NULL, cm_sockaddr(&addr), HANG_MS));
	CHECK_OK(ffv_cm_migrate_id(moved, other));
	CHECK(moved->channel == other);
	cm_expect(other, FFV_CM_EVENT_ADDR_RESOLVED, 0);
	cm_expect(channel, FFV_CM_EVENT_ADDR_RESOLVED, 0);
	CHECK_EQ(poll(&ready, 1, 0), 0);
	CHECK_OK(ffv_cm_migrate_id(moved, NULL)); /* synchronous from here on */
	CHECK(moved->channel != other);
	CHECK_OK(ffv_cm_destroy_channel(other));
	CHECK_OK(ffv_cm_resolve_route(moved, HANG_MS));
	CHECK_EQ(moved->event->event, FFV_CM_EVENT_ROUTE_RESOLVED);
	CHECK_OK(ffv_cm_destroy_id(moved));
	CHECK_OK(ffv_cm_destroy_id(stays));
}

static void test_a_queue_pair_goes_before_its_id(void)
{
	struct ffv_cm_id *id = cm_resolve(channel, OWN_ADDRESS, PORT, FFV_PS_TCP);
	struct ffv_context *ctx = id->verbs;
	struct ffv_pd *pd;

	CHECK_FAIL(ffv_cm_destroy_id(id), EBUSY, "queue pair");
	CHECK_OK(ffv_alloc_pd(ctx, &pd)); /* of the program, in the context that all ids share */
	CHECK_OK(ffv_cm_destroy_ep(id));
	CHECK_OK(ffv_dealloc_pd(pd));
	id = cm_resolve(channel, OWN_ADDRESS, PORT, FFV_PS_TCP);
	CHECK(id->verbs == ctx); /* it was in use: kept */
	CHECK_OK(ffv_cm_destroy_ep(id));
}

static void test_non_blocking(void)
{
	struct ffv_cm_event *event;

	CHECK_EQ(fcntl(channel->fd, F_SETFL, O_NONBLOCK), 0);
	CHECK_FAIL(ffv_cm_get_event(channel, &event), EAGAIN, "no event");
	CHECK_EQ(fcntl(channel->fd, F_SETFL, 0), 0);
}

static void test_a_notified_side_is_established(void)
{
	struct ffv_cm_id *listener = cm_listen(channel, OWN_ADDRESS, PORT, FFV_PS_TCP);
	struct ffv_cm_channel *other;

	CHECK_OK(ffv_cm_create_channel(&other));
	struct ffv_cm_id *id = cm_resolve(other, OWN_ADDRESS, PORT, FFV_PS_TCP);
	CHECK_OK(ffv_cm_connect(id, NULL));
	struct ffv_cm_id *child = cm_requested(channel);
	CHECK_FAIL(ffv_cm_notify(child, FFV_EVENT_COMM_EST), EINVAL, "not accepted");
	cm_create_qp(child);
	CHECK_OK(ffv_cm_accept(child, NULL));
	CHECK_FAIL(ffv_cm_notify(child, FFV_EVENT_QP_FATAL), EINVAL, "event 1");
	CHECK_OK(ffv_cm_notify(child, FFV_EVENT_COMM_EST)); /* before the other side's program has read anything */
	cm_expect(channel, FFV_CM_EVENT_ESTABLISHED, 0);
	CHECK_FAIL(ffv_cm_notify(child, FFV_EVENT_COMM_EST), EISCONN, "stands");
	cm_expect(other, FFV_CM_EVENT_ESTABLISHED, 0);
	CHECK_OK(ffv_cm_destroy_ep(id));
	cm_expect(channel, FFV_CM_EVENT_DISCONNECTED, 0);
	CHECK_OK(ffv_cm_destroy_ep(child));
	CHECK_OK(ffv_cm_destroy_id(listener));
	CHECK_OK(ffv_cm_destroy_channel(other));
}

static void test_options_of_both_sides_are_told(void)
{
	struct ffv_cm_ece ece = { .vendor_id = 0x2c9, .options = 5 }, got;
	struct ffv_cm_id *listener = cm_listen(channel, OWN_ADDRESS, PORT, FFV_PS_TCP), *id;
	struct ffv_cm_conn_param param = { .qp_num = 77 };
	union ffv_sockaddr addr = cm_address(OWN_ADDRESS, PORT);

	CHECK_OK(ffv_cm_create_id(channel, &id, NULL, FFV_PS_TCP));
	CHECK_OK(ffv_cm_resolve_addr(id, NULL, cm_sockaddr(&addr), HANG_MS));
	cm_expect(channel, FFV_CM_EVENT_ADDR_RESOLVED, 0);
	CHECK_OK(ffv_cm_resolve_route(id, HANG_MS));
	cm_expect(channel, FFV_CM_EVENT_ROUTE_RESOLVED, 0);
	CHECK_OK(ffv_cm_set_local_ece(id, &ece));
	CHECK_OK(ffv_cm_connect(id, &param));
	struct ffv_cm_id *child = cm_requested(channel);
	CHECK_OK(ffv_cm_get_remote_ece(child, &got));
	CHECK(got.vendor_id == 0x2c9 && got.options == 5 && got.comp_mask == 0);
	ece.comp_mask = 1;
	CHECK_FAIL(ffv_cm_set_local_ece(child, &ece), EINVAL, "mask");
	CHECK_OK(ffv_cm_destroy_id(child));
	cm_expect(channel, FFV_CM_EVENT_REJECTED, FFV_CM_REJ_CONSUMER_DEFINED);
	CHECK_OK(ffv_cm_destroy_id(id));
	CHECK_OK(ffv_cm_destroy_id(listener));
}

/* ---- fork ------------------------------------------------------------------------------------------------------------ */

static void in_child(void *arg)
{
	struct ffv_cm_id *of_parent = arg, *own;
	struct ffv_cm_channel *fresh;
	struct ffv_cm_event *event;

	CHECK_FAIL(ffv_cm_listen(of_parent, 0), EOWNERDEAD, "forked");
	CHECK_FAIL(ffv_cm_get_event(channel, &event), EOWNERDEAD, "forked");
	CHECK_OK(ffv_cm_destroy_id(of_parent));
	CHECK_OK(ffv_cm_create_channel(&fresh));
	own = cm_resolve(fresh, OWN_ADDRESS, PORT, FFV_PS_TCP);
	CHECK_OK(ffv_cm_connect(own, NULL)); /* to the parent */
	cm_expect(fresh, FFV_CM_EVENT_ESTABLISHED, 0);
	CHECK_OK(ffv_cm_destroy_ep(own));
	CHECK_OK(ffv_cm_destroy_channel(fresh));
}

static void test_a_child_owns_nothing_and_may_connect(void)
{
	struct ffv_cm_id *listener = cm_listen(channel, OWN_ADDRESS, PORT, FFV_PS_TCP);
	pid_t child = child_start(geteuid(), in_child, listener);
	struct ffv_cm_id *id = cm_requested(channel);

	cm_create_qp(id);
	CHECK_OK(ffv_cm_accept(id, NULL));
	cm_expect(channel, FFV_CM_EVENT_ESTABLISHED, 0);
	cm_expect(channel, FFV_CM_EVENT_DISCONNECTED, 0);
	CHECK_EQ(child_wait(child), 0);
	CHECK_OK(ffv_cm_destroy_ep(id));
	CHECK_OK(ffv_cm_destroy_id(listener));
}

static void test_asking_once_waits_for_nobody_without_a_router(void)
{
	union ffv_sockaddr addr = cm_address("10.9.8.6", PORT);
	struct pollfd ready = { .fd = channel->fd, .events = POLLIN };
	struct ffv_cm_id *id;
	int yes = 1;

	CHECK_OK(ffv_cm_create_id(channel, &id, NULL, FFV_PS_TCP));
	CHECK_FAIL(ffv_cm_set_option(id, FFV_OPTION_ID, FFV_OPTION_ID_ASK_ONCE, &yes, 1), EINVAL, "int");
	CHECK_OK(ffv_cm_set_option(id, FFV_OPTION_ID, FFV_OPTION_ID_ASK_ONCE, &yes, sizeof yes));
	CHECK_OK(ffv_cm_resolve_addr(id, NULL, cm_sockaddr(&addr), 600000));
	CHECK_EQ(poll(&ready, 1, 0), 1);
	cm_expect(channel, FFV_CM_EVENT_ADDR_ERROR, -ETIMEDOUT);
	CHECK_OK(ffv_cm_destroy_id(id));
}

int main(void)
{
	opened_directory();
	CHECK_OK(ffv_close_device(opened_context())); /* what a process keeps from its first context on */
	int before = count_descriptors();
	CHECK_OK(ffv_cm_create_channel(&channel));
	test_a_channel_outlives_its_ids();
	test_destroying_waits_for_acknowledgement();
	test_unread_events_move_with_their_id();
	test_a_queue_pair_goes_before_its_id();
	test_non_blocking();
	test_a_notified_side_is_established();
	test_options_of_both_sides_are_told();
	test_asking_once_waits_for_nobody_without_a_router();
#ifndef __SANITIZE_THREAD__ /* which does not take a child that starts threads */
	test_a_child_owns_nothing_and_may_connect();
#else
	(void)test_a_child_owns_nothing_and_may_connect;
#endif
	CHECK_OK(ffv_cm_destroy_channel(channel));
	CHECK_EQ(count_descriptors(), before);
	scratch_remove();
	return 0;
}

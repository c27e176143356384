/* Connections between threads of one process: many at once, ended by either side, while others come. The thread
 * sanitizer sees both sides and the service thread. */
#include "cm_support.h"

#define CLIENTS 4
#define ROUNDS 12
#define TOGETHER 4
#define PORT 7471

static void *serve(void *arg)
{
	struct ffv_cm_channel *channel = arg;
	uint32_t ended = 0;

	while (ended < CLIENTS * ROUNDS * TOGETHER) {
		struct ffv_cm_event *event = cm_event(channel);
		struct ffv_cm_id *id = event->id;
		uint32_t type = event->event;

		CHECK_EQ(event->status, 0);
		CHECK_OK(ffv_cm_ack_event(event));
		if (type == FFV_CM_EVENT_CONNECT_REQUEST) {
			cm_create_qp(id);
			CHECK_OK(ffv_cm_accept(id, NULL));
		} else if (type == FFV_CM_EVENT_DISCONNECTED) {
			if (ended % 2)
				CHECK_OK(ffv_cm_disconnect(id)); /* else destroying it says so */
			CHECK_OK(ffv_cm_destroy_ep(id));
			ended++;
		} else {
			CHECK(type == FFV_CM_EVENT_ESTABLISHED || type == FFV_CM_EVENT_TIMEWAIT_EXIT);
		}
	}
	return NULL;
}

static void *ask(void *arg)
{
	struct ffv_cm_id *ids[TOGETHER];
	struct ffv_cm_channel *channel;

	(void)arg;
	CHECK_OK(ffv_cm_create_channel(&channel));
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < TOGETHER; i++)
			ids[i] = cm_resolve(channel, OWN_ADDRESS, PORT, FFV_PS_TCP);
		for (int i = 0; i < TOGETHER; i++)
			CHECK_OK(ffv_cm_connect(ids[i], NULL));
		for (int i = 0; i < TOGETHER; i++)
			cm_expect(channel, FFV_CM_EVENT_ESTABLISHED, 0);
		for (int i = 0; i < TOGETHER; i++) {
			if (i % 2)
				CHECK_OK(ffv_cm_disconnect(ids[i]));
			CHECK_OK(ffv_cm_destroy_ep(ids[i]));
		}
	}
	CHECK_OK(ffv_cm_destroy_channel(channel));
	return NULL;
}

static void test_many(void)
{
	struct ffv_cm_channel *channel;
	pthread_t server, clients[CLIENTS];

	CHECK_OK(ffv_cm_create_channel(&channel));
	struct ffv_cm_id *listener = cm_listen(channel, "0.0.0.0", PORT, FFV_PS_TCP);
	CHECK_EQ(pthread_create(&server, NULL, serve, channel), 0);
	for (int i = 0; i < CLIENTS; i++)
		CHECK_EQ(pthread_create(&clients[i], NULL, ask, NULL), 0);
	for (int i = 0; i < CLIENTS; i++)
		CHECK_EQ(pthread_join(clients[i], NULL), 0);
	CHECK_EQ(pthread_join(server, NULL), 0);
	CHECK_OK(ffv_cm_destroy_id(listener));
	CHECK_OK(ffv_cm_destroy_channel(channel));
}

/* ---- synchronous ids ------------------------------------------------------------------------------------------------ */

static void *serve_endpoint(void *arg)
{
	struct ffv_cm_id *child;
	struct ffv_mr *mr;
	struct ffv_wc wc;
	char buffer[64];

	CHECK_OK(ffv_cm_get_request(arg, &child));
	CHECK_OK(ffv_cm_reg_msgs(child, buffer, sizeof buffer, &mr));
	CHECK_OK(ffv_cm_post_recv(child, NULL, buffer, sizeof buffer, mr));
	CHECK_OK(ffv_cm_accept(child, NULL));
	CHECK_RC(ffv_cm_get_recv_comp(child, &wc), 1);
	CHECK_EQ(wc.status, FFV_WC_SUCCESS);
	CHECK_STR(buffer, "a message");
	CHECK_OK(ffv_cm_disconnect(child));
	CHECK_OK(ffv_dereg_mr(mr));
	CHECK_OK(ffv_cm_destroy_ep(child));
	return NULL;
}

static void test_endpoints(void)
{
	struct ffv_cm_addrinfo hints = { .flags = FFV_RAI_PASSIVE, .port_space = FFV_PS_TCP }, *info;
	struct ffv_qp_init_attr attr = { .cap = { 2, 2, 1, 1, 0 } };
	struct ffv_cm_id *listener, *id;
	char buffer[64] = "a message";
	struct ffv_mr *mr;
	struct ffv_wc wc;
	pthread_t server;

	CHECK_OK(ffv_cm_getaddrinfo(OWN_ADDRESS, "7472", &hints, &info));
	CHECK_OK(ffv_cm_create_ep(&listener, info, NULL, &attr));
	ffv_cm_freeaddrinfo(info);
	CHECK_OK(ffv_cm_listen(listener, 0));
	CHECK_EQ(pthread_create(&server, NULL, serve_endpoint, listener), 0);
	hints.flags = 0;
	CHECK_OK(ffv_cm_getaddrinfo(OWN_ADDRESS, "7472", &hints, &info));
	CHECK_OK(ffv_cm_create_ep(&id, info, NULL, &attr));
	ffv_cm_freeaddrinfo(info);
	CHECK_EQ(ntohs(ffv_cm_dst_port_be(id)), 7472);
	CHECK_OK(ffv_cm_connect(id, NULL));
	CHECK_OK(ffv_cm_reg_msgs(id, buffer, sizeof buffer, &mr));
	CHECK_OK(ffv_cm_post_send(id, NULL, buffer, sizeof buffer, mr, FFV_SEND_SIGNALED));
	CHECK_RC(ffv_cm_get_send_comp(id, &wc), 1);
	CHECK_EQ(wc.status, FFV_WC_SUCCESS);
	CHECK_OK(ffv_cm_disconnect(id));
	CHECK_EQ(pthread_join(server, NULL), 0);
	CHECK_OK(ffv_dereg_mr(mr));
	CHECK_OK(ffv_cm_destroy_ep(id));
	CHECK_OK(ffv_cm_destroy_ep(listener));
}

int main(void)
{
	opened_directory();
	CHECK_OK(ffv_close_device(opened_context())); /* what a process keeps from its first context on */
	int before = count_descriptors();
	test_many();
	CHECK_EQ(count_descriptors(), before);
	test_endpoints();
	CHECK_EQ(count_descriptors(), before);
	scratch_remove();
	return 0;
}

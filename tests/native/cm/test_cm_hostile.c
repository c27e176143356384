/* A peer that says anything at any time, and hangs up when it likes: the listener goes on serving, and keeps nothing. */
#include <errno.h>

#include "cm/lookup.h"
#include "cm/wire.h"
#include "cm_support.h"

#define PORT 7471
#define CONVERSATIONS 400

static const uint8_t own_gid[16] = { [10] = 0xff, 0xff, 10, 9, 8, 7 };

static struct ffv_cm_message anything(uint32_t kind)
{
	struct ffv_cm_message message = {
		.kind = kind ? kind : 1 + (uint32_t)random() % 7,
		.qpn = (uint32_t)random() & 0xffffff,
		.qp_type = random() % 8 ? FFV_QPT_RC : FFV_QPT_UD,
		.psn = (uint32_t)random() & 0xffffff,
		.reason = (uint32_t)random(),
		.port_space = random() % 8 ? FFV_PS_TCP : (uint32_t)random(),
		.src = { .family = AF_INET6, .port = (uint16_t)random() },
		.dst = { .family = AF_INET6, .port = (uint16_t)random() },
		.responder_resources = (uint8_t)random(),
		.initiator_depth = (uint8_t)random(),
		.mtu = (uint8_t)random() % 6,
	};

	memcpy(message.gid, own_gid, 16);
	for (size_t i = 0; i < 16; i++)
		message.gid[i] ^= random() % 64 ? 0 : (uint8_t)random();
	return message;
}

static void act_on(struct ffv_cm_event *event)
{
	struct ffv_cm_id *id = event->id;
	bool request = event->event == FFV_CM_EVENT_CONNECT_REQUEST;

	CHECK_OK(ffv_cm_ack_event(event));
	if (!request) { /* whatever it is: the end of it */
		ffv_cm_disconnect(id);
		CHECK_OK(ffv_cm_destroy_ep(id));
		return;
	}
	if (random() % 4 == 0) {
		ffv_cm_reject(id, "no", 2);
		CHECK_OK(ffv_cm_destroy_id(id));
		return;
	}
	cm_create_qp(id);
	if (ffv_cm_accept(id, NULL) && random() % 2) /* the peer has gone: another event may tell, or not */
		ffv_cm_disconnect(id);
}

/* Everything that waits. */
static void serve(struct ffv_cm_channel *channel, int wait_ms)
{
	struct pollfd ready = { .fd = channel->fd, .events = POLLIN };
	struct ffv_cm_event *event;

	while (poll(&ready, 1, wait_ms) == 1) {
		CHECK_OK(ffv_cm_get_event(channel, &event));
		if (event->event == FFV_CM_EVENT_TIMEWAIT_EXIT)
			CHECK_OK(ffv_cm_ack_event(event));
		else
			act_on(event);
	}
}

static void converse(struct ffv_context *ctx, struct ffv_cm_channel *channel)
{
	struct ffv_service service = { .scope = FFV_SCOPE_GLOBAL, .port_space = FFV_PS_TCP, .port = PORT };
	struct ffv_cm_message message;
	int fd;

	memcpy(service.address, own_gid, 16);
	CHECK_OK(ffv_lookup_connect(ctx, &service, &fd));
	for (int n = (int)(random() % 5); n >= 0; n--) {
		message = anything(random() % 3 ? FFV_CM_REQ : 0);
		if (random() % 8 == 0)
			send(fd, &message, (size_t)random() % sizeof message, MSG_DONTWAIT | MSG_NOSIGNAL);
		else
			ffv_cm_send(fd, &message);
		serve(channel, random() % 4 ? 0 : 2);
		while (ffv_cm_receive(fd, &message) == 1)
			;
	}
	close(fd);
}

static void a_good_one(struct ffv_cm_channel *channel)
{
	struct ffv_cm_channel *own;
	struct ffv_cm_event *event;

	CHECK_OK(ffv_cm_create_channel(&own));
	struct ffv_cm_id *id = cm_resolve(own, OWN_ADDRESS, PORT, FFV_PS_TCP), *child = NULL;
	struct ffv_cm_conn_param param = { .private_data = "good", .private_data_len = 4 };
	CHECK_OK(ffv_cm_connect(id, &param));
	while (!child) { /* remains of the others come first */
		event = cm_event(channel);
		if (event->event == FFV_CM_EVENT_CONNECT_REQUEST && !memcmp(event->param.conn.private_data, "good", 4)) {
			child = event->id;
			CHECK_OK(ffv_cm_ack_event(event));
		} else if (event->event == FFV_CM_EVENT_TIMEWAIT_EXIT) {
			CHECK_OK(ffv_cm_ack_event(event));
		} else {
			act_on(event);
		}
	}
	cm_create_qp(child);
	CHECK_OK(ffv_cm_accept(child, NULL));
	cm_expect(own, FFV_CM_EVENT_ESTABLISHED, 0);
	CHECK_OK(ffv_cm_destroy_ep(id));
	CHECK_OK(ffv_cm_destroy_channel(own));
	serve(channel, 0);
}

int main(void)
{
	struct ffv_cm_channel *channel;

	opened_directory();
	srandom(test_seed());
	struct ffv_context *ctx = opened_context();
	CHECK_OK(ffv_cm_create_channel(&channel));
	struct ffv_cm_id *listener = cm_listen(channel, OWN_ADDRESS, PORT, FFV_PS_TCP);
	for (int n = 0; n < CONVERSATIONS; n++) {
		converse(ctx, channel);
		if (n % 50 == 49)
			a_good_one(channel);
	}
	serve(channel, 100);
	CHECK_OK(ffv_cm_destroy_id(listener));
	CHECK_OK(ffv_cm_destroy_channel(channel)); /* of every id the end was told, and it is gone */
	CHECK_OK(ffv_close_device(ctx));
	scratch_remove();
	return 0;
}

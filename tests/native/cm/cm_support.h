/* For C tests of the connection manager: addresses, ids and events that must come. */
#ifndef FFV_TESTS_CM_SUPPORT_H
#define FFV_TESTS_CM_SUPPORT_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>

#include "opened.h"

#define OWN_ADDRESS "10.9.8.7" /* of opened_directory() */
#define HANG_MS 60000          /* longer than anything takes: only detects hangs */

static inline unsigned test_seed(void)
{
	const char *given = getenv("FFVERBS_TEST_SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL);

	printf("FFVERBS_TEST_SEED=%u\n", seed);
	fflush(stdout);
	return seed;
}

static inline union ffv_sockaddr cm_address(const char *text, uint16_t port)
{
	union ffv_sockaddr addr = { .align = 0 };
	struct sockaddr_in *in = (struct sockaddr_in *)(void *)&addr;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)&addr;

	if (inet_pton(AF_INET, text, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
	} else {
		CHECK_EQ(inet_pton(AF_INET6, text, &in6->sin6_addr), 1);
		in6->sin6_family = AF_INET6;
	}
	in->sin_port = htons(port);
	return addr;
}

static inline const struct sockaddr *cm_sockaddr(const union ffv_sockaddr *addr)
{
	return (const struct sockaddr *)(const void *)addr;
}

static inline struct ffv_cm_event *cm_event(struct ffv_cm_channel *channel)
{
	struct pollfd ready = { .fd = channel->fd, .events = POLLIN };
	struct ffv_cm_event *event;

	CHECK_EQ(poll(&ready, 1, HANG_MS), 1);
	CHECK_OK(ffv_cm_get_event(channel, &event));
	return event;
}

/* The next event is this one; it is acknowledged. */
static inline void cm_expect(struct ffv_cm_channel *channel, uint32_t type, int status)
{
	struct ffv_cm_event *event = cm_event(channel);

	CHECK_STR(ffv_cm_event_str(event->event), ffv_cm_event_str(type));
	CHECK_EQ(event->status, status);
	CHECK_OK(ffv_cm_ack_event(event));
}

static inline struct ffv_cm_id *cm_listen(struct ffv_cm_channel *channel, const char *text, uint16_t port, uint32_t space)
{
	union ffv_sockaddr addr = cm_address(text, port);
	struct ffv_cm_id *id;

	CHECK_OK(ffv_cm_create_id(channel, &id, NULL, space));
	CHECK_OK(ffv_cm_bind_addr(id, cm_sockaddr(&addr)));
	CHECK_OK(ffv_cm_listen(id, 0));
	return id;
}

static inline void cm_create_qp(struct ffv_cm_id *id)
{
	struct ffv_qp_init_attr attr = { .qp_type = id->qp_type, .cap = { 2, 2, 1, 1, 0 } };

	CHECK_OK(ffv_cm_create_qp(id, NULL, &attr));
}

static inline struct ffv_cm_id *cm_resolve(struct ffv_cm_channel *channel, const char *text, uint16_t port, uint32_t space)
{
	union ffv_sockaddr addr = cm_address(text, port);
	struct ffv_cm_id *id;

	CHECK_OK(ffv_cm_create_id(channel, &id, NULL, space));
	CHECK_OK(ffv_cm_resolve_addr(id, NULL, cm_sockaddr(&addr), HANG_MS));
	cm_expect(channel, FFV_CM_EVENT_ADDR_RESOLVED, 0);
	CHECK_OK(ffv_cm_resolve_route(id, HANG_MS));
	cm_expect(channel, FFV_CM_EVENT_ROUTE_RESOLVED, 0);
	cm_create_qp(id);
	return id;
}

static inline struct ffv_cm_id *cm_requested(struct ffv_cm_channel *channel)
{
	struct ffv_cm_event *event = cm_event(channel);
	struct ffv_cm_id *id = event->id;

	CHECK_STR(ffv_cm_event_str(event->event), "RDMA_CM_EVENT_CONNECT_REQUEST");
	CHECK_OK(ffv_cm_ack_event(event));
	return id;
}

static inline int count_descriptors(void)
{
	char path[64];
	int count = 0;

	for (int fd = 0; fd < 4096; fd++) {
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		count += access(path, F_OK) == 0;
	}
	return count;
}

#endif

/* For libFuzzer programs: a stranger's channel to the router of hosts[1], from its beginning until everything that it led to
 * has gone. */
#ifndef FFV_TESTS_FUZZ_SESSION_H
#define FFV_TESTS_FUZZ_SESSION_H

#include <errno.h>
#include <poll.h>

#include "fuzzed.h"
#include "stranger.h"
#include "wire/router.h"

#define SESSION_HANG_NS 120000000000ull /* only detects hangs */

static struct host *const session_host = &hosts[1];

/* The stranger's end. */
static inline int session_begin(uint32_t *channel)
{
	int sockets[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	CHECK_OK(ffv_router_add_channel(session_host->router, "tcp", sockets[0], channel));
	return sockets[1];
}

/* False: the router hung up. */
static inline bool session_hear(int socket)
{
	static uint8_t bytes[65536];
	ssize_t n;

	while ((n = recv(socket, bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
		stranger_hears(bytes, (size_t)n);
	return n < 0 && errno == EAGAIN;
}

/* A frame out of the input. False: the router hung up. */
static inline bool session_say(int socket)
{
	static uint8_t frame[STRANGER_FRAME_BYTES];
	size_t length = stranger_speaks(frame, session_host);
	const uint8_t *bytes = frame;

	while (length) {
		ssize_t n = send(socket, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (!session_hear(socket) || (n < 0 && errno != EAGAIN))
			return false;
		if (n < 0) {
			poll(&(struct pollfd){ .fd = socket, .events = POLLOUT | POLLIN }, 1, 100);
			continue;
		}
		bytes += n;
		length -= (size_t)n;
	}
	return true;
}

/* The router's setup thread has done what there was to do, most likely. */
static inline void session_settle(void)
{
	struct ffv_router *router = session_host->router;

	for (int i = 0, quiet = 0; i < 200 && quiet < 3; i++) {
		pthread_mutex_lock(&router->lock);
		quiet = router->jobs || router->done ? 0 : quiet + 1;
		pthread_mutex_unlock(&router->lock);
		usleep(50);
	}
}

static inline bool session_is_closed(uint32_t channel)
{
	struct ffv_router_event event;
	bool closed = false;

	while (ffv_router_next_event(session_host->router, &event)) {
		if (event.channel != channel || event.kind == FFV_ROUTER_PROXY_CLOSED)
			continue;
		closed |= event.kind == FFV_ROUTER_CHANNEL_CLOSED;
		ffv_router_close_channel(session_host->router, channel); /* nobody comes back to it */
	}
	return closed;
}

static inline bool session_has_proxies(void)
{
	struct ffv_router *router = session_host->router;
	bool some = false;

	pthread_mutex_lock(&router->lock);
	for (const struct ffv_proxy *proxy = router->proxies; proxy && !some; proxy = proxy->next)
		some = !proxy->is_bridge;
	pthread_mutex_unlock(&router->lock);
	return some;
}

/* Everything that was said has been taken apart when the router sees the end; then all of it goes. */
static inline void session_end(int socket, uint32_t channel)
{
	uint64_t deadline_ns = ffv_clock_ns() + SESSION_HANG_NS;

	shutdown(socket, SHUT_WR);
	while (!session_is_closed(channel)) {
		session_hear(socket);
		poll(&(struct pollfd){ .fd = ffv_router_event_fd(session_host->router), .events = POLLIN }, 1, 1);
		CHECK(ffv_clock_ns() < deadline_ns);
	}
	close(socket);
	while (session_has_proxies()) {
		usleep(100);
		CHECK(ffv_clock_ns() < deadline_ns);
	}
}

/* After every few hundred inputs: the container is well, and nothing is lost for good. */
static inline void session_check(void)
{
	static unsigned inputs;

	if (++inputs % 500)
		return;
	stranger_check_container(session_host);
	fuzzed_check_leaks();
}

#endif

/* What another router may send, at random: valid frames, frames bent in a field, and noise (stranger.h). The router under
 * test drops the connection or answers; it neither crashes nor harms its container. Under the address sanitizer this is a
 * test. tests/fuzz/frames.c has the same stranger led by what it reaches. */
#include <errno.h>
#include <poll.h>

#include "shm/nodedir.h"
#include "stranger.h"

#define ROUNDS 1500
#define FRAMES 200

static unsigned state;

static inline unsigned draw(unsigned below)
{
	state = state * 1664525u + 1013904223u;
	return (state >> 8) % below;
}

/* Reads what the router answers, so that it never waits for us. False: it hung up. */
static bool drain(int socket)
{
	uint8_t bytes[65536];
	ssize_t n;

	while ((n = recv(socket, bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
		stranger_hears(bytes, (size_t)n);
	return n < 0;
}

static void talk(struct host *host)
{
	static uint8_t frame[STRANGER_FRAME_BYTES];
	int sockets[2];
	uint32_t channel;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
	CHECK_OK(ffv_router_add_channel(host->router, "tcp", sockets[0], &channel));
	bool alive = true;
	stranger_begin(stranger_all_kinds, sizeof stranger_all_kinds);
	for (unsigned i = 0; alive && i < FRAMES; i++) {
		size_t bytes = stranger_speaks(frame, host), sent = 0;
		while (alive && sent < bytes) {
			ssize_t n = send(sockets[1], frame + sent, bytes - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
			sent += n > 0 ? (size_t)n : 0;
			alive = drain(sockets[1]) && (n > 0 || errno == EAGAIN);
			if (n < 0 && alive)
				poll(&(struct pollfd){ .fd = sockets[1], .events = POLLOUT | POLLIN }, 1, 100);
		}
	}
	close(sockets[1]);
	ffv_router_close_channel(host->router, channel); /* nobody comes back to it */
}

int main(void)
{
	struct host *host = &hosts[1];
	char name[FFV_NODEDIR_NAME_BYTES];
	struct ffv_nodedir *dir;
	int listener;

	state = test_seed();
	hosts_open();
	CHECK_OK(ffv_nodedir_open(host->dir, &dir));
	ffv_nodedir_write_service(name, 'g', host->gid.raw, 0x106, STRANGER_PORT);
	CHECK_OK(ffv_nodedir_claim_name(dir, name, &listener));
	host->qp = side_qp(&host->side, host->side.cq, FFV_QPT_RC, NULL, 64);
	struct ffv_qp *member = stranger_group_of(host);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct ffv_router_event event;
		stranger_is_asked(host);
		talk(host);
		stranger_is_heard(listener);
		while (ffv_router_next_event(host->router, &event))
			;
		if (round % 50 == 0)
			stranger_check_container(host);
	}
	stranger_check_container(host);
	CHECK_OK(ffv_detach_mcast(member, &(struct ffv_gid){ .raw = { 0xff, 0x0e } }, 0));
	CHECK_OK(ffv_destroy_qp(member));
	CHECK_OK(ffv_destroy_qp(host->qp));
	host->qp = NULL;
	ffv_nodedir_release_name(dir, name, listener);
	ffv_nodedir_close(dir);
	stranger_is_heard(-1);
	hosts_close();
	return 0;
}

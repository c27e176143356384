/* For libFuzzer: frames of another router into a real one, with a container that is connected to the stranger, receives,
 * asks for things, listens and is on the segment (stranger.h makes frames of the input). SUBJECT says which frames. */
#include "session.h"
#include "shm/nodedir.h"

#define MOST_FRAMES 400u

#define pairs FFV_FRAME_OPEN, FFV_FRAME_OPEN, FFV_FRAME_MESSAGE, FFV_FRAME_LARGE, FFV_FRAME_DATA, FFV_FRAME_DATA, \
	      FFV_FRAME_PLACED, FFV_FRAME_REQUEST, FFV_FRAME_CLOSE, FFV_FRAME_GONE
#define answers FFV_FRAME_ACK, FFV_FRAME_CREDIT, FFV_FRAME_RESULT, FFV_FRAME_RESULT, FFV_FRAME_WAITS, FFV_FRAME_OPEN, \
		FFV_FRAME_SEEN
#define datagrams FFV_FRAME_DATAGRAM, FFV_FRAME_DATAGRAM, FFV_FRAME_OPEN, FFV_FRAME_GONE
#define calls FFV_FRAME_CALL, FFV_FRAME_TELL, FFV_FRAME_HANG_UP, FFV_FRAME_TOLD, FFV_FRAME_HUNG_UP
#define segment FFV_FRAME_BROADCAST, FFV_FRAME_INTEREST, FFV_FRAME_INTEREST_SEEN
#define all pairs, answers, datagrams, calls, segment

static const uint8_t kinds[] = { SUBJECT };
static struct ffv_nodedir *dir;
static char name[FFV_NODEDIR_NAME_BYTES];
static int listener;
static struct ffv_qp *member;

static void end(void)
{
	CHECK_OK(ffv_detach_mcast(member, &(struct ffv_gid){ .raw = { 0xff, 0x0e } }, 0));
	CHECK_OK(ffv_destroy_qp(member));
	CHECK_OK(ffv_destroy_qp(session_host->qp));
	ffv_nodedir_release_name(dir, name, listener);
	ffv_nodedir_close(dir);
	stranger_is_heard(-1);
	hosts_close();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct host *host = session_host;

	(void)argc, (void)argv;
	hosts_open();
	CHECK_OK(ffv_nodedir_open(host->dir, &dir));
	ffv_nodedir_write_service(name, 'g', host->gid.raw, 0x106, STRANGER_PORT);
	CHECK_OK(ffv_nodedir_claim_name(dir, name, &listener));
	host->qp = side_qp(&host->side, host->side.cq, FFV_QPT_RC, NULL, 64);
	member = stranger_group_of(host);
	atexit(end);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint32_t channel;
	int socket = session_begin(&channel);
	bool alive = true;

	fuzzed_begin(data, size);
	stranger_begin(kinds, sizeof kinds);
	for (unsigned i = 0; i < MOST_FRAMES && fuzzed_left && alive; i++) {
		unsigned what = draw(16);
		if (what == 0)
			session_settle();
		else if (what == 1)
			stranger_is_asked(session_host);
		else if (what == 2)
			stranger_is_heard(listener);
		else
			alive = session_say(socket);
	}
	session_settle();
	session_end(socket, channel);
	session_check();
	return 0;
}

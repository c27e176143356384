/* For libFuzzer: what the other end of the transport `rdma` may send: notes over the socket, in and out of their turn, and
 * messages into the slots of a real queue pair. The device is a fake: what it completes, and with which bytes, comes out of
 * the input. The stream itself is checked nowhere: whoever sends nonsense gets it. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "fuzzed.h"
#include "wire/rdma_notes.h"
#include "wire/transport.h"

#define MOST_STEPS 400u
#define MOST_RECEIVES 256u

/* ---- the device --------------------------------------------------------------------------------------------------------- */

static bool has_device;
static struct { uint64_t wr_id; uint8_t *at; uint32_t length; } receives[MOST_RECEIVES];
static uint32_t num_receives;
static uint64_t last_send;
static uint64_t position;         /* of the stream that the other end sends */
static int never[2];              /* a pipe of which nothing comes */

static int poll_cq(struct real_cq *cq, int count, struct ffv_wc *wc)
{
	(void)cq, (void)count;
	unsigned what = draw(8);
	*wc = (struct ffv_wc){ .status = draw(64) ? FFV_WC_SUCCESS : FFV_WC_RETRY_EXC_ERR };
	if (!fuzzed_left)
		return 0;
	if (what == 0 && last_send) {
		wc->wr_id = last_send;
		return 1;
	}
	if (what < 3 || !num_receives)
		return 0;
	uint32_t at = draw(4) ? 0 : draw(num_receives), length = draw(draw(4) ? 600 : FFV_RDMA_SLOT_PAYLOAD + 64);
	struct ffv_rdma_head head = { .position = draw(8) ? position : draw(1u << 20), .length = length, .consumed = draw(4) };
	if (length > FFV_RDMA_SLOT_PAYLOAD)
		head.length = length = FFV_RDMA_SLOT_PAYLOAD;
	if (!draw(32))
		head.length = draw(UINT32_MAX), head.consumed = draw(UINT32_MAX);
	memcpy(receives[at].at, &head, sizeof head);
	memset(receives[at].at + sizeof head, (int)length, length);
	position += length;
	wc->wr_id = receives[at].wr_id;
	wc->byte_len = draw(32) ? length + (uint32_t)sizeof head : draw(FFV_RDMA_SLOT_BYTES + 1);
	memmove(&receives[at], &receives[at + 1], (--num_receives - at) * sizeof receives[0]);
	return 1;
}

static int req_notify_cq(struct real_cq *cq, int solicited)
{
	(void)cq, (void)solicited;
	return draw(200) == 199 ? ENOMEM : 0;
}

static int device_send(struct real_qp *qp, struct ffv_send_wr *wr, struct ffv_send_wr **bad)
{
	static volatile uint8_t sum;
	const struct ffv_sge *sge = wr->sg_list;

	(void)qp, (void)bad;
	for (uint32_t i = 0; i < sge->length; i++) /* none of it lies outside the slots */
		sum = (uint8_t)(sum ^ ((const uint8_t *)(uintptr_t)sge->addr)[i]);
	last_send = wr->wr_id;
	return draw(200) == 199 ? ENOMEM : 0;
}

static int device_receive(struct real_qp *qp, struct ffv_recv_wr *wr, struct ffv_recv_wr **bad)
{
	(void)qp, (void)bad;
	CHECK(num_receives < MOST_RECEIVES);
	CHECK(wr->sg_list->length <= FFV_RDMA_SLOT_BYTES);
	receives[num_receives].wr_id = wr->wr_id;
	receives[num_receives++].at = (uint8_t *)(uintptr_t)wr->sg_list->addr;
	return 0;
}

static struct real_context context = { .poll_cq = poll_cq, .req_notify_cq = req_notify_cq, .post_send = device_send,
				       .post_recv = device_receive };
static struct real_comp_channel events = { .context = &context };
static struct real_mr region;
static struct real_qp queue_pair = { .context = &context, .qp_num = 17 };
static char some_object[8];

static struct real_comp_channel *create_comp_channel(struct real_context *of) { return of == &context ? &events : NULL; }
static int destroy_comp_channel(struct real_comp_channel *channel) { return channel != &events; }
static int destroy_cq(struct real_cq *cq) { return !cq; }
static void ack_cq_events(struct real_cq *cq, unsigned count) { (void)cq, (void)count; }
static void ack_async_event(struct real_async_event *event) { (void)event; }
static int dereg_mr(struct real_mr *mr) { return mr != &region; }
static const char *wc_status_str(uint32_t status) { return status ? "an error" : "success"; }

static struct real_cq *create_cq(struct real_context *of, int cqe, void *arg, struct real_comp_channel *channel, int vector)
{
	(void)of, (void)cqe, (void)arg, (void)channel, (void)vector;
	return (struct real_cq *)(void *)some_object;
}

static struct real_qp *create_qp(struct real_pd *pd, struct real_qp_init_attr *attr)
{
	(void)pd, (void)attr;
	num_receives = 0;
	last_send = 0;
	return &queue_pair;
}

static int destroy_qp(struct real_qp *qp)
{
	num_receives = 0;
	return qp != &queue_pair;
}

static int modify_qp(struct real_qp *qp, struct real_qp_attr *attr, int mask)
{
	(void)qp, (void)attr, (void)mask;
	return draw(64) == 63 ? EINVAL : 0;
}

static int get_cq_event(struct real_comp_channel *channel, struct real_cq **cq, void **arg)
{
	(void)channel, (void)cq, (void)arg;
	return -1;
}

static int get_async_event(struct real_context *of, struct real_async_event *event)
{
	(void)of;
	*event = (struct real_async_event){ .event_type = draw(12) };
	return draw(4) ? -1 : 0;
}

static const struct ffv_ibverbs verbs = {
	.create_comp_channel = create_comp_channel, .destroy_comp_channel = destroy_comp_channel, .create_cq = create_cq,
	.destroy_cq = destroy_cq, .get_cq_event = get_cq_event, .ack_cq_events = ack_cq_events, .create_qp = create_qp,
	.modify_qp = modify_qp, .destroy_qp = destroy_qp, .get_async_event = get_async_event, .ack_async_event = ack_async_event,
	.dereg_mr = dereg_mr, .wc_status_str = wc_status_str,
};

int ffv_rdma_device_open(const struct ffv_rdma_options *options, struct ffv_rdma_device *out)
{
	(void)options;
	*out = (struct ffv_rdma_device){ .uevents = -1 };
	if (!has_device || draw(16) == 15)
		return ffv_fail(ENODEV, "no device today");
	*out = (struct ffv_rdma_device){ .verbs = &verbs, .context = &context, .name = "fake", .uevents = -1, .port = 1,
					 .link_layer = REAL_LINK_ETHERNET, .mtu = 3 };
	return 0;
}

void ffv_rdma_device_close(struct ffv_rdma_device *device)
{
	device->context = NULL;
}

bool ffv_rdma_device_is_removed(const struct ffv_rdma_device *device)
{
	(void)device;
	return draw(16) == 15;
}

struct real_mr *ffv_rdma_register(const struct ffv_rdma_device *device, void *at, size_t bytes, int access)
{
	(void)device, (void)at, (void)bytes, (void)access;
	return &region;
}

/* ---- the other end ------------------------------------------------------------------------------------------------------- */

static uint32_t their_round;

static void put(int socket, const void *bytes, size_t length)
{
	if (send(socket, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN)
		CHECK(errno == EPIPE || errno == ECONNRESET);
}

static void say_note(int socket)
{
	static uint8_t data[FFV_NOTE_DATA_BYTES];
	struct ffv_note note = { .magic = FFV_NOTE_MAGIC, .kind = (uint8_t)(1 + draw(3)), .round = their_round + draw(2),
				 .position = draw(4) ? position : draw(1u << 20) };
	struct ffv_note_offer offer = { .endpoint = { .qpn = draw(1u << 24), .link_layer = (uint8_t)(draw(8) ? 2 : 1), .mtu = 3 },
					.usable = (uint8_t)(draw(4) != 0), .tcp_allowed = (uint8_t)(draw(8) != 0) };

	note.length = note.kind == FFV_NOTE_OFFER ? sizeof offer : note.kind == FFV_NOTE_DATA ? 1 + draw(3000) : 0;
	if (note.kind == FFV_NOTE_READY)
		note.position = draw(8) ? 0 : draw(100000);
	if (!draw(32))
		((uint8_t *)&note)[draw(sizeof note)] = (uint8_t)draw(256);
	memset(offer.why, 'x', draw(8) ? 10 : sizeof offer.why);
	their_round = note.round;
	put(socket, &note, sizeof note);
	if (note.kind == FFV_NOTE_OFFER)
		put(socket, &offer, sizeof offer);
	else if (note.kind == FFV_NOTE_DATA && note.length <= sizeof data) {
		put(socket, data, note.length);
		position += note.length;
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	CHECK_EQ(pipe2(never, O_NONBLOCK | O_CLOEXEC), 0);
	events.fd = context.async_fd = never[0];
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t bytes[1 << 16];
	struct ffv_transport_options options = { 0 };
	struct ffv_wire_link *link;
	static unsigned inputs;
	int sockets[2], size_bytes = 1 << 20;

	fuzzed_begin(data, size);
	position = their_round = 0;
	has_device = draw(4) != 0;
	options.rdma.tcp_allowed = draw(4) != 0;
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	setsockopt(sockets[1], SOL_SOCKET, SO_SNDBUF, &size_bytes, sizeof size_bytes);
	CHECK_EQ(ffv_transport_rdma.open(&options, sockets[0], &link), 0);
	bool alive = true;
	for (unsigned i = 0; i < MOST_STEPS && fuzzed_left && alive; i++) {
		switch (draw(6)) {
		case 0:
			alive = ffv_transport_rdma.send(link, bytes, draw(sizeof bytes)) >= 0;
			break;
		case 1:
			alive = ffv_transport_rdma.receive(link, bytes, 1 + draw(sizeof bytes - 1)) >= 0;
			break;
		case 2:
			has_device = draw(4) != 0;
			break;
		case 3:
			while (recv(sockets[1], bytes, sizeof bytes, MSG_DONTWAIT) > 0)
				;
			break;
		default:
			say_note(sockets[1]);
		}
	}
	char text[200];
	ffv_transport_rdma.describe(link, text, sizeof text);
	CHECK(strlen(text) < sizeof text);
	ffv_transport_rdma.close(link);
	close(sockets[1]);
	if (++inputs % 20000 == 0)
		fuzzed_check_leaks();
	return 0;
}

/* Frames: what is believed of another router. */
#include <ffverbs/ffv.h>

#include "check.h"
#include "wire/frame.h"

static struct ffv_frame frame(uint8_t kind, uint8_t opcode, uint32_t payload, uint32_t length)
{
	return (struct ffv_frame){ .magic = FFV_FRAME_MAGIC, .kind = kind, .opcode = opcode, .payload_bytes = payload,
				   .length_bytes = length };
}

static void accepts(struct ffv_frame f)
{
	const char *wrong = ffv_frame_check(&f);

	CHECK_STR(wrong ? wrong : "", "");
}

static void refuses(struct ffv_frame f)
{
	CHECK(ffv_frame_check(&f) != NULL);
}

static void test_messages(void)
{
	accepts(frame(FFV_FRAME_MESSAGE, FFV_WR_SEND, 0, 0));
	accepts(frame(FFV_FRAME_MESSAGE, FFV_WR_RDMA_WRITE, FFV_EAGER_BYTES, FFV_EAGER_BYTES));
	refuses(frame(FFV_FRAME_MESSAGE, FFV_WR_SEND, 8, 9));
	refuses(frame(FFV_FRAME_MESSAGE, FFV_WR_SEND, FFV_EAGER_BYTES + 1, FFV_EAGER_BYTES + 1));
	refuses(frame(FFV_FRAME_MESSAGE, FFV_WR_RDMA_READ, 8, 8));
	refuses(frame(FFV_FRAME_MESSAGE, FFV_WR_BIND_MW, 8, 8));
	accepts(frame(FFV_FRAME_LARGE, FFV_WR_SEND_WITH_INV, 0, FFV_MAX_MESSAGE));
	refuses(frame(FFV_FRAME_LARGE, FFV_WR_SEND, 0, FFV_EAGER_BYTES));
	refuses(frame(FFV_FRAME_LARGE, FFV_WR_SEND, 0, UINT32_MAX));
	refuses(frame(FFV_FRAME_LARGE, FFV_WR_SEND, 1, 1u << 20));
}

static void test_requests_and_answers(void)
{
	accepts(frame(FFV_FRAME_REQUEST, FFV_WR_RDMA_READ, 0, FFV_MAX_MESSAGE));
	refuses(frame(FFV_FRAME_REQUEST, FFV_WR_RDMA_READ, 0, UINT32_MAX));
	accepts(frame(FFV_FRAME_REQUEST, FFV_WR_ATOMIC_FETCH_AND_ADD, 0, 8));
	refuses(frame(FFV_FRAME_REQUEST, FFV_WR_ATOMIC_CMP_AND_SWP, 0, 16));
	accepts(frame(FFV_FRAME_REQUEST, FFV_WR_FLUSH, 0, 0));
	refuses(frame(FFV_FRAME_REQUEST, FFV_WR_FLUSH, 0, 8));
	refuses(frame(FFV_FRAME_REQUEST, FFV_WR_SEND, 0, 8));
	accepts(frame(FFV_FRAME_RESULT, FFV_WR_RDMA_READ, FFV_CHUNK_BYTES, 0));
	refuses(frame(FFV_FRAME_RESULT, FFV_WR_RDMA_READ, FFV_CHUNK_BYTES + 1, 0));
	refuses(frame(FFV_FRAME_ACK, 0, 1, 0));
	refuses(frame(FFV_FRAME_DATA, 0, 0, 0));
	accepts(frame(FFV_FRAME_DATAGRAM, FFV_WR_SEND, sizeof(struct ffv_frame_address) + 5, 5));
	refuses(frame(FFV_FRAME_DATAGRAM, FFV_WR_SEND, sizeof(struct ffv_frame_address) + 5, 6));
	refuses(frame(FFV_FRAME_DATAGRAM, FFV_WR_SEND, 5, 5));
}

static void test_conversations(void)
{
	uint32_t service = sizeof(struct ffv_frame_service);

	accepts(frame(FFV_FRAME_CALL, 0, service + 1, 0));
	accepts(frame(FFV_FRAME_CALL, 0, service + FFV_CALL_BYTES, 0));
	refuses(frame(FFV_FRAME_CALL, 0, service, 0));
	refuses(frame(FFV_FRAME_CALL, 0, service + FFV_CALL_BYTES + 1, 0));
	accepts(frame(FFV_FRAME_TELL, 0, FFV_CALL_BYTES, 0));
	refuses(frame(FFV_FRAME_TELL, 0, 0, 0));
	refuses(frame(FFV_FRAME_TOLD, 0, FFV_CALL_BYTES + 1, 0));
	accepts(frame(FFV_FRAME_HUNG_UP, 0, 0, 0));
	refuses(frame(FFV_FRAME_HANG_UP, 0, 8, 0));
}

static void test_broadcasts(void)
{
	uint32_t head = sizeof(struct ffv_frame_segment);

	accepts(frame(FFV_FRAME_BROADCAST, 0, head, 0));
	accepts(frame(FFV_FRAME_BROADCAST, 0, head + FFV_FRAME_MAX_BYTES, FFV_FRAME_MAX_BYTES));
	refuses(frame(FFV_FRAME_BROADCAST, 0, head + FFV_FRAME_MAX_BYTES + 1, FFV_FRAME_MAX_BYTES + 1));
	refuses(frame(FFV_FRAME_BROADCAST, 0, head, 1));
	refuses(frame(FFV_FRAME_BROADCAST, 0, head - 1, 0));
	accepts(frame(FFV_FRAME_INTEREST, 0, 0, 0));
	refuses(frame(FFV_FRAME_INTEREST_SEEN, 0, 8, 0));
}

static void test_credits(void)
{
	uint32_t piece = sizeof(struct ffv_frame_piece);

	accepts(frame(FFV_FRAME_CREDIT, 0, 0, 65536));
	accepts(frame(FFV_FRAME_CREDIT, 0, FFV_MOST_PIECES * piece, 65536));
	refuses(frame(FFV_FRAME_CREDIT, 0, FFV_MOST_PIECES * piece + piece, 65536));
	refuses(frame(FFV_FRAME_CREDIT, 0, piece - 1, 65536));
	accepts(frame(FFV_FRAME_PLACED, 0, 0, 65536));
	refuses(frame(FFV_FRAME_PLACED, 0, 8, 65536));
}

static void test_headers(void)
{
	struct ffv_frame f = frame(FFV_FRAME_CLOSE, 0, 0, 0);

	accepts(f);
	f.pair = FFV_MAX_PAIRS;
	refuses(f);
	f = frame(FFV_FRAME_CLOSE, 0, 0, 0);
	f.magic++;
	refuses(f);
	for (unsigned kind = 0; kind < 256; kind++) {
		f = frame((uint8_t)kind, 0, UINT32_MAX, UINT32_MAX); /* no kind may be larger than the buffer */
		refuses(f);
	}
}

int main(void)
{
	test_messages();
	test_requests_and_answers();
	test_conversations();
	test_broadcasts();
	test_credits();
	test_headers();
	return 0;
}

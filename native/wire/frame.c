/* SPDX-License-Identifier: MIT
 *
 * See frame.h.
 */
#include "wire/frame.h"

#include <ffverbs/ffv.h>

static bool is_write(uint8_t opcode)
{
	return opcode == FFV_WR_RDMA_WRITE || opcode == FFV_WR_RDMA_WRITE_WITH_IMM || opcode == FFV_WR_ATOMIC_WRITE;
}

static bool is_send(uint8_t opcode)
{
	return opcode == FFV_WR_SEND || opcode == FFV_WR_SEND_WITH_IMM || opcode == FFV_WR_SEND_WITH_INV;
}

static bool is_atomic(uint8_t opcode)
{
	return opcode == FFV_WR_ATOMIC_CMP_AND_SWP || opcode == FFV_WR_ATOMIC_FETCH_AND_ADD;
}

static const char *check_message(const struct ffv_frame *frame)
{
	if (!is_send(frame->opcode) && !is_write(frame->opcode))
		return "a message of an unknown operation";
	if (frame->kind == FFV_FRAME_LARGE)
		return frame->payload_bytes || frame->length_bytes <= FFV_EAGER_BYTES || frame->length_bytes > FFV_MAX_MESSAGE
			       ? "a large message of a wrong size" : NULL;
	return frame->payload_bytes != frame->length_bytes || frame->length_bytes > FFV_EAGER_BYTES
		       ? "a message of a wrong size" : NULL;
}

static const char *check_request(const struct ffv_frame *frame)
{
	if (frame->payload_bytes)
		return "a request with a payload";
	if (is_atomic(frame->opcode))
		return frame->length_bytes == 8 ? NULL : "an atomic that is not of 8 bytes";
	if (frame->opcode == FFV_WR_FLUSH)
		return frame->length_bytes ? "a flush with a payload" : NULL;
	return frame->opcode == FFV_WR_RDMA_READ && frame->length_bytes <= FFV_MAX_MESSAGE ? NULL
			: "a request of an unknown operation";
}

static const char *check_result(const struct ffv_frame *frame)
{
	if (is_atomic(frame->opcode))
		return frame->payload_bytes ? "an atomic's result with a payload" : NULL;
	return frame->payload_bytes && frame->payload_bytes <= FFV_CHUNK_BYTES ? NULL : "a result of a wrong size";
}

static const char *check_credit(const struct ffv_frame *frame)
{
	return frame->payload_bytes % sizeof(struct ffv_frame_piece) == 0 &&
	       frame->payload_bytes <= FFV_MOST_PIECES * sizeof(struct ffv_frame_piece) ? NULL : "a CREDIT of a wrong size";
}

static const char *check_packet(const struct ffv_frame *frame, uint32_t before)
{
	return frame->payload_bytes > before && frame->payload_bytes <= before + FFV_CALL_BYTES
		       ? NULL : "a packet of a conversation of a wrong size";
}

static const char *check_broadcast(const struct ffv_frame *frame)
{
	return frame->length_bytes <= FFV_FRAME_MAX_BYTES &&
	       frame->payload_bytes == sizeof(struct ffv_frame_segment) + frame->length_bytes ? NULL
											     : "a BROADCAST of a wrong size";
}

const char *ffv_frame_check(const struct ffv_frame *frame)
{
	if (frame->magic != FFV_FRAME_MAGIC)
		return "bytes that are no frame";
	if (frame->pair >= FFV_MAX_PAIRS)
		return "a pair number beyond the limit";
	switch (frame->kind) {
	case FFV_FRAME_OPEN:
		return frame->payload_bytes == sizeof(struct ffv_frame_open) ? NULL : "an OPEN of a wrong size";
	case FFV_FRAME_MESSAGE:
	case FFV_FRAME_LARGE:
		return check_message(frame);
	case FFV_FRAME_DATA:
		return frame->payload_bytes && frame->payload_bytes <= FFV_CHUNK_BYTES ? NULL : "DATA of a wrong size";
	case FFV_FRAME_REQUEST:
		return check_request(frame);
	case FFV_FRAME_DATAGRAM:
		return frame->payload_bytes >= sizeof(struct ffv_frame_address) &&
		       frame->payload_bytes == sizeof(struct ffv_frame_address) + frame->length_bytes &&
		       frame->length_bytes <= FFV_DATAGRAM_BYTES ? NULL : "a datagram of a wrong size";
	case FFV_FRAME_CREDIT:
		return check_credit(frame);
	case FFV_FRAME_RESULT:
		return check_result(frame);
	case FFV_FRAME_GONE:
		return frame->payload_bytes == sizeof(struct ffv_frame_gone) ? NULL : "a GONE of a wrong size";
	case FFV_FRAME_BROADCAST:
		return check_broadcast(frame);
	case FFV_FRAME_CALL:
		return check_packet(frame, sizeof(struct ffv_frame_service));
	case FFV_FRAME_TELL:
	case FFV_FRAME_TOLD:
		return check_packet(frame, 0);
	case FFV_FRAME_INTEREST:
	case FFV_FRAME_INTEREST_SEEN:
	case FFV_FRAME_HANG_UP:
	case FFV_FRAME_HUNG_UP:
	case FFV_FRAME_CLOSE:
	case FFV_FRAME_ACK:
	case FFV_FRAME_PLACED:
	case FFV_FRAME_WAITS:
	case FFV_FRAME_SEEN:
	case FFV_FRAME_BYE:
		return frame->payload_bytes ? "a payload where there is none" : NULL;
	default:
		return "a frame of an unknown kind";
	}
}

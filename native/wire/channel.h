/* SPDX-License-Identifier: MIT
 *
 * One stream of frames between two routers, which outlives the links that carry it (docs/decisions/0024). What is sent is
 * kept until the other end has seen it; over a new link it is sent again from there, and what comes twice is dropped.
 * Only the loop's thread touches it. The buffer for sending has no limit of its own: what fills it asks
 * ffv_channel_room() first, answers excepted, which the windows of the other side bound.
 *
 * Positions count the bytes of all frames of one direction since the channel began.
 */
#ifndef FFV_WIRE_CHANNEL_H
#define FFV_WIRE_CHANNEL_H

#include "wire/frame.h"
#include "wire/transport.h"

#define FFV_CHANNEL_HIGH (512u << 10)    /* bytes waiting to be sent, from which on queue pairs are made to wait */
#define FFV_CHANNEL_KEPT (1536u << 10)   /* the same of bytes that the other end has not seen */
#define FFV_BODY_BYTES 4096u             /* a payload of DATA or RESULT from this size on is received by pieces */
#define FFV_ROUND_BYTES (1u << 20)       /* of them read from one channel before others get their turn */
#define FFV_PROBE_NS 20000000ull         /* after so long without a word the other end is asked what it has seen */

/* A ring that is mapped twice in a row: what wraps around is in one piece all the same. */
struct ffv_out_buffer {
	uint8_t *bytes;
	size_t capacity;          /* a power of two */
	uint64_t start;           /* position at bytes[0] */
	uint64_t acked;           /* seen by the other end */
	uint64_t edge;            /* of a frame: where the one begins that `head` is in, or after walking, ends */
	uint64_t head;            /* next to be written to the link */
	uint64_t sent;            /* furthest that head has been */
	uint64_t tail;
	uint64_t rested;          /* tail when it gave its memory back */
};

struct ffv_in_buffer { uint8_t *bytes; size_t head, tail, capacity; bool is_touched; };

struct ffv_channel {
	const struct ffv_transport *transport;
	struct ffv_wire_link *link; /* NULL = lost: waits for another one */
	int descriptor;           /* of the link, for epoll */
	struct ffv_in_buffer in;
	struct ffv_out_buffer out;
	struct ffv_frame body;    /* whose payload is being received, if it has a magic number */
	uint32_t body_left;       /* of the payload: not taken yet */
	uint32_t body_again;      /* of the payload at `received`: taken before the last link was lost */
	int error;                /* of the link, found while a body was received */
	size_t budget;            /* bytes that this round may still read straight to where they belong */
	bool filled;              /* this round has read into the buffer */
	bool streaming;           /* the last frame was large: read no more than its header into the buffer */
	uint64_t received;        /* position in the other's stream: everything before it was handed out */
	uint64_t told;            /* of that, what the other end knows */
	uint64_t asked_ns;        /* when it was told to send again, at `asked` */
	uint64_t asked;
	bool rewinds;             /* at the next edge everything that was not seen is sent again */
	bool tells;               /* a SEEN is to be sent, with `tell_flags` */
	uint8_t tell_flags;
	struct ffv_frame note;    /* a SEEN or BYE that is being written */
	uint32_t note_left;       /* of it */
	bool parted;              /* the other router has taken its leave */
	bool probing;             /* a probe is not answered yet */
	uint64_t probed;          /* what had been sent then */
	uint64_t probe_ns, first_probe_ns;
	uint64_t heard_ns;        /* when something came last */
	uint64_t frames_sent, frames_received, bytes_sent, bytes_received;
	uint64_t bytes_placed;    /* of bytes_received: straight to where they belong */
};

/* The socket becomes the channel's, on success. */
int ffv_channel_init(struct ffv_channel *channel, const struct ffv_transport *transport,
		     const struct ffv_transport_options *options, int socket);
void ffv_channel_finish(struct ffv_channel *channel);
/* The link is gone: what it had not delivered waits for the next one. */
void ffv_channel_detach(struct ffv_channel *channel);
/* Goes on over another link, which becomes the channel's. */
void ffv_channel_attach(struct ffv_channel *channel, const struct ffv_transport *transport, struct ffv_wire_link *link);

/* Other threads' clocks may be read a moment later than ours. */
static inline uint64_t ffv_elapsed_ns(uint64_t now, uint64_t then)
{
	return now > then ? now - then : 0;
}

static inline uint64_t ffv_channel_waiting(const struct ffv_channel *channel)
{
	return channel->out.tail - channel->out.head;
}

static inline bool ffv_channel_room(const struct ffv_channel *channel)
{
	return ffv_channel_waiting(channel) < FFV_CHANNEL_HIGH && channel->out.tail - channel->out.acked < FFV_CHANNEL_KEPT;
}

/* The other end has not said that it has seen everything. */
static inline bool ffv_channel_unseen(const struct ffv_channel *channel)
{
	return channel->out.acked != channel->out.tail;
}

/* Room for a frame with `payload_bytes` to be filled in, NULL without memory; sent by flush. `abort` takes it back. */
struct ffv_frame *ffv_channel_frame(struct ffv_channel *channel, uint8_t kind, uint32_t payload_bytes);
void ffv_channel_abort(struct ffv_channel *channel, const struct ffv_frame *frame);
/* Everything of a header but what belongs to the frame's place in the stream. */
void ffv_frame_copy_header(struct ffv_frame *to, const struct ffv_frame *from);
static inline void *ffv_frame_payload(struct ffv_frame *frame)
{
	return frame + 1;
}
/* Writes what the link takes. 1 = all is out, 0 = wait for it to become writable (or for a link), -errno. */
int ffv_channel_flush(struct ffv_channel *channel);
/* Reads what is there into the buffer. 1 = there may be more, 0, -EPIPE when the other end closed, -errno. */
int ffv_channel_fill(struct ffv_channel *channel);
/* The next whole frame, checked, its payload behind it; 1, 0 = not yet there, -EPROTO, -ESHUTDOWN = the other router has
 * forgotten this channel. Valid until the next call. 2 = the header of a large one, whose payload is to be taken by the
 * calls below, piece by piece as it comes; until it is, the same again. */
int ffv_channel_next(struct ffv_channel *channel, struct ffv_frame *frame, const uint8_t **payload);
/* ---- body.c: the payload of the frame for which `next` said 2 ---- */
static inline bool ffv_channel_in_body(const struct ffv_channel *channel)
{
	return channel->body.magic != 0;
}
/* The first byte that was not taken. */
static inline uint32_t ffv_channel_body_offset(const struct ffv_channel *channel)
{
	return channel->body.payload_bytes - channel->body_left;
}
/* What of it stands in the buffer; `take` takes it from there. */
const uint8_t *ffv_channel_body_there(const struct ffv_channel *channel, uint32_t *length);
/* The same, read into the buffer if nothing is there; the link's failure is left in `error`. */
const uint8_t *ffv_channel_body_fetch(struct ffv_channel *channel, uint32_t *length);
void ffv_channel_body_take(struct ffv_channel *channel, uint32_t length);
/* Receives it to `to`, at most 16 parts, straight from the link where that can. How many bytes, 0 = none there now, -EFAULT =
 * there is no memory at `to` and nothing was taken, -errno = the link is lost. */
ssize_t ffv_channel_body_receive(struct ffv_channel *channel, const struct iovec *to, int count);
/* Of ffv_channel_next. True: the frame's payload is received by pieces. */
bool ffv_channel_begin_body(struct ffv_channel *channel, const struct ffv_frame *frame);
/* Takes again what was taken over an earlier link. True: all of that. */
bool ffv_channel_body_skip(struct ffv_channel *channel);
/* True: the whole frame was taken. */
bool ffv_channel_end_body(struct ffv_channel *channel);
/* The link is lost: the frame comes again, and what was taken of it does not count again. */
void ffv_channel_drop_body(struct ffv_channel *channel);

/* Nothing is under way: what the buffers took of memory goes back. */
void ffv_channel_rest(struct ffv_channel *channel);

/* Asks what was seen if that is not known for a while. -ETIMEDOUT: no answer, the link is as good as lost. */
int ffv_channel_tick(struct ffv_channel *channel, uint64_t now_ns);
/* Tells the other end, if the link takes it at once and it has not said so itself, that there is nothing to come back to. */
void ffv_channel_part(struct ffv_channel *channel);

#endif

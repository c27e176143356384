/* SPDX-License-Identifier: MIT
 *
 * Options, ioctl and flags. What has a meaning on a lossless path is done; what only tunes a network is kept, checked as
 * the kernel checks it, and told again.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/time.h>

#include "base/error.h"
#include "rsocket/rsocket.h"

/* Options that are kept, with what they are at first, least and most. */
static const struct kept {
	int level, name, initial, least, most;
	bool is_flag;
} kept_options[] = {
	{ SOL_SOCKET, SO_KEEPALIVE, 0, 0, 1, true }, { SOL_SOCKET, SO_BROADCAST, 0, 0, 1, true },
	{ SOL_SOCKET, SO_OOBINLINE, 0, 0, 1, true }, { SOL_SOCKET, SO_DONTROUTE, 0, 0, 1, true },
	{ SOL_SOCKET, SO_SNDBUF, 2 * (int)FFV_RS_RING_BYTES, 0, INT_MAX, false },
	{ SOL_SOCKET, SO_PRIORITY, 0, INT_MIN, INT_MAX, false }, { SOL_SOCKET, SO_REUSEPORT, 0, 0, 1, true },
	{ SOL_SOCKET, SO_INCOMING_CPU, -1, INT_MIN, INT_MAX, false }, { SOL_SOCKET, SO_BUSY_POLL, 0, 0, INT_MAX, false },
	{ IPPROTO_TCP, TCP_NODELAY, 0, 0, 1, true }, { IPPROTO_TCP, TCP_CORK, 0, 0, 1, true },
	{ IPPROTO_TCP, TCP_KEEPIDLE, 7200, 1, 32767, false }, { IPPROTO_TCP, TCP_KEEPINTVL, 75, 1, 32767, false },
	{ IPPROTO_TCP, TCP_KEEPCNT, 9, 1, 127, false }, { IPPROTO_TCP, TCP_QUICKACK, 1, INT_MIN, INT_MAX, true },
	{ IPPROTO_TCP, TCP_USER_TIMEOUT, 0, 0, INT_MAX, false }, { IPPROTO_TCP, TCP_DEFER_ACCEPT, 0, 0, INT_MAX, false },
	{ IPPROTO_TCP, TCP_SYNCNT, 6, 1, 127, false }, { IPPROTO_TCP, TCP_LINGER2, 60, INT_MIN, INT_MAX, false },
	{ IPPROTO_TCP, TCP_WINDOW_CLAMP, 0, 0, INT_MAX, false }, { IPPROTO_TCP, TCP_FASTOPEN, 0, 0, INT_MAX, false },
	{ IPPROTO_TCP, TCP_NOTSENT_LOWAT, 0, INT_MIN, INT_MAX, false },
	{ IPPROTO_IP, IP_TOS, 0, 0, 255, false }, { IPPROTO_IP, IP_TTL, 64, 1, 255, false },
	{ IPPROTO_IP, IP_MTU_DISCOVER, 1, 0, 5, false }, { IPPROTO_IP, IP_RECVERR, 0, 0, 1, true },
	{ IPPROTO_IPV6, IPV6_TCLASS, 0, -1, 255, false }, { IPPROTO_IPV6, IPV6_UNICAST_HOPS, 64, -1, 255, false },
	{ IPPROTO_IPV6, IPV6_RECVERR, 0, 0, 1, true },
};
#define KEPT_COUNT (sizeof kept_options / sizeof kept_options[0])
_Static_assert(KEPT_COUNT <= 32, "room in struct ffv_rs_options");

static int find_kept(int level, int name)
{
	for (size_t i = 0; i < KEPT_COUNT; i++)
		if (kept_options[i].level == level && kept_options[i].name == name)
			return (int)i;
	return -1;
}

/* ---- setting ------------------------------------------------------------------------------------------------------------------- */

static int take_int(const void *value, uint32_t length, int *out)
{
	if (length < sizeof *out)
		return ffv_fail(EINVAL, "the option is an int, not %u bytes", length);
	memcpy(out, value, sizeof *out);
	return 0;
}

static int take_timeout(const void *value, uint32_t length, uint64_t *out)
{
	struct timeval time;

	if (length < sizeof time)
		return ffv_fail(EINVAL, "the option is a struct timeval, not %u bytes", length);
	memcpy(&time, value, sizeof time);
	if (time.tv_usec < 0 || time.tv_usec >= 1000000)
		return ffv_fail(EDOM, "%ld microseconds are no part of a second", (long)time.tv_usec);
	*out = time.tv_sec < 0 ? 1 : (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_usec * 1000u;
	return 0;
}

static int take_linger(const void *value, uint32_t length, struct linger *out)
{
	if (length < sizeof *out)
		return ffv_fail(EINVAL, "the option is a struct linger, not %u bytes", length);
	memcpy(out, value, sizeof *out);
	out->l_onoff = out->l_onoff != 0;
	return 0;
}

static void set_ring(struct ffv_rs_socket *socket, int bytes)
{
	uint32_t wanted = bytes < (int)FFV_RS_RING_MIN ? FFV_RS_RING_MIN : (uint32_t)bytes;

	wanted = wanted > FFV_RS_RING_MAX ? FFV_RS_RING_MAX : wanted;
	if (!socket->stream.mr)
		socket->options.ring_bytes = (wanted + 4095u) & ~4095u;
}

static int set_kept(struct ffv_rs_socket *socket, int level, int name, int number)
{
	int index = find_kept(level, name);

	if (index < 0)
		return ffv_fail(ENOPROTOOPT, "option %d of level %d is not known", name, level);
	const struct kept *option = &kept_options[index];
	if (option->is_flag)
		number = number != 0;
	else if (number < option->least || number > option->most)
		return ffv_fail(EINVAL, "option %d of level %d cannot be %d", name, level, number);
	if (level == SOL_SOCKET && name == SO_SNDBUF)
		number = number < 2304 ? 4608 : number > INT_MAX / 2 ? INT_MAX : 2 * number;
	/* kept as a difference, so that zeroed memory holds what they are at first */
	socket->options.kept[index] = (int)((unsigned)number - (unsigned)option->initial);
	return 0;
}

static int set_number(struct ffv_rs_socket *socket, int level, int name, int number)
{
	struct ffv_rs_options *options = &socket->options;

	if (level == SOL_SOCKET && name == SO_REUSEADDR)
		options->reuse_addr = number != 0;
	else if (level == SOL_SOCKET && name == SO_RCVBUF)
		set_ring(socket, number);
	else if (level == SOL_SOCKET && name == SO_RCVLOWAT)
		options->receive_low_water = number > 0 ? number : number < 0 ? INT_MAX : 1;
	else if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY && socket->id)
		return ffv_fail(EINVAL, "whether a socket is for IPv6 only is said before it is bound");
	else if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY)
		options->v6_only = number != 0;
	else
		return set_kept(socket, level, name, number);
	if (name == SO_REUSEADDR && level == SOL_SOCKET && socket->id && socket->state == FFV_RS_IDLE)
		return ffv_cm_set_option(socket->id, FFV_OPTION_ID, FFV_OPTION_ID_REUSEADDR, &options->reuse_addr, sizeof(int));
	return 0;
}

int ffv_setsockopt(int fd, int level, int name, const void *value, uint32_t length)
{
	struct ffv_rs_socket *socket = ffv_rs_get(fd);
	int number = 0, rc;

	if (!socket)
		return -EBADF;
	pthread_mutex_lock(&socket->lock);
	if (!value)
		rc = ffv_fail(EFAULT, "no value for the option was given");
	else if (level == SOL_SOCKET && name == SO_LINGER)
		rc = take_linger(value, length, &socket->options.linger);
	else if (level == SOL_SOCKET && name == SO_RCVTIMEO)
		rc = take_timeout(value, length, &socket->options.receive_timeout_ns);
	else if (level == SOL_SOCKET && name == SO_SNDTIMEO)
		rc = take_timeout(value, length, &socket->options.send_timeout_ns);
	else if (level == IPPROTO_TCP && name == TCP_CONGESTION)
		rc = 0; /* there is no congestion to control */
	else
		rc = take_int(value, length, &number) ? -EINVAL : set_number(socket, level, name, number);
	pthread_mutex_unlock(&socket->lock);
	ffv_rs_put(socket);
	return rc;
}

/* TCP_USER_TIMEOUT: how long what was sent may stay unanswered, which takes so many times the queue pair's timeout. */
int ffv_rs_set_patience(struct ffv_rs_socket *socket)
{
	int index = find_kept(IPPROTO_TCP, TCP_USER_TIMEOUT);
	uint64_t wanted_ns = (uint64_t)(unsigned)socket->options.kept[index] * 1000000u;
	uint8_t exponent = 0;

	if (!wanted_ns)
		return 0;
	while (exponent < 31 && (FFV_RS_RETRIES + 1) * (4096ull << exponent) < wanted_ns)
		exponent++;
	return ffv_cm_set_option(socket->id, FFV_OPTION_ID, FFV_OPTION_ID_ACK_TIMEOUT, &exponent, sizeof exponent);
}

/* ---- getting ------------------------------------------------------------------------------------------------------------------- */

static int give(const void *from, uint32_t size, void *value, uint32_t *length)
{
	*length = *length < size ? *length : size;
	memcpy(value, from, *length);
	return 0;
}

static int give_timeout(uint64_t timeout_ns, void *value, uint32_t *length)
{
	struct timeval time = { (time_t)(timeout_ns / 1000000000u), (suseconds_t)(timeout_ns % 1000000000u / 1000u) };

	return give(&time, sizeof time, value, length);
}

static int give_info(struct ffv_rs_socket *socket, void *value, uint32_t *length)
{
	static const uint8_t states[] = { TCP_CLOSE, TCP_LISTEN, TCP_SYN_SENT, TCP_ESTABLISHED, TCP_CLOSE };
	struct tcp_info info = { .tcpi_state = states[socket->state] };

	if (socket->state == FFV_RS_CONNECTED) {
		if (socket->is_dead)
			info.tcpi_state = TCP_CLOSE;
		else if (socket->fin_arrived)
			info.tcpi_state = socket->fin_sent ? TCP_CLOSING : TCP_CLOSE_WAIT;
		else if (socket->fin_sent)
			info.tcpi_state = TCP_FIN_WAIT2;
		info.tcpi_snd_mss = info.tcpi_rcv_mss = FFV_RS_PIECE_BYTES;
		info.tcpi_rcv_space = socket->stream.ring_bytes;
		info.tcpi_snd_cwnd = socket->stream.peer_ring_bytes / FFV_RS_PIECE_BYTES;
	}
	return give(&info, sizeof info, value, length);
}

/* *out: the number. 1: it is one of those. */
static int number_of(struct ffv_rs_socket *socket, int level, int name, int *out)
{
	const struct ffv_rs_options *options = &socket->options;
	int index = find_kept(level, name);

	if (index >= 0) {
		*out = (int)((unsigned)options->kept[index] + (unsigned)kept_options[index].initial);
		return 1;
	}
	if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY) {
		*out = options->v6_only;
		return 1;
	}
	if (level == IPPROTO_TCP && name == TCP_MAXSEG) {
		*out = (int)FFV_RS_PIECE_BYTES;
		return 1;
	}
	if (level != SOL_SOCKET)
		return 0;
	switch (name) {
	case SO_ERROR: *out = ffv_rs_take_error(socket); ffv_rs_show(socket); return 1;
	case SO_TYPE: *out = socket->is_datagram ? SOCK_DGRAM : SOCK_STREAM; return 1;
	case SO_DOMAIN: *out = socket->domain; return 1;
	case SO_PROTOCOL: *out = socket->is_datagram ? IPPROTO_UDP : IPPROTO_TCP; return 1;
	case SO_ACCEPTCONN: *out = socket->state == FFV_RS_LISTENING; return 1;
	case SO_REUSEADDR: *out = options->reuse_addr; return 1;
	case SO_RCVBUF: *out = (int)options->ring_bytes; return 1;
	case SO_RCVLOWAT: *out = options->receive_low_water; return 1;
	case SO_SNDLOWAT: *out = 1; return 1;
	default: return 0;
	}
}

int ffv_getsockopt(int fd, int level, int name, void *value, uint32_t *length)
{
	struct ffv_rs_socket *socket = ffv_rs_get(fd);
	int number = 0, rc;

	if (!socket)
		return -EBADF;
	pthread_mutex_lock(&socket->lock);
	if (!length || (!value && *length))
		rc = ffv_fail(EFAULT, "no place for the option was given");
	else if ((int)*length < 0)
		rc = ffv_fail(EINVAL, "a length of %d", (int)*length);
	else if (level == SOL_SOCKET && name == SO_LINGER)
		rc = give(&socket->options.linger, sizeof socket->options.linger, value, length);
	else if (level == SOL_SOCKET && name == SO_RCVTIMEO)
		rc = give_timeout(socket->options.receive_timeout_ns, value, length);
	else if (level == SOL_SOCKET && name == SO_SNDTIMEO)
		rc = give_timeout(socket->options.send_timeout_ns, value, length);
	else if (level == IPPROTO_TCP && name == TCP_INFO)
		rc = give_info(socket, value, length);
	else if (level == IPPROTO_TCP && name == TCP_CONGESTION)
		rc = give("ffverbs", 8, value, length);
	else if (number_of(socket, level, name, &number))
		rc = give(&number, sizeof number, value, length);
	else
		rc = ffv_fail(ENOPROTOOPT, "option %d of level %d is not known", name, level);
	pthread_mutex_unlock(&socket->lock);
	ffv_rs_put(socket);
	return rc;
}

/* ---- those of UDP sockets of the kernel that one of ours is beside of ------------------------------------------------------------ */

int ffv_datagrams_allow(int level, int name)
{
	static const struct { int level, name; } allowed[] = {
		{ SOL_SOCKET, SO_REUSEADDR }, { SOL_SOCKET, SO_REUSEPORT }, { SOL_SOCKET, SO_RCVBUF }, { SOL_SOCKET, SO_SNDBUF },
		{ SOL_SOCKET, SO_RCVBUFFORCE }, { SOL_SOCKET, SO_SNDBUFFORCE }, { SOL_SOCKET, SO_RCVTIMEO },
		{ SOL_SOCKET, SO_SNDTIMEO }, { SOL_SOCKET, SO_BROADCAST }, { SOL_SOCKET, SO_PRIORITY }, { SOL_SOCKET, SO_KEEPALIVE },
		{ SOL_SOCKET, SO_DONTROUTE }, { SOL_SOCKET, SO_LINGER }, { SOL_SOCKET, SO_OOBINLINE }, { SOL_SOCKET, SO_BUSY_POLL },
		{ SOL_SOCKET, SO_INCOMING_CPU }, { SOL_SOCKET, SO_MARK }, { SOL_SOCKET, SO_NO_CHECK }, { SOL_SOCKET, SO_DEBUG },
		{ SOL_SOCKET, SO_RCVLOWAT },
		{ IPPROTO_IP, IP_TOS }, { IPPROTO_IP, IP_TTL }, { IPPROTO_IP, IP_MTU_DISCOVER }, { IPPROTO_IP, IP_FREEBIND },
		{ IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT },
		/* groups, which the kernel's socket receives */
		{ IPPROTO_IP, IP_MULTICAST_IF }, { IPPROTO_IP, IP_MULTICAST_TTL }, { IPPROTO_IP, IP_MULTICAST_LOOP },
		{ IPPROTO_IP, IP_MULTICAST_ALL }, { IPPROTO_IP, IP_ADD_MEMBERSHIP }, { IPPROTO_IP, IP_DROP_MEMBERSHIP },
		{ IPPROTO_IP, MCAST_JOIN_GROUP }, { IPPROTO_IP, MCAST_LEAVE_GROUP },
		{ IPPROTO_IPV6, IPV6_MULTICAST_IF }, { IPPROTO_IPV6, IPV6_MULTICAST_HOPS }, { IPPROTO_IPV6, IPV6_MULTICAST_LOOP },
		{ IPPROTO_IPV6, IPV6_JOIN_GROUP }, { IPPROTO_IPV6, IPV6_LEAVE_GROUP }, { IPPROTO_IPV6, MCAST_JOIN_GROUP },
		{ IPPROTO_IPV6, MCAST_LEAVE_GROUP },
		{ IPPROTO_IPV6, IPV6_V6ONLY }, { IPPROTO_IPV6, IPV6_TCLASS }, { IPPROTO_IPV6, IPV6_UNICAST_HOPS },
		{ IPPROTO_IPV6, IPV6_MTU_DISCOVER },
	};

	for (size_t i = 0; i < sizeof allowed / sizeof allowed[0]; i++)
		if (allowed[i].level == level && allowed[i].name == name)
			return 1;
	return 0;
}

/* ---- the rest -------------------------------------------------------------------------------------------------------------------- */

static int count_bytes(struct ffv_rs_socket *socket, unsigned long request)
{
	const struct ffv_rs_stream *stream = &socket->stream;

	ffv_rs_progress(socket);
	if (socket->is_datagram)
		return request == FIONREAD ? ffv_rs_next_length(socket) : 0;
	if (request == FIONREAD)
		return (int)(ffv_load_relaxed(&stream->arrived_bytes) - ffv_load_relaxed(&stream->read_bytes));
	return (int)(stream->stage_posted - stream->stage_completed);
}

int ffv_socket_ioctl(int fd, unsigned long request, void *arg)
{
	struct ffv_rs_socket *socket = ffv_rs_get(fd);
	int rc = 0;

	if (!socket)
		return -EBADF;
	pthread_mutex_lock(&socket->lock);
	if (!arg)
		rc = ffv_fail(EFAULT, "no argument was given");
	else if (request == FIONBIO)
		ffv_store_relaxed(&socket->non_blocking, *(int *)arg != 0);
	else if (request != FIONREAD && request != SIOCOUTQ)
		rc = ffv_fail(ENOTTY, "request %#lx is not supported", request);
	else if (socket->state == FFV_RS_LISTENING)
		rc = ffv_fail(EINVAL, "a socket that listens holds no data");
	else
		*(int *)arg = count_bytes(socket, request);
	pthread_mutex_unlock(&socket->lock);
	ffv_rs_put(socket);
	return rc;
}

int ffv_socket_flags(int fd)
{
	struct ffv_rs_socket *socket = ffv_rs_get(fd);

	if (!socket)
		return -EBADF;
	int flags = O_RDWR | (ffv_load_relaxed(&socket->non_blocking) ? O_NONBLOCK : 0);
	ffv_rs_put(socket);
	return flags;
}

int ffv_socket_set_flags(int fd, int flags)
{
	struct ffv_rs_socket *socket = ffv_rs_get(fd);

	if (!socket)
		return -EBADF;
	ffv_store_relaxed(&socket->non_blocking, (flags & O_NONBLOCK) != 0);
	ffv_rs_put(socket);
	return 0;
}

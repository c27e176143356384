/* For C tests of stream sockets: pairs of them, and bytes that can be checked at their place. */
#ifndef FFV_TESTS_RS_SUPPORT_H
#define FFV_TESTS_RS_SUPPORT_H

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include "cm_support.h"

static inline struct sockaddr_in rs_address(const char *text, uint16_t port)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(port) };

	CHECK_EQ(inet_pton(AF_INET, text, &addr.sin_addr), 1);
	return addr;
}

static inline int rs_new(int flags)
{
	int fd = ffv_socket(AF_INET, SOCK_STREAM | flags, 0);

	CHECK(fd >= 0);
	return fd;
}

/* A listener at a port of the library's choice, which *addr gets. */
static inline int rs_listener(struct sockaddr_in *addr)
{
	int fd = rs_new(SOCK_CLOEXEC);
	uint32_t length = sizeof *addr;

	*addr = rs_address("127.0.0.1", 0);
	CHECK_OK(ffv_bind(fd, (struct sockaddr *)addr, sizeof *addr));
	CHECK_OK(ffv_listen(fd, 8));
	CHECK_OK(ffv_getsockname(fd, (struct sockaddr *)addr, &length));
	CHECK_EQ(length, sizeof *addr);
	CHECK(addr->sin_port != 0);
	return fd;
}

static inline void rs_pair(int pair[2])
{
	struct sockaddr_in addr;
	int listener = rs_listener(&addr);

	pair[0] = rs_new(0);
	CHECK_OK(ffv_connect(pair[0], (struct sockaddr *)&addr, sizeof addr));
	pair[1] = ffv_accept4(listener, NULL, NULL, 0);
	CHECK(pair[1] >= 0);
	CHECK_OK(ffv_close_socket(listener));
}

static inline uint8_t rs_byte(uint64_t seed, uint64_t position)
{
	uint64_t x = (position / 8 + seed) * 0x9e3779b97f4a7c15ull;

	return (uint8_t)((x ^ x >> 29) >> (8 * (position % 8)));
}

static inline void rs_fill(uint8_t *data, size_t length, uint64_t seed, uint64_t position)
{
	for (size_t i = 0; i < length; i++)
		data[i] = rs_byte(seed, position + i);
}

static inline void rs_check(const uint8_t *data, size_t length, uint64_t seed, uint64_t position)
{
	for (size_t i = 0; i < length; i++)
		if (data[i] != rs_byte(seed, position + i)) {
			fprintf(stderr, "byte %llu is wrong\n", (unsigned long long)(position + i));
			exit(1);
		}
}

#endif

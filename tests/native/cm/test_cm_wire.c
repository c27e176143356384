/* Messages: what is sent arrives, and what is no message is refused, field by field and at random. */
#include <errno.h>

#include "cm/wire.h"
#include "cm_support.h"

static int ends[2];

static struct ffv_cm_message request(void)
{
	struct ffv_cm_message message = { .kind = FFV_CM_REQ, .qpn = 0x123456, .qp_type = FFV_QPT_RC, .psn = 0xabcdef,
					  .port_space = FFV_PS_TCP, .retry_count = 7, .rnr_retry_count = 7, .mtu = 5,
					  .src.family = AF_INET6, .dst.family = AF_INET6, .private_data_len = 3 };

	memcpy(message.private_data, "abcdef", 6); /* more than is said to be there */
	return message;
}

static int pass(struct ffv_cm_message *message, struct ffv_cm_message *got)
{
	CHECK_OK(ffv_cm_send(ends[0], message));
	return ffv_cm_receive(ends[1], got);
}

static void test_a_message_arrives(void)
{
	struct ffv_cm_message sent = request(), got;

	CHECK_EQ(ffv_cm_receive(ends[1], &got), -EAGAIN);
	CHECK_EQ(pass(&sent, &got), 1);
	CHECK_EQ(memcmp(got.private_data, "abc\0\0\0", 6), 0);
	CHECK(got.qpn == sent.qpn && got.psn == sent.psn && got.kind == FFV_CM_REQ);
}

#define REFUSED(change)                                                         \
	do {                                                                    \
		struct ffv_cm_message bad = request(), got = { .kind = 99 };    \
		change;                                                         \
		CHECK_EQ(pass(&bad, &got), -EPROTO);                            \
		CHECK_EQ(got.kind, 99);                                         \
	} while (0)

static void test_wrong_fields(void)
{
	REFUSED(bad.kind = 0);
	REFUSED(bad.kind = FFV_CM_DREP + 1);
	REFUSED(bad.qp_type = 9);
	REFUSED(bad.qpn = 0x1000000);
	REFUSED(bad.psn = 0x1000000);
	REFUSED(bad.private_data_len = FFV_CM_CONNECT_DATA + 1);
	REFUSED(bad.kind = FFV_CM_REP; bad.private_data_len = FFV_CM_ACCEPT_DATA + 1);
	REFUSED(bad.kind = FFV_CM_RTU); /* has no private data */
	REFUSED(bad.src.family = 77);
	REFUSED(bad.dst.family = AF_INET); /* but not mapped */
	REFUSED(bad.retry_count = 8);
	REFUSED(bad.rnr_retry_count = 8);
	REFUSED(bad.mtu = 6);
}

static void raw(const void *bytes, size_t length, int expected)
{
	struct ffv_cm_message got;

	CHECK_EQ(send(ends[0], bytes, length, 0), (ssize_t)length);
	CHECK_EQ(ffv_cm_receive(ends[1], &got), expected);
}

static void test_wrong_sizes(void)
{
	char long_one[sizeof(struct ffv_cm_message) + 1] = { 0 };
	struct ffv_cm_message message = request(), copy;

	CHECK_EQ(pass(&message, &copy), 1);
	memcpy(long_one, &message, sizeof message); /* as it was sent: magic and version are right */
	raw(&message, sizeof message, 1);
	raw(long_one, sizeof long_one, -EPROTO);
	raw(&message, sizeof message - 1, -EPROTO);
	raw(&message, 1, -EPROTO);
	((char *)&message)[0] ^= 1;
	raw(&message, sizeof message, -EPROTO);
}

/* Whatever comes is refused, or is within the widths that the rest relies on. */
static void test_noise(unsigned seed)
{
	struct ffv_cm_message base = request(), got;
	uint32_t taken = 0;

	CHECK_EQ(pass(&base, &got), 1);
	srandom(seed);
	for (int n = 0; n < 20000; n++) {
		struct ffv_cm_message noise = base;
		for (int flips = 1 + (int)(random() % 3); flips; flips--)
			((uint8_t *)&noise)[(size_t)random() % sizeof noise] = (uint8_t)random();
		CHECK_EQ(send(ends[0], &noise, sizeof noise, 0), (ssize_t)sizeof noise);
		int rc = ffv_cm_receive(ends[1], &got);
		CHECK(rc == 1 || rc == -EPROTO);
		if (rc != 1)
			continue;
		taken++;
		CHECK(got.kind >= FFV_CM_REQ && got.kind <= FFV_CM_DREP && got.qpn <= 0xffffff && got.psn <= 0xffffff);
		CHECK(got.private_data_len <= ffv_cm_private_limit(got.kind, got.qp_type == FFV_QPT_UD));
		CHECK(got.retry_count <= 7 && got.rnr_retry_count <= 7 && got.mtu <= 5);
	}
	CHECK(taken > 100); /* most flips are in fields whose every value is one */
}

static void test_hang_up(void)
{
	struct ffv_cm_message message = request(), got;

	close(ends[0]);
	CHECK_EQ(ffv_cm_receive(ends[1], &got), 0);
	CHECK_FAIL(ffv_cm_send(ends[1], &message), EPIPE, "cannot be sent");
	close(ends[1]);
}

int main(void)
{
	unsigned seed = test_seed();

	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	test_a_message_arrives();
	test_wrong_fields();
	test_wrong_sizes();
	test_noise(seed);
	test_hang_up();
	return 0;
}

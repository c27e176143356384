/* A process that does what it is told, one command a line on standard input, one answer a line on standard output: the
 * crash tests (tests/crash) let several of them meet, die, stop and misbehave.
 *
 * A command is a word and KEY=VALUE pairs; numbers may be decimal or 0x. An answer is "ok ..." or "err ERRNO TEXT".
 * Objects are named by small numbers that the test chooses. Bytes are checked by a pattern of (seed, offset). */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <ffverbs/ffv.h>

#include "actor_hostile.h"
#include "base/atomics.h"
#include "base/clock.h"
#include "base/fault.h"

#define SLOTS 64u
#define MOST_WCS 4096
#define QKEY 0x1234u

struct memory { struct ffv_mr *mr; uint8_t *at; size_t length; void *mapped; size_t mapped_bytes; };

static struct ffv_context *ctx;
static struct ffv_pd *pd;
static struct ffv_comp_channel *channel;
static struct ffv_cq *cqs[SLOTS];
static struct ffv_srq *srqs[SLOTS];
static struct ffv_xrcd *xrcd;      /* of the file domain=PATH, or one of nobody else's, opened when it is needed */
static struct ffv_qp *qps[SLOTS];
static struct ffv_ah *ahs[SLOTS];
static struct memory memories[SLOTS];

static char line[1 << 16];
static char *words[64];
static int num_words;

/* ---- arguments and answers --------------------------------------------------------------------------------------------- */

static const char *text_of(const char *key)
{
	size_t length = strlen(key);

	for (int i = 1; i < num_words; i++)
		if (!strncmp(words[i], key, length) && words[i][length] == '=')
			return words[i] + length + 1;
	return NULL;
}

static uint64_t number_of(const char *key, uint64_t otherwise)
{
	const char *text = text_of(key);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

static uint32_t slot_of(const char *key)
{
	uint64_t slot = number_of(key, 0);

	if (slot >= SLOTS)
		abort();
	return (uint32_t)slot;
}

static bool is_said(const char *word)
{
	return !strcmp(words[0], word);
}

__attribute__((format(printf, 2, 3))) static void answer(int rc, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (rc < 0) {
		printf("err %d %s", -rc, ffv_error_text());
	} else {
		printf("ok ");
		vprintf(format, args);
	}
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

/* ---- memory ------------------------------------------------------------------------------------------------------------------ */

static uint8_t pattern(uint64_t seed, uint64_t offset)
{
	uint64_t x = (offset / 8 + 1) * 0x9e3779b97f4a7c15ull ^ (seed + 1) * 0xbf58476d1ce4e5b9ull;

	x ^= x >> 31;
	return (uint8_t)(x >> (offset % 8 * 8));
}

static void fill(void)
{
	struct memory *memory = &memories[slot_of("mr")];
	uint64_t offset = number_of("off", 0), length = number_of("len", memory->length), seed = number_of("seed", 0);

	for (uint64_t i = 0; i < length; i++)
		memory->at[offset + i] = pattern(seed, i);
	answer(0, " ");
}

static void check(void)
{
	struct memory *memory = &memories[slot_of("mr")];
	uint64_t offset = number_of("off", 0), length = number_of("len", memory->length), seed = number_of("seed", 0);
	uint64_t i = 0;

	while (i < length && memory->at[offset + i] == pattern(seed, i))
		i++;
	answer(0, "%lld", i == length ? -1ll : (long long)i);
}

/* kind=alloc: the engine's; file: a mapping of a file, which cannot stand in the mirror. */
static void make_memory(void)
{
	struct memory *memory = &memories[slot_of("mr")];
	const uint32_t access = FFV_ACCESS_LOCAL_WRITE | FFV_ACCESS_REMOTE_WRITE | FFV_ACCESS_REMOTE_READ |
				FFV_ACCESS_REMOTE_ATOMIC;
	const char *kind = text_of("kind");
	int rc;

	memory->length = number_of("len", 4096);
	if (kind && !strcmp(kind, "file")) {
		int fd = memfd_create("test-file", MFD_CLOEXEC);
		if (fd < 0 || ftruncate(fd, (off_t)memory->length))
			abort();
		memory->mapped_bytes = memory->length;
		memory->mapped = mmap(NULL, memory->length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		close(fd);
		if (memory->mapped == MAP_FAILED)
			abort();
		rc = ffv_reg_mr(pd, memory->mapped, memory->length, (uintptr_t)memory->mapped, access, &memory->mr);
	} else {
		rc = ffv_alloc_mr(pd, memory->length, access, &memory->mr);
	}
	if (!rc)
		memory->at = memory->mr->addr;
	answer(rc, "%llu %u", (unsigned long long)(uintptr_t)memory->at, rc ? 0 : memory->mr->rkey);
}

static void drop_memory(void)
{
	struct memory *memory = &memories[slot_of("mr")];
	int rc = ffv_dereg_mr(memory->mr);

	if (!rc && memory->mapped)
		munmap(memory->mapped, memory->mapped_bytes);
	if (!rc)
		memset(memory, 0, sizeof *memory);
	answer(rc, " ");
}

static void word64(void)
{
	_Atomic uint64_t *word = (_Atomic uint64_t *)(void *)(memories[slot_of("mr")].at + number_of("off", 0));

	if (text_of("value"))
		ffv_store_seq_cst(word, number_of("value", 0));
	answer(0, "%llu", (unsigned long long)ffv_load_seq_cst(word));
}

/* ---- contexts and queues ------------------------------------------------------------------------------------------------ */

static void print_gid(const struct ffv_gid *gid, char *out)
{
	for (int i = 0; i < 16; i++)
		sprintf(out + 2 * i, "%02x", gid->raw[i]);
}

static void open_all(void)
{
	struct ffv_gid gid;
	char text[33] = "";
	int rc = ffv_open_device(NULL, &ctx);

	if (!rc)
		rc = ffv_alloc_pd(ctx, &pd);
	if (!rc)
		rc = ffv_create_comp_channel(ctx, &channel);
	if (!rc)
		rc = ffv_query_gid(ctx, 1, 1, &gid);
	if (!rc) {
		print_gid(&gid, text);
		fcntl(ffv_async_fd(ctx), F_SETFL, fcntl(ffv_async_fd(ctx), F_GETFL) | O_NONBLOCK);
		fcntl(ffv_comp_channel_fd(channel), F_SETFL,
		      fcntl(ffv_comp_channel_fd(channel), F_GETFL) | O_NONBLOCK);
	}
	answer(rc, "%s", text);
}

/* Opens another context for a moment: which QP numbers does it get? */
static void probe_block(void)
{
	struct ffv_context *other;
	struct ffv_pd *domain;
	struct ffv_cq *cq;
	struct ffv_qp *qp;
	int rc = ffv_open_device(NULL, &other);

	if (rc) {
		answer(rc, " ");
		return;
	}
	if (ffv_alloc_pd(other, &domain) || ffv_create_cq(other, 4, NULL, NULL, 0, &cq))
		abort();
	struct ffv_qp_init_attr attr = { .send_cq = cq, .recv_cq = cq, .qp_type = FFV_QPT_RC,
					 .cap = { 1, 1, 1, 1, 0 } };
	if (ffv_create_qp(domain, &attr, &qp))
		abort();
	uint32_t number = ffv_qp_num(qp);
	if (ffv_destroy_qp(qp) || ffv_destroy_cq(cq) || ffv_dealloc_pd(domain))
		abort();
	rc = ffv_close_device(other);
	answer(rc, "%u", number);
}

static void make_queue(void)
{
	uint32_t slot = slot_of("cq");

	answer(ffv_create_cq(ctx, (int)number_of("cqe", 256), NULL, channel, 0, &cqs[slot]), " ");
}

static void make_srq(void)
{
	struct ffv_srq_init_attr attr = { .attr = { .max_wr = (uint32_t)number_of("wr", 64), .max_sge = 1 } };

	answer(ffv_create_srq(pd, &attr, &srqs[slot_of("srq")]), " ");
}

static int need_domain(void)
{
	const char *path = text_of("domain");
	struct ffv_xrcd_init_attr attr = { FFV_XRCD_INIT_ATTR_FD | FFV_XRCD_INIT_ATTR_OFLAGS, -1, O_CREAT };

	if (xrcd)
		return 0;
	attr.fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	int rc = ffv_open_xrcd(ctx, &attr, &xrcd);
	if (attr.fd >= 0)
		close(attr.fd);
	return rc;
}

static void make_xrc_srq(void)
{
	uint32_t slot = slot_of("srq");
	int rc = need_domain();
	struct ffv_srq_init_attr_ex attr = {
		.attr = { .max_wr = (uint32_t)number_of("wr", 64), .max_sge = 1 }, .srq_type = FFV_SRQT_XRC, .pd = pd,
		.xrcd = xrcd, .cq = cqs[slot_of("cq")],
		.comp_mask = FFV_SRQ_INIT_ATTR_TYPE | FFV_SRQ_INIT_ATTR_PD | FFV_SRQ_INIT_ATTR_XRCD | FFV_SRQ_INIT_ATTR_CQ,
	};

	if (!rc)
		rc = ffv_create_srq_ex(ctx, &attr, &srqs[slot]);
	answer(rc, "%u", rc ? 0 : ffv_srq_num(srqs[slot]));
}

static void make_tag_srq(void)
{
	struct ffv_srq_init_attr_ex attr = {
		.attr = { .max_wr = (uint32_t)number_of("wr", 64), .max_sge = 1 }, .srq_type = FFV_SRQT_TM, .pd = pd,
		.cq = cqs[slot_of("cq")], .tm_cap = { 16, 16 },
		.comp_mask = FFV_SRQ_INIT_ATTR_TYPE | FFV_SRQ_INIT_ATTR_PD | FFV_SRQ_INIT_ATTR_CQ | FFV_SRQ_INIT_ATTR_TM,
	};

	answer(ffv_create_srq_ex(ctx, &attr, &srqs[slot_of("srq")]), " ");
}

static struct ffv_sge sge_of(uint64_t index);

/* op=0 adds, op=1 deletes, op=2 synchronises. */
static void operate_on_tags(void)
{
	bool adds = text_of("mr") != NULL;
	struct ffv_sge sge = adds ? sge_of(0) : (struct ffv_sge){ 0 };
	struct ffv_ops_wr wr = { .wr_id = number_of("id", 0), .opcode = (uint32_t)number_of("op", 0),
				 .flags = (int)number_of("flags", 0),
				 .tm = { .unexpected_cnt = (uint32_t)number_of("seen", 0),
					 .add = { .recv_wr_id = number_of("id", 0), .sg_list = &sge, .num_sge = adds,
						  .tag = number_of("tag", 0), .mask = UINT64_MAX } } };

	answer(ffv_post_srq_ops(srqs[slot_of("srq")], &wr, NULL), " ");
}

/* Begins a message with a tag's header. */
static void write_header(void)
{
	struct ffv_tmh header = { .opcode = (uint8_t)number_of("op", FFV_TMH_EAGER), .tag_be = htobe64(number_of("tag", 0)) };

	memcpy(memories[slot_of("mr")].at + number_of("off", 0), &header, sizeof header);
	answer(0, " ");
}

static void resize_srq(void)
{
	struct ffv_srq_attr attr = { .max_wr = (uint32_t)number_of("wr", 64) };

	answer(ffv_modify_srq(srqs[slot_of("srq")], &attr, FFV_SRQ_MAX_WR), " ");
}

static uint32_t type_said(void)
{
	static const struct { const char *name; uint32_t type; } types[] = {
		{ "rc", FFV_QPT_RC }, { "uc", FFV_QPT_UC }, { "ud", FFV_QPT_UD }, { "xrc_send", FFV_QPT_XRC_SEND },
		{ "xrc_recv", FFV_QPT_XRC_RECV },
	};
	const char *said = text_of("type");

	for (size_t i = 0; said && i < sizeof types / sizeof *types; i++)
		if (!strcmp(said, types[i].name))
			return types[i].type;
	return FFV_QPT_RC;
}

static void make_qp(void)
{
	uint32_t depth = (uint32_t)number_of("wr", 64), slot = slot_of("qp"), type = type_said();
	int rc = type == FFV_QPT_XRC_RECV ? need_domain() : 0;
	struct ffv_qp_init_attr_ex attr = {
		.send_cq = cqs[slot_of("cq")], .recv_cq = cqs[slot_of("cq")],
		.srq = text_of("srq") ? srqs[slot_of("srq")] : NULL, .cap = { depth, depth, 1, 1, 64 }, .qp_type = type,
		.comp_mask = type == FFV_QPT_XRC_RECV ? FFV_QP_INIT_ATTR_XRCD : FFV_QP_INIT_ATTR_PD, .pd = pd, .xrcd = xrcd,
	};

	if (!rc)
		rc = ffv_create_qp_ex(ctx, &attr, &qps[slot]);
	answer(rc, "%u", rc ? 0 : ffv_qp_num(qps[slot]));
}

static void read_gid(uint8_t raw[16])
{
	const char *text = text_of("gid");

	for (int i = 0; i < 16; i++) {
		unsigned byte = 0;
		sscanf(text + 2 * i, "%2x", &byte);
		raw[i] = (uint8_t)byte;
	}
}

static struct ffv_ah_attr address(void)
{
	struct ffv_ah_attr av = { .is_global = 1, .port_num = 1, .grh = { .hop_limit = 64, .sgid_index = 1 } };
	uint8_t raw[16];

	read_gid(raw);
	memcpy(&av.grh.dgid_subnet_prefix_be, raw, 8);
	memcpy(&av.grh.dgid_interface_id_be, raw + 8, 8);
	return av;
}

static int to_init(struct ffv_qp *qp, bool ud)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_INIT, .port_num = 1, .qkey = QKEY,
				    .qp_access_flags = FFV_ACCESS_REMOTE_WRITE | FFV_ACCESS_REMOTE_READ |
						       FFV_ACCESS_REMOTE_ATOMIC };

	return ffv_modify_qp(qp, &attr, FFV_QP_STATE | FFV_QP_PKEY_INDEX | FFV_QP_PORT |
			     (ud ? FFV_QP_QKEY : FFV_QP_ACCESS_FLAGS));
}

static int to_rtr(struct ffv_qp *qp, uint32_t type)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_RTR, .path_mtu = 5, .ah_attr = address(),
				    .dest_qp_num = (uint32_t)number_of("rqpn", 0), .max_dest_rd_atomic = 16,
				    .min_rnr_timer = (uint8_t)number_of("rnr_timer", 12) };

	return ffv_modify_qp(qp, &attr, FFV_QP_STATE | FFV_QP_AV | FFV_QP_PATH_MTU | FFV_QP_DEST_QPN | FFV_QP_RQ_PSN |
			     (type == FFV_QPT_RC || type == FFV_QPT_XRC_RECV ? FFV_QP_MAX_DEST_RD_ATOMIC | FFV_QP_MIN_RNR_TIMER
									     : 0));
}

static int to_rts(struct ffv_qp *qp, uint32_t type)
{
	bool sends = type == FFV_QPT_RC || type == FFV_QPT_XRC_SEND;
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_RTS, .timeout = (uint8_t)number_of("timeout", 14),
				    .retry_cnt = (uint8_t)number_of("retry", 7),
				    .rnr_retry = (uint8_t)number_of("rnr", 7), .max_rd_atomic = 16 };

	return ffv_modify_qp(qp, &attr, FFV_QP_STATE | FFV_QP_SQ_PSN |
			     (sends || type == FFV_QPT_XRC_RECV ? FFV_QP_TIMEOUT : 0) |
			     (sends ? FFV_QP_RETRY_CNT | FFV_QP_RNR_RETRY | FFV_QP_MAX_QP_RD_ATOMIC : 0));
}

static void connect_qp(void)
{
	struct ffv_qp *qp = qps[slot_of("qp")];
	uint32_t type = type_said();
	int rc = to_init(qp, false);

	if (!rc)
		rc = to_rtr(qp, type);
	if (!rc)
		rc = to_rts(qp, type);
	answer(rc, " ");
}

static void ready_ud(void)
{
	struct ffv_qp *qp = qps[slot_of("qp")];
	struct ffv_qp_attr rtr = { .qp_state = FFV_QPS_RTR }, rts = { .qp_state = FFV_QPS_RTS };
	int rc = to_init(qp, true);

	if (!rc)
		rc = ffv_modify_qp(qp, &rtr, FFV_QP_STATE);
	if (!rc)
		rc = ffv_modify_qp(qp, &rts, FFV_QP_STATE | FFV_QP_SQ_PSN);
	answer(rc, " ");
}

static void make_address(void)
{
	struct ffv_ah_attr av = address();

	answer(ffv_create_ah(pd, &av, &ahs[slot_of("ah")]), " ");
}

/* leave=1: out of the group again. */
static void join_group(void)
{
	struct ffv_qp *qp = qps[slot_of("qp")];
	struct ffv_gid gid;

	read_gid(gid.raw);
	answer(number_of("leave", 0) ? ffv_detach_mcast(qp, &gid, 0) : ffv_attach_mcast(qp, &gid, 0), " ");
}

/* ---- work requests ---------------------------------------------------------------------------------------------------------- */

static struct ffv_sge sge_of(uint64_t index)
{
	const struct memory *memory = &memories[slot_of("mr")];
	uint32_t length = (uint32_t)number_of("len", 64);

	return (struct ffv_sge){ (uintptr_t)memory->at + number_of("off", 0) + index * number_of("step", 0), length,
				 memory->mr->lkey };
}

static void post_sends(void)
{
	uint64_t count = number_of("n", 1), first = number_of("id", 0);
	struct ffv_send_wr *wrs = calloc(count, sizeof *wrs), *bad;
	struct ffv_sge *sges = calloc(count, sizeof *sges);

	for (uint64_t i = 0; i < count; i++) {
		struct ffv_send_wr *wr = &wrs[i];
		sges[i] = sge_of(i);
		*wr = (struct ffv_send_wr){ .wr_id = first + i, .next = i + 1 < count ? wr + 1 : NULL, .sg_list = &sges[i],
					    .num_sge = 1, .opcode = (uint32_t)number_of("op", FFV_WR_SEND),
					    .send_flags = (uint32_t)number_of("flags", FFV_SEND_SIGNALED),
					    .imm_data_be = (uint32_t)number_of("imm", 0),
					    .xrc_remote_srqn = (uint32_t)number_of("srqn", 0) };
		uint64_t remote = number_of("raddr", 0) + i * number_of("step", 0);
		if (text_of("ah"))
			wr->wr.ud = (struct ffv_wr_ud){ ahs[slot_of("ah")], (uint32_t)number_of("rqpn", 0), QKEY };
		else if (wr->opcode == FFV_WR_ATOMIC_CMP_AND_SWP || wr->opcode == FFV_WR_ATOMIC_FETCH_AND_ADD)
			wr->wr.atomic = (struct ffv_wr_atomic){ remote, number_of("add", 0), number_of("swap", 0),
								(uint32_t)number_of("rkey", 0) };
		else
			wr->wr.rdma = (struct ffv_wr_rdma){ remote, (uint32_t)number_of("rkey", 0) };
	}
	answer(ffv_post_send(qps[slot_of("qp")], wrs, &bad), " ");
	free(sges);
	free(wrs);
}

static void post_receives(void)
{
	uint64_t count = number_of("n", 1), first = number_of("id", 0);
	struct ffv_recv_wr *wrs = calloc(count, sizeof *wrs), *bad;
	struct ffv_sge *sges = calloc(count, sizeof *sges);

	for (uint64_t i = 0; i < count; i++) {
		sges[i] = sge_of(i);
		wrs[i] = (struct ffv_recv_wr){ .wr_id = first + i, .next = i + 1 < count ? &wrs[i + 1] : NULL,
					       .sg_list = &sges[i], .num_sge = 1 };
	}
	int rc = text_of("srq") ? ffv_post_srq_recv(srqs[slot_of("srq")], wrs, &bad)
				: ffv_post_recv(qps[slot_of("qp")], wrs, &bad);
	answer(rc, " ");
	free(sges);
	free(wrs);
}

/* ---- completions and events ------------------------------------------------------------------------------------------------- */

/* Arms, looks again, sleeps on the channel: as programs do. */
static int wait_for_event(struct ffv_cq *cq, struct ffv_wc *wc, int most, uint64_t deadline_ns)
{
	struct pollfd ask = { .fd = ffv_comp_channel_fd(channel), .events = POLLIN };
	uint64_t now = ffv_clock_ns();
	struct ffv_cq *which;
	void *context;

	int n = ffv_req_notify_cq(cq, 0);
	if (!n)
		n = ffv_poll_cq(cq, most, wc);
	if (n || now >= deadline_ns)
		return n;
	poll(&ask, 1, (int)((deadline_ns - now) / 1000000) + 1);
	while (ffv_get_cq_event(channel, &which, &context) == 0)
		ffv_ack_cq_events(which, 1);
	return 0;
}

/* Collects completions until there are n, or ms milliseconds have passed. The answer says how long it took. */
static void wait_completions(void)
{
	static struct ffv_wc wc[MOST_WCS];
	struct ffv_cq *cq = cqs[slot_of("cq")];
	int want = (int)number_of("n", 1), have = 0;
	bool events = number_of("events", 0);
	uint64_t began = ffv_clock_ns(), deadline = began + number_of("ms", 1000) * 1000000;

	while (have < want) {
		int n = ffv_poll_cq(cq, want - have, wc + have);
		if (!n && events)
			n = wait_for_event(cq, wc + have, want - have, deadline);
		if (n < 0) {
			answer(n, " ");
			return;
		}
		have += n;
		if (!n && ffv_clock_ns() > deadline)
			break;
		if (!n)
			sched_yield();
	}
	printf("ok %llu", (unsigned long long)((ffv_clock_ns() - began) / 1000000));
	for (int i = 0; i < have; i++)
		printf(" %llu:%u:%u:%u:%u:%u:%u", (unsigned long long)wc[i].wr_id, wc[i].status, wc[i].opcode, wc[i].qp_num,
		       wc[i].byte_len, wc[i].imm_data_be, wc[i].src_qp);
	putchar('\n');
	fflush(stdout);
}

static void notify(void)
{
	answer(ffv_req_notify_cq(cqs[slot_of("cq")], 0), " ");
}

static void wait_async(void)
{
	struct pollfd ask = { .fd = ffv_async_fd(ctx), .events = POLLIN };
	struct ffv_async_event event;

	if (poll(&ask, 1, (int)number_of("ms", 0)) < 1 || ffv_get_async_event(ctx, &event)) {
		answer(0, "none");
		return;
	}
	answer(0, "%u %u %u", event.event_type, event.element_kind,
	       event.element_kind == 2 ? ffv_qp_num(event.element) : 0);
	ffv_ack_async_event(ctx, &event);
}

/* ---- ends ---------------------------------------------------------------------------------------------------------------------- */

static void destroy_all(void)
{
	int rc = 0;

	for (uint32_t i = 0; i < SLOTS && !rc; i++) {
		rc = qps[i] ? ffv_destroy_qp(qps[i]) : 0;
		qps[i] = NULL;
	}
	for (uint32_t i = 0; i < SLOTS && !rc; i++) {
		rc = srqs[i] ? ffv_destroy_srq(srqs[i]) : 0;
		srqs[i] = NULL;
	}
	for (uint32_t i = 0; i < SLOTS && !rc; i++) {
		rc = cqs[i] ? ffv_destroy_cq(cqs[i]) : 0;
		rc = !rc && ahs[i] ? ffv_destroy_ah(ahs[i]) : rc;
		rc = !rc && memories[i].mr ? ffv_dereg_mr(memories[i].mr) : rc;
	}
	if (!rc && xrcd)
		rc = ffv_close_xrcd(xrcd);
	if (!rc)
		rc = ffv_destroy_comp_channel(channel);
	if (!rc)
		rc = ffv_dealloc_pd(pd);
	if (!rc)
		rc = ffv_close_device(ctx);
	answer(rc, " ");
}

static void destroy_one(void)
{
	uint32_t slot;
	int rc = 0;

	if (text_of("qp")) {
		rc = ffv_destroy_qp(qps[slot = slot_of("qp")]);
		qps[slot] = NULL;
	} else if (text_of("srq")) {
		rc = ffv_destroy_srq(srqs[slot = slot_of("srq")]);
		srqs[slot] = NULL;
	} else if (text_of("cq")) {
		rc = ffv_destroy_cq(cqs[slot = slot_of("cq")]);
		cqs[slot] = NULL;
	} else if (text_of("ah")) {
		rc = ffv_destroy_ah(ahs[slot = slot_of("ah")]);
		ahs[slot] = NULL;
	}
	answer(rc, " ");
}

static void to_error(void)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_ERR };

	answer(ffv_modify_qp(qps[slot_of("qp")], &attr, FFV_QP_STATE), " ");
}

static void arm(void)
{
#if FFV_FAULTS
	answer(ffv_fault_arm(text_of("fault")), " ");
#else
	answer(-ENOSYS, " ");
#endif
}

static void list_faults(void)
{
	static const char *const names[] = {
#define FAULT_NAME(name, what) #name,
		FFV_FAULT_POINTS(FAULT_NAME)
#undef FAULT_NAME
	};

	printf("ok");
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		printf(" %s", names[i]);
	putchar('\n');
	fflush(stdout);
}

static void tell_state(void)
{
	answer(0, "%u", ffv_qp_state(qps[slot_of("qp")]));
}

static void misbehave(void)
{
	answer(actor_scribble(ctx, text_of("where"), number_of("seed", 0), (unsigned)number_of("n", 1)), " ");
}

static void deny(void)
{
	answer(actor_deny_process_vm(), " ");
}

/* ---- the loop --------------------------------------------------------------------------------------------------------------------- */

static const struct { const char *word; void (*body)(void); } commands[] = {
	{ "open", open_all }, { "probe_block", probe_block }, { "cq", make_queue }, { "srq", make_srq },
	{ "xrc_srq", make_xrc_srq }, { "resize", resize_srq },
	{ "tag_srq", make_tag_srq }, { "tag", operate_on_tags }, { "tmh", write_header },
	{ "mr", make_memory }, { "dereg", drop_memory }, { "fill", fill }, { "check", check }, { "word", word64 },
	{ "qp", make_qp }, { "connect", connect_qp }, { "ud", ready_ud }, { "ah", make_address },
	{ "mcast", join_group },
	{ "send", post_sends }, { "recv", post_receives }, { "wait", wait_completions }, { "notify", notify }, { "async", wait_async },
	{ "state", tell_state }, { "error", to_error }, { "destroy", destroy_one }, { "close", destroy_all },
	{ "arm", arm }, { "faults", list_faults }, { "scribble", misbehave }, { "deny_vm", deny },
};

int main(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* also while stopped: nothing is left behind when the test is killed */
	while (fgets(line, sizeof line, stdin)) {
		size_t i = 0;

		num_words = 0;
		for (char *rest = line, *word; num_words < 64 && (word = strsep(&rest, " \n"));)
			if (*word)
				words[num_words++] = word;
		if (!num_words)
			continue;
		while (i < sizeof commands / sizeof *commands && !is_said(commands[i].word))
			i++;
		if (i == sizeof commands / sizeof *commands) {
			fprintf(stderr, "actor: unknown command %s\n", words[0]);
			return 2;
		}
		commands[i].body();
	}
	return 0;
}

/* The datagrams of a stress process: one UD queue pair, on the first worker's queue, to and from everybody. A datagram
 * says itself what it must be; that some are lost is no error, that one comes twice or late is. Worker lock held. */
#include <string.h>

#include "stress.h"

#define QKEY 0x4242u
#define GRH 40u
#define LARGEST 2048u
#define RECEIVES 32u
#define PEERS 16u
#define SOURCES 4096u
#define GONE UINT32_MAX /* its queue pair number is a later sender's */

/* sender: which process it is, whatever queue pair number it has from a dead one. number: of all that it sends, for what
 * was meant for a dead one may reach whoever has its queue pair number now. */
struct header { uint64_t seed; uint64_t number; uint64_t sender; };

static struct {
	struct ffv_qp *qp;
	struct buffer outbox, inbox;
	uint64_t posted, completed;
	bool receiving[RECEIVES];
	struct { struct ffv_ah *ah; uint32_t qpn; } peers[PEERS];
	struct { uint32_t qpn; uint64_t sender, next; } sources[SOURCES];
	unsigned num_sources;
} datagrams;

static void post_receive(uint32_t slot)
{
	struct ffv_sge sge = { (uintptr_t)datagrams.inbox.at + slot * (GRH + LARGEST), GRH + LARGEST,
			       datagrams.inbox.mr->lkey };
	struct ffv_recv_wr wr = { .wr_id = slot, .sg_list = &sge, .num_sge = 1 }, *bad;

	if (datagrams.receiving[slot])
		FAIL("datagram receive %u completed twice", slot);
	datagrams.receiving[slot] = true;
	MUST(ffv_post_recv(datagrams.qp, &wr, &bad));
}

void stress_datagrams_make(struct worker *worker)
{
	struct ffv_qp_init_attr attr = { .send_cq = worker->cq, .recv_cq = worker->cq, .qp_type = FFV_QPT_UD,
					 .cap = { STRESS_DEPTH, RECEIVES, 1, 1, 0 } };
	struct ffv_qp_attr init = { .qp_state = FFV_QPS_INIT, .port_num = 1, .qkey = QKEY };
	struct ffv_qp_attr rtr = { .qp_state = FFV_QPS_RTR }, rts = { .qp_state = FFV_QPS_RTS };

	MUST(ffv_create_qp(stress.pd, &attr, &datagrams.qp));
	MUST(ffv_modify_qp(datagrams.qp, &init, FFV_QP_STATE | FFV_QP_PKEY_INDEX | FFV_QP_PORT | FFV_QP_QKEY));
	stress_buffer_make(&datagrams.outbox, STRESS_DEPTH * (size_t)LARGEST, MEMORY_ENGINE);
	stress_buffer_make(&datagrams.inbox, RECEIVES * (size_t)(GRH + LARGEST), MEMORY_ENGINE);
	for (uint32_t i = 0; i < RECEIVES; i++)
		post_receive(i);
	MUST(ffv_modify_qp(datagrams.qp, &rtr, FFV_QP_STATE));
	MUST(ffv_modify_qp(datagrams.qp, &rts, FFV_QP_STATE | FFV_QP_SQ_PSN));
}

uint32_t stress_datagrams_qpn(void)
{
	return ffv_qp_num(datagrams.qp);
}

void stress_datagrams_leave(unsigned who)
{
	if (datagrams.peers[who].ah)
		MUST(ffv_destroy_ah(datagrams.peers[who].ah));
	memset(&datagrams.peers[who], 0, sizeof datagrams.peers[who]);
}

void stress_datagrams_meet(unsigned who, const struct ffv_gid *gid, uint32_t qpn)
{
	struct ffv_ah_attr attr = { .is_global = 1, .port_num = 1, .grh = { .hop_limit = 1, .sgid_index = 1 } };

	if (who >= PEERS || datagrams.peers[who].ah)
		FAIL("peer %u is known", who);
	memcpy(&attr.grh.dgid_subnet_prefix_be, gid->raw, 8);
	memcpy(&attr.grh.dgid_interface_id_be, gid->raw + 8, 8);
	MUST(ffv_create_ah(stress.pd, &attr, &datagrams.peers[who].ah));
	datagrams.peers[who].qpn = qpn;
}

bool stress_datagrams_send(struct worker *worker)
{
	uint64_t luck = stress_mix(worker->random++, 3);
	unsigned who = (unsigned)(luck % PEERS);

	for (unsigned i = 0; i < PEERS && !datagrams.peers[who].ah; i++)
		who = (who + 1) % PEERS;
	if (!datagrams.peers[who].ah || datagrams.posted - datagrams.completed >= STRESS_DEPTH)
		return false;
	uint8_t *at = datagrams.outbox.at + datagrams.posted % STRESS_DEPTH * LARGEST;
	uint32_t length = (uint32_t)(sizeof(struct header) + (luck >> 8) % (LARGEST - sizeof(struct header)));
	struct header header = { luck, datagrams.posted, stress.incarnation };
	memcpy(at, &header, sizeof header);
	stress_fill(at + sizeof header, length - sizeof header, luck);
	struct ffv_sge sge = { (uintptr_t)at, length, datagrams.outbox.mr->lkey };
	struct ffv_send_wr *bad, wr = {
		.wr_id = datagrams.posted, .sg_list = &sge, .num_sge = 1, .opcode = FFV_WR_SEND_WITH_IMM,
		.imm_data_be = (uint32_t)datagrams.posted, .send_flags = FFV_SEND_SIGNALED,
		.wr.ud = { datagrams.peers[who].ah, datagrams.peers[who].qpn, QKEY },
	};
	datagrams.posted++;
	MUST(ffv_post_send(datagrams.qp, &wr, &bad));
	return true;
}

/* Datagrams of one sender come in its order, each at most once; those of a dead one that had the queue pair number
 * before may still be in the completion queue when its successor is met, but never after the successor's. */
static void check_order(uint32_t qpn, const struct header *header)
{
	unsigned i = 0;

	while (i < datagrams.num_sources && datagrams.sources[i].sender != header->sender)
		i++;
	if (i == SOURCES)
		FAIL("more than %u senders", SOURCES);
	if (i == datagrams.num_sources) {
		datagrams.num_sources++;
		datagrams.sources[i].sender = header->sender;
		datagrams.sources[i].qpn = qpn;
	}
	if (datagrams.sources[i].qpn != qpn)
		FAIL("datagram %llu of QP %#x came after its successor's", (unsigned long long)header->number, qpn);
	if (header->number < datagrams.sources[i].next)
		FAIL("datagram %llu of QP %#x came after %llu", (unsigned long long)header->number, qpn,
		     (unsigned long long)datagrams.sources[i].next);
	datagrams.sources[i].next = header->number + 1;
	for (unsigned j = 0; j < datagrams.num_sources; j++)
		if (j != i && datagrams.sources[j].qpn == qpn)
			datagrams.sources[j].qpn = GONE;
}

static void check_datagram(const struct ffv_wc *wc)
{
	const uint8_t *at = datagrams.inbox.at + wc->wr_id * (GRH + LARGEST) + GRH;
	struct header header;

	memcpy(&header, at, sizeof header);
	if (wc->byte_len < GRH + sizeof header || wc->imm_data_be != (uint32_t)header.number)
		FAIL("a datagram of %u bytes, immediate %u", wc->byte_len, wc->imm_data_be);
	stress_check(at + sizeof header, wc->byte_len - GRH - sizeof header, header.seed, "datagram", header.number);
	check_order(wc->src_qp, &header);
}

bool stress_datagrams_complete(const struct ffv_wc *wc)
{
	if (wc->qp_num != stress_datagrams_qpn())
		return false;
	if (!(wc->opcode & FFV_WC_RECV)) {
		if (wc->wr_id != datagrams.completed || wc->status != FFV_WC_SUCCESS)
			FAIL("datagram send %llu ended with %u, expected %llu", (unsigned long long)wc->wr_id, wc->status,
			     (unsigned long long)datagrams.completed);
		datagrams.completed++;
		return true;
	}
	if (wc->wr_id >= RECEIVES || !datagrams.receiving[wc->wr_id])
		FAIL("datagram receive %llu completed without being posted", (unsigned long long)wc->wr_id);
	datagrams.receiving[wc->wr_id] = false;
	if (wc->status == FFV_WC_SUCCESS)
		check_datagram(wc);
	else if (wc->status != FFV_WC_WR_FLUSH_ERR) /* its sender died with it */
		FAIL("datagram receive %llu ended with %u", (unsigned long long)wc->wr_id, wc->status);
	post_receive((uint32_t)wc->wr_id);
	return true;
}

bool stress_datagrams_are_idle(void)
{
	return datagrams.posted == datagrams.completed;
}

void stress_datagrams_drop(void)
{
	for (uint32_t i = 0; i < RECEIVES; i++)
		if (!datagrams.receiving[i])
			FAIL("datagram receive %u was lost", i);
	MUST(ffv_destroy_qp(datagrams.qp));
	for (unsigned i = 0; i < PEERS; i++)
		stress_datagrams_leave(i);
	stress_buffer_drop(&datagrams.outbox);
	stress_buffer_drop(&datagrams.inbox);
}

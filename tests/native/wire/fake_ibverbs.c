/* A libibverbs without hardware, for tests of the transport `rdma` in one process: two devices, fake0 and fake1, which have
 * the RoCE v2 GIDs of 192.0.2.1 and 192.0.2.2, and reliable connections between them. As a device does, it carries out what
 * one queue pair was given in order, looks at keys, bounds and access of what is named on the other side, and fails both
 * queue pairs if they do not suit. FFVERBS_LIBIBVERBS names the file. fake_ibverbs.h is what tests ask of it. */
#include "fake_ibverbs.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "wire/ibverbs.h"

#pragma GCC diagnostic ignored "-Wmissing-prototypes" /* of what is exported: they are libibverbs' own, under other types */

#define EXPORT __attribute__((visibility("default")))
#define DEPTH 512u                    /* of any queue */
#define DEVICES 2

struct real_device { int number; const char *name; };
struct real_pd { struct real_context *context; };

struct fake_cq {
	struct real_comp_channel *channel;
	bool armed;
	struct ffv_wc wc[DEPTH];
	uint32_t head, tail;
};

struct fake_wr { struct ffv_send_wr wr; struct ffv_sge sge; uint8_t bytes[256]; };

struct fake_qp {
	struct real_qp qp;            /* first: it is what callers hold */
	struct fake_qp *next;
	uint32_t state, dest_qpn, access;
	struct ffv_recv_wr recv[DEPTH];
	struct ffv_sge recv_sge[DEPTH];
	uint32_t recv_head, recv_tail;
	struct fake_wr send[DEPTH];
	uint32_t send_head, send_tail;
};

struct fake_mr { struct real_mr mr; struct fake_mr *next; uint32_t access; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of everything below */
static struct real_device devices[DEVICES] = { { 0, "fake0" }, { 1, "fake1" } };
static struct fake_qp *qps;
static struct fake_mr *mrs;
static uint32_t next_number = 17, next_key = 0x1000;
static uint64_t registered, most_registered;
static bool held, held_all, unplugged;
static unsigned lacking;
static struct fake_counts counts;

static bool lacks(unsigned what);

/* ---- completions ------------------------------------------------------------------------------------------------------------ */

static void complete(struct real_cq *to, const struct ffv_wc *wc)
{
	struct fake_cq *cq = (struct fake_cq *)(void *)to;
	uint64_t one = 1;

	if (cq->tail - cq->head == DEPTH)
		abort(); /* overrun: its user promised that there is room */
	cq->wc[cq->tail++ % DEPTH] = *wc;
	if (cq->armed && write(cq->channel->fd, &one, sizeof one) != sizeof one)
		abort();
	cq->armed = false;
}

static void fail_qp(struct fake_qp *qp, uint32_t status)
{
	if (qp->state == FFV_QPS_ERR)
		return;
	qp->state = FFV_QPS_ERR;
	for (; qp->send_head != qp->send_tail; qp->send_head++, status = FFV_WC_WR_FLUSH_ERR)
		complete(qp->qp.send_cq, &(struct ffv_wc){ .wr_id = qp->send[qp->send_head % DEPTH].wr.wr_id, .status = status });
	for (; qp->recv_head != qp->recv_tail; qp->recv_head++)
		complete(qp->qp.recv_cq, &(struct ffv_wc){ .wr_id = qp->recv[qp->recv_head % DEPTH].wr_id,
							   .status = FFV_WC_WR_FLUSH_ERR });
}

/* ---- operations ------------------------------------------------------------------------------------------------------------- */

static struct fake_mr *find_mr(const struct real_context *context, uint32_t key, uint64_t address, uint64_t length,
			       uint32_t access)
{
	for (struct fake_mr *mr = mrs; mr; mr = mr->next)
		if (mr->mr.lkey == key && mr->mr.context == context && address >= (uintptr_t)mr->mr.addr &&
		    address + length <= (uintptr_t)mr->mr.addr + mr->mr.length && !(access & ~mr->access))
			return mr;
	return NULL;
}

static struct fake_qp *find_qp(uint32_t number)
{
	struct fake_qp *qp = qps;

	while (qp && qp->qp.qp_num != number)
		qp = qp->next;
	return qp;
}

static bool is_one_sided(const struct fake_wr *wr)
{
	return wr->wr.opcode == FFV_WR_RDMA_WRITE || wr->wr.opcode == FFV_WR_RDMA_READ;
}

static void *bytes_of(const struct fake_qp *qp, const struct fake_wr *wr, uint32_t access)
{
	if (wr->wr.send_flags & FFV_SEND_INLINE)
		return (void *)wr->bytes;
	return find_mr(qp->qp.context, wr->sge.lkey, wr->sge.addr, wr->sge.length, access) ? (void *)(uintptr_t)wr->sge.addr : NULL;
}

static uint32_t do_send(const struct fake_qp *qp, struct fake_qp *peer, const struct fake_wr *wr)
{
	if (peer->recv_head == peer->recv_tail)
		abort(); /* there was no credit for it */
	const struct ffv_recv_wr *recv = &peer->recv[peer->recv_head % DEPTH];
	const struct ffv_sge *to = &peer->recv_sge[peer->recv_head % DEPTH];
	const void *from = bytes_of(qp, wr, 0);
	if (!from || to->length < wr->sge.length)
		abort();
	memcpy((void *)(uintptr_t)to->addr, from, wr->sge.length);
	peer->recv_head++;
	complete(peer->qp.recv_cq, &(struct ffv_wc){ .wr_id = recv->wr_id, .opcode = FFV_WC_RECV, .byte_len = wr->sge.length });
	return FFV_WC_SUCCESS;
}

static uint32_t do_one_sided(const struct fake_qp *qp, const struct fake_qp *peer, const struct fake_wr *wr)
{
	bool reads = wr->wr.opcode == FFV_WR_RDMA_READ;
	uint32_t access = reads ? FFV_ACCESS_REMOTE_READ : FFV_ACCESS_REMOTE_WRITE;
	void *here = bytes_of(qp, wr, reads ? FFV_ACCESS_LOCAL_WRITE : 0), *there = (void *)(uintptr_t)wr->wr.wr.rdma.remote_addr;

	if (!here)
		return FFV_WC_LOC_PROT_ERR;
	if (access & ~peer->access ||
	    !find_mr(peer->qp.context, wr->wr.wr.rdma.rkey, wr->wr.wr.rdma.remote_addr, wr->sge.length, access)) {
		counts.refused++;
		return FFV_WC_REM_ACCESS_ERR;
	}
	memcpy(reads ? here : there, reads ? there : here, wr->sge.length);
	counts.writes += !reads;
	counts.reads += reads;
	*(reads ? &counts.read : &counts.written) += wr->sge.length;
	return FFV_WC_SUCCESS;
}

/* Carries out what stands in the send queue, as far as it may go. */
static void pump(struct fake_qp *qp)
{
	while (qp->state == FFV_QPS_RTS && qp->send_head != qp->send_tail) {
		struct fake_wr *wr = &qp->send[qp->send_head % DEPTH];
		struct fake_qp *peer = find_qp(qp->dest_qpn);
		if (held_all || (held && is_one_sided(wr)))
			return;
		if (!peer || peer->dest_qpn != qp->qp.qp_num || peer->state < FFV_QPS_RTR || peer->state == FFV_QPS_ERR) {
			if (!peer || peer->state == FFV_QPS_ERR)
				fail_qp(qp, FFV_WC_RETRY_EXC_ERR);
			return; /* not yet */
		}
		uint32_t status = is_one_sided(wr) ? do_one_sided(qp, peer, wr) : do_send(qp, peer, wr);
		if (status) {
			fail_qp(qp, status);
			if (status == FFV_WC_REM_ACCESS_ERR)
				fail_qp(peer, FFV_WC_WR_FLUSH_ERR);
			return;
		}
		qp->send_head++;
		if (wr->wr.send_flags & FFV_SEND_SIGNALED)
			complete(qp->qp.send_cq, &(struct ffv_wc){ .wr_id = wr->wr.wr_id, .byte_len = wr->sge.length });
	}
}

static void pump_all(void)
{
	for (struct fake_qp *qp = qps; qp; qp = qp->next)
		pump(qp);
}

/* ---- calls of the fast path ------------------------------------------------------------------------------------------------- */

static int poll_cq(struct real_cq *from, int count, struct ffv_wc *wc)
{
	struct fake_cq *cq = (struct fake_cq *)(void *)from;
	int n = 0;

	pthread_mutex_lock(&lock);
	while (n < count && cq->head != cq->tail)
		wc[n++] = cq->wc[cq->head++ % DEPTH];
	pthread_mutex_unlock(&lock);
	return n;
}

static int req_notify_cq(struct real_cq *which, int solicited_only)
{
	(void)solicited_only;
	pthread_mutex_lock(&lock);
	((struct fake_cq *)(void *)which)->armed = true;
	pthread_mutex_unlock(&lock);
	return 0;
}

static int post_send(struct real_qp *which, struct ffv_send_wr *wr, struct ffv_send_wr **bad)
{
	struct fake_qp *qp = (struct fake_qp *)(void *)which;
	int rc = 0;

	pthread_mutex_lock(&lock);
	for (; wr && !rc; wr = rc ? wr : wr->next) {
		struct fake_wr *to = &qp->send[qp->send_tail % DEPTH];
		if (qp->send_tail - qp->send_head == DEPTH || wr->num_sge != 1) {
			*bad = wr;
			rc = ENOMEM;
			break;
		}
		to->wr = *wr;
		to->sge = *wr->sg_list;
		if (wr->send_flags & FFV_SEND_INLINE)
			memcpy(to->bytes, (const void *)(uintptr_t)to->sge.addr, to->sge.length);
		if (qp->state == FFV_QPS_ERR)
			complete(qp->qp.send_cq, &(struct ffv_wc){ .wr_id = wr->wr_id, .status = FFV_WC_WR_FLUSH_ERR });
		else
			qp->send_tail++;
	}
	pump(qp);
	pthread_mutex_unlock(&lock);
	return rc;
}

static int post_recv(struct real_qp *which, struct ffv_recv_wr *wr, struct ffv_recv_wr **bad)
{
	struct fake_qp *qp = (struct fake_qp *)(void *)which;

	(void)bad;
	pthread_mutex_lock(&lock);
	qp->recv[qp->recv_tail % DEPTH] = *wr;
	qp->recv_sge[qp->recv_tail % DEPTH] = *wr->sg_list;
	if (qp->state == FFV_QPS_ERR)
		complete(qp->qp.recv_cq, &(struct ffv_wc){ .wr_id = wr->wr_id, .status = FFV_WC_WR_FLUSH_ERR });
	else
		qp->recv_tail++;
	pthread_mutex_unlock(&lock);
	return 0;
}

/* ---- the exported calls ----------------------------------------------------------------------------------------------------- */

EXPORT struct real_device **ibv_get_device_list(int *count)
{
	struct real_device **list = calloc(DEVICES + 1, sizeof *list);

	pthread_mutex_lock(&lock);
	*count = unplugged ? 0 : DEVICES;
	pthread_mutex_unlock(&lock);
	for (int i = 0; list && i < *count; i++)
		list[i] = &devices[i];
	return list;
}

EXPORT void ibv_free_device_list(struct real_device **list)
{
	free((void *)list);
}

EXPORT const char *ibv_get_device_name(struct real_device *device)
{
	return device->name;
}

EXPORT struct real_context *ibv_open_device(struct real_device *device)
{
	struct real_context *context = calloc(1, sizeof *context);

	if (!context)
		return NULL;
	context->device = device;
	context->poll_cq = poll_cq;
	context->req_notify_cq = req_notify_cq;
	context->post_send = post_send;
	context->post_recv = post_recv;
	context->cmd_fd = eventfd(0, EFD_CLOEXEC);
	context->async_fd = eventfd(0, EFD_CLOEXEC);
	return context;
}

EXPORT int ibv_close_device(struct real_context *context)
{
	close(context->cmd_fd);
	close(context->async_fd);
	free(context);
	return 0;
}

static uint16_t lid_of(const struct real_context *context)
{
	return (uint16_t)(context->device->number + 10);
}

EXPORT int ibv_query_port(struct real_context *context, uint8_t port, struct real_port_attr *attr)
{
	(void)context;
	if (port != 1)
		return EINVAL;
	*attr = (struct real_port_attr){ .state = REAL_PORT_ACTIVE, .max_mtu = 5, .active_mtu = 5, .gid_tbl_len = 1,
					 .max_msg_sz = 1u << 30, .link_layer = REAL_LINK_ETHERNET };
	if (lacks(FAKE_ETHERNET) || (context->device->number && lacks(FAKE_ETHERNET_1))) {
		attr->link_layer = REAL_LINK_INFINIBAND;
		attr->lid = lid_of(context);
	}
	return 0;
}

static void gid_of(const struct real_context *context, uint8_t gid[16])
{
	memcpy(gid, (uint8_t[16]){ [10] = 0xff, [11] = 0xff, 192, 0, 2, (uint8_t)(context->device->number + 1) }, 16);
}

EXPORT int _ibv_query_gid_ex(struct real_context *context, uint32_t port, uint32_t index, struct real_gid_entry *entry,
			     uint32_t flags, size_t entry_bytes)
{
	(void)flags;
	if (port != 1 || index || entry_bytes != sizeof *entry)
		return ENODATA;
	*entry = (struct real_gid_entry){ .port_num = 1, .gid_type = lacks(FAKE_ROCE_V2) ? 1 : REAL_GID_ROCE_V2 };
	gid_of(context, entry->gid);
	return 0;
}

EXPORT int ibv_get_async_event(struct real_context *context, struct real_async_event *event)
{
	uint64_t kind;

	if (read(context->async_fd, &kind, sizeof kind) != sizeof kind)
		return -1;
	*event = (struct real_async_event){ .event_type = (uint32_t)kind };
	return 0;
}

EXPORT void ibv_ack_async_event(struct real_async_event *event)
{
	(void)event;
}

EXPORT struct real_pd *ibv_alloc_pd(struct real_context *context)
{
	struct real_pd *pd = calloc(1, sizeof *pd);

	if (pd)
		pd->context = context;
	return pd;
}

EXPORT int ibv_dealloc_pd(struct real_pd *pd)
{
	free(pd);
	return 0;
}

EXPORT struct real_mr *ibv_reg_mr(struct real_pd *pd, void *addr, size_t length, int access)
{
	struct fake_mr *mr = calloc(1, sizeof *mr);

	if (!mr)
		return NULL;
	pthread_mutex_lock(&lock);
	bool fits = !most_registered || registered + length <= most_registered;
	if (fits) {
		next_key += 0x100;
		*mr = (struct fake_mr){ .mr = { pd->context, pd, addr, length, next_key, next_key, next_key }, .next = mrs,
					.access = (uint32_t)access };
		mrs = mr;
		registered += length;
		counts.regions++;
	}
	pthread_mutex_unlock(&lock);
	if (fits)
		return &mr->mr;
	free(mr);
	errno = ENOMEM;
	return NULL;
}

EXPORT int ibv_dereg_mr(struct real_mr *which)
{
	pthread_mutex_lock(&lock);
	for (struct fake_mr **at = &mrs; *at; at = &(*at)->next) {
		if (&(*at)->mr != which)
			continue;
		struct fake_mr *mr = *at;
		*at = mr->next;
		registered -= mr->mr.length;
		counts.regions--;
		free(mr);
		break;
	}
	pthread_mutex_unlock(&lock);
	return 0;
}

EXPORT struct real_comp_channel *ibv_create_comp_channel(struct real_context *context)
{
	struct real_comp_channel *channel = calloc(1, sizeof *channel);

	if (channel)
		*channel = (struct real_comp_channel){ context, eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE) };
	return channel;
}

EXPORT int ibv_destroy_comp_channel(struct real_comp_channel *channel)
{
	close(channel->fd);
	free(channel);
	return 0;
}

EXPORT struct real_cq *ibv_create_cq(struct real_context *context, int cqe, void *cq_context, struct real_comp_channel *channel,
				     int vector)
{
	struct fake_cq *cq = calloc(1, sizeof *cq);

	(void)context;
	(void)cqe;
	(void)cq_context;
	(void)vector;
	if (cq)
		cq->channel = channel;
	return (struct real_cq *)(void *)cq;
}

EXPORT int ibv_destroy_cq(struct real_cq *cq)
{
	free(cq);
	return 0;
}

EXPORT int ibv_get_cq_event(struct real_comp_channel *channel, struct real_cq **cq, void **cq_context)
{
	uint64_t one;

	*cq = NULL;
	*cq_context = NULL;
	return read(channel->fd, &one, sizeof one) == sizeof one ? 0 : -1;
}

EXPORT void ibv_ack_cq_events(struct real_cq *cq, unsigned count)
{
	(void)cq;
	(void)count;
}

EXPORT struct real_qp *ibv_create_qp(struct real_pd *pd, struct real_qp_init_attr *attr)
{
	struct fake_qp *qp = lacks(FAKE_RC) ? NULL : calloc(1, sizeof *qp);

	errno = EOPNOTSUPP;
	if (!qp)
		return NULL;
	pthread_mutex_lock(&lock);
	qp->qp = (struct real_qp){ .context = pd->context, .pd = pd, .send_cq = attr->send_cq, .recv_cq = attr->recv_cq,
				   .qp_num = next_number++ };
	attr->cap.max_inline_data = sizeof qp->send[0].bytes;
	qp->next = qps;
	qps = qp;
	counts.queue_pairs++;
	pthread_mutex_unlock(&lock);
	return &qp->qp;
}

/* The address leads to the port of the queue pair that is to be the other end. */
static bool leads_to(const struct real_ah_attr *address, const struct real_context *there)
{
	uint8_t gid[16];

	gid_of(there, gid);
	return address->is_global ? !memcmp(address->dgid, gid, 16) : address->dlid == lid_of(there);
}

EXPORT int ibv_modify_qp(struct real_qp *which, struct real_qp_attr *attr, int mask)
{
	struct fake_qp *qp = (struct fake_qp *)(void *)which;

	(void)mask;
	pthread_mutex_lock(&lock);
	const struct fake_qp *peer = attr->qp_state == FFV_QPS_RTR ? find_qp(attr->dest_qp_num) : NULL;
	if (peer && !leads_to(&attr->ah_attr, peer->qp.context)) {
		pthread_mutex_unlock(&lock);
		return EINVAL;
	}
	qp->state = attr->qp_state;
	if (attr->qp_state == FFV_QPS_INIT)
		qp->access = attr->qp_access_flags;
	if (attr->qp_state == FFV_QPS_RTR)
		qp->dest_qpn = attr->dest_qp_num;
	pump_all();
	pthread_mutex_unlock(&lock);
	return 0;
}

EXPORT int ibv_destroy_qp(struct real_qp *which)
{
	struct fake_qp *qp = (struct fake_qp *)(void *)which;

	pthread_mutex_lock(&lock);
	for (struct fake_qp **at = &qps; *at; at = &(*at)->next) {
		if (*at == qp) {
			*at = qp->next;
			break;
		}
	}
	counts.queue_pairs--;
	pump_all(); /* its peer finds out */
	pthread_mutex_unlock(&lock);
	free(qp);
	return 0;
}

EXPORT const char *ibv_wc_status_str(uint32_t status)
{
	return status == FFV_WC_REM_ACCESS_ERR ? "remote access error" : "a failure";
}

/* ---- what tests ask for --------------------------------------------------------------------------------------------------- */

static void count(struct fake_counts *out)
{
	pthread_mutex_lock(&lock);
	*out = counts;
	out->held = 0;
	for (const struct fake_qp *qp = qps; qp && held; qp = qp->next)
		out->held += qp->send_head != qp->send_tail && is_one_sided(&qp->send[qp->send_head % DEPTH]);
	pthread_mutex_unlock(&lock);
}

static void hold(void)
{
	pthread_mutex_lock(&lock);
	held = true;
	pthread_mutex_unlock(&lock);
}

static void hold_all(void)
{
	pthread_mutex_lock(&lock);
	held_all = true;
	pthread_mutex_unlock(&lock);
}

static void release(void)
{
	pthread_mutex_lock(&lock);
	held = held_all = false;
	pump_all();
	pthread_mutex_unlock(&lock);
}

static void break_all(void)
{
	pthread_mutex_lock(&lock);
	for (struct fake_qp *qp = qps; qp; qp = qp->next)
		fail_qp(qp, FFV_WC_RETRY_EXC_ERR);
	pthread_mutex_unlock(&lock);
}

static void limit(uint64_t bytes)
{
	pthread_mutex_lock(&lock);
	most_registered = bytes;
	pthread_mutex_unlock(&lock);
}

static void plug(int there)
{
	pthread_mutex_lock(&lock);
	unplugged = !there;
	pthread_mutex_unlock(&lock);
}

static void lack(unsigned what)
{
	pthread_mutex_lock(&lock);
	lacking = what;
	pthread_mutex_unlock(&lock);
}

static bool lacks(unsigned what)
{
	pthread_mutex_lock(&lock);
	bool found = lacking & what;
	pthread_mutex_unlock(&lock);
	return found;
}

EXPORT const struct fake_calls fake_calls = { count, hold, release, hold_all, break_all, limit, plug, lack };

/* SPDX-License-Identifier: MIT
 *
 * libfabric's shared-memory provider, messages in a stream: the peer of our send_bw and of ucx_perftest's tag_bw. libfabric's own
 * throughput test is not packaged with it.
 *
 * The near end keeps WINDOW messages under way; a batch ends when its last message is received. `--far-end samples` checks a
 * stamp in every 4 KiB of each message; an idle far end receives all into the slots and does not look, as tag_bw and send_bw do with
 * `--slots 1`.
 *
 *   fi_stream [--cpus A,B] [--far-end idle|samples] [--slots N] [--size BYTES] [--iters N] [--batches N]
 *
 * Needs libfabric (Debian's libfabric-dev). Prints one JSON object.
 */
#define _GNU_SOURCE
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>

#include "stream_args.h"

enum { WINDOW = 16, NAME_BYTES_MAX = 256, EVENTS = 16 };

struct endpoint {
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_av *av;
	struct fid_cq *cq;
	struct fid_ep *ep;
	struct fid_mr *mr;
	void *descriptor; /* of mr, where the provider wants one */
	fi_addr_t peer;
	unsigned char *buffers;
	struct fi_context2 contexts[WINDOW]; /* which one, tells the message */
	const struct stream *stream;
};

static void check_fi(long rc, const char *what)
{
	if (rc >= 0)
		return;
	fprintf(stderr, "fi_stream: %s: %s\n", what, fi_strerror((int)-rc));
	exit(1);
}

static void endpoint_open(struct endpoint *e)
{
	struct fi_info *hints = fi_allocinfo();
	struct fi_cq_attr cq = { .format = FI_CQ_FORMAT_CONTEXT, .size = 4 * WINDOW };
	struct fi_av_attr av = { .type = FI_AV_TABLE };

	if (!hints)
		die("fi_allocinfo");
	hints->caps = FI_MSG;
	hints->mode = FI_CONTEXT | FI_CONTEXT2;
	hints->ep_attr->type = FI_EP_RDM;
	hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
	hints->tx_attr->msg_order = hints->rx_attr->msg_order = FI_ORDER_SAS;
	hints->fabric_attr->prov_name = strdup("shm");
	check_fi(fi_getinfo(FI_VERSION(1, 14), NULL, NULL, 0, hints, &e->info), "fi_getinfo (has libfabric its shm provider?)");
	fi_freeinfo(hints);
	check_fi(fi_fabric(e->info->fabric_attr, &e->fabric, NULL), "fi_fabric");
	check_fi(fi_domain(e->fabric, e->info, &e->domain, NULL), "fi_domain");
	check_fi(fi_cq_open(e->domain, &cq, &e->cq, NULL), "fi_cq_open");
	check_fi(fi_av_open(e->domain, &av, &e->av, NULL), "fi_av_open");
	check_fi(fi_endpoint(e->domain, e->info, &e->ep, NULL), "fi_endpoint");
	check_fi(fi_ep_bind(e->ep, &e->av->fid, 0), "fi_ep_bind");
	check_fi(fi_ep_bind(e->ep, &e->cq->fid, FI_TRANSMIT | FI_RECV), "fi_ep_bind");
	check_fi(fi_enable(e->ep), "fi_enable");
}

static void buffers_register(struct endpoint *e)
{
	e->buffers = stream_buffers(e->stream);
	if (!(e->info->domain_attr->mr_mode & FI_MR_LOCAL))
		return;
	check_fi(fi_mr_reg(e->domain, e->buffers, stream_memory_bytes(e->stream), FI_SEND | FI_RECV, 0, 0, 0, &e->mr, NULL),
		 "fi_mr_reg");
	e->descriptor = fi_mr_desc(e->mr);
}

static void tell_name(struct endpoint *e, int fd)
{
	char name[NAME_BYTES_MAX] = { 0 };
	size_t length = sizeof(name);

	check_fi(fi_getname(&e->ep->fid, name, &length), "fi_getname");
	send_all(fd, name, sizeof(name));
}

static void learn_peer(struct endpoint *e, int fd)
{
	char name[NAME_BYTES_MAX];

	receive_all(fd, name, sizeof(name));
	if (fi_av_insert(e->av, name, 1, &e->peer, 0, NULL) != 1) {
		fprintf(stderr, "fi_stream: fi_av_insert refused the other end's name\n");
		exit(1);
	}
}

static void endpoint_close(struct endpoint *e)
{
	struct fid *all[] = { &e->ep->fid, e->mr ? &e->mr->fid : NULL, &e->cq->fid, &e->av->fid, &e->domain->fid,
			      &e->fabric->fid };

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		if (all[i])
			check_fi(fi_close(all[i]), "fi_close");
	fi_freeinfo(e->info);
	free(e->buffers);
}

static unsigned char *slot_of(const struct endpoint *e, uint64_t i)
{
	return e->buffers + i % e->stream->slots * e->stream->size_bytes;
}

/* Number of completions, which the provider tells in the order of the messages. */
static uint64_t poll_completions(struct endpoint *e, uint64_t done)
{
	struct fi_cq_entry events[EVENTS];
	ssize_t count = fi_cq_read(e->cq, events, EVENTS);

	if (count == -FI_EAGAIN)
		return 0;
	check_fi(count, "fi_cq_read");
	for (ssize_t i = 0; i < count; i++)
		if (events[i].op_context != &e->contexts[(done + (uint64_t)i) % WINDOW]) {
			fprintf(stderr, "fi_stream: a completion out of order\n");
			exit(1);
		}
	return (uint64_t)count;
}

static void post_receive(struct endpoint *e, uint64_t i)
{
	ssize_t rc;

	do
		rc = fi_recv(e->ep, slot_of(e, i), e->stream->size_bytes, e->descriptor, FI_ADDR_UNSPEC,
			     &e->contexts[i % WINDOW]);
	while (rc == -FI_EAGAIN);
	check_fi(rc, "fi_recv");
}

static void receive_all_messages(struct endpoint *e)
{
	const struct stream *s = e->stream;
	uint64_t total = (uint64_t)(s->batches + WARM_UP_BATCHES) * s->iters, done = 0;

	while (done < total) {
		uint64_t count = poll_completions(e, done);
		for (uint64_t end = done + count; done < end; done++) {
			if (s->far_end == FAR_SAMPLES)
				stream_check_samples(slot_of(e, done), s->size_bytes, done);
			if (done + WINDOW < total)
				post_receive(e, done + WINDOW);
		}
		if (count) /* Release: "received", after the checks. Pairs with send_batch's wait. */
			atomic_store_explicit(&s->counters->checked, done, memory_order_release);
	}
}

/* Not to be closed before the near end has done with it. */
static void progress_until_told(struct endpoint *e, int fd)
{
	struct fi_cq_entry event;
	char byte;

	while (recv(fd, &byte, 1, MSG_DONTWAIT) != 1)
		(void)fi_cq_read(e->cq, &event, 0);
}

static void far_end(void *arg)
{
	struct stream_test *t = arg;
	struct endpoint e = { .stream = &t->stream };
	uint64_t total = (uint64_t)(t->stream.batches + WARM_UP_BATCHES) * t->stream.iters;

	endpoint_open(&e);
	buffers_register(&e);
	for (uint64_t i = 0; i < WINDOW && i < total; i++)
		post_receive(&e, i);
	tell_name(&e, t->sockets[1]);
	receive_all_messages(&e);
	progress_until_told(&e, t->sockets[1]);
	endpoint_close(&e);
}

/* Messages from *i on, until *i is `end`; *done counts those that are sent. */
static void send_batch(struct endpoint *e, uint64_t *i, uint64_t *done, uint64_t end)
{
	while (*i < end) {
		unsigned char *message = slot_of(e, *i);
		if (*i - *done < WINDOW) {
			for (size_t at = 0; at < e->stream->size_bytes; at += STREAM_STAMP_BYTES)
				memcpy(message + at, i, sizeof(*i));
			ssize_t rc;
			while ((rc = fi_send(e->ep, message, e->stream->size_bytes, e->descriptor, e->peer,
					     &e->contexts[*i % WINDOW])) == -FI_EAGAIN)
				*done += poll_completions(e, *done);
			check_fi(rc, "fi_send");
			++*i;
		} else {
			*done += poll_completions(e, *done);
		}
	}
	while (atomic_load_explicit(&e->stream->counters->checked, memory_order_acquire) < end)
		*done += poll_completions(e, *done);
}

static double stream_rate(struct stream_test *t)
{
	static double rates[MAX_BATCHES];
	struct endpoint e = { .stream = &t->stream };
	pid_t second = start_second(t->cpu, far_end, t);
	uint64_t i = 0, done = 0;

	endpoint_open(&e);
	buffers_register(&e);
	learn_peer(&e, t->sockets[0]);
	for (int batch = -WARM_UP_BATCHES; batch < t->stream.batches; batch++) {
		double start = now_ns();
		send_batch(&e, &i, &done, i + t->stream.iters);
		if (batch >= 0)
			rates[batch] = (double)t->stream.iters * (double)t->stream.size_bytes / (now_ns() - start) * 1e9;
	}
	send_all(t->sockets[0], "", 1);
	finish_second(second);
	endpoint_close(&e);
	return median(rates, t->stream.batches);
}

int main(int argc, char **argv)
{
	struct stream_test t;

	stream_parse(argc, argv, &t);
	if (t.stream.far_end != FAR_IDLE && (t.stream.far_end != FAR_SAMPLES || t.stream.slots < WINDOW)) {
		fprintf(stderr, "fi_stream: a far end that is idle, or checks samples in at least %d slots\n", WINDOW);
		return 2;
	}
	stream_print("fi_stream", &t.stream, stream_rate(&t));
	return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * UCX's one-sided put, measured so that only data which has arrived is counted: the peer of an RDMA WRITE.
 *
 * `ucx_perftest -t ucp_put_bw` puts one buffer into one other, over and over, and nobody reads the target: its payload
 * never leaves the writer's cache and is not checked. Here two pinned processes run the stream of stream.h: the far
 * end checks each message before the next one may overwrite it. `--slots 1 --far-end idle` does what ucx_perftest does.
 *
 *   ucx_put [--cpus A,B] [--far-end idle|samples|reads|copies] [--slots N] [--size BYTES] [--iters N] [--batches N]
 *
 * Needs libucp (Debian's libucx-dev); UCX_TLS chooses the transport. Prints one JSON object.
 */
#define _GNU_SOURCE
#include <ucp/api/ucp.h>

#include "stream_args.h"

struct endpoint {
	ucp_context_h context;
	ucp_worker_h worker;
	ucp_mem_h mem; /* of the far end's slots */
	void *slots_memory;
	ucp_ep_h ep;
	ucp_rkey_h rkey;
	uint64_t remote_address;
	size_t size_bytes;
};

static void check_ucs(ucs_status_t status, const char *what)
{
	if (status == UCS_OK)
		return;
	fprintf(stderr, "ucx_put: %s: %s\n", what, ucs_status_string(status));
	exit(1);
}

/* A blob is its length and its bytes; both sides are processes of this program. */
static void send_blob(int fd, const void *data, size_t length)
{
	send_all(fd, &length, sizeof(length));
	send_all(fd, data, length);
}

static void *receive_blob(int fd)
{
	size_t length;
	void *data;

	receive_all(fd, &length, sizeof(length));
	data = malloc(length);
	if (!data)
		die("malloc");
	receive_all(fd, data, length);
	return data;
}

static void endpoint_open(struct endpoint *e)
{
	ucp_params_t params = { .field_mask = UCP_PARAM_FIELD_FEATURES, .features = UCP_FEATURE_RMA };
	ucp_worker_params_t worker = { .field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
				       .thread_mode = UCS_THREAD_MODE_SINGLE };

	check_ucs(ucp_init(&params, NULL, &e->context), "ucp_init");
	check_ucs(ucp_worker_create(e->context, &worker, &e->worker), "ucp_worker_create");
}

/* Memory that UCX allocates itself: what its shared-memory transport can map at the other side. */
static void slots_allocate(struct endpoint *e, size_t length)
{
	ucp_mem_map_params_t params = {
		.field_mask = UCP_MEM_MAP_PARAM_FIELD_LENGTH | UCP_MEM_MAP_PARAM_FIELD_FLAGS,
		.length = length,
		.flags = UCP_MEM_MAP_ALLOCATE,
	};
	ucp_mem_attr_t attr = { .field_mask = UCP_MEM_ATTR_FIELD_ADDRESS };

	check_ucs(ucp_mem_map(e->context, &params, &e->mem), "ucp_mem_map");
	check_ucs(ucp_mem_query(e->mem, &attr), "ucp_mem_query");
	e->slots_memory = attr.address;
	memset(e->slots_memory, 0xff, length);
}

static void send_address_and_key(struct endpoint *e, int fd)
{
	ucp_address_t *address;
	size_t address_length, key_length;
	void *key;

	check_ucs(ucp_worker_get_address(e->worker, &address, &address_length), "ucp_worker_get_address");
	check_ucs(ucp_rkey_pack(e->context, e->mem, &key, &key_length), "ucp_rkey_pack");
	send_blob(fd, address, address_length);
	send_blob(fd, key, key_length);
	send_blob(fd, &e->slots_memory, sizeof(e->slots_memory));
	ucp_rkey_buffer_release(key);
	ucp_worker_release_address(e->worker, address);
}

static void connect_to_second(struct endpoint *e, int fd)
{
	ucp_address_t *address = receive_blob(fd);
	ucp_ep_params_t params = { .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS, .address = address };
	void *key = receive_blob(fd), *remote = receive_blob(fd);

	check_ucs(ucp_ep_create(e->worker, &params, &e->ep), "ucp_ep_create");
	check_ucs(ucp_ep_rkey_unpack(e->ep, key, &e->rkey), "ucp_ep_rkey_unpack");
	memcpy(&e->remote_address, remote, sizeof(e->remote_address));
	free(address);
	free(key);
	free(remote);
}

static void complete(struct endpoint *e, void *request, const char *what)
{
	if (UCS_PTR_IS_ERR(request))
		check_ucs(UCS_PTR_STATUS(request), what);
	if (!request)
		return;
	while (ucp_request_check_status(request) == UCS_INPROGRESS)
		ucp_worker_progress(e->worker);
	check_ucs(ucp_request_check_status(request), what);
	ucp_request_free(request);
}

static void put_transfer(void *transport, const unsigned char *from, unsigned slot)
{
	struct endpoint *e = transport;
	ucp_request_param_t none = { 0 };

	complete(e,
		 ucp_put_nbx(e->ep, from, e->size_bytes, e->remote_address + slot * e->size_bytes, e->rkey, &none),
		 "ucp_put_nbx");
	complete(e, ucp_ep_flush_nbx(e->ep, &none), "ucp_ep_flush_nbx");
}

static void endpoint_close(struct endpoint *e)
{
	ucp_request_param_t none = { 0 };

	if (e->rkey)
		ucp_rkey_destroy(e->rkey);
	if (e->ep)
		complete(e, ucp_ep_close_nbx(e->ep, &none), "ucp_ep_close_nbx");
	if (e->mem)
		check_ucs(ucp_mem_unmap(e->context, e->mem), "ucp_mem_unmap");
	ucp_worker_destroy(e->worker);
	ucp_cleanup(e->context);
}

/* UCX may need the target to take part: it progresses until the first says that its end is closed. */
static void progress_until_told(struct endpoint *e, int fd)
{
	char byte;

	while (recv(fd, &byte, 1, MSG_DONTWAIT) != 1)
		ucp_worker_progress(e->worker);
}

static void put_second(void *arg)
{
	struct stream_test *t = arg;
	struct endpoint e = { .size_bytes = t->stream.size_bytes };
	int fd = t->sockets[1];

	endpoint_open(&e);
	slots_allocate(&e, t->stream.slots * t->stream.size_bytes);
	send_address_and_key(&e, fd);
	progress_until_told(&e, fd); /* the first is connected and has put once */
	if (t->stream.far_end != FAR_IDLE)
		stream_receive(&t->stream, e.slots_memory);
	progress_until_told(&e, fd);
	endpoint_close(&e);
}

static double put_rate(struct stream_test *t)
{
	struct endpoint e = { .size_bytes = t->stream.size_bytes };
	unsigned char *buffers = stream_buffers(&t->stream);
	pid_t second;
	double rate;
	int fd = t->sockets[0];

	second = start_second(t->cpu, put_second, t);
	endpoint_open(&e);
	connect_to_second(&e, fd);
	/* Wire-up needs both sides to progress, and the far end will soon only look at memory. */
	put_transfer(&e, buffers, 0);
	send_all(fd, "", 1);
	rate = stream_send(&t->stream, buffers, put_transfer, &e);
	endpoint_close(&e);
	send_all(fd, "", 1);
	finish_second(second);
	free(buffers);
	return rate;
}

int main(int argc, char **argv)
{
	struct stream_test t;

	stream_parse(argc, argv, &t);
	stream_print("ucx_put", &t.stream, put_rate(&t));
	return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * ffverbs: the connection manager, with the semantics of librdmacm. Part of the public header ffv.h.
 *
 * Conventions are those of ffv.h. Structs have the layout, enumerations the values of librdmacm (rdma/rdma_cma.h), so
 * that a face of librdmacm needs no conversion.
 *
 * An id is what a socket is to TCP: it is bound, listens, or resolves an address and connects. Made with an event
 * channel it is asynchronous: what happens is read from the channel, whose descriptor can be polled. Made without
 * one (NULL) it is synchronous: it has a channel of its own, and calls wait for their result.
 *
 * Queue pairs that are created on an id (ffv_cm_create_qp) are brought through their states by the connection manager:
 * on the passive side by ffv_cm_accept, on the active side by ffv_cm_get_event when it meets the answer. For others
 * ("external" ones) ffv_cm_init_qp_attr gives the attributes, and the active side ends with ffv_cm_establish.
 */
#ifndef FFVERBS_FFV_CM_H
#define FFVERBS_FFV_CM_H

#include <ffverbs/ffv.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sockaddr;

/* ---- values ----------------------------------------------------------------------------------------------------- */

enum ffv_cm_event_type {
	FFV_CM_EVENT_ADDR_RESOLVED = 0, FFV_CM_EVENT_ADDR_ERROR = 1, FFV_CM_EVENT_ROUTE_RESOLVED = 2,
	FFV_CM_EVENT_ROUTE_ERROR = 3, FFV_CM_EVENT_CONNECT_REQUEST = 4, FFV_CM_EVENT_CONNECT_RESPONSE = 5,
	FFV_CM_EVENT_CONNECT_ERROR = 6, FFV_CM_EVENT_UNREACHABLE = 7, FFV_CM_EVENT_REJECTED = 8,
	FFV_CM_EVENT_ESTABLISHED = 9, FFV_CM_EVENT_DISCONNECTED = 10, FFV_CM_EVENT_DEVICE_REMOVAL = 11,
	FFV_CM_EVENT_MULTICAST_JOIN = 12, FFV_CM_EVENT_MULTICAST_ERROR = 13, FFV_CM_EVENT_ADDR_CHANGE = 14,
	FFV_CM_EVENT_TIMEWAIT_EXIT = 15, FFV_CM_EVENT_ADDRINFO_RESOLVED = 16, FFV_CM_EVENT_ADDRINFO_ERROR = 17
};

enum ffv_cm_port_space { FFV_PS_IPOIB = 0x0002, FFV_PS_TCP = 0x0106, FFV_PS_UDP = 0x0111, FFV_PS_IB = 0x013f };

/* Status of FFV_CM_EVENT_REJECTED: the reason (IBA 12.6.7.2). Negative ones are errno. */
enum ffv_cm_reject_reason { FFV_CM_REJ_INVALID_SERVICE_ID = 8, FFV_CM_REJ_CONSUMER_DEFINED = 28 };
/* Status of FFV_CM_EVENT_UNREACHABLE of a datagram id whose request was refused (IBA 12.11.2). */
enum ffv_cm_sidr_status { FFV_CM_SIDR_UNSUPPORTED = 1, FFV_CM_SIDR_REJECT = 2 };

enum ffv_rai_flags {
	FFV_RAI_PASSIVE = 1, FFV_RAI_NUMERICHOST = 2, FFV_RAI_NOROUTE = 4, FFV_RAI_FAMILY = 8, FFV_RAI_SA = 16,
	FFV_RAI_DNS = 32
};

enum ffv_cm_option_level { FFV_OPTION_ID = 0 };
enum ffv_cm_option {
	FFV_OPTION_ID_TOS = 0,         /* uint8_t: traffic class */
	FFV_OPTION_ID_REUSEADDR = 1,   /* int: several ids may be bound to an address; one of them listens */
	FFV_OPTION_ID_AFONLY = 2,      /* int: an IPv6 id does not take connections by IPv4 */
	FFV_OPTION_ID_ACK_TIMEOUT = 3, /* uint8_t: timeout of the queue pair, 4.096 us * 2^value */
	FFV_OPTION_ID_ASK_ONCE = 64    /* int: resolving does not wait for a container that may come: the router's first answer
					  counts, and where there is no router, what the host knows */
};

enum ffv_cm_join_mask { FFV_CM_JOIN_ADDRESS = 1, FFV_CM_JOIN_FLAGS = 2 };
enum ffv_cm_join_flags { FFV_CM_JOIN_FULLMEMBER = 0, FFV_CM_JOIN_SENDONLY_FULLMEMBER = 1 };

#define FFV_CM_MAX_RESPONDER_RESOURCES 0xff /* "as many as the device has", for responder_resources, initiator_depth */
#define FFV_CM_UDP_QKEY 0x01234567          /* of all datagram ids */
#define FFV_CM_MULTICAST_QPN 0xffffff

/* Most bytes of private data, by port space and message (IBA 12.6, 12.11; events tell all of them, padded by zeros). */
enum ffv_cm_private_data {
	FFV_CM_CONNECT_DATA = 56, FFV_CM_ACCEPT_DATA = 196, FFV_CM_REJECT_DATA = 148,
	FFV_CM_UDP_CONNECT_DATA = 180, FFV_CM_UDP_ACCEPT_DATA = 136, FFV_CM_UDP_REJECT_DATA = 136
};

/* ---- structs with the layout of librdmacm ------------------------------------------------------------------------ */

union ffv_sockaddr {               /* of struct sockaddr_storage */
	uint16_t family;
	uint8_t bytes[128];
	uint64_t align;
};

struct ffv_cm_ib_addr {
	struct ffv_gid sgid;
	struct ffv_gid dgid;
	uint16_t pkey_be;
	uint16_t reserved[3];
};

struct ffv_cm_addr {
	union ffv_sockaddr src;
	union ffv_sockaddr dst;
	struct ffv_cm_ib_addr ibaddr;
};

struct ffv_cm_route {
	struct ffv_cm_addr addr;
	void *path_rec;            /* NULL: paths are not told */
	int num_paths;
};

struct ffv_cm_channel { int fd; };

struct ffv_cm_event;

struct ffv_cm_id {
	struct ffv_context *verbs; /* once bound to an address, or resolved; shared by all ids of the process */
	struct ffv_cm_channel *channel;
	void *context;
	struct ffv_qp *qp;
	struct ffv_cm_route route;
	uint32_t ps;               /* enum ffv_cm_port_space */
	uint8_t port_num;
	struct ffv_cm_event *event; /* of synchronous ids: the last one */
	struct ffv_comp_channel *send_cq_channel;
	struct ffv_cq *send_cq;
	struct ffv_comp_channel *recv_cq_channel;
	struct ffv_cq *recv_cq;
	struct ffv_srq *srq;
	struct ffv_pd *pd;
	uint32_t qp_type;
};

struct ffv_cm_conn_param {
	const void *private_data;
	uint8_t private_data_len;
	uint8_t responder_resources;
	uint8_t initiator_depth;
	uint8_t flow_control;
	uint8_t retry_count;       /* not used when accepting */
	uint8_t rnr_retry_count;   /* of the peer's sends */
	uint8_t srq;               /* these two: of an external queue pair */
	uint32_t qp_num;
};

struct ffv_cm_ud_param {
	const void *private_data;
	uint8_t private_data_len;
	struct ffv_ah_attr ah_attr;
	uint32_t qp_num;
	uint32_t qkey;
};

union ffv_cm_param { struct ffv_cm_conn_param conn; struct ffv_cm_ud_param ud; };

struct ffv_cm_event {
	struct ffv_cm_id *id;
	struct ffv_cm_id *listen_id;
	uint32_t event;            /* enum ffv_cm_event_type */
	int status;                /* 0, a negative errno, or a reason as above */
	union ffv_cm_param param;
};

struct ffv_cm_addrinfo {
	int flags;
	int family;
	int qp_type;
	int port_space;
	uint32_t src_len;
	uint32_t dst_len;
	struct sockaddr *src_addr;
	struct sockaddr *dst_addr;
	char *src_canonname;
	char *dst_canonname;
	size_t route_len;
	void *route;
	size_t connect_len;
	void *connect;
	struct ffv_cm_addrinfo *next;
};

struct ffv_cm_join_attr {          /* of struct rdma_cm_join_mc_attr_ex */
	uint32_t comp_mask;
	uint32_t join_flags;
	struct sockaddr *addr;
};

struct ffv_cm_ece { uint32_t vendor_id; uint32_t options; uint32_t comp_mask; }; /* of struct ibv_ece */

/* ---- channels and events ----------------------------------------------------------------------------------------- */

int ffv_cm_create_channel(struct ffv_cm_channel **out);
/* -EBUSY while an id uses it. */
int ffv_cm_destroy_channel(struct ffv_cm_channel *channel);
/* Waits for the next event (-EAGAIN if the descriptor is O_NONBLOCK, -EINTR after a signal handler). Every event must be
 * acknowledged: destroying its id, or for a connect request the listening one, waits for that. */
int ffv_cm_get_event(struct ffv_cm_channel *channel, struct ffv_cm_event **out);
int ffv_cm_ack_event(struct ffv_cm_event *event);
const char *ffv_cm_event_str(uint32_t event_type);

/* ---- ids ---------------------------------------------------------------------------------------------------------- */

int ffv_cm_create_id(struct ffv_cm_channel *channel, struct ffv_cm_id **out, void *context, uint32_t port_space);
/* After a call on a synchronous id was interrupted by a signal handler (-EINTR): goes on waiting for its result. */
int ffv_cm_wait(struct ffv_cm_id *id);
/* Ends its connection. Its queue pair, if it was created on it, must have been destroyed: -EBUSY. */
int ffv_cm_destroy_id(struct ffv_cm_id *id);
/* Moves the id, and its events that nobody read yet, to another channel (NULL: one of its own; it is synchronous then).
 * Waits until the events that were read are acknowledged. */
int ffv_cm_migrate_id(struct ffv_cm_id *id, struct ffv_cm_channel *channel);
/* -EINVAL for unknown levels and options, or a value of the wrong size. */
int ffv_cm_set_option(struct ffv_cm_id *id, int level, int option, const void *value, size_t length);

/* Port 0 chooses a free one. -EADDRINUSE, -ENODEV if it is no address of the container. */
int ffv_cm_bind_addr(struct ffv_cm_id *id, const struct sockaddr *addr);
/* backlog: connect requests that may wait to be read; 0 = as many as possible (1024). Others are rejected. */
int ffv_cm_listen(struct ffv_cm_id *id, int backlog);
uint16_t ffv_cm_src_port_be(const struct ffv_cm_id *id);
uint16_t ffv_cm_dst_port_be(const struct ffv_cm_id *id);

/* Looks for the container of an address, for at most timeout_ms: ADDR_RESOLVED, or ADDR_ERROR with -ETIMEDOUT. */
int ffv_cm_resolve_addr(struct ffv_cm_id *id, const struct sockaddr *src, const struct sockaddr *dst, int timeout_ms);
int ffv_cm_resolve_route(struct ffv_cm_id *id, int timeout_ms);

/* pd NULL = the id's. Queues that attr does not name are created, with channels, in the id. */
int ffv_cm_create_qp(struct ffv_cm_id *id, struct ffv_pd *pd, struct ffv_qp_init_attr *attr);
/* Destroys it with the queues that were created for it. */
int ffv_cm_destroy_qp(struct ffv_cm_id *id);
/* attr->qp_state says for which state; *mask gets what is set in attr: as for INIT as long as the peer is not known. */
int ffv_cm_init_qp_attr(struct ffv_cm_id *id, struct ffv_qp_attr *attr, uint32_t *mask);

/* ---- connections -------------------------------------------------------------------------------------------------- */

/* param may be NULL when the id has a queue pair. -EINVAL for values or private data beyond the limits. */
int ffv_cm_connect(struct ffv_cm_id *id, const struct ffv_cm_conn_param *param);
int ffv_cm_accept(struct ffv_cm_id *id, const struct ffv_cm_conn_param *param);
int ffv_cm_reject(struct ffv_cm_id *id, const void *private_data, uint8_t private_data_len);
/* Of the active side with an external queue pair, after CONNECT_RESPONSE. */
int ffv_cm_establish(struct ffv_cm_id *id);
/* event_type 4 (IBV_EVENT_COMM_EST): data came over the connection before the peer said that it stands. -EISCONN. */
int ffv_cm_notify(struct ffv_cm_id *id, uint32_t event_type);
/* The queue pair goes to ERR at once; DISCONNECTED comes when the peer has disconnected as well. */
int ffv_cm_disconnect(struct ffv_cm_id *id);
int ffv_cm_set_local_ece(struct ffv_cm_id *id, const struct ffv_cm_ece *ece);
int ffv_cm_get_remote_ece(struct ffv_cm_id *id, struct ffv_cm_ece *ece);

/* Datagram ids. MULTICAST_JOIN tells the group's address; ffv_cm_get_event has then attached the id's queue pair. */
int ffv_cm_join_multicast(struct ffv_cm_id *id, const struct sockaddr *addr, void *context);
int ffv_cm_join_multicast_ex(struct ffv_cm_id *id, const struct ffv_cm_join_attr *attr, void *context);
int ffv_cm_leave_multicast(struct ffv_cm_id *id, const struct sockaddr *addr);

/* ---- names -------------------------------------------------------------------------------------------------------- */

/* As getaddrinfo: -ENOENT unknown name, -EAGAIN for now, -EINVAL hints, service or family. */
int ffv_cm_getaddrinfo(const char *node, const char *service, const struct ffv_cm_addrinfo *hints,
		       struct ffv_cm_addrinfo **out);
void ffv_cm_freeaddrinfo(struct ffv_cm_addrinfo *info);
/* The same for an id, reported by an event (ADDRINFO_RESOLVED, ADDRINFO_ERROR); the hints must have FFV_RAI_DNS. */
int ffv_cm_resolve_addrinfo(struct ffv_cm_id *id, const char *node, const char *service,
			    const struct ffv_cm_addrinfo *hints);
/* A copy of what was found, for ffv_cm_freeaddrinfo. -ENODATA if nothing was. */
int ffv_cm_query_addrinfo(struct ffv_cm_id *id, struct ffv_cm_addrinfo **out);

/* ---- endpoints: ids in few calls ---------------------------------------------------------------------------------- */

/* A synchronous id from an address: bound to it (FFV_RAI_PASSIVE; attr and pd are for the ids of its connect requests),
 * or resolved, with a queue pair if attr is given. */
int ffv_cm_create_ep(struct ffv_cm_id **out, const struct ffv_cm_addrinfo *info, struct ffv_pd *pd,
		     struct ffv_qp_init_attr *attr);
int ffv_cm_destroy_ep(struct ffv_cm_id *id);
/* Waits for a connect request on a synchronous listening id. */
int ffv_cm_get_request(struct ffv_cm_id *listen, struct ffv_cm_id **out);

/* ---- verbs on ids ------------------------------------------------------------------------------------------------- */

int ffv_cm_reg_msgs(struct ffv_cm_id *id, void *addr, size_t length, struct ffv_mr **out);
int ffv_cm_reg_read(struct ffv_cm_id *id, void *addr, size_t length, struct ffv_mr **out);
int ffv_cm_reg_write(struct ffv_cm_id *id, void *addr, size_t length, struct ffv_mr **out);
int ffv_cm_post_recv(struct ffv_cm_id *id, void *context, void *addr, size_t length, struct ffv_mr *mr);
int ffv_cm_post_send(struct ffv_cm_id *id, void *context, void *addr, size_t length, struct ffv_mr *mr, uint32_t flags);
int ffv_cm_post_read(struct ffv_cm_id *id, void *context, void *addr, size_t length, struct ffv_mr *mr, uint32_t flags,
		     uint64_t remote_addr, uint32_t rkey);
int ffv_cm_post_write(struct ffv_cm_id *id, void *context, void *addr, size_t length, struct ffv_mr *mr, uint32_t flags,
		      uint64_t remote_addr, uint32_t rkey);
/* To the Q_Key of all datagram ids. */
int ffv_cm_post_ud_send(struct ffv_cm_id *id, void *context, void *addr, size_t length, struct ffv_mr *mr,
			uint32_t flags, struct ffv_ah *ah, uint32_t remote_qpn);
/* Wait for a completion of the id's own queues: 1. */
int ffv_cm_get_send_comp(struct ffv_cm_id *id, struct ffv_wc *wc);
int ffv_cm_get_recv_comp(struct ffv_cm_id *id, struct ffv_wc *wc);

#ifdef __cplusplus
}
#endif
#endif

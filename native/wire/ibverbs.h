/* SPDX-License-Identifier: MIT
 *
 * The machine's own libibverbs, found when the router runs (docs/decisions/0025): what of its binary interface the
 * transport `rdma` needs, declared here so that the package builds and loads where there is none of it. Work requests,
 * scatter/gather entries and completions have the layout of ffv.h's, and values of enumerations are the same. The names
 * begin with `real_`, so that both interfaces can be in one file; tests/native/wire/test_ibverbs.c compares every offset
 * with libibverbs' headers where these are installed.
 */
#ifndef FFV_WIRE_IBVERBS_H
#define FFV_WIRE_IBVERBS_H

#include <stddef.h>
#include <stdint.h>

#include <ffverbs/ffv.h>

struct real_device;               /* opaque to us, like those that are only named below */
struct real_pd;
struct real_cq;
struct real_qp;

/* The calls of the fast path are not exported: they are entries of a table in the context. */
struct real_context {
	struct real_device *device;
	void *calls_0_to_10[11];
	int (*poll_cq)(struct real_cq *cq, int count, struct ffv_wc *wc);
	int (*req_notify_cq)(struct real_cq *cq, int solicited_only);
	void *calls_13_to_24[12];
	int (*post_send)(struct real_qp *qp, struct ffv_send_wr *wr, struct ffv_send_wr **bad);
	int (*post_recv)(struct real_qp *qp, struct ffv_recv_wr *wr, struct ffv_recv_wr **bad);
	void *calls_27_to_31[5];
	int cmd_fd;
	int async_fd;
};

struct real_comp_channel { struct real_context *context; int fd; };
struct real_mr { struct real_context *context; struct real_pd *pd; void *addr; size_t length; uint32_t handle, lkey, rkey; };

struct real_qp {
	struct real_context *context;
	void *qp_context;
	struct real_pd *pd;
	struct real_cq *send_cq, *recv_cq;
	void *srq;
	uint32_t handle;
	uint32_t qp_num;
};

struct real_port_attr {           /* as far as the exported query goes, and room for what it may grow to */
	uint32_t state, max_mtu, active_mtu;
	int gid_tbl_len;
	uint32_t port_cap_flags, max_msg_sz, bad_pkey_cntr, qkey_viol_cntr;
	uint16_t pkey_tbl_len, lid, sm_lid;
	uint8_t lmc, max_vl_num, sm_sl, subnet_timeout, init_type_reply, active_width, active_speed, phys_state;
	uint8_t link_layer, flags;
	uint8_t room[64];
};

struct real_gid_entry { uint8_t gid[16]; uint32_t gid_index, port_num, gid_type, ndev_ifindex; };

struct real_ah_attr {
	uint8_t dgid[16] __attribute__((aligned(8)));
	uint32_t flow_label;
	uint8_t sgid_index, hop_limit, traffic_class;
	uint16_t dlid __attribute__((aligned(8)));
	uint8_t sl, src_path_bits, static_rate, is_global, port_num;
} __attribute__((aligned(8)));

struct real_qp_cap { uint32_t max_send_wr, max_recv_wr, max_send_sge, max_recv_sge, max_inline_data; };

struct real_qp_init_attr {
	void *qp_context;
	struct real_cq *send_cq, *recv_cq;
	void *srq;
	struct real_qp_cap cap;
	uint32_t qp_type;
	int sq_sig_all;
};

struct real_qp_attr {
	uint32_t qp_state, cur_qp_state, path_mtu, path_mig_state, qkey, rq_psn, sq_psn, dest_qp_num, qp_access_flags;
	struct real_qp_cap cap;
	struct real_ah_attr ah_attr, alt_ah_attr;
	uint16_t pkey_index, alt_pkey_index;
	uint8_t en_sqd_async_notify, sq_draining, max_rd_atomic, max_dest_rd_atomic, min_rnr_timer, port_num, timeout,
		retry_cnt, rnr_retry, alt_port_num, alt_timeout;
	uint32_t rate_limit;
};

struct real_async_event { union { void *object; int port_num; } element; uint32_t event_type; };

enum { REAL_PORT_ACTIVE = 4, REAL_LINK_INFINIBAND = 1, REAL_LINK_ETHERNET = 2 };
enum { REAL_GID_IB = 0, REAL_GID_ROCE_V1 = 1, REAL_GID_ROCE_V2 = 2 };
enum { REAL_EVENT_QP_FATAL = 1, REAL_EVENT_QP_REQ_ERR = 2, REAL_EVENT_QP_ACCESS_ERR = 3, REAL_EVENT_DEVICE_FATAL = 8,
       REAL_EVENT_PORT_ACTIVE = 9, REAL_EVENT_PORT_ERR = 10 };

/* The exported calls, by their names without `ibv_`. */
struct ffv_ibverbs {
	struct real_device **(*get_device_list)(int *count);
	void (*free_device_list)(struct real_device **list);
	const char *(*get_device_name)(struct real_device *device);
	struct real_context *(*open_device)(struct real_device *device);
	int (*close_device)(struct real_context *context);
	int (*query_port)(struct real_context *context, uint8_t port, struct real_port_attr *attr);
	int (*query_gid_ex)(struct real_context *context, uint32_t port, uint32_t index, struct real_gid_entry *entry,
			    uint32_t flags, size_t entry_bytes);
	int (*get_async_event)(struct real_context *context, struct real_async_event *event);
	void (*ack_async_event)(struct real_async_event *event);
	struct real_pd *(*alloc_pd)(struct real_context *context);
	int (*dealloc_pd)(struct real_pd *pd);
	struct real_mr *(*reg_mr)(struct real_pd *pd, void *addr, size_t length, int access);
	int (*dereg_mr)(struct real_mr *mr);
	struct real_comp_channel *(*create_comp_channel)(struct real_context *context);
	int (*destroy_comp_channel)(struct real_comp_channel *channel);
	struct real_cq *(*create_cq)(struct real_context *context, int cqe, void *cq_context,
				     struct real_comp_channel *channel, int vector);
	int (*destroy_cq)(struct real_cq *cq);
	int (*get_cq_event)(struct real_comp_channel *channel, struct real_cq **cq, void **cq_context);
	void (*ack_cq_events)(struct real_cq *cq, unsigned count);
	struct real_qp *(*create_qp)(struct real_pd *pd, struct real_qp_init_attr *attr);
	int (*modify_qp)(struct real_qp *qp, struct real_qp_attr *attr, int mask);
	int (*destroy_qp)(struct real_qp *qp);
	const char *(*wc_status_str)(uint32_t status);
};

/* The library, loaded once for the process and kept: -ENOENT if it is not there, -EOPNOTSUPP if it is too old, and one line
 * in ffv_error_text(). FFVERBS_LIBIBVERBS names another file than libibverbs.so.1. From any thread. */
int ffv_ibverbs_load(const struct ffv_ibverbs **out);

#endif

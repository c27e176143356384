/* SPDX-License-Identifier: MIT
 *
 * ffverbs: RDMA verbs in software. The engine's only public header.
 *
 * Conventions of every call:
 *  - 0 or a count on success, a negative errno on failure; outputs are written only on success, and a failed call
 *    changes nothing. After a failure ffv_error_text() tells, for the calling thread, what was asked, what is wrong
 *    and what to do.
 *  - All calls may be made from several threads at once, also on the same object, except that destroying an object
 *    while another thread uses it is the caller's mistake (as in libibverbs).
 *  - After fork() the child owns nothing of the parent's contexts: calls on them fail with -EOWNERDEAD, destroy calls
 *    only free the child's private memory.
 *
 * Structs of the data path and of attributes have the layout and the values of libibverbs (InfiniBand Architecture
 * Specification, volume 1, chapters 10 and 11; checked against its headers by tests/native/test_layout.c), so that
 * a libibverbs face needs no conversion. Enumerations are fixed-width integers here; their values are those of the
 * libibverbs enumerations named in the comments.
 */
#ifndef FFVERBS_FFV_H
#define FFVERBS_FFV_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include <ffverbs/ffv_flow.h>

#define FFV_ABI_VERSION 1

/* ---- values ----------------------------------------------------------------------------------------------------- */

enum ffv_qp_type {
	FFV_QPT_RC = 2, FFV_QPT_UC = 3, FFV_QPT_UD = 4, FFV_QPT_RAW_PACKET = 8, FFV_QPT_XRC_SEND = 9, FFV_QPT_XRC_RECV = 10
};

enum ffv_qp_state {
	FFV_QPS_RESET = 0, FFV_QPS_INIT = 1, FFV_QPS_RTR = 2, FFV_QPS_RTS = 3,
	FFV_QPS_SQD = 4, FFV_QPS_SQE = 5, FFV_QPS_ERR = 6, FFV_QPS_UNKNOWN = 7
};

enum ffv_qp_attr_mask {
	FFV_QP_STATE = 1, FFV_QP_CUR_STATE = 2, FFV_QP_EN_SQD_ASYNC_NOTIFY = 4, FFV_QP_ACCESS_FLAGS = 8,
	FFV_QP_PKEY_INDEX = 16, FFV_QP_PORT = 32, FFV_QP_QKEY = 64, FFV_QP_AV = 128, FFV_QP_PATH_MTU = 256,
	FFV_QP_TIMEOUT = 512, FFV_QP_RETRY_CNT = 1024, FFV_QP_RNR_RETRY = 2048, FFV_QP_RQ_PSN = 4096,
	FFV_QP_MAX_QP_RD_ATOMIC = 8192, FFV_QP_ALT_PATH = 16384, FFV_QP_MIN_RNR_TIMER = 32768, FFV_QP_SQ_PSN = 65536,
	FFV_QP_MAX_DEST_RD_ATOMIC = 131072, FFV_QP_PATH_MIG_STATE = 262144, FFV_QP_CAP = 524288,
	FFV_QP_DEST_QPN = 1048576, FFV_QP_RATE_LIMIT = 33554432
};

enum ffv_wr_opcode {
	FFV_WR_RDMA_WRITE = 0, FFV_WR_RDMA_WRITE_WITH_IMM = 1, FFV_WR_SEND = 2, FFV_WR_SEND_WITH_IMM = 3,
	FFV_WR_RDMA_READ = 4, FFV_WR_ATOMIC_CMP_AND_SWP = 5, FFV_WR_ATOMIC_FETCH_AND_ADD = 6, FFV_WR_LOCAL_INV = 7,
	FFV_WR_BIND_MW = 8, FFV_WR_SEND_WITH_INV = 9, FFV_WR_FLUSH = 14, FFV_WR_ATOMIC_WRITE = 15
};

enum ffv_send_flags {
	FFV_SEND_FENCE = 1, FFV_SEND_SIGNALED = 2, FFV_SEND_SOLICITED = 4, FFV_SEND_INLINE = 8,
	FFV_SEND_IP_CSUM = 16       /* raw packets: IPv4, TCP and UDP checksums are filled in */
};

enum ffv_wc_status {
	FFV_WC_SUCCESS = 0, FFV_WC_LOC_LEN_ERR = 1, FFV_WC_LOC_QP_OP_ERR = 2, FFV_WC_LOC_EEC_OP_ERR = 3,
	FFV_WC_LOC_PROT_ERR = 4, FFV_WC_WR_FLUSH_ERR = 5, FFV_WC_MW_BIND_ERR = 6, FFV_WC_BAD_RESP_ERR = 7,
	FFV_WC_LOC_ACCESS_ERR = 8, FFV_WC_REM_INV_REQ_ERR = 9, FFV_WC_REM_ACCESS_ERR = 10, FFV_WC_REM_OP_ERR = 11,
	FFV_WC_RETRY_EXC_ERR = 12, FFV_WC_RNR_RETRY_EXC_ERR = 13, FFV_WC_LOC_RDD_VIOL_ERR = 14,
	FFV_WC_REM_INV_RD_REQ_ERR = 15, FFV_WC_REM_ABORT_ERR = 16, FFV_WC_INV_EECN_ERR = 17,
	FFV_WC_INV_EEC_STATE_ERR = 18, FFV_WC_FATAL_ERR = 19, FFV_WC_RESP_TIMEOUT_ERR = 20, FFV_WC_GENERAL_ERR = 21,
	FFV_WC_TM_ERR = 22, FFV_WC_TM_RNDV_INCOMPLETE = 23
};

enum ffv_wc_opcode {
	FFV_WC_SEND = 0, FFV_WC_RDMA_WRITE = 1, FFV_WC_RDMA_READ = 2, FFV_WC_COMP_SWAP = 3, FFV_WC_FETCH_ADD = 4,
	FFV_WC_BIND_MW = 5, FFV_WC_LOCAL_INV = 6, FFV_WC_FLUSH = 8, FFV_WC_ATOMIC_WRITE = 9, FFV_WC_RECV = 128,
	FFV_WC_RECV_RDMA_WITH_IMM = 129,
	FFV_WC_TM_ADD = 130, FFV_WC_TM_DEL = 131, FFV_WC_TM_SYNC = 132, FFV_WC_TM_RECV = 133, FFV_WC_TM_NO_TAG = 134
};

enum ffv_wc_flags {
	FFV_WC_GRH = 1, FFV_WC_WITH_IMM = 2, FFV_WC_IP_CSUM_OK = 4, FFV_WC_WITH_INV = 8, FFV_WC_TM_SYNC_REQ = 16,
	FFV_WC_TM_MATCH = 32, FFV_WC_TM_DATA_VALID = 64
};

enum ffv_access_flags {
	FFV_ACCESS_LOCAL_WRITE = 1, FFV_ACCESS_REMOTE_WRITE = 2, FFV_ACCESS_REMOTE_READ = 4, FFV_ACCESS_REMOTE_ATOMIC = 8,
	FFV_ACCESS_MW_BIND = 16, FFV_ACCESS_ZERO_BASED = 32, FFV_ACCESS_ON_DEMAND = 64, FFV_ACCESS_HUGETLB = 128,
	FFV_ACCESS_FLUSH_GLOBAL = 256, FFV_ACCESS_FLUSH_PERSISTENT = 512,
	FFV_ACCESS_RELAXED_ORDERING = 1048576
};

enum ffv_srq_attr_mask { FFV_SRQ_MAX_WR = 1, FFV_SRQ_LIMIT = 2 };

enum ffv_event_type {
	FFV_EVENT_CQ_ERR = 0, FFV_EVENT_QP_FATAL = 1, FFV_EVENT_QP_REQ_ERR = 2, FFV_EVENT_QP_ACCESS_ERR = 3,
	FFV_EVENT_COMM_EST = 4, FFV_EVENT_SQ_DRAINED = 5, FFV_EVENT_DEVICE_FATAL = 8, FFV_EVENT_SRQ_ERR = 14,
	FFV_EVENT_SRQ_LIMIT_REACHED = 15, FFV_EVENT_QP_LAST_WQE_REACHED = 16,
	FFV_EVENT_WQ_FATAL = 19
};

/* ---- structs with the layout of libibverbs ---------------------------------------------------------------------- */

struct ffv_context;
struct ffv_pd;
struct ffv_comp_channel;
struct ffv_cq;
struct ffv_srq;
struct ffv_qp;
struct ffv_ah;
struct ffv_mw;
struct ffv_dm;
struct ffv_td;
struct ffv_buf;
struct ffv_comp_cntr;
struct ffv_xrcd;
struct ffv_wq;
struct ffv_rwq_ind_table;

struct ffv_gid { uint8_t raw[16]; };

/* union ibv_gid is aligned to 8; these two are only ever embedded where the alignment falls out the same. */
struct ffv_global_route {
	uint64_t dgid_subnet_prefix_be;
	uint64_t dgid_interface_id_be;
	uint32_t flow_label;
	uint8_t sgid_index;
	uint8_t hop_limit;
	uint8_t traffic_class;
};

struct ffv_grh {
	uint32_t version_tclass_flow_be;
	uint16_t paylen_be;
	uint8_t next_hdr;
	uint8_t hop_limit;
	struct ffv_gid sgid;
	struct ffv_gid dgid;
};

struct ffv_ah_attr {
	struct ffv_global_route grh;
	uint16_t dlid;
	uint8_t sl;
	uint8_t src_path_bits;
	uint8_t static_rate;
	uint8_t is_global;
	uint8_t port_num;
};

struct ffv_sge { uint64_t addr; uint32_t length; uint32_t lkey; };

struct ffv_mr {
	struct ffv_context *context;
	struct ffv_pd *pd;
	void *addr;
	size_t length;
	uint32_t handle;
	uint32_t lkey;
	uint32_t rkey;
};

struct ffv_mw_bind_info {
	struct ffv_mr *mr;
	uint64_t addr;
	uint64_t length;
	uint32_t mw_access_flags;
};

enum ffv_wq_type { FFV_WQT_RQ = 0 };
enum ffv_wq_state { FFV_WQS_RESET = 0, FFV_WQS_RDY = 1, FFV_WQS_ERR = 2, FFV_WQS_UNKNOWN = 3 };
enum ffv_wq_init_attr_mask { FFV_WQ_INIT_ATTR_FLAGS = 1 };
enum ffv_wq_attr_mask { FFV_WQ_ATTR_STATE = 1, FFV_WQ_ATTR_CURR_STATE = 2, FFV_WQ_ATTR_FLAGS = 4 };

struct ffv_wq_init_attr {
	void *wq_context;
	uint32_t wq_type;           /* enum ffv_wq_type */
	uint32_t max_wr;            /* in: asked for; out: granted */
	uint32_t max_sge;
	struct ffv_pd *pd;
	struct ffv_cq *cq;
	uint32_t comp_mask;         /* enum ffv_wq_init_attr_mask */
	uint32_t create_flags;
};

struct ffv_wq_attr {
	uint32_t attr_mask;         /* enum ffv_wq_attr_mask */
	uint32_t wq_state;          /* enum ffv_wq_state */
	uint32_t curr_wq_state;
	uint32_t flags;
	uint32_t flags_mask;
};

struct ffv_rwq_ind_table_init_attr {
	uint32_t log_ind_tbl_size;
	struct ffv_wq **ind_tbl;    /* 2^log_ind_tbl_size */
	uint32_t comp_mask;
};

struct ffv_wr_rdma { uint64_t remote_addr; uint32_t rkey; };
struct ffv_wr_atomic { uint64_t remote_addr; uint64_t compare_add; uint64_t swap; uint32_t rkey; };
struct ffv_wr_ud { struct ffv_ah *ah; uint32_t remote_qpn; uint32_t remote_qkey; };
struct ffv_wr_bind_mw { struct ffv_mw *mw; uint32_t rkey; struct ffv_mw_bind_info bind_info; };
struct ffv_wr_tso { void *hdr; uint16_t hdr_sz; uint16_t mss; };

union ffv_wr_op { struct ffv_wr_rdma rdma; struct ffv_wr_atomic atomic; struct ffv_wr_ud ud; };
union ffv_wr_tail { struct ffv_wr_bind_mw bind_mw; struct ffv_wr_tso tso; };

struct ffv_send_wr {
	uint64_t wr_id;
	struct ffv_send_wr *next;
	struct ffv_sge *sg_list;
	int num_sge;
	uint32_t opcode;            /* enum ffv_wr_opcode */
	uint32_t send_flags;        /* enum ffv_send_flags */
	uint32_t imm_data_be;       /* or the rkey to invalidate, in host order */
	union ffv_wr_op wr;
	uint32_t xrc_remote_srqn;
	union ffv_wr_tail tail;
};

struct ffv_recv_wr {
	uint64_t wr_id;
	struct ffv_recv_wr *next;
	struct ffv_sge *sg_list;
	int num_sge;
};

struct ffv_wc {
	uint64_t wr_id;
	uint32_t status;            /* enum ffv_wc_status */
	uint32_t opcode;            /* enum ffv_wc_opcode */
	uint32_t vendor_err;
	uint32_t byte_len;
	uint32_t imm_data_be;       /* or the invalidated rkey, in host order */
	uint32_t qp_num;
	uint32_t src_qp;
	uint32_t wc_flags;          /* enum ffv_wc_flags */
	uint16_t pkey_index;
	uint16_t slid;
	uint8_t sl;
	uint8_t dlid_path_bits;
};

enum ffv_create_cq_wc_flags {
	FFV_WC_EX_WITH_BYTE_LEN = 1, FFV_WC_EX_WITH_IMM = 2, FFV_WC_EX_WITH_QP_NUM = 4, FFV_WC_EX_WITH_SRC_QP = 8,
	FFV_WC_EX_WITH_SLID = 16, FFV_WC_EX_WITH_SL = 32, FFV_WC_EX_WITH_DLID_PATH_BITS = 64,
	FFV_WC_EX_WITH_COMPLETION_TIMESTAMP = 128, FFV_WC_EX_WITH_CVLAN = 256, FFV_WC_EX_WITH_FLOW_TAG = 512,
	FFV_WC_EX_WITH_TM_INFO = 1024, FFV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK = 2048
};
enum ffv_cq_init_attr_mask { FFV_CQ_INIT_ATTR_MASK_FLAGS = 1, FFV_CQ_INIT_ATTR_MASK_PD = 2 };
enum ffv_create_cq_attr_flags { FFV_CREATE_CQ_ATTR_SINGLE_THREADED = 1, FFV_CREATE_CQ_ATTR_IGNORE_OVERRUN = 2 };

struct ffv_cq_init_attr_ex {
	uint32_t cqe;
	void *cq_context;
	struct ffv_comp_channel *channel;
	uint32_t comp_vector;
	uint64_t wc_flags;          /* enum ffv_create_cq_wc_flags */
	uint32_t comp_mask;         /* enum ffv_cq_init_attr_mask */
	uint32_t flags;             /* enum ffv_create_cq_attr_flags */
	struct ffv_pd *parent_domain;
};

enum ffv_cq_attr_mask { FFV_CQ_ATTR_MODERATE = 1 };
struct ffv_moderate_cq { uint16_t cq_count; uint16_t cq_period; };  /* completions; microseconds */
struct ffv_modify_cq_attr { uint32_t attr_mask; struct ffv_moderate_cq moderate; };

struct ffv_poll_cq_attr { uint32_t comp_mask; };

struct ffv_qp_cap {
	uint32_t max_send_wr;
	uint32_t max_recv_wr;
	uint32_t max_send_sge;
	uint32_t max_recv_sge;
	uint32_t max_inline_data;
};

struct ffv_qp_init_attr {
	void *qp_context;
	struct ffv_cq *send_cq;
	struct ffv_cq *recv_cq;
	struct ffv_srq *srq;
	struct ffv_qp_cap cap;      /* in: asked for; out: granted */
	uint32_t qp_type;           /* enum ffv_qp_type */
	int sq_sig_all;
};

enum ffv_qp_init_attr_mask {
	FFV_QP_INIT_ATTR_PD = 1, FFV_QP_INIT_ATTR_XRCD = 2, FFV_QP_INIT_ATTR_CREATE_FLAGS = 4,
	FFV_QP_INIT_ATTR_MAX_TSO_HEADER = 8, FFV_QP_INIT_ATTR_IND_TABLE = 16, FFV_QP_INIT_ATTR_RX_HASH = 32,
	FFV_QP_INIT_ATTR_SEND_OPS_FLAGS = 64
};

enum ffv_qp_create_flags { FFV_QP_CREATE_BLOCK_SELF_MCAST_LB = 2 };

enum ffv_rx_hash_function { FFV_RX_HASH_FUNC_TOEPLITZ = 1 };

enum ffv_rx_hash_fields {
	FFV_RX_HASH_SRC_IPV4 = 1, FFV_RX_HASH_DST_IPV4 = 2, FFV_RX_HASH_SRC_IPV6 = 4, FFV_RX_HASH_DST_IPV6 = 8,
	FFV_RX_HASH_SRC_PORT_TCP = 16, FFV_RX_HASH_DST_PORT_TCP = 32, FFV_RX_HASH_SRC_PORT_UDP = 64,
	FFV_RX_HASH_DST_PORT_UDP = 128, FFV_RX_HASH_ALL_FIELDS = 255
};

struct ffv_rx_hash_conf {
	uint8_t rx_hash_function;
	uint8_t rx_hash_key_len;
	uint8_t *rx_hash_key;
	uint64_t rx_hash_fields_mask;
};

enum ffv_qp_create_send_ops_flags {
	FFV_QP_EX_WITH_RDMA_WRITE = 1, FFV_QP_EX_WITH_RDMA_WRITE_WITH_IMM = 2, FFV_QP_EX_WITH_SEND = 4,
	FFV_QP_EX_WITH_SEND_WITH_IMM = 8, FFV_QP_EX_WITH_RDMA_READ = 16, FFV_QP_EX_WITH_ATOMIC_CMP_AND_SWP = 32,
	FFV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD = 64, FFV_QP_EX_WITH_LOCAL_INV = 128, FFV_QP_EX_WITH_BIND_MW = 256,
	FFV_QP_EX_WITH_SEND_WITH_INV = 512, FFV_QP_EX_WITH_TSO = 1024, FFV_QP_EX_WITH_FLUSH = 2048,
	FFV_QP_EX_WITH_ATOMIC_WRITE = 4096
};
enum ffv_placement_type { FFV_FLUSH_GLOBAL = 1, FFV_FLUSH_PERSISTENT = 2 };
enum ffv_selectivity_level { FFV_FLUSH_RANGE = 0, FFV_FLUSH_MR = 1 };

struct ffv_data_buf { void *addr; size_t length; };

/* Begins like struct ffv_qp_init_attr. */
struct ffv_qp_init_attr_ex {
	void *qp_context;
	struct ffv_cq *send_cq;
	struct ffv_cq *recv_cq;
	struct ffv_srq *srq;
	struct ffv_qp_cap cap;
	uint32_t qp_type;
	int sq_sig_all;
	uint32_t comp_mask;         /* enum ffv_qp_init_attr_mask: which of the following count */
	struct ffv_pd *pd;
	struct ffv_xrcd *xrcd;
	uint32_t create_flags;
	uint16_t max_tso_header;
	struct ffv_rwq_ind_table *rwq_ind_tbl;
	struct ffv_rx_hash_conf rx_hash_conf;
	uint32_t source_qpn;        /* with the creation flag SOURCE_QPN */
	uint64_t send_ops_flags;
};

struct ffv_qp_attr {
	uint32_t qp_state;          /* enum ffv_qp_state */
	uint32_t cur_qp_state;
	uint32_t path_mtu;          /* enum ibv_mtu: 1 = 256 bytes .. 5 = 4096 bytes */
	uint32_t path_mig_state;
	uint32_t qkey;
	uint32_t rq_psn;
	uint32_t sq_psn;
	uint32_t dest_qp_num;
	uint32_t qp_access_flags;
	struct ffv_qp_cap cap;
	struct ffv_ah_attr ah_attr;
	struct ffv_ah_attr alt_ah_attr;
	uint16_t pkey_index;
	uint16_t alt_pkey_index;
	uint8_t en_sqd_async_notify;
	uint8_t sq_draining;
	uint8_t max_rd_atomic;
	uint8_t max_dest_rd_atomic;
	uint8_t min_rnr_timer;      /* encoded as in the specification, 9.7.5.2.8 */
	uint8_t port_num;
	uint8_t timeout;            /* 4.096 us * 2^timeout; 0 = none */
	uint8_t retry_cnt;
	uint8_t rnr_retry;          /* 7 = without end */
	uint8_t alt_port_num;
	uint8_t alt_timeout;
	uint32_t rate_limit;
};

struct ffv_srq_attr { uint32_t max_wr; uint32_t max_sge; uint32_t srq_limit; };
struct ffv_srq_init_attr { void *srq_context; struct ffv_srq_attr attr; };

enum ffv_srq_type { FFV_SRQT_BASIC = 0, FFV_SRQT_XRC = 1, FFV_SRQT_TM = 2 };

enum ffv_srq_init_attr_mask {
	FFV_SRQ_INIT_ATTR_TYPE = 1, FFV_SRQ_INIT_ATTR_PD = 2, FFV_SRQ_INIT_ATTR_XRCD = 4, FFV_SRQ_INIT_ATTR_CQ = 8,
	FFV_SRQ_INIT_ATTR_TM = 16
};

struct ffv_tm_cap { uint32_t max_num_tags; uint32_t max_ops; };

struct ffv_srq_init_attr_ex {
	void *srq_context;
	struct ffv_srq_attr attr;   /* in: asked for; out: granted */
	uint32_t comp_mask;         /* enum ffv_srq_init_attr_mask: which of the following count */
	uint32_t srq_type;          /* enum ffv_srq_type */
	struct ffv_pd *pd;
	struct ffv_xrcd *xrcd;
	struct ffv_cq *cq;
	struct ffv_tm_cap tm_cap;
};

enum ffv_ops_wr_opcode { FFV_WR_TAG_ADD = 0, FFV_WR_TAG_DEL = 1, FFV_WR_TAG_SYNC = 2 };
enum ffv_ops_flags { FFV_OPS_SIGNALED = 1, FFV_OPS_TM_SYNC = 2 };

struct ffv_ops_tag_add {
	uint64_t recv_wr_id;        /* of the completion of the message that the tag receives */
	struct ffv_sge *sg_list;
	int num_sge;
	uint64_t tag;
	uint64_t mask;              /* a message matches if its tag & mask == tag */
};

struct ffv_ops_tm {
	uint32_t unexpected_cnt;    /* unexpected messages that the application has handled */
	uint32_t handle;            /* DEL: in; ADD: out */
	struct ffv_ops_tag_add add;
};

struct ffv_ops_wr {
	uint64_t wr_id;
	struct ffv_ops_wr *next;
	uint32_t opcode;            /* enum ffv_ops_wr_opcode */
	int flags;                  /* enum ffv_ops_flags */
	struct ffv_ops_tm tm;
};

/* What begins a message to a tag-matching queue, in network order; RNDV is followed by struct ffv_rvh. */
enum ffv_tmh_op { FFV_TMH_NO_TAG = 0, FFV_TMH_RNDV = 1, FFV_TMH_FIN = 2, FFV_TMH_EAGER = 3 };
struct ffv_tmh { uint8_t opcode; uint8_t reserved[3]; uint32_t app_ctx_be; uint64_t tag_be; };
struct ffv_rvh { uint64_t va_be; uint32_t rkey_be; uint32_t len_be; };

enum ffv_xrcd_init_attr_mask { FFV_XRCD_INIT_ATTR_FD = 1, FFV_XRCD_INIT_ATTR_OFLAGS = 2 };

struct ffv_xrcd_init_attr {
	uint32_t comp_mask;         /* enum ffv_xrcd_init_attr_mask: both */
	int fd;                     /* the domain is the one of this file (its inode); -1 = a new one of nobody else's */
	int oflags;                 /* O_CREAT, O_EXCL */
};

struct ffv_device_attr {
	char fw_ver[64];
	uint64_t node_guid_be;
	uint64_t sys_image_guid_be;
	uint64_t max_mr_size;
	uint64_t page_size_cap;
	uint32_t vendor_id;
	uint32_t vendor_part_id;
	uint32_t hw_ver;
	int max_qp;
	int max_qp_wr;
	uint32_t device_cap_flags;
	int max_sge;
	int max_sge_rd;
	int max_cq;
	int max_cqe;
	int max_mr;
	int max_pd;
	int max_qp_rd_atom;
	int max_ee_rd_atom;
	int max_res_rd_atom;
	int max_qp_init_rd_atom;
	int max_ee_init_rd_atom;
	uint32_t atomic_cap;        /* enum ibv_atomic_cap: 2 = IBV_ATOMIC_GLOB */
	int max_ee;
	int max_rdd;
	int max_mw;
	int max_raw_ipv6_qp;
	int max_raw_ethy_qp;
	int max_mcast_grp;
	int max_mcast_qp_attach;
	int max_total_mcast_qp_attach;
	int max_ah;
	int max_fmr;
	int max_map_per_fmr;
	int max_srq;
	int max_srq_wr;
	int max_srq_sge;
	uint16_t max_pkeys;
	uint8_t local_ca_ack_delay;
	uint8_t phys_port_cnt;
};

struct ffv_odp_caps {
	uint64_t general_caps;      /* enum ibv_odp_general_caps */
	struct { uint32_t rc_odp_caps; uint32_t uc_odp_caps; uint32_t ud_odp_caps; } per_transport_caps;
};
enum ffv_raw_packet_caps { FFV_RAW_PACKET_CAP_IP_CSUM = 4 };

struct ffv_tso_caps { uint32_t max_tso; uint32_t supported_qpts; };
struct ffv_rss_caps {
	uint32_t supported_qpts;
	uint32_t max_rwq_indirection_tables;
	uint32_t max_rwq_indirection_table_size;
	uint64_t rx_hash_fields_mask;
	uint8_t rx_hash_function;
};
struct ffv_packet_pacing_caps { uint32_t qp_rate_limit_min; uint32_t qp_rate_limit_max; uint32_t supported_qpts; };
struct ffv_tm_caps {
	uint32_t max_rndv_hdr_size;
	uint32_t max_num_tags;
	uint32_t flags;
	uint32_t max_ops;
	uint32_t max_sge;
};
struct ffv_cq_moderation_caps { uint16_t max_cq_count; uint16_t max_cq_period; };
struct ffv_pci_atomic_caps { uint16_t fetch_add; uint16_t swap; uint16_t compare_swap; };

struct ffv_device_attr_ex {
	struct ffv_device_attr orig_attr;
	uint32_t comp_mask;
	struct ffv_odp_caps odp_caps;
	uint64_t completion_timestamp_mask; /* 0 = completions have no timestamps */
	uint64_t hca_core_clock;    /* kHz */
	uint64_t device_cap_flags_ex;
	struct ffv_tso_caps tso_caps;
	struct ffv_rss_caps rss_caps;
	uint32_t max_wq_type_rq;
	struct ffv_packet_pacing_caps packet_pacing_caps;
	uint32_t raw_packet_caps;
	struct ffv_tm_caps tm_caps;
	struct ffv_cq_moderation_caps cq_mod_caps;
	uint64_t max_dm_size;
	struct ffv_pci_atomic_caps pci_atomic_caps;
	uint32_t xrc_odp_caps;
	uint32_t phys_port_cnt_ex;
};

struct ffv_port_attr {
	uint32_t state;             /* enum ibv_port_state: 4 = ACTIVE */
	uint32_t max_mtu;
	uint32_t active_mtu;
	int gid_tbl_len;
	uint32_t port_cap_flags;
	uint32_t max_msg_sz;
	uint32_t bad_pkey_cntr;
	uint32_t qkey_viol_cntr;
	uint16_t pkey_tbl_len;
	uint16_t lid;
	uint16_t sm_lid;
	uint8_t lmc;
	uint8_t max_vl_num;
	uint8_t sm_sl;
	uint8_t subnet_timeout;
	uint8_t init_type_reply;
	uint8_t active_width;
	uint8_t active_speed;
	uint8_t phys_state;
	uint8_t link_layer;         /* 2 = Ethernet */
	uint8_t flags;
	uint16_t port_cap_flags2;
};

enum ffv_qp_attach_comp_cntr_op {
	FFV_QP_ATTACH_COMP_CNTR_OP_SEND = 1, FFV_QP_ATTACH_COMP_CNTR_OP_RECV = 2, FFV_QP_ATTACH_COMP_CNTR_OP_RDMA_READ = 4,
	FFV_QP_ATTACH_COMP_CNTR_OP_REMOTE_RDMA_READ = 8, FFV_QP_ATTACH_COMP_CNTR_OP_RDMA_WRITE = 16,
	FFV_QP_ATTACH_COMP_CNTR_OP_REMOTE_RDMA_WRITE = 32
};
struct ffv_comp_cntr_caps { uint32_t max_counters; uint64_t max_value; uint32_t supported_qp_attach_ops; };
struct ffv_comp_cntr_init_attr { uint32_t comp_mask; uint32_t type; uint32_t flags; }; /* all 0 */

struct ffv_qp_rate_limit_attr {
	uint32_t rate_limit;        /* kbit/s; 0 = none */
	uint32_t max_burst_sz;      /* bytes; 0 = 64 KiB */
	uint16_t typical_pkt_sz;    /* without effect */
	uint32_t comp_mask;         /* 0 */
};

struct ffv_td_init_attr { uint32_t comp_mask; };

/* What memory is for: the resource_type of allocators. */
enum ffv_resource_type { FFV_RESOURCE_QP = 1, FFV_RESOURCE_SRQ = 2, FFV_RESOURCE_CQ = 3 };
enum ffv_parent_domain_init_attr_mask {
	FFV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS = 1, FFV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT = 2
};
#define FFV_ALLOCATOR_USE_DEFAULT ((void *)-1)

struct ffv_parent_domain_init_attr {
	struct ffv_pd *pd;
	struct ffv_td *td;          /* or NULL */
	uint32_t comp_mask;         /* enum ffv_parent_domain_init_attr_mask */
	void *(*alloc)(struct ffv_pd *pd, void *pd_context, size_t size, size_t alignment, uint64_t resource_type);
	void (*free)(struct ffv_pd *pd, void *pd_context, void *ptr, uint64_t resource_type);
	void *pd_context;
};

struct ffv_alloc_dm_attr { size_t length; uint32_t log_align_req; uint32_t comp_mask; };

struct ffv_gid_entry {
	struct ffv_gid gid;
	uint32_t gid_index;
	uint32_t port_num;
	uint32_t gid_type;          /* 0 IB, 1 RoCE v1, 2 RoCE v2 */
	uint32_t ndev_ifindex;
};

/* ---- structs of our own ----------------------------------------------------------------------------------------- */

struct ffv_device_info {
	char name[64];              /* "ffv0" */
	uint64_t guid_be;
	int node_type;              /* enum ibv_node_type: 1 = CA */
	int transport_type;         /* enum ibv_transport_type: 0 = IB */
	int index;
};

/* A completion of an extended queue. */
struct ffv_wc_ex {
	struct ffv_wc wc;
	uint64_t completion_ts;     /* of ffv_query_clock_ns, when the completion was written */
	uint64_t completion_wallclock_ns; /* the same moment, in nanoseconds since 1970 */
	uint64_t tm_tag;
	uint32_t tm_priv;
	uint32_t flow_tag;
	uint16_t cvlan;
};

/* The extended half of a queue pair. wr_id and wr_flags go into the requests that are begun after they were set. */
struct ffv_qp_ex {
	struct ffv_qp *qp;
	uint64_t comp_mask;
	uint64_t wr_id;
	uint32_t wr_flags;          /* enum ffv_send_flags; INLINE follows from ffv_wr_set_inline_data */
};

struct ffv_async_event {
	uint32_t event_type;        /* enum ffv_event_type */
	uint32_t element_kind;      /* 0 port, 1 cq, 2 qp, 3 srq, 4 device, 5 wq */
	void *element;              /* struct ffv_cq*, ffv_qp*, ffv_srq* or NULL */
	uint32_t port_num;
	uint32_t reserved;
	uint64_t cookie;            /* for ffv_ack_async_event */
};

/* ---- errors and version ----------------------------------------------------------------------------------------- */

const char *ffv_version(void);
/* Text of the last failure in this thread; never NULL; empty if none. Valid until the thread's next ffv call. */
const char *ffv_error_text(void);

/* ---- device and context ----------------------------------------------------------------------------------------- */

/* Fills *info for device `index` (there is one: 0). -ENODEV beyond. Does not touch the node directory. */
int ffv_query_device_info(int index, struct ffv_device_info *info);
/* Opens `name` ("ffv0"; NULL = first). Joins the node directory and starts the process's service thread. */
int ffv_open_device(const char *name, struct ffv_context **out);
/* -EBUSY while objects of the context exist. */
int ffv_close_device(struct ffv_context *ctx);
/* Opens the context whose control socket (ffv_cmd_fd) cmd_fd is a copy of, by dup or SCM_RIGHTS; the copy is the engine's
 * from then on. In the process that opened it this is the same context, with one user more: each closes it once. In another
 * process it is a context of its own that is attached to the other one, whose objects can be imported into it by their
 * handles. -ENOENT if that has been closed. docs/decisions/0012 */
int ffv_import_device(int cmd_fd, struct ffv_context **out);
int ffv_query_device(struct ffv_context *ctx, struct ffv_device_attr *attr);
/* comp_mask of the question must be 0 (-EINVAL). What the device does not have is zero. */
int ffv_query_device_ex(struct ffv_context *ctx, uint32_t comp_mask, struct ffv_device_attr_ex *attr);
int ffv_query_port(struct ffv_context *ctx, uint8_t port_num, struct ffv_port_attr *attr);
int ffv_query_gid(struct ffv_context *ctx, uint8_t port_num, int index, struct ffv_gid *gid);
/* -ENODATA for an empty index. */
int ffv_query_gid_ex(struct ffv_context *ctx, uint32_t port_num, uint32_t gid_index, struct ffv_gid_entry *entry,
		     uint32_t flags);
/* Returns the number of entries written, -EINVAL if max_entries is too small. */
int ffv_query_gid_table(struct ffv_context *ctx, struct ffv_gid_entry *entries, size_t max_entries, uint32_t flags);
int ffv_query_pkey(struct ffv_context *ctx, uint8_t port_num, int index, uint16_t *pkey_be);
/* Monotonic clock of the device in nanoseconds (hca_core_clock = 1 GHz). */
uint64_t ffv_query_clock_ns(struct ffv_context *ctx);
int ffv_num_comp_vectors(struct ffv_context *ctx);
/* Readable when an async event waits. */
int ffv_async_fd(struct ffv_context *ctx);
/* The control socket's descriptor (for programs that print it). */
int ffv_cmd_fd(struct ffv_context *ctx);
/* Blocks (unless the fd is O_NONBLOCK: -EAGAIN). Every event must be acknowledged before its element is destroyed. */
int ffv_get_async_event(struct ffv_context *ctx, struct ffv_async_event *event);
void ffv_ack_async_event(struct ffv_context *ctx, const struct ffv_async_event *event);

/* ---- protection domains and memory ------------------------------------------------------------------------------ */

int ffv_alloc_pd(struct ffv_context *ctx, struct ffv_pd **out);
int ffv_dealloc_pd(struct ffv_pd *pd);            /* -EBUSY while in use */
uint32_t ffv_pd_handle(struct ffv_pd *pd);

/* The domain with this handle, of this context or of the one that it was imported from; -EINVAL if there is none. Not freed
 * by ffv_dealloc_pd in another process. */
int ffv_import_pd(struct ffv_context *ctx, uint32_t handle, struct ffv_pd **out);
/* Ends that use; what was made in the domain goes on. */
void ffv_unimport_pd(struct ffv_pd *pd);

/* A thread domain: a promise that what is made in it is used by one thread at a time. It is not relied upon. */
int ffv_alloc_td(struct ffv_context *ctx, const struct ffv_td_init_attr *attr, struct ffv_td **out);
int ffv_dealloc_td(struct ffv_td *td);            /* -EBUSY while parent domains are in it */
/* A protection domain that is attr->pd, with a thread domain and allocators of the caller's: usable wherever a protection
 * domain is, freed by ffv_dealloc_pd. The allocators are asked for the process-private memory of queue pairs, shared
 * receive queues and completion queues; what peers write to is in shared memory and the engine's own. They are called by
 * the thread that creates or destroys, with no lock held. alloc returns NULL (the creation fails with -ENOMEM),
 * FFV_ALLOCATOR_USE_DEFAULT, or memory of at least that size and alignment. */
int ffv_alloc_parent_domain(struct ffv_context *ctx, const struct ffv_parent_domain_init_attr *attr, struct ffv_pd **out);

/* Registers the caller's [addr, addr + length); iova is the address that peers and SGEs use (usually addr itself).
 * With ON_DEMAND the memory need not be there before it is used, and may be replaced between uses: an access to what is
 * not mapped then ends the work request with a protection or access error. addr 0 and length SIZE_MAX: the whole address
 * space (implicit). -EOPNOTSUPP where the kernel forbids process_vm_readv. */
int ffv_reg_mr(struct ffv_pd *pd, void *addr, size_t length, uint64_t iova, uint32_t access, struct ffv_mr **out);
/* Allocates zeroed page-aligned memory that peers map directly, and registers it. ffv_dereg_mr frees it. */
int ffv_alloc_mr(struct ffv_pd *pd, size_t length, uint32_t access, struct ffv_mr **out);
/* Device memory: zeroed, of at most ffv_device_attr_ex.max_dm_size bytes altogether, outside of the caller's address space
 * as far as verbs are concerned: it is read and written by copies (offset and length multiples of 4: -EINVAL; beyond the
 * end: -EFAULT) and by work requests through a region. A fork child may allocate, copy and free device memory of its own
 * with its parent's context, and nothing else. */
int ffv_alloc_dm(struct ffv_context *ctx, const struct ffv_alloc_dm_attr *attr, struct ffv_dm **out);
int ffv_free_dm(struct ffv_dm *dm);               /* -EBUSY while regions are registered over it */
uint32_t ffv_dm_handle(struct ffv_dm *dm);
int ffv_memcpy_to_dm(struct ffv_dm *dm, uint64_t dm_offset, const void *host_addr, size_t length);
int ffv_memcpy_from_dm(void *host_addr, struct ffv_dm *dm, uint64_t dm_offset, size_t length);
/* Registers [dm_offset, + length) of it; access must have ZERO_BASED, addresses of work requests begin at 0. */
int ffv_reg_dm_mr(struct ffv_pd *pd, struct ffv_dm *dm, uint64_t dm_offset, size_t length, uint32_t access,
		  struct ffv_mr **out);

/* Registers [offset, offset + length) of what a descriptor stands for: a dma-buf that can be mapped, or a memfd that is sealed
 * against shrinking (as /dev/udmabuf wants it, and for its reason); -EOPNOTSUPP for others. The descriptor stays the
 * caller's and may be closed. addr of the region is NULL. */
int ffv_reg_dmabuf_mr(struct ffv_pd *pd, uint64_t offset, size_t length, uint64_t iova, int fd, uint32_t access,
		      struct ffv_mr **out);

/* Zeroed, page-aligned memory that peers map directly, to register pieces of. */
int ffv_alloc_buf(struct ffv_pd *pd, size_t length, struct ffv_buf **out);
int ffv_free_buf(struct ffv_buf *buf);            /* -EBUSY while regions are registered over it */
void *ffv_buf_addr(struct ffv_buf *buf);
/* As ffv_reg_mr, of [offset, offset + length) of it; in the domain that it was allocated in, or one with its number. */
int ffv_reg_buf_mr(struct ffv_pd *pd, struct ffv_buf *buf, uint64_t offset, size_t length, uint64_t iova, uint32_t access,
		   struct ffv_mr **out);

/* As ffv_import_pd. An imported one is given up by ffv_unimport_dm only. */
int ffv_import_dm(struct ffv_context *ctx, uint32_t handle, struct ffv_dm **out);
int ffv_unimport_dm(struct ffv_dm *dm);           /* -EBUSY as ffv_free_dm */

enum ffv_advise_mr_advice {
	FFV_ADVISE_MR_ADVICE_PREFETCH = 0, FFV_ADVISE_MR_ADVICE_PREFETCH_WRITE = 1,
	FFV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT = 2
};
enum ffv_advise_mr_flags { FFV_ADVISE_MR_FLAG_FLUSH = 1 };
/* Makes pages of on-demand regions present before they are used. With FLUSH, -EFAULT if some cannot be; without, that
 * shows when they are used. -EFAULT for keys and ranges that are not of on-demand regions of the domain. */
int ffv_advise_mr(struct ffv_pd *pd, uint32_t advice, uint32_t flags, const struct ffv_sge *sg_list, uint32_t num_sge);

/* Waits for accesses under way. -EBUSY if memory windows are bound to it, or an access is stuck in a stopped peer. */
int ffv_dereg_mr(struct ffv_mr *mr);

/* The region with this handle (struct ffv_mr), of the protection domain: its bytes, under addresses of work requests that are
 * its own, by keys that may be others; addr is NULL. In another process only memory that can be mapped: -EOPNOTSUPP for other.
 * What is imported is neither deregistered nor changed (-EINVAL), and given up by ffv_unimport_mr. */
int ffv_import_mr(struct ffv_pd *pd, uint32_t handle, struct ffv_mr **out);
int ffv_unimport_mr(struct ffv_mr *mr);           /* -EBUSY as ffv_dereg_mr */

enum ffv_rereg_flags { FFV_REREG_MR_CHANGE_TRANSLATION = 1, FFV_REREG_MR_CHANGE_PD = 2, FFV_REREG_MR_CHANGE_ACCESS = 4 };
/* Changes what the flags name, keeping lkey and rkey. A failure leaves the region as it was. -EINVAL, -EBUSY if windows
 * are bound to it. */
int ffv_rereg_mr(struct ffv_mr *mr, int flags, struct ffv_pd *pd, void *addr, size_t length, uint32_t access);

/* type: 1 (bound by ffv_bind_mw) or 2 (bound by a FFV_WR_BIND_MW work request). */
int ffv_alloc_mw(struct ffv_pd *pd, uint32_t type, struct ffv_mw **out);
int ffv_dealloc_mw(struct ffv_mw *mw);
uint32_t ffv_mw_rkey(struct ffv_mw *mw);

/* ---- completion queues ------------------------------------------------------------------------------------------ */

int ffv_create_comp_channel(struct ffv_context *ctx, struct ffv_comp_channel **out);
int ffv_destroy_comp_channel(struct ffv_comp_channel *channel);  /* -EBUSY while a CQ uses it */
int ffv_comp_channel_fd(struct ffv_comp_channel *channel);
int ffv_get_cq_event(struct ffv_comp_channel *channel, struct ffv_cq **cq, void **cq_context);
void ffv_ack_cq_events(struct ffv_cq *cq, unsigned int count);

int ffv_create_cq(struct ffv_context *ctx, int cqe, void *cq_context, struct ffv_comp_channel *channel, int comp_vector,
		  struct ffv_cq **out);
int ffv_resize_cq(struct ffv_cq *cq, int cqe);
/* Moderation: an event is held back until cq_count completions have come since the queue was armed, or cq_period has passed
 * since the first of them; errors are told at once. 0 = this one does not count, both 0 (or a count of 1) = no moderation. */
int ffv_modify_cq(struct ffv_cq *cq, const struct ffv_modify_cq_attr *attr);
int ffv_destroy_cq(struct ffv_cq *cq);            /* -EBUSY while a QP uses it; waits for unacknowledged events */
int ffv_cq_cqe(struct ffv_cq *cq);                /* capacity granted */
uint32_t ffv_cq_handle(struct ffv_cq *cq);
/* Returns the number of completions written to wc (0 = none), -EIO after an overrun. */
int ffv_poll_cq(struct ffv_cq *cq, int num_entries, struct ffv_wc *wc);
int ffv_req_notify_cq(struct ffv_cq *cq, int solicited_only);
/* Takes back ffv_req_notify_cq, which libibverbs cannot: 1 = the queue is not armed any more, 0 = it was not (an event for it
 * has been raised, or is about to be). Who woke up for another reason spares whoever completes a system call. */
int ffv_cancel_notify_cq(struct ffv_cq *cq);

/* Extended completion queues. Such a queue is accepted wherever a completion queue is; ffv_poll_cq works on it too.
 * -EOPNOTSUPP for fields and flags that the device does not have (FFV_WC_EX_WITH_CVLAN: it strips no VLAN tags). */
int ffv_create_cq_ex(struct ffv_context *ctx, const struct ffv_cq_init_attr_ex *attr, struct ffv_cq **out);
/* Begins to poll and takes the first completion. -ENOENT if there is none: ffv_end_poll must not be called then. Another
 * thread's ffv_start_poll waits until ffv_end_poll. attr may be NULL; its comp_mask must be 0. */
int ffv_start_poll(struct ffv_cq *cq, const struct ffv_poll_cq_attr *attr);
/* Takes the next completion; -ENOENT if there is none now. */
int ffv_next_poll(struct ffv_cq *cq);
void ffv_end_poll(struct ffv_cq *cq);
/* What ffv_start_poll or ffv_next_poll has taken last; the place stays the same while the queue exists. Fields that
 * wc_flags did not ask for have no meaning. */
const struct ffv_wc_ex *ffv_cq_polled(struct ffv_cq *cq);

/* ---- shared receive queues -------------------------------------------------------------------------------------- */

int ffv_create_srq(struct ffv_pd *pd, struct ffv_srq_init_attr *attr, struct ffv_srq **out);
/* The same with the attributes that comp_mask names: XRC queues of a domain and tag-matching queues, which complete in a
 * completion queue of their own. */
int ffv_create_srq_ex(struct ffv_context *ctx, struct ffv_srq_init_attr_ex *attr, struct ffv_srq **out);
int ffv_modify_srq(struct ffv_srq *srq, const struct ffv_srq_attr *attr, uint32_t mask);
int ffv_query_srq(struct ffv_srq *srq, struct ffv_srq_attr *attr);
int ffv_destroy_srq(struct ffv_srq *srq);
uint32_t ffv_srq_num(struct ffv_srq *srq);
/* On failure *bad_wr is the first work request that was not posted; the ones before it were. */
int ffv_post_srq_recv(struct ffv_srq *srq, struct ffv_recv_wr *wr, struct ffv_recv_wr **bad_wr);

/* Adds, removes and synchronises tags of a tag-matching queue (ibv_post_srq_ops(3)). -ENOMEM: no room for a tag, or as
 * many operations as the queue takes wait to be polled. */
int ffv_post_srq_ops(struct ffv_srq *srq, struct ffv_ops_wr *wr, struct ffv_ops_wr **bad_wr);

/* ---- XRC domains ------------------------------------------------------------------------------------------------ */

/* Opens the domain of a file, which every process that opens one for the same file shares, or an anonymous one.
 * -EAGAIN if nobody has it open and O_CREAT is not set, -EINVAL if somebody has and O_EXCL is. */
int ffv_open_xrcd(struct ffv_context *ctx, const struct ffv_xrcd_init_attr *attr, struct ffv_xrcd **out);
int ffv_close_xrcd(struct ffv_xrcd *xrcd);        /* -EBUSY while in use */

/* ---- queue pairs and address handles ---------------------------------------------------------------------------- */

int ffv_create_qp(struct ffv_pd *pd, struct ffv_qp_init_attr *attr, struct ffv_qp **out);
/* The same with the attributes that comp_mask names; -EOPNOTSUPP for one that is not supported. */
int ffv_create_qp_ex(struct ffv_context *ctx, struct ffv_qp_init_attr_ex *attr, struct ffv_qp **out);
int ffv_modify_qp(struct ffv_qp *qp, const struct ffv_qp_attr *attr, uint32_t mask);
int ffv_query_qp(struct ffv_qp *qp, struct ffv_qp_attr *attr, uint32_t mask, struct ffv_qp_init_attr *init_attr);
/* Paces what an RC, UC or UD queue pair sends and reads: messages begin when those before them would have gone at that rate,
 * up to a burst of bytes at once after a pause. Until it is changed, or the queue pair reset. To a peer on another host the
 * router fetches ahead: of connected queue pairs only the completions keep to the rate. */
int ffv_modify_qp_rate_limit(struct ffv_qp *qp, const struct ffv_qp_rate_limit_attr *attr);
int ffv_destroy_qp(struct ffv_qp *qp);
uint32_t ffv_qp_num(struct ffv_qp *qp);
uint32_t ffv_qp_state(struct ffv_qp *qp);
int ffv_post_send(struct ffv_qp *qp, struct ffv_send_wr *wr, struct ffv_send_wr **bad_wr);
/* Extended posting, for queue pairs created with FFV_QP_INIT_ATTR_SEND_OPS_FLAGS; NULL for others. A batch is what one
 * thread builds between ffv_wr_start and ffv_wr_complete, which posts all of it or, after a mistake, nothing: it tells the
 * first one, also of an operation that send_ops_flags does not have (-EINVAL). Another thread's ffv_wr_start waits;
 * ffv_post_send goes in between. Each ffv_wr_... begins a request, each ffv_wr_set_... is for the one begun last. */
struct ffv_qp_ex *ffv_qp_to_qp_ex(struct ffv_qp *qp);
void ffv_wr_start(struct ffv_qp_ex *ex);
int ffv_wr_complete(struct ffv_qp_ex *ex);
void ffv_wr_abort(struct ffv_qp_ex *ex);
void ffv_wr_send(struct ffv_qp_ex *ex);
void ffv_wr_send_imm(struct ffv_qp_ex *ex, uint32_t imm_data_be);
void ffv_wr_send_inv(struct ffv_qp_ex *ex, uint32_t invalidate_rkey);
void ffv_wr_send_tso(struct ffv_qp_ex *ex, void *hdr, uint16_t hdr_sz, uint16_t mss);  /* -EOPNOTSUPP */
void ffv_wr_rdma_read(struct ffv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr);
void ffv_wr_rdma_write(struct ffv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr);
void ffv_wr_rdma_write_imm(struct ffv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr, uint32_t imm_data_be);
void ffv_wr_atomic_cmp_swp(struct ffv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr, uint64_t compare, uint64_t swap);
void ffv_wr_atomic_fetch_add(struct ffv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr, uint64_t add_value);
/* The 8 bytes at atomic_wr are taken at once. */
void ffv_wr_atomic_write(struct ffv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr, const void *atomic_wr);
/* type FFV_FLUSH_GLOBAL: what was written there before can be read by everybody; -EOPNOTSUPP for PERSISTENT. */
void ffv_wr_flush(struct ffv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr, size_t length, uint8_t type, uint8_t level);
void ffv_wr_bind_mw(struct ffv_qp_ex *ex, struct ffv_mw *mw, uint32_t rkey, const struct ffv_mw_bind_info *bind_info);
void ffv_wr_local_inv(struct ffv_qp_ex *ex, uint32_t invalidate_rkey);
void ffv_wr_set_ud_addr(struct ffv_qp_ex *ex, struct ffv_ah *ah, uint32_t remote_qpn, uint32_t remote_qkey);
void ffv_wr_set_xrc_srqn(struct ffv_qp_ex *ex, uint32_t remote_srqn);
void ffv_wr_set_sge(struct ffv_qp_ex *ex, uint32_t lkey, uint64_t addr, uint32_t length);
void ffv_wr_set_sge_list(struct ffv_qp_ex *ex, size_t num_sge, const struct ffv_sge *sg_list);
/* The data is copied at once. */
void ffv_wr_set_inline_data(struct ffv_qp_ex *ex, const void *addr, size_t length);
void ffv_wr_set_inline_data_list(struct ffv_qp_ex *ex, size_t num_buf, const struct ffv_data_buf *buf_list);
/* Posts the bind of a type 1 window; on success mw's rkey is the new one at once. */
int ffv_bind_mw(struct ffv_qp *qp, struct ffv_mw *mw, const struct ffv_mw_bind_info *info, uint32_t send_flags,
		uint64_t wr_id);
int ffv_post_recv(struct ffv_qp *qp, struct ffv_recv_wr *wr, struct ffv_recv_wr **bad_wr);

int ffv_create_ah(struct ffv_pd *pd, const struct ffv_ah_attr *attr, struct ffv_ah **out);
/* Attaches a UD queue pair to a multicast group: what is sent to `gid` (IPv6 multicast ff00::/8, or IPv4 multicast as
 * ::ffff:224.0.0.0/4) by QP number 0xffffff and the queue pair's Q_Key comes to it, its own datagrams too. Attaching
 * again changes nothing; `lid` counts on InfiniBand only. -EINVAL, -ENOMEM beyond the device's limits. A queue pair that
 * is attached cannot be destroyed (-EBUSY). Not for event callbacks of the engine's own thread. */
int ffv_attach_mcast(struct ffv_qp *qp, const struct ffv_gid *gid, uint16_t lid);
int ffv_detach_mcast(struct ffv_qp *qp, const struct ffv_gid *gid, uint16_t lid);  /* -EINVAL if it is not attached */
/* Address attributes that answer the sender of a UD completion; grh may be NULL unless the completion has one. */
int ffv_init_ah_from_wc(struct ffv_context *ctx, uint8_t port_num, const struct ffv_wc *wc, const struct ffv_grh *grh,
			struct ffv_ah_attr *attr);
int ffv_destroy_ah(struct ffv_ah *ah);

/* ---- completion counters ---------------------------------------------------------------------------------------- */

/* A pair of numbers that the completions of queue pairs are added to, signaled or not: successful ones to the first,
 * others to the second. Remote operations are counted as they are done. A completion is counted before it can be polled. */
int ffv_query_comp_cntr_caps(struct ffv_context *ctx, struct ffv_comp_cntr_caps *caps);
int ffv_create_comp_cntr(struct ffv_context *ctx, const struct ffv_comp_cntr_init_attr *attr, struct ffv_comp_cntr **out);
int ffv_destroy_comp_cntr(struct ffv_comp_cntr *cntr); /* -EBUSY while attached */
int ffv_set_comp_cntr(struct ffv_comp_cntr *cntr, uint64_t value);
int ffv_set_err_comp_cntr(struct ffv_comp_cntr *cntr, uint64_t value);
int ffv_inc_comp_cntr(struct ffv_comp_cntr *cntr, uint64_t amount);
int ffv_inc_err_comp_cntr(struct ffv_comp_cntr *cntr, uint64_t amount);
int ffv_read_comp_cntr(struct ffv_comp_cntr *cntr, uint64_t *value);
int ffv_read_err_comp_cntr(struct ffv_comp_cntr *cntr, uint64_t *value);
/* Until the queue pair is destroyed. -EBUSY if one of the operations (enum ffv_qp_attach_comp_cntr_op) has a counter. */
int ffv_qp_attach_comp_cntr(struct ffv_qp *qp, struct ffv_comp_cntr *cntr, uint32_t op_mask);

/* ---- receive work queues and receive-side scaling ----------------------------------------------------------------- */

/* A receive queue of its own; its completions bear ffv_wq_num() as qp_num. It begins in RESET and receives in RDY. */
int ffv_create_wq(struct ffv_context *ctx, struct ffv_wq_init_attr *attr, struct ffv_wq **out);
int ffv_modify_wq(struct ffv_wq *wq, const struct ffv_wq_attr *attr);
int ffv_destroy_wq(struct ffv_wq *wq);            /* -EBUSY while it is in a table */
uint32_t ffv_wq_num(struct ffv_wq *wq);
uint32_t ffv_wq_state(struct ffv_wq *wq);
int ffv_post_wq_recv(struct ffv_wq *wq, struct ffv_recv_wr *wr, struct ffv_recv_wr **bad_wr);
/* A raw packet queue pair that is made with a table (ffv_create_qp_ex: IND_TABLE and RX_HASH) only receives: what flows
 * steer to it goes to the work queue in the entry that the low bits of the packet's hash name. */
int ffv_create_rwq_ind_table(struct ffv_context *ctx, const struct ffv_rwq_ind_table_init_attr *attr,
			     struct ffv_rwq_ind_table **out);
int ffv_destroy_rwq_ind_table(struct ffv_rwq_ind_table *table); /* -EBUSY while a queue pair uses it */

/* ---- looking at a node directory (ffverbs status) --------------------------------------------------------------- */

struct ffv_monitor;

struct ffv_context_info {
	struct ffv_gid gid;
	uint32_t qpn_first;
	uint32_t pid;               /* as this process sees it; 0 = in a PID namespace that is not visible here */
	uint32_t num_qp;
	uint32_t num_cq;
	uint32_t num_mr;
	uint32_t num_peers;
	uint64_t registered_bytes;
	char program[32];
};

struct ffv_qp_info {
	uint32_t qp_num;
	uint32_t qp_type;
	uint32_t qp_state;
	uint32_t dest_qp_num;
	struct ffv_gid dest_gid;
	uint32_t path;              /* 0 none, 1 shared memory, 2 router */
	uint32_t sq_depth;          /* work requests waiting */
	uint32_t rq_depth;
	uint32_t last_status;       /* first error status of the QP, 0 = none */
	uint64_t messages_sent;
	uint64_t bytes_sent;
	uint64_t rnr_waits;
	uint64_t retries;
};

/* The directory that ffv_open_device would use; writes at most size bytes with the final NUL. */
int ffv_node_directory(char *path, size_t size);
/* dir NULL = that one. */
int ffv_monitor_open(const char *dir, struct ffv_monitor **out);
/* 1 = filled, 0 = no more. ffv_monitor_next_qp walks the QPs of the context last returned. */
int ffv_monitor_next_context(struct ffv_monitor *monitor, struct ffv_context_info *info);
int ffv_monitor_next_qp(struct ffv_monitor *monitor, struct ffv_qp_info *info);
void ffv_monitor_close(struct ffv_monitor *monitor);

/* ---- measuring (ffverbs perf) ----------------------------------------------------------------------------------- */

enum ffv_perf_test {
	FFV_PERF_SEND_LAT = 0, FFV_PERF_SEND_BW = 1, FFV_PERF_WRITE_LAT = 2, FFV_PERF_WRITE_BW = 3,
	FFV_PERF_READ_LAT = 4, FFV_PERF_READ_BW = 5, FFV_PERF_ATOMIC_LAT = 6
};

struct ffv_perf_params {
	struct ffv_qp *qp;          /* connected, RTS */
	struct ffv_cq *send_cq;
	struct ffv_cq *recv_cq;
	struct ffv_comp_channel *channel;  /* NULL = poll */
	struct ffv_mr *mr;          /* send half, then receive half, each of size bytes rounded up to a page */
	uint64_t remote_addr;
	uint32_t rkey;
	uint32_t test;              /* enum ffv_perf_test */
	uint32_t is_server;
	uint32_t post_list;         /* work requests per post call, >= 1 */
	uint32_t tx_depth;
	uint32_t rx_depth;
	uint32_t max_inline;
	uint32_t check;             /* verify the bytes at the far end */
	uint64_t size_bytes;
	uint64_t iters;
	uint64_t warmup;
};

/* Runs the loop; for latency tests samples_ns (iters entries) gets the round-trip times on the client.
 * *elapsed_ns is the time of the timed part. -EBADMSG if checked data differed. */
int ffv_perf_run(const struct ffv_perf_params *params, uint64_t *samples_ns, uint64_t *elapsed_ns);

#ifdef __cplusplus
}
#endif

#include <ffverbs/ffv_cm.h>
#include <ffverbs/ffv_socket.h>
#endif

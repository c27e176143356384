"""Enumerations of libibverbs under the names of `pyverbs.libibverbs_enums`, as classes and as module globals.

A table of facts: names and values are part of libibverbs' ABI (`infiniband/verbs.h`), and the set of names is that of
pyverbs, from version 44 (where the module is called `enums`) to 65.
"""

from typing import Final as _Final

from ffverbs._enum import VerbsEnum as _VerbsEnum


class ibv_transport_type(_VerbsEnum):
    """How a device speaks to others."""

    IBV_TRANSPORT_UNKNOWN = -1
    IBV_TRANSPORT_IB = 0
    IBV_TRANSPORT_IWARP = 1
    IBV_TRANSPORT_USNIC = 2
    IBV_TRANSPORT_USNIC_UDP = 3


IBV_TRANSPORT_UNKNOWN = ibv_transport_type.IBV_TRANSPORT_UNKNOWN
IBV_TRANSPORT_IB = ibv_transport_type.IBV_TRANSPORT_IB
IBV_TRANSPORT_IWARP = ibv_transport_type.IBV_TRANSPORT_IWARP
IBV_TRANSPORT_USNIC = ibv_transport_type.IBV_TRANSPORT_USNIC
IBV_TRANSPORT_USNIC_UDP = ibv_transport_type.IBV_TRANSPORT_USNIC_UDP


class ibv_node_type(_VerbsEnum):
    """What a device is."""

    IBV_NODE_UNKNOWN = -1
    IBV_NODE_CA = 1
    IBV_NODE_SWITCH = 2
    IBV_NODE_ROUTER = 3
    IBV_NODE_RNIC = 4
    IBV_NODE_USNIC = 5
    IBV_NODE_USNIC_UDP = 6
    IBV_NODE_UNSPECIFIED = 7


IBV_NODE_UNKNOWN = ibv_node_type.IBV_NODE_UNKNOWN
IBV_NODE_CA = ibv_node_type.IBV_NODE_CA
IBV_NODE_SWITCH = ibv_node_type.IBV_NODE_SWITCH
IBV_NODE_ROUTER = ibv_node_type.IBV_NODE_ROUTER
IBV_NODE_RNIC = ibv_node_type.IBV_NODE_RNIC
IBV_NODE_USNIC = ibv_node_type.IBV_NODE_USNIC
IBV_NODE_USNIC_UDP = ibv_node_type.IBV_NODE_USNIC_UDP
IBV_NODE_UNSPECIFIED = ibv_node_type.IBV_NODE_UNSPECIFIED

# Link layer of a port.
IBV_LINK_LAYER_UNSPECIFIED: _Final = 0
IBV_LINK_LAYER_INFINIBAND: _Final = 1
IBV_LINK_LAYER_ETHERNET: _Final = 2


class ibv_atomic_cap(_VerbsEnum):
    """How far atomics of a device are atomic: not offered, among its QPs, also with the CPU."""

    IBV_ATOMIC_NONE = 0
    IBV_ATOMIC_HCA = 1
    IBV_ATOMIC_GLOB = 2


IBV_ATOMIC_NONE = ibv_atomic_cap.IBV_ATOMIC_NONE
IBV_ATOMIC_HCA = ibv_atomic_cap.IBV_ATOMIC_HCA
IBV_ATOMIC_GLOB = ibv_atomic_cap.IBV_ATOMIC_GLOB


class ibv_port_state(_VerbsEnum):
    """Logical state of a port."""

    IBV_PORT_NOP = 0
    IBV_PORT_DOWN = 1
    IBV_PORT_INIT = 2
    IBV_PORT_ARMED = 3
    IBV_PORT_ACTIVE = 4
    IBV_PORT_ACTIVE_DEFER = 5


IBV_PORT_NOP = ibv_port_state.IBV_PORT_NOP
IBV_PORT_DOWN = ibv_port_state.IBV_PORT_DOWN
IBV_PORT_INIT = ibv_port_state.IBV_PORT_INIT
IBV_PORT_ARMED = ibv_port_state.IBV_PORT_ARMED
IBV_PORT_ACTIVE = ibv_port_state.IBV_PORT_ACTIVE
IBV_PORT_ACTIVE_DEFER = ibv_port_state.IBV_PORT_ACTIVE_DEFER


class ibv_port_cap_flags(_VerbsEnum):
    """PortInfo:CapabilityMask (port_cap_flags)."""

    IBV_PORT_SM = 1 << 1
    IBV_PORT_NOTICE_SUP = 1 << 2
    IBV_PORT_TRAP_SUP = 1 << 3
    IBV_PORT_OPT_IPD_SUP = 1 << 4
    IBV_PORT_AUTO_MIGR_SUP = 1 << 5
    IBV_PORT_SL_MAP_SUP = 1 << 6
    IBV_PORT_MKEY_NVRAM = 1 << 7
    IBV_PORT_PKEY_NVRAM = 1 << 8
    IBV_PORT_LED_INFO_SUP = 1 << 9
    IBV_PORT_SYS_IMAGE_GUID_SUP = 1 << 11
    IBV_PORT_PKEY_SW_EXT_PORT_TRAP_SUP = 1 << 12
    IBV_PORT_EXTENDED_SPEEDS_SUP = 1 << 14
    IBV_PORT_CAP_MASK2_SUP = 1 << 15
    IBV_PORT_CM_SUP = 1 << 16
    IBV_PORT_SNMP_TUNNEL_SUP = 1 << 17
    IBV_PORT_REINIT_SUP = 1 << 18
    IBV_PORT_DEVICE_MGMT_SUP = 1 << 19
    IBV_PORT_VENDOR_CLASS_SUP = 1 << 20
    IBV_PORT_DR_NOTICE_SUP = 1 << 21
    IBV_PORT_CAP_MASK_NOTICE_SUP = 1 << 22
    IBV_PORT_BOOT_MGMT_SUP = 1 << 23
    IBV_PORT_LINK_LATENCY_SUP = 1 << 24
    IBV_PORT_CLIENT_REG_SUP = 1 << 25
    IBV_PORT_IP_BASED_GIDS = 1 << 26


IBV_PORT_SM = ibv_port_cap_flags.IBV_PORT_SM
IBV_PORT_NOTICE_SUP = ibv_port_cap_flags.IBV_PORT_NOTICE_SUP
IBV_PORT_TRAP_SUP = ibv_port_cap_flags.IBV_PORT_TRAP_SUP
IBV_PORT_OPT_IPD_SUP = ibv_port_cap_flags.IBV_PORT_OPT_IPD_SUP
IBV_PORT_AUTO_MIGR_SUP = ibv_port_cap_flags.IBV_PORT_AUTO_MIGR_SUP
IBV_PORT_SL_MAP_SUP = ibv_port_cap_flags.IBV_PORT_SL_MAP_SUP
IBV_PORT_MKEY_NVRAM = ibv_port_cap_flags.IBV_PORT_MKEY_NVRAM
IBV_PORT_PKEY_NVRAM = ibv_port_cap_flags.IBV_PORT_PKEY_NVRAM
IBV_PORT_LED_INFO_SUP = ibv_port_cap_flags.IBV_PORT_LED_INFO_SUP
IBV_PORT_SYS_IMAGE_GUID_SUP = ibv_port_cap_flags.IBV_PORT_SYS_IMAGE_GUID_SUP
IBV_PORT_PKEY_SW_EXT_PORT_TRAP_SUP = ibv_port_cap_flags.IBV_PORT_PKEY_SW_EXT_PORT_TRAP_SUP
IBV_PORT_EXTENDED_SPEEDS_SUP = ibv_port_cap_flags.IBV_PORT_EXTENDED_SPEEDS_SUP
IBV_PORT_CAP_MASK2_SUP = ibv_port_cap_flags.IBV_PORT_CAP_MASK2_SUP
IBV_PORT_CM_SUP = ibv_port_cap_flags.IBV_PORT_CM_SUP
IBV_PORT_SNMP_TUNNEL_SUP = ibv_port_cap_flags.IBV_PORT_SNMP_TUNNEL_SUP
IBV_PORT_REINIT_SUP = ibv_port_cap_flags.IBV_PORT_REINIT_SUP
IBV_PORT_DEVICE_MGMT_SUP = ibv_port_cap_flags.IBV_PORT_DEVICE_MGMT_SUP
IBV_PORT_VENDOR_CLASS_SUP = ibv_port_cap_flags.IBV_PORT_VENDOR_CLASS_SUP
IBV_PORT_DR_NOTICE_SUP = ibv_port_cap_flags.IBV_PORT_DR_NOTICE_SUP
IBV_PORT_CAP_MASK_NOTICE_SUP = ibv_port_cap_flags.IBV_PORT_CAP_MASK_NOTICE_SUP
IBV_PORT_BOOT_MGMT_SUP = ibv_port_cap_flags.IBV_PORT_BOOT_MGMT_SUP
IBV_PORT_LINK_LATENCY_SUP = ibv_port_cap_flags.IBV_PORT_LINK_LATENCY_SUP
IBV_PORT_CLIENT_REG_SUP = ibv_port_cap_flags.IBV_PORT_CLIENT_REG_SUP
IBV_PORT_IP_BASED_GIDS = ibv_port_cap_flags.IBV_PORT_IP_BASED_GIDS


class ibv_port_cap_flags2(_VerbsEnum):
    """PortInfo:CapabilityMask2 (port_cap_flags2)."""

    IBV_PORT_SET_NODE_DESC_SUP = 1 << 0
    IBV_PORT_INFO_EXT_SUP = 1 << 1
    IBV_PORT_VIRT_SUP = 1 << 2
    IBV_PORT_SWITCH_PORT_STATE_TABLE_SUP = 1 << 3
    IBV_PORT_LINK_WIDTH_2X_SUP = 1 << 4
    IBV_PORT_LINK_SPEED_HDR_SUP = 1 << 5
    IBV_PORT_LINK_SPEED_NDR_SUP = 1 << 10


IBV_PORT_SET_NODE_DESC_SUP = ibv_port_cap_flags2.IBV_PORT_SET_NODE_DESC_SUP
IBV_PORT_INFO_EXT_SUP = ibv_port_cap_flags2.IBV_PORT_INFO_EXT_SUP
IBV_PORT_VIRT_SUP = ibv_port_cap_flags2.IBV_PORT_VIRT_SUP
IBV_PORT_SWITCH_PORT_STATE_TABLE_SUP = ibv_port_cap_flags2.IBV_PORT_SWITCH_PORT_STATE_TABLE_SUP
IBV_PORT_LINK_WIDTH_2X_SUP = ibv_port_cap_flags2.IBV_PORT_LINK_WIDTH_2X_SUP
IBV_PORT_LINK_SPEED_HDR_SUP = ibv_port_cap_flags2.IBV_PORT_LINK_SPEED_HDR_SUP
IBV_PORT_LINK_SPEED_NDR_SUP = ibv_port_cap_flags2.IBV_PORT_LINK_SPEED_NDR_SUP


class ibv_mtu(_VerbsEnum):
    """Path MTU, encoded: 1 is 256 bytes, 5 is 4096."""

    IBV_MTU_256 = 1
    IBV_MTU_512 = 2
    IBV_MTU_1024 = 3
    IBV_MTU_2048 = 4
    IBV_MTU_4096 = 5


IBV_MTU_256 = ibv_mtu.IBV_MTU_256
IBV_MTU_512 = ibv_mtu.IBV_MTU_512
IBV_MTU_1024 = ibv_mtu.IBV_MTU_1024
IBV_MTU_2048 = ibv_mtu.IBV_MTU_2048
IBV_MTU_4096 = ibv_mtu.IBV_MTU_4096


class ibv_event_type(_VerbsEnum):
    """Asynchronous events of a context."""

    IBV_EVENT_CQ_ERR = 0
    IBV_EVENT_QP_FATAL = 1
    IBV_EVENT_QP_REQ_ERR = 2
    IBV_EVENT_QP_ACCESS_ERR = 3
    IBV_EVENT_COMM_EST = 4
    IBV_EVENT_SQ_DRAINED = 5
    IBV_EVENT_PATH_MIG = 6
    IBV_EVENT_PATH_MIG_ERR = 7
    IBV_EVENT_DEVICE_FATAL = 8
    IBV_EVENT_PORT_ACTIVE = 9
    IBV_EVENT_PORT_ERR = 10
    IBV_EVENT_LID_CHANGE = 11
    IBV_EVENT_PKEY_CHANGE = 12
    IBV_EVENT_SM_CHANGE = 13
    IBV_EVENT_SRQ_ERR = 14
    IBV_EVENT_SRQ_LIMIT_REACHED = 15
    IBV_EVENT_QP_LAST_WQE_REACHED = 16
    IBV_EVENT_CLIENT_REREGISTER = 17
    IBV_EVENT_GID_CHANGE = 18
    IBV_EVENT_WQ_FATAL = 19
    IBV_EVENT_DEVICE_SPEED_CHANGE = 20


IBV_EVENT_CQ_ERR = ibv_event_type.IBV_EVENT_CQ_ERR
IBV_EVENT_QP_FATAL = ibv_event_type.IBV_EVENT_QP_FATAL
IBV_EVENT_QP_REQ_ERR = ibv_event_type.IBV_EVENT_QP_REQ_ERR
IBV_EVENT_QP_ACCESS_ERR = ibv_event_type.IBV_EVENT_QP_ACCESS_ERR
IBV_EVENT_COMM_EST = ibv_event_type.IBV_EVENT_COMM_EST
IBV_EVENT_SQ_DRAINED = ibv_event_type.IBV_EVENT_SQ_DRAINED
IBV_EVENT_PATH_MIG = ibv_event_type.IBV_EVENT_PATH_MIG
IBV_EVENT_PATH_MIG_ERR = ibv_event_type.IBV_EVENT_PATH_MIG_ERR
IBV_EVENT_DEVICE_FATAL = ibv_event_type.IBV_EVENT_DEVICE_FATAL
IBV_EVENT_PORT_ACTIVE = ibv_event_type.IBV_EVENT_PORT_ACTIVE
IBV_EVENT_PORT_ERR = ibv_event_type.IBV_EVENT_PORT_ERR
IBV_EVENT_LID_CHANGE = ibv_event_type.IBV_EVENT_LID_CHANGE
IBV_EVENT_PKEY_CHANGE = ibv_event_type.IBV_EVENT_PKEY_CHANGE
IBV_EVENT_SM_CHANGE = ibv_event_type.IBV_EVENT_SM_CHANGE
IBV_EVENT_SRQ_ERR = ibv_event_type.IBV_EVENT_SRQ_ERR
IBV_EVENT_SRQ_LIMIT_REACHED = ibv_event_type.IBV_EVENT_SRQ_LIMIT_REACHED
IBV_EVENT_QP_LAST_WQE_REACHED = ibv_event_type.IBV_EVENT_QP_LAST_WQE_REACHED
IBV_EVENT_CLIENT_REREGISTER = ibv_event_type.IBV_EVENT_CLIENT_REREGISTER
IBV_EVENT_GID_CHANGE = ibv_event_type.IBV_EVENT_GID_CHANGE
IBV_EVENT_WQ_FATAL = ibv_event_type.IBV_EVENT_WQ_FATAL
IBV_EVENT_DEVICE_SPEED_CHANGE = ibv_event_type.IBV_EVENT_DEVICE_SPEED_CHANGE


class ibv_access_flags(_VerbsEnum):
    """What may be done through a memory region, a window or a QP."""

    IBV_ACCESS_LOCAL_WRITE = 1 << 0
    IBV_ACCESS_REMOTE_WRITE = 1 << 1
    IBV_ACCESS_REMOTE_READ = 1 << 2
    IBV_ACCESS_REMOTE_ATOMIC = 1 << 3
    IBV_ACCESS_MW_BIND = 1 << 4
    IBV_ACCESS_ZERO_BASED = 1 << 5
    IBV_ACCESS_ON_DEMAND = 1 << 6
    IBV_ACCESS_HUGETLB = 1 << 7
    IBV_ACCESS_FLUSH_GLOBAL = 1 << 8
    IBV_ACCESS_FLUSH_PERSISTENT = 1 << 9
    IBV_ACCESS_RELAXED_ORDERING = 1 << 20


IBV_ACCESS_LOCAL_WRITE = ibv_access_flags.IBV_ACCESS_LOCAL_WRITE
IBV_ACCESS_REMOTE_WRITE = ibv_access_flags.IBV_ACCESS_REMOTE_WRITE
IBV_ACCESS_REMOTE_READ = ibv_access_flags.IBV_ACCESS_REMOTE_READ
IBV_ACCESS_REMOTE_ATOMIC = ibv_access_flags.IBV_ACCESS_REMOTE_ATOMIC
IBV_ACCESS_MW_BIND = ibv_access_flags.IBV_ACCESS_MW_BIND
IBV_ACCESS_ZERO_BASED = ibv_access_flags.IBV_ACCESS_ZERO_BASED
IBV_ACCESS_ON_DEMAND = ibv_access_flags.IBV_ACCESS_ON_DEMAND
IBV_ACCESS_HUGETLB = ibv_access_flags.IBV_ACCESS_HUGETLB
IBV_ACCESS_FLUSH_GLOBAL = ibv_access_flags.IBV_ACCESS_FLUSH_GLOBAL
IBV_ACCESS_FLUSH_PERSISTENT = ibv_access_flags.IBV_ACCESS_FLUSH_PERSISTENT
IBV_ACCESS_RELAXED_ORDERING = ibv_access_flags.IBV_ACCESS_RELAXED_ORDERING


class ibv_rereg_mr_flags(_VerbsEnum):
    """What re-registration of a memory region changes."""

    IBV_REREG_MR_CHANGE_TRANSLATION = 1 << 0
    IBV_REREG_MR_CHANGE_PD = 1 << 1
    IBV_REREG_MR_CHANGE_ACCESS = 1 << 2


IBV_REREG_MR_CHANGE_TRANSLATION = ibv_rereg_mr_flags.IBV_REREG_MR_CHANGE_TRANSLATION
IBV_REREG_MR_CHANGE_PD = ibv_rereg_mr_flags.IBV_REREG_MR_CHANGE_PD
IBV_REREG_MR_CHANGE_ACCESS = ibv_rereg_mr_flags.IBV_REREG_MR_CHANGE_ACCESS


class ibv_rereg_mr_err_code(_VerbsEnum):
    """The step at which a re-registration failed."""

    IBV_REREG_MR_ERR_INPUT = -1
    IBV_REREG_MR_ERR_DONT_FORK_NEW = -2
    IBV_REREG_MR_ERR_DO_FORK_OLD = -3
    IBV_REREG_MR_ERR_CMD = -4
    IBV_REREG_MR_ERR_CMD_AND_DO_FORK_NEW = -5


IBV_REREG_MR_ERR_INPUT = ibv_rereg_mr_err_code.IBV_REREG_MR_ERR_INPUT
IBV_REREG_MR_ERR_DONT_FORK_NEW = ibv_rereg_mr_err_code.IBV_REREG_MR_ERR_DONT_FORK_NEW
IBV_REREG_MR_ERR_DO_FORK_OLD = ibv_rereg_mr_err_code.IBV_REREG_MR_ERR_DO_FORK_OLD
IBV_REREG_MR_ERR_CMD = ibv_rereg_mr_err_code.IBV_REREG_MR_ERR_CMD
IBV_REREG_MR_ERR_CMD_AND_DO_FORK_NEW = ibv_rereg_mr_err_code.IBV_REREG_MR_ERR_CMD_AND_DO_FORK_NEW


class ibv_wr_opcode(_VerbsEnum):
    """Operation of a send work request."""

    IBV_WR_RDMA_WRITE = 0
    IBV_WR_RDMA_WRITE_WITH_IMM = 1
    IBV_WR_SEND = 2
    IBV_WR_SEND_WITH_IMM = 3
    IBV_WR_RDMA_READ = 4
    IBV_WR_ATOMIC_CMP_AND_SWP = 5
    IBV_WR_ATOMIC_FETCH_AND_ADD = 6
    IBV_WR_LOCAL_INV = 7
    IBV_WR_BIND_MW = 8
    IBV_WR_SEND_WITH_INV = 9
    IBV_WR_TSO = 10
    IBV_WR_FLUSH = 14
    IBV_WR_ATOMIC_WRITE = 15


IBV_WR_RDMA_WRITE = ibv_wr_opcode.IBV_WR_RDMA_WRITE
IBV_WR_RDMA_WRITE_WITH_IMM = ibv_wr_opcode.IBV_WR_RDMA_WRITE_WITH_IMM
IBV_WR_SEND = ibv_wr_opcode.IBV_WR_SEND
IBV_WR_SEND_WITH_IMM = ibv_wr_opcode.IBV_WR_SEND_WITH_IMM
IBV_WR_RDMA_READ = ibv_wr_opcode.IBV_WR_RDMA_READ
IBV_WR_ATOMIC_CMP_AND_SWP = ibv_wr_opcode.IBV_WR_ATOMIC_CMP_AND_SWP
IBV_WR_ATOMIC_FETCH_AND_ADD = ibv_wr_opcode.IBV_WR_ATOMIC_FETCH_AND_ADD
IBV_WR_LOCAL_INV = ibv_wr_opcode.IBV_WR_LOCAL_INV
IBV_WR_BIND_MW = ibv_wr_opcode.IBV_WR_BIND_MW
IBV_WR_SEND_WITH_INV = ibv_wr_opcode.IBV_WR_SEND_WITH_INV
IBV_WR_TSO = ibv_wr_opcode.IBV_WR_TSO
IBV_WR_FLUSH = ibv_wr_opcode.IBV_WR_FLUSH
IBV_WR_ATOMIC_WRITE = ibv_wr_opcode.IBV_WR_ATOMIC_WRITE


class ibv_ops_wr_opcode(_VerbsEnum):
    """Operation of a tag-matching SRQ."""

    IBV_WR_TAG_ADD = 0
    IBV_WR_TAG_DEL = 1
    IBV_WR_TAG_SYNC = 2


IBV_WR_TAG_ADD = ibv_ops_wr_opcode.IBV_WR_TAG_ADD
IBV_WR_TAG_DEL = ibv_ops_wr_opcode.IBV_WR_TAG_DEL
IBV_WR_TAG_SYNC = ibv_ops_wr_opcode.IBV_WR_TAG_SYNC


class ibv_ops_flags(_VerbsEnum):
    """Flags of a tag-matching SRQ operation."""

    IBV_OPS_SIGNALED = 1 << 0
    IBV_OPS_TM_SYNC = 1 << 1


IBV_OPS_SIGNALED = ibv_ops_flags.IBV_OPS_SIGNALED
IBV_OPS_TM_SYNC = ibv_ops_flags.IBV_OPS_TM_SYNC


class ibv_send_flags(_VerbsEnum):
    """Flags of a send work request."""

    IBV_SEND_FENCE = 1 << 0
    IBV_SEND_SIGNALED = 1 << 1
    IBV_SEND_SOLICITED = 1 << 2
    IBV_SEND_INLINE = 1 << 3
    IBV_SEND_IP_CSUM = 1 << 4


IBV_SEND_FENCE = ibv_send_flags.IBV_SEND_FENCE
IBV_SEND_SIGNALED = ibv_send_flags.IBV_SEND_SIGNALED
IBV_SEND_SOLICITED = ibv_send_flags.IBV_SEND_SOLICITED
IBV_SEND_INLINE = ibv_send_flags.IBV_SEND_INLINE
IBV_SEND_IP_CSUM = ibv_send_flags.IBV_SEND_IP_CSUM


class ibv_tm_cap_flags(_VerbsEnum):
    """Tag-matching capabilities."""

    IBV_TM_CAP_RC = 1 << 0


IBV_TM_CAP_RC = ibv_tm_cap_flags.IBV_TM_CAP_RC


class ibv_qp_type(_VerbsEnum):
    """Transport service of a queue pair."""

    IBV_QPT_RC = 2
    IBV_QPT_UC = 3
    IBV_QPT_UD = 4
    IBV_QPT_RAW_PACKET = 8
    IBV_QPT_XRC_SEND = 9
    IBV_QPT_XRC_RECV = 10
    IBV_QPT_DRIVER = 255


IBV_QPT_RC = ibv_qp_type.IBV_QPT_RC
IBV_QPT_UC = ibv_qp_type.IBV_QPT_UC
IBV_QPT_UD = ibv_qp_type.IBV_QPT_UD
IBV_QPT_RAW_PACKET = ibv_qp_type.IBV_QPT_RAW_PACKET
IBV_QPT_XRC_SEND = ibv_qp_type.IBV_QPT_XRC_SEND
IBV_QPT_XRC_RECV = ibv_qp_type.IBV_QPT_XRC_RECV
IBV_QPT_DRIVER = ibv_qp_type.IBV_QPT_DRIVER


class ibv_qp_state(_VerbsEnum):
    """State of a queue pair."""

    IBV_QPS_RESET = 0
    IBV_QPS_INIT = 1
    IBV_QPS_RTR = 2
    IBV_QPS_RTS = 3
    IBV_QPS_SQD = 4
    IBV_QPS_SQE = 5
    IBV_QPS_ERR = 6
    IBV_QPS_UNKNOWN = 7


IBV_QPS_RESET = ibv_qp_state.IBV_QPS_RESET
IBV_QPS_INIT = ibv_qp_state.IBV_QPS_INIT
IBV_QPS_RTR = ibv_qp_state.IBV_QPS_RTR
IBV_QPS_RTS = ibv_qp_state.IBV_QPS_RTS
IBV_QPS_SQD = ibv_qp_state.IBV_QPS_SQD
IBV_QPS_SQE = ibv_qp_state.IBV_QPS_SQE
IBV_QPS_ERR = ibv_qp_state.IBV_QPS_ERR
IBV_QPS_UNKNOWN = ibv_qp_state.IBV_QPS_UNKNOWN


class ibv_mw_type(_VerbsEnum):
    """Type of a memory window."""

    IBV_MW_TYPE_1 = 1
    IBV_MW_TYPE_2 = 2


IBV_MW_TYPE_1 = ibv_mw_type.IBV_MW_TYPE_1
IBV_MW_TYPE_2 = ibv_mw_type.IBV_MW_TYPE_2


class ibv_wc_status(_VerbsEnum):
    """Outcome of a work request."""

    IBV_WC_SUCCESS = 0
    IBV_WC_LOC_LEN_ERR = 1
    IBV_WC_LOC_QP_OP_ERR = 2
    IBV_WC_LOC_EEC_OP_ERR = 3
    IBV_WC_LOC_PROT_ERR = 4
    IBV_WC_WR_FLUSH_ERR = 5
    IBV_WC_MW_BIND_ERR = 6
    IBV_WC_BAD_RESP_ERR = 7
    IBV_WC_LOC_ACCESS_ERR = 8
    IBV_WC_REM_INV_REQ_ERR = 9
    IBV_WC_REM_ACCESS_ERR = 10
    IBV_WC_REM_OP_ERR = 11
    IBV_WC_RETRY_EXC_ERR = 12
    IBV_WC_RNR_RETRY_EXC_ERR = 13
    IBV_WC_LOC_RDD_VIOL_ERR = 14
    IBV_WC_REM_INV_RD_REQ_ERR = 15
    IBV_WC_REM_ABORT_ERR = 16
    IBV_WC_INV_EECN_ERR = 17
    IBV_WC_INV_EEC_STATE_ERR = 18
    IBV_WC_FATAL_ERR = 19
    IBV_WC_RESP_TIMEOUT_ERR = 20
    IBV_WC_GENERAL_ERR = 21
    IBV_WC_TM_ERR = 22
    IBV_WC_TM_RNDV_INCOMPLETE = 23


IBV_WC_SUCCESS = ibv_wc_status.IBV_WC_SUCCESS
IBV_WC_LOC_LEN_ERR = ibv_wc_status.IBV_WC_LOC_LEN_ERR
IBV_WC_LOC_QP_OP_ERR = ibv_wc_status.IBV_WC_LOC_QP_OP_ERR
IBV_WC_LOC_EEC_OP_ERR = ibv_wc_status.IBV_WC_LOC_EEC_OP_ERR
IBV_WC_LOC_PROT_ERR = ibv_wc_status.IBV_WC_LOC_PROT_ERR
IBV_WC_WR_FLUSH_ERR = ibv_wc_status.IBV_WC_WR_FLUSH_ERR
IBV_WC_MW_BIND_ERR = ibv_wc_status.IBV_WC_MW_BIND_ERR
IBV_WC_BAD_RESP_ERR = ibv_wc_status.IBV_WC_BAD_RESP_ERR
IBV_WC_LOC_ACCESS_ERR = ibv_wc_status.IBV_WC_LOC_ACCESS_ERR
IBV_WC_REM_INV_REQ_ERR = ibv_wc_status.IBV_WC_REM_INV_REQ_ERR
IBV_WC_REM_ACCESS_ERR = ibv_wc_status.IBV_WC_REM_ACCESS_ERR
IBV_WC_REM_OP_ERR = ibv_wc_status.IBV_WC_REM_OP_ERR
IBV_WC_RETRY_EXC_ERR = ibv_wc_status.IBV_WC_RETRY_EXC_ERR
IBV_WC_RNR_RETRY_EXC_ERR = ibv_wc_status.IBV_WC_RNR_RETRY_EXC_ERR
IBV_WC_LOC_RDD_VIOL_ERR = ibv_wc_status.IBV_WC_LOC_RDD_VIOL_ERR
IBV_WC_REM_INV_RD_REQ_ERR = ibv_wc_status.IBV_WC_REM_INV_RD_REQ_ERR
IBV_WC_REM_ABORT_ERR = ibv_wc_status.IBV_WC_REM_ABORT_ERR
IBV_WC_INV_EECN_ERR = ibv_wc_status.IBV_WC_INV_EECN_ERR
IBV_WC_INV_EEC_STATE_ERR = ibv_wc_status.IBV_WC_INV_EEC_STATE_ERR
IBV_WC_FATAL_ERR = ibv_wc_status.IBV_WC_FATAL_ERR
IBV_WC_RESP_TIMEOUT_ERR = ibv_wc_status.IBV_WC_RESP_TIMEOUT_ERR
IBV_WC_GENERAL_ERR = ibv_wc_status.IBV_WC_GENERAL_ERR
IBV_WC_TM_ERR = ibv_wc_status.IBV_WC_TM_ERR
IBV_WC_TM_RNDV_INCOMPLETE = ibv_wc_status.IBV_WC_TM_RNDV_INCOMPLETE


class ibv_wc_opcode(_VerbsEnum):
    """What a completion completes; receive completions have bit 7."""

    IBV_WC_SEND = 0
    IBV_WC_RDMA_WRITE = 1
    IBV_WC_RDMA_READ = 2
    IBV_WC_COMP_SWAP = 3
    IBV_WC_FETCH_ADD = 4
    IBV_WC_BIND_MW = 5
    IBV_WC_LOCAL_INV = 6
    IBV_WC_TSO = 7
    IBV_WC_FLUSH = 8
    IBV_WC_ATOMIC_WRITE = 9
    IBV_WC_RECV = 128
    IBV_WC_RECV_RDMA_WITH_IMM = 129
    IBV_WC_TM_ADD = 130
    IBV_WC_TM_DEL = 131
    IBV_WC_TM_SYNC = 132
    IBV_WC_TM_RECV = 133
    IBV_WC_TM_NO_TAG = 134
    IBV_WC_DRIVER2 = 136
    IBV_WC_DRIVER3 = 137


IBV_WC_SEND = ibv_wc_opcode.IBV_WC_SEND
IBV_WC_RDMA_WRITE = ibv_wc_opcode.IBV_WC_RDMA_WRITE
IBV_WC_RDMA_READ = ibv_wc_opcode.IBV_WC_RDMA_READ
IBV_WC_COMP_SWAP = ibv_wc_opcode.IBV_WC_COMP_SWAP
IBV_WC_FETCH_ADD = ibv_wc_opcode.IBV_WC_FETCH_ADD
IBV_WC_BIND_MW = ibv_wc_opcode.IBV_WC_BIND_MW
IBV_WC_LOCAL_INV = ibv_wc_opcode.IBV_WC_LOCAL_INV
IBV_WC_TSO = ibv_wc_opcode.IBV_WC_TSO
IBV_WC_FLUSH = ibv_wc_opcode.IBV_WC_FLUSH
IBV_WC_ATOMIC_WRITE = ibv_wc_opcode.IBV_WC_ATOMIC_WRITE
IBV_WC_RECV = ibv_wc_opcode.IBV_WC_RECV
IBV_WC_RECV_RDMA_WITH_IMM = ibv_wc_opcode.IBV_WC_RECV_RDMA_WITH_IMM
IBV_WC_TM_ADD = ibv_wc_opcode.IBV_WC_TM_ADD
IBV_WC_TM_DEL = ibv_wc_opcode.IBV_WC_TM_DEL
IBV_WC_TM_SYNC = ibv_wc_opcode.IBV_WC_TM_SYNC
IBV_WC_TM_RECV = ibv_wc_opcode.IBV_WC_TM_RECV
IBV_WC_TM_NO_TAG = ibv_wc_opcode.IBV_WC_TM_NO_TAG
IBV_WC_DRIVER2 = ibv_wc_opcode.IBV_WC_DRIVER2
IBV_WC_DRIVER3 = ibv_wc_opcode.IBV_WC_DRIVER3


class ibv_create_cq_wc_flags(_VerbsEnum):
    """Fields that completions of an extended CQ carry."""

    IBV_WC_EX_WITH_BYTE_LEN = 1 << 0
    IBV_WC_EX_WITH_IMM = 1 << 1
    IBV_WC_EX_WITH_QP_NUM = 1 << 2
    IBV_WC_EX_WITH_SRC_QP = 1 << 3
    IBV_WC_EX_WITH_SLID = 1 << 4
    IBV_WC_EX_WITH_SL = 1 << 5
    IBV_WC_EX_WITH_DLID_PATH_BITS = 1 << 6
    IBV_WC_EX_WITH_COMPLETION_TIMESTAMP = 1 << 7
    IBV_WC_EX_WITH_CVLAN = 1 << 8
    IBV_WC_EX_WITH_FLOW_TAG = 1 << 9
    IBV_WC_EX_WITH_TM_INFO = 1 << 10
    IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK = 1 << 11


IBV_WC_EX_WITH_BYTE_LEN = ibv_create_cq_wc_flags.IBV_WC_EX_WITH_BYTE_LEN
IBV_WC_EX_WITH_IMM = ibv_create_cq_wc_flags.IBV_WC_EX_WITH_IMM
IBV_WC_EX_WITH_QP_NUM = ibv_create_cq_wc_flags.IBV_WC_EX_WITH_QP_NUM
IBV_WC_EX_WITH_SRC_QP = ibv_create_cq_wc_flags.IBV_WC_EX_WITH_SRC_QP
IBV_WC_EX_WITH_SLID = ibv_create_cq_wc_flags.IBV_WC_EX_WITH_SLID
IBV_WC_EX_WITH_SL = ibv_create_cq_wc_flags.IBV_WC_EX_WITH_SL
IBV_WC_EX_WITH_DLID_PATH_BITS = ibv_create_cq_wc_flags.IBV_WC_EX_WITH_DLID_PATH_BITS
IBV_WC_EX_WITH_COMPLETION_TIMESTAMP = ibv_create_cq_wc_flags.IBV_WC_EX_WITH_COMPLETION_TIMESTAMP
IBV_WC_EX_WITH_CVLAN = ibv_create_cq_wc_flags.IBV_WC_EX_WITH_CVLAN
IBV_WC_EX_WITH_FLOW_TAG = ibv_create_cq_wc_flags.IBV_WC_EX_WITH_FLOW_TAG
IBV_WC_EX_WITH_TM_INFO = ibv_create_cq_wc_flags.IBV_WC_EX_WITH_TM_INFO
IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK = ibv_create_cq_wc_flags.IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK


class ibv_wc_flags(_VerbsEnum):
    """What else holds for a completion (wc_flags)."""

    IBV_WC_GRH = 1 << 0
    IBV_WC_WITH_IMM = 1 << 1
    IBV_WC_IP_CSUM_OK = 1 << 2
    IBV_WC_WITH_INV = 1 << 3
    IBV_WC_TM_SYNC_REQ = 1 << 4
    IBV_WC_TM_MATCH = 1 << 5
    IBV_WC_TM_DATA_VALID = 1 << 6


IBV_WC_GRH = ibv_wc_flags.IBV_WC_GRH
IBV_WC_WITH_IMM = ibv_wc_flags.IBV_WC_WITH_IMM
IBV_WC_IP_CSUM_OK = ibv_wc_flags.IBV_WC_IP_CSUM_OK
IBV_WC_WITH_INV = ibv_wc_flags.IBV_WC_WITH_INV
IBV_WC_TM_SYNC_REQ = ibv_wc_flags.IBV_WC_TM_SYNC_REQ
IBV_WC_TM_MATCH = ibv_wc_flags.IBV_WC_TM_MATCH
IBV_WC_TM_DATA_VALID = ibv_wc_flags.IBV_WC_TM_DATA_VALID


class ibv_srq_attr_mask(_VerbsEnum):
    """Valid attributes of modify_srq."""

    IBV_SRQ_MAX_WR = 1 << 0
    IBV_SRQ_LIMIT = 1 << 1


IBV_SRQ_MAX_WR = ibv_srq_attr_mask.IBV_SRQ_MAX_WR
IBV_SRQ_LIMIT = ibv_srq_attr_mask.IBV_SRQ_LIMIT


class ibv_srq_type(_VerbsEnum):
    """Type of a shared receive queue."""

    IBV_SRQT_BASIC = 0
    IBV_SRQT_XRC = 1
    IBV_SRQT_TM = 2


IBV_SRQT_BASIC = ibv_srq_type.IBV_SRQT_BASIC
IBV_SRQT_XRC = ibv_srq_type.IBV_SRQT_XRC
IBV_SRQT_TM = ibv_srq_type.IBV_SRQT_TM


class ibv_srq_init_attr_mask(_VerbsEnum):
    """Valid extended attributes at the creation of an SRQ."""

    IBV_SRQ_INIT_ATTR_TYPE = 1 << 0
    IBV_SRQ_INIT_ATTR_PD = 1 << 1
    IBV_SRQ_INIT_ATTR_XRCD = 1 << 2
    IBV_SRQ_INIT_ATTR_CQ = 1 << 3
    IBV_SRQ_INIT_ATTR_TM = 1 << 4


IBV_SRQ_INIT_ATTR_TYPE = ibv_srq_init_attr_mask.IBV_SRQ_INIT_ATTR_TYPE
IBV_SRQ_INIT_ATTR_PD = ibv_srq_init_attr_mask.IBV_SRQ_INIT_ATTR_PD
IBV_SRQ_INIT_ATTR_XRCD = ibv_srq_init_attr_mask.IBV_SRQ_INIT_ATTR_XRCD
IBV_SRQ_INIT_ATTR_CQ = ibv_srq_init_attr_mask.IBV_SRQ_INIT_ATTR_CQ
IBV_SRQ_INIT_ATTR_TM = ibv_srq_init_attr_mask.IBV_SRQ_INIT_ATTR_TM


class ibv_mig_state(_VerbsEnum):
    """Path migration state."""

    IBV_MIG_MIGRATED = 0
    IBV_MIG_REARM = 1
    IBV_MIG_ARMED = 2


IBV_MIG_MIGRATED = ibv_mig_state.IBV_MIG_MIGRATED
IBV_MIG_REARM = ibv_mig_state.IBV_MIG_REARM
IBV_MIG_ARMED = ibv_mig_state.IBV_MIG_ARMED


class ibv_qp_init_attr_mask(_VerbsEnum):
    """Valid extended attributes at the creation of a QP (comp_mask)."""

    IBV_QP_INIT_ATTR_PD = 1 << 0
    IBV_QP_INIT_ATTR_XRCD = 1 << 1
    IBV_QP_INIT_ATTR_CREATE_FLAGS = 1 << 2
    IBV_QP_INIT_ATTR_MAX_TSO_HEADER = 1 << 3
    IBV_QP_INIT_ATTR_IND_TABLE = 1 << 4
    IBV_QP_INIT_ATTR_RX_HASH = 1 << 5
    IBV_QP_INIT_ATTR_SEND_OPS_FLAGS = 1 << 6


IBV_QP_INIT_ATTR_PD = ibv_qp_init_attr_mask.IBV_QP_INIT_ATTR_PD
IBV_QP_INIT_ATTR_XRCD = ibv_qp_init_attr_mask.IBV_QP_INIT_ATTR_XRCD
IBV_QP_INIT_ATTR_CREATE_FLAGS = ibv_qp_init_attr_mask.IBV_QP_INIT_ATTR_CREATE_FLAGS
IBV_QP_INIT_ATTR_MAX_TSO_HEADER = ibv_qp_init_attr_mask.IBV_QP_INIT_ATTR_MAX_TSO_HEADER
IBV_QP_INIT_ATTR_IND_TABLE = ibv_qp_init_attr_mask.IBV_QP_INIT_ATTR_IND_TABLE
IBV_QP_INIT_ATTR_RX_HASH = ibv_qp_init_attr_mask.IBV_QP_INIT_ATTR_RX_HASH
IBV_QP_INIT_ATTR_SEND_OPS_FLAGS = ibv_qp_init_attr_mask.IBV_QP_INIT_ATTR_SEND_OPS_FLAGS


class ibv_qp_create_flags(_VerbsEnum):
    """Creation flags of a QP."""

    IBV_QP_CREATE_BLOCK_SELF_MCAST_LB = 1 << 1
    IBV_QP_CREATE_SCATTER_FCS = 1 << 8
    IBV_QP_CREATE_CVLAN_STRIPPING = 1 << 9
    IBV_QP_CREATE_SOURCE_QPN = 1 << 10
    IBV_QP_CREATE_PCI_WRITE_END_PADDING = 1 << 11


IBV_QP_CREATE_BLOCK_SELF_MCAST_LB = ibv_qp_create_flags.IBV_QP_CREATE_BLOCK_SELF_MCAST_LB
IBV_QP_CREATE_SCATTER_FCS = ibv_qp_create_flags.IBV_QP_CREATE_SCATTER_FCS
IBV_QP_CREATE_CVLAN_STRIPPING = ibv_qp_create_flags.IBV_QP_CREATE_CVLAN_STRIPPING
IBV_QP_CREATE_SOURCE_QPN = ibv_qp_create_flags.IBV_QP_CREATE_SOURCE_QPN
IBV_QP_CREATE_PCI_WRITE_END_PADDING = ibv_qp_create_flags.IBV_QP_CREATE_PCI_WRITE_END_PADDING


class ibv_qp_attr_mask(_VerbsEnum):
    """Valid attributes of modify_qp, asked-for attributes of query_qp."""

    IBV_QP_STATE = 1 << 0
    IBV_QP_CUR_STATE = 1 << 1
    IBV_QP_EN_SQD_ASYNC_NOTIFY = 1 << 2
    IBV_QP_ACCESS_FLAGS = 1 << 3
    IBV_QP_PKEY_INDEX = 1 << 4
    IBV_QP_PORT = 1 << 5
    IBV_QP_QKEY = 1 << 6
    IBV_QP_AV = 1 << 7
    IBV_QP_PATH_MTU = 1 << 8
    IBV_QP_TIMEOUT = 1 << 9
    IBV_QP_RETRY_CNT = 1 << 10
    IBV_QP_RNR_RETRY = 1 << 11
    IBV_QP_RQ_PSN = 1 << 12
    IBV_QP_MAX_QP_RD_ATOMIC = 1 << 13
    IBV_QP_ALT_PATH = 1 << 14
    IBV_QP_MIN_RNR_TIMER = 1 << 15
    IBV_QP_SQ_PSN = 1 << 16
    IBV_QP_MAX_DEST_RD_ATOMIC = 1 << 17
    IBV_QP_PATH_MIG_STATE = 1 << 18
    IBV_QP_CAP = 1 << 19
    IBV_QP_DEST_QPN = 1 << 20
    IBV_QP_RATE_LIMIT = 1 << 25


IBV_QP_STATE = ibv_qp_attr_mask.IBV_QP_STATE
IBV_QP_CUR_STATE = ibv_qp_attr_mask.IBV_QP_CUR_STATE
IBV_QP_EN_SQD_ASYNC_NOTIFY = ibv_qp_attr_mask.IBV_QP_EN_SQD_ASYNC_NOTIFY
IBV_QP_ACCESS_FLAGS = ibv_qp_attr_mask.IBV_QP_ACCESS_FLAGS
IBV_QP_PKEY_INDEX = ibv_qp_attr_mask.IBV_QP_PKEY_INDEX
IBV_QP_PORT = ibv_qp_attr_mask.IBV_QP_PORT
IBV_QP_QKEY = ibv_qp_attr_mask.IBV_QP_QKEY
IBV_QP_AV = ibv_qp_attr_mask.IBV_QP_AV
IBV_QP_PATH_MTU = ibv_qp_attr_mask.IBV_QP_PATH_MTU
IBV_QP_TIMEOUT = ibv_qp_attr_mask.IBV_QP_TIMEOUT
IBV_QP_RETRY_CNT = ibv_qp_attr_mask.IBV_QP_RETRY_CNT
IBV_QP_RNR_RETRY = ibv_qp_attr_mask.IBV_QP_RNR_RETRY
IBV_QP_RQ_PSN = ibv_qp_attr_mask.IBV_QP_RQ_PSN
IBV_QP_MAX_QP_RD_ATOMIC = ibv_qp_attr_mask.IBV_QP_MAX_QP_RD_ATOMIC
IBV_QP_ALT_PATH = ibv_qp_attr_mask.IBV_QP_ALT_PATH
IBV_QP_MIN_RNR_TIMER = ibv_qp_attr_mask.IBV_QP_MIN_RNR_TIMER
IBV_QP_SQ_PSN = ibv_qp_attr_mask.IBV_QP_SQ_PSN
IBV_QP_MAX_DEST_RD_ATOMIC = ibv_qp_attr_mask.IBV_QP_MAX_DEST_RD_ATOMIC
IBV_QP_PATH_MIG_STATE = ibv_qp_attr_mask.IBV_QP_PATH_MIG_STATE
IBV_QP_CAP = ibv_qp_attr_mask.IBV_QP_CAP
IBV_QP_DEST_QPN = ibv_qp_attr_mask.IBV_QP_DEST_QPN
IBV_QP_RATE_LIMIT = ibv_qp_attr_mask.IBV_QP_RATE_LIMIT


class ibv_query_qp_data_in_order_flags(_VerbsEnum):
    """Flags of query_qp_data_in_order."""

    IBV_QUERY_QP_DATA_IN_ORDER_RETURN_CAPS = 1 << 0


IBV_QUERY_QP_DATA_IN_ORDER_RETURN_CAPS = ibv_query_qp_data_in_order_flags.IBV_QUERY_QP_DATA_IN_ORDER_RETURN_CAPS


class ibv_query_qp_data_in_order_caps(_VerbsEnum):
    """Answer of query_qp_data_in_order."""

    IBV_QUERY_QP_DATA_IN_ORDER_WHOLE_MSG = 1 << 0
    IBV_QUERY_QP_DATA_IN_ORDER_ALIGNED_128_BYTES = 1 << 1


IBV_QUERY_QP_DATA_IN_ORDER_WHOLE_MSG = ibv_query_qp_data_in_order_caps.IBV_QUERY_QP_DATA_IN_ORDER_WHOLE_MSG
IBV_QUERY_QP_DATA_IN_ORDER_ALIGNED_128_BYTES = (
    ibv_query_qp_data_in_order_caps.IBV_QUERY_QP_DATA_IN_ORDER_ALIGNED_128_BYTES
)


class ibv_wq_type(_VerbsEnum):
    """Type of a work queue."""

    IBV_WQT_RQ = 0


IBV_WQT_RQ = ibv_wq_type.IBV_WQT_RQ


class ibv_wq_init_attr_mask(_VerbsEnum):
    """Valid attributes at the creation of a WQ."""

    IBV_WQ_INIT_ATTR_FLAGS = 1 << 0


IBV_WQ_INIT_ATTR_FLAGS = ibv_wq_init_attr_mask.IBV_WQ_INIT_ATTR_FLAGS


class ibv_wq_flags(_VerbsEnum):
    """Creation flags of a WQ."""

    IBV_WQ_FLAGS_CVLAN_STRIPPING = 1 << 0
    IBV_WQ_FLAGS_SCATTER_FCS = 1 << 1
    IBV_WQ_FLAGS_DELAY_DROP = 1 << 2
    IBV_WQ_FLAGS_PCI_WRITE_END_PADDING = 1 << 3


IBV_WQ_FLAGS_CVLAN_STRIPPING = ibv_wq_flags.IBV_WQ_FLAGS_CVLAN_STRIPPING
IBV_WQ_FLAGS_SCATTER_FCS = ibv_wq_flags.IBV_WQ_FLAGS_SCATTER_FCS
IBV_WQ_FLAGS_DELAY_DROP = ibv_wq_flags.IBV_WQ_FLAGS_DELAY_DROP
IBV_WQ_FLAGS_PCI_WRITE_END_PADDING = ibv_wq_flags.IBV_WQ_FLAGS_PCI_WRITE_END_PADDING


class ibv_wq_state(_VerbsEnum):
    """State of a WQ."""

    IBV_WQS_RESET = 0
    IBV_WQS_RDY = 1
    IBV_WQS_ERR = 2
    IBV_WQS_UNKNOWN = 3


IBV_WQS_RESET = ibv_wq_state.IBV_WQS_RESET
IBV_WQS_RDY = ibv_wq_state.IBV_WQS_RDY
IBV_WQS_ERR = ibv_wq_state.IBV_WQS_ERR
IBV_WQS_UNKNOWN = ibv_wq_state.IBV_WQS_UNKNOWN


class ibv_wq_attr_mask(_VerbsEnum):
    """Valid attributes of modify_wq."""

    IBV_WQ_ATTR_STATE = 1 << 0
    IBV_WQ_ATTR_CURR_STATE = 1 << 1
    IBV_WQ_ATTR_FLAGS = 1 << 2


IBV_WQ_ATTR_STATE = ibv_wq_attr_mask.IBV_WQ_ATTR_STATE
IBV_WQ_ATTR_CURR_STATE = ibv_wq_attr_mask.IBV_WQ_ATTR_CURR_STATE
IBV_WQ_ATTR_FLAGS = ibv_wq_attr_mask.IBV_WQ_ATTR_FLAGS


class ibv_rx_hash_function_flags(_VerbsEnum):
    """Hash function of receive-side scaling."""

    IBV_RX_HASH_FUNC_TOEPLITZ = 1 << 0


IBV_RX_HASH_FUNC_TOEPLITZ = ibv_rx_hash_function_flags.IBV_RX_HASH_FUNC_TOEPLITZ


class ibv_rx_hash_fields(_VerbsEnum):
    """Packet fields that are hashed."""

    IBV_RX_HASH_SRC_IPV4 = 1 << 0
    IBV_RX_HASH_DST_IPV4 = 1 << 1
    IBV_RX_HASH_SRC_IPV6 = 1 << 2
    IBV_RX_HASH_DST_IPV6 = 1 << 3
    IBV_RX_HASH_SRC_PORT_TCP = 1 << 4
    IBV_RX_HASH_DST_PORT_TCP = 1 << 5
    IBV_RX_HASH_SRC_PORT_UDP = 1 << 6
    IBV_RX_HASH_DST_PORT_UDP = 1 << 7


IBV_RX_HASH_SRC_IPV4 = ibv_rx_hash_fields.IBV_RX_HASH_SRC_IPV4
IBV_RX_HASH_DST_IPV4 = ibv_rx_hash_fields.IBV_RX_HASH_DST_IPV4
IBV_RX_HASH_SRC_IPV6 = ibv_rx_hash_fields.IBV_RX_HASH_SRC_IPV6
IBV_RX_HASH_DST_IPV6 = ibv_rx_hash_fields.IBV_RX_HASH_DST_IPV6
IBV_RX_HASH_SRC_PORT_TCP = ibv_rx_hash_fields.IBV_RX_HASH_SRC_PORT_TCP
IBV_RX_HASH_DST_PORT_TCP = ibv_rx_hash_fields.IBV_RX_HASH_DST_PORT_TCP
IBV_RX_HASH_SRC_PORT_UDP = ibv_rx_hash_fields.IBV_RX_HASH_SRC_PORT_UDP
IBV_RX_HASH_DST_PORT_UDP = ibv_rx_hash_fields.IBV_RX_HASH_DST_PORT_UDP


class ibv_flow_flags(_VerbsEnum):
    """Flags of a flow."""

    IBV_FLOW_ATTR_FLAGS_DONT_TRAP = 1 << 1
    IBV_FLOW_ATTR_FLAGS_EGRESS = 1 << 2


IBV_FLOW_ATTR_FLAGS_DONT_TRAP = ibv_flow_flags.IBV_FLOW_ATTR_FLAGS_DONT_TRAP
IBV_FLOW_ATTR_FLAGS_EGRESS = ibv_flow_flags.IBV_FLOW_ATTR_FLAGS_EGRESS


class ibv_flow_attr_type(_VerbsEnum):
    """Type of a flow."""

    IBV_FLOW_ATTR_NORMAL = 0
    IBV_FLOW_ATTR_ALL_DEFAULT = 1
    IBV_FLOW_ATTR_MC_DEFAULT = 2
    IBV_FLOW_ATTR_SNIFFER = 3


IBV_FLOW_ATTR_NORMAL = ibv_flow_attr_type.IBV_FLOW_ATTR_NORMAL
IBV_FLOW_ATTR_ALL_DEFAULT = ibv_flow_attr_type.IBV_FLOW_ATTR_ALL_DEFAULT
IBV_FLOW_ATTR_MC_DEFAULT = ibv_flow_attr_type.IBV_FLOW_ATTR_MC_DEFAULT
IBV_FLOW_ATTR_SNIFFER = ibv_flow_attr_type.IBV_FLOW_ATTR_SNIFFER


class ibv_flow_spec_type(_VerbsEnum):
    """What a flow specification matches or does."""

    IBV_FLOW_SPEC_ETH = 32
    IBV_FLOW_SPEC_IPV4 = 48
    IBV_FLOW_SPEC_IPV6 = 49
    IBV_FLOW_SPEC_IPV4_EXT = 50
    IBV_FLOW_SPEC_ESP = 52
    IBV_FLOW_SPEC_TCP = 64
    IBV_FLOW_SPEC_UDP = 65
    IBV_FLOW_SPEC_VXLAN_TUNNEL = 80
    IBV_FLOW_SPEC_GRE = 81
    IBV_FLOW_SPEC_MPLS = 96
    IBV_FLOW_SPEC_INNER = 256
    IBV_FLOW_SPEC_ACTION_TAG = 4096
    IBV_FLOW_SPEC_ACTION_DROP = 4097
    IBV_FLOW_SPEC_ACTION_HANDLE = 4098
    IBV_FLOW_SPEC_ACTION_COUNT = 4099


IBV_FLOW_SPEC_ETH = ibv_flow_spec_type.IBV_FLOW_SPEC_ETH
IBV_FLOW_SPEC_IPV4 = ibv_flow_spec_type.IBV_FLOW_SPEC_IPV4
IBV_FLOW_SPEC_IPV6 = ibv_flow_spec_type.IBV_FLOW_SPEC_IPV6
IBV_FLOW_SPEC_IPV4_EXT = ibv_flow_spec_type.IBV_FLOW_SPEC_IPV4_EXT
IBV_FLOW_SPEC_ESP = ibv_flow_spec_type.IBV_FLOW_SPEC_ESP
IBV_FLOW_SPEC_TCP = ibv_flow_spec_type.IBV_FLOW_SPEC_TCP
IBV_FLOW_SPEC_UDP = ibv_flow_spec_type.IBV_FLOW_SPEC_UDP
IBV_FLOW_SPEC_VXLAN_TUNNEL = ibv_flow_spec_type.IBV_FLOW_SPEC_VXLAN_TUNNEL
IBV_FLOW_SPEC_GRE = ibv_flow_spec_type.IBV_FLOW_SPEC_GRE
IBV_FLOW_SPEC_MPLS = ibv_flow_spec_type.IBV_FLOW_SPEC_MPLS
IBV_FLOW_SPEC_INNER = ibv_flow_spec_type.IBV_FLOW_SPEC_INNER
IBV_FLOW_SPEC_ACTION_TAG = ibv_flow_spec_type.IBV_FLOW_SPEC_ACTION_TAG
IBV_FLOW_SPEC_ACTION_DROP = ibv_flow_spec_type.IBV_FLOW_SPEC_ACTION_DROP
IBV_FLOW_SPEC_ACTION_HANDLE = ibv_flow_spec_type.IBV_FLOW_SPEC_ACTION_HANDLE
IBV_FLOW_SPEC_ACTION_COUNT = ibv_flow_spec_type.IBV_FLOW_SPEC_ACTION_COUNT

# Port flag: every packet needs a global route header.
IBV_QPF_GRH_REQUIRED: _Final = 1


class ibv_counter_description(_VerbsEnum):
    """What a flow counter counts."""

    IBV_COUNTER_PACKETS = 0
    IBV_COUNTER_BYTES = 1


IBV_COUNTER_PACKETS = ibv_counter_description.IBV_COUNTER_PACKETS
IBV_COUNTER_BYTES = ibv_counter_description.IBV_COUNTER_BYTES


class ibv_read_counters_flags(_VerbsEnum):
    """Flags of read_counters."""

    IBV_READ_COUNTERS_ATTR_PREFER_CACHED = 1 << 0


IBV_READ_COUNTERS_ATTR_PREFER_CACHED = ibv_read_counters_flags.IBV_READ_COUNTERS_ATTR_PREFER_CACHED


class ibv_cq_init_attr_mask(_VerbsEnum):
    """Valid extended attributes at the creation of a CQ."""

    IBV_CQ_INIT_ATTR_MASK_FLAGS = 1 << 0
    IBV_CQ_INIT_ATTR_MASK_PD = 1 << 1


IBV_CQ_INIT_ATTR_MASK_FLAGS = ibv_cq_init_attr_mask.IBV_CQ_INIT_ATTR_MASK_FLAGS
IBV_CQ_INIT_ATTR_MASK_PD = ibv_cq_init_attr_mask.IBV_CQ_INIT_ATTR_MASK_PD


class ibv_create_cq_attr_flags(_VerbsEnum):
    """Creation flags of an extended CQ."""

    IBV_CREATE_CQ_ATTR_SINGLE_THREADED = 1 << 0
    IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN = 1 << 1


IBV_CREATE_CQ_ATTR_SINGLE_THREADED = ibv_create_cq_attr_flags.IBV_CREATE_CQ_ATTR_SINGLE_THREADED
IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN = ibv_create_cq_attr_flags.IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN


class ibv_odp_general_caps(_VerbsEnum):
    """On-demand paging: general capabilities."""

    IBV_ODP_SUPPORT = 1 << 0
    IBV_ODP_SUPPORT_IMPLICIT = 1 << 1


IBV_ODP_SUPPORT = ibv_odp_general_caps.IBV_ODP_SUPPORT
IBV_ODP_SUPPORT_IMPLICIT = ibv_odp_general_caps.IBV_ODP_SUPPORT_IMPLICIT


class ibv_odp_transport_cap_bits(_VerbsEnum):
    """On-demand paging: operations of a transport that may fault."""

    IBV_ODP_SUPPORT_SEND = 1 << 0
    IBV_ODP_SUPPORT_RECV = 1 << 1
    IBV_ODP_SUPPORT_WRITE = 1 << 2
    IBV_ODP_SUPPORT_READ = 1 << 3
    IBV_ODP_SUPPORT_ATOMIC = 1 << 4
    IBV_ODP_SUPPORT_SRQ_RECV = 1 << 5
    IBV_ODP_SUPPORT_FLUSH = 1 << 6
    IBV_ODP_SUPPORT_ATOMIC_WRITE = 1 << 7


IBV_ODP_SUPPORT_SEND = ibv_odp_transport_cap_bits.IBV_ODP_SUPPORT_SEND
IBV_ODP_SUPPORT_RECV = ibv_odp_transport_cap_bits.IBV_ODP_SUPPORT_RECV
IBV_ODP_SUPPORT_WRITE = ibv_odp_transport_cap_bits.IBV_ODP_SUPPORT_WRITE
IBV_ODP_SUPPORT_READ = ibv_odp_transport_cap_bits.IBV_ODP_SUPPORT_READ
IBV_ODP_SUPPORT_ATOMIC = ibv_odp_transport_cap_bits.IBV_ODP_SUPPORT_ATOMIC
IBV_ODP_SUPPORT_SRQ_RECV = ibv_odp_transport_cap_bits.IBV_ODP_SUPPORT_SRQ_RECV
IBV_ODP_SUPPORT_FLUSH = ibv_odp_transport_cap_bits.IBV_ODP_SUPPORT_FLUSH
IBV_ODP_SUPPORT_ATOMIC_WRITE = ibv_odp_transport_cap_bits.IBV_ODP_SUPPORT_ATOMIC_WRITE


class ibv_device_cap_flags(_VerbsEnum):
    """Device capabilities (device_cap_flags)."""

    IBV_DEVICE_RESIZE_MAX_WR = 1 << 0
    IBV_DEVICE_BAD_PKEY_CNTR = 1 << 1
    IBV_DEVICE_BAD_QKEY_CNTR = 1 << 2
    IBV_DEVICE_RAW_MULTI = 1 << 3
    IBV_DEVICE_AUTO_PATH_MIG = 1 << 4
    IBV_DEVICE_CHANGE_PHY_PORT = 1 << 5
    IBV_DEVICE_UD_AV_PORT_ENFORCE = 1 << 6
    IBV_DEVICE_CURR_QP_STATE_MOD = 1 << 7
    IBV_DEVICE_SHUTDOWN_PORT = 1 << 8
    IBV_DEVICE_INIT_TYPE = 1 << 9
    IBV_DEVICE_PORT_ACTIVE_EVENT = 1 << 10
    IBV_DEVICE_SYS_IMAGE_GUID = 1 << 11
    IBV_DEVICE_RC_RNR_NAK_GEN = 1 << 12
    IBV_DEVICE_SRQ_RESIZE = 1 << 13
    IBV_DEVICE_N_NOTIFY_CQ = 1 << 14
    IBV_DEVICE_MEM_WINDOW = 1 << 17
    IBV_DEVICE_UD_IP_CSUM = 1 << 18
    IBV_DEVICE_XRC = 1 << 20
    IBV_DEVICE_MEM_MGT_EXTENSIONS = 1 << 21
    IBV_DEVICE_MEM_WINDOW_TYPE_2A = 1 << 23
    IBV_DEVICE_MEM_WINDOW_TYPE_2B = 1 << 24
    IBV_DEVICE_RC_IP_CSUM = 1 << 25
    IBV_DEVICE_RAW_IP_CSUM = 1 << 26
    IBV_DEVICE_MANAGED_FLOW_STEERING = 1 << 29


IBV_DEVICE_RESIZE_MAX_WR = ibv_device_cap_flags.IBV_DEVICE_RESIZE_MAX_WR
IBV_DEVICE_BAD_PKEY_CNTR = ibv_device_cap_flags.IBV_DEVICE_BAD_PKEY_CNTR
IBV_DEVICE_BAD_QKEY_CNTR = ibv_device_cap_flags.IBV_DEVICE_BAD_QKEY_CNTR
IBV_DEVICE_RAW_MULTI = ibv_device_cap_flags.IBV_DEVICE_RAW_MULTI
IBV_DEVICE_AUTO_PATH_MIG = ibv_device_cap_flags.IBV_DEVICE_AUTO_PATH_MIG
IBV_DEVICE_CHANGE_PHY_PORT = ibv_device_cap_flags.IBV_DEVICE_CHANGE_PHY_PORT
IBV_DEVICE_UD_AV_PORT_ENFORCE = ibv_device_cap_flags.IBV_DEVICE_UD_AV_PORT_ENFORCE
IBV_DEVICE_CURR_QP_STATE_MOD = ibv_device_cap_flags.IBV_DEVICE_CURR_QP_STATE_MOD
IBV_DEVICE_SHUTDOWN_PORT = ibv_device_cap_flags.IBV_DEVICE_SHUTDOWN_PORT
IBV_DEVICE_INIT_TYPE = ibv_device_cap_flags.IBV_DEVICE_INIT_TYPE
IBV_DEVICE_PORT_ACTIVE_EVENT = ibv_device_cap_flags.IBV_DEVICE_PORT_ACTIVE_EVENT
IBV_DEVICE_SYS_IMAGE_GUID = ibv_device_cap_flags.IBV_DEVICE_SYS_IMAGE_GUID
IBV_DEVICE_RC_RNR_NAK_GEN = ibv_device_cap_flags.IBV_DEVICE_RC_RNR_NAK_GEN
IBV_DEVICE_SRQ_RESIZE = ibv_device_cap_flags.IBV_DEVICE_SRQ_RESIZE
IBV_DEVICE_N_NOTIFY_CQ = ibv_device_cap_flags.IBV_DEVICE_N_NOTIFY_CQ
IBV_DEVICE_MEM_WINDOW = ibv_device_cap_flags.IBV_DEVICE_MEM_WINDOW
IBV_DEVICE_UD_IP_CSUM = ibv_device_cap_flags.IBV_DEVICE_UD_IP_CSUM
IBV_DEVICE_XRC = ibv_device_cap_flags.IBV_DEVICE_XRC
IBV_DEVICE_MEM_MGT_EXTENSIONS = ibv_device_cap_flags.IBV_DEVICE_MEM_MGT_EXTENSIONS
IBV_DEVICE_MEM_WINDOW_TYPE_2A = ibv_device_cap_flags.IBV_DEVICE_MEM_WINDOW_TYPE_2A
IBV_DEVICE_MEM_WINDOW_TYPE_2B = ibv_device_cap_flags.IBV_DEVICE_MEM_WINDOW_TYPE_2B
IBV_DEVICE_RC_IP_CSUM = ibv_device_cap_flags.IBV_DEVICE_RC_IP_CSUM
IBV_DEVICE_RAW_IP_CSUM = ibv_device_cap_flags.IBV_DEVICE_RAW_IP_CSUM
IBV_DEVICE_MANAGED_FLOW_STEERING = ibv_device_cap_flags.IBV_DEVICE_MANAGED_FLOW_STEERING


class ibv_raw_packet_caps(_VerbsEnum):
    """Capabilities of raw packet QPs."""

    IBV_RAW_PACKET_CAP_CVLAN_STRIPPING = 1 << 0
    IBV_RAW_PACKET_CAP_SCATTER_FCS = 1 << 1
    IBV_RAW_PACKET_CAP_IP_CSUM = 1 << 2
    IBV_RAW_PACKET_CAP_DELAY_DROP = 1 << 3


IBV_RAW_PACKET_CAP_CVLAN_STRIPPING = ibv_raw_packet_caps.IBV_RAW_PACKET_CAP_CVLAN_STRIPPING
IBV_RAW_PACKET_CAP_SCATTER_FCS = ibv_raw_packet_caps.IBV_RAW_PACKET_CAP_SCATTER_FCS
IBV_RAW_PACKET_CAP_IP_CSUM = ibv_raw_packet_caps.IBV_RAW_PACKET_CAP_IP_CSUM
IBV_RAW_PACKET_CAP_DELAY_DROP = ibv_raw_packet_caps.IBV_RAW_PACKET_CAP_DELAY_DROP


class ibv_xrcd_init_attr_mask(_VerbsEnum):
    """Valid attributes at the creation of an XRC domain."""

    IBV_XRCD_INIT_ATTR_FD = 1 << 0
    IBV_XRCD_INIT_ATTR_OFLAGS = 1 << 1
    IBV_XRCD_INIT_ATTR_RESERVED = 1 << 2


IBV_XRCD_INIT_ATTR_FD = ibv_xrcd_init_attr_mask.IBV_XRCD_INIT_ATTR_FD
IBV_XRCD_INIT_ATTR_OFLAGS = ibv_xrcd_init_attr_mask.IBV_XRCD_INIT_ATTR_OFLAGS
IBV_XRCD_INIT_ATTR_RESERVED = ibv_xrcd_init_attr_mask.IBV_XRCD_INIT_ATTR_RESERVED

# What CQ completions always carry (create_cq_wc_flags).
IBV_WC_STANDARD_FLAGS: _Final = 127


class ibv_values_mask(_VerbsEnum):
    """Values of query_rt_values_ex."""

    IBV_VALUES_MASK_RAW_CLOCK = 1 << 0


IBV_VALUES_MASK_RAW_CLOCK = ibv_values_mask.IBV_VALUES_MASK_RAW_CLOCK


class ibv_qp_create_send_ops_flags(_VerbsEnum):
    """Operations that a QPEx shall offer."""

    IBV_QP_EX_WITH_RDMA_WRITE = 1 << 0
    IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM = 1 << 1
    IBV_QP_EX_WITH_SEND = 1 << 2
    IBV_QP_EX_WITH_SEND_WITH_IMM = 1 << 3
    IBV_QP_EX_WITH_RDMA_READ = 1 << 4
    IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP = 1 << 5
    IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD = 1 << 6
    IBV_QP_EX_WITH_LOCAL_INV = 1 << 7
    IBV_QP_EX_WITH_BIND_MW = 1 << 8
    IBV_QP_EX_WITH_SEND_WITH_INV = 1 << 9
    IBV_QP_EX_WITH_TSO = 1 << 10
    IBV_QP_EX_WITH_FLUSH = 1 << 11
    IBV_QP_EX_WITH_ATOMIC_WRITE = 1 << 12


IBV_QP_EX_WITH_RDMA_WRITE = ibv_qp_create_send_ops_flags.IBV_QP_EX_WITH_RDMA_WRITE
IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM = ibv_qp_create_send_ops_flags.IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM
IBV_QP_EX_WITH_SEND = ibv_qp_create_send_ops_flags.IBV_QP_EX_WITH_SEND
IBV_QP_EX_WITH_SEND_WITH_IMM = ibv_qp_create_send_ops_flags.IBV_QP_EX_WITH_SEND_WITH_IMM
IBV_QP_EX_WITH_RDMA_READ = ibv_qp_create_send_ops_flags.IBV_QP_EX_WITH_RDMA_READ
IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP = ibv_qp_create_send_ops_flags.IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP
IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD = ibv_qp_create_send_ops_flags.IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD
IBV_QP_EX_WITH_LOCAL_INV = ibv_qp_create_send_ops_flags.IBV_QP_EX_WITH_LOCAL_INV
IBV_QP_EX_WITH_BIND_MW = ibv_qp_create_send_ops_flags.IBV_QP_EX_WITH_BIND_MW
IBV_QP_EX_WITH_SEND_WITH_INV = ibv_qp_create_send_ops_flags.IBV_QP_EX_WITH_SEND_WITH_INV
IBV_QP_EX_WITH_TSO = ibv_qp_create_send_ops_flags.IBV_QP_EX_WITH_TSO
IBV_QP_EX_WITH_FLUSH = ibv_qp_create_send_ops_flags.IBV_QP_EX_WITH_FLUSH
IBV_QP_EX_WITH_ATOMIC_WRITE = ibv_qp_create_send_ops_flags.IBV_QP_EX_WITH_ATOMIC_WRITE


class ibv_parent_domain_init_attr_mask(_VerbsEnum):
    """Valid attributes at the creation of a parent domain."""

    IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS = 1 << 0
    IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT = 1 << 1
    IBV_PARENT_DOMAIN_INIT_ATTR_ALLOW_CC_UNPROTECTED_ALLOC = 1 << 2


IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS = ibv_parent_domain_init_attr_mask.IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS
IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT = ibv_parent_domain_init_attr_mask.IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT
IBV_PARENT_DOMAIN_INIT_ATTR_ALLOW_CC_UNPROTECTED_ALLOC = (
    ibv_parent_domain_init_attr_mask.IBV_PARENT_DOMAIN_INIT_ATTR_ALLOW_CC_UNPROTECTED_ALLOC
)


class ibv_gid_type(_VerbsEnum):
    """Type of a GID table entry (GIDEntry.gid_type)."""

    IBV_GID_TYPE_IB = 0
    IBV_GID_TYPE_ROCE_V1 = 1
    IBV_GID_TYPE_ROCE_V2 = 2


IBV_GID_TYPE_IB = ibv_gid_type.IBV_GID_TYPE_IB
IBV_GID_TYPE_ROCE_V1 = ibv_gid_type.IBV_GID_TYPE_ROCE_V1
IBV_GID_TYPE_ROCE_V2 = ibv_gid_type.IBV_GID_TYPE_ROCE_V2


class ibv_fork_status(_VerbsEnum):
    """Whether registered memory is safe from fork."""

    IBV_FORK_DISABLED = 0
    IBV_FORK_ENABLED = 1
    IBV_FORK_UNNEEDED = 2


IBV_FORK_DISABLED = ibv_fork_status.IBV_FORK_DISABLED
IBV_FORK_ENABLED = ibv_fork_status.IBV_FORK_ENABLED
IBV_FORK_UNNEEDED = ibv_fork_status.IBV_FORK_UNNEEDED


class ibv_placement_type(_VerbsEnum):
    """Placement type of FLUSH."""

    IBV_FLUSH_GLOBAL = 1 << 0
    IBV_FLUSH_PERSISTENT = 1 << 1


IBV_FLUSH_GLOBAL = ibv_placement_type.IBV_FLUSH_GLOBAL
IBV_FLUSH_PERSISTENT = ibv_placement_type.IBV_FLUSH_PERSISTENT


class ibv_selectivity_level(_VerbsEnum):
    """Selectivity level of FLUSH."""

    IBV_FLUSH_MR = 1 << 0
    IBV_FLUSH_RANGE = 0


IBV_FLUSH_MR = ibv_selectivity_level.IBV_FLUSH_MR
IBV_FLUSH_RANGE = ibv_selectivity_level.IBV_FLUSH_RANGE


class ibv_tph_mem_type(_VerbsEnum):
    """Memory type of TLP processing hints."""

    IBV_TPH_MEM_TYPE_VM = 0
    IBV_TPH_MEM_TYPE_PM = 1


IBV_TPH_MEM_TYPE_VM = ibv_tph_mem_type.IBV_TPH_MEM_TYPE_VM
IBV_TPH_MEM_TYPE_PM = ibv_tph_mem_type.IBV_TPH_MEM_TYPE_PM


class ibv_dmah_init_attr_mask(_VerbsEnum):
    """Valid attributes at the creation of a DMA handle."""

    IBV_DMAH_INIT_ATTR_MASK_CPU_ID = 1 << 0
    IBV_DMAH_INIT_ATTR_MASK_PH = 1 << 1
    IBV_DMAH_INIT_ATTR_MASK_TPH_MEM_TYPE = 1 << 2


IBV_DMAH_INIT_ATTR_MASK_CPU_ID = ibv_dmah_init_attr_mask.IBV_DMAH_INIT_ATTR_MASK_CPU_ID
IBV_DMAH_INIT_ATTR_MASK_PH = ibv_dmah_init_attr_mask.IBV_DMAH_INIT_ATTR_MASK_PH
IBV_DMAH_INIT_ATTR_MASK_TPH_MEM_TYPE = ibv_dmah_init_attr_mask.IBV_DMAH_INIT_ATTR_MASK_TPH_MEM_TYPE


class ibv_mr_init_attr_mask(_VerbsEnum):
    """Valid attributes of an extended registration."""

    IBV_REG_MR_MASK_IOVA = 1 << 0
    IBV_REG_MR_MASK_ADDR = 1 << 1
    IBV_REG_MR_MASK_FD = 1 << 2
    IBV_REG_MR_MASK_FD_OFFSET = 1 << 3
    IBV_REG_MR_MASK_DMAH = 1 << 4
    IBV_REG_MR_MASK_BUF = 1 << 5


IBV_REG_MR_MASK_IOVA = ibv_mr_init_attr_mask.IBV_REG_MR_MASK_IOVA
IBV_REG_MR_MASK_ADDR = ibv_mr_init_attr_mask.IBV_REG_MR_MASK_ADDR
IBV_REG_MR_MASK_FD = ibv_mr_init_attr_mask.IBV_REG_MR_MASK_FD
IBV_REG_MR_MASK_FD_OFFSET = ibv_mr_init_attr_mask.IBV_REG_MR_MASK_FD_OFFSET
IBV_REG_MR_MASK_DMAH = ibv_mr_init_attr_mask.IBV_REG_MR_MASK_DMAH
IBV_REG_MR_MASK_BUF = ibv_mr_init_attr_mask.IBV_REG_MR_MASK_BUF


class ibv_qp_attach_comp_cntr_op(_VerbsEnum):
    """Operations that a completion counter counts."""

    IBV_QP_ATTACH_COMP_CNTR_OP_SEND = 1 << 0
    IBV_QP_ATTACH_COMP_CNTR_OP_RECV = 1 << 1
    IBV_QP_ATTACH_COMP_CNTR_OP_RDMA_READ = 1 << 2
    IBV_QP_ATTACH_COMP_CNTR_OP_REMOTE_RDMA_READ = 1 << 3
    IBV_QP_ATTACH_COMP_CNTR_OP_RDMA_WRITE = 1 << 4
    IBV_QP_ATTACH_COMP_CNTR_OP_REMOTE_RDMA_WRITE = 1 << 5


IBV_QP_ATTACH_COMP_CNTR_OP_SEND = ibv_qp_attach_comp_cntr_op.IBV_QP_ATTACH_COMP_CNTR_OP_SEND
IBV_QP_ATTACH_COMP_CNTR_OP_RECV = ibv_qp_attach_comp_cntr_op.IBV_QP_ATTACH_COMP_CNTR_OP_RECV
IBV_QP_ATTACH_COMP_CNTR_OP_RDMA_READ = ibv_qp_attach_comp_cntr_op.IBV_QP_ATTACH_COMP_CNTR_OP_RDMA_READ
IBV_QP_ATTACH_COMP_CNTR_OP_REMOTE_RDMA_READ = ibv_qp_attach_comp_cntr_op.IBV_QP_ATTACH_COMP_CNTR_OP_REMOTE_RDMA_READ
IBV_QP_ATTACH_COMP_CNTR_OP_RDMA_WRITE = ibv_qp_attach_comp_cntr_op.IBV_QP_ATTACH_COMP_CNTR_OP_RDMA_WRITE
IBV_QP_ATTACH_COMP_CNTR_OP_REMOTE_RDMA_WRITE = ibv_qp_attach_comp_cntr_op.IBV_QP_ATTACH_COMP_CNTR_OP_REMOTE_RDMA_WRITE


class ibv_gid_type_sysfs(_VerbsEnum):
    """Type of a GID as sysfs tells it (query_gid_type)."""

    IBV_GID_TYPE_SYSFS_IB_ROCE_V1 = 0
    IBV_GID_TYPE_SYSFS_ROCE_V2 = 1


IBV_GID_TYPE_SYSFS_IB_ROCE_V1 = ibv_gid_type_sysfs.IBV_GID_TYPE_SYSFS_IB_ROCE_V1
IBV_GID_TYPE_SYSFS_ROCE_V2 = ibv_gid_type_sysfs.IBV_GID_TYPE_SYSFS_ROCE_V2


class ibv_tmh_op(_VerbsEnum):
    """Operation in a tag-matching header."""

    IBV_TMH_NO_TAG = 0
    IBV_TMH_RNDV = 1
    IBV_TMH_FIN = 2
    IBV_TMH_EAGER = 3


IBV_TMH_NO_TAG = ibv_tmh_op.IBV_TMH_NO_TAG
IBV_TMH_RNDV = ibv_tmh_op.IBV_TMH_RNDV
IBV_TMH_FIN = ibv_tmh_op.IBV_TMH_FIN
IBV_TMH_EAGER = ibv_tmh_op.IBV_TMH_EAGER

# Constants of 64 bits, and others whose enumeration pyverbs does not have.
_IBV_DEVICE_RAW_SCATTER_FCS: _Final = 1 << 34
_IBV_DEVICE_PCI_WRITE_END_PADDING: _Final = 1 << 36
_IBV_DEVICE_CC_DMA_BOUNCE: _Final = 1 << 41
_IBV_ALLOCATOR_USE_DEFAULT: _Final = (1 << 64) - 1
_IBV_ADVISE_MR_ADVICE_PREFETCH: _Final = 0
_IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE: _Final = 1
_IBV_ADVISE_MR_FLAG_FLUSH: _Final = 1
_IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT: _Final = 2

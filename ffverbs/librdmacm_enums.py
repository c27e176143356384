"""Enumerations of librdmacm under the names of `pyverbs.librdmacm_enums`, as classes and as module globals.

A table of facts: names and values are part of librdmacm's ABI (`rdma/rdma_cma.h`), and the set of names is that of
pyverbs, from version 44 (where the module is called `cm_enums`) to 65.
"""

from typing import Final as _Final

from ffverbs._enum import VerbsEnum as _VerbsEnum


class rdma_cm_event_type(_VerbsEnum):
    """Events of the connection manager."""

    RDMA_CM_EVENT_ADDR_RESOLVED = 0
    RDMA_CM_EVENT_ADDR_ERROR = 1
    RDMA_CM_EVENT_ROUTE_RESOLVED = 2
    RDMA_CM_EVENT_ROUTE_ERROR = 3
    RDMA_CM_EVENT_CONNECT_REQUEST = 4
    RDMA_CM_EVENT_CONNECT_RESPONSE = 5
    RDMA_CM_EVENT_CONNECT_ERROR = 6
    RDMA_CM_EVENT_UNREACHABLE = 7
    RDMA_CM_EVENT_REJECTED = 8
    RDMA_CM_EVENT_ESTABLISHED = 9
    RDMA_CM_EVENT_DISCONNECTED = 10
    RDMA_CM_EVENT_DEVICE_REMOVAL = 11
    RDMA_CM_EVENT_MULTICAST_JOIN = 12
    RDMA_CM_EVENT_MULTICAST_ERROR = 13
    RDMA_CM_EVENT_ADDR_CHANGE = 14
    RDMA_CM_EVENT_TIMEWAIT_EXIT = 15
    RDMA_CM_EVENT_ADDRINFO_RESOLVED = 16
    RDMA_CM_EVENT_ADDRINFO_ERROR = 17


RDMA_CM_EVENT_ADDR_RESOLVED = rdma_cm_event_type.RDMA_CM_EVENT_ADDR_RESOLVED
RDMA_CM_EVENT_ADDR_ERROR = rdma_cm_event_type.RDMA_CM_EVENT_ADDR_ERROR
RDMA_CM_EVENT_ROUTE_RESOLVED = rdma_cm_event_type.RDMA_CM_EVENT_ROUTE_RESOLVED
RDMA_CM_EVENT_ROUTE_ERROR = rdma_cm_event_type.RDMA_CM_EVENT_ROUTE_ERROR
RDMA_CM_EVENT_CONNECT_REQUEST = rdma_cm_event_type.RDMA_CM_EVENT_CONNECT_REQUEST
RDMA_CM_EVENT_CONNECT_RESPONSE = rdma_cm_event_type.RDMA_CM_EVENT_CONNECT_RESPONSE
RDMA_CM_EVENT_CONNECT_ERROR = rdma_cm_event_type.RDMA_CM_EVENT_CONNECT_ERROR
RDMA_CM_EVENT_UNREACHABLE = rdma_cm_event_type.RDMA_CM_EVENT_UNREACHABLE
RDMA_CM_EVENT_REJECTED = rdma_cm_event_type.RDMA_CM_EVENT_REJECTED
RDMA_CM_EVENT_ESTABLISHED = rdma_cm_event_type.RDMA_CM_EVENT_ESTABLISHED
RDMA_CM_EVENT_DISCONNECTED = rdma_cm_event_type.RDMA_CM_EVENT_DISCONNECTED
RDMA_CM_EVENT_DEVICE_REMOVAL = rdma_cm_event_type.RDMA_CM_EVENT_DEVICE_REMOVAL
RDMA_CM_EVENT_MULTICAST_JOIN = rdma_cm_event_type.RDMA_CM_EVENT_MULTICAST_JOIN
RDMA_CM_EVENT_MULTICAST_ERROR = rdma_cm_event_type.RDMA_CM_EVENT_MULTICAST_ERROR
RDMA_CM_EVENT_ADDR_CHANGE = rdma_cm_event_type.RDMA_CM_EVENT_ADDR_CHANGE
RDMA_CM_EVENT_TIMEWAIT_EXIT = rdma_cm_event_type.RDMA_CM_EVENT_TIMEWAIT_EXIT
RDMA_CM_EVENT_ADDRINFO_RESOLVED = rdma_cm_event_type.RDMA_CM_EVENT_ADDRINFO_RESOLVED
RDMA_CM_EVENT_ADDRINFO_ERROR = rdma_cm_event_type.RDMA_CM_EVENT_ADDRINFO_ERROR


class rdma_port_space(_VerbsEnum):
    """Port spaces of the connection manager."""

    RDMA_PS_IPOIB = 2
    RDMA_PS_TCP = 262
    RDMA_PS_UDP = 273
    RDMA_PS_IB = 319


RDMA_PS_IPOIB = rdma_port_space.RDMA_PS_IPOIB
RDMA_PS_TCP = rdma_port_space.RDMA_PS_TCP
RDMA_PS_UDP = rdma_port_space.RDMA_PS_UDP
RDMA_PS_IB = rdma_port_space.RDMA_PS_IB

# Flags of AddrInfo.
RAI_PASSIVE: _Final = 1
RAI_NUMERICHOST: _Final = 2
RAI_NOROUTE: _Final = 4
RAI_FAMILY: _Final = 8
RAI_SA: _Final = 16
RAI_DNS: _Final = 32


class rdma_cm_join_mc_attr_mask(_VerbsEnum):
    """Valid attributes of a multicast join."""

    RDMA_CM_JOIN_MC_ATTR_ADDRESS = 1 << 0
    RDMA_CM_JOIN_MC_ATTR_JOIN_FLAGS = 1 << 1


RDMA_CM_JOIN_MC_ATTR_ADDRESS = rdma_cm_join_mc_attr_mask.RDMA_CM_JOIN_MC_ATTR_ADDRESS
RDMA_CM_JOIN_MC_ATTR_JOIN_FLAGS = rdma_cm_join_mc_attr_mask.RDMA_CM_JOIN_MC_ATTR_JOIN_FLAGS


class rdma_cm_mc_join_flags(_VerbsEnum):
    """How a multicast group is joined."""

    RDMA_MC_JOIN_FLAG_FULLMEMBER = 0
    RDMA_MC_JOIN_FLAG_SENDONLY_FULLMEMBER = 1


RDMA_MC_JOIN_FLAG_FULLMEMBER = rdma_cm_mc_join_flags.RDMA_MC_JOIN_FLAG_FULLMEMBER
RDMA_MC_JOIN_FLAG_SENDONLY_FULLMEMBER = rdma_cm_mc_join_flags.RDMA_MC_JOIN_FLAG_SENDONLY_FULLMEMBER

# Level of set_option.
RDMA_OPTION_ID: _Final = 0

# Option of set_option: ack timeout as 4.096 us * 2^value.
RDMA_OPTION_ID_ACK_TIMEOUT: _Final = 3

"""Objects of the mlx5 driver: importable, but of no use on this package's devices."""

from ffverbs.providers._vendor import VendorObject, refuse


class Mlx5DVContextAttr(VendorObject):
    """How an mlx5 context is opened."""

    __slots__ = ()


class Mlx5DVContext(VendorObject):
    """Capabilities of an mlx5 context."""

    __slots__ = ()


class Mlx5Context(VendorObject):
    """An mlx5 context."""

    __slots__ = ()

    query_mlx5_device = refuse
    query_mlx5_port = refuse
    reserved_qpn_alloc = refuse
    reserved_qpn_dealloc = refuse
    crypto_login = refuse
    query_login_state = refuse
    crypto_logout = refuse
    devx_general_cmd = refuse
    device_timestamp_to_ns = refuse
    devx_query_eqn = refuse


class Mlx5DVPortAttr(VendorObject):
    """Attributes of an mlx5 port."""

    __slots__ = ()


class Mlx5DCIStreamInitAttr(VendorObject):
    """Streams of a DC initiator."""

    __slots__ = ()


class Mlx5DVDCInitAttr(VendorObject):
    """Attributes of a dynamically connected QP."""

    __slots__ = ()


class Mlx5DVQPInitAttr(VendorObject):
    """mlx5 attributes at the creation of a QP."""

    __slots__ = ()


class Mlx5QP(VendorObject):
    """A QP with the operations of mlx5."""

    __slots__ = ()

    map_ah_to_qp = refuse
    query_lag_port = refuse
    modify_lag_port = refuse
    modify_qp_sched_elem = refuse
    modify_udp_sport = refuse
    modify_dci_stream_channel_id = refuse


class Mlx5DVCQInitAttr(VendorObject):
    """mlx5 attributes at the creation of a CQ."""

    __slots__ = ()


class Mlx5CQ(VendorObject):
    """A CQ with the attributes of mlx5."""

    __slots__ = ()


class Mlx5VAR(VendorObject):
    """A doorbell record for virtio."""

    __slots__ = ()


class Mlx5PP(VendorObject):
    """A packet pacing entry."""

    __slots__ = ()


class Mlx5UAR(VendorObject):
    """A doorbell page."""

    __slots__ = ()


class Mlx5DmOpAddr(VendorObject):
    """A mapping of device memory for atomics."""

    __slots__ = ()


class WqeSeg(VendorObject):
    """A segment of a work queue entry."""

    __slots__ = ()


class WqeCtrlSeg(WqeSeg):
    """The control segment of a work queue entry."""

    __slots__ = ()


class WqeDataSeg(WqeSeg):
    """A data segment of a work queue entry."""

    __slots__ = ()


class Wqe(VendorObject):
    """A work queue entry."""

    __slots__ = ()


class Mlx5UMEM(VendorObject):
    """User memory known to the firmware."""

    __slots__ = ()


class Mlx5DevxObj(VendorObject):
    """An object created by a firmware command."""

    __slots__ = ()


class Mlx5Cqe64(VendorObject):
    """A completion queue entry."""

    __slots__ = ()


class Mlx5VfioAttr(VendorObject):
    """How a device is opened through VFIO."""

    __slots__ = ()


class Mlx5DevxMsiVector(VendorObject):
    """An interrupt vector."""

    __slots__ = ()


class Mlx5DevxEq(VendorObject):
    """An event queue."""

    __slots__ = ()


bitmask_to_str = refuse
context_comp_mask_to_str = refuse
context_flags_to_str = refuse
cqe_comp_to_str = refuse
dc_type_to_str = refuse
qp_comp_mask_to_str = refuse
qp_create_flags_to_str = refuse
qpts_to_str = refuse
send_ops_flags_to_str = refuse
swp_to_str = refuse
tunnel_offloads_to_str = refuse

"""Attributes of a device, its ports and its GIDs (the data classes of pyverbs.device)."""

from collections.abc import Callable
from typing import Any, ClassVar, Final, Self

from ffverbs import _device_text as text
from ffverbs._cint import check_u32, check_u64
from ffverbs._native import ffi
from ffverbs._struct import EnumField, IntField, NumberField, new, row
from ffverbs._text import names_of, str_from_flags
from ffverbs.base import PyverbsObject
from ffverbs.libibverbs_enums import (
    ibv_atomic_cap,
    ibv_mtu,
    ibv_odp_general_caps,
    ibv_odp_transport_cap_bits,
    ibv_port_state,
)
from ffverbs.utils import gid_str

_ODP_GENERAL: Final = names_of(ibv_odp_general_caps)
_ODP_TRANSPORT: Final = names_of(ibv_odp_transport_cap_bits)


def _read(field: str, doc: str) -> IntField:
    return IntField(field, doc, readonly=True)


class DeviceAttr(PyverbsObject):
    """What a device can do: limits are numbers of objects, or entries, unless said otherwise."""

    __slots__ = ("_c",)

    def __init__(self) -> None:
        self._c = new("device_attr")

    @property
    def fw_version(self) -> str:
        """Version of the device's firmware: here, of the engine."""
        raw: bytes = ffi.string(self._c.fw_ver)
        return raw.decode("utf-8", "replace")

    node_guid = _read("node_guid_be", "GUID of the node: a raw network-order word.")
    sys_image_guid = _read("sys_image_guid_be", "GUID of the system: a raw network-order word.")
    max_mr_size = _read("max_mr_size", "Largest MR in bytes.")
    page_size_cap = _read("page_size_cap", "Mask of page sizes.")
    vendor_id = _read("vendor_id", "Who made the device.")
    vendor_part_id = _read("vendor_part_id", "What the maker calls it.")
    hw_ver = _read("hw_ver", "Its revision.")
    max_qp = _read("max_qp", "Queue pairs.")
    max_qp_wr = _read("max_qp_wr", "Work requests of a queue.")
    device_cap_flags = _read("device_cap_flags", "Mask of ibv_device_cap_flags.")
    max_sge = _read("max_sge", "Scatter/gather elements of a work request.")
    max_sge_rd = _read("max_sge_rd", "Scatter/gather elements of an RDMA read.")
    max_cq = _read("max_cq", "Completion queues.")
    max_cqe = _read("max_cqe", "Entries of a CQ.")
    max_mr = _read("max_mr", "Memory regions.")
    max_pd = _read("max_pd", "Protection domains.")
    max_qp_rd_atom = _read("max_qp_rd_atom", "RDMA reads and atomics under way at a QP as responder.")
    max_ee_rd_atom = _read("max_ee_rd_atom", "The same for end-to-end contexts.")
    max_res_rd_atom = _read("max_res_rd_atom", "The same for the whole device.")
    max_qp_init_rd_atom = _read("max_qp_init_rd_atom", "RDMA reads and atomics under way at a QP as requester.")
    max_ee_init_rd_atom = _read("max_ee_init_rd_atom", "The same for end-to-end contexts.")
    atomic_caps = EnumField("atomic_cap", ibv_atomic_cap, "How far atomics are atomic.", readonly=True)
    max_ee = _read("max_ee", "End-to-end contexts.")
    max_rdd = _read("max_rdd", "Reliable datagram domains.")
    max_mw = _read("max_mw", "Memory windows.")
    max_raw_ipv6_qps = _read("max_raw_ipv6_qp", "Raw IPv6 QPs.")
    max_raw_ethy_qp = _read("max_raw_ethy_qp", "Raw Ethertype QPs.")
    max_mcast_grp = _read("max_mcast_grp", "Multicast groups.")
    max_mcast_qp_attach = _read("max_mcast_qp_attach", "QPs of a multicast group.")
    max_ah = _read("max_ah", "Address handles.")
    max_fmr = _read("max_fmr", "Fast memory regions.")
    max_map_per_fmr = _read("max_map_per_fmr", "Remaps of a fast memory region.")
    max_srq = _read("max_srq", "Shared receive queues.")
    max_srq_wr = _read("max_srq_wr", "Work requests of an SRQ.")
    max_srq_sge = _read("max_srq_sge", "Scatter/gather elements of an SRQ's work request.")
    max_pkeys = _read("max_pkeys", "Partition keys.")
    local_ca_ack_delay = _read("local_ca_ack_delay", "Delay of acknowledgements, as an exponent.")
    phys_port_cnt = _read("phys_port_cnt", "Ports.")

    def __str__(self) -> str:
        return "".join(row(label, show(getattr(self, name))) for label, name, show in _DEVICE_ROWS)


def _hex(value: int) -> str:
    return f"{value:#x}"


_DEVICE_ROWS: Final[tuple[tuple[str, str, Callable[[Any], object]], ...]] = (
    ("FW version", "fw_version", str),
    ("Node guid", "node_guid", text.guid_format),
    ("Sys image GUID", "sys_image_guid", text.guid_format),
    ("Max MR size", "max_mr_size", _hex),
    ("Page size cap", "page_size_cap", _hex),
    ("Vendor ID", "vendor_id", _hex),
    ("Vendor part ID", "vendor_part_id", str),
    ("HW version", "hw_ver", str),
    ("Max QP", "max_qp", str),
    ("Max QP WR", "max_qp_wr", str),
    ("Device cap flags", "device_cap_flags", text.translate_device_caps),
    ("Max SGE", "max_sge", str),
    ("Max SGE RD", "max_sge_rd", str),
    ("MAX CQ", "max_cq", str),
    ("Max CQE", "max_cqe", str),
    ("Max MR", "max_mr", str),
    ("Max PD", "max_pd", str),
    ("Max QP RD atom", "max_qp_rd_atom", str),
    ("Max EE RD atom", "max_ee_rd_atom", str),
    ("Max res RD atom", "max_res_rd_atom", str),
    ("Max QP init RD atom", "max_qp_init_rd_atom", str),
    ("Max EE init RD atom", "max_ee_init_rd_atom", str),
    ("Atomic caps", "atomic_caps", str),
    ("Max EE", "max_ee", str),
    ("Max RDD", "max_rdd", str),
    ("Max MW", "max_mw", str),
    ("Max raw IPv6 QPs", "max_raw_ipv6_qps", str),
    ("Max raw ethy QP", "max_raw_ethy_qp", str),
    ("Max mcast group", "max_mcast_grp", str),
    ("Max mcast QP attach", "max_mcast_qp_attach", str),
    ("Max AH", "max_ah", str),
    ("Max FMR", "max_fmr", str),
    ("Max map per FMR", "max_map_per_fmr", str),
    ("Max SRQ", "max_srq", str),
    ("Max SRQ WR", "max_srq_wr", str),
    ("Max SRQ SGE", "max_srq_sge", str),
    ("Max PKeys", "max_pkeys", str),
    ("local CA ack delay", "local_ca_ack_delay", str),
    ("Phys port count", "phys_port_cnt", str),
)


class _Caps(PyverbsObject):
    """A struct of capabilities, all zero until a device fills it."""

    __slots__ = ("_c",)
    _STRUCT: ClassVar[str]

    def __init__(self) -> None:
        self._c = new(self._STRUCT)

    @classmethod
    def _of(cls, struct: Any) -> Self:
        """Return a copy of the engine's struct."""
        self = cls()
        self._c[0] = struct
        return self


class ODPCaps(_Caps):
    """What on-demand paging offers, as masks of ibv_odp_general_caps and ibv_odp_transport_cap_bits."""

    __slots__ = ("_xrc_odp_caps",)
    _STRUCT = "odp_caps"

    def __init__(self) -> None:
        super().__init__()
        self.xrc_odp_caps = 0

    general_caps = _read("general_caps", "What the device offers at all.")
    rc_odp_caps = _read("per_transport_caps.rc_odp_caps", "What RC QPs offer.")
    uc_odp_caps = _read("per_transport_caps.uc_odp_caps", "What UC QPs offer.")
    ud_odp_caps = _read("per_transport_caps.ud_odp_caps", "What UD QPs offer.")
    xrc_odp_caps = NumberField("xrc_odp_caps", check_u32, "What XRC QPs offer.")

    def __str__(self) -> str:
        return "".join(
            (
                row("ODP General caps", str_from_flags(self.general_caps, _ODP_GENERAL)),
                row("RC ODP caps", str_from_flags(self.rc_odp_caps, _ODP_TRANSPORT)),
                row("UD ODP caps", str_from_flags(self.ud_odp_caps, _ODP_TRANSPORT)),
                row("UC ODP caps", str_from_flags(self.uc_odp_caps, _ODP_TRANSPORT)),
                row("XRC ODP caps", str_from_flags(self.xrc_odp_caps, _ODP_TRANSPORT)),
            )
        )


class PCIAtomicCaps(_Caps):
    """Sizes of PCI atomics, as masks."""

    __slots__ = ()
    _STRUCT = "pci_atomic_caps"

    fetch_add = _read("fetch_add", "Sizes of fetch-and-add.")
    swap = _read("swap", "Sizes of swap.")
    compare_swap = _read("compare_swap", "Sizes of compare-and-swap.")


class TSOCaps(_Caps):
    """What TCP segmentation offers."""

    __slots__ = ()
    _STRUCT = "tso_caps"

    max_tso = _read("max_tso", "Largest message in bytes that is cut; 0 for none.")
    supported_qpts = _read("supported_qpts", "Mask of QP types.")


class RSSCaps(_Caps):
    """What receive-side scaling offers."""

    __slots__ = ()
    _STRUCT = "rss_caps"

    supported_qpts = _read("supported_qpts", "Mask of QP types.")
    max_rwq_indirection_tables = _read("max_rwq_indirection_tables", "Tables.")
    rx_hash_fields_mask = _read("rx_hash_fields_mask", "Mask of ibv_rx_hash_fields.")
    rx_hash_function = _read("rx_hash_function", "Mask of ibv_rx_hash_function_flags.")
    max_rwq_indirection_table_size = _read("max_rwq_indirection_table_size", "Entries of a table.")


class PacketPacingCaps(_Caps):
    """What packet pacing offers."""

    __slots__ = ()
    _STRUCT = "packet_pacing_caps"

    qp_rate_limit_min = _read("qp_rate_limit_min", "Lowest rate in kbit/s.")
    qp_rate_limit_max = _read("qp_rate_limit_max", "Highest rate in kbit/s.")
    supported_qpts = _read("supported_qpts", "Mask of QP types.")


class TMCaps(_Caps):
    """What tag matching offers."""

    __slots__ = ()
    _STRUCT = "tm_caps"

    max_rndv_hdr_size = _read("max_rndv_hdr_size", "Bytes of a rendezvous header.")
    max_num_tags = _read("max_num_tags", "Tags of a list.")
    flags = _read("flags", "Mask of ibv_tm_cap_flags.")
    max_ops = _read("max_ops", "List operations under way.")
    max_sge = _read("max_sge", "Scatter/gather elements of a tagged buffer.")


class CQModerationCaps(_Caps):
    """What moderation of completion events offers."""

    __slots__ = ()
    _STRUCT = "cq_moderation_caps"

    max_cq_count = _read("max_cq_count", "Completions of one event.")
    max_cq_period = _read("max_cq_period", "Microseconds between events.")


class CompCntrCaps(_Caps):
    """What completion counters offer."""

    __slots__ = ()
    _STRUCT = "comp_cntr_caps"

    max_counters = _read("max_counters", "Counters.")
    max_value = _read("max_value", "Highest value of a counter.")
    supported_qp_attach_ops = _read("supported_qp_attach_ops", "Mask of ibv_qp_attach_comp_cntr_op.")


class DeviceAttrEx(_Caps):
    """Extended attributes. What a device does not have is zero."""

    __slots__ = ()
    _STRUCT = "device_attr_ex"

    comp_mask = IntField("comp_mask", "Attributes that are set.")
    completion_timestamp_mask = _read("completion_timestamp_mask", "Bits of a completion's timestamp.")
    hca_core_clock = _read("hca_core_clock", "Frequency of the device's clock in kHz.")
    device_cap_flags_ex = _read("device_cap_flags_ex", "Mask of ibv_device_cap_flags, 64 bits.")
    max_wq_type_rq = _read("max_wq_type_rq", "Receive work queues.")
    raw_packet_caps = _read("raw_packet_caps", "Mask of ibv_raw_packet_caps.")
    max_dm_size = _read("max_dm_size", "Bytes of device memory.")
    phys_port_cnt_ex = _read("phys_port_cnt_ex", "Ports, without the limit of 255.")

    @property
    def orig_attr(self) -> DeviceAttr:
        """The attributes that are not extended."""
        attr = DeviceAttr()
        attr._c[0] = self._c.orig_attr
        return attr

    @property
    def odp_caps(self) -> ODPCaps:
        """On-demand paging."""
        caps = ODPCaps._of(self._c.odp_caps)
        caps.xrc_odp_caps = self._c.xrc_odp_caps
        return caps

    @property
    def tso_caps(self) -> TSOCaps:
        """TCP segmentation."""
        return TSOCaps._of(self._c.tso_caps)

    @property
    def pci_atomic_caps(self) -> PCIAtomicCaps:
        """PCI atomics."""
        return PCIAtomicCaps._of(self._c.pci_atomic_caps)

    @property
    def rss_caps(self) -> RSSCaps:
        """Receive-side scaling."""
        return RSSCaps._of(self._c.rss_caps)

    @property
    def packet_pacing_caps(self) -> PacketPacingCaps:
        """Packet pacing."""
        return PacketPacingCaps._of(self._c.packet_pacing_caps)

    @property
    def tm_caps(self) -> TMCaps:
        """Tag matching."""
        return TMCaps._of(self._c.tm_caps)

    @property
    def cq_mod_caps(self) -> CQModerationCaps:
        """Moderation of completion events."""
        return CQModerationCaps._of(self._c.cq_mod_caps)


class PortAttr(PyverbsObject):
    """State and limits of a port."""

    __slots__ = ("_c",)

    def __init__(self) -> None:
        self._c = new("port_attr")

    state = EnumField("state", ibv_port_state, "Logical state.", readonly=True)
    max_mtu = EnumField("max_mtu", ibv_mtu, "Largest MTU.", readonly=True)
    active_mtu = EnumField("active_mtu", ibv_mtu, "MTU in use.", readonly=True)
    gid_tbl_len = _read("gid_tbl_len", "Entries of the GID table.")
    port_cap_flags = _read("port_cap_flags", "Mask of ibv_port_cap_flags.")
    max_msg_sz = _read("max_msg_sz", "Largest message in bytes.")
    bad_pkey_cntr = _read("bad_pkey_cntr", "Packets with a wrong partition key.")
    qkey_viol_cntr = _read("qkey_viol_cntr", "Packets with a wrong Q_Key.")
    pkey_tbl_len = _read("pkey_tbl_len", "Entries of the partition key table.")
    lid = _read("lid", "Local identifier; 0 on Ethernet.")
    sm_lid = _read("sm_lid", "The subnet manager's LID.")
    lmc = _read("lmc", "Low bits of the LID that are path bits.")
    max_vl_num = _read("max_vl_num", "Virtual lanes, as a code.")
    sm_sl = _read("sm_sl", "Service level of the subnet manager.")
    subnet_timeout = _read("subnet_timeout", "Longest delay in the subnet, as an exponent.")
    init_type_reply = _read("init_type_reply", "How the subnet manager initialised the port.")
    active_width = _read("active_width", "Lanes in use, as a code; see width_to_str().")
    active_speed = _read("active_speed", "Speed of a lane, as a code; see speed_to_str().")
    phys_state = _read("phys_state", "Physical state; see phys_state_to_str().")
    link_layer = _read("link_layer", "1 InfiniBand, 2 Ethernet.")
    flags = _read("flags", "Mask of port flags.")
    port_cap_flags2 = _read("port_cap_flags2", "Mask of ibv_port_cap_flags2.")
    active_speed_ex = _read("active_speed", "Speed of a lane, as a code without the limit of 8 bits.")

    def __str__(self) -> str:
        return "".join(row(label, show(getattr(self, name)), 24) for label, name, show in _PORT_ROWS)


_PORT_ROWS: Final[tuple[tuple[str, str, Callable[[Any], object]], ...]] = (
    ("Port state", "state", text.port_state_to_str),
    ("Max MTU", "max_mtu", text.translate_mtu),
    ("Active MTU", "active_mtu", text.translate_mtu),
    ("SM lid", "sm_lid", str),
    ("Port lid", "lid", str),
    ("lmc", "lmc", _hex),
    ("Link layer", "link_layer", text.translate_link_layer),
    ("Max message size", "max_msg_sz", _hex),
    ("Port cap flags", "port_cap_flags", text.translate_port_cap_flags),
    ("Port cap flags 2", "port_cap_flags2", text.translate_port_cap_flags2),
    ("max VL num", "max_vl_num", str),
    ("Bad Pkey counter", "bad_pkey_cntr", str),
    ("Qkey violations counter", "qkey_viol_cntr", str),
    ("GID table len", "gid_tbl_len", str),
    ("Pkey table len", "pkey_tbl_len", str),
    ("SM sl", "sm_sl", str),
    ("Subnet timeout", "subnet_timeout", str),
    ("Init type reply", "init_type_reply", str),
    ("Active width", "active_width", text.width_to_str),
    ("Active speed", "active_speed", text.speed_to_str),
    ("Phys state", "phys_state", text.phys_state_to_str),
    ("Flags", "flags", str),
)


class GIDEntry(PyverbsObject):
    """An entry of a GID table. The two halves of the GID are raw network-order words."""

    __slots__ = ("_c",)

    def __init__(
        self,
        subnet_prefix: int = 0,
        interface_id: int = 0,
        gid_index: int = 0,
        port_num: int = 0,
        gid_type: int = 0,
        ndev_ifindex: int = 0,
    ) -> None:
        self._c = new("gid_entry", gid_index=gid_index, port_num=port_num, gid_type=gid_type, ndev_ifindex=ndev_ifindex)
        words = self._words()
        words[0], words[1] = check_u64(subnet_prefix), check_u64(interface_id)

    @classmethod
    def _of(cls, entry: Any) -> "GIDEntry":
        """Return a copy of the engine's struct."""
        self = cls()
        self._c[0] = entry
        return self

    def _words(self) -> Any:
        return ffi.cast("uint64_t *", ffi.addressof(self._c, "gid"))

    gid_index = _read("gid_index", "Place in the port's table.")
    port_num = _read("port_num", "The port.")
    gid_type = _read("gid_type", "0 InfiniBand, 1 RoCE v1, 2 RoCE v2.")
    ndev_ifindex = _read("ndev_ifindex", "Index of the network interface.")

    @property
    def gid_subnet_prefix(self) -> int:
        """The first half of the GID."""
        return int(self._words()[0])

    @property
    def gid_interface_id(self) -> int:
        """The second half of the GID."""
        return int(self._words()[1])

    def gid_str(self) -> str:
        """Return the GID's text."""
        return gid_str(self.gid_subnet_prefix, self.gid_interface_id)

    def __str__(self) -> str:
        return "".join(
            (
                row("GID", self.gid_str(), 24),
                row("GID Index", self.gid_index, 24),
                row("Port number", self.port_num, 24),
                row("GID type", text.translate_gid_type(self.gid_type), 24),
                row("Ndev ifindex", self.ndev_ifindex, 24),
            )
        )

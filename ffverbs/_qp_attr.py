"""Attributes of queue pairs (the data classes of pyverbs.qp)."""

from typing import TYPE_CHECKING, Any, Final

from ffverbs._cint import check_u16, check_u32, check_u64
from ffverbs._native import ffi
from ffverbs._struct import EnumField, IntField, NumberField, new, row, typed, typed_or_none
from ffverbs._text import flags_to_str
from ffverbs.addr import AHAttr
from ffverbs.base import PyverbsCM, PyverbsObject
from ffverbs.cq import CQ, CQEX
from ffverbs.libibverbs_enums import (
    IBV_MTU_1024,
    IBV_QPS_INIT,
    IBV_QPS_RESET,
    IBV_QPT_UD,
    ibv_mig_state,
    ibv_mtu,
    ibv_qp_create_flags,
    ibv_qp_init_attr_mask,
    ibv_qp_state,
    ibv_qp_type,
)
from ffverbs.pd import PD
from ffverbs.pyverbs_error import PyverbsUserError
from ffverbs.srq import SRQ
from ffverbs.utils import access_flags_to_str, mig_state_to_str, mtu_to_str, qp_state_to_str, qp_type_to_str

if TYPE_CHECKING:
    from ffverbs.wq import RwqIndTable, RxHashConf
    from ffverbs.xrcd import XRCD

_INIT_MASK_TEXT: Final[dict[int, str]] = {
    ibv_qp_init_attr_mask.IBV_QP_INIT_ATTR_PD: "PD",
    ibv_qp_init_attr_mask.IBV_QP_INIT_ATTR_XRCD: "XRCD",
    ibv_qp_init_attr_mask.IBV_QP_INIT_ATTR_CREATE_FLAGS: "Create Flags",
    ibv_qp_init_attr_mask.IBV_QP_INIT_ATTR_MAX_TSO_HEADER: "Max TSO header",
    ibv_qp_init_attr_mask.IBV_QP_INIT_ATTR_IND_TABLE: "Indirection Table",
    ibv_qp_init_attr_mask.IBV_QP_INIT_ATTR_RX_HASH: "RX hash",
}

_CREATE_FLAG_TEXT: Final[dict[int, str]] = {
    ibv_qp_create_flags.IBV_QP_CREATE_BLOCK_SELF_MCAST_LB: "Block self mcast loopback",
    ibv_qp_create_flags.IBV_QP_CREATE_SCATTER_FCS: "Scatter FCS",
    ibv_qp_create_flags.IBV_QP_CREATE_CVLAN_STRIPPING: "CVLAN stripping",
    ibv_qp_create_flags.IBV_QP_CREATE_SOURCE_QPN: "Source QPN",
    ibv_qp_create_flags.IBV_QP_CREATE_PCI_WRITE_END_PADDING: "PCI write end padding",
}


class QPCap(PyverbsObject):
    """Sizes of a QP."""

    __slots__ = ("_c",)

    def __init__(
        self,
        max_send_wr: int = 1,
        max_recv_wr: int = 10,
        max_send_sge: int = 1,
        max_recv_sge: int = 1,
        max_inline_data: int = 0,
    ) -> None:
        self._c = new(
            "qp_cap",
            max_send_wr=max_send_wr,
            max_recv_wr=max_recv_wr,
            max_send_sge=max_send_sge,
            max_recv_sge=max_recv_sge,
            max_inline_data=max_inline_data,
        )

    @classmethod
    def _of(cls, struct: Any) -> "QPCap":
        cap = cls()
        cap._c[0] = struct
        return cap

    max_send_wr = IntField("max_send_wr", "Send requests.")
    max_recv_wr = IntField("max_recv_wr", "Receive requests.")
    max_send_sge = IntField("max_send_sge", "Scatter/gather elements of a send request.")
    max_recv_sge = IntField("max_recv_sge", "Scatter/gather elements of a receive request.")
    max_inline_data = IntField("max_inline_data", "Bytes that a send request may take along inline.")

    def __str__(self) -> str:
        return "".join(
            (
                row("max send wrs", self.max_send_wr, 20),
                row("max recv wrs", self.max_recv_wr, 20),
                row("max send sges", self.max_send_sge, 20),
                row("max recv sges", self.max_recv_sge, 20),
                row("max inline data", self.max_inline_data, 20),
            )
        )


def _cap_rows(cap: Any, width: int, indent: int) -> str:
    return "".join(
        (
            row("max send WR", cap.max_send_wr, width, indent),
            row("max recv WR", cap.max_recv_wr, width, indent),
            row("max send SGE", cap.max_send_sge, width, indent),
            row("max recv SGE", cap.max_recv_sge, width, indent),
            row("max inline data", cap.max_inline_data, width, indent),
        )
    )


def _cq(name: str, value: object) -> CQ | CQEX | None:
    """Return `value` if a QP can complete to it; TypeError or PyverbsUserError if not."""
    if typed_or_none(name, value, PyverbsObject) is None or isinstance(value, CQ | CQEX):
        return value  # type: ignore[return-value]
    raise PyverbsUserError(f"Expected CQ/CQEX, got {type(value)}")


class _InitAttr(PyverbsObject):
    """What QPInitAttr and QPInitAttrEx share."""

    __slots__ = ("_c", "_context", "_recv_cq", "_send_cq", "_srq")

    _context: object
    _send_cq: CQ | CQEX | None
    _recv_cq: CQ | CQEX | None
    _srq: SRQ | None

    def _init(
        self,
        qp_type: int,
        qp_context: object,
        scq: object,
        rcq: object,
        srq: SRQ | None,
        cap: QPCap | None,
        sq_sig_all: int,
    ) -> None:
        self._send_cq = _cq("scq", scq)
        self._recv_cq = _cq("rcq", rcq)
        self._srq = typed_or_none("srq", srq, SRQ)
        self._context = qp_context
        given = typed_or_none("cap", cap, QPCap)
        self._c = new("qp_init_attr", qp_type=qp_type, sq_sig_all=sq_sig_all)
        if given is not None:
            self._c.cap = given._c[0]

    qp_type = EnumField("qp_type", ibv_qp_type, "RC, UC, UD, ...")
    sq_sig_all = IntField("sq_sig_all", "Whether every send request gives a completion.")
    max_send_wr = IntField("cap.max_send_wr", "Send requests.")
    max_recv_wr = IntField("cap.max_recv_wr", "Receive requests.")
    max_send_sge = IntField("cap.max_send_sge", "Scatter/gather elements of a send request.")
    max_recv_sge = IntField("cap.max_recv_sge", "Scatter/gather elements of a receive request.")
    max_inline_data = IntField("cap.max_inline_data", "Bytes that a send request may take along inline.")

    @property
    def send_cq(self) -> CQ | CQEX | None:
        """Where send requests complete."""
        return self._send_cq

    @send_cq.setter
    def send_cq(self, val: CQ | CQEX | None) -> None:
        self._send_cq = _cq("val", val)

    @property
    def recv_cq(self) -> CQ | CQEX | None:
        """Where receive requests complete."""
        return self._recv_cq

    @recv_cq.setter
    def recv_cq(self, val: CQ | CQEX | None) -> None:
        self._recv_cq = _cq("val", val)

    @property
    def srq(self) -> SRQ | None:
        """The shared queue that the QP receives from."""
        return self._srq

    @srq.setter
    def srq(self, val: SRQ | None) -> None:
        self._srq = typed_or_none("val", val, SRQ)

    @property
    def cap(self) -> QPCap:
        """The sizes: a copy, also when it is set."""
        return QPCap._of(self._c.cap)

    @cap.setter
    def cap(self, val: QPCap) -> None:
        self._c.cap = typed("val", val, QPCap)._c[0]

    def _linked(self) -> Any:
        """Return the struct with the addresses of the engine's queues filled in."""
        for field, queue in (("send_cq", self._send_cq), ("recv_cq", self._recv_cq), ("srq", self._srq)):
            setattr(self._c, field, ffi.NULL if queue is None else queue._live())
        return self._c

    def _head(self) -> str:
        return row("QP type", qp_type_to_str(self.qp_type), 20) + row("SQ sig. all", self.sq_sig_all, 20) + "QP caps:\n"


class QPInitAttr(_InitAttr):
    """Attributes of a QP that is to be made from a PD; making it writes the granted sizes back."""

    __slots__ = ()

    def __init__(
        self,
        qp_type: int = IBV_QPT_UD,
        qp_context: object = None,
        scq: CQ | CQEX | None = None,
        rcq: CQ | CQEX | None = None,
        srq: SRQ | None = None,
        cap: QPCap | None = None,
        sq_sig_all: int = 1,
    ) -> None:
        self._init(qp_type, qp_context, scq, rcq, srq, cap, sq_sig_all)

    def __str__(self) -> str:
        return self._head() + _cap_rows(self._c.cap, 20, 4)


class QPInitAttrEx(_InitAttr):
    """Attributes of a QP that is to be made from a Context; `comp_mask` names those that count."""

    __slots__ = (
        "_comp_mask",
        "_create_flags",
        "_hash_conf",
        "_ind_table",
        "_max_tso_header",
        "_pd",
        "_send_ops_flags",
        "_source_qpn",
        "_xrcd",
    )

    def __init__(
        self,
        qp_type: int = IBV_QPT_UD,
        qp_context: object = None,
        scq: CQ | CQEX | None = None,
        rcq: CQ | CQEX | None = None,
        srq: SRQ | None = None,
        cap: QPCap | None = None,
        sq_sig_all: int = 0,
        comp_mask: int = 0,
        pd: PD | None = None,
        xrcd: "XRCD | None" = None,
        create_flags: int = 0,
        max_tso_header: int = 0,
        source_qpn: int = 0,
        hash_conf: "RxHashConf | None" = None,
        ind_table: "RwqIndTable | None" = None,
        send_ops_flags: int = 0,
    ) -> None:
        from ffverbs.wq import RxHashConf  # noqa: PLC0415 - wq's imports lead here

        self._init(qp_type, qp_context, scq, rcq, srq, cap, sq_sig_all)
        self.comp_mask = comp_mask
        self.pd = pd
        self.xrcd = xrcd
        self.create_flags = create_flags
        self.max_tso_header = max_tso_header
        self.source_qpn = source_qpn
        self._hash_conf = typed_or_none("hash_conf", hash_conf, RxHashConf)
        self.ind_table = ind_table
        self._send_ops_flags = check_u64(send_ops_flags)

    comp_mask = NumberField("comp_mask", check_u32, "Mask of ibv_qp_init_attr_mask: attributes that are set.")
    create_flags = NumberField("create_flags", check_u32, "Mask of ibv_qp_create_flags.")
    max_tso_header = NumberField("max_tso_header", check_u16, "Bytes of a TSO header.")
    source_qpn = NumberField("source_qpn", check_u32, "Number that the QP sends under.")

    @property
    def pd(self) -> PD | None:
        """The protection domain."""
        return self._pd

    @pd.setter
    def pd(self, val: PD | None) -> None:
        self._pd = typed_or_none("val", val, PD)

    @property
    def xrcd(self) -> "XRCD | None":
        """The XRC domain."""
        return self._xrcd

    @xrcd.setter
    def xrcd(self, val: "XRCD | None") -> None:
        from ffverbs.xrcd import XRCD  # noqa: PLC0415 - only programs with XRC need it

        self._xrcd = typed_or_none("val", val, XRCD)

    @property
    def ind_table(self) -> "RwqIndTable | None":
        """The table of receive work queues."""
        return self._ind_table

    @ind_table.setter
    def ind_table(self, val: "RwqIndTable | None") -> None:
        from ffverbs.wq import RwqIndTable  # noqa: PLC0415 - wq's imports lead here

        self._ind_table = typed_or_none("val", val, RwqIndTable)

    def _linked_ex(self) -> Any:
        """Return the engine's struct of all attributes, with the addresses of the engine's objects filled in."""
        basic = self._linked()
        linked = new(
            "qp_init_attr_ex",
            send_cq=basic.send_cq,
            recv_cq=basic.recv_cq,
            srq=basic.srq,
            cap=basic.cap,
            qp_type=basic.qp_type,
            sq_sig_all=basic.sq_sig_all,
            comp_mask=self.comp_mask,
            pd=ffi.NULL if self._pd is None else self._pd._live(),
            xrcd=ffi.NULL if self._xrcd is None else self._xrcd._live(),
            create_flags=self.create_flags,
            max_tso_header=self.max_tso_header,
            source_qpn=self.source_qpn,
            send_ops_flags=self._send_ops_flags,
            rwq_ind_tbl=ffi.NULL if self._ind_table is None else self._ind_table._live(),
        )
        if self._hash_conf is not None:
            linked.rx_hash_conf = self._hash_conf._struct()[0]
        return linked

    def mask_to_str(self, mask: int) -> str:
        """Return the names of the attributes in a comp_mask, each followed by a space."""
        return flags_to_str(mask, _INIT_MASK_TEXT)

    def flags_to_str(self, flags: int) -> str:
        """Return the names of creation flags, each followed by a space."""
        return flags_to_str(flags, _CREATE_FLAG_TEXT)

    def __str__(self) -> str:
        return (
            self._head()
            + _cap_rows(self._c.cap, 18, 2)
            + row("comp mask", self.mask_to_str(self.comp_mask), 20)
            + row("create flags", self.flags_to_str(self.create_flags), 20)
            + row("max TSO header", self.max_tso_header, 20)
            + row("Source QPN", self.source_qpn, 20)
        )


class QPAttr(PyverbsObject):
    """State of a QP and everything that goes with it, to be modified or queried."""

    __slots__ = ("_c",)

    def __init__(
        self,
        qp_state: int = IBV_QPS_INIT,
        cur_qp_state: int = IBV_QPS_RESET,
        port_num: int = 1,
        path_mtu: int = IBV_MTU_1024,
    ) -> None:
        self._c = new("qp_attr", qp_state=qp_state, cur_qp_state=cur_qp_state, port_num=port_num, path_mtu=path_mtu)

    qp_state = EnumField("qp_state", ibv_qp_state, "The state to go to, or the state queried.")
    cur_qp_state = EnumField("cur_qp_state", ibv_qp_state, "The state that the caller believes the QP to be in.")
    path_mtu = EnumField("path_mtu", ibv_mtu, "MTU of the path.")
    path_mig_state = EnumField("path_mig_state", ibv_mig_state, "State of path migration.")
    qkey = IntField("qkey", "Q_Key (UD).")
    rq_psn = IntField("rq_psn", "First packet sequence number to receive.")
    sq_psn = IntField("sq_psn", "First packet sequence number to send.")
    dest_qp_num = IntField("dest_qp_num", "Number of the QP at the other side.")
    qp_access_flags = IntField("qp_access_flags", "Mask of ibv_access_flags: what the other side may do.")
    pkey_index = IntField("pkey_index", "Index of the partition key.")
    alt_pkey_index = IntField("alt_pkey_index", "The same for the alternative path.")
    en_sqd_async_notify = IntField("en_sqd_async_notify", "Whether the drained send queue gives an event.")
    sq_draining = IntField("sq_draining", "Whether the send queue is draining.")
    max_rd_atomic = IntField("max_rd_atomic", "RDMA reads and atomics under way as requester.")
    max_dest_rd_atomic = IntField("max_dest_rd_atomic", "RDMA reads and atomics under way as responder.")
    min_rnr_timer = IntField("min_rnr_timer", "How long a sender without a receive request is asked to wait: a code.")
    port_num = IntField("port_num", "The local port.")
    timeout = IntField("timeout", "Time for an acknowledgement: 4.096 us * 2^timeout, 0 is without end.")
    retry_cnt = IntField("retry_cnt", "Retries after such a time.")
    rnr_retry = IntField("rnr_retry", "Retries when the other side has no receive request; 7 is without end.")
    alt_port_num = IntField("alt_port_num", "The local port of the alternative path.")
    alt_timeout = IntField("alt_timeout", "Time for an acknowledgement on the alternative path.")
    rate_limit = IntField("rate_limit", "Limit of the rate in kbit/s.")

    @property
    def cap(self) -> QPCap:
        """The sizes: a copy, also when it is set."""
        return QPCap._of(self._c.cap)

    @cap.setter
    def cap(self, val: QPCap) -> None:
        self._c.cap = typed("val", val, QPCap)._c[0]

    @property
    def ah_attr(self) -> AHAttr:
        """The address of the other side: a copy, also when it is set."""
        return AHAttr._of(self._c.ah_attr)

    @ah_attr.setter
    def ah_attr(self, val: AHAttr) -> None:
        self._copy_ah(val)

    @property
    def alt_ah_attr(self) -> AHAttr:
        """The address on the alternative path: a copy, also when it is set."""
        return AHAttr._of(self._c.alt_ah_attr)

    @alt_ah_attr.setter
    def alt_ah_attr(self, val: AHAttr) -> None:
        self._copy_ah(val, True)

    def _copy_ah(self, ah_attr: AHAttr | None, is_alt: bool = False) -> None:
        given = typed_or_none("ah_attr", ah_attr, AHAttr)
        if given is not None:
            setattr(self._c, "alt_ah_attr" if is_alt else "ah_attr", given._c[0])

    def __str__(self) -> str:
        return "".join(
            (
                row("QP state", qp_state_to_str(self.qp_state)),
                row("QP current state", qp_state_to_str(self.cur_qp_state)),
                row("Path MTU", mtu_to_str(self.path_mtu)),
                row("Path mig. state", mig_state_to_str(self.path_mig_state)),
                row("QKey", self.qkey),
                row("RQ PSN", self.rq_psn),
                row("SQ PSN", self.sq_psn),
                row("Dest QP number", self.dest_qp_num),
                row("QP access flags", access_flags_to_str(self.qp_access_flags)),
                "QP caps:\n",
                _cap_rows(self._c.cap, 22, 2),
                "AH Attr:\n",
                self._path(self.ah_attr),
                "Alt. AH Attr:\n",
                self._path(self.alt_ah_attr),
                row("PKey index", self.pkey_index),
                row("Alt. PKey index", self.alt_pkey_index),
                row("En. SQD async notify", self.en_sqd_async_notify),
                row("SQ draining", self.sq_draining),
                row("Max RD atomic", self.max_rd_atomic),
                row("Max dest. RD atomic", self.max_dest_rd_atomic),
                row("Min RNR timer", self.min_rnr_timer),
                row("Port number", self.port_num),
                row("Timeout", self.timeout),
                row("Retry counter", self.retry_cnt),
                row("RNR retry", self.rnr_retry),
                row("Alt. port number", self.alt_port_num),
                row("Alt. timeout", self.alt_timeout),
                row("Rate limit", self.rate_limit),
            )
        )

    @staticmethod
    def _path(attr: AHAttr) -> str:
        # pyverbs gives the port twice here.
        return attr._local_rows() + row("port num", attr.port_num, indent=2) + attr._global_rows(4)


class ECE(PyverbsCM):
    """Enhanced connection establishment: options that the two sides' drivers agree on."""

    __slots__ = ("_comp_mask", "_options", "_vendor_id")

    def __init__(self, vendor_id: int = 0, options: int = 0, comp_mask: int = 0) -> None:
        self.vendor_id = vendor_id
        self.options = options
        self.comp_mask = comp_mask

    vendor_id = NumberField("vendor_id", check_u32, "Who defines the options.")
    options = NumberField("options", check_u32, "Mask of the vendor's options.")
    comp_mask = NumberField("comp_mask", check_u32, "Attributes that are set.")

    def __str__(self) -> str:
        rows = (("Vendor ID", self.vendor_id), ("Options", self.options), ("Comp Mask", self.comp_mask))
        return "ECE:\n" + "".join(f"{label:<22}: 0x{value:<20x}\n" for label, value in rows)


class QPRateLimitAttr(PyverbsObject):
    """Packet pacing of a QP."""

    __slots__ = ("_comp_mask", "_max_burst_sz", "_rate_limit", "_typical_pkt_sz")

    def __init__(self, rate_limit: int = 0, max_burst_sz: int = 0, typical_pkt_sz: int = 0, comp_mask: int = 0) -> None:
        self.rate_limit = rate_limit
        self.max_burst_sz = max_burst_sz
        self.typical_pkt_sz = typical_pkt_sz
        self.comp_mask = comp_mask

    rate_limit = NumberField("rate_limit", check_u32, "kbit/s.")
    max_burst_sz = NumberField("max_burst_sz", check_u32, "Bytes of a burst.")
    typical_pkt_sz = NumberField("typical_pkt_sz", check_u16, "Bytes of a typical packet.")
    comp_mask = NumberField("comp_mask", check_u32, "Attributes that are set.")

    def __str__(self) -> str:
        return (
            row("Rate limit", self.rate_limit)
            + row("Max burst size", self.max_burst_sz)
            + row("Typical packet size", self.typical_pkt_sz)
            + row("Comp mask", self.comp_mask)
        )


class QPAttachCompCntrAttr(PyverbsObject):
    """Which operations of a QP a completion counter counts."""

    __slots__ = ("_op_mask",)

    def __init__(self, op_mask: int = 0) -> None:
        self._op_mask = check_u32(op_mask)

    op_mask = NumberField("op_mask", check_u32, "Mask of ibv_qp_attach_comp_cntr_op.", readonly=True)


def copy_caps(src: QPCap, dst: Any) -> None:
    """Copy the sizes to an object with pyverbs' `max_*` attributes."""
    given = typed("src", src, QPCap)
    for name in ("max_send_wr", "max_recv_wr", "max_send_sge", "max_recv_sge", "max_inline_data"):
        setattr(dst, name, getattr(given, name))

"""Attribute objects: texts, defaults, range checks and copies, compared with Debian's pyverbs where it is installed."""

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs.addr import GID, GRH, AHAttr, GlobalRoute
from ffverbs.base import PyverbsObject
from ffverbs.cq import WC, CqInitAttrEx, PollCqAttr, WcTmInfo
from ffverbs.device import AllocDmAttr, DeviceAttrEx, FdArr, GIDEntry, PortAttr
from ffverbs.mr import DmaHandleInitAttr
from ffverbs.pyverbs_error import PyverbsError, PyverbsRDMAError, PyverbsUserError
from ffverbs.qp import ECE, DataBuffer, QPAttr, QPCap, QPInitAttr, QPInitAttrEx, QPRateLimitAttr
from ffverbs.srq import OpsWr, SrqAttr, SrqInitAttr, SrqInitAttrEx
from ffverbs.wr import SGE, RecvWR, SendWR
from tests.unit.real_pyverbs import evaluate

GID_TEXT = "fe80:0000:0000:0000:0123:4567:89ab:cdef"

PREAMBLE = f"""
import pyverbs.enums as e
from pyverbs.addr import *
from pyverbs.cq import *
from pyverbs.device import *
from pyverbs.mr import *
from pyverbs.qp import *
from pyverbs.srq import *
from pyverbs.wr import *
gid = GID("{GID_TEXT}")
route = GlobalRoute(gid, 1, 2, 3, 4)
ah = AHAttr(5, 6, 7, 8, 1, 9, route)
sge = SGE(0x1000, 64, 0xABC)
attr = QPAttr(e.IBV_QPS_RTS, e.IBV_QPS_RTR, 2, e.IBV_MTU_4096)
attr.ah_attr = ah
attr.alt_ah_attr = AHAttr(port_num=3)
attr.cap = QPCap(1, 2, 3, 4, 5)
attr.qp_access_flags = 0x7F
attr.path_mig_state = 2
for i, name in enumerate(("qkey", "rq_psn", "sq_psn", "dest_qp_num", "pkey_index", "alt_pkey_index", "max_rd_atomic",
                          "en_sqd_async_notify", "sq_draining", "max_dest_rd_atomic", "min_rnr_timer", "timeout",
                          "retry_cnt", "rnr_retry", "alt_port_num", "alt_timeout", "rate_limit")):
    setattr(attr, name, i + 10)
"""

# Each gives the same text, number or error here and in pyverbs.
SAME = """
str(GID())
str(gid)
gid.gid
str(GRH(gid, gid, 1, 2, 3, 4))
str(route)
str(AHAttr())
str(ah)
AHAttr(gr=route).dgid
ah.sgid_index
str(GIDEntry())
str(GIDEntry(1, 2, 3, 4, 1, 6))
str(GIDEntry(1, 2, 3, 4, 7, 6))
GIDEntry(2 ** 63, 2, 3, 4, 2, 6).gid_str()
str(AsyncEvent())
str(AsyncEvent(e.IBV_EVENT_SRQ_LIMIT_REACHED))
str(PortAttr())
str(DeviceAttr())
str(Device(b"a", 0x1234, 1, 0, 4))
str(QPCap())
str(QPCap(1, 2, 3, 4, 5))
str(QPInitAttr(cap=QPCap(1, 2, 3, 4, 5)))
str(QPInitAttrEx(qp_type=e.IBV_QPT_RC, cap=QPCap(1, 2, 3, 4, 5), comp_mask=0x2F, max_tso_header=3))
str(QPAttr())
str(attr)
str(attr.ah_attr)
str(attr.cap)
str(ECE(1, 2, 3))
str(sge)
str(RecvWR(1, 1, [sge]))
str(SendWR(1, e.IBV_WR_SEND_WITH_IMM, 1, 7, [sge], send_flags=0x1F))
str(SendWR(opcode=e.IBV_WR_LOCAL_INV))
str(WC())
str(WC(1, 5, 128, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12))
str(WC(status=99, opcode=99, wc_flags=0x7F))
str(CqInitAttrEx(5, wc_flags=0xBFF, comp_mask=1, flags=2))
[cqe_status_to_str(i) for i in range(-1, 30)]
[cqe_opcode_to_str(i) for i in (*range(-1, 10), *range(127, 140))]
[cqe_flags_to_str(i) for i in range(128)]
[translate_gid_type(i) for i in range(-1, 5)]
[translate_transport_type(i) for i in range(-1, 5)]
[translate_node_type(i) for i in range(-1, 9)]
[port_state_to_str(i) for i in range(-1, 9)]
[translate_mtu(i) for i in range(-1, 9)]
[translate_link_layer(i) for i in range(-1, 5)]
[phys_state_to_str(i) for i in range(-1, 9)]
[speed_to_str(i) for i in range(-1, 130)]
[guid_format(i) for i in (0, 1, 0x0123456789ABCDEF)]
[guid_to_hex(i) for i in (0, 1, 0x0123456789ABCDEF)]
translate_port_cap_flags(0x7FFFFFF)
translate_port_cap_flags2(0x43F)
translate_device_caps(0x27BF7FFF)
translate_device_caps(0)
str_from_flags(3, {1: "a", 2: "b"})
flags_to_str(3, {1: "a", 2: "b"})
send_flags_to_str(31)
[mwtype2str(i) for i in range(4)]
[int(getattr(QPAttr(), n)) for n in ("qp_state", "cur_qp_state", "port_num", "path_mtu")]
[getattr(SrqAttr(), n) for n in ("max_wr", "max_sge", "srq_limit")]
[getattr(SrqInitAttr(), n) for n in ("max_wr", "max_sge", "srq_limit")]
[getattr(SrqInitAttrEx(), n) for n in ("max_wr", "max_sge", "srq_limit", "comp_mask", "pd", "xrcd", "cq")]
[getattr(OpsWr(), n) for n in ("wr_id", "unexpected_cnt", "recv_wr_id", "tag", "mask", "next_wr")]
AHAttr(is_global=1)
GID("fe80::1")[0]
QPInitAttr(scq=5)[0]
RecvWR()
SendWR()
SendWR(opcode=e.IBV_WR_RDMA_WRITE, sg=[sge])
AHAttr(port_num="a")
Context()
PortAttr(1)[0]
""".strip().splitlines()


def _space(module: str) -> dict[str, Any]:
    space: dict[str, Any] = {}
    exec(PREAMBLE.replace("pyverbs.", f"{module}."), space)
    return space


def _value(expression: str, space: dict[str, Any]) -> Any:
    try:
        return eval(expression, space)
    except Exception as error:
        return [type(error).__name__, str(error)]


def test_texts_and_defaults_are_pyverbs_own() -> None:
    theirs = evaluate(PREAMBLE, *SAME)
    space = _space("ffverbs")
    for expression, expected in zip(SAME, theirs, strict=True):
        found = _value(expression, space)
        if isinstance(expected, list) and str(expected[0]).endswith("Error"):
            # The class of an error is pyverbs'; its text may say more.
            assert found[0] == expected[0], expression
        else:
            assert found == expected, expression


RANGED: list[tuple[Any, str, int]] = [
    (lambda: SGE(1, 2, 3), "addr", 64),
    (lambda: SGE(1, 2, 3), "length", 32),
    (lambda: SGE(1, 2, 3), "lkey", 32),
    (lambda: SendWR(num_sge=1, sg=[SGE(1, 2, 3)]), "wr_id", 64),
    (lambda: SendWR(num_sge=1, sg=[SGE(1, 2, 3)]), "imm_data", 32),
    (lambda: SendWR(num_sge=1, sg=[SGE(1, 2, 3)]), "opcode", 32),
    (lambda: SendWR(num_sge=1, sg=[SGE(1, 2, 3)]), "send_flags", 32),
    (lambda: RecvWR(num_sge=1, sg=[SGE(1, 2, 3)]), "wr_id", 64),
    (WC, "wr_id", 64),
    (WC, "byte_len", 32),
    (WC, "slid", 16),
    (WC, "dlid_path_bits", 8),
    (QPCap, "max_send_wr", 32),
    (QPInitAttr, "max_inline_data", 32),
    (QPInitAttrEx, "max_tso_header", 16),
    (QPInitAttrEx, "comp_mask", 32),
    (QPAttr, "timeout", 8),
    (QPAttr, "pkey_index", 16),
    (QPAttr, "dest_qp_num", 32),
    (QPAttr, "qp_state", 32),
    (AHAttr, "port_num", 8),
    (AHAttr, "dlid", 16),
    (AHAttr, "flow_label", 32),
    (AHAttr, "sgid_index", 8),
    (GlobalRoute, "traffic_class", 8),
    (GRH, "paylen", 16),
    (SrqAttr, "srq_limit", 32),
    (CqInitAttrEx, "wc_flags", 64),
    (CqInitAttrEx, "cqe", 32),
    (PollCqAttr, "comp_mask", 32),
    (WcTmInfo, "tag", 64),
    (ECE, "options", 32),
    (QPRateLimitAttr, "typical_pkt_sz", 16),
    (lambda: AllocDmAttr(5), "length", 64),
    (OpsWr, "tag", 64),
    (DmaHandleInitAttr, "ph", 8),
]


@pytest.mark.parametrize(
    ("make", "name", "bits"), RANGED, ids=[f"{make().__class__.__name__}.{n}" for make, n, _ in RANGED]
)
def test_integers_fit_their_c_type(make: Any, name: str, bits: int) -> None:
    obj = make()
    before = getattr(obj, name)
    for bad, error in ((-1, OverflowError), (1 << bits, OverflowError), ("1", TypeError), (None, TypeError)):
        with pytest.raises(error):
            setattr(obj, name, bad)
        assert getattr(obj, name) == before, "a refused value changes nothing"
    is_global = isinstance(obj, AHAttr) and name in ("flow_label", "sgid_index")
    if is_global:
        obj.is_global = 1
    setattr(obj, name, (1 << bits) - 1)
    assert getattr(obj, name) == (1 << bits) - 1
    setattr(obj, name, 7.0)  # pyverbs converts any number
    assert getattr(obj, name) == 7


def test_constructors_check_ranges_too() -> None:
    with pytest.raises(OverflowError):
        SGE(1, 1 << 32, 3)
    with pytest.raises(OverflowError):
        WC(wr_id=1 << 64)
    with pytest.raises(OverflowError):
        QPCap(max_send_wr=-1)
    with pytest.raises(TypeError):
        QPAttr(port_num="1")  # type: ignore[arg-type]


OBJECTS = [
    GID(),
    GRH(),
    GlobalRoute(),
    AHAttr(),
    WC(),
    CqInitAttrEx(),
    PollCqAttr(),
    DeviceAttrEx(),
    PortAttr(),
    GIDEntry(),
    QPCap(),
    QPInitAttr(),
    QPInitAttrEx(),
    QPAttr(),
    ECE(),
    DataBuffer(1, 2),
    SrqAttr(),
    SrqInitAttr(),
    SrqInitAttrEx(),
    OpsWr(),
    SGE(1, 2, 3),
    RecvWR(num_sge=1, sg=[SGE(1, 2, 3)]),
    SendWR(num_sge=1, sg=[SGE(1, 2, 3)]),
    FdArr([1, 2], 2),
]


@pytest.mark.parametrize("obj", OBJECTS, ids=lambda o: type(o).__name__)
def test_objects_have_only_their_attributes_and_stay_in_the_process(obj: PyverbsObject) -> None:
    with pytest.raises(AttributeError):
        obj.no_such_attribute = 1  # type: ignore[attr-defined]
    for action in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            action(obj)
    assert weakref.ref(obj)() is obj
    sub = type("Sub", (type(obj),), {})
    assert issubclass(sub, type(obj))


def test_enum_getters_return_members() -> None:
    assert QPAttr().qp_state is e.IBV_QPS_INIT
    assert QPAttr(path_mtu=5).path_mtu is e.IBV_MTU_4096
    assert WC(status=13).status is e.IBV_WC_RNR_RETRY_EXC_ERR
    assert WC(opcode=129).opcode is e.IBV_WC_RECV_RDMA_WITH_IMM
    assert SendWR(opcode=7).opcode is e.IBV_WR_LOCAL_INV
    assert QPInitAttr(qp_type=2).qp_type is e.IBV_QPT_RC
    assert SrqInitAttrEx().srq_type is e.IBV_SRQT_BASIC
    assert WC(status=1000).status == 1000
    for mask in (WC(wc_flags=2).wc_flags, QPAttr().qp_access_flags, SendWR(opcode=7).send_flags):
        assert type(mask) is int


def test_masks_of_the_extended_device_attributes_are_zero() -> None:
    attr = DeviceAttrEx()
    assert attr.odp_caps.general_caps == attr.odp_caps.rc_odp_caps == 0
    assert attr.tso_caps.max_tso == attr.rss_caps.rx_hash_fields_mask == attr.tm_caps.max_num_tags == 0
    assert attr.max_dm_size == attr.completion_timestamp_mask == attr.cq_mod_caps.max_cq_count == 0
    with pytest.raises(AttributeError):
        attr.max_dm_size = 1


def test_sizes_and_addresses_are_copied() -> None:
    cap = QPCap(5, 6, 7, 8, 9)
    init = QPInitAttr(cap=cap)
    cap.max_send_wr = 50
    init.cap.max_recv_wr = 60
    assert (init.max_send_wr, init.max_recv_wr) == (5, 6)
    init.cap = cap
    assert init.cap.max_send_wr == 50
    attr = QPAttr()
    attr.ah_attr = AHAttr(port_num=3)
    attr.ah_attr.port_num = 9
    assert attr.ah_attr.port_num == 3
    attr.ah_attr = None  # type: ignore[assignment]
    assert attr.ah_attr.port_num == 3


def test_gids_take_one_form_only() -> None:
    gid = GID(GID_TEXT)
    assert gid.gid == str(gid) == GID_TEXT
    for bad in ("fe80::1", "", GID_TEXT[:-1], GID_TEXT + ":0000", "g" + GID_TEXT[1:]):
        with pytest.raises(PyverbsUserError):
            gid.gid = bad
    assert gid.gid == GID_TEXT
    gid.gid = GID_TEXT.upper()
    assert gid.gid == GID_TEXT


def test_work_requests_copy_their_sges_and_keep_what_follows() -> None:
    sge = SGE(0x1000, 64, 7)
    last = SendWR(3, num_sge=1, sg=[sge])
    first = SendWR(1, num_sge=1, sg=[sge], next_wr=SendWR(2, num_sge=1, sg=[sge], next_wr=last))
    sge.length = 1
    alive = weakref.ref(last)
    del last
    gc.collect()
    assert alive() is not None
    assert first.next_wr is not None and first.next_wr.next_wr is alive()
    assert first._c.next.next.wr_id == 3
    assert first._c.sg_list[0].length == 64
    first.sg_list = SGE(0x2000, 8, 9)
    assert (first._c.sg_list[0].addr, first.num_sge) == (0x2000, 1)
    assert first.sg_list != 0


def test_lists_of_sges_are_checked() -> None:
    with pytest.raises(IndexError, match="num_sge is 2"):
        RecvWR(1, 2, [SGE(1, 2, 3)])
    with pytest.raises(TypeError):
        SendWR(num_sge=1, sg=[5])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        SendWR(num_sge=1, sg=[SGE(1, 2, 3)], next_wr=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        RecvWR(num_sge=1, sg=[SGE(1, 2, 3)]).next_wr = None  # type: ignore[assignment]


def test_closed_work_requests_say_so() -> None:
    for obj, name in ((SGE(1, 2, 3), "addr"), (SendWR(opcode=7), "wr_id"), (RecvWR(1, 1, [SGE(1, 2, 3)]), "wr_id")):
        obj.close()
        obj.close()
        with pytest.raises(PyverbsError, match="closed"):
            getattr(obj, name)
        with pytest.raises(PyverbsError, match="closed"):
            setattr(obj, name, 1)


def test_remote_parts_of_a_send_request() -> None:
    wr = SendWR(opcode=e.IBV_WR_RDMA_WRITE, num_sge=1, sg=[SGE(1, 2, 3)])
    wr.set_wr_rdma(0xABC, 0xDEF0)
    assert (wr.rdma_rkey, wr.rdma_remote_addr) == (0xABC, 0xDEF0)
    wr.set_wr_atomic(1, 2, 3, 4)
    atomic = wr._c.wr.atomic
    assert (atomic.rkey, atomic.remote_addr, atomic.compare_add, atomic.swap) == (1, 2, 3, 4)
    wr.set_qp_type_xrc(77)
    assert wr._c.xrc_remote_srqn == 77
    too_large: list[Callable[[], None]] = [
        lambda: wr.set_wr_rdma(-1, 2),
        lambda: wr.set_wr_atomic(1, 1 << 64, 0),
        lambda: wr.set_qp_type_xrc(-1),
    ]
    for call in too_large:
        with pytest.raises(OverflowError):
            call()
    wrong_types: list[Callable[[], None]] = [
        lambda: wr.set_wr_ud(None, 1, 2),  # type: ignore[arg-type]
        lambda: wr.set_bind_wr(None, None),  # type: ignore[arg-type]
    ]
    for call in wrong_types:
        with pytest.raises(TypeError):
            call()


def test_sge_reads_memory_within_its_bounds() -> None:
    from ffverbs._native import ffi

    memory = ffi.new("char[]", b"hello world")
    sge = SGE(int(ffi.cast("uintptr_t", memory)), 5, 0)
    assert sge.read(3, 1) == b"ell"
    for length, offset in ((6, 0), (1, 5), (-1, 0), (1, -1)):
        with pytest.raises(PyverbsUserError):
            sge.read(length, offset)


def test_descriptor_arrays() -> None:
    array = FdArr([3, 4, 5], 2)
    assert (array.arr, array.count) == ([3, 4], 2)
    with pytest.raises(PyverbsRDMAError):
        FdArr([1], 2)

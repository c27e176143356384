"""What the device says of itself is true: sizes that it reports can be had, larger ones are refused by name."""

import socket
from collections.abc import Callable, Iterator
from errno import EINVAL, ENOMEM, EOPNOTSUPP
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs.addr import AH, GID, AHAttr, GlobalRoute
from ffverbs.base import Handle
from ffverbs.cq import CQ
from ffverbs.device import Context
from ffverbs.mr import MR, MW
from ffverbs.pd import PD
from ffverbs.pyverbs_error import PyverbsError, PyverbsRDMAError
from ffverbs.qp import QP, QPCap, QPInitAttr
from ffverbs.srq import SRQ, SrqAttr, SrqInitAttr
from tests.conformance.pair import ALL_ACCESS, Options, Pair, Recv, Send


@pytest.fixture
def ctx(node_directory: Path) -> Iterator[Context]:
    with Context(name="ffv0") as context:
        yield context


def qp_with(ctx: Context, qp_type: int = int(e.IBV_QPT_RC), **caps: int) -> QP:
    pd, cq = PD(ctx), CQ(ctx, 16)
    return QP(pd, QPInitAttr(qp_type=qp_type, scq=cq, rcq=cq, cap=QPCap(**caps)))


def refused(act: Callable[[], Any], code: int, text: str) -> None:
    with pytest.raises(PyverbsRDMAError, match=text) as caught:
        act()
    assert caught.value.error_code == code


def test_work_requests(ctx: Context) -> None:
    most = ctx.query_device().max_qp_wr
    qp_with(ctx, max_send_wr=most, max_recv_wr=most).close()
    refused(lambda: qp_with(ctx, max_send_wr=most + 1), EINVAL, str(most))
    refused(lambda: qp_with(ctx, max_recv_wr=most + 1), EINVAL, str(most))


def test_elements(ctx: Context) -> None:
    most = ctx.query_device().max_sge
    qp_with(ctx, max_send_sge=most, max_recv_sge=most).close()
    refused(lambda: qp_with(ctx, max_send_sge=most + 1), EINVAL, f"at most {most}")
    refused(lambda: qp_with(ctx, max_recv_sge=most + 1), EINVAL, f"at most {most}")


def test_inline_data(ctx: Context) -> None:
    refused(lambda: qp_with(ctx, max_inline_data=1 << 20), EINVAL, "inline")


def test_completion_queues(ctx: Context) -> None:
    most = ctx.query_device().max_cqe
    with CQ(ctx, most) as cq:
        assert cq.cqe >= most
    for wrong in (0, -1, most + 1):
        refused(partial(CQ, ctx, wrong), EINVAL, f"not {wrong}")
    refused(lambda: CQ(ctx, 1, None, None, ctx.num_comp_vectors), EINVAL, "vector")
    refused(lambda: CQ(ctx, 1, None, None, -1), EINVAL, "vector")


def test_shared_receive_queues(ctx: Context) -> None:
    attr, pd = ctx.query_device(), PD(ctx)
    SRQ(pd, SrqInitAttr(SrqAttr(max_wr=attr.max_srq_wr, max_sge=attr.max_srq_sge))).close()
    for wr, sge in ((attr.max_srq_wr + 1, 1), (1, attr.max_srq_sge + 1), (0, 1)):
        wrong = SrqInitAttr(SrqAttr(max_wr=wr, max_sge=sge))
        refused(partial(SRQ, pd, wrong), EINVAL, "shared receive queue")
    srq = SRQ(pd, SrqInitAttr(SrqAttr(max_wr=8)))
    refused(lambda: srq.modify(SrqAttr(srq_limit=9), e.IBV_SRQ_LIMIT), EINVAL, "limit of 9")
    too_many = SrqAttr(max_wr=attr.max_srq_wr + 1)
    refused(lambda: srq.modify(too_many, e.IBV_SRQ_MAX_WR), EINVAL, "shared receive queue")


@pytest.mark.parametrize("kind", ["QP", "CQ", "SRQ", "PD", "MW"])
def test_as_many_objects_as_it_says(ctx: Context, kind: str) -> None:
    attr, pd, cq = ctx.query_device(), PD(ctx), CQ(ctx, 1)
    init = QPInitAttr(qp_type=e.IBV_QPT_RC, scq=cq, rcq=cq, cap=QPCap(1, 1))
    make: dict[str, tuple[int, Callable[[], Handle]]] = {
        "QP": (attr.max_qp, lambda: QP(pd, init)),
        "CQ": (attr.max_cq, lambda: CQ(ctx, 1)),
        "SRQ": (attr.max_srq, lambda: SRQ(pd, SrqInitAttr(SrqAttr(max_wr=1)))),
        "PD": (attr.max_pd, lambda: PD(ctx)),
        "MW": (attr.max_mw, lambda: MW(pd, e.IBV_MW_TYPE_1)),
    }
    most, one = make[kind]
    made: list[Handle] = []
    for _ in range(most - (kind in ("CQ", "PD"))):
        made.append(one())
    # What is reported can be had; a few more may be.
    with pytest.raises(PyverbsRDMAError) as caught:
        for _ in range(100):
            made.append(one())
    assert caught.value.error_code == ENOMEM
    made.pop().close()
    made.append(one())


def test_gids(ctx: Context) -> None:
    entries = ctx.query_gid_table(100)
    assert [entry.gid_index for entry in entries] == [0, 1]
    first, second = (ctx.query_gid(1, index).gid for index in (0, 1))
    assert first.startswith("fe80:0000:0000:0000:")
    assert second.startswith("0000:0000:0000:0000:0000:ffff:")
    digits = bytes.fromhex(second[-9:].replace(":", ""))
    assert socket.inet_ntoa(digits).count(".") == 3


def test_the_port(ctx: Context) -> None:
    port = ctx.query_port(1)
    assert (port.state, port.link_layer) == (e.IBV_PORT_ACTIVE, e.IBV_LINK_LAYER_ETHERNET)
    assert (port.max_mtu, port.active_mtu) == (e.IBV_MTU_4096, e.IBV_MTU_4096)
    assert port.max_msg_sz == 1 << 31
    assert port.gid_tbl_len >= 2


@pytest.mark.parametrize("wrong", [7, e.IBV_QPT_DRIVER])
def test_types_that_are_not_there(ctx: Context, wrong: int) -> None:
    with pytest.raises(PyverbsRDMAError) as caught:
        qp_with(ctx, int(wrong))
    assert caught.value.error_code in (EOPNOTSUPP, EINVAL)
    assert "RC, UC" in str(caught.value)


def test_objects_of_another_context(ctx: Context) -> None:
    with Context(name="ffv0") as other:
        pd, foreign_cq = PD(ctx), CQ(other, 8)
        init = QPInitAttr(qp_type=e.IBV_QPT_RC, scq=foreign_cq, rcq=foreign_cq)
        refused(lambda: QP(pd, init), EINVAL, "another context")


def test_a_queue_pair_without_queues(ctx: Context) -> None:
    refused(lambda: QP(PD(ctx), QPInitAttr(qp_type=e.IBV_QPT_RC)), EINVAL, "completion queue")


@pytest.mark.parametrize(
    ("length", "access", "text"),
    [
        (1 << 62, ALL_ACCESS, "bytes"),
        (4096, int(e.IBV_ACCESS_REMOTE_WRITE), "LOCAL_WRITE|local write"),
        (4096, int(e.IBV_ACCESS_REMOTE_ATOMIC), "LOCAL_WRITE|local write"),
        (4096, 1 << 29, "access"),
    ],
)
def test_memory_that_cannot_be_registered(ctx: Context, length: int, access: int, text: str) -> None:
    with pytest.raises(PyverbsError, match=text):
        MR(PD(ctx), length, access)


def test_a_region_of_nothing_opens_nothing(here: Pair) -> None:
    here.connect()
    nothing = here.b.register(ALL_ACCESS, 0)
    here.a.post_send(Send(1, int(e.IBV_WR_RDMA_WRITE), ((0, 1),), remote=nothing.addr, rkey=nothing.rkey))
    assert here.a.sent()[0].status == e.IBV_WC_REM_ACCESS_ERR


def test_memory_that_is_not_there(ctx: Context) -> None:
    with pytest.raises(PyverbsRDMAError, match="0x1000"):
        MR(PD(ctx), 4096, ALL_ACCESS, 0x1000)


def test_addresses_of_handles(ctx: Context) -> None:
    pd = PD(ctx)
    route = GlobalRoute(dgid=GID(ctx.query_gid(1, 1).gid), sgid_index=7)
    refused(lambda: AH(pd, attr=AHAttr(port_num=1, is_global=1, gr=route)), EINVAL, "GID index 7")
    route = GlobalRoute(dgid=GID(ctx.query_gid(1, 1).gid), sgid_index=1)
    refused(lambda: AH(pd, attr=AHAttr(port_num=2, is_global=1, gr=route)), EINVAL, "port 2")


def test_what_is_granted_is_what_can_be_used(here: Pair) -> None:
    here.connect(Options(send_wr=5, recv_wr=5, send_sge=3, recv_sge=3))
    granted = here.a._objects.qps[0].query(int(e.IBV_QP_CAP))[1].cap
    here.b.post_recv(*(Recv(i, ((0, 1),) * granted.max_recv_sge) for i in range(granted.max_recv_wr)))
    here.a.post_send(*(Send(i, pieces=((0, 1),) * granted.max_send_sge) for i in range(granted.max_send_wr)))
    assert all(d.ok for d in here.a.sent(granted.max_send_wr))
    assert len(here.b.received(granted.max_recv_wr)) == granted.max_recv_wr

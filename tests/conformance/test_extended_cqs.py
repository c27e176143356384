"""Extended completion queues: fields, clocks, batches, channels, shared queues, and growing under traffic."""

import errno
import time

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs.cq import CQEX, CompChannel, CqInitAttrEx, PollCqAttr
from ffverbs.device import Context
from ffverbs.pd import PD
from ffverbs.pyverbs_error import PyverbsError, PyverbsRDMAError
from tests.conformance.pair import DEADLINE_S, GRH_BYTES, QKEY, UD, Options, Pair, Recv, Send

ALL_FIELDS = int(sum(e.ibv_create_cq_wc_flags)) & ~int(e.IBV_WC_EX_WITH_CVLAN)
EXTENDED = Options(cq_fields=ALL_FIELDS)


def test_every_field_of_a_message(pair: Pair) -> None:
    pair.connect(EXTENDED)
    for i in range(150):  # the ring goes round more than once
        pair.b.post_recv(Recv(1000 + i, ((4096, 64),)))
        before, wall_before = pair.b.clock_ns(), time.time_ns()
        pair.a.post_send(Send(i, int(e.IBV_WR_SEND_WITH_IMM), ((0, 24),), imm=0x01020304 + i))
        ((sent, more),) = pair.a.poll_fields("send")
        assert (sent.wr_id, sent.status, sent.opcode) == (i, e.IBV_WC_SUCCESS, e.IBV_WC_SEND)
        assert before <= more["read_timestamp"] <= pair.a.clock_ns()
        ((got, fields),) = pair.b.poll_fields("recv")
        assert (got.wr_id, got.byte_len, got.imm) == (1000 + i, 24, 0x01020304 + i)
        assert (got.opcode, got.flags, got.qp_num) == (e.IBV_WC_RECV, e.IBV_WC_WITH_IMM, pair.to_b.qpn)
        assert before <= fields["read_timestamp"] <= pair.b.clock_ns()
        assert wall_before - 10**9 < fields["read_completion_wallclock_ns"] < time.time_ns() + 10**9
        assert (fields["read_slid"], fields["read_dlid_path_bits"], fields["read_flow_tag"]) == (0, 0, 0)
        assert fields["read_tm_info"] == (0, 0)


def test_a_completion_is_stamped_when_it_is_written(pair: Pair) -> None:
    pair.connect(EXTENDED)
    pair.b.post_recv(Recv(1), Recv(2))
    pair.a.post_send(Send(1))
    pair.a.poll_fields("send")
    between = pair.b.clock_ns()  # whose clock it is: the sides may be on two machines
    pair.a.post_send(Send(2))
    pair.a.poll_fields("send")
    first, second = (fields["read_timestamp"] for _, fields in pair.b.poll_fields("recv", 2))
    assert first <= between <= second, "polling late changes nothing"


def test_datagrams_name_their_sender(pair: Pair) -> None:
    pair.connect(Options(qp_type=UD, cq_fields=ALL_FIELDS))
    pair.b.post_recv(Recv(1))
    pair.a.post_send(Send(1, to=pair.to_b, qkey=QKEY))
    ((got, fields),) = pair.b.poll_fields("recv")
    assert (got.src_qp, got.byte_len, got.flags) == (pair.to_a.qpn, 8 + GRH_BYTES, e.IBV_WC_GRH)
    assert fields["read_sl"] == 0


def test_errors_and_flushes_are_seen(pair: Pair) -> None:
    pair.connect(EXTENDED)
    pair.b.post_recv(Recv(1, ((0, 1),)), Recv(2))
    pair.a.post_send(Send(1))
    assert pair.a.poll_fields("send")[0][0].status == e.IBV_WC_REM_INV_REQ_ERR
    (bad, when), (flushed, later) = pair.b.poll_fields("recv", 2)
    assert (bad.wr_id, bad.status) == (1, e.IBV_WC_LOC_LEN_ERR)
    assert (flushed.wr_id, flushed.status) == (2, e.IBV_WC_WR_FLUSH_ERR)
    assert 0 < when["read_timestamp"] <= later["read_timestamp"]


def test_with_a_shared_queue_and_a_channel(pair: Pair) -> None:
    pair.connect(Options(cq_fields=ALL_FIELDS, srq_wr=8, channel=True))
    pair.b.post_recv(Recv(1), Recv(2))
    pair.b.arm("recv")
    pair.a.post_send(Send(1))
    assert [d.wr_id for d in pair.b.wait_event("recv")] == [1]
    pair.a.post_send(Send(2))
    assert pair.a.sent(2)[1].ok
    assert not pair.b.event_waits(), "an arming is good for one event"
    assert [d.wr_id for d in pair.b.received()] == [2]


@pytest.mark.parametrize("fields", [None, ALL_FIELDS], ids=["ordinary", "extended"])
def test_a_queue_grows_while_it_is_used(pair: Pair, fields: int | None) -> None:
    pair.connect(Options(cq_fields=fields, send_cqe=1, recv_cqe=1, send_wr=600, recv_wr=600))
    expected = 0
    for cqe in (5, 50, 51, 500):
        assert pair.b.resize("recv", cqe) >= cqe
        assert pair.a.resize("send", cqe) >= cqe
        wrs = range(cqe - expected)
        pair.b.post_recv(*(Recv(expected + i) for i in wrs))
        pair.a.post_send(*(Send(expected + i) for i in wrs))
        expected = cqe
    assert [d.wr_id for d in pair.a.sent(expected)] == list(range(expected))
    assert [d.wr_id for d in pair.b.received(expected)] == list(range(expected))
    assert pair.b.resize("recv", 3) >= 3
    for i in range(40):
        pair.b.post_recv(Recv(i))
        pair.a.post_send(Send(i))
        assert (pair.a.sent()[0].wr_id, pair.b.received()[0].wr_id) == (i, i)


def test_an_armed_queue_stays_armed_when_it_grows(pair: Pair) -> None:
    pair.connect(Options(channel=True, recv_cqe=1))
    pair.b.post_recv(Recv(7))
    pair.b.arm("recv")
    pair.b.resize("recv", 1000)
    pair.a.post_send(Send(1))
    assert pair.b.event_waits(DEADLINE_S)
    assert [d.wr_id for d in pair.b.wait_event("recv")] == [7]


def test_ignored_overruns(pair: Pair) -> None:
    if pair.elsewhere:
        pytest.skip("completions come one by one while they are polled: there need be no overrun")
    options = Options(cq_fields=0, cq_flags=int(e.IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN), send_cqe=1, send_wr=64)
    pair.connect(options)
    for i in range(60):
        pair.a.post_send(pair.remote(e.IBV_WR_RDMA_WRITE, wr_id=i))
    seen = [d.wr_id for d in pair.a.poll_now("send")]
    assert seen and seen == list(range(len(seen)))
    assert len(seen) < 60, "there was no overrun to ignore"
    pair.a.post_send(pair.remote(e.IBV_WR_RDMA_WRITE, wr_id=99))
    assert pair.a.sent()[0].wr_id == 99
    assert pair.a.state() == e.IBV_QPS_RTS
    assert pair.a.async_event(0.0) is None


def test_moderation_holds_events_back(pair: Pair) -> None:
    pair.connect(Options(channel=True))
    pair.b.post_recv(*(Recv(i) for i in range(16)))
    pair.b.moderate("recv", 5, 0)
    for first in (0, 5):
        pair.b.arm("recv")
        pair.a.post_send(*(Send(i) for i in range(4)))
        pair.a.sent(4)
        assert not pair.b.event_waits(), "it is one short"
        pair.a.post_send(Send(4))
        assert [d.wr_id for d in pair.b.wait_event("recv")] == list(range(first, first + 5))
        pair.a.sent()
    pair.b.moderate("recv", 100, 20_000)
    pair.b.arm("recv")
    before = pair.b.clock_ns()
    pair.a.post_send(Send(0), Send(1))
    assert pair.b.event_waits(DEADLINE_S), "the time is over at some point"
    assert pair.b.clock_ns() - before >= 20_000_000
    assert all(done.ok for done in pair.a.sent(2))  # the second may come later than that
    assert [d.wr_id for d in pair.b.wait_event("recv")] == [10, 11]


def test_errors_are_not_held_back(pair: Pair) -> None:
    pair.connect(Options(channel=True))
    pair.b.moderate("recv", 100, 0)
    pair.b.post_recv(Recv(1, ((0, 1),)))
    pair.b.arm("recv")
    pair.a.post_send(Send(1))
    assert pair.b.wait_event("recv")[0].status == e.IBV_WC_LOC_LEN_ERR


# ---- one side --------------------------------------------------------------------------------------------------------


@pytest.fixture
def ctx(node_directory: object) -> Context:
    """A context."""
    return Context(name="ffv0")


def test_fields_that_were_not_asked_for(ctx: Context) -> None:
    cq = CQEX(ctx, CqInitAttrEx(cqe=10, wc_flags=e.IBV_WC_EX_WITH_BYTE_LEN))
    assert cq.read_byte_len() == 0
    for read in (cq.read_imm_data, cq.read_timestamp, cq.read_tm_info, cq.read_cvlan, cq.read_src_qp):
        with pytest.raises(PyverbsRDMAError, match="IBV_WC_EX_WITH_") as caught:
            read()
        assert caught.value.error_code == errno.EOPNOTSUPP
    cq.wr_id, cq.status = 5, e.IBV_WC_GENERAL_ERR
    assert (cq.wr_id, cq.status) == (5, e.IBV_WC_GENERAL_ERR)


def test_attributes(ctx: Context) -> None:
    pd = PD(ctx)
    for attr, code in (
        (CqInitAttrEx(cqe=0), errno.EINVAL),
        (CqInitAttrEx(comp_vector=10**6), errno.EINVAL),
        (CqInitAttrEx(wc_flags=1 << 30), errno.EOPNOTSUPP),
        (CqInitAttrEx(comp_mask=1, flags=1 << 20), errno.EOPNOTSUPP),
        (CqInitAttrEx(comp_mask=e.IBV_CQ_INIT_ATTR_MASK_PD), errno.EINVAL),
    ):
        with pytest.raises(PyverbsRDMAError, match="Failed to create extended CQ") as caught:
            CQEX(ctx, attr)
        assert caught.value.error_code == code
    channel = CompChannel(ctx)
    flags = e.IBV_CREATE_CQ_ATTR_SINGLE_THREADED
    both = e.IBV_CQ_INIT_ATTR_MASK_PD | e.IBV_CQ_INIT_ATTR_MASK_FLAGS
    cq = CQEX(ctx, CqInitAttrEx(10, channel, comp_mask=both, flags=flags, parent_domain=pd))
    assert cq.start_poll(PollCqAttr()) == errno.ENOENT
    assert (cq.cqe, cq.comp_channel) == (10, channel)
    assert str(cq).startswith("Extended CQ:")
    mask = PollCqAttr()
    mask.comp_mask = 1
    assert cq.start_poll(mask) == errno.EINVAL
    assert cq.poll_next() == errno.EINVAL
    pd.close()
    with pytest.raises(PyverbsError, match="closed"):
        cq.start_poll(PollCqAttr())


def test_the_device_says_that_completions_have_times(ctx: Context) -> None:
    attr = ctx.query_device_ex()
    assert attr.completion_timestamp_mask == 2**64 - 1
    assert attr.hca_core_clock == 10**6
    assert (attr.cq_mod_caps.max_cq_count, attr.cq_mod_caps.max_cq_period) == (0xFFFF, 0xFFFF)

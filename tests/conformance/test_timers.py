"""Retry counters and timers run as their attributes say: receiver not ready, and no answer."""

import time
from dataclasses import replace

import pytest

import ffverbs.libibverbs_enums as e
from tests.conformance.pair import UC, Options, Pair, Peer, Recv, Send

RTS, RTR, INIT = int(e.IBV_QPS_RTS), int(e.IBV_QPS_RTR), int(e.IBV_QPS_INIT)
RNR_EXCEEDED, RETRY_EXCEEDED = int(e.IBV_WC_RNR_RETRY_EXC_ERR), int(e.IBV_WC_RETRY_EXC_ERR)
# Codes of the specification's table of RNR timers, with their times.
RNR_TIMERS_S = {1: 0.00001, 14: 0.00128, 18: 0.00512, 20: 0.01024}
# What scheduling on a busy machine may add.
SLACK_S = 20.0


def timed_failure(side: Peer, send: Send) -> tuple[int, float]:
    began = time.monotonic()
    side.post_send(send)
    status = side.sent()[0].status
    return status, time.monotonic() - began


@pytest.mark.parametrize(("retries", "code"), [(0, 20), (1, 1), (1, 20), (3, 18), (6, 14)])
def test_receiver_not_ready(pair: Pair, retries: int, code: int) -> None:
    pair.connect(rnr_retry=retries, min_rnr_timer=code)
    status, took_s = timed_failure(pair.a, Send(1))
    assert status == RNR_EXCEEDED
    promised_s = retries * RNR_TIMERS_S[code]
    assert promised_s <= took_s < promised_s + SLACK_S
    assert pair.a.counters() == (retries + 1, 0), "tries"
    assert pair.a.state() == e.IBV_QPS_ERR
    if not pair.is_self:
        assert pair.b.state() == RTS, "the receiver does not mind"


def test_seven_means_for_ever(pair: Pair) -> None:
    pair.connect(rnr_retry=7, min_rnr_timer=1)
    pair.a.write(b"patience")
    pair.a.post_send(Send(1))
    pair.a.wait_until_tried(20)
    assert pair.a.poll_now("send") == []
    pair.b.post_recv(Recv(9))
    assert pair.a.sent()[0].ok
    assert pair.b.received()[0].wr_id == 9
    assert pair.b.read(8) == b"patience"


def test_the_timer_is_the_receivers(apart: Pair) -> None:
    apart.create()
    apart.a.connect(apart.to_b, rnr_retry=1, min_rnr_timer=1)
    apart.b.connect(apart.to_a, min_rnr_timer=20)
    status, took_s = timed_failure(apart.a, Send(1))
    assert status == RNR_EXCEEDED
    assert took_s >= RNR_TIMERS_S[20]


def test_each_request_has_its_own_patience(pair: Pair) -> None:
    # Two seconds each, and together more tries than one may have.
    pair.connect(rnr_retry=6, min_rnr_timer=30)
    for i in range(4):
        pair.a.post_send(Send(i))
        pair.a.wait_until_tried(2 * (i + 1))
        pair.b.post_recv(Recv(i))
        assert pair.a.sent()[0].ok
        assert pair.b.received()[0].wr_id == i


def test_what_waits_goes_in_order_when_receives_come(pair: Pair) -> None:
    pair.connect()
    pair.a.post_send(*(Send(i) for i in range(3)))
    pair.a.post_send(pair.remote(e.IBV_WR_RDMA_WRITE, 512, wr_id=3))
    assert pair.a.poll_now("send") == []
    for i in range(3):
        pair.b.post_recv(Recv(i))
        assert pair.b.received()[0].wr_id == i
    assert [d.wr_id for d in pair.a.sent(4)] == [0, 1, 2, 3]


def test_writes_with_immediate_data_wait_for_a_receive(pair: Pair) -> None:
    pair.connect(rnr_retry=0)
    pair.a.post_send(pair.remote(e.IBV_WR_RDMA_WRITE_WITH_IMM, 0, pieces=((0, 8),)))
    assert pair.a.sent()[0].status == RNR_EXCEEDED


# ---- no answer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("retries", "timeout"), [(0, 10), (1, 12), (7, 9)])
@pytest.mark.parametrize("opcode", [e.IBV_WR_SEND, e.IBV_WR_RDMA_WRITE, e.IBV_WR_RDMA_READ], ids=str)
def test_nobody_is_there(pair: Pair, retries: int, timeout: int, opcode: int) -> None:
    pair.create()
    nobody = replace(pair.to_b, qpns=(pair.to_b.qpn + 1000,))
    pair.a.connect(nobody, retry_cnt=retries, timeout=timeout)
    status, took_s = timed_failure(pair.a, pair.remote(opcode))
    assert status == RETRY_EXCEEDED
    once_s = 4.096e-6 * 2**timeout
    assert retries * once_s <= took_s < 4 * (retries + 1) * once_s + SLACK_S
    assert pair.a.counters() == (0, retries + 1)
    assert pair.a.state() == e.IBV_QPS_ERR


def test_no_context_has_that_gid(pair: Pair) -> None:
    pair.create()
    elsewhere = replace(pair.to_b, gid="0000:0000:0000:0000:0000:ffff:c0a8:fefe")
    pair.a.connect(elsewhere, retry_cnt=1, timeout=10)
    assert timed_failure(pair.a, Send(1))[0] == RETRY_EXCEEDED


@pytest.mark.parametrize("state", ["RESET", "INIT"])
def test_a_peer_that_is_not_ready(apart: Pair, state: str) -> None:
    apart.create()
    if state == "INIT":
        apart.b.connect(apart.to_a, state=INIT)
        apart.b.post_recv(Recv(1))
    apart.a.connect(apart.to_b, retry_cnt=2, timeout=10)
    assert timed_failure(apart.a, Send(1))[0] == RETRY_EXCEEDED
    assert apart.b.poll_now("recv") == []


def test_a_peer_that_becomes_ready_in_time(apart: Pair) -> None:
    apart.create()
    apart.a.connect(apart.to_b, timeout=23)  # half a minute
    apart.a.post_send(Send(1), apart.remote(e.IBV_WR_RDMA_WRITE, 512, wr_id=2))
    apart.b.connect(apart.to_a, state=INIT)
    apart.b.post_recv(Recv(5))
    apart.b.connect(apart.to_a, state=RTR) if apart.b.state() == INIT else None
    began = time.monotonic()
    assert [d.ok for d in apart.a.sent(2)] == [True, True]
    assert time.monotonic() - began < 20, "it is served when the other side is ready, not when a timer is due"
    assert apart.b.received()[0].wr_id == 5


def test_no_timeout_means_waiting_for_ever(apart: Pair) -> None:
    apart.create()
    apart.a.connect(apart.to_b, timeout=0, retry_cnt=0)
    apart.a.post_send(Send(1))
    assert apart.a.poll_now("send") == []
    apart.b.connect(apart.to_a, state=RTR)
    apart.b.post_recv(Recv(5))
    assert apart.a.sent()[0].ok


@pytest.mark.parametrize("how", ["destroyed", "reset", "error", "closed"])
def test_a_peer_that_goes_away(apart: Pair, how: str) -> None:
    apart.connect(retry_cnt=1, timeout=14)
    apart.b.post_recv(Recv(1), Recv(2))
    apart.a.post_send(Send(1))
    assert apart.a.sent()[0].ok
    if how == "destroyed":
        apart.b.destroy_qp()
    elif how == "closed":
        apart.b.close()
    else:
        apart.b.modify(int(e.IBV_QPS_RESET if how == "reset" else e.IBV_QPS_ERR))
    assert timed_failure(apart.a, Send(2))[0] == RETRY_EXCEEDED
    assert apart.a.state() == e.IBV_QPS_ERR


@pytest.mark.parametrize("how", ["destroyed", "closed"])
def test_a_peer_that_goes_away_while_something_waits(apart: Pair, how: str) -> None:
    apart.connect(retry_cnt=1, timeout=14, rnr_retry=7)
    apart.a.post_send(Send(1), Send(2))
    apart.a.wait_until_tried(2)
    apart.b.destroy_qp() if how == "destroyed" else apart.b.close()
    assert [d.status for d in apart.a.sent(2)] == [RETRY_EXCEEDED, e.IBV_WC_WR_FLUSH_ERR]


def test_a_new_queue_pair_does_not_inherit_a_connection(apart: Pair) -> None:
    apart.connect(retry_cnt=1, timeout=10)
    apart.b.destroy_qp()
    apart.b.new_qp(Options())
    apart.b.connect(replace(apart.to_a, qpns=(0, apart.to_a.qpn)), 1)
    apart.b.post_recv(Recv(1), qp=1)
    assert timed_failure(apart.a, Send(2))[0] == RETRY_EXCEEDED


def test_the_other_side_is_of_another_type(apart: Pair) -> None:
    apart.create(Options(), Options(UC))
    apart.a.connect(apart.to_b, retry_cnt=1, timeout=10)
    apart.b.connect(apart.to_a)
    apart.b.post_recv(Recv(1))
    assert timed_failure(apart.a, Send(1))[0] == RETRY_EXCEEDED
    assert apart.b.poll_now("recv") == []

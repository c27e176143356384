"""Shared receive queues: several queue pairs take from one, its limit is an event, and errors leave it alone."""

from errno import EINVAL, ENOMEM

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs.pyverbs_error import PyverbsRDMAError
from tests.conformance.pair import RC, UD, Options, Pair, Recv, Send

SHARED = Options(RC, srq_wr=8, qps=3)
LIMIT = int(e.IBV_EVENT_SRQ_LIMIT_REACHED)


def test_several_queue_pairs_take_from_one(pair: Pair) -> None:
    pair.connect(SHARED)
    pair.b.post_recv(*(Recv(i, ((64 * i, 64),)) for i in range(8)))
    for i in range(8):
        pair.a.write(b"message%d" % i)
        pair.a.post_send(Send(i), qp=i % 3)
        assert pair.a.sent()[0].ok
    done = pair.b.received(8)
    assert [d.wr_id for d in done] == list(range(8))
    assert [d.qp_num for d in done] == [pair.to_b.qpns[i % 3] for i in range(8)]
    assert [pair.b.read(8, 64 * i) for i in range(8)] == [b"message%d" % i for i in range(8)]


def test_datagrams_through_a_shared_queue(pair: Pair) -> None:
    pair.connect(Options(UD, srq_wr=4))
    for i in range(20):
        pair.b.post_recv(Recv(i))
        pair.a.post_send(Send(i, to=pair.to_b))
        assert (pair.a.sent()[0].ok, pair.b.received()[0].wr_id) == (True, i)


def test_a_full_shared_queue(pair: Pair) -> None:
    pair.connect(SHARED)
    assert pair.b.refused_recv(*(Recv(i) for i in range(10))) == (ENOMEM, 8)
    pair.a.post_send(Send(1), qp=1)
    assert pair.b.received()[0].wr_id == 0
    pair.b.post_recv(Recv(8))
    assert pair.b.refused_recv(Recv(9)) == (ENOMEM, 9)


def test_receives_do_not_go_to_the_queue_pair(here: Pair) -> None:

    here.connect(SHARED)
    with pytest.raises(PyverbsRDMAError, match="shared receive queue") as caught:
        here.b._objects.qps[0].post_recv(here.b._recv_wr(Recv(1)))
    assert caught.value.error_code == EINVAL


def test_the_limit_is_one_event(pair: Pair) -> None:
    pair.connect(SHARED)
    pair.b.post_recv(*(Recv(i) for i in range(6)))
    pair.b.set_srq_limit(4)
    assert pair.b.srq_limit() == 4
    pair.a.post_send(Send(1), Send(2))
    assert [d.ok for d in pair.a.sent(2)] == [True, True]
    assert pair.b.async_event(0) is None, "four are left: not below the limit"
    pair.a.post_send(Send(3))
    assert pair.b.async_event() == LIMIT
    assert pair.b.srq_limit() == 0, "an arming is good for one event"
    pair.a.post_send(Send(4))
    assert pair.a.sent(2)[1].ok
    assert pair.b.async_event(0) is None
    pair.b.received(4)
    pair.b.post_recv(*(Recv(i) for i in range(6)))
    pair.b.set_srq_limit(8)
    pair.a.post_send(Send(5))
    assert pair.b.async_event() == LIMIT


def test_a_limit_above_what_waits_is_reached_at_once_or_with_the_next(pair: Pair) -> None:
    pair.connect(SHARED)
    pair.b.post_recv(Recv(1), Recv(2))
    pair.b.set_srq_limit(5)
    pair.a.post_send(Send(1))
    assert pair.b.async_event() == LIMIT


def test_waiting_senders_are_served_when_receives_come(apart: Pair) -> None:
    apart.connect(SHARED)
    for qp in range(3):
        apart.a.post_send(Send(qp), qp=qp)
    assert apart.a.poll_now("send") == []
    apart.b.post_recv(*(Recv(i) for i in range(3)))
    assert {d.wr_id for d in apart.a.sent(3)} == {0, 1, 2}
    assert sorted(d.qp_num for d in apart.b.received(3)) == sorted(apart.to_b.qpns)


def test_an_error_of_one_queue_pair_leaves_the_others(apart: Pair) -> None:
    apart.connect(SHARED)
    apart.b.post_recv(Recv(1), Recv(2), Recv(3))
    apart.a.post_send(Send(1, int(e.IBV_WR_RDMA_WRITE), remote=apart.to_b.addr, rkey=1), qp=0)
    assert apart.a.sent()[0].status == e.IBV_WC_REM_ACCESS_ERR
    events = {apart.b.async_event(), apart.b.async_event()}
    assert events == {int(e.IBV_EVENT_QP_ACCESS_ERR), int(e.IBV_EVENT_QP_LAST_WQE_REACHED)}
    apart.a.post_send(Send(2), qp=1)
    apart.a.post_send(Send(3), qp=2)
    assert all(d.ok for d in apart.a.sent(2))
    assert [d.wr_id for d in apart.b.received(2)] == [1, 2]


def test_shared_queues_survive_their_queue_pairs(apart: Pair) -> None:
    apart.connect(SHARED)
    apart.b.post_recv(Recv(1), Recv(2))
    apart.b.destroy_qp(0)
    apart.a.post_send(Send(1), qp=1)
    assert apart.a.sent()[0].ok
    assert apart.b.received()[0].wr_id == 1
    apart.b.destroy_qp(1)
    apart.b.destroy_qp(2)


def test_a_shared_queue_is_resized_with_what_is_in_it(pair: Pair) -> None:
    pair.connect(SHARED)
    pair.b.post_recv(*(Recv(i, ((64 * i, 64),)) for i in range(5)))
    assert pair.b.resize_srq(4) == EINVAL, "five are in it"
    assert (pair.b.resize_srq(100), pair.b.srq_size()) == (0, 100)
    pair.b.post_recv(*(Recv(i, ((64 * i, 64),)) for i in range(5, 100)))
    assert pair.b.refused_recv(Recv(100)) == (ENOMEM, 100)
    for i in range(98):
        pair.a.write(b"message%02d" % i)
        pair.a.post_send(Send(i, pieces=((0, 9),)), qp=i % 3)
        assert pair.a.sent()[0].ok
        if i == 50:
            assert pair.b.resize_srq(49) == EINVAL, "taken and not polled yet"
        assert pair.b.received()[0].wr_id == i
        assert pair.b.read(9, 64 * i) == b"message%02d" % i
    assert (pair.b.resize_srq(2), pair.b.srq_size()) == (0, 2)
    assert pair.b.refused_recv(Recv(100)) == (ENOMEM, 100)
    pair.a.post_send(Send(98), Send(99))
    assert [d.ok for d in pair.a.sent(2)] == [True, True]
    assert [d.wr_id for d in pair.b.received(2)] == [98, 99]
    assert pair.b.resize_srq(1 << 20) == pair.b.resize_srq(0) == EINVAL


def test_who_waits_is_served_after_a_resize(apart: Pair) -> None:
    apart.connect(SHARED)
    for size in (1, 64, 3):
        for qp in range(3):
            apart.a.post_send(Send(qp), qp=qp)
        assert apart.a.poll_now("send") == []
        assert apart.b.resize_srq(size) == 0
        for i in range(3):
            apart.b.post_recv(Recv(i))
            assert apart.b.received()[0].ok
        assert {d.wr_id for d in apart.a.sent(3)} == {0, 1, 2}

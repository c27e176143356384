"""Queues: how they fill, what a full one says, what frees a slot, and what is left of a list that is refused."""

import random
from errno import EINVAL, EIO, ENOMEM

import pytest

import ffverbs.libibverbs_enums as e
from tests.conformance.pair import RC, UC, UD, Options, Pair, Recv, Send

SIGNALED = int(e.IBV_SEND_SIGNALED)
BAD_OPCODE_FOR = {UC: int(e.IBV_WR_RDMA_READ), UD: int(e.IBV_WR_RDMA_WRITE)}


def test_a_send_queue_is_full_until_it_is_polled(pair: Pair) -> None:
    pair.connect(Options(send_wr=8))
    pair.a.post_send(*(pair.remote(e.IBV_WR_RDMA_WRITE, wr_id=i) for i in range(8)))
    assert pair.a.refused_send(pair.remote(e.IBV_WR_RDMA_WRITE, wr_id=9)) == (ENOMEM, 9)
    assert pair.a.sent()[0].wr_id == 0
    pair.a.post_send(pair.remote(e.IBV_WR_RDMA_WRITE, wr_id=8))
    assert pair.a.refused_send(pair.remote(e.IBV_WR_RDMA_WRITE, wr_id=9)) == (ENOMEM, 9)
    assert [d.wr_id for d in pair.a.sent(8)] == list(range(1, 9))


def test_unsignaled_requests_free_their_slots_with_a_later_completion(pair: Pair) -> None:
    pair.connect(Options(send_wr=4))
    for lap in range(5):
        pair.a.post_send(*(pair.remote(e.IBV_WR_RDMA_WRITE, wr_id=i, flags=0) for i in range(3)))
        assert pair.a.poll_now("send") == [], "done, but nobody asked to be told"
        pair.a.post_send(pair.remote(e.IBV_WR_RDMA_WRITE, wr_id=lap))
        assert pair.a.refused_send(pair.remote(e.IBV_WR_RDMA_WRITE, wr_id=9)) == (ENOMEM, 9)
        assert [d.wr_id for d in pair.a.sent()] == [lap]
    pair.a.post_send(*(pair.remote(e.IBV_WR_RDMA_WRITE, wr_id=i, flags=0) for i in range(4)))
    assert pair.a.poll_now("send") == []
    assert pair.a.refused_send(Send(5)) == (ENOMEM, 5), "without a signaled one nothing becomes free"


def test_signaling_all(pair: Pair) -> None:
    pair.connect(Options(sig_all=True))
    pair.a.post_send(*(pair.remote(e.IBV_WR_RDMA_WRITE, wr_id=i, flags=0) for i in range(3)))
    assert [d.wr_id for d in pair.a.sent(3)] == [0, 1, 2]


def test_a_receive_queue_is_full_until_it_is_polled(pair: Pair) -> None:
    pair.connect(Options(recv_wr=4))
    pair.b.post_recv(*(Recv(i) for i in range(4)))
    assert pair.b.refused_recv(Recv(4)) == (ENOMEM, 4)
    pair.a.post_send(Send(1))
    assert pair.b.received()[0].wr_id == 0
    pair.b.post_recv(Recv(4))
    assert pair.b.refused_recv(Recv(5)) == (ENOMEM, 5)


def test_a_list_is_posted_up_to_the_first_bad_request(pair: Pair) -> None:
    pair.connect(Options(send_wr=3, send_sge=2))
    too_many = Send(2, pieces=((0, 1), (1, 1), (2, 1)))
    good = [pair.remote(e.IBV_WR_RDMA_WRITE, 100 * i, wr_id=i) for i in range(6)]
    assert pair.a.refused_send(good[0], good[1], too_many, good[3]) == (EINVAL, 2)
    assert [d.wr_id for d in pair.a.sent(2)] == [0, 1]
    assert pair.a.refused_send(*good) == (ENOMEM, 3)
    assert [d.wr_id for d in pair.a.sent(3)] == [0, 1, 2]
    assert pair.a.poll_now("send") == []
    assert pair.a.state() == e.IBV_QPS_RTS, "a refused request harms nothing"


def test_a_receive_list_is_posted_up_to_the_first_bad_request(pair: Pair) -> None:
    pair.connect(Options(recv_wr=3, recv_sge=1))
    assert pair.b.refused_recv(Recv(1), Recv(2, ((0, 1), (1, 1))), Recv(3)) == (EINVAL, 2)
    assert pair.b.refused_recv(*(Recv(i) for i in range(5, 9))) == (ENOMEM, 7)
    pair.a.post_send(*(Send(i) for i in range(3)))
    assert [d.wr_id for d in pair.b.received(3)] == [1, 5, 6]


@pytest.mark.parametrize("qp_type", [UC, UD], ids=["UC", "UD"])
def test_operations_that_a_type_does_not_have(pair: Pair, qp_type: int) -> None:
    pair.connect(Options(qp_type))
    wrong = pair.remote(BAD_OPCODE_FOR[qp_type], wr_id=7)
    assert pair.a.refused_send(wrong) == (EINVAL, 7)
    assert pair.a.refused_send(Send(8, opcode=99))[1] == 8


def test_too_much_inline(pair: Pair) -> None:
    pair.connect(Options(inline=64, send_sge=1))
    flags = SIGNALED | int(e.IBV_SEND_INLINE)
    granted = pair.a.max_inline()
    assert granted >= 64
    assert pair.a.refused_send(Send(1, pieces=((0, granted + 1),), flags=flags)) == (EINVAL, 1)
    assert pair.a.refused_send(pair.remote(e.IBV_WR_RDMA_READ, wr_id=2, flags=flags)) == (EINVAL, 2)
    pair.b.post_recv(Recv(1))
    pair.a.post_send(Send(3, pieces=((0, granted),), flags=flags))
    assert pair.a.sent()[0].ok
    assert pair.b.received()[0].byte_len == granted


def test_an_overrun_of_the_senders_queue(pair: Pair) -> None:
    pair.connect(Options(send_wr=4096, send_cqe=1))
    for _ in range(4):
        pair.a.post_send(*(pair.remote(e.IBV_WR_RDMA_WRITE, wr_id=i) for i in range(64)))
    assert pair.a.async_event() == e.IBV_EVENT_CQ_ERR
    assert pair.a.poll_error("send") == EIO
    pair.a.wait_state(int(e.IBV_QPS_ERR))


def test_an_overrun_of_the_receivers_queue(apart: Pair) -> None:
    apart.connect(Options(), Options(recv_wr=256, recv_cqe=1))
    apart.b.post_recv(*(Recv(i) for i in range(200)))
    for i in range(200):
        apart.a.post_send(Send(i))
        done = apart.a.sent()[0]
        if not done.ok:
            break
    assert not done.ok, "the sender learns of it"
    # The queue pair has an event of its own, before or after.
    assert e.IBV_EVENT_CQ_ERR in (apart.b.async_event(), apart.b.async_event())
    assert apart.b.poll_error("recv") == EIO
    apart.b.wait_state(int(e.IBV_QPS_ERR))


def test_depth_one(pair: Pair) -> None:
    pair.connect(Options(send_wr=1, recv_wr=1, send_cqe=1, recv_cqe=1))
    for i in range(300):
        pair.b.post_recv(Recv(i))
        pair.a.post_send(Send(i))
        assert (pair.a.sent()[0].wr_id, pair.b.received()[0].wr_id) == (i, i)


def test_many_laps_of_odd_sized_queues(pair: Pair, seed: int) -> None:
    numbers = random.Random(seed)
    pair.connect(Options(send_wr=7, recv_wr=13, send_cqe=7, recv_cqe=13))
    sent = received = posted = 0
    for _ in range(300):
        room = numbers.randint(0, 13 - (posted - received))
        if room:
            pair.b.post_recv(*(Recv(posted + i) for i in range(room)))
            posted += room
        count = numbers.randint(0, min(7, posted - sent))
        if count:
            pair.a.post_send(*(Send(sent + i) for i in range(count)))
            assert [d.wr_id for d in pair.a.sent(count)] == list(range(sent, sent + count))
            sent += count
        some = numbers.randint(0, sent - received)
        assert [d.wr_id for d in pair.b.received(some)] == list(range(received, received + some))
        received += some
    assert sent > 100


def test_resizing_a_completion_queue_keeps_what_waits(here: Pair) -> None:
    here.connect(Options(RC, send_cqe=8))
    here.a.post_send(*(here.remote(e.IBV_WR_RDMA_WRITE, wr_id=i) for i in range(4)))
    cq = here.a._objects.send_cq
    cq.resize(4)
    assert cq.cqe >= 4
    assert [d.wr_id for d in here.a.sent(4)] == [0, 1, 2, 3]

"""Completion channels: one event an arming, none lost, and descriptors that work with poll, epoll and asyncio."""

import asyncio
import os
import random
import select
import threading

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs.cq import CQ, CQEX, CompChannel
from ffverbs.device import Context
from ffverbs.pyverbs_error import PyverbsRDMAError
from tests.conformance.pair import DEADLINE_S, Options, Pair, Recv, Send
from tests.conformance.paths import begin

WITH_CHANNEL = Options(channel=True)
SOLICITED = int(e.IBV_SEND_SOLICITED | e.IBV_SEND_SIGNALED)


def test_one_event_an_arming(pair: Pair) -> None:
    pair.connect(WITH_CHANNEL)
    pair.b.post_recv(*(Recv(i) for i in range(8)))
    pair.a.post_send(Send(0))
    assert pair.a.sent()[0].ok
    assert not pair.b.event_waits(), "nobody asked for an event"
    pair.b.arm("recv")
    assert not pair.b.event_waits(), "arming tells nothing of what was there before"
    pair.a.post_send(Send(1), Send(2))
    assert all(done.ok for done in pair.a.sent(2))
    assert pair.b.event_waits(DEADLINE_S)
    assert [d.wr_id for d in pair.b.wait_event("recv")] == [0, 1, 2]
    pair.a.post_send(Send(3))
    assert pair.a.sent()[0].ok
    assert not pair.b.event_waits(), "an arming is good for one event"


def test_senders_are_told_as_well(pair: Pair) -> None:
    pair.connect(WITH_CHANNEL)
    pair.a.arm("send")
    pair.a.post_send(pair.remote(e.IBV_WR_RDMA_WRITE, wr_id=5))
    assert [d.wr_id for d in pair.a.wait_event("send")] == [5]


def test_solicited_events_only(pair: Pair) -> None:
    pair.connect(WITH_CHANNEL)
    pair.b.post_recv(*(Recv(i) for i in range(4)))
    pair.b.arm("recv", solicited_only=True)
    pair.a.post_send(Send(0))
    assert pair.a.sent()[0].ok
    assert not pair.b.event_waits()
    pair.a.post_send(Send(1, flags=SOLICITED))
    assert [d.wr_id for d in pair.b.wait_event("recv")] == [0, 1]
    pair.b.arm("recv", solicited_only=True)
    pair.a.post_send(pair.remote(e.IBV_WR_RDMA_WRITE_WITH_IMM, wr_id=2, flags=SOLICITED))
    assert [d.wr_id for d in pair.b.wait_event("recv")] == [2]


def test_errors_count_as_solicited(pair: Pair) -> None:
    pair.connect(WITH_CHANNEL)
    pair.b.post_recv(Recv(1, ((0, 1),)))
    pair.b.arm("recv", solicited_only=True)
    pair.a.post_send(Send(1))
    assert pair.b.wait_event("recv")[0].status == e.IBV_WC_LOC_LEN_ERR


def test_flushes_wake_sleepers(pair: Pair) -> None:
    pair.connect(WITH_CHANNEL)
    pair.b.post_recv(Recv(1))
    pair.b.arm("recv")
    waiting = begin(pair.b, "wait_event", "recv")
    if pair.path in ("self", "contexts"):
        pair.b.modify(int(e.IBV_QPS_ERR))
    else:
        pair.a.post_send(Send(1, int(e.IBV_WR_RDMA_WRITE), remote=pair.to_b.addr, rkey=1))
    assert waiting()[0].status == e.IBV_WC_WR_FLUSH_ERR


def test_a_sleeper_is_woken_from_the_other_side(pair: Pair) -> None:
    pair.connect(WITH_CHANNEL)
    for i in range(20):
        pair.b.post_recv(Recv(i))
        pair.b.arm("recv")
        waiting = begin(pair.b, "wait_event", "recv")
        pair.a.post_send(Send(i))
        assert [d.wr_id for d in waiting()] == [i]
        assert pair.a.sent()[0].ok


def test_no_wake_up_is_lost(pair: Pair, seed: int) -> None:
    """The receiver arms, polls, and sleeps at any moment of the sender's; its every sleep must end."""
    numbers = random.Random(seed)
    total = 600
    pair.connect(Options(channel=True, recv_wr=32, send_wr=32))
    pair.b.post_recv(*(Recv(i) for i in range(32)))
    receiving = begin(pair.b, "receive_by_events", total)
    sent = 0
    while sent < total:
        count = min(numbers.choice((1, 1, 1, 2, 5, 16)), total - sent)
        pair.a.post_send(*(Send(sent + i) for i in range(count)))
        assert all(d.ok for d in pair.a.sent(count))
        sent += count
        for _ in range(numbers.randint(0, 300)):
            pass
    seen = receiving()
    assert len(seen) == total
    assert seen == [i % 32 for i in range(total)], "every receive in turn"


def channel_of(pair: Pair) -> tuple[CompChannel, CQ | CQEX]:
    channel = pair.b._objects.channel
    assert channel is not None
    return channel, pair.b._objects.recv_cq


def test_poll_and_epoll(here: Pair) -> None:
    here.connect(WITH_CHANNEL)
    channel, cq = channel_of(here)
    poller = select.poll()
    poller.register(channel.fd, select.POLLIN)
    with select.epoll() as epoll:
        epoll.register(channel.fd, select.EPOLLIN | select.EPOLLET)
        for i in range(3):
            cq.req_notify()
            assert poller.poll(0) == []
            assert epoll.poll(0) == []
            here.b.post_recv(Recv(i))
            here.a.post_send(Send(i))
            assert poller.poll(DEADLINE_S * 1000) == [(channel.fd, select.POLLIN)]
            assert epoll.poll(DEADLINE_S) == [(channel.fd, select.EPOLLIN)]
            channel.get_cq_event(cq)
            cq.ack_events(1)
            assert here.b.received()[0].wr_id == i


def test_asyncio(here: Pair) -> None:
    here.connect(WITH_CHANNEL)
    channel, cq = channel_of(here)

    async def receive(count: int) -> list[int]:
        loop = asyncio.get_running_loop()
        seen: list[int] = []
        readable = asyncio.Event()
        loop.add_reader(channel.fd, readable.set)
        cq.req_notify()
        while len(seen) < count:
            await readable.wait()
            readable.clear()
            channel.get_cq_event(cq)
            cq.ack_events(1)
            cq.req_notify()
            seen += [d.wr_id for d in here.b.poll_now("recv")]
        loop.remove_reader(channel.fd)
        return seen

    async def send(count: int) -> None:
        for i in range(count):
            here.a.post_send(Send(i))
            await asyncio.sleep(0)

    async def both() -> list[int]:
        return (await asyncio.wait_for(asyncio.gather(receive(10), send(10)), DEADLINE_S))[0]

    here.b.post_recv(*(Recv(i) for i in range(10)))
    assert asyncio.run(both()) == list(range(10))


def test_a_descriptor_that_does_not_block(here: Pair) -> None:
    here.connect(WITH_CHANNEL)
    channel, cq = channel_of(here)
    os.set_blocking(channel.fd, False)
    with pytest.raises(PyverbsRDMAError) as caught:
        channel.get_cq_event(cq)
    assert caught.value.error_code == 11  # EAGAIN


def test_two_queues_of_one_channel(here: Pair) -> None:
    here.connect(WITH_CHANNEL)
    channel, cq = channel_of(here)
    other = here.b._objects.send_cq
    other.req_notify()
    here.b.post_send(Send(1, int(e.IBV_WR_RDMA_WRITE), remote=here.to_a.addr, rkey=here.to_a.rkey))
    with pytest.raises(PyverbsRDMAError, match="unexpected CQ"):
        channel.get_cq_event(cq)
    other.ack_events(1)
    cq.req_notify()
    here.b.post_recv(Recv(1))
    here.a.post_send(Send(1))
    channel.get_cq_event(cq)
    cq.ack_events(1)


def test_destroying_waits_for_acknowledgement_elsewhere(here: Pair) -> None:
    """Events taken through the queue are acknowledged by closing it, so that nobody waits for ever."""
    here.connect(WITH_CHANNEL)
    channel, cq = channel_of(here)
    cq.req_notify()
    here.b.post_recv(Recv(1))
    here.a.post_send(Send(1))
    channel.get_cq_event(cq)
    closing = threading.Thread(target=cq.close)
    closing.start()
    closing.join(DEADLINE_S)
    assert not closing.is_alive()


def test_arming_without_a_channel(here: Pair) -> None:
    here.connect()
    with pytest.raises(PyverbsRDMAError, match="no completion channel"):
        here.b.arm("recv")


def test_async_events_wait_for_nobody(node_directory: object) -> None:
    with Context(name="ffv0") as ctx:
        from ffverbs._native import lib

        descriptor = lib.ffv_async_fd(ctx._live())
        assert select.select([descriptor], [], [], 0)[0] == []
        os.set_blocking(descriptor, False)
        with pytest.raises(PyverbsRDMAError) as caught:
            ctx.get_async_event()
        assert caught.value.error_code == 11

"""Posting, polling, lists and events, through the Python interface, beside what an empty call costs there."""

import select
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.micro.ends import DEPTH, Pair, connect, make_qp
from ffverbs._native import lib
from ffverbs.cq import CQ, CompChannel

LIST = 64
ROUNDS = 2000


def drain(cq: CQ, count: int) -> None:
    """Take `count` completions, which are there."""
    found, completions = cq.poll(count)
    assert found == count
    assert all(wc.status == 0 for wc in completions)


def test_empty_call(benchmark: BenchmarkFixture, pair: Pair) -> None:
    """A cffi call that does next to nothing: what every other one cannot go below."""
    call: Any = lib.ffv_cq_cqe
    benchmark(call, pair.here.cq._handle)


def test_post(benchmark: BenchmarkFixture, pair: Pair) -> None:
    wr = pair.write(8)
    benchmark.pedantic(pair.sender.post_send, (wr,), setup=lambda: drain_any(pair.here.cq), rounds=ROUNDS)


def drain_any(cq: CQ) -> None:
    """Take whatever is there."""
    while cq.poll(DEPTH)[0]:
        pass


def test_post_recv(benchmark: BenchmarkFixture, pair: Pair) -> None:
    wr = pair.receive()
    benchmark.pedantic(pair.receiver.post_recv, (wr,), rounds=DEPTH)


def test_poll_empty(benchmark: BenchmarkFixture, pair: Pair) -> None:
    benchmark(pair.here.cq.poll)


def test_poll_one(benchmark: BenchmarkFixture, pair: Pair) -> None:
    wr = pair.write(8)

    def post() -> None:
        pair.sender.post_send(wr)

    found, _ = benchmark.pedantic(pair.here.cq.poll, setup=post, rounds=ROUNDS)
    assert found == 1


@pytest.mark.parametrize("size_bytes", [8, 4096, 65536])
def test_write_and_poll(benchmark: BenchmarkFixture, pair: Pair, size_bytes: int) -> None:
    wr, post, poll = pair.write(size_bytes), pair.sender.post_send, pair.here.cq.poll

    def both() -> int:
        post(wr)
        return poll()[0]

    assert benchmark(both) == 1


@pytest.mark.parametrize("size_bytes", [8, 4096])
def test_send_receive_and_poll_both(benchmark: BenchmarkFixture, pair: Pair, size_bytes: int) -> None:
    send, receive = pair.send(size_bytes), pair.receive()

    def message() -> int:
        pair.receiver.post_recv(receive)
        pair.sender.post_send(send)
        return pair.here.cq.poll()[0] + pair.there.cq.poll()[0]

    assert benchmark(message) == 2


def test_list_of_64(benchmark: BenchmarkFixture, pair: Pair) -> None:
    chain = pair.writes(LIST)

    def run() -> None:
        pair.sender.post_send(chain)
        drain(pair.here.cq, LIST)

    benchmark(run)


def test_event(benchmark: BenchmarkFixture, pair: Pair) -> None:
    """Arm, complete, find the channel readable, take the event, acknowledge, poll: no sleep in it."""
    channel = CompChannel(pair.here.context)
    cq = CQ(pair.here.context, 2 * DEPTH, None, channel)
    sender, receiver = make_qp(pair.here, cq), make_qp(pair.there, pair.there.cq)
    connect(pair.here, sender, pair.there, receiver)
    wr = pair.write(8)
    readable = select.poll()
    readable.register(channel.fd, select.POLLIN)

    def run() -> None:
        cq.req_notify()
        sender.post_send(wr)
        assert readable.poll(10_000)
        channel.get_cq_event(cq)
        cq.ack_events(1)
        drain(cq, 1)

    benchmark(run)

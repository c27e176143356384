"""Completions as Python objects: how many a poll makes, what they are, what they cost, and that none stays behind."""

import gc
import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs.cq import CQ, WC
from ffverbs.pyverbs_error import PyverbsError
from tests.conformance.pair import Options, Pair

DEPTH = 400


@pytest.fixture(name="queue")
def queue_fixture(here: Pair) -> CQ:
    """The queue of the sender of `here`, connected."""
    here.connect(Options(send_wr=DEPTH, send_cqe=2 * DEPTH))
    queue = here.a._objects.send_cq
    assert isinstance(queue, CQ)
    return queue


def write(pair: Pair, count: int) -> None:
    """Post `count` writes of 8 bytes; between two contexts of a process they are done when the call returns."""
    pair.a.post_send(*(pair.remote(e.IBV_WR_RDMA_WRITE, 8, wr_id=i) for i in range(count)))


@pytest.mark.parametrize("entries", [1, 2, 32, 33, 256, 257, 10_000, 2**31 - 1])
def test_a_poll_takes_as_many_as_are_asked_for_in_order(entries: int, here: Pair, queue: CQ) -> None:
    write(here, DEPTH)
    found: list[WC] = []
    while len(found) < DEPTH:
        expected = min(entries, DEPTH - len(found))
        count, some = queue.poll(entries)
        assert count == len(some) == expected
        found += some
    assert [wc.wr_id for wc in found] == list(range(DEPTH))
    assert queue.poll(entries) == (0, [])


def test_numbers_that_are_no_ints(here: Pair, queue: CQ) -> None:
    write(here, 4)
    assert queue.poll(True)[0] == 1
    assert queue.poll(2.0)[0] == 2  # type: ignore[arg-type] # pyverbs converts any number
    for wrong, error in (("1", TypeError), (None, TypeError), (1 << 31, OverflowError), (1 << 70, OverflowError)):
        with pytest.raises(error):
            queue.poll(wrong)  # type: ignore[arg-type]
    assert queue.poll(9)[0] == 1, "a refused poll takes nothing"
    queue.close()
    with pytest.raises(PyverbsError, match="CQ is closed"):
        queue.poll()
    with pytest.raises(PyverbsError, match="CQ is closed"):
        queue.poll(9)


def test_polled_completions_are_ordinary_objects(here: Pair, queue: CQ) -> None:
    write(here, 2)
    first, second = queue.poll(2)[1]
    assert type(first) is WC
    assert weakref.ref(first)() is first
    assert (first.wr_id, second.wr_id, first.qp_num) == (0, 1, here.a._objects.qps[0].qp_num)
    assert first.status is e.IBV_WC_SUCCESS
    assert first.opcode is e.IBV_WC_RDMA_WRITE
    first.wr_id, first.status = (1 << 64) - 1, 13
    assert (first.wr_id, first.status, second.wr_id) == ((1 << 64) - 1, e.IBV_WC_RNR_RETRY_EXC_ERR, 1)
    with pytest.raises(AttributeError):
        del first.wr_id
    gone = weakref.ref(first)
    del first
    assert gone() is None


@pytest.fixture
def no_collection() -> Iterator[None]:
    """What earlier tests left is collected before, and nothing meanwhile."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
def test_completions_that_are_dropped_leave_nothing(here: Pair, queue: CQ) -> None:
    kept = [WC, queue, here.a._objects.qps[0]._handle, e.IBV_WC_SUCCESS, queue._handle]
    before = [sys.getrefcount(thing) for thing in kept]
    for _ in range(20):
        write(here, 100)
        for wc in queue.poll(100)[1]:
            assert wc.status is e.IBV_WC_SUCCESS
        with pytest.raises(TypeError):
            queue.poll("1")  # type: ignore[arg-type]
    del wc
    assert [sys.getrefcount(thing) for thing in kept] == before


@pytest.mark.usefixtures("no_collection")
def test_a_call_runs_one_python_function_whatever_it_polls(here: Pair, queue: CQ) -> None:
    """What Python adds to the engine must not grow unseen: its time cannot be tested, its calls can be counted."""
    qp, chain = here.a._objects.qps[0], here.a._send_wr(here.remote(e.IBV_WR_RDMA_WRITE, 8, wr_id=1))
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, arg: Any) -> None:
        calls[event] += 1

    write(here, 64)
    sys.setprofile(count)
    try:
        qp.post_send(chain)
        queue.poll(64)
        queue.poll()
    finally:
        sys.setprofile(None)
    calls["c_call"] -= 1  # of setprofile itself
    assert (calls["call"], calls["c_call"]) == (3, 3)

"""Objects are closed in any order, with work outstanding and completions unpolled, and leave nothing behind."""

import itertools
import os
import random
from collections.abc import Callable
from errno import EBUSY
from pathlib import Path

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs._native import lib
from ffverbs.addr import AH
from ffverbs.device import Context
from ffverbs.mr import MR, MW
from ffverbs.pyverbs_error import PyverbsRDMAError
from tests.conformance.pair import ALL_ACCESS, Options, Pair, Recv, Send
from tests.conformance.test_fork import works

FULL = Options(channel=True, srq_wr=4, qps=2)


def parts(pair: Pair) -> list[Callable[[], None]]:
    """How to close each object of the receiving side."""
    o = pair.b._objects
    window = MW(o.pd, e.IBV_MW_TYPE_1)
    handle = AH(o.pd, attr=pair.b.attributes(pair.to_a).ah_attr)
    assert o.srq is not None
    assert o.channel is not None
    objects = [*o.qps, o.send_cq, o.recv_cq, o.srq, o.channel, o.pd, window, handle, pair.b._memory, o.ctx]
    return [closable.close for closable in objects]


def test_any_order(here: Pair, seed: int) -> None:
    numbers = random.Random(seed)
    for _ in range(40):
        here.connect(FULL)
        here.b.post_recv(*(Recv(i) for i in range(4)))
        here.a.post_send(Send(1), Send(2))
        closers = parts(here)
        numbers.shuffle(closers)
        for close in closers:
            close()
        here.b._o = here.b._mr = None
        here.a.close()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_nothing_is_left_behind(here: Pair, node_directory: Path) -> None:
    here.connect(FULL)
    here.close()
    before = open_files()
    for _ in range(5):
        here.connect(FULL)
        here.b.post_recv(Recv(1))
        here.a.post_send(Send(1))
        here.close()
    assert open_files() <= before
    assert [name for name in os.listdir(node_directory) if not name.startswith(".")] == []


def test_engine_objects_in_use_stay(here: Pair) -> None:
    """The engine refuses what the package, which closes the children first, never asks of it."""
    here.connect(FULL)
    o = here.b._objects
    assert o.srq is not None
    assert o.channel is not None
    assert lib.ffv_dealloc_pd(o.pd._live()) == -EBUSY
    assert lib.ffv_destroy_cq(o.recv_cq._live()) == -EBUSY
    assert lib.ffv_destroy_srq(o.srq._live()) == -EBUSY
    assert lib.ffv_destroy_comp_channel(o.channel._live()) == -EBUSY
    assert lib.ffv_close_device(o.ctx._live()) == -EBUSY
    here.b.post_recv(Recv(1))
    here.a.post_send(Send(1))
    assert here.a.sent()[0].ok
    assert here.b.received()[0].ok


def test_completions_of_a_destroyed_queue_pair_are_gone(apart: Pair) -> None:
    apart.connect(Options(qps=2))
    for qp in (0, 1):
        apart.b.post_recv(Recv(10 + qp), qp=qp)
        apart.a.post_send(Send(qp), qp=qp)
    assert len(apart.a.sent(2)) == 2
    apart.b.destroy_qp(0)
    assert [d.wr_id for d in apart.b.received()] == [11]
    assert apart.b.poll_now("recv") == []


def test_destroying_with_requests_outstanding(apart: Pair) -> None:
    apart.connect(Options(qps=2))
    apart.a.post_send(*(Send(i) for i in range(5)), qp=0)
    apart.a.wait_until_tried(1)
    apart.a.destroy_qp(0)
    apart.b.post_recv(Recv(1), qp=0)
    if not apart.elsewhere:  # what is under way to another host may arrive there
        assert apart.b.poll_now("recv") == [], "what was not sent is gone with its queue pair"
    apart.b.post_recv(Recv(2), qp=1)
    apart.a.post_send(Send(1), qp=1)
    assert apart.a.sent()[0].ok
    assert 2 in [done.wr_id for done in apart.b.received()] + [done.wr_id for done in apart.b.poll_now("recv")]


def test_many_queue_pairs_come_and_go(apart: Pair) -> None:
    apart.connect()
    for i in range(1, 60):
        apart.a.new_qp(Options())
        apart.b.new_qp(Options())
        to_a, to_b = apart.a.address_of(i), apart.b.address_of(i)
        apart.a.connect(to_b, i)
        apart.b.connect(to_a, i)
        apart.b.post_recv(Recv(i), qp=i)
        apart.a.post_send(Send(i), qp=i)
        assert apart.a.sent()[0].ok
        assert apart.b.received()[0].wr_id == i
        apart.a.destroy_qp(i)
        apart.b.destroy_qp(i)


def test_numbers_of_queue_pairs_do_not_come_back_soon(here: Pair) -> None:
    here.create()
    seen = set()
    for _ in range(200):
        number = here.a.new_qp(Options())
        assert number not in seen
        seen.add(number)
        here.a.destroy_qp(-1)


def test_a_context_after_another_takes_its_place(node_directory: Path) -> None:
    names = set()
    for _ in range(20):
        with Context(name="ffv0"):
            names.add(tuple(sorted(os.listdir(node_directory))))
    assert len(names) <= 2, "names of closed contexts are free again"


def test_a_failed_close_leaves_the_object_usable(here: Pair) -> None:
    here.connect(Options(access=ALL_ACCESS | int(e.IBV_ACCESS_MW_BIND)))
    here.b.bind_window(int(e.IBV_MW_TYPE_1), 0, 64, int(e.IBV_ACCESS_REMOTE_READ))
    with pytest.raises(PyverbsRDMAError):
        here.b._memory.close()
    assert here.b._memory.lkey == here.to_b.lkey
    works(here)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_three_regions_over_one_buffer(here: Pair, order: tuple[int, int, int]) -> None:
    here.connect()
    o = here.b._objects
    whole = MR(o.pd, 4 * 4096, ALL_ACCESS)
    regions = [MR(o.pd, 8192, ALL_ACCESS, whole.buf + 4096 * i) for i in range(3)]
    for which in order:
        here.a.write(b"still here")
        remote = whole.buf + 4096 * which + 100
        here.a.post_send(
            Send(1, int(e.IBV_WR_RDMA_WRITE), ((0, 10),), remote=remote, rkey=regions[which].rkey),
            Send(2, int(e.IBV_WR_RDMA_READ), ((512, 10),), remote=remote, rkey=whole.rkey),
        )
        assert [d.status for d in here.a.sent(2)] == [0, 0]
        assert here.a.read(10, 512) == b"still here"
        regions[which].close()
        assert whole.read(10, 4096 * which + 100) == b"still here"

"""Every call may be made from several threads at once: posting, polling, making and closing."""

import threading
from collections import Counter
from collections.abc import Callable

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs.cq import CQ
from ffverbs.device import Context
from ffverbs.mr import MR
from ffverbs.pd import PD
from ffverbs.pyverbs_error import PyverbsRDMAError
from ffverbs.qp import QP, QPCap, QPInitAttr
from tests.conformance.pair import ALL_ACCESS, DEADLINE_S, Done, Options, Pair, Recv, Send
from tests.conformance.paths import begin

THREADS = 4


def run_together(act: Callable[[int], None], count: int = THREADS) -> None:
    """Call `act` with 0, 1, ... in as many threads at once; the first failure is raised."""
    failures: list[BaseException] = []
    start = threading.Barrier(count)

    def body(number: int) -> None:
        try:
            start.wait(DEADLINE_S)
            act(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=body, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * DEADLINE_S)
        assert not thread.is_alive(), "a thread hangs"
    if failures:
        raise failures[0]


def test_threads_post_on_one_queue_pair(here: Pair) -> None:
    each = 400
    here.connect(Options(send_wr=2048, send_cqe=4096, recv_wr=2048, recv_cqe=4096))
    here.b.post_recv(*(Recv(i) for i in range(THREADS * each)))

    def act(number: int) -> None:
        for i in range(each):
            here.a.post_send(Send(number * each + i))

    run_together(act)
    sent = [d.wr_id for d in here.a.sent(THREADS * each)]
    assert sorted(sent) == list(range(THREADS * each))
    for number in range(THREADS):
        mine = [wr_id for wr_id in sent if wr_id // each == number]
        assert mine == sorted(mine), "a thread's requests keep their order"
    assert [d.wr_id for d in here.b.received(THREADS * each)] == list(range(THREADS * each))


def test_threads_poll_one_queue(here: Pair) -> None:
    total = 2000
    here.connect(Options(send_wr=2048, send_cqe=4096))
    found: list[list[Done]] = [[] for _ in range(THREADS)]
    done = threading.Event()

    def act(number: int) -> None:
        if number == 0:
            for i in range(total):
                here.a.post_send(here.remote(e.IBV_WR_RDMA_WRITE, wr_id=i))
            done.set()
        while sum(map(len, found)) < total:
            found[number] += here.a.poll_now("send", 3)

    run_together(act)
    assert done.is_set()
    assert Counter(d.wr_id for some in found for d in some) == Counter(range(total))
    assert all(d.ok for some in found for d in some)


def test_threads_send_both_ways(here: Pair) -> None:
    here.connect(Options(send_wr=64, recv_wr=64))
    for side in (here.a, here.b):
        side.post_recv(*(Recv(i) for i in range(64)))
    sides = (here.a, here.b)

    def act(number: int) -> None:
        side = sides[number]
        received = 0

        def receive(done: list[Done]) -> int:
            assert all(d.ok for d in done), done
            for d in done:
                side.post_recv(Recv(d.wr_id))
            return len(done)

        for i in range(1500):
            side.post_send(Send(i))
            assert side.sent()[0].ok
            received += receive(side.poll_now("recv"))
        while received < 1500:
            received += receive(side.received())

    run_together(act, 2)


def test_atomics_of_several_threads_are_atomic(here: Pair) -> None:
    each = 500
    here.connect(Options(qps=THREADS, send_wr=512, send_cqe=4096))

    def act(number: int) -> None:
        add = here.remote(e.IBV_WR_ATOMIC_FETCH_AND_ADD, 0, pieces=((8 * number, 8),), compare_add=1)
        for _ in range(each):
            here.a.post_send(add, qp=number)

    run_together(act)
    assert all(d.ok for d in here.a.sent(THREADS * each))
    assert int.from_bytes(here.b.read(8), "little") == THREADS * each


def test_atomics_from_two_sides_are_atomic(apart: Pair) -> None:
    """The owner of a word adds to it through a loop while the peer does."""
    apart.connect(Options(qps=2))
    apart.b.modify(int(e.IBV_QPS_RESET), qp=1)
    apart.b.connect(apart.to_b, 1)
    adding = begin(apart.b, "add_often", apart.to_b, 1000, 1)
    apart.a.add_often(apart.to_b, 1000, 0)
    adding()
    assert int.from_bytes(apart.b.read(8), "little") == 2000


def test_objects_are_made_and_closed_by_several_threads(node_directory: object) -> None:
    with Context(name="ffv0") as ctx:

        def act(number: int) -> None:
            for _ in range(30):
                with PD(ctx) as pd, CQ(ctx, 16) as cq, MR(pd, 4096 * (number + 1), ALL_ACCESS) as mr:
                    cap = QPCap(max_send_wr=4, max_recv_wr=4)
                    with QP(pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=cq, rcq=cq, cap=cap)) as queue_pair:
                        assert queue_pair.qp_num
                    mr.write(b"mine", 4)

        run_together(act)


def test_contexts_are_opened_and_closed_by_several_threads(node_directory: object) -> None:
    def act(number: int) -> None:
        for _ in range(10):
            with Context(name="ffv0") as ctx:
                assert ctx.query_device().max_qp > 0

    run_together(act)


def test_one_thread_may_reset_what_another_posts_on(here: Pair) -> None:
    here.connect()

    def act(number: int) -> None:
        for _ in range(200):
            if number == 0:
                here.a.modify(int(e.IBV_QPS_ERR))
                here.a.modify(int(e.IBV_QPS_RESET))
                here.a.connect(here.to_b)
            else:
                try:
                    here.a.post_send(here.remote(e.IBV_WR_RDMA_WRITE))
                except PyverbsRDMAError as error:
                    assert error.error_code in (12, 22)
                here.a.poll_now("send")

    run_together(act, 2)
    here.a.modify(int(e.IBV_QPS_RESET))
    here.a.connect(here.to_b)
    here.a.poll_now("send")
    here.a.post_send(here.remote(e.IBV_WR_RDMA_WRITE, wr_id=9))
    assert [(d.wr_id, d.ok) for d in here.a.sent()] == [(9, True)]


def test_destroying_while_the_other_side_sends(apart: Pair) -> None:
    apart.connect(Options(recv_wr=64), Options(recv_wr=64), retry_cnt=1, timeout=8, rnr_retry=1, min_rnr_timer=1)
    sending = begin(apart.a, "write_until_refused", apart.remote(e.IBV_WR_RDMA_WRITE, wr_id=5, pieces=((0, 4096),)))
    apart.b.destroy_qp()
    status, _ = sending()
    assert status == e.IBV_WC_RETRY_EXC_ERR


@pytest.mark.parametrize("lap", range(3))
def test_closing_the_context_while_the_other_side_sends(apart: Pair, lap: int) -> None:
    apart.connect(retry_cnt=1, timeout=8)
    sending = begin(apart.a, "write_until_refused", apart.remote(e.IBV_WR_RDMA_WRITE, wr_id=lap, pieces=((0, 4096),)))
    apart.b.close()
    status, _ = sending()
    assert status in (e.IBV_WC_RETRY_EXC_ERR, e.IBV_WC_REM_ACCESS_ERR)

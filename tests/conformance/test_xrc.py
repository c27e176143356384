"""XRC: requests name a shared receive queue of the responder's domain, and complete where that queue completes."""

import os
from collections.abc import Iterator
from errno import EAGAIN, EBADF, EBUSY, EINVAL
from pathlib import Path

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs._native import lib
from ffverbs.device import Context
from ffverbs.pyverbs_error import PyverbsRDMAError
from ffverbs.xrcd import XRCD, XRCDInitAttr
from tests.conformance.pair import ALL_ACCESS, XRC, Options, Pair, Peer, Recv, Send

ONE = Options(XRC)
THREE = Options(XRC, qps=3, recv_cqe=128)
BOTH = int(e.IBV_XRCD_INIT_ATTR_FD | e.IBV_XRCD_INIT_ATTR_OFLAGS)
ATOMIC = int(e.IBV_WR_ATOMIC_FETCH_AND_ADD)
WRITE, WRITE_IMM, READ = int(e.IBV_WR_RDMA_WRITE), int(e.IBV_WR_RDMA_WRITE_WITH_IMM), int(e.IBV_WR_RDMA_READ)


def test_several_queue_pairs_send_to_one_queue(pair: Pair) -> None:
    pair.connect(THREE)
    pair.b.post_recv(*(Recv(i, ((64 * i, 64),)) for i in range(9)))
    for i in range(9):
        pair.a.write(b"message%d" % i)
        pair.a.post_send(Send(i, flags=int(e.IBV_SEND_SIGNALED)), qp=i % 3)
        assert pair.a.sent()[0].ok
    done = pair.b.received(9)
    assert [(d.wr_id, d.ok, d.opcode, d.byte_len) for d in done] == [(i, True, int(e.IBV_WC_RECV), 8) for i in range(9)]
    assert [d.qp_num for d in done] == [pair.to_b.targets[i % 3] for i in range(9)]
    assert {(d.src_qp, d.flags) for d in done} == {(0, 0)}
    assert [pair.b.read(8, 64 * i) for i in range(9)] == [b"message%d" % i for i in range(9)]


def test_a_list_of_sends_and_immediate_data(pair: Pair) -> None:
    pair.connect(ONE)
    pair.b.post_recv(*(Recv(i) for i in range(12)))
    sends = [Send(i, int(e.IBV_WR_SEND_WITH_IMM), imm=i) for i in range(11)]
    write = pair.remote(WRITE_IMM, 4096, wr_id=11, imm=11)
    pair.a.write(b"contents")
    pair.a.post_send(*sends, write)
    assert [(d.wr_id, d.ok) for d in pair.a.sent(12)] == [(i, True) for i in range(12)]
    done = pair.b.received(12)
    assert [(d.wr_id, d.imm, d.flags) for d in done] == [(i, i, int(e.IBV_WC_WITH_IMM)) for i in range(12)]
    assert done[11].opcode == e.IBV_WC_RECV_RDMA_WITH_IMM
    assert pair.b.read(8, 4096) == b"contents"


def test_rdma_and_atomics(pair: Pair) -> None:
    pair.connect(ONE)
    pair.a.write(b"to be written", 0)
    pair.b.write(b"to be read", 8192)
    pair.b.write((41).to_bytes(8, "little"), 512)
    pair.a.post_send(
        pair.remote(WRITE, 4096, wr_id=1, pieces=((0, 13),)),
        pair.remote(READ, 8192, wr_id=2, pieces=((1024, 10),)),
        pair.remote(ATOMIC, 512, wr_id=3, pieces=((2048, 8),), compare_add=1),
    )
    assert [(d.wr_id, d.ok) for d in pair.a.sent(3)] == [(1, True), (2, True), (3, True)]
    assert pair.b.read(13, 4096) == b"to be written"
    assert pair.a.read(10, 1024) == b"to be read"
    assert int.from_bytes(pair.a.read(8, 2048), "little") == 41
    assert int.from_bytes(pair.b.read(8, 512), "little") == 42


def test_both_directions_and_long_messages(apart: Pair) -> None:
    length = 1 << 20
    apart.connect(Options(XRC, length=2 * length))
    for sender, receiver, seed in ((apart.a, apart.b, 1), (apart.b, apart.a, 2)):
        whole = ((length, length),)
        receiver.post_recv(Recv(seed, whole))
        expected = sender.fill(length, seed)
        sender.post_send(Send(seed, pieces=((0, length),)))
        assert sender.sent()[0].ok
        assert receiver.received()[0].byte_len == length
        assert receiver.checksum(length, length) == expected


def test_a_sender_waits_for_a_receive(apart: Pair) -> None:
    apart.connect(THREE)
    for qp in range(3):
        apart.a.post_send(Send(qp), qp=qp)
    assert apart.a.poll_now("send") == []
    apart.b.post_recv(*(Recv(i) for i in range(3)))
    assert {d.wr_id for d in apart.a.sent(3)} == {0, 1, 2}
    assert sorted(d.qp_num for d in apart.b.received(3)) == sorted(apart.to_b.targets)


def test_patience_for_a_receive_ends(apart: Pair) -> None:
    apart.connect(ONE, rnr_retry=2)
    apart.a.post_send(Send(1), Send(2))
    done = apart.a.sent(2)
    assert [d.status for d in done] == [e.IBV_WC_RNR_RETRY_EXC_ERR, e.IBV_WC_WR_FLUSH_ERR]
    assert apart.b.target_state() == e.IBV_QPS_RTS


@pytest.mark.parametrize("opcode", [int(e.IBV_WR_SEND), WRITE, READ], ids=["send", "write", "read"])
def test_a_queue_that_is_not_there(apart: Pair, opcode: int) -> None:
    apart.connect(ONE)
    apart.b.post_recv(Recv(1))
    apart.a.post_send(apart.remote(opcode, srqn=apart.to_b.srqn + 1))
    assert apart.a.sent()[0].status == e.IBV_WC_REM_INV_REQ_ERR
    apart.a.wait_state(int(e.IBV_QPS_ERR))
    assert apart.b.async_event() == e.IBV_EVENT_QP_REQ_ERR
    assert apart.b.target_state() == e.IBV_QPS_ERR
    assert apart.b.poll_now("recv") == [], "the shared queue is not the failed queue pair's"


def test_a_queue_of_another_domain(here: Pair) -> None:
    here.connect(ONE)
    other = Peer()
    try:
        stranger = other.create(ONE)
        other.post_recv(Recv(1))
        here.a.post_send(Send(1, srqn=stranger.srqn))
        assert here.a.sent()[0].status == e.IBV_WC_REM_INV_REQ_ERR
        assert other.poll_now("recv") == []
    finally:
        other.close()


def test_errors_leave_the_shared_queue_to_the_others(apart: Pair) -> None:
    apart.connect(THREE)
    apart.b.post_recv(Recv(1, ((0, 4),)), Recv(2), Recv(3))
    apart.a.post_send(Send(1), qp=0)
    assert apart.a.sent()[0].status == e.IBV_WC_REM_INV_REQ_ERR
    failed = apart.b.received()[0]
    assert (failed.wr_id, failed.status, failed.qp_num) == (1, e.IBV_WC_LOC_LEN_ERR, apart.to_b.targets[0])
    apart.a.post_send(Send(2, WRITE, remote=apart.to_b.addr, rkey=1), qp=1)
    assert apart.a.sent()[0].status == e.IBV_WC_REM_ACCESS_ERR
    apart.a.post_send(Send(3), qp=2)
    assert apart.a.sent()[0].ok
    assert apart.b.received()[0].wr_id == 2
    assert [apart.b.target_state(qp) for qp in range(3)] == [e.IBV_QPS_ERR, e.IBV_QPS_ERR, e.IBV_QPS_RTS]


def test_keys_are_checked_against_the_shared_queues_domain(apart: Pair) -> None:
    apart.connect(ONE)
    elsewhere = apart.b.register_elsewhere(ALL_ACCESS)
    apart.a.post_send(Send(1, WRITE, remote=elsewhere.addr, rkey=elsewhere.rkey))
    assert apart.a.sent()[0].status == e.IBV_WC_REM_ACCESS_ERR


def test_completions_outlive_the_queue_pair_but_not_the_queue(apart: Pair) -> None:
    apart.connect(ONE)
    apart.b.post_recv(Recv(1), Recv(2))
    apart.a.post_send(Send(1), Send(2))
    assert all(d.ok for d in apart.a.sent(2))
    apart.b.destroy_target()
    assert apart.b.poll("recv")[0].wr_id == 1
    apart.b.destroy_srq()
    assert apart.b.poll_now("recv") == []


def test_a_limit_event(apart: Pair) -> None:
    apart.connect(ONE)
    apart.b.post_recv(*(Recv(i) for i in range(4)))
    apart.b.set_srq_limit(4)
    apart.a.post_send(Send(1))
    assert apart.b.async_event() == e.IBV_EVENT_SRQ_LIMIT_REACHED


def test_the_queue_is_resized(apart: Pair) -> None:
    apart.connect(THREE)
    apart.b.post_recv(*(Recv(i) for i in range(16)))
    assert apart.b.resize_srq(64) == 0
    apart.b.post_recv(*(Recv(i) for i in range(16, 64)))
    for i in range(64):
        apart.a.post_send(Send(i), qp=i % 3)
        assert apart.a.sent()[0].ok
    assert [d.wr_id for d in apart.b.received(64)] == list(range(64))


def test_receives_are_not_posted_to_queue_pairs(here: Pair) -> None:
    here.connect(ONE)
    for qp in (here.b._objects.qps[0], here.b._objects.targets[0]):
        with pytest.raises(PyverbsRDMAError) as caught:
            qp.post_recv(here.b._recv_wr(Recv(1)))
        assert caught.value.error_code == EINVAL
    with pytest.raises(PyverbsRDMAError) as caught:
        here.b._objects.targets[0].post_send(here.b._send_wr(Send(1)))
    assert caught.value.error_code == EINVAL


# ---- the domain of a file ------------------------------------------------------------------------------------------


@pytest.fixture(name="domain")
def domain_fixture(node_directory: Path) -> Iterator[str]:
    """Name of a file in the node directory."""
    path = node_directory / "domain"
    path.touch()
    yield path.name
    path.unlink()


def test_three_contexts_of_one_domain(here: Pair, domain: str) -> None:
    """The queue pair that requests arrive at and the queue they name may be of different contexts, even of different
    processes (see test_three_processes_of_one_domain)."""
    options = Options(XRC, domain=domain)
    here.connect(options)
    third = Peer()
    try:
        queue = third.create(options)
        here.a.write(b"over two")
        here.a.post_send(Send(1, srqn=queue.srqn))
        assert here.a.poll_now("send") == []
        third.post_recv(Recv(7))
        assert here.a.sent()[0].ok
        done = third.received()[0]
        assert (done.wr_id, done.qp_num) == (7, here.to_b.targets[0])
        assert third.read(8) == b"over two"
        here.a.post_send(Send(2, WRITE, remote=queue.addr + 64, rkey=queue.rkey, srqn=queue.srqn))
        assert here.a.sent()[0].ok
        assert third.read(8, 64) == b"over two"
    finally:
        third.close()
    here.a.post_send(Send(3, srqn=queue.srqn))
    assert here.a.sent()[0].status == e.IBV_WC_REM_INV_REQ_ERR


def open_domain(ctx: Context, fd: int, oflags: int = 0, mask: int = BOTH) -> XRCD:
    return XRCD(ctx, XRCDInitAttr(mask, oflags, fd))


def refused(ctx: Context, fd: int, oflags: int = 0, mask: int = BOTH) -> int:
    with pytest.raises(PyverbsRDMAError) as caught:
        open_domain(ctx, fd, oflags, mask)
    return caught.value.error_code


def test_how_domains_are_opened(node_directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "domain"
    fd = os.open(path, os.O_RDONLY | os.O_CREAT, 0o600)
    same = os.open(path, os.O_RDONLY)
    with Context(name="ffv0") as ctx, Context(name="ffv0") as other:
        assert refused(ctx, fd) == EAGAIN, "nobody has made it"
        first = open_domain(ctx, fd, os.O_CREAT | os.O_EXCL)
        assert refused(other, same, os.O_CREAT | os.O_EXCL) == EINVAL
        second, third = open_domain(other, same), open_domain(ctx, fd, os.O_CREAT)
        first.close()
        second.close()
        assert refused(other, same, os.O_CREAT | os.O_EXCL) == EINVAL
        third.close()
        assert refused(other, same) == EAGAIN, "it went with the last one"
        open_domain(other, same, os.O_CREAT | os.O_EXCL).close()
        os.close(fd)
        os.close(same)
        assert refused(ctx, fd, os.O_CREAT) == EBADF
        assert refused(ctx, -1, os.O_CREAT, int(e.IBV_XRCD_INIT_ATTR_FD)) == EINVAL
        assert refused(ctx, -1, os.O_APPEND) == EINVAL
        open_domain(ctx, -1, os.O_CREAT).close()


def test_a_domain_in_use_stays_open(here: Pair) -> None:
    here.connect(ONE)
    targets = here.b._objects.targets
    xrcd = next(parent for parent in targets[0]._parents if isinstance(parent, XRCD))
    assert lib.ffv_close_xrcd(xrcd._live()) == -EBUSY
    xrcd.close()
    assert targets[0]._handle is None
    assert here.b._objects.srq is not None
    assert here.b._objects.srq._handle is None

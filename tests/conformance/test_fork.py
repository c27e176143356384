"""fork and multiprocessing with a context open: the child owns nothing of it, and the parent is not disturbed."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from errno import EOWNERDEAD
from typing import Any, Literal

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs.device import Context
from ffverbs.fork import fork_init
from ffverbs.pyverbs_error import PyverbsError, PyverbsRDMAError
from tests.conformance.pair import DEADLINE_S, Options, Pair, Peer, Recv, Send

RTS = int(e.IBV_QPS_RTS)


def in_child(act: Callable[[], object]) -> None:
    """Call `act` in a fork child; what it raises is printed there and is a failure here."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            act()
            status = 0
        except BaseException as error:
            print(f"in the child: {error!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def works(pair: Pair) -> None:
    pair.b.post_recv(Recv(1))
    pair.a.post_send(Send(1))
    assert pair.a.sent()[0].ok
    assert pair.b.received()[0].ok


CALLS: dict[str, Callable[[Peer], object]] = {
    "post_send": lambda side: side.post_send(Send(1)),
    "post_recv": lambda side: side.post_recv(Recv(1)),
    "poll": lambda side: side.poll_now("send"),
    "arm": lambda side: side.arm("send"),
    "modify": lambda side: side.modify(RTS),
    "query device": lambda side: side._objects.ctx.query_device(),
    "register": lambda side: side.register(1),
    "async event": lambda side: side._objects.ctx.get_async_event(),
    "cq event": lambda side: side.wait_event("recv"),
    "new qp": lambda side: side.new_qp(Options()),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_of_a_child_fail_clearly(here: Pair, name: str) -> None:
    here.connect(Options(channel=True))

    def act() -> None:
        with pytest.raises(PyverbsRDMAError, match="fork") as caught:
            CALLS[name](here.a)
        assert caught.value.error_code == EOWNERDEAD

    in_child(act)
    works(here)


def test_a_child_may_close_what_it_inherited(here: Pair) -> None:
    here.connect(Options(channel=True))
    in_child(here.close)
    works(here)


def test_a_childs_end_is_not_the_parents(here: Pair) -> None:
    here.connect()
    in_child(lambda: None)
    in_child(here.a._objects.ctx.__del__)
    works(here)
    assert here.a.async_event(0) is None
    assert here.b.async_event(0) is None


def test_a_child_may_open_a_context_of_its_own_and_talk_to_its_parent(here: Pair) -> None:
    to_parent = here.a.create(Options())
    child_reads, parent_writes = os.pipe()
    parent_reads, child_writes = os.pipe()

    def child() -> None:
        side = Peer()
        me = side.create(Options())
        os.write(child_writes, f"{me.gid} {me.qpn} {me.addr} {me.rkey}\n".encode())
        side.connect(to_parent)
        side.post_recv(Recv(1))
        os.write(child_writes, b"ready\n")
        assert side.received()[0].ok
        assert side.read(9) == b"for child"
        side.close()

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child()
            status = 0
        finally:
            os._exit(status)
    with os.fdopen(parent_reads) as reads:
        gid, qpn, addr, rkey = reads.readline().split()
        to_child = to_parent.__class__(gid, (int(qpn),), int(addr), 65536, int(rkey), 0)
        here.a.connect(to_child)
        assert reads.readline() == "ready\n"
        here.a.write(b"for child")
        here.a.post_send(Send(1, pieces=((0, 9),)))
        assert here.a.sent()[0].ok
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    for descriptor in (child_reads, parent_writes, child_writes):
        os.close(descriptor)
    here.a.close()


def test_registered_memory_of_the_parent_survives_children(here: Pair) -> None:
    here.connect()
    here.b.write(b"parent's")
    for _ in range(5):
        in_child(lambda: here.b.read(8))
    here.a.write(b"from peer")
    here.a.post_send(here.remote(e.IBV_WR_RDMA_WRITE, 0, pieces=((0, 9),)))
    assert here.a.sent()[0].ok
    assert here.b.read(9) == b"from peer"


def inheritable_files() -> int:
    """How many descriptors a program that is started without closing any sees."""
    look = "import os; print(len(os.listdir('/proc/self/fd')))"
    command = [sys.executable, "-c", look]
    seen = subprocess.run(command, capture_output=True, check=True, close_fds=False, timeout=DEADLINE_S)
    return int(seen.stdout)


def test_programs_inherit_no_descriptor(here: Pair) -> None:
    before = inheritable_files()
    here.connect(Options(channel=True))
    assert inheritable_files() == before
    works(here)


def echo(connection: "multiprocessing.connection.Connection") -> None:
    """Open a context and send back what one can see of it: the target of multiprocessing's children."""
    with Context(name="ffv0") as ctx:
        connection.send(str(ctx.query_gid(1, 1)))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(here: Pair, method: Literal["fork", "spawn", "forkserver"]) -> None:
    here.connect()
    context: Any = multiprocessing.get_context(method)
    mine, theirs = context.Pipe()
    process = context.Process(target=echo, args=(theirs,))
    process.start()
    theirs.close()
    try:
        assert mine.poll(DEADLINE_S)
        assert mine.recv() == here.to_a.gid
        process.join(DEADLINE_S)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()
        mine.close()
    works(here)


def test_fork_init(here: Pair) -> None:
    fork_init()
    here.connect()
    in_child(lambda: None)
    works(here)


def test_a_closed_object_says_so(here: Pair) -> None:
    here.connect()
    queue_pair = here.a._objects.qps[0]
    queue_pair.close()
    with pytest.raises(PyverbsError, match="is closed"):
        queue_pair.post_send(here.a._send_wr(Send(1)))

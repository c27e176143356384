"""XRC between three processes: one sends, one has the XRC_RECV queue pair, one has the shared receive queue.

Memory is reached directly, or by staging alone; each of the three dies while the others have work under way.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash.actors import ERR, FLUSHED, RETRY_EXCEEDED, RTS, SEND, SUCCESS, WAIT_MS, WRITE, Actor, cast

PAGE = 4096
LONG = 100 * PAGE  # more than a staging buffer holds
REMOTE_INVALID = 9
MR, QP = 1, 1


@dataclass
class Three:
    sender: Actor
    middle: Actor  # the owner of the queue pair that receives
    owner: Actor  # the owner of the queue
    srqn: int
    memory: tuple[int, int]  # the owner's: address and key

    def send(self, number: int, length: int, op: int = SEND, **arguments: object) -> None:
        self.sender.call("send", qp=QP, id=number, op=op, mr=MR, off=0, len=length, srqn=self.srqn, **arguments)

    def receive(self, number: int, length: int) -> None:
        self.owner.call("recv", srq=1, id=number, mr=MR, off=128 * PAGE, len=length)


@contextmanager
def three(directory: Path, staged: bool) -> Iterator[Three]:
    domain = directory / "domain"
    domain.touch()
    with cast("sender", "middle", "owner") as (sender, middle, owner):
        for actor in (sender, middle, owner):
            if staged:
                actor.call("deny_vm")
            actor.open()
            actor.call("cq", cq=0, cqe=64)
        kind = "file" if staged else "alloc"
        sender.call("mr", mr=MR, len=256 * PAGE, kind=kind)
        sender.call("fill", mr=MR, off=0, len=LONG, seed=3)
        address, rkey = owner.call("mr", mr=MR, len=256 * PAGE, kind=kind)
        srqn = owner.number("xrc_srq", srq=1, cq=0, wr=16, domain=domain)
        sends = sender.number("qp", qp=QP, cq=0, type="xrc_send")
        receives = middle.number("qp", qp=QP, cq=0, type="xrc_recv", domain=domain)
        middle.call("connect", qp=QP, gid=sender.gid, rqpn=sends, type="xrc_recv")
        sender.call("connect", qp=QP, gid=middle.gid, rqpn=receives, type="xrc_send", timeout=10, retry=2)
        yield Three(sender, middle, owner, srqn, (int(address), int(rkey)))
    domain.unlink()


@pytest.mark.parametrize("staged", [False, True], ids=["direct", "staged"])
def test_messages_reach_the_third(node_directory: Path, staged: bool) -> None:
    with three(node_directory, staged) as stage:
        for number, length in ((1, 100), (2, LONG), (3, 5000)):
            stage.receive(number, length)
            stage.send(number, length)
            got = stage.owner.wait(1).entries
            assert [(each.wr_id, each.status, each.length) for each in got] == [(number, SUCCESS, length)]
            assert [each.status for each in stage.sender.wait(1).entries] == [SUCCESS]
            assert stage.owner.number("check", mr=MR, off=128 * PAGE, len=length, seed=3) == -1
        address, rkey = stage.memory
        stage.send(4, LONG, op=WRITE, raddr=address, rkey=rkey)
        assert [each.status for each in stage.sender.wait(1).entries] == [SUCCESS]
        assert stage.owner.number("check", mr=MR, off=0, len=LONG, seed=3) == -1


@pytest.mark.parametrize("staged", [False, True], ids=["direct", "staged"])
def test_the_sender_waits_for_the_thirds_receive(node_directory: Path, staged: bool) -> None:
    with three(node_directory, staged) as stage:
        stage.send(1, LONG)
        assert stage.sender.wait(1, ms=20).entries == ()
        stage.receive(1, LONG)
        assert [each.status for each in stage.owner.wait(1).entries] == [SUCCESS]
        assert [each.status for each in stage.sender.wait(1).entries] == [SUCCESS]
        assert stage.owner.number("check", mr=MR, off=128 * PAGE, len=LONG, seed=3) == -1


@pytest.mark.parametrize("point", ["exec_rq_taken", "exec_before_copy", "exec_after_copy", "exec_cq_written"])
def test_the_sender_dies(node_directory: Path, point: str) -> None:
    with three(node_directory, staged=False) as stage:
        stage.receive(1, 100)
        stage.sender.call("arm", fault=f"{point}:1:kill")
        stage.sender.tell("send", qp=QP, id=1, op=SEND, mr=MR, off=0, len=100, srqn=stage.srqn)
        stage.sender.dies()
        assert [(each.wr_id, each.status) for each in stage.owner.wait(1).entries] == [(1, FLUSHED)]
        assert stage.owner.wait(1, ms=0).entries == ()
        assert stage.middle.events(WAIT_MS)
        assert stage.middle.number("state", qp=QP) == ERR


@pytest.mark.parametrize("staged", [False, True], ids=["direct", "staged"])
def test_the_owner_of_the_queue_dies(node_directory: Path, staged: bool) -> None:
    with three(node_directory, staged) as stage:
        stage.receive(1, LONG)
        stage.send(1, LONG)
        stage.sender.wait(1)
        stage.send(2, 100)  # waits for a receive
        stage.owner.kill()
        assert [each.status for each in stage.sender.wait(1).entries] == [REMOTE_INVALID]
        assert stage.sender.number("state", qp=QP) == ERR
        assert stage.middle.events(WAIT_MS)
        assert stage.middle.number("state", qp=QP) == ERR


def test_the_owner_of_the_queue_pair_dies(node_directory: Path) -> None:
    with three(node_directory, staged=False) as stage:
        stage.send(1, 100)  # waits for a receive
        stage.middle.kill()
        assert [each.status for each in stage.sender.wait(1).entries] == [FLUSHED]
        stage.receive(1, 100)
        assert stage.owner.wait(1, ms=20).entries == ()


@pytest.mark.parametrize("staged", [False, True], ids=["direct", "staged"])
def test_the_owner_of_the_queue_destroys_it(node_directory: Path, staged: bool) -> None:
    with three(node_directory, staged) as stage:
        stage.send(1, 100)
        stage.owner.call("destroy", srq=1)
        got = stage.sender.wait(1).entries
        assert [each.status for each in got] in ([REMOTE_INVALID], [RETRY_EXCEEDED])
        assert stage.sender.number("state", qp=QP) != RTS

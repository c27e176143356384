"""A process dies when it has named a receive of the survivor's shared queue that is not its own, or not any more: no
other message is lost for that, and no receive comes back twice."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.crash.actors import SEND, SUCCESS, Completion, cast
from tests.crash.stage import MESSAGE, MR_S, PAGE, SB, SV, Stage

RECEIVES = 4  # of the shared queue, which then has 8 slots
QUEUES = {SB: 0, SV: 1}  # the survivor's completion queues


@contextmanager
def shared(directory: Path) -> Iterator[Stage]:
    """The survivor receives from victim and bystander through one queue, and has a completion queue for each."""
    with cast("survivor", "victim", "bystander") as (survivor, victim, bystander):
        stage = Stage(survivor, victim, bystander, directory)
        for actor in (survivor, victim, bystander):
            stage.open(actor)
        survivor.call("cq", cq=1, cqe=64)
        survivor.call("srq", srq=1, wr=RECEIVES)
        for slot, other in ((SB, bystander), (SV, victim)):
            stage.qpn[survivor.name, slot] = survivor.number("qp", qp=slot, cq=QUEUES[slot], srq=1)
            stage.qp(other, slot)
            stage.connect(survivor, other, slot)
            stage.connect(other, survivor, slot)
        for number in range(RECEIVES):
            receive(stage, number)
        yield stage


def receive(stage: Stage, number: int) -> None:
    stage.survivor.call("recv", srq=1, id=number, mr=MR_S, off=number % RECEIVES * PAGE, len=MESSAGE)


def send(stage: Stage, number: int) -> None:
    """The bystander sends a message of its own."""
    bystander = stage.bystander
    bystander.call("fill", mr=MR_S, off=0, len=MESSAGE, seed=number)
    bystander.call("send", qp=SB, id=number, op=SEND, mr=MR_S, off=0, len=MESSAGE)
    assert [each.status for each in bystander.wait(1).entries] == [SUCCESS]


def check(stage: Stage, slot: int, got: tuple[Completion, ...], number: int) -> None:
    """One completion, of that receive."""
    assert [(each.wr_id, each.status, each.qpn) for each in got] == [
        (number, SUCCESS, stage.qpn[stage.survivor.name, slot])
    ]


def victim_stops(stage: Stage, point: str) -> None:
    stage.victim.call("arm", fault=f"{point}:1:stop")
    stage.victim.tell("send", qp=SV, id=1, op=SEND, mr=MR_S, off=0, len=MESSAGE)
    stage.victim.stops()


def victim_dies(stage: Stage) -> None:
    stage.victim.signal(signal.SIGKILL)
    assert stage.survivor.events(5000)


def exchange(stage: Stage, number: int) -> None:
    """A message by that receive, which is posted again under a new number."""
    send(stage, number)
    got = stage.survivor.wait(1).entries
    check(stage, SB, got, number)
    assert stage.survivor.number("check", mr=MR_S, off=number % RECEIVES * PAGE, len=MESSAGE, seed=number) == -1
    receive(stage, number + RECEIVES)


def test_what_the_dead_had_only_named_is_another_ones(node_directory: Path) -> None:
    with shared(node_directory) as stage:
        victim_stops(stage, "exec_rq_named")
        send(stage, 0)  # takes the one that the victim is about to take
        victim_dies(stage)
        assert stage.survivor.wait(1, ms=100, cq=1).entries == ()
        check(stage, SB, stage.survivor.wait(1).entries, 0)
        receive(stage, RECEIVES)
        for number in range(1, 20):
            exchange(stage, number)
        assert stage.survivor.wait(1, ms=0, cq=1).entries == ()


def test_what_the_dead_had_completed_is_not_flushed_in_the_next_lap(node_directory: Path) -> None:
    with shared(node_directory) as stage:
        victim_stops(stage, "exec_cq_published")
        check(stage, SV, stage.survivor.wait(1, cq=1).entries, 0)
        receive(stage, RECEIVES)
        for number in range(1, 7):
            exchange(stage, number)  # position 8 is posted, in the slot of the victim's
        victim_dies(stage)
        assert stage.survivor.wait(1, ms=100, cq=1).entries == ()
        for number in range(7, 20):
            exchange(stage, number)
        assert stage.survivor.wait(1, ms=0, cq=1).entries == ()


def test_what_the_dead_had_taken_comes_back(node_directory: Path) -> None:
    with shared(node_directory) as stage:
        victim_stops(stage, "exec_rq_taken")
        exchange(stage, 1)
        victim_dies(stage)
        got = stage.survivor.wait(1, cq=1).entries
        assert [each.wr_id for each in got] == [0] and got[0].status != SUCCESS
        receive(stage, RECEIVES)
        for number in (2, 3, 5, 4, 6, 7, 9, 8):
            exchange(stage, number)
        assert stage.survivor.wait(1, ms=0, cq=1).entries == ()

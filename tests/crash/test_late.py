"""A process is stopped between claiming a place in the survivor's completion queue and publishing it, long enough for
the survivor to pass over that place; then it goes on. Its completions come in order, and with an event."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.crash.actors import SEND, SUCCESS, cast
from tests.crash.stage import FIRST_RECEIVE, MESSAGE, MR_V, RECEIVE_BYTES, RECEIVED_AT, B, Stage, V, ids

# What the survivor's wait takes if an event is lost: it finds the completion when its time is over.
TOO_LONG_MS = 20000
POINT = "poll_looked"


def send(stage: Stage, number: int) -> None:
    stage.victim.tell("send", qp=V, id=number, op=SEND, mr=MR_V, off=0, len=MESSAGE)


@contextmanager
def passed_over(directory: Path, events: int) -> Iterator[Stage]:
    """The victim's first message has a place that the survivor has passed over."""
    with cast("survivor", "victim", "bystander") as (survivor, victim, bystander):
        stage = Stage(survivor, victim, bystander, directory, events=events)
        for actor in (survivor, victim, bystander):
            stage.open(actor)
        stage.pair(B, bystander)
        stage.victims_pair()
        survivor.call("recv", qp=V, id=FIRST_RECEIVE, n=2, mr=MR_V, off=RECEIVED_AT, step=RECEIVE_BYTES,
                      len=RECEIVE_BYTES)  # fmt: skip
        victim.call("arm", fault="exec_cq_claimed:1:stop")
        send(stage, 1)
        victim.stops()
        stage.exchange()
        assert not stage.seen
        yield stage


def test_what_comes_late_comes_before_what_follows_it(node_directory: Path) -> None:
    with passed_over(node_directory, events=0) as stage:
        survivor, victim = stage.survivor, stage.victim
        survivor.call("arm", fault=f"{POINT}:1:stop")
        survivor.tell("wait", n=2, ms=TOO_LONG_MS)
        survivor.stops()
        victim.signal(signal.SIGCONT)
        victim.answer()
        send(stage, 2)
        victim.answer()
        survivor.signal(signal.SIGCONT)
        got = list(survivor.completions(TOO_LONG_MS / 1000 + 10).entries)
        assert [each.status for each in got] == [SUCCESS, SUCCESS]
        assert ids(got) == [FIRST_RECEIVE, FIRST_RECEIVE + 1]
        stage.check_received(got)
        stage.exchange()


@pytest.mark.parametrize("sleeps", [1, 2])
def test_who_sleeps_is_woken_by_what_comes_late(node_directory: Path, sleeps: int) -> None:
    with passed_over(node_directory, events=1) as stage:
        survivor = stage.survivor
        for _ in range(sleeps - 1):  # the first sleep's event is that of another
            stage.exchange(1)
        survivor.tell("wait", n=1, ms=TOO_LONG_MS, events=1)
        time.sleep(0.2)  # so that it sleeps; passing without is no harm
        stage.victim.signal(signal.SIGCONT)
        took_ms, *entries = survivor.answer(TOO_LONG_MS / 1000 + 10)
        assert len(entries) == 1 and int(entries[0].split(":")[0]) == FIRST_RECEIVE
        assert int(took_ms) < TOO_LONG_MS / 2
        stage.exchange()

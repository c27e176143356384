"""A process dies at every fault point of the engine, in every kind of operation that passes it, on either side.

The survivor must within a second get one completion for every work request, exactly once and in order, see its queue
pair in ERR and an async event; go on with everybody else over the same completion queue, shared receive queue and UD
queue pair; and keep nothing of the dead, whose QP numbers a new context takes. See scenarios.py.
"""

import re
import time
from pathlib import Path

import pytest

from tests.crash import test_cm, test_late, test_router
from tests.crash.actors import ROOT, WAIT_MS, Actor, cast
from tests.crash.scenarios import SCENARIOS, Scenario
from tests.crash.stage import B, Stage
from tests.sockets.test_datagram_death import DEATHS as DEATHS_OF_DATAGRAMS
from tests.sockets.test_death import DEATHS as DEATHS_OF_SOCKETS

WITHIN_S = 15.0  # mostly milliseconds; a second is what we promise, but the machine may be busy
CASES = [
    pytest.param(scenario, point, count, id=f"{scenario.name}-{point}-{count}")
    for scenario in SCENARIOS
    for point in scenario.points
    for count in scenario.counts
]


def declared_points() -> set[str]:
    """The fault points that the engine's header declares."""
    text = (ROOT / "native" / "base" / "fault.h").read_text()
    return set(re.findall(r'^\s*X\((\w+), "', text, re.MULTILINE))


def test_every_fault_point_has_a_scenario() -> None:
    reached = {point for scenario in SCENARIOS for point in scenario.points}
    with Actor("lists") as actor:
        built_in = set(actor.call("faults"))
    assert built_in == declared_points()
    others = test_cm.POINTS | test_router.POINTS | set(DEATHS_OF_SOCKETS) | set(DEATHS_OF_DATAGRAMS) | {test_late.POINT}
    assert built_in == reached | others


@pytest.mark.parametrize("events", [1, 0], ids=["sleeping", "polling"])
@pytest.mark.parametrize(("scenario", "point", "count"), CASES)
def test_death(scenario: Scenario, point: str, count: int, events: int, node_directory: Path) -> None:
    with cast("survivor", "victim", "bystander") as (survivor, victim, bystander):
        stage = Stage(survivor, victim, bystander, node_directory, scenario.deny_vm)
        for actor in (survivor, victim, bystander):
            if actor is not victim or scenario.victim_opens:
                stage.open(actor)
        stage.pair(B, bystander)
        stage.exchange()
        baseline = survivor.resources()
        scenario.prepare(stage)
        if scenario.victim_opens:
            victim.call("notify", cq=0)
        survivor.call("notify", cq=0)
        victim.call("arm", fault=f"{point}:{count}:kill")
        began = time.monotonic()
        scenario.act(stage)
        survivor.tell("wait", n=scenario.expected, ms=WAIT_MS, events=events)
        victim.dies()
        got = survivor.completions()
        scenario.check(stage, got.entries)
        assert got.at - began < WITHIN_S, f"flushed after {got.at - began:.3f} s"
        stage.exchange()
        stage.check_nothing_left(baseline, scenario.block)

"""A process is stopped (SIGSTOP) at every fault point, as a debugger or a scheduler may stop it anywhere.

Nobody else notices: traffic with others goes on over the same completion queue, shared receive queue and UD queue pair,
awake and asleep; memory that the stopped process is not using at that moment is deregistered. When it is continued, its
own traffic goes on, and every byte and completion is right.
"""

import signal
import time
from pathlib import Path

import pytest

from tests.crash.actors import SUCCESS, cast
from tests.crash.scenarios import RECEIVED, SCENARIOS, Scenario
from tests.crash.stage import FIRST_RECEIVE, FIRST_SEND, MESSAGE, MINE, MR_V, PAGE, SENDS, B, Stage, V, ids

# How many of its own work requests the victim posted, and which of them take a receive of the survivor's.
OWN = {"own-send": (2, 2), "own-send-2nd": (4, 4), "own-send-own-cq": (2, 2), "own-write-imm": (2, 2),
       "own-write": (2, 0), "own-read": (2, 0), "own-atomic": (2, 0), "own-staged": (2, 2),
       "own-staged-read": (2, 0)}  # fmt: skip
# Those that stop before the connection is made, or end it, have no traffic to go on with.
NO_TRAFFIC = {"destroys-qp", "connects", "accepts", "opens", "becomes-ready"}
# The victim posts receives itself, or needs none.
SERVED = {"others-send": 2, "others-send-2nd": 2, "others-write-imm": 2}
NEED_NO_RECEIVE = {"others-write", "others-read", "others-atomic", "others-staged-read"}

DEREGISTERED_WITHIN_S = 15.0  # mostly a millisecond; waiting for the stopped process would be for ever

CASES = [
    pytest.param(scenario, point, scenario.counts[0], id=f"{scenario.name}-{point}")
    for scenario in SCENARIOS
    for point in scenario.points
    if scenario.name != "accepts"
]


def finish_traffic(stage: Stage, scenario: Scenario) -> None:
    """Let the stopped pair's work come to its end."""
    survivor, victim = stage.survivor, stage.victim
    posted, received = OWN.get(scenario.name, (0, 0))
    missing = 0 if scenario.name in NEED_NO_RECEIVE else SENDS - SERVED.get(scenario.name, 0)
    if missing:
        victim.call("recv", qp=V, id=100, n=missing, mr=MR_V, off=RECEIVED + 64 * PAGE, step=16 * PAGE, len=16 * PAGE)
    qpn = stage.qpn[survivor.name, V]
    stage.gather(survivor, qpn, SENDS + received)
    mine = [each for each in stage.seen if each.qpn == qpn]
    assert all(each.status == SUCCESS for each in mine), mine
    assert ids([each for each in mine if each.wr_id < FIRST_RECEIVE]) == [FIRST_SEND + i for i in range(SENDS)]
    assert ids([each for each in mine if each.wr_id >= FIRST_RECEIVE]) == [FIRST_RECEIVE + i for i in range(received)]
    stage.check_received(mine)
    theirs = victim.wait(posted + (SENDS if scenario.name not in NEED_NO_RECEIVE else 0))
    assert all(each.status == SUCCESS for each in theirs.entries), theirs
    if "send" in scenario.name and missing:
        place = RECEIVED + 64 * PAGE
        assert victim.number("check", mr=MR_V, off=place, len=MESSAGE, seed=MINE) == -1


@pytest.mark.parametrize("events", [1, 0], ids=["sleeping", "polling"])
@pytest.mark.parametrize(("scenario", "point", "count"), CASES)
def test_stop(scenario: Scenario, point: str, count: int, events: int, node_directory: Path) -> None:
    with cast("survivor", "victim", "bystander") as (survivor, victim, bystander):
        stage = Stage(survivor, victim, bystander, node_directory, scenario.deny_vm, events)
        for actor in (survivor, victim, bystander):
            if actor is not victim or scenario.victim_opens:
                stage.open(actor)
        stage.pair(B, bystander)
        stage.exchange()
        scenario.prepare(stage)
        if scenario.victim_opens:
            victim.call("notify", cq=0)
        survivor.call("notify", cq=0)
        victim.call("arm", fault=f"{point}:{count}:stop")
        scenario.act(stage)
        victim.stops()
        stage.exchange()
        stage.share_with_bystander(scenario.name)
        for actor in (survivor, bystander):  # memory that the stopped process does not use
            actor.call("mr", mr=20, len=PAGE)
            began = time.monotonic()
            actor.call("dereg", mr=20)
            assert time.monotonic() - began < DEREGISTERED_WITHIN_S
        victim.signal(signal.SIGCONT)
        if scenario.name != "others-staged-read":  # there the service thread ran into the point
            victim.answer()
        if scenario.name not in NO_TRAFFIC:
            finish_traffic(stage, scenario)
        stage.exchange()



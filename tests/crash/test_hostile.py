"""A process writes nonsense into its own arena while others are connected with it: queue pairs, rings, indexes, keys.

What comes of its own connections is open (an error, or a hang of that queue pair); the survivor must not crash, its
other connections go on with every byte right, and it can drop the hostile one and close. The C actor does the
scribbling between and during traffic; tests/fuzz does the same at the level of the socket and of whole files.
"""

import random
from pathlib import Path

import pytest

from tests.crash.actors import FETCH_ADD, READ, SEND, WRITE, Actor, cast
from tests.crash.scenarios import EVERYBODY, GROUP
from tests.crash.stage import MR_V, PAGE, B, Stage, U, V

AREAS = ("header", "attention", "threads", "tables", "keys", "qp", "sq", "rq", "cq", "cqe", "outbox", "heap")
ROUNDS, WORDS = 12, 40


def traffic(stage: Stage, luck: random.Random, turn: int) -> None:
    """Both sides post something over the hostile connection; refusals are fine, completions are thrown away."""
    survivor, victim = stage.survivor, stage.victim
    for actor, other in ((survivor, victim), (victim, survivor)):
        target = stage.regions[other.name, MR_V]
        length = 8 if turn % 3 == 0 else luck.randrange(1, 8 * PAGE)
        opcode = FETCH_ADD if length == 8 else luck.choice((SEND, WRITE, READ))
        actor.attempt("recv", qp=V, id=turn, mr=MR_V, off=0, len=16 * PAGE)
        actor.attempt(
            "send", qp=V, id=turn, op=opcode, mr=MR_V, off=0, len=length, raddr=target.address, rkey=target.rkey
        )
    victim.attempt("send", qp=U, id=turn, op=SEND, mr=MR_V, off=0, len=turn % 999, ah=1, rqpn=EVERYBODY)
    victim.attempt("wait", cq=0, n=20, ms=0)


def drain(actor: Actor) -> None:
    """Throw completions away, as far as they come."""
    while actor.wait(64, ms=0).entries:
        pass


@pytest.mark.parametrize("area", AREAS)
def test_scribbled_arena(area: str, seed: int, node_directory: Path) -> None:
    luck = random.Random(f"{seed}-{area}")
    with cast("survivor", "victim", "bystander") as (survivor, victim, bystander):
        stage = Stage(survivor, victim, bystander, node_directory)
        for actor in (survivor, victim, bystander):
            stage.open(actor)
        stage.pair(B, bystander)
        stage.exchange()
        stage.victims_pair()
        victim.call("ah", ah=0, gid=survivor.gid)
        victim.call("ah", ah=1, gid=GROUP)
        survivor.call("mcast", qp=U, gid=GROUP)
        for turn in range(ROUNDS):
            traffic(stage, luck, turn)
            victim.tell("scribble", where=area, seed=luck.getrandbits(32), n=luck.randrange(1, WORDS))
            if not victim.has_answered():  # it may hurt itself; that is its own business
                break
            traffic(stage, luck, turn + 1000)
            drain(survivor)
            stage.exchange(1)
        victim.kill()
        stage.seen.clear()
        assert survivor.number("state", qp=U) == 3
        survivor.call("mcast", qp=U, gid=GROUP, leave=1)
        survivor.call("destroy", qp=V)
        survivor.call("dereg", mr=MR_V)
        stage.exchange()
        for actor in (survivor, bystander):
            actor.call("close")


TAGGED, TO_VICTIM, TO_SURVIVOR = 7, 8, 9
XRC_QUEUE, TAG_QUEUE = 1, 2


def connect_shared(stage: Stage) -> dict[str, int]:
    """Give both sides an XRC queue and one that matches tags, and connect them; the numbers of the XRC queues."""
    sides = (stage.survivor, stage.victim)
    numbers = {}
    for actor in sides:
        numbers[actor.name] = actor.number("xrc_srq", srq=XRC_QUEUE, cq=0, wr=64)
        actor.call("tag_srq", srq=TAG_QUEUE, cq=0, wr=64)
    stage.pair(TAGGED, stage.victim, srq=TAG_QUEUE)
    for slot, (sender, receiver) in ((TO_VICTIM, sides), (TO_SURVIVOR, sides[::-1])):
        stage.qp(sender, slot, type="xrc_send")
        stage.qp(receiver, slot, type="xrc_recv")
        stage.connect(receiver, sender, slot, type="xrc_recv")
        stage.connect(sender, receiver, slot, type="xrc_send")
    return numbers


def shared_traffic(stage: Stage, numbers: dict[str, int], luck: random.Random, turn: int) -> None:
    """Both sides name tags, post receives and send: eager, rendezvous, without a tag, over XRC."""
    survivor, victim = stage.survivor, stage.victim
    for actor, other, slot in ((survivor, victim, TO_VICTIM), (victim, survivor, TO_SURVIVOR)):
        tag, length = luck.randrange(4), luck.randrange(32, 8 * PAGE)
        actor.attempt("tag", srq=TAG_QUEUE, tag=tag, id=turn, mr=MR_V, off=0, len=16 * PAGE, op=luck.randrange(3))
        for queue in (TAG_QUEUE, XRC_QUEUE):
            actor.attempt("recv", srq=queue, id=turn, mr=MR_V, off=0, len=16 * PAGE)
        actor.attempt("tmh", mr=MR_V, off=0, tag=tag, op=luck.choice((0, 1, 3)))
        actor.attempt("send", qp=TAGGED, id=turn, op=SEND, mr=MR_V, off=0, len=length)
        actor.attempt("send", qp=slot, id=turn, op=SEND, mr=MR_V, off=0, len=length, srqn=numbers[other.name])
    victim.attempt("wait", cq=0, n=20, ms=0)


@pytest.mark.parametrize("area", ["srq", "tags", "qp", "sq", "tables", "heap"])
def test_scribbled_shared_queues(area: str, seed: int, node_directory: Path) -> None:
    luck = random.Random(f"{seed}-shared-{area}")
    with cast("survivor", "victim", "bystander") as (survivor, victim, bystander):
        stage = Stage(survivor, victim, bystander, node_directory)
        for actor in (survivor, victim, bystander):
            stage.open(actor)
        stage.pair(B, bystander)
        stage.exchange()
        stage.victims_pair()
        numbers = connect_shared(stage)
        for turn in range(ROUNDS):
            shared_traffic(stage, numbers, luck, turn)
            victim.tell("scribble", where=area, seed=luck.getrandbits(32), n=luck.randrange(1, WORDS))
            if not victim.has_answered():  # it may hurt itself; that is its own business
                break
            shared_traffic(stage, numbers, luck, turn + 1000)
            drain(survivor)
            stage.exchange(1)
        victim.kill()
        stage.seen.clear()
        for slot in (V, TAGGED, TO_VICTIM, TO_SURVIVOR):
            survivor.call("destroy", qp=slot)
        for queue in (XRC_QUEUE, TAG_QUEUE):
            survivor.call("destroy", srq=queue)
        survivor.call("dereg", mr=MR_V)
        stage.exchange()
        for actor in (survivor, bystander):
            actor.call("close")

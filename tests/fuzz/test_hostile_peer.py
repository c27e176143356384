"""A peer writes nonsense into its arena while it communicates: nobody else dies of it, hangs, or gets wrong data.

FFVERBS_FUZZ_ROUNDS=N draws N times as many seeds; each hostile process is a new one.
"""

import random
import time
from dataclasses import replace
from pathlib import Path

from tests.conformance.pair import Options
from tests.fuzz.actor import ANSWER_S, Remote, cast, connect, talk

Pair = tuple[Remote, Remote]
RESET_STATE, STATE_MASK = 0, 1


def _seeds(seed: int, what: str, count: int) -> list[int]:
    draw = random.Random(f"{seed}:{what}")
    return [draw.getrandbits(32) for _ in range(count)]


def _fails(victim: Remote, hostile_qpn: int) -> None:
    """Wait until what the victim sends to the dead one fails."""
    deadline = time.monotonic() + ANSWER_S
    to = replace(victim.address(), qpns=(hostile_qpn,) * 2)
    while not victim.has_failed(to, 1):
        assert time.monotonic() < deadline, f"the QP to the dead peer is in state {victim.state(1)}"


def test_a_peer_that_ruins_its_own_arena(pair: Pair, node_directory: Path, seed: int, rounds: int) -> None:
    victim, honest = pair
    for number in _seeds(seed, "own", 4 * rounds):
        print(f"seed {number}")
        with cast(node_directory, f"hostile-{number}") as (hostile,):
            address = hostile.create(Options())
            victim.modify(RESET_STATE, STATE_MASK, qp=1)
            connect(victim, hostile, 1, 0)
            hostile.begin("attack", number, victim.address(), 30)
            for turn in range(10):
                victim.try_traffic(number + turn, address, 1, 3)
                talk(victim, honest, turn)
            hostile.wait()
            talk(victim, honest, 20)
        _fails(victim, address.qpn)
        talk(victim, honest, 21)

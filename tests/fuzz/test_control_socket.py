"""Whatever a stranger says on a context's socket: the context goes on, hangs up, and keeps nothing."""

import itertools
import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fuzz import wire
from tests.fuzz.actor import Remote, holds, talk
from tests.fuzz.wire import Message

Pair = tuple[Remote, Remote]
KINDS = (*range(9), 0xFFFFFFFF)


def _rights(kind: int) -> int:
    """How many descriptors go with a message of this kind."""
    return {wire.HELLO: 3, wire.WELCOME: 3, wire.CHANNEL: 1}.get(kind, 0)


def test_packets_that_are_no_messages(pair: Pair, node_directory: Path) -> None:
    victim, _ = pair
    before, qpn = (victim.descriptors(), victim.arenas()), victim.address().qpn
    good = Message(wire.HELLO, num_fds=3).pack()
    with wire.descriptors() as fds:
        for packet, rights in (
            (b"", []), (b"x", []), (bytes(64), []), (b"\xff" * 200_000, []), (good, []), (good, fds[:2]),
            (good, [*fds, *fds]), (good, fds * 20), (good[:-1], fds), (good + b"\0", fds), (good[:12], fds),
            (replace(Message(wire.HELLO, num_fds=3), version=2).pack(), fds), (b"", fds), (good[::-1], fds),
        ):  # fmt: skip
            with wire.connect(node_directory, qpn) as connection:
                wire.send(connection, packet, rights)
                said = wire.wait_for_end(connection)
                assert all(kind == wire.REFUSE for kind, _ in said), said
    holds(victim, *before)


def test_every_kind_of_message_after_every_other(pair: Pair, node_directory: Path) -> None:
    victim, _ = pair
    before, qpn = (victim.descriptors(), victim.arenas()), victim.address().qpn
    for first, second in itertools.product(KINDS, KINDS):
        with wire.descriptors() as fds, wire.connect(node_directory, qpn) as connection:
            for kind in (first, second, first):
                value = random.choice((0, 1, 16383, 16384, 2**32 - 1, 2**64 - 1))
                if not wire.send(connection, Message(kind, value=value), fds[3 - _rights(kind) :]):
                    break
            connection.shutdown(1)
            wire.wait_for_end(connection)
    holds(victim, *before)


@pytest.mark.parametrize("number", range(2))
def test_conversations_drawn_at_random(
    pair: Pair, node_directory: Path, seed: int, number: int, rounds: int
) -> None:
    victim, honest = pair
    draw = random.Random(f"{seed}:{number}")
    before, qpn = (victim.descriptors(), victim.arenas()), victim.address().qpn
    for turn in range(40 * rounds):
        with wire.descriptors() as fds, wire.connect(node_directory, qpn) as connection:
            if draw.random() < 0.5:
                wire.send(connection, Message(draw.choice((wire.HELLO, wire.OBSERVE))), fds)
            for _ in range(draw.randrange(1, 12)):
                packet = bytearray(Message(draw.choice(KINDS), value=draw.getrandbits(draw.choice((4, 33, 64)))).pack())
                for _ in range(draw.choice((0, 0, 1, 3))):
                    packet[draw.randrange(len(packet))] = draw.randrange(256)
                cut = draw.choice((len(packet), len(packet), len(packet), draw.randrange(len(packet))))
                if not wire.send(connection, bytes(packet[:cut]), draw.choices(fds, k=draw.choice((0, 0, 1, 3, 4)))):
                    break
            if draw.random() < 0.5:
                connection.shutdown(1)
                wire.wait_for_end(connection)
        if turn % 20 == 0:
            talk(victim, honest, 10 + turn)
    holds(victim, *before)


def test_connections_that_say_nothing(pair: Pair, node_directory: Path) -> None:
    """Silent connections do not keep an honest peer out, and go when they hang up."""
    victim, honest = pair
    before, qpn = (victim.descriptors(), victim.arenas()), victim.address().qpn
    silent = [wire.connect(node_directory, qpn) for _ in range(100)]
    with wire.descriptors() as fds, wire.connect(node_directory, qpn) as connection:
        wire.send(connection, Message(wire.HELLO), fds)
        assert wire.receive(connection)[0] == wire.WELCOME
    talk(victim, honest, 3)
    for connection in silent:
        connection.close()
    holds(victim, *before)


def test_a_peer_that_never_reads(pair: Pair, node_directory: Path) -> None:
    """Answers that nobody takes fill the socket, and stop nobody."""
    victim, honest = pair
    before, qpn = (victim.descriptors(), victim.arenas()), victim.address().qpn
    with wire.descriptors() as fds, wire.connect(node_directory, qpn) as connection:
        wire.send(connection, Message(wire.HELLO), fds)
        connection.setblocking(False)
        for number in range(3000):
            try:
                if not wire.send(connection, Message(wire.WANT_CHANNEL, value=number % 8)):
                    break
            except BlockingIOError:
                talk(victim, honest, number)
        talk(victim, honest, 4)
    holds(victim, *before)



"""Hosts whose network misbehaves: frames are lost, doubled, delayed and reordered, connections break or go silent.

Programs see none of it but in time: a part of the conformance suite runs over it as over any other path.
"""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import ffverbs.libibverbs_enums as e
from tests.conformance import test_operations as operations
from tests.conformance.pair import RC, Options, Pair, Peer, Recv, Send
from tests.conformance.paths import _Remote, spawn
from tests.conformance.test_channels import test_a_sleeper_is_woken_from_the_other_side  # noqa: F401
from tests.conformance.test_operations import (  # noqa: F401
    test_a_large_message,
    test_gather_and_scatter,
    test_read,
)
from tests.conformance.test_status import (  # noqa: F401
    test_a_queue_pair_can_be_reset_and_used_again,
    test_a_receive_that_is_too_small,
    test_everything_is_flushed_in_order,
)
from tests.hosts import Hosts

FAULTS = "drop=0.02,twice=0.01,reorder=0.02,delay=0.05,delay_ms=5,cut=0.004,half_open=0.001"
# A half-open connection is noticed after a second, and again if the next one is cut: nobody is to lose patience here.
PATIENT: dict[str, Any] = {"timeout": 19, "retry_cnt": 7}
MESSAGES = 120


class FaultyHosts(Hosts):
    """Hosts whose routers make faults."""

    def __init__(self, folder: Path, faults: str, names: tuple[str, ...] = ("a", "b")) -> None:
        self._faults = faults
        super().__init__(folder, names)

    def options(self) -> list[str]:
        return ["--fault", self._faults]


class PatientPair(Pair):
    """Connects with more patience than the network asks for."""

    def connect(self, options: Options | None = None, b_options: Options | None = None, **changes: int) -> Pair:
        return super().connect(options, b_options, **(PATIENT | changes))


@pytest.fixture(scope="module", name="hosts")
def hosts_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    seed = int(os.environ.get("FFVERBS_TEST_SEED", random.randrange(1 << 30)))
    print(f"FFVERBS_TEST_SEED={seed}")
    hosts = FaultyHosts(tmp_path_factory.mktemp("faults"), f"{FAULTS},seed={seed}")
    yield hosts
    hosts.close()


@pytest.fixture(scope="module", name="sides")
def sides_fixture(hosts: Hosts) -> Iterator[tuple[Peer, Peer]]:
    made = [spawn(hosts.folder, f"w-{name}", env=hosts.environment(name)) for name in hosts.names]
    yield cast(Peer, made[0]), cast(Peer, made[1])
    for remote in made:
        remote._end()


@pytest.fixture(name="pair")
def pair_fixture(hosts: Hosts, sides: tuple[Peer, Peer]) -> Iterator[Pair]:
    hosts.check()
    pair = PatientPair(*sides, "tcp")
    yield pair
    if not any(cast(_Remote, side).busy or cast(_Remote, side).broken for side in sides):
        pair.close()


def test_nothing_is_lost_doubled_or_reordered(hosts: Hosts, pair: Pair) -> None:
    """Sends in order, each once; additions that are done once each, whatever became of their answers."""
    pair.connect(Options(send_wr=MESSAGES, recv_wr=MESSAGES))
    pair.b.write(bytes(8), 2048)
    pair.b.post_recv(*(Recv(n) for n in range(MESSAGES)))
    add = int(e.IBV_WR_ATOMIC_FETCH_AND_ADD)
    for n in range(0, MESSAGES, 2):
        pair.a.post_send(Send(n), pair.remote(add, 2048, wr_id=n + 1, pieces=((0, 8),), compare_add=1))
    assert [d.wr_id for d in pair.a.sent(MESSAGES) if d.ok] == list(range(MESSAGES))
    assert [d.wr_id for d in pair.b.received(MESSAGES // 2)] == list(range(MESSAGES // 2))
    assert int.from_bytes(pair.b.read(8, 2048), "little") == MESSAGES // 2
    assert "faults are made on purpose" in hosts.log("a")


@pytest.mark.parametrize("test", [operations.test_send, operations.test_write, operations.test_immediate_data])
def test_a_reliable_connection(pair: Pair, test: Callable[[Pair, int], None]) -> None:
    """An unreliable one may lose what is sent while there is no link."""
    test(pair, RC)


def test_late_news_of_an_end_does_not_end_what_came_after(hosts: Hosts, pair: Pair) -> None:
    """Containers close and open again while the news of it is lost and repeated."""
    for _ in range(12):
        pair.connect(Options(send_wr=4))
        pair.b.post_recv(Recv(1), Recv(2))
        pair.a.post_send(Send(5), Send(6))
        assert [d.wr_id for d in pair.a.sent(2) if d.ok] == [5, 6]
        pair.close()


def test_faults_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="there is no fault rain"):
        FaultyHosts(tmp_path, "rain=0.5", ("a",))

"""Several processes with several threads send everything to each other, over every kind of queue, and check every byte
and every completion, while one after another is killed at a random instruction or fault point and comes back.

`--stress-seconds N` sets the duration; FFVERBS_TEST_SEED repeats a run (as far as the scheduler permits).
"""

import random
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash.actors import Actor, ActorDiedError, names_in
from tests.crash.scenarios import ANY, COPYING, RECEIVING

PROCESSES = 4
ENDS_A_PAIR = 3
KINDS, MEMORIES, THREADS = 3, 3, 2
END_UC = 2  # of the kinds: RC, RC on the shared receive queue, UC
FLUSH_WITHIN_MS = 5000  # of a busy machine; test_kill.py holds a calm one to a second
QUIET_WITHIN_MS = 30000
POINTS = (*ANY, *RECEIVING, *COPYING, "exec_staged", "exec_rq_taken", "post_send_written", "post_recv_written",
          "post_recv_published", "mr_key_published", "mr_key_revoked", "attach_accepted", "attach_sent")  # fmt: skip


@dataclass
class Side:
    """One end of a connection, as far as it got."""

    who: int
    slot: int
    thread: int
    made: bool = False
    started: bool = False
    dropped: bool = False


@dataclass
class Connection:
    """Two ends, of two processes or of one."""

    sides: tuple[Side, Side]
    kind: int
    seed: int
    memories: tuple[int, int]


class Run:
    """The processes and their connections. Any of them may die at any moment: what `reconcile` does is recorded step
    by step, so that it can be begun again."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.luck = random.Random(seed)
        self.processes: dict[int, Actor] = {}
        self.datagrams: dict[int, list[str]] = {}  # GID and UD QP number
        self.connections: list[Connection] = []
        self.met: set[tuple[int, int]] = set()
        self.deaths: dict[str, int] = {}
        self.slowest_ms = 0

    # ---- processes ---------------------------------------------------------------------------------------------------

    def spawn(self, who: int) -> None:
        """Start a process, often with a fault point that it will run into."""
        environment = {}
        if self.deaths and self.luck.random() < 0.6:
            point = self.luck.choice(POINTS)
            most = 30 if point.startswith(("mr_", "attach_")) else 20000
            environment["FFVERBS_FAULT"] = f"{point}:{self.luck.randint(10, most)}:kill"
        deny_vm = int(self.luck.random() < 0.3)
        arguments = [str(who), str(self.luck.getrandbits(32)), str(deny_vm)]
        actor = Actor(f"process {who}", "stress", *arguments, environment=environment)
        actor.fault = environment.get("FFVERBS_FAULT", "")
        self.processes[who] = actor
        self.datagrams[who] = actor.answer()

    def bury(self) -> None:
        """Forget the processes that died; each must have died by SIGKILL."""
        for who, actor in list(self.processes.items()):
            if actor.is_alive():
                continue
            status = actor.status
            actor.kill()
            del self.processes[who]
            self.datagrams.pop(who, None)
            cause = actor.fault.split(":")[0] or "killed"
            assert status == -signal.SIGKILL, f"{actor.name} ({cause}) ended with {status}, not by SIGKILL"
            self.deaths[cause] = self.deaths.get(cause, 0) + 1
            for connection in self.connections:
                for side in connection.sides:
                    if side.who == who:
                        side.dropped = True
            self.met = {(one, other) for one, other in self.met if one != who}

    # ---- connections -------------------------------------------------------------------------------------------------

    def drop_orphans(self) -> None:
        """Let the survivors' ends of broken connections be checked and dropped."""
        for connection in list(self.connections):
            one, other = connection.sides
            if not (one.dropped or other.dropped):
                continue
            for side in connection.sides:
                if side.dropped:
                    continue
                if side.made:
                    force = int(not (one.started and other.started))
                    arguments = (side.slot, side.thread, FLUSH_WITHIN_MS, force)
                    took = int(self.processes[side.who].call("drop", *arguments)[0])
                    self.slowest_ms = max(self.slowest_ms, took)
                side.dropped = True
            self.connections.remove(connection)
        for who, whom in sorted(self.met):
            if whom not in self.datagrams:
                self.processes[who].call("leave", whom)
                self.met.discard((who, whom))

    def plan(self, one: int, other: int) -> Connection:
        """Choose a new connection's properties."""
        taken = {(side.who, side.slot) for each in self.connections for side in each.sides}
        sides = []
        for who in (one, other):
            slot = next(slot for slot in range(64) if (who, slot) not in taken)
            taken.add((who, slot))
            sides.append(Side(who, slot, self.luck.randrange(THREADS)))
        memories = (self.luck.randrange(MEMORIES), self.luck.randrange(MEMORIES))
        return Connection((sides[0], sides[1]), self.luck.randrange(KINDS), self.luck.getrandbits(60), memories)

    def connect(self, connection: Connection) -> None:
        """Make and connect both ends."""
        self.connections.append(connection)
        made = []
        for number, side in enumerate(connection.sides):
            arguments = (side.slot, side.thread, connection.kind, connection.memories[number], connection.seed, number)
            made.append(self.processes[side.who].call("make", *arguments))
            side.made = True
        for number, side in enumerate(connection.sides):
            other = connection.sides[1 - number]
            gid = self.datagrams[other.who][0]
            known = self.processes[side.who].call("start", side.slot, side.thread, gid, *made[1 - number])
            side.started = known == ["1"]

    def link_all(self) -> None:
        """Make the connections and acquaintances that are missing."""
        for one in range(PROCESSES):
            for other in range(one, PROCESSES):
                pair = {one, other}
                have = sum({side.who for side in each.sides} == pair for each in self.connections)
                for _ in range(have, 1 if one == other else ENDS_A_PAIR):
                    self.connect(self.plan(one, other))
                for who, whom in ((one, other), (other, one)):
                    if (who, whom) not in self.met:
                        self.processes[who].call("meet", whom, *self.datagrams[whom])
                        self.met.add((who, whom))

    def reconcile(self, respawn: bool = True) -> None:
        """Bring everything into order after deaths, and after those that happen meanwhile."""
        while True:
            try:
                self.bury()
                self.drop_orphans()
                if respawn:
                    for who in range(PROCESSES):
                        if who not in self.processes:
                            self.spawn(who)
                    self.link_all()
                return
            except ActorDiedError as death:
                print(death)

    # ---- the run -----------------------------------------------------------------------------------------------------

    def wait_for_death(self, seconds: float) -> bool:
        """Let them work; True as soon as one died by itself."""
        ready, _, _ = select.select([actor.output for actor in self.processes.values()], [], [], seconds)
        return bool(ready)

    def work(self, seconds: float) -> None:
        """Kill one process after the other."""
        end = time.monotonic() + seconds
        self.reconcile()
        while time.monotonic() < end:
            if not self.wait_for_death(self.luck.uniform(0.2, 1.5)):
                victim = self.processes[self.luck.choice(sorted(self.processes))]
                victim.signal(signal.SIGKILL)
                victim.fault = ""
                victim.dies()
            self.reconcile()

    def all_answer(self) -> bool:
        """Tell everybody to be quiet, and fetch the answer of each; False if one died."""
        told = []
        for actor in self.processes.values():
            try:
                actor.tell("quiet", QUIET_WITHIN_MS)
                told.append(actor)
            except ActorDiedError as death:
                print(death)
        answered = 0
        for actor in told:
            try:
                actor.answer(QUIET_WITHIN_MS / 1000 + 10)
                answered += 1
            except ActorDiedError as death:
                print(death)
        return answered == len(self.processes)

    def quiet(self) -> None:
        """Let everything posted complete; those that die meanwhile are not replaced."""
        self.reconcile(respawn=False)
        while not self.all_answer():
            self.reconcile(respawn=False)

    def compare(self) -> None:
        """What one side of a reliable connection sent, the other received."""
        counts: dict[tuple[int, int, int], tuple[int, int]] = {}
        for who, actor in self.processes.items():
            for word in actor.call("count"):
                slot, thread, sent, received = map(int, word.split(":"))
                counts[who, slot, thread] = (sent, received)
        for connection in self.connections:
            one, other = ((side.who, side.slot, side.thread) for side in connection.sides)
            if connection.kind != END_UC:
                assert counts[one][0] == counts[other][1], (connection, counts[one], counts[other])
                assert counts[other][0] == counts[one][1], (connection, counts[one], counts[other])

    def finish(self) -> tuple[int, int, int]:
        """Close everything; return completions, bytes and sleeps of the last processes."""
        total = [0, 0, 0]
        for actor in self.processes.values():
            actor.tell("finish")
        for actor in self.processes.values():
            try:
                for index, word in enumerate(actor.answer()):
                    total[index] += int(word)
            except ActorDiedError:
                assert actor.status == -signal.SIGKILL and actor.fault, f"{actor.name} ended with {actor.status}"
        return total[0], total[1], total[2]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_stress(seed: int, node_directory: Path, request: pytest.FixtureRequest) -> None:
    seconds = request.config.getoption("--stress-seconds")
    print(f"seed {seed}, {seconds:.0f} s")
    run = Run(seed)
    try:
        run.work(seconds)
        run.quiet()
        run.compare()
        completions, data, sleeps = run.finish()
    finally:
        for actor in run.processes.values():
            actor.kill()
    print(
        f"{sum(run.deaths.values())} deaths ({run.deaths}), slowest flush {run.slowest_ms} ms; the last {PROCESSES} "
        f"processes: {completions} completions, {data / 2**20:.0f} MiB, {sleeps} sleeps"
    )
    assert completions > 0 and data > 0 and sleeps > 0
    assert names_in(node_directory) == [] or run.deaths

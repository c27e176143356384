"""The differential test: generated sequences of verbs calls on Soft-RoCE in the lab's machine, and on ffverbs here.

    python -m tests.lab.differential.run [--seeds FIRST COUNT] [--theme NAME] [--machines N]

A seed makes one sequence; what differs without being known (differences.py) is run again, patiently and alone, before
it counts: an emulated machine is sometimes late. The status is 1 if anything is left.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from tests.lab.differential.calls import Call
from tests.lab.differential.compare import Difference, Outcome, differences
from tests.lab.differential.differences import explain
from tests.lab.differential.themes import THEMES, sequence
from tests.lab.vm.machine import Machine, MachineError
from tests.unit.real_pyverbs import DEBIAN_PACKAGES

INTERPRETER = Path(__file__).parent / "interpret.py"
ROOT = Path(__file__).resolve().parents[3]
CHUNK = 50
HERE_DEADLINE_S = 300.0
STALL_S = 90.0  # after which a sequence that has not ended is taken to hang: it takes at most a tenth of that
PATIENCE_S, MORE_PATIENCE_S = "1", "8"


@dataclass
class Tally:
    """What came of all sequences."""

    agreed: int = 0
    known: Counter[str] = field(default_factory=Counter)
    unexplained: list[Difference] = field(default_factory=list)
    grief: list[int] = field(default_factory=list)  # seeds at which Soft-RoCE or its machine hung or died
    themes: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """How many sequences were carried out."""
        return self.agreed + self.known.total() + len(self.unexplained) + len(self.grief)

    def __iadd__(self, other: "Tally") -> "Tally":
        self.agreed += other.agreed
        self.known += other.known
        self.unexplained += other.unexplained
        self.grief += other.grief
        self.themes += other.themes
        return self

    def __str__(self) -> str:
        known, left = self.known.total(), len(self.unexplained)
        lines = [f"{self.total} sequences: {self.agreed} agree, {known} differ as known, {left} unexplained"]
        lines += [f"  {count:>5}  {name}" for name, count in self.known.most_common()]
        lines.append("  of " + ", ".join(f"{count} {name}" for name, count in self.themes.most_common()))
        lines.append(f"  {len(self.grief)} hung or ended Soft-RoCE, whose machine was booted again: seeds {self.grief}")
        return "\n".join([*lines, *map(str, self.unexplained)])


def write(path: Path, sequences: list[Call]) -> None:
    """Write sequences as the interpreter reads them."""
    path.write_text("".join(json.dumps(call) + "\n" for call in sequences), encoding="ascii")


def read(path: Path) -> list[Outcome]:
    """Read what the interpreter wrote."""
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def run_here(sequences: list[Call], folder: Path) -> list[Outcome]:
    """Carry them out on ffverbs, in a process of its own."""
    write(folder / "in", sequences)
    command = [sys.executable, str(INTERPRETER), "ffverbs", "ffv0", str(folder / "in"), str(folder / "out")]
    with tempfile.TemporaryDirectory(prefix="ffv-") as node:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "FFVERBS_DIR": node}
        subprocess.run(command, env=environment, check=True, timeout=HERE_DEADLINE_S)
    return read(folder / "out")


class There:
    """Real pyverbs over Soft-RoCE in a machine of the lab; another one is booted when that hangs or dies."""

    def __init__(self) -> None:
        """Boots a machine."""
        self.machine = self.boot()

    @staticmethod
    def boot() -> Machine:
        """Return a machine that runs."""
        machine = Machine("differential", cpus=1)
        return machine.__enter__()

    def close(self) -> None:
        """Turn the machine off."""
        self.machine.stop()

    def run(self, sequences: list[Call], patience_s: str) -> list[Outcome | None]:
        """Carry sequences out; None for one at which the machine or pyverbs came to grief."""
        outcomes: list[Outcome | None] = []
        while len(outcomes) < len(sequences):
            left = sequences[len(outcomes) :]
            finished, outcome = self.attempt(left, patience_s)
            outcomes += outcome
            if not finished and len(outcomes) < len(sequences):
                outcomes.append(None)
                self.close()
                self.machine = self.boot()
        return outcomes

    def attempt(self, sequences: list[Call], patience_s: str) -> tuple[bool, list[Outcome]]:
        """Carry sequences out; tell whether that went to its end, and what came of those that were."""
        share = self.machine.share
        write(share / "in", sequences)
        (share / "out").write_bytes(b"")
        command = [sys.executable, str(INTERPRETER), "pyverbs", "rxe0", "/run/share/in", "/run/share/out", patience_s]
        environment = {"PYTHONPATH": DEBIAN_PACKAGES, "PYTHONDONTWRITEBYTECODE": "1"}
        running = self.machine.begin(command, environment=environment)
        try:
            while not running.wait_while_growing(share / "out", STALL_S):
                pass
            result = running.wait()
            finished, said = result.status == 0, f"status {result.status}: {result.output}"
        except MachineError as error:
            finished, said = False, str(error)
        outcomes = read(share / "out")
        if not finished:
            print(f"lab: Soft-RoCE came to grief at {sequences[len(outcomes) :][:1]}: {said}", file=sys.stderr)
        return finished, outcomes


def compare(there: There, sequences: list[Call], folder: Path, patience_s: str) -> list[list[Difference] | None]:
    """Carry sequences out on both and return what differs in each, None where Soft-RoCE came to grief."""
    ours = run_here(sequences, folder)
    counted: list[Call] = [{**made, "counts": mine["counts"]} for made, mine in zip(sequences, ours, strict=True)]
    theirs = there.run(counted, patience_s)
    return [
        None if other is None else differences(made, mine, other)
        for made, mine, other in zip(sequences, ours, theirs, strict=True)
    ]


def judge(machines: Sequence[There], seeds: range, folder: Path, theme: str | None = None) -> Tally:
    """Compare the sequences of `seeds`, all of one theme if that is given; progress goes to stderr."""
    tally = Tally()
    idle: SimpleQueue[There] = SimpleQueue()
    for machine in machines:
        idle.put(machine)

    def judge_some(some: range) -> Tally:
        there, own = idle.get(), folder / str(some.start)
        own.mkdir()
        try:
            return judge_chunk(there, [sequence(seed, theme) for seed in some], own)
        finally:
            idle.put(there)

    with ThreadPoolExecutor(len(machines)) as pool:
        for part in pool.map(judge_some, (seeds[first : first + CHUNK] for first in range(0, len(seeds), CHUNK))):
            tally += part
            print(f"lab: {tally.total} of {len(seeds)} sequences compared", file=sys.stderr, flush=True)
    return tally


def judge_chunk(there: There, sequences: list[Call], folder: Path) -> Tally:
    """Compare some sequences, in one machine."""
    tally = Tally()
    for made, found in zip(sequences, compare(there, sequences, folder, PATIENCE_S), strict=True):
        is_new = found and explain(found[0], made) is None
        count(tally, made, compare(there, [made], folder, MORE_PATIENCE_S)[0] if is_new else found)
    return tally


def count(tally: Tally, made: Call, found: list[Difference] | None) -> None:
    """Put one sequence where it belongs."""
    tally.themes[made["theme"]] += 1
    known = explain(found[0], made) if found else None
    if found is None:
        tally.grief.append(made["seed"])
    elif not found:
        tally.agreed += 1
    elif known:
        tally.known[known.name] += 1
    else:
        tally.unexplained.append(found[0])
        print(f"lab: {found[0]}", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run it by hand."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", nargs=2, type=int, default=(1, 2000), metavar=("FIRST", "COUNT"))
    themes = [theme.__name__ for theme, _ in THEMES]
    parser.add_argument("--theme", choices=themes, help="make sequences of this one only")
    parser.add_argument("--machines", type=int, default=1, help="so many work at a time")
    options: Any = parser.parse_args(arguments)
    first, number = options.seeds
    # A machine dies with the thread that booted it, which has to stay.
    with (
        ThreadPoolExecutor(options.machines) as pool,
        tempfile.TemporaryDirectory() as folder,
        contextlib.ExitStack() as stack,
    ):
        machines = list(pool.map(lambda _: There(), range(options.machines)))
        for machine in machines:
            stack.callback(machine.close)
        tally = judge(machines, range(first, first + number), Path(folder), options.theme)
    print(f"seeds {first} to {first + number - 1}\n{tally}")
    return int(bool(tally.unexplained))


if __name__ == "__main__":
    sys.exit(main())

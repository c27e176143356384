"""Fuzz for minutes what can be sent to a router: `python -m tests.fuzz.long [--minutes 10] [NAME...]`.

Two programs at a time, each for that long, with a line of progress now and then. Inputs that reached something new are
kept in build/fuzz/corpus/NAME and begun with the next time; what ends a program is kept in build/fuzz/found/NAME, and
repeated by giving it to the program as its only argument. `control` is the Python control protocol (Hypothesis).
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import programs

CONTROL = "control"
_LOOK_S = 15.0


@dataclass
class Run:
    """One program under way, or done."""

    name: str
    seconds: int
    process: subprocess.Popen[bytes]
    log: Path
    began: float

    def line(self) -> str:
        """Say how far it is."""
        said = self.log.read_text(encoding="utf-8", errors="replace")
        found = re.findall(r"^#(\d+)\s.*cov: (\d+).*corp: (\d+)", said, re.M)
        what = "{} inputs, {} edges, {} kept".format(*found[-1]) if found else said.strip().rpartition("\n")[2][:90]
        return f"{self.name:<10} {time.monotonic() - self.began:5.0f} of {self.seconds} s  {what}"


def start(name: str, seconds: int) -> Run:
    """Start one; its words go into its log."""
    found = programs.BUILD / "found" / name
    found.mkdir(parents=True, exist_ok=True)
    log = found / "log"
    if name == CONTROL:
        code = (
            "import sys, time, pytest\n"
            f"end = time.monotonic() + {seconds}\n"
            "while time.monotonic() < end:\n"
            "    if status := pytest.main(['-q', '-p', 'no:cacheprovider', 'tests/fuzz/test_router_protocol.py']):\n"
            "        sys.exit(status)\n"
        )
        command, folder = [sys.executable, "-c", code], programs.BUILD.parents[1]
    else:
        corpus = programs.BUILD / "corpus" / name
        programs.seed(name, corpus)
        command, folder = [*programs.command(name, seconds), str(corpus)], found
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["nice", "-n", "10", *command], cwd=folder, stdout=out, stderr=out,
            env={**os.environ, "FFVERBS_FUZZ_ROUNDS": "40"},
        )  # fmt: skip
    return Run(name, seconds, process, log, time.monotonic())


def fuzz(names: list[str], seconds: int, jobs: int) -> Iterator[Run]:
    """Run them all, some at a time; each is given back when it has ended."""
    waiting, looked = list(names), time.monotonic()
    under_way: list[Run] = []
    try:
        while waiting or under_way:
            while waiting and len(under_way) < jobs:
                under_way.append(start(waiting.pop(0), seconds))
            time.sleep(0.5)
            for run in [run for run in under_way if run.process.poll() is not None]:
                under_way.remove(run)
                yield run
            if time.monotonic() - looked > _LOOK_S:
                looked = time.monotonic()
                for run in under_way:
                    print(run.line(), flush=True)
    finally:
        for run in under_way:
            run.process.kill()
            run.process.wait()


def main() -> int:
    """Return 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.long", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join([*programs.PROGRAMS, CONTROL]))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    given = parser.parse_args()
    names = given.names or [*programs.PROGRAMS, CONTROL]
    if unknown := set(names) - {*programs.PROGRAMS, CONTROL}:
        parser.error(f"no such program: {', '.join(sorted(unknown))}")
    if why := programs.missing():
        print(why, file=sys.stderr)
        return 2
    programs.build()
    bad = []
    for run in fuzz(names, max(1, round(60 * given.minutes)), given.jobs):
        print(f"{run.line()}  {'well' if run.process.returncode == 0 else 'FAILED: ' + str(run.log)}", flush=True)
        bad += [run.name] if run.process.returncode else []
    print(f"{len(names)} fuzzed, {len(bad)} failed{': ' if bad else ''}{', '.join(bad)}")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())

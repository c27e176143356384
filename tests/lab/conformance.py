"""The conformance suite over real RDMA, and over other ways: what comes of each test must be the same.

    python -m tests.lab.conformance [--ways rdma,wired,tcp,shm] [--part] [-k EXPRESSION]

`rdma` is two routers on the two Soft-RoCE devices of one machine of the lab, with the tests in it; `wired` two machines
on a wire, a host each, whose containers are commanded from here; `tcp` two hosts of this machine; `shm` two processes
of one host. `--part` takes the files of `PART` alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.vm import packages
from tests.lab.vm.machine import Machine

SUITE = Path("tests") / "conformance"
PART = ("test_operations", "test_channels", "test_closing", "test_counters", "test_deregistration", "test_srq")
WIRED_PART = [str(SUITE / "test_operations.py"), "-k", "not large"]  # large ones have tests/lab/test_wired.py
TWO_DEVICES = packages.ROOT / "tests" / "lab" / "vm" / "two_devices.sh"
PAIRS = ("pair", "apart", "ends", "foreign")  # the fixtures that stand for paths
ADDRESSES = "192.0.2.1,192.0.2.2"  # of vm/two_devices.sh
DEADLINE_S = 7200.0
WIRED = {"FFVERBS_TEST_RDMA": "wired", "FFVERBS_TEST_PATIENCE": "10"}  # two machines, on the processors of one
PATHS = {"wired": ("rdma", WIRED), "tcp": ("tcp", {}), "shm": ("processes", {})}  # with the tests on this machine
Outcomes = dict[str, str]


class Selection:
    """A plugin of pytest: the tests of one path alone, and what came of each, by its name without the path."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.outcomes: Outcomes = {}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out the tests of other paths, and of none."""
        chosen = [item for item in items if self._path in (_parameters(item).get(name) for name in PAIRS)]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what came of a test: of its call, and of what is around that when it does not pass."""
        if report.when == "call" or report.outcome != "passed":
            name, _, parameters = report.nodeid.partition("[")
            others = [word for word in parameters.rstrip("]").split("-") if word != self._path]
            self.outcomes["-".join([name, *others])] = report.outcome


def _parameters(item: pytest.Item) -> dict[str, object]:
    call = getattr(item, "callspec", None)
    return call.params if call else {}


def select_and_run(path: str, more: list[str], outcomes: Path) -> None:
    """Run the tests of one path in this process, and write down what came of each."""
    selection = Selection(path)
    patient = ["-o", "timeout=1200"]  # a test that is ended by its time takes all with it
    without = ["--ignore", str(SUITE / "test_memory_life.py")]  # within one host only
    pytest.main(["-v", "--tb=short", "-p", "no:cacheprovider", *patient, *without, *more], plugins=[selection])
    outcomes.write_text(json.dumps(selection.outcomes), encoding="utf-8")


def _command(path: str, outcomes: Path, more: list[str]) -> list[str]:
    return [sys.executable, "-m", "tests.lab.conformance", "--only", path, "--outcomes", str(outcomes), *more]


def over_rdma(machine: Machine, more: list[str], heard: Callable[[str], None]) -> Outcomes:
    """Run the tests in a machine, which has two devices."""
    environment = packages.ENVIRONMENT | {"FFVERBS_TEST_RDMA": ADDRESSES}
    command = _command("rdma", Path("/run/share/outcomes"), more)
    machine.begin(command, environment=environment, folder=packages.ROOT).follow(heard, DEADLINE_S)
    return _read(machine.share / "outcomes")


def from_here(way: str, more: list[str], heard: Callable[[str], None]) -> Outcomes:
    """Run the tests on this machine, over one of `PATHS`."""
    path, environment = PATHS[way]
    with tempfile.TemporaryDirectory() as folder:
        outcomes = Path(folder) / "outcomes"
        command = _command(path, outcomes, more)
        with subprocess.Popen(
            command,
            cwd=packages.ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as running:
            assert running.stdout
            for line in running.stdout:
                heard(line)
        return _read(outcomes)


def _read(outcomes: Path) -> Outcomes:
    return dict(json.loads(outcomes.read_text(encoding="utf-8"))) if outcomes.exists() else {}


def files(names: tuple[str, ...]) -> list[str]:
    """Return the arguments of pytest that choose these files of the suite, without names all."""
    return [str(SUITE / f"{name}.py") for name in names] or [str(SUITE)]


def differences(outcomes: dict[str, Outcomes]) -> list[str]:
    """Say of each test what came of it each way, where that is not a success on all."""
    names = sorted({name for one in outcomes.values() for name in one})
    lines = [(name, {way: one.get(name, "not run") for way, one in outcomes.items()}) for name in names]
    return [
        f"{name}: {', '.join(f'{way} {what}' for way, what in came.items())}"
        for name, came in lines
        if len(set(came.values())) > 1 or "failed" in came.values()
    ]


def agree(outcomes: dict[str, Outcomes]) -> bool:
    """Whether nothing failed or was left out, and all ways between hosts did the same: within one, more can be done."""
    between = [one for way, one in outcomes.items() if way != "shm"]
    failed = any("failed" in one.values() or not one for one in outcomes.values())
    same_tests = len({frozenset(one) for one in outcomes.values()}) == 1
    return not failed and same_tests and all(one == between[0] for one in between)


def counts(outcomes: Outcomes) -> str:
    """Return how many tests passed, failed and were skipped."""
    return ", ".join(f"{count} {what}" for what, count in sorted(Counter(outcomes.values()).items()))


def _show(text: str) -> None:
    print(text, end="", flush=True)


def run_way(way: str, more: list[str]) -> Outcomes:
    """Run the tests over it, and show what they say."""
    if way != "rdma":
        return from_here(way, more, _show)
    with Machine("conformance") as machine:
        made = machine.run(["sh", str(TWO_DEVICES)])
        assert made.status == 0, made.output
        return over_rdma(machine, more, _show)


def main() -> int:
    """Run all ways and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--part", action="store_true", help="about a minute each way: what `make test` runs")
    parser.add_argument("--ways", default="rdma,wired,tcp,shm", help="one or more of rdma,wired,tcp,shm (all)")
    parser.add_argument("-k", dest="keyword", default="", metavar="EXPRESSION", help="of pytest: only these tests")
    parser.add_argument("--only", metavar="PATH", help=argparse.SUPPRESS)
    parser.add_argument("--outcomes", type=Path, help=argparse.SUPPRESS)
    options, more = parser.parse_known_args()
    chosen = ["-k", options.keyword] if options.keyword else []
    if options.only:
        select_and_run(options.only, [*chosen, *more], options.outcomes)
        return 0
    ways = options.ways.split(",")
    if unknown := set(ways) - {"rdma", *PATHS}:
        parser.error(f"no such way: {', '.join(sorted(unknown))}")
    if (reason := packages.unavailable()) is not None:
        print(f"no machine: {reason}", file=sys.stderr)
        return 1
    more = [*files(PART if options.part else ()), *chosen, *more]
    outcomes = {way: run_way(way, more) for way in ways}
    for way, one in outcomes.items():
        print(f"{way}: {counts(one)}")
    print(*differences(outcomes), sep="\n")
    return int(not agree(outcomes))


if __name__ == "__main__":
    sys.exit(main())

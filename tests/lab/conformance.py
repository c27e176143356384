"""The conformance suite over real RDMA: two routers on the two Soft-RoCE devices of a machine of the lab.

    python -m tests.lab.conformance [--part] [-k EXPRESSION]

The same tests run over tcp, on this host, and what comes of each must be the same. `--part` takes the files of `PART`
alone.
"""

import argparse
import json
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
TWO_DEVICES = packages.ROOT / "tests" / "lab" / "vm" / "two_devices.sh"
PAIRS = ("pair", "apart")  # the fixtures that stand for every path: others know paths of their own
ADDRESSES = "192.0.2.1,192.0.2.2"  # of vm/two_devices.sh
DEADLINE_S = 2400.0
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
    without = ["--ignore", str(SUITE / "test_cm.py")]  # it has paths of its own, and none of them is RDMA
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


def over_tcp(more: list[str], heard: Callable[[str], None]) -> Outcomes:
    """Run the tests between two hosts of this one."""
    with tempfile.TemporaryDirectory() as folder:
        outcomes = Path(folder) / "outcomes"
        done = subprocess.run(
            _command("tcp", outcomes, more),
            cwd=packages.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )
        heard(done.stdout)
        return _read(outcomes)


def _read(outcomes: Path) -> Outcomes:
    return dict(json.loads(outcomes.read_text(encoding="utf-8"))) if outcomes.exists() else {}


def files(names: tuple[str, ...]) -> list[str]:
    """Return the arguments of pytest that choose these files of the suite, without names all."""
    return [str(SUITE / f"{name}.py") for name in names] or [str(SUITE)]


def differences(rdma: Outcomes, tcp: Outcomes) -> list[str]:
    """Say of each test what came of it, where that is not a success on both ways."""
    names = sorted(rdma.keys() | tcp.keys())
    lines = [(name, rdma.get(name, "not run"), tcp.get(name, "not run")) for name in names]
    return [f"{name}: rdma {a}, tcp {b}" for name, a, b in lines if a != b or a == "failed"]


def _show(text: str) -> None:
    print(text, end="", flush=True)


def main() -> int:
    """Run both ways and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--part", action="store_true", help="about a minute: what `make test` runs")
    parser.add_argument("-k", dest="keyword", default="", metavar="EXPRESSION", help="of pytest: only these tests")
    parser.add_argument("--only", metavar="PATH", help=argparse.SUPPRESS)
    parser.add_argument("--outcomes", type=Path, help=argparse.SUPPRESS)
    options, more = parser.parse_known_args()
    chosen = ["-k", options.keyword] if options.keyword else []
    if options.only:
        select_and_run(options.only, [*chosen, *more], options.outcomes)
        return 0
    if (reason := packages.unavailable()) is not None:
        print(f"no machine: {reason}", file=sys.stderr)
        return 1
    more = [*files(PART if options.part else ()), *chosen, *more]
    with Machine("conformance") as machine:
        made = machine.run(["sh", str(TWO_DEVICES)])
        assert made.status == 0, made.output
        rdma = over_rdma(machine, more, _show)
    tcp = over_tcp(more, _show)
    different = differences(rdma, tcp)
    for name, outcomes in (("rdma", rdma), ("tcp", tcp)):
        print(f"{name}: {', '.join(f'{count} {what}' for what, count in sorted(Counter(outcomes.values()).items()))}")
    print(*different, sep="\n")
    return int(bool(different) or not rdma)


if __name__ == "__main__":
    sys.exit(main())

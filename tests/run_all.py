"""Run the project's checks in order, with progress, and sum them up: what `make test` and CI run.

Usage: run_all.py [STAGE...]; without arguments all stages run, each to its end even when an earlier one
failed. The last line counts the tests of every runner together ("N passed, N failed, N skipped"); the status is 1 if
anything failed.
"""

import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
REPORTS = ROOT / "build" / "reports"
PYTHON_SUITES = ("unit", "budget", "registry", "conformance", "sockets", "crash", "fuzz", "lab", "rdma_core")

# A build's sanitizer finds more when it stops at once and shows both sides.
SANITIZER_ENV = {
    "ASAN_OPTIONS": "halt_on_error=1:abort_on_error=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "halt_on_error=1:abort_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:abort_on_error=1:second_deadlock_stack=1",
}


@dataclass
class Counts:
    """How many tests passed, failed and were skipped, and what the failed ones are called."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    names: list[str] = field(default_factory=list)

    def __iadd__(self, other: "Counts") -> "Counts":
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.names += other.names
        return self


def run(command: list[str], deadline_s: float, env: dict[str, str] | None = None) -> int:
    """Run `command` from the source root and return its status; past the deadline its process group is killed."""
    path = f"{BIN}:{os.environ['PATH']}"
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PATH": path, **(env or {})}, start_new_session=True
    ) as process:
        try:
            return process.wait(deadline_s)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            print(f"{command[0]} did not end within {deadline_s:.0f} s and was killed", flush=True)
            return 1


def lint() -> Counts:
    """Style, types and layers of the Python side; each tool counts as one test."""
    counts = Counts()
    for command in (
        ["ruff", "check", "."],
        ["mypy"],
        ["lint-imports"],
    ):
        print(f"$ {' '.join(command)}", flush=True)
        ok = run([str(BIN / command[0]), *command[1:]], 300) == 0
        counts += Counts(passed=int(ok), failed=int(not ok), names=[] if ok else [command[0]])
    return counts


def native(kind: str) -> Counts:
    """Build one variant of the C tests and run them."""
    build = ROOT / "build" / kind
    if not (build / "build.ninja").exists() and run(["make", "--no-print-directory", f"build/{kind}/build.ninja"], 300):
        return Counts(failed=1)
    if run([str(BIN / "meson"), "compile", "-C", str(build), "-j", "2"], 600):
        return Counts(failed=1)
    slower = "8" if kind in ("asan", "tsan") else "4"  # limits for what hangs: a busy machine is no fault
    command = [str(BIN / "meson"), "test", "-C", str(build), "--no-rebuild", "--print-errorlogs", "-t", slower]
    # ThreadSanitizer of gcc 12 gives up where the kernel randomises more address bits than it knows of; where the
    # kernel does not let us turn that off (containers), it has to do without.
    no_random = ["setarch", "--addr-no-randomize"]
    wrapped = kind == "tsan" and subprocess.run([*no_random, "true"], capture_output=True, check=False).returncode == 0
    if kind == "faults":
        command += ["--suite", "fault"]
    if wrapped:
        command += ["--wrapper", " ".join(no_random)]
    report = build / "meson-logs" / ("testlog-setarch.junit.xml" if wrapped else "testlog.junit.xml")
    report.unlink(missing_ok=True)
    return from_junit(report, run(command, 1500, SANITIZER_ENV))


def from_junit(report: Path, status: int) -> Counts:
    """Count the cases of a JUnit file; a runner that failed without saying so there counts as one failure."""
    counts = Counts()
    if report.exists():
        for case in ET.parse(report).getroot().iter("testcase"):
            kinds = {child.tag for child in case}
            if kinds & {"failure", "error"}:
                counts.failed += 1
                counts.names.append(f"{case.get('classname', '')}::{case.get('name', '')}")
            elif "skipped" in kinds:
                counts.skipped += 1
            else:
                counts.passed += 1
    if status and not counts.failed:
        counts.failed = 1
    return counts


def python_suite(name: str) -> Counts:
    """Run one folder of pytest tests; a folder in which no test ran is a failure."""
    report = REPORTS / f"{name}.xml"
    report.unlink(missing_ok=True)
    command = [str(BIN / "python"), "-m", "pytest", f"tests/{name}", f"--junitxml={report}"]
    return from_junit(report, run(command, 3600 if name == "lab" else 1500))  # emulated machines take their time


def stages() -> dict[str, Callable[[], Counts]]:
    """Name every stage, in the order in which they run."""
    table: dict[str, Callable[[], Counts]] = {"lint": lint}
    for kind in ("plain", "faults", "asan", "tsan"):
        table[f"native-{kind}"] = lambda kind=kind: native(kind)  # type: ignore[misc]
    for name in PYTHON_SUITES:
        table[name.replace("_", "-")] = lambda name=name: python_suite(name)  # type: ignore[misc]
    return table


def main(names: list[str]) -> int:
    """Run the named stages (all without a name) and print what came of them, the failed tests by name."""
    table = stages()
    unknown = [name for name in names if name not in table]
    if unknown:
        print(f"no such stage: {', '.join(unknown)}; there are: {', '.join(table)}", file=sys.stderr)
        return 2
    REPORTS.mkdir(parents=True, exist_ok=True)
    total = Counts()
    rows = []
    for name in names or table:
        print(f"\n=== {name} " + "=" * (100 - len(name)), flush=True)
        began = time.monotonic()
        counts = table[name]()
        total += counts
        rows.append(f"{name:<14} {counts.passed:>5} passed {counts.failed:>4} failed {counts.skipped:>4} skipped "
                    f"{time.monotonic() - began:7.1f} s")
        rows += [f"  failed: {case}" for case in counts.names[:10]]
    print("\n" + re.sub("^", "  ", "\n".join(rows), flags=re.M))
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped", flush=True)
    return int(total.failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Compare ffverbs with its peers on one host: run them in turn, report ratios against what is aimed at, write JSON.

The exit code is 0 whether or not the targets are reached; it is 1 when nothing could be measured.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks import machine, placement, programs, report, timebox
from benchmarks.claims import ALL_SUBJECTS
from benchmarks.programs import NotMeasuredError
from benchmarks.subjects import Setup, Subject
from benchmarks.targets import Sample, has_enough, judge, not_judged
from benchmarks.timebox import TimeBox

# The sleep's own wake-up, and two readings of the clock, are some 100 us.
IDLE_CPU_NS: Final = 1_000_000
QP_BYTES: Final = 64 * 1024
# Of the default run.
MINUTES: Final = 6.0
# Of a report that goes to a file.
REPORT_COLUMNS: Final = 150


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = ", ".join(subject.name for subject in ALL_SUBJECTS)
    parser.add_argument("--rounds", type=int, default=5, help="how often each subject is run (default 5)")
    parser.add_argument(
        "--max-rounds",
        type=int,
        default=15,
        help="go on so long if the machine moved the cores and no placement has enough samples (default 15)",
    )
    timebox.add_option(parser, MINUTES)
    parser.add_argument("--cpus", default="0,1", help="the two cores (default 0,1)")
    parser.add_argument("--only", default="", help=f"comma-separated subjects: {names}")
    parser.add_argument("--no-resources", action="store_true", help="leave out idle CPU, memory and many queue pairs")
    parser.add_argument("--ffverbs", default=machine.ffverbs_command(), help="the command that starts ffverbs")
    parser.add_argument("--json", type=Path, default=programs.CACHE / "compare_local.json", help="where to write")
    args = parser.parse_args(argv)
    cores = args.cpus.split(",")
    if len(cores) != 2 or not all(core.isdecimal() for core in cores) or cores[0] == cores[1]:
        parser.error(f"--cpus {args.cpus}: give two different cores, such as 0,1")
    if not 1 <= args.rounds <= args.max_rounds:
        parser.error(f"--rounds {args.rounds}: give 1 to --max-rounds ({args.max_rounds})")
    if unknown := set(filter(None, args.only.split(","))) - {subject.name for subject in ALL_SUBJECTS}:
        parser.error(f"--only: no subject {', '.join(sorted(unknown))}; there are {names}")
    return args


class Comparison:
    """The samples so far, and what could not be measured."""

    def __init__(self, setup: Setup, subjects: Sequence[Subject], console: Console) -> None:
        self.setup = setup
        self.subjects = subjects
        self.console = console
        self.samples: list[Sample] = []
        self.failures: dict[str, str] = {}

    def _measure(self, subject: Subject) -> str:
        before = placement.probe(self.setup.cpus)
        try:
            value, detail = subject.measure(self.setup)
        except NotMeasuredError as error:
            self.failures[subject.name] = str(error)
            return "not measured"
        after = placement.probe(self.setup.cpus)
        self.samples.append(Sample(subject.name, value, before, after, detail))
        moved = "" if placement.placements([before, after])[1:] == [] else " (the cores were moved)"
        return f"{report.quantity(value, subject.unit)}{moved}"

    def run_round(self, number: int, box: TimeBox) -> None:
        """Run every subject once, self and peers in turn; but for the first round, until the time is over."""
        measured = {sample.subject for sample in self.samples}
        for subject in self.subjects:
            if number > 1 and box.is_spent():
                return
            # What failed without ever having worked is not tried again: it takes time from the others.
            if subject.name in measured or subject.name not in self.failures:
                self.console.print(f"round {number}: {subject.label}: {self._measure(subject)}", highlight=False)

    def run(self, rounds: int, max_rounds: int, box: TimeBox) -> None:
        """Run `rounds` rounds, and up to `max_rounds` while no placement has enough samples, if there is time."""
        for number in range(1, max_rounds + 1):
            names = [subject.name for subject in self.subjects if subject.name not in self.failures]
            if not names or (number > rounds and has_enough(self.samples, names)):
                return
            self.run_round(number, box)


def _resource_row(result: dict[str, Any]) -> dict[str, Any]:
    if result["test"] == "idle":
        label = f"CPU of an idle connected process in {result['seconds']:.0f} s"
        text = f"{result['cpu_ns'] / 1e3:.0f} us, {result['switches']} switches"
        target, is_reached = "none (at most 1 ms)", result["cpu_ns"] <= IDLE_CPU_NS
    elif result["test"] == "memory":
        label = "memory of a connected RC QP, default depths"
        text = f"{result['bytes_per_qp'] / 1024:.1f} KiB"
        target, is_reached = f"under {QP_BYTES // 1024} KiB", result["bytes_per_qp"] < QP_BYTES
    else:
        label = f"{result['queue_pairs']} queue pairs in one context, a checked message on each"
        text = f"{result['seconds']:.1f} s, {result['bytes'] / 2**20:.0f} MiB"
        target, is_reached = "works", result["messages_checked"] == result["queue_pairs"]
    return {"label": label, "text": text, "target": target, "is_reached": is_reached, "result": result}


def _resources(console: Console, failures: dict[str, str]) -> list[dict[str, Any]]:
    rows = []
    for test in ("idle", "memory", "many"):
        console.print(f"resources: {test}", highlight=False)
        try:
            command = [sys.executable, "-m", "benchmarks.resources", test]
            rows.append(_resource_row(programs.run_json(command, timeout_s=300)))
        except NotMeasuredError as error:
            failures[test] = str(error)
    return rows


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; see --help."""
    args = _arguments(argv)
    progress, console = Console(stderr=True), Console(width=None if sys.stdout.isatty() else REPORT_COLUMNS)
    only = set(filter(None, args.only.split(",")))
    subjects = [subject for subject in ALL_SUBJECTS if not only or subject.name in only]
    comparison = Comparison(Setup(args.ffverbs, args.cpus), subjects, progress)
    try:
        comparison.run(args.rounds, args.max_rounds, TimeBox(args.minutes))
    except NotMeasuredError as error:  # the probe itself: no compiler, or cores that are not ours
        progress.print(f"cannot measure on this machine: {error}", markup=False)
        return 1
    resources = [] if args.no_resources else _resources(progress, comparison.failures)
    verdicts = judge(comparison.samples)
    report.show(console, verdicts, resources, comparison.failures)
    asked = {subject.name for subject in subjects} - comparison.failures.keys()
    report.show_not_judged(console, not_judged(verdicts, asked))
    content = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "cpus": args.cpus,
        "placements": [verdict.as_json() for verdict in verdicts],
        "resources": resources,
        "not_measured": comparison.failures,
        "samples": [
            vars(sample) | {"before": vars(sample.before), "after": vars(sample.after)} for sample in comparison.samples
        ],
    }
    _write(args.json, content)
    progress.print(f"written: {args.json}", highlight=False)
    return 0 if comparison.samples or resources else 1


if __name__ == "__main__":
    sys.exit(main())

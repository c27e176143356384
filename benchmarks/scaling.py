"""What a message costs as there is more of everything on one host: queue pairs, keys, senders, queues, processes.

python -m benchmarks.scaling [--full] [--only TEST,...] [--out FOLDER]

Each test is benchmarks/scaling.c (or, between two hosts, remote_qps.py) with a growing number of things that are there
and a fixed number that are used. All numbers of a test are run in turn, this is repeated, and a value is the median
over the repetitions. Writes scaling.json, scaling.md and scaling.png.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import track

from benchmarks import figures, machine, programs, results, timebox
from benchmarks.programs import NotMeasuredError
from benchmarks.timebox import TimeBox

SHORT_REPEATS: Final = 5
FULL_REPEATS: Final = 15
SHORT_MINUTES: Final = 2.0
TIMEOUT_S: Final = 300


@dataclass(frozen=True)
class Test:
    """`counts` in the order of growth; the cost at the first one is what the others are compared with."""

    name: str
    title: str
    counts: tuple[int, ...]
    iters: int
    module: str | None = None  # that prints what scaling.c else does

    def command(self, count: int) -> list[str]:
        """Return what measures it with `count` of them."""
        program = [sys.executable, "-m", self.module] if self.module else [programs.with_engine("scaling"), self.name]
        return [*program, str(count), "--iters", str(self.iters)]


TESTS: Final = (
    Test("qps", "queue pairs there, 16 of them used (WRITE 8 B)", (16, 100, 1000, 10_000), 20_000),
    Test("keys", "memory regions there, 16 of them used (WRITE 8 B)", (16, 1000, 10_000, 100_000), 20_000),
    Test("srq", "queue pairs that share a receive queue, 16 of them used (SEND 8 B)", (16, 100, 1000), 20_000),
    Test("cqs", "completion queues for 16 queue pairs; 1: all share it (WRITE 8 B)", (1, 4, 16), 20_000),
    Test("processes", "processes that send to one (SEND 8 B, processor time of all)", (1, 4, 16, 64), 20_000),
    Test(
        "remote",
        "queue pairs to another host, 16 of them used (WRITE 8 B, processor time of both routers)",
        (16, 100, 1000, 2000),
        20_000,
        "benchmarks.remote_qps",
    ),
)


def _measure(
    tests: Sequence[Test], repeats: int, console: Console, box: TimeBox
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    samples: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    runs = [(repetition, test, count) for repetition in range(repeats) for test in tests for count in test.counts]
    for repetition, test, count in track(runs, "scaling", console=console):
        if repetition and box.is_spent():
            break
        if test.name in failures:
            continue
        with tempfile.TemporaryDirectory(prefix="ffv-") as directory:
            try:
                found = programs.run_json(test.command(count), timeout_s=TIMEOUT_S, env={"FFVERBS_DIR": directory})
                samples.append(found)
            except NotMeasuredError as error:
                failures[test.name] = f"with {count}: {error}"
    return samples, failures


def summarise(samples: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, float]]:
    """Return the median of each test and number, in ns a message, of the best batch of each run."""
    groups: dict[tuple[str, int], list[float]] = {}
    for sample in samples:
        groups.setdefault((sample["test"], sample["count"]), []).append(sample["best_ns"])
    found: dict[str, dict[int, float]] = {}
    for (test, count), values in groups.items():
        found.setdefault(test, {})[count] = statistics.median(values)
    return found


def markdown(content: Mapping[str, Any]) -> str:
    """Return a table for each test: ns a message, and the ratio to the smallest number."""
    lines = ["# A message's cost as there is more of everything", "", figures.headline(content), ""]
    for name, by_count in content["medians"].items():
        first = next(iter(by_count.values()))
        lines += [f"## {content['titles'][name]}", "", "| | ns a message | ratio |", "| ---: | ---: | ---: |"]
        lines += [f"| {count} | {value:.1f} | {value / first:.2f} |" for count, value in by_count.items()]
        lines += [""]
    lines += [f"Not measured: {name}: {reason}" for name, reason in content["not_measured"].items()]
    return "\n".join(lines) + "\n"


def draw(content: Mapping[str, Any], folder: Path) -> list[str]:
    """Draw the cost against the number, each test relative to its smallest."""
    pyplot = figures.plotting()
    if pyplot is None or not content["medians"]:
        return []
    figure, axes = pyplot.subplots(figsize=(9, 6), layout="constrained")
    for name, by_count in content["medians"].items():
        counts = sorted(by_count)
        label = content["titles"][name]
        axes.plot(counts, [by_count[n] / by_count[counts[0]] for n in counts], marker="o", markersize=4, label=label)
    axes.axhspan(0.8, 1.2, color="grey", alpha=0.15, label="within 20 %")
    axes.set(xscale="log", xlabel="how many there are", yscale="log", ylabel="cost of a message, ratio to the fewest")
    axes.grid(True, alpha=0.3)
    axes.set_yticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    axes.minorticks_off()
    figure.legend(fontsize="small", loc="outside lower center")
    figure.savefig(folder / "scaling.png", dpi=110)
    pyplot.close(figure)
    return ["scaling.png"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tests; see --help."""
    names = ", ".join(test.name for test in TESTS)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="more repetitions, no limit of time")
    timebox.add_option(parser, SHORT_MINUTES)
    parser.add_argument("--only", default="", help=f"comma-separated tests: {names}")
    parser.add_argument("--out", type=Path, default=programs.CACHE, help="folder for what is written")
    args = parser.parse_args(argv)
    only = set(filter(None, args.only.split(",")))
    if unknown := only - {test.name for test in TESTS}:
        parser.error(f"--only: no test {', '.join(sorted(unknown))}; there are {names}")
    tests = [test for test in TESTS if not only or test.name in only]
    console = Console(stderr=True)
    try:
        samples, failures = _measure(
            tests,
            FULL_REPEATS if args.full else SHORT_REPEATS,
            console,
            TimeBox(None if args.full else args.minutes),
        )
    except NotMeasuredError as error:
        console.print(f"cannot measure: {error}", markup=False)
        return 1
    content: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "titles": {test.name: test.title for test in tests},
        "medians": summarise(samples),
        "samples": samples,
        "not_measured": failures,
    }
    written = results.save(args.out, "scaling", content, markdown(content))
    results.tell(console, args.out, [*written, *draw(content, args.out)], failures)
    return 0 if samples else 1


if __name__ == "__main__":
    sys.exit(main())

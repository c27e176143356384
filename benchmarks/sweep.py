"""Latency, throughput and processor time against message size: ffverbs and its peers on one host, in turn.

python -m benchmarks.sweep [--full] [--only MODE,...] [--out FOLDER]

Writes sweep.json, sweep.md and one plot for each quantity. A size is measured in every mode before the next size is
begun, the ends first, the whole is repeated, and a value is the median over the repetitions. Exit code 1 when nothing
could be measured.
"""

import argparse
import resource
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import figures, machine, paper, placement, programs, results, timebox
from benchmarks.modes import MODES as LOCAL_MODES
from benchmarks.modes import Mode
from benchmarks.network_modes import NETWORK_MODES
from benchmarks.programs import NotMeasuredError
from benchmarks.subjects import Setup
from benchmarks.timebox import TimeBox

MODES: Final = (*LOCAL_MODES, *NETWORK_MODES)
SHORT_SIZES: Final = tuple(8 * 8**i for i in range(7))  # 8 B to 2 MiB
FULL_SIZES: Final = tuple(2**i for i in range(1, 23))  # 2 B to 4 MiB
SHORT_REPEATS: Final = 3
FULL_REPEATS: Final = 5
SHORT_MINUTES: Final = 9.0
# Measured whatever the time: the ends and the middle.
LEAST_SIZES: Final = 3
# How long a test may take, by a rough guess of a mode's speed.
TEST_S: Final = 0.3
MOST_STREAM_BYTES: Final = 4 << 30
COPY_BYTES_PER_S: Final = 3e9


@dataclass(frozen=True)
class Point:
    """What one mode does at one size; None: it has no such test, or could not be measured."""

    mode: str
    size_bytes: int
    p50_ns: float | None
    p99_ns: float | None
    p999_ns: float | None
    bytes_per_s: float | None
    cpu_ns_per_byte: float | None
    handover_ns: float


def _cpu_ns(mode: Mode) -> float:
    """Processor time of all children that have ended (the programs run one at a time) and of what else takes part."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    others = mode.others_cpu_ns() if mode.others_cpu_ns is not None else 0.0
    return (usage.ru_utime + usage.ru_stime) * 1e9 + others


def _count(cost_s: float, size_bytes: int, times: int = 1) -> int:
    """How many messages make a test of so many TEST_S."""
    in_time = int(TEST_S / (cost_s + size_bytes / COPY_BYTES_PER_S))
    return times * max(64, min(in_time, MOST_STREAM_BYTES // size_bytes))


def stream(mode: Mode, setup: Setup, size_bytes: int, times: int = 1) -> tuple[float | None, float | None]:
    """Return bytes/s and the processor's ns a byte, of all processes together; None for what the mode does not tell.

    Starting a program costs more than many a test, so a test is run at two lengths: what the longer one costs more is
    the cost of what it sends more.
    """
    if mode.stream is None:
        return None, None
    count = _count(mode.stream_s_per_message, size_bytes, times)
    costs = []
    rate = 0.0
    for messages in (max(16, count // 8), count):
        before = _cpu_ns(mode)
        rate = mode.stream(setup, size_bytes, messages)
        costs.append((_cpu_ns(mode) - before, messages * size_bytes))
    (short_ns, short_bytes), (long_ns, long_bytes) = costs
    cost = (long_ns - short_ns) / (long_bytes - short_bytes)
    return rate, cost if cost > 0 else None  # lost in the noise of starting programs


def measure(mode: Mode, setup: Setup, size_bytes: int) -> Point:
    """Measure one mode at one size."""
    handover_ns = placement.probe(setup.cpus).one_line_ns
    latency = None
    if mode.latency is not None:
        latency = mode.latency(setup, size_bytes, _count(mode.latency_s, size_bytes))
    rate, cost = stream(mode, setup, size_bytes)
    return Point(
        mode=mode.name,
        size_bytes=size_bytes,
        p50_ns=latency.p50_ns if latency else None,
        p99_ns=latency.p99_ns if latency else None,
        p999_ns=latency.p999_ns if latency else None,
        bytes_per_s=rate,
        cpu_ns_per_byte=cost,
        handover_ns=handover_ns,
    )


def coarse_to_fine(sizes: Sequence[int]) -> list[int]:
    """Return the ends, then the middle, then the middles of what is between: what is left out then is in between."""
    order = [0, len(sizes) - 1]
    spans = [(0, len(sizes) - 1)]
    while spans:
        low, high = spans.pop(0)
        middle = (low + high) // 2
        if middle not in order:
            order.append(middle)
        if high - low > 1:
            spans += [(low, middle), (middle, high)]
    return [sizes[i] for i in dict.fromkeys(order)]


def run(
    modes: Sequence[Mode], setup: Setup, sizes: Sequence[int], repeats: int, console: Console, box: TimeBox
) -> tuple[list[Point], dict[str, str]]:
    """Measure everything; what cannot be measured is left out, with the reason.

    Once the time is over, repetitions are left out, and sizes between those that were measured.
    """
    points: list[Point] = []
    failures: dict[str, str] = {}
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("sweep", total=repeats * len(sizes) * len(modes))
        for repetition in range(repeats):
            for number, size_bytes in enumerate(coarse_to_fine(sizes)):
                for mode in modes:
                    if box.is_spent() and (repetition or number >= LEAST_SIZES):
                        return points, failures
                    progress.update(task, description=f"{mode.label}, {size_bytes} B")
                    if mode.name not in failures:
                        try:
                            points.append(measure(mode, setup, size_bytes))
                        except NotMeasuredError as error:
                            failures[mode.name] = str(error)
                    progress.advance(task)
    return points, failures


def _median(points: Sequence[Point], value: Callable[[Point], float | None]) -> float | None:
    known = [found for point in points if (found := value(point)) is not None]
    return statistics.median(known) if known else None


def medians(points: Sequence[Point]) -> list[Point]:
    """Return one point a mode and size, each value the median over the repetitions."""
    groups: dict[tuple[str, int], list[Point]] = {}
    for point in points:
        groups.setdefault((point.mode, point.size_bytes), []).append(point)
    return [
        Point(
            mode=mode,
            size_bytes=size_bytes,
            p50_ns=_median(group, lambda p: p.p50_ns),
            p99_ns=_median(group, lambda p: p.p99_ns),
            p999_ns=_median(group, lambda p: p.p999_ns),
            bytes_per_s=_median(group, lambda p: p.bytes_per_s),
            cpu_ns_per_byte=_median(group, lambda p: p.cpu_ns_per_byte),
            handover_ns=statistics.median(point.handover_ns for point in group),
        )
        for (mode, size_bytes), group in groups.items()
    ]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    names = ", ".join(mode.name for mode in MODES)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="every power of two, more repetitions, no limit of time")
    timebox.add_option(parser, SHORT_MINUTES)
    parser.add_argument("--only", default="", help=f"comma-separated modes: {names}")
    parser.add_argument("--cpus", default="0,1", help="the two cores (default 0,1)")
    parser.add_argument("--ffverbs", default=machine.ffverbs_command(), help="the command that starts ffverbs")
    parser.add_argument("--out", type=Path, default=programs.CACHE, help="folder for what is written")
    args = parser.parse_args(argv)
    if unknown := set(filter(None, args.only.split(","))) - {mode.name for mode in MODES}:
        parser.error(f"--only: no mode {', '.join(sorted(unknown))}; there are {names}")
    return args


def _content(args: argparse.Namespace, points: Sequence[Point], failures: dict[str, str]) -> dict[str, Any]:
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "cpus": args.cpus,
        "labels": {mode.name: mode.label for mode in MODES},
        "points": [asdict(point) for point in sorted(medians(points), key=lambda point: point.size_bytes)],
        "samples": [asdict(point) for point in points],
        "not_measured": failures,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sweep; see --help."""
    args = _arguments(argv)
    console = Console(stderr=True)
    only = set(filter(None, args.only.split(",")))
    modes = [mode for mode in MODES if not only or mode.name in only]
    sizes, repeats = (FULL_SIZES, FULL_REPEATS) if args.full else (SHORT_SIZES, SHORT_REPEATS)
    try:
        box = TimeBox(None if args.full else args.minutes)
        points, failures = run(modes, Setup(args.ffverbs, args.cpus), sizes, repeats, console, box)
    except NotMeasuredError as error:  # the probe itself: no compiler, or cores that are not ours
        console.print(f"cannot measure on this machine: {error}", markup=False)
        return 1
    content = _content(args, points, failures)
    written = results.save(args.out, "sweep", content, figures.markdown(content))
    written += [*figures.draw(content, args.out), *paper.draw(content, args.out)]
    for name, reason in failures.items():
        console.print(f"not measured: {name}: {reason}", markup=False, highlight=False)
    console.print(f"written to {args.out}: {', '.join(written)}", highlight=False)
    return 0 if points else 1


if __name__ == "__main__":
    sys.exit(main())

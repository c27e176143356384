"""The microbenchmarks' last run, as ratios to an empty cffi call, against the committed ones.

python -m benchmarks.micro_ratios [--update] [--worse PERCENT] FOLDER

FOLDER is pytest-benchmark's storage. Times of another machine say nothing; how many empty calls an operation takes
holds roughly everywhere, for what makes no system call more than for what makes some. Minima are compared: they are
what others on the machine disturb least. --update writes the baseline from all runs in FOLDER. Exit code 1 when an
operation takes PERCENT more than in the baseline; by default nothing fails.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

BASELINE: Final = Path(__file__).with_name("micro") / "baseline.json"
EMPTY: Final = "test_empty_call"
# Changes below it are not marked.
NOISE: Final = 0.15


def minima(run: Path) -> dict[str, float]:
    """Return the least time of each benchmark of a run, in ns."""
    found = json.loads(run.read_text(encoding="utf-8"))
    return {entry["name"]: entry["stats"]["min"] * 1e9 for entry in found["benchmarks"]}


def ratios(runs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return each benchmark's least time of all runs in least times of an empty call."""
    least: dict[str, float] = {}
    for run in runs:
        for name, value in run.items():
            least[name] = min(value, least.get(name, value))
    if EMPTY not in least:
        raise ValueError(f"{EMPTY} is not among the benchmarks: run all of benchmarks/micro")
    return {name: round(value / least[EMPTY], 2) for name, value in sorted(least.items()) if name != EMPTY}


def change(found: Mapping[str, float], baseline: Mapping[str, float]) -> dict[str, float]:
    """Return by how much each benchmark of both takes longer than in the baseline: 0.1 is 10 % more."""
    return {name: found[name] / baseline[name] - 1 for name in found if name in baseline}


def _mark(by: float | None) -> str:
    if by is None:
        return "[yellow]new"
    colour = "red" if by > NOISE else "green" if by < -NOISE else "dim"
    return f"[{colour}]{by:+.0%}"


def table(found: Mapping[str, float], baseline: Mapping[str, float], empty_ns: float) -> Table:
    """Return what was found beside the baseline."""
    shown = Table("benchmark", "empty calls", "baseline", "change", title=f"an empty cffi call takes {empty_ns:.0f} ns")
    changes = change(found, baseline)
    for name, value in found.items():
        before = f"{baseline[name]:.1f}" if name in baseline else ""
        shown.add_row(name.removeprefix("test_"), f"{value:.1f}", before, _mark(changes.get(name)))
    return shown


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, or write the baseline; see --help."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.micro_ratios",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--update", action="store_true", help="write the baseline")
    parser.add_argument("--worse", type=float, metavar="PERCENT", help="fail if something takes so much more")
    args = parser.parse_args(argv)
    runs = sorted(args.folder.glob("*/*.json"), key=lambda run: run.stat().st_mtime)
    if not runs:
        parser.error(f"no run in {args.folder}: make bench-micro makes one")
    last = minima(runs[-1])
    found = ratios([last])
    if args.update:
        written = ratios(minima(run) for run in runs)
        BASELINE.write_text(json.dumps(written, indent=1) + "\n", encoding="ascii")
    baseline = json.loads(BASELINE.read_text(encoding="ascii")) if BASELINE.exists() else {}
    Console().print(table(found, baseline, last[EMPTY]))
    worst = max(change(found, baseline).values(), default=0.0)
    return int(args.worse is not None and worst * 100 > args.worse)


if __name__ == "__main__":
    sys.exit(main())

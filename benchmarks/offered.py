"""Throughput and processor time against offered load: FreeFlow's Figure 3, with ffverbs beside TCP.

python -m benchmarks.offered [--full] [--out FOLDER]

A sender offers messages of 1 MiB at a pace; how much arrives, and how many cores both ends use for it, is measured.
Nobody spins: ffverbs sleeps on completion events. Writes offered.json, offered.md and figure3.png.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import track

from benchmarks import figures, labs, machine, programs, results
from benchmarks.programs import NotMeasuredError

LOADS_GBIT: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0)
SHORT_REPEATS, FULL_REPEATS = 1, 5
SHORT_S, FULL_S = 1.0, 3.0
TIMEOUT_S: Final = 120


@dataclass(frozen=True)
class Way:
    """`ends` gives the network for TCP; None: both ends are on the host itself."""

    name: str
    label: str
    transport: str
    ends: Callable[[], labs.Plain] | None = None


WAYS: Final = (
    Way("ffverbs", "ffverbs, one host", "ffverbs"),
    Way("tcp", "TCP over loopback (host mode)", "tcp"),
    Way("bridge", "TCP, overlay of one host (bridge)", "tcp", labs.bridge),
)


def measure(way: Way, gbit_per_s: float, seconds: float, cpus: str) -> dict[str, Any]:
    """Offer one load by one way: what arrived (Gbit/s), and the cores that were used."""
    network = way.ends() if way.ends is not None else None
    with tempfile.TemporaryDirectory(prefix="ffv-") as folder:
        env = {**os.environ, "FFVERBS_DIR": folder}
        words = ["--meeting", f"{folder}/meeting", "--gbit-per-s", str(gbit_per_s), "--seconds", str(seconds)]
        if network is not None:
            words += ["--address", network.address(1)]
        program = [sys.executable, "-m", "benchmarks.offered_end", way.transport]
        commands = [
            [*(network.enter(end) if network else []), "taskset", "-c", cpu, *program, role, *words]
            for end, (cpu, role) in enumerate(zip(cpus.split(","), ("send", "receive"), strict=True))
        ]
        receiver = subprocess.Popen(commands[1], env=env, stdout=subprocess.PIPE, text=True)
        try:
            sent = programs.run_json(commands[0], timeout_s=TIMEOUT_S, env=env)
            received = json.loads(receiver.communicate(timeout=TIMEOUT_S)[0])
        except (subprocess.TimeoutExpired, ValueError) as error:
            raise NotMeasuredError(f"the receiver: {error}") from error
        finally:
            if receiver.poll() is None:
                receiver.kill()
                receiver.wait()
    wall_ns = max(received["wall_ns"], sent["wall_ns"])
    return {
        "way": way.name,
        "offered_gbit_per_s": gbit_per_s,
        "gbit_per_s": received["bytes"] * 8 / received["wall_ns"],
        "cores": (sent["cpu_ns"] + received["cpu_ns"]) / wall_ns,
    }


def _points(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for sample in samples:
        groups.setdefault((sample["way"], sample["offered_gbit_per_s"]), []).append(sample)
    return [
        {
            "way": way,
            "offered_gbit_per_s": offered,
            **{field: statistics.median(s[field] for s in group) for field in ("gbit_per_s", "cores")},
        }
        for (way, offered), group in groups.items()
    ]


def markdown(content: Mapping[str, Any]) -> str:
    """Return one table: what arrived, and the cores that were used, by offered load."""
    lines = ["# Throughput and processor time against offered load", "", figures.headline(content), ""]
    lines += ["| way | offered (Gbit/s) | arrived (Gbit/s) | cores used |", "| --- | ---: | ---: | ---: |"]
    lines += [
        f"| {content['labels'][p['way']]} | {p['offered_gbit_per_s']:g} | {p['gbit_per_s']:.2f} | {p['cores']:.2f} |"
        for p in content["points"]
    ]
    lines += ["", *(f"Not measured: {name}: {reason}" for name, reason in content["not_measured"].items())]
    return "\n".join(lines) + "\n"


def draw(content: Mapping[str, Any], folder: Path) -> list[str]:
    """Draw both against the offered load."""
    pyplot = figures.plotting()
    if pyplot is None or not content["points"]:
        return []
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for way, label in content["labels"].items():
        points = [p for p in content["points"] if p["way"] == way]
        offered = [p["offered_gbit_per_s"] for p in points]
        style = {"linewidth": 2.5} if way == "ffverbs" else {"linewidth": 1.4, "linestyle": "--"}
        panels[0].plot(offered, [p["gbit_per_s"] for p in points], marker="o", label=label, **style)
        panels[1].plot(offered, [100 * p["cores"] for p in points], marker="o", label=label, **style)
    panels[0].set(xlabel="offered load (Gbit/s)", ylabel="throughput (Gbit/s)")
    panels[1].set(xlabel="offered load (Gbit/s)", ylabel="processor time of both ends (% of a core)")
    for axes in panels:
        axes.set(xlim=(0, None), ylim=(0, None))
        axes.grid(True, alpha=0.3)
    panels[0].legend(fontsize="small")
    figure.savefig(folder / "figure3.png", dpi=110)
    pyplot.close(figure)
    return ["figure3.png"]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and draw; see --help."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.offered", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="longer, and more repetitions")
    parser.add_argument("--cpus", default="0,1", help="the two cores (default 0,1)")
    parser.add_argument("--out", type=Path, default=programs.CACHE, help="folder for what is written")
    args = parser.parse_args(argv)
    repeats, seconds = (FULL_REPEATS, FULL_S) if args.full else (SHORT_REPEATS, SHORT_S)
    console = Console(stderr=True)
    samples: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    runs = [(way, load) for _ in range(repeats) for load in LOADS_GBIT for way in WAYS]
    for way, load in track(runs, "offered load", console=console):
        if way.name not in failures:
            try:
                samples.append(measure(way, load, seconds, args.cpus))
            except NotMeasuredError as error:
                failures[way.name] = str(error)
    content: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "labels": {way.name: way.label for way in WAYS},
        "points": sorted(_points(samples), key=lambda p: (p["way"], p["offered_gbit_per_s"])),
        "samples": samples,
        "not_measured": failures,
    }
    written = results.save(args.out, "offered", content, markdown(content))
    results.tell(console, args.out, [*written, *draw(content, args.out)], failures)
    return 0 if samples else 1


if __name__ == "__main__":
    sys.exit(main())

"""Containers of two hosts over real RDMA, beside raw RDMA and TCP, in a virtual machine of the lab.

python -m benchmarks.rdma [--full] [--out FOLDER]

The machine has two Soft-RoCE devices with a wire between them (tests/lab/vm). In turn: perftest straight on the
devices, ffverbs through two routers that have one RC queue pair between them, and the same through routers with TCP.
Everything sleeps until something comes, for four processes share two emulated processors. Processor time is all that
the machine was busy for, the kernel's part included, less what starting the programs costs. Writes rdma.json, rdma.md
and rdma.png. The machine is emulated: only the ratios of one run count.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import track

from benchmarks import figures, machine, programs, results
from tests.lab.rdma_guest import RdmaHosts
from tests.lab.rdma_speed import run_two
from tests.lab.vm import packages
from tests.lab.vm.machine import Machine, MachineError

KIB: Final = 1 << 10
MIB: Final = 1 << 20
# How lines of the machine begin that say what was measured, what failed, and which way of which round is over.
RESULT: Final = "RESULT "
FAILED: Final = "FAILED "
DONE: Final = "DONE "
RAW: Final = "raw"
LABELS: Final = {RAW: "raw Soft-RoCE (perftest)", "rdma": "ffverbs over RDMA", "tcp": "ffverbs over TCP"}
DEADLINE_S: Final = 900.0
FEW: Final = 16
# Bytes of a stream, and messages of it at least.
STREAM_BYTES: Final = 32 * MIB


@dataclass(frozen=True)
class Plan:
    """How often, and at which sizes."""

    rounds: int
    latency_sizes: tuple[int, ...]
    stream_sizes: tuple[int, ...]
    latency_iters: int


SHORT: Final = Plan(1, (64,), (64 * KIB, MIB), 300)
FULL: Final = Plan(3, (64, 4 * KIB), (4 * KIB, 64 * KIB, MIB), 2000)


@dataclass(frozen=True)
class Point:
    """What one way does at one size, once; named as the sweep's are."""

    mode: str
    size_bytes: int
    p50_ns: float | None = None
    p99_ns: float | None = None
    p999_ns: float | None = None
    bytes_per_s: float | None = None
    cpu_ns_per_byte: float | None = None


class TcpHosts(RdmaHosts):
    """The same hosts without RDMA."""

    def options(self) -> list[str]:
        return ["--transport", "tcp"]


def _busy_ns() -> float:
    """How long the machine's processors have been busy, for whomever."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK") * 1e9


# Runs a test (latency or not) of so many messages of a size, and returns what it told.
Runner = Callable[[bool, int, int], Point]


def _raw(is_latency: bool, size_bytes: int, iters: int) -> Point:
    program = "ib_send_lat" if is_latency else "ib_send_bw"
    words = [f"/usr/bin/{program}", "-x", "1", "-F", "-e", "-s", str(size_bytes), "-n", str(iters)]
    out = run_two([*words, "-d", "rxe1"], [*words, "-d", "rxe0", "192.0.2.2"], [{}, {}])
    (columns,) = [line.split() for line in out.splitlines() if line.split()[:2] == [str(size_bytes), str(iters)]]
    if is_latency:  # bytes, iterations, least, most, typical, mean, deviation, 99 %, 99.9 %; us, one way
        return Point(RAW, size_bytes, *(float(columns[i]) * 1e3 for i in (4, 7, 8)))
    return Point(RAW, size_bytes, bytes_per_s=float(columns[3]) * MIB)  # bytes, iterations, peak, mean in MiB/s


def _routed(mode: str, hosts: RdmaHosts) -> Runner:
    perf = [sys.executable, "-c", "from ffverbs.cli import main; main()", "perf"]

    def run(is_latency: bool, size_bytes: int, iters: int) -> Point:
        test = "send_lat" if is_latency else "send_bw"
        what = ["-s", str(size_bytes), "-n", str(iters), "--warmup", str(FEW), "-e", "--json"]
        environments = [hosts.environment(name) for name in ("b", "a")]
        found = json.loads(run_two([*perf, test, *what], [*perf, test, "127.0.0.1", *what], environments))
        if is_latency:
            latency = found["latency_ns"]
            return Point(mode, size_bytes, latency["p50"], latency["p99"], latency["p99.9"])
        return Point(mode, size_bytes, bytes_per_s=found["bandwidth_bytes_per_s"])

    return run


def measure_mode(run: Runner, plan: Plan) -> list[Point]:
    """Measure one way at all sizes."""
    points = [run(True, size, plan.latency_iters) for size in plan.latency_sizes]
    before = _busy_ns()  # what connects for the first time has connected
    run(False, plan.stream_sizes[0], FEW)
    start_ns = _busy_ns() - before
    for size in plan.stream_sizes:
        iters = max(FEW, STREAM_BYTES // size)
        before = _busy_ns()
        point = run(False, size, iters)
        cost = (_busy_ns() - before - start_ns) / (iters * size)
        points.append(replace(point, cpu_ns_per_byte=cost if cost > 0 else None))
    return points


def _points(mode: str, folder: Path, plan: Plan) -> list[Point]:
    if mode == RAW:
        return measure_mode(_raw, plan)
    hosts = TcpHosts(folder) if mode == "tcp" else RdmaHosts(folder)
    try:
        return measure_mode(_routed(mode, hosts), plan)
    finally:
        hosts.close()


def guest(plan: Plan) -> None:
    """Measure, in the machine, and print a line for each point; a way that fails leaves the others to be measured."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(plan.rounds):
            for mode in LABELS:
                try:
                    points = _points(mode, Path(folder) / f"{mode}-{number}", plan)
                except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
                    print(f"{FAILED}{mode}: {error}", flush=True)
                    points = []
                for point in points:
                    print(f"{RESULT}{json.dumps(asdict(point))}", flush=True)
                print(f"{DONE}{number} {mode}", flush=True)


def merged(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a point for each way and size, each value the median of those that were measured."""
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for sample in samples:
        groups.setdefault((sample["mode"], sample["size_bytes"]), []).append(sample)
    points = []
    for (mode, size_bytes), group in groups.items():
        point: dict[str, Any] = {"mode": mode, "size_bytes": size_bytes}
        for field in (quantity.field for quantity in figures.QUANTITIES):
            known = [sample[field] for sample in group if sample[field] is not None]
            point[field] = statistics.median(known) if known else None
        points.append(point)
    return points


def draw(content: Mapping[str, Any], folder: Path) -> list[str]:
    """Draw latency, throughput and processor time of the ways as bars beside each other."""
    pyplot = figures.plotting()
    if pyplot is None or not content["points"]:
        return []
    shown = [quantity for quantity in figures.QUANTITIES if quantity.field in figures.PLOTS]
    figure, panels = pyplot.subplots(1, len(shown), figsize=(13, 4), layout="constrained")
    for axes, quantity in zip(panels, shown, strict=True):
        values = figures.values(content, quantity.field)
        sizes = sorted({size for by_size in values.values() for size in by_size})
        width = 0.8 / max(1, len(values))
        for number, (mode, by_size) in enumerate(values.items()):
            places = [i + number * width for i, size in enumerate(sizes) if size in by_size]
            heights = [by_size[size] * quantity.scale for size in sizes if size in by_size]
            colour = f"C{list(content['labels']).index(mode)}"
            drawn = axes.bar(places, heights, width, label=content["labels"][mode], color=colour)
            axes.bar_label(drawn, [figures.number_text(height) for height in heights], fontsize="x-small")
        middle = 0.4 - width / 2
        axes.set_xticks([i + middle for i in range(len(sizes))], [figures.size_text(size) for size in sizes])
        axes.set(title=f"{quantity.title} ({quantity.unit})", xlabel="message size")
        axes.title.set_fontsize("medium")
        axes.margins(y=0.12)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, fontsize="small", loc="outside lower center", ncols=len(LABELS))
    figure.savefig(folder / "rdma.png", dpi=110)
    pyplot.close(figure)
    return ["rdma.png"]


def told(output: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the samples that the machine's output tells of, and by way why it failed."""
    lines = output.splitlines()
    samples = [json.loads(line.removeprefix(RESULT)) for line in lines if line.startswith(RESULT)]
    failures: dict[str, str] = {}
    for line in lines:
        if line.startswith(FAILED):
            mode, _, reason = line.removeprefix(FAILED).partition(": ")
            failures[mode] = reason
    return samples, failures


def _boot_and_measure(full: bool, console: Console) -> tuple[list[dict[str, Any]], dict[str, str]]:
    plan = FULL if full else SHORT
    steps = [f"{DONE}{number} {mode}\n" for number in range(plan.rounds) for mode in LABELS]
    command = [sys.executable, "-m", "benchmarks.rdma", "--guest", *(["--full"] if full else [])]
    environment = {"PYTHONPATH": str(packages.ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    with Machine("rdma-bench") as booted:
        made = booted.run(["sh", str(packages.ROOT / "tests/lab/vm/two_devices.sh")])
        if made.status:
            raise MachineError(f"no two devices: {made.output}")
        running = booted.begin(command, environment=environment, folder=packages.ROOT)
        try:
            for step in track(steps, "real RDMA, emulated", console=console):
                running.wait_for(step, DEADLINE_S)
            running.wait(DEADLINE_S)
        except (MachineError, TimeoutError) as error:
            console.print(f"rdma: not all was measured: {error}", markup=False, highlight=False)
        return told(running.output)


def main(argv: Sequence[str] | None = None) -> int:
    """Boot the machine and have it measure; see --help."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rdma", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="more sizes, three rounds")
    parser.add_argument("--out", type=Path, default=programs.CACHE, help="folder for what is written")
    parser.add_argument("--guest", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.guest:
        guest(FULL if args.full else SHORT)
        return 0
    console = Console(stderr=True)
    reason = packages.unavailable()
    if reason is None and not Path("/usr/bin/ib_send_lat").exists():
        reason = "no perftest: install Debian's perftest"
    samples: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    if reason is None:
        try:
            samples, failures = _boot_and_measure(args.full, console)
        except (MachineError, OSError) as error:
            reason = str(error)
    measured = {sample["mode"] for sample in samples}
    missing = {mode: reason or failures.get(mode, "not done in time") for mode in LABELS if mode not in measured}
    content: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "cpus": "two emulated ones",
        "labels": LABELS,
        "points": merged(samples),
        "samples": samples,
        "not_measured": missing,
    }
    table = figures.markdown(content, "Two hosts over real RDMA, in an emulated machine", "rdma")
    written = results.save(args.out, "rdma", content, table)
    results.tell(console, args.out, [*written, *draw(content, args.out)], missing)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Compare translated programs (`ffverbs sockets`) with the same programs over TCP on loopback, in turn, in one run.

`python -m benchmarks.sockets` needs iperf3, sockperf, redis-server and redis-benchmark. Each figure is the median of
the rounds; a ratio is of medians, and the lowest and highest ratio of one round stand behind it. The processor time of
a byte is that of both ends of iperf3. The exit code is 1 when nothing could be measured.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks import machine, programs
from benchmarks.pairs import free_port, wait_for_listener
from benchmarks.programs import NotMeasuredError, run
from benchmarks.report import verdict_text
from ffverbs import _sockets

ADDRESS: Final = "127.0.0.1"
Environment = Mapping[str, str]


@dataclass(frozen=True)
class Figure:
    """What is measured; its ratio to TCP's is to be at most `bound` (if it is a ceiling), or at least that."""

    name: str
    unit: str
    bound: float
    is_ceiling: bool = False


THROUGHPUT = Figure("iperf3, one stream", "Gbit/s", 1.5)
CPU = Figure("processor time of a byte", "ns/kB", 1.0, is_ceiling=True)
LATENCY = Figure("sockperf ping-pong, 64 B, median", "us", 0.34, is_ceiling=True)
REDIS = Figure("redis-benchmark GET, 20 clients", "/s", 1.3)
PIPELINE = Figure("redis-benchmark GET, 16 at once", "/s", 1.3)
FIGURES: Final = (THROUGHPUT, CPU, LATENCY, REDIS, PIPELINE)


@contextmanager
def _serving(command: Sequence[str], port: int, env: Environment) -> Iterator[None]:
    server = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_listener(server, command[0], port)
        yield
    finally:
        server.terminate()
        server.wait()


def _found(pattern: str, text: str, what: str) -> float:
    match = re.search(pattern, text)
    if match is None:
        raise NotMeasuredError(f"{what} said nothing of what it measured")
    return float(match[1])


def measure_iperf3(env: Environment, seconds: float) -> dict[Figure, float]:
    """Throughput, and what a byte costs both ends together."""
    port = str(free_port())
    with _serving(["iperf3", "-s", "-B", ADDRESS, "-p", port], int(port), env):
        told = json.loads(run(["iperf3", "-J", "-c", ADDRESS, "-p", port, "-t", str(seconds)], env=env))
    if "error" in told:
        raise NotMeasuredError(f"iperf3: {told['error']}")
    end = told["end"]
    received, shares = end["sum_received"], end["cpu_utilization_percent"]
    busy_s = (shares["host_total"] + shares["remote_total"]) / 100 * received["seconds"]
    return {THROUGHPUT: received["bits_per_second"] / 1e9, CPU: busy_s * 1e9 / (received["bytes"] / 1000)}


def measure_sockperf(env: Environment, seconds: float) -> dict[Figure, float]:
    """Half of the round trip. At its own pace it ends when more is answered in a second than it has made room for."""
    port = str(free_port())
    where = ["--tcp", "-i", ADDRESS, "-p", port]
    with _serving(["sockperf", "sr", *where], int(port), env):
        told = run(
            ["sockperf", "pp", *where, "-t", str(max(1, round(seconds))), "-m", "64", "--mps", "100000"], env=env
        )
    return {LATENCY: _found(r"percentile 50\.000 =\s*([\d.]+)", told, "sockperf")}


def measure_redis(env: Environment, seconds: float) -> dict[Figure, float]:
    """Requests a second, each awaited and in pipelines."""
    port, rates = str(free_port()), {}
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--port", port, "--bind", ADDRESS, "--save", "", "--dir", folder]
        with _serving(command, int(port), env):
            for figure, pipeline, a_second in ((REDIS, "1", 40_000), (PIPELINE, "16", 500_000)):
                where = ["redis-benchmark", "-h", ADDRESS, "-p", port, "-c", "20", "-P", pipeline]
                told = run([*where, "-t", "get", "-n", str(round(seconds * a_second)), "--csv"], env=env)
                rates[figure] = _found(r'"GET[^"]*","([\d.]+)"', told, "redis-benchmark")
    return rates


MEASURES: Final[Mapping[str, Callable[[Environment, float], dict[Figure, float]]]] = {
    "iperf3": measure_iperf3,
    "sockperf": measure_sockperf,
    "redis-benchmark": measure_redis,
}


@dataclass(frozen=True)
class Row:
    """A figure of each round."""

    figure: Figure
    verbs: list[float]
    tcp: list[float]

    @property
    def ratio(self) -> float:
        return statistics.median(self.verbs) / statistics.median(self.tcp)

    @property
    def ratios(self) -> list[float]:
        """Of each round."""
        return sorted(ours / theirs for ours, theirs in zip(self.verbs, self.tcp, strict=True))

    @property
    def is_reached(self) -> bool:
        return self.ratio <= self.figure.bound if self.figure.is_ceiling else self.ratio >= self.figure.bound


def measure(rounds: int, seconds: float, console: Console) -> list[Row]:
    """Run everything over TCP and translated, in turn."""
    rows = {figure: Row(figure, [], []) for figure in FIGURES}
    with tempfile.TemporaryDirectory(prefix="ffv-") as directory:
        own = {**os.environ, "FFVERBS_DIR": directory}
        for _ in range(rounds):
            for name, one in MEASURES.items():
                try:
                    tcp, verbs = one(own, seconds), one(_sockets.environment(own), seconds)
                except NotMeasuredError as error:
                    console.print(f"[yellow]not measured:[/] {name}: {error}", highlight=False)
                    continue
                for figure in tcp:
                    rows[figure].tcp.append(tcp[figure])
                    rows[figure].verbs.append(verbs[figure])
    return [row for row in rows.values() if row.tcp]


def _table(rows: Sequence[Row]) -> Table:
    table = Table("measured", "TCP", "verbs", "ratio", "of single rounds", "target", "verdict")
    for row in rows:
        figure = row.figure
        tcp, verbs = (f"{statistics.median(values):.4g} {figure.unit}" for values in (row.tcp, row.verbs))
        target = f"at {'most' if figure.is_ceiling else 'least'} {figure.bound:.3g}"
        spread = f"{row.ratios[0]:.2f} to {row.ratios[-1]:.2f}"
        table.add_row(figure.name, tcp, verbs, f"{row.ratio:.2f}", spread, target, verdict_text(row.is_reached))
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sockets", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is run (default 3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run (default 2)")
    parser.add_argument("--json", type=Path, default=programs.CACHE / "sockets.json", help="where to write")
    args = parser.parse_args(argv)
    rows = measure(args.rounds, args.seconds, Console(stderr=True))
    if not rows:
        return 1
    console = Console()
    console.print(_table(rows))
    console.print(f"load of the machine: {os.getloadavg()[0]:.1f}, processors: {os.cpu_count()}", highlight=False)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    told = [asdict(row) | {"ratio": row.ratio, "is_reached": row.is_reached} for row in rows]
    body = {"machine": machine.describe(), "load": os.getloadavg()[0], "rows": told}
    args.json.write_text(json.dumps(body, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Compare ffverbs between two hosts with TCP between them: run both in turn, report ratios, write JSON.

`python -m benchmarks.two_hosts`. The hosts are two network namespaces on a bridge, with a router each; the containers
have no network. Of a hop: the container's part is what the same exchange costs on one host, the network's part is
sockperf's; the rest is the two routers'. The exit code is 1 when nothing could be measured.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

from rich.console import Console
from rich.table import Table

from benchmarks import machine, programs
from benchmarks.programs import NotMeasuredError
from benchmarks.report import quantity, verdict_text
from tests.conformance.pair import Options, Pair, Peer, Send
from tests.conformance.paths import spawn
from tests.lab.network import NetHosts, Network, unavailable

MESSAGE_BYTES: Final = 1 << 20
_TICK_HZ: Final = os.sysconf("SC_CLK_TCK")
_SLACK_S: Final = 0.5


@dataclass(frozen=True)
class Row:
    """`own` against `peer`, both in `unit`; the ratio is to be at most `bound`, or at least that."""

    name: str
    own: float
    peer: float
    unit: str
    bound: float | None
    is_ceiling: bool

    @property
    def ratio(self) -> float:
        return self.own / self.peer

    @property
    def is_reached(self) -> bool | None:
        if self.bound is None:
            return None
        return self.ratio <= self.bound if self.is_ceiling else self.ratio >= self.bound


def _cpu_s(pid: int) -> float:
    """Return the processor time of a process and all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK_HZ


class TwoHosts:
    """The hosts, and what is run on them."""

    def __init__(self, network: Network, hosts: NetHosts, ffverbs: str, seconds: float) -> None:
        self.network, self.hosts, self.ffverbs, self.seconds = network, hosts, ffverbs, seconds
        self._numbers = itertools.count()

    def _perf(self, test: str, *options: str, server_on: str = "b") -> dict[str, Any]:
        """Run `ffverbs perf` from a container of host a to one of another (or the same) host."""
        where = f"unix:{self.hosts.folder}/perf-{next(self._numbers)}"
        enter = self.network.enter_nowhere()
        env = {**os.environ, **self.hosts.container(server_on, 1)}
        server = subprocess.Popen(
            [*enter, self.ffverbs, "perf", test, "--bind", where],
            env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            path = Path(where.removeprefix("unix:"))
            deadline = time.monotonic() + 30
            while not path.exists():
                if server.poll() is not None or time.monotonic() > deadline:
                    raise NotMeasuredError(f"ffverbs perf {test}: its server does not start")
                time.sleep(0.01)
            command = [*enter, self.ffverbs, "perf", test, *options, "--json", where]
            return programs.run_json(command, env=self.hosts.container("a"), timeout_s=120)
        finally:
            server.terminate()
            server.wait(30)

    def write_bw(self, iters: int) -> tuple[float, float]:
        """1 MiB WRITEs: B/s, and the two routers' processor time in s a byte."""
        pids = [self.hosts.pid(name) for name in self.hosts.names]
        before = sum(map(_cpu_s, pids))
        found = self._perf("write_bw", "-s", str(MESSAGE_BYTES), "-n", str(iters), "-t", "8", "--warmup", "16", "-e")
        spent = sum(map(_cpu_s, pids)) - before
        return float(found["bandwidth_bytes_per_s"]), spent / (MESSAGE_BYTES * (iters + 16))

    def send_lat(self, iters: int, server_on: str = "b") -> float:
        """64 B SENDs with events: median, ns one way."""
        found = self._perf("send_lat", "-s", "64", "-n", str(iters), "--warmup", "200", "-e", server_on=server_on)
        return float(found["latency_ns"]["p50"])

    def iperf(self) -> tuple[float, float]:
        """One stream of iperf3: B/s, and both ends' processor time in s a byte."""
        server = subprocess.Popen([*self.network.enter("b"), "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL)
        try:
            time.sleep(_SLACK_S)
            command = [*self.network.enter("a"), "iperf3", "-c", self.network.address("b"), "-J"]
            end = programs.run_json([*command, "-t", str(self.seconds)])["end"]
        finally:
            server.terminate()
            server.wait(30)
        rate = float(end["sum_received"]["bits_per_second"]) / 8
        cpu = end["cpu_utilization_percent"]
        return rate, (cpu["host_total"] + cpu["remote_total"]) / 100 / rate

    def sockperf(self) -> float:
        """Ping-pong of 64 B over TCP: median, ns one way."""
        server = subprocess.Popen(
            [*self.network.enter("b"), "sockperf", "server", "--tcp", "-i", self.network.address("b")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            time.sleep(_SLACK_S)
            command = [*self.network.enter("a"), "sockperf", "ping-pong", "--tcp", "-i", self.network.address("b")]
            out = programs.run([*command, "-m", "64", "-t", str(max(1, round(self.seconds)))])
        finally:
            server.terminate()
            server.wait(30)
        line = next((line for line in out.splitlines() if "percentile 50.000" in line), "")
        if not line:
            raise NotMeasuredError("sockperf: printed no median")
        return float(line.rpartition("=")[2]) * 1000

    def beside_a_stuck_one(self, iters: int) -> float:
        """Rate of 1 MiB WRITEs while another queue pair's messages wait for a receive that nobody posts; B/s."""
        made = [
            spawn(self.hosts.folder, f"stuck-{name}-{next(self._numbers)}", prefix=self.network.enter_nowhere(),
                  env=self.hosts.container(name, 2))
            for name in self.hosts.names
        ]  # fmt: skip
        try:
            stuck = Pair(cast(Peer, made[0]), cast(Peer, made[1]), "tcp")
            stuck.connect(Options(send_wr=128), rnr_retry=7)
            stuck.a.post_send(*(Send(n, pieces=((0, 4096),)) for n in range(128)))
            return self.write_bw(iters)[0]
        finally:
            for remote in made:
                remote._end()


def measure(two: TwoHosts, rounds: int, console: Console) -> list[Row]:
    """Run everything in turn, `rounds` times; the medians."""
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)
        console.log(f"{name}: {value:.4g}")

    iters = 500
    for _ in range(rounds):
        for name, value in zip(("iperf", "iperf_cpu"), two.iperf(), strict=True):
            note(name, value)
        for name, value in zip(("write", "router_cpu"), two.write_bw(iters), strict=True):
            note(name, value)
        iters = max(100, round(found["write"][-1] * two.seconds / MESSAGE_BYTES))
        note("beside", two.beside_a_stuck_one(iters))
        note("write_again", two.write_bw(iters)[0])
        note("sockperf", two.sockperf())
        note("send", two.send_lat(3000))
        note("send_here", two.send_lat(3000, "a"))
    m = {name: statistics.median(values) for name, values in found.items()}
    both = statistics.median([*found["write"], *found["write_again"]])
    router = m["send"] - m["send_here"] - m["sockperf"]
    return [
        Row("1 MiB WRITE / iperf3, one stream", both, m["iperf"], "B/s", 0.9, is_ceiling=False),
        Row("64 B SEND with events / sockperf", m["send"], m["sockperf"], "ns", 3.0, is_ceiling=True),
        Row("  of it: on one host / all", m["send_here"], m["send"], "ns", None, is_ceiling=True),
        Row("  of it: the network / all", m["sockperf"], m["send"], "ns", None, is_ceiling=True),
        Row("  of it: the two routers / all", router, m["send"], "ns", None, is_ceiling=True),
        Row("routers' CPU / iperf3's, 1 GB", m["router_cpu"] * 1e18, m["iperf_cpu"] * 1e18, "ns", 1.0, is_ceiling=True),
        Row("beside one that never receives / alone", m["beside"], both, "B/s", 0.9, is_ceiling=False),
    ]


def _table(rows: Sequence[Row]) -> Table:
    table = Table("measured", "value", "against", "ratio", "target", "verdict", title="two hosts")
    for row in rows:
        sign = "at most" if row.is_ceiling else "at least"
        target = "" if row.bound is None else f"{sign} {row.bound:g}"
        own, peer = quantity(row.own, row.unit), quantity(row.peer, row.unit)
        table.add_row(row.name, own, peer, f"{row.ratio:.2f}", target, verdict_text(row.is_reached))
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.two_hosts", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is run (default 3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run (default 3)")
    parser.add_argument("--ffverbs", default=machine.ffverbs_command(), help="the command that starts ffverbs")
    parser.add_argument("--json", type=Path, default=programs.CACHE / "two_hosts.json", help="where to write")
    args = parser.parse_args(argv)
    console = Console(stderr=True)
    if reason := unavailable():
        console.print(f"no networks on this host: {reason}")
        return 1
    try:
        with Network(("a", "b")) as network, NetHosts(network, 3) as hosts:
            rows = measure(TwoHosts(network, hosts, args.ffverbs, args.seconds), args.rounds, console)
    except NotMeasuredError as error:
        console.print(f"not measured: {error}")
        return 1
    Console().print(_table(rows))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    body = {"machine": machine.describe(), "rows": [asdict(row) | {"ratio": row.ratio} for row in rows]}
    args.json.write_text(json.dumps(body, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

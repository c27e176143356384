"""The ways from one container to another that the sweep compares beside shared memory: overlays, and two hosts.

The hosts are namespaces (labs.py): both share this machine's cores, and the wire between them is a function call of the
kernel's. What is compared is what each way spends, not what a network card could do.
"""

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, Protocol

from benchmarks import labs, programs
from benchmarks.modes import Latency, Mode
from benchmarks.programs import NotMeasuredError
from benchmarks.subjects import Setup

PORT: Final = 7400
TIMEOUT_S: Final = 120
START_S: Final = 30


class Ends(Protocol):
    """Two ends of a network."""

    def enter(self, end: int) -> list[str]: ...

    def address(self, end: int) -> str: ...


@contextmanager
def _server(command: Sequence[str], sign: str, env: Mapping[str, str] | None = None) -> Iterator[None]:
    """Run a server until the block ends; it is ready when it says `sign` or, for a path, has made it."""
    said = subprocess.PIPE if not sign.startswith("/") else subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=said, stderr=subprocess.DEVNULL, env={**os.environ, **(env or {})})
    try:
        _wait_for(process, process.stdout, sign)
        yield
        if process.wait(TIMEOUT_S):
            raise NotMeasuredError(f"the server ended with exit code {process.returncode}")
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _wait_for(process: "subprocess.Popen[bytes]", output: IO[bytes] | None, sign: str) -> None:
    if output is not None:
        if output.readline().strip() != sign.encode():
            raise NotMeasuredError(f"the server did not become ready (exit code {process.poll()})")
        return
    import time  # noqa: PLC0415 - only servers with a path

    end = time.monotonic() + START_S
    while not Path(sign).exists():
        if process.poll() is not None or time.monotonic() > end:
            raise NotMeasuredError(f"the server did not become ready (exit code {process.poll()})")
        time.sleep(0.01)


def _tcp(ends: Callable[[], Ends]) -> Callable[[Setup, str, int, int], Mapping[str, Any]]:
    def run(setup: Setup, test: str, size_bytes: int, iters: int) -> Mapping[str, Any]:
        network = ends()
        words = [programs.compiled("tcp"), test, "--cpus", setup.cpus, "--size", str(size_bytes), "--iters", str(iters)]
        with _server([*network.enter(1), *words, "--listen", str(PORT)], "ready"):
            client = [*network.enter(0), *words, "--connect", f"{network.address(1)}:{PORT}"]
            return programs.run_json(client, timeout_s=TIMEOUT_S)

    return run


def _tcp_mode(name: str, label: str, ends: Callable[[], Ends]) -> Mode:
    run = _tcp(ends)

    def latency(setup: Setup, size_bytes: int, iters: int) -> Latency:
        found = run(setup, "latency", size_bytes, iters)
        return Latency(found["p50_ns"], found["p99_ns"], found["p999_ns"])

    def stream(setup: Setup, size_bytes: int, messages: int) -> float:
        return float(run(setup, "stream", size_bytes, messages)["bytes_per_s"])

    return Mode(name, label, latency, stream, 2e-6, 4e-5)


def _perf(setup: Setup, test: str, size_bytes: int, iters: int) -> Mapping[str, Any]:
    hosts = labs.hosts()
    hosts.check()
    meeting = hosts.folder / "perf"
    meeting.unlink(missing_ok=True)
    cpus = setup.cpus.split(",")
    # Asleep: ends that spin would keep the routers, which share their cores, from working.
    words = ["perf", test, "--loop", "c", "--events", "--json"]
    ends = [[*hosts.network.enter_nowhere(), "taskset", "-c", cpu, *shlex.split(setup.ffverbs), *words] for cpu in cpus]
    with _server([*ends[1], "--bind", f"unix:{meeting}"], str(meeting), hosts.environment("b")):
        sizes = ["--size", str(size_bytes), "--iters", str(iters)]
        client = [*ends[0], *sizes, f"unix:{meeting}"]
        return programs.run_json(client, timeout_s=TIMEOUT_S, env=hosts.environment("a"))


def _hosts_latency(setup: Setup, size_bytes: int, iters: int) -> Latency:
    found = _perf(setup, "send_lat", size_bytes, iters)["latency_ns"]
    return Latency(found["p50"], found["p99"], found["p99.9"])


def _hosts_stream(setup: Setup, size_bytes: int, messages: int) -> float:
    return float(_perf(setup, "send_bw", size_bytes, messages)["bandwidth_bytes_per_s"])


def _routers_cpu_ns() -> float:
    """Processor time that the routers have used, which are nobody's children that end."""
    hosts = labs.hosts()
    ticks = 0
    for name in hosts.names:
        fields = Path(f"/proc/{hosts.pid(name)}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK") * 1e9


NETWORK_MODES: Final = (
    _tcp_mode("bridge", "TCP, overlay of one host (bridge)", labs.bridge),
    Mode(
        "ffverbs_hosts",
        "ffverbs, two hosts (asleep on events)",
        _hosts_latency,
        _hosts_stream,
        1e-5,
        2e-4,
        _routers_cpu_ns,
    ),
    _tcp_mode("vxlan", "TCP, overlay of two hosts (VXLAN)", labs.vxlan),
)

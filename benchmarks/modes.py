"""The ways from one process to another of a host that the sweep compares: ffverbs, and what people use beside it.

A mode measures itself in programs of its own, so that the processor time of its children is its cost.
"""

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from benchmarks import programs
from benchmarks.pairs import free_port, run_pair
from benchmarks.programs import NotMeasuredError
from benchmarks.subjects import Setup
from benchmarks.ucx_perftest import perftest

MIB: Final = 1 << 20
FEW_BATCHES: Final = 7


@dataclass(frozen=True)
class Latency:
    """One way, ns: half of a round trip; tails are None where the program does not tell them."""

    p50_ns: float
    p99_ns: float | None = None
    p999_ns: float | None = None


@dataclass(frozen=True)
class Mode:
    """`latency(setup, size_bytes, iters)`, `stream(setup, size_bytes, messages)` -> bytes/s; None: it has no such test.

    `stream_s_per_message` is a rough cost, by which the sweep chooses how many messages to send. `others_cpu_ns` tells
    the processor time of what takes part and goes on afterwards.
    """

    name: str
    label: str
    latency: Callable[[Setup, int, int], Latency] | None
    stream: Callable[[Setup, int, int], float] | None
    stream_s_per_message: float
    latency_s: float
    others_cpu_ns: Callable[[], float] | None = None


def _ffverbs(setup: Setup, test: str, loop: str, size_bytes: int, iters: int, *more: str) -> Mapping[str, Any]:
    command = [*shlex.split(setup.ffverbs), "perf", test, "--local", "--loop", loop, "--cpus", setup.cpus, "--json"]
    return programs.run_json([*command, "--size", str(size_bytes), "--iters", str(iters), *more], timeout_s=120)


def _ffverbs_mode(loop: str, label: str, stream_s_per_message: float, latency_s: float, *more: str) -> Mode:
    def latency(setup: Setup, size_bytes: int, iters: int) -> Latency:
        found = _ffverbs(setup, "send_lat", loop, size_bytes, iters, *more)["latency_ns"]
        return Latency(found["p50"], found["p99"], found["p99.9"])

    def stream(setup: Setup, size_bytes: int, messages: int) -> float:
        return float(_ffverbs(setup, "send_bw", loop, size_bytes, messages, *more)["bandwidth_bytes_per_s"])

    return Mode(f"ffverbs_{loop}{'_events' if more else ''}", label, latency, stream, stream_s_per_message, latency_s)


def _ucx_mode(transport: str) -> Mode:
    def latency(setup: Setup, size_bytes: int, iters: int) -> Latency:
        return Latency(perftest("tag_lat", size_bytes, iters, setup.cpus, transport).p50_ns)

    def stream(setup: Setup, size_bytes: int, messages: int) -> float:
        return perftest("tag_bw", size_bytes, messages, setup.cpus, transport).bytes_per_s

    return Mode(f"ucx_{transport}", f"UCX over {transport}", latency, stream, 2e-7, 5e-7)


def _tcp_mode() -> Mode:
    def command(setup: Setup, test: str, size_bytes: int, iters: int) -> Mapping[str, Any]:
        counts = ["--size", str(size_bytes), "--iters", str(iters)]
        return programs.run_json([programs.compiled("tcp"), test, "--cpus", setup.cpus, *counts])

    return Mode("tcp", "TCP over loopback", *_tests(command), 2e-6, 3e-5)


def _python_mode(transport: str, label: str) -> Mode:
    def command(setup: Setup, test: str, size_bytes: int, iters: int) -> Mapping[str, Any]:
        words = [sys.executable, "-m", "benchmarks.python_peers", transport, test, "--cpus", setup.cpus]
        return programs.run_json([*words, "--size", str(size_bytes), "--iters", str(iters)])

    return Mode(transport, label, *_tests(command), 1e-5, 6e-5)


def _tests(
    command: Callable[[Setup, str, int, int], Mapping[str, Any]],
) -> tuple[Callable[[Setup, int, int], Latency], Callable[[Setup, int, int], float]]:
    def latency(setup: Setup, size_bytes: int, iters: int) -> Latency:
        found = command(setup, "latency", size_bytes, iters)
        return Latency(found["p50_ns"], found["p99_ns"], found["p999_ns"])

    def stream(setup: Setup, size_bytes: int, messages: int) -> float:
        return float(command(setup, "stream", size_bytes, messages)["bytes_per_s"])

    return latency, stream


def libfabric_latency(setup: Setup, size_bytes: int, iters: int) -> Latency:
    """libfabric's shm provider by fi_pingpong, whose one number is the mean of half the round trips."""
    program = shutil.which("fi_pingpong")
    if program is None:
        raise NotMeasuredError("fi_pingpong is missing: install Debian's libfabric-bin")
    port = free_port()
    words = [program, "-p", "shm", "-e", "rdm", "-S", str(size_bytes), "-I", str(iters)]
    out = run_pair([*words, "-B", str(port)], [*words, "-P", str(port), "127.0.0.1"], port, setup.cpus)
    found = re.search(r"^\s*\S+\s+\S+\s+=?\S+\s+\S+\s+\S+\s+[\d.]+\s+([\d.]+)\s", out, re.M)
    if found is None:
        raise NotMeasuredError(f"fi_pingpong: no result in what it printed: {out[-200:]!r}")
    return Latency(float(found[1]) * 1e3)


def libfabric_stream(setup: Setup, size_bytes: int, messages: int) -> float:
    """Measure libfabric's shm provider: bytes a second of messages from one buffer into one other."""
    words = [programs.fi_stream(), "--cpus", setup.cpus, "--far-end", "idle", "--slots", "1", "--size", str(size_bytes)]
    batches = min(FEW_BATCHES, messages)
    found = programs.run_json([*words, "--batches", str(batches), "--iters", str(messages // batches)], timeout_s=120)
    return float(found["bytes_per_s"])


MODES: Final = (
    _ffverbs_mode("c", "ffverbs, C loop", 1e-7, 4e-7),
    _ffverbs_mode("python", "ffverbs, Python loop", 2e-6, 4e-6),
    _ffverbs_mode("c", "ffverbs, C loop, asleep on events", 1e-6, 1e-5, "--events"),
    _ucx_mode("posix"),
    _ucx_mode("sysv"),
    _ucx_mode("cma"),
    Mode("libfabric", "libfabric shm (mean)", libfabric_latency, libfabric_stream, 5e-7, 1e-6),
    _tcp_mode(),
    _python_mode("pipe", "multiprocessing.Pipe"),
    _python_mode("zmq", "pyzmq over ipc"),
)

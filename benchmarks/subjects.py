"""What is measured: every subject is one number of one program, self and peers alike."""

import shlex
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from benchmarks import programs
from benchmarks.programs import NotMeasuredError
from benchmarks.ucx_perftest import environment, perftest

KIB64: Final = 65536
# Work requests per post call in the message-rate test, and how many may be under way.
POST_LIST: Final = 64
RATE_DEPTH: Final = 512


@dataclass(frozen=True)
class Setup:
    """How to run: the command that starts ffverbs, and the two cores ("0,1")."""

    ffverbs: str
    cpus: str


@dataclass(frozen=True)
class Subject:
    """`measure` returns the number in `unit` (ns, B/s or msg/s) and what else is worth keeping."""

    name: str
    label: str
    unit: str
    measure: Callable[[Setup], tuple[float, dict[str, Any]]]


def perf(setup: Setup, test: str, size_bytes: int, iters: int, *more: str, loop: str = "c") -> dict[str, Any]:
    command = [*shlex.split(setup.ffverbs), "perf", test, "--local", "--loop", loop, "--cpus", setup.cpus]
    sizes = ["--size", str(size_bytes), "--iters", str(iters)]
    result = programs.run_json([*command, *sizes, *more, "--json"], timeout_s=120)
    asked = {"test": test, "loop": loop, "size_bytes": size_bytes, "iters": iters}
    for key, value in asked.items():
        if result.get(key) != value:
            raise NotMeasuredError(f"ffverbs perf {test}: asked for {key} = {value}, it measured {result.get(key)}")
    return result


def number(result: dict[str, Any], *keys: str) -> tuple[float, dict[str, Any]]:
    value: Any = result
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, int | float) or value <= 0:
        raise NotMeasuredError(f"{result.get('test')}: {'.'.join(keys)} is {value!r}, not a number above 0")
    return float(value), result


def _send_lat_8(setup: Setup) -> tuple[float, dict[str, Any]]:
    return number(perf(setup, "send_lat", 8, 200_000), "latency_ns", "p50")


def _send_lat_8_events(setup: Setup) -> tuple[float, dict[str, Any]]:
    return number(perf(setup, "send_lat", 8, 5_000, "--events"), "latency_ns", "p50")


def _write_lat_8(setup: Setup) -> tuple[float, dict[str, Any]]:
    return number(perf(setup, "write_lat", 8, 200_000), "latency_ns", "p50")


def _send_rate_8_single(setup: Setup) -> tuple[float, dict[str, Any]]:
    return number(perf(setup, "send_bw", 8, 2_000_000), "message_rate_per_s")


def _python_calls(setup: Setup) -> dict[str, Any]:
    core = setup.cpus.split(",")[0]
    with tempfile.TemporaryDirectory(prefix="ffv-") as folder:
        command = ["taskset", "-c", core, sys.executable, "-m", "benchmarks.python_calls"]
        return programs.run_json(command, env={"FFVERBS_DIR": folder})


def _python_added(setup: Setup) -> tuple[float, dict[str, Any]]:
    """What Python adds to the engine's own post and poll."""
    found = _python_calls(setup)
    with tempfile.TemporaryDirectory(prefix="ffv-") as folder:
        command = ["taskset", "-c", setup.cpus.split(",")[0], programs.with_engine("scaling"), "qps", "1"]
        engine_ns = programs.run_json(command, env={"FFVERBS_DIR": folder})["best_ns"]
    return number({**found, "test": "python_calls", "added_ns": found["post_poll_ns"] - engine_ns}, "added_ns")


def _cffi_pair(setup: Setup) -> tuple[float, dict[str, Any]]:
    found = _python_calls(setup)
    return number({**found, "test": "python_calls", "pair_ns": 2 * found["empty_call_ns"]}, "pair_ns")


def _python_list_rate(setup: Setup) -> tuple[float, dict[str, Any]]:
    found = _python_calls(setup)
    return number({**found, "test": "python_calls", "rate": 1e9 / found["list_message_ns"]}, "rate")


def _cffi_rate(setup: Setup) -> tuple[float, dict[str, Any]]:
    found = _python_calls(setup)
    return number({**found, "test": "python_calls", "rate": 1e9 / found["empty_call_ns"]}, "rate")


def _zmq(setup: Setup) -> tuple[float, dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.python_peers", "zmq", "latency", "--size", "64", "--cpus", setup.cpus]
    return number(programs.run_json(command), "p50_ns")


def _send_lat_64_python(setup: Setup) -> tuple[float, dict[str, Any]]:
    return number(perf(setup, "send_lat", 64, 20_000, loop="python"), "latency_ns", "p50")


def _send_rate_8(setup: Setup) -> tuple[float, dict[str, Any]]:
    depth = ["--tx-depth", str(RATE_DEPTH), "--post-list", str(POST_LIST)]
    return number(perf(setup, "send_bw", 8, 3_000_000, *depth), "message_rate_per_s")


def _send_bw_64k(setup: Setup) -> tuple[float, dict[str, Any]]:
    return number(perf(setup, "send_bw", KIB64, 50_000, "--tx-depth", "64"), "bandwidth_bytes_per_s")


def _write_bw_64k(setup: Setup) -> tuple[float, dict[str, Any]]:
    return number(perf(setup, "write_bw", KIB64, 50_000, "--tx-depth", "64"), "bandwidth_bytes_per_s")


def _stream(program: Callable[[], str], far_end: str) -> Callable[[Setup], tuple[float, dict[str, Any]]]:
    def measure(setup: Setup) -> tuple[float, dict[str, Any]]:
        command = [program(), "--cpus", setup.cpus, "--far-end", far_end, "--batches", "11"]
        return number(programs.run_json(command, env=environment()), "bytes_per_s")

    return measure


def _bare_copy(setup: Setup) -> tuple[float, dict[str, Any]]:
    command = [programs.limits(), "copy", "--cpus", setup.cpus, "--batches", "11"]
    return number(programs.run_json(command), "far_end_samples_bytes_per_s")


def _wake_up(setup: Setup) -> tuple[float, dict[str, Any]]:
    command = [programs.limits(), "eventfd", "--cpus", setup.cpus, "--batches", "11", "--iters", "500"]
    return number(programs.run_json(command), "one_way_ns")


def _pipe(setup: Setup) -> tuple[float, dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.python_peers", "pipe", "latency", "--size", "64", "--cpus", setup.cpus]
    return number(programs.run_json(command), "p50_ns")


def ucx(test: str, size_bytes: int, iters: int, field: str) -> Callable[[Setup], tuple[float, dict[str, Any]]]:
    def measure(setup: Setup) -> tuple[float, dict[str, Any]]:
        result = perftest(test, size_bytes, iters, setup.cpus)
        return float(getattr(result, field)), vars(result).copy()

    return measure


# In the order in which a round runs them: a subject stands next to the peer it is compared with.
SUBJECTS: Final = (
    Subject("send_lat_8", "SEND 8 B, one way", "ns", _send_lat_8),
    Subject("ucx_tag_lat_8", "UCX tag_lat 8 B", "ns", ucx("tag_lat", 8, 400_000, "p50_ns")),
    Subject("write_lat_8", "WRITE 8 B, one way", "ns", _write_lat_8),
    Subject("ucx_put_lat_8", "UCX ucp_put_lat 8 B", "ns", ucx("ucp_put_lat", 8, 400_000, "p50_ns")),
    Subject("send_rate_8_single", "SEND 8 B, one by one", "msg/s", _send_rate_8_single),
    Subject("send_rate_8", f"SEND 8 B, lists of {POST_LIST}", "msg/s", _send_rate_8),
    Subject("ucx_tag_rate_8", "UCX tag_bw 8 B", "msg/s", ucx("tag_bw", 8, 4_000_000, "messages_per_s")),
    Subject("send_bw_64k", "SEND 64 KiB", "B/s", _send_bw_64k),
    Subject("ucx_tag_bw_64k", "UCX tag_bw 64 KiB", "B/s", ucx("tag_bw", KIB64, 100_000, "bytes_per_s")),
    Subject("write_checked_64k", "WRITE 64 KiB, sampled at the far end", "B/s", _stream(programs.ffv_write, "samples")),
    Subject(
        "ucx_put_checked_64k", "UCX put 64 KiB, sampled at the far end", "B/s", _stream(programs.ucx_put, "samples")
    ),
    Subject("write_read_64k", "WRITE 64 KiB, every byte read", "B/s", _stream(programs.ffv_write, "reads")),
    Subject("ucx_put_read_64k", "UCX put 64 KiB, every byte read", "B/s", _stream(programs.ucx_put, "reads")),
    Subject("write_bw_64k", "WRITE 64 KiB, nobody looks", "B/s", _write_bw_64k),
    Subject("ucx_put_bw_64k", "UCX ucp_put_bw 64 KiB", "B/s", ucx("ucp_put_bw", KIB64, 200_000, "bytes_per_s")),
    Subject("copy_64k", "bare copy 64 KiB, sampled at the far end", "B/s", _bare_copy),
    Subject("send_lat_64_python", "SEND 64 B from Python, one way", "ns", _send_lat_64_python),
    Subject("pipe_lat_64", "multiprocessing.Pipe 64 B", "ns", _pipe),
    Subject("zmq_lat_64", "pyzmq over ipc 64 B", "ns", _zmq),
    Subject("python_added", "Python's part of post_send and poll", "ns", _python_added),
    Subject("cffi_pair", "two empty cffi calls", "ns", _cffi_pair),
    Subject("python_list_rate", "WRITE 8 B from Python, lists of 64", "msg/s", _python_list_rate),
    Subject("cffi_rate", "empty cffi calls", "msg/s", _cffi_rate),
    Subject("send_lat_8_events", "SEND 8 B, asleep on events, one way", "ns", _send_lat_8_events),
    Subject("wake_up", "bare wake-up by eventfd", "ns", _wake_up),
)

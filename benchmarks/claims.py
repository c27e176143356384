"""What the project claims for more than one size, or of more than speed: subjects beside those of subjects.py."""

import tempfile
from collections.abc import Callable
from typing import Any, Final

from benchmarks import modes, programs, sweep
from benchmarks.programs import NotMeasuredError
from benchmarks.subjects import SUBJECTS, Setup, Subject, number, perf, ucx

KIB: Final = 1 << 10
MIB: Final = 1 << 20
LATENCY_SIZES: Final = (64, 512, 4 * KIB)
STREAM_SIZES: Final = (MIB, 4 * MIB)  # 64 KiB is among the subjects
CPU_SIZES: Final = (64 * KIB, MIB)
# By mode, how it is called, and how much longer than in the sweep it runs: the processor time of starting the programs
# must not count, and there is little else in ours.
CPU_MODES: Final = (("ffverbs_c_events", "asleep on events", 8), ("tcp", "TCP over loopback", 2))
# Messages of a stream: some 8 GB.
STREAM_BYTES: Final = 8 << 30


def size_name(size_bytes: int) -> str:
    """Return a size as it stands in the names of subjects."""
    for unit, step in (("m", MIB), ("k", KIB)):
        if size_bytes >= step:
            return f"{size_bytes // step}{unit}"
    return str(size_bytes)


def _send_lat(size_bytes: int) -> Callable[[Setup], tuple[float, dict[str, Any]]]:
    return lambda setup: number(perf(setup, "send_lat", size_bytes, 100_000), "latency_ns", "p50")


def _libfabric_lat(size_bytes: int) -> Callable[[Setup], tuple[float, dict[str, Any]]]:
    def measure(setup: Setup) -> tuple[float, dict[str, Any]]:
        return modes.libfabric_latency(setup, size_bytes, 50_000).p50_ns, {"is_mean": True}

    return measure


def _send_bw(size_bytes: int, loop: str) -> Callable[[Setup], tuple[float, dict[str, Any]]]:
    def measure(setup: Setup) -> tuple[float, dict[str, Any]]:
        found = perf(setup, "send_bw", size_bytes, STREAM_BYTES // size_bytes, "--tx-depth", "64", loop=loop)
        return number(found, "bandwidth_bytes_per_s")

    return measure


def _libfabric_bw(size_bytes: int) -> Subject:
    def measure(setup: Setup) -> tuple[float, dict[str, Any]]:
        return modes.libfabric_stream(setup, size_bytes, STREAM_BYTES // 4 // size_bytes), {}

    return Subject(f"libfabric_bw_{size_name(size_bytes)}", f"libfabric shm {size_bytes // KIB} KiB", "B/s", measure)


def _bare_copy(size_bytes: int) -> Callable[[Setup], tuple[float, dict[str, Any]]]:
    """One memcpy into one buffer that nobody looks at, as send_bw does it."""

    def measure(setup: Setup) -> tuple[float, dict[str, Any]]:
        iters = max(64, MIB * 1024 // size_bytes)
        words = [programs.limits(), "copy", "--cpus", setup.cpus, "--batches", str(modes.FEW_BATCHES), "--slots", "1"]
        found = programs.run_json([*words, "--size", str(size_bytes), "--iters", str(iters)])
        return number(found, "far_end_idle_bytes_per_s")

    return measure


def _cost(test: str, count: int) -> Callable[[Setup], tuple[float, dict[str, Any]]]:
    def measure(setup: Setup) -> tuple[float, dict[str, Any]]:
        core = setup.cpus.split(",")[0]
        program = ["taskset", "-c", core, programs.with_engine("scaling")]
        words = [*program, test, str(count), "--batches", str(modes.FEW_BATCHES)]
        with tempfile.TemporaryDirectory(prefix="ffv-") as folder:
            return number(programs.run_json(words, env={"FFVERBS_DIR": folder}), "best_ns")

    return measure


def _cpu_per_byte(mode: modes.Mode, size_bytes: int, times: int) -> Callable[[Setup], tuple[float, dict[str, Any]]]:
    def measure(setup: Setup) -> tuple[float, dict[str, Any]]:
        rate, cost = sweep.stream(mode, setup, size_bytes, times)
        if cost is None:
            raise NotMeasuredError(f"{mode.label}: what it costs is lost in the cost of starting it")
        return cost, {"bytes_per_s": rate}

    return measure


def _latencies() -> list[Subject]:
    found = []
    for size in LATENCY_SIZES:
        name, text = size_name(size), f"{size} B"
        found += [
            Subject(f"send_lat_{name}", f"SEND {text}, one way", "ns", _send_lat(size)),
            Subject(f"ucx_tag_lat_{name}", f"UCX tag_lat {text}", "ns", ucx("tag_lat", size, 100_000, "p50_ns")),
            Subject(f"libfabric_lat_{name}", f"libfabric shm {text} (mean)", "ns", _libfabric_lat(size)),
        ]
    return found


def _streams() -> list[Subject]:
    copies = [
        Subject(f"copy_idle_{size_name(size)}", f"bare copy {size // KIB} KiB, nobody looks", "B/s", _bare_copy(size))
        for size in (64 * KIB, *STREAM_SIZES)
    ]
    found = [_libfabric_bw(64 * KIB)]
    for size in STREAM_SIZES:
        name, text = size_name(size), f"{size // MIB} MiB"
        tag_bw = ucx("tag_bw", size, STREAM_BYTES // 4 // size, "bytes_per_s")
        found += [
            Subject(f"send_bw_{name}", f"SEND {text}", "B/s", _send_bw(size, "c")),
            Subject(f"ucx_tag_bw_{name}", f"UCX tag_bw {text}", "B/s", tag_bw),
            _libfabric_bw(size),
        ]
    return [*copies, *found, Subject("send_bw_1m_python", "SEND 1 MiB from Python", "B/s", _send_bw(MIB, "python"))]


def _costs() -> list[Subject]:
    by_name = {mode.name: mode for mode in modes.MODES}
    found = [
        Subject(f"{test}_{count}", f"a message with {count} {label} there", "ns", _cost(test, count))
        for test, label, counts in (("qps", "queue pairs", (16, 1000)), ("keys", "memory regions", (16, 100_000)))
        for count in counts
    ]
    for size in CPU_SIZES:
        for name, text, times in CPU_MODES:
            measure = _cpu_per_byte(by_name[name], size, times)
            label = f"CPU a byte, {size // KIB} KiB, {text}"
            found.append(Subject(f"cpu_{name}_{size_name(size)}", label, "ns/B", measure))
    return found


# In the order in which a round runs them.
ALL_SUBJECTS: Final = (*SUBJECTS, *_latencies(), *_streams(), *_costs())

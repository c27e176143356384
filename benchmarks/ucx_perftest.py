"""A peer: UCX's own benchmark, `ucx_perftest`, as two pinned processes that talk through shared memory."""

import csv
import shutil
from dataclasses import dataclass
from typing import Final

from benchmarks.pairs import free_port, run_pair
from benchmarks.programs import NotMeasuredError

# Shared memory by shm_open: what two containers could use as well. CMA and KNEM need more rights.
TRANSPORT: Final = "posix"
MIB: Final = 1 << 20


@dataclass(frozen=True)
class Result:
    """What one run printed; UCX calls MiB/s MB/s, here it is bytes."""

    p50_ns: float
    mean_ns: float
    bytes_per_s: float
    messages_per_s: float


def environment(transport: str = TRANSPORT) -> dict[str, str]:
    """Return what makes UCX use one transport; cma, which only copies, needs a queue for its messages beside it."""
    names = "posix,cma" if transport == "cma" else transport
    return {"UCX_TLS": f"self,{names}", "UCX_LOG_LEVEL": "error"}


def perftest(test: str, size_bytes: int, iters: int, cpus: str, transport: str = TRANSPORT) -> Result:
    """Run `test` (tag_lat, tag_bw, ucp_put_bw) with the server on the first core and the client on the second."""
    program = shutil.which("ucx_perftest")
    if program is None:
        raise NotMeasuredError("ucx_perftest is missing: install Debian's ucx-utils")
    port = free_port()
    what = ["-t", test, "-s", str(size_bytes), "-n", str(iters), "-f", "-v"]
    server, client = [program, "-p", str(port)], [program, "127.0.0.1", "-p", str(port), *what]
    return _parse(run_pair(server, client, port, cpus, environment(transport)))


def _parse(out: str) -> Result:
    lines = out.strip().splitlines()
    header = next((i for i, line in enumerate(lines) if line.startswith("iterations,")), None)
    if header is None or header + 1 >= len(lines):
        raise NotMeasuredError(f"ucx_perftest: no result in what it printed: {out[-200:]!r}")
    row = next(csv.DictReader(lines[header:]))
    return Result(
        p50_ns=float(row["50.0_percentile_lat"]) * 1e3,
        mean_ns=float(row["avg_lat"]) * 1e3,
        bytes_per_s=float(row["overall_bw"]) * MIB,
        messages_per_s=float(row["overall_mr"]),
    )

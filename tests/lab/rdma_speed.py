"""How fast containers of two hosts are over real RDMA, against raw Soft-RoCE: in one machine of the lab, in turns.

    python -m tests.lab.rdma_speed [--perftest DIR] [--rounds N]

DIR is where Debian's `perftest` (and libibumad3) is installed or unpacked, `/` by default. Both sides sleep until a
completion comes: with four processes on two emulated processors, who spins keeps the routers from running. Figures are
of an emulated machine: their ratios count.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.lab.rdma_guest import RdmaHosts, status
from tests.lab.vm import packages
from tests.lab.vm.machine import Machine

DEADLINE_S = 300.0
TESTS = {  # of `ffverbs perf`: perftest's program, the arguments of both, which column of its last line
    "write_bw": ("ib_write_bw", ["-s", "1048576", "-n", "100"], 3),  # MB/s (2**20), on average
    "send_lat": ("ib_send_lat", ["-s", "64", "-n", "500"], 4),  # us, typical
}


def run_two(server: Sequence[str], client: Sequence[str], environments: Sequence[dict[str, str]]) -> str:
    """Run a server and, when it has had time to listen, a client; return what the client writes."""
    listening = subprocess.Popen(
        server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **environments[0]}
    )
    try:
        while True:
            environment = {**os.environ, **environments[1]}
            done = subprocess.run(
                client, check=False, capture_output=True, text=True, env=environment, timeout=DEADLINE_S
            )
            if done.returncode == 0:
                return done.stdout
            if listening.poll() is not None:
                raise RuntimeError(f"{client[0]}: {done.stdout}{done.stderr}")
            time.sleep(0.5)  # it does not listen yet
    finally:
        listening.kill()
        listening.wait()


def measure_raw(test: str, root: Path) -> float:
    """Return MiB/s or us of perftest between the two devices."""
    program, arguments, column = TESTS[test]
    libraries = ":".join(str(root / folder / "x86_64-linux-gnu") for folder in ("lib", "usr/lib"))
    environment = {"LD_LIBRARY_PATH": libraries}

    def side(device: str) -> list[str]:
        events = ["-e"] if test == "send_lat" else []
        return [str(root / "usr/bin" / program), "-d", device, "-x", "1", "-F", *arguments, *events]

    written = run_two(side("rxe1"), [*side("rxe0"), "192.0.2.2"], [environment] * 2)
    (figures,) = [line.split() for line in written.splitlines() if line.split()[:1] == [arguments[1]]]
    return float(figures[column])


def measure_routed(test: str, hosts: RdmaHosts) -> float:
    """Return the same of `ffverbs perf` between two containers."""
    arguments = [*TESTS[test][1], "--warmup", "20", "-e", "--json"]
    command = [sys.executable, "-c", "from ffverbs.cli import main; main()", "perf", test]
    environments = [hosts.environment(name) for name in ("b", "a")]
    found = json.loads(run_two([*command, *arguments], [*command, "127.0.0.1", *arguments], environments))
    if test == "write_bw":
        return float(found["bandwidth_bytes_per_s"]) / 2**20
    return float(found["latency_ns"]["p50"]) / 1000


def guest(root: Path, rounds: int) -> None:
    """Measure, in the machine."""
    with tempfile.TemporaryDirectory() as folder:
        hosts = RdmaHosts(Path(folder))
        try:
            for test, unit in (("write_bw", "MiB/s"), ("send_lat", "us")):
                ratios = []
                for _ in range(rounds):
                    raw, routed = measure_raw(test, root), measure_routed(test, hosts)
                    ratios.append(routed / raw)
                    print(f"{test}: raw {raw:.1f} {unit}, routed {routed:.1f}, ratio {ratios[-1]:.2f}", flush=True)
                print(f"{test}: median ratio {statistics.median(ratios):.2f}", flush=True)
            print(*status(hosts, "a")["channels"].values(), flush=True)
        finally:
            hosts.close()


def main() -> int:
    """Boot the machine and have it measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--perftest", type=Path, default=Path("/"), metavar="DIR", help="root of where perftest is")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--guest", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.guest:
        guest(options.perftest, options.rounds)
        return 0
    command = [sys.executable, "-m", "tests.lab.rdma_speed", "--guest", "--rounds", str(options.rounds)]
    environment = {"PYTHONPATH": str(packages.ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    with Machine("speed") as machine:
        made = machine.run(["sh", str(packages.ROOT / "tests/lab/vm/two_devices.sh")])
        assert made.status == 0, made.output
        done = machine.run(
            [*command, "--perftest", str(options.perftest.resolve())],
            environment=environment, folder=packages.ROOT, deadline_s=2 * DEADLINE_S * options.rounds,
        )  # fmt: skip
    print(done.output)
    return done.status


if __name__ == "__main__":
    sys.exit(main())

"""The connection manager does the same as librdmacm over Soft-RoCE: events, codes, private data, queue pairs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.vm import packages
from tests.lab.vm.machine import Machine
from tests.unit.real_pyverbs import DEBIAN_PACKAGES

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("cm_calls.py")
ADDRESS_OF_DEVICE = "/usr/sbin/ip -4 -o addr show dev $(cat /sys/class/infiniband/rxe0/parent)"


def calls_here(address: str) -> list[str]:
    """Return what the program prints on ffverbs."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FFVERBS_IP": address}
    command = [sys.executable, "-m", "ffverbs", str(PROGRAM), address]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.splitlines()


def test_the_calls_end_and_leave_nothing(node_directory: Path) -> None:
    said = calls_here("10.7.0.1")
    assert said[-1] == "end: reached"
    assert len(said) > 60
    assert list(node_directory.iterdir()) == []


@pytest.mark.timeout(300)
@pytest.mark.skipif(packages.unavailable() is not None, reason=f"no machine: {packages.unavailable()}")
def test_as_librdmacm_over_soft_roce() -> None:
    environment = {"PYTHONPATH": DEBIAN_PACKAGES, "PYTHONDONTWRITEBYTECODE": "1"}
    with Machine("one") as machine:
        address = machine.run(["sh", "-c", ADDRESS_OF_DEVICE]).output.split()[3].split("/")[0]
        there = machine.run([sys.executable, str(PROGRAM), address], environment=environment)
    assert there.status == 0, there.output
    assert calls_here(address) == there.output.splitlines()

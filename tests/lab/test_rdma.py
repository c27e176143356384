"""Two routers on two Soft-RoCE devices of one machine: a real queue pair carries everything; its end is survived."""

import os
import sys
from collections.abc import Iterator

import pytest

from tests.crash.test_router import BY_DEVICES
from tests.lab import conformance
from tests.lab.conformance import TWO_DEVICES
from tests.lab.rdma_deaths import PART
from tests.lab.vm import packages
from tests.lab.vm.machine import Machine

pytestmark = [
    pytest.mark.skipif(packages.unavailable() is not None, reason=f"no machine: {packages.unavailable()}"),
    pytest.mark.timeout(1800),  # a machine among twenty other things to do
]

ROOT = packages.ROOT
NATIVE = ROOT / "build" / "plain" / "tests" / "native" / "wire" / "wire_test_rdma"
ENVIRONMENT = {
    "FFV_TEST_TRANSPORT": "rdma",
    "FFV_TEST_RDMA": "192.0.2.1,192.0.2.2",
    "FFV_TEST_ROUTES": f"{TWO_DEVICES} again",
}
# Who may not lock memory beyond a limit of 64 KiB.
LITTLE_MEMLOCK = "ulimit -l 64; exec setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock"
DEADLINE_S = 800.0


@pytest.fixture(scope="module", name="machine")
def machine_fixture() -> Iterator[Machine]:
    with Machine("rdma") as machine:
        made = machine.run(["sh", str(TWO_DEVICES)])
        assert made.status == 0, made.output
        yield machine


def native(machine: Machine, test: str, prefix: str = "exec") -> str:
    """Run one of tests/native/wire/test_rdma.c and return what it said."""
    done = machine.run(["sh", "-c", f"{prefix} {NATIVE} {test}"], environment=ENVIRONMENT, deadline_s=DEADLINE_S)
    assert done.status == 0, done.output
    assert f"{test}: done" in done.output
    return done.output


def test_many_queue_pairs_share_a_real_one(machine: Machine) -> None:
    said = native(machine, "many")
    assert said.count("500 virtual queue pairs, real ones on rxe") == 2


def test_a_device_that_is_taken_away_and_comes_again(machine: Machine) -> None:
    said = native(machine, "device")
    assert "tcp, for there is no RDMA at the other end: " in said
    assert ", 1 lost before" in said


def test_a_port_that_goes_down_and_up(machine: Machine) -> None:
    assert "is down: is its network interface up?" in native(machine, "port")


def test_what_cannot_be_used_is_named_with_the_remedy(machine: Machine) -> None:
    said = native(machine, "refusals")
    assert "change or drop --rdma-gid-index" in said
    assert "rdma link show lists them" in said


def test_too_little_memory_to_lock_is_named_with_the_remedy(machine: Machine) -> None:
    assert "at most 64 KiB may be locked; raise it (ulimit -l, LimitMEMLOCK=)" in native(
        machine, "memlock", LITTLE_MEMLOCK
    )


def run_guest(machine: Machine, module: str, *arguments: str) -> dict[str, str]:
    """Run a module of the lab in the machine and return what it said of each thing."""
    guest = [sys.executable, "-m", f"tests.lab.{module}", *arguments]
    done = machine.run(guest, environment=packages.ENVIRONMENT, folder=ROOT, deadline_s=DEADLINE_S)
    assert done.status == 0, done.output
    return dict(line.split(": ", 1) for line in done.output.splitlines() if ": " in line)


def test_a_part_of_the_conformance_suite(machine: Machine) -> None:
    """It comes out as over tcp (conformance.py)."""
    part = conformance.files(conformance.PART)
    rdma = conformance.over_rdma(machine, part, print)
    tcp = conformance.from_here("tcp", part, print)
    assert len(rdma) == len(tcp) >= 50
    assert not conformance.differences({"rdma": rdma, "tcp": tcp})


def test_three_hosts_of_which_one_has_no_device(machine: Machine) -> None:
    """Every pair works, each end says what carries and why; all hear the goodbye of a router (triangle.py)."""
    said = run_guest(machine, "triangle")
    assert said["a to b"].startswith("rdma rxe0 ")
    assert said["b to a"].startswith("rdma rxe1 ")
    for name in "ab":
        assert said[f"{name} to c"] == "tcp, for there is no RDMA at the other end: host c offers none"
        assert said[f"c to {name}"].startswith("tcp, for there is no RDMA at this end: ")
        assert "has no RoCE v2 GID for 192.0.2.3: give its network interface that address" in said[f"c to {name}"]
    assert said["goodbye"] == "heard by both"
    assert said["by hand"].startswith("rdma rxe1 port 1 GID index 1, ")


def test_a_router_dies_while_devices_move_payload(machine: Machine) -> None:
    """At some of its fault points there (rdma_deaths.py); at all of them with FFVERBS_LAB_WHOLE=1."""
    whole = "FFVERBS_LAB_WHOLE" in os.environ
    said = run_guest(machine, "rdma_deaths", *([] if whole else ["part"]))
    for point, scene, _ in BY_DEVICES if whole else PART:
        assert said[f"{point} at {scene}"] == "survived"


def test_containers_of_two_hosts(machine: Machine) -> None:
    """Real routers and processes: every operation by RDMA, which is taken away and comes again (rdma_guest.py)."""
    said = run_guest(machine, "rdma_guest")
    assert said["before a device"] == "tcp, for there is no RDMA at the other end: host b offers none"
    assert said["with a late one"].startswith("rdma rxe0 port 1 GID index ")
    assert said["carried"].startswith("rdma rxe0 port 1 GID index ")
    assert said["real queue pairs"] == "1 1"
    assert int(said["one-sided"]) > 2_000_000
    assert all(int(count) >= 2 for count in said["real regions"].split())
    assert said["without a device"].startswith(
        "tcp, for there is no RDMA at the other end: rxe0 has no RoCE v2 GID for 192.0.2.2"
    )
    assert said["with one again"].startswith("rdma rxe0 ")
    assert "deregistered after" in said
    assert "killed after" in said

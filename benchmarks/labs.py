"""Networks of this machine that the sweep measures through: hosts and containers in namespaces of their own.

One host's overlay is a bridge that its containers' veth pairs are plugged into. Two hosts are two namespaces with a
veth network between them, standing for the cable; their overlay is a VXLAN over that network with a bridge at each
end, and ffverbs has a router on each. Everything is made when it is first wanted and ends with this process.
"""

import atexit
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final

from benchmarks.programs import NotMeasuredError
from tests.lab.network import NetHosts, Network, unavailable

HOSTS: Final = ("a", "b")
VXLAN_BYTES: Final = 50  # that a frame grows by


def _close_at_end(close: Callable[[], object]) -> None:
    """Have it closed when this process ends, also when it is told to: an interrupted `make` tells its children so."""
    atexit.register(close)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotMeasuredError(f"{' '.join(command[-12:])}: {done.stderr.strip()}")


@cache
def _cable() -> Network:
    """Two ends of a network without anything on it."""
    reason = unavailable()
    if reason:
        raise NotMeasuredError(reason)
    network = Network(HOSTS)
    _close_at_end(network.close)
    return network


class Plain:
    """Two ends of one network."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def enter(self, end: int) -> list[str]:
        """Return what goes before a command that is to run at an end, 0 or 1."""
        return self._network.enter(HOSTS[end])

    def address(self, end: int) -> str:
        """Return the end's address."""
        return self._network.address(HOSTS[end])


class Vxlan:
    """A container on each of the two hosts, on one layer-2 network that VXLAN carries."""

    def __init__(self, underlay: Network) -> None:
        self._holders: list[subprocess.Popen[bytes]] = []
        for end, host in enumerate(HOSTS):
            self._make(underlay.enter(host), end, underlay.address(HOSTS[1 - end]))

    def _make(self, enter: Sequence[str], end: int, other: str) -> None:
        holder = subprocess.Popen(
            [*enter, "unshare", "--net", "sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._holders.append(holder)
        if holder.stdout is None or not holder.stdout.read(1):
            raise NotMeasuredError("a container's network namespace cannot be made")
        mtu = 1500 - VXLAN_BYTES
        for words in (
            f"ip link add vx0 type vxlan id 42 remote {other} dstport 4789 dev eth0",
            f"ip link add br1 mtu {mtu} type bridge",
            "ip link set vx0 master br1 up",
            "ip link set br1 up",
            f"ip link add c0 mtu {mtu} type veth peer name eth0 mtu {mtu} netns {holder.pid}",
            "ip link set c0 master br1 up",
        ):
            _run([*enter, *words.split()])
        inside = self.enter(end)
        for words in (f"ip address add {self.address(end)}/24 dev eth0", "ip link set eth0 up", "ip link set lo up"):
            _run([*inside, *words.split()])

    def enter(self, end: int) -> list[str]:
        """Return what goes before a command that is to run in the container of host 0 or 1."""
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", f"--target={self._holders[end].pid}", *user, "--net", "--"]

    def address(self, end: int) -> str:
        """Return the container's address."""
        return f"10.98.0.{end + 1}"

    def close(self) -> None:
        """Take the containers down; the hosts' bridges go with the hosts."""
        for holder in self._holders:
            if holder.stdin is not None:
                holder.stdin.close()
            holder.wait(10)


@cache
def bridge() -> Plain:
    """One host's overlay: two containers at one bridge (which is also what the cable between two hosts is here)."""
    return Plain(_cable())


@cache
def vxlan() -> Vxlan:
    """The overlay of two hosts."""
    overlay = Vxlan(_cable())
    _close_at_end(overlay.close)
    return overlay


@cache
def hosts() -> NetHosts:
    """Two hosts with a router each; containers of them have no network."""
    made = NetHosts(_cable())
    _close_at_end(made.close)
    return made

"""Hosts that are virtual machines wired together: a router in each, and a container that is commanded from here.

In a machine this is what the container runs: `python -m tests.lab.wired FOLDER`.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ffverbs import _status
from tests.conformance.pair import Peer
from tests.conformance.paths import _Remote, serve
from tests.hosts import Hosts
from tests.lab import rdma_guest
from tests.lab.vm import packages
from tests.lab.vm.machine import Cable, Command, Machine
from tests.lab.vm.mailbox import Mailbox

PORT = 7471
ANSWER_S = 400.0  # machines share this one's processors with whatever else runs
NODE = "/run/tmp/node"


class GuestPeer(Peer):
    """A container that also tells what its host's router and kernel say."""

    def router(self) -> dict[str, Any]:
        """Return what `ffverbs status` says of the router."""
        return cast(dict[str, Any], _status.gather(NODE)["router"])

    def real_regions(self) -> int:
        """Return how many memory regions the kernel knows on the device."""
        return sum(rdma_guest.real_regions())


class WiredHosts(Hosts):
    """One host a machine; the machines are booted with the addresses of their cables."""

    def __init__(self, folder: Path, machines: Mapping[str, Machine], cables: Mapping[str, Cable]) -> None:
        self._machines, self._cables = dict(machines), cables
        self._commands: dict[str, Command] = {}
        super().__init__(folder, tuple(machines))

    def address(self, name: str) -> str:
        return self._cables[name].address

    def port(self, name: str) -> int:
        return PORT

    def directory(self, name: str) -> Path:
        return Path(NODE)

    def make_directory(self, name: str) -> None:
        made = self._machines[name].run(["mkdir", "-m", "700", NODE])
        assert made.status == 0, made.output

    def options(self) -> list[str]:
        return ["--transport", "auto"]

    def start(self, name: str, *more: str, fault: str = "") -> None:
        assert not fault, "the machines have an engine without fault points"
        command = self.command(name, *more)
        self._commands[name] = self._machines[name].begin(
            command, environment=packages.ENVIRONMENT, folder=packages.ROOT
        )

    def wait(self, name: str) -> None:
        self._commands[name].wait_for(f"as host {name}", ANSWER_S)

    def log(self, name: str) -> str:
        return self._commands[name].output

    def replace(self, name: str, machine: Machine) -> None:
        """Start the host's router in another machine."""
        self._machines[name] = machine
        self.make_directory(name)
        self.start(name)
        self.wait(name)

    def container(self, name: str) -> GuestPeer:
        """Start a container on the host and return the stand-in for it."""
        machine = self._machines[name]
        (machine.share / "container").mkdir()
        command = [sys.executable, "-m", "tests.lab.wired", "/run/share/container"]
        environment = packages.ENVIRONMENT | self.environment(name)
        running = machine.begin(command, environment=environment, folder=packages.ROOT)
        mailbox = Mailbox(machine.share / "container", begins=True)
        return cast(GuestPeer, _Remote(mailbox, running.kill, lambda: running.output, ANSWER_S))


if __name__ == "__main__":
    serve(Mailbox(Path(sys.argv[1]), begins=False), GuestPeer())

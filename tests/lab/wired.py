"""Hosts that are virtual machines wired together: a router in each, and containers that are commanded from here.

In a machine this is what a container runs: `python -m tests.lab.wired KIND PORT`.
"""

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

from ffverbs import _status
from tests.conformance.cm import Side
from tests.conformance.pair import Peer
from tests.conformance.paths import HostsElsewhere, _Remote, serve
from tests.lab import rdma_guest
from tests.lab.vm import packages
from tests.lab.vm.machine import Cable, Command, Machine
from tests.lab.vm.port import open_inside

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


class WiredHosts(HostsElsewhere):
    """One host a machine; the machines are booted with the addresses of their cables."""

    def __init__(self, folder: Path, machines: Mapping[str, Machine], cables: Mapping[str, Cable]) -> None:
        self._machines, self._cables = dict(machines), cables
        self._commands: dict[str, Command] = {}
        self._sides: dict[str, _Remote] = {}
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

    def container(self, name: str, kind: str = "peer") -> _Remote:
        command = [sys.executable, "-m", "tests.lab.wired", kind]
        environment = packages.ENVIRONMENT | self.environment(name)
        machine = self._machines[name]
        running, port = machine.begin_with_port(command, environment=environment, folder=packages.ROOT)

        def kill() -> None:
            if not running.has_ended():
                running.kill()
                running.wait()

        return _Remote(port, kill, lambda: running.output, ANSWER_S)

    def side(self, name: str) -> _Remote:
        kept = self._sides.get(name)
        if kept is None or kept.broken or kept.busy:
            if kept is not None:
                kept._end()
            kept = self._sides[name] = self.container(name, "side")
        return kept


class BootedHosts(WiredHosts):
    """Two hosts in machines of their own, which are turned off when they are closed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        cables = dict(zip("ab", Cable.pair(folder), strict=True))
        self._booted = ExitStack()
        with ExitStack() as booting:
            machines = {name: Machine(name, cable=cable) for name, cable in cables.items()}
            for machine in machines.values():
                booting.callback(machine.stop)
                machine.begin_to_boot()
            for machine in machines.values():
                machine.wait_until_booted()
            super().__init__(folder, machines, cables)
            self._booted = booting.pop_all()

    def options(self) -> list[str]:
        return ["--transport", "rdma"]

    def close(self) -> None:
        super().close()
        self._booted.close()


if __name__ == "__main__":
    kind: Any = {"peer": GuestPeer, "side": Side}[sys.argv[1]]
    serve(open_inside(int(sys.argv[2])), kind())

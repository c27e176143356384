"""Hosts that are network namespaces: a bridge between them, each with its own node directory and router.

Nothing has a name outside: a namespace lives as long as the process that holds it (which ends when its standard input
closes) and the routers in it. Without root everything stands in a user namespace of its own. `tests.hosts.Hosts` on a
`Network` is a cluster of such hosts; their containers have no network at all.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.hosts import Hosts

__all__ = ["NetHosts", "Network", "unavailable"]

_PORT = 7471
_END_S = 10.0


def _unshare() -> list[str]:
    return ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]


def unavailable() -> str | None:
    """Say why this host cannot make the networks, None if it can."""
    for program in ("unshare", "nsenter", "ip", "bridge"):
        if shutil.which(program) is None:
            return f"there is no program `{program}` (util-linux, iproute2)"
    done = subprocess.run(
        [*_unshare(), "ip", "link", "add", "br0", "type", "bridge"], capture_output=True, text=True, check=False
    )
    return None if done.returncode == 0 else f"no bridge in a network namespace: {done.stderr.strip()}"


class _Namespace:
    """A network namespace, and what holds it."""

    def __init__(self, command: Sequence[str]) -> None:
        self._holder = subprocess.Popen([*command, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.write(b"\n")
        self._holder.stdin.flush()
        if not self._holder.stdout.read(1):  # it runs: the namespace is there
            raise RuntimeError(f"a network namespace cannot be made: status {self._holder.wait(_END_S)}")

    @property
    def pid(self) -> int:
        return self._holder.pid

    def enter(self) -> list[str]:
        """Return what goes before a command that is to run in it."""
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", f"--target={self.pid}", *user, "--net", "--"]

    def close(self) -> None:
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.wait(_END_S)
        self._holder.stdout.close()


class Network:
    """Network namespaces at the ports of one bridge; a context manager."""

    prefix_bits = 24

    def __init__(self, names: Sequence[str], *, mtu: int = 1500) -> None:
        self.names = tuple(names)
        self._switch = _Namespace(_unshare())
        self._hosts: dict[str, _Namespace] = {}
        self._nowhere: _Namespace | None = None
        try:
            self._nowhere = self._beside()
            self._in(self._switch, f"ip link add br0 mtu {mtu} type bridge")
            self._in(self._switch, "ip link set br0 up")
            for name in self.names:
                self._plug(name, mtu)
        except BaseException:
            self.close()
            raise

    def _beside(self) -> _Namespace:
        return _Namespace([*self._switch.enter(), "unshare", "--net"])

    def _plug(self, name: str, mtu: int) -> None:
        host = self._hosts[name] = self._beside()
        self._in(self._switch, f"ip link add p-{name} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {host.pid}")
        self._in(self._switch, f"ip link set p-{name} master br0 up")
        self._in(host, f"ip address add {self.address(name)}/{self.prefix_bits} dev eth0")
        self._in(host, "ip link set lo up")
        self._in(host, "ip link set eth0 up")

    @staticmethod
    def _in(where: _Namespace, command: str) -> None:
        done = subprocess.run([*where.enter(), *command.split()], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stderr.strip()}")

    def address(self, name: str) -> str:
        """Return the host's address in the network."""
        return f"10.99.0.{self.names.index(name) + 1}"

    def enter(self, name: str) -> list[str]:
        """Return what goes before a command that is to run on the host."""
        return self._hosts[name].enter()

    def enter_nowhere(self) -> list[str]:
        """Return what goes before a command that is to have no network."""
        assert self._nowhere is not None
        return self._nowhere.enter()

    def cut(self, name: str) -> None:
        """Let nothing pass to or from a host any more; nobody is told."""
        self._in(self._switch, f"bridge link set dev p-{name} state 0")

    def heal(self, name: str) -> None:
        """Let everything pass again."""
        self._in(self._switch, f"bridge link set dev p-{name} state 3")

    def connections(self, name: str, port: int = _PORT) -> int:
        """Count the established TCP connections of the host's namespace from or to a port."""
        command = [*self.enter(name), "cat", "/proc/net/tcp"]
        table = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[1:]
        fields = [line.split() for line in table]
        wanted = f":{port:04X}"
        return sum(f[3] == "01" and (f[1].endswith(wanted) or f[2].endswith(wanted)) for f in fields)

    def close(self) -> None:
        """Take everything down."""
        for namespace in (*self._hosts.values(), self._nowhere, self._switch):
            if namespace is not None:
                namespace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class NetHosts(Hosts):
    """A cluster whose hosts are those of a network; a context manager."""

    def __init__(self, network: Network, containers: int = 1) -> None:
        self.network = network
        self.containers = containers
        self._folder = tempfile.TemporaryDirectory(prefix="ffn-")
        try:
            super().__init__(Path(self._folder.name), network.names)
        except BaseException:
            self.close()
            raise

    def address(self, name: str) -> str:
        return self.network.address(name)

    def port(self, name: str) -> int:
        return _PORT

    def prefix(self, name: str) -> list[str]:
        return self.network.enter(name)

    def container_ip(self, name: str, which: int = 0) -> str:
        return f"10.77.{self.names.index(name) + 1}.{which + 1}"

    def container(self, name: str, which: int = 0) -> dict[str, str]:
        """Return what makes a process that container of the host."""
        return {**self.environment(name), "FFVERBS_IP": self.container_ip(name, which)}

    def container_ips(self, name: str) -> list[str]:
        return [self.container_ip(name, which) for which in range(self.containers)]

    def pid(self, name: str) -> int:
        """Return the process of the host's router."""
        return self._routers[name].pid

    def close(self) -> None:
        super().close()
        self._folder.cleanup()

    def __enter__(self) -> "NetHosts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

"""Hosts on this machine: a node directory and a router each, connected over loopback.

Each host has a loopback address and a name; containers of host `a` have 10.77.1.1, and so on. Every host of a cluster
has the same secret and the same registry: a file, or the one that is given.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.ports import free_port

__all__ = ["FAULTS", "Hosts"]

_ROOT = Path(__file__).parents[1]
FAULTS = _ROOT / "build" / "faults" / "package"
"""The packages over an engine with fault points (`make faults`)."""
_START_S = 300.0


class Hosts:
    """Some hosts, started at once."""

    def __init__(
        self, folder: Path, names: tuple[str, ...] = ("a", "b"), *, registry: str = "", more: tuple[str, ...] = ()
    ) -> None:
        self.folder = folder / "hosts"
        self.folder.mkdir(parents=True)
        self.names = names
        self._routers: dict[str, subprocess.Popen[bytes]] = {}
        self._ports = {name: self.port(name) for name in names}
        (self.folder / "secret").write_text(secrets.token_hex(32), encoding="ascii")
        self.registry = registry or f"static:{self.folder / 'cluster.json'}"
        self.more = more
        if not registry:
            self._write_registry()
        for name in names:
            self.make_directory(name)
            self.start(name)
        for name in names:
            self.wait(name)

    def address(self, name: str) -> str:
        return f"127.0.0.{self.names.index(name) + 2}"

    def port(self, name: str) -> int:
        return free_port(self.address(name))

    def prefix(self, name: str) -> list[str]:
        """Return what goes before a command that is to run on the host."""
        return []

    def options(self) -> list[str]:
        """Return more options of every router."""
        return []

    def container_ip(self, name: str) -> str:
        return f"10.77.{self.names.index(name) + 1}.1"

    def container_ips(self, name: str) -> list[str]:
        return [self.container_ip(name)]

    def directory(self, name: str) -> Path:
        return self.folder / name

    def make_directory(self, name: str) -> None:
        self.directory(name).mkdir(mode=0o700)

    def environment(self, name: str, ip: str = "") -> dict[str, str]:
        """Return what makes a process a container of the host, with an address that is not the host's first."""
        return {"FFVERBS_DIR": str(self.directory(name)), "FFVERBS_IP": ip or self.container_ip(name)}

    def _write_registry(self) -> None:
        transports = ["rdma" if "rdma" in self.options() else "tcp"]
        hosts = {
            name: {"endpoints": [f"{self.address(name)}:{self._ports[name]}"], "transports": transports}
            for name in self.names
        }
        containers = {
            ip: {"host": name, "tenant": "default"} for name in self.names for ip in self.container_ips(name)
        }
        cluster = {"schema": 1, "serial": 1, "hosts": hosts, "containers": containers}
        (self.folder / "cluster.json").write_text(json.dumps(cluster), encoding="utf-8")

    def command(self, name: str, *more: str) -> list[str]:
        """Return the command of a host's router."""
        return [
            *self.prefix(name), sys.executable, "-m", "router", "--dir", str(self.directory(name)), "--host", name,
            "--host-ip", self.address(name), "--listen", str(self._ports[name]),
            "--registry", self.registry, "--cluster-secret-file", str(self.folder / "secret"), "--http", "off",
            "--drain-seconds", "0.5",
            *self.options(), *self.more, *more,
        ]  # fmt: skip

    def start(self, name: str, *more: str, fault: str = "") -> None:
        """Start the router of a host, to die at a fault point if that is given; `wait` until it routes."""
        root = FAULTS if fault else _ROOT
        assert root.exists(), f"{root} is not there: run `make faults`"
        environment = {"PYTHONPATH": f"{root}{os.pathsep}{_ROOT}"} | ({"FFVERBS_FAULT": fault} if fault else {})
        log = open(self.folder / f"{name}.log", "ab")  # noqa: SIM115, the router's
        with log:
            self._routers[name] = subprocess.Popen(
                self.command(name, *more), cwd=root, env={**os.environ, **environment}, stdout=log, stderr=log
            )

    def log(self, name: str) -> str:
        """Return what the router said."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def wait(self, name: str) -> None:
        deadline = time.monotonic() + _START_S
        while f"as host {name}" not in self.log(name) or not (self.directory(name) / "router.sock").exists():
            self.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"the router of host {name} did not start within {_START_S} s: {self.log(name)}")
            time.sleep(0.02)

    def check(self) -> None:
        """Fail with its words if a router has ended by itself."""
        for name, router in self._routers.items():
            if router.poll() is not None:
                raise RuntimeError(f"the router of host {name} ended with {router.returncode}: {self.log(name)}")

    def send(self, name: str, noise: bytes) -> None:
        """Connect to the router's port, say something, and wait until it hangs up."""
        with socket.create_connection((self.address(name), self._ports[name]), _START_S) as sock:
            sock.sendall(noise)
            try:
                while sock.recv(4096):
                    pass
            except ConnectionError:
                return

    def pid(self, name: str) -> int:
        """Return the process of a router."""
        return self._routers[name].pid

    def signal(self, name: str, number: int) -> None:
        self._routers[name].send_signal(number)

    def is_running(self, name: str) -> bool:
        """Whether the router has not ended by itself."""
        return self._routers[name].poll() is None

    def ended(self, name: str) -> int:
        """Wait until the router of a host has ended by itself, and return its status."""
        return self._routers.pop(name).wait(_START_S)

    def stop(self, name: str, *, kill: bool = False) -> None:
        """End the router of a host."""
        router = self._routers.pop(name)
        if kill:
            router.kill()
        else:
            router.terminate()
        router.wait(_START_S)
        (self.folder / f"{name}.log").write_text("", encoding="utf-8")

    def close(self) -> None:
        for name in list(self._routers):
            self.stop(name)

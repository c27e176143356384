"""A virtual machine with a kernel of its own, Soft-RoCE and the host's tree: started, given commands, stopped.

    with Machine("a") as machine:
        print(machine.run(["ibv_devices"]).output)

It is emulated without the processor's help (KVM hangs on some machines), so everything in it is slow: a boot takes
some seconds, a Python program starts in about one. Commands run as root, in the host's file tree, which is read-only;
`/run` is the guest's own, and `share` is a folder that host and guest both write: `/run/share` inside.

Two machines with the ends of one `Cable` are wired together: each has an interface `eth0` and on it a device `rxe0`.
A machine alone has `rxe0` on an interface that leads nowhere, `veth0`.
"""

import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.vm import initramfs, packages
from tests.lab.vm.port import Port

BOOT_DEADLINE_S = 300.0  # on a machine with twenty other things to do
RUN_DEADLINE_S = 120.0
STOP_DEADLINE_S = 10.0
PORTS = 4  # to programs in a machine, at a time


class MachineError(RuntimeError):
    """A machine did not boot, hung or ended unasked; the text has the end of its console."""


@dataclass(frozen=True)
class Result:
    """What a command of the guest did: its exit status and all that it wrote to stdout and stderr."""

    status: int
    output: str


@dataclass(frozen=True)
class Cable:
    """One end of a wire between two machines: the sockets of this end and of the other, and this end's addresses."""

    local: Path
    remote: Path
    number: int

    @property
    def address(self) -> str:
        """The IPv4 address of this end's eth0."""
        return f"192.0.2.{self.number}"

    @classmethod
    def pair(cls, folder: Path) -> tuple["Cable", "Cable"]:
        """Return the two ends of a wire whose sockets are made in `folder`."""
        a, b = folder / "wire-1", folder / "wire-2"
        return cls(a, b, 1), cls(b, a, 2)

    @property
    def _away(self) -> Path:
        return self.local.with_suffix(".cut")

    def cut(self) -> None:
        """Let nothing arrive at this end any more; nobody is told, and what is sent to it is lost."""
        self.local.rename(self._away)

    def heal(self) -> None:
        """Let everything arrive again."""
        self._away.rename(self.local)


ALONE = """
ip link add veth0 mtu 4300 type veth peer name veth1 mtu 4300
ip link set veth1 up
ip address add 192.0.2.1/24 dev veth0
ip link set veth0 up
rdma link add rxe0 type rxe netdev veth0
"""
WIRED = """
ip address add {address}/24 dev eth0
ip link set eth0 up
rdma link add rxe0 type rxe netdev eth0
"""
# no_timer_check: on a busy host an emulated timer's ticks come too late for the kernel, which would panic.
KERNEL_OPTIONS = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr random.trust_cpu=on no_timer_check"
LOOPBACK = "set -e\nip link set lo up\n"


class Command:
    """A command that runs in a machine."""

    def __init__(self, machine: "Machine", number: int, text: str):
        """Belongs to `machine`; `text` is for messages."""
        self.text = text
        self._machine = machine
        self._number = number

    @property
    def output(self) -> str:
        """All that it wrote so far."""
        path = self._machine.share / f"{self._number}.out"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait(self, deadline_s: float = RUN_DEADLINE_S) -> Result:
        """Wait for its end; MachineError after `deadline_s`, and the command is killed."""
        try:
            status = self._machine.wait_for_end(self._number, deadline_s)
        except TimeoutError:
            self.kill()
            raise MachineError(
                f"{self.text} did not end within {deadline_s:.0f} s in machine {self._machine.name}:\n{self.output}"
            ) from None
        return Result(status, self.output)

    def follow(self, heard: Callable[[str], None], deadline_s: float) -> Result:
        """Wait for its end, and hand on what it writes as it comes; MachineError as by `wait`."""
        told, until = 0, time.monotonic() + deadline_s
        while not self._machine.has_ended(self._number) and time.monotonic() < until:
            output = self.output
            if output[told:]:
                heard(output[told:])
            told = len(output)
            time.sleep(0.2)  # the guest's files tell nobody when they grow
        result = self.wait(max(0.0, until - time.monotonic()))
        heard(result.output[told:])
        return result

    def wait_while_growing(self, path: Path, stall_s: float) -> bool:
        """Wait until it ends (True) or `path` has grown (False); MachineError if neither happens in `stall_s`."""
        size, deadline = path.stat().st_size, time.monotonic() + stall_s
        while path.stat().st_size == size:
            if self._machine.has_ended(self._number):
                return True
            if time.monotonic() > deadline:
                self.kill()
                raise MachineError(f"{self.text} did nothing for {stall_s:.0f} s:\n{self.output}")
            time.sleep(0.1)  # the guest's files tell nobody when they grow
        return False

    def wait_for(self, text: str, deadline_s: float = RUN_DEADLINE_S) -> None:
        """Wait until it has written `text`; MachineError if it ends or `deadline_s` pass without that."""
        deadline = time.monotonic() + deadline_s
        while text not in self.output:
            ended = self._machine.has_ended(self._number)
            if text not in self.output and (ended or time.monotonic() > deadline):
                raise MachineError(f"{self.text} did not write {text!r}:\n{self.output}")
            time.sleep(0.05)  # the guest's files tell nobody when they grow

    def has_ended(self) -> bool:
        """Tell whether it has ended."""
        return self._machine.has_ended(self._number)

    def kill(self) -> None:
        """End it and all processes of its session."""
        self._machine.tell(f"kill {self._number}")


class Machine:
    """A virtual machine; a context manager that boots it and turns it off."""

    def __init__(self, name: str = "vm", *, cable: Cable | None = None, cpus: int = 2, memory_mib: int = 1024):
        """Boots nothing yet; `cable` wires it to another machine."""
        self.name = name
        self.boot_s = 0.0
        self._began = 0.0
        self._cable = cable
        self._size = (cpus, memory_mib)
        self._home = Path(tempfile.mkdtemp(prefix=f"ffv-vm-{name}-"))
        self.share = self._home / "share"
        self._process: subprocess.Popen[bytes] | None = None
        self._port: socket.socket | None = None
        self._state = threading.Condition()
        self._ready = False
        self._broken = ""
        self._ended: dict[int, int] = {}
        self._next = 1
        self._free_ports = set(range(1, PORTS + 1))

    # ---- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Boot; returns when the machine takes commands."""
        self.begin_to_boot()
        self.wait_until_booted()

    def begin_to_boot(self) -> None:
        """Have it boot; others may meanwhile."""
        self._began = time.monotonic()
        self.share.mkdir(exist_ok=True)
        network = WIRED.format(address=self._cable.address) if self._cable else ALONE
        (self.share / "network.sh").write_text(LOOPBACK + network, encoding="ascii")
        initramfs.build(self._home / "initramfs")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self._home / "port"))
            listener.listen(1)
            listener.settimeout(BOOT_DEADLINE_S)
            with (self._home / "qemu").open("wb") as log:
                self._process = subprocess.Popen(self._qemu(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            self._port, _ = listener.accept()
        threading.Thread(target=self._listen, args=(self._port,), daemon=True, name=f"vm-{self.name}").start()

    def wait_until_booted(self) -> None:
        """Wait until the machine takes commands."""
        try:
            self._wait(lambda: self._ready, BOOT_DEADLINE_S)
        except TimeoutError:
            raise MachineError(f"machine {self.name} did not boot:\n{self._console()}") from None
        self.boot_s = time.monotonic() - self._began
        print(f"lab: virtual machine {self.name} booted in {self.boot_s:.1f} s", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Turn the machine off (it is killed if it does not obey) and remove its files."""
        if self._process:
            try:
                self.tell("off")
                self._process.wait(STOP_DEADLINE_S)
            except (OSError, MachineError, subprocess.TimeoutExpired):
                self._process.kill()
                self._process.wait()
        if self._port:
            self._port.close()
        shutil.rmtree(self._home)

    def kill(self) -> None:
        """End it as a loss of power does: at once, and nothing in it is told."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # ---- commands -------------------------------------------------------------------------------------------------

    def begin(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        folder: str | os.PathLike[str] = "/",
    ) -> Command:
        """Start a command; its environment is empty but for `environment`, PATH, HOME and TMPDIR."""
        with self._state:
            number = self._next
            self._next += 1
        text = shlex.join(map(str, command))
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in (environment or {}).items())
        script = f"cd {shlex.quote(os.fspath(folder))} || exit 126\n{exports}exec {text}\n"
        (self.share / f"{number}.sh").write_text(script, encoding="utf-8")
        self.tell(f"run {number}")
        return Command(self, number, text)

    def run(
        self,
        command: Sequence[str],
        *,
        deadline_s: float = RUN_DEADLINE_S,
        environment: Mapping[str, str] | None = None,
        folder: str | os.PathLike[str] = "/",
    ) -> Result:
        """Run a command to its end; MachineError if that takes longer than `deadline_s`."""
        return self.begin(command, environment=environment, folder=folder).wait(deadline_s)

    def begin_with_port(
        self, command: Sequence[str], *, environment: Mapping[str, str], folder: str | os.PathLike[str] = "/"
    ) -> tuple[Command, Port]:
        """Start a command that talks with this host by a port, whose number is its last argument."""
        number = self._free_ports.pop()
        running: list[Command] = []
        port = Port(
            self._home / f"port-{number}",
            lambda: bool(running) and running[0].has_ended(),
            lambda: self._free_ports.add(number),
        )
        running.append(self.begin([*command, str(number)], environment=environment, folder=folder))
        return running[0], port

    # ---- within ---------------------------------------------------------------------------------------------------

    def tell(self, line: str) -> None:
        """Send one line to the guest's first process."""
        if not self._port or self._broken:
            raise MachineError(f"machine {self.name} does not run: {self._broken}\n{self._console()}")
        self._port.sendall(line.encode() + b"\n")

    def wait_for_end(self, number: int, deadline_s: float) -> int:
        """Wait until command `number` ends and return its status; TimeoutError."""
        self._wait(lambda: number in self._ended, deadline_s)
        return self._ended[number]

    def has_ended(self, number: int) -> bool:
        """Tell whether command `number` has ended."""
        with self._state:
            return number in self._ended

    def _wait(self, condition: Callable[[], bool], deadline_s: float) -> None:
        with self._state:
            if not self._state.wait_for(lambda: condition() or self._broken, deadline_s):
                raise TimeoutError
            if not condition():
                raise MachineError(f"machine {self.name}: {self._broken}\n{self._console()}")

    def _listen(self, port: socket.socket) -> None:
        """Take the guest's words until it is off."""
        try:
            for line in port.makefile(encoding="utf-8", errors="replace"):
                verb, _, rest = line.strip().partition(" ")
                with self._state:
                    if verb == "ready":
                        self._ready = True
                    elif verb == "ended":
                        number, status = rest.split()
                        self._ended[int(number)] = int(status)
                    elif verb == "failed":
                        self._broken = f"failed: {rest}"
                    self._state.notify_all()
        except OSError as error:
            self._broken = self._broken or str(error)
        with self._state:
            self._broken = self._broken or "it is off"
            self._state.notify_all()

    def _console(self) -> str:
        paths = [self._home / "qemu", self._home / "console"]
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in paths if path.exists())

    def _qemu(self) -> list[str]:
        cpus, memory_mib = self._size
        files = "security_model=none,multidevs=remap"
        command = [
            *("setpriv", "--pdeathsig", "KILL"),  # nothing is left behind when the test is killed
            *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max"),
            *("-smp", str(cpus), "-m", str(memory_mib)),
            *("-nodefaults", "-nographic", "-no-reboot", "-monitor", "none"),
            *("-kernel", str(packages.kernel()), "-initrd", str(self._home / "initramfs")),
            *("-append", KERNEL_OPTIONS),
            *("-serial", f"file:{self._home / 'console'}"),
            *("-chardev", f"socket,id=port,path={self._home / 'port'}", "-serial", "chardev:port"),
            *("-virtfs", f"local,path=/,mount_tag=root,readonly=on,{files}"),
            *("-virtfs", f"local,path={self.share},mount_tag=share,{files}"),
            *("-device", f"virtio-serial-pci,max_ports={PORTS + 1}"),
        ]
        for number in range(1, PORTS + 1):
            path = self._home / f"port-{number}"
            command += ["-chardev", f"socket,id=port-{number},path={path},server=on,wait=off"]
            command += ["-device", f"virtserialport,chardev=port-{number},nr={number}"]
        if self._cable:
            wire, number = self._cable, self._cable.number
            sockets = f"local.type=unix,local.path={wire.local},remote.type=unix,remote.path={wire.remote}"
            command += ["-netdev", f"dgram,id=wire,{sockets}"]
            # Soft-RoCE's packets are not what offloads expect.
            offloads = "csum=off,guest_csum=off,gso=off,guest_tso4=off,guest_tso6=off,host_tso4=off,host_tso6=off"
            command += ["-device", f"virtio-net-pci,netdev=wire,mac=52:54:00:00:00:{number:02x},{offloads}"]
        return command

"""Start a program in a container of its own on this host: what two tenants of one node look like, without a runtime.

`start()` runs a command in its own user, PID, IPC, network, UTS and mount namespaces through util-linux's `unshare`.
The container shares exactly one folder with the host and with other containers, which its FFVERBS_DIR names; the rest
of the file system is the host's, read-only (its image, so to say), with /proc, /tmp, /run and /dev/shm of its own. It
needs no root where the kernel lets users make namespaces; `unavailable()` says why a host cannot do it.

The demo and the tests use this module. It uses the standard library only, because it also runs as a script inside the
new namespaces, before the program starts (`container_init`).
"""

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

SHARED_INSIDE = "/run/ffverbs"
NAMESPACES = ("user", "pid", "ipc", "net", "mnt", "uts")
_PRIVATE = ("/tmp", "/run", "/dev/shm")
_STAGE = "/mnt"
_KILLED_AFTER_S = 10.0


class ContainerError(RuntimeError):
    """A container could not be made, or did not do in time what was waited for."""


class _Output:
    """Collects one output stream of a container in a thread, so that a full pipe never blocks the program."""

    def __init__(self, stream: IO[str], echo: bool, name: str) -> None:
        self._stream = stream
        self._prefix = f"{name}| " if echo else None
        self._text = ""
        self._ended = False
        self._grown = threading.Condition()
        self._thread = threading.Thread(target=self._collect, name=f"output of {name}", daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        for line in self._stream:
            if self._prefix is not None:
                print(self._prefix + line, end="", flush=True)
            with self._grown:
                self._text += line
                self._grown.notify_all()
        with self._grown:
            self._ended = True
            self._grown.notify_all()

    @property
    def text(self) -> str:
        with self._grown:
            return self._text

    def wait_for(self, text: str, timeout_s: float) -> bool:
        """Wait until `text` was printed; False when the stream ended or the time passed without it."""
        with self._grown:
            self._grown.wait_for(lambda: text in self._text or self._ended, timeout_s)
            return text in self._text

    def close(self) -> None:
        self._thread.join(_KILLED_AFTER_S)
        self._stream.close()


class Container:
    """A program that runs in a container; made by `start()`. As a context manager it is killed on leaving."""

    def __init__(self, process: subprocess.Popen[str], name: str, echo: bool) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.name = name
        self._process = process
        self._stdout = _Output(process.stdout, echo, name)
        self._stderr = _Output(process.stderr, echo, name)
        self._pid: int | None = None

    @property
    def stdout(self) -> str:
        """What the program has printed so far."""
        return self._stdout.text

    @property
    def stderr(self) -> str:
        """What the program has written to its standard error so far."""
        return self._stderr.text

    @property
    def returncode(self) -> int | None:
        """The exit status, None while it runs; 128 + N or -N after signal N."""
        return self._process.poll()

    @property
    def pid(self) -> int:
        """The host's number of the container's first process (1 inside); ContainerError when it is gone."""
        if self._pid is None:
            parent = self._process.pid
            children = Path(f"/proc/{parent}/task/{parent}/children")
            try:
                self._pid = int(children.read_text(encoding="ascii").split()[0])
            except (OSError, IndexError):
                raise ContainerError(f"container {self.name} has no process (status {self.returncode})") from None
        return self._pid

    def wait_for(self, text: str, timeout_s: float = 30.0) -> None:
        """Wait until the program has printed `text`; ContainerError with all its output when it does not."""
        if not self._stdout.wait_for(text, timeout_s):
            raise ContainerError(f"container {self.name} did not print {text!r} within {timeout_s:g} s{self._report()}")

    def wait(self, timeout_s: float = 60.0) -> int:
        """Wait for the program's end and return its status; past the time it is killed and ContainerError raised."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ContainerError(f"container {self.name} did not end within {timeout_s:g} s{self._report()}") from None
        self._stdout.close()
        self._stderr.close()
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal to the container's first process (a stopped container is one that got SIGSTOP)."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill every process of the container and wait until they are gone."""
        if self._process.poll() is None:
            try:
                # The first process of a PID namespace takes all others along.
                self.send_signal(signal.SIGKILL)
            except (ContainerError, ProcessLookupError):
                self._process.kill()
            self._process.wait(_KILLED_AFTER_S)
        self._stdout.close()
        self._stderr.close()

    def namespaces(self) -> dict[str, str]:
        """Return the identity of each namespace the program is in, e.g. {"pid": "pid:[4026532512]"}."""
        return {kind: os.readlink(f"/proc/{self.pid}/ns/{kind}") for kind in NAMESPACES}

    def _report(self) -> str:
        return f"\nstatus: {self.returncode}\nstdout:\n{self.stdout}\nstderr:\n{self.stderr}"

    def __enter__(self) -> "Container":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def _unshare(inner: Sequence[str]) -> list[str]:
    return [
        "unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--ipc", "--net", "--mount", "--uts",
        *inner,
    ]  # fmt: skip


def _image(extra: Sequence[Path]) -> list[str]:
    """Return the folders that the program needs but that lie where the container has its own (/tmp, /run)."""
    needed = [Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[1], *extra]
    hidden = {
        path for path in (folder.resolve() for folder in needed)
        if any(path.is_relative_to(private) and path != Path(private) for private in _PRIVATE)
    }  # fmt: skip
    return [str(path) for path in sorted(hidden) if not hidden & set(path.parents)]


def start(  # noqa: PLR0913 - each argument is one independent trait of a container
    command: Sequence[str],
    shared: Path | str,
    *,
    name: str = "container",
    env: Mapping[str, str] | None = None,
    image: Sequence[Path] = (),
    cwd: Path | str | None = None,
    echo: bool = False,
) -> Container:
    """Run `command` in a container and return its handle.

    `shared` is the host's folder that the container sees, writable, as its FFVERBS_DIR. `env` is added to the host's
    environment, `image` names more folders under /tmp or /run that it may read (Python's own and this package's are
    found), `cwd` is where the program starts (default: the container's /tmp). With `echo` its output is printed as it
    comes, each line after its name.
    """
    reason = unavailable()
    if reason:
        raise ContainerError(f"containers cannot be made on this host: {reason}")
    program = command[0]
    if os.sep in program:  # without "..": the folder it leads through may not be there inside
        program = os.path.abspath(program)
    plan = {
        "shared": str(Path(shared).resolve(strict=True)),
        "image": _image(list(image)),
        "cwd": str(cwd) if cwd is not None else "/tmp",
        "command": [program, *command[1:]],
    }
    inside = {**os.environ, **(env or {}), "FFVERBS_DIR": SHARED_INSIDE, "HOME": "/tmp", "PYTHONUNBUFFERED": "1"}
    for variable in ("TMPDIR", "XDG_RUNTIME_DIR"):
        inside.pop(variable, None)
    process = subprocess.Popen(
        _unshare([sys.executable, "-I", "-S", os.path.abspath(__file__), json.dumps(plan)]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=inside,
    )
    return Container(process, name, echo)


def unavailable() -> str | None:
    """Return why this host cannot make containers, None when it can. The answer is found by trying."""
    global _unavailable  # noqa: PLW0603
    if _unavailable is None:
        try:
            mounts = "mount --make-rprivate / && mount -t proc proc /proc && mount -t tmpfs tmpfs /tmp"
            tried = subprocess.run(
                _unshare(["sh", "-c", mounts]),
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            _unavailable = (tried.stderr.strip() or f"status {tried.returncode}") if tried.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            _unavailable = f"unshare of util-linux: {error}"
    return _unavailable or None


_unavailable: str | None = None


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _file_systems() -> list[str]:
    """Return where real file systems are mounted (not the kernel's own like proc), those under the stage left out."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        for line in mounts:
            left, right = line.split(" - ", 1)
            where = left.split()[4].encode().decode("unicode_escape")
            source = right.split()[1]
            kernel_own = where == "/proc" or where.startswith(("/proc/", "/sys", "/dev"))
            if not kernel_own and not where.startswith(_STAGE + "/") and where != _STAGE and source != "none":
                found.append(where)
    return found


def _loopback_up() -> None:
    """Set the loopback interface of a fresh network namespace up (struct ifreq: name, then flags; see netdevice(7))."""
    siocsifflags, iff_up = 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, siocsifflags, struct.pack("16sh14x", b"lo", iff_up))


def container_init(plan: dict[str, object]) -> None:
    """Build the container's file system from inside its namespaces, then become the program. Does not return."""
    shared, image, cwd, command = str(plan["shared"]), list(plan["image"]), str(plan["cwd"]), list(plan["command"])  # type: ignore[call-overload]
    _mount("--make-rprivate", "/")
    _mount("-t", "tmpfs", "-o", "mode=0755", "stage", _STAGE)
    staged = {path: f"{_STAGE}/image{index}" for index, path in enumerate(image)}
    os.mkdir(f"{_STAGE}/shared")
    _mount("--bind", shared, f"{_STAGE}/shared")
    for path, stage in staged.items():
        os.mkdir(stage)
        _mount("--rbind", path, stage)
        _mount("-o", "remount,bind,ro", stage)
    for where in _file_systems():
        # A mount point below another one that hides it cannot be reached, and so needs no care.
        subprocess.run(["mount", "-o", "remount,bind,ro", where], check=where == "/", stderr=subprocess.DEVNULL)
    for private in _PRIVATE:
        _mount("-t", "tmpfs", "-o", "mode=1777", "private", private)
    for path, target in [*((stage, path) for path, stage in staged.items()), (f"{_STAGE}/shared", SHARED_INSIDE)]:
        os.makedirs(target, exist_ok=True)
        _mount("--rbind", path, target)
    subprocess.run(["umount", "--recursive", "--lazy", _STAGE], check=True)
    _mount("-t", "proc", "proc", "/proc")
    _loopback_up()
    os.chdir(cwd)
    os.execvp(command[0], command)


if __name__ == "__main__":
    container_init(json.loads(sys.argv[1]))

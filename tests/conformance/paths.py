"""Where the two sides of a test live: one queue pair, one process, threads, processes, a fork child, containers.

A side in another process is a `Peer` there that obeys over a Unix socket; here a stand-in passes the calls on. The
workers of a path live as long as the test session (starting one costs half a second); a worker that died or did not
answer in time is replaced for the next test.
"""

import faulthandler
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Protocol, cast

from ffverbs import _containers as containers
from tests.conformance.pair import DEADLINE_S, Pair, Peer
from tests.hosts import Hosts
from tests.lab.vm.port import Port

__all__ = ["PATHS", "REMOTE", "HostsElsewhere", "Workers", "begin", "contain", "serve", "spawn"]

# Where there are two real RDMA ports: the addresses of both (the lab's virtual machine has them), or `wired`: a virtual
# machine for each host.
RDMA = tuple(filter(None, os.environ.get("FFVERBS_TEST_RDMA", "").split(",")))
REMOTE = ("tcp", *(("rdma",) if RDMA else ()))
PATHS = ("self", "contexts", "threads", "processes", "fork", "containers", *REMOTE)
_ANSWER_S = 3 * DEADLINE_S
_START_S = 300.0
_ROOT = Path(__file__).parents[2]


class _Answer(Protocol):
    def __call__(self) -> Any: ...


def serve(connection: Connection, peer: Peer | None = None) -> None:
    """Obey until the other end hangs up: what a worker does."""
    peer = peer or Peer()
    while True:
        try:
            method, args, kwargs = connection.recv()
        except EOFError:
            return
        try:
            answer = (True, getattr(peer, method)(*args, **kwargs))
        except BaseException as error:
            answer = (False, error)
        connection.send(answer)


class _Remote:
    """Stand-in for a Peer in another process."""

    def __init__(
        self,
        connection: Connection | Port,
        kill: Callable[[], None],
        end: Callable[[], str],
        answer_s: float = _ANSWER_S,
    ) -> None:
        self._connection = connection
        self._answer_s = answer_s
        self._kill = kill
        self._how_it_ended = end
        self.broken = False
        self.busy = False

    def _begin(self, method: str, *args: Any, **kwargs: Any) -> _Answer:
        assert not self.busy, "the worker has not answered the last command yet"
        self.busy = True
        self._connection.send((method, args, kwargs))
        return self._finish

    def _finish(self) -> Any:
        if not self._connection.poll(self._answer_s):
            self.broken = True
            raise TimeoutError(f"the worker did not answer within {self._answer_s} s")
        try:
            good, value = self._connection.recv()
        except (EOFError, ConnectionError) as error:
            self.broken = True
            raise RuntimeError(f"the worker died: {self._how_it_ended()}") from error
        self.busy = False
        if not good:
            raise value
        return value

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda *args, **kwargs: self._begin(method, *args, **kwargs)()

    def _end(self) -> None:
        self._kill()  # first: a worker that sees the hang-up ends in order, and takes its leave of its peers
        self._connection.close()


class _Threaded:
    """Stand-in for a Peer that lives in a thread of its own."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._executor = ThreadPoolExecutor(1, "the other side")

    def _begin(self, method: str, *args: Any, **kwargs: Any) -> _Answer:
        future = self._executor.submit(getattr(self._peer, method), *args, **kwargs)
        return lambda: future.result(_ANSWER_S)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda *args, **kwargs: self._begin(method, *args, **kwargs)()

    def _end(self) -> None:
        self._executor.shutdown()


def begin(peer: Peer, method: str, *args: Any, **kwargs: Any) -> _Answer:
    """Start a command that may block, and return the call that waits for its result."""
    if isinstance(peer, _Remote | _Threaded):
        return peer._begin(method, *args, **kwargs)
    result: list[Any] = []
    failure: list[BaseException] = []

    def act() -> None:
        try:
            result.append(getattr(peer, method)(*args, **kwargs))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=act, name=method, daemon=True)
    thread.start()

    def finish() -> Any:
        thread.join(_ANSWER_S)
        if thread.is_alive():
            raise TimeoutError(f"{method} did not end within {_ANSWER_S} s")
        if failure:
            raise failure[0]
        return result[0]

    return finish


def _listen(directory: Path, name: str) -> Listener:
    return Listener(str(directory / name), "AF_UNIX")


def _accept(listener: Listener) -> Connection:
    # A worker that cannot start must not hang the session.
    listening = listener._listener._socket  # type: ignore[attr-defined]
    listening.settimeout(_START_S)
    connection = listener.accept()
    listener.close()
    return connection


_MAIN = "import sys; from tests.conformance.paths import worker_main; worker_main(sys.argv[1])"


def worker_main(address: str) -> None:
    """Be a worker: connect to the Unix socket at `address` and obey."""
    faulthandler.enable(all_threads=True)
    serve(Client(address, "AF_UNIX"))


def _environment() -> dict[str, str]:
    # The worker runs the package that this process runs.
    package = Path(sys.modules["ffverbs"].__file__ or "").parents[1]
    return {**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{_ROOT}"}


def spawn(
    directory: Path, name: str, main: str = _MAIN, env: dict[str, str] | None = None, prefix: Sequence[str] = ()
) -> _Remote:
    """Start a worker process that runs the Python code `main`; it is reached by a socket `name` in the directory.

    `prefix` goes before its command: what puts it into a namespace, say.
    """
    listener = _listen(directory, name)
    command = [*prefix, sys.executable, "-P", "-c", main, str(directory / name)]
    process = subprocess.Popen(command, env=_environment() | (env or {}), cwd=_ROOT)

    def kill() -> None:
        process.kill()
        process.wait(_START_S)

    return _Remote(_accept(listener), kill, lambda: f"status {process.wait(_START_S)}")


def _fork(directory: Path) -> _Remote:
    listener = _listen(directory, "fork")
    # A context is open in the parent, so that the child has something that it must not disturb.
    from ffverbs.device import Context

    with Context(name="ffv0"):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                listener.close()
                worker_main(str(directory / "fork"))
                status = 0
            finally:
                os._exit(status)
        connection = _accept(listener)

    def kill() -> None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def end() -> str:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # kill() waits for it once more
        return f"status {found.si_status if found else None}"

    return _Remote(connection, kill, end)


def contain(directory: Path, name: str, main: str = _MAIN) -> _Remote:
    """The same in a container of its own, of which the directory is the shared one."""
    listener = _listen(directory, name)
    inside = f"{containers.SHARED_INSIDE}/{name}"
    container = containers.start(
        [sys.executable, "-P", "-c", main, inside], directory, name=name, env=_environment(), cwd=_ROOT, image=[_ROOT]
    )

    def end() -> str:
        try:
            return f"status {container.wait(_START_S)}, {container.stderr}"
        except containers.ContainerError as error:
            return str(error)

    return _Remote(_accept(listener), container.kill, end)


class _RdmaHosts(Hosts):
    def address(self, name: str) -> str:
        return RDMA[self.names.index(name)]

    def options(self) -> list[str]:
        return ["--transport", "rdma"]


class HostsElsewhere(Hosts):
    """Hosts whose containers cannot be started as processes of this machine."""

    def container(self, name: str, kind: str = "peer") -> _Remote:
        """Start a container on the host: a `Peer`, or a `side` of the tests of the connection manager."""
        raise NotImplementedError

    def side(self, name: str) -> _Remote:
        """Return the `side` that is kept on the host, another if that has ended: starting one takes its time."""
        raise NotImplementedError


def _make_hosts(path: str, folder: Path) -> Hosts:
    if path == "tcp":
        return Hosts(folder)
    if RDMA != ("wired",):
        return _RdmaHosts(folder)
    from tests.lab.wired import BootedHosts  # which is built on this module

    return BootedHosts(folder)


def _inhabit(hosts: Hosts, name: str, directory: Path, worker: str) -> _Remote:
    """Start a worker in a container of the host."""
    if isinstance(hosts, HostsElsewhere):
        return hosts.container(name)
    return spawn(directory, worker, env=hosts.environment(name))


class Workers:
    """Makes pairs, and keeps the workers of the session."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ffw-")
        self._directory = Path(self._folder.name)
        self._kept: dict[str, _Remote] = {}
        self._hosts: dict[str, Hosts] = {}

    def _worker(self, name: str, start: Callable[[Path], _Remote]) -> Peer:
        worker = self._kept.get(name)
        if worker is None or worker.broken or worker.busy:
            if worker is not None:
                worker._end()
                (self._directory / name).unlink(missing_ok=True)
            worker = self._kept[name] = start(self._directory)
        return cast(Peer, worker)

    def _two(self, path: str) -> tuple[Peer, Peer]:
        first = Peer()
        if path == "self":
            return first, Peer(twin=first)
        if path == "contexts":
            return first, Peer()
        if path == "threads":
            return first, cast(Peer, _Threaded(Peer()))
        if path == "processes":
            return first, self._worker("spawn", lambda directory: spawn(directory, "spawn"))
        if path == "fork":
            return first, self._worker("fork", _fork)
        if path in REMOTE:
            hosts = self.hosts(path)
            a, b = f"{path}-a", f"{path}-b"
            return (
                self._worker(a, lambda directory: _inhabit(hosts, "a", directory, a)),
                self._worker(b, lambda directory: _inhabit(hosts, "b", directory, b)),
            )
        one = self._worker("one", lambda directory: contain(directory, "one"))
        return one, self._worker("two", lambda directory: contain(directory, "two"))

    @contextmanager
    def pair(self, path: str, node_directory: Path) -> Iterator[Pair]:
        """Yield two sides of the path, which are closed afterwards."""
        # In a container the node directory has a name of its own, and is one for the session.
        inside: str | None = containers.SHARED_INSIDE if path == "containers" else str(node_directory)
        if path in REMOTE:
            inside = None  # each side has the one of its host
        a, b = self._two(path)
        pair = Pair(a, b, path, inside)
        try:
            yield pair
        finally:
            for peer in (b, a):
                if isinstance(peer, _Remote) and (peer.busy or peer.broken):
                    continue
                peer.close()
            if isinstance(b, _Threaded):
                b._end()

    def hosts(self, path: str = "tcp") -> Hosts:
        """Return two hosts, started with the first that asks."""
        if path not in self._hosts:
            self._hosts[path] = _make_hosts(path, self._directory / path)
        self._hosts[path].check()
        return self._hosts[path]

    def close(self) -> None:
        for worker in self._kept.values():
            worker._end()
        for hosts in self._hosts.values():
            hosts.close()
        self._folder.cleanup()

"""A process with a context that a test drives, and that must not die of what others do to it.

It obeys the methods of `Actor` over a Unix socket, as the test calls them on the `Remote` that stands for it.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any

import ffverbs.libibverbs_enums as e
from ffverbs.pyverbs_error import PyverbsRDMAError
from tests.conformance.pair import Address, Done, Peer, Recv, Send
from tests.fuzz import scribble

__all__ = ["Actor", "Remote", "cast", "connect", "holds", "talk"]

ROOT = Path(__file__).parents[2]
ANSWER_S = 60.0
SEND, WRITE, READ = int(e.IBV_WR_SEND), int(e.IBV_WR_RDMA_WRITE), int(e.IBV_WR_RDMA_READ)
ERR = int(e.IBV_QPS_ERR)


class Actor(Peer):
    """A side of a conversation that also tells what it holds, and can turn against its peers."""

    def descriptors(self) -> list[str]:
        """Return what every open descriptor is, sorted."""
        kinds = []
        for name in os.listdir("/proc/self/fd"):
            try:
                kinds.append(os.readlink(f"/proc/self/fd/{name}").split("[")[0])
            except FileNotFoundError:
                continue  # the one of the listing itself
        return sorted(kinds)

    def arenas(self) -> int:
        """Return how many arenas are mapped: the own one and those of the peers."""
        return len(scribble.arenas())

    def try_traffic(self, seed: int, to: Address, qp: int, turns: int = 1) -> None:
        """Post a few requests of any kind and poll; that they fail is no failure."""
        draw = random.Random(seed)
        for _ in range(turns):
            opcode = draw.choice((SEND, SEND, WRITE, READ))
            length = draw.choice((8, 500, 9000, 30000))
            send = Send(draw.getrandbits(32), opcode, ((16384, length),), remote=to.addr + 16384, rkey=to.rkey)
            with suppress(PyverbsRDMAError):
                self.post_recv(Recv(draw.getrandbits(32), ((16384, 40000),)), qp=qp)
            with suppress(PyverbsRDMAError):
                self.post_send(send, qp=qp)
            for which in ("send", "recv"):
                with suppress(PyverbsRDMAError):
                    self.poll_now(which, 4)

    def attack(self, seed: int, to: Address, turns: int) -> None:
        """Write nonsense into the own arena, more and more of it, and go on using it."""
        for turn in range(turns):
            self.try_traffic(seed + turn, to, 0)
            scribble.scribble(seed * 1000 + turn, 1 + turn * turn // 4)
            self.try_traffic(seed - turn, to, 0)

    def has_failed(self, to: Address, qp: int) -> bool:
        """Whether a queue pair is in ERR, or comes to it by sending."""
        if self.state(qp) == ERR:
            return True
        self.try_traffic(1, to, qp)
        return False

    def done(self, which: str, qp: int = 0) -> list[Done]:
        """Return the next completion of one queue pair; those of others are dropped."""
        while True:
            found = self.poll(which)
            if found[0].qp_num == self._objects.qps[qp].qp_num:
                return found


def main(address: str) -> None:
    """Obey until the other end hangs up, then close what is open."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as in a program that is not Python
    actor = Actor()
    with Client(address, "AF_UNIX") as connection:
        while True:
            try:
                method, args, kwargs = connection.recv()
            except EOFError:
                break
            try:
                answer = (True, getattr(actor, method)(*args, **kwargs))
            except Exception as error:
                answer = (False, error)
            connection.send(answer)
    actor.close()


class Remote:
    """Stands for an actor; calls are passed on to it and fail clearly if it dies or hangs."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        address = str(directory / f"actor-{name}")
        program = "import sys; from tests.fuzz.actor import main; main(sys.argv[1])"
        package = Path(sys.modules["ffverbs"].__file__ or "").parents[1]
        environment = {**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{ROOT}", "PYTHONFAULTHANDLER": "1"}
        with Listener(address, "AF_UNIX") as listener:
            listener._listener._socket.settimeout(ANSWER_S)  # type: ignore[attr-defined]
            command = [sys.executable, "-P", "-c", program, address]
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment)
            self._connection = listener.accept()

    def begin(self, method: str, *args: Any, **kwargs: Any) -> None:
        """Give a command without waiting for its answer."""
        self._connection.send((method, args, kwargs))

    def finish(self) -> Any:
        """Return the answer of the command that was given."""
        try:
            if not self._connection.poll(ANSWER_S):
                raise AssertionError(f"{self.name} does not answer within {ANSWER_S:.0f} s: it hangs")
            good, value = self._connection.recv()
        except (EOFError, ConnectionError) as error:
            raise AssertionError(f"{self.name} ended with status {self.process.wait(ANSWER_S)}") from error
        if not good:
            raise value
        return value

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):
            raise AttributeError(method)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.begin(method, *args, **kwargs)
            return self.finish()

        return call

    def wait(self) -> None:
        """Wait for the answer of the command that was given, or for its death."""
        with suppress(EOFError, ConnectionError):
            if not self._connection.poll(ANSWER_S):
                return  # it hangs: its affair
            self._connection.recv()

    def end(self) -> int:
        """Hang up, and return the status with which it ends."""
        self._connection.close()
        return self.process.wait(2 * ANSWER_S)

    def kill(self) -> None:
        """End it, whatever it does."""
        self._connection.close()
        self.process.kill()
        self.process.wait(ANSWER_S)


@contextmanager
def cast(directory: Path, *names: str) -> Iterator[list[Remote]]:
    """Start an actor for each name, and end them all, whatever happens."""
    actors: list[Remote] = []
    try:
        for name in names:
            actors.append(Remote(name, directory))
        yield actors
    finally:
        for actor in actors:
            actor.kill()


def connect(a: Remote, b: Remote, a_qp: int = 0, b_qp: int = 0) -> None:
    """Connect a queue pair of each, by RC."""
    to_a, to_b = a.address_of(a_qp), b.address_of(b_qp)
    a.connect(replace(to_b, qpns=(to_b.qpns[-1],) * (a_qp + 1)), a_qp)
    b.connect(replace(to_a, qpns=(to_a.qpns[-1],) * (b_qp + 1)), b_qp)


def talk(a: Remote, b: Remote, seed: int) -> None:
    """Send a message each way over the first queue pairs of two actors, and check what arrives."""
    for number, (sender, receiver) in enumerate(((a, b), (b, a))):
        data = random.Random(f"{seed}:{number}").randbytes(3000)
        receiver.write(bytes(3000), 4096)
        sender.write(data, 8192)
        receiver.post_recv(Recv(seed, ((4096, 3000),)))
        sender.post_send(Send(seed, pieces=((8192, 3000),)))
        (sent,), (received,) = sender.done("send"), receiver.done("recv")
        assert sent.ok and received.ok and received.byte_len == 3000, (sent, received)
        assert receiver.read(3000, 4096) == data, f"{receiver.name} got something else than {sender.name} sent"


def holds(actor: Remote, descriptors: list[str], arenas: int) -> None:
    """Wait until an actor has these descriptors and so many arenas, and no others."""
    deadline = time.monotonic() + ANSWER_S
    while (found := (actor.descriptors(), actor.arenas())) != (descriptors, arenas):
        assert time.monotonic() < deadline, f"{actor.name} holds {found}, and should hold {(descriptors, arenas)}"

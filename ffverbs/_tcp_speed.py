"""TCP between two processes on the loopback interface, measured as the Python loop of `ffverbs perf` measures verbs.

The demo compares with it: the same language, message sizes and processors, so the difference is the transport.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path
from time import perf_counter_ns
from typing import Final

from ffverbs._perf import PerfError

__all__ = ["TcpPeer"]

_DEADLINE_S: Final = 30.0
_LATENCY, _BANDWIDTH, _END = b"L", b"B", b"E"


def _exactly(connected: socket.socket, view: memoryview) -> None:
    """Receive until `view` is full."""
    while view:
        count = connected.recv_into(view, len(view))
        if not count:
            raise PerfError("the TCP peer has ended the connection")
        view = view[count:]


class TcpPeer:
    """A connection to a child process that answers; the two are pinned to the processors `cpus`."""

    def __init__(self, cpus: tuple[int, int]) -> None:
        self._before = os.sched_getaffinity(0)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(_DEADLINE_S)
            self._process = _start(listener.getsockname()[1], cpus[1])
            try:
                self._socket = listener.accept()[0]
            except BaseException:
                self._process.kill()
                self._process.wait()
                raise
        self._socket.settimeout(_DEADLINE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        os.sched_setaffinity(0, {cpus[0]})

    def _command(self, kind: bytes, size_bytes: int, count: int) -> None:
        self._socket.sendall(kind + size_bytes.to_bytes(8, "big") + count.to_bytes(8, "big"))

    def latency_ns(self, size_bytes: int, count: int) -> float:
        """Return half the median round trip of messages of this size, in ns; the data are checked."""
        self._command(_LATENCY, size_bytes, count)
        message, answer = os.urandom(size_bytes), bytearray(size_bytes)
        view = memoryview(answer)
        samples = []
        since = perf_counter_ns()
        for _ in range(count):
            self._socket.sendall(message)
            _exactly(self._socket, view)
            now = perf_counter_ns()
            samples.append(now - since)
            since = now
        if answer != message:
            raise PerfError("TCP returned other bytes than were sent")
        return sorted(samples)[count // 2] / 2

    def bandwidth_bytes_per_s(self, size_bytes: int, count: int) -> float:
        """Return the rate of `count` messages that were all received."""
        self._command(_BANDWIDTH, size_bytes, count)
        message = os.urandom(size_bytes)
        start = perf_counter_ns()
        for _ in range(count):
            self._socket.sendall(message)
        _exactly(self._socket, memoryview(bytearray(1)))
        return size_bytes * count / ((perf_counter_ns() - start) / 1e9)

    def __enter__(self) -> "TcpPeer":
        return self

    def __exit__(self, *_: object) -> None:
        os.sched_setaffinity(0, self._before)
        self._socket.close()
        try:
            self._process.wait(_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _start(port: int, cpu: int) -> subprocess.Popen[bytes]:
    package = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "ffverbs._tcp_speed", str(port), str(cpu)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path})


def _answer(port: int, cpu: int) -> None:
    """The child: does what the commands say until the connection ends."""
    os.sched_setaffinity(0, {cpu})
    with socket.create_connection(("127.0.0.1", port), _DEADLINE_S) as connected:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        command = bytearray(17)
        while connected.recv(1, socket.MSG_PEEK):
            _exactly(connected, memoryview(command))
            size_bytes, count = int.from_bytes(command[1:9], "big"), int.from_bytes(command[9:], "big")
            view = memoryview(bytearray(size_bytes))
            for _ in range(count):
                _exactly(connected, view)
                if command[:1] == _LATENCY:
                    connected.sendall(view)
            if command[:1] == _BANDWIDTH:
                connected.sendall(_END)


if __name__ == "__main__":
    _answer(int(sys.argv[1]), int(sys.argv[2]))

"""Python objects between this host and a virtual machine, by a virtio port.

It stands where a `multiprocessing` connection would: a worker in the machine serves at one end (`open_inside`), and the
stand-in for it (`tests.conformance.paths`) has the other one, a `Port`.
"""

import os
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

LOOK_S = 0.5  # the port does not tell when nobody has it open any more in the machine


class Port:
    """This host's end; `is_over` tells that its user in the machine has ended: then an EOFError is what comes last."""

    def __init__(self, path: Path, is_over: Callable[[], bool], closed: Callable[[], None]) -> None:
        self._is_over, self._closed = is_over, closed
        with socket.socket(socket.AF_UNIX) as end:
            end.connect(str(path))
            self._connection = Connection(end.detach())
        self.send = self._connection.send

    def poll(self, timeout_s: float) -> bool:
        """Wait for an object, or the end; tell whether there is one."""
        deadline = time.monotonic() + timeout_s
        while not self._connection.poll(min(LOOK_S, timeout_s)):
            if self._is_over():
                return True
            if time.monotonic() > deadline:
                return False
        return True

    def recv(self) -> Any:
        """Take the next object, however long that needs."""
        while not self._connection.poll(LOOK_S):
            if self._is_over() and not self._connection.poll(0):
                raise EOFError
        return self._connection.recv()

    def close(self) -> None:
        """Hang up; the next one to connect hears nothing of what was said."""
        if not self._connection.closed:
            self._connection.close()
            self._closed()


def open_inside(number: int) -> Connection:
    """Return the end in the machine of a port, which its host has connected to before."""
    (device,) = Path("/dev").glob(f"vport*p{number}")
    return Connection(os.open(device, os.O_RDWR))

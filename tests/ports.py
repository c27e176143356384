"""Ports for servers that tests start: free, and outside of those that the kernel gives to clients.

A port of theirs might be an outgoing connection's, also one that looks for the very server while it is down, when the
server comes to bind it.
"""

import random
import socket

__all__ = ["free_port"]

_given: set[int] = set()  # nobody may have bound them yet
_LUCK = random.SystemRandom()  # the same seed in every run would have two runs at once take the same ports


def free_port(address: str = "127.0.0.1") -> int:
    """Return a TCP port that nobody uses at the address, each once."""
    while True:
        port = _LUCK.randrange(12000, 32000)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
        _given.add(port)
        return port

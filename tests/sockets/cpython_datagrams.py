"""CPython's own tests of UDP, for test_datagrams.py: `python -m ffverbs.rsocket cpython_datagrams.py CLASS...`.

Those send a datagram or two from each socket, which go by UDP while it is being asked whether the peer has verbs. Here
each is sent when that is known. Prints how many tests failed, and how many datagrams went and came by verbs, as JSON.
"""

import errno
import json
import sys
import time
import unittest
from typing import Any

from ffverbs._native import lib
from ffverbs._rsocket_calls import pack, sockaddr
from ffverbs._rsocket_datagrams import DatagramSocket

PATIENCE_S = 1.0
counts = [0, 0]
send_to = DatagramSocket._send_to
close = DatagramSocket._real_close


def send_when_it_is_known(sock: DatagramSocket, data: Any, flags: int, address: Any) -> int:
    own = pack(sock.family, sock.getsockname())
    peer = pack(sock.family, sock.getpeername() if address is None else address)
    end = time.monotonic() + PATIENCE_S
    while lib.ffv_datagrams_reach(*sockaddr(own), *sockaddr(peer)) == -errno.EINPROGRESS and time.monotonic() < end:
        time.sleep(0.001)
    return send_to(sock, data, flags, address)


def count_and_close(sock: DatagramSocket, *arguments: Any) -> None:
    for index, more in enumerate(sock.datagrams_on_verbs()):
        counts[index] += more
    close(sock, *arguments)


DatagramSocket._send_to = send_when_it_is_known  # type: ignore[assignment, method-assign]
DatagramSocket._real_close = count_and_close  # type: ignore[assignment, method-assign]
names = [f"test.test_socket.{name}" for name in sys.argv[1:]]
result = unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromNames(names))
failed = len(result.failures) + len(result.errors)
print(json.dumps({"ran": result.testsRun, "failed": failed, "sent": counts[0], "received": counts[1]}))

"""UDP programs that know nothing of verbs, for the tests of sockets.

`python datagram_programs.py serve HOST [PORT]` prints its port and sends back what comes until its input ends. `python
datagram_programs.py talk HOST PORT SEED COUNT` sends so many datagrams of random lengths in each way to wait for the
answers, checks what comes back, and prints as JSON how many had to be sent again, and how many went and came by verbs
if it can tell. `python datagram_programs.py ask HOST PORT` does so with one socket, as many times as each line of its
input says, and prints a line then. `python datagram_programs.py asyncio COUNT` does so with asyncio's endpoints.
"""

import asyncio
import contextlib
import json
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import cast

PATTERN = random.Random(21).randbytes(1 << 17)
LENGTHS = (8, 100, 512, 1400, 4072, 4073, 20_000, 60_000)
AGAIN_S = 0.25  # after which a datagram counts as lost
GIVE_UP_S = 60.0


def datagram(number: int, length: int) -> bytes:
    """Return the datagram of a number: itself, and bytes that follow from it."""
    start = number * 31 % (len(PATTERN) // 2)
    return struct.pack("!Q", number) + PATTERN[start : start + length - 8]


def serve(host: str, port: int = 0) -> None:
    """Send back what comes, until standard input ends."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind((host, port))
        print(sock.getsockname()[1], flush=True)
        while sys.stdin not in (ready := select.select([sock, sys.stdin], [], [])[0]):
            if sock in ready:
                data, peer = sock.recvfrom(65536)
                sock.sendto(data, peer)


def by_blocking(sock: socket.socket) -> bool:
    """Leave the waiting to the call that receives."""
    sock.settimeout(AGAIN_S)
    return True


def by_select(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], AGAIN_S)[0])


def by_poll(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(AGAIN_S * 1000))


class ByEpoll:
    """Waits for an edge, and then receives until there is no more."""

    def __init__(self) -> None:
        self.epoll: select.epoll | None = None

    def __call__(self, sock: socket.socket) -> bool:
        sock.setblocking(False)
        if self.epoll is None:
            self.epoll = select.epoll()
            self.epoll.register(sock, select.EPOLLIN | select.EPOLLET)
        return bool(self.epoll.poll(AGAIN_S))


def receive(sock: socket.socket, number: int, sent: bytes, address: tuple[str, int]) -> bool:
    """Receive what is there until it is the answer; what came late, and twice, is passed over."""
    while True:
        try:
            data, peer = sock.recvfrom(65536)
        except (BlockingIOError, TimeoutError, ConnectionRefusedError):
            return False
        assert peer == address
        (found,) = struct.unpack_from("!Q", data)
        assert data == datagram(found, len(data))
        if found == number:
            assert data == sent
            return True


def converse(
    sock: socket.socket, address: tuple[str, int], rng: random.Random, count: int, wait: Callable[[socket.socket], bool]
) -> int:
    """Send so many datagrams and receive the answers; return how many were lost."""
    lost = 0
    is_connected = rng.random() < 0.5
    if is_connected:
        sock.connect(address)
    for number in range(count):
        data = datagram(number, rng.choice(LENGTHS))
        end = time.monotonic() + GIVE_UP_S
        while True:
            with contextlib.suppress(ConnectionRefusedError):  # of one before, which nobody was there for
                sock.send(data) if is_connected else sock.sendto(data, address)
            if wait(sock) and receive(sock, number, data, address):
                break
            lost += 1
            assert time.monotonic() < end, f"datagram {number} of {len(data)} bytes is not answered"
    return lost


def by_verbs(sock: socket.socket) -> tuple[int, int]:
    counts = getattr(sock, "datagrams_on_verbs", lambda: (0, 0))()
    return int(counts[0]), int(counts[1])


def talk(host: str, port: int, seed: int, count: int) -> None:
    """Converse in each way to wait."""
    rng = random.Random(seed)
    lost, sent, received = 0, 0, 0
    for wait in (by_blocking, by_select, by_poll, ByEpoll()):
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            lost += converse(sock, (host, port), rng, count, wait)
            counts = by_verbs(sock)
        sent += counts[0]
        received += counts[1]
    print(json.dumps({"lost": lost, "sent": sent, "received": received}))


def ask(host: str, port: int) -> None:
    """Converse by one socket, as often as each line of standard input says."""
    rng = random.Random(port)
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        for line in sys.stdin:
            converse(sock, (host, port), rng, int(line), by_select)
            print(line.strip(), flush=True)


class Echo(asyncio.DatagramProtocol):
    """A server's protocol."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)


class Client(asyncio.DatagramProtocol):
    """A client's, which puts what comes into a queue."""

    def __init__(self) -> None:
        self.came: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.came.put_nowait(data)


async def endpoints(count: int) -> tuple[int, int]:
    """A server's endpoint and a client's, in one process; how many datagrams the client sent and received by verbs."""
    loop = asyncio.get_running_loop()
    server, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    client, protocol = await loop.create_datagram_endpoint(Client, remote_addr=server.get_extra_info("sockname"))
    end = time.monotonic() + GIVE_UP_S
    for number in range(count):
        data = datagram(number, LENGTHS[number % len(LENGTHS)])
        while True:
            assert time.monotonic() < end
            client.sendto(data)
            try:
                while await asyncio.wait_for(protocol.came.get(), AGAIN_S) != data:
                    pass
                break
            except TimeoutError:
                continue
    counts = by_verbs(client.get_extra_info("socket")._sock)
    client.close()
    server.close()
    return counts


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", host_name]:
            serve(host_name)
        case ["serve", host_name, port_text]:
            serve(host_name, int(port_text))
        case ["ask", host_name, port_text]:
            ask(host_name, int(port_text))
        case ["talk", host_name, port_text, seed_text, count_text]:
            talk(host_name, int(port_text), int(seed_text), int(count_text))
        case ["asyncio", count_text]:
            print(json.dumps(asyncio.run(endpoints(int(count_text)))))

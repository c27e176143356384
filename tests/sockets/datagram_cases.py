"""Cases for test_datagrams.py, each a process with its sockets translated: `datagram_cases.py CASE`."""

import array
import ctypes
import fcntl
import os
import select
import socket
import struct
import sys
import termios
import threading
from collections.abc import Callable

HANG_S = 60
LOOPBACK = "127.0.0.1"
IP_PKTINFO = 8


def has_verbs(sock: socket.socket) -> bool:
    """Whether the engine has a socket beside it."""
    return int(ctypes.CDLL(None).ffv_sockets_state(sock.fileno())) == 3


def bound() -> socket.socket:
    """A socket with an address, whose program has looked whether something has come."""
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.bind((LOOPBACK, 0))
    assert select.select([sock], [], [], 0)[0] == []
    assert has_verbs(sock)
    return sock


def pair() -> tuple[socket.socket, socket.socket]:
    """Two sockets, between which datagrams go by verbs."""
    one, other = bound(), bound()
    calls = ctypes.CDLL(None)
    while True:
        before = (ctypes.c_uint64 * 2)()
        calls.ffv_sockets_datagrams(other.fileno(), before)
        one.sendto(b"?", other.getsockname())
        assert other.recvfrom(10) == (b"?", one.getsockname())
        after = (ctypes.c_uint64 * 2)()
        calls.ffv_sockets_datagrams(other.fileno(), after)
        if after[1] > before[1]:
            return one, other


def send_surely(sender: socket.socket, data: bytes, receiver: socket.socket) -> None:
    """Send again until something comes: what was sent to a socket of the engine that has gone is lost."""
    while True:
        sender.sendto(data, receiver.getsockname())
        if select.select([receiver], [], [], 0.05)[0]:
            return


def waits() -> None:
    """poll, select and epoll of both kinds tell of what comes by verbs and by UDP, and then no more."""
    one, other = pair()
    stranger = socket.socket(type=socket.SOCK_DGRAM)
    poll = select.poll()
    poll.register(other, select.POLLIN)
    with select.epoll() as level, select.epoll() as edge:
        level.register(other, select.EPOLLIN)
        edge.register(other, select.EPOLLIN | select.EPOLLET)
        for number in range(100):
            (one if number % 3 else stranger).sendto(b"x", other.getsockname())
            assert poll.poll(HANG_S * 1000) == [(other.fileno(), select.POLLIN)]
            assert level.poll(HANG_S) == [(other.fileno(), select.EPOLLIN)]
            assert edge.poll(HANG_S) == [(other.fileno(), select.EPOLLIN)]
            assert edge.poll(0) == []
            assert select.select([other], [other], [], HANG_S) == ([other], [other], [])
            assert other.recv(10) == b"x"
            assert level.poll(0) == []
            assert select.select([other], [], [], 0) == ([], [], [])
            assert poll.poll(0) == []


def who_sleeps() -> None:
    """A thread that sleeps in the kernel is woken though the answer could come by verbs."""
    server, client = bound(), socket.socket(type=socket.SOCK_DGRAM)
    came: list[bytes] = []
    has_come = threading.Semaphore(0)
    client.bind(("", 0))
    client.connect(server.getsockname())

    def listen() -> None:
        while (data := client.recv(100)) != b"end":
            came.append(data)
            has_come.release()

    thread = threading.Thread(target=listen)
    thread.start()
    for number in range(1000):
        client.send(b"%d" % number)
        server.sendto(*server.recvfrom(100))
        assert has_come.acquire(timeout=HANG_S)
    server.sendto(b"end", client.getsockname())
    thread.join(HANG_S)
    assert not thread.is_alive()
    assert came == [b"%d" % number for number in range(1000)]


def peeking() -> None:
    """What was peeked at, and what FIONREAD tells of, is what is received next."""
    one, other = pair()
    stranger = socket.socket(type=socket.SOCK_DGRAM)
    length = array.array("i", [0])
    for _ in range(20):
        stranger.sendto(b"udp", other.getsockname())
        assert other.recv(10, socket.MSG_PEEK) == b"udp"
        one.sendto(b"verbs", other.getsockname())
        fcntl.ioctl(other.fileno(), termios.FIONREAD, length)
        assert length[0] == 3
        assert other.recv(3) == b"udp"
        fcntl.ioctl(other.fileno(), termios.FIONREAD, length)
        assert length[0] == 5
        data, _, flags, peer = other.recvmsg(2)
        assert (data, flags, peer) == (b"ve", socket.MSG_TRUNC, one.getsockname())


def names() -> None:
    """A duplicate is the same socket; connecting chooses who is heard, and to connect to nobody ends that."""
    one, other = pair()
    stranger = bound()
    port = other.getsockname()[1]
    other.close()
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind((LOOPBACK, port))  # a number that was asked for stays when it is connected to nobody any more
        copy = other.dup()
    assert select.select([copy], [], [], 0)[0] == []
    assert has_verbs(copy)
    copy.connect(one.getsockname())
    stranger.sendto(b"not", copy.getsockname())
    send_surely(one, b"this", copy)
    assert copy.recv(10) == b"this"
    copy.send(b"back")
    assert one.recvfrom(10) == (b"back", copy.getsockname())
    nobody = struct.pack("=H14x", socket.AF_UNSPEC)
    assert ctypes.CDLL(None).connect(copy.fileno(), nobody, len(nobody)) == 0
    data = b""
    while data != b"now":  # but what was sent again before
        send_surely(stranger, b"now", copy)
        data = copy.recv(10)


def control_data() -> None:
    """Who asks for more than a datagram has UDP alone."""
    one, other = pair()
    one.sendto(b"before", other.getsockname())
    other.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    assert not has_verbs(other)
    assert other.recvfrom(10) == (b"before", one.getsockname())
    send_surely(one, b"x", other)
    _, control, _, _ = other.recvmsg(10, 100)
    assert [(level, kind) for level, kind, _ in control] == [(socket.IPPROTO_IP, IP_PKTINFO)]


def groups() -> None:
    """A group's datagrams come by UDP, to a socket that hears of others by verbs."""
    one, other = pair()
    group = "239.7.7.7"
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("", 0))
        member = socket.inet_aton(group) + socket.inet_aton(LOOPBACK)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK))
        assert select.select([sock], [], [], 0)[0] == []
        assert has_verbs(sock)
        one.sendto(b"group", (group, sock.getsockname()[1]))
        assert sock.recvfrom(10) == (b"group", one.getsockname())
    one.sendto(b"one", other.getsockname())
    assert other.recv(10) == b"one"


def fork() -> None:
    """Parent and child have the kernel's socket, and whoever is first reads what had come."""
    one, other = pair()
    one.sendto(b"unread", other.getsockname())
    one.sendto(b"for the parent", other.getsockname())
    child = os.fork()
    if not child:
        assert other.recvfrom(10) == (b"unread", one.getsockname())
        assert not has_verbs(other)
        other.sendto(b"child", one.getsockname())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert other.recvfrom(20) == (b"for the parent", one.getsockname())
    assert one.recvfrom(10) == (b"child", other.getsockname())
    child = os.fork()
    if not child:
        own = bound()  # which works in a child as in any process
        own.sendto(b"mine", one.getsockname())
        os._exit(0)
    assert one.recv(10) == b"mine"
    assert os.waitpid(child, 0)[1] == 0


CASES: dict[str, Callable[[], None]] = {
    function.__name__: function for function in (waits, who_sleeps, peeking, names, control_data, groups, fork)
}

if __name__ == "__main__":
    CASES[sys.argv[1]]()
    print("done")

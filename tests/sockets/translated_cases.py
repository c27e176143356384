"""Cases for test_translated.py, each a process with its sockets translated: `translated_cases.py CASE`."""

import ctypes
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

DATA = bytes(number % 251 for number in range(400_000))


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection that has gone over to verbs both ways."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        select.select([listener], [], [], 0)  # from now on it listens on verbs
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    state = ctypes.CDLL(None).ffv_sockets_state
    while state(client.fileno()) != 3 or state(server.fileno()) != 3:
        for one, other in ((client, server), (server, client)):
            one.sendall(b"hello")
            assert other.recv(5, socket.MSG_WAITALL) == b"hello"
    return client, server


def receive(sock: socket.socket, count: int) -> bytes:
    """Receive so many bytes."""
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        assert part, f"the end after {len(data)} of {count} bytes"
        data += part
    return data


def edges() -> None:
    """EPOLLET: one event for what came, and none again before more comes."""
    client, server = pair()
    server.setblocking(False)
    with select.epoll() as epoll:
        epoll.register(server, select.EPOLLIN | select.EPOLLET)
        epoll.poll(0)
        for number in range(200):
            client.sendall(b"x" * (number + 1))
            assert epoll.poll(60) == [(server.fileno(), select.EPOLLIN)]
            assert epoll.poll(0) == []
            assert receive(server, number + 1) == b"x" * (number + 1)
        epoll.modify(server, select.EPOLLOUT | select.EPOLLET)
        assert epoll.poll(60) == [(server.fileno(), select.EPOLLOUT)]
        sent = 0
        try:
            while True:
                sent += server.send(DATA)
        except BlockingIOError:
            pass
        epoll.poll(0)
        assert epoll.poll(0) == []
        receive(client, sent)
        assert epoll.poll(60) == [(server.fileno(), select.EPOLLOUT)]


def once() -> None:
    """EPOLLONESHOT: one event, until it is asked for again, also to a thread that waits already."""
    client, server = pair()
    found: list[list[tuple[int, int]]] = []
    with select.epoll() as epoll:
        epoll.register(server, select.EPOLLIN | select.EPOLLONESHOT)
        for _ in range(100):
            found.clear()
            thread = threading.Thread(target=lambda: found.append(epoll.poll(60)))
            thread.start()
            client.sendall(b"x")
            thread.join()
            assert found == [[(server.fileno(), select.EPOLLIN)]]
            client.sendall(b"y")
            assert epoll.poll(0) == []
            assert receive(server, 2) == b"xy"
            epoll.modify(server, select.EPOLLIN | select.EPOLLONESHOT)


def nested() -> None:
    """A set of epoll that is itself waited for: in another set, by poll, by select."""
    client, server = pair()
    with select.epoll() as outer, select.epoll() as inner:
        poll = select.poll()
        number = inner.fileno()
        outer.register(number, select.EPOLLIN)
        inner.register(server, select.EPOLLIN)
        poll.register(number, select.POLLIN)
        for _ in range(100):
            while outer.poll(0):  # without reason, once
                assert inner.poll(0) == []
            assert poll.poll(0) == []
            assert select.select([number], [], [], 0)[0] == []
            thread = threading.Thread(target=client.sendall, args=(b"x",))
            thread.start()
            assert outer.poll(60) == [(number, select.EPOLLIN)]
            thread.join()
            assert poll.poll(60_000) == [(number, select.POLLIN)]
            assert inner.poll(60) == [(server.fileno(), select.EPOLLIN)]
            assert outer.poll(60) == [(number, select.EPOLLIN)]  # for nobody has read
            assert select.select([number], [], [], 60)[0] == [number]
            assert server.recv(10) == b"x"
        for _ in range(100):
            while poll.poll(0):
                assert inner.poll(0) == []
            inner.modify(server, select.EPOLLIN | select.EPOLLOUT)
            assert poll.poll(60_000) == [(number, select.POLLIN)]
            assert inner.poll(0) == [(server.fileno(), select.EPOLLOUT)]
            inner.modify(server, select.EPOLLIN)
        inner.unregister(server)
        while poll.poll(0):
            assert inner.poll(0) == []
        client.sendall(b"x")
        assert outer.poll(0.05) == []


def select_() -> None:
    """select and poll beside what the kernel knows: a pipe, a plain listener."""
    client, server = pair()
    reader, writer = os.pipe()
    number = server.fileno()
    assert select.select([number, reader], [number], [], 0) == ([], [number], [])
    os.write(writer, b"x")
    assert select.select([number, reader], [], [], 60) == ([reader], [], [])
    client.sendall(b"x")
    assert select.select([number], [], [], 60) == ([number], [], [])
    assert select.select([number, reader], [], [], 60) == ([number, reader], [], [])
    poll = select.poll()
    poll.register(server, select.POLLIN)
    assert poll.poll(60_000) == [(server.fileno(), select.POLLIN)]
    assert server.recv(10) == b"x"
    assert poll.poll(0) == []
    client.close()
    assert poll.poll(60_000)[0][1] & select.POLLIN
    assert server.recv(10) == b""


def fork_child() -> None:
    """The child goes on with what the parent began, unread data included."""
    client, server = pair()
    thread = threading.Thread(target=client.sendall, args=(DATA,))
    thread.start()
    select.select([server], [], [])
    child = os.fork()
    if not child:
        client.close()
        assert receive(server, len(DATA)) == DATA
        server.sendall(b"child")
        os._exit(0)
    server.close()
    thread.join()
    assert receive(client, 5) == b"child"
    assert client.recv(1) == b""
    assert os.waitpid(child, 0)[1] == 0


def fork_parent() -> None:
    """The parent goes on while a child has the same sockets and does not use them."""
    client, server = pair()
    client.sendall(DATA[:1000])
    child = os.fork()
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    thread = threading.Thread(target=client.sendall, args=(DATA,))
    thread.start()
    assert receive(server, 1000) == DATA[:1000]
    assert receive(server, len(DATA)) == DATA
    thread.join()
    server.sendall(b"parent")
    assert receive(client, 6) == b"parent"


def subprocess_() -> None:
    """Programs that are started have none of it; a connection is one's standard input if it is meant to be."""
    client, server = pair()
    assert subprocess.run(["echo", "it"], stdout=subprocess.PIPE, check=True).stdout == b"it\n"
    client.sendall(b"still here")
    assert receive(server, 10) == b"still here"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        plain = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    with subprocess.Popen(["cat"], stdin=accepted.fileno(), stdout=accepted.fileno()) as cat:
        accepted.close()
        plain.sendall(b"to the cat")
        assert receive(plain, 10) == b"to the cat"
        plain.shutdown(socket.SHUT_WR)
        assert plain.recv(1) == b""
        assert cat.wait() == 0


def half_close() -> None:
    """One direction ends and the other goes on; a duplicate keeps a connection open."""
    client, server = pair()
    client.sendall(DATA[:5000])
    client.shutdown(socket.SHUT_WR)
    assert receive(server, 5000) == DATA[:5000]
    assert server.recv(1) == b""
    copy = server.dup()
    server.close()
    copy.sendall(DATA[:3000])
    copy.close()
    assert receive(client, 3000) == DATA[:3000]
    assert client.recv(1) == b""


def memcached() -> None:
    """Connections to a memcached at the address and port of the command line: so many values of many sizes."""
    failures: list[BaseException] = []

    def talk(number: int) -> None:
        try:
            with socket.create_connection((sys.argv[2], int(sys.argv[3]))) as sock:
                for turn in range(int(sys.argv[4])):
                    value = f"{number}-{turn}|".encode() * (1 + turn * 13 % 700)
                    sock.sendall(f"set k{number} 0 0 {len(value)}\r\n".encode() + value + b"\r\n")
                    assert receive(sock, 8) == b"STORED\r\n"
                    sock.sendall(f"get k{number}\r\n".encode())
                    answer = f"VALUE k{number} 0 {len(value)}\r\n".encode() + value + b"\r\nEND\r\n"
                    assert receive(sock, len(answer)) == answer
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


CASES: dict[str, Callable[[], None]] = {
    "edges": edges,
    "once": once,
    "nested": nested,
    "select": select_,
    "fork_child": fork_child,
    "fork_parent": fork_parent,
    "subprocess": subprocess_,
    "half_close": half_close,
    "memcached": memcached,
}

if __name__ == "__main__":
    CASES[sys.argv[1]]()
    print("done")

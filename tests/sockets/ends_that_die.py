"""One end of a connection in whose life the other end dies, or which dies itself (FFVERBS_FAULT): for test_death.py.

`ends_that_die.py listen HOST HANDS_OVER` prints its port, and converses with whoever connects, until standard input
ends; `ends_that_die.py connect HOST HANDS_OVER` does so with each port that a line of standard input names. How a
conversation ended, and when, is a line of JSON on standard output. HANDS_OVER is what this end does in the midst of
it: `fork`, `exec`, or `no`.
"""

import errno
import json
import os
import select
import socket
import sys
import time

from tests.sockets.ends_that_obey import go_over

SMALL, LARGE = 100, 300_000  # the latter is more than the ring, and so takes credits


class EndedError(Exception):
    """The end of the stream, ahead of its time."""


def pattern(count: int) -> bytes:
    return bytes(index % 251 for index in range(count))


def receive(sock: socket.socket, count: int) -> None:
    """Receive so many bytes, which must be the pattern's."""
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise EndedError
        data += part
    assert data == pattern(count)


def exchange(sock: socket.socket, count: int, first: bool) -> None:
    """So many bytes each way."""
    if first:
        sock.sendall(pattern(count))
    receive(sock, count)
    if not first:
        sock.sendall(pattern(count))


def hand_over(sock: socket.socket, first: bool, how: str) -> None:
    """Let another process have the connection, which then is this one's again; or become another program with it."""
    if how == "fork":
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
    if how == "exec":
        sock.set_inheritable(True)
        os.execv(
            sys.executable, [sys.executable, "-m", __spec__.name, "inherited", str(sock.fileno()), str(int(first))]
        )


def end(sock: socket.socket, first: bool) -> None:
    """Say the end, and see the other's."""
    if not first and sock.recv(1):
        raise ValueError("more than was sent")
    sock.shutdown(socket.SHUT_WR)
    if first and sock.recv(1):
        raise ValueError("more than was sent")


def converse(sock: socket.socket, first: bool, hands_over: str) -> None:
    """The life of a connection, to the step at which it may become another program's."""
    if not go_over(sock, first):
        raise EndedError
    exchange(sock, SMALL, first)
    exchange(sock, LARGE, first)
    hand_over(sock, first, hands_over)
    exchange(sock, SMALL, first)
    end(sock, first)


def outcome(sock: socket.socket, first: bool, hands_over: str) -> str:
    """How the conversation ends."""
    try:
        with sock:
            converse(sock, first, hands_over)
    except EndedError:
        return "EOF"
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "finished"


def tell(how: str) -> None:
    print(json.dumps([how, time.monotonic()]), flush=True)


def connect(host: str, port: int, hands_over: str) -> str:
    try:
        sock = socket.create_connection((host, port))
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return outcome(sock, True, hands_over)


def main() -> None:
    match sys.argv[1:]:
        case ["listen", host, hands_over]:
            with socket.create_server((host, 0)) as listener:
                print(json.dumps(listener.getsockname()[1]), flush=True)
                while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
                    sock, _ = listener.accept()
                    tell(outcome(sock, False, hands_over))
        case ["connect", host, hands_over]:
            for line in sys.stdin:
                tell(connect(host, json.loads(line)[0], hands_over))
        case ["inherited", number, first]:
            with socket.socket(fileno=int(number)) as sock:
                exchange(sock, SMALL, bool(int(first)))
                end(sock, bool(int(first)))
        case other:
            raise SystemExit(f"what is {other}?")


if __name__ == "__main__":
    main()

"""One end of a connection that obeys: a line of JSON on standard input is a command, one on standard output its result.

`ends_that_obey.py listen HOST` prints its port and accepts once; `ends_that_obey.py connect HOST PORT` connects.
"""

import array
import ctypes
import errno
import fcntl
import json
import os
import socket
import sys
import termios
import time

DEADLINE_S = 60.0
passing: socket.socket
PATIENCE_MS = int(os.environ.get("PATIENCE_MS", "0"))


def state(sock: socket.socket) -> bool:
    """Whether both directions go by verbs."""
    if hasattr(sock, "is_on_verbs"):
        return bool(sock.is_on_verbs)
    try:
        return int(ctypes.CDLL(None).ffv_sockets_state(sock.fileno())) == 3
    except AttributeError:
        return False


def go_over(sock: socket.socket, first: bool) -> bool:
    """Exchange little messages until all four directions go by verbs; False if not in time, or the other is gone."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        mine = b"y" if state(sock) else b"n"
        if first:
            sock.sendall(mine)
            theirs = sock.recv(1)
        else:
            theirs = sock.recv(1)
            sock.sendall(mine)
        if not theirs:
            return False
        if mine == theirs == b"y":
            return True
    return False


def pass_on(sock: socket.socket) -> object:
    """Give the connection to a process that was started before it, which echoes what comes; who has it then?"""
    try:
        socket.send_fds(passing, [b"x"], [sock.fileno()])
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    sock.close()
    return True


def echo_what_is_passed(mine: socket.socket) -> None:
    """Take connections until nobody gives any, and echo on each."""
    while True:
        data, fds, _, _ = socket.recv_fds(mine, 1, 1)
        if not data:
            os._exit(0)
        with socket.socket(fileno=fds[0]) as sock:
            while part := sock.recv(65536):
                sock.sendall(part)


def become(program: str, sock: socket.socket, is_inherited: bool) -> None:
    """Become another program, which goes on with the connection if it is inherited."""
    os.set_inheritable(sock.fileno(), is_inherited)
    os.execv(program, [program, __file__, "inherited", str(sock.fileno())])


def obey(sock: socket.socket, first: bool, command: list[object]) -> object:
    """Do what a command says."""
    match command:
        case ["over"]:
            return go_over(sock, first)
        case ["send", int(count)]:
            sock.sendall(bytes(index % 251 for index in range(count)))
            return count
        case ["receive", int(count)]:
            data = b""
            while len(data) < count and (part := sock.recv(count - len(data))):
                data += part
            assert data == bytes(index % 251 for index in range(len(data)))
            return len(data)
        case ["send until it fails"]:
            while True:
                sock.sendall(bytes(1000))
                time.sleep(0.01)
        case ["await", int(count)]:
            available = array.array("i", [0])
            while available[0] < count:
                fcntl.ioctl(sock.fileno(), termios.FIONREAD, available)
            return state(sock)
        case ["become", str(program), bool(is_inherited)]:
            become(program, sock, is_inherited)
        case ["end at once"]:
            os._exit(0)
        case ["pass on"]:
            return pass_on(sock)
        case _:
            raise ValueError(command)
    return None


def main() -> None:
    """Obey until standard input ends."""
    global passing
    passing, theirs = socket.socketpair()
    if sys.argv[1] == "listen" and not os.fork():
        passing.close()
        echo_what_is_passed(theirs)
    theirs.close()
    match sys.argv[1:]:
        case ["listen", host]:
            with socket.create_server((host, 0)) as listener:
                print(json.dumps(listener.getsockname()[1]), flush=True)
                sock, _ = listener.accept()
        case ["inherited", number]:
            sock = socket.socket(fileno=int(number))
            print("true", flush=True)
        case ["connect", host, port]:
            sock = socket.socket()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PATIENCE_MS)
            sock.connect((host, int(port)))
        case other:
            raise SystemExit(f"what is {other}?")
    for line in sys.stdin:
        try:
            result = obey(sock, sys.argv[1] == "connect", json.loads(line))
        except OSError as error:
            result = errno.errorcode[error.errno or 0]
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

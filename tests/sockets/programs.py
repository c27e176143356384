"""Programs that the tests of sockets run in processes of their own: an echo server, a client that checks every byte.

`python programs.py serve HOST` prints its port and serves until its input ends. `python programs.py talk HOST PORT SEED
CONNECTIONS SECONDS` talks over so many connections at once with random sizes, flags and ends, and prints what it did as
JSON. `python programs.py asyncio-serve HOST` and `asyncio-talk HOST PORT COUNT` do so in one thread each, with all
connections at once; the latter prints how many were on verbs.
"""

import asyncio
import json
import random
import resource
import socket
import sys
import threading
import time

CHUNK = 1 << 16
PATTERN = random.Random(20).randbytes(1 << 20)


def piece(seed: int, position: int, length: int) -> bytes:
    """Return the bytes of stream `seed` at a position."""
    start = (position * 31 + seed) % (len(PATTERN) // 2)
    return PATTERN[start : start + length]


def on_verbs(sock: socket.socket) -> bool:
    """Whether a connection goes over verbs."""
    return bool(getattr(sock, "is_on_verbs", False))


def serve_one(connection: socket.socket) -> None:
    """Send back what comes, to its end."""
    with connection:
        try:
            while data := connection.recv(CHUNK):
                connection.sendall(data)
        except OSError:
            return  # the client was killed, or ended as a part of the test


def serve(host: str) -> None:
    """Serve each connection in a thread, until standard input ends."""
    with socket.create_server((host, 0), backlog=512) as listener:
        print(listener.getsockname()[1], flush=True)
        threading.Thread(target=accept_all, args=(listener,), daemon=True).start()
        sys.stdin.read()


def accept_all(listener: socket.socket) -> None:
    """Accept for ever."""
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve_one, args=(connection,), daemon=True).start()


def talk_once(host: str, port: int, rng: random.Random) -> tuple[int, bool]:
    """One connection: send at random, check what comes back, end at random. Returns the bytes, and whether on verbs."""
    seed, total, sent, got = rng.randrange(1 << 30), rng.choice([0, 1, 500, 5000, 300_000, 2_000_000]), 0, 0
    total = rng.randint(0, total)
    lengths: list[tuple[int, int]] = []
    with socket.create_connection((host, port)) as sock:
        verbs = on_verbs(sock)
        give_up = rng.random() < 0.1
        while got < total:
            if sent < total:
                data = piece(seed, sent, min(total - sent, rng.choice([1, 64, 512, 513, 4000, CHUNK])))
                sock.sendall(data)
                lengths.append((sent, len(data)))
                sent += len(data)
            if give_up and sent > total // 2:
                return got, verbs  # closed with data under way
            while got < sent and (sent - got > CHUNK or sent == total):
                start, length = lengths[0]
                flags = rng.choice([0, 0, socket.MSG_PEEK, socket.MSG_WAITALL])
                data = sock.recv(rng.randint(1, start + length - got), flags)
                expected = piece(seed, start, length)[got - start : got - start + len(data)]
                if not data or data != expected:
                    raise SystemExit(f"stream {seed}: byte {got} of {total} is wrong, or missing")
                if flags != socket.MSG_PEEK:
                    got += len(data)
                if got == start + length:
                    lengths.pop(0)
        sock.shutdown(socket.SHUT_WR)
        if sock.recv(1):
            raise SystemExit(f"stream {seed}: more came than was sent")
    return got, verbs


def talk(host: str, port: int, seed: int, connections: int, seconds: float) -> None:
    """Keep so many connections busy for so long."""
    end = time.monotonic() + seconds
    done: list[tuple[int, bool]] = []
    failures: list[str] = []

    def one(number: int) -> None:
        rng = random.Random(seed * 1000 + number)
        try:
            first = True
            while first or time.monotonic() < end:
                done.append(talk_once(host, port, rng))
                first = False
        except (OSError, SystemExit) as error:
            failures.append(f"connection {number}: {error!r}")

    threads = [threading.Thread(target=one, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({
        "streams": len(done),
        "bytes": sum(count for count, _ in done),
        "on_verbs": sum(verbs for _, verbs in done),
        "failures": failures,
    }))  # fmt: skip


def need_descriptors() -> None:
    """Raise the limit as far as it goes: a connection on verbs takes several."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, to its end."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    writer.close()


async def echo_once(host: str, port: int, number: int) -> bool:
    """Send some, end, and check what comes back; tells whether that went over verbs."""
    reader, writer = await asyncio.open_connection(host, port)
    data = piece(number, number, 1000 + 997 * number % 100_000)
    writer.write(data)
    writer.write_eof()
    assert await reader.read() == data
    verbs = on_verbs(writer.get_extra_info("socket")._sock)
    writer.close()
    return verbs


async def talk_at_once(host: str, port: int, count: int) -> int:
    """So many clients at once, in one thread; returns how many of them were on verbs."""
    return sum(await asyncio.gather(*(echo_once(host, port, number) for number in range(count))))


async def serve_by_asyncio(host: str) -> None:
    """Serve all connections in one thread, until standard input ends."""
    server = await asyncio.start_server(echo, host, 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", host_name]:
            serve(host_name)
        case ["talk", host_name, port_text, seed_text, count_text, seconds_text]:
            talk(host_name, int(port_text), int(seed_text), int(count_text), float(seconds_text))
        case ["asyncio-serve", host_name]:
            need_descriptors()
            asyncio.run(serve_by_asyncio(host_name))
        case ["asyncio-talk", host_name, port_text, count_text]:
            need_descriptors()
            print(asyncio.run(talk_at_once(host_name, int(port_text), int(count_text))))

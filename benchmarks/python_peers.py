"""Peers that Python programs use between processes of one host: multiprocessing.Pipe, and ZeroMQ over ipc.

python -m benchmarks.python_peers pipe|zmq latency|stream [--size BYTES] [--iters N] [--cpus A,B]

Prints one JSON object: `p50_ns`, `p99_ns`, `p999_ns` one way (half of each round trip), or `bytes_per_s` that have
arrived. Every message begins with its number, and what arrives is compared.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class End:
    """One end of a transport that keeps messages whole."""

    send: Callable[[bytes], Any]
    receive: Callable[[], bytes]


def _zmq_end(address: str, is_first: bool) -> End:
    import zmq  # noqa: PLC0415 - only this peer needs it

    socket = zmq.Context().socket(zmq.PAIR)
    if is_first:
        socket.bind(address)
    else:
        socket.connect(address)
    return End(socket.send, socket.recv)


def _message(number: int, size_bytes: int) -> bytes:
    stamp = number.to_bytes(8, "big")
    return stamp + bytes(size_bytes - 8) if size_bytes >= 8 else stamp[-size_bytes:]


def _check(number: int, message: bytes, size_bytes: int) -> None:
    if message[:8] != _message(number, size_bytes)[:8] or len(message) != size_bytes:
        raise SystemExit(f"message {number} came back different")


def _second(make: Callable[[], End], cpu: int, is_stream: bool, size_bytes: int, counts: tuple[int, int]) -> None:
    os.sched_setaffinity(0, {cpu})
    end = make()
    warm_up, iters = counts
    for number in range(warm_up + iters):
        message = end.receive()
        _check(number, message, size_bytes)
        if not is_stream or number + 1 in (warm_up, warm_up + iters):
            end.send(message)


def _latency(end: End, size_bytes: int, counts: tuple[int, int]) -> dict[str, float]:
    samples = []
    for number in range(sum(counts)):
        message = _message(number, size_bytes)
        start = time.perf_counter_ns()
        end.send(message)
        answer = end.receive()
        elapsed = time.perf_counter_ns() - start
        _check(number, answer, size_bytes)
        if number >= counts[0]:
            samples.append(elapsed / 2)
    samples.sort()
    names = {"p50_ns": 0.5, "p99_ns": 0.99, "p999_ns": 0.999}
    return {name: samples[int((len(samples) - 1) * share)] for name, share in names.items()}


def _stream(end: End, size_bytes: int, counts: tuple[int, int]) -> dict[str, float]:
    first = 0
    start = time.perf_counter_ns()
    for count in counts:
        start = time.perf_counter_ns()
        for number in range(first, first + count):
            end.send(_message(number, size_bytes))
        end.receive()
        first += count
    return {"bytes_per_s": counts[1] * size_bytes / (time.perf_counter_ns() - start) * 1e9}


def measure(transport: str, test: str, size_bytes: int, iters: int, cpus: tuple[int, int]) -> dict[str, float]:
    """Run one test between this process and a second one."""
    counts = max(1, iters // 10), iters
    with tempfile.TemporaryDirectory(prefix="ffv-bench-") as folder:
        if transport == "pipe":
            mine, theirs = multiprocessing.Pipe()
            makers = [lambda c=c: End(c.send_bytes, c.recv_bytes) for c in (mine, theirs)]
        else:
            address = f"ipc://{Path(folder) / 'socket'}"
            makers = [lambda first=first: _zmq_end(address, first) for first in (True, False)]
        args = (makers[1], cpus[1], test == "stream", size_bytes, counts)
        process = multiprocessing.get_context("fork").Process(target=_second, args=args, daemon=True)
        process.start()
        os.sched_setaffinity(0, {cpus[0]})
        end = makers[0]()
        result = (_stream if test == "stream" else _latency)(end, size_bytes, counts)
        process.join()
    return result


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("transport", choices=("pipe", "zmq"))
    parser.add_argument("test", choices=("latency", "stream"))
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--iters", type=int, default=3000)
    parser.add_argument("--cpus", default="0,1")
    args = parser.parse_args()
    first, second = (int(cpu) for cpu in args.cpus.split(","))
    result = measure(args.transport, args.test, args.size, args.iters, (first, second))
    print(json.dumps({"test": f"{args.transport} {args.test}", "size_bytes": args.size, **result}))


if __name__ == "__main__":
    main()

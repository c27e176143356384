"""`python -m ffverbs.demo`: two containers do RDMA over shared memory, check it, and are timed against TCP.

The two ends, alice and bob, run in their own user, PID, IPC, network, UTS and mount namespaces and share one folder.
Where the kernel does not let us make namespaces they are two ordinary processes, and the demo says so. Exit status 0
means that every check held.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from ffverbs import __version__
from ffverbs import _containers as containers
from ffverbs._perf import Endpoint, Link, Settings, run_client, run_server
from ffverbs._perf_local import default_cpus
from ffverbs._perf_text import format_ns, format_rate
from ffverbs._status import gather, node_directory
from ffverbs._tcp_speed import TcpPeer
from ffverbs.libibverbs_enums import (
    IBV_SEND_SIGNALED,
    IBV_WC_FETCH_ADD,
    IBV_WC_RDMA_READ,
    IBV_WC_RDMA_WRITE,
    IBV_WC_RECV,
    IBV_WC_SEND,
    IBV_WC_SUCCESS,
    IBV_WR_ATOMIC_FETCH_AND_ADD,
    IBV_WR_RDMA_READ,
    IBV_WR_RDMA_WRITE,
    IBV_WR_SEND,
)
from ffverbs.pyverbs_error import PyverbsError
from ffverbs.wr import SGE, RecvWR, SendWR

__all__ = ["main"]

_MIB: Final = 1 << 20
_ADDITIONS: Final = 1000
_DEADLINE_S: Final = 60.0
_MEETING_POINT: Final = "demo.sock"
_RESULTS: Final = "demo-results.json"
_LATENCY_BYTES: Final = 64
_LATENCY_ITERS: Final = 20000
_BANDWIDTH_BYTES: Final = {65536: 8000, _MIB: 1000}


class DemoError(PyverbsError):
    """Something that the demo checks did not hold."""


# ---- the two ends: run in the containers ---------------------------------------------------------------------------


class _Story:
    """One end's objects and the steps that it takes with the other."""

    def __init__(self, link: Link) -> None:
        self.link = link
        settings = Settings.of("send_lat", size_bytes=_MIB, tx_depth=16, rx_depth=16, max_inline=0, loop="python")
        self.endpoint = Endpoint(settings, None, 1)
        self.mr, self.qp = self.endpoint.mr, self.endpoint.qp

    def say(self, text: str) -> None:
        """Tell the reader what happened."""
        print(text, flush=True)

    def connect(self) -> None:
        gid = self.endpoint.context.query_gid(1, 1)
        self.say(f"opened {self.endpoint.context.name}, GID {gid}, as process {os.getpid()} of my PID namespace")
        self.endpoint.connect(self.link)
        peer = self.endpoint.peer
        self.say(f"my RC queue pair {self.qp.qp_num:#x} is connected to {peer.qp_num:#x} at {peer.gid}")

    def complete(self, opcode: int) -> Any:
        """Wait for a completion of this kind."""
        cq = self.endpoint.recv_cq if opcode == IBV_WC_RECV else self.endpoint.send_cq
        count = 0
        while not count:
            count, completions = cq.poll()
        wc = completions[0]
        if wc.status != IBV_WC_SUCCESS or wc.opcode != opcode:
            raise DemoError(f"expected a success of opcode {int(opcode)}, got:\n{wc}")
        return wc

    def post_receive(self) -> None:
        sge = SGE(self.endpoint.recv_address, _MIB, self.mr.lkey)
        self.qp.post_recv(RecvWR(num_sge=1, sg=[sge]))

    def send(self, text: str) -> None:
        message = text.encode()
        self.mr.write(message, len(message))
        sge = SGE(self.endpoint.send_address, len(message), self.mr.lkey)
        self.qp.post_send(SendWR(opcode=IBV_WR_SEND, num_sge=1, sg=[sge]))
        self.complete(IBV_WC_SEND)
        self.say(f"SEND: {text!r}")

    def receive(self, wanted: str) -> None:
        wc = self.complete(IBV_WC_RECV)
        found = self.mr.read(wc.byte_len, self.endpoint.settings.half_bytes).decode(errors="replace")
        if found != wanted:
            raise DemoError(f"received {found!r}, not {wanted!r}")
        self.say(f"RECV: {found!r}")

    def act(self, opcode: int, completes_as: int, length: int) -> None:
        """Write, read or add to the receive half of the other end's memory."""
        sge = SGE(self.endpoint.send_address, length, self.mr.lkey)
        wr = SendWR(opcode=opcode, num_sge=1, sg=[sge], send_flags=IBV_SEND_SIGNALED)
        peer = self.endpoint.peer
        if opcode == IBV_WR_ATOMIC_FETCH_AND_ADD:
            wr.set_wr_atomic(peer.rkey, self.endpoint.remote_recv_address, 1)
        else:
            wr.set_wr_rdma(peer.rkey, self.endpoint.remote_recv_address)
        self.qp.post_send(wr)
        self.complete(completes_as)

    def tell_sum(self, data: bytes) -> None:
        self.link.send("sum", crc32=zlib.crc32(data))

    def compare_sum(self, data: bytes, what: str) -> None:
        wanted = self.link.receive("sum")["crc32"]
        if zlib.crc32(data) != wanted:
            raise DemoError(f"{what}: the bytes differ")


def _bob(story: _Story) -> None:
    story.connect()
    story.post_receive()
    story.link.meet()
    seen = gather()
    paths = {queue_pair["path"] for context in seen["contexts"] for queue_pair in context["qps"]}
    story.say(
        f"I see {len(seen['contexts'])} contexts in our folder; path of the queue pairs: {', '.join(sorted(paths))}"
    )
    story.send("hello alice, this is bob")
    story.receive("hello bob, alice here")

    data = os.urandom(_MIB)
    story.mr.write(data, _MIB)
    story.act(IBV_WR_RDMA_WRITE, IBV_WC_RDMA_WRITE, _MIB)
    story.say("RDMA WRITE: 1 MiB of random bytes into alice's memory")
    story.tell_sum(data)

    story.link.meet()
    story.act(IBV_WR_RDMA_READ, IBV_WC_RDMA_READ, _MIB)
    story.compare_sum(story.mr.read(_MIB, 0), "RDMA READ")
    story.link.meet()  # alice may use that memory again
    story.say("RDMA READ: 1 MiB out of alice's memory, checksum right")

    story.link.meet()
    for number in range(_ADDITIONS):
        story.act(IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_WC_FETCH_ADD, 8)
        found = int.from_bytes(story.mr.read(8, 0), sys.byteorder)
        if found != number:
            raise DemoError(f"FETCH_ADD {number} found {found}")
    story.say(f"FETCH_ADD: added 1 to a counter of alice's {_ADDITIONS} times, and saw every value before")
    story.link.meet()


def _alice(story: _Story) -> None:
    half = story.endpoint.settings.half_bytes
    story.connect()
    story.post_receive()
    story.link.meet()
    story.receive("hello alice, this is bob")
    story.send("hello bob, alice here")

    wanted = story.link.receive("sum")["crc32"]
    if zlib.crc32(story.mr.read(_MIB, half)) != wanted:
        raise DemoError("RDMA WRITE: the bytes that arrived are not those that were written")
    story.say("1 MiB appeared in my memory and I did nothing for it, checksum right")

    data = os.urandom(_MIB)
    story.mr.write(data, _MIB, half)
    story.link.meet()
    story.tell_sum(data)

    story.link.meet()  # bob has read it
    story.mr.write(bytes(8), 8, half)
    story.link.meet()
    story.link.meet()
    counter = int.from_bytes(story.mr.read(8, half), sys.byteorder)
    if counter != _ADDITIONS:
        raise DemoError(f"the counter is {counter}, not {_ADDITIONS}")
    story.say(f"my counter stands at {counter}")


def _timed_settings() -> list[Settings]:
    """Return what is measured, in order."""
    return [
        settings
        for loop in ("python", "c")
        for settings in (
            Settings.of("send_lat", size_bytes=_LATENCY_BYTES, iters=_LATENCY_ITERS, loop=loop),
            *(Settings.of("send_bw", size_bytes=size, iters=n, loop=loop) for size, n in _BANDWIDTH_BYTES.items()),
        )
    ]


def _meeting(role: str, folder: Path) -> Iterator[socket.socket]:
    """Connections between the two ends: bob's to alice, one after the other."""
    if role == "bob":
        while True:
            connected = socket.socket(socket.AF_UNIX)
            connected.connect(str(folder / _MEETING_POINT))
            yield connected
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / _MEETING_POINT))
        listener.listen()
        listener.settimeout(_DEADLINE_S)
        print("waiting for bob in the folder that we share", flush=True)
        while True:
            yield listener.accept()[0]


def _end(role: str) -> None:
    """One container's program."""
    os.sched_setaffinity(0, {default_cpus()[role == "alice"]})
    folder = Path(node_directory())
    links = _meeting(role, folder)
    with Link(next(links)) as link:
        story = _Story(link)
        with story.endpoint:
            (_alice if role == "alice" else _bob)(story)
    reports = []
    for settings in _timed_settings():
        link = Link(next(links))
        if role == "alice":
            run_server(link)
        else:
            reports.append(run_client(link, settings).as_dict())
    if role == "bob":
        (folder / _RESULTS).write_text(json.dumps(reports), encoding="utf-8")


# ---- the demo: starts the two and reports -------------------------------------------------------------------------


def _start(role: str, folder: Path, isolated: bool) -> containers.Container:
    """Start one end in a container, or as an ordinary process."""
    command = [sys.executable, "-m", "ffverbs.demo", "--end", role]
    package = str(Path(__file__).resolve().parents[1])
    if isolated:
        return containers.start(command, folder, name=role, env={"PYTHONPATH": package}, echo=True)
    env = {**os.environ, "PYTHONPATH": package, "FFVERBS_DIR": str(folder), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    return containers.Container(process, role, echo=True)


def _run_ends(folder: Path, isolated: bool) -> list[dict[str, Any]]:
    """Let alice and bob do their work and return the reports of what they measured."""
    with ExitStack() as stack:
        alice = stack.enter_context(_start("alice", folder, isolated))
        alice.wait_for("waiting", _DEADLINE_S)
        bob = stack.enter_context(_start("bob", folder, isolated))
        if isolated:
            bob.wait_for("opened", _DEADLINE_S)  # it is there, in its namespaces
            a, b = alice.namespaces(), bob.namespaces()
            shared = [kind for kind in containers.NAMESPACES if a[kind] == b[kind]]
            if shared:
                raise DemoError(f"the containers share namespaces: {', '.join(shared)}")
        for end in (bob, alice):
            if end.wait(_DEADLINE_S) != 0:
                raise DemoError(f"{end.name} failed with status {end.returncode}:\n{end.stderr}")
    reports: list[dict[str, Any]] = json.loads((folder / _RESULTS).read_text(encoding="utf-8"))
    return reports


def _measure_tcp() -> list[float]:
    """Return TCP's one-way latency in ns, then its bandwidths in bytes/s, as _timed_settings() orders them."""
    with TcpPeer(default_cpus()) as peer:
        peer.latency_ns(_LATENCY_BYTES, _LATENCY_ITERS // 10)
        latency = peer.latency_ns(_LATENCY_BYTES, _LATENCY_ITERS)
        return [latency, *(peer.bandwidth_bytes_per_s(size, n) for size, n in _BANDWIDTH_BYTES.items())]


def _bandwidth_text(per_second: float) -> str:
    return format_rate(per_second, "B/s")


def _speed_table(reports: list[dict[str, Any]], tcp: list[float]) -> Table:
    table = Table(title="How fast, beside TCP on loopback", title_justify="left")
    table.add_column("")
    for heading in ("TCP\nPython", "ffverbs\nPython", "\nratio", "ffverbs\nC", "\nratio"):
        table.add_column(heading, justify="right")
    for place, theirs in enumerate(tcp):
        size = reports[place]["size_bytes"]
        pair = reports[place], reports[place + len(tcp)]
        if reports[place]["latency_ns"]:
            name = f"{size} B, one way"
            text: Callable[[float], str] = format_ns
            ours = [report["latency_ns"]["p50"] for report in pair]
            ratios = [theirs / value for value in ours]
        else:
            name, text = f"{size >> 10} KiB, stream", _bandwidth_text
            ours = [report["bandwidth_bytes_per_s"] for report in pair]
            ratios = [value / theirs for value in ours]
        table.add_row(name, text(theirs), text(ours[0]), f"{ratios[0]:.1f}x", text(ours[1]), f"{ratios[1]:.1f}x")
    return table


def _demo() -> None:
    console = Console(highlight=False)
    reason = containers.unavailable()
    console.print(f"[bold]ffverbs {__version__}[/bold]: RDMA without RDMA hardware", soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="ffverbs-demo-") as name:
        folder = Path(name)
        if reason is None:
            kinds = ", ".join(containers.NAMESPACES)
            console.print(f"alice and bob are containers: own namespaces ({kinds}), one shared folder", soft_wrap=True)
        else:
            console.print(
                f"no containers here ({reason}): alice and bob are two ordinary processes",
                soft_wrap=True,
            )
        console.print()
        reports = _run_ends(folder, reason is None)
        left = sorted(path.name for path in folder.iterdir() if path.name not in (_MEETING_POINT, _RESULTS))
        if left:
            raise DemoError(f"the node directory still holds {', '.join(left)}")
    console.print()
    console.print(_speed_table(reports, _measure_tcp()))
    console.print("Medians of latency, means of bandwidth; a ratio above 1 is in favour of ffverbs.", soft_wrap=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the demo, or with --end one of its two ends; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m ffverbs.demo", description="Two containers do RDMA, and are timed."
    )
    parser.add_argument("--end", choices=("alice", "bob"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        _end(options.end) if options.end else _demo()
    except (PyverbsError, containers.ContainerError, OSError) as error:
        print(f"ffverbs demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What programs do once: registering memory, connecting, attaching to another process's context."""

import mmap
import multiprocessing
from multiprocessing.connection import Connection

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.micro.ends import ACCESS, Pair, connect, make_qp
from benchmarks.resources import Node
from ffverbs.mr import MR
from ffverbs.qp import QP

ROUNDS = 30
SIZES = [4096, 65536, 1 << 20, 16 << 20]


def touched(size_bytes: int) -> mmap.mmap:
    """Return private memory, every page of it in use."""
    memory = mmap.mmap(-1, size_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for offset in range(0, size_bytes, mmap.PAGESIZE):
        memory[offset] = 1
    return memory


@pytest.mark.parametrize("size_bytes", SIZES)
def test_register_own_memory(benchmark: BenchmarkFixture, size_bytes: int) -> None:
    """MR(pd, length): memory that the engine gives, registered and deregistered."""
    node = Node(16)
    benchmark.pedantic(lambda: MR(node.pd, size_bytes, ACCESS).close(), rounds=ROUNDS)


@pytest.mark.parametrize("size_bytes", SIZES)
def test_register_a_buffer(benchmark: BenchmarkFixture, size_bytes: int) -> None:
    """MR(pd, length, address): pages of the program's move into the mirror, and back."""
    import ctypes  # noqa: PLC0415 - only for an address

    node, memory = Node(16), touched(size_bytes)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    benchmark.pedantic(lambda: MR(node.pd, size_bytes, ACCESS, address).close(), rounds=ROUNDS)


def test_register_a_part_of_a_page(benchmark: BenchmarkFixture) -> None:
    """No page is wholly inside: nothing moves."""
    import ctypes  # noqa: PLC0415 - only for an address

    node, memory = Node(16), touched(mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + 64
    benchmark.pedantic(lambda: MR(node.pd, 1024, ACCESS, address).close(), rounds=ROUNDS)


def test_create_and_connect(benchmark: BenchmarkFixture, pair: Pair) -> None:
    """Two queue pairs of contexts that know each other: created, connected, destroyed."""

    def run() -> None:
        sender, receiver = make_qp(pair.here, pair.here.cq), make_qp(pair.there, pair.there.cq)
        connect(pair.here, sender, pair.there, receiver)
        sender.close()
        receiver.close()

    benchmark.pedantic(run, rounds=100)


def _answer(pipe: Connection) -> None:
    node = Node(16)
    qp = node.create_qp()
    pipe.send((node.gid, qp.qp_num))
    pipe.recv()


def test_attach_to_another_process(benchmark: BenchmarkFixture) -> None:
    """The first queue pair of a context that connects to a context of another process: look-up, hello, mapping."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_answer, args=(theirs,))
    process.start()
    try:
        gid, qp_num = ours.recv()

        def fresh() -> tuple[tuple[Node, QP], dict[str, object]]:
            node = Node(16)
            return (node, node.create_qp()), {}

        def attach(node: Node, qp: QP) -> None:
            node.connect(qp, gid, qp_num)

        benchmark.pedantic(attach, setup=fresh, rounds=ROUNDS)
    finally:
        ours.send("end")
        process.join()


def test_open_a_device(benchmark: BenchmarkFixture) -> None:
    """A context, with its arena and its name in the node directory, opened and closed."""

    def run() -> None:
        Node(16).context.close()

    benchmark.pedantic(run, rounds=ROUNDS)

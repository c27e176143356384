"""The router's side: finding a container in the registry's copy, and the messages that are packed and read."""

import secrets
import struct
from ipaddress import IPv4Address

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from etcd_registry.directory import Directory
from etcd_registry.records import ContainerRecord, HostRecord, decode, encode, gid_of, key_of
from router import asking
from router.hello import Hello

CONTAINERS = [10, 10_000]


def container(number: int) -> ContainerRecord:
    """Return the record of a container of its own address."""
    return ContainerRecord(gid_of(IPv4Address(0x0A000000 + number)), f"host{number % 100}", "tenant", 1)


@pytest.mark.parametrize("count", CONTAINERS)
def test_locate_a_container(benchmark: BenchmarkFixture, count: int) -> None:
    """What a router does for the first message to somebody: the time must not grow with their number."""
    directory = Directory()
    hosts = [HostRecord(f"host{n}", (f"192.0.2.{n + 1}:7777",), ("tcp",), f"machine{n}") for n in range(100)]
    directory.replace_records([*hosts, *(container(n) for n in range(count))])
    directory.connect()
    wanted = container(count // 2)
    found = benchmark(directory.locate, wanted.gid)
    assert found is not None
    assert found.container.gid == wanted.gid


def test_encode_a_record(benchmark: BenchmarkFixture) -> None:
    benchmark(encode, container(7))


def test_decode_a_record(benchmark: BenchmarkFixture) -> None:
    record = container(7)
    assert benchmark(decode, key_of(record), encode(record)) == record


def test_answer_a_question(benchmark: BenchmarkFixture) -> None:
    """A container's "who has this queue pair?": read and answered."""
    magic = int.from_bytes(b"ffvbrask", "little")
    packet = struct.pack("<QII16sII16sII", magic, 1, 1, bytes(16), 77, 0, bytes(16), 16384, 0)

    def run() -> bytes:
        question = asking.parse(packet)
        assert isinstance(question, asking.Where)
        return asking.answer(question, 0)

    assert len(benchmark(run)) == len(packet)


def test_two_routers_greet(benchmark: BenchmarkFixture) -> None:
    """Both sides of a beginning: versions, names, and the proof that both know the secret."""
    secret = secrets.token_bytes(32)

    def greet() -> str:
        one = Hello("one", secret, (1,), connected=True)
        two = Hello("two", secret, (1,), connected=False)
        two.read_first(one.first()[4:])
        one.read_first(two.first()[4:])
        two.read_second(one.second()[4:])
        one.read_second(two.second()[4:])
        return one.peer

    assert benchmark(greet) == "two"

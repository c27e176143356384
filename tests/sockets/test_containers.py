"""Sockets between two containers of one host: namespaces of their own, one node directory, and no router."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.network import unavailable
from tests.sockets.conversation import VERBS, Connection, exchange
from tests.sockets.test_two_hosts import ContainerNetwork
from tests.sockets.translated import ENDS, HANG_SECONDS, Ends, Place

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=f"no networks on this host: {unavailable()}")

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(sys.executable).name
PROGRAMS = str(Path(__file__).with_name("programs.py"))
OWN_NAMESPACES = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--ipc", "--uts", "--")


@pytest.fixture(scope="module", name="network")
def network_fixture() -> Iterator[ContainerNetwork]:
    with ContainerNetwork(("a", "b")) as network:
        yield network


def place(network: ContainerNetwork, name: str, folder: Path) -> Place:
    address = network.address(name)
    environment = {"FFVERBS_DIR": str(folder), "FFVERBS_IP": address, "PYTHONPATH": str(ROOT)}
    return Place([*network.enter(name), *OWN_NAMESPACES], environment, address)


@pytest.fixture(name="ends")
def ends_fixture(network: ContainerNetwork, tmp_path: Path) -> Ends:
    folder = tmp_path / "node"
    folder.mkdir(mode=0o700)
    return Ends(True, True, tmp_path / "report", place(network, "a", folder), place(network, "b", folder))


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("face", ["python", "translated"])
def test_every_byte_arrives(ends: Ends, seed: int, kind: str, face: str) -> None:
    """Both ends on verbs, or one of them; `ffverbs.rsocket`, and unmodified programs."""
    faces = [VERBS if on_verbs and face == "python" else () for on_verbs in ENDS[kind]]
    ends.server, ends.client = ENDS[kind] if face == "translated" else (False, False)
    serve = (sys.executable, *faces[0], PROGRAMS, "serve", ends.server_at.address)
    with ends.serving(*serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        where = (ends.server_at.address, server.stdout.readline().strip())
        talk = (PROGRAMS, "talk", *where, str(seed), "4", "0.5")
        result = json.loads(ends.run(sys.executable, *faces[1], *talk))
        if face == "translated":
            ends.talk_until_on_verbs(where[1])  # that lasts as long as it takes until there is a stream
        assert server.stdin is not None
        server.stdin.close()
        server.wait(HANG_SECONDS)
    assert result["failures"] == []
    if face == "python":
        assert result["on_verbs"] == (result["streams"] if kind == "both" else 0)
    else:
        ends.check(PYTHON)


@pytest.mark.parametrize("face", ["python", "translated"])
def test_data_needs_no_network(ends: Ends, network: ContainerNetwork, face: str) -> None:
    with Connection(ends, is_translated=face == "translated") as (server, client):
        network.cut("b")
        try:
            exchange(server, client, 1_000_000)
        finally:
            network.heal("b")


@pytest.mark.parametrize("face", ["python", "translated"])
def test_a_container_that_is_killed(ends: Ends, face: str) -> None:
    """What it had sent is read, and then the end, as of a process that the kernel closes the sockets of."""
    with Connection(ends, is_translated=face == "translated") as (server, client):
        assert client.do("send", 100_000) == 100_000
        client.process.kill()
        assert server.do("receive", 200_000) == 100_000

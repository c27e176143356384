"""Programs written for pyverbs, unchanged, in containers that share a node directory and nothing else."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ffverbs import _containers as containers

ROOT = Path(__file__).resolve().parents[2]
PINGPONG = ROOT / "docs" / "examples" / "rc_pingpong.py"
CM_HELLO = ROOT / "docs" / "examples" / "cm_hello.py"
# Where Debian puts the examples of python3-pyverbs, or where they are unpacked if the system drops documentation.
DEBIAN_EXAMPLES = "usr/share/doc/python3-pyverbs/examples"
EXAMPLE_FOLDERS = (Path("/") / DEBIAN_EXAMPLES, ROOT / "build" / "rdma-core" / DEBIAN_EXAMPLES)
MEETING_POINT = f"{containers.SHARED_INSIDE}/pingpong.sock"

in_containers = pytest.mark.skipif(
    containers.unavailable() is not None, reason=f"no containers on this host: {containers.unavailable()}"
)


def run(program: Path, *arguments: str, shared: Path, name: str, address: str = "") -> containers.Container:
    """Start `python -m ffverbs PROGRAM ARGUMENTS` in a container of its own."""
    command = [sys.executable, "-m", "ffverbs", str(program), *arguments]
    environment = {"PYTHONPATH": str(ROOT), **({"FFVERBS_IP": address} if address else {})}
    return containers.start(command, shared, name=name, env=environment)


def examples() -> list[Path]:
    """Return rdma-core's pyverbs examples."""
    return sorted(path for folder in EXAMPLE_FOLDERS for path in folder.glob("*.py"))


@in_containers
@pytest.mark.parametrize("rounds", [1, 500])
def test_pingpong_of_two_containers(node_directory: Path, rounds: int) -> None:
    more = ("--rounds", str(rounds))
    with run(PINGPONG, "server", MEETING_POINT, *more, shared=node_directory, name="server") as server:
        server.wait_for("listening")
        with run(PINGPONG, "client", MEETING_POINT, *more, shared=node_directory, name="client") as client:
            assert client.wait() == 0, client.stdout + client.stderr
        assert server.wait() == 0, server.stdout + server.stderr
    assert f"{rounds} rounds of 4096 bytes, all checked" in client.stdout
    assert "RDMA READ: ok\nFETCH_ADD, the value before: ok\ndone\n" in client.stdout
    assert server.stdout == "listening\nRDMA WRITE: ok\nFETCH_ADD, the value after: ok\ndone\n"
    assert list(node_directory.iterdir()) == []


@in_containers
def test_pairs_at_once_share_one_directory(node_directory: Path) -> None:
    points = [f"{containers.SHARED_INSIDE}/pingpong{number}.sock" for number in range(2)]
    servers = [run(PINGPONG, "server", point, shared=node_directory, name="server") for point in points]
    clients = []
    try:
        for server, point in zip(servers, points, strict=True):
            server.wait_for("listening")
            clients.append(run(PINGPONG, "client", point, shared=node_directory, name="client"))
        for container in (*clients, *servers):
            assert container.wait() == 0, container.stdout + container.stderr
    finally:
        for container in (*clients, *servers):
            container.kill()


@in_containers
def test_containers_connect_by_address(node_directory: Path) -> None:
    with run(CM_HELLO, "server", "0.0.0.0", shared=node_directory, name="server", address="10.7.0.1") as server:
        server.wait_for("listening")
        with run(CM_HELLO, "client", "10.7.0.1", shared=node_directory, name="client", address="10.7.0.2") as client:
            assert (client.wait(), client.stdout) == (0, "heard: hello, client\n"), client.stderr
        assert (server.wait(), server.stdout) == (0, "listening\nheard: hello, server\n"), server.stderr
    assert list(node_directory.iterdir()) == []


@in_containers
def test_rdma_core_examples(node_directory: Path) -> None:
    found = examples()
    if not found:
        pytest.skip(f"rdma-core's examples are in none of {', '.join(map(str, EXAMPLE_FOLDERS))}")
    for program in found:
        with run(program, shared=node_directory, name=program.stem) as container:
            assert container.wait() == 0, container.stdout + container.stderr
            if program.name == "ib_devices.py":
                heading, rule, *devices = container.stdout.splitlines()
                assert heading.split() == ["Device", "Node", "Type", "Transport", "Type", "Node", "GUID"]
                assert set(rule) == {"-", " "}
                assert [line.split()[0] for line in devices] == ["ffv0"]
                assert devices[0].split()[1:3] == ["CA", "IB"]


def test_the_program_in_the_readme(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    program = tmp_path / "readme.py"
    program.write_text("\n".join(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert (ran.returncode, ran.stdout) == (0, "hello over RDMA\n"), ran.stderr


@pytest.mark.parametrize("isolated", [pytest.param(True, marks=in_containers), False])
def test_the_demo(node_directory: Path, tmp_path: Path, isolated: bool) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if not isolated:
        environment["PATH"] = str(tmp_path)  # where there is no unshare
    ran = subprocess.run(
        [sys.executable, "-m", "ffverbs.demo"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ("alice and bob are containers" if isolated else "alice and bob are two ordinary processes") in ran.stdout
    assert "alice| my counter stands at 1000" in ran.stdout
    assert ran.stdout.count("x │") == 6, ran.stdout
    assert list(node_directory.iterdir()) == []

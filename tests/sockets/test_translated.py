"""`ffverbs sockets`: unmodified programs with both ends translated, or one of them and the other on plain TCP."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sockets.translated import ENDS, HANG_SECONDS, Ends, await_port, environment, free_port

PYTHON = Path(sys.executable).name
PROGRAMS = str(Path(__file__).with_name("programs.py"))
CASES = str(Path(__file__).with_name("translated_cases.py"))


@pytest.fixture(autouse=True)
def address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FFVERBS_IP", "10.7.7.7")


@pytest.fixture(params=ENDS)
def ends(request: pytest.FixtureRequest, tmp_path: Path) -> Ends:
    """Both ends translated, or one."""
    return Ends(*ENDS[request.param], tmp_path / "report")


@pytest.fixture
def both(tmp_path: Path) -> Ends:
    """Both ends translated."""
    return Ends(True, True, tmp_path / "report")


def need(*programs: str) -> None:
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (tests/setup/system_packages.sh test)")


# ---- programs of Python, which know nothing of us ----------------------------------------


def test_every_byte_arrives(ends: Ends, seed: int) -> None:
    """Random sizes, flags and ends over several connections at once."""
    with ends.serving(
        sys.executable, PROGRAMS, "serve", "127.0.0.1", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        out = ends.run(sys.executable, PROGRAMS, "talk", "127.0.0.1", port, str(seed), "4", "0.5")
    result = json.loads(out)
    assert result["failures"] == []
    if ends.server and ends.client:
        assert min(ends.went_by_verbs(PYTHON)) > 0


@pytest.mark.parametrize("case", ["edges", "once", "select", "fork_child", "fork_parent", "subprocess", "half_close"])
def test_semantics(both: Ends, case: str) -> None:
    """What one process does with both ends, or with a child: the cases are in translated_cases.py."""
    assert both.run(sys.executable, CASES, case) == "done\n"
    assert min(both.went_by_verbs(PYTHON)) > 0


def test_a_refused_connection_is_what_tcp_says(both: Ends) -> None:
    code = "import socket, sys; sys.exit(socket.socket().connect_ex(('127.0.0.1', int(sys.argv[1]))))"
    process = subprocess.run(
        [sys.executable, "-c", code, str(free_port())],
        env=environment(True, both.report),
        timeout=HANG_SECONDS,
        check=False,
    )
    assert os.strerror(process.returncode) == "Connection refused"


def test_http_server_with_curl(ends: Ends, tmp_path: Path) -> None:
    need("curl")
    body = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(body)
    port = free_port()
    with ends.serving(
        *(sys.executable, "-m", "http.server", "-b", "127.0.0.1", "-d", tmp_path, str(port)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        await_port(port, server)
        url = f"http://127.0.0.1:{port}/file"
        ends.run("curl", "-sS", "--fail", "-o", tmp_path / "got", url, "-o", tmp_path / "again", url)
    assert (tmp_path / "got").read_bytes() == body
    assert (tmp_path / "again").read_bytes() == body
    ends.check("curl", 0)  # the first bytes may go before there is a stream, and those are all that curl sends


# ---- programs from Debian ----------------------------------------


def test_iperf3(ends: Ends) -> None:
    """Its two connections at least, both ways; it counts what arrived."""
    need("iperf3")
    port = free_port()
    command = ["iperf3", "-s", "--forceflush", "-B", "127.0.0.1", "-p", str(port)]
    with ends.serving(*command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        for direction in ([], ["-R"]):
            while "listening" not in server.stdout.readline():  # it listens anew for each client
                assert server.poll() is None
            told = json.loads(
                ends.run("iperf3", "-J", "-c", "127.0.0.1", "-p", str(port), "-n", "64M", "-P", "2", *direction)
            )
            assert "error" not in told
            assert told["end"]["sum_received"]["bytes"] >= 32 << 20  # the last ones may come after it has counted
    ends.check("iperf3")


@pytest.mark.parametrize("pipeline", ["1", "16"])
def test_redis(ends: Ends, tmp_path: Path, pipeline: str) -> None:
    """Its benchmark, a value of a megabyte back and forth, and a save in the background, for which it forks."""
    need("redis-server", "redis-cli", "redis-benchmark")
    port = free_port()
    where = ("-h", "127.0.0.1", "-p", str(port))
    with ends.serving(
        *("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", tmp_path),
        stdout=subprocess.DEVNULL,
    ) as server:
        await_port(port, server)
        told = ends.run(
            "redis-benchmark", *where, "-t", "set,get,lpush", "-n", "3000", "-c", "20", "-P", pipeline, "--csv"
        )
        assert len(re.findall(r'^"(?:SET|GET|LPUSH)', told, re.M)) == 3
        value = os.urandom(500_000).hex()
        assert ends.run("redis-cli", *where, "-x", "set", "big", input=value) == "OK\n"
        assert ends.run("redis-cli", *where, "get", "big") == value + "\n"
        ends.run("redis-cli", *where, "bgsave")
        assert ends.run("redis-cli", *where, "strlen", "big").strip() == "1000000"
    ends.check("redis-benchmark")


# ---- the command ----------------------------------------


def test_the_command_runs_a_program_with_its_arguments() -> None:
    command = [sys.executable, "-m", "ffverbs.cli", "sockets", "--", "sh", "-c", 'echo "$0 $1 $LD_PRELOAD"; exit 3']
    done = subprocess.run([*command, "-a", "b"], stdout=subprocess.PIPE, text=True, timeout=HANG_SECONDS, check=False)
    assert done.returncode == 3
    assert re.fullmatch(r"-a b \S*libffv_sockets\.so\n", done.stdout)


def test_the_command_says_what_it_cannot_run() -> None:
    command = [sys.executable, "-m", "ffverbs.cli", "sockets", "--", "/nowhere/program"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=HANG_SECONDS, check=False)
    assert done.returncode == 1
    assert "/nowhere/program" in done.stderr or "No such file" in done.stderr

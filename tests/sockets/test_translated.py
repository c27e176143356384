"""`ffverbs sockets`: unmodified programs with both ends translated, or one of them and the other on plain TCP."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.sockets import debian
from tests.sockets.conversation import Connection
from tests.sockets.translated import HANG_SECONDS, Ends, environment

PYTHON = Path(sys.executable).name
PROGRAMS = str(Path(__file__).with_name("programs.py"))
CASES = str(Path(__file__).with_name("translated_cases.py"))


@pytest.fixture(autouse=True)
def address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FFVERBS_IP", "10.7.7.7")


# ---- programs of Python, which know nothing of us ----------------------------------------


def test_every_byte_arrives(ends: Ends, seed: int) -> None:
    """Random sizes, flags and ends over several connections at once."""
    with ends.serving(
        sys.executable, PROGRAMS, "serve", "127.0.0.1", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        out = ends.run(sys.executable, PROGRAMS, "talk", "127.0.0.1", port, str(seed), "4", "0.5")
        ends.talk_until_on_verbs(port)  # that lasts as long as it takes until there is a stream
    result = json.loads(out)
    assert result["failures"] == []
    ends.check(PYTHON)


@pytest.mark.parametrize(
    "case", ["edges", "once", "nested", "select", "fork_child", "fork_parent", "subprocess", "half_close"]
)
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
    debian.check_http_server(ends, free_port(), tmp_path)


# ---- connections that another program goes on with ----------------------------------------


def test_exec_keeps_a_connection(both: Ends) -> None:
    """What came by the stream and was not read goes along."""
    with Connection(both, is_translated=True) as (server, client):
        assert client.do("send", 5000) == 5000
        assert server.do("await", 5000) is True
        assert server.do("become", sys.executable, True) is True
        assert client.do("send", 5000) == 5000
        for _ in range(2):
            assert server.do("receive", 5000) == 5000
        assert server.do("send", 300_000) == 300_000
        assert client.do("receive", 300_000) == 300_000


def test_exec_closes_a_connection_that_is_not_inherited(both: Ends) -> None:
    with Connection(both, is_translated=True) as (server, client):
        server.tell("become", sys.executable, False)
        assert client.do("receive", 1) == 0


def test_exec_that_fails(both: Ends) -> None:
    """The program goes on with what it has."""
    with Connection(both, is_translated=True) as (server, client):
        assert client.do("send", 5000) == 5000
        assert server.do("await", 5000) is True
        assert server.do("become", "/nowhere/program", True) == "ENOENT"
        assert client.do("send", 5000) == 5000
        for _ in range(2):
            assert server.do("receive", 5000) == 5000
        assert server.do("send", 5000) == 5000
        assert client.do("receive", 5000) == 5000


def test_a_connection_is_passed_on_in_a_message(both: Ends) -> None:
    with Connection(both, is_translated=True) as (server, client):
        assert server.do("pass on") is True
        assert client.do("send", 5000) == 5000
        assert client.do("receive", 5000) == 5000


def test_a_connection_with_unread_data_is_not_passed_on(both: Ends) -> None:
    """Nobody could read it then; who has the connection still can."""
    with Connection(both, is_translated=True) as (server, client):
        assert client.do("send", 5000) == 5000
        assert server.do("await", 5000) is True
        assert server.do("pass on") == errno.errorcode[errno.EOPNOTSUPP]
        assert server.do("receive", 5000) == 5000
        assert server.do("pass on") is True
        assert client.do("send", 5000) == 5000
        assert client.do("receive", 5000) == 5000


# ---- programs from Debian ----------------------------------------


def test_iperf3(ends: Ends) -> None:
    debian.check_iperf3(ends, free_port(), 64)


@pytest.mark.parametrize("pipeline", ["1", "16"])
def test_redis(ends: Ends, tmp_path: Path, pipeline: str) -> None:
    debian.check_redis(ends, free_port(), tmp_path, pipeline)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_memcached(ends: Ends, threads: str) -> None:
    debian.check_memcached(ends, free_port(), threads)


def test_nginx_with_curl_and_wrk(ends: Ends, tmp_path: Path) -> None:
    debian.check_nginx(ends, free_port(), tmp_path)


def test_rsync_from_its_daemon(ends: Ends, tmp_path: Path) -> None:
    debian.check_rsync(ends, free_port(), tmp_path)


def test_sockperf(ends: Ends) -> None:
    debian.check_sockperf(ends, free_port())


@pytest.mark.parametrize("waits", ["epoll", "select", "poll"])
def test_sockperf_with_each_way_to_wait(both: Ends, tmp_path: Path, waits: str) -> None:
    port = free_port()
    (tmp_path / "feed").write_text(f"T:127.0.0.1:{port}\n")
    debian.check_sockperf(both, port, "-f", tmp_path / "feed", "-F", waits)


def test_openssh(ends: Ends, tmp_path: Path) -> None:
    debian.check_openssh(ends, free_port(), tmp_path)


def test_postgresql_with_pgbench(ends: Ends) -> None:
    debian.check_postgresql(ends, free_port())


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

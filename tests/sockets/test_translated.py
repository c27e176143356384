"""`ffverbs sockets`: unmodified programs with both ends translated, or one of them and the other on plain TCP."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.sockets.conversation import Connection
from tests.sockets.translated import (
    ENDS,
    HANG_SECONDS,
    Ends,
    await_port,
    check_iperf3,
    environment,
    need,
)

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
    check_iperf3(ends, free_port(), 64)


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
        for effort in ends.efforts("redis-benchmark"):
            work = ("-t", "set,get,lpush", "-n", str(3000 * effort), "-c", "20", "-P", pipeline)
            told = ends.run("redis-benchmark", *where, *work, "--csv")
            assert len(re.findall(r'^"(?:SET|GET|LPUSH)', told, re.M)) == 3
        value = os.urandom(500_000).hex()
        assert ends.run("redis-cli", *where, "-x", "set", "big", input=value) == "OK\n"
        assert ends.run("redis-cli", *where, "get", "big") == value + "\n"
        ends.run("redis-cli", *where, "bgsave")
        assert ends.run("redis-cli", *where, "strlen", "big").strip() == "1000000"
    ends.check("redis-benchmark")


@pytest.mark.parametrize("threads", ["1", "2"])
def test_memcached(ends: Ends, threads: str) -> None:
    """Values of many sizes over several connections, which its threads share out."""
    need("memcached")
    port = free_port()
    as_user = ["-u", "root"] if os.geteuid() == 0 else []
    with ends.serving("memcached", *as_user, "-l", "127.0.0.1", "-p", str(port), "-t", threads) as server:
        await_port(port, server)
        for effort in ends.efforts(PYTHON):
            assert ends.run(sys.executable, CASES, "memcached", str(port), str(200 * effort)) == "done\n"
    ends.check(PYTHON)


def test_nginx_with_curl_and_wrk(ends: Ends, tmp_path: Path) -> None:
    """Two workers, which are forked and clean their environment; sendfile; connections that are kept."""
    need("nginx", "curl", "wrk")
    port = free_port()
    (tmp_path / "file").write_bytes(body := os.urandom(2_000_000))
    (tmp_path / "small").write_text("small\n")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "\n".join(f"{kind}_temp_path {tmp_path};" for kind in kinds)
    user = "user root;" if os.geteuid() == 0 else ""
    (tmp_path / "conf").write_text(
        f"{user} worker_processes 2; pid {tmp_path}/pid; error_log {tmp_path}/errors; daemon off;\n"
        "events { worker_connections 256; }\n"
        f"http {{ access_log off; sendfile on; {folders}\n"
        f"server {{ listen 127.0.0.1:{port}; root {tmp_path}; }} }}\n"
    )
    with ends.serving("nginx", "-e", tmp_path / "errors", "-c", tmp_path / "conf") as server:
        await_port(port, server)
        url = f"http://127.0.0.1:{port}"
        ends.run("curl", "-sS", "--fail", "-o", tmp_path / "got", f"{url}/file")
        assert (tmp_path / "got").read_bytes() == body
        for effort in ends.efforts("wrk"):
            told = ends.run("wrk", "-t", "2", "-c", "8", "--timeout", "60s", "-d", f"{effort}s", f"{url}/small")
            assert "Non-2xx" not in told
            assert "Socket errors" not in told
            told = ends.run("wrk", "-t", "1", "-c", "4", "--timeout", "60s", "-d", f"{effort}s", f"{url}/file")
            assert "Socket errors" not in told
    ends.check("wrk")


def test_rsync_from_its_daemon(ends: Ends, tmp_path: Path) -> None:
    """A server that forks for each connection."""
    need("rsync")
    port = free_port()
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "big").write_bytes(os.urandom(2_000_000))
    for number in range(50):
        (source / f"file {number}").write_text(str(number))
    (tmp_path / "conf").write_text(f"use chroot = no\nport = {port}\naddress = 127.0.0.1\n[m]\npath = {source}\n")
    with ends.serving("rsync", "--daemon", "--no-detach", "--config", tmp_path / "conf") as server:
        await_port(port, server)
        for _ in range(2):
            ends.run("rsync", "-a", f"rsync://127.0.0.1:{port}/m/", f"{target}/")
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }


def check_sockperf(ends: Ends, port: int, *feed: str | Path) -> None:
    """Run its ping-pong; it counts what comes back, and checks the order."""
    with ends.serving("sockperf", "sr", *feed, stdout=subprocess.DEVNULL) as server:
        ends.await_port(port, server)
        for effort in ends.efforts("sockperf"):
            # At its own pace it ends with status 6 when more is answered in a second than it has made room for.
            told = ends.run("sockperf", "pp", *feed, "-t", str(effort), "-m", "64", "--mps", "100000")
            counts = re.search(r"\[Valid Duration\].*SentMessages=(\d+); ReceivedMessages=(\d+)", told)
            assert counts is not None, told
            assert int(counts[1]) == int(counts[2]) > 0
            assert "# dropped messages = 0; # duplicated messages = 0; # out-of-order messages = 0" in told
    ends.check("sockperf")


def test_sockperf(ends: Ends) -> None:
    need("sockperf")
    port = free_port()
    check_sockperf(ends, port, "-i", "127.0.0.1", "-p", str(port), "--tcp")


@pytest.mark.parametrize("waits", ["epoll", "select", "poll"])
def test_sockperf_with_each_way_to_wait(both: Ends, tmp_path: Path, waits: str) -> None:
    need("sockperf")
    port = free_port()
    (tmp_path / "feed").write_text(f"T:127.0.0.1:{port}\n")
    check_sockperf(both, port, "-f", tmp_path / "feed", "-F", waits)


CKSUM_OF_X = "4204585232 500000"
SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/key.pub
StrictModes no
UsePAM no
PidFile none
PermitRootLogin yes
Subsystem sftp internal-sftp
"""
SSHD_IN_ITS_OWN_RUN = "mount -t tmpfs none /run && mkdir /run/sshd && exec {sshd} -D -e -f {folder}/conf"


def test_openssh(ends: Ends, tmp_path: Path) -> None:
    """A server that forks and executes itself for each connection, which therefore stays TCP, and then forks again."""
    need("ssh", "scp", "ssh-keygen", "unshare", "cksum")
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if sshd is None or os.geteuid() != 0:
        pytest.skip("needs sshd (tests/setup/system_packages.sh test), as root")
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    port = free_port()
    (tmp_path / "conf").write_text(SSHD.format(port=port, folder=tmp_path))
    options: list[str | Path] = [*("-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "IdentitiesOnly=yes")]
    options += ["-o", f"UserKnownHostsFile={tmp_path}/known", "-i", tmp_path / "key"]
    script = SSHD_IN_ITS_OWN_RUN.format(sshd=sshd, folder=tmp_path)
    with ends.serving("unshare", "--mount", "sh", "-c", script, stderr=subprocess.DEVNULL) as server:
        ends.await_port(port, server)
        told = ends.run(
            *("ssh", "-q", *options, "-p", str(port), "root@127.0.0.1", "head -c 3000000 /dev/zero | cksum; cksum"),
            input="x" * 500_000,
        )
        assert told.splitlines() == ["3933251326 3000000", CKSUM_OF_X]
        (tmp_path / "file").write_bytes(body := os.urandom(3_000_000))
        ends.run("scp", "-q", *options, "-P", str(port), tmp_path / "file", f"root@127.0.0.1:{tmp_path}/got")
        assert (tmp_path / "got").read_bytes() == body


def postgres_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, which Debian keeps out of PATH."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


def test_postgresql_with_pgbench(ends: Ends) -> None:
    """A process for each connection, forked after it was accepted. It refuses to run as root."""
    folder = postgres_programs()
    if folder is None:
        pytest.skip("not installed: postgresql (tests/setup/system_packages.sh test)")
    as_user: tuple[str, ...] = ()
    if os.geteuid() == 0:
        need("setpriv")
        as_user = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="ffv-pg-") as home:
        for path in (home, os.environ["FFVERBS_DIR"], ends.report.parent):
            os.chmod(path, 0o777)
        subprocess.run(
            [*as_user, folder / "initdb", "-D", f"{home}/data", "-A", "trust", "-U", "bench", "-N", "-E", "UTF8"],
            stdout=subprocess.DEVNULL,
            timeout=HANG_SECONDS,
            check=True,
        )
        where = ("-h", "127.0.0.1", "-p", str(port))
        command: tuple[str | Path, ...] = (*as_user, folder / "postgres", "-D", f"{home}/data", *where, "-k", home)
        with ends.serving(*command, "-F", stderr=subprocess.DEVNULL) as server:
            asks: list[str | Path] = [folder / "pg_isready", "-q", *where]
            while subprocess.run(asks, timeout=HANG_SECONDS, check=False).returncode:
                assert server.poll() is None
                time.sleep(0.02)
            ends.run(folder / "pgbench", "-i", "-q", *where, "-U", "bench", "postgres", stderr=subprocess.DEVNULL)
            for effort in ends.efforts("pgbench"):
                work = ("-t", str(50 * effort), "-c", "4", "-U", "bench", "postgres")
                told = ends.run(folder / "pgbench", *where, *work, stderr=subprocess.DEVNULL)
                assert f"number of transactions actually processed: {200 * effort}/{200 * effort}" in told
            server.send_signal(signal.SIGINT)  # without waiting for clients
            server.wait(HANG_SECONDS)
    ends.check("pgbench")


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

"""Programs from Debian, each end to end with its own checks, wherever the two ends are and whichever is translated.

A `check_` runs the server at `ends.server_at` on a port that is free there, and its clients at `ends.client_at`; it
skips if a program is not installed.
"""

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

from tests.sockets.translated import HANG_SECONDS, Ends, need

PYTHON = Path(sys.executable).name
CASES = str(Path(__file__).with_name("translated_cases.py"))


def check_iperf3(ends: Ends, port: int, mebibytes: int) -> None:
    """Its two connections at least, both ways; it counts what arrived."""
    need("iperf3")
    where = ("-p", str(port))
    command = ("iperf3", "-s", "--forceflush", "-B", ends.server_at.address, *where)
    with ends.serving(*command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        for effort in ends.efforts("iperf3"):
            for direction in ([], ["-R"]):
                while "listening" not in server.stdout.readline():  # it listens anew for each client
                    assert server.poll() is None
                amount = ("-n", f"{mebibytes * effort}M", "-P", "2")
                told = json.loads(ends.run("iperf3", "-J", "-c", ends.server_at.address, *where, *amount, *direction))
                assert "error" not in told
                # The last ones may come after it has counted: of two streams, what 20 MB of buffers hold.
                assert told["end"]["sum_received"]["bytes"] >= mebibytes * effort << 18
    ends.check("iperf3")


def check_http_server(ends: Ends, port: int, folder: Path) -> None:
    """Python's, with curl."""
    need("curl")
    body = os.urandom(3_000_000)
    (folder / "file").write_bytes(body)
    with ends.serving(
        *(sys.executable, "-m", "http.server", "-b", ends.server_at.address, "-d", folder, str(port)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        ends.await_port(port, server)
        url = f"http://{ends.server_at.address}:{port}/file"
        ends.run("curl", "-sS", "--fail", "-o", folder / "got", url, "-o", folder / "again", url)
    assert (folder / "got").read_bytes() == body
    assert (folder / "again").read_bytes() == body
    ends.check("curl", 0)  # the first bytes may go before there is a stream, and those are all that curl sends


def check_redis(ends: Ends, port: int, folder: Path, pipeline: str) -> None:
    """Its benchmark, a value of a megabyte back and forth, and a save in the background, for which it forks."""
    need("redis-server", "redis-cli", "redis-benchmark")
    where = ("-h", ends.server_at.address, "-p", str(port))
    bound = ("--port", str(port), "--bind", ends.server_at.address, "--protected-mode", "no")
    command = ("redis-server", *bound, "--save", "", "--dir", folder)
    with ends.serving(*command, stdout=subprocess.DEVNULL) as server:
        ends.await_port(port, server)
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


def check_memcached(ends: Ends, port: int, threads: str) -> None:
    """Values of many sizes over several connections, which its threads share out."""
    need("memcached")
    as_user = ["-u", "root"] if os.geteuid() == 0 else []
    with ends.serving("memcached", *as_user, "-l", ends.server_at.address, "-p", str(port), "-t", threads) as server:
        ends.await_port(port, server)
        for effort in ends.efforts(PYTHON):
            words = (CASES, "memcached", ends.server_at.address, str(port), str(200 * effort))
            assert ends.run(sys.executable, *words) == "done\n"
    ends.check(PYTHON)


def check_nginx(ends: Ends, port: int, folder: Path) -> None:
    """Two workers, which are forked and clean their environment; sendfile; connections that are kept."""
    need("nginx", "curl", "wrk")
    (folder / "file").write_bytes(body := os.urandom(2_000_000))
    (folder / "small").write_text("small\n")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "\n".join(f"{kind}_temp_path {folder};" for kind in kinds)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "conf").write_text(
        f"{user} worker_processes 2; pid {folder}/pid; error_log {folder}/errors; daemon off;\n"
        "events { worker_connections 256; }\n"
        f"http {{ access_log off; sendfile on; {folders}\n"
        f"server {{ listen {ends.server_at.address}:{port}; root {folder}; }} }}\n"
    )
    with ends.serving("nginx", "-e", folder / "errors", "-c", folder / "conf") as server:
        ends.await_port(port, server)
        url = f"http://{ends.server_at.address}:{port}"
        ends.run("curl", "-sS", "--fail", "-o", folder / "got", f"{url}/file")
        assert (folder / "got").read_bytes() == body
        for effort in ends.efforts("wrk"):
            told = ends.run("wrk", "-t", "2", "-c", "8", "--timeout", "60s", "-d", f"{effort}s", f"{url}/small")
            assert "Non-2xx" not in told
            assert "Socket errors" not in told
            told = ends.run("wrk", "-t", "1", "-c", "4", "--timeout", "60s", "-d", f"{effort}s", f"{url}/file")
            assert "Socket errors" not in told
    ends.check("wrk")


def check_rsync(ends: Ends, port: int, folder: Path) -> None:
    """A server that forks for each connection."""
    need("rsync")
    source, target = folder / "source", folder / "target"
    source.mkdir()
    (source / "big").write_bytes(os.urandom(2_000_000))
    for number in range(50):
        (source / f"file {number}").write_text(str(number))
    (folder / "conf").write_text(
        f"use chroot = no\nport = {port}\naddress = {ends.server_at.address}\n[m]\npath = {source}\n"
    )
    with ends.serving("rsync", "--daemon", "--no-detach", "--config", folder / "conf") as server:
        ends.await_port(port, server)
        for _ in range(2):
            ends.run("rsync", "-a", f"rsync://{ends.server_at.address}:{port}/m/", f"{target}/")
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }


def ping_pong(ends: Ends, effort: int, *where: str | Path) -> str:
    """Run sockperf's; it counts what comes back. Returns what it says."""
    # At its own pace it ends with status 6 when more is answered in a second than it has made room for.
    told = ends.run("sockperf", "pp", *where, "-t", str(effort), "-m", "64", "--mps", "100000")
    counts = re.search(r"\[Valid Duration\].*SentMessages=(\d+); ReceivedMessages=(\d+)", told)
    assert counts is not None, told
    assert int(counts[1]) == int(counts[2]) > 0
    return told


def check_sockperf(ends: Ends, port: int, *feed: str | Path) -> None:
    """Its ping-pong; it counts what comes back, and checks the order. `feed`: options in place of the usual ones."""
    need("sockperf")
    feed = feed or ("-i", ends.server_at.address, "-p", str(port), "--tcp")
    with ends.serving("sockperf", "sr", *feed, stdout=subprocess.DEVNULL) as server:
        ends.await_port(port, server)
        for effort in ends.efforts("sockperf"):
            told = ping_pong(ends, effort, *feed)
            assert "# dropped messages = 0; # duplicated messages = 0; # out-of-order messages = 0" in told
    ends.check("sockperf")


CKSUM_OF_X = "4204585232 500000"
SSHD = """
Port {port}
ListenAddress {address}
HostKey {folder}/host
AuthorizedKeysFile {folder}/key.pub
StrictModes no
UsePAM no
PidFile none
PermitRootLogin yes
Subsystem sftp internal-sftp
"""
SSHD_IN_ITS_OWN_RUN = "mount -t tmpfs none /run && mkdir /run/sshd && exec {sshd} -D -e -f {folder}/conf"


def check_openssh(ends: Ends, port: int, folder: Path) -> None:
    """A server that forks and executes itself for each connection, which therefore stays TCP, and then forks again."""
    need("ssh", "scp", "ssh-keygen", "unshare", "cksum")
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if sshd is None or os.geteuid() != 0:
        pytest.skip("needs sshd (tests/setup/system_packages.sh test), as root")
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "conf").write_text(SSHD.format(address=ends.server_at.address, port=port, folder=folder))
    options: list[str | Path] = [*("-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "IdentitiesOnly=yes")]
    options += ["-o", f"UserKnownHostsFile={folder}/known", "-i", folder / "key"]
    script = SSHD_IN_ITS_OWN_RUN.format(sshd=sshd, folder=folder)
    with ends.serving("unshare", "--mount", "sh", "-c", script, stderr=subprocess.DEVNULL) as server:
        ends.await_port(port, server)
        remote = f"root@{ends.server_at.address}"
        words = ("ssh", "-q", *options, "-p", str(port), remote, "head -c 3000000 /dev/zero | cksum; cksum")
        told = ends.run(*words, input="x" * 500_000)
        assert told.splitlines() == ["3933251326 3000000", CKSUM_OF_X]
        (folder / "file").write_bytes(body := os.urandom(3_000_000))
        ends.run("scp", "-q", *options, "-P", str(port), folder / "file", f"{remote}:{folder}/got")
        assert (folder / "got").read_bytes() == body


def postgres_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, which Debian keeps out of PATH."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


def check_postgresql(ends: Ends, port: int) -> None:
    """A process for each connection, forked after it was accepted. It refuses to run as root."""
    folder = postgres_programs()
    if folder is None:
        pytest.skip("not installed: postgresql (tests/setup/system_packages.sh test)")
    as_user: tuple[str, ...] = ()
    if os.geteuid() == 0:
        need("setpriv")
        as_user = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    with tempfile.TemporaryDirectory(prefix="ffv-pg-") as home:
        node = ends.server_at.environment.get("FFVERBS_DIR", os.environ["FFVERBS_DIR"])
        for path in (home, node, ends.report.parent):
            os.chmod(path, 0o777)
        subprocess.run(
            [*as_user, folder / "initdb", "-D", f"{home}/data", "-A", "trust", "-U", "bench", "-N", "-E", "UTF8"],
            stdout=subprocess.DEVNULL,
            timeout=HANG_SECONDS,
            check=True,
        )
        with Path(home, "data", "pg_hba.conf").open("a") as trusted:
            trusted.write("host all all all trust\n")
        where = ("-h", ends.server_at.address, "-p", str(port))
        command: tuple[str | Path, ...] = (*as_user, folder / "postgres", "-D", f"{home}/data", *where, "-k", home)
        with ends.serving(*command, "-F", stderr=subprocess.DEVNULL) as server:
            asks: list[str | Path] = [*ends.server_at.prefix, folder / "pg_isready", "-q", *where]
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

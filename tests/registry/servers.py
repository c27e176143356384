"""Real etcd servers on loopback, each with its data in a folder that goes with it; and a proxy that cuts."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port
from tests.stopping import wait_until_stopped

# Short elections: a test should not wait for a leader for longer than it must.
QUICK = ["--heartbeat-interval", "50", "--election-timeout", "500", "--logger", "zap", "--log-level", "fatal"]


class EtcdServer:
    """One member. `extra` are further arguments; with `tls`, a folder of certificates, clients connect by TLS."""

    def __init__(
        self, *extra: str, tls: Path | None = None, name: str = "a", cluster: dict[str, int] | None = None
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ffv-etcd-"))
        self.port = free_port()
        peers = cluster or {name: free_port()}
        self._name = name
        self._peers = peers
        self._extra = list(extra)
        self._scheme = "https" if tls else "http"
        if tls:
            self._extra += ["--cert-file", str(tls / "server.pem"), "--key-file", str(tls / "server.key")]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def add(self, *arguments: str) -> None:
        """Run with these arguments from the next start on."""
        self._extra += arguments

    def start(self) -> None:
        """Begin to run; calls that wait for it to be ready need no other sign."""
        assert self._process is None
        url, peer = f"{self._scheme}://{self.address}", f"http://127.0.0.1:{self._peers[self._name]}"
        peers = ",".join(f"{name}=http://127.0.0.1:{port}" for name, port in self._peers.items())
        self._process = subprocess.Popen(
            [
                "etcd", "--name", self._name, "--data-dir", str(self.folder / "data"), *QUICK,
                "--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peer,
                "--initial-advertise-peer-urls", peer, "--initial-cluster", peers, *self._extra,
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def await_ready(self) -> None:
        """Wait until it serves: then calls have all of their time."""
        self.post("kv/range", key="AA==")

    def kill(self) -> None:
        """End it without warning, stopped or not."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        assert self._process
        os.kill(self._process.pid, signal.SIGSTOP)
        wait_until_stopped(self._process.pid)

    def resume(self) -> None:
        assert self._process
        os.kill(self._process.pid, signal.SIGCONT)

    def wipe(self) -> None:
        """Kill it, remove its data, and start it."""
        self.kill()
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        self.start()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    def post(self, path: str, token: str = "", **fields: object) -> dict[str, object]:
        """Ask by the JSON gateway: for what our client has no calls for. It is asked again until it answers."""
        request = urllib.request.Request(
            f"http://{self.address}/v3/{path}", json.dumps(fields).encode(), {"Authorization": token} if token else {}
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as answer:
                    return dict(json.load(answer))
            except urllib.error.HTTPError as error:
                if error.code < 500 or time.monotonic() > deadline:
                    raise AssertionError(f"{path}: {error.code} {error.read().decode()}") from None
            except OSError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.02)

    def enable_users(self) -> None:
        """Ask for passwords: root may do everything, `router` what is under /ffverbs/, `monitor` only read it."""
        for user in ("root", "router", "monitor"):
            self.post("auth/user/add", name=user, password=f"{user} password")
            self.post("auth/role/add", name=user)
            self.post("auth/user/grant", user=user, role=user)
        prefix, end = "L2ZmdmVyYnMv", "L2ZmdmVyYnMw"  # /ffverbs/ and /ffverbs0 in base 64
        for role, kind in (("router", "READWRITE"), ("monitor", "READ")):
            self.post("auth/role/grant", name=role, perm={"permType": kind, "key": prefix, "range_end": end})
        self.post("auth/enable")


@contextmanager
def running_etcd() -> Iterator[EtcdServer]:
    """A server of one member, that serves, and is closed at the end."""
    server = EtcdServer()
    server.start()
    try:
        server.await_ready()
        yield server
    finally:
        server.close()


class Cluster:
    """Three members."""

    def __init__(self) -> None:
        peers = {name: free_port() for name in "abc"}
        self.members = [EtcdServer(name=name, cluster=peers) for name in peers]

    def start(self) -> None:
        for member in self.members:
            member.start()
        for member in self.members:
            member.await_ready()

    def close(self) -> None:
        for member in self.members:
            member.close()

    @property
    def addresses(self) -> list[str]:
        return [member.address for member in self.members]


def make_certificates(folder: Path) -> None:
    """Write ca, server and client certificates, and those of another authority (other-ca, stranger), with openssl."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    for ca, names in (("ca", ("server", "client")), ("other-ca", ("stranger",))):
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        openssl("req", "-x509", *key, "-keyout", f"{ca}.key", "-out", f"{ca}.pem", "-days", "2", "-subj", f"/CN={ca}")
        for name in names:
            openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
            openssl(
                "x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial",
                "-out", f"{name}.pem", "-days", "2", "-extfile", "names",
            )  # fmt: skip


class CuttingProxy:
    """A TCP proxy before a server.

    `arm` makes it swallow the next answer and cut that connection, `cut` cuts all; while `closed` it takes none.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._armed = False
        self.closed = False
        self.refused: list[float] = []  # when connections were refused while it was closed
        self.cuts = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "CuttingProxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def address(self) -> str:
        assert self._server
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def arm(self) -> None:
        self._armed = True

    def cut(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        if self.closed:
            self.refused.append(time.monotonic())
            writer.transport.abort()
            return
        self._tasks.add(task)
        there = None
        try:
            from_there, there = await asyncio.open_connection("127.0.0.1", self._target)
            forward = asyncio.create_task(self._pump(reader, there))
            back = asyncio.create_task(self._pump(from_there, writer, answers=True))
            try:
                await asyncio.wait({forward, back}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                forward.cancel()
                back.cancel()
                await asyncio.gather(forward, back, return_exceptions=True)
        except OSError:
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()
            if there:
                there.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool = False) -> None:
        while data := await reader.read(65536):
            if answers and self._armed:
                self._armed = False
                self.cuts += 1
                return
            writer.write(data)
            await writer.drain()

"""The containers of the lab are what they claim: separate namespaces that share one folder and nothing else."""

import ctypes
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ffverbs import _containers as containers

pytestmark = pytest.mark.skipif(
    containers.unavailable() is not None, reason=f"no containers on this host: {containers.unavailable()}"
)

# Prints what it can see as one line of JSON, then waits to be killed.
LOOK = """
import ctypes, json, os, signal, socket, sys
def fails(act):
    try:
        act()
    except OSError as error:
        return error.errno
    return 0
def connect(name):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(name)
def loopback_works():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
def read_memory(pid, address):
    libc = ctypes.CDLL(None, use_errno=True)
    class Iovec(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
    buffer = ctypes.create_string_buffer(8)
    local, remote = Iovec(ctypes.addressof(buffer), 8), Iovec(address, 8)
    if libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) < 0:
        return ctypes.get_errno()
    return 0
host_pid, host_address, host_socket, host_file, own_folder = sys.argv[1:]
print(json.dumps({
    "pid": os.getpid(),
    "namespaces": {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("user", "pid", "ipc", "net", "mnt", "uts")},
    "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "ffverbs_dir": os.environ["FFVERBS_DIR"],
    "shared": sorted(os.listdir(os.environ["FFVERBS_DIR"])),
    "tmp": os.listdir("/tmp"), "shm": os.listdir("/dev/shm"),
    "loopback": fails(loopback_works),
    "kill_host": fails(lambda: os.kill(int(host_pid), 0)),
    "read_host_memory": read_memory(int(host_pid), int(host_address)),
    "connect_abstract": fails(lambda: connect("\\0" + host_socket)),
    "open_host_file": fails(lambda: open(host_file)),
    "write_image": fails(lambda: open(os.path.join(own_folder, "written"), "w")),
    "write_shared": fails(lambda: open(os.environ["FFVERBS_DIR"] + "/written", "w")),
}), flush=True)
while True:
    signal.pause()
"""


@pytest.fixture(name="secret")
def secret_fixture() -> Iterator[ctypes.Array[ctypes.c_char]]:
    yield ctypes.create_string_buffer(b"host's own")


def look(shared: Path, tmp_path: Path, secret: ctypes.Array[ctypes.c_char], name: str) -> containers.Container:
    abstract = f"ffverbs-lab-{os.getpid()}"
    arguments = [str(os.getpid()), str(ctypes.addressof(secret)), abstract, str(tmp_path / "secret"), "/usr"]
    return containers.start([sys.executable, "-c", LOOK, *arguments], shared, name=name)


def seen_by(container: containers.Container) -> dict[str, object]:
    container.wait_for("\n")
    seen = json.loads(container.stdout)
    assert isinstance(seen, dict)
    return seen


def test_two_containers_share_one_folder_and_nothing_else(
    node_directory: Path, tmp_path: Path, secret: ctypes.Array[ctypes.c_char]
) -> None:
    (tmp_path / "secret").write_text("not in a container", encoding="ascii")
    (node_directory / "hello").touch()
    with (
        socket.socket(socket.AF_UNIX) as listener,
        look(node_directory, tmp_path, secret, "a") as first,
        look(node_directory, tmp_path, secret, "b") as second,
    ):
        listener.bind(f"\0ffverbs-lab-{os.getpid()}")
        listener.listen()
        a, b = seen_by(first), seen_by(second)
        outside = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in containers.NAMESPACES}
        assert first.namespaces() == a["namespaces"]
    for kind in containers.NAMESPACES:
        assert len({outside[kind], a["namespaces"][kind], b["namespaces"][kind]}) == 3, f"{kind} namespace is shared"  # type: ignore[index]
    for seen in (a, b):
        assert seen["pid"] == 1
        assert seen["processes"] == [1]
        assert seen["interfaces"] == ["lo"]
        assert seen["ffverbs_dir"] == containers.SHARED_INSIDE
        assert "hello" in seen["shared"]  # type: ignore[operator]
        assert seen["shm"] == []
        for attempt in ("kill_host", "connect_abstract", "open_host_file", "write_image", "read_host_memory"):
            assert seen[attempt] != 0, f"{attempt} worked in a container"
        assert seen["write_shared"] == 0
        assert seen["loopback"] == 0
        print(f"process_vm_readv of the host from a container: {os.strerror(int(str(seen['read_host_memory'])))}")
    assert (node_directory / "written").exists()


def test_status_and_output_come_back(node_directory: Path) -> None:
    program = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
    with containers.start([sys.executable, "-c", program], node_directory) as container:
        assert container.wait() == 7
        assert container.stdout == "out\n"
        assert container.stderr == "err\n"


def test_kill_takes_the_whole_container(node_directory: Path) -> None:
    # The grandchild holds a lock on a file of the shared folder for as long as it lives.
    program = (
        "import fcntl, os, signal\n"
        "if os.fork() == 0:\n"
        "    f = open(os.environ['FFVERBS_DIR'] + '/lock', 'w')\n"
        "    fcntl.flock(f, fcntl.LOCK_EX)\n"
        "    print('held', flush=True)\n"
        "signal.pause()\n"
    )
    with containers.start([sys.executable, "-c", program], node_directory) as container:
        container.wait_for("held")
        with (node_directory / "lock").open() as lock:
            with pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            container.kill()
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert container.returncode not in (None, 0)


def test_a_container_that_hangs_is_reported_with_its_output(node_directory: Path) -> None:
    program = "import signal; print('stuck here', flush=True); signal.pause()"
    with containers.start([sys.executable, "-c", program], node_directory, name="sleepy") as container:
        container.wait_for("stuck here")
        with pytest.raises(containers.ContainerError, match=r"(?s)sleepy did not end within 0.1 s.*stuck here"):
            container.wait(0.1)


def test_stop_and_continue(node_directory: Path) -> None:
    program = (
        "import signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
        "print('ready', flush=True)\n"
        "sys.exit(signal.sigwait([signal.SIGUSR1]) != signal.SIGUSR1)\n"
    )
    with containers.start([sys.executable, "-c", program], node_directory) as container:
        container.wait_for("ready")
        container.send_signal(signal.SIGSTOP)
        container.send_signal(signal.SIGUSR1)
        container.send_signal(signal.SIGCONT)
        assert container.wait() == 0


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        containers.start(["true"], tmp_path / "absent")

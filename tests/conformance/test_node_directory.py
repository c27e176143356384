"""A node directory that cannot be used: every error names it and says what to do, and nothing is left half done."""

import contextlib
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from errno import EACCES, EINVAL, EMFILE, ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR
from pathlib import Path

import pytest

from ffverbs import _containers as containers
from ffverbs.device import Context
from ffverbs.pyverbs_error import PyverbsRDMAError
from tests.conformance.pair import DEADLINE_S, Options, Pair
from tests.conformance.test_fork import in_child, works

NOBODY = 65534


def refused(code: int, *texts: str) -> None:
    """Opening the device fails with this errno, and the error has all the texts."""
    with pytest.raises(PyverbsRDMAError):
        Context(name="ffv0")  # the process may need descriptors of its own the first time
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(PyverbsRDMAError) as caught:
        Context(name="ffv0")
    assert caught.value.error_code == code, caught.value
    for text in ("Failed to", *texts):
        assert text in str(caught.value)
    assert len(os.listdir("/proc/self/fd")) == before, "descriptors are left behind"


def test_missing(node_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FFVERBS_DIR", str(node_directory / "absent"))
    refused(ENOENT, str(node_directory / "absent"), "create it", "FFVERBS_DIR")


def test_a_file_in_its_place(node_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (node_directory / "file").touch()
    monkeypatch.setenv("FFVERBS_DIR", str(node_directory / "file"))
    refused(ENOTDIR, str(node_directory / "file"), "not a folder")


def test_a_path_too_long_for_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FFVERBS_DIR", "/tmp/" + "long/" * 1000)
    refused(ENAMETOOLONG, "shorter")


def test_a_path_too_long_for_sockets_works(node_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = node_directory / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    monkeypatch.setenv("FFVERBS_DIR", str(deep))
    with Context(name="ffv0") as ctx:
        assert ctx.query_device().max_qp


def test_two_contexts_talk_in_a_deep_folder(here: Pair, node_directory: Path) -> None:
    deep = node_directory / ("d" * 150)
    deep.mkdir()
    here._directory = str(deep)
    here.connect()
    works(here)
    here.close()


def as_nobody(act: Callable[[], None]) -> None:
    if os.geteuid() != 0:
        act()
        return

    def become_and_act() -> None:
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
        act()

    in_child(become_and_act)


def test_a_folder_that_the_user_may_not_enter(node_directory: Path) -> None:
    node_directory.chmod(0o500)

    def act() -> None:
        refused(EACCES, str(node_directory), "may not read, write and search", "mode")

    as_nobody(act)


@pytest.mark.parametrize("place", ["TMPDIR", "XDG_RUNTIME_DIR"])
@pytest.mark.parametrize("trouble", ["open", "link", "foreign"])
def test_the_default_folder_must_be_ones_own(
    node_directory: Path, monkeypatch: pytest.MonkeyPatch, place: str, trouble: str
) -> None:
    if os.access("/run/ffverbs", os.W_OK):
        pytest.skip("/run/ffverbs exists on this host and goes first")
    for name in ("FFVERBS_DIR", "XDG_RUNTIME_DIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(place, str(node_directory))
    folder = node_directory / ("ffverbs" if place == "XDG_RUNTIME_DIR" else f"ffverbs-{os.geteuid()}")
    with Context(name="ffv0"):
        assert folder.stat().st_mode & 0o777 == 0o700
    if trouble == "open":
        folder.chmod(0o755)
        refused(EACCES, str(folder), "open to others", "chmod 700")
    elif trouble == "link":
        folder.rename(node_directory / "elsewhere")
        folder.symlink_to(node_directory / "elsewhere")
        refused(EACCES, str(folder), "symbolic link")
    elif os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    else:
        os.chown(folder, NOBODY, NOBODY)
        refused(EACCES, str(folder), f"belongs to user {NOBODY}")


IN_A_FULL_FOLDER = """
import os, subprocess, sys
folder = sys.argv[1]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=8", "tiny", folder], check=True)
for i in range(20):
    try:
        open(f"{folder}/fill{i}", "w").close()
    except OSError:
        break
from ffverbs.device import Context
try:
    Context(name="ffv0")
except Exception as error:
    print(error)
print(sorted(name for name in os.listdir(folder) if not name.startswith("fill")))
for i in range(4):
    os.unlink(f"{folder}/fill{i}")
with Context(name="ffv0") as ctx:
    print("opened")
"""


@pytest.mark.skipif(containers.unavailable() is not None, reason=f"no namespaces: {containers.unavailable()}")
def test_a_full_disk(node_directory: Path) -> None:
    package = str(Path(sys.modules["ffverbs"].__file__ or "").parents[1])
    ran = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-P", "-c", IN_A_FULL_FOLDER,
         str(node_directory)],
        capture_output=True, text=True, check=True, timeout=DEADLINE_S, env={**os.environ, "PYTHONPATH": package},
    )  # fmt: skip
    error, left, opened = ran.stdout.splitlines()
    assert str(node_directory) in error
    assert "make room" in error
    assert f"Errno: {ENOSPC}" in error
    assert left == "[]", "nothing is left behind"
    assert opened == "opened"


def test_too_many_open_files(node_directory: Path) -> None:
    def act() -> None:
        taken = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for spare in range(1, 6):
            os.close(taken.pop())
            with pytest.raises(PyverbsRDMAError, match=r"ulimit -n|open files") as caught:
                Context(name="ffv0")
            assert caught.value.error_code == EMFILE, f"with {spare} descriptors"
        for descriptor in taken:
            os.close(descriptor)
        with Context(name="ffv0"):
            pass

    in_child(act)


def test_foreign_things_in_the_folder_harm_nobody(here: Pair, node_directory: Path) -> None:
    (node_directory / "README").write_text("not a socket")
    (node_directory / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(node_directory / "other.sock"))
        listener.listen()
        here.connect()
        works(here)
        here.close()
    assert {"README", "folder", "other.sock"} <= set(os.listdir(node_directory))


@pytest.mark.parametrize("address", ["not an address", "1.2.3", "300.1.1.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"])
def test_addresses_that_are_none(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("FFVERBS_IP", address)
    refused(EINVAL, f'FFVERBS_IP is "{address}"', "set it to")


def test_containers_have_addresses_of_their_own(here: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FFVERBS_IP", "10.1.2.3")
    here.to_a = here.a.create(Options(), here._directory)
    monkeypatch.setenv("FFVERBS_IP", "10.1.2.4")
    here.to_b = here.b.create(Options(), here._directory)
    assert here.to_a.gid.endswith("ffff:0a01:0203")
    assert here.to_b.gid.endswith("ffff:0a01:0204")
    here.a.connect(here.to_b)
    here.b.connect(here.to_a)
    works(here)

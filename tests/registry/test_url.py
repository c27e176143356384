"""Registry URLs, and what is said where a part of them, or of the installation, is missing."""

import subprocess
import sys
from pathlib import Path

import pytest

from etcd_registry import RegistryUrlError, StaticRegistry, StoreRegistry, open_registry, parse_url
from etcd_registry.url import EtcdUrl, StaticUrl

ROOT = Path(__file__).resolve().parents[2]


def test_urls_are_read() -> None:
    assert parse_url("static:some/file") == StaticUrl(Path("some/file"))
    assert parse_url("etcd://a:1,[::1]:2") == EtcdUrl(("a:1", "[::1]:2"))
    full = "etcd://a:1?user=u&password_file=p&ca=ca.pem&cert=c.pem&key=c.key&timeout=1.5"
    assert parse_url(full) == EtcdUrl(
        ("a:1",), "u", Path("p"), tls=True, ca=Path("ca.pem"), cert=Path("c.pem"), key=Path("c.key"), timeout_s=1.5
    )
    assert parse_url("etcd://a:1?tls=1") == EtcdUrl(("a:1",), tls=True)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "of no kind"), ("consul://a:1", "of no kind"), ("etcd:a:1", "of no kind"), ("a:1", "of no kind"),
        ("static:", "names no file"), ("static://x", "names no file"),
        ("etcd://", "names no member"), ("etcd://?tls=1", "names no member"),
        ("etcd://a", "has no port"), ("etcd://a:0", "has no port"), ("etcd://a:1,b", "has no port"),
        ("etcd://u:p@a:1", "no name|brackets"), ("etcd://a:1,a:1", "twice"),
        ("etcd://a:1?password=x", "no option password"), ("etcd://a:1?tls", "NAME=VALUE"),
        ("etcd://a:1?user=", "with a value"), ("etcd://a:1?tls=1&tls=1", "once"),
        ("etcd://a:1?user=u", "go together"), ("etcd://a:1?cert=c", "go together"), ("etcd://a:1?tls=2", "1 or 0"),
        ("etcd://a:1?tls=0&ca=x", "tls=0"), ("etcd://a:1?timeout=x", "timeout"), ("etcd://a:1?timeout=nan", "timeout"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(text: str, wrong: str) -> None:
    with pytest.raises(RegistryUrlError, match=wrong):
        parse_url(text)


async def test_a_url_opens_its_registry(tmp_path: Path) -> None:
    assert isinstance(open_registry(f"static:{tmp_path}/x"), StaticRegistry)
    registry = open_registry("etcd://127.0.0.1:1")
    assert isinstance(registry, StoreRegistry)
    await registry.close()


@pytest.mark.parametrize(("content", "wrong"), [(None, "cannot be read"), ("", "empty"), ("\nx", "empty")])
async def test_password_files(content: str | None, wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RegistryUrlError, match=wrong):
        open_registry(f"etcd://a:1?user=u&password_file={path}")


async def test_missing_tls_files(tmp_path: Path) -> None:
    with pytest.raises(RegistryUrlError, match=r"ca\.pem cannot be read"):
        open_registry(f"etcd://a:1?ca={tmp_path}/ca.pem")


@pytest.mark.parametrize("missing", ["grpc", "google.protobuf"])
def test_without_grpcio_all_but_etcd_works_and_one_line_says_why(missing: str) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "import etcd_registry, etcd_registry.memory\n"
        "try:\n    etcd_registry.open_registry('etcd://a:1')\n"
        "except etcd_registry.RegistryUrlError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = run.stdout.splitlines()
    assert "pip install 'ffverbs[router]'" in line


def test_the_package_imports_no_grpcio_by_itself() -> None:
    program = "import sys, etcd_registry; print([name for name in ('grpc', 'google.protobuf') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_messages_clash_with_nobody_elses() -> None:
    program = (
        "import etcd_registry.rpc_pb2 as pb\n"
        "from google.protobuf import descriptor_pool, descriptor_pb2\n"
        "file = descriptor_pb2.FileDescriptorProto()\n"
        "pb.DESCRIPTOR.CopyToProto(file)\n"
        "file.message_type.add(name='Other')\n"
        "descriptor_pool.Default().AddSerializedFile(file.SerializeToString())\n"
        "print(pb.RangeRequest(key=b'k', limit=3))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 'key: "k"' in run.stdout

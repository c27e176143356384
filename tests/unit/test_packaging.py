"""The wheel holds what a user needs and nothing else, and the extension module shows the world one symbol."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(name="wheel", scope="module")
def wheel_fixture(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this tree, built as pip builds it but with the tools of this environment."""
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(target), "."]
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    built = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = target.glob("ffverbs-*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_whole_package(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    sources = {
        str(path.relative_to(ROOT))
        for package in ("ffverbs", "etcd_registry", "router")
        for path in (ROOT / package).rglob("*")
        if path.suffix in {".py", ".pyi", ".typed"}
    } - {"etcd_registry/generate_stubs.py"}
    extensions = {name for name in names if name.endswith(".so")}
    assert {name.partition(".")[0] for name in extensions} == {"ffverbs/_ffv", "ffverbs/libffv_sockets", "router/_wire"}
    assert len(extensions) == 3
    assert "ffverbs/py.typed" in names
    assert "etcd_registry/rpc_pb2.py" in names
    assert names - extensions == sources


def test_the_wheel_installs_the_command(wheel: zipfile.ZipFile) -> None:
    (entry_points,) = [name for name in wheel.namelist() if name.endswith("/entry_points.txt")]
    assert "ffverbs = ffverbs.cli:main" in wheel.read(entry_points).decode().replace("=", " = ").replace("  ", " ")


@pytest.mark.parametrize(
    ("module", "entries"), [("_ffv", ["PyInit__calls", "PyInit__ffv"]), ("_wire", ["PyInit__wire"])]
)
def test_the_extension_module_exports_its_entries_alone(
    wheel: zipfile.ZipFile, tmp_path: Path, module: str, entries: list[str]
) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith(".so") and f"/{module}." in name]
    symbols = subprocess.run(
        ["nm", "--dynamic", "--defined-only", "--format=posix", wheel.extract(name, tmp_path)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert sorted(line.split()[0] for line in symbols.splitlines()) == entries


@pytest.mark.parametrize("module", ["_ffv", "_wire"])
def test_the_extension_module_misses_no_symbol_of_ours(wheel: zipfile.ZipFile, tmp_path: Path, module: str) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith(".so") and f"/{module}." in name]
    symbols = subprocess.run(
        ["nm", "--dynamic", "--undefined-only", "--format=posix", wheel.extract(name, tmp_path)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert [line.split()[0] for line in symbols.splitlines() if line.startswith("ffv_")] == []

"""The layers, checked by machine: which folder of native/ may include which, which module loads the engine."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "native"

# folder: the folders whose headers it may include. Every folder may include its own and the public header.
MAY_INCLUDE: dict[str, set[str]] = {
    "base": set(),
    "shm": {"base"},
    "engine": {"base", "shm"},
    "verbs": {"base", "shm", "engine"},
    "cm": {"base", "shm", "engine", "verbs"},
    "rsocket": {"base"},  # verbs and the connection manager by the public header only
    # The router uses verbs, and looks who speaks in conversations; neither uses it (docs/decisions/0021).
    "wire": {"base", "shm", "engine", "verbs", "cm"},
    "perf": {"base"},
    "preload": {"base"},  # sockets by the public header only
    "ffi": set(),
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
NOT_A_LAYER = {"include"}


def violations(folder: str, text: str) -> list[str]:
    """Return what is wrong with the includes of one file of `folder`."""
    found = []
    for kind, target in INCLUDE.findall(text):
        parts = target.split("/")
        if ".." in parts:
            found.append(f"{target}: no relative includes")
        elif len(parts) > 1 and parts[0] in MAY_INCLUDE:
            if parts[0] not in MAY_INCLUDE[folder] | {folder}:
                found.append(f"{target}: {folder} may not use {parts[0]}")
        elif kind == '"' and parts[0] != "ffverbs":
            found.append(f"{target}: name private headers as FOLDER/NAME.h")
    return found


def layers() -> list[Path]:
    return [path for path in sorted(NATIVE.iterdir()) if path.is_dir() and path.name not in NOT_A_LAYER]


@pytest.mark.parametrize("folder", layers(), ids=lambda path: path.name)
def test_includes_respect_layers(folder: Path) -> None:
    assert folder.name in MAY_INCLUDE, f"native/{folder.name} is in no layer: add it to MAY_INCLUDE"
    problems = [
        f"{path.relative_to(ROOT)}: {problem}"
        for path in sorted(folder.rglob("*.[ch]"))
        for problem in violations(folder.name, path.read_text(encoding="utf-8"))
    ]
    assert not problems, "\n".join(problems)


def test_public_header_stands_alone() -> None:
    text = (NATIVE / "include" / "ffverbs" / "ffv.h").read_text(encoding="utf-8")
    assert not [target for kind, target in INCLUDE.findall(text) if kind == '"']


@pytest.mark.parametrize(
    ("folder", "line", "allowed"),
    [
        ("engine", '#include "shm/ring.h"', True),
        ("shm", '#include "engine/executor.h"', False),
        ("verbs", '#include "../shm/ring.h"', False),
        ("base", "#include <ffverbs/ffv.h>", True),
        ("base", "#include <sys/mman.h>", True),
        ("verbs", '#include "qp.h"', False),
    ],
)
def test_the_checker_itself(folder: str, line: str, allowed: bool) -> None:
    assert (violations(folder, line) == []) is allowed


def imported_names(path: Path) -> set[str]:
    """Return the dotted names that a module imports, relative ones resolved against its package."""
    names = set()
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def test_one_module_alone_imports_the_engine() -> None:
    users = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "ffverbs").rglob("*.py"))
        if any(name == "ffverbs._ffv" or name.startswith("ffverbs._ffv.") for name in imported_names(path))
    ]
    assert users == ["ffverbs/_native.py"]


def test_every_source_is_in_the_build() -> None:
    forgotten = [
        str(path.relative_to(ROOT))
        for folder in layers()
        for path in sorted(folder.rglob("*.c"))
        if f"'{path.relative_to(folder)}'" not in (folder / "meson.build").read_text(encoding="utf-8")
    ]
    tests = (ROOT / "tests" / "native" / "meson.build").read_text(encoding="utf-8")
    forgotten += [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests" / "native").glob("test_*.c"))
        if f"'{path.stem}'" not in tests
    ]
    assert not forgotten, f"not listed in meson.build: {forgotten}"

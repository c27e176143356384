"""`python -m ffverbs` and `install_as_pyverbs()`: programs see what the interpreter would show, and one pyverbs."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import ffverbs
from tests.unit.real_pyverbs import DEBIAN_PACKAGES, evaluate

HOME = str(Path(ffverbs.__file__).parent.parent)

# What a program can see of how it was started.
SHOW = """\
import json, sys
from multiprocessing import process
main = sys.modules["__main__"]
print(json.dumps({
    "argv": sys.argv, "path0": sys.path[0], "name": __name__, "file": globals().get("__file__"),
    "spec": getattr(__spec__, "name", None), "package": __package__, "is_main": vars(main) is globals(),
    "future": type(1 / 2).__name__,
}))
"""


def python(*args: str, cwd: Path, path: str = HOME, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the interpreter in `cwd` with `path` as PYTHONPATH, and expect its exit status to be `code`."""
    done = subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def seen(*args: str, cwd: Path) -> Any:
    return json.loads(python(*args, cwd=cwd).stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a script, a link to it, a package, a folder and an archive that can be run."""
    real = tmp_path / "real"
    real.mkdir()
    (real / "prog.py").write_text(SHOW)
    (tmp_path / "link.py").symlink_to(real / "prog.py")
    (tmp_path / "pkg").mkdir()
    for name in ("__init__.py", "mod.py", "__main__.py"):
        (tmp_path / "pkg" / name).write_text("" if name == "__init__.py" else SHOW)
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        archive.writestr("__main__.py", "import helper\n")
        archive.writestr("helper.py", "import sys, pyverbs.utils; print(sys.argv, __file__)\n")
    return tmp_path


@pytest.mark.parametrize(
    "start",
    [
        ["real/prog.py", "-m", "x"],
        ["./link.py"],
        ["-m", "pkg.mod", "--flag"],
        ["-m", "pkg", "a b"],
        ["-c", SHOW, "-c", "y"],
    ],
)
def test_a_program_sees_what_the_interpreter_would_show_it(folder: Path, start: list[str]) -> None:
    assert seen("-m", "ffverbs", *start, cwd=folder) == seen(*start, cwd=folder)


def test_safe_path_is_respected(folder: Path) -> None:
    ours = seen("-P", "-m", "ffverbs", "real/prog.py", cwd=folder)
    assert ours == seen("-P", "real/prog.py", cwd=folder)


def test_archives_run(folder: Path) -> None:
    ours = python("-m", "ffverbs", "app.zip", "1", cwd=folder).stdout
    assert ours == f"['app.zip', '1'] {Path('app.zip', 'helper.py')}\n"


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        ([], 2, "usage: python -m ffverbs"),
        (["-x"], 2, "unknown option -x"),
        (["-m"], 2, "argument expected for the -m option"),
        (["nothing.py"], 2, "can't open file '{cwd}/nothing.py': [Errno 2] No such file or directory"),
        (["-m", "nothing"], 1, "No module named nothing"),
        (["-m", "nothing.more"], 1, "No module named 'nothing'"),
        (["-c", "raise SystemExit(7)"], 7, ""),
        (["-c", "raise ValueError('x')"], 1, "ValueError: x"),
        (["-c", "import pyverbs.nothing"], 1, "No module named 'pyverbs.nothing'"),
    ],
)
def test_what_cannot_run(tmp_path: Path, args: list[str], code: int, text: str) -> None:
    done = python("-m", "ffverbs", *args, cwd=tmp_path, code=code)
    assert text.format(cwd=tmp_path) in done.stderr
    assert done.stdout == ""


def test_help_and_version(tmp_path: Path) -> None:
    assert "PROGRAM" in python("-m", "ffverbs", "--help", cwd=tmp_path).stdout
    assert python("-m", "ffverbs", "--version", cwd=tmp_path).stdout == f"ffverbs {ffverbs.__version__}\n"


SAME = """\
import sys
import pyverbs, pyverbs.utils as u, pyverbs.enums as e
from pyverbs import utils, fork
from pyverbs.libibverbs_enums import *
from pyverbs.pyverbs_error import PyverbsRDMAError
import pyverbs.providers.mlx5.mlx5_enums as dve
import ffverbs.utils, ffverbs.pyverbs_error
assert pyverbs is ffverbs and u is utils is ffverbs.utils is sys.modules["pyverbs.utils"]
assert u.__name__ == u.__spec__.name == "ffverbs.utils"
assert PyverbsRDMAError is ffverbs.pyverbs_error.PyverbsRDMAError
assert IBV_QPT_RC is e.IBV_QPT_RC and dve is sys.modules["ffverbs.providers.mlx5.mlx5_enums"]
import importlib.util
assert importlib.import_module("pyverbs.base").PyverbsCM is ffverbs.base.PyverbsCM
assert importlib.util.find_spec("pyverbs.nothing") is None
importlib.reload(u)
ffverbs.install_as_pyverbs()
assert sum(type(finder).__name__ == "_AliasFinder" for finder in sys.meta_path) == 1
print("same")
"""


def test_modules_are_the_same_objects_and_hide_an_installed_pyverbs(tmp_path: Path) -> None:
    (tmp_path / "pyverbs").mkdir()
    (tmp_path / "pyverbs" / "__init__.py").write_text("raise SystemExit('the other pyverbs was imported')")
    path = f"{tmp_path}:{HOME}"
    assert python("-m", "ffverbs", "-c", SAME, cwd=tmp_path, path=path).stdout == "same\n"
    assert python("-c", f"import ffverbs; ffverbs.install_as_pyverbs()\n{SAME}", cwd=tmp_path).stdout == "same\n"


def test_an_imported_pyverbs_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "pyverbs").mkdir()
    (tmp_path / "pyverbs" / "__init__.py").write_text("")
    done = python("-c", "import pyverbs, ffverbs; ffverbs.install_as_pyverbs()", cwd=tmp_path, code=1)
    assert f"ImportError: pyverbs is already imported ({tmp_path}/pyverbs/__init__.py)" in done.stderr


def test_the_real_pyverbs_is_hidden_too(tmp_path: Path) -> None:
    evaluate("", "1")  # skips where there is none
    done = python(
        "-m",
        "ffverbs",
        "-c",
        "import pyverbs.fork as f; print(f.__name__)",
        cwd=tmp_path,
        path=f"{HOME}:{DEBIAN_PACKAGES}",
    )
    assert done.stdout == "ffverbs.fork\n"


CHILDREN = """\
import multiprocessing, os, sys
import pyverbs.utils as u
import pyverbs.enums as e
def work(number):
    return u.qp_type_to_str(number), e.ibv_qp_type(number), u.__name__, os.getpid()
if __name__ == "__main__":
    os.chdir("/")
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(1) as pool:
        text, member, name, pid = pool.apply(work, (2,))
    assert pid != os.getpid() and member is e.IBV_QPT_RC
    print(text, name)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_have_it_as_well(tmp_path: Path, method: str) -> None:
    (tmp_path / "prog.py").write_text(CHILDREN)
    assert python("-m", "ffverbs", "prog.py", method, cwd=tmp_path).stdout == "RC ffverbs.utils\n"


def test_spawned_children_find_a_package_that_only_the_parent_could_see(tmp_path: Path) -> None:
    # `python -m ffverbs` in a source tree finds the package in the working directory, which the program then leaves.
    (tmp_path / "ffverbs").symlink_to(Path(ffverbs.__file__).parent)
    (tmp_path / "prog.py").write_text(CHILDREN)
    assert python("-m", "ffverbs", "prog.py", "spawn", cwd=tmp_path, path="").stdout == "RC ffverbs.utils\n"


def test_threads_and_exit_functions_outlive_the_program(tmp_path: Path) -> None:
    program = """\
import atexit, sys, threading
value = 5
def late():
    threading.main_thread().join()
    print(value, sys.modules["__main__"].value)
atexit.register(lambda: print(value))
threading.Thread(target=late).start()
"""
    (tmp_path / "prog.py").write_text(program)
    assert python("-m", "ffverbs", "prog.py", cwd=tmp_path).stdout == "5 5\n5\n"


def test_import_is_light_and_configures_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; before = set(sys.modules); import ffverbs; print(sorted(set(sys.modules) - before));"
        "import logging; print(logging.getLogger().handlers, logging.getLogger().level == logging.WARNING)"
    )
    assert python("-c", code, cwd=tmp_path).stdout == "['ffverbs']\n[] True\n"


def test_an_engine_that_is_missing_is_named_with_the_remedy(tmp_path: Path) -> None:
    code = "import sys; sys.modules['ffverbs._ffv'] = None\nimport ffverbs._native"
    done = python("-c", code, cwd=tmp_path, code=1)
    assert done.stderr.rstrip().splitlines()[-1].startswith("ImportError: the ffverbs engine cannot be loaded (")
    assert "pip install ." in done.stderr.rstrip().splitlines()[-1]

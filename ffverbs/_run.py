"""Runs a program, module or piece of code as `__main__`, with argv and path as the interpreter would set them.

The program gets a fresh `__main__` module that stays for the rest of the process, unlike runpy's temporary one: threads
that outlive the main program, atexit functions and multiprocessing look it up there.
"""

import builtins
import importlib.util
import io
import os
import runpy
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from pkgutil import get_importer
from types import CodeType, ModuleType

__all__ = ["run_code", "run_module", "run_path"]


def _execute(code: CodeType, **attributes: object) -> None:
    main = ModuleType("__main__")
    vars(main).update(__builtins__=builtins, **attributes)
    sys.modules["__main__"] = main
    exec(code, vars(main))


def _set_path(entry: str) -> None:
    """Replace the folder that the interpreter put first in the path, unless it was told not to put any there."""
    if not sys.flags.safe_path:
        sys.path[:1] = [entry]


def run_code(source: str, args: list[str]) -> None:
    """Run `source` like `python -c`."""
    sys.argv = ["-c", *args]
    _set_path("")
    _execute(compile(source, "<string>", "exec", dont_inherit=True))


def run_path(path: str, args: list[str]) -> None:
    """Run the script at `path`, or the `__main__.py` of the folder or archive at `path`.

    SystemExit with the interpreter's text and code if it cannot be read.
    """
    sys.argv = [path, *args]
    if path.endswith(".pyc") or get_importer(path) is not None:
        # runpy itself puts a folder or an archive first in the path.
        if not sys.flags.safe_path:
            del sys.path[:1]
        runpy.run_path(path, run_name="__main__")
        return
    file_name = os.path.join(os.getcwd(), path)
    try:
        with io.open_code(file_name) as file:
            source = file.read()
    except OSError as error:
        print(
            f"python -m ffverbs: can't open file {file_name!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr
        )
        raise SystemExit(2) from None
    _set_path(os.path.dirname(os.path.realpath(path)))
    _execute(
        compile(source, file_name, "exec", dont_inherit=True),
        __file__=file_name,
        __cached__=None,
        __loader__=SourceFileLoader("__main__", file_name),
    )


def run_module(name: str, args: list[str]) -> None:
    """Run module `name`, or the `__main__` of package `name`, like `python -m`; SystemExit(1) if there is none."""
    sys.argv = ["-m", *args]
    _set_path(os.getcwd())
    spec = _find_main(name)
    code = spec.loader.get_code(spec.name)  # type: ignore[union-attr]
    sys.argv[0] = spec.origin or name
    _execute(
        code,
        __file__=spec.origin,
        __cached__=spec.cached,
        __loader__=spec.loader,
        __package__=spec.parent,
        __spec__=spec,
    )


def _find_main(name: str) -> ModuleSpec:
    """Return the spec of what `python -m NAME` runs."""
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name = f"{name}.__main__"
            spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        print(f"python -m ffverbs: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    if spec is None or not hasattr(spec.loader, "get_code"):
        print(f"python -m ffverbs: No module named {name}", file=sys.stderr)
        raise SystemExit(1)
    return spec

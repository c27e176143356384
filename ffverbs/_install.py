"""Lets the name `pyverbs` mean `ffverbs` in this process and in the children that multiprocessing starts."""

import importlib
import importlib.util
import multiprocessing.spawn
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import ffverbs

__all__ = ["install"]

_ALIAS = "pyverbs"
_REAL = "ffverbs"


class _AliasFinder(MetaPathFinder, Loader):
    """Finds `pyverbs.X` as the very module object `ffverbs.X`, so that classes and enumerations are the same."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _ALIAS and not fullname.startswith(f"{_ALIAS}."):
            return None
        if importlib.util.find_spec(_real_name(fullname)) is None:
            return None  # nor does another finder have it: a submodule is looked for in the parent's folder, ours
        return ModuleSpec(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None  # a placeholder, which exec_module() exchanges

    def exec_module(self, module: ModuleType) -> None:
        # The import system takes what stands in sys.modules after this call: unlike returning the real module from
        # create_module(), this leaves the real module's own name, spec and loader alone.
        sys.modules[module.__name__] = importlib.import_module(_real_name(module.__name__))


def _real_name(alias: str) -> str:
    return _REAL + alias[len(_ALIAS) :]


class _InstallWhenUnpickled:
    """Unpickled by a child, installs ffverbs there; needs nothing but builtins, because the path is not set up yet."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        home = str(Path(ffverbs.__file__).parent.parent)
        code = (
            "try:\n    import ffverbs\n"
            f"except ImportError:\n    import sys\n    sys.path.append({home!r})\n    import ffverbs\n"
            "ffverbs.install_as_pyverbs()\n"
        )
        return exec, (code,)


def _teach_multiprocessing() -> None:
    """Have spawn and forkserver children install ffverbs before they import the program's main module."""
    original = multiprocessing.spawn.get_preparation_data

    def get_preparation_data(name: str) -> dict[str, Any]:
        # Children unpickle all of this, then look only at the keys they know.
        return {_REAL: _InstallWhenUnpickled(), **original(name)}

    multiprocessing.spawn.get_preparation_data = get_preparation_data


def install() -> None:
    """Do what `ffverbs.install_as_pyverbs()` promises."""
    present = sys.modules.get(_ALIAS)
    if present is ffverbs or any(isinstance(finder, _AliasFinder) for finder in sys.meta_path):
        return
    if present is not None:
        origin = getattr(present, "__file__", None) or next(iter(getattr(present, "__path__", ["unknown"])))
        raise ImportError(
            f"pyverbs is already imported ({origin}): call ffverbs.install_as_pyverbs() before anything imports "
            "pyverbs, or run the program with `python -m ffverbs`",
            name=_ALIAS,
        )
    sys.meta_path.insert(0, _AliasFinder())
    _teach_multiprocessing()

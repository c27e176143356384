"""FFVERBS_BACKEND=pyverbs: `ffverbs.X` is the installed `pyverbs.X` itself, for machines with a real RDMA device."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

__all__ = ["choose", "is_pyverbs"]

_VARIABLE: Final = "FFVERBS_BACKEND"
_OURS: Final = "ffverbs"
_THEIRS: Final = "pyverbs"
_KEPT: Final = frozenset({"ffverbs.__main__"})


class _PassingThrough(MetaPathFinder, Loader):
    """Finds the very module object `pyverbs.X` where `ffverbs.X` is asked for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{_OURS}.") or fullname in _KEPT or fullname.startswith(f"{_OURS}._"):
            return None
        if fullname == f"{_OURS}.cli":
            sys.meta_path.remove(self)  # the command is about this engine, whatever programs are to use
            return None
        if importlib.util.find_spec(_real_name(fullname)) is None:
            raise ModuleNotFoundError(
                f"the installed pyverbs has no {_real_name(fullname)}: unset {_VARIABLE} to have that of ffverbs",
                name=fullname,
            )
        return ModuleSpec(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None  # a placeholder, which exec_module() exchanges

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = importlib.import_module(_real_name(module.__name__))


def _real_name(ours: str) -> str:
    return _THEIRS + ours[len(_OURS) :]


def is_pyverbs() -> bool:
    """Whether `ffverbs.X` means the installed `pyverbs.X` in this process."""
    return any(isinstance(finder, _PassingThrough) for finder in sys.meta_path)


def choose() -> None:
    """Do what FFVERBS_BACKEND says; ImportError if that cannot be."""
    wanted = os.environ.get(_VARIABLE, "")
    if wanted in {"", _OURS} or is_pyverbs():
        return
    if wanted != _THEIRS:
        raise ImportError(f"{_VARIABLE}={wanted} is neither ffverbs nor pyverbs: unset it, or set it to one of them")
    if importlib.util.find_spec(_THEIRS) is None:
        raise ImportError(
            f"{_VARIABLE}=pyverbs, but no pyverbs is installed: install it (Debian: python3-pyverbs) or unset it"
        )
    sys.meta_path.insert(0, _PassingThrough())

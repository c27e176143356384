"""RDMA verbs without RDMA hardware: `ffverbs.X` is to this engine what `pyverbs.X` is to libibverbs.

Importing the package loads nothing else and configures nothing, logging included. With FFVERBS_BACKEND=pyverbs in the
environment, `ffverbs.X` is the installed `pyverbs.X` itself.
"""

import os as _os

__all__ = ["__version__", "install_as_pyverbs"]

__version__ = "0.1.0"


def install_as_pyverbs() -> None:
    """Make `import pyverbs` and `import pyverbs.X` mean `ffverbs` and `ffverbs.X` in this process.

    Call it before the first import of pyverbs: ImportError if another pyverbs has been imported. A pyverbs that is
    installed but not imported is out of sight in this process, and untouched. Further calls do nothing. Children that
    multiprocessing starts, by whichever method, inherit the setting; other programs started from here do not.
    """
    from ffverbs._backend import is_pyverbs  # noqa: PLC0415 - as the next one

    if is_pyverbs():
        return
    from ffverbs._install import install  # noqa: PLC0415 - importing the package stays free of cost

    install()


if _os.environ.get("FFVERBS_BACKEND"):
    from ffverbs import _backend

    _backend.choose()

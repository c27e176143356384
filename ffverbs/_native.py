"""The only module that imports the engine: `ffi` and `lib` of the extension module `ffverbs._ffv`, and its error text.

`ffi` and `lib` are cffi's objects for `native/include/ffverbs/ffv.h`; see there for every call's contract. `calls` is
the second module of that library (`native/ffi/python_calls.c`): post and poll without cffi's share of their time.
"""

import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from typing import TYPE_CHECKING

try:
    from ffverbs import _ffv
    from ffverbs._ffv import ffi, lib
except ImportError as error:
    raise ImportError(
        f"the ffverbs engine cannot be loaded ({error}): build it with `pip install .` in the source tree",
        name="ffverbs._ffv",
    ) from error

if TYPE_CHECKING:
    from ffverbs import _calls as calls
else:

    def _load(name):
        """Return a module that lies in the library of `_ffv` beside it."""
        if name not in sys.modules:
            loader = ExtensionFileLoader(name, _ffv.__file__)
            module = module_from_spec(spec_from_loader(name, loader))
            loader.exec_module(module)
            sys.modules[name] = module
        return sys.modules[name]

    calls = _load("ffverbs._calls")

calls.configure(
    qp_type=ffi.typeof("struct ffv_qp *"),
    srq_type=ffi.typeof("struct ffv_srq *"),
    cq_type=ffi.typeof("struct ffv_cq *"),
    send_wr_type=ffi.typeof("struct ffv_send_wr *"),
    send_cell_type=ffi.typeof("struct ffv_send_wr **"),
    recv_wr_type=ffi.typeof("struct ffv_recv_wr *"),
    recv_cell_type=ffi.typeof("struct ffv_recv_wr **"),
)

__all__ = ["calls", "error_text", "ffi", "lib"]


def error_text() -> str:
    """Return the engine's explanation of this thread's last failed call; empty if it has none."""
    text: bytes = ffi.string(lib.ffv_error_text())
    return text.decode("utf-8", "replace")

"""The only module that imports the engine: `ffi` and `lib` of the extension module `ffverbs._ffv`, and its error text.

`ffi` and `lib` are cffi's objects for `native/include/ffverbs/ffv.h`; see there for every call's contract.
"""

try:
    from ffverbs._ffv import ffi, lib
except ImportError as error:
    raise ImportError(
        f"the ffverbs engine cannot be loaded ({error}): build it with `pip install .` in the source tree",
        name="ffverbs._ffv",
    ) from error

__all__ = ["error_text", "ffi", "lib"]


def error_text() -> str:
    """Return the engine's explanation of this thread's last failed call; empty if it has none."""
    text: bytes = ffi.string(lib.ffv_error_text())
    return text.decode("utf-8", "replace")

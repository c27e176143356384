"""What posting has in common that is not the fast path: the cell for the engine's `bad_wr`, and errors."""

from typing import Any, Final, NoReturn

from ffverbs._native import ffi
from ffverbs._struct import CLOSED, typed
from ffverbs.base import Handle, raise_errno
from ffverbs.pyverbs_error import PyverbsError
from ffverbs.wr import RecvWR, SendWR

__all__ = ["cell_for", "explain", "failed"]

_CELLS: Final = {SendWR: ffi.typeof("struct ffv_send_wr **"), RecvWR: ffi.typeof("struct ffv_recv_wr **")}


def cell_for(bad_wr: Any, cls: type[SendWR] | type[RecvWR]) -> Any:
    """Return where the engine leaves the request that it refuses, for a caller who gave a `bad_wr` of that class."""
    typed("bad_wr", bad_wr, cls)
    return ffi.new(_CELLS[cls])


def explain(queue: Handle, wr: Any, cls: type) -> None:
    """Raise what was wrong with the arguments of a post that did not reach the engine."""
    queue._live()
    if typed("wr", wr, cls)._c is CLOSED:
        raise PyverbsError(f"{cls.__name__} is closed: create a new one instead of posting it after close()")


def failed(rc: int, what: str, cell: Any, wr: Any, bad_wr: Any) -> NoReturn:
    """Copy the request in the cell (a struct of the chain that begins with `wr`) to `bad_wr`, then raise the error."""
    if bad_wr is not None:
        bad_wr._copy_from(cell[0], wr)
    raise_errno(-rc, what)

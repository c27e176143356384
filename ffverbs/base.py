"""What all verbs objects share: closing, ownership between objects, and errors of the engine.

An object that stands for something in the engine derives from `Handle`. It is *open* from `_open()` until a successful
`close()`. Parents know their children by weak references in named groups and close them, group after group, before
themselves; children hold their parents by strong references, so that a parent outlives its children when nobody closes
anything. Closing is safe from several threads; using an object while another thread closes it is the caller's mistake,
as in libibverbs.

This module needs no engine: `check()` asks it for the text of an error only once a call has failed.
"""

import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, ClassVar, Final, NoReturn, Self

from ffverbs._cint import check_u32
from ffverbs.pyverbs_error import PyverbsError, PyverbsRDMAError

__all__ = ["LOG_FORMAT", "LOG_LEVEL", "PyverbsCM", "PyverbsObject", "PyverbsRDMAErrno", "inc_rkey"]

# pyverbs' names. pyverbs applies them to the root logger when it is imported; here they are for programs that do so.
LOG_LEVEL: Final = logging.INFO
LOG_FORMAT: Final = "[%(levelname)s] %(asctime)s %(filename)s:%(lineno)s: %(message)s"


def inc_rkey(rkey: int) -> int:
    """Return the key with its lowest byte, the consumer's part, counted up by one (255 wraps to 0)."""
    rkey = check_u32(rkey)
    return (rkey & ~0xFF) | ((rkey + 1) & 0xFF)


def PyverbsRDMAErrno(msg: str) -> PyverbsRDMAError:
    """Return (not raise) a PyverbsRDMAError with the errno of this thread's last engine call."""
    if not isinstance(msg, str):
        raise TypeError(f"Argument 'msg' has incorrect type (expected str, got {type(msg).__name__})")
    native = sys.modules.get("ffverbs._native")
    return PyverbsRDMAError(msg, native.ffi.errno if native is not None else 0)


def check(rc: int, what: str) -> int:
    """Return `rc`, the result of an engine call, or raise if it is a negative errno.

    `what` is pyverbs' text for the failure ("Failed to create QP"); the engine's own explanation is added to it.
    """
    if rc < 0:
        raise_errno(-rc, what)
    return rc


def raise_errno(code: int, what: str) -> NoReturn:
    """Raise PyverbsRDMAError(`what`, `code`), with the engine's explanation of this thread's last failure."""
    native = sys.modules.get("ffverbs._native")
    detail = native.error_text() if native is not None else ""
    raise PyverbsRDMAError(f"{what}: {detail}" if detail else what, code)


class PyverbsObject:
    """Base of every class of the package: weakly referable, neither picklable nor copyable, without a `__dict__`."""

    __slots__ = ("__weakref__",)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"cannot pickle or copy '{type(self).__name__}': it belongs to this process's engine")

    def set_log_level(self, val: int | str) -> None:
        """Set the level of this class's logger, `ffverbs.CLASS`."""
        logging.getLogger(f"ffverbs.{type(self).__name__}").setLevel(val)


class PyverbsCM(PyverbsObject):
    """An object with `close()`, usable as a context manager."""

    __slots__ = ()

    def close(self) -> None:
        """Release what the object stands for; here, nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


class _Closers:
    """Which thread is closing which object: one lock for all objects, replaced in a fork child.

    The lock is never held while an engine call runs, and nothing inside its critical sections allocates, so that
    garbage collection cannot re-enter them. In a child, claims of the parent's threads are void: the process id is
    part of every claim.
    """

    def __init__(self) -> None:
        self.reset()
        os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.pid = os.getpid()

    def claim(self, handle: "Handle") -> bool:
        """Wait until no other thread closes `handle`; true if it is now ours to close, false if there is nothing."""
        me = (self.pid, threading.get_ident())
        with self.changed:
            while handle._closer is not None and handle._closer != me and handle._closer[0] == self.pid:
                self.changed.wait()
            if handle._handle is None or handle._closer == me:
                return False
            handle._closer = me
            return True

    def release(self, handle: "Handle") -> None:
        with self.changed:
            handle._closer = None
            self.changed.notify_all()


_closers = _Closers()


class Handle(PyverbsCM):
    """An object of the engine, its parents and its children.

    A subclass names its groups of children in `_GROUPS`, in the order in which they are closed, calls `_open()` once
    the engine has created its object, and implements `_destroy()`. Example::

        class PD(Handle):
            __slots__ = ()
            _GROUPS = ("qps", "mrs")

            def __init__(self, ctx: Context) -> None:
                out = ffi.new("struct ffv_pd **")
                check(lib.ffv_alloc_pd(ctx._live(), out), "Failed to allocate PD")
                self._open(out[0])
                ctx._attach(self, "pds")

            def _destroy(self, handle: Any) -> None:
                check(lib.ffv_dealloc_pd(handle), "Failed to dealloc PD")

    A fast path may read `_handle` itself, which is None while the object is not open, and call `_live()` for the error.
    """

    __slots__ = ("_children", "_closer", "_deferred", "_handle", "_lingering", "_owned", "_parents")

    _GROUPS: ClassVar[tuple[str, ...]] = ()

    _handle: Any  # what the engine calls take; None before _open() and after close()
    _owned: bool  # false: close() forgets the engine's object instead of destroying it
    _closer: tuple[int, int] | None  # process and thread that is closing this object
    _deferred: bool  # close when the last child goes, see close()
    _parents: list["Handle"]
    _children: dict[str, dict[int, weakref.ref["Handle"]]]
    _lingering: list["Handle"]  # collected children that the engine did not let go yet

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        self = super().__new__(cls)
        self._handle = None
        self._owned = True
        self._closer = None
        self._deferred = False
        self._parents = []
        self._children = {}
        self._lingering = []
        return self

    def _open(self, handle: Any, *, owned: bool = True) -> None:
        """Become open with the engine's object; `owned=False` (imported objects) means close() never destroys it."""
        self._handle = handle
        self._owned = owned

    def _live(self) -> Any:
        """Return the engine's object; PyverbsError if this one is closed."""
        if self._handle is None:
            raise PyverbsError(f"{type(self).__name__} is closed: create a new one instead of using it after close()")
        return self._handle

    def _destroy(self, handle: Any) -> None:
        """Destroy the engine's object, or raise and leave it as it is."""
        raise NotImplementedError

    def _attach(self, child: "Handle", group: str) -> None:
        """Make `child` close before this object and keep this object alive; `group` is one of `_GROUPS`."""
        if group not in self._GROUPS:
            raise ValueError(f"{type(self).__name__} has no children called {group!r}, only {self._GROUPS}")
        self._children.setdefault(group, {})[id(child)] = weakref.ref(child)
        child._parents.append(self)

    def _detach(self, child: "Handle") -> None:
        """Undo `_attach()`, in whichever groups `child` is; nothing happens if it is in none."""
        for members in list(self._children.values()):
            members.pop(id(child), None)
        child._parents = [parent for parent in child._parents if parent is not self]
        self._retry_lingering()
        if self._deferred and not self._has_children():
            self.close()

    def _linger(self) -> bool:
        """Stay alive, collected as this object is, until a parent can close it; false if there is no parent."""
        if self._handle is None or not self._parents:
            return False
        self._parents[0]._lingering.append(self)
        return True

    def _retry_lingering(self) -> None:
        """Close what was collected while the engine still needed it, as far as it lets go by now."""
        pending, self._lingering = self._lingering, []
        for child in pending:
            try:
                child.close()
            except PyverbsRDMAError:
                self._lingering.append(child)

    def _has_children(self) -> bool:
        return any(self._children.values())

    def _close_children(self) -> bool:
        """Close all children, newest first in each group; false if one is being collected and closes by itself."""
        collected = False
        for group in self._GROUPS:
            for ref in reversed(list(self._children.get(group, {}).values())):
                child = ref()
                if child is None:
                    collected = True
                else:
                    child.close()
        while self._lingering:
            self._lingering[-1].close()
            self._lingering.pop()
        return not (collected and self._has_children())

    def _abandon(self) -> None:
        """Become closed without destroying the engine's object, and leave the parents."""
        self._handle = None
        parents, self._parents = self._parents, []
        for parent in parents:
            parent._detach(self)

    def close(self) -> None:
        """Close the children, then this object; a second call does nothing.

        If the engine refuses, the error is raised and the object stays open. When garbage is collected in cycles,
        children may be beyond reach of their parent but not finalised yet: then the last of them closes the parent.
        """
        if not _closers.claim(self):
            return
        try:
            if not self._close_children():
                self._deferred = True
                return
            if self._owned:
                self._destroy(self._handle)
        finally:
            _closers.release(self)
        self._abandon()

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # An exception from here is not raised: the interpreter reports it through sys.unraisablehook. While it shuts
        # down, modules may be gone already and the process's end releases everything: nothing to report then.
        lingers = False
        try:
            self.close()
        except Exception:
            if not _is_finalizing():
                lingers = self._linger()
                raise
        finally:
            if not self._deferred and not lingers:
                self._abandon()

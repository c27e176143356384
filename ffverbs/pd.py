"""Protection domains (pyverbs.pd)."""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ffverbs._cint import check_u32
from ffverbs._native import ffi, lib
from ffverbs._struct import NumberField, new, typed, typed_or_none
from ffverbs.base import Handle, PyverbsCM, PyverbsObject, check
from ffverbs.device import Context
from ffverbs.libibverbs_enums import (
    IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS,
    IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT,
)
from ffverbs.pyverbs_error import PyverbsError, PyverbsUserError
from ffverbs.wr import SGE

if TYPE_CHECKING:
    from ffverbs.cmid import CMID

__all__ = ["PD", "ParentDomain", "ParentDomainContext", "ParentDomainInitAttr"]


class PD(Handle):
    """A protection domain of a Context: memory, QPs and address handles work together only within one.

    `PD(ctx, handle=...)` is the domain with that handle, imported from the Context that `ctx` was imported from.
    """

    __slots__ = ("_context", "_imported")
    _GROUPS = ("parent_domains", "qps", "wqs", "ahs", "mws", "mrs", "bufs", "srqs", "cqs")

    _context: Context
    _imported: bool | None  # None: it was, and has been unimported

    def __init__(self, creator: "Context | CMID", **kwargs: Any) -> None:
        if creator is None:
            raise TypeError("Argument 'creator' must not be None")
        if not isinstance(creator, Context):
            self._share(creator)
            return
        self._context, self._imported = creator, kwargs.get("handle") is not None
        out = ffi.new("struct ffv_pd **")
        if self._imported:
            handle = check_u32(kwargs["handle"])
            check(lib.ffv_import_pd(creator._live(), handle, out), f"Failed to import PD with handle {handle}")
        else:
            check(lib.ffv_alloc_pd(creator._live(), out), "Failed to allocate PD")
        self._open(out[0])
        creator._attach(self, "pds")

    def _share(self, creator: object) -> None:
        """Stand for the domain of a CMID, which is the id's and goes with it."""
        context = getattr(creator, "context", None)
        if not isinstance(creator, PyverbsCM) or not isinstance(context, Context):
            raise PyverbsUserError(f"Cannot create PD from {type(creator)}")
        self._context, self._imported = context, False
        self._open(creator._live().pd, owned=False)  # type: ignore[attr-defined]
        context._attach(self, "pds")

    @property
    def handle(self) -> int:
        """The engine's number of the domain."""
        return int(lib.ffv_pd_handle(self._live()))

    @property
    def pd(self) -> int:
        """Address of the engine's object."""
        return int(ffi.cast("uintptr_t", self._live()))

    def advise_mr(self, advise: int, flags: int, sg_list: Sequence[SGE]) -> None:
        """Prefetch pieces of on-demand MRs; `advise` is an ibv_advise_mr_advice, `flags` of ibv_advise_mr_flags.

        EFAULT for a key or range that is not of an on-demand MR of the domain, and, with the flag FLUSH, for memory
        that cannot be made present.
        """
        advise, flags = check_u32(advise), check_u32(flags)
        if sg_list is None:
            raise TypeError("Argument 'sg_list' must not be None")
        pieces = ffi.new("struct ffv_sge[]", len(sg_list))
        for piece, sge in zip(pieces, sg_list, strict=True):
            piece.addr, piece.length, piece.lkey = sge.addr, sge.length, sge.lkey
        check(lib.ffv_advise_mr(self._live(), advise, flags, pieces, len(sg_list)), "Failed to advise MR")

    def unimport(self) -> None:
        """Give an imported domain up; what was made in it goes on until it is closed. One's own is left as it is."""
        if self._imported:
            lib.ffv_unimport_pd(self._live())
            self._imported = None

    def _live(self) -> Any:
        if self._imported is None:
            raise PyverbsError("PD was unimported: import it again instead of using it afterwards")
        return super()._live()

    def _destroy(self, handle: Any) -> None:
        if self._imported:
            self.unimport()
        elif self._imported is not None:
            check(lib.ffv_dealloc_pd(handle), "Failed to dealloc PD")


class ParentDomainContext(PyverbsObject):
    """The allocators of a parent domain, and `user_data` for them.

    `alloc_func(pd, context, size, alignment, resource_type)` returns an address, or _IBV_ALLOCATOR_USE_DEFAULT;
    `free_func(pd, context, address, resource_type)` takes it back. `context` is this object.
    """

    __slots__ = ("_alloc_func", "_free_func", "_pd", "user_data")

    def __init__(
        self,
        pd: PD | None,
        alloc_func: Callable[..., int] | None,
        free_func: Callable[..., object] | None,
        user_data: object = None,
    ) -> None:
        self._pd = typed_or_none("pd", pd, PD)
        self._alloc_func = alloc_func
        self._free_func = free_func
        self.user_data = user_data


@functools.cache
def _callbacks() -> tuple[Any, Any]:
    """Return the two functions that the engine calls; an exception in one of them is printed, as there is no caller."""

    def alloc(_pd: Any, handle: Any, size: int, alignment: int, resource_type: int) -> Any:
        context = ffi.from_handle(handle)
        return ffi.cast("void *", context._alloc_func(context._pd, context, size, alignment, resource_type) or 0)

    def free(_pd: Any, handle: Any, address: Any, resource_type: int) -> None:
        context = ffi.from_handle(handle)
        context._free_func(context._pd, context, int(ffi.cast("uintptr_t", address)), resource_type)

    return (
        ffi.callback("void *(struct ffv_pd *, void *, size_t, size_t, uint64_t)", alloc, error=ffi.NULL),
        ffi.callback("void(struct ffv_pd *, void *, void *, uint64_t)", free),
    )


class ParentDomainInitAttr(PyverbsObject):
    """Attributes of a parent domain: the domain, and allocators, of which there are both or none."""

    __slots__ = ("_comp_mask", "_pd", "_pd_context")

    def __init__(self, pd: PD, pd_context: ParentDomainContext | None = None, comp_mask: int = 0) -> None:
        self._pd = typed("pd", pd, PD)
        self._pd_context = context = typed_or_none("pd_context", pd_context, ParentDomainContext)
        self._comp_mask = check_u32(comp_mask)
        if context is None:
            return
        if (context._alloc_func is None) != (context._free_func is None):
            raise PyverbsUserError("ParentDomainContext must have both alloc_func and free_func, or neither")
        self._comp_mask |= IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT
        if context._alloc_func is not None:
            self._comp_mask |= IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS

    comp_mask = NumberField("comp_mask", check_u32, "Attributes that are set.", readonly=True)


class ParentDomain(PD):
    """A protection domain that is `attr`'s, whose QPs, SRQs and CQs take their private memory from its allocators."""

    __slots__ = ("_allocators",)

    def __init__(self, context: Context, attr: ParentDomainInitAttr) -> None:
        self._context, attr = typed("context", context, Context), typed("attr", attr, ParentDomainInitAttr)
        self._imported = False
        self._allocators = ffi.NULL if attr._pd_context is None else ffi.new_handle(attr._pd_context)
        request = new("parent_domain_init_attr", comp_mask=attr.comp_mask)
        request.pd, request.pd_context = attr._pd._live(), self._allocators
        if attr.comp_mask & IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS and attr._pd_context is not None:
            request.alloc, request.free = _callbacks()
        out = ffi.new("struct ffv_pd **")
        check(lib.ffv_alloc_parent_domain(context._live(), request, out), "Failed to allocate Parent Domain")
        self._open(out[0])
        context._attach(self, "pds")
        attr._pd._attach(self, "parent_domains")

"""Properties over the C structs that attribute objects hold, and the text form that such objects share.

An attribute object keeps its struct in `_c`; reading a property reads the field, writing it writes through, so that an
engine call takes `obj._c` without any conversion. Reads that need no Python code run none (`operator.attrgetter`).
Writing checks the range like C's type: TypeError for what is no number, OverflowError for what does not fit.
"""

from collections.abc import Callable
from enum import IntFlag
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, TypeVar, overload

from ffverbs._cint import check_int, check_u8, check_u16, check_u32, check_u64
from ffverbs._native import ffi
from ffverbs.pyverbs_error import PyverbsError

__all__ = [
    "CLOSED",
    "EnumField",
    "EnumMembers",
    "IntField",
    "NumberEnum",
    "NumberField",
    "new",
    "row",
    "typed",
    "typed_or_none",
]

_E = TypeVar("_E", bound=IntFlag)
_T = TypeVar("_T")
_V_co = TypeVar("_V_co", covariant=True)

_CHECKS: dict[tuple[int, bool], Callable[[object], int]] = {
    (1, False): check_u8,
    (2, False): check_u16,
    (4, False): check_u32,
    (8, False): check_u64,
    (4, True): check_int,
}


class EnumMembers(dict[int, _E]):
    """Members of an enum by value: a dictionary look-up instead of a call; unknown values become members on the fly."""

    def __init__(self, cls: type[_E]) -> None:
        super().__init__((member.value, member) for member in cls.__members__.values())
        self._cls = cls

    def __missing__(self, value: int) -> _E:
        return self._cls(value)


def _setter(path: str) -> Callable[[Any, object], None]:
    """Return a function that stores a number into the field `path` of `obj._c`, converting as C would."""
    *inner, name = path.split(".")
    struct_of = attrgetter(".".join(["_c", *inner]))

    def store(obj: Any, value: object) -> None:
        struct = struct_of(obj)
        try:
            setattr(struct, name, value)
        except (TypeError, OverflowError):
            # Either a number of another type (a float as in pyverbs) or an error, which the check words.
            setattr(struct, name, _check_for(struct, name)(value))

    return store


def _check_for(struct: Any, name: str) -> Callable[[object], int]:
    """Return the range check of the C type of `struct.name`."""
    struct_type = ffi.typeof(struct)
    if struct_type.kind == "pointer":
        struct_type = struct_type.item
    field = dict(struct_type.fields)[name].type
    return _CHECKS[ffi.sizeof(field), int(ffi.cast(field, -1)) < 0]


if TYPE_CHECKING:

    class _Field(Generic[_V_co]):
        """What the fields below are to the type checker: reading gives `_V_co`, writing takes any number."""

        @overload
        def __get__(self, obj: None, owner: type | None = None, /) -> property: ...
        @overload
        def __get__(self, obj: object, owner: type | None = None, /) -> _V_co: ...
        def __get__(self, obj: object, owner: type | None = None, /) -> _V_co | property: ...
        def __set__(self, obj: object, value: int, /) -> None: ...

    class IntField(_Field[int]):
        def __init__(self, path: str, doc: str, *, readonly: bool = False) -> None: ...

    class EnumField(_Field[_E]):
        def __init__(self, path: str, cls: type[_E], doc: str, *, readonly: bool = False) -> None: ...

    class NumberField(_Field[int]):
        def __init__(self, name: str, check: Callable[[object], int], doc: str, *, readonly: bool = False) -> None: ...

    class NumberEnum(_Field[_E]):
        def __init__(self, name: str, cls: type[_E], doc: str) -> None: ...

else:

    class IntField(property):
        """An integer field of the struct; `path` may lead into embedded structs ("cap.max_send_wr")."""

        def __init__(self, path, doc, *, readonly=False):
            super().__init__(attrgetter("_c." + path), None if readonly else _setter(path), None, doc)

    class EnumField(property):
        """A field of the struct whose C type is an enum: reading gives the member, writing takes any number."""

        def __init__(self, path, cls, doc, *, readonly=False):
            get, members = attrgetter("_c." + path), EnumMembers(cls)
            super().__init__(lambda obj: members[get(obj)], None if readonly else _setter(path), None, doc)

    class NumberField(property):
        """An integer of an object without a struct in the engine: it is in the slot `_NAME`, checked on writing."""

        def __init__(self, name, check, doc, *, readonly=False):
            slot = "_" + name

            def store(obj, value):
                setattr(obj, slot, check(value))

            super().__init__(attrgetter(slot), None if readonly else store, None, doc)

    class NumberEnum(property):
        """The same for a number that is an enum."""

        def __init__(self, name, cls, doc):
            slot, members = "_" + name, EnumMembers(cls)

            def store(obj, value):
                setattr(obj, slot, members[check_u32(value)])

            super().__init__(attrgetter(slot), store, None, doc)


class _Closed:
    """What stands in `_c` of a closed work request: every use of it says so."""

    __slots__ = ()
    _TEXT: ClassVar[str] = "the object is closed: create a new one instead of using it after close()"

    def __getattr__(self, name: str) -> NoReturn:
        raise PyverbsError(self._TEXT)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise PyverbsError(self._TEXT)


CLOSED: Any = _Closed()


def new(c_type: str, **fields: object) -> Any:
    """Return a zeroed struct of the engine (`new("qp_cap")` is a `struct ffv_qp_cap *`) with the given integers."""
    struct = ffi.new(f"struct ffv_{c_type} *")
    for name, value in fields.items():
        try:
            setattr(struct, name, value)
        except (TypeError, OverflowError):
            setattr(struct, name, _check_for(struct, name)(value))
    return struct


def typed(name: str, value: object, cls: type[_T]) -> _T:
    """Return `value` if it is a `cls`, else raise TypeError in pyverbs' words."""
    if not isinstance(value, cls):
        expected = f"{cls.__module__}.{cls.__name__}"
        raise TypeError(f"Argument '{name}' has incorrect type (expected {expected}, got {type(value).__name__})")
    return value


def typed_or_none(name: str, value: object, cls: type[_T]) -> _T | None:
    """Return `value` if it is a `cls` or None, else raise TypeError."""
    return None if value is None else typed(name, value, cls)


def row(label: str, value: object, width: int = 22, indent: int = 0) -> str:
    """Return one line of an object's text: the label padded to `width`, the value to 20 characters."""
    return f"{'':{indent}}{label:<{width}}: {value!s:<20}\n"

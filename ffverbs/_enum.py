"""The class of all enumerations of verbs."""

from enum import EnumType, IntFlag
from typing import Any

__all__ = ["VerbsEnum"]


class _VerbsEnumType(EnumType):
    """Makes classes whose iteration yields every member, where Flag leaves out zero and combined bits."""

    def __new__(
        metacls: type["_VerbsEnumType"], name: str, bases: tuple[type, ...], namespace: Any, **kwds: Any
    ) -> "_VerbsEnumType":
        if bases[0] is not IntFlag:
            # EnumType gives every class Flag's operators unless its own body has them: inheritance is not enough.
            namespace["__invert__"] = VerbsEnum.__invert__
        cls = super().__new__(metacls, name, bases, namespace, **kwds)
        # The list that iteration, len() and reversed() go by.
        cls._member_names_ = list(cls.__members__)
        return cls


class VerbsEnum(IntFlag, metaclass=_VerbsEnumType):
    """Integers with names, for enumerations and for bits alike, as pyverbs has them.

    `str()` and formatting give the number. A value without a name is accepted, because a device or a peer may be newer.
    """

    def __invert__(self) -> int:  # type: ignore[override]
        # Flag would invert only the bits it knows, and `mask & ~flag` would lose the others.
        return ~int(self)

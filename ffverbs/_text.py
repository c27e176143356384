"""Names of flags in text, shared by the modules whose objects have them."""

from collections.abc import Mapping
from enum import IntFlag

__all__ = ["flags_to_str", "names_of", "str_from_flags"]


def names_of(cls: type[IntFlag]) -> dict[int, str]:
    """Return the names of an enum's members by value."""
    return {int(member.value): name for name, member in cls.__members__.items()}


def flags_to_str(flags: int, dictionary: Mapping[int, str]) -> str:
    """Return the names in `dictionary` of the bits in `flags`, in its order, each followed by a space."""
    return "".join(f"{name} " for bit, name in dictionary.items() if flags & bit)


def str_from_flags(flags: int, dictionary: Mapping[int, str]) -> str:
    """Return the names in `dictionary` of the bits in `flags`, one a line, indented."""
    return "\n  " + "".join(f"{name}\n  " for bit, name in dictionary.items() if flags & bit)

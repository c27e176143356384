"""Range checks for integers that become C fields, with the errors that pyverbs raises.

pyverbs' parameters are C integers: a value that is no number is a TypeError, one that does not fit the field is an
OverflowError, never a silent truncation. Numbers of other types (numpy's, float) are converted by `int()`, as there.
"""

from typing import SupportsIndex, SupportsInt

__all__ = ["check_i64", "check_int", "check_u8", "check_u16", "check_u32", "check_u64"]


def _as_int(value: object) -> int:
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str | bytes | bytearray) or not isinstance(value, SupportsInt | SupportsIndex):
        raise TypeError("an integer is required")
    return int(value)


def _unsigned(value: object, limit: int, c_type: str) -> int:
    number = _as_int(value)
    if number < 0:
        raise OverflowError(f"can't convert negative value to {c_type}")
    if number > limit:
        raise OverflowError(f"value too large to convert to {c_type}")
    return number


def _signed(value: object, limit: int, c_type: str) -> int:
    number = _as_int(value)
    if not -limit - 1 <= number <= limit:
        raise OverflowError(f"value too large to convert to {c_type}")
    return number


def check_u8(value: object) -> int:
    """Return `value` as an int of 0 to 2^8 - 1."""
    return _unsigned(value, 0xFF, "uint8_t")


def check_u16(value: object) -> int:
    """Return `value` as an int of 0 to 2^16 - 1."""
    return _unsigned(value, 0xFFFF, "uint16_t")


def check_u32(value: object) -> int:
    """Return `value` as an int of 0 to 2^32 - 1."""
    return _unsigned(value, 0xFFFF_FFFF, "uint32_t")


def check_u64(value: object) -> int:
    """Return `value` as an int of 0 to 2^64 - 1."""
    return _unsigned(value, 0xFFFF_FFFF_FFFF_FFFF, "uint64_t")


def check_int(value: object) -> int:
    """Return `value` as an int of -2^31 to 2^31 - 1 (C's int)."""
    return _signed(value, 0x7FFF_FFFF, "int")


def check_i64(value: object) -> int:
    """Return `value` as an int of -2^63 to 2^63 - 1."""
    return _signed(value, 0x7FFF_FFFF_FFFF_FFFF, "long")

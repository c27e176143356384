"""Range checks of C integers."""

from collections.abc import Callable

import pytest

from ffverbs import _cint

CHECKS = [
    (_cint.check_u8, 0, 0xFF),
    (_cint.check_u16, 0, 0xFFFF),
    (_cint.check_u32, 0, 0xFFFF_FFFF),
    (_cint.check_u64, 0, 0xFFFF_FFFF_FFFF_FFFF),
    (_cint.check_int, -(2**31), 2**31 - 1),
    (_cint.check_i64, -(2**63), 2**63 - 1),
]


@pytest.mark.parametrize(("check", "low", "high"), CHECKS)
def test_the_whole_range_and_no_more(check: Callable[[object], int], low: int, high: int) -> None:
    assert (check(low), check(high), check(True), check(1.9)) == (low, high, 1, 1)
    for value in (low - 1, high + 1, -(2**70), 2**70):
        with pytest.raises(OverflowError):
            check(value)
    wrong: list[object] = ["1", b"1", None, [1], object()]
    for other in wrong:
        with pytest.raises(TypeError, match="an integer is required"):
            check(other)


def test_other_integers_are_converted() -> None:
    class Index:
        def __index__(self) -> int:
            return 7

    class Int:
        def __int__(self) -> int:
            return 8

    class Sub(int):
        pass

    assert [_cint.check_u8(v) for v in (Index(), Int(), Sub(9))] == [7, 8, 9]
    assert type(_cint.check_u8(Sub(9))) is int


def test_texts() -> None:
    with pytest.raises(OverflowError, match=r"^can't convert negative value to uint16_t$"):
        _cint.check_u16(-1)
    with pytest.raises(OverflowError, match=r"^value too large to convert to uint8_t$"):
        _cint.check_u8(256)

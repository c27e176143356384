"""Huge pages of 2 MiB, reserved for as long as tests need them, where the host allows it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["BYTES", "reserved"]

BYTES = 2 << 20
_RESERVED = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")


def _change(count: int) -> int:
    """Ask for `count` more pages than there are (fewer if negative) and return how many there are then."""
    _RESERVED.write_text(str(max(0, int(_RESERVED.read_text(encoding="ascii")) + count)), encoding="ascii")
    return int(_RESERVED.read_text(encoding="ascii"))


@contextmanager
def reserved(count: int) -> Iterator[str]:
    """Reserve pages beside those that others have reserved; yield why it is not possible, "" if it was."""
    try:
        before = int(_RESERVED.read_text(encoding="ascii"))
        added = _change(count) - before
    except OSError as error:
        yield f"huge pages cannot be reserved: {error}"
        return
    try:
        yield "" if added >= count else f"the machine has no {count} huge pages to spare"
    finally:
        _change(-max(added, 0))

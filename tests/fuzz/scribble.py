"""Writing nonsense into shared memory: what a process with a bug, or with bad intentions, does to its peers.

The places are those of native/shm/layout.h. Nothing here asks the engine: the mappings are found in /proc.
"""

import ctypes
import os
import random

__all__ = ["arenas", "scribble"]

ARENA_BYTES = 1 << 34
MAX_QP, MAX_CQ, MAX_SRQ, MAX_KEYS, MAX_PD, MAX_DM = 16384, 16384, 4096, 262144, 65536, 1024
ATTENTION = 192
PORT_BITS = 64
THREADS = ATTENTION + -(-(MAX_QP + MAX_CQ + MAX_SRQ + PORT_BITS) // 512) * 64
QP_LINE = THREADS + 256 * 128
KEYS = QP_LINE + 4 * (MAX_QP + MAX_CQ + MAX_SRQ)
PDS = KEYS + 64 * MAX_KEYS
HEAP = PDS + 4 * MAX_PD + 16 * MAX_DM
"""Offsets of the parts of an arena; the objects and rings begin where the tables end."""


def arenas() -> list[int]:
    """Return the address of every arena that is mapped here."""
    with open("/proc/self/maps") as maps:
        lines = [line.split() for line in maps]
    spans = [[int(part, 16) for part in line[0].split("-")] for line in lines if "w" in line[1]]
    return [first for first, end in spans if end - first == ARENA_BYTES]


def _heap_bytes(base: int) -> int:
    """Return how far the objects of an arena reach, from the lines that its tables name."""
    table = (ctypes.c_uint32 * (MAX_QP + MAX_CQ + MAX_SRQ)).from_address(base + QP_LINE)
    last = max(line for line in table if line < ARENA_BYTES // 64)
    return max(1 << 16, last * 64 + (1 << 16) - HEAP)


def _word(draw: random.Random, old: int) -> int:
    """Return a wild value, a small one, all ones, or the old one with a bit flipped or counted on."""
    kinds = (draw.getrandbits(32), draw.randrange(64), 0xFFFFFFFF, old ^ 1 << draw.randrange(32), old + 1, 0)
    return draw.choice(kinds) & 0xFFFFFFFF


def scribble(seed: int, count: int) -> None:
    """Overwrite words of every own arena, at places and with values drawn from a seed.

    Args:
        seed: What the places and values are drawn from.
        count: How many words of 4 bytes each arena gets.
    """
    draw = random.Random(seed)
    parts = [(ATTENTION, 4608), (THREADS, 2048), (QP_LINE, 64), (QP_LINE + 4 * MAX_QP, 64), (KEYS, 4096), (PDS, 64)]
    for base in arenas():
        header_bytes, pid = (ctypes.c_uint32.from_address(base + at).value for at in (12, 52))
        assert header_bytes == HEAP, "the layout of arenas has changed: adapt the offsets of this file"
        if pid != os.getpid():
            continue
        heap = _heap_bytes(base)
        for _ in range(count):
            first, length = draw.choice([*parts, *[(HEAP, heap)] * 6])
            place = ctypes.c_uint32.from_address(base + first + draw.randrange(length // 4) * 4)
            place.value = _word(draw, place.value)

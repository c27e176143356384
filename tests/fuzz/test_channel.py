"""A short run of libFuzzer over what a router takes apart of another one's bytes (channel.c beside this).

By hand and longer: build it as here, and run `channel -max_total_time=600 CORPUS`.
"""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_SOURCES = (
    "tests/fuzz/channel.c",
    "native/wire/body.c",
    "native/wire/channel.c",
    "native/wire/frame.c",
    "native/base/error.c",
)
_SECONDS = 8
_PIECE = 1 + 127 * 3


def _frame(kind: int, sequence: int, payload: bytes = b"", opcode: int = 0, operand: int = 0, flags: int = 0) -> bytes:
    fields = (0xFB1E, kind, 0, len(payload), 0, 1, 0, opcode, flags, 0, len(payload), 0, 0, 0, sequence, operand, 0)
    return struct.pack("<HBBIIIIBBHIIQIIQQ", *fields) + payload + bytes(-len(payload) % 8)


def _input(frames: list[bytes]) -> bytes:
    """Return the fuzzer's form of a stream: pieces, each behind a byte that says how long it is."""
    stream = b"".join(frames)
    pieces = [stream[at : at + _PIECE] for at in range(0, len(stream), _PIECE)]
    return b"".join(bytes([127]) + piece for piece in pieces)


def _corpus(folder: Path) -> None:
    folder.mkdir()
    messages, position = [], 0
    for n in range(6):
        messages.append(_frame(2, position, b"x" * (40 * n), 2))
        position += len(messages[-1])
    seen = [_frame(48, 0, operand=64, flags=1), _frame(48, 0, flags=4), _frame(48, 0, flags=2)]
    data = [_frame(4, 0, b"y" * 5000), _frame(4, 5064, b"z" * 4097), _frame(18, 9232, b"q" * 4096)]
    streams = {"messages": messages, "data": data, "seen": seen + messages, "bye": [*messages, _frame(49, 0)]}
    for name, frames in streams.items():
        (folder / name).write_bytes(_input(frames))


def test_whatever_another_router_sends_is_taken_apart(tmp_path: Path) -> None:
    clang = shutil.which("clang")
    if clang is None:
        pytest.skip("libFuzzer comes with clang, which is not here")
    program = tmp_path / "channel"
    flags = ["-g", "-O1", "-fsanitize=fuzzer,address,undefined", "-D_GNU_SOURCE", "-Inative", "-Inative/include"]
    built = subprocess.run(
        [clang, *flags, *_SOURCES, "-o", str(program)], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    if built.returncode and "libclang_rt" in built.stderr:
        pytest.skip("clang is here without its run-time library (libclang-rt-dev)")
    assert built.returncode == 0, built.stderr
    _corpus(tmp_path / "corpus")
    done = subprocess.run(
        [program, f"-max_total_time={_SECONDS}", "-max_len=16384", "-rss_limit_mb=1024", str(tmp_path / "corpus")],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done" in done.stderr

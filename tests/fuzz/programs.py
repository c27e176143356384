"""The programs for libFuzzer (meson.build beside this): building them, what they begin with, how they are run."""

import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path

__all__ = ["BUILD", "PROGRAMS", "build", "command", "missing", "seed"]

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "fuzz"
PROGRAMS = {
    "channel": "the stream of frames, over links that come and go",
    "pairs": "frames of another router: OPEN, MESSAGE, LARGE, DATA, PLACED, REQUEST (READ, atomics), CLOSE, GONE",
    "answers": "frames of another router: ACK, CREDIT, RESULT, WAITS, to what a container has asked",
    "datagrams": "frames of another router: DATAGRAM",
    "calls": "frames of another router: conversations of the connection manager",
    "segment": "frames of another router: BROADCAST, INTEREST",
    "all": "all of these at once",
    "rdma": "notes and slots of the transport rdma",
    "attach": "control messages and descriptors of a container",
    "hostile": "what a container writes into its own arena",
}
_PIECE = 1 + 127 * 3


def missing() -> str:
    """Return why the programs cannot be built; "" if they can."""
    if shutil.which("clang") is None:
        return "libFuzzer comes with clang, which is not here"
    done = subprocess.run(
        ["clang", "-fsanitize=fuzzer", "-x", "c", "-", "-o", "/dev/null"], capture_output=True, text=True, check=False,
        input="int LLVMFuzzerTestOneInput(const char *data, unsigned long size) { return !data && size; }",
    )  # fmt: skip
    return "clang is here without its run-time library (libclang-rt-dev)" if done.returncode else ""


def build() -> None:
    """Build what is not up to date; CalledProcessError says what is wrong."""
    meson = Path(sys.executable).parent / "meson"
    for step in (["make", "--no-print-directory", "build/fuzz/build.ninja"], [str(meson), "compile", "-C", str(BUILD)]):
        subprocess.run(step, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _frame(kind: int, sequence: int, payload: bytes = b"", opcode: int = 0, operand: int = 0, flags: int = 0) -> bytes:
    fields = (0xFB1E, kind, 0, len(payload), 0, 1, 0, opcode, flags, 0, len(payload), 0, 0, 0, sequence, operand, 0)
    return struct.pack("<HBBIIIIBBHIIQIIQQ", *fields) + payload + bytes(-len(payload) % 8)


def _pieces(frames: list[bytes]) -> bytes:
    """Return the form in which channel.c has a stream: pieces, each behind a byte that says how long it is."""
    stream = b"".join(frames)
    pieces = [stream[at : at + _PIECE] for at in range(0, len(stream), _PIECE)]
    return b"".join(bytes([127]) + piece for piece in pieces)


def _streams() -> dict[str, bytes]:
    messages, position = [], 0
    for n in range(6):
        messages.append(_frame(2, position, b"x" * (40 * n), 2))
        position += len(messages[-1])
    seen = [_frame(48, 0, operand=64, flags=1), _frame(48, 0, flags=4), _frame(48, 0, flags=2)]
    data = [_frame(4, 0, b"y" * 5000), _frame(4, 5064, b"z" * 4097), _frame(18, 9232, b"q" * 4096)]
    streams = {"messages": messages, "data": data, "seen": seen + messages, "bye": [*messages, _frame(49, 0)]}
    return {name: _pieces(frames) for name, frames in streams.items()}


def seed(name: str, corpus: Path) -> None:
    """Put first inputs into an empty corpus: valid streams for channel; the others make something of any bytes."""
    corpus.mkdir(parents=True, exist_ok=True)
    draw = random.Random(name)
    inputs = _streams() if name == "channel" else {f"{n}": draw.randbytes(n) for n in (40, 300, 1000, 3000)}
    for file, content in inputs.items():
        (corpus / file).write_bytes(content)


def command(name: str, seconds: int, *options: str) -> list[str]:
    """Return how a program is run, but for its corpus; what it finds goes into the working directory."""
    limit = 16384 if name == "channel" else 4096
    return [
        str(BUILD / "tests" / "fuzz" / f"fuzz_{name}"), f"-max_total_time={seconds}", f"-max_len={limit}",
        "-rss_limit_mb=2048", "-timeout=300", "-detect_leaks=0", *options,
    ]  # fmt: skip

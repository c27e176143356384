"""Other programs: compile the C ones, run any of them to its end and read what it prints."""

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
TREE: Final = HERE.parent
CACHE: Final = TREE / "build" / "benchmarks"
PLAIN_BUILD: Final = TREE / "build" / "plain" / "native"

CFLAGS: Final = ("-std=gnu11", "-O3", "-Wall", "-Wextra")


class NotMeasuredError(Exception):
    """A benchmark could not be run or said nothing usable; the text tells what and how to remedy it."""


def _name(command: Sequence[str]) -> str:
    """Return what a reader needs of a command: the program, and what it was told to do."""
    words = [Path(command[0]).name, *(word for word in command[1:] if not word.startswith("-"))]
    return " ".join(words[:3])


def _reason(stderr: str, stdout: str) -> str:
    """Return the line that tells why a program failed: of a compiler's many the first error, else the last line."""
    lines = stderr.strip().splitlines() or stdout.strip().splitlines() or ["no message"]
    return next((line for line in lines if "undefined reference" in line or " error: " in line), lines[-1])


def run(command: Sequence[str], *, timeout_s: float = 60, env: Mapping[str, str] | None = None) -> str:
    """Run `command` to its end and return its standard output.

    NotMeasuredError when it is missing, fails, or is not done after `timeout_s`. Its whole process group is killed when
    it is not waited for any more, for benchmarks have children.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=None if env is None else {**os.environ, **env},
            start_new_session=True,
        )
    except OSError as error:
        raise NotMeasuredError(f"{command[0]}: {error.strerror}") from error
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise NotMeasuredError(f"{_name(command)}: not done after {timeout_s:.0f} s") from error
    except BaseException:  # told to end
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode != 0:
        raise NotMeasuredError(f"{_name(command)}: exit code {process.returncode}: {_reason(err, out)}")
    return out


def run_json(command: Sequence[str], *, timeout_s: float = 60, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run `command` as `run` does and return the one JSON object that it prints."""
    out = run(command, timeout_s=timeout_s, env=env)
    try:
        value = json.loads(out)
    except ValueError as error:
        raise NotMeasuredError(f"{_name(command)}: printed no JSON: {out[:200]!r}") from error
    if not isinstance(value, dict):
        raise NotMeasuredError(f"{_name(command)}: printed JSON that is not an object: {out[:200]!r}")
    return value


def compiled(name: str, *flags: str, inputs: Sequence[Path] = ()) -> str:
    """Compile benchmarks/NAME.c, unless the cache has it for the same sources and flags; return the program's path.

    `flags` come after the source, so libraries may be among them; `inputs` are files they name.
    """
    compiler = shlex.split(os.environ.get("CC", "")) or list(filter(None, [shutil.which("cc")]))
    if not compiler:
        raise NotMeasuredError("no C compiler: install gcc or set CC")
    digest = hashlib.sha256(repr((compiler, CFLAGS, flags)).encode())
    for source in (HERE / f"{name}.c", *sorted(HERE.glob("*.h")), *inputs):
        digest.update(source.read_bytes())
    program = CACHE / f"{name}-{digest.hexdigest()[:16]}"
    if not program.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = program.with_suffix(f".{os.getpid()}")
        run([*compiler, *CFLAGS, "-o", str(unfinished), str(HERE / f"{name}.c"), *flags], timeout_s=120)
        unfinished.replace(program)
    return str(program)


def limits() -> str:
    """Return the program that measures what the machine allows."""
    return compiled("limits")


def ucx_put() -> str:
    """Return the program that measures UCX's put; NotMeasuredError without UCX's headers."""
    try:
        return compiled("ucx_put", "-lucp", "-lucs")
    except NotMeasuredError as error:
        raise NotMeasuredError(f"{error} (Debian's libucx-dev has what ucx_put.c needs)") from error


def fi_stream() -> str:
    """Return the program that measures libfabric's messages; NotMeasuredError without libfabric's headers."""
    try:
        return compiled("fi_stream", "-lfabric")
    except NotMeasuredError as error:
        raise NotMeasuredError(f"{error} (Debian's libfabric-dev has what fi_stream.c needs)") from error


def ffv_write() -> str:
    """Return the program that measures the engine's WRITE."""
    return with_engine("ffv_write")


def with_engine(name: str) -> str:
    """Compile benchmarks/NAME.c, linked with the engine that `make build` built; return the program's path."""
    libraries = sorted(PLAIN_BUILD.glob("libffv_*.a"))
    if not libraries:
        raise NotMeasuredError(f"no engine in {PLAIN_BUILD.relative_to(TREE)}: run `make build`")
    # Meson's static libraries are thin: the code is in the objects that they name.
    objects = [member for library in libraries for member in sorted(Path(f"{library}.p").glob("*.o"))]
    archives = ["-Wl,--start-group", *(str(library) for library in libraries), "-Wl,--end-group"]
    return compiled(name, f"-I{TREE}/native/include", *archives, "-pthread", inputs=objects)

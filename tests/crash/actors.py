"""The processes of the crash tests: `actor.c` of this folder, driven over pipes, and what they leave behind.

The program is built with fault points by `make faults`; FFVERBS_ACTORS names another folder to take it from (one of a
sanitizer build, say).
"""

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.stopping import wait_until_stopped

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(os.environ.get("FFVERBS_ACTORS", ROOT / "build" / "faults" / "tests" / "crash"))
# Longer than anything takes, also on a busy machine: they only detect hangs.
ANSWER_WITHIN_S = 60.0
WAIT_MS = 20_000

# Values of the specification that the tests speak of.
SUCCESS, FLUSHED, RETRY_EXCEEDED = 0, 5, 12
WRITE, WRITE_WITH_IMM, SEND, READ, FETCH_ADD = 0, 1, 2, 4, 6
RTS, ERR = 3, 6
QP_FATAL, LAST_WQE_REACHED = 1, 16


class ActorError(AssertionError):
    """An actor died, or did not answer, when it should have answered."""


@dataclass(frozen=True)
class Completion:
    """One work completion as an actor reports it."""

    wr_id: int
    status: int
    opcode: int
    qpn: int
    length: int
    imm: int
    src_qp: int


@dataclass(frozen=True)
class Completions:
    """What a `wait` gathered, and when its answer came (time.monotonic())."""

    entries: tuple[Completion, ...]
    at: float


class ActorDiedError(ActorError):
    """An actor ended instead of answering."""


class Actor:
    """One process; every method that asks it something waits for its answer and fails clearly without one."""

    def __init__(self, name: str, *command: str, environment: dict[str, str] | None = None) -> None:
        self.name = name
        program, *arguments = command or ("actor",)
        path = PROGRAMS / program
        if not path.exists():
            raise ActorError(f"{path} is not there: run `make faults`")
        self._process = subprocess.Popen(
            [str(path), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
        self._buffer = b""
        self.gid = ""
        self.fault = ""

    @property
    def output(self) -> int:
        """The descriptor of its answers: readable, too, when it died."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def tell(self, word: str, *words: object, **arguments: object) -> None:
        """Give a command without waiting for the answer (`answer()` fetches it)."""
        assert self._process.stdin is not None
        text = " ".join([word, *map(str, words), *(f"{key}={value}" for key, value in arguments.items())])
        try:
            self._process.stdin.write(text.encode() + b"\n")
        except BrokenPipeError as error:
            status = self._process.wait(ANSWER_WITHIN_S)
            raise ActorDiedError(f"{self.name} is gone ({status}) when told '{text}'") from error

    def _read_line(self, within_s: float) -> str | None:
        """Return the next line, or None at the end of the output."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + within_s
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise ActorError(f"{self.name} (process {self.pid}) did not answer within {within_s:.0f} s: it hangs")
            read = os.read(descriptor, 1 << 16)
            if not read:
                return None
            self._buffer += read
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode()

    def answer(self, within_s: float = ANSWER_WITHIN_S) -> list[str]:
        """Return the words of the answer; fails on "err", and if the process ended instead."""
        line = self._read_line(within_s)
        if line is None:
            raise ActorDiedError(f"{self.name} ended with {self._process.wait(ANSWER_WITHIN_S)} instead of answering")
        kind, *words = line.split()
        if kind != "ok":
            raise ActorError(f"{self.name}: {line}")
        return words

    def call(self, word: str, *words: object, **arguments: object) -> list[str]:
        """Give a command and return the words of its answer."""
        self.tell(word, *words, **arguments)
        return self.answer()

    def refuses(self, word: str, **arguments: object) -> str:
        """Give a command that fails, and return the line that says why."""
        self.tell(word, **arguments)
        line = self._read_line(ANSWER_WITHIN_S)
        assert line is not None and line.startswith("err "), f"{self.name}: {word}: {line}"
        return line

    def attempt(self, word: str, **arguments: object) -> None:
        """Give a command that may fail, on an actor that may be dead."""
        try:
            self.tell(word, **arguments)
            self._read_line(ANSWER_WITHIN_S)
        except ActorDiedError:
            pass

    def has_answered(self) -> bool:
        """Fetch an answer; False if the actor ended instead."""
        return self._read_line(ANSWER_WITHIN_S) is not None

    def number(self, word: str, **arguments: object) -> int:
        """Give a command whose answer begins with a number."""
        return int(self.call(word, **arguments)[0])

    def open(self) -> None:
        """Open the device."""
        self.gid = self.call("open")[0]

    def completions(self, within_s: float = ANSWER_WITHIN_S) -> Completions:
        """Fetch the answer of a `wait` that was told."""
        words = self.answer(within_s)
        entries = tuple(Completion(*map(int, word.split(":"))) for word in words[1:])
        return Completions(entries, time.monotonic())

    def wait(self, n: int, ms: int = WAIT_MS, **arguments: object) -> Completions:
        """Gather up to n completions within ms milliseconds."""
        self.tell("wait", n=n, ms=ms, **arguments)
        return self.completions()

    def events(self, ms: int) -> list[tuple[int, int]]:
        """Return (event type, QP number) of every async event; waits for the first at most ms milliseconds."""
        found = []
        words = self.call("async", ms=ms)
        while words[0] != "none":
            found.append((int(words[0]), int(words[2])))
            words = self.call("async", ms=0)
        return found

    def events_until(self, expected: tuple[int, int]) -> list[tuple[int, int]]:
        """Return every async event, as soon as the expected one has come."""
        found: list[tuple[int, int]] = []
        while expected not in found:
            more = self.events(WAIT_MS)
            assert more, f"{self.name} got no event {expected}, but {found}"
            found += more
        return found

    def dies(self, within_s: float = ANSWER_WITHIN_S) -> float:
        """Wait for its death by SIGKILL and return when that was seen."""
        status = self._process.wait(within_s)
        now = time.monotonic()
        assert status == -signal.SIGKILL, f"{self.name} ended with {status}, not by SIGKILL"
        return now

    def is_alive(self) -> bool:
        """Whether the process still runs (or is stopped)."""
        return self._process.poll() is None

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal, or None while it runs."""
        return self._process.poll()

    def stops(self) -> None:
        """Wait until SIGSTOP has taken effect on every thread."""
        wait_until_stopped(self.pid)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it, whatever it does, and close the pipes."""
        if self.is_alive():
            self._process.kill()
        self._process.wait(ANSWER_WITHIN_S)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def __enter__(self) -> "Actor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def resources(self) -> tuple[dict[str, int], int]:
        """Return how many descriptors of each kind it has, and how many mappings of memory files."""
        kinds: dict[str, int] = {}
        folder = Path(f"/proc/{self.pid}/fd")
        for entry in folder.iterdir():
            with suppress(FileNotFoundError):  # it has just been closed
                kind = os.readlink(entry).split("[")[0].split(" ")[0]
                kinds[kind] = kinds.get(kind, 0) + 1
        maps = Path(f"/proc/{self.pid}/maps").read_text().splitlines()
        return kinds, sum("memfd:ffverbs" in each for each in maps)


@contextmanager
def cast(*names: str) -> Iterator[list[Actor]]:
    """Start an actor for each name, and end them all, whatever happens."""
    actors: list[Actor] = []
    try:
        for name in names:
            actors.append(Actor(name))
        yield actors
    finally:
        for actor in actors:
            actor.kill()


def becomes(ask: Callable[[], object], expected: object) -> None:
    """Wait until something is as expected."""
    deadline = time.monotonic() + ANSWER_WITHIN_S
    while (found := ask()) != expected:
        assert time.monotonic() < deadline, f"{found}, and should be {expected}"
        time.sleep(0.001)


def names_in(directory: Path) -> list[str]:
    """Return the sockets that contexts have bound in a node directory."""
    return sorted(entry.name for entry in directory.rglob("*") if entry.is_socket())

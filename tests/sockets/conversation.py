"""Two ends of a connection that obey (ends_that_obey.py), each in a process of its own, wherever it is."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

from tests.sockets.translated import HANG_SECONDS, Ends, end

CASES = str(Path(__file__).with_name("ends_that_obey.py"))
VERBS = ("-m", "ffverbs.rsocket")


class End:
    """A process with one end of a connection."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def tell(self, *command: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def answer(self) -> object:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended with {self.process.wait(HANG_SECONDS)}"
        return json.loads(line)

    def do(self, *command: object) -> object:
        self.tell(*command)
        return self.answer()


def exchange(one: End, other: End, count: int) -> None:
    """Send so many bytes each way, which the other end receives."""
    for sender, receiver in ((one, other), (other, one)):
        sender.tell("send", count)
        assert receiver.do("receive", count) == count
        assert sender.answer() == count


class Connection:
    """Two such ends, both on verbs: translated, or Python's own; a context manager."""

    def __init__(self, ends: Ends, *, is_translated: bool) -> None:
        self.ends = ends
        ends.server = ends.client = is_translated
        self.face = () if is_translated else VERBS
        self.stack = contextlib.ExitStack()

    def __enter__(self) -> tuple[End, End]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        command = (sys.executable, *self.face, CASES)
        serving = self.ends.serving(*command, "listen", self.ends.server_at.address, **pipes)
        server = End(self.stack.enter_context(serving))
        try:
            where = (self.ends.server_at.address, str(server.answer()))
            process = self.ends.starting(*command, "connect", *where, **pipes)
            self.stack.callback(end, process)
            client = End(process)
            for one in (server, client):
                one.tell("over")
            assert server.answer() is True
            assert client.answer() is True
        except BaseException:
            self.stack.close()
            raise
        return server, client

    def __exit__(self, *_: object) -> None:
        self.stack.close()

"""Python objects between this host and a virtual machine, by files of the folder that both can write.

It stands where a `multiprocessing` connection would: a worker in the machine serves at one end, and the stand-in for it
(`tests.conformance.paths`) is here. A letter is written under another name and renamed: whoever sees it sees all of it.
"""

import os
import pickle
import time
from pathlib import Path
from typing import Any

LOOK_S = 0.01  # files tell nobody when they come


class Mailbox:
    """One end, which `begins` or not; the two ends have the same folder, by whatever path."""

    def __init__(self, folder: Path, *, begins: bool) -> None:
        self._folder = folder
        self._names = ("asked", "answered") if begins else ("answered", "asked")
        self._sent = self._taken = 0

    def send(self, letter: Any) -> None:
        """Put a letter down for the other end."""
        path = self._folder / f"{self._names[0]}-{self._sent}"
        self._sent += 1
        draft = path.with_suffix(".draft")
        draft.write_bytes(pickle.dumps(letter))
        os.rename(draft, path)

    def _next(self) -> Path:
        return self._folder / f"{self._names[1]}-{self._taken}"

    def poll(self, timeout_s: float) -> bool:
        """Wait for a letter; tell whether there is one."""
        deadline = time.monotonic() + timeout_s
        while not self._next().exists():
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_S)
        return True

    def recv(self) -> Any:
        """Take the next letter, however long that needs."""
        path = self._next()
        while not path.exists():
            time.sleep(LOOK_S)
        letter = pickle.loads(path.read_bytes())
        path.unlink()
        self._taken += 1
        return letter

    def close(self) -> None:
        """Nothing is kept open: the machine, or the test, removes the folder."""

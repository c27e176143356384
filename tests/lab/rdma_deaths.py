"""In the lab's machine: a router dies at its fault points while its device, or the other one's, moves large payload.

    python -m tests.lab.rdma_deaths [part]

Says of each point that everybody else survived it (tests/crash/test_router.py); an assertion that fails, or a hang, is
its end. Started by test_rdma.py.
"""

import sys
import tempfile
from pathlib import Path

from tests.crash.test_router import BY_DEVICES, Stage, die
from tests.lab.rdma_guest import RdmaHosts

# One of each kind: all take two minutes.
PART = [
    ("wire_grant_placed", "reads", 2),
    ("wire_transfer_begun", "writes", 2),
    ("wire_transfer_told", "writes", 2),
]


def main(argv: list[str]) -> None:
    """Let it die at all of them, or at some."""
    print("begun", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder), RdmaHosts(Path(folder)))
        try:
            for point, scene, count in PART if argv == ["part"] else BY_DEVICES:
                die(stage, point, scene, count)
                print(f"{point} at {scene}: survived", flush=True)
        finally:
            stage.end()
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

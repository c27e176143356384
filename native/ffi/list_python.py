"""Print the files of the Python packages, one a line, relative to the source tree: what the wheel holds beside C."""

import sys
from pathlib import Path

PACKAGES = ("ffverbs", "etcd_registry", "router")
SUFFIXES = {".py", ".pyi", ".typed"}
# A step of the build, and what it makes: `make build` puts that into the tree, meson installs its own.
NOT_LISTED = {"generate_stubs.py", "rpc_pb2.py", "rpc_pb2.pyi"}


def main() -> None:
    """List the files of every package under the source root given as the only argument."""
    root = Path(sys.argv[1])
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in SUFFIXES and path.name not in NOT_LISTED:
                print(path.relative_to(root))


if __name__ == "__main__":
    main()

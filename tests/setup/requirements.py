"""Print the requirements that pyproject.toml states for the groups given as arguments, one a line.

`build` stands for the build system's, `runtime` for the project's own; the others are its optional groups.
"""

import sys
import tomllib
from pathlib import Path


def requirements(groups: list[str]) -> list[str]:
    """Return the requirement strings of all `groups`, in their order and without repeats."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    tables = {
        "build": project["build-system"]["requires"],
        "runtime": project["project"]["dependencies"],
        **project["project"]["optional-dependencies"],
    }
    return list(dict.fromkeys(line for group in groups for line in tables[group]))


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1:])))

"""The fast paths' instructions, counted by callgrind, stay within a committed budget.

Counts are the same in every run of one build, so a path that has grown is seen, on any machine and under any load.
FFVERBS_UPDATE_BUDGET=1 writes what is counted as the new budget: commit it with the reason.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BUDGET = HERE / "budget.json"
PROGRAM = HERE.parents[1] / "build" / "plain" / "tests" / "budget" / "fastpath"
# Compilers differ by less.
TOLERANCE = 0.05
DEADLINE_S = 120


def parse(dump: str) -> int:
    """Return the instructions that one dump of callgrind counts."""
    found = re.search(r"^totals: (\d+)$", dump, re.M)
    assert found, "callgrind's dump has no totals"
    return int(found[1])


@pytest.fixture(name="counted", scope="module")
def counted_fixture(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Instructions an operation, by the operation's name."""
    if not shutil.which("valgrind"):
        pytest.skip("valgrind is missing: install Debian's valgrind")
    folder = tmp_path_factory.mktemp("callgrind")
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder / 'dump'}", str(PROGRAM)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert run.returncode == 0, run.stderr
    names = [line.rsplit(" ", 1) for line in run.stdout.splitlines()]
    return {
        name: round(parse((folder / f"dump.{number}").read_text()) / int(operations))
        for number, (name, operations) in enumerate(names, 1)
    }


def test_fast_paths_stay_within_their_budget(counted: dict[str, int]) -> None:
    if os.environ.get("FFVERBS_UPDATE_BUDGET"):
        BUDGET.write_text(json.dumps(counted, indent=1) + "\n", encoding="ascii")
    budget = json.loads(BUDGET.read_text(encoding="ascii"))
    assert counted.keys() == budget.keys()
    over = {name: f"{count}, budget {budget[name]}" for name, count in counted.items()
            if count > budget[name] * (1 + TOLERANCE)}
    assert not over, f"instructions an operation: {over}"


def test_lists_are_cheaper_than_single_posts(counted: dict[str, int]) -> None:
    assert counted["send 8 in lists"] < counted["send 8"]
    assert counted["poll empty"] < counted["write 8"] / 4


def test_an_event_costs_the_same_with_many_queues(counted: dict[str, int]) -> None:
    assert counted["event of 2000 queues"] < counted["event of 1 queue"] * 1.05

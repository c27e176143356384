"""Generated sequences of verbs calls do the same on ffverbs as on real pyverbs over Soft-RoCE, or differ as known."""

import contextlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.lab.differential import run
from tests.lab.differential.compare import Difference, differences
from tests.lab.differential.differences import KNOWN, explain
from tests.lab.differential.themes import THEMES, sequence
from tests.lab.vm import packages

SEQUENCES = 80
LISTED = (run.ROOT / "docs" / "differences.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(packages.unavailable() is not None, reason=f"no machine: {packages.unavailable()}")
def test_as_soft_roce(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = seed % 1_000_000_000
    with contextlib.closing(run.There()) as there:
        tally = run.judge([there], range(first, first + SEQUENCES), tmp_path)
    with capsys.disabled():
        print(f"\nseeds from {first}: {tally}")
    assert not tally.unexplained, str(tally)
    assert tally.agreed > SEQUENCES / 2


def test_a_seed_makes_one_sequence() -> None:
    assert sequence(7) == sequence(7)
    assert sequence(7) != sequence(8)
    assert {sequence(seed)["theme"] for seed in range(500)} == {theme.__name__ for theme, _ in THEMES}


OUTCOME = {
    "results": [None, None, [3, 2]],
    "streams": {"qp0.s": [{"at": 1, "wr_id": 1, "status": 0, "qp": "qp0", "byte_len": 4}]},
    "states": {"qp0": 3},
    "memory": {"mr0": "00010203"},
    "events": [16],
    "undefined": [],
}
CALLS = [{"do": "recv"}, {"do": "send", "wrs": [{"id": 1}]}, {"do": "query"}]


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"results": [None, ["PyverbsRDMAError", 22], [3, 2]]}, "result"),
        ({"streams": {}}, "missing"),
        ({"streams": {"qp0.s": [{"at": 1, "wr_id": 1, "status": 0, "qp": "qp0", "byte_len": 5}]}}, "completion"),
        ({"states": {"qp0": 6}}, "state"),
        ({"memory": {"mr0": "00010204"}}, "memory"),
        ({"events": [16, 16]}, "event"),
    ],
)
def test_every_kind_of_difference_is_seen(changed: dict[str, object], kind: str) -> None:
    made = {"seed": 1, "calls": CALLS}
    assert differences(made, OUTCOME, OUTCOME) == []
    (found,) = differences(made, {**OUTCOME, **changed}, OUTCOME)
    assert found.kind == kind
    assert explain(found, made) is None


def test_what_nobody_promises_is_not_compared() -> None:
    other = {**OUTCOME, "memory": {"mr0": "00010999"}, "undefined": [["mr0", 2, 100]]}
    assert differences({"seed": 1, "calls": CALLS}, OUTCOME, other) == []


def test_a_receive_that_is_not_flushed_is_known() -> None:
    difference = Difference(1, "extra", 0, {}, "qp0.r", {"status": 5}, None)
    found = explain(difference, {"calls": []})
    assert found is not None
    assert found.name == "receive posted in ERR"


def test_what_a_drained_queue_explains() -> None:
    calls: list[dict[str, Any]] = [
        {"do": "modify", "name": "qp0", "state": 4, "values": {}},
        {"do": "send"},
        {"do": "modify", "name": "qp0", "state": 3, "values": {}},
    ]
    late = Difference(1, "extra", 2, {}, "qp0.s", {"status": 0}, None)
    assert explain(late, {"calls": calls}) is not None
    assert explain(late, {"calls": calls[1:]}) is None, "nothing was drained"
    assert explain(replace(late, index=0), {"calls": calls}) is None, "nor was it then"
    assert explain(replace(late, ours=None, theirs={"status": 0}), {"calls": calls}) is None
    refused = Difference(1, "result", 2, calls[2], "modify", None, ["PyverbsRDMAError", 22])
    assert explain(refused, {"calls": calls}) is not None
    assert explain(replace(refused, ours=["PyverbsRDMAError", 22], theirs=None), {"calls": calls}) is None


def test_numbers_that_do_not_fit_concern_their_connection() -> None:
    calls: list[dict[str, Any]] = [
        {"do": "modify", "name": "qp0", "peer": "qp1", "state": 3, "values": {"sq_psn": 7}},
        {"do": "modify", "name": "qp1", "peer": "qp0", "state": 3, "values": {"rq_psn": 5}},
    ]
    lost = Difference(1, "extra", 2, {}, "qp1.r", {"status": 0}, None)
    assert explain(lost, {"calls": calls}) is not None
    assert explain(replace(lost, what="qp2.r"), {"calls": calls}) is None
    calls[1]["values"] = {"rq_psn": 7}
    assert explain(lost, {"calls": calls}) is None


def test_known_differences_are_documented() -> None:
    rows = dict(re.findall(r"^\| ([^|]+) \|.*\| ([^|]+) \|$", LISTED, re.M))
    rows = {name: follows for name, follows in rows.items() if name not in ("what", "---")}
    assert rows == {known.name: known.follows for known in KNOWN}

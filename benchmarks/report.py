"""The report: a table for each placement of the cores, and one of what idle and many queue pairs cost."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.claims import ALL_SUBJECTS
from benchmarks.targets import ENOUGH_SAMPLES, ONE_LINE, TWO_LINES, Judged, Target, Verdict

LABELS: Final = {subject.name: subject.label for subject in ALL_SUBJECTS} | {
    ONE_LINE: "bare hand-over of a cache line",
    TWO_LINES: "bare hand-over, two lines",
}
UNITS: Final = {subject.name: subject.unit for subject in ALL_SUBJECTS} | {ONE_LINE: "ns", TWO_LINES: "ns"}


def quantity(value: float, unit: str) -> str:
    """Return a value with its unit, scaled for reading."""
    if unit == "ns":
        return f"{value:.0f} ns" if value < 10_000 else f"{value / 1e3:.1f} us"
    if unit == "B/s":
        return f"{value / 1e9:.1f} GB/s"
    if unit == "ns/B":
        return f"{value:.3f} ns/B"
    if unit == "msg/s":
        return f"{value / 1e6:.1f} M/s"
    raise ValueError(f"no scale for the unit {unit!r}")


def verdict_text(is_reached: bool | None) -> str:
    """Return the mark of a target in rich's markup."""
    if is_reached is None:
        return "[dim]shown only"
    return "[green]reached" if is_reached else "[red]not reached"


def _target_text(judged: Judged) -> str:
    if judged.bound is None:
        return judged.note
    sign = "at most" if judged.is_ceiling else "at least"
    return f"{sign} {judged.bound:.3g}" + (f" ({judged.note})" if judged.note else "")


def placement_table(verdict: Verdict) -> Table:
    """Return the ratios measured while the cores were placed so."""
    title = f"cores with a hand-over of {verdict.placement.handover_ns:.0f} ns"
    table = Table("measured", "value", "against", "value", "ratio", "target", "verdict", title=title)
    for judged in verdict.judged:
        own = quantity(judged.own_value, UNITS[judged.own])
        peer = quantity(judged.peer_value, UNITS[judged.peer])
        names = LABELS[judged.own], LABELS[judged.peer]
        end = f"{judged.ratio:.2f}", _target_text(judged), verdict_text(judged.is_reached)
        table.add_row(names[0], own, names[1], peer, *end)
    return table


def resources_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return what was measured beside speed."""
    table = Table("measured", "value", "target", "verdict", title="idle and many")
    for row in rows:
        table.add_row(row["label"], row["text"], row["target"], verdict_text(row["is_reached"]))
    return table


def show(
    console: Console,
    verdicts: Sequence[Verdict],
    resources: Sequence[Mapping[str, Any]],
    failures: Mapping[str, str],
) -> None:
    """Print everything; what could not be measured comes last, with the reason."""
    for verdict in verdicts:
        if verdict.judged:
            console.print(placement_table(verdict))
    if resources:
        console.print(resources_table(resources))
    for name, reason in failures.items():
        console.print(f"[yellow]not measured:[/] {LABELS.get(name, name)}: ", end="")
        console.print(reason, markup=False, highlight=False)


def show_not_judged(console: Console, targets: Sequence[Target]) -> None:
    """Print the targets of which there were too few samples in any one placement of the cores."""
    for target in targets:
        names = f"{LABELS[target.own]} against {LABELS[target.peer]}"
        console.print(f"[yellow]not judged:[/] {names}: fewer than {ENOUGH_SAMPLES} samples while the cores stayed")
    if targets:
        console.print("The machine is busy, or moves its cores about: run again, with more --minutes and --max-rounds.")

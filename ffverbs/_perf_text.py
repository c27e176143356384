"""A report of `ffverbs perf` for people: a table, and a histogram of the latencies."""

import math
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

__all__ = ["print_report"]

_BINS: Final = 16
_BAR_COLUMNS: Final = 44
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


def _scaled(value: float, unit: str, steps: tuple[tuple[float, str], ...]) -> str:
    """Return the value with three digits and the prefix of the largest step that it reaches."""
    for step, prefix in steps:
        if value >= 0.9995 * step:
            digits = max(2 - int(math.log10(value / step * 1.0005)), 0)
            return f"{value / step:.{digits}f} {prefix}{unit}"
    return f"{value:.0f} {unit}"


def format_ns(nanoseconds: float) -> str:
    """Return a time with three digits and a fitting unit."""
    return _scaled(nanoseconds / 1e9, "s", ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n")))


def format_rate(per_second: float, unit: str) -> str:
    """Return a rate with three digits and a decimal prefix, e.g. 12.3 GB/s."""
    return _scaled(per_second, unit, ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")))


def bins_of(samples_ns: Sequence[float]) -> list[tuple[float, float, int]]:
    """Return (from, to, count) of equal bins up to the 99th percentile; the last bin holds what is beyond it."""
    ordered = sorted(samples_ns)
    low, high = ordered[0], ordered[max(math.ceil(0.99 * len(ordered)) - 1, 0)]
    width = (high - low) / (_BINS - 1) or 1.0
    counts = [0] * _BINS
    for sample in ordered:
        counts[min(int((sample - low) / width), _BINS - 1)] += 1
    edges = [low + width * place for place in range(_BINS)]
    return [
        (edge, edge + width if place < _BINS - 1 else ordered[-1], counts[place]) for place, edge in enumerate(edges)
    ]


def _bar(count: int, most: int) -> str:
    eighths = round(8 * _BAR_COLUMNS * count / most) if most else 0
    if count and not eighths:
        eighths = 1
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


def _histogram(samples_ns: Sequence[float]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(justify="right")
    table.add_column(justify="right", style="dim")
    table.add_column(no_wrap=True, style="cyan")
    rows = bins_of(samples_ns)
    most = max(count for _, _, count in rows)
    for place, (low, _, count) in enumerate(rows):
        label = format_ns(low) if place < len(rows) - 1 else f"≥ {format_ns(low)}"
        table.add_row(label, str(count), _bar(count, most))
    return table


def print_report(console: Console, report: dict[str, Any], samples_ns: Sequence[float]) -> None:
    """Print a report (see Report.as_dict()), and the histogram of the samples if there are any."""
    loop = {"c": "C loop", "python": "Python loop"}[report["loop"]]
    checked = ", data checked" if report["checked"] else ""
    events = ", by events" if report["events"] else ""
    console.print(
        f"[bold]{report['test']}[/bold]  {report['size_bytes']} bytes, {report['iters']} iterations, {loop}, "
        f"send queue of {report['tx_depth']}, lists of {report['post_list']}{events}{checked}",
        highlight=False,
        soft_wrap=True,
    )
    latency = report["latency_ns"]
    if latency is None:
        bandwidth, rate = report["bandwidth_bytes_per_s"], report["message_rate_per_s"]
        console.print(f"{format_rate(bandwidth, 'B/s')}   {format_rate(rate, 'messages/s')}", highlight=False)
        return
    table = Table()
    for name in latency:
        table.add_column(name, justify="right")
    table.add_row(*(format_ns(value) for value in latency.values()))
    console.print(table)
    if samples_ns and console.is_terminal:
        console.print(_histogram(samples_ns))

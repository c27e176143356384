"""FreeFlow's Figures 1 and 7, drawn with the paper's axes from what the sweep found (Figure 3: offered.py)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import figures

# Figure 1: the modes, in the paper's order, and at which size: large messages for throughput, small ones for latency.
MODES: Final = (
    ("bridge", "overlay"),
    ("tcp", "host mode"),
    ("ucx_posix", "shared memory\n(UCX)"),
    ("ffverbs_c_events", "ffverbs,\nasleep on events"),
    ("ffverbs_c", "ffverbs"),
)
LEAST_LARGE_BYTES: Final = 256 << 10
MOST_SMALL_BYTES: Final = 64

# Figure 7: ffverbs against the overlay of the same place.
PLACES: Final = (
    ("one host", (("ffverbs_c", "ffverbs"), ("bridge", "overlay (bridge)"))),
    ("two hosts", (("ffverbs_hosts", "ffverbs (asleep on events)"), ("vxlan", "overlay (VXLAN)"))),
)


def _values(content: Mapping[str, Any], mode: str, field: str) -> dict[int, float]:
    points = (p for p in content["points"] if p["mode"] == mode and p[field] is not None)
    return {p["size_bytes"]: p[field] for p in sorted(points, key=lambda p: p["size_bytes"])}


def bars(content: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Return what Figure 1 shows: label, throughput in Gbit/s, latency in us; modes without either are left out."""
    found = []
    for mode, label in MODES:
        rates = [v for size, v in _values(content, mode, "bytes_per_s").items() if size >= LEAST_LARGE_BYTES]
        latencies = [v for size, v in _values(content, mode, "p50_ns").items() if size <= MOST_SMALL_BYTES]
        if rates and latencies:
            found.append((label, max(rates) * 8e-9, latencies[-1] * 1e-3))
    return found


def _figure_1(pyplot: Any, content: Mapping[str, Any], path: Path) -> bool:
    found = bars(content)
    if not found:
        return False
    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    labels = [label for label, _, _ in found]
    titles = ("throughput (Gbit/s), the best of large messages", "latency (us), one way, 64 B or the next smaller")
    for which, (axes, title) in enumerate(zip(panels, titles, strict=True)):
        drawn = axes.bar(labels, [row[1 + which] for row in found], color=["C7", "C7", "C1", "C0", "C0"][: len(found)])
        axes.bar_label(drawn, fmt="%.3g", fontsize="small")
        axes.set(ylabel=title, yscale="log" if which else "linear")
        axes.tick_params(axis="x", labelsize="small")
        axes.margins(y=0.12)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return True


def _figure_7(pyplot: Any, content: Mapping[str, Any], path: Path) -> bool:
    figure, panels = pyplot.subplots(2, 2, figsize=(11, 7), layout="constrained", sharex=True)
    rows: Sequence[tuple[str, str, float]] = (
        ("bytes_per_s", "throughput (Gbit/s)", 8e-9),
        ("p50_ns", "latency (us), one way", 1e-3),
    )
    drawn = False
    for column, (place, lines) in enumerate(PLACES):
        for row, (field, title, scale) in enumerate(rows):
            axes = panels[row][column]
            for mode, label in lines:
                values = _values(content, mode, field)
                style = {"linewidth": 2.5} if mode.startswith("ffverbs") else {"linestyle": "--"}
                axes.plot(list(values), [v * scale for v in values.values()], marker="o", label=label, **style)
                drawn = drawn or bool(values)
            axes.set(xscale="log", yscale="log", ylabel=title, title=place if not row else None)
            axes.grid(True, alpha=0.3)
            axes.legend(fontsize="small")
    sizes = sorted({p["size_bytes"] for p in content["points"]})
    for axes in panels[1]:
        axes.set(xlabel="message size")
        axes.set_xticks(sizes, [figures.size_text(size) for size in sizes], rotation=45)
        axes.minorticks_off()
    if drawn:
        figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return drawn


def draw(content: Mapping[str, Any], folder: Path) -> list[str]:
    """Draw what the sweep's content suffices for and return the files' names; none without matplotlib."""
    pyplot = figures.plotting()
    if pyplot is None:
        return []
    drawings = {"figure1.png": _figure_1, "figure7.png": _figure_7}
    return [name for name, drawing in drawings.items() if drawing(pyplot, content, folder / name)]

"""What the sweep found, as tables in Markdown and as plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

OURS: Final = "ffverbs_c"


@dataclass(frozen=True)
class Quantity:
    """A column of the sweep; `scale` turns it into what is shown."""

    field: str
    title: str
    unit: str
    scale: float


QUANTITIES: Final = (
    Quantity("p50_ns", "Latency, one way, median", "us", 1e-3),
    Quantity("p99_ns", "Latency, one way, 99th percentile", "us", 1e-3),
    Quantity("p999_ns", "Latency, one way, 99.9th percentile", "us", 1e-3),
    Quantity("bytes_per_s", "Throughput", "GB/s", 1e-9),
    Quantity("cpu_ns_per_byte", "Processor time of both ends", "ns/B", 1.0),
)
PLOTS: Final = {"p50_ns": "latency.png", "bytes_per_s": "throughput.png", "cpu_ns_per_byte": "cpu.png"}


def size_text(size_bytes: int) -> str:
    """Return a size as people write it."""
    for unit, step in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size_bytes >= step and size_bytes % step == 0:
            return f"{size_bytes // step} {unit}"
    return f"{size_bytes} B"


def number_text(value: float) -> str:
    """Return a number to about three digits, without an exponent."""
    for least, digits in ((100, 0), (10, 1), (1, 2)):
        if value >= least:
            return f"{value:.{digits}f}"
    return f"{float(f'{value:.3g}'):.9f}".rstrip("0")


def values(content: Mapping[str, Any], field: str) -> dict[str, dict[int, float]]:
    """Return the values of a field by mode and size; modes without any are left out."""
    found: dict[str, dict[int, float]] = {}
    for point in content["points"]:
        if point[field] is not None:
            found.setdefault(point["mode"], {})[point["size_bytes"]] = point[field]
    return found


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def _table(content: Mapping[str, Any], quantity: Quantity) -> str:
    found = values(content, quantity.field)
    if not found:
        return ""
    sizes = sorted({size for by_size in found.values() for size in by_size})
    text = f"\n## {quantity.title} ({quantity.unit})\n\n"
    text += _row(["", *(size_text(size) for size in sizes)]) + _row(["---", *("---:" for _ in sizes)])
    for mode, by_size in found.items():
        cells = (number_text(by_size[s] * quantity.scale) if s in by_size else "" for s in sizes)
        text += _row([content["labels"][mode], *cells])
    return text


def _ratios(content: Mapping[str, Any], quantity: Quantity, base: str) -> str:
    others = values(content, quantity.field)
    ours = others.pop(base, {})
    if not ours or not others:
        return ""
    text = f"\n{quantity.title}, {content['labels'][base]} as a ratio to:\n\n"
    text += _row(["", *map(size_text, sorted(ours))]) + _row(["---", *("---:" for _ in ours)])
    for mode, by_size in others.items():
        cells = (number_text(ours[s] / by_size[s]) if by_size.get(s) else "" for s in sorted(ours))
        text += _row([content["labels"][mode], *cells])
    return text


def headline(content: Mapping[str, Any]) -> str:
    """Return where and when it was measured."""
    machine = content["machine"]
    return f"{machine['cpu']}, Linux {machine['kernel']}, Python {machine['python']}, {content['when']}"


def plotting() -> Any:
    """Return matplotlib's pyplot, drawing into files; None without matplotlib."""
    try:
        import matplotlib  # noqa: PLC0415 - only plots need it

        matplotlib.use("Agg")
        from matplotlib import pyplot  # noqa: PLC0415
    except ImportError:
        return None
    return pyplot


def markdown(
    content: Mapping[str, Any], title: str = "Message sizes: ffverbs and its peers on one host", base: str = OURS
) -> str:
    """Return every quantity as a table, with ratios of the mode `base` under latency, throughput and processor time."""
    text = f"# {title}\n\n"
    text += f"{headline(content)}; cores {content['cpus']}. Medians over the repetitions of one run.\n"
    for quantity in QUANTITIES:
        text += _table(content, quantity)
        if quantity.field in PLOTS:
            text += _ratios(content, quantity, base)
    for name, reason in content["not_measured"].items():
        text += f"\nNot measured: {content['labels'][name]}: {reason}\n"
    return text


def draw(content: Mapping[str, Any], folder: Path) -> list[str]:
    """Draw each quantity of PLOTS against message size and return the files' names; none without matplotlib."""
    pyplot = plotting()
    if pyplot is None:
        return []
    names = []
    for quantity in QUANTITIES:
        found = values(content, quantity.field)
        if quantity.field not in PLOTS or not found:
            continue
        figure, axes = pyplot.subplots(figsize=(10, 5), layout="constrained")
        axes.set_prop_cycle(color=pyplot.get_cmap("tab20").colors)  # more modes than the usual ten
        for mode, by_size in found.items():
            sizes = sorted(by_size)
            style = {"linewidth": 2.5} if mode.startswith("ffverbs") else {"linewidth": 1.2, "linestyle": "--"}
            axes.plot(sizes, [by_size[s] * quantity.scale for s in sizes], marker="o", markersize=3,
                      label=content["labels"][mode], **style)
        axes.set(xscale="log", yscale="log", xlabel="message size", ylabel=f"{quantity.title} ({quantity.unit})")
        ticks = sorted({size for by_size in found.values() for size in by_size})
        axes.set_xticks(ticks, [size_text(size) for size in ticks], rotation=45)
        axes.minorticks_off()
        axes.grid(True, which="major", alpha=0.3)
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
        figure.savefig(folder / PLOTS[quantity.field], dpi=110)
        pyplot.close(figure)
        names.append(PLOTS[quantity.field])
    return names

"""Where the two cores are: the cost of a bare cache-line hand-over, measured before and after every sample.

On a virtual machine the hypervisor moves the cores: for seconds or minutes they share a cache, then they do not, and
every latency changes four-fold. Numbers of two placements must not be compared, so each sample is bracketed by two
probes, a sample during which the placement changed is dropped, and ratios are taken within one placement.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks import programs

# Probes within one placement differ by less than this; the placements seen differ by three times and more.
SPREAD: Final = 2.2
# Hand-overs in a probe: some 10 ms, so that it disturbs little and still takes the median of five batches.
PROBE_BATCHES: Final = 5
PROBE_ITERS: Final = 4000


@dataclass(frozen=True)
class Probe:
    """One-way ns of a hand-over: of one line that both write, and of two lines, one for each direction."""

    one_line_ns: float
    two_lines_ns: float


@dataclass(frozen=True)
class Placement:
    """A range of one-line hand-over times that belong together."""

    low_ns: float
    high_ns: float
    handover_ns: float

    def holds(self, probe: Probe) -> bool:
        """Tell whether the cores were so placed when `probe` was taken."""
        return self.low_ns <= probe.one_line_ns <= self.high_ns


def probe(cpus: str) -> Probe:
    """Measure the hand-over between the two cores `cpus` ("0,1")."""
    counts = ["--batches", str(PROBE_BATCHES), "--iters", str(PROBE_ITERS)]
    result = programs.run_json([programs.limits(), "handover", "--cpus", cpus, *counts], timeout_s=30)
    return Probe(float(result["one_line_ns"]), float(result["two_lines_ns"]))


def placements(probes: Sequence[Probe]) -> list[Placement]:
    """Group the probes so that the slowest of a group is at most SPREAD times its fastest; fastest group first.

    Not by gaps between neighbours: a few probes that something else disturbed would join two placements.
    """
    groups: list[list[float]] = []
    for value in sorted(p.one_line_ns for p in probes):
        if groups and value <= groups[-1][0] * SPREAD:
            groups[-1].append(value)
        else:
            groups.append([value])
    return [Placement(group[0], group[-1], statistics.median(group)) for group in groups]

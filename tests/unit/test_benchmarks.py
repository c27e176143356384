"""The sweep's arithmetic and its report; what it measures is not judged here."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import claims, figures, micro_ratios, offered, paper, programs, rdma, scaling, sweep, targets
from benchmarks.modes import Latency, Mode
from benchmarks.placement import Probe
from benchmarks.programs import NotMeasuredError
from benchmarks.subjects import Setup
from benchmarks.timebox import TimeBox

SETUP = Setup("ffverbs", "0,1")


def point(mode: str, size_bytes: int, p50_ns: float | None, rate: float | None = None) -> sweep.Point:
    return sweep.Point(mode, size_bytes, p50_ns, None, None, rate, None, 50.0)


def content(points: list[sweep.Point]) -> dict[str, Any]:
    return {
        "when": "now",
        "machine": {"cpu": "a processor", "kernel": "6", "python": "3"},
        "cpus": "0,1",
        "labels": {"ffverbs_c": "ffverbs", "tcp": "TCP", "zmq": "ZeroMQ"},
        "points": [vars(each) for each in points],
        "not_measured": {"zmq": "zmq is missing"},
    }


def test_medians_are_taken_by_mode_and_size() -> None:
    samples = [point("tcp", 8, p50_ns) for p50_ns in (3.0, 9.0, 4.0)] + [point("tcp", 64, 7.0), point("zmq", 8, None)]
    found = {(each.mode, each.size_bytes): each.p50_ns for each in sweep.medians(samples)}
    assert found == {("tcp", 8): 4.0, ("tcp", 64): 7.0, ("zmq", 8): None}


def test_a_test_sends_as_much_as_fits_its_time() -> None:
    assert sweep._count(1e-3, 8) == pytest.approx(300, abs=1)
    assert sweep._count(10.0, 8) == 64
    assert sweep._count(0, 1 << 21) * (1 << 21) <= sweep.MOST_STREAM_BYTES


def test_the_table_shows_values_ratios_and_what_is_missing() -> None:
    text = figures.markdown(content([point("ffverbs_c", 8, 100.0, 2e9), point("tcp", 8, 20000.0, 1e9)]))
    assert "| ffverbs | 0.1 |" in text and "| TCP | 20.0 |" in text
    assert "| TCP | 0.005 |" in text  # 100 ns to 20 us
    assert "| TCP | 2.00 |" in text  # throughput
    assert "99th percentile" not in text
    assert "Not measured: ZeroMQ: zmq is missing" in text


@pytest.mark.parametrize(("size_bytes", "text"), [(8, "8 B"), (4096, "4 KiB"), (3 << 20, "3 MiB"), (1500, "1500 B")])
def test_sizes_are_written_as_people_do(size_bytes: int, text: str) -> None:
    assert figures.size_text(size_bytes) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (6820.0, "6820"), (38.7, "38.7"), (1.0, "1.00"), (0.5, "0.5"), (0.2864, "0.286"), (0.004983, "0.00498"),
        (2e-6, "0.000002"),
    ],
)  # fmt: skip
def test_numbers_have_no_exponents(value: float, text: str) -> None:
    assert figures.number_text(value) == text


def test_plots_are_drawn_where_there_is_something_to_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib (the `bench` requirements)")
    names = figures.draw(content([point("tcp", 8, 1.0), point("tcp", 64, 2.0)]), tmp_path)
    assert names == ["latency.png"]
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")


def test_a_mode_that_cannot_be_measured_is_reported_and_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def measure(mode: Mode, setup: Setup, size_bytes: int) -> sweep.Point:
        tries.append((mode.name, size_bytes))
        if mode.name == "bad":
            raise NotMeasuredError("it is missing")
        return point(mode.name, size_bytes, 1.0)

    monkeypatch.setattr(sweep, "measure", measure)
    modes = [Mode(name, name, lambda *_: Latency(1.0), None, 0, 1) for name in ("bad", "good")]
    points, failures = sweep.run(modes, SETUP, [8, 64], 2, Console(quiet=True), TimeBox(None))
    assert failures == {"bad": "it is missing"}
    assert [each.size_bytes for each in points] == [8, 64, 8, 64]
    assert tries.count(("bad", 8)) == 1 and ("bad", 64) not in tries


def test_repetitions_are_left_out_when_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "measure", lambda mode, setup, size_bytes: point(mode.name, size_bytes, 1.0))
    modes = [Mode(name, name, lambda *_: Latency(1.0), None, 0, 1) for name in ("one", "two")]
    points, _ = sweep.run(modes, SETUP, [1, 2, 3, 4, 5], 3, Console(quiet=True), TimeBox(0))
    # Everything once, but for sizes between those that were measured.
    assert [(each.mode, each.size_bytes) for each in points] == [(m, n) for n in (1, 5, 3) for m in ("one", "two")]
    assert not TimeBox(1000).is_spent() and not TimeBox(None).is_spent()


def test_a_program_ends_with_who_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told to end meanwhile: the program, which has a session of its own, is not left behind."""

    def interrupted(process: "subprocess.Popen[str]", *_: object, **__: object) -> tuple[str, str]:
        started.append(process)
        raise KeyboardInterrupt

    started: list[subprocess.Popen[str]] = []
    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        programs.run(["sleep", "600"])
    (process,) = started
    assert process.returncode == -signal.SIGKILL


def test_sizes_are_measured_from_coarse_to_fine() -> None:
    assert sweep.coarse_to_fine([1, 2, 3, 4, 5, 6, 7]) == [1, 7, 4, 2, 5, 3, 6]
    assert sweep.coarse_to_fine([8]) == [8] and sweep.coarse_to_fine([8, 64]) == [8, 64]


def samples_of(subject: str, count: int, value: float = 10.0) -> list[targets.Sample]:
    near = Probe(40.0, 60.0)
    return [targets.Sample(subject, value, near, near, {})] * count


def test_targets_with_too_few_samples_are_named() -> None:
    samples = samples_of("send_lat_8", 3) + samples_of("ucx_tag_lat_8", 2) + samples_of("write_lat_8", 1)
    verdicts = targets.judge(samples)
    missing = targets.not_judged(verdicts, {"send_lat_8", "ucx_tag_lat_8", "write_lat_8"})
    assert [(each.own, each.peer) for each in missing] == [("send_lat_8", "ucx_tag_lat_8")]
    (verdict,) = verdicts
    assert {each.peer for each in verdict.judged} == {targets.ONE_LINE, targets.TWO_LINES}


def test_points_of_rdma_are_medians_and_are_drawn(tmp_path: Path) -> None:
    samples = [
        vars(rdma.Point(mode, 64, p50_ns=ns, bytes_per_s=rate))
        for mode, ns, rate in (("raw", 3.0, None), ("raw", 5.0, 2e6), ("raw", 4.0, None), ("tcp", 9.0, 1e6))
    ]
    points = rdma.merged(samples)
    assert [(each["mode"], each["p50_ns"], each["bytes_per_s"]) for each in points] == [
        ("raw", 4.0, 2e6),
        ("tcp", 9.0, 1e6),
    ]
    text = figures.markdown({**content([]), "points": points, "labels": rdma.LABELS, "not_measured": {}}, "RDMA", "tcp")
    assert text.startswith("# RDMA\n") and "| raw Soft-RoCE (perftest) | 2.25 |" in text
    pytest.importorskip("matplotlib", reason="plots need matplotlib (the `bench` requirements)")
    assert rdma.draw({"points": points, "labels": rdma.LABELS}, tmp_path) == ["rdma.png"]


def test_a_way_that_fails_in_the_machine_leaves_the_others() -> None:
    point_told = '{"mode": "raw", "size_bytes": 64}'
    lines = [f"{rdma.RESULT}{point_told}", f"{rdma.FAILED}rdma: a server: it ended", "Traceback", "DONE 0 tcp"]
    assert rdma.told("\n".join(lines)) == ([json.loads(point_told)], {"rdma": "a server: it ended"})


def test_scaling_takes_the_median_of_the_best_and_compares_with_the_fewest() -> None:
    runs = [("keys", 16, 80.0), ("keys", 16, 90.0), ("keys", 16, 100.0), ("keys", 1000, 99.0)]
    samples = [{"test": test, "count": count, "best_ns": best} for test, count, best in runs]
    medians = scaling.summarise(samples)
    assert medians == {"keys": {16: 90.0, 1000: 99.0}}
    what = {**content([]), "medians": medians, "titles": {"keys": "keys there"}}
    text = scaling.markdown(what)
    assert "| 1000 | 99.0 | 1.10 |" in text
    assert "Not measured: zmq: zmq is missing" in text


def test_what_targets_compare_is_measured() -> None:
    names = [subject.name for subject in claims.ALL_SUBJECTS]
    assert len(names) == len(set(names))
    known = {*names, targets.ONE_LINE, targets.TWO_LINES}
    assert {name for target in targets.TARGETS for name in (target.own, target.peer)} <= known
    units = {subject.name: subject.unit for subject in claims.ALL_SUBJECTS}
    for target in targets.TARGETS:
        assert units.get(target.own, "ns") == units.get(target.peer, "ns")


def offers() -> dict[str, Any]:
    runs = [(1.0, 1.0, 0.1), (10.0, 8.0, 0.9), (10.0, 9.0, 1.1), (10.0, 9.5, 1.0)]
    names = ("offered_gbit_per_s", "gbit_per_s", "cores")
    samples = [{"way": "tcp", **dict(zip(names, run, strict=True))} for run in runs]
    return {**content([]), "labels": {"tcp": "TCP"}, "points": offered._points(samples)}


def test_offered_load_is_the_median_of_each_load() -> None:
    assert "| TCP | 10 | 9.00 | 1.00 |" in offered.markdown(offers())


def test_figure_1_is_of_modes_with_both_a_large_and_a_small_message() -> None:
    points = [point("tcp", 64, 5000.0), point("tcp", 1 << 20, None, 1.25e9), point("bridge", 64, 9000.0)]
    ((label, gbit_per_s, latency_us),) = paper.bars(content(points))
    assert label == "host mode"
    assert gbit_per_s == pytest.approx(10.0)
    assert latency_us == pytest.approx(5.0)


def test_the_papers_figures_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    points = [point(mode, size, 5.0, 1e9) for mode in ("tcp", "ffverbs_c", "vxlan") for size in (64, 1 << 20)]
    names = [*paper.draw(content(points), tmp_path), *offered.draw(offers(), tmp_path)]
    assert names == ["figure1.png", "figure7.png", "figure3.png"]
    assert all((tmp_path / name).stat().st_size > 1000 for name in names)


def save_run(folder: Path, number: int, least_ns: dict[str, float]) -> None:
    benchmarks = [{"name": name, "stats": {"min": ns * 1e-9}} for name, ns in least_ns.items()]
    (folder / "machine").mkdir(exist_ok=True)
    (folder / "machine" / f"{number:04}.json").write_text(json.dumps({"benchmarks": benchmarks}))


def test_microbenchmarks_are_compared_in_empty_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro_ratios, "BASELINE", tmp_path / "baseline.json")
    save_run(tmp_path, 1, {"test_empty_call": 50.0, "test_post": 160.0})
    save_run(tmp_path, 2, {"test_empty_call": 55.0, "test_post": 150.0})
    assert micro_ratios.main([str(tmp_path), "--update"]) == 0
    assert json.loads((tmp_path / "baseline.json").read_text()) == {"test_post": 3.0}
    # A slower machine, and 20 % more.
    save_run(tmp_path, 3, {"test_empty_call": 100.0, "test_post": 360.0, "test_new": 1.0})
    assert micro_ratios.main([str(tmp_path), "--worse", "25"]) == 0
    assert micro_ratios.main([str(tmp_path), "--worse", "15"]) == 1
    assert micro_ratios.change({"a": 3.6, "new": 1.0}, {"a": 3.0, "old": 2.0}) == {"a": pytest.approx(0.2)}


def test_a_run_without_an_empty_call_is_turned_away(tmp_path: Path) -> None:
    save_run(tmp_path, 1, {"test_post": 160.0})
    with pytest.raises(ValueError, match="test_empty_call"):
        micro_ratios.main([str(tmp_path)])


def test_the_committed_baseline_is_of_microbenchmarks() -> None:
    baseline = json.loads(micro_ratios.BASELINE.read_text(encoding="ascii"))
    sources = "".join(path.read_text() for path in micro_ratios.BASELINE.parent.glob("test_*.py"))
    assert baseline and all(value > 0 for value in baseline.values())
    assert all(f"def {name.split('[')[0]}(" in sources for name in baseline)

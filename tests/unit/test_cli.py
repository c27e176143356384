"""The command line: what it accepts, refuses and prints."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ffverbs import _perf_text, _status
from ffverbs._perf import PerfError, Settings, latency_summary
from ffverbs.cli import main
from ffverbs.device import Context

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_help_does_not_load_the_engine() -> None:
    code = (
        "import sys; sys.argv = ['ffverbs', '--help']\n"
        "from ffverbs.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    assert 'ffverbs._native' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 0, ran.stderr
    assert all(command in ran.stdout for command in ("devinfo", "perf", "status"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["perf", "send_speed"], "send_speed"),
        (["perf", "send_lat", "--size", "12Q"], "'12Q' is no number of bytes"),
        (["perf", "send_lat", "--local", "--cpus", "1"], "does not name two processors"),
        (["perf", "send_lat", "--local", "host"], "leave SERVER out"),
        (["perf", "send_lat", "--cpus", "0,1"], "--cpus is for --local"),
    ],
)
def test_wrong_command_lines(arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["devinfo", "mlx5_0"], "there is no device mlx5_0: there is ffv0"),
        (["perf", "send_lat", "--local", "--iters", "0"], "iters is 0: it must be at least 1"),
        (["perf", "send_bw", "--local", "-l", "8", "-t", "4"], "lists of 8 requests do not fit into a send queue of 4"),
        (["perf", "atomic_lat", "--local", "--size", "16"], "an atomic has 8 bytes, not 16"),
        (["perf", "write_lat", "--local", "--events"], "a write raises no event at the far end"),
        (["perf", "send_lat", "--local", "--cpus", "0,4095"], "processors 0,4095: name two of"),
        (["perf", "send_lat", "unix:/nonexistent/socket"], "no server at unix:/nonexistent/socket"),
        (["perf", "send_lat", "--bind", "unix:/nonexistent/socket"], "cannot listen at unix:/nonexistent/socket"),
        (["status", "--dir", "/nonexistent/directory"], "/nonexistent/directory"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert result.output.startswith("Error: ")
    assert said in result.output
    assert "Traceback" not in result.output


def test_devinfo() -> None:
    devices = json.loads(run("devinfo", "--json").output)
    assert [device["name"] for device in devices] == ["ffv0"]
    (port,) = devices[0]["ports"]
    assert port["link_layer"] == "Ethernet"
    assert [gid["index"] for gid in port["gids"]] == [0, 1]
    assert port["gids"][1]["gid"].startswith("0000:0000:0000:0000:0000:ffff:")
    assert devices[0]["limits"]["max_qp"] > 0
    brief, full = run("devinfo", "ffv0").output, run("devinfo", "-v").output
    assert port["gids"][0]["gid"] in brief
    assert "max_qp_wr" not in brief
    assert "max_qp_wr" in full


def test_status_of_an_empty_directory(node_directory: Path) -> None:
    found = json.loads(run("status", "--json").output)
    assert found.pop("time") > 0
    assert found == {"directory": str(node_directory), "contexts": [], "router": None}
    assert "no context is open" in run("status").output


def test_status_shows_open_contexts(node_directory: Path) -> None:
    with Context(name="ffv0") as first, Context(name="ffv0"):
        found = json.loads(run("status", "--json").output)
        assert found["directory"] == str(node_directory)
        assert len(found["contexts"]) == 2
        assert len({context["qpn_first"] for context in found["contexts"]}) == 2
        gids = {str(first.query_gid(1, index)) for index in (0, 1)}
        for context in found["contexts"]:
            assert context["pid"] == os.getpid()
            assert context["gid"] in gids
            assert context["num_qp"] == 0
            assert context["qps"] == []
        assert "contexts" in run("status").output
    assert json.loads(run("status", "--json").output)["contexts"] == []


def test_settings_have_perftests_defaults() -> None:
    assert Settings.of("send_lat").iters == 1000
    assert Settings.of("send_lat").size_bytes == 2
    assert Settings.of("write_bw").iters == 5000
    assert Settings.of("read_bw").size_bytes == 65536
    assert Settings.of("atomic_lat").size_bytes == 8
    assert Settings.of("send_bw", post_list=256).tx_depth == 256


def test_unknown_test_is_named() -> None:
    with pytest.raises(PerfError, match="there is no test 'send_speed': choose one of send_lat"):
        Settings.of("send_speed")


def test_latency_summary_is_nearest_rank() -> None:
    summary = latency_summary([float(value) for value in range(1000, 0, -1)])
    assert summary == {"min": 1, "p50": 500, "mean": 500.5, "p90": 900, "p99": 990, "p99.9": 999, "max": 1000}
    assert set(latency_summary([7.0]).values()) == {7.0}


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 s"),
        (7, "7.00 ns"),
        (99.96, "100 ns"),
        (999.9, "1.00 µs"),
        (12345, "12.3 µs"),
        (5e6, "5.00 ms"),
        (2.5e9, "2.50 s"),
    ],
)
def test_times_have_fitting_units(nanoseconds: float, text: str) -> None:
    assert _perf_text.format_ns(nanoseconds) == text


def test_histogram_counts_every_sample() -> None:
    samples = [100.0] * 50 + [110.0] * 45 + [150.0] * 4 + [100000.0]
    bins = _perf_text.bins_of(samples)
    assert sum(count for _, _, count in bins) == len(samples)
    assert bins[0][2] == 50
    assert bins[-1][1] == 100000.0
    assert sum(count for _, _, count in _perf_text.bins_of([5.0, 5.0])) == 2


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB")])
def test_byte_counts_have_fitting_units(count: int, text: str) -> None:
    assert _status.format_bytes(count) == text

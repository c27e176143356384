"""What the router's command line refuses before it does anything."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from router.cli import main, parse_rate


@pytest.mark.parametrize("value", ["", "-1", "fast", "1.5M", "10T", "1001G", "1000001M", "9" * 13])
def test_a_rate_that_makes_no_sense_is_refused(tmp_path: Path, value: str) -> None:
    arguments = ["--dir", str(tmp_path), "--host-ip", "127.0.0.1", "--registry", f"static:{tmp_path}/none"]
    result = CliRunner().invoke(main, [*arguments, "--tenant-rate", value])
    assert result.exit_code == 2
    assert "--tenant-rate" in result.output and "125M" in result.output


@pytest.mark.parametrize(
    ("value", "rate"),
    [("0", 0), ("9", 9), ("2K", 2000), ("125M", 125 * 10**6), ("1000G", 10**12), ("1000000M", 10**12)],
)
def test_rates_are_bytes_a_second(value: str, rate: int) -> None:
    context = click.Context(main)
    assert parse_rate(context, main.params[0], value) == rate

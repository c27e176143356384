"""The systemd unit starts the router with options that there are."""

import re
import shlex
from pathlib import Path

from click.testing import CliRunner

from router.cli import main

UNIT = Path(__file__).parents[2] / "deploy" / "ffverbs-router@.service"


def test_the_unit_uses_options_that_there_are() -> None:
    text = UNIT.read_text(encoding="utf-8")
    lines = re.findall(r"^ExecStart=(.*)$|^#\s+OPTIONS=(.*)$", text, re.M)
    used = {word for line in lines for word in shlex.split("".join(line)) if word.startswith("--")}
    assert {"--dir", "--tenant", "--host-ip", "--registry"} <= used
    known = {option for parameter in main.params for option in parameter.opts}
    assert used <= known, used - known
    assert CliRunner().invoke(main, ["--help"]).exit_code == 0


def test_the_unit_waits_for_the_router_to_drain() -> None:
    text = UNIT.read_text(encoding="utf-8")
    drain = re.search(r"--drain-seconds (\d+)", text)
    stop = re.search(r"^TimeoutStopSec=(\d+)$", text, re.M)
    assert drain and stop and int(drain[1]) < int(stop[1])
    assert "Type=notify" in text  # the router says READY=1

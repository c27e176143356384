"""How long the stress test runs: --stress-seconds."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--stress-seconds", type=float, default=120.0, help="how long tests/crash/test_stress.py runs (default 120)"
    )

"""rdma-core's own tests of pyverbs, version 44, unmodified, on ffverbs: none fails, and more pass than on Soft-RoCE."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ffverbs.device import Context
from tests import huge_pages
from tests.rdma_core import harness

# What Soft-RoCE of Linux 6.1 passes of each module's tests (measured in a virtual machine), and how many there are.
SOFT_ROCE = {
    "test_addr": (3, 3),
    "test_pd": (4, 4),
    "test_device": (13, 22),
    "test_cq": (4, 4),
    "test_cq_events": (2, 2),
    "test_cqex": (4, 5),
    "test_qpex": (17, 20),
    "test_mr": (8, 27),
    "test_qp": (21, 26),
    "test_atomic": (7, 9),
    "test_flow": (0, 5),
    "test_fork": (1, 1),
    "test_rss_traffic": (0, 1),
    "test_relaxed_ordering": (2, 3),
    "test_odp": (0, 17),
    "test_parent_domain": (0, 6),
    "test_shared_pd": (0, 1),
    "test_tag_matching": (0, 4),
    "test_rdmacm": (0, 10),
}
ALL_TESTS, ALL_PASSES, SOFT_ROCE_PASSES = 170, 155, 86
VENDORS = ("mlx5", "efa", "cuda", "hns", "mana")
RESULTS: dict[str, harness.ModuleResult] = {}


@pytest.fixture(name="home", scope="session")
def home_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of rdma-core's tests and the stubs of commands."""
    home = tmp_path_factory.mktemp("rdma-core")
    harness.unpack_tests(home)
    harness.make_stubs(home)
    return home


@pytest.fixture(name="_spare", scope="session")
def spare_fixture() -> Iterator[None]:
    """Huge pages, for the tests that skip without them; where they cannot be had, those skip and say so."""
    with huge_pages.reserved(8):
        yield


@pytest.mark.usefixtures("_spare")
@pytest.mark.timeout(harness.DEADLINE_S + 60)
@pytest.mark.parametrize("module", SOFT_ROCE)
def test_module(module: str, home: Path, node_directory: Path) -> None:
    result = RESULTS[module] = harness.run_module(module, home, node_directory)
    assert result.failures == result.errors == 0, result.output
    assert result.status == 0, f"status {result.status}\n{result.output}"
    passes, total = SOFT_ROCE[module]
    assert result.ran == total, f"{result.ran} tests ran where version 44 has {total}"
    assert result.passed >= passes, result.output
    with Context(name="ffv0"):
        pass  # sweeps the names of processes that a test has killed
    left = sorted(path.name for path in node_directory.iterdir())
    assert not left, f"the node directory still holds {left}"


def test_no_module_is_left_out(home: Path) -> None:
    there = {path.stem for path in (home / "tests").glob("test_*.py")}
    there = {name for name in there if not any(vendor in name for vendor in VENDORS)}
    assert set(SOFT_ROCE) == there
    assert sum(total for _, total in SOFT_ROCE.values()) == ALL_TESTS
    assert sum(passes for passes, _ in SOFT_ROCE.values()) == SOFT_ROCE_PASSES


def test_more_passes_than_soft_roce(capsys: pytest.CaptureFixture[str]) -> None:
    if set(RESULTS) != set(SOFT_ROCE):
        pytest.skip("counts need every module, and not all were selected to run")
    with capsys.disabled():
        print("\n" + harness.table(list(RESULTS.values()), SOFT_ROCE))
    assert sum(result.passed for result in RESULTS.values()) >= ALL_PASSES


OUTPUT = """test_one (tests.test_x.X.test_one)
What it tests ... ok
test_two (tests.test_x.X.test_two) ... printed between
ok
test_three (tests.test_x.X.test_three) ... skipped 'Create XRCD is not supported'
test_four (tests.test_x.X.test_four) ... skipped "it's not there"
test_five (tests.test_x.X.test_five) ... ERROR
test_six (tests.test_x.X.test_six) ... FAIL

----------------------------------------------------------------------
Ran 6 tests in 0.125s

FAILED (failures=1, errors=1, skipped=2)
"""


def test_the_counts_are_read_rightly() -> None:
    result = harness.parse("test_x", 1, OUTPUT)
    assert (result.ran, result.passed, result.failures, result.errors, result.skipped) == (6, 2, 1, 1, 2)
    assert result.skip_reasons == ["Create XRCD is not supported", "it's not there"]


@pytest.mark.parametrize("output", ["", "Traceback (most recent call last):\n", "Ran 3 tests in 0.1s\n"])
def test_a_run_without_its_closing_lines_is_an_error(output: str) -> None:
    result = harness.parse("test_x", 0, output)
    assert (result.errors, result.passed) == (1, 0)


def test_stubs_answer_for_our_device_and_pass_the_rest_on(home: Path) -> None:
    def answer(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert answer(str(home / "bin" / "ls"), "/sys/class/infiniband/ffv0/device/net/") == "lo\n"
    assert "run_tests.py" in answer(str(home / "bin" / "ls"), str(home / "tests"))
    assert '"ifname":"ffv0"' in answer(str(home / "bin" / "rdma"), "link", "show", "-j")

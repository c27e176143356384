"""Runs rdma-core's own test modules, as Debian ships them, on ffverbs, and counts what they did.

The files come from Debian's package python3-pyverbs and are only copied (and unpacked where Debian compressed them).
They run by `python -m ffverbs tests/run_tests.py`, in a process and a node directory of their own.
The tests ask two commands for the network interface behind a device, and whether it is in sysfs; ffv0 has no entry
there, so stubs answer for it (lo, whose address the tests of the connection manager use) and pass other questions on.
"""

import gzip
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    Path("/usr/share/doc/rdma-core/tests"),
    ROOT / "build" / "rdma-core" / "usr" / "share" / "doc" / "rdma-core" / "tests",
)
DEADLINE_S = 300.0

LS = """#!/bin/sh
for argument; do
    case $argument in /sys/class/infiniband/ffv0/device/net/) echo lo; exit 0 ;; esac
done
PATH={path} exec ls "$@"
"""
RDMA = """#!/bin/sh
case "$*" in
"link show -j" | "-j link show") echo '[{{"ifname":"ffv0","port":1,"netdev":"lo"}}]'; exit 0 ;;
esac
PATH={path} exec rdma "$@"
"""
# The tests of the connection manager first ask whether sysfs has the device's interfaces at all.
SITECUSTOMIZE = """import os.path

_exists = os.path.exists
os.path.exists = lambda path: path == "/sys/class/infiniband/ffv0/device/net/" or _exists(path)
"""


@dataclass
class ModuleResult:
    """What one test module did: counts, why tests were skipped, and all it printed."""

    name: str
    status: int
    ran: int = 0
    failures: int = 0
    errors: int = 0
    skip_reasons: list[str] = field(default_factory=list)
    output: str = ""

    @property
    def skipped(self) -> int:
        """How many tests were skipped."""
        return len(self.skip_reasons)

    @property
    def passed(self) -> int:
        """How many tests passed."""
        return self.ran - self.failures - self.errors - self.skipped


def unpack_tests(target: Path) -> Path:
    """Copy Debian's files of rdma-core's tests into `target`/tests, uncompressed; FileNotFoundError without them."""
    source = next((folder for folder in SOURCES if (folder / "run_tests.py").exists()), None)
    if source is None:
        raise FileNotFoundError(
            f"rdma-core's tests are in none of {', '.join(map(str, SOURCES))}: install Debian's python3-pyverbs"
            " (tests/setup/system_packages.sh test build does)"
        )
    tests = target / "tests"
    tests.mkdir()
    for path in sorted(source.iterdir()):
        if path.suffix == ".gz":
            (tests / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        else:
            shutil.copyfile(path, tests / path.name)
    return tests


def make_stubs(target: Path) -> Path:
    """Write the stubs of `ls` and `rdma`, and of os.path.exists, into `target`/bin and return that folder."""
    folder = target / "bin"
    folder.mkdir()
    for name, text in (("ls", LS), ("rdma", RDMA)):
        stub = folder / name
        stub.write_text(text.format(path=os.environ["PATH"]), encoding="ascii")
        stub.chmod(0o755)
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE, encoding="ascii")
    return folder


def run_module(name: str, home: Path, node_directory: Path) -> ModuleResult:
    """Run tests/`name`.py of the copy in `home` on ffverbs; the result says how it ended, also when it hung."""
    env = {
        **os.environ,
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        "FFVERBS_DIR": str(node_directory),
        "PYTHONPATH": f"{home / 'bin'}:{ROOT}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONFAULTHANDLER": "1",
    }
    command = [sys.executable, "-m", "ffverbs", "tests/run_tests.py", "-v", f"tests.{name}"]
    out = subprocess.PIPE
    with subprocess.Popen(command, cwd=home, env=env, stdout=out, stderr=subprocess.STDOUT, text=True) as process:
        try:
            output, _ = process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            output = process.communicate()[0] + f"\nkilled: did not end within {DEADLINE_S:.0f} s\n"
    return parse(name, process.returncode, output)


def parse(name: str, status: int, output: str) -> ModuleResult:
    """Read the counts from the closing lines of unittest's verbose output."""
    result = ModuleResult(name, status, output=output)
    ran = re.search(r"^Ran (\d+) tests? in ", output, re.M)
    closing = re.search(r"^(?:OK|FAILED)(?: \((.*)\))?$", output, re.M)
    if ran is None or closing is None:
        result.errors = 1
        result.ran = 1
        return result
    counts = dict(re.findall(r"(\w[\w ]*)=(\d+)", closing[1] or ""))
    result.ran = int(ran[1])
    result.failures = int(counts.get("failures", 0)) + int(counts.get("unexpected successes", 0))
    result.errors = int(counts.get("errors", 0))
    reasons = [double or single for single, double in re.findall(r"skipped (?:'(.*)'|\"(.*)\")$", output, re.M)]
    skipped = int(counts.get("skipped", 0))
    result.skip_reasons = (reasons + ["(reason not printed)"] * skipped)[:skipped]
    return result


def table(results: list[ModuleResult], soft_roce: dict[str, tuple[int, int]]) -> str:
    """Show the results beside Soft-RoCE's passes, one line a module, then why tests were skipped."""
    lines = [f"{'module':<24}{'passed':>8}{'skipped':>9}{'failed':>8}{'of':>5}    Soft-RoCE passes"]
    for result in results:
        passes, total = soft_roce[result.name]
        lines.append(
            f"{result.name:<24}{result.passed:>8}{result.skipped:>9}{result.failures + result.errors:>8}{result.ran:>5}"
            f"    {passes} of {total}"
        )
    lines.append(
        f"{'together':<24}{sum(r.passed for r in results):>8}{sum(r.skipped for r in results):>9}"
        f"{sum(r.failures + r.errors for r in results):>8}{sum(r.ran for r in results):>5}"
        f"    {sum(soft_roce[r.name][0] for r in results)} of {sum(soft_roce[r.name][1] for r in results)}"
    )
    for result in results:
        for reason in dict.fromkeys(result.skip_reasons):
            lines.append(f"  {result.name} skipped {result.skip_reasons.count(reason)}: {reason}")
    return "\n".join(lines)

"""Where the parts of the lab's virtual machine are, and whether they are there."""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
UNPACKED = ROOT / "build" / "lab"
# For Python programs of this tree in a machine: the tree is read-only there, and everything takes its time.
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    "FFVERBS_TEST_PATIENCE": "3",
}
HINT = "make build/stamps/lab.packages (or tests/setup/system_packages.sh lab build) fetches it"


class MissingPackagesError(RuntimeError):
    """A part of the virtual machine is not on this host."""


def kernel_version() -> str:
    """Return the version of the unpacked kernel, as its folder of modules is called."""
    found = sorted((UNPACKED / "boot").glob("vmlinuz-*")) if UNPACKED.exists() else []
    if not found:
        raise MissingPackagesError(f"no kernel under {UNPACKED}/boot; {HINT}")
    return found[-1].name.removeprefix("vmlinuz-")


def kernel() -> Path:
    """Return the image of the unpacked kernel."""
    return UNPACKED / "boot" / f"vmlinuz-{kernel_version()}"


def modules() -> Path:
    """Return the folder of the unpacked kernel's modules."""
    return UNPACKED / "lib" / "modules" / kernel_version()


def busybox() -> Path:
    """Return the static busybox that becomes the guest's first programs."""
    return UNPACKED / "bin" / "busybox"


def unavailable() -> str | None:
    """Say why no virtual machine can be started on this host, None if one can."""
    if not shutil.which("qemu-system-x86_64"):
        return f"no qemu-system-x86_64; {HINT}"
    try:
        kernel_version()
    except MissingPackagesError as error:
        return str(error)
    return None if busybox().exists() else f"no busybox under {UNPACKED}; {HINT}"

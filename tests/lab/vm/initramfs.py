"""Builds the initramfs of the lab's virtual machine: busybox, the kernel modules it needs, and `init`.

The kernel and busybox come from Debian's packages, unpacked (not installed) by `tests/setup/system_packages.sh lab`.
"""

import re
import stat
from pathlib import Path

from tests.lab.vm import packages

# What `init` needs, in this order; what these depend on is loaded before them. crc32_generic is asked for by name at
# run time by rdma_rxe, so no dependency tells of it.
MODULES = (
    "virtio_pci",
    "9pnet_virtio",
    "9p",
    "crc32_generic",
    "rdma_rxe",
    "ib_uverbs",
    "rdma_ucm",
    "veth",
    "virtio_net",
    "virtio_console",
)


def find_modules() -> dict[str, Path]:
    """Return the files of all modules of the unpacked kernel by the module's name."""
    return {path.stem.replace("-", "_"): path for path in packages.modules().rglob("*.ko")}


def dependencies(module: bytes) -> list[str]:
    """Return the names after `depends=` in a module's own description."""
    found = re.search(rb"\0depends=([\w,-]*)\0", module)
    return [name.replace("-", "_") for name in found[1].decode().split(",") if name] if found else []


def in_order(wanted: tuple[str, ...], files: dict[str, Path]) -> list[str]:
    """Return the wanted modules and all that they depend on, each after what it depends on."""
    order: list[str] = []

    def add(name: str) -> None:
        if name in order:
            return
        if name not in files:
            raise packages.MissingPackagesError(f"the unpacked kernel has no module {name}")
        for dependency in dependencies(files[name].read_bytes()):
            add(dependency)
        order.append(name)

    for name in wanted:
        add(name)
    return order


def entry(name: str, content: bytes, mode: int, number: int) -> bytes:
    """Return one entry of a cpio archive (`newc`)."""
    fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return header + bytes(-len(header) % 4) + content + bytes(-len(content) % 4)


def build(target: Path) -> None:
    """Write the initramfs to `target`, uncompressed: unpacking it would take the guest longer than reading it."""
    files = find_modules()
    order = in_order(MODULES, files)
    folder, program, data = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755, stat.S_IFREG | 0o644
    contents: list[tuple[str, bytes, int]] = [
        ("bin", b"", folder),
        ("modules", b"", folder),
        ("bin/busybox", packages.busybox().read_bytes(), program),
        ("init", (Path(__file__).parent / "init").read_bytes(), program),
        ("modules/order", "\n".join(f"{name}.ko" for name in order).encode() + b"\n", data),
        *((f"modules/{name}.ko", files[name].read_bytes(), data) for name in order),
        ("TRAILER!!!", b"", 0),
    ]
    target.write_bytes(b"".join(entry(*content, number) for number, content in enumerate(contents, 1)))

"""Write rpc_pb2.py and rpc_pb2.pyi from rpc.proto: a step of the build, not part of the installed package.

protoc's own Python output runs only with a protobuf of its own release or later, which would chain what users may
install to what the builder happened to have (docs/decisions/0020-etcd-stubs.md). So protoc gives the descriptor, whose
format never changes, and the types; the module written here makes the classes with protobuf's public interface alone.
It has a descriptor pool of its own: nothing of another package in the process can collide with it.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2

MODULE = '''"""Messages of etcd's v3 interface. Made from rpc.proto by generate_stubs.py: do not edit."""

from google.protobuf import descriptor_pool, message_factory

DESCRIPTOR = descriptor_pool.DescriptorPool().AddSerializedFile(
{descriptor}
)

for _name, _message in DESCRIPTOR.message_types_by_name.items():
    globals()[_name] = message_factory.GetMessageClass(_message)
'''


def protoc(source: Path, target: Path) -> bytes:
    """Run the protoc of grpcio-tools: write the types into `target` and return the file's serialized descriptor."""
    described = target / "descriptor"
    command = [
        sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={source.parent}", f"--descriptor_set_out={described}",
        f"--pyi_out={target}", str(source),
    ]  # fmt: skip
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"{source}: protoc failed; it comes with grpcio-tools, which the build requires (pyproject.toml)")
    (descriptor,) = descriptor_pb2.FileDescriptorSet.FromString(described.read_bytes()).file
    # The name under which the file registers in the pool, wherever it was built.
    descriptor.name = "ffverbs/etcd/rpc.proto"
    return descriptor.SerializeToString(deterministic=True)


def literal(data: bytes, width: int = 32) -> str:
    """Return a bytes literal in lines."""
    return "\n".join(f"    {data[start : start + width]!r}" for start in range(0, len(data), width))


def main() -> None:
    """Generate both files into the folder that --output names, replacing only what changed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proto", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        descriptor = protoc(arguments.proto.resolve(), Path(scratch))
        types = (Path(scratch) / "rpc_pb2.pyi").read_text(encoding="utf-8")
    files = {"rpc_pb2.py": MODULE.format(descriptor=literal(descriptor)), "rpc_pb2.pyi": types}
    for name, text in files.items():
        (arguments.output / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

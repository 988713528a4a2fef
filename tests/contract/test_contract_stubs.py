"""The committed stubs are what the generator makes, and run where pyproject.toml says they run."""

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.rpc import code_pb2, error_details_pb2, status_pb2

from tests.contract import described

ROOT = Path(__file__).resolve().parents[2]
STUBS = ROOT / "protos" / "gen" / "python" / "ixc" / "v1"


def test_stubs_are_current() -> None:
    """Whoever changes a .proto file commits its stubs with it."""
    command = [sys.executable, "protos/generate.py", "--check"]
    result = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_stub_imports() -> None:
    """Under the installed grpcio and protobuf, without a warning."""
    for path in STUBS.glob("*_pb2*.py"):
        importlib.import_module(f"ixc.v1.{path.stem}")


def test_stamped_versions_are_the_floors_of_the_distribution() -> None:
    """Stubs refuse to import under anything older than their generator; pip must know that."""
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    floors = dict(re.fullmatch(r"([\w-]+)>=([\d.]+)", each).groups() for each in requirements)
    grpc_stamps = stamps("*_pb2_grpc.py", r"GRPC_GENERATED_VERSION = '([\d.]+)'")
    protobuf_stamps = stamps("*_pb2.py", r"# Protobuf Python Version: ([\d.]+)")
    assert {floors["grpcio"]} == grpc_stamps
    assert {floors["protobuf"]} == protobuf_stamps


def stamps(pattern: str, stamp: str) -> set[str]:
    return {re.search(stamp, path.read_text())[1] for path in STUBS.glob(pattern)}


def test_vendored_google_rpc_is_the_one_python_loads() -> None:
    """Compilers read protos/third_party, Python loads googleapis-common-protos: the same wire."""
    for module in (status_pb2, code_pb2, error_details_pb2):
        name = module.DESCRIPTOR.name
        (vendored,) = described.compiled(name, package=described.PROTOS / "third_party").file
        loaded = FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
        assert wire_shape(vendored) == wire_shape(loaded), name


def wire_shape(file: FileDescriptorProto) -> set[tuple[str, str, int, int, str]]:
    """Every field and enum value: its owner, name, number and type."""
    return {
        (message.name, field.name, field.number, field.type, field.type_name)
        for outer in file.message_type
        for message in (outer, *outer.nested_type)
        for field in message.field
    } | {
        (enum.name, value.name, value.number, 0, "")
        for enum in file.enum_type
        for value in enum.value
    }


def test_stubs_are_typed() -> None:
    """Users' type checkers see messages and services alike."""
    assert (STUBS.parent / "py.typed").exists()
    untyped = [
        path.name for path in STUBS.glob("*_pb2*.py") if not path.with_suffix(".pyi").exists()
    ]
    assert untyped == []

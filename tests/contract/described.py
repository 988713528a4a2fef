"""The contract with its comments: every element by its full name, as protoc reads it.

Compiled afresh from the .proto files, because generated stubs carry no comments.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    EnumValueDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos"


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """`name` without the package: "Delta.text", "GenerationService.Generate".

    `comment` is one line per line of the source, without slashes. `descriptor` is protoc's own.
    """

    name: str
    comment: str
    descriptor: Any

    @property
    def prose(self) -> str:
        """The comment as one line, for searching."""
        return " ".join(self.comment.split())


@cache
def elements(kind: type) -> tuple[Element, ...]:
    """All elements of one kind, such as `MethodDescriptorProto`, in the order of the files."""
    everything = (each for file in files_of_ours() for each in _walk(file))
    return tuple(each for each in everything if isinstance(each.descriptor, kind))


def services() -> tuple[Element, ...]:
    return elements(ServiceDescriptorProto)


def methods() -> tuple[Element, ...]:
    return elements(MethodDescriptorProto)


def messages() -> tuple[Element, ...]:
    return elements(DescriptorProto)


def fields() -> tuple[Element, ...]:
    return elements(FieldDescriptorProto)


def enums() -> tuple[Element, ...]:
    return elements(EnumDescriptorProto)


def enum_values() -> tuple[Element, ...]:
    return elements(EnumValueDescriptorProto)


def compiled(*sources: str, package: Path = PROTOS) -> FileDescriptorSet:
    """What protoc makes of some .proto files, comments included."""
    includes = [
        f"-I{package}",
        f"-I{PROTOS / 'third_party'}",
        f"-I{files('grpc_tools') / '_proto'}",
    ]
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.binpb"
        arguments = ["--include_source_info", f"--descriptor_set_out={image}", *includes, *sources]
        assert protoc.main(["protoc", *arguments]) == 0, "protoc says why above"
        return FileDescriptorSet.FromString(image.read_bytes())


@cache
def files_of_ours() -> tuple[FileDescriptorProto, ...]:
    sources = sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / "ixc/v1").glob("*.proto"))
    return tuple(compiled(*sources).file)


def _walk(file: FileDescriptorProto) -> Iterator[Element]:
    """Messages, fields, enums, values, services and methods, each with its comment."""
    comments = {
        tuple(location.path): location.leading_comments
        for location in file.source_code_info.location
    }

    def element(descriptor: Any, path: tuple[int, ...], owner: str = "") -> Element:
        name = f"{owner}.{descriptor.name}" if owner else descriptor.name
        return Element(name=name, comment=comments.get(path, ""), descriptor=descriptor)

    # The numbers are those of descriptor.proto: FileDescriptorProto.message_type = 4 and so on.
    for index, message in enumerate(file.message_type):
        yield element(message, (4, index))
        for nested in message.nested_type:
            assert nested.options.map_entry, f"{message.name}.{nested.name}: messages do not nest"
        for position, field in enumerate(message.field):
            yield element(field, (4, index, 2, position), message.name)
    for index, enum in enumerate(file.enum_type):
        yield element(enum, (5, index))
        for position, value in enumerate(enum.value):
            yield element(value, (5, index, 2, position), enum.name)
    for index, service in enumerate(file.service):
        yield element(service, (6, index))
        for position, method in enumerate(service.method):
            yield element(method, (6, index, 2, position), service.name)

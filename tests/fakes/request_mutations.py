"""Requests that nobody would write: a walk over our own descriptors, and bytes gone wrong.

Everything is drawn from one `random.Random`, so a seed is a test case.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_INTS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_FLOATS = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1e-300,
    1e38,
    -1e38,
    float("nan"),
    float("inf"),
    -float("inf"),
)
_TEXTS = (
    "",
    "a",
    "Hello, what is this?",
    "x" * 200,
    "x" * 70_000,
    "\0",
    "\ufffd\U0001f9d1\u200d",
    "[UNUSED_TOKEN_146]user\n<ImageHere></s>",
    "../../../../etc/passwd",
    "base",
    "models/tiny",
    "sessions/0000000000",
    "generations/0000000000",
    "sha256:" + "0" * 64,
)
_MAX_DEPTH = 6
_REPEATS = (0, 1, 1, 2, 3, 40)


class RequestMaker:
    """`known` are names of things that exist, which the walk uses now and then."""

    def __init__(self, rng: random.Random, known: tuple[str, ...] = ()) -> None:
        self._rng = rng
        self._texts = (*_TEXTS, *known * 4)

    def message(self, example: Message) -> bytes:
        """A request of the example's type: altered in a place or two, or drawn altogether; then
        perhaps with bytes gone wrong.
        """
        message = type(example)()
        if self._rng.random() < 0.8:
            message.CopyFrom(example)
            for _ in range(self._rng.randint(0, 2)):
                self._alter(message, depth=0)
        else:
            self._fill(message, depth=0)
        data = message.SerializeToString()
        return self._damaged(data) if self._rng.random() < 0.3 else data

    def _alter(self, message: Message, depth: int) -> None:
        """One field somewhere below gets another value."""
        if not message.DESCRIPTOR.fields:
            return
        field = self._rng.choice(message.DESCRIPTOR.fields)
        inner = _singular_message(field)
        if inner and depth < _MAX_DEPTH and self._rng.random() < 0.7:
            self._alter(getattr(message, field.name), depth + 1)
        else:
            self._set(message, field, depth)

    def _fill(self, message: Message, depth: int) -> None:
        for field in message.DESCRIPTOR.fields:
            if self._rng.random() < (0.3 if depth < _MAX_DEPTH else 0.0):
                self._set(message, field, depth)

    def _set(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        message.ClearField(field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            value = field.message_type.fields_by_name["value"]
            entries = getattr(message, field.name)
            for _ in range(self._rng.choice(_REPEATS)):
                key = self._scalar(field.message_type.fields_by_name["key"])
                if value.message_type is not None:
                    self._fill(entries[key], depth + 1)
                else:
                    entries[key] = self._scalar(value)
        elif field.is_repeated:
            for _ in range(self._rng.choice(_REPEATS)):
                if field.message_type is not None:
                    if depth < _MAX_DEPTH:
                        self._fill(getattr(message, field.name).add(), depth + 1)
                else:
                    getattr(message, field.name).append(self._scalar(field))
        elif field.message_type is not None:
            inner = getattr(message, field.name)
            inner.SetInParent()
            if depth < _MAX_DEPTH:
                self._fill(inner, depth + 1)
        else:
            setattr(message, field.name, self._scalar(field))

    def _scalar(self, field: FieldDescriptor) -> Any:
        rng = self._rng
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_BOOL:
                return rng.random() < 0.5
            case FieldDescriptor.CPPTYPE_ENUM:
                known = [value.number for value in field.enum_type.values]
                return rng.choice([*known, 99, -1, 2**31 - 1])
            case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
                return rng.choice(_FLOATS)
            case FieldDescriptor.CPPTYPE_STRING:
                if field.type == FieldDescriptor.TYPE_BYTES:
                    return rng.randbytes(rng.choice((0, 1, 8, 64, 5000)))
                return rng.choice(self._texts)
            case _:
                low, high = _INTS[field.cpp_type]
                return rng.choice((low, high, 0, 1, 2, 7, 100, 1000, min(high, 10**9)))

    def _damaged(self, data: bytes) -> bytes:
        """Bits flipped, cut short, a piece doubled, or noise altogether."""
        rng, damaged = self._rng, bytearray(data)
        match rng.randrange(4):
            case 0 if damaged:
                for _ in range(rng.randint(1, 8)):
                    damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            case 1:
                del damaged[rng.randrange(len(damaged) + 1) :]
            case 2:
                at = rng.randrange(len(damaged) + 1)
                damaged[at:at] = damaged[: rng.randrange(len(damaged) + 1)]
            case _:
                damaged = bytearray(rng.randbytes(rng.randrange(300)))
        return bytes(damaged)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """`name` is as in "GenerationService.Generate"."""

    name: str
    path: str
    request: type[Message]
    takes_stream: bool
    gives_stream: bool


def methods_of(service: ServiceDescriptor) -> Iterator[Method]:
    for method in service.methods:
        yield Method(
            name=f"{service.name}.{method.name}",
            path=f"/{service.full_name}/{method.name}",
            request=GetMessageClass(method.input_type),
            takes_stream=method.client_streaming,
            gives_stream=method.server_streaming,
        )


def _singular_message(field: FieldDescriptor) -> bool:
    return field.message_type is not None and not field.is_repeated

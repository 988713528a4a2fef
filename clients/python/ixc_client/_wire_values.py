"""What single fields of messages are in Python: words for enums, seconds, moments, plain numbers.

Enum values newer than this client become UNKNOWN, as the contract asks of clients; unset times
become None.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as ProtoMessage
from google.protobuf.timestamp_pb2 import Timestamp

EnumT = TypeVar("EnumT", bound=StrEnum)


def figures(message: ProtoMessage) -> dict[str, Any]:
    """Every field by its name: numbers as they are, durations in seconds, enums as words."""
    result: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if isinstance(value, Duration):
            result[field.name] = seconds(value)
        else:
            result[field.name] = value if field.enum_type is None else word(message, field.name)
    return result


def enum(kind: type[EnumT], message: ProtoMessage, field: str) -> EnumT:
    try:
        return kind(word(message, field))
    except ValueError:
        return kind("unknown")


def word(message: ProtoMessage, field: str) -> str:
    """FINISH_REASON_MAX_TOKENS of the enum FinishReason is "max_tokens"."""
    enum_type = message.DESCRIPTOR.fields_by_name[field].enum_type
    assert enum_type is not None
    return enum_word(enum_type, getattr(message, field))


def enum_word(enum_type: Any, number: int) -> str:
    value = enum_type.values_by_number.get(number)
    zero = enum_type.values_by_number[0].name
    if value is None:
        return "unknown"
    name: str = value.name
    return name.removeprefix(zero.removesuffix("UNSPECIFIED")).lower()


def as_written(value: Any) -> Any:
    """Floats travel in 32 bits; 0.8 comes back as 0.8 and not as 0.800000011920929."""
    return float(f"{value:.7g}") if isinstance(value, float) else value


def seconds(duration: Duration) -> float:
    return duration.ToNanoseconds() / 1e9


def time(message: ProtoMessage, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    timestamp: Timestamp = getattr(message, field)
    return timestamp.ToDatetime(tzinfo=UTC)

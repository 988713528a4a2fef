"""JSON from outside: an object, read key by key, with nothing left over.

A file may be anything: huge, deep, not UTF-8, with a name twice, with NaN. Each becomes
`CheckpointInvalid` with the file's name. Knows no schema; `ixc_runtime.config` has those.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ixc_runtime.errors import CheckpointInvalid, CheckpointMissing, CheckpointUnsupported

MAX_CONFIG_BYTES = 1 << 20


def read_json_object(path: Path, *, max_bytes: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """A JSON file whose top is an object; whatever else it may be is a fault with a name."""
    if not path.is_file():  # a pipe would never end
        raise CheckpointMissing(f"{path.name} is not in the model folder", file=path.name)
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise CheckpointInvalid(
                f"{path.name} has {size} bytes; the limit is {max_bytes}", file=path.name
            )
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointInvalid(
            f"{path.name} cannot be read: {error.strerror}", file=path.name
        ) from None
    return parse_json_object(data, path.name)


def parse_json_object(data: bytes, file: str) -> dict[str, Any]:
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse_constant,
        )
    except RecursionError:
        raise CheckpointInvalid(f"the JSON of {file} is nested too deeply", file=file) from None
    except ValueError as error:  # not UTF-8, not JSON, a repeated key, a number past Python's limit
        raise CheckpointInvalid(f"the JSON of {file} is invalid: {error}", file=file) from None
    if not isinstance(value, dict):
        raise CheckpointInvalid(f"the JSON of {file} is not an object", file=file)
    return value


class ObjectReader:
    """A JSON object read key by key; what nobody asked for is found at `close`."""

    def __init__(self, fields: Mapping[str, Any], file: str) -> None:
        self._fields = dict(fields)
        self._known: set[str] = set()
        self.file = file

    def fault(self, key: str, message: str) -> CheckpointInvalid:
        return CheckpointInvalid(f"{self.file}: {key} {message}", key=key)

    def peek(self, key: str) -> Any:
        return self._fields.get(key)

    def take(self, key: str, default: Any) -> Any:
        self._known.add(key)
        value = self._fields.get(key)
        return default if value is None else value

    def count(
        self, key: str, *, minimum: int = 1, maximum: int = 1 << 31, default: int | None = None
    ) -> int:
        value = self.take(key, default)
        if type(value) is not int or not minimum <= value <= maximum:
            raise self.fault(key, f"is {value!r}; a whole number {minimum} to {maximum} is needed")
        return value

    def optional_count(self, key: str, *, maximum: int) -> int | None:
        return None if self.take(key, None) is None else self.count(key, maximum=maximum)

    def number(
        self,
        key: str,
        *,
        minimum: float = -math.inf,
        above: float = -math.inf,
        maximum: float = 1e30,
        default: float | None = None,
    ) -> float:
        value = self.take(key, default)
        if type(value) not in (int, float) or not (value >= minimum and above < value <= maximum):
            low = f"above {above}" if above > minimum else f"at least {minimum}"
            raise self.fault(key, f"is {value!r}; a number {low} and at most {maximum} is needed")
        return float(value)

    def text(self, key: str, default: str) -> str:
        value = self.take(key, default)
        if not isinstance(value, str):
            raise self.fault(key, f"is {value!r}; a text is needed")
        return value

    def optional_text(self, key: str, default: str | None) -> str | None:
        """Unlike elsewhere, a null that is written out means none, not the default."""
        if key in self._fields and self._fields[key] is None:
            self._known.add(key)
            return None
        return (
            None
            if default is None and self.take(key, None) is None
            else self.text(key, default or "")
        )

    def mapping(self, key: str) -> Mapping[str, Any]:
        value = self.take(key, {})
        if not isinstance(value, dict):
            raise self.fault(key, "is no JSON object")
        return value

    def fixed(self, key: str, expected: object, *, default: object = ...) -> None:
        """A setting with one value we implement."""
        value = self.take(key, None if default is ... else default)
        if value != expected or type(value) is not type(expected):
            raise CheckpointUnsupported(
                f"{self.file}: {key} is {value!r}; {expected!r} is served", key=key
            )

    def close(self, *, harmless: frozenset[str] | set[str] = frozenset()) -> None:
        if unknown := sorted(self._fields.keys() - self._known - harmless):
            raise CheckpointInvalid(
                f"{self.file} has keys that may change the model's arithmetic and are not known: "
                f"{', '.join(unknown[:8])}",
                keys=", ".join(unknown[:8]),
            )


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the name {key!r} stands twice")
            seen.add(key)
    return result


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")

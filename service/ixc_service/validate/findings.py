"""Collecting everything that is wrong with one request, and the checks of single values."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.duration_pb2 import Duration

from ixc_runtime.errors import MediaTypeUnsupported, PromptEmpty, RuntimeFault, TokenIdOutOfVocab
from ixc_service.errors import RequestInvalid, Violation
from ixc_service.identifiers import ID_RULE, id_of, is_id

_REQUEST_ID = re.compile(r"[A-Za-z0-9\-_.:]{1,128}")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Allowed numbers; an open end excludes the bound itself."""

    low: float
    high: float
    low_open: bool = False
    high_open: bool = False

    def holds(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return math.isfinite(value) and above and below

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.low_open else f"at least {self.low:g}"
        high = f"below {self.high:g}" if self.high_open else f"at most {self.high:g}"
        return f"{low} and {high}"


class Findings:
    """Violations of one request. `conclude` raises them; a lone special cause has its own fault."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []
        self._special: RuntimeFault | None = None

    def conclude(self) -> None:
        if self._violations:
            raise RequestInvalid(tuple(self._violations))
        if self._special:
            raise self._special

    # ---- what may be found

    def add(self, field: str, rule: str, description: str) -> None:
        self._violations.append(Violation(field=field, rule=rule, description=description))

    def prompt_empty(self, what: str) -> None:
        self._special = self._special or PromptEmpty(f"{what}: there is nothing to answer")

    def media_type(self, digest: str, description: str) -> None:
        self._special = self._special or MediaTypeUnsupported(description, media=digest)

    # ---- checks of one value

    def number(self, field: str, value: float, bounds: Bounds) -> None:
        if not bounds.holds(value):
            self.add(field, "OUT_OF_RANGE", f"is {value:g}, allowed: {bounds}")

    def count(self, field: str, count: int, limit: int) -> None:
        if count > limit:
            self.add(field, "TOO_MANY", f"has {count} entries, at most {limit} are allowed")

    def size(self, field: str, text: str, limit: int, *, at_least: int = 0) -> None:
        size = len(text.encode())
        if not at_least <= size <= limit:
            allowed = f"{at_least} to {limit}" if at_least else f"at most {limit}"
            self.add(field, "BAD_LENGTH", f"has {size} bytes, {allowed} are allowed")

    def duration(
        self, field: str, value: Duration, limit: float, *, zero_allowed: bool = False
    ) -> None:
        bounds = Bounds(0, limit, low_open=not zero_allowed)
        total = value.seconds + value.nanos / 1e9
        if abs(value.nanos) > 999_999_999 or not bounds.holds(total):
            self.add(field, "OUT_OF_RANGE", f"is {total:g} s, allowed: {bounds} s")

    def enum(self, field: str, value: int, kind: EnumDescriptor) -> None:
        if value not in kind.values_by_number:
            self.add(field, "UNKNOWN_VALUE", f"{value} is no value of {kind.name}")

    def enums(self, field: str, values: Iterable[int], kind: EnumDescriptor) -> None:
        for value in values:
            self.enum(field, value, kind)

    def sequence(self, field: str, value: int) -> None:
        if value < 0:
            self.add(field, "OUT_OF_RANGE", f"is {value}, allowed: at least 0")

    def request_id(self, value: str) -> None:
        if value and not _REQUEST_ID.fullmatch(value):
            self.add("request_id", "MALFORMED", "must be 1 to 128 of A-Z a-z 0-9 and '-_.:'")

    def upload_id(self, field: str, value: str, *, required: bool = True) -> None:
        if (value or required) and not _REQUEST_ID.fullmatch(value):
            self.add(field, "MALFORMED", "must be 1 to 128 of A-Z a-z 0-9 and '-_.:'")

    def new_id(self, field: str, value: str) -> None:
        if value and not is_id(value):
            self.add(field, "MALFORMED", f"must be {ID_RULE}")

    def name(self, field: str, value: str, collection: str, *, required: bool = True) -> None:
        if (value or required) and id_of(value, collection) is None:
            self.add(field, "MALFORMED", f"must be {collection}/{{id}}; an id is {ID_RULE}")

    def token_ids(self, field: str, token_ids: Iterable[int], vocab_size: int) -> None:
        """Ids beyond the vocabulary are a cause of their own: another model's tokenizer."""
        beyond = next((token_id for token_id in token_ids if token_id >= vocab_size), None)
        if beyond is not None:
            self._special = self._special or TokenIdOutOfVocab(
                f"{field}: token id {beyond} is beyond the vocabulary of {vocab_size}",
                token_id=beyond,
                vocab_size=vocab_size,
            )

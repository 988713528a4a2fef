"""Pages of lists: sizes within the limit, and tokens that only their own list can read.

A token holds the last item's key and a digest of the list it belongs to. It is opaque, not secret:
what it can reach, the caller could list anyway.
"""

import base64
import binascii
import hashlib
from typing import TypeVar

import msgspec

from ixc_service.errors import RequestInvalid, Violation

_DEFAULT_SIZE = 50
T = TypeVar("T")


def page_size(asked: int, limit: int) -> int:
    return min(asked or _DEFAULT_SIZE, limit)


def encode_token(position: object, *list_identity: object) -> str:
    content = msgspec.msgpack.encode((_digest(list_identity), position))
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def decode_token(token: str, kind: type[T], *list_identity: object) -> T | None:
    """The position a token stands for; None for the first page."""
    if not token:
        return None
    try:
        content = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        digest, position = msgspec.msgpack.decode(content, type=tuple[bytes, kind])  # type: ignore[valid-type]
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        digest = b""
    if digest != _digest(list_identity):
        raise RequestInvalid(
            (
                Violation(
                    field="page_token",
                    rule="MALFORMED",
                    description="is no token of this list; other fields must stay the same",
                ),
            )
        )
    found: T = position
    return found


def _digest(list_identity: tuple[object, ...]) -> bytes:
    return hashlib.sha256(repr(list_identity).encode()).digest()[:8]

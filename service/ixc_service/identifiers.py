"""Ids and resource names: `sessions/{id}`, `sessions/{id}/turns/{index}`, `generations/{id}`,
`media/{sha256}`, `operations/{id}`.

Ids that the server makes are 48 bits of milliseconds followed by 80 random bits, in base 32: they
sort by time and cannot be guessed. Knows nothing of what the names refer to.
"""

import re
import secrets

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: no i, l, o, u
_ID_LENGTH = 26  # 130 bits hold 48 + 80
ID_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{2,61}[a-z0-9]")
_DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}")
ID_RULE = "4 to 63 of a-z, 0-9 and '-', neither first nor last a '-'"


def new_id(now: float) -> str:
    number = int(now * 1000) << 80 | secrets.randbits(80)
    return "".join(_ALPHABET[number >> 5 * place & 31] for place in reversed(range(_ID_LENGTH)))


def is_id(text: str) -> bool:
    return ID_PATTERN.fullmatch(text) is not None


def session_name(session_id: str) -> str:
    return f"sessions/{session_id}"


def turn_name(session_id: str, index: int) -> str:
    return f"sessions/{session_id}/turns/{index}"


def generation_name(generation_id: str) -> str:
    return f"generations/{generation_id}"


def model_name(model_id: str) -> str:
    return f"models/{model_id}"


def model_id_of(name: str) -> str | None:
    """The id in `models/{id}`, whatever it is: one served from a folder is called as that is."""
    prefix, slash, model_id = name.partition("/")
    return model_id if slash and prefix == "models" and model_id else None


def adapter_name(adapter_id: str) -> str:
    return f"adapters/{adapter_id}"


def id_of(name: str, collection: str) -> str | None:
    """The id in `{collection}/{id}`; None when the name is not of that form."""
    prefix, slash, identifier = name.partition("/")
    return identifier if slash and prefix == collection and is_id(identifier) else None


def operation_name(operation_id: str) -> str:
    return f"operations/{operation_id}"


def media_name(digest: str) -> str:
    return f"media/{digest}"


def is_digest(text: str) -> bool:
    """SHA-256 in lower-case hex."""
    return _DIGEST_PATTERN.fullmatch(text) is not None


def digest_of(name: str) -> str | None:
    """The digest in `media/{sha256}`; None when the name is not of that form."""
    prefix, slash, digest = name.partition("/")
    return digest if slash and prefix == "media" and is_digest(digest) else None

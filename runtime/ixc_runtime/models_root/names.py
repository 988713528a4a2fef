"""Which ids a model or a user's adapter may have: one alphabet, so that no path can be spelt.

An id is the folder's name, byte for byte. Nothing is normalised, folded or trimmed: two ids are the
same folder only if they are the same text, on any file system that anybody may copy the root to.
"""

import re

MODEL_ID_RULE = (
    "1 to 63 of a-z, 0-9, '-', '_' and '.', beginning and ending with a letter or a digit, "
    "without '..'"
)
_ID = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?", re.ASCII)
# Devices on Windows, with or without a suffix: a root that is copied there must stay what it is.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.ASCII)


def is_model_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None and ".." not in text and _DEVICE.fullmatch(text) is None

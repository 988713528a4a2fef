"""What survives a crash: sessions, turns and request ids, in one SQLite file.

`SessionStore` is the interface; `records` its values. Committed means fsynced.
"""

from ixc_service.store.database import Database
from ixc_service.store.records import (
    LOCAL_OWNER,
    RequestKey,
    SessionRecord,
    StoredImage,
    StoredPart,
    StoredText,
    TurnRecord,
)
from ixc_service.store.sessions import SessionStore

__all__ = [
    "LOCAL_OWNER",
    "Database",
    "RequestKey",
    "SessionRecord",
    "SessionStore",
    "StoredImage",
    "StoredPart",
    "StoredText",
    "TurnRecord",
]

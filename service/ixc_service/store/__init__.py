"""What survives a crash: sessions, turns, request ids, and whose the media are; one SQLite file.

`SessionStore` and `MediaRecords` are the interface; `records` their values. Committed means
fsynced. The bytes of media are not in here.
"""

from ixc_service.store.database import Database
from ixc_service.store.media import MediaRecords
from ixc_service.store.records import (
    LOCAL_OWNER,
    MediaFailure,
    MediaRecord,
    MediaState,
    RequestKey,
    SessionRecord,
    StoredImage,
    StoredMedia,
    StoredPart,
    StoredText,
    StoredVideo,
    TurnRecord,
    UploadRecord,
)
from ixc_service.store.sessions import SessionStore

__all__ = [
    "LOCAL_OWNER",
    "Database",
    "MediaFailure",
    "MediaRecord",
    "MediaRecords",
    "MediaState",
    "RequestKey",
    "SessionRecord",
    "SessionStore",
    "StoredImage",
    "StoredMedia",
    "StoredPart",
    "StoredText",
    "StoredVideo",
    "TurnRecord",
    "UploadRecord",
]

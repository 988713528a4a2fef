"""The tables, and how an older file becomes a newer one. Every row has an owner from the start."""

import sqlite3

from ixc_service.errors import StoreUnavailable

VERSION = 4

# Index n holds what turns version n into n + 1.
_STEPS = (
    """
    CREATE TABLE sessions (
        owner              TEXT NOT NULL,
        session_id         TEXT NOT NULL,
        incarnation        TEXT NOT NULL,
        model              TEXT NOT NULL,
        weights_digest     TEXT NOT NULL,
        system_instruction TEXT,
        system_preset      INTEGER NOT NULL,
        default_sampling   BLOB NOT NULL,
        labels             BLOB NOT NULL,
        parent             TEXT,
        forked_at_turn     INTEGER,
        ttl_seconds        REAL NOT NULL,
        create_time        REAL NOT NULL,
        last_used_time     REAL NOT NULL,
        turn_count         INTEGER NOT NULL,
        context_tokens     INTEGER NOT NULL,
        revision           INTEGER NOT NULL,
        PRIMARY KEY (owner, session_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX sessions_by_time ON sessions (owner, create_time, session_id);
    CREATE INDEX sessions_by_expiry ON sessions (last_used_time + ttl_seconds);

    -- `body` is a TurnRecord in msgpack: read and written whole, never searched.
    CREATE TABLE turns (
        owner          TEXT NOT NULL,
        session_id     TEXT NOT NULL,
        turn_index     INTEGER NOT NULL,
        context_tokens INTEGER NOT NULL,
        body           BLOB NOT NULL,
        PRIMARY KEY (owner, session_id, turn_index),
        FOREIGN KEY (owner, session_id) REFERENCES sessions ON DELETE CASCADE
    ) STRICT;

    CREATE TABLE turn_media (
        digest     TEXT NOT NULL,
        owner      TEXT NOT NULL,
        session_id TEXT NOT NULL,
        turn_index INTEGER NOT NULL,
        PRIMARY KEY (digest, owner, session_id, turn_index),
        FOREIGN KEY (owner, session_id, turn_index) REFERENCES turns ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX turn_media_by_turn ON turn_media (owner, session_id, turn_index);

    -- A row exists exactly as long as what it names: it is written in the same transaction.
    CREATE TABLE requests (
        owner       TEXT NOT NULL,
        method      TEXT NOT NULL,
        request_id  TEXT NOT NULL,
        digest      BLOB NOT NULL,
        session_id  TEXT NOT NULL,
        turn_index  INTEGER,
        create_time REAL NOT NULL,
        PRIMARY KEY (owner, method, request_id),
        FOREIGN KEY (owner, session_id) REFERENCES sessions ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX requests_by_session ON requests (owner, session_id, turn_index);
    """,
    """
    -- Who has uploaded what. `facts` is msgpack of what `state` and `mime_type` say it is, or NULL.
    CREATE TABLE media (
        owner       TEXT NOT NULL,
        digest      TEXT NOT NULL,
        mime_type   TEXT NOT NULL,
        size_bytes  INTEGER NOT NULL,
        state       TEXT NOT NULL,
        facts       BLOB,
        ttl_seconds REAL NOT NULL,
        create_time REAL NOT NULL,
        expire_time REAL NOT NULL,
        PRIMARY KEY (owner, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX media_by_time ON media (owner, create_time, digest);
    CREATE INDEX media_by_expiry ON media (expire_time);

    CREATE TABLE uploads (
        owner       TEXT NOT NULL,
        upload_id   TEXT NOT NULL,
        digest      TEXT NOT NULL,
        mime_type   TEXT NOT NULL,
        size_bytes  INTEGER NOT NULL,
        ttl_seconds REAL NOT NULL,
        staging     TEXT NOT NULL,
        is_finished INTEGER NOT NULL,
        expire_time REAL NOT NULL,
        PRIMARY KEY (owner, upload_id)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    -- Long work. `body` is an OperationRecord in msgpack, the columns are what is searched for.
    CREATE TABLE operations (
        owner        TEXT NOT NULL,
        operation_id TEXT NOT NULL,
        kind         TEXT NOT NULL,
        state        TEXT NOT NULL,
        end_time     REAL,
        body         BLOB NOT NULL,
        PRIMARY KEY (owner, operation_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX operations_by_end ON operations (end_time);

    CREATE TABLE operation_events (
        owner        TEXT NOT NULL,
        operation_id TEXT NOT NULL,
        sequence     INTEGER NOT NULL,
        body         BLOB NOT NULL,
        PRIMARY KEY (owner, operation_id, sequence),
        FOREIGN KEY (owner, operation_id) REFERENCES operations ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE operation_requests (
        owner        TEXT NOT NULL,
        method       TEXT NOT NULL,
        request_id   TEXT NOT NULL,
        digest       BLOB NOT NULL,
        operation_id TEXT NOT NULL,
        PRIMARY KEY (owner, method, request_id),
        FOREIGN KEY (owner, operation_id) REFERENCES operations ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX operation_requests_by_operation ON operation_requests (owner, operation_id);

    -- Tells what this server's jobs have left in a models root from what others' have.
    CREATE TABLE store_identity (id TEXT NOT NULL) STRICT;
    INSERT INTO store_identity VALUES (lower(hex(randomblob(16))));
    """,
    """
    -- What only the work of an operation needs, as long as it is not done: its order whole, where
    -- the one in its record lacks the samples, which may be megabytes. Written once.
    CREATE TABLE operation_orders (
        owner        TEXT NOT NULL,
        operation_id TEXT NOT NULL,
        body         BLOB NOT NULL,
        PRIMARY KEY (owner, operation_id),
        FOREIGN KEY (owner, operation_id) REFERENCES operations ON DELETE CASCADE
    ) STRICT;
    """,
)


def migrate(connection: sqlite3.Connection) -> None:
    """Brings the file to VERSION in one transaction; refuses a file from a newer build."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL) STRICT"
    )
    row = connection.execute("SELECT max(version) FROM schema_version").fetchone()
    found: int = row[0] or 0
    if found > VERSION:
        raise StoreUnavailable(
            f"the session store has schema version {found}, this build knows {VERSION}"
        )
    for version in range(found, VERSION):
        connection.executescript(f"BEGIN IMMEDIATE; {_STEPS[version]}")
        connection.execute("INSERT INTO schema_version VALUES (?)", (version + 1,))
        connection.execute("COMMIT")

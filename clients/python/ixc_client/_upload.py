"""An upload as far as it has come, and how it goes on when it breaks.

`UploadState` is the whole logic of sending a file, without any sending: the blocking and the
asyncio uploader send the messages it makes and tell it what went wrong.

    spec ─► chunk, chunk, … finish ─► Media
      ▲                  │ broken
      └── from what GetUpload says is on the server's disk

No CRC is sent with the chunks: the contract leaves it open, plain Python computes a few megabytes
of it a second, and the SHA-256 of the whole, which is always checked, finds what it would find.
"""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from ixc.v1 import media_service_pb2, model_pb2
from ixc_client._blob import Blob
from ixc_client._errors import IxcError
from ixc_client._settings import Retries
from ixc_client._status import may_retry

# Called with the bytes sent so far and all of them; after a break it starts lower again.
Progress = Callable[[int, int], object]


# The contract's own figures, where a server does not say what it takes in one piece.
_INLINE_BYTES = 3 << 20
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferLimits:
    """How much goes into one request, and into one chunk."""

    inline_bytes: int
    chunk_bytes: int


def transfer_limits(limits: model_pb2.Limits) -> TransferLimits:
    return TransferLimits(
        inline_bytes=limits.max_inline_image_bytes or _INLINE_BYTES,
        chunk_bytes=min(limits.max_upload_chunk_bytes or _CHUNK_BYTES, _CHUNK_BYTES),
    )


class UploadState:
    """`sha256` is that of `blob`. The server knows the transfer by it, so that a later program,
    too, goes on where this one stopped.
    """

    def __init__(
        self,
        blob: Blob,
        sha256: str,
        *,
        mime_type: str,
        ttl: Duration | None,
        chunk_bytes: int,
        retries: Retries,
    ) -> None:
        self.blob = blob
        self.must_ask = False  # whether only the server knows where to go on
        self._spec = media_service_pb2.UploadSpec(
            upload_id=sha256, sha256=sha256, size_bytes=blob.size, mime_type=mime_type, ttl=ttl
        )
        self._chunk_bytes = chunk_bytes
        self._retries = retries
        self._start = 0
        self._furthest = 0
        self._failures = 0  # in a row, without a byte between them
        self._redirected = False
        self._damaged = False

    @property
    def upload_id(self) -> str:
        return self._spec.upload_id

    def messages(self) -> Iterator[tuple[media_service_pb2.UploadMediaRequest, int]]:
        """What to send on one stream, each with the number of bytes sent after it."""
        offset, size = self._start, self.blob.size
        yield media_service_pb2.UploadMediaRequest(spec=self._spec, finish=offset == size), offset
        while offset < size:
            data = self.blob.read(offset, min(self._chunk_bytes, size - offset))
            chunk = media_service_pb2.UploadChunk(offset=offset, data=data)
            offset += len(data)
            yield media_service_pb2.UploadMediaRequest(chunk=chunk, finish=offset == size), offset

    def failed(self, error: IxcError) -> float:
        """Seconds to wait before the next try; raises `error` when there is none."""
        self._failures += 1
        self.must_ask = False
        if error.reason == "UPLOAD_OFFSET_MISMATCH" and not self._redirected:
            # An earlier program has sent a part: told once, that is no failure.
            self._redirected = True
            self.go_on_from(_committed(error))
            return 0.0
        delay = self._retries.delay(self._failures, error.retry_after_seconds)
        if delay is None:
            raise self._final(error)
        match error.reason:
            case "UPLOAD_OFFSET_MISMATCH":
                self.go_on_from(_committed(error))
            case "UPLOAD_DIGEST_MISMATCH" if not self._damaged:
                self._damaged = True  # twice, and it is the file that has changed
                self._start = _committed(error)
            case "UPLOAD_CONFLICT" | "UPLOAD_ID_REUSED":
                # Somebody else sends the same file, or began to, otherwise: leave it to them, and
                # send a copy of our own. Whichever is done first, both get the object.
                self._spec.upload_id = str(uuid.uuid4())
                self._start = self._furthest = 0
            case _ if may_retry(error):
                self.must_ask = True
            case _:
                raise self._final(error)
        return delay

    def go_on_from(self, committed: int) -> None:
        """The next stream begins here. A try that got further was not in vain, and not counted."""
        self._start = committed
        if committed > self._furthest:
            self._furthest, self._failures = committed, 0

    def _final(self, error: IxcError) -> IxcError:
        error.attempts = self._failures
        return error


def _committed(error: IxcError) -> int:
    return int(error.metadata.get("committedSize", "0"))

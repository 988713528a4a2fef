"""Uploading, the blocking way. The asyncio twin is `_async_uploader`.

When to send what, and how a broken transfer goes on, is `_upload.UploadState`'s; here is only the
sending, and that the same file is not sent twice at a time.
"""

import contextlib
import threading
import weakref

from ixc.v1 import media_pb2, media_service_pb2
from ixc_client import _methods as methods
from ixc_client import _requests as requests
from ixc_client import _resource_replies as replies
from ixc_client._blob import Blob
from ixc_client._calls import Calls
from ixc_client._enclosures import Enclosures
from ixc_client._errors import IxcError, NotFound, TruncatedStream
from ixc_client._media import Media
from ixc_client._stop_button import StopButton
from ixc_client._upload import Progress, TransferLimits, UploadState, transfer_limits

# Between two looks at an object that the server is still looking at.
_LOOK_SECONDS = 1.0
# How long the stop button may go unnoticed where nothing can be interrupted.
_STOP_SECONDS = 0.1


class Uploader:
    """One for each client."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._limits: TransferLimits | None = None
        self._guard = threading.Lock()
        self._locks: weakref.WeakValueDictionary[str, threading.Lock] = (
            weakref.WeakValueDictionary()
        )

    def enclose(self, enclosures: Enclosures, stop: StopButton | None = None) -> None:
        """Puts what still waits into its request, or uploads it and names it there.

        Raises UploadStopped when `stop` is pressed before that is done.
        """
        if not enclosures.waiting:
            return
        stop = stop or StopButton()
        stop.check()
        limit = self.limits().inline_bytes
        while (enclosure := enclosures.largest_beyond(limit)) is not None:
            enclosures.uploaded(enclosure, self.upload(enclosure.blob, stop=stop).name)
        enclosures.put_inside(limit)

    def upload(
        self,
        blob: Blob,
        *,
        mime_type: str = "",
        ttl: float | None = None,
        progress: Progress | None = None,
        stop: StopButton | None = None,
    ) -> Media:
        """Raises what makes the bytes unusable, such as MediaUndecodable."""
        stop = stop or StopButton()
        sha256 = blob.sha256()
        state = UploadState(
            blob,
            sha256,
            mime_type=mime_type,
            ttl=requests.duration(ttl),
            chunk_bytes=self.limits().chunk_bytes,
            retries=self._calls.retries,
        )
        with self._guard:
            lock = self._locks.setdefault(sha256, threading.Lock())
        while not lock.acquire(timeout=_STOP_SECONDS):
            stop.check()
        try:
            message = self._send_until_done(state, progress, stop)
        finally:
            lock.release()
        if progress is not None:
            progress(blob.size, blob.size)
        return replies.usable(self._settled(message, stop))

    def limits(self) -> TransferLimits:
        if self._limits is None:
            reply = self._calls.unary(methods.GET_SERVER_INFO, methods.GET_SERVER_INFO.request())
            self._limits = transfer_limits(reply.server.limits)
        return self._limits

    def _send_until_done(
        self, state: UploadState, progress: Progress | None, stop: StopButton
    ) -> media_pb2.Media:
        while True:
            try:
                if state.must_ask:
                    state.go_on_from(self._committed(state.upload_id))
                response = self._send(state, progress, stop)
                if response.HasField("media"):
                    return response.media
                raise TruncatedStream("the upload was answered before it was finished")
            except IxcError as error:
                self._pause(state.failed(error), stop)

    def _send(
        self, state: UploadState, progress: Progress | None, stop: StopButton
    ) -> media_service_pb2.UploadMediaResponse:
        with (
            contextlib.closing(self._calls.upstream(methods.UPLOAD_MEDIA)) as stream,
            stop.interrupting(stream.close),
        ):
            for message, sent in state.messages():
                if not stream.write(message):
                    break
                if progress is not None:
                    progress(sent, state.blob.size)
            return stream.finish()

    def _committed(self, upload_id: str) -> int:
        try:
            request = methods.GET_UPLOAD.request(upload_id=upload_id)
            return self._calls.unary(methods.GET_UPLOAD, request).upload.committed_size
        except NotFound:
            return 0

    def _settled(self, media: media_pb2.Media, stop: StopButton) -> media_pb2.Media:
        """Waits a while for the server's workers to have looked at it."""
        looks = int(self._calls.timeouts.idle / _LOOK_SECONDS)
        while media.state == media_pb2.MEDIA_STATE_PROCESSING and looks > 0:
            self._pause(_LOOK_SECONDS, stop)
            request = methods.GET_MEDIA.request(name=media.name)
            media = self._calls.unary(methods.GET_MEDIA, request).media
            looks -= 1
        return media

    def _pause(self, seconds: float, stop: StopButton) -> None:
        while seconds > 0.0:
            stop.check()
            self._calls.pause(min(seconds, _STOP_SECONDS))
            seconds -= _STOP_SECONDS

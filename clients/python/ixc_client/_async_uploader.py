"""Uploading, the asyncio way. The blocking twin is `_uploader`. Files are read in a thread."""

import asyncio
import contextlib
import weakref

from ixc.v1 import media_pb2, media_service_pb2
from ixc_client import _methods as methods
from ixc_client import _requests as requests
from ixc_client import _resource_replies as replies
from ixc_client._async_calls import AsyncCalls
from ixc_client._blob import Blob
from ixc_client._enclosures import Enclosures
from ixc_client._errors import IxcError, NotFound, TruncatedStream
from ixc_client._media import Media
from ixc_client._upload import Progress, TransferLimits, UploadState, transfer_limits

# Between two looks at an object that the server is still looking at.
_LOOK_SECONDS = 1.0


class AsyncUploader:
    """One for each client."""

    def __init__(self, calls: AsyncCalls) -> None:
        self._calls = calls
        self._limits: TransferLimits | None = None
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def enclose(self, enclosures: Enclosures) -> None:
        """Puts what still waits into its request, or uploads it and names it there."""
        if not enclosures.waiting:
            return
        limit = (await self.limits()).inline_bytes
        while (enclosure := enclosures.largest_beyond(limit)) is not None:
            media = await self.upload(enclosure.blob)
            enclosures.uploaded(enclosure, media.name)
        await asyncio.to_thread(enclosures.put_inside, limit)

    async def upload(
        self,
        blob: Blob,
        *,
        mime_type: str = "",
        ttl: float | None = None,
        progress: Progress | None = None,
    ) -> Media:
        """Raises what makes the bytes unusable, such as MediaUndecodable."""
        sha256 = await asyncio.to_thread(blob.sha256)
        state = UploadState(
            blob,
            sha256,
            mime_type=mime_type,
            ttl=requests.duration(ttl),
            chunk_bytes=(await self.limits()).chunk_bytes,
            retries=self._calls.retries,
        )
        lock = self._locks.setdefault(sha256, asyncio.Lock())
        async with lock:
            message = await self._send_until_done(state, progress)
        if progress is not None:
            progress(blob.size, blob.size)
        return replies.usable(await self._settled(message))

    async def limits(self) -> TransferLimits:
        if self._limits is None:
            reply = await self._calls.unary(
                methods.GET_SERVER_INFO, methods.GET_SERVER_INFO.request()
            )
            self._limits = transfer_limits(reply.server.limits)
        return self._limits

    async def _send_until_done(
        self, state: UploadState, progress: Progress | None
    ) -> media_pb2.Media:
        while True:
            try:
                if state.must_ask:
                    state.go_on_from(await self._committed(state.upload_id))
                response = await self._send(state, progress)
                if response.HasField("media"):
                    return response.media
                raise TruncatedStream("the upload was answered before it was finished")
            except IxcError as error:
                await self._calls.pause(state.failed(error))

    async def _send(
        self, state: UploadState, progress: Progress | None
    ) -> media_service_pb2.UploadMediaResponse:
        messages = state.messages()
        with contextlib.closing(self._calls.upstream(methods.UPLOAD_MEDIA)) as stream:
            while (step := await asyncio.to_thread(next, messages, None)) is not None:
                message, sent = step
                if not await stream.write(message):
                    break
                if progress is not None:
                    progress(sent, state.blob.size)
            return await stream.finish()

    async def _committed(self, upload_id: str) -> int:
        try:
            request = methods.GET_UPLOAD.request(upload_id=upload_id)
            return (await self._calls.unary(methods.GET_UPLOAD, request)).upload.committed_size
        except NotFound:
            return 0

    async def _settled(self, media: media_pb2.Media) -> media_pb2.Media:
        """Waits a while for the server's workers to have looked at it."""
        looks = int(self._calls.timeouts.idle / _LOOK_SECONDS)
        while media.state == media_pb2.MEDIA_STATE_PROCESSING and looks > 0:
            await self._calls.pause(_LOOK_SECONDS)
            request = methods.GET_MEDIA.request(name=media.name)
            media = (await self._calls.unary(methods.GET_MEDIA, request)).media
            looks -= 1
        return media

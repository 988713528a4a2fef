# ruff: noqa: N802 - the contract names these methods
"""MediaService: pictures and clips, sent once in pieces and then named in prompts."""

import asyncio
from collections.abc import AsyncIterator

from ixc.v1 import media_pb2
from ixc.v1 import media_service_pb2 as pb
from ixc.v1.media_service_pb2_grpc import MediaServiceServicer
from ixc_runtime.errors import MediaTypeUnsupported, NotOffered, ServerDraining
from ixc_service.identifiers import digest_of
from ixc_service.jobs import Desk
from ixc_service.media_store import objection
from ixc_service.paging import decode_token, encode_token, page_size
from ixc_service.store import LOCAL_OWNER, MediaFailure, MediaRecord
from ixc_service.streams import Context
from ixc_service.translate import media as messages
from ixc_service.uploads import Transfer, Uploads, UploadWish
from ixc_service.validate import media as checks

Requests = AsyncIterator[pb.UploadMediaRequest]


class MediaServicer(MediaServiceServicer):
    def __init__(self, desk: Desk, uploads: Uploads) -> None:
        self._desk = desk
        self._uploads = uploads

    async def UploadMedia(
        self, request_iterator: Requests, context: Context
    ) -> pb.UploadMediaResponse:
        if self._desk.models.with_pictures() is None:
            raise NotOffered("no model here takes pictures and clips", feature="images")
        first = await self._next(request_iterator) or pb.UploadMediaRequest()
        checks.check_spec(first, self._desk.limits)
        wish = messages.upload_wish(first.spec, LOCAL_OWNER, self._desk.limits)
        if made := await self._claimed(wish):
            return self._finished(wish, made)
        async with self._uploads.transfer(wish) as transfer:
            is_last = first.finish
            while not is_last:
                request = await self._next(request_iterator)
                if request is None:
                    return pb.UploadMediaResponse(
                        upload=messages.upload_message(
                            transfer.record, transfer.committed_size, self._uploads.expiry()
                        )
                    )
                await self._write(transfer, request)
                is_last = request.finish
            made = await transfer.finish()
        return self._finished(wish, await self._desk.media_library.settled(made))

    async def GetUpload(
        self, request: pb.GetUploadRequest, context: Context
    ) -> pb.GetUploadResponse:
        checks.check_upload_id(request.upload_id)
        record, committed = await self._uploads.progress(LOCAL_OWNER, request.upload_id)
        upload = messages.upload_message(record, committed, record.expire_time)
        return pb.GetUploadResponse(upload=upload)

    async def GetMedia(self, request: pb.GetMediaRequest, context: Context) -> pb.GetMediaResponse:
        checks.check_media_name(request.name)
        record = await self._desk.media_library.get(LOCAL_OWNER, digest_of(request.name) or "")
        return pb.GetMediaResponse(media=self._message(record))

    async def ListMedia(
        self, request: pb.ListMediaRequest, context: Context
    ) -> pb.ListMediaResponse:
        checks.check_list_media(request)
        states = messages.states(request.states)
        identity = ("media", tuple(sorted(states)))
        before = decode_token(request.page_token, tuple[float, str], *identity)
        size = page_size(request.page_size, self._desk.limits.max_page_size)
        page = await self._uploads.records.page(
            LOCAL_OWNER, before, size, self._desk.clock.now(), states=states
        )
        last = page[-1] if len(page) == size else None
        return pb.ListMediaResponse(
            media=map(self._message, page),
            next_page_token=encode_token((last.create_time, last.digest), *identity)
            if last
            else "",
        )

    async def DeleteMedia(
        self, request: pb.DeleteMediaRequest, context: Context
    ) -> pb.DeleteMediaResponse:
        checks.check_media_name(request.name)
        await self._desk.media_library.delete(
            LOCAL_OWNER, digest_of(request.name) or "", allow_missing=request.allow_missing
        )
        return pb.DeleteMediaResponse()

    # ---- uploading

    async def _next(self, requests: Requests) -> pb.UploadMediaRequest | None:
        """The next message, None at the stream's end. A server that stops waits for none."""
        message = asyncio.ensure_future(anext(requests, None))
        closing = asyncio.ensure_future(self._uploads.closing.wait())
        try:
            await asyncio.wait({message, closing}, return_when=asyncio.FIRST_COMPLETED)
            if not message.done():
                raise ServerDraining("the server is about to stop; what was committed stays")
            return message.result()
        finally:
            closing.cancel()
            message.cancel()

    async def _claimed(self, wish: UploadWish) -> MediaRecord | None:
        """The owner's object of these bytes, if there is one that did not fail."""
        made = await self._uploads.records.claim(
            wish.owner, wish.digest, wish.ttl_seconds, self._desk.clock.now()
        )
        if made is None:
            return None
        if problem := objection(wish.mime_type, made.mime_type):
            raise MediaTypeUnsupported(problem, media=made.digest)
        return await self._desk.media_library.settled(made)

    async def _write(self, transfer: Transfer, request: pb.UploadMediaRequest) -> None:
        checks.check_piece(request, self._desk.limits)
        if request.HasField("chunk"):
            chunk = request.chunk
            crc32c = chunk.crc32c if chunk.HasField("crc32c") else None
            await transfer.write(chunk.offset, chunk.data, crc32c)

    def _finished(self, wish: UploadWish, made: MediaRecord) -> pb.UploadMediaResponse:
        return pb.UploadMediaResponse(
            upload=messages.finished_upload(wish, made, self._uploads.expiry()),
            media=self._message(made),
        )

    def _message(self, record: MediaRecord) -> media_pb2.Media:
        facts = record.facts
        if facts is None or isinstance(facts, MediaFailure):
            return messages.media_message(record)
        model = self._desk.models.with_pictures()
        price = model.engine.price(facts) if model else None
        return messages.media_message(record, facts, price)

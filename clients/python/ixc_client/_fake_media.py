"""The fake server's media: uploads in pieces and the objects they become, in memory.

Nothing is decoded. What begins as an MP4 or WebM file does is a clip, everything else a picture;
all have the same size and price.
"""

import hashlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration

from ixc.v1 import content_pb2, media_pb2, media_service_pb2
from ixc_client._fake_sessions import Refusal

IMAGE_TOKENS = 100
VIDEO_TOKENS = 300
VIDEO_FRAMES = 10
INLINE_BYTES = 3 << 20
CHUNK_BYTES = 1 << 20
_TTL = Duration(seconds=86_400)


@dataclass(slots=True)
class _Upload:
    spec: media_service_pb2.UploadSpec
    data: bytearray = field(default_factory=bytearray)
    media: str = ""

    def message(self) -> media_pb2.Upload:
        return media_pb2.Upload(
            upload_id=self.spec.upload_id,
            sha256=self.spec.sha256,
            size_bytes=self.spec.size_bytes,
            committed_size=len(self.data),
            media=self.media,
        )


class FakeMedia:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uploads: dict[str, _Upload] = {}
        self._objects: dict[str, media_pb2.Media] = {}
        self._cuts: list[int] = []
        self._looks = 0

    def cut_upload(self, after: int) -> None:
        """Breaks the next stream that has brought an upload so far; works once."""
        self._cuts.append(after)

    def keep_processing(self, looks: int) -> None:
        """What is uploaded from now on becomes ACTIVE when it has been looked at so often."""
        self._looks = looks

    def upload(
        self,
        first: media_service_pb2.UploadMediaRequest,
        rest: Iterator[media_service_pb2.UploadMediaRequest],
    ) -> media_service_pb2.UploadMediaResponse:
        with self._lock:
            upload = self._begin(first.spec)
            known = self._objects.get(f"media/{first.spec.sha256}")
            if known is not None:
                upload.media = known.name
                return media_service_pb2.UploadMediaResponse(upload=upload.message(), media=known)
        is_last = first.finish
        while not is_last:
            request = next(rest, None)
            if request is None:
                return media_service_pb2.UploadMediaResponse(upload=upload.message())
            with self._lock:
                self._append(upload, request.chunk)
            is_last = request.finish
        with self._lock:
            media = self._finish(upload)
            return media_service_pb2.UploadMediaResponse(upload=upload.message(), media=media)

    def get_upload(self, upload_id: str) -> media_pb2.Upload:
        if upload_id not in self._uploads:
            raise Refusal(
                "NOT_FOUND", "UPLOAD_NOT_FOUND", f"no such upload: {upload_id}", upload=upload_id
            )
        return self._uploads[upload_id].message()

    def get(self, name: str) -> media_pb2.Media:
        if name not in self._objects:
            raise Refusal("NOT_FOUND", "MEDIA_NOT_FOUND", f"no such media: {name}", media=name)
        media = self._objects[name]
        if media.state == media_pb2.MEDIA_STATE_PROCESSING:
            self._looks -= 1
            if self._looks <= 0:
                _activate(media, bytes(self._data_of(media)))
        return media

    def matching(self, states: Iterable[int]) -> list[media_pb2.Media]:
        wanted = set(states)
        return [
            media
            for media in reversed(self._objects.values())
            if not wanted or media.state in wanted
        ]

    def delete(self, name: str, *, used_by: str, allow_missing: bool) -> None:
        if name not in self._objects and not allow_missing:
            self.get(name)
        if used_by:
            raise Refusal(
                "FAILED_PRECONDITION",
                "MEDIA_IN_USE",
                "a turn refers to it",
                media=name,
                session=used_by,
            )
        self._objects.pop(name, None)

    def check(self, contents: Iterable[content_pb2.Content]) -> None:
        """Refuses prompts that name what is not there, or not ready."""
        for content in contents:
            for part in content.parts:
                name = part.image.media or part.video.media
                if name and self.get(name).state != media_pb2.MEDIA_STATE_ACTIVE:
                    raise Refusal(
                        "FAILED_PRECONDITION", "MEDIA_NOT_READY", "not looked at yet", media=name
                    )

    def _begin(self, spec: media_service_pb2.UploadSpec) -> _Upload:
        upload = self._uploads.setdefault(spec.upload_id, _Upload(spec))
        if upload.spec != spec:
            raise Refusal(
                "ALREADY_EXISTS", "UPLOAD_ID_REUSED", "another upload", upload=spec.upload_id
            )
        return upload

    def _append(self, upload: _Upload, chunk: media_service_pb2.UploadChunk) -> None:
        if chunk.offset != len(upload.data):
            raise Refusal(
                "OUT_OF_RANGE",
                "UPLOAD_OFFSET_MISMATCH",
                f"the chunk begins at {chunk.offset}, the upload stands at {len(upload.data)}",
                committedSize=len(upload.data),
            )
        upload.data += chunk.data
        cut = next((after for after in self._cuts if len(upload.data) >= after), None)
        if cut is not None:
            self._cuts.remove(cut)
            raise Refusal("UNAVAILABLE", "", "Socket closed")

    def _finish(self, upload: _Upload) -> media_pb2.Media:
        spec, data = upload.spec, bytes(upload.data)
        if len(data) != spec.size_bytes:
            raise Refusal(
                "OUT_OF_RANGE",
                "UPLOAD_OFFSET_MISMATCH",
                f"{len(data)} of {spec.size_bytes} bytes have come",
                committedSize=len(data),
            )
        if hashlib.sha256(data).hexdigest() != spec.sha256:
            upload.data.clear()
            raise Refusal(
                "ABORTED", "UPLOAD_DIGEST_MISMATCH", "not the bytes of sha256", committedSize=0
            )
        upload.media = f"media/{spec.sha256}"
        media = media_pb2.Media(
            name=upload.media,
            mime_type=spec.mime_type or ("video/mp4" if _is_clip(data) else "image/png"),
            size_bytes=len(data),
            state=media_pb2.MEDIA_STATE_PROCESSING,
            ttl=spec.ttl if spec.HasField("ttl") else _TTL,
        )
        media.create_time.GetCurrentTime()
        media.expire_time.FromNanoseconds(
            media.create_time.ToNanoseconds() + media.ttl.ToNanoseconds()
        )
        if self._looks <= 0:
            _activate(media, data)
        self._objects[media.name] = media
        return media

    def _data_of(self, media: media_pb2.Media) -> bytearray:
        return next(upload.data for upload in self._uploads.values() if upload.media == media.name)


def _activate(media: media_pb2.Media, data: bytes) -> None:
    media.state = media_pb2.MEDIA_STATE_ACTIVE
    if not _is_clip(data):
        media.image.CopyFrom(
            media_pb2.ImageInfo(
                width=560, height=560, tiles_wide=1, tiles_high=1, tokens=IMAGE_TOKENS
            )
        )
        return
    media.video.CopyFrom(
        media_pb2.VideoInfo(
            width=560,
            height=280,
            duration=Duration(seconds=VIDEO_FRAMES),
            fps=25,
            frames=25 * VIDEO_FRAMES,
            codec="H.264",
            shown_frames=VIDEO_FRAMES,
            tiles_wide=1,
            tiles_high=3,
            tokens=VIDEO_TOKENS,
        )
    )


def _is_clip(data: bytes) -> bool:
    return data[4:8] == b"ftyp" or data.startswith(b"\x1a\x45\xdf\xa3")

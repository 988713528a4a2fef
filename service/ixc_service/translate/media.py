"""Uploads and media: from requests to the service's values, and from records to resources."""

from collections.abc import Iterable

from ixc.v1 import media_pb2, media_service_pb2
from ixc_runtime import ImageInfo, MediaPrice, VideoInfo
from ixc_service.identifiers import media_name
from ixc_service.limits import Limits
from ixc_service.media_library import failure_of
from ixc_service.status import status_of
from ixc_service.store import MediaRecord, MediaState, UploadRecord
from ixc_service.translate.events import duration
from ixc_service.translate.requests import seconds
from ixc_service.translate.resources import timestamp
from ixc_service.uploads import UploadWish

_STATES = {
    MediaState.PROCESSING: media_pb2.MEDIA_STATE_PROCESSING,
    MediaState.ACTIVE: media_pb2.MEDIA_STATE_ACTIVE,
    MediaState.FAILED: media_pb2.MEDIA_STATE_FAILED,
}
_STATES_BY_NUMBER = {number: state for state, number in _STATES.items()}


def upload_wish(spec: media_service_pb2.UploadSpec, owner: str, limits: Limits) -> UploadWish:
    has_ttl = spec.HasField("ttl")
    return UploadWish(
        owner=owner,
        upload_id=spec.upload_id or spec.sha256,
        digest=spec.sha256,
        mime_type=spec.mime_type,
        size_bytes=spec.size_bytes,
        ttl_seconds=seconds(spec.ttl) if has_ttl else limits.default_media_ttl_seconds,
    )


def states(asked: Iterable[media_pb2.MediaState.ValueType]) -> frozenset[MediaState]:
    return frozenset(_STATES_BY_NUMBER[number] for number in asked)


def upload_message(
    record: UploadRecord, committed_size: int, expire_time: float
) -> media_pb2.Upload:
    return media_pb2.Upload(
        upload_id=record.upload_id,
        sha256=record.digest,
        size_bytes=record.size_bytes,
        committed_size=committed_size,
        media=media_name(record.digest) if record.is_finished else "",
        expire_time=timestamp(expire_time),
    )


def finished_upload(wish: UploadWish, made: MediaRecord, expire_time: float) -> media_pb2.Upload:
    """Of an object that is there, by this upload or by an earlier one."""
    return media_pb2.Upload(
        upload_id=wish.upload_id,
        sha256=made.digest,
        size_bytes=made.size_bytes,
        committed_size=made.size_bytes,
        media=media_name(made.digest),
        expire_time=timestamp(expire_time),
    )


def media_message(
    record: MediaRecord,
    facts: ImageInfo | VideoInfo | None = None,
    price: MediaPrice | None = None,
) -> media_pb2.Media:
    """`facts` and `price` of an ACTIVE object."""
    message = media_pb2.Media(
        name=media_name(record.digest),
        mime_type=record.mime_type,
        size_bytes=record.size_bytes,
        state=_STATES[record.state],
        create_time=timestamp(record.create_time),
        ttl=duration(record.ttl_seconds),
        expire_time=timestamp(record.expire_time),
    )
    if record.state is MediaState.FAILED:
        message.error.CopyFrom(status_of(failure_of(record)))
    elif isinstance(facts, ImageInfo) and price:
        message.image.CopyFrom(_image(facts, price))
    elif isinstance(facts, VideoInfo) and price:
        message.video.CopyFrom(_video(facts, price))
    return message


def _image(facts: ImageInfo, price: MediaPrice) -> media_pb2.ImageInfo:
    return media_pb2.ImageInfo(
        width=facts.width,
        height=facts.height,
        tiles_wide=price.tiles_wide,
        tiles_high=price.tiles_high,
        tokens=price.num_tokens,
    )


def _video(facts: VideoInfo, price: MediaPrice) -> media_pb2.VideoInfo:
    return media_pb2.VideoInfo(
        width=facts.width,
        height=facts.height,
        duration=duration(facts.duration_seconds),
        fps=facts.fps,
        frames=facts.num_frames,
        codec=facts.codec,
        shown_frames=price.num_frames,
        tiles_wide=price.tiles_wide,
        tiles_high=price.tiles_high,
        tokens=price.num_tokens,
    )

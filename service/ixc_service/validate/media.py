"""Checks of MediaService's requests."""

from ixc.v1 import media_pb2, media_service_pb2
from ixc_service.identifiers import digest_of, is_digest
from ixc_service.limits import Limits
from ixc_service.validate.findings import Bounds, Findings

_MAX_MIME_TYPE_BYTES = 127


def check_spec(request: media_service_pb2.UploadMediaRequest, limits: Limits) -> None:
    """The first message of an upload."""
    findings, spec = Findings(), request.spec
    if not request.HasField("spec"):
        findings.add("spec", "MISSING", "must be in the first message")
        findings.conclude()
    findings.upload_id("spec.upload_id", spec.upload_id, required=False)
    if not is_digest(spec.sha256):
        findings.add("spec.sha256", "MALFORMED", "must be 64 characters of lower-case hex")
    largest = max(limits.max_image_bytes, limits.max_video_bytes)
    if spec.mime_type.lower().startswith("image/"):
        largest = limits.max_image_bytes
    findings.number("spec.size_bytes", spec.size_bytes, Bounds(1, largest))
    findings.size("spec.mime_type", spec.mime_type, _MAX_MIME_TYPE_BYTES)
    if spec.HasField("ttl"):
        findings.duration("spec.ttl", spec.ttl, limits.max_media_ttl_seconds)
    findings.conclude()


def check_piece(request: media_service_pb2.UploadMediaRequest, limits: Limits) -> None:
    """A later message of an upload."""
    findings = Findings()
    if request.HasField("spec"):
        findings.add("spec", "NOT_ALLOWED", "must be in the first message only")
    elif request.HasField("chunk"):
        size = len(request.chunk.data)
        if not 1 <= size <= limits.max_upload_chunk_bytes:
            allowed = f"1 to {limits.max_upload_chunk_bytes}"
            findings.add("chunk.data", "BAD_LENGTH", f"has {size} bytes, {allowed} are allowed")
    elif not request.finish:
        findings.add("chunk", "MISSING", "must be set, or finish")
    findings.conclude()


def check_upload_id(upload_id: str) -> None:
    findings = Findings()
    findings.upload_id("upload_id", upload_id)
    findings.conclude()


def check_media_name(name: str) -> None:
    findings = Findings()
    if digest_of(name) is None:
        findings.add("name", "MALFORMED", "must be media/{sha256}, in lower-case hex")
    findings.conclude()


def check_list_media(request: media_service_pb2.ListMediaRequest) -> None:
    findings = Findings()
    findings.enums("states", request.states, media_pb2.MediaState.DESCRIPTOR)
    if media_pb2.MEDIA_STATE_UNSPECIFIED in request.states:
        findings.add("states", "NOT_ALLOWED", "nothing is in MEDIA_STATE_UNSPECIFIED")
    findings.conclude()

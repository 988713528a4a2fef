"""The table of limits. GetServerInfo returns it; `validate.py` and the streams apply it.

Fields bear the names of ixc.v1.Limits, durations with `_seconds` behind. Each is also a flag, an
IXC_… variable and a key of the settings file's [limits]. Bounds that follow from the model (context
length, queue) are not here: they are facts, not choices.
"""

from dataclasses import dataclass
from typing import Annotated

from ixc_runtime import MAX_VIDEO_FRAMES

MIB = 1024 * 1024
GIB = 1024 * MIB

# Beyond some 10 kB of trailers the client's library reports its own error instead of ours, beyond
# 7 kB a proxy does: not for operators to change.
MAX_ERROR_DETAILS_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    # One request
    max_message_bytes: Annotated[int, "largest gRPC message, either way, in bytes"] = 4 * MIB
    max_inline_image_bytes: Annotated[int, "encoded images and clips in one request"] = 3 * MIB
    max_image_pixels: Annotated[int, "pixels of an image, checked before decoding"] = 100_000_000
    max_images: Annotated[int, "images and clips in one request, and in one session"] = 32
    max_hd_num: Annotated[int, "tile budget of an image; the model's maximum wins"] = 36
    max_output_tokens: Annotated[int, "largest max_output_tokens of a request"] = 8192
    max_stop_sequences: Annotated[int, "stop sequences in one request"] = 16
    max_stop_sequence_bytes: Annotated[int, "bytes of a stop sequence or bad word"] = 256
    max_stop_token_ids: Annotated[int, "stop token ids in one request"] = 64
    max_logit_bias: Annotated[int, "entries of logit_bias in one request"] = 1024
    max_bad_words: Annotated[int, "bad words in one request"] = 64
    max_top_logprobs: Annotated[int, "alternatives reported for a token"] = 20
    max_labels: Annotated[int, "labels of a session or a generation"] = 64
    max_page_size: Annotated[int, "largest page of a List call"] = 1000
    max_metadata_bytes: Annotated[int, "metadata of a request"] = 8192

    # One generation
    max_queue_wait_seconds: Annotated[float, "longest queue_timeout, and its default"] = 30.0
    max_generation_timeout_seconds: Annotated[
        float, "longest generation_timeout, and its default"
    ] = 600.0
    default_resume_grace_seconds: Annotated[float, "resume_grace where unset"] = 15.0
    max_resume_grace_seconds: Annotated[float, "longest resume_grace"] = 300.0
    max_detached_generations: Annotated[int, "generations that nobody watches"] = 64
    generation_retention_seconds: Annotated[float, "an ended generation is kept this long"] = 600.0
    max_event_log_events: Annotated[int, "events kept of one generation"] = 65_536
    max_event_log_bytes: Annotated[int, "bytes of events kept of one generation"] = 8 * MIB

    # One stream
    heartbeat_interval_seconds: Annotated[float, "longest silence in a stream"] = 10.0
    slow_consumer_timeout_seconds: Annotated[float, "a reader may take nothing for this long"] = (
        60.0
    )

    # Uploaded media
    max_upload_chunk_bytes: Annotated[int, "bytes of a piece of an upload"] = MIB
    max_image_bytes: Annotated[int, "bytes of an uploaded image"] = 50 * MIB
    max_video_bytes: Annotated[int, "bytes of an uploaded clip"] = GIB
    max_video_pixels: Annotated[int, "pixels of a clip's frame, checked before decoding"] = (
        4096 * 2304
    )
    max_video_duration_seconds: Annotated[float, "length of a clip"] = 7200.0
    max_video_frames: Annotated[int, "frames shown of a clip; 64 at most"] = MAX_VIDEO_FRAMES
    max_media: Annotated[int, "uploaded objects and unfinished uploads of a caller"] = 1000
    max_media_bytes: Annotated[int, "bytes of a caller's objects and unfinished uploads"] = 10 * GIB
    default_media_ttl_seconds: Annotated[float, "an uploaded object's ttl where unset"] = 86_400.0
    max_media_ttl_seconds: Annotated[float, "longest ttl of an uploaded object"] = 604_800.0
    upload_ttl_seconds: Annotated[float, "an upload that nobody goes on with is kept this long"] = (
        86_400.0
    )

    # Long work
    max_running_jobs: Annotated[int, "jobs of merging and quantising at one time"] = 1
    max_queued_operations: Annotated[int, "operations that may wait"] = 16
    operation_retention_seconds: Annotated[
        float, "the record of an operation that is done is kept this long"
    ] = 2_592_000.0
    max_calibration_samples: Annotated[int, "samples of a Quantize request"] = 512

    # Sessions and connections
    default_session_ttl_seconds: Annotated[float, "a session's ttl where unset"] = 3600.0
    max_session_ttl_seconds: Annotated[float, "longest ttl of a session"] = 86_400.0
    max_sessions: Annotated[int, "sessions held at one time"] = 10_000
    max_concurrent_streams: Annotated[int, "calls at one time on one connection"] = 1024
